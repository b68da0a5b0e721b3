//! `foretoken prepare quantized` and `prepare early-exit`: draft models out of a target.

use std::path::{Path, PathBuf};

use super::super::{note, output, Failure};
use crate::cli::progress::interrupt;
use crate::llama::context::default_threads;
use crate::llama::exit::Search;
use crate::llama::gguf::GgufFile;
use crate::llama::memory::human;
use crate::llama::model::{LoadOptions, Model};
use crate::llama::quantize::{check, convert, end_with_parent, quantize, Precision, Quantize};

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
        let precision = self.precision.parse::<Precision>()?;
        let options = Quantize { precision, threads: 0, layers: None, requantize: self.requantize };
        make(&self.target, &self.out, &options)
    }
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["layers", "keep", "search"])))]
pub struct EarlyExit {
    /// The model to take layers from.
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// Keep the first layers: this many.
    #[arg(long, value_name = "N")]
    layers: Option<u32>,
    /// Keep these layers, as in `0,1,4`, where the architecture's layers are all alike.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    keep: Option<Vec<u32>>,
    /// Try sets of layers on a text, print what each promises, and keep the best.
    #[arg(long, requires = "text")]
    search: bool,
    /// What to search on: text of the kind that the model will write.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Most sets to try.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// How to store the weights [default: as they are].
    #[arg(long = "type", value_name = "TYPE", default_value = "copy", hide_default_value = true)]
    precision: String,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl EarlyExit {
    pub fn execute(&self) -> Result<(), Failure> {
        output::spares(&self.out, [&self.target].into_iter().chain(&self.text).map(PathBuf::as_path))?;
        let precision = self.precision.parse::<Precision>()?;
        let layers = match (&self.keep, self.layers) {
            (Some(keep), _) => keep.clone(),
            (None, Some(n)) => self.first_layers(n)?,
            (None, None) => self.best_layers()?,
        };
        let options = Quantize { precision, threads: 0, layers: Some(layers), requantize: false };
        make(&self.target, &self.out, &options)
    }

    fn first_layers(&self, n: u32) -> Result<Vec<u32>, Failure> {
        let all = GgufFile::open(&self.target)?.network("block_count").unwrap_or(0);
        match (1..=all).contains(&n) {
            true => Ok((0..n).collect()),
            false => Err(Failure::Input(format!(
                "--layers {n} is out of range; {} has {all} layers, so it goes from 1 to {all}",
                self.target.display()
            ))),
        }
    }

    fn best_layers(&self) -> Result<Vec<u32>, Failure> {
        let cancelled = interrupt();
        let path = self.text.clone().unwrap_or_default();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Failure::Input(format!("cannot read {}: {e}", path.display())))?;
        // Before the search what would be refused after it; one layer is the least that can come out.
        let precision = self.precision.parse::<Precision>()?;
        let least = Quantize { precision, threads: 0, layers: Some(vec![0]), requantize: false };
        check(&self.target, &self.out, &least)?;
        let text = Model::load(&self.target, &LoadOptions::default())?.tokenise(&text, true)?;
        let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (target, tries, threads) = (&self.target, self.tries as usize, default_threads());
        let search = Search { target, text: &text, tries, threads, folder, cancelled };
        note("layers                    agreement  cost/token  predicted speed");
        let tried = search.run(&mut |t| {
            let layers = t.layers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let chain = if t.length == 0 { "plain is faster".to_owned() } else { format!("chains of {}", t.length) };
            note(format!("{layers:<24}  {:>9.3}  {:>10.3}  {:>5.2} x, {chain}", t.agreement, t.cost, t.speed));
        })?;
        let best = tried.into_iter().next().ok_or_else(|| Failure::Running("no set of layers was tried".to_owned()))?;
        if best.length == 0 {
            note("warning: no set promises to be faster than plain decoding; the best of them is kept all the same");
        }
        Ok(best.layers)
    }
}

/// Make the file and say how large it became.
pub fn make(target: &Path, out: &Path, options: &Quantize) -> Result<(), Failure> {
    let size = quantize(target, out, options)?;
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
        end_with_parent(&self.into);
        convert(&self.from, &self.into, &options, &dropped).map_err(|e| input(&e))?.map_err(Failure::Running)
    }
}
