//! What only the old hierarchies need: cpuset inheritance, device lists, kill.
//!
//! Runs in: parent.

use std::path::Path;

use rustix::io::Errno;

use super::{Cgroup, devices, freezer, is_frozen, read_file, write_file};
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
    let dir = devices_dir(cgroup)?;
    devices::v1_lines(rules)?.iter().try_for_each(|(allow, line)| write_device(dir, *allow, line))
}

/// Writes only the differences; when one is refused, those before it are taken back.
pub(super) fn change_devices(cgroup: &Cgroup, from: &[devices::Rule], to: &[devices::Rule]) -> Result<()> {
    let dir = devices_dir(cgroup)?;
    let lines = devices::v1_changes(from, to)?;
    for (done, (allow, line)) in lines.iter().enumerate() {
        if let Err(error) = write_device(dir, *allow, line) {
            let undone = lines.iter().take(done).map(|(allow, line)| write_device(dir, !allow, line));
            return Err(undone.filter_map(Result::err).fold(error, |error, failure| error.undo(&failure)));
        }
    }
    Ok(())
}

const DEVICES: &str = "linux.resources.devices";

fn devices_dir(cgroup: &Cgroup) -> Result<&Path> {
    let dir = cgroup.dir("devices");
    dir.ok_or_else(|| Error::at(DEVICES, "cgroup controller \"devices\" is not mounted on this host"))
}

fn write_device(dir: &Path, allow: bool, line: &str) -> Result<()> {
    let file = if allow { "devices.allow" } else { "devices.deny" };
    write_file(dir, file, line.as_bytes())
        .map_err(|errno| Error::at(DEVICES, format!("write {line:?} to {}", dir.join(file).display())).errno(errno))
}

/// Kills all processes: freezes them first, so that none can fork away between the listing and the signals, and thaws
/// at the end, since a frozen process dies only when it runs again. Others, in a cgroup that was there before, are not frozen;
/// what `pause` has frozen is thawed there, too.
pub(super) fn kill(cgroup: &Cgroup) -> Result<()> {
    let freezer = cgroup.dir("freezer").filter(|dir| dir.exists());
    if let Some(dir) = freezer.filter(|dir| cgroup.is_own(dir)) {
        // Not fatal: without it only a fork bomb could win the race, and removal tries again.
        let _ = write_file(dir, "freezer.state", b"FROZEN");
    }
    let killed = cgroup.kill_each();
    if let Some(dir) = freezer.filter(|dir| cgroup.is_own(dir) || is_frozen(dir)) {
        freezer::thaw_v1(dir)?;
    }
    killed
}
