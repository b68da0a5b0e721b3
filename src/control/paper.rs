//! Bets on paper: what guesses win, or would have won, had they been scored.
//!
//! An account that is empty can win nothing back, and a round of many nodes may be beyond what it ever held. Where nothing
//! was drawn, though, the text shows what would have come of a bet: so guesses that cost nothing to make are bet on here,
//! one after the other, in the numbers that would be best if losses were no matter. What that wins is credit.

use foretoken_drafter::{NodeId, Token, TokenTree};

/// What was won on paper in this text, in plain steps, and the bet that is open.
#[derive(Debug, Default)]
pub struct Paper {
    won: f64,
    bet: Option<Bet>,
}

/// The text has followed `tree` as far as `at`.
#[derive(Debug)]
struct Bet {
    tree: TokenTree,
    at: NodeId,
    tokens: f64,
    cost: f64,
}

impl Paper {
    /// Another text begins.
    pub fn start(&mut self) {
        *self = Paper::default();
    }

    /// Whether no bet is open.
    pub fn is_settled(&self) -> bool {
        self.bet.is_none()
    }

    /// The open bet is off.
    pub fn withdraw(&mut self) {
        self.bet = None;
    }

    /// Had these nodes been scored, the round would have cost so many plain steps.
    pub fn bet(&mut self, tree: TokenTree, cost: f64) {
        self.bet = Some(Bet { tree, at: NodeId::ROOT, tokens: 0.0, cost });
    }

    /// The text goes on like this. A round's tokens are the guesses it follows, and one more.
    pub fn follow(&mut self, text: &[Token]) {
        for &token in text {
            let Some(bet) = &mut self.bet else { return };
            bet.tokens += 1.0;
            match bet.tree.child(bet.at, token) {
                Some(child) => bet.at = child,
                None => {
                    let won = bet.tokens - bet.cost;
                    self.book(won);
                    self.bet = None;
                }
            }
        }
    }

    /// So much was won, or lost.
    pub fn book(&mut self, won: f64) {
        self.won = (self.won + won).clamp(-MOST_OWED, MOST_WON);
    }

    /// Whether more was won than lost.
    pub fn has_won(&self) -> bool {
        self.won > 0.0
    }

    /// What may be lost where `stake` was there before: what was won here is added to it, but no more than makes up a
    /// moderate stake.
    pub fn raise(&self, stake: f64) -> f64 {
        stake.max((stake + self.won).min(CREDIT))
    }
}

/// The stake that credit makes up at most, of which a round may lose two plain steps, and a try three and a half; what may have to be won back before
/// there is any; and the most that counts, which makes up for an account that is as far in debt as it may be.
const CREDIT: f64 = 5.0;
const MOST_OWED: f64 = 3.0;
const MOST_WON: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{SeededDice, Stream};
    use foretoken_drafter::Shape;

    /// A chain of these tokens.
    fn chain(tokens: &[Token]) -> TokenTree {
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        tree.begin(0, Shape { max_nodes: tokens.len(), depth: tokens.len(), width: 1 });
        let add = |at, &token: &Token| tree.add(at, token, 0.9).unwrap();
        tokens.iter().fold(NodeId::ROOT, add);
        tree
    }

    #[test]
    fn a_bet_is_settled_where_the_text_leaves_it_whatever_rounds_it_comes_in() {
        for (rounds, won) in [
            (&[&[1][..], &[2], &[3], &[4]][..], 4.0 - 2.5),
            (&[&[1, 2, 3], &[4, 5, 6]], 4.0 - 2.5),
            (&[&[1], &[9], &[3]], 2.0 - 2.5),
            (&[&[9, 1, 2]], 1.0 - 2.5),
        ] {
            let mut paper = Paper::default();
            paper.bet(chain(&[1, 2, 3]), 2.5);
            rounds.iter().for_each(|text| paper.follow(text));
            assert!(paper.is_settled() && (paper.won - won).abs() < 1e-9, "{rounds:?}: {}", paper.won);
            assert_eq!(paper.has_won(), won > 0.0);
        }
        let mut paper = Paper::default();
        paper.bet(chain(&[1, 2, 3]), 2.5);
        paper.follow(&[1, 2, 3]);
        assert!(!paper.is_settled(), "one more token would come with these");
    }

    #[test]
    fn credit_makes_up_a_moderate_stake_and_no_more() {
        let mut paper = Paper::default();
        assert_eq!((paper.raise(-1.0), paper.raise(7.0)), (-1.0, 7.0));
        paper.book(2.0);
        assert_eq!((paper.raise(-1.0), paper.raise(4.5), paper.raise(7.0)), (1.0, CREDIT, 7.0));
        paper.book(100.0);
        assert_eq!((paper.raise(-1.0), paper.raise(-4.0)), (CREDIT, MOST_WON - 4.0));
        paper.book(-1000.0);
        assert_eq!((paper.raise(1.0), paper.has_won()), (1.0, false));
        paper.book(MOST_OWED + 1.0);
        assert!(paper.has_won(), "what is owed is won back");
    }
}
