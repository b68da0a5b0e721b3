//! Level 1: the law of whole rounds by exact enumeration, through the shipped tree and verifier.
//!
//! For random target and draft laws over a tiny vocabulary every outcome of drafting and verifying is
//! visited with its probability. The law of the emitted tokens, continued from the target where a
//! round ends early, must equal the target's own.

use std::collections::HashMap;

use foretoken::sampler::Sampling;
use foretoken::testkit::enumerate::{for_each_outcome, AllDice};
use foretoken::verify::{verify, Ending, Verdict};
use foretoken_drafter::{Dice, Dist, DraftError, DraftRequest, Drafter, NodeId, SeqId, Shape, Token, TokenTree};
use foretoken_drafter_merge::Merge;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Random laws by path, made when first asked for and the same ever after.
#[derive(Clone, Copy)]
struct Laws {
    n_vocab: usize,
    seed: u64,
}

impl Laws {
    fn rng(&self, path: &[Token], salt: u64) -> StdRng {
        let key = path.iter().fold(self.seed.wrapping_mul(31) + salt, |k, &t| k.wrapping_mul(1009) + u64::from(t) + 1);
        StdRng::seed_from_u64(key)
    }

    /// Peaked to flat, now and then with zeros.
    fn random(&self, rng: &mut StdRng) -> Vec<f64> {
        let sharpness = rng.random_range(0.3..4.0);
        let mut weights: Vec<f64> = (0..self.n_vocab).map(|_| rng.random::<f64>().powf(sharpness) + 1e-3).collect();
        if rng.random_bool(0.3) {
            let zero = rng.random_range(0..self.n_vocab);
            weights[zero] = 0.0;
        }
        weights
    }

    fn p(&self, path: &[Token]) -> Dist {
        dist(&self.random(&mut self.rng(path, 0)))
    }

    /// Resembles p more or less.
    fn q(&self, path: &[Token], drafter: u64) -> Dist {
        let mut rng = self.rng(path, 1 + drafter);
        let share = rng.random::<f64>();
        let (p, noise) = (self.p(path), self.random(&mut rng));
        let mixed = |t: usize| (1.0 - share) * p.p(t as Token) + share * noise[t] / noise.iter().sum::<f64>();
        dist(&(0..self.n_vocab).map(mixed).collect::<Vec<_>>())
    }
}

fn dist(weights: &[f64]) -> Dist {
    Dist::from_weights(weights.iter().enumerate().map(|(t, &w)| (t as Token, w))).expect("some weight is positive")
}

/// How a round is decided: as by [`verify`].
type Decide = fn(&TokenTree, &mut dyn FnMut(NodeId) -> Dist, &mut dyn Dice, &mut dyn Dice) -> Verdict;

/// The size of a vocabulary, and the target's law after a path.
type Target<'a> = (usize, &'a dyn Fn(&[Token]) -> Dist);

/// Every outcome of a round: told its probability and the tokens that it emits, of which all but the last are accepted.
fn for_each_round(
    decide: Decide,
    (n_vocab, p): Target<'_>,
    shape: Shape,
    grow: &dyn Fn(&mut TokenTree),
    told: &mut dyn FnMut(f64, Vec<Token>),
) {
    let total = for_each_outcome(|dice: &AllDice| {
        let mut tree = TokenTree::new(n_vocab, Box::new(dice.clone()));
        tree.begin(0, shape);
        grow(&mut tree);
        let (mut coins, mut tokens) = (dice.clone(), dice.clone());
        let mut p = |node: NodeId| p(&tree.path(node));
        let verdict = decide(&tree, &mut p, &mut coins as &mut dyn Dice, &mut tokens);
        let mut text: Vec<Token> = verdict.accepted.iter().map(|&n| tree.token(n)).collect();
        text.push(verdict.token);
        let probability = dice.probability();
        told(probability, text);
        probability
    });
    assert!((total - 1.0).abs() < 1e-9, "probabilities sum to {total}");
}

/// Emits a law: probability by emitted tokens, and the mean number of accepted ones.
fn enumerate(laws: &Laws, shape: Shape, grow: &dyn Fn(&Laws, &mut TokenTree)) -> (HashMap<Vec<Token>, f64>, f64) {
    enumerate_with(verify, laws, shape, grow)
}

/// The same for rounds that are decided otherwise.
fn enumerate_with(
    decide: Decide,
    laws: &Laws,
    shape: Shape,
    grow: &dyn Fn(&Laws, &mut TokenTree),
) -> (HashMap<Vec<Token>, f64>, f64) {
    let mut emitted: HashMap<Vec<Token>, f64> = HashMap::new();
    let mut accepted = 0.0;
    for_each_round(decide, (laws.n_vocab, &|path| laws.p(path)), shape, &|tree| grow(laws, tree), &mut |p, text| {
        accepted += p * (text.len() - 1) as f64;
        *emitted.entry(text).or_default() += p;
    });
    (emitted, accepted)
}

/// Largest difference to the target's law over all texts of `len` tokens.
fn error(laws: &Laws, emitted: &HashMap<Vec<Token>, f64>, len: usize) -> f64 {
    let mut worst: f64 = 0.0;
    let mut texts: Vec<Vec<Token>> = vec![Vec::new()];
    for _ in 0..len {
        texts = texts
            .iter()
            .flat_map(|text| (0..laws.n_vocab as Token).map(move |t| [text.as_slice(), &[t]].concat()))
            .collect();
    }
    for text in &texts {
        let step: Vec<f64> = (0..len).map(|i| laws.p(&text[..i]).p(text[i])).collect();
        let wanted: f64 = step.iter().product();
        let got: f64 =
            (1..=len).map(|i| emitted.get(&text[..i]).unwrap_or(&0.0) * step[i..].iter().product::<f64>()).sum();
        worst = worst.max((got - wanted).abs());
    }
    worst
}

/// Children by a random plan that depends on the path: fixed ones, draws from one or two laws, before
/// or after each other, in any number.
fn by_plan(laws: &Laws, tree: &mut TokenTree) {
    let mut next = 0;
    while let Some(node) = tree.ids().nth(next) {
        next += 1;
        let path = tree.path(node);
        let mut rng = laws.rng(&path, 77);
        for step in 0..rng.random_range(1..=3) {
            if rng.random_bool(0.5) {
                let token = rng.random_range(0..laws.n_vocab) as Token;
                tree.add(node, token, rng.random());
            } else {
                let n = rng.random_range(1..=2);
                let _ = tree.sample(node, laws.q(&path, step), n);
            }
        }
    }
}

/// As a draft model grows it, best first: where the tree grows depends on what was drawn elsewhere.
fn best_first(laws: &Laws, tree: &mut TokenTree) {
    loop {
        let nodes = tree.next_to_expand();
        if nodes.is_empty() {
            return;
        }
        for node in nodes {
            let q = laws.q(&tree.path(node), 0);
            let _ = tree.sample(node, q, 1);
        }
    }
}

#[test]
fn every_mix_of_fixed_and_drawn_children_is_exact() {
    let mut kinds = [0; 3];
    for seed in 0..1_200 {
        let laws = Laws { n_vocab: 2 + seed as usize % 3, seed };
        let depth = if laws.n_vocab == 2 { 3 } else { 2 };
        let shape = Shape { max_nodes: 4 + seed as usize % 2, depth, width: 2 };
        let (emitted, _) = enumerate(&laws, shape, &by_plan);
        let error = error(&laws, &emitted, depth + 1);
        assert!(error < 1e-12, "seed {seed}: error {error:e}");
        let mut tree = TokenTree::new(laws.n_vocab, Box::new(FirstChoice));
        tree.begin(0, shape);
        by_plan(&laws, &mut tree);
        let drawn = tree.ids().skip(1).filter(|&n| tree.draw(n).is_some()).count();
        kinds[if drawn == 0 {
            0
        } else if drawn == tree.len() - 1 {
            1
        } else {
            2
        }] += 1;
    }
    assert!(kinds.iter().all(|&n| n > 50), "all fixed, all drawn, mixed: {kinds:?}");
}

struct FirstChoice;
impl Dice for FirstChoice {
    fn pick(&mut self, _: &[f64]) -> usize {
        0
    }
}

#[test]
fn growing_where_draws_look_promising_is_exact() {
    for seed in 0..400 {
        let laws = Laws { n_vocab: 3, seed: 10_000 + seed };
        let width = 1 + seed as usize % 3;
        let shape = Shape { max_nodes: 5, depth: 3, width };
        let (emitted, _) = enumerate(&laws, shape, &best_first);
        let error = error(&laws, &emitted, 4);
        assert!(error < 1e-12, "seed {seed}: error {error:e}");
    }
}

/// As a lookup grows it: fixed children, anywhere in the tree as it stands, by a plan that depends on the path and on
/// how large the tree has become, so that one part's draws decide what the other adds.
fn looked_up(laws: &Laws, tree: &mut TokenTree) {
    let mut next = 0;
    while let Some(node) = tree.ids().nth(next) {
        next += 1;
        let mut rng = laws.rng(&tree.path(node), 300 + tree.len() as u64);
        for _ in 0..rng.random_range(0..=2) {
            tree.add(node, rng.random_range(0..laws.n_vocab) as Token, rng.random());
        }
    }
}

/// A part of a merge: a way to grow the tree.
struct Part(Laws, Grow);
type Grow = fn(&Laws, &mut TokenTree);

impl Drafter for Part {
    fn draft(&mut self, _: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        self.1(&self.0, tree);
        Ok(())
    }
}

#[test]
fn a_merge_of_drawing_and_fixed_parts_is_exact() {
    let orders: [&[Grow]; 4] = [
        &[looked_up, best_first],
        &[best_first, looked_up],
        &[looked_up, best_first, looked_up],
        &[best_first, looked_up, best_first],
    ];
    let mut mixed = [0; 4];
    for seed in 0..400 {
        let (kind, laws) = (seed as usize % 4, Laws { n_vocab: 3, seed: 30_000 + seed });
        let shape = Shape { max_nodes: 5, depth: 2 + seed as usize / 4 % 2, width: 1 + seed as usize / 8 % 2 };
        let merged = |laws: &Laws, tree: &mut TokenTree| {
            let part = |&grow: &Grow| Box::new(Part(*laws, grow)) as Box<dyn Drafter>;
            let request = DraftRequest { seq: SeqId(0), context: &[0], law: &Sampling::GREEDY };
            Merge::new(orders[kind].iter().map(part).collect()).draft(&request, tree).expect("the parts do not fail");
        };
        let (emitted, _) = enumerate(&laws, shape, &merged);
        let error = error(&laws, &emitted, shape.depth + 1);
        assert!(error < 1e-12, "seed {seed}: error {error:e}");
        let mut tree = TokenTree::new(laws.n_vocab, Box::new(FirstChoice));
        tree.begin(0, shape);
        merged(&laws, &mut tree);
        let drawn_and_fixed = |node| tree.children(node).map(|c| usize::from(tree.draw(c).is_some())).sum::<usize>();
        mixed[kind] += usize::from(tree.ids().any(|n| (1..tree.children(n).count()).contains(&drawn_and_fixed(n))));
    }
    assert!(mixed.iter().all(|&n| n > 40), "trees with drawn and fixed siblings, by order: {mixed:?} of 100 each");
}

/// As the engine prunes: fixed choices that are unlikely, where that may depend on what was drawn beside and above
/// them, and, to no effect, drawn ones.
fn pruned(laws: &Laws, tree: &mut TokenTree) {
    by_plan(laws, tree);
    let least = laws.rng(&[], 99).random_range(0.0..0.8);
    let unwanted: Vec<NodeId> = tree.ids().filter(|&node| tree.survival(node) < least).collect();
    let grown = std::mem::replace(tree, TokenTree::bare(0));
    let draws = grown.ids().filter(|&node| grown.draw(node).is_some()).count();
    *tree = grown.pruned(&unwanted);
    assert_eq!(tree.ids().filter(|&node| tree.draw(node).is_some()).count(), draws, "what was drawn stays");
}

#[test]
fn pruning_fixed_choices_is_exact() {
    for seed in 0..400 {
        let laws = Laws { n_vocab: 3, seed: 30_000 + seed };
        let (emitted, _) = enumerate(&laws, Shape { max_nodes: 5, depth: 3, width: 2 }, &pruned);
        let error = error(&laws, &emitted, 4);
        assert!(error < 1e-12, "seed {seed}: error {error:e}");
    }
}

/// As a draft model with a padded vocabulary grows it: a part of q lies on tokens that the target does
/// not know.
fn padded(laws: &Laws, tree: &mut TokenTree) {
    let mut next = 0;
    while let Some(node) = tree.ids().nth(next) {
        next += 1;
        let path = tree.path(node);
        let beyond = laws.n_vocab as Token..;
        let padding = beyond.zip(laws.random(&mut laws.rng(&path, 5)).into_iter().take(2));
        let q = Dist::from_weights(laws.q(&path, 0).iter().chain(padding)).expect("q alone is a law");
        let _ = tree.sample(node, q, tree.width());
    }
}

#[test]
fn a_draft_with_a_larger_vocabulary_is_exact() {
    for seed in 0..200 {
        let laws = Laws { n_vocab: 3, seed: 20_000 + seed };
        let shape = Shape { max_nodes: 4, depth: 2, width: 1 + seed as usize % 2 };
        let (emitted, _) = enumerate(&laws, shape, &padded);
        let error = error(&laws, &emitted, 3);
        assert!(error < 1e-12, "seed {seed}: error {error:e}");
    }
}

/// Block verification (arXiv 2403.10444), straight from its formulas: mean accepted tokens on a chain.
fn block_verification(laws: &Laws, path: &mut Vec<Token>, depth: usize, pi: f64, reach: f64, h: &mut Vec<f64>) -> f64 {
    let p = laws.p(path);
    if path.len() == depth {
        h.push(pi);
        // P(tau = i) with the last i such that u_i <= h_i.
        let (mut rest, mut mean) = (reach, 0.0);
        for (i, h) in h.iter().enumerate().skip(1).rev() {
            mean += rest * h * i as f64;
            rest *= 1.0 - h;
        }
        h.pop();
        return mean;
    }
    let q = laws.q(path, 0);
    let mass: f64 = p.iter().map(|(t, p)| (pi * p - q.p(t)).max(0.0)).sum();
    h.push(if mass + 1.0 - pi > 0.0 { mass / (mass + 1.0 - pi) } else { 1.0 });
    let mut mean = 0.0;
    for (token, drawn) in q.iter() {
        let pi = (pi * p.p(token) / drawn).min(1.0);
        path.push(token);
        mean += block_verification(laws, path, depth, pi, reach * drawn, h);
        path.pop();
    }
    h.pop();
    mean
}

#[test]
fn on_a_chain_it_accepts_as_much_as_block_verification() {
    for seed in 0..100 {
        let laws = Laws { n_vocab: 3, seed: 50_000 + seed };
        let shape = Shape { max_nodes: 3, depth: 3, width: 1 };
        let (_, accepted) = enumerate(&laws, shape, &best_first);
        let block = block_verification(&laws, &mut Vec::new(), 3, 1.0, 1.0, &mut Vec::new());
        assert!((accepted - block).abs() < 1e-12, "seed {seed}: {accepted} against {block}");
    }
}

/// Recursive rejection sampling (SpecInfer, arXiv 2305.09781, with each child's own proposal law), straight from its
/// definition: children in order, each accepted with min(1, P/Q), else P becomes what it has beyond Q.
fn recursive_rejection(
    tree: &TokenTree,
    p: &mut dyn FnMut(NodeId) -> Dist,
    accept: &mut dyn Dice,
    emit: &mut dyn Dice,
) -> Verdict {
    let (mut node, mut accepted) = (NodeId::ROOT, Vec::new());
    'descend: loop {
        let mut rest = p(node);
        for child in tree.children(node) {
            let token = tree.token(child);
            let q = match tree.draw(child) {
                None => Dist::point(token),
                Some(draw) => {
                    let before = draw.nodes().iter().take_while(|&&other| other != child);
                    let gone: Vec<Token> = before.map(|&other| tree.token(other)).collect();
                    draw.q.without(&gone).expect("the child was drawn from it")
                }
            };
            let a = (rest.p(token) / q.p(token)).min(1.0);
            if accept.pick(&[a, 1.0 - a]) == 0 {
                accepted.push(child);
                node = child;
                continue 'descend;
            }
            // `None`: nothing but rounding is left.
            rest = Dist::from_weights(rest.iter().map(|(t, p)| (t, p - q.p(t)))).unwrap_or(rest);
        }
        return Verdict { accepted, token: rest.draw(emit), ending: Ending::Recovered };
    }
}

/// What the verifier accepts and what recursive rejection does, on trees by plan of up to `max_nodes` nodes.
fn against_rejection(seed: u64, max_nodes: usize) -> (f64, f64) {
    let laws = Laws { n_vocab: 3, seed: 60_000 + seed };
    let shape = Shape { max_nodes, depth: 2, width: 2 };
    let (_, accepted) = enumerate(&laws, shape, &by_plan);
    let (emitted, rejection) = enumerate_with(recursive_rejection, &laws, shape, &by_plan);
    let error = error(&laws, &emitted, shape.depth + 1);
    assert!(error < 1e-9, "seed {seed}: recursive rejection as written here is wrong by {error:e}");
    (accepted, rejection)
}

#[test]
fn with_room_for_the_plan_it_accepts_no_less_than_recursive_rejection() {
    let mut more = 0;
    for seed in 0..60 {
        let (accepted, rejection) = against_rejection(seed, 12);
        assert!(accepted > rejection - 1e-9, "seed {seed}: {accepted} against {rejection}");
        more += usize::from(accepted > rejection + 1e-3);
    }
    assert!(more > 0, "never more either");
}

/// Where the nodes run out, what was drawn in one place decides what grows in another. Then it may accept less, but little.
#[test]
fn where_nodes_run_out_it_accepts_hardly_less_than_recursive_rejection() {
    let less = |seed| {
        let (accepted, rejection) = against_rejection(seed, 5);
        rejection - accepted
    };
    assert!((less(6) - 0.000_561_591_161_9).abs() < 1e-9, "a known case: {}", less(6));
    for seed in 0..100 {
        assert!(less(seed) < 3e-3, "seed {seed}: {}", less(seed));
    }
}

/// p and q of the reference rounds by the token before; the first row is the root's.
const P: [[f64; 3]; 4] = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.7, 0.2, 0.1], [0.25, 0.25, 0.5]];
const Q: [[f64; 3]; 4] = [[0.3, 0.1, 0.6], [0.2, 0.3, 0.5], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1]];

fn row<'a>(table: &'a [[f64; 3]; 4], path: &[Token]) -> &'a [f64; 3] {
    &table[path.last().map_or(0, |&token| token as usize + 1)]
}

/// Two levels; at every node what `children` adds, given q there and its likeliest token.
fn two_levels(tree: &mut TokenTree, children: fn(&mut TokenTree, NodeId, Dist, Token)) {
    let mut next = 0;
    while let Some(node) = tree.ids().nth(next).filter(|&node| tree.depth(node) < 2) {
        next += 1;
        let q = row(&Q, &tree.path(node));
        let best = (0..3).max_by(|&a, &b| q[a].total_cmp(&q[b])).expect("three tokens");
        children(tree, node, dist(q), best as Token);
    }
}

/// The probabilities that 0, 1 and 2 tokens are accepted were computed outside this project by exact enumeration of
/// traversal verification and of recursive rejection, written in another language for p and q as above.
#[test]
fn accept_probabilities_are_those_of_an_independent_computation() {
    type Children = fn(&mut TokenTree, NodeId, Dist, Token);
    let chain: Children = |tree, node, q, _| drop(tree.sample(node, q, 1));
    let drawn: Children = |tree, node, q, _| drop(tree.sample(node, q, 2));
    // The likeliest token as it is, and one draw from the others.
    let drawn_first: Children = |tree, node, q, best| {
        let others = q.without(&[best]).expect("q has three tokens");
        let _ = tree.sample(node, others, 1);
        tree.add(node, best, 0.5);
    };
    let fixed_first: Children = |tree, node, q, best| {
        tree.add(node, best, 0.5);
        let _ = tree.sample(node, q, 1);
    };
    let (mixed, mixed_rejection) = ([0.05, 0.0375, 0.9125], [0.05, 0.05, 0.9]);
    let cases: [(&str, Children, [f64; 3], [f64; 3]); 4] = [
        ("chain", chain, [0.4, 0.15, 0.45], [0.4, 0.19, 0.41]),
        ("drawn", drawn, [0.1, 0.049416666667, 0.850583333333], [0.1, 0.138988095238, 0.761011904762]),
        ("drawn, then fixed", drawn_first, mixed, mixed_rejection),
        ("fixed, then drawn: tried in the same order", fixed_first, mixed, mixed_rejection),
    ];
    for (kind, children, traversal, rejection) in cases {
        let rules: [(&str, Decide, [f64; 3]); 2] =
            [("the verifier", verify, traversal), ("recursive rejection", recursive_rejection, rejection)];
        for (rule, decide, wanted) in rules {
            let mut got = [0.0; 3];
            let shape = Shape { max_nodes: 6, depth: 2, width: 2 };
            let (p, grow) = (|path: &[Token]| dist(row(&P, path)), |tree: &mut TokenTree| two_levels(tree, children));
            for_each_round(decide, (3, &p), shape, &grow, &mut |probability, text| got[text.len() - 1] += probability);
            let is_near = got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-9);
            assert!(is_near, "{kind}: {rule} accepts 0, 1, 2 tokens with {got:?}, not {wanted:?}");
        }
    }
}
