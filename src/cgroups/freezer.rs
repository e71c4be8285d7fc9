//! Freezing and thawing: the freezer of v1, also on a hybrid host, and `cgroup.freeze` of v2. Runs in: parent.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Cgroup, Version, read_file, wait_for, write_file};
use crate::deadline;
use crate::error::{Error, Result};

/// How long the kernel may take to stop all processes.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Freezes all processes, and returns when they are; on an error they are thawed.
    pub(crate) fn freeze(&self) -> Result<()> {
        let dir = self.freezer()?;
        let frozen = match self.version {
            Version::V1 => freeze_v1(dir),
            Version::V2 => freeze_v2(dir),
        };
        // Half frozen processes, of a container that is not paused, would be a mystery to everybody.
        frozen.map_err(|error| match self.thaw() {
            Ok(()) => error,
            Err(failure) => error.undo(&failure),
        })
    }

    /// Lets all processes go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        let dir = self.freezer()?;
        match self.version {
            Version::V1 => thaw_v1(dir).and_then(|()| check_above(dir)),
            Version::V2 => match write_file(dir, "cgroup.freeze", b"0") {
                // systemd takes away what has no processes any more.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
                Err(errno) => Err(failed("thaw", dir).errno(errno)),
            },
        }
    }

    fn freezer(&self) -> Result<&Path> {
        self.needed()?.dir("freezer").ok_or_else(|| match self.is_denied("freezer") {
            true => Error::new("the container has no freezer cgroup: no permission was granted for one at create"),
            false => Error::new("cgroup controller \"freezer\" is not mounted on this host"),
        })
    }
}

fn failed(what: &str, dir: &Path) -> Error {
    Error::new(format!("{what} {}", dir.display()))
}

/// FREEZING becomes FROZEN when it is read after all processes have stopped; a process that was forked meanwhile may
/// need another write (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
fn freeze_v1(dir: &Path) -> Result<()> {
    let end = deadline::until(PATIENCE);
    let mut pause = Duration::from_micros(100);
    loop {
        let state = write_file(dir, "freezer.state", b"FROZEN").and_then(|()| read_file(dir, "freezer.state"));
        if state.map_err(|errno| failed("freeze", dir).errno(errno))?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(not_frozen(dir, end));
        }
        // v1 has no event to wait for, so this polls, with growing pauses.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn freeze_v2(dir: &Path) -> Result<()> {
    let refused = |errno: Errno| failed("freeze", dir).errno(errno);
    write_file(dir, "cgroup.freeze", b"1").map_err(refused)?;
    let end = deadline::until(PATIENCE);
    if wait_for(dir, "frozen 1", end).map_err(refused)? { Ok(()) } else { Err(not_frozen(dir, end)) }
}

fn not_frozen(dir: &Path, end: Instant) -> Error {
    let late = deadline::check(end, format!("all processes of {} to freeze", dir.display()));
    let own = format!("not all processes are frozen after {} s", PATIENCE.as_secs());
    late.err()
        .unwrap_or_else(|| failed("freeze", dir).kernel(own))
        .hint("one of them may wait in the kernel, for a device or a network file system; none is frozen now")
}

/// What is below a frozen cgroup stays frozen, whatever its own file was told.
fn check_above(dir: &Path) -> Result<()> {
    let is_frozen = |dir: &&Path| read_file(dir, "freezer.self_freezing").is_ok_and(|text| text.trim() == "1");
    match dir.ancestors().skip(1).find(is_frozen) {
        Some(above) => {
            let text = format!("cgroup {} above it is frozen", above.display());
            Err(failed("thaw", dir).kernel(text).hint("its processes go on when that one is thawed"))
        }
        None => Ok(()),
    }
}

pub(super) fn thaw_v1(dir: &Path) -> Result<()> {
    // The kernel may still be freezing and answer EBUSY for a moment (kernel/cgroup/legacy_freezer.c).
    for _ in 0..100 {
        match write_file(dir, "freezer.state", b"THAWED") {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(1)),
            Err(errno) => return Err(failed("thaw", dir).errno(errno)),
        }
    }
    Err(failed("thaw", dir).errno(Errno::BUSY))
}
