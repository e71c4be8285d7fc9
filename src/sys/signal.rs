//! Signal dispositions and the signal mask.

use nix::sys::signal::{SigSet, SigmaskHow};

use super::{Result, check};

/// Sets every signal to its default action. exec(2) does that for handled signals only: ignored ones, such as SIGPIPE
/// in a Rust program or SIGINT below a shell's `&`, would stay ignored in the container.
pub(crate) fn reset_handlers() -> Result<()> {
    // 32 and 33 are libc's own: it refuses them, and never leaves them ignored.
    let ours = |signal: &i32| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33);
    (1..=64).filter(ours).try_for_each(|signal| {
        // SAFETY: SIG_DFL installs no handler.
        let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
        if before == libc::SIG_ERR { Err(super::last_errno()) } else { Ok(()) }
    })
}

/// sigprocmask(2). nix has pthread_sigmask(3) only, and takes its errors for success.
pub(crate) fn sigprocmask(how: SigmaskHow, set: &SigSet) -> Result<()> {
    // SAFETY: the set is a valid one, and the old one is not asked for.
    check(unsafe { libc::sigprocmask(how as i32, set.as_ref(), std::ptr::null_mut()) }.into()).map(drop)
}
