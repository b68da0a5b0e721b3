//! `foretoken bench`: configurations against plain decoding, on the same prompts, in one process.
//!
//! The target is loaded once. Every prompt is continued by plain decoding and with every
//! configuration, one right after the other or a few tokens each in turn, and in an order that rotates, so
//! that a machine that warms up or is busy meanwhile treats them alike ([`runner`]); [`crate::report`]
//! compares within such a group. A file of [`raw`] data lets a comparison go on that was broken off; [`json`] and [`csv`] tell it to
//! other programs.

mod csv;
mod json;
mod raw;
mod runner;
mod synthetic;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::run::Overrides;
use super::{note, output, progress, Failure};
use crate::config::Setup;
use crate::llama::host::{warnings_of, LlamaHost};
use crate::machine::{self, Memory};
use crate::page::Report;
use crate::prompts::{self, Prompt};
use crate::registry::Registry;
use crate::report::{Comparison, Method, Run};
use foretoken_drafter::{Law, Needs, Token};
use json::{file_name, Conditions, Config};
use raw::Raw;
use runner::{load, named, Lengths, Loaded, Runner};

/// Compare configurations with plain decoding.
///
/// Every prompt runs with `none` and with each configuration, interleaved. Texts go on past their
/// end, so that all have the same length. The table goes to stdout, progress to stderr.
#[derive(clap::Args)]
pub struct Bench {
    /// Configuration files (TOML); they must agree on `[target]` and `[sampling]`.
    #[arg(required = true, value_name = "CONFIG")]
    configs: Vec<PathBuf>,
    /// Prompts: JSON lines {"id", "kind", "prompt"}, plain text, or a folder of .jsonl files.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE_OR_FOLDER")]
    prompts: Vec<PathBuf>,
    /// Use only the first prompts of each kind.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    prompts_per_kind: Option<u32>,
    /// How often to run everything.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=MAX_REPEATS))]
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
    /// Run every configuration once more with each guess accepted at this rate by dice, to price the engine itself.
    ///
    /// Such output is no model's and is labelled so. Drafters that keep texts for later runs are refused.
    #[arg(long, value_name = "RATE", value_parser = synthetic::rate)]
    synthetic: Option<f64>,
    /// Print one JSON object with every run instead of the table.
    #[arg(long)]
    json: bool,
    /// Write every run as a line of this CSV file, too.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write every number of every method as a line `config,kind,quantity,key,value` of this CSV file, too: rates by
    /// position, counts by draft length, costs, calibration, memory.
    #[arg(long, value_name = "FILE")]
    csv_long: Option<PathBuf>,
    /// Keep every run in this file (JSON lines) as it ends, and go on from what is in it.
    ///
    /// The file must be of the same comparison; only --repeats may differ, and what is there beyond them is left out.
    /// Ctrl-C then ends after the present run. What control had learned of a method is not kept: it begins anew.
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Let the configurations take turns of this many tokens within each text, instead of whole texts one after another.
    ///
    /// What the machine does meanwhile then meets all alike. Every configuration has a context of its own, all in
    /// memory at once; Ctrl-C with --raw ends after the present prompt.
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    turns: Option<u32>,
    /// Draw the comparison as an HTML page, as `foretoken page` does.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// All runs are in memory at the end.
const MAX_REPEATS: i64 = 100_000;

impl Bench {
    /// Configurations on the first prompts of each kind, with settings of `tune`'s choosing.
    pub fn of(prompts: Vec<PathBuf>, per_kind: u32, max_tokens: u32, temperature: f32) -> Bench {
        Bench {
            configs: Vec::new(),
            prompts,
            prompts_per_kind: Some(per_kind),
            repeats: 1,
            max_tokens,
            target: None,
            set: Vec::new(),
            temperature: Some(temperature),
            seed: None,
            synthetic: None,
            json: false,
            csv: None,
            csv_long: None,
            raw: None,
            turns: None,
            html: None,
        }
    }

    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        let setups = self.setups()?;
        let targets = setups.iter().map(|setup| &setup.target.model);
        let others = self.configs.iter().chain(&self.prompts).chain(&self.raw).chain(targets).map(PathBuf::as_path);
        let outputs = [&self.csv, &self.csv_long, &self.html];
        for (i, path) in outputs.iter().enumerate() {
            let Some(path) = path else { continue };
            let earlier = outputs[..i].iter().filter_map(|path| path.as_deref());
            output::spares_models(path, others.clone().chain(earlier))?;
        }
        outputs.into_iter().flatten().try_for_each(|path| output::can_be_made(path))?;
        let done = self.compare(registry)?;
        let report = json::report(&done, self.repeats);
        // Each is tried whatever became of the others, and stdout last: it may be closed.
        let csv = self.csv.as_deref().map_or(Ok(()), |path| csv::write(report.runs(), path));
        let long = |path: &Path| {
            csv::write_long(&serde_json::to_value(&report).map_err(|e| Failure::Running(e.to_string()))?, path)
        };
        let csv = csv.and(self.csv_long.as_deref().map_or(Ok(()), long));
        let report = serde_json::to_string(&report).map_err(|e| Failure::Running(e.to_string()))?;
        let page = |path: &Path| super::page::write(&[Report::parse(&report).map_err(Failure::Running)?], path);
        let html = self.html.as_deref().map_or(Ok(()), page);
        let mut out = std::io::stdout().lock();
        let shown = match self.json {
            true => writeln!(out, "{report}"),
            false => writeln!(out, "{}\n\n{}", done.headline, done.comparison.table()),
        };
        csv.and(html).and(shown.map_err(Failure::from))
    }

    /// Refuse prompts that the target of `host` could not continue.
    pub fn check_prompts(&self, host: &LlamaHost<'_>) -> Result<(), Failure> {
        self.tokenise(&self.read_prompts()?, host).map(drop)
    }

    /// Run `configs`, for whoever looks at the result.
    pub fn comparison(mut self, configs: Vec<PathBuf>, registry: &Registry) -> Result<Comparison, Failure> {
        self.configs = configs;
        Ok(self.compare(registry)?.comparison)
    }

    fn compare(&self, registry: &Registry) -> Result<Done, Failure> {
        let mut setups = self.setups()?;
        self.check_alike(&setups)?;
        self.check_synthetic(&setups)?;
        let prompts = self.read_prompts()?;
        let setup = roomiest(&setups);
        for warning in warnings_of(&setup, &setups)? {
            note(format!("warning: {warning}"));
        }
        let mut host = LlamaHost::load(&setup, registry)?;
        // Every text has its full length.
        setups.iter_mut().for_each(|setup| setup.sampling.forbidden = host.model().ends());
        let tokens = self.tokenise(&prompts, &host)?;
        let loaded = self.methods(&setups, &mut host)?;
        // Guesses out of a history, which came to by the dice of earlier runs, need others.
        let needs = loaded.iter().fold(Needs::default(), |needs, loaded| needs.and(loaded.needs()));
        let seed = setups[0].seed_for(needs);
        setups.iter_mut().for_each(|setup| setup.seed = Some(seed));
        let methods: Vec<Method> = loaded.iter().map(|loaded| loaded.method.clone()).collect();
        let conditions = Conditions::of(self, &setups[0], &host, &prompts, &tokens);
        let configs = self.describe_configs(&methods, &setups);
        let mut bench = Runner::new(loaded, &host, &setups[0], self.lengths())?;
        let kept = self.kept(&conditions, &configs)?;
        let runs = self.run_all(&mut bench, &tokens, kept)?;
        // While caches and models are still there.
        let memory = machine::memory();
        let turn = self.turn();
        let comparison = Comparison { methods, prompts, runs, greedy: setups[0].sampling.is_greedy(), turn };
        let headline = self.headline(&comparison, &setups[0], &host);
        Ok(Done { comparison, conditions, configs, memory, headline })
    }

    fn lengths(&self) -> Lengths {
        let text = self.max_tokens as usize;
        Lengths { text, turn: self.turn().unwrap_or(text) }
    }

    /// Tokens of a turn, if a text has several.
    fn turn(&self) -> Option<usize> {
        self.turns.filter(|&tokens| tokens < self.max_tokens).map(|tokens| tokens as usize)
    }

    fn read_prompts(&self) -> Result<Vec<Prompt>, Failure> {
        let prompts = prompts::read(&self.prompts).map_err(|e| Failure::Input(e.to_string()))?;
        let prompts = prompts::first_of_each_kind(prompts, self.prompts_per_kind.map_or(usize::MAX, |n| n as usize));
        match prompts.is_empty() {
            true => Err(Failure::Input("no prompts to run: give --prompts a file that has some".to_owned())),
            false => Ok(prompts),
        }
    }

    fn describe_configs(&self, methods: &[Method], setups: &[Setup]) -> Vec<Config> {
        // Every configuration, and every one again if they run with dice too.
        let of = |(method, (file, setup)): (&Method, (&PathBuf, &Setup))| Config::of(method, file, setup);
        let configured = methods.iter().skip(1).zip(self.configs.iter().zip(setups).cycle()).map(of);
        std::iter::once(Config::plain(&methods[0].name)).chain(configured).collect()
    }

    fn setups(&self) -> Result<Vec<Setup>, Failure> {
        self.configs.iter().map(|config| self.setup(config)).collect()
    }

    fn setup(&self, config: &Path) -> Result<Setup, Failure> {
        let overrides = Overrides {
            config: Some(config.to_owned()),
            target: self.target.clone(),
            drafter: None,
            draft: None,
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

    fn check_synthetic(&self, setups: &[Setup]) -> Result<(), Failure> {
        let keeps = |(setup, _): &(&Setup, &PathBuf)| self.synthetic.is_some() && synthetic::is_kept(setup);
        match setups.iter().zip(&self.configs).find(keeps) {
            None => Ok(()),
            Some((_, config)) => Err(Failure::Input(format!(
                "{}: --synthetic would put text that is no model's into the drafter's `history`; turn that off",
                config.display(),
            ))),
        }
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
        let mut methods = vec![Loaded::plain()];
        for rate in std::iter::once(None).chain(self.synthetic.map(Some)) {
            for (setup, config) in setups.iter().zip(&self.configs) {
                let mut loaded = load(setup, config, rate, host)?;
                let is_taken = |name: &str| methods.iter().any(|m| m.method.name == name);
                let stem = config.file_stem().unwrap_or_default().to_string_lossy();
                let others = (2..).map(|n| named(&format!("{stem}-{n}"), rate));
                let names = std::iter::once(loaded.method.name.clone()).chain(others);
                loaded.method.name = names.into_iter().find(|name| !is_taken(name)).unwrap_or_default();
                methods.push(loaded);
            }
        }
        Ok(methods)
    }

    /// What is there of this comparison already.
    fn kept(&self, conditions: &Conditions, configs: &[Config]) -> Result<Kept, Failure> {
        let Some(path) = &self.raw else { return Ok(Kept { raw: None, runs: Vec::new() }) };
        let (raw, mut runs) = Raw::open(path, conditions, configs)?;
        runs.retain(|run| run.repeat < self.repeats as usize);
        Ok(Kept { raw: Some(raw), runs })
    }

    fn run_all(&self, bench: &mut Runner, tokens: &[Vec<Token>], mut kept: Kept) -> Result<Vec<Run>, Failure> {
        let all = schedule(bench.methods(), tokens.len(), self.repeats as usize);
        let left: Vec<Place> = all.iter().copied().filter(|&place| !kept.has(place)).collect();
        let interrupted = kept.raw.is_some().then(progress::interrupt);
        if !left.is_empty() {
            bench.warm_up(&tokens[0])?;
        }
        // Those that take turns run together; otherwise each is a group of its own.
        let together = |a: &Place, b: &Place| self.turn().is_some() && (a.prompt, a.repeat) == (b.prompt, b.repeat);
        let bar = progress::begin(String::new(), all.len());
        bar.set_position(kept.runs.len() as u64);
        bar.reset_eta();
        for group in left.chunk_by(together) {
            if interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(kept.broken_off(all.len()));
            }
            let runs = bench.run(group, &tokens[group[0].prompt], |method| bar.set_message(method.to_owned()))?;
            bar.inc(runs.len() as u64);
            runs.into_iter().try_for_each(|run| kept.push(run))?;
        }
        Ok(kept.runs)
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
}

/// What `bench` found.
struct Done {
    comparison: Comparison,
    conditions: Conditions,
    configs: Vec<Config>,
    memory: Option<Memory>,
    headline: String,
}

/// The runs so far, and the file that has them too.
struct Kept {
    raw: Option<Raw>,
    runs: Vec<Run>,
}

impl Kept {
    fn has(&self, place: Place) -> bool {
        self.runs.iter().any(|run| Place { method: run.method, prompt: run.prompt, repeat: run.repeat } == place)
    }

    fn push(&mut self, run: Run) -> Result<(), Failure> {
        if let Some(raw) = &mut self.raw {
            raw.keep(&run)?;
        }
        self.runs.push(run);
        Ok(())
    }

    fn broken_off(&self, all: usize) -> Failure {
        let path = self.raw.as_ref().map_or(Path::new(""), Raw::path).display();
        let done = self.runs.len();
        Failure::Running(format!("interrupted after {done} of {all} runs; the same command goes on from {path}"))
    }
}

/// Which run of all.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    method: usize,
    prompt: usize,
    repeat: usize,
}

/// All runs in their order: the methods one right after the other, each time another one first.
fn schedule(methods: usize, prompts: usize, repeats: usize) -> Vec<Place> {
    let groups = (0..repeats).flat_map(|repeat| (0..prompts).map(move |prompt| (prompt, repeat)));
    let turns = groups.flat_map(|group| (0..methods).map(move |turn| (turn, group)));
    let place = |(turn, (prompt, repeat))| Place { method: (turn + repeat + prompt) % methods, prompt, repeat };
    turns.map(place).collect()
}

pub fn at_least_one(text: &str) -> Result<u32, String> {
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
