//! When to make a round plain only to measure T(1), with which everything is compared: where every round drafts, nothing
//! else would.

/// Rounds since the last plain one, and how long until the next.
#[derive(Debug)]
pub struct PlainRounds {
    since: u32,
    after: u32,
    /// Rounds in a row that took another time than expected.
    surprises: u32,
}

impl Default for PlainRounds {
    fn default() -> PlainRounds {
        PlainRounds { since: 0, after: AFTER, surprises: 0 }
    }
}

impl PlainRounds {
    /// Whether one is due.
    pub fn is_due(&self) -> bool {
        self.since >= self.after
    }

    /// A round over so many nodes, root included, took so many times what was expected.
    ///
    /// A plain round that took as long as thought need not be repeated soon. One that did not must be, and so must one
    /// after other rounds became faster or slower: whether plain ones did too, nobody knows.
    pub fn learn(&mut self, nodes: usize, factor: f64) {
        let is_surprise = !(1.0 - SURPRISE..=1.0 + SURPRISE).contains(&factor);
        if nodes > 1 {
            self.since += 1;
            self.surprises = if is_surprise { self.surprises + 1 } else { 0 };
            if self.surprises >= SURPRISES {
                (self.surprises, self.after) = (0, AFTER_A_SURPRISE);
            }
            return;
        }
        if self.is_due() {
            self.after = match is_surprise {
                true => AFTER_A_SURPRISE,
                false => (self.after * 2).min(AFTER_AT_MOST),
            };
        }
        self.since = 0;
    }
}

/// Rounds after which one is made plain: at first, at most, and after a surprise.
const AFTER: u32 = 48;
const AFTER_AT_MOST: u32 = 768;
const AFTER_A_SURPRISE: u32 = 3;

/// Another time than expected by this share is a surprise, and so many in a row are no outage.
const SURPRISE: f64 = 0.2;
const SURPRISES: u32 = 4;
