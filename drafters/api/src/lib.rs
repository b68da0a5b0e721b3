//! The interface between the foretoken engine and its drafters.
//!
//! A *drafter* guesses the tokens that come next by growing a [`TokenTree`]; the engine lets the
//! *target* model score every node in one pass and keeps the longest valid branch. This crate is all
//! that a drafter sees: it knows no engine, no verifier and no llama.cpp, and depends on nothing.
//!
//! To write a drafter, implement [`Drafter`]: one method, [`Drafter::draft`], is required. Guesses
//! enter the tree in one of two ways, and the difference is what keeps sampling exact:
//!
//! * [`TokenTree::add`]: a fixed choice (a lookup, an arg-max, a top-k candidate, a head's guess).
//! * [`TokenTree::sample`]: the tree itself draws from your law `q`, and keeps `q` for the verifier.
//!
//! There is no third way, so a proposal law that nothing was drawn from cannot be stated.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod dice;
mod dist;
mod drafter;
mod error;
mod frontier;
mod host;
mod model;
mod pace;
mod tree;

pub use dice::Dice;
pub use dist::Dist;
pub use drafter::{Commit, DraftRequest, Drafter, Law, Needs, Outcome, SeqId};
pub use error::DraftError;
pub use frontier::Frontier;
pub use host::{Build, Bytes, Companions, Derivation, Heads, Host, ModelSpec, TargetInfo};
pub use model::{LanguageModel, Scores};
pub use pace::{Guess, Pace};
pub use tree::{Draw, Evaluation, NodeId, Shape, TokenTree};

/// A token's index in the vocabulary that the target and its drafters share.
pub type Token = u32;
