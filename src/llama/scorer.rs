//! A context with its [`TreeCache`]: the target or a draft model as a [`LanguageModel`].

use foretoken_drafter::{DraftError, LanguageModel, NodeId, Scores, SeqId, Token, TokenTree};

use super::cache::{Entry, Growth, TreeCache};
use super::context::Context;
use super::LlamaError;

/// Scores token trees with a llama.cpp context. One text at a time: another one replaces it, apart
/// from the prefix they share.
pub struct Scorer {
    context: Context,
    cache: TreeCache,
    hidden: bool,
    /// Whether what is not in the vocabulary is read as token 0.
    reads_foreign: bool,
    /// Of a model that cannot go back: what it remembered before the last guesses, and after which tokens.
    saved: Option<(Vec<Token>, Vec<u8>)>,
}

/// A context that lacks at most this many tokens catches up in the pass that scores the tree.
const CATCH_UP: usize = 64;

impl Scorer {
    /// Score with `context`, which must be fresh.
    pub fn new(context: Context) -> Scorer {
        let cache = TreeCache::new(context.n_seqs());
        Scorer { context, cache, hidden: false, reads_foreign: false, saved: None }
    }

    /// Read guesses that are not in the vocabulary, for it is another's, as token 0.
    pub fn reading_foreign(self) -> Scorer {
        Scorer { reads_foreign: true, ..self }
    }

    /// The context.
    pub fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Bring the cache to `wanted`, decoding what is missing if it is more than `slack` tokens.
    fn keep(&mut self, wanted: &[Token], root: Token, slack: usize) -> Result<(), LlamaError> {
        let calls = self.cache.keep_prefix(wanted, root);
        if !self.context.call(&calls) {
            self.go_back(wanted);
        }
        if wanted.len() - self.cache.len() <= slack {
            return Ok(());
        }
        self.context.set_hidden(false);
        for chunk in wanted[self.cache.len()..].chunks(self.context.n_batch()) {
            let (start, main) = (self.cache.len(), self.cache.main());
            let entry =
                |(i, &token): (usize, &Token)| Entry { token, position: start + i, seqs: vec![main], output: false };
            let batch: Vec<Entry> = chunk.iter().enumerate().map(entry).collect();
            self.decode(&batch)?;
            self.cache.extend(chunk);
        }
        Ok(())
    }

    /// The model cannot simply go back to an earlier token: back to what was saved, if `wanted` begins with it, or else to
    /// the beginning.
    fn go_back(&mut self, wanted: &[Token]) {
        // Of a hybrid model only what its recurrent layers remember is saved; the rest must still be in the cache.
        let kept = self.cache.len();
        self.cache.clear();
        let main = self.cache.main();
        let fits = |tokens: &[Token]| wanted.starts_with(tokens) && tokens.len() <= kept;
        let saved = self.saved.take().filter(|(tokens, _)| fits(tokens));
        match saved {
            Some((tokens, state)) if self.context.restore(main, &state, tokens.len()) => {
                self.cache.extend(&tokens);
                self.saved = Some((tokens, state));
            }
            _ => self.context.clear(),
        }
    }

    /// Keep what the model remembers, before guesses that it may have to forget.
    fn save(&mut self, context: &[Token]) {
        let (mut tokens, mut state) = self.saved.take().unwrap_or_default();
        tokens.clear();
        tokens.extend_from_slice(&context[..self.cache.len()]);
        self.context.save(self.cache.main(), &mut state);
        self.saved = Some((tokens, state)).filter(|(_, state)| !state.is_empty());
    }

    /// Plan to score `new` after the part of `context` that is cached.
    fn grow(&mut self, context: &[Token], tree: &TokenTree, new: &[NodeId]) -> Result<Growth, DraftError> {
        let tail = &context[self.cache.len()..];
        self.cache.grow(tail, tree, new).map_err(|_| {
            self.forget_nodes();
            let most = self.context.n_seqs();
            DraftError::failed(match most {
                1 => "a recurrent model scores chains only; set speculation.width = 1".to_owned(),
                _ => format!("the tree has more leaves than this context was made for, {most}"),
            })
        })
    }

    fn replace_foreign(&self, growth: &mut Growth) {
        if self.reads_foreign {
            let n_vocab = self.n_vocab();
            let foreign = |entry: &&mut Entry| entry.token as usize >= n_vocab;
            growth.batch.iter_mut().filter(foreign).for_each(|entry| entry.token = 0);
        }
    }

    fn decode(&mut self, batch: &[Entry]) -> Result<(), LlamaError> {
        self.context.decode(batch).inspect_err(|_| self.forget_nodes())
    }

    /// Back to the committed tokens.
    fn forget_nodes(&mut self) {
        let calls = self.cache.reset();
        if !self.context.call(&calls) {
            self.context.clear();
            self.cache.clear();
        }
    }
}

impl LanguageModel for Scorer {
    fn score(
        &mut self,
        _seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        let Some((&root, before)) = context.split_last() else {
            return Err(DraftError::failed("there is no text to score"));
        };
        if let Some(stale) = new.iter().find(|node| node.index() >= tree.len()) {
            return Err(DraftError::failed(format!("node {} is not in this tree of {}", stale.index(), tree.len())));
        }
        let n_vocab = self.n_vocab();
        if let Some(foreign) = context.iter().find(|&&token| token as usize >= n_vocab) {
            return Err(DraftError::failed(format!("token {foreign} is not in the vocabulary of {n_vocab}")));
        }
        if let (true, true, Some(&last)) = (new.is_empty(), self.hidden, before.last()) {
            let scores = self.score(SeqId::default(), before, &TokenTree::bare(last), &[NodeId::ROOT])?;
            return Ok(Scores::new(Vec::new()).with_hidden(scores.hidden(0).into_iter().collect()));
        }
        // Where hidden states are given, every token of a batch is an output, so what is missing is decoded before.
        let slack = if new.is_empty() || self.hidden { 0 } else { CATCH_UP };
        self.keep(before, root, slack).map_err(DraftError::failed)?;
        if new.is_empty() {
            // No logits are read, which would wait: what a prompt took to read would count as the first round's.
            self.context.finish();
            return Ok(Scores::new(Vec::new()));
        }
        self.context.set_hidden(self.hidden);
        // Guesses are to come, if there are none yet: a draft model scores the root first.
        if tree.shape().max_nodes > 0 && self.context.model().is_recurrent() && self.cache.is_settled() {
            self.save(context);
        }
        let mut growth = self.grow(context, tree, new)?;
        self.replace_foreign(&mut growth);
        if !self.context.call(&growth.calls) {
            // Nodes were cached already, and the model cannot go back to before them.
            self.go_back(before);
            self.keep(before, root, slack).map_err(DraftError::failed)?;
            self.context.set_hidden(self.hidden);
            growth = self.grow(context, tree, new)?;
            self.replace_foreign(&mut growth);
            if !self.context.call(&growth.calls) {
                return Err(DraftError::failed("the model cannot branch; set speculation.width = 1"));
            }
        }
        self.decode(&growth.batch).map_err(DraftError::failed)?;
        let rows: Option<Vec<&[f32]>> = growth.rows.iter().map(|&row| self.context.logits(row)).collect();
        let scores = rows.map(Scores::new).ok_or_else(|| DraftError::failed("llama.cpp returned no logits"))?;
        if !self.hidden {
            return Ok(scores);
        }
        let states: Option<Vec<&[f32]>> = growth.rows.iter().map(|&row| self.context.hidden(row)).collect();
        states.map(|s| scores.with_hidden(s)).ok_or_else(|| DraftError::failed("llama.cpp returned no hidden states"))
    }

    fn keep_hidden(&mut self, keep: bool) -> bool {
        self.hidden = keep;
        keep
    }

    fn n_vocab(&self) -> usize {
        self.context.model().n_vocab()
    }

    fn n_ctx(&self) -> usize {
        self.context.n_ctx()
    }

    fn end(&mut self, _seq: SeqId) {
        self.context.clear();
        self.cache.clear();
        self.saved = None;
    }
}
