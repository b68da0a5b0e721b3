//! The only place that names llama.cpp.

pub mod gguf;
pub mod quantize;
pub mod widen;
