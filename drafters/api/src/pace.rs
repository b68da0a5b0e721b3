//! What the engine knows that decides how far a tree is worth growing: its word on how likely guesses are and what
//! another pass or node costs. Drafters never call it; the tree asks it for them.

use crate::{NodeId, TokenTree};

/// A guess about to enter a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// The drafter's own estimate that the target agrees, given that the parent was reached.
    pub belief: f32,
    /// Distance from the root, in tokens.
    pub depth: usize,
    /// Whether it was drawn from a law or is a fixed choice.
    pub drawn: bool,
    /// Which part of a combinator guesses: how often [`TokenTree::next_part`] was called before.
    pub part: usize,
}

/// How far a tree should grow. Without one, its [`Shape`](crate::Shape) alone decides.
///
/// Every question is asked before a token is drawn; none is about taking a node out.
pub trait Pace: Send + Sync {
    /// The probability that the target agrees, given that the parent was reached: the drafter's belief, calibrated
    /// against what was accepted before.
    fn acceptance(&self, guess: Guess) -> f32;

    /// Whether a fixed choice that is reached with probability `survival` can be worth its share of a scoring pass.
    fn is_worth_adding(&self, survival: f32) -> bool;

    /// Whether one more draft pass pays, which would give children to `best`: the node at which the walk is likeliest to
    /// end as the tree stands.
    fn another_pass(&self, tree: &TokenTree, best: NodeId) -> bool;

    /// Whether it pays to evaluate something that guesses up to `depth` tokens at once below the root, as heads do.
    fn an_evaluation(&self, _tree: &TokenTree, _depth: usize) -> bool {
        true
    }

    /// Whether one more drawn node that is reached with probability `survival` pays. It costs no pass.
    fn another_draw(&self, tree: &TokenTree, survival: f32) -> bool;
}
