//! The loop around [`Engine::step`]: from a prompt to text, and when to stop.
//!
//! It cuts a round short where the text ends (an accepted branch may run past an end-of-generation
//! token, a stop string or the length asked for); what is kept is a prefix of an exact sample, so
//! cutting changes no law.

use std::sync::atomic::{AtomicBool, Ordering};

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
    let mut text = Continuation::begin(engine, prompt, limits, interrupt)?;
    let stop = loop {
        if let Some(stop) = text.step(engine, vocabulary, interrupt)? {
            break stop;
        }
        let piece = text.take();
        if !piece.is_empty() && !sink(piece) {
            return Ok(text.end(Stop::Interrupted));
        }
    };
    let rest = text.rest();
    if !rest.is_empty() {
        sink(rest);
    }
    Ok(text.end(stop))
}

/// A text under way, for callers that do something else between its rounds. The engine that began it must make all its
/// steps and begin no other text meanwhile.
pub struct Continuation {
    limits: Limits,
    stream: TextStream,
    tokens: Vec<Token>,
    stats: Stats,
}

impl Continuation {
    /// Bring `engine` up to date with `prompt`. If `interrupt` was set meanwhile, the first step will say so.
    ///
    /// # Errors
    /// The prompt is empty or too long, or a model failed.
    pub fn begin(
        engine: &mut Engine,
        prompt: &[Token],
        limits: &Limits,
        interrupt: &AtomicBool,
    ) -> Result<Continuation, EngineError> {
        let begun = engine.now();
        engine.check(prompt)?;
        let is_interrupted = || interrupt.load(Ordering::Relaxed);
        for end in (AT_ONCE..prompt.len()).step_by(AT_ONCE).take_while(|_| !is_interrupted()) {
            engine.read(&prompt[..end])?;
        }
        engine.set_expected(limits.max_tokens);
        if !is_interrupted() {
            engine.start(prompt)?;
        }
        let mut stats = Stats::default();
        stats.prompt_tokens = prompt.len();
        stats.prefill = engine.now().saturating_sub(begun);
        Ok(Continuation { limits: limits.clone(), stream: TextStream::new(&limits.stop), tokens: Vec::new(), stats })
    }

    /// One more round, unless the text is over or `interrupt` is set; why it ended, if it did.
    ///
    /// # Errors
    /// A model failed.
    pub fn step(
        &mut self,
        engine: &mut Engine,
        vocabulary: &dyn Vocabulary,
        interrupt: &AtomicBool,
    ) -> Result<Option<Stop>, EngineError> {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(Some(Stop::Interrupted));
        }
        if self.tokens.len() >= self.limits.max_tokens {
            return Ok(Some(Stop::Length));
        }
        if engine.is_full() {
            return Ok(Some(Stop::ContextFull));
        }
        let round = engine.step(self.limits.max_tokens - self.tokens.len() - 1)?;
        self.stats.add(&round);
        for token in round.tokens {
            self.tokens.push(token);
            self.stats.generated_tokens += 1;
            if vocabulary.is_end(token) && !self.limits.ignore_end {
                return Ok(Some(Stop::EndOfGeneration));
            }
            self.stream.push(&vocabulary.piece(token));
            if let Some(stop) = self.stream.stopped() {
                return Ok(Some(Stop::StopString(stop.to_owned())));
            }
        }
        Ok(None)
    }

    /// What may be shown and was not taken yet: no part of a character, nothing that may still become a stop string.
    pub fn take(&mut self) -> &str {
        self.stream.take()
    }

    /// What is left to show when nothing more comes.
    pub fn rest(&mut self) -> &str {
        self.stream.finish()
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The finished generation, which ended because of `stop`.
    pub fn end(mut self, stop: Stop) -> Generation {
        self.stream.finish();
        Generation { text: self.stream.into_text(), tokens: self.tokens, stop, stats: self.stats }
    }
}
