//! What a program says of one text, read from its output: tokens, seconds of decoding, the text itself.
//!
//! A reading is pure: it starts nothing. Where a number is missing it says which. Two things differ between the
//! programs and are made alike here: llama-lookup and llama-server take the first token from the prompt's pass, so the
//! time that they report is for one token less than they print.

use serde_json::Value;

/// One text as its program reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub generated: usize,
    /// Tokens that `seconds` were spent on.
    pub timed: usize,
    /// Seconds of decoding, without loading and without the prompt.
    pub seconds: f64,
    /// What was generated.
    pub text: String,
    /// The same as tokens, from programs that tell.
    pub tokens: Option<Vec<u32>>,
    /// Bytes of text up to and with each token, where they were asked for.
    pub ends: Vec<usize>,
}

impl Reading {
    /// Decoding speed in tokens per second.
    pub fn speed(&self) -> f64 {
        self.timed as f64 / self.seconds
    }
}

/// `foretoken run --json`.
pub fn of_foretoken(stdout: &str) -> Result<Reading, String> {
    let report: Value = serde_json::from_str(stdout).map_err(|e| format!("it printed no JSON ({e})"))?;
    let generated = count(&report, "/stats/generated_tokens")?;
    checked(Reading {
        prompt_tokens: count(&report, "/stats/prompt_tokens")?,
        generated,
        timed: generated,
        seconds: number(&report, "/stats/decode_s")?,
        text: text(&report, "/text")?,
        tokens: Some(tokens(&report)?),
        ends: Vec::new(),
    })
}

/// llama-server's answer to a completion.
pub fn of_server(body: &str) -> Result<Reading, String> {
    let report: Value = serde_json::from_str(body).map_err(|e| format!("the server's answer is no JSON ({e})"))?;
    let generated = count(&report, "/timings/predicted_n")?;
    checked(Reading {
        prompt_tokens: count(&report, "/timings/prompt_n")?,
        generated,
        timed: generated.saturating_sub(1),
        seconds: number(&report, "/timings/predicted_ms")? / 1000.0,
        text: text(&report, "/content")?,
        tokens: Some(tokens(&report)?),
        ends: Vec::new(),
    })
}

/// llama-speculative-simple.
pub fn of_simple(stdout: &str, log: &str, prompt: &str) -> Result<Reading, String> {
    of_tool(stdout, log, prompt, 0)
}

/// llama-lookup.
pub fn of_lookup(stdout: &str, log: &str, prompt: &str) -> Result<Reading, String> {
    of_tool(stdout, log, prompt, 1)
}

/// `free` tokens come with the prompt's pass.
fn of_tool(stdout: &str, log: &str, prompt: &str, free: usize) -> Result<Reading, String> {
    let (prompt_tokens, _) = reported(log, "encoded")?;
    let (generated, speed) = reported(log, "decoded")?;
    let after = stdout.find(prompt).map(|at| &stdout[at + prompt.len()..]);
    let text = after.ok_or("the prompt is not in what it printed")?;
    checked(Reading {
        prompt_tokens,
        generated,
        timed: generated.saturating_sub(free),
        seconds: generated as f64 / speed, // printed to more digits than the seconds
        text: text.strip_suffix("\n\n\n\n").or(text.strip_suffix("\n\n")).unwrap_or(text).to_owned(),
        tokens: None,
        ends: Vec::new(),
    })
}

/// Tokens and tokens/s of the line `WORD N tokens in S seconds, speed: X t/s`.
fn reported(log: &str, word: &str) -> Result<(usize, f64), String> {
    let after = |line: &str, word: &str| line.split_once(word)?.1.split_whitespace().next().map(str::to_owned);
    let numbers = |line: &str| {
        let (count, speed) = (after(line, word)?.parse().ok()?, after(line, "speed:")?.parse().ok()?);
        Some((count, speed))
    };
    log.lines().rev().find_map(numbers).ok_or(format!("it does not say how many tokens it {word}, and how fast"))
}

/// A speed that is no number would spoil every ratio.
fn checked(reading: Reading) -> Result<Reading, String> {
    match reading.timed > 0 && reading.seconds > 0.0 && reading.speed().is_finite() {
        true => Ok(reading),
        false => Err(format!("{} tokens in {} seconds are no speed", reading.timed, reading.seconds)),
    }
}

fn number(report: &Value, path: &str) -> Result<f64, String> {
    report.pointer(path).and_then(Value::as_f64).ok_or(format!("its report has no number {path}"))
}

fn count(report: &Value, path: &str) -> Result<usize, String> {
    let count = report.pointer(path).and_then(Value::as_u64);
    count.map(|n| n as usize).ok_or(format!("its report has no count {path}"))
}

fn text(report: &Value, path: &str) -> Result<String, String> {
    report.pointer(path).and_then(Value::as_str).map(str::to_owned).ok_or(format!("its report has no text {path}"))
}

fn tokens(report: &Value) -> Result<Vec<u32>, String> {
    let tokens = report["tokens"].as_array().and_then(|tokens| {
        tokens.iter().map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok())).collect()
    });
    tokens.ok_or("its report has no list /tokens".to_owned())
}

/// The last lines of a log, for an error.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
