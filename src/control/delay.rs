//! How much longer do rounds take than their passes?

/// How much longer rounds take than is usual for their size. The curve's times leave outages out, since choices should not
/// depend on them; what a round will take does. Decayed sums of seconds.
#[derive(Debug, Default)]
pub struct Delay {
    usual: f64,
    took: f64,
}

impl Delay {
    /// A round took so long instead of what is usual, if that was known.
    pub fn learn(&mut self, usual: f64, took: f64) {
        if usual > 0.0 {
            self.usual = self.usual * DELAYS_FADE + usual;
            self.took = self.took * DELAYS_FADE + took.min(usual * LONGEST_DELAY);
        }
    }

    /// What a round should take that usually takes `usual` seconds.
    pub fn of(&self, usual: f64) -> f64 {
        let prior = NO_DELAY * usual;
        usual * (self.took + prior) / (self.usual + prior)
    }
}

/// A half-life of 32 rounds, the rounds' worth of a prior that there is no delay, and the most that one round counts.
const DELAYS_FADE: f64 = 0.978;
const NO_DELAY: f64 = 4.0;
const LONGEST_DELAY: f64 = 3.0;
