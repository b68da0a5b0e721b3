//! `foretoken prepare medusa`: heads for a target, trained on its own hidden states or imported.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::{note, output, Failure};
use crate::cli::progress::interrupt;
use crate::cli::run::utf8;
use crate::cli::warn;
use crate::config::{Config, MAX_THREADS};
use crate::gguf::{self, GgufError, GgufFile};
use crate::heads::import::{import, ImportError, Target};
use crate::heads::samples::{documents, Collecting, Samples};
use crate::heads::train::{checkpoint, Options, Progress, Score, TrainError, Training};
use crate::llama::context::default_threads;
use crate::llama::hidden::{output_matrix, Collector};
use crate::llama::memory::human;
use crate::llama::model::{LoadOptions, Model};

#[derive(clap::Args)]
pub struct MedusaArguments {
    /// The model that the heads are for: GGUF, quantised as it will be run.
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// The text to train on. Lines that are `<|endoftext|>` part documents; best is text that the target wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "import", conflicts_with = "import")]
    text: Option<PathBuf>,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Take the heads of a published checkpoint (safetensors, or PyTorch's .pt) instead of training any.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// How many tokens to guess beyond the next one.
    #[arg(long, value_name = "N", default_value_t = Options::default().heads)]
    heads: usize,
    /// Blocks of each head: more learn more and cost more.
    #[arg(long, value_name = "N", default_value_t = Options::default().blocks)]
    blocks: usize,
    /// Train an output matrix for each head, begun as the target's: worth it for small models.
    #[arg(long)]
    own_output: bool,
    /// How often to go through the text.
    #[arg(long, value_name = "X", default_value_t = Options::default().epochs)]
    epochs: f32,
    /// Tokens of one step.
    #[arg(long, value_name = "N", default_value_t = Options::default().batch)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, value_name = "X", default_value_t = Options::default().learning_rate)]
    learning_rate: f32,
    /// Share of the text to judge by instead of training on it.
    #[arg(long, value_name = "X", default_value_t = Options::default().held_out)]
    held_out: f32,
    /// Steps from one report and checkpoint to the next.
    #[arg(long, value_name = "N", default_value_t = Options::default().judge_every)]
    report_every: usize,
    /// Fixes the order of the samples.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads to run the target with [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_THREADS)))]
    threads: Option<u32>,
    /// Go on where the last run with the same arguments was stopped.
    #[arg(long, conflicts_with = "import")]
    resume: bool,
}

impl MedusaArguments {
    pub fn execute(&self) -> Result<(), Failure> {
        // Before any work: that the file can be made, and is none of those it is made from.
        drop(gguf::beside(&self.out).map_err(TrainError::from)?);
        let sources = [Some(&self.target), self.text.as_ref(), self.import.as_ref()];
        output::spares(&self.out, sources.into_iter().flatten().map(PathBuf::as_path))?;
        if self.import.is_none() {
            self.options().check()?;
            self.check_resume()?;
            let mut config = Config::default();
            config.set("target.model", self.target.to_string_lossy().into_owned().into())?;
            config.set("drafter.kind", "none".into())?;
            warn(&config.setup()?)?;
        }
        let model = Model::load(&self.target, &LoadOptions::default())?;
        let target = Target {
            name: name(&self.target),
            n_embd: usize::try_from(model.inner().n_embd()).unwrap_or(0),
            n_vocab: model.n_vocab(),
            tokenizer: model.tokenizer_fingerprint(),
        };
        match (&self.import, &self.text) {
            (Some(checkpoint), _) => self.import(checkpoint, &target),
            (None, Some(text)) => self.train(text, &model, &target),
            (None, None) => Err(Failure::Input("give --text to train on, or --import".to_owned())),
        }
    }

    fn options(&self) -> Options {
        Options {
            heads: self.heads,
            blocks: self.blocks,
            own_output: self.own_output,
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            held_out: self.held_out,
            judge_every: self.report_every,
            seed: self.seed,
            ..Options::default()
        }
    }

    fn check_resume(&self) -> Result<(), Failure> {
        let path = checkpoint_of(&self.out);
        match self.resume.then(|| checkpoint(&path)) {
            Some(Err(TrainError::File(GgufError::Missing { .. }))) => Err(Failure::Input(format!(
                "--resume: there is no checkpoint `{}`; leave out --resume to start afresh",
                path.display()
            ))),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn import(&self, checkpoint: &Path, target: &Target) -> Result<(), Failure> {
        let made = import(checkpoint, &self.out, target)?;
        note(format!(
            "{}: {} heads of {} blocks, {}; that they were trained for {} is your word",
            self.out.display(),
            made.sizes.heads,
            made.sizes.blocks,
            size(&self.out),
            target.name
        ));
        Ok(())
    }

    fn train(&self, text: &Path, model: &Arc<Model>, target: &Target) -> Result<(), Failure> {
        let cancel = interrupt();
        let Some(samples) = self.collect(text, model, target.n_embd, cancel)? else {
            return Err(Failure::Running("stopped before the training began; nothing was written".to_owned()));
        };
        let checkpoint = checkpoint_of(&self.out);
        let mut training = Training::new(&samples, output_matrix(model)?, self.options())?;
        if self.resume {
            training.resume(&checkpoint)?;
        }
        let outcome = training.run(Some(&checkpoint), cancel, &mut |progress| note(line(progress)))?;
        training.save(&self.out, &target.name, target.tokenizer)?;
        note(format!(
            "{}: {}; at their best on held-out text: {}",
            self.out.display(),
            size(&self.out),
            scores(&outcome.best)
        ));
        match outcome.finished {
            // It has served its purpose; if it stays, that is no failure.
            true => drop(std::fs::remove_file(&checkpoint)),
            false => note(format!(
                "stopped at step {}; the same command with --resume goes on from {}",
                outcome.step,
                checkpoint.display()
            )),
        }
        Ok(())
    }

    /// The target's hidden states over the whole text; `None`: cancelled.
    fn collect(
        &self,
        text: &Path,
        model: &Arc<Model>,
        n_embd: usize,
        cancel: &AtomicBool,
    ) -> Result<Option<Samples>, Failure> {
        let unreadable = |e: std::io::Error| Failure::Input(format!("cannot read {}: {e}", text.display()));
        let bytes = std::fs::read(text).map_err(unreadable)?;
        let text = utf8(bytes, &text.display().to_string())?;
        let documents = documents(&text);
        let mut collector = Collector::new(model.clone(), self.threads.map_or_else(default_threads, |n| n as usize))?;
        let mut collecting = Collecting::new(n_embd, &self.out)?;
        let every = documents.len().div_ceil(20).max(1);
        let window = WINDOW.min(model.n_ctx_train().max(1));
        for (i, document) in documents.iter().enumerate() {
            let tokens = model.tokenise(document, true)?;
            for window in tokens.chunks(window) {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                collecting.push(i, window, &collector.states(window)?)?;
            }
            if (i + 1) % every == 0 || i + 1 == documents.len() {
                note(format!("read {} of {} documents, {} tokens", i + 1, documents.len(), collecting.n_tokens()));
            }
        }
        Ok(Some(collecting.finish()?))
    }
}

/// Tokens that the target reads at one go; what comes before them it does not see.
const WINDOW: usize = 512;

/// The target's own name, or its file's.
fn name(target: &Path) -> String {
    let named = GgufFile::open(target).ok().and_then(|file| file.name().map(|name| name.into_owned()));
    named.unwrap_or_else(|| target.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}

fn checkpoint_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    out.with_file_name(name)
}

fn size(path: &Path) -> String {
    human(std::fs::metadata(path).map_or(0, |file| file.len()))
}

fn line(progress: &Progress) -> String {
    let loss = progress.loss.map_or(String::new(), |loss| format!(", loss {loss:.3}"));
    format!("step {} of {}{loss}; held out: {}", progress.step, progress.steps, scores(&progress.heads))
}

/// Loss and how often the token was the likeliest, or among the five likeliest, for each head.
fn scores(heads: &[Score]) -> String {
    let score = |(k, s): (usize, &Score)| {
        format!("head {k} loss {:.3} top-1 {:.1} % top-5 {:.1} %", s.loss, 100.0 * s.top1, 100.0 * s.top5)
    };
    heads.iter().enumerate().map(score).collect::<Vec<_>>().join(", ")
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Failure {
        match error {
            TrainError::Diverged(_) | TrainError::States(_) => Failure::Running(error.to_string()),
            TrainError::File(error) => error.into(),
            TrainError::Heads(error) => error.into(),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Failure {
        match error {
            ImportError::Heads(error) => error.into(),
            _ => Failure::Input(error.to_string()),
        }
    }
}
