//! `pause` and `resume`: the processes of a container are frozen, and go on. Runs in: parent.
//!
//! Nothing is written down: whether a container is paused is what its cgroup says (`Container::status`).

use crate::error::{Error, Result};
use crate::host;
use crate::state::{Record, Root, Status};

/// `pause ID`.
pub(crate) fn pause(root: &Root, id: &str) -> Result<()> {
    let may = |status| matches!(status, Status::Created | Status::Running);
    with_cgroup(root, id, may, "container not running", |record| record.cgroup.freeze())
}

/// `resume ID`.
pub(crate) fn resume(root: &Root, id: &str) -> Result<()> {
    with_cgroup(root, id, |status| status == Status::Paused, "container not paused", |record| record.cgroup.thaw())
}

fn with_cgroup(
    root: &Root,
    id: &str,
    may: impl Fn(Status) -> bool,
    refusal: &str,
    act: impl FnOnce(&Record) -> Result<()>,
) -> Result<()> {
    let proc = host::open_proc()?;
    let container = root.find(id)?;
    container.lock()?;
    let (status, _) = container.status(&proc)?;
    match container.record()? {
        Some(record) if may(status) => act(record),
        _ => Err(Error::new(refusal)),
    }
}
