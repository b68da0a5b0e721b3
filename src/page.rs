//! One self-contained HTML page of one or several reports of a comparison: plots that are read at a glance, with the
//! numbers beside them and [`crate::theory`] beside the measurements.
//!
//! [`page`] turns reports into a text; who wants a file writes it. The page loads nothing and runs nothing: plots are
//! inline SVG, drawn here, in light or dark as the reader's system has it. It reads the JSON of `foretoken bench --json`
//! rather than the comparison itself, so that a report of last month makes a page too.

mod controller;
mod expectation;
mod family;
mod figure;
mod input;
mod length;
mod markup;
mod plot;
mod room;
mod rounds;
mod rows;
mod scale;
mod setting;
mod speed;

use markup::{element, Element};

pub use input::{Report, ReportError};

/// The page of `reports`, one after the other.
pub fn page(reports: &[Report]) -> String {
    let head = element("head").holding([
        element("meta").with("charset", "utf-8"),
        element("meta").with("name", "viewport").with("content", "width=device-width, initial-scale=1"),
        element("title").text("foretoken: speed and theory"),
        element("style").text(STYLE),
    ]);
    let body = element("body").holding(contents(reports)).holding(reports.iter().enumerate().map(article));
    format!("<!doctype html>\n{}", element("html").with("lang", "en").holding([head, body]))
}

/// Escaped like any text, so it must do without `<`, `>`, `&` and quotes.
const STYLE: &str = include_str!("page/style.css");

/// Links to the reports, if there are several.
fn contents(reports: &[Report]) -> Option<Element> {
    let link = |(i, report): (usize, &Report)| {
        let methods: Vec<&str> = report.methods().iter().map(|m| m.name.as_str()).collect();
        let about = format!(": {}", room::shortened(&methods.join(", "), 72));
        let link = element("a").with("href", format!("#report-{i}")).text(report.name());
        element("li").holding([link]).text(about)
    };
    (reports.len() > 1).then(|| element("nav").holding([element("ul").holding(reports.iter().enumerate().map(link))]))
}

fn article((i, report): (usize, &Report)) -> Element {
    let sections = [
        speed::by_kind(report),
        rounds::rounds(report),
        rounds::positions(report),
        expectation::expectation(report),
        length::by_length(report),
        controller::controller(report),
        speed::by_prompt(report),
    ];
    element("article")
        .with("id", format!("report-{i}"))
        .holding([element("h1").text(report.name())])
        .holding(speed::headline(report))
        .holding([element("p").class("machine").text(setting::machine(report))])
        .holding(sections.into_iter().flatten().map(figure::Section::html))
        .holding([setting::setting(report)])
}
