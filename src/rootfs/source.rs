//! What is mounted from the host, opened before the child exists. Runs in: parent.
//!
//! The parent sees no mount that the configuration makes, so a source can only be what it was on the host: a mount into
//! the rootfs, followed by a bind mount from below it, leads nowhere else (CVE-2021-30465).

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::mount::OpenTreeFlags;

use super::plan::{HostPath, MountKind, RootfsPlan};
use super::resolve;
use crate::error::{Error, Result};

/// Detached copies of mounts.
#[derive(Debug)]
pub(crate) struct Trees {
    /// Of the root file system.
    pub(crate) root: OwnedFd,
    /// One for each of `mounts`; None for those that are no bind mounts.
    pub(crate) sources: Vec<Option<Tree>>,
    /// What a mount of type cgroup shows.
    pub(crate) cgroup: CgroupMount,
}

/// A detached copy.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) fd: OwnedFd,
    pub(crate) is_directory: bool,
}

/// A mount of type cgroup.
#[derive(Debug)]
pub(crate) enum CgroupMount {
    /// No mount of `mounts` asks for it.
    None,
    /// The unified hierarchy; None: mounted anew in the cgroup namespace.
    V2(Option<OwnedFd>),
    /// A tmpfs with one directory for each hierarchy.
    V1(Vec<Hierarchy>),
}

/// One hierarchy of cgroup v1.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// The name of its directory, such as `cpu,cpuacct`.
    pub(crate) name: CString,
    /// Names that lead to it: `cpu`, `cpuacct`.
    pub(crate) links: Vec<CString>,
    /// None: mounted anew in the cgroup namespace, with `params`.
    pub(crate) tree: Option<OwnedFd>,
    /// Parameters of fsconfig(2): flags, or with a value.
    pub(crate) params: Vec<(CString, Option<CString>)>,
}

/// Copies the root file system's mount and the sources of all bind mounts.
pub(crate) fn open(rootfs: &HostPath, plan: &RootfsPlan, cgroup: CgroupMount) -> Result<Trees> {
    let root = open_root(rootfs)?;
    let sources = plan.mounts.iter().enumerate().map(|(index, mount)| match &mount.kind {
        MountKind::Bind { source, recursive } => {
            open_source(index, source, *recursive, mount.target.as_c_str().to_bytes()).map(Some)
        }
        _ => Ok(None),
    });
    Ok(Trees { root, sources: sources.collect::<Result<_>>()?, cgroup })
}

fn open_root(rootfs: &HostPath) -> Result<OwnedFd> {
    let what = || Error::at("root.path", format!("{:?}", rootfs.0));
    let tree = clone_tree(rootfs, true).map_err(|errno| what().errno(errno))?;
    let stat = rustix::fs::fstat(&tree).map_err(|errno| what().errno(errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(what().errno(rustix::io::Errno::NOTDIR));
    }
    Ok(tree)
}

fn open_source(index: usize, source: &HostPath, recursive: bool, target: &[u8]) -> Result<Tree> {
    let field = format!("mounts[{index}].source");
    let what = || Error::at(field.clone(), format!("{:?}", source.0));
    let fd = clone_tree(source, recursive).map_err(|errno| what().errno(errno))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| what().errno(errno))?;
    // Anything else at /proc would be believed by programs, and by us (CVE-2019-16884).
    if target == b"proc" && !resolve::magic(&fd).is_ok_and(|magic| magic == resolve::PROC_SUPER_MAGIC) {
        return Err(Error::at(field, format!("{:?} is not a procfs, and nothing else can be at \"/proc\"", source.0)));
    }
    Ok(Tree { fd, is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory })
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a copy that is attached nowhere.
fn clone_tree(path: &HostPath, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, &path.0, flags)
}

/// A copy of the mount that a directory is on, from that directory on.
pub(crate) fn clone_directory(directory: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    clone_tree(&HostPath(directory.to_owned()), false)
}
