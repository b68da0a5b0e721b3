//! The command line of the comparison. What is wrong with it is said before anything runs.

use std::path::{Path, PathBuf};

use crate::Result;

/// What to compare, on what.
pub struct Arguments {
    /// The command line, absolute paths cut to their file names.
    pub words: Vec<String>,
    /// The folder of llama.cpp's programs.
    pub llama: PathBuf,
    /// foretoken's program.
    pub foretoken: PathBuf,
    pub target: PathBuf,
    pub draft: Option<PathBuf>,
    pub prompts: Vec<PathBuf>,
    pub prompts_per_kind: usize,
    pub tokens: usize,
    pub threads: usize,
    /// 0 is greedy.
    pub temperature: f32,
    pub context: usize,
    pub repeats: usize,
    pub json: Option<PathBuf>,
    /// Names of methods or their beginnings, after `=` whole names; empty means all.
    pub only: Vec<String>,
}

const KNOWN: &str = "--llama, --foretoken, --target, --draft, --prompts, --prompts-per-kind, -n, --threads, \
                     --temperature, --context, --repeats, --json, --only";

impl Arguments {
    pub fn parse(words: Vec<String>) -> Result<Arguments> {
        let mut arguments = Arguments {
            words: words.iter().map(|word| without_folders(word)).collect(),
            llama: PathBuf::new(),
            foretoken: option_env!("CARGO_BIN_EXE_foretoken").map(PathBuf::from).unwrap_or_default(),
            target: PathBuf::new(),
            draft: None,
            prompts: Vec::new(),
            prompts_per_kind: usize::MAX,
            tokens: 64,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            temperature: 0.0,
            context: 1024,
            repeats: 3,
            json: None,
            only: Vec::new(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--llama" => arguments.llama = value()?.into(),
                "--foretoken" => arguments.foretoken = value()?.into(),
                "--target" => arguments.target = file(&value()?)?,
                "--draft" => arguments.draft = Some(file(&value()?)?),
                "--prompts" => arguments.prompts.push(value()?.into()),
                "--prompts-per-kind" => arguments.prompts_per_kind = count(&word, &value()?, 1)?,
                "-n" => arguments.tokens = count(&word, &value()?, 2)?,
                "--threads" => arguments.threads = count(&word, &value()?, 1)?,
                "--context" => arguments.context = count(&word, &value()?, 1)?,
                "--repeats" => arguments.repeats = count(&word, &value()?, 1)?,
                "--temperature" => arguments.temperature = temperature(&value()?)?,
                "--json" => arguments.json = Some(value()?.into()),
                "--only" => arguments.only = value()?.split(',').map(str::to_owned).collect(),
                other => return Err(format!("unknown argument `{other}`; known are {KNOWN}")),
            }
        }
        arguments.checked()
    }

    fn checked(mut self) -> Result<Arguments> {
        for (name, path) in [("--llama", &self.llama), ("--target", &self.target), ("--foretoken", &self.foretoken)] {
            if path.as_os_str().is_empty() {
                return Err(format!("{name} is missing"));
            }
        }
        if self.prompts.is_empty() {
            return Err("--prompts is missing".to_owned());
        }
        // Programs are started in another folder.
        self.llama = absolute(&self.llama)?;
        self.foretoken = absolute(&self.foretoken)?;
        Ok(self)
    }

    /// What all numbers have in common.
    pub fn headline(&self) -> String {
        let law = match self.temperature {
            0.0 => "greedy".to_owned(),
            t => format!("temperature {t}"),
        };
        format!(
            "{}, draft model {}, {} threads, {law}, {} tokens after each prompt, {} repeats",
            without_folders(&self.target.to_string_lossy()),
            self.draft.as_ref().map_or("none".to_owned(), |draft| without_folders(&draft.to_string_lossy())),
            self.threads,
            self.tokens,
            self.repeats,
        )
    }
}

/// A word of a command line; of an absolute path, the file name: a report says nothing of anyone's disk.
pub fn without_folders(word: &str) -> String {
    let (key, value) = word.split_once('=').map_or(("", word), |(key, value)| (key, value.trim_matches(['\'', '"'])));
    match Path::new(value).file_name().filter(|_| Path::new(value).is_absolute()) {
        Some(name) if key.is_empty() => name.to_string_lossy().into_owned(),
        Some(name) => format!("{key}={}", name.to_string_lossy()),
        None => word.to_owned(),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| format!("cannot use {}: {e}", path.display()))
}

fn file(text: &str) -> Result<PathBuf> {
    match Path::new(text).is_file() {
        true => absolute(Path::new(text)),
        false => Err(format!("there is no file {text}")),
    }
}

fn count(name: &str, text: &str, least: usize) -> Result<usize> {
    text.parse().ok().filter(|&n| n >= least).ok_or(format!("{name} {text}: give a number from {least} on"))
}

fn temperature(text: &str) -> Result<f32> {
    text.parse().ok().filter(|t| (0.0..=10.0).contains(t)).ok_or(format!("--temperature {text}: give 0 to 10"))
}
