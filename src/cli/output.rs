//! What a command is about to write, looked at before any work: it is none of the files that it is made from.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use super::Failure;
use crate::gguf;

/// Refuse `out` if it is one of `sources`, or lies among those of a folder.
pub fn spares<'a>(out: &Path, sources: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
    let is_shard =
        |source: &Path| gguf::shard_names(source).is_some_and(|all| all.iter().any(|one| same_file(one, out)));
    let wanted = |source: &&Path| *source == out || same_file(source, out) || is_in(source, out) || is_shard(source);
    match sources.into_iter().find(wanted) {
        Some(_) => Err(Failure::Input(format!(
            "`{}` would be overwritten by what is made from it; choose another output",
            out.display()
        ))),
        None => Ok(()),
    }
}

/// The same for what is no model: refuse to overwrite any.
pub fn spares_models<'a>(out: &Path, sources: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
    spares(out, sources)?;
    match is_gguf(out) {
        true => Err(Failure::Input(format!(
            "`{}` is a GGUF file, and what is to be written is none; choose another output",
            out.display()
        ))),
        false => Ok(()),
    }
}

/// Refuse `out` if no file can be made there.
pub fn can_be_made(out: &Path) -> Result<(), Failure> {
    if out.is_dir() {
        return Err(Failure::Input(format!("`{}` is a directory; name the file to write in it", out.display())));
    }
    gguf::beside(out)?;
    Ok(())
}

/// Refuse `out` if it is there and no regular file: what is written in place must be one that can be made shorter.
pub fn is_no_device(out: &Path) -> Result<(), Failure> {
    match std::fs::metadata(out) {
        Ok(there) if !there.is_file() && !there.is_dir() => Err(Failure::Input(format!(
            "cannot write `{}`: it is a device, a pipe or a socket; name a regular file",
            out.display()
        ))),
        _ => Ok(()),
    }
}

/// Write a whole file, or none: what was there stays until it is complete.
pub fn write(out: &Path, text: &str) -> Result<(), Failure> {
    let mut file = gguf::beside(out)?;
    file.write_all(text.as_bytes()).map_err(|source| gguf::write_error(out, source))?;
    Ok(gguf::publish(file, out)?)
}

fn same_file(a: &Path, b: &Path) -> bool {
    std::fs::canonicalize(a).is_ok_and(|a| std::fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// Whether `file` is one of the prompts that a folder stands for.
fn is_in(folder: &Path, file: &Path) -> bool {
    let parent = std::fs::canonicalize(file).ok().and_then(|file| file.parent().map(Path::to_owned));
    folder.is_dir()
        && file.extension().is_some_and(|e| e == "jsonl")
        && parent.is_some_and(|parent| std::fs::canonicalize(folder).is_ok_and(|folder| folder == parent))
}

fn is_gguf(path: &Path) -> bool {
    // Opening a pipe would wait for its other end.
    let mut magic = [0; 4];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
}
