//! Drafter `model`: a smaller model that shares the target's vocabulary guesses for it
//! (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318).
//!
//! Each pass scores the tree's most promising nodes at once and gives each of them children: when
//! the run is greedy, the likeliest tokens; otherwise tokens drawn without replacement, so that the
//! first child is what a chain would have drawn and its siblings catch what it misses (Sequoia, arXiv
//! 2402.12374). At a single node, one draw beside fixed choices accepts more (Hu et al., arXiv
//! 2502.18779), but then the likelihood is split and no child carries a long branch so well. With
//! the bundled models at T = 0.8, trees of 16 nodes accept a tenth more per round than chains of 16
//! (`benches/runs/2026-11-22-xeon-2c-acceptance`).
//!
//! ```toml
//! [drafter]
//! kind = "model"
//! model = "draft.gguf"   # relative to this file
//! # gpu_layers = 0       # where it runs, if not as the target: also device, threads
//! ```
//!
//! * **Helps** where its passes cost a small part of the target's and it often agrees: a relative of a tenth of the size
//!   or less, trained on the same text. A vocabulary that differs in padding only will do; `foretoken check` compares.
//! * **Hurts** where it is a third of the target's size, or where the target's pass over n tokens costs about n plain
//!   steps; sampling at a high temperature, it agrees less.
//! * **Memory**: its file, mapped or, where the CPU backend repacks its type, in memory; a key-value cache for the
//!   target's context; and `4 * n_vocab` bytes for each node that it scored in a round.
//!
//! This is the one place that loops over a draft model: drafters that prepare a model of their own
//! (a quantised copy, the first layers) draft through [`ModelDrafter`], and those that come by its rows in another way
//! through [`draft`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::path::PathBuf;

use foretoken_drafter::{
    Commit, DraftError, DraftRequest, Drafter, Host, LanguageModel, ModelSpec, NodeId, Scores, SeqId, TokenTree,
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
    Ok(Box::new(ModelDrafter::new(open(settings, host)?)))
}

/// Open the draft model that the settings of this drafter name.
///
/// # Errors
/// As for [`build`].
pub fn open(settings: &str, host: &mut dyn Host) -> Result<Box<dyn LanguageModel>, DraftError> {
    let s: Settings = toml::from_str(settings).map_err(DraftError::settings)?;
    host.open_model(&ModelSpec { path: s.model, gpu_layers: s.gpu_layers, device: s.device, threads: s.threads })
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
        draft(request, tree, &mut *self.model)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        read_prompt(&mut *self.model, commit)
    }

    // At the end of a text its cache stays: a model reads only what the next one does not share.
    fn forget(&mut self, seq: SeqId) {
        self.model.end(seq);
    }
}

/// Where the logits of a draft model come from: the model, or one who has them already.
pub trait Rows {
    /// How many tokens (context and tree together) fit.
    fn n_ctx(&self) -> usize;

    /// One row of logits for each of `nodes`, no node of a tree twice.
    ///
    /// # Errors
    /// The model failed.
    fn rows(
        &mut self,
        request: &DraftRequest<'_>,
        tree: &TokenTree,
        nodes: &[NodeId],
    ) -> Result<Scores<'_>, DraftError>;
}

impl Rows for dyn LanguageModel {
    fn n_ctx(&self) -> usize {
        LanguageModel::n_ctx(self)
    }

    fn rows(
        &mut self,
        request: &DraftRequest<'_>,
        tree: &TokenTree,
        nodes: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        self.score(request.seq, request.context, tree, nodes)
    }
}

/// Grow `tree` from a draft model's logits until it is full or promises no more.
///
/// # Errors
/// The model failed.
pub fn draft(
    request: &DraftRequest<'_>,
    tree: &mut TokenTree,
    model: &mut (impl Rows + ?Sized),
) -> Result<(), DraftError> {
    // The draft model's context may be shorter than the target's: past it, no guess.
    if request.context.len() + tree.shape().max_nodes > model.n_ctx() {
        return Ok(());
    }
    loop {
        let nodes = tree.next_to_expand();
        if nodes.is_empty() {
            return Ok(());
        }
        let scores = model.rows(request, tree, &nodes)?;
        for (i, &node) in nodes.iter().enumerate() {
            grow(request, tree, node, scores.row(i));
        }
    }
}

/// Read the prompt before the first round, so that drafting costs the same in every round; unless that is to wait.
///
/// # Errors
/// The model failed.
pub fn read_prompt(model: &mut dyn LanguageModel, commit: &Commit<'_>) -> Result<(), DraftError> {
    if let (None, false, Some(&root)) = (&commit.round, commit.defer, commit.context.last()) {
        if commit.context.len() <= model.n_ctx() {
            model.score(commit.seq, commit.context, &TokenTree::bare(root), &[])?;
        }
    }
    Ok(())
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
