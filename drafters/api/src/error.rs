//! Why a drafter cannot go on, told to whoever can mend it.

use std::fmt;

/// A reason why drafting cannot go on.
///
/// "No guess" is not an error: leave the tree untouched instead. The message names the culprit and
/// the way out, in lower case and without a full stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum DraftError {
    /// The settings, or a file they name, are wrong: the user can mend it.
    Settings(String),
    /// Something failed while running.
    Failed(String),
}

impl DraftError {
    /// The settings, or a file they name, are wrong. An error of the `toml` crate may be passed as it is: of its several
    /// lines the user is shown the key and what is wrong with it.
    pub fn settings(message: impl fmt::Display) -> DraftError {
        DraftError::Settings(message.to_string())
    }

    /// Something failed while running.
    pub fn failed(message: impl fmt::Display) -> DraftError {
        DraftError::Failed(message.to_string())
    }
}

impl fmt::Display for DraftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DraftError::Settings(message) | DraftError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for DraftError {}
