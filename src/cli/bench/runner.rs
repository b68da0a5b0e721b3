//! The methods of a comparison, ready to run, and the running of them.
//!
//! One after the other they share one engine, which takes each method's drafter in turn. When they take turns of a few
//! tokens within a text, each has an engine with a context of its own; nothing else differs.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use super::{blamed, synthetic, Place};
use crate::cli::run::describe;
use crate::cli::Failure;
use crate::config::Setup;
use crate::control::{self, Control};
use crate::engine::Engine;
use crate::generate::{Continuation, Limits, Stop};
use crate::llama::host::LlamaHost;
use crate::llama::model::Model;
use crate::llama::threads::ThreadCount;
use crate::machine::EnergyMeter;
use crate::report::{added, Method, Run};
use crate::threads::{Threads, Workers};
use foretoken_drafter::{Drafter, Host, Needs, Shape, Token};

/// Plain decoding or a configuration, ready to run.
pub struct Loaded {
    pub method: Method,
    drafter: Option<Box<dyn Drafter>>,
    shape: Shape,
    /// Kept from text to text, as in a program that generates many.
    control: Option<Control>,
}

impl Loaded {
    pub fn plain() -> Loaded {
        let method =
            Method { name: "none".to_owned(), about: "plain decoding".to_owned(), is_adaptive: false, synthetic: None };
        Loaded { method, drafter: None, shape: PLAIN, control: None }
    }

    /// What its drafter needs.
    pub fn needs(&self) -> Needs {
        self.drafter.as_ref().map_or(Needs::default(), |drafter| drafter.needs())
    }
}

/// A configuration with a drafter of its own, whose guesses dice accept if there is a rate.
pub fn load(setup: &Setup, config: &Path, rate: Option<f64>, host: &mut LlamaHost<'_>) -> Result<Loaded, Failure> {
    host.set_base(&setup.base);
    let blame = |e: Failure| blamed(e, &config.display().to_string());
    let drafter = host.build(&setup.drafter.kind, &setup.drafter.settings).map_err(|e| blame(e.into()))?;
    let control = (setup.adaptive && setup.drafter.kind != "none").then(|| {
        let threads = Threads::new(Arc::new(host.threads().clone()), host.context_options().threads);
        Control::new().with_threads(match setup.target.threads {
            Some(_) => threads,
            None => threads.explore(None),
        })
    });
    let method = Method {
        name: named(&config.file_stem().unwrap_or_default().to_string_lossy(), rate),
        about: rate.map_or_else(|| describe(setup), |rate| synthetic::about(rate, &describe(setup))),
        is_adaptive: control.is_some(),
        synthetic: rate,
    };
    Ok(Loaded { method, drafter: Some(drafter), shape: host.shape(setup), control })
}

pub fn named(config: &str, rate: Option<f64>) -> String {
    format!("{config}{}", if rate.is_some() { "-synthetic" } else { "" })
}

const PLAIN: Shape = Shape { max_nodes: 0, depth: 0, width: 1 };

/// Tokens of a warm-up.
const WARM_UP: usize = 16;

/// How many tokens a text has, and a turn.
#[derive(Clone, Copy)]
pub struct Lengths {
    pub text: usize,
    pub turn: usize,
}

/// All methods, and the engines that run them.
pub struct Runner {
    methods: Vec<Loaded>,
    /// One for all, or one for each.
    engines: Vec<Engine>,
    vocabulary: Arc<Model>,
    /// What an adaptive method may have changed, and what all others use.
    threads: (ThreadCount, usize),
    lengths: Lengths,
    seed: u64,
    energy: Option<EnergyMeter>,
}

/// A text under way.
struct Course {
    place: Place,
    text: Continuation,
    threads: usize,
    joules: Option<f64>,
    stop: Option<Stop>,
    /// What control reported before it.
    before: Option<control::Report>,
}

impl Runner {
    /// The `methods` on the target of `host`, with the sampling of `setup`.
    pub fn new(methods: Vec<Loaded>, host: &LlamaHost<'_>, setup: &Setup, lengths: Lengths) -> Result<Runner, Failure> {
        let seed = setup.seed.unwrap_or(0);
        let count = if lengths.turn < lengths.text { methods.len() } else { 1 };
        let engine = |_| -> Result<Engine, Failure> {
            Ok(Engine::new(Box::new(host.open_target()?), None, setup.sampling.clone(), PLAIN, seed))
        };
        Ok(Runner {
            methods,
            engines: (0..count).map(engine).collect::<Result<_, _>>()?,
            vocabulary: host.model().clone(),
            threads: (host.threads().clone(), host.context_options().threads),
            lengths,
            seed,
            energy: EnergyMeter::of_this_machine(),
        })
    }

    /// How many methods there are.
    pub fn methods(&self) -> usize {
        self.methods.len()
    }

    /// Buffers grow and pages are read at first use; that is nobody's speed. Control does not see this text, which is
    /// measured later: every round drafts all that its shape allows.
    pub fn warm_up(&mut self, text: &[Token]) -> Result<(), Failure> {
        let lengths = self.lengths;
        self.lengths = Lengths { text: lengths.text.min(WARM_UP), turn: lengths.turn.min(WARM_UP) };
        let controls: Vec<_> = self.methods.iter_mut().map(|loaded| loaded.control.take()).collect();
        let places = (0..self.methods.len()).map(|method| Place { method, prompt: 0, repeat: 0 });
        let outcome = places.into_iter().try_for_each(|place| self.run(&[place], text, |_| ()).map(drop));
        self.methods.iter_mut().zip(controls).for_each(|(loaded, control)| loaded.control = control);
        self.lengths = lengths;
        outcome
    }

    /// Continue `text`, the prompt of all these places, by each place's method, in turns. `next` is told whose it is.
    /// More places than one need an engine for each method.
    pub fn run(&mut self, places: &[Place], text: &[Token], next: impl Fn(&str)) -> Result<Vec<Run>, Failure> {
        let mut courses = Vec::new();
        for &place in places {
            next(&self.methods[place.method].method.name);
            courses.push(self.begin(place, text)?);
        }
        let mut goal = 0;
        while courses.iter().any(|course| course.stop.is_none()) {
            goal += self.lengths.turn.max(1);
            for course in courses.iter_mut().filter(|course| course.stop.is_none()) {
                next(&self.methods[course.place.method].method.name);
                self.go_on(course, goal)?;
            }
            // Whoever came first comes last.
            courses.rotate_left(1);
        }
        Ok(courses.into_iter().map(|course| self.end(course)).collect())
    }

    /// The engine of a method.
    fn seat(&self, method: usize) -> usize {
        method % self.engines.len()
    }

    fn begin(&mut self, place: Place, text: &[Token]) -> Result<Course, Failure> {
        let seat = self.seat(place.method);
        let (engine, chosen) = (&mut self.engines[seat], &mut self.methods[place.method]);
        engine.set_drafter(chosen.drafter.take());
        engine.set_shape(chosen.shape);
        let before = chosen.control.as_ref().map(|control| control.report(0));
        engine.set_control(chosen.control.take());
        engine.set_verifier(chosen.method.synthetic.map(synthetic::verifier));
        engine.forget();
        engine.reseed(self.seed.wrapping_add(place.repeat as u64));
        let limits = Limits { max_tokens: self.lengths.text, stop: Vec::new(), ignore_end: true };
        self.threads.0.set(self.threads.1);
        let (text, joules) = metered(self.energy.as_ref(), || Continuation::begin(engine, text, &limits, &NEVER));
        let text = text.map_err(|e| blamed(e.into(), &chosen.method.name))?;
        Ok(Course { place, text, threads: self.threads.0.get(), joules, stop: None, before })
    }

    /// Up to `goal` tokens of the text, or its end.
    fn go_on(&mut self, course: &mut Course, goal: usize) -> Result<(), Failure> {
        let seat = self.seat(course.place.method);
        let (engine, vocabulary) = (&mut self.engines[seat], self.vocabulary.as_ref());
        self.threads.0.set(course.threads);
        let (outcome, joules) = metered(self.energy.as_ref(), || {
            while course.stop.is_none() && course.text.tokens().len() < goal {
                course.stop = course.text.step(engine, vocabulary, &NEVER)?;
            }
            Ok(())
        });
        course.joules = course.joules.zip(joules).map(|(before, now)| before + now);
        course.threads = self.threads.0.get();
        outcome
            .map_err(|e: crate::engine::EngineError| blamed(e.into(), &self.methods[course.place.method].method.name))
    }

    fn end(&mut self, course: Course) -> Run {
        let Place { method, prompt, repeat } = course.place;
        let seat = self.seat(method);
        let (engine, chosen) = (&mut self.engines[seat], &mut self.methods[method]);
        let after = engine.control().map(|control| control.report(engine.context().len()));
        let control = after.map(|after| added(course.before.as_ref(), after));
        chosen.drafter = engine.set_drafter(None);
        chosen.control = engine.set_control(None);
        self.threads.0.set(self.threads.1);
        let text = course.text.end(course.stop.unwrap_or(Stop::Length));
        Run { method, prompt, repeat, tokens: text.tokens, stats: text.stats, joules: course.joules, control }
    }
}

/// Nobody breaks off a text of a comparison.
static NEVER: AtomicBool = AtomicBool::new(false);

/// What `work` gives, and the joules that the machine counted meanwhile.
fn metered<T>(meter: Option<&EnergyMeter>, work: impl FnOnce() -> T) -> (T, Option<f64>) {
    let before = meter.and_then(EnergyMeter::read);
    let outcome = work();
    (outcome, meter.zip(before).and_then(|(meter, before)| meter.joules_since(&before)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::registry::Registry;

    #[test]
    fn a_warm_up_is_no_text_that_control_has_seen() {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/auto.toml");
        let setup = Config::read(&config).and_then(|config| config.setup()).unwrap();
        let registry = Registry::builtin();
        let mut host = LlamaHost::load(&setup, &registry).unwrap();
        let methods = vec![Loaded::plain(), load(&setup, &config, None, &mut host).unwrap()];
        let text = host.model().tokenise("Once upon a time there was a fox.", true).unwrap();
        let mut runner = Runner::new(methods, &host, &setup, Lengths { text: 24, turn: 24 }).unwrap();
        runner.warm_up(&text).unwrap();
        assert!(runner.methods[1].control.as_ref().is_some_and(Control::knows_nothing));
        let place = Place { method: 1, prompt: 0, repeat: 0 };
        for _ in 0..2 {
            let run = runner.run(&[place], &text, |_| ()).unwrap().remove(0);
            let choices = run.control.expect("it is controlled").choices;
            assert_eq!(choices.iter().sum::<usize>(), run.stats.rounds, "of this text alone");
        }
    }
}
