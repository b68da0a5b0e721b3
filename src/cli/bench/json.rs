//! A comparison as JSON: under which conditions it was made, what each method did, and every run.
//!
//! [`Conditions`] are what must be the same for two runs to be compared. They are part of the report and the head of the
//! file of raw data. Nothing here runs anything; paths are cut to file names, so that a report says nothing of anyone's disk.

use std::path::Path;

use serde::Serialize;
use serde_json::{json, Value};

use super::{Bench, Done};
use crate::config::{Setup, TargetSetup};
use crate::control;
use crate::llama::derive::fnv_1a;
use crate::llama::host::LlamaHost;
use crate::machine::{self, Memory};
use crate::prompts::Prompt;
use crate::report::{ends_in_cycle, AgainstBest, Cell, Comparison, Method, Row, Run};
use crate::stats::Summary;
use foretoken_drafter::Token;

/// What must be the same for runs to be compared.
#[derive(Serialize)]
pub struct Conditions {
    version: &'static str,
    llama_cpp: String,
    machine: Value,
    threads: usize,
    target: Value,
    sampling: Value,
    max_tokens: u32,
    /// Tokens of a turn, if the methods took turns within a text.
    turns: Option<usize>,
    prompts: Vec<PromptHead>,
}

#[derive(Serialize)]
struct PromptHead {
    id: String,
    kind: String,
    tokens: usize,
    /// Of its text, FNV-1a with 64 bits.
    hash: String,
}

/// How a method was configured.
#[derive(Serialize)]
pub struct Config {
    name: String,
    file: Option<String>,
    /// The rate at which dice accepted guesses; the text is no model's then.
    synthetic: Option<f64>,
    drafter: String,
    settings: Value,
    shape: Option<Value>,
}

/// All that was found.
#[derive(Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    conditions: &'a Conditions,
    command: Vec<String>,
    repeats: u32,
    memory: Option<Memory>,
    configs: Vec<MethodReport<'a>>,
    cells: Vec<Cell>,
    against_best: Option<Vec<AgainstBest>>,
    runs: Vec<RunReport>,
}

impl Report<'_> {
    /// Every run by itself.
    pub fn runs(&self) -> &[RunReport] {
        &self.runs
    }
}

#[derive(Serialize)]
struct MethodReport<'a> {
    #[serde(flatten)]
    config: &'a Config,
    control: Option<control::Report>,
    overall: Option<Row>,
    overall_without_cycles: Option<Row>,
    kinds: Vec<Row>,
}

/// One run.
#[derive(Serialize)]
pub struct RunReport {
    config: String,
    prompt: String,
    kind: String,
    temperature: Value,
    repeat: usize,
    ratio: Option<f64>,
    wall_ratio: Option<f64>,
    differs_at: Option<usize>,
    cycling: bool,
    joules: Option<f64>,
    joules_per_token: Option<f64>,
    #[serde(flatten)]
    summary: Summary,
}

/// The report of what `repeats` repeats found.
pub fn report(done: &Done, repeats: u32) -> Report<'_> {
    let Done { comparison, conditions, configs, memory, .. } = done;
    Report {
        conditions,
        command: command_line(),
        repeats,
        memory: *memory,
        configs: configs.iter().enumerate().map(|(i, config)| method(comparison, i, config)).collect(),
        cells: comparison.cells(),
        against_best: comparison.against_best(),
        runs: comparison.runs.iter().map(|run| one(comparison, conditions, run)).collect(),
    }
}

fn one(comparison: &Comparison, conditions: &Conditions, run: &Run) -> RunReport {
    RunReport {
        config: comparison.methods[run.method].name.clone(),
        prompt: comparison.prompts[run.prompt].id.clone(),
        kind: comparison.prompts[run.prompt].kind.clone(),
        temperature: conditions.sampling["temperature"].clone(),
        repeat: run.repeat,
        ratio: comparison.ratio(run),
        wall_ratio: comparison.wall_ratio(run),
        differs_at: comparison.differs_at(run),
        cycling: ends_in_cycle(&run.tokens),
        joules: run.joules,
        joules_per_token: run.joules_per_token(),
        summary: run.stats.summary(),
    }
}

fn method<'a>(comparison: &'a Comparison, method: usize, config: &'a Config) -> MethodReport<'a> {
    let mut rows = comparison.rows(method);
    MethodReport {
        config,
        control: comparison.control(method),
        overall: rows.pop(),
        overall_without_cycles: comparison.row_without_cycles(method),
        kinds: rows,
    }
}

impl Conditions {
    /// How many prompts there are.
    pub fn prompts(&self) -> usize {
        self.prompts.len()
    }

    pub fn of(
        bench: &Bench,
        setup: &Setup,
        host: &LlamaHost<'_>,
        prompts: &[Prompt],
        tokens: &[Vec<Token>],
    ) -> Conditions {
        let (llama_cpp, cpu_features) = crate::llama::version();
        let s = &setup.sampling;
        Conditions {
            version: env!("CARGO_PKG_VERSION"),
            llama_cpp,
            machine: json!({
                "os": std::env::consts::OS, "arch": std::env::consts::ARCH, "cpu": machine::cpu_name(),
                "cores": crate::llama::context::default_threads(), "features": cpu_features,
            }),
            threads: host.context_options().threads,
            target: target(&setup.target, host),
            sampling: json!({
                "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p, "min_p": s.min_p,
                "repeat_penalty": s.repeat_penalty, "frequency_penalty": s.frequency_penalty,
                "presence_penalty": s.presence_penalty, "penalty_last_n": s.penalty_last_n, "seed": setup.seed.unwrap_or(0),
                "forbidden": s.forbidden,
            }),
            max_tokens: bench.max_tokens,
            turns: bench.turn(),
            prompts: prompts.iter().zip(tokens).map(|(prompt, tokens)| PromptHead::of(prompt, tokens.len())).collect(),
        }
    }
}

impl PromptHead {
    fn of(prompt: &Prompt, tokens: usize) -> PromptHead {
        let hash = format!("{:016x}", fnv_1a(prompt.text.as_bytes()));
        PromptHead { id: prompt.id.clone(), kind: prompt.kind.clone(), tokens, hash }
    }
}

impl Config {
    /// Plain decoding.
    pub fn plain(name: &str) -> Config {
        let (name, drafter) = (name.to_owned(), "none".to_owned());
        Config { name, file: None, synthetic: None, drafter, settings: Value::Null, shape: None }
    }

    /// A method that stands in `file`.
    pub fn of(method: &Method, file: &Path, setup: &Setup) -> Config {
        Config {
            name: method.name.clone(),
            synthetic: method.synthetic,
            file: Some(file_name(file)),
            drafter: setup.drafter.kind.clone(),
            settings: settings(&setup.drafter.settings),
            shape: Some(json!({
                "max_nodes": setup.shape.max_nodes, "depth": setup.shape.depth, "width": setup.shape.width,
                "adaptive": setup.adaptive,
            })),
        }
    }
}

fn target(t: &TargetSetup, host: &LlamaHost<'_>) -> Value {
    json!({
        "model": file_name(&t.model), "bytes": std::fs::metadata(&t.model).ok().map(|file| file.len()),
        "context": host.context_options().n_ctx, "gpu_layers": t.gpu_layers,
        "device": t.device, "mmap": t.mmap, "mlock": t.mlock, "repack": t.repack,
        "kv_type": format!("{:?}", t.kv_type).to_lowercase(), "flash_attention": t.flash_attention,
    })
}

/// A drafter's settings as JSON, paths cut to their file names.
fn settings(toml: &str) -> Value {
    fn cut(value: &mut Value) {
        match value {
            Value::String(text) if is_path(Path::new(text.as_str())) => {
                *text = file_name(Path::new(text.as_str()));
            }
            Value::Array(values) => values.iter_mut().for_each(cut),
            Value::Object(values) => values.values_mut().for_each(cut),
            _ => {}
        }
    }
    fn is_path(text: &Path) -> bool {
        text.is_absolute() || text.extension().is_some()
    }
    let table: toml::Table = toml.parse().unwrap_or_default();
    let mut value = serde_json::to_value(table).unwrap_or_default();
    cut(&mut value);
    value
}

/// The command as typed; absolute paths cut to their file names.
fn command_line() -> Vec<String> {
    let name = |(i, word): (usize, String)| if i == 0 { file_name(Path::new(&word)) } else { without_folders(&word) };
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).enumerate().map(name).collect()
}

/// A word of a command; of absolute paths, also behind `=` and in a list, the files' names.
fn without_folders(word: &str) -> String {
    let bare = word.trim_matches(['\'', '"', '[', ']', ' ']);
    if Path::new(bare).is_absolute() && !bare.contains(',') {
        return file_name(Path::new(bare));
    }
    match (word.split_once('='), word.split_once(',')) {
        (Some((key, value)), _) => format!("{key}={}", without_folders(value)),
        (None, Some((first, rest))) => format!("{},{}", without_folders(first), without_folders(rest)),
        (None, None) => word.to_owned(),
    }
}

pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(
            [b"".as_slice(), b"a", b"foobar"].map(fnv_1a),
            [0xcbf29ce484222325, 0xaf63dc4c8601ec8c, 0x85944171f73967e8]
        );
    }

    #[test]
    fn settings_name_files_but_no_folders() {
        let settings = settings("model = '/models/draft.gguf'\nparts = [{ table = 'a/b.ngram' }]\nlength = 3");
        assert_eq!(settings, json!({"model": "draft.gguf", "parts": [{"table": "b.ngram"}], "length": 3}));
        for (word, cut) in [
            ("/a=b/m.gguf", "m.gguf"),
            ("--target=/a/m.gguf", "--target=m.gguf"),
            ("drafter.model='/a/m.gguf'", "drafter.model=m.gguf"),
            ("drafter.table=['/a/x.ngram', '/b/y.ngram']", "drafter.table=x.ngram,y.ngram"),
            ("configs/ngram.toml", "configs/ngram.toml"),
            ("target.threads=4", "target.threads=4"),
        ] {
            assert_eq!(without_folders(word), cut);
        }
    }
}
