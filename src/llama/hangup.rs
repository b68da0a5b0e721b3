//! `nohup`: a program that was started to survive the end of its terminal does so, whatever else ends it politely.
//! It stands here because asking the system takes `unsafe`.

/// Install signal handlers; SIGHUP stays ignored if it was.
#[cfg(unix)]
pub fn keep_ignored<T>(install: impl FnOnce() -> T) -> T {
    // SAFETY: ignoring a signal runs no code; what was there before comes back with the next call.
    let before = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    if before == libc::SIG_IGN {
        let installed = install();
        // SAFETY: as above; nothing needs the handler that this replaces.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        return installed;
    }
    // SAFETY: `before` is what this very signal had.
    unsafe { libc::signal(libc::SIGHUP, before) };
    install()
}

/// Other systems have no SIGHUP.
#[cfg(not(unix))]
pub fn keep_ignored<T>(install: impl FnOnce() -> T) -> T {
    install()
}
