//! Levels 2 and 3: every built-in drafter passes the conformance checks, and the checks can fail.

use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::conformance::{self, follows, CHAIN, TREE};
use foretoken::testkit::toy::{ToyHost, ToyModel};
use foretoken_drafter::{Drafter, Host};

/// A built-in drafter over toys: `draft` resembles the target, `stranger` does not.
fn drafter(target: &ToyModel, kind: &str, settings: &str) -> Box<dyn Drafter> {
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, target)
        .with("draft", target.imitated(0.3, 99))
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
fn ngram() {
    check("ngram", "");
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
