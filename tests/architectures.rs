//! Targets that are built otherwise than the bundled ones, tiny and with random weights, made here: one like Qwen2,
//! with biases in its attention, and one like Gemma 2, whose every other layer sees no further back than a few tokens. A
//! tree scored at once equals its paths, and greedy text is plain text, whatever drafts: across the window's edge too,
//! with guesses taken back on both sides of it.

mod scoring;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretoken::engine::Engine;
use foretoken::llama::context::ContextOptions;
use foretoken::llama::gguf::{GgufFile, GgufWriter, Tensor, TensorType};
use foretoken::llama::model::{LoadOptions, Model};
use foretoken::sampler::Sampling;
use foretoken_drafter::{Drafter, LanguageModel, NodeId, Shape, Token, TokenTree};
use foretoken_drafter_merge::Merge;
use foretoken_drafter_model::ModelDrafter;
use foretoken_drafter_ngram::NgramDrafter;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scoring::{difference, exact, random_tree, scorer, Random, SEQ};

const LAYERS: u32 = 3;
const WIDTH: u64 = 64;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const HEAD: u64 = WIDTH / HEADS;
const FFN: u64 = 128;
/// The only tokens that are said.
const SAID: std::ops::Range<u64> = 97..123;
const WINDOW: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Attention biases, and an output matrix of its own.
    Qwen2,
    /// A window on layers 0 and 2, norms behind attention and feed-forward, capped logits, the embedding as output.
    Gemma2 { window: u32 },
}

const KINDS: [Kind; 2] = [Kind::Qwen2, Kind::Gemma2 { window: WINDOW }];

/// A model of `kind`; with `blur`, its weights are off by so much: a draft model that is right often, not always.
fn model(kind: Kind, blur: f32, folder: &Path) -> Arc<Model> {
    let path: PathBuf = folder.join(format!("{kind:?}-{blur}.gguf"));
    let tokenizer = GgufFile::open(Path::new("models/tiny.gguf")).unwrap();
    let n_vocab = tokenizer.texts("tokenizer.ggml.tokens").unwrap().len() as u64;
    let mut writer = GgufWriter::new();
    writer.copy(&tokenizer, |key| key.starts_with("tokenizer."));
    let name = if kind == Kind::Qwen2 { "qwen2" } else { "gemma2" };
    writer.set("general.architecture", name);
    for (key, n) in [
        ("context_length", 512),
        ("embedding_length", WIDTH),
        ("block_count", u64::from(LAYERS)),
        ("feed_forward_length", FFN),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", HEAD),
        ("attention.value_length", HEAD),
    ] {
        writer.set(&format!("{name}.{key}"), n as u32);
    }
    writer.set(&format!("{name}.attention.layer_norm_rms_epsilon"), 1e-6f32);
    if let Kind::Gemma2 { window } = kind {
        writer.set("gemma2.attention.sliding_window", window);
        writer.set("gemma2.attn_logit_softcapping", 50f32);
        writer.set("gemma2.final_logit_softcapping", 30f32);
    }

    let mut tensor = |name: &str, shape: &[u64]| writer.tensor(name, TensorType::new(0).unwrap(), shape);
    tensor("token_embd.weight", &[WIDTH, n_vocab]);
    tensor("output_norm.weight", &[WIDTH]);
    if kind == Kind::Qwen2 {
        tensor("output.weight", &[WIDTH, n_vocab]);
    }
    for layer in 0..LAYERS {
        let mut tensor = |name: &str, shape: &[u64]| tensor(&format!("blk.{layer}.{name}"), shape);
        tensor("attn_norm.weight", &[WIDTH]);
        for (name, out) in [("attn_q", HEADS * HEAD), ("attn_k", KV_HEADS * HEAD), ("attn_v", KV_HEADS * HEAD)] {
            tensor(&format!("{name}.weight"), &[WIDTH, out]);
            if kind == Kind::Qwen2 {
                tensor(&format!("{name}.bias"), &[out]);
            }
        }
        tensor("attn_output.weight", &[HEADS * HEAD, WIDTH]);
        tensor("ffn_norm.weight", &[WIDTH]);
        tensor("ffn_gate.weight", &[WIDTH, FFN]);
        tensor("ffn_up.weight", &[WIDTH, FFN]);
        tensor("ffn_down.weight", &[FFN, WIDTH]);
        if kind != Kind::Qwen2 {
            tensor("post_attention_norm.weight", &[WIDTH]);
            tensor("post_ffw_norm.weight", &[WIDTH]);
        }
    }
    let (mut weights, mut noise) = (StdRng::seed_from_u64(5), StdRng::seed_from_u64(6));
    let made = writer.write(&path, |tensor, out| {
        let numbers = (0..tensor.bytes / 4).flat_map(|i| {
            let uniform = |random: &mut StdRng| (random.random::<f32>() * 2.0 - 1.0) * 3f32.sqrt();
            let exact = weight(tensor, i, uniform(&mut weights));
            (exact * (1.0 + blur * uniform(&mut noise))).to_le_bytes()
        });
        out.write_all(&numbers.collect::<Vec<u8>>())
    });
    made.unwrap();
    Model::load(&path, &LoadOptions { gpu_layers: Some(0), ..LoadOptions::default() }).expect("it loads")
}

/// The `i`-th number of a tensor, from a random one of variance 1: sizes under which attention picks out a few tokens,
/// what it brings weighs as much as the token itself, and no token is far likelier than all others.
fn weight(tensor: &Tensor, i: u64, random: f32) -> f32 {
    let by_row = random / (tensor.shape[0] as f32).sqrt();
    match tensor.name.as_str() {
        "token_embd.weight" | "output.weight" if !SAID.contains(&(i / WIDTH)) => 0.0,
        "token_embd.weight" | "output.weight" => by_row,
        // Of both signs, or else an embedding that is the output too would have every token say itself.
        "output_norm.weight" => 4.0 * random.signum(),
        // llama.cpp looks GELU up in a table of half-precision numbers, where a last digit becomes a step: kept small.
        name if name.ends_with("post_ffw_norm.weight") => 0.03,
        name if name.ends_with("norm.weight") => 1.0,
        name if name.ends_with("bias") => 0.5 * random,
        name if name.contains("attn_q") || name.contains("attn_k") => 1.5 * by_row,
        name if name.contains("attn_output") => 2.0 * by_row,
        _ => by_row,
    }
}

fn prompt() -> Vec<Token> {
    (0..24).map(|i| (SAID.start + i * i * 7 % (SAID.end - SAID.start)) as Token).collect()
}

/// Greedy text, token by token without an engine, and the smallest lead that a token had over the next likely.
fn plain(model: &Arc<Model>) -> (Vec<Token>, f32) {
    let (mut scorer, mut text, mut smallest) = (scorer(model, &exact()), prompt(), f32::INFINITY);
    for _ in 0..LENGTH {
        let bare = TokenTree::bare(text[text.len() - 1]);
        let scores = scorer.score(SEQ, &text, &bare, &[NodeId::ROOT]).expect("it scores");
        let mut ranked: Vec<(f32, Token)> = scores.row(0).iter().copied().zip(0..).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        smallest = smallest.min(ranked[0].0 - ranked[1].0);
        text.push(ranked[0].1);
    }
    (text.split_off(prompt().len()), smallest)
}

const LENGTH: usize = 200;

#[test]
fn greedy_text_is_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let target = model(kind, 0.0, folder.path());
        let (wanted, lead) = plain(&target);
        let distinct: std::collections::HashSet<&[Token]> = wanted.windows(3).collect();
        println!("{kind:?}: {} different trigrams, smallest lead {lead:.1e}", distinct.len());
        assert!(lead > 3e-4, "{kind:?}: {lead} is so near a tie that rounding may decide");
        assert!(distinct.len() > LENGTH / 3, "{kind:?} goes round in a circle: {wanted:?}");

        let draft = model(kind, 0.05, folder.path());
        let ngram = || Box::new(NgramDrafter::new(Default::default()).expect("defaults are right")) as Box<dyn Drafter>;
        let drafter = || Box::new(ModelDrafter::new(Box::new(scorer(&draft, &exact())))) as Box<dyn Drafter>;
        for (name, drafter) in
            [("ngram", ngram()), ("model", drafter()), ("merge", Box::new(Merge::new(vec![ngram(), drafter()])))]
        {
            let shape = Shape { max_nodes: 12, depth: 4, width: 2 };
            let host = Box::new(scorer(&target, &exact()));
            let mut engine = Engine::new(host, Some(drafter), Sampling::GREEDY, shape, 0);
            let (mut drafted, mut accepted, mut widest) = (0, 0, 0);
            engine.start(&prompt()).expect("it starts");
            while engine.context().len() < prompt().len() + LENGTH {
                let round = engine.step(usize::MAX).expect("it steps");
                (drafted, accepted) = (drafted + round.drafted, accepted + round.accepted);
                widest = widest.max(round.drafted);
            }
            println!("{kind:?}, {name}: {accepted} of {drafted} accepted, {widest} at most");
            assert_eq!(engine.context()[prompt().len()..][..LENGTH], wanted, "{kind:?}, {name}");
            assert!(accepted > 5 && drafted > accepted + 20, "{kind:?}, {name}: {accepted} of {drafted} accepted");
            assert!(name == "ngram" || widest > 4 && accepted > LENGTH / 4, "{name} drafts trees: {widest} nodes");
        }
    }
}

#[test]
fn a_tree_equals_its_paths() {
    let folder = tempfile::tempdir().unwrap();
    let (mut random, tokens) = (Random(13), SAID.start as Token..SAID.end as Token);
    for kind in KINDS {
        let target = model(kind, 0.0, folder.path());
        let mut at_once = scorer(&target, &exact());
        let text = [prompt(), plain(&target).0].concat();
        // Within the window, across its edge, and far behind it; then back again.
        for (len, leaves) in [(4, 6), (WINDOW as usize - 2, 12), (60, 24), (200, 6), (190, 12), (10, 6)] {
            let tree = random_tree(text[len - 1], leaves, tokens.clone(), &mut random);
            let nodes: Vec<NodeId> = tree.ids().collect();
            let mut alone = scorer(&target, &exact());
            let worst = difference(&mut at_once, &mut alone, &text[..len], &tree, &nodes);
            println!("{kind:?}, after {len} tokens: {leaves} leaves, {} nodes: {worst:.1e}", tree.len());
            assert!(worst <= 1e-4, "{kind:?}, after {len} tokens: {leaves} leaves, {} nodes: {worst}", tree.len());
        }
    }
}

/// A cache as small as the window allows would have written over what a shorter text needs again.
#[test]
fn what_the_window_has_left_behind_is_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let target = model(Kind::Gemma2 { window: WINDOW }, 0.0, folder.path());
    let options = ContextOptions { n_ctx: 2048, max_leaves: 16, ..exact() };
    let (mut at_once, mut alone) = (scorer(&target, &options), scorer(&target, &options));
    let text = [prompt(), plain(&target).0].concat().repeat(8);
    let bare = TokenTree::bare(text[text.len() - 1]);
    at_once.score(SEQ, &text, &bare, &[NodeId::ROOT]).expect("it scores");
    let context = &text[..60];
    let tree = random_tree(context[59], 8, SAID.start as Token..SAID.end as Token, &mut Random(17));
    let nodes: Vec<NodeId> = tree.ids().collect();
    let worst = difference(&mut at_once, &mut alone, context, &tree, &nodes);
    assert!(worst <= 1e-4, "after {} tokens, then 60: {worst}", text.len());
}

/// Or else the tests above would say nothing of windows.
#[test]
fn the_window_decides_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let [narrow, wide] = [WINDOW, 4096].map(|window| plain(&model(Kind::Gemma2 { window }, 0.0, folder.path())).0);
    assert_ne!(narrow, wide);
}
