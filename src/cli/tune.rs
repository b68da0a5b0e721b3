//! `foretoken tune`: measure this machine with this target, compare what could draft, and write down the best.
//!
//! Nothing is modelled: thread counts and T(n), the latter at contexts of several lengths, are timed on the user's own
//! text, and the candidates are run against plain decoding as `bench` runs them. What was measured of the machine goes to
//! the cache, where later runs begin with it. Candidates are what costs nothing to try: n-grams, recycling, and the draft
//! models and heads that are named or found. What must be made first (`quantized`, `early_exit`) is for `bench`.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bench::{at_least_one, Bench};
use super::{note, output, warn, Failure};
use crate::config::{Config, Setup};
use crate::control::Control;
use crate::gguf;
use crate::llama::beside::speak_alike;
use crate::llama::context::{default_threads, Context, ContextOptions};
use crate::llama::host::LlamaHost;
use crate::llama::learnt::{self, Machine};
use crate::llama::probe::cost_curve;
use crate::llama::scorer::Scorer;
use crate::prompts;
use crate::registry::Registry;
use crate::report::{Comparison, Row};
use foretoken_drafter::{Host, Token};

/// Measure a target on this machine, compare the drafters that it could have, and write the best configuration.
#[derive(clap::Args)]
pub struct Tune {
    /// The model: a GGUF file.
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// A draft model to try, besides those beside the target (may be repeated).
    #[arg(long, value_name = "FILE")]
    draft: Vec<PathBuf>,
    /// Prompts like those that the model will get: JSON lines {"id", "kind", "prompt"}, plain text, or a folder.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE_OR_FOLDER")]
    prompts: Vec<PathBuf>,
    /// Use only the first prompts of each kind.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    prompts_per_kind: u32,
    /// Tokens to generate after each prompt.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 96, value_parser = at_least_one)]
    max_tokens: u32,
    /// 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// The configuration to write.
    #[arg(long, value_name = "FILE", default_value = "tuned.toml")]
    out: PathBuf,
}

/// Largest pass that is timed, and how often each is.
const LARGEST: usize = 17;
const REPEATS: usize = 5;

/// Tokens of the texts at whose end passes are timed: T(n) is kept by ranges of contexts, and these lie in three of them.
const CONTEXTS: [usize; 3] = [256, 1536, 3072];

/// How many of the draft models found beside the target are tried.
const FOUND: usize = 3;

impl Tune {
    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        self.check()?;
        let target = std::path::absolute(&self.target).unwrap_or_else(|_| self.target.clone());
        let bench = Bench::of(self.prompts.clone(), self.prompts_per_kind, self.max_tokens, self.temperature);
        let setup = plain_setup(&target, self.temperature)?;
        warn(&setup)?;
        let host = LlamaHost::load(&setup, registry)?;
        bench.check_prompts(&host)?;
        let (threads, curve) = self.measure(&host)?;
        let candidates = self.candidates(&host);
        // It is loaded again to be compared, and memory may hold it once only.
        drop(host);
        let folder = tempfile::tempdir().map_err(|e| Failure::Running(e.to_string()))?;
        let mut configs = Vec::new();
        for candidate in &candidates {
            let path = folder.path().join(format!("{}.toml", candidate.name));
            std::fs::write(&path, candidate.config(&target, threads, self.temperature))
                .map_err(|e| Failure::Running(e.to_string()))?;
            configs.push(path);
        }
        note(format!("comparing {} with plain decoding", names(&candidates)));
        let comparison = bench.comparison(configs, registry)?;
        let rows: Vec<Option<Row>> = (1..=candidates.len()).map(|i| comparison.rows(i).pop()).collect();
        let speed = |row: &Option<Row>| row.as_ref().and_then(|row| row.ratio).unwrap_or(0.0);
        let best = (0..rows.len()).max_by(|&a, &b| speed(&rows[a]).total_cmp(&speed(&rows[b])));
        let best = best.filter(|&i| speed(&rows[i]) > 1.0);

        let mut text = self.evidence(&comparison, &candidates, &rows, &curve);
        let plain = Candidate { name: "none".to_owned(), drafter: "kind = \"none\"\n".to_owned() };
        text.push_str(&best.map_or(&plain, |i| &candidates[i]).config(&target, threads, self.temperature));
        // Written first: nobody may be reading the table.
        let written = self.write(&text);
        let mut out = std::io::stdout().lock();
        let shown = writeln!(out, "{}", comparison.table());
        if let Err(failure) = written {
            // What took so long to measure is not lost with a full disk.
            let _ = writeln!(out, "{text}");
            return Err(failure);
        }
        shown?;
        let chosen = match best {
            Some(i) => format!("{} at {:.2} x plain", candidates[i].name, speed(&rows[i])),
            None => "plain decoding: nothing was faster".to_owned(),
        };
        writeln!(out, "{}: {chosen}", self.out.display())?;
        Ok(())
    }

    /// Refuse, before anything is measured, what would be refused afterwards.
    fn check(&self) -> Result<(), Failure> {
        let sources = [&self.target].into_iter().chain(&self.draft).chain(&self.prompts);
        output::spares_models(&self.out, sources.map(PathBuf::as_path))?;
        output::can_be_made(&self.out)?;
        let target = gguf::GgufFile::open(&self.target)?;
        target.check()?;
        for draft in &self.draft {
            let file = gguf::GgufFile::open(draft)?;
            file.check()?;
            if !speak_alike(&file, &target) {
                let (draft, target) = (draft.display(), self.target.display());
                return Err(Failure::Input(format!(
                    "{draft} has another vocabulary than {target}: `foretoken check {target} {draft}` shows where; use a model \
                     of the target's family"
                )));
            }
        }
        Ok(())
    }

    /// The configuration: whole, or not at all.
    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut file = gguf::beside(&self.out)?;
        let written = file.as_file_mut().write_all(text.as_bytes());
        let failed =
            |e| Failure::Running(format!("cannot write `{}`: {e}; it was printed instead", self.out.display()));
        written.map_err(failed)?;
        Ok(gguf::publish(file, &self.out)?)
    }

    /// The best number of threads, and T(n) with it; kept for later runs that are told this number, and for those that
    /// are told none.
    fn measure(&self, host: &LlamaHost<'_>) -> Result<(usize, Vec<Duration>), Failure> {
        let text = self.text(host)?;
        let short = &text[..text.len().min(CONTEXTS[0])];
        let mut best: Option<(usize, Vec<Duration>)> = None;
        let scorer = |threads: usize| {
            let options = ContextOptions { threads, max_leaves: 1, ..host.context_options().clone() };
            Context::new(host.model().clone(), &options).map(Scorer::new)
        };
        for threads in thread_counts(default_threads()) {
            let mut scorer = scorer(threads)?;
            let curve = cost_curve(&mut scorer, short, 4, REPEATS)?;
            note(format!("{threads} threads: {}", times(&curve)));
            if best.as_ref().is_none_or(|(_, other)| curve.iter().sum::<Duration>() < other.iter().sum()) {
                best = Some((threads, curve));
            }
        }
        let (threads, _) = best.ok_or_else(|| Failure::Running("no number of threads was measured".to_owned()))?;
        let mut scorer = scorer(threads)?;
        let mut control = Control::new();
        let mut first = Vec::new();
        for context in CONTEXTS.into_iter().filter(|&n| n == CONTEXTS[0] || n <= text.len()) {
            let text = &text[..text.len().min(context)];
            let curve = cost_curve(&mut scorer, text, LARGEST, REPEATS)?;
            let said = format!("T(n) with {threads} threads after {} tokens, n = 1, 2, …", text.len() - LARGEST);
            note(format!("{said}: {}", times(&curve)));
            let points: Vec<(usize, Duration)> = curve.iter().enumerate().map(|(i, &time)| (i + 1, time)).collect();
            (0..REPEATS).for_each(|_| control.seed(text.len(), &points));
            if first.is_empty() {
                first = curve;
            }
        }
        let step = first.first().map(Duration::as_secs_f64);
        let learnt = Machine { curve: control.curve().clone(), on: threads, threads: Some(threads), step };
        for told in HashSet::from([threads, default_threads()]) {
            learnt::store_machine(host, told, &learnt);
        }
        Ok((threads, first))
    }

    /// The beginning of the prompts, as far as one context goes: T(n) may depend on what is read.
    fn text(&self, host: &LlamaHost<'_>) -> Result<Vec<Token>, Failure> {
        let prompts = prompts::read(&self.prompts).map_err(|e| Failure::Input(e.to_string()))?;
        let text = prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>().join("\n");
        let mut tokens = host.model().tokenise(&text, true)?;
        tokens.truncate(host.context_options().n_ctx);
        match tokens.len() > LARGEST {
            true => Ok(tokens),
            false => Err(Failure::Input("the prompts are too short to measure with; give more text".to_owned())),
        }
    }

    fn candidates(&self, host: &LlamaHost<'_>) -> Vec<Candidate> {
        let found = host.companions();
        let candidate = |name: String, drafter: String| Candidate { name, drafter };
        let mut all = vec![
            candidate("ngram".to_owned(), "kind = \"ngram\"\n".to_owned()),
            candidate("recycle".to_owned(), "kind = \"recycle\"\n".to_owned()),
        ];
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let is_same = |a: &Path, b: &Path| std::fs::canonicalize(a).ok() == std::fs::canonicalize(b).ok();
        let mut drafts: Vec<PathBuf> = Vec::new();
        for (i, path) in self.draft.iter().cloned().chain(found.models).map(whole).enumerate() {
            if drafts.iter().any(|other| is_same(other, &path)) {
                continue;
            }
            match i < self.draft.len() || drafts.len() < self.draft.len() + FOUND {
                true => drafts.push(path),
                false => note(format!("{} is not tried; name it with --draft", path.display())),
            }
        }
        for path in drafts {
            let (stem, file) = (stem(&path), quoted(&path));
            let model = format!("{{ kind = \"model\", model = {file} }}");
            all.push(candidate(format!("model-{stem}"), format!("kind = \"model\"\nmodel = {file}\n")));
            all.push(candidate(format!("auto-{stem}"), format!("kind = \"auto\"\nmodel = {file}\n")));
            let parts = format!("kind = \"cascade\"\nparts = [{{ kind = \"ngram\" }}, {model}]\n");
            all.push(candidate(format!("cascade-{stem}"), parts));
        }
        for path in found.heads.into_iter().map(whole).take(1) {
            let (stem, file) = (stem(&path), quoted(&path));
            all.push(candidate(format!("medusa-{stem}"), format!("kind = \"medusa\"\nheads = {file}\n")));
        }
        // Files of one name in two folders.
        let mut taken = HashSet::new();
        for candidate in &mut all {
            let name = candidate.name.clone();
            let mut names = (2..).map(|i| format!("{name}-{i}"));
            while !taken.insert(candidate.name.clone()) {
                candidate.name = names.next().unwrap_or_default();
            }
        }
        all
    }

    /// What was found, as comments.
    fn evidence(
        &self,
        comparison: &Comparison,
        candidates: &[Candidate],
        rows: &[Option<Row>],
        curve: &[Duration],
    ) -> String {
        let mut lines = vec![
            format!(
                "# Written by foretoken {} tune, on this machine, from these measurements:",
                env!("CARGO_PKG_VERSION")
            ),
            format!("# T(n), n = 1, 2, …: {}", times(curve)),
            format!(
                "# {} tokens after each of {} prompts at temperature {}; tokens/s relative to plain decoding:",
                self.max_tokens,
                comparison.prompts.len(),
                self.temperature
            ),
        ];
        for (candidate, row) in candidates.iter().zip(rows) {
            let Some(row) = row else { continue };
            let range = row.ratio_interval_95.map_or(String::new(), |(a, b)| format!(" ({a:.2} to {b:.2})"));
            let length = row.summary.mean_acceptance_length.unwrap_or(1.0);
            let ratio = row.ratio.unwrap_or(f64::NAN);
            lines.push(format!("#   {}: {ratio:.2}{range}, mean acceptance length {length:.2}", candidate.name));
        }
        lines.join("\n") + "\n\n"
    }
}

/// A drafter that may turn out best.
struct Candidate {
    name: String,
    /// Its `[drafter]` table.
    drafter: String,
}

impl Candidate {
    fn config(&self, target: &Path, threads: usize, temperature: f32) -> String {
        format!(
            "[target]\nmodel = {}\nthreads = {threads}\n\n[sampling]\ntemperature = {temperature:?}\n\n[drafter]\n{}",
            quoted(target),
            self.drafter
        )
    }
}

fn plain_setup(target: &Path, temperature: f32) -> Result<Setup, Failure> {
    let mut config = Config::default();
    config.set("target.model", target.to_string_lossy().into_owned().into())?;
    config.set("sampling.temperature", f64::from(temperature).into())?;
    config.set("drafter.kind", "none".into())?;
    Ok(config.setup()?)
}

/// 1, 2, 4, … and all.
fn thread_counts(all: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < all).collect();
    counts.push(all.max(1));
    counts
}

fn times(curve: &[Duration]) -> String {
    let text: Vec<String> = curve.iter().map(|t| format!("{:.1}", 1000.0 * t.as_secs_f64())).collect();
    format!("{} ms", text.join(" "))
}

fn names(candidates: &[Candidate]) -> String {
    candidates.iter().map(|candidate| candidate.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// As a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}
