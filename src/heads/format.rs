//! The file that heads are kept in: a GGUF file, version 3.
//!
//! | key | type | what |
//! |---|---|---|
//! | `general.architecture` | string | `medusa` |
//! | `general.name` | string | for people |
//! | `medusa.head_count` | u32 | heads, 1 to 64 |
//! | `medusa.block_count` | u32 | blocks of each head, 1 to 16 |
//! | `medusa.embedding_length` | u32 | width d of the hidden state |
//! | `medusa.vocab_size` | u32 | logits V of each head |
//! | `medusa.own_output` | bool | whether each head has an output matrix of its own; if not, the target's serves all |
//! | `medusa.target.name` | string | the target's `general.name` or file, for messages |
//! | `medusa.target.tokenizer` | u64 | the target's tokenizer, as [`TargetInfo::tokenizer`]; 0: not known |
//!
//! | tensor | shape (row length first) | type |
//! |---|---|---|
//! | `head.{k}.{b}.weight` | d, d | F16 or F32 |
//! | `head.{k}.{b}.bias` | d | F32 |
//! | `head.{k}.output.weight` | d, V | F16 or F32; only with `medusa.own_output` |
//!
//! Heads k and blocks b count from 0. With h the target's state after its final norm, block b of a head is
//! h ← h + SiLU(W h + b), and its logits are the output matrix times h. Head k guesses the token k + 2 places after the
//! one that h belongs to. Every tensor begins at a multiple of 32 bytes. There are no other tensors.
//!
//! [`TargetInfo::tokenizer`]: foretoken_drafter::TargetInfo::tokenizer

use std::io;
use std::path::{Path, PathBuf};

use half::f16;

use crate::gguf::{GgufError, GgufFile, GgufWriter, TensorType};

/// How many heads there are, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Heads.
    pub heads: usize,
    /// Blocks of each head.
    pub blocks: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Whether each head has an output matrix of its own.
    pub own_output: bool,
}

/// What heads are, and for which target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Their sizes.
    pub sizes: Sizes,
    /// The target's name, for messages.
    pub target: String,
    /// The fingerprint of the target's tokenizer; 0: not known.
    pub tokenizer: u64,
}

/// A tensor of the file. Heads and blocks count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Part {
    /// W of a block.
    Weight { head: usize, block: usize },
    /// b of a block.
    Bias { head: usize, block: usize },
    /// A head's own output matrix.
    Output { head: usize },
}

/// The bytes of one tensor, aligned to 32 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// How its numbers are stored: [`TensorType::F32`] or [`TensorType::F16`].
    pub kind: TensorType,
    /// Length of a row, and how many rows; 1 for a bias.
    pub shape: [usize; 2],
    /// The numbers, little-endian.
    pub bytes: &'a [u8],
}

impl Data<'_> {
    /// The numbers.
    pub fn to_f32(self) -> Vec<f32> {
        match self.kind == TensorType::F16 {
            true => self.bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32()).collect(),
            false => self.bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
        }
    }
}

impl Part {
    /// Its name in the file.
    pub fn name(self) -> String {
        match self {
            Part::Weight { head, block } => format!("head.{head}.{block}.weight"),
            Part::Bias { head, block } => format!("head.{head}.{block}.bias"),
            Part::Output { head } => format!("head.{head}.output.weight"),
        }
    }
}

impl Sizes {
    /// Every tensor, in the file's order.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        (0..self.heads).flat_map(move |head| {
            let blocks =
                (0..self.blocks).flat_map(move |block| [Part::Weight { head, block }, Part::Bias { head, block }]);
            blocks.chain(self.own_output.then_some(Part::Output { head }))
        })
    }

    /// The row length and the number of rows of a tensor.
    pub fn shape(&self, part: Part) -> [usize; 2] {
        match part {
            Part::Weight { .. } => [self.n_embd, self.n_embd],
            Part::Bias { .. } => [self.n_embd, 1],
            Part::Output { .. } => [self.n_embd, self.n_vocab],
        }
    }

    fn checked(self) -> Result<Sizes, String> {
        let Sizes { heads, blocks, n_embd, n_vocab, .. } = self;
        match () {
            () if !(1..=MAX_HEADS).contains(&heads) => Err(format!("{heads} heads; there can be 1 to {MAX_HEADS}")),
            () if !(1..=MAX_BLOCKS).contains(&blocks) => {
                Err(format!("{blocks} blocks per head; there can be 1 to {MAX_BLOCKS}"))
            }
            () if n_embd == 0 || n_vocab == 0 => Err(format!("a width of {n_embd} and {n_vocab} tokens")),
            () => Ok(self),
        }
    }
}

/// A file of heads, checked: every tensor is there, of a type and shape that it may have, and complete.
#[derive(Debug)]
pub struct HeadsFile {
    file: GgufFile,
    description: Description,
}

impl HeadsFile {
    /// Map the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or holds something else than heads.
    pub fn open(path: &Path) -> Result<HeadsFile, HeadsError> {
        let file = GgufFile::open(path)?;
        let wrong = |flaw: String| HeadsError::Damaged { path: path.to_owned(), flaw };
        match file.architecture() {
            Some(architecture) if architecture == ARCHITECTURE => {}
            other => {
                let found = other.unwrap_or("nothing".into()).into_owned();
                return Err(HeadsError::Foreign { path: path.to_owned(), found });
            }
        }
        file.check()?;
        let number = |key: &str| {
            let n = file.u32(key).ok_or_else(|| wrong(format!("{key} is not one number")))?;
            Ok::<usize, HeadsError>(n as usize)
        };
        let sizes = Sizes {
            heads: number(HEADS)?,
            blocks: number(BLOCKS)?,
            n_embd: number(WIDTH)?,
            n_vocab: number(VOCABULARY)?,
            own_output: file.bool(OWN_OUTPUT).ok_or_else(|| wrong(format!("{OWN_OUTPUT} is not true or false")))?,
        };
        let sizes = sizes.checked().map_err(wrong)?;
        let tokenizer = file.u64(TOKENIZER).ok_or_else(|| wrong(format!("{TOKENIZER} is not one number")))?;
        let target = file.text(TARGET).unwrap_or_default().into_owned();
        let heads = HeadsFile { description: Description { sizes, target, tokenizer }, file };
        for part in sizes.parts() {
            heads.find(part).map_err(wrong)?;
        }
        let (found, expected) = (heads.file.tensors().len(), sizes.parts().count());
        match found == expected {
            true => Ok(heads),
            false => Err(wrong(format!("it has {found} tensors, not {expected}"))),
        }
    }

    /// What the heads are, and for which target.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its bytes.
    pub fn file_size(&self) -> u64 {
        self.file.file_size()
    }

    /// Whether these heads may be used with a target of these sizes and this tokenizer (0: not known).
    ///
    /// # Errors
    /// They are for another one: the message says by what it differs.
    pub fn check(&self, n_embd: usize, n_vocab: usize, tokenizer: u64) -> Result<(), HeadsError> {
        let Description { sizes, tokenizer: mine, target } = &self.description;
        let difference = match () {
            () if sizes.n_embd != n_embd => {
                format!("they take hidden states of width {}, the target's have {n_embd}", sizes.n_embd)
            }
            () if sizes.n_vocab != n_vocab => format!("they know {} tokens, the target {n_vocab}", sizes.n_vocab),
            () if *mine != tokenizer && *mine != 0 && tokenizer != 0 => "its tokens are others".to_owned(),
            () => return Ok(()),
        };
        Err(HeadsError::OtherTarget { path: self.path().to_owned(), target: target.clone(), difference })
    }

    /// The bytes of a tensor, in place; `None` if there is no such head or block.
    pub fn data(&self, part: Part) -> Option<Data<'_>> {
        self.find(part).ok()
    }

    /// Where a tensor's bytes stand in the file; `None` if there is no such head or block.
    pub fn place(&self, part: Part) -> Option<std::ops::Range<usize>> {
        self.file.place(self.file.tensor(&part.name())?)
    }

    fn find(&self, part: Part) -> Result<Data<'_>, String> {
        let (name, shape) = (part.name(), self.description.sizes.shape(part));
        let tensor = self.file.tensor(&name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
        let kinds: &[TensorType] = match part {
            Part::Bias { .. } => &[TensorType::F32],
            _ => &[TensorType::F32, TensorType::F16],
        };
        if !kinds.contains(&tensor.kind) {
            return Err(format!("tensor `{name}` is of type {}", tensor.kind.name()));
        }
        // Lengths of 1 at the end may be written or not.
        let [row, rows] = shape.map(|n| n as u64);
        if tensor.shape.first() != Some(&row) || tensor.shape.iter().skip(1).product::<u64>() != rows {
            return Err(format!("tensor `{name}` has the shape {:?}, not {row} × {rows}", tensor.shape));
        }
        let bytes = self.file.data(tensor).ok_or_else(|| format!("tensor `{name}` is not complete"))?;
        if bytes.as_ptr().addr() % ALIGNMENT != 0 {
            return Err(format!("tensor `{name}` does not begin at a multiple of {ALIGNMENT} bytes"));
        }
        Ok(Data { kind: tensor.kind, shape, bytes })
    }
}

/// Write heads to `path`, whole or not at all: matrices as F16, biases as F32. `numbers` is asked for every tensor, in
/// the order of [`Sizes::parts`]. Returns the file's size.
///
/// # Errors
/// The sizes are impossible, a number does not fit, `numbers` fails, or the file cannot be written.
pub fn write<E: From<HeadsError>>(
    path: &Path,
    description: &Description,
    mut numbers: impl FnMut(Part) -> Result<Vec<f32>, E>,
) -> Result<u64, E> {
    let wrong = |flaw: String| HeadsError::Unwritable { path: path.to_owned(), flaw };
    let sizes = description.sizes.checked().map_err(wrong)?;
    let size = |n: usize| u32::try_from(n).map_err(|_| wrong(format!("{n} is too large a size")));
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", ARCHITECTURE);
    writer.set("general.name", format!("Medusa heads for {}", description.target).as_str());
    writer.set(HEADS, size(sizes.heads)?);
    writer.set(BLOCKS, size(sizes.blocks)?);
    writer.set(WIDTH, size(sizes.n_embd)?);
    writer.set(VOCABULARY, size(sizes.n_vocab)?);
    writer.set(OWN_OUTPUT, sizes.own_output);
    writer.set(TARGET, description.target.as_str());
    writer.set(TOKENIZER, description.tokenizer);
    for part in sizes.parts() {
        let [row, rows] = sizes.shape(part).map(|n| n as u64);
        match part {
            Part::Bias { .. } => writer.tensor(&part.name(), TensorType::F32, &[row]),
            _ => writer.tensor(&part.name(), TensorType::F16, &[row, rows]),
        }
    }
    let mut parts = sizes.parts();
    let mut failure = None;
    let written = writer.write(path, |tensor, out| {
        let Some(part) = parts.next() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut fail = |error: E| {
            failure = Some(error);
            Err(io::ErrorKind::Other.into())
        };
        let numbers = match numbers(part) {
            Ok(numbers) => numbers,
            Err(error) => return fail(error),
        };
        match encoded(&numbers, tensor.kind) {
            Some(bytes) => out.write_all(&bytes),
            None => {
                fail(wrong(format!("`{}` has numbers that {} cannot hold", part.name(), tensor.kind.name())).into())
            }
        }
    });
    match (written, failure) {
        (_, Some(failure)) => Err(failure),
        (written, None) => Ok(written.map_err(HeadsError::from)?),
    }
}

/// Give the heads at `from` the cost of heads on a state of `n_embd` numbers, without changing what they say where the
/// new numbers are zero: new columns are noise, new rows zero. Returns the file's size.
///
/// # Errors
/// The heads cannot be read, are wider already, or the file cannot be written.
pub fn widen(from: &Path, n_embd: usize, to: &Path) -> Result<u64, HeadsError> {
    let heads = HeadsFile::open(from)?;
    let old = heads.description().sizes;
    if !(old.n_embd..=MAX_WIDTH.max(old.n_embd)).contains(&n_embd) {
        return Err(HeadsError::Width { path: from.to_owned(), width: old.n_embd, wanted: n_embd });
    }
    let wide = Description { sizes: Sizes { n_embd, ..old }, ..heads.description().clone() };
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 0.04 - 0.02
    };
    write(to, &wide, |part| {
        let numbers = heads.data(part).map(Data::to_f32).unwrap_or_default();
        let [row, rows] = old.shape(part);
        let wide_rows = wide.sizes.shape(part)[1];
        let mut out = Vec::with_capacity(n_embd * wide_rows);
        for row in numbers.chunks(row.max(1)).take(rows) {
            out.extend_from_slice(row);
            match part {
                Part::Bias { .. } => out.resize(n_embd, 0.0),
                _ => out.extend((row.len()..n_embd).map(|_| noise())),
            }
        }
        out.resize(n_embd * wide_rows, 0.0);
        Ok::<_, HeadsError>(out)
    })
}

/// `None`: a number is not finite, or not in this type.
fn encoded(numbers: &[f32], kind: TensorType) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(numbers.len() * 4);
    for &x in numbers {
        match kind == TensorType::F16 {
            true if f16::from_f32(x).is_finite() => bytes.extend(f16::from_f32(x).to_le_bytes()),
            false if x.is_finite() => bytes.extend(x.to_le_bytes()),
            _ => return None,
        }
    }
    Some(bytes)
}

/// What is wrong with a file of heads, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum HeadsError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("`{}` holds no Medusa heads but {found}; name a file made by `foretoken prepare medusa`", path.display())]
    Foreign { path: PathBuf, found: String },
    #[error("`{}` is damaged: {flaw}; prepare the heads again", path.display())]
    Damaged { path: PathBuf, flaw: String },
    #[error("`{}` has heads for another target ({target}): {difference}; use heads trained for this one", path.display())]
    OtherTarget { path: PathBuf, target: String, difference: String },
    #[error("cannot write `{}`: {flaw}", path.display())]
    Unwritable { path: PathBuf, flaw: String },
    #[error("`{}` has heads of width {width}; they can be widened to {width} or more, up to {MAX_WIDTH}, not to {wanted}", path.display())]
    Width { path: PathBuf, width: usize, wanted: usize },
}

const ARCHITECTURE: &str = "medusa";
const HEADS: &str = "medusa.head_count";
const BLOCKS: &str = "medusa.block_count";
const WIDTH: &str = "medusa.embedding_length";
const VOCABULARY: &str = "medusa.vocab_size";
const OWN_OUTPUT: &str = "medusa.own_output";
const TARGET: &str = "medusa.target.name";
const TOKENIZER: &str = "medusa.target.tokenizer";

/// More would be a mistake, and a header's word for it is not taken.
pub const MAX_HEADS: usize = 64;
/// The same for the blocks of a head.
pub const MAX_BLOCKS: usize = 16;
/// As wide as models are made by `prepare widen`.
const MAX_WIDTH: usize = 1 << 15;
const ALIGNMENT: usize = 32;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const SIZES: Sizes = Sizes { heads: 3, blocks: 2, n_embd: 5, n_vocab: 7, own_output: true };

    fn description() -> Description {
        Description { sizes: SIZES, target: "toy".into(), tokenizer: 99 }
    }

    /// Numbers that tell their place.
    fn numbers(part: Part) -> Vec<f32> {
        let start = part.name().bytes().map(f32::from).sum::<f32>();
        let [row, rows] = SIZES.shape(part);
        (0..row * rows).map(|i| start + i as f32).collect()
    }

    fn written(path: &Path) {
        write(path, &description(), |part| Ok::<_, HeadsError>(numbers(part))).unwrap();
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.gguf");
        written(&path);
        let file = HeadsFile::open(&path).unwrap();
        assert_eq!(*file.description(), description());
        for part in SIZES.parts() {
            let data = file.data(part).unwrap();
            assert_eq!((data.to_f32(), data.shape), (numbers(part), SIZES.shape(part)), "{part:?}");
            assert_eq!(data.kind == TensorType::F32, matches!(part, Part::Bias { .. }));
        }
        assert!(file.data(Part::Output { head: 3 }).is_none());
        assert!(file.data(Part::Weight { head: 0, block: 2 }).is_none());
    }

    #[test]
    fn heads_for_another_target_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.gguf");
        written(&path);
        let file = HeadsFile::open(&path).unwrap();
        assert!(file.check(5, 7, 99).is_ok() && file.check(5, 7, 0).is_ok());
        let says = |n_embd, n_vocab, tokenizer| file.check(n_embd, n_vocab, tokenizer).unwrap_err().to_string();
        assert!(says(6, 7, 99).contains("width 5, the target's have 6"));
        assert!(says(5, 8, 99).contains("know 7 tokens, the target 8"));
        assert!(says(5, 7, 98).contains("tokens are others"));
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.gguf");
        let says = |writer: &GgufWriter| {
            let zeros =
                |tensor: &crate::gguf::Tensor, out: &mut dyn Write| out.write_all(&vec![0; tensor.bytes as usize]);
            writer.write(&path, zeros).unwrap();
            HeadsFile::open(&path).unwrap_err().to_string()
        };
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", "llama");
        assert!(says(&writer).contains("no Medusa heads but llama"));
        writer.set("general.architecture", ARCHITECTURE);
        assert!(says(&writer).contains("medusa.head_count is not one number"));
        writer.set(HEADS, 1u32);
        writer.set(BLOCKS, 1u32);
        writer.set(WIDTH, 4u32);
        writer.set(VOCABULARY, 8u32);
        writer.set(OWN_OUTPUT, false);
        writer.set(TOKENIZER, 1u64);
        assert!(says(&writer).contains("`head.0.0.weight` is missing"));
        let with = |kind, shape: &[u64], bias| {
            let mut writer = writer_of(&writer);
            writer.tensor("head.0.0.weight", kind, shape);
            writer.tensor("head.0.0.bias", bias, &[4]);
            writer
        };
        assert!(says(&with(TensorType::BF16, &[4, 4], TensorType::F32)).contains("of type BF16"));
        assert!(says(&with(TensorType::F16, &[4, 5], TensorType::F32)).contains("shape [4, 5]"));
        assert!(says(&with(TensorType::F16, &[4, 4], TensorType::F16)).contains("`head.0.0.bias` is of type F16"));
        let mut more = with(TensorType::F16, &[4, 4], TensorType::F32);
        more.tensor("head.0.output.weight", TensorType::F16, &[4, 8]);
        assert!(says(&more).contains("3 tensors, not 2"));
        writer.set(HEADS, u32::MAX);
        assert!(says(&writer).contains("there can be 1 to 64"));
    }

    /// The same keys again.
    fn writer_of(writer: &GgufWriter) -> GgufWriter {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.gguf");
        writer.write(&path, |_, _| Ok(())).unwrap();
        let mut copy = GgufWriter::new();
        copy.copy(&GgufFile::open(&path).unwrap(), |_| true);
        copy
    }

    #[test]
    fn numbers_that_do_not_fit_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.gguf");
        for bad in [f32::NAN, f32::INFINITY, 1e6] {
            let filled = |part| Ok::<_, HeadsError>(numbers(part).iter().map(|_| bad).collect());
            let error = write(&path, &description(), filled).unwrap_err().to_string();
            assert!(error.contains("`head.0.0.weight` has numbers that F16 cannot hold"), "{error}");
        }
        let no = |_| Err(HeadsError::Foreign { path: "x".into(), found: "y".into() });
        assert!(matches!(write(&path, &description(), no), Err(HeadsError::Foreign { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("heads.gguf"), folder.path().join("copy.gguf"));
        written(&path);
        let sound = fs::read(&path).unwrap();
        // Up to 31 bytes after the last tensor are padding.
        for n in (0..sound.len() - 32).step_by(7) {
            fs::write(&copy, &sound[..n]).unwrap();
            assert!(HeadsFile::open(&copy).is_err(), "cut to {n} of {} bytes", sound.len());
        }
        let (mut state, mut refused) = (1u64, 0);
        for _ in 0..2_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mut bytes = sound.clone();
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] ^= 1 << (state >> 30 & 7);
            fs::write(&copy, &bytes).unwrap();
            match HeadsFile::open(&copy) {
                Ok(file) => file.description().sizes.parts().for_each(|part| drop(file.data(part).map(Data::to_f32))),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 200, "{refused}");
    }
}
