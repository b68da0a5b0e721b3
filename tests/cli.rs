//! The program itself: every configuration runs, the output has manners, and every wrong input gets one line that
//! names the culprit and the way out. Cases that are data stand in `tests/cases`.

mod program;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use foretoken::llama::gguf::{GgufFile, GgufWriter};
use serde::Deserialize;
use serde_json::{json, Value};
use tempfile::TempDir;

const PROMPT: &str = "Once upon a time";

#[test]
fn every_configuration_runs_from_anywhere() {
    let elsewhere = tempfile::tempdir().unwrap();
    for config in configs() {
        let name = config.file_name().unwrap().to_str().unwrap();
        let relative = Path::new("configs").join(name);
        for (folder, path) in [(repository(), relative.as_path()), (elsewhere.path(), config.as_path())] {
            let path = path.to_str().unwrap();
            let run = foretoken(folder, &["run", "-c", path, "--set", "target.threads=1", "-p", PROMPT, "-n", "6"]);
            run.succeeds();
            assert!(run.out.len() > 6 && !run.out.contains("tokens/s"), "{name}: {run:?}");
            assert!(run.err.contains("drafter ") && run.err.contains("tokens/s"), "{name}: {run:?}");
            assert!(!run.err.contains(run.out.trim()), "{name}: {run:?}");
        }
    }
}

#[test]
fn greedy_text_is_the_same_whatever_drafts() {
    // An F32 cache and no flash attention, so that near-ties stay where they are.
    let exact = ["--set", "target.kv_type=f32", "--set", "target.flash_attention=false", "-n", "40"];
    let text = |kind: &str| {
        let config = repository().join(format!("configs/{kind}.toml"));
        let mut args = vec!["run", "-c", config.to_str().unwrap(), "--set", "target.threads=1", "-q", "-p", PROMPT];
        args.extend(exact);
        foretoken(repository(), &args).succeeds().out.clone()
    };
    let plain = text("none");
    for kind in ["model", "ngram", "cascade", "merge", "staged", "recycle"] {
        assert_eq!(text(kind), plain, "{kind}");
    }
}

#[test]
fn trees_are_scored_with_every_type_of_cache_and_way_of_loading() {
    let run = |settings: &[&str]| {
        let trees = ["speculation.adaptive=false", "speculation.width=3"].into_iter().chain(settings.iter().copied());
        let args: Vec<&str> = ["-n", "16", "--json"].into_iter().chain(trees.flat_map(|s| ["--set", s])).collect();
        run_with(Path::new("configs/model.toml"), &args)
    };
    let check = |settings: &[&str]| {
        let run = run(settings);
        let object: Value = serde_json::from_str(&run.succeeds().out).unwrap();
        assert_eq!(
            (object["tokens"].as_array().unwrap().len(), object["stop"].as_str()),
            (16, Some("length")),
            "{run:?}"
        );
        assert!(object["stats"]["accepted"].as_u64().unwrap() > 0, "{run:?}");
    };
    let unknown = run(&["target.kv_type=other"]);
    let types: Vec<&str> = unknown.refuses().rsplit_once("take one of ").unwrap().1.split(", ").collect();
    assert_eq!(types.len(), 9, "{types:?}");
    for kv_type in types {
        let kv_type = format!("target.kv_type={kv_type}");
        check(&[&kv_type]);
        check(&[&kv_type, "target.flash_attention=true"]);
        match kv_type.ends_with("f16") || kv_type.ends_with("f32") {
            true => check(&[&kv_type, "target.flash_attention=false"]),
            false => {
                let run = run(&[&kv_type, "target.flash_attention=false"]);
                assert!(run.refuses().contains("a quantised target.kv_type needs target.flash_attention = true"));
            }
        }
    }
    for setting in ["target.mmap=false", "target.mlock=true", "target.repack=false"] {
        check(&[setting]);
    }
}

#[test]
fn json_is_one_object_whose_sums_agree() {
    for (config, n) in [("none", 9), ("model", 30), ("ngram", 30), ("cascade", 30), ("model", 0)] {
        let config = format!("configs/{config}.toml");
        let length = n.to_string();
        let args = ["run", "-c", &config, "--set", "target.threads=1", "-p", PROMPT, "-n", &length, "--json"];
        let run = foretoken(repository(), &args);
        assert_eq!(run.succeeds().notes(), Vec::<&str>::new(), "no statistics on stderr");
        assert_eq!(run.out.lines().count(), 1, "{run:?}");
        let object: Value = serde_json::from_str(&run.out).unwrap();
        let (tokens, stats) = (object["tokens"].as_array().unwrap(), &object["stats"]);
        let count = |key: &str| stats[key].as_u64().unwrap_or_else(|| panic!("{key}: {run:?}")) as usize;
        let number = |key: &str| stats[key].as_f64().unwrap_or(f64::NAN);

        assert_eq!((tokens.len(), object["stop"].as_str()), (n, Some("length")));
        assert_eq!(object["text"].as_str().unwrap().is_empty(), n == 0);
        assert_eq!(count("generated_tokens"), n);
        assert_eq!(count("accepted") + count("rounds"), n, "a round brings what it accepts, and one more");
        assert!(count("prompt_tokens") > 1 && count("plain_rounds") <= count("rounds"));
        assert!(count("accepted") <= count("drafted"));
        let sum =
            |key: &str| stats["by_part"].as_array().unwrap().iter().map(|p| p[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("drafted") as usize, sum("accepted") as usize), (count("drafted"), count("accepted")));
        let names = if config.contains("cascade") { json!(["ngram", "model"]) } else { json!([]) };
        assert_eq!(stats["parts"], names);
        let parts: f64 = ["draft_s", "verify_s", "sampling_s", "cache_s", "other_s"].map(number).iter().sum();
        assert!(number("prefill_s") > 0.0 && (parts - number("decode_s")).abs() < 1e-6, "{run:?}");
        if n > 0 {
            assert!((number("mean_acceptance_length") - n as f64 / count("rounds") as f64).abs() < 1e-9);
            assert!((number("tokens_per_second") - n as f64 / number("decode_s")).abs() < 1e-6);
        }
        if count("drafted") > 0 {
            assert!((number("acceptance_rate") * count("drafted") as f64 - count("accepted") as f64).abs() < 1e-9);
        } else {
            assert!(stats["acceptance_rate"].is_null());
        }
        let positions = stats["acceptance_by_position"].as_array().unwrap();
        assert_eq!(positions.is_empty(), count("drafted") == 0);
        assert!(positions.iter().all(|share| (0.0..=1.0).contains(&share.as_f64().unwrap())), "{run:?}");
        assert!(config.contains(stats["drafter"].as_str().unwrap()));
        assert!(stats["settings"]["max_nodes"].is_u64() && stats["settings"]["temperature"].is_f64());
    }
}

#[test]
fn a_seed_repeats_sampled_text() {
    let text = |seed: &str| {
        let args = ["--temperature", "1", "--seed", seed, "-q", "-n", "24"];
        run_with(Path::new("configs/model.toml"), &args).succeeds().out.clone()
    };
    let first = text("7");
    assert_eq!(text("7"), first);
    assert_ne!(text("8"), first);
}

#[test]
fn the_prompt_comes_from_an_argument_a_file_or_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, PROMPT).unwrap();
    let common = ["run", "-c", "configs/none.toml", "--set", "target.threads=1", "-q", "-n", "8"];
    let with = |more: &[&str], stdin: &str| {
        let args = [&common[..], more].concat();
        foretoken_with(repository(), &args, stdin.as_bytes()).succeeds().out.clone()
    };
    let text = with(&["-p", PROMPT], "");
    assert!(text.len() > 8);
    assert_eq!(with(&["-f", file.to_str().unwrap()], ""), text);
    assert_eq!(with(&["-f", "-"], PROMPT), text);
    assert_eq!(with(&[], PROMPT), text);
}

#[test]
fn the_text_ends_where_it_was_told_to() {
    let config = Path::new("configs/model.toml");
    let whole = run_with(config, &["-n", "40"]).succeeds().out.clone();

    // A word from the middle as the stop string.
    let stop = whole.split_whitespace().nth(6).unwrap();
    let run = run_with(config, &["-n", "40", "--stop", stop]);
    assert!(run.succeeds().err.contains(&format!("stopped at {stop:?}")), "{run:?}");
    assert_eq!(run.out.trim_end_matches('\n'), &whole[..whole.find(stop).unwrap()]);

    let run = run_with(config, &["-n", "0"]);
    assert_eq!(run.succeeds().out, "\n");

    let run = run_with(config, &["-n", "400", "--set", "target.context=40"]);
    assert!(run.succeeds().err.contains("stopped: the context of 40 tokens is full"), "{run:?}");
    let quiet = run_with(config, &["-n", "400", "--set", "target.context=40", "-q"]);
    assert_eq!(quiet.succeeds().notes(), ["stopped: the context of 40 tokens is full"], "and so without statistics");
    assert!(whole.starts_with(run.out.trim_end_matches('\n')) && run.out.len() > whole.len() / 2, "nothing is lost");
    let run = run_with(config, &["-n", "400", "--set", "target.context=40", "--json"]);
    let object: Value = serde_json::from_str(&run.succeeds().out).unwrap();
    let (prompt, text) = (object["stats"]["prompt_tokens"].as_u64().unwrap(), object["tokens"].as_array().unwrap());
    assert_eq!((object["stop"].as_str(), text.len() as u64), (Some("context"), 40 - prompt + 1), "one needs no room");
}

#[test]
fn a_text_goes_on_past_its_end_only_if_told_to() {
    let file = repository().join("benches/prompts/maths.jsonl");
    let prompts = foretoken::prompts::read(&[file]).unwrap();
    let run = |prompt: &str, more: &[&str]| -> Value {
        let usual =
            ["run", "--target", "models/target.gguf", "--drafter", "none", "--set", "target.threads=1", "--json"];
        let run = foretoken(repository(), &[&usual[..], &["-p", prompt], more].concat());
        serde_json::from_str(&run.succeeds().out).unwrap()
    };
    let ends = |prompt: &foretoken::prompts::Prompt| {
        let object = run(&prompt.text, &["-n", "200"]);
        (object["stop"] == "end").then(|| (prompt.text.clone(), object["tokens"].as_array().unwrap().clone()))
    };
    let (prompt, tokens) = prompts.iter().find_map(ends).expect("one of the texts ends within 200 tokens");
    let n = tokens.len() + 5;
    let object = run(&prompt, &["-n", &n.to_string(), "--ignore-end"]);
    let longer = object["tokens"].as_array().unwrap();
    assert_eq!((object["stop"].as_str(), longer.len()), (Some("length"), n));
    let (end, before) = tokens.split_last().expect("it has one token at least");
    assert_eq!(longer[..before.len()], before[..]);
    assert!(!longer.contains(end), "what ends a text is not chosen: {longer:?}");
}

#[test]
fn what_lies_beside_a_target_is_found_through_a_relative_configuration() {
    let output = spawn(repository(), &["run", "-c", "configs/auto.toml", "-n", "4", "-p", "Once"]).wait_with_output();
    let run = Run::of(output.unwrap(), "auto");
    run.succeeds();
    assert!(format!("{run:?}").contains("of these, by who guessed: ngram "), "{run:?}");
    assert!(format!("{run:?}").contains("model draft.gguf, found beside the target"), "{run:?}");
}

#[test]
fn a_draft_model_is_named_from_where_one_is() {
    let models = repository().join("models");
    let named = ["run", "-c", "../configs/auto.toml", "--target", "target.gguf", "--draft", "draft-small.gguf"];
    let run = |more: &[&str]| {
        let output = spawn(&models, &[&named, more].concat()).wait_with_output();
        Run::of(output.unwrap(), "--draft")
    };
    let automatic = run(&["-n", "4", "-p", "Once"]);
    automatic.succeeds();
    assert!(format!("{automatic:?}").contains("n-grams; model draft-small.gguf"), "{automatic:?}");
    let alone = run(&["--drafter", "model", "-n", "4", "-p", "Once"]);
    alone.succeeds();
    assert!(!format!("{alone:?}").contains("n-grams"), "{alone:?}");
}

#[test]
fn the_demo_streams_three_texts_and_explains_each_loss() {
    let mut child = spawn(repository(), &["demo", "-n", "20"]);
    let (mut pipe, mut shown, mut within_a_line) = (child.stdout.take().unwrap(), Vec::new(), false);
    let mut chunk = vec![0; 1 << 16];
    while let Ok(n @ 1..) = pipe.read(&mut chunk) {
        shown.extend_from_slice(&chunk[..n]);
        within_a_line |= !shown.ends_with(b"\n");
    }
    let mut output = child.wait_with_output().unwrap();
    output.stdout = shown;
    let run = Run::of(output, "demo");
    assert!(within_a_line, "the text comes in whole lines: {:?}", run.succeeds());

    let (texts, table) = run.out.split_once("drafter   tokens/s   acceptance rate").expect("a table");
    let texts: Vec<&str> = texts.split("── ").skip(1).collect();
    let mut lines = table.lines().skip(1);
    let mut plain = 0.0;
    for (text, kind) in texts.iter().zip(["none", "model", "ngram"]) {
        let rest = text.strip_prefix(&format!("configs/{kind}.toml\nOnce upon a time, there was a little boat"));
        let words = rest.and_then(|rest| rest.split_once('\n')).expect("a heading and the prompt").1;
        assert!(words.len() > 20 && words.ends_with("\n\n"), "{run:?}");

        let row: Vec<&str> = lines.next().expect("a row for each").split_whitespace().collect();
        let [name, speed, rate, length, ratio] = row[..] else { panic!("five columns: {run:?}") };
        let number = |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("{text:?} in {run:?}"));
        let (speed, length, ratio) = (number(speed), number(length), number(ratio));
        assert!(name == kind && speed > 0.0, "{run:?}");
        if kind == "none" {
            plain = speed;
            assert!((rate, length, ratio) == ("-", 1.0, 1.0), "{run:?}");
        }
        // Both speeds are rounded to whole tokens, the ratio to hundredths.
        let rounding = 0.006 + 0.6 * (1.0 + speed / plain) / (plain - 0.5);
        assert!((speed / plain - ratio).abs() <= rounding, "{kind}: {run:?}");
        assert!(rate == "-" || (0.0..=1.0).contains(&number(rate)) && (1.0..=20.0).contains(&length), "{run:?}");
        let explained = run.out.matches(&format!("\n{kind} lost: a round brought")).count();
        // What is rounded to 1.00 may have been either.
        assert!(ratio == 1.0 && kind != "none" || explained == usize::from(ratio < 1.0), "{kind}: {run:?}");
    }
    assert_eq!(texts.len(), 3, "{run:?}");
    assert!(lines.all(|line| line.contains(" lost: ")), "nothing else follows the three rows: {run:?}");
}

#[test]
fn the_tools_do_their_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let out = |args: &[&str]| foretoken(repository(), args).succeeds().out.clone();
    let list = out(&["list"]);
    assert!(["none", "model", "ngram", "cascade"].iter().all(|kind| list.contains(kind)), "{list}");
    let seen = out(&["inspect", "models/target.gguf"]);
    assert!(seen.contains("architecture   llama") && seen.contains(" draft.gguf ("), "{seen}");
    let check = out(&["check", "models/target.gguf", "models/draft.gguf", "--set", "target.threads=1"]);
    assert!(check.contains("the same 4096 tokens") && check.contains("|Δlogit|"), "{check}");
    let curve = check.split_once("cost of a pass of n tokens, 1 threads:\n").expect("a table of T(n)").1;
    let rows = curve.lines().skip(1).map(|row| row.split_whitespace().map(|x| x.parse().unwrap()).collect());
    let rows: Vec<Vec<f64>> = rows.collect();
    assert_eq!(rows.iter().map(|row| row[0] as usize).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>(), "{check}");
    assert!(rows.iter().all(|row| row.len() == 4 && row[1..].iter().all(|x| *x > 0.0)), "{check}");
    assert!(rows[0][2..] == [1.0, 1.0] && rows[15][1] > rows[0][1], "{check}");

    let wide = folder.path().join("wide.gguf");
    let wide = wide.to_str().unwrap();
    out(&["prepare", "widen", "--target", "models/tiny.gguf", "--out", wide, "--dim", "128", "--ffn", "384"]);
    let text = |target: &str| out(&["run", "--target", target, "--set", "target.threads=1", "-p", PROMPT, "-n", "8"]);
    assert_eq!(text(wide), text("models/tiny.gguf"));
    assert_eq!(names_in(folder.path()), ["wide.gguf"], "and no temporary file is left");
}

#[test]
fn the_log_of_llama_cpp_is_shown_only_when_asked_for() {
    // That it is silent otherwise, every other test asserts.
    let run = spawn(repository(), &["--llama-log", "run", "--target", "models/tiny.gguf", "-p", PROMPT, "-n", "1"]);
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("llama_model_loader"));
}

#[test]
fn wrong_input_gets_one_line_and_leaves_nothing_behind() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cases {
        case: Vec<Case>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        #[serde(default)]
        args: Vec<String>,
        command: Option<Vec<String>>,
        config: Option<String>,
        #[serde(default)]
        stdin: String,
        stderr: Vec<String>,
    }
    let cases: Cases = toml::from_str(include_str!("cases/refused.toml")).unwrap();
    let folder = broken_files();
    let names = names_in(folder.path());
    for case in &cases.case {
        std::fs::write(folder.path().join("config.toml"), case.config.as_deref().unwrap_or(CONFIG)).unwrap();
        let args: Vec<&str> = match &case.command {
            Some(command) => command.iter().map(String::as_str).collect(),
            None => USUAL.into_iter().chain(case.args.iter().map(String::as_str)).collect(),
        };
        let run = foretoken_with(folder.path(), &args, case.stdin.as_bytes());
        let line = run.refuses();
        for part in &case.stderr {
            assert!(line.contains(part.as_str()), "{part:?} is not in the complaint of {run:?}");
        }
        assert_eq!(names_in(folder.path()), names, "{run:?}");
    }
}

#[test]
fn numbers_out_of_range_are_refused_and_those_at_the_edge_are_not() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cases {
        absurd: Vec<String>,
        broken: Vec<String>,
        key: Vec<Key>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Key {
        name: String,
        drafter: Option<String>,
        #[serde(default)]
        whole: bool,
        #[serde(default)]
        refused: Vec<String>,
        accepted: Vec<String>,
    }
    let cases: Cases = toml::from_str(include_str!("cases/numbers.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for key in &cases.key {
        let drafter = match key.drafter.as_deref() {
            None => String::new(),
            Some("model") => format!("\n[drafter]\nkind = 'model'\nmodel = {:?}", bundled("draft.gguf")),
            Some(kind) => format!("\n[drafter]\nkind = '{kind}'"),
        };
        let config = format!("[target]\nmodel = {:?}\nthreads = 1{drafter}", bundled("target.gguf"));
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let run = |value: &str| {
            let setting = format!("{}={value}", key.name);
            foretoken(folder.path(), &["run", "-c", "config.toml", "-q", "-p", "Once", "-n", "2", "--set", &setting])
        };
        let name = key.name.trim_start_matches("drafter.");
        let broken = cases.broken.iter().filter(|_| key.whole);
        for value in cases.absurd.iter().chain(broken).chain(&key.refused) {
            let run = run(value);
            assert!(run.refuses().contains(name), "{run:?}");
        }
        for value in &key.accepted {
            assert!(!run(value).succeeds().out.is_empty());
        }
    }
}

#[test]
fn files_with_odd_tokens_still_run() {
    let folder = broken_files();
    let run = foretoken(folder.path(), &["run", "--target", "odd-tokens.gguf", "-p", "Once", "-n", "12"]);
    run.succeeds();
    let run = foretoken(folder.path(), &["inspect", "odd-tokens.gguf"]);
    assert!(run.succeeds().out.contains("tokens, llama"), "{run:?}");
}

#[test]
fn a_context_that_memory_cannot_hold_is_refused() {
    // 103 GB of cache for the bundled target.
    if foretoken::llama::memory::available().is_none_or(|bytes| bytes > 100_000_000_000) || GPU {
        return;
    }
    let run = run_with(
        Path::new("configs/none.toml"),
        &["--set", "target.context=16777216", "--set", "target.kv_type=f32", "-n", "1"],
    );
    assert!(run.refuses().contains("the key-value cache of 16777216 tokens takes 103.1 GB but only"), "{run:?}");
    assert!(run.err.starts_with("warning: this takes about 103.1 GB"), "and was warned of before loading: {run:?}");
}

#[test]
fn gpu_layers_without_a_gpu_backend_are_said_to_be_ignored() {
    if GPU {
        return;
    }
    let run = run_with(Path::new("configs/none.toml"), &["--set", "target.gpu_layers=9", "-n", "2"]);
    assert!(run.succeeds().err.contains("gpu_layers is ignored: this build has no GPU backend"), "{run:?}");
    let run = foretoken(repository(), &["check", "models/tiny.gguf", "--set", "target.gpu_layers=9"]);
    assert!(run.succeeds().err.contains("gpu_layers is ignored: this build has no GPU backend"), "{run:?}");
}

#[test]
fn the_cpu_rearranges_weights_however_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("q4_0.gguf");
    let small = small.to_str().unwrap();
    foretoken(repository(), &["prepare", "quantized", "--target", "models/target.gguf", "--out", small]).succeeds();
    let buffers = |setting: &str| {
        let args =
            ["--llama-log", "run", "--target", small, "--drafter", "none", "-p", PROMPT, "-n", "1", "--set", setting];
        let output = spawn(repository(), &args).wait_with_output().unwrap();
        assert!(output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        let lines = log.lines().filter(|line| line.contains("model buffer size"));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    let usual = buffers("target.gpu_layers=0");
    assert!(!usual.is_empty());
    assert_eq!(buffers("target.device=CPU"), usual);
}

#[test]
fn only_a_wish_for_a_gpu_is_said_to_be_ignored() {
    if GPU {
        return;
    }
    let notes = |settings: &[&str]| run_with(Path::new("configs/model.toml"), settings).err;
    assert!(!notes(&["--set", "drafter.gpu_layers=0", "-n", "2"]).contains("is ignored"));
    assert!(notes(&["--set", "drafter.gpu_layers=9", "-n", "2"]).contains("is ignored"));
    let named = notes(&["--set", "drafter.model=gpu_layers/draft.gguf", "-n", "2"]);
    assert!(named.contains("does not exist") && !named.contains("is ignored"), "{named}");
}

#[test]
#[cfg(unix)]
fn a_pipe_is_not_replaced_by_a_file() {
    use std::os::unix::fs::FileTypeExt;
    let folder = broken_files();
    let pipe = folder.path().join("pipe");
    std::fs::write(folder.path().join("prompt.txt"), PROMPT).unwrap();
    if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        return;
    }
    for args in [
        "prepare ngram --target tiny.gguf --text long.txt --out pipe",
        "prepare quantized --target draft.gguf --out pipe",
        "prepare early-exit --target draft.gguf --layers 1 --out pipe",
        "prepare widen --target tiny.gguf --dim 128 --ffn 384 --out pipe",
        "prepare widen --target heads.gguf --dim 512 --out pipe",
        "prepare medusa --target tiny.gguf --text long.txt --out pipe",
        "bench config.toml --prompts prompt.txt -n 1 --csv pipe",
        "bench config.toml --prompts prompt.txt -n 1 --html pipe",
        "bench config.toml --prompts prompt.txt -n 1 --raw pipe",
    ] {
        let run = foretoken(folder.path(), &args.split(' ').collect::<Vec<_>>());
        assert!(run.refuses().contains("cannot write `pipe`: it is a device, a pipe or a socket"), "{run:?}");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo(), "{run:?}");
    }
}

#[test]
fn heads_are_inspected_as_what_they_are() {
    let seen = foretoken(repository(), &["inspect", "models/heads.gguf"]).succeeds().out.clone();
    assert!(seen.contains("Medusa heads: no model") && seen.contains("width          256"), "{seen}");
    assert!(seen.contains("medusa     with heads = \"models/heads.gguf\"") && !seen.contains("ngram"), "{seen}");
}

#[test]
fn a_split_model_is_known_by_its_first_shard() {
    let folder = tempfile::tempdir().unwrap();
    let whole = GgufFile::open(&bundled("target.gguf")).unwrap();
    let name = |no: u16| format!("split-{:05}-of-00003.gguf", no + 1);
    let all = whole.tensors();
    for no in 0..3 {
        let mut writer = GgufWriter::new();
        writer.copy(&whole, |_| no == 0);
        writer.set("split.no", no);
        writer.set("split.count", 3u16);
        writer.set("split.tensors.count", i32::try_from(all.len()).unwrap());
        all.iter().skip(no.into()).step_by(3).for_each(|t| writer.tensor(&t.name, t.kind, &t.shape));
        let mut fill = |tensor: &foretoken::gguf::Tensor, out: &mut dyn Write| {
            out.write_all(whole.data(whole.tensor(&tensor.name).unwrap()).unwrap())
        };
        writer.write(&folder.path().join(name(no)), &mut fill).unwrap();
    }
    let (first, second) = (name(0), name(1));
    let program = |args: &[&str]| foretoken(folder.path(), args);
    let line = |out: &str, of: &str| out.lines().find(|line| line.starts_with(of)).map(str::to_owned);

    let seen = program(&["inspect", &first]).succeeds().out.clone();
    let of_whole = foretoken(repository(), &["inspect", "models/target.gguf"]).succeeds().out.clone();
    assert!(seen.contains(" MB, GGUF version 3, shard 1 of 3, all of which are counted\n"), "{seen}");
    for of in ["parameters", "quantisation", "layers", "vocabulary"] {
        assert_eq!(line(&seen, of), line(&of_whole, of), "{seen}");
    }
    let split = GgufFile::open(&folder.path().join(&first)).unwrap();
    assert!(split.file_size() > whole.file_size() && split.file_size() < whole.file_size() + 100_000);

    let text = |target: &str| {
        let args = ["run", "--target", target, "--drafter", "none", "-q", "-p", PROMPT, "-n", "8"];
        program(&args).succeeds().out.clone()
    };
    assert_eq!(text(&first), text(bundled("target.gguf").to_str().unwrap()));
    let small = ["prepare", "quantized", "--target", &first, "--out", "small.gguf"];
    program(&small).succeeds();
    assert_eq!(GgufFile::open(&folder.path().join("small.gguf")).unwrap().parameters(), whole.parameters());

    let onto = program(&["prepare", "quantized", "--target", &first, "--out", &second]);
    assert!(onto.refuses().contains("would be overwritten by its own copy"), "{onto:?}");

    let later = program(&["inspect", &second]);
    assert!(later.refuses().ends_with(&format!("is shard 2 of 3 of a model; name the first, `{first}`")), "{later:?}");
    std::fs::rename(folder.path().join(name(2)), folder.path().join("kept")).unwrap();
    let missing = program(&["inspect", &first]);
    assert!(missing.refuses().contains(&format!("`{}` is missing: `{first}` is split", name(2))), "{missing:?}");
    std::fs::copy(folder.path().join(&second), folder.path().join(name(2))).unwrap();
    let foreign = program(&["inspect", &first]);
    assert!(foreign.refuses().contains(&format!("`{}` is not shard 3 of `{first}`", name(2))), "{foreign:?}");
    std::fs::rename(folder.path().join(&first), folder.path().join("renamed.gguf")).unwrap();
    let renamed = program(&["inspect", "renamed.gguf"]);
    assert!(renamed.refuses().contains("must end in `-00001-of-00003.gguf`"), "{renamed:?}");
}

#[test]
fn a_closed_stdout_ends_it_silently() {
    let mut child = spawn(repository(), &["run", "-c", "configs/none.toml", "--set", "target.threads=1", "-p", PROMPT]);
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    drop(out);
    let run = Run::of(child.wait_with_output().unwrap(), "closed stdout");
    assert_eq!(run.succeeds().notes().len(), 1, "the drafter, and nothing after it: {run:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_a_failure_in_one_line() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for args in [
        &["run", "-c", "configs/none.toml", "-p", PROMPT, "-n", "3", "-q"][..],
        &["run", "-c", "configs/none.toml", "-p", PROMPT, "-n", "3", "--json"],
        &["list"],
        &["inspect", "models/tiny.gguf"],
    ] {
        let mut command = command(repository(), args);
        let output = command.stdin(Stdio::null()).stdout(full.try_clone().unwrap()).output().unwrap();
        let run = Run::of(output, args);
        assert_eq!(run.code, Some(2), "{run:?}");
        let notes = run.notes();
        assert!(notes.len() == 1 && notes[0].starts_with("error: cannot write the output"), "{run:?}");
    }
}

#[test]
#[cfg(unix)]
fn an_interrupt_keeps_the_text_so_far_and_its_statistics() {
    let args = ["run", "-c", "configs/model.toml", "--set", "target.threads=1", "-p", PROMPT, "-n", "900"];
    // These tests may run under nohup themselves.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let hears_hangup = ignored.is_some_and(|signals| signals & 1 == 0);
    for signal in ["-INT", "-TERM"].into_iter().chain(hears_hangup.then_some("-HUP")) {
        let mut child = spawn(repository(), &args);
        let mut out = child.stdout.take().unwrap();
        let mut text = vec![0; 1];
        out.read_exact(&mut text).unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        out.read_to_end(&mut text).unwrap();
        let run = Run::of(child.wait_with_output().unwrap(), signal);
        let err = &run.succeeds().err;
        assert!(err.contains("stopped: interrupted") && err.contains("tokens/s"), "{run:?}");
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with('\n') && text.len() > 1 && text.len() < 2000, "{text}");
    }
}

#[test]
#[cfg(unix)]
fn an_interrupted_demo_shows_its_table_so_far() {
    let mut child = spawn(repository(), &["demo", "-n", "400"]);
    let (mut out, mut text) = (child.stdout.take().unwrap(), Vec::new());
    // Within the second of three texts.
    while !String::from_utf8_lossy(&text).contains("configs/model.toml\n") {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        text.extend(byte);
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    out.read_to_end(&mut text).unwrap();
    let run = Run::of(child.wait_with_output().unwrap(), "demo");
    assert_eq!(run.succeeds().notes(), ["stopped: interrupted"]);
    let text = String::from_utf8(text).unwrap();
    let table = text.split_once("drafter   tokens/s   acceptance rate").expect("a table").1;
    assert!(table.contains("\nnone ") && !table.contains("\nngram "), "{text}");
}

#[test]
#[cfg(unix)]
fn what_nohup_protects_goes_on() {
    let args = ["run", "-c", "configs/none.toml", "--set", "target.threads=1", "-p", PROMPT, "-n", "200"];
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_foretoken")]).args(args);
    command.current_dir(repository()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap(), "hung up");
    assert!(!run.succeeds().err.contains("interrupted"), "{run:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_model_file_that_shrinks_while_in_use_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target.gguf");
    std::fs::copy(bundled("target.gguf"), &path).unwrap();
    let target = path.to_str().unwrap();
    let args = ["run", "--target", target, "--set", "target.threads=1", "--set", "target.repack=false", "-q"];
    let mut child = spawn(repository(), &[&args[..], &["-p", PROMPT, "-n", "900"]].concat());
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    out.read_to_end(&mut Vec::new()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap(), "a shrunk file");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert_eq!(run.notes().len(), 1);
    assert!(run.err.contains("a mapped file became shorter while it was in use"), "{run:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn notes_that_cannot_be_written_change_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (config, code) in [("configs/none.toml", 0), ("absent.toml", 1)] {
        let mut command = command(repository(), &["run", "-c", config, "-p", PROMPT, "-n", "3"]);
        let output = command.stdin(Stdio::null()).stderr(full.try_clone().unwrap()).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(code), code != 0));
    }
}

/// What a run of the program left.
#[derive(Debug)]
struct Run {
    #[allow(dead_code)] // shown when a test fails
    args: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    /// No run ever panics, aborts, or lets llama.cpp's log through.
    fn of(output: Output, args: impl std::fmt::Debug) -> Run {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        let (out, err) = (text(output.stdout), text(output.stderr));
        let run = Run { args: format!("{args:?}"), code: output.status.code(), out, err };
        let ugly =
            ["panicked at", "fatal runtime error", "RUST_BACKTRACE", "llama.cpp stopped", "ggml_", "GGML_ASSERT"];
        let log = |line: &str| ["llama_", "load_", "print_info", "graph_"].iter().any(|start| line.starts_with(start));
        assert!(!ugly.iter().any(|word| run.err.contains(word)) && !run.err.lines().any(log), "{run:?}");
        assert!(matches!(run.code, Some(0..=2)), "{run:?}");
        run
    }

    fn succeeds(&self) -> &Run {
        assert!(self.code == Some(0) && !self.err.contains("error:"), "{self:?}");
        self
    }

    /// Exit code 1, nothing on stdout, and the one line that says why.
    fn refuses(&self) -> &str {
        let lines: Vec<&str> = self.notes().into_iter().filter(|line| !line.starts_with("drafter ")).collect();
        assert!(self.code == Some(1) && lines.len() == 1 && lines[0].starts_with("error: "), "{self:?}");
        assert!(!lines[0].ends_with('.'), "{self:?}");
        lines[0]
    }

    /// The lines of stderr that are no warnings (those depend on the machine).
    fn notes(&self) -> Vec<&str> {
        self.err.lines().filter(|line| !line.starts_with("warning: ") && !line.is_empty()).collect()
    }
}

fn foretoken(folder: &Path, args: &[&str]) -> Run {
    foretoken_with(folder, args, b"")
}

fn foretoken_with(folder: &Path, args: &[&str], stdin: &[u8]) -> Run {
    let mut child = command(folder, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    Run::of(child.wait_with_output().unwrap(), args)
}

/// A configuration of the repository with one thread and the usual prompt.
fn run_with(config: &Path, args: &[&str]) -> Run {
    let usual = ["run", "-c", config.to_str().unwrap(), "--set", "target.threads=1", "-p", PROMPT];
    foretoken(repository(), &[&usual[..], args].concat())
}

fn spawn(folder: &Path, args: &[&str]) -> Child {
    let pipes = |c: &mut Command| c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    pipes(&mut command(folder, args)).expect("the program starts")
}

fn command<S: AsRef<OsStr>>(folder: &Path, args: &[S]) -> Command {
    let mut command = program::foretoken();
    command.current_dir(folder).args(args).env_remove("RUST_BACKTRACE");
    command
}

/// llama.cpp has Metal on macOS unless it is told otherwise.
const GPU: bool = cfg!(any(feature = "cuda", feature = "metal", feature = "vulkan", target_os = "macos"));
const CONFIG: &str = "[target]\nmodel = 'target.gguf'\nthreads = 1\n";
const USUAL: [&str; 7] = ["run", "-c", "config.toml", "-p", "Once", "-n", "2"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bundled(name: &str) -> PathBuf {
    repository().join("models").join(name)
}

fn configs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(repository().join("configs")).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(found.len() >= 4);
    found
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The bundled models, and files that are not quite models.
fn broken_files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["target.gguf", "draft.gguf", "tiny.gguf", "heads.gguf"] {
        std::fs::copy(bundled(name), at(name)).unwrap();
    }
    std::fs::write(at("config.toml"), CONFIG).unwrap();
    std::fs::create_dir(at("folder.gguf")).unwrap();
    std::fs::write(at("empty.gguf"), "").unwrap();
    std::fs::write(at("text.gguf"), "a line of text\n").unwrap();
    std::fs::write(at("zip.gguf"), b"PK\x03\x04\x14\0\0\0\x08\0and so on").unwrap();
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    std::fs::write(at("cut.safetensors"), &safetensors[..safetensors.len() - 1]).unwrap();
    std::fs::write(at("safetensors.gguf"), safetensors).unwrap();
    std::fs::write(at("not-utf8.txt"), b"abc\xff").unwrap();
    std::fs::write(at("long.txt"), "There was a cat. ".repeat(600)).unwrap();
    let tiny = std::fs::read(bundled("tiny.gguf")).unwrap();
    for (name, length) in [("4", 4), ("1000", 1000), ("100000", 100_000), ("900000", 900_000), ("last", tiny.len() - 1)]
    {
        std::fs::write(at(&format!("cut-{name}.gguf")), &tiny[..length]).unwrap();
    }

    rewrite(&at("without-tensors.gguf"), false, |_| {});
    rewrite(&at("strange-architecture.gguf"), true, |w| w.set("general.architecture", "strange"));
    rewrite(&at("without-layers.gguf"), true, |w| w.set("llama.block_count", 0u32));
    rewrite(&at("embedding.gguf"), true, |w| w.set("llama.attention.causal", false));
    let tokens = |change: &dyn Fn(usize, &mut Vec<u8>)| {
        let file = GgufFile::open(&bundled("tiny.gguf")).unwrap();
        let texts = file.texts("tokenizer.ggml.tokens").unwrap().into_iter().map(<[u8]>::to_vec).enumerate();
        texts.map(|(i, mut text)| (change(i, &mut text), text).1).collect::<Vec<Vec<u8>>>()
    };
    let set_tokens = |w: &mut GgufWriter, tokens: Vec<Vec<u8>>| {
        let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
        w.set("tokenizer.ggml.tokens", &tokens[..]);
    };
    let twice = tokens(&|i, text| {
        if i == 300 || i == 301 {
            *text = b"same".to_vec();
        }
    });
    rewrite(&at("token-twice.gguf"), true, |w| set_tokens(w, twice.clone()));
    // Empty, not UTF-8, with a zero byte, very long: every eighth token.
    let odd = tokens(&|i, text| match i {
        i if i < 300 || i % 8 > 0 => {}
        i if i % 32 == 0 => text.clear(),
        i if i % 32 == 8 => *text = [&b"\xff\xfe"[..], i.to_string().as_bytes()].concat(),
        i if i % 32 == 16 => *text = format!("{i}\0{i}").into_bytes(),
        i => *text = i.to_string().repeat(500).into_bytes(),
    });
    rewrite(&at("odd-tokens.gguf"), true, |w| set_tokens(w, odd.clone()));
    folder
}

/// A copy of the tiny model with other keys, or without its tensors.
fn rewrite(path: &Path, tensors: bool, change: impl Fn(&mut GgufWriter)) {
    let file = GgufFile::open(&bundled("tiny.gguf")).unwrap();
    let mut writer = GgufWriter::new();
    writer.copy(&file, |_| true);
    file.tensors().iter().filter(|_| tensors).for_each(|t| writer.tensor(&t.name, t.kind, &t.shape));
    change(&mut writer);
    writer
        .write(path, |tensor, out| {
            let old = file.tensor(&tensor.name).expect("a tensor of the model");
            out.write_all(file.data(old).expect("its bytes"))
        })
        .unwrap();
}
