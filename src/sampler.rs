//! From logits to the law that tokens are drawn from: what is forbidden is left out, then come penalties, top-k, top-p,
//! min-p, temperature, in that order (llama.cpp's default order).
//!
//! The target's p and a draft model's q come from the same settings through here, and penalties see
//! each node's own path, so a tree is sampled as if each branch had been generated token by token.
//! A row of 152k logits is read once: the arg-max and the top-k both come out of one blocked pass.

use std::borrow::Cow;
use std::collections::HashMap;

use foretoken_drafter::{Dist, Law, Token};

/// How the next token is chosen from the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: always the likeliest token. Above it, probabilities are exp(logit / temperature).
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits of recent tokens, multiplies negative ones; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from a recent token's logit for each time it occurs; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted once from each recent token's logit; 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens count as recent.
    pub penalty_last_n: usize,
    /// Tokens that are never chosen, however likely: those that end a text, where it should not end.
    pub forbidden: Vec<Token>,
}

impl Sampling {
    /// Always the likeliest token, no penalties.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        penalty_last_n: 64,
        forbidden: Vec::new(),
    };

    /// Whether the law depends on the last `penalty_last_n` tokens.
    pub fn has_penalties(&self) -> bool {
        self.penalty_last_n > 0
            && (self.repeat_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0)
    }
}

impl Law for Sampling {
    fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    fn dist(&self, logits: &[f32], context: &[Token], path: &[Token]) -> Dist {
        let logits = self.penalise(logits, context, path);
        if self.is_greedy() {
            return Dist::point(self.best(&logits));
        }
        let candidates = self.truncate(&logits);
        let max = candidates.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.1));
        let scale = 1.0 / f64::from(self.temperature);
        let weights = candidates.iter().map(|&(t, l)| (t, (f64::from(l - max) * scale).exp()));
        // All logits NaN or infinite: a broken model; still a token rather than a panic.
        Dist::from_weights(weights).unwrap_or_else(|| Dist::point(self.best(&logits)))
    }

    fn top(&self, logits: &[f32], context: &[Token], path: &[Token], n: usize) -> Vec<(Token, f32)> {
        if !self.is_greedy() {
            let mut top: Vec<(Token, f32)> =
                self.dist(logits, context, path).iter().map(|(t, p)| (t, p as f32)).collect();
            let better = |a: &(Token, f32), b: &(Token, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            if (1..top.len()).contains(&n) {
                top.select_nth_unstable_by(n - 1, better);
            }
            top.truncate(n);
            top.sort_unstable_by(better);
            return top;
        }
        let logits = self.penalise(logits, context, path);
        let mut top = self.likeliest(&logits, n);
        let Some(max) = top.first().map(|t| t.1) else { return top };
        // Of infinite logits too the likeliest have equal shares, and what is no number has none.
        let part = |l: f32| match l {
            _ if l == max => 1.0,
            _ if l.is_nan() => 0.0,
            _ => (l - max).exp(),
        };
        let sum = match self.forbidden.is_empty() {
            true => logits.iter().map(|&l| part(l)).sum::<f32>(),
            // Taken out one by one: what is forbidden may be all but certain, and nothing would be left of the rest.
            false => {
                let is_allowed = |(token, _): &(usize, &f32)| !self.forbidden.contains(&(*token as Token));
                logits.iter().enumerate().filter(is_allowed).map(|(_, &l)| part(l)).sum()
            }
        };
        top.iter_mut().for_each(|t| t.1 = part(t.1) / sum);
        top
    }
}

impl Sampling {
    /// The logits with penalties for the last tokens of `context` followed by `path`.
    fn penalise<'a>(&self, logits: &'a [f32], context: &[Token], path: &[Token]) -> Cow<'a, [f32]> {
        if !self.has_penalties() {
            return Cow::Borrowed(logits);
        }
        let mut counts: HashMap<Token, f32> = HashMap::new();
        for &token in path.iter().rev().chain(context.iter().rev()).take(self.penalty_last_n) {
            *counts.entry(token).or_default() += 1.0;
        }
        let mut logits = logits.to_vec();
        for (token, count) in counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / self.repeat_penalty } else { *logit * self.repeat_penalty };
            *logit -= count * self.frequency_penalty + self.presence_penalty;
        }
        Cow::Owned(logits)
    }

    /// The likeliest token that may be chosen.
    fn best(&self, logits: &[f32]) -> Token {
        let best = arg_max(logits);
        match self.forbidden.contains(&best) {
            false => best,
            true => self.likeliest(logits, 1).first().map_or(best, |&(token, _)| token),
        }
    }

    /// The `k` likeliest tokens that may be chosen, best first.
    fn likeliest(&self, logits: &[f32], k: usize) -> Vec<(Token, f32)> {
        let mut top = top_k(logits, k.saturating_add(self.forbidden.len()));
        top.retain(|(token, _)| !self.forbidden.contains(token));
        top.truncate(k);
        top
    }

    /// The tokens that top-k, top-p and min-p leave, with their logits.
    fn truncate(&self, logits: &[f32]) -> Vec<(Token, f32)> {
        let mut kept: Vec<(Token, f32)> = match self.top_k {
            0 => {
                let all = logits.iter().enumerate().map(|(t, &l)| (t as Token, l));
                all.filter(|c| !c.1.is_nan() && !self.forbidden.contains(&c.0)).collect()
            }
            k => self.likeliest(logits, k),
        };
        if self.top_p < 1.0 {
            kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            kept.truncate(self.nucleus(&kept));
        }
        if self.min_p > 0.0 {
            let max = kept.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.1));
            kept.retain(|c| c.1 >= max + self.min_p.ln());
        }
        kept
    }

    /// How many of the candidates, best first, top-p keeps; at least one.
    fn nucleus(&self, sorted: &[(Token, f32)]) -> usize {
        let Some(max) = sorted.first().map(|c| c.1) else { return 0 };
        let weights: Vec<f64> = sorted.iter().map(|c| f64::from(c.1 - max).exp()).collect();
        let enough = f64::from(self.top_p) * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        1 + weights
            .iter()
            .position(|w| {
                sum += w;
                sum >= enough
            })
            .unwrap_or(weights.len() - 1)
    }
}

/// The first index of the largest logit; 0 if there is none.
pub fn arg_max(logits: &[f32]) -> Token {
    let (mut best, mut block) = (f32::NEG_INFINITY, 0);
    for (i, chunk) in logits.chunks(BLOCK).enumerate() {
        let max = max_of(chunk);
        if max > best {
            (best, block) = (max, i);
        }
    }
    let start = block * BLOCK;
    let end = logits.len().min(start + BLOCK);
    (start + logits[start..end].iter().position(|&l| l == best).unwrap_or(0)) as Token
}

/// The `k` largest logits, best first; the lower token first among equals. NaN and minus infinity
/// are left out.
fn top_k(logits: &[f32], k: usize) -> Vec<(Token, f32)> {
    let better = |a: &(Token, f32), b: &(Token, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let k = k.min(logits.len());
    if k == 0 {
        return Vec::new();
    }
    let mut kept: Vec<(Token, f32)> = Vec::with_capacity(4 * k + BLOCK);
    let mut threshold = f32::NEG_INFINITY;
    for (i, chunk) in logits.chunks(BLOCK).enumerate() {
        if kept.len() >= k && max_of(chunk) <= threshold {
            continue;
        }
        let entries = chunk.iter().enumerate().map(|(j, &l)| ((i * BLOCK + j) as Token, l));
        kept.extend(entries.filter(|e| e.1 > threshold));
        if kept.len() >= 4 * k.max(1) {
            kept.select_nth_unstable_by(k - 1, better);
            kept.truncate(k);
            threshold = kept[k - 1].1;
        }
    }
    kept.sort_unstable_by(better);
    kept.truncate(k);
    kept
}

/// Logits per block: small enough to skip most of a row, large enough to run at memory speed.
const BLOCK: usize = 256;

/// The largest value; NaN is ignored. Written so that the compiler keeps 16 lanes.
fn max_of(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().chain(chunks.remainder()).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::GREEDY }
    }

    /// 1,000 distinct values in scrambled order.
    fn scrambled() -> Vec<f32> {
        (0..1000).map(|i| ((i * 577) % 1000) as f32 / 100.0).collect()
    }

    #[test]
    fn arg_max_is_the_first_largest() {
        assert_eq!(arg_max(&scrambled()), scrambled().iter().position(|&l| l == 9.99).unwrap() as Token);
        let mut ties = vec![0.0; 700];
        ties[300] = 2.0;
        ties[650] = 2.0;
        assert_eq!(arg_max(&ties), 300);
        assert_eq!(arg_max(&[f32::NAN, 1.0, f32::NAN]), 1);
        assert_eq!(arg_max(&[f32::NAN; 3]), 0);
    }

    #[test]
    fn top_k_equals_sorting() {
        let logits = scrambled();
        let mut sorted: Vec<(Token, f32)> = logits.iter().enumerate().map(|(t, &l)| (t as Token, l)).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        for k in [1, 2, 40, 999, 1000, 5000] {
            assert_eq!(top_k(&logits, k), sorted[..k.min(1000)], "k = {k}");
        }
        assert_eq!(top_k(&[3.0; 600], 2), [(0, 3.0), (1, 3.0)], "ties go to the lower token");
    }

    #[test]
    fn the_likeliest_of_a_law_are_those_of_the_law_sorted() {
        let logits = scrambled();
        let mut sorted: Vec<(Token, f32)> =
            sampled().dist(&logits, &[], &[]).iter().map(|(t, p)| (t, p as f32)).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        for n in [0, 1, 8, 999, 1000, 5000] {
            assert_eq!(sampled().top(&logits, &[], &[], n), sorted[..n.min(1000)], "n = {n}");
        }
    }

    #[test]
    fn the_likeliest_have_probabilities_whatever_the_logits() {
        let top = |logits: &[f32]| Sampling::GREEDY.top(logits, &[], &[], 2);
        assert_eq!(top(&[f32::NAN, 1.0, 1.0, f32::NEG_INFINITY]), [(1, 0.5), (2, 0.5)]);
        assert_eq!(top(&[0.0, f32::INFINITY, 2.0, f32::NAN]), [(1, 1.0), (2, 0.0)]);
        assert_eq!(top(&[f32::INFINITY, 0.0, f32::INFINITY]), [(0, 0.5), (2, 0.5)]);
    }

    #[test]
    fn truncation_keeps_what_it_says() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let support = |s: Sampling| s.dist(&logits, &[], &[]).tokens().to_vec();
        assert_eq!(support(sampled()), [0, 1, 2, 3]);
        assert_eq!(support(Sampling { top_k: 2, ..sampled() }), [0, 1]);
        assert_eq!(support(Sampling { top_p: 0.79, ..sampled() }), [0, 1]);
        assert_eq!(support(Sampling { top_p: 0.81, ..sampled() }), [0, 1, 2]);
        assert_eq!(support(Sampling { min_p: 0.29, ..sampled() }), [0, 1, 2]);
        assert_eq!(support(Sampling::GREEDY), [0]);
    }

    #[test]
    fn what_is_forbidden_is_never_chosen_and_the_others_share_its_part() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let law = |s: Sampling, forbidden: &[Token]| {
            let dist = Sampling { forbidden: forbidden.to_vec(), ..s }.dist(&logits, &[], &[]);
            dist.iter().map(|(t, p)| (t, (100.0 * p).round() as u32)).collect::<Vec<_>>()
        };
        assert_eq!(law(Sampling::GREEDY, &[0, 1]), [(2, 100)]);
        assert_eq!(law(sampled(), &[0]), [(1, 60), (2, 30), (3, 10)]);
        assert_eq!(law(Sampling { top_k: 2, ..sampled() }, &[0]), [(1, 67), (2, 33)], "as many as without");
        assert_eq!(law(sampled(), &[]).len(), 4);
        let greedy = Sampling { forbidden: vec![0], ..Sampling::GREEDY };
        let top = greedy.top(&logits, &[], &[], 2);
        assert_eq!(top.iter().map(|t| (t.0, (100.0 * t.1).round())).collect::<Vec<_>>(), [(1, 60.0), (2, 30.0)]);
        let certain = greedy.top(&[200.0, 1.0, 1.0], &[], &[], 1);
        assert_eq!(certain, [(1, 0.5)], "beliefs are about what may come");
        assert_eq!(law(Sampling::GREEDY, &[0, 1, 2, 3]), [(0, 100)], "still a token rather than a panic");
    }

    #[test]
    fn temperature_sharpens() {
        let logits: Vec<f32> = [0.8f32, 0.2].iter().map(|p| p.ln()).collect();
        let p = Sampling { temperature: 0.5, ..sampled() }.dist(&logits, &[], &[]).p(0);
        assert!((p - 0.64 / 0.68).abs() < 1e-6, "{p}");
    }

    #[test]
    fn penalties_see_the_path_and_forget_the_distant() {
        let s = Sampling { repeat_penalty: 2.0, frequency_penalty: 0.5, penalty_last_n: 2, ..Sampling::GREEDY };
        let logits = [4.0, 3.0, -1.0];
        assert_eq!(s.penalise(&logits, &[1, 0], &[0])[..], [1.0, 3.0, -1.0]);
        assert_eq!(s.penalise(&logits, &[0, 0], &[2, 1])[..], [4.0, 1.0, -2.5]);
    }
}
