//! A staged drafter grows the very tree that its model grows alone, in fewer passes of that model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use foretoken::dice::{SeededDice, Stream};
use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::toy::{ToyHost, ToyModel};
use foretoken_drafter::{
    DraftError, DraftRequest, Drafter, Host, LanguageModel, NodeId, Scores, SeqId, Shape, Token, TokenTree,
};
use foretoken_drafter_model::ModelDrafter;
use foretoken_drafter_ngram::{NgramDrafter, Settings};
use foretoken_drafter_staged::Staged;

/// Counts passes, and looks at what a real context would refuse.
struct Counted {
    model: ToyModel,
    passes: Arc<AtomicUsize>,
    largest: Arc<AtomicUsize>,
}

impl LanguageModel for Counted {
    fn score(
        &mut self,
        seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(new.len(), Ordering::Relaxed);
        self.model.score(seq, context, tree, new)
    }

    fn n_vocab(&self) -> usize {
        self.model.n_vocab()
    }

    fn n_ctx(&self) -> usize {
        self.model.n_ctx()
    }
}

/// A node as the verifier sees it: its path, and the law that it was drawn from.
type Seen = (Vec<Token>, Option<(Vec<Token>, Vec<f64>)>);

/// The trees of many contexts, the passes they took, and the most nodes scored in one.
fn trees(
    drafter: impl FnOnce(Box<dyn LanguageModel>) -> Box<dyn Drafter>,
    model: &ToyModel,
    sampling: &Sampling,
    shape: Shape,
) -> (Vec<Vec<Seen>>, usize, usize) {
    let (passes, largest) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counted = Counted { model: model.clone(), passes: passes.clone(), largest: largest.clone() };
    let mut drafter = drafter(Box::new(counted));
    let mut tree = TokenTree::new(model.n_vocab(), Box::new(SeededDice::new(5, Stream::Draft)));
    let mut text: Vec<Token> = vec![1, 2, 3];
    let mut trees = Vec::new();
    for _ in 0..400 {
        tree.begin(text[text.len() - 1], shape);
        drafter.draft(&DraftRequest { seq: SeqId(0), context: &text, law: sampling }, &mut tree).unwrap();
        let law = |node| tree.draw(node).map(|draw| (draw.q.tokens().to_vec(), draw.q.probs().to_vec()));
        trees.push(tree.ids().map(|node| (tree.path(node), law(node))).collect());
        // Now down a branch, now off it.
        let deepest = tree.ids().max_by_key(|&node| tree.depth(node)).unwrap();
        text.extend(&tree.path(deepest)[..trees.len() % (tree.depth(deepest) + 1)]);
        text.push(trees.len() as Token % 7);
    }
    (trees, passes.load(Ordering::Relaxed), largest.load(Ordering::Relaxed))
}

#[test]
fn the_tree_is_that_of_the_model_alone_in_fewer_passes() {
    let model = ToyModel::new(24, 2, 14.0, 3);
    let close = model.imitated(0.1, 8);
    let shapes = [
        Shape { max_nodes: 4, depth: 4, width: 1 },
        Shape { max_nodes: 12, depth: 4, width: 3 },
        Shape { max_nodes: 16, depth: 8, width: 2 },
    ];
    for temperature in [0.0, 1.0] {
        for shape in shapes {
            let sampling = Sampling { temperature, repeat_penalty: 1.1, ..Sampling::GREEDY };
            let alone = |model| Box::new(ModelDrafter::new(model)) as Box<dyn Drafter>;
            let (plain, passes, _) = trees(alone, &model, &sampling, shape);
            let small = || alone(Box::new(close.clone()));
            let (trees_of_two, passes_of_two, largest) =
                trees(|model| Box::new(Staged::new(model, small())), &model, &sampling, shape);
            let ngram = NgramDrafter::new(Settings::default()).unwrap();
            let (trees_of_ngram, passes_of_ngram, _) =
                trees(|model| Box::new(Staged::new(model, Box::new(ngram))), &model, &sampling, shape);
            println!("{shape:?}, temperature {temperature}: {passes} passes, over a model {passes_of_two}, over ngram {passes_of_ngram}");
            assert!(plain == trees_of_two && plain == trees_of_ngram, "{shape:?}, temperature {temperature}");
            assert!(plain.iter().filter(|tree| tree.len() > 3).count() > 200, "there is something to compare");
            let most = if temperature == 0.0 { 0.6 } else { 0.9 };
            assert!((passes_of_two as f64) < most * passes as f64, "{passes_of_two} passes instead of {passes}");
            assert!(passes_of_ngram < passes, "{passes_of_ngram} passes instead of {passes}");
            assert!(largest <= shape.max_nodes, "{largest} nodes in a pass");
        }
    }
}

#[test]
fn where_the_context_ends_it_is_still_the_tree_of_the_model() {
    let shape = Shape { max_nodes: 8, depth: 4, width: 2 };
    for n_ctx in 3..40 {
        let model = ToyModel::new(24, 2, 14.0, 3).with_context(n_ctx);
        let inner = Box::new(ModelDrafter::new(Box::new(model.clone().with_context(30))));
        let (plain, ..) = trees(|model| Box::new(ModelDrafter::new(model)), &model, &Sampling::GREEDY, shape);
        let (staged, ..) = trees(|model| Box::new(Staged::new(model, inner)), &model, &Sampling::GREEDY, shape);
        assert!(plain == staged, "a context of {n_ctx}");
    }
}

#[test]
fn what_cannot_be_staged_is_refused_with_the_reason() {
    let target = ToyModel::new(12, 2, 4.0, 3);
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, &target).with("draft", target.clone());
    for (settings, expected) in [
        ("model = 'draft'", "it needs an inner drafter, as in drafter = { kind = \"ngram\" }"),
        ("model = 'draft'\ndrafter = 'ngram'", "it needs an inner drafter"),
        ("model = 'draft'\ndrafter = { min_match = 1 }", "its inner drafter needs a kind"),
        ("model = 'draft'\ndrafter = { kind = 'none' }", "use kind = \"model\" alone"),
        ("model = 'draft'\ndrafter = { kind = 'ngrm' }", "unknown drafter `ngrm`; did you mean `ngram`?"),
        ("drafter = { kind = 'ngram' }", "`model` is missing"),
        ("model = 'draft'\nmodels = 1\ndrafter = { kind = 'ngram' }", "`models`"),
        ("model = 'absent'\ndrafter = { kind = 'ngram' }", "there is no toy model `absent`"),
    ] {
        let Err(error) = host.build("staged", settings) else { panic!("{settings} is accepted") };
        assert!(error.to_string().contains(expected), "{settings}: {error}");
    }
}
