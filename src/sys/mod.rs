//! The only `unsafe` of the project: one function per system call, named as the call, no policy.
//!
//! Runs in: parent and child. What rustix wraps is used from there; here is what it does not have, or has only as
//! `unsafe`. Everything here is safe to call between clone and exec: no lock and no thread are involved.
#![allow(unsafe_code, reason = "the one room where system calls without a safe wrapper are made")]

mod arena;
mod bpf;
mod clone;
mod exec;
mod fd;
mod mount;
mod netlink;
mod process;
mod seccomp;
mod signal;
mod start;

pub(crate) use bpf::{
    bpf_prog_attach, bpf_prog_detach, bpf_prog_get_fd_by_id, bpf_prog_load, bpf_prog_name, bpf_prog_query,
};
pub(crate) use clone::{Clone3, Cloned, clone3};
pub(crate) use exec::{CStrings, execve, execveat};
pub(crate) use fd::{check_open, close_range, dup2, keep_on_exec, sendmsg_fd};
pub(crate) use mount::{MountAttr, mount_setattr};
pub(crate) use netlink::netlink_ext_ack;
pub(crate) use process::{
    erase_environment, exit_now, getrlimit, ioprio_set, join_session_keyring, keyctl_describe_perm, keyctl_setperm,
    loopback_up, ns_get_nstype, personality, pidfd_send_signal, prlimit, sched_setaffinity, sched_setattr,
    set_mempolicy, setns, setrlimit, unshare,
};
pub(crate) use seccomp::seccomp_set_mode_filter;
pub(crate) use signal::{all_signals, reset_handlers, sigprocmask};
pub(crate) use start::{arguments, entry, erase_arguments, start};

/// The errno of a failed call.
pub(crate) type Errno = rustix::io::Errno;

/// The result of a system call.
pub(crate) type Result<T> = rustix::io::Result<T>;

/// For what is done without where it fails: an error that comes only once must not make another container.
pub(crate) fn twice<T, E>(mut call: impl FnMut() -> std::result::Result<T, E>) -> std::result::Result<T, E> {
    call().or_else(|_| call())
}

/// Turns the return value of libc's `syscall` and its relatives into a result.
fn check(returned: libc::c_long) -> Result<libc::c_long> {
    if returned < 0 { Err(last_errno()) } else { Ok(returned) }
}

fn last_errno() -> Errno {
    // SAFETY: the location is that of the calling thread and always valid.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
