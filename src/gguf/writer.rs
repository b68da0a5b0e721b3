//! Writing GGUF files: keys and tensor descriptions first, then each tensor's bytes as a stream. Called by the tools
//! that derive one model file from another. A file appears under its name only when complete.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

use tempfile::NamedTempFile;

use super::*;

/// A GGUF file to be written: keys and tensor descriptions first, then each tensor's bytes as a stream.
#[derive(Debug, Default)]
pub struct GgufWriter {
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

impl GgufWriter {
    /// A file with no keys and no tensors.
    pub fn new() -> GgufWriter {
        GgufWriter::default()
    }

    /// Take over, byte for byte, those keys of `from` for which `wanted` says yes.
    pub fn copy(&mut self, from: &GgufFile, wanted: impl Fn(&str) -> bool) {
        for key in from.header.keys.iter().filter(|key| wanted(&key.name)) {
            self.put(&key.name, from.bytes[key.value.clone()].to_vec());
        }
    }

    /// Give `key` a value; an earlier one is replaced in its place.
    pub fn set(&mut self, key: &str, value: impl Into<Field>) {
        self.put(key, value.into().0);
    }

    /// Announce a tensor. Its bytes are asked for by [`GgufWriter::write`], in the order of announcement.
    pub fn tensor(&mut self, name: &str, kind: TensorType, shape: &[u64]) {
        let offset = self.tensors.last().map_or(0, |t| t.offset.saturating_add(pad(t.bytes, ALIGNMENT)));
        // A shape beyond all bounds is refused when the header is written.
        let bytes = tensor_bytes(kind, shape).unwrap_or(u64::MAX / 4);
        self.tensors.push(Tensor { name: name.into(), kind, shape: shape.into(), offset, bytes });
    }

    /// The number of weights announced so far.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(Tensor::elements).sum()
    }

    /// Write the file to `path`, whole or not at all: a temporary file beside it is filled, synced and renamed, and
    /// removed on failure. `fill` is called once for every tensor, in order, and must write exactly its bytes.
    /// Returns the file's size.
    pub fn write(
        &self,
        path: &Path,
        mut fill: impl FnMut(&Tensor, &mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, GgufError> {
        let failed = |source| write_error(path, source);
        let header = self.header();
        let parsed =
            Header::parse(&header).map_err(|flaw| failed(io::Error::new(io::ErrorKind::InvalidInput, flaw)))?;
        let size = parsed.data_offset + self.tensors.last().map_or(0, |t| t.offset + pad(t.bytes, ALIGNMENT));
        room_for(path, size)?;

        let temporary = beside(path)?;
        let mut out = Counted { inner: BufWriter::with_capacity(1 << 20, temporary.as_file()), written: 0 };
        out.write_all(&header).map_err(failed)?;
        for tensor in &self.tensors {
            let start = out.written;
            fill(tensor, &mut out).map_err(failed)?;
            let written = out.written - start;
            if written != tensor.bytes {
                let message = format!("tensor `{}` has {} bytes, {written} were written", tensor.name, tensor.bytes);
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            out.write_all(&[0; ALIGNMENT as usize][..(pad(written, ALIGNMENT) - written) as usize]).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        drop(out);
        publish(temporary, path)?;
        Ok(size)
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        if key == ALIGNMENT_KEY {
            return; // always the default, which needs no key
        }
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.into(), value)),
        }
    }

    pub(super) fn header(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (name, value) in &self.keys {
            push_text(&mut out, name.as_bytes());
            out.extend(value);
        }
        for tensor in &self.tensors {
            push_text(&mut out, tensor.name.as_bytes());
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(tensor.kind.0.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(pad(out.len() as u64, ALIGNMENT) as usize, 0);
        out
    }
}

/// A value on its way into a header: its type's number, then its bytes.
#[derive(Clone, Debug)]
pub struct Field(Vec<u8>);

impl Field {
    fn one(kind: u32, bytes: &[u8]) -> Field {
        Field([&kind.to_le_bytes(), bytes].concat())
    }

    fn many<T, const N: usize>(kind: u32, items: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Field {
        let mut out = [ARRAY.to_le_bytes(), kind.to_le_bytes()].concat();
        out.extend((items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| out.extend(bytes(item)));
        Field(out)
    }
}

impl From<u16> for Field {
    fn from(n: u16) -> Field {
        Field::one(U16, &n.to_le_bytes())
    }
}

impl From<u32> for Field {
    fn from(n: u32) -> Field {
        Field::one(U32, &n.to_le_bytes())
    }
}

impl From<u64> for Field {
    fn from(n: u64) -> Field {
        Field::one(U64, &n.to_le_bytes())
    }
}

impl From<f32> for Field {
    fn from(x: f32) -> Field {
        Field::one(F32, &x.to_le_bytes())
    }
}

impl From<bool> for Field {
    fn from(yes: bool) -> Field {
        Field::one(BOOL, &[yes as u8])
    }
}

impl From<i32> for Field {
    fn from(n: i32) -> Field {
        Field::one(I32, &n.to_le_bytes())
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Field {
        let mut out = TEXT.to_le_bytes().to_vec();
        push_text(&mut out, text.as_bytes());
        Field(out)
    }
}

impl From<&[f32]> for Field {
    fn from(items: &[f32]) -> Field {
        Field::many(F32, items, |x| x.to_le_bytes())
    }
}

impl From<&[i32]> for Field {
    fn from(items: &[i32]) -> Field {
        Field::many(I32, items, |n| n.to_le_bytes())
    }
}

impl From<&[u32]> for Field {
    fn from(items: &[u32]) -> Field {
        Field::many(U32, items, |n| n.to_le_bytes())
    }
}

impl From<&[&[u8]]> for Field {
    fn from(items: &[&[u8]]) -> Field {
        let mut out = [ARRAY.to_le_bytes(), TEXT.to_le_bytes()].concat();
        out.extend((items.len() as u64).to_le_bytes());
        items.iter().for_each(|text| push_text(&mut out, text));
        Field(out)
    }
}

/// An empty temporary file in the folder of `path`, gone when dropped.
pub fn beside(path: &Path) -> Result<NamedTempFile, GgufError> {
    let failed = |source| write_error(path, source);
    if path.is_dir() {
        return Err(GgufError::Directory { path: path.into() });
    }
    // A device or a pipe would be replaced by the file.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let what = "it is a device, a pipe or a socket; name a regular file";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    let Some(name) = path.file_name() else {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")));
    };
    if !folder(path).is_dir() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "its folder does not exist; create it first")));
    }
    let prefix = format!(".{}.", name.to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".part");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    builder.tempfile_in(folder(path)).map_err(failed)
}

/// Make a finished temporary file durable and give it its name, in one step for whoever looks.
pub fn publish(temporary: NamedTempFile, path: &Path) -> Result<(), GgufError> {
    let failed = |source| write_error(path, source);
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    // The rename itself becomes durable with the folder. Some file systems refuse; the file is complete all the same.
    #[cfg(unix)]
    let _ = fs::File::open(folder(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Refuse to begin a file of `needs` bytes at `path` where it cannot be completed.
pub fn room_for(path: &Path, needs: u64) -> Result<(), GgufError> {
    match fs4::available_space(folder(path)) {
        Ok(free) if free < needs => Err(GgufError::NoRoom { path: path.into(), needs, free }),
        _ => Ok(()), // unknown: the write will tell
    }
}

/// Whether the disk of `path` has hardly a byte left.
#[cfg(feature = "llama")]
pub fn is_full(path: &Path) -> bool {
    fs4::available_space(folder(path)).is_ok_and(|free| free < 1 << 16)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Why a file could not be written.
pub fn write_error(path: &Path, source: io::Error) -> GgufError {
    match source.kind() {
        io::ErrorKind::StorageFull => GgufError::Full { path: path.into() },
        _ => GgufError::Write { path: path.into(), source },
    }
}

struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
