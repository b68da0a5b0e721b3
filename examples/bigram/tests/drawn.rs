//! The other way into the tree: a drafter that has a law of its own and lets the tree draw from it.

use foretoken::testkit::conformance;
use foretoken_drafter::{Dist, DraftError, DraftRequest, Drafter, Token, TokenTree};

/// Guesses that tokens count upwards, now and then by two.
struct Counting;

impl Drafter for Counting {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        loop {
            let nodes = tree.next_to_expand();
            if nodes.is_empty() {
                return Ok(()); // the budget is spent
            }
            for node in nodes {
                let token = tree.token(node);
                if request.law.is_greedy() {
                    tree.add(node, token + 1, 0.75);
                } else if let Some(q) = law_after(token) {
                    let _child = tree.sample(node, q, 1); // its siblings are drawn by the tree
                }
            }
        }
    }
}

fn law_after(token: Token) -> Option<Dist> {
    Dist::from_weights([(token + 1, 0.75), (token + 2, 0.25)])
}

#[test]
fn the_text_is_the_targets() {
    conformance::check(&|_| Box::new(Counting)).unwrap_or_else(|failure| panic!("{failure}"));
}
