//! What of a container is not criu's to save, but the configuration's to give: mounts of the host's files, namespaces of
//! others, standard streams. Runs in: parent.
//!
//! The names are those that runc and crun use, so that the images of each are the others' too: a bind mount is called by its
//! place in the container, a masked file `/dev/null`, a joined namespace `extRootNetNS` or `extRootPidNS`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::message::{Message, opt};
use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::init::CriuAttributes as Attributes;
use crate::open;
use crate::plan::{Joined, Plan};
use crate::rootfs::plan::{Attrs, HostPath, MountKind, MountPlan, RootPath};
use crate::rootfs::source::{CgroupMount, MASK};
use crate::rootfs::{self, Missing};

const NULL: &str = "/dev/null";

/// The external mounts and namespaces of a container that runs: `root` is its root, `pid` its init.
pub(crate) fn dumped(host: &Host, plan: &Plan, cgroup: &Cgroup, pid: i32, options: &mut Message) -> Result<()> {
    let failed = |what: &str, errno| Error::new(format!("open /proc/{pid}/{what}")).errno(errno);
    let root = rustix::fs::openat(
        &host.proc,
        format!("{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let root = root.map_err(|errno| failed("root", errno))?;
    for bind in binds(plan, cgroup)? {
        let name = place_in(host, root.as_fd(), &bind.place);
        options.pair(opt::EXT_MNT, &name, &name);
    }
    for masked in &plan.child.rootfs.masked {
        let file = rootfs::open_in_root(root.as_fd(), masked.as_c_str(), OFlags::PATH).and_then(rustix::fs::fstat);
        if file.is_ok_and(|stat| !FileType::from_raw_mode(stat.st_mode).is_dir()) {
            options.pair(opt::EXT_MNT, masked.display(), NULL);
        }
    }
    for (kind, file, name, key) in EXTERNAL {
        if plan.child.namespaces.joins(*kind) {
            let stat = rustix::fs::statat(&host.proc, format!("{pid}/ns/{file}"), AtFlags::empty());
            let inode = stat.map_err(|errno| failed(&format!("ns/{file}"), errno))?.st_ino;
            options.text(opt::EXTERNAL, format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(())
}

/// Joined namespaces that criu leaves alone: kind, file in /proc, criu's word, the name in the images.
const EXTERNAL: &[(i32, &str, &str, &str)] =
    &[(libc::CLONE_NEWNET, "net", "net", "extRootNetNS"), (libc::CLONE_NEWPID, "pid", "pid", "extRootPidNS")];

/// Joined namespaces that it enters by their path.
const JOINED: &[(i32, &str)] = &[
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWTIME, "time"),
    (libc::CLONE_NEWUSER, "user"),
    (libc::CLONE_NEWNS, "mnt"),
];

/// The external mounts of one that is to be restored.
pub(crate) fn restored(host: &Host, plan: &Plan, cgroup: &Cgroup, options: &mut Message) -> Result<()> {
    let root = open_root(plan)?;
    for bind in binds(plan, cgroup)? {
        options.pair(opt::EXT_MNT, place_in(host, root.as_fd(), &bind.place), bind.source.0.as_os_str().as_bytes());
    }
    options.pair(opt::EXT_MNT, NULL, NULL);
    Ok(())
}

/// The namespaces of others, of which `opened` are descriptors, for criu to inherit or to enter.
pub(crate) fn inherit(plan: &Plan, opened: &[OwnedFd], options: &mut Message) -> Result<()> {
    for (joined, fd) in plan.child.namespaces.joined.iter().zip(opened) {
        let Joined { kind, path, index } = joined;
        if let Some((.., key)) = EXTERNAL.iter().find(|(one, ..)| one == kind) {
            options.inherit(key, fd.as_raw_fd());
        } else if let Some((_, name)) = JOINED.iter().find(|(one, _)| one == kind) {
            options.pair(opt::JOIN_NS, name, path.as_os_str().as_bytes());
        } else {
            let field = format!("linux.namespaces[{index}].path");
            return Err(Error::at(field, "criu cannot restore into a cgroup namespace that is there already"));
        }
    }
    Ok(())
}

/// What the mounts of the host's files must be set to, in the order of the configuration: a remount comes after its mount.
pub(crate) fn attributes(plan: &Plan, cgroup: &Cgroup) -> Result<Vec<Attributes>> {
    let rootfs = &plan.child.rootfs;
    let mut all = Vec::new();
    for mount in &rootfs.mounts {
        let places = match &mount.kind {
            MountKind::Remount { .. } => vec![mount.target.clone()],
            _ => binds_of(mount, plan, cgroup)?.into_iter().map(|bind| bind.place).collect(),
        };
        for place in places {
            for (attrs, recursive) in [(mount.attrs, false), (mount.attrs_recursive, true)] {
                all.push(Attributes { place: place.clone(), attrs, recursive });
            }
        }
    }
    let mask = Attrs { set: MASK, clr: 0 };
    all.extend(rootfs.masked.iter().map(|path| Attributes { place: path.clone(), attrs: mask, recursive: false }));
    all.retain(|attributes| attributes.attrs != Attrs::default());
    Ok(all)
}

/// A mount that shows the host's files.
struct Bind {
    place: RootPath,
    source: HostPath,
}

/// Those that one entry of `mounts` makes.
fn binds_of(mount: &MountPlan, plan: &Plan, cgroup: &Cgroup) -> Result<Vec<Bind>> {
    let one = |source: &HostPath| vec![Bind { place: mount.target.clone(), source: source.clone() }];
    Ok(match &mount.kind {
        MountKind::Bind { source, .. } => one(source),
        MountKind::Cgroup => match open::cgroup_mount(plan, cgroup, &[])? {
            CgroupMount::V2(Some(source)) => one(&source),
            CgroupMount::V1(hierarchies) => {
                let copied = hierarchies.into_iter().filter_map(|hierarchy| Some((hierarchy.name, hierarchy.tree?)));
                let bind = |(name, source): (CString, HostPath)| {
                    let place = Path::new(&mount.target.display()).join(&*name.to_string_lossy());
                    Ok(Bind { place: RootPath::new(&place, "mounts")?, source })
                };
                copied.map(bind).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        },
        MountKind::New { .. } | MountKind::Remount { .. } => Vec::new(),
    })
}

fn binds(plan: &Plan, cgroup: &Cgroup) -> Result<Vec<Bind>> {
    let rootfs = &plan.child.rootfs;
    let mut binds = Vec::new();
    for mount in &rootfs.mounts {
        binds.extend(binds_of(mount, plan, cgroup)?);
    }
    // Where nodes cannot be made they are the host's.
    if plan.child.namespaces.has(libc::CLONE_NEWUSER) {
        let host = |path: &RootPath| HostPath(PathBuf::from(path.display()));
        let devices = rootfs.dev.iter().flatten().map(|device| &device.path);
        binds.extend(devices.map(|path| Bind { place: path.clone(), source: host(path) }));
    }
    Ok(binds)
}

fn open_root(plan: &Plan) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&plan.rootfs.0, flags, Mode::empty())
        .map_err(|errno| Error::at("root.path", format!("{:?}", plan.rootfs.0)).errno(errno))
}

/// Where a path of the configuration leads to in the container, as criu finds it in mountinfo: without symbolic links. What
/// is not there is on a mount that is not made yet, and taken as it is.
fn place_in(host: &Host, root: BorrowedFd<'_>, place: &RootPath) -> Vec<u8> {
    let link = |fd: BorrowedFd<'_>| {
        let link = rustix::fs::readlinkat(&host.proc, format!("self/fd/{}", fd.as_raw_fd()), Vec::new());
        link.map(CString::into_bytes)
    };
    let found = rootfs::open_in_root(root, place.as_c_str(), OFlags::PATH).and_then(|fd| link(fd.as_fd()));
    let below = |path: Vec<u8>, root: Vec<u8>| match path.strip_prefix(root.as_slice()) {
        _ if root == b"/" => Some(path),
        Some(rest) if rest.starts_with(b"/") => Some(rest.to_vec()),
        _ => None,
    };
    found.and_then(|path| link(root).map(|root| below(path, root))).ok().flatten().unwrap_or(place.display().into())
}

/// Makes the places of mounts that the root file system does not have, as `create` does: that of an image may be new. Not
/// on file systems that criu makes with all that is on them; on a bind mount, in its source.
pub(crate) fn make_targets(plan: &Plan) -> Result<()> {
    let mounts = &plan.child.rootfs.mounts;
    for (index, mount) in mounts.iter().enumerate() {
        let path = mount.target.as_c_str().to_bytes();
        let missing = match &mount.kind {
            MountKind::Bind { source, .. } => match std::fs::metadata(&source.0) {
                Ok(metadata) if metadata.is_dir() => Missing::Directory,
                Ok(_) => Missing::File,
                Err(error) => {
                    return Err(Error::at(format!("mounts[{index}].source"), format!("{:?}", source.0)).errno(error));
                }
            },
            MountKind::New { .. } => Missing::Directory,
            MountKind::Remount { .. } | MountKind::Cgroup => continue,
        };
        let below = |other: &[u8]| path.strip_prefix(other).and_then(|rest| rest.strip_prefix(b"/"));
        let under = mounts.iter().take(index).rev().find_map(|other| {
            let rest = below(other.target.as_c_str().to_bytes())?;
            (!matches!(other.kind, MountKind::Remount { .. })).then_some((&other.kind, rest))
        });
        let failed = |errno| Error::at(format!("mounts[{index}].destination"), mount.target.display()).errno(errno);
        let (root, path) = match under {
            None => (open_root(plan)?, mount.target.clone()),
            Some((MountKind::Bind { source, .. }, rest)) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let root = rustix::fs::open(&source.0, flags, Mode::empty()).map_err(failed)?;
                let rest = Path::new(std::ffi::OsStr::from_bytes(rest));
                (root, RootPath::new(rest, &format!("mounts[{index}].destination"))?)
            }
            Some(_) => continue,
        };
        rootfs::open_or_make(root.as_fd(), &path, missing).map_err(failed)?;
    }
    Ok(())
}
