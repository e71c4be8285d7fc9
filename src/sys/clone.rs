//! clone3(2).

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use super::{Errno, Result, check};

/// linux/sched.h; libc's constant has overflowed.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of clone3(2), up to the fields of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What to clone.
#[derive(Clone, Copy, Default)]
pub(crate) struct Clone3<'a> {
    /// `CLONE_NEW*`, `CLONE_PARENT` and `CLONE_FILES`; `CLONE_PIDFD` is always added.
    pub(crate) flags: u64,
    /// The cgroup v2 directory in which the child starts (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// On which side of the clone the caller is.
pub(crate) enum Cloned {
    /// The caller, with the child's pid in the caller's pid namespace and its pidfd.
    Parent { pid: Pid, pidfd: OwnedFd },
    /// The child. It has a copy of the caller's memory, and must leave by exec or `_exit`.
    Child,
}

/// Makes a child as fork(2) does, with `SIGCHLD` at its end.
///
/// The caller must have one thread: the child gets a copy of that thread only, and a lock held by another one would
/// stay locked in it for ever.
///
/// An outer seccomp filter may answer ENOSYS or EPERM to clone3 because it cannot look into its argument; then clone(2)
/// is tried. That has no `CLONE_INTO_CGROUP`: with a `cgroup` the error is returned.
pub(crate) fn clone3(what: Clone3<'_>) -> Result<Cloned> {
    debug_assert!(is_single_threaded(), "clone3 in a process with several threads");
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: what.flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        // With CLONE_PARENT the caller's own signal is taken over, and none may be given.
        exit_signal: if what.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = what.cgroup {
        use std::os::fd::AsRawFd;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call; without CLONE_VM the child runs on
    // a copy of this stack, as after fork; `pidfd` is a valid place for the kernel to write an int.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let pid = match check(returned) {
        Err(Errno::NOSYS | Errno::PERM) if what.cgroup.is_none() => legacy_clone(args.flags, &mut pidfd)?,
        result => result?,
    };
    match Pid::from_raw(i32::try_from(pid).unwrap_or(0)) {
        None => Ok(Cloned::Child),
        // SAFETY: the kernel has just made this descriptor for us.
        Some(pid) => Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

fn legacy_clone(flags: u64, pidfd: &mut libc::c_int) -> Result<libc::c_long> {
    let flags = flags | libc::SIGCHLD as u64;
    // SAFETY: as in clone3; the second argument 0 keeps the stack, the third is where CLONE_PIDFD stores, the others
    // are not used with these flags. (All architectures we build for pass flags first; s390x does not.)
    check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut *pidfd, 0, 0) })
}

fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.flatten().count() <= 1)
}
