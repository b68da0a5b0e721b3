//! Made-up rows of logits, as peaked as those of a language model.
#![allow(dead_code)] // each bench takes what it needs

use foretoken_drafter::{Dist, Token};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A small vocabulary and a large one.
pub const VOCABULARIES: [usize; 2] = [4_096, 151_936];

/// Logits whose best forty tokens hold most of the mass; the same seed gives the same row.
pub fn row(n_vocab: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut row: Vec<f32> = (0..n_vocab).map(|_| (0..4).map(|_| rng.random::<f32>()).sum::<f32>() * 2.0).collect();
    for rank in 0..60 {
        row[rng.random_range(0..n_vocab)] = 20.0 - 2.0 * (rank as f32 + 1.0).ln();
    }
    row
}

/// A law over `support` tokens, spread over a large vocabulary.
pub fn dist(support: usize, seed: u64) -> Dist {
    let mut rng = StdRng::seed_from_u64(seed);
    let stride = (VOCABULARIES[1] / support) as Token;
    let weights = (0..support as Token).map(|t| (t * stride, 0.01 + rng.random::<f64>()));
    Dist::from_weights(weights).expect("every weight is positive")
}
