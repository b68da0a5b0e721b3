//! [`Host`] over llama.cpp: from a [`Setup`] to a target and whatever its drafter asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretoken_drafter::{DraftError, Drafter, Host, LanguageModel, ModelSpec, TargetInfo};

use super::context::{default_threads, Context, ContextOptions};
use super::gguf::GgufFile;
use super::memory::{human, Dimensions, Need};
use super::model::{LoadOptions, Model};
use super::scorer::Scorer;
use super::{cpu, memory, model, LlamaError};
use crate::config::{Setup, TargetSetup, MAX_THREADS};
use crate::control::Control;
use crate::engine::Engine;
use crate::registry::Registry;

/// What the user should know before the models of `setup` are loaded, one line each.
///
/// # Errors
/// The target's file is missing, broken or no GGUF.
pub fn warnings(setup: &Setup) -> Result<Vec<String>, LlamaError> {
    let file = GgufFile::open(&setup.target.model)?;
    file.check()?;
    let trained = file.network("context_length").map_or(DEFAULT_CONTEXT, |n| n as usize);
    let mut warnings: Vec<String> = cpu::advice().into_iter().collect();
    let need = Need::of(&Dimensions::of(&file), &context_options(setup, trained));
    if let Some(available) = memory::available().filter(|&available| need.total() > available) {
        warnings.push(format!(
            "this takes about {} (weights {}, key-value cache {}, buffers {}) but only {} of memory is available; use a \
             smaller target.context, a quantised target.kv_type or a smaller model",
            human(need.total()),
            human(need.weights),
            human(need.cache),
            human(need.buffers),
            human(available)
        ));
    }
    let asked = setup.target.gpu_layers.is_some_and(|n| n > 0) || setup.drafter.settings.contains("gpu_layers");
    if asked && !model::has_gpu() {
        warnings.push(
            "gpu_layers is ignored: this build has no GPU backend; build with --features cuda, metal or vulkan"
                .to_owned(),
        );
    }
    if setup.target.context.is_some_and(|n| n > trained) {
        warnings.push(format!("target.context is beyond the {trained} tokens that the model was trained for"));
    }
    Ok(warnings)
}

/// Opens models for the engine and its drafters, all with the target's settings unless told otherwise.
pub struct LlamaHost<'a> {
    registry: &'a Registry,
    target: Arc<Model>,
    load: LoadOptions,
    context: ContextOptions,
    base: PathBuf,
}

impl<'a> LlamaHost<'a> {
    /// Load the target of `setup`.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub fn load(setup: &Setup, registry: &'a Registry) -> Result<LlamaHost<'a>, LlamaError> {
        let load = load_options(&setup.target);
        let target = Model::load(&setup.target.model, &load)?;
        let context = context_options(setup, target.n_ctx_train());
        Ok(LlamaHost { registry, target, load, context, base: setup.base.clone() })
    }

    /// The target's weights and vocabulary.
    pub fn model(&self) -> &Arc<Model> {
        &self.target
    }

    /// Read paths in the settings of drafters built from now on relative to `base`.
    pub fn set_base(&mut self, base: &Path) {
        self.base = base.to_owned();
    }

    /// How contexts are made.
    pub fn context_options(&self) -> &ContextOptions {
        &self.context
    }

    /// A fresh context of the target.
    ///
    /// # Errors
    /// llama.cpp cannot make it.
    pub fn open_target(&self) -> Result<Scorer, LlamaError> {
        Ok(Scorer::new(Context::new(self.target.clone(), &self.context)?))
    }

    /// The engine that `setup` describes: a fresh context of the target, and its drafter.
    ///
    /// # Errors
    /// The drafter's settings are wrong, or llama.cpp cannot make a context.
    pub fn engine(&mut self, setup: &Setup) -> Result<Engine, DraftError> {
        let drafter = self.build(&setup.drafter.kind, &setup.drafter.settings)?;
        let target = Box::new(self.open_target().map_err(DraftError::settings)?);
        let engine = Engine::new(target, Some(drafter), setup.sampling.clone(), setup.shape, setup.seed);
        Ok(match setup.adaptive && setup.drafter.kind != "none" {
            true => engine.with_control(Control::new()),
            false => engine,
        })
    }
}

impl Host for LlamaHost<'_> {
    fn target(&self) -> TargetInfo {
        TargetInfo {
            n_vocab: self.target.n_vocab(),
            n_embd: usize::try_from(self.target.inner().n_embd()).unwrap_or(0),
            n_layer: self.target.inner().n_layer() as usize,
            n_ctx: self.context.n_ctx,
            tokenizer: self.target.tokenizer_fingerprint(),
        }
    }

    fn open_model(&mut self, spec: &ModelSpec) -> Result<Box<dyn LanguageModel>, DraftError> {
        if let Some(threads) = spec.threads.filter(|n| !(1..=MAX_THREADS).contains(n)) {
            return Err(DraftError::settings(format!(
                "threads = {threads} is out of range; it goes from 1 to {MAX_THREADS}"
            )));
        }
        let path = self.resolve(&spec.path);
        let load = LoadOptions {
            gpu_layers: spec.gpu_layers.or(self.load.gpu_layers),
            device: spec.device.clone().or_else(|| self.load.device.clone()),
            ..self.load.clone()
        };
        let model = Model::load(&path, &load).map_err(DraftError::settings)?;
        if let Some(difference) = self.target.vocabulary_difference(&model) {
            return Err(DraftError::settings(format!(
                "{} has another vocabulary than the target: {difference}; use a model of the target's family",
                path.display()
            )));
        }
        let options = ContextOptions {
            threads: spec.threads.map_or(self.context.threads, |n| n as usize),
            ..self.context.clone()
        };
        let context = Context::new(model, &options).map_err(DraftError::settings)?;
        Ok(Box::new(Scorer::new(context)))
    }

    fn build(&mut self, kind: &str, settings: &str) -> Result<Box<dyn Drafter>, DraftError> {
        let registry = self.registry;
        registry.build(kind, settings, self)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

fn load_options(target: &TargetSetup) -> LoadOptions {
    LoadOptions {
        gpu_layers: target.gpu_layers,
        device: target.device.clone(),
        mmap: target.mmap,
        mlock: target.mlock,
        repack: target.repack,
    }
}

/// Unless the configuration says otherwise: the context the model was trained for, up to 4,096.
const DEFAULT_CONTEXT: usize = 4096;

fn context_options(setup: &Setup, trained: usize) -> ContextOptions {
    ContextOptions {
        n_ctx: setup.target.context.unwrap_or_else(|| trained.clamp(1, DEFAULT_CONTEXT)),
        max_nodes: setup.shape.max_nodes,
        max_leaves: setup.shape.max_nodes,
        threads: setup.target.threads.map_or_else(default_threads, |n| n as usize),
        type_k: setup.target.kv_type,
        type_v: setup.target.kv_type,
        flash_attention: setup.target.flash_attention,
    }
}
