//! The loop around [`Engine::step`]: from a prompt to text, and when to stop.
//!
//! It cuts a round short where the text ends (an accepted branch may run past an end-of-generation
//! token, a stop string or the length asked for); what is kept is a prefix of an exact sample, so
//! cutting changes no law.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use foretoken_drafter::Token;

use crate::engine::{Engine, EngineError};
use crate::stats::Stats;
use crate::text::{TextStream, Vocabulary};

/// How far to generate.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Texts that end the generation; not part of the output.
    pub stop: Vec<String>,
    /// Generate on past end-of-generation tokens (for benchmarks).
    pub ignore_end: bool,
}

impl Limits {
    /// At most `max_tokens`, or until the model says that it is done.
    pub fn tokens(max_tokens: usize) -> Limits {
        Limits { max_tokens, stop: Vec::new(), ignore_end: false }
    }
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model said that it is done.
    EndOfGeneration,
    /// As many tokens as asked for.
    Length,
    /// This stop string appeared.
    StopString(String),
    /// No further token fits into the context.
    ContextFull,
    /// The caller asked for it: an interrupt or a sink that takes no more.
    Interrupted,
}

impl Stop {
    /// One word for `--json`.
    pub fn label(&self) -> &'static str {
        match self {
            Stop::EndOfGeneration => "end",
            Stop::Length => "length",
            Stop::StopString(_) => "stop",
            Stop::ContextFull => "context",
            Stop::Interrupted => "interrupted",
        }
    }
}

/// A finished generation.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The text, without prompt and stop string.
    pub text: String,
    /// Its tokens; the last may be an end-of-generation token, which has no text.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub stop: Stop,
    /// What the rounds added up to.
    pub stats: Stats,
}

/// Tokens of a prompt that are read before the next look at whether to stop.
pub const AT_ONCE: usize = 512;

/// Generate after `prompt`. `sink` is handed each piece of text as it becomes final, never a part of
/// a UTF-8 character; it returns whether to go on. `interrupt` is looked at between rounds, and
/// every [`AT_ONCE`] tokens of the prompt.
///
/// # Errors
/// The prompt is empty or too long, or a model failed. What was generated before a failure has
/// already gone to `sink`.
pub fn generate(
    engine: &mut Engine,
    vocabulary: &dyn Vocabulary,
    prompt: &[Token],
    limits: &Limits,
    interrupt: &AtomicBool,
    sink: &mut dyn FnMut(&str) -> bool,
) -> Result<Generation, EngineError> {
    let mut stats = Stats::default();
    let begun = Instant::now();
    stats.prompt_tokens = prompt.len();
    engine.check(prompt)?;
    for end in (AT_ONCE..prompt.len()).step_by(AT_ONCE) {
        engine.read(&prompt[..end])?;
        if interrupt.load(Ordering::Relaxed) {
            stats.prefill = begun.elapsed();
            return Ok(Generation { text: String::new(), tokens: Vec::new(), stop: Stop::Interrupted, stats });
        }
    }
    engine.start(prompt)?;
    stats.prefill = begun.elapsed();

    let mut stream = TextStream::new(&limits.stop);
    let mut tokens = Vec::new();
    let mut refused = false;
    let stop = 'stop: loop {
        if tokens.len() >= limits.max_tokens {
            break Stop::Length;
        }
        if engine.is_full() {
            break Stop::ContextFull;
        }
        if interrupt.load(Ordering::Relaxed) {
            break Stop::Interrupted;
        }
        let round = engine.step(limits.max_tokens - tokens.len() - 1)?;
        stats.add(&round);
        for token in round.tokens {
            tokens.push(token);
            stats.generated_tokens += 1;
            if vocabulary.is_end(token) && !limits.ignore_end {
                break 'stop Stop::EndOfGeneration;
            }
            stream.push(&vocabulary.piece(token));
            if let Some(stop) = stream.stopped() {
                break 'stop Stop::StopString(stop.to_owned());
            }
        }
        let piece = stream.take();
        if !piece.is_empty() && !sink(piece) {
            refused = true;
            break Stop::Interrupted;
        }
    };
    let rest = stream.finish();
    if !rest.is_empty() && !refused {
        sink(rest);
    }
    Ok(Generation { text: stream.into_text(), tokens, stop, stats })
}
