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
        let Settings { min_match, max_match, min_belief } = self;
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
        Ok(self)
    }
}

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
        assert_eq!(read, Settings { min_match: 3, max_match: 16, min_belief: 0.0 });
    }

    #[test]
    fn complaints_name_the_key_the_value_and_the_range() {
        for (text, expected) in [
            ("min_match = 0", "min_match = 0 is out of range; it goes from 1 to max_match, 32"),
            ("min_match = 40", "min_match = 40 is out of range; it goes from 1 to max_match, 32"),
            ("max_match = 2000", "max_match = 2000 is out of range; it goes from 1 to 256"),
            ("min_belief = 1.5", "min_belief = 1.5 is out of range; it goes from 0 to 1"),
            ("min_belief = nan", "min_belief = NaN is out of range; it goes from 0 to 1"),
            ("min_match = -1", "invalid value: integer `-1`"),
            ("min_mach = 2", "unknown field `min_mach`, expected one of `min_match`"),
        ] {
            let complaint = complaint(text);
            assert!(complaint.contains(expected), "{text}: {complaint}");
        }
    }
}
