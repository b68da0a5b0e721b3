//! Synthetic texts for measuring: the same seed gives the same tokens on every machine.

#![allow(dead_code, reason = "each user takes the texts it needs")]

/// The first so many tokens of a text.
pub type Text = fn(usize) -> Vec<u32>;

/// Each text by its name.
pub const TEXTS: [(&str, Text); 3] = [("story", story), ("code", code), ("repeated", repeated)];

/// Words by Zipf's law (rank r has weight 1/r, 8000 words), with one in eight sentences told before.
pub fn story(n: usize) -> Vec<u32> {
    let mut dice = Dice(1);
    let words = zipf(8000);
    let mut tokens = Vec::with_capacity(n + 32);
    while tokens.len() < n {
        let len = 5 + dice.below(20);
        if tokens.len() > 1000 && dice.below(8) == 0 {
            let start = dice.below(tokens.len() - len);
            tokens.extend_from_within(start..start + len);
        } else {
            tokens.extend((0..len).map(|_| dice.pick(&words) as u32 + 1));
        }
        tokens.push(0);
    }
    tokens.truncate(n);
    tokens
}

/// Lines of 60 patterns of 6 to 20 tokens, a fifth of which are names by Zipf's law out of 500.
pub fn code(n: usize) -> Vec<u32> {
    const NAME: u32 = u32::MAX;
    let mut dice = Dice(2);
    let (names, words) = (zipf(500), zipf(120));
    let pattern = |dice: &mut Dice| -> Vec<u32> {
        let len = 6 + dice.below(15);
        (0..len).map(|_| if dice.below(5) == 0 { NAME } else { 600 + dice.pick(&words) as u32 }).collect()
    };
    let patterns: Vec<Vec<u32>> = (0..60).map(|_| pattern(&mut dice)).collect();
    let lines = zipf(patterns.len());
    let mut tokens = Vec::with_capacity(n + 32);
    while tokens.len() < n {
        let line = &patterns[dice.pick(&lines)];
        tokens.extend(line.iter().map(|&t| if t == NAME { dice.pick(&names) as u32 + 1 } else { t }));
        tokens.push(0);
    }
    tokens.truncate(n);
    tokens
}

/// One token, again and again.
pub fn repeated(n: usize) -> Vec<u32> {
    vec![7; n]
}

/// Cumulative weights 1/1, 1/1 + 1/2, …
fn zipf(n: usize) -> Vec<f64> {
    (1..=n)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect()
}

/// SplitMix64 (Steele et al., 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick(&mut self, cumulative: &[f64]) -> usize {
        let total = cumulative.last().copied().unwrap_or(0.0);
        let x = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        cumulative.partition_point(|&sum| sum <= x).min(cumulative.len() - 1)
    }
}
