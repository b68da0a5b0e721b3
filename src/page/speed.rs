//! How fast everything was: the headline, the speed by kind of text, and that of every single prompt.

use super::figure::{between, figure, legend, number, table, Section};
use super::input::{Method, Report, Row, NOISE};
use super::markup::{element, Element};
use super::plot::{Mark, Plot};
use super::room::shortened;
use super::rows::{self, Dot, Rows};
use super::scale::Scale;
use crate::spread::median;

/// The comparison in a sentence, and every loss in a list.
pub fn headline(report: &Report) -> Vec<Element> {
    let mut losses: Vec<Element> = real(report).filter_map(losses).collect();
    let all = real(report).flat_map(|m| &m.kinds);
    let cells = all.clone().filter(|row| row.ratio.is_some()).count();
    let slower = all.filter(|row| is_slower(row)).count();
    let many = match slower {
        0 => "no method is slower than plain decoding on any kind of text".to_owned(),
        _ => format!("{slower} of {cells} pairs of method and kind of text are slower than plain decoding"),
    };
    let sentence = match fastest(report) {
        Some(fastest) => format!("{fastest}; {many}{}.", worst(report)),
        None => format!("No speed was measured; {many}."),
    };
    if !losses.is_empty() {
        losses.insert(0, element("li").class("lead").text("Slower than plain decoding:"));
    }
    let list = (!losses.is_empty()).then(|| element("ul").class("losses").holding(losses));
    std::iter::once(element("p").class("headline").text(sentence)).chain(list).collect()
}

/// The methods whose guesses a model accepted, or refused.
fn real(report: &Report) -> impl Iterator<Item = &Method> + Clone {
    report.methods().iter().filter(|method| method.synthetic.is_none())
}

fn fastest(report: &Report) -> Option<String> {
    let ratio = |m: &&Method| m.overall.as_ref().and_then(|row| row.ratio);
    let best = real(report).filter(|m| ratio(m).is_some()).max_by(|a, b| {
        let (a, b) = (ratio(a).unwrap_or(0.0), ratio(b).unwrap_or(0.0));
        a.total_cmp(&b)
    })?;
    let row = best.overall.as_ref()?;
    let range = row.interval().map_or(String::new(), |range| format!(" (95 % interval {})", between(Some(range))));
    let mut kinds: Vec<(f64, &str)> = best.kinds.iter().filter_map(|k| Some((k.ratio?, k.kind.as_str()))).collect();
    kinds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let reach = match (kinds.first(), kinds.last()) {
        (Some(low), Some(high)) if kinds.len() > 1 => {
            format!(", from {:.2} on {} to {:.2} on {}", low.0, low.1, high.0, high.1)
        }
        _ => String::new(),
    };
    let name = &best.name;
    let speed = format!("{} times the speed of plain decoding over all texts{range}{reach}", number(row.ratio, 2));
    Some(match row.ratio {
        Some(ratio) if ratio > 1.0 => format!("{name} is fastest: {speed}"),
        _ => format!("No method is faster than plain decoding; {name} comes nearest with {speed}"),
    })
}

/// The prompt that any method was slowest on.
fn worst(report: &Report) -> String {
    let slowest =
        |m: &Method| prompts_by_speed(report, m).first().map(|&(ratio, id)| (ratio, id.to_owned(), m.name.clone()));
    let worst = real(report).filter_map(slowest).min_by(|a, b| a.0.total_cmp(&b.0));
    worst.map_or(String::new(), |(ratio, id, method)| format!("; the slowest prompt is {id} with {method}, {ratio:.2}"))
}

/// Where a method is slower: over all texts, and on which kinds.
fn losses(method: &Method) -> Option<Element> {
    let named = |row: &Row| format!("{} {}", row.kind, number(row.ratio, 2));
    let mut losses: Vec<String> = method.overall.iter().filter(|row| is_slower(row)).map(named).collect();
    let mut slower: Vec<&Row> = method.kinds.iter().filter(|row| is_slower(row)).collect();
    slower.sort_by(|a, b| a.ratio.unwrap_or(1.0).total_cmp(&b.ratio.unwrap_or(1.0)));
    match slower[..] {
        [worst, .., best] if slower.len() == method.kinds.len() => {
            losses.push(format!("every kind of text, from {} to {}", named(worst), named(best)));
        }
        _ => losses.extend(slower.into_iter().map(named)),
    }
    let name = element("b").text(&method.name);
    (!losses.is_empty()).then(|| element("li").holding([name]).text(format!(": {}", losses.join(", "))))
}

fn is_slower(row: &Row) -> bool {
    row.ratio.is_some_and(|ratio| ratio < 1.0 - NOISE)
}

/// A drawing for each kind of text, all on one scale.
pub fn by_kind(report: &Report) -> Option<Section> {
    let kinds: Vec<&str> = std::iter::once("overall").chain(report.kinds()).collect();
    let rows = report.methods().iter().flat_map(|m| m.overall.iter().chain(&m.kinds));
    let reach = |row: &Row| {
        let (low, high) = row.interval().unwrap_or((1.0, 1.0));
        [row.ratio.unwrap_or(1.0), low, high]
    };
    let scale = Scale::log(rows.flat_map(reach).chain([1.0]));
    let figures = kinds.iter().map(|kind| figure(kind, kind_rows(report, kind, scale).svg()));
    let lead = element("p")
        .text("Speed relative to plain decoding on the same prompt in the same repeat: right of the line is faster. ")
        .text(
            "A bar is the 95 % interval; where there is none, each prompt ran once and nothing is known of the spread.",
        );
    Some(Section {
        title: "Speed by kind of text",
        lead: element("div").holding([lead, verdicts()]),
        figures: figures.collect(),
        tables: vec![kind_table(report, &kinds)],
    })
}

fn verdicts() -> Element {
    legend(&[("win", "faster"), ("even", "cannot be told"), ("loss", "slower")])
}

fn kind_rows(report: &Report, kind: &str, scale: Scale) -> Rows {
    let row = |method: &Method| {
        let row = method.row(kind)?;
        let about = format!("{} on {kind}: {} ({})", method.name, number(row.ratio, 2), between(row.interval()));
        let dot = |value| Dot { value, interval: row.interval(), class: row.verdict(), about };
        Some(rows::Row {
            name: method.name.clone(),
            value: number(row.ratio, 2),
            bars: Vec::new(),
            dot: row.ratio.map(dot),
        })
    };
    Rows {
        title: format!("Speed on {kind}"),
        about: "Each method's speed relative to plain decoding, with its 95 % interval; the line is plain decoding."
            .into(),
        axis: (scale, "speed relative to plain decoding".to_owned()),
        mark: Some(1.0),
        rows: report.methods().iter().filter_map(row).collect(),
    }
}

fn kind_table(report: &Report, kinds: &[&str]) -> Element {
    let row = |(kind, method): (&str, &Method)| {
        let row = method.row(kind)?;
        let summary = &row.summary;
        Some(vec![
            format!("{kind}, {}", method.name),
            number(row.ratio, 2),
            between(row.interval()),
            number(row.wall_ratio, 2),
            between(row.wall_interval()),
            number(summary.tokens_per_round(), 2),
            number(summary.acceptance_rate(), 3),
        ])
    };
    let cells = kinds.iter().flat_map(|&kind| report.methods().iter().map(move |method| (kind, method)));
    let head = [
        "kind, method",
        "speed",
        "95 % interval",
        "with prefill",
        "95 % interval",
        "tokens per round",
        "acceptance rate",
    ];
    table("speed by kind of text", &head, cells.filter_map(row).collect())
}

/// Every prompt's speed, the slowest first.
pub fn by_prompt(report: &Report) -> Option<Section> {
    let speeds: Vec<Vec<(f64, &str)>> = report.methods().iter().map(|m| prompts_by_speed(report, m)).collect();
    let lowest = speeds.iter().flatten().map(|(ratio, _)| *ratio).fold(1.0, f64::min);
    // Below the lowest there is room for its name.
    let scale = Scale::log(speeds.iter().flatten().map(|(ratio, _)| *ratio).chain([1.0, 0.85 * lowest]));
    let drawn = report.methods().iter().zip(&speeds).filter(|(_, speeds)| !speeds.is_empty());
    let figures = drawn.map(|(m, speeds)| figure(&slower_of(m, speeds), prompt_plot(m, speeds, scale).svg()));
    let figures: Vec<Element> = figures.collect();
    let lead = element("p").text(
        "Each dot is a prompt, in the order of its speed (median over repeats). What a mean hides is at the left end.",
    );
    let tables = vec![prompt_table(report, &speeds)];
    let lead = element("div").holding([lead, verdicts()]);
    (!figures.is_empty()).then_some(Section { title: "Every prompt", lead, figures, tables })
}

fn slower_of(method: &Method, speeds: &[(f64, &str)]) -> String {
    let slower = speeds.iter().filter(|(ratio, _)| *ratio < 1.0 - NOISE).count();
    format!("{}: {slower} of {} slower", method.name, count(speeds.len(), "prompt"))
}

fn prompt_plot(method: &Method, speeds: &[(f64, &str)], scale: Scale) -> Plot {
    let last = speeds.len().saturating_sub(1);
    let dot = |(i, &(ratio, id)): (usize, &(f64, &str))| Mark::Dot {
        at: (i as f64 + 1.0, ratio),
        interval: None,
        class: class_of(ratio),
        name: if i == 0 || i == last { format!("{} {ratio:.2}", shortened(id, 20)) } else { String::new() },
        about: format!("{id}: {ratio:.2}"),
    };
    let level = Mark::Level { y: 1.0, class: "level", name: String::new() };
    Plot {
        title: format!("Speed of {} on every prompt", method.name),
        about: "The prompts from the slowest to the fastest; the line is plain decoding.".to_owned(),
        x: (Scale::whole([0.0, speeds.len() as f64 + 0.5]), "prompts, slowest first".to_owned()),
        y: (scale, "speed relative to plain decoding".to_owned()),
        marks: std::iter::once(level).chain(speeds.iter().enumerate().map(dot)).collect(),
    }
}

fn class_of(ratio: f64) -> &'static str {
    match ratio {
        ratio if ratio > 1.0 + NOISE => "win",
        ratio if ratio < 1.0 - NOISE => "loss",
        _ => "even",
    }
}

fn prompts_by_speed<'a>(report: &'a Report, method: &Method) -> Vec<(f64, &'a str)> {
    let of = |id: &'a str| {
        let runs = report.runs.iter().filter(|run| run.config == method.name && run.prompt == id);
        Some((median(&runs.filter_map(|run| run.ratio).collect::<Vec<f64>>())?, id))
    };
    let mut speeds: Vec<(f64, &str)> = report.prompts.iter().filter_map(|prompt| of(&prompt.id)).collect();
    speeds.sort_by(|a, b| a.0.total_cmp(&b.0));
    speeds
}

fn prompt_table(report: &Report, speeds: &[Vec<(f64, &str)>]) -> Element {
    let names = report.methods().iter().map(|m| m.name.as_str());
    let head: Vec<&str> = std::iter::once("prompt").chain(names).collect();
    let speed = |of: &Vec<(f64, &str)>, id: &str| of.iter().find(|(_, other)| *other == id).map(|(ratio, _)| *ratio);
    let row = |id: &str| {
        let cells = speeds.iter().map(|of| number(speed(of, id), 2));
        std::iter::once(id.to_owned()).chain(cells).collect()
    };
    table("speed of every prompt", &head, report.prompts.iter().map(|prompt| row(&prompt.id)).collect())
}

/// A number and a noun that agrees with it.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
