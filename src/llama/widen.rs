//! A small model at the cost of a large one: `prepare widen`. A trained model of a few million weights says real
//! things but fits into the processor's cache; a large one is bound by memory. Widening pads the small one to a larger
//! width so that the new weights are read and multiplied like any others and contribute exactly nothing:
//!
//! - the residual stream grows from d to D numbers, of which the new ones stay zero; an RMS norm divides by the root of
//!   a mean over D instead of d, so its weights are multiplied by √(d/D) and its ε by d/D;
//! - new attention heads and new units of the feed-forward part have random weights, and zeros where their results
//!   would enter the residual stream. The size of a head is kept.
//!
//! The number of layers is kept too: layers that do nothing would flatter whoever leaves the model early.
//!
//! Acceptance rates are those of the trained models; seconds are those of a model of the new size. Whoever shows such
//! a number says so. It reads F32, F16 and BF16 and writes F16 (norms F32); it never quantises.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use super::gguf::{GgufError, GgufFile, GgufWriter, Tensor, TensorType};

/// The sizes to widen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widen {
    /// The width of the residual stream, a multiple of the size of a head; 256 divides it if K-quants are to follow.
    pub dim: u32,
    /// The width of the feed-forward part.
    pub ffn: u32,
    /// The number of key-value heads; `None` groups the heads as the original does, or nearly so.
    pub kv_heads: Option<u32>,
    /// Where the random weights start. The text does not depend on it.
    pub seed: u64,
}

/// What was made of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The original's sizes.
    pub from: Sizes,
    /// The new file's sizes.
    pub to: Sizes,
    /// The new file's number of weights.
    pub parameters: u64,
    /// The new file's bytes.
    pub bytes: u64,
}

/// The sizes of a plain llama network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The width of the residual stream.
    pub dim: u32,
    /// The width of the feed-forward part.
    pub ffn: u32,
    /// The number of heads.
    pub heads: u32,
    /// The number of key-value heads.
    pub kv_heads: u32,
    /// The size of a head.
    pub head: u32,
    /// The number of layers.
    pub layers: u32,
    /// The number of tokens.
    pub vocabulary: u32,
}

/// Why a file cannot be widened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WidenError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("`{}` has the architecture `{architecture}`; only `llama` can be widened", path.display())]
    Architecture { path: PathBuf, architecture: String },
    #[error("`{}` is quantised ({label}); widen its F16 or F32 file, then quantise the result", path.display())]
    Quantised { path: PathBuf, label: String },
    #[error("`{}` is not a plain llama model: {what}; widen another model", path.display())]
    Unsuited { path: PathBuf, what: String },
    #[error("{0}")]
    Size(String),
    #[error("`{}` would be overwritten by its own widening; choose another output", path.display())]
    SameFile { path: PathBuf },
}

impl Widen {
    /// Sizes for a model of about `parameters` weights with the layers of `src`, and a feed-forward part as many times
    /// as wide as the residual stream as it is there.
    pub fn for_parameters(src: &Path, parameters: u64) -> Result<Widen, WidenError> {
        let from = Source::open(src)?.sizes;
        let step = lcm(STEP, from.head);
        let at = |dim: u32| {
            let wanted = (from.ffn as u64 * dim as u64).div_ceil(from.dim as u64);
            let ffn = wanted.next_multiple_of(STEP as u64).max(from.ffn as u64) as u32;
            Widen { dim, ffn, kv_heads: None, seed: 0 }
        };
        let off = |widen: &Widen| {
            let to = from.widened(widen);
            to.map_or(u64::MAX, |to| to.parameters().abs_diff(parameters))
        };
        let dims = (1..=MAX_WIDTH / step).map(|n| n * step).filter(|&dim| dim >= from.dim);
        let nearest = dims.map(at).filter(|widen| from.widened(widen).is_ok()).min_by_key(off);
        nearest.filter(|widen| off(widen) <= parameters / 4).ok_or_else(|| {
            let possible = nearest.and_then(|widen| from.widened(&widen).ok()).unwrap_or(from).parameters();
            WidenError::Size(format!(
                "no width gives about {parameters} weights; ask for about {possible}, the nearest"
            ))
        })
    }
}

/// Write a widened copy of the model at `src` to `dst`. `progress` is told the fraction done.
pub fn widen(src: &Path, dst: &Path, options: &Widen, progress: &mut dyn FnMut(f32)) -> Result<Summary, WidenError> {
    let source = Source::open(src)?;
    if fs::canonicalize(dst).is_ok_and(|dst| fs::canonicalize(src).is_ok_and(|src| src == dst)) {
        return Err(WidenError::SameFile { path: dst.into() });
    }
    let from = source.sizes;
    let to = from.widened(options).map_err(WidenError::Size)?;
    let plan = source.plan(&to)?;

    let mut writer = GgufWriter::new();
    writer.copy(&source.file, |key| !key.starts_with("general.size_label"));
    writer.set("general.name", format!("{} widened", source.file.name().unwrap_or("model".into())).as_str());
    writer.set("general.file_type", 1u32);
    writer.set("foretoken.widened", format!("dim {} to {}, ffn {} to {}", from.dim, to.dim, from.ffn, to.ffn).as_str());
    writer.set("llama.embedding_length", to.dim);
    writer.set("llama.feed_forward_length", to.ffn);
    writer.set("llama.attention.head_count", to.heads);
    writer.set("llama.attention.head_count_kv", to.kv_heads);
    writer.set(EPSILON, (source.epsilon as f64 * from.dim as f64 / to.dim as f64) as f32);
    for part in &plan {
        writer.tensor(&part.name, part.kind(), &part.shape(&to));
    }

    let total = writer.parameters().max(1);
    let mut noise = Noise::new(options.seed);
    let (mut parts, mut done) = (plan.iter(), 0);
    let bytes = writer.write(dst, |tensor, out| {
        let part = parts.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        source.write(part, &to, &mut noise, out)?;
        done += tensor.elements();
        progress(done as f32 / total as f32);
        Ok(())
    })?;
    Ok(Summary { from, to, parameters: writer.parameters(), bytes })
}

impl Sizes {
    /// The sizes after widening, or why there are none.
    fn widened(&self, options: &Widen) -> Result<Sizes, String> {
        let Sizes { dim, ffn, heads, kv_heads, head, .. } = *self;
        let Widen { dim: wide, ffn: deep, .. } = *options;
        if wide < dim || deep < ffn {
            return Err(format!(
                "dim {wide} and ffn {deep} are smaller than the model's {dim} and {ffn}; widen, not narrow"
            ));
        }
        if wide > MAX_WIDTH || deep > 8 * MAX_WIDTH {
            return Err(format!(
                "dim {wide} or ffn {deep} is too large; dim goes up to {MAX_WIDTH}, ffn to 8 times that"
            ));
        }
        if wide % head != 0 || wide / head < heads {
            return Err(format!("dim {wide} does not hold {heads} or more heads of {head}; use a multiple of {head}"));
        }
        if deep % 32 != 0 {
            return Err(format!("ffn {deep} is not a multiple of 32, as the fast kernels need"));
        }
        let group = heads / kv_heads;
        let fits = |n: &u32| (wide / head) % n == 0 && *n >= kv_heads && wide / head / n >= group;
        let wide_kv = match options.kv_heads {
            Some(n) if n > 0 && fits(&n) => n,
            Some(n) => {
                return Err(format!(
                    "{n} key-value heads do not divide {} heads into groups of {group} or more, or are fewer than {kv_heads}",
                    wide / head
                ))
            }
            None => (1..=wide / head).rev().find(fits).ok_or_else(|| {
                format!("dim {wide} has {} heads, which hold no groups of {group}; choose another", wide / head)
            })?,
        };
        Ok(Sizes { dim: wide, ffn: deep, heads: wide / head, kv_heads: wide_kv, ..*self })
    }

    /// The number of weights with an output matrix of its own.
    fn parameters(&self) -> u64 {
        let [dim, ffn, heads, kv, head, layers, words] =
            [self.dim, self.ffn, self.heads, self.kv_heads, self.head, self.layers, self.vocabulary].map(u64::from);
        let layer = 2 * dim * heads * head + 2 * dim * kv * head + 3 * dim * ffn + 2 * dim;
        2 * words * dim + dim + layers * layer
    }
}

/// The model to widen, checked.
struct Source {
    file: GgufFile,
    sizes: Sizes,
    epsilon: f32,
}

/// One tensor of the result.
struct Part {
    name: String,
    /// The tensor it is made from.
    old: Tensor,
    role: Role,
}

/// What a tensor does with the residual stream, which says how it is padded.
enum Role {
    /// Token embeddings: rows of the residual stream, zero beyond the old width.
    Embed,
    /// RMS norm weights.
    Norm,
    /// Rows that read the residual stream. The new columns meet zeros, the new rows lead to zeros: all random.
    /// Holds for each row the old row that goes there.
    Read(Vec<Option<usize>>),
    /// Rows that write the residual stream: zero wherever new. Holds the new column of each old one.
    Write(Vec<usize>, usize),
    /// Nothing that depends on the width.
    Keep,
}

impl Part {
    fn kind(&self) -> TensorType {
        match self.role {
            Role::Norm => TensorType::F32,
            Role::Keep => self.old.kind,
            _ => TensorType::F16,
        }
    }

    fn shape(&self, to: &Sizes) -> Vec<u64> {
        let dim = to.dim as u64;
        match &self.role {
            Role::Embed => vec![dim, to.vocabulary as u64],
            Role::Norm => vec![dim],
            Role::Read(rows) => vec![dim, rows.len() as u64],
            Role::Write(_, width) => vec![*width as u64, dim],
            Role::Keep => self.old.shape.clone(),
        }
    }
}

impl Source {
    fn open(path: &Path) -> Result<Source, WidenError> {
        let file = GgufFile::open(path)?;
        file.check()?;
        let path = || file.path().to_path_buf();
        let architecture = file.architecture().unwrap_or_default();
        if architecture != "llama" {
            return Err(WidenError::Architecture { path: path(), architecture: architecture.into_owned() });
        }
        let floats = [TensorType::F32, TensorType::F16, TensorType::BF16];
        if let Some(quantised) = file.tensors().iter().find(|t| !floats.contains(&t.kind)) {
            return Err(WidenError::Quantised { path: path(), label: quantised.kind.name() });
        }
        let unsuited = |what: String| WidenError::Unsuited { path: path(), what };
        if file.shards().count() > 1 {
            return Err(unsuited("it is split into shards, which llama.cpp's llama-gguf-split merges".into()));
        }
        let number = |name: &str| {
            let n = file.network(name).filter(|&n| n > 0);
            n.ok_or_else(|| unsuited(format!("llama.{name} is not one number above zero")))
        };
        let (dim, heads) = (number("embedding_length")?, number("attention.head_count")?);
        let kv_heads = if file.get(KV_HEADS).is_some() { number("attention.head_count_kv")? } else { heads };
        let head = file.network("attention.key_length").unwrap_or(dim / heads);
        if file.network("attention.value_length").is_some_and(|n| n != head) || head == 0 || heads % kv_heads != 0 {
            return Err(unsuited("its heads have several sizes".into()));
        }
        if file.network("expert_count").is_some_and(|n| n > 0) {
            return Err(unsuited("it is a mixture of experts".into()));
        }
        let vocabulary = file.tensor("token_embd.weight").and_then(|t| t.shape.get(1)).and_then(|&n| n.try_into().ok());
        let vocabulary = vocabulary.ok_or_else(|| unsuited("token_embd.weight is missing".into()))?;
        let epsilon = file.f32(EPSILON).ok_or_else(|| unsuited(format!("{EPSILON} is missing")))?;
        let (ffn, layers) = (number("feed_forward_length")?, number("block_count")?);
        let sizes = Sizes { dim, ffn, heads, kv_heads, head, layers, vocabulary };
        let fits = |n: u32| n <= MAX_WIDTH * 8;
        if ![dim, ffn, heads, head].into_iter().all(fits) || heads as u64 * head as u64 > dim as u64 * 8 {
            return Err(unsuited("its sizes are out of bounds".into()));
        }
        Ok(Source { file, sizes, epsilon })
    }

    /// Every tensor of the result in its order. Whatever the source lacks or has too much is an error.
    fn plan(&self, to: &Sizes) -> Result<Vec<Part>, WidenError> {
        let Sizes { dim, ffn, heads, kv_heads, head, layers, vocabulary } = self.sizes;
        let [dim, ffn, heads, kv_heads, head] = [dim, ffn, heads, kv_heads, head].map(|n| n as usize);
        let [wide_ffn, wide_heads, wide_kv] = [to.ffn, to.heads, to.kv_heads].map(|n| n as usize);
        let unsuited = |what: String| WidenError::Unsuited { path: self.file.path().into(), what };

        let (group, wide_group) = (heads / kv_heads, wide_heads / wide_kv);
        let place = |i: usize| (i / head / group * wide_group + i / head % group) * head + i % head;
        let query: Vec<usize> = (0..heads * head).map(place).collect();
        let key: Vec<usize> = (0..kv_heads * head).collect();
        let unit: Vec<usize> = (0..ffn).collect();
        let words: Vec<usize> = (0..vocabulary as usize).collect();

        let mut parts: Vec<Part> = Vec::new();
        let mut add = |name: String, from: &str, shape: &[usize], role: Role| {
            let old = self.file.tensor(from).ok_or_else(|| unsuited(format!("{from} is missing")))?;
            if !old.shape.iter().copied().eq(shape.iter().map(|&n| n as u64)) {
                return Err(unsuited(format!("{from} has the shape {:?}, not {shape:?}", old.shape)));
            }
            parts.push(Part { name, old: old.clone(), role });
            Ok(())
        };
        let embedding = "token_embd.weight";
        let output = self.file.tensor("output.weight").map_or(embedding, |_| "output.weight");
        add(embedding.into(), embedding, &[dim, words.len()], Role::Embed)?;
        add("output_norm.weight".into(), "output_norm.weight", &[dim], Role::Norm)?;
        add("output.weight".into(), output, &[dim, words.len()], Role::Read(rows(&words, words.len())))?;
        let frequencies = self.file.tensor("rope_freqs.weight");
        if frequencies.is_some() {
            add("rope_freqs.weight".into(), "rope_freqs.weight", &[head / 2], Role::Keep)?;
        }
        for layer in 0..layers {
            let mut add = |part: &str, shape: &[usize], role| {
                let name = format!("blk.{layer}.{part}.weight");
                add(name.clone(), &name, shape, role)
            };
            add("attn_norm", &[dim], Role::Norm)?;
            add("attn_q", &[dim, heads * head], Role::Read(rows(&query, wide_heads * head)))?;
            add("attn_k", &[dim, kv_heads * head], Role::Read(rows(&key, wide_kv * head)))?;
            add("attn_v", &[dim, kv_heads * head], Role::Read(rows(&key, wide_kv * head)))?;
            add("attn_output", &[heads * head, dim], Role::Write(query.clone(), wide_heads * head))?;
            add("ffn_norm", &[dim], Role::Norm)?;
            add("ffn_gate", &[dim, ffn], Role::Read(rows(&unit, wide_ffn)))?;
            add("ffn_up", &[dim, ffn], Role::Read(rows(&unit, wide_ffn)))?;
            add("ffn_down", &[ffn, dim], Role::Write(unit.clone(), wide_ffn))?;
        }
        match self.file.tensors().iter().find(|t| parts.iter().all(|part| part.old.name != t.name)) {
            Some(stranger) => Err(unsuited(format!("it has a tensor `{}`", stranger.name))),
            None => Ok(parts),
        }
    }

    fn write(&self, part: &Part, to: &Sizes, noise: &mut Noise, out: &mut dyn Write) -> io::Result<()> {
        let old = self.file.data(&part.old).ok_or(io::ErrorKind::UnexpectedEof)?;
        let (dim, wide) = (self.sizes.dim as usize, to.dim as usize);
        match &part.role {
            Role::Keep => out.write_all(old),
            Role::Norm => {
                let scale = (dim as f64 / wide as f64).sqrt();
                let weights = numbers(old, part.old.kind).map(|w| (w as f64 * scale) as f32);
                weights.chain(std::iter::repeat_n(1.0, wide - dim)).try_for_each(|w| out.write_all(&w.to_le_bytes()))
            }
            Role::Embed => {
                let zeros = vec![0; 2 * (wide - dim)];
                halves(old, part.old.kind).chunks_exact(2 * dim).try_for_each(|row| {
                    out.write_all(row)?;
                    out.write_all(&zeros)
                })
            }
            Role::Read(rows) => {
                let old = halves(old, part.old.kind);
                rows.iter().try_for_each(|row| match row {
                    Some(row) => {
                        out.write_all(&old[2 * dim * row..][..2 * dim])?;
                        noise.write(wide - dim, out)
                    }
                    None => noise.write(wide, out),
                })
            }
            Role::Write(columns, width) => {
                let mut new = vec![0; 2 * width];
                for row in halves(old, part.old.kind).chunks_exact(2 * columns.len()) {
                    for (column, weight) in columns.iter().zip(row.chunks_exact(2)) {
                        new[2 * column..][..2].copy_from_slice(weight);
                    }
                    out.write_all(&new)?;
                }
                new.fill(0);
                (dim..wide).try_for_each(|_| out.write_all(&new))
            }
        }
    }
}

/// For each of `n` new rows, the old one that goes there; `places` are the new rows of the old ones.
fn rows(places: &[usize], n: usize) -> Vec<Option<usize>> {
    let mut rows = vec![None; n];
    places.iter().enumerate().for_each(|(old, &new)| rows[new] = Some(old));
    rows
}

fn numbers(bytes: &[u8], kind: TensorType) -> Box<dyn Iterator<Item = f32> + '_> {
    match kind {
        TensorType::F32 => Box::new(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        TensorType::BF16 => Box::new(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        _ => Box::new(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())),
    }
}

/// The numbers as F16 bytes.
fn halves(bytes: &[u8], kind: TensorType) -> Vec<u8> {
    match kind {
        TensorType::F16 => bytes.to_vec(),
        _ => numbers(bytes, kind).flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
    }
}

/// Random F16 weights, uniform with a standard deviation of 0.02: one block, written from many places of it. They
/// need to be different enough that no store or cache makes one of many, and nothing more.
struct Noise {
    block: Vec<u8>,
    state: u64,
}

impl Noise {
    fn new(seed: u64) -> Noise {
        let mut noise = Noise { block: Vec::new(), state: seed ^ 0x9e37_79b9_7f4a_7c15 };
        noise.state = noise.state.max(1);
        let half_width = 0.02 * 3f32.sqrt();
        noise.block = Vec::with_capacity(2 * NOISE);
        for _ in 0..NOISE {
            let unit = (noise.next() >> 40) as f32 / (1u64 << 24) as f32;
            noise.block.extend(f16::from_f32((2.0 * unit - 1.0) * half_width).to_le_bytes());
        }
        noise
    }

    fn write(&mut self, mut n: usize, out: &mut dyn Write) -> io::Result<()> {
        while n > 0 {
            let start = self.next() as usize % NOISE;
            let now = n.min(NOISE - start);
            out.write_all(&self.block[2 * start..2 * (start + now)])?;
            n -= now;
        }
        Ok(())
    }

    /// xorshift64 (Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

fn lcm(a: u32, b: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}

const EPSILON: &str = "llama.attention.layer_norm_rms_epsilon";
const KV_HEADS: &str = "llama.attention.head_count_kv";
/// Widths chosen here are multiples of this, the block of the K-quants.
const STEP: u32 = 256;
const MAX_WIDTH: u32 = 1 << 15;
/// Numbers in the random block: 8 MiB.
const NOISE: usize = 1 << 22;
