//! Draft models whose vocabulary is padded further than the target's, or less far: they draft as well as unpadded ones.

mod program;

use std::path::Path;
use std::process::Stdio;

use foretoken::llama::gguf::{GgufFile, GgufWriter};

const PADDING: usize = 64;

/// A copy of a bundled model with more tokens at the end of its vocabulary, which the file says are of this `kind`.
fn padded(name: &str, kind: i32, to: &Path) {
    let file = GgufFile::open(Path::new(&format!("models/{name}.gguf"))).unwrap();
    let mut writer = GgufWriter::new();
    writer.copy(&file, |_| true);
    let names: Vec<Vec<u8>> = (0..PADDING).map(|i| format!("[PAD{i}]").into_bytes()).collect();
    let mut tokens = file.texts("tokenizer.ggml.tokens").unwrap();
    let n_vocab = tokens.len() as u64;
    tokens.extend(names.iter().map(Vec::as_slice));
    writer.set("tokenizer.ggml.tokens", &tokens[..]);
    let mut kinds: Vec<i32> =
        file.integers("tokenizer.ggml.token_type").unwrap().iter().map(|&kind| kind as i32).collect();
    kinds.resize(tokens.len(), kind);
    writer.set("tokenizer.ggml.token_type", &kinds[..]);
    if let Some(mut scores) = file.floats("tokenizer.ggml.scores") {
        scores.resize(tokens.len(), 0.0);
        writer.set("tokenizer.ggml.scores", &scores[..]);
    }
    let grows = |shape: &[u64]| shape.last() == Some(&n_vocab);
    for tensor in file.tensors() {
        let mut shape = tensor.shape.to_vec();
        if grows(&shape) {
            *shape.last_mut().unwrap() += PADDING as u64;
        }
        writer.tensor(&tensor.name, tensor.kind, &shape);
    }
    let mut old = file.tensors().iter();
    let made = writer.write(to, |new, out| {
        let tensor = old.next().unwrap();
        out.write_all(file.data(tensor).unwrap())?;
        let more = new.bytes - tensor.bytes;
        out.write_all(&vec![0; more as usize])
    });
    made.unwrap();
}

fn run(arguments: &[&str]) -> Result<serde_json::Value, String> {
    let common = ["run", "--json", "-n", "60", "-p", "One day, a little girl", "--set", "speculation.adaptive=false"];
    let mut command = program::foretoken();
    command.args(common).args(arguments).stdin(Stdio::null());
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn padding_makes_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let (target, draft) = (folder.path().join("target.gguf"), folder.path().join("draft.gguf"));
    const UNUSED: i32 = 5;
    padded("target", UNUSED, &target);
    padded("draft", UNUSED, &draft);
    let bundled = |name: &str| format!("models/{name}.gguf");
    let of = |target: &str, draft: &str, temperature: &str| {
        let draft = format!("drafter.model={}", Path::new(draft).canonicalize().unwrap().display());
        run(&["--target", target, "--drafter", "model", "--set", &draft, "--temperature", temperature]).unwrap()
    };
    for temperature in ["0", "0.8"] {
        let plain = of(&bundled("target"), &bundled("draft"), temperature);
        assert!(plain["stats"]["accepted"].as_u64().unwrap() > 10);
        let pairs = [
            (bundled("target"), draft.display().to_string()),
            (target.display().to_string(), bundled("draft")),
            (target.display().to_string(), draft.display().to_string()),
        ];
        // The padding's rows are zeros, so its logits are 0: where all others are low, a padded target means to say some of it.
        let comparable = if temperature == "0" { pairs.len() } else { 1 };
        for (target, draft) in pairs.into_iter().take(comparable) {
            let same = of(&target, &draft, temperature);
            for what in ["accepted", "drafted", "rounds"] {
                assert_eq!(same["stats"][what], plain["stats"][what], "{what} at {temperature}, {target} {draft}");
            }
            assert_eq!(same["text"], plain["text"]);
        }
    }
}

#[test]
fn tokens_that_mean_something_are_no_padding() {
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.gguf");
    const NORMAL: i32 = 1;
    padded("draft", NORMAL, &draft);
    let setting = format!("drafter.model={}", draft.display());
    let error = run(&["--target", "models/target.gguf", "--drafter", "model", "--set", &setting]).unwrap_err();
    assert!(error.contains("\"[PAD0]\", is no padding"), "{error}");
}

#[test]
fn a_text_that_the_vocabulary_cannot_spell_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.gguf");
    let file = GgufFile::open(Path::new("models/draft.gguf")).unwrap();
    let mut writer = GgufWriter::new();
    writer.copy(&file, |_| true);
    let mut tokens = file.texts("tokenizer.ggml.tokens").unwrap();
    let byte = tokens.iter().position(|token| *token == b"<0xE6>").unwrap();
    tokens[byte] = b"[GONE]";
    writer.set("tokenizer.ggml.tokens", &tokens[..]);
    let mut kinds: Vec<i32> =
        file.integers("tokenizer.ggml.token_type").unwrap().iter().map(|&kind| kind as i32).collect();
    kinds[byte] = 1;
    writer.set("tokenizer.ggml.token_type", &kinds[..]);
    file.tensors().iter().for_each(|tensor| writer.tensor(&tensor.name, tensor.kind, &tensor.shape));
    let mut old = file.tensors().iter();
    writer.write(&target, |_, out| out.write_all(file.data(old.next().unwrap()).unwrap())).unwrap();
    let target = target.display().to_string();
    let run = |prompt: &str| {
        let mut command = program::foretoken();
        command.args(["run", "-n", "2", "--drafter", "none", "--target", &target, "-p", prompt]).stdin(Stdio::null());
        command.output().unwrap()
    };
    assert!(run("One day, caf\u{e9} \u{3042}").status.success(), "their bytes are all there");
    let refused = run("One \u{65e5}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("neither `\u{65e5}` nor all of its bytes"), "{said}");
}
