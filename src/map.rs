//! A file as read-only memory. Called by whoever reads a large file in place: model files, lookup tables.
//! It never writes, and it never copies the file.

use std::{fs::File, io, ops::Deref, path::Path};

/// A file's bytes, mapped read-only. Pages are read from disk when first touched.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

/// Map the whole file at `path`.
///
/// Bytes past the end of a file that is cut short while mapped cannot be read: the process receives SIGBUS. Nothing in
/// this crate writes a file in place; it writes a new one and renames it.
pub fn open(path: impl AsRef<Path>) -> io::Result<Mapping> {
    let file = File::open(path)?;
    // SAFETY: the mapping is read-only and handed out as `&[u8]` only. Another process could still change the file;
    // that is the risk every memory-mapped model takes, and readers here treat the bytes as untrusted.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Mapping(map))
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_mapping_is_the_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/map.rs");
        assert_eq!(&*super::open(path).unwrap(), std::fs::read(path).unwrap());
        assert!(super::open("no such file").is_err());
    }
}
