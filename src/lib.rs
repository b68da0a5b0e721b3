//! Faster text generation with GGUF models by speculative decoding, without changing what they say.
//!
//! This page is the architecture page: what there is, where it is, and what must stay true.
//!
//! # Bird's eye
//!
//! A *drafter* guesses the tokens that come next, as a tree. The *target*, a GGUF model run by llama.cpp, scores
//! every guess in one pass. The *verifier* keeps a branch of the tree and one token more, so that the text has
//! exactly the target's law. It pays where a pass over several tokens costs little more than one over a single
//! token: where reading the weights, not arithmetic, takes the time.
//!
//! There are three ways in:
//!
//! * the program: [`cli::main`] (`src/main.rs` is five lines, and so is that of a program with another drafter);
//! * the library: [`config`] → [`llama::host`] → [`engine`] → [`generate`]; `examples/generate.rs` is the whole of it;
//! * a drafter: the crate [`foretoken_drafter`] and nothing else; `drafters/README.md` has the five steps, and
//!   [`testkit`] tests it.
//!
//! # Code map
//!
//! `src/`, this crate, each module with the question that it answers:
//!
//! * [`engine`]: What happens in one round? [`Engine::step`](engine::Engine::step) is the story.
//! * [`verify`]: Which guesses are accepted, and which token follows them?
//! * [`sampler`]: What law do logits and sampling settings make? The same for p and q.
//! * [`dice`]: Where does chance come from? One seed, a stream for each use.
//! * [`generate`]: How do rounds become a text, and when does it end?
//! * [`text`]: What may be printed already? Whole characters, and no beginning of a stop string.
//! * [`chat`]: How does a prompt look in the model's own template?
//! * [`control`]: How much is drafted, or nothing at all?
//! * [`cost`]: What do a pass and a draft cost on this machine?
//! * [`survival`]: How likely is a guess to be accepted, really?
//! * [`promise`]: What would heads add to a tree, before they are evaluated?
//! * [`threads`]: How many threads compute, when others use the machine too?
//! * [`stats`]: What do the rounds add up to?
//! * [`prompts`]: Which texts does a benchmark continue?
//! * [`report`]: What did a comparison with plain decoding find?
//! * [`spread`]: How far are its medians to be trusted?
//! * [`machine`]: What does the machine tell of itself, and of what a run took?
//! * [`theory`]: What should speculation bring, by the formulas?
//! * [`page`]: How does a comparison look, with theory beside it?
//! * [`config`]: What did the user write, and what does it mean?
//! * [`registry`]: Which drafters are there? The only list.
//! * [`map`]: How is a file read in place?
//! * [`gguf`]: What is in a GGUF file, and how is one written?
//! * [`heads`]: What are Medusa's heads as a file, and how are they trained or imported?
//! * [`testkit`]: How is a drafter proven right without a model file? Toy models with known probabilities, dice that
//!   visit every outcome, conformance checks.
//! * [`cli`]: What can be typed? One file per subcommand.
//! * [`llama`]: How does llama.cpp do it? Models, contexts, their caches, files derived from others.
//!
//! Beside it:
//!
//! * `drafters/api`, the crate [`foretoken_drafter`]: what drafters and the engine say to each other.
//! * `drafters/model`, `drafters/quantized`, `drafters/early_exit`, `drafters/staged`, `drafters/medusa`,
//!   `drafters/ngram`, `drafters/recycle`, `drafters/cascade`, `drafters/merge`, `drafters/auto`: one crate per drafter; the
//!   folder is the list.
//! * `examples/`: this library in a program; `examples/bigram`: a drafter outside this crate, to copy.
//! * `configs/`: one file per way of running; each runs as it stands.
//! * `models/`: the bundled models, and how they were made.
//! * `benches/`: what is measured, and on which prompts.
//! * `tests/`: one file per claim; `tests/mutants/`: the known ways to break exactness, each caught by a test.
//!
//! Arrows run one way: this crate → `drafters/*` → `drafters/api`, and this crate → llama-cpp-2.
//!
//! # A round
//!
//! 1. [`engine`] gives the tree its budget: the configured shape, less what the text or the context has no room for.
//!    Unless the shape is fixed, [`control`] decides whether to draft and gives the tree a pace.
//! 2. The drafter grows the tree from its root, the last final token. No guess is no error: a plain round.
//! 3. [`control`] has the tree cut to the nodes that are worth scoring; only fixed choices go. The target scores every
//!    node that is left in one pass.
//! 4. [`verify`] walks the tree. It asks [`sampler`] for p where it needs it: logits, and the node's own path.
//! 5. The accepted tokens become final, and after them one that the target chose: *recovered* if guesses were
//!    rejected, *bonus* if the branch was accepted to its end.
//! 6. The drafter hears what became final; [`stats`] counts, [`control`] learns what it took and what it gave.
//!
//! The target's cache needs no word about any of it: it finds out what it shares with the next context.
//!
//! # Invariants
//!
//! **Architecture invariant:** only [`llama`] calls llama.cpp, its bindings or ggml. (One yardstick stands outside:
//! `benches/overhead.rs` keeps a bare loop over the bindings, with its own `unsafe`, to compare this crate with; through
//! [`llama`] it would measure itself.) Everything but [`llama`] and
//! [`cli`] builds and passes its tests without a C++ toolchain (`--no-default-features`).
//!
//! **Architecture invariant:** `unsafe` stands in [`llama`] and [`map`] only, each block with a SAFETY line. The
//! drafters forbid it.
//!
//! **Architecture invariant:** [`foretoken_drafter`] depends on nothing, not even on a source of random numbers. A
//! drafter elsewhere needs that crate and a Rust compiler.
//!
//! **Architecture invariant:** no drafter knows the engine or the verifier. It is told what was accepted; there is no call
//! by which it could decide it. Those that consist of others get them from the host, of whatever kind. (Crates share code
//! where they do the same: the loop over a draft model is `model`'s alone, and `auto` is a merge of what it finds.)
//!
//! **Architecture invariant:** only [`verify`] decides what is accepted, and only the target's p what is emitted.
//! [`engine`] and [`generate`] draw nothing; [`generate`] may cut a text short, never change it. (`bench --synthetic`
//! stands apart: it puts dice in [`verify`]'s place to price a round, through a call that is not public, says so of its
//! numbers, and shows nobody the text.)
//!
//! **Architecture invariant:** a proposal law q exists only where the tree itself drew from it. There is no call that
//! takes a token together with the q it is said to come from, and none that takes a drawn node out of the tree: nothing
//! drawn is ever dropped for its value. Fixed choices are pruned by [`control`] alone, into a tree of another round; a
//! drafter's tree that was begun anew, exchanged or pruned is refused. The budget is the tree's too; a node beyond it is
//! refused.
//!
//! **Architecture invariant:** drawing drafts, deciding verdicts and emitting tokens never share random numbers.
//!
//! **Architecture invariant:** there is no rollback call. A [`LanguageModel`](foretoken_drafter::LanguageModel) is
//! given the whole context every time and keeps what it shares with the last one. So no caller can get the cache
//! wrong.
//!
//! **Architecture invariant:** text becomes types once. [`config`] reads the tables that every run has, a drafter its
//! own; no code after them checks a setting again, and none before them knows a drafter's keys.
//!
//! **Architecture invariant:** a file is never written in place. What is mapped stays as it was.
//!
//! # Exactness
//!
//! Promised: the emitted tokens have exactly the law that the sampling settings make of the logits of the verifying
//! pass, jointly over the whole text, whatever the drafter guesses. Greedy text follows the arg-max of those logits.
//! `tests/exactness.rs` visits every outcome of whole rounds (largest error below 1e-12); [`testkit::conformance`]
//! holds every drafter to it; `tests/models.rs` does the same on real models.
//!
//! Not promised: the same bits as plain decoding. Kernels round differently for one token and for many, so the logits
//! themselves differ in the last digits, and where two tokens nearly tie, greedy text may take the other one.
//! `foretoken check` measures by how much on the machine at hand. A seed repeats a run with the same build, machine
//! and settings, if the tree's shape is fixed or nothing drafts: [`control`] goes by measured times; with another
//! drafter it gives another text of the same law. And no drafter is promised to be faster.
//!
//! # Features
//!
//! * `llama` (default): [`llama`] and [`cli`], hence the program. Compiles llama.cpp.
//! * `train` (part of `llama`): training and importing heads ([`heads`]); needs no C++ toolchain.
//! * `cuda`, `metal`, `vulkan`: `llama` with that backend, by llama-cpp-2's feature of the same name.
//!
//! # Words
//!
//! One name per thing, in code, configuration, help and tables.
//!
//! * *target*, *drafter*, *draft model*: whose text it is; who guesses; a model that guesses.
//! * *draft*, *verify*, *accept*, *reject*: guess; score and decide; the two verdicts.
//! * *accepted*, *recovered*, *bonus* token: a guess that was kept; the target's token instead of rejected guesses; the
//!   one on top of a branch accepted to its end.
//! * *chain*, *tree*, *root*, *node*, *path*, *leaf*: a chain is a tree of one branch; the root is the last final
//!   token.
//! * p, q, *residual*: the target's law, the draft's law, what p has beyond q.
//! * *round*: one draft and one verifying pass. *Plain decoding*: no speculation; a *plain* round: nothing drafted.
//! * *acceptance rate*: accepted / drafted.
//! * *mean acceptance length*: 1 + accepted / rounds, so the recovered or bonus token counts.
//! * *acceptance by position*: how often the d-th token of a branch was accepted, where one was drafted. *Reached by
//!   position*: the same of all rounds.
//! * *survival* of a node: the probability that the walk reaches it, as far as it can be estimated.
//! * *cost curve* T(n): seconds to score n tree nodes, root included, in one pass.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
#[cfg(feature = "llama")]
pub mod cli;
pub mod config;
pub mod control;
pub mod cost;
pub mod dice;
pub mod engine;
pub mod generate;
pub mod gguf;
pub mod heads;
#[cfg(feature = "llama")]
#[allow(unsafe_code)]
pub mod llama;
pub mod machine;
#[allow(unsafe_code)]
pub mod map;
pub mod page;
pub mod promise;
pub mod prompts;
pub mod registry;
pub mod report;
pub mod sampler;
pub mod spread;
pub mod stats;
pub mod survival;
pub mod testkit;
pub mod text;
pub mod theory;
pub mod threads;
pub mod verify;
