//! A target whose state cannot go back to an earlier token: a small Mamba (Gu & Dao, arXiv 2312.00752) with random
//! weights, made here. It drafts chains, and its text is plain text: which depends on all that came before, so that a state
//! not restored after a wrong guess would show.

mod program;

use std::path::Path;
use std::process::{Output, Stdio};

use foretoken::llama::gguf::{GgufFile, GgufWriter, TensorType};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const WIDTH: u64 = 64;
const INNER: u64 = 2 * WIDTH;
const STATE: u64 = 8;
const RANK: u64 = 4;
const KERNEL: u64 = 4;
const LAYERS: u32 = 2;
/// The only tokens that it says.
const SAID: std::ops::Range<u64> = 97..122;

fn mamba(to: &Path, seed: u64) {
    let tokenizer = GgufFile::open(Path::new("models/tiny.gguf")).unwrap();
    let n_vocab = tokenizer.texts("tokenizer.ggml.tokens").unwrap().len() as u64;
    let mut writer = GgufWriter::new();
    writer.copy(&tokenizer, |key| key.starts_with("tokenizer."));
    writer.set("general.architecture", "mamba");
    let sizes = [("conv_kernel", KERNEL), ("inner_size", INNER), ("state_size", STATE), ("time_step_rank", RANK)];
    sizes.iter().for_each(|(name, n)| writer.set(&format!("mamba.ssm.{name}"), *n as u32));
    writer.set("mamba.context_length", 512u32);
    writer.set("mamba.embedding_length", WIDTH as u32);
    writer.set("mamba.feed_forward_length", 0u32);
    writer.set("mamba.attention.head_count", 0u32);
    writer.set("mamba.block_count", LAYERS);
    writer.set("mamba.attention.layer_norm_rms_epsilon", 1e-5f32);
    let f32s = TensorType::new(0).unwrap();
    let mut tensor = |name: &str, shape: &[u64]| writer.tensor(name, f32s, shape);
    tensor("token_embd.weight", &[WIDTH, n_vocab]);
    tensor("output_norm.weight", &[WIDTH]);
    tensor("output.weight", &[WIDTH, n_vocab]);
    for layer in 0..LAYERS {
        let mut tensor = |name: &str, shape: &[u64]| tensor(&format!("blk.{layer}.{name}"), shape);
        tensor("attn_norm.weight", &[WIDTH]);
        tensor("ssm_in.weight", &[WIDTH, 2 * INNER]);
        tensor("ssm_conv1d.weight", &[KERNEL, INNER]);
        tensor("ssm_conv1d.bias", &[INNER]);
        tensor("ssm_x.weight", &[INNER, RANK + 2 * STATE]);
        tensor("ssm_dt.weight", &[RANK, INNER]);
        tensor("ssm_dt.bias", &[INNER]);
        tensor("ssm_a", &[STATE, INNER]);
        tensor("ssm_d", &[INNER]);
        tensor("ssm_out.weight", &[INNER, WIDTH]);
    }
    let mut random = StdRng::seed_from_u64(seed);
    let made = writer.write(to, |tensor, out| {
        let n = tensor.bytes / 4;
        let numbers = (0..n).flat_map(|i| {
            let spread: f32 = random.random::<f32>() - 0.5;
            let number = match tensor.name.as_str() {
                name if name.ends_with("norm.weight") => 1.0,
                // Memories that fade.
                name if name.ends_with("ssm_a") => -0.5 + 0.4 * spread,
                "output.weight" if SAID.contains(&(i / WIDTH)) => 4.0 * spread,
                "output.weight" => 0.0,
                _ => spread,
            };
            number.to_le_bytes()
        });
        out.write_all(&numbers.collect::<Vec<u8>>())
    });
    made.unwrap();
}

fn run(target: &Path, arguments: &[&str]) -> Output {
    let target = target.display().to_string();
    let common = ["run", "--json", "-n", "80", "-p", "abcabcabcabc", "--target", &target];
    let mut command = program::foretoken();
    command.args(common).args(arguments).stdin(Stdio::null());
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

#[test]
fn a_recurrent_target_is_drafted_for_in_chains() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("mamba.gguf");
    mamba(&target, 3);
    let other = folder.path().join("other.gguf");
    mamba(&other, 4);
    let text = |arguments: &[&str]| -> serde_json::Value {
        let output = run(&target, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for temperature in ["0", "0.9"] {
        let given = ["--temperature", temperature];
        let plain = text(&[&["--drafter", "none"][..], &given].concat());
        for (drafter, draft) in [("ngram", None), ("recycle", None), ("model", Some(&target)), ("model", Some(&other))]
        {
            let named = draft.map(|draft| draft.display().to_string());
            let model = named.as_ref().map_or(vec![], |draft| vec!["--draft", draft]);
            for adaptive in ["speculation.adaptive=false", "speculation.adaptive=true"] {
                let settings = ["--drafter", drafter, "--set", adaptive];
                let drafted = text(&[&settings[..], &model, &given].concat());
                if temperature == "0" {
                    assert_eq!(drafted["tokens"], plain["tokens"], "{drafter}, {adaptive}");
                }
                let [right, guessed] = ["accepted", "drafted"].map(|name| drafted["stats"][name].as_u64().unwrap());
                match (drafter, adaptive) {
                    (_, "speculation.adaptive=true") => {}
                    ("model", _) if draft == Some(&target) => {
                        assert!(guessed > 20 && right == guessed, "{right} of {guessed}: it is the target")
                    }
                    (_, _) => assert!(guessed > right, "{drafter} was never wrong, so nothing was forgotten"),
                }
            }
        }
    }
}

#[test]
fn a_recurrent_draft_model_is_refused_where_it_would_have_to_branch() {
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.gguf");
    mamba(&draft, 3);
    let draft = draft.display().to_string();
    let run = |arguments: &[&str]| run(Path::new("models/tiny.gguf"), &[&["--draft", &draft][..], arguments].concat());
    let refused = run(&["--drafter", "model"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("draft.gguf is recurrent"), "{said}");
    for drafter in ["model", "auto"] {
        for more in ["speculation.adaptive=true", "speculation.adaptive=false"] {
            let chain = run(&["--drafter", drafter, "--set", "speculation.width=1", "--set", more]);
            assert!(chain.status.success(), "{drafter}, {more}: {}", String::from_utf8_lossy(&chain.stderr));
        }
    }
}
