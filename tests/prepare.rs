//! The commands that make what drafters use, as a user meets them: tables, heads, and a tuned configuration.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretoken"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("FORETOKEN_CACHE", folder.join("cache"));
    command.stdin(Stdio::null()).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", errors(&output));
    output
}

/// Accepted tokens of a run.
fn accepted(folder: &Path, settings: &[&str]) -> (String, u64) {
    let common = ["run", "--target", "models/target.gguf", "--set", "target.threads=1", "-n", "40", "--json"];
    let fixed = ["--set", "speculation.adaptive=false", "-p", "One day, a little girl"];
    let output = succeeds(run(folder, &[&common[..], &fixed, settings].concat()));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (object["text"].as_str().unwrap().to_owned(), object["stats"]["accepted"].as_u64().unwrap())
}

#[test]
fn a_table_of_what_the_model_says_is_guessed_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (said, without) = accepted(folder.path(), &["--drafter", "ngram"]);
    std::fs::write(path("text.txt"), format!("One day, a little girl{said}\n<|endoftext|>\nAnother text.")).unwrap();
    let table = path("table");
    let prepare = ["prepare", "ngram", "--target", "models/target.gguf", "--text", &path("text.txt"), "--out", &table];
    succeeds(run(folder.path(), &prepare));
    let setting = format!("drafter.table={table}");
    let (same, with) = accepted(folder.path(), &["--drafter", "ngram", "--set", &setting]);
    assert_eq!(same, said);
    assert!(with > without + 10, "{with} accepted with the table, {without} without");

    let refused = ["run", "--target", "models/tiny.gguf", "--drafter", "ngram", "--set", &setting, "-p", "a"];
    let output = run(folder.path(), &refused);
    assert!(output.status.code() == Some(1) && errors(&output).contains("tokeniz"), "{}", errors(&output));
    std::fs::write(path("cut"), &std::fs::read(&table).unwrap()[..200]).unwrap();
    let setting = format!("drafter.table={}", path("cut"));
    let cut = ["run", "--target", "models/target.gguf", "--drafter", "ngram", "--set", &setting, "-p", "a"];
    assert_eq!(run(folder.path(), &cut).status.code(), Some(1));
}

#[cfg(unix)]
#[test]
fn a_table_that_is_ended_early_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (folder.path().join("text.txt"), folder.path().join("table"));
    std::fs::write(&text, "One day, a little girl went to the park.\n<|endoftext|>\n".repeat(100_000)).unwrap();
    let (text, out) = (text.to_str().unwrap(), out.to_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretoken"));
    command.args(["prepare", "ngram", "--target", "models/target.gguf", "--text", text, "--out", out]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stderr(Stdio::piped());
    let count = || std::fs::read_dir(folder.path()).unwrap().count();
    let mut child = command.spawn().unwrap();
    while count() == 1 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && errors(&output).contains("cancelled"), "{}", errors(&output));
    assert_eq!(count(), 1, "the text");
}

#[test]
fn heads_are_trained_on_the_target_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let story = "One day, a little girl named Lily went to the park. She saw a big red ball. She was happy.\n";
    std::fs::write(path("text.txt"), format!("{}<|endoftext|>\n", story.repeat(4)).repeat(12)).unwrap();
    let heads = path("heads.gguf");
    let train = ["prepare", "medusa", "--target", "models/target.gguf", "--text", &path("text.txt"), "--out", &heads];
    let few = ["--heads", "2", "--epochs", "1", "--threads", "1"];
    let output = succeeds(run(folder.path(), &[&train[..], &few].concat()));
    assert!(errors(&output).contains("top-1") && errors(&output).contains("head 1"), "{}", errors(&output));
    let setting = format!("drafter.heads={heads}");
    let plain = accepted(folder.path(), &["--drafter", "none"]).0;
    assert_eq!(accepted(folder.path(), &["--drafter", "medusa", "--set", &setting]).0, plain);

    let (bundled, n) = accepted(folder.path(), &["-c", "configs/medusa.toml"]);
    assert!(bundled == plain && n > 5, "{n} accepted with the bundled heads");
    for (target, file, reason) in [
        ("models/tiny.gguf", heads.as_str(), "hidden states of width 256"),
        ("models/target.gguf", "models/draft.gguf", "no Medusa heads"),
        ("models/target.gguf", "models/none.gguf", "does not exist"),
    ] {
        let setting = format!("drafter.heads={}", std::path::absolute(Path::new(file)).unwrap().display());
        let output =
            run(folder.path(), &["run", "--target", target, "--drafter", "medusa", "--set", &setting, "-p", "a"]);
        assert!(output.status.code() == Some(1) && errors(&output).contains(reason), "{}", errors(&output));
    }
}

#[test]
fn tune_writes_a_configuration_with_its_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tuned = path("tuned.toml");
    let tune =
        ["tune", "--target", "models/target.gguf", "--prompts", "benches/prompts/records.jsonl", "--out", &tuned];
    let output = succeeds(run(folder.path(), &[&tune[..], &["-n", "12", "--prompts-per-kind", "1"]].concat()));
    let said = errors(&output);
    assert!(said.contains("T(n) with"), "{said}");
    // What was measured is kept where a run that is told these threads, and one that is told none, begins.
    let kept: Vec<(String, serde_json::Value)> = std::fs::read_dir(folder.path().join("cache/learnt"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|file| (file.display().to_string(), serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()))
        .collect();
    let all = std::thread::available_parallelism().unwrap().get() as u64;
    let on = kept[0].1["on"].as_u64().unwrap();
    assert!(said.contains(&format!("T(n) with {on} threads")) && kept[0].1["threads"] == on, "{kept:?}");
    assert!(
        kept.len() == if on == all { 1 } else { 2 } && kept.iter().all(|(_, curve)| *curve == kept[0].1),
        "{kept:?}"
    );
    for told in [on, all] {
        assert!(kept.iter().any(|(name, _)| name.contains(&format!("-{told}-threads-"))), "{kept:?}");
    }
    let text = std::fs::read_to_string(&tuned).unwrap();
    for said in ["# T(n)", "#   ngram: ", "#   model-draft: ", "#   auto-draft: ", "#   medusa-heads: ", "kind = "] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // A draft model of the same name elsewhere is another candidate, one that is named and found is one.
    let (twin, again) = (path("draft.gguf"), path("again.toml"));
    std::fs::copy("models/draft-small.gguf", &twin).unwrap();
    let tune =
        ["tune", "--target", "models/target.gguf", "--prompts", "benches/prompts/records.jsonl", "--out", &again];
    let both = ["--draft", "models/draft.gguf", "--draft", &twin, "-n", "8", "--prompts-per-kind", "1"];
    succeeds(run(folder.path(), &[&tune[..], &both].concat()));
    let said = std::fs::read_to_string(&again).unwrap();
    let count = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!(
        (count("#   model-draft: "), count("#   model-draft-2: "), count("#   model-draft-small: ")),
        (1, 1, 1),
        "{said}"
    );
    let output = succeeds(run(folder.path(), &["run", "-c", &tuned, "-p", "Fields: id", "-n", "8", "-v"]));
    assert!(!output.stdout.is_empty() && errors(&output).contains("drafter "), "{}", errors(&output));
    assert!(run(folder.path(), &["tune", "--target", "models/target.gguf"]).status.code() == Some(1), "no prompts");
    let foreign = run(folder.path(), &[&tune[..], &["--draft", "models/tiny.gguf"]].concat());
    let said = errors(&foreign);
    assert!(foreign.status.code() == Some(1) && !said.contains("T(n)"), "before anything is measured: {said}");
    assert!(said.contains("models/tiny.gguf has another vocabulary than models/target.gguf"), "{said}");
}

#[test]
fn without_a_configuration_whatever_there_is_drafts() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["run", "--target", "models/target.gguf", "-p", "Once upon a time", "-n", "24", "-v"];
    let output = succeeds(run(folder.path(), &arguments));
    let notes = errors(&output);
    assert!(notes.contains("drafter auto") && notes.contains("model draft.gguf, found beside the target"), "{notes}");
    assert!(notes.lines().any(|line| line.starts_with("round: ")), "{notes}");
    let learnt = || std::fs::read_dir(folder.path().join("cache/learnt")).unwrap().count();
    assert_eq!(learnt(), 2, "what was learnt of the machine and of the drafter is kept");
    succeeds(run(folder.path(), &arguments));
    assert_eq!(learnt(), 2, "in the same files the next time");
    let history = format!("drafter.history={:?}", folder.path().join("history"));
    for _ in 0..2 {
        succeeds(run(folder.path(), &[&arguments[..], &["--drafter", "ngram", "--set", &history]].concat()));
        assert_eq!(learnt(), 3, "a history that has grown is the same drafter's");
    }
    std::fs::create_dir(folder.path().join("alone")).unwrap();
    let alone = folder.path().join("alone/target.gguf");
    std::fs::copy("models/target.gguf", &alone).unwrap();
    let arguments = ["run", "--target", alone.to_str().unwrap(), "-p", "Once upon a time", "-n", "4"];
    let notes = errors(&succeeds(run(folder.path(), &arguments)));
    assert!(notes.contains("no draft model or heads beside the target"), "{notes}");
    // A table beside it takes part; one for other tokens does not.
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "Once upon a time there was a kite.\n".repeat(20)).unwrap();
    for (name, tokenizer) in [("own.ngram", "models/target.gguf"), ("foreign.ngram", "models/tiny.gguf")] {
        let out = folder.path().join("alone").join(name);
        let (text, out) = (text.to_str().unwrap(), out.to_str().unwrap());
        succeeds(run(folder.path(), &["prepare", "ngram", "--target", tokenizer, "--text", text, "--out", out]));
    }
    let notes = errors(&succeeds(run(folder.path(), &arguments)));
    assert!(notes.contains("n-grams; table own.ngram, found beside the target;"), "{notes}");
    assert!(notes.contains("foreign.ngram is left out: ") && notes.contains("another tokenizer"), "{notes}");
    let output = succeeds(run(folder.path(), &["inspect", alone.to_str().unwrap()]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("with table foreign.ngram or own.ngram"));
}
