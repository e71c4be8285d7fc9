//! Namespaces that are made only to borrow something from them. Runs in: parent.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use crate::child::reap;
use crate::host::Host;
use crate::sys::{self, Clone3, Cloned};

/// A child that does nothing: it has namespaces of its own until this value is dropped, or we are dead.
pub(crate) struct Holder {
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
    writer: Option<OwnedFd>,
}

impl Holder {
    /// `namespaces`: `CLONE_NEW*`.
    pub(crate) fn new(namespaces: i32) -> sys::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        match sys::clone3(Clone3 { flags: u64::try_from(namespaces).unwrap_or(0), cgroup: None })? {
            Cloned::Child => {
                drop(writer);
                // The end of file.
                let _ = rustix::io::read(&reader, &mut [0u8]);
                sys::exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => Ok(Self { pid, pidfd, writer: Some(writer) }),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.writer.take());
        reap(&self.pidfd);
    }
}

/// Calls `copy` in a copy of our mount namespace that another user namespace owns. There the kernel locks all mounts
/// (mount_namespaces(7)): what is read-only, nosuid, nodev or noexec stays so, and what is mounted over something cannot be
/// taken away. Detached copies keep the locks. Those of our own namespace have none, and root of a container's user namespace
/// could undo with them what the host has done.
///
/// None: we may not, or there is no such namespace to be had; then only the container itself can copy mounts, in its own.
pub(crate) fn with_locked_mounts<T>(host: &Host, copy: impl FnOnce() -> T) -> sys::Result<Option<T>> {
    let Ok(holder) = Holder::new(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // A magic link, which is the point.
    let own = rustix::fs::openat2(&host.proc, "self/ns/mnt", flags, Mode::empty(), ResolveFlags::empty())?;
    let here = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Into our own first: who may not come back must not go. It sets the root directory, too, which changes nothing, since no
    // user namespace can be made in a chroot (clone(2), EPERM).
    let went =
        sys::setns(own.as_fd(), libc::CLONE_NEWNS).and_then(|()| sys::setns(holder.pidfd.as_fd(), libc::CLONE_NEWNS));
    if went.is_err() {
        rustix::process::fchdir(here)?;
        return Ok(None);
    }
    drop(holder);
    let made = copy();
    sys::setns(own.as_fd(), libc::CLONE_NEWNS)?;
    rustix::process::fchdir(here)?;
    Ok(Some(made))
}
