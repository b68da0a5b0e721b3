//! What control promises when guesses are bad or the machine is busy, on a real model: `auto` and two drafters that lie,
//! against plain decoding.
//!
//! `cargo bench --bench floors -- [--target FILE] [--draft FILE] [--prompts FILE_OR_FOLDER] [--prompts-per-kind 2] [-n 256]
//! [--temperature 0] [--repeats 1] [--turns 16] [--twice] [--busy THREADS] [--json FILE]`; without a target, the bundled one.
//!
//! `random` guesses a token at random each time and is sure of it. `turncoat` knows the plain text and guesses right for
//! 200 tokens, with the same conviction ever after; at a temperature above 0 nobody knows the text, so it is left out
//! there. The plain text is decoded for it beforehand. With `--twice`, `plain` is plain decoding once more: how far its
//! ratio is from 1 is the machine's noise. Every prompt is continued in every way, a few tokens each in turn, and every way
//! has a context and a control of its own, kept from text to text.
//! The floor is 0.98 of plain decoding, and it fails where the whole 95 % interval lies below; turns count towards the
//! interval like repeats.
//!
//! With `--busy`, so many threads do nothing but count beside it, and `auto`, which chooses its number of threads, is
//! compared with `auto` on every number set by hand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use foretoken::config::{Config, Setup};
use foretoken::control::Control;
use foretoken::dice::{SeededDice, Stream};
use foretoken::engine::Engine;
use foretoken::generate::{Continuation, Generation, Limits, Stop};
use foretoken::llama::host::LlamaHost;
use foretoken::prompts;
use foretoken::registry::Registry;
use foretoken::report::{Comparison, Method, Run};
use foretoken::threads::{Threads, Workers};
use foretoken_drafter::{Dice, DraftError, DraftRequest, Drafter, Host, Law, NodeId, Shape, Token, TokenTree};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    foretoken::llama::threads::restart_with_patience();
    match Floors::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Liars against plain decoding.
#[derive(Parser)]
struct Floors {
    /// The target: a GGUF file.
    #[arg(long, default_value = "models/target.gguf")]
    target: PathBuf,
    /// The draft model of `auto`; without it, what is found beside the target.
    #[arg(long)]
    draft: Option<PathBuf>,
    /// Prompts, as for `foretoken bench`.
    #[arg(long, default_value = "benches/prompts", num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Use only the first prompts of each kind.
    #[arg(long, default_value_t = 2)]
    prompts_per_kind: usize,
    /// Tokens after each prompt.
    #[arg(short = 'n', long, default_value_t = 256)]
    max_tokens: usize,
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    /// Tokens of a turn.
    #[arg(long, default_value_t = 16)]
    turns: usize,
    /// Decode plainly once more, to see the noise.
    #[arg(long)]
    twice: bool,
    /// Threads that keep the machine busy meanwhile.
    #[arg(long, default_value_t = 0)]
    busy: usize,
    /// Write every row as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A way of continuing a text.
struct Way {
    name: String,
    engine: Engine,
    /// Fixed by hand, or where its control begins.
    threads: usize,
}

/// A text under way.
struct Course {
    way: usize,
    text: Continuation,
    threads: usize,
    stop: Option<Stop>,
}

impl Floors {
    fn execute(&self) -> Result<(), Error> {
        let mut setup = self.setup()?;
        let registry = Registry::builtin();
        let mut host = LlamaHost::load(&setup, &registry)?;
        setup.sampling.forbidden = host.model().ends();
        let prompts = prompts::first_of_each_kind(prompts::read(&self.prompts)?, self.prompts_per_kind);
        let plain_text = Arc::new(Mutex::new(Vec::new()));
        let mut ways = match self.busy {
            0 => self.liars(&setup, &mut host, &plain_text)?,
            _ => self.by_hand(&setup, &mut host)?,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..self.busy).map(|_| busy(is_over.clone())).collect();
        let mut runs = Vec::new();
        for repeat in 0..self.repeats {
            for (i, prompt) in prompts.iter().enumerate() {
                let tokens = host.model().tokenise(&prompt.text, true)?;
                let texts = self.side_by_side(&mut ways, &host, &tokens, repeat, &plain_text)?;
                runs.extend(texts.into_iter().map(|(method, text)| Run {
                    method,
                    prompt: i,
                    repeat,
                    tokens: text.tokens,
                    stats: text.stats,
                    joules: None,
                    control: None,
                }));
                eprintln!("repeat {} of {}: {}", repeat + 1, self.repeats, prompt.id);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|thread| drop(thread.join()));
        let about = |way: &Way| Method {
            name: way.name.clone(),
            about: way.name.clone(),
            is_adaptive: self.busy > 0 && way.name == "auto",
            synthetic: None,
        };
        let methods: Vec<Method> = ways.iter().map(about).collect();
        let turn = Some(self.turns);
        let comparison = Comparison { methods, prompts, runs, greedy: setup.sampling.is_greedy(), turn };
        let stored = self.store(&comparison);
        println!("{}", comparison.table());
        if self.busy == 0 {
            self.judge(&comparison);
        }
        stored
    }

    fn setup(&self) -> Result<Setup, Error> {
        let mut config = Config::default();
        config.set("target.model", self.target.to_string_lossy().into_owned().into())?;
        config.set("sampling.temperature", f64::from(self.temperature).into())?;
        config.set("drafter.kind", "auto".into())?;
        if let Some(draft) = &self.draft {
            config.set("drafter.model", draft.to_string_lossy().into_owned().into())?;
        }
        Ok(config.setup()?)
    }

    fn liars(&self, setup: &Setup, host: &mut LlamaHost<'_>, text: &Arc<Mutex<Vec<Token>>>) -> Result<Vec<Way>, Error> {
        let n_vocab = host.target().n_vocab;
        let liar = |right| -> Option<Box<dyn Drafter>> {
            let dice = SeededDice::new(1, Stream::Draft);
            Some(Box::new(Liar { text: text.clone(), right, prompt: 0, n_vocab, dice }))
        };
        let auto = Some(host.build(&setup.drafter.kind, &setup.drafter.settings)?);
        let mut ways = vec![way("none", setup, host, None, None)?];
        if self.twice {
            ways.push(way("plain", setup, host, None, None)?);
        }
        ways.push(way("auto", setup, host, auto, None)?);
        ways.push(way("random", setup, host, liar(0), None)?);
        if setup.sampling.is_greedy() {
            ways.push(way(TURNCOAT, setup, host, liar(RIGHT), None)?);
        }
        Ok(ways)
    }

    fn by_hand(&self, setup: &Setup, host: &mut LlamaHost<'_>) -> Result<Vec<Way>, Error> {
        let mut ways = vec![way("none", setup, host, None, None)?];
        let most = host.context_options().threads;
        for threads in (1..=most).map(Some).chain([None]) {
            let auto = Some(host.build(&setup.drafter.kind, &setup.drafter.settings)?);
            let name = threads.map_or_else(|| "auto".to_owned(), |threads| format!("by-hand-{threads}"));
            ways.push(way(&name, setup, host, auto, threads)?);
        }
        Ok(ways)
    }

    /// `prompt` continued in every way, a turn each.
    fn side_by_side(
        &self,
        ways: &mut [Way],
        host: &LlamaHost<'_>,
        prompt: &[Token],
        repeat: usize,
        plain_text: &Mutex<Vec<Token>>,
    ) -> Result<Vec<(usize, Generation)>, Error> {
        let never = AtomicBool::new(false);
        // The turncoat must know what plain decoding says, some tokens beyond its end too. Nobody's time.
        if ways.iter().any(|way| way.name == TURNCOAT) {
            let limits = Limits { max_tokens: self.max_tokens + BEYOND, stop: Vec::new(), ignore_end: true };
            host.threads().set(ways[0].threads);
            let plain = &mut ways[0].engine;
            plain.forget();
            let mut text = Continuation::begin(plain, prompt, &limits, &never)?;
            while text.step(plain, host.model().as_ref(), &never)?.is_none() {}
            *plain_text.lock().unwrap_or_else(PoisonError::into_inner) = [prompt, text.tokens()].concat();
        }
        let limits = Limits { max_tokens: self.max_tokens, stop: Vec::new(), ignore_end: true };
        let mut courses = Vec::new();
        for (i, way) in ways.iter_mut().enumerate() {
            way.engine.forget();
            way.engine.reseed(repeat as u64);
            host.threads().set(way.threads);
            let text = Continuation::begin(&mut way.engine, prompt, &limits, &never)?;
            courses.push(Course { way: i, text, threads: host.threads().get(), stop: None });
        }
        let mut goal = 0;
        while courses.iter().any(|course| course.stop.is_none()) {
            goal += self.turns.max(1);
            for course in courses.iter_mut().filter(|course| course.stop.is_none()) {
                host.threads().set(course.threads);
                while course.stop.is_none() && course.text.tokens().len() < goal {
                    let engine = &mut ways[course.way].engine;
                    course.stop = course.text.step(engine, host.model().as_ref(), &never)?;
                }
                course.threads = host.threads().get();
            }
            // Whoever came first comes last.
            courses.rotate_left(1);
        }
        Ok(courses.into_iter().map(|course| (course.way, course.text.end(Stop::Length))).collect())
    }

    fn judge(&self, comparison: &Comparison) {
        for (i, method) in comparison.methods.iter().enumerate().skip(1) {
            for row in comparison.rows(i) {
                if let Some((least, most)) = row.ratio_interval_95.filter(|(_, most)| *most < FLOOR) {
                    println!("{} fails on {}: {least:.3} to {most:.3} of plain", method.name, row.kind);
                }
            }
        }
    }

    fn store(&self, comparison: &Comparison) -> Result<(), Error> {
        let Some(path) = &self.json else { return Ok(()) };
        let rows: Vec<_> = (1..comparison.methods.len())
            .map(|i| serde_json::json!({ "method": comparison.methods[i].name, "rows": comparison.rows(i) }))
            .collect();
        let report = serde_json::json!({
            "target": self.target.file_name().map(|n| n.to_string_lossy().into_owned()),
            "temperature": self.temperature, "max_tokens": self.max_tokens, "repeats": self.repeats,
            "turns": self.turns, "busy": self.busy, "methods": rows, "against_best": comparison.against_best(),
            "ways": comparison.methods.iter().map(|way| &way.name).collect::<Vec<_>>(),
            "prompts": comparison.prompts.iter().map(|prompt| &prompt.id).collect::<Vec<_>>(), "runs": &comparison.runs,
        });
        Ok(std::fs::write(path, serde_json::to_vec(&report)?)?)
    }
}

/// A way with an engine of its own; adaptive if it has a drafter, its threads too unless they are set by hand.
fn way(
    name: &str,
    setup: &Setup,
    host: &LlamaHost<'_>,
    drafter: Option<Box<dyn Drafter>>,
    by_hand: Option<usize>,
) -> Result<Way, Error> {
    let most = host.context_options().threads;
    let control = drafter.is_some().then(|| match by_hand {
        Some(_) => Control::new(),
        None => Control::new().with_threads(Threads::new(Arc::new(host.threads().clone()), most).explore(None)),
    });
    let shape = if drafter.is_some() { WIDEST } else { Shape { max_nodes: 0, depth: 0, width: 1 } };
    let seed = setup.seed.unwrap_or(0);
    let mut engine = Engine::new(Box::new(host.open_target()?), drafter, setup.sampling.clone(), shape, seed);
    engine.set_control(control);
    Ok(Way { name: name.to_owned(), engine, threads: by_hand.unwrap_or(most) })
}

/// A thread that does nothing but count.
fn busy(is_over: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut count = 0_u64;
        while !is_over.load(Ordering::Relaxed) {
            count = std::hint::black_box(count.wrapping_add(1));
        }
        count
    })
}

/// Guesses right while the text has fewer than `right` new tokens, then at random, always sure of itself.
struct Liar {
    text: Arc<Mutex<Vec<Token>>>,
    right: usize,
    prompt: usize,
    n_vocab: usize,
    dice: SeededDice,
}

impl Drafter for Liar {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = Some(NodeId::ROOT);
        let mut place = request.context.len();
        while let Some(node) = at {
            let known = text.get(place).filter(|_| place < self.prompt + self.right).copied();
            let token = match known {
                Some(token) => token,
                None => self.dice.pick(&vec![1.0; self.n_vocab]) as Token,
            };
            at = tree.add(node, token, 0.9);
            place += 1;
        }
        Ok(())
    }

    fn commit(&mut self, commit: &foretoken_drafter::Commit<'_>) -> Result<(), DraftError> {
        if commit.round.is_none() {
            self.prompt = commit.context.len();
        }
        Ok(())
    }
}

const WIDEST: Shape = Shape { max_nodes: 16, depth: 16, width: 4 };

/// New tokens for which the turncoat is right.
const RIGHT: usize = 200;

const TURNCOAT: &str = "turncoat";

/// Tokens of the plain text beyond the end: more than a tree is deep.
const BEYOND: usize = 32;

const FLOOR: f64 = 0.98;
