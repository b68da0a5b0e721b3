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

mod drafter;
mod predict;
mod settings;
mod history;
pub mod suffixes;
pub mod table;

pub use drafter::NgramDrafter;
pub use settings::Settings;
pub use history::History;
pub use suffixes::SuffixIndex;
pub use table::Table;

/// Builds the drafter from the text of its table (TOML); it asks nothing of the host.
///
/// # Errors
/// A key is unknown, or its value is out of range.
pub fn build(settings: &str, _host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    Ok(Box::new(NgramDrafter::new(Settings::parse(settings)?)?))
}
