//! Growing a tree by fixed choices and by draws, by its nodes: what the tree itself costs a drafter.

use std::hint::black_box;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use foretoken::dice::{SeededDice, Stream};
use foretoken_drafter::{NodeId, Shape, TokenTree};

mod rows;

criterion_group!(benches, growth);
criterion_main!(benches);

/// Every node expanded gets this many children.
const WIDTH: usize = 4;

fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree");
    group.sample_size(20).measurement_time(Duration::from_millis(800)).warm_up_time(Duration::from_millis(200));
    let q = rows::dist(40, 1);
    for nodes in [16, 64, 255] {
        let shape = Shape { max_nodes: nodes, depth: 32, width: WIDTH };
        let mut tree = TokenTree::new(rows::VOCABULARIES[1], Box::new(SeededDice::new(1, Stream::Draft)));
        group.throughput(Throughput::Elements(nodes as u64));
        group.bench_function(BenchmarkId::new("add", nodes), |b| {
            b.iter(|| {
                grow(&mut tree, shape, |tree, node| {
                    for token in 0..WIDTH as u32 {
                        tree.add(node, token, 0.3);
                    }
                });
                black_box(tree.len())
            })
        });
        group.bench_function(BenchmarkId::new("sample from 40 tokens", nodes), |b| {
            b.iter(|| {
                grow(&mut tree, shape, |tree, node| {
                    let _ = tree.sample(node, q.clone(), WIDTH);
                });
                black_box(tree.len())
            })
        });
        assert!(tree.len() > nodes * 9 / 10, "the tree is all but full");
    }
}

/// Expand nodes in the order in which the tree asks for them, until it is full.
fn grow(tree: &mut TokenTree, shape: Shape, mut expand: impl FnMut(&mut TokenTree, NodeId)) {
    tree.begin(1, shape);
    loop {
        let nodes = tree.next_to_expand();
        if nodes.is_empty() {
            return;
        }
        nodes.into_iter().for_each(|node| expand(tree, node));
    }
}
