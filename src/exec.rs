//! `exec`: a further process in a container. Runs in: parent. The child's steps are in [`crate::init::Exec`].
//!
//! It needs nothing but the saved state: the container's configuration as it was at `create`, and its init.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::agent::Agent;
use crate::cgroups::Version;
use crate::child::{self, Supervised, Supervisor};
use crate::create::facts;
use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::host::{self, Host};
use crate::init::Exec;
use crate::interrupt::Interrupt;
use crate::logging::Log;
use crate::plan::{self, Changes, Plan, Wanted};
use crate::rollback::Rollback;
use crate::state::{InitProcess, Record, Root, Status};
use crate::sync::{Message, ParentEnd};
use crate::{cgroups, open, run, spec, sys};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    /// A process.json; else the container's own process is changed.
    pub(crate) process: Option<PathBuf>,
    pub(crate) changes: Changes,
    pub(crate) detach: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) preserve_fds: u32,
    /// `[CONTROLLER,...:]PATH` below the container's cgroup.
    pub(crate) cgroups: Vec<String>,
    pub(crate) ignore_paused: bool,
}

/// `exec ID`. Returns the status of the process, or 128 and the signal that ended it; 0 with `--detach`.
pub(crate) fn exec(root: &Root, request: Request, log: &Log) -> Result<u8> {
    let host = host::look()?;
    let container = root.find(&request.id)?;
    let (status, process) = container.status(&host.proc)?;
    let (Some(init), Some(record)) = (process, container.record()?) else {
        return Err(Error::new(match status {
            Status::Creating => "cannot exec in a container that is still being created",
            _ => "cannot exec in a stopped container",
        }));
    };
    if status == Status::Paused && !request.ignore_paused {
        return Err(refuse_paused());
    }
    let config = spec::parse(&container.config()?)?;
    let wanted = match &request.process {
        Some(path) => Wanted::Whole(Box::new(spec::load_process(path, log)?)),
        None => Wanted::Changed(request.changes),
    };
    let lsm = host.lsm(plan::exec_lsm(&config.spec, &wanted))?;
    let keyring = if record.new_keyring { Some(plan::keyring(&record.id)?) } else { None };
    let plan = plan::make_exec(&config.spec, wanted, keyring, request.preserve_fds, &facts(&host, lsm))?;
    for warning in &plan.warnings {
        log.warning(warning);
    }
    for note in &plan.notes {
        log.debug(note);
    }
    let terminal = plan.child.process.as_ref().is_some_and(|process| process.terminal);
    child::check_terminal(terminal, request.detach, request.console_socket.is_some())?;
    let connect =
        |option: &str, path: &Option<PathBuf>| path.as_ref().map(|path| open::socket(option, path)).transpose();
    let console = connect("--console-socket", &request.console_socket)?;
    let pidfd_socket = connect("--pidfd-socket", &request.pidfd_socket)?;
    let agent = Agent::connect(&plan, Some((status, init.pid)))?;
    let join = join(&host, record, &init, &request.cgroups)?;
    let kinds = kinds(&host, &plan, &init, status)?;

    let root = if kinds & libc::CLONE_NEWNS == 0 { Some(root_of(&host, &init)?) } else { None };
    set_affinity(&plan)?;
    let interrupt = Interrupt::new()?;
    if status != Status::Paused {
        // A pause would freeze the child halfway, and this command would wait for it.
        container.lock_shared()?;
        if container.status(&host.proc)?.0 == Status::Paused {
            return Err(refuse_paused());
        }
    }
    let mut rollback = Rollback::new();
    let executed = || -> Result<Executed> {
        let spawned = child::spawn(&plan, join, 0, &interrupt, &mut rollback, |sync, tasks| {
            let plan = &plan.child;
            let (root, proc) = (root.as_ref().map(AsFd::as_fd), host.proc.as_fd());
            Exec { plan, init: init.pidfd.as_fd(), kinds, root, proc, tasks, sync }.run()
        })?;
        let state = StateText::new(&record.id, &record.bundle, &plan.annotations);
        let (cgroup, bundle) = (&record.cgroup, record.bundle.as_path());
        let mut supervisor = Supervisor {
            plan: &plan,
            host: &host,
            cgroup,
            state: &state,
            bundle,
            devices: Vec::new(),
            agent,
            interrupt: &interrupt,
            log,
            rollback: &mut rollback,
        };
        let Supervised { pid, pidfd, sync, terminal } = supervisor.until_ready(spawned)?;
        child::adjust(&plan, &host, record, pid)?;
        let terminal = child::terminal(terminal, &plan, console)?;
        if let Some(socket) = &pidfd_socket {
            // runc's word for an exec, as opposed to "standard" for an init.
            child::send_pidfd(socket, b"setns", &pidfd)?;
        }
        if let Some(path) = &request.pid_file {
            child::write_pid_file(path, pid)?;
            rollback.pid_file(path);
        }
        sync.go_on().map_err(|errno| child::init_died(&plan, cgroup, &pidfd, Some(errno)))?;
        wait_for_exec(&plan, &interrupt, &sync, log)?;
        Ok(Executed { pid, pidfd, terminal })
    }();
    let executed = executed.map_err(|error| rollback.undo(error))?;
    container.unlock();
    log.succeeds();
    if request.detach {
        return Ok(0);
    }
    run::wait(executed.pid, &executed.pidfd, executed.terminal, None)
}

/// Of this process, and so of the child until it is in the cgroup, whose processors may be others.
fn set_affinity(plan: &Plan) -> Result<()> {
    let initial = plan.child.process.as_ref().and_then(|process| process.exec_affinity.initial.as_ref());
    initial
        .map_or(Ok(()), |cpus| sys::sched_setaffinity(cpus))
        .map_err(|errno| Error::at("process.execCPUAffinity.initial", "set it").errno(errno))
}

fn refuse_paused() -> Error {
    Error::new("cannot exec in a paused container (use --ignore-paused to override)")
}

/// A program that runs.
struct Executed {
    pid: rustix::process::Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// The child's end of the socket is closed by exec.
fn wait_for_exec(plan: &Plan, interrupt: &Interrupt, sync: &ParentEnd, log: &Log) -> Result<()> {
    loop {
        interrupt.wait_for(sync.0.as_fd(), "the process to execute its program")?;
        match sync.receive() {
            Ok(Message::End) => return Ok(()),
            Ok(Message::Fault(fault)) => return Err(plan::explain(plan, &fault)),
            Ok(Message::Warning(fault)) => child::warn(plan, &fault, log),
            Ok(other) => return Err(Error::new(format!("unexpected message of the child: {other:?}"))),
            Err(errno) => return Err(Error::new("wait for the program to start").errno(errno)),
        }
    }
}

/// The container's cgroup, or one below it. On v2 a cgroup that has given its controllers to children can hold no process:
/// then that of init.
fn join(host: &Host, record: &Record, init: &InitProcess, below: &[String]) -> Result<cgroups::Join> {
    if !below.is_empty() {
        return record.cgroup.below(below)?.join();
    }
    if record.cgroup.version == Version::V2 && record.cgroup.has_given_controllers() {
        let own = host::read(&host.proc, &format!("{}/cgroup", init.pid.as_raw_nonzero()))?;
        return record.cgroup.at(&own).join();
    }
    record.cgroup.join()
}

/// `/proc/<pid>/root` of a container that has no mount namespace of its own, only another root.
fn root_of(host: &Host, init: &InitProcess) -> Result<OwnedFd> {
    let link = format!("{}/root", init.pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(&host.proc, &link, flags, Mode::empty(), ResolveFlags::empty())
        .map_err(|errno| Error::new(format!("open /proc/{link}")).errno(errno))
}

/// `CLONE_NEW*` of the namespaces to join: those of the configuration, and those of whoever called `create`, which need
/// not be ours. A process cannot join the user namespace in which it is already (setns(2)).
fn kinds(host: &Host, plan: &Plan, init: &InitProcess, status: Status) -> Result<i32> {
    let mut kinds = plan.child.namespaces.kinds();
    let namespace = |pid: &str, name: &str| {
        let link = format!("{pid}/ns/{name}");
        match rustix::fs::statat(&host.proc, &link, AtFlags::empty()) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            // A kernel without this type.
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => {
                let error = Error::new(format!("stat /proc/{link}")).errno(errno);
                // See `visible_at_gate`.
                let is_hidden = errno == Errno::ACCESS && status == Status::Created;
                Err(if is_hidden {
                    error.hint(
                        "start it first: till then others in its namespaces must not look into it, nor may its user",
                    )
                } else {
                    error
                })
            }
        }
    };
    let init = init.pid.as_raw_nonzero().to_string();
    let is_ours = |name: &str| Ok::<_, Error>(namespace("self", name)? == namespace(&init, name)?);
    if kinds & libc::CLONE_NEWUSER != 0 && is_ours("user")? {
        kinds &= !libc::CLONE_NEWUSER;
    }
    for (kind, name) in [
        (libc::CLONE_NEWNET, "net"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (libc::CLONE_NEWTIME, "time"),
    ] {
        if kinds & kind == 0 && !is_ours(name)? {
            kinds |= kind;
        }
    }
    Ok(kinds)
}
