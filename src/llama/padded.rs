//! A draft model whose vocabulary ends earlier or later than the target's.
//!
//! Models of one family often share every token that means anything and differ in how far the list is padded with
//! unused ones: it is as long as the matrix that it stands for. Rows are cut, or filled up with tokens that are
//! impossible, so that the draft model speaks the target's vocabulary.

use foretoken_drafter::{DraftError, LanguageModel, NodeId, Scores, SeqId, Token, TokenTree};

use super::scorer::Scorer;

/// A [`Scorer`] whose rows have another length than its model's.
pub struct Padded {
    inner: Scorer,
    n_vocab: usize,
    rows: Vec<Vec<f32>>,
}

impl Padded {
    /// Rows of `n_vocab` from `inner`.
    pub fn new(inner: Scorer, n_vocab: usize) -> Padded {
        Padded { inner: inner.reading_foreign(), n_vocab, rows: Vec::new() }
    }
}

impl LanguageModel for Padded {
    fn score(
        &mut self,
        seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        let known = self.inner.n_vocab();
        // A text may hold a token that this model lacks only if the target chose one that means nothing; a tree too, for
        // look-ups repeat it.
        let replaced: Vec<Token>;
        let context = match context.iter().any(|&token| token as usize >= known) {
            true => {
                replaced = context.iter().map(|&token| if (token as usize) < known { token } else { 0 }).collect();
                &replaced
            }
            false => context,
        };
        let scores = self.inner.score(seq, context, tree, new)?;
        if known >= self.n_vocab {
            return Ok(Scores::new((0..scores.len()).map(|i| &scores.row(i)[..self.n_vocab]).collect()));
        }
        self.rows.resize_with(scores.len(), Vec::new);
        for (i, row) in self.rows.iter_mut().enumerate() {
            row.clear();
            row.extend_from_slice(scores.row(i));
            row.resize(self.n_vocab, f32::NEG_INFINITY);
        }
        Ok(Scores::new(self.rows.iter().map(Vec::as_slice).collect()))
    }

    fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    fn n_ctx(&self) -> usize {
        self.inner.n_ctx()
    }

    fn end(&mut self, seq: SeqId) {
        self.inner.end(seq);
    }
}
