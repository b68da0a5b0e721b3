//! What may be lost against plain decoding: a bet needs cover, winnings give it.

/// What may be lost against plain decoding, in plain steps.
#[derive(Debug)]
pub struct Account {
    balance: f64,
    /// All that was won in this text, less all that was lost.
    won: f64,
    has_won: bool,
}

impl Default for Account {
    fn default() -> Account {
        Account { balance: ENDOWMENT, won: 0.0, has_won: false }
    }
}

impl Account {
    /// Another text begins, which has won nothing yet: what others won is not lost in it, and what they lost does not
    /// keep it from trying.
    pub fn start(&mut self) {
        *self = Account { balance: self.balance.clamp(REFILL, ENDOWMENT), ..Account::default() };
    }

    /// What may be lost now.
    pub fn balance(&self) -> f64 {
        self.balance
    }

    /// Whether at some time more was won in this text than lost.
    pub fn has_won(&self) -> bool {
        self.has_won
    }

    /// A round gave so many tokens and cost so many plain steps.
    pub fn book(&mut self, tokens: f64, cost: f64) {
        self.won += tokens - cost;
        self.has_won |= tokens > 1.0 && self.won > 0.0;
        let most = MOST_AT_STAKE + self.won.max(0.0) * WINNINGS;
        self.balance = (self.balance + ALLOWANCE * cost + tokens - cost).clamp(-ENDOWMENT, most);
    }
}

/// What may be lost to begin with, and at least in a further text, the share of the time that may be lost for good, and
/// the most that may be lost in a row, in plain steps. In a text of 256 tokens the first and the third make 1.5 %, the
/// second and the third 1.1 %, and what a drafter that paid before may overdraw another 1 %. With less to begin with,
/// good drafters are given up after an unlucky start: 2.3 would save 0.2 % where all guesses of a draft model are wrong,
/// and of 480 simulated ones that are right four times in five 43 would never be found out, 12 with 3.
const ENDOWMENT: f64 = 3.0;
const REFILL: f64 = 2.0;
const ALLOWANCE: f64 = 0.003;
const MOST_AT_STAKE: f64 = 8.0;

/// The share of all winnings that may be lost again.
const WINNINGS: f64 = 0.1;
