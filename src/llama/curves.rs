//! What control learnt of the machine, kept for the next run: in the cache folder, one small file per target, number of
//! threads, KV type and build. A curve is a beginning, not a truth: control goes on learning from every round.

use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::derive::{cache_folder, content};
use super::host::LlamaHost;
use super::version;
use crate::control::Control;
use crate::cost::CostCurve;
use crate::threads::Threads;

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Learnt {
    /// T(n) of the target.
    pub curve: CostCurve,
    /// The number of threads that was found best, if others were tried.
    pub threads: Option<usize>,
    /// The least seconds that a plain step ever took.
    pub step: Option<f64>,
}

/// What was last learnt of the host's target; `None` if nothing was, or nothing that can be read.
pub fn load(host: &LlamaHost<'_>) -> Option<Learnt> {
    serde_json::from_slice(&std::fs::read(path(host)?).ok()?).ok()
}

/// Keep what `control` learnt for the next run. That it cannot be kept is no reason to fail.
pub fn store(host: &LlamaHost<'_>, control: &Control) {
    let threads = control.threads();
    let learnt = Learnt {
        curve: control.curve().clone(),
        threads: threads.and_then(Threads::found),
        step: threads.and_then(Threads::record),
    };
    let write = || {
        let path = path(host)?;
        let folder = path.parent()?;
        std::fs::create_dir_all(folder).ok()?;
        let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
        file.write_all(&serde_json::to_vec(&learnt).ok()?).ok()?;
        file.persist(&path).ok()
    };
    let _ = write();
}

fn path(host: &LlamaHost<'_>) -> Option<PathBuf> {
    let target = host.model().path();
    let stem = target.file_stem()?.to_string_lossy();
    let options = host.context_options();
    let (llama_cpp, features) = version();
    let build = format!(
        "{} {llama_cpp} {features} {:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        options.type_k,
        options.flash_attention
    );
    let build = build.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let name = format!("{stem}-{:016x}-{}-threads-{build:016x}.json", content(target).ok()?, options.threads);
    Some(cache_folder().join("curves").join(name))
}
