//! `run --chat` on a model that brings a chat template: the same as that template's text given as a plain prompt.

mod program;

use std::path::Path;
use std::process::Output;

use foretoken::llama::gguf::{GgufFile, GgufWriter};

const TEMPLATE: &str = "{{- bos_token }}{% for m in messages %}{% if m.role == 'user' %}Tell me: {{ m['content'].strip() }}\n\
    {% endif %}{% endfor %}{% if add_generation_prompt %}{% generation %}Once upon a time{% endgeneration %}{% endif %}";

/// A copy of the bundled target with this template.
fn with_template(template: &str, to: &Path) {
    let file = GgufFile::open(Path::new("models/target.gguf")).unwrap();
    let mut writer = GgufWriter::new();
    writer.copy(&file, |_| true);
    writer.set("tokenizer.chat_template", template);
    for tensor in file.tensors() {
        writer.tensor(&tensor.name, tensor.kind, &tensor.shape);
    }
    let mut old = file.tensors().iter();
    writer.write(to, |_, out| out.write_all(file.data(old.next().unwrap()).unwrap())).unwrap();
}

fn run(target: &Path, arguments: &[&str]) -> Output {
    let target = target.display().to_string();
    let common = ["run", "--json", "-n", "20", "--drafter", "none", "--target", &target];
    program::foretoken().args(common).args(arguments).output().unwrap()
}

#[test]
fn a_chat_is_the_rendered_text_as_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("chat.gguf");
    with_template(TEMPLATE, &target);
    let answer = |arguments: &[&str]| -> serde_json::Value {
        let output = run(&target, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let chat = answer(&["--chat", "-p", "  a story \n"]);
    let plain = answer(&["-p", "Tell me: a story\nOnce upon a time"]);
    assert!(!chat["text"].as_str().unwrap().is_empty());
    assert_eq!(chat["tokens"], plain["tokens"]);
    assert_eq!(chat["stats"]["prompt_tokens"], plain["stats"]["prompt_tokens"], "one beginning token, not two");
    assert_ne!(chat["tokens"], answer(&["-p", "  a story \n"])["tokens"]);
}

#[test]
fn a_template_that_refuses_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("chat.gguf");
    with_template("{{ raise_exception('a system message must come first') }}", &target);
    let output = run(&target, &["--chat", "-p", "hello"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("a system message must come first") && text.contains("chat.gguf"), "{text}");
}
