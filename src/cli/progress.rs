//! Ctrl-C, and how far a long job is.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::llama::quantize::Child;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Set by the first Ctrl-C from now on; the second one ends the program at once.
pub fn interrupt() -> &'static AtomicBool {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Failing to install it only means that Ctrl-C ends the program the hard way.
        let _ = ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
    });
    &INTERRUPTED
}

/// Files are derived by this program, started again with its hidden subcommand.
pub fn convert_in_child() {
    let child = Child { subcommand: "convert", cancelled: &INTERRUPTED, begin: || _ = interrupt(), progress: show };
    crate::llama::quantize::use_child(child);
}

/// A bar for the file that is being made, on a terminal only.
fn show(file: &Path, done: usize, all: usize) {
    static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
    let Ok(mut bar) = BAR.lock() else { return };
    let bar = bar.get_or_insert_with(|| begin(file.display().to_string(), all));
    bar.set_length(all as u64);
    bar.set_position(done as u64);
    if done >= all {
        bar.finish_and_clear();
    }
}

/// A progress bar with the time left, on stderr; it shows nothing where stderr is no terminal, and goes when it is
/// dropped.
pub fn begin(what: String, all: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}, {eta} left");
    let bar = ProgressBar::new(all as u64).with_message(what).with_finish(ProgressFinish::AndClear);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
