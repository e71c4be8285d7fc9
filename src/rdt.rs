//! `linux.intelRdt`: the container's groups of resctrl. Runs in: parent. Touches the directory of the mount.
//!
//! A class of service (a directory of the mount) has `schemata` and `tasks`; a monitoring group (a directory of the class'
//! `mon_groups`) has `tasks`. Processes are in the groups of their parent, so init is put there, and what `exec` starts. mkdir and rmdir of
//! a group are all that there is to it: its files come and go by themselves.

mod stats;

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::rdt::{RdtPlan, SchemaLine, differs, way_back};
pub(crate) use stats::Stats;

/// The groups of a container, for the record: written before they are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// Where resctrl is mounted.
    root: PathBuf,
    class: PathBuf,
    /// The class was not there: `create` makes it, and removes it again when it fails.
    makes_class: bool,
    /// The class goes with the container.
    owns_class: bool,
    /// Always the container's own.
    monitoring: Option<PathBuf>,
}

impl Groups {
    /// Looks whether what the plan says can be done. Makes nothing.
    pub(crate) fn look(root: Option<&Path>, plan: &RdtPlan) -> Result<Self> {
        let root = root.ok_or_else(|| {
            Error::at("linux.intelRdt", "no resctrl file system is mounted")
                .hint("mount -t resctrl resctrl /sys/fs/resctrl")
        })?;
        let class = if plan.class.is_empty() { root.to_owned() } else { root.join(&plan.class) };
        let there = exists(&class)?;
        if there && plan.named {
            compare(&class, plan)?;
        }
        if !there && plan.named && plan.lines.is_empty() {
            let text = format!("there is no class of service {:?}, and no schema to make it with", class);
            return Err(Error::at("linux.intelRdt.closID", text)
                .hint("make it first, or give l3CacheSchema, memBwSchema or schemata"));
        }
        let monitoring = plan.monitoring.as_ref().map(|id| class.join("mon_groups").join(id));
        if let Some(group) = &monitoring
            && exists(group)?
        {
            let text = format!("the monitoring group {group:?} is there already");
            return Err(Error::at("linux.intelRdt.enableMonitoring", text));
        }
        Ok(Self { root: root.to_owned(), class, makes_class: !there, owns_class: !there && !plan.named, monitoring })
    }

    /// Makes the class, where it is not there.
    pub(crate) fn make_class(&self) -> Result<()> {
        if !self.makes_class {
            return Ok(());
        }
        self.make("linux.intelRdt.closID", &self.class)
    }

    /// Makes the monitoring group.
    pub(crate) fn make_monitoring(&self) -> Result<()> {
        self.monitoring.as_ref().map_or(Ok(()), |group| self.make("linux.intelRdt.enableMonitoring", group))
    }

    fn make(&self, field: &str, group: &Path) -> Result<()> {
        rustix::fs::mkdir(group, Mode::from_raw_mode(0o755)).map_err(|errno| {
            let error = self.failed(field, format!("create {group:?}"), errno);
            if errno == Errno::NOSPC {
                error.hint("the processor has no more of them; remove one that is not used")
            } else {
                error
            }
        })
    }

    /// Writes the schemata: a line at a time, since the kernel takes a resource only once in one write, and so that the
    /// line that it refuses is known.
    pub(crate) fn write_schemata(&self, lines: &[SchemaLine]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.class.join("schemata");
        let open = std::fs::File::options().write(true).open(&path);
        let mut file = open.map_err(|error| Error::at("linux.intelRdt", format!("open {path:?}")).errno(error))?;
        for line in lines {
            let what = || format!("write {:?} to {path:?}", line.line);
            file.write_all(format!("{}\n", line.line).as_bytes())
                .map_err(|error| self.failed(&line.field, what(), Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        }
        Ok(())
    }

    /// Writes other schemata, and does `then` what belongs to them. On an error of either, all get their old values back.
    pub(crate) fn update(&self, lines: &[SchemaLine], then: impl FnOnce() -> Result<()>) -> Result<()> {
        let path = self.class.join("schemata");
        let before = std::fs::read_to_string(&path)
            .map_err(|error| Error::at("linux.intelRdt", format!("read {path:?}")).errno(error))?;
        self.write_schemata(lines).and_then(|()| then()).map_err(|error| {
            match self.write_schemata(&way_back(&before, lines)) {
                Ok(()) => error,
                Err(failure) => error.undo(&failure),
            }
        })
    }

    /// Puts a process into the groups.
    pub(crate) fn join(&self, pid: Pid) -> Result<()> {
        for group in [Some(&self.class), self.monitoring.as_ref()].into_iter().flatten() {
            let tasks = group.join("tasks");
            let pid = pid.as_raw_nonzero().to_string();
            let open = std::fs::File::options().write(true).open(&tasks);
            open.and_then(|mut file| file.write_all(pid.as_bytes())).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                self.failed("linux.intelRdt", format!("write {pid} to {tasks:?}"), errno)
            })?;
        }
        Ok(())
    }

    /// Removes what is the container's own, when it has no processes any more.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(group) = &self.monitoring {
            remove(group)?;
        }
        if self.owns_class { remove(&self.class) } else { Ok(()) }
    }

    /// Removes what a failed `create` has made: a named class too, unless somebody else uses it by now.
    pub(crate) fn undo(&self) -> Result<()> {
        self.remove()?;
        let used = || std::fs::read_to_string(self.class.join("tasks")).is_ok_and(|tasks| !tasks.trim().is_empty());
        if self.makes_class && !self.owns_class && !used() { remove(&self.class) } else { Ok(()) }
    }

    /// With the kernel's own words, which are in a file.
    fn failed(&self, field: &str, what: String, errno: Errno) -> Error {
        let status = std::fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        let words = status.trim();
        Error::at(field, what).errno(errno).kernel(if words == "ok" { "" } else { words })
    }
}

/// A named class that is there must be as the configuration says; others may use it.
fn compare(class: &Path, plan: &RdtPlan) -> Result<()> {
    for line in plan.lines.iter().filter(|line| line.compare) {
        let path = class.join("schemata");
        let schemata = std::fs::read_to_string(&path)
            .map_err(|error| Error::at("linux.intelRdt.closID", format!("read {path:?}")).errno(error))?;
        if let Some(there) = differs(&schemata, &line.line) {
            let text = format!("{:?} is not what {path:?} has: {there}", line.line);
            return Err(
                Error::at(&line.field, text).hint("leave it out to use the class as it is, or name another closID")
            );
        }
    }
    Ok(())
}

fn exists(group: &Path) -> Result<bool> {
    match rustix::fs::stat(group) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::at("linux.intelRdt", format!("look for {group:?}")).errno(errno)),
    }
}

/// Gone already is as good: with resctrl unmounted, or by an administrator's hand.
fn remove(group: &Path) -> Result<()> {
    match rustix::fs::rmdir(group) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::at("linux.intelRdt", format!("remove {group:?}")).errno(errno)),
    }
}

#[cfg(test)]
mod tests;
