//! A path below the container's root → a descriptor. Runs in: child. The root and all in it are hostile.
//!
//! The only place that looks up a path in the rootfs. Every look-up is one openat2(2) with `RESOLVE_IN_ROOT` (links,
//! absolute ones too, stay inside) and `RESOLVE_NO_MAGICLINKS` (a link of /proc leads nowhere); what is missing is made
//! relative to a descriptor of the directory above it. Nothing is ever looked up twice for one use.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::plan::RootPath;
use crate::sys::{Errno, Result};

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// How many symbolic links to things that do not exist are followed; `MAXSYMLINKS` of the kernel.
const MAX_LINKS: usize = 40;

/// What to make where nothing is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Directory,
    File,
}

/// Opens what is at `path`, following links inside the root.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    open_with(root, path, flags, IN_ROOT)
}

/// As [`open`], but a symbolic link anywhere on the way is ELOOP.
pub(crate) fn open_no_symlinks(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    open_with(root, path, flags, IN_ROOT.union(ResolveFlags::NO_SYMLINKS))
}

fn open_with(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { c"." } else { path };
    // EAGAIN: something was renamed meanwhile and the kernel cannot be sure; openat2(2) says to try again.
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < 128 => tries += 1,
            result => return result,
        }
    }
}

/// Opens `path` with `O_PATH`, and makes it and what is missing above it.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, path: &RootPath, missing: Missing) -> Result<OwnedFd> {
    match open(root, path.as_c_str(), OFlags::PATH) {
        Err(Errno::NOENT) => make(root, path, missing),
        result => result,
    }
}

/// Makes what is not there: at once where only the last component is missing, else step by step.
pub(super) fn make(root: BorrowedFd<'_>, path: &RootPath, missing: Missing) -> Result<OwnedFd> {
    let whole = Path::new(OsStr::from_bytes(path.as_c_str().to_bytes()));
    if let (Some(parent), Some(name)) = (whole.parent(), whole.file_name())
        && let Ok(parent) = open(root, &c_string(parent)?, OFlags::PATH | OFlags::DIRECTORY)
        && make_one(&parent, name, missing).is_ok()
    {
        return open(root, path.as_c_str(), OFlags::PATH);
    }
    make_each(root, path, missing)
}

fn make_one(parent: &OwnedFd, name: &OsStr, missing: Missing) -> Result<()> {
    if missing == Missing::File {
        // Not open(O_CREAT): that would follow a link that appears meanwhile.
        rustix::fs::mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
    } else {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    }
}

/// Makes the missing components one by one. A link to a place that does not exist yet is followed by hand, as far as
/// the kernel would follow links.
fn make_each(root: BorrowedFd<'_>, path: &RootPath, missing: Missing) -> Result<OwnedFd> {
    let mut rest = components(Path::new(OsStr::from_bytes(path.as_c_str().to_bytes())));
    let mut done = PathBuf::new();
    let mut links = 0;
    rest.reverse();
    while let Some(name) = rest.pop() {
        let parent = open(root, &c_string(&done)?, OFlags::PATH | OFlags::DIRECTORY)?;
        let here = done.join(&name);
        match open(root, &c_string(&here)?, OFlags::PATH) {
            Ok(_) => done = here,
            Err(Errno::NOENT) => {
                let last = rest.is_empty();
                match make_one(&parent, &name, if last { missing } else { Missing::Directory }) {
                    Ok(()) => done = here,
                    Err(Errno::EXIST) if links < MAX_LINKS => {
                        links += 1;
                        let target = match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
                            // No link: somebody made it meanwhile, so it is looked up again.
                            Err(Errno::INVAL) => {
                                rest.push(name);
                                continue;
                            }
                            target => target?,
                        };
                        let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                        if target.is_absolute() {
                            done = PathBuf::new();
                        }
                        rest.extend(components(target).into_iter().rev());
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    open(root, &c_string(&done)?, OFlags::PATH)
}

/// The components, `..` included: the kernel resolves it, inside the root.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

/// The file system that a descriptor is on: `f_type` of fstatfs(2).
pub(crate) fn magic(fd: impl AsFd) -> Result<i64> {
    rustix::fs::fstatfs(fd).map(|statfs| statfs.f_type)
}

/// `PROC_SUPER_MAGIC` of linux/magic.h.
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
pub(crate) const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
