//! `foretoken run`: continue a prompt, with the drafter that the configuration names.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{note, warn, Failure};
use crate::chat;
use crate::config::{Config, Setup};
use crate::engine::{Engine, Observer};
use crate::generate::{generate, Generation, Limits, Stop};
use crate::llama::host::LlamaHost;
use crate::llama::learnt::{self, Machine};
use crate::llama::model::Model;
use crate::registry::Registry;
use crate::stats::{OfPart, Round, Summary};
use foretoken_drafter::Token;

/// Continue a prompt.
///
/// The text goes to stdout, statistics to stderr. A seed repeats a sampled run only with `speculation.adaptive = false`
/// or without a drafter: otherwise what is drafted depends on measured times.
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    overrides: Overrides,
    /// The prompt.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// Read the prompt from a file; `-` is stdin, and so is nothing at all if stdin is no terminal.
    #[arg(short = 'f', long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Wrap the prompt in the model's own chat template.
    #[arg(long)]
    chat: bool,
    /// Most tokens to generate.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 256, allow_negative_numbers = true)]
    max_tokens: usize,
    /// End the text where this appears (may be repeated).
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Never choose a token that ends the text, so that it goes on to `-n` tokens: for measuring speed.
    #[arg(long)]
    ignore_end: bool,
    /// Print one JSON object instead of the text.
    #[arg(long)]
    json: bool,
    /// Do not print statistics.
    #[arg(short, long)]
    quiet: bool,
    /// Say of each round what was expected of it and what it gave.
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
}

/// A configuration file, and the flags that override it.
#[derive(clap::Args)]
pub struct Overrides {
    /// Configuration file (TOML); paths in it are relative to it.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The target: a GGUF file.
    #[arg(long, value_name = "FILE")]
    pub target: Option<PathBuf>,
    /// Kind of drafter (see `foretoken list`) [default: auto].
    #[arg(long, value_name = "KIND")]
    pub drafter: Option<String>,
    /// A draft model: a smaller GGUF of the target's vocabulary.
    #[arg(long, value_name = "FILE")]
    pub draft: Option<PathBuf>,
    /// Set any value of the configuration, as in `--set drafter.model=draft.gguf` (may be repeated); as if it stood in
    /// the file, so paths are relative to that.
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    pub set: Vec<String>,
    /// 0 is greedy [default: 0].
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Fixes every random choice [default: 0; with a history, a new one].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
}

impl Overrides {
    /// The configuration that file and flags make.
    pub fn setup(&self) -> Result<Setup, Failure> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        // Relative to where we are, unlike a path in the file.
        let here = |path: &Path| {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            toml::Value::from(absolute.to_string_lossy().into_owned())
        };
        if let Some(target) = &self.target {
            config.set("target.model", here(target))?;
        }
        if let Some(kind) = &self.drafter {
            config.set_drafter(kind);
        }
        if let Some(draft) = &self.draft {
            config.set("drafter.model", here(draft))?;
        }
        for assignment in &self.set {
            config.set_typed(assignment)?;
        }
        if let Some(temperature) = self.temperature {
            config.set("sampling.temperature", f64::from(temperature).into())?;
        }
        if let Some(seed) = self.seed {
            let seed = i64::try_from(seed)
                .map_err(|_| Failure::Input(format!("--seed = {seed} is too large; at most {}", i64::MAX)))?;
            config.set("sampling.seed", seed.into())?;
        }
        Ok(config.setup()?)
    }
}

impl Run {
    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        let mut setup = self.overrides.setup()?;
        let text = self.prompt_text()?;
        warn(&setup)?;
        let mut host = LlamaHost::load(&setup, registry)?;
        let text = if self.chat { in_template(host.model(), &text)? } else { text };
        let prompt = host.model().tokenise(&text, true)?;
        if self.ignore_end {
            setup.sampling.forbidden = host.model().ends();
        }
        let mut engine = host.engine(&setup)?;
        if !self.quiet && !self.json {
            let line = describe(&setup);
            note(match (engine.about_drafter(), line.split_once(": ")) {
                (Some(about), Some((drafter, shape))) => format!("{drafter} ({about}): {shape}"),
                _ => line,
            });
            if host.model().is_recurrent() && setup.drafter.kind != "none" {
                note("the target is recurrent: guesses are chains, and what was accepted beside a rejected one is read again");
            }
        }
        if self.verbose || !(self.quiet || self.json) {
            engine.observe(self.observer());
        }
        let generation = self.stream(&mut engine, host.model().as_ref(), &prompt)?;
        if let Some(control) = engine.control() {
            learnt::store_machine(&host, host.context_options().threads, &Machine::of(&host, control));
            learnt::store_habits(&host, &setup, control);
        }
        if self.json {
            return print_json(&setup, &engine, &generation);
        }
        // A text that lacks its end is no matter of statistics.
        if !self.quiet || generation.stop == Stop::ContextFull {
            say_why_it_ended(&generation, &engine);
        }
        if !self.quiet {
            report(&generation, &engine);
        }
        Ok(())
    }

    /// Tells of every round, or only of a machine that became slower and of another number of threads.
    fn observer(&self) -> Observer {
        let (is_verbose, mut threads) = (self.verbose, None);
        Box::new(move |round: &Round| {
            if is_verbose {
                note(round_line(round));
            }
            if let (Some(before), Some(now)) = (threads, round.threads.filter(|&now| threads.is_some_and(|t| t != now)))
            {
                let threads = if now == 1 { "thread" } else { "threads" };
                note(format!("going on with {now} {threads} instead of {before}: that is faster now"));
            }
            if let Some(factor) = round.slower {
                note(format!(
                    "passes take {factor:.1} times as long as they did; other numbers of threads do not help"
                ));
            }
            threads = round.threads;
        })
    }

    fn stream(
        &self,
        engine: &mut Engine,
        vocabulary: &dyn crate::text::Vocabulary,
        prompt: &[Token],
    ) -> Result<Generation, Failure> {
        let limits = Limits { max_tokens: self.max_tokens, stop: self.stop.clone(), ignore_end: self.ignore_end };
        let interrupt = super::progress::interrupt();
        let mut out = std::io::stdout().lock();
        let mut failed = None;
        let mut sink = |piece: &str| {
            if self.json || failed.is_some() {
                return failed.is_none();
            }
            failed = out.write_all(piece.as_bytes()).and_then(|()| out.flush()).err();
            failed.is_none()
        };
        let generation = generate(engine, vocabulary, prompt, &limits, interrupt, &mut sink)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if !self.json {
            writeln!(out)?;
        }
        Ok(generation)
    }

    fn prompt_text(&self) -> Result<String, Failure> {
        let from_stdin = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => return non_empty(text.clone(), "--prompt"),
            (None, Some(path)) if path.as_os_str() != "-" => {
                let name = path.display().to_string();
                let bytes = std::fs::read(path).map_err(|e| Failure::Input(format!("cannot read {name}: {e}")))?;
                return non_empty(utf8(bytes, &name)?, &name);
            }
            (None, given) => given.is_some() || !std::io::IsTerminal::is_terminal(&std::io::stdin()),
        };
        if !from_stdin {
            return Err(Failure::Input("no prompt: give --prompt, --prompt-file or text on stdin".to_owned()));
        }
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes);
        read.map_err(|e| Failure::Input(format!("cannot read stdin: {e}")))?;
        non_empty(utf8(bytes, "stdin")?, "stdin")
    }
}

/// The prompt as the one message of a conversation.
fn in_template(model: &Model, message: &str) -> Result<String, Failure> {
    let path = model.path().display();
    let Some(template) = model.meta("tokenizer.chat_template") else {
        return Err(Failure::Input(format!("{path} has no chat template; leave out --chat")));
    };
    let (bos, eos) = model.beginning_and_end();
    let text = chat::render(&template, message, &bos, &eos)
        .map_err(|e| Failure::Input(format!("the chat template of {path} cannot be used: {e}")))?;
    // Where tokenising adds the beginning token itself, the template's would be a second one.
    let written = text.strip_prefix(&bos).filter(|_| !bos.is_empty() && model.adds_beginning());
    Ok(written.map(str::to_owned).unwrap_or(text))
}

fn non_empty(text: String, whence: &str) -> Result<String, Failure> {
    match text.is_empty() {
        true => Err(Failure::Input(format!("the prompt from {whence} is empty: give some text to continue"))),
        false => Ok(text),
    }
}

pub(super) fn utf8(bytes: Vec<u8>, whence: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::Input(format!("{whence} is not UTF-8: byte {at} begins no character; convert it with iconv"))
    })
}

/// What is about to run; a drafter that silently does nothing is the commonest complaint elsewhere.
pub fn describe(setup: &Setup) -> String {
    let s = setup.shape;
    match setup.drafter.kind.as_str() {
        "none" => "drafter none: plain decoding".to_owned(),
        kind => {
            let adaptive = if setup.adaptive { ", as far as it pays" } else { "" };
            format!("drafter {kind}: up to {} nodes, depth {}, width {}{adaptive}", s.max_nodes, s.depth, s.width)
        }
    }
}

/// What was expected of a round, and what it gave.
fn round_line(round: &Round) -> String {
    let expected = round
        .predicted
        .map_or(String::new(), |p| format!("expected {:.2} tokens in {:.1} ms, ", p.tokens, 1000.0 * p.seconds));
    format!(
        "round: {} nodes, depth {}: {expected}got {} in {:.1} ms (draft {:.1}, verify {:.1})",
        round.drafted,
        round.depth,
        round.tokens.len(),
        1000.0 * round.total.as_secs_f64(),
        1000.0 * round.draft.as_secs_f64(),
        1000.0 * round.score.as_secs_f64(),
    )
}

fn say_why_it_ended(generation: &Generation, engine: &Engine) {
    match &generation.stop {
        Stop::EndOfGeneration | Stop::Length => {}
        Stop::StopString(stop) => note(format!("stopped at {stop:?}")),
        Stop::ContextFull => note(format!("stopped: the context of {} tokens is full", engine.context().len() - 1)),
        Stop::Interrupted => note("stopped: interrupted"),
    }
}

fn report(generation: &Generation, engine: &Engine) {
    let s = generation.stats.summary();
    let or_dash = |x: Option<f64>, digits: usize| x.map_or("-".to_owned(), |x| format!("{x:.digits$}"));
    note(format!(
        "{} prompt tokens in {:.2} s; {} generated in {:.2} s: {} tokens/s",
        s.prompt_tokens,
        s.prefill_s,
        s.generated_tokens,
        s.decode_s,
        or_dash(s.tokens_per_second, 1)
    ));
    note(format!(
        "{} rounds ({} plain), {} of {} drafted tokens accepted: acceptance rate {}, mean acceptance length {}",
        s.rounds,
        s.plain_rounds,
        s.accepted,
        s.drafted,
        or_dash(s.acceptance_rate, 3),
        or_dash(s.mean_acceptance_length, 2)
    ));
    if let Some(line) = by_part(&engine.drafter_parts(), &s.by_part) {
        note(line);
    }
    if let Some(ratio) = s.realised_over_predicted {
        note(format!("speed was {ratio:.2} of what was predicted round by round"));
    }
}

/// Whose guesses it was that paid, of a drafter that has parts.
fn by_part(names: &[String], parts: &[OfPart]) -> Option<String> {
    let none = OfPart::default();
    let one = |(i, name): (usize, &String)| {
        let part = parts.get(i).unwrap_or(&none);
        match part.drafted {
            0 => format!("{name} none"),
            drafted => format!("{name} {} of {drafted}", part.accepted),
        }
    };
    let each: Vec<_> = names.iter().enumerate().map(one).collect();
    (names.len() > 1).then(|| format!("of these, by who guessed: {}", each.join(", ")))
}

fn print_json(setup: &Setup, engine: &Engine, generation: &Generation) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Output<'a> {
        text: &'a str,
        tokens: &'a [Token],
        stop: &'a str,
        stats: Stats<'a>,
    }
    #[derive(Serialize)]
    struct Stats<'a> {
        #[serde(flatten)]
        summary: Summary,
        drafter: &'a str,
        parts: Vec<String>,
        settings: serde_json::Value,
    }
    let s = &setup.sampling;
    let settings = serde_json::json!({
        "target": setup.target.model, "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p,
        "min_p": s.min_p, "repeat_penalty": s.repeat_penalty, "frequency_penalty": s.frequency_penalty,
        "presence_penalty": s.presence_penalty, "penalty_last_n": s.penalty_last_n, "seed": engine.seed(),
        "adaptive": setup.adaptive, "max_nodes": setup.shape.max_nodes, "depth": setup.shape.depth,
        "width": setup.shape.width, "forbidden": s.forbidden, "drafter": setup.drafter.settings.trim(),
    });
    let stats = Stats {
        summary: generation.stats.summary(),
        drafter: &setup.drafter.kind,
        parts: engine.drafter_parts(),
        settings,
    };
    let output = Output { text: &generation.text, tokens: &generation.tokens, stop: generation.stop.label(), stats };
    let line = serde_json::to_string(&output).map_err(|e| Failure::Running(e.to_string()))?;
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}
