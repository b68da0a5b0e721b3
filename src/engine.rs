//! One round after another: the drafter grows a tree, the target scores it in one pass, the
//! verifier walks it, and what it accepted becomes final.
//!
//! [`Engine::step`] is the whole story and reads in that order. The engine decides nothing itself:
//! not what is guessed, not what is accepted, not when to stop (that is [`crate::generate`]).

use std::time::{Duration, Instant};

use foretoken_drafter::{
    Commit, Dice, Dist, DraftError, DraftRequest, Drafter, LanguageModel, Law, Needs, NodeId, Outcome, SeqId, Shape,
    Token, TokenTree,
};

use crate::control::{Control, Plan};
use crate::dice::{SeededDice, Stream};
use crate::sampler::Sampling;
use crate::stats::{OfPart, Round};
use crate::threads::Threads;
use crate::verify::{verify, Verdict};

/// A target, a drafter and the settings of a run.
pub struct Engine {
    target: Box<dyn LanguageModel>,
    drafter: Option<Box<dyn Drafter>>,
    sampling: Sampling,
    shape: Shape,
    control: Option<Control>,
    verifier: Verifier,
    tree: TokenTree,
    accept: Box<dyn Dice>,
    emit: Box<dyn Dice>,
    context: Vec<Token>,
    /// What a draft model read last, as far as that was no part of `context`, and how much of `context` it read since.
    read_before: Vec<Token>,
    read: usize,
    observer: Option<Observer>,
    clock: Box<dyn Clock>,
    loading: Option<Duration>,
    expected: usize,
    seed: u64,
    needs: Needs,
    top: Vec<Vec<(Token, f32)>>,
}

/// What tells how long rounds and their parts take: the machine's own clock, unless a benchmark sets the prices.
pub trait Clock: Send {
    /// The time since some moment in the past; never less than it was.
    fn now(&self) -> Duration;
}

/// The machine's own clock, since it was made.
struct Wall(Instant);

impl Clock for Wall {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Told of every round when it is over.
pub type Observer = Box<dyn FnMut(&Round) + Send>;

/// How a round is decided: by [`verify`], unless a benchmark that shows no text puts something else in its place.
/// Arguments and result are those of [`verify`].
pub(crate) type Verifier =
    Box<dyn Fn(&TokenTree, &mut dyn FnMut(NodeId) -> Dist, &mut dyn Dice, &mut dyn Dice) -> Verdict + Send>;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is nothing to continue.
    #[error("the prompt is empty: give at least one token of text")]
    EmptyPrompt,
    /// The prompt alone does not fit.
    #[error("the prompt has {prompt} tokens but the context holds {n_ctx}: shorten it or raise target.context")]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens that fit.
        n_ctx: usize,
    },
    /// The target failed.
    #[error("the target failed: {0}")]
    Target(DraftError),
    /// The drafter failed.
    #[error("the drafter failed: {0}")]
    Drafter(DraftError),
}

impl Engine {
    /// An engine that has seen no text yet. Without a drafter every round is a plain decode.
    /// `shape` bounds every round's tree; `seed` fixes every random choice. Without [`with_control`](Engine::with_control)
    /// the shape alone decides how much is drafted.
    pub fn new(
        target: Box<dyn LanguageModel>,
        drafter: Option<Box<dyn Drafter>>,
        sampling: Sampling,
        shape: Shape,
        seed: u64,
    ) -> Engine {
        let dice = |stream| Box::new(SeededDice::new(seed, stream)) as Box<dyn Dice>;
        let tree = TokenTree::new(target.n_vocab(), dice(Stream::Draft));
        Engine {
            target,
            drafter,
            sampling,
            shape,
            control: None,
            verifier: Box::new(verify),
            tree,
            accept: dice(Stream::Accept),
            emit: dice(Stream::Emit),
            context: Vec::new(),
            read_before: Vec::new(),
            read: 0,
            observer: None,
            clock: Box::new(Wall(Instant::now())),
            loading: None,
            expected: usize::MAX,
            seed,
            needs: Needs::default(),
            top: Vec::new(),
        }
    }

    /// Let `control` decide how much of the shape is used in each round, by what pays. Shapes then depend on measured
    /// times, so a seed no longer repeats a sampled text.
    pub fn with_control(mut self, control: Control) -> Engine {
        self.control = Some(control);
        self
    }

    /// Replace the seeded dice by others: one to draw drafts, one for verdicts, one for emitted
    /// tokens. Tests enumerate outcomes this way.
    pub fn with_dice(mut self, draft: Box<dyn Dice>, accept: Box<dyn Dice>, emit: Box<dyn Dice>) -> Engine {
        self.tree = TokenTree::new(self.target.n_vocab(), draft);
        self.accept = accept;
        self.emit = emit;
        self
    }

    /// Go by another clock. Control decides by it, and statistics report it; only the evaluations of heads are timed by
    /// whoever makes them.
    pub fn with_clock(mut self, clock: Box<dyn Clock>) -> Engine {
        self.clock = clock;
        self
    }

    /// Loading the target took so long: what is measured before the first text then adds a tenth of that at most.
    pub fn with_loading(mut self, took: Duration) -> Engine {
        self.loading = Some(took);
        self
    }

    /// Whether `prompt` can be continued at all; its last token is the first root.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn check(&self, prompt: &[Token]) -> Result<Token, EngineError> {
        match prompt.last() {
            None => Err(EngineError::EmptyPrompt),
            Some(_) if prompt.len() > self.target.n_ctx() => {
                Err(EngineError::PromptTooLong { prompt: prompt.len(), n_ctx: self.target.n_ctx() })
            }
            Some(&root) => Ok(root),
        }
    }

    /// Begin a text: bring target and drafter up to date with the prompt. A text begun earlier is
    /// over; caches keep what it shares with this one.
    ///
    /// # Errors
    /// The prompt is empty or too long, or a model failed.
    pub fn start(&mut self, prompt: &[Token]) -> Result<(), EngineError> {
        let root = self.check(prompt)?;
        if self.read > 0 {
            self.context.truncate(self.read);
            std::mem::swap(&mut self.context, &mut self.read_before);
            self.read = 0;
        }
        self.context.clear();
        self.context.extend_from_slice(prompt);
        self.ask_target();
        if let Some(control) = &mut self.control {
            control.start();
        }
        self.measure_passes()?;
        let bare = TokenTree::bare(root);
        let room = (self.target.n_ctx() - prompt.len()).saturating_add(1);
        let scores = self.target.score(SEQ, &self.context, &bare, &[]).map_err(EngineError::Target)?;
        if let Some(drafter) = &mut self.drafter {
            drafter.end(SEQ);
            let hidden = scores.hidden(0);
            let n_new = prompt.len();
            let expected = self.expected.min(room);
            let known = self.read_before.iter().zip(prompt).take_while(|(a, b)| a == b).count();
            let unread = n_new - known;
            let defer = self.control.as_mut().is_some_and(|control| !control.reads_prompt(n_new, unread, expected));
            let begun = self.clock.now();
            let commit = Commit { seq: SEQ, context: &self.context, n_new, round: None, defer, hidden };
            drafter.commit(&commit).map_err(EngineError::Drafter)?;
            let took = self.clock.now().saturating_sub(begun);
            if !defer {
                self.read = n_new;
                if let Some(control) = &mut self.control {
                    control.learn_reading(n_new, unread, took);
                }
            }
        }
        Ok(())
    }

    /// The texts to come will have so many tokens after their prompts, at most: a long prompt and a short answer do not pay
    /// for a draft model that has to read the prompt too.
    pub fn set_expected(&mut self, tokens: usize) {
        self.expected = tokens;
    }

    /// Bring the target up to date with the beginning of a prompt, so that a long one can be read in pieces before
    /// [`start`](Engine::start).
    ///
    /// # Errors
    /// The prompt is too long, or the target failed.
    pub fn read(&mut self, beginning: &[Token]) -> Result<(), EngineError> {
        let root = self.check(beginning)?;
        self.target.keep_hidden(false);
        self.target.score(SEQ, beginning, &TokenTree::bare(root), &[]).map(drop).map_err(EngineError::Target)
    }

    /// One round: at least one token becomes final, at most `max_depth` + 1. `max_depth` lets the
    /// caller not pay for guesses that it would throw away.
    ///
    /// # Errors
    /// [`start`](Engine::start) was not called, the context is full, or a model failed.
    pub fn step(&mut self, max_depth: usize) -> Result<Round, EngineError> {
        let begun = self.clock.now();
        let Some(&root) = self.context.last() else { return Err(EngineError::EmptyPrompt) };
        let shape = self.shape_within(max_depth);
        match self.control.as_mut().map(|control| control.plan(self.context.len(), shape)) {
            None => self.tree.begin(root, shape),
            Some(Plan::Plain) => self.tree.begin(root, Shape { max_nodes: 0, ..shape }),
            Some(Plan::Draft(pace)) => self.tree.begin_paced(root, shape, pace),
        }

        if let Some(drafter) = self.drafter.as_mut().filter(|_| self.tree.room() > 0) {
            let request = DraftRequest { seq: SEQ, context: &self.context, law: &self.sampling };
            let round = self.tree.round();
            let outcome = drafter.draft(&request, &mut self.tree);
            if self.tree.round() != round {
                // Another tree may have other dice: nothing of it is left for a step that follows all the same.
                self.reseed(self.seed.wrapping_add(1));
                let reason = "it began the tree anew, but what was drawn must stay in it";
                return Err(EngineError::Drafter(DraftError::failed(reason)));
            }
            outcome.map_err(EngineError::Drafter)?;
        }
        let drafted = self.clock.now();
        if let Some(control) = &mut self.control {
            let tree = std::mem::replace(&mut self.tree, TokenTree::bare(root));
            self.tree = control.trim(tree);
        }

        let nodes: Vec<NodeId> = self.tree.ids().collect();
        let trimmed = self.clock.now();
        let n_vocab = self.target.n_vocab();
        // A tree without guesses is told apart from one that may still grow, for models that cannot go back.
        let bare = (self.tree.len() == 1).then(|| TokenTree::bare(root));
        let tree = bare.as_ref().unwrap_or(&self.tree);
        let scores = self.target.score(SEQ, &self.context, tree, &nodes).map_err(EngineError::Target)?;
        let scored = self.clock.now();
        if scores.len() != nodes.len() {
            let (asked, got) = (nodes.len(), scores.len());
            return Err(EngineError::Target(DraftError::failed(format!("asked for {asked} rows it gave {got}"))));
        }
        if let Some(got) = (0..scores.len()).map(|i| scores.row(i).len()).find(|&length| length != n_vocab) {
            let reason = format!("a row of its logits has {got} numbers, its vocabulary {n_vocab}");
            return Err(EngineError::Target(DraftError::failed(reason)));
        }

        let (tree, sampling, context) = (&self.tree, &self.sampling, &self.context);
        let mut p = |node: NodeId| sampling.dist(scores.row(node.index()), context, &tree.path(node));
        let verdict = (self.verifier)(tree, &mut p, self.accept.as_mut(), self.emit.as_mut());

        let first_new = self.context.len();
        self.context.extend(verdict.accepted.iter().map(|&node| self.tree.token(node)));
        self.context.push(verdict.token);
        let verified = self.clock.now();

        if let Some(drafter) = &mut self.drafter {
            self.top.clear();
            if self.needs.top > 0 {
                let context = &self.context[..first_new];
                let top = |&node: &NodeId| {
                    self.sampling.top(scores.row(node.index()), context, &self.tree.path(node), self.needs.top)
                };
                self.top.extend(nodes.iter().map(top));
            }
            let round = Some(Outcome { tree: &self.tree, accepted: &verdict.accepted, top: &self.top });
            let hidden = scores.hidden(verdict.accepted.last().map_or(0, |node| node.index()));
            let n_new = verdict.accepted.len() + 1;
            let commit = Commit { seq: SEQ, context: &self.context, n_new, round, defer: false, hidden };
            drafter.commit(&commit).map_err(EngineError::Drafter)?;
            if self.tree.passes() > 0 {
                self.read = first_new;
            }
        }
        let committed = self.clock.now();
        let mut round = Round {
            tokens: self.context[first_new..].to_vec(),
            drafted: self.tree.len() - 1,
            depth: self.tree.ids().map(|node| self.tree.depth(node)).max().unwrap_or(0),
            accepted: verdict.accepted.len(),
            parts: OfPart::of(&self.tree, &verdict.accepted),
            ending: verdict.ending,
            draft: drafted.saturating_sub(begun),
            score: scored.saturating_sub(trimmed),
            sampling: verified.saturating_sub(scored),
            cache: committed.saturating_sub(verified),
            total: self.clock.now().saturating_sub(begun),
            predicted: self.control.as_ref().and_then(Control::prediction),
            threads: None,
            slower: None,
        };
        if let Some(control) = &mut self.control {
            control.learn(&self.tree, &verdict.accepted, &round);
            round.threads = control.threads().map(Threads::now);
            round.slower = control.take_slower();
            round.total = self.clock.now().saturating_sub(begun);
        }
        if let Some(observer) = &mut self.observer {
            observer(&round);
        }
        Ok(round)
    }

    /// Have `observer` told of every round from now on.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// What the drafter says of itself.
    pub fn about_drafter(&self) -> Option<String> {
        self.drafter.as_ref().and_then(|drafter| drafter.about())
    }

    /// The names of the drafter's parts, in the order of [`Round::parts`]; none if it has no parts.
    pub fn drafter_parts(&self) -> Vec<String> {
        self.drafter.as_ref().map_or(Vec::new(), |drafter| drafter.parts())
    }

    /// The seed of every random choice.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Every final token, the prompt included.
    pub fn context(&self) -> &[Token] {
        &self.context
    }

    /// Whether not even one more token can be decoded.
    pub fn is_full(&self) -> bool {
        self.context.len() > self.target.n_ctx()
    }

    /// Choose another tree shape for the rounds to come.
    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// Exchange the drafter, returning the old one: between texts, or the new one drafts for one whose beginning it was
    /// not told.
    pub fn set_drafter(&mut self, drafter: Option<Box<dyn Drafter>>) -> Option<Box<dyn Drafter>> {
        self.forget_reading();
        std::mem::replace(&mut self.drafter, drafter)
    }

    /// Exchange the control, returning the old one: it belongs to a target and a drafter.
    pub fn set_control(&mut self, control: Option<Control>) -> Option<Control> {
        std::mem::replace(&mut self.control, control)
    }

    /// The control, if there is one: what it learned and decided.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Decide the rounds to come in another way, or again by [`verify`]. Not public: a text that anyone sees has the
    /// target's law.
    #[cfg(feature = "llama")] // the benchmark is part of the program
    pub(crate) fn set_verifier(&mut self, verifier: Option<Verifier>) {
        if let Some(control) = &mut self.control {
            control.set_synthetic(verifier.is_some());
        }
        self.verifier = verifier.unwrap_or_else(|| Box::new(verify));
    }

    /// Begin every random stream anew, from another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        let dice = |stream| Box::new(SeededDice::new(seed, stream)) as Box<dyn Dice>;
        self.tree = TokenTree::new(self.target.n_vocab(), dice(Stream::Draft));
        self.accept = dice(Stream::Accept);
        self.emit = dice(Stream::Emit);
    }

    /// Forget the text and every cache of it, so that the next one begins like the first: for
    /// benchmarks.
    pub fn forget(&mut self) {
        self.context.clear();
        self.target.end(SEQ);
        self.forget_reading();
        if let Some(drafter) = &mut self.drafter {
            drafter.forget(SEQ);
        }
    }

    /// What a draft model may have in its cache is no longer known.
    fn forget_reading(&mut self) {
        self.read_before.clear();
        self.read = 0;
    }

    /// The time by the clock in use.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A control that knows no T(n) yet gets a few points from the end of the prompt, read in passes of 4, 2 and 1
    /// tokens; the largest first, since a first pass may be slow. They must be read anyway: this adds the time of some
    /// three plain steps, once. It ends after [`MEASURING`] seconds, or, where it is known what loading took, before another
    /// pass that should make it more than a tenth of loading and reading.
    fn measure_passes(&mut self) -> Result<(), EngineError> {
        let is_new = self.control.as_ref().is_some_and(Control::knows_nothing);
        let mut root = match self.context.len().checked_sub(1 + PASSES.iter().sum::<usize>()) {
            Some(root) if is_new && root > 0 => root,
            _ => return Ok(()),
        };
        let (mut points, mut spent, mut allowance) = (Vec::new(), 0.0, MEASURING);
        for n in PASSES {
            let context = &self.context[..=root];
            self.tree.begin(context[root], Shape { max_nodes: n - 1, depth: n, width: 1 });
            let mut node = NodeId::ROOT;
            for &token in &self.context[root + 1..root + n] {
                node = self.tree.add(node, token, 1.0).unwrap_or(node);
            }
            let nodes: Vec<NodeId> = self.tree.ids().collect();
            let bare = TokenTree::bare(context[root]);
            let reading = self.clock.now();
            self.target.score(SEQ, context, &bare, &[]).map_err(EngineError::Target)?;
            let begun = self.clock.now();
            if let Some(loading) = self.loading.filter(|_| points.is_empty()) {
                let reading = begun.saturating_sub(reading);
                allowance = MEASURING.min(SHARE_OF_LOADING * (loading + reading).as_secs_f64());
                // Between the time per token of such a reading and all of it.
                let first = reading.as_secs_f64() * (n as f64 / context[..=root].len().max(n) as f64).sqrt();
                if first > allowance {
                    break;
                }
            }
            self.target.score(SEQ, context, &self.tree, &nodes).map_err(EngineError::Target)?;
            let time = self.clock.now().saturating_sub(begun);
            spent += time.as_secs_f64();
            points.push((nodes.len(), time));
            root += n;
            if spent + time.as_secs_f64() > allowance {
                break;
            }
        }
        if let Some(control) = &mut self.control {
            control.seed(self.context.len(), &points);
        }
        Ok(())
    }

    /// Have the target give what the drafter needs, and no more.
    fn ask_target(&mut self) {
        self.needs = self.drafter.as_ref().map_or(Needs::default(), |drafter| drafter.needs());
        self.target.keep_hidden(self.needs.hidden);
    }

    /// The configured shape, less what neither the caller nor the context has room for.
    fn shape_within(&self, max_depth: usize) -> Shape {
        let free = self.target.n_ctx().saturating_sub(self.context.len());
        Shape {
            max_nodes: self.shape.max_nodes.min(free),
            depth: self.shape.depth.min(max_depth).min(free),
            width: self.shape.width,
        }
    }
}

/// Tokens of the passes that are measured before the first text, the seconds that they may take, and their share of what
/// loading and reading took.
const PASSES: [usize; 3] = [4, 2, 1];
const MEASURING: f64 = 2.0;
const SHARE_OF_LOADING: f64 = 0.1;

/// One text at a time; the interfaces are ready for more.
const SEQ: SeqId = SeqId(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::toy::ToyModel;
    use foretoken_drafter::Scores;

    #[test]
    fn a_reseeded_engine_repeats_itself() {
        let target = ToyModel::new(12, 2, 2.0, 5);
        let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        let shape = Shape { max_nodes: 0, depth: 0, width: 1 };
        let mut engine = Engine::new(Box::new(target), None, sampling, shape, 1);
        let mut text = |seed| {
            engine.forget();
            engine.reseed(seed);
            engine.start(&[1, 2]).unwrap();
            (0..40).flat_map(|_| engine.step(0).unwrap().tokens).collect::<Vec<Token>>()
        };
        let first = text(7);
        assert!(text(8) != first);
        assert_eq!(text(7), first);
    }

    #[test]
    fn a_new_control_learns_three_points_from_the_end_of_the_prompt() {
        let engine = || {
            let shape = Shape { max_nodes: 4, depth: 4, width: 1 };
            Engine::new(Box::new(ToyModel::new(12, 2, 2.0, 5)), None, Sampling::GREEDY, shape, 1)
        };
        let text = |mut engine: Engine, prompt: &[Token]| {
            engine.start(prompt).unwrap();
            let measured = engine.control().map(|c| c.curve().points(0).iter().map(|p| p.0).collect::<Vec<usize>>());
            ((0..40).flat_map(|_| engine.step(0).unwrap().tokens).collect::<Vec<Token>>(), measured)
        };
        let prompt: Vec<Token> = (0..9).collect();
        let (plain, _) = text(engine(), &prompt);
        let (controlled, measured) = text(engine().with_control(Control::new()), &prompt);
        assert_eq!(measured, Some(vec![1, 2, 4]));
        assert_eq!(controlled, plain, "the text is the same");
        let (_, measured) = text(engine().with_control(Control::new()), &prompt[..8]);
        assert_eq!(measured, Some(vec![]), "a short prompt has nothing to spare");
    }

    #[test]
    fn drafters_hear_whether_reading_a_long_prompt_can_wait() {
        /// Writes down what it is told.
        struct Listener(std::sync::Arc<std::sync::Mutex<Vec<bool>>>);
        impl Drafter for Listener {
            fn draft(&mut self, _: &DraftRequest<'_>, _: &mut TokenTree) -> Result<(), DraftError> {
                Ok(())
            }
            fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
                self.0.lock().unwrap().push(commit.defer);
                Ok(())
            }
        }
        let told = |control: bool, prompt: usize, expected: usize| {
            let heard = std::sync::Arc::default();
            let drafter = Box::new(Listener(std::sync::Arc::clone(&heard)));
            let shape = Shape { max_nodes: 4, depth: 4, width: 1 };
            let target = Box::new(ToyModel::new(12, 2, 2.0, 5));
            let mut engine = Engine::new(target, Some(drafter), Sampling::GREEDY, shape, 1);
            if control {
                let mut known = Control::new();
                known.seed(1, &[1, 2, 4].map(|n| (n, Duration::from_secs(n as u64))));
                engine = engine.with_control(known);
            }
            engine.set_expected(expected);
            engine.start(&vec![1; prompt]).unwrap();
            engine.step(0).unwrap();
            let heard = heard.lock().unwrap().clone();
            heard
        };
        assert_eq!(told(true, 900, 4), [true, false], "passes cost what they bring; a round is never deferred");
        assert_eq!(told(true, 20, 4), [false, false]);
        assert_eq!(told(false, 900, 4), [false, false], "a fixed shape drafts in every round");
    }

    #[test]
    fn nothing_stays_of_a_tree_that_a_drafter_exchanged() {
        struct Trap;
        impl Dice for Trap {
            fn pick(&mut self, _: &[f64]) -> usize {
                panic!("another's dice were thrown")
            }
        }
        /// Exchanges the tree once, and draws ever after.
        struct Exchanges(bool);
        impl Drafter for Exchanges {
            fn draft(&mut self, _: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
                if !std::mem::replace(&mut self.0, true) {
                    *tree = TokenTree::new(12, Box::new(Trap));
                    return Err(DraftError::failed("and fails besides"));
                }
                let q = Dist::from_weights([(1, 0.5), (2, 0.5)]).expect("it is a law");
                let _child = tree.sample(NodeId::ROOT, q, 1);
                Ok(())
            }
        }
        let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        let shape = Shape { max_nodes: 4, depth: 4, width: 1 };
        let target = Box::new(ToyModel::new(12, 2, 2.0, 5));
        let mut engine = Engine::new(target, Some(Box::new(Exchanges(false))), sampling, shape, 1);
        engine.start(&[1, 2]).unwrap();
        let error = engine.step(4).unwrap_err().to_string();
        assert!(error.contains("began the tree anew"), "{error}");
        assert_eq!(engine.step(4).unwrap().drafted, 1);
    }

    #[test]
    fn rows_of_another_length_are_refused() {
        /// Whose rows lack their last number.
        struct Short(ToyModel);
        impl LanguageModel for Short {
            fn score(
                &mut self,
                seq: SeqId,
                context: &[Token],
                tree: &TokenTree,
                new: &[NodeId],
            ) -> Result<Scores<'_>, DraftError> {
                let scores = self.0.score(seq, context, tree, new)?;
                Ok(Scores::new((0..new.len()).map(|i| &scores.row(i)[1..]).collect()))
            }
            fn n_vocab(&self) -> usize {
                self.0.n_vocab()
            }
            fn n_ctx(&self) -> usize {
                self.0.n_ctx()
            }
        }
        let shape = Shape { max_nodes: 4, depth: 4, width: 1 };
        let mut engine = Engine::new(Box::new(Short(ToyModel::new(12, 2, 2.0, 5))), None, Sampling::GREEDY, shape, 1);
        engine.start(&[1, 2]).unwrap();
        let error = engine.step(4).unwrap_err().to_string();
        assert!(error.contains("a row of its logits has 11 numbers, its vocabulary 12"), "{error}");
    }

    #[test]
    fn what_a_draft_model_read_for_the_text_before_is_not_read_again() {
        /// A draft model that writes down how many tokens it had to read when a prompt came, from the first round on.
        struct Reads(std::sync::Arc<std::sync::Mutex<Vec<usize>>>, Vec<Token>);
        impl Drafter for Reads {
            fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
                tree.next_to_expand(); // a pass: the model is up to date then
                self.1 = request.context.to_vec();
                Ok(())
            }
            fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
                if commit.round.is_none() && !commit.defer {
                    let shared = self.1.iter().zip(commit.context).take_while(|(a, b)| a == b).count();
                    self.0.lock().unwrap().push(commit.context.len() - shared);
                    self.1 = commit.context.to_vec();
                }
                Ok(())
            }
            fn forget(&mut self, _: SeqId) {
                self.1.clear();
            }
        }
        let read = std::sync::Arc::<std::sync::Mutex<Vec<usize>>>::default();
        let drafter = || Box::new(Reads(std::sync::Arc::clone(&read), Vec::new()));
        let known = || {
            let mut control = Control::new();
            control.seed(1, &[1, 2, 4].map(|n| (n, Duration::from_secs(n as u64))));
            control
        };
        let shape = Shape { max_nodes: 4, depth: 4, width: 1 };
        let target = Box::new(ToyModel::new(12, 2, 2.0, 5));
        let mut engine = Engine::new(target, Some(drafter()), Sampling::GREEDY, shape, 1).with_control(known());
        engine.set_expected(4);
        let start = |engine: &mut Engine, prompt: &[Token]| {
            engine.start(prompt).unwrap();
            read.lock().unwrap().drain(..).collect::<Vec<usize>>()
        };
        let mut chat = vec![1; 30];
        assert_eq!(start(&mut engine, &chat), [30]);
        for more in [95, 120] {
            chat.extend(vec![4; more]);
            assert_eq!(start(&mut engine, &chat), [more], "all of it would be too much for four tokens at last");
        }
        chat.extend([3; 900]);
        assert_eq!(start(&mut engine, &chat), [0; 0], "too much for four tokens");
        assert_eq!(start(&mut engine, &chat), [0; 0], "and still too much: it was not read");
        engine.set_control(None);
        engine.step(4).unwrap();
        chat = engine.context().to_vec();
        chat.extend([5; 49]);
        engine.set_control(Some(known()));
        assert_eq!(start(&mut engine, &chat), [50], "a pass has read it, all but the token that became final then");
        engine.forget();
        assert_eq!(start(&mut engine, &chat), [0; 0], "a benchmark begins anew");
        engine.set_control(None);
        assert_eq!(start(&mut engine, &chat), [chat.len()], "a fixed shape drafts in every round");
        engine.set_drafter(Some(drafter()));
        engine.set_control(Some(known()));
        assert_eq!(start(&mut engine, &chat), [0; 0], "another drafter has read nothing");
    }

    #[test]
    fn measuring_ends_when_it_would_take_more_than_loading_allows() {
        /// Every look takes a second.
        struct Seconds(std::sync::atomic::AtomicU64);
        impl Clock for Seconds {
            fn now(&self) -> Duration {
                Duration::from_secs(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            }
        }
        let measured = |loading: Option<u64>| {
            let shape = Shape { max_nodes: 4, depth: 4, width: 1 };
            let engine = Engine::new(Box::new(ToyModel::new(12, 2, 2.0, 5)), None, Sampling::GREEDY, shape, 1)
                .with_control(Control::new())
                .with_clock(Box::new(Seconds(0.into())));
            let mut engine = match loading {
                Some(seconds) => engine.with_loading(Duration::from_secs(seconds)),
                None => engine,
            };
            engine.start(&(0..9).collect::<Vec<Token>>()).unwrap();
            engine.control().map(|c| c.curve().points(0).iter().map(|p| p.0).collect::<Vec<usize>>())
        };
        // A pass takes a second here, and so does reading.
        assert_eq!(measured(None), Some(vec![2, 4]), "two seconds at most");
        assert_eq!(measured(Some(19)), Some(vec![2, 4]), "and two of twenty");
        assert_eq!(measured(Some(18)), Some(vec![4]), "two were more than a tenth");
        assert_eq!(measured(Some(8)), Some(vec![]), "a pass should take as long as reading did");
    }
}
