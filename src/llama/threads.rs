//! How many threads llama.cpp computes with, and how they wait for each other.
//!
//! libgomp spins at every barrier, by default far longer than a barrier takes. On a machine with
//! another busy program that turns hundreds of tokens per second into one or two, because a spinning
//! thread keeps the one that it waits for off the core. libgomp reads its policy once, when it is
//! loaded, so it must be in the environment before the program starts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::threads::Workers;

/// A number of threads that several contexts share. Whoever follows it changes its own before its next pass.
#[derive(Clone, Debug)]
pub struct ThreadCount(Arc<AtomicUsize>);

impl ThreadCount {
    /// `threads`, until it is changed.
    pub fn new(threads: usize) -> ThreadCount {
        ThreadCount(Arc::new(AtomicUsize::new(threads)))
    }

    /// The number now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Workers for ThreadCount {
    fn set(&self, threads: usize) {
        self.0.store(threads, Ordering::Relaxed);
    }
}

/// Tells libgomp how long to spin.
const VARIABLE: &str = "GOMP_SPINCOUNT";
/// Long enough for a barrier between threads that all run, short enough not to starve one that does
/// not. Measured on one machine, beside a busy program only once: see `benches/runs`.
const SPINS: &str = "2000";

/// Start this program again with a waiting policy that survives a busy machine, unless the user chose
/// one. Returns only if that was done before or cannot be done.
#[cfg(unix)]
pub fn restart_with_patience() {
    use std::os::unix::process::CommandExt;

    let chosen = ["OMP_WAIT_POLICY", VARIABLE].iter().any(|name| std::env::var_os(name).is_some());
    if chosen || !cfg!(target_os = "linux") {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Only comes back if it failed, and then we go on as we are.
    let _ = command.args(arguments).env(VARIABLE, SPINS).exec();
}

/// Other systems: their OpenMP does not spin like this.
#[cfg(not(unix))]
pub fn restart_with_patience() {}
