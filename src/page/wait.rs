//! What the user waits for: the first token, the pauses between bursts of tokens, and the whole answer.

use super::figure::{between, figure, number, table, Section};
use super::input::{Method, Report};
use super::markup::{element, Element};
use super::rows::{self, Dot, Rows};
use super::scale::Scale;

/// Speed with prefill counted, and the waits of every method. Older reports have none.
pub fn waits(report: &Report) -> Option<Section> {
    let rows: Vec<rows::Row> = report.methods().iter().filter_map(wall_row).collect();
    let lead = element("p")
        .text(
            "With prefill counted, speed is tokens per second of the whole wait. Tokens come in bursts, one for each ",
        )
        .text("round; a pause is the time between two.");
    (!rows.is_empty()).then(|| Section {
        title: "What the user waits for",
        lead,
        figures: vec![figure("Speed with prefill", wall_rows(rows).svg())],
        tables: vec![wait_table(report)],
    })
}

fn wall_row(method: &Method) -> Option<rows::Row> {
    let row = method.overall.as_ref()?;
    let (ratio, interval) = (row.wall_ratio?, row.wall_interval());
    let about = format!("{}: {ratio:.2} ({})", method.name, between(interval));
    Some(rows::Row {
        name: method.name.clone(),
        value: number(Some(ratio), 2),
        bars: Vec::new(),
        dot: Some(Dot { value: ratio, interval, class: "one", about }),
    })
}

fn wall_rows(rows: Vec<rows::Row>) -> Rows {
    let reach = |dot: &Dot| {
        let (low, high) = dot.interval.unwrap_or((dot.value, dot.value));
        [dot.value, low, high]
    };
    Rows {
        title: "Speed with prefill".to_owned(),
        about: "Each method's speed with prefill relative to plain decoding's, with its 95 % interval.".to_owned(),
        axis: (
            Scale::log(rows.iter().filter_map(|row| row.dot.as_ref()).flat_map(reach).chain([1.0])),
            "speed with prefill".to_owned(),
        ),
        mark: Some(1.0),
        rows,
    }
}

fn wait_table(report: &Report) -> Element {
    let milliseconds = |seconds: Option<f64>| number(seconds.map(|seconds| 1000.0 * seconds), 1);
    let row = |method: &Method| {
        let row = method.overall.as_ref()?;
        Some(vec![
            method.name.clone(),
            number(row.wall_ratio, 2),
            between(row.wall_interval()),
            milliseconds(row.time_to_first_token_s),
            milliseconds(row.summary.pause_p50_s),
            milliseconds(row.summary.pause_p95_s),
        ])
    };
    let head =
        ["method", "speed with prefill", "95 % interval", "first token, ms", "median pause, ms", "p95 pause, ms"];
    table("what the user waits for", &head, report.configs.iter().filter_map(row).collect())
}
