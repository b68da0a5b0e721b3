//! What a round brings and what it costs: tokens against plain steps, the passes of the target, acceptance by position.

use super::figure::{figure, legend, number, table, Section};
use super::input::{ByNodes, Method, Report, Row};
use super::markup::{element, Element};
use super::plot::{Mark, Plot};
use super::rows::{self, Dot, Rows};
use super::scale::Scale;

/// Bars of plain steps with a dot at the tokens that they bring, and T(n) against n as realised.
pub fn rounds(report: &Report) -> Option<Section> {
    let rows: Vec<rows::Row> = report.methods().iter().filter_map(yield_row).collect();
    let dots: Vec<Mark> = report.methods().iter().filter_map(pass_dot).collect();
    (!rows.is_empty()).then(|| Section {
        title: "What a round brings and costs",
        lead: element("div").holding(round_lead()),
        figures: vec![
            figure("Tokens and cost of a round", yield_rows(rows).svg()),
            figure("Cost of a pass, T(n) against n", pass_plot(report, dots).svg()),
        ],
        tables: vec![yield_table(report), time_table(report), pass_table(report)],
    })
}

fn round_lead() -> [Element; 2] {
    let keys = [
        ("bar verify", "target's pass"),
        ("bar draft", "drafting"),
        ("bar other", "everything else"),
        ("tokens", "tokens"),
        ("line broken", "n tokens for n plain steps"),
        ("line one", "T(n) as the theory below takes it"),
    ];
    let text = element("p")
        .text("First, the bar is what a mean round costs, in steps of plain decoding, and the dot how many tokens it ")
        .text(
            "brings: a dot beyond the end of its bar is a gain. Second, the pass of a mean round over a pass of plain ",
        )
        .text(
            "decoding, by the tokens it scores: the flatter, the more there is to gain; near the broken line, nothing.",
        );
    [text, legend(&keys)]
}

fn yield_row(method: &Method) -> Option<rows::Row> {
    let row = method.overall.as_ref()?;
    let (cost, tokens) = (row.round_cost?, row.summary.tokens_per_round()?);
    let bar =
        |steps: f64, class, what: &str| (steps, class, format!("{}: {what}, {steps:.2} plain steps", method.name));
    let about = format!("{}: {tokens:.2} tokens a round", method.name);
    Some(rows::Row {
        name: method.name.clone(),
        value: number(Some(tokens), 2),
        bars: vec![
            bar(cost.verify, "bar verify", "target's pass"),
            bar(cost.draft, "bar draft", "drafting"),
            bar(cost.other, "bar other", "everything else"),
        ],
        dot: Some(Dot { value: tokens, interval: None, class: "tokens", about }),
    })
}

fn yield_rows(rows: Vec<rows::Row>) -> Rows {
    let reach = |row: &rows::Row| {
        let cost: f64 = row.bars.iter().map(|bar| bar.0).sum();
        [cost, row.dot.as_ref().map_or(0.0, |dot| dot.value)]
    };
    Rows {
        title: "Tokens and cost of a round".to_owned(),
        about: "For each method the plain steps that a round costs, and the tokens that it brings.".to_owned(),
        axis: (Scale::linear(rows.iter().flat_map(reach).chain([0.0])), "plain steps; tokens".to_owned()),
        mark: Some(1.0),
        rows,
    }
}

fn yield_table(report: &Report) -> Element {
    let row = |method: &Method| {
        let row = method.overall.as_ref()?;
        let (cost, summary) = (row.round_cost?, &row.summary);
        Some(vec![
            method.name.clone(),
            number(summary.tokens_per_round(), 2),
            number(Some(cost.verify), 2),
            number(Some(cost.draft), 2),
            number(Some(cost.other), 3),
            number(cost.draft_per_node, 4),
            summary.rounds.to_string(),
            summary.plain_rounds.to_string(),
        ])
    };
    let head =
        ["method", "tokens", "pass", "drafting", "else", "drafting a token (c)", "rounds", "of them nothing drafted"];
    table("a mean round, in plain steps", &head, report.methods().iter().filter_map(row).collect())
}

fn time_table(report: &Report) -> Element {
    let row = |row: &Row, name: &str| {
        let parts = [row.draft_percent, row.verify_percent, row.sampling_percent, row.cache_percent, row.other_percent];
        let cells = parts.iter().map(|part| number(*part, 1)).chain([number(row.joules_per_token, 2)]);
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let rows = report.configs.iter().filter_map(|m| Some(row(m.overall.as_ref()?, &m.name)));
    let head = ["method", "drafting", "passes", "laws and verdicts", "drafter's update", "else", "joules per token"];
    table("where the time goes, in percent", &head, rows.collect())
}

fn pass_dot(method: &Method) -> Option<Mark> {
    let (name, cost) = (&method.name, method.overall.as_ref()?.round_cost?);
    let about = format!("{name}: T({:.1})/T(1) = {:.2}", cost.pass_tokens, cost.pass_ratio);
    let at = (cost.pass_tokens, cost.pass_ratio);
    Some(Mark::Dot { at, interval: None, class: "even", name: name.clone(), about })
}

fn pass_table(report: &Report) -> Element {
    let row = |&(n, ratio): &(f64, f64)| vec![number(Some(n), 1), number(Some(ratio), 3)];
    table("T(n)/T(1)", &["tokens n", "T(n)/T(1)"], report.passes().points().iter().map(row).collect())
}

fn pass_plot(report: &Report, dots: Vec<Mark>) -> Plot {
    let curve = report.passes();
    let at = |mark: &Mark| if let Mark::Dot { at, .. } = mark { Some(*at) } else { None };
    let points: Vec<(f64, f64)> = dots.iter().filter_map(at).chain(curve.points().iter().copied()).collect();
    let x = Scale::linear(points.iter().map(|p| p.0).chain([0.0, 2.0]));
    let y = Scale::linear(points.iter().map(|p| p.1).chain([0.0, 2.0]));
    let end = x.ends().1.min(y.ends().1);
    let diagonal = Mark::Line { points: vec![(1.0, 1.0), (end, end)], class: "line broken", name: String::new() };
    let line = std::iter::once((1.0, 1.0)).chain(curve.points().iter().copied()).collect();
    let line = Mark::Line { points: line, class: "line one", name: String::new() };
    Plot {
        title: "Cost of a pass".to_owned(),
        about: "T(n)/T(1) of each method's mean round, and the curve through them.".to_owned(),
        x: (x, "tokens in the pass, n".to_owned()),
        y: (y, "T(n) / T(1)".to_owned()),
        marks: [diagonal, line].into_iter().chain(dots).collect(),
    }
}

/// The share of rounds that accepted a guess at each position.
pub fn positions(report: &Report) -> Option<Section> {
    let methods: Vec<&Method> = report.methods().iter().filter(|m| positions_of(m) > 0).collect();
    let longest = methods.iter().map(|m| positions_of(m)).max().unwrap_or(0);
    let lead = element("p")
        .text("Of the rounds that drafted so far, the share that accepted the d-th guess: ")
        .text("the strong line over all texts, a thin one for each kind. Broken, where the report has it: of all rounds, ")
        .text("so that what was never drafted counts as not accepted.");
    let of_rounds = |row: &Row| row.summary.acceptance_by_position.clone();
    let of_those_there = |row: &Row| row.summary.conditional_acceptance_by_position.clone();
    let mut tables = vec![position_table("acceptance by position", &methods, longest, of_rounds)];
    if methods.iter().filter_map(|m| m.overall.as_ref()).any(|row| !of_those_there(row).is_empty()) {
        tables.push(position_table("of the rounds that came to it", &methods, longest, of_those_there));
    }
    tables.extend(accepted_table(&methods));
    let is_long = |m: &&&Method| positions_of(m) > 1;
    let figures = methods.iter().filter(is_long).map(|m| figure(&m.name, position_plot(m).svg())).collect();
    (!methods.is_empty()).then_some(Section { title: "Acceptance by position", lead, figures, tables })
}

/// Rounds by the nodes that they scored, and of them those that accepted 0, 1, 2, … guesses.
fn accepted_table(methods: &[&Method]) -> Option<Element> {
    let of = |method: &Method| method.overall.as_ref().map_or(Vec::new(), |row| row.summary.by_nodes.clone());
    let longest = methods.iter().flat_map(|m| of(m)).map(|of| of.accepted.len()).max().filter(|&n| n > 0)?;
    let accepted: Vec<String> = (0..longest).map(|n| format!("accepted {n}")).collect();
    let head: Vec<&str> = ["method, nodes", "rounds"].into_iter().chain(accepted.iter().map(String::as_str)).collect();
    let row = |(name, of): (&str, ByNodes)| {
        let cells = (0..longest).map(|n| of.accepted.get(n).map_or("–".to_owned(), |rounds| rounds.to_string()));
        [format!("{name}, {}", of.nodes), of.rounds.to_string()].into_iter().chain(cells).collect()
    };
    let rows = methods.iter().flat_map(|m| of(m).into_iter().map(|of| (m.name.as_str(), of))).map(row);
    Some(table("rounds by nodes scored and guesses accepted", &head, rows.collect()))
}

fn positions_of(method: &Method) -> usize {
    method.overall.as_ref().map_or(0, |row| row.summary.acceptance_by_position.len())
}

fn position_plot(method: &Method) -> Plot {
    let longest = positions_of(method);
    let points = |row: &Row| places(&row.summary.acceptance_by_position);
    let reached = method.overall.iter().map(|row| Mark::Line {
        points: places(&row.summary.reached_by_position),
        class: "line broken",
        name: String::new(),
    });
    let kinds =
        method.kinds.iter().map(|row| Mark::Line { points: points(row), class: "line thin", name: row.kind.clone() });
    let all = method.overall.iter().flat_map(|row| {
        let dots = points(row).into_iter().map(|at| Mark::Dot {
            at,
            interval: None,
            class: "one",
            name: String::new(),
            about: format!("guess {}: {:.2}", at.0, at.1),
        });
        std::iter::once(Mark::Line { points: points(row), class: "line one", name: String::new() }).chain(dots)
    });
    Plot {
        title: format!("Acceptance by position, {}", method.name),
        about: "The share of rounds that accepted the d-th guess, overall and by kind of text.".to_owned(),
        x: (Scale::whole([0.0, longest as f64]), "position of the guess, d".to_owned()),
        y: (Scale::linear([0.0, 1.0]), "share accepted".to_owned()),
        marks: reached.chain(kinds).chain(all).collect(),
    }
}

/// Shares at 1, 2, 3, …
fn places(shares: &[f64]) -> Vec<(f64, f64)> {
    shares.iter().enumerate().map(|(i, &share)| (i as f64 + 1.0, share)).collect()
}

fn position_table(title: &str, methods: &[&Method], longest: usize, shares: impl Fn(&Row) -> Vec<f64>) -> Element {
    let positions: Vec<String> = (1..=longest).map(|d| d.to_string()).collect();
    let head: Vec<&str> = std::iter::once("method, kind").chain(positions.iter().map(String::as_str)).collect();
    let row = |(method, row): (&Method, &Row)| {
        let shares = shares(row);
        let cells = (0..longest).map(|i| number(shares.get(i).copied(), 2));
        std::iter::once(format!("{}, {}", method.name, row.kind)).chain(cells).collect()
    };
    let rows = methods.iter().flat_map(|m| m.overall.iter().chain(&m.kinds).map(move |row| (*m, row)));
    table(title, &head, rows.map(row).collect())
}
