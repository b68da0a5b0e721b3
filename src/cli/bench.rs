//! `foretoken bench`: configurations against plain decoding, on the same prompts, in one process.
//!
//! The target is loaded once. Every prompt is continued by plain decoding and with every
//! configuration, one right after the other and in an order that rotates, so that a machine that
//! warms up or is busy meanwhile treats them alike; [`crate::report`] compares within such a group.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::run::{describe, Overrides};
use super::{note, Failure};
use crate::config::{Setup, TargetSetup};
use crate::control::Control;
use crate::engine::Engine;
use crate::generate::{generate, Generation, Limits};
use crate::llama::host::{warnings, LlamaHost};
use crate::llama::model::Model;
use crate::page::Report;
use crate::prompts::{self, Prompt};
use crate::registry::Registry;
use crate::report::{ends_in_cycle, Comparison, Method, Row, Run};
use crate::stats::Summary;
use foretoken_drafter::{Drafter, Host, Law, Shape, Token};

/// Compare configurations with plain decoding.
///
/// Every prompt runs with `none` and with each configuration, interleaved. Texts go on past their
/// end, so that all have the same length. The table goes to stdout, progress to stderr.
#[derive(clap::Args)]
pub struct Bench {
    /// Configuration files (TOML); they must agree on [target] and [sampling].
    #[arg(required = true, value_name = "CONFIG")]
    configs: Vec<PathBuf>,
    /// Prompts: JSON lines {"id", "kind", "prompt"}, plain text, or a folder of .jsonl files.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE_OR_FOLDER")]
    prompts: Vec<PathBuf>,
    /// Use only the first prompts of each kind.
    #[arg(long, value_name = "N")]
    prompts_per_kind: Option<usize>,
    /// How often to run everything.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    repeats: u32,
    /// Tokens to generate after each prompt.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 128, value_parser = at_least_one)]
    max_tokens: u32,
    /// The target of all configurations: a GGUF file.
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// Set any value of all configurations, as in `--set target.threads=4` (may be repeated).
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,
    /// 0 is greedy [default: 0].
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Fixes the random choices of the first repeat; the next ones count up [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object with every run instead of the table.
    #[arg(long)]
    json: bool,
    /// Draw the comparison as an HTML page, as `foretoken page` does.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Bench {
    /// `configs` on the first prompts of each kind, with settings of `tune`'s choosing.
    pub fn of(
        configs: Vec<PathBuf>,
        prompts: Vec<PathBuf>,
        per_kind: usize,
        max_tokens: u32,
        temperature: f32,
    ) -> Bench {
        Bench {
            configs,
            prompts,
            prompts_per_kind: Some(per_kind),
            repeats: 1,
            max_tokens,
            target: None,
            set: Vec::new(),
            temperature: Some(temperature),
            seed: None,
            json: false,
            html: None,
        }
    }

    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        let setups: Vec<Setup> = self.configs.iter().map(|c| self.setup(c)).collect::<Result<_, _>>()?;
        let (comparison, host, tokens) = self.compare(&setups, registry)?;
        let report = self.json(&comparison, &setups, &host, &tokens);
        let report = serde_json::to_string(&report).map_err(|e| Failure::Running(e.to_string()))?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{report}")?;
        } else {
            writeln!(out, "{}\n\n{}", self.headline(&comparison, &setups[0], &host), comparison.table())?;
        }
        match &self.html {
            Some(path) => super::page::write(&[Report::parse(&report).map_err(Failure::Running)?], path),
            None => Ok(()),
        }
    }

    /// Run everything, for whoever looks at the result.
    pub fn comparison(&self, registry: &Registry) -> Result<Comparison, Failure> {
        let setups: Vec<Setup> = self.configs.iter().map(|c| self.setup(c)).collect::<Result<_, _>>()?;
        Ok(self.compare(&setups, registry)?.0)
    }

    fn compare<'a>(
        &self,
        setups: &[Setup],
        registry: &'a Registry,
    ) -> Result<(Comparison, LlamaHost<'a>, Vec<Vec<Token>>), Failure> {
        self.check_alike(setups)?;
        let prompts = prompts::read(&self.prompts).map_err(|e| Failure::Input(e.to_string()))?;
        let prompts = prompts::first_of_each_kind(prompts, self.prompts_per_kind.unwrap_or(usize::MAX));
        if prompts.is_empty() {
            return Err(Failure::Input("no prompts to run: give --prompts a file that has some".to_owned()));
        }
        let setup = roomiest(setups);
        for warning in warnings(&setup)? {
            note(format!("warning: {warning}"));
        }
        let mut host = LlamaHost::load(&setup, registry)?;
        let tokens = self.tokenise(&prompts, &host)?;
        let mut bench = Runner {
            methods: self.methods(setups, &mut host)?,
            vocabulary: host.model().clone(),
            engine: Engine::new(Box::new(host.open_target()?), None, setups[0].sampling.clone(), PLAIN, setups[0].seed),
            max_tokens: self.max_tokens as usize,
            seed: setups[0].seed,
        };
        let runs = self.run_all(&mut bench, &tokens)?;
        let comparison = Comparison {
            methods: bench.methods.into_iter().map(|m| Method { name: m.name, about: m.about }).collect(),
            prompts,
            runs,
            greedy: setups[0].sampling.is_greedy(),
        };
        Ok((comparison, host, tokens))
    }

    fn setup(&self, config: &Path) -> Result<Setup, Failure> {
        let overrides = Overrides {
            config: Some(config.to_owned()),
            target: self.target.clone(),
            drafter: None,
            set: self.set.clone(),
            temperature: self.temperature,
            seed: self.seed,
        };
        overrides.setup()
    }

    /// A ratio between different targets or sampling laws would say nothing.
    fn check_alike(&self, setups: &[Setup]) -> Result<(), Failure> {
        for (setup, config) in setups.iter().zip(&self.configs).skip(1) {
            let differing = differences(&setups[0], setup);
            if !differing.is_empty() {
                return Err(Failure::Input(format!(
                    "{} and {} differ in {}; set it alike for all with --target, --temperature or --set",
                    self.configs[0].display(),
                    config.display(),
                    differing.join(", "),
                )));
            }
        }
        Ok(())
    }

    fn tokenise(&self, prompts: &[Prompt], host: &LlamaHost<'_>) -> Result<Vec<Vec<Token>>, Failure> {
        let n_ctx = host.context_options().n_ctx;
        let checked = |prompt: &Prompt| {
            let tokens = host.model().tokenise(&prompt.text, true)?;
            match tokens.len() + self.max_tokens as usize <= n_ctx {
                true => Ok(tokens),
                false => Err(Failure::Input(format!(
                    "prompt `{}` has {} tokens and -n is {}, but the context holds {n_ctx}: lower -n or raise \
                     target.context",
                    prompt.id,
                    tokens.len(),
                    self.max_tokens,
                ))),
            }
        };
        prompts.iter().map(checked).collect()
    }

    fn methods(&self, setups: &[Setup], host: &mut LlamaHost<'_>) -> Result<Vec<Loaded>, Failure> {
        let plain = Loaded {
            name: "none".to_owned(),
            about: "plain decoding".to_owned(),
            drafter: None,
            shape: PLAIN,
            control: None,
        };
        let mut methods = vec![plain];
        for (setup, config) in setups.iter().zip(&self.configs) {
            host.set_base(&setup.base);
            let blame = |e: Failure| blamed(e, &config.display().to_string());
            let drafter = host.build(&setup.drafter.kind, &setup.drafter.settings).map_err(|e| blame(e.into()))?;
            let stem = config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let is_taken = methods.iter().any(|m| m.name == stem);
            let name = if is_taken { config.display().to_string() } else { stem };
            let control = (setup.adaptive && setup.drafter.kind != "none").then(Control::new);
            methods.push(Loaded { name, about: describe(setup), drafter: Some(drafter), shape: setup.shape, control });
        }
        Ok(methods)
    }

    fn run_all(&self, bench: &mut Runner, tokens: &[Vec<Token>]) -> Result<Vec<Run>, Failure> {
        let (n, repeats) = (bench.methods.len(), self.repeats as usize);
        // Buffers grow and pages are read at first use; that is nobody's speed.
        for method in 0..n {
            bench.run(method, &tokens[0], 0)?;
        }
        let mut progress = Progress::new(n * tokens.len() * repeats);
        let mut runs = Vec::new();
        for repeat in 0..repeats {
            for (prompt, text) in tokens.iter().enumerate() {
                for turn in 0..n {
                    let method = (turn + repeat + prompt) % n;
                    progress.next(&bench.methods[method].name);
                    let Generation { tokens, stats, .. } = bench.run(method, text, repeat)?;
                    runs.push(Run { method, prompt, repeat, tokens, stats });
                }
            }
        }
        Ok(runs)
    }

    fn headline(&self, comparison: &Comparison, setup: &Setup, host: &LlamaHost<'_>) -> String {
        let law = match setup.sampling.is_greedy() {
            true => "greedy".to_owned(),
            false => format!("temperature {}", setup.sampling.temperature),
        };
        format!(
            "{}, {} threads, {law}, {} tokens after each of {} prompts, {} repeats\n\
             ratio: tokens/s to none on the same prompt in the same repeat, median; overall, geometric mean",
            file_name(&setup.target.model),
            host.context_options().threads,
            self.max_tokens,
            comparison.prompts.len(),
            self.repeats,
        )
    }

    fn json(
        &self,
        comparison: &Comparison,
        setups: &[Setup],
        host: &LlamaHost<'_>,
        tokens: &[Vec<Token>],
    ) -> impl Serialize {
        let (llama_cpp, cpu_features) = crate::llama::version();
        let s = &setups[0].sampling;
        let method = |(i, method): (usize, &Method)| {
            let setup = i.checked_sub(1).map(|i| &setups[i]);
            let mut rows = comparison.rows(i);
            JsonMethod {
                name: method.name.clone(),
                file: i.checked_sub(1).map(|i| file_name(&self.configs[i])),
                drafter: setup.map_or("none".to_owned(), |s| s.drafter.kind.clone()),
                settings: setup.map_or(serde_json::Value::Null, |s| settings(&s.drafter.settings)),
                shape: setup.map(|s| {
                    serde_json::json!({
                        "max_nodes": s.shape.max_nodes, "depth": s.shape.depth, "width": s.shape.width,
                        "adaptive": s.adaptive,
                    })
                }),
                overall: rows.pop(),
                overall_without_cycles: comparison.row_without_cycles(i),
                kinds: rows,
            }
        };
        let run = |run: &Run| JsonRun {
            config: comparison.methods[run.method].name.clone(),
            prompt: comparison.prompts[run.prompt].id.clone(),
            kind: comparison.prompts[run.prompt].kind.clone(),
            repeat: run.repeat,
            ratio: comparison.ratio(run),
            differs_at: comparison.differs_at(run),
            cycling: ends_in_cycle(&run.tokens),
            summary: run.stats.summary(),
        };
        let prompt = |(prompt, tokens): (&Prompt, &Vec<Token>)| JsonPrompt {
            id: prompt.id.clone(),
            kind: prompt.kind.clone(),
            tokens: tokens.len(),
        };
        JsonReport {
            version: env!("CARGO_PKG_VERSION"),
            llama_cpp,
            command: command_line(),
            machine: serde_json::json!({
                "os": std::env::consts::OS, "arch": std::env::consts::ARCH, "cpu": cpu_name(),
                "cores": crate::llama::context::default_threads(), "features": cpu_features,
            }),
            threads: host.context_options().threads,
            target: target_settings(&setups[0].target, host),
            sampling: serde_json::json!({
                "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p, "min_p": s.min_p,
                "repeat_penalty": s.repeat_penalty, "frequency_penalty": s.frequency_penalty,
                "presence_penalty": s.presence_penalty, "penalty_last_n": s.penalty_last_n, "seed": setups[0].seed,
            }),
            max_tokens: self.max_tokens,
            repeats: self.repeats,
            prompts: comparison.prompts.iter().zip(tokens).map(prompt).collect(),
            configs: comparison.methods.iter().enumerate().map(method).collect(),
            runs: comparison.runs.iter().map(run).collect(),
        }
    }
}

/// Plain decoding or a configuration, ready to run.
struct Loaded {
    name: String,
    about: String,
    drafter: Option<Box<dyn Drafter>>,
    shape: Shape,
    /// Kept from text to text, as in a program that generates many.
    control: Option<Control>,
}

const PLAIN: Shape = Shape { max_nodes: 0, depth: 0, width: 1 };

/// One engine that takes each method's drafter in turn.
struct Runner {
    engine: Engine,
    methods: Vec<Loaded>,
    vocabulary: std::sync::Arc<Model>,
    max_tokens: usize,
    seed: u64,
}

impl Runner {
    fn run(&mut self, method: usize, prompt: &[Token], repeat: usize) -> Result<Generation, Failure> {
        let chosen = &mut self.methods[method];
        self.engine.set_drafter(chosen.drafter.take());
        self.engine.set_shape(chosen.shape);
        self.engine.set_control(chosen.control.take());
        self.engine.forget();
        self.engine.reseed(self.seed.wrapping_add(repeat as u64));
        let limits = Limits { max_tokens: self.max_tokens, stop: Vec::new(), ignore_end: true };
        let never = AtomicBool::new(false);
        let result = generate(&mut self.engine, self.vocabulary.as_ref(), prompt, &limits, &never, &mut |_| true);
        chosen.drafter = self.engine.set_drafter(None);
        chosen.control = self.engine.set_control(None);
        result.map_err(|e| blamed(e.into(), &chosen.name))
    }
}

fn at_least_one(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "give a number from 1 on".to_owned())
}

/// Settings under which one target serves every configuration.
fn roomiest(setups: &[Setup]) -> Setup {
    let mut setup = setups[0].clone();
    for other in setups {
        setup.shape.max_nodes = setup.shape.max_nodes.max(other.shape.max_nodes);
        setup.shape.width = setup.shape.width.max(other.shape.width);
    }
    setup
}

/// The keys in which two configurations must agree, and do not.
fn differences(a: &Setup, b: &Setup) -> Vec<String> {
    let keys = |setup: &Setup| {
        let (t, s) = (&setup.target, &setup.sampling);
        let model = std::fs::canonicalize(&t.model).unwrap_or_else(|_| t.model.clone());
        [
            ("target.model", format!("{model:?}")),
            ("target.gpu_layers", format!("{:?}", t.gpu_layers)),
            ("target.device", format!("{:?}", t.device)),
            ("target.context", format!("{:?}", t.context)),
            ("target.threads", format!("{:?}", t.threads)),
            ("target.mmap", format!("{:?}", t.mmap)),
            ("target.mlock", format!("{:?}", t.mlock)),
            ("target.repack", format!("{:?}", t.repack)),
            ("target.kv_type", format!("{:?}", t.kv_type)),
            ("target.flash_attention", format!("{:?}", t.flash_attention)),
            ("sampling.seed", format!("{:?}", setup.seed)),
            ("sampling.temperature", format!("{:?}", s.temperature)),
            ("sampling.top_k", format!("{:?}", s.top_k)),
            ("sampling.top_p", format!("{:?}", s.top_p)),
            ("sampling.min_p", format!("{:?}", s.min_p)),
            ("sampling.repeat_penalty", format!("{:?}", s.repeat_penalty)),
            ("sampling.frequency_penalty", format!("{:?}", s.frequency_penalty)),
            ("sampling.presence_penalty", format!("{:?}", s.presence_penalty)),
            ("sampling.penalty_last_n", format!("{:?}", s.penalty_last_n)),
        ]
    };
    let differs = keys(a).into_iter().zip(keys(b)).filter(|(a, b)| a.1 != b.1);
    differs.map(|(a, _)| a.0.to_owned()).collect()
}

fn blamed(failure: Failure, culprit: &str) -> Failure {
    match failure {
        Failure::Input(message) => Failure::Input(format!("{culprit}: {message}")),
        Failure::Running(message) => Failure::Running(format!("{culprit}: {message}")),
        Failure::ClosedStdout => Failure::ClosedStdout,
    }
}

/// A line on stderr that says how far we are; nothing if nobody watches.
struct Progress {
    done: usize,
    all: usize,
    begun: std::time::Instant,
    shown: bool,
}

impl Progress {
    fn new(all: usize) -> Progress {
        Progress { done: 0, all, begun: std::time::Instant::now(), shown: std::io::stderr().is_terminal() }
    }

    fn next(&mut self, name: &str) {
        if self.shown {
            let left = match self.done {
                0 => String::new(),
                done => {
                    let seconds = self.begun.elapsed().as_secs_f64() / done as f64 * (self.all - done) as f64;
                    format!(", about {seconds:.0} s left")
                }
            };
            eprint!("\r\x1b[Krun {} of {}{left}: {name}", self.done + 1, self.all);
        }
        self.done += 1;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[derive(Serialize)]
struct JsonReport {
    version: &'static str,
    llama_cpp: String,
    command: Vec<String>,
    machine: serde_json::Value,
    threads: usize,
    target: serde_json::Value,
    sampling: serde_json::Value,
    max_tokens: u32,
    repeats: u32,
    prompts: Vec<JsonPrompt>,
    configs: Vec<JsonMethod>,
    runs: Vec<JsonRun>,
}

#[derive(Serialize)]
struct JsonPrompt {
    id: String,
    kind: String,
    tokens: usize,
}

#[derive(Serialize)]
struct JsonMethod {
    name: String,
    file: Option<String>,
    drafter: String,
    settings: serde_json::Value,
    shape: Option<serde_json::Value>,
    overall: Option<Row>,
    overall_without_cycles: Option<Row>,
    kinds: Vec<Row>,
}

#[derive(Serialize)]
struct JsonRun {
    config: String,
    prompt: String,
    kind: String,
    repeat: usize,
    ratio: Option<f64>,
    differs_at: Option<usize>,
    cycling: bool,
    #[serde(flatten)]
    summary: Summary,
}

fn target_settings(t: &TargetSetup, host: &LlamaHost<'_>) -> serde_json::Value {
    serde_json::json!({
        "model": file_name(&t.model), "context": host.context_options().n_ctx, "gpu_layers": t.gpu_layers,
        "device": t.device, "mmap": t.mmap, "mlock": t.mlock, "repack": t.repack,
        "kv_type": format!("{:?}", t.kv_type).to_lowercase(), "flash_attention": t.flash_attention,
    })
}

/// A drafter's settings as JSON, paths cut to their file names: a report says nothing of anyone's disk.
fn settings(toml: &str) -> serde_json::Value {
    fn cut(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if Path::new(text.as_str()).extension().is_some() => {
                *text = file_name(Path::new(text.as_str()));
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(cut),
            serde_json::Value::Object(values) => values.values_mut().for_each(cut),
            _ => {}
        }
    }
    let table: toml::Table = toml.parse().unwrap_or_default();
    let mut value = serde_json::to_value(table).unwrap_or_default();
    cut(&mut value);
    value
}

/// The command as typed; absolute paths cut to their file names.
fn command_line() -> Vec<String> {
    let name = |(i, word): (usize, String)| match Path::new(&word) {
        path if i == 0 || path.is_absolute() => file_name(path),
        _ => word,
    };
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).enumerate().map(name).collect()
}

/// The processor's name where the system tells it (Linux).
fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
