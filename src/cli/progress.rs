//! Ctrl-C and its like (SIGTERM, SIGHUP), and how far a long job is.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::llama::hangup::keep_ignored;
use crate::llama::quantize::Child;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether the command looks at [`INTERRUPTED`] till it ends, and whether a file is being derived, which looks at it too.
static WATCHED: AtomicBool = AtomicBool::new(false);
static DERIVING: AtomicBool = AtomicBool::new(false);

/// Set by the first Ctrl-C from now on; the second one ends the program at once.
pub fn interrupt() -> &'static AtomicBool {
    WATCHED.store(true, Ordering::Relaxed);
    install();
    &INTERRUPTED
}

/// Files are derived by this program, started again with its hidden subcommand.
pub fn convert_in_child() {
    let begin = || {
        DERIVING.store(true, Ordering::Relaxed);
        install();
    };
    let end = || DERIVING.store(false, Ordering::Relaxed);
    let tell = |line: &str| super::note(line);
    let child = Child { subcommand: "convert", cancelled: &INTERRUPTED, begin, end, progress: show, tell };
    crate::llama::quantize::use_child(child);
}

fn install() {
    static INSTALLED: Once = Once::new();
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let handler = || {
        let is_watched = WATCHED.load(Ordering::Relaxed) || DERIVING.load(Ordering::Relaxed);
        let first = FIRST.get_or_init(Instant::now);
        let again = INTERRUPTED.swap(true, Ordering::Relaxed) && first.elapsed() > ONE_EVENT;
        if again || !is_watched {
            std::process::exit(130);
        }
    };
    // Failing to install it only means that Ctrl-C ends the program the hard way.
    INSTALLED.call_once(|| _ = keep_ignored(|| ctrlc::set_handler(handler)));
}

/// A terminal that is closed sends more than one signal; those within this time are one.
const ONE_EVENT: Duration = Duration::from_millis(200);

/// A bar for the file that is being made, on a terminal only.
fn show(file: &Path, done: usize, all: usize) {
    static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
    let Ok(mut bar) = BAR.lock() else { return };
    let shown = bar.get_or_insert_with(|| begin(file.display().to_string(), all));
    shown.set_length(all as u64);
    shown.set_position(done as u64);
    if done >= all {
        *bar = None; // it goes, and the next file has its own
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
