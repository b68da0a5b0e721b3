//! `foretoken list`: every kind of drafter, one line each.

use std::io::Write;

use super::Failure;
use crate::registry::Registry;

/// List every kind of drafter.
#[derive(clap::Args)]
pub struct List {}

impl List {
    pub fn execute(&self, registry: &Registry) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let width = registry.kinds().iter().map(|k| k.name.len()).max().unwrap_or(0);
        for kind in registry.kinds() {
            writeln!(out, "{:width$}  {}", kind.name, kind.about)?;
        }
        Ok(())
    }
}
