//! Faster generation with GGUF models by speculative decoding, without changing what the model says.
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "llama")]
pub mod cli;
pub mod config;
pub mod dice;
pub mod engine;
pub mod generate;
#[cfg(feature = "llama")]
#[allow(unsafe_code)]
pub mod llama;
pub mod prompts;
pub mod registry;
pub mod report;
pub mod sampler;
pub mod spread;
pub mod stats;
pub mod testkit;
pub mod text;
pub mod verify;
