//! Every run as a line of a CSV file (RFC 4180, lines end in a line feed): for spreadsheets and plots.
//!
//! Columns have the names and units of the JSON report. What was not measured is an empty field; lists are left out.

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
