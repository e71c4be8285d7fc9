//! Calls on processes: signals through pidfds, limits of another process, keyrings, `_exit`.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::Pid;

use super::{Result, check};
use crate::plan::{MemoryPolicy, SchedAttr};

/// pidfd_send_signal(2) for any signal number, real-time ones included.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: numbers and a null pointer, which asks for the siginfo of kill(2).
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })
    .map(drop)
}

/// getrlimit(2) of this process: soft and hard.
pub(crate) fn getrlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the kernel to write an rlimit; no new one is given.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit>(), &raw mut limit)
    })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// setrlimit(2) of this process.
pub(crate) fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: as in `prlimit`; 0 is this process.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit>())
    })
    .map(drop)
}

/// prlimit(2): sets one limit of a process.
pub(crate) fn prlimit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call; the old limits are not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw_nonzero().get(),
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit>(),
        )
    })
    .map(drop)
}

/// sched_setattr(2).
pub(crate) fn sched_setattr(pid: Pid, attr: &SchedAttr) -> Result<()> {
    // SAFETY: `attr` is a sched_attr that says its own size, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw_nonzero().get(), &raw const *attr, 0) }).map(drop)
}

/// ioprio_set(2) of one process.
pub(crate) fn ioprio_set(pid: Pid, priority: libc::c_int) -> Result<()> {
    /// linux/ioprio.h.
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw_nonzero().get(), priority) })
        .map(drop)
}

/// sched_setaffinity(2) of this process; bit n of the mask is for processor n.
pub(crate) fn sched_setaffinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the mask is valid for its length in bytes; 0 is this process.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// set_mempolicy(2) of this process.
pub(crate) fn set_mempolicy(policy: &MemoryPolicy) -> Result<()> {
    // The kernel counts one bit less than it is told.
    let bits = policy.nodes.len() * 64 + 1;
    let nodes = if policy.nodes.is_empty() { std::ptr::null() } else { policy.nodes.as_ptr() };
    let bits = if nodes.is_null() { 0 } else { bits };
    // SAFETY: the mask is valid for the number of bits given, or absent with none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, nodes, bits) }).map(drop)
}

/// personality(2) of this process.
pub(crate) fn personality(persona: u64) -> Result<()> {
    // SAFETY: a number only.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING)`: a new session keyring of that name, or the existing one; without a name always a
/// new one. Returns its id.
pub(crate) fn join_session_keyring(name: Option<&CStr>) -> Result<i64> {
    let name = name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the name, if there is one, ends with NUL and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) })
}

/// `keyctl(KEYCTL_DESCRIBE)`: the permission mask of a key, the fourth of its semicolon-separated fields.
pub(crate) fn keyctl_describe_perm(key: i64) -> Result<u32> {
    let mut buffer = [0u8; 256];
    // SAFETY: the kernel writes at most the length given.
    let length = check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_DESCRIBE, key, buffer.as_mut_ptr(), buffer.len())
    })?;
    let text = buffer.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
    text.split(|&byte| byte == b';')
        .nth(3)
        .and_then(|field| std::str::from_utf8(field).ok())
        .and_then(|field| u32::from_str_radix(field, 16).ok())
        .ok_or(super::Errno::PROTO)
}

/// `keyctl(KEYCTL_SETPERM)`.
pub(crate) fn keyctl_setperm(key: i64, perm: u32) -> Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, key, perm) }).map(drop)
}

/// `_exit(2)`: no handlers, no destructors, no flushing.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(status) }
}

/// setns(2) with a namespace's descriptor.
pub(crate) fn setns(fd: BorrowedFd<'_>, kind: libc::c_int) -> Result<()> {
    // SAFETY: numbers only; this process has one thread.
    check(libc::c_long::from(unsafe { libc::setns(fd.as_raw_fd(), kind) })).map(drop)
}

/// unshare(2). For namespaces only: `CLONE_FILES` would pull descriptors away from their owners.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> Result<()> {
    // SAFETY: the callers unshare namespaces, which no memory depends on.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Brings the loopback device of this network namespace up: `SIOCSIFFLAGS` of netdevice(7).
pub(crate) fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a valid ifreq that outlives the call.
    check(libc::c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }))
        .map(drop)
}

/// `NS_GET_NSTYPE` of ioctl_ns(2): the `CLONE_NEW*` flag of a namespace.
pub(crate) fn ns_get_nstype(namespace: impl std::os::fd::AsFd) -> Result<libc::c_int> {
    /// `_IO(0xb7, 0x3)` of linux/nsfs.h.
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument.
    let kind = check(libc::c_long::from(unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_NSTYPE as _) }))?;
    Ok(kind as libc::c_int)
}

/// Overwrites the variables that this process was started with. Nobody may ask for one afterwards.
pub(crate) fn erase_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: this process has one thread, which changes no variable; the array ends with a null pointer, each string with
    // NUL, and all are in writable memory of this process (its stack, as the kernel has put them there).
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            std::ptr::write_bytes(*entry, 0, libc::strlen(*entry));
            entry = entry.add(1);
        }
    }
}
