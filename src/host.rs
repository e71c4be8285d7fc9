//! What this host has: asked once, before anything is made.
//!
//! Runs in: parent. Reads `/proc` and looks at `/sys/fs/cgroup`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::cgroups;
use crate::error::{Error, Result};
use crate::plan::rdt::mount_point;
use crate::plan::{Caller, Lsm};

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// `PROC_ROOT_INO`: the inode of the root of every procfs.
const PROC_ROOT_INO: u64 = 1;

/// The facts that decisions depend on.
pub(crate) struct Host {
    /// The root of the host's procfs. Every use of /proc goes through it, also in the child, where the path `/proc`
    /// belongs to the container.
    pub(crate) proc: OwnedFd,
    /// The cgroup hierarchies.
    pub(crate) cgroups: cgroups::Layout,
    /// The highest capability that the kernel knows.
    pub(crate) last_cap: u8,
    /// The capabilities that this process has.
    pub(crate) permitted: u64,
    /// Who runs this program.
    pub(crate) caller: Caller,
}

/// Looks at the host.
pub(crate) fn look() -> Result<Host> {
    let proc = open_proc()?;
    let last_cap = record(&proc, "sys/kernel/cap_last_cap")?
        .trim()
        .parse()
        .map_err(|_| Error::new("/proc/sys/kernel/cap_last_cap is not a number"))?;
    let cgroups = cgroups::Layout::detect(&record(&proc, "self/cgroup")?)?;
    let permitted =
        rustix::thread::capabilities(None).map_err(|errno| Error::new("capget").errno(errno))?.permitted.bits();
    let caller = Caller {
        euid: rustix::process::geteuid().as_raw(),
        egid: rustix::process::getegid().as_raw(),
        in_user_namespace: in_user_namespace(&proc)?,
    };
    Ok(Host { proc, cgroups, last_cap, permitted, caller })
}

/// Whether this is not the initial user namespace, which has every id.
pub(crate) fn in_user_namespace(proc: impl AsFd) -> Result<bool> {
    Ok(!record(proc, "self/uid_map")?.split_whitespace().eq(["0", "0", "4294967295"]))
}

impl Host {
    /// Which of the wanted security modules this kernel has. Asked of procfs, because securityfs and selinuxfs need not be
    /// mounted where the runtime runs, for example in a container.
    pub(crate) fn lsm(&self, wanted: Lsm) -> Result<Lsm> {
        Ok(Lsm { apparmor: wanted.apparmor && self.has_apparmor()?, selinux: wanted.selinux && self.has_selinux()? })
    }

    fn has_apparmor(&self) -> Result<bool> {
        let file = "self/attr/apparmor/current";
        match read_raw(&self.proc, file) {
            Ok(_) => Ok(true),
            // Not compiled in; not enabled at boot.
            Err(Errno::NOENT | Errno::INVAL) => Ok(false),
            Err(errno) => Err(Error::new(format!("read /proc/{file}")).errno(errno)),
        }
    }

    /// The file system type is registered only when SELinux was enabled at boot. Until a policy is loaded there are no
    /// contexts, only names such as `kernel`.
    fn has_selinux(&self) -> Result<bool> {
        let enabled = read(&self.proc, "filesystems")?.lines().any(|line| line.ends_with("\tselinuxfs"));
        Ok(enabled && read(&self.proc, "self/attr/current")?.contains(':'))
    }

    /// Where resctrl is mounted.
    pub(crate) fn resctrl(&self) -> Result<Option<PathBuf>> {
        read(&self.proc, "self/mountinfo").map(|text| mount_point(&text))
    }
}

/// Opens `/proc` and makes sure that it is a procfs, and its root.
pub(crate) fn open_proc() -> Result<OwnedFd> {
    let what = || Error::new("open /proc");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(|errno| what().errno(errno))?;
    let magic = rustix::fs::fstatfs(&proc).map_err(|errno| what().errno(errno))?.f_type;
    let inode = rustix::fs::fstat(&proc).map_err(|errno| what().errno(errno))?.st_ino;
    if magic != PROC_SUPER_MAGIC || inode != PROC_ROOT_INO {
        return Err(Error::new("/proc is not the root of a procfs").hint("mount -t proc proc /proc"));
    }
    Ok(proc)
}

/// How many mounts are at this path, one upon another.
pub(crate) fn mounts_at(proc: impl AsFd, path: &Path) -> Result<usize> {
    // proc_pid_mountinfo(5): the fifth field, with white space and backslashes in octal.
    let escape = |c: char| match c {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
        c => c.to_string(),
    };
    let wanted: String = path.to_string_lossy().chars().map(escape).collect();
    let mountinfo = read(proc, "self/mountinfo")?;
    Ok(mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some(&wanted)).count())
}

/// Reads a small file below /proc without leaving that procfs: a file bound over one of its files is an error.
pub(crate) fn read(proc: impl AsFd, path: &str) -> Result<String> {
    read_raw(proc, path).map_err(|errno| Error::new(format!("read /proc/{path}")).errno(errno))
}

/// As [`read`], of a file that the kernel writes as one record: one line, or all at once (`single_open`). There a read that
/// does not fill the buffer was the last, and none is needed to see the end.
pub(crate) fn record(proc: impl AsFd, path: &str) -> Result<String> {
    let text = open_raw(proc, path).and_then(read_record);
    text.map_err(|errno| Error::new(format!("read /proc/{path}")).errno(errno))
}

/// As [`read`], with the errno.
pub(crate) fn read_raw(proc: impl AsFd, path: &str) -> rustix::io::Result<String> {
    read_all(open_raw(proc, path)?)
}

/// Opens a file below /proc for reading, without leaving that procfs.
pub(crate) fn open_raw(proc: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens what an `O_PATH` descriptor refers to, when it is known what that is. A path that is looked up again may lead
/// elsewhere by then, and to open a device has effects.
pub(crate) fn reopen(proc: impl AsFd, fd: impl AsFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    // A magic link, which is the point.
    let link = format!("self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::openat2(proc, link, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
}

const CHUNK: usize = 4096;

/// Reads an open file to its end.
pub(crate) fn read_all(fd: OwnedFd) -> rustix::io::Result<String> {
    read_until(&fd, |count| count == 0).map(lossy)
}

/// Reads an open file of one record, as [`record`].
pub(crate) fn read_record(fd: OwnedFd) -> rustix::io::Result<String> {
    read_file(fd).map(lossy)
}

/// Reads an open file of one record, or a regular one, of which read(2) also gives as much as there is.
pub(crate) fn read_file(fd: OwnedFd) -> rustix::io::Result<Vec<u8>> {
    read_until(&fd, |count| count < CHUNK)
}

fn read_until(fd: &OwnedFd, is_end: impl Fn(usize) -> bool) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; CHUNK];
    loop {
        let count = rustix::io::read(fd, &mut chunk)?;
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if is_end(count) {
            return Ok(bytes);
        }
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The value of a line of /proc/PID/status.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The same of signals, or capabilities.
pub(crate) fn mask(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(field(status, name)?, 16).ok()
}

/// Writes a file below /proc in one write, without leaving that procfs.
pub(crate) fn write_raw(proc: impl AsFd, path: &str, value: &[u8]) -> rustix::io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let fd = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&fd, value).map(drop)
}
