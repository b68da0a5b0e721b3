//! `foretoken check`: do these models go together, how exact is this machine, and what does a pass cost?

use std::io::Write;
use std::path::{Path, PathBuf};

use super::run::utf8;
use super::{warn, Failure};
use crate::config::Config;
use crate::llama::host::LlamaHost;
use crate::llama::model::{LoadOptions, Model};
use crate::llama::probe::{cost_curve, logit_difference, Difference};
use crate::registry::Registry;

/// Check a target, and whether a draft model fits it.
///
/// Compares the vocabularies token by token, measures how far logits of one-token and many-token passes
/// differ here, and what a pass of 1 to 16 tokens costs.
#[derive(clap::Args)]
pub struct Check {
    /// The target: a GGUF file.
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// A draft model.
    #[arg(value_name = "DRAFT")]
    draft: Option<PathBuf>,
    /// Measure on this text instead of a built-in one.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Set any value of the configuration, as in `--set target.threads=4` (may be repeated).
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,
}

const PASSES: usize = 16;

impl Check {
    pub fn execute(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let registry = Registry::builtin();
        let mut config = Config::default();
        config.set("target.model", self.target.to_string_lossy().into_owned().into())?;
        config.set("drafter.kind", "none".into())?;
        for assignment in &self.set {
            config.set_typed(assignment)?;
        }
        let setup = config.setup()?;
        warn(&setup)?;
        let host = LlamaHost::load(&setup, &registry)?;
        let target = host.model();

        if let Some(path) = &self.draft {
            let other = Model::load(path, &LoadOptions::default())?;
            match target.vocabulary_difference(&other) {
                None => writeln!(out, "vocabularies: the same {} tokens", target.n_vocab().min(other.n_vocab()))?,
                Some(difference) => {
                    return Err(Failure::Input(format!(
                        "{} cannot draft for {}: {difference}; use a model of the target's family",
                        path.display(),
                        self.target.display()
                    )))
                }
            }
        }

        let text = self.sample(target)?;
        let mut scorer = host.open_target()?;
        let mut difference = Difference { smallest_margin: f32::INFINITY, ..Difference::default() };
        for end in (PASSES..=text.len()).step_by(PASSES) {
            difference = difference.and(logit_difference(&mut scorer, &text[..end], PASSES)?);
        }
        writeln!(
            out,
            "one-token against {PASSES}-token passes, {} places: largest |Δlogit| {:.1e}, likeliest token changed at {}",
            difference.places, difference.largest, difference.flips
        )?;
        writeln!(out, "cost of a pass of n tokens, {} threads:", host.context_options().threads)?;
        writeln!(out, "{:>4} {:>10} {:>12} {:>14}", "n", "ms", "relative", "per token")?;
        let curve = cost_curve(&mut scorer, &text, PASSES, 15)?;
        let plain = curve.first().map_or(1.0, std::time::Duration::as_secs_f64);
        for (i, time) in curve.iter().enumerate() {
            let (n, seconds) = ((i + 1) as f64, time.as_secs_f64());
            writeln!(
                out,
                "{:>4} {:>10.2} {:>12.2} {:>14.2}",
                i + 1,
                seconds * 1e3,
                seconds / plain,
                seconds / plain / n
            )?;
        }
        Ok(())
    }

    /// 64 tokens to measure on, as far as the context has room.
    fn sample(&self, target: &Model) -> Result<Vec<foretoken_drafter::Token>, Failure> {
        let text = match &self.text {
            Some(path) => read(path)?,
            None => SAMPLE.to_owned(),
        };
        let mut tokens = target.tokenise(&text, true)?;
        tokens.truncate(64.min(target.n_ctx_train().max(1)));
        match tokens.len() {
            n if n < PASSES => Err(Failure::Input(format!(
                "the text has {n} tokens, at least {PASSES} are needed; give a longer one with --text"
            ))),
            _ => Ok(tokens),
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::Input(format!("cannot read {}: {e}", path.display())))?;
    utf8(bytes, &path.display().to_string())
}

const SAMPLE: &str = "Once upon a time there was a small town by the sea. Every morning the fishermen went out in \
    their boats, and every evening they came back with what the sea had given them. One day a girl found a bottle on \
    the beach. In the bottle was a letter, and the letter said: \"Whoever reads this, please come and help us. We are \
    many, the island is small, and the winter is long.\" She ran home and showed it to her grandfather.";
