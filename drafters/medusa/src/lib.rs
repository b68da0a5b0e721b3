//! Drafter `medusa`: heads on the target's last hidden state guess the next few tokens at once.
//!
//! After Medusa (Cai et al., arXiv 2401.10774). The target predicts one token from a hidden state; head k, counted from
//! 0, guesses from the same state the token k + 1 places after that one. So head 0's candidates are children of the
//! tree's root, head 1's are their children, and so on. The tree grows best first, by the product of beliefs. All
//! guesses are fixed choices: Medusa's own "typical acceptance" changes the text's law and is not used.
//!
//! ```toml
//! [drafter]
//! kind = "medusa"
//! heads = "heads.gguf" # made by `foretoken prepare medusa`, relative to this file
//! ```
//!
//! *When it helps*: a draft costs one pass over the heads, a few matrices, whatever the tree's size, and needs no second
//! model; the heads are trained for the very target at hand, quantised as it is. With `speculation.adaptive` they are
//! evaluated only in rounds in which that should pay, by what their guesses were worth before. *When it hurts*: no head knows what
//! the others chose, so long branches rarely fit together and wide trees pay only where scoring many nodes costs little
//! more than scoring one. Text unlike that which the heads were trained on is guessed badly.
//!
//! *Memory*: the file of the heads, mapped: per head and block n_embd² numbers, and n_embd · n_vocab more per head if
//! heads have output matrices of their own. Per text one hidden state.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use foretoken_drafter::{
    Commit, DraftError, DraftRequest, Drafter, Frontier, Heads, Host, Needs, NodeId, SeqId, Token, TokenTree,
};
use serde::Deserialize;

mod trust;

pub use trust::Trust;

/// The keys of its table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The file of the heads.
    heads: PathBuf,
}

/// Build the drafter; the host opens the heads.
///
/// # Errors
/// `heads` is missing, or the file cannot be used with this target.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let Settings { heads } = toml::from_str(settings).map_err(DraftError::settings)?;
    Ok(Box::new(Medusa::new(host.open_heads(&heads)?)))
}

/// Guesses what its heads say about the last hidden state.
pub struct Medusa {
    heads: Box<dyn Heads>,
    trust: Trust,
    texts: HashMap<SeqId, Text>,
}

/// What is kept of one text.
#[derive(Default)]
struct Text {
    /// The state from which the root was predicted; empty: unknown.
    hidden: Vec<f32>,
    /// What was last guessed: the length of the context then, and each head's candidates.
    guess: (usize, Vec<Candidates>),
}

/// A head's candidates, best first.
type Candidates = Vec<Candidate>;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: Token,
    /// Its place in the head's own order.
    rank: usize,
    /// The head's own probability.
    probability: f32,
    /// That probability, corrected.
    belief: f32,
}

impl Medusa {
    /// A drafter with these heads that has seen no text.
    pub fn new(heads: Box<dyn Heads>) -> Medusa {
        Medusa { heads, trust: Trust::default(), texts: HashMap::new() }
    }
}

impl Drafter for Medusa {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        let depth = tree.shape().depth.min(self.heads.n_heads());
        let Some(text) = self.texts.get_mut(&request.seq).filter(|text| !text.hidden.is_empty()) else {
            return Ok(());
        };
        if !tree.is_worth_evaluating(depth) {
            return Ok(());
        }
        let begun = Instant::now();
        let scores = self.heads.evaluate(&text.hidden)?;
        let candidates = |head| {
            // What stands between the root and this head's token is not known yet, so penalties see the context only.
            let top = request.law.top(scores.row(head), request.context, &[], tree.width());
            self.trust.candidates(head, &top)
        };
        text.guess = (request.context.len(), (0..depth).map(candidates).collect());
        tree.evaluated(depth, begun.elapsed());
        grow(&text.guess.1, tree);
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        let text = self.texts.entry(commit.seq).or_default();
        let (guessed_at, candidates) = std::mem::take(&mut text.guess);
        if guessed_at + commit.n_new == commit.context.len() {
            self.trust.learn(&candidates, commit.new_tokens());
        }
        text.hidden.clear();
        text.hidden.extend_from_slice(commit.hidden.unwrap_or_default());
        Ok(())
    }

    fn end(&mut self, seq: SeqId) {
        self.texts.remove(&seq);
    }

    fn needs(&self) -> Needs {
        Needs { hidden: true, ..Needs::default() }
    }
}

/// Grow the tree by its likeliest branch, again and again, until it is full or the candidates are used up.
fn grow(heads: &[Candidates], tree: &mut TokenTree) {
    let mut frontier = Frontier::default();
    let push = |frontier: &mut Frontier<Branch>, parent, reach: f32, head: usize, place: usize| {
        if let Some(&candidate) = heads.get(head).and_then(|candidates| candidates.get(place)) {
            frontier.push(reach * candidate.belief, Branch { reach, parent, head, place, candidate });
        }
    };
    push(&mut frontier, NodeId::ROOT, 1.0, 0, 0);
    while let Some((survival, Branch { reach, parent, head, place, candidate })) = frontier.pop() {
        let child = tree.add(parent, candidate.token, candidate.belief);
        if tree.room() == 0 {
            return;
        }
        push(&mut frontier, parent, reach, head, place + 1);
        if let Some(child) = child {
            push(&mut frontier, child, survival, head + 1, 0);
        }
    }
}

/// A child that may be added: the candidate in `place` of `head`.
struct Branch {
    /// The parent's survival.
    reach: f32,
    parent: NodeId,
    head: usize,
    place: usize,
    candidate: Candidate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretoken_drafter::{Dice, Dist, Law, Scores, Shape};

    const SEQ: SeqId = SeqId(0);
    const VOCABULARY: usize = 8;

    struct NoDice;

    impl Dice for NoDice {
        fn pick(&mut self, _: &[f64]) -> usize {
            0
        }
    }

    /// Takes logits for probabilities.
    struct AsTheyAre;

    impl Law for AsTheyAre {
        fn is_greedy(&self) -> bool {
            true
        }

        fn dist(&self, _: &[f32], _: &[Token], _: &[Token]) -> Dist {
            Dist::point(0)
        }

        fn top(&self, logits: &[f32], _: &[Token], _: &[Token], n: usize) -> Vec<(Token, f32)> {
            let mut all: Vec<(Token, f32)> = (0..).zip(logits.iter().copied()).filter(|&(_, p)| p > 0.0).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all.truncate(n);
            all
        }
    }

    /// Heads that say the same of every state.
    struct Fixed(Vec<[f32; VOCABULARY]>);

    impl Heads for Fixed {
        fn n_heads(&self) -> usize {
            self.0.len()
        }

        fn evaluate(&mut self, hidden: &[f32]) -> Result<Scores<'_>, DraftError> {
            assert_eq!(hidden, [0.5, 0.25]);
            Ok(Scores::new(self.0.iter().map(|row| &row[..]).collect()))
        }
    }

    /// Head 0 says 1 (0.6) or 2 (0.4), head 1 says 3 (0.9) or 4 (0.1).
    fn drafter() -> Medusa {
        let (mut first, mut second) = ([0.0; VOCABULARY], [0.0; VOCABULARY]);
        (first[1], first[2], second[3], second[4]) = (0.6, 0.4, 0.9, 0.1);
        Medusa::new(Box::new(Fixed(vec![first, second])))
    }

    fn commit(drafter: &mut Medusa, context: &[Token], n_new: usize, hidden: Option<&[f32]>) {
        drafter.commit(&Commit { seq: SEQ, context, n_new, round: None, defer: false, hidden }).unwrap();
    }

    fn draft(drafter: &mut Medusa, context: &[Token], shape: Shape) -> Vec<Vec<Token>> {
        let mut tree = TokenTree::new(VOCABULARY, Box::new(NoDice));
        tree.begin(context.last().copied().unwrap_or(0), shape);
        drafter.draft(&DraftRequest { seq: SEQ, context, law: &AsTheyAre }, &mut tree).unwrap();
        tree.ids().skip(1).map(|node| tree.path(node)).collect()
    }

    fn after_a_prompt(shape: Shape) -> Vec<Vec<Token>> {
        let mut drafter = drafter();
        commit(&mut drafter, &[5, 6], 2, Some(&[0.5, 0.25]));
        draft(&mut drafter, &[5, 6], shape)
    }

    #[test]
    fn the_tree_grows_best_first() {
        let wide = Shape { max_nodes: 16, depth: 8, width: 2 };
        let all = after_a_prompt(wide);
        assert_eq!(all[..4], [vec![1], vec![1, 3], vec![2], vec![2, 3]], "0.6, 0.54, 0.4, 0.36");
        assert_eq!(all.len(), 6, "two heads of two candidates each");
        assert_eq!(after_a_prompt(Shape { max_nodes: 3, ..wide }), all[..3]);
    }

    #[test]
    fn width_1_is_a_chain_no_longer_than_there_are_heads() {
        assert_eq!(after_a_prompt(Shape { max_nodes: 16, depth: 8, width: 1 }), [vec![1], vec![1, 3]]);
        assert_eq!(after_a_prompt(Shape { max_nodes: 16, depth: 1, width: 1 }), [vec![1]]);
        assert!(after_a_prompt(Shape { max_nodes: 0, depth: 0, width: 1 }).is_empty());
    }

    #[test]
    fn without_a_hidden_state_there_is_no_guess() {
        let shape = Shape { max_nodes: 16, depth: 8, width: 2 };
        let mut drafter = drafter();
        assert!(draft(&mut drafter, &[5, 6], shape).is_empty());
        commit(&mut drafter, &[5, 6], 2, Some(&[0.5, 0.25]));
        assert!(!draft(&mut drafter, &[5, 6], shape).is_empty());
        commit(&mut drafter, &[5, 6, 1], 1, None);
        assert!(draft(&mut drafter, &[5, 6, 1], shape).is_empty());
        commit(&mut drafter, &[5, 6, 1, 2], 1, Some(&[0.5, 0.25]));
        drafter.end(SEQ);
        assert!(draft(&mut drafter, &[5, 6, 1, 2], shape).is_empty());
    }

    #[test]
    fn heads_that_are_often_wrong_are_believed_less() {
        let shape = Shape { max_nodes: 3, depth: 8, width: 2 };
        let mut drafter = drafter();
        let mut context = vec![5, 6];
        commit(&mut drafter, &context, 2, Some(&[0.5, 0.25]));
        assert_eq!(draft(&mut drafter, &context, shape)[1], [1, 3]);
        // Always 2, never what head 1 says.
        for _ in 0..50 {
            draft(&mut drafter, &context, shape);
            context.extend([2, 7]);
            commit(&mut drafter, &context, 2, Some(&[0.5, 0.25]));
        }
        assert_eq!(draft(&mut drafter, &context, shape)[..2], [vec![2], vec![1]]);
    }

    #[test]
    fn the_settings_name_the_heads() {
        struct NoHost;
        impl Host for NoHost {
            fn target(&self) -> foretoken_drafter::TargetInfo {
                Default::default()
            }

            fn open_model(
                &mut self,
                _: &foretoken_drafter::ModelSpec,
            ) -> Result<Box<dyn foretoken_drafter::LanguageModel>, DraftError> {
                Err(DraftError::settings("no models"))
            }

            fn build(&mut self, _: &str, _: &str) -> Result<Box<dyn Drafter>, DraftError> {
                Err(DraftError::settings("no parts"))
            }
        }
        let complaint = |settings: &str| build(settings, &mut NoHost).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(complaint("").contains("missing field `heads`"));
        assert!(complaint("heads = 'h'\nwidth = 3").contains("unknown field `width`"));
        assert!(complaint("heads = 'h'").contains("takes no heads"));
    }
}
