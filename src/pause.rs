//! `pause` and `resume`: the processes of a container are frozen, and go on. Runs in: parent.
//!
//! Nothing is written down: whether a container is paused is what its cgroup says (`Container::status`).

use crate::error::{Error, Result};
use crate::host;
use crate::state::{Root, Status};

const NOT_RUNNING: &str = "container not running";

/// `pause ID`.
pub(crate) fn pause(root: &Root, id: &str) -> Result<()> {
    let proc = host::open_proc()?;
    let container = root.find(id)?;
    container.lock()?;
    let (Status::Created | Status::Running, Some(init)) = container.status(&proc)? else {
        return Err(Error::new(NOT_RUNNING));
    };
    let record = container.record()?.ok_or_else(|| Error::new(NOT_RUNNING))?;
    let frozen = record.cgroup.freeze();
    if !init.is_killed(&proc) {
        return frozen;
    }
    // A process of v1 that was killed just before, and has not run since, would be frozen instead of dead. `kill` looks for
    // a pause after its signal, so that one of both sees the other.
    Err(match record.cgroup.thaw() {
        Ok(()) => Error::new(NOT_RUNNING),
        Err(failure) => Error::new(NOT_RUNNING).undo(&failure),
    })
}

/// `resume ID`.
pub(crate) fn resume(root: &Root, id: &str) -> Result<()> {
    let proc = host::open_proc()?;
    let container = root.find(id)?;
    container.lock()?;
    let (status, _) = container.status(&proc)?;
    match container.record()? {
        Some(record) if status == Status::Paused => record.cgroup.thaw(),
        _ => Err(Error::new("container not paused")),
    }
}
