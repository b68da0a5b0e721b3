//! What a drafter may ask for when it is built, so that it needs to know neither llama.cpp nor other drafters.

use std::path::{Path, PathBuf};

use crate::{DraftError, Drafter, LanguageModel};

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

    /// A path from the settings, made relative to the configuration file that named it.
    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

/// Builds a drafter from the text of its `[drafter]` table (TOML, with its `kind` key removed).
pub type Build = fn(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError>;

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
}
