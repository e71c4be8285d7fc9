//! `exec`: from clone to exec in a container that is there already. Runs in: child.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{die_with_parent, join_cgroup, join_keyring, namespaces, not_dumpable, program, reset_affinity, terminal};
use crate::plan::{Affinity, ChildPlan};
use crate::rootfs::{self, source};
use crate::sync::{ChildEnd, Fault, Step};
use crate::sys::{self, Clone3, Cloned};

/// What the child works with.
pub(crate) struct Exec<'a> {
    pub(crate) plan: &'a ChildPlan,
    /// The pidfd of the container's init, and `CLONE_NEW*` of what is joined of it.
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) kinds: i32,
    /// The root directory of init, where no mount namespace leads to it.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// The root of the host's procfs.
    pub(crate) proc: BorrowedFd<'a>,
    /// Files of cgroups to join.
    pub(crate) tasks: &'a [OwnedFd],
    pub(crate) sync: BorrowedFd<'a>,
}

impl Exec<'_> {
    /// Becomes the program.
    pub(crate) fn run(self) -> ! {
        let Err(fault) = self.steps();
        ChildEnd(self.sync).fault(&fault);
        sys::exit_now(1)
    }

    fn steps(&self) -> Result<Infallible, Fault> {
        let sync = ChildEnd(self.sync);
        let Some(process) = &self.plan.process else {
            return Err(Fault::new(Step::NoProcess, sys::Errno::INVAL));
        };
        die_with_parent(true)?;
        super::forget_arguments();
        super::set_oom_score(self.plan, self.proc)?;
        // Before anything of the container can see us (CVE-2016-9962).
        not_dumpable()?;
        // As runc: a user may not move a process from anywhere to their containers.
        join_cgroup(self.tasks, self.plan.for_user.then_some(&sync))?;
        if process.exec_affinity == Affinity::default() {
            reset_affinity();
        }
        // While it is the host's: the container may have removed its own.
        let spare = if process.terminal { None } else { source::open_null().ok() };
        let left = super::leave_keyring(self.plan, self.kinds & libc::CLONE_NEWUSER != 0);
        self.enter(&sync)?;
        // Again: a second child does not inherit it, and a change of ids takes it away.
        die_with_parent(true)?;
        super::new_session()?;
        join_keyring(self.plan, self.proc, false, left, &sync)?;
        if let Some(cpus) = &process.exec_affinity.last {
            sys::sched_setaffinity(cpus).map_err(|errno| Fault::new(Step::Affinity, errno))?;
        }
        if let Some(root) = self.root {
            let entered = rustix::process::fchdir(root).and_then(|()| rustix::process::chroot("."));
            entered.map_err(|errno| Fault::new(Step::JoinInit, errno))?;
        }
        // That of the mount namespace that was entered.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|errno| Fault::new(Step::JoinInit, errno))?;
        terminal::set_up(process, false, root.as_fd(), self.proc, spare.as_ref().map(AsFd::as_fd), &sync)?;
        drop(spare);
        let cwd = rootfs::open_in_root(root.as_fd(), process.cwd.as_c_str(), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|errno| Fault::new(Step::Cwd, errno))?;
        let home = process.wants_home.then(|| program::home(process, root.as_fd(), self.proc));
        drop(root);
        let program = super::settle(self.plan, process, cwd, self.proc, &sync, &[Some(self.sync)], true)?;
        Err(program::execute(process, &program, home.as_deref()))
    }

    /// All namespaces by one setns(2), in which the kernel takes the user namespace first. A pid namespace is for
    /// children of who joins it, so that a second child, the parent's child as we are, is the one that goes on.
    fn enter(&self, sync: &ChildEnd<'_>) -> Result<(), Fault> {
        // setns(2) of nothing is an error.
        if self.kinds != 0 {
            sys::setns(self.init, self.kinds).map_err(|errno| Fault::new(Step::JoinInit, errno))?;
        }
        if self.kinds & libc::CLONE_NEWUSER != 0 {
            namespaces::take_root(Step::UserNamespaceRoot)?;
        }
        if self.kinds & libc::CLONE_NEWPID == 0 {
            return Ok(());
        }
        let flags = libc::CLONE_PARENT as u64;
        match sys::clone3(Clone3 { flags, cgroup: None }).map_err(|errno| Fault::new(Step::ExecChild, errno))? {
            Cloned::Parent { .. } => sys::exit_now(0),
            Cloned::Child => sync.spawned(),
        }
    }
}
