//! Waiting for the kernel to kill for want of memory. Runs in: parent.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::files::oom_kills;
use super::{Cgroup, Version, read_file, write_file};
use crate::error::{Error, Result};

/// The field that is to blame.
pub(crate) const MEMORY_LIMIT: &str = "linux.resources.memory.limit";

/// What the kernel tells of a cgroup's memory, until the cgroup is removed.
pub(crate) struct OomWatch {
    fd: OwnedFd,
    source: Source,
    over: bool,
}

enum Source {
    /// An eventfd that was registered in this directory: the kernel adds 1 each time, and once more at the end.
    V1(PathBuf),
    /// `memory.events`, and the count of kills that was in it last.
    V2(u64),
}

impl Cgroup {
    /// How many processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dir("memory") else { return 0 };
        let file = if self.version == Version::V2 { "memory.events" } else { "memory.oom_control" };
        oom_kills(&read_file(dir, file).unwrap_or_default())
    }

    /// What the kernel refuses at the limit of memory has errnos that tell nothing, and what it kills may take the cgroup
    /// with it.
    pub(crate) fn blame_memory(&self, error: Error, is_limited: bool) -> Error {
        let may_be = matches!(error.raw_errno(), Some(libc::ENOMEM | libc::EINVAL | libc::EFAULT));
        if may_be && self.has_met_memory_limit() {
            return error.hint("linux.resources.memory.limit may be too low: the container has come to it");
        }
        // systemd ends a scope with its last process. Then nobody can say how many were killed.
        let ended =
            self.unit.is_some() && self.version == Version::V2 && self.unified().is_some_and(|dir| !dir.exists());
        if ended && is_limited && !error.line().starts_with(MEMORY_LIMIT) {
            return error.hint("linux.resources.memory.limit may be too low: all processes of the scope were killed");
        }
        error
    }

    fn has_met_memory_limit(&self) -> bool {
        let Some(dir) = self.dir("memory") else { return false };
        let read = |file| read_file(dir, file).unwrap_or_default();
        match self.version {
            Version::V2 => read("memory.events").lines().any(|line| line.starts_with("max ") && line != "max 0"),
            Version::V1 => !matches!(read("memory.failcnt").trim(), "" | "0"),
        }
    }

    /// Begins to watch. None: no memory controller.
    pub(crate) fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(dir) = self.dir("memory").filter(|dir| dir.exists()) else { return Ok(None) };
        let file = if self.version == Version::V2 { "memory.events" } else { "memory.oom_control" };
        let failed = |errno: Errno| Error::new(format!("watch {}", dir.join(file).display())).errno(errno);
        let opened = rustix::fs::open(dir.join(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let opened = match opened {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(failed)?,
        };
        let (fd, source) = match self.version {
            Version::V2 => (opened, Source::V2(oom_kills(&read_file(dir, file).map_err(failed)?))),
            Version::V1 => {
                let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
                // Documentation/admin-guide/cgroup-v1/memory.rst, section 10. The kernel needs `opened` for this write only.
                let words = format!("{} {}", eventfd.as_raw_fd(), opened.as_raw_fd());
                write_file(dir, "cgroup.event_control", words.as_bytes()).map_err(failed)?;
                (eventfd, Source::V1(dir.to_owned()))
            }
        };
        Ok(Some(OomWatch { fd, source, over: false }))
    }
}

impl OomWatch {
    /// What to poll for; None when nothing comes any more.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let flags = match self.source {
            Source::V1(_) => PollFlags::IN,
            // Of a file of kernfs this is its change. inotify would do the same, but of it a user may have 128 only.
            Source::V2(_) => PollFlags::PRI,
        };
        (!self.over).then(|| PollFd::new(&self.fd, flags))
    }

    /// Whether it happened since this was last asked. Does not wait.
    pub(crate) fn happened(&mut self) -> bool {
        if self.over {
            return false;
        }
        let mut buffer = [0; 4096];
        match &mut self.source {
            Source::V1(dir) => {
                let mut bytes = [0; 8];
                let count = rustix::io::read(&self.fd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes));
                self.over = !dir.exists();
                count > u64::from(self.over)
            }
            // At offset 0: each read shows the file anew, and makes poll wait for the next change.
            Source::V2(last) => match rustix::io::pread(&self.fd, &mut buffer, 0) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                    let kills = oom_kills(&text);
                    std::mem::replace(last, kills) < kills
                }
                // ENODEV: the cgroup is gone.
                Err(_) => {
                    self.over = true;
                    false
                }
            },
        }
    }
}
