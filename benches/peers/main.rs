//! foretoken against llama.cpp's own tools: the same files, prompts, threads and lengths, interleaved.
//!
//! `cargo bench --bench peers -- --llama BUILD/bin --target FILE [--draft FILE] --prompts FILE_OR_FOLDER`; README.md
//! beside this file has the rest: how to build the tools, what is alike and what is not, what each number means.
//!
//! Every text is a process of its own on either side, never two at once, in an order that rotates. A speed is what the
//! program itself reports of decoding; nothing here looks at a clock.

mod arguments;
mod methods;
mod readings;
mod server;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use arguments::Arguments;
use foretoken::prompts::{self, Prompt};
use methods::{Method, Program};
use readings::Reading;
use table::{Results, Run};

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.is_empty() {
        eprintln!("nothing to compare with: give --llama the folder of a llama.cpp build (benches/peers/README.md)");
        return ExitCode::SUCCESS; // `cargo bench` runs every bench
    }
    match Arguments::parse(words).and_then(|arguments| execute(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<()> {
    let methods = methods::all(arguments)?;
    let prompts = prompts::read(&arguments.prompts).map_err(|e| e.to_string())?;
    let prompts = prompts::first_of_each_kind(prompts, arguments.prompts_per_kind);
    if prompts.is_empty() {
        return Err("no prompts to run: give --prompts a file that has some".to_owned());
    }
    let desk = Desk::new(arguments, &prompts)?;
    let runs = desk.run_all(&methods)?;
    let names = methods.iter().map(|m| (m.name.clone(), m.side)).collect();
    let results = Results { methods: names, prompts, runs, greedy: arguments.temperature == 0.0 };
    let stored = match &arguments.json {
        Some(file) => write_json(file, arguments, &methods, &results),
        None => Ok(()),
    };
    println!("{}\n\n{}", arguments.headline(), results.table());
    stored
}

/// Everything that a run needs: the arguments, and each prompt in a file of its own.
struct Desk<'a> {
    arguments: &'a Arguments,
    prompts: &'a [Prompt],
    folder: tempfile::TempDir,
}

impl Desk<'_> {
    fn new<'a>(arguments: &'a Arguments, prompts: &'a [Prompt]) -> Result<Desk<'a>> {
        let failed = |e: std::io::Error| format!("cannot write prompts to the folder for temporary files: {e}");
        let desk = Desk { arguments, prompts, folder: tempfile::tempdir().map_err(failed)? };
        for (i, prompt) in prompts.iter().enumerate() {
            std::fs::write(desk.prompt_file(i), &prompt.text).map_err(failed)?;
        }
        Ok(desk)
    }

    fn prompt_file(&self, prompt: usize) -> PathBuf {
        self.folder.path().join(format!("prompt-{prompt}.txt"))
    }

    fn run_all(&self, methods: &[Method]) -> Result<Vec<Run>> {
        let n = methods.len();
        let all = n * self.prompts.len() * self.arguments.repeats;
        let mut runs = Vec::new();
        for repeat in 0..self.arguments.repeats {
            for prompt in 0..self.prompts.len() {
                for turn in 0..n {
                    let method = (turn + repeat + prompt) % n;
                    eprintln!("run {} of {all}: {}", runs.len() + 1, methods[method].name);
                    let reading = self.run(&methods[method], prompt, repeat)?;
                    runs.push(Run { method, prompt, repeat, reading });
                }
            }
        }
        Ok(runs)
    }

    fn run(&self, method: &Method, prompt: usize, repeat: usize) -> Result<Reading> {
        let text = &self.prompts[prompt].text;
        let tool = |file, read: Reader| self.run_tool(method, &[file, &self.prompt_file(prompt)], repeat, read);
        let result = match method.program {
            Program::Foretoken => tool("--prompt-file".as_ref(), &|out, _| readings::of_foretoken(out)),
            Program::Simple => tool("--binary-file".as_ref(), &|out, log| readings::of_simple(out, log, text)),
            Program::Lookup => tool("--binary-file".as_ref(), &|out, log| readings::of_lookup(out, log, text)),
            Program::Server => server::run(self.arguments, method, text, repeat),
        };
        result.map_err(|e| format!("{}: {e}", method.name))
    }

    /// Run a program to its end and read what it printed.
    fn run_tool(&self, method: &Method, prompt: &[&Path], repeat: usize, read: Reader) -> Result<Reading> {
        let mut command = Command::new(method.program.path(self.arguments));
        command.args(&method.arguments).args(["--seed", &repeat.to_string()]).args(prompt);
        command.stdin(Stdio::null()).current_dir(self.folder.path());
        let mut tries = TRIES;
        loop {
            let output = command.output().map_err(|e| format!("it does not start: {e}"))?;
            let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let blame = |e| format!("{e}; its output ends:\n{}", readings::tail(&log));
            tries -= 1;
            match read(&out, &log) {
                _ if !output.status.success() => return Err(blame(format!("it ended with {}", output.status))),
                Err(e) if tries > 0 => eprintln!("{}: {e}; once more", method.name),
                result => return result.map_err(blame),
            }
        }
    }
}

/// Makes a reading of stdout and stderr.
type Reader<'a> = &'a dyn Fn(&str, &str) -> Result<Reading>;

/// Two of the tools may end before they have printed their last lines: their log is written beside the program, and
/// nothing waits for it. Such a run is done again.
const TRIES: usize = 8;

fn write_json(file: &Path, arguments: &Arguments, methods: &[Method], results: &Results) -> Result<()> {
    let method = |m: &Method| {
        let words: Vec<String> = m.arguments.iter().map(|word| arguments::without_folders(word)).collect();
        serde_json::json!({ "name": m.name, "program": m.program.name(), "arguments": words })
    };
    let report = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "llama_cpp_tools": server::version(arguments)?,
        "command": arguments.words,
        "threads": arguments.threads, "tokens": arguments.tokens, "temperature": arguments.temperature,
        "context": arguments.context, "repeats": arguments.repeats,
        "methods": methods.iter().map(method).collect::<Vec<_>>(),
        "results": results.json(),
    });
    std::fs::write(file, format!("{report}\n")).map_err(|e| format!("cannot write {}: {e}", file.display()))
}
