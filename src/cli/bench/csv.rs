//! A comparison as CSV (RFC 4180, lines end in a line feed), for spreadsheets and plots: a file with a line for every run
//! ([`write`]), and one with a line for every number of every method ([`write_long`]).
//!
//! Both have the names and units of the JSON report. What was not measured is an empty field in the first, and no line in
//! the second. Lists are in the second only.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::cli::{output, Failure};

const COLUMNS: [&str; 31] = [
    "config",
    "prompt",
    "kind",
    "temperature",
    "repeat",
    "ratio",
    "wall_ratio",
    "differs_at",
    "cycling",
    "prompt_tokens",
    "generated_tokens",
    "rounds",
    "plain_rounds",
    "drafted",
    "accepted",
    "acceptance_rate",
    "mean_acceptance_length",
    "prefill_s",
    "decode_s",
    "draft_s",
    "verify_s",
    "sampling_s",
    "cache_s",
    "other_s",
    "tokens_per_second",
    "time_to_first_token_s",
    "pause_p50_s",
    "pause_p95_s",
    "realised_over_predicted",
    "joules",
    "joules_per_token",
];

/// Put these runs into the file, and nothing else.
pub fn write(runs: &[impl Serialize], path: &Path) -> Result<(), Failure> {
    let text = table(runs).map_err(|e| Failure::Running(e.to_string()))?;
    output::write(path, &text)
}

/// Put every number of the report's methods into the file, and nothing else.
pub fn write_long(report: &Value, path: &Path) -> Result<(), Failure> {
    output::write(path, &long(report))
}

/// A header, and a line for each number: whose it is, on which kind of text, what it is, and where in a list it stands.
fn long(report: &Value) -> String {
    let mut lines = vec!["config,kind,quantity,key,value".to_owned()];
    let mut add = |config: &Value, kind: &Value, quantity: &str, key: &str, value: &Value| {
        if value.is_number() {
            lines.push(format!("{},{},{quantity},{key},{value}", field(config), field(kind)));
        }
    };
    for method in items(&report["configs"]) {
        let rows = [&method["overall"], &method["overall_without_cycles"]].into_iter().chain(items(&method["kinds"]));
        for row in rows {
            let mut add = |quantity: &str, key: &str, value: &Value| {
                add(&method["name"], &row["kind"], quantity, key, value);
            };
            numbers(row).chain(numbers(&row["summary"])).for_each(|(name, value)| add(name, "", value));
            for interval in ["ratio_quartiles", "ratio_interval_95", "wall_ratio_interval_95"] {
                ["low", "high"].iter().zip(items(&row[interval])).for_each(|(end, value)| add(interval, end, value));
            }
            numbers(&row["round_cost"]).for_each(|(name, value)| add("round_cost", name, value));
            for shares in POSITIONS {
                let shares_of = items(&row["summary"][shares]).enumerate();
                shares_of.for_each(|(i, share)| add(shares, &(i + 1).to_string(), share));
            }
            for (i, part) in items(&row["summary"]["by_part"]).enumerate() {
                numbers(part).for_each(|(name, value)| add(&format!("{name}_by_part"), &i.to_string(), value));
            }
            for of in items(&row["summary"]["by_nodes"]) {
                let nodes = of["nodes"].to_string();
                for (name, value) in numbers(of).filter(|(name, _)| *name != "nodes") {
                    add(&format!("{name}_by_nodes"), &nodes, value);
                }
                let accepted = items(&of["accepted"]).enumerate();
                accepted.for_each(|(n, rounds)| add(&format!("rounds_accepting_{n}_by_nodes"), &nodes, rounds));
            }
        }
        let mut add = |quantity: &str, key: &str, value: &Value| {
            add(&method["name"], &method["overall"]["kind"], quantity, key, value);
        };
        let control = &method["control"];
        items(&control["curve"]).for_each(|point| add("control_pass_s", &point[0].to_string(), &point[1]));
        let calibration = &control["calibration"];
        numbers(calibration).for_each(|(name, value)| add(&format!("calibration_{name}"), "", value));
        for (tenth, group) in items(&calibration["reliability"]).enumerate() {
            let names = ["reliability_guesses", "reliability_believed", "reliability_accepted"];
            names.iter().zip(items(group)).for_each(|(name, value)| add(name, &tenth.to_string(), value));
        }
    }
    numbers(&report["memory"]).for_each(|(name, value)| add(&Value::Null, &Value::Null, "memory", name, value));
    lines.join("\n") + "\n"
}

const POSITIONS: [&str; 3] = ["acceptance_by_position", "conditional_acceptance_by_position", "reached_by_position"];

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The fields that are numbers.
fn numbers(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value));
    fields.filter(|(_, value)| value.is_number())
}

/// A header, and a line for each run.
fn table(runs: &[impl Serialize]) -> Result<String, serde_json::Error> {
    let mut lines = vec![COLUMNS.join(",")];
    for run in runs {
        let run = serde_json::to_value(run)?;
        lines.push(COLUMNS.map(|column| field(&run[column])).join(","));
    }
    Ok(lines.join("\n") + "\n")
}

fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_number_of_a_method_is_a_line() {
        let row = json!({
            "kind": "code", "ratio": 1.5, "ratio_interval_95": [1.25, 1.75], "slower": null, "worst": ["p", 0.5],
            "round_cost": {"draft": 0.25},
            "summary": {"rounds": 3, "reached_by_position": [0.5, 0.25], "by_part": [{"drafted": 4}],
                "by_nodes": [{"nodes": 4, "rounds": 3, "accepted": [2, 1]}]},
        });
        let control = json!({"curve": [[2, 0.125]], "calibration": {"brier": 0.0625, "reliability": [[7, 0.5, 1.0]]}});
        let method =
            json!({"name": "a, b", "overall": row, "overall_without_cycles": null, "kinds": [], "control": control});
        let text = long(&json!({"configs": [method], "memory": {"peak_rss_bytes": 9}}));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "config,kind,quantity,key,value");
        let expected = [
            "ratio,,1.5",
            "rounds,,3",
            "ratio_interval_95,low,1.25",
            "ratio_interval_95,high,1.75",
            "round_cost,draft,0.25",
            "reached_by_position,1,0.5",
            "reached_by_position,2,0.25",
            "drafted_by_part,0,4",
            "rounds_by_nodes,4,3",
            "rounds_accepting_0_by_nodes,4,2",
            "rounds_accepting_1_by_nodes,4,1",
            "control_pass_s,2,0.125",
            "calibration_brier,,0.0625",
            "reliability_guesses,0,7",
            "reliability_believed,0,0.5",
            "reliability_accepted,0,1.0",
        ];
        for line in expected {
            assert!(lines.contains(&format!("\"a, b\",code,{line}").as_str()), "{line}: {text}");
        }
        assert_eq!(lines.last(), Some(&",,memory,peak_rss_bytes,9"));
        assert_eq!(lines.len(), 2 + expected.len(), "{text}");
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let run =
            json!({"config": "a, b", "prompt": "say \"hi\"\nthen", "kind": "plain", "ratio": null, "cycling": true});
        let table = table(&[run]).unwrap();
        let (head, line) = table.split_once('\n').unwrap();
        assert_eq!(head.split(',').count(), COLUMNS.len());
        assert!(line.starts_with("\"a, b\",\"say \"\"hi\"\"\nthen\",plain,,,,,,true,"), "{line}");
        assert_eq!(line.matches(',').count(), COLUMNS.len(), "one stands within quotes: {line}");
    }
}
