//! Files and directories of cgroupfs.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::Version;
use crate::host;

/// Makes a directory and the missing ones above it. False: it was there.
pub(super) fn make_dir(dir: &Path) -> rustix::io::Result<bool> {
    match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            let parent = dir.parent().ok_or(Errno::NOENT)?;
            make_dir(parent)?;
            make_dir(dir)
        }
        Err(errno) => Err(errno),
    }
}

/// How often a removal begins anew because somebody else, such as systemd, removes the same tree.
const ROUNDS: u32 = 100;

pub(super) fn remove_tree(dir: &Path) -> rustix::io::Result<()> {
    for _ in 0..ROUNDS {
        match crate::sys::twice(|| rustix::fs::rmdir(dir)) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // EBUSY: processes or children; ENOTEMPTY is not cgroupfs' word, but costs nothing to accept.
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
        match open_dir(dir).and_then(remove_below) {
            Ok(()) => match rustix::fs::rmdir(dir) {
                Err(Errno::NOENT) => return Ok(()),
                result => return result,
            },
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::BUSY)
}

/// Removes all below a directory, the deepest first; one descriptor at a time, because a container may have made more
/// levels than a path has room for, or a process descriptors.
fn remove_below(top: OwnedFd) -> rustix::io::Result<()> {
    let mut at = top;
    let mut way = Vec::new();
    loop {
        let child = first_child(&at)?;
        let descends = child.is_some();
        // Without children it goes itself, from the one above.
        let Some(name) = child.or_else(|| way.pop()) else { return Ok(()) };
        if !descends {
            at = open_at(&at, c"..")?;
        }
        match rustix::fs::unlinkat(&at, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::BUSY | Errno::NOTEMPTY) if descends => {
                at = open_at(&at, &name)?;
                way.push(name);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn first_child(dir: &OwnedFd) -> rustix::io::Result<Option<CString>> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_type() == FileType::Directory && entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

fn open_at(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The child cgroups of a directory, and whether they have children, too.
pub(super) fn children(dir: &Path) -> Vec<(PathBuf, bool)> {
    // kernfs counts them, in the directory's links.
    let has_children = |stat: rustix::io::Result<Stat>| stat.is_ok_and(|stat| stat.st_nlink != 2);
    if !has_children(rustix::fs::stat(dir)) {
        return Vec::new();
    }
    let Ok(fd) = open_dir(dir) else { return Vec::new() };
    let mut buffer = [const { MaybeUninit::uninit() }; 4096];
    let mut entries = RawDir::new(&fd, &mut buffer);
    let mut found = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            // By name: the whole path would be walked for each.
            let is_parent = has_children(rustix::fs::statat(&fd, name, AtFlags::empty()));
            found.push((dir.join(OsStr::from_bytes(name.to_bytes())), is_parent));
        }
    }
    found
}

pub(super) fn collect_processes(dir: &Path, below: bool, pids: &mut Vec<i32>) {
    pids.extend(read_file(dir, "cgroup.procs").unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()));
    // What is below a child is looked at after its processes are: they may move there meanwhile.
    for (child, _) in if below { children(dir) } else { Vec::new() } {
        collect_processes(&child, below, pids);
    }
}

/// Of `memory.events` or `memory.oom_control`.
pub(super) fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// `version`: which of both files is probably there.
pub(super) fn is_frozen(dir: &Path, version: Version) -> bool {
    let v1 = || read_record(dir, "freezer.state").map(|text| matches!(text.trim(), "FROZEN" | "FREEZING"));
    let v2 = || read_record(dir, "cgroup.freeze").map(|text| text.trim() == "1");
    let answer = match version {
        Version::V1 => v1().or_else(|_| v2()),
        Version::V2 => v2().or_else(|_| v1()),
    };
    answer.unwrap_or(false)
}

/// Waits until `cgroup.events` of a directory of the unified hierarchy has a line. False: not before the deadline.
pub(super) fn wait_for(dir: &Path, line: &str, deadline: Instant) -> rustix::io::Result<bool> {
    let events = rustix::fs::open(dir.join("cgroup.events"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    loop {
        // Read anew before each poll, which tells what has changed since the last read of this descriptor.
        let mut text = [0; 256];
        let length = rustix::io::pread(&events, &mut text, 0)?;
        let mut lines = text.get(..length).unwrap_or_default().split(|&byte| byte == b'\n');
        if lines.any(|one| one == line.as_bytes()) {
            return Ok(true);
        }
        let left: Duration = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

pub(super) fn open_dir(dir: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a file of one value: a read that does not fill the buffer was the last, and none is needed to see the end.
pub(super) fn read_record(dir: &Path, name: &str) -> rustix::io::Result<String> {
    host::read_record(open_to_read(dir, name)?)
}

fn open_to_read(dir: &Path, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, dir.join(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn read_file(dir: &Path, name: &str) -> rustix::io::Result<String> {
    open_to_read(dir, name).and_then(host::read_all)
}

pub(super) fn write_file(dir: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    rustix::io::write(open_to_write(dir, name)?, value).map(drop)
}

pub(super) fn open_to_write(dir: &Path, name: &str) -> rustix::io::Result<OwnedFd> {
    // No O_CREAT: a directory that is not a cgroup must not get files that look like one's.
    rustix::fs::openat(CWD, dir.join(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}
