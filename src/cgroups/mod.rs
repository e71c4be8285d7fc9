//! Control groups: where they are, and making, filling, emptying and removing the container's.
//!
//! Runs in: parent (the child only writes `0` to descriptors from [`Cgroup::join`]). Touches /sys/fs/cgroup.
//! What to write is decided in [`settings`] and [`devices`], which are pure; [`v1`] and [`v2`] know where files are.

pub(crate) mod devices;
mod files;
mod freezer;
mod join;
mod layout;
mod mark;
pub(crate) mod none;
mod oom;
mod rootless;
pub(crate) mod settings;
mod stats;
mod systemd;
mod update;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::deadline;
use crate::error::{Error, Result};
use files::{
    children, collect_processes, is_frozen, make_dir, open_dir, open_to_write, read_file, read_record, remove_tree,
    wait_for, write_file,
};
pub(crate) use join::Join;
pub(crate) use layout::{Driver, Layout, is_v2};
pub(crate) use oom::{MEMORY_LIMIT, OomWatch};
use settings::Setting;
pub(crate) use stats::Stats;
pub(crate) use systemd::{Holder, Manager, Property, Unit};

/// Where hierarchies are mounted, by the convention that every distribution follows.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Between two looks at what has no event.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Returns the next pause.
fn sleep_longer(pause: Duration) -> Duration {
    std::thread::sleep(pause);
    (pause * 2).min(LONGEST_PAUSE)
}

/// Which kind of hierarchy has the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Version {
    /// One hierarchy for each controller or group of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The container's cgroup: one directory in each hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    pub(crate) version: Version,
    /// By controllers, as in /proc/self/cgroup; the unified hierarchy has the empty name.
    pub(crate) dirs: BTreeMap<String, PathBuf>,
    /// Those of them that were there before the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    existing: Vec<PathBuf>,
    /// What systemd has made it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    /// Hierarchies in which it has none, for want of permission: by controllers, the cgroup of who called `create`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    denied: BTreeMap<String, PathBuf>,
}

impl Cgroup {
    /// The directory of the hierarchy that has `controller`.
    pub(crate) fn dir(&self, controller: &str) -> Option<&Path> {
        if self.version == Version::V2 {
            return self.unified();
        }
        self.dirs
            .iter()
            .find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
            .map(|(_, dir)| dir.as_path())
    }

    /// The directory in the unified hierarchy: the cgroup itself on v2, an empty companion on a hybrid host.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.dirs.get("").map(PathBuf::as_path)
    }

    /// Notes which directories are there before the container: they may be shared with others, and stay after it.
    /// None may be in use.
    pub(crate) fn find_existing(&mut self) -> Result<()> {
        let existing: Vec<PathBuf> = self.dirs.values().filter(|dir| dir.exists()).cloned().collect();
        self.unified().map_or(Ok(()), v2::check_type)?;
        existing.iter().try_for_each(|dir| self.check_unused(dir))?;
        // systemd decides whether a unit can be made. A directory without one is left over, and goes with the container.
        if self.unit.is_none() {
            self.existing = existing;
        }
        Ok(())
    }

    /// Whether the directory, and all below it, is the container's alone.
    fn is_own(&self, dir: &Path) -> bool {
        !self.existing.iter().any(|existing| existing == dir)
    }

    /// Whether this is so in every hierarchy.
    pub(crate) fn is_all_own(&self) -> bool {
        self.existing.is_empty()
    }

    /// Makes the directories that were not there. On an error those that were not made count as existing.
    pub(crate) fn create(&mut self) -> Result<()> {
        let dirs: Vec<PathBuf> = self.dirs.values().filter(|dir| self.is_own(dir)).cloned().collect();
        for (index, dir) in dirs.iter().enumerate() {
            let made =
                make_dir(dir).and_then(|made| if made || self.unit.is_some() { Ok(()) } else { Err(Errno::EXIST) });
            if let Err(errno) = made {
                self.existing.extend(dirs.get(index..).unwrap_or_default().iter().cloned());
                return Err(self.refused("create", dir, errno));
            }
        }
        for (controllers, dir) in &self.dirs {
            match self.version {
                Version::V1 if controllers.split(',').any(|name| name == "cpuset") => {
                    v1::inherit_cpuset(dir, self.is_own(dir) && self.unit.is_none())?
                }
                Version::V1 => {}
                Version::V2 => v2::enable_controllers(dir),
            }
        }
        Ok(())
    }

    fn refused(&self, what: &str, dir: &Path, errno: Errno) -> Error {
        Error::at("linux.cgroupsPath", format!("{what} {}", dir.display())).errno(errno)
    }

    /// A cgroup that is in use cannot be limited, killed and removed as if it were this container's alone.
    fn check_unused(&self, dir: &Path) -> Result<()> {
        let mut processes = Vec::new();
        collect_processes(dir, true, &mut processes);
        if !processes.is_empty() {
            let count = processes.len();
            let text = format!("container's cgroup is not empty: {count} process(es) found in {}", dir.display());
            return Err(Error::at("linux.cgroupsPath", text));
        }
        if is_frozen(dir, self.version) {
            let text = format!("container's cgroup unexpectedly frozen: {}", dir.display());
            return Err(Error::at("linux.cgroupsPath", text));
        }
        Ok(())
    }

    /// Writes the limits, in order. What the kernel refuses for the sake of a value that is still to come (`retry`) is
    /// written once more at the end.
    pub(crate) fn apply(&self, settings: &[Setting]) -> Result<()> {
        let mut again = Vec::new();
        for setting in settings {
            match self.apply_one(setting) {
                Err(error) if setting.retry && error.raw_errno() == Some(libc::EINVAL) => again.push(setting),
                result => result?,
            }
        }
        again.into_iter().try_for_each(|setting| self.apply_one(setting))
    }

    fn apply_one(&self, setting: &Setting) -> Result<()> {
        let Some(dir) = self.dir(setting.controller.as_ref()) else {
            if setting.optional {
                return Ok(());
            }
            if self.is_denied(&setting.controller) {
                return Err(rootless::refusal(&setting.field, "", Path::new(&*setting.controller)));
            }
            if self.is_none() {
                return Err(none::refuse(setting));
            }
            let text = format!(
                "write {}: cgroup controller {:?} is not mounted on this host",
                setting.file, setting.controller
            );
            return Err(Error::at(setting.field.clone(), text));
        };
        let (file, value) = (setting.file.as_ref(), setting.value.as_str());
        let written = match (write_file(dir, file, value.as_bytes()), &setting.or) {
            (Err(Errno::NOENT), Some((file, value))) => write_file(dir, file, value.as_bytes()),
            (result, _) => result,
        };
        match written {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) if setting.optional => Ok(()),
            Err(errno) => {
                let what = format!("write {:?} to {}", value.trim_end(), dir.join(file).display());
                let error = Error::at(setting.field.clone(), what).errno(errno);
                Err(match errno {
                    Errno::NOENT => error.hint(v2::why_missing(dir, &setting.controller)),
                    _ => error,
                })
            }
        }
    }

    /// Installs the device rules: lists on v1, an eBPF program on v2.
    pub(crate) fn apply_devices(&self, rules: &[devices::Rule]) -> Result<()> {
        match self.version {
            _ if self.is_none() => Ok(()),
            Version::V1 => v1::apply_devices(self, rules),
            Version::V2 => v2::apply_devices(self, rules),
        }
    }

    /// Gives the container's user, who is `id` by this `uid_map`, the files by which cgroups are made below it. A cgroup
    /// that stays after the container keeps its owner, and so does one whose user is none of the host's.
    pub(crate) fn delegate(&self, uid_map: &str, id: u32) -> Result<()> {
        let uid = v2::outer_id(uid_map, id).map(rustix::fs::Uid::from_raw);
        match (self.own_unified(), uid.filter(|uid| *uid != rustix::process::geteuid())) {
            (Some(dir), Some(uid)) => v2::delegate(dir, uid),
            _ => Ok(()),
        }
    }

    /// Whether the processes are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.dir("freezer").is_some_and(|dir| is_frozen(dir, self.version))
    }

    /// Whether a process that was killed may be frozen, or the cgroup would stay frozen when all are dead. On v1 the container may
    /// have frozen cgroups that it has made below its own.
    pub(crate) fn may_hold_frozen(&self) -> bool {
        self.is_frozen() || self.freezer_with_children().is_some()
    }

    /// That of v1, if it is the container's alone, and there are cgroups below it.
    fn freezer_with_children(&self) -> Option<&Path> {
        let own = self.dir("freezer").filter(|dir| self.version == Version::V1 && self.is_own(dir));
        own.filter(|dir| !children(dir).is_empty())
    }

    /// As [`Self::kill`], for an init that was killed already and may be frozen, in a cgroup that no path is long enough for.
    pub(crate) fn kill_with(&self, init: Pid, pidfd: impl AsFd) -> Result<()> {
        let killed = self.kill();
        // Until it has ended the pid is its own.
        let ended = || rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec::default()));
        if let Some(dir) = self.freezer_with_children()
            && ended() == Ok(0)
        {
            v1::lift(dir, &[init.as_raw_nonzero().get()]);
        }
        killed
    }

    /// Kills every process of the cgroup, frozen or not; those below it too, where it is the container's alone. Does not
    /// wait.
    pub(crate) fn kill(&self) -> Result<()> {
        match self.unified() {
            // Not where the directory stays: since Linux 6.18 that would kill whoever is cloned into it later.
            Some(dir) if self.is_own(dir) => match write_file(dir, "cgroup.kill", b"1") {
                Ok(()) if self.version == Version::V2 => return Ok(()),
                // Gone, or just going: ENODEV is the answer of a file that was opened before.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(self.refused("kill", dir, errno)),
            },
            _ => {}
        }
        match self.version {
            Version::V1 => v1::kill(self),
            // A frozen process of v2 dies as it is; but the cgroup that stays would be frozen for whoever comes next.
            Version::V2 if self.is_frozen() => self.kill_each().and_then(|()| self.thaw()),
            Version::V2 => self.kill_each(),
        }
    }

    fn kill_each(&self) -> Result<()> {
        let mut failure = None;
        for pid in self.processes() {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { continue };
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => failure = Some(Error::new(format!("kill process {pid:?}")).errno(errno)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Kills every process, and waits until there is none, at most until `patience` is over.
    pub(crate) fn empty(&self, patience: Duration) -> Result<()> {
        let end = deadline::until(patience);
        let mut pause = Duration::from_millis(1);
        while !self.processes().is_empty() {
            if Instant::now() >= end {
                // That it cannot be removed then says more.
                return deadline::check(end, format!("the processes {:?} to end, which were killed", self.processes()));
            }
            self.kill()?;
            match self.own_unified().map(|dir| wait_for(dir, "populated 0", Instant::now() + LONGEST_PAUSE)) {
                // Somebody was born after the kill.
                Some(Ok(false)) => {}
                Some(Ok(true)) if self.processes().is_empty() => {}
                // v1 has no event to wait for, so this polls, with growing pauses.
                _ => pause = sleep_longer(pause),
            }
        }
        Ok(())
    }

    /// Waits until there is no process, and kills none. That there are some is an error, and changes nothing.
    pub(crate) fn wait_until_empty(&self, patience: Duration) -> Result<()> {
        let end = deadline::until(patience);
        let mut pause = Duration::from_millis(1);
        loop {
            let pids = self.processes();
            let Some(dir) = self.dirs.values().next().filter(|_| !pids.is_empty()) else { return Ok(()) };
            if Instant::now() >= end {
                deadline::check(end, format!("the processes {pids:?} to end"))?;
                let text = format!("container's cgroup is not empty: {pids:?} in {}", dir.display());
                return Err(Error::new(text).hint("they are not the container's: another one may have the same cgroup"));
            }
            match self.own_unified().map(|dir| wait_for(dir, "populated 0", end)) {
                Some(Ok(true)) => {}
                _ => pause = sleep_longer(pause),
            }
        }
    }

    /// Where the kernel tells that the container's last process is gone.
    fn own_unified(&self) -> Option<&Path> {
        self.unified().filter(|dir| self.is_own(dir))
    }

    /// The pids of all processes of the cgroup, as this process sees them; those below it too, where it is the
    /// container's alone.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let dir = match self.version {
            Version::V2 => self.unified(),
            Version::V1 => self
                .dir("pids")
                .or_else(|| self.dir("memory"))
                .or_else(|| self.dirs.values().next().map(PathBuf::as_path)),
        };
        let mut pids = Vec::new();
        if let Some(dir) = dir {
            collect_processes(dir, self.is_own(dir), &mut pids);
        }
        pids
    }

    /// Those of all its directories: whoever is only joining is not in each of them yet.
    pub(crate) fn members(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        self.dirs.values().for_each(|dir| collect_processes(dir, self.is_own(dir), &mut pids));
        pids
    }

    /// Removes the directories, those that the container made below them first. Those that were there
    /// before it are left, without its device rules.
    ///
    /// A process that was just killed may still be on its way out: the removal is tried again until `patience` is over.
    pub(crate) fn remove(&self, patience: Duration) -> Result<()> {
        self.remove_directories(patience)?;
        if self.version == Version::V2 && !self.is_all_own() {
            v2::detach_devices(self)?;
        }
        // Without processes it ends by itself: this waits until it has, and takes away a failure that it would leave.
        self.unit.as_ref().map_or(Ok(()), Unit::stop)
    }

    /// As [`Self::remove`], and asks nobody else.
    pub(crate) fn remove_directories(&self, patience: Duration) -> Result<()> {
        let end = deadline::until(patience);
        let mut unified = self.own_unified();
        for dir in self.dirs.values().filter(|dir| self.is_own(dir)) {
            let mut pause = Duration::from_millis(1);
            loop {
                match remove_tree(dir) {
                    Ok(()) => break,
                    // EBUSY is all that v1 tells: it has no event to wait for, so this polls, with growing pauses.
                    Err(Errno::BUSY) if Instant::now() < end => {
                        let heard = unified.take().map(|dir| wait_for(dir, "populated 0", end));
                        if heard != Some(Ok(true)) {
                            pause = sleep_longer(pause);
                        }
                    }
                    Err(errno) => {
                        deadline::check(end, format!("cgroup {} to be empty", dir.display()))?;
                        return Err(self.removal_failed(dir, errno));
                    }
                }
            }
        }
        Ok(())
    }

    fn removal_failed(&self, dir: &Path, errno: Errno) -> Error {
        let pids = self.processes();
        let error = Error::new(format!("remove cgroup {}", dir.display())).errno(errno);
        if pids.is_empty() { error } else { error.hint(format!("these processes are still in it: {pids:?}")) }
    }
}
