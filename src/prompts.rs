//! Prompt files for benchmarks: JSON lines `{"id", "kind", "prompt"}`, or plain text.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A prompt, and the kind of text that it begins.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Prompt {
    /// Names it in reports.
    pub id: String,
    /// Prompts of one kind are reported together.
    pub kind: String,
    /// The text.
    #[serde(rename = "prompt")]
    pub text: String,
}

/// A prompt file that cannot be used. One line: the culprit and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PromptError(String);

/// Read files in the order given. A folder means every `.jsonl` file in it; any other file than
/// `.jsonl` is one prompt, and its name is the kind.
///
/// # Errors
/// A file cannot be read, or is not what its name says.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Prompt>, PromptError> {
    let mut prompts = Vec::new();
    for path in paths {
        for file in files(path)? {
            prompts.extend(read_file(&file)?);
        }
    }
    match prompts.iter().find(|p| p.text.is_empty()) {
        Some(empty) => Err(PromptError(format!("prompt `{}` is empty: give some text to continue", empty.id))),
        None => Ok(prompts),
    }
}

/// Keep the first `n` prompts of each kind.
pub fn first_of_each_kind(prompts: Vec<Prompt>, n: usize) -> Vec<Prompt> {
    let mut seen = std::collections::HashMap::<String, usize>::new();
    let mut is_early = |prompt: &Prompt| {
        let count = seen.entry(prompt.kind.clone()).or_default();
        *count += 1;
        *count <= n
    };
    prompts.into_iter().filter(|prompt| is_early(prompt)).collect()
}

fn files(path: &Path) -> Result<Vec<PathBuf>, PromptError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| unreadable(path, &e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|file| is_jsonl(file)).collect();
    files.sort();
    match files.is_empty() {
        true => Err(PromptError(format!("no prompts in {}: a folder needs .jsonl files", path.display()))),
        false => Ok(files),
    }
}

fn read_file(file: &Path) -> Result<Vec<Prompt>, PromptError> {
    let text = std::fs::read_to_string(file).map_err(|e| unreadable(file, &e))?;
    if !is_jsonl(file) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![Prompt { id: name.clone(), kind: name, text }]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|e| {
                let (file, reason) = (file.display(), e.to_string());
                let reason = reason.split(" at line ").next().unwrap_or_default();
                PromptError(format!(
                    "{file}, line {}: {reason}; write {{\"id\": …, \"kind\": …, \"prompt\": …}}",
                    i + 1
                ))
            })
        })
        .collect()
}

fn unreadable(path: &Path, error: &std::io::Error) -> PromptError {
    PromptError(format!("cannot read prompts from {}: {error}", path.display()))
}

fn is_jsonl(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("foretoken-prompts-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn lines_text_and_folders() {
        let folder = folder("good");
        std::fs::write(folder.join("b.jsonl"), "{\"id\":\"b1\",\"kind\":\"b\",\"prompt\":\"two\\nlines\"}\n\n")
            .unwrap();
        std::fs::write(
            folder.join("a.jsonl"),
            "{\"id\":\"a1\",\"kind\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a2\",\"kind\":\"a\",\"prompt\":\"y\"}",
        )
        .unwrap();
        std::fs::write(folder.join("tale.txt"), "Once").unwrap();
        let all = read(&[folder.clone(), folder.join("tale.txt")]).unwrap();
        let ids: Vec<&str> = all.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids, ["a1", "a2", "b1", "tale"]);
        assert_eq!((all[2].text.as_str(), all[3].kind.as_str()), ("two\nlines", "tale"));
        let first: Vec<String> = first_of_each_kind(all, 1).into_iter().map(|p| p.id).collect();
        assert_eq!(first, ["a1", "b1", "tale"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn wrong_files_are_named() {
        let folder = folder("bad");
        let error = |path: &Path| read(&[path.to_owned()]).unwrap_err().to_string();
        assert!(error(&folder).contains("a folder needs .jsonl files"));
        assert!(error(&folder.join("absent.txt")).contains("cannot read prompts from"));
        let file = folder.join("wrong.jsonl");
        std::fs::write(&file, "{\"id\":\"a\",\"kind\":\"k\"}").unwrap();
        assert!(error(&file).contains("wrong.jsonl, line 1: missing field `prompt`"), "{}", error(&file));
        std::fs::write(&file, "{\"id\":\"a\",\"kind\":\"k\",\"prompt\":\"\"}").unwrap();
        assert_eq!(error(&file), "prompt `a` is empty: give some text to continue");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
