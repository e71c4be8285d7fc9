//! What the parent opens before the child exists. Runs in: parent.
//!
//! After the clone the child resolves no path of the host, so everything that the configuration names there is opened
//! here, and what is missing is reported before anything is created.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::cgroups::{Cgroup, Version};
use crate::deadline;
use crate::error::{Error, Result};
use crate::hooks::Output;
use crate::host::Host;
use crate::idmap;
use crate::plan::{self, ChildPlan, HookOutput, Joined, Plan};
use crate::rootfs::plan::{HostPath, MountKind};
use crate::rootfs::source::{self, CgroupMount, Hierarchy, Trees};
use crate::scratch;
use crate::seccomp::Agent;
use crate::sync::{Fault, Step};

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Opens the namespaces to join, and checks that each is of its kind.
pub(crate) fn namespaces(host: &Host, plan: &ChildPlan) -> Result<Vec<OwnedFd>> {
    plan.namespaces.joined.iter().map(|joined| namespace(host, plan, joined)).collect()
}

fn namespace(host: &Host, plan: &ChildPlan, joined: &Joined) -> Result<OwnedFd> {
    let field = format!("linux.namespaces[{}].path", joined.index);
    let what = || Error::at(field.clone(), format!("{:?}", joined.path));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(&joined.path, flags, Mode::empty()).map_err(|errno| {
        let error = what().errno(errno);
        let name = joined.path.strip_prefix("/run/netns").or_else(|_| joined.path.strip_prefix("/var/run/netns"));
        match (errno, name) {
            (rustix::io::Errno::NOENT, Ok(name)) => {
                error.hint(format!("create it first, for example: ip netns add {}", name.display()))
            }
            _ => error,
        }
    })?;
    let magic = rustix::fs::fstatfs(&fd).map_err(|errno| what().errno(errno))?.f_type;
    let wrong = || Error::at(field.clone(), format!("{:?} is not a namespace of that type", joined.path));
    if magic != NSFS_MAGIC || kind(&fd) != Some(joined.kind) {
        return Err(wrong());
    }
    check_foreign(host, plan, joined, &fd)?;
    Ok(fd)
}

/// `CLONE_NEW*` of a namespace: `NS_GET_NSTYPE` of ioctl_ns(2).
fn kind(fd: &OwnedFd) -> Option<i32> {
    crate::sys::ns_get_nstype(fd).ok()
}

/// A path that leads to our own namespace gives the container nothing of its own: what is only allowed there would
/// change the host.
fn check_foreign(host: &Host, plan: &ChildPlan, joined: &Joined, fd: &OwnedFd) -> Result<()> {
    let (name, touched) = match joined.kind {
        libc::CLONE_NEWUTS => {
            ("uts", plan.hostname.as_ref().map(|_| "hostname").or(plan.domainname.as_ref().map(|_| "domainname")))
        }
        libc::CLONE_NEWNET => ("net", sysctl_below(plan, "net").or(plan.has_net_devices.then_some("linux.netDevices"))),
        // Its root would be the container's, for everybody.
        libc::CLONE_NEWNS => ("mnt", Some("root.path")),
        libc::CLONE_NEWIPC => ("ipc", sysctl_below(plan, "kernel").or(sysctl_below(plan, "fs"))),
        _ => return Ok(()),
    };
    let Some(touched) = touched else { return Ok(()) };
    let own =
        rustix::fs::openat2(&host.proc, format!("self/ns/{name}"), OFlags::PATH, Mode::empty(), ResolveFlags::empty())
            .and_then(rustix::fs::fstat);
    let (own, other) = (own, rustix::fs::fstat(fd));
    if let (Ok(own), Ok(other)) = (own, other)
        && (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)
    {
        let text = format!("{:?} is the host's own {name} namespace, which {touched} would change", joined.path);
        return Err(Error::at(format!("linux.namespaces[{}].path", joined.index), text));
    }
    Ok(())
}

fn sysctl_below(plan: &ChildPlan, first: &str) -> Option<&'static str> {
    let below =
        |file: &CString| file.to_string_lossy().strip_prefix("sys/").is_some_and(|rest| rest.starts_with(first));
    plan.sysctl.iter().any(|sysctl| below(&sysctl.file)).then_some("linux.sysctl")
}

/// Goes to the rootfs' directory, which the child inherits as its current one, in its own mount namespace; and copies
/// the mounts. None: only the child may do that, as root of the container's user namespace.
pub(crate) fn trees(
    plan: &Plan,
    cgroup: &CgroupMount<HostPath>,
    host: &Host,
    joined: &[OwnedFd],
) -> Result<Option<Trees>> {
    rustix::process::chdir(&plan.rootfs.0).map_err(|errno| missing_root(&plan.rootfs).errno(errno))?;
    let copy = || source::open(&plan.child.rootfs, cgroup);
    // Of another mount namespace the same directory.
    let there = || {
        rustix::process::chdir(&plan.rootfs.0).map_err(|errno| Fault::new(Step::RootSource, errno))?;
        copy()
    };
    let namespaces = &plan.child.namespaces;
    let opened = if namespaces.has(libc::CLONE_NEWUSER) && namespaces.has(libc::CLONE_NEWNS) {
        scratch::with_locked_mounts(host, there)
            .map_err(|errno| Error::new("enter a mount namespace, and leave it").errno(errno))?
    } else {
        Some(copy())
    };
    let trees = opened.transpose().map_err(|fault| plan::explain(plan, &fault))?;
    idmap::apply(plan, trees.as_ref(), host, joined)?;
    Ok(trees)
}

fn missing_root(rootfs: &HostPath) -> Error {
    Error::at("root.path", format!("{:?}", rootfs.0))
}

/// A mount of type cgroup: new ones in a cgroup namespace of the container's own, else its directories.
pub(crate) fn cgroup_mount(plan: &Plan, cgroup: &Cgroup, joined: &[OwnedFd]) -> Result<CgroupMount<HostPath>> {
    let rootfs = &plan.child.rootfs;
    if !rootfs.mounts.iter().any(|mount| mount.kind == MountKind::Cgroup) {
        return Ok(CgroupMount::None);
    }
    let own_namespace = has_own_cgroup_namespace(plan, joined);
    let copied = |dir: &Path| if own_namespace { None } else { Some(HostPath(dir.to_owned())) };
    match cgroup.version {
        Version::V2 => Ok(CgroupMount::V2(cgroup.shown().next().and_then(|(_, dir)| copied(dir)))),
        Version::V1 => {
            let v1 = cgroup.shown().filter(|(controllers, _)| !controllers.is_empty());
            let hierarchies = v1.map(|(controllers, dir)| hierarchy(controllers, copied(dir)));
            Ok(CgroupMount::V1(hierarchies.collect::<Result<_>>()?))
        }
    }
}

/// `PROC_CGROUP_INIT_INO` of linux/proc_ns.h: the inode of the first cgroup namespace.
const CGROUP_INIT_INO: u64 = 0xEFFF_FFFB;

/// The host's by its path is none: from there each mount of cgroup2 gives the host's own one its options, and without
/// `nsdelegate` containers could raise their limits.
fn has_own_cgroup_namespace(plan: &Plan, joined: &[OwnedFd]) -> bool {
    let namespaces = &plan.child.namespaces;
    let is_hosts = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == CGROUP_INIT_INO);
    let mut joined = namespaces.joined.iter().zip(joined).filter(|(one, _)| one.kind == libc::CLONE_NEWCGROUP);
    namespaces.has(libc::CLONE_NEWCGROUP) && !joined.any(|(_, fd)| is_hosts(fd))
}

fn hierarchy(controllers: &str, tree: Option<HostPath>) -> Result<Hierarchy<HostPath>> {
    let string = |text: &str| crate::rootfs::plan::c_string(text.as_bytes(), "cgroup");
    let named = controllers.strip_prefix("name=");
    let each: Vec<&str> = controllers.split(',').collect();
    let links = if each.len() > 1 { each.iter().map(|name| string(name)).collect::<Result<_>>()? } else { Vec::new() };
    let params = match named {
        Some(name) => vec![(string("none")?, None), (string("name")?, Some(string(name)?))],
        None => each.iter().map(|name| Ok((string(name)?, None))).collect::<Result<_>>()?,
    };
    Ok(Hierarchy { name: string(named.unwrap_or(controllers))?, links, tree, params })
}

/// Opens the files for the output of hooks.
pub(crate) fn hook_output(plan: &HookOutput) -> Result<Output> {
    let open = |name: &str, path: Option<&PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(0o600);
        // Not to hang on a FIFO without a reader; a hook may well wait for one that is slow.
        let blocking = |file: OwnedFd| rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map(|()| file);
        rustix::fs::open(path, flags, mode).and_then(blocking).map(Some).map_err(|errno| {
            Error::at(format!("annotations[\"run.oci.hooks.{name}\"]"), format!("open {path:?}")).errno(errno)
        })
    };
    Ok(Output { stdout: open("stdout", plan.stdout.as_ref())?, stderr: open("stderr", plan.stderr.as_ref())? })
}

/// Connects to a socket that the caller listens on. A path too long for `sockaddr_un` is reached through its directory.
pub(crate) fn socket(field: &str, path: &Path) -> Result<OwnedFd> {
    connect_to(path).map_err(|errno| {
        full(path, errno).unwrap_or_else(|| Error::at(field, format!("connect to {path:?}")).errno(errno))
    })
}

fn connect_to(path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // One that nobody accepts from is full at some time.
    if let Some(left) = deadline::left() {
        set_socket_timeout(&socket, Timeout::Send, Some(left.max(Duration::from_millis(1))))?;
    }
    let (directory, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    if path.as_os_str().as_bytes().len() < 108 {
        connect(&socket, &SocketAddrUnix::new(path)?)?;
    } else {
        use std::os::fd::AsRawFd;
        let directory = rustix::fs::openat(CWD, directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        connect(&socket, &SocketAddrUnix::new(&short)?)?;
    }
    Ok(socket)
}

/// Nobody has accepted the connection in time.
fn full(path: &Path, errno: rustix::io::Errno) -> Option<Error> {
    if errno == rustix::io::Errno::AGAIN { deadline::late(format!("{path:?} to accept a connection")) } else { None }
}

/// Connects to the seccomp agent. The words are runc's.
pub(crate) fn agent(plan: &Agent) -> Result<OwnedFd> {
    connect_to(&plan.path).map_err(|errno| {
        if let Some(late) = full(&plan.path, errno) {
            return late;
        }
        let error =
            Error::at(plan.field, format!("failed to connect with seccomp agent at {:?}", plan.path)).errno(errno);
        match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED => {
                error.hint("SCMP_ACT_NOTIFY needs an agent that listens there and answers for the container")
            }
            _ => error,
        }
    })
}
