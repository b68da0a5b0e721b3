//! The n-gram drafter: it continues the text as it went on when its last tokens occurred before.
//!
//! It asks no model and costs microseconds. It shines where text repeats itself (code, quotations,
//! summaries, chats about a document) and makes no guess where it does not. For every node it gathers
//! earlier occurrences of the longest suffix of the context, counts what followed them, shorter
//! matches smoothing longer ones, and grows the tree best first: a chain while the continuations
//! agree, branches where they do not.
//!
//! * `settings`: the keys of its table.
//! * `drafter`: the texts, and how the tree grows.
//! * `predict`: from occurrences to beliefs.
//! * [`suffixes`]: the index of repetitions, with its caps and its cost.
//!
//! After SuffixDecoding (Oliaro et al., arXiv 2411.04975: counts, best first by the product of
//! probabilities) and SAM-Decoding (Hu et al., arXiv 2411.10666: longest suffix, online).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use foretoken_drafter::{DraftError, Drafter, Host};

mod archive;
mod drafter;
mod history;
mod place;
mod predict;
mod settings;
pub mod suffixes;
pub mod table;

pub use drafter::NgramDrafter;
pub use settings::{Keep, Settings};
pub use history::History;
pub use suffixes::SuffixIndex;
pub use table::Table;

/// Builds the drafter from the text of its table (TOML); it asks the host for the files that are named there.
///
/// # Errors
/// A key is unknown, its value is out of range, or a file cannot be used.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let settings = Settings::parse(settings)?;
    let mut drafter = NgramDrafter::new(settings.clone())?;
    let tokenizer = host.target().tokenizer;
    if let Some(path) = place::history(&settings.history, tokenizer, host)? {
        drafter = drafter.with_history(History::open(&path, tokenizer, settings.history_limit, settings.max_match)?);
    }
    for path in &settings.table {
        let blame = |error| DraftError::settings(format!("table {}: {error}", path.display()));
        drafter = drafter.with_table(Table::open(host.map(path)?, tokenizer).map_err(blame)?);
    }
    Ok(Box::new(drafter))
}
