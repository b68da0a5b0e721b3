//! Levels 2 and 3: every built-in drafter passes the conformance checks, and the checks can fail.

use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::conformance::{self, follows, CHAIN, TREE};
use foretoken::testkit::toy::{ToyHost, ToyModel, DERIVED};
use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, Host, Needs, Shape, TokenTree};

/// A built-in drafter over toys: `draft` resembles the target, `stranger` does not.
fn drafter(target: &ToyModel, kind: &str, settings: &str) -> Box<dyn Drafter> {
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, target)
        .with("draft", target.imitated(0.3, 99))
        .with(DERIVED, target.imitated(0.1, 77))
        .with("stranger", ToyModel::new(target.logits(&[]).len(), 2, 4.0, 1234));
    host.build(kind, settings).expect("the settings are right")
}

fn check(kind: &str, settings: &str) {
    conformance::check(&|target| drafter(target, kind, settings)).unwrap_or_else(|e| panic!("{kind}: {e}"));
}

#[test]
fn none() {
    check("none", "");
}

#[test]
fn model() {
    check("model", "model = 'draft'");
}

#[test]
fn model_that_is_often_wrong() {
    check("model", "model = 'stranger'");
}

#[test]
fn quantized() {
    check("quantized", "type = 'q4_0'");
}

#[test]
fn early_exit() {
    check("early_exit", "layers = 2");
}

#[test]
fn ngram() {
    check("ngram", "");
}

#[test]
fn ngram_with_a_table() {
    let text = |target: &ToyModel| {
        let text = conformance::run(target, None, Sampling::GREEDY, CHAIN, 2_000, 0).expect("toys do not fail").tokens;
        Ok::<_, std::convert::Infallible>(text)
    };
    let folder = tempfile::tempdir().expect("a folder");
    let table = folder.path().join("table");
    let texts = [text(&ToyModel::new(48, 3, 6.0, 11)), text(&ToyModel::new(8, 1, 3.0, 5))];
    let build = foretoken_drafter_ngram::table::Build::default();
    build.write(texts, &table, &mut |_| std::ops::ControlFlow::Continue(())).expect("it can be written");
    let settings = format!("table = {table:?}");
    check("ngram", &settings);
    let target = ToyModel::new(48, 3, 6.0, 11);
    let accepted = |settings: &str| {
        let drafter = drafter(&target, "ngram", settings);
        let run = conformance::run(&target, Some(drafter), Sampling::GREEDY, CHAIN, 100, 0);
        run.expect("toys do not fail").stats.accepted
    };
    let (without, with) = (accepted(""), accepted(&settings));
    assert!(with > without + 20, "{with} accepted with a table of the very text, {without} without");
}

#[test]
fn ngram_with_a_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = format!("history = {:?}", folder.path().join("history"));
    let (target, sampling) = (ToyModel::new(8, 1, 3.0, 5), Sampling { temperature: 1.0, ..Sampling::GREEDY });
    // Each text is guessed from those before it.
    let text = |seed| {
        let drafter = drafter(&target, "ngram", &settings);
        conformance::run(&target, Some(drafter), sampling.clone(), TREE, 50_000, seed).expect("toys do not fail")
    };
    let texts: Vec<_> = (1..5).map(text).collect();
    let chi = follows(&target, &sampling, texts.iter().map(|text| &text.tokens[..]));
    assert!(!chi.contradicts(), "{:.1} sigma", chi.z());
    let greedy = |history: &str| {
        let drafter = drafter(&target, "ngram", history);
        conformance::run(&target, Some(drafter), Sampling::GREEDY, CHAIN, 12, 0).expect("toys do not fail")
    };
    let (without, first, second) = (greedy(""), greedy(&settings), greedy(&settings));
    assert!(without.tokens == first.tokens && first.tokens == second.tokens);
    assert!(second.stats.accepted > without.stats.accepted, "{} accepted", second.stats.accepted);
}

#[test]
fn medusa() {
    check("medusa", "heads = 'draft'");
}

#[test]
fn medusa_whose_heads_are_for_something_else() {
    check("medusa", "heads = 'stranger'");
}

#[test]
fn cascade() {
    check("cascade", "parts = [{ kind = 'ngram' }, { kind = 'model', model = 'draft' }]");
}

#[test]
fn merge() {
    check("merge", "parts = [{ kind = 'ngram' }, { kind = 'model', model = 'draft' }]");
}

#[test]
fn merge_of_a_model_first_and_another_merge() {
    let inner = "{ kind = 'merge', parts = [{ kind = 'ngram' }, { kind = 'model', model = 'stranger' }] }";
    check("merge", &format!("parts = [{{ kind = 'model', model = 'draft' }}, {inner}]"));
}

#[test]
fn staged_over_ngram() {
    check("staged", "model = 'draft'\ndrafter = { kind = 'ngram' }");
}

#[test]
fn staged_over_a_model_that_is_often_wrong() {
    check("staged", "model = 'draft'\ndrafter = { kind = 'model', model = 'stranger' }");
}

#[test]
fn recycle() {
    check("recycle", "");
}

#[test]
fn recycle_in_a_merge() {
    check("merge", "parts = [{ kind = 'recycle' }, { kind = 'model', model = 'draft' }, { kind = 'recycle' }]");
}

#[test]
fn auto() {
    check("auto", "");
}

#[test]
fn auto_with_a_model() {
    check("auto", "model = 'draft'");
}

#[test]
fn auto_with_heads() {
    check("auto", "model = ''\nheads = 'draft'");
}

#[test]
fn auto_takes_what_is_named_and_looks_for_no_more() {
    let parts = |settings| drafter(&ToyModel::new(12, 2, 2.0, 5), "auto", settings).parts();
    assert_eq!(parts(""), ["ngram", "model"], "a model lies beside the target");
    assert_eq!(parts("heads = 'stranger'"), ["ngram", "medusa"]);
    assert_eq!(parts("model = 'stranger'\nheads = 'stranger'"), ["ngram", "medusa", "model"]);
    assert_eq!(parts("model = ''"), ["ngram"]);
}

#[test]
fn auto_with_a_model_and_heads() {
    check("auto", "model = 'draft'\nheads = 'stranger'");
}

#[test]
fn cascade_of_a_merge_and_a_staged_model() {
    let merge = "{ kind = 'merge', parts = [{ kind = 'ngram' }, { kind = 'early_exit', layers = 2 }] }";
    let staged = "{ kind = 'staged', model = 'draft', drafter = { kind = 'recycle' } }";
    check("cascade", &format!("parts = [{merge}, {staged}]"));
}

#[test]
fn merge_of_heads_a_cascade_and_a_copy() {
    let cascade = "{ kind = 'cascade', parts = [{ kind = 'ngram' }, { kind = 'model', model = 'draft' }] }";
    let copy = "{ kind = 'quantized', type = 'q4_0' }";
    check("merge", &format!("parts = [{{ kind = 'medusa', heads = 'stranger' }}, {cascade}, {copy}]"));
}

#[test]
fn staged_over_a_merge() {
    let merge = "{ kind = 'merge', parts = [{ kind = 'ngram' }, { kind = 'recycle' }] }";
    check("staged", &format!("model = 'draft'\ndrafter = {merge}"));
}

/// For targets that cannot branch.
#[test]
fn parts_that_may_not_branch_grow_one_chain() {
    let shape = Shape { max_nodes: 6, depth: 6, width: 0 };
    let (target, sampling) = (ToyModel::new(8, 1, 3.0, 5), Sampling { temperature: 1.0, ..Sampling::GREEDY });
    let parts = "parts = [{ kind = 'ngram' }, { kind = 'recycle' }, { kind = 'model', model = 'draft' }]";
    let merge = drafter(&target, "merge", parts);
    let run = conformance::run(&target, Some(merge), sampling.clone(), shape, 200_000, 3).expect("toys do not fail");
    let chi = follows(&target, &sampling, [&run.tokens[..]]);
    assert!(!chi.contradicts(), "{:.1} sigma", chi.z());
    assert!(run.stats.accepted > 10_000, "{}", run.stats.accepted);
}

#[test]
fn a_bias_of_one_percent_is_found() {
    let target = ToyModel::new(8, 1, 3.0, 5);
    let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let sample = |temperature| {
        let sampling = Sampling { temperature, ..Sampling::GREEDY };
        conformance::run(&target, None, sampling, CHAIN, 200_000, 3).expect("toys do not fail").tokens
    };
    assert!(!follows(&target, &sampling, [&sample(1.0)[..]]).contradicts());
    // Move 1 % of all tokens to another one.
    let mut tokens = sample(1.0);
    let mut moved = 0;
    for i in (1..tokens.len()).step_by(100) {
        tokens[i] = (tokens[i] + 1) % 8;
        moved += 1;
    }
    assert_eq!(moved, 2_000);
    assert!(
        follows(&target, &sampling, [&tokens[..]]).contradicts(),
        "{:.1} sigma",
        follows(&target, &sampling, [&tokens[..]]).z()
    );
}

#[test]
fn a_drafter_that_helps_is_used() {
    let target = ToyModel::new(48, 3, 6.0, 11);
    let accepted = |model: &str| {
        let drafter = drafter(&target, "model", &format!("model = '{model}'"));
        let run = conformance::run(&target, Some(drafter), Sampling::GREEDY, TREE, 500, 0);
        run.expect("toys do not fail").stats.accepted
    };
    let (close, stranger) = (accepted("draft"), accepted("stranger"));
    assert!(close > 2 * stranger && close > 150, "{close} against {stranger}");
}

#[test]
fn heads_that_know_the_target_are_used() {
    let target = ToyModel::new(48, 3, 6.0, 11);
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, &target).with("itself", target.clone());
    let drafter = host.build("medusa", "heads = 'itself'").expect("the settings are right");
    let run = conformance::run(&target, Some(drafter), Sampling::GREEDY, TREE, 500, 0).expect("toys do not fail");
    // Three heads that are right: three tokens of four, but where the tree grew elsewhere.
    assert!(run.stats.accepted > 300, "{} of 500", run.stats.accepted);
}

#[test]
fn heads_without_a_hidden_state_guess_nothing() {
    let target = ToyModel::new(48, 3, 6.0, 11).without_hidden();
    let heads = drafter(&target, "medusa", "heads = 'draft'");
    let run = conformance::run(&target, Some(heads), Sampling::GREEDY, TREE, 500, 0).expect("toys do not fail");
    assert_eq!((run.stats.drafted, run.stats.accepted), (0, 0));
}

/// Takes it for granted that the target gives the hidden states that it asks for.
struct Demanding;

impl Drafter for Demanding {
    fn draft(&mut self, _: &DraftRequest<'_>, _: &mut TokenTree) -> Result<(), DraftError> {
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        commit.hidden.map(|_| ()).ok_or_else(|| DraftError::failed("there is no hidden state"))
    }

    fn needs(&self) -> Needs {
        Needs { hidden: true, ..Needs::default() }
    }
}

#[test]
fn a_drafter_that_needs_a_target_with_hidden_states_is_found() {
    let failure = conformance::check(&|_| Box::new(Demanding)).expect_err("not every target gives them");
    assert!(failure.contains("no hidden states") && failure.contains("there is no hidden state"), "{failure}");
}
