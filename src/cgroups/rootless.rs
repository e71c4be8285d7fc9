//! Where an ordinary user, or root of a user namespace, may make no cgroup: the container goes without, if nothing depends
//! on it. Runs in: parent.

use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::layout::Layout;
use super::settings::Setting;
use super::{Cgroup, Version};
use crate::error::{Error, Result};

impl Cgroup {
    /// Takes those hierarchies out. It is an error if a limit depends on one, or if a path was asked for: which the unified
    /// companion of a hybrid host and named hierarchies need not have.
    pub(crate) fn leave_out_denied(&mut self, layout: &Layout, asked: bool, settings: &[Setting]) -> Result<()> {
        for (controllers, dir) in &self.dirs {
            let own = layout.own_dir(controllers);
            let optional = self.version == Version::V1 && (controllers.is_empty() || controllers.contains('='));
            match permission(controllers.is_empty(), &own, dir) {
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) if optional || !asked => {
                    self.denied.insert(controllers.clone(), own);
                }
                Err(errno) => {
                    return Err(
                        refusal("linux.cgroupsPath", "unable to apply cgroup configuration: ", dir).errno(errno)
                    );
                }
                Ok(()) => {}
            }
        }
        self.dirs.retain(|controllers, _| !self.denied.contains_key(controllers));
        match settings.iter().find(|setting| !setting.optional && self.is_denied(&setting.controller)) {
            Some(setting) => Err(refusal(&setting.field, "", Path::new(&*setting.controller)).errno(Errno::ACCESS)),
            None => Ok(()),
        }
    }

    /// Whether the hierarchy of a controller was left out.
    pub(super) fn is_denied(&self, controller: &str) -> bool {
        match self.version {
            Version::V2 => !self.denied.is_empty(),
            Version::V1 => self.denied.keys().any(|names| names.split(',').any(|name| name == controller)),
        }
    }

    /// By controllers, where the container's processes are: in hierarchies that were left out that is where the caller is.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.dirs.iter().chain(&self.denied).map(|(controllers, dir)| (controllers.as_str(), dir.as_path()))
    }
}

/// The words are runc's.
pub(super) fn refusal(field: &str, before: &str, what: &Path) -> Error {
    let text = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    Error::at(field, format!("{before}{text}: {}", what.display())).hint(
        "a cgroup delegated to the user, such as one of `systemd-run --user --scope -p Delegate=yes`, allows both",
    )
}

/// Whether `dir` can be made and joined, without trying. In the unified hierarchy a process moves between two cgroups only with the permission
/// to write `cgroup.procs` of the nearest one above both (cgroup-v2.rst, Delegation Containment).
fn permission(unified: bool, own: &Path, dir: &Path) -> rustix::io::Result<()> {
    if dir.exists() {
        let file = if unified { "cgroup.procs" } else { "tasks" };
        rustix::fs::access(dir.join(file), Access::WRITE_OK)?;
    }
    let there: PathBuf = dir.ancestors().find(|path| path.exists()).unwrap_or(dir).to_owned();
    rustix::fs::access(&there, Access::WRITE_OK | Access::EXEC_OK)?;
    if unified {
        let both = own.ancestors().find(|path| dir.starts_with(path)).unwrap_or(own);
        rustix::fs::access(both.join("cgroup.procs"), Access::WRITE_OK)?;
    }
    Ok(())
}
