//! How likely is a guess to be accepted, really? From what drafters believe of their guesses to what comes of them.
//!
//! Only nodes whose parent was accepted are evidence: of the others nobody knows. Whether they were scored does not
//! matter where nothing was drawn, for then the text is what the target says anyway. For each part of a drafter, and apart
//! for fixed and drawn nodes, the estimate is made in steps, each correcting the one before, each shrunk towards it
//! while there is little evidence, in logits:
//!
//! 1. a line through the belief's logit (Platt): one count says something about every belief;
//! 2. a correction for each bin of beliefs, because look-ups are not logistic;
//! 3. a correction for each depth;
//! 4. a shift common to all, fitted to the last few dozen guesses of a part only: texts change by the paragraph.
//!
//! Steps 1 to 3 forget with a half-life of several hundred guesses, step 4 with one of a few dozen rounds. Before
//! there is evidence, beliefs are taken as they are. Counts in bins were chosen over a fit to single guesses because they
//! need no learning rate, and over counts alone because those know nothing of a bin until it was tried.

use std::collections::VecDeque;

use foretoken_drafter::{Guess, NodeId, TokenTree};
use serde::{Deserialize, Serialize};

/// Calibrates the beliefs of one drafter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Survival {
    parts: Vec<Part>,
    /// How often the likeliest child of an accepted node was accepted, by depth, where a draft model grew the tree.
    typical: [Ratio; DEPTHS],
    #[serde(skip)]
    round: u64,
    #[serde(skip)]
    score: Score,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Part {
    kinds: [Kind; 2],
    #[serde(skip)]
    recent: VecDeque<Recent>,
    #[serde(skip)]
    shift: f64,
}

/// Fixed or drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kind {
    bins: [Bin; BINS],
    depths: [Bin; DEPTHS],
    /// Offset and slope of the line.
    line: (f64, f64),
}

/// Decayed sums over guesses: how many, accepted, and of the estimate to be corrected: a logit in `Kind::bins`, a
/// probability in `Kind::depths`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Bin {
    n: f64,
    accepted: f64,
    x: f64,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    guess: Guess,
    accepted: bool,
    weight: f64,
    round: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Ratio {
    n: f64,
    accepted: f64,
}

/// How well the estimates were calibrated, over everything that could be checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Guesses that were scored and whose parent was accepted.
    pub guesses: usize,
    /// Mean squared difference between estimate and outcome (Brier); `None` before the first.
    pub brier: Option<f64>,
    /// The same for the drafter's own beliefs.
    pub brier_of_beliefs: Option<f64>,
    /// Guesses by estimate, in tenths: how many, the mean estimate, the share that was accepted.
    pub reliability: Vec<(usize, f64, f64)>,
}

#[derive(Clone, Debug, Default)]
struct Score {
    squares: f64,
    squares_of_beliefs: f64,
    tenths: [(usize, f64, f64); 10],
}

impl Survival {
    /// The probability that `guess` is accepted, its parent being so.
    pub fn acceptance(&self, guess: Guess) -> f32 {
        let part = self.parts.get(guess.part.min(MOST_PARTS - 1));
        part.map_or(guess.belief, |part| sigmoid(part.slow(guess) + part.shift) as f32)
    }

    /// The same of a guess that a draft model has yet to make, at `depth`.
    pub fn typical(&self, depth: usize) -> f64 {
        let ratio = self.typical[depth_class(depth)];
        (ratio.accepted + TYPICAL * TYPICAL_TRIALS) / (ratio.n + TYPICAL_TRIALS)
    }

    /// `accepted` are the nodes of `tree` that the text followed, of which `tokens` more are known: where it is no longer
    /// than the path, nobody knows what comes of the last node's children. `scored` is what was left of the tree when it
    /// was scored.
    pub fn learn(&mut self, tree: &TokenTree, accepted: &[NodeId], tokens: usize, scored: &TokenTree) {
        self.round += 1;
        let mut scored_parent = Some(NodeId::ROOT);
        for depth in 0..tokens.min(accepted.len() + 1) {
            let parent = depth.checked_sub(1).map_or(NodeId::ROOT, |i| accepted[i]);
            let next = accepted.get(depth).copied();
            let mut best: Option<NodeId> = None;
            for child in tree.children(parent) {
                let was_scored = scored_parent.is_some_and(|up| scored.child(up, tree.token(child)).is_some());
                let weight = if was_scored || tree.belief(child) >= CONFIDENT { 1.0 } else { UNSCORED };
                let (guess, accepted) = (guess(tree, child), next == Some(child));
                if was_scored {
                    self.score.count(f64::from(self.acceptance(guess)), f64::from(guess.belief), accepted);
                }
                self.learn_guess(guess, accepted, weight);
                if best.is_none_or(|best| tree.survival(child) > tree.survival(best)) {
                    best = Some(child);
                }
            }
            scored_parent = scored_parent.zip(next).and_then(|(up, next)| scored.child(up, tree.token(next)));
            if let Some(best) = best.filter(|_| tree.passes() > 0) {
                self.typical[depth_class(depth + 1)].learn(next == Some(best));
            }
        }
        for part in &mut self.parts {
            part.fit_shift(self.round);
        }
    }

    /// Another text begins: what was special about the last one is over.
    pub fn start(&mut self) {
        for part in &mut self.parts {
            part.recent.clear();
            part.shift = 0.0;
        }
    }

    /// The same estimates, on half the evidence: for those that were stored. Another time brings other texts.
    pub fn as_a_beginning(&self) -> Survival {
        let mut survival = Survival { round: 0, score: Score::default(), ..self.clone() };
        survival.start();
        let kinds = survival.parts.iter_mut().flat_map(|part| &mut part.kinds);
        kinds.flat_map(|kind| kind.bins.iter_mut().chain(&mut kind.depths)).for_each(|bin| bin.fade(STORED));
        for ratio in &mut survival.typical {
            (ratio.n, ratio.accepted) = (ratio.n * STORED, ratio.accepted * STORED);
        }
        survival
    }

    /// A round without evidence: what is recent counts for less when there is some again.
    pub fn pass(&mut self) {
        self.round += 1;
    }

    /// How well calibrated the estimates were.
    pub fn calibration(&self) -> Calibration {
        let guesses = self.score.tenths.iter().map(|t| t.0).sum::<usize>();
        let mean = |sum: f64| (guesses > 0).then(|| sum / guesses as f64);
        let tenth = |&(n, p, accepted): &(usize, f64, f64)| (n, p / (n.max(1) as f64), accepted / n.max(1) as f64);
        Calibration {
            guesses,
            brier: mean(self.score.squares),
            brier_of_beliefs: mean(self.score.squares_of_beliefs),
            reliability: self.score.tenths.iter().map(tenth).collect(),
        }
    }

    fn learn_guess(&mut self, guess: Guess, accepted: bool, weight: f64) {
        let index = guess.part.min(MOST_PARTS - 1);
        if index >= self.parts.len() {
            self.parts.resize_with(index + 1, Part::default);
        }
        let part = &mut self.parts[index];
        part.kinds[usize::from(guess.drawn)].learn(guess, accepted, weight);
        part.recent.push_back(Recent { guess, accepted, weight, round: self.round });
        while part.recent.iter().map(|recent| recent.weight).sum::<f64>() > RECENT {
            part.recent.pop_front();
        }
    }
}

/// A node as it was when it entered the tree.
fn guess(tree: &TokenTree, node: NodeId) -> Guess {
    let drawn = tree.draw(node).is_some();
    Guess { belief: tree.belief(node), depth: tree.depth(node), drawn, part: tree.part(node) }
}

impl Part {
    fn slow(&self, guess: Guess) -> f64 {
        let kind = &self.kinds[usize::from(guess.drawn)];
        kind.without_depth(guess) + kind.depths[depth_class(guess.depth)].correction_of_mean(DEPTH_TRIALS)
    }

    /// The most probable shift given the recent guesses and a standard normal prior, by Newton's method.
    fn fit_shift(&mut self, now: u64) {
        let weight = |r: &Recent| r.weight * 0.5f64.powf(now.saturating_sub(r.round) as f64 / RECENT_ROUNDS);
        let recent: Vec<(f64, f64, f64)> =
            self.recent.iter().map(|r| (weight(r), self.slow(r.guess), f64::from(u8::from(r.accepted)))).collect();
        for _ in 0..3 {
            let (mut gradient, mut curvature) = (-self.shift, 1.0);
            for &(weight, z, y) in &recent {
                let p = sigmoid(z + self.shift);
                gradient += weight * (y - p);
                curvature += weight * p * (1.0 - p);
            }
            self.shift = (self.shift + (gradient / curvature).clamp(-2.0, 2.0)).clamp(-6.0, 6.0);
        }
    }
}

impl Default for Kind {
    fn default() -> Kind {
        Kind { bins: [Bin::default(); BINS], depths: [Bin::default(); DEPTHS], line: (0.0, 1.0) }
    }
}

impl Kind {
    fn on_the_line(&self, x: f64) -> f64 {
        self.line.0 + self.line.1 * x
    }

    fn without_depth(&self, guess: Guess) -> f64 {
        let x = logit(f64::from(guess.belief));
        let bin = &self.bins[bin_of(guess.belief)];
        let mean = if bin.n > 0.0 { bin.x / bin.n } else { x };
        self.on_the_line(x) + bin.correction(sigmoid(self.on_the_line(mean)), BIN_TRIALS)
    }

    fn learn(&mut self, guess: Guess, accepted: bool, weight: f64) {
        let before = sigmoid(self.without_depth(guess));
        let y = f64::from(u8::from(accepted));
        for bin in self.bins.iter_mut().chain(&mut self.depths) {
            bin.fade(MEMORY.powf(weight));
        }
        self.bins[bin_of(guess.belief)].add(weight, y, logit(f64::from(guess.belief)));
        self.depths[depth_class(guess.depth)].add(weight, y, before);
        self.fit_line();
    }

    /// Logistic regression on the bins, two steps of Newton's method from where it was, with a normal prior: that
    /// beliefs are right.
    fn fit_line(&mut self) {
        for _ in 0..2 {
            let (a, c) = self.line;
            let (mut ga, mut gc, mut haa, mut hac, mut hcc) = (-a * OFFSET, (1.0 - c) * SLOPE, OFFSET, 0.0, SLOPE);
            for bin in self.bins.iter().filter(|bin| bin.n > 0.0) {
                let x = bin.x / bin.n;
                let p = sigmoid(self.on_the_line(x));
                let (residual, weight) = (bin.accepted - bin.n * p, bin.n * p * (1.0 - p));
                (ga, gc) = (ga + residual, gc + residual * x);
                (haa, hac, hcc) = (haa + weight, hac + weight * x, hcc + weight * x * x);
            }
            let det = haa * hcc - hac * hac;
            let (da, dc) = ((ga * hcc - gc * hac) / det, (gc * haa - ga * hac) / det);
            // A drafter that is the surer the more it errs is not believed the other way round.
            self.line = ((a + da.clamp(-1.0, 1.0)).clamp(-8.0, 8.0), (c + dc.clamp(-0.5, 0.5)).clamp(0.0, 3.0));
        }
    }
}

impl Bin {
    fn add(&mut self, weight: f64, y: f64, x: f64) {
        (self.n, self.accepted, self.x) = (self.n + weight, self.accepted + weight * y, self.x + weight * x);
    }

    fn fade(&mut self, keep: f64) {
        (self.n, self.accepted, self.x) = (self.n * keep, self.accepted * keep, self.x * keep);
    }

    /// What the counts add to an estimate of `p` that is worth `trials`, in logits.
    fn correction(&self, p: f64, trials: f64) -> f64 {
        logit((self.accepted + trials * p) / (self.n + trials)) - logit(p)
    }

    /// The same where `x` sums the estimates.
    fn correction_of_mean(&self, trials: f64) -> f64 {
        if self.n > 0.0 {
            self.correction(self.x / self.n, trials)
        } else {
            0.0
        }
    }
}

impl Ratio {
    fn learn(&mut self, accepted: bool) {
        self.n = self.n * TYPICAL_MEMORY + 1.0;
        self.accepted = self.accepted * TYPICAL_MEMORY + f64::from(u8::from(accepted));
    }
}

impl Score {
    fn count(&mut self, p: f64, belief: f64, accepted: bool) {
        let y = f64::from(u8::from(accepted));
        self.squares += (y - p) * (y - p);
        self.squares_of_beliefs += (y - belief) * (y - belief);
        let tenth = &mut self.tenths[((p * 10.0) as usize).min(9)];
        *tenth = (tenth.0 + 1, tenth.1 + p, tenth.2 + y);
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Never quite sure: beliefs of 0 and 1 are logits too.
fn logit(p: f64) -> f64 {
    let p = p.clamp(0.0025, 0.9975);
    (p / (1.0 - p)).ln()
}

fn bin_of(belief: f32) -> usize {
    EDGES.iter().position(|&edge| belief < edge).unwrap_or(BINS - 1)
}

fn depth_class(depth: usize) -> usize {
    match depth {
        0..=3 => depth.max(1) - 1,
        4..=5 => 3,
        6..=8 => 4,
        _ => 5,
    }
}

/// Depths told apart: 1, 2, 3, 4–5, 6–8, 9 and more.
const DEPTHS: usize = 6;

/// Narrow where a small difference decides how long a branch lives.
const EDGES: [f32; 12] = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995];
const BINS: usize = EDGES.len() + 1;

/// Parts of a combinator told apart; the last one stands for the rest.
const MOST_PARTS: usize = 8;

/// A half-life of 500 guesses.
const MEMORY: f64 = 0.998_614_7;

/// How many trials the line is worth to a bin, and the bins to a depth.
const BIN_TRIALS: f64 = 12.0;
const DEPTH_TRIALS: f64 = 24.0;

/// Precision of the prior on the line's offset and on its slope.
const OFFSET: f64 = 0.5;
const SLOPE: f64 = 8.0;

/// What stored evidence counts for.
const STORED: f64 = 0.5;

/// What a guess counts for that was not scored, unless it was believed to be more likely than not. Most are weak: they
/// would drown what strong ones show.
const UNSCORED: f64 = 0.25;
const CONFIDENT: f32 = 0.5;

/// Most guesses in the shift, and the rounds after which one counts half.
const RECENT: f64 = 48.0;
const RECENT_ROUNDS: f64 = 32.0;

/// What a draft model's best guess is taken to be worth before any was checked, in how many trials, and a half-life of
/// 48 of them.
const TYPICAL: f64 = 0.65;
const TYPICAL_TRIALS: f64 = 3.0;
const TYPICAL_MEMORY: f64 = 0.985_7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{SeededDice, Stream};
    use foretoken_drafter::{Dice, Shape};

    /// Trees of one branch, each node believed by `belief` and accepted by `truth` of it and its depth.
    fn taught(rounds: usize, seed: u64, belief: &dyn Fn(f64) -> f64, truth: &dyn Fn(f64, usize) -> f64) -> Survival {
        let mut survival = Survival::default();
        let mut dice = SeededDice::new(seed, Stream::Accept);
        let mut uniform = move || dice.pick(&[1.0; 1000]) as f64 / 1000.0;
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        for _ in 0..rounds {
            tree.begin(0, Shape { max_nodes: 4, depth: 4, width: 1 });
            let (mut at, mut accepted, mut alive) = (NodeId::ROOT, Vec::new(), true);
            for depth in 1..=4 {
                let b = belief(uniform());
                at = tree.add(at, 1, b as f32).unwrap();
                alive &= uniform() < truth(b, depth);
                accepted.extend(alive.then_some(at));
            }
            survival.learn(&tree, &accepted, 5, &tree);
        }
        survival
    }

    fn of(survival: &Survival, belief: f64, depth: usize) -> f64 {
        f64::from(survival.acceptance(Guess { belief: belief as f32, depth, drawn: false, part: 0 }))
    }

    #[test]
    fn beliefs_are_taken_as_they_are_until_something_is_known() {
        assert!([0.1, 0.5, 0.9].iter().all(|&b| (of(&Survival::default(), b, 1) - b).abs() < 1e-6));
    }

    #[test]
    fn the_true_acceptance_is_found_whatever_is_believed() {
        let laws: [&dyn Fn(f64, usize) -> f64; 4] =
            [&|b, _| b, &|b, _| b * b, &|b, _| if b > 0.7 { 0.95 } else { 0.1 }, &|b, d| b / d as f64];
        for (i, law) in laws.iter().enumerate() {
            let survival = taught(4000, i as u64, &|u| u, law);
            for b in [0.15, 0.4, 0.6, 0.85] {
                let (found, truth) = (of(&survival, b, 1), law(b, 1));
                assert!((found - truth).abs() < 0.12, "law {i}, belief {b}: {found} for {truth}");
            }
            let c = survival.calibration();
            assert!(c.brier <= c.brier_of_beliefs.map(|b| b + 0.005), "law {i}: {c:?}");
            for &(n, p, share) in c.reliability.iter().filter(|t| t.0 > 200) {
                // A bin is a line: it cuts the corners of a law that has a step.
                let most = if i == 2 { 0.2 } else { 0.08 };
                assert!((p - share).abs() < most, "law {i}: of {n} believed {p}, {share} were accepted");
            }
        }
    }

    #[test]
    fn depth_matters_where_it_does() {
        let survival = taught(4000, 3, &|_| 0.8, &|_, depth| if depth == 1 { 0.9 } else { 0.5 });
        let (first, third) = (of(&survival, 0.8, 1), of(&survival, 0.8, 3));
        assert!((first - 0.9).abs() < 0.08 && (third - 0.5).abs() < 0.12, "{first} {third}");
    }

    #[test]
    fn a_few_guesses_unmask_a_liar() {
        let survival = taught(6, 5, &|_| 0.95, &|_, _| 0.0);
        assert!(of(&survival, 0.95, 1) < 0.3, "{}", of(&survival, 0.95, 1));
        assert!(of(&survival, 0.5, 1) < 0.2, "and what it says with less conviction");
    }

    #[test]
    fn a_change_of_text_is_noticed_within_a_few_rounds() {
        let mut survival = taught(500, 7, &|_| 0.8, &|_, _| 0.9);
        assert!(of(&survival, 0.8, 1) > 0.8, "{}", of(&survival, 0.8, 1));
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        for _ in 0..6 {
            tree.begin(0, Shape { max_nodes: 1, depth: 1, width: 1 });
            tree.add(NodeId::ROOT, 1, 0.8);
            survival.learn(&tree, &[], 1, &tree);
        }
        assert!(of(&survival, 0.8, 1) < 0.75, "{}", of(&survival, 0.8, 1));
        survival.start();
        assert!(of(&survival, 0.8, 1) > 0.8, "and forgotten with the text");
    }

    #[test]
    fn what_was_stored_is_a_beginning() {
        let learnt = taught(1000, 9, &|u| u, &|b, d| b * b / d as f64);
        let stored: Survival = serde_json::from_str(&serde_json::to_string(&learnt).unwrap()).unwrap();
        let next = stored.as_a_beginning();
        for (b, depth) in [(0.3, 1), (0.8, 1), (0.8, 3)] {
            let (before, after) = (of(&learnt, b, depth), of(&next, b, depth));
            assert!((before - after).abs() < (b - after).abs(), "{b} at {depth}: {before} became {after}");
        }
        assert_eq!(next.calibration().guesses, 0, "its own judgement begins anew");
    }

    #[test]
    fn nothing_is_learned_below_a_rejected_node() {
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        tree.begin(0, Shape { max_nodes: 4, depth: 4, width: 1 });
        let a = tree.add(NodeId::ROOT, 1, 0.5).unwrap();
        tree.add(a, 2, 0.9).unwrap();
        let mut survival = Survival::default();
        survival.learn(&tree, &[], 1, &tree);
        assert_eq!(survival.calibration().guesses, 1);
    }

    #[test]
    fn what_was_not_scored_counts_for_less() {
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        let mut learnt = |scored: &TokenTree| {
            tree.begin(0, Shape { max_nodes: 4, depth: 4, width: 1 });
            tree.add(NodeId::ROOT, 1, 0.45).unwrap();
            let mut survival = Survival::default();
            (0..20).for_each(|_| survival.learn(&tree, &[], 1, scored));
            (of(&survival, 0.45, 1), survival.calibration().guesses)
        };
        let mut scored = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        scored.begin(0, Shape { max_nodes: 4, depth: 4, width: 1 });
        let cut = learnt(&scored);
        scored.add(NodeId::ROOT, 1, 0.45).unwrap();
        let kept = learnt(&scored);
        assert!(kept.0 < cut.0 - 0.05 && cut.0 < 0.4, "scored {}, not scored {}", kept.0, cut.0);
        assert_eq!((kept.1, cut.1), (20, 0), "the calibration is of what was scored");
    }

    #[test]
    fn nothing_is_learned_beyond_the_end_of_the_text() {
        let mut tree = TokenTree::new(10, Box::new(SeededDice::new(0, Stream::Draft)));
        tree.begin(0, Shape { max_nodes: 4, depth: 4, width: 1 });
        let a = tree.add(NodeId::ROOT, 1, 0.5).unwrap();
        tree.add(a, 2, 0.9).unwrap();
        let mut survival = Survival::default();
        survival.learn(&tree, &[a], 1, &tree);
        assert_eq!(survival.calibration().guesses, 1);
        survival.learn(&tree, &[a], 2, &tree);
        assert_eq!(survival.calibration().guesses, 3);
    }
}
