//! Recycling learns from what the target says, in plain rounds too, and keeps it across texts.

use foretoken::engine::Engine;
use foretoken::registry::Registry;
use foretoken::sampler::Sampling;
use foretoken::testkit::toy::{ToyHost, ToyModel};
use foretoken_drafter::{Drafter, Host, Shape};
use foretoken_drafter_recycle::Recycle;

const TREE: Shape = Shape { max_nodes: 8, depth: 4, width: 3 };
const NO_ROOM: Shape = Shape { max_nodes: 0, ..TREE };

fn engine(target: &ToyModel, temperature: f32) -> Engine {
    let drafter: Box<dyn Drafter> = Box::new(Recycle::new(48, 8));
    let sampling = Sampling { temperature, ..Sampling::GREEDY };
    Engine::new(Box::new(target.clone()), Some(drafter), sampling, TREE, 4)
}

/// Tokens accepted per round over `rounds` of a text that begins with `prompt`.
fn accepted(engine: &mut Engine, prompt: &[u32], rounds: usize) -> f64 {
    engine.start(prompt).expect("toys do not fail");
    let accepted: usize = (0..rounds).map(|_| engine.step(9).expect("toys do not fail").accepted).sum();
    accepted as f64 / rounds as f64
}

#[test]
fn acceptance_rises_from_nothing() {
    for (order, temperature) in [(1, 0.0), (1, 1.0), (2, 0.0)] {
        let mut engine = engine(&ToyModel::new(48, order, 14.0, 3), temperature);
        assert_eq!(accepted(&mut engine, &[1], 1), 0.0, "it has seen nothing");
        let early = accepted(&mut engine, &[1], 10);
        let late = accepted(&mut engine, &[1], 400);
        println!("order {order}, temperature {temperature}: {early:.2}, then {late:.2} accepted per round");
        assert!(late > early && late > 0.3, "{early}, then {late}");
    }
}

#[test]
fn plain_rounds_teach_it_and_the_next_text_gains() {
    let mut engine = engine(&ToyModel::new(48, 1, 14.0, 3), 1.0);
    engine.set_shape(NO_ROOM);
    assert_eq!(accepted(&mut engine, &[1], 300), 0.0);
    engine.set_shape(TREE);
    assert!(accepted(&mut engine, &[2], 1000) > 0.3);
    let first = |learnt: usize| {
        let mut engine = self::engine(&ToyModel::new(48, 1, 14.0, 3), 0.0);
        engine.set_shape(NO_ROOM);
        accepted(&mut engine, &[7], learnt);
        engine.set_shape(TREE);
        accepted(&mut engine, &[7], 2)
    };
    assert_eq!(first(20), 4.0, "a text that it knows, greedily: every branch to its end");
    assert!(first(1) < 4.0, "one that it does not know");
    let mut engine = self::engine(&ToyModel::new(48, 1, 14.0, 3), 0.0);
    accepted(&mut engine, &[7], 20);
    assert!(accepted(&mut engine, &[7], 2) > 3.0);
    engine.forget();
    assert_eq!(accepted(&mut engine, &[7], 1), 0.0, "a benchmark begins anew");
}

#[test]
fn settings_out_of_range_are_refused() {
    let target = ToyModel::new(12, 2, 4.0, 3);
    let registry = Registry::builtin();
    let mut host = ToyHost::new(&registry, &target);
    for (settings, expected) in [
        ("successors = 0", "drafter `recycle`: successors = 0 is out of range; it goes from 1 to 64"),
        ("successors = 65", "successors = 65 is out of range"),
        ("succesors = 8", "did you mean `successors`?"),
    ] {
        let Err(error) = host.build("recycle", settings) else { panic!("{settings} is accepted") };
        assert!(error.to_string().contains(expected), "{settings}: {error}");
    }
}
