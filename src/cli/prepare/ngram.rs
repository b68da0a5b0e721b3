//! `foretoken prepare ngram`: text files → tokens → a table. It tokenises; the format is the drafter's affair.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use foretoken_drafter::Token;
use foretoken_drafter_ngram::table::build::{BuildError, Progress};
use foretoken_drafter_ngram::table::text::Documents;
use foretoken_drafter_ngram::table::Build;

use crate::cli::progress::interrupt;
use crate::cli::{note, output, Failure};
use crate::llama::memory::human;
use crate::llama::model::{LoadOptions, Model};

#[derive(clap::Args)]
pub struct Arguments {
    /// The texts: plain text, UTF-8.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// The model whose tokens the table is made of; any other of the same vocabulary can use it too.
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Memory for sorting, in MiB; with less it takes longer.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: usize,
}

impl Arguments {
    pub fn execute(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        output::spares_models(&self.out, [&self.target].into_iter().chain(&self.text).map(PathBuf::as_path))?;
        output::can_be_made(&self.out)?;
        // Only the vocabulary is used: the weights stay on disk.
        let load = LoadOptions { gpu_layers: Some(0), repack: false, ..LoadOptions::default() };
        let model = Model::load(&self.target, &load)?;
        let interrupted = interrupt();
        let all_bytes: u64 = self.text.iter().map(|path| std::fs::metadata(path).map_or(0, |m| m.len())).sum();
        let read = Cell::new(0u64);
        let documents = self.text.iter().flat_map(|path| tokens(path, &model, &read));
        let bar = Bar { shown: std::io::stderr().is_terminal() };
        let build = Build { tokenizer: model.tokenizer_fingerprint(), memory: self.memory.saturating_mul(1 << 20) };
        let built = build.write(documents, &self.out, &mut |progress| {
            match progress {
                Progress::Read(tokens) => bar.show("reading", read.get(), all_bytes, &format!("{tokens} tokens")),
                Progress::Sorted(done, all) => bar.show("sorting", done, all, &format!("{all} places")),
            }
            match interrupted.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        drop(bar);
        let out = self.out.display();
        let built = built.map_err(|error| match error {
            BuildError::Cancelled => Failure::Running(format!("cancelled; {out} was not written")),
            BuildError::Io(error) => Failure::Running(format!("cannot write {out}: {error}")),
            other => Failure::Input(other.to_string()),
        })?;
        note(format!(
            "{out}: {} tokens of {} documents, {}, in {:.0} s",
            built.tokens,
            built.documents,
            human(built.bytes),
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }
}

type Tokens<'a> = Box<dyn Iterator<Item = Result<Vec<Token>, String>> + 'a>;

/// The documents of a file as tokens; `read` counts their bytes.
fn tokens<'a>(path: &'a Path, model: &'a Model, read: &'a Cell<u64>) -> Tokens<'a> {
    let wrong = move |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Box::new(std::iter::once(Err(wrong(error)))),
    };
    Box::new(Documents::new(BufReader::new(file)).map(move |document| -> Result<Vec<Token>, String> {
        let document = document.map_err(wrong)?;
        read.set(read.get() + document.len() as u64);
        model.tokenise(&document, false).map_err(|error| format!("{}: {error}", path.display()))
    }))
}

/// A line on stderr that says how far we are; nothing if nobody watches.
struct Bar {
    shown: bool,
}

impl Bar {
    fn show(&self, what: &str, done: u64, all: u64, note: &str) {
        if self.shown {
            let percent = (done as f64 / all.max(1) as f64 * 100.0).min(100.0);
            let _ = write!(std::io::stderr(), "\r\x1b[K{what}: {percent:.0} % ({note})");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
