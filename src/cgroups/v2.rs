//! What only the unified hierarchy needs: enabling controllers, device programs.
//!
//! Runs in: parent.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Uid};
use rustix::io::Errno;

use super::{Cgroup, MOUNT_POINT, devices, open_dir, read_file, write_file};
use crate::error::{Error, Result};
use crate::sys;

/// Refuses a place in which no process could be: in a threaded subtree, or below what is about to become one
/// (Documentation/admin-guide/cgroup-v2.rst, Threads). The nearest cgroup that is there tells of all above it.
pub(super) fn check_type(dir: &Path) -> Result<()> {
    let Some(nearest) = dir.ancestors().find(|dir| dir.exists()) else { return Ok(()) };
    let state = match read_file(nearest, "cgroup.type").unwrap_or_default().trim() {
        // The root of the hierarchy has no such file.
        "domain" | "" => return Ok(()),
        // In runc's words.
        "domain invalid" => "an invalid state".to_owned(),
        threaded => format!("{threaded} mode"),
    };
    let text = format!("cannot enter cgroupv2 {nearest:?} with domain controllers -- it is in {state}");
    Err(Error::at("linux.cgroupsPath", text).hint("a container needs a cgroup of type \"domain\" (cgroup.type)"))
}

/// Whether the "no internal process" rule forbids it to give controllers to those below it. The root may always.
fn has_processes(dir: &Path) -> bool {
    dir.join("cgroup.type").exists() && read_file(dir, "cgroup.procs").is_ok_and(|pids| !pids.trim().is_empty())
}

/// Why `dir` has not got a controller.
pub(super) fn why_missing(dir: &Path, controller: &str) -> String {
    let has = |dir: &Path| {
        read_file(dir, "cgroup.controllers").is_ok_and(|names| names.split_whitespace().any(|name| name == controller))
    };
    match dir.ancestors().take_while(|dir| dir.starts_with(MOUNT_POINT)).find(|dir| has(dir)) {
        Some(above) if above != dir && has_processes(above) => format!(
            "cgroup {} has processes of its own and so cannot give controller {controller:?} to those below it: move \
             them into a cgroup below it, or choose another linux.cgroupsPath",
            above.display()
        ),
        Some(above) if above != dir => {
            format!("cgroup {} does not give controller {controller:?} to those below it", above.display())
        }
        _ => format!("cgroup controller {controller:?} is not available here, or this kernel's has no such file"),
    }
}

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
    // With processes in it only the threaded controllers could be enabled, which would make it the root of a threaded
    // subtree, and the container's cgroup one that no process can enter.
    if missing.is_empty()
        || has_processes(dir)
        || write_file(dir, "cgroup.subtree_control", missing.join(" ").as_bytes()).is_ok()
    {
        return;
    }
    // One controller that cannot be enabled fails the whole write: then each on its own.
    for name in missing {
        let _ = write_file(dir, "cgroup.subtree_control", name.as_bytes());
    }
}

/// The files by which a cgroup is managed, and not limited, where the kernel does not list them.
const DELEGATE: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// Lets a user make cgroups below `dir`, move processes between them and give them controllers
/// (Documentation/admin-guide/cgroup-v2.rst, Delegation). Its own limits stay with those who made it.
pub(super) fn delegate(dir: &Path, uid: Uid) -> Result<()> {
    let files = read_file(Path::new("/sys/kernel/cgroup"), "delegate").unwrap_or_else(|_| DELEGATE.to_owned());
    for name in files.lines().chain([""]) {
        match rustix::fs::chownat(CWD, dir.join(name), Some(uid), None, AtFlags::SYMLINK_NOFOLLOW) {
            // Those of a controller that is not here.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let text = format!("give {} to user {} of the host", dir.join(name).display(), uid.as_raw());
                return Err(Error::at("process.user.uid", text).errno(errno));
            }
        }
    }
    Ok(())
}

/// Who a user of the namespace is outside of it, by its `uid_map`.
pub(super) fn outer_id(uid_map: &str, id: u32) -> Option<u32> {
    uid_map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inner, outer, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        id.checked_sub(inner).filter(|offset| *offset < count).and_then(|offset| outer.checked_add(offset))
    })
}

/// Our programs are known by this name.
const PROGRAM: &CStr = c"runtime_devices";
/// The kernel takes no more on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;
const DEVICES: &str = "linux.resources.devices";

/// Loads the rules as an eBPF program and attaches it, in the place of one that an earlier container has left. It goes
/// away with the directory.
pub(super) fn apply_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let (dir, name) = devices_dir(cgroup)?;
    let program = load(rules)?;
    let old = if cgroup.is_all_own() { Vec::new() } else { own_programs(&dir, &name)? };
    attach(&dir, &name, &program, &old)
}

/// Puts a program of other rules in the place of ours, at once. Programs of others stay: the kernel asks all of them.
pub(super) fn change_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<()> {
    let (dir, name) = devices_dir(cgroup)?;
    let old = own_programs(&dir, &name)?;
    if old.is_empty() {
        return Err(Error::at(DEVICES, format!("no device program of {name} is of this runtime")));
    }
    attach(&dir, &name, &load(rules)?, &old)
}

/// Takes our program from a cgroup that stays: whoever comes next may be allowed other devices.
pub(super) fn detach_devices(cgroup: &Cgroup) -> Result<()> {
    let Some(dir) = cgroup.unified().filter(|dir| dir.exists()) else { return Ok(()) };
    let name = dir.display().to_string();
    let failed = |errno| Error::at(DEVICES, format!("detach the device program from {name}")).errno(errno);
    let fd = open_dir(dir).map_err(failed)?;
    let programs = match own_programs(&fd, &name) {
        // Then it could not be attached, either: not permitted, or not in this kernel.
        Err(error) if matches!(error.raw_errno(), Some(libc::EPERM | libc::EACCES | libc::EINVAL | libc::ENOSYS)) => {
            return Ok(());
        }
        programs => programs?,
    };
    // Only now: another container's is attached when its process is there.
    if !cgroup.processes().is_empty() {
        return Ok(());
    }
    programs.iter().try_for_each(|program| sys::bpf_prog_detach(fd.as_fd(), program.as_fd()).map_err(failed))
}

/// The device programs of the very directory that have our name.
fn own_programs(dir: &OwnedFd, name: &str) -> Result<Vec<OwnedFd>> {
    let failed = |errno| Error::at(DEVICES, format!("look for the device program of {name}")).errno(errno);
    let mut ids = [0; MOST];
    let count = sys::bpf_prog_query(dir.as_fd(), &mut ids).map_err(failed)?;
    let mut own = Vec::new();
    for id in ids.into_iter().take(count) {
        let found = sys::bpf_prog_get_fd_by_id(id)
            .and_then(|program| sys::bpf_prog_name(program.as_fd()).map(|name| (program, name)));
        match found {
            Ok((program, name)) => own.extend(name.starts_with(PROGRAM.to_bytes()).then_some(program)),
            // Somebody else's: taken away since, or not shown to us, by SELinux for example.
            Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(own)
}

fn devices_dir(cgroup: &Cgroup) -> Result<(OwnedFd, String)> {
    let dir = cgroup.unified().ok_or_else(|| Error::at(DEVICES, "no unified cgroup hierarchy"))?;
    let name = dir.display().to_string();
    let failed = |errno| Error::at(DEVICES, format!("open {name}")).errno(errno);
    Ok((open_dir(dir).map_err(failed)?, name))
}

fn load(rules: &[devices::Rule]) -> Result<OwnedFd> {
    sys::bpf_prog_load(&devices::v2_program(rules), PROGRAM, c"Apache-2.0")
        .map_err(|errno| Error::at(DEVICES, "load the device program into the kernel").errno(errno))
}

/// In the place of the first old program, at once. Then the others go.
fn attach(dir: &OwnedFd, name: &str, program: &OwnedFd, old: &[OwnedFd]) -> Result<()> {
    sys::bpf_prog_attach(dir.as_fd(), program.as_fd(), old.first().map(AsFd::as_fd))
        .and_then(|()| old.iter().skip(1).try_for_each(|old| sys::bpf_prog_detach(dir.as_fd(), old.as_fd())))
        .map_err(|errno| Error::at(DEVICES, format!("attach the device program to {name}")).errno(errno))
}

#[cfg(test)]
mod tests {
    use super::outer_id;

    #[test]
    fn users_are_counted_by_the_map() {
        let map = "         0     100000       1000\n      1000       5000          1\n";
        for (id, outer) in [(0, Some(100_000)), (999, Some(100_999)), (1000, Some(5000)), (1001, None)] {
            assert_eq!(outer_id(map, id), outer, "{id}");
        }
        assert_eq!(outer_id("0 0 4294967295", 1000), Some(1000));
    }
}
