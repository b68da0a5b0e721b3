//! `foretoken inspect`: what is in a GGUF file, and which drafters can serve it.

use std::io::Write;
use std::path::PathBuf;

use super::Failure;
use crate::heads::{Description, HeadsError, HeadsFile};
use crate::llama::beside::{self, Beside};
use crate::llama::derive::is_worth_a_copy;
use crate::llama::gguf::GgufFile;
use crate::llama::memory::human;
use crate::llama::LlamaError;
use crate::registry::Registry;

/// Show what a GGUF file holds and which drafters can serve it.
#[derive(clap::Args)]
pub struct Inspect {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Inspect {
    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        match HeadsFile::open(&self.file) {
            Ok(heads) => return describe_heads(&heads),
            Err(HeadsError::Foreign { .. } | HeadsError::File(_)) => {} // something else, or it says so below
            Err(error) => return Err(error.into()),
        }
        let file = GgufFile::open(&self.file).map_err(LlamaError::from)?;
        file.check().map_err(LlamaError::from)?;
        let mut out = std::io::stdout().lock();
        let mut line = |name: &str, value: String| writeln!(out, "{name:<14} {value}");
        let network = |name: &str| file.network(name).map_or("?".to_owned(), |n| n.to_string());
        let shards = match file.shards().count() {
            1 => String::new(),
            n => format!(", shard 1 of {n}, all of which are counted"),
        };
        line("file", format!("{}, GGUF version {}{shards}", human(file.file_size()), file.version()))?;
        line("name", file.name().map_or("-".to_owned(), |n| n.into_owned()))?;
        line("architecture", file.architecture().map_or("-".to_owned(), |a| a.into_owned()))?;
        line("parameters", count(file.parameters()))?;
        line("quantisation", file.quantisation())?;
        line("layers", network("block_count"))?;
        line("width", format!("{}, feed-forward {}", network("embedding_length"), network("feed_forward_length")))?;
        line("heads", format!("{}, for keys {}", network("attention.head_count"), network("attention.head_count_kv")))?;
        line("context", format!("{} tokens in training", network("context_length")))?;
        let tokens = vocabulary(&file).map_or(0, |v| v.len());
        let tokenizer = file.text("tokenizer.ggml.model").map_or("?".to_owned(), |t| t.into_owned());
        line("vocabulary", format!("{tokens} tokens, {tokenizer}"))?;
        let template = if file.get("tokenizer.chat_template").is_some() { "yes" } else { "no" };
        line("chat template", template.to_owned())?;
        writeln!(out, "\ndrafters that can serve it:")?;
        for kind in registry.kinds().iter().filter(|kind| kind.name != "none") {
            writeln!(out, "  {:<10} {}", kind.name, self.remark(kind.name, &file))?;
        }
        Ok(())
    }

    /// What one kind of drafter would need here.
    fn remark(&self, kind: &str, file: &GgufFile) -> String {
        match kind {
            "model" => match draft_models(file) {
                found if found.is_empty() => {
                    "with a smaller GGUF of the same vocabulary; none beside this file".to_owned()
                }
                found => format!("with {}", found.join(" or ")),
            },
            "auto" => "as it is, with what there is of the others".to_owned(),
            "quantized" => match file.quantisation() {
                of if !"q4_0".parse().is_ok_and(|usual| is_worth_a_copy(file, usual)) => {
                    format!("hardly: it is {of} already")
                }
                _ => "as it is; a copy is made at first use".to_owned(),
            },
            "early_exit" => match file.network("block_count") {
                Some(n) if n > 1 => format!("as it is, if it was trained for it; with some of its {n} layers"),
                _ => "not this one: it has no layers to leave out".to_owned(),
            },
            "medusa" => match heads(file) {
                found if found.is_empty() => "with heads; `foretoken prepare medusa` trains some".to_owned(),
                found => format!("with {}", found.join(" or ")),
            },
            "ngram" => match names(beside::tables(file.path())) {
                found if found.is_empty() => "as it is, wherever text repeats itself".to_owned(),
                found => format!("as it is, wherever text repeats itself; with table {}", found.join(" or ")),
            },
            "cascade" | "merge" => "with the others as its parts".to_owned(),
            "staged" => "with a draft model, and another drafter for that".to_owned(),
            "recycle" => "as it is, where a pass over several tokens costs little more than one over one".to_owned(),
            _ => "see its documentation".to_owned(),
        }
    }
}

/// Heads are no model: what they are, and who uses them.
fn describe_heads(heads: &HeadsFile) -> Result<(), Failure> {
    let Description { sizes, target, .. } = heads.description();
    let mut out = std::io::stdout().lock();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<14} {value}");
    line("file", format!("{}, Medusa heads: no model, but a part of one", human(heads.file_size())))?;
    line("for", format!("{target}, or another of that width and vocabulary"))?;
    let outputs = if sizes.own_output { "each with an output matrix of its own" } else { "with the target's output" };
    line("heads", format!("{} of {} blocks, {outputs}", sizes.heads, sizes.blocks))?;
    line("width", sizes.n_embd.to_string())?;
    line("vocabulary", format!("{} tokens", sizes.n_vocab))?;
    writeln!(out, "\ndrafters that use it:")?;
    writeln!(out, "  {:<10} with heads = \"{}\"", "medusa", heads.path().display())?;
    writeln!(out, "  {:<10} where they are named, or no draft model is named or lies beside the target", "auto")?;
    Ok(())
}

/// Smaller models of the same vocabulary in the same folder.
fn draft_models(target: &GgufFile) -> Vec<String> {
    let name = |found: Beside| {
        let name = found.path.file_name()?.to_string_lossy().into_owned();
        Some(format!("{name} ({:.0} % of its size)", 100.0 * found.share))
    };
    beside::draft_models(target).into_iter().filter_map(name).collect()
}

/// Heads for this model in the same folder.
fn heads(target: &GgufFile) -> Vec<String> {
    names(beside::heads(target))
}

fn names(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths.into_iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

fn vocabulary(file: &GgufFile) -> Option<Vec<&[u8]>> {
    file.texts("tokenizer.ggml.tokens")
}

fn count(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} billion", n / 1e9),
        n if n >= 1e6 => format!("{:.1} million", n / 1e6),
        n => format!("{:.0} thousand", n / 1e3),
    }
}
