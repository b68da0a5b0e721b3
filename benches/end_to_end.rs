//! Whole generations with the bundled models, by tokens: plain, with the draft model, with look-ups.
//!
//! Short, to notice when something breaks; `foretoken bench` is what measures.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use foretoken::config::{Config, Setup};
use foretoken::engine::Engine;
use foretoken::generate::{generate, Limits};
use foretoken::llama::host::LlamaHost;
use foretoken::registry::Registry;
use foretoken_drafter::{Host, Token};

criterion_group!(benches, end_to_end);
criterion_main!(benches);

const PROMPT: &str = "# maths/power.py\ndef power(base: int, exponent: int) -> int:\n    \"\"\"\n";

fn end_to_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("end to end");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    for name in ["none", "model", "ngram"] {
        let setup = setup(name);
        let registry = Registry::builtin();
        let mut host = LlamaHost::load(&setup, &registry).expect("the bundled target loads");
        let prompt = host.model().tokenise(PROMPT, true).expect("the prompt is short");
        let drafter = host.build(&setup.drafter.kind, &setup.drafter.settings).expect("the bundled config is right");
        let target = Box::new(host.open_target().expect("memory suffices"));
        let mut engine =
            Engine::new(target, Some(drafter), setup.sampling.clone(), setup.shape, setup.seed.unwrap_or(0));
        for tokens in [32, 64] {
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_function(BenchmarkId::new(name, tokens), |b| {
                b.iter(|| continue_prompt(&mut engine, &host, &prompt, tokens))
            });
        }
    }
}

fn setup(config: &str) -> Setup {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{config}.toml"));
    Config::read(&file).and_then(|config| config.setup()).expect("the bundled config is right")
}

fn continue_prompt(engine: &mut Engine, host: &LlamaHost<'_>, prompt: &[Token], tokens: usize) -> usize {
    let limits = Limits { max_tokens: tokens, stop: Vec::new(), ignore_end: true };
    let never = AtomicBool::new(false);
    engine.forget();
    let text = generate(engine, host.model().as_ref(), prompt, &limits, &never, &mut |_| true);
    text.expect("the context has room").tokens.len()
}
