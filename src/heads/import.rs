//! Published Medusa checkpoints, safetensors or PyTorch's zip archives, made into a file of heads. Tensors are read and
//! written one by one.
//!
//! Names are those of the original code: `{k}.{b}.linear.weight` and `{k}.{b}.linear.bias` for block b of head k, then
//! `{k}.{blocks}.weight` for its output matrix, all of them or none; with or without `medusa_head.` before them. A
//! checkpoint in which some names have that prefix is one of a whole model: its other tensors are left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use zip::ZipArchive;

use super::format::{self, Description, HeadsError, Part, Sizes};
use super::pickle::{self, Stored};
use crate::map::{self, Mapping};

/// The target that heads are imported for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Width of its hidden state.
    pub n_embd: usize,
    /// Tokens in its vocabulary.
    pub n_vocab: usize,
    /// The fingerprint of its tokenizer. A checkpoint names none: that the heads go with it is the user's word.
    pub tokenizer: u64,
}

/// Make the file `out` from the checkpoint at `path`. Returns what it holds.
///
/// # Errors
/// The checkpoint cannot be read, holds something else, or is for another target; or `out` cannot be written.
pub fn import(path: &Path, out: &Path, target: &Target) -> Result<Description, ImportError> {
    let mut checkpoint = Checkpoint::open(path)?;
    let shapes = checkpoint.shapes()?;
    let whole_model = shapes.keys().any(|name| name.contains(PREFIX));
    let mut parts: HashMap<Part, String> = HashMap::new();
    let (mut heads, mut blocks) = (0, 0);
    let mut outputs = Vec::new();
    let mut put = |part: Part, name: &String| match parts.insert(part, name.clone()) {
        Some(other) => Err(checkpoint.wrong(format!("`{other}` and `{name}` are the same part of the heads"))),
        None => Ok(()),
    };
    for name in shapes.keys().filter(|name| !whole_model || name.contains(PREFIX)) {
        match parsed(name) {
            Some((head, block, Kind::Weight | Kind::Bias))
                if head >= format::MAX_HEADS || block >= format::MAX_BLOCKS =>
            {
                return Err(checkpoint.wrong(format!("`{name}` is beyond the heads and blocks that there can be")))
            }
            Some((head, block, kind @ (Kind::Weight | Kind::Bias))) => {
                (heads, blocks) = (heads.max(head + 1), blocks.max(block + 1));
                let part = if kind == Kind::Weight { Part::Weight { head, block } } else { Part::Bias { head, block } };
                put(part, name)?;
            }
            Some((head, block, Kind::Output)) => {
                outputs.push((block, name));
                put(Part::Output { head }, name)?;
            }
            None => return Err(checkpoint.wrong(format!("`{name}` is no tensor of Medusa heads"))),
        }
    }
    if let Some((_, name)) = outputs.iter().find(|&&(block, _)| block != blocks) {
        return Err(checkpoint.wrong(format!("`{name}` does not come after {blocks} blocks")));
    }
    let Target { name, n_embd, n_vocab, tokenizer } = target.clone();
    let sizes = Sizes { heads, blocks, n_embd, n_vocab, own_output: !outputs.is_empty() };
    for part in sizes.parts() {
        let Some(name) = parts.get(&part) else {
            return Err(checkpoint.wrong(format!("{} is missing", in_checkpoints(part, blocks))));
        };
        let [row, rows] = sizes.shape(part);
        let expected = if matches!(part, Part::Bias { .. }) { vec![row] } else { vec![rows, row] };
        let found = &shapes[name];
        if *found != expected {
            return Err(ImportError::OtherTarget {
                path: path.into(),
                name: name.clone(),
                found: found.clone(),
                expected,
            });
        }
    }
    let known = sizes.parts().count();
    if known == 0 || parts.len() != known {
        return Err(checkpoint.wrong("it holds no complete set of Medusa heads".into()));
    }
    let description = Description { sizes, target: name, tokenizer };
    format::write(out, &description, |part| checkpoint.read(&parts[&part]))?;
    Ok(description)
}

/// What a name in a checkpoint stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Weight,
    Bias,
    Output,
}

fn parsed(name: &str) -> Option<(usize, usize, Kind)> {
    let name = name.split_once(PREFIX).map_or(name, |(_, rest)| rest);
    let parts: Vec<&str> = name.split('.').collect();
    let (head, block, kind) = match parts[..] {
        [head, block, "linear", "weight"] => (head, block, Kind::Weight),
        [head, block, "linear", "bias"] => (head, block, Kind::Bias),
        [head, block, "weight"] => (head, block, Kind::Output),
        _ => return None,
    };
    Some((head.parse().ok()?, block.parse().ok()?, kind))
}

fn in_checkpoints(part: Part, blocks: usize) -> String {
    match part {
        Part::Weight { head, block } => format!("`{head}.{block}.linear.weight`"),
        Part::Bias { head, block } => format!("`{head}.{block}.linear.bias`"),
        Part::Output { head } => format!("`{head}.{blocks}.weight`"),
    }
}

/// An open checkpoint.
struct Checkpoint {
    path: PathBuf,
    data: Format,
}

enum Format {
    Safetensors(Mapping),
    Torch { archive: ZipArchive<BufReader<File>>, folder: String, tensors: HashMap<String, Stored> },
}

impl Checkpoint {
    fn open(path: &Path) -> Result<Checkpoint, ImportError> {
        let failed = |source| ImportError::Read { path: path.into(), source };
        let wrong = |flaw| ImportError::Damaged { path: path.into(), flaw };
        let kind = std::fs::metadata(path).map_err(failed)?;
        if !kind.is_file() || kind.len() == 0 {
            return Err(wrong("it is not a file, or empty".into()));
        }
        let mut magic = [0; 4];
        let mut file = File::open(path).map_err(failed)?;
        let n = file.read(&mut magic).map_err(failed)?;
        if magic[..n] != *b"PK\x03\x04" {
            if magic[0] == 0x80 {
                return Err(wrong("it is in PyTorch's format before 1.6; save it again with a newer one".into()));
            }
            return Ok(Checkpoint { path: path.into(), data: Format::Safetensors(map::open(path).map_err(failed)?) });
        }
        let file = File::open(path).map_err(failed)?;
        // What makes a zip archive one stands at its end.
        let mut archive = ZipArchive::new(BufReader::new(file))
            .map_err(|e| wrong(format!("it is cut short ({}); download it again", one_line(&e))))?;
        let name = archive.file_names().find(|name| name.ends_with("data.pkl")).map(str::to_owned);
        let name = name.ok_or_else(|| wrong("it is a zip archive without data.pkl, not PyTorch's".into()))?;
        let mut pickle = Vec::new();
        let entry = archive.by_name(&name).map_err(|e| wrong(one_line(&e)))?;
        entry.take(MAX_PICKLE).read_to_end(&mut pickle).map_err(failed)?;
        let tensors = pickle::tensors(&pickle).map_err(wrong)?;
        let folder = name.trim_end_matches("data.pkl").to_owned();
        Ok(Checkpoint { path: path.into(), data: Format::Torch { archive, folder, tensors } })
    }

    /// Every tensor's sizes, the row length last.
    fn shapes(&self) -> Result<HashMap<String, Vec<usize>>, ImportError> {
        match &self.data {
            Format::Safetensors(bytes) => {
                let tensors = SafeTensors::deserialize(bytes).map_err(|e| self.unreadable(bytes, &e))?;
                Ok(tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect())
            }
            Format::Torch { tensors, .. } => {
                Ok(tensors.iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect())
            }
        }
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let path = self.path.clone();
        let wrong = |flaw: String| ImportError::Damaged { path: path.clone(), flaw };
        match &mut self.data {
            Format::Safetensors(bytes) => {
                let tensors = SafeTensors::deserialize(bytes).map_err(|e| wrong(one_line(&e)))?;
                let view = tensors.tensor(name).map_err(|e| wrong(one_line(&e)))?;
                let kind = match view.dtype() {
                    Dtype::F32 => Numbers::F32,
                    Dtype::F16 => Numbers::F16,
                    Dtype::BF16 => Numbers::Bf16,
                    other => return Err(wrong(format!("`{name}` is of type {other:?}; use F32, F16 or BF16"))),
                };
                Ok(kind.read(view.data()))
            }
            Format::Torch { archive, folder, tensors } => {
                let stored = tensors.get(name).ok_or_else(|| wrong(format!("`{name}` is missing")))?;
                let kind = match stored.kind.as_str() {
                    "FloatStorage" => Numbers::F32,
                    "HalfStorage" => Numbers::F16,
                    "BFloat16Storage" => Numbers::Bf16,
                    other => return Err(wrong(format!("`{name}` is a {other}; use 32- or 16-bit floating point"))),
                };
                let elements = stored.shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n as u64));
                let size = elements.and_then(|n| n.checked_mul(kind.bytes()));
                let skip = (stored.offset as u64).checked_mul(kind.bytes());
                let (Some(size), Some(skip)) = (size, skip) else {
                    return Err(wrong(format!("`{name}` is larger than any file")));
                };
                let file = format!("{folder}data/{}", stored.key);
                let mut entry = archive.by_name(&file).map_err(|e| wrong(format!("{file}: {}", one_line(&e))))?;
                let failed = |source| ImportError::Read { path: path.clone(), source };
                io::copy(&mut entry.by_ref().take(skip), &mut io::sink()).map_err(failed)?;
                let mut bytes = Vec::new();
                entry.take(size).read_to_end(&mut bytes).map_err(failed)?;
                match bytes.len() as u64 == size {
                    true => Ok(kind.read(&bytes)),
                    false => Err(wrong(format!("`{name}` is cut short"))),
                }
            }
        }
    }

    fn wrong(&self, flaw: String) -> ImportError {
        ImportError::Damaged { path: self.path.clone(), flaw }
    }

    /// Why `bytes` are no safetensors, which begin with the length of their JSON.
    fn unreadable(&self, bytes: &[u8], error: &SafeTensorError) -> ImportError {
        use SafeTensorError::{HeaderTooSmall, InvalidHeaderLength, MetadataIncompleteBuffer};
        let error_line = one_line(error);
        self.wrong(match (bytes.get(8), error) {
            (None | Some(b'{'), HeaderTooSmall | InvalidHeaderLength | MetadataIncompleteBuffer) => {
                format!("it is cut short ({error_line}); download it again")
            }
            (Some(b'{'), _) => format!("it is damaged ({error_line}); download it again"),
            _ => format!("it is neither safetensors nor PyTorch's zip archive ({error_line})"),
        })
    }
}

/// How numbers are stored.
#[derive(Clone, Copy)]
enum Numbers {
    F32,
    F16,
    Bf16,
}

impl Numbers {
    fn bytes(self) -> u64 {
        if matches!(self, Numbers::F32) {
            4
        } else {
            2
        }
    }

    fn read(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Numbers::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
            Numbers::F16 => bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32()).collect(),
            Numbers::Bf16 => bytes.chunks_exact(2).map(|x| bf16::from_le_bytes([x[0], x[1]]).to_f32()).collect(),
        }
    }
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or("no reason given").to_owned()
}

/// Why a checkpoint cannot be imported. One line: the culprit and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ImportError {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be imported: {flaw}", path.display())]
    Damaged { path: PathBuf, flaw: String },
    #[error("`{}` has heads for another target: `{name}` has the shape {found:?}, this target needs {expected:?}", path.display())]
    OtherTarget { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error(transparent)]
    Heads(#[from] HeadsError),
}

const PREFIX: &str = "medusa_head.";
/// Descriptions of a few dozen tensors take kilobytes.
const MAX_PICKLE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Write;

    use safetensors::tensor::TensorView;
    use zip::write::SimpleFileOptions;
    use zip::ZipWriter;

    use super::super::format::HeadsFile;
    use super::*;

    const D: usize = 4;
    const V: usize = 6;

    fn target() -> Target {
        Target { name: "toy".into(), n_embd: D, n_vocab: V, tokenizer: 5 }
    }

    /// Two heads of two blocks: name, shape, numbers that F16 and BF16 hold exactly.
    fn checkpoint(own_output: bool, prefix: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let numbers = |start: usize, n: usize| (0..n).map(|i| (start + i) as f32 * 0.5 - 8.0).collect();
        let mut tensors = Vec::new();
        for head in 0..2 {
            for block in 0..2 {
                let (name, start) = (format!("{prefix}{head}.{block}.linear"), 16 * head + 4 * block);
                tensors.push((format!("{name}.weight"), vec![D, D], numbers(start, D * D)));
                tensors.push((format!("{name}.bias"), vec![D], numbers(start + 1, D)));
            }
            if own_output {
                tensors.push((format!("{prefix}{head}.2.weight"), vec![V, D], numbers(head, V * D)));
            }
        }
        tensors
    }

    fn safetensors_of(tensors: &[(String, Vec<usize>, Vec<f32>)], kind: Dtype) -> Vec<u8> {
        let bytes: BTreeMap<&str, (&[usize], Vec<u8>)> =
            tensors.iter().map(|(name, shape, numbers)| (name.as_str(), (&shape[..], stored(numbers, kind)))).collect();
        let view = |(shape, bytes)| TensorView::new(kind, <[usize]>::to_vec(shape), bytes).unwrap();
        let views: BTreeMap<&str, TensorView> =
            bytes.iter().map(|(&name, (shape, bytes))| (name, view((shape, &bytes[..])))).collect();
        safetensors::serialize(views, None).unwrap()
    }

    fn stored(numbers: &[f32], kind: Dtype) -> Vec<u8> {
        let bytes = |&x: &f32| match kind {
            Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
            _ => x.to_le_bytes().to_vec(),
        };
        numbers.iter().flat_map(bytes).collect()
    }

    /// As `torch.save` writes a state dictionary: an OrderedDict of tensors, each with a storage of its own.
    fn torch_of(tensors: &[(String, Vec<usize>, Vec<f32>)], class: &str, kind: Dtype, row_by_row: bool) -> Vec<u8> {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(b'X');
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        };
        let number = |out: &mut Vec<u8>, n: usize| {
            out.push(b'J');
            out.extend((n as i32).to_le_bytes());
        };
        let mut p = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
        for (key, (name, shape, numbers)) in tensors.iter().enumerate() {
            text(&mut p, name);
            p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut p, "storage");
            p.extend(format!("ctorch\n{class}\n").bytes());
            text(&mut p, &key.to_string());
            text(&mut p, "cpu");
            number(&mut p, numbers.len() + 1);
            p.extend(b"tQ");
            number(&mut p, 1); // each begins one number into its storage
            p.push(b'(');
            shape.iter().for_each(|&n| number(&mut p, n));
            p.extend(b"t(");
            match (&shape[..], row_by_row) {
                ([_, row], true) => [*row, 1].iter().for_each(|&n| number(&mut p, n)),
                ([rows, _], false) => [1, *rows].iter().for_each(|&n| number(&mut p, n)),
                _ => number(&mut p, 1),
            }
            p.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        }
        p.extend(b"u}X\x09\x00\x00\x00_metadataNsb.");
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        let plain = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("heads/data.pkl", plain).unwrap();
        zip.write_all(&p).unwrap();
        for (key, (_, _, numbers)) in tensors.iter().enumerate() {
            zip.start_file(format!("heads/data/{key}"), plain).unwrap();
            zip.write_all(&stored(&[&[77.0][..], numbers].concat(), kind)).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn imported(bytes: &[u8]) -> Result<HeadsFile, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("checkpoint"), folder.path().join("heads.gguf"));
        fs::write(&path, bytes).unwrap();
        match import(&path, &out, &target()) {
            Ok(description) => {
                let file = HeadsFile::open(&out)?;
                assert_eq!(*file.description(), description);
                Ok(file)
            }
            Err(error) => {
                assert!(!out.exists(), "nothing half-written");
                Err(error)
            }
        }
    }

    fn same(file: &HeadsFile, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
        let sizes = file.description().sizes;
        assert_eq!((sizes.heads, sizes.blocks), (2, 2));
        let found: Vec<Vec<f32>> = sizes.parts().map(|part| file.data(part).unwrap().to_f32()).collect();
        let expected: Vec<Vec<f32>> = tensors.iter().map(|(_, _, numbers)| numbers.clone()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn safetensors_are_imported() {
        for (kind, own) in [(Dtype::F32, false), (Dtype::F16, true), (Dtype::BF16, true)] {
            let tensors = checkpoint(own, "");
            same(&imported(&safetensors_of(&tensors, kind)).unwrap(), &tensors);
        }
        let tensors = checkpoint(true, "medusa_head.");
        let mut whole = tensors.clone();
        whole.push(("model.norm.weight".into(), vec![D], vec![0.0; D]));
        same(&imported(&safetensors_of(&whole, Dtype::F16)).unwrap(), &tensors);
    }

    #[test]
    fn pytorch_checkpoints_are_imported() {
        let kinds = [("FloatStorage", Dtype::F32), ("HalfStorage", Dtype::F16), ("BFloat16Storage", Dtype::BF16)];
        for (class, kind) in kinds {
            let tensors = checkpoint(true, "");
            same(&imported(&torch_of(&tensors, class, kind, true)).unwrap(), &tensors);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        let says = |bytes: &[u8]| imported(bytes).unwrap_err().to_string();
        let sound = checkpoint(true, "");
        let tensors = |tensors: &[(String, Vec<usize>, Vec<f32>)]| safetensors_of(tensors, Dtype::F32);
        let missing: Vec<_> = sound.iter().filter(|t| t.0 != "1.0.linear.bias").cloned().collect();
        assert!(says(&tensors(&missing)).contains("`1.0.linear.bias` is missing"));
        let output: Vec<_> = sound.iter().filter(|t| t.0 != "1.2.weight").cloned().collect();
        assert!(says(&tensors(&output)).contains("`1.2.weight` is missing"));
        let mut strange = sound.clone();
        strange.push(("lm_head.weight".into(), vec![1], vec![0.0]));
        assert!(says(&tensors(&strange)).contains("`lm_head.weight` is no tensor of Medusa heads"));
        let mut large = sound.clone();
        large[0] = ("0.0.linear.weight".into(), vec![5, 5], vec![0.0; 25]);
        assert!(says(&tensors(&large)).contains("shape [5, 5], this target needs [4, 4]"));
        let mut far = sound.clone();
        far.push(("999.0.linear.weight".into(), vec![1], vec![0.0]));
        assert!(says(&tensors(&far)).contains("beyond the heads"));
        let mut infinite = sound.clone();
        infinite[0].2[0] = f32::INFINITY;
        assert!(says(&tensors(&infinite)).contains("F16 cannot hold"));
        assert!(says(&tensors(&[])).contains("no complete set"));
        assert!(says(&torch_of(&sound, "LongStorage", Dtype::F32, true)).contains("is a LongStorage"));
        assert!(says(&torch_of(&sound, "FloatStorage", Dtype::F32, false)).contains("row by row"));
        assert!(says(b"\x80\x02}q\x00.").contains("before 1.6"));
        assert!(says(b"hello there, this is text").contains("neither safetensors nor PyTorch's"));
        assert!(says(b"").contains("empty"));
    }

    #[test]
    fn a_checkpoint_that_is_cut_short_is_said_to_be() {
        let tensors = checkpoint(true, "");
        let files = [safetensors_of(&tensors, Dtype::F32), torch_of(&tensors, "FloatStorage", Dtype::F32, true)];
        for whole in files {
            for n in [7, 60, whole.len() / 2, whole.len() - 1] {
                let said = imported(&whole[..n]).unwrap_err().to_string();
                assert!(said.contains("it is cut short") && said.ends_with("; download it again"), "{n}: {said}");
            }
        }
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let tensors = checkpoint(true, "");
        let files = [safetensors_of(&tensors, Dtype::F32), torch_of(&tensors, "FloatStorage", Dtype::F32, true)];
        for sound in files {
            for n in (0..sound.len()).step_by(13) {
                assert!(imported(&sound[..n]).is_err(), "cut to {n} of {} bytes", sound.len());
            }
            let mut state = 1u64;
            for _ in 0..1_000 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let mut bytes = sound.clone();
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
                let _ = imported(&bytes);
            }
        }
    }

    #[test]
    fn a_hostile_pickle_is_refused() {
        const CODES: &[u8] = b"NKQ()tRub}]esqh.\x85\x86\x87\x93\x94\x81\x00";
        let deep = [&b"N"[..], &[0x85; 100_000], b"."].concat();
        assert!(pickle::tensors(&deep).unwrap_err().contains("nested too deeply"));
        assert!(pickle::tensors(b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap().is_empty(), "nothing is executed");
        for bad in [&b"X\xff\xff\xff\xff"[..], b"u.", b"R.", b"\x87.", b"h\x05.", b"\x8a\xff", b"cabc", b"\x01", b""] {
            assert!(pickle::tensors(bad).is_err(), "{bad:?}");
        }
        let mut state = 7u64;
        for _ in 0..20_000 {
            let mut byte = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                CODES[(state >> 33) as usize % CODES.len()]
            };
            let noise: Vec<u8> = (0..40).map(|_| byte()).collect();
            let _ = pickle::tensors(&noise);
        }
    }
}
