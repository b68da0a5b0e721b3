//! From a row of logits to the law p, by vocabulary: the arg-max, and each way to truncate.

use std::hint::black_box;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use foretoken::sampler::{arg_max, Sampling};
use foretoken_drafter::Law;

mod rows;

criterion_group!(benches, sampler);
criterion_main!(benches);

fn sampler(c: &mut Criterion) {
    let full = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let laws = [
        ("top-k 40", Sampling { top_k: 40, ..full.clone() }),
        ("top-p 0.95", Sampling { top_p: 0.95, ..full.clone() }),
        ("full", full),
    ];
    let mut group = c.benchmark_group("sampler");
    group.sample_size(20).measurement_time(Duration::from_millis(800)).warm_up_time(Duration::from_millis(200));
    for n_vocab in rows::VOCABULARIES {
        let row = rows::row(n_vocab, 1);
        group.throughput(Throughput::Elements(n_vocab as u64));
        group.bench_with_input(BenchmarkId::new("arg-max", n_vocab), &row, |b, row| b.iter(|| arg_max(black_box(row))));
        for (name, law) in &laws {
            group.bench_with_input(BenchmarkId::new(*name, n_vocab), &row, |b, row| {
                b.iter(|| law.dist(black_box(row), &[], &[]))
            });
        }
    }
}
