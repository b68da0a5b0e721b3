//! Drafter `cascade`: several drafters in order; each round, the first that has a guess drafts.
//!
//! Put the cheap and choosy one first: an n-gram lookup costs microseconds and knows when it knows
//! nothing, a draft model costs passes but always has a guess. The usual order in llama.cpp's server
//! too, where it is fixed.
//!
//! ```toml
//! [drafter]
//! kind = "cascade"
//! parts = [{ kind = "ngram" }, { kind = "model", model = "draft.gguf" }]
//! ```
//!
//! * **Helps** where cheap guesses come now and then, and a model has the rest: a round whose first part has a guess is
//!   spared the model's passes.
//! * **Hurts** where the first part guesses much and badly: the others are not asked in those rounds. `merge` asks all.
//! * **Memory**: that of its parts; it keeps nothing itself.
//!
//! A combinator is itself a [`Drafter`]: it gets its parts from the host and knows nothing else of
//! them.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, Host, Needs, SeqId, TokenTree};
use serde::Deserialize;

/// The `[drafter]` table of a combinator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    parts: Vec<toml::Table>,
}

/// Build the drafter and its parts.
///
/// # Errors
/// As for [`parts`].
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let (names, parts) = parts(settings, "cascade", host)?;
    Ok(Box::new(Cascade { parts, names }))
}

/// Build the `parts` that the settings of a combinator list, and name them; `what` is its name in a message.
///
/// # Errors
/// There are fewer than two parts, one of them never guesses, or one cannot be built.
pub fn parts(settings: &str, what: &str, host: &mut dyn Host) -> Result<Parts, DraftError> {
    let Settings { parts } = toml::from_str(settings).map_err(DraftError::settings)?;
    if parts.len() < 2 {
        let n = parts.len();
        return Err(DraftError::settings(format!("parts lists {n} drafters; a {what} needs two or more")));
    }
    let build = |mut part: toml::Table| match part.remove("kind") {
        Some(toml::Value::String(kind)) if kind == "none" => {
            Err(DraftError::settings("`none` never guesses; leave it out of parts"))
        }
        Some(toml::Value::String(kind)) => host.build(&kind, &part.to_string()).map(|built| (kind, built)),
        _ => Err(DraftError::settings("each of parts needs a kind, as in { kind = \"ngram\" }")),
    };
    let built = parts.into_iter().map(build).collect::<Result<Vec<_>, _>>()?;
    Ok((names(&built), built.into_iter().map(|(_, part)| part).collect()))
}

/// The names of parts and the parts; a part that has parts itself has the names of those.
pub type Parts = (Vec<String>, Vec<Box<dyn Drafter>>);

/// What parts of such kinds are called, in the order in which they are counted.
pub fn names(parts: &[(String, Box<dyn Drafter>)]) -> Vec<String> {
    let name = |(kind, part): &(String, Box<dyn Drafter>)| match part.parts() {
        inner if inner.is_empty() => vec![kind.clone()],
        inner => inner,
    };
    parts.iter().flat_map(name).collect()
}

/// The first of its parts that has a guess drafts.
pub struct Cascade {
    parts: Vec<Box<dyn Drafter>>,
    names: Vec<String>,
}

impl Cascade {
    /// Ask `parts`, which have no names, in this order.
    pub fn new(parts: Vec<Box<dyn Drafter>>) -> Cascade {
        Cascade { parts, names: Vec::new() }
    }
}

impl Drafter for Cascade {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        let before = tree.len();
        for (i, part) in self.parts.iter_mut().enumerate() {
            if i > 0 {
                tree.next_part();
            }
            // The others are counted even so.
            if tree.len() == before {
                part.draft(request, tree)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        self.parts.iter_mut().try_for_each(|part| part.commit(commit))
    }

    fn end(&mut self, seq: SeqId) {
        self.parts.iter_mut().for_each(|part| part.end(seq));
    }

    fn forget(&mut self, seq: SeqId) {
        self.parts.iter_mut().for_each(|part| part.forget(seq));
    }

    fn parts(&self) -> Vec<String> {
        self.names.clone()
    }

    fn needs(&self) -> Needs {
        self.parts.iter().fold(Needs::default(), |needs, part| needs.and(part.needs()))
    }
}
