//! The only place that names llama.cpp.
//!
//! It loads models ([`model`]), owns contexts ([`context`]), keeps track of what they hold
//! ([`cache`]) and offers the sum of it as a [`LanguageModel`](foretoken_drafter::LanguageModel)
//! ([`scorer`], [`padded`]); [`host`] is what drafters see of it. Files are read and written by [`gguf`], derived
//! from others by [`quantize`] and [`widen`]. Whatever makes llama.cpp abort is checked here first; whatever it says on
//! its log is kept, so that an error can give the reason.

pub mod beside;
pub mod cache;
pub mod context;
pub mod derive;
mod drafts;
pub mod exit;
#[cfg(test)]
mod gguf_tests;
pub mod hangup;
pub mod heads;
pub mod hidden;
pub mod host;
pub mod learnt;
mod log;
pub mod memory;
pub mod model;
pub mod padded;
pub mod probe;
pub mod quantize;
pub mod scorer;
pub mod threads;
pub mod widen;

pub use crate::gguf;

use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;

/// Why llama.cpp could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlamaError {
    /// The file is not what llama.cpp can load.
    #[error(transparent)]
    File(#[from] gguf::GgufError),
    /// The model file cannot be loaded.
    #[error("cannot load {path}: {reason}")]
    Load {
        /// The file.
        path: String,
        /// What llama.cpp's log said last.
        reason: String,
    },
    /// Context settings that llama.cpp refuses.
    #[error("cannot create a context for {path}: {reason}")]
    Context {
        /// The model.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// No such device.
    #[error("there is no device `{name}`; this build sees: {known}")]
    UnknownDevice {
        /// As given.
        name: String,
        /// What there is.
        known: String,
    },
    /// Text that cannot be tokenised.
    #[error("cannot tokenise the text: {0}")]
    Tokenise(String),
    /// A decode failed.
    #[error("llama.cpp could not decode a batch of {tokens} tokens (code {code}){reason}")]
    Decode {
        /// Tokens in the batch.
        tokens: usize,
        /// What `llama_decode` returned.
        code: i32,
        /// What the log said, after a colon; or nothing.
        reason: String,
    },
}

/// Initialise llama.cpp once per process. Its log goes to a small ring of lines, kept for errors.
pub fn backend() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        log::install();
        match LlamaBackend::init() {
            Ok(backend) => {
                // Devices are looked for now; the next call into llama.cpp forgets why one was not found.
                let _ = SAID_AT_START.set(log::last_errors());
                backend
            }
            // It fails only if it was initialised before, which this cell rules out.
            Err(error) => unreachable!("llama.cpp backend: {error}"),
        }
    })
}

static SAID_AT_START: OnceLock<Option<String>> = OnceLock::new();

/// The errors that llama.cpp logged when it looked for devices, on one line; `None` before [`backend`] too.
fn said_at_start() -> Option<&'static str> {
    SAID_AT_START.get()?.as_deref()
}

/// Pass llama.cpp's log through to stderr as well.
pub fn show_log(on: bool) {
    log::show(on);
}

/// llama.cpp's version and the instruction sets that it was built for.
pub fn version() -> (String, String) {
    // SAFETY: both functions return NUL-terminated strings that live as long as the process.
    let text = |s: *const std::ffi::c_char| unsafe { std::ffi::CStr::from_ptr(s) }.to_string_lossy().trim().to_owned();
    backend();
    // SAFETY: plain getters; the backend is initialised.
    unsafe { (text(llama_cpp_sys_2::llama_version()), text(llama_cpp_sys_2::llama_print_system_info())) }
}
