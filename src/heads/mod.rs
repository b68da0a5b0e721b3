//! Medusa's heads (Cai et al., arXiv 2401.10774): small networks on the target's last hidden state, each of which
//! guesses a token further ahead. A head is a few blocks, h ← h + SiLU(W h + b), and then an output matrix: the target's
//! own, or one of the head's.
//!
//! * [`format`](mod@format): the file. Read by whoever evaluates heads, written by the other two.
//! * `train`: from hidden states and the tokens that followed them to heads. With the feature `train`.
//! * `import`: from published checkpoints to the same file. With the feature `train`.
//!
//! Nothing here knows llama.cpp: hidden states come in as numbers, and heads are evaluated elsewhere.

pub mod format;
#[cfg(feature = "train")]
pub mod import;
#[cfg(feature = "train")]
mod pickle;
#[cfg(feature = "train")]
pub mod samples;
#[cfg(feature = "train")]
pub mod train;

pub use format::{Description, HeadsError, HeadsFile, Part, Sizes};
