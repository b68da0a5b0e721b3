//! What every drafter must pass, whatever it guesses: the text is the target's own.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use foretoken_drafter::{Drafter, Law, Shape, Token};

use super::chi_squared::ChiSquared;
use super::toy::ToyModel;
use crate::engine::Engine;
use crate::generate::{generate, Generation, Limits, Stop};
use crate::sampler::Sampling;
use crate::text::Vocabulary;

/// Run every check with drafters that `build` makes for a toy target.
///
/// # Errors
/// The first check that failed, and how.
pub fn check(build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>) -> Result<(), String> {
    for shape in SHAPES {
        greedy_text_is_plain_text(build, &ToyModel::new(48, 3, 6.0, 11), shape)?;
    }
    no_hidden_states(build)?;
    end_of_generation_inside_a_branch(build)?;
    full_context(build)?;
    for shape in [CHAIN, TREE] {
        sampled_law_is_the_targets(build, &plain(), shape, 200_000)?;
        sampled_law_is_the_targets(build, &shaped(), shape, 200_000)?;
    }
    every_seed_is_a_sample(build, 20_000)
}

/// Sampling from the logits as they are.
fn plain() -> Sampling {
    Sampling { temperature: 1.0, ..Sampling::GREEDY }
}

/// Settings that change the law at every token, by what the two tokens before it are.
fn shaped() -> Sampling {
    Sampling {
        temperature: 0.7,
        top_k: 5,
        top_p: 0.95,
        min_p: 0.02,
        repeat_penalty: 1.5,
        frequency_penalty: 0.3,
        presence_penalty: 0.2,
        penalty_last_n: 2,
        forbidden: vec![1],
    }
}

/// A chain of 4.
pub const CHAIN: Shape = Shape { max_nodes: 4, depth: 4, width: 1 };
/// A tree of 12.
pub const TREE: Shape = Shape { max_nodes: 12, depth: 4, width: 3 };
/// Budget 0, 1, chain, tree and huge.
const SHAPES: [Shape; 5] = [
    Shape { max_nodes: 0, depth: 0, width: 1 },
    Shape { max_nodes: 1, depth: 1, width: 1 },
    CHAIN,
    TREE,
    Shape { max_nodes: 255, depth: 64, width: 8 },
];

fn greedy_text_is_plain_text(
    build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>,
    target: &ToyModel,
    shape: Shape,
) -> Result<(), String> {
    let plain = run(target, None, Sampling::GREEDY, shape, 2_000, 0)?;
    let drafted = run(target, Some(build(target)), Sampling::GREEDY, shape, 2_000, 0)?;
    match plain.tokens.iter().zip(&drafted.tokens).position(|(a, b)| a != b) {
        None if plain.tokens.len() == drafted.tokens.len() => Ok(()),
        at => Err(format!("greedy text differs from plain text with {shape:?}, at token {at:?}")),
    }
}

/// A target may have none to give, whatever the drafter asks for.
fn no_hidden_states(build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>) -> Result<(), String> {
    let greedy = greedy_text_is_plain_text(build, &ToyModel::new(48, 3, 6.0, 11).without_hidden(), TREE);
    let law = || law_is_that_of(&ToyModel::new(8, 1, 3.0, 5).without_hidden(), build, &plain(), TREE, 50_000);
    greedy.and_then(|()| law()).map_err(|failure| format!("where the target gives no hidden states: {failure}"))
}

fn end_of_generation_inside_a_branch(build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>) -> Result<(), String> {
    // Seeds differ in where their text ends, hence in where in a branch it ends.
    for seed in 0..40 {
        let target = ToyModel::new(12, 2, 6.0, seed);
        let limits = Limits { max_tokens: 300, stop: Vec::new(), ignore_end: false };
        let with = |drafter| generation(&target, drafter, Sampling::GREEDY, TREE, &limits, 0);
        let (plain, drafted) = (with(None)?, with(Some(build(&target)))?);
        if plain.tokens != drafted.tokens || plain.stop != drafted.stop {
            return Err(format!("a text that ends by itself differs (toy seed {seed})"));
        }
    }
    Ok(())
}

fn full_context(build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>) -> Result<(), String> {
    for n_ctx in PROMPT.len()..PROMPT.len() + 12 {
        let target = ToyModel::new(48, 3, 6.0, 11).with_context(n_ctx);
        let plain = run(&target, None, Sampling::GREEDY, TREE, 100, 0)?;
        let drafted = run(&target, Some(build(&target)), Sampling::GREEDY, TREE, 100, 0)?;
        if plain.tokens != drafted.tokens || drafted.stop != Stop::ContextFull {
            return Err(format!("a context of {n_ctx} tokens is not filled as by plain decoding"));
        }
    }
    Ok(())
}

/// Draw `n` tokens under `sampling` and compare how each follows those before with the toy's law.
///
/// # Errors
/// They contradict it with p < 1e-6.
pub fn sampled_law_is_the_targets(
    build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>,
    sampling: &Sampling,
    shape: Shape,
    n: usize,
) -> Result<(), String> {
    law_is_that_of(&ToyModel::new(8, 1, 3.0, 5), build, sampling, shape, n)
}

fn law_is_that_of(
    target: &ToyModel,
    build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>,
    sampling: &Sampling,
    shape: Shape,
    n: usize,
) -> Result<(), String> {
    let tokens = run(target, Some(build(target)), sampling.clone(), shape, n, 1)?.tokens;
    let chi = follows(target, sampling, [&tokens[..]]);
    match chi.contradicts() {
        true => {
            Err(format!("text of {sampling:?} does not follow the target's law with {shape:?}: {:.1} sigma", chi.z()))
        }
        false => Ok(()),
    }
}

/// Begin `n` texts, a seed each. Random numbers that serve two purposes are found only here: within
/// a long text the two uses drift apart, after a few rounds they look independent.
fn every_seed_is_a_sample(build: &dyn Fn(&ToyModel) -> Box<dyn Drafter>, n: u64) -> Result<(), String> {
    let target = ToyModel::new(8, 1, 3.0, 5);
    let begin = |seed| run(&target, Some(build(&target)), plain(), TREE, 3, seed).map(|generation| generation.tokens);
    let texts = (0..n).map(begin).collect::<Result<Vec<_>, _>>()?;
    let chi = follows(&target, &plain(), texts.iter().map(Vec::as_slice));
    match chi.contradicts() {
        true => Err(format!("the first tokens of many seeds do not follow the target's law: {:.1} sigma", chi.z())),
        false => Ok(()),
    }
}

/// How well `texts`, each generated by [`run`], follow the law of a toy of order 1.
pub fn follows<'a>(target: &ToyModel, sampling: &Sampling, texts: impl IntoIterator<Item = &'a [Token]>) -> ChiSquared {
    let n_vocab = target.logits(&[]).len();
    let memory = if sampling.has_penalties() { sampling.penalty_last_n } else { 1 };
    let mut counts: BTreeMap<Vec<Token>, Vec<u64>> = BTreeMap::new();
    for text in texts {
        let text = [&PROMPT, text].concat();
        for at in PROMPT.len()..text.len() {
            let next = counts.entry(text[at - memory..at].to_vec()).or_insert_with(|| vec![0; n_vocab]);
            next[text[at] as usize] += 1;
        }
    }
    let mut chi = ChiSquared::default();
    for (context, counts) in &counts {
        let law = sampling.dist(&target.logits(context), context, &[]);
        let law: Vec<f64> = (0..n_vocab as Token).map(|token| law.p(token)).collect();
        chi.add(counts, &law);
    }
    chi
}

/// What every text continues.
const PROMPT: [Token; 5] = [1, 2, 3, 1, 2];

/// Generate `n` tokens from a toy, whatever they are.
///
/// # Errors
/// The engine failed.
pub fn run(
    target: &ToyModel,
    drafter: Option<Box<dyn Drafter>>,
    sampling: Sampling,
    shape: Shape,
    n: usize,
    seed: u64,
) -> Result<Generation, String> {
    let limits = Limits { max_tokens: n, stop: Vec::new(), ignore_end: true };
    generation(target, drafter, sampling, shape, &limits, seed)
}

fn generation(
    target: &ToyModel,
    drafter: Option<Box<dyn Drafter>>,
    sampling: Sampling,
    shape: Shape,
    limits: &Limits,
    seed: u64,
) -> Result<Generation, String> {
    let mut engine = Engine::new(Box::new(target.clone()), drafter, sampling, shape, seed);
    generate(&mut engine, &Silent, &PROMPT, limits, &AtomicBool::new(false), &mut |_| true).map_err(|e| e.to_string())
}

/// A vocabulary without text, whose token 0 ends the generation.
struct Silent;

impl Vocabulary for Silent {
    fn piece(&self, _: Token) -> Vec<u8> {
        Vec::new()
    }

    fn is_end(&self, token: Token) -> bool {
        token == 0
    }
}
