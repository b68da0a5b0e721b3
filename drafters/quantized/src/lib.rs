//! Drafter `quantized`: a copy of the target at lower precision drafts for it.
//!
//! The copy says nearly what the target says, so most guesses are accepted (self-speculation with a quantised draft, as
//! in QSpec, arXiv 2410.11305), and it needs no other model of the family. What it saves is bytes: on hardware that is
//! bound by reading weights, a Q4_0 copy of an F16 target takes a good quarter of a step.
//!
//! * **Helps** where the target is F16 and no small model of its vocabulary is at hand; a target of Q8_0 on hardware that
//!   reads weights no faster than it multiplies them.
//! * **Hurts** where the target is small in bits already: a copy costs nearly what the target costs, and more than a
//!   step of a fifth of the size. On two CPU cores a Q4_0 copy's pass took 0.82 of a Q8_0 target's, and nothing was
//!   gained. A copy that is hardly smaller is refused.
//! * **Memory**: the copy's file, mapped or (where the CPU backend repacks its type) in memory, and a cache of its own
//!   as large as the target's.
//!
//! ```toml
//! [drafter]
//! kind = "quantized"
//! type = "q4_0"          # the default; a wrong name is refused with a list of the others
//! # model = "copy.gguf"  # made by `foretoken prepare quantized`; left out, it is made once and kept in the cache
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
    r#type: Option<String>,
    model: Option<PathBuf>,
    gpu_layers: Option<u32>,
    device: Option<String>,
    threads: Option<u32>,
}

/// Build the drafter; makes the copy if it is neither named nor in the cache.
///
/// # Errors
/// The settings are wrong, or the copy cannot be made or opened.
pub fn build(settings: &str, host: &mut dyn Host) -> Result<Box<dyn Drafter>, DraftError> {
    let s: Settings = toml::from_str(settings).map_err(DraftError::settings)?;
    let path = match (s.model, s.r#type) {
        (Some(_), Some(_)) => return Err(DraftError::settings("give model or type, not both")),
        (Some(model), None) => model,
        (None, name) => {
            let precision = Some(name.unwrap_or_else(|| "q4_0".to_owned()));
            host.derive(&Derivation { precision, layers: None })?
        }
    };
    let spec = ModelSpec { path, gpu_layers: s.gpu_layers, device: s.device, threads: s.threads };
    Ok(Box::new(ModelDrafter::new(host.open_model(&spec)?)))
}
