//! The `foretoken` program.

fn main() -> std::process::ExitCode {
    foretoken::cli::main(foretoken::registry::Registry::builtin())
}
