//! The run's randomness: one seed, one independent stream for each use.
//!
//! Drafting, accepting and drawing from the residual must never share random numbers: a residual
//! drawn with the numbers that picked the draft is biased (seen in other engines).

use foretoken_drafter::Dice;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a stream is for.
#[derive(Clone, Copy)]
pub enum Stream {
    /// Tokens that the tree draws for drafters.
    Draft = 1,
    /// The verifier's verdicts.
    Accept = 2,
    /// Tokens that the verifier emits.
    Emit = 3,
}

/// Dice from a seed. The same seed gives the same choices with the same build of foretoken.
pub struct SeededDice(StdRng);

impl SeededDice {
    /// The dice of one stream of a run.
    pub fn new(seed: u64, stream: Stream) -> SeededDice {
        // Seeds are hashed by `seed_from_u64`, so neighbouring ones are unrelated.
        SeededDice(StdRng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(stream as u64)))
    }
}

impl Dice for SeededDice {
    fn pick(&mut self, weights: &[f64]) -> usize {
        let total: f64 = weights.iter().sum();
        let mut left = self.0.random::<f64>() * total;
        let mut last = 0;
        for (i, &w) in weights.iter().enumerate() {
            if w > 0.0 {
                if left < w {
                    return i;
                }
                left -= w;
                last = i;
            }
        }
        last // rounding carried us past the end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_follow_the_weights_and_never_a_zero() {
        let mut dice = SeededDice::new(1, Stream::Draft);
        let mut counts = [0u32; 4];
        for _ in 0..40_000 {
            counts[dice.pick(&[1.0, 0.0, 3.0, 0.0])] += 1;
        }
        assert_eq!((counts[1], counts[3]), (0, 0));
        assert!((9_600..10_400).contains(&counts[0]), "{counts:?}"); // 4.6 standard deviations
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let weights = [1.0; 1000];
        let draw = |stream| SeededDice::new(7, stream).pick(&weights);
        let (draft, accept, emit) = (draw(Stream::Draft), draw(Stream::Accept), draw(Stream::Emit));
        assert!(draft != accept && accept != emit && emit != draft, "{draft} {accept} {emit}");
    }
}
