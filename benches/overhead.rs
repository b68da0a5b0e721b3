//! What foretoken adds to llama.cpp: time per token, time outside llama.cpp's calls, memory.
//!
//! `cargo bench --bench overhead -- --target FILE [--draft FILE] [--threads N] [--pairs 20] [-n 128]
//! [--json FILE]`; without models, the bundled ones.
//!
//! 1. Plain decoding by the engine against a bare `llama_decode` loop written here, in pairs.
//! 2. The share of decoding with a draft model that no llama.cpp call accounts for, from the plan of a round to its text:
//!    in rounds of 16 nodes, and in those that control chooses.
//! 3. Anonymous memory of either kind of plain decoding, each in a process of its own (Linux).

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretoken::control::Control;
use foretoken::engine::Engine;
use foretoken::generate::{Continuation, Generation, Limits};
use foretoken::llama::context::{default_threads, time_in_llama, Context, ContextOptions};
use foretoken::llama::model::{LoadOptions, Model};
use foretoken::llama::scorer::Scorer;
use foretoken::sampler::{arg_max, Sampling};
use foretoken::spread::{interval, median, quartiles, Quotient};
use foretoken_drafter::{Drafter, Shape, Token};
use foretoken_drafter_model::ModelDrafter;
use llama_cpp_sys_2 as sys;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    match Arguments::parse().and_then(|arguments| arguments.execute()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    target: PathBuf,
    draft: Option<PathBuf>,
    threads: usize,
    pairs: usize,
    tokens: usize,
    json: Option<PathBuf>,
    /// Only decode this way and print the process's memory: how the program calls itself.
    child: Option<String>,
}

impl Arguments {
    fn parse() -> Result<Arguments> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let (mut target, mut draft) = (None, None);
        let mut rest = Arguments {
            target: models.join("target.gguf"),
            draft: None,
            threads: default_threads(),
            pairs: 20,
            tokens: 128,
            json: None,
            child: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |text: String| text.parse().ok().filter(|&n| n > 0).ok_or(format!("`{text}` is no count"));
            match word.as_str() {
                "--bench" => {} // cargo's own
                "--target" => target = Some(PathBuf::from(value()?)),
                "--draft" => draft = Some(PathBuf::from(value()?)),
                "--threads" => rest.threads = number(value()?)?,
                "--pairs" => rest.pairs = number(value()?)?,
                "-n" => rest.tokens = number(value()?)?,
                "--json" => rest.json = Some(PathBuf::from(value()?)),
                "--child" => rest.child = Some(value()?),
                other => {
                    return Err(format!(
                        "unknown argument `{other}`; known are --target, --draft, --threads, --pairs, -n, --json"
                    ))
                }
            }
        }
        // The bundled draft model fits the bundled target only.
        rest.draft = draft.or_else(|| target.is_none().then(|| models.join("draft.gguf")));
        rest.target = target.unwrap_or(rest.target);
        Ok(rest)
    }

    fn execute(&self) -> Result<()> {
        match self.child.as_deref() {
            Some("bare") => return print_memory(Bare::load(self)?.run(self.tokens).map(drop)),
            Some("engine") => return print_memory(Plain::load(self)?.run(self.tokens).map(drop)),
            _ => {}
        }
        let speed = self.speed()?;
        let outside = self.draft.as_ref().map(|draft| self.outside(draft)).transpose()?;
        let memory = self.memory()?;
        println!("{} threads, {} tokens, {}", self.threads, self.tokens, name(&self.target));
        println!("{:<44} {:>12} {:>22} {:>14}", "", "median", "quartiles", "95 % range");
        speed.print("plain, bare loop / engine, time", "");
        for outside in outside.iter().flatten() {
            outside.share.print(&format!("{}, outside llama.cpp", outside.what()), " %");
            outside.per_round.print("the same, per round", " us");
        }
        if let Some((engine, bare)) = &memory {
            engine.print("anonymous memory, engine", " MiB");
            bare.print("anonymous memory, bare loop", " MiB");
        }
        let Some(file) = &self.json else { return Ok(()) };
        let report = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "llama_cpp": foretoken::llama::version().0,
            "target": name(&self.target), "draft": self.draft.as_deref().map(name), "threads": self.threads,
            "tokens": self.tokens, "pairs": self.pairs,
            "engine_to_bare": speed.json(),
            "outside": outside.as_ref().map(|both| both.iter().map(Outside::json).collect::<Vec<_>>()),
            "rss_anon_mib": memory.as_ref().map(|(e, b)| serde_json::json!({ "engine": e.json(), "bare": b.json() })),
        });
        std::fs::write(file, format!("{report}\n")).map_err(|e| format!("cannot write {}: {e}", file.display()))
    }

    /// Engine and bare loop in turns, the first of each pair alternating; the engine's speed over the loop's.
    fn speed(&self) -> Result<Spread> {
        let (mut engine, mut bare) = (Plain::load(self)?, Bare::load(self)?);
        let (texts, mut ratios) = ((engine.run(self.tokens)?.1, bare.run(self.tokens)?.1), Vec::new());
        if texts.0 != texts.1 {
            eprintln!("warning: engine and bare loop decode different texts; a near-tie, or one of them is wrong");
        }
        for pair in 0..self.pairs {
            let first = (pair % 2 == 0).then(|| engine.run(self.tokens)).transpose()?;
            let bare = bare.run(self.tokens)?.0;
            let engine = first.map_or_else(|| engine.run(self.tokens), Ok)?.0;
            ratios.push(bare.as_secs_f64() / engine.as_secs_f64());
        }
        Ok(Spread(ratios))
    }

    /// Decoding with a draft model, less the time in llama.cpp's calls on either model: in a fixed shape, then with control.
    fn outside(&self, draft: &Path) -> Result<[Outside; 2]> {
        let mut engine = Plain::load(self)?;
        let model = Model::load(draft, &LoadOptions::default()).map_err(|e| e.to_string())?;
        if let Some(difference) = engine.model.vocabulary_difference(&model) {
            return Err(format!("{} has another vocabulary than the target: {difference}", name(draft)));
        }
        let scorer = Scorer::new(Context::new(model, &self.options()).map_err(|e| e.to_string())?);
        let drafter: Box<dyn Drafter> = Box::new(ModelDrafter::new(Box::new(scorer)));
        engine.engine.set_drafter(Some(drafter));
        engine.engine.set_shape(TREE);
        let fixed = self.outside_in_pairs(&mut engine, false)?;
        engine.engine.set_control(Some(Control::new()));
        Ok([fixed, self.outside_in_pairs(&mut engine, true)?])
    }

    fn outside_in_pairs(&self, engine: &mut Plain, controlled: bool) -> Result<Outside> {
        engine.outside(self.tokens)?; // buffers grow at first use
        let (mut shares, mut per_round, mut nodes) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..self.pairs {
            let (share, each, drafted) = engine.outside(self.tokens)?;
            shares.push(100.0 * share);
            per_round.push(1e6 * each);
            nodes = drafted;
        }
        Ok(Outside { share: Spread(shares), per_round: Spread(per_round), nodes, controlled })
    }

    /// Anonymous memory after decoding, in MiB, of this program called three times each way.
    fn memory(&self) -> Result<Option<(Spread, Spread)>> {
        if !cfg!(target_os = "linux") {
            return Ok(None);
        }
        let (mut engine, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            engine.push(self.memory_of("engine")?);
            bare.push(self.memory_of("bare")?);
        }
        Ok(Some((Spread(engine), Spread(bare))))
    }

    fn memory_of(&self, child: &str) -> Result<f64> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.arg("--child").arg(child).arg("--target").arg(&self.target);
        command.arg("--threads").arg(self.threads.to_string()).arg("-n").arg(self.tokens.to_string());
        let output = command.output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let kib: f64 = text
            .trim()
            .parse()
            .map_err(|_| format!("the {child} process failed: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
        Ok(kib / 1024.0)
    }

    /// Tokens of context, for engine and bare loop alike.
    fn context(&self) -> usize {
        (self.tokens + 256).next_multiple_of(256).max(1024)
    }

    /// As `foretoken run` sets it up, for 16 nodes.
    fn options(&self) -> ContextOptions {
        let (n_ctx, threads) = (self.context(), self.threads);
        ContextOptions {
            n_ctx,
            max_nodes: TREE.max_nodes,
            max_leaves: TREE.max_nodes,
            threads,
            ..ContextOptions::default()
        }
    }
}

/// The tree of a round with a draft model.
const TREE: Shape = Shape { max_nodes: 16, depth: 4, width: 4 };

const PROMPT: &str = "The history of the town begins with a bridge over the river, which was built when";

/// Measured values, all of them.
struct Spread(Vec<f64>);

impl Spread {
    fn print(&self, what: &str, unit: &str) {
        let (low, high) = quartiles(&self.0).unwrap_or_default();
        let middle = median(&self.0).unwrap_or_default();
        let range = self.interval().map_or("-".to_owned(), |(low, high)| format!("{low:.3}-{high:.3}"));
        println!("{what:<44} {:>12} {:>22} {range:>14}", format!("{middle:.3}{unit}"), format!("{low:.3}-{high:.3}"));
    }

    /// Of the median, 95 %, by bootstrap.
    fn interval(&self) -> Option<(f64, f64)> {
        let value = |&value: &f64| vec![Quotient::from(value)];
        interval(&[self.0.iter().map(value).collect()], 1)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "median": median(&self.0), "quartiles": quartiles(&self.0), "interval_95": self.interval(), "values": self.0,
        })
    }
}

struct Outside {
    share: Spread,
    per_round: Spread,
    /// Mean nodes of a round.
    nodes: f64,
    controlled: bool,
}

impl Outside {
    fn what(&self) -> String {
        let (nodes, by) = (self.nodes, if self.controlled { "by control" } else { "fixed" });
        format!("rounds of {nodes:.1} nodes, {by}")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "controlled": self.controlled, "nodes_per_round": self.nodes,
            "percent": self.share.json(), "us_per_round": self.per_round.json(),
        })
    }
}

/// The engine, as `foretoken run` sets it up.
struct Plain {
    engine: Engine,
    model: Arc<Model>,
    prompt: Vec<Token>,
}

impl Plain {
    fn load(arguments: &Arguments) -> Result<Plain> {
        let model = Model::load(&arguments.target, &LoadOptions::default()).map_err(|e| e.to_string())?;
        let context = Context::new(model.clone(), &arguments.options()).map_err(|e| e.to_string())?;
        let shape = Shape { max_nodes: 0, depth: 0, width: 1 };
        let engine = Engine::new(Box::new(Scorer::new(context)), None, Sampling::GREEDY, shape, 0);
        let prompt = model.tokenise(PROMPT, true).map_err(|e| e.to_string())?;
        Ok(Plain { engine, model, prompt })
    }

    fn run(&mut self, tokens: usize) -> Result<(Duration, Vec<Token>)> {
        self.engine.forget();
        let (all, _, text) = self.decode(tokens)?;
        Ok((all, text.tokens))
    }

    /// The share of decoding time outside llama.cpp, its seconds per round, and nodes per round.
    fn outside(&mut self, tokens: usize) -> Result<(f64, f64, f64)> {
        self.engine.forget();
        let (all, inside, text) = self.decode(tokens)?;
        let (outside, rounds) = (all.saturating_sub(inside).as_secs_f64(), text.stats.rounds as f64);
        Ok((outside / all.as_secs_f64(), outside / rounds, text.stats.drafted as f64 / rounds))
    }

    /// A text, the time from its first round to its last with all that a program does between them, and how much of it
    /// llama.cpp took.
    fn decode(&mut self, tokens: usize) -> Result<(Duration, Duration, Generation)> {
        let limits = Limits { max_tokens: tokens, stop: Vec::new(), ignore_end: true };
        let (never, vocabulary) = (AtomicBool::new(false), self.model.as_ref());
        let text = Continuation::begin(&mut self.engine, &self.prompt, &limits, &never);
        let mut text = text.map_err(|e| e.to_string())?;
        let (before, begun, mut shown) = (time_in_llama(), Instant::now(), 0);
        let stop = loop {
            if let Some(stop) = text.step(&mut self.engine, vocabulary, &never).map_err(|e| e.to_string())? {
                break stop;
            }
            shown += text.take().len();
        };
        let (all, inside) = (begun.elapsed(), time_in_llama() - before);
        std::hint::black_box(shown);
        Ok((all, inside, text.end(stop)))
    }
}

/// The least that decodes greedily: one sequence, one output, no cache bookkeeping.
struct Bare {
    model: *mut sys::llama_model,
    context: *mut sys::llama_context,
    n_vocab: usize,
    prompt: Vec<i32>,
}

impl Bare {
    fn load(arguments: &Arguments) -> Result<Bare> {
        foretoken::llama::backend();
        let path = CString::new(arguments.target.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
        let threads = i32::try_from(arguments.threads).map_err(|e| e.to_string())?;
        // SAFETY: parameters come from llama.cpp's own constructors, the path is NUL-terminated, and
        // every pointer is checked before it is used.
        unsafe {
            let model = sys::llama_model_load_from_file(path.as_ptr(), sys::llama_model_default_params());
            if model.is_null() {
                return Err(format!("cannot load {}", arguments.target.display()));
            }
            let mut params = sys::llama_context_default_params();
            params.n_ctx = u32::try_from(arguments.context()).map_err(|e| e.to_string())?;
            params.n_batch = 512;
            params.n_ubatch = 512;
            params.n_outputs_max = 1;
            params.n_threads = threads;
            params.n_threads_batch = threads;
            params.no_perf = true;
            let context = sys::llama_init_from_model(model, params);
            if context.is_null() {
                sys::llama_model_free(model);
                return Err(format!("cannot create a context for {}", arguments.target.display()));
            }
            let vocabulary = sys::llama_model_get_vocab(model);
            let n_vocab = sys::llama_vocab_n_tokens(vocabulary) as usize;
            let mut bare = Bare { model, context, n_vocab, prompt: vec![0; 256] };
            let (text, room) = (PROMPT.as_ptr().cast(), bare.prompt.len() as i32);
            let (length, tokens) = (PROMPT.len() as i32, bare.prompt.as_mut_ptr());
            let n = sys::llama_tokenize(vocabulary, text, length, tokens, room, true, true);
            bare.prompt.truncate(usize::try_from(n).map_err(|_| "the prompt has too many tokens")?);
            Ok(bare)
        }
    }

    /// The time of `tokens` greedy steps after the prompt, and the tokens.
    fn run(&mut self, tokens: usize) -> Result<(Duration, Vec<Token>)> {
        let mut prompt = self.prompt.clone();
        let Some(mut last) = prompt.pop() else { return Err("the prompt is empty".to_owned()) };
        let mut text = Vec::with_capacity(tokens);
        // SAFETY: model and context live as long as self. Batches point to live arrays of the length
        // given; prompts are shorter than n_batch. A row has n_vocab entries until the next decode.
        unsafe {
            sys::llama_memory_clear(sys::llama_get_memory(self.context), false);
            let n_prompt = i32::try_from(prompt.len()).map_err(|e| e.to_string())?;
            if n_prompt > 0
                && sys::llama_decode(self.context, sys::llama_batch_get_one(prompt.as_mut_ptr(), n_prompt)) != 0
            {
                return Err("llama.cpp could not read the prompt".to_owned());
            }
            let begun = Instant::now();
            for _ in 0..tokens {
                if sys::llama_decode(self.context, sys::llama_batch_get_one(&mut last, 1)) != 0 {
                    return Err("llama.cpp could not decode a token".to_owned());
                }
                let row = sys::llama_get_logits_ith(self.context, -1);
                if row.is_null() {
                    return Err("llama.cpp returned no logits".to_owned());
                }
                let token = arg_max(std::slice::from_raw_parts(row, self.n_vocab));
                last = token as i32;
                text.push(token);
            }
            Ok((begun.elapsed(), text))
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: both were created in `load` and are freed only here, the context first.
        unsafe {
            sys::llama_free(self.context);
            sys::llama_model_free(self.model);
        }
    }
}

/// Anonymous memory of this process in KiB, on stdout.
fn print_memory(run: Result<()>) -> Result<()> {
    run?;
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon here")?;
    println!("{}", line.trim().trim_end_matches("kB").trim());
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
