//! `create`: the steps of the parent. Runs in: parent. The child's are in [`crate::init`].
//!
//! What is made is pushed on a [`Rollback`] and undone in reverse on an error.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::SigSet;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::hooks::{self, StateText};
use crate::host::{self, Host};
use crate::init::Init;
use crate::logging::Log;
use crate::plan::{self, Facts, HookFailure, HookOutput, HookPlan, Options, Plan};
use crate::rollback::Rollback;
use crate::state::{Container, Record, Root};
use crate::sync::{Message, ParentEnd};
use crate::sys::{self, Clone3, Cloned};
use crate::{console, open, spec};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserve_fds: u32,
    pub(crate) ends: Ends,
}

/// How the command ends, which decides who has the terminal and whether init waits for `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// `create`: when init is ready.
    Created,
    /// `run --detach`: when the program runs.
    Started,
    /// `run`: when the program has ended.
    Waited,
}

/// A container whose init is ready.
pub(crate) struct Created {
    pub(crate) host: Host,
    pub(crate) plan: Plan,
    pub(crate) container: Container,
    pub(crate) record: Record,
    pub(crate) state: StateText,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// The pty's master, where it is not another program's.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) sync: ParentEnd,
}

/// `create ID`.
pub(crate) fn create(root: &Root, request: &Request, log: &Log) -> Result<()> {
    make(root, request, log).map(drop)
}

/// Makes a container. When it returns, init waits: in `create` at the gate, in `run` for nothing any more.
pub(crate) fn make(root: &Root, request: &Request, log: &Log) -> Result<Created> {
    let (plan, host) = decide(request, log)?;
    check_terminal(&plan, request)?;
    let sockets = Sockets {
        console: request.console_socket.as_deref().map(|path| open::socket("--console-socket", path)).transpose()?,
        pidfd: pidfd_socket(request, &plan)?,
    };
    let hook_output = open::hook_output(&plan.acting.hook_output)?;
    let joined = open::namespaces(&host, &plan.child)?;
    let mut rollback = Rollback::new();
    let made = carry_out(root, request, log, plan, host, sockets, &hook_output, &joined, &mut rollback);
    made.map_err(|error| rollback.undo(error))
}

/// From the files to the plan. Nothing is made here.
fn decide(request: &Request, log: &Log) -> Result<(Plan, Host)> {
    let bundle = std::path::absolute(&request.bundle)
        .map_err(|error| Error::at("--bundle", format!("{:?}", request.bundle)).errno(error))?;
    let loaded = spec::load(&bundle)?;
    let host = host::look()?;
    let facts = Facts { cgroups: host.cgroups.version, last_cap: host.last_cap, permitted: host.permitted };
    let options = Options {
        id: request.id.clone(),
        bundle,
        no_pivot: request.no_pivot,
        no_new_keyring: request.no_new_keyring,
        preserve_fds: request.preserve_fds,
    };
    let plan = plan::make(&loaded.spec, &options, &facts)?;
    for warning in loaded.warnings.iter().chain(&plan.warnings) {
        log.warning(warning);
    }
    Ok((plan, host))
}

fn check_terminal(plan: &Plan, request: &Request) -> Result<()> {
    let terminal = plan.child.process.as_ref().is_some_and(|process| process.terminal);
    let detaches = request.ends != Ends::Waited;
    let socket = request.console_socket.is_some();
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

/// Sockets that get something of the new container.
struct Sockets {
    console: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

fn pidfd_socket(request: &Request, plan: &Plan) -> Result<Option<OwnedFd>> {
    let asked = request.pidfd_socket.as_ref().map(|path| ("--pidfd-socket", path));
    let annotated = plan.acting.pidfd_receiver.as_ref().map(|path| ("annotations[\"run.oci.pidfd_receiver\"]", path));
    asked.or(annotated).map(|(field, path)| open::socket(field, path)).transpose()
}

#[expect(clippy::too_many_arguments, reason = "the list of what `make` has opened; it is called once")]
fn carry_out(
    root: &Root,
    request: &Request,
    log: &Log,
    plan: Plan,
    host: Host,
    sockets: Sockets,
    hook_output: &hooks::Output,
    joined: &[OwnedFd],
    rollback: &mut Rollback,
) -> Result<Created> {
    // State first: from here on `delete --force` finds everything that is made.
    let container = root.reserve(&request.id)?;
    rollback.container(&container)?;
    let cgroup = host.cgroups.place(plan.cgroups_path.as_deref(), &request.id)?;
    let record = record(request, &plan, &host, cgroup)?;
    container.write_record(&record)?;
    let existing = make_cgroup(&record.cgroup, &plan, rollback)?;

    let state = StateText::new(&request.id, &record.bundle, &plan.annotations);
    let trees = open::trees(&plan, &record.cgroup)?;
    let tasks = record.cgroup.task_files()?;
    let into = record.cgroup.unified_dir()?;
    let gate = if request.ends == Ends::Created { Some(container.make_gate()?) } else { None };
    let (parent_end, child_end) = socket_pair()?;
    block_signals()?;
    let init = Init {
        plan: &plan.child,
        hooks: &plan.hooks,
        state: &state,
        bundle: &record.bundle,
        hook_output,
        rootfs: &record.rootfs,
        proc: host.proc.as_fd(),
        trees: &trees,
        joined,
        tasks: &tasks,
        gate: gate.as_ref().map(AsFd::as_fd),
        sync: child_end.as_fd(),
        has_idmap: plan.idmap.is_some(),
    };
    let namespaces = &plan.child.namespaces;
    let flags = if namespaces.needs_second_child() { 0 } else { namespaces.new };
    let what = Clone3 { flags: u64::try_from(flags).unwrap_or(0), cgroup: into.as_ref().map(AsFd::as_fd) };
    let (pid, pidfd) = match sys::clone3(what) {
        Ok(Cloned::Child) => {
            drop(parent_end);
            init.run()
        }
        Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
        Err(errno) => return Err(Error::at("linux.namespaces", "create the namespaces").errno(errno)),
    };
    rollback.child(&pidfd)?;
    // A second child inherits them.
    raise_hard_limits(&plan, pid)?;
    // The child has its own copies. With ours gone, its end of the socket is the last one, and the gate is its alone.
    drop((child_end, gate, trees, tasks, into));
    // The rootfs was our directory for the child's sake; it must not be kept busy by us.
    rustix::process::chdir("/").map_err(|errno| Error::new("chdir /").errno(errno))?;
    let sync = ParentEnd(parent_end);
    let supervised =
        Supervisor { plan: &plan, host: &host, record: &record, state: &state, sync: &sync, log, rollback }
            .until_ready(pid, pidfd)?;
    let (pid, pidfd) = (supervised.pid, supervised.pidfd);
    // Not earlier: the child makes device nodes that the container may not use.
    record.cgroup.apply_devices(&plan.device_rules)?;
    set_oom_score(&plan, &host, pid)?;
    set_scheduler(&plan, pid)?;
    let terminal = terminal(supervised.terminal, &plan, sockets.console)?;
    if let Some(socket) = &sockets.pidfd {
        // runc's word for an init, as opposed to "setns" for an exec.
        sys::sendmsg_fd(socket.as_fd(), b"standard", pidfd.as_fd())
            .map_err(|errno| Error::at("--pidfd-socket", "send the pidfd").errno(errno))?;
    }
    container.write_init(&host.proc, pid, &existing)?;
    if let Some(path) = &request.pid_file {
        rollback.pid_file(path);
        write_pid_file(path, pid)?;
    }
    sync.go_on().map_err(|errno| init_died(&record.cgroup, &pidfd, Some(errno)))?;
    rollback.keep();
    Ok(Created { host, plan, container, record, state, pid, pidfd, terminal, sync })
}

fn record(request: &Request, plan: &Plan, host: &Host, cgroup: Cgroup) -> Result<Record> {
    let mut record = Record::new(&request.id, &host.proc, cgroup)?;
    record.bundle = std::path::absolute(&request.bundle)
        .map_err(|error| Error::at("--bundle", format!("{:?}", request.bundle)).errno(error))?;
    record.rootfs.clone_from(&plan.rootfs.0);
    record.annotations.clone_from(&plan.annotations);
    record.hooks.clone_from(&plan.late_hooks);
    record.has_process = plan.child.process.is_some();
    record.own_pid_namespace = plan.child.namespaces.is_new(libc::CLONE_NEWPID);
    Ok(record)
}

/// Makes the cgroup and sets its limits, before any process is in it.
fn make_cgroup(cgroup: &Cgroup, plan: &Plan, rollback: &mut Rollback) -> Result<Vec<PathBuf>> {
    rollback.cgroup(cgroup);
    let existing = cgroup.create().map_err(|failed| {
        // What was there before is not ours to remove.
        rollback.keep_cgroups(&failed.existing);
        failed.error
    })?;
    rollback.keep_cgroups(&existing);
    cgroup.apply(&plan.settings)?;
    Ok(existing)
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::new("socketpair").errno(errno))
}

/// Before the clone, so that none is lost between it and the first wait; the child sets its own mask before exec.
fn block_signals() -> Result<()> {
    SigSet::all().thread_block().map_err(|errno| Error::new("sigprocmask").errno(errno))
}

fn set_oom_score(plan: &Plan, host: &Host, pid: Pid) -> Result<()> {
    let Some(value) = plan.oom_score_adj else { return Ok(()) };
    let file = format!("{}/oom_score_adj", pid.as_raw_nonzero());
    host::write_raw(&host.proc, &file, value.to_string().as_bytes()).map_err(|errno| {
        let error = Error::at("process.oomScoreAdj", format!("set to {value}")).errno(errno);
        if errno == rustix::io::Errno::ACCESS { error.hint("lowering it needs CAP_SYS_RESOURCE") } else { error }
    })
}

/// From outside: in a user namespace the child has no right to raise anything. When it is ready: a low priority must not
/// slow its own work down.
fn set_scheduler(plan: &Plan, pid: Pid) -> Result<()> {
    let Some(process) = &plan.child.process else { return Ok(()) };
    let failed = |field: &str, what: String, errno: rustix::io::Errno| {
        let error = Error::at(field, what).errno(errno);
        if errno == rustix::io::Errno::PERM {
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

/// Raises hard limits, from outside a user namespace, where that may be permitted. The child then sets each limit by
/// itself, as the last thing it does, so that a small one does not hit its own work.
fn raise_hard_limits(plan: &Plan, pid: Pid) -> Result<()> {
    let rlimits = plan.child.process.as_ref().map(|process| process.rlimits.as_slice()).unwrap_or_default();
    for (index, limit) in rlimits.iter().enumerate() {
        let at = |text: String| Error::at(format!("process.rlimits[{index}]"), text);
        let (soft, hard) = sys::getrlimit(limit.resource).map_err(|errno| at("read it".to_owned()).errno(errno))?;
        if limit.hard <= hard {
            continue;
        }
        sys::prlimit(pid, limit.resource, soft, limit.hard).map_err(|errno| {
            let error = at(format!("raise the hard limit from {hard} to {}", limit.hard)).errno(errno);
            if errno == rustix::io::Errno::PERM {
                error.hint("raising a hard limit needs CAP_SYS_RESOURCE")
            } else {
                error
            }
        })?;
    }
    Ok(())
}

/// Sets the terminal up, and hands it over where somebody else is to have it.
fn terminal(master: Option<OwnedFd>, plan: &Plan, console: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    let Some(master) = master else { return Ok(None) };
    let failed = |errno: rustix::io::Errno| Error::at("process.terminal", "set up the terminal").errno(errno);
    let size = plan.child.process.as_ref().and_then(|process| process.console_size);
    // The caller's size before the program starts, so that it never sees 0 by 0.
    let size = size.or_else(|| if console.is_none() { console::callers_size() } else { None });
    console::prepare(&master, size).map_err(failed)?;
    let Some(socket) = console else { return Ok(Some(master)) };
    let name = console::name(&master).map_err(failed)?;
    sys::sendmsg_fd(socket.as_fd(), name.as_bytes(), master.as_fd())
        .map_err(|errno| Error::at("--console-socket", "send the terminal").errno(errno))?;
    Ok(None)
}

/// A new file, renamed: a reader sees all of the number or nothing.
fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error: std::io::Error| Error::at("--pid-file", format!("write {path:?}")).errno(error);
    let name = path.file_name().ok_or_else(|| Error::at("--pid-file", format!("{path:?} is no file name")))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    let write = || {
        // With a mode of its own: our umask is 0.
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o644).open(&temporary)?;
        std::io::Write::write_all(&mut file, pid.as_raw_nonzero().to_string().as_bytes())?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}

/// Answers the child until it is ready.
struct Supervisor<'a> {
    plan: &'a Plan,
    host: &'a Host,
    record: &'a Record,
    state: &'a StateText,
    sync: &'a ParentEnd,
    log: &'a Log,
    rollback: &'a mut Rollback,
}

struct Supervised {
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

impl Supervisor<'_> {
    fn until_ready(&mut self, pid: Pid, pidfd: OwnedFd) -> Result<Supervised> {
        let mut child = Supervised { pid, pidfd, terminal: None };
        loop {
            match self.sync.receive() {
                Ok(Message::Ready) => return Ok(child),
                Ok(Message::Spawned(pid)) => child = self.second_child(pid, &child.pidfd)?,
                Ok(Message::NeedMaps) => self.write_maps(child.pid).and_then(|()| self.go_on(&child))?,
                Ok(Message::NeedHooks) => {
                    let pid = child.pid.as_raw_nonzero().get();
                    self.rollback.poststop(self.plan, self.state, &self.record.bundle);
                    let (state, bundle) = (self.state.json("creating", pid), &self.record.bundle);
                    let output = &self.plan.acting.hook_output;
                    run_hooks(&self.plan.hooks.prestart, &state, bundle, output)?;
                    run_hooks(&self.plan.hooks.create_runtime, &state, bundle, output)?;
                    self.go_on(&child)?;
                }
                Ok(Message::Terminal(master)) => child.terminal = Some(master),
                Ok(Message::Warning(fault)) => self.log.warning(&plan::explain(self.plan, &fault).to_string()),
                Ok(Message::Fault(fault)) => return Err(plan::explain(self.plan, &fault)),
                Ok(Message::End) => return Err(init_died(&self.record.cgroup, &child.pidfd, None)),
                Err(errno) => return Err(init_died(&self.record.cgroup, &child.pidfd, Some(errno))),
            }
        }
    }

    fn go_on(&self, child: &Supervised) -> Result<()> {
        self.sync.go_on().map_err(|errno| init_died(&self.record.cgroup, &child.pidfd, Some(errno)))
    }

    /// The first child is done; the second is our child too, so its pid cannot be another process' yet.
    fn second_child(&mut self, pid: i32, first: &OwnedFd) -> Result<Supervised> {
        let failed = |errno| Error::at("linux.namespaces", "take over the second child").errno(errno);
        let pid = Pid::from_raw(pid).ok_or_else(|| failed(rustix::io::Errno::SRCH))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        self.rollback.child(&pidfd)?;
        reap(first);
        Ok(Supervised { pid, pidfd, terminal: None })
    }

    fn write_maps(&self, pid: Pid) -> Result<()> {
        let Some(maps) = &self.plan.idmap else { return Ok(()) };
        let pid = pid.as_raw_nonzero().get();
        for (file, field, map) in
            [("uid_map", "linux.uidMappings", &maps.uid), ("gid_map", "linux.gidMappings", &maps.gid)]
        {
            host::write_raw(&self.host.proc, &format!("{pid}/{file}"), map.as_bytes()).map_err(|errno| {
                let lines = map.trim_end().replace('\n', ", ");
                Error::at(field, format!("write {lines:?} to {file}")).errno(errno)
            })?;
        }
        Ok(())
    }
}

/// Runs hooks of the runtime's namespaces. A hook that gives no environment gets ours.
pub(crate) fn run_hooks(list: &[HookPlan], state: &str, bundle: &Path, output: &HookOutput) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let environment = own_environment();
    let place = hooks::Place { cwd: bundle, environment: &environment, output: &open::hook_output(output)? };
    hooks::run(list, state, &place).map_err(|failed| {
        let Some(hook) = list.get(failed.index) else { return Error::new("hook") };
        let failure = match failed.failure {
            hooks::Failure::Start(errno) => HookFailure::Start(errno),
            hooks::Failure::Exit(code) => HookFailure::Exit(code),
            hooks::Failure::Signal(signal) => HookFailure::Signal(signal),
            hooks::Failure::Timeout => HookFailure::Timeout(hook.timeout_seconds.unwrap_or(0)),
        };
        plan::hook_failed(&hook.field, &hook.path.to_string_lossy(), &failure, &String::from_utf8_lossy(&failed.output))
    })
}

/// The environment of this process.
pub(crate) fn own_environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStrExt;
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    };
    std::env::vars_os().filter_map(entry).collect()
}

/// Waits for a child that is dead or about to be.
pub(crate) fn reap(pidfd: &OwnedFd) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED;
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)).ok().flatten()
}

/// The child is gone without a word.
pub(crate) fn init_died(cgroup: &Cgroup, pidfd: &OwnedFd, errno: Option<rustix::io::Errno>) -> Error {
    // It may still live if it only closed its end; then nothing would end the wait.
    let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let status = reap(pidfd);
    if cgroup.oom_kills() > 0 {
        return Error::at("linux.resources.memory.limit", "container init was OOM-killed (memory limit too low?)");
    }
    let how = match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) => format!(": exit status {code}"),
        Some((_, Some(signal))) => format!(": signal {signal}"),
        _ => String::new(),
    };
    let error = Error::new(format!("container init died before it was ready{how}"));
    match errno {
        Some(errno) => error.errno(errno),
        None => error,
    }
}
