//! What only the old hierarchies need: cpuset inheritance, device lists, kill.
//!
//! Runs in: parent.

use std::path::Path;

use rustix::io::Errno;

use super::{Cgroup, devices, freezer, is_frozen, open_to_write, read_record, write_file};
use crate::error::{Error, Result};

/// A new cpuset is empty, and no process can join an empty one: copies `cpuset.cpus` and `cpuset.mems` from the parent,
/// from the top down (Documentation/admin-guide/cgroup-v1/cpusets.rst). `new`: it was just made, and is not even looked at.
pub(super) fn inherit_cpuset(dir: &Path, new: bool) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let done = if new { inherit_from_parent(dir, file) } else { inherit(dir, file) };
        done.map(drop)
            .map_err(|errno| Error::at("linux.cgroupsPath", format!("set {file} of {}", dir.display())).errno(errno))?;
    }
    Ok(())
}

fn inherit(dir: &Path, file: &str) -> rustix::io::Result<String> {
    let own = read_record(dir, file)?;
    if own.trim().is_empty() { inherit_from_parent(dir, file) } else { Ok(own) }
}

fn inherit_from_parent(dir: &Path, file: &str) -> rustix::io::Result<String> {
    let parent = inherit(dir.parent().ok_or(Errno::NOENT)?, file)?;
    write_file(dir, file, parent.trim().as_bytes())?;
    Ok(parent)
}

/// Writes `devices.allow` and `devices.deny`, in the order of the rules.
pub(super) fn apply_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let dir = devices_dir(cgroup)?;
    let mut files = [None, None];
    for (allow, line) in devices::v1_lines(rules)? {
        let [denied, allowed] = &mut files;
        let (slot, name) = if allow { (allowed, ALLOW) } else { (denied, DENY) };
        let written = slot.take().map_or_else(|| open_to_write(dir, name), Ok).and_then(|file| {
            rustix::io::write(&file, line.as_bytes())?;
            Ok(file)
        });
        *slot = Some(written.map_err(|errno| refused(dir, name, &line, errno))?);
    }
    Ok(())
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
const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

fn devices_dir(cgroup: &Cgroup) -> Result<&Path> {
    let dir = cgroup.dir("devices");
    dir.ok_or_else(|| Error::at(DEVICES, "cgroup controller \"devices\" is not mounted on this host"))
}

fn write_device(dir: &Path, allow: bool, line: &str) -> Result<()> {
    let file = if allow { ALLOW } else { DENY };
    write_file(dir, file, line.as_bytes()).map_err(|errno| refused(dir, file, line, errno))
}

fn refused(dir: &Path, file: &str, line: &str, errno: Errno) -> Error {
    Error::at(DEVICES, format!("write {line:?} to {}", dir.join(file).display())).errno(errno)
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
    if let Some(dir) = freezer.filter(|dir| cgroup.is_own(dir) || is_frozen(dir, cgroup.version)) {
        freezer::thaw_v1(dir)?;
    }
    if let Some(dir) = cgroup.freezer_with_children() {
        lift(dir, &cgroup.members());
    }
    killed
}

/// Takes killed processes out of what the container has frozen below its cgroup: whoever comes into a cgroup that is not frozen
/// goes on (freezer_attach, kernel/cgroup/legacy_freezer.c). Those that have ended meanwhile need it no more.
pub(super) fn lift(freezer: &Path, pids: &[i32]) {
    for pid in pids {
        let _ = write_file(freezer, "cgroup.procs", pid.to_string().as_bytes());
    }
}
