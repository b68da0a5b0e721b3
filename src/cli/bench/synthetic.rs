//! Verdicts by dice: what `bench --synthetic RATE` puts in the verifier's place, to price the engine itself.
//!
//! Each guess is accepted with the same probability, whatever the target says of it. So a round yields a known number of
//! tokens, and what is left is its cost: drafting, the pass, the bookkeeping. The text is no model's, and nothing shows
//! it. Only the benchmark reaches this module; what generates text for anyone has [`crate::verify`].

use foretoken_drafter::{Dice, Dist, NodeId, TokenTree};

use crate::config::Setup;
use crate::engine::Verifier;
use crate::verify::{Ending, Verdict};

/// Accept each guess with probability `rate`, siblings in their order, downwards from the root. The target's law is
/// computed at every node of the walk, as the verifier of fixed guesses does, and gives the token at its end.
pub fn verifier(rate: f64) -> Verifier {
    Box::new(move |tree, p, accept, emit| walk(tree, rate, p, accept, emit))
}

/// A probability, from the command line.
pub fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or_else(|| "give a rate from 0 to 1".to_owned())
}

/// The line above a table.
pub fn about(rate: f64, exact: &str) -> String {
    format!("no model's output, accepted at rate {rate} by dice; {exact}")
}

/// Whether the drafter keeps texts for later runs: text that is no model's must not get there.
pub fn is_kept(setup: &Setup) -> bool {
    let is_on = |value: &toml::Value| value.as_bool() != Some(false);
    let mut tables: Vec<toml::Value> = setup.drafter.settings.parse().map(toml::Value::Table).into_iter().collect();
    while let Some(value) = tables.pop() {
        match value {
            toml::Value::Table(table) if table.get("history").is_some_and(is_on) => return true,
            toml::Value::Table(table) => tables.extend(table.into_iter().map(|(_, value)| value)),
            toml::Value::Array(values) => tables.extend(values),
            _ => {}
        }
    }
    false
}

fn walk(
    tree: &TokenTree,
    rate: f64,
    p: &mut dyn FnMut(NodeId) -> Dist,
    accept: &mut dyn Dice,
    emit: &mut dyn Dice,
) -> Verdict {
    let mut accepted = Vec::new();
    let mut node = NodeId::ROOT;
    loop {
        let law = p(node);
        match tree.children(node).find(|_| accept.pick(&[rate, 1.0 - rate]) == 0) {
            Some(child) => {
                accepted.push(child);
                node = child;
            }
            None => {
                let ending = if tree.children(node).next().is_some() { Ending::Recovered } else { Ending::Bonus };
                return Verdict { accepted, token: law.draw(emit), ending };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{SeededDice, Stream};
    use foretoken_drafter::Shape;

    /// A chain of four; or two children of the root.
    fn tree(is_chain: bool) -> TokenTree {
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        tree.begin(1, Shape { max_nodes: 8, depth: 4, width: 2 });
        let mut node = NodeId::ROOT;
        for token in 2..if is_chain { 6 } else { 4 } {
            let added = tree.add(node, token, 0.5).expect("there is room");
            node = if is_chain { added } else { node };
        }
        tree
    }

    fn mean_accepted(tree: &TokenTree, rate: f64) -> f64 {
        let (mut accept, mut emit) = (SeededDice::new(3, Stream::Accept), SeededDice::new(3, Stream::Emit));
        let mut p = |_| Dist::point(9);
        let mut round = || verifier(rate)(tree, &mut p, &mut accept, &mut emit).accepted.len();
        (0..ROUNDS).map(|_| round() as f64).sum::<f64>() / f64::from(ROUNDS)
    }

    const ROUNDS: u32 = 10_000;

    #[test]
    fn guesses_are_accepted_at_the_rate_whatever_they_are() {
        assert_eq!((mean_accepted(&tree(true), 0.0), mean_accepted(&tree(true), 1.0)), (0.0, 4.0));
        // 1/2 + 1/4 + 1/8 + 1/16; its standard deviation is 1.2, that of the mean 0.012.
        assert!((mean_accepted(&tree(true), 0.5) - 0.9375).abs() < 0.06);
        // The first, or else the second; the mean's standard deviation is 0.0044.
        assert!((mean_accepted(&tree(false), 0.5) - 0.75).abs() < 0.022);
    }

    #[test]
    fn the_end_of_a_branch_is_a_bonus() {
        let verdict = |rate| {
            let (mut accept, mut emit) = (SeededDice::new(3, Stream::Accept), SeededDice::new(3, Stream::Emit));
            verifier(rate)(&tree(true), &mut |_| Dist::point(9), &mut accept, &mut emit)
        };
        assert_eq!((verdict(1.0).ending, verdict(1.0).token), (Ending::Bonus, 9));
        assert_eq!((verdict(0.0).ending, verdict(0.0).token), (Ending::Recovered, 9));
    }
}
