//! The file of raw data: a line for every run as it ends, so that a comparison can be broken off and gone on with.
//!
//! Its first line says under which conditions its runs were made: those of another comparison are refused, because a
//! ratio of theirs to ours would say nothing. Every other line is a [`Run`], from which all that is reported can be
//! computed again. A last line that was not written to its end is dropped; nothing else in the file is ever changed. One
//! process at a time may have it open.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::json::{Conditions, Config};
use crate::cli::{output, Failure};
use crate::report::Run;

/// An open file of raw data.
pub struct Raw {
    file: File,
    path: PathBuf,
}

/// The first line.
#[derive(Serialize)]
struct Head<'a> {
    raw_data_of: &'static str,
    #[serde(flatten)]
    conditions: &'a Conditions,
    configs: &'a [Config],
}

impl Raw {
    /// Open or begin the file at `path`, and read the runs in it.
    pub fn open(path: &Path, conditions: &Conditions, configs: &[Config]) -> Result<(Raw, Vec<Run>), Failure> {
        output::is_no_device(path)?;
        let head = line(&Head { raw_data_of: "foretoken bench", conditions, configs })?;
        let mut file = opened(path).map_err(|e| wrong(path, format!("cannot be opened: {e}")))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(wrong(path, "is being written to by another bench"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| wrong(path, format!("cannot be read: {e}")))?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 && !head.as_bytes().starts_with(&bytes) {
            return Err(wrong(path, "is no file of raw data"));
        }
        let runs = read(path, &bytes[..whole], &head, (configs.len(), conditions.prompts()))?;
        file.set_len(whole as u64).map_err(|e| wrong(path, format!("cannot be written: {e}")))?;
        let mut raw = Raw { file, path: path.to_owned() };
        if whole == 0 {
            raw.append(&head)?;
        }
        Ok((raw, runs))
    }

    /// Keep one more run.
    pub fn keep(&mut self, run: &Run) -> Result<(), Failure> {
        self.append(&line(run)?)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|e| Failure::Running(format!("cannot write to {}: {e}", self.path.display())))
    }
}

fn opened(path: &Path) -> std::io::Result<File> {
    File::options().read(true).append(true).create(true).open(path)
}

/// The runs in `bytes`, which are whole lines: of so many methods and prompts, each run once.
fn read(path: &Path, bytes: &[u8], head: &str, (methods, prompts): (usize, usize)) -> Result<Vec<Run>, Failure> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(wrong(path, "is not UTF-8")) };
    let mut lines = text.lines();
    if let Some(first) = lines.next() {
        check_head(path, first, head)?;
    }
    let mut runs: Vec<Run> = Vec::new();
    for (i, line) in lines.enumerate() {
        let refused = |why: String| wrong(path, format!("has a wrong line {}: {why}", i + 2));
        let run: Run = serde_json::from_str(line).map_err(|e| refused(e.to_string()))?;
        if run.method >= methods || run.prompt >= prompts {
            return Err(refused("no such configuration or prompt".to_owned()));
        }
        if runs.iter().any(|r| (r.method, r.prompt, r.repeat) == (run.method, run.prompt, run.repeat)) {
            return Err(refused("that run is there already".to_owned()));
        }
        runs.push(run);
    }
    Ok(runs)
}

fn check_head(path: &Path, there: &str, here: &str) -> Result<(), Failure> {
    let parsed: Option<(Value, Value)> = serde_json::from_str(there).ok().zip(serde_json::from_str(here).ok());
    let Some((there, here)) = parsed.filter(|(there, here)| there["raw_data_of"] == here["raw_data_of"]) else {
        return Err(wrong(path, "is no file of raw data"));
    };
    match first_difference("", &there, &here) {
        None => Ok(()),
        Some(difference) => Err(wrong(path, format!("is of another comparison: {difference}"))),
    }
}

/// Where two values first differ, and what stands there.
fn first_difference(at: &str, there: &Value, here: &Value) -> Option<String> {
    match (there, here) {
        _ if there == here => None,
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            first_difference(&at, &there[key], &here[key])
        }),
        (Value::Array(a), Value::Array(b)) => {
            (0..a.len().max(b.len())).find_map(|i| first_difference(&format!("{at}[{i}]"), &there[i], &here[i]))
        }
        _ => Some(format!("there `{at}` is {there}, here it is {here}")),
    }
}

fn line(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::Running(e.to_string()))?;
    Ok(text + "\n")
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("{} {what}; give --raw another name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named() {
        let a = json!({"a": 1, "b": {"c": [1, {"d": "x"}]}});
        assert_eq!(first_difference("", &a, &a.clone()), None);
        let told = |b| first_difference("", &a, &b).unwrap();
        assert_eq!(told(json!({"a": 1, "b": {"c": [1, {"d": "y"}]}})), "there `b.c[1].d` is \"x\", here it is \"y\"");
        assert_eq!(told(json!({"a": 1, "b": {"c": [1]}})), "there `b.c[1]` is {\"d\":\"x\"}, here it is null");
        assert_eq!(told(json!({"a": 1, "b": a["b"], "z": 2})), "there `z` is null, here it is 2");
    }
}
