//! Which layers of a model draft best for the whole of it? Tries sets of layers on a text and predicts the speed of each.
//!
//! Nothing is modelled but the walk: a set's own first choices at every place of the text are compared with the whole
//! model's, and a chain of each length is walked along them as a greedy run would. Costs are measured on this machine.
//! First come the first k layers; then, where the architecture's layers are all alike, the best set is changed by one
//! layer at a time for as long as that helps (Draft & Verify, arXiv 2309.08168, searches the same space).

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use foretoken_drafter::{DraftError, LanguageModel, NodeId, Scores, SeqId, Token, TokenTree};

use super::context::{Context, ContextOptions};
use super::gguf::GgufFile;
use super::model::{LoadOptions, Model};
use super::probe::{chain, cost_curve};
use super::quantize::{can_keep_any_layers, quantize, Precision, Quantize, QuantizeError};
use super::scorer::Scorer;

/// A set of layers that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The layers kept.
    pub layers: Vec<u32>,
    /// Share of places where its first choice is the whole model's.
    pub agreement: f64,
    /// Cost of one drafted token, in steps of the whole model.
    pub cost: f64,
    /// Predicted speed with the best length of chain, plain decoding being 1.
    pub speed: f64,
    /// That length; 0 if plain decoding is faster.
    pub length: usize,
}

/// What to search with.
pub struct Search<'a> {
    /// The model's file.
    pub target: &'a Path,
    /// The text, in tokens.
    pub text: &'a [Token],
    /// Most sets to try.
    pub tries: usize,
    /// Threads for the CPU part.
    pub threads: usize,
    /// Where the models that are tried are kept, one at a time.
    pub folder: &'a Path,
    /// Set when the user wants to cancel.
    pub cancelled: &'a AtomicBool,
}

/// Tokens of the text that are compared, and how many in one pass.
const COMPARED: usize = 1024;
const AT_ONCE: usize = 64;
/// Longest chain considered.
const LONGEST: usize = 8;

impl Search<'_> {
    /// Try sets of layers, telling `tell` of each, and return all of them, the fastest first.
    ///
    /// # Errors
    /// The text is too short, a set cannot be made, a model failed, or the user cancelled.
    pub fn run(&self, tell: &mut dyn FnMut(&Tried)) -> Result<Vec<Tried>, DraftError> {
        let model = Model::load(self.target, &LoadOptions::default()).map_err(DraftError::settings)?;
        let file = GgufFile::open(self.target).map_err(DraftError::settings)?;
        let all = file.network("block_count").unwrap_or(0);
        let any = can_keep_any_layers(&file);
        drop(file);
        if all < 2 {
            return Err(DraftError::settings(format!("{} has {all} layers; none to leave out", self.target.display())));
        }
        if self.text.len() < 4 * AT_ONCE {
            let n = self.text.len();
            return Err(DraftError::settings(format!("the text has {n} tokens; give {} or more", 4 * AT_ONCE)));
        }
        let mut whole = self.open(model)?;
        let wanted = self.choices(&mut whole)?;
        let curve = cost_curve(&mut whole, &self.text[..4 * AT_ONCE], LONGEST + 1, 9)?;
        let mut state = Progress { wanted, curve, seen: HashSet::new(), tried: Vec::new() };

        let step = (all - 1).div_ceil(FIRST_K).max(1);
        for k in (1..all).step_by(step as usize) {
            self.attempt((0..k).collect(), &mut state, tell)?;
        }
        while let (true, Some(best)) = (any, state.best()) {
            let before = state.tried.len();
            for layers in neighbours(&best.layers, all) {
                if state.tried.len() < self.tries {
                    self.attempt(layers, &mut state, tell)?;
                }
            }
            if state.tried.len() == before || state.best().as_ref() == Some(&best) {
                break;
            }
        }
        state.tried.sort_by(|a, b| b.speed.total_cmp(&a.speed));
        Ok(state.tried)
    }

    fn attempt(&self, layers: Vec<u32>, state: &mut Progress, tell: &mut dyn FnMut(&Tried)) -> Result<(), DraftError> {
        if layers.is_empty() || !state.seen.insert(layers.clone()) {
            return Ok(());
        }
        let folder = tempfile::Builder::new().prefix(".search.").tempdir_in(self.folder);
        let folder =
            folder.map_err(|e| DraftError::settings(format!("cannot write in {}: {e}", self.folder.display())))?;
        let path = folder.path().join("exit.gguf");
        let options =
            Quantize { precision: Precision::Copy, threads: 0, layers: Some(layers.clone()), requantize: false };
        quantize(self.target, &path, &options).map_err(|e| match e {
            QuantizeError::Cancelled { .. } => cancelled(),
            e => DraftError::settings(e),
        })?;
        let model = Model::load(&path, &LoadOptions::default()).map_err(DraftError::settings)?;
        let mut exit = self.open(model)?;
        let choices = self.choices(&mut exit)?;
        let agrees: Vec<bool> = choices.iter().zip(&state.wanted).map(|(a, b)| a == b).collect();
        let pass = cost_curve(&mut exit, &self.text[..4 * AT_ONCE], 1, 9)?[0];
        let tried = predict(layers, &agrees, pass, &state.curve);
        tell(&tried);
        state.tried.push(tried);
        Ok(())
    }

    fn open(&self, model: Arc<Model>) -> Result<Cancellable<'_>, DraftError> {
        let n_ctx = model.n_ctx_train().clamp(2 * AT_ONCE, 4096);
        let threads = self.threads;
        let options = ContextOptions { n_ctx, max_nodes: AT_ONCE, max_leaves: 1, threads, ..ContextOptions::default() };
        let model = Scorer::new(Context::new(model, &options).map_err(DraftError::settings)?);
        Ok(Cancellable { model, cancelled: self.cancelled })
    }

    /// The model's first choice after every token of the text, read in windows that fit its context.
    fn choices(&self, model: &mut dyn LanguageModel) -> Result<Vec<usize>, DraftError> {
        let text = &self.text[..self.text.len().min(COMPARED)];
        let window = model.n_ctx() / AT_ONCE * AT_ONCE;
        let mut choices = Vec::with_capacity(text.len());
        for part in text.chunks(window) {
            model.end(SeqId(0));
            for end in (AT_ONCE..part.len()).step_by(AT_ONCE).chain([part.len()]) {
                let n = end - (end - 1) / AT_ONCE * AT_ONCE;
                let (context, tree) = chain(model, &part[..end], n)?;
                let nodes: Vec<NodeId> = tree.ids().collect();
                let scores = model.score(SeqId(0), context, &tree, &nodes)?;
                choices.extend((0..n).map(|i| first_choice(scores.row(i))));
            }
        }
        Ok(choices)
    }
}

/// A model that refuses to go on when the user has cancelled.
struct Cancellable<'a> {
    model: Scorer,
    cancelled: &'a AtomicBool,
}

impl LanguageModel for Cancellable<'_> {
    fn score(
        &mut self,
        seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(cancelled()),
            false => self.model.score(seq, context, tree, new),
        }
    }

    fn n_vocab(&self) -> usize {
        self.model.n_vocab()
    }

    fn n_ctx(&self) -> usize {
        self.model.n_ctx()
    }

    fn end(&mut self, seq: SeqId) {
        self.model.end(seq);
    }
}

fn cancelled() -> DraftError {
    DraftError::failed("cancelled; nothing was written")
}

/// At most this many of the first-k sets.
const FIRST_K: u32 = 8;

struct Progress {
    wanted: Vec<usize>,
    curve: Vec<Duration>,
    seen: HashSet<Vec<u32>>,
    tried: Vec<Tried>,
}

impl Progress {
    fn best(&self) -> Option<Tried> {
        self.tried.iter().max_by(|a, b| a.speed.total_cmp(&b.speed)).cloned()
    }
}

/// The sets with one layer more or less.
fn neighbours(layers: &[u32], all: u32) -> Vec<Vec<u32>> {
    let less = layers.iter().map(|gone| layers.iter().copied().filter(|layer| layer != gone).collect());
    let more = (0..all).filter(|layer| !layers.contains(layer)).map(|new| {
        let mut layers = layers.to_vec();
        layers.push(new);
        layers.sort_unstable();
        layers
    });
    less.chain(more.filter(|layers| layers.len() < all as usize)).collect()
}

/// The speed of the best chain, walked along the places where the set agrees with the whole.
fn predict(layers: Vec<u32>, agrees: &[bool], pass: Duration, curve: &[Duration]) -> Tried {
    let plain = curve[0].as_secs_f64().max(1e-9);
    let cost = pass.as_secs_f64() / plain;
    let agreement = agrees.iter().filter(|&&yes| yes).count() as f64 / agrees.len().max(1) as f64;
    let mut tried = Tried { layers, agreement, cost, speed: 1.0, length: 0 };
    for (length, pass) in curve.iter().enumerate().skip(1) {
        let round = length as f64 * cost + pass.as_secs_f64() / plain;
        let speed = tokens_per_round(agrees, length) / round;
        if speed > tried.speed || (tried.length == 0 && length == 1) {
            (tried.speed, tried.length) = (speed, length);
        }
    }
    if tried.speed < 1.0 {
        tried.length = 0;
    }
    tried
}

fn tokens_per_round(agrees: &[bool], length: usize) -> f64 {
    let (mut at, mut rounds) = (0, 0usize);
    while at < agrees.len() {
        at += 1 + agrees[at..].iter().take(length).take_while(|&&yes| yes).count();
        rounds += 1;
    }
    agrees.len() as f64 / rounds.max(1) as f64
}

fn first_choice(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_walks_as_far_as_the_set_agrees() {
        assert_eq!(tokens_per_round(&[true; 12], 3), 4.0);
        assert_eq!(tokens_per_round(&[false; 12], 3), 1.0);
        let halves: Vec<bool> = (0..12).map(|i| i % 2 == 0).collect();
        assert_eq!(tokens_per_round(&halves, 3), 2.0);
    }

    #[test]
    fn the_length_weighs_agreement_against_cost() {
        let flat: Vec<Duration> = (0..9).map(|_| Duration::from_millis(100)).collect();
        let steep: Vec<Duration> = (1..10).map(|n| Duration::from_millis(100 * n)).collect();
        let sure = [true; 90];
        assert_eq!(predict(vec![0], &sure, Duration::from_millis(1), &flat).length, 8);
        assert_eq!(predict(vec![0], &sure, Duration::from_millis(50), &steep).length, 0);
        let never = predict(vec![0], &[false; 90], Duration::from_millis(1), &flat);
        assert!(never.length == 0 && never.speed < 1.0 && never.agreement == 0.0, "{never:?}");
    }

    #[test]
    fn neighbours_differ_by_one_layer() {
        let found = neighbours(&[0, 2], 4);
        assert_eq!(found, [vec![2], vec![0], vec![0, 1, 2], vec![0, 2, 3]]);
        assert!(neighbours(&[0, 1, 2], 4).iter().all(|layers| layers.len() < 4));
    }
}
