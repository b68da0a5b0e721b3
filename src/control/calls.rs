//! Whether a drafter whose calls cost time is called: by what they were worth lately.

/// A drafter's calls, and what came of them.
#[derive(Debug)]
pub struct Calls {
    mode: Mode,
    /// How long the drafter stays off the next time.
    rest: u32,
    /// Calls in a row with passes of a draft model that led to no guess worth scoring.
    wasted: u32,
}

/// What to do in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Call it.
    On,
    /// Call it to see what that is worth.
    Trial,
    /// Let it rest; parts of it that guess without passes of a model may be asked.
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// In every round. What its calls were worth lately, in plain steps: a decayed sum and its weight.
    On { worth: f64, weight: f64 },
    /// Not for so many more rounds.
    Off { wait: u32 },
    /// For so many more calls, to see what they are worth.
    Trial { left: u32, worth: f64 },
}

const UNTRIED: Mode = Mode::On { worth: 0.0, weight: 0.0 };

impl Default for Calls {
    fn default() -> Calls {
        Calls { mode: UNTRIED, rest: REST, wasted: 0 }
    }
}

impl Calls {
    /// Another text begins.
    pub fn start(&mut self) {
        self.rest = REST;
        match &mut self.mode {
            Mode::Off { wait } => *wait = REST,
            // It goes on, but what it was worth elsewhere gives it no credit.
            on @ Mode::On { .. } => *on = UNTRIED,
            Mode::Trial { .. } => {}
        }
    }

    /// What to do in this round.
    pub fn next(&mut self) -> Call {
        match &mut self.mode {
            Mode::On { .. } => Call::On,
            Mode::Trial { .. } => Call::Trial,
            Mode::Off { wait: 0 } => {
                self.mode = Mode::Trial { left: TRIAL, worth: 0.0 };
                Call::Trial
            }
            Mode::Off { wait } => {
                *wait -= 1;
                Call::Off
            }
        }
    }

    /// A call was worth so many plain steps, by its estimates: less noise than the tokens themselves. No call counts for
    /// more than one plain step: past winnings are no reason to go on.
    pub fn judge(&mut self, worth_now: f64) {
        let worth_now = worth_now.clamp(-1.0, 1.0);
        self.mode = match self.mode {
            Mode::On { worth, weight } => {
                let (worth, weight) = (worth * FADE + worth_now, weight * FADE + 1.0);
                match weight >= AT_LEAST && worth < 0.0 {
                    true => Mode::Off { wait: self.rest },
                    false => Mode::On { worth, weight },
                }
            }
            Mode::Trial { left, worth } if left > 1 => Mode::Trial { left: left - 1, worth: worth + worth_now },
            Mode::Trial { worth, .. } => match (worth + worth_now) / f64::from(TRIAL) > HYSTERESIS {
                true => {
                    self.rest = REST;
                    Mode::On { worth: worth + worth_now, weight: f64::from(TRIAL) }
                }
                false => {
                    self.rest = (self.rest * 2).min(REST_AT_MOST);
                    Mode::Off { wait: self.rest }
                }
            },
            off @ Mode::Off { .. } => off,
        };
    }

    /// Whether passes were taken in that call and nothing was scored.
    pub fn note_waste(&mut self, was_wasted: bool) {
        self.wasted = if was_wasted { self.wasted + 1 } else { 0 };
        if self.wasted >= WASTED && matches!(self.mode, Mode::On { .. }) {
            (self.wasted, self.mode) = (0, Mode::Off { wait: self.rest });
        }
    }

    /// What may be lost beyond what there is, in plain steps: a drafter whose calls were worth their cost lately may have
    /// been unlucky.
    pub fn overdraft(&self) -> f64 {
        match self.mode {
            Mode::On { worth, weight } if weight >= OVERDRAFT_CALLS && worth > HYSTERESIS * weight => OVERDRAFT,
            _ => 0.0,
        }
    }
}

/// Rounds that a drafter is off, at first and at most.
const REST: u32 = 8;
const REST_AT_MOST: u32 = 32;

/// Calls by which a drafter that was off is judged, what they must be worth on average, in plain steps, and a half-life
/// of 8 calls while it is on.
const TRIAL: u32 = 4;
const HYSTERESIS: f64 = 0.03;
const FADE: f64 = 0.917;
const AT_LEAST: f64 = 7.0;

/// Calls in a row that led to no guess worth scoring, after which a drafter is off.
const WASTED: u32 = 2;

/// What a drafter that pays may lose beyond the account, and the calls that show it.
const OVERDRAFT: f64 = 2.5;
const OVERDRAFT_CALLS: f64 = 3.0;
