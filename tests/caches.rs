//! What stays between texts: a draft model's cache does, so that the next turn of a chat is not read from its first token;
//! where a text is forgotten, nothing does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use foretoken::engine::Engine;
use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::conformance::CHAIN;
use foretoken::testkit::toy::ToyModel;
use foretoken_drafter::{
    Companions, Derivation, DraftError, Drafter, Host, LanguageModel, ModelSpec, NodeId, Scores, SeqId, TargetInfo,
    Token, TokenTree,
};

/// A model that counts how often its cache was cleared.
struct Counted(ToyModel, Arc<AtomicUsize>);

impl LanguageModel for Counted {
    fn score(
        &mut self,
        seq: SeqId,
        context: &[Token],
        tree: &TokenTree,
        new: &[NodeId],
    ) -> Result<Scores<'_>, DraftError> {
        self.0.score(seq, context, tree, new)
    }

    fn n_vocab(&self) -> usize {
        self.0.n_vocab()
    }

    fn n_ctx(&self) -> usize {
        self.0.n_ctx()
    }

    fn end(&mut self, _: SeqId) {
        self.1.fetch_add(1, Relaxed);
    }
}

/// Opens such a model whatever is asked for.
struct CountingHost<'a> {
    registry: &'a Registry,
    target: ToyModel,
    opened: usize,
    cleared: Arc<AtomicUsize>,
}

impl Host for CountingHost<'_> {
    fn target(&self) -> TargetInfo {
        let (n_vocab, n_ctx) = (self.target.n_vocab(), self.target.n_ctx());
        TargetInfo { n_vocab, n_embd: 3, n_layer: 4, n_ctx, tokenizer: 1 }
    }

    fn open_model(&mut self, _: &ModelSpec) -> Result<Box<dyn LanguageModel>, DraftError> {
        self.opened += 1;
        Ok(Box::new(Counted(self.target.imitated(0.3, 99), Arc::clone(&self.cleared))))
    }

    fn build(&mut self, kind: &str, settings: &str) -> Result<Box<dyn Drafter>, DraftError> {
        let registry = self.registry;
        registry.build(kind, settings, self)
    }

    fn derive(&mut self, _: &Derivation) -> Result<PathBuf, DraftError> {
        Ok("derived".into())
    }

    fn companions(&self) -> Companions {
        Companions { models: vec!["draft".into()], ..Companions::default() }
    }
}

#[test]
fn a_models_cache_stays_for_the_next_text_until_it_is_forgotten() {
    let registry = Registry::builtin();
    let parts = "parts = [{ kind = 'ngram' }, { kind = 'model', model = 'draft' }]";
    let staged = "model = 'draft'\ndrafter = { kind = 'model', model = 'smaller' }";
    let kinds = [
        ("model", "model = 'draft'", 1),
        ("quantized", "", 1),
        ("early_exit", "layers = 2", 1),
        ("staged", staged, 2),
        ("cascade", parts, 1),
        ("merge", parts, 1),
        ("auto", "", 1),
    ];
    for (kind, settings, models) in kinds {
        let target = ToyModel::new(48, 3, 6.0, 11);
        let cleared = Arc::new(AtomicUsize::new(0));
        let mut host =
            CountingHost { registry: &registry, target: target.clone(), opened: 0, cleared: Arc::clone(&cleared) };
        let drafter = host.build(kind, settings).expect("the settings are right");
        assert_eq!(host.opened, models, "{kind}");
        let mut engine = Engine::new(Box::new(target), Some(drafter), Sampling::GREEDY, CHAIN, 1);
        for _ in 0..2 {
            let turn = [engine.context(), &[1, 2, 3]].concat();
            engine.start(&turn).expect("it starts");
            engine.step(4).expect("it drafts");
        }
        assert_eq!(cleared.load(Relaxed), 0, "{kind}: the second turn begins like the first");
        engine.forget();
        assert_eq!(cleared.load(Relaxed), models, "{kind}: a benchmark begins anew");
    }
}
