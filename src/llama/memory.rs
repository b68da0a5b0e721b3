//! How much memory a run will take, and how much there is: known before loading, because afterwards
//! only the kernel's out-of-memory killer would speak.

use std::path::Path;

use super::context::ContextOptions;
use super::gguf::{GgufFile, Value};

/// Bytes a model needs, roughly: its file (mapped or read), its key-value cache and its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The weights.
    pub weights: u64,
    /// The key-value cache, which is filled with zeros at once.
    pub cache: u64,
    /// Logits and intermediate results.
    pub buffers: u64,
}

/// The sizes that decide it.
#[derive(Clone, Copy, Debug)]
pub struct Dimensions {
    /// Bytes of the file.
    pub file: u64,
    /// Layers.
    pub layers: u64,
    /// Width of the keys of one layer: heads × head size.
    pub keys: u64,
    /// Width of the values of one layer.
    pub values: u64,
    /// Width of the hidden state.
    pub width: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
}

impl Dimensions {
    /// Those of a model file. Where a key is missing, the size that is usual without it.
    pub fn of(file: &GgufFile) -> Dimensions {
        let network = |name: &str| file.network(name).map(u64::from);
        let width = network("embedding_length").unwrap_or(0);
        let heads = network("attention.head_count").unwrap_or(1).max(1);
        // One number, or one for each layer: then the largest.
        let per_layer = || {
            let key = format!("{}.attention.head_count_kv", file.architecture()?);
            file.integers(&key)?.into_iter().max().and_then(|n| u64::try_from(n).ok())
        };
        let kv_heads = network("attention.head_count_kv").or_else(per_layer).unwrap_or(heads);
        let head = |name: &str| network(name).unwrap_or(width / heads);
        Dimensions {
            file: file.file_size(),
            layers: network("block_count").unwrap_or(0),
            keys: kv_heads.saturating_mul(head("attention.key_length")),
            // Multi-head latent attention keeps no values of their own.
            values: match network("attention.key_length_mla") {
                Some(n) if n > 0 => 0,
                _ => kv_heads.saturating_mul(head("attention.value_length")),
            },
            width,
            vocabulary: vocabulary(file),
        }
    }
}

fn vocabulary(file: &GgufFile) -> u64 {
    match file.get("tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) => tokens.len() as u64,
        _ => 0,
    }
}

impl Need {
    /// What a model of these dimensions needs with this context.
    pub fn of(d: &Dimensions, options: &ContextOptions) -> Need {
        let cells = options.n_ctx as u64;
        let bytes = |width: u64, per_32: usize| width.saturating_mul(per_32 as u64).div_ceil(32);
        let (keys, values) = (options.type_k.bytes_per_32(), options.type_v.bytes_per_32());
        let per_cell = bytes(d.keys, keys).saturating_add(bytes(d.values, values));
        let rows = options.max_nodes as u64 + 1;
        Need {
            weights: d.file,
            cache: d.layers.saturating_mul(cells).saturating_mul(per_cell),
            // The logits twice (computed, and kept for us) and a batch of 512 at four times the width.
            buffers: rows * d.vocabulary * 4 * 2 + 512 * d.width * 4 * 4,
        }
    }

    /// What stays in the CPU's memory where `on_gpu` layers go to a GPU, its output matrix the first of them. All layers
    /// are taken to be of a size, and the output too; that a GPU may share the CPU's memory is not considered.
    pub fn beside_gpu(self, layers: u64, on_gpu: u64) -> Need {
        let share =
            |bytes: u64, kept: u64, all: u64| (u128::from(bytes) * u128::from(kept) / u128::from(all.max(1))) as u64;
        let (all, cached) = (layers.saturating_add(1), layers.saturating_sub(on_gpu.saturating_sub(1)));
        Need {
            weights: share(self.weights, all.saturating_sub(on_gpu), all),
            cache: share(self.cache, cached, layers),
            ..self
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.buffers)
    }

    /// One line for the user if it is, with the bytes that `drafts` take, more than what is `available`.
    pub fn warning(&self, drafts: u64, available: u64) -> Option<String> {
        let total = self.total().saturating_add(drafts);
        let draft = if drafts > 0 { format!(", for drafting {}", human(drafts)) } else { String::new() };
        (total > available).then(|| {
            format!(
                "this takes about {} (weights {}, key-value cache {}, buffers {}{draft}) but only {} of memory is \
                 available; use a smaller target.context, a quantised target.kv_type or a smaller model",
                human(total),
                human(self.weights),
                human(self.cache),
                human(self.buffers),
                human(available)
            )
        })
    }
}

/// Bytes that can be had without swapping: what the system says is available, or less if a control
/// group limits us. `None` where it cannot be told.
pub fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let system = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let group = control_group_left(Path::new("/sys/fs/cgroup"));
    Some(group.map_or(system, |left| left.min(system)))
}

/// What the control group (v2) leaves: its limit less its use. Cached pages of files count as use but are
/// given back when needed; among them are those of a model that was read a moment ago.
fn control_group_left(root: &Path) -> Option<u64> {
    let text = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
    let statistics = text("memory.stat").unwrap_or_default();
    let cached: u64 = ["inactive_file ", "active_file "]
        .iter()
        .filter_map(|name| statistics.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok())
        .sum();
    let used = number("memory.current")?.saturating_sub(cached);
    Some(number("memory.max")?.saturating_sub(used))
}

/// A size for people: "1.2 GB".
pub fn human(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.0} kB", b / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KvType;

    #[test]
    fn a_control_group_leaves_what_is_not_cache() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(control_group_left(folder.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        write("memory.stat", "anon 200\nactive_file 300\ninactive_file 400\n");
        assert_eq!(control_group_left(folder.path()), Some(800));
        write("memory.max", "max\n");
        assert_eq!(control_group_left(folder.path()), None);
    }

    #[test]
    fn weights_beyond_the_memory_are_warned_of() {
        let need = Need { weights: 8_000_000_000, cache: 500_000_000, buffers: 20_000_000 };
        let warning = need.warning(0, 6_000_000_000).unwrap();
        let expected = "this takes about 8.5 GB (weights 8.0 GB, key-value cache 500.0 MB, buffers 20.0 MB) but only \
                        6.0 GB of memory is available;";
        assert!(warning.starts_with(expected), "{warning}");
        let warning = need.warning(1_000_000_000, need.total()).unwrap();
        assert!(warning.starts_with("this takes about 9.5 GB (weights 8.0 GB"), "{warning}");
        assert!(warning.contains(", for drafting 1.0 GB) but only 8.5 GB of memory is available;"), "{warning}");
        assert_eq!(need.warning(0, need.total()), None, "just enough");
        assert!(need.warning(0, need.total() - 1).is_some());
    }

    #[test]
    fn what_a_gpu_holds_is_not_counted() {
        let need = Need { weights: 9_000, cache: 800, buffers: 50 };
        assert_eq!(need.beside_gpu(8, 0), need);
        assert_eq!(need.beside_gpu(8, 1), Need { weights: 8_000, ..need }, "the output has no cache");
        assert_eq!(need.beside_gpu(8, 3), Need { weights: 6_000, cache: 600, buffers: 50 });
        assert_eq!(need.beside_gpu(8, 8), Need { weights: 1_000, cache: 100, buffers: 50 });
        for all in [9, 99, u64::MAX] {
            assert_eq!(need.beside_gpu(8, all), Need { weights: 0, cache: 0, buffers: 50 });
        }
        assert_eq!(need.beside_gpu(0, 1).weights, 0);
    }

    #[test]
    fn a_llama_of_8_billion() {
        // Llama 3.1 8B at 8,192 tokens: 32 layers, 8 heads of 128: exactly 1 GiB of F16 cache.
        let d =
            Dimensions { file: 4_920_000_000, layers: 32, keys: 1024, values: 1024, width: 4096, vocabulary: 128_256 };
        let options = ContextOptions { n_ctx: 8192, ..ContextOptions::default() };
        let need = Need::of(&d, &options);
        assert_eq!(need.cache, 1 << 30);
        assert!(need.total() > d.file + need.cache);
        let small = ContextOptions { type_k: KvType::Q8_0, type_v: KvType::Q8_0, ..options };
        assert_eq!(Need::of(&d, &small).cache, (1 << 30) * 34 / 64);
    }
}
