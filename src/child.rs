//! The parent's side of a child: cloning it into its cgroup, answering it, setting what can only be set from outside, and
//! handing over what comes of it. Runs in: parent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::agent::Agent;
use crate::cgroups::{Cgroup, Join, MEMORY_LIMIT};
use crate::console;
use crate::create::run_hooks;
use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::host::{self, Host};
use crate::idmap;
use crate::interrupt::Interrupt;
use crate::logging::Log;
use crate::netdev::{self, Handover};
use crate::plan::{self, Plan};
use crate::rollback::Rollback;
use crate::state::Record;
use crate::sync::{ChildEnd, Fault, Message, ParentEnd};
use crate::sys::{self, Clone3, Cloned};

/// A child that was just cloned.
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) sync: ParentEnd,
}

/// Clones the child into its cgroup. `child` is what it does, with its end of the socket and the cgroup files that it
/// writes `0` to; it never returns.
pub(crate) fn spawn(
    plan: &Plan,
    join: Join,
    flags: i32,
    interrupt: &Interrupt,
    rollback: &mut Rollback,
    child: impl Fn(BorrowedFd<'_>, &[OwnedFd]),
) -> Result<Spawned> {
    raise_hard_limits(plan)?;
    clone_into(join, flags, Some((interrupt, who(plan))), rollback, child)
}

/// As [`spawn`], without raising the limits. With `interrupt` it may wait for the child's first word.
pub(crate) fn clone_into(
    join: Join,
    flags: i32,
    interrupt: Option<(&Interrupt, &str)>,
    rollback: &mut Rollback,
    child: impl Fn(BorrowedFd<'_>, &[OwnedFd]),
) -> Result<Spawned> {
    let mut files = join.files;
    if let Some(into) = &join.into
        && let Some(spawned) = attempt(Some(into.as_fd()), flags, rollback, |sync| child(sync, &files))?
    {
        interrupt.map_or(Ok(()), |(interrupt, who)| interrupt.wait_for(spawned.sync.0.as_fd(), who))?;
        if !spawned.was_killed_at_birth() {
            return Ok(spawned);
        }
    }
    if let Some(unit) = &join.unit {
        let wait = |sync: BorrowedFd<'_>| match ChildEnd(sync).wait() {
            Ok(()) => child(sync, &files),
            Err(_) => sys::exit_now(1),
        };
        let spawned = attempt(None, flags, rollback, wait)?.ok_or_else(|| clone_failed(flags, Errno::ACCESS))?;
        unit.attach(spawned.pid)?;
        spawned.sync.go_on().map_err(|errno| clone_failed(flags, errno))?;
        return Ok(spawned);
    }
    files.extend(join.procs);
    attempt(None, flags, rollback, |sync| child(sync, &files))?
        .ok_or_else(|| Error::at("linux.namespaces", "create the namespaces"))
}

/// What is waited for when it is for a child.
fn who(plan: &Plan) -> &'static str {
    match plan {
        plan if plan.is_exec() => "the process to be ready",
        plan if plan.hooks.create_container.is_empty() => "container init to be ready",
        _ => "container init and its createContainer hooks",
    }
}

/// None: the child has to join the unified hierarchy by itself, or to report that it cannot: there is no clone3 here, only
/// clone, or a user may not move a process that far.
fn attempt(
    into: Option<BorrowedFd<'_>>,
    flags: i32,
    rollback: &mut Rollback,
    child: impl Fn(BorrowedFd<'_>),
) -> Result<Option<Spawned>> {
    let (parent_end, child_end) = socket_pair()?;
    let what = Clone3 { flags: u64::try_from(flags).unwrap_or(0), cgroup: into };
    let (pid, pidfd) = match sys::clone3(what) {
        Ok(Cloned::Child) => {
            // Or it would never see the end of a dead parent's messages.
            drop(parent_end);
            child(child_end.as_fd());
            sys::exit_now(1)
        }
        Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) if into.is_some() => return Ok(None),
        Err(errno) => return Err(clone_failed(flags, errno)),
    };
    rollback.child(&pidfd)?;
    drop(child_end);
    Ok(Some(Spawned { pid, pidfd, sync: ParentEnd(parent_end) }))
}

fn clone_failed(flags: i32, errno: Errno) -> Error {
    let error = if flags == 0 {
        Error::new("clone the process")
    } else {
        Error::at("linux.namespaces", "create the namespaces")
    };
    let error = error.errno(errno);
    match errno {
        Errno::AGAIN => error.hint(plan::NO_MORE_PROCESSES),
        Errno::PERM if flags & libc::CLONE_NEWUSER != 0 => error.hint(
            "the host, or an outer container, does not let users make user namespaces: see \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, and its seccomp profile",
        ),
        Errno::NOSPC => error.hint("raise user.max_user_namespaces and its like, or nest less deep"),
        _ => error,
    }
}

impl Spawned {
    /// By the kernel: Linux 6.18 takes a past `cgroup.kill` of the child's cgroup, or of ours, for one that came during the
    /// clone.
    fn was_killed_at_birth(&self) -> bool {
        if !self.sync.ends_silently() {
            return false;
        }
        // Its status stays, for whoever has to say how it died.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options));
        let killed = status.ok().flatten().and_then(|status| status.terminating_signal()) == Some(libc::SIGKILL);
        if killed {
            reap(&self.pidfd);
        }
        killed
    }
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let failed = |errno| Error::new("socketpair").errno(errno);
    let (parent_end, child_end) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
    // So that the kernel tells the pid of a second child.
    rustix::net::sockopt::set_socket_passcred(&parent_end, true).map_err(failed)?;
    Ok((parent_end, child_end))
}

/// Sets what only the parent may set, or only from outside of a user namespace. When the child is ready: a low priority
/// must not slow its own work down.
pub(crate) fn adjust(plan: &Plan, host: &Host, record: &Record, pid: Pid) -> Result<()> {
    if let Some(groups) = &record.rdt {
        groups.join(pid)?;
    }
    set_oom_score(plan, host, pid)?;
    set_scheduler(plan, pid)
}

fn set_oom_score(plan: &Plan, host: &Host, pid: Pid) -> Result<()> {
    let Some(value) = plan.oom_score_adj else { return Ok(()) };
    let file = format!("{}/oom_score_adj", pid.as_raw_nonzero());
    host::write_raw(&host.proc, &file, value.to_string().as_bytes()).map_err(|errno| {
        let error = Error::at("process.oomScoreAdj", format!("set to {value}")).errno(errno);
        if errno == Errno::ACCESS { error.hint("lowering it needs CAP_SYS_RESOURCE") } else { error }
    })
}

fn set_scheduler(plan: &Plan, pid: Pid) -> Result<()> {
    let Some(process) = &plan.child.process else { return Ok(()) };
    let failed = |field: &str, what: String, errno: Errno| {
        let error = Error::at(field, what).errno(errno);
        if errno == Errno::PERM {
            error.hint("it needs CAP_SYS_NICE, and for a real-time policy cpu.rt_runtime_us where cgroup v1 has that")
        } else {
            error
        }
    };
    if let Some(attr) = &process.scheduling.scheduler {
        sys::sched_setattr(pid, attr).map_err(|errno| failed("process.scheduler", format!("set {attr}"), errno))?;
    }
    if let Some(priority) = process.scheduling.io_priority {
        let what = format!("set class {} and level {}", priority >> 13, priority & 7);
        sys::ioprio_set(pid, priority).map_err(|errno| failed("process.ioPriority", what, errno))?;
    }
    Ok(())
}

/// Raises our own hard limits, from outside a user namespace, where that may be permitted: each child inherits them. It
/// then sets each limit by itself, as the last thing it does, so that a small one does not hit its own work.
pub(crate) fn raise_hard_limits(plan: &Plan) -> Result<()> {
    let rlimits = plan.child.process.as_ref().map(|process| process.rlimits.as_slice()).unwrap_or_default();
    for (index, limit) in rlimits.iter().enumerate() {
        let at = |text: String| Error::at(format!("process.rlimits[{index}]"), text);
        let (soft, hard) = sys::getrlimit(limit.resource).map_err(|errno| at("read it".to_owned()).errno(errno))?;
        if limit.hard <= hard {
            continue;
        }
        sys::prlimit(rustix::process::getpid(), limit.resource, soft, limit.hard).map_err(|errno| {
            let error = at(format!("raise the hard limit from {hard} to {}", limit.hard)).errno(errno);
            if errno == Errno::PERM { error.hint("raising a hard limit needs CAP_SYS_RESOURCE") } else { error }
        })?;
    }
    Ok(())
}

/// Who detaches needs somebody else to have the terminal, and nobody else does.
pub(crate) fn check_terminal(terminal: bool, detaches: bool, socket: bool) -> Result<()> {
    if terminal && detaches && !socket {
        let text = "cannot allocate tty if runc will detach without setting console socket";
        return Err(Error::at("process.terminal", text).hint("--console-socket, or \"terminal\": false"));
    }
    if socket && !(terminal && detaches) {
        let text = "cannot use console socket if runc will not detach or allocate tty";
        return Err(Error::at("--console-socket", text));
    }
    Ok(())
}

/// Sends a pidfd, with the word that tells what it is of.
pub(crate) fn send_pidfd(socket: &OwnedFd, word: &[u8], pidfd: &OwnedFd) -> Result<()> {
    sys::sendmsg_fd(socket.as_fd(), word, pidfd.as_fd())
        .map(drop)
        .map_err(|errno| Error::at("--pidfd-socket", "send the pidfd").errno(errno))
}

/// Sets the terminal up, and hands it over where somebody else is to have it.
pub(crate) fn terminal(master: Option<OwnedFd>, plan: &Plan, console: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    let Some(master) = master else { return Ok(None) };
    let failed = |errno: Errno| Error::at("process.terminal", "set up the terminal").errno(errno);
    let size = plan.child.process.as_ref().and_then(|process| process.console_size);
    // The caller's size, which it follows later, before the program starts, so that it never sees another, or 0 by 0.
    let callers = if console.is_none() { console::callers_size() } else { None };
    let size = callers.filter(|size| *size != (0, 0)).or(size);
    size.map_or(Ok(()), |size| console::set_size(&master, size)).map_err(failed)?;
    let Some(socket) = console else {
        if !rustix::termios::isatty(rustix::stdio::stdout()) {
            console::keep_newlines(&master).map_err(failed)?;
        }
        return Ok(Some(master));
    };
    let name = console::name(&master).map_err(failed)?;
    sys::sendmsg_fd(socket.as_fd(), name.as_bytes(), master.as_fd())
        .map_err(|errno| Error::at("--console-socket", "send the terminal").errno(errno))?;
    Ok(None)
}

/// A new file, renamed: a reader sees all of the number or nothing.
pub(crate) fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error: std::io::Error| Error::at("--pid-file", format!("write {path:?}")).errno(error);
    if write_nameless(path, pid).is_ok() {
        return Ok(());
    }
    let name = path.file_name().ok_or_else(|| Error::at("--pid-file", format!("{path:?} is no file name")))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    // With a mode of its own: our umask is 0.
    let mut file =
        std::fs::File::options().write(true).create_new(true).mode(0o644).open(&temporary).map_err(failed)?;
    let written = std::io::Write::write_all(&mut file, pid.as_raw_nonzero().to_string().as_bytes());
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}

/// A crash leaves no file of another name behind, this way. Not every file system can, and not if there is one already.
fn write_nameless(path: &Path, pid: Pid) -> rustix::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags};
    let directory = path.parent().ok_or(Errno::NOENT)?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, pid.as_raw_nonzero().to_string().as_bytes())?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::linkat(CWD, link, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Passes on what is no error.
pub(crate) fn warn(plan: &Plan, fault: &Fault, log: &Log) {
    log.warning_of(&plan::explain(plan, fault));
}

/// Answers the child until it is ready.
pub(crate) struct Supervisor<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) host: &'a Host,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) state: &'a StateText,
    pub(crate) bundle: &'a Path,
    pub(crate) devices: Vec<netdev::Device>,
    pub(crate) agent: Option<Agent>,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) log: &'a Log,
    pub(crate) rollback: &'a mut Rollback,
}

/// A child that is ready.
pub(crate) struct Supervised {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) sync: ParentEnd,
    pub(crate) terminal: Option<OwnedFd>,
}

impl Supervisor<'_> {
    pub(crate) fn until_ready(&mut self, child: Spawned) -> Result<Supervised> {
        let Spawned { mut pid, mut pidfd, sync } = child;
        let mut terminal = None;
        self.log.debug(format_args!("child {pid} is cloned"));
        loop {
            self.interrupt.wait_for(sync.0.as_fd(), who(self.plan))?;
            match sync.receive() {
                Ok(Message::Ready) => {
                    self.log.debug(format_args!("child {pid} is ready"));
                    return Ok(Supervised { pid, pidfd, sync, terminal });
                }
                Ok(Message::Spawned(second)) => {
                    (pid, pidfd) = self.second_child(second, &pidfd)?;
                    self.log.debug(format_args!("child {pid} is the second, in the namespaces"));
                }
                Ok(Message::NeedMaps) => {
                    self.write_maps(pid)?;
                    self.log.debug("id maps are written");
                    self.go_on(&sync, &pidfd)?;
                }
                Ok(Message::NeedDevices) => {
                    self.move_devices(pid)?;
                    self.log.debug("network devices are moved");
                    self.go_on(&sync, &pidfd)?;
                }
                Ok(Message::NeedHooks) => {
                    self.hooks(pid)?;
                    self.log.debug("prestart and createRuntime hooks have run");
                    self.go_on(&sync, &pidfd)?;
                }
                Ok(Message::Terminal(master)) => terminal = Some(master),
                Ok(Message::Listener(listener)) => {
                    let agent = self.agent.take().ok_or_else(|| self.died(&pidfd, Some(Errno::PROTO)))?;
                    agent.give(listener, pid, &pidfd, self.state)?;
                    self.log.debug("the seccomp agent has the listener");
                    self.go_on(&sync, &pidfd)?;
                }
                Ok(Message::Warning(fault)) => warn(self.plan, &fault, self.log),
                Ok(Message::Fault(fault)) => {
                    if fault.is_hooks() {
                        self.rollback.poststop(self.plan, self.state, self.bundle);
                    }
                    return Err(plan::explain(self.plan, &fault));
                }
                Ok(Message::End) => return Err(self.died(&pidfd, None)),
                // Only criu's child has one.
                Ok(Message::Socket(_)) => return Err(self.died(&pidfd, Some(Errno::PROTO))),
                Err(errno) => return Err(self.died(&pidfd, Some(errno))),
            }
        }
    }

    fn hooks(&mut self, pid: Pid) -> Result<()> {
        self.rollback.poststop(self.plan, self.state, self.bundle);
        let (hooks, output) = (&self.plan.hooks, &self.plan.acting.hook_output);
        let state = self.state.json("created", pid.as_raw_nonzero().get());
        let run = |list| run_hooks(list, &state, self.bundle, output, Some(self.interrupt));
        run(&hooks.prestart)?;
        run(&hooks.create_runtime)
    }

    fn go_on(&self, sync: &ParentEnd, pidfd: &OwnedFd) -> Result<()> {
        sync.go_on().map_err(|errno| self.died(pidfd, Some(errno)))
    }

    fn died(&self, pidfd: &OwnedFd, errno: Option<Errno>) -> Error {
        init_died(self.plan, self.cgroup, pidfd, errno)
    }

    /// The first child is done; the second is our child too, so its pid cannot be another process' yet.
    fn second_child(&mut self, pid: Pid, first: &OwnedFd) -> Result<(Pid, OwnedFd)> {
        let failed = |errno| Error::at("linux.namespaces", "take over the second child").errno(errno);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        self.rollback.child(&pidfd)?;
        reap(first);
        Ok((pid, pidfd))
    }

    fn move_devices(&mut self, pid: Pid) -> Result<()> {
        let mut handover = Handover::open(&self.host.proc, pid)?;
        let done = handover.carry_out(&self.plan.net_devices, std::mem::take(&mut self.devices));
        // Also when that failed: some may have moved.
        self.rollback.devices(handover);
        done
    }

    fn write_maps(&self, pid: Pid) -> Result<()> {
        let Some(maps) = &self.plan.idmap else { return Ok(()) };
        idmap::write(self.host, pid, maps, self.plan.writers, "linux")
    }
}

/// Waits for a child that is dead or about to be.
pub(crate) fn reap(pidfd: &OwnedFd) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED;
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)).ok().flatten()
}

/// The child is gone without a word.
pub(crate) fn init_died(plan: &Plan, cgroup: &Cgroup, pidfd: &OwnedFd, errno: Option<Errno>) -> Error {
    // It may still live if it only closed its end; then nothing would end the wait.
    let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let status = reap(pidfd);
    let signal = status.and_then(|status| status.terminating_signal());
    let who = if plan.is_exec() { "the process" } else { "container init" };
    // Of an exec it may have been another process of the container, long ago.
    if cgroup.oom_kills() > 0 && !plan.is_exec() {
        return Error::at(MEMORY_LIMIT, "container init was OOM-killed (memory limit too low?)");
    }
    let filtered = plan.child.process.as_ref().is_some_and(|process| process.seccomp.is_some());
    if signal == Some(libc::SIGSYS) && filtered {
        return Error::at("linux.seccomp", format!("the profile has killed {who} (SIGSYS)")).hint(
            "before the program is executed it must allow write, read, close_range, execve and what the program needs",
        );
    }
    let how = match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) => format!(": exit status {code}"),
        Some((_, Some(signal))) => format!(": signal {signal}"),
        _ => String::new(),
    };
    let error = Error::new(format!("{who} died before it was ready{how}"));
    let error = if signal == Some(libc::SIGKILL) && cgroup.oom_kills() > 0 {
        error.hint("linux.resources.memory.limit may be too low: the container has had OOM kills")
    } else {
        error
    };
    match errno {
        Some(errno) => error.errno(errno),
        None => error,
    }
}
