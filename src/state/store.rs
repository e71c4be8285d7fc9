//! A container's directory: its lock, its files. Runs in: parent.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hooks, LinuxDeviceCgroup};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::{boot_id, read_stat};
use crate::cgroups::Cgroup;
use crate::deadline;
use crate::error::{Error, Result};
use crate::host;
use crate::rdt;

/// The version of the files below the root directory.
pub(super) const FORMAT: u32 = 1;
pub(super) const RECORD: &str = "record.json";
pub(super) const STATE: &str = "state.json";
/// The container's configuration as it was at `create`, for `exec`.
const CONFIG: &str = "config.json";
/// Device rules that have come after `create`.
const DEVICES: &str = "devices.json";
/// Where criu finds the root file system, in a mount namespace of its own.
const CRIU_ROOT: &str = "criu-root";
/// The gate between `create` and `start`.
pub(crate) const FIFO: &str = "exec.fifo";

/// What is known before anything is created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(super) format: u32,
    pub(crate) id: String,
    pub(super) boot_id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(super) owner: u32,
    pub(crate) cgroup: Cgroup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<rdt::Groups>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Hooks>,
    /// False: config.json has no `process`, and `start` is an error.
    pub(crate) has_process: bool,
    /// Without a mount namespace of its own: how many mounts were on the root file system's directory before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mounts_below: Option<usize>,
    /// Whether the container has a session keyring of its own.
    pub(crate) new_keyring: bool,
    /// Whether the container has a pid namespace of its own, with which all its processes die.
    pub(crate) own_pid_namespace: bool,
}

impl Record {
    /// Of another one nothing is left but what was on a disk.
    pub(crate) fn is_of_this_boot(&self, proc: impl AsFd) -> Result<bool> {
        Ok(self.boot_id == boot_id(proc)?)
    }

    /// A record for this boot, this moment and this user.
    pub(crate) fn new(id: &str, proc: impl AsFd, cgroup: Cgroup) -> Result<Self> {
        Ok(Self {
            format: FORMAT,
            id: id.to_owned(),
            boot_id: boot_id(proc)?.to_owned(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
            owner: rustix::process::geteuid().as_raw(),
            cgroup,
            rdt: None,
            annotations: BTreeMap::new(),
            hooks: None,
            has_process: true,
            mounts_below: None,
            new_keyring: false,
            own_pid_namespace: false,
        })
    }
}

/// What is known when init is ready. The keys are those that other programs read from runc's file of the same name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Init {
    id: String,
    pub(super) init_process_pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot: with the pid it names one process for ever.
    pub(super) init_process_start: u64,
    /// What its standard streams were when it was new, as the links of `/proc/<pid>/fd` say, for `checkpoint`.
    #[serde(default)]
    pub(crate) external_descriptors: Vec<String>,
}

/// One container's directory.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(super) path: PathBuf,
    dir: OwnedFd,
    /// Whether this is who holds the lock.
    locked: Cell<bool>,
    /// The files that are written once, when they have been read.
    record: OnceCell<Record>,
    init: OnceCell<Init>,
}

/// How long a command waits for another one on the same container.
const PATIENCE: Duration = Duration::from_secs(10);

impl AsFd for Container {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Container {
    pub(super) fn open(id: &str, path: PathBuf) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let failed = |errno| match errno {
            Errno::NOENT => Error::missing_container(id),
            errno => Error::new(format!("open {}", path.display())).errno(errno),
        };
        let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?;
        // Where everybody may write, it can be anybody's: hooks and cgroups that it names are not to be believed.
        let owner = rustix::fs::fstat(&dir).map_err(failed)?.st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            return Err(Error::at("--root", format!("{} belongs to the user {owner}", path.display()))
                .hint("only the user who has created a container can work with it"));
        }
        let (record, init) = (OnceCell::new(), OnceCell::new());
        Ok(Self { id: id.to_owned(), path, dir, locked: Cell::new(false), record, init })
    }

    /// Waits until no other command changes this container. The lock ends with this value.
    pub(crate) fn lock(&self) -> Result<()> {
        self.flock(FlockOperation::NonBlockingLockExclusive)
    }

    /// Waits until no other command changes this container, and keeps those that would from doing so.
    pub(crate) fn lock_shared(&self) -> Result<()> {
        self.flock(FlockOperation::NonBlockingLockShared)
    }

    fn flock(&self, operation: FlockOperation) -> Result<()> {
        let end = deadline::until(PATIENCE);
        let mut pause = Duration::from_millis(1);
        loop {
            match rustix::fs::flock(&self.dir, operation) {
                Ok(()) => break,
                // flock(2) knows no deadline, so this polls, with growing pauses.
                Err(Errno::WOULDBLOCK) if Instant::now() < end => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    deadline::check(end, format!("another command that works on container {:?}", self.id))?;
                    let error = Error::new(format!("lock {}", self.path.display())).errno(errno);
                    return Err(match errno {
                        Errno::WOULDBLOCK => {
                            error.hint("another command works on this container, or waits for one of its hooks")
                        }
                        _ => error,
                    });
                }
            }
        }
        self.locked.set(true);
        // Whoever had the lock may have deleted the container.
        let stat = rustix::fs::fstat(&self.dir).map_err(|errno| Error::new("fstat").errno(errno))?;
        if stat.st_nlink == 0 { Err(Error::missing_container(&self.id)) } else { Ok(()) }
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_lock(&self) -> bool {
        self.locked.set(rustix::fs::flock(&self.dir, FlockOperation::NonBlockingLockExclusive).is_ok());
        self.locked.get()
    }

    /// Whether this process has the directory open, and with it perhaps the lock of the command that has cloned it. Only links are
    /// read: what else it has open may be a file system of its own, that never answers.
    pub(crate) fn is_open_in(&self, pid: i32) -> bool {
        let Ok(own) = std::fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd())) else { return false };
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|link| link == own)
    }

    /// Lets other commands in again, for `run`, which lives as long as its container.
    pub(crate) fn unlock(&self) {
        // Unlocking a lock that is held cannot fail (flock(2)).
        let _ = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
        self.locked.set(false);
    }

    /// Whether another command holds the lock: `create`, while there is no state yet. Asked of a descriptor of its own,
    /// since a lock belongs to whoever opened it.
    pub(super) fn is_locked_by_another(&self) -> bool {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let probe = rustix::fs::openat(&self.dir, ".", flags, Mode::empty());
        let taken = |dir| rustix::fs::flock(dir, FlockOperation::NonBlockingLockShared).is_err();
        !self.locked.get() && probe.is_ok_and(taken)
    }

    /// Writes the record: temporary file, fsync, rename.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        self.write(RECORD, record)?;
        let _ = self.record.set(record.clone());
        Ok(())
    }

    /// Writes the state: from here on the container is created. `streams` has the container's standard streams.
    pub(crate) fn write_init(&self, proc: impl AsFd, pid: Pid, streams: Pid) -> Result<()> {
        let pid_number = pid.as_raw_nonzero().get();
        let stat = read_stat(&proc, pid_number)
            .ok_or_else(|| Error::new(format!("read /proc/{pid_number}/stat")).errno(Errno::SRCH))?;
        // Closed, or a user's, who may not look: nothing that could be given to a restored one.
        let stream = |fd| rustix::fs::readlinkat(&proc, format!("{}/fd/{fd}", streams.as_raw_nonzero()), Vec::new());
        let external_descriptors =
            (0..3).map(|fd| stream(fd).map_or(String::new(), |link| link.to_string_lossy().into_owned())).collect();
        let (id, init_process_start) = (self.id.clone(), stat.starttime);
        let init = Init { id, init_process_pid: pid_number, init_process_start, external_descriptors };
        self.write(STATE, &init)?;
        let _ = self.init.set(init);
        Ok(())
    }

    /// Writes the device rules that have come after `create`.
    pub(crate) fn write_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        self.write(DEVICES, &rules)
    }

    /// The device rules that have come after `create`.
    pub(crate) fn devices(&self) -> Result<Vec<LinuxDeviceCgroup>> {
        Ok(self.read(DEVICES)?.unwrap_or_default())
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).map_err(|error| Error::new(format!("{name}: {error}")))?;
        self.write_bytes(name, &text)
    }

    /// Keeps the text of config.json.
    pub(crate) fn write_config(&self, text: &[u8]) -> Result<()> {
        self.write_bytes(CONFIG, text)
    }

    /// The text of config.json.
    pub(crate) fn config(&self) -> Result<Vec<u8>> {
        let file = self.open_file(CONFIG, OFlags::RDONLY, Mode::empty())?;
        host::read_file(file)
            .map_err(|errno| Error::new(format!("read {}", self.path.join(CONFIG).display())).errno(errno))
    }

    fn write_bytes(&self, name: &str, text: &[u8]) -> Result<()> {
        let failed =
            |error: std::io::Error| Error::new(format!("write {}", self.path.join(name).display())).errno(error);
        let temporary = format!(".{name}.tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd =
            rustix::fs::openat(&self.dir, temporary.as_str(), flags, mode).map_err(|errno| failed(errno.into()))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)?;
        rustix::fs::renameat(&self.dir, temporary.as_str(), &self.dir, name).map_err(|errno| failed(errno.into()))
    }

    /// The record; None if `create` died before it was written.
    pub(crate) fn record(&self) -> Result<Option<&Record>> {
        let record = self.once(RECORD, &self.record)?;
        match record {
            Some(record) if record.format != FORMAT => {
                let what = format!("{} has format {}", self.path.join(RECORD).display(), record.format);
                Err(Error::new(what).hint("it is of another version of this program"))
            }
            _ => Ok(record),
        }
    }

    /// The state; None until init is ready.
    pub(crate) fn init(&self) -> Result<Option<&Init>> {
        self.once(STATE, &self.init)
    }

    fn once<'a, T: for<'de> Deserialize<'de>>(&self, name: &str, cell: &'a OnceCell<T>) -> Result<Option<&'a T>> {
        if cell.get().is_none()
            && let Some(value) = self.read(name)?
        {
            return Ok(Some(cell.get_or_init(|| value)));
        }
        Ok(cell.get())
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>> {
        let path = || self.path.join(name).display().to_string();
        let fd = match rustix::fs::openat(
            &self.dir,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(|errno| Error::new(format!("open {}", path())).errno(errno))?,
        };
        let text = host::read_file(fd).map_err(|errno| Error::new(format!("read {}", path())).errno(errno))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::new(format!("{} is damaged: {error}", path())).hint("`delete --force` removes the container")
        })
    }

    /// The writing end of `exec.fifo`, if init waits there.
    pub(crate) fn gate(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.dir, FIFO, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NXIO | Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::new(format!("open {}", self.path.join(FIFO).display())).errno(errno)),
        }
    }

    /// Opens a file of the directory.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        rustix::fs::openat(&self.dir, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode)
            .map_err(|errno| Error::new(format!("open {}", self.path.join(name).display())).errno(errno))
    }

    /// Makes the directory on which criu finds the root file system, and returns its path.
    pub(crate) fn make_criu_root(&self) -> Result<PathBuf> {
        let path = self.path.join(CRIU_ROOT);
        let made = rustix::fs::mkdirat(&self.dir, CRIU_ROOT, Mode::RWXU);
        made.map_err(|errno| Error::new(format!("create {}", path.display())).errno(errno))?;
        std::fs::canonicalize(&path).map_err(|error| Error::new(format!("resolve {}", path.display())).errno(error))
    }

    /// Removes it, and with it what criu's mount namespace has there.
    pub(crate) fn remove_criu_root(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, CRIU_ROOT, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::new(format!("remove {}", self.path.join(CRIU_ROOT).display())).errno(errno)),
        }
    }

    /// Makes `exec.fifo` and opens it for init: for reading and writing, so that it never sees the end of file.
    pub(crate) fn make_gate(&self) -> Result<OwnedFd> {
        let failed = |errno: Errno| Error::new(format!("create {}", self.path.join(FIFO).display())).errno(errno);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(&self.dir, FIFO, rustix::fs::FileType::Fifo, mode, 0).map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.dir, FIFO, flags, Mode::empty()).map_err(failed)
    }

    /// Removes the directory.
    pub(crate) fn remove(&self) -> Result<()> {
        let failed = |errno: Errno| Error::new(format!("remove {}", self.path.display())).errno(errno);
        let unlink = |name: &CStr| match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            result => result,
        };
        self.remove_criu_root()?;
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut entries = RawDir::new(&self.dir, &mut buffer);
        let mut last = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            match name.to_str() {
                // A directory is none of ours, and goes with what is left.
                _ if entry.file_type() == FileType::Directory => {}
                Ok(RECORD | STATE) => last.push(name.to_owned()),
                _ => unlink(name).map_err(failed)?,
            }
        }
        // The record before the state.
        last.sort();
        last.iter().try_for_each(|name| unlink(name)).map_err(failed)?;
        // By now the path could be another container's, if somebody has removed ours by hand.
        let (own, other) = (rustix::fs::fstat(&self.dir), rustix::fs::lstat(&self.path));
        if let (Ok(own), Ok(other)) = (own, other)
            && (own.st_dev, own.st_ino) != (other.st_dev, other.st_ino)
        {
            return Ok(());
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Something that is not ours: the id must become free all the same.
            Err(Errno::NOTEMPTY | Errno::EXIST) => std::fs::remove_dir_all(&self.path)
                .map_err(|error| Error::new(format!("remove {}", self.path.display())).errno(error)),
            Err(errno) => Err(failed(errno)),
        }
    }
}
