//! The residual max(p − q, 0), by the support of p and q: what a rejection costs.

use std::hint::black_box;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};

mod rows;

criterion_group!(benches, residual);
criterion_main!(benches);

fn residual(c: &mut Criterion) {
    let mut group = c.benchmark_group("dist");
    group.sample_size(20).measurement_time(Duration::from_millis(800)).warm_up_time(Duration::from_millis(200));
    for support in [40, 4_096, 151_936] {
        let (p, q) = (rows::dist(support, 1), rows::dist(support, 2));
        group.throughput(Throughput::Elements(support as u64));
        group.bench_function(BenchmarkId::new("residual", support), |b| {
            b.iter(|| black_box(&p).residual(1.0, black_box(&q)))
        });
        group.bench_function(BenchmarkId::new("without one token", support), |b| {
            let token = q.tokens()[support / 2];
            b.iter(|| black_box(&q).without(&[token]))
        });
    }
}
