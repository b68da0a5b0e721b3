//! What one round keeps to: how many nodes pay, and whether another call, pass, evaluation or draw does.

use foretoken_drafter::{Guess, NodeId, Pace, TokenTree};

use super::order::Order;
use crate::cost::DraftCost;
use crate::promise::Promise;
use crate::survival::Survival;

/// What the tree is asked to keep to in one round: every number that its growth depends on, as it was before.
#[derive(Debug)]
pub struct Schedule {
    /// T(1), and T(n) for n = 1, 2, …: as estimated, as it may be if all goes well, and if it does not.
    pub plain: f64,
    pub times: Vec<f64>,
    pub hopeful: Vec<f64>,
    pub cautious: Vec<f64>,
    /// Numbers of nodes that are worth a try: a full tile, once something was won to pay for it.
    pub untried: Vec<usize>,
    /// λ, tokens per second.
    pub rate: f64,
    /// Survival below which no node pays anywhere on the curve.
    pub least: f32,
    /// Seconds that may be lost.
    pub stake: f64,
    pub draft: DraftCost,
    pub missed: usize,
    /// Seconds to read a prompt first, as far as `draft` does not know them.
    pub unread: f64,
    pub survival: Survival,
    pub promise: Promise,
    /// Whether this is to show what a draft model is worth that was off.
    pub is_trial: bool,
    /// Whether the draft model is off, and only the drafter's other parts are asked.
    pub is_off: bool,
}

/// How many nodes to score, and what that is worth in tokens beyond λ.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub nodes: usize,
    pub value: f64,
}

/// Where the walk may end as the tree stands, and how likely.
#[derive(Clone, Copy, Debug)]
struct End {
    depth: usize,
    chance: f64,
}

impl End {
    fn by_chance(&self, other: &End) -> std::cmp::Ordering {
        self.chance.total_cmp(&other.chance)
    }

    /// Where it is likeliest to end once guesses at depths 1, 2, … with these survivals are there too: where they leave
    /// off, or where it was.
    fn after(self, guesses: &[f64]) -> End {
        let taken = if self.depth == 0 { guesses.first().copied().unwrap_or(0.0) } else { 0.0 };
        let was = End { chance: self.chance - taken, ..self };
        let next = guesses.iter().skip(1).chain([&0.0]);
        let off = (1..).zip(guesses.iter().zip(next)).map(|(depth, (here, next))| End { depth, chance: here - next });
        off.chain([was]).max_by(End::by_chance).unwrap_or(was)
    }
}

impl Schedule {
    pub fn draft_seconds(&self, passes: usize) -> f64 {
        self.draft.seconds(passes, self.missed) + if passes > 0 { self.unread } else { 0.0 }
    }

    /// What was spent on this tree so far, calls, passes and evaluations.
    pub fn drafted(&self, tree: &TokenTree) -> f64 {
        self.draft_seconds(tree.passes()) + self.draft.evaluation() * tree.evaluations().len() as f64
    }

    /// T of so many nodes, root not counted.
    pub fn seconds(&self, nodes: usize) -> f64 {
        at(&self.times, nodes)
    }

    /// Whether a round with so many nodes could lose no more than may be lost: a share of it, so that one bad round does
    /// not end it all, or, with few nodes, all of it.
    pub fn affords(&self, draft: f64, nodes: usize) -> bool {
        let (time, share) = match () {
            () if self.untried.contains(&nodes) => (self.seconds(nodes), TRY),
            () if nodes <= FEW_NODES => (at(&self.cautious, nodes), 1.0),
            () => (at(&self.cautious, nodes), STAKE),
        };
        draft + time - self.plain <= self.stake * share
    }

    /// The best number of nodes in this order that keeps those that must stay. Where the curve was hardly measured, it
    /// is taken to be as good as it may be, if that is affordable: so it gets measured.
    ///
    /// A node costs the same wherever it is. llama.cpp keeps one cell for each, however many sequences run through it, and
    /// every row of a pass attends to all cells and masks what is not its own. Passes over a root and 8 nodes, medians of
    /// 12 passes with one thread of two busy cores, as a chain and as 8 leaves: 209 and 210 ms after 200 tokens, 726 and
    /// 706 after 1,000, 1,751 and 1,598 after 2,000 (the bundled target widened to 158 MB; T(1) was 69, 128 and 255 ms).
    /// It is the length of the context that makes further nodes dearer, and the curve knows contexts.
    pub fn best(&self, order: &Order, draft: f64) -> Choice {
        self.best_of(order, |n| self.affords(draft, n))
    }

    /// The same, were losses no matter.
    pub fn best_on_paper(&self, order: &Order) -> Choice {
        self.best_of(order, |_| true)
    }

    fn best_of(&self, order: &Order, is_allowed: impl Fn(usize) -> bool) -> Choice {
        let mut best = Choice { nodes: order.fixed_from, value: f64::NEG_INFINITY };
        let mut tokens = 1.0;
        for n in 0..=order.survivals.len() {
            if n > 0 {
                tokens += order.survivals[n - 1];
            }
            if n < order.fixed_from || (n > order.fixed_from && !is_allowed(n)) {
                continue;
            }
            let value = tokens - self.rate * at(&self.hopeful, n);
            if value > best.value {
                best = Choice { nodes: n, value };
            }
        }
        best
    }

    /// The most that one or more passes are worth, one layer each below where the walk is likeliest to end. Less than
    /// anything if none is affordable.
    fn value_of_passes(&self, mut order: Order, drafted: f64, passes: usize, end: End, layers: usize) -> f64 {
        let (mut survival, mut most) = (end.chance, f64::NEG_INFINITY);
        for more in 1..=layers {
            survival *= self.survival.typical(end.depth + more);
            order.insert(survival);
            let dearer = self.draft_seconds(passes + more) - self.draft_seconds(passes);
            if !self.affords(drafted + dearer, 1) {
                break;
            }
            most = most.max(self.best(&order, drafted + dearer).value - self.rate * dearer);
        }
        most
    }
}

impl Pace for Schedule {
    fn acceptance(&self, guess: Guess) -> f32 {
        self.survival.acceptance(guess)
    }

    fn is_worth_adding(&self, survival: f32) -> bool {
        survival >= self.least
    }

    /// Whether some number of passes from here on pays: where T(n) is a staircase, two may where one does not. What they
    /// bring may take the place of guesses that are there: a look-up's weak ones cost a model's no step.
    fn another_pass(&self, tree: &TokenTree, best: NodeId) -> bool {
        // The first pass was decided on when the round was planned, unless an earlier part has guessed meanwhile; a trial
        // is about the model whoever has guessed.
        if tree.passes() == 0 && (tree.is_empty() || self.is_trial || self.is_off) {
            return !self.is_off && self.affords(self.draft_seconds(1), 1);
        }
        let (order, drafted) = (Order::of(tree), self.drafted(tree));
        let now = self.best(&order, drafted).value;
        let layers = tree.shape().depth.saturating_sub(tree.depth(best)).min(tree.room());
        let end = End { depth: tree.depth(best), chance: f64::from(tree.unclaimed(best)) };
        self.value_of_passes(order, drafted, tree.passes(), end, layers) > now
    }

    /// Whether what heads promise is worth their evaluation, and more than a draft model's passes would be without it.
    /// Those may still follow: the better of both ways is compared with the better of both.
    fn an_evaluation(&self, tree: &TokenTree, depth: usize) -> bool {
        let (evaluation, drafted) = (self.draft.evaluation(), self.drafted(tree));
        // Of guesses that are there already, a trial would show nothing about the model.
        if (self.is_trial && self.draft.has_passes()) || !self.affords(drafted + evaluation, 1) {
            return false;
        }
        if self.promise.is_due() {
            return true;
        }
        let value = |order: Order, end: End| {
            let alone = self.best(&order, drafted).value;
            let layers = tree.shape().depth.saturating_sub(end.depth).min(tree.room());
            let layers = if self.draft.has_passes() && !self.is_off { layers } else { 0 };
            alone.max(self.value_of_passes(order, drafted, tree.passes(), end, layers))
        };
        let end = |node| End { depth: tree.depth(node), chance: f64::from(tree.unclaimed(node)) };
        let now = tree.ids().map(end).max_by(End::by_chance).unwrap_or(End { depth: 0, chance: 1.0 });
        let promised = self.promise.of(tree, depth);
        let mut with = Order::of(tree);
        promised.iter().take(tree.room()).for_each(|&survival| with.insert(survival));
        value(with, now.after(&promised)) - self.rate * evaluation > value(Order::of(tree), now)
    }

    fn another_draw(&self, tree: &TokenTree, survival: f32) -> bool {
        let n = tree.len() - 1;
        let dearer = at(&self.hopeful, n + 1) - at(&self.hopeful, n);
        survival >= self.least && f64::from(survival) > self.rate * dearer && self.affords(self.drafted(tree), n + 1)
    }
}

/// Times by number of nodes; past the end as at the end.
fn at(times: &[f64], nodes: usize) -> f64 {
    times.get(nodes).or(times.last()).copied().unwrap_or(0.0)
}

/// The share of it that one round may lose, the nodes up to which it may lose all, and the share that a try may, once.
const STAKE: f64 = 0.4;
const FEW_NODES: usize = 1;
const TRY: f64 = 0.7;
