//! What only the unified hierarchy needs: enabling controllers, device programs.
//!
//! Runs in: parent.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::{Cgroup, MOUNT_POINT, devices, open_dir, read_file, write_file};
use crate::error::{Error, Result};
use crate::sys;

/// Enables every available controller for `dir`, in each cgroup above it.
///
/// Errors are not reported here: a controller that is missing is named when the limit that needs it is written.
pub(super) fn enable_controllers(dir: &Path) {
    let Ok(below) = dir.strip_prefix(MOUNT_POINT) else { return };
    let mut at = Path::new(MOUNT_POINT).to_path_buf();
    for component in below.components() {
        enable_in(&at);
        at.push(component);
    }
}

fn enable_in(dir: &Path) {
    let available = read_file(dir, "cgroup.controllers").unwrap_or_default();
    let enabled = read_file(dir, "cgroup.subtree_control").unwrap_or_default();
    let missing: Vec<_> = available
        .split_whitespace()
        .filter(|name| !enabled.split_whitespace().any(|other| other == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() || write_file(dir, "cgroup.subtree_control", missing.join(" ").as_bytes()).is_ok() {
        return;
    }
    // One controller that cannot be enabled fails the whole write: then each on its own.
    for name in missing {
        let _ = write_file(dir, "cgroup.subtree_control", name.as_bytes());
    }
}

/// Our programs are known by this name.
const PROGRAM: &CStr = c"runtime_devices";
/// The kernel takes no more on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;
const DEVICES: &str = "linux.resources.devices";

/// Loads the rules as an eBPF program and attaches it. It goes away with the directory.
pub(super) fn apply_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let (dir, name) = devices_dir(cgroup)?;
    attach(&dir, &name, rules, None)
}

/// Puts a program of other rules in the place of ours, at once. Programs of others stay: the kernel asks all of them.
pub(super) fn change_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let (dir, name) = devices_dir(cgroup)?;
    let failed = |errno| Error::at(DEVICES, format!("look for the device program of {name}")).errno(errno);
    let mut ids = [0; MOST];
    let count = sys::bpf_prog_query(dir.as_fd(), &mut ids).map_err(failed)?;
    for id in ids.into_iter().take(count) {
        let old = sys::bpf_prog_get_fd_by_id(id).map_err(failed)?;
        if sys::bpf_prog_name(old.as_fd()).map_err(failed)?.starts_with(PROGRAM.to_bytes()) {
            return attach(&dir, &name, rules, Some(old.as_fd()));
        }
    }
    Err(Error::at(DEVICES, format!("none of the {count} device programs of {name} is of this runtime")))
}

fn devices_dir(cgroup: &Cgroup) -> Result<(OwnedFd, String)> {
    let dir = cgroup.unified().ok_or_else(|| Error::at(DEVICES, "no unified cgroup hierarchy"))?;
    let name = dir.display().to_string();
    let failed = |errno| Error::at(DEVICES, format!("open {name}")).errno(errno);
    Ok((open_dir(dir).map_err(failed)?, name))
}

fn attach(dir: &OwnedFd, name: &str, rules: &[devices::Rule], replaced: Option<BorrowedFd<'_>>) -> Result<()> {
    let program = sys::bpf_prog_load(&devices::v2_program(rules), PROGRAM, c"Apache-2.0")
        .map_err(|errno| Error::at(DEVICES, "load the device program into the kernel").errno(errno))?;
    sys::bpf_prog_attach(dir.as_fd(), program.as_fd(), replaced)
        .map_err(|errno| Error::at(DEVICES, format!("attach the device program to {name}")).errno(errno))
}
