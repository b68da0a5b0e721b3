//! What a comparison found: every run of every method, summed up by kind of text, as a table and
//! as JSON.
//!
//! A ratio is tokens/s of a method to tokens/s of plain decoding, on the same prompt in the same
//! repeat; the drift of a busy machine cancels there, which it does not in tokens/s. Where the methods took turns within
//! the text, each turn is such a pair too, and one text alone tells how far its ratio is to be trusted. Losses are
//! shown like wins and explained: a round is worth the tokens it yields and costs so many plain steps.

mod controlled;
mod halves;
mod table;

use foretoken_drafter::Token;
use serde::{Deserialize, Serialize};

use crate::control;
use crate::prompts::Prompt;
use crate::spread::{geometric_mean, interval, median, quartiles, wholes, Kind, Quotient};
use crate::stats::{Stats, Summary};

pub use controlled::added;
pub use halves::{AgainstBest, Rival};

/// A finished comparison. Method 0 is plain decoding, the others are the configurations.
pub struct Comparison {
    /// Names and descriptions of the methods, `none` first.
    pub methods: Vec<Method>,
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// Every run, in the order in which they ran.
    pub runs: Vec<Run>,
    /// Whether texts were decoded greedily: only then must they equal plain text.
    pub greedy: bool,
    /// Tokens of a turn, if the methods took turns within a text.
    pub turn: Option<usize>,
}

/// Plain decoding or a configuration.
#[derive(Clone)]
pub struct Method {
    /// Short, unique.
    pub name: String,
    /// Drafter and budget.
    pub about: String,
    /// Whether control decides how much of the budget is used.
    pub is_adaptive: bool,
    /// The rate at which dice accepted its guesses, if the target did not: its texts are then no model's.
    pub synthetic: Option<f64>,
}

/// One text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Index of the method.
    pub method: usize,
    /// Index of the prompt.
    pub prompt: usize,
    /// Which repeat.
    pub repeat: usize,
    /// What was generated.
    pub tokens: Vec<Token>,
    /// What the rounds added up to.
    pub stats: Stats,
    /// Energy that the machine counted meanwhile, prefill included.
    pub joules: Option<f64>,
    /// What control decided and learned in it, and T(n) as it was known in the end. Records from before this was so have
    /// all since the method's first run in the same process.
    pub control: Option<control::Report>,
}

impl Run {
    /// Energy for each token, prefill included.
    pub fn joules_per_token(&self) -> Option<f64> {
        per_token(self.joules?, self.stats.generated_tokens)
    }
}

/// What a method did on one kind of text, or overall. Rates that nothing was measured for are `null`.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Kind of text; `overall`.
    pub kind: String,
    /// Prompts.
    pub prompts: usize,
    /// Runs: prompts times repeats.
    pub runs: usize,
    /// Median ratio to plain decoding; overall, the geometric mean over kinds.
    pub ratio: Option<f64>,
    /// Quartiles of the ratios.
    pub ratio_quartiles: Option<(f64, f64)>,
    /// 95 % bootstrap interval of `ratio`, over prompts, repeats and turns.
    pub ratio_interval_95: Option<(f64, f64)>,
    /// `ratio` with prefill counted: tokens per second of the whole wait.
    pub wall_ratio: Option<f64>,
    /// 95 % bootstrap interval of `wall_ratio`, drawn in the same way.
    pub wall_ratio_interval_95: Option<(f64, f64)>,
    /// Share of prompts whose median ratio is below 0.98.
    pub slower: Option<f64>,
    /// The prompt with the lowest median ratio, and that ratio.
    pub worst: Option<(String, f64)>,
    /// Median tokens/s; overall, the geometric mean over kinds.
    pub tokens_per_second: Option<f64>,
    /// Median seconds from the prompt to the first token, prefill included.
    pub time_to_first_token_s: Option<f64>,
    /// Energy for each token, prefill included.
    pub joules_per_token: Option<f64>,
    /// Sums and rates over all runs.
    pub summary: Summary,
    /// Percent of decoding time in which drafts were made; with the four that follow, 100.
    pub draft_percent: Option<f64>,
    /// Percent in verifying passes.
    pub verify_percent: Option<f64>,
    /// Percent in which rows became laws and verdicts were decided.
    pub sampling_percent: Option<f64>,
    /// Percent in which drafters took note of what became final.
    pub cache_percent: Option<f64>,
    /// Percent in none of these parts.
    pub other_percent: Option<f64>,
    /// What a round costs, in plain steps.
    pub round_cost: Option<RoundCost>,
    /// Greedy runs whose text is not plain text; `null` if sampled or synthetic.
    pub differing: Option<usize>,
    /// Prompts whose text ends in a cycle of at most 32 tokens.
    pub cycling: usize,
}

/// The ratio of a method to plain decoding on one kind of text, and how far to trust it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Name of the method.
    pub method: String,
    /// Kind of text.
    pub kind: String,
    /// Median ratio over prompts and repeats.
    pub ratio: Option<f64>,
    /// 95 % bootstrap interval of `ratio`.
    pub ratio_interval_95: Option<(f64, f64)>,
}

/// Cost of a mean round over the cost of a mean plain step on the same prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundCost {
    /// Drafting, and taking note of what became final.
    pub draft: f64,
    /// The same for one node.
    pub draft_per_node: Option<f64>,
    /// The pass of the target.
    pub verify: f64,
    /// Everything else.
    pub other: f64,
    /// Mean tokens in a pass, root included: the n of T(n).
    pub pass_tokens: f64,
    /// T(n)/T(1) as realised: a pass over a pass of plain decoding.
    pub pass_ratio: f64,
}

impl Comparison {
    /// The rows of a method: one per kind in the order of the prompts, then the overall one.
    pub fn rows(&self, method: usize) -> Vec<Row> {
        let mut rows: Vec<Row> = self.kinds().iter().map(|kind| self.row(method, Some(kind))).collect();
        rows.push(self.row(method, None));
        rows
    }

    /// The ratio of every method but plain decoding on every kind of text.
    pub fn cells(&self) -> Vec<Cell> {
        let of = |(method, kind): (usize, &str)| {
            let ratios = self.ratios(method, kind);
            Cell {
                method: self.methods[method].name.clone(),
                kind: kind.to_owned(),
                ratio: median(&wholes(&ratios)),
                ratio_interval_95: interval(&[ratios], BOOTSTRAP_SEED),
            }
        };
        let kinds = self.kinds();
        (1..self.methods.len()).flat_map(|method| kinds.iter().map(move |&kind| (method, kind))).map(of).collect()
    }

    /// The overall row of a method without the prompts after which any text ends in a cycle: those flatter whoever
    /// looks things up. `None` if there is no such prompt, or no other.
    pub fn row_without_cycles(&self, method: usize) -> Option<Row> {
        let cycles = |prompt: usize| {
            let is_text = |run: &&Run| run.prompt == prompt && self.methods[run.method].synthetic.is_none();
            self.runs.iter().filter(is_text).any(|run| ends_in_cycle(&run.tokens))
        };
        let kept: Vec<usize> = (0..self.prompts.len()).filter(|&prompt| !cycles(prompt)).collect();
        if kept.is_empty() || kept.len() == self.prompts.len() {
            return None;
        }
        let place = |prompt: usize| kept.iter().position(|&kept| kept == prompt);
        let run = |run: &Run| Some(Run { prompt: place(run.prompt)?, ..run.clone() });
        let rest = Comparison {
            methods: self.methods.clone(),
            prompts: kept.iter().map(|&prompt| self.prompts[prompt].clone()).collect(),
            runs: self.runs.iter().filter_map(run).collect(),
            greedy: self.greedy,
            turn: self.turn,
        };
        Some(Row { kind: "no cycles".to_owned(), ..rest.row(method, None) })
    }

    /// Where a greedy text leaves plain text; `None` if it does not, or if nothing must agree.
    pub fn differs_at(&self, run: &Run) -> Option<usize> {
        let plain = self.plain(run).filter(|_| self.must_agree(run.method))?;
        let equal = plain.tokens.iter().zip(&run.tokens).take_while(|(a, b)| a == b).count();
        (equal < plain.tokens.len().max(run.tokens.len())).then_some(equal)
    }

    fn must_agree(&self, method: usize) -> bool {
        self.greedy && self.methods[method].synthetic.is_none()
    }

    /// Tokens/s over plain tokens/s on the same prompt in the same repeat.
    pub fn ratio(&self, run: &Run) -> Option<f64> {
        Some(self.quotient(run, 0)?.whole)
    }

    /// The same with prefill counted.
    pub fn wall_ratio(&self, run: &Run) -> Option<f64> {
        Some(self.wall_quotient(run)?.whole)
    }

    /// Each stretch has its share of its text's prefill.
    fn wall_quotient(&self, run: &Run) -> Option<Quotient> {
        let plain = &self.plain(run)?.stats;
        let whole = run.stats.tokens_per_wall_second()? / plain.tokens_per_wall_second()?;
        let mut stretches = self.quotient(run, 0)?.stretches;
        let n = stretches.len() as f64;
        for (other, one) in &mut stretches {
            *other += plain.prefill.as_secs_f64() / n;
            *one += run.stats.prefill.as_secs_f64() / n;
        }
        Some(Quotient { whole, stretches })
    }

    /// Tokens/s over those of another method on the same prompt in the same repeat.
    fn quotient(&self, run: &Run, method: usize) -> Option<Quotient> {
        let other = &self.beside(run, method)?.stats;
        let whole = run.stats.tokens_per_second()? / other.tokens_per_second()?;
        let stretches = |turn| other.stretches(turn).into_iter().zip(run.stats.stretches(turn)).collect();
        Some(Quotient { whole, stretches: self.turn.map(stretches).unwrap_or_default() })
    }

    fn plain(&self, run: &Run) -> Option<&Run> {
        self.beside(run, 0)
    }

    /// What another method did on the same prompt in the same repeat.
    fn beside(&self, run: &Run, method: usize) -> Option<&Run> {
        self.runs.iter().find(|r| r.method == method && r.prompt == run.prompt && r.repeat == run.repeat)
    }

    fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for prompt in &self.prompts {
            if !kinds.contains(&prompt.kind.as_str()) {
                kinds.push(&prompt.kind);
            }
        }
        kinds
    }

    fn runs_of(&self, method: usize, kind: Option<&str>) -> Vec<&Run> {
        let is_wanted = |prompt: &Prompt| kind.is_none_or(|kind| prompt.kind == kind);
        self.runs.iter().filter(|r| r.method == method && is_wanted(&self.prompts[r.prompt])).collect()
    }

    fn row(&self, method: usize, kind: Option<&str>) -> Row {
        let runs = self.runs_of(method, kind);
        let kinds = kind.map_or_else(|| self.kinds(), |kind| vec![kind]);
        let ratios: Vec<Kind> = kinds.iter().map(|kind| self.ratios(method, kind)).collect();
        let speeds: Option<Vec<f64>> = kinds.iter().map(|kind| self.speed(method, kind)).collect();
        let walls: Vec<Kind> =
            kinds.iter().map(|kind| self.by_prompts(method, kind, |run| self.wall_quotient(run))).collect();
        let mean = |of: &[Kind]| {
            let medians: Option<Vec<f64>> = of.iter().map(|kind| median(&wholes(kind))).collect();
            geometric_mean(&medians?)
        };
        let sum = sum(&runs);
        let decode = sum.decode.as_secs_f64();
        let percent = |time: std::time::Duration| (decode > 0.0).then(|| 100.0 * time.as_secs_f64() / decode);
        let firsts: Vec<f64> = runs.iter().map(|r| r.stats.time_to_first_token()).collect();
        let mut cycling: Vec<usize> = runs.iter().filter(|r| ends_in_cycle(&r.tokens)).map(|r| r.prompt).collect();
        cycling.sort_unstable();
        cycling.dedup();
        Row {
            kind: kind.unwrap_or("overall").to_owned(),
            prompts: self.prompts.iter().filter(|p| kind.is_none_or(|kind| p.kind == kind)).count(),
            runs: runs.len(),
            ratio: mean(&ratios),
            ratio_quartiles: quartiles(&ratios.iter().flat_map(wholes).collect::<Vec<_>>()),
            ratio_interval_95: interval(&ratios, BOOTSTRAP_SEED),
            wall_ratio: mean(&walls),
            wall_ratio_interval_95: interval(&walls, BOOTSTRAP_SEED),
            slower: self.slower(method, &kinds),
            worst: self.by_prompt(method, &kinds).into_iter().min_by(|a, b| a.1.total_cmp(&b.1)),
            tokens_per_second: speeds.and_then(|s| geometric_mean(&s)),
            time_to_first_token_s: median(&firsts),
            joules_per_token: runs
                .iter()
                .map(|r| r.joules)
                .sum::<Option<f64>>()
                .and_then(|all| per_token(all, sum.generated_tokens)),
            draft_percent: percent(sum.draft),
            verify_percent: percent(sum.verify),
            sampling_percent: percent(sum.sampling),
            cache_percent: percent(sum.cache),
            other_percent: percent(sum.other()),
            round_cost: self.round_cost(&sum, kind),
            differing: self.must_agree(method).then(|| runs.iter().filter(|r| self.differs_at(r).is_some()).count()),
            cycling: cycling.len(),
            summary: sum.summary(),
        }
    }

    fn ratios(&self, method: usize, kind: &str) -> Kind {
        self.by_prompts(method, kind, |run| self.quotient(run, 0))
    }

    /// What `of` says of a method's runs on one kind of text, for each prompt of which it says anything.
    fn by_prompts(&self, method: usize, kind: &str, of: impl Fn(&Run) -> Option<Quotient>) -> Kind {
        let runs = self.runs_of(method, Some(kind));
        let of_prompt = |prompt| runs.iter().filter(|r| r.prompt == prompt).filter_map(|r| of(r)).collect();
        (0..self.prompts.len()).map(of_prompt).filter(|values: &Vec<_>| !values.is_empty()).collect()
    }

    /// Each prompt with the median of its ratios.
    fn by_prompt(&self, method: usize, kinds: &[&str]) -> Vec<(String, f64)> {
        let of = |(i, prompt): (usize, &Prompt)| {
            let runs = self.runs.iter().filter(|r| r.method == method && r.prompt == i);
            let ratios: Vec<f64> = runs.filter_map(|r| self.ratio(r)).collect();
            Some((prompt.id.clone(), median(&ratios)?))
        };
        let wanted = |(_, prompt): &(usize, &Prompt)| kinds.contains(&prompt.kind.as_str());
        self.prompts.iter().enumerate().filter(wanted).filter_map(of).collect()
    }

    fn slower(&self, method: usize, kinds: &[&str]) -> Option<f64> {
        let ratios = self.by_prompt(method, kinds);
        let slower = ratios.iter().filter(|(_, ratio)| *ratio < 0.98).count();
        (!ratios.is_empty()).then(|| slower as f64 / ratios.len() as f64)
    }

    fn speed(&self, method: usize, kind: &str) -> Option<f64> {
        let runs = self.runs_of(method, Some(kind));
        median(&runs.iter().filter_map(|r| r.stats.tokens_per_second()).collect::<Vec<f64>>())
    }

    fn round_cost(&self, sum: &Stats, kind: Option<&str>) -> Option<RoundCost> {
        let plain = self::sum(&self.runs_of(0, kind));
        if sum.rounds == 0 || plain.rounds == 0 || plain.verify.is_zero() {
            return None;
        }
        let per_round = |time: std::time::Duration, of: &Stats| time.as_secs_f64() / of.rounds as f64;
        let step = per_round(plain.decode, &plain);
        let draft = per_round(sum.draft + sum.cache, sum) / step;
        Some(RoundCost {
            draft,
            draft_per_node: (sum.drafted > 0).then(|| draft * sum.rounds as f64 / sum.drafted as f64),
            verify: per_round(sum.verify, sum) / step,
            other: per_round(sum.sampling + sum.other(), sum) / step,
            pass_tokens: 1.0 + sum.drafted as f64 / sum.rounds as f64,
            pass_ratio: per_round(sum.verify, sum) / per_round(plain.verify, &plain),
        })
    }
}

/// Any fixed number; the same report from the same runs.
const BOOTSTRAP_SEED: u64 = 1;

fn sum(runs: &[&Run]) -> Stats {
    let mut sum = Stats::default();
    runs.iter().for_each(|run| sum.merge(&run.stats));
    sum
}

fn per_token(joules: f64, tokens: usize) -> Option<f64> {
    (tokens > 0).then(|| joules / tokens as f64)
}

/// Whether a text goes round in circles: its last 32 tokens, and at least three turns, repeat with
/// one period of at most 32 tokens. Such texts flatter drafters that look things up.
pub fn ends_in_cycle(tokens: &[Token]) -> bool {
    (1..=LONGEST_CYCLE).any(|period| {
        let tail = (3 * period).max(LONGEST_CYCLE);
        tokens.len() >= tail && {
            let tail = &tokens[tokens.len() - tail..];
            tail[period..] == tail[..tail.len() - period]
        }
    })
}

const LONGEST_CYCLE: usize = 32;

#[cfg(test)]
pub(crate) mod tests {
    use super::table::{truth, WIDTH};
    use super::*;
    use crate::stats::Round;
    use crate::verify::Ending;
    use std::time::Duration;

    #[test]
    fn cycles() {
        let of = |period: u32, len: u32| (0..len).map(|i| i % period).collect::<Vec<Token>>();
        assert!(ends_in_cycle(&of(1, 32)) && ends_in_cycle(&of(32, 96)) && ends_in_cycle(&of(7, 40)));
        assert!(!ends_in_cycle(&of(1, 31)), "too short to tell");
        assert!(!ends_in_cycle(&of(32, 95)), "not three turns");
        assert!(!ends_in_cycle(&of(33, 500)), "too long a cycle");
        assert!(ends_in_cycle(&[of(500, 100), of(5, 60)].concat()), "only the end counts");
        assert!(!ends_in_cycle(&[of(5, 60), vec![9]].concat()));
    }

    pub fn round(drafted: usize, accepted: usize, total_ms: u64) -> Round {
        Round {
            tokens: vec![0; accepted + 1],
            drafted,
            depth: drafted,
            accepted,
            parts: Vec::new(),
            ending: Ending::Recovered,
            draft: Duration::from_millis(if drafted > 0 { total_ms / 5 } else { 0 }),
            score: Duration::from_millis(total_ms / 2),
            sampling: Duration::from_millis(total_ms / 10),
            cache: Duration::from_millis(if drafted > 0 { total_ms / 20 } else { 0 }),
            total: Duration::from_millis(total_ms),
            predicted: None,
            threads: None,
            slower: None,
        }
    }

    fn run(method: usize, prompt: usize, repeat: usize, tokens: Vec<Token>, rounds: &[Round]) -> Run {
        let mut stats = Stats::default();
        stats.generated_tokens = tokens.len();
        rounds.iter().for_each(|r| stats.add(r));
        Run { method, prompt, repeat, tokens, stats, joules: Some(2.0), control: None }
    }

    /// Two prompts of two kinds; the second method halves the time of one and doubles the other's.
    pub fn comparison() -> Comparison {
        let prompt = |id: &str, kind: &str| Prompt { id: id.to_owned(), kind: kind.to_owned(), text: "x".to_owned() };
        let method = |name: &str| Method {
            name: name.to_owned(),
            about: "a test".to_owned(),
            is_adaptive: false,
            synthetic: None,
        };
        let mut runs = Vec::new();
        for repeat in 0..2 {
            for prompt in 0..2 {
                runs.push(run(0, prompt, repeat, vec![1, 2, 3, 4], &vec![round(0, 0, 100); 4]));
            }
            runs.push(run(1, 0, repeat, vec![1, 2, 3, 4], &[round(4, 3, 200)]));
            runs.push(run(1, 1, repeat, vec![1, 2, 9, 4], &vec![round(1, 0, 200); 4]));
        }
        Comparison {
            methods: vec![method("none"), method("guess")],
            prompts: vec![prompt("a", "easy"), prompt("b", "difficult-one")],
            runs,
            greedy: true,
            turn: None,
        }
    }

    #[test]
    fn rows_pair_each_run_with_the_plain_one() {
        let rows = comparison().rows(1);
        assert_eq!(rows.iter().map(|r| r.ratio).collect::<Vec<_>>(), [Some(2.0), Some(0.5), Some(1.0)]);
        assert_eq!(rows[0].ratio_interval_95, Some((2.0, 2.0)));
        assert_eq!((rows[2].slower, rows[0].slower), (Some(0.5), Some(0.0)));
        assert_eq!(rows[2].worst, Some(("b".to_owned(), 0.5)));
        assert_eq!(rows[2].wall_ratio, Some(1.0), "no prefill here");
        assert_eq!((rows[2].joules_per_token, comparison().runs[0].joules_per_token()), (Some(0.5), Some(0.5)));
        assert_eq!(rows[2].time_to_first_token_s, Some(0.2), "of each run, not of their sum");
        assert_eq!(rows[2].ratio_quartiles, Some((0.5, 2.0)));
        assert!((rows[0].tokens_per_second.unwrap() - 20.0).abs() < 1e-9);
        let r = &rows[0];
        let split = [r.draft_percent, r.verify_percent, r.sampling_percent, r.cache_percent, r.other_percent];
        assert_eq!(split, [20.0, 50.0, 10.0, 5.0, 15.0].map(Some));
        assert_eq!(rows.iter().map(|r| r.differing).collect::<Vec<_>>(), [Some(0), Some(2), Some(2)]);
        assert_eq!(comparison().differs_at(&comparison().runs[3]), Some(2));
        let cost = rows[1].round_cost.unwrap();
        assert_eq!((cost.draft, cost.verify, cost.other), (0.5, 1.0, 0.5));
        assert_eq!((cost.pass_tokens, cost.pass_ratio, cost.draft_per_node), (2.0, 2.0, Some(0.5)));
        let cells = comparison().cells();
        let told: Vec<_> = cells.iter().map(|c| (c.method.as_str(), c.kind.as_str(), c.ratio)).collect();
        assert_eq!(told, [("guess", "easy", Some(2.0)), ("guess", "difficult-one", Some(0.5))]);
        assert!(cells.iter().zip(&rows).all(|(cell, row)| cell.ratio_interval_95 == row.ratio_interval_95));
        assert!(comparison().rows(0).iter().all(|r| r.ratio == Some(1.0) && r.differing == Some(0)));
    }

    #[test]
    fn a_ratio_with_prefill_has_an_interval_too() {
        // Decoding takes 400 ms plainly and half or twice that; reading the prompt is as long for both.
        let mut comparison = comparison();
        let overall = |comparison: &Comparison| comparison.rows(1).pop().unwrap();
        comparison.runs.iter_mut().for_each(|run| run.stats.prefill = Duration::from_millis(400));
        let near = |ratio: Option<f64>, to: f64| (ratio.unwrap() - to).abs() < 1e-6;
        assert!(near(comparison.rows(1)[0].wall_ratio, 800.0 / 600.0));
        let prefills = comparison.runs.iter_mut().filter(|run| run.method == 1 && run.repeat == 1);
        prefills.for_each(|run| run.stats.prefill = Duration::from_millis(0));
        let (low, high) = comparison.rows(1)[0].wall_ratio_interval_95.unwrap();
        assert!(near(Some(low), 800.0 / 600.0) && near(Some(high), 800.0 / 200.0), "{low} {high}");
        let (row, table) = (overall(&comparison), comparison.table());
        let (low, high) = row.wall_ratio_interval_95.unwrap();
        let told = format!("with prefill {:.2}, 95 % range {low:.2}-{high:.2}; first token", row.wall_ratio.unwrap());
        assert!(low < high && table.contains(&told), "{table}");
        // Where methods took turns, one text has an interval, and each turn its share of the prefill.
        comparison.turn = Some(1);
        comparison.runs.retain(|run| run.repeat == 0);
        let (low, high) = comparison.rows(1)[0].wall_ratio_interval_95.unwrap();
        assert!(near(Some(low), 800.0 / 600.0) && near(Some(high), low), "{low} {high}");
    }

    #[test]
    fn texts_that_go_round_in_circles_are_reported_apart() {
        let mut comparison = comparison();
        assert!(comparison.row_without_cycles(1).is_none(), "there are none");
        comparison.runs.iter_mut().filter(|r| r.method == 0 && r.prompt == 0).for_each(|r| r.tokens = vec![7; 40]);
        let row = comparison.row_without_cycles(1).unwrap();
        assert_eq!((row.prompts, row.runs, row.ratio), (1, 2, Some(0.5)));
        assert!(comparison.table().contains("no cycles"));
        comparison.runs.iter_mut().for_each(|r| r.tokens = vec![7; 40]);
        assert!(comparison.row_without_cycles(1).is_none(), "nothing is left");
    }

    #[test]
    fn texts_of_no_model_are_compared_with_nothing() {
        let mut comparison = comparison();
        comparison.methods[1].synthetic = Some(0.5);
        comparison.runs.iter_mut().filter(|r| r.method == 1 && r.prompt == 0).for_each(|r| r.tokens = vec![7; 40]);
        assert!(comparison.row_without_cycles(0).is_none(), "no model's text went round in a circle");
        assert!(comparison.rows(1).iter().all(|row| row.differing.is_none()));
        assert!(comparison.runs.iter().all(|run| comparison.differs_at(run).is_none()));
        assert!(!comparison.table().contains("leave plain text"), "{}", comparison.table());
    }

    #[test]
    fn the_table_is_narrow_and_explains_losses() {
        let table = comparison().table();
        assert!(table.lines().all(|l| l.chars().count() <= WIDTH), "{table}");
        assert!(table.contains("2 of 4 greedy texts leave plain text, the first at token 2"), "{table}");
        assert!(table.contains("  0.50 J/token"), "{table}");
        let mut more = comparison();
        more.runs.iter_mut().filter(|r| r.method == 1 && r.prompt == 0).for_each(|r| r.stats.add(&round(2, 0, 10)));
        let more = more.table();
        assert!(more.contains("  acceptance by position: 0.17 0.50 1.00 0.00\n"), "{more}");
        assert!(
            more.contains("  of rounds that came so far: 0.17 1.00 1.00 0.00\n"),
            "nobody came to what stands below a rejected guess: {more}"
        );
        let cases = [(Some(0.5), "  realised / predicted speed 0.50"), (None, "")];
        for (realised_over_predicted, told) in cases {
            let mut overall = comparison().rows(1).pop().unwrap();
            overall.summary.realised_over_predicted = realised_over_predicted;
            assert_eq!(truth(&overall, None).unwrap_or_default(), told);
        }
        assert!(table.contains("% of rounds and ms of their pass: 1: 80 100.0, 4: 20 100.0\n"), "{table}");
        let loss = "difficul…: 1.00 tokens a round (rate 0.00) cost 2.00 plain steps: draft 0.50, T(2.0)/T(1) 2.00";
        assert!(table.contains(loss), "{table}");
        assert!(!table.contains("easy: "), "{table}");
    }
}
