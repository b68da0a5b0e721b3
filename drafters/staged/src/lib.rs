//! Drafter `staged`: a draft model that is itself drafted for, by any other drafter (Spector and Ré, arXiv 2308.04623).
//!
//! ```toml
//! [drafter]
//! kind = "staged"
//! model = "draft.gguf"                                       # and what else `model` takes
//! drafter = { kind = "model", model = "draft-small.gguf" }   # or { kind = "ngram" }, or any other
//! ```
//!
//! A draft model grows a branch by one pass per token. Here the inner drafter guesses what the model will say, and one
//! pass scores those guesses together with the node that the model would have scored anyway. The tree then grows from
//! the model's own logits, exactly as [`foretoken_drafter_model`] grows it; as long as it takes the way that was guessed,
//! its logits are there already, and where it leaves it, another pass follows. So the guesses of the inner drafter
//! decide how many passes there are and nothing else: the tree is the one that the model alone would have drawn, its
//! proposal laws are the model's, and the verifier never hears of the inner drafter.
//!
//! It helps where a pass of the draft model costs much beside the inner drafter, and one over several tokens little more
//! than one over a single token: a draft model of some size, or one on another device. It hurts where the draft model is
//! small: then scoring guesses that go unused costs what the saved passes would have. Sampling at a high temperature,
//! the inner drafter hits less, since it can but guess what will be drawn.
//!
//! Memory: the draft model, the inner drafter, and a row of `4 * n_vocab` bytes for each node scored in a round. A pass
//! scores at most `speculation.max_nodes` nodes, and a round takes at most `speculation.depth` passes.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::collections::HashMap;

use foretoken_drafter::{
    Commit, Dice, Dist, DraftError, DraftRequest, Drafter, Host, LanguageModel, Law, Needs, NodeId, Scores, SeqId,
    Shape, Token, TokenTree,
};
use foretoken_drafter_model::Rows;

/// Build the drafter, its model and its inner drafter.
///
/// # Errors
/// The settings are wrong, the model or the inner drafter cannot be had, or the inner one cannot draft for a model.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let mut settings: toml::Table = toml::from_str(settings).map_err(DraftError::settings)?;
    let Some(toml::Value::Table(mut inner)) = settings.remove("drafter") else {
        return Err(DraftError::settings("it needs an inner drafter, as in drafter = { kind = \"ngram\" }"));
    };
    let kind = match inner.remove("kind") {
        Some(toml::Value::String(kind)) if kind == "none" => {
            return Err(DraftError::settings("`none` does not draft for the model; use kind = \"model\" alone"));
        }
        Some(toml::Value::String(kind)) => kind,
        _ => return Err(DraftError::settings("its inner drafter needs a kind, as in drafter = { kind = \"ngram\" }")),
    };
    let model = foretoken_drafter_model::open(&settings.to_string(), host)?;
    let inner = host.build(&kind, &inner.to_string())?;
    if inner.needs().hidden {
        return Err(DraftError::settings(format!(
            "its inner drafter `{kind}` needs the target's hidden states, which a draft model's guesses do not have; use \
             one that needs none"
        )));
    }
    Ok(Box::new(Staged::new(model, inner)))
}

/// Drafts with a model that is drafted for.
pub struct Staged {
    model: Ahead,
}

impl Staged {
    /// Draft with `model`, for which `inner` drafts.
    pub fn new(model: Box<dyn LanguageModel>, inner: Box<dyn Drafter>) -> Staged {
        let guesses = TokenTree::new(model.n_vocab(), Box::new(NoDice));
        // What this tree is given, the outer tree and `guesses` have let pass.
        let scored = TokenTree::new(usize::MAX, Box::new(NoDice));
        Staged { model: Ahead { model, inner, guesses, scored, rows: HashMap::new(), n_ahead: 0 } }
    }
}

impl Drafter for Staged {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        self.model.rows.clear();
        self.model.n_ahead = 0;
        foretoken_drafter_model::draft(request, tree, &mut self.model)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        foretoken_drafter_model::read_prompt(&mut *self.model.model, commit)?;
        self.model.inner.commit(commit)
    }

    fn end(&mut self, seq: SeqId) {
        self.model.inner.end(seq);
    }

    fn forget(&mut self, seq: SeqId) {
        self.model.model.end(seq);
        self.model.inner.forget(seq);
    }

    fn needs(&self) -> Needs {
        self.model.inner.needs()
    }
}

/// A draft model that scores what it will probably be asked next together with what it is asked.
struct Ahead {
    model: Box<dyn LanguageModel>,
    inner: Box<dyn Drafter>,
    /// The inner drafter's guesses below one node; `scored`: everything of one pass. Nothing is drawn in either.
    guesses: TokenTree,
    scored: TokenTree,
    /// The rows of this round by the path from the root.
    rows: HashMap<Vec<Token>, Vec<f32>>,
    /// How many guesses of the inner drafter were scored this round.
    n_ahead: usize,
}

impl Rows for Ahead {
    fn n_ctx(&self) -> usize {
        self.model.n_ctx()
    }

    fn rows(
        &mut self,
        request: &DraftRequest<'_>,
        tree: &TokenTree,
        nodes: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        let paths: Vec<Vec<Token>> = nodes.iter().map(|&node| tree.path(node)).collect();
        let unknown: Vec<&[Token]> =
            paths.iter().map(Vec::as_slice).filter(|&path| !self.rows.contains_key(path)).collect();
        if !unknown.is_empty() {
            self.score(request, tree.shape(), &unknown)?;
        }
        let row = |path| self.rows.get(path).map(Vec::as_slice).unwrap_or_default();
        Ok(Scores::new(paths.iter().map(row).collect()))
    }
}

impl Ahead {
    /// One pass of the model over the ends of `paths` and over what the inner drafter guesses below them.
    fn score(&mut self, request: &DraftRequest<'_>, shape: Shape, paths: &[&[Token]]) -> Result<(), DraftError> {
        let Some(&root) = request.context.last() else { return Ok(()) };
        self.scored.begin(root, Shape { max_nodes: usize::MAX, depth: usize::MAX, width: shape.width });
        let mut asked: Vec<NodeId> = paths.iter().map(|path| extend(&mut self.scored, NodeId::ROOT, path)).collect();
        let mut left = self.guesses_left(request, shape).min(shape.max_nodes.saturating_sub(paths.len()));
        for (i, path) in paths.iter().enumerate() {
            let share = left.div_ceil(paths.len() - i);
            self.guess(request, shape, path, share)?;
            for guess in self.guesses.ids().skip(1) {
                asked.push(extend(&mut self.scored, asked[i], &self.guesses.path(guess)));
            }
            left -= self.guesses.len() - 1;
            self.n_ahead += self.guesses.len() - 1;
        }
        let scores = self.model.score(request.seq, request.context, &self.scored, &asked)?;
        for (i, &node) in asked.iter().enumerate() {
            self.rows.insert(self.scored.path(node), scores.row(i).to_vec());
        }
        Ok(())
    }

    /// How many guesses the model's context still has room for, besides a full tree.
    fn guesses_left(&self, request: &DraftRequest<'_>, shape: Shape) -> usize {
        let needed = request.context.len() + shape.max_nodes + self.n_ahead;
        self.model.n_ctx().saturating_sub(needed)
    }

    /// Have the inner drafter guess up to `max_nodes` tokens after `path`. The last layer of the outer tree is never
    /// expanded, so they end above it.
    fn guess(
        &mut self,
        request: &DraftRequest<'_>,
        shape: Shape,
        path: &[Token],
        max_nodes: usize,
    ) -> Result<(), DraftError> {
        let context = [request.context, path].concat();
        let Some(&root) = context.last() else { return Ok(()) };
        let depth = shape.depth.saturating_sub(path.len() + 1);
        self.guesses.begin(root, Shape { max_nodes, depth, width: shape.width });
        if max_nodes == 0 || depth == 0 {
            return Ok(());
        }
        let law = Greedily(request.law);
        self.inner.draft(&DraftRequest { seq: request.seq, context: &context, law: &law }, &mut self.guesses)
    }
}

/// The node at the end of `path` below `node`, added where it is missing.
fn extend(tree: &mut TokenTree, node: NodeId, path: &[Token]) -> NodeId {
    path.iter().fold(node, |node, &token| tree.add(node, token, 0.0).unwrap_or(node))
}

/// The run's settings as the inner drafter sees them: its guesses are fixed choices, whatever the run draws.
struct Greedily<'a>(&'a dyn Law);

impl Law for Greedily<'_> {
    fn is_greedy(&self) -> bool {
        true
    }

    fn dist(&self, logits: &[f32], context: &[Token], path: &[Token]) -> Dist {
        Dist::point(self.0.top(logits, context, path, 1).first().map_or(0, |&(token, _)| token))
    }

    fn top(&self, logits: &[f32], context: &[Token], path: &[Token], n: usize) -> Vec<(Token, f32)> {
        self.0.top(logits, context, path, n)
    }
}

/// For trees in which nothing is drawn. An inner drafter that draws all the same gets the likeliest token.
struct NoDice;

impl Dice for NoDice {
    fn pick(&mut self, weights: &[f64]) -> usize {
        (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b])).unwrap_or(0)
    }
}
