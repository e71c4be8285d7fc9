//! Id-mapped mounts: the mappings of a user namespace, laid over the detached copy of a mount (mount_setattr(2),
//! `MOUNT_ATTR_IDMAP`). Runs in: parent, which has the right to before the container's user namespace exists.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pipe::PipeFlags;

use crate::child::reap;
use crate::error::{Error, Result};
use crate::host::{self, Host};
use crate::plan::{IdMap, Plan};
use crate::rootfs::source::Trees;
use crate::sys::{self, Clone3, Cloned, Errno, MountAttr};

/// Maps the ids of all bind mounts that want it. Equal mappings share a namespace.
pub(crate) fn apply(plan: &Plan, trees: &Trees, host: &Host, joined: &[OwnedFd]) -> Result<()> {
    let mut made: Vec<(&IdMap, OwnedFd)> = Vec::new();
    let container = plan.child.namespaces.joined.iter().zip(joined);
    let container = container.filter(|(joined, _)| joined.kind == libc::CLONE_NEWUSER).map(|(_, fd)| fd).next();
    for (index, (mount, tree)) in plan.child.rootfs.mounts.iter().zip(&trees.sources).enumerate() {
        let (Some(idmap), Some(tree)) = (&mount.idmap, tree) else { continue };
        let field = format!("mounts[{index}]");
        let namespace = match (idmap.map.as_ref().or(plan.idmap.as_ref()), container) {
            (Some(map), _) => {
                let found = made.iter().position(|(other, _)| *other == map);
                let at = match found {
                    Some(at) => at,
                    None => {
                        made.push((map, user_namespace(map, host, &field)?));
                        made.len() - 1
                    }
                };
                made.get(at).map(|(_, namespace)| namespace)
            }
            (None, container) => container,
        };
        let namespace = namespace.ok_or_else(|| Error::at(&field, "no user namespace with the mappings"))?;
        let attr = MountAttr {
            set: libc::MOUNT_ATTR_IDMAP,
            userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX),
            ..MountAttr::default()
        };
        let flags = libc::AT_EMPTY_PATH | if idmap.recursive { libc::AT_RECURSIVE } else { 0 };
        sys::mount_setattr(tree.fd.as_fd(), c"", flags, &attr).map_err(|errno| {
            let error = Error::at(format!("{field}.uidMappings"), "map the ids of the mount").errno(errno);
            match errno {
                Errno::INVAL => error.hint("the file system of the source does not support it in this kernel"),
                Errno::PERM => error.hint("the source is id-mapped already, or we may not map its file system"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

/// A user namespace that nobody is in: a child makes it, and is gone when it has its mappings.
fn user_namespace(map: &IdMap, host: &Host, field: &str) -> Result<OwnedFd> {
    let failed = |errno: Errno| Error::at(format!("{field}.uidMappings"), "make a user namespace").errno(errno);
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let flags = u64::try_from(libc::CLONE_NEWUSER).unwrap_or(0);
    let (pid, pidfd) = match sys::clone3(Clone3 { flags, cgroup: None }).map_err(failed)? {
        Cloned::Child => {
            drop(writer);
            // The end of file: the parent is done, or dead.
            let _ = rustix::io::read(&reader, &mut [0u8]);
            sys::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid.as_raw_nonzero(), pidfd),
    };
    let write = |file: &str, name: &str, lines: &str| {
        host::write_raw(&host.proc, &format!("{pid}/{file}"), lines.as_bytes()).map_err(|errno| {
            let shown = lines.trim_end().replace('\n', ", ");
            Error::at(format!("{field}.{name}"), format!("write {shown:?} to {file}")).errno(errno)
        })
    };
    let written = write("uid_map", "uidMappings", &map.uid).and_then(|()| write("gid_map", "gidMappings", &map.gid));
    let opened = written.and_then(|()| {
        // A magic link, which is the point.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat2(&host.proc, format!("{pid}/ns/user"), flags, Mode::empty(), ResolveFlags::empty())
            .map_err(failed)
    });
    drop(writer);
    reap(&pidfd);
    opened
}
