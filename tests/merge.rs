//! A merge accepts at least what the better of its parts does alone with the same budget, and refuses what cannot
//! be merged.

use foretoken::dice::{SeededDice, Stream};
use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::conformance;
use foretoken::testkit::toy::{ToyHost, ToyModel};
use foretoken_drafter::{Commit, DraftRequest, Host, SeqId, Shape, TokenTree};

const NGRAM: &str = "{ kind = 'ngram' }";
const MODEL: &str = "{ kind = 'model', model = 'draft' }";

/// Tokens per pass of the target over a text of `n` tokens.
fn length(target: &ToyModel, draft: &ToyModel, temperature: f32, drafter: (&str, &str), seed: u64) -> f64 {
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, target).with("draft", draft.clone());
    let drafter = host.build(drafter.0, drafter.1).expect("the settings are right");
    let shape = Shape { max_nodes: 16, depth: 4, width: 1 };
    let sampling = Sampling { temperature, ..Sampling::GREEDY };
    let run = conformance::run(target, Some(drafter), sampling, shape, 12_000, seed).expect("toys do not fail");
    run.stats.mean_acceptance_length().expect("there were rounds")
}

#[test]
fn a_merge_accepts_at_least_as_much_as_its_better_part() {
    let mut above_both = 0;
    let mut cases = 0;
    for (n_vocab, order, sharpness) in [(12, 2, 8.0), (24, 2, 14.0), (48, 1, 8.0), (48, 3, 20.0)] {
        for share in [0.0, 0.2, 0.5, 1.0] {
            for temperature in [0.0, 1.0] {
                let target = ToyModel::new(n_vocab, order, sharpness, 3);
                let draft = target.imitated(share, 77);
                let length = |kind: &str, settings: &str| length(&target, &draft, temperature, (kind, settings), 9);
                let ngram = length("ngram", "");
                let model = length("model", "model = 'draft'");
                let merged = length("merge", &format!("parts = [{NGRAM}, {MODEL}]"));
                let turned = length("merge", &format!("parts = [{MODEL}, {NGRAM}]"));
                let best = ngram.max(model);
                println!(
                    "{n_vocab:2} tokens, order {order}, share {share}, temperature {temperature}: ngram {ngram:.3}, model \
                     {model:.3}, merged {merged:.3} ({:.3}), the other way round {turned:.3}",
                    merged / best
                );
                assert!(merged >= 0.98 * best, "{merged} against {ngram} and {model}");
                above_both += usize::from(merged > 1.02 * best);
                cases += 1;
            }
        }
    }
    assert!(above_both > cases / 4, "{above_both} of {cases}");
}

#[test]
fn each_part_has_a_name_and_the_same_number_in_every_round() {
    let target = ToyModel::new(48, 2, 8.0, 3);
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, &target).with("draft", target.clone());
    let cascade = format!("{{ kind = 'cascade', parts = [{NGRAM}, {{ kind = 'recycle' }}] }}");
    let mut drafter = host.build("merge", &format!("parts = [{cascade}, {MODEL}]")).expect("the settings are right");
    assert_eq!(drafter.parts(), ["ngram", "recycle", "model"]);
    assert!(host.build("ngram", "").expect("the settings are right").parts().is_empty(), "it is no combinator");
    // Where n-grams know something, where they are so sure that they would be asked again, and where nobody knows anything.
    let repeated = [1, 2, 3, 4, 5, 6, 7, 8, 9].repeat(6);
    for (text, depth, first) in [(&[1, 2, 3, 4, 5, 1, 2, 3, 4][..], 4, 0), (&repeated, 16, 0), (&[1, 2, 3, 4, 5], 4, 2)]
    {
        let mut tree = TokenTree::new(48, Box::new(SeededDice::new(0, Stream::Draft)));
        let commit =
            Commit { seq: SeqId(0), context: text, n_new: text.len(), round: None, defer: false, hidden: None };
        drafter.commit(&commit).expect("toys do not fail");
        tree.begin(text[text.len() - 1], Shape { max_nodes: 2 * depth, depth, width: 2 });
        let request = DraftRequest { seq: SeqId(0), context: text, law: &Sampling::GREEDY };
        drafter.draft(&request, &mut tree).expect("toys do not fail");
        let parts: Vec<_> = tree.ids().skip(1).map(|node| tree.part(node)).collect();
        assert_eq!((parts.first(), parts.iter().max()), (Some(&first), Some(&2)), "{text:?}: {parts:?}");
        drafter.end(SeqId(0));
    }
}

#[test]
fn what_cannot_be_merged_is_refused_with_the_reason() {
    let target = ToyModel::new(12, 2, 4.0, 3);
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, &target).with("draft", target.clone());
    for (parts, expected) in [
        ("[]", "parts lists 0 drafters; a merge needs two or more"),
        ("[{ kind = 'ngram' }]", "parts lists 1 drafters; a merge needs two or more"),
        ("[{ kind = 'ngram' }, { kind = 'none' }]", "leave it out of parts"),
        ("[{ kind = 'ngram' }, { min_match = 1 }]", "each of parts needs a kind"),
        ("[{ kind = 'ngram' }, { kind = 'modle', model = 'draft' }]", "unknown drafter `modle`; did you mean `model`?"),
        ("[{ kind = 'ngram' }, { kind = 'merge', parts = [{ kind = 'ngram' }] }]", "parts lists 1 drafters"),
    ] {
        let Err(error) = host.build("merge", &format!("parts = {parts}")) else { panic!("{parts} is accepted") };
        assert!(error.to_string().contains(expected), "{parts}: {error}");
    }
}
