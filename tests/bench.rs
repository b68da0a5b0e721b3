//! Level 5: `foretoken bench` on the bundled models. What it counts must add up; times are not tested.

mod program;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = program::foretoken();
    command.current_dir(root()).env("OMP_WAIT_POLICY", "passive");
    command.arg("bench").args(arguments).args(["--set", "target.threads=1"]);
    command
}

fn bench(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program starts")
}

fn json(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(!errors.contains("run 1 of"), "progress where nobody watches: {errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn error(arguments: &[&str]) -> String {
    let output = bench(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

const SMALL: [&str; 6] = [
    "--prompts",
    "benches/prompts/code.jsonl",
    "benches/prompts/records.jsonl",
    "--prompts-per-kind=1",
    "--repeats=2",
    "-n12",
];

/// The same words but for one.
fn changed<'a>(arguments: &[&'a str], from: &str, to: &'a str) -> Vec<&'a str> {
    assert!(arguments.contains(&from));
    arguments.iter().map(|&word| if word == from { to } else { word }).collect()
}

#[test]
fn synthetic_acceptance_has_the_rate_asked_for_and_says_that_it_is_no_models() {
    let small = ["configs/model.toml", "--prompts", "benches/prompts/story.jsonl", "--prompts-per-kind", "1", "-n25"];
    let method = |rate: &str| {
        let report = json(&[&small[..], &["--repeats", "1", "--synthetic", rate]].concat());
        let configs = array(&report["configs"]);
        let names: Vec<&str> = configs.iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["none", "model", "model-synthetic"]);
        assert!(configs[..2].iter().all(|c| c["synthetic"].is_null() && c["overall"]["differing"].is_number()));
        configs[2].clone()
    };
    for (rate, length) in [("1", 5.0), ("0", 1.0)] {
        let method = method(rate);
        assert_eq!(number(&method["synthetic"]), rate.parse::<f64>().unwrap());
        assert_eq!(method["file"], "model.toml");
        assert_eq!(number(&method["overall"]["summary"]["mean_acceptance_length"]), length, "a chain of 4 at {rate}");
        assert!(method["overall"]["differing"].is_null(), "it is compared with nothing");
    }
    let output = bench(&[&small[..], &["--repeats", "1", "--synthetic", "0.5"]].concat());
    let table = String::from_utf8(output.stdout).unwrap();
    let headline = "model-synthetic: no model's output, accepted at rate 0.5 by dice; drafter model: ";
    assert!(table.lines().any(|line| line.starts_with(headline)), "{table}");
}

#[test]
fn synthetic_acceptance_is_refused_where_it_has_no_place() {
    for rate in ["1.01", "-0.1", "nan", "half"] {
        let given = format!("--synthetic={rate}");
        let output = bench(&[&["configs/model.toml"][..], &SMALL, &[&given]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("give a rate from 0 to 1"), "{output:?}");
    }
    let history = ["--set", "drafter.history=true", "--synthetic", "0.5"];
    let error = error(&[&["configs/ngram.toml"][..], &SMALL, &history].concat());
    assert!(error.contains("ngram.toml: --synthetic would put text that is no model's into the drafter's `history`"));
    let run = ["run", "-c", "configs/model.toml", "-p", "Once", "-n", "2"];
    let run = |more: &[&str]| {
        let mut command = program::foretoken();
        command.current_dir(root()).args(run).args(more).output().expect("the program starts")
    };
    assert!(run(&[]).status.success());
    let refused = run(&["--synthetic", "0.5"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unexpected argument '--synthetic'"), "{refused:?}");
}

#[test]
fn counts_and_ratios_add_up() {
    let report = json(&[&["configs/model.toml", "configs/ngram.toml"][..], &SMALL].concat());
    let names: Vec<&str> = array(&report["configs"]).iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "model", "ngram"]);
    let runs = array(&report["runs"]);
    assert_eq!(runs.len(), 3 * 2 * 2, "configs, prompts, repeats");
    for run in runs {
        assert_eq!(number(&run["generated_tokens"]), 12.0, "{run}");
        assert!(number(&run["accepted"]) <= number(&run["drafted"]), "{run}");
        assert_eq!(number(&run["accepted"]) + number(&run["rounds"]), 12.0, "each round adds one: {run}");
        let parts: f64 =
            ["draft", "verify", "sampling", "cache", "other"].map(|p| number(&run[&format!("{p}_s")])).iter().sum();
        assert!((parts - number(&run["decode_s"])).abs() < 1e-6, "{run}");
        rounds_by_nodes_add_up(run);
        let same = |r: &&Value| r["prompt"] == run["prompt"] && r["repeat"] == run["repeat"] && r["config"] == "none";
        let plain = runs.iter().find(same).expect("every run has its plain one");
        let ratio = number(&run["tokens_per_second"]) / number(&plain["tokens_per_second"]);
        assert!((number(&run["ratio"]) - ratio).abs() < 1e-9, "{run}");
        if run["config"] == "none" {
            assert_eq!((number(&run["plain_rounds"]), &run["differs_at"]), (12.0, &Value::Null));
        }
    }
    for config in array(&report["configs"]) {
        let (overall, kinds) = (&config["overall"], array(&config["kinds"]));
        assert_eq!(kinds.len(), 2);
        let product: f64 = kinds.iter().map(|k| number(&k["ratio"])).product();
        assert!((number(&overall["ratio"]) - product.sqrt()).abs() < 1e-9, "{overall}");
        assert_eq!(number(&overall["summary"]["generated_tokens"]), 48.0);
        for interval in ["ratio_interval_95", "wall_ratio_interval_95"].map(|name| array(&overall[name])) {
            assert!(number(&interval[0]) <= number(&interval[1]));
        }
    }
}

#[test]
fn taking_turns_changes_no_count() {
    let configs = ["configs/model.toml", "configs/ngram.toml", "configs/cascade.toml"];
    let whole = json(&[&configs[..], &SMALL].concat());
    let turns = json(&[&configs[..], &SMALL, &["--turns", "5"]].concat());
    assert_eq!((&whole["turns"], &turns["turns"]), (&Value::Null, &Value::from(5)));
    let counts = |report: &Value| {
        let of = |run: &Value| {
            ["config", "prompt", "repeat", "rounds", "drafted", "accepted"].map(|key| run[key].to_string())
        };
        let mut counts: Vec<[String; 6]> = array(&report["runs"]).iter().map(of).collect();
        counts.sort();
        counts
    };
    assert_eq!(counts(&whole).len(), 4 * 2 * 2, "methods, prompts, repeats");
    assert_eq!(counts(&whole), counts(&turns));
    let longer = json(&[&configs[..], &SMALL, &["--turns", "500"]].concat());
    assert_eq!(
        (&longer["turns"], counts(&longer)),
        (&Value::Null, counts(&whole)),
        "a turn longer than the text is none"
    );
}

/// Tokens and seconds of each predicted round, and their sums.
fn predictions_stand_beside_what_came(stats: &Value, is_adaptive: bool) {
    let predictions = array(&stats["predictions"]);
    assert_eq!(predictions.iter().any(|p| !p.is_null()), is_adaptive, "{stats}");
    let rounds = number(&stats["rounds"]) as usize;
    assert!(predictions.len() <= rounds, "{stats}");
    assert_eq!([array(&stats["yields"]).len(), array(&stats["pauses"]).len()], [rounds, rounds], "{stats}");
    let sum = |part: usize| predictions.iter().filter_map(|p| p[part].as_f64()).sum::<f64>();
    for (part, name) in ["tokens", "seconds"].iter().enumerate() {
        assert!(
            (sum(part) / number(&stats["predicted"][name]).max(1e-9) - 1.0).abs() < 1e-5 || !is_adaptive,
            "{stats}"
        );
    }
}

/// The rounds by their nodes are all rounds, with all tokens and all the time of drafts and passes.
fn rounds_by_nodes_add_up(run: &Value) {
    let sum = |of: &dyn Fn(&Value) -> f64| array(&run["by_nodes"]).iter().map(of).sum::<f64>();
    let of_all = |key: &'static str| sum(&|n: &Value| number(&n[key]) * number(&n["rounds"]));
    assert_eq!(sum(&|n| number(&n["rounds"])), number(&run["rounds"]), "{run}");
    let accepted = |n: &Value| array(&n["accepted"]).iter().map(number).collect::<Vec<f64>>();
    assert_eq!(sum(&|n| accepted(n).iter().sum()), number(&run["rounds"]), "{run}");
    let of_one = |n: &Value| accepted(n).iter().enumerate().map(|(guesses, rounds)| guesses as f64 * rounds).sum();
    assert_eq!(sum(&of_one), number(&run["accepted"]), "{run}");
    assert_eq!(sum(&|n| number(&n["tokens"])), number(&run["generated_tokens"]), "{run}");
    assert_eq!(of_all("nodes"), number(&run["drafted"]), "{run}");
    assert!((of_all("pass_s") - number(&run["verify_s"])).abs() < 1e-6, "{run}");
    assert!((of_all("draft_s") - number(&run["draft_s"])).abs() < 1e-6, "{run}");
    let reached: f64 = array(&run["reached_by_position"]).iter().map(number).sum();
    assert!((reached * number(&run["rounds"]) - number(&run["accepted"])).abs() < 1e-6, "{run}");
}

#[test]
fn control_memory_and_energy_are_reported() {
    let fixed = ["configs/model.toml", "configs/auto.toml", "--set", "speculation.adaptive=false"];
    let report = json(&[&fixed[..], &SMALL].concat());
    assert!(array(&report["configs"]).iter().all(|c| c["control"].is_null()), "nothing was controlled");

    let adaptive = ["configs/model.toml", "configs/auto.toml", "--set", "speculation.adaptive=true"];
    let report = json(&[&adaptive[..], &SMALL].concat());
    assert!(report["configs"][0]["control"].is_null(), "plain decoding is not controlled");
    for config in &array(&report["configs"])[1..] {
        let control = &config["control"];
        let rounds: f64 = array(&control["choices"]).iter().map(number).sum();
        assert_eq!(rounds, number(&config["overall"]["summary"]["rounds"]), "{config}");
        assert!(array(&control["curve"]).iter().all(|point| number(&point[1]) > 0.0), "{config}");
        let guesses: f64 = array(&control["calibration"]["reliability"]).iter().map(|tenth| number(&tenth[0])).sum();
        assert_eq!(guesses, number(&control["calibration"]["guesses"]), "{config}");
    }
    if cfg!(target_os = "linux") {
        let memory = &report["memory"];
        assert!(number(&memory["peak_rss_bytes"]) >= number(&memory["rss_anon_bytes"]), "{memory}");
        assert!(number(&memory["rss_anon_bytes"]) > 0.0, "{memory}");
    }
    for run in array(&report["runs"]) {
        let of_all = run["joules"].as_f64().map(|joules| joules / number(&run["generated_tokens"]));
        assert_eq!(run["joules_per_token"].as_f64(), of_all, "{run}");
    }
}

#[test]
fn the_report_names_files_but_no_folders() {
    let absolute = root().join("configs/model.toml");
    let report = json(&[&[absolute.to_str().unwrap()][..], &SMALL].concat());
    assert_eq!((&report["target"]["model"], &report["threads"]), (&"target.gguf".into(), &1.into()));
    assert_eq!(report["configs"][1]["settings"]["model"], "draft.gguf");
    assert!(!report.to_string().contains(root().to_str().unwrap()));
}

#[test]
fn the_table_is_narrow() {
    let output = bench(&[&["configs/ngram.toml"][..], &SMALL].concat());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 110), "{table}");
    for word in ["none: plain decoding", "ngram: drafter ngram", "code", "records", "overall", "cycling"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}

#[test]
fn sampled_texts_need_not_agree() {
    let arguments = [&["configs/none.toml", "--temperature", "1", "--seed", "5"][..], &SMALL].concat();
    let report = json(&arguments);
    assert!(array(&report["configs"]).iter().all(|c| c["overall"]["differing"].is_null()), "nothing must agree");
    assert_eq!(report["configs"][1]["name"], "none-2", "none is taken");
}

#[test]
fn control_is_compared_with_what_could_have_been_fixed() {
    let arguments = [&["configs/model.toml", "configs/auto.toml"][..], &SMALL].concat();
    let report = json(&arguments);
    let runs = array(&report["runs"]);
    let kinds = array(&report["against_best"]);
    assert_eq!(kinds.iter().map(|k| &k["kind"]).collect::<Vec<_>>(), ["code", "records"]);
    for of_kind in kinds {
        // One prompt of each kind, and two repeats: each half is one run.
        let run = |config: &Value, repeat: u32| {
            let wanted = |r: &&Value| r["config"] == *config && r["kind"] == of_kind["kind"] && r["repeat"] == repeat;
            runs.iter().find(wanted).expect("the run is there")
        };
        let best_ratio =
            ["none", "model"].map(|fixed| number(&run(&fixed.into(), 0)["ratio"])).into_iter().fold(0.0, f64::max);
        assert_eq!(number(&of_kind["best_ratio"]), best_ratio, "{of_kind}");
        assert_eq!(number(&run(&of_kind["best"], 0)["ratio"]), best_ratio, "{of_kind}");
        let speed = |config: &Value| number(&run(config, 1)["tokens_per_second"]);
        let rivals = array(&of_kind["methods"]);
        assert_eq!(rivals.iter().map(|rival| &rival["method"]).collect::<Vec<_>>(), ["auto"]);
        let ratio = speed(&rivals[0]["method"]) / speed(&of_kind["best"]);
        assert!((number(&rivals[0]["ratio"]) - ratio).abs() < 1e-9, "{of_kind}");
    }
    let cells: Vec<(&Value, &Value)> = array(&report["cells"]).iter().map(|c| (&c["method"], &c["ratio"])).collect();
    let row = |config: usize, kind: usize| &report["configs"][config]["kinds"][kind]["ratio"];
    let names = ["model", "model", "auto", "auto"].map(Value::from);
    let expected: Vec<_> = names.iter().zip([row(1, 0), row(1, 1), row(2, 0), row(2, 1)]).collect();
    assert_eq!(cells, expected);

    let once = json(&changed(&arguments, "--repeats=2", "--repeats=1"));
    assert!(once["against_best"].is_null(), "one repeat has no halves");
    let table = String::from_utf8(bench(&arguments).stdout).unwrap();
    assert!(table.contains("adaptive methods against the best fixed one"), "{table}");
}

#[test]
fn csv_has_a_line_for_every_run_with_the_numbers_of_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runs.csv");
    std::fs::write(&file, "what stood there before\n".repeat(1000)).unwrap();
    let csv = ["configs/ngram.toml", "--temperature", "0.5", "--csv", file.to_str().unwrap()];
    let report = json(&[&csv[..], &SMALL].concat());
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    assert_eq!(lines.clone().count(), array(&report["runs"]).len());
    for (line, run) in lines.zip(array(&report["runs"])) {
        assert_eq!(line.len(), head.len(), "{line:?}");
        for (&name, field) in head.iter().zip(line) {
            let value = run.get(name).unwrap_or_else(|| panic!("the report has no {name}"));
            let expected = if value.is_null() { String::new() } else { value.to_string().replace('"', "") };
            assert_eq!(field, expected, "{name}");
        }
    }
    let long = folder.path().join("long.csv");
    let report = json(&[&["configs/auto.toml", "--csv-long", long.to_str().unwrap()][..], &SMALL].concat());
    let text = std::fs::read_to_string(&long).unwrap();
    let overall = &report["configs"][1]["overall"];
    // Which numbers of nodes there were is the clock's business.
    let of_nodes = &overall["summary"]["by_nodes"][0];
    let (pass, accepting) = ["pass_s_by_nodes", "rounds_accepting_0_by_nodes"]
        .map(|quantity| format!("auto,overall,{quantity},{},", of_nodes["nodes"]))
        .into();
    let expected = [
        ("auto,overall,acceptance_by_position,1,", &overall["summary"]["acceptance_by_position"][0]),
        (&pass, &of_nodes["pass_s"]),
        (&accepting, &of_nodes["accepted"][0]),
        ("auto,overall,round_cost,draft,", &overall["round_cost"]["draft"]),
        ("auto,overall,calibration_brier,,", &report["configs"][1]["control"]["calibration"]["brier"]),
        (",,memory,peak_rss_bytes,", &report["memory"]["peak_rss_bytes"]),
    ];
    for (start, value) in expected.into_iter().filter(|(_, value)| value.is_number()) {
        assert!(text.lines().any(|line| line == format!("{start}{value}")), "{start}{value}: {text}");
    }
    let both = ["configs/ngram.toml", "--csv", long.to_str().unwrap(), "--csv-long", long.to_str().unwrap()];
    assert!(error(&[&both[..], &SMALL].concat()).contains("long.csv"));
    let absent = folder.path().join("absent/runs.csv");
    let why = error(&[&["configs/ngram.toml", "--csv", absent.to_str().unwrap()][..], &SMALL].concat());
    assert!(why.contains("runs.csv") && why.contains("its folder does not exist; create it first"), "{why}");
}

#[test]
fn a_comparison_goes_on_from_its_raw_data() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("raw.jsonl");
    let arguments =
        [&["configs/model.toml", "configs/auto.toml", "--raw", file.to_str().unwrap()][..], &SMALL].concat();
    let first = json(&arguments);
    let whole = std::fs::read_to_string(&file).unwrap();
    assert_eq!(whole.lines().count(), 1 + 3 * 2 * 2, "a head, and configs, prompts, repeats");
    assert!(!whole.contains(root().to_str().unwrap()), "it says nothing of anyone's disk");

    for run in whole.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        predictions_stand_beside_what_came(&run["stats"], run["method"] == 2);
    }

    // All is there: nothing runs, and the report is computed from the file.
    let again = json(&arguments);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), whole);
    assert_eq!(without_own(again), without_own(first.clone()));

    // Broken off within the sixth run.
    let half: String = whole.lines().take(6).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, format!("{half}{}", &whole.lines().nth(6).unwrap()[..40])).unwrap();
    let resumed = json(&arguments);
    let rest = std::fs::read_to_string(&file).unwrap();
    assert!(rest.starts_with(&half) && rest.lines().count() == whole.lines().count(), "{rest}");
    assert_eq!(array(&resumed["runs"]).len(), array(&first["runs"]).len());
    assert_eq!(array(&resumed["runs"])[..3], array(&first["runs"])[..3], "a group with its plain run is as it was");
    // Control began anew, but what it did in both processes is there.
    let (auto, control) = (&resumed["configs"][2], &resumed["configs"][2]["control"]);
    let rounds: f64 = array(&control["choices"]).iter().map(number).sum();
    assert_eq!(rounds, number(&auto["overall"]["summary"]["rounds"]));
    let runs = rest.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let guesses: f64 = runs.filter_map(|run| run["control"]["calibration"]["guesses"].as_f64()).sum();
    assert_eq!(number(&control["calibration"]["guesses"]), guesses);

    // Broken off within its head.
    let begun = folder.path().join("begun.jsonl");
    std::fs::write(&begun, &whole[..40]).unwrap();
    json(&changed(&arguments, file.to_str().unwrap(), begun.to_str().unwrap()));
    let (head, begun) = (whole.lines().next().unwrap(), std::fs::read_to_string(&begun).unwrap());
    assert!(begun.starts_with(head) && begun.lines().count() == whole.lines().count(), "{begun}");

    // One repeat of two: the other stays in the file.
    let fewer = json(&changed(&arguments, "--repeats=2", "--repeats=1"));
    assert_eq!(array(&fewer["runs"]).len(), 6);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), rest);
}

#[test]
fn raw_data_of_another_comparison_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("raw.jsonl");
    let arguments = [&["configs/ngram.toml", "--raw", file.to_str().unwrap()][..], &SMALL].concat();
    let refused = |arguments: &[&str]| {
        let before = std::fs::read(&file).unwrap();
        let why = error(arguments);
        assert_eq!(std::fs::read(&file).unwrap(), before, "the file stays as it is: {why}");
        assert!(why.contains("raw.jsonl") && why.contains("give --raw another name"), "{why}");
        why
    };
    let refused_with = |more: &[&str]| refused(&[&arguments[..], more].concat());
    std::fs::write(&file, "notes of mine").unwrap();
    assert!(refused(&arguments).contains("is no file of raw data"));
    std::fs::write(&file, "{\"notes\": 1}\n").unwrap();
    assert!(refused(&arguments).contains("is no file of raw data"));

    std::fs::remove_file(&file).unwrap();
    json(&arguments);
    let in_use = std::fs::File::open(&file).unwrap();
    in_use.lock().unwrap();
    assert!(refused(&arguments).contains("is being written to by another bench"));
    drop(in_use);
    assert!(refused_with(&["--temperature=0.5"]).contains("there `sampling.temperature` is 0.0, here it is 0.5"));
    assert!(refused(&changed(&arguments, "-n12", "-n11")).contains("there `max_tokens` is 12, here it is 11"));
    assert!(refused_with(&["--set", "drafter.min_match=3"]).contains("there `configs[1].settings.min_match` is"));
    assert!(refused_with(&["--prompts", "benches/prompts/story.jsonl"]).contains("there `prompts[2]` is null, here"));
    let whole = std::fs::read_to_string(&file).unwrap();
    let last = whole.lines().last().unwrap().to_owned();
    std::fs::write(&file, format!("{whole}{last}\n")).unwrap();
    assert!(refused(&arguments).contains("that run is there already"));
    std::fs::write(&file, whole.replace("\"method\":1", "\"method\":7")).unwrap();
    assert!(refused(&arguments).contains("no such configuration or prompt"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_after_the_present_run_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("raw.jsonl");
    let arguments = [&["configs/ngram.toml", "--raw", file.to_str().unwrap()][..], &SMALL].concat();
    let mut command = command(&changed(&arguments, "--repeats=2", "--repeats=100000"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = || std::fs::read_to_string(&file).map_or(0, |text| text.matches('\n').count());
    while lines() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it has not ended yet");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(std::fs::read_to_string(&file).unwrap().ends_with('\n'), "the present run came to its end");
    let said = format!("interrupted after {} of 400000 runs; the same command goes on from ", lines() - 1);
    assert!(errors.contains(&said), "{errors}");
    assert_eq!(array(&json(&arguments)["runs"]).len(), 8);
}

#[test]
fn wrong_input_is_one_line() {
    let folder = std::env::temp_dir().join(format!("foretoken-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let target = root().join("models/target.gguf");
    let write = |name: &str, rest: &str| {
        let file = folder.join(name);
        std::fs::write(&file, format!("[target]\nmodel = '{}'\n{rest}", target.display())).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let plain = write("plain.toml", "");
    let short = write("short.toml", "context = 256\n[sampling]\ntop_k = 3");
    let wrong = write("wrong.toml", "[drafter]\nkind = 'modle'");
    let with = |first: &[&str]| error(&[first, &SMALL].concat());
    assert!(
        with(&[&plain, &short]).contains("differ in target.context, sampling.top_k"),
        "{}",
        with(&[&plain, &short])
    );
    assert!(with(&[&wrong]).contains("wrong.toml: unknown drafter `modle`; did you mean `model`?"));
    assert!(with(&[&plain, "--set", "target.context=20"]).contains("lower -n or raise target.context"));
    assert!(
        error(&[&plain, "--prompts", folder.to_str().unwrap()]).contains("a folder needs .jsonl or .jsonl.gz files")
    );
    std::fs::remove_dir_all(folder).unwrap();
}

/// A report without what is of its own process.
fn without_own(mut report: Value) -> Value {
    report["memory"].take();
    report
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("an array")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}
