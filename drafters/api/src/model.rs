//! Models as the engine and drafters see them: logits for nodes of a tree. Caches stay inside.

use crate::{DraftError, NodeId, SeqId, Token, TokenTree};

/// A model that scores tokens: the target and a draft model are the same thing to us.
///
/// One method is required. An implementation caches what it has scored; nobody else manages that
/// cache.
pub trait LanguageModel: Send {
    /// Score the nodes `new` of `tree`, one row of logits each, in the order of `new`.
    ///
    /// `context` is every final token of the text; its last one is the tree's root. There is no
    /// rollback call: the cache keeps the longest prefix that it shares with `context` and drops the
    /// rest. Nodes need not be contiguous, and their ancestors are scored too where they are missing.
    /// With `new` empty only the context before the root is brought into the cache.
    ///
    /// # Errors
    /// The context is full, or the model failed.
    fn score(
        &mut self,
        seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError>;

    /// Number of tokens in the vocabulary: the length of a row.
    fn n_vocab(&self) -> usize;

    /// How many tokens (context and tree together) fit.
    fn n_ctx(&self) -> usize;

    /// Forget the text's cache: it begins anew, or is over for good.
    fn end(&mut self, _seq: SeqId) {}

    /// Whether [`score`](LanguageModel::score) is to give hidden states too, from its next call on. Returns whether it
    /// will; a model that cannot says `false`.
    fn keep_hidden(&mut self, _keep: bool) -> bool {
        false
    }
}

/// What a model says about the nodes it scored; borrowed from its buffers until the next call.
pub struct Scores<'a> {
    rows: Vec<&'a [f32]>,
    hidden: Vec<&'a [f32]>,
}

impl<'a> Scores<'a> {
    /// One row of `n_vocab` logits per scored node.
    pub fn new(rows: Vec<&'a [f32]>) -> Scores<'a> {
        Scores { rows, hidden: Vec::new() }
    }

    /// The same with hidden states (after the last layer and the final norm), one per scored node; where no node was
    /// to be scored, the one of the token before the root.
    pub fn with_hidden(self, hidden: Vec<&'a [f32]>) -> Scores<'a> {
        Scores { hidden, ..self }
    }

    /// The hidden state of the `i`-th node asked for, or, if none was, of the token before the root. `None` unless
    /// [`keep_hidden`](LanguageModel::keep_hidden) was switched on.
    pub fn hidden(&self, i: usize) -> Option<&'a [f32]> {
        self.hidden.get(i).copied()
    }

    /// The logits of the `i`-th node asked for; empty past the last.
    pub fn row(&self, i: usize) -> &'a [f32] {
        self.rows.get(i).copied().unwrap_or_default()
    }

    /// How many nodes were scored.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none were.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
