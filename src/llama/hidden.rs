//! What heads are trained from: the target's hidden states over a text, and the matrix that turns a state into logits.

use std::sync::Arc;

use foretoken_drafter::{LanguageModel, NodeId, SeqId, Token};
use llama_cpp_sys_2 as sys;

use super::context::{Context, ContextOptions};
use super::gguf::GgufFile;
use super::model::Model;
use super::probe;
use super::scorer::Scorer;
use super::LlamaError;

/// Reads texts and gives the hidden state at every token.
pub struct Collector {
    scorer: Scorer,
    path: String,
}

/// Tokens that are read in one pass: enough to read the weights seldom, few enough to keep their logits small.
const AT_ONCE: usize = 64;

impl Collector {
    /// A collector with a context of its own.
    ///
    /// # Errors
    /// llama.cpp cannot make the context.
    pub fn new(model: Arc<Model>, threads: usize) -> Result<Collector, LlamaError> {
        let path = model.path().display().to_string();
        let n_ctx = model.n_ctx_train().clamp(1, 4096);
        let options = ContextOptions { n_ctx, max_nodes: AT_ONCE, max_leaves: 1, threads, ..ContextOptions::default() };
        let mut scorer = Scorer::new(Context::new(model, &options)?);
        scorer.keep_hidden(true);
        Ok(Collector { scorer, path })
    }

    /// Most tokens of a text.
    pub fn n_ctx(&self) -> usize {
        self.scorer.n_ctx()
    }

    /// The state at every token of a new text, after the last layer and the final norm: `tokens.len()` rows of `n_embd`
    /// numbers.
    ///
    /// # Errors
    /// The text is longer than the context, or the model failed.
    pub fn states(&mut self, tokens: &[Token]) -> Result<Vec<f32>, LlamaError> {
        let fail = |reason: String| LlamaError::Context { path: self.path.clone(), reason };
        let mut states = Vec::new();
        self.scorer.end(SeqId(0));
        for end in (AT_ONCE..tokens.len()).step_by(AT_ONCE).chain([tokens.len()]).filter(|&end| end > 0) {
            let n = end - (end - 1) / AT_ONCE * AT_ONCE;
            let (context, tree) = probe::chain(&self.scorer, &tokens[..end], n).map_err(|e| fail(e.to_string()))?;
            let nodes: Vec<NodeId> = tree.ids().collect();
            let scores = self.scorer.score(SeqId(0), context, &tree, &nodes).map_err(|e| fail(e.to_string()))?;
            (0..n).for_each(|i| states.extend_from_slice(scores.hidden(i).unwrap_or_default()));
        }
        Ok(states)
    }
}

/// The matrix that turns the hidden state into logits, `n_vocab` rows of `n_embd` numbers, from the model's file.
///
/// # Errors
/// The file has none of that shape, or stores it in a way that cannot be read.
pub fn output_matrix(model: &Arc<Model>) -> Result<Vec<f32>, LlamaError> {
    let path = model.path().display().to_string();
    let fail = |reason: &str| LlamaError::Load { path: path.clone(), reason: reason.to_owned() };
    let file = GgufFile::open(model.path())?;
    let find = |name| file.shards().find_map(|shard| Some((shard, shard.tensor(name)?)));
    let found = ["output.weight", "token_embd.weight"].into_iter().find_map(find);
    let (shard, tensor) = found.ok_or_else(|| fail("it has no output matrix"))?;
    let n_embd = usize::try_from(model.inner().n_embd()).unwrap_or(0);
    let n = n_embd * model.n_vocab();
    if tensor.elements() != n as u64 || n_embd == 0 {
        return Err(fail("its output matrix is not vocabulary times width"));
    }
    let data = shard.data(tensor).ok_or_else(|| fail("its output matrix lies outside the file"))?;
    let mut matrix = vec![0f32; n];
    // SAFETY: the type is one that ggml knows, since the model was loaded from this file.
    let (row_size, to_float) = unsafe {
        let kind = tensor.kind.id() as sys::ggml_type;
        (sys::ggml_row_size(kind, n_embd as i64), (*sys::ggml_get_type_traits(kind)).to_float)
    };
    if data.len() != row_size * model.n_vocab() {
        return Err(fail("its output matrix has another size than its type says"));
    }
    match to_float {
        // SAFETY: each row of the source has row_size bytes and each of the matrix n_embd numbers; a row is whole blocks.
        Some(convert) => {
            data.chunks_exact(row_size).zip(matrix.chunks_exact_mut(n_embd)).for_each(|(from, to)| unsafe {
                convert(from.as_ptr().cast(), to.as_mut_ptr(), n_embd as i64);
            })
        }
        None => {
            for (number, bytes) in matrix.iter_mut().zip(data.chunks_exact(4)) {
                *number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
    }
    Ok(matrix)
}
