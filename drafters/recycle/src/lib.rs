//! Drafter `recycle`: it keeps what the target said would follow each token, and says it again (Token Recycling, Luo
//! et al., arXiv 2408.08696).
//!
//! ```toml
//! [drafter]
//! kind = "recycle"
//! successors = 8
//! ```
//!
//! Every node that the target scores, also one whose guess was rejected, brings its likeliest next tokens for nothing.
//! A table keeps them by the node's own token; the next tree is grown from it, best first under the budget, where the
//! paper has a fixed template of 80 nodes. How likely a successor is to be right is counted as the text goes on.
//!
//! It asks no model, trains nothing, and learns in every round, plain ones too; what it learnt is kept from one text to
//! the next. It sees one token back, so a branch of it is rarely long: it helps where scoring several nodes costs little,
//! or as a part of `merge`, where it grows from the guesses of the parts before it too. It hurts where every node costs,
//! and does nothing for the first words after a start.
//!
//! Memory: `8 * successors` bytes for each different token that was scored, plus 4 for each of the vocabulary: at most
//! 9.9 MiB for 8 successors in a vocabulary of 152 064 tokens, allocated as it is needed.
//!
//! * `table`: what follows what, in bounded memory.
//! * `belief`: how likely a successor is to be right.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use foretoken_drafter::{
    Commit, DraftError, DraftRequest, Drafter, Frontier, Host, Needs, NodeId, Outcome, SeqId, Token, TokenTree,
};
use serde::Deserialize;

mod belief;
mod table;

use belief::Beliefs;
use table::Table;

/// The `[drafter]` table of `kind = "recycle"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// How many successors of a token are kept.
    #[serde(default = "eight")]
    successors: usize,
}

fn eight() -> usize {
    8
}

/// Build the drafter from the text of its table.
///
/// # Errors
/// A key is unknown, or its value is out of range.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let Settings { successors } = toml::from_str(settings).map_err(DraftError::settings)?;
    if !(1..=MOST_SUCCESSORS).contains(&successors) {
        return Err(DraftError::settings(format!(
            "successors = {successors} is out of range; it goes from 1 to {MOST_SUCCESSORS}"
        )));
    }
    Ok(Box::new(Recycle::new(host.target().n_vocab, successors)))
}

const MOST_SUCCESSORS: usize = 64;

/// Guesses that a token is followed by what the target thought would follow it the last time.
pub struct Recycle {
    table: Table,
    beliefs: Beliefs,
}

impl Recycle {
    /// Keep `successors` of each of `n_vocab` tokens.
    pub fn new(n_vocab: usize, successors: usize) -> Recycle {
        Recycle { table: Table::new(n_vocab, successors), beliefs: Beliefs::default() }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.table.heap_bytes()
    }

    /// Count which successors of each accepted token would have been right. Every final token is known to be right or
    /// wrong whatever was drafted, so this needs no guesses and is not biased by which of them were made.
    fn learn_beliefs(&mut self, commit: &Commit<'_>) {
        let first_new = commit.context.len().saturating_sub(commit.n_new);
        for pair in commit.context[first_new.saturating_sub(1)..].windows(2) {
            for (rank, &(token, probability)) in self.table.after(pair[0]).iter().enumerate() {
                self.beliefs.record(rank, probability, token == pair[1]);
            }
        }
    }

    /// Keep the target's likeliest tokens after every node; of two nodes of one token, those after the accepted one.
    fn learn_successors(&mut self, round: &Outcome<'_>) {
        let accepted = [NodeId::ROOT].into_iter().chain(round.accepted.iter().copied());
        for node in round.tree.ids().chain(accepted) {
            self.table.keep(round.tree.token(node), round.top_after(node));
        }
    }
}

impl Drafter for Recycle {
    fn draft(&mut self, _: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        let mut growth = Growth { table: &self.table, beliefs: &self.beliefs, frontier: Frontier::default() };
        for node in tree.ids() {
            growth.expand(tree, node);
        }
        while let Some((_, branch)) = growth.frontier.pop().filter(|_| tree.room() > 0) {
            let before = tree.len();
            match tree.add(branch.parent, branch.token, branch.belief) {
                Some(node) if tree.len() > before => growth.expand(tree, node),
                _ => {} // refused, or there already and expanded already
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        if let Some(round) = &commit.round {
            self.learn_beliefs(commit);
            self.learn_successors(round);
        }
        Ok(())
    }

    // What a text taught stays for the next one at its end.
    fn forget(&mut self, _: SeqId) {
        self.table.clear();
        self.beliefs = Beliefs::default();
    }

    fn needs(&self) -> Needs {
        Needs { top: self.table.successors(), ..Needs::default() }
    }
}

/// One draft: the likeliest branch grows, again and again.
struct Growth<'a> {
    table: &'a Table,
    beliefs: &'a Beliefs,
    frontier: Frontier<Branch>,
}

impl Growth<'_> {
    /// Put the best children of `node` on the frontier, at most as many as the tree is wide.
    fn expand(&mut self, tree: &TokenTree, node: NodeId) {
        if tree.depth(node) >= tree.shape().depth {
            return;
        }
        for (rank, &(token, probability)) in self.table.after(tree.token(node)).iter().enumerate().take(tree.width()) {
            let belief = self.beliefs.of(rank, probability);
            self.frontier.push(tree.survival(node) * belief, Branch { parent: node, token, belief });
        }
    }
}

/// A child that may be added.
#[derive(Clone, Copy, Debug)]
struct Branch {
    parent: NodeId,
    token: Token,
    belief: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretoken_drafter::{Dice, Dist, Law, Shape};

    struct Nothing;

    impl Dice for Nothing {
        fn pick(&mut self, _: &[f64]) -> usize {
            0
        }
    }

    impl Law for Nothing {
        fn is_greedy(&self) -> bool {
            true
        }
        fn dist(&self, _: &[f32], _: &[Token], _: &[Token]) -> Dist {
            Dist::point(0)
        }
        fn top(&self, _: &[f32], _: &[Token], _: &[Token], _: usize) -> Vec<(Token, f32)> {
            Vec::new()
        }
    }

    const SEQ: SeqId = SeqId(0);

    fn tree(root: Token, shape: Shape) -> TokenTree {
        let mut tree = TokenTree::new(20, Box::new(Nothing));
        tree.begin(root, shape);
        tree
    }

    fn paths(drafter: &mut Recycle, mut tree: TokenTree) -> Vec<Vec<Token>> {
        let context = [tree.token(NodeId::ROOT)];
        drafter.draft(&DraftRequest { seq: SEQ, context: &context, law: &Nothing }, &mut tree).unwrap();
        tree.ids().skip(1).map(|node| tree.path(node)).collect()
    }

    /// A drafter after one round at token 1: it guessed 5 and below it 6, both were rejected, and 2 came instead.
    fn taught() -> Recycle {
        let mut drafter = Recycle::new(20, 2);
        let shape = Shape { max_nodes: 2, depth: 2, width: 1 };
        let mut tree = tree(1, shape);
        let rejected = tree.add(NodeId::ROOT, 5, 0.5).unwrap();
        tree.add(rejected, 6, 0.5).unwrap();
        let top = [vec![(2, 0.75), (5, 0.25)], vec![(7, 0.75), (1, 0.25)], vec![(8, 0.5), (9, 0.5)]];
        let round = Some(Outcome { tree: &tree, accepted: &[], top: &top });
        drafter.commit(&Commit { seq: SEQ, context: &[1, 2], n_new: 1, round, defer: false, hidden: None }).unwrap();
        drafter
    }

    #[test]
    fn rejected_nodes_teach_it_too() {
        let shape = Shape { max_nodes: 9, depth: 3, width: 1 };
        assert_eq!(paths(&mut taught(), tree(5, shape)), [vec![7]]);
        assert_eq!(paths(&mut taught(), tree(6, shape)), [vec![8]]);
        assert!(paths(&mut taught(), tree(2, shape)).is_empty(), "not scored yet");
        let mut kept = taught();
        kept.end(SEQ);
        assert_eq!(paths(&mut kept, tree(5, shape)), [vec![7]], "kept for the next text");
    }

    #[test]
    fn the_likeliest_branches_first_within_the_budget() {
        let shape = Shape { max_nodes: 4, depth: 3, width: 2 };
        let grown = paths(&mut taught(), tree(1, shape));
        assert_eq!(grown, [vec![2], vec![5], vec![5, 7], vec![5, 1]]);
    }

    #[test]
    fn it_grows_from_the_guesses_of_others_and_repeats_none() {
        let mut begun = tree(3, Shape { max_nodes: 9, depth: 2, width: 2 });
        let other = begun.add(NodeId::ROOT, 1, 0.5).unwrap();
        begun.add(other, 5, 0.5).unwrap();
        assert_eq!(paths(&mut taught(), begun), [vec![1], vec![1, 5], vec![1, 2]]);
    }
}
