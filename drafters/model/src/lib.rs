//! Drafter `model`: a smaller model that shares the target's vocabulary guesses for it
//! (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318).
//!
//! Each pass scores the tree's most promising nodes at once and gives each of them children: when
//! the run is greedy, the likeliest tokens; otherwise tokens drawn without replacement, so that the
//! first child is what a chain would have drawn and its siblings catch what it misses (Sequoia, arXiv
//! 2402.12374). At a single node, one draw beside fixed choices accepts more (Hu et al., arXiv
//! 2502.18779), but then the likelihood is split and no child carries a long branch so well. Whether trees
//! beat chains here is not settled: see `benches/runs`.
//!
//! This is the one place that loops over a draft model: drafters that prepare a model of their own
//! (a quantised copy, the first layers) draft through [`ModelDrafter`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::path::PathBuf;

use foretoken_drafter::{
    Commit, DraftError, DraftRequest, Drafter, Host, LanguageModel, ModelSpec, NodeId, SeqId, TokenTree,
};
use serde::Deserialize;

/// The `[drafter]` table of `kind = "model"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    model: PathBuf,
    gpu_layers: Option<u32>,
    device: Option<String>,
    threads: Option<u32>,
}

/// Build the drafter from its settings.
///
/// # Errors
/// The settings are wrong, or the model cannot be opened or has another vocabulary.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let s: Settings = toml::from_str(settings).map_err(DraftError::settings)?;
    let spec = ModelSpec { path: s.model, gpu_layers: s.gpu_layers, device: s.device, threads: s.threads };
    Ok(Box::new(ModelDrafter::new(host.open_model(&spec)?)))
}

/// Drafts with any model of the target's vocabulary.
pub struct ModelDrafter {
    model: Box<dyn LanguageModel>,
}

impl ModelDrafter {
    /// Draft with `model`.
    pub fn new(model: Box<dyn LanguageModel>) -> ModelDrafter {
        ModelDrafter { model }
    }
}

impl Drafter for ModelDrafter {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        // The draft model's context may be shorter than the target's: past it, no guess.
        if request.context.len() + tree.shape().max_nodes > self.model.n_ctx() {
            return Ok(());
        }
        loop {
            let nodes = tree.next_to_expand();
            if nodes.is_empty() {
                return Ok(());
            }
            let scores = self.model.score(request.seq, request.context, tree, &nodes)?;
            for (i, &node) in nodes.iter().enumerate() {
                grow(request, tree, node, scores.row(i));
            }
        }
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        // Read the prompt before the first round, so that drafting costs the same in every round.
        if let (None, Some(&root)) = (&commit.round, commit.context.last()) {
            if commit.context.len() <= self.model.n_ctx() {
                self.model.score(commit.seq, commit.context, &TokenTree::bare(root), &[])?;
            }
        }
        Ok(())
    }

    fn end(&mut self, seq: SeqId) {
        self.model.end(seq);
    }
}

/// Give `node` its children from one row of the draft model's logits.
fn grow(request: &DraftRequest<'_>, tree: &mut TokenTree, node: NodeId, logits: &[f32]) {
    let path = tree.path(node);
    if request.law.is_greedy() {
        for (token, probability) in request.law.top(logits, request.context, &path, tree.width().min(tree.room())) {
            tree.add(node, token, probability);
        }
        return;
    }
    // One draw; the tree draws its siblings later, if they promise more than another layer.
    let _ = tree.sample(node, request.law.dist(logits, request.context, &path), 1);
}
