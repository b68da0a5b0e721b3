//! What control decides, without the machine's noise: real models guess, but every pass takes the time it is given here.
//!
//! `cargo bench --bench priced -- [--configs FILES…] [--prompts FILE_OR_FOLDER] [--prompts-per-kind 2] [-n 256]
//! [--temperature 0] [--pass 1:1,5:1,9:1.56,17:2.65] [--draft-pass 0.05] [--noise 0] [--anew] [--set KEY=VALUE] [--json FILE]`
//!
//! T(n), the time of a pass of the target over n tokens, is given at some n and runs straight between them; one token
//! takes 1. A pass of a draft model takes `--draft-pass`, and a tenth of that more for each further token. Drafters
//! without a model cost nothing, heads are not priced. With `--noise 0.05` every time is multiplied by e to the power of
//! 0.05 times a normal number, and now and then by two. The engine, its control and its statistics go by these times, so
//! the ratios hold for the machine with these prices, and without noise the same command prints the same numbers
//! everywhere. Every method keeps its control from text to text, unless `--anew`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use foretoken::config::{Config, Setup};
use foretoken::control::Control;
use foretoken::engine::{Clock, Engine};
use foretoken::generate::{Continuation, Limits, Stop};
use foretoken::llama::host::LlamaHost;
use foretoken::prompts;
use foretoken::registry::Registry;
use foretoken::report::{Comparison, Method, Run};
use foretoken::sampler::Sampling;
use foretoken_drafter::{
    Bytes, Companions, Derivation, DraftError, Drafter, Host, LanguageModel, Law, ModelSpec, NodeId, Scores, SeqId,
    TargetInfo, Token, TokenTree,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match Priced::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Real guesses at given prices.
#[derive(Parser)]
struct Priced {
    /// Configurations, all on the same target.
    #[arg(long, num_args = 1.., default_values = ["configs/auto.toml", "configs/cascade.toml", "configs/model.toml", "configs/ngram.toml"])]
    configs: Vec<PathBuf>,
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
    temperature: f64,
    /// T(n) of the target at some n, n = 1 taking 1.
    #[arg(long, default_value = "1:1,5:1,6:1.1,7:1.42,9:1.56,11:1.75,13:2.12,17:2.65", value_parser = Curve::parse)]
    pass: Curve,
    /// A pass of a draft model.
    #[arg(long, default_value_t = 0.05)]
    draft_pass: f64,
    /// The spread of every time.
    #[arg(long, default_value_t = 0.0)]
    noise: f64,
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    /// Every text begins with a control that knows nothing.
    #[arg(long)]
    anew: bool,
    /// Settings for every configuration.
    #[arg(long)]
    set: Vec<String>,
    /// Write every row as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A configuration with an engine of its own.
struct Way {
    method: Method,
    engine: Engine,
}

impl Priced {
    fn execute(&self) -> Result<(), Error> {
        let setups = self.configs.iter().map(|path| self.setup(path)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = setups.first() else { return Err("no configuration is given".into()) };
        let registry = Registry::builtin();
        let mut host = PricedHost {
            host: LlamaHost::load(first, &registry)?,
            registry: &registry,
            time: Time::new(self.noise),
            draft: Curve(vec![(1.0, self.draft_pass), (11.0, 2.0 * self.draft_pass)]),
        };
        let prompts = prompts::first_of_each_kind(prompts::read(&self.prompts)?, self.prompts_per_kind);
        let mut ways = vec![self.way(first, None, &mut host)?];
        for (setup, path) in setups.iter().zip(&self.configs) {
            ways.push(self.way(setup, Some(path), &mut host)?);
        }
        let mut runs = Vec::new();
        for repeat in 0..self.repeats {
            for (i, prompt) in prompts.iter().enumerate() {
                let tokens = host.host.model().tokenise(&prompt.text, true)?;
                for (method, way) in ways.iter_mut().enumerate() {
                    runs.push(Run { method, prompt: i, repeat, ..self.text(way, &host.host, &tokens, repeat)? });
                }
            }
        }
        let greedy = first.sampling.is_greedy();
        let methods = ways.into_iter().map(|way| way.method).collect();
        let comparison = Comparison { methods, prompts, runs, greedy, turn: None };
        let stored = self.store(&comparison);
        println!("{}", comparison.table());
        stored
    }

    fn setup(&self, path: &Path) -> Result<Setup, Error> {
        let mut config = Config::read(path)?;
        for pair in &self.set {
            config.set_typed(pair)?;
        }
        config.set("sampling.temperature", self.temperature.into())?;
        Ok(config.setup()?)
    }

    /// A configuration, or plain decoding.
    fn way(&self, setup: &Setup, config: Option<&Path>, host: &mut PricedHost<'_>) -> Result<Way, Error> {
        let drafter = match config {
            Some(_) => {
                host.host.set_base(&setup.base);
                Some(host.build(&setup.drafter.kind, &setup.drafter.settings)?)
            }
            None => None,
        };
        let target = PricedModel::new(Box::new(host.host.open_target()?), host.time.clone(), self.pass.clone());
        let is_adaptive = config.is_some() && setup.adaptive && setup.drafter.kind != "none";
        let sampling = Sampling { forbidden: host.host.model().ends(), ..setup.sampling.clone() };
        let mut engine =
            Engine::new(Box::new(target), drafter, sampling, setup.shape, 0).with_clock(Box::new(host.time.clone()));
        if is_adaptive {
            engine.set_control(Some(Control::new()));
        }
        let name = config.and_then(Path::file_stem).map_or("none".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Way { method: Method { about: name.clone(), name, is_adaptive, synthetic: None }, engine })
    }

    fn text(&self, way: &mut Way, host: &LlamaHost<'_>, prompt: &[Token], repeat: usize) -> Result<Run, Error> {
        let never = AtomicBool::new(false);
        let limits = Limits { max_tokens: self.max_tokens, stop: Vec::new(), ignore_end: true };
        if self.anew && way.method.is_adaptive {
            way.engine.set_control(Some(Control::new()));
        }
        way.engine.forget();
        way.engine.reseed(repeat as u64);
        let mut text = Continuation::begin(&mut way.engine, prompt, &limits, &never)?;
        while text.step(&mut way.engine, host.model().as_ref(), &never)?.is_none() {}
        let control = way.engine.control().map(|control| control.report(way.engine.context().len()));
        let text = text.end(Stop::Length);
        Ok(Run { method: 0, prompt: 0, repeat, tokens: text.tokens, stats: text.stats, joules: None, control })
    }

    fn store(&self, comparison: &Comparison) -> Result<(), Error> {
        let Some(path) = &self.json else { return Ok(()) };
        let rows: Vec<_> = (0..comparison.methods.len())
            .map(|i| serde_json::json!({ "method": comparison.methods[i].name, "rows": comparison.rows(i) }))
            .collect();
        let report = serde_json::json!({
            "pass": self.pass.0, "draft_pass": self.draft_pass, "noise": self.noise, "anew": self.anew,
            "temperature": self.temperature, "max_tokens": self.max_tokens, "repeats": self.repeats, "methods": rows,
        });
        Ok(std::fs::write(path, serde_json::to_vec(&report)?)?)
    }
}

/// Times at some sizes, straight between them, and on beyond the last as between the last two.
#[derive(Clone, Debug)]
struct Curve(Vec<(f64, f64)>);

impl Curve {
    fn parse(text: &str) -> Result<Curve, String> {
        let point = |pair: &str| {
            let (n, time) = pair.split_once(':')?;
            Some((n.trim().parse().ok()?, time.trim().parse().ok()?))
        };
        let points: Option<Vec<(f64, f64)>> = text.split(',').map(point).collect();
        let points = points.ok_or("give n:T(n), n:T(n), …, such as 1:1,5:1.2,17:3")?;
        let is_rising = points.windows(2).all(|pair| pair[0].0 < pair[1].0);
        match points.len() > 1 && is_rising && points.iter().all(|point| point.1 > 0.0) {
            true => Ok(Curve(points)),
            false => Err("give at least two n:T(n), n rising and T(n) positive".to_owned()),
        }
    }

    fn at(&self, n: usize) -> f64 {
        let n = n as f64;
        let last = self.0.len() - 1;
        let right = self.0.iter().position(|point| point.0 >= n).unwrap_or(last).max(1);
        let ((x0, y0), (x1, y1)) = (self.0[right - 1], self.0[right]);
        y0 + (n - x0) / (x1 - x0) * (y1 - y0)
    }
}

/// The time that passed, which only passes move on. Shared by all that take time and all that ask.
#[derive(Clone)]
struct Time {
    nanoseconds: Arc<AtomicU64>,
    noise: f64,
}

impl Time {
    fn new(noise: f64) -> Time {
        Time { nanoseconds: Arc::new(AtomicU64::new(0)), noise }
    }

    fn pass(&self, time: f64, rng: &mut StdRng) {
        let mut factor = 1.0;
        if self.noise > 0.0 {
            let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            factor = (self.noise * normal).exp() * if rng.random_bool(OUTAGES) { 2.0 } else { 1.0 };
        }
        let nanoseconds = time * factor * PLAIN_STEP.as_nanos() as f64;
        self.nanoseconds.fetch_add(nanoseconds as u64, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

/// A model whose passes take the time of a curve.
struct PricedModel {
    model: Box<dyn LanguageModel>,
    time: Time,
    curve: Curve,
    rng: StdRng,
    /// Tokens in its cache, at most: the context of the last call and the deepest node that was scored.
    cached: usize,
}

impl PricedModel {
    fn new(model: Box<dyn LanguageModel>, time: Time, curve: Curve) -> PricedModel {
        PricedModel { model, time, curve, rng: StdRng::seed_from_u64(1), cached: 0 }
    }
}

impl LanguageModel for PricedModel {
    fn score(
        &mut self,
        seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        let missing = (context.len() - 1).saturating_sub(self.cached);
        if missing + new.len() > 0 {
            self.time.pass(self.curve.at(missing + new.len()), &mut self.rng);
        }
        let deepest = new.iter().map(|&node| tree.depth(node) + 1).max().unwrap_or(0);
        self.cached = context.len() - 1 + deepest;
        self.model.score(seq, context, tree, new)
    }

    fn n_vocab(&self) -> usize {
        self.model.n_vocab()
    }

    fn n_ctx(&self) -> usize {
        self.model.n_ctx()
    }

    fn end(&mut self, seq: SeqId) {
        self.cached = 0;
        self.model.end(seq);
    }

    fn keep_hidden(&mut self, keep: bool) -> bool {
        self.model.keep_hidden(keep)
    }
}

/// A host whose draft models are priced.
struct PricedHost<'r> {
    host: LlamaHost<'r>,
    registry: &'r Registry,
    time: Time,
    draft: Curve,
}

impl Host for PricedHost<'_> {
    fn target(&self) -> TargetInfo {
        self.host.target()
    }

    fn open_model(&mut self, spec: &ModelSpec) -> Result<Box<dyn LanguageModel>, DraftError> {
        let model = self.host.open_model(spec)?;
        Ok(Box::new(PricedModel::new(model, self.time.clone(), self.draft.clone())))
    }

    fn build(&mut self, kind: &str, settings: &str) -> Result<Box<dyn Drafter>, DraftError> {
        let registry = self.registry;
        registry.build(kind, settings, self)
    }

    fn derive(&mut self, what: &Derivation) -> Result<PathBuf, DraftError> {
        self.host.derive(what)
    }

    fn companions(&self) -> Companions {
        self.host.companions()
    }

    fn map(&mut self, path: &Path) -> Result<Box<dyn Bytes>, DraftError> {
        self.host.map(path)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.host.resolve(path)
    }
}

/// What a plain step takes on the priced machine.
const PLAIN_STEP: Duration = Duration::from_millis(100);

/// How often a pass takes twice its time, where times are noisy at all.
const OUTAGES: f64 = 0.005;
