//! What the controller of each adaptive method chose, how true its estimates of acceptance were, and whether its rounds
//! ran as it predicted.

use super::figure::{figure, number, table, Section};
use super::input::{Calibration, Control, Method, Report, Row};
use super::markup::{element, Element};
use super::plot::{Mark, Plot};
use super::rows::{self, Dot, Rows};
use super::scale::Scale;
use super::speed::count;

/// Choices, reliability and predictions of every adaptive method.
pub fn controller(report: &Report) -> Option<Section> {
    let mut figures = Vec::new();
    let mut tables = Vec::new();
    for method in report.methods() {
        if let Some(control) = &method.control {
            figures.extend(choices(method, control));
            figures.extend(control.calibration.iter().filter_map(|c| reliability(method, c)));
            figures.extend(curve(report, method, control));
            tables.extend(calibration_table(method, control));
        }
        figures.extend(predictions(method));
    }
    let lead = element("p")
        .text(
            "How many nodes it had scored, from none on; how often guesses were accepted that it gave such a chance; ",
        )
        .text(
            "and the speed of its rounds over the one predicted when their drafts were made, before they were scored.",
        );
    (!figures.is_empty()).then_some(Section { title: "The controller", lead, figures, tables })
}

fn choices(method: &Method, control: &Control) -> Option<Element> {
    let all: f64 = control.choices.iter().map(|&rounds| rounds as f64).sum();
    let row = |(nodes, &rounds): (usize, &usize)| {
        let percent = 100.0 * rounds as f64 / all;
        rows::Row {
            name: if nodes == 0 { "plain".to_owned() } else { count(nodes, "node") },
            value: format!("{percent:.1}"),
            bars: vec![(percent, "bar verify", count(rounds, "round"))],
            dot: None,
        }
    };
    let chosen: Vec<rows::Row> =
        control.choices.iter().enumerate().filter(|(_, &rounds)| rounds > 0).map(row).collect();
    if chosen.is_empty() {
        return None;
    }
    let highest = chosen.iter().flat_map(|row| &row.bars).map(|bar| bar.0).fold(0.0, f64::max);
    let rows = Rows {
        title: format!("Nodes scored by {}", method.name),
        about: "The share of rounds by the number of nodes that were scored.".to_owned(),
        axis: (Scale::linear([0.0, highest]), "percent of rounds".to_owned()),
        mark: None,
        rows: chosen,
    };
    Some(figure(&format!("{}: nodes scored", method.name), rows.svg()))
}

fn reliability(method: &Method, calibration: &Calibration) -> Option<Element> {
    let some: Vec<(f64, f64, f64)> = calibration.reliability.iter().copied().filter(|group| group.0 > 0.0).collect();
    let dot = |&(guesses, believed, accepted): &(f64, f64, f64)| Mark::Dot {
        at: (believed, accepted),
        interval: interval(accepted, guesses),
        class: "one",
        name: String::new(),
        about: format!("{guesses} guesses, believed {believed:.2}, accepted {accepted:.2}"),
    };
    let diagonal = Mark::Line { points: vec![(0.0, 0.0), (1.0, 1.0)], class: "line broken", name: String::new() };
    let plot = Plot {
        title: format!("Reliability of {}", method.name),
        about: "The share accepted of guesses by their estimated chance; on the broken line estimates are true.".into(),
        x: (Scale::linear([0.0, 1.0]), "estimated chance".to_owned()),
        y: (Scale::linear([0.0, 1.0]), "share accepted".to_owned()),
        marks: std::iter::once(diagonal).chain(some.iter().map(dot)).collect(),
    };
    (!some.is_empty()).then(|| figure(&format!("{}: reliability", method.name), plot.svg()))
}

/// Wilson's 95 % interval of a share of so many.
fn interval(share: f64, of: f64) -> Option<(f64, f64)> {
    const Z: f64 = 1.96;
    let spread = Z * (share * (1.0 - share) / of + Z * Z / (4.0 * of * of)).sqrt();
    let (middle, whole) = (share + Z * Z / (2.0 * of), 1.0 + Z * Z / of);
    let ends = (((middle - spread) / whole).max(0.0), ((middle + spread) / whole).min(1.0));
    (of > 0.0 && (0.0..=1.0).contains(&share)).then_some(ends)
}

/// T(n) as the controller knew it, beside the passes of the comparison.
fn curve(report: &Report, method: &Method, control: &Control) -> Option<Element> {
    let one = control.curve.iter().find(|(n, seconds)| *n == 1 && *seconds > 0.0)?.1;
    let points: Vec<(f64, f64)> = control.curve.iter().map(|&(n, seconds)| (n as f64, seconds / one)).collect();
    let realised = report.passes();
    let dots = realised.points().iter().map(|&at| Mark::Dot {
        at,
        interval: None,
        class: "even",
        name: String::new(),
        about: format!("realised: T({:.1})/T(1) = {:.2}", at.0, at.1),
    });
    let plot = Plot {
        title: format!("T(n) as {} knew it", method.name),
        about: "The controller's cost curve as a line, the realised passes of all methods as dots.".to_owned(),
        x: (
            Scale::linear(points.iter().chain(realised.points()).map(|p| p.0).chain([0.0])),
            "tokens in the pass, n".into(),
        ),
        y: (Scale::linear(points.iter().chain(realised.points()).map(|p| p.1).chain([0.0])), "T(n) / T(1)".into()),
        marks: std::iter::once(Mark::Line { points: points.clone(), class: "line one", name: String::new() })
            .chain(dots)
            .collect(),
    };
    Some(figure(&format!("{}: T(n) as it knew it", method.name), plot.svg()))
}

fn predictions(method: &Method) -> Option<Element> {
    let row = |row: &Row| {
        let ratio = row.summary.realised_over_predicted?;
        let dot = Dot { value: ratio, interval: None, class: "one", about: format!("{}: {ratio:.2}", row.kind) };
        Some(rows::Row { name: row.kind.clone(), value: number(Some(ratio), 2), bars: Vec::new(), dot: Some(dot) })
    };
    let rows: Vec<rows::Row> = method.overall.iter().chain(&method.kinds).filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let values = rows.iter().filter_map(|row| row.dot.as_ref()).map(|dot| dot.value);
    let rows = Rows {
        title: format!("Realised over predicted speed of {}", method.name),
        about: "By kind of text; the line is where rounds ran as predicted before they were scored.".to_owned(),
        axis: (Scale::log(values.chain([0.8, 1.25])), "realised / predicted speed".to_owned()),
        mark: Some(1.0),
        rows,
    };
    Some(figure(&format!("{}: realised over predicted", method.name), rows.svg()))
}

fn calibration_table(method: &Method, control: &Control) -> Option<Element> {
    let calibration = control.calibration.as_ref()?;
    let row = |&(guesses, believed, accepted): &(f64, f64, f64)| {
        vec![number(Some(believed), 3), number(Some(accepted), 3), number(Some(guesses), 0)]
    };
    let mut rows: Vec<Vec<String>> = calibration.reliability.iter().map(row).collect();
    let score = |name: &str, score: Option<f64>| vec![name.to_owned(), number(score, 4), String::new()];
    rows.push(score("Brier score", calibration.brier));
    rows.push(score("of the drafter's own beliefs", calibration.brier_of_beliefs));
    Some(table(&format!("reliability of {}", method.name), &["estimated chance", "share accepted", "guesses"], rows))
}
