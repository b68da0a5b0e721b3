//! Faster generation with GGUF models by speculative decoding, without changing what the model says.

pub mod map;

#[cfg(feature = "llama")]
pub mod llama;
