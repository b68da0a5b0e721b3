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
mod wait;

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
        wait::waits(report),
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
        .holding(setting::command(report))
        .holding(sections.into_iter().flatten().map(figure::Section::html))
        .holding([setting::setting(report)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    const HOSTILE: &str = "</title><script>alert(\"&\")</script>";

    fn row(kind: &str, ratio: f64, shares: &[f64]) -> Value {
        json!({
            "kind": kind, "ratio": ratio, "ratio_interval_95": [0.9 * ratio, 1.1 * ratio],
            "wall_ratio": 0.8 * ratio, "wall_ratio_interval_95": [0.7 * ratio, 0.9 * ratio],
            "time_to_first_token_s": 0.25, "differing": 0, "cycling": 1,
            "draft_percent": 20.0, "verify_percent": 75.0, "sampling_percent": 2.0, "cache_percent": 1.0,
            "other_percent": 2.0, "joules_per_token": null,
            "round_cost": {"draft": 0.2, "draft_per_node": 0.05, "verify": 1.3, "other": 0.01, "pass_tokens": 3.0,
                "pass_ratio": 1.3},
            "summary": {"rounds": 100, "plain_rounds": 10, "drafted": 180, "accepted": 110, "verify_s": 1.3,
                "acceptance_by_position": shares, "conditional_acceptance_by_position": shares, "reached_by_position": shares, "realised_over_predicted": 0.97, "pause_p50_s": 0.0125, "pause_p95_s": 0.5,
                "by_nodes": [{"nodes": 0, "rounds": 10, "pass_s": 0.01}, {"nodes": 2, "rounds": 90, "pass_s": 0.013, "accepted": [40, 30, 20]}]},
        })
    }

    fn method(name: &str, depth: usize, adaptive: bool, ratios: [f64; 3]) -> Value {
        let shares = [0.8, 0.5, 0.2, 0.1];
        json!({
            "name": name, "drafter": "model", "settings": {"model": "small.gguf"},
            "shape": {"depth": depth, "adaptive": adaptive, "width": 1, "max_nodes": 16},
            "overall": row("overall", ratios[0], &shares[..depth]),
            "kinds": [row("story", ratios[1], &shares[..depth]), row(HOSTILE, ratios[2], &shares[..depth])],
            "control": adaptive.then(|| json!({
                "choices": [10, 0, 90], "curve": [[1, 0.01], [3, 0.013]],
                "calibration": {"guesses": 5, "brier": 0.2, "brier_of_beliefs": 0.3,
                    "reliability": [[0, 0.0, 0.0], [50, 0.3, 0.4]]},
            })),
        })
    }

    fn sample() -> Value {
        let mut plain = method("none", 1, false, [1.0; 3]);
        plain["shape"] = Value::Null;
        plain["overall"]["summary"]["verify_s"] = json!(1.0);
        let run = |config: &str, prompt: &str, ratio: f64| json!({"config": config, "prompt": prompt, "ratio": ratio});
        json!({
            "version": "1.2.3", "llama_cpp": "b1", "command": ["foretoken", "bench", HOSTILE], "threads": 2,
            "machine": {"cpu": HOSTILE, "os": "linux", "features": "CPU : AVX2 = 1 | FMA = 0 |"},
            "target": {"model": "large.gguf"}, "sampling": {"temperature": 0.800000011920929}, "max_tokens": 64,
            "repeats": 2, "prompts": [{"id": "one", "kind": "story"}, {"id": HOSTILE, "kind": HOSTILE}],
            "configs": [plain, method("short", 2, false, [1.5, 2.0, 1.1]), method("long", 4, false, [0.9, 1.2, 0.7]),
                method("free", 4, true, [1.7, 2.1, 1.4])],
            "runs": [run("short", "one", 2.0), run("long", "one", 1.2), run("long", HOSTILE, 0.7), run("free", "one", 2.1)],
            "memory": {"peak_rss_bytes": 3_145_728, "rss_anon_bytes": 1_048_576},
        })
    }

    fn drawn(report: &Value) -> String {
        page(&[Report::parse(&report.to_string()).expect("a report")])
    }

    /// The tags of a page, in their order; panics if it is not well-formed.
    fn tags(page: &str) -> Vec<&str> {
        let mut open: Vec<&str> = Vec::new();
        let mut tags = Vec::new();
        for part in page.trim_start_matches("<!doctype html>").split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("a tag ends");
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{part}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{tag} closes what is open"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap_or(tag)),
            }
            tags.push(tag);
        }
        assert_eq!(open, Vec::<&str>::new(), "all is closed");
        tags
    }

    /// What `name` is in each tag that has it.
    fn values<'a>(tags: &[&'a str], name: &str) -> Vec<&'a str> {
        let start = format!(" {name}=\"");
        tags.iter().filter_map(|tag| tag.split_once(&start)?.1.split('"').next()).collect()
    }

    fn assert_sound(page: &str) {
        let tags = tags(page);
        for name in ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "points"] {
            let numbers = values(&tags, name).into_iter().flat_map(|value| value.split([' ', ',']));
            let wrong: Vec<&str> =
                numbers.filter(|n| !n.is_empty() && !n.parse().is_ok_and(|n: f64| n.abs() < 1e4)).collect();
            assert_eq!(wrong, Vec::<&str>::new(), "{name}");
        }
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
    }

    #[test]
    fn a_page_has_every_section_and_is_well_formed() {
        let page = drawn(&sample());
        assert_sound(&page);
        for title in [
            "Speed by kind of text",
            "What the user waits for",
            "What a round brings and costs",
            "Acceptance by position",
            "Theory and measurement, by acceptance",
            "Speed and acceptance against draft length",
            "The controller",
            "Every prompt",
            "How it was measured",
        ] {
            assert!(page.contains(&format!("<h2>{title}</h2>")), "{title}");
        }
        let plots = page.matches("role=\"img\"").count();
        assert!(plots > 10 && page.matches("<desc>").count() == plots, "every plot says what it shows");
    }

    #[test]
    fn the_headline_names_the_fastest_and_every_loss() {
        let page = drawn(&sample());
        let headline = "free is fastest: 1.70 times the speed of plain decoding over all texts \
                        (95 % interval 1.53–1.87), from 1.40 on";
        assert!(page.contains(headline), "{page}");
        assert!(page.contains("1 of 6 pairs of method and kind of text are slower than plain decoding"));
        assert!(page.contains("with long, 0.70."), "the slowest prompt");
        assert!(page.contains("<b>long</b>: overall 0.90, &lt;/title&gt;"), "what is slower, and on what");
        assert!(!page.contains("<b>short</b>") && !page.contains("<b>free</b>"), "what is not slower is no loss");
    }

    #[test]
    fn waits_and_accepted_counts_are_in_tables() {
        let cells = |row: &[&str]| row.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>();
        let page = drawn(&sample());
        let waits = cells(&["1.36", "1.19–1.53", "250.0", "12.5", "500.0"]);
        assert!(page.contains(&format!("<th scope=\"row\">free</th>{waits}")), "{page}");
        let accepted = cells(&["90", "40", "30", "20"]);
        assert!(page.contains(&format!("<th scope=\"row\">free, 2</th>{accepted}")), "{page}");
        let mut old = sample().to_string();
        for name in ["wall_ratio", "pause_p50_s", "accepted\":["] {
            old = old.replace(&format!("\"{name}"), &format!("\"other_{name}"));
        }
        let old = drawn(&old.parse().expect("a report"));
        assert!(
            !old.contains("What the user waits for") && !old.contains("nodes scored and guesses accepted"),
            "{old}"
        );
        assert_sound(&old);
    }

    #[test]
    fn theory_stands_beside_what_was_measured() {
        let report = Report::parse(&sample().to_string()).expect("a report");
        let points = report.passes().points().to_vec();
        assert_eq!(points.len(), 1, "a plain pass is no point");
        assert!((points[0].0 - 3.0).abs() < 1e-9 && (points[0].1 - 1.3).abs() < 1e-9, "13 ms over 10 ms: {points:?}");
        let page = drawn(&sample());
        // The longest drafts accept (0.8 + 0.5 + 0.2 + 0.1) of (1 + 0.8 + 0.5 + 0.2) guesses.
        assert!(page.contains("<th scope=\"row\">long, overall</th><td>0.640</td>"), "{page}");
        assert!(page.contains("<figcaption>model small: best K 2 measured, "), "one drafter at two lengths");
        assert!(page.contains("Speed of free, c = 0.050"), "the adaptive method by itself");
    }

    #[test]
    fn where_nothing_is_faster_the_headline_says_so() {
        let mut report = sample();
        report["configs"] = json!([method("none", 1, false, [1.0; 3]), method("long", 4, false, [0.9, 0.95, 0.7])]);
        let page = drawn(&report);
        assert!(page.contains("No method is faster than plain decoding; long comes nearest with 0.90"), "{page}");
        assert!(page.contains("every kind of text, from"));
    }

    #[test]
    fn names_are_text_and_nothing_is_loaded() {
        let page = drawn(&sample());
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
        for loading in ["http", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(loading), "{loading}");
        }
    }

    #[test]
    fn what_a_report_lacks_is_left_out() {
        let mut report = sample();
        report["configs"] = json!([{"name": "none"}, {"name": "other", "overall": {"kind": "overall", "ratio": 1.2,
            "summary": {"rounds": 5, "drafted": 0, "accepted": 0}}}]);
        report["memory"] = Value::Null;
        let page = drawn(&report);
        assert_sound(&page);
        assert_eq!(page.matches("<h2>").count(), 2, "speed and setting: {page}");
    }

    #[test]
    fn absurd_numbers_leave_a_page() {
        for number in [0.0, -1.0, 1e300, 1e-300] {
            let mut report = sample();
            for method in report["configs"].as_array_mut().into_iter().flatten() {
                let row = &mut method["overall"];
                row["ratio"] = json!(number);
                row["round_cost"]["draft_per_node"] = json!(number);
                row["round_cost"]["pass_ratio"] = json!(number);
                row["summary"]["verify_s"] = json!(number);
                row["summary"]["acceptance_by_position"] = json!([number, number]);
                row["summary"]["conditional_acceptance_by_position"] = json!([number, number]);
                row["summary"]["realised_over_predicted"] = json!(number);
            }
            assert_sound(&drawn(&report));
        }
    }

    #[test]
    fn several_reports_are_linked() {
        let report = Report::parse(&sample().to_string()).expect("a report");
        let page = page(&[report.clone(), report]);
        assert_sound(&page);
        for i in 0..2 {
            assert!(page.contains(&format!("href=\"#report-{i}\"")) && page.contains(&format!("id=\"report-{i}\"")));
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for (text, reason) in [("{}", "missing field"), ("text", "expected"), ("", "EOF")] {
            assert!(Report::parse(text).is_err_and(|e| e.contains(reason)), "{text}");
        }
        let mut report = sample();
        report["configs"] = json!([method("none", 1, false, [1.0; 3])]);
        assert!(Report::parse(&report.to_string()).is_err_and(|e| e.contains("compares nothing")));
    }
}
