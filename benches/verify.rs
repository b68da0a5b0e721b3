//! The acceptance law, by nodes and vocabulary: greedy walks and traversals, p from logits included.
//!
//! After criterion's own numbers it compares a round of 16 nodes with the least that any verifier
//! must do: look once at each row that the walk visits, for its maximum.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{criterion_group, BenchmarkId, Criterion, Throughput};
use foretoken::dice::{SeededDice, Stream};
use foretoken::sampler::{arg_max, Sampling};
use foretoken::verify::{verify, Verdict};
use foretoken_drafter::{Law, NodeId, Shape, Token, TokenTree};

mod rows;

criterion_group!(benches, greedy, traversal);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // `cargo test --benches` only asks whether it runs.
    let pairs = if std::env::args().any(|a| a == "--bench") { 200 } else { 1 };
    let n_vocab = rows::VOCABULARIES[1];
    against_one_look(&[Round::greedy(16, n_vocab)], "greedy", pairs);
    let trees: Vec<Round> = (1..=TREES).map(|seed| Round::sampled(16, n_vocab, seed)).collect();
    against_one_look(&trees, "sampled (T = 1, top-k 40)", pairs);
    against_one_look(&[Round::drawn_well(16, n_vocab)], "sampled, all accepted (T = 1, top-k 40)", pairs);
}

/// Trees of draws that are compared with the least.
const TREES: u64 = 8;

fn greedy(c: &mut Criterion) {
    by_size(c, "greedy walk", Round::greedy);
}

fn traversal(c: &mut Criterion) {
    by_size(c, "traversal (T = 1, top-k 40)", |nodes, n_vocab| Round::sampled(nodes, n_vocab, 1));
}

fn by_size(c: &mut Criterion, name: &str, round: impl Fn(usize, usize) -> Round) {
    let mut group = c.benchmark_group("verify");
    group.sample_size(20).measurement_time(Duration::from_millis(800)).warm_up_time(Duration::from_millis(200));
    for n_vocab in rows::VOCABULARIES {
        for nodes in [4, 16, 64] {
            let round = round(nodes, n_vocab);
            let mut seeds = 0..;
            group.throughput(Throughput::Elements(nodes as u64));
            group.bench_function(BenchmarkId::new(format!("{name}, {n_vocab} tokens"), nodes), |b| {
                b.iter(|| round.verify(seeds.next().unwrap_or(0), &mut |_| {}))
            });
        }
    }
}

/// A tree with its rows, ready to be verified.
struct Round {
    tree: TokenTree,
    rows: Vec<Vec<f32>>,
    sampling: Sampling,
}

impl Round {
    /// A chain that is right to its end, so that every row is visited.
    fn greedy(nodes: usize, n_vocab: usize) -> Round {
        let mut round = Round::new(nodes, n_vocab, 1, Sampling::GREEDY);
        let mut node = NodeId::ROOT;
        for i in 0..nodes {
            node = round.tree.add(node, arg_max(&round.rows[i]), 0.9).expect("there is room");
        }
        round
    }

    /// A tree of draws, two a node, from laws that resemble the target's.
    fn sampled(nodes: usize, n_vocab: usize, seed: u64) -> Round {
        let sampling = Sampling { temperature: 1.0, top_k: 40, ..Sampling::GREEDY };
        let mut round = Round::new(nodes, n_vocab, seed, sampling);
        let mut next = 0;
        while round.tree.room() > 0 {
            let node = round.tree.ids().nth(next).expect("a full tree has more nodes than were expanded");
            let mut draft = round.rows[next].clone();
            draft.iter_mut().step_by(3).for_each(|logit| *logit -= 0.5);
            let q = round.sampling.dist(&draft, &[], &[]);
            let _ = round.tree.sample(node, q, 2);
            next += 1;
        }
        round
    }

    /// A chain drawn from the target's own laws, so that every row is visited.
    fn drawn_well(nodes: usize, n_vocab: usize) -> Round {
        let mut round = Round::new(nodes, n_vocab, 1, Sampling { temperature: 1.0, top_k: 40, ..Sampling::GREEDY });
        let mut node = NodeId::ROOT;
        for i in 0..nodes {
            let q = round.sampling.dist(&round.rows[i], &[], &[]);
            node = round.tree.sample(node, q, 1).next().expect("there is room");
        }
        round
    }

    fn new(nodes: usize, n_vocab: usize, seed: u64, sampling: Sampling) -> Round {
        let mut tree = TokenTree::new(n_vocab, Box::new(SeededDice::new(seed, Stream::Draft)));
        tree.begin(1, Shape { max_nodes: nodes, depth: nodes, width: 2 });
        let rows = (0..=nodes).map(|i| rows::row(n_vocab, 1000 * seed + i as u64)).collect();
        Round { tree, rows, sampling }
    }

    fn verify(&self, seed: u64, visited: &mut dyn FnMut(usize)) -> Verdict {
        let (mut accept, mut emit) = (SeededDice::new(seed, Stream::Accept), SeededDice::new(seed, Stream::Emit));
        let context: [Token; 1] = [1];
        let mut p = |node: NodeId| {
            visited(node.index());
            self.sampling.dist(&self.rows[node.index()], &context, &self.tree.path(node))
        };
        verify(&self.tree, &mut p, &mut accept, &mut emit)
    }
}

/// Verify and look, in turns, with the same seeds; prints what verifying takes beyond the look.
fn against_one_look(rounds: &[Round], name: &str, pairs: u64) {
    let (mut ratios, mut beyond, mut looks) = (Vec::new(), Vec::new(), 0);
    for (seed, round) in (0..pairs).zip(rounds.iter().cycle()) {
        let mut visited = Vec::new();
        round.verify(seed, &mut |row| visited.push(row)); // warms the rows, and names them
        looks += visited.len();
        let begun = Instant::now();
        for &row in &visited {
            black_box(largest(black_box(&round.rows[row])));
        }
        let looked = Instant::now();
        black_box(round.verify(seed, &mut |_| {}));
        let (verifying, looking) = (looked.elapsed().as_secs_f64(), (looked - begun).as_secs_f64());
        ratios.push(verifying / looking);
        beyond.push(1e6 * (verifying - looking));
    }
    let Some(round) = rounds.first() else { return };
    let (low, high) = foretoken::spread::quartiles(&beyond).unwrap_or_default();
    println!(
        "{name} round of {} nodes, {} tokens: {:.0} us (quartiles {low:.0}-{high:.0}) beyond one max pass per visited row, \
         {:.2} times as long ({:.1} rows)",
        round.tree.len() - 1,
        round.rows[0].len(),
        foretoken::spread::median(&beyond).unwrap_or_default(),
        foretoken::spread::median(&ratios).unwrap_or_default(),
        looks as f64 / pairs as f64,
    );
}

/// The plainest pass that a compiler turns into full vectors.
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &v)| *lane = if v > *lane { v } else { *lane });
    }
    lanes.into_iter().fold(rest, f32::max)
}
