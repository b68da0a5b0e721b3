//! The `foretoken` program with one drafter more.

use std::process::ExitCode;

use foretoken::registry::Registry;

fn main() -> ExitCode {
    foretoken::cli::main(Registry::builtin().with("bigram", "what followed each token the last time", bigram::build))
}
