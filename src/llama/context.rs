//! A llama.cpp context: a model's cache and compute buffers, with the few calls we make on them.
//!
//! It keeps its model alive, so no lifetimes reach the outside. Sizes that llama.cpp would abort on
//! are refused here.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use super::cache::{Entry, MemoryCall, Seq};
use super::gguf::GgufFile;
use super::memory::{human, Dimensions, Need};
use super::model::Model;
use super::threads::ThreadCount;
use super::{log, memory, LlamaError};
use crate::config::KvType;

/// How to make a context.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextOptions {
    /// Tokens that fit: text and tree together.
    pub n_ctx: usize,
    /// Largest tree, root not counted.
    pub max_nodes: usize,
    /// Most leaves of a tree.
    pub max_leaves: usize,
    /// Threads for the CPU part.
    pub threads: usize,
    /// Type of the keys in the cache.
    pub type_k: KvType,
    /// Type of the values in the cache.
    pub type_v: KvType,
    /// Flash attention; `None`: llama.cpp decides.
    pub flash_attention: Option<bool>,
}

impl Default for ContextOptions {
    fn default() -> ContextOptions {
        ContextOptions {
            n_ctx: 4096,
            max_nodes: 16,
            max_leaves: 16,
            threads: default_threads(),
            type_k: KvType::F16,
            type_v: KvType::F16,
            flash_attention: None,
        }
    }
}

/// Number of CPU cores that this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Most sequences of a context (`LLAMA_MAX_SEQ`), hence most leaves of a tree plus one.
pub const MAX_SEQS: usize = 256;
/// Only the state of recurrent layers: the cache of others can go back by itself (`LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY`).
const PARTIAL_ONLY: sys::llama_state_seq_flags = 1;
/// Most tokens of one decode.
const MAX_BATCH: usize = 512;

/// Time that this process has spent inside llama.cpp's calls on contexts: decodes, changes of the
/// cache, waiting for logits. All contexts count, a draft model's too, because what a run spends
/// outside of them is the question that this answers.
pub fn time_in_llama() -> Duration {
    Duration::from_nanos(NANOS_IN_LLAMA.load(Ordering::Relaxed))
}

static NANOS_IN_LLAMA: AtomicU64 = AtomicU64::new(0);

/// Run `call` and count its time: two readings of the clock, some 50 ns.
fn timed<T>(call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = call();
    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    NANOS_IN_LLAMA.fetch_add(nanos, Ordering::Relaxed);
    result
}

fn ggml_type(kv_type: KvType) -> sys::ggml_type {
    match kv_type {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        KvType::Iq4Nl => sys::GGML_TYPE_IQ4_NL,
    }
}

/// A context.
pub struct Context {
    ptr: NonNull<sys::llama_context>,
    model: Arc<Model>,
    n_ctx: usize,
    n_batch: usize,
    n_seqs: usize,
    n_outputs: usize,
    hidden: bool,
    threads: usize,
    follows: Option<ThreadCount>,
    batch: Batch,
}

// SAFETY: a llama_context may be used from any thread, though from one at a time only; Context is not
// Sync.
unsafe impl Send for Context {}

impl Context {
    /// A context of `model`.
    ///
    /// # Errors
    /// A size or type that llama.cpp cannot serve, or too little memory.
    pub fn new(model: Arc<Model>, options: &ContextOptions) -> Result<Context, LlamaError> {
        let fail = |reason: String| LlamaError::Context { path: model.path().display().to_string(), reason };
        if options.n_ctx == 0 || options.n_ctx > i32::MAX as usize - 256 {
            return Err(fail(format!("a context of {} tokens is impossible", options.n_ctx)));
        }
        // llama.cpp rounds up to 256 but cuts the batch to what was asked, so round first.
        let rounded = options.n_ctx.div_ceil(256) * 256;
        let n_seqs = if model.is_recurrent() { 1 } else { (options.max_leaves + 1).min(MAX_SEQS) };
        let n_batch = rounded.min(MAX_BATCH);
        if options.max_nodes + 1 > n_batch / 2 {
            let most = n_batch / 2 - 1;
            return Err(fail(format!(
                "a tree of {} nodes is too large for a context of {} tokens; set speculation.max_nodes to at most \
                 {most}, or a larger target.context",
                options.max_nodes, options.n_ctx
            )));
        }
        if model.is_recurrent() && options.max_leaves > 1 {
            return Err(fail("a recurrent model scores no trees, only chains; set speculation.width = 1".to_owned()));
        }
        enough_memory(&model, options).map_err(fail)?;
        // SAFETY: a plain constructor of a C struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = rounded as u32;
        params.n_batch = n_batch as u32;
        params.n_ubatch = n_batch as u32;
        params.n_seq_max = n_seqs as u32;
        // More outputs than this abort; every node and the root may be one.
        let n_outputs = (options.max_nodes + 1).max(n_seqs);
        params.n_outputs_max = n_outputs as u32;
        params.n_outputs_max_per_seq = 0;
        params.n_threads = options.threads as i32;
        params.n_threads_batch = options.threads as i32;
        params.type_k = ggml_type(options.type_k);
        params.type_v = ggml_type(options.type_v);
        params.flash_attn_type = match options.flash_attention {
            None => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Some(true) => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            Some(false) => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        params.kv_unified = true;
        // A file may ask for one state for a whole text, as embedding models do; every token's is wanted here.
        params.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
        params.swa_full = true;
        params.no_perf = true;
        log::clear();
        // SAFETY: the model is loaded and outlives the context, which holds it.
        let ptr = unsafe { sys::llama_init_from_model(model.as_ptr(), params) };
        let Some(ptr) = NonNull::new(ptr) else {
            let reason = log::last_errors().unwrap_or_else(|| "out of memory, or settings that do not fit".to_owned());
            return Err(fail(match options.type_k.is_quantised() || options.type_v.is_quantised() {
                true => format!("{reason}; try target.kv_type = \"f16\""),
                false => reason,
            }));
        };
        Ok(Context {
            ptr,
            model,
            n_ctx: options.n_ctx,
            n_batch,
            n_seqs,
            n_outputs,
            hidden: false,
            threads: options.threads,
            follows: None,
            batch: Batch::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Most tokens of one decode.
    pub fn n_batch(&self) -> usize {
        self.n_batch
    }

    /// Number of sequences.
    pub fn n_seqs(&self) -> usize {
        self.n_seqs
    }

    /// Change the number of threads from the next decode on. A pass of one token and one of several
    /// get the same: they are compared.
    pub fn set_threads(&mut self, threads: usize) {
        let n = i32::try_from(threads.max(1)).unwrap_or(1);
        // SAFETY: the context is alive.
        unsafe { sys::llama_set_n_threads(self.ptr.as_ptr(), n, n) };
        self.threads = threads;
    }

    /// Compute with as many threads as `count` says, from the next decode on.
    pub fn follow(&mut self, count: ThreadCount) {
        self.follows = Some(count);
    }

    /// Whether decodes give hidden states too, from the next one on. Every token of a batch is an output then, so a
    /// batch is no longer than the outputs this context was made for.
    pub fn set_hidden(&mut self, on: bool) {
        if self.hidden != on {
            self.hidden = on;
            // SAFETY: the context is alive.
            unsafe { sys::llama_set_embeddings(self.ptr.as_ptr(), on) };
        }
    }

    /// Change what the sequences own. `false`: a removal was refused (the model cannot go back), and
    /// the cache must be cleared.
    pub fn call(&mut self, calls: &[MemoryCall]) -> bool {
        // SAFETY: the context is alive; sequence ids come from the cache, which was given n_seqs.
        timed(|| unsafe {
            let memory = sys::llama_get_memory(self.ptr.as_ptr());
            calls.iter().all(|call| match *call {
                MemoryCall::Remove { seq, from } => sys::llama_memory_seq_rm(memory, seq, from as i32, -1),
                MemoryCall::Copy { from, to, start, end } => {
                    sys::llama_memory_seq_cp(memory, from, to, start as i32, end as i32);
                    true
                }
            })
        })
    }

    /// What a recurrent model remembers of the text so far; empty if it cannot be had.
    pub fn save(&self, seq: Seq, into: &mut Vec<u8>) {
        let ptr = self.ptr.as_ptr();
        // SAFETY: the context is alive, and the buffer is as long as said.
        timed(|| unsafe {
            into.resize(sys::llama_state_seq_get_size_ext(ptr, seq, PARTIAL_ONLY), 0);
            let written = sys::llama_state_seq_get_data_ext(ptr, into.as_mut_ptr(), into.len(), seq, PARTIAL_ONLY);
            into.truncate(written);
        });
    }

    /// Go back to what was saved after `len` tokens. `false`: the context must be cleared.
    pub fn restore(&mut self, seq: Seq, state: &[u8], len: usize) -> bool {
        let ptr = self.ptr.as_ptr();
        // SAFETY: the context is alive, and the state is as long as said.
        let read =
            timed(|| unsafe { sys::llama_state_seq_set_data_ext(ptr, state.as_ptr(), state.len(), seq, PARTIAL_ONLY) });
        // Layers that attend, in a model that has both, can drop what came later.
        read > 0 && self.call(&[MemoryCall::Remove { seq, from: len }])
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        // SAFETY: the context is alive.
        timed(|| unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.ptr.as_ptr()), false) });
    }

    /// Decode one batch.
    ///
    /// # Errors
    /// llama.cpp returned an error; which cells it left is unknown.
    pub fn decode(&mut self, entries: &[Entry]) -> Result<(), LlamaError> {
        let fail = |code, reason| LlamaError::Decode { tokens: entries.len(), code, reason };
        if entries.len() > self.n_batch {
            return Err(fail(-1, format!(": a batch holds at most {}", self.n_batch)));
        }
        if entries.iter().filter(|entry| entry.output || self.hidden).count() > self.n_outputs {
            return Err(fail(-1, format!(": this context was made for {} outputs at once", self.n_outputs)));
        }
        if let Some(threads) = self.follows.as_ref().map(ThreadCount::get).filter(|&n| n != self.threads) {
            self.set_threads(threads);
        }
        log::clear();
        let batch = self.batch.fill(entries);
        // SAFETY: the batch's arrays are as long as n_tokens says and outlive the call.
        match timed(|| unsafe { sys::llama_decode(self.ptr.as_ptr(), batch) }) {
            0 => Ok(()),
            1 => Err(fail(1, ": the context is full".to_owned())),
            code => Err(fail(code, log::last_errors().map(|e| format!(": {e}")).unwrap_or_default())),
        }
    }

    /// Wait until what was decoded is computed: a GPU still works when [`Context::decode`] returns.
    pub fn finish(&self) {
        // SAFETY: the context is alive.
        timed(|| unsafe { sys::llama_synchronize(self.ptr.as_ptr()) });
    }

    /// The logits of the `i`-th token of the last batch; `None` if they were not asked for.
    pub fn logits(&self, i: usize) -> Option<&[f32]> {
        let i = i32::try_from(i).ok()?;
        // SAFETY: the context is alive. A row has n_vocab entries and stays until the next decode,
        // which needs &mut self.
        unsafe {
            let row = timed(|| sys::llama_get_logits_ith(self.ptr.as_ptr(), i));
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.model.n_vocab()))
        }
    }

    /// The hidden state of the `i`-th token of the last batch, after the last layer and the final norm; `None` if
    /// hidden states were not asked for.
    pub fn hidden(&self, i: usize) -> Option<&[f32]> {
        let i = i32::try_from(i).ok().filter(|_| self.hidden)?;
        // SAFETY: the context is alive. A state has n_embd_out entries and stays until the next decode, which needs
        // &mut self.
        unsafe {
            let n = usize::try_from(sys::llama_model_n_embd_out(self.model.as_ptr())).ok()?;
            let state = timed(|| sys::llama_get_embeddings_ith(self.ptr.as_ptr(), i));
            (!state.is_null()).then(|| std::slice::from_raw_parts(state, n))
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by llama_init_from_model and freed only here; the model is still alive.
        unsafe { sys::llama_free(self.ptr.as_ptr()) };
    }
}

/// The cache is filled with zeros at once: what memory cannot hold would have the kernel end the process, or bring the
/// machine to a standstill. A recurrent model has no such cache, and what lies on a GPU is the driver's to refuse.
fn enough_memory(model: &Model, options: &ContextOptions) -> Result<(), String> {
    let Some(available) = memory::available().filter(|_| !model.is_recurrent()) else { return Ok(()) };
    let file = GgufFile::open(model.path()).map_err(|e| e.to_string())?;
    let dimensions = Dimensions::of(&file);
    let need = Need::of(&dimensions, options).beside_gpu(dimensions.layers, model.on_gpu());
    match need.cache > available {
        true => Err(format!(
            "the key-value cache of {} tokens takes {} but only {} of memory is available; set a smaller target.context \
             or a quantised target.kv_type",
            options.n_ctx,
            human(need.cache),
            human(available)
        )),
        false => Ok(()),
    }
}

/// The arrays behind a `llama_batch`, kept between calls.
#[derive(Default)]
struct Batch {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    n_seqs: Vec<i32>,
    seqs: Vec<Seq>,
    seq_ptrs: Vec<*mut Seq>,
    outputs: Vec<i8>,
}

// SAFETY: the pointers point into `seqs` of the same struct and are renewed before every use.
unsafe impl Send for Batch {}

impl Batch {
    fn fill(&mut self, entries: &[Entry]) -> sys::llama_batch {
        self.tokens.clear();
        self.positions.clear();
        self.n_seqs.clear();
        self.seqs.clear();
        self.seq_ptrs.clear();
        self.outputs.clear();
        for entry in entries {
            self.tokens.push(entry.token as i32);
            self.positions.push(entry.position as i32);
            self.n_seqs.push(entry.seqs.len() as i32);
            self.seqs.extend_from_slice(&entry.seqs);
            self.outputs.push(i8::from(entry.output));
        }
        let mut next = self.seqs.as_mut_ptr();
        for entry in entries {
            self.seq_ptrs.push(next);
            next = next.wrapping_add(entry.seqs.len());
        }
        sys::llama_batch {
            n_tokens: entries.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.n_seqs.as_mut_ptr(),
            seq_id: self.seq_ptrs.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
