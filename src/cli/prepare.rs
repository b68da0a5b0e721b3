//! `foretoken prepare`: make the files that drafters and benchmarks use.

pub mod derive;
mod medusa;
mod ngram;

use std::path::PathBuf;

use clap::Subcommand;

use super::{note, output, Failure};
use crate::heads::format::{widen as widen_heads, HeadsError};
use crate::llama::memory::human;
use crate::llama::widen::{widen, Widen};

/// Make a file from a model.
#[derive(clap::Args)]
pub struct Prepare {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Copy a model at lower precision, to draft for it.
    Quantized(derive::Quantized),
    /// Keep some layers of a model, to draft for the whole.
    EarlyExit(derive::EarlyExit),
    /// Give a small model the cost of a large one, without changing what it says: for benchmarks.
    ///
    /// Only the width grows: extra dimensions, heads and feed-forward units are read and multiplied like
    /// any others and contribute nothing. The number of layers stays, because idle layers would flatter
    /// early exit.
    Widen(WidenArguments),
    /// Make a table of texts, for drafter `ngram` to guess from.
    ///
    /// The file is read in place, so it may be larger than memory. A text ends at a line that says `<|endoftext|>` and
    /// at the end of its file.
    Ngram(ngram::Arguments),
    /// Train Medusa heads for a target on its own hidden states, or import published ones.
    ///
    /// The first Ctrl-C stops a training and keeps the best heads so far; --resume goes on from there.
    Medusa(medusa::MedusaArguments),
}

#[derive(clap::Args)]
struct WidenArguments {
    /// The model: GGUF, architecture llama, F32 or F16; or heads made by `prepare medusa`, with --dim alone.
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many parameters to reach, roughly, as in `1B` or `80M`.
    #[arg(long, value_name = "N", value_parser = parameters, required_unless_present = "dim", conflicts_with_all = ["dim", "ffn"])]
    params: Option<u64>,
    /// The new width of the hidden state.
    #[arg(long, value_name = "N")]
    dim: Option<u32>,
    /// The new number of feed-forward units.
    #[arg(long, value_name = "N", requires = "dim")]
    ffn: Option<u32>,
    /// The new number of key-value heads.
    #[arg(long, value_name = "N")]
    kv_heads: Option<u32>,
    /// Fixes the random weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl Prepare {
    pub fn execute(&self) -> Result<(), Failure> {
        match &self.what {
            What::EarlyExit(arguments) => arguments.execute(),
            What::Quantized(arguments) => arguments.execute(),
            What::Widen(arguments) => arguments.execute(),
            What::Ngram(arguments) => arguments.execute(),
            What::Medusa(arguments) => arguments.execute(),
        }
    }
}

impl WidenArguments {
    fn execute(&self) -> Result<(), Failure> {
        output::spares(&self.out, [self.target.as_path()])?;
        if let (None, Some(dim), None) = (self.params, self.dim, self.ffn) {
            if self.kv_heads.is_some() {
                return Err(Failure::Input("--kv-heads is for a model; to widen one, give --ffn too".to_owned()));
            }
            let size = widen_heads(&self.target, dim as usize, &self.out).map_err(|error| match error {
                HeadsError::Foreign { .. } => Failure::Input(format!(
                    "--dim alone widens heads, and `{}` holds none; for a model give --ffn too, or --params",
                    self.target.display()
                )),
                other => other.into(),
            })?;
            note(format!("{}: heads of width {dim}, {}", self.out.display(), human(size)));
            return Ok(());
        }
        let options = match (self.params, self.dim, self.ffn) {
            (Some(n), ..) => {
                let chosen = Widen::for_parameters(&self.target, n)?;
                Widen { kv_heads: self.kv_heads.or(chosen.kv_heads), seed: self.seed, ..chosen }
            }
            (None, Some(dim), Some(ffn)) => Widen { dim, ffn, kv_heads: self.kv_heads, seed: self.seed },
            _ => return Err(Failure::Input("give --params, or --dim and --ffn".to_owned())),
        };
        widen(&self.target, &self.out, &options, &mut |_| {})?;
        let size = std::fs::metadata(&self.out).map_or(0, |m| m.len());
        note(format!("{}: width {}, feed-forward {}, {}", self.out.display(), options.dim, options.ffn, human(size)));
        Ok(())
    }
}

/// `1B`, `80M`, `500k` or a plain number.
fn parameters(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((i, 'b' | 'B')) => (&text[..i], 1e9),
        Some((i, 'm' | 'M')) => (&text[..i], 1e6),
        Some((i, 'k' | 'K')) => (&text[..i], 1e3),
        _ => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(n) if n * unit >= 1.0 && n * unit <= 1e13 => Ok((n * unit) as u64),
        _ => Err("write a number such as 1B, 80M or 1000000".to_owned()),
    }
}
