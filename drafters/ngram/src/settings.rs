//! The keys of this drafter's table: read once, when the drafter is built, and checked here and
//! nowhere else.

use std::path::PathBuf;

use foretoken_drafter::DraftError;
use serde::de::{Deserializer, Error};
use serde::Deserialize;

use crate::predict::MAX_SOURCES;

/// The settings of an n-gram drafter. A missing key has its default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Shortest match to guess from, in tokens: 1 to `max_match`, by default 1. `min_belief` is the
    /// better gate: on 13 texts split into words (code, dialogues, prose), in chains of 8, 1 and
    /// 0.2 had 12 % more tokens accepted than 2 and 0.05, from fewer drafted.
    pub min_match: usize,
    /// How far back matches are followed, in tokens: 1 to 256, by default 32. A longer match is
    /// taken for one of this length.
    pub max_match: usize,
    /// Least belief of a guess, a probability: 0 (all guesses) to 1, by default 0.2. The belief is
    /// the estimated probability that the target agrees where the guess's parent was right.
    pub min_belief: f32,
    /// Tables of texts prepared ahead, by `foretoken prepare ngram`: a path or a list of up to 8.
    #[serde(deserialize_with = "one_or_more")]
    pub table: Vec<PathBuf>,
    /// Whether to keep what is written and to guess from it later: `true`, a path, or `false`, the default.
    #[serde(deserialize_with = "yes_no_or_path")]
    pub history: Keep,
    /// How much history to keep, in tokens: 1,000 to 16,000,000, by default 1,000,000. Past it the older half is
    /// forgotten.
    pub history_limit: usize,
}

/// Whether texts are kept, and where.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Keep {
    /// No.
    #[default]
    No,
    /// In the user's data folder, a file for each tokenizer.
    Yes,
    /// In this file.
    In(PathBuf),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            min_match: 1,
            max_match: 32,
            min_belief: 0.2,
            table: Vec::new(),
            history: Keep::No,
            history_limit: 1_000_000,
        }
    }
}

impl Settings {
    /// Reads the text of a TOML table.
    ///
    /// # Errors
    /// An unknown key, or a value of the wrong type or out of its range.
    pub fn parse(text: &str) -> Result<Settings, DraftError> {
        let settings: Settings = toml::from_str(text).map_err(DraftError::settings)?;
        settings.checked()
    }

    /// These settings, if each is in its range.
    ///
    /// # Errors
    /// One is not.
    pub fn checked(self) -> Result<Settings, DraftError> {
        let Settings { min_match, max_match, min_belief, history_limit, .. } = self;
        if !(1..=MAX_MATCH).contains(&max_match) {
            return Err(wrong(format!("max_match = {max_match} is out of range; it goes from 1 to {MAX_MATCH}")));
        }
        if !(1..=max_match).contains(&min_match) {
            return Err(wrong(format!(
                "min_match = {min_match} is out of range; it goes from 1 to max_match, {max_match}"
            )));
        }
        if !(0.0..=1.0).contains(&min_belief) {
            return Err(wrong(format!("min_belief = {min_belief} is out of range; it goes from 0 to 1")));
        }
        if self.table.len() > MAX_TABLES {
            return Err(wrong(format!("table lists {} files; it takes {MAX_TABLES} at most", self.table.len())));
        }
        if !HISTORY.contains(&history_limit) {
            let (least, most) = HISTORY.into_inner();
            return Err(wrong(format!(
                "history_limit = {history_limit} is out of range; it goes from {least} to {most}"
            )));
        }
        Ok(self)
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<PathBuf>, D::Error> {
    let wrong = |value: toml::Value| D::Error::custom(format!("table = {value} is no path and no list of paths"));
    let path = |value: toml::Value| match value {
        toml::Value::String(path) => Ok(PathBuf::from(path)),
        other => Err(wrong(other)),
    };
    match toml::Value::deserialize(value)? {
        toml::Value::Array(paths) => paths.into_iter().map(path).collect(),
        one => Ok(vec![path(one)?]),
    }
}

fn yes_no_or_path<'de, D: Deserializer<'de>>(value: D) -> Result<Keep, D::Error> {
    match toml::Value::deserialize(value)? {
        toml::Value::Boolean(false) => Ok(Keep::No),
        toml::Value::Boolean(true) => Ok(Keep::Yes),
        toml::Value::String(path) => Ok(Keep::In(path.into())),
        other => Err(D::Error::custom(format!("history = {other} is neither true nor false nor a path"))),
    }
}

/// The context and the history are sources too.
const MAX_TABLES: usize = MAX_SOURCES - 2;
const HISTORY: std::ops::RangeInclusive<usize> = 1_000..=16_000_000;
const MAX_MATCH: usize = 256;

fn wrong(message: String) -> DraftError {
    DraftError::settings(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        Settings::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn keys_are_read_and_have_defaults() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        let read = Settings::parse("min_match = 3\nmax_match = 16\nmin_belief = 0").unwrap();
        assert_eq!(read, Settings { min_match: 3, max_match: 16, min_belief: 0.0, ..Settings::default() });
        let read = |text: &str| Settings::parse(text).unwrap();
        assert_eq!(read("table = 'a'").table, [PathBuf::from("a")]);
        assert_eq!(read("table = ['a', 'b']").table, ["a", "b"].map(PathBuf::from));
        assert_eq!(read("history = true").history, Keep::Yes);
        assert_eq!(read("history = false").history, Keep::No);
        assert_eq!(read("history = 'h'\nhistory_limit = 2000").history, Keep::In("h".into()));
    }

    #[test]
    fn complaints_name_the_key_the_value_and_the_range() {
        for (text, expected) in [
            ("min_match = 0", "min_match = 0 is out of range; it goes from 1 to max_match, 32"),
            ("min_match = 40", "min_match = 40 is out of range; it goes from 1 to max_match, 32"),
            ("max_match = 2000", "max_match = 2000 is out of range; it goes from 1 to 256"),
            ("min_belief = 1.5", "min_belief = 1.5 is out of range; it goes from 0 to 1"),
            ("min_belief = nan", "min_belief = NaN is out of range; it goes from 0 to 1"),
            ("table = 3", "table = 3 is no path and no list of paths"),
            ("table = ['a', 3]", "table = 3 is no path and no list of paths"),
            ("table = ['1', '2', '3', '4', '5', '6', '7', '8', '9']", "table lists 9 files; it takes 8 at most"),
            ("history = 1", "history = 1 is neither true nor false nor a path"),
            ("history_limit = 7", "history_limit = 7 is out of range; it goes from 1000 to 16000000"),
            ("min_match = -1", "invalid value: integer `-1`"),
            ("min_mach = 2", "unknown field `min_mach`, expected one of `min_match`"),
        ] {
            let complaint = complaint(text);
            assert!(complaint.contains(expected), "{text}: {complaint}");
        }
    }
}
