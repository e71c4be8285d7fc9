//! Signals to a command that is making something: it gives up, and undoes what it has made. Runs in: parent.
//!
//! All signals are blocked from before the first thing is made, so none can end the command halfway. SIGTERM, SIGINT and
//! SIGHUP are looked for wherever it waits; what `run` does with signals later is in [`crate::run`].

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Where such a signal is seen.
pub(crate) struct Interrupt(SignalFd);

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Interrupt {
    /// Blocks all signals, for good. Before the clone, so that none is lost between it and the first wait; the child sets its
    /// own mask before exec.
    pub(crate) fn new() -> Result<Self> {
        SigSet::all().thread_block().map_err(|errno| Error::new("sigprocmask").errno(errno))?;
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&signals, flags).map(Self).map_err(|errno| Error::new("signalfd").errno(errno))
    }

    /// Waits until there is something to read, unless a signal comes.
    pub(crate) fn wait_for(&self, fd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::new("poll").errno(errno)),
            }
            match fds.map(|fd| !fd.revents().is_empty()) {
                [true, _] => return Err(self.error()),
                [_, true] => return Ok(()),
                _ => {}
            }
        }
    }

    /// Which signal it was.
    pub(crate) fn error(&self) -> Error {
        let signal = self.0.read_signal().ok().flatten();
        let signal = signal.and_then(|signal| Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok());
        Error::new(format!("interrupted by {}", signal.map_or("a signal", Signal::as_str)))
    }
}
