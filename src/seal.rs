//! The runtime's own binary must not be reachable for writing from a container (CVE-2019-5736).
//!
//! Runs in: parent, first of all. The child is not executed anew, so until it executes the container's program, and for
//! ever if that program is `/proc/self/exe`, `/proc/<pid>/exe` leads to the file that this process was executed from. So it
//! is executed from a place that cannot be written: a read-only, detached copy of the mount that the binary is on
//! (80 to 170 µs). Who may not copy mounts lets a child do it in a user namespace (210 µs), and where there are none it is a
//! sealed memfd (1200 µs, and the size of the program in memory).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::{DupFlags, Errno};
use rustix::mount::OpenTreeFlags;

use crate::child::reap;
use crate::error::{Error, Result};
use crate::sys::{self, CStrings, Clone3, Cloned, MountAttr};

const EXE: &str = "/proc/self/exe";
/// linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Executes this program again from a sealed copy, unless it already runs from one.
pub(crate) fn seal() -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let copy =
        read_only_mount(Path::new(EXE)).or_else(|_| in_user_namespace()).or_else(|_| memfd()).map_err(|error| {
            Error::new("make a sealed copy of this program, which a container could overwrite otherwise").errno(error)
        })?;
    let args = sys::arguments();
    let environment = crate::create::own_environment();
    let errno = sys::execveat(copy.as_fd(), &CStrings::new(&args), &CStrings::new(&environment));
    Err(Error::new("execute the sealed copy of this program").errno(errno))
}

/// On our own read-only mount, or in a memfd that nobody can write to. A read-only mount of the host does not count: it can
/// become writable while something in a container has the file open.
fn is_sealed() -> bool {
    let Ok(stat) = rustix::fs::statfs(EXE) else { return false };
    if stat.f_flags & i64::from(libc::ST_RDONLY as u32) != 0 {
        // The file is the root of a mount that is attached nowhere; removed since, after an upgrade, or not.
        let link = std::fs::read_link(EXE);
        return link.is_ok_and(|path| path == Path::new("/") || path == Path::new("/ (deleted)"));
    }
    // A memfd is a file of a tmpfs.
    if stat.f_type != TMPFS_MAGIC {
        return false;
    }
    let exe = rustix::fs::open(EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    exe.and_then(rustix::fs::fcntl_get_seals).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

fn read_only_mount(program: &Path) -> std::result::Result<OwnedFd, std::io::Error> {
    let tree =
        rustix::mount::open_tree(CWD, program, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    sys::mount_setattr(tree.as_fd(), c"", libc::AT_EMPTY_PATH, &attr)?;
    Ok(tree)
}

/// There everybody may copy mounts. The child has our table of descriptors, and leaves the copy where we have opened
/// something; what else it opens goes at exec.
fn in_user_namespace() -> std::result::Result<OwnedFd, std::io::Error> {
    let mut slot = rustix::fs::open(EXE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = u64::try_from(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_FILES).unwrap_or(0);
    match sys::clone3(Clone3 { flags, cgroup: None })? {
        Cloned::Child => {
            let done = std::fs::read_link(EXE).and_then(|program| read_only_mount(&program)).and_then(|tree| {
                // The path, since the link leads to a mount of the namespace that we have left; but not to another program.
                let (new, old) = (rustix::fs::fstat(&tree)?, rustix::fs::fstat(&slot)?);
                let same = (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino);
                let placed =
                    if same { rustix::io::dup3(&tree, &mut slot, DupFlags::CLOEXEC) } else { Err(Errno::NOENT) };
                // To close it is the parent's part: the table is the same.
                std::mem::forget(tree);
                Ok(placed?)
            });
            sys::exit_now(i32::from(done.is_err()))
        }
        Cloned::Parent { pidfd, .. } => match reap(&pidfd).and_then(|status| status.exit_status()) {
            Some(0) => Ok(slot),
            _ => Err(Errno::PERM.into()),
        },
    }
}

fn memfd() -> std::result::Result<OwnedFd, std::io::Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3 a host may want it said that a memfd is to be executed (vm.memfd_noexec).
    let memfd = rustix::fs::memfd_create("runtime", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("runtime", flags))?;
    let mut file = std::fs::File::from(memfd);
    std::io::copy(&mut std::fs::File::open(EXE)?, &mut file)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}
