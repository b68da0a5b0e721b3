//! What can only be found out by trying: how far logits move with the size of a pass, and what a pass
//! of n tokens costs on this machine. Used by `check` and by the tests.

use std::time::{Duration, Instant};

use foretoken_drafter::{Dice, DraftError, LanguageModel, NodeId, SeqId, Shape, Token, TokenTree};

const SEQ: SeqId = SeqId(0);

/// How logits of the same places differ between passes of one token and one pass of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Difference {
    /// Largest |Δlogit|.
    pub largest: f32,
    /// Places compared.
    pub places: usize,
    /// Places where the likeliest token changed.
    pub flips: usize,
    /// |Δlogit| at the last place compared.
    pub last: f32,
    /// Smallest lead of the likeliest token over the next, in one-token passes.
    pub smallest_margin: f32,
}

impl Difference {
    /// The differences of both.
    pub fn and(self, other: Difference) -> Difference {
        Difference {
            largest: self.largest.max(other.largest),
            places: self.places + other.places,
            flips: self.flips + other.flips,
            last: other.last,
            smallest_margin: self.smallest_margin.min(other.smallest_margin),
        }
    }
}

/// Score the last `n` tokens of `text` in one pass, then one by one, and compare.
///
/// # Errors
/// The text is shorter than `n`, or the model failed.
pub fn logit_difference(model: &mut dyn LanguageModel, text: &[Token], n: usize) -> Result<Difference, DraftError> {
    let (context, tree) = chain(model, text, n)?;
    let nodes: Vec<NodeId> = tree.ids().collect();
    let together: Vec<Vec<f32>> = {
        let scores = model.score(SEQ, context, &tree, &nodes)?;
        (0..n).map(|i| scores.row(i).to_vec()).collect()
    };
    let mut difference = Difference { smallest_margin: f32::INFINITY, ..Difference::default() };
    for (i, many) in together.iter().enumerate() {
        let context = &text[..text.len() - n + 1 + i];
        let scores = model.score(SEQ, context, &TokenTree::bare(context[context.len() - 1]), &[NodeId::ROOT])?;
        let one = scores.row(0);
        let largest = one.iter().zip(many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let ((best, margin), (best_of_many, _)) = (lead(one), lead(many));
        let flips = usize::from(best != best_of_many);
        let here = Difference { largest, places: 1, flips, last: largest, smallest_margin: margin };
        difference = difference.and(here);
    }
    Ok(difference)
}

/// Median time to score n = 1, 2, …, `most` tokens in one pass after `text`; n changes from pass to pass,
/// as it does in use (llama.cpp rebuilds its graph then).
///
/// # Errors
/// The text is too short, or the model failed.
pub fn cost_curve(
    model: &mut dyn LanguageModel,
    text: &[Token],
    most: usize,
    repeats: usize,
) -> Result<Vec<Duration>, DraftError> {
    if text.len() < most || most == 0 {
        return Err(DraftError::failed(format!("a text of {} tokens is too short to score {most}", text.len())));
    }
    let mut times = vec![Vec::with_capacity(repeats); most];
    for round in 0..=repeats {
        for step in 0..most {
            // 7 is coprime to every power of two: all sizes, never in order.
            let n = 1 + (step * 7 + round) % most;
            let (context, tree) = chain(model, &text[..text.len() - most + n], n)?;
            let nodes: Vec<NodeId> = tree.ids().collect();
            model.score(SEQ, context, &TokenTree::bare(context[context.len() - 1]), &[])?;
            let begun = Instant::now();
            model.score(SEQ, context, &tree, &nodes)?;
            if round > 0 {
                times[n - 1].push(begun.elapsed());
            }
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    Ok(times.into_iter().map(median).collect())
}

/// The text before its last `n` tokens, with the first of them as the root and the others as a chain.
///
/// # Errors
/// The text is shorter than that.
pub fn chain<'a>(
    model: &dyn LanguageModel,
    text: &'a [Token],
    n: usize,
) -> Result<(&'a [Token], TokenTree), DraftError> {
    if n == 0 || text.len() < n {
        return Err(DraftError::failed(format!("a text of {} tokens is too short to score {n}", text.len())));
    }
    let (context, rest) = text.split_at(text.len() - n + 1);
    let mut tree = TokenTree::new(model.n_vocab(), Box::new(NoDice));
    tree.begin(context[context.len() - 1], Shape { max_nodes: n - 1, depth: n, width: 1 });
    let mut at = NodeId::ROOT;
    for &token in rest {
        at = tree.add(at, token, 1.0).unwrap_or(at);
    }
    Ok((context, tree))
}

/// The likeliest token and its lead over the next.
fn lead(logits: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut second = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            second = best.1;
            best = (token, logit);
        } else if logit > second {
            second = logit;
        }
    }
    (best.0, best.1 - second)
}

/// A chain draws nothing.
struct NoDice;

impl Dice for NoDice {
    fn pick(&mut self, _: &[f64]) -> usize {
        0
    }
}
