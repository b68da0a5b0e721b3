//! What would an evaluation of heads add to a tree? Asked before it is paid for.
//!
//! Heads guess several tokens at once below the root, whatever grew there before: where they agree with a guess that is
//! there they add nothing, where they differ they catch what it misses. So the estimate goes by depth, and by how likely
//! the walk is to end there without them: the *share* of it that their likeliest guess at each depth claimed, by the
//! calibrated beliefs ([`crate::survival`]) of the rounds in which they were evaluated, with forgetting. It is a chain's
//! worth: wide trees of heads bring a little more than is promised here.
//!
//! Where the promise does not pay, nothing is learned, so they are evaluated for their own sake now and then, at
//! intervals that double for as long as it goes on not paying.

use foretoken_drafter::{NodeId, TokenTree};
use serde::{Deserialize, Serialize};

/// What heads of a drafter bring.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Promise {
    shares: [Share; DEPTHS],
    /// Rounds since the last evaluation, and how many more than [`PATIENCE`] to let pass before the next for its own sake.
    #[serde(skip)]
    since: u32,
    #[serde(skip)]
    wait: u32,
}

/// Decayed sums: how much ended at a depth, and what of it was claimed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Share {
    ended: f64,
    claimed: f64,
}

impl Promise {
    /// The survivals of the guesses that an evaluation would add to `tree`, by depth, up to `depth`.
    pub fn of(&self, tree: &TokenTree, depth: usize) -> Vec<f64> {
        let mut reached = 0.0;
        let ended = ends(tree, usize::MAX, depth);
        let guess = |(share, ended): (f64, f64)| {
            reached = share * (ended + reached);
            reached
        };
        self.shares.iter().map(Share::claims).zip(ended).map(guess).collect()
    }

    /// Whether they are to be evaluated for their own sake.
    pub fn is_due(&self) -> bool {
        self.since >= PATIENCE + self.wait
    }

    /// A drafted tree, before anything of it is cut.
    pub fn learn(&mut self, tree: &TokenTree) {
        let was_due = self.is_due();
        self.since = self.since.saturating_add(1);
        for evaluation in tree.evaluations() {
            self.since = 0;
            self.wait = if was_due { (2 * self.wait + PATIENCE).min(WAIT_AT_MOST) } else { 0 };
            let mut reached = 0.0;
            for (depth, (share, ended)) in
                self.shares.iter_mut().zip(ends(tree, evaluation.part, evaluation.depth)).enumerate()
            {
                let own = tree.ids().filter(|&n| tree.part(n) == evaluation.part && tree.depth(n) == depth + 1);
                let claimed = own.map(|node| f64::from(tree.survival(node))).fold(0.0, f64::max);
                share.learn(ended + reached, claimed);
                reached = claimed;
            }
        }
    }

    /// Another text begins.
    pub fn start(&mut self) {
        (self.since, self.wait) = (0, 0);
    }
}

/// How likely the walk is to end at depths 0 to `depth` - 1, of what parts before `part` grew.
fn ends(tree: &TokenTree, part: usize, depth: usize) -> Vec<f64> {
    let mut ends = vec![0.0; depth.min(DEPTHS)];
    for node in tree.ids().filter(|&node| node == NodeId::ROOT || tree.part(node) < part) {
        let survival = f64::from(tree.survival(node));
        if let Some(here) = ends.get_mut(tree.depth(node)) {
            *here += survival;
        }
        if let Some(above) = tree.depth(node).checked_sub(1).and_then(|depth| ends.get_mut(depth)) {
            *above -= survival;
        }
    }
    ends.iter().map(|end| end.max(0.0)).collect()
}

impl Share {
    fn learn(&mut self, ended: f64, claimed: f64) {
        // What hardly ever ends here says little: it counts by its likelihood, and forgets by it.
        let keep = MEMORY.powf(ended.min(1.0));
        (self.ended, self.claimed) = (self.ended * keep + ended, self.claimed * keep + claimed);
    }

    fn claims(&self) -> f64 {
        ((self.claimed + PRIOR * PRIOR_TRIALS) / (self.ended + PRIOR_TRIALS)).min(1.0)
    }
}

/// Depths told apart; heads that reach deeper are counted up to here.
const DEPTHS: usize = 8;

/// The share that is taken for granted before anything was seen, worth so many trials, and a half-life of 48 of them.
const PRIOR: f64 = 0.5;
const PRIOR_TRIALS: f64 = 2.0;
const MEMORY: f64 = 0.985_7;

/// Rounds without an evaluation before one for its own sake, and the most that is added to them.
const PATIENCE: u32 = 8;
const WAIT_AT_MOST: u32 = 56;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{SeededDice, Stream};
    use foretoken_drafter::Shape;
    use std::time::Duration;

    /// A tree in which a look-up believes `looked_up` of its guess, and heads, if evaluated, `heads` of theirs.
    fn tree(looked_up: Option<f32>, heads: Option<[f32; 2]>) -> TokenTree {
        let mut tree = TokenTree::new(100, Box::new(SeededDice::new(0, Stream::Draft)));
        tree.begin(0, Shape { max_nodes: 8, depth: 4, width: 2 });
        looked_up.map(|belief| tree.add(NodeId::ROOT, 1, belief));
        tree.next_part();
        if let Some([first, second]) = heads {
            tree.evaluated(2, Duration::from_millis(1));
            let below = tree.add(NodeId::ROOT, 2, first).unwrap();
            tree.add(below, 3, second);
        }
        tree
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.03
    }

    #[test]
    fn what_was_claimed_is_promised_of_what_is_open() {
        let mut promise = Promise::default();
        (0..300).for_each(|_| promise.learn(&tree(None, Some([0.8, 0.5]))));
        let promised = promise.of(&tree(None, None), 2);
        assert!(near(promised[0], 0.8) && near(promised[1], 0.4), "{promised:?}");
        let promised = promise.of(&tree(Some(0.75), None), 2);
        assert!(near(promised[0], 0.2), "{promised:?}");
        assert!(promised[1] > 0.3, "they may agree with the first and know what follows it: {promised:?}");
        assert!(promise.of(&tree(None, None), 0).is_empty());
        assert_eq!(promise.of(&tree(None, None), 99).len(), DEPTHS);
    }

    #[test]
    fn what_others_guessed_before_is_not_theirs() {
        let mut promise = Promise::default();
        (0..300).for_each(|_| promise.learn(&tree(Some(0.8), Some([0.1, 0.5]))));
        let promised = promise.of(&tree(Some(0.8), None), 2);
        assert!(near(promised[0], 0.1), "{promised:?}");
    }

    #[test]
    fn they_are_due_ever_more_rarely_while_nobody_wants_them() {
        let mut promise = Promise::default();
        let mut due = Vec::new();
        for round in 0..300 {
            due.extend(promise.is_due().then_some(round));
            promise.learn(&tree(None, promise.is_due().then_some([0.1, 0.1])));
        }
        assert_eq!(due, [8, 25, 58, 123, 188, 253]);
        promise.learn(&tree(None, Some([0.9, 0.9])));
        (0..PATIENCE).for_each(|_| promise.learn(&tree(None, None)));
        assert!(promise.is_due(), "they were wanted");
        promise.start();
        assert!(!promise.is_due());
    }
}
