//! Files and directories of cgroupfs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

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

pub(super) fn remove_tree(dir: &Path) -> rustix::io::Result<()> {
    match rustix::fs::rmdir(dir) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EBUSY: processes or children; ENOTEMPTY is not cgroupfs' word, but costs nothing to accept.
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(errno),
    }
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match rustix::fs::rmdir(dir) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// The child cgroups of a directory.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

pub(super) fn collect_processes(dir: &Path, below: bool, pids: &mut Vec<i32>) {
    pids.extend(read_file(dir, "cgroup.procs").unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in if below { children(dir) } else { Vec::new() } {
        collect_processes(&child, below, pids);
    }
}

/// Of `memory.events` or `memory.oom_control`.
pub(super) fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok()).unwrap_or(0)
}

pub(super) fn is_frozen(dir: &Path) -> bool {
    read_file(dir, "cgroup.freeze").is_ok_and(|text| text.trim() == "1")
        || read_file(dir, "freezer.state").is_ok_and(|text| matches!(text.trim(), "FROZEN" | "FREEZING"))
}

pub(super) fn open_dir(dir: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn read_file(dir: &Path, name: &str) -> rustix::io::Result<String> {
    let fd = rustix::fs::openat(CWD, dir.join(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match rustix::io::read(&fd, &mut chunk)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            count => text.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}

pub(super) fn write_file(dir: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    // No O_CREAT: a directory that is not a cgroup must not get files that look like one's.
    let fd = rustix::fs::openat(CWD, dir.join(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, value).map(drop)
}
