//! `linux.maskedPaths` and `linux.readonlyPaths`. Runs in: child.
//!
//! Only a target that is not there may be skipped. Every other error is fatal: a mask that is not made is a hole.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Statx, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::plan::RootPath;
use super::{move_mount, resolve};
use crate::sync::{Fault, Step};
use crate::sys::{self, Errno, MountAttr};

/// A copy of the mount that a descriptor refers to.
fn copy(fd: BorrowedFd<'_>, recursive: bool) -> sys::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, "", flags)
}

fn look(fd: impl AsFd) -> sys::Result<Statx> {
    let flags = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, flags)
}

/// What is to be covered, and its type; None: it is not there, and that is asked twice. Not the root (as `look` sees it), to which a link in the image may lead: what is
/// mounted over that has no effect, since the root is entered by its descriptor.
fn open_target(root: BorrowedFd<'_>, seen: &Statx, path: &RootPath) -> sys::Result<Option<(OwnedFd, FileType)>> {
    let target = match sys::twice(|| resolve::open(root, path.as_c_str(), OFlags::PATH)) {
        Err(Errno::NOENT) => return Ok(None),
        result => result?,
    };
    let stat = look(&target)?;
    if (stat.stx_mnt_id, stat.stx_ino) == (seen.stx_mnt_id, seen.stx_ino) {
        return Err(Errno::PERM);
    }
    Ok(Some((target, FileType::from_raw_mode(stat.stx_mode.into()))))
}

/// Covers each path with a read-only copy of itself. nosuid, nodev and noexec stay as they are.
pub(super) fn readonly(root: BorrowedFd<'_>, paths: &[RootPath]) -> Result<(), Fault> {
    let seen = look(root).map_err(|errno| Fault::new(Step::ReadonlyTarget, errno))?;
    // "/" is made so as `root.readonly` is.
    for (index, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_root()) {
        let found = open_target(root, &seen, path);
        let found = found.map_err(|errno| Fault::new(Step::ReadonlyTarget, errno).item(index))?;
        let Some((target, _)) = found else { continue };
        let fault = |errno| Fault::new(Step::Readonly, errno).item(index);
        let tree = copy(target.as_fd(), true).map_err(fault)?;
        let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        sys::mount_setattr(tree.as_fd(), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &attr).map_err(fault)?;
        move_mount(tree.as_fd(), target.as_fd()).map_err(fault)?;
    }
    Ok(())
}

/// Covers files with the host's null device, and directories with one empty, read-only tmpfs for all of them.
pub(super) fn mask(
    root: BorrowedFd<'_>,
    paths: &[RootPath],
    null: &sys::Result<OwnedFd>,
    label: Option<&CStr>,
) -> Result<(), Fault> {
    let seen = look(root).map_err(|errno| Fault::new(Step::MaskTarget, errno))?;
    let mut null_is_attached = false;
    let mut empty = None;
    for (index, path) in paths.iter().enumerate() {
        let found = open_target(root, &seen, path);
        let Some((target, kind)) = found.map_err(|errno| Fault::new(Step::MaskTarget, errno).item(index))? else {
            continue;
        };
        let fault = |errno| Fault::new(Step::Mask, errno).item(index);
        let source = |errno| Fault::new(Step::MaskSource, errno).item(index);
        if kind == FileType::Directory {
            let (mask, is_attached) = match &empty {
                Some(empty) => (empty, true),
                None => (&*empty.insert(empty_directory(label).map_err(source)?), false),
            };
            cover(mask, is_attached, &target).map_err(fault)?;
        } else {
            let null = null.as_ref().map_err(|&errno| source(errno))?;
            cover(null, null_is_attached, &target).map_err(fault)?;
            null_is_attached = true;
        }
    }
    Ok(())
}

/// A copy can be made only of a mount that is attached somewhere (before Linux 6.15): the first target gets the mask itself.
fn cover(mask: &OwnedFd, is_attached: bool, target: &OwnedFd) -> sys::Result<()> {
    if is_attached {
        move_mount(copy(mask.as_fd(), false)?.as_fd(), target.as_fd())
    } else {
        move_mount(mask.as_fd(), target.as_fd())
    }
}

/// A tmpfs that holds nothing and cannot.
fn empty_directory(label: Option<&CStr>) -> sys::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "nr_blocks", "1")?;
    rustix::mount::fsconfig_set_string(&context, "nr_inodes", "1")?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    if let Some(label) = label {
        rustix::mount::fsconfig_set_string(&context, "context", label)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attrs = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}
