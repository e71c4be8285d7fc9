//! `create`: the steps of the parent. Runs in: parent. The child's are in [`crate::init`].
//!
//! What is made is pushed on a [`Rollback`] and undone in reverse on an error.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::Pid;

use crate::agent::Agent;
use crate::cgroups::{Cgroup, Driver, Holder, Manager, none};
use crate::child::{self, Supervised, Supervisor};
use crate::deadline;
use crate::error::{Error, Result};
use crate::hooks::{self, StateText};
use crate::host::{self, Host};
use crate::init::Init;
use crate::interrupt::Interrupt;
use crate::logging::Log;
use crate::netdev;
use crate::notify::{self, Notify};
use crate::plan::{self, Facts, HookFailure, HookOutput, HookPlan, Lsm, Options, Plan};
use crate::rdt;
use crate::rollback::Rollback;
use crate::rootfs::plan::Enter;
use crate::state::{Container, Record, Root};
use crate::sync::ParentEnd;
use crate::{open, spec};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) cgroup_driver: Driver,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// Those of `listen_fds` too.
    pub(crate) preserve_fds: u32,
    /// Sockets for the program, of socket activation.
    pub(crate) listen_fds: u32,
    pub(crate) ends: Ends,
    /// Whether to do without what is not permitted of cgroups; None: for all but real root.
    pub(crate) rootless: Option<bool>,
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
    pub(crate) container: Rc<Container>,
    pub(crate) record: Record,
    pub(crate) state: StateText,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// The pty's master, where it is not another program's.
    pub(crate) terminal: Option<OwnedFd>,
    /// In `run`, which has nobody else to wait for it.
    pub(crate) notify: Option<Notify>,
    /// For waits that are still to come.
    pub(crate) interrupt: Interrupt,
}

/// `create ID`.
pub(crate) fn create(root: &Root, request: &Request, log: &Log) -> Result<()> {
    make(root, request, log).map(drop)
}

/// Makes a container. When it returns, init waits: in `create` at the gate, in `run` for nothing any more.
pub(crate) fn make(root: &Root, request: &Request, log: &Log) -> Result<(Created, ParentEnd)> {
    let (plan, host, config) = decide(root, request, log)?;
    let terminal = plan.child.process.as_ref().is_some_and(|process| process.terminal);
    child::check_terminal(terminal, request.ends != Ends::Waited, request.console_socket.is_some())?;
    let sockets = Sockets {
        console: request.console_socket.as_deref().map(|path| open::socket("--console-socket", path)).transpose()?,
        pidfd: pidfd_socket(request, &plan)?,
    };
    let hook_output = open::hook_output(&plan.acting.hook_output)?;
    let joined = open::namespaces(&host, &plan.child)?;
    let devices = netdev::find(&plan.net_devices)?;
    let base = Base::open(request, &plan, &host, config)?;
    let agent = Agent::connect(&plan, None)?;
    let interrupt = Interrupt::new()?;
    let opened = Opened { sockets, hook_output, joined, devices, agent, interrupt, base };
    let mut rollback = Rollback::new();
    let made = carry_out(root, request, log, plan, host, opened, &mut rollback);
    made.map_err(|error| rollback.undo(error))
}

/// From the files to the plan. Nothing is made here.
pub(crate) fn decide(root: &Root, request: &Request, log: &Log) -> Result<(Plan, Host, Vec<u8>)> {
    let bundle = std::path::absolute(&request.bundle)
        .map_err(|error| Error::at("--bundle", format!("{:?}", request.bundle)).errno(error))?;
    let loaded = spec::load(&bundle)?;
    let host = host::look()?;
    let lsm = host.lsm(plan::lsm_wanted(loaded.spec.process().as_ref(), loaded.spec.linux().as_ref()))?;
    let options = Options {
        id: request.id.clone(),
        bundle,
        no_pivot: request.no_pivot,
        no_new_keyring: request.no_new_keyring,
        preserve_fds: request.preserve_fds,
        listen: listen(request.listen_fds),
        systemd: request.cgroup_driver == Driver::Systemd,
        notify: notify::host_socket().map(|_| notify::directory(&root.path().join(&request.id))),
    };
    let plan = plan::make(&loaded.spec, &options, &facts(&host, lsm))?;
    if request.cgroup_driver == Driver::Disabled {
        none::check(&plan.settings)?;
        log.debug("without a cgroup no device rule is in force");
    }
    for warning in loaded.warnings.iter().chain(&plan.warnings) {
        log.warning(warning);
    }
    for note in &plan.notes {
        log.debug(note);
    }
    if log.is_debug() {
        plan::describe(&plan).iter().for_each(|line| log.debug(line));
    }
    Ok((plan, host, loaded.text))
}

/// What tells the program of sockets that are passed to it: it is pid 1 in its namespace (sd_listen_fds(3)).
fn listen(count: u32) -> Vec<(&'static str, String)> {
    if count == 0 {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").ok().map(|names| ("LISTEN_FDNAMES", names));
    [("LISTEN_FDS", count.to_string()), ("LISTEN_PID", "1".to_owned())].into_iter().chain(names).collect()
}

/// What of the host the plan depends on.
pub(crate) fn facts(host: &Host, lsm: Lsm) -> Facts {
    Facts {
        cgroups: host.cgroups.version,
        last_cap: host.last_cap,
        permitted: host.permitted,
        lsm,
        caller: host.caller,
    }
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

/// What `make` has opened.
struct Opened {
    sockets: Sockets,
    hook_output: hooks::Output,
    joined: Vec<OwnedFd>,
    /// One for each of `plan.net_devices`.
    devices: Vec<netdev::Device>,
    agent: Option<Agent>,
    interrupt: Interrupt,
    base: Base,
}

/// What [`reserve`] needs besides the plan.
pub(crate) struct Base {
    /// The text of config.json, as it was read.
    pub(crate) config: Vec<u8>,
    pub(crate) rdt: Option<rdt::Groups>,
    /// Of the cgroup.
    pub(crate) manager: Option<Manager>,
}

impl Base {
    pub(crate) fn open(request: &Request, plan: &Plan, host: &Host, config: Vec<u8>) -> Result<Self> {
        let rdt = find_rdt(host, plan)?;
        let systemd = request.cgroup_driver == Driver::Systemd;
        let manager = if systemd { Some(Manager::connect(!host.caller.is_real_root())?) } else { None };
        Ok(Self { config, rdt, manager })
    }
}

fn find_rdt(host: &Host, plan: &Plan) -> Result<Option<rdt::Groups>> {
    let Some(plan) = &plan.rdt else { return Ok(None) };
    rdt::Groups::look(host.resctrl()?.as_deref(), plan).map(Some)
}

/// A container that has its name, its cgroup and its limits, and no process.
pub(crate) struct Reserved {
    pub(crate) container: Rc<Container>,
    pub(crate) record: Record,
    /// What systemd's unit needs until the first process is there.
    pub(crate) holder: Option<Holder>,
}

/// Makes the container's directory, its cgroup and its groups of resctrl.
pub(crate) fn reserve(
    root: &Root,
    request: &Request,
    log: &Log,
    plan: &Plan,
    host: &Host,
    base: &mut Base,
    rollback: &mut Rollback,
) -> Result<Reserved> {
    // State first: from here on `delete --force` finds everything that is made.
    let container = Rc::new(root.reserve(&request.id)?);
    rollback.container(&container);
    if notify::host_socket().is_some() {
        notify::make_directory(&container)?;
    }
    let path = plan.cgroups_path.as_deref();
    let mut cgroup = match (request.cgroup_driver, &mut base.manager) {
        (Driver::Disabled, _) => host.cgroups.none(),
        (Driver::Systemd, Some(manager)) => host.cgroups.place_unit(path, &request.id, manager)?,
        _ => host.cgroups.place(path, &request.id)?,
    };
    let rootless = request.rootless.unwrap_or(!host.caller.is_real_root());
    // systemd may do for a user what they may not do themselves.
    if rootless && request.cgroup_driver == Driver::Cgroupfs {
        let asked = path.is_some_and(|path| !path.as_os_str().is_empty());
        cgroup.leave_out_denied(&host.cgroups, asked, &plan.settings)?;
    }
    if rootless && cgroup.dirs.is_empty() && !plan.child.namespaces.has(libc::CLONE_NEWPID) {
        log.warning(
            "a rootless container with no cgroup and no private pid namespace. Such configuration is strongly discouraged: \
             nobody can tell which processes are its",
        );
    }
    cgroup.find_existing()?;
    let mut record = record(request, plan, host, cgroup)?;
    record.rdt = base.rdt.take();
    container.write_config(&base.config)?;
    container.write_record(&record)?;
    log.debug(format_args!("state of {:?} is reserved", request.id));
    rollback.mounts(&record);
    // Before any process is in it.
    let manager = base.manager.as_mut();
    let holder = record.cgroup.start_unit(manager, &plan.unit_properties, &plan.settings, &plan.device_rules)?;
    let made = record.cgroup.create();
    rollback.cgroup(&record.cgroup, plan);
    made?;
    // Without a mark the container is as good, as long as nobody takes its directory away.
    if let Err(errno) = record.cgroup.mark(&root.mark(&record)) {
        log.debug(Error::new("mark the cgroup").errno(errno));
    }
    for dir in record.cgroup.dirs.values() {
        log.debug(format_args!("cgroup {} is made", dir.display()));
    }
    record.cgroup.apply(&plan.settings)?;
    record.cgroup.make_room(&plan.settings, 1)?;
    make_rdt(&record, plan, rollback)?;
    Ok(Reserved { container, record, holder })
}

fn carry_out(
    root: &Root,
    request: &Request,
    log: &Log,
    plan: Plan,
    host: Host,
    mut opened: Opened,
    rollback: &mut Rollback,
) -> Result<(Created, ParentEnd)> {
    let Reserved { container, record, holder } = reserve(root, request, log, &plan, &host, &mut opened.base, rollback)?;
    let rootless = request.rootless.unwrap_or(!host.caller.is_real_root());

    let state = StateText::new(&request.id, &record.bundle, &plan.annotations);
    // Without a cgroup of its own the container is in that of its creator.
    let own = record.cgroup.shown().next().is_none().then(|| host.cgroups.own());
    let shown = own.as_ref().unwrap_or(&record.cgroup);
    let cgroup_mount = open::cgroup_mount(&plan, shown, &opened.joined)?;
    let trees = open::trees(&plan, &cgroup_mount, &host, &opened.joined)?;
    let gate = if request.ends == Ends::Created { Some(container.make_gate()?) } else { None };
    let namespaces = &plan.child.namespaces;
    let flags = if namespaces.needs_second_child() { 0 } else { namespaces.new };
    let spawned = child::spawn(&plan, record.cgroup.join()?, flags, &opened.interrupt, rollback, |sync, tasks| {
        let init = Init {
            plan: &plan.child,
            hooks: &plan.hooks,
            state: &state,
            hook_output: &opened.hook_output,
            rootfs: &record.rootfs,
            proc: host.proc.as_fd(),
            trees: trees.as_ref(),
            cgroup_mount: &cgroup_mount,
            joined: &opened.joined,
            tasks,
            lock: container.as_fd(),
            gate: gate.as_ref().map(AsFd::as_fd),
            sync,
            has_idmap: plan.idmap.is_some(),
        };
        init.run()
    })?;
    // The child has its own copies, and the gate is its alone; and it is in the cgroup.
    drop((gate, trees, holder));
    record.cgroup.make_room(&plan.settings, 0)?;
    // The rootfs was our directory for the child's sake; it must not be kept busy by us.
    rustix::process::chdir("/").map_err(|errno| Error::new("chdir /").errno(errno))?;
    let (cgroup, bundle) = (&record.cgroup, record.bundle.as_path());
    let (devices, agent, interrupt) = (opened.devices, opened.agent, &opened.interrupt);
    let mut supervisor = Supervisor {
        plan: &plan,
        host: &host,
        cgroup,
        state: &state,
        bundle,
        devices,
        agent,
        interrupt,
        log,
        rollback,
    };
    let Supervised { pid, pidfd, sync, terminal } = supervisor.until_ready(spawned)?;
    hand_over_cgroup(&plan, &host, &record, pid, rootless, log)?;
    child::adjust(&plan, &host, &record, pid)?;
    let terminal = child::terminal(terminal, &plan, opened.sockets.console)?;
    if let Some(socket) = &opened.sockets.pidfd {
        // runc's word for an init, as opposed to "setns" for an exec.
        child::send_pidfd(socket, b"standard", &pidfd)?;
    }
    container.write_init(&host.proc, pid, pid)?;
    if let Some(path) = &request.pid_file {
        child::write_pid_file(path, pid)?;
        rollback.pid_file(path);
    }
    let notify = if request.ends == Ends::Created { None } else { Notify::listen(&container)? };
    sync.go_on().map_err(|errno| child::init_died(&plan, &record.cgroup, &pidfd, Some(errno)))?;
    rollback.keep();
    log.debug(format_args!("container {:?} is created", request.id));
    log.succeeds();
    let interrupt = opened.interrupt;
    Ok((Created { host, plan, container, record, state, pid, pidfd, terminal, notify, interrupt }, sync))
}

/// The device rules, and the cgroup's owner. Not earlier: the child makes device nodes that the container may not use.
pub(crate) fn hand_over_cgroup(
    plan: &Plan,
    host: &Host,
    record: &Record,
    pid: Pid,
    rootless: bool,
    log: &Log,
) -> Result<()> {
    match record.cgroup.apply_devices(&plan.device_rules) {
        // Who may make no device needs no list of those that may be used: runc, too.
        Err(error) if rootless => log.debug(&error),
        result => {
            result?;
            log.debug(format_args!("device rules are set: {}", plan.device_rules.len()));
        }
    }
    if let Some(id) = plan.cgroup_owner {
        record.cgroup.delegate(&host::read(&host.proc, &format!("{}/uid_map", pid.as_raw_nonzero()))?, id)?;
    }
    Ok(())
}

fn record(request: &Request, plan: &Plan, host: &Host, cgroup: Cgroup) -> Result<Record> {
    let mut record = Record::new(&request.id, &host.proc, cgroup)?;
    let bundle = std::path::absolute(&request.bundle)
        .map_err(|error| Error::at("--bundle", format!("{:?}", request.bundle)).errno(error))?;
    // Without a slash at the end.
    record.bundle = bundle.components().collect();
    record.rootfs.clone_from(&plan.rootfs.0);
    record.annotations.clone_from(&plan.annotations);
    record.hooks.clone_from(&plan.late_hooks);
    record.has_process = plan.child.process.is_some();
    if plan.child.rootfs.enter == Enter::Chroot {
        // As the kernel names it.
        record.rootfs = std::fs::canonicalize(&plan.rootfs.0)
            .map_err(|error| Error::at("root.path", format!("{:?}", plan.rootfs.0)).errno(error))?;
        record.mounts_below = Some(host::mounts_at(&host.proc, &record.rootfs)?);
    }
    record.new_keyring = !request.no_new_keyring;
    record.own_pid_namespace = plan.child.namespaces.is_new(libc::CLONE_NEWPID);
    Ok(record)
}

/// Makes the groups of resctrl, with their limits.
fn make_rdt(record: &Record, plan: &Plan, rollback: &mut Rollback) -> Result<()> {
    let (Some(groups), Some(plan)) = (&record.rdt, &plan.rdt) else { return Ok(()) };
    groups.make_class()?;
    rollback.rdt(groups);
    groups.write_schemata(&plan.lines)?;
    groups.make_monitoring()
}

/// Runs hooks of the runtime's namespaces. A hook that gives no environment gets ours.
pub(crate) fn run_hooks(
    list: &[HookPlan],
    state: &str,
    bundle: &Path,
    output: &HookOutput,
    interrupt: Option<&Interrupt>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let environment = own_environment();
    let output = open::hook_output(output)?;
    let interrupted = interrupt.map(AsFd::as_fd);
    let end = deadline::of_hook();
    let place = hooks::Place {
        inside: false,
        cwd: bundle,
        environment: &environment,
        output: &output,
        interrupt: interrupted,
        end,
    };
    hooks::run(list, state, &place).map_err(|failed| {
        let Some(hook) = list.get(failed.index) else { return Error::new("hook") };
        let failure = match failed.failure {
            hooks::Failure::Start(errno) => HookFailure::Start(errno),
            hooks::Failure::Exit(code) => HookFailure::Exit(code),
            hooks::Failure::Signal(signal) => HookFailure::Signal(signal),
            hooks::Failure::Timeout => HookFailure::Timeout(hook.timeout_seconds.unwrap_or(0)),
            hooks::Failure::Interrupted => return interrupt.map_or_else(|| Error::new("hook"), Interrupt::error),
            hooks::Failure::Late => {
                let what = format!("the hook {}, {:?}", hook.field, hook.path);
                let late = end.map_or(Ok(()), |end| deadline::check(end, &what));
                return late.err().unwrap_or_else(|| Error::new(format!("{what}, was killed after 10 s")));
            }
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
