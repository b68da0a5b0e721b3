//! A tree scored in one decode equals each of its paths scored alone, on a real model with F32 weights,
//! an F32 cache and no flash attention, where rounding is all that may differ.

mod scoring;

use std::path::Path;
use std::sync::Arc;

use foretoken::config::KvType;
use foretoken::llama::context::ContextOptions;
use foretoken::llama::model::{LoadOptions, Model};
use foretoken_drafter::{NodeId, Shape, Token, TokenTree};
use scoring::{difference, exact, random_tree, scorer, Random};

fn model(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    Model::load(&path, &LoadOptions { gpu_layers: Some(0), ..LoadOptions::default() }).expect("a bundled model loads")
}

#[test]
fn a_tree_in_one_decode_equals_its_paths() {
    let model = model("tiny.gguf");
    let (mut tree_scorer, mut alone) = (scorer(&model, &exact()), scorer(&model, &exact()));
    let mut random = Random(7);
    let context = model.tokenise("Once upon a time there was a little", true).expect("text");
    for leaves in [1, 2, 3, 4, 8, 16, 32, 64] {
        let tree = random_tree(context[context.len() - 1], leaves, 0..model.n_vocab() as Token, &mut random);
        let nodes: Vec<NodeId> = tree.ids().collect();
        let worst = difference(&mut tree_scorer, &mut alone, &context, &tree, &nodes);
        assert!(worst <= 1e-4, "{leaves} leaves, {} nodes: {worst}", tree.len());
    }
}

#[test]
fn growth_in_any_order_and_three_commits_equal_the_paths() {
    let model = model("tiny.gguf");
    let (mut tree_scorer, mut alone) = (scorer(&model, &exact()), scorer(&model, &exact()));
    let mut random = Random(11);
    for _ in 0..4 {
        let mut context = model.tokenise("One day", true).expect("text");
        // What is scored after the third commit shows that it was right.
        for _ in 0..4 {
            let root = context[context.len() - 1];
            let mut tree = TokenTree::new(model.n_vocab(), Box::new(Random(0)));
            tree.begin(root, Shape { max_nodes: 60, depth: 16, width: 1 });
            let mut new = vec![NodeId::ROOT];
            for _ in 0..10 {
                let worst = difference(&mut tree_scorer, &mut alone, &context, &tree, &new);
                assert!(worst <= 1e-4, "{} nodes: {worst}", tree.len());
                new.clear();
                while new.is_empty() || random.below(3) > 0 {
                    let parent = tree.ids().nth(random.below(tree.len())).expect("in range");
                    let (known, token) = (tree.len(), random.below(model.n_vocab()) as Token);
                    new.extend(tree.add(parent, token, 0.5).filter(|n| n.index() >= known));
                }
            }
            // Commit a random branch and a token after it.
            let tip = tree.ids().nth(random.below(tree.len())).expect("in range");
            context.extend(tree.path(tip));
            context.push(random.below(model.n_vocab()) as Token);
        }
    }
}

#[test]
fn with_default_settings_the_difference_is_reported() {
    for name in ["tiny.gguf", "target.gguf"] {
        let model = model(name);
        let options = ContextOptions { type_k: KvType::F16, type_v: KvType::F16, flash_attention: None, ..exact() };
        let (mut tree_scorer, mut alone) = (scorer(&model, &options), scorer(&model, &options));
        let context = model.tokenise("Once upon a time there was a little", true).expect("text");
        let tree = random_tree(context[context.len() - 1], 8, 0..model.n_vocab() as Token, &mut Random(3));
        let nodes: Vec<NodeId> = tree.ids().collect();
        let worst = difference(&mut tree_scorer, &mut alone, &context, &tree, &nodes);
        println!("{name}: 8 leaves, {} nodes, default settings: max |Δlogit| {worst:.1e}", tree.len());
        assert!(worst.is_finite());
    }
}
