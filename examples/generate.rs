//! Text from a program of your own: `cargo run --release --example generate [TARGET DRAFT]`.

use std::error::Error;
use std::io::Write;
use std::sync::atomic::AtomicBool;

use foretoken::config::Config;
use foretoken::generate::{generate, Limits};
use foretoken::llama::host::LlamaHost;
use foretoken::registry::Registry;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = std::env::args().skip(1);
    let mut config = Config::default();
    config.set("target.model", files.next().unwrap_or("models/target.gguf".to_owned()).into())?;
    config.set("drafter.kind", "model".into())?;
    config.set("drafter.model", files.next().unwrap_or("models/draft.gguf".to_owned()).into())?;
    let setup = config.setup()?;

    let registry = Registry::builtin();
    let mut host = LlamaHost::load(&setup, &registry)?;
    let mut engine = host.engine(&setup)?;
    let model = host.model();
    let prompt = model.tokenise("Once upon a time, there was a little boat", true)?;
    let mut show = |piece: &str| write!(std::io::stdout(), "{piece}").is_ok();
    let go_on = AtomicBool::new(false);
    let run = generate(&mut engine, model.as_ref(), &prompt, &Limits::tokens(100), &go_on, &mut show)?;

    let length = run.stats.mean_acceptance_length().unwrap_or(1.0);
    println!("\n\n{} tokens in {} rounds: mean acceptance length {length:.2}", run.tokens.len(), run.stats.rounds);
    Ok(())
}
