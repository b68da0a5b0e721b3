//! How it was measured: the machine, the models, the conditions, and what the words mean.

use super::figure::number;
use super::input::{Memory, Report};
use super::markup::{element, Element};
use super::speed::count;

/// The machine in a line, for the head of the page.
pub fn machine(report: &Report) -> String {
    let cpu = report.machine["cpu"].as_str().unwrap_or("unnamed processor");
    let threads = report.threads.map_or(String::new(), |n| format!(", {}", count(n, "thread")));
    let system = report.machine["os"].as_str().map_or(String::new(), |os| format!(", {os}"));
    format!("{cpu}{threads}{system}")
}

/// The command as typed.
pub fn command(report: &Report) -> Option<Element> {
    (!report.command.is_empty()).then(|| element("pre").text(report.command.join(" ")))
}

/// A list of everything that another would need to repeat it.
pub fn setting(report: &Report) -> Element {
    let mut list = element("dl");
    for (name, value) in facts(report).into_iter().filter(|(_, value)| !value.is_empty()) {
        list = list.holding([element("dt").text(name), element("dd").text(value)]);
    }
    let (order, drawn) = match report.turns {
        Some(tokens) => {
            (format!("in turns of {} within the text", count(tokens, "token")), "prompts, repeats and turns")
        }
        None => ("one run right after the other".to_owned(), "prompts and their repeats"),
    };
    let ratio = element("p")
        .text("Speed is tokens per second of decoding, prefill excluded, over plain decoding's on the same prompt in the ")
        .text(format!("same repeat, {order}; of a kind of text it is the median over its runs, over all kinds "))
        .text(format!("the geometric mean of those. The interval is a bootstrap over {drawn}."));
    element("section").holding([element("h2").text("How it was measured"), ratio, list])
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let kinds = report.kinds();
    let per_kind = |kind: &&str| format!("{kind} {}", report.prompts.iter().filter(|p| p.kind == **kind).count());
    let overall = || report.methods().iter().filter_map(|m| Some((&m.name, m.overall.as_ref()?)));
    let differing = overall().filter_map(|(name, row)| Some(format!("{name} {}", row.differing.filter(|&n| n > 0)?)));
    let cycling = overall().filter(|(_, row)| row.cycling > 0).map(|(name, row)| format!("{name} {}", row.cycling));
    vec![
        ("Machine", machine(report)),
        ("Instruction sets", report.machine["features"].as_str().map_or(String::new(), features)),
        ("Target and law", report.name()),
        ("Prompts", format!("{}: {}", report.prompts.len(), kinds.iter().map(per_kind).collect::<Vec<_>>().join(", "))),
        ("Tokens after each", report.max_tokens.map_or(String::new(), |n| n.to_string())),
        ("Repeats", report.repeats.map_or(String::new(), |n| n.to_string())),
        ("Greedy texts that leave plain text", differing.collect::<Vec<_>>().join(", ")),
        ("Prompts whose text ends in a cycle", cycling.collect::<Vec<_>>().join(", ")),
        ("Memory, all methods loaded", report.memory.map_or(String::new(), |memory| plainly(&memory))),
        ("Versions", format!("foretoken {}, llama.cpp {}", report.version, report.llama_cpp)),
    ]
}

/// The names of what llama.cpp says is there.
fn features(text: &str) -> String {
    let names = text.split('|').filter_map(|part| part.trim().strip_suffix(" = 1"));
    names.map(|name| name.trim_start_matches("CPU : ")).collect::<Vec<_>>().join(" ")
}

fn plainly(memory: &Memory) -> String {
    let mib = |bytes: f64| number(Some(bytes / 1_048_576.0), 0);
    let (most, own) = (mib(memory.peak_rss_bytes), mib(memory.rss_anon_bytes));
    format!("{most} MiB at most, mapped files included; {own} MiB in the end without them")
}
