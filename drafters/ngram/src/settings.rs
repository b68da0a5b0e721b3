//! The keys of this drafter's table: read once, when the drafter is built, and checked here and
//! nowhere else.

use foretoken_drafter::DraftError;
use serde::Deserialize;

/// The settings of an n-gram drafter. A missing key has its default.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
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
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { min_match: 1, max_match: 32, min_belief: 0.2 }
    }
}

impl Settings {
    /// Reads the text of a TOML table.
    ///
    /// # Errors
    /// An unknown key, with the nearest known one; a value of the wrong type or out of its range.
    pub fn parse(text: &str) -> Result<Settings, DraftError> {
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| wrong(format_args!("{}", one_line(e.message()))))?;
        for (key, value) in &table {
            if !KEYS.iter().any(|&(known, _)| known == key) {
                return Err(wrong(format_args!("unknown key `{key}`; did you mean `{}`?", nearest(key))));
            }
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            alone.try_into::<Settings>().map_err(|_| out_of_range(key, value))?;
        }
        let settings: Settings = table.try_into().map_err(|e| wrong(one_line(e.message())))?;
        settings.checked()
    }

    /// These settings, if each is in its range.
    ///
    /// # Errors
    /// One is not.
    pub fn checked(self) -> Result<Settings, DraftError> {
        if !(1..=MAX_MATCH).contains(&self.max_match) {
            return Err(out_of_range("max_match", self.max_match));
        }
        if !(1..=self.max_match).contains(&self.min_match) {
            let (min, max) = (self.min_match, self.max_match);
            return Err(wrong(format_args!(
                "`min_match` is {min}; it must be a whole number from 1 to max_match, {max}"
            )));
        }
        if !(0.0..=1.0).contains(&self.min_belief) {
            return Err(out_of_range("min_belief", self.min_belief));
        }
        Ok(self)
    }
}

const MAX_MATCH: usize = 256;

/// Each key with what it takes.
const KEYS: [(&str, &str); 3] = [
    ("min_match", "a whole number from 1 to max_match"),
    ("max_match", "a whole number from 1 to 256"),
    ("min_belief", "a number from 0 to 1"),
];

fn out_of_range(key: &str, value: impl std::fmt::Display) -> DraftError {
    let allowed = KEYS.iter().find(|&&(known, _)| known == key).map_or("left out", |&(_, allowed)| allowed);
    wrong(format_args!("`{key}` is {}; it must be {allowed}", one_line(&value.to_string())))
}

fn wrong(what: impl std::fmt::Display) -> DraftError {
    DraftError::settings(format_args!("drafter `ngram`: {what}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn nearest(key: &str) -> &'static str {
    let distance = |known: &str| edit_distance(key.as_bytes(), known.as_bytes());
    KEYS.iter().map(|&(known, _)| known).min_by_key(|known| distance(known)).unwrap_or("min_match")
}

/// Levenshtein's distance, in bytes.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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
        assert_eq!(read, Settings { min_match: 3, max_match: 16, min_belief: 0.0 });
    }

    #[test]
    fn complaints_name_the_key_the_value_and_the_range() {
        assert_eq!(
            complaint("min_match = 0"),
            "drafter `ngram`: `min_match` is 0; it must be a whole number from 1 to max_match, 32"
        );
        assert_eq!(
            complaint("min_match = -1"),
            "drafter `ngram`: `min_match` is -1; it must be a whole number from 1 to max_match"
        );
        assert_eq!(
            complaint("max_match = 2000"),
            "drafter `ngram`: `max_match` is 2000; it must be a whole number from 1 to 256"
        );
        assert_eq!(
            complaint("min_belief = 1.5"),
            "drafter `ngram`: `min_belief` is 1.5; it must be a number from 0 to 1"
        );
        assert_eq!(
            complaint("min_belief = nan"),
            "drafter `ngram`: `min_belief` is NaN; it must be a number from 0 to 1"
        );
        assert_eq!(
            complaint("min_belief = \"a\""),
            "drafter `ngram`: `min_belief` is \"a\"; it must be a number from 0 to 1"
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        assert_eq!(complaint("min_mach = 2"), "drafter `ngram`: unknown key `min_mach`; did you mean `min_match`?");
        assert_eq!(complaint("belief = 2"), "drafter `ngram`: unknown key `belief`; did you mean `min_belief`?");
    }

    #[test]
    fn any_complaint_is_one_line() {
        for text in ["min_match", "min_match = [\n1,\n2]", "= 3", "min_match = 1\nmin_match = 2"] {
            assert!(!complaint(text).contains('\n'), "{text}");
        }
    }
}
