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

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Should a mapped file shrink after all: one line and the exit code of a failed run, instead of a
/// signal's silence. Called once, when the program starts.
#[cfg(unix)]
pub fn report_shrunk_files() {
    extern "C" fn on_bus_error(_: libc::c_int) {
        const LINE: &[u8] =
            b"error: a mapped file became shorter while it was in use; do not write model files in place\n";
        // SAFETY: write and _exit may be called from a signal handler, and the line is valid for its length.
        unsafe {
            let _ = libc::write(2, LINE.as_ptr().cast(), LINE.len());
            libc::_exit(2);
        }
    }
    let handler = on_bus_error as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler has the right signature and calls only what a handler may.
    unsafe { libc::signal(libc::SIGBUS, handler) };
}

/// Other systems report it their own way.
#[cfg(not(unix))]
pub fn report_shrunk_files() {}

#[cfg(test)]
mod tests {
    #[test]
    fn the_mapping_is_the_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/map.rs");
        assert_eq!(&*super::open(path).unwrap(), std::fs::read(path).unwrap());
        assert!(super::open("no such file").is_err());
    }
}
