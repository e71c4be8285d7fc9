//! Entering the namespaces that clone3 could not make at once. Runs in: child.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::thread::{Gid, Uid, UnshareFlags};

use super::Init;
use crate::host;
use crate::sync::{ChildEnd, Fault, Step};
use crate::sys::{self, Clone3, Cloned, Errno};

/// Joins the namespaces given by path; makes the second child where one is needed.
///
/// Without a second child, clone3 has already made the new namespaces, and what is left is joined one by one.
/// With one, this process joins first and then clones, so that new namespaces belong to a joined user namespace, and
/// the pid namespace has the clone in it.
pub(super) fn enter(init: &Init<'_>, sync: &ChildEnd<'_>) -> Result<(), Fault> {
    let namespaces = &init.plan.namespaces;
    join_all(init)?;
    if !namespaces.needs_second_child() {
        return after_join(init);
    }
    // The clone is the parent's child, as we are, and we are done.
    let flags = (namespaces.new | libc::CLONE_PARENT) as u64;
    match sys::clone3(Clone3 { flags, cgroup: None }).map_err(|errno| Fault::new(Step::SecondChild, errno))? {
        Cloned::Parent { .. } => sys::exit_now(0),
        Cloned::Child => sync.spawned().and_then(|()| after_join(init)),
    }
}

/// The user namespace last: while we are still outside, we have the privilege to join what belongs to the host. What
/// refuses belongs to the user namespace, and is joined from inside it.
fn join_all(init: &Init<'_>) -> Result<(), Fault> {
    let joined = || init.plan.namespaces.joined.iter().zip(init.joined).enumerate();
    let user = joined().find(|(_, (joined, _))| joined.kind == libc::CLONE_NEWUSER);
    let mut refused = Vec::new();
    for (index, (namespace, fd)) in joined().filter(|(_, (joined, _))| joined.kind != libc::CLONE_NEWUSER) {
        match setns(fd, namespace.kind) {
            Ok(()) => {}
            Err(Errno::PERM) if user.is_some() => refused.push((index, namespace, fd)),
            Err(errno) => return Err(Fault::new(Step::JoinNamespace, errno).item(index)),
        }
    }
    if let Some((index, (_, fd))) = user {
        let fault = |errno| Fault::new(Step::JoinNamespace, errno).item(index);
        setns(fd, libc::CLONE_NEWUSER).map_err(fault)?;
        new_time(init)?;
        // Inside, we are nobody until we take an id that is mapped there.
        take_root(Step::UserNamespaceRoot)?;
    }
    for (index, namespace, fd) in refused {
        setns(fd, namespace.kind).map_err(|errno| Fault::new(Step::JoinNamespace, errno).item(index))?;
    }
    Ok(())
}

fn setns(fd: impl AsFd, kind: i32) -> sys::Result<()> {
    sys::setns(fd.as_fd(), kind)
}

/// A joined mount namespace has its own idea of the current directory.
fn after_join(init: &Init<'_>) -> Result<(), Fault> {
    if init.plan.namespaces.joins(libc::CLONE_NEWNS) {
        rustix::process::chdir(init.rootfs).map_err(|errno| Fault::new(Step::AttachRootfs, errno))?;
    }
    Ok(())
}

/// Waits for the maps of the new user namespace, and becomes its root.
pub(super) fn become_root(init: &Init<'_>, sync: &ChildEnd<'_>) -> Result<(), Fault> {
    if !init.plan.namespaces.joins(libc::CLONE_NEWUSER) {
        new_time(init)?;
    }
    if !init.has_idmap {
        return Ok(());
    }
    sync.ask_maps()?;
    take_root(Step::UserNamespaceRoot)
}

/// Takes the ids of root there.
pub(super) fn take_root(step: Step) -> Result<(), Fault> {
    let fault = |errno| Fault::new(step, errno);
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(fault)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(fault)?;
    // A change of ids made us what /proc/sys/fs/suid_dumpable says, and a second child is seen from its first moment on.
    super::not_dumpable()
}

/// Namespaces that depend on what this process is by now, and the devices of the network namespace.
pub(super) fn late(init: &Init<'_>, sync: &ChildEnd<'_>) -> Result<(), Fault> {
    let namespaces = &init.plan.namespaces;
    if namespaces.new_cgroup {
        sys::unshare(UnshareFlags::NEWCGROUP).map_err(|errno| Fault::new(Step::CgroupNamespace, errno))?;
    }
    if namespaces.is_new(libc::CLONE_NEWNET) {
        sys::loopback_up().map_err(|errno| Fault::new(Step::Loopback, errno))?;
    }
    // From here on we are in the namespace where they go; hooks and sysctls are about them.
    if init.plan.has_net_devices { sync.ask_devices() } else { Ok(()) }
}

/// time_namespaces(7): a new one is for children until it is entered by setns, and its offsets can be written only
/// before anyone is in it. It belongs to the container's user namespace, and is made as soon as we are in that one: who
/// has taken its root's ids cannot write our files in /proc any more.
fn new_time(init: &Init<'_>) -> Result<(), Fault> {
    if !init.plan.namespaces.new_time {
        return Ok(());
    }
    let fault = |errno| Fault::new(Step::TimeNamespace, errno);
    sys::unshare(UnshareFlags::NEWTIME).map_err(fault)?;
    let offsets = init.plan.namespaces.time_offsets.as_bytes();
    if !offsets.is_empty() {
        host::write_raw(init.proc, "self/timens_offsets", offsets)
            .map_err(|errno| Fault::new(Step::TimeOffsets, errno))?;
    }
    // The last component is a magic link, which is the point.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let link = "self/ns/time_for_children";
    let fd = rustix::fs::openat2(init.proc, link, flags, Mode::empty(), ResolveFlags::empty()).map_err(fault)?;
    setns(&fd, libc::CLONE_NEWTIME).map_err(fault)
}
