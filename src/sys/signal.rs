//! Signal dispositions.

/// Sets every signal to its default action. exec(2) does that for handled signals only: ignored ones, such as SIGPIPE
/// in a Rust program or SIGINT below a shell's `&`, would stay ignored in the container.
pub(crate) fn reset_handlers() {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler. glibc refuses its two internal signals (32, 33), which it never
        // leaves ignored.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
