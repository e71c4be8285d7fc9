//! From clone to exec: what happens in the child, in this order.
//!
//! Runs in: child. It is a copy of the parent, made by clone3 without exec: it sees the parent's plan in its own memory.
//! It reads no configuration, looks up no path of the host that it was not given, reports a [`Fault`] and leaves by `_exit`.
//! The order is that of [`Init::steps`]; each step's comment says what would break if it came elsewhere:
//!
//! ```text
//! ours          die with the parent · oom score · cgroups · not dumpable
//! namespaces    join, second child · id maps, ids of root · session · keyring · cgroup, time
//! host visible  propagation · root · mounts · devices · read-only paths · masks · the host's hooks
//! in the root   pivot · names · sysctls · streams · working directory opened · root read-only
//! identity      labels · descriptors closed · umask, cwd · no_new_privs (or else: filter) · bounding set · groups, gid, uid
//!               · capabilities · the program is looked for · limits · not with the parent any more · filter
//! at the gate   ready · start · startContainer hooks · execve
//! ```
//! `exec` leaves out what the container has already. After the first mount into the root no absolute path below /proc, /sys or
//! /dev is opened: what is needed of the host was opened before (in a user namespace devices are bound from the host's /dev, and
//! a /sys that the kernel does not grant anew). `integration/hostile/order.rs` holds the system calls to this.

mod criu;
mod diagnosis;
mod exec;
mod identity;
mod labels;
mod namespaces;
mod program;
mod terminal;
mod verify;

use std::convert::Infallible;
use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::DumpableBehavior;

use crate::hooks::{self, StateText};
use crate::plan::{ChildPlan, HookPlan, HookPlans, ProcessPlan};
use crate::rootfs::plan::HostPath;
use crate::rootfs::source::{self, CgroupMount, Trees};
use crate::sync::{ChildEnd, Detail, EXECUTES, FAULT, Fault, START_CONTAINER, Step};
use crate::sys::{self, Errno};
use crate::{host, rootfs};
use program::Program;

pub(crate) use criu::{Attributes as CriuAttributes, Criu, Restore as CriuRestore, prepare_network, set_attributes};
pub(crate) use exec::Exec;

/// What the child works with. All descriptors were opened by the parent before the clone.
pub(crate) struct Init<'a> {
    pub(crate) plan: &'a ChildPlan,
    pub(crate) hooks: &'a HookPlans,
    pub(crate) state: &'a StateText,
    /// Files for the output of hooks.
    pub(crate) hook_output: &'a hooks::Output,
    /// The directory of the root file system, in the runtime's mount namespace.
    pub(crate) rootfs: &'a Path,
    /// The root of the host's procfs.
    pub(crate) proc: BorrowedFd<'a>,
    /// None: this process copies the mounts, and `cgroup_mount`.
    pub(crate) trees: Option<&'a Trees>,
    pub(crate) cgroup_mount: &'a CgroupMount<HostPath>,
    /// One for each of `plan.namespaces.joined`.
    pub(crate) joined: &'a [OwnedFd],
    /// Files of cgroups to join.
    pub(crate) tasks: &'a [OwnedFd],
    /// The container's directory, with the lock of `create`, which must end with that.
    pub(crate) lock: BorrowedFd<'a>,
    /// `exec.fifo`; None: `run`, which needs no gate.
    pub(crate) gate: Option<BorrowedFd<'a>>,
    pub(crate) sync: BorrowedFd<'a>,
    /// Whether the parent writes maps for this child's new user namespace.
    pub(crate) has_idmap: bool,
}

impl Init<'_> {
    /// Becomes the container's program.
    pub(crate) fn run(self) -> ! {
        let Err(fault) = self.steps();
        self.end(&fault)
    }

    /// Tells the parent, or at the gate `start`, and exits.
    fn end(&self, fault: &Fault) -> ! {
        ChildEnd(self.sync).fault(fault);
        sys::exit_now(1)
    }

    /// The table of contents of a container.
    fn steps(&self) -> Result<Infallible, Fault> {
        let sync = ChildEnd(self.sync);
        // The lock on the container's directory must end with `create`, whatever becomes of us.
        let lock = u32::try_from(self.lock.as_raw_fd()).unwrap_or(u32::MAX);
        sys::close_range(lock, lock, 0).map_err(|errno| Fault::new(Step::Descriptors, errno))?;
        // And so must we, until it has said that all is well.
        die_with_parent(true)?;
        forget_arguments();
        // Before anything allocates memory or forks on the container's account.
        set_oom_score(self.plan, self.proc)?;
        join_cgroup(self.tasks, None)?;
        reset_affinity();
        // Before anything of another container can see us, or a second child of ours from its first moment on, with all that we
        // have of the host in memory and open (CVE-2016-9962): who is root by number owns our new user namespace, and would
        // have every right over us. Only an ordinary user's parent cannot write the maps of who may not be looked at, and
        // for them it is done with the change of ids: nobody there has rights over us.
        if !(self.has_idmap && self.plan.for_user) {
            not_dumpable()?;
        }
        let left = leave_keyring(self.plan, self.plan.namespaces.has(libc::CLONE_NEWUSER));
        self.enter_namespaces(&sync)?;
        self.become_root_of_user_namespace(&sync)?;
        // Again: a second child does not inherit it, and a change of ids takes it away.
        die_with_parent(true)?;
        new_session()?;
        join_keyring(self.plan, self.proc, true, left, &sync)?;
        // After the cgroup was joined, which becomes the root of the namespace; before anything is mounted from it.
        self.late_namespaces(&sync)?;

        // The host's files are still visible: bind sources and /dev/null were opened by the parent or are now; in a user
        // namespace devices are taken from the host here.
        let copied;
        let trees = match self.trees {
            Some(trees) => trees,
            None => {
                // Never dropped: by then all descriptors are closed, and their numbers may be others'.
                copied = ManuallyDrop::new(source::open(&self.plan.rootfs, self.cgroup_mount)?);
                &*copied
            }
        };
        let root = trees.root.as_fd();
        rootfs::attach(&self.plan.rootfs, trees)?;
        let late = rootfs::prepare(&self.plan.rootfs, trees, self.proc)?;
        // Hooks see the finished mounts, and the host's.
        if !self.hooks.prestart.is_empty() || !self.hooks.create_runtime.is_empty() {
            sync.ask_hooks()?;
        }
        // In the root file system, as with runc: hooks name files of the container by relative paths.
        self.run_hooks(&self.hooks.create_container, "created", self.rootfs, &[])?;

        // From here on no path of the host can be reached, and no program of the host is executed.
        rootfs::enter(&self.plan.rootfs, root, self.proc)?;
        self.set_names()?;
        self.write_sysctls()?;
        let Some(process) = &self.plan.process else {
            rootfs::finish(&self.plan.rootfs, root, late)?;
            close_descriptors(self.plan.preserve_fds, &[Some(self.sync), self.gate])?;
            die_with_parent(false)?;
            sync.ready()?;
            return self.wait_without_process();
        };
        let spare = trees.null.as_ref().ok().map(AsFd::as_fd);
        terminal::set_up(process, self.plan.rootfs.dev.is_some(), root, self.proc, spare, &sync)?;
        let cwd = program::make_cwd(process, root)?;
        // After /dev/console and the working directory were made in it.
        rootfs::finish(&self.plan.rootfs, root, late)?;

        let home = process.wants_home.then(|| program::home(process, root, self.proc));
        let output = self.hook_output.fds();
        let keep = [Some(self.sync), self.gate, output[0], output[1]];
        // A startContainer hook may yet make what is missing.
        let now = self.hooks.start_container.is_empty();
        let program = settle(self.plan, process, cwd, self.proc, &sync, &keep, now)?;
        self.wait_for_start(process)?;
        Err(self.execute(process, &program, home.as_deref()))
    }

    fn set_names(&self) -> Result<(), Fault> {
        if let Some(name) = &self.plan.hostname {
            rustix::system::sethostname(name.to_bytes()).map_err(|errno| Fault::new(Step::Hostname, errno))?;
        }
        if let Some(name) = &self.plan.domainname {
            rustix::system::setdomainname(name.to_bytes()).map_err(|errno| Fault::new(Step::Domainname, errno))?;
        }
        Ok(())
    }

    /// Through the host's procfs, which the parent has checked: the container's could be anything.
    fn write_sysctls(&self) -> Result<(), Fault> {
        for (index, sysctl) in self.plan.sysctl.iter().enumerate() {
            let file = sysctl.file.to_str().unwrap_or_default();
            host::write_raw(self.proc, file, sysctl.value.to_bytes())
                .map_err(|errno| Fault::new(Step::Sysctl, errno).item(index))?;
        }
        Ok(())
    }

    fn run_hooks(&self, list: &[HookPlan], status: &str, cwd: &Path, environment: &[CString]) -> Result<(), Fault> {
        if list.is_empty() {
            return Ok(());
        }
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let inside = std::ptr::eq(list, self.hooks.start_container.as_slice());
        let place = hooks::Place { inside, cwd, environment, output: self.hook_output, interrupt: None, end: None };
        hooks::run(list, &self.state.json(status, pid), &place).map_err(|failed| {
            let (errno, sub) = match failed.failure {
                hooks::Failure::Start(errno) => (errno, 0),
                hooks::Failure::Exit(code) => (code, 1),
                hooks::Failure::Signal(signal) => (signal, 2),
                hooks::Failure::Timeout | hooks::Failure::Interrupted | hooks::Failure::Late => (0, 3),
            };
            let base = if inside { START_CONTAINER } else { 0 };
            let fault = Fault::with_number(Step::Hook, errno).item(failed.index + base).sub(sub);
            fault.detail(Detail::end_of(failed.output.trim_ascii_end()))
        })
    }

    /// Waits until `start` opens the gate. The gate was opened for reading and writing: no end of file can come.
    fn wait_for_start(&self, process: &ProcessPlan) -> Result<(), Fault> {
        if let Some(gate) = self.gate {
            pass(gate)?;
        }
        let hooks = self.run_hooks(&self.hooks.start_container, "created", Path::new("/"), &process.env);
        hooks.inspect_err(|fault| self.tell_gate(fault))
    }

    fn wait_without_process(&self) -> Result<Infallible, Fault> {
        if let Some(gate) = self.gate {
            pass(gate)?;
        }
        let fault = Fault::new(Step::NoProcess, Errno::INVAL);
        self.tell_gate(&fault);
        Err(fault)
    }

    fn execute(&self, process: &ProcessPlan, program: &Program, home: Option<&std::ffi::CStr>) -> Fault {
        if let Some(gate) = self.gate {
            let _ = rustix::io::write(gate, &EXECUTES);
        }
        let fault = program::execute(process, program, home);
        self.tell_gate(&fault);
        fault
    }

    /// After `create` is gone the fault goes through the FIFO, where `start` finds it when we are dead.
    fn tell_gate(&self, fault: &Fault) {
        if let Some(gate) = self.gate {
            let _ = rustix::io::write(gate, &fault.encode(FAULT));
        }
    }

    fn enter_namespaces(&self, sync: &ChildEnd<'_>) -> Result<(), Fault> {
        namespaces::enter(self, sync)
    }

    fn become_root_of_user_namespace(&self, sync: &ChildEnd<'_>) -> Result<(), Fault> {
        namespaces::become_root(self, sync)
    }

    fn late_namespaces(&self, sync: &ChildEnd<'_>) -> Result<(), Fault> {
        namespaces::late(self, sync)
    }
}

/// Moves this process, which has one thread, into cgroups. `0` into `tasks` of v1 is the one way that does not wait for an
/// RCU grace period (see [`crate::cgroups::Cgroup::join`]).
/// With `without`, one that is not permitted is a warning only.
fn join_cgroup(files: &[OwnedFd], without: Option<&ChildEnd<'_>>) -> Result<(), Fault> {
    for (index, file) in files.iter().enumerate() {
        match (rustix::io::write(file, b"0"), without) {
            (Err(errno @ Errno::ACCESS), Some(sync)) => sync.warn(&Fault::new(Step::JoinCgroup, errno).item(index))?,
            (result, _) => drop(result.map_err(|errno| Fault::new(Step::JoinCgroup, errno).item(index))?),
        }
    }
    Ok(())
}

/// To all processors that the cgroup lets it have: those of the caller, which may be pinned as daemons of isolated hosts
/// are, are not meant for the container. As runc, without a word where it is not permitted: some outer filters refuse it.
fn reset_affinity() {
    // As many as the kernel can be configured for; it takes away those that there are not.
    const ALL: [u64; 128] = [u64::MAX; 128];
    let _ = sys::sched_setaffinity(&ALL);
}

/// By this process itself, where the parent may not: a file of a process that cannot be dumped is the host's root's.
fn set_oom_score(plan: &ChildPlan, proc: BorrowedFd<'_>) -> Result<(), Fault> {
    let Some(value) = plan.oom_score_adj else { return Ok(()) };
    host::write_raw(proc, "self/oom_score_adj", value.to_string().as_bytes())
        .map_err(|errno| Fault::new(Step::OomScore, errno))
}

/// Whoever becomes another user may find that one's quota of keys used up, by the container's own processes, too. The keys
/// of the caller are none of the container's even then: so there is an empty keyring of the caller's. Whether there is.
fn leave_keyring(plan: &ChildPlan, changes_user: bool) -> bool {
    changes_user && plan.keyring.is_some() && sys::join_session_keyring(None).is_ok()
}

/// `left`: the keyring is not the caller's any more, and it can stay.
fn join_keyring(
    plan: &ChildPlan,
    proc: BorrowedFd<'_>,
    new: bool,
    left: bool,
    sync: &ChildEnd<'_>,
) -> Result<(), Fault> {
    let Some(name) = &plan.keyring else { return Ok(()) };
    let fault = |errno| Fault::new(Step::Keyring, errno);
    match labels::make_key(&plan.labels, proc, || sys::join_session_keyring(Some(name)))? {
        Ok(key) if new => {
            // Possessor rights as they are, and search for the owner: others who join it by name find keys in it.
            let perm = sys::keyctl_describe_perm(key).map_err(fault)?;
            sys::keyctl_setperm(key, perm | 0x0008_0000).map_err(fault)
        }
        // A kernel without keys has nothing to protect.
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(errno @ Errno::DQUOT) if left => sync.warn(&fault(errno)),
        // An outer profile denies keyctl(2) altogether (Docker's does), to the container as to us.
        Err(errno @ Errno::PERM) if sys::keyctl_describe_perm(SESSION_KEYRING) == Err(Errno::PERM) => {
            sync.warn(&fault(errno))
        }
        Err(errno) => Err(fault(errno)),
    }
}

/// `KEY_SPEC_SESSION_KEYRING` of linux/keyctl.h.
const SESSION_KEYRING: i64 = -3;

/// From a process in the right place to one that only has to be executed: takes on the user's identity, finds the
/// program, and says that all is ready. `now`: what is certain to fail is an error here, and not when it is executed.
fn settle(
    plan: &ChildPlan,
    process: &ProcessPlan,
    cwd: OwnedFd,
    proc: BorrowedFd<'_>,
    sync: &ChildEnd<'_>,
    keep: &[Option<BorrowedFd<'_>>],
    now: bool,
) -> Result<Program, Fault> {
    // After the host's hooks, which are not the container's; before the filter, which may forbid it. A startContainer hook is
    // a program of the container, and is confined like it.
    labels::set(&plan.labels, proc)?;
    // None comes before they are unblocked. Profiles may forbid it, too.
    let status = verify::open(proc)?;
    sys::reset_handlers(verify::ignored(&status)?).map_err(|errno| Fault::new(Step::Session, errno))?;
    let set_groups = !plan.keep_groups && identity::may_set_groups(plan, process, proc, sync)?;
    let diagnosis = diagnosis::diagnose(process, cwd.as_fd(), proc);
    // Really closed, not only marked: the program's path may lead through /proc/self/fd (CVE-2024-21626). Before a profile
    // may be loaded: many do not know close_range.
    close_descriptors(plan.preserve_fds, &[keep, &[Some(cwd.as_fd()), Some(status.as_fd())]].concat())?;
    identity::take_on(process, set_groups, cwd, status, sync)?;
    let program = program::find(process, diagnosis, now)?;
    schedule(process)?;
    set_limits(process)?;
    if plan.visible_at_gate {
        // What is left in memory is the configuration; the user's own variables are not the container's.
        sys::erase_environment();
        dumpable(true)?;
    }
    // Not later: `create` ends when we are ready. If it dies before, its end of the socket tells.
    die_with_parent(false)?;
    // As late as can be: from here on every call needs the profile's permission.
    identity::filter_if_no_new_privileges(process, sync)?;
    sync.ready()?;
    Ok(program)
}

/// Closes everything but stdio, the descriptors to be preserved, and `keep`.
fn close_descriptors(preserve_fds: u32, keep: &[Option<BorrowedFd<'_>>]) -> Result<(), Fault> {
    let fault = |errno| Fault::new(Step::Descriptors, errno);
    let number = |fd: &BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX);
    let mut keep: Vec<u32> = keep.iter().flatten().map(number).collect();
    keep.sort_unstable();
    let mut first = 3 + preserve_fds;
    for fd in keep {
        sys::close_range(first, fd.saturating_sub(1), 0).map_err(fault)?;
        first = first.max(fd + 1);
    }
    sys::close_range(first, u32::MAX, 0).map_err(fault)?;
    for fd in 3..3 + preserve_fds {
        // Preserved ones may have come with close-on-exec from a caller that passed them by hand.
        let item = usize::try_from(fd).unwrap_or(usize::MAX);
        sys::keep_on_exec(fd).map_err(|errno| Fault::new(Step::PreservedFd, errno).item(item))?;
    }
    Ok(())
}

/// The command line is about the host's files, and the one thing of a process that everybody may read who sees it. The word
/// that takes its place fits also where we were called as runc.
fn forget_arguments() {
    sys::erase_arguments(c"init");
}

/// Nobody in the container may look into this process, which has the runtime's memory and descriptors (CVE-2016-9962).
/// exec makes the container's program dumpable again.
fn not_dumpable() -> Result<(), Fault> {
    dumpable(false)
}

fn dumpable(really: bool) -> Result<(), Fault> {
    let behavior = if really { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    rustix::process::set_dumpable_behavior(behavior).map_err(|errno| Fault::new(Step::Session, errno))
}

/// prctl(2), `PR_SET_PDEATHSIG`.
fn die_with_parent(really: bool) -> Result<(), Fault> {
    let signal = really.then_some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).map_err(|errno| Fault::new(Step::Session, errno))
}

/// The caller's terminal must not be the container's (CVE-2017-5226).
fn new_session() -> Result<(), Fault> {
    rustix::process::setsid().map(drop).map_err(|errno| Fault::new(Step::Session, errno))
}

/// What only the process itself can set, and what exec keeps. The scheduler is set by the parent.
fn schedule(process: &ProcessPlan) -> Result<(), Fault> {
    if let Some(policy) = &process.scheduling.memory_policy {
        sys::set_mempolicy(policy).map_err(|errno| Fault::new(Step::MemoryPolicy, errno))?;
    }
    if let Some(persona) = process.scheduling.personality {
        sys::personality(persona).map_err(|errno| Fault::new(Step::Personality, errno))?;
    }
    Ok(())
}

/// After everything that a small limit could make fail: descriptors, memory.
fn set_limits(process: &ProcessPlan) -> Result<(), Fault> {
    for (index, limit) in process.rlimits.iter().enumerate() {
        sys::setrlimit(limit.resource, limit.soft, limit.hard)
            .map_err(|errno| Fault::new(Step::Rlimit, errno).item(index))?;
    }
    Ok(())
}

fn pass(gate: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut byte = [0u8];
    rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut byte))
        .map(drop)
        .map_err(|errno| Fault::new(Step::Gate, errno))
}
