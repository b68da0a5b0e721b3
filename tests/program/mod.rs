//! The program, for tests that start it: with a cache and a data folder of the test's own, empty at its start, so that
//! nothing that earlier runs made or learnt decides a test, and nothing of the user's is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The program, without arguments.
pub fn foretoken() -> Command {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().ok().and_then(|exe| exe.file_stem().map(PathBuf::from)).unwrap_or_default();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        fs::remove_dir_all(&folder)
            .or_else(|e| if folder.exists() { Err(e) } else { Ok(()) })
            .expect("it can be emptied");
        fs::create_dir_all(&folder).expect("a folder");
        folder
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretoken"));
    command.env("FORETOKEN_CACHE", FOLDER.join("cache")).env("XDG_DATA_HOME", FOLDER.join("data"));
    command
}
