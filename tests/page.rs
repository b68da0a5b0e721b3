//! `foretoken page`, and `bench --html`, which is the same: a page of what was measured, or one line that says why not.

mod program;

use std::path::Path;
use std::process::Output;

fn foretoken(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = program::foretoken();
    command.current_dir(folder).env("OMP_WAIT_POLICY", "passive").args(arguments).output().expect("the program starts")
}

fn error(folder: &Path, arguments: &[&str]) -> String {
    let output = foretoken(folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    text
}

#[test]
fn a_benchmark_and_its_report_make_the_same_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (config, prompts) = (root.join("configs/model.toml"), root.join("benches/prompts/code.jsonl"));
    let mut arguments = vec!["bench", config.to_str().expect("a name"), "--prompts", prompts.to_str().expect("a name")];
    arguments.extend("--prompts-per-kind 1 --repeats 1 -n 8 --set target.threads=1 --json --html a.html".split(' '));
    let bench = foretoken(folder.path(), &arguments);
    assert!(bench.status.success(), "{bench:?}");
    std::fs::write(folder.path().join("report.json"), bench.stdout).expect("it can be written");
    let page = foretoken(folder.path(), &["page", "report.json", "--out", "b.html"]);
    assert!(page.status.success() && page.stdout.is_empty(), "{page:?}");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a page");
    assert!(read("a.html").contains("<h1>target.gguf, greedy</h1>"));
    assert_eq!(read("a.html"), read("b.html"));
    let files = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(files, 3, "nothing temporary is left");
}

#[test]
fn what_is_no_report_is_named_and_no_page_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("other.json"), "{\"text\": \"a run\"}").expect("it can be written");
    let refused = error(folder.path(), &["page", "other.json", "--out", "page.html"]);
    assert!(refused.contains("other.json is no report of a benchmark (missing field"), "{refused}");
    assert!(error(folder.path(), &["page", "none.json", "--out", "page.html"]).contains("cannot read none.json"));
    assert!(!folder.path().join("page.html").exists());
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/runs/2026-11-22-xeon-2c/speed-f16-auto-t0.json");
    let to = |out: &str| error(folder.path(), &["page", report.to_str().expect("a name"), "--out", out]);
    assert!(to(".").contains("`.` is a directory"), "{}", to("."));
    assert!(to("missing/page.html").contains("missing/page.html"), "{}", to("missing/page.html"));
}
