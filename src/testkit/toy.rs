//! Models whose probabilities are known: logits are a hash of the last few tokens.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use foretoken_drafter::{
    Companions, Derivation, DraftError, Drafter, Heads, Host, LanguageModel, ModelSpec, NodeId, Scores, SeqId,
    TargetInfo, Token, TokenTree,
};

use crate::registry::Registry;

/// A language model over a tiny vocabulary. The same seed is the same model.
#[derive(Clone, Debug)]
pub struct ToyModel {
    n_vocab: usize,
    n_ctx: usize,
    order: usize,
    sharpness: f32,
    seed: u64,
    /// A second seed and its share in the logits: a draft model that resembles its target.
    noise: Option<(u64, f32)>,
    rows: Vec<f32>,
    /// The last `order` tokens at every scored node stand for its hidden state; `None`: not asked for.
    hidden: Option<Vec<f32>>,
    gives_hidden: bool,
}

impl ToyModel {
    /// A model whose next token depends on the last `order` tokens. Logits are spread over
    /// `sharpness`: 1 is close to uniform, 8 nearly greedy.
    pub fn new(n_vocab: usize, order: usize, sharpness: f32, seed: u64) -> ToyModel {
        let (n_ctx, noise, rows) = (usize::MAX, None, Vec::new());
        ToyModel { n_vocab, n_ctx, order, sharpness, seed, noise, rows, hidden: None, gives_hidden: true }
    }

    /// The same model with a context of `n_ctx` tokens.
    pub fn with_context(mut self, n_ctx: usize) -> ToyModel {
        self.n_ctx = n_ctx;
        self
    }

    /// The same model, but one that cannot give hidden states.
    pub fn without_hidden(mut self) -> ToyModel {
        self.gives_hidden = false;
        self
    }

    /// A model like this one, `share` of whose logits (0 to 1) come from another seed.
    pub fn imitated(&self, share: f32, seed: u64) -> ToyModel {
        ToyModel { noise: Some((seed, share)), ..self.clone() }
    }

    /// The logits after `text`.
    pub fn logits(&self, text: &[Token]) -> Vec<f32> {
        let key = &text[text.len().saturating_sub(self.order)..];
        (0..self.n_vocab as Token)
            .map(|token| {
                let mine = unit(self.seed, key, token);
                let mixed =
                    self.noise.map_or(mine, |(seed, share)| mine * (1.0 - share) + unit(seed, key, token) * share);
                mixed * self.sharpness
            })
            .collect()
    }
}

impl LanguageModel for ToyModel {
    fn score(
        &mut self,
        _seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        if context.len() + tree.len() - 1 > self.n_ctx {
            return Err(DraftError::failed("the context is full"));
        }
        let keep = context.len().saturating_sub(self.order);
        let mut rows = Vec::with_capacity(new.len() * self.n_vocab);
        for &node in new {
            let mut text = context[keep..].to_vec();
            text.extend(tree.path(node));
            rows.extend(self.logits(&text));
        }
        self.rows = rows;
        let scores = Scores::new(self.rows.chunks(self.n_vocab).collect());
        let (width, before) = (self.order.max(1), context.len() - 1);
        let Some(hidden) = &mut self.hidden else { return Ok(scores) };
        hidden.clear();
        let mut state = |text: &[Token]| {
            let last = &text[text.len().saturating_sub(width)..];
            hidden.extend((last.len()..width).map(|_| 0.0));
            hidden.extend(last.iter().map(|&token| token as f32));
        };
        match new {
            [] if before > 0 => state(&context[..before]),
            _ => new.iter().for_each(|&node| state(&[context, &tree.path(node)].concat())),
        }
        Ok(scores.with_hidden(hidden.chunks(width).collect()))
    }

    fn keep_hidden(&mut self, keep: bool) -> bool {
        self.hidden = (keep && self.gives_hidden).then(Vec::new);
        self.hidden.is_some()
    }

    fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    fn n_ctx(&self) -> usize {
        self.n_ctx
    }
}

/// A number from 0 to 1 that depends on everything given (splitmix64 over the parts).
fn unit(seed: u64, key: &[Token], token: Token) -> f32 {
    let mut state = seed;
    for part in key.iter().chain([&token]) {
        state = mix(state ^ u64::from(*part).wrapping_add(1));
    }
    (mix(state) >> 40) as f32 / (1u64 << 24) as f32
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A host whose model files are toys, known by name.
pub struct ToyHost<'a> {
    registry: &'a Registry,
    target: TargetInfo,
    models: HashMap<String, ToyModel>,
}

impl<'a> ToyHost<'a> {
    /// A host for drafters of `target`.
    pub fn new(registry: &'a Registry, target: &ToyModel) -> ToyHost<'a> {
        let target = TargetInfo {
            n_vocab: target.n_vocab,
            n_embd: target.order.max(1),
            n_layer: 4,
            n_ctx: target.n_ctx,
            tokenizer: 1,
        };
        ToyHost { registry, target, models: HashMap::new() }
    }

    /// Let settings open `model` under `name`.
    pub fn with(mut self, name: &str, model: ToyModel) -> ToyHost<'a> {
        self.models.insert(name.to_owned(), model);
        self
    }
}

impl Host for ToyHost<'_> {
    fn target(&self) -> TargetInfo {
        self.target.clone()
    }

    fn open_model(&mut self, spec: &ModelSpec) -> Result<Box<dyn LanguageModel>, DraftError> {
        let name = spec.path.to_string_lossy();
        match self.models.get(name.as_ref()) {
            Some(model) => Ok(Box::new(model.clone())),
            None => Err(DraftError::settings(format!("there is no toy model `{name}`"))),
        }
    }

    fn derive(&mut self, _: &Derivation) -> Result<PathBuf, DraftError> {
        match self.models.contains_key(DERIVED) {
            true => Ok(DERIVED.into()),
            false => Err(DraftError::settings("nothing can be made from this toy")),
        }
    }

    fn companions(&self) -> Companions {
        let models = self.models.keys().filter(|name| *name == "draft").map(PathBuf::from).collect();
        Companions { models, ..Companions::default() }
    }

    fn open_heads(&mut self, path: &Path) -> Result<Box<dyn Heads>, DraftError> {
        let name = path.to_string_lossy();
        match self.models.get(name.as_ref()) {
            Some(model) => Ok(Box::new(ToyHeads { model: model.clone(), rows: Vec::new() })),
            None => Err(DraftError::settings(format!("there are no toy heads `{name}`"))),
        }
    }

    fn build(&mut self, kind: &str, settings: &str) -> Result<Box<dyn Drafter>, DraftError> {
        let registry = self.registry;
        registry.build(kind, settings, self)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

/// The name under which a toy stands for whatever is derived from the target.
pub const DERIVED: &str = "derived";

/// Three heads: what a toy model says at the end of its own likeliest continuations of a hidden state.
struct ToyHeads {
    model: ToyModel,
    rows: Vec<f32>,
}

impl Heads for ToyHeads {
    fn n_heads(&self) -> usize {
        3
    }

    fn evaluate(&mut self, hidden: &[f32]) -> Result<Scores<'_>, DraftError> {
        let mut text: Vec<Token> = hidden.iter().map(|&token| token as Token).collect();
        self.rows.clear();
        for _ in 0..self.n_heads() {
            let next = self.model.logits(&text);
            let best = (0..next.len()).max_by(|&a, &b| next[a].total_cmp(&next[b])).unwrap_or(0);
            text.push(best as Token);
            self.rows.extend(self.model.logits(&text));
        }
        Ok(Scores::new(self.rows.chunks(self.model.n_vocab).collect()))
    }
}
