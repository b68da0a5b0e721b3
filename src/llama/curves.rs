//! Cost curves that were learnt, kept for the next run: in the cache folder, one small file per target, number of threads,
//! KV type and build. A curve is a beginning, not a truth: control goes on learning from every round.

use std::io::Write;
use std::path::PathBuf;

use super::derive::{cache_folder, content};
use super::host::LlamaHost;
use super::version;
use crate::cost::CostCurve;

/// The curve of the host's target as it was last learnt; `None` if there is none, or none that can be read.
pub fn load(host: &LlamaHost<'_>) -> Option<CostCurve> {
    serde_json::from_slice(&std::fs::read(path(host)?).ok()?).ok()
}

/// Keep `curve` for the next run. That it cannot be kept is no reason to fail.
pub fn store(host: &LlamaHost<'_>, curve: &CostCurve) {
    let write = || {
        let path = path(host)?;
        let folder = path.parent()?;
        std::fs::create_dir_all(folder).ok()?;
        let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
        file.write_all(&serde_json::to_vec(curve).ok()?).ok()?;
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
