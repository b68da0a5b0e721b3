//! How much to draft, or not at all: what pays on this machine, with this text, and no more.
//!
//! The engine asks before each round ([`Control::plan`]), has the drafted tree cut to what is worth scoring
//! ([`Control::trim`]) and tells how the round went ([`Control::learn`]). Control knows T(n) and the cost of drafting
//! ([`crate::cost`]) and how likely guesses are ([`crate::survival`]). It draws nothing, drops nothing that was drawn,
//! and never looks at a clock: time is what the rounds say.
//!
//! **What is maximised.** Tokens per second over the whole text, not in one round. With λ the tokens per second
//! reached lately, the n nodes to score are those that maximise (1 + Σ survival) − λ·(T_draft + T(n)), over every n, 0
//! included, since T(n) is a staircase. (That is Dinkelbach's form of the ratio: at the optimum both agree. The ratio of
//! the round itself would stop too early in a lucky round and too late in a poor one.) λ is never below plain decoding.
//!
//! **What may be lost.** Beliefs may lie, texts change, curves are guesses where they were not measured. So every round
//! that could lose time against plain decoding is a bet, and an account holds what may be bet: it begins with the worth
//! of three plain rounds, receives 0.3 % of the time that passes, and whatever speculation won; whatever it lost is
//! taken from it, and it holds no more than a few plain rounds and a tenth of all that the text has won, so that
//! winnings are not gambled away; another text begins with what this one left, but with at least two plain rounds and
//! at most three. A round whose guesses may all be wrong must not cost more than a part of what is there, or all of it
//! with a single guess; a drafter that paid lately may overdraw it by two and a half plain rounds, and once each a full
//! tile of the kernels may be tried for more. That bounds the loss in a text, together with the credit below, as far as
//! the curve tells what rounds cost; probes are paid from it too, at intervals that double for as long as they fail,
//! and so is bringing an idle draft model up to date, which is dearer the longer it was idle.
//!
//! **What need not be lost.** Where nothing was drawn, the text is what the target says whether a guess is scored or not:
//! guesses that were cut from the tree are compared with what came instead, and a drafter that costs next to nothing is
//! asked even where nothing may be bet, for the weakest guess too. What its guesses would have won is credit, so that it
//! comes back however much was lost before. Only a guess that may well pay is scored for its own sake, and the first two
//! to learn T(2).
//!
//! **Heads and draft models** are asked only where that should pay: the first by what their guesses claimed before of what
//! the tree leaves open ([`crate::promise`]), the others by how often their likeliest guess was right.
//!
//! **Drawn nodes** are never pruned, so how many is decided before each draw, by the tree's pace.

use std::sync::Arc;
use std::time::Duration;

use foretoken_drafter::{NodeId, Pace, Shape, Token, TokenTree};
use serde::{Deserialize, Serialize};

use crate::cost::{CostCurve, DraftCost, DraftCosts, CONTRADICTION};
use crate::promise::Promise;
use crate::stats::{Prediction, Round};
use crate::survival::{Calibration, Survival};
use crate::threads::{Since, Threads};
use account::Account;
use calls::{Call, Calls};
use delay::Delay;
use order::Order;
use paper::Paper;
use plain::PlainRounds;
use schedule::Schedule;

mod account;
mod calls;
mod delay;
mod order;
mod paper;
mod plain;
mod schedule;

/// Decides for one target and one drafter how much to draft.
#[derive(Debug, Default)]
pub struct Control {
    curve: CostCurve,
    draft: DraftCosts,
    survival: Survival,
    promise: Promise,
    /// Whether parts of the drafter were seen to guess without a pass of its model.
    guesses_without: bool,
    /// Whether it was seen to draw without one: what is drawn must be scored.
    draws_without: bool,
    account: Account,
    paper: Paper,
    calls: Calls,
    round: Option<Planned>,
    delay: Delay,
    /// Tokens per plain step that were reached lately, the present cost of a plain step being 1.
    speed: f64,
    /// Tokens that became final since the draft model last ran.
    missed: usize,
    /// Whether it has not read this text's prompt.
    is_unread: bool,
    /// Rounds since it was last seen whether a guess was right, and how many to let pass before the next probe.
    unverified: u32,
    patience: u32,
    plain_rounds: PlainRounds,
    choices: Vec<usize>,
    threads: Option<Threads>,
    /// The context from which on the time of a plain step is watched.
    watched_from: Option<usize>,
    /// Whether the text comes from dice and not from the target, so that it says nothing of guesses that were not scored.
    is_synthetic: bool,
}

/// What to do in a round.
pub enum Plan {
    /// Do not draft.
    Plain,
    /// Draft, at this pace.
    Draft(Arc<dyn Pace>),
}

/// A round under way.
#[derive(Debug)]
struct Planned {
    context: usize,
    schedule: Option<Arc<Schedule>>,
    is_probe: bool,
    /// Whether its guesses cost nothing to make and the text judges them.
    was_free: bool,
    /// The tree before it was cut, if the text will tell which of its guesses were right.
    whole: Option<TokenTree>,
    /// What scoring one guess was expected to bring where none was worth it, but what guesses are worth is to be seen.
    on_paper: Option<(Prediction, NodeId)>,
    prediction: Prediction,
    /// The drafter's part of the predicted seconds.
    draft_seconds: f64,
}

/// What was learnt of a drafter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Habits {
    draft: DraftCosts,
    survival: Survival,
    #[serde(default)]
    promise: Promise,
}

/// What control made of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Rounds by the number of nodes scored, root not counted.
    pub choices: Vec<usize>,
    /// T(n) as it was last known: n and seconds.
    pub curve: Vec<(usize, f64)>,
    /// How good the estimates of acceptance were.
    pub calibration: Calibration,
}

impl Control {
    /// A control that knows nothing yet: unless it is given something, its first rounds are plain.
    pub fn new() -> Control {
        Control { speed: 1.0, patience: PATIENCE, ..Control::default() }
    }

    /// Begin with a curve measured earlier.
    pub fn with_curve(mut self, curve: &CostCurve) -> Control {
        self.curve = curve.as_a_beginning();
        self
    }

    /// Begin with what was learnt of the drafter earlier.
    pub fn with_habits(mut self, habits: Habits) -> Control {
        (self.draft, self.survival) = (habits.draft, habits.survival.as_a_beginning());
        self.promise = habits.promise;
        self
    }

    /// What was learned of the drafter, to be stored.
    pub fn habits(&self) -> Habits {
        Habits { draft: self.draft.clone(), survival: self.survival.clone(), promise: self.promise.clone() }
    }

    /// Texts come from dice, not from the target.
    #[cfg(feature = "llama")] // the benchmark is part of the program
    pub(crate) fn set_synthetic(&mut self, is_synthetic: bool) {
        self.is_synthetic = is_synthetic;
    }

    /// Choose the number of threads too.
    pub fn with_threads(mut self, threads: Threads) -> Control {
        self.threads = Some(threads);
        self
    }

    /// Whether no pass was ever measured.
    pub fn knows_nothing(&self) -> bool {
        self.curve.is_empty()
    }

    /// Passes over so many nodes, root included, were measured after `context` tokens: a few are enough to begin with.
    ///
    /// No pass over more nodes is cheaper than a plain step, with which everything is compared: one that took longer was
    /// held up, and is measured again.
    pub fn seed(&mut self, context: usize, points: &[(usize, Duration)]) {
        let times = points.iter().map(|&(_, time)| time.as_secs_f64()).filter(|&time| time > 0.0);
        let least = times.fold(f64::INFINITY, f64::min);
        let is_plausible = |nodes: usize, time: Duration| nodes > 1 || time.as_secs_f64() * CONTRADICTION <= least;
        for &(nodes, time) in points.iter().filter(|&&(nodes, time)| is_plausible(nodes, time)) {
            self.curve.learn(context, nodes, time.as_secs_f64());
        }
    }

    /// What was learned of T(n), to be stored.
    pub fn curve(&self) -> &CostCurve {
        &self.curve
    }

    /// The number of threads in use, if it is chosen here.
    pub fn threads(&self) -> Option<&Threads> {
        self.threads.as_ref()
    }

    /// By which factor plain steps have become slower without a remedy, if that was just noticed.
    pub fn take_slower(&mut self) -> Option<f64> {
        self.threads.as_mut().and_then(Threads::take_slower)
    }

    /// What was decided, and on which grounds.
    pub fn report(&self, context: usize) -> Report {
        Report {
            choices: self.choices.clone(),
            curve: self.curve.points(context),
            calibration: self.survival.calibration(),
        }
    }

    /// Another text begins.
    pub fn start(&mut self) {
        self.survival.start();
        self.promise.start();
        self.account.start();
        self.paper.start();
        if let Some(threads) = &mut self.threads {
            threads.start();
        }
        (self.missed, self.is_unread, self.unverified) = (0, false, 0);
        self.patience = PATIENCE;
        self.calls.start();
        self.speed = 1.0 + (self.speed - 1.0) / 2.0;
        self.round = None;
    }

    /// Whether draft models should read the prompt of `context` tokens now, of which they do not know the last `unread`,
    /// for an answer of `expected` tokens. It is asked before every text; the answer is kept to.
    ///
    /// No round pays for this reading, so it is weighed here: yes where it takes next to nothing, or less than half of
    /// what the model should win on such a text by what is known of it.
    pub fn reads_prompt(&mut self, context: usize, unread: usize, expected: usize) -> bool {
        let Some(plain) = self.curve.seconds(context, 1).map(|t| t.seconds) else { return true };
        let cost = self.draft.at(context).reading_seconds(unread, plain) / plain;
        let gain = expected as f64 * (1.0 - 1.0 / self.speed_to_expect(context, plain));
        let reads = cost <= READ_ANYWAY || cost * MARGIN <= gain;
        (self.missed, self.is_unread) = if reads { (0, false) } else { (unread, true) };
        reads
    }

    /// Reading the last `tokens` of a prompt of `context` tokens took the drafter so long.
    pub fn learn_reading(&mut self, context: usize, tokens: usize, took: Duration) {
        self.draft.at_mut(context).learn_reading(tokens, took.as_secs_f64());
    }

    /// The speed that chains of a draft model should reach here, plain decoding being 1: the best of all lengths.
    fn speed_to_expect(&self, context: usize, plain: f64) -> f64 {
        let (mut tokens, mut survival, mut best) = (1.0, 1.0, 1.0_f64);
        let cost = self.draft.at(context);
        for k in 1..=LONGEST_CHAIN {
            survival *= self.survival.typical(k);
            tokens += survival;
            let draft = match cost.has_passes() {
                true => cost.seconds(k, 0),
                false => k as f64 * PRIOR_PASS * plain,
            };
            let Some(pass) = self.curve.seconds(context, k + 1) else { break };
            best = best.max(tokens * plain / (draft + pass.seconds));
        }
        best
    }

    /// Decide about a round after `context` tokens, within `shape`.
    pub fn plan(&mut self, context: usize, shape: Shape) -> Plan {
        let (schedule, is_probe) = match self.schedule(context, shape) {
            Some((schedule, is_probe)) => (Some(Arc::new(schedule)), is_probe),
            None => (None, false),
        };
        let plain = self.curve.seconds(context, 1).map_or(0.0, |t| t.seconds);
        let prediction = Prediction { tokens: 1.0, seconds: plain };
        let plan = match &schedule {
            Some(schedule) => Plan::Draft(schedule.clone()),
            None => Plan::Plain,
        };
        if self.round.is_some() {
            // That round failed: nobody knows how the text went on.
            self.paper.withdraw();
        }
        self.round = Some(Planned {
            context,
            schedule,
            is_probe,
            was_free: false,
            whole: None,
            on_paper: None,
            prediction,
            draft_seconds: 0.0,
        });
        plan
    }

    /// Cut the drafted tree to the nodes that are worth scoring. What was drawn stays.
    pub fn trim(&mut self, tree: TokenTree) -> TokenTree {
        let Some(round) = &mut self.round else { return tree };
        let Some(schedule) = &round.schedule else { return tree };
        let order = Order::of(&tree);
        let draft = schedule.drafted(&tree);
        self.promise.learn(&tree);
        let mut n = schedule.best(&order, draft).nodes;
        let expected = |n: usize| Prediction { tokens: 1.0 + order.sum(n), seconds: draft + schedule.seconds(n) };
        if n == 0 && round.is_probe && !order.nodes.is_empty() && schedule.affords(draft, 1) {
            let may_pay = order.survivals[0] * HOPEFUL >= (schedule.seconds(1) - schedule.plain) / schedule.plain;
            match may_pay || self.is_synthetic || self.curve.measured(round.context, 2) < SURE {
                true => n = 1,
                false => round.on_paper = Some((expected(1), order.nodes[0])),
            }
        }
        if n < order.nodes.len() && !tree.has_draws() && !self.is_synthetic {
            round.whole = Some(tree.snapshot());
        }
        let was_free = tree.passes() == 0 && tree.evaluations().is_empty() && !tree.has_draws() && !self.is_synthetic;
        round.was_free = was_free;
        if was_free && self.paper.is_settled() {
            let best = schedule.best_on_paper(&order).nodes;
            if best > 0 {
                let cost = (draft + schedule.seconds(best)) / schedule.plain;
                self.paper.bet(tree.snapshot().pruned(&order.nodes[best..]), cost);
            }
        }
        round.draft_seconds = draft;
        round.prediction = expected(n);
        tree.pruned(&order.nodes[n..])
    }

    /// What the present round is expected to bring; asked before its nodes are scored. `None` while nothing is known.
    pub fn prediction(&self) -> Option<Prediction> {
        let expected = self.round.as_ref().map(|round| round.prediction).filter(|p| p.seconds > 0.0)?;
        Some(Prediction { seconds: self.delay.of(expected.seconds), ..expected })
    }

    /// The round went like this.
    pub fn learn(&mut self, tree: &TokenTree, accepted: &[NodeId], round: &Round) {
        let Some(planned) = self.round.take() else { return };
        let (draft, total) = ((round.draft + round.cache).as_secs_f64(), round.total.as_secs_f64());
        let nodes = tree.len();
        let called = planned.schedule.is_some();
        self.delay.learn(planned.prediction.seconds, total);
        if !self.try_threads(planned.context, nodes, total - draft) {
            if let Some(expected) = self.curve.seconds(planned.context, nodes) {
                self.plain_rounds.learn(nodes, (total - draft) / expected.seconds);
            }
            self.curve.learn(planned.context, nodes, total - draft);
            self.watch_threads(planned.context);
        }
        let evaluations = tree.evaluations().iter().map(|evaluation| evaluation.took.as_secs_f64());
        let cost = self.draft.at_mut(planned.context);
        evaluations.clone().for_each(|seconds| cost.learn_evaluation(seconds));
        match called {
            true => cost.learn(tree.passes(), self.missed, draft - evaluations.sum::<f64>()),
            false => cost.learn_idle(draft),
        }
        self.draws_without |= tree.has_draws() && tree.passes() == 0;
        self.guesses_without |= called && !tree.is_empty() && (tree.passes() == 0 || !tree.evaluations().is_empty());
        self.missed = if tree.passes() > 0 { 0 } else { self.missed + round.tokens.len() };
        self.is_unread &= tree.passes() == 0;
        count(&mut self.choices, nodes - 1);

        let followed = planned.whole.as_ref().map(|whole| followed(whole, &round.tokens));
        let (seen, right) = match (&planned.whole, &followed) {
            (Some(whole), Some(followed)) => (whole, &followed[..]),
            _ => (tree, accepted),
        };
        match seen.is_empty() {
            true => self.survival.pass(),
            false => self.survival.learn(seen, right, round.tokens.len(), tree),
        }
        self.be_patient(seen, right, &planned);
        let Some(plain) = self.curve.seconds(planned.context, 1).map(|t| t.seconds) else { return };
        // By the curve's times, not the clock's: an outage is nobody's loss. A single measurement may have been one.
        let scoring = self.curve.seconds(planned.context, nodes).map_or(plain, |t| t.seconds);
        let expected = planned.prediction.seconds - planned.draft_seconds;
        let scoring = if expected > 0.0 { scoring.min(expected * DOUBTFUL) } else { scoring };
        let cost = (scoring + planned.draft_seconds) / plain;
        self.account.book(round.tokens.len() as f64, cost);
        self.paper.follow(&round.tokens);
        // What was not bet on there is lost there all the same: it was lent for any of it.
        if !planned.was_free {
            self.paper.book((round.tokens.len() as f64 - cost).min(0.0));
        }
        self.speed = (self.speed * SPEED_STEPS + round.tokens.len() as f64) / (SPEED_STEPS + cost);
        if planned.schedule.is_some_and(|schedule| !schedule.is_off) {
            let (expected, tokens, cost) = match planned.on_paper {
                Some((paper, node)) => {
                    (paper.tokens, 1 + usize::from(right.first() == Some(&node)), paper.seconds / plain)
                }
                None => (planned.prediction.tokens, round.tokens.len(), cost),
            };
            self.calls.judge((expected + tokens as f64) / 2.0 - cost);
            self.calls.note_waste(tree.is_empty() && tree.passes() > 0);
        }
    }

    /// Whether the round belonged to a trial of other numbers of threads, which it then was counted for.
    fn try_threads(&mut self, context: usize, nodes: usize, seconds: f64) -> bool {
        let Some(threads) = self.threads.as_mut().filter(|threads| threads.is_trying()) else { return false };
        let Some(expected) = self.curve.seconds(context, nodes) else { return false };
        if let Some(plain) = self.curve.seconds(context, 1) {
            self.account.book(0.0, (seconds - expected.seconds) / plain.seconds);
        }
        if let Some(factor) = threads.tried(seconds / expected.seconds) {
            self.curve.scale(factor);
        }
        true
    }

    fn watch_threads(&mut self, context: usize) {
        let (Some(threads), Some(plain)) = (&mut self.threads, self.curve.seconds(context, 1)) else { return };
        // A longer context makes every step slower, whatever the number of threads.
        let first = *self.watched_from.get_or_insert(context);
        let longest = first + (first / 4).max(A_LITTLE_LONGER);
        let since = match (first..=longest).contains(&context) {
            true => Since::Alike,
            false if context > longest && CostCurve::is_alike(context, first) => Since::Longer,
            false => Since::Other,
        };
        threads.watch(plain.seconds, context, since, self.account.balance());
        if since != Since::Alike {
            self.watched_from = Some(context);
        }
    }

    /// Whether to draft, how far, and whether to ask for a guess even if none seems to pay.
    fn schedule(&mut self, context: usize, shape: Shape) -> Option<(Schedule, bool)> {
        if shape.max_nodes == 0 || shape.depth == 0 {
            return None;
        }
        if self.curve.measured(context, 1) < 2 && self.curve.seconds(context, 1).is_none_or(|t| t.error > UNSURE) {
            return None;
        }
        let is_probe = self.unverified >= self.patience;
        let schedule = self.schedule_within(context, shape, is_probe)?;
        let passes = usize::from(schedule.draft.has_passes());
        let draft = schedule.draft_seconds(passes);
        let is_cheap = draft <= CHEAP * schedule.plain && schedule.draft.measured() > 0;
        // Its model may have been idle for too long to be asked; then its other parts still are.
        let least = if self.guesses_without || self.is_unread { schedule.draft_seconds(0) } else { draft };
        if self.plain_rounds.is_due() {
            return None;
        }
        if !schedule.affords(least, 1) {
            let guesses = self.guesses_without || !schedule.draft.has_passes();
            let look_ups_are_cheap =
                schedule.draft_seconds(0) <= CHEAP * schedule.plain && schedule.draft.measured() > 0;
            let is_seen = guesses && look_ups_are_cheap && !self.draws_without && !self.is_synthetic;
            return is_seen.then_some((Schedule { is_off: true, least: 0.0, ..schedule }, is_probe));
        }
        let call = if is_cheap { Call::On } else { self.calls.next() };
        if call == Call::Off {
            return self.guesses_without.then_some((Schedule { is_off: true, ..schedule }, is_probe));
        }
        let is_trial = call == Call::Trial;
        Some((Schedule { is_trial, ..schedule }, is_probe || is_trial))
    }

    fn schedule_within(&self, context: usize, shape: Shape, is_probe: bool) -> Option<Schedule> {
        let times = (1..=shape.max_nodes + 1).map(|n| self.curve.seconds(context, n));
        let times: Vec<_> = times.collect::<Option<_>>()?;
        let is_winning = self.account.has_won() || self.paper.has_won();
        let is_untried = |n: usize| is_winning && n.is_multiple_of(TILE) && self.curve.measured(context, n) == 0;
        let hope = |n: usize| if is_untried(n) { 1.0 } else { HOPE };
        let plain = times[0].seconds;
        let draft = self.draft.at(context);
        let slope = |(i, t): (usize, &crate::cost::Estimate)| (t.seconds - plain) / (plain * i as f64);
        let least = times.iter().enumerate().skip(1).map(slope).fold(1.0, f64::min);
        Some(Schedule {
            plain,
            rate: self.speed.max(1.0) / plain,
            least: if is_probe || draft.measured() > 0 && self.is_free(&draft) {
                0.0
            } else {
                (least * LEAST).max(0.002) as f32
            },
            stake: self.paper.raise(self.account.balance() + self.calls.overdraft() - self.reserve(&draft)) * plain,
            hopeful: (1..).zip(&times).map(|(n, t)| t.seconds * (1.0 - t.error.min(hope(n)))).collect(),
            times: times.iter().map(|t| t.seconds).collect(),
            cautious: times.iter().map(|t| t.seconds * (1.0 + t.error)).collect(),
            untried: (0..times.len()).filter(|nodes| is_untried(nodes + 1)).collect(),
            missed: self.missed,
            unread: if self.is_unread { draft.unmeasured_reading(self.missed, plain) } else { 0.0 },
            draft,
            survival: self.survival.clone(),
            promise: self.promise.clone(),
            is_trial: false,
            is_off: false,
        })
    }

    /// Guesses that cost nothing to make are judged by the text, without being scored: they need no credit to prove
    /// themselves before they have won something. Draft models do, whose every guess costs a pass.
    fn reserve(&self, draft: &DraftCost) -> f64 {
        match self.is_free(draft) && !self.account.has_won() {
            true => RESERVE,
            false => 0.0,
        }
    }

    /// Whether all guesses cost nothing to make and the text judges them.
    fn is_free(&self, draft: &DraftCost) -> bool {
        !draft.has_passes() && draft.evaluation() == 0.0 && !self.draws_without && !self.is_synthetic
    }

    /// When to ask for the next guess for its own sake.
    fn be_patient(&mut self, seen: &TokenTree, right: &[NodeId], planned: &Planned) {
        if seen.is_empty() {
            self.unverified = self.unverified.saturating_add(1);
            return;
        }
        self.unverified = 0;
        let paid = planned.prediction.tokens > 1.0 && !planned.is_probe;
        self.patience = match (paid, right.is_empty()) {
            (true, _) => PATIENCE,
            // If it pays now, the next round knows.
            (false, false) => self.patience,
            (false, true) => (self.patience * 2).clamp(PATIENCE, PATIENCE_AT_MOST),
        };
    }
}

/// The nodes of `tree` that a text follows.
fn followed(tree: &TokenTree, text: &[Token]) -> Vec<NodeId> {
    let mut at = NodeId::ROOT;
    let child = |&token: &Token| {
        at = tree.child(at, token)?;
        Some(at)
    };
    text.iter().map_while(child).collect()
}

fn count(counts: &mut Vec<usize>, at: usize) {
    counts.resize(counts.len().max(at + 1), 0);
    counts[at] += 1;
}

/// What is kept back from guesses that have yet to win, in plain steps.
const RESERVE: f64 = 1.0;

/// Rounds without a guess before even the weakest is welcome, at first and at most, and measurements of T(2) from which
/// on none is scored for its own sake.
const PATIENCE: u32 = 8;
const PATIENCE_AT_MOST: u32 = 64;
const SURE: usize = 2;

/// Such a guess is scored all the same if it would pay were it so many times as likely.
const HOPEFUL: f64 = 2.0;

/// Plain steps that reading a prompt with a draft model may take in any case, and how many times it must pay otherwise.
const READ_ANYWAY: f64 = 1.5;
const MARGIN: f64 = 2.0;

/// The longest chain that is thought of before a text, and, before it was measured, what a pass of a draft model takes, in
/// plain steps.
const LONGEST_CHAIN: usize = 8;
const PRIOR_PASS: f64 = 0.1;

/// Tokens by which a context may grow, or by a quarter, before the times of its plain steps are no longer compared.
const A_LITTLE_LONGER: usize = 128;

/// A pass that seems to have cost more than this many times what was expected is booked as having cost that.
const DOUBTFUL: f64 = 1.5;

/// A drafter whose call costs no more than this share of a plain step is always asked: it is its guesses that are
/// weighed.
const CHEAP: f64 = 0.004;

/// Plain steps' time over which the speed is averaged.
const SPEED_STEPS: f64 = 48.0;

/// A node is refused outright if it is reached with less than this share of what a node costs on average where that is
/// least: it could only pay on a step of the staircase that is as good as flat.
const LEAST: f64 = 0.5;

/// How far an unmeasured time is hoped to be better than estimated, at most.
const HOPE: f64 = 0.15;

/// Kernels work on tiles of so many tokens, or twice as many: a full one may cost less than a part of it (eight tokens 2.9
/// times T(1) where five cost 3.5). Once, the best is hoped of it.
const TILE: usize = 4;

/// With a larger error than this, T(1) is measured before anything is decided.
const UNSURE: f64 = 0.2;
