//! A tree scored in one decode equals each of its paths scored alone, on a real model with F32 weights,
//! an F32 cache and no flash attention, where rounding is all that may differ.

use std::path::Path;
use std::sync::Arc;

use foretoken::config::KvType;
use foretoken::llama::context::{Context, ContextOptions};
use foretoken::llama::model::{LoadOptions, Model};
use foretoken::llama::scorer::Scorer;
use foretoken_drafter::{Dice, LanguageModel, NodeId, SeqId, Shape, Token, TokenTree};

const SEQ: SeqId = SeqId(0);

fn model(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    Model::load(&path, &LoadOptions { gpu_layers: Some(0), ..LoadOptions::default() }).expect("a bundled model loads")
}

fn exact() -> ContextOptions {
    ContextOptions {
        n_ctx: 512,
        max_nodes: 127,
        max_leaves: 64,
        threads: 1,
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: Some(false),
    }
}

fn scorer(model: &Arc<Model>, options: &ContextOptions) -> Scorer {
    Scorer::new(Context::new(model.clone(), options).expect("a context"))
}

struct Random(u64);
impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}
impl Dice for Random {
    fn pick(&mut self, weights: &[f64]) -> usize {
        self.below(weights.len())
    }
}

/// A tree with exactly `leaves` leaves, random otherwise.
fn random_tree(root: Token, leaves: usize, n_vocab: usize, random: &mut Random) -> TokenTree {
    let mut tree = TokenTree::new(n_vocab, Box::new(Random(0)));
    tree.begin(root, Shape { max_nodes: 127, depth: 32, width: 1 });
    let is_leaf = |tree: &TokenTree, node| tree.children(node).next().is_none();
    loop {
        let count = tree.ids().skip(1).filter(|&n| is_leaf(&tree, n)).count();
        if count == leaves && tree.len() > leaves + 4 {
            return tree;
        }
        // Lengthen a leaf while there is room, or branch off.
        let grow_leaf = count == leaves || (tree.room() > leaves && random.below(3) == 0);
        let parent = tree.ids().nth(random.below(tree.len())).expect("in range");
        if grow_leaf == (is_leaf(&tree, parent) && tree.len() > 1) {
            tree.add(parent, random.below(n_vocab) as Token, 0.5);
        }
    }
}

/// Largest difference between the rows of `nodes` and each path scored alone.
fn difference(scorer: &mut Scorer, alone: &mut Scorer, context: &[Token], tree: &TokenTree, nodes: &[NodeId]) -> f32 {
    let rows: Vec<Vec<f32>> = {
        let scores = scorer.score(SEQ, context, tree, nodes).expect("it scores");
        (0..nodes.len()).map(|i| scores.row(i).to_vec()).collect()
    };
    let mut worst: f32 = 0.0;
    for (row, &node) in rows.iter().zip(nodes) {
        let path = [context, &tree.path(node)].concat();
        // Token by token, as plain decoding does.
        for i in context.len()..path.len() {
            alone.score(SEQ, &path[..i], &TokenTree::bare(path[i - 1]), &[NodeId::ROOT]).expect("it scores");
        }
        let bare = TokenTree::bare(path[path.len() - 1]);
        let scores = alone.score(SEQ, &path, &bare, &[NodeId::ROOT]).expect("it scores");
        let differ = row.iter().zip(scores.row(0)).map(|(a, b)| (a - b).abs());
        worst = differ.fold(worst, f32::max);
    }
    worst
}

#[test]
fn a_tree_in_one_decode_equals_its_paths() {
    let model = model("tiny.gguf");
    let (mut tree_scorer, mut alone) = (scorer(&model, &exact()), scorer(&model, &exact()));
    let mut random = Random(7);
    let context = model.tokenise("Once upon a time there was a little", true).expect("text");
    for leaves in [1, 2, 3, 4, 8, 16, 32, 64] {
        let tree = random_tree(context[context.len() - 1], leaves, model.n_vocab(), &mut random);
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
        for _ in 0..3 {
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
        let tree = random_tree(context[context.len() - 1], 8, model.n_vocab(), &mut Random(3));
        let nodes: Vec<NodeId> = tree.ids().collect();
        let worst = difference(&mut tree_scorer, &mut alone, &context, &tree, &nodes);
        println!("{name}: 8 leaves, {} nodes, default settings: max |Δlogit| {worst:.1e}", tree.len());
        assert!(worst.is_finite());
    }
}
