//! What lies beside a model file and could draft for it.

use std::path::{Path, PathBuf};

use super::gguf::GgufFile;
use crate::heads::HeadsFile;

/// A smaller model of the same vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// Its file.
    pub path: PathBuf,
    /// Its size, the target's being 1.
    pub share: f64,
}

/// The smaller models of the same vocabulary in the folder of `target`, the smallest first.
pub fn draft_models(target: &GgufFile) -> Vec<Beside> {
    let mut found: Vec<Beside> = models_in(target.path())
        .filter(|file| file.parameters() < target.parameters() && speak_alike(file, target))
        .map(|file| Beside {
            path: file.path().to_owned(),
            share: file.file_size() as f64 / target.file_size().max(1) as f64,
        })
        .collect();
    found.sort_by(|a, b| a.share.total_cmp(&b.share));
    found
}

/// Whether both have the same tokens, but for padding at the end of one.
pub fn speak_alike(a: &GgufFile, b: &GgufFile) -> bool {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let (Some(mine), Some(theirs)) = (a.texts(TOKENS), b.texts(TOKENS)) else { return false };
    let shared = mine.len().min(theirs.len());
    let longer = if mine.len() > theirs.len() { a } else { b };
    let kinds = longer.integers("tokenizer.ggml.token_type").unwrap_or_default();
    let is_padding = |token: usize| kinds.get(token).is_some_and(|&kind| kind == UNUSED);
    mine[..shared] == theirs[..shared] && (shared..mine.len().max(theirs.len())).all(is_padding)
}

/// `tokenizer.ggml.token_type` of a token that only fills up the vocabulary.
const UNUSED: i128 = 5;

/// Those that promise most first: the largest of at most an eighth of the target's size, then the smaller ones, then the
/// larger ones.
pub fn best_first(found: Vec<Beside>) -> Vec<PathBuf> {
    let (mut small, large): (Vec<Beside>, Vec<Beside>) = found.into_iter().partition(|found| found.share <= MOST);
    small.reverse();
    small.into_iter().chain(large.into_iter().filter(|found| found.share <= 0.5)).map(|found| found.path).collect()
}

/// A draft model of this share of its target's size costs about that share of a step for each token.
const MOST: f64 = 0.125;

/// Heads for `target` in its folder, as far as their sizes tell.
pub fn heads(target: &GgufFile) -> impl Iterator<Item = PathBuf> {
    let width = target.network("embedding_length").unwrap_or(0) as usize;
    let tokens = target.texts("tokenizer.ggml.tokens").map_or(0, |tokens| tokens.len());
    let fits = move |path: &PathBuf| HeadsFile::open(path).is_ok_and(|heads| heads.check(width, tokens, 0).is_ok());
    models_in(target.path()).map(|file| file.path().to_owned()).filter(fits)
}

/// Tables of texts in the folder of `path`, by name.
pub fn tables(path: &Path) -> Vec<PathBuf> {
    let mut tables: Vec<PathBuf> = files_in(path, "ngram").collect();
    tables.sort();
    tables
}

fn files_in(path: &Path, extension: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(move |path| path.extension().is_some_and(|e| e == extension))
}

/// The readable GGUF files in the folder of `path`.
pub fn models_in(path: &Path) -> impl Iterator<Item = GgufFile> + use<> {
    let files = files_in(path, "gguf");
    files.filter_map(|path| GgufFile::open(&path).ok()).filter(|file| file.check().is_ok())
}
