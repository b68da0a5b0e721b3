//! Chance as the tree and the verifier see it: one call, so that tests can visit every outcome.

/// A source of random choices.
///
/// The tree draws its children through it and the verifier its verdicts, each from a stream of its
/// own. One method is enough, and makes every outcome enumerable: a test that answers `pick` with
/// each index in turn visits the whole probability space of a round.
pub trait Dice: Send {
    /// An index into `weights`, drawn in proportion to them. They are non-negative, not all zero,
    /// and need not sum to one.
    fn pick(&mut self, weights: &[f64]) -> usize;
}
