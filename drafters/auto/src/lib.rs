//! Drafter `auto`: whatever there is drafts. Also what runs when no drafter is named.
//!
//! N-grams cost nothing, so they always take part. With them goes a draft model, named or found beside the target: of the
//! smaller models of its vocabulary the largest of at most an eighth of its size, or else the smallest. Where there is
//! none, heads made for the target take its place; name both, and both take part. All parts grow one tree
//! ([`foretoken_drafter_merge`]), lookups first, the model last. Which of them pays, how much and when is not decided here:
//! with `speculation.adaptive`, the default, an evaluation of the heads, each further pass of a draft model, and each guess,
//! is taken only where it is expected to bring more than it costs. Finding that out takes time for each: on simulated
//! machines heads and a model together are up to 8 % slower than the better of them alone, and 13 % faster where each is
//! better at times and passes over many tokens are cheap.
//!
//! * **Helps** nearly always, and where nothing pays it should cost next to nothing: that is what the adaptive shape is
//!   for.
//! * **Hurts** with `adaptive = false`: then every part drafts in every round, which is seldom wise.
//! * **Memory**: that of its parts. A draft model that never pays still takes its room; name `kind = "ngram"` then.
//!
//! ```toml
//! [drafter]
//! kind = "auto"
//! # model = "draft.gguf"    # instead of what lies beside the target; "" for none
//! # heads = "heads.gguf"    # likewise
//! # table = "table.ngram"   # and whatever else `ngram` takes: history, history_limit
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::path::PathBuf;

use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, Host, Needs, SeqId, TokenTree};
use foretoken_drafter_merge::Merge;
use serde::Deserialize;

/// The `[drafter]` table of `kind = "auto"`. What it does not know is `ngram`'s.
#[derive(Debug, Deserialize)]
struct Settings {
    model: Option<PathBuf>,
    heads: Option<PathBuf>,
    #[serde(flatten)]
    ngram: toml::Table,
}

/// Build the drafter from what the settings name and what lies beside the target.
///
/// # Errors
/// A file that the settings name cannot be used. One that was only found is left out then.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let settings: Settings = toml::from_str(settings).map_err(DraftError::settings)?;
    let found = host.companions();
    let mut parts = vec![host.build("ngram", &settings.ngram.to_string())?];
    let mut names = vec!["n-grams".to_owned()];
    let mut left_out = Vec::new();
    let wanted = [("model", "model", settings.model, found.models), ("medusa", "heads", settings.heads, found.heads)];
    for (kind, key, named, found) in wanted {
        let is_named = named.is_some();
        if !is_named && parts.len() > 1 {
            continue; // one part that costs time is enough
        }
        let Some(path) = named.or_else(|| found.into_iter().next()).filter(|path| !path.as_os_str().is_empty()) else {
            continue;
        };
        let text = toml::Table::from_iter([(key.to_owned(), path.to_string_lossy().into_owned().into())]).to_string();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let whence = if is_named { "" } else { ", found beside the target" };
        match host.build(kind, &text) {
            Ok(part) => {
                // Lookups, heads, model: the dearest comes last, and is asked about what the others leave open.
                parts.insert(if key == "heads" { 1 } else { parts.len() }, part);
                names.push(format!("{key} {name}{whence}"));
            }
            Err(error) if is_named => return Err(error),
            Err(error) => left_out.push(format!("{name} is left out: {error}")),
        }
    }
    let mut about = names.join("; ");
    if parts.len() > 2 {
        about.push_str("; heads and model each only where they should pay");
    }
    if parts.len() == 1 && left_out.is_empty() {
        about.push_str("; no draft model or heads beside the target");
    }
    let about = [vec![about], left_out].concat().join("; ");
    Ok(Box::new(Auto { parts: Merge::new(parts), about }))
}

/// A merge of what there is.
struct Auto {
    parts: Merge,
    about: String,
}

impl Drafter for Auto {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        self.parts.draft(request, tree)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        self.parts.commit(commit)
    }

    fn end(&mut self, seq: SeqId) {
        self.parts.end(seq);
    }

    fn needs(&self) -> Needs {
        self.parts.needs()
    }

    fn about(&self) -> Option<String> {
        Some(self.about.clone())
    }
}
