//! A loaded GGUF model: weights and vocabulary, shared by every context made from it.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use foretoken_drafter::Token;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use super::gguf::GgufFile;
use super::{backend, log, said_at_start, LlamaError};
use crate::text::Vocabulary;

/// How to load a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Layers to keep on the GPU; `None`: all, if there is one. With 0 it computes nothing.
    pub gpu_layers: Option<u32>,
    /// Run on this device only.
    pub device: Option<String>,
    /// Map the file instead of reading it.
    pub mmap: bool,
    /// Lock the weights in memory.
    pub mlock: bool,
    /// Let the CPU backend rearrange weights for speed; the rearranged copy is not memory-mapped.
    pub repack: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { gpu_layers: None, device: None, mmap: true, mlock: false, repack: true }
    }
}

impl LoadOptions {
    /// How many layers a GPU holds, at most. llama.cpp gives it the output matrix first, then layers from the last one
    /// down.
    pub fn on_gpu(&self) -> u64 {
        let has_device = || match &self.device {
            Some(name) => device(name).is_ok_and(is_gpu),
            None => has_gpu(),
        };
        match self.gpu_layers {
            Some(0) => 0,
            layers if has_device() => layers.map_or(u64::MAX, u64::from),
            _ => 0,
        }
    }
}

/// Weights and vocabulary.
pub struct Model {
    inner: LlamaModel,
    path: PathBuf,
    on_gpu: u64,
    /// What a SentencePiece vocabulary that lacks bytes has, once it was looked at.
    incomplete: OnceLock<Option<Incomplete>>,
}

/// The pieces of a vocabulary, and which bytes it has.
type Incomplete = (HashSet<Vec<u8>>, Vec<bool>);

impl Model {
    /// The tokens that end a text.
    pub fn ends(&self) -> Vec<Token> {
        (0..self.n_vocab() as Token).filter(|&token| self.is_end(token)).collect()
    }

    /// Load `path`, after a look at its header: a broken file is reported from there with a better
    /// message, and a few would make llama.cpp abort.
    ///
    /// # Errors
    /// The file is missing, broken or no GGUF, llama.cpp cannot load it, or the device does not exist.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Model>, LlamaError> {
        backend();
        let file = GgufFile::open(path)?;
        file.check()?;
        let fail = |reason: String| LlamaError::Load { path: path.display().to_string(), reason };
        let c_path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| fail(e.to_string()))?;
        // Without a list llama.cpp takes every GPU. One that lists nothing leaves all to the CPU, which rearranges its
        // weights then: beside a GPU, if only an idle one, or listed itself, it would not.
        let mut devices = match options.device.as_deref().map(device).transpose()? {
            Some(device) if is_gpu(device) && options.gpu_layers != Some(0) => vec![device, std::ptr::null_mut()],
            None if options.gpu_layers != Some(0) => Vec::new(),
            _ => vec![std::ptr::null_mut()],
        };
        // SAFETY: a plain constructor of a C struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        if let Some(layers) = options.gpu_layers {
            params.n_gpu_layers = i32::try_from(layers).unwrap_or(i32::MAX);
        }
        if !devices.is_empty() {
            params.devices = devices.as_mut_ptr();
        }
        params.use_extra_bufts = options.repack;
        params.load_mode = match (options.mmap, options.mlock) {
            (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (false, false) => sys::LLAMA_LOAD_MODE_NONE,
        };
        log::clear();
        // SAFETY: the path is NUL-terminated, and it and the device list outlive the call.
        let model = unsafe { sys::llama_model_load_from_file(c_path.as_ptr(), params) };
        let Some(model) = std::ptr::NonNull::new(model) else {
            return Err(fail(log::last_errors().unwrap_or_else(|| "llama.cpp gives no reason".to_owned())));
        };
        // SAFETY: LlamaModel is a transparent wrapper of this very pointer and takes over its
        // ownership. Its own constructor cannot be used, for it hides `use_extra_bufts`.
        let inner = unsafe { std::mem::transmute::<std::ptr::NonNull<sys::llama_model>, LlamaModel>(model) };
        let (path, on_gpu) = (path.to_owned(), options.on_gpu());
        let model = Model { inner, path, on_gpu, incomplete: OnceLock::new() };
        match model.generates_text(&file) {
            true => Ok(Arc::new(model)),
            false => Err(fail("it does not write text from left to right; use a model that does".to_owned())),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`LoadOptions::on_gpu`] of the options that it was loaded with.
    pub fn on_gpu(&self) -> u64 {
        self.on_gpu
    }

    /// What llama-cpp-2 offers of a model.
    pub fn inner(&self) -> &LlamaModel {
        &self.inner
    }

    /// Whether each token follows from those before it. Encoders, embedding models and diffusion models see them all.
    fn generates_text(&self, file: &GgufFile) -> bool {
        let architecture = file.architecture().unwrap_or_default();
        let causal = file.bool(&format!("{architecture}.attention.causal")).unwrap_or(true);
        // SAFETY: look-ups in a loaded model.
        let other = unsafe {
            let model = self.as_ptr();
            sys::llama_model_has_encoder(model)
                || !sys::llama_model_has_decoder(model)
                || sys::llama_model_is_diffusion(model)
        };
        causal && !other && architecture != "gemma-embedding"
    }

    /// Number of tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        usize::try_from(self.inner.n_vocab()).unwrap_or(0)
    }

    /// Context length that the model was trained for.
    pub fn n_ctx_train(&self) -> usize {
        // SAFETY: the model is loaded. llama.cpp gives its u32 as an i32.
        (unsafe { sys::llama_model_n_ctx_train(self.as_ptr()) }) as u32 as usize
    }

    /// Whether the state of a text cannot be cut back to an earlier token.
    pub fn is_recurrent(&self) -> bool {
        self.inner.is_recurrent() || self.inner.is_hybrid()
    }

    /// A metadata value as text.
    pub fn meta(&self, key: &str) -> Option<String> {
        self.inner.meta_val_str(key).ok()
    }

    /// The tokens of `text`. `special`: add a beginning-of-text token where the model wants one, and
    /// read special tokens written out in the text as such.
    ///
    /// # Errors
    /// The text is longer than llama.cpp can count, or holds a character that the vocabulary cannot spell.
    pub fn tokenise(&self, text: &str, special: bool) -> Result<Vec<Token>, LlamaError> {
        if let Some(character) = self.unspelt(text) {
            let reason = format!(
                "the vocabulary holds neither `{}` nor all of its bytes; leave it out, or use another model",
                character.escape_debug()
            );
            return Err(LlamaError::Tokenise(reason));
        }
        let len = i32::try_from(text.len()).map_err(|_| LlamaError::Tokenise("more than 2 GiB of text".to_owned()))?;
        let mut tokens: Vec<i32> = vec![0; text.len() + 8];
        loop {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: both buffers are as long as the lengths passed with them.
            let n = unsafe {
                sys::llama_tokenize(
                    self.vocab(),
                    text.as_ptr().cast(),
                    len,
                    tokens.as_mut_ptr(),
                    room,
                    special,
                    special,
                )
            };
            match usize::try_from(n) {
                Ok(n) => {
                    tokens.truncate(n);
                    return Ok(tokens.into_iter().map(|t| t as Token).collect());
                }
                Err(_) if n == i32::MIN => return Err(LlamaError::Tokenise("too many tokens".to_owned())),
                Err(_) => tokens.resize(n.unsigned_abs() as usize, 0),
            }
        }
    }

    /// The first character for which llama.cpp may find no token. SentencePiece vocabularies spell unknown characters by
    /// bytes, and llama.cpp ends the program where one is missing. A character that occurs in longer pieces only is
    /// taken to be unknown too.
    fn unspelt(&self, text: &str) -> Option<char> {
        let (pieces, bytes) = self.incomplete.get_or_init(|| self.incomplete_vocabulary()).as_ref()?;
        let is_spelt = |character: char| {
            let written = if character == ' ' { '\u{2581}' } else { character };
            let utf_8 = written.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
            pieces.contains(&utf_8) || utf_8.iter().all(|&byte| bytes[usize::from(byte)])
        };
        let prefix = self.meta("tokenizer.ggml.add_space_prefix").is_none_or(|adds| adds != "false");
        let prefix = [' '].into_iter().filter(|_| prefix && !text.is_empty());
        prefix.chain(text.chars()).find(|&character| !is_spelt(character))
    }

    /// Of a SentencePiece vocabulary that lacks bytes: its pieces, and which bytes it has.
    fn incomplete_vocabulary(&self) -> Option<Incomplete> {
        // SAFETY: the vocabulary lives as long as the model.
        if unsafe { sys::llama_vocab_type(self.vocab()) } != sys::LLAMA_VOCAB_TYPE_SPM {
            return None;
        }
        let pieces: HashSet<Vec<u8>> = (0..self.n_vocab() as Token).map(|token| self.token_text(token)).collect();
        let has =
            |byte: u8| pieces.contains(format!("<0x{byte:02X}>").as_bytes()) || pieces.contains([byte].as_slice());
        let bytes: Vec<bool> = (0..=u8::MAX).map(has).collect();
        bytes.contains(&false).then_some((pieces, bytes))
    }

    /// The vocabulary entry of `token`, as it stands in the file.
    pub fn token_text(&self, token: Token) -> Vec<u8> {
        if token as usize >= self.n_vocab() {
            return Vec::new();
        }
        // SAFETY: the token is in range (others would abort), and the string lives as long as the model.
        unsafe { CStr::from_ptr(sys::llama_vocab_get_text(self.vocab(), token as i32)) }.to_bytes().to_vec()
    }

    /// Whether tokenising puts the beginning-of-text token first.
    pub fn adds_beginning(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab()) }
    }

    /// The texts of the beginning-of-text and end-of-text tokens; empty where there is none.
    pub fn beginning_and_end(&self) -> (String, String) {
        // SAFETY: the vocabulary lives as long as the model; a missing token is negative.
        let (bos, eos) = unsafe { (sys::llama_vocab_bos(self.vocab()), sys::llama_vocab_eos(self.vocab())) };
        let text = |token: i32| {
            let text = Token::try_from(token).map(|token| self.token_text(token)).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        (text(bos), text(eos))
    }

    /// A hash of every token's text, in order (FNV-1a): what files that hold token ids are checked by.
    pub fn tokenizer_fingerprint(&self) -> u64 {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let end = std::iter::once(0xff);
        (0..self.n_vocab() as Token)
            .flat_map(|token| self.token_text(token).into_iter().chain(end.clone()))
            .fold(0xcbf2_9ce4_8422_2325, fold)
    }

    /// Why `other` cannot draft for this model, or `None`: what means anything is the same token by token. One may have
    /// more tokens at its end, if they are unused; and which tokens begin and end a text is the target's to say.
    pub fn vocabulary_difference(&self, other: &Model) -> Option<String> {
        let (a, b) = (self.n_vocab(), other.n_vocab());
        let differs = (0..a.min(b) as Token).find(|&t| self.token_text(t) != other.token_text(t));
        if let Some(token) = differs {
            let show = |m: &Model| String::from_utf8_lossy(&m.token_text(token)).into_owned();
            let (mine, theirs) = (show(self), show(other));
            return Some(format!("token {token} is {theirs:?} there but {mine:?} in the target"));
        }
        let longer = if a > b { self } else { other };
        let extra = (a.min(b) as Token..a.max(b) as Token).find(|&token| !longer.is_unused(token))?;
        let text = String::from_utf8_lossy(&longer.token_text(extra)).into_owned();
        Some(format!("it has {b} tokens, the target {a}, and token {extra}, {text:?}, is no padding"))
    }

    /// Whether the file says that `token` is only there to fill up the vocabulary.
    fn is_unused(&self, token: Token) -> bool {
        if token as usize >= self.n_vocab() {
            return false;
        }
        // SAFETY: the vocabulary lives as long as the model, and the token is in range.
        let attributes = unsafe { sys::llama_vocab_get_attr(self.vocab(), token as i32) };
        attributes & sys::LLAMA_TOKEN_ATTR_UNUSED != 0
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        // SAFETY: LlamaModel is a transparent wrapper of this pointer.
        unsafe { std::mem::transmute_copy::<LlamaModel, *mut sys::llama_model>(&self.inner) }
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded; its vocabulary lives as long as it.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }
}

impl Vocabulary for Model {
    fn piece(&self, token: Token) -> Vec<u8> {
        if token as usize >= self.n_vocab() {
            return Vec::new();
        }
        let mut bytes = vec![0u8; 64];
        loop {
            let room = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: the token is in range and the buffer as long as said.
            let n = unsafe {
                sys::llama_token_to_piece(self.vocab(), token as i32, bytes.as_mut_ptr().cast(), room, 0, false)
            };
            match usize::try_from(n) {
                Ok(n) => {
                    bytes.truncate(n);
                    return bytes;
                }
                Err(_) => bytes.resize(n.unsigned_abs() as usize, 0),
            }
        }
    }

    fn is_end(&self, token: Token) -> bool {
        // SAFETY: the token is in range.
        (token as usize) < self.n_vocab() && unsafe { sys::llama_vocab_is_eog(self.vocab(), token as i32) }
    }
}

/// The devices that this build can use: what llama.cpp calls each, and what it is.
pub fn devices() -> Vec<(String, String)> {
    backend();
    // SAFETY: indices below the count are valid, and what is said of a device lives as long as it, which is for ever.
    unsafe {
        let text = |text: *const std::ffi::c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        (0..sys::ggml_backend_dev_count())
            .map(|i| sys::ggml_backend_dev_get(i))
            .map(|d| (text(sys::ggml_backend_dev_name(d)), text(sys::ggml_backend_dev_description(d))))
            .collect()
    }
}

/// Whether there is a GPU that this build can use.
pub fn has_gpu() -> bool {
    backend().supports_gpu_offload()
}

/// Where there is none: why, and the way out.
pub fn why_no_gpu() -> String {
    let has = [
        ("CUDA", cfg!(feature = "cuda")),
        ("Vulkan", cfg!(feature = "vulkan")),
        ("Metal", cfg!(any(feature = "metal", target_os = "macos"))),
    ];
    backend();
    no_gpu(
        &has.into_iter().filter_map(|(name, is_built)| is_built.then_some(name)).collect::<Vec<_>>(),
        said_at_start(),
    )
}

fn no_gpu(backends: &[&str], said: Option<&str>) -> String {
    if backends.is_empty() {
        return "this build has no GPU backend; build with --features cuda, metal or vulkan".to_owned();
    }
    let said = said.map_or(String::new(), |said| format!(" ({said})"));
    format!(
        "this build has the {} backend, but it found no device{said}; check the GPU's driver, and that no variable of the \
         environment hides the device",
        backends.join(" and the ")
    )
}

fn is_gpu(device: sys::ggml_backend_dev_t) -> bool {
    // SAFETY: the device exists.
    let kind = unsafe { sys::ggml_backend_dev_type(device) };
    kind == sys::GGML_BACKEND_DEVICE_TYPE_GPU || kind == sys::GGML_BACKEND_DEVICE_TYPE_IGPU
}

fn device(name: &str) -> Result<sys::ggml_backend_dev_t, LlamaError> {
    // So that what a device's library complains of is kept, not printed.
    backend();
    let unknown = || LlamaError::UnknownDevice {
        name: name.to_owned(),
        known: devices().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
    };
    let c_name = CString::new(name).map_err(|_| unknown())?;
    // SAFETY: the name is NUL-terminated; null means that there is none.
    let device = unsafe { sys::ggml_backend_dev_by_name(c_name.as_ptr()) };
    if device.is_null() {
        return Err(unknown());
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_backend_and_a_missing_device_are_told_apart() {
        assert!(no_gpu(&[], Some("other")).starts_with("this build has no GPU backend; build with"));
        let found = no_gpu(&["Vulkan"], None);
        assert!(found.starts_with("this build has the Vulkan backend, but it found no device; check"), "{found}");
        let found = no_gpu(&["CUDA", "Vulkan"], Some("failed to initialize CUDA: no CUDA-capable device is detected"));
        let expected =
            "the CUDA and the Vulkan backend, but it found no device (failed to initialize CUDA: no CUDA-capable \
                        device is detected); check";
        assert!(found.contains(expected), "{found}");
    }
}
