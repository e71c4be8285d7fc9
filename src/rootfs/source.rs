//! What is mounted from the host, opened before anything is mounted. Runs in: parent; or in the child, where the caller may
//! copy mounts only in a user namespace.
//!
//! No mount that the configuration makes is there yet, so a source can only be what it was on the host: a mount into the
//! rootfs, followed by a bind mount from below it, leads nowhere else (CVE-2021-30465).

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, makedev};
use rustix::mount::OpenTreeFlags;

use super::plan::{HostPath, MountKind, RootfsPlan};
use super::resolve;
use crate::sync::{Fault, Step};
use crate::sys::{self, Errno, MountAttr};

/// Detached copies of mounts.
#[derive(Debug)]
pub(crate) struct Trees {
    /// Of the root file system.
    pub(crate) root: OwnedFd,
    /// One for each of `mounts`; None for those that are no bind mounts.
    pub(crate) sources: Vec<Option<Tree>>,
    /// What a mount of type cgroup shows.
    pub(crate) cgroup: CgroupMount<OwnedFd>,
    /// The null device, for files to be masked, and for streams.
    pub(crate) null: rustix::io::Result<OwnedFd>,
}

/// A detached copy.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) fd: OwnedFd,
    pub(crate) is_directory: bool,
}

/// A mount of type cgroup: of directories of the host, or of copies of them.
#[derive(Debug)]
pub(crate) enum CgroupMount<T> {
    /// No mount of `mounts` asks for it.
    None,
    /// The unified hierarchy; None: mounted anew in the cgroup namespace.
    V2(Option<T>),
    /// A tmpfs with one directory for each hierarchy.
    V1(Vec<Hierarchy<T>>),
}

/// One hierarchy of cgroup v1.
#[derive(Debug)]
pub(crate) struct Hierarchy<T> {
    /// The name of its directory, such as `cpu,cpuacct`.
    pub(crate) name: CString,
    /// Names that lead to it: `cpu`, `cpuacct`.
    pub(crate) links: Vec<CString>,
    /// None: mounted anew in the cgroup namespace, with `params`.
    pub(crate) tree: Option<T>,
    /// Parameters of fsconfig(2): flags, or with a value.
    pub(crate) params: Vec<(CString, Option<CString>)>,
}

/// Copies the mount of the root file system, which is the current directory, and the sources of all bind mounts.
pub(crate) fn open(plan: &RootfsPlan, cgroup: &CgroupMount<HostPath>) -> Result<Trees, Fault> {
    let root = open_root().map_err(|errno| Fault::new(Step::RootSource, errno))?;
    let sources = plan.mounts.iter().enumerate().map(|(index, mount)| match &mount.kind {
        MountKind::Bind { source, recursive } => {
            let opened = open_source(source, *recursive, mount.target.as_c_str().to_bytes());
            opened.map(Some).map_err(|fault| fault.item(index))
        }
        _ => Ok(None),
    });
    let sources = sources.collect::<Result<_, Fault>>()?;
    let index = plan.mounts.iter().position(|mount| mount.kind == MountKind::Cgroup).unwrap_or(0);
    let cgroup = cgroup.copy().map_err(|errno| Fault::new(Step::MountCgroup, errno).item(index))?;
    // Which of the masked paths are files is not known yet, and so not whether it is needed.
    Ok(Trees { root, sources, cgroup, null: open_null() })
}

/// The attributes of a masked file's mount.
pub(crate) const MASK: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// The host's null device, and nothing else: the container's could be anything (CVE-2025-31133). Read-only: its mode,
/// owner and times are not the container's to change. A device can be written to on a read-only mount all the same.
pub(crate) fn open_null() -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = rustix::mount::open_tree(rustix::fs::CWD, "/dev/null", flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?;
    let stat = rustix::fs::fstat(&null)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != makedev(1, 3) {
        return Err(Errno::NODEV);
    }
    let attr = MountAttr { set: MASK, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    sys::mount_setattr(null.as_fd(), c"", libc::AT_EMPTY_PATH, &attr)?;
    Ok(null)
}

fn open_root() -> rustix::io::Result<OwnedFd> {
    let tree = clone_tree(Path::new("."), true)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) {
        FileType::Directory => Ok(tree),
        _ => Err(Errno::NOTDIR),
    }
}

fn open_source(source: &HostPath, recursive: bool, target: &[u8]) -> Result<Tree, Fault> {
    let fault = |errno| Fault::new(Step::MountSource, errno);
    let fd = clone_tree(&source.0, recursive).map_err(fault)?;
    let stat = rustix::fs::fstat(&fd).map_err(fault)?;
    // Anything else at /proc would be believed by programs, and by us (CVE-2019-16884).
    if target == b"proc" && !resolve::magic(&fd).is_ok_and(|magic| magic == resolve::PROC_SUPER_MAGIC) {
        return Err(Fault::new(Step::MountNotProc, Errno::PROTO));
    }
    Ok(Tree { fd, is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory })
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a copy that is attached nowhere.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
}

impl CgroupMount<HostPath> {
    /// Copies the mounts that the directories are on, from the directories on.
    fn copy(&self) -> rustix::io::Result<CgroupMount<OwnedFd>> {
        let copy = |directory: &Option<HostPath>| directory.as_ref().map(|path| clone_tree(&path.0, false)).transpose();
        Ok(match self {
            Self::None => CgroupMount::None,
            Self::V2(directory) => CgroupMount::V2(copy(directory)?),
            Self::V1(hierarchies) => {
                let each = hierarchies.iter().map(|hierarchy| {
                    let Hierarchy { name, links, params, .. } = hierarchy;
                    let (name, links, params) = (name.clone(), links.clone(), params.clone());
                    Ok(Hierarchy { name, links, tree: copy(&hierarchy.tree)?, params })
                });
                CgroupMount::V1(each.collect::<rustix::io::Result<_>>()?)
            }
        })
    }
}
