//! The report in the terminal.

use super::{halves, Comparison, Method, Row};
use crate::control;
use crate::stats::OfNodes;

impl Comparison {
    /// The tables, one per method and one of [`against_best`](Comparison::against_best), at most 110 columns wide.
    pub fn table(&self) -> String {
        let mut tables: Vec<String> = (0..self.methods.len()).map(|method| self.section(method)).collect();
        tables.extend(self.against_best().as_deref().map(halves::table));
        tables.join("\n")
    }

    fn section(&self, method: usize) -> String {
        let rows = self.rows(method);
        let Method { name, about, .. } = &self.methods[method];
        let mut lines = vec![shortened(&format!("{name}: {about}"), WIDTH), HEADER.to_owned()];
        lines.extend(rows.iter().map(line));
        lines.extend(self.row_without_cycles(method).as_ref().map(line));
        if let Some(overall) = rows.last().filter(|_| method > 0) {
            let summary = &overall.summary;
            lines.extend(positions("acceptance by position", &summary.acceptance_by_position));
            lines.extend(positions("of rounds that came so far", &summary.conditional_acceptance_by_position));
            lines.extend(choices(overall));
            lines.extend(split(overall));
            lines.extend(truth(overall, self.control(method)));
            lines.extend(energy(overall));
            lines.extend(extremes(overall));
            lines.extend(waits(overall));
            lines.extend(self.difference(method));
        }
        lines.extend(rows.iter().filter(|_| method > 0).filter_map(loss));
        lines.join("\n") + "\n"
    }

    fn difference(&self, method: usize) -> Option<String> {
        let runs = self.runs_of(method, None);
        let first: Vec<usize> = runs.iter().filter_map(|r| self.differs_at(r)).collect();
        let earliest = first.iter().min()?;
        let (n, all) = (first.len(), runs.len());
        Some(format!("  {n} of {all} greedy texts leave plain text, the first at token {earliest} (near-ties if few)"))
    }
}

pub(super) const WIDTH: usize = 110;

const HEADER: &str = "  kind        ratio  quartiles   95 % range  tokens/s  rate length  \
                      draft verify  rest%  plain differs cycling";

fn line(row: &Row) -> String {
    let rest = row.draft_percent.zip(row.verify_percent).map(|(draft, verify)| 100.0 - draft - verify);
    format!(
        "  {:<10} {:>6}  {:<11} {:<11} {:>8} {:>5} {:>6}  {:>5} {:>6} {:>6}  {:>5} {:>7} {:>7}",
        shortened(&row.kind, 10),
        number(row.ratio, 2),
        range(row.ratio_quartiles),
        range(row.ratio_interval_95),
        number(row.tokens_per_second, 1),
        number(row.summary.acceptance_rate, 3),
        number(row.summary.mean_acceptance_length, 2),
        number(row.draft_percent, 0),
        number(row.verify_percent, 0),
        number(rest, 0),
        row.summary.plain_rounds,
        row.differing.map_or("-".to_owned(), |n| n.to_string()),
        row.cycling,
    )
}

fn number(x: Option<f64>, digits: usize) -> String {
    x.map_or("-".to_owned(), |x| format!("{x:.digits$}"))
}

fn range(of: Option<(f64, f64)>) -> String {
    of.map_or("-".to_owned(), |(a, b)| format!("{a:.2}-{b:.2}"))
}

fn positions(what: &str, rates: &[f64]) -> Option<String> {
    let shown: Vec<String> = rates.iter().take(14).map(|rate| format!("{rate:.2}")).collect();
    let more = if rates.len() > shown.len() { " …" } else { "" };
    (!shown.is_empty()).then(|| format!("  {what}: {}{more}", shown.join(" ")))
}

/// The commonest numbers of nodes, how often each was verified and what its pass took.
fn choices(overall: &Row) -> Option<String> {
    let mut chosen = overall.summary.by_nodes.clone();
    chosen.sort_by_key(|of| std::cmp::Reverse(of.rounds));
    chosen.truncate(6);
    chosen.sort_by_key(|of| of.nodes);
    let share = |rounds: usize| 100.0 * rounds as f64 / overall.summary.rounds as f64;
    let of = |of: &OfNodes| format!("{}: {:.0} {:.1}", of.nodes, share(of.rounds), 1000.0 * of.pass_s);
    let shown: Vec<String> = chosen.iter().map(of).collect();
    (!shown.is_empty()).then(|| format!("  nodes verified, % of rounds and ms of their pass: {}", shown.join(", ")))
}

/// Where the time of decoding went.
fn split(overall: &Row) -> Option<String> {
    let r = overall;
    let parts = [r.draft_percent?, r.verify_percent?, r.sampling_percent?, r.cache_percent?, r.other_percent?];
    let named = ["draft", "verify", "sampling", "cache", "other"].iter().zip(parts);
    let named: Vec<String> = named.map(|(name, part)| format!("{name} {part:.1}")).collect();
    Some(format!("  time in %: {}", named.join(", ")))
}

/// How true control's predictions and its estimates of acceptance were.
pub(super) fn truth(overall: &Row, control: Option<control::Report>) -> Option<String> {
    let speed = overall.summary.realised_over_predicted;
    let speed = speed.map(|ratio| format!("realised / predicted speed {ratio:.2}"));
    let score = |of: control::Report| {
        let (brier, own) = (of.calibration.brier?, of.calibration.brier_of_beliefs?);
        Some(format!("Brier score {brier:.3}, of the drafter's own beliefs {own:.3}"))
    };
    let told: Vec<String> = speed.into_iter().chain(control.and_then(score)).collect();
    (!told.is_empty()).then(|| format!("  {}", told.join("; ")))
}

fn energy(overall: &Row) -> Option<String> {
    let joules = overall.joules_per_token?;
    Some(format!("  {joules:.2} J/token, with the prompt's share and whatever else ran on the processors"))
}

/// How a method does at its worst.
fn extremes(overall: &Row) -> Option<String> {
    let (worst, ratio) = overall.worst.as_ref()?;
    let slower = 100.0 * overall.slower.unwrap_or(0.0);
    Some(format!("  {slower:.0} % of prompts below 0.98; worst {} at {ratio:.2}", shortened(worst, 20)))
}

/// What the user waits for.
fn waits(overall: &Row) -> Option<String> {
    let milliseconds = |seconds: Option<f64>| number(seconds.map(|seconds| 1000.0 * seconds), 0);
    Some(format!(
        "  with prefill {:.2}, 95 % range {}; first token after {} ms; pauses p50 {} ms, p95 {} ms",
        overall.wall_ratio?,
        range(overall.wall_ratio_interval_95),
        milliseconds(overall.time_to_first_token_s),
        milliseconds(overall.summary.pause_p50_s),
        milliseconds(overall.summary.pause_p95_s),
    ))
}

/// Why a row is below 1: what a round yields, and what it costs.
fn loss(row: &Row) -> Option<String> {
    let cost = row.round_cost.filter(|_| row.ratio.is_some_and(|ratio| ratio < 1.0))?;
    let tokens = row.summary.generated_tokens as f64 / row.summary.rounds as f64;
    let rate = row.summary.acceptance_rate.map_or("-".to_owned(), |rate| format!("{rate:.2}"));
    Some(format!(
        "  {}: {tokens:.2} tokens a round (rate {rate}) cost {:.2} plain steps: \
         draft {:.2}, T({:.1})/T(1) {:.2}, other {:.2}",
        shortened(&row.kind, 9),
        cost.draft + cost.verify + cost.other,
        cost.draft,
        cost.pass_tokens,
        cost.pass_ratio,
        cost.other,
    ))
}

pub(super) fn shortened(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
