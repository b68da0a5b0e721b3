//! The command line: one file per subcommand. Text goes to stdout, everything else to stderr.
//!
//! Exit codes: 0 done, 1 wrong input, 2 failed while running, 130 interrupted twice, or before there was anything to
//! show. A closed stdout ends the program silently with 0.

mod bench;
mod check;
mod demo;
mod inspect;
mod list;
mod output;
mod page;
mod prepare;
mod progress;
mod run;
mod tune;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Setup};
use crate::engine::EngineError;
use crate::gguf::GgufError;
use crate::heads::HeadsError;
use crate::llama::host::warnings;
use crate::llama::quantize::QuantizeError;
use crate::llama::widen::WidenError;
use crate::llama::LlamaError;
use crate::registry::Registry;
use foretoken_drafter::DraftError;

/// Faster text generation with GGUF models by speculative decoding, without changing what they say.
#[derive(Parser)]
#[command(name = "foretoken", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Show llama.cpp's own log on stderr.
    #[arg(long, global = true)]
    llama_log: bool,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Bench(bench::Bench),
    Page(page::Page),
    List(list::List),
    Inspect(inspect::Inspect),
    Check(check::Check),
    Prepare(prepare::Prepare),
    Tune(tune::Tune),
    #[command(hide = true)]
    Convert(prepare::derive::Convert),
    #[command(hide = true)]
    Demo(demo::Demo),
}

/// The whole program. A plug-in's `main` calls it with its own drafter added to the registry.
pub fn main(registry: Registry) -> ExitCode {
    crate::llama::threads::restart_with_patience();
    crate::map::report_shrunk_files();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return help_or_wrong_usage(&error),
    };
    crate::llama::show_log(arguments.llama_log);
    progress::convert_in_child();
    let result = match arguments.command {
        Command::Run(run) => run.execute(&registry),
        Command::Bench(bench) => bench.execute(&registry),
        Command::Page(page) => page.execute(),
        Command::List(list) => list.execute(&registry),
        Command::Inspect(inspect) => inspect.execute(&registry),
        Command::Check(check) => check.execute(),
        Command::Prepare(prepare) => prepare.execute(),
        Command::Tune(tune) => tune.execute(&registry),
        Command::Convert(convert) => convert.execute(),
        Command::Demo(demo) => demo.execute(&registry),
    };
    match result {
        Ok(()) | Err(Failure::ClosedStdout) => ExitCode::SUCCESS,
        Err(Failure::Input(message)) => report(&message, 1),
        Err(Failure::Running(message)) => report(&message, 2),
    }
}

/// Help and version are no errors; wrong usage is wrong input, and gets one line like any other.
fn help_or_wrong_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()));
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let what: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let what = what.join(" ");
    let tip = lines.find_map(|line| line.strip_prefix("tip: ")).map_or(String::new(), |tip| format!("; {tip}"));
    report(&format!("{}{tip}; see --help", what.trim_start_matches("error: ")), 1)
}

/// What the user should know before the models of `setup` are loaded.
fn warn(setup: &Setup) -> Result<(), Failure> {
    warnings(setup)?.iter().for_each(|warning| note(format!("warning: {warning}")));
    Ok(())
}

/// A line on stderr. That nobody reads it, or that its disk is full, is no reason to fail.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn report(message: &str, code: u8) -> ExitCode {
    note(format!("error: {message}"));
    ExitCode::from(code)
}

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The user can mend it: a file, a setting, an argument.
    Input(String),
    /// It failed while running.
    Running(String),
    /// Nobody reads any more.
    ClosedStdout,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Input(error.to_string())
    }
}

impl From<DraftError> for Failure {
    fn from(error: DraftError) -> Failure {
        match error {
            DraftError::Settings(message) => Failure::Input(message),
            other => Failure::Running(other.to_string()),
        }
    }
}

/// A disk that is full or broken fails a run; a path where no file can be is wrong input.
impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Failure {
        match error.failed_writing() {
            true => Failure::Running(error.to_string()),
            false => Failure::Input(error.to_string()),
        }
    }
}

impl From<HeadsError> for Failure {
    fn from(error: HeadsError) -> Failure {
        match error {
            HeadsError::File(error) => error.into(),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<QuantizeError> for Failure {
    fn from(error: QuantizeError) -> Failure {
        match error {
            QuantizeError::File(error) => error.into(),
            QuantizeError::Failed { .. } | QuantizeError::Cancelled { .. } => Failure::Running(error.to_string()),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<WidenError> for Failure {
    fn from(error: WidenError) -> Failure {
        match error {
            WidenError::File(error) => error.into(),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<LlamaError> for Failure {
    fn from(error: LlamaError) -> Failure {
        match error {
            LlamaError::Decode { .. } => Failure::Running(error.to_string()),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        match error {
            EngineError::EmptyPrompt | EngineError::PromptTooLong { .. } => Failure::Input(error.to_string()),
            _ => Failure::Running(error.to_string()),
        }
    }
}

/// Writing to stdout failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::ClosedStdout,
            _ => Failure::Running(format!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::path::PathBuf;

    use super::*;
    use crate::heads::import::ImportError;

    #[test]
    fn a_cause_has_one_exit_code_whoever_met_it() {
        let path = || PathBuf::from("a.gguf");
        let full = || GgufError::Full { path: path() };
        let no_room = GgufError::NoRoom { path: path(), needs: 2, free: 1 };
        let broken = GgufError::Write { path: path(), source: Error::other("input/output error") };
        let running: [Failure; 7] = [
            full().into(),
            no_room.into(),
            broken.into(),
            QuantizeError::File(full()).into(),
            QuantizeError::Cancelled { dst: path() }.into(),
            WidenError::File(full()).into(),
            ImportError::Heads(HeadsError::File(full())).into(),
        ];
        assert!(running.iter().all(|failure| matches!(failure, Failure::Running(_))), "{running:?}");
        let write = |kind: ErrorKind| GgufError::Write { path: path(), source: kind.into() };
        let input: [Failure; 4] = [
            write(ErrorKind::NotFound).into(),
            QuantizeError::File(write(ErrorKind::PermissionDenied)).into(),
            GgufError::Missing { path: path() }.into(),
            WidenError::SameFile { path: path() }.into(),
        ];
        assert!(input.iter().all(|failure| matches!(failure, Failure::Input(_))), "{input:?}");
    }
}
