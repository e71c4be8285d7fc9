//! /dev: nodes, links, the console. Runs in: child.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatxAttributes, StatxFlags, Uid, makedev};
use rustix::mount::OpenTreeFlags;

use super::plan::{DevicePlan, RootPath};
use super::resolve::{self, Missing};
use super::{move_mount, open_or_make_directory};
use crate::sync::{Fault, Step};
use crate::sys::{self, Errno, MountAttr};

/// runtime-linux.md, Dev symbolic links, and /dev/ptmx of config-linux.md, Default Devices.
const LINKS: &[(&CStr, &CStr)] = &[
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
];

/// Makes the nodes and links. The directory is opened once, inside the root: a link at `rootfs/dev` leads nowhere else
/// (CVE-2026-41579).
pub(super) fn make(root: BorrowedFd<'_>, devices: &[DevicePlan]) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::DevDirectory, errno);
    let dev = open_or_make_directory(root, &RootPath::from_clean(c"dev")).map_err(fault)?;
    for (index, device) in devices.iter().enumerate() {
        let (parent, name) = split(device.path.as_c_str()).map_err(fault)?;
        let made = if parent.as_c_str() == c"dev" {
            node(root, dev.as_fd(), &name, device)
        } else {
            let parent = open_or_make_directory(root, &RootPath::from_clean(&parent))
                .map_err(|errno| Fault::new(Step::DeviceNode, errno).item(index))?;
            node(root, parent.as_fd(), &name, device)
        };
        made.map_err(|fault| fault.item(index))?;
    }
    links(dev.as_fd())
}

/// `dev/net/tun` → `dev/net`, `tun`.
fn split(path: &CStr) -> sys::Result<(CString, CString)> {
    let bytes = path.to_bytes();
    let (parent, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (bytes.get(..at), bytes.get(at + 1..)),
        None => (Some(&b""[..]), Some(bytes)),
    };
    let string = |part: Option<&[u8]>| CString::new(part.unwrap_or_default()).map_err(|_| Errno::INVAL);
    Ok((string(parent)?, string(name)?))
}

fn node(root: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &CStr, device: &DevicePlan) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::DeviceNode, errno);
    let mode = Mode::from_raw_mode(device.mode);
    let number = makedev(device.major, device.minor);
    match sys::twice(|| rustix::fs::mknodat(parent, name, FileType::from_raw_mode(device.kind), mode, number)) {
        Ok(()) => own(parent, name, device).map_err(fault),
        Err(Errno::EXIST) => check(parent, name, device),
        // In a user namespace no device can be made: the host's is bound in its place.
        Err(Errno::PERM) => bind(root, device),
        Err(errno) => Err(fault(errno)),
    }
}

fn own(parent: BorrowedFd<'_>, name: &CStr, device: &DevicePlan) -> sys::Result<()> {
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// What is there must be the device that is asked for (config-linux.md, Devices).
fn check(parent: BorrowedFd<'_>, name: &CStr, device: &DevicePlan) -> Result<(), Fault> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Fault::new(Step::DeviceNode, errno))?;
    let same_kind = stat.st_mode & libc::S_IFMT == device.kind;
    if same_kind && (device.kind == libc::S_IFIFO || stat.st_rdev == makedev(device.major, device.minor)) {
        return Ok(());
    }
    // Nobody has asked for a default device: what `mounts` has put in its place stays, such as /dev/urandom on /dev/random.
    let attributes = || {
        let stat = rustix::fs::statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
        Ok::<_, Errno>(stat.stx_attributes)
    };
    if device.index.is_none() && attributes().is_ok_and(|all| all.contains(StatxAttributes::MOUNT_ROOT)) {
        return Ok(());
    }
    Err(Fault::new(Step::DeviceMismatch, Errno::EXIST))
}

/// Binds the host's device of the same path. The host's /dev is trusted, and this process still sees it.
fn bind(root: BorrowedFd<'_>, device: &DevicePlan) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::DeviceNode, errno);
    let mut host = b"/".to_vec();
    host.extend_from_slice(device.path.as_c_str().to_bytes());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, host, flags).map_err(fault)?;
    let stat = rustix::fs::fstat(&tree).map_err(fault)?;
    if stat.st_mode & libc::S_IFMT != device.kind || stat.st_rdev != makedev(device.major, device.minor) {
        return Err(Fault::new(Step::DeviceMismatch, Errno::NODEV));
    }
    // Read-only: its mode, owner and times are the host's. It can be written to all the same.
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let attr = MountAttr { set, ..MountAttr::default() };
    sys::mount_setattr(tree.as_fd(), c"", libc::AT_EMPTY_PATH, &attr).map_err(fault)?;
    let target = resolve::open_or_make(root, &device.path, Missing::File).map_err(fault)?;
    move_mount(tree.as_fd(), target.as_fd()).map_err(fault)
}

fn links(dev: BorrowedFd<'_>) -> Result<(), Fault> {
    for (index, (target, name)) in LINKS.iter().enumerate() {
        link(dev, target, name).map_err(|errno| Fault::new(Step::DevLink, errno).item(index))?;
    }
    // A node or a file of the image at this place would be another devpts' ptmx, or none.
    let fault = |errno| Fault::new(Step::DevLink, errno).item(LINKS.len());
    match rustix::fs::unlinkat(dev, c"ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        // Something is mounted there.
        Err(Errno::BUSY) => return Ok(()),
        Err(errno) => return Err(fault(errno)),
    }
    link(dev, c"pts/ptmx", c"ptmx").map_err(fault)
}

fn link(dev: BorrowedFd<'_>, target: &CStr, name: &CStr) -> sys::Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Binds the terminal to /dev/console. The target is opened without following a link at its end (CVE-2025-52565).
pub(crate) fn bind_console(root: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> sys::Result<()> {
    let dev = resolve::open(root, c"dev", OFlags::PATH | OFlags::DIRECTORY)?;
    match rustix::fs::mknodat(&dev, c"console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(&dev, c"console", flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode);
    if kind == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(terminal, "", flags)?;
    move_mount(tree.as_fd(), target.as_fd())
}
