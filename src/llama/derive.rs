//! Draft models made from the target, in a cache: made once, found again by every later run.
//!
//! A file's name says what it was made from and how, so nothing is looked up and nothing can be mixed up: the target is
//! known by its content. Reading all of a large model to know it would take as long as loading it, so what counts is its
//! size, its header, and [`SAMPLES`] pieces spread evenly over its weights. Two models that agree in all of these and
//! differ elsewhere would share a draft model, which can cost speed and never changes the text.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foretoken_drafter::{Derivation, DraftError};

use super::gguf::{shard_names, GgufError, GgufFile};
use super::quantize::{quantize, tell, Precision, Quantize, QuantizeError};

/// Where derived files are kept: `FORETOKEN_CACHE`, or else a folder in the user's cache.
pub fn cache_folder() -> PathBuf {
    match std::env::var_os("FORETOKEN_CACHE") {
        Some(folder) if !folder.is_empty() => folder.into(),
        _ => dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("foretoken"),
    }
}

/// Whether a copy at this precision is enough smaller than the model to draft for it.
pub fn is_worth_a_copy(file: &GgufFile, precision: Precision) -> bool {
    precision.bits() <= 0.85 * bits_per_weight(file)
}

fn bits_per_weight(file: &GgufFile) -> f64 {
    8.0 * file.file_size() as f64 / file.parameters().max(1) as f64
}

/// The file that `what` makes of `target`; made now if it is not there, or not whole.
///
/// # Errors
/// `what` makes no sense for this target, or llama.cpp or the disk refuses.
pub fn derived(target: &Path, what: &Derivation) -> Result<PathBuf, DraftError> {
    let file = GgufFile::open(target).map_err(DraftError::settings)?;
    file.check().map_err(DraftError::settings)?;
    let precision = match &what.precision {
        Some(name) => name.parse::<Precision>().map_err(DraftError::settings)?,
        None => Precision::Copy,
    };
    if !is_worth_a_copy(&file, precision) {
        let bits = bits_per_weight(&file);
        return Err(DraftError::settings(format!(
            "{} has {bits:.1} bits per weight already, so a copy in {precision} would draft hardly faster than it \
             decodes; take a smaller type, or another drafter",
            target.display()
        )));
    }
    let folder = cache_folder();
    std::fs::create_dir_all(&folder).map_err(|e| {
        DraftError::settings(format!("cannot make the cache folder {}: {e}; {ANOTHER}", folder.display()))
    })?;
    let path = folder.join(name(&file, target, precision, what.layers.as_deref())?);
    drop(file);
    match GgufFile::open(&path).and_then(|made| made.check()) {
        Ok(()) => return Ok(path),
        Err(GgufError::Missing { .. }) => {}
        Err(_) => tell(&format!("`{}` in the cache is damaged; it is made again", path.display())),
    }
    sweep(&folder);
    let options = Quantize { precision, threads: 0, layers: what.layers.clone(), requantize: true };
    quantize(target, &path, &options).map_err(|e| match e {
        QuantizeError::File(e) if e.failed_writing() => DraftError::failed(format!("{e}; {ANOTHER}")),
        QuantizeError::File(GgufError::Write { .. }) => DraftError::settings(format!("{e}; {ANOTHER}")),
        QuantizeError::Failed { .. } | QuantizeError::Cancelled { .. } => DraftError::failed(e),
        e => DraftError::settings(e),
    })?;
    Ok(path)
}

const ANOTHER: &str = "FORETOKEN_CACHE can name another cache folder";

/// Remove what runs that were killed have begun. Whoever writes a file touches it all the time, so one that nobody has
/// touched for a day is nobody's. That a file cannot be removed is no reason to fail.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|n| n.starts_with('.') && n.contains(".gguf.") && n.ends_with(".part"));
        let touched = entry.metadata().and_then(|file| file.modified()).ok();
        if is_ours && touched.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > DAY) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Pieces of the weights that a model is known by, and their size.
pub const SAMPLES: u64 = 256;
const SAMPLE: usize = 4096;

fn name(file: &GgufFile, target: &Path, precision: Precision, layers: Option<&[u32]>) -> Result<String, DraftError> {
    let hash = content(target).map_err(|e| DraftError::settings(format!("{}: {e}", target.display())))?;
    let stem = target.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let all = file.network("block_count").unwrap_or(0);
    let layers = match layers {
        Some(layers) if layers.len() < all as usize => {
            let list = layers.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
            // File names end at 255 bytes.
            match list.len() <= 64 {
                true => format!("-layers-{list}"),
                false => format!("-layers-{}-of-them-{:016x}", layers.len(), fnv_1a(list.as_bytes())),
            }
        }
        _ => String::new(),
    };
    Ok(format!("{stem}-{hash:016x}-{precision}{layers}.gguf"))
}

/// The hash of Fowler, Noll and Vo, variant 1a: the same on every machine and in every version.
pub fn fnv_1a(bytes: &[u8]) -> u64 {
    fold(0xcbf2_9ce4_8422_2325, bytes)
}

fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A hash (FNV-1a) of size, header and samples, of all shards if it is one of several.
///
/// # Errors
/// A file cannot be read.
pub fn content(path: &Path) -> std::io::Result<u64> {
    let is_there = |shard: &PathBuf| shard == path || shard.is_file();
    match shard_names(path) {
        Some(shards) => {
            let mut all = shards.iter().filter(|shard| is_there(shard));
            all.try_fold(fnv_1a(&[]), |hash, shard| Ok(fold(hash, &of_one(shard)?.to_le_bytes())))
        }
        None => of_one(path),
    }
}

fn of_one(path: &Path) -> std::io::Result<u64> {
    let bytes = crate::map::open(path)?;
    let header = &bytes[..bytes.len().min(1 << 20)];
    let mut hash = fold(fnv_1a(&(bytes.len() as u64).to_le_bytes()), header);
    for i in 0..SAMPLES {
        let at = (bytes.len() as u128 * u128::from(i) / u128::from(SAMPLES)) as usize;
        hash = fold(hash, &bytes[at..bytes.len().min(at + SAMPLE)]);
    }
    Ok(hash)
}
