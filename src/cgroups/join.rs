//! The ways into a cgroup, and into those below it. Runs in: parent.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::files::{open_dir, read_file};
use super::{Cgroup, MOUNT_POINT, Unit};
use crate::error::{Error, Result};

/// The ways into a cgroup, opened.
#[derive(Debug)]
pub(crate) struct Join {
    /// For the child to write `0` to, while it has one thread.
    pub(crate) files: Vec<OwnedFd>,
    /// The directory in the unified hierarchy into which clone3 puts it.
    pub(crate) into: Option<OwnedFd>,
    /// Its `cgroup.procs`, for a child that clone3 could not put there: it waits for an RCU grace period.
    pub(crate) procs: Option<OwnedFd>,
    /// A user's systemd, which can put it there in place of both.
    pub(crate) unit: Option<Unit>,
}

impl Join {
    /// Nowhere: the child stays where its parent is.
    pub(crate) fn none() -> Self {
        Self { files: Vec::new(), into: None, procs: None, unit: None }
    }
}

impl Cgroup {
    /// Whether the processes can only be in cgroups below: the "no internal processes" rule of cgroup v2.
    pub(crate) fn has_given_controllers(&self) -> bool {
        let given = self.unified().map(|dir| read_file(dir, "cgroup.subtree_control").unwrap_or_default());
        given.is_some_and(|given| !given.trim().is_empty())
    }

    /// The cgroup of `/proc/<pid>/cgroup`, on v2.
    pub(crate) fn at(&self, proc_pid_cgroup: &str) -> Self {
        let path = proc_pid_cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
        let dirs = BTreeMap::from([(String::new(), Path::new(MOUNT_POINT).join(path))]);
        Self { version: self.version, dirs, existing: Vec::new(), unit: None, denied: BTreeMap::new() }
    }

    /// Cgroups below this one, by `PATH` for all hierarchies or `CONTROLLER,...:PATH` for some.
    pub(crate) fn below(&self, paths: &[String]) -> Result<Self> {
        let mut cgroup = Self { unit: None, ..self.needed()?.clone() };
        for text in paths {
            let (controllers, path) = text.split_once(':').map_or((None, text.as_str()), |(c, p)| (Some(c), p));
            let failed = |what: &str| Error::at("--cgroup", format!("{text:?}: {what}"));
            let mut inner = PathBuf::new();
            for component in Path::new(path).components() {
                match component {
                    Component::Normal(name) => inner.push(name),
                    Component::RootDir | Component::CurDir => {}
                    Component::ParentDir | Component::Prefix(_) => {
                        return Err(failed("is not below the container's cgroup"));
                    }
                }
            }
            let wanted: Option<Vec<&str>> = controllers.map(|controllers| controllers.split(',').collect());
            let mut found = false;
            for (name, dir) in &mut cgroup.dirs {
                let named = |wanted: &Vec<&str>| name.split(',').any(|name| wanted.contains(&name));
                if wanted.as_ref().is_none_or(named) {
                    found = true;
                    dir.push(&inner);
                }
            }
            if !found {
                return Err(failed("no such controller is mounted on this host"));
            }
        }
        match cgroup.dirs.values().find(|dir| !dir.is_dir()) {
            Some(dir) => Err(Error::at("--cgroup", format!("{} is not there", dir.display()))),
            None => Ok(cgroup),
        }
    }

    /// What a child joins this cgroup by: for each v1 hierarchy its `tasks` file, to which it writes `0`.
    ///
    /// A process with one thread that moves itself so does not take the lock for which every other way of joining waits
    /// a whole RCU grace period (kernel/cgroup/cgroup.c, `cgroup_procs_write_start`): 8 to 13 ms on an idle host.
    pub(crate) fn join(&self) -> Result<Join> {
        let open = |dir: &Path, file: &str| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::open(dir.join(file), flags, Mode::empty()).map_err(|errno| self.refused("join", dir, errno))
        };
        let v1 = self.dirs.iter().filter(|(controllers, _)| !controllers.is_empty());
        Ok(Join {
            files: v1.map(|(_, dir)| open(dir, "tasks")).collect::<Result<_>>()?,
            into: self.unified_dir()?,
            procs: self.unified().map(|dir| open(dir, "cgroup.procs")).transpose()?,
            unit: self.unit.clone().filter(Unit::is_users),
        })
    }

    /// The directory in which clone3 puts the child (`CLONE_INTO_CGROUP`), where there is a unified hierarchy.
    fn unified_dir(&self) -> Result<Option<OwnedFd>> {
        self.unified().map(|dir| open_dir(dir).map_err(|errno| self.refused("open", dir, errno))).transpose()
    }
}
