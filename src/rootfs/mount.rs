//! `mounts`. Runs in: child.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags};

use super::plan::{Attrs, MountKind, MountPlan, Param, Propagation, RootPath, RootfsPlan};
use super::resolve::{self, Missing};
use super::source::{CgroupMount, Hierarchy, Tree, Trees};
use super::{copy_up, long_data, move_mount, source};
use crate::sync::{Detail, Fault, Step};
use crate::sys::{self, Errno, MountAttr};

/// Makes all mounts, in their order. Returns those that are still to become read-only.
pub(super) fn all(plan: &RootfsPlan, trees: &Trees, proc: BorrowedFd<'_>) -> Result<Vec<Late>, Fault> {
    let mut late = Vec::new();
    let default = match plan.inherited {
        libc::MS_SHARED => None,
        flag => Some(Propagation { flag, recursive: true }),
    };
    for (index, (mount, source)) in plan.mounts.iter().zip(&trees.sources).enumerate() {
        let made = one(plan, trees, proc, mount, source.as_ref(), default).map_err(|fault| fault.item(index))?;
        late.extend(made.map(|mount| Late { mount, index }));
    }
    Ok(late)
}

/// A tmpfs that is to be read-only: only at the end, because other mounts, devices and hooks may need a place in it.
pub(crate) struct Late {
    mount: OwnedFd,
    index: usize,
}

/// Makes them read-only, and closes their descriptors.
pub(crate) fn readonly(late: Vec<Late>) -> Result<(), Fault> {
    let readonly = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    late.into_iter().try_for_each(|late| {
        sys::mount_setattr(late.mount.as_fd(), c"", libc::AT_EMPTY_PATH, &readonly)
            .map_err(|errno| Fault::new(Step::MountAttrs, errno).item(late.index))
    })
}

fn one(
    plan: &RootfsPlan,
    trees: &Trees,
    proc: BorrowedFd<'_>,
    mount: &MountPlan,
    source: Option<&Tree>,
    default: Option<Propagation>,
) -> Result<Option<OwnedFd>, Fault> {
    let root = trees.root.as_fd();
    match (&mount.kind, source) {
        (MountKind::New { fstype, params }, _) => {
            let attempt = || new(root, proc, mount, fstype, params);
            let made = match if mount.or_hosts { sys::twice(attempt) } else { attempt() } {
                Err(fault) if mount.or_hosts && fault.errno == libc::EPERM => {
                    return kernel_bind(root, mount, fstype).map(|()| None);
                }
                result => result?,
            };
            if let Some(label) = plan.label.as_deref().filter(|_| fstype.as_c_str() == c"mqueue") {
                label_root(made.as_fd(), label).map_err(|errno| Fault::new(Step::MountLabel, errno))?;
            }
            propagate(made.as_fd(), mount.propagation)?;
            return Ok(mount.late_readonly.then_some(made));
        }
        (MountKind::Bind { .. }, Some(tree)) => bind(root, mount, tree, default)?,
        (MountKind::Remount { params }, _) => remount(root, mount, params)?,
        (MountKind::Cgroup, _) => cgroup(root, mount, &trees.cgroup, plan.label.as_deref())?,
        (MountKind::Bind { .. }, None) => return Err(Fault::new(Step::Protocol, Errno::INVAL)),
    }
    Ok(None)
}

/// A new instance of a file system.
fn new(
    root: BorrowedFd<'_>,
    proc: BorrowedFd<'_>,
    mount: &MountPlan,
    fstype: &CStr,
    params: &[Param],
) -> Result<OwnedFd, Fault> {
    let kernel_own = fstype == c"proc" || fstype == c"sysfs";
    let target =
        if kernel_own { kernel_target(root, &mount.target)? } else { target(root, &mount.target, Missing::Directory)? };
    if long_data::is_long(fstype, params) {
        return long_data::mount(root, target.fd.as_fd(), mount, fstype, params);
    }
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| Fault::new(Step::MountOpen, errno))?;
    for (index, param) in params.iter().enumerate() {
        let attempt = || set(context.as_fd(), &param.key, param.value.as_deref());
        match if param.optional { sys::twice(attempt) } else { attempt() } {
            Err(Errno::INVAL) if param.optional => {}
            Err(errno) => return Err(with_log(context.as_fd(), Fault::new(Step::MountParam, errno).sub(index))),
            Ok(()) => {}
        }
    }
    if fstype == c"tmpfs" && target.existed && !params.iter().any(|param| param.key.as_c_str() == c"mode") {
        keep_mode(context.as_fd(), target.fd.as_fd())?;
    }
    let made = create(context.as_fd(), mount.attrs.set | mount.attrs_recursive.set)?;
    if mount.copy_up {
        copy_up::copy(target.fd.as_fd(), made.as_fd(), proc).map_err(|errno| Fault::new(Step::CopyUp, errno))?;
    }
    move_mount(made.as_fd(), target.fd.as_fd()).map_err(|errno| Fault::new(Step::MountAttach, errno))?;
    Ok(made)
}

/// The host's /sys or /proc with all that is mounted there, in the place of a new one that the kernel does not grant: a
/// sysfs belongs to the owner of a network namespace and a procfs to that of a pid namespace, and where parts of the
/// host's are covered, a user namespace gets none that would show them.
fn kernel_bind(root: BorrowedFd<'_>, mount: &MountPlan, fstype: &CStr) -> Result<(), Fault> {
    let path = if fstype == c"proc" { "/proc" } else { "/sys" };
    let target = kernel_target(root, &mount.target)?;
    let tree = source::clone_tree(Path::new(path), true).map_err(|errno| Fault::new(Step::MountCreate, errno))?;
    set_attrs(tree.as_fd(), Attrs { set: mount.attrs.set | mount.attrs_recursive.set, clr: 0 }, true)?;
    propagate(tree.as_fd(), Some(Propagation { flag: libc::MS_PRIVATE, recursive: true }))?;
    attach(tree.as_fd(), &target, mount)
}

/// For a file system that takes no context when it is mounted: the label of its root directory.
fn label_root(mount: BorrowedFd<'_>, label: &CStr) -> sys::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(mount, ".", flags, Mode::empty())?;
    rustix::fs::fsetxattr(&directory, "security.selinux", label.to_bytes(), XattrFlags::empty())
}

/// A tmpfs takes the mode of the directory that it covers, as with runc: an image's /tmp stays 1777.
fn keep_mode(context: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::MountTarget, errno);
    let mode = rustix::fs::fstat(target).map_err(fault)?.st_mode & 0o7777;
    rustix::mount::fsconfig_set_string(context, c"mode", format!("{mode:o}")).map_err(fault)
}

fn set(context: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> sys::Result<()> {
    match value {
        Some(value) => rustix::mount::fsconfig_set_string(context, key, value),
        None => rustix::mount::fsconfig_set_flag(context, key),
    }
}

fn create(context: BorrowedFd<'_>, attrs: u64) -> Result<OwnedFd, Fault> {
    let fault = |errno| with_log(context, Fault::new(Step::MountCreate, errno));
    rustix::mount::fsconfig_create(context).map_err(fault)?;
    let attrs = MountAttrFlags::from_bits_retain(u32::try_from(attrs).unwrap_or(0));
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attrs).map_err(fault)
}

/// Adds what the kernel wrote to the log of the context: one line for each read, such as `e tmpfs: Bad value for 'size'`.
fn with_log(context: BorrowedFd<'_>, fault: Fault) -> Fault {
    let mut line = [0u8; 256];
    match rustix::io::read(context, &mut line) {
        Ok(length) => {
            let text = line.get(..length).unwrap_or_default().trim_ascii();
            fault.detail(Detail::new(text.strip_prefix(b"e ").unwrap_or(text)))
        }
        Err(_) => fault,
    }
}

/// A copy of a mount of the host.
fn bind(root: BorrowedFd<'_>, mount: &MountPlan, tree: &Tree, default: Option<Propagation>) -> Result<(), Fault> {
    let missing = if tree.is_directory { Missing::Directory } else { Missing::File };
    let target = target(root, &mount.target, missing)?;
    set_attrs(tree.fd.as_fd(), mount.attrs, false)?;
    set_attrs(tree.fd.as_fd(), mount.attrs_recursive, true)?;
    // The copy was made in the runtime's namespace, and each of its mounts may be a peer of the host's: all become what the
    // inherited mounts have become, before anything can be mounted on them. The type that the configuration wants comes
    // after that, and may be that of the uppermost mount only.
    propagate(tree.fd.as_fd(), default)?;
    move_mount(tree.fd.as_fd(), target.fd.as_fd()).map_err(|errno| Fault::new(Step::MountAttach, errno))?;
    propagate(tree.fd.as_fd(), mount.propagation)
}

fn remount(root: BorrowedFd<'_>, mount: &MountPlan, params: &[Param]) -> Result<(), Fault> {
    let target = resolve::open(root, mount.target.as_c_str(), OFlags::PATH)
        .map_err(|errno| Fault::new(Step::MountTarget, errno))?;
    set_attrs(target.as_fd(), mount.attrs, false)?;
    set_attrs(target.as_fd(), mount.attrs_recursive, true)?;
    if !params.is_empty() {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = rustix::mount::fspick(&target, "", flags).map_err(|errno| Fault::new(Step::MountOpen, errno))?;
        for (index, param) in params.iter().enumerate() {
            set(context.as_fd(), &param.key, param.value.as_deref())
                .map_err(|errno| with_log(context.as_fd(), Fault::new(Step::MountParam, errno).sub(index)))?;
        }
        rustix::mount::fsconfig_reconfigure(&context)
            .map_err(|errno| with_log(context.as_fd(), Fault::new(Step::MountCreate, errno)))?;
    }
    propagate(target.as_fd(), mount.propagation)
}

/// Where something is mounted.
struct Target {
    fd: OwnedFd,
    existed: bool,
}

/// Opens the target, or makes it.
fn target(root: BorrowedFd<'_>, path: &RootPath, missing: Missing) -> Result<Target, Fault> {
    let fault = |errno| Fault::new(Step::MountTarget, errno);
    let (fd, existed) = match resolve::open(root, path.as_c_str(), OFlags::PATH) {
        Err(Errno::NOENT) => (resolve::make(root, path, missing).map_err(fault)?, false),
        result => (result.map_err(fault)?, true),
    };
    check_target(root, fd.as_fd(), path)?;
    Ok(Target { fd, existed })
}

/// A link in the image can lead a target to the root itself, or into /proc under another name: both are refused.
fn check_target(root: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &RootPath) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::MountTarget, errno);
    let (root, stat) = (rustix::fs::fstat(root).map_err(fault)?, rustix::fs::fstat(target).map_err(fault)?);
    let is_root = (root.st_dev, root.st_ino) == (stat.st_dev, stat.st_ino);
    // Which paths below /proc are allowed was decided by the plan.
    let path = path.as_c_str().to_bytes();
    let below_proc = path == b"proc" || path.starts_with(b"proc/");
    if is_root || (!below_proc && resolve::magic(target).map_err(fault)? == resolve::PROC_SUPER_MAGIC) {
        return Err(Fault::new(Step::MountUnsafeTarget, Errno::PERM));
    }
    Ok(())
}

/// proc and sysfs go onto an ordinary directory only: behind a link, an attacker chooses what we later read and write
/// there (CVE-2019-19921, CVE-2023-27561).
fn kernel_target(root: BorrowedFd<'_>, path: &RootPath) -> Result<Target, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match resolve::open_no_symlinks(root, path.as_c_str(), flags) {
        Ok(fd) => Ok(Target { fd, existed: true }),
        Err(Errno::NOENT) => {
            resolve::open_or_make(root, path, Missing::Directory)
                .map_err(|errno| Fault::new(Step::MountTarget, errno))?;
            let fd = resolve::open_no_symlinks(root, path.as_c_str(), flags)
                .map_err(|errno| Fault::new(Step::MountUnsafeTarget, errno))?;
            Ok(Target { fd, existed: false })
        }
        Err(errno) => Err(Fault::new(Step::MountUnsafeTarget, errno)),
    }
}

fn set_attrs(mount: BorrowedFd<'_>, attrs: Attrs, recursive: bool) -> Result<(), Fault> {
    if attrs.is_empty() {
        return Ok(());
    }
    let attr = MountAttr { set: attrs.set, clr: attrs.clr, ..MountAttr::default() };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    sys::mount_setattr(mount, c"", flags, &attr).map_err(|errno| Fault::new(Step::MountAttrs, errno))
}

fn propagate(mount: BorrowedFd<'_>, propagation: Option<Propagation>) -> Result<(), Fault> {
    let Some(propagation) = propagation else { return Ok(()) };
    let attr = MountAttr { propagation: propagation.flag, ..MountAttr::default() };
    let flags = libc::AT_EMPTY_PATH | if propagation.recursive { libc::AT_RECURSIVE } else { 0 };
    sys::mount_setattr(mount, c"", flags, &attr).map_err(|errno| Fault::new(Step::MountPropagation, errno))
}

/// A copy made in the runtime's namespace may be a peer of the host's mount.
const PRIVATE: Option<Propagation> = Some(Propagation { flag: libc::MS_PRIVATE, recursive: false });

/// A mount of type cgroup: the container's part of the hierarchies.
fn cgroup(
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    cgroup: &CgroupMount<OwnedFd>,
    label: Option<&CStr>,
) -> Result<(), Fault> {
    let target = target(root, &mount.target, Missing::Directory)?;
    let attrs = mount.attrs.set | mount.attrs_recursive.set;
    let fault = |errno| Fault::new(Step::MountCgroup, errno);
    let made = match cgroup {
        CgroupMount::None => return Err(fault(Errno::NODEV)),
        CgroupMount::V2(Some(tree)) => {
            set_attrs(tree.as_fd(), Attrs { set: attrs, clr: 0 }, false)?;
            propagate(tree.as_fd(), PRIVATE)?;
            return attach(tree.as_fd(), &target, mount);
        }
        CgroupMount::V2(None) => new_instance(c"cgroup2", &[], attrs)?,
        CgroupMount::V1(hierarchies) => {
            let mut params = vec![(c"mode".to_owned(), Some(c"755".to_owned()))];
            params.extend(label.map(|label| (c"context".to_owned(), Some(label.to_owned()))));
            let tmpfs = new_instance(c"tmpfs", &params, attrs & !libc::MOUNT_ATTR_RDONLY)?;
            attach(tmpfs.as_fd(), &target, mount)?;
            for hierarchy in hierarchies {
                v1_hierarchy(tmpfs.as_fd(), hierarchy, attrs)?;
            }
            return set_attrs(tmpfs.as_fd(), Attrs { set: attrs & libc::MOUNT_ATTR_RDONLY, clr: 0 }, false);
        }
    };
    attach(made.as_fd(), &target, mount)
}

fn attach(made: BorrowedFd<'_>, target: &Target, mount: &MountPlan) -> Result<(), Fault> {
    move_mount(made, target.fd.as_fd()).map_err(|errno| Fault::new(Step::MountAttach, errno))?;
    propagate(made, mount.propagation)
}

fn new_instance(
    fstype: &CStr,
    params: &[(std::ffi::CString, Option<std::ffi::CString>)],
    attrs: u64,
) -> Result<OwnedFd, Fault> {
    let fault = |errno| Fault::new(Step::MountCgroup, errno);
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(fault)?;
    for (key, value) in params {
        set(context.as_fd(), key, value.as_deref()).map_err(|errno| with_log(context.as_fd(), fault(errno)))?;
    }
    create(context.as_fd(), attrs)
}

/// One hierarchy below the tmpfs, and the links to it. The tmpfs is new and nobody else's.
fn v1_hierarchy(tmpfs: BorrowedFd<'_>, hierarchy: &Hierarchy<OwnedFd>, attrs: u64) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::MountCgroup, errno);
    let name = hierarchy.name.as_c_str();
    rustix::fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).map_err(fault)?;
    let attach = |mount: BorrowedFd<'_>| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, c"", tmpfs, name, flags).map_err(fault)
    };
    match &hierarchy.tree {
        Some(tree) => {
            let attr = MountAttr { set: attrs, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
            sys::mount_setattr(tree.as_fd(), c"", libc::AT_EMPTY_PATH, &attr)
                .map_err(|errno| Fault::new(Step::MountAttrs, errno))?;
            attach(tree.as_fd())?;
        }
        None => attach(new_instance(c"cgroup", &hierarchy.params, attrs)?.as_fd())?,
    }
    for link in &hierarchy.links {
        rustix::fs::symlinkat(name, tmpfs, link.as_c_str()).map_err(fault)?;
    }
    Ok(())
}
