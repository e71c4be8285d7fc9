//! Mappings of ids: those of the container's user namespace are written here. And id-mapped mounts: the mappings of a user
//! namespace, laid over the detached copy of a mount (mount_setattr(2), `MOUNT_ATTR_IDMAP`). Runs in: parent, which has the
//! right to before the container's user namespace exists.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::host::{self, Host};
use crate::plan::{IdMap, Plan, Writer};
use crate::rootfs::source::Trees;
use crate::scratch::Holder;
use crate::sys::{self, Errno, MountAttr};

/// Maps the ids of all bind mounts that want it. Equal mappings share a namespace.
pub(crate) fn apply(plan: &Plan, trees: Option<&Trees>, host: &Host, joined: &[OwnedFd]) -> Result<()> {
    let Some(trees) = trees else { return check_none(plan) };
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
                Errno::INVAL if idmap.map.as_ref().is_some_and(|map| map.uid.is_empty() || map.gid.is_empty()) => {
                    error.hint("this kernel wants both: idmap=uids=...;gids=...")
                }
                Errno::INVAL => error.hint("the file system of the source does not support it in this kernel"),
                Errno::PERM => error.hint("the source is id-mapped already, or we may not map its file system"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

/// Who may not copy mounts may not map their ids.
fn check_none(plan: &Plan) -> Result<()> {
    let text = "id-mapped mounts are not supported for rootless containers";
    match plan.child.rootfs.mounts.iter().position(|mount| mount.idmap.is_some()) {
        Some(index) => Err(Error::at(format!("mounts[{index}]"), text)),
        None => Ok(()),
    }
}

/// A user namespace that nobody is in any more.
fn user_namespace(map: &IdMap, host: &Host, field: &str) -> Result<OwnedFd> {
    let failed = |errno: Errno| Error::at(format!("{field}.uidMappings"), "make a user namespace").errno(errno);
    let holder = Holder::new(libc::CLONE_NEWUSER).map_err(failed)?;
    write(host, holder.pid, map, [Writer::Privileged; 2], field)?;
    let path = format!("{}/ns/user", holder.pid.as_raw_nonzero());
    // A magic link, which is the point.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat2(&host.proc, path, flags, Mode::empty(), ResolveFlags::empty()).map_err(failed)
}

/// Writes the maps of the user namespace that a child has made. `field` is where `uidMappings` and `gidMappings` are.
pub(crate) fn write(host: &Host, pid: Pid, map: &IdMap, writers: [Writer; 2], field: &str) -> Result<()> {
    for (kind, lines, writer) in [("uid", &map.uid, writers[0]), ("gid", &map.gid, writers[1])] {
        // Of a mount only: ids of a kind that is not mapped are nobody's.
        if lines.is_empty() {
            continue;
        }
        let failed = |what: String| Error::at(format!("{field}.{kind}Mappings"), what);
        let write = |file: &str, text: &str| {
            host::write_raw(&host.proc, &format!("{}/{file}", pid.as_raw_nonzero()), text.as_bytes()).map_err(|errno| {
                let shown = text.trim_end().replace('\n', ", ");
                failed(format!("write {shown:?} to {file}")).errno(errno)
            })
        };
        if writer == Writer::Tool {
            tool(kind, pid, lines).map_err(|(what, hint)| failed(what).hint(hint))?;
            continue;
        }
        if writer == Writer::Owner && kind == "gid" {
            // Or a user could drop a group by which others keep them out (user_namespaces(7)).
            write("setgroups", "deny")?;
        }
        write(&format!("{kind}_map"), lines)?;
    }
    Ok(())
}

/// newuidmap(1) or newgidmap(1), which may map what /etc/subuid and /etc/subgid grant to the user. What failed, and the cure.
fn tool(kind: &str, pid: Pid, lines: &str) -> std::result::Result<(), (String, String)> {
    let name = format!("new{kind}map");
    let Some(program) = find(&name) else {
        let text = format!("other ids than the user's own need {name}, which is not in $PATH");
        return Err((text, "apt install uidmap".to_owned()));
    };
    let mut command = Command::new(&program);
    command.arg(pid.as_raw_nonzero().to_string()).args(lines.split_whitespace());
    // It is setuid root; nothing of our environment is its business.
    let output = command.env_clear().stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| (format!("execute {}: {error}", program.display()), "see its mode".to_owned()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let text = format!("{} {}: {}", program.display(), lines.trim_end().replace('\n', ", "), said.trim_end());
    let hint = format!("/etc/sub{kind} must grant these ids to the user: usermod --add-sub{kind}s FIRST-LAST NAME");
    Err((text, hint))
}

/// In the directories of $PATH, and not relative to where we happen to be.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    let executable = |file: &PathBuf| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    directories.map(|directory| directory.join(name)).find(executable)
}
