//! Reading back what the kernel made of it. Runs in: child.
//!
//! A call that says it worked is not proof: an outer seccomp filter may answer 0, and a wrong call may succeed. One read
//! of /proc/self/status shows ids, groups, capabilities and no_new_privs as they are. Resource limits are not read back:
//! they are set later, and it would be prlimit(2) that tells, which may be what lies.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::host::{self, field, mask};
use crate::plan::ProcessPlan;
use crate::sync::{Fault, Step};
use crate::sys::Errno;

/// Opens what [`identity`] reads. Before a seccomp profile is loaded: many do not know openat2.
pub(super) fn open(proc: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    host::open_raw(proc, "self/status").map_err(|errno| Fault::new(Step::Capabilities, errno))
}

/// Which signals are ignored.
pub(super) fn ignored(status: &OwnedFd) -> Result<u64, Fault> {
    let mut bytes = [0; 4096];
    // Not read(2): the file is read from its beginning again.
    let length = rustix::io::pread(status, &mut bytes, 0).map_err(|errno| Fault::new(Step::Session, errno))?;
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    mask(&text, "SigIgn:").ok_or_else(|| Fault::new(Step::Session, Errno::PROTO))
}

/// Compares ids, groups, capability sets and no_new_privs with the plan. `set_groups`: they are not the caller's.
pub(super) fn identity(process: &ProcessPlan, set_groups: bool, status: OwnedFd) -> Result<(), Fault> {
    let status = host::read_record(status).map_err(|errno| Fault::new(Step::Capabilities, errno))?;
    let differs = |step| Fault::new(step, Errno::PROTO);
    let mask = |name: &str| mask(&status, name);
    let sets = &process.capabilities;
    let all = if process.last_cap >= 63 { u64::MAX } else { (1 << (process.last_cap + 1)) - 1 };
    if mask("CapBnd:").map(|mask| mask & all) != Some(sets.bounding) {
        return Err(differs(Step::Bounding));
    }
    let wanted = [("CapInh:", sets.inheritable), ("CapPrm:", sets.permitted), ("CapEff:", sets.effective)];
    if wanted.iter().any(|(name, wanted)| mask(name) != Some(*wanted)) {
        return Err(differs(Step::Capabilities));
    }
    let ids_are = |name: &str, id: u32| {
        field(&status, name).is_some_and(|ids| ids.split_whitespace().all(|text| text.parse() == Ok(id)))
    };
    if !ids_are("Uid:", process.uid) {
        return Err(differs(Step::Uid));
    }
    if !ids_are("Gid:", process.gid) {
        return Err(differs(Step::Gid));
    }
    let groups = field(&status, "Groups:").map(|groups| groups.split_whitespace().map(str::parse).collect());
    let mut groups: Vec<u32> = groups.unwrap_or(Ok(Vec::new())).map_err(|_| differs(Step::Groups))?;
    let mut wanted = process.additional_gids.clone();
    // The kernel keeps them in the order of the host's ids.
    groups.sort_unstable();
    wanted.sort_unstable();
    if set_groups && groups != wanted {
        return Err(differs(Step::Groups));
    }
    if process.no_new_privileges && field(&status, "NoNewPrivs:") != Some("1") {
        return Err(differs(Step::NoNewPrivileges));
    }
    Ok(())
}
