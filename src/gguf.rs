//! GGUF files: what a header says, and whether llama.cpp can load the file without dying; [`GgufWriter`] writes new ones.
//! Called before a model is loaded, by `inspect`, and by the tools that derive one model file from another. It never
//! loads a model and never changes a file in place.
//!
//! The header is parsed here and not by llama.cpp's reader: that one throws past its own handlers on a long string,
//! reserves memory for counts it has not seen, writes its complaints to stderr, and hands strings out as C strings, so
//! a token that contains a zero byte would come back cut. Tests in `llama` hold this parser against llama.cpp's: what this
//! one accepts, that one accepts too, and reads alike.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::map::{self, Mapping};

mod shards;
mod writer;

pub(crate) use shards::shard_names;
#[cfg(feature = "train")]
pub(crate) use writer::beside;
#[cfg(feature = "llama")]
pub(crate) use writer::{is_full, publish, room_for, write_error};
pub use writer::{Field, GgufWriter};

/// A GGUF file whose header has been read. The tensors' data stay on disk until asked for.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    bytes: Mapping,
    header: Header,
    /// The other shards of a model that is split into several files.
    others: Vec<GgufFile>,
}

impl GgufFile {
    fn open_one(path: &Path) -> Result<GgufFile, GgufError> {
        let path = path.to_path_buf();
        if path.as_os_str().is_empty() {
            return Err(GgufError::Unnamed);
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => GgufError::Missing { path: path.clone() },
            _ => GgufError::Read { path: path.clone(), source },
        };
        let kind = fs::metadata(&path).map_err(failed)?;
        if kind.is_dir() {
            return Err(GgufError::Directory { path });
        }
        if !kind.is_file() {
            return Err(GgufError::Special { path });
        }
        if kind.len() == 0 {
            return Err(GgufError::Empty { path });
        }
        let bytes = map::open(&path).map_err(failed)?;
        match Header::parse(&bytes) {
            Ok(header) => Ok(GgufFile { path, bytes, header, others: Vec::new() }),
            Err(Flaw::Foreign(looks_like)) => Err(GgufError::Foreign { path, looks_like }),
            Err(Flaw::Version(version)) => Err(GgufError::Version { path, version }),
            Err(Flaw::Damaged(flaw)) => Err(GgufError::Damaged { path, flaw }),
        }
    }

    /// Whether llama.cpp can be given this file: it is complete, and none of the values is there at which llama.cpp
    /// aborts the process. Whether the model runs is for llama.cpp to say.
    pub fn check(&self) -> Result<(), GgufError> {
        for shard in self.shards() {
            let (needs, has) = (shard.header.end(), shard.bytes.len() as u64);
            if needs > has {
                return Err(GgufError::Truncated { path: shard.path.clone(), needs, has });
            }
        }
        match self.header.unloadable(&self.bytes) {
            Some(flaw) => Err(GgufError::Unloadable { path: self.path.clone(), flaw }),
            None => Ok(()),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size in bytes, with all other shards.
    pub fn file_size(&self) -> u64 {
        self.shards().map(|shard| shard.bytes.len() as u64).sum()
    }

    /// The files of the model: this one, and the others if it is split.
    pub fn shards(&self) -> impl Iterator<Item = &GgufFile> {
        std::iter::once(self).chain(&self.others)
    }

    /// The GGUF version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// All keys with their values, in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.header.keys.iter().map(|key| (key.name.as_str(), key.value(&self.bytes)))
    }

    /// The value of `key`, if the file has it.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.header.get(&self.bytes, key)
    }

    /// The value of `key` if it is a string. Bytes that are not UTF-8 are replaced.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)?.text().map(String::from_utf8_lossy)
    }

    /// The value of `key` if it is an integer of any width that fits.
    pub fn u32(&self, key: &str) -> Option<u32> {
        self.u64(key)?.try_into().ok()
    }

    /// The value of `key` if it is an integer of any width that is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.integer()?.try_into().ok()
    }

    /// The value of `key` if it is a floating-point number.
    pub fn f32(&self, key: &str) -> Option<f32> {
        self.get(key)?.float().map(|x| x as f32)
    }

    /// The value of `key` if it is true or false.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(yes) => Some(yes),
            _ => None,
        }
    }

    /// The strings of `key` as they stand in the file: a token need not be UTF-8.
    pub fn texts(&self, key: &str) -> Option<Vec<&[u8]>> {
        self.get(key)?.array()?.items().map(|item| item.text()).collect()
    }

    /// The integers of `key`, if it is an array of them.
    pub fn integers(&self, key: &str) -> Option<Vec<i128>> {
        self.get(key)?.array()?.items().map(|item| item.integer()).collect()
    }

    /// The floating-point numbers of `key`, if it is an array of them.
    pub fn floats(&self, key: &str) -> Option<Vec<f32>> {
        self.get(key)?.array()?.items().map(|item| item.float().map(|x| x as f32)).collect()
    }

    /// `general.architecture`: the prefix of the keys that describe the network.
    pub fn architecture(&self) -> Option<Cow<'_, str>> {
        self.text("general.architecture")
    }

    /// The key `{architecture}.{name}`, such as `llama.block_count`, as an integer.
    pub fn network(&self, name: &str) -> Option<u32> {
        self.u32(&format!("{}.{name}", self.architecture()?))
    }

    /// `general.name`.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        self.text("general.name")
    }

    /// What the weights are stored as: the file's own label, or the type that most of the bytes have.
    pub fn quantisation(&self) -> String {
        let label = self.u32("general.file_type").and_then(file_type_name);
        label.map_or_else(|| self.dominant_type().map_or_else(|| "none".into(), |t| t.name()), String::from)
    }

    /// The type that holds the most bytes; `None` without tensors.
    pub fn dominant_type(&self) -> Option<TensorType> {
        let tensors = || self.shards().flat_map(GgufFile::tensors);
        let bytes = |kind| tensors().filter(|t| t.kind == kind).map(|t| t.bytes).fold(0, u64::saturating_add);
        let kinds: HashSet<TensorType> = tensors().map(|t| t.kind).collect();
        kinds.into_iter().max_by_key(|&kind| (bytes(kind), kind))
    }

    /// The number of weights, in all shards.
    pub fn parameters(&self) -> u64 {
        self.shards().flat_map(GgufFile::tensors).map(Tensor::elements).fold(0, u64::saturating_add)
    }

    /// All tensors of this file, in its order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors().iter().find(|t| t.name == name)
    }

    /// The bytes of one of this file's tensors; `None` if the file ends before them.
    pub fn data(&self, tensor: &Tensor) -> Option<&[u8]> {
        self.bytes.get(self.place(tensor)?)
    }

    /// Where a tensor's bytes stand in the file.
    pub fn place(&self, tensor: &Tensor) -> Option<std::ops::Range<usize>> {
        let start = self.header.data_offset.checked_add(tensor.offset)?;
        let end = start.checked_add(tensor.bytes)?;
        Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

/// One tensor as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// How its numbers are stored.
    pub kind: TensorType,
    /// Its sizes, the row length first, as ggml has them.
    pub shape: Vec<u64>,
    /// Where its bytes begin, counted from the start of the data.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Tensor {
    /// The number of weights.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |all, &n| all.saturating_mul(n))
    }
}

/// How a tensor's numbers are stored; only types that ggml knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType(u32);

impl TensorType {
    /// 32-bit floating point.
    pub const F32: TensorType = TensorType(0);
    /// 16-bit floating point.
    pub const F16: TensorType = TensorType(1);
    /// Floating point with the upper 16 bits of an F32.
    pub const BF16: TensorType = TensorType(30);

    /// The type with ggml's number `id`; `None` for numbers never given or withdrawn.
    pub fn new(id: u32) -> Option<TensorType> {
        TYPES.iter().any(|row| row.0 == id).then_some(TensorType(id))
    }

    /// ggml's number for the type.
    pub fn id(self) -> u32 {
        self.0
    }

    /// ggml's name for the type in upper case, as in file names: `F16`, `Q4_K`.
    pub fn name(self) -> String {
        self.row().1.to_owned()
    }

    /// How many numbers are stored together.
    pub(crate) fn block(self) -> u64 {
        self.row().2
    }

    /// How many bytes such a block takes.
    pub(crate) fn block_bytes(self) -> u64 {
        self.row().3
    }

    fn row(self) -> &'static (u32, &'static str, u64, u64) {
        // `new` admits only types of the table, and the constants are in it: the first row stands for none.
        TYPES.iter().find(|row| row.0 == self.0).unwrap_or(&TYPES[0])
    }
}

/// ggml's types: number, name, numbers stored together, and the bytes they take. A test in `llama` holds them against
/// ggml's own.
const TYPES: [(u32, &str, u64, u64); 35] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
];

/// One value of the header. Integers and floating-point numbers of all widths are alike here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer.
    Integer(i128),
    /// Any floating-point number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A string, whatever its bytes.
    Text(&'a [u8]),
    /// Several values of one type.
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    fn integer(self) -> Option<i128> {
        match self {
            Value::Integer(n) => Some(n),
            _ => None,
        }
    }

    fn float(self) -> Option<f64> {
        match self {
            Value::Float(x) => Some(x),
            _ => None,
        }
    }

    fn text(self) -> Option<&'a [u8]> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn array(self) -> Option<Array<'a>> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

/// An array in the header: values of one type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    item: u32,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The number of values.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The values.
    pub fn items(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor { bytes: self.bytes, at: 0 };
        (0..self.len).map_while(move |_| cursor.value(self.item).ok())
    }
}

/// What is wrong with a file, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GgufError {
    #[error("the name of a model file is empty; name a .gguf file")]
    Unnamed,
    #[error("`{}` does not exist; check the path", path.display())]
    Missing { path: PathBuf },
    #[error("`{}` is a directory; name the .gguf file in it", path.display())]
    Directory { path: PathBuf },
    #[error("`{}` is not a regular file; name a .gguf file", path.display())]
    Special { path: PathBuf },
    #[error("`{}` is empty; download or copy it again", path.display())]
    Empty { path: PathBuf },
    #[error("`{}` is not a GGUF file but {looks_like}", path.display())]
    Foreign { path: PathBuf, looks_like: &'static str },
    #[error("`{}` is GGUF version {version}, only 2 and 3 can be read; convert the model again", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("`{}` is damaged: {flaw}; download or convert it again", path.display())]
    Damaged { path: PathBuf, flaw: String },
    #[error("`{}` is cut short: it should have {needs} bytes and has {has}; download or copy it again", path.display())]
    Truncated { path: PathBuf, needs: u64, has: u64 },
    #[error("`{}` cannot be loaded: {flaw}; convert the model again", path.display())]
    Unloadable { path: PathBuf, flaw: String },
    #[error("`{}` is shard {no} of {count} of a model; name {first}", path.display())]
    LaterShard { path: PathBuf, no: u64, count: u64, first: String },
    #[error(
        "`{}` is the first of {count} shards, which are found by their names: it must end in `-00001-of-{count:05}.gguf`",
        path.display()
    )]
    RenamedShard { path: PathBuf, count: u64 },
    #[error("`{}` is missing: `{}` is split, and needs all its shards in one folder", path.display(), first.display())]
    MissingShard { path: PathBuf, first: PathBuf },
    #[error("`{}` is not shard {no} of `{}`; download or copy it again", path.display(), first.display())]
    ForeignShard { path: PathBuf, no: usize, first: PathBuf },
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("no room for `{}`: {needs} bytes needed, {free} free; free some space or choose another folder", path.display())]
    NoRoom { path: PathBuf, needs: u64, free: u64 },
    #[error("the disk became full while writing `{}`; free some space or choose another folder", path.display())]
    Full { path: PathBuf },
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl GgufError {
    /// Whether the disk is to blame, and neither a file nor a path that somebody named.
    pub fn failed_writing(&self) -> bool {
        use io::ErrorKind::*;
        match self {
            GgufError::NoRoom { .. } | GgufError::Full { .. } => true,
            GgufError::Write { source, .. } => {
                !matches!(source.kind(), NotFound | PermissionDenied | ReadOnlyFilesystem | InvalidInput)
            }
            _ => false,
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn pad(n: u64, alignment: u64) -> u64 {
    n.next_multiple_of(alignment)
}

fn tensor_bytes(kind: TensorType, shape: &[u64]) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n)).filter(|&n| n <= i64::MAX as u64)?;
    (elements / kind.block()).checked_mul(kind.block_bytes())
}

/// What the parser finds: ranges into the file, nothing copied but names.
#[derive(Debug)]
struct Header {
    version: u32,
    keys: Vec<Key>,
    tensors: Vec<Tensor>,
    data_offset: u64,
}

#[derive(Debug)]
struct Key {
    name: String,
    /// The value's place in the file, its type's number included.
    value: Range<usize>,
}

impl Key {
    fn value<'a>(&self, bytes: &'a [u8]) -> Value<'a> {
        let mut cursor = Cursor { bytes: &bytes[self.value.clone()], at: 0 };
        let value = cursor.u32().and_then(|kind| cursor.value(kind));
        // `Header::parse` made this key only after reading the very same bytes as a value, and a mapping does not change.
        value.expect("every value was read once by `parse`")
    }
}

#[derive(Debug)]
enum Flaw {
    Foreign(&'static str),
    Version(u32),
    Damaged(String),
}

/// As the end of a sentence about the file that has it.
impl From<Flaw> for Box<dyn std::error::Error + Send + Sync> {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Foreign(looks_like) => format!("it would be {looks_like}").into(),
            Flaw::Version(version) => format!("it would be GGUF version {version}").into(),
            Flaw::Damaged(flaw) => format!("it would be damaged: {flaw}").into(),
        }
    }
}

fn damaged<T>(flaw: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Damaged(flaw.into()))
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Header, Flaw> {
        if !bytes.starts_with(MAGIC) {
            return Err(Flaw::Foreign(looks_like(bytes)));
        }
        let mut cursor = Cursor { bytes, at: MAGIC.len() };
        let version = cursor.u32()?;
        if version & 0xffff == 0 {
            return damaged(format!("version {version:#x}, as a big-endian file has it"));
        }
        if !(2..=3).contains(&version) {
            return Err(Flaw::Version(version));
        }
        // Every key takes at least 13 bytes and every tensor 24: larger counts are not worth a loop.
        let (tensors, keys) = (cursor.u64()?, cursor.u64()?);
        let most = bytes.len() as u64;
        if keys > most / 13 || tensors > most / 24 {
            return damaged(format!("{keys} keys and {tensors} tensors do not fit into {most} bytes"));
        }
        let keys = cursor.keys(keys)?;
        let mut header = Header { version, keys, tensors: Vec::new(), data_offset: 0 };
        let alignment = match header.get(bytes, ALIGNMENT_KEY) {
            None => ALIGNMENT,
            Some(Value::Integer(n))
                if n > 0 && (n as u64).is_power_of_two() && header.is(bytes, ALIGNMENT_KEY, U32) =>
            {
                n as u64
            }
            Some(_) => return damaged(format!("{ALIGNMENT_KEY} is not a power of two")),
        };
        header.tensors = cursor.tensors(tensors, alignment)?;
        header.data_offset = match header.tensors.is_empty() {
            true => cursor.at as u64,
            false => pad(cursor.at as u64, alignment),
        };
        Ok(header)
    }

    fn get<'a>(&self, bytes: &'a [u8], key: &str) -> Option<Value<'a>> {
        self.keys.iter().find(|k| k.name == key).map(|k| k.value(bytes))
    }

    fn is(&self, bytes: &[u8], key: &str, kind: u32) -> bool {
        self.keys.iter().any(|k| k.name == key && bytes[k.value.clone()].starts_with(&kind.to_le_bytes()))
    }

    /// Where the last tensor ends.
    fn end(&self) -> u64 {
        let ends = self.tensors.iter().map(|t| t.offset.saturating_add(t.bytes));
        self.data_offset.saturating_add(ends.max().unwrap_or(0))
    }

    /// The first value at which llama.cpp would abort instead of refusing the file.
    fn unloadable(&self, bytes: &[u8]) -> Option<String> {
        let get = |key: &str| self.get(bytes, key);
        let Some(arch) = get("general.architecture").and_then(Value::text) else {
            return Some("general.architecture is missing".into());
        };
        let arch = String::from_utf8_lossy(arch);
        let key = |name: &str| format!("{arch}.{name}");
        let number = |name: &str| get(&key(name)).and_then(Value::integer);

        let layers = number("block_count");
        if let Some(n) = layers.filter(|n| !(1..=MAX_LAYERS).contains(n)) {
            return Some(format!("{} is {n}, not 1 to {MAX_LAYERS}", key("block_count")));
        }
        if let (Some(n), Some(layers)) = (number("nextn_predict_layers"), layers) {
            if n > layers {
                return Some(format!("{} is {n}, with {layers} layers in all", key("nextn_predict_layers")));
            }
        }
        if let Some(n) = number("embedding_length").filter(|&n| n < 1) {
            return Some(format!("{} is {n}", key("embedding_length")));
        }
        if number("attention.sliding_window_pattern") == Some(1) && number("attention.sliding_window").unwrap_or(0) > 0
        {
            return Some(format!("{} is 1: no layer would have the window", key("attention.sliding_window_pattern")));
        }
        let tokenizer = get("tokenizer.ggml.model").and_then(Value::text);
        if let Some(none @ (b"no_vocab" | b"none")) = tokenizer {
            return Some(format!("tokenizer.ggml.model is `{}`: it has no tokens", String::from_utf8_lossy(none)));
        }
        let by_layer = matches!(get(&key("expert_used_count")), Some(Value::Array(_)));
        self.unloadable_experts(&number, by_layer).or_else(|| self.unloadable_tokens(&get)).or_else(|| {
            let scaling = get(&key("rope.scaling.type"))?.text()?;
            let known: [&[u8]; 4] = [b"none", b"linear", b"yarn", b"longrope"];
            (!known.contains(&scaling)).then(|| {
                format!("{} is `{}`, which is unknown", key("rope.scaling.type"), String::from_utf8_lossy(scaling))
            })
        })
    }

    /// How many experts are used may differ `by_layer`; that is left to llama.cpp.
    fn unloadable_experts(&self, number: &dyn Fn(&str) -> Option<i128>, by_layer: bool) -> Option<String> {
        let experts = number("expert_count").unwrap_or(0);
        let used = number("expert_used_count").unwrap_or(0);
        let groups = number("expert_group_count").unwrap_or(0);
        let groups_used = number("expert_group_used_count").unwrap_or(0);
        let sound = (0..=MAX_EXPERTS).contains(&experts)
            && (0..=experts).contains(&used)
            && (used > 0 || experts <= 1 || by_layer)
            && groups >= 0
            && if experts == 0 { groups == 0 } else { groups < experts }
            && (groups <= 1 || (experts % groups == 0 && groups_used > 0 && groups_used < groups));
        (!sound).then(|| format!("{used} of {experts} experts in {groups_used} of {groups} groups makes no sense"))
    }

    fn unloadable_tokens<'a>(&self, get: &dyn Fn(&str) -> Option<Value<'a>>) -> Option<String> {
        let tokens = get("tokenizer.ggml.tokens")?.array()?;
        // llama.cpp sees C strings, calls empty ones by their number, and aborts if two tokens are alike.
        let mut seen = HashSet::with_capacity(tokens.len);
        let twice = tokens.items().filter_map(Value::text).find(|text| {
            let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
            !text.is_empty() && !seen.insert(text)
        });
        twice.map(|text| format!("token `{}` is there twice", String::from_utf8_lossy(text).escape_debug()))
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn keys(&mut self, n: u64) -> Result<Vec<Key>, Flaw> {
        let mut keys = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..n {
            let name = self.name()?;
            if name.is_empty() {
                return damaged("a key has no name");
            }
            if !seen.insert(name) {
                return damaged(format!("key `{name}` is there twice"));
            }
            let start = self.at;
            let kind = self.u32()?;
            self.value(kind)?;
            keys.push(Key { name: name.into(), value: start..self.at });
        }
        Ok(keys)
    }

    fn tensors(&mut self, n: u64, alignment: u64) -> Result<Vec<Tensor>, Flaw> {
        let mut tensors = Vec::new();
        let mut seen = HashSet::new();
        let mut next = 0u64;
        for _ in 0..n {
            let tensor = self.tensor()?;
            if !seen.insert(tensor.name.clone()) {
                return damaged(format!("tensor `{}` is there twice", tensor.name));
            }
            if tensor.offset != next {
                return damaged(format!("tensor `{}` begins at {}, not at {next}", tensor.name, tensor.offset));
            }
            let end = tensor.bytes.checked_next_multiple_of(alignment).and_then(|padded| next.checked_add(padded));
            next = match end {
                Some(end) if end < i64::MAX as u64 => end,
                _ => return damaged(format!("tensor `{}` is larger than any file", tensor.name)),
            };
            tensors.push(tensor);
        }
        Ok(tensors)
    }

    fn tensor(&mut self) -> Result<Tensor, Flaw> {
        let name = self.name()?;
        if name.len() >= MAX_TENSOR_NAME {
            return damaged(format!("the tensor name `{}` is too long", name.escape_debug()));
        }
        let dimensions = self.u32()?;
        if dimensions as usize > MAX_DIMENSIONS {
            return damaged(format!("tensor `{name}` has {dimensions} dimensions"));
        }
        let shape = (0..dimensions).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        let id = self.u32()?;
        let offset = self.u64()?;
        let Some(kind) = TensorType::new(id) else {
            return damaged(format!("tensor `{name}` is of the unknown type {id}"));
        };
        let row = shape.first().copied().unwrap_or(1);
        match tensor_bytes(kind, &shape) {
            Some(bytes) if row % kind.block() == 0 && shape.iter().all(|&n| n <= i64::MAX as u64) => {
                Ok(Tensor { name: name.into(), kind, shape, offset, bytes })
            }
            _ => damaged(format!("tensor `{name}` of type {} has the impossible shape {shape:?}", kind.name())),
        }
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, Flaw> {
        Ok(match kind {
            U8 => Value::Integer(u8::from_le_bytes(self.number()?).into()),
            I8 => Value::Integer(i8::from_le_bytes(self.number()?).into()),
            U16 => Value::Integer(u16::from_le_bytes(self.number()?).into()),
            I16 => Value::Integer(i16::from_le_bytes(self.number()?).into()),
            U32 => Value::Integer(u32::from_le_bytes(self.number()?).into()),
            I32 => Value::Integer(i32::from_le_bytes(self.number()?).into()),
            U64 => Value::Integer(u64::from_le_bytes(self.number()?).into()),
            I64 => Value::Integer(i64::from_le_bytes(self.number()?).into()),
            F32 => Value::Float(f32::from_le_bytes(self.number()?).into()),
            F64 => Value::Float(f64::from_le_bytes(self.number()?)),
            BOOL => Value::Bool(self.number::<1>()? != [0]),
            TEXT => Value::Text(self.text()?),
            ARRAY => Value::Array(self.array()?),
            _ => return damaged(format!("a value is of the unknown type {kind}")),
        })
    }

    fn array(&mut self) -> Result<Array<'a>, Flaw> {
        let item = self.u32()?;
        let n = self.u64()?;
        if n > MAX_ITEMS {
            return damaged(format!("an array has {n} values"));
        }
        let start = self.at;
        match item {
            TEXT => (0..n).try_for_each(|_| self.text().map(drop))?,
            U8 | I8 | BOOL => self.take(n).map(drop)?,
            U16 | I16 => self.take(2 * n).map(drop)?,
            U32 | I32 | F32 => self.take(4 * n).map(drop)?,
            U64 | I64 | F64 => self.take(8 * n).map(drop)?,
            _ => return damaged(format!("an array is of the unsupported type {item}")),
        }
        Ok(Array { item, len: n as usize, bytes: &self.bytes[start..self.at] })
    }

    fn name(&mut self) -> Result<&'a str, Flaw> {
        match std::str::from_utf8(self.text()?) {
            Ok(name) if !name.contains('\0') => Ok(name),
            _ => damaged(format!("the name before byte {} is not text", self.at)),
        }
    }

    fn text(&mut self) -> Result<&'a [u8], Flaw> {
        let n = self.u64()?;
        if n > MAX_TEXT {
            return damaged(format!("a string of {n} bytes at byte {}", self.at));
        }
        self.take(n)
    }

    fn u32(&mut self) -> Result<u32, Flaw> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Flaw> {
        self.number().map(u64::from_le_bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().or_else(|_| damaged("a number is cut off"))
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], Flaw> {
        let rest = &self.bytes[self.at..];
        if n > rest.len() as u64 {
            return damaged(format!("it ends inside its header, after {} bytes", self.bytes.len()));
        }
        self.at += n as usize;
        Ok(&rest[..n as usize])
    }
}

/// A guess at what a file without the magic is, with the way out.
fn looks_like(bytes: &[u8]) -> &'static str {
    let start = &bytes[..bytes.len().min(512)];
    let json_length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    if bytes.get(8) == Some(&b'{') && json_length > 1 && json_length < bytes.len() as u64 {
        return "a safetensors file; convert it with llama.cpp's convert_hf_to_gguf.py";
    }
    match start {
        [b'P', b'K', 3, 4, ..] => "a zip archive, perhaps a PyTorch checkpoint; unpack or convert it first",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            "a compressed file; unpack it first"
        }
        [0x80, 2..=5, ..] => "a Python pickle; convert it with llama.cpp's convert_hf_to_gguf.py",
        [b'l', b'm', b'g', b'g', ..] | [b't', b'j', b'g', b'g', ..] | [b'f', b'm', b'g', b'g', ..] => {
            "a file in the format before GGUF; get a newer conversion of the model"
        }
        _ if start.starts_with(b"version https://git-lfs") => "a Git LFS pointer; fetch the file with `git lfs pull`",
        _ if start.trim_ascii_start().starts_with(b"<") => "a web page or XML; download the file itself",
        _ if start.iter().all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text; name a .gguf file",
        _ => "something else; name a .gguf file",
    }
}

/// llama.cpp's `llama_ftype`, without the bit that says "guessed".
fn file_type_name(id: u32) -> Option<&'static str> {
    Some(match id & !1024 {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

const MAGIC: &[u8] = b"GGUF";
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

// Limits of llama.cpp's reader and loader; beyond them it refuses or aborts.
const MAX_TEXT: u64 = 1 << 30;
const MAX_ITEMS: u64 = 1 << 30;
const MAX_TENSOR_NAME: usize = 64;
const MAX_DIMENSIONS: usize = 4;
const MAX_LAYERS: i128 = 512;
const MAX_EXPERTS: i128 = 1024;

// The numbers of the value types.
const U8: u32 = 0;
const I8: u32 = 1;
const U16: u32 = 2;
const I16: u32 = 3;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;
const I64: u32 = 11;
const F64: u32 = 12;

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A small file with every kind of value and some tensors.
    pub(crate) fn sample() -> Vec<u8> {
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", "llama");
        writer.set("llama.block_count", 2u32);
        writer.set("big", 1u64 << 40);
        writer.set("epsilon", 0.5f32);
        writer.set("yes", true);
        writer.set("tokenizer.ggml.tokens", &[&b"a"[..], b"\0", b"\xff", b""][..]);
        writer.set("tokenizer.ggml.scores", &[0.25f32, -1.0, 2.0, 3.0][..]);
        writer.set("tokenizer.ggml.token_type", &[1i32, 2, 3, -4][..]);
        writer.tensor("token_embd.weight", TensorType::F16, &[8, 4]);
        writer.tensor("blk.0.ffn_up.weight", TensorType::new(8).unwrap(), &[32, 3]);
        writer.tensor("output_norm.weight", TensorType::F32, &[8]);
        let mut bytes = writer.header();
        bytes.extend(vec![7; 64 + 128 + 32]);
        bytes
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        fs::write(&path, sample()).unwrap();
        let file = GgufFile::open(&path).unwrap();
        file.check().unwrap();
        assert_eq!(file.architecture().unwrap(), "llama");
        assert_eq!(file.network("block_count"), Some(2));
        assert_eq!((file.u64("big"), file.u32("big")), (Some(1 << 40), None));
        assert_eq!((file.f32("epsilon"), file.bool("yes")), (Some(0.5), Some(true)));
        assert_eq!(file.texts("tokenizer.ggml.tokens").unwrap(), [&b"a"[..], b"\0", b"\xff", b""]);
        assert_eq!(file.floats("tokenizer.ggml.scores").unwrap(), [0.25, -1.0, 2.0, 3.0]);
        assert_eq!(file.integers("tokenizer.ggml.token_type").unwrap(), [1, 2, 3, -4]);
        assert_eq!(file.tensor("blk.0.ffn_up.weight").unwrap().bytes, 3 * 34);
        assert_eq!(file.parameters(), 32 + 96 + 8);
        assert_eq!(file.quantisation(), "Q8_0");
        assert_eq!(file.data(&file.tensors()[2]).unwrap(), [7; 32]);

        let mut copy = GgufWriter::new();
        copy.copy(&file, |_| true);
        file.tensors().iter().for_each(|t| copy.tensor(&t.name, t.kind, &t.shape));
        let to = folder.path().join("b.gguf");
        let mut data = file.tensors().iter().map(|t| file.data(t).unwrap());
        copy.write(&to, |_, out| out.write_all(data.next().unwrap())).unwrap();
        let header = file.header.data_offset as usize;
        assert_eq!(fs::read(&to).unwrap()[..header], fs::read(&path).unwrap()[..header]);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let mut writer = GgufWriter::new();
        writer.tensor("x", TensorType::F32, &[8]);
        let short = writer.write(&path, |_, out| out.write_all(&[0; 31])).unwrap_err();
        assert!(short.to_string().contains("tensor `x` has 32 bytes, 31 were written"), "{short}");
        let full = writer.write(&path, |_, _| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(full.to_string().contains("the disk became full while writing"), "{full}");
        writer.tensor("y", TensorType::F32, &[1 << 50]);
        let large = writer.write(&path, |_, _| unreachable!()).unwrap_err();
        assert!(large.to_string().starts_with("no room for"), "{large}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_unfit_file_is_named_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let says = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = GgufFile::open(&path).and_then(|file| file.check()).unwrap_err().to_string();
            assert!(error.contains("x.gguf"), "{error}");
            error
        };
        let with = |key: &str, value: Field| {
            let mut writer = GgufWriter::new();
            writer.set("general.architecture", "llama");
            writer.set(key, value);
            writer.header()
        };
        assert!(says(b"").contains("is empty"));
        assert!(says(b"PK\x03\x04rest").contains("zip"));
        assert!(says(b"\x10\0\0\0\0\0\0\0{\"a\":1}          ").contains("safetensors"));
        assert!(says(b"version https://git-lfs.github.com/spec/v1").contains("git lfs pull"));
        assert!(says(b"<!DOCTYPE html>").contains("web page"));
        assert!(says(b"hello there").contains("text"));
        assert!(says(b"\xfe\xff\x01").contains("something else"));
        assert!(says(b"GGUF\x01\0\0\0").contains("version 1"));
        assert!(says(b"GGUF\x04\0\0\0").contains("version 4"));
        assert!(says(b"GGUF\0\0\0\x03").contains("big-endian"));
        assert!(says(b"GGUF\x03\0\0\0").contains("ends inside its header"));
        assert!(says(&[b"GGUF\x03\0\0\0", &[0xff; 16][..]].concat()).contains("do not fit"));
        assert!(says(&with("llama.block_count", 0u32.into())).contains("llama.block_count is 0"));
        assert!(says(&with("llama.block_count", 513u32.into())).contains("not 1 to 512"));
        assert!(says(&with("llama.expert_count", 4000u32.into())).contains("experts"));
        assert!(says(&with("llama.expert_count", 8u32.into())).contains("0 of 8 experts"));
        assert!(says(&with("tokenizer.ggml.model", "no_vocab".into())).contains("it has no tokens"));
        assert!(says(&with("llama.rope.scaling.type", "odd".into())).contains("`odd`"));
        let twice = &[&b"a"[..], b"a\0b"][..];
        assert!(says(&with("tokenizer.ggml.tokens", twice.into())).contains("there twice"));
        assert!(says(&GgufWriter::new().header()).contains("general.architecture is missing"));
        let bytes = sample();
        let cut = says(&bytes[..bytes.len() - 40]);
        assert!(cut.contains(&format!("has {}", bytes.len() - 40)) && cut.contains("cut short"), "{cut}");

        let missing = GgufFile::open(&folder.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("does not exist"), "{missing}");
        let directory = GgufFile::open(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("is a directory"), "{directory}");
        #[cfg(unix)]
        assert!(GgufFile::open(Path::new("/dev/zero")).unwrap_err().to_string().contains("regular file"));
    }

    #[test]
    fn no_truncation_passes() {
        let bytes = sample();
        let end = Header::parse(&bytes).unwrap().end() as usize;
        for n in 0..end {
            let sound = Header::parse(&bytes[..n]).is_ok_and(|header| header.end() <= n as u64);
            assert!(!sound, "cut to {n} of {end} bytes");
        }
    }

    #[test]
    fn damage_is_refused_or_read() {
        let mut accepted = 0;
        damaged_samples(&mut |bytes| {
            loadable(bytes);
            accepted += u32::from(reading(bytes).is_some());
        });
        assert!(accepted > 1000, "{accepted}");
    }

    /// 20,000 ways to damage [`sample`].
    pub(crate) fn damaged_samples(seen: &mut dyn FnMut(&[u8])) {
        let original = sample();
        let mut state = 1u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for _ in 0..20_000 {
            let mut bytes = original.clone();
            for _ in 0..1 + random(3) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = random(256) as u8,
                    _ => bytes[at..].iter_mut().take(8).for_each(|b| *b = 0xff * (at % 2) as u8),
                }
            }
            seen(&bytes);
        }
    }

    /// What this parser reads from a whole file; `None`: refused, or the file ends too soon.
    pub(crate) fn reading(bytes: &[u8]) -> Option<Reading> {
        let header = Header::parse(bytes).ok().filter(|header| header.end() <= bytes.len() as u64)?;
        Some(our_reading(&header, bytes))
    }

    /// Whether llama.cpp may be given it.
    pub(crate) fn loadable(bytes: &[u8]) -> bool {
        Header::parse(bytes).is_ok_and(|header| header.unloadable(bytes).is_none())
    }

    /// Keys with their types and lengths, and tensors with type and place.
    pub(crate) type Reading = (BTreeMap<String, (u32, usize)>, Vec<(String, u32, u64, u64)>, u64);

    fn our_reading(header: &Header, bytes: &[u8]) -> Reading {
        let key = |key: &Key| {
            let kind = u32::from_le_bytes(*bytes[key.value.clone()].first_chunk().unwrap());
            let len = key.value(bytes).array().map_or(1, Array::len);
            (key.name.clone(), (kind, len))
        };
        let tensor = |t: &Tensor| (t.name.clone(), t.kind.0, t.offset, t.bytes);
        (header.keys.iter().map(key).collect(), header.tensors.iter().map(tensor).collect(), header.data_offset)
    }
}
