//! A container on disk, and the `state` command.
//!
//! Runs in: parent. `<root>/<id>/` holds
//! - `record.json`: written once, before anything is created: what it takes to find and remove all the rest;
//! - `config.json`: the configuration as it was at `create`, from which `exec` knows what its process is to be;
//! - `state.json`: written once, when init is ready: its pid and start time;
//! - `devices.json`: device rules of `update`, which the kernel does not give back (on v2 they are a program);
//! - `exec.fifo`: the gate at which init waits for `start`. Init holds it open, close-on-exec, from before it is ready
//!   until it executes the container's program or dies. So the kernel tells whether a container is created or running:
//!   opening the FIFO for writing succeeds only while init waits (ENXIO afterwards, fifo(7)).
//!
//! The mkdir of the directory is what makes an id unique; flock(2) on it orders concurrent commands.

mod lost;
mod root;
mod store;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::Serialize;

use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::host;
pub(crate) use root::Root;
pub(crate) use store::{Container, FIFO, Record};
use store::{Init, RECORD, STATE};

/// The version of the runtime specification that states comply with.
pub(crate) const OCI_VERSION: &str = "1.3.0";

/// Of the kernel that runs this process, so it is asked once.
fn boot_id(proc: impl AsFd) -> Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if BOOT_ID.get().is_none() {
        let text = host::record(proc, "sys/kernel/random/boot_id")?;
        let _ = BOOT_ID.set(text.trim().to_owned());
    }
    Ok(BOOT_ID.get().map_or("", String::as_str))
}

/// The states of runtime.md (section State), and `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Between the record and a ready init.
    Creating,
    /// Init waits for `start`.
    Created,
    /// The container's program runs.
    Running,
    /// Created or running, and its cgroup is frozen.
    Paused,
    /// Init is dead.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The process that is, or was, pid 1 of the container.
pub(crate) struct InitProcess {
    /// Its pid, in this process' pid namespace.
    pub(crate) pid: Pid,
    /// Its pidfd.
    pub(crate) pidfd: OwnedFd,
}

impl InitProcess {
    /// Whether it was killed, has ended or not: the signal stays pending for the process until that is reaped.
    pub(crate) fn is_killed(&self, proc: impl AsFd) -> bool {
        let status = host::read_raw(proc, &format!("{}/status", self.pid.as_raw_nonzero()));
        let killed = 1 << (libc::SIGKILL - 1);
        status.map_or(true, |status| host::mask(&status, "ShdPnd:").is_some_and(|pending| pending & killed != 0))
    }
}

/// How long the processes of a `create` that was killed may need to end.
const ENDING: Duration = Duration::from_secs(1);

impl Init {
    /// Whether it is, if it is of this boot. The letter is that of its first thread, which others may outlive: they are the same
    /// process, and its pidfd and its parent hear nothing until the last one ends.
    fn is_alive(&self, proc: impl AsFd) -> bool {
        read_stat(proc, self.init_process_pid).is_some_and(|stat| {
            stat.starttime == self.init_process_start && (!matches!(stat.state, 'Z' | 'X') || stat.num_threads > 1)
        })
    }
}

impl Container {
    /// The init process, if it is alive: the same pid, started at the same tick of the same boot.
    pub(crate) fn init_process(&self, proc: impl AsFd, record: &Record, init: &Init) -> Result<Option<InitProcess>> {
        match self.live_process(&proc, init)? {
            Some(process) if record.is_of_this_boot(&proc)? => Ok(Some(process)),
            _ => Ok(None),
        }
    }

    /// The pidfd is taken before the start time is compared, so it can be of no other process.
    fn live_process(&self, proc: impl AsFd, init: &Init) -> Result<Option<InitProcess>> {
        let pid = self.init_pid(init)?;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // EINVAL: there is no such process any more, but a session or a process group of that number. Newer kernels say ESRCH.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            result => {
                result.map_err(|errno| Error::new(format!("pidfd_open {}", init.init_process_pid)).errno(errno))?
            }
        };
        Ok(init.is_alive(proc).then_some(InitProcess { pid, pidfd }))
    }

    /// The init process that the state names, whatever the other files are like: without a record the boot is taken for this one.
    pub(crate) fn named_init(&self, proc: impl AsFd) -> Result<Option<InitProcess>> {
        match (self.record(), self.init()?) {
            (Ok(Some(record)), Some(init)) => self.init_process(proc, record, init),
            (_, Some(init)) => self.live_process(proc, init),
            (_, None) => Ok(None),
        }
    }

    fn init_pid(&self, init: &Init) -> Result<Pid> {
        let pid = Some(init.init_process_pid).filter(|pid| *pid > 1).and_then(Pid::from_raw);
        let damaged = || format!("{} is damaged: pid {}", self.path.join(STATE).display(), init.init_process_pid);
        pid.ok_or_else(|| Error::new(damaged()))
    }

    /// The pid of the init process, if it is alive, for who does nothing to it.
    fn live_pid(&self, proc: impl AsFd, record: &Record, init: &Init) -> Result<Option<Pid>> {
        let pid = self.init_pid(init)?;
        Ok((init.is_alive(&proc) && record.is_of_this_boot(proc)?).then_some(pid))
    }

    /// The status as the kernel tells it.
    pub(crate) fn status(&self, proc: impl AsFd) -> Result<(Status, Option<InitProcess>)> {
        self.status_with(&proc, |record, init| self.init_process(&proc, record, init))
    }

    fn status_with<T>(
        &self,
        proc: impl AsFd,
        find: impl Fn(&Record, &Init) -> Result<Option<T>>,
    ) -> Result<(Status, Option<T>)> {
        let (record, process) = match self.init_with(proc, find)? {
            Ok(found) => found,
            Err(status) => return Ok((status, None)),
        };
        let status = if record.cgroup.is_frozen() {
            Status::Paused
        } else if self.gate()?.is_some() {
            Status::Created
        } else {
            Status::Running
        };
        Ok((status, Some(process)))
    }

    /// The init process, or the status of a container that has none: less to ask the kernel for than the whole status.
    pub(crate) fn init_or_status(&self, proc: impl AsFd) -> Result<std::result::Result<InitProcess, Status>> {
        let found = self.init_with(&proc, |record, init| self.init_process(&proc, record, init))?;
        Ok(found.map(|(_, process)| process))
    }

    fn init_with<T>(
        &self,
        proc: impl AsFd,
        find: impl Fn(&Record, &Init) -> Result<Option<T>>,
    ) -> Result<std::result::Result<(&Record, T), Status>> {
        let (record, init) = match (self.record()?, self.init()?) {
            (Some(record), Some(init)) => (record, init),
            // The record goes first when a container is removed.
            (None, Some(init)) => {
                let alive = init.is_alive(&proc);
                return if alive { Err(self.lost(RECORD, "its init")) } else { Ok(Err(Status::Stopped)) };
            }
            // Without a creator that holds the lock nobody will ever finish it.
            (_, None) if self.is_locked_by_another() => return Ok(Err(Status::Creating)),
            (Some(record), None) => return self.check_dead(&proc, record).map(|()| Err(Status::Stopped)),
            (None, None) => return Ok(Err(Status::Stopped)),
        };
        Ok(find(record, init)?.map_or(Err(Status::Stopped), |process| Ok((record, process))))
    }

    /// Without a state nobody can tell which process is init; that none lives, the cgroup can tell. Those of a `create` that
    /// died are just ending.
    pub(crate) fn check_dead(&self, proc: impl AsFd, record: &Record) -> Result<()> {
        if self.is_over(proc, record)? {
            return Ok(());
        }
        match record.cgroup.wait_until_empty(ENDING) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lost(STATE, &format!("the processes {:?}", record.cgroup.processes()))),
        }
    }

    fn lost(&self, file: &str, whose: &str) -> Error {
        Error::new(format!("{} is missing, and of the container {whose} live", self.path.join(file).display()))
            .hint("`delete --force` kills them and removes the container")
    }

    /// Why nobody will ask for this container any more; None if somebody may. One that lives and has lost its state is an error.
    pub(crate) fn left_over(&self, root: &Root, proc: impl AsFd) -> Result<Option<&'static str>> {
        if self.is_locked_by_another() {
            return Ok(None);
        }
        let marked;
        let record = match (self.record()?, self.init()?) {
            (Some(record), _) if !record.is_of_this_boot(&proc)? => return Ok(Some("a directory of another boot")),
            (_, Some(_)) => return Ok(None),
            (None, None) => {
                marked = root.marked_record(&proc, &self.id)?;
                marked.as_ref()
            }
            (record, None) => record,
        };
        record.map_or(Ok(()), |record| self.check_dead(&proc, record))?;
        Ok(Some("a directory that its create did not finish"))
    }

    /// Whether all its processes are gone, as they are with the init of a pid namespace, or with the boot. Whoever is in its cgroup then is
    /// another's: of a container that was given the same path meanwhile, or of a unit that has the same name.
    pub(crate) fn is_over(&self, proc: impl AsFd, record: &Record) -> Result<bool> {
        if !record.is_of_this_boot(&proc)? {
            return Ok(true);
        }
        let Some(init) = self.init()?.filter(|_| record.own_pid_namespace) else { return Ok(false) };
        Ok(self.init_process(proc, record, init)?.is_none())
    }

    /// The pids of all processes: those of its cgroup. Where it has none, those of its pid namespace, if that is its own.
    pub(crate) fn processes(&self, proc: impl AsFd) -> Result<Vec<i32>> {
        let Some(record) = self.record()? else { return Ok(Vec::new()) };
        if self.is_over(&proc, record)? {
            return Ok(Vec::new());
        }
        if !record.cgroup.is_none() || !record.own_pid_namespace {
            return record.cgroup.needed().map(Cgroup::processes);
        }
        let Some(init) = self.status(&proc)?.1 else { return Ok(Vec::new()) };
        let namespace = |pid: i32| {
            let stat = rustix::fs::statat(&proc, format!("{pid}/ns/pid"), AtFlags::empty()).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let wanted = namespace(init.pid.as_raw_nonzero().get());
        let entries = std::fs::read_dir("/proc").map_err(|error| Error::new("read /proc").errno(error))?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        Ok(pids.filter(|pid| wanted.is_some() && namespace(*pid) == wanted).collect())
    }

    /// The state as `state` and `list` print it.
    pub(crate) fn report(&self, proc: impl AsFd, with_owner: bool) -> Result<Report> {
        let record = self.record()?;
        let (status, pid) = self.status_with(&proc, |record, init| self.live_pid(&proc, record, init))?;
        let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        let record = record.ok_or_else(|| {
            Error::new(format!("container {:?} has no {RECORD}: its create did not finish", self.id))
                .hint("`delete --force` removes it")
        })?;
        let owner = if with_owner { user_name(record.owner) } else { String::new() };
        Ok(Report {
            oci_version: OCI_VERSION,
            id: self.id.clone(),
            pid,
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner,
        })
    }
}

/// The state of a container (runtime.md, section State), with the fields that runc adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    oci_version: &'static str,
    pub(crate) id: String,
    /// 0 when stopped.
    pub(crate) pid: i32,
    pub(crate) status: Status,
    pub(crate) bundle: PathBuf,
    rootfs: PathBuf,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    pub(crate) owner: String,
}

impl Report {
    /// Of a container of which only the cgroup is known: which of its processes is init, nobody can tell.
    pub(crate) fn lost(record: Record) -> Self {
        let status = match record.cgroup.processes().is_empty() {
            true => Status::Stopped,
            false if record.cgroup.is_frozen() => Status::Paused,
            false => Status::Running,
        };
        Self {
            oci_version: OCI_VERSION,
            id: record.id,
            pid: 0,
            status,
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner: user_name(record.owner),
        }
    }
}

fn user_name(uid: u32) -> String {
    // From the file, not by getpwuid: a static binary cannot load the modules of nsswitch.conf.
    static PASSWD: OnceLock<String> = OnceLock::new();
    let passwd = PASSWD.get_or_init(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

fn read_stat(proc: impl AsFd, pid: i32) -> Option<procfs::process::Stat> {
    use procfs::FromRead;
    let text = host::open_raw(proc, &format!("{pid}/stat")).and_then(host::read_record).ok()?;
    procfs::process::Stat::from_read(text.as_bytes()).ok()
}

/// `state ID`: the state as JSON, without a newline at the end, as runc.
pub(crate) fn state(root: &Root, id: &str) -> Result<()> {
    let container = root.find(id)?;
    let report = container.report(host::open_proc()?, false)?;
    let text = serde_json::to_string_pretty(&report).map_err(|error| Error::new(error.to_string()))?;
    crate::logging::print(&text)
}
