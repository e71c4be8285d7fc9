//! What only the old hierarchies need: cpuset inheritance, device lists, kill.
//!
//! Runs in: parent.

use std::path::Path;

use rustix::io::Errno;

use super::{Cgroup, devices, freezer, read_file, write_file};
use crate::error::{Error, Result};

/// A new cpuset is empty, and no process can join an empty one: copies `cpuset.cpus` and `cpuset.mems` from the parent,
/// from the top down (Documentation/admin-guide/cgroup-v1/cpusets.rst).
pub(super) fn inherit_cpuset(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(dir, file)
            .map_err(|errno| Error::at("linux.cgroupsPath", format!("set {file} of {}", dir.display())).errno(errno))?;
    }
    Ok(())
}

fn inherit(dir: &Path, file: &str) -> rustix::io::Result<String> {
    let own = read_file(dir, file)?;
    if !own.trim().is_empty() {
        return Ok(own);
    }
    let parent = inherit(dir.parent().ok_or(Errno::NOENT)?, file)?;
    write_file(dir, file, parent.trim().as_bytes())?;
    Ok(parent)
}

/// Writes `devices.allow` and `devices.deny`, in the order of the rules.
pub(super) fn apply_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let field = "linux.resources.devices";
    let Some(dir) = cgroup.dir("devices") else {
        return Err(Error::at(field, "cgroup controller \"devices\" is not mounted on this host"));
    };
    for (allow, line) in devices::v1_lines(rules)? {
        let file = if allow { "devices.allow" } else { "devices.deny" };
        write_file(dir, file, line.as_bytes()).map_err(|errno| {
            Error::at(field, format!("write {line:?} to {}", dir.join(file).display())).errno(errno)
        })?;
    }
    Ok(())
}

/// Kills all processes: freezes them first, so that none can fork away between the listing and the signals, and thaws
/// at the end, since a frozen process dies only when it runs again.
pub(super) fn kill(cgroup: &Cgroup) -> Result<()> {
    let freezer = cgroup.dir("freezer").filter(|dir| cgroup.is_own(dir) && dir.exists());
    if let Some(dir) = freezer {
        // Not fatal: without it only a fork bomb could win the race, and removal tries again.
        let _ = write_file(dir, "freezer.state", b"FROZEN");
    }
    let killed = cgroup.kill_each();
    if let Some(dir) = freezer {
        freezer::thaw_v1(dir)?;
    }
    killed
}
