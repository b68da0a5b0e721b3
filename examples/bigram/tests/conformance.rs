//! Whatever this drafter guesses, the text is the target's own; and some of its guesses are right.

use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::conformance::{self, CHAIN};
use foretoken::testkit::toy::{ToyHost, ToyModel};
use foretoken_drafter::{DraftError, Drafter, Host};

fn build(target: &ToyModel, settings: &str) -> Result<Box<dyn Drafter>, DraftError> {
    let registry = Registry::builtin().with("bigram", "what followed each token the last time", bigram::build);
    ToyHost::new(&registry, target).build("bigram", settings)
}

#[test]
fn the_text_is_the_targets() {
    let checked = conformance::check(&|target| build(target, "belief = 0.8").expect("the settings are right"));
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn some_guesses_are_right() {
    // The next token depends on the last one alone, so a greedy text soon goes in circles.
    let target = ToyModel::new(48, 1, 6.0, 11);
    let drafter = build(&target, "").expect("the settings are right");
    let run = conformance::run(&target, Some(drafter), Sampling::GREEDY, CHAIN, 200, 0).expect("toys do not fail");
    assert!(run.stats.accepted > 100, "{} accepted", run.stats.accepted);
}

#[test]
fn wrong_settings_are_named() {
    let target = ToyModel::new(8, 1, 3.0, 5);
    let complaint = |settings| build(&target, settings).err().expect("the settings are wrong").to_string();
    assert_eq!(complaint("beleif = 1"), "drafter `bigram`: unknown key `beleif`; did you mean `belief`?");
    assert_eq!(complaint("belief = 2"), "drafter `bigram`: belief = 2 is out of range; it goes from 0 to 1");
}
