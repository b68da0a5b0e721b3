//! Level 4: on the bundled models, whatever drafts, the text is the target's own: greedy text token by
//! token up to near-ties, sampled text by its joint law.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use foretoken::config::KvType;
use foretoken::dice::{SeededDice, Stream};
use foretoken::engine::Engine;
use foretoken::llama::context::{Context, ContextOptions};
use foretoken::llama::model::{LoadOptions, Model};
use foretoken::llama::probe::{chain, logit_difference};
use foretoken::llama::quantize::{quantize, Precision, Quantize};
use foretoken::llama::scorer::Scorer;
use foretoken::sampler::Sampling;
use foretoken::testkit::chi_squared::ChiSquared;
use foretoken_drafter::{Drafter, LanguageModel, Law, NodeId, SeqId, Shape, Token, TokenTree};
use foretoken_drafter_cascade::Cascade;
use foretoken_drafter_merge::Merge;
use foretoken_drafter_model::ModelDrafter;
use foretoken_drafter_ngram::NgramDrafter;
use foretoken_drafter_recycle::Recycle;
use foretoken_drafter_staged::Staged;

const SEQ: SeqId = SeqId(0);

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

fn load(path: &Path) -> Arc<Model> {
    Model::load(path, &LoadOptions { gpu_layers: Some(0), ..LoadOptions::default() }).expect("it loads")
}

/// One thread (tests run side by side), an F32 cache and no flash attention: rounding only.
fn scorer(model: &Arc<Model>) -> Box<Scorer> {
    let options = ContextOptions {
        n_ctx: 512,
        max_nodes: 16,
        max_leaves: 16,
        threads: 1,
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: Some(false),
    };
    Box::new(Scorer::new(Context::new(model.clone(), &options).expect("a context")))
}

/// A draft model made from `name`: stored otherwise, or some of its layers.
fn derived(folder: &Path, name: &str, precision: Precision, layers: Option<Vec<u32>>) -> Arc<Model> {
    let kept = layers.as_ref().map_or("all".to_owned(), |l| format!("{l:?}"));
    let path = folder.join(format!("{}-{kept}-{name}", precision.name()));
    let options = Quantize { precision, threads: 1, layers, requantize: true };
    quantize(&bundled(name), &path, &options).expect("it can be derived");
    load(&path)
}

const CHAIN: Shape = Shape { max_nodes: 4, depth: 4, width: 1 };
const TREE: Shape = Shape { max_nodes: 12, depth: 4, width: 2 };

fn greedy(engine: &mut Engine, prompt: &[Token], n: usize) -> Vec<Token> {
    engine.start(prompt).expect("it starts");
    while engine.context().len() < prompt.len() + n {
        engine.step(usize::MAX).expect("it steps");
    }
    engine.context()[prompt.len()..prompt.len() + n].to_vec()
}

struct Plain {
    prompt: Vec<Token>,
    tokens: Vec<Token>,
}

/// What the target, its weights in F32, says by itself after each of 20 prompts.
fn plain() -> &'static (Arc<Model>, Vec<Plain>) {
    type Kept = (tempfile::TempDir, (Arc<Model>, Vec<Plain>));
    static PLAIN: OnceLock<Kept> = OnceLock::new();
    let (_, made) = PLAIN.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let target = derived(folder.path(), "target.gguf", Precision::F32, None);
        let mut engine = Engine::new(scorer(&target), None, Sampling::GREEDY, CHAIN, 0);
        let texts = PROMPTS.iter().map(|text| {
            let prompt = target.tokenise(text, true).expect("text");
            let tokens = greedy(&mut engine, &prompt, LENGTH);
            Plain { prompt, tokens }
        });
        let texts = texts.collect();
        (folder, (target, texts))
    });
    made
}

const LENGTH: usize = 256;

/// llama.cpp rounds contexts up to 256 tokens, so of this one no cell is left over.
fn small(name: &str) -> Box<Scorer> {
    let options =
        ContextOptions { n_ctx: 256, threads: 1, type_k: KvType::F32, type_v: KvType::F32, ..Default::default() };
    Box::new(Scorer::new(Context::new(load(&bundled(name)), &options).expect("a context")))
}

#[test]
fn a_tree_needs_a_cell_for_each_node_whatever_its_leaves() {
    let mut full = small("target.gguf");
    let context: Vec<Token> = (0..240).map(|i| i * 37 % 400 + 3).collect();
    let mut tree = TokenTree::new(full.n_vocab(), Box::new(SeededDice::new(0, Stream::Draft)));
    for (width, depth) in [(16, 1), (4, 4), (1, 16)] {
        tree.begin(context[239], Shape { max_nodes: 16, depth, width });
        let mut parents = vec![NodeId::ROOT; width];
        for i in 0..16 {
            let parent = parents[i % width];
            parents[i % width] = tree.add(parent, 100 + i as Token, 0.5).expect("there is room");
        }
        let nodes: Vec<NodeId> = tree.ids().collect();
        let scores = full.score(SEQ, &context, &tree, &nodes).expect("240 tokens and 16 nodes are 256 cells");
        let last = scores.row(16).to_vec();
        let path = [&context[..], &tree.path(nodes[16])].concat();
        let bare = TokenTree::bare(path[path.len() - 1]);
        let mut alone = small("target.gguf");
        let alone = alone.score(SEQ, &path, &bare, &[NodeId::ROOT]).expect("it fits");
        let difference = last.iter().zip(alone.row(0)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 0.05, "{width} leaves: {difference}");
    }
}

#[test]
fn the_last_cells_of_a_context_are_filled_as_by_plain_decoding() {
    let prompt = load(&bundled("target.gguf")).tokenise(&"Once upon a time there was a little cat. ".repeat(20), true);
    let prompt = prompt.expect("it is text");
    let text = |drafter: Option<Box<dyn Drafter>>| {
        let shape = Shape { max_nodes: 16, depth: 5, width: 8 };
        let mut engine = Engine::new(small("target.gguf"), drafter, Sampling::GREEDY, shape, 0);
        engine.start(&prompt[..200]).expect("it starts");
        let mut widest = 0;
        while !engine.is_full() {
            widest = widest.max(engine.step(usize::MAX).expect("no tree asks for more cells than are free").drafted);
        }
        (engine.context().to_vec(), widest)
    };
    let recycle = || Box::new(Recycle::new(load(&bundled("target.gguf")).n_vocab(), 8)) as Box<dyn Drafter>;
    let model = || Box::new(ModelDrafter::new(small("draft.gguf"))) as Box<dyn Drafter>;
    let (plain, _) = text(None);
    for drafter in [recycle(), model(), Box::new(Merge::new(vec![recycle(), model()]))] {
        let (drafted, widest) = text(Some(drafter));
        assert!(drafted.len() == 257 && drafted == plain && widest == 16, "{} tokens, {widest} nodes", drafted.len());
    }
}

/// Drafted greedy text equals plain text, except at near-ties: places where plain's lead over the second
/// token is at most twice what logits move between passes of one and of many tokens, measured there.
/// From such a place on it is compared again after plain's token.
fn same_greedy_text(what: &str, shape: Shape, drafter: Box<dyn Drafter>) {
    let (target, texts) = plain();
    let mut engine = Engine::new(scorer(target), Some(drafter), Sampling::GREEDY, shape, 0);
    let mut probe = scorer(target);
    let mut ties = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let mut done = 0;
        while done < LENGTH {
            let context = [&text.prompt[..], &text.tokens[..done]].concat();
            let tokens = greedy(&mut engine, &context, LENGTH - done);
            let Some(at) = tokens.iter().zip(&text.tokens[done..]).position(|(a, b)| a != b) else { break };
            let whole = [&text.prompt[..], &text.tokens[..done + at]].concat();
            let noise = noise_at(probe.as_mut(), &whole, text.prompt.len());
            let margin = logit_difference(probe.as_mut(), &whole, 1).expect("it scores").smallest_margin;
            assert!(margin <= 2.0 * noise, "{what}, prompt {i}, token {}: margin {margin}, noise {noise}", done + at);
            println!("{what}: near-tie in prompt {i} at token {}: margin {margin:.1e}, noise {noise:.1e}", done + at);
            ties.push((i, done + at));
            done += at + 1;
        }
    }
    let most = texts.len() * LENGTH / 1000;
    assert!(ties.len() <= most, "{what}: {} near-ties in {} tokens", ties.len(), texts.len() * LENGTH);
}

/// How far the logits after `text` move between reading it, from token `from` on, one by one and in passes of several.
/// What the cache holds of it moves too, so all that was generated is read again and not just its last tokens: where
/// activations are quantised, a last digit may become a step.
fn noise_at(probe: &mut Scorer, text: &[Token], from: usize) -> f32 {
    let one_by_one = read_in_passes(probe, text, from, 1);
    let difference = |size: usize| {
        let many = read_in_passes(probe, text, from, size);
        one_by_one.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    [2, 3, 5, 8, 13].into_iter().map(difference).fold(0.0, f32::max)
}

/// The logits after `text`, read in passes of `size` tokens from token `from` on.
fn read_in_passes(probe: &mut Scorer, text: &[Token], from: usize, size: usize) -> Vec<f32> {
    let (mut end, mut last) = (from, Vec::new());
    probe.end(SEQ);
    while end < text.len() {
        let n = size.min(text.len() - end);
        end += n;
        let (context, tree) = chain(probe, &text[..end], n).expect("it is long enough");
        let nodes: Vec<NodeId> = tree.ids().collect();
        last = probe.score(SEQ, context, &tree, &nodes).expect("it scores").row(n - 1).to_vec();
    }
    last
}

fn model(draft: &Arc<Model>) -> Box<dyn Drafter> {
    Box::new(ModelDrafter::new(scorer(draft)))
}

fn ngram() -> Box<dyn Drafter> {
    Box::new(NgramDrafter::new(Default::default()).expect("defaults are right"))
}

#[test]
fn greedy_with_the_bundled_draft_model() {
    let draft = load(&bundled("draft.gguf"));
    same_greedy_text("model, chain", CHAIN, model(&draft));
    same_greedy_text("model, tree", TREE, model(&draft));
}

#[test]
fn greedy_with_ngram_and_cascade() {
    let draft = load(&bundled("draft.gguf"));
    same_greedy_text("ngram", TREE, ngram());
    same_greedy_text("cascade", TREE, Box::new(Cascade::new(vec![ngram(), model(&draft)])));
}

#[test]
fn greedy_with_merge_staged_and_recycle() {
    let (draft, small) = (load(&bundled("draft.gguf")), load(&bundled("draft-small.gguf")));
    let recycle = || Box::new(Recycle::new(draft.n_vocab(), 8)) as Box<dyn Drafter>;
    same_greedy_text("recycle", TREE, recycle());
    for shape in [CHAIN, TREE] {
        same_greedy_text("merge", shape, Box::new(Merge::new(vec![ngram(), model(&draft), recycle()])));
        same_greedy_text("staged over a model", shape, Box::new(Staged::new(scorer(&draft), model(&small))));
        same_greedy_text("staged over ngram", shape, Box::new(Staged::new(scorer(&draft), ngram())));
    }
}

#[test]
fn greedy_with_graded_drafts() {
    let folder = tempfile::tempdir().expect("a folder");
    for (precision, layers) in [
        (Precision::Q8_0, None),
        (Precision::Q4_0, None),
        (Precision::Copy, Some(vec![0, 1, 2])),
        (Precision::Copy, Some(vec![0])),
    ] {
        let what = format!("{} {layers:?}", precision.name());
        let draft = derived(folder.path(), "target.gguf", precision, layers);
        same_greedy_text(&what, TREE, model(&draft));
        same_greedy_text(&what, CHAIN, model(&draft));
    }
}

/// A target of fewer bits scores trees too.
#[test]
fn a_target_of_any_precision_says_the_same_with_and_without_a_drafter() {
    let folder = tempfile::tempdir().expect("a folder");
    for precision in [Precision::F16, Precision::Q8_0, Precision::Q4_0, Precision::Q4KM] {
        let target = derived(folder.path(), "target.gguf", precision, None);
        let prompt = target.tokenise(PROMPTS[0], true).expect("text");
        let mut engine = Engine::new(scorer(&target), None, Sampling::GREEDY, CHAIN, 0);
        let wanted = greedy(&mut engine, &prompt, 64);
        let mut engine = Engine::new(scorer(&target), Some(model(&target)), Sampling::GREEDY, TREE, 0);
        let got = greedy(&mut engine, &prompt, 64);
        let differ = wanted.iter().zip(&got).position(|(a, b)| a != b);
        if let Some(at) = differ {
            let whole = [&prompt[..], &wanted[..at]].concat();
            let mut probe = scorer(&target);
            let noise = noise_at(probe.as_mut(), &whole, prompt.len());
            let margin = logit_difference(probe.as_mut(), &whole, 1).expect("it scores").smallest_margin;
            assert!(margin <= 2.0 * noise, "{}: token {at}: margin {margin}, noise {noise}", precision.name());
        }
    }
}

/// Probability of every sequence of three tokens after `prompt` that is likelier than `floor`, by the
/// chain rule over one-token passes.
fn three_tokens(model: &mut dyn LanguageModel, law: &Sampling, prompt: &[Token], floor: f64) -> Vec<(Vec<Token>, f64)> {
    let mut paths = vec![(Vec::new(), 1.0)];
    for _ in 0..3 {
        let mut longer = Vec::new();
        for (path, probability) in paths {
            let context = [prompt, &path[..]].concat();
            let bare = TokenTree::bare(context[context.len() - 1]);
            let scores = model.score(SEQ, &context, &bare, &[NodeId::ROOT]).expect("it scores");
            let next = law.dist(scores.row(0), &[], &[]);
            let step = next.iter().map(|(token, p)| ([&path[..], &[token]].concat(), probability * p));
            longer.extend(step.filter(|(_, p)| *p >= floor));
        }
        paths = longer;
    }
    paths
}

#[test]
fn the_joint_law_of_three_sampled_tokens() {
    const N: usize = 50_000;
    let folder = tempfile::tempdir().expect("a folder");
    let target = load(&bundled("tiny.gguf"));
    let law = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let prompt = target.tokenise("Once upon a time", true).expect("text");
    let cells = three_tokens(scorer(&target).as_mut(), &law, &prompt, 5.0 / N as f64);
    let covered: f64 = cells.iter().map(|(_, p)| p).sum();
    let mut probabilities: Vec<f64> = cells.iter().map(|(_, p)| *p).collect();
    probabilities.push(1.0 - covered);

    let draft = derived(folder.path(), "tiny.gguf", Precision::Copy, Some(vec![0, 1]));
    for (seed, shape) in [CHAIN, TREE].into_iter().enumerate() {
        let mut engine = Engine::new(scorer(&target), Some(model(&draft)), law.clone(), shape, seed as u64);
        let mut counts = vec![0u64; cells.len() + 1];
        let (mut drafted, mut accepted) = (0, 0);
        let place: std::collections::HashMap<&[Token], usize> =
            cells.iter().enumerate().map(|(i, (path, _))| (&path[..], i)).collect();
        for _ in 0..N {
            engine.start(&prompt).expect("it starts");
            while engine.context().len() < prompt.len() + 3 {
                let round = engine.step(prompt.len() + 2 - engine.context().len()).expect("it steps");
                (drafted, accepted) = (drafted + round.drafted, accepted + round.accepted);
            }
            let cell = place.get(&engine.context()[prompt.len()..]).copied().unwrap_or(cells.len());
            counts[cell] += 1;
        }
        let mut chi = ChiSquared::default();
        chi.add(&counts, &probabilities);
        println!(
            "{shape:?}: {} cells cover {covered:.3}, {accepted} of {drafted} accepted, {:.2} sigma",
            cells.len(),
            chi.z()
        );
        assert!(accepted > N / 10 && accepted < drafted, "the draft must be right now and then, and wrong");
        assert!(!chi.contradicts(), "{:.1} sigma", chi.z());
    }
}

const PROMPTS: [&str; 20] = [
    "Once upon a time, there was a little boat that wanted to see the ocean.",
    "One day, Lily found a shiny key under the old tree.",
    "The dog and the cat did not like the rain, so",
    "Ben was sad because his red ball was gone.",
    "Tom and his grandmother went to the market to buy",
    "User: I want to book a table for two.\nAssistant:",
    "User: Is there a bus to the airport tomorrow?\nAssistant:",
    "User: Play some music, please.\nAssistant:",
    "# tar\n\n> Archiving utility.\n\n- ",
    "# grep\n\n> Find patterns in files.\n\n- ",
    "Sara has 12 apples and gives 5 to her brother. How many apples are left?",
    "A box holds 24 pencils. How many pencils are in 7 boxes?",
    "def add(a, b):\n    ",
    "class Stack:\n    def __init__(self):\n",
    "def is_even(number: int) -> bool:\n    \"\"\"",
    "Text: The sun was warm and the bird sang.\nTask: repeat the text.\nResult:",
    "Text: Tom had a small cat. Tom loved the cat.\nTask: replace Tom with Anna.\nResult:",
    "Fields: id, name, age\nJSON:\n",
    "Fields: id, city, color, active\nJSON:\n[\n {\n  \"id\": 1,",
    "Fields: id, animal, score\nJSON:\n",
];
