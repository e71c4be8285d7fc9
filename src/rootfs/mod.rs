//! The container's file system. Runs in: child, except [`plan`], which is pure, and [`source`], which is the parent's.
//!
//! The child works with two roots: the host's, as long as it has not pivoted, only for what is trusted (device nodes
//! to bind in a user namespace), and the container's, only through [`resolve`]. Mounts are made detached and
//! attached by move_mount(2) to a descriptor, so no path is looked up twice.

mod copy_up;
mod dev;
mod long_data;
mod mask;
mod mount;
mod pivot;
pub(crate) mod plan;
mod resolve;
pub(crate) mod source;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags};

use crate::sync::{Fault, Step};
use crate::sys::{self, MountAttr};
pub(crate) use dev::bind_console;
use mount::Late;
pub(crate) use pivot::enter;
use plan::{Enter, RootfsPlan};
pub(crate) use resolve::{DEVPTS_SUPER_MAGIC, Missing, magic, open as open_in_root, open_or_make};
use source::Trees;

/// Move a detached mount onto a descriptor.
const BY_FD: MoveMountFlags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

/// Makes everything below the root, up to the point where hooks may look at it and the child pivots into it.
/// Returns what [`finish`] makes read-only.
pub(crate) fn prepare(plan: &RootfsPlan, trees: &Trees, proc: BorrowedFd<'_>) -> Result<Vec<Late>, Fault> {
    let root = trees.root.as_fd();
    let late = mount::all(plan, trees, proc)?;
    if let Some(devices) = &plan.dev {
        dev::make(root, devices)?;
    }
    mask::readonly(root, &plan.readonly_paths)?;
    mask::mask(root, &plan.masked, &trees.null, plan.label.as_deref())?;
    Ok(late)
}

/// Cuts the propagation of what was inherited, and mounts the root file system over its own directory, which is the
/// current one: pivot_root(2) wants the new root to be a mount point.
pub(crate) fn attach(plan: &RootfsPlan, trees: &Trees) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::InheritedMounts, errno);
    let here =
        rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fault)?;
    // What is not the container's own namespace is not its to change.
    if plan.enter != Enter::Chroot {
        let inherited = match plan.inherited {
            libc::MS_SHARED => MountPropagationFlags::SHARED,
            libc::MS_PRIVATE => MountPropagationFlags::PRIVATE,
            _ => MountPropagationFlags::DOWNSTREAM,
        };
        rustix::mount::mount_change("/", inherited | MountPropagationFlags::REC).map_err(fault)?;
        if plan.inherited == libc::MS_SHARED {
            // What is mounted below a shared mount appears on the host as well, and pivot_root refuses such a parent.
            make_private(&here).map_err(fault)?;
        }
    }
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    sys::mount_setattr(trees.root.as_fd(), c"", flags, &private)
        .map_err(|errno| Fault::new(Step::AttachRootfs, errno))?;
    move_mount(trees.root.as_fd(), here.as_fd()).map_err(|errno| Fault::new(Step::AttachRootfs, errno))
}

/// In a mount namespace for criu: what is mounted here stays here.
pub(crate) fn keep_mounts_here() -> Result<(), Fault> {
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|errno| Fault::new(Step::InheritedMounts, errno))
}

/// Mounts a copy of the root file system on the current directory: criu wants a mount point whose parent is not mounted
/// over, so it cannot be the file system's own directory.
pub(crate) fn attach_here(root: BorrowedFd<'_>) -> Result<(), Fault> {
    let attached = || {
        let here = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        move_mount(root, here.as_fd())
    };
    attached().map_err(|errno| Fault::new(Step::AttachRootfs, errno))
}

/// Makes the mount that `directory` is on private.
fn make_private(directory: &OwnedFd) -> sys::Result<()> {
    let mut at = directory.try_clone().map_err(|_| sys::Errno::MFILE)?;
    loop {
        let stat = rustix::fs::statx(&at, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            let private = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
            return sys::mount_setattr(at.as_fd(), c"", libc::AT_EMPTY_PATH, &private);
        }
        at = rustix::fs::openat(&at, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    }
}

/// Attaches a detached mount, or a copy, to what `target` refers to. A directory on a file, or a file on a directory, is
/// ENOTDIR as with mount(2), which callers explain; move_mount(2) says EINVAL.
fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> sys::Result<()> {
    let is_directory = |fd| rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    rustix::mount::move_mount(mount, "", target, "", BY_FD).map_err(|errno| match errno {
        Errno::INVAL if is_directory(mount) != is_directory(target) => Errno::NOTDIR,
        errno => errno,
    })
}

/// The last changes, after the child has pivoted: read-only tmpfs and root, propagation.
pub(crate) fn finish(plan: &RootfsPlan, root: BorrowedFd<'_>, late: Vec<Late>) -> Result<(), Fault> {
    mount::readonly(late)?;
    if plan.readonly {
        let readonly = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        sys::mount_setattr(root, c"", libc::AT_EMPTY_PATH, &readonly)
            .map_err(|errno| Fault::new(Step::RootReadonly, errno))?;
    }
    if let Some(propagation) = plan.propagation {
        let attr = MountAttr { propagation: propagation.flag, ..MountAttr::default() };
        let recursive = if propagation.recursive { libc::AT_RECURSIVE } else { 0 };
        sys::mount_setattr(root, c"", libc::AT_EMPTY_PATH | recursive, &attr)
            .map_err(|errno| Fault::new(Step::RootPropagation, errno))?;
    }
    Ok(())
}

/// Opens a directory of the container, and makes it where it is missing.
pub(crate) fn open_or_make_directory(root: BorrowedFd<'_>, path: &plan::RootPath) -> sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match resolve::open(root, path.as_c_str(), flags) {
        Err(sys::Errno::NOENT) => resolve::open_or_make(root, path, resolve::Missing::Directory),
        result => result,
    }
}
