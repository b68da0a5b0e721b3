//! What control promises when guesses are bad, on a real model: `auto` and two drafters that lie, against plain decoding.
//!
//! `cargo bench --bench floors -- --target FILE [--draft FILE] --prompts FILE_OR_FOLDER [--prompts-per-kind 2] [-n 256]
//! [--temperature 0] [--repeats 3] [--json FILE]`
//!
//! `random` guesses a token at random each time and is sure of it. `turncoat` knows the plain text and guesses right for
//! 200 tokens, with the same conviction ever after; at a temperature above 0 nobody knows the text, so it is left out
//! there. `plain` is plain decoding once more: how far its ratio is from 1 is the machine's noise. Every prompt is continued
//! in every way, one after the other and in an order that rotates, and every way has a control of its own, kept from text
//! to text. The floor is 0.98 of plain decoding, and it fails where the whole 95 % interval lies below.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use foretoken::config::{Config, Setup};
use foretoken::control::Control;
use foretoken::dice::{SeededDice, Stream};
use foretoken::engine::Engine;
use foretoken::generate::{generate, Limits};
use foretoken::llama::host::LlamaHost;
use foretoken::prompts;
use foretoken::registry::Registry;
use foretoken::report::{Comparison, Method, Run};
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
    #[arg(long)]
    target: PathBuf,
    /// The draft model of `auto`; without it, what is found beside the target.
    #[arg(long)]
    draft: Option<PathBuf>,
    /// Prompts, as for `foretoken bench`.
    #[arg(long, required = true, num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Use only the first prompts of each kind.
    #[arg(long, default_value_t = 2)]
    prompts_per_kind: usize,
    /// Tokens after each prompt.
    #[arg(short = 'n', long, default_value_t = 256)]
    max_tokens: usize,
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Write every row as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A way of continuing a text.
struct Way {
    name: &'static str,
    drafter: Option<Box<dyn Drafter>>,
    control: Option<Control>,
}

impl Floors {
    fn execute(&self) -> Result<(), Error> {
        let setup = self.setup()?;
        let registry = Registry::builtin();
        let mut host = LlamaHost::load(&setup, &registry)?;
        let prompts = prompts::first_of_each_kind(prompts::read(&self.prompts)?, self.prompts_per_kind);
        let plain_text = Arc::new(Mutex::new(Vec::new()));
        let mut ways = self.ways(&setup, &mut host, &plain_text)?;
        let target = Box::new(host.open_target()?);
        let mut engine = Engine::new(target, None, setup.sampling.clone(), setup.shape, setup.seed.unwrap_or(0));
        let mut runs = Vec::new();
        for repeat in 0..self.repeats {
            for (i, prompt) in prompts.iter().enumerate() {
                let tokens = host.model().tokenise(&prompt.text, true)?;
                // Plain decoding is first: the turncoat must know the text. The others rotate after it.
                for turn in 0..ways.len() {
                    let method = if turn == 0 { 0 } else { 1 + (turn + repeat + i) % (ways.len() - 1) };
                    let run = self.run(&mut engine, &mut ways[method], &host, &tokens, repeat)?;
                    if method == 0 {
                        *plain_text.lock().unwrap_or_else(PoisonError::into_inner) =
                            [&tokens[..], &run.tokens].concat();
                    }
                    runs.push(Run {
                        method,
                        prompt: i,
                        repeat,
                        tokens: run.tokens,
                        stats: run.stats,
                        joules: None,
                        control: None,
                    });
                }
            }
        }
        let about = |way: &Way| Method {
            name: way.name.to_owned(),
            about: way.name.to_owned(),
            is_adaptive: false,
            synthetic: None,
        };
        let methods: Vec<Method> = ways.iter().map(about).collect();
        let comparison = Comparison { methods, prompts, runs, greedy: setup.sampling.is_greedy() };
        println!("{}", comparison.table());
        self.judge(&comparison);
        self.store(&comparison)
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

    fn ways(&self, setup: &Setup, host: &mut LlamaHost<'_>, text: &Arc<Mutex<Vec<Token>>>) -> Result<Vec<Way>, Error> {
        let auto = host.build(&setup.drafter.kind, &setup.drafter.settings)?;
        let n_vocab = host.target().n_vocab;
        let liar = |right| -> Option<Box<dyn Drafter>> {
            let dice = SeededDice::new(1, Stream::Draft);
            Some(Box::new(Liar { text: text.clone(), right, prompt: 0, n_vocab, dice }))
        };
        let mut ways = vec![
            Way { name: "none", drafter: None, control: None },
            Way { name: "plain", drafter: None, control: None },
            Way { name: "auto", drafter: Some(auto), control: Some(Control::new()) },
            Way { name: "random", drafter: liar(0), control: Some(Control::new()) },
        ];
        if setup.sampling.is_greedy() {
            ways.push(Way { name: "turncoat", drafter: liar(RIGHT), control: Some(Control::new()) });
        }
        Ok(ways)
    }

    fn run(
        &self,
        engine: &mut Engine,
        way: &mut Way,
        host: &LlamaHost<'_>,
        prompt: &[Token],
        repeat: usize,
    ) -> Result<foretoken::generate::Generation, Error> {
        let shape = if way.drafter.is_some() { WIDEST } else { Shape { max_nodes: 0, depth: 0, width: 1 } };
        engine.set_drafter(way.drafter.take());
        engine.set_control(way.control.take());
        engine.set_shape(shape);
        engine.forget();
        engine.reseed(repeat as u64);
        let limits = Limits { max_tokens: self.max_tokens, stop: Vec::new(), ignore_end: true };
        let never = AtomicBool::new(false);
        let text = generate(engine, host.model().as_ref(), prompt, &limits, &never, &mut |_| true);
        way.drafter = engine.set_drafter(None);
        way.control = engine.set_control(None);
        Ok(text?)
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
            "methods": rows,
        });
        Ok(std::fs::write(path, serde_json::to_vec(&report)?)?)
    }
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

const FLOOR: f64 = 0.98;
