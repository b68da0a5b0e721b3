//! What the page reads of a report of `foretoken bench --json`. Fields that it does not know are passed over; what an
//! older report lacks is empty, and so is the section that would show it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::theory::{Acceptance, Passes};

/// A report.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Of foretoken.
    #[serde(default)]
    pub version: String,
    /// Of llama.cpp.
    #[serde(default)]
    pub llama_cpp: String,
    /// Tokens of a turn, if the methods took turns within a text.
    pub turns: Option<usize>,
    /// As typed.
    #[serde(default)]
    pub command: Vec<String>,
    /// Processor, cores and system.
    #[serde(default)]
    pub machine: Value,
    /// Threads of the target.
    pub threads: Option<usize>,
    /// Its model and settings.
    pub target: Target,
    /// The law of the texts.
    #[serde(default)]
    pub sampling: Sampling,
    /// After each prompt.
    pub max_tokens: Option<usize>,
    /// How often everything ran.
    pub repeats: Option<usize>,
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// Plain decoding first.
    pub configs: Vec<Method>,
    /// Every run.
    pub runs: Vec<Run>,
    /// What it took of the machine, if that was measured.
    pub memory: Option<Memory>,
}

/// The memory of the process, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Memory {
    /// The most that it ever had, mapped files included.
    pub peak_rss_bytes: f64,
    /// What it had in the end without mapped files.
    pub rss_anon_bytes: f64,
}

/// What a report says of the target.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// Its file's name.
    pub model: String,
}

/// What a report says of the law of its texts.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f64>,
}

/// What a report says of a prompt.
#[derive(Clone, Debug, Deserialize)]
pub struct Prompt {
    /// Unique.
    pub id: String,
    /// Kind of text.
    pub kind: String,
}

/// Plain decoding or a configuration.
#[derive(Clone, Debug, Deserialize)]
pub struct Method {
    /// Unique.
    pub name: String,
    /// Its kind of drafter.
    #[serde(default)]
    pub drafter: String,
    /// The drafter's settings.
    #[serde(default)]
    pub settings: Value,
    /// The rate at which dice accepted its guesses, where no model did.
    pub synthetic: Option<f64>,
    /// How much it drafts.
    pub shape: Option<Shape>,
    /// Over all kinds of text.
    pub overall: Option<Row>,
    /// One per kind of text.
    #[serde(default)]
    pub kinds: Vec<Row>,
    /// What its controller did.
    pub control: Option<Control>,
}

/// How much is drafted.
#[derive(Clone, Debug, Deserialize)]
pub struct Shape {
    /// The longest branch.
    pub depth: usize,
    /// Whether a controller decides round by round.
    #[serde(default)]
    pub adaptive: bool,
}

/// What a method did on one kind of text, or overall.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Kind of text.
    pub kind: String,
    /// Speed relative to plain decoding.
    pub ratio: Option<f64>,
    /// Its 95 % interval.
    pub ratio_interval_95: Option<(f64, f64)>,
    /// The same with prefill counted.
    pub wall_ratio: Option<f64>,
    /// Its 95 % interval.
    pub wall_ratio_interval_95: Option<(f64, f64)>,
    /// Median seconds from the prompt to the first token.
    pub time_to_first_token_s: Option<f64>,
    /// What a round costs.
    pub round_cost: Option<RoundCost>,
    /// Percent of the time in which drafts were made.
    pub draft_percent: Option<f64>,
    /// In the target's passes.
    pub verify_percent: Option<f64>,
    /// In which laws were made and verdicts decided.
    pub sampling_percent: Option<f64>,
    /// In which drafters took note of what became final.
    pub cache_percent: Option<f64>,
    /// In none of these.
    pub other_percent: Option<f64>,
    /// Energy, where the machine counts it.
    pub joules_per_token: Option<f64>,
    /// Counts and times.
    pub summary: Summary,
    /// Greedy texts that are not plain text.
    pub differing: Option<usize>,
    /// Prompts whose text ends in a cycle.
    #[serde(default)]
    pub cycling: usize,
}

/// In plain steps.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct RoundCost {
    /// Drafting.
    pub draft: f64,
    /// Drafting one node.
    pub draft_per_node: Option<f64>,
    /// The pass of the target.
    pub verify: f64,
    /// Everything else.
    pub other: f64,
    /// Mean tokens in a pass, root included.
    pub pass_tokens: f64,
    /// T(n)/T(1).
    pub pass_ratio: f64,
}

/// Counts and times over runs.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Rounds, plain ones included.
    pub rounds: usize,
    /// Rounds in which nothing was drafted.
    #[serde(default)]
    pub plain_rounds: usize,
    /// Nodes verified.
    pub drafted: usize,
    /// Nodes accepted.
    pub accepted: usize,
    /// Share of rounds that accepted a guess at each position.
    #[serde(default)]
    pub acceptance_by_position: Vec<f64>,
    /// Of the rounds that came to a guess at each position, the share that accepted one. Reports from before this was
    /// counted have none.
    #[serde(default)]
    pub conditional_acceptance_by_position: Vec<f64>,
    /// Share of all rounds, plain ones too, that accepted a guess at each position.
    #[serde(default)]
    pub reached_by_position: Vec<f64>,
    /// Seconds in the target's passes.
    #[serde(default)]
    pub verify_s: f64,
    /// The pause between two bursts of tokens that half of all pauses do not exceed, in seconds.
    pub pause_p50_s: Option<f64>,
    /// And the one that 95 % do not.
    pub pause_p95_s: Option<f64>,
    /// Realised over predicted tokens per second.
    pub realised_over_predicted: Option<f64>,
    /// Rounds by the nodes that they scored.
    #[serde(default)]
    pub by_nodes: Vec<ByNodes>,
}

/// All rounds that scored so many nodes.
#[derive(Clone, Debug, Deserialize)]
pub struct ByNodes {
    /// Nodes, the root not counted.
    pub nodes: usize,
    /// How many rounds.
    pub rounds: usize,
    /// How many of them accepted 0, 1, 2, … guesses.
    #[serde(default)]
    pub accepted: Vec<usize>,
    /// Mean seconds of the target's pass.
    pub pass_s: f64,
}

/// What a controller did and believed.
#[derive(Clone, Debug, Deserialize)]
pub struct Control {
    /// Rounds by the nodes that they scored: 0, 1, 2, …
    #[serde(default)]
    pub choices: Vec<usize>,
    /// T(n) as it knew it in the end: n and seconds.
    #[serde(default)]
    pub curve: Vec<(usize, f64)>,
    /// How true its estimates were.
    pub calibration: Option<Calibration>,
}

/// How true estimates of acceptance were.
#[derive(Clone, Debug, Deserialize)]
pub struct Calibration {
    /// Mean square of believed − accepted.
    pub brier: Option<f64>,
    /// The same of the drafter's own beliefs.
    pub brier_of_beliefs: Option<f64>,
    /// By groups of similar estimates: guesses, the mean estimate, the share that was accepted.
    #[serde(default)]
    pub reliability: Vec<(f64, f64, f64)>,
}

/// One text.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// The method's name.
    pub config: String,
    /// The prompt's id.
    pub prompt: String,
    /// Speed relative to plain decoding.
    pub ratio: Option<f64>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// It is something else.
    #[error("{path} is no report of a benchmark ({reason}); write one with `foretoken bench … --json > report.json`")]
    NoReport {
        /// The file.
        path: String,
        /// What is missing or wrong.
        reason: String,
    },
}

impl Report {
    /// The report in a file.
    pub fn read(path: &Path) -> Result<Report, ReportError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| ReportError::Unreadable { path: name.clone(), reason: e.to_string() })?;
        Report::parse(&text).map_err(|reason| ReportError::NoReport { path: name, reason })
    }

    /// The report in a text; otherwise, why it is none.
    pub fn parse(text: &str) -> Result<Report, String> {
        let report: Report = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match report.methods().is_empty() {
            true => Err("it compares nothing with plain decoding".to_owned()),
            false => Ok(report),
        }
    }

    /// What is compared with plain decoding.
    pub fn methods(&self) -> &[Method] {
        self.configs.get(1..).unwrap_or_default()
    }

    /// Kinds of text in the order of the prompts.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for prompt in &self.prompts {
            if !kinds.contains(&prompt.kind.as_str()) {
                kinds.push(&prompt.kind);
            }
        }
        kinds
    }

    /// The target and the law of the texts.
    pub fn name(&self) -> String {
        match self.sampling.temperature {
            Some(t) if t > 0.0 => format!("{}, temperature {}", self.target.model, (t * 1000.0).round() / 1000.0),
            _ => format!("{}, greedy", self.target.model),
        }
    }

    /// T(n)/T(1) as realised: round by round where the report has it, else from the mean pass of each method.
    pub fn passes(&self) -> Passes {
        let by_nodes = self.by_nodes();
        if !by_nodes.is_empty() {
            return Passes::of(&by_nodes);
        }
        let rows = self.methods().iter().filter_map(|m| m.overall.as_ref());
        let mean = |row: &Row| row.round_cost.map(|c| (c.pass_tokens, c.pass_ratio, row.summary.rounds as f64));
        Passes::of(&rows.filter_map(mean).collect::<Vec<_>>())
    }

    fn by_nodes(&self) -> Vec<(f64, f64, f64)> {
        let Some(plain) = self.configs.first().and_then(|m| m.overall.as_ref()).map(|row| &row.summary) else {
            return Vec::new();
        };
        let one = plain.verify_s / plain.rounds as f64;
        let rows = self.methods().iter().filter_map(|m| m.overall.as_ref());
        let entries = rows.flat_map(|row| &row.summary.by_nodes).filter(|_| one > 0.0);
        let point = |of: &ByNodes| (of.nodes as f64 + 1.0, of.pass_s / one, of.rounds as f64);
        entries.map(point).collect()
    }
}

impl Method {
    /// Its row of a kind of text, or the overall one.
    pub fn row(&self, kind: &str) -> Option<&Row> {
        self.kinds.iter().chain(&self.overall).find(|row| row.kind == kind)
    }

    /// Whether a controller decides how much it drafts.
    pub fn is_adaptive(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.adaptive)
    }

    /// Leviathan's α on one of its rows.
    pub fn alpha(&self, row: &Row) -> Option<f64> {
        if self.is_adaptive() {
            row.summary.alpha_of_mean_length()
        } else {
            row.summary.alpha()
        }
    }

    /// Whether it drafts chains: no more nodes in a round than its longest branch may have.
    pub fn drafts_chains(&self) -> bool {
        let longest = self.shape.as_ref().map_or(0, |shape| shape.depth) as f64;
        let nodes = self.overall.as_ref().and_then(|row| row.summary.draft_length());
        nodes.is_some_and(|nodes| nodes <= longest)
    }

    /// The drafter and the files it drafts with.
    pub fn drafter_name(&self) -> String {
        let mut files = Vec::new();
        collect_files(&self.settings, &mut files);
        std::iter::once(self.drafter.clone()).chain(files).collect::<Vec<_>>().join(" ")
    }
}

/// Every string that names a model's file.
fn collect_files(settings: &Value, files: &mut Vec<String>) {
    match settings {
        Value::String(text) if text.ends_with(".gguf") => files.push(text.trim_end_matches(".gguf").to_owned()),
        Value::Array(values) => values.iter().for_each(|value| collect_files(value, files)),
        Value::Object(values) => values.values().for_each(|value| collect_files(value, files)),
        _ => {}
    }
}

impl Row {
    /// The interval of the ratio, if it says anything: of a single run it has no width.
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.ratio_interval_95.filter(|(low, high)| high > low)
    }

    /// The same of the ratio with prefill counted.
    pub fn wall_interval(&self) -> Option<(f64, f64)> {
        self.wall_ratio_interval_95.filter(|(low, high)| high > low)
    }

    /// Faster, slower or neither, as far as can be told.
    pub fn verdict(&self) -> &'static str {
        match (self.interval(), self.ratio) {
            (Some((low, _)), _) if low > 1.0 => "win",
            (Some((_, high)), _) if high < 1.0 => "loss",
            (None, Some(ratio)) if ratio > 1.0 + NOISE => "win",
            (None, Some(ratio)) if ratio < 1.0 - NOISE => "loss",
            _ => "even",
        }
    }
}

/// A single ratio this near to 1 is not told from it; [`crate::report`] counts prompts as slower by the same.
pub const NOISE: f64 = 0.02;

impl Summary {
    /// Rounds in which something was drafted.
    pub fn drafting_rounds(&self) -> usize {
        self.rounds.saturating_sub(self.plain_rounds)
    }

    /// Mean nodes of the rounds in which something was drafted; `None` if none was.
    pub fn draft_length(&self) -> Option<f64> {
        over(self.drafted, self.drafting_rounds())
    }

    /// Mean tokens of the rounds in which something was drafted, the recovered or bonus token included.
    pub fn tokens_when_drafting(&self) -> Option<f64> {
        over(self.accepted, self.drafting_rounds()).map(|accepted| 1.0 + accepted)
    }

    /// Mean tokens of a round.
    pub fn tokens_per_round(&self) -> Option<f64> {
        over(self.accepted, self.rounds).map(|accepted| 1.0 + accepted)
    }

    /// Accepted / drafted.
    pub fn acceptance_rate(&self) -> Option<f64> {
        over(self.accepted, self.drafted)
    }

    /// Leviathan's α, of drafts that all have one length.
    pub fn alpha(&self) -> Option<f64> {
        rate(Acceptance::same(&self.acceptance_by_position)?)
    }

    /// The rate of each position, given that all before it were accepted.
    pub fn by_position(&self) -> Option<Acceptance> {
        match self.conditional_acceptance_by_position.as_slice() {
            [] => Acceptance::by_position(&self.acceptance_by_position),
            rates => Some(Acceptance::ByPosition(rates.iter().map(|rate| rate.clamp(0.0, 1.0)).collect())),
        }
    }

    /// The α of drafts that are longer where they are likelier, so that the shares by position say nothing of it: the
    /// one at which chains of their mean length yield as many tokens.
    pub fn alpha_of_mean_length(&self) -> Option<f64> {
        rate(Acceptance::yielding(self.tokens_when_drafting()?, self.draft_length()?))
    }
}

fn rate(acceptance: Acceptance) -> Option<f64> {
    match acceptance {
        Acceptance::Same(alpha) => Some(alpha),
        Acceptance::ByPosition(_) => None,
    }
}

fn over(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
