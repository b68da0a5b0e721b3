//! Drafter `early_exit`: some layers of the target, usually the first, followed by its own final norm and output head,
//! draft for the whole of it (LayerSkip, arXiv 2404.16710; any set of layers: Draft & Verify, arXiv 2309.08168).
//!
//! The layers are copied into a file of their own, which drafts like any small model: with a cache of its own, and its
//! own share of every step.
//!
//! * **Helps** where the target was trained to answer early, as the bundled one was.
//! * **Hurts** on ordinary models: their middle layers do not speak the output head's language, so the first half
//!   agrees with the whole on few tokens, and drafting costs half a step. Leaving out a few layers of the middle
//!   (`foretoken prepare early-exit --search`) agrees more and saves less. `foretoken bench` tells.
//! * **Memory**: the kept layers, the embedding and the output matrix once more, mapped from a file; and a cache as
//!   large as theirs.
//!
//! ```toml
//! [drafter]
//! kind = "early_exit"
//! layers = 3             # the first three; left out: the first half
//! # keep = [0, 1, 4]     # or any set, where the architecture's layers are all alike
//! # type = "q8_0"        # also at lower precision
//! # model = "exit.gguf"  # or made by `foretoken prepare early-exit`
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::path::PathBuf;

use foretoken_drafter::{Derivation, DraftError, Drafter, Host, ModelSpec};
use foretoken_drafter_model::ModelDrafter;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    layers: Option<u32>,
    keep: Option<Vec<u32>>,
    r#type: Option<String>,
    model: Option<PathBuf>,
    gpu_layers: Option<u32>,
    device: Option<String>,
    threads: Option<u32>,
}

/// Build the drafter; makes its model if it is neither named nor in the cache.
///
/// # Errors
/// The settings are wrong, the layers cannot stand alone, or the model cannot be made or opened.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let s: Settings = toml::from_str(settings).map_err(DraftError::settings)?;
    let path = match (s.model, s.layers, s.keep, s.r#type) {
        (Some(model), None, None, None) => model,
        (Some(_), ..) => return Err(DraftError::settings("model is made already: leave out layers, keep and type")),
        (None, Some(_), Some(_), _) => return Err(DraftError::settings("give layers or keep, not both")),
        (None, layers, keep, precision) => {
            let all = host.target().n_layer;
            if let Some(k) = layers.filter(|&k| k == 0 || k as usize > all) {
                return Err(DraftError::settings(format!(
                    "layers = {k} is out of range; the target has {all}, so it goes from 1 to {all}"
                )));
            }
            let first = |k: u32| (0..k).collect();
            let layers = keep.unwrap_or_else(|| first(layers.unwrap_or_else(|| all.div_ceil(2) as u32)));
            if layers.len() >= all && precision.is_none() {
                let n = layers.len();
                return Err(DraftError::settings(format!("{n} of the target's {all} layers are no exit; keep fewer")));
            }
            host.derive(&Derivation { precision, layers: Some(layers) })?
        }
    };
    let spec = ModelSpec { path, gpu_layers: s.gpu_layers, device: s.device, threads: s.threads };
    Ok(Box::new(ModelDrafter::new(host.open_model(&spec)?)))
}
