//! Theory beside measurement, by acceptance rate: what [`crate::theory`] expects of chains, and what there was.

use super::family::{families, Family, LONGEST};
use super::figure::{figure, number, table, Section};
use super::input::{Method, Report, Row};
use super::markup::{element, Element};
use super::plot::{Mark, Plot};
use super::scale::Scale;
use crate::theory::{Acceptance, Costs};

/// The draft lengths of the curves, with their looks.
const LENGTHS: [(usize, &str); 4] = [(1, "line ramp1"), (2, "line ramp2"), (4, "line ramp3"), (8, "line ramp4")];
/// Points of a curve from α = 0 to 1.
const POINTS: usize = 60;

/// Expected tokens and speed-up against α, with the measured dots.
pub fn expectation(report: &Report) -> Option<Section> {
    let families = families(report);
    let speed = |family: &Family<'_>| {
        let costs = family.costs(report);
        figure(&format!("Speed of {}, c = {:.3}", family.name, costs.draft), speed_plot(family, &costs).svg())
    };
    let tokens = figure("Tokens of a round that drafts", token_plot(&families).svg());
    let agreement = figure("Speed, measured against expected", agreement_plot(report, &families).svg());
    let is_shown = |m: &Method| families.iter().any(|f| f.members.iter().any(|(_, member)| member.name == m.name));
    let left_out = report.methods().iter().filter(|m| !is_shown(m));
    (!families.is_empty()).then(|| Section {
        title: "Theory and measurement, by acceptance",
        lead: lead(&left_out.map(|m| m.name.as_str()).collect::<Vec<_>>()),
        figures: [agreement, tokens].into_iter().chain(families.iter().map(speed)).collect(),
        tables: vec![expectation_table(report, &families)],
    })
}

fn lead(left_out: &[&str]) -> Element {
    let trees = match left_out {
        [] => String::new(),
        names => format!(" Left out, because they draft trees or hardly anything: {}.", names.join(", ")),
    };
    let formula = element("p")
        .text("α is the share accepted of the guesses that the walk came to. The curves are Leviathan's: ")
        .text(
            "(1 − α^(K+1)) / (1 − α) tokens from chains of K guesses, and as speed that over K·c + T(K+1)/T(1) plain ",
        )
        .text("steps, with the T(n) above and c, what drafting a token was measured to cost.");
    let dots = element("p")
        .text("The dots are measured: each method's tokens, and its speed by kind of text, or overall where a drafter ran ")
        .text("at several lengths. A dot lies below the curve of its K where rounds often had no guess at all; the first ")
        .text("plot counts those as plain steps. An adaptive method drafts longer where guesses are likelier: its α is ")
        .text("the one at which chains of its mean length bring as many tokens.")
        .text(trees);
    element("div").holding([formula, dots])
}

fn curves(value: impl Fn(f64, usize) -> f64) -> Vec<Mark> {
    let alphas = || (0..=POINTS).map(|i| i as f64 / POINTS as f64);
    let curve = |&(k, class): &(usize, &'static str)| Mark::Line {
        points: alphas().map(|alpha| (alpha, value(alpha, k))).collect(),
        class,
        name: format!("K = {k}"),
    };
    LENGTHS.iter().map(curve).collect()
}

/// Each method on each kind of text, small, and overall: on the broken line theory is right.
fn agreement_plot(report: &Report, families: &[Family<'_>]) -> Plot {
    let dot = |method: &Method, row: &Row, costs: &Costs, class, name: &str| {
        let at = (expected(row, method.alpha(row).map(Acceptance::Same)?, costs)?, row.ratio?);
        let about = format!("{}, {}: expected {:.2}, measured {:.2}", method.name, row.kind, at.0, at.1);
        Some(Mark::Dot { at, interval: None, class, name: name.to_owned(), about })
    };
    let mut kinds: Vec<Mark> = Vec::new();
    let mut overall: Vec<Mark> = Vec::new();
    for family in families {
        let costs = family.costs(report);
        for (_, method) in &family.members {
            kinds.extend(method.kinds.iter().filter_map(|row| dot(method, row, &costs, "faint", "")));
            overall.extend(method.overall.iter().filter_map(|row| dot(method, row, &costs, "one", &method.name)));
        }
    }
    let ends = kinds.iter().chain(&overall).flat_map(|mark| [across(mark), height(mark)]);
    let scale = Scale::linear(ends.chain([0.0, 1.0]));
    let (low, high) = scale.ends();
    let diagonal = Mark::Line { points: vec![(low, low), (high, high)], class: "line broken", name: String::new() };
    Plot {
        title: "Measured against expected speed".to_owned(),
        about: "Each method overall, and faintly on each kind of text; on the broken line theory is right.".to_owned(),
        x: (scale, "expected speed".to_owned()),
        y: (scale, "measured speed".to_owned()),
        marks: std::iter::once(diagonal).chain(kinds).chain(overall).collect(),
    }
}

fn token_plot(families: &[Family<'_>]) -> Plot {
    let expected = |alpha, k| Acceptance::Same(alpha).expected_tokens(k);
    let dot = |method: &Method| {
        let summary = &method.overall.as_ref()?.summary;
        let (alpha, tokens) = (summary.alpha()?, summary.tokens_when_drafting()?);
        let about = format!("{}: α {alpha:.2}, {tokens:.2} tokens", method.name);
        Some(Mark::Dot { at: (alpha, tokens), interval: None, class: "even", name: method.name.clone(), about })
    };
    let fixed = families.iter().flat_map(|f| &f.members).filter(|(_, m)| !m.is_adaptive());
    let dots: Vec<Mark> = fixed.filter_map(|(_, m)| dot(m)).collect();
    let longest = LENGTHS.map(|(k, _)| k as f64 + 1.0);
    Plot {
        title: "Expected and measured tokens of a round".to_owned(),
        about: "Expected tokens against the acceptance rate for chains of 1, 2, 4 and 8, and each method's.".to_owned(),
        x: (Scale::linear([0.0, 1.0]), "acceptance rate α".to_owned()),
        y: (
            Scale::linear(longest.into_iter().chain(dots.iter().map(height)).chain([0.0])),
            "tokens a round".to_owned(),
        ),
        marks: curves(expected).into_iter().chain(dots).collect(),
    }
}

fn speed_plot(family: &Family<'_>, costs: &Costs) -> Plot {
    let expected = |alpha, k| Acceptance::Same(alpha).speed_up(k, costs);
    let dots: Vec<Mark> = match family.members[..] {
        [(_, only)] => only.kinds.iter().filter_map(|row| speed_dot(only, row, &row.kind)).collect(),
        _ => family.members.iter().filter_map(|(k, m)| speed_dot(m, m.overall.as_ref()?, &format!("{k}"))).collect(),
    };
    let ends = LENGTHS.map(|(k, _)| expected(1.0, k)).into_iter();
    let level = Mark::Level { y: 1.0, class: "level", name: String::new() };
    Plot {
        title: format!("Expected and measured speed of {}", family.name),
        about: "Expected speed against the acceptance rate for chains of 1, 2, 4 and 8, and what was measured.".into(),
        x: (Scale::linear([0.0, 1.0]), "acceptance rate α".to_owned()),
        y: (
            Scale::linear(ends.chain(dots.iter().map(height)).chain([0.0])),
            "speed relative to plain decoding".to_owned(),
        ),
        marks: std::iter::once(level).chain(curves(expected)).chain(dots).collect(),
    }
}

fn across(mark: &Mark) -> f64 {
    place(mark).0
}

fn height(mark: &Mark) -> f64 {
    place(mark).1
}

fn place(mark: &Mark) -> (f64, f64) {
    if let Mark::Dot { at, .. } = mark {
        *at
    } else {
        (0.0, 0.0)
    }
}

fn speed_dot(method: &Method, row: &Row, name: &str) -> Option<Mark> {
    let at = (method.alpha(row)?, row.ratio?);
    let about = format!("{name}: α {:.2}, speed {:.2}", at.0, at.1);
    Some(Mark::Dot { at, interval: None, class: row.verdict(), name: name.to_owned(), about })
}

fn expectation_table(report: &Report, families: &[Family<'_>]) -> Element {
    let head = [
        "method, kind",
        "α",
        "mean draft length",
        "rounds that draft",
        "tokens a round",
        "speed expected, one α",
        "by position",
        "speed measured",
    ];
    let rows = families.iter().flat_map(|family| {
        let costs = family.costs(report);
        let methods = family.members.iter().map(|(_, m)| *m);
        let rows = methods.flat_map(|m| m.overall.iter().chain(&m.kinds).map(move |row| (m, row)));
        rows.map(|(m, row)| expectation_row(m, row, &costs)).collect::<Vec<_>>()
    });
    table("theory and measurement", &head, rows.collect())
}

fn expectation_row(method: &Method, row: &Row, costs: &Costs) -> Vec<String> {
    let summary = &row.summary;
    let same = method.alpha(row).map(Acceptance::Same);
    let by_position = summary.by_position().filter(|_| !method.is_adaptive());
    let expected = |acceptance: Option<Acceptance>| expected(row, acceptance?, costs);
    vec![
        format!("{}, {}", method.name, row.kind),
        number(method.alpha(row), 3),
        number(summary.draft_length(), 2),
        format!("{:.0} %", 100.0 * drafting(row)),
        number(summary.tokens_per_round(), 2),
        number(expected(same), 2),
        number(expected(by_position), 2),
        number(row.ratio, 2),
    ]
}

/// The speed-up of chains of the row's mean length, where rounds that draft nothing are plain steps.
fn expected(row: &Row, acceptance: Acceptance, costs: &Costs) -> Option<f64> {
    let k = (row.summary.draft_length()?.round() as usize).min(LONGEST);
    let (tokens, drafting) = (acceptance.expected_tokens(k), drafting(row));
    let steps = tokens / acceptance.speed_up(k, costs);
    Some((drafting * tokens + 1.0 - drafting) / (drafting * steps + 1.0 - drafting))
}

/// The share of rounds in which something was drafted.
fn drafting(row: &Row) -> f64 {
    row.summary.drafting_rounds() as f64 / row.summary.rounds.max(1) as f64
}
