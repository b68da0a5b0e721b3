//! What drafting will take of memory, estimated before anything is loaded: for a warning, not for a decision.
//!
//! It knows of drafters' settings only which keys name a file of a model or of heads, and what is made from the target
//! where none is named. What it does not understand counts nothing, for the drafter itself will judge it.

use std::path::{Path, PathBuf};

use super::beside::{best_first, draft_models, heads};
use super::context::ContextOptions;
use super::gguf::GgufFile;
use super::memory::{Dimensions, Need};
use super::model::LoadOptions;
use super::quantize::{estimate, Precision};
use crate::config::Setup;

/// Bytes of the CPU's memory that all models and heads take which the drafter of `setup` and its parts will open; `load`
/// is how the target is loaded.
pub fn bytes(setup: &Setup, target: &GgufFile, options: &ContextOptions, load: &LoadOptions) -> u64 {
    let settings = setup.drafter.settings.parse().unwrap_or_default();
    Drafts { base: &setup.base, target, options, load }.of(&setup.drafter.kind, &settings)
}

struct Drafts<'a> {
    base: &'a Path,
    target: &'a GgufFile,
    options: &'a ContextOptions,
    load: &'a LoadOptions,
}

impl Drafts<'_> {
    fn of(&self, kind: &str, settings: &toml::Table) -> u64 {
        let named = |key: &str| Some(self.base.join(settings.get(key)?.as_str()?));
        let own = match (kind, named("model"), named("heads")) {
            ("auto", model, heads) => self.auto(model, heads, settings),
            ("quantized" | "early_exit", None, _) => self.derived(kind, settings),
            (_, model, heads) => self.models(model, settings).saturating_add(files(heads)),
        };
        settings.values().map(|value| self.parts(value)).fold(own, u64::saturating_add)
    }

    /// The drafters within a setting: a table is one, and a list may hold some.
    fn parts(&self, value: &toml::Value) -> u64 {
        match value {
            toml::Value::Table(part) => self.of(part.get("kind").and_then(toml::Value::as_str).unwrap_or(""), part),
            toml::Value::Array(parts) => parts.iter().map(|part| self.parts(part)).fold(0, u64::saturating_add),
            _ => 0,
        }
    }

    /// What drafter `auto` takes: what is named, or else a draft model that is found, or else heads. An empty name stands
    /// for none.
    fn auto(&self, model: Option<PathBuf>, named_heads: Option<PathBuf>, settings: &toml::Table) -> u64 {
        let is_file = |path: &PathBuf| path.is_file();
        let looks = named_heads.as_ref().is_none_or(|heads| !is_file(heads));
        let found = || best_first(draft_models(self.target)).into_iter().next().filter(|_| looks);
        let model = model.or_else(found).filter(is_file);
        let heads = match (named_heads, &model) {
            (None, None) => heads(self.target).next(),
            (named, _) => named.filter(is_file),
        };
        self.models(model, settings).saturating_add(files(heads))
    }

    fn models(&self, path: Option<PathBuf>, settings: &toml::Table) -> u64 {
        let file = path.and_then(|path| GgufFile::open(&path).ok());
        file.map_or(0, |file| self.one(&Dimensions::of(&file), settings))
    }

    /// A model of these dimensions, on a GPU as far as its settings say, or else the target's.
    fn one(&self, dimensions: &Dimensions, settings: &toml::Table) -> u64 {
        let layers = settings.get("gpu_layers").and_then(toml::Value::as_integer);
        let device = settings.get("device").and_then(toml::Value::as_str);
        let load = LoadOptions {
            gpu_layers: layers.and_then(|n| u32::try_from(n).ok()).or(self.load.gpu_layers),
            device: device.map(str::to_owned).or_else(|| self.load.device.clone()),
            ..self.load.clone()
        };
        Need::of(dimensions, self.options).beside_gpu(dimensions.layers, load.on_gpu()).total()
    }

    /// A copy of the target with some of its layers, at some precision.
    fn derived(&self, kind: &str, settings: &toml::Table) -> u64 {
        let target = Dimensions::of(self.target);
        let kept = match (kind, settings.get("keep"), settings.get("layers")) {
            ("quantized", ..) => target.layers,
            (_, Some(keep), _) => keep.as_array().map_or(0, |keep| keep.len() as u64),
            (_, None, Some(layers)) => layers.as_integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            (_, None, None) => target.layers.div_ceil(2),
        };
        let kept = kept.min(target.layers);
        let usual = if kind == "quantized" { "q4_0" } else { "copy" };
        let precision = settings.get("type").and_then(toml::Value::as_str).unwrap_or(usual).parse();
        // Which layers go matters little: they are nearly of a size.
        let dropped: Vec<i32> = (kept..target.layers).map(|layer| layer as i32).collect();
        let file = estimate(self.target, precision.unwrap_or(Precision::Copy), &dropped);
        self.one(&Dimensions { file, layers: kept, ..target }, settings)
    }
}

fn files(path: Option<PathBuf>) -> u64 {
    path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimated(kind: &str, settings: &str) -> u64 {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let target = GgufFile::open(&base.join("target.gguf")).unwrap();
        let options = ContextOptions::default();
        let load = LoadOptions { gpu_layers: Some(0), ..LoadOptions::default() };
        Drafts { base: &base, target: &target, options: &options, load: &load }.of(kind, &settings.parse().unwrap())
    }

    #[test]
    fn everything_that_is_opened_counts() {
        let draft = estimated("model", "model = 'draft.gguf'");
        let heads = estimated("medusa", "heads = 'heads.gguf'");
        let target = estimated("model", "model = 'target.gguf'");
        assert!(0 < draft && draft < target && 500_000 < heads && heads < 1_000_000);
        assert_eq!(estimated("ngram", ""), 0);
        assert_eq!(estimated("auto", ""), draft, "what is found beside the target");
        assert_eq!(estimated("auto", "model = 'draft-small.gguf'"), estimated("model", "model = 'draft-small.gguf'"));
        assert_eq!(estimated("auto", "model = ''"), heads);
        assert_eq!(estimated("auto", "model = ''\nheads = ''"), 0);
        assert_eq!(estimated("auto", "heads = 'heads.gguf'"), heads);
        assert_eq!(estimated("auto", "model = 'draft.gguf'\nheads = 'heads.gguf'"), draft + heads);
        let parts = "parts = [{ kind = 'medusa', heads = 'heads.gguf' }, { kind = 'auto' }, { kind = 'ngram' }]";
        assert_eq!(estimated("merge", parts), heads + draft);
        let inner = "model = 'draft.gguf'\ndrafter = { kind = 'model', model = 'draft-small.gguf' }";
        assert!(estimated("staged", inner) > draft);
    }

    #[test]
    fn a_copy_that_is_not_made_yet_is_estimated() {
        let target = estimated("model", "model = 'target.gguf'");
        let copy = |settings: &str| estimated("quantized", settings);
        assert!(0 < copy("type = 'q2_k'") && copy("type = 'q2_k'") < copy("") && copy("") < target);
        assert_eq!(copy("model = 'draft.gguf'"), estimated("model", "model = 'draft.gguf'"));
        let exit = |settings: &str| estimated("early_exit", settings);
        assert_eq!(exit("layers = 6"), target);
        assert_eq!(exit("layers = 4294967295"), target, "refused later");
        assert!(exit("layers = 2") < exit("") && exit("") == exit("layers = 3") && exit("") < target);
        assert_eq!(exit("keep = [0, 5]"), exit("layers = 2"));
    }
}
