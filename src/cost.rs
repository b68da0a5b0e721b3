//! What does a pass cost? The cost curve T(n) of the target by number of nodes and by context, and the cost of drafting.
//!
//! Both are learned from the rounds of a run, on a machine that others use too. So times are never averaged. A curve is
//! a *shape*, one ratio per n, times a *level* in seconds, which all n share. The level follows the last few rounds by
//! their median: when another program starts, every n becomes slower at once, those that were not measured since too,
//! and no choice between them is made by which of them was measured on a bad day. The shape follows slowly, as the mean
//! of the middle half of the last ratios at each n, unless they stay off for longer than the level takes to follow. A
//! staircase is kept as measured; between and beyond what was measured, the curve is taken to be straight, less steep once
//! where only the second node was measured, and says how little it is to be trusted there.
//!
//! Nothing here looks at a clock: seconds are given.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// T(n), by context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CostCurve {
    /// By the power of two below the context's length, from [`SHORTEST`] on.
    ranges: BTreeMap<u32, Range>,
}

/// A time and how far to trust it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// By which share of it it may well be wrong: 0 would be certain.
    pub error: f64,
}

/// The curve at contexts of similar length.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Range {
    /// T(n) in units of the level.
    points: BTreeMap<usize, Point>,
    /// The last seconds / shape.
    levels: VecDeque<f64>,
    #[serde(skip)]
    passes: u64,
    #[serde(skip)]
    astray: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Point {
    recent: VecDeque<f64>,
    middle: f64,
    /// Since which pass all measurements here are off, and how many.
    #[serde(skip)]
    off: Option<(u64, usize)>,
}

impl CostCurve {
    /// A pass over `nodes` nodes, root included, took `seconds` after `context` tokens.
    pub fn learn(&mut self, context: usize, nodes: usize, seconds: f64) {
        if nodes == 0 || !(seconds > 0.0 && seconds.is_finite()) {
            return;
        }
        let key = range_of(context);
        if !self.ranges.contains_key(&key) {
            let like = self.nearest(key).map(Range::as_a_beginning).unwrap_or_default();
            self.ranges.insert(key, like);
        }
        if let Some(range) = self.ranges.get_mut(&key) {
            range.learn(nodes, seconds);
        }
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// T(`nodes`) after `context` tokens; `None` before anything was measured.
    pub fn seconds(&self, context: usize, nodes: usize) -> Option<Estimate> {
        let key = range_of(context);
        let range = self.nearest(key)?;
        let level = range.level()?;
        let (shape, error) = range.shape(nodes)?;
        let foreign = if self.ranges.contains_key(&key) { 0.0 } else { OTHER_CONTEXT };
        Some(Estimate { seconds: shape * level, error: error + foreign })
    }

    /// From now on every pass takes `factor` times as long: the number of threads was changed.
    pub fn scale(&mut self, factor: f64) {
        let levels = self.ranges.values_mut().flat_map(|range| range.levels.iter_mut());
        levels.for_each(|level| *level *= factor);
    }

    /// Whether both contexts share their measurements.
    pub fn is_alike(a: usize, b: usize) -> bool {
        range_of(a) == range_of(b)
    }

    /// How often `nodes` was measured lately at about this context.
    pub fn measured(&self, context: usize, nodes: usize) -> usize {
        let range = self.ranges.get(&range_of(context));
        range.and_then(|range| range.points.get(&nodes)).map_or(0, |point| point.recent.len())
    }

    /// What was measured at about this context: n and seconds.
    pub fn points(&self, context: usize) -> Vec<(usize, f64)> {
        let Some(range) = self.nearest(range_of(context)) else { return Vec::new() };
        let level = range.level().unwrap_or_default();
        range.points.iter().map(|(&n, point)| (n, point.middle * level)).collect()
    }

    /// The same curve, to be trusted only until it is measured anew: for one that was stored. Another program may have
    /// been running then, so its level is one measurement's worth.
    pub fn as_a_beginning(&self) -> CostCurve {
        let ranges = self.ranges.iter().map(|(&key, range)| (key, range.as_a_beginning())).collect();
        CostCurve { ranges }
    }

    fn nearest(&self, key: u32) -> Option<&Range> {
        self.ranges.iter().filter(|(_, r)| r.level().is_some()).min_by_key(|(k, _)| k.abs_diff(key)).map(|(_, r)| r)
    }
}

impl Range {
    fn learn(&mut self, nodes: usize, seconds: f64) {
        let known = self.points.get(&nodes).filter(|point| point.recent.len() >= FEW).map(|point| point.middle);
        let expected = known.or_else(|| self.shape(nodes).filter(|s| s.1 < LARGEST_ERROR).map(|(shape, _)| shape));
        self.count_astray(seconds, expected);
        if self.is_impossible(nodes, seconds) {
            if self.points.len() > 1 {
                let shape = self.shape(nodes).map_or(1.0, |(shape, _)| shape.max(1.0));
                return push(&mut self.levels, seconds / shape, LEVELS);
            }
            self.points.clear();
            self.levels.clear();
        }
        let is_doubtful = (SEVERAL..=LEVELS).contains(&self.astray);
        if let Some(shape) = if is_doubtful { expected } else { known } {
            push(&mut self.levels, seconds / shape, LEVELS);
        } else if self.levels.is_empty() {
            let shape = self.shape(nodes).map_or(1.0, |(shape, _)| shape);
            self.levels.push_back(seconds / shape);
        }
        let Some(level) = self.level().filter(|_| !is_doubtful) else { return };
        // A first measurement far beyond what its neighbours let expect is more likely an outage than a step.
        let most = expected.map_or(f64::INFINITY, |shape| shape * STEEPEST);
        self.passes += 1;
        self.points.entry(nodes).or_default().learn((seconds / level).min(most), self.passes);
    }

    /// No pass over more nodes is cheaper than a plain step: if it was, everything became faster meanwhile, or the plain
    /// steps were held up. That tells of the level, by what this pass should cost, and nothing of the shape. Where nothing
    /// tells what it should cost, plain steps are to be measured again.
    fn is_impossible(&self, nodes: usize, seconds: f64) -> bool {
        let plain = self.points.get(&1).filter(|_| nodes > 1).zip(self.level());
        plain.is_some_and(|(plain, level)| seconds < level * plain.middle * CONTRADICTION)
    }

    /// Passes in a row that took far longer than expected, of whatever size, or far shorter: then it is the level that
    /// changes, and nothing is learned of the shape until the level has followed.
    fn count_astray(&mut self, seconds: f64, expected: Option<f64>) {
        let Some(ratio) = expected.zip(self.level()).map(|(shape, level)| seconds / (shape * level)) else { return };
        self.astray = if (1.0 / ASTRAY..=ASTRAY).contains(&ratio) { 0 } else { self.astray + 1 };
    }

    fn level(&self) -> Option<f64> {
        let mut levels: Vec<f64> = self.levels.iter().copied().filter(|level| *level > 0.0).collect();
        levels.sort_by(f64::total_cmp);
        levels.get(levels.len() / 2).copied()
    }

    /// The ratio at `nodes` and its error. A step may be dearer than the next, but not by much: then it was mismeasured.
    fn shape(&self, nodes: usize) -> Option<(f64, f64)> {
        let (shape, error) = self.as_measured(nodes)?;
        let more = self.points.range(nodes + 1..).filter(|(_, point)| point.recent.len() >= FEW);
        let most = more.map(|(_, point)| point.middle * RISER).fold(f64::INFINITY, f64::min);
        Some((shape.min(most), error))
    }

    fn as_measured(&self, nodes: usize) -> Option<(f64, f64)> {
        let Some(point) = self.points.get(&nodes) else { return self.straight(nodes, 1) };
        let error = NOISE / (point.recent.len() as f64).sqrt();
        // The first measurements may have been outages: not dearer than what is better known lets expect.
        let fewer_known = self.points.range(..nodes).any(|(_, point)| point.recent.len() >= FEW);
        let expected = if point.recent.len() < FEW && fewer_known { self.straight(nodes, FEW) } else { None };
        Some((expected.map_or(point.middle, |(shape, _)| shape.min(point.middle)), error))
    }

    /// The straight line between or beyond the points that were measured `often` enough.
    fn straight(&self, nodes: usize, often: usize) -> Option<(f64, f64)> {
        let known = |(_, point): &(&usize, &Point)| point.recent.len() >= often;
        let below = self.points.range(..nodes).rev().find(known);
        let above = self.points.range(nodes + 1..).find(known);
        let steps = |a: usize, b: usize| a.abs_diff(b) as f64;
        match (below, above) {
            (Some((&a, left)), Some((&b, right))) => {
                let share = steps(nodes, a) / steps(b, a);
                let gap = steps(nodes, a).min(steps(nodes, b));
                Some((left.middle + share * (right.middle - left.middle), (BETWEEN * gap).min(LARGEST_ERROR)))
            }
            (Some((&a, last)), None) => {
                let first = self.points.iter().find(known).filter(|(&n, _)| n < a);
                let slope = match first {
                    // From one token to two another kernel may take over: the steps after that one are smaller.
                    Some((&1, first)) if a == 2 => (last.middle - first.middle).max(0.0) * AFTER_THE_FIRST,
                    Some((&n, first)) => ((last.middle - first.middle) / steps(a, n)).max(0.0),
                    None => last.middle * PRIOR_SLOPE / (1.0 + PRIOR_SLOPE * steps(a, 1)),
                };
                let trust = if first.is_some() { BEYOND } else { BEYOND_ONE };
                Some((last.middle + slope * steps(nodes, a), (trust * steps(nodes, a)).min(LARGEST_ERROR)))
            }
            // Fewer nodes than ever measured: not dearer than the fewest.
            (None, Some((&b, first))) => {
                let less = (1.0 + PRIOR_SLOPE * steps(nodes, 1)) / (1.0 + PRIOR_SLOPE * steps(b, 1));
                Some((first.middle * less, LARGEST_ERROR))
            }
            (None, None) => None,
        }
    }

    fn as_a_beginning(&self) -> Range {
        let point = |point: &Point| Point { recent: [point.middle; FEW].into(), middle: point.middle, off: None };
        Range {
            points: self.points.iter().map(|(&n, p)| (n, point(p))).collect(),
            levels: self.level().into_iter().collect(),
            passes: 0,
            astray: 0,
        }
    }
}

impl Point {
    fn learn(&mut self, ratio: f64, pass: u64) {
        let is_off = self.recent.len() >= FEW && !(1.0 - STEP..=1.0 + STEP).contains(&(ratio / self.middle));
        self.off = is_off.then(|| self.off.map_or((pass, 1), |(since, n)| (since, n + 1)));
        push(&mut self.recent, ratio, RATIOS);
        // Off for longer than the level takes to follow: the staircase itself has changed.
        if self.off.is_some_and(|(since, n)| n >= FEW && pass - since >= LEVELS as u64) {
            self.recent.drain(..self.recent.len() - FEW);
            self.off = None;
        }
        self.middle = middle(self.recent.iter().copied());
    }
}

/// What drafting costs, by context: a draft model's passes too take longer after a longer text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DraftCosts {
    /// By the power of two below the context's length, as for [`CostCurve`].
    #[serde(default)]
    ranges: BTreeMap<u32, DraftCost>,
}

impl DraftCosts {
    /// What it costs after `context` tokens: as measured there, else at the nearest length at which it was.
    pub fn at(&self, context: usize) -> DraftCost {
        let key = range_of(context);
        let own = self.ranges.get(&key);
        let called = self.ranges.iter().filter(|(_, cost)| cost.measured() > 0);
        let nearest = called.min_by_key(|(other, _)| other.abs_diff(key));
        let Some((_, cost)) = nearest else { return own.cloned().unwrap_or_default() };
        let mut cost = cost.clone();
        // There may have been no call here yet, but readings and plain rounds.
        if let Some(own) = own.filter(|own| own.measured() == 0) {
            let known = |own: &VecDeque<f64>, other| if own.is_empty() { other } else { own.clone() };
            (cost.reading, cost.idle) = (known(&own.reading, cost.reading), known(&own.idle, cost.idle));
        }
        cost
    }

    /// The same to be learned from; another length begins with what the nearest knows.
    pub fn at_mut(&mut self, context: usize) -> &mut DraftCost {
        let key = range_of(context);
        if self.ranges.get(&key).is_none_or(|cost| cost.measured() == 0) {
            self.ranges.insert(key, self.at(context));
        }
        self.ranges.entry(key).or_default()
    }
}

/// What drafting costs at contexts of similar length: seconds for a call, for each pass of a draft model, for each token
/// that the draft model missed while nothing was drafted, and for listening to what became final in plain rounds. All of it
/// by the last calls alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DraftCost {
    /// Passes and seconds of the last calls.
    calls: VecDeque<(usize, f64)>,
    call: f64,
    pass: f64,
    missed: VecDeque<f64>,
    /// The same where it read many at once.
    #[serde(default)]
    reading: VecDeque<f64>,
    idle: VecDeque<f64>,
    /// Seconds of the last evaluations of heads, which no call counts.
    #[serde(default)]
    evaluations: VecDeque<f64>,
}

impl DraftCost {
    /// A drafter was called, took so many passes and so much time, after missing so many tokens.
    pub fn learn(&mut self, passes: usize, missed: usize, seconds: f64) {
        let seconds = seconds - self.idle_seconds();
        if !seconds.is_finite() {
            return;
        }
        let seconds = seconds.max(0.0);
        if missed >= LONG_AGO && passes > 0 {
            // Before any other call there is nothing to tell the two apart by.
            if self.calls.is_empty() {
                self.learn_reading(missed, seconds);
            } else {
                let rest = (seconds - self.call - self.pass * passes as f64).max(0.0);
                push(&mut self.missed, rest / missed as f64, CALLS);
            }
            return;
        }
        // Look-ups are many and take no time beside passes: neither kind is forgotten or judged by the other.
        let is_alike = |&(other, _): &(usize, f64)| (other > 0) == (passes > 0);
        if self.calls.iter().filter(|call| is_alike(call)).count() >= CALLS {
            self.calls.iter().position(is_alike).map(|oldest| self.calls.remove(oldest));
        }
        self.calls.push_back((passes, seconds));
        self.fit();
    }

    /// So many tokens took the drafter so long to read at once.
    pub fn learn_reading(&mut self, tokens: usize, seconds: f64) {
        if tokens >= MANY {
            push(&mut self.reading, seconds / tokens as f64, LEVELS);
        }
    }

    /// Seconds to read so many tokens at once, where a plain step of the target takes `plain`.
    pub fn reading_seconds(&self, tokens: usize, plain: f64) -> f64 {
        let each = match (self.reading.is_empty(), self.has_passes()) {
            (false, _) => middle(self.reading.iter().copied()),
            (true, true) => (self.pass * PRIOR_MISSED).min(plain * PRIOR_READING),
            (true, false) => plain * PRIOR_READING,
        };
        each * tokens as f64
    }

    /// The same, where [`seconds`](DraftCost::seconds) does not count it because no call was ever measured.
    pub fn unmeasured_reading(&self, tokens: usize, plain: f64) -> f64 {
        match self.reading.is_empty() && !self.has_passes() {
            true => self.reading_seconds(tokens, plain),
            false => 0.0,
        }
    }

    /// A round without a draft spent so much time on the drafter.
    pub fn learn_idle(&mut self, seconds: f64) {
        push(&mut self.idle, seconds, LEVELS);
    }

    /// Seconds of a call with so many passes after missing so many tokens, beyond those of a plain round; 0 before the
    /// first.
    pub fn seconds(&self, passes: usize, missed: usize) -> f64 {
        let missed = if passes > 0 { missed } else { 0 };
        self.call + self.pass * passes as f64 + self.missed_seconds(missed)
    }

    /// Heads were evaluated in so many seconds.
    pub fn learn_evaluation(&mut self, seconds: f64) {
        push(&mut self.evaluations, seconds, LEVELS);
    }

    /// Seconds of one more evaluation of heads; 0 before the first.
    pub fn evaluation(&self) -> f64 {
        middle(self.evaluations.iter().copied())
    }

    /// How often a call was measured lately.
    pub fn measured(&self) -> usize {
        self.calls.len()
    }

    /// Whether the drafter takes passes of a model.
    pub fn has_passes(&self) -> bool {
        self.calls.iter().any(|&(passes, _)| passes > 0)
    }

    fn missed_seconds(&self, missed: usize) -> f64 {
        if missed < LONG_AGO {
            return 0.0;
        }
        if missed >= MANY && !self.reading.is_empty() {
            return self.reading_seconds(missed, 0.0);
        }
        let each = if self.missed.is_empty() { self.pass * PRIOR_MISSED } else { middle(self.missed.iter().copied()) };
        each * missed as f64
    }

    fn idle_seconds(&self) -> f64 {
        middle(self.idle.iter().copied())
    }

    /// The straight line through the calls, those left out that took more than twice what is usual with passes, or
    /// without. A call alone is taken to cost half a pass, as far as the calls do not tell: they may all have had the
    /// same number of passes.
    fn fit(&mut self) {
        let size = |passes: usize| if passes == 0 { 1.0 } else { passes as f64 + CALL_IN_PASSES };
        let usual_of = |with: bool| {
            let alike = self.calls.iter().filter(|call| (call.0 > 0) == with);
            middle(alike.map(|&(passes, seconds)| seconds / size(passes)))
        };
        let (look_up, usual) = (usual_of(false), usual_of(true));
        if !self.has_passes() {
            (self.call, self.pass) = (look_up, 0.0);
            return;
        }
        // Least squares for call and pass with `PRIOR_CALLS` calls' worth of the prior that call = pass / 2.
        let [mut n, mut x, mut y, mut xx, mut xy] = [0.0; 5];
        let most = |passes: usize| 2.0 * size(passes) * if passes > 0 { usual } else { look_up };
        for &(passes, seconds) in self.calls.iter().filter(|&&(p, s)| s <= most(p)) {
            let passes = passes as f64;
            (n, x, y) = (n + 1.0, x + passes, y + seconds);
            (xx, xy) = (xx + passes * passes, xy + passes * seconds);
        }
        if self.calls.iter().all(|&(passes, _)| passes > 0) {
            (n, y) = (n + PRIOR_CALLS, y + PRIOR_CALLS * CALL_IN_PASSES * usual);
        }
        let det = n * xx - x * x;
        if det > 0.0 {
            self.pass = ((n * xy - x * y) / det).max(0.0);
            self.call = ((y - self.pass * x) / n).max(0.0);
        }
    }
}

/// The mean of the middle half: of two the smaller, for what goes wrong makes a round slower, never faster. 0 of none.
fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (cut, n) = (sorted.len().div_ceil(4), sorted.len());
    match n {
        0 => 0.0,
        1 | 2 => sorted[0],
        _ => sorted[cut..n - cut].iter().sum::<f64>() / (n - 2 * cut) as f64,
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T, most: usize) {
    while ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(value);
}

fn range_of(context: usize) -> u32 {
    (context.max(1) / SHORTEST).checked_ilog2().map_or(0, |log| log + 1)
}

/// Contexts shorter than this are not told apart.
const SHORTEST: usize = 1024;

/// Measurements at one n before the level follows them.
const FEW: usize = 3;

/// Rounds whose median is the level: an outage of up to four rounds leaves it where it is, and a lasting change is
/// followed after five.
const LEVELS: usize = 9;

/// By which factor a pass must be off to be astray, and how many in a row are no accident.
const ASTRAY: f64 = 1.6;
const SEVERAL: usize = 2;

/// No single measurement counts for more than this many times what was expected.
const STEEPEST: f64 = 2.0;

/// A measurement is off if it differs by more than this share.
const STEP: f64 = 0.25;

/// How much dearer fewer nodes may be than more. Seen on two cores: 1.1 and, seven tokens beside eight at Q8_0, 1.43.
const RISER: f64 = 1.45;

/// A pass over more nodes that takes less than this share of a plain step contradicts it.
pub const CONTRADICTION: f64 = 0.9;

/// Ratios kept for each n.
const RATIOS: usize = 16;

/// Calls kept.
const CALLS: usize = 32;

/// A draft model that missed fewer tokens than this catches up within its first pass.
const LONG_AGO: usize = 8;

/// Before it was measured: seconds of catching up with a token, in passes. Reading many tokens at once is cheaper than
/// one by one, by how much depends on the machine; 0.3 is what F16 weights give on two cores.
const PRIOR_MISSED: f64 = 0.3;

/// Before anything was measured: seconds to read a token with a draft model, in plain steps of the target. A draft of a
/// fifteenth of the target took about 0.005 on two cores, whether that was F16 or Q4_K_M.
const PRIOR_READING: f64 = 0.01;

/// Tokens that are read as quickly, each, as any number of them.
const MANY: usize = 128;

/// Before anything but T(1) was measured: what each further node adds to a pass, in T(1). About the middle of what
/// two cores give: 0.24 for F16 weights, 0.45 for Q8_0, 0.7 for Q4_K_M; a GPU gives 0.01 to 0.05.
const PRIOR_SLOPE: f64 = 0.4;

/// What each further node adds as a share of what the second did, where no more is known. Seen: 0.37 and 0.39 with F16
/// weights, 0.45 and 0.5 with Q8_0, 0.52 and 0.8 with Q4_K_M.
const AFTER_THE_FIRST: f64 = 0.6;

const CALL_IN_PASSES: f64 = 0.5;
const PRIOR_CALLS: f64 = 2.0;

/// Relative errors: of a single measurement, of an interpolation and an extrapolation per node away from a measured
/// one, of an extrapolation by the prior alone, of another context, and of anything. Choices, not fits.
const NOISE: f64 = 0.12;
const BETWEEN: f64 = 0.07;
const BEYOND: f64 = 0.08;
const BEYOND_ONE: f64 = 0.15;
const OTHER_CONTEXT: f64 = 0.05;
const LARGEST_ERROR: f64 = 0.4;

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(usize, f64)]) -> CostCurve {
        let mut curve = CostCurve::default();
        for &(n, seconds) in points {
            (0..FEW).for_each(|_| curve.learn(100, n, seconds));
        }
        curve
    }

    fn at(curve: &CostCurve, n: usize) -> f64 {
        curve.seconds(100, n).unwrap().seconds
    }

    fn near(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 0.03
    }

    #[test]
    fn a_plain_step_that_was_held_up_does_not_make_passes_cheap() {
        // The first pass after loading took five times as long as the next ones.
        let mut curve = CostCurve::default();
        curve.learn(100, 1, 0.5);
        (0..3).for_each(|_| curve.learn(100, 2, 0.17));
        assert!(at(&curve, 1) < 0.17 && at(&curve, 2) >= at(&curve, 1), "{} {}", at(&curve, 1), at(&curve, 2));
        (0..3).for_each(|_| curve.learn(100, 1, 0.1));
        (0..6).for_each(|_| curve.learn(100, 2, 0.17));
        assert!(near(at(&curve, 1), 0.1) && near(at(&curve, 2), 0.17), "{} {}", at(&curve, 1), at(&curve, 2));
    }

    #[test]
    fn where_passes_cost_the_same_a_slow_plain_step_is_measured_again() {
        let mut curve = CostCurve::default();
        curve.learn(100, 1, 0.13);
        (0..2).for_each(|_| curve.learn(100, 8, 0.1));
        assert_eq!(curve.measured(100, 1), 0);
        assert!(near(at(&curve, 8), 0.1) && curve.seconds(100, 1).unwrap().error > 0.2);
        curve.learn(100, 1, 0.1);
        assert!(near(at(&curve, 1), 0.1) && near(at(&curve, 8), 0.1), "{} {}", at(&curve, 1), at(&curve, 8));
    }

    #[test]
    fn what_the_second_node_adds_is_more_than_what_the_others_do() {
        let curve = curve(&[(1, 0.1), (2, 0.2)]);
        assert!(near(at(&curve, 4), 0.2 + 0.2 * AFTER_THE_FIRST));
    }

    #[test]
    fn a_staircase_stays_one() {
        let stairs = [(1, 0.10), (2, 0.165), (3, 0.25), (4, 0.23), (5, 0.32), (6, 0.31)];
        let curve = curve(&stairs);
        assert!(stairs.iter().all(|&(n, seconds)| near(at(&curve, n), seconds)));
        assert!(at(&curve, 4) < at(&curve, 3), "four may cost less than three");
    }

    #[test]
    fn between_and_beyond_it_is_straight_and_unsure() {
        let curve = curve(&[(1, 0.1), (2, 0.2), (6, 0.4)]);
        assert!(near(at(&curve, 4), 0.3) && near(at(&curve, 11), 0.7));
        let error = |n| curve.seconds(100, n).unwrap().error;
        assert!(error(6) < error(5) && error(5) < error(4) && error(7) < error(12), "further is less sure");
        assert!(CostCurve::default().seconds(100, 1).is_none());
    }

    #[test]
    fn one_measurement_and_a_prior_say_something() {
        let curve = curve(&[(1, 0.1)]);
        assert!(near(at(&curve, 3), 0.1 * (1.0 + 2.0 * PRIOR_SLOPE)) && curve.seconds(100, 3).unwrap().error > 0.2);
    }

    #[test]
    fn a_burst_of_slow_rounds_does_not_poison_it() {
        let mut curve = curve(&[(1, 0.1), (4, 0.2)]);
        (0..12).for_each(|i| curve.learn(100, [1, 4][i % 2], [0.1, 0.2][i % 2]));
        for _ in 0..4 {
            curve.learn(100, 4, 1.7);
        }
        assert!(near(at(&curve, 4), 0.2) && near(at(&curve, 1), 0.1), "{curve:?}");
        // A longer one is followed while it lasts and forgotten afterwards.
        (0..6).for_each(|_| curve.learn(100, 4, 1.7));
        assert!(at(&curve, 4) > 1.0);
        (0..40).for_each(|_| curve.learn(100, 4, 0.2));
        assert!(near(at(&curve, 4), 0.2) && near(at(&curve, 1), 0.1), "{} {}", at(&curve, 4), at(&curve, 1));
    }

    #[test]
    fn when_the_machine_slows_down_every_n_does() {
        let mut curve = curve(&[(1, 0.1), (4, 0.2), (8, 0.3)]);
        (0..12).for_each(|_| curve.learn(100, 4, 0.5));
        assert!(near(at(&curve, 1), 0.25) && near(at(&curve, 8), 0.75), "nothing was measured there since");
    }

    #[test]
    fn when_the_staircase_changes_it_is_followed() {
        let mut curve = curve(&[(1, 0.1), (4, 0.2)]);
        (0..60).for_each(|i| curve.learn(100, [1, 4][i % 2], [0.1, 0.38][i % 2]));
        assert!((at(&curve, 4) / at(&curve, 1) / 3.8 - 1.0).abs() < 0.12, "{}", at(&curve, 4) / at(&curve, 1));
    }

    #[test]
    fn a_longer_context_starts_from_a_shorter_one() {
        let mut curve = curve(&[(1, 0.1), (4, 0.2)]);
        assert!(near(curve.seconds(5000, 4).unwrap().seconds, 0.2));
        (0..6).for_each(|_| curve.learn(5000, 1, 0.15));
        assert!(near(curve.seconds(5000, 4).unwrap().seconds, 0.3), "its shape is taken over");
        assert!(near(at(&curve, 1), 0.1), "the shorter one is left alone");
    }

    #[test]
    fn a_stored_curve_is_believed_until_measured() {
        let before = curve(&[(1, 0.1), (4, 0.2), (8, 0.5)]);
        let stored: CostCurve = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        let mut now = stored.as_a_beginning();
        assert!(near(at(&now, 8), 0.5));
        (0..9).for_each(|_| now.learn(100, 1, 0.3));
        assert!(near(at(&now, 8), 1.5));
    }

    #[test]
    fn calls_passes_and_catching_up_are_told_apart() {
        let mut cost = DraftCost::default();
        (0..9).for_each(|_| cost.learn_idle(0.001));
        for i in 0..40 {
            let passes = 1 + i % 5;
            let outage = if i % 11 == 3 { 9.0 } else { 1.0 };
            cost.learn(passes, 2, 0.001 + outage * (0.004 + 0.01 * passes as f64));
        }
        assert!((cost.seconds(0, 0) - 0.004).abs() < 0.001 && near(cost.pass, 0.01), "{cost:?}");
        cost.learn(1, 500, 0.001 + 0.014 + 500.0 * 0.002);
        assert!((cost.seconds(2, 100) - 0.224).abs() < 0.005, "{}", cost.seconds(2, 100));
        assert!(near(cost.seconds(2, 3), 0.024), "a few tokens cost nothing more");
    }

    #[test]
    fn a_draft_model_is_slower_after_a_longer_text_and_quicker_again_in_the_next() {
        let mut costs = DraftCosts::default();
        assert_eq!(costs.at(100).measured(), 0);
        (0..40).for_each(|_| costs.at_mut(100).learn(2, 0, 0.02));
        assert_eq!(costs.at(5000).seconds(2, 0), costs.at(100).seconds(2, 0), "until it is known better");
        (0..40).for_each(|_| costs.at_mut(5000).learn(2, 0, 0.06));
        assert!(near(costs.at(4500).seconds(2, 0), 0.06) && near(costs.at(300).seconds(2, 0), 0.02), "{costs:?}");
        assert!(near(costs.at(50_000).seconds(2, 0), 0.06), "the nearest length");
        costs.at_mut(50_000).learn_idle(0.001);
        let known = costs.at(50_000);
        assert!(known.has_passes() && near(known.pass, costs.at(5000).pass), "a plain round tells nothing of passes");
        assert_eq!(known.idle_seconds(), 0.001);
    }

    #[test]
    fn many_look_ups_do_not_hide_what_a_pass_costs() {
        let mut cost = DraftCost::default();
        // The first pass reads the draft model from disk.
        cost.learn(3, 0, 3.0);
        for i in 0..60 {
            let passes = if i % 4 == 0 { 2 } else { 0 };
            cost.learn(passes, 0, 0.0001 + 0.01 * passes as f64);
        }
        assert!(near(cost.seconds(2, 0), 0.02) && cost.seconds(0, 0) < 0.001, "{cost:?}");
        (0..100).for_each(|_| cost.learn(0, 0, 0.0001));
        assert!(cost.has_passes() && near(cost.pass, 0.01), "and it is not forgotten meanwhile: {cost:?}");
    }

    #[test]
    fn a_look_up_has_a_price_too() {
        let mut cost = DraftCost::default();
        (0..20).for_each(|i| cost.learn(0, 1, if i % 7 == 0 { 0.1 } else { 0.0002 }));
        assert!(near(cost.seconds(0, 900), 0.0002) && cost.pass == 0.0 && !cost.has_passes());
    }
}
