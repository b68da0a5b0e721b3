//! Trees, and the paths in them, scored by real models: for tests that compare the two.

use std::ops::Range;
use std::sync::Arc;

use foretoken::config::KvType;
use foretoken::llama::context::{Context, ContextOptions};
use foretoken::llama::model::Model;
use foretoken::llama::scorer::Scorer;
use foretoken_drafter::{Dice, LanguageModel, NodeId, SeqId, Shape, Token, TokenTree};

pub const SEQ: SeqId = SeqId(0);

/// Room for the largest trees, an F32 cache and no flash attention: rounding only. One thread, for tests run side by side.
pub fn exact() -> ContextOptions {
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

/// Scores with a fresh context.
pub fn scorer(model: &Arc<Model>, options: &ContextOptions) -> Scorer {
    Scorer::new(Context::new(model.clone(), options).expect("a context"))
}

/// Random numbers, the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

impl Dice for Random {
    fn pick(&mut self, weights: &[f64]) -> usize {
        self.below(weights.len())
    }
}

/// A tree of some of `tokens` with exactly `leaves` leaves, random otherwise.
pub fn random_tree(root: Token, leaves: usize, tokens: Range<Token>, random: &mut Random) -> TokenTree {
    let mut tree = TokenTree::new(tokens.end as usize, Box::new(Random(0)));
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
            tree.add(parent, tokens.start + random.below(tokens.len()) as Token, 0.5);
        }
    }
}

/// Largest difference between the rows of `nodes` and each path scored alone.
pub fn difference(
    scorer: &mut Scorer,
    alone: &mut Scorer,
    context: &[Token],
    tree: &TokenTree,
    nodes: &[NodeId],
) -> f32 {
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
