//! What the n-gram drafter costs: mean time per appended token, and per draft of 16 nodes, on three
//! kinds of text of three sizes; and per lookup in a table.
//!
//! `cargo bench -p foretoken-drafter-ngram`. The table has a million tokens, or as many as `TABLE_TOKENS` says; it is
//! read into memory, not mapped.

mod texts;

use std::time::{Duration, Instant};

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use foretoken_drafter::{Commit, Dice, Dist, DraftRequest, Drafter, Law, SeqId, Shape, Token, TokenTree};
use foretoken_drafter_ngram::table::Build;
use foretoken_drafter_ngram::{NgramDrafter, Settings, Table};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const SEQ: SeqId = SeqId(0);

criterion_group!(benches, append, draft, lookup);
criterion_main!(benches);

/// The whole text, committed 4 tokens at a time as rounds do; the rate is tokens per second.
fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    for (name, text) in texts::TEXTS {
        for size in SIZES {
            let tokens = text(size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_with_input(BenchmarkId::new(name, size), &tokens, |b, tokens| {
                b.iter(|| {
                    let mut drafter = drafter();
                    for end in (4..=tokens.len()).step_by(4) {
                        commit(&mut drafter, &tokens[..end]);
                    }
                    drafter
                })
            });
        }
    }
}

/// One draft after another, at 500 places past the size; only the drafts are timed.
fn draft(c: &mut Criterion) {
    let mut group = c.benchmark_group("draft16");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));
    for width in [1, 3] {
        for (name, text) in texts::TEXTS {
            for size in SIZES {
                let tokens = text(size + 500);
                group.bench_with_input(BenchmarkId::new(format!("{name}/width{width}"), size), &tokens, |b, tokens| {
                    b.iter_custom(|n| drafts(tokens, size, width, n))
                });
            }
        }
    }
}

/// Up to 16 places of a table, and what follows them, for 10,000 pasts whose last tokens stand in it.
fn lookup(c: &mut Criterion) {
    let n = std::env::var("TABLE_TOKENS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000).max(1_000);
    let text = texts::story(n);
    let table = table(&text);
    let mut group = c.benchmark_group("lookup");
    for known in [1, 2, 4, 16] {
        let pasts: Vec<Vec<Token>> = (0..10_000).map(|i| past(&text, i * 7_919 % (n - 16), known)).collect();
        group.bench_with_input(BenchmarkId::new(format!("known{known}"), n), &pasts, |b, pasts| {
            let mut found = Vec::new();
            let mut next = pasts.iter().cycle();
            b.iter(|| {
                found.clear();
                table.search(next.next().unwrap(), 1, 16, &mut found);
                found.iter().filter_map(|place| table.token(place.end + 1)).map(u64::from).sum::<u64>()
            })
        });
    }
}

/// The 16 tokens before a place, read backwards; all but the last `known` are others.
fn past(text: &[Token], at: usize, known: usize) -> Vec<Token> {
    let mut past: Vec<Token> = text[at..at + 16].iter().rev().copied().collect();
    past[known..].iter_mut().for_each(|token| *token = (*token * 31 + 17) % 8_000 + 1);
    past
}

fn table(text: &[Token]) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("table");
    let documents = text.chunks(10_000).map(|document| Ok::<_, std::convert::Infallible>(document.to_vec()));
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    Build::default().write(documents, &out, go_on).unwrap();
    Table::open(Box::new(std::fs::read(out).unwrap()), 0).unwrap()
}

fn drafts(tokens: &[Token], size: usize, width: usize, n: u64) -> Duration {
    let (mut drafter, mut tree) = (drafter(), TokenTree::new(1 << 20, Box::new(NoDice)));
    let mut time = Duration::ZERO;
    for round in 0..n as usize {
        let context = &tokens[..size + round % 500];
        commit(&mut drafter, context);
        tree.begin(context[context.len() - 1], Shape { max_nodes: 16, depth: 16, width });
        let start = Instant::now();
        drafter.draft(&DraftRequest { seq: SEQ, context, law: &NoLaw }, &mut tree).unwrap();
        time += start.elapsed();
    }
    time
}

fn drafter() -> NgramDrafter {
    NgramDrafter::new(Settings::default()).unwrap()
}

fn commit(drafter: &mut NgramDrafter, context: &[Token]) {
    drafter.commit(&Commit { seq: SEQ, context, n_new: 0, round: None, defer: false, hidden: None }).unwrap();
}

struct NoDice;

impl Dice for NoDice {
    fn pick(&mut self, _: &[f64]) -> usize {
        0
    }
}

struct NoLaw;

impl Law for NoLaw {
    fn is_greedy(&self) -> bool {
        true
    }

    fn dist(&self, _: &[f32], _: &[Token], _: &[Token]) -> Dist {
        Dist::point(0)
    }

    fn top(&self, _: &[f32], _: &[Token], _: &[Token], _: usize) -> Vec<(Token, f32)> {
        Vec::new()
    }
}
