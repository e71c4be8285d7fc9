//! From clone to exec of criu, and what is put right in a container that it restores. Runs in: child.
//!
//! It has a mount namespace of its own, so that what criu mounts, or leaves when it is killed, is nobody else's. One that
//! restores is in the container's cgroup, where the processes stay that it makes.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};

use super::{die_with_parent, join_cgroup, join_keyring};
use crate::host;
use crate::plan::{ChildPlan, Sysctl};
use crate::rootfs;
use crate::rootfs::plan::{Attrs, RootPath};
use crate::sync::{ChildEnd, Fault, Step};
use crate::sys::{self, CStrings, MountAttr};

/// What the child works with.
pub(crate) struct Criu<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) environment: &'a [CString],
    /// Directories of images and other files, and the numbers under which criu finds them.
    pub(crate) directories: &'a [(CString, BorrowedFd<'a>)],
    /// What is restored; None: nothing is.
    pub(crate) restore: Option<Restore<'a>>,
    /// Whether it ends with us: one that only waits for those who want pages, whose container goes on then.
    pub(crate) ends_with_us: bool,
    /// Files of cgroups to join.
    pub(crate) tasks: &'a [OwnedFd],
    pub(crate) sync: BorrowedFd<'a>,
}

/// Of a restore.
#[derive(Clone, Copy)]
pub(crate) struct Restore<'a> {
    pub(crate) plan: &'a ChildPlan,
    /// A copy of the root file system's mount, and the current directory is the place for it.
    pub(crate) root: BorrowedFd<'a>,
    /// The root of the host's procfs.
    pub(crate) proc: BorrowedFd<'a>,
    /// What criu inherits besides the standard streams, which are the container's.
    pub(crate) inherited: &'a [OwnedFd],
    /// Whether the container shares the caller's session, as criu is told by `--shell-job`.
    pub(crate) shell_job: bool,
}

impl Criu<'_> {
    /// Becomes criu.
    pub(crate) fn run(self) -> ! {
        let Err(fault) = self.steps();
        ChildEnd(self.sync).fault(&fault);
        sys::exit_now(1)
    }

    fn steps(&self) -> Result<Infallible, Fault> {
        let sync = ChildEnd(self.sync);
        join_cgroup(self.tasks, None)?;
        rootfs::keep_mounts_here()?;
        die_with_parent(self.ends_with_us)?;
        match &self.restore {
            Some(restore) => {
                join_keyring(restore.plan, restore.proc, true, false, &sync)?;
                rootfs::attach_here(restore.root)?;
            }
            None => silence()?,
        }
        if !self.restore.is_some_and(|restore| restore.shell_job) {
            // An interrupt that is typed is for the runtime alone: criu would leave a container half frozen.
            rustix::process::setsid().map_err(|errno| Fault::new(Step::Session, errno))?;
        }
        // The parent looks in which cgroup we are when it has the socket.
        let (ours, parents) = socket_pair().map_err(|errno| Fault::new(Step::Protocol, errno))?;
        sync.socket(parents.as_fd())?;
        Err(Fault::new(Step::Exec, self.execute(ours.as_fd())))
    }

    /// Returns only on failure.
    fn execute(&self, socket: BorrowedFd<'_>) -> sys::Errno {
        let prepare = || -> sys::Result<CString> {
            rustix::process::chdir("/")?;
            sys::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
            let inherited = self.restore.map_or(&[][..], |restore| restore.inherited).iter().map(AsFd::as_fd);
            for fd in inherited.chain([socket]) {
                keep(fd)?;
            }
            self.directories.iter().try_for_each(|(path, fd)| open_here(path, *fd))?;
            sys::reset_handlers(u64::MAX)?;
            sys::sigprocmask(SigmaskHow::SIG_SETMASK, &SigSet::empty())?;
            CString::new(socket.as_raw_fd().to_string()).map_err(|_| sys::Errno::INVAL)
        };
        match prepare() {
            Ok(socket) => {
                let argv = [c"criu".to_owned(), c"swrk".to_owned(), socket];
                sys::execve(self.program, &CStrings::new(&argv), &CStrings::new(self.environment))
            }
            Err(errno) => errno,
        }
    }
}

fn keep(fd: BorrowedFd<'_>) -> sys::Result<()> {
    sys::keep_on_exec(u32::try_from(fd.as_raw_fd()).map_err(|_| sys::Errno::BADF)?)
}

/// criu looks for directories among the descriptors of whoever has made its socket, so that is us.
fn socket_pair() -> sys::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Opens a directory in this mount namespace, in the place of the parent's descriptor: criu works in it, and what it mounts
/// must be on a mount of its own namespace. ESTALE: it is another one here.
fn open_here(path: &CStr, fd: BorrowedFd<'_>) -> sys::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())?;
    let (here, there) = (rustix::fs::fstat(&opened)?, rustix::fs::fstat(fd)?);
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) {
        return Err(sys::Errno::STALE);
    }
    sys::dup2(opened.as_fd(), fd)
}

/// Nothing of a dump goes to the caller's streams; its log is a file.
fn silence() -> Result<(), Fault> {
    let silenced = || {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)
    };
    silenced().map_err(|errno| Fault::new(Step::Descriptors, errno))
}

/// What a mount has.
pub(crate) struct Attributes {
    pub(crate) place: RootPath,
    pub(crate) attrs: Attrs,
    /// Those below it, too.
    pub(crate) recursive: bool,
}

/// Brings the loopback device up in the network namespace of `init`, and writes its sysctls: criu leaves a new one as it is
/// born.
pub(crate) fn prepare_network(init: BorrowedFd<'_>, proc: BorrowedFd<'_>, sysctls: &[Sysctl]) -> sys::Result<()> {
    sys::setns(init, libc::CLONE_NEWNET)?;
    sys::loopback_up()?;
    let of_network = sysctls.iter().filter_map(|sysctl| {
        Some((sysctl.file.to_str().ok().filter(|file| file.starts_with("sys/net/"))?, &sysctl.value))
    });
    of_network.into_iter().try_for_each(|(file, value)| host::write_raw(proc, file, value.to_bytes()))
}

/// Gives mounts in the mount namespace of `init` the attributes that they must have: criu may restore a read-only one
/// writable (its issue 2632). What is no mount in the images is none here.
pub(crate) fn set_attributes(init: BorrowedFd<'_>, all: &[Attributes]) -> sys::Result<()> {
    sys::setns(init, libc::CLONE_NEWNS)?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for Attributes { place, attrs, recursive } in all {
        let mount = match rootfs::open_in_root(root.as_fd(), place.as_c_str(), OFlags::PATH) {
            Err(sys::Errno::NOENT) => continue,
            result => result?,
        };
        let stat = rustix::fs::statx(&mount, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
        if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            continue;
        }
        let attr = MountAttr { set: attrs.set, clr: attrs.clr, ..MountAttr::default() };
        let flags = libc::AT_EMPTY_PATH | if *recursive { libc::AT_RECURSIVE } else { 0 };
        sys::mount_setattr(mount.as_fd(), c"", flags, &attr)?;
    }
    Ok(())
}
