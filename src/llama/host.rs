//! [`Host`] over llama.cpp: from a [`Setup`] to a target and whatever its drafter asks for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use foretoken_drafter::{
    Bytes, Companions, Derivation, DraftError, Drafter, Heads, Host, LanguageModel, ModelSpec, Shape, TargetInfo,
};

use super::beside::{best_first, draft_models, models_in, tables};
use super::context::{default_threads, Context, ContextOptions};
use super::derive::derived;
use super::gguf::GgufFile;
use super::heads::{heads_of, LlamaHeads};
use super::memory::{Dimensions, Need};
use super::model::{LoadOptions, Model};
use super::padded::Padded;
use super::scorer::Scorer;
use super::threads::ThreadCount;
use super::{drafts, learnt, memory, model, LlamaError};
use crate::config::{Setup, TargetSetup, MAX_THREADS};
use crate::control::Control;
use crate::engine::Engine;
use crate::heads::HeadsFile;
use crate::machine;
use crate::map;
use crate::registry::Registry;
use crate::threads::Threads;

/// What the user should know before the models of `setup` are loaded, one line each.
///
/// # Errors
/// The target's file is missing, broken or no GGUF.
pub fn warnings(setup: &Setup) -> Result<Vec<String>, LlamaError> {
    warnings_of(setup, std::slice::from_ref(setup))
}

/// The same where the target of `setup` serves the drafters of `all`, loaded at once.
///
/// # Errors
/// As for [`warnings`].
pub fn warnings_of(setup: &Setup, all: &[Setup]) -> Result<Vec<String>, LlamaError> {
    let file = GgufFile::open(&setup.target.model)?;
    file.check()?;
    let trained = file.network("context_length").map_or(DEFAULT_CONTEXT, |n| n as usize);
    let mut warnings: Vec<String> = machine::build_advice(&machine::instruction_sets()).into_iter().collect();
    let options = context_options(setup, trained);
    let (dimensions, load) = (Dimensions::of(&file), load_options(&setup.target));
    let need = Need::of(&dimensions, &options).beside_gpu(dimensions.layers, load.on_gpu());
    let drafts = all.iter().map(|setup| drafts::bytes(setup, &file, &options, &load)).fold(0, u64::saturating_add);
    warnings.extend(memory::available().and_then(|available| need.warning(drafts, available)));
    let drafter = |setup: &Setup| setup.drafter.settings.parse().map(toml::Value::Table);
    let drafts_ask = all.iter().any(|setup| drafter(setup).is_ok_and(|table| wants_gpu(&table)));
    let asked = setup.target.gpu_layers.is_some_and(|n| n > 0) || drafts_ask;
    if asked && !model::has_gpu() {
        warnings.push(format!("gpu_layers is ignored: {}", model::why_no_gpu()));
    }
    if setup.target.context.is_some_and(|n| n > trained) {
        warnings.push(format!("target.context is beyond the {trained} tokens that the model was trained for"));
    }
    Ok(warnings)
}

/// Whether a table, or one within it, wants layers on a GPU.
fn wants_gpu(settings: &toml::Value) -> bool {
    match settings {
        toml::Value::Table(table) => {
            table.get("gpu_layers").and_then(toml::Value::as_integer).is_some_and(|n| n > 0)
                || table.values().any(wants_gpu)
        }
        toml::Value::Array(items) => items.iter().any(wants_gpu),
        _ => false,
    }
}

/// Opens models for the engine and its drafters, all with the target's settings unless told otherwise.
pub struct LlamaHost<'a> {
    registry: &'a Registry,
    target: Arc<Model>,
    load: LoadOptions,
    context: ContextOptions,
    threads: ThreadCount,
    /// Most children of a node in any tree.
    width: usize,
    /// Whether a draft model was opened that cannot branch.
    drafts_chains: bool,
    base: PathBuf,
    took: Duration,
    companions: OnceLock<Companions>,
}

impl<'a> LlamaHost<'a> {
    /// Load the target of `setup`.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub fn load(setup: &Setup, registry: &'a Registry) -> Result<LlamaHost<'a>, LlamaError> {
        let begun = Instant::now();
        let load = load_options(&setup.target);
        let target = Model::load(&setup.target.model, &load)?;
        let mut context = context_options(setup, target.n_ctx_train());
        if target.is_recurrent() {
            context.max_leaves = 1;
        }
        let threads = ThreadCount::new(context.threads);
        let (base, took) = (setup.base.clone(), begun.elapsed());
        let (width, companions) = (setup.shape.width, OnceLock::new());
        Ok(LlamaHost { registry, target, load, context, threads, width, drafts_chains: false, base, took, companions })
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

    /// How models are loaded.
    pub fn load_options(&self) -> &LoadOptions {
        &self.load
    }

    /// A fresh context of the target.
    ///
    /// # Errors
    /// llama.cpp cannot make it.
    pub fn open_target(&self) -> Result<Scorer, LlamaError> {
        let mut context = Context::new(self.target.clone(), &self.context)?;
        context.follow(self.threads.clone());
        Ok(Scorer::new(context))
    }

    /// The shape that `setup` names, as far as the models opened so far can score it: recurrent ones cannot branch.
    pub fn shape(&self, setup: &Setup) -> Shape {
        match self.target.is_recurrent() || self.drafts_chains {
            true => Shape { width: 0, ..setup.shape },
            false => setup.shape,
        }
    }

    /// The number of threads of every context made here, but of those whose settings name another.
    pub fn threads(&self) -> &ThreadCount {
        &self.threads
    }

    /// Control over how much is drafted and with how many threads, beginning with what earlier runs learned.
    pub fn control(&self, setup: &Setup) -> Control {
        let learnt = learnt::machine(self).unwrap_or_default();
        let mut threads = Threads::new(Arc::new(self.threads.clone()), self.context.threads);
        if setup.target.threads.is_none() {
            threads = threads.explore(learnt.threads);
        }
        let mut control = Control::new();
        // Learnt with another number of threads, it says nothing about this one.
        if learnt.on == threads.now() {
            control = control.with_curve(&learnt.curve);
            threads = match learnt.step {
                Some(step) => threads.with_record(step),
                None => threads,
            };
        }
        let control = control.with_threads(threads);
        match learnt::habits(self, setup) {
            Some(habits) => control.with_habits(habits),
            None => control,
        }
    }

    /// The engine that `setup` describes: a fresh context of the target, and its drafter.
    ///
    /// # Errors
    /// The drafter's settings are wrong, or llama.cpp cannot make a context.
    pub fn engine(&mut self, setup: &Setup) -> Result<Engine, DraftError> {
        let drafter = self.build(&setup.drafter.kind, &setup.drafter.settings)?;
        let target = Box::new(self.open_target().map_err(DraftError::settings)?);
        let seed = setup.seed_for(drafter.needs());
        let engine = Engine::new(target, Some(drafter), setup.sampling.clone(), self.shape(setup), seed);
        Ok(match setup.adaptive && setup.drafter.kind != "none" {
            true => engine.with_control(self.control(setup)).with_loading(self.took),
            false => engine,
        })
    }

    /// What lies beside the target and could draft for it.
    fn look_around(&self) -> Companions {
        let Ok(target) = GgufFile::open(self.target.path()) else { return Companions::default() };
        let TargetInfo { n_embd, n_vocab, tokenizer, .. } = self.target();
        let own = |path: &PathBuf| HeadsFile::open(path).is_ok_and(|h| h.check(n_embd, n_vocab, tokenizer).is_ok());
        let heads = models_in(self.target.path()).map(|file| file.path().to_owned()).filter(own);
        // Whoever opens them resolves them again, and these are not relative to a configuration.
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let models = best_first(draft_models(&target)).into_iter().map(whole).collect();
        let tables = tables(self.target.path()).into_iter().map(whole).collect();
        Companions { models, heads: heads.map(whole).collect(), tables }
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
        if model.is_recurrent() && self.width > 1 && !self.target.is_recurrent() {
            return Err(DraftError::settings(format!(
                "{} is recurrent and cannot score branches; set speculation.width = 1, or use another draft model",
                path.display()
            )));
        }
        self.drafts_chains |= model.is_recurrent();
        let options = ContextOptions {
            threads: spec.threads.map_or(self.context.threads, |n| n as usize),
            max_leaves: if model.is_recurrent() { 1 } else { self.context.max_leaves },
            ..self.context.clone()
        };
        let mut context = Context::new(model, &options).map_err(DraftError::settings)?;
        if spec.threads.is_none() {
            context.follow(self.threads.clone());
        }
        let (own, wanted) = (context.model().n_vocab(), self.target.n_vocab());
        let scorer = Scorer::new(context);
        Ok(if own == wanted { Box::new(scorer) } else { Box::new(Padded::new(scorer, wanted)) })
    }

    fn derive(&mut self, what: &Derivation) -> Result<PathBuf, DraftError> {
        derived(self.target.path(), what)
    }

    fn companions(&self) -> Companions {
        self.companions.get_or_init(|| self.look_around()).clone()
    }

    fn open_heads(&mut self, path: &Path) -> Result<Box<dyn Heads>, DraftError> {
        let file = HeadsFile::open(&self.resolve(path)).map_err(DraftError::settings)?;
        let TargetInfo { n_embd, n_vocab, tokenizer, .. } = self.target();
        file.check(n_embd, n_vocab, tokenizer).map_err(DraftError::settings)?;
        let heads = heads_of(&file);
        let bytes = map::open(file.path()).map_err(DraftError::settings)?;
        drop(file);
        let heads = LlamaHeads::new(self.target.clone(), bytes, &heads, self.threads.clone());
        Ok(Box::new(heads.map_err(DraftError::settings)?))
    }

    fn map(&mut self, path: &Path) -> Result<Box<dyn Bytes>, DraftError> {
        let path = self.resolve(path);
        let bytes = map::open(&path).map_err(|e| DraftError::settings(format!("{}: {e}", path.display())))?;
        Ok(Box::new(bytes))
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
