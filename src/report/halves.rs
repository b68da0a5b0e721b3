//! Is control as good as the best method that could have been fixed beforehand?
//!
//! For each kind of text by itself, because nobody fixes one for all. Who takes the best of several noisy medians and
//! compares with that very median, compares with luck: so the even repeats choose the best fixed method, and the odd
//! ones are compared with it; where there is one repeat in which the methods took turns, the first of each two turns
//! choose and the second ones are compared. Nothing is compared that ran on another prompt or in another repeat.

use serde::Serialize;

use super::table::shortened;
use super::{Comparison, Method, Run, BOOTSTRAP_SEED};
use crate::spread::{interval, median, wholes, Kind, Quotient};

/// The best fixed method for a kind of text, and the adaptive ones beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgainstBest {
    /// Kind of text.
    pub kind: String,
    /// The fixed method with the highest median ratio to plain decoding on the first half. Plain decoding is one.
    pub best: String,
    /// That ratio.
    pub best_ratio: f64,
    /// The adaptive methods.
    pub methods: Vec<Rival>,
}

/// How an adaptive method compares with the best fixed one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rival {
    /// Name of the method.
    pub method: String,
    /// Median ratio of its tokens/s to those of the best fixed method, on the second half.
    pub ratio: Option<f64>,
    /// 95 % bootstrap interval of `ratio`.
    pub ratio_interval_95: Option<(f64, f64)>,
}

impl Comparison {
    /// Each kind's best fixed method and how the adaptive ones compare with it. `None` if nothing is adaptive, or if
    /// there is only one repeat and no turns were taken in it.
    pub fn against_best(&self) -> Option<Vec<AgainstBest>> {
        let is_adaptive = self.methods.iter().any(|method| method.is_adaptive);
        let is_halved = self.is_repeated() || self.turn.is_some();
        if !is_halved || !is_adaptive {
            return None;
        }
        self.kinds().into_iter().map(|kind| self.against_best_of(kind)).collect()
    }

    fn is_repeated(&self) -> bool {
        self.runs.iter().any(is_odd)
    }

    /// The quotient of a run and another method's, as far as it belongs to that half.
    fn on_half(&self, second: bool, run: &Run, method: usize) -> Option<Quotient> {
        let quotient = self.quotient(run, method)?;
        match self.is_repeated() {
            true => (is_odd(run) == second).then_some(quotient),
            false => quotient.half(second),
        }
    }

    fn against_best_of(&self, kind: &str) -> Option<AgainstBest> {
        let first = |run: &Run| self.on_half(false, run, 0);
        let on_first = |method: usize| Some((method, median(&wholes(&self.by_prompts(method, kind, first)))?));
        let indices = 0..self.methods.len();
        let is_fixed = |method: &Method| !method.is_adaptive && method.synthetic.is_none();
        let is_adaptive = |method: &Method| method.is_adaptive && method.synthetic.is_none();
        let fixed = indices.clone().filter(|&method| is_fixed(&self.methods[method])).filter_map(on_first);
        let (best, best_ratio) = fixed.max_by(|a, b| a.1.total_cmp(&b.1))?;
        let rival = |method: usize| {
            let ratios = self.by_prompts(method, kind, |run| self.on_half(true, run, best));
            Rival::of(&self.methods[method].name, ratios)
        };
        Some(AgainstBest {
            kind: kind.to_owned(),
            best: self.methods[best].name.clone(),
            best_ratio,
            methods: indices.filter(|&method| is_adaptive(&self.methods[method])).map(rival).collect(),
        })
    }
}

impl Rival {
    fn of(method: &str, ratios: Kind) -> Rival {
        Rival {
            method: method.to_owned(),
            ratio: median(&wholes(&ratios)),
            ratio_interval_95: interval(&[ratios], BOOTSTRAP_SEED),
        }
    }
}

/// A line for each kind and adaptive method.
pub fn table(all: &[AgainstBest]) -> String {
    let mut lines = vec![
        "adaptive methods against the best fixed one: one half of the repeats or turns chose it, the other compares"
            .to_owned(),
        "  kind        method                ratio  95 % range   to".to_owned(),
    ];
    for of_kind in all {
        lines.extend(of_kind.methods.iter().map(|rival| line(of_kind, rival)));
    }
    lines.join("\n") + "\n"
}

fn line(of_kind: &AgainstBest, rival: &Rival) -> String {
    let ratio = rival.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let range = rival.ratio_interval_95.map_or("-".to_owned(), |(low, high)| format!("{low:.2}-{high:.2}"));
    let (kind, method) = (shortened(&of_kind.kind, 10), shortened(&rival.method, 20));
    let (best, best_ratio) = (shortened(&of_kind.best, 20), of_kind.best_ratio);
    format!("  {kind:<10}  {method:<20} {ratio:>6}  {range:<11}  {best} ({best_ratio:.2} x plain)")
}

fn is_odd(run: &Run) -> bool {
    run.repeat % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::Prompt;
    use crate::report::Method;
    use crate::stats::Stats;
    use std::time::Duration;

    /// Ten tokens in so many milliseconds, for each repeat, by each of two fixed methods and an adaptive one.
    fn comparison(milliseconds: &[[u64; 4]]) -> Comparison {
        let method = |name: &str| Method {
            name: name.to_owned(),
            about: String::new(),
            is_adaptive: name == "auto",
            synthetic: None,
        };
        let mut runs = Vec::new();
        for (repeat, times) in milliseconds.iter().enumerate() {
            for (method, &time) in times.iter().enumerate() {
                let mut stats = Stats::default();
                (stats.generated_tokens, stats.decode) = (10, Duration::from_millis(time));
                runs.push(Run { method, prompt: 0, repeat, tokens: vec![1; 10], stats, joules: None, control: None });
            }
        }
        Comparison {
            methods: ["none", "a", "b", "auto"].map(method).into(),
            prompts: vec![Prompt { id: "p".to_owned(), kind: "code".to_owned(), text: "x".to_owned() }],
            runs,
            greedy: true,
            turn: None,
        }
    }

    #[test]
    fn the_even_half_chooses_and_the_odd_half_compares() {
        // `a` is best in even repeats by luck; `b` is in odd ones. Control is compared with `a`, and only there.
        let repeats = [[100, 40, 50, 10], [100, 80, 50, 64], [100, 40, 50, 10], [100, 80, 50, 40]];
        let all = comparison(&repeats).against_best().unwrap();
        assert_eq!((all.len(), all[0].best.as_str(), all[0].best_ratio), (1, "a", 2.5));
        let rival = &all[0].methods[0];
        assert_eq!((all[0].methods.len(), rival.method.as_str(), rival.ratio), (1, "auto", Some((1.25 + 2.0) / 2.0)));
        let (low, high) = rival.ratio_interval_95.unwrap();
        assert!((1.25..=1.625).contains(&low) && (1.625..=2.0).contains(&high), "{low} {high}");
        let table = table(&all);
        assert!(table.contains("code        auto                   1.6"), "{table}");
        assert!(table.contains("a (2.50 x plain)"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 110), "{table}");
    }

    #[test]
    fn turns_are_halved_where_there_is_one_repeat() {
        // Rounds of one token: `a` is best in the first, third, fifth turn, `b` in the others, where control halves its time.
        let milliseconds = [[100, 100], [40, 80], [50, 50], [90, 40]];
        let mut comparison = comparison(&[[1, 1, 1, 1]]);
        comparison.turn = Some(1);
        for (run, turns) in comparison.runs.iter_mut().zip(milliseconds) {
            run.stats = Stats::default();
            run.stats.generated_tokens = 6;
            turns.iter().cycle().take(6).for_each(|&turn| run.stats.add(&round(turn)));
        }
        let all = comparison.against_best().unwrap();
        let rival = &all[0].methods[0];
        assert_eq!((all[0].best.as_str(), rival.ratio.map(|ratio| ratio.round())), ("a", Some(2.0)));
        let (low, high) = rival.ratio_interval_95.unwrap();
        assert!((low - 2.0).abs() < 1e-3 && (high - 2.0).abs() < 1e-3, "{low} {high}");
    }

    fn round(milliseconds: u64) -> crate::stats::Round {
        crate::stats::Round {
            tokens: vec![0],
            drafted: 0,
            depth: 0,
            accepted: 0,
            parts: Vec::new(),
            ending: crate::verify::Ending::Recovered,
            draft: Duration::ZERO,
            score: Duration::ZERO,
            sampling: Duration::ZERO,
            cache: Duration::ZERO,
            total: Duration::from_millis(milliseconds),
            predicted: None,
            threads: None,
            slower: None,
        }
    }

    #[test]
    fn plain_decoding_may_be_the_best_fixed_method() {
        let all = comparison(&[[50, 60, 70, 50], [50, 60, 70, 40]]).against_best().unwrap();
        assert_eq!((all[0].best.as_str(), all[0].best_ratio, all[0].methods[0].ratio), ("none", 1.0, Some(1.25)));
    }

    #[test]
    fn without_two_halves_or_control_there_is_nothing_to_compare() {
        assert_eq!(comparison(&[[1, 1, 1, 1]]).against_best(), None);
        let mut fixed = comparison(&[[1, 1, 1, 1], [1, 1, 1, 1]]);
        assert!(fixed.against_best().is_some());
        fixed.methods[3].is_adaptive = false;
        assert_eq!(fixed.against_best(), None);
    }
}
