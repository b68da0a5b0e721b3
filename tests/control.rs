//! Control on simulated machines: the floors that it promises, on cost curves measured elsewhere, with drafters whose
//! acceptance is known, noise with heavy tails, and a clock that only the simulation moves.

use std::time::Duration;

use foretoken::control::{Control, Plan};
use foretoken::dice::{SeededDice, Stream};
use foretoken::stats::{Round, Stats};
use foretoken::verify::Ending;
use foretoken_drafter::{NodeId, Shape, Token, TokenTree};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// T(n) / T(1) of 1B models on two cores; straight between.
const F16: Curve = &[(1, 1.0), (2, 1.45), (4, 1.78), (6, 2.12), (8, 2.61), (16, 4.24)];
const Q8_0: Curve = &[(1, 1.0), (2, 1.65), (3, 2.45), (4, 2.3), (5, 3.3), (6, 3.1), (7, 4.5), (8, 4.3), (16, 6.9)];
const Q4_K_M: Curve = &[(1, 1.0), (2, 2.0), (4, 3.6), (6, 5.2), (8, 7.8), (16, 10.6)];
/// A machine that is bound by memory.
const FLAT: Curve = &[(1, 1.0), (17, 1.4)];
const CURVES: [(&str, Curve); 4] = [("F16", F16), ("Q8_0", Q8_0), ("Q4_K_M", Q4_K_M), ("flat", FLAT)];

type Curve = &'static [(usize, f64)];

/// Seconds of a plain step.
const STEP: f64 = 0.05;

fn ratio(curve: Curve, n: usize) -> f64 {
    let right = curve.iter().position(|&(m, _)| m >= n).unwrap_or(curve.len() - 1).max(1);
    let ((a, x), (b, y)) = (curve[right - 1], curve[right]);
    x + (y - x) * (n as f64 - a as f64) / (b as f64 - a as f64)
}

struct Chance(StdRng);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(StdRng::seed_from_u64(seed))
    }

    fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Around 1; one in fifty is two to six times as slow, as where another program takes the core.
    fn noise(&mut self) -> f64 {
        let spread = (self.uniform() + self.uniform() + self.uniform() - 1.5) * 0.08;
        let outage = if self.uniform() < 0.02 { 2.0 + 4.0 * self.uniform() } else { 1.0 };
        (1.0 + spread) * outage
    }
}

/// What a simulated drafter says and what is true of it.
struct Drafter {
    /// Belief and true acceptance of a guess, by the tokens generated so far, its depth and a random number.
    guess: fn(usize, usize, f64) -> (f64, f64),
    /// Children of a node; the second is right with a third of what the first leaves.
    width: usize,
    /// Plain steps for a call, for a pass, and for a token missed.
    call: f64,
    pass: f64,
    catch_up: f64,
    /// Whether guesses are drawn: then none may be pruned.
    draws: bool,
}

const FREE: Drafter = Drafter { guess: |_, _, _| (0.0, 0.0), width: 1, call: 0.0001, pass: 0.0, catch_up: 0.0, draws: false };
const MODEL: Drafter = Drafter { call: 0.01, pass: 0.1, catch_up: 0.03, ..FREE };

struct World {
    curve: Curve,
    /// By seconds since the beginning.
    slow: fn(f64) -> f64,
    tokens: usize,
    seed: u64,
}

impl World {
    fn new(curve: Curve, tokens: usize, seed: u64) -> World {
        World { curve, slow: |_| 1.0, tokens, seed }
    }

    /// Seconds for the text, and its statistics. With `control`, it decides; otherwise the shape is fixed.
    fn run(&self, drafter: &Drafter, shape: Shape, mut control: Option<&mut Control>) -> (f64, Stats) {
        let (mut now, mut made, mut missed, mut stats) = (0.0, 0, 0usize, Stats::default());
        let mut chance = Chance::new(self.seed);
        // The machine's moods are the same for everyone.
        let mut mood = Chance::new(self.seed + 1000);
        let mut tree = TokenTree::new(1 << 16, Box::new(SeededDice::new(self.seed, Stream::Draft)));
        if let Some(control) = &mut control {
            control.start();
        }
        while made < self.tokens {
            let drafts = match control.as_mut().map(|control| control.plan(100 + made, shape)) {
                None => {
                    tree.begin(0, shape);
                    true
                }
                Some(Plan::Plain) => {
                    tree.begin(0, Shape { max_nodes: 0, ..shape });
                    false
                }
                Some(Plan::Draft(pace)) => {
                    tree.begin_paced(0, shape, pace);
                    true
                }
            };
            let mut truth: Vec<f64> = vec![0.0];
            if drafts && shape.max_nodes > 0 {
                drafter.grow(&mut tree, made, &mut chance, &mut truth);
            }
            let passes = tree.passes();
            if let Some(control) = &mut control {
                tree = control.trim(tree);
            }
            let accepted = walk(&tree, &truth, &mut chance);
            let slow = STEP * (self.slow)(now);
            let called = f64::from(u8::from(drafts && shape.max_nodes > 0));
            let late = if passes > 0 { std::mem::take(&mut missed) as f64 } else { 0.0 };
            let draft = slow * mood.noise() * (drafter.call * called + drafter.pass * passes as f64 + drafter.catch_up * late);
            let score = slow * mood.noise() * ratio(self.curve, tree.len());
            if passes == 0 {
                missed += accepted.len() + 1;
            }
            let round = Round {
                tokens: vec![0; accepted.len() + 1],
                drafted: tree.len() - 1,
                depth: tree.ids().map(|n| tree.depth(n)).max().unwrap_or(0),
                accepted: accepted.len(),
                ending: Ending::Recovered,
                draft: Duration::from_secs_f64(draft),
                score: Duration::from_secs_f64(score),
                total: Duration::from_secs_f64(draft + score),
                predicted: control.as_ref().and_then(|control| control.prediction()),
            };
            now += draft + score;
            made += round.tokens.len();
            stats.generated_tokens += round.tokens.len();
            stats.add(&round);
            if let Some(control) = &mut control {
                control.learn(&tree, &accepted, &round);
            }
        }
        (now * self.tokens as f64 / made as f64, stats)
    }

    fn plain(&self) -> f64 {
        self.run(&FREE, Shape { max_nodes: 0, depth: 0, width: 1 }, None).0
    }

    /// Speed relative to plain decoding under control, from its first round on.
    fn controlled(&self, drafter: &Drafter) -> f64 {
        let mut control = self.seeded();
        self.plain() / self.run(drafter, wide(drafter), Some(&mut control)).0
    }

    /// A control that was given T(n) at n = 1, 2, 4, one measurement each.
    fn seeded(&self) -> Control {
        let mut mood = Chance::new(self.seed + 2000);
        let mut control = Control::new();
        let points = [1, 2, 4].map(|n| (n, Duration::from_secs_f64(STEP * mood.noise() * ratio(self.curve, n))));
        control.seed(100, &points);
        control
    }

    fn fixed(&self, drafter: &Drafter, length: usize) -> f64 {
        self.plain() / self.run(drafter, Shape { max_nodes: length, depth: length, width: 1 }, None).0
    }
}

fn wide(drafter: &Drafter) -> Shape {
    Shape { max_nodes: 16, depth: 16, width: drafter.width }
}

impl Drafter {
    fn grow(&self, tree: &mut TokenTree, made: usize, chance: &mut Chance, truth: &mut Vec<f64>) {
        let mut add = |tree: &mut TokenTree, node: NodeId| -> Option<NodeId> {
            let mut first = None;
            let mut left = 1.0;
            for i in 0..self.width.min(tree.width()) {
                let (belief, p) = (self.guess)(made, tree.depth(node) + 1, chance.uniform());
                let (belief, p) = if i == 0 { (belief, p) } else { ((1.0 - belief) / 3.0, left / 3.0) };
                left -= p;
                let token = truth.len() as Token;
                let child = match self.draws {
                    false => tree.add(node, token, belief as f32),
                    true => tree.sample(node, foretoken_drafter::Dist::point(token), 1).next(),
                };
                if child.is_some() {
                    truth.push(p);
                }
                first = first.or(child);
            }
            first
        };
        if self.pass == 0.0 {
            let mut at = Some(NodeId::ROOT);
            while let Some(node) = at {
                at = add(tree, node);
            }
            return;
        }
        loop {
            let nodes = tree.next_to_expand();
            if nodes.is_empty() {
                return;
            }
            for node in nodes {
                add(tree, node);
            }
        }
    }
}

/// The accepted nodes, by the truth.
fn walk(tree: &TokenTree, truth: &[f64], chance: &mut Chance) -> Vec<NodeId> {
    let (mut at, mut accepted) = (NodeId::ROOT, Vec::new());
    loop {
        let mut u = chance.uniform();
        let next = tree.children(at).find(|&child| {
            let p = truth[tree.token(child) as usize];
            u -= p;
            u < 0.0
        });
        let Some(next) = next else { return accepted };
        accepted.push(next);
        at = next;
    }
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp()
}

const SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn table() {
    let honest: [(&str, fn(usize, usize, f64) -> (f64, f64)); 9] = [
        ("0.3", |_, _, _| (0.3, 0.3)),
        ("0.6", |_, _, _| (0.6, 0.6)),
        ("0.8", |_, _, _| (0.8, 0.8)),
        ("0.95", |_, _, _| (0.95, 0.95)),
        ("0.8 said 0.4", |_, _, _| (0.4, 0.8)),
        ("varied", |_, _, u| (u.sqrt(), u.sqrt())),
        ("random .9", |_, _, _| (0.9, 0.001)),
        ("right 200", |made, _, _| (0.9, if made < 200 { 0.98 } else { 0.0 })),
        ("phases", |made, _, _| (0.7, if made % 200 < 100 { 0.95 } else { 0.2 })),
    ];
    for (name, curve) in CURVES {
        for (cost, base) in [("free", &FREE), ("model", &MODEL)] {
            for (what, guess) in honest {
                let drafter = Drafter { guess, ..*base };
                for tokens in [256, 1024] {
                    let world = |seed| World::new(curve, tokens, seed);
                    let mean = |f: &dyn Fn(&World) -> f64| geometric_mean(&SEEDS.map(|s| f(&world(s))).collect::<Vec<_>>());
                    let fixed: Vec<f64> = [1, 2, 3, 4, 5, 7, 8, 12, 16].map(|k| mean(&|w| w.fixed(&drafter, k))).to_vec();
                    let best = fixed.iter().copied().fold(1.0, f64::max);
                    let worst = SEEDS.map(|s| world(s).controlled(&drafter)).fold(f64::MAX, f64::min);
                    let auto = mean(&|w| w.controlled(&drafter));
                    println!("{name:7} {cost:5} {what:12} {tokens:5}: auto {auto:.3} (worst {worst:.3}) best {best:.3} ratio {:.3}", auto / best);
                }
            }
        }
    }
}

#[test]
#[ignore]
fn debug() {
    let drafter = Drafter { guess: |_, _, _| (0.95, 0.95), ..MODEL };
    for seed in SEEDS {
        let world = World::new(Q8_0, 1024, seed);
        let mut control = world.seeded();
        let (t, _) = world.run(&drafter, wide(&drafter), Some(&mut control));
        let r = control.report(100);
        println!("{seed}: {:.3} {:?} {:?}", world.plain() / t, r.choices, r.curve.iter().map(|(n, s)| (*n, (s / STEP / ratio(Q8_0, *n) * 100.0).round())).collect::<Vec<_>>());
    }
}
