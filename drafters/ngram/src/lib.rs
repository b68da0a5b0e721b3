//! The n-gram drafter: it continues the text as it went on when its last tokens occurred before.
//!
//! It asks no model and costs microseconds. It helps where text repeats itself (code, quotations,
//! summaries, chats about a document) and makes no guess where it does not; it hurts where things
//! come again and go on otherwise, as the values of records do. For every node it gathers
//! earlier occurrences of the longest suffix of the context, counts what followed them, shorter
//! matches smoothing longer ones, and grows the tree best first: a chain while the continuations
//! agree, branches where they do not.
//!
//! # Other texts
//!
//! It can look beyond the text at hand, in *tables* made ahead by `foretoken prepare ngram` and in a *history* of what
//! was written before. All are asked at once, and each branch is ranked by what all of them say. How far each is
//! trusted, at each length of match, is counted while it drafts: the context by every token of the text, the others by
//! whether they foresaw the first token of each round. A table of the wrong kind of text so comes to count for
//! little. That helps where texts resemble others (one code base, one kind of letter); where they do not, it costs a
//! few lookups a round and rejected guesses until it is no longer trusted.
//!
//! A history keeps the tokens that came out of rounds and the last `max_match` tokens of the prompt before them, which
//! matches need; when the text ends or the drafter is dropped. The rest of the prompt is not kept, nor a text that is
//! there already. It is plain data, not encrypted, readable by its user alone. Two warnings. A run that is to be
//! measured should have none, for it would be given its own earlier answers. And guesses out of a history depend on
//! the chance by which its texts were drawn: sampled text keeps the target's law for a seed that none of them was
//! drawn with. So where no seed is set, each run has a new one; and a seed does not repeat a run whose history has grown.
//!
//! # Settings
//!
//! | key | what | default |
//! |---|---|---|
//! | `min_match` | shortest match to guess from, in tokens | 1 |
//! | `max_match` | how far back matches are followed | 32 |
//! | `min_belief` | least belief of a guess | 0.2 |
//! | `table` | a table, or a list of up to 8; paths are relative to the configuration | none |
//! | `history` | `true`: in the user's data folder (`$XDG_DATA_HOME/foretoken`, or `~/.local/share/foretoken`), a file for each tokenizer; or a path | `false` |
//! | `history_limit` | tokens of history to keep; past it the older half is forgotten | 1,000,000 |
//!
//! Tables and histories hold token ids, so each belongs to a tokenizer; one of another is refused. In a table a match
//! is at most 16 tokens long, so `min_match` beyond that silences tables.
//!
//! # What it costs in time and memory
//!
//! * The context: at most 64 bytes per token, and about 0.3 µs to add one.
//! * The history: as much again for each of its tokens, for it is indexed in memory when the drafter is built.
//! * A table: 9 bytes per token on disk, 4 per token of the vocabulary, and in memory what the system keeps of it.
//!   Opening reads 64 bytes of it where the host maps files.
//!
//! # Map
//!
//! * `settings`: the keys of its table. `place`: where the history is.
//! * `drafter`: the texts, and how the tree grows.
//! * `predict`: from occurrences to beliefs.
//! * [`suffixes`]: the index of repetitions, with its caps and its cost.
//! * [`table`]: texts prepared ahead; [`table::build`] writes them, [`table::text`] reads what goes in.
//! * `history`: texts written before.
//! * `archive`: what tables and history have in common.
//!
//! After SuffixDecoding (Oliaro et al., arXiv 2411.04975: counts, best first by the product of
//! probabilities, whose sum is the expected number of accepted tokens; past outputs beside the context) and
//! SAM-Decoding (Hu et al., arXiv 2411.10666: longest suffix, online).

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
pub use history::History;
pub use settings::{Keep, Settings};
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
        let unread =
            |error| DraftError::settings(format!("table {error}; check the path, or make it: foretoken prepare ngram"));
        drafter = drafter.with_table(Table::open(host.map(path).map_err(unread)?, tokenizer).map_err(blame)?);
    }
    Ok(Box::new(drafter))
}
