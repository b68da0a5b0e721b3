//! `foretoken prepare quantized` and `prepare early-exit`: draft models out of a target.

use std::path::{Path, PathBuf};

use super::super::{note, Failure};
use crate::llama::memory::human;
use crate::llama::quantize::{convert, quantize, Precision, Quantize};

#[derive(clap::Args)]
pub struct Quantized {
    /// The model to copy.
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// How to store the weights, as in `q4_0` or `q8_0`; a wrong name lists them all.
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_0")]
    precision: String,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Allow a target that is quantised already. What was lost stays lost.
    #[arg(long)]
    requantize: bool,
}

impl Quantized {
    pub fn execute(&self) -> Result<(), Failure> {
        let precision = self.precision.parse::<Precision>().map_err(|e| Failure::Input(e.to_string()))?;
        let options = Quantize { precision, threads: 0, layers: None, requantize: self.requantize };
        make(&self.target, &self.out, &options)
    }
}

/// Make the file and say how large it became.
pub fn make(target: &Path, out: &Path, options: &Quantize) -> Result<(), Failure> {
    let size = quantize(target, out, options).map_err(|e| Failure::Input(e.to_string()))?;
    note(format!("{}: {}, {}", out.display(), options.precision, human(size)));
    Ok(())
}

/// llama.cpp's part of the work, for a parent process that reads the log on stderr.
#[derive(clap::Args)]
pub struct Convert {
    from: PathBuf,
    into: PathBuf,
    precision: String,
    #[arg(long, default_value_t = 0)]
    threads: u32,
    #[arg(long, default_value = "")]
    dropped: String,
    #[arg(long)]
    requantize: bool,
}

impl Convert {
    pub fn execute(&self) -> Result<(), Failure> {
        let input = |e: &dyn std::fmt::Display| Failure::Input(e.to_string());
        let precision = self.precision.parse::<Precision>().map_err(|e| input(&e))?;
        let numbers = self.dropped.split(',').filter(|n| !n.is_empty());
        let dropped = numbers.map(str::parse).collect::<Result<Vec<i32>, _>>().map_err(|e| input(&e))?;
        let options = Quantize { precision, threads: self.threads, layers: None, requantize: self.requantize };
        crate::llama::show_log(true);
        convert(&self.from, &self.into, &options, &dropped).map_err(|e| input(&e))?.map_err(Failure::Running)
    }
}
