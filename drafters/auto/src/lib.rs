//! Drafter `auto`: whatever there is drafts. Also what runs when no drafter is named.
//!
//! N-grams cost nothing, so they always take part, and tables of texts (`*.ngram`) found beside the target with them. So
//! does a draft model, named or found there: of the smaller models of its vocabulary the largest of at most an eighth of
//! its size, or else the smallest of at most half. Where there is none, heads made for the target take its place; name
//! one, and the other is not looked for; name both, and both take part. All parts grow one tree
//! ([`foretoken_drafter_merge`]), lookups first, the model last. Which of them pays, how much and when is not decided here:
//! with `speculation.adaptive`, the default, an evaluation of the heads, each further pass of a draft model, and each
//! guess, is taken only where it is expected to bring more than it costs.
//! Finding that out takes time for each: on simulated machines heads and a model together are up to 8 % slower than the
//! better of them alone, and 13 % faster where each is better at times and passes over many tokens are cheap.
//!
//! * **Helps** nearly always, and where nothing pays it should cost next to nothing: that is what the adaptive shape is
//!   for.
//! * **Hurts** with `adaptive = false`: then every part drafts in every round, which is seldom wise.
//! * **Memory**: that of its parts. A draft model that never pays still takes its room; name `kind = "ngram"` then.
//!
//! ```toml
//! [drafter]
//! kind = "auto"
//! # model = "draft.gguf"    # instead of what lies beside the target, if no heads are named; "" for none
//! # heads = "heads.gguf"    # likewise, if there is no draft model
//! # table = "table.ngram"   # likewise; [] for none
//! # history = true          # and whatever else `ngram` takes; what was written before is only kept if asked for
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::path::{Path, PathBuf};

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
    let mut left_out = Vec::new();
    let (mut ngram, mut names) = (settings.ngram, vec!["n-grams".to_owned()]);
    if !ngram.contains_key("table") {
        for path in found.tables {
            let name = name_of(&path);
            let table = toml::Value::from(path.to_string_lossy().into_owned());
            let mut tables = ngram.get("table").and_then(toml::Value::as_array).cloned().unwrap_or_default();
            tables.push(table.clone());
            // Alone, so that it is known which is no good; together, for there may be too many.
            let alone = [vec![table], tables.clone()].map(|tables| host.build("ngram", &only("table", tables.into())));
            match alone.into_iter().find_map(Result::err) {
                None => {
                    ngram.insert("table".to_owned(), tables.into());
                    names.push(format!("table {name}, found beside the target"));
                }
                Some(error) => left_out.push(format!("{name} is left out: {error}")),
            }
        }
    }
    let mut parts = vec![("ngram".to_owned(), host.build("ngram", &ngram.to_string()).map_err(own_keys)?)];
    let is_given = |named: &Option<PathBuf>| named.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    let chosen = is_given(&settings.model) || is_given(&settings.heads);
    let wanted = [("model", "model", settings.model, found.models), ("medusa", "heads", settings.heads, found.heads)];
    for (kind, key, named, found) in wanted {
        let is_named = named.is_some();
        if !is_named && (chosen || parts.len() > 1) {
            continue; // one part that costs time is enough
        }
        let whence = if is_named { "" } else { ", found beside the target" };
        let files = named.map_or(found, |path| vec![path]);
        for path in files.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            let name = name_of(&path);
            match host.build(kind, &only(key, path.to_string_lossy().into_owned().into())) {
                Ok(part) => {
                    // Lookups, heads, model: the dearest comes last, and is asked about what the others leave open.
                    parts.insert(if key == "heads" { 1 } else { parts.len() }, (kind.to_owned(), part));
                    names.push(format!("{key} {name}{whence}"));
                    break;
                }
                Err(error) if is_named => return Err(error),
                Err(error) => left_out.push(format!("{name} is left out: {error}")),
            }
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
    Ok(Box::new(Auto { parts: Merge::of_kinds(parts), about }))
}

/// What `ngram` does not know may have been meant for another kind, or for this one.
fn own_keys(error: DraftError) -> DraftError {
    match error {
        DraftError::Settings(message) if message.contains("unknown key") => {
            let more = "; `auto` takes `model` and `heads` besides, and other kinds must be named: kind = \"…\"";
            DraftError::settings(message + more)
        }
        other => other,
    }
}

/// Settings with one key.
fn only(key: &str, value: toml::Value) -> String {
    toml::Table::from_iter([(key.to_owned(), value)]).to_string()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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

    fn forget(&mut self, seq: SeqId) {
        self.parts.forget(seq);
    }

    fn needs(&self) -> Needs {
        self.parts.needs()
    }

    fn parts(&self) -> Vec<String> {
        self.parts.parts()
    }

    fn about(&self) -> Option<String> {
        Some(self.about.clone())
    }
}
