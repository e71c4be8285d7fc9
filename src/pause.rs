//! `pause` and `resume`: the processes of a container are frozen, and go on. Runs in: parent.
//!
//! Nothing is written down: whether a container is paused is what its cgroup says (`Container::status`).

use std::os::fd::OwnedFd;

use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::host;
use crate::state::{InitProcess, Root, Status};

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
    freeze(&proc, &record.cgroup, &init)
}

/// Freezes a container that is not killed. A process of v1 that was killed just before, and has not run since, would be frozen
/// instead of dead. `kill` looks for a pause after its signal, so that one of both sees the other.
pub(crate) fn freeze(proc: &OwnedFd, cgroup: &Cgroup, init: &InitProcess) -> Result<()> {
    let frozen = cgroup.freeze();
    if !init.is_killed(proc) {
        return frozen;
    }
    // A freeze that has failed has thawed by itself.
    let thawed = frozen.map_or(Ok(()), |()| cgroup.thaw());
    Err(thawed.map_or_else(|failure| Error::new(NOT_RUNNING).undo(&failure), |()| Error::new(NOT_RUNNING)))
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
