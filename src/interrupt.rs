//! Signals to a command that is making something: it gives up, and undoes what it has made. Runs in: parent.
//!
//! All signals are blocked from before the first thing is made, so none can end the command halfway. SIGTERM, SIGINT and
//! SIGHUP are looked for wherever it waits; what `run` does with signals later is in [`crate::run`].

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};

use crate::deadline;
use crate::error::{Error, Result};
use crate::sys;

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
        let all = sys::sigprocmask(SigmaskHow::SIG_SETMASK, &sys::all_signals());
        all.map_err(|errno| Error::new("sigprocmask").errno(errno))?;
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&signals, flags).map(Self).map_err(|errno| Error::new("signalfd").errno(errno))
    }

    /// Waits until there is something to read, unless a signal comes or the time is over.
    pub(crate) fn wait_for(&self, fd: BorrowedFd<'_>, what: impl Display) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            deadline::poll(&mut fds, &what)?;
            match fds.map(|fd| !fd.revents().is_empty()) {
                // Also if there is a signal: it comes too late, or is seen the next time.
                [_, true] => return Ok(()),
                [true, _] => return Err(self.error()),
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
