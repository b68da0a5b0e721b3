//! How many threads to compute with, on a machine that others use too.
//!
//! Every thread of a pass waits for the slowest, many times in each layer. So when another program takes a core, one
//! thread too many can cost more than it brings, and what was the best number at the start no longer is. [`Threads`]
//! is told the time of a plain step after every round. When that has risen for good, fewer threads are tried, for a few
//! rounds each; while fewer are used than were asked for, more are tried now and then, and at once when steps become
//! faster. What was fastest stays. On a machine about which nothing is known, half of the threads are tried once: cores
//! that share their memory's bandwidth, or are slower than the others, may be no help.
//!
//! Rounds of a trial do what they would have done anyway, and are compared with what passes of their size took before:
//! so the best number is the one for the passes in use. Before another number is kept, a few rounds go with the old one
//! again: where the machine's load comes and goes, it may be faster by now too. Nothing here looks at a clock or starts a
//! thread.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

/// Whoever computes: changes its number of threads from the next pass on.
pub trait Workers: Debug + Send + Sync {
    /// Compute with `threads` from now on.
    fn set(&self, threads: usize);
}

/// What the context of a plain step has to do with those of the steps before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Its length is about theirs.
    Alike,
    /// It has grown beyond that: what it costs may slowly become more.
    Longer,
    /// It is another.
    Other,
}

/// Decides how many threads to use.
#[derive(Debug)]
pub struct Threads {
    workers: Arc<dyn Workers>,
    most: usize,
    now: usize,
    /// Whether half of the threads are still to be tried.
    unexplored: bool,
    /// The best number that a trial found.
    found: Option<usize>,
    /// The least seconds of a plain step after few tokens that were ever seen, with whatever number of threads.
    record: f64,
    /// Seconds of a plain step after the last rounds, none of another number of threads or range of contexts.
    steps: VecDeque<f64>,
    /// The least of them for as long as nothing changed, and the first.
    least: f64,
    first: f64,
    rounds: u32,
    patience: u32,
    /// Rounds to wait before fewer are tried again, since that was in vain.
    caution: u32,
    trial: Option<Trial>,
    /// How many times as long a plain step takes as before, when no other number was found to be a remedy.
    slower: Option<f64>,
}

/// Other numbers of threads, being tried.
#[derive(Debug)]
struct Trial {
    why: Why,
    /// How many times as long a plain step takes as before.
    drift: f64,
    /// The one in use, and those to come.
    on: usize,
    next: Vec<usize>,
    /// Time of a pass over that with the settled number, in the trial's rounds so far.
    ratios: Vec<f64>,
    best: Option<(usize, f64)>,
    /// Whether those of the settled number are being taken again, because another seems better.
    is_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Exploring,
    Slower,
    More,
}

impl Threads {
    /// At most `most`, which are in use now.
    pub fn new(workers: Arc<dyn Workers>, most: usize) -> Threads {
        Threads {
            workers,
            most: most.max(1),
            now: most.max(1),
            unexplored: false,
            found: None,
            record: f64::INFINITY,
            steps: VecDeque::new(),
            least: f64::INFINITY,
            first: 0.0,
            rounds: 0,
            patience: PATIENCE,
            caution: 0,
            trial: None,
            slower: None,
        }
    }

    /// Nobody asked for this number: try once whether half does better, unless an earlier run `found` which is best. That
    /// may have been on a busy machine, so if it is fewer than there may be, more are tried soon.
    pub fn explore(mut self, found: Option<usize>) -> Threads {
        self.unexplored = found.is_none() && self.most > 1;
        self.found = found;
        if let Some(found) = found {
            self.settle(found.clamp(1, self.most));
            self.patience = SETTLED as u32;
        }
        self
    }

    /// In an earlier run a plain step once took only `step` seconds. If it now takes longer from the beginning, that is
    /// a drift like any other.
    pub fn with_record(mut self, step: f64) -> Threads {
        (self.record, self.least) = (step, step);
        self
    }

    /// The number that a trial found best, if there was one.
    pub fn found(&self) -> Option<usize> {
        self.found
    }

    /// The least seconds of a plain step that were ever seen.
    pub fn record(&self) -> Option<f64> {
        Some(self.record).filter(|record| record.is_finite())
    }

    /// The number in use, but for a trial.
    pub fn now(&self) -> usize {
        self.now
    }

    /// Whether other numbers are being tried: such rounds say nothing about T(n) with this one.
    pub fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// By which factor plain steps have become slower without a remedy; said once for each time that it is noticed.
    pub fn take_slower(&mut self) -> Option<f64> {
        self.slower.take()
    }

    /// Another text begins, perhaps after others used the same workers.
    pub fn start(&mut self) {
        self.trial = None;
        self.workers.set(self.now);
    }

    /// The time of a plain step after `context` tokens, by the last rounds. Contexts of other lengths have other times: it is
    /// compared with those before as far as `since` allows. `affordable` plain steps may be lost by exploring.
    pub fn watch(&mut self, step: f64, context: usize, since: Since, affordable: f64) {
        let is_short = context < SHORT;
        let begins_long = self.steps.is_empty() && !is_short;
        match since {
            Since::Longer => {
                let last = self.steps.iter().copied().fold(f64::INFINITY, f64::min);
                self.forget_steps();
                self.least = last;
            }
            Since::Other => self.forget_steps(),
            // What an earlier run saw was seen on a short context.
            Since::Alike if begins_long && self.least == self.record => self.forget_steps(),
            Since::Alike => {}
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.steps.len() >= SETTLED {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        if self.steps.len() < SETTLED || self.is_moving() {
            return;
        }
        if self.first == 0.0 {
            self.first = step;
        }
        self.least = self.least.min(step);
        if is_short {
            self.record = self.record.min(step);
        }
        if step > self.least * (1.0 + DRIFT) && self.rounds >= self.caution {
            let mut others = fewer(self.now);
            others.extend(more(self.now, self.most));
            return self.begin(Why::Slower, step / self.least, others);
        }
        let is_freed = step < self.first * (1.0 - DRIFT);
        if self.now < self.most && (is_freed || self.rounds >= self.patience) {
            return self.begin(Why::More, 1.0, more(self.now, self.most));
        }
        if self.unexplored && self.rounds >= EXPLORE_AFTER && affordable >= EXPLORING_COSTS {
            self.unexplored = false;
            self.begin(Why::Exploring, 1.0, vec![self.now.div_ceil(2)]);
        }
    }

    /// A round of a trial took `ratio` times as long as such rounds did before. When the trial is over: by what factor
    /// every pass takes longer than before from now on, 1 if nothing changes.
    pub fn tried(&mut self, ratio: f64) -> Option<f64> {
        let trial = self.trial.as_mut()?;
        trial.ratios.push(ratio);
        let is_hopeless = ratio > HOPELESS && !trial.is_again;
        if trial.ratios.len() < TRIAL && !is_hopeless {
            return None;
        }
        trial.ratios.sort_by(f64::total_cmp);
        let median = trial.ratios[trial.ratios.len() / 2];
        if !trial.is_again && trial.best.is_none_or(|(_, best)| median < best) {
            trial.best = Some((trial.on, median));
        }
        let seems_better = trial.best.is_some_and(|(_, ratio)| ratio < 1.0 - WORTHWHILE);
        if let Some(next) = trial.next.pop().or((seems_better && !trial.is_again).then_some(self.now)) {
            (trial.on, trial.ratios, trial.is_again) = (next, Vec::new(), next == self.now);
            self.workers.set(next);
            return None;
        }
        let (why, drift, best) = (trial.why, trial.drift, trial.best);
        let as_before = if trial.is_again { median.min(1.0) } else { 1.0 };
        let better = best.filter(|&(_, ratio)| ratio < as_before * (1.0 - WORTHWHILE));
        // What was slower may be over, and then it is the old number that is faster again.
        let (drift, is_over) = (drift * as_before, as_before < 1.0 - WORTHWHILE);
        self.trial = None;
        self.slower = Some(drift).filter(|&drift| drift > 1.0 + DRIFT / 2.0 && better.is_none());
        self.patience = match (why, better) {
            (_, Some(_)) => PATIENCE,
            (Why::More, None) => (self.patience * 2).min(PATIENCE_AT_MOST),
            (_, None) => self.patience,
        };
        self.caution = match (why, better) {
            (_, Some(_)) => 0,
            // One that only follows another, which helped, says nothing about the next drift.
            (Why::Slower, None) if drift > 1.0 + DRIFT / 2.0 => (self.caution * 2).clamp(CAUTION, CAUTION_AT_MOST),
            (_, None) => self.caution,
        };
        let before = self.now;
        self.settle(better.map_or(before, |(threads, _)| threads));
        self.found = Some(self.now);
        // What helped may help further.
        match self.now.cmp(&before) {
            Ordering::Less => self.begin(why, 1.0, fewer(self.now)),
            Ordering::Greater => self.begin(why, 1.0, more(self.now, self.most)),
            Ordering::Equal => {}
        }
        Some(better.map_or(if is_over { as_before } else { 1.0 }, |(_, ratio)| ratio))
    }

    /// Whether the time of a plain step is still on its way: what a trial is compared with must stand.
    fn is_moving(&self) -> bool {
        let last = self.steps.iter().rev().take(STANDING);
        let (least, most) = last.fold((f64::INFINITY, 0.0_f64), |(a, b), &step| (a.min(step), b.max(step)));
        most > least * (1.0 + DRIFT / 2.0)
    }

    fn begin(&mut self, why: Why, drift: f64, mut others: Vec<usize>) {
        let Some(on) = others.pop() else { return self.forget_steps() };
        self.workers.set(on);
        self.trial = Some(Trial { why, drift, on, next: others, ratios: Vec::new(), best: None, is_again: false });
    }

    fn settle(&mut self, threads: usize) {
        self.now = threads;
        self.workers.set(threads);
        self.forget_steps();
        self.rounds = 0;
    }

    fn forget_steps(&mut self) {
        self.steps.clear();
        (self.least, self.first) = (f64::INFINITY, 0.0);
    }
}

/// Half, three quarters, all but one: the last is tried first, one busy core being the commonest case.
fn fewer(now: usize) -> Vec<usize> {
    distinct([now.div_ceil(2), now - now / 4, now - 1], |n| n >= 1 && n < now)
}

/// One more, twice as many, all: the last is tried first.
fn more(now: usize, most: usize) -> Vec<usize> {
    distinct([now + 1, (now * 2).min(most), most], |n| n > now && n <= most)
}

fn distinct(counts: [usize; 3], is_wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut counts: Vec<usize> = counts.into_iter().filter(|&n| is_wanted(n)).collect();
    counts.dedup();
    counts
}

/// Rounds after which the time of a plain step is believed: as many as its median needs.
const SETTLED: usize = 9;

/// Rounds for which it must have stood before others are compared with it.
const STANDING: usize = 4;

/// A change of the time of a plain step by this share calls for a trial.
const DRIFT: f64 = 0.25;

/// Rounds for which each number is tried, the ratio above which one is enough, and what the best must gain to be kept.
const TRIAL: usize = 3;
const HOPELESS: f64 = 1.3;
const WORTHWHILE: f64 = 0.08;

/// Rounds before half of the threads are tried for the first time, and the plain steps that it may cost.
const EXPLORE_AFTER: u32 = 16;
const EXPLORING_COSTS: f64 = 2.0;

/// Rounds with fewer threads than there may be before more are tried, at first and at most.
const PATIENCE: u32 = 48;
const PATIENCE_AT_MOST: u32 = 768;

/// The least time of a plain step that is kept from run to run is that after fewer tokens than this.
const SHORT: usize = 512;

/// Rounds before fewer are tried again after that was in vain, at first and at most: other machines' load on the same
/// hardware comes and goes, and no number of threads is a remedy.
const CAUTION: u32 = 64;
const CAUTION_AT_MOST: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[derive(Debug, Default)]
    struct Counter(AtomicUsize);

    impl Workers for Counter {
        fn set(&self, threads: usize) {
            self.0.store(threads, Relaxed);
        }
    }

    /// `rounds` rounds on a machine where a plain step takes `seconds(threads)`; the number of threads at the end, and
    /// the seconds.
    fn live(threads: &mut Threads, workers: &Counter, rounds: usize, seconds: &dyn Fn(usize) -> f64) -> (usize, f64) {
        let mut total = 0.0;
        for _ in 0..rounds {
            let used = workers.0.load(Relaxed);
            total += seconds(used);
            match threads.is_trying() {
                true => drop(threads.tried(seconds(used) / seconds(threads.now()))),
                false => threads.watch(seconds(used), 1, Since::Alike, 3.0),
            }
        }
        (threads.now(), total)
    }

    fn quiet(n: usize) -> f64 {
        1.0 / n as f64
    }

    /// Every core has another program: a thread gets half of one, and waiting for each other costs the more the more
    /// there are.
    fn busy(n: usize) -> f64 {
        2.0 / n as f64 + 0.6 * (n as f64 - 1.0)
    }

    fn of(most: usize) -> (Threads, Arc<Counter>) {
        let workers = Arc::new(Counter::default());
        let mut threads = Threads::new(workers.clone(), most);
        threads.start();
        (threads, workers)
    }

    #[test]
    fn a_quiet_machine_keeps_what_was_asked_for() {
        for most in [1, 2, 3, 8, 16] {
            let (mut threads, workers) = of(most);
            let (now, seconds) = live(&mut threads, &workers, 1000, &quiet);
            assert_eq!(now, most);
            assert!((seconds - 1000.0 * quiet(most)).abs() < 1e-6, "nothing was tried");
        }
    }

    #[test]
    fn fewer_are_used_while_the_machine_is_busy_and_all_again_afterwards() {
        for most in [2, 4, 8] {
            let best = (1..=most).min_by(|&a, &b| busy(a).total_cmp(&busy(b))).unwrap();
            let (mut threads, workers) = of(most);
            live(&mut threads, &workers, 50, &quiet);
            live(&mut threads, &workers, 100, &busy);
            let (now, seconds) = live(&mut threads, &workers, 1000, &busy);
            assert!(busy(now) <= busy(best) * 1.1, "{now} of {most}, best {best}");
            let share = 1000.0 * busy(best) / seconds;
            assert!(share >= 0.9, "{most}: {share:.3} of the best number's speed, trials counted");
            let (now, _) = live(&mut threads, &workers, 200, &quiet);
            assert_eq!(now, most, "and all of them when it is quiet again");
        }
    }

    #[test]
    fn a_slower_machine_without_a_better_number_is_left_alone() {
        let (mut threads, workers) = of(4);
        live(&mut threads, &workers, 50, &quiet);
        let slow = |n: usize| 3.0 * quiet(n);
        live(&mut threads, &workers, 50, &slow);
        let (now, seconds) = live(&mut threads, &workers, 500, &slow);
        assert_eq!(now, 4);
        assert!((seconds - 500.0 * slow(4)).abs() < 1e-6, "and tried no more");
        assert!(threads.take_slower().is_some_and(|factor| (factor - 3.0).abs() < 0.1), "but it can be said");
        assert_eq!(threads.take_slower(), None, "once");
    }

    #[test]
    fn speed_that_comes_and_goes_whatever_the_number_is_soon_left_alone() {
        for most in [2, 4, 8] {
            let (mut threads, workers) = of(most);
            let (mut total, mut ideal) = (0.0, 0.0);
            for phase in 0..60 {
                let level = if phase % 2 == 0 { 1.0 } else { 1.5 };
                let seconds = |n: usize| level * quiet(n);
                total += live(&mut threads, &workers, 20, &seconds).1;
                ideal += 20.0 * seconds(most);
            }
            assert!(total < ideal * 1.01, "{most}: {:.4}", total / ideal);
        }
    }

    #[test]
    fn a_load_that_ends_during_a_trial_is_not_put_down_to_the_number_of_threads() {
        // One thread is nearly twice as slow as two, but not as slow as two were under the load.
        let pace = |n: usize| if n == 1 { 1.4 } else { 1.0 };
        let (mut threads, workers) = of(2);
        live(&mut threads, &workers, 50, &pace);
        let loaded = |n: usize| 1.8 * pace(n);
        while !threads.is_trying() {
            live(&mut threads, &workers, 1, &loaded);
        }
        while threads.is_trying() {
            threads.tried(pace(workers.0.load(Relaxed)) / loaded(2));
        }
        assert_eq!((threads.now(), threads.take_slower()), (2, None));
    }

    #[test]
    fn a_longer_context_hides_no_slower_machine_and_is_none() {
        let (mut threads, _) = of(4);
        (0..20).for_each(|_| threads.watch(quiet(4), 100, Since::Alike, 3.0));
        threads.watch(3.0 * quiet(4), 300, Since::Longer, 3.0);
        (0..SETTLED).for_each(|_| threads.watch(3.0 * quiet(4), 300, Since::Alike, 3.0));
        assert!(threads.is_trying(), "what became slower just then is noticed");
        for (context, tries) in [(100, true), (2000, false)] {
            let mut threads = of(4).0.with_record(quiet(4));
            (0..2 * SETTLED).for_each(|_| threads.watch(1.5 * quiet(4), context, Since::Alike, 3.0));
            assert_eq!(threads.is_trying(), tries, "an earlier run's record is of short contexts");
        }
        let (mut threads, _) = of(4);
        (0..20).for_each(|_| threads.watch(quiet(4), 2000, Since::Alike, 3.0));
        assert_eq!(threads.record(), None);
    }

    #[test]
    fn a_machine_that_is_busy_from_the_beginning_is_noticed_by_what_earlier_runs_saw() {
        let workers = Arc::new(Counter::default());
        let mut threads = Threads::new(workers.clone(), 4).with_record(quiet(4));
        threads.start();
        live(&mut threads, &workers, 60, &busy);
        assert_eq!(threads.now(), 2);
        let mut next = Threads::new(workers.clone(), 4).explore(threads.found());
        next.start();
        assert_eq!((next.now(), live(&mut next, &workers, 60, &quiet).0), (2, 4), "the next run finds it quiet again");
    }

    #[test]
    fn half_of_them_are_tried_once_where_nobody_chose() {
        let shared = |n: usize| if n > 4 { 0.4 } else { quiet(n) };
        let (threads, workers) = of(8);
        let mut threads = threads.explore(None);
        assert_eq!(live(&mut threads, &workers, 200, &shared).0, 4);
        assert_eq!((threads.found(), threads.take_slower()), (Some(4), None));
        let (threads, _) = of(8);
        assert_eq!(threads.explore(Some(4)).now(), 4, "and the next run knows");
        let (threads, workers) = of(8);
        let mut threads = threads.explore(None);
        let (now, seconds) = live(&mut threads, &workers, 1000, &quiet);
        assert_eq!(now, 8);
        assert!(seconds < (1000.0 + 2.0) * quiet(8), "one round of half was enough");
    }
}
