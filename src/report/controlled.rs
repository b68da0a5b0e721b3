//! What control did in each run, and in all runs of a method together.
//!
//! A control goes on from text to text, and what it reports is of all of them, since its process began. A [`Run`] keeps
//! what was added to that ([`added`]), so the runs of several processes, of a comparison that was gone on with or put
//! together, add up ([`Comparison::control`]). Runs from before this was kept have all since the process began.

use super::{sum, Comparison, Run};
use crate::control::Report;
use crate::survival::Calibration;

impl Comparison {
    /// What a method's control chose and how true its estimates were, over all runs, with T(n) as the last one knew it.
    /// `None` if nothing was controlled.
    pub fn control(&self, method: usize) -> Option<Report> {
        let runs = self.runs_of(method, None);
        let curve = runs.iter().rev().find_map(|run| run.control.as_ref())?.curve.clone();
        let (mut calibration, mut before) = (None, None);
        for (run, after) in runs.iter().filter_map(|run| Some((run, run.control.as_ref()?))) {
            let own = match before {
                _ if is_own(run, after) => after.clone(),
                Some(before) if goes_on(run, before, after) => added(Some(before), after.clone()),
                _ => after.clone(),
            };
            before = Some(after);
            calibration = Some(calibration.map_or(own.calibration.clone(), |all| both(&all, &own.calibration, 1.0)));
        }
        Some(Report { choices: choices(&sum(&runs)), curve, calibration: calibration? })
    }
}

/// What is in the later of two reports of one control and not in the earlier; T(n) is the later's.
pub fn added(before: Option<&Report>, after: Report) -> Report {
    let Some(before) = before else { return after };
    let earlier = before.choices.iter().copied().chain(std::iter::repeat(0));
    Report {
        choices: after.choices.iter().zip(earlier).map(|(after, before)| after.saturating_sub(before)).collect(),
        curve: after.curve,
        calibration: both(&after.calibration, &before.calibration, -1.0),
    }
}

/// Whether a report is of this run alone.
fn is_own(run: &Run, report: &Report) -> bool {
    report.choices.iter().sum::<usize>() == run.stats.rounds
}

/// Whether a report of all since the process began is of a run in the same process as the one before it.
fn goes_on(run: &Run, before: &Report, after: &Report) -> bool {
    let own = added(Some(before), after.clone()).choices;
    own.iter().sum::<usize>() == run.stats.rounds && own.starts_with(&choices(&run.stats))
}

/// Rounds by the number of nodes that they verified.
fn choices(stats: &crate::stats::Stats) -> Vec<usize> {
    let mut choices = Vec::new();
    for of in stats.by_nodes() {
        choices.resize(of.nodes + 1, 0);
        choices[of.nodes] = of.rounds;
    }
    choices
}

/// The calibration over the guesses of both; with sign -1, over those of `a` that are not in `b`.
fn both(a: &Calibration, b: &Calibration, sign: f64) -> Calibration {
    let count = |a: usize, b: usize| if sign < 0.0 { a.saturating_sub(b) } else { a + b };
    // Differences of sums that were rounded may be a little outside.
    let mean = |(n, x): (usize, f64), (m, y): (usize, f64)| match count(n, m) {
        0 => 0.0,
        of => ((n as f64 * x + sign * m as f64 * y) / of as f64).clamp(0.0, 1.0),
    };
    let guesses = count(a.guesses, b.guesses);
    let score = |x: Option<f64>, y: Option<f64>| {
        let mean = mean((a.guesses, x.unwrap_or(0.0)), (b.guesses, y.unwrap_or(0.0)));
        (guesses > 0).then_some(mean)
    };
    let none = std::iter::repeat(&(0, 0.0, 0.0));
    let tenth = |(&(n, p, share), &(m, q, other)): (&(usize, f64, f64), &(usize, f64, f64))| {
        (count(n, m), mean((n, p), (m, q)), mean((n, share), (m, other)))
    };
    Calibration {
        guesses,
        brier: score(a.brier, b.brier),
        brier_of_beliefs: score(a.brier_of_beliefs, b.brier_of_beliefs),
        reliability: a.reliability.iter().zip(b.reliability.iter().chain(none)).map(tenth).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{comparison, round};

    /// Of so many plain rounds and rounds of four nodes; all guesses in one tenth, of which `right` were accepted.
    fn report(plain: usize, four: usize, guesses: usize, right: usize) -> Report {
        let share = right as f64 / guesses as f64;
        Report {
            choices: vec![plain, 0, 0, 0, four],
            curve: vec![(1, plain as f64)],
            calibration: Calibration {
                guesses,
                brier: Some(share * (1.0 - share)),
                brier_of_beliefs: Some(0.5),
                reliability: vec![(0, 0.0, 0.0), (guesses, 0.5, share)],
            },
        }
    }

    fn of(reports: [Report; 4]) -> Comparison {
        let mut comparison = comparison();
        let rounds = [(1, 1), (2, 1), (1, 3), (4, 2)];
        let runs = comparison.runs.iter_mut().filter(|run| run.method == 1);
        for ((run, report), (plain, four)) in runs.zip(reports).zip(rounds) {
            run.stats = crate::stats::Stats::default();
            (0..plain).for_each(|_| run.stats.add(&round(0, 0, 10)));
            (0..four).for_each(|_| run.stats.add(&round(4, 1, 10)));
            run.control = Some(report);
        }
        comparison
    }

    fn assert_is_all(control: &Report) {
        assert_eq!(control.choices, [8, 0, 0, 0, 7]);
        assert_eq!(control.calibration.guesses, 40);
        assert_eq!(control.calibration.reliability[0], (0, 0.0, 0.0));
        let (n, believed, share) = control.calibration.reliability[1];
        assert!(n == 40 && believed == 0.5 && (share - 0.5).abs() < 1e-12, "{control:?}");
        assert!((control.calibration.brier_of_beliefs.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_runs_of_several_processes_add_up() {
        // 2 + 3 + 7 + 8 of 40 guesses, each run by itself.
        let each = [report(1, 1, 4, 2), report(2, 1, 6, 3), report(1, 3, 14, 7), report(4, 2, 16, 8)];
        let control = of(each.clone()).control(1).unwrap();
        assert_is_all(&control);
        assert_eq!(control.curve, [(1, 4.0)], "the last one's");
        let told = "Brier score 0.250, of the drafter's own beliefs 0.500\n";
        let table = of(each.clone()).table();
        assert!(table.contains(told), "{table}");
        assert!(of(each).control(0).is_none(), "nothing was controlled");
        // As it was kept before: all since the process began, which ended after the second run.
        let since = [report(1, 1, 4, 2), report(3, 2, 10, 5), report(1, 3, 14, 7), report(5, 5, 30, 15)];
        assert_is_all(&of(since).control(1).unwrap());
    }

    #[test]
    fn a_run_adds_what_the_later_report_has_more() {
        assert_eq!(added(None, report(1, 1, 4, 2)), report(1, 1, 4, 2));
        let own = added(Some(&report(1, 1, 4, 2)), report(3, 2, 10, 4));
        assert_eq!((own.choices, own.curve), (vec![2, 0, 0, 0, 1], vec![(1, 3.0)]));
        let (n, _, share) = own.calibration.reliability[1];
        assert!(n == 6 && (share - 1.0 / 3.0).abs() < 1e-12);
        let nothing = added(Some(&report(3, 2, 10, 4)), report(3, 2, 10, 4)).calibration;
        assert_eq!((nothing.guesses, nothing.brier, nothing.reliability[1]), (0, None, (0, 0.0, 0.0)));
    }
}
