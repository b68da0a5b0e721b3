//! What a drafter does and what it is told. The engine calls it; it decides nothing about acceptance.

use crate::{Dist, DraftError, NodeId, Token, TokenTree};

/// Guesses the tokens that come next.
///
/// Only [`draft`](Drafter::draft) is required; every other method has a default that suits a drafter
/// without state.
pub trait Drafter: Send {
    /// Grow `tree` from its root. An untouched tree means "no guess": the round is a plain decode.
    ///
    /// # Errors
    /// Only if drafting cannot go on at all; the run stops.
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError>;

    /// Tokens became final: the prompt first, then each round's.
    ///
    /// # Errors
    /// As for [`draft`](Drafter::draft).
    fn commit(&mut self, _commit: &Commit<'_>) -> Result<(), DraftError> {
        Ok(())
    }

    /// The text is over. What it taught may stay, and so may a model's cache: the next text may begin like this one, as
    /// the turns of a chat do.
    fn end(&mut self, _seq: SeqId) {}

    /// The text is over, and caches of it go too, so that the next one begins like the first. A drafter that holds others
    /// passes both on.
    fn forget(&mut self, seq: SeqId) {
        self.end(seq);
    }

    /// What it chose by itself and why, in one line for the user; `None` if its settings say it all.
    fn about(&self) -> Option<String> {
        None
    }

    /// The names of its parts, in the order in which it counts them ([`TokenTree::next_part`]): whose guesses were accepted
    /// is told apart by them. None for a drafter that is no combinator.
    fn parts(&self) -> Vec<String> {
        Vec::new()
    }

    /// What [`commit`](Drafter::commit) should bring besides tokens, and what else. Asked before every text.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// What a drafter wants to be told of the target; each costs time, so by default nothing. And whether the run must not
/// repeat the dice of earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The target's hidden states: [`Commit::hidden`].
    pub hidden: bool,
    /// How many of the target's likeliest tokens at every scored node: [`Outcome::top`].
    pub top: usize,
    /// A seed that no earlier run had: its guesses are what those came to, by their dice.
    pub new_seed: bool,
}

impl Needs {
    /// What satisfies both: how a combinator asks for its parts.
    pub fn and(self, other: Needs) -> Needs {
        Needs {
            hidden: self.hidden || other.hidden,
            top: self.top.max(other.top),
            new_seed: self.new_seed || other.new_seed,
        }
    }
}

/// Which text is meant, where several are generated at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// What a drafter is given to draft from.
pub struct DraftRequest<'a> {
    /// The text.
    pub seq: SeqId,
    /// Every final token, prompt included; the last one is the tree's root.
    pub context: &'a [Token],
    /// The run's sampling settings.
    pub law: &'a dyn Law,
}

/// The run's sampling settings, applied to a draft model's logits as they are to the target's.
pub trait Law {
    /// Whether the target is decoded greedily (temperature 0): then nothing need be drawn.
    fn is_greedy(&self) -> bool;

    /// The law that the settings make of `logits` after `context` followed by `path` (penalties
    /// depend on both). A point mass if greedy.
    fn dist(&self, logits: &[f32], context: &[Token], path: &[Token]) -> Dist;

    /// The `n` likeliest tokens, best first, with their probabilities: under
    /// [`dist`](Law::dist), or, if greedy, at temperature 1.
    fn top(&self, logits: &[f32], context: &[Token], path: &[Token], n: usize) -> Vec<(Token, f32)>;
}

/// Tokens that became final.
pub struct Commit<'a> {
    /// The text.
    pub seq: SeqId,
    /// Every final token so far, the new ones included.
    pub context: &'a [Token],
    /// How many of them, at the end, are new.
    pub n_new: usize,
    /// The round that made them final; `None` for the prompt.
    pub round: Option<Outcome<'a>>,
    /// Whether a draft model should leave reading them to its first pass, which may never come: reading takes more than
    /// that model is expected to win back.
    pub defer: bool,
    /// The target's state after its last layer and final norm (`n_embd` numbers) at the last token but one: the state
    /// from which the last token, the next tree's root, was predicted. `None` if [`Needs`] did not ask, if the target
    /// cannot give it, or if nothing comes before the root.
    pub hidden: Option<&'a [f32]>,
}

impl<'a> Commit<'a> {
    /// The tokens that became final just now.
    pub fn new_tokens(&self) -> &'a [Token] {
        &self.context[self.context.len() - self.n_new..]
    }
}

/// How the round went, for drafters that learn from it.
#[derive(Clone, Copy)]
pub struct Outcome<'a> {
    /// The tree that was verified: what was drafted, less fixed guesses not worth scoring; its numbers may be others.
    pub tree: &'a TokenTree,
    /// The accepted nodes, from the root's child downwards.
    pub accepted: &'a [NodeId],
    /// The target's likeliest tokens after every node of the tree, best first, with probabilities as of [`Law::top`]:
    /// as many as [`Needs::top`] asked for, of rejected nodes too. Indexed by [`NodeId::index`]; empty if not asked for.
    pub top: &'a [Vec<(Token, f32)>],
}

impl<'a> Outcome<'a> {
    /// The target's likeliest tokens after `node`; empty if not asked for.
    pub fn top_after(&self, node: NodeId) -> &'a [(Token, f32)] {
        self.top.get(node.index()).map_or(&[], Vec::as_slice)
    }
}
