//! `foretoken demo`, behind `make run`: one prompt, three ways, with the bundled models.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{note, progress, warn, Failure};
use crate::config::Config;
use crate::generate::{generate, Limits};
use crate::llama::host::LlamaHost;
use crate::registry::Registry;
use crate::stats::Stats;

/// Continue one prompt three ways with the bundled models: plain, with a draft model, with n-grams.
#[derive(clap::Args)]
pub struct Demo {
    /// The prompt.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "Once upon a time, there was a little boat that wanted to see the ocean."
    )]
    prompt: String,
    /// Most tokens to generate.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 200)]
    max_tokens: usize,
}

const KINDS: [&str; 3] = ["none", "model", "ngram"];

impl Demo {
    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        let interrupt = progress::interrupt();
        let mut results = Vec::new();
        for kind in KINDS {
            let name = format!("configs/{kind}.toml");
            let setup = Config::read(Path::new(&name))?.setup()?;
            if kind == KINDS[0] {
                warn(&setup)?;
            }
            let mut host = LlamaHost::load(&setup, registry)?;
            let prompt = host.model().tokenise(&self.prompt, true)?;
            let mut engine = host.engine(&setup)?;
            let limits = Limits::tokens(self.max_tokens);
            // Once unseen, so that no run pays for cold caches.
            generate(&mut engine, host.model().as_ref(), &prompt, &limits, interrupt, &mut |_| true)?;
            if interrupt.load(Ordering::Relaxed) {
                break;
            }

            let mut out = std::io::stdout().lock();
            writeln!(out, "── {name}\n{}", self.prompt)?;
            let mut written = Ok(());
            let mut sink = |piece: &str| {
                written = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
                written.is_ok()
            };
            let generation = generate(&mut engine, host.model().as_ref(), &prompt, &limits, interrupt, &mut sink)?;
            written?;
            writeln!(out, "\n")?;
            if generation.stats.generated_tokens > 0 {
                results.push((kind, generation.stats));
            }
        }
        if interrupt.load(Ordering::Relaxed) {
            note("stopped: interrupted");
        }
        match results.is_empty() {
            true => Ok(()),
            false => table(&results),
        }
    }
}

fn table(results: &[(&str, Stats)]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let speed = |stats: &Stats| stats.tokens_per_second().unwrap_or(0.0);
    let plain = results.first().map_or(0.0, |(_, stats)| speed(stats));
    let dash = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.2}"));
    writeln!(out, "drafter   tokens/s   acceptance rate   mean acceptance length   ratio to plain")?;
    for (kind, stats) in results {
        writeln!(
            out,
            "{kind:<9} {:>8.0} {:>17} {:>24} {:>16.2}",
            speed(stats),
            dash(stats.acceptance_rate()),
            dash(stats.mean_acceptance_length()),
            speed(stats) / plain
        )?;
    }
    for (kind, stats) in results.iter().filter(|(_, stats)| speed(stats) < plain) {
        writeln!(out, "{}", explain(kind, stats, plain))?;
    }
    Ok(())
}

/// Why a drafter lost: what its rounds cost, in plain steps, against what they brought.
fn explain(kind: &str, stats: &Stats, plain: f64) -> String {
    let rounds = stats.rounds.max(1) as f64;
    let steps = |time: std::time::Duration| time.as_secs_f64() / rounds * plain;
    format!(
        "{kind} lost: a round brought {:.2} tokens, but drafting {:.1} and verifying them cost as much as {:.2} and {:.2} \
         plain steps. The bundled models are so small that a pass is bound by arithmetic and overhead, not by reading \
         weights.",
        stats.generated_tokens as f64 / rounds,
        stats.drafted as f64 / rounds,
        steps(stats.draft),
        steps(stats.verify + stats.other()),
    )
}
