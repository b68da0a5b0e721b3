//! Where the history is, if the user names no file: in the folder that the system has for a program's data.

use std::env::var_os;
use std::path::{Path, PathBuf};

use foretoken_drafter::{DraftError, Host};

use crate::settings::Keep;

/// The file that the setting means. Token ids mean nothing to another tokenizer, so each has its own file.
pub fn history(keep: &Keep, tokenizer: u64, host: &dyn Host) -> Result<Option<PathBuf>, DraftError> {
    let wrong = |what: &str| Err(DraftError::settings(format!("history = true: {what}; name a file")));
    match (keep, data_folder()) {
        (Keep::No, _) => Ok(None),
        (Keep::In(path), _) => Ok(Some(host.resolve(path))),
        (Keep::Yes, _) if tokenizer == 0 => wrong("the target's tokenizer is unknown"),
        (Keep::Yes, None) => wrong("this system names no folder for data"),
        (Keep::Yes, Some(folder)) => Ok(Some(folder.join("foretoken").join(format!("history-{tokenizer:016x}")))),
    }
}

/// `$XDG_DATA_HOME` or `~/.local/share`; on macOS `~/Library/Application Support`; on Windows `%LOCALAPPDATA%`.
fn data_folder() -> Option<PathBuf> {
    let named = |name: &str| var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = |below: &str| Some(named("HOME")?.join(Path::new(below)));
    if cfg!(windows) {
        named("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home("Library/Application Support")
    } else {
        named("XDG_DATA_HOME").or_else(|| home(".local/share"))
    }
}
