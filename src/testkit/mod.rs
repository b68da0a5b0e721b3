//! What it takes to prove a drafter right without a model file: toy models with known probabilities,
//! dice that visit every outcome, and the conformance checks that every drafter must pass.
//!
//! Nothing here needs llama.cpp. A drafter outside this repository tests itself with
//! [`conformance::check`] from a dev-dependency on `foretoken` without default features.

pub mod chi_squared;
pub mod conformance;
pub mod enumerate;
pub mod toy;
