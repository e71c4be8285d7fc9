//! Leaving the host's mounts behind. Runs in: child.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::plan::{Enter, RootfsPlan};
use crate::sync::{Fault, Step};
use crate::sys::{Errno, Result};

/// Makes the container's root the root of this process and of its mount namespace.
pub(crate) fn enter(plan: &RootfsPlan, root: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> std::result::Result<(), Fault> {
    let entered = match plan.enter {
        Enter::Pivot => pivot(root),
        Enter::Move => move_and_chroot(root, proc),
        Enter::Chroot => chroot(root),
    };
    entered.map_err(|errno| Fault::new(Step::PivotRoot, errno))
}

fn chroot(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// "." twice stacks the old root on the new one, so no directory for it is needed (pivot_root(2), NOTES).
fn pivot(root: BorrowedFd<'_>) -> Result<()> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // Below a shared root the unmounting would travel to the host. Through the descriptor: "." is still the new root,
    // whose mounts keep their propagation.
    rustix::process::fchdir(&old)?;
    rustix::mount::mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// `--no-pivot`, for a host whose root is the initial ramdisk, which cannot be pivoted away from.
///
/// The old root stays below. Whole procfs and sysfs mounts in it would let a user namespace mount new ones without the
/// masks, so they are unmounted, or covered where they cannot be.
fn move_and_chroot(root: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Result<()> {
    for point in kernel_mounts(proc)? {
        match rustix::mount::unmount(point.as_str(), UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::PERM) => {
                let flags = rustix::mount::MountFlags::RDONLY;
                rustix::mount::mount("tmpfs", point.as_str(), "tmpfs", flags, Some(c"size=0"))?;
            }
            Err(errno) => return Err(errno),
        }
    }
    rustix::process::fchdir(root)?;
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root, "", rustix::fs::CWD, "/", flags)?;
    chroot(root)
}

/// Where procfs and sysfs are mounted with their root, outside the container's root: those in it, which the
/// configuration asked for, are below the rootfs' directory.
fn kernel_mounts(proc: BorrowedFd<'_>) -> Result<Vec<String>> {
    let rootfs = rustix::process::getcwd(Vec::new())?;
    let rootfs = format!("{}/", rootfs.to_string_lossy());
    let mountinfo = crate::host::read_raw(proc.as_fd(), "self/mountinfo")?;
    let mut points = Vec::new();
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): id parent major:minor root mount-point options... - fstype source options
        let mut fields = line.split(' ');
        let (root, point) = (fields.nth(3), fields.next());
        let fstype = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        if let (Some("/"), Some(point), Some("proc" | "sysfs")) = (root, point, fstype)
            && !point.starts_with(&rootfs)
        {
            // Octal escapes stand for white space and backslashes, which no mount point of the kernel's file systems has.
            points.push(point.to_owned());
        }
    }
    // The deepest first.
    points.reverse();
    Ok(points)
}
