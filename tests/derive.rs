//! Drafters made from the target: once, by a child process, into a cache; refused with a reason; and Ctrl-C leaves
//! nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
    let output = run(&file, &[&target[..], &["--drafter", "quantized"]].concat());
    assert!(output.status.code() == Some(1) && errors(&output).contains("cache folder"), "{}", errors(&output));
}

#[test]
fn early_exit_searches_and_says_what_it_tried() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "The little dog ran to the big tree and saw a red bird. ".repeat(40)).unwrap();
    let out = folder.path().join("exit.gguf");
    let (text, out) = (text.to_str().unwrap(), out.to_str().unwrap());
    let search = ["prepare", "early-exit", "--target", "models/target.gguf", "--search", "--tries", "7"];
    let output = run(folder.path(), &[&search[..], &["--text", text, "--out", out]].concat());
    assert!(output.status.success(), "{}", errors(&output));
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

/// The child process writes to a temporary file beside the result.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let wide = folder.path().join("wide.gguf");
    let widen = ["prepare", "widen", "--target", "models/target.gguf", "--params", "150M", "--out"];
    assert!(run(folder.path(), &[&widen[..], &[wide.to_str().unwrap()]].concat()).status.success());
    // The copy may be done before the signal arrives: then once more, with another name.
    for turn in 0..10 {
        let results = folder.path().join(format!("results-{turn}"));
        std::fs::create_dir(&results).unwrap();
        let out = results.join("copy.gguf");
        let copy = ["prepare", "quantized", "--target", wide.to_str().unwrap(), "--type", "q2_k", "--out"];
        let mut child = program(folder.path(), &[&copy[..], &[out.to_str().unwrap()]].concat()).spawn().unwrap();
        while files(&results).is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let id = i32::try_from(child.id()).unwrap();
        // Only the parent hears of it; on a terminal the child would, too.
        assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap().success() || out.exists());
        let output = child.wait_with_output().unwrap();
        if out.exists() {
            continue;
        }
        assert!(!output.status.success());
        assert!(errors(&output).contains("cancelled; nothing was written"), "{}", errors(&output));
        assert!(files(&results).is_empty(), "{:?}", files(&results));
        return;
    }
    panic!("the copy was always done before it could be cancelled");
}
