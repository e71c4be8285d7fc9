//! The runtime's own binary must not be reachable for writing from a container (CVE-2019-5736).
//!
//! Runs in: parent, first of all. The child is not executed anew, so until it executes the container's program, and for
//! ever if that program is `/proc/self/exe`, `/proc/<pid>/exe` leads to the file that this process was executed from. So it
//! is executed from a place that cannot be written: a read-only, detached copy of the mount that the binary is on
//! (80 to 170 µs), or a sealed memfd where that is not permitted.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, MemfdFlags, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::{Error, Result};
use crate::sys::{self, CStrings, MountAttr};

const EXE: &str = "/proc/self/exe";

/// Executes this program again from a sealed copy, unless it already runs from one.
pub(crate) fn seal() -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let copy = read_only_mount().or_else(|_| memfd()).map_err(|error| {
        Error::new("make a sealed copy of this program, which a container could overwrite otherwise").errno(error)
    })?;
    let args: Vec<CString> = std::env::args_os().filter_map(|arg| CString::new(arg.as_bytes()).ok()).collect();
    let environment = crate::create::own_environment();
    let errno = sys::execveat(copy.as_fd(), &CStrings::new(&args), &CStrings::new(&environment));
    Err(Error::new("execute the sealed copy of this program").errno(errno))
}

/// On a read-only mount, ours or the host's, or in a memfd that nobody can write to.
fn is_sealed() -> bool {
    if rustix::fs::statvfs(EXE).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return true;
    }
    let exe = rustix::fs::open(EXE, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    exe.and_then(rustix::fs::fcntl_get_seals).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

fn read_only_mount() -> std::result::Result<OwnedFd, std::io::Error> {
    let tree = rustix::mount::open_tree(CWD, EXE, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    sys::mount_setattr(tree.as_fd(), c"", libc::AT_EMPTY_PATH, &attr)?;
    Ok(tree)
}

fn memfd() -> std::result::Result<OwnedFd, std::io::Error> {
    let memfd = rustix::fs::memfd_create("runtime", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memfd);
    std::io::copy(&mut std::fs::File::open(EXE)?, &mut file)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}
