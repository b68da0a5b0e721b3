//! What a drafter may ask for when it is built, so that it needs to know neither llama.cpp nor other drafters.

use std::path::{Path, PathBuf};

use crate::{DraftError, Drafter, LanguageModel, Scores};

/// What a drafter may ask for when it is built. The engine implements it over llama.cpp, the test
/// kit over toy models. Later abilities come with default bodies, so implementations keep compiling.
pub trait Host {
    /// What is known of the target.
    fn target(&self) -> TargetInfo;

    /// Open a GGUF file as a draft model. Its vocabulary must be the target's.
    ///
    /// # Errors
    /// The file cannot be loaded, or its vocabulary differs: the message says where.
    fn open_model(&mut self, spec: &ModelSpec) -> Result<Box<dyn LanguageModel>, DraftError>;

    /// Build another drafter by kind from the text of its settings (a TOML table); how a combinator
    /// gets its parts.
    ///
    /// # Errors
    /// The kind is unknown, or its settings are wrong.
    fn build(&mut self, kind: &str, settings: &str) -> Result<Box<dyn Drafter>, DraftError>;

    /// A file made from the target, in a cache: made on first use, found again later. Its path can be opened with
    /// [`open_model`](Host::open_model).
    ///
    /// # Errors
    /// It cannot be made: the message says why.
    fn derive(&mut self, _what: &Derivation) -> Result<PathBuf, DraftError> {
        Err(DraftError::settings("no draft model can be made from this target"))
    }

    /// Open the heads in a GGUF file, to be evaluated where the target runs.
    ///
    /// # Errors
    /// The file cannot be read, or its heads are for another model: the message says which.
    fn open_heads(&mut self, _path: &Path) -> Result<Box<dyn Heads>, DraftError> {
        Err(DraftError::settings("this target takes no heads"))
    }

    /// Files beside the target that could draft for it.
    fn companions(&self) -> Companions {
        Companions::default()
    }

    /// The bytes of a file, mapped where that is possible.
    ///
    /// # Errors
    /// It cannot be read.
    fn map(&mut self, path: &Path) -> Result<Box<dyn Bytes>, DraftError> {
        let path = self.resolve(path);
        let bytes = std::fs::read(&path).map_err(|e| DraftError::settings(format!("{}: {e}", path.display())))?;
        Ok(Box::new(bytes))
    }

    /// A path from the settings, made relative to the configuration file that named it.
    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

/// Builds a drafter from the text of its `[drafter]` table (TOML, with its `kind` key removed).
pub type Build = fn(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError>;

/// Files found beside the target, each kind best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    /// Smaller models of the target's vocabulary.
    pub models: Vec<PathBuf>,
    /// Heads for the target's width and vocabulary.
    pub heads: Vec<PathBuf>,
    /// Tables of texts (`*.ngram`), of whatever tokenizer: whoever opens them checks that.
    pub tables: Vec<PathBuf>,
}

/// The bytes of a file, for as long as this lives.
pub trait Bytes: AsRef<[u8]> + Send + Sync {}
impl<T: AsRef<[u8]> + Send + Sync> Bytes for T {}

/// Extra heads on the target's last hidden state; the k-th, counted from 0, guesses the token k + 2 places on.
pub trait Heads: Send {
    /// How many there are.
    fn n_heads(&self) -> usize;

    /// One row of `n_vocab` logits per head, from one hidden state of `n_embd` numbers.
    ///
    /// # Errors
    /// The state has another width, or the backend failed.
    fn evaluate(&mut self, hidden: &[f32]) -> Result<Scores<'_>, DraftError>;
}

/// A draft model made from the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derivation {
    /// How to store its weights, by llama.cpp's name in small letters (`q4_0`); `None`: as they are.
    pub precision: Option<String>,
    /// The layers to keep, ascending; `None`: all.
    pub layers: Option<Vec<u32>>,
}

/// A model file and where to run it. `None` means: as the target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSpec {
    /// The GGUF file, relative to the configuration that names it.
    pub path: PathBuf,
    /// Layers to keep on the GPU.
    pub gpu_layers: Option<u32>,
    /// Name of the device to run on.
    pub device: Option<String>,
    /// Threads for the CPU part.
    pub threads: Option<u32>,
}

/// What a drafter may know of the target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetInfo {
    /// Number of tokens in the vocabulary.
    pub n_vocab: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// How many tokens fit, context and tree together.
    pub n_ctx: usize,
    /// Differs where a token's text does; files that hold token ids keep it. 0: unknown.
    pub tokenizer: u64,
}
