//! Signal dispositions and masks, by the kernel's own calls: the C libraries keep some of the numbers to themselves (glibc 32
//! and 33, musl 34 too), which are signals as others are to who sends them.

use nix::sys::signal::{SigSet, SigmaskHow};

use super::{Result, check};

/// Sets each signal of a mask, as /proc/self/status has it (`SigIgn`), to its default action. exec(2) does that for handled
/// signals only: ignored ones, such as SIGPIPE in a Rust program or SIGINT below a shell's `&`, would stay ignored.
pub(crate) fn reset_handlers(mask: u64) -> Result<()> {
    /// `struct sigaction` of the kernel, all zeros: SIG_DFL, and nothing else.
    const DEFAULT: [u64; 4] = [0; 4];
    let fixed = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
    (1..=64).filter(|signal| mask & !fixed & (1 << (signal - 1)) != 0).try_for_each(|signal| {
        let old = std::ptr::null_mut::<u8>();
        // SAFETY: SIG_DFL installs no handler; the old action is not asked for.
        check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, size_of::<u64>()) })
            .map(drop)
    })
}

/// Every signal.
pub(crate) fn all_signals() -> SigSet {
    // SAFETY: a set of signals is an array of bits, all of which may be set.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        std::ptr::write_bytes(&raw mut set, 0xff, 1);
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// sigprocmask(2), whose error is that of the system call.
pub(crate) fn sigprocmask(how: SigmaskHow, set: &SigSet) -> Result<()> {
    let (set, old) = (std::ptr::from_ref(set.as_ref()), std::ptr::null_mut::<u8>());
    // SAFETY: the set is a valid one, of which the kernel reads the first 8 bytes, and the old one is not asked for.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how as i32, set, old, size_of::<u64>()) }).map(drop)
}
