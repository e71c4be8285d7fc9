//! `--timeout`: how long the command may wait for others. Runs in: parent.
//!
//! One limit for all waits of a process, since it is the caller's patience that ends. Whoever waits says for what. When the
//! limit has passed, what was made is undone, and that has its own time; `run` lifts it when the program runs.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;

use crate::error::{Error, Result};

thread_local! {
    static LIMIT: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// From now on.
pub(crate) fn set(limit: Duration) {
    LIMIT.set(Instant::now().checked_add(limit).map(|end| (end, limit)));
}

/// What comes now is not waited for on somebody's behalf.
pub(crate) fn lift() {
    LIMIT.set(None);
}

/// What is left of the limit; zero when it has passed.
pub(crate) fn left() -> Option<Duration> {
    LIMIT.get().map(|(end, _)| end.saturating_duration_since(Instant::now()))
}

/// The end of a wait that may take as long as `patience`, or as the limit.
pub(crate) fn until(patience: Duration) -> Instant {
    let own = Instant::now() + patience;
    match LIMIT.get() {
        Some((end, _)) if end > Instant::now() => end.min(own),
        _ => own,
    }
}

/// The end of a hook that gives no timeout.
pub(crate) fn of_hook() -> Option<Instant> {
    LIMIT.get().map(|_| until(Duration::from_secs(10)))
}

/// Who has waited until `end` for `what` has an error if that was the limit.
pub(crate) fn check(end: Instant, what: impl Display) -> Result<()> {
    match LIMIT.get() {
        Some((limit, length)) if limit == end && end <= Instant::now() => Err(over(length, what)),
        _ => Ok(()),
    }
}

/// The error of a wait that has ended by itself because the limit has passed, if there is one.
pub(crate) fn late(what: impl Display) -> Option<Error> {
    LIMIT.get().map(|(_, length)| over(length, what))
}

fn over(length: Duration, what: impl Display) -> Error {
    Error::at("--timeout", format!("waited {length:?} for {what}")).errno(Errno::TIMEDOUT)
}

/// poll(2) without a time of its own. It may return early.
pub(crate) fn poll(fds: &mut [PollFd<'_>], what: impl Display) -> Result<()> {
    let left = left().map(|left| timespec(left.as_secs(), left.subsec_nanos()));
    match (rustix::event::poll(fds, left.as_ref()), LIMIT.get()) {
        (Ok(0), Some((_, length))) => Err(over(length, what)),
        (Ok(_) | Err(Errno::INTR), _) => Ok(()),
        (Err(errno), _) => Err(Error::new(format!("wait for {what}")).errno(errno)),
    }
}

/// For poll(2); what is too long for it is for ever.
pub(crate) fn timespec(seconds: u64, nanoseconds: u32) -> Timespec {
    Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: i64::from(nanoseconds) }
}
