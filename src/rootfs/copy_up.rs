//! `tmpcopyup`: the files below a mount point, copied into the tmpfs that will cover them. Runs in: child.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

use crate::sys::Result;

/// Copies the tree below `from`, an `O_PATH` descriptor of a directory, into `to`. No link is followed.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    let to = rustix::fs::openat(to, ".", flags, Mode::empty())?;
    directory(from.as_fd(), to.as_fd())
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name)?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | nofollow;
            let below = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let copied = rustix::fs::openat(to, name, flags, Mode::empty())?;
            directory(below.as_fd(), copied.as_fd())?;
            own(to, name, &stat)?;
            rustix::fs::fchmod(&copied, mode)
        }
        FileType::RegularFile => {
            // O_NONBLOCK: should it have become a FIFO meanwhile.
            let source = rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NONBLOCK | nofollow, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
            let copied = rustix::fs::openat(to, name, flags, mode)?;
            contents(source.as_fd(), copied.as_fd())?;
            own(to, name, &stat)?;
            rustix::fs::fchmod(&copied, mode)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
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
