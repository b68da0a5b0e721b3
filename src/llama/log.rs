//! llama.cpp's log: silent unless asked for, but its last errors are kept, because a failing call
//! says why nowhere else.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void, CStr};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use llama_cpp_sys_2 as sys;

static SHOWN: AtomicBool = AtomicBool::new(false);
static ERRORS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const KEPT: usize = 8;

/// Take over the log and the abort handler.
pub fn install() {
    // SAFETY: both callbacks live as long as the process, ignore their user data and do not unwind.
    unsafe {
        sys::llama_log_set(Some(on_line), std::ptr::null_mut());
        sys::ggml_set_abort_callback(Some(on_abort));
    }
}

/// Whether to copy the log to stderr.
pub fn show(on: bool) {
    SHOWN.store(on, Ordering::Relaxed);
}

/// Forget earlier errors: called before a call whose failure would be explained by what follows.
pub fn clear() {
    if let Ok(mut errors) = ERRORS.lock() {
        errors.clear();
    }
}

/// The last errors, on one line; `None` if there were none.
pub fn last_errors() -> Option<String> {
    let errors = ERRORS.lock().ok()?;
    let lines: Vec<&str> = errors.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

unsafe extern "C" fn on_line(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives through the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if SHOWN.load(Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    let Ok(mut errors) = ERRORS.lock() else { return };
    if level == sys::GGML_LOG_LEVEL_ERROR {
        errors.push_back(without_function_name(&text).to_owned());
        if errors.len() > KEPT {
            errors.pop_front();
        }
    } else if level == sys::GGML_LOG_LEVEL_CONT {
        if let Some(last) = errors.back_mut() {
            last.push_str(&text);
        }
    }
}

/// "llama_model_load: error loading model: …" says more without its first word.
fn without_function_name(line: &str) -> &str {
    match line.split_once(": ") {
        Some((name, rest)) if !name.contains(' ') => rest,
        _ => line,
    }
}

/// ggml is about to abort, which nothing can catch: one line, and the exit code of a failed run.
unsafe extern "C" fn on_abort(message: *const c_char) {
    let text = if message.is_null() {
        "no reason given".into()
    } else {
        // SAFETY: ggml passes a NUL-terminated string that lives through the call.
        unsafe { CStr::from_ptr(message) }.to_string_lossy()
    };
    let _ = writeln!(std::io::stderr(), "error: llama.cpp stopped: {}", text.trim());
    // Not exit: destructors would wait for threads that are still computing.
    #[cfg(unix)]
    // SAFETY: _exit may be called from anywhere.
    unsafe {
        libc::_exit(2)
    }
    #[cfg(not(unix))]
    std::process::exit(2);
}
