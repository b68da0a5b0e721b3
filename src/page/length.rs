//! Speed and acceptance against draft length K, where a report has one drafter at several fixed lengths: measured, as
//! theory has it, the best, and where the adaptive methods sit.

use super::family::{families, Family, LONGEST};
use super::figure::{between, figure, number, table, Section};
use super::input::{Method, Report, Row};
use super::markup::{element, Element};
use super::plot::{Mark, Plot};
use super::scale::Scale;

/// A drawing of speed for each drafter, and two of acceptance for all.
pub fn by_length(report: &Report) -> Option<Section> {
    let mut families = families(report);
    families.retain(|family| family.members.len() > 1);
    let mut figures: Vec<Element> =
        families.iter().map(|f| figure(&best_of(report, f), speed_plot(report, f).svg())).collect();
    let tokens = |row: &Row| row.summary.tokens_per_round();
    let rate = |row: &Row| row.summary.acceptance_rate();
    figures.push(figure("Tokens a round", comparison(&families, "tokens a round", tokens).svg()));
    figures.push(figure("Acceptance rate", comparison(&families, "accepted / drafted", rate).svg()));
    let lead = element("p")
        .text("One drafter at several fixed lengths: measured, with 95 % intervals and a ring around the fastest; and by ")
        .text("theory, with the conditional acceptance at each position of the longest drafts, or with one α. A line across is ")
        .text("an adaptive method, its dot at the mean length of its drafts. Theory is of all rounds together, measured ")
        .text("speed is the geometric mean over kinds of text, so they need not meet exactly.");
    let tables = vec![length_table(report, &families)];
    (!families.is_empty()).then_some(Section {
        title: "Speed and acceptance against draft length",
        lead,
        figures,
        tables,
    })
}

fn best_of(report: &Report, family: &Family<'_>) -> String {
    let measured = family.best().map_or(String::new(), |(k, _)| format!(": best K {k} measured"));
    let theory = family.acceptance().map(|(by_position, _)| by_position.best(LONGEST, &family.costs(report)));
    let theory = theory.map_or(String::new(), |(k, _)| format!(", {k} by theory"));
    format!("{}{measured}{theory}", family.name)
}

fn speed_plot(report: &Report, family: &Family<'_>) -> Plot {
    let adaptive: Vec<&Method> = report.methods().iter().filter(|m| m.is_adaptive()).collect();
    let mut marks = vec![Mark::Level { y: 1.0, class: "level", name: "plain decoding".to_owned() }];
    marks.extend(adaptive.iter().filter_map(|m| adaptive_level(m)));
    marks.extend(expected_lines(report, family));
    marks.extend(measured_marks(family));
    marks.extend(adaptive.iter().filter_map(|m| adaptive_dot(m)));
    let lengths = adaptive.iter().filter_map(|m| m.overall.as_ref()?.summary.draft_length());
    Plot {
        title: format!("Speed of {} against draft length", family.name),
        about: "Measured and expected speed at each fixed length, and that of the adaptive methods.".to_owned(),
        x: (Scale::whole(lengths.chain([0.0, family.longest() as f64])), "draft length K".to_owned()),
        y: (Scale::linear(heights(&marks).chain([0.0])), "speed relative to plain decoding".to_owned()),
        marks,
    }
}

fn heights(marks: &[Mark]) -> impl Iterator<Item = f64> + '_ {
    marks.iter().flat_map(|mark| match mark {
        Mark::Line { points, .. } => points.iter().map(|p| p.1).collect(),
        Mark::Dot { at, interval, .. } => vec![at.1, interval.map_or(at.1, |i| i.0), interval.map_or(at.1, |i| i.1)],
        Mark::Level { y, .. } => vec![*y],
    })
}

fn expected_lines(report: &Report, family: &Family<'_>) -> Vec<Mark> {
    let Some((by_position, same)) = family.acceptance() else { return Vec::new() };
    let costs = family.costs(report);
    let lines = [(same, "line dotted", "theory, one α"), (by_position, "line broken", "by position")];
    let line = |(acceptance, class, name): (crate::theory::Acceptance, &'static str, &str)| Mark::Line {
        points: (1..=family.longest()).map(|k| (k as f64, acceptance.speed_up(k, &costs))).collect(),
        class,
        name: name.to_owned(),
    };
    lines.into_iter().map(line).collect()
}

fn measured_marks(family: &Family<'_>) -> Vec<Mark> {
    let points: Vec<(f64, f64)> = family.rows().filter_map(|(k, row)| Some((k as f64, row.ratio?))).collect();
    let best = family.best();
    let dot = |(k, row): (usize, &Row)| {
        let at = (k as f64, row.ratio?);
        let is_best = best == Some((k, at.1));
        let name = if is_best { format!("{:.2}", at.1) } else { String::new() };
        let class = if is_best { "one best" } else { "one" };
        let about = format!("K = {k}: {:.2} ({})", at.1, between(row.interval()));
        Some(Mark::Dot { at, interval: row.interval(), class, name, about })
    };
    let line = Mark::Line { points, class: "line one", name: "measured".to_owned() };
    std::iter::once(line).chain(family.rows().filter_map(dot)).collect()
}

fn adaptive_level(method: &Method) -> Option<Mark> {
    let speed = method.overall.as_ref()?.ratio?;
    Some(Mark::Level { y: speed, class: "line two", name: format!("{} {speed:.2}", method.name) })
}

fn adaptive_dot(method: &Method) -> Option<Mark> {
    let row = method.overall.as_ref()?;
    let (length, speed) = (row.summary.draft_length()?, row.ratio?);
    let about = format!("{}: {speed:.2} with drafts of {length:.1} on average", method.name);
    Some(Mark::Dot { at: (length, speed), interval: row.interval(), class: "two", name: String::new(), about })
}

const SERIES: [(&str, &str); 4] =
    [("line one", "one"), ("line two", "two"), ("line three", "three"), ("line four", "four")];

fn comparison(families: &[Family<'_>], what: &str, value: impl Fn(&Row) -> Option<f64>) -> Plot {
    let mut marks = Vec::new();
    for (family, (line, dot)) in families.iter().zip(SERIES.iter().cycle()) {
        let points: Vec<(f64, f64)> = family.rows().filter_map(|(k, row)| Some((k as f64, value(row)?))).collect();
        marks.push(Mark::Line { points: points.clone(), class: line, name: family.name.clone() });
        marks.extend(points.into_iter().map(|at| Mark::Dot {
            at,
            interval: None,
            class: dot,
            name: String::new(),
            about: format!("{}, K = {}: {:.2}", family.name, at.0, at.1),
        }));
    }
    let longest = families.iter().map(Family::longest).max().unwrap_or(1);
    Plot {
        title: format!("{what} against draft length"),
        about: "One line for each drafter.".to_owned(),
        x: (Scale::whole([0.0, longest as f64]), "draft length K".to_owned()),
        y: (Scale::linear(heights(&marks).chain([0.0])), what.to_owned()),
        marks,
    }
}

fn length_table(report: &Report, families: &[Family<'_>]) -> Element {
    let head = ["drafter, K", "speed", "95 % interval", "expected by position", "tokens a round", "acceptance rate"];
    let of = |family: &Family<'_>| {
        let (acceptance, costs) = (family.acceptance(), family.costs(report));
        let row = |(k, row): (usize, &Row)| {
            let expected = acceptance.as_ref().map(|(by_position, _)| by_position.speed_up(k, &costs));
            vec![
                format!("{}, {k}", family.name),
                number(row.ratio, 2),
                between(row.interval()),
                number(expected, 2),
                number(row.summary.tokens_per_round(), 2),
                number(row.summary.acceptance_rate(), 3),
            ]
        };
        family.rows().map(row).collect::<Vec<_>>()
    };
    table("draft lengths", &head, families.iter().flat_map(of).collect())
}
