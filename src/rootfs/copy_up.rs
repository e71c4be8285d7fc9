//! `tmpcopyup`: the files below a mount point, copied into the tmpfs that will cover them. Runs in: child.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

use crate::host;
use crate::sys::Result;

/// Copies the tree below `from`, an `O_PATH` descriptor of a directory, into `to`. No link is followed.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Result<()> {
    let to = rustix::fs::openat(to, ".", DIRECTORY, Mode::empty())?;
    directory(from, to.as_fd(), proc)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Result<()> {
    let from = rustix::fs::openat(from, ".", DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from.as_fd(), to, name, proc)?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, proc: BorrowedFd<'_>) -> Result<()> {
    // Looked up once: a container with the same files may have put a device or a FIFO there by the next time, and to open
    // one has effects.
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(from, name, OFlags::PATH | nofollow, Mode::empty())?;
    let stat = rustix::fs::fstat(&found)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let copied = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
            directory(found.as_fd(), copied.as_fd(), proc)?;
            own(to, name, &stat)?;
            rustix::fs::fchmod(&copied, mode)
        }
        FileType::RegularFile => {
            let source = host::reopen(proc, found, OFlags::RDONLY)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
            let copied = rustix::fs::openat(to, name, flags, mode)?;
            contents(source.as_fd(), copied.as_fd())?;
            own(to, name, &stat)?;
            rustix::fs::fchmod(&copied, mode)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(found, c"", Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            own(to, name, &stat)
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            own(to, name, &stat)
        }
    }
}

fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut chunk = [0u8; 16 << 10];
    loop {
        let length = rustix::io::read(from, &mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = chunk.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let written = rustix::io::write(to, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

fn own(parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
