//! seccomp(2).

use std::os::fd::{OwnedFd, RawFd};

use super::fd::take_fd;
use super::{Result, check};

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (linux/seccomp.h).
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;

/// Loads a filter (`SECCOMP_SET_MODE_FILTER`). Needs no_new_privs or CAP_SYS_ADMIN in the user namespace.
/// Returns the listener, close-on-exec, with `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(crate) fn seccomp_set_mode_filter(program: &[seccompiler::sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| super::Errno::INVAL)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the program is valid for its length during the call, and the kernel copies it without writing to it;
    // seccompiler's instruction has the layout of the kernel's (both repr(C): u16, u8, u8, u32).
    let fd =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })?;
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    RawFd::try_from(fd).map(take_fd).map(Some).map_err(|_| super::Errno::OVERFLOW)
}
