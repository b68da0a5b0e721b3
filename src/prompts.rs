//! Prompt files for benchmarks: JSON lines, or plain text.
//!
//! A line is `{"id", "kind", "prompt"}`, or stands as it was published: a question of MT-bench (arXiv 2306.05685) or
//! Spec-Bench (arXiv 2401.07851), `{"question_id", "category", "turns"}`, or a task of HumanEval (arXiv 2107.03374),
//! `{"task_id", "prompt"}`. Of a question with several turns the first is the prompt: what the model would have
//! answered is not in the file. Other keys are ignored. No chat template is applied here or by who reads these.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::Value;

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

/// Read files in the order given. A folder means every `.jsonl` file in it, or `.jsonl.gz`; any other file
/// is one prompt, and its name is the kind. A question's kind is its category, a task's is `code`.
///
/// # Errors
/// A file cannot be read, or is not what its name says.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Prompt>, PromptError> {
    let mut prompts = Vec::new();
    let mut whence = std::collections::HashMap::new();
    for path in paths {
        for file in files(path)? {
            for prompt in read_file(&file)? {
                if let Some(other) = whence.insert(prompt.id.clone(), file.clone()) {
                    let (id, other, file) = (&prompt.id, other.display(), file.display());
                    let reason =
                        format!("two prompts are called `{id}`, in {other} and {file}: give each its own name");
                    return Err(PromptError(reason));
                }
                if prompt.kind == OVERALL {
                    let reason = format!(
                        "prompt `{}` is of kind `{OVERALL}`, which is what all kinds together are called",
                        prompt.id
                    );
                    return Err(PromptError(reason + ": choose another"));
                }
                prompts.push(prompt);
            }
        }
    }
    match prompts.iter().find(|p| p.text.is_empty()) {
        Some(empty) => Err(PromptError(format!("prompt `{}` is empty: give some text to continue", empty.id))),
        None => Ok(prompts),
    }
}

/// How reports call all kinds together.
const OVERALL: &str = "overall";

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
    // One that was unpacked beside itself is one.
    let unpacked = files.clone();
    files.retain(|file| !is_packed(file) || !unpacked.contains(&file.with_extension("")));
    files.sort();
    match files.is_empty() {
        true => Err(PromptError(format!("no prompts in {}: a folder needs .jsonl or .jsonl.gz files", path.display()))),
        false => Ok(files),
    }
}

fn read_file(file: &Path) -> Result<Vec<Prompt>, PromptError> {
    let text = match is_packed(file) {
        true => unpacked(file),
        false => std::fs::read_to_string(file),
    };
    let text = text.map_err(|e| unreadable(file, &e))?;
    if !is_jsonl(file) {
        let whole = if is_packed(file) { file.file_stem().map_or(file, Path::new) } else { file };
        let name = whole.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![Prompt { id: name.clone(), kind: name, text }]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let blame = |i: usize, reason: String| PromptError(format!("{}, line {}: {reason}", file.display(), i + 1));
    lines.map(|(i, line)| read_line(line).map_err(|reason| blame(i, reason))).collect()
}

/// A question of MT-bench or Spec-Bench.
#[derive(Deserialize)]
struct Question {
    question_id: Value,
    category: String,
    turns: Vec<String>,
}

/// A task of HumanEval.
#[derive(Deserialize)]
struct Task {
    task_id: String,
    prompt: String,
}

/// The format is known by the key that names the line.
fn read_line(line: &str) -> Result<Prompt, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("{}; {OURS}", reason(&e)))?;
    if value.get("question_id").is_some() {
        return question(fields(value, QUESTION)?);
    }
    if value.get("task_id").is_some() {
        let Task { task_id, prompt } = fields(value, TASK)?;
        return Ok(Prompt { id: task_id, kind: "code".to_owned(), text: prompt });
    }
    fields(value, OURS)
}

const OURS: &str = "write {\"id\": …, \"kind\": …, \"prompt\": …}";
const QUESTION: &str = "a question of MT-bench or Spec-Bench is {\"question_id\": …, \"category\": …, \"turns\": […]}";
const TASK: &str = "a task of HumanEval is {\"task_id\": …, \"prompt\": …}";

fn fields<T: DeserializeOwned>(value: Value, way_out: &str) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| format!("{}; {way_out}", reason(&e)))
}

fn question(question: Question) -> Result<Prompt, String> {
    let id = match question.question_id {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        other => return Err(format!("`question_id` is {other}, neither a number nor text; {QUESTION}")),
    };
    let first = question.turns.into_iter().next().ok_or_else(|| format!("`turns` is empty; {QUESTION}"))?;
    Ok(Prompt { id: format!("{}-{id}", question.category), kind: question.category, text: first })
}

/// What is wrong, without the line within the line.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().to_owned()
}

fn unreadable(path: &Path, error: &std::io::Error) -> PromptError {
    PromptError(format!("cannot read prompts from {}: {error}", path.display()))
}

fn is_jsonl(file: &Path) -> bool {
    let whole = if is_packed(file) { file.file_stem().map_or(file, Path::new) } else { file };
    whole.extension().is_some_and(|e| e == "jsonl")
}

/// HumanEval is published so.
fn is_packed(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "gz")
}

fn unpacked(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let size = MultiGzDecoder::new(File::open(file)?).take(MOST_UNPACKED + 1).read_to_string(&mut text)?;
    match size as u64 > MOST_UNPACKED {
        true => Err(std::io::Error::other("it unpacks to more than 256 MiB; split it")),
        false => Ok(text),
    }
}

/// Bytes of a compressed file's text.
const MOST_UNPACKED: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write;

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
    fn published_formats_are_read_as_they_are() {
        let folder = folder("published");
        let lines = [
            r#"{"question_id": 7, "category": "writing", "turns": ["Describe a lake.", "Now in rhyme."]}"#,
            r#"{"question_id": 8, "category": "math", "turns": ["What is 2 + 2?"], "reference": ["4"]}"#,
            r#"{"question_id": "t-9", "category": "translation", "turns": ["Translate: Guten Tag"]}"#,
            r#"{"task_id": "Made/0", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n"}"#,
            r#"{"id": "own", "kind": "k", "prompt": "x"}"#,
        ];
        let file = folder.join("question.jsonl");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let prompts = read(&[file]).unwrap();
        let all: Vec<[&str; 3]> = prompts.iter().map(|p| [p.id.as_str(), p.kind.as_str(), p.text.as_str()]).collect();
        let expected = [
            ["writing-7", "writing", "Describe a lake."],
            ["math-8", "math", "What is 2 + 2?"],
            ["translation-t-9", "translation", "Translate: Guten Tag"],
            ["Made/0", "code", "def one():\n"],
            ["own", "k", "x"],
        ];
        assert_eq!(all, expected);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn wrong_lines_of_published_formats_are_named() {
        let folder = folder("unpublished");
        let file = folder.join("question.jsonl");
        let good = r#"{"question_id": 1, "category": "c", "turns": ["x"]}"#;
        let error = |line: &str| {
            std::fs::write(&file, format!("{good}\n{line}\n")).unwrap();
            let error = read(std::slice::from_ref(&file)).unwrap_err().to_string();
            error.split_once("question.jsonl, line 2: ").expect("file and line").1.to_owned()
        };
        let cases = [
            (r#"{"question_id": 2, "turns": ["x"]}"#, "missing field `category`; a question of MT-bench"),
            (r#"{"question_id": 2, "category": "c", "turns": []}"#, "`turns` is empty; a question of MT-bench"),
            (
                r#"{"question_id": 2, "category": "c", "turns": "x"}"#,
                "invalid type: string \"x\", expected a sequence; a q",
            ),
            (r#"{"question_id": null, "category": "c", "turns": ["x"]}"#, "`question_id` is null, neither a number"),
            (r#"{"task_id": "Made/1"}"#, "missing field `prompt`; a task of HumanEval is {\"task_id\""),
            (r#"{"id": "a", "prompt": "x"}"#, "missing field `kind`; write {\"id\""),
            (r#"["x"]"#, "invalid length 1, expected struct Prompt with 3 elements; write {\"id\""),
            ("{", "EOF while parsing an object; write {\"id\""),
        ];
        for (line, expected) in cases {
            assert!(error(line).starts_with(expected), "{line}: {}", error(line));
        }
        std::fs::write(&file, r#"{"question_id": 3, "category": "c", "turns": [""]}"#).unwrap();
        assert_eq!(
            read(std::slice::from_ref(&file)).unwrap_err().to_string(),
            "prompt `c-3` is empty: give some text to continue"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn published_files_may_be_compressed() {
        let folder = folder("packed");
        let pack = |name: &str, text: &str| {
            let file = std::fs::File::create(folder.join(name)).unwrap();
            let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::default());
            packer.write_all(text.as_bytes()).unwrap();
            packer.finish().unwrap();
        };
        pack("HumanEval.jsonl.gz", "{\"task_id\": \"Made/0\", \"prompt\": \"def one():\\n\"}\n");
        pack("letter.txt.gz", "Dear reader,");
        let task = Prompt { id: "Made/0".to_owned(), kind: "code".to_owned(), text: "def one():\n".to_owned() };
        assert_eq!(read(std::slice::from_ref(&folder)).unwrap(), [task], "of a folder, what has lines");
        let letter = &read(&[folder.join("letter.txt.gz")]).unwrap()[0];
        assert_eq!((letter.id.as_str(), letter.text.as_str()), ("letter", "Dear reader,"));
        std::fs::write(folder.join("HumanEval.jsonl"), "{\"task_id\": \"Made/0\", \"prompt\": \"def one():\\n\"}\n")
            .unwrap();
        assert_eq!(read(std::slice::from_ref(&folder)).unwrap().len(), 1, "unpacked beside itself, it is read once");
        let broken = folder.join("broken.jsonl.gz");
        for bytes in [&b"no archive"[..], &std::fs::read(folder.join("HumanEval.jsonl.gz")).unwrap()[..30]] {
            std::fs::write(&broken, bytes).unwrap();
            let error = read(std::slice::from_ref(&broken)).unwrap_err().to_string();
            assert!(error.starts_with("cannot read prompts from") && error.contains("broken.jsonl.gz: "), "{error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn wrong_files_are_named() {
        let folder = folder("bad");
        let error = |path: &Path| read(&[path.to_owned()]).unwrap_err().to_string();
        assert!(error(&folder).contains("a folder needs .jsonl or .jsonl.gz files"));
        assert!(error(&folder.join("absent.txt")).contains("cannot read prompts from"));
        let file = folder.join("wrong.jsonl");
        std::fs::write(&file, "{\"id\":\"a\",\"kind\":\"k\"}").unwrap();
        assert!(error(&file).contains("wrong.jsonl, line 1: missing field `prompt`"), "{}", error(&file));
        std::fs::write(&file, "{\"id\":\"a\",\"kind\":\"k\",\"prompt\":\"\"}").unwrap();
        assert_eq!(error(&file), "prompt `a` is empty: give some text to continue");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
