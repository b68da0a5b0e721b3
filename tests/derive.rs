//! Drafters made from the target: once, by a child process, into a cache; refused with a reason; and whatever ends the
//! program, it leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretoken"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("FORETOKEN_CACHE", folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder, arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

const TEXT: [&str; 8] = ["-p", "Once upon a time", "-n", "24", "--set", "target.threads=1", "--temperature", "0"];

#[test]
fn a_copy_is_made_once_and_found_again() {
    let cache = tempfile::tempdir().unwrap();
    let text = |config: &str, more: &[&str]| {
        let arguments = [&["run", "-c", config][..], &TEXT, more].concat();
        let output = run(cache.path(), &arguments);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(errors(&output).contains("of "), "{}", errors(&output));
        output.stdout
    };
    let plain = text("configs/none.toml", &[]);
    assert!(files(cache.path()).is_empty(), "only who asks");
    assert_eq!(text("configs/quantized.toml", &[]), plain);
    let made = files(cache.path());
    assert_eq!(made.len(), 1, "{made:?}");
    let time = || std::fs::metadata(&made[0]).unwrap().modified().unwrap();
    let first = time();
    assert_eq!(text("configs/quantized.toml", &[]), plain);
    assert_eq!((files(cache.path()), time()), (made.clone(), first), "made once");
    assert_eq!(text("configs/early_exit.toml", &[]), plain);
    assert_eq!(text("configs/early_exit.toml", &["--set", "drafter.layers=2"]), plain);
    assert_eq!(files(cache.path()).len(), 3, "each layer set is a file of its own");
    let layers = ["--set", "drafter.keep=[0, 5]", "--drafter", "early_exit"];
    let fresh = [&["run", "--target", "models/target.gguf"][..], &layers, &TEXT].concat();
    assert!(run(cache.path(), &fresh).status.success());
    assert_eq!(files(cache.path()).len(), 4);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let cache = tempfile::tempdir().unwrap();
    let target = ["run", "--target", "models/target.gguf", "-p", "a", "-n", "1"];
    let cases: [(&[&str], &str); 8] = [
        (&["--drafter", "quantized", "--set", "drafter.type=iq2_xs"], "needs an importance matrix"),
        (&["--drafter", "quantized", "--set", "drafter.type=q4_9"], "unknown precision `q4_9`"),
        (&["--drafter", "quantized", "--set", "drafter.type=f16"], "16.1 bits per weight already"),
        (&["--drafter", "quantized", "--set", "drafter.tipe=q4_0"], "did you mean `type`?"),
        (&["--drafter", "early_exit", "--set", "drafter.layers=0"], "layers = 0 is out of range"),
        (&["--drafter", "early_exit", "--set", "drafter.layers=6"], "6 of the target's 6 layers"),
        (&["--drafter", "early_exit", "--set", "drafter.keep=[0, 9]"], "from 0 to 5"),
        (&["--drafter", "early_exit", "--set", "drafter.keep=[2, 1]"], "ascending"),
    ];
    for (settings, reason) in cases {
        let output = run(cache.path(), &[&target[..], settings].concat());
        let error = errors(&output);
        let line = error.lines().last().unwrap_or_default();
        assert!(output.status.code() == Some(1) && line.contains(reason), "{settings:?}: {error}");
    }
    assert!(files(cache.path()).is_empty(), "nothing half-written");
    let file = cache.path().join("file");
    std::fs::write(&file, "").unwrap();
    for folder in [file.as_path(), Path::new("/proc")] {
        let output = run(folder, &[&target[..], &["--drafter", "quantized"]].concat());
        let error = errors(&output);
        assert!(output.status.code() == Some(1) && error.contains("FORETOKEN_CACHE can name another"), "{error}");
    }
}

#[test]
fn a_damaged_copy_is_made_again_and_old_litter_is_swept_up() {
    let cache = tempfile::tempdir().unwrap();
    let draft = [&["run", "-c", "configs/quantized.toml"][..], &TEXT].concat();
    let text = || {
        let output = run(cache.path(), &draft);
        assert!(output.status.success(), "{}", errors(&output));
        (output.stdout.clone(), errors(&output).lines().filter(|line| line.contains("made again")).count())
    };
    let (plain, none) = text();
    assert_eq!(none, 0);
    let copy = files(cache.path()).remove(0);
    let whole = std::fs::read(&copy).unwrap();
    let litter = |name: &str, age: u64| {
        let path = cache.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600 * age)).unwrap();
        path
    };
    let (old, fresh) = (litter(".target-q4_0.gguf.a1b2c3.part", 25), litter(".target-q4_0.gguf.d4e5f6.part", 1));
    let foreign = litter(".notes.part", 25);
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&copy, &whole[..length]).unwrap();
        assert_eq!(text(), (plain.clone(), 1), "cut to {length} bytes");
        assert_eq!(std::fs::read(&copy).unwrap().len(), whole.len());
    }
    assert!(!old.exists() && fresh.exists() && foreign.exists());
}

#[test]
fn early_exit_searches_and_says_what_it_tried() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "The little dog ran to the big tree and saw a red bird. ".repeat(40)).unwrap();
    let out = folder.path().join("exit.gguf");
    let (text, out) = (text.to_str().unwrap(), out.to_str().unwrap());
    let search = ["prepare", "early-exit", "--target", "models/target.gguf", "--search", "--tries", "7"];
    // The models that are tried stand beside the result, wherever temporary files may go.
    let mut command = program(folder.path(), &[&search[..], &["--text", text, "--out", out]].concat());
    let output = command.env("TMPDIR", "/absent").output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the text and the result");
    let tried: Vec<String> = errors(&output).lines().filter(|l| l.contains(" x, ")).map(str::to_owned).collect();
    assert_eq!(tried.len(), 7, "{}", errors(&output));
    assert!(tried[0].starts_with("0 ") && tried[4].starts_with("0,1,2,3,4 "), "{tried:?}");
    let mut draft = vec!["run", "--target", "models/target.gguf", "--drafter", "model", "--set"];
    let setting = format!("drafter.model={out}");
    draft.push(&setting);
    assert!(run(folder.path(), &[&draft[..], &TEXT].concat()).status.success());
    let output = run(folder.path(), &["prepare", "early-exit", "--target", "models/target.gguf", "--out", out]);
    assert_eq!(output.status.code(), Some(1), "layers, keep or search");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_search() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "The little dog ran to the big tree and saw a red bird. ".repeat(40)).unwrap();
    let out = folder.path().join("exit.gguf");
    let search = ["prepare", "early-exit", "--target", "models/target.gguf", "--search", "--tries", "1000"];
    let more = ["--text", text.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let mut child = program(folder.path(), &[&search[..], &more].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(" x, ")), "a set was tried");
    kill(&child, "-INT");
    let rest: Vec<String> = lines.collect();
    assert!(!child.wait().unwrap().success());
    assert_eq!(rest.last().map(String::as_str), Some("error: cancelled; nothing was written"), "{rest:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the text");
}

#[cfg(unix)]
fn kill(child: &Child, signal: &str) -> bool {
    Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

/// A model that takes a while to copy.
#[cfg(unix)]
fn wide(folder: &Path) -> String {
    let wide = folder.join("wide.gguf").to_str().unwrap().to_owned();
    let widen = ["prepare", "widen", "--target", "models/target.gguf", "--params", "150M", "--out", &wide];
    assert!(run(folder, &widen).status.success());
    wide
}

/// The child process writes to a temporary file beside the result.
#[cfg(unix)]
#[test]
fn what_ends_the_program_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let wide = wide(folder.path());
    let mut signals = vec!["-INT", "-TERM", "-KILL"];
    // The copy may be done before the signal arrives: then once more, with another name.
    for turn in 0..20 {
        let Some(&signal) = signals.last() else { return };
        let results = folder.path().join(format!("results-{turn}"));
        std::fs::create_dir(&results).unwrap();
        let out = results.join("copy.gguf");
        let copy = ["prepare", "quantized", "--target", &wide, "--type", "q2_k", "--out", out.to_str().unwrap()];
        let mut child = program(folder.path(), &copy).spawn().unwrap();
        let begun = |files: &[PathBuf]| files.iter().any(|path| std::fs::metadata(path).is_ok_and(|m| m.len() > 0));
        while !begun(&files(&results)) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Only the parent hears of it; on a terminal the child would, too.
        assert!(kill(&child, signal) || out.exists());
        let output = child.wait_with_output().unwrap();
        if out.exists() {
            continue;
        }
        assert!(!output.status.success());
        if signal != "-KILL" {
            assert!(errors(&output).contains("cancelled; nothing was written"), "{}", errors(&output));
        }
        // Nobody is left who could wait for the child of a program that was killed.
        let end = Instant::now() + Duration::from_secs(if signal == "-KILL" { 20 } else { 0 });
        while !files(&results).is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(files(&results).is_empty(), "{signal}: {:?}", files(&results));
        signals.pop();
    }
    panic!("the copy was always done before it could be cancelled");
}

/// Deriving a file looks out for signals; when it is done, they mean what they did before.
#[cfg(unix)]
#[test]
fn a_comparison_that_made_a_drafter_can_still_be_ended() {
    let cache = tempfile::tempdir().unwrap();
    let bench = ["bench", "configs/quantized.toml", "--prompts", "benches/prompts/records.jsonl", "--repeats", "1000"];
    let mut child = program(cache.path(), &bench).spawn().unwrap();
    while !files(cache.path()).iter().any(|path| path.extension().is_some_and(|e| e == "gguf")) {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(kill(&child, "-TERM"));
    let end = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let is_over = child.try_wait().unwrap().is_some();
    kill(&child, "-KILL");
    assert!(is_over && !child.wait().unwrap().success());
}
