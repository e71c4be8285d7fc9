//! The labels of security modules. Runs in: child.
//!
//! Written through the host's procfs, which the parent has checked: a false /proc of the image would take the text and
//! leave the container unconfined (CVE-2019-16884, CVE-2025-52881).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use crate::host;
use crate::plan::Labels;
use crate::sync::{Fault, Step};
use crate::sys::Errno;

/// Sets what the next exec changes to. It outlasts changes of ids and capabilities.
pub(super) fn set(labels: &Labels, proc: BorrowedFd<'_>) -> Result<(), Fault> {
    if let Some(profile) = &labels.apparmor {
        // The file of that name above belongs to the module that came first at boot; this one is there since Linux 5.8.
        on_exec(proc, "self/attr/apparmor/exec", profile, Step::ApparmorProfile)?;
    }
    if let Some(label) = &labels.selinux {
        on_exec(proc, "self/attr/exec", label, Step::SelinuxLabel)?;
    }
    Ok(())
}

fn on_exec(proc: BorrowedFd<'_>, file: &str, text: &CStr, step: Step) -> Result<(), Fault> {
    let fault = |errno| Fault::new(step, errno);
    host::write_raw(proc, file, text.to_bytes()).map_err(fault)?;
    // The kernel spells it in its own way (`profile (enforce)`, aliases of types, ranges of categories): what is asked is
    // that it keeps one.
    let kept = host::read_raw(proc, file).map_err(fault)?;
    if kept.trim_matches(['\0', '\n']).is_empty() { Err(fault(Errno::PROTO)) } else { Ok(()) }
}

/// Makes a key that has the container's label: one with the runtime's is not for the container to use.
pub(super) fn make_key<T>(labels: &Labels, proc: BorrowedFd<'_>, make: impl FnOnce() -> T) -> Result<T, Fault> {
    let Some(label) = &labels.selinux else { return Ok(make()) };
    let set = |label: &[u8]| {
        host::write_raw(proc, "self/attr/keycreate", label).map_err(|errno| Fault::new(Step::KeyLabel, errno))
    };
    set(label.to_bytes())?;
    let made = make();
    set(b"")?;
    Ok(made)
}
