//! Faster generation with GGUF models by speculative decoding, without changing what the model says.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
#[cfg(feature = "llama")]
pub mod cli;
pub mod config;
pub mod dice;
pub mod engine;
pub mod generate;
#[cfg(feature = "llama")]
#[allow(unsafe_code)]
pub mod llama;
#[allow(unsafe_code)]
pub mod map;
pub mod prompts;
pub mod registry;
pub mod report;
pub mod sampler;
pub mod spread;
pub mod stats;
pub mod testkit;
pub mod text;
pub mod verify;
