//! Heads evaluated by ggml where the target runs: one small graph, built once, on the backend that holds the target's
//! output matrix, which most heads share.
//!
//! llama.cpp's public interface does not hand out that matrix. But a context tells a callback about every step of its
//! graph before computing it, and the step that makes the logits names the matrix as its source. So a throw-away
//! context decodes one token, and the pointer it shows stays valid for as long as the model is loaded.
//!
//! The heads' weights stay in the mapped file wherever the device can use host memory (CPU, Metal); elsewhere they are
//! copied to it once. The states of all heads are put side by side before the output matrix is applied, so that it is
//! read once and not once a head.

use std::ffi::{c_int, c_void, CStr};
use std::ptr::NonNull;
use std::sync::Arc;

use foretoken_drafter::{DraftError, Heads, Scores};
use llama_cpp_sys_2 as sys;

use super::model::Model;
use super::threads::ThreadCount;
use super::LlamaError;
use crate::gguf::TensorType;
use crate::heads::{HeadsFile, Part};
use crate::map::Mapping;

/// A matrix or vector in the heads' file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// ggml's number of its type.
    pub kind: u32,
    /// Numbers in a row.
    pub columns: usize,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Where it begins in the file, and how long it is.
    pub offset: usize,
    /// In bytes.
    pub len: usize,
}

/// One head: blocks `h + SiLU(W h + b)` in order, then an output matrix of its own or the target's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// W and b of every block.
    pub blocks: Vec<(Weight, Weight)>,
    /// `n_vocab` rows; `None`: the target's.
    pub output: Option<Weight>,
}

/// Heads on a target's backend.
pub struct LlamaHeads {
    parts: Parts,
    threads: ThreadCount,
    computes_with: usize,
    n_heads: usize,
    n_embd: usize,
    n_vocab: usize,
    logits: Vec<f32>,
    // Below what points into them: fields are dropped in order.
    _file: Mapping,
    _model: Arc<Model>,
}

/// Everything of ggml's, freed in this order. Null where it was never made.
struct Parts {
    device: sys::ggml_backend_dev_t,
    allocator: sys::ggml_gallocr_t,
    graph_context: *mut sys::ggml_context,
    buffer: sys::ggml_backend_buffer_t,
    weights_context: *mut sys::ggml_context,
    backend: sys::ggml_backend_t,
    graph: *mut sys::ggml_cgraph,
    input: *mut sys::ggml_tensor,
    output: *mut sys::ggml_tensor,
}

// SAFETY: ggml objects may be used from any thread, though from one at a time only; LlamaHeads is not Sync, and the
// model's weights are only read.
unsafe impl Send for Parts {}

impl Drop for Parts {
    fn drop(&mut self) {
        // SAFETY: each was made by the matching constructor, is freed only here, and null is skipped.
        unsafe {
            if !self.allocator.is_null() {
                sys::ggml_gallocr_free(self.allocator);
            }
            if !self.graph_context.is_null() {
                sys::ggml_free(self.graph_context);
            }
            if !self.buffer.is_null() {
                sys::ggml_backend_buffer_free(self.buffer);
            }
            if !self.weights_context.is_null() {
                sys::ggml_free(self.weights_context);
            }
            if !self.backend.is_null() {
                sys::ggml_backend_free(self.backend);
            }
        }
    }
}

/// The heads of a file, as places in it.
pub fn heads_of(file: &HeadsFile) -> Vec<Head> {
    let sizes = file.description().sizes;
    let weight = |part| {
        let (data, place) = (file.data(part)?, file.place(part)?);
        let [columns, rows] = data.shape;
        Some(Weight { kind: data.kind.id(), columns, rows, offset: place.start, len: place.len() })
    };
    let head = |head: usize| {
        let block = |block| Some((weight(Part::Weight { head, block })?, weight(Part::Bias { head, block })?));
        Head {
            blocks: (0..sizes.blocks).filter_map(block).collect(),
            output: weight(Part::Output { head }).filter(|_| sizes.own_output),
        }
    };
    (0..sizes.heads).map(head).collect()
}

impl LlamaHeads {
    /// Put `heads`, which lie in `file`, where `model` runs.
    ///
    /// # Errors
    /// The heads do not fit the model or the file, heads without an output matrix share one that cannot be had, or the
    /// backend refuses.
    pub fn new(
        model: Arc<Model>,
        file: Mapping,
        heads: &[Head],
        threads: ThreadCount,
    ) -> Result<LlamaHeads, LlamaError> {
        let path = model.path().display().to_string();
        let fail = |reason: &str| LlamaError::Load { path: path.clone(), reason: reason.to_owned() };
        let n_embd = usize::try_from(model.inner().n_embd()).unwrap_or(0);
        let n_vocab = model.n_vocab();
        check(heads, n_embd, n_vocab, file.len()).map_err(|reason| fail(&reason))?;
        let matrix = output_matrix(&model)?;
        let shares = heads.iter().any(|head| head.output.is_none());
        if shares && matrix.is_none() {
            return Err(fail("its output matrix cannot be shared; train heads with --own-output"));
        }
        let device = device_of(matrix).ok_or_else(|| fail("no device can evaluate heads"))?;
        let mut parts = Parts {
            device,
            allocator: std::ptr::null_mut(),
            graph_context: std::ptr::null_mut(),
            buffer: std::ptr::null_mut(),
            weights_context: std::ptr::null_mut(),
            backend: std::ptr::null_mut(),
            graph: std::ptr::null_mut(),
            input: std::ptr::null_mut(),
            output: std::ptr::null_mut(),
        };
        // SAFETY: the device exists; null parameters mean its defaults.
        parts.backend = unsafe { sys::ggml_backend_dev_init(device, std::ptr::null()) };
        if parts.backend.is_null() {
            return Err(fail("the device that holds it cannot be used for heads"));
        }
        set_threads(device, parts.backend, threads.get());
        parts.place(device, &file, heads).map_err(|reason| fail(&reason))?;
        parts.build(heads, matrix, n_embd).map_err(|reason| fail(&reason))?;
        let logits = vec![0.0; heads.len() * n_vocab];
        let computes_with = threads.get();
        Ok(LlamaHeads {
            parts,
            threads,
            computes_with,
            n_heads: heads.len(),
            n_embd,
            n_vocab,
            logits,
            _file: file,
            _model: model,
        })
    }
}

impl Heads for LlamaHeads {
    fn n_heads(&self) -> usize {
        self.n_heads
    }

    fn evaluate(&mut self, hidden: &[f32]) -> Result<Scores<'_>, DraftError> {
        if hidden.len() != self.n_embd {
            let (got, wanted) = (hidden.len(), self.n_embd);
            return Err(DraftError::failed(format!("a hidden state of {got} numbers, but the heads take {wanted}")));
        }
        let Parts { device, backend, graph, input, output, .. } = self.parts;
        if self.computes_with != self.threads.get() {
            self.computes_with = self.threads.get();
            set_threads(device, backend, self.computes_with);
        }
        // SAFETY: input holds n_embd floats and output n_heads times n_vocab, as built; all live as long as self.
        let status = unsafe {
            sys::ggml_backend_tensor_set(input, hidden.as_ptr().cast(), 0, std::mem::size_of_val(hidden));
            let status = sys::ggml_backend_graph_compute(backend, graph);
            let size = std::mem::size_of_val(self.logits.as_slice());
            sys::ggml_backend_tensor_get(output, self.logits.as_mut_ptr().cast(), 0, size);
            status
        };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(Scores::new(self.logits.chunks(self.n_vocab).collect())),
            code => Err(DraftError::failed(format!("the heads could not be evaluated (ggml status {code})"))),
        }
    }
}

/// Whether every weight has the shape it must have and lies within the file.
fn check(heads: &[Head], n_embd: usize, n_vocab: usize, file: usize) -> Result<(), String> {
    let weight = |w: &Weight, rows: usize, columns: usize| {
        let inside = w.offset.checked_add(w.len).is_some_and(|end| end <= file);
        // SAFETY: the type is checked first; F32 and F16 rows have any length.
        let known = [TensorType::F32, TensorType::F16].iter().any(|known| known.id() == w.kind);
        let row = if known { unsafe { sys::ggml_row_size(w.kind as sys::ggml_type, columns as i64) } } else { 0 };
        let fits = (w.rows, w.columns) == (rows, columns) && known && row.checked_mul(rows) == Some(w.len);
        match fits && inside {
            true => Ok(()),
            false => Err(format!("a head's weights of {} x {} do not fit this target", w.rows, w.columns)),
        }
    };
    if heads.is_empty() || n_embd == 0 || n_vocab == 0 {
        return Err("there are no heads".to_owned());
    }
    for head in heads {
        for (w, b) in &head.blocks {
            weight(w, n_embd, n_embd)?;
            weight(b, 1, n_embd)?;
            if b.kind != TensorType::F32.id() {
                return Err("a head's bias is not F32".to_owned());
            }
        }
        head.output.iter().try_for_each(|w| weight(w, n_vocab, n_embd))?;
    }
    Ok(())
}

impl Parts {
    /// Make a tensor for every weight, in the order of [`weights`], backed by the file or by a copy of it.
    fn place(&mut self, device: sys::ggml_backend_dev_t, file: &Mapping, heads: &[Head]) -> Result<(), String> {
        let weights: Vec<Weight> = weights(heads).collect();
        // SAFETY: ggml_init returns null if it has no memory, which is checked; a context that allocates no data holds
        // as many tensors as it was given overheads for. Every address handed to ggml lies in the mapping (see
        // `check`), which outlives the buffer and is never written: weights are only read.
        unsafe {
            self.weights_context = context(sys::ggml_tensor_overhead() * (weights.len() + 1))?;
            let tensors: Vec<*mut sys::ggml_tensor> = weights
                .iter()
                .map(|w| {
                    let kind = w.kind as sys::ggml_type;
                    match w.rows {
                        1 => sys::ggml_new_tensor_1d(self.weights_context, kind, w.columns as i64),
                        _ => sys::ggml_new_tensor_2d(self.weights_context, kind, w.columns as i64, w.rows as i64),
                    }
                })
                .collect();
            let mut props = std::mem::zeroed::<sys::ggml_backend_dev_props>();
            sys::ggml_backend_dev_get_props(device, &mut props);
            let aligned = weights.iter().all(|w| (file.as_ptr() as usize + w.offset).is_multiple_of(ALIGNMENT));
            if props.caps.buffer_from_host_ptr && aligned {
                let largest = weights.iter().map(|w| w.len).max().unwrap_or(0);
                let base = file.as_ptr().cast_mut().cast::<c_void>();
                self.buffer = sys::ggml_backend_dev_buffer_from_host_ptr(device, base, file.len(), largest);
            }
            if !self.buffer.is_null() {
                for (w, &tensor) in weights.iter().zip(&tensors) {
                    let at = file.as_ptr().add(w.offset).cast_mut().cast();
                    if sys::ggml_backend_tensor_alloc(self.buffer, tensor, at) != sys::GGML_STATUS_SUCCESS {
                        return Err("a head's weights cannot be used where they are mapped".to_owned());
                    }
                }
                return Ok(());
            }
            self.buffer = sys::ggml_backend_alloc_ctx_tensors(self.weights_context, self.backend);
            if self.buffer.is_null() {
                return Err("there is too little memory for the heads".to_owned());
            }
            for (w, &tensor) in weights.iter().zip(&tensors) {
                sys::ggml_backend_tensor_set(tensor, file[w.offset..].as_ptr().cast(), 0, w.len);
            }
            Ok(())
        }
    }

    /// The graph, from one hidden state to the logits of all heads.
    fn build(
        &mut self,
        heads: &[Head],
        matrix: Option<NonNull<sys::ggml_tensor>>,
        n_embd: usize,
    ) -> Result<(), String> {
        // SAFETY: as in `place`; at most six tensors are made per block and three per head, and the graph's own
        // overhead is added. Shapes were checked, so no operation asserts.
        unsafe {
            let blocks: usize = heads.iter().map(|head| head.blocks.len()).sum();
            let tensors = 8 + 6 * blocks + 6 * heads.len();
            let nodes = tensors.max(64);
            let overhead = sys::ggml_graph_overhead_custom(nodes, false);
            self.graph_context = context(sys::ggml_tensor_overhead() * tensors + overhead)?;
            let ctx = self.graph_context;
            self.input = sys::ggml_new_tensor_1d(ctx, sys::GGML_TYPE_F32, n_embd as i64);
            sys::ggml_set_input(self.input);
            let mut weight = sys::ggml_get_first_tensor(self.weights_context);
            let mut next = || {
                let this = weight;
                weight = sys::ggml_get_next_tensor(self.weights_context, this);
                this
            };
            let beside = |all: *mut sys::ggml_tensor, new: *mut sys::ggml_tensor| match all.is_null() {
                true => new,
                false => sys::ggml_concat(ctx, all, new, 1),
            };
            let (mut states, mut logits) = (std::ptr::null_mut(), std::ptr::null_mut());
            for head in heads {
                let mut state = self.input;
                for _ in &head.blocks {
                    let (w, b) = (next(), next());
                    let turned = sys::ggml_add(ctx, sys::ggml_mul_mat(ctx, w, state), b);
                    state = sys::ggml_add(ctx, sys::ggml_silu(ctx, turned), state);
                }
                match head.output {
                    Some(_) => logits = beside(logits, sys::ggml_mul_mat(ctx, next(), state)),
                    None => states = beside(states, state),
                }
            }
            if let (Some(matrix), false) = (matrix, states.is_null()) {
                if !logits.is_null() {
                    return Err("some heads have an output matrix of their own and some have not".to_owned());
                }
                logits = sys::ggml_mul_mat(ctx, matrix.as_ptr(), states);
            }
            sys::ggml_set_output(logits);
            self.output = logits;
            self.graph = sys::ggml_new_graph_custom(ctx, nodes, false);
            sys::ggml_build_forward_expand(self.graph, logits);
            self.allocator = sys::ggml_gallocr_new(sys::ggml_backend_get_default_buffer_type(self.backend));
            if self.allocator.is_null() || !sys::ggml_gallocr_alloc_graph(self.allocator, self.graph) {
                return Err("there is too little memory for the heads".to_owned());
            }
            Ok(())
        }
    }
}

/// What ggml's buffers are aligned to.
const ALIGNMENT: usize = 32;

/// Every weight in the order in which the graph takes them.
fn weights(heads: &[Head]) -> impl Iterator<Item = Weight> + '_ {
    heads.iter().flat_map(|head| head.blocks.iter().flat_map(|&(w, b)| [w, b]).chain(head.output))
}

/// A ggml context that holds descriptions only.
fn context(size: usize) -> Result<*mut sys::ggml_context, String> {
    let params = sys::ggml_init_params { mem_size: size, mem_buffer: std::ptr::null_mut(), no_alloc: true };
    // SAFETY: the parameters are valid; null is checked.
    let made = unsafe { sys::ggml_init(params) };
    match made.is_null() {
        true => Err("there is too little memory for the heads".to_owned()),
        false => Ok(made),
    }
}

/// The device that holds the matrix; without one the CPU.
fn device_of(matrix: Option<NonNull<sys::ggml_tensor>>) -> Option<sys::ggml_backend_dev_t> {
    // SAFETY: the tensor is the model's and has a buffer; a buffer type of the CPU may name no device.
    let device = matrix.map(|matrix| unsafe {
        let buffer = (*matrix.as_ptr()).buffer;
        sys::ggml_backend_buft_get_device(sys::ggml_backend_buffer_get_type(buffer))
    });
    // SAFETY: null means that there is none.
    let cpu = || unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    device.filter(|device| !device.is_null()).or_else(|| Some(cpu()).filter(|device| !device.is_null()))
}

/// A CPU backend starts with four threads, whatever the machine has.
fn set_threads(device: sys::ggml_backend_dev_t, backend: sys::ggml_backend_t, threads: usize) {
    type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, c_int);
    // SAFETY: the address, if there is one, is that of a function of this type: so ggml documents the name.
    unsafe {
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let address = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_set_n_threads".as_ptr());
        if !address.is_null() {
            let set = std::mem::transmute::<*mut c_void, SetThreads>(address);
            set(backend, c_int::try_from(threads.max(1)).unwrap_or(1));
        }
    }
}

/// The tensor that the target multiplies its last hidden state with; `None` if its logits are not simply that product.
fn output_matrix(model: &Arc<Model>) -> Result<Option<NonNull<sys::ggml_tensor>>, LlamaError> {
    let mut found = Found { matrix: None, n_vocab: model.n_vocab() as i64 };
    let fail = |reason: &str| LlamaError::Context {
        path: model.path().display().to_string(),
        reason: format!("{reason}, so its output matrix is not found"),
    };
    // SAFETY: a plain constructor of a C struct; the callback's data outlives the context, which is freed below; the
    // batch's arrays are one element long and outlive the call.
    unsafe {
        let mut params = sys::llama_context_default_params();
        params.n_ctx = 256;
        params.n_batch = 16;
        params.n_ubatch = 16;
        params.n_seq_max = 1;
        params.n_outputs_max = 1;
        params.no_perf = true;
        params.cb_eval = Some(on_step);
        params.cb_eval_user_data = (&raw mut found).cast();
        let context = sys::llama_init_from_model(model.as_ptr(), params);
        if context.is_null() {
            return Err(fail("llama.cpp made no context"));
        }
        let (mut token, mut position, mut output, mut n_seq, mut seq) = (0i32, 0i32, 1i8, 1i32, 0i32);
        let mut seqs = &raw mut seq;
        let status = sys::llama_decode(
            context,
            sys::llama_batch {
                n_tokens: 1,
                token: &raw mut token,
                embd: std::ptr::null_mut(),
                pos: &raw mut position,
                n_seq_id: &raw mut n_seq,
                seq_id: &raw mut seqs,
                logits: &raw mut output,
            },
        );
        sys::llama_free(context);
        match status {
            0 => Ok(found.matrix),
            _ => Err(fail("llama.cpp could not decode a token")),
        }
    }
}

struct Found {
    matrix: Option<NonNull<sys::ggml_tensor>>,
    n_vocab: i64,
}

/// Told of every step before it is computed. Never asks to see the result.
unsafe extern "C" fn on_step(step: *mut sys::ggml_tensor, ask: bool, found: *mut c_void) -> bool {
    // SAFETY: llama.cpp passes a valid tensor with a NUL-terminated name, and the data given with the callback.
    unsafe {
        let (step, found) = (&*step, &mut *found.cast::<Found>());
        if ask && CStr::from_ptr(step.name.as_ptr()) == c"result_output" && step.op == sys::GGML_OP_MUL_MAT {
            let matrix = NonNull::new(step.src[0]);
            found.matrix = matrix.filter(|m| m.as_ref().ne[1] == found.n_vocab && !m.as_ref().buffer.is_null());
        }
    }
    false
}
