//! What was made, to be undone in reverse. Runs in: parent.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::cgroups::{Cgroup, MEMORY_LIMIT};
use crate::child::reap;
use crate::create::run_hooks;
use crate::delete::{unmount, wait_for_end};
use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::host;
use crate::netdev::Handover;
use crate::plan::{self, HookOutput, Plan};
use crate::rdt;
use crate::state::{Container, Record};
use crate::sys;

/// How long a cgroup may stay busy after its processes were killed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The things made so far.
pub(crate) struct Rollback {
    container: Option<Rc<Container>>,
    /// And whether its memory is limited.
    cgroup: Option<(Cgroup, bool)>,
    /// Of a container without a mount namespace of its own.
    mounts: Option<Record>,
    rdt: Option<rdt::Groups>,
    children: Vec<OwnedFd>,
    devices: Option<Handover>,
    pid_file: Option<PathBuf>,
    /// poststop hooks: the container existed as far as other programs are concerned.
    poststop: Option<Poststop>,
}

struct Poststop {
    hooks: Option<oci_spec::runtime::Hooks>,
    state: String,
    bundle: PathBuf,
    output: HookOutput,
}

impl Rollback {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            container: None,
            cgroup: None,
            mounts: None,
            rdt: None,
            children: Vec::new(),
            devices: None,
            pid_file: None,
            poststop: None,
        }
    }

    /// The state directory.
    pub(crate) fn container(&mut self, container: &Rc<Container>) {
        self.container = Some(Rc::clone(container));
    }

    /// What the child mounts where the host sees it.
    pub(crate) fn mounts(&mut self, record: &Record) {
        self.mounts = record.mounts_below.map(|_| record.clone());
    }

    /// The cgroup's directories.
    pub(crate) fn cgroup(&mut self, cgroup: &Cgroup, plan: &Plan) {
        let limits_memory = plan.settings.iter().any(|setting| setting.field == MEMORY_LIMIT);
        self.cgroup = Some((cgroup.clone(), limits_memory));
    }

    /// The groups of resctrl.
    pub(crate) fn rdt(&mut self, groups: &rdt::Groups) {
        self.rdt = Some(groups.clone());
    }

    /// A process.
    pub(crate) fn child(&mut self, pidfd: &OwnedFd) -> Result<()> {
        let copy = pidfd.try_clone().map_err(|error| Error::new("duplicate a pidfd").errno(error))?;
        self.children.push(copy);
        Ok(())
    }

    /// Network devices.
    pub(crate) fn devices(&mut self, handover: Handover) {
        self.devices = Some(handover);
    }

    /// The pid file.
    pub(crate) fn pid_file(&mut self, path: &Path) {
        self.pid_file = Some(path.to_owned());
    }

    /// From here on poststop hooks belong to an end.
    pub(crate) fn poststop(&mut self, plan: &Plan, state: &StateText, bundle: &Path) {
        let state = state.json("stopped", 0);
        let (hooks, output) = (plan.late_hooks.clone(), plan.acting.hook_output.clone());
        self.poststop = Some(Poststop { hooks, state, bundle: bundle.to_owned(), output });
    }

    /// All is well: nothing is undone.
    pub(crate) fn keep(&mut self) {
        *self = Self::new();
    }

    /// Undoes everything. What cannot be undone is added to the error; if it is of the host, the state is kept, as by `delete`.
    pub(crate) fn undo(self, error: Error) -> Error {
        let mut error = match &self.cgroup {
            Some((cgroup, limits_memory)) => cgroup.blame_memory(error, *limits_memory),
            None => error,
        };
        let mut check = |result: Result<()>| match result {
            Ok(()) => true,
            Err(failure) => {
                error = std::mem::replace(&mut error, Error::new("")).undo(&failure);
                false
            }
        };
        let mut gone = true;
        if let Some(path) = &self.pid_file {
            let _ = std::fs::remove_file(path);
        }
        for failure in self.devices.iter().flat_map(Handover::undo) {
            check(Err(failure));
        }
        for child in self.children.iter().rev() {
            let _ = sys::pidfd_send_signal(child.as_fd(), libc::SIGKILL);
        }
        // A frozen process of v1 dies when it is thawed, which this does.
        if let Some((cgroup, _)) =
            self.cgroup.as_ref().filter(|(cgroup, _)| cgroup.is_all_own() && cgroup.may_hold_frozen())
        {
            check(cgroup.kill());
        }
        for child in self.children.iter().rev() {
            gone &= check(wait_for_end(child, "a process").map(|()| _ = reap(child)));
        }
        // Who has not ended by now is not waited for again.
        let patience = if gone { PATIENCE } else { Duration::ZERO };
        if let Some(record) = &self.mounts {
            gone &= check(host::open_proc().and_then(|proc| unmount(&proc, record)));
        }
        if let Some((cgroup, _)) = &self.cgroup {
            // A hook may have left a process in it.
            if cgroup.is_all_own() {
                gone &= check(cgroup.empty(patience));
            }
            gone &= check(cgroup.remove(patience));
        }
        if let Some(groups) = &self.rdt {
            gone &= check(groups.undo());
        }
        // By its record `delete --force` finds what is left; the end, to which the hooks belong, is then.
        if !gone {
            return error;
        }
        if let Some(container) = &self.container {
            check(container.remove());
        }
        if let Some(poststop) = &self.poststop {
            let Poststop { hooks, state, bundle, output } = poststop;
            match plan::late_hooks(hooks.as_ref()) {
                // Each of them, whatever the one before it did (runtime.md, Lifecycle, 13).
                Ok(hooks) => {
                    hooks.poststop.chunks(1).for_each(|hook| {
                        check(run_hooks(hook, state, bundle, output, None));
                    });
                }
                Err(failure) => {
                    check(Err(failure));
                }
            }
        }
        error
    }
}
