//! Drafter `merge`: several drafters grow one tree under one budget.
//!
//! ```toml
//! [drafter]
//! kind = "merge"
//! parts = [{ kind = "ngram" }, { kind = "model", model = "draft.gguf" }]
//! ```
//!
//! The parts grow the tree in this order. A guess that is there already is not added twice; the tree puts drawn
//! children before fixed ones, whoever grew first, and the verifier needs to know no more.
//!
//! * **The budget.** Of the nodes that are left, each part may take an equal share with those still to come. What it
//!   does not take goes on to the next: a lookup that finds nothing leaves everything to the model. A lookup whose share was
//!   spent on likely guesses only may take a share of the rest too, and so on: a long repetition needs no model to be
//!   continued.
//! * **The order.** Lookups first, models last. A model scores the branches of the parts before it in the same passes
//!   as its own, and corrects them where they leave its mind. Its draws leave out what is there: fixed choices and one
//!   draw from the rest, which accepts most at a single node (Hu et al., arXiv 2502.18779). The other way round the
//!   branches only lie side by side.
//!
//! * **Helps** where each part is sometimes right alone: an n-gram lookup knows what repeats, a model the rest.
//! * **Hurts** with a fixed shape, where it costs the passes of all its models and the evaluations of all its heads in every
//!   round, and where one part is nearly always better: that part alone is cheaper, and `cascade` is where a lookup should
//!   spare the model's passes. With `speculation.adaptive` each part is asked only where it should pay, and then heads stand
//!   best before a model, which is asked about what they leave open. Either way it is a tree of more nodes.
//! * **Memory**: that of its parts; it keeps nothing itself.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, Host, Needs, SeqId, TokenTree};

/// Build the drafter and its parts.
///
/// # Errors
/// There are fewer than two parts, one of them never guesses, or one cannot be built.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let (names, parts) = foretoken_drafter_cascade::parts(settings, "merge", host)?;
    Ok(Box::new(Merge { parts, names }))
}

/// All of its parts grow the tree, one after the other.
pub struct Merge {
    parts: Vec<Box<dyn Drafter>>,
    names: Vec<String>,
}

impl Merge {
    /// Let `parts`, which have no names, grow the tree in this order.
    pub fn new(parts: Vec<Box<dyn Drafter>>) -> Merge {
        Merge { parts, names: Vec::new() }
    }

    /// Let `parts` of such kinds grow the tree in this order. One that is a combinator should name its own parts.
    pub fn of_kinds(parts: Vec<(String, Box<dyn Drafter>)>) -> Merge {
        let names = foretoken_drafter_cascade::names(&parts);
        Merge { parts: parts.into_iter().map(|(_, part)| part).collect(), names }
    }
}

impl Drafter for Merge {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        let mut to_come = self.parts.len();
        for part in &mut self.parts {
            let before = (tree.passes(), tree.evaluations().len());
            loop {
                let (len, room) = (tree.len(), tree.room());
                let kept_back = tree.reserve(0);
                tree.reserve(kept_back + room - room.div_ceil(to_come));
                part.draft(request, tree)?;
                let is_spent = tree.room() == 0;
                tree.reserve(kept_back);
                let is_look_up = (tree.passes(), tree.evaluations().len()) == before;
                // One that counts parts of its own would count them twice.
                let goes_on = is_spent && is_look_up && tree.len() > len && tree.room() > 0 && ends_likely(tree);
                if !(goes_on && part.parts().is_empty()) {
                    break;
                }
            }
            to_come -= 1;
            if to_come > 0 {
                tree.next_part();
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        self.parts.iter_mut().try_for_each(|part| part.commit(commit))
    }

    fn end(&mut self, seq: SeqId) {
        self.parts.iter_mut().for_each(|part| part.end(seq));
    }

    fn forget(&mut self, seq: SeqId) {
        self.parts.iter_mut().for_each(|part| part.forget(seq));
    }

    fn parts(&self) -> Vec<String> {
        self.names.clone()
    }

    fn needs(&self) -> Needs {
        self.parts.iter().fold(Needs::default(), |needs, part| needs.and(part.needs()))
    }
}

/// Whether the guess added last, of those that look-ups add the least likely, is likely enough to go on from there. What
/// was drawn must not be asked for again.
fn ends_likely(tree: &TokenTree) -> bool {
    tree.ids().next_back().is_some_and(|node| tree.draw(node).is_none() && tree.survival(node) >= LIKELY)
}

const LIKELY: f32 = 0.75;

#[cfg(test)]
mod tests {
    use super::*;
    use foretoken_drafter::{Dice, Dist, Law, NodeId, Shape, Token};

    /// Adds as many children of the root as it may, up to its own number.
    struct Eats(usize, Token);

    impl Drafter for Eats {
        fn draft(&mut self, _: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
            for i in 0..self.0 as Token {
                tree.add(NodeId::ROOT, self.1 + i, 0.1);
            }
            Ok(())
        }
    }

    /// Adds a chain as long as it may, from the root, each token with the same belief.
    struct Repeats(f32);

    impl Drafter for Repeats {
        fn draft(&mut self, _: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
            let mut at = Some(NodeId::ROOT);
            let mut next = 60;
            while let Some(node) = at {
                at = tree.add(node, next, self.0);
                next += 1;
            }
            Ok(())
        }
    }

    /// Keeps all room back, and forgets to give it free.
    struct Hoards;

    impl Drafter for Hoards {
        fn draft(&mut self, _: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
            tree.reserve(usize::MAX);
            Ok(())
        }
    }

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

    fn tokens(parts: Vec<Box<dyn Drafter>>) -> Vec<Token> {
        grown(parts, Shape { max_nodes: 7, depth: 1, width: 1 })
    }

    fn grown(parts: Vec<Box<dyn Drafter>>, shape: Shape) -> Vec<Token> {
        let mut tree = TokenTree::new(100, Box::new(Nothing));
        tree.begin(0, shape);
        let request = DraftRequest { seq: SeqId(0), context: &[0], law: &Nothing };
        Merge::new(parts).draft(&request, &mut tree).unwrap();
        tree.ids().skip(1).map(|n| tree.token(n)).collect()
    }

    #[test]
    fn no_part_eats_the_share_of_another_and_what_is_left_goes_on() {
        let eats = |n, first| Box::new(Eats(n, first)) as Box<dyn Drafter>;
        let both = || Box::new(Merge::new(vec![eats(9, 40), eats(9, 50)])) as Box<dyn Drafter>;
        assert_eq!(tokens(vec![eats(9, 10), eats(9, 20), eats(9, 30)]), [10, 11, 12, 20, 21, 30, 31]);
        assert_eq!(tokens(vec![eats(0, 10), eats(1, 20), eats(9, 30)]), [20, 30, 31, 32, 33, 34, 35]);
        assert_eq!(tokens(vec![eats(3, 10), eats(3, 10), eats(9, 30)]), [10, 11, 12, 30, 31, 32, 33], "merged");
        assert_eq!(tokens(vec![both(), eats(9, 30)]), [40, 41, 50, 51, 30, 31, 32], "a merge within a merge");
    }

    #[test]
    fn a_part_that_keeps_room_back_for_nobody_is_asked_once() {
        assert_eq!(tokens(vec![Box::new(Hoards), Box::new(Eats(2, 10))]), [10, 11]);
    }

    #[test]
    fn likely_guesses_go_on_beyond_their_share() {
        let shape = Shape { max_nodes: 16, depth: 16, width: 1 };
        let of = |belief, other: fn() -> Box<dyn Drafter>| grown(vec![Box::new(Repeats(belief)), other()], shape);
        let eats: fn() -> Box<dyn Drafter> = || Box::new(Eats(9, 10));
        assert_eq!(of(0.999, eats), (60..76).collect::<Vec<Token>>(), "likely to its end");
        // 0.97^8 is 0.78, and 0.97^12 is 0.69: half of what was left, and no more.
        assert_eq!(of(0.97, eats), (60..72).chain(10..14).collect::<Vec<Token>>());
        assert_eq!(of(0.96, eats), (60..68).chain(10..18).collect::<Vec<Token>>(), "0.96^8 is 0.72");
        let least = grown(vec![Box::new(Repeats(0.999)), eats()], Shape { max_nodes: 1, ..shape });
        assert_eq!(least, [60], "nothing is left to go on with");
    }
}
