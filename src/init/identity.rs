//! From the runtime's root to the container's user. Runs in: child.
//!
//! Every error is fatal, and what came of it all is read back at the end ([`super::verify`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::{program, verify};
use crate::host;
use crate::plan::{Capabilities, ChildPlan, ProcessPlan};
use crate::sync::{ChildEnd, Fault, Step};
use crate::sys::{self, Errno};

/// The order is that of what each step still needs: CAP_SETPCAP for the bounding set, CAP_SETGID and CAP_SETUID for
/// the ids, and then nothing any more.
pub(super) fn take_on(
    process: &ProcessPlan,
    set_groups: bool,
    cwd: OwnedFd,
    status: OwnedFd,
    sync: &ChildEnd<'_>,
) -> Result<(), Fault> {
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    // As root first: a directory that only root may enter is a valid working directory.
    let entered = program::enter_cwd(cwd.as_fd());
    if entered.is_ok() {
        // Here and not at the end: a profile may deny getcwd.
        check_cwd()?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|errno| Fault::new(Step::NoNewPrivileges, errno))?;
    } else {
        // Without no_new_privs loading a filter needs CAP_SYS_ADMIN, which is about to go.
        load_filter(process, sync)?;
    }
    drop_bounding(process)?;
    set_ids(process, set_groups)?;
    set_capabilities(&process.capabilities, sync)?;
    match entered {
        // Root without CAP_DAC_OVERRIDE, or on a file system that knows it not (NFS): then as the user.
        Err(Errno::ACCESS | Errno::PERM) => {
            program::enter_cwd(cwd.as_fd()).map_err(|errno| Fault::new(Step::Cwd, errno))?;
            check_cwd()?;
        }
        result => result.map_err(|errno| Fault::new(Step::Cwd, errno))?,
    }
    drop(cwd);
    verify::identity(process, set_groups, status)
}

/// Where a user has mapped their own group, setgroups(2) is denied (user_namespaces(7)), and the caller's groups stay: in
/// the container they are nobody's. Before a seccomp profile is loaded: many do not know openat2.
pub(super) fn may_set_groups(
    plan: &ChildPlan,
    process: &ProcessPlan,
    proc: BorrowedFd<'_>,
    sync: &ChildEnd<'_>,
) -> Result<bool, Fault> {
    let fault = |errno| Fault::new(Step::Groups, errno);
    if host::open_raw(proc, "self/setgroups").and_then(host::read_record).map_err(fault)?.trim() != "deny" {
        return Ok(true);
    }
    // The words are for an ordinary user, and root of a user namespace goes without them, as with runc.
    match process.additional_gids.is_empty() {
        true => Ok(false),
        false if plan.for_user => Err(fault(Errno::PERM)),
        false => sync.warn(&fault(Errno::PERM)).map(|()| false),
    }
}

/// The kernel says "(unreachable)" of a directory outside the root (CVE-2024-21626).
fn check_cwd() -> Result<(), Fault> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) => Err(Fault::new(Step::CwdOutside, Errno::NOENT)),
        Err(errno) => Err(Fault::new(Step::CwdOutside, errno)),
    }
}

fn drop_bounding(process: &ProcessPlan) -> Result<(), Fault> {
    for capability in 0..=u32::from(process.last_cap) {
        if process.capabilities.bounding & (1 << capability) == 0 {
            rustix::thread::remove_capability_from_bounding_set(capability_bit(capability)).map_err(|errno| {
                Fault::new(Step::Bounding, errno).item(usize::try_from(capability).unwrap_or(usize::MAX))
            })?;
        }
    }
    Ok(())
}

fn capability_bit(capability: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << capability)
}

/// Raw system calls: libc's set*id talk to other threads, which we have not. setgroups also with an empty list: the
/// caller's groups must not stay.
fn set_ids(process: &ProcessPlan, set_groups: bool) -> Result<(), Fault> {
    if process.uid != 0 {
        rustix::thread::set_keep_capabilities(true).map_err(|errno| Fault::new(Step::Uid, errno))?;
    }
    if set_groups {
        let groups: Vec<Gid> = process.additional_gids.iter().map(|&gid| Gid::from_raw(gid)).collect();
        rustix::thread::set_thread_groups(&groups).map_err(|errno| Fault::new(Step::Groups, errno))?;
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| Fault::new(Step::Gid, errno))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| Fault::new(Step::Uid, errno))?;
    if process.uid != 0 {
        rustix::thread::set_keep_capabilities(false).map_err(|errno| Fault::new(Step::Uid, errno))?;
    }
    if process.uid != 0 || process.gid != 0 {
        // Changing either id made the process dumpable as /proc/sys/fs/suid_dumpable says.
        super::not_dumpable()?;
    }
    Ok(())
}

fn set_capabilities(sets: &Capabilities, sync: &ChildEnd<'_>) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::Capabilities, errno);
    let set = CapabilitySet::from_bits_retain;
    let wanted = CapabilitySets {
        effective: set(sets.effective),
        permitted: set(sets.permitted),
        inheritable: set(sets.inheritable),
    };
    rustix::thread::set_capabilities(None, wanted).map_err(fault)?;
    rustix::thread::clear_ambient_capability_set().map_err(fault)?;
    for capability in 0..64 {
        if sets.grantable_ambient() & (1 << capability) == 0 {
            continue;
        }
        let bit = capability_bit(capability);
        match sys::twice(|| rustix::thread::configure_capability_in_ambient_set(bit, true)) {
            Ok(()) => {}
            // By the securebits of the caller (SECBIT_NO_CAP_AMBIENT_RAISE): a warning by the specification.
            Err(errno @ Errno::PERM) => {
                sync.warn(&Fault::new(Step::Ambient, errno).item(usize::try_from(capability).unwrap_or(usize::MAX)))?;
            }
            Err(errno) => return Err(Fault::new(Step::Ambient, errno)),
        }
    }
    Ok(())
}

/// Loads the filter as the last thing before the child is ready.
pub(super) fn filter_if_no_new_privileges(process: &ProcessPlan, sync: &ChildEnd<'_>) -> Result<(), Fault> {
    if process.no_new_privileges { load_filter(process, sync) } else { Ok(()) }
}

/// With SCMP_ACT_NOTIFY the seccomp agent gets the listener, which must not stay with us: the container's program could
/// answer for itself.
fn load_filter(process: &ProcessPlan, sync: &ChildEnd<'_>) -> Result<(), Fault> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    let listener = sys::seccomp_set_mode_filter(&filter.program, filter.flags)
        .map_err(|errno| Fault::new(Step::Seccomp, errno))?;
    match (&filter.agent, listener) {
        (Some(agent), Some(listener)) => sync.listener(listener.as_fd(), agent.is_sent),
        _ => Ok(()),
    }
}
