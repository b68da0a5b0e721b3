//! Drafter kind → build function: the only list of built-in drafters, and where a plug-in adds its
//! own.

use foretoken_drafter::{Build, DraftError, Drafter, Host};

use crate::config::{did_you_mean, explain};

/// The kinds of drafters that a configuration can name.
pub struct Registry {
    kinds: Vec<Kind>,
}

/// A kind of drafter.
#[derive(Clone)]
pub struct Kind {
    /// As named in a configuration.
    pub name: &'static str,
    /// One line for `foretoken list`.
    pub about: &'static str,
    build: Build,
}

impl Registry {
    /// Every drafter that comes with foretoken.
    pub fn builtin() -> Registry {
        Registry { kinds: Vec::new() }
            .with("none", "plain decoding, one token a pass", none)
            .with(
                "auto",
                "whatever there is drafts, as far as it pays: n-grams, a draft model or heads beside the target",
                foretoken_drafter_auto::build,
            )
            .with(
                "model",
                "a smaller GGUF with the same vocabulary drafts, as a chain or a tree",
                foretoken_drafter_model::build,
            )
            .with(
                "quantized",
                "a copy of the target at lower precision drafts; made once, then kept",
                foretoken_drafter_quantized::build,
            )
            .with(
                "early_exit",
                "the target's first layers and its output head draft; made once, then kept",
                foretoken_drafter_early_exit::build,
            )
            .with(
                "ngram",
                "looks up how the text went on when its last tokens occurred before",
                foretoken_drafter_ngram::build,
            )
            .with(
                "medusa",
                "heads on the target's hidden state guess the next few tokens at once",
                foretoken_drafter_medusa::build,
            )
            .with(
                "cascade",
                "several drafters in order; the first that has a guess drafts",
                foretoken_drafter_cascade::build,
            )
            .with("merge", "several drafters grow one tree under one budget", foretoken_drafter_merge::build)
            .with(
                "staged",
                "a draft model that is itself drafted for by another drafter",
                foretoken_drafter_staged::build,
            )
            .with(
                "recycle",
                "what the target itself thought would follow each token, the last time",
                foretoken_drafter_recycle::build,
            )
    }

    /// Add a drafter, or replace the one of that name.
    pub fn with(mut self, name: &'static str, about: &'static str, build: Build) -> Registry {
        self.kinds.retain(|kind| kind.name != name);
        self.kinds.push(Kind { name, about, build });
        self
    }

    /// Every kind, in the order in which they were added.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Build a drafter.
    ///
    /// # Errors
    /// The kind is unknown (the message names the nearest one), or its settings are wrong.
    pub fn build(&self, kind: &str, settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
        let Some(found) = self.kinds.iter().find(|k| k.name == kind) else {
            let names: Vec<&str> = self.kinds.iter().map(|k| k.name).collect();
            return Err(DraftError::settings(format!("unknown drafter `{kind}`{}", did_you_mean(kind, &names))));
        };
        (found.build)(settings, host).map_err(|error| match error {
            DraftError::Settings(message) => DraftError::settings(format!("drafter `{kind}`: {}", explain(&message))),
            other => other,
        })
    }
}

/// The drafter that never guesses.
struct Plain;

impl Drafter for Plain {
    fn draft(
        &mut self,
        _: &foretoken_drafter::DraftRequest<'_>,
        _: &mut foretoken_drafter::TokenTree,
    ) -> Result<(), DraftError> {
        Ok(())
    }
}

fn none(settings: &str, _: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    match settings.trim() {
        "" => Ok(Box::new(Plain)),
        _ => Err(DraftError::settings("it takes no settings")),
    }
}
