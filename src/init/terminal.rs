//! Standard streams: the terminal, or those of the caller. Runs in: child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, OFlags, Stat, Uid, makedev};
use rustix::pty::OpenptFlags;

use crate::host;
use crate::plan::ProcessPlan;
use crate::rootfs;
use crate::sync::{ChildEnd, Fault, Step};
use crate::sys::{self, Errno, Result};

/// Allocates the terminal in the container's devpts, or mends the caller's streams; then gives them to the user.
pub(super) fn set_up(
    process: &ProcessPlan,
    has_dev: bool,
    root: BorrowedFd<'_>,
    proc: BorrowedFd<'_>,
    spare: Option<BorrowedFd<'_>>,
    sync: &ChildEnd<'_>,
) -> std::result::Result<(), Fault> {
    let fault = |errno| Fault::new(Step::Console, errno);
    if process.terminal {
        let (master, terminal) = open(root, proc).map_err(|errno| Fault::new(Step::Terminal, errno))?;
        if has_dev {
            rootfs::bind_console(root, terminal.as_fd()).map_err(fault)?;
        }
        sync.terminal(master.as_fd())?;
        become_controlling(&terminal).map_err(fault)?;
    } else {
        replace_null(root, proc, spare)?;
    }
    give_to_user(process).map_err(fault)
}

/// Opens `/dev/pts/ptmx` of the container when it is sure that it is devpts' own (its magic, device 5:2), and gets the
/// other end from the descriptor, not from a path (CVE-2025-52565).
fn open(root: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let ptmx = rootfs::open_in_root(root, c"dev/pts/ptmx", OFlags::PATH)?;
    let stat = rustix::fs::fstat(&ptmx)?;
    if rootfs::magic(&ptmx)? != rootfs::DEVPTS_SUPER_MAGIC || !is_device(&stat, 5, 2) {
        return Err(Errno::NODEV);
    }
    let master = host::reopen(proc, ptmx, OFlags::RDWR | OFlags::NOCTTY)?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, terminal))
}

fn is_device(stat: &Stat, major: u32, minor: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(major, minor)
}

fn become_controlling(terminal: &OwnedFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal)?;
    rustix::stdio::dup2_stdin(terminal)?;
    rustix::stdio::dup2_stdout(terminal)?;
    rustix::stdio::dup2_stderr(terminal)
}

/// A stream that is the host's null device becomes the container's: a descriptor of a file of the host is a way to it, to its
/// mode for example. Type and number are compared: a number alone is 0 for every file (CVE-2026-88265).
/// Where there is none, `spare` takes its place: the host's on a mount of its own that is read-only.
fn replace_null(
    root: BorrowedFd<'_>,
    proc: BorrowedFd<'_>,
    spare: Option<BorrowedFd<'_>>,
) -> std::result::Result<(), Fault> {
    let fault = |errno| Fault::new(Step::Console, errno);
    let mut own = None;
    for number in 0..3 {
        if !is_device(&stat(number).map_err(fault)?, 1, 3) {
            continue;
        }
        let null = match own.take() {
            Some(null) => null,
            None => sys::twice(|| null(root, proc))
                .or_else(|errno| spare.map_or(Err(errno), |spare| host::reopen(proc, spare, OFlags::RDWR)))
                .map_err(|errno| Fault::new(Step::Null, errno))?,
        };
        let replaced = match number {
            0 => rustix::stdio::dup2_stdin(&null),
            1 => rustix::stdio::dup2_stdout(&null),
            _ => rustix::stdio::dup2_stderr(&null),
        };
        replaced.map_err(fault)?;
        own = Some(null);
    }
    Ok(())
}

/// Looked at before it is opened: any device may stand there.
fn null(root: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Result<OwnedFd> {
    let null = rootfs::open_in_root(root, c"dev/null", OFlags::PATH | OFlags::NOFOLLOW)?;
    if !is_device(&rustix::fs::fstat(&null)?, 1, 3) {
        return Err(Errno::NODEV);
    }
    host::reopen(proc, null, OFlags::RDWR)
}

fn stat(number: i32) -> Result<Stat> {
    match number {
        0 => rustix::fs::fstat(rustix::stdio::stdin()),
        1 => rustix::fs::fstat(rustix::stdio::stdout()),
        _ => rustix::fs::fstat(rustix::stdio::stderr()),
    }
}

/// The user must be able to open /dev/stdout.
fn give_to_user(process: &ProcessPlan) -> Result<()> {
    for number in 0..3 {
        let stat = stat(number)?;
        // A pipe is the container's from now on. A file or a terminal stays the caller's, who has it under a name as well.
        let kind = FileType::from_raw_mode(stat.st_mode);
        let given = process.terminal || matches!(kind, FileType::Fifo | FileType::Socket);
        if !given || stat.st_uid == process.uid {
            continue;
        }
        let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(stat.st_gid));
        let owned = match number {
            0 => rustix::fs::fchown(rustix::stdio::stdin(), Some(uid), Some(gid)),
            1 => rustix::fs::fchown(rustix::stdio::stdout(), Some(uid), Some(gid)),
            _ => rustix::fs::fchown(rustix::stdio::stderr(), Some(uid), Some(gid)),
        };
        match owned {
            // A file of an unmapped owner, of a read-only file system, or one that has no owner.
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
