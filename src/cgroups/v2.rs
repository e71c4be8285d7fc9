//! What only the unified hierarchy needs: enabling controllers, device programs.
//!
//! Runs in: parent.

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

/// Loads the rules as an eBPF program and attaches it. It goes away with the directory.
pub(super) fn apply_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let field = "linux.resources.devices";
    let Some(dir) = cgroup.unified() else {
        return Err(Error::at(field, "no unified cgroup hierarchy"));
    };
    let program = sys::bpf_prog_load(&devices::v2_program(rules), c"Apache-2.0")
        .map_err(|errno| Error::at(field, "load the device program into the kernel").errno(errno))?;
    let failed = |errno| Error::at(field, format!("attach the device program to {}", dir.display())).errno(errno);
    let dir_fd = open_dir(dir).map_err(failed)?;
    use std::os::fd::AsFd;
    sys::bpf_prog_attach(dir_fd.as_fd(), program.as_fd()).map_err(failed)
}
