//! `restore`: a container from the images of a `checkpoint`. Runs in: parent.
//!
//! It is made as by `create`, up to its cgroup; then criu makes its processes, as our children:
//!
//! ```text
//!  restore                                     criu, in the container's cgroup
//!    name, record, cgroup, limits
//!                              ─────────────▶    namespaces, mounts
//!    prestart, createRuntime   ◀─ setup-namespaces
//!                              ─────────────▶    processes, memory, files
//!    the terminal's master     ◀─ orphan-pts-master
//!    device rules, state.json,
//!    pid file                  ◀─ post-restore   (nothing of the container has run yet)
//!                              ─────────────▶    lets them run
//! ```

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags};

use crate::cgroups::Cgroup;
use crate::checkpoint::{DESCRIPTORS, add_config_file};
use crate::child::{self, reap};
use crate::create::{self, Base, Created, Ends, Request, Reserved, run_hooks};
use crate::criu::message::{self, Message, Response, kind, opt};
use crate::criu::{self, Criu, Directories, Flags};
use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::host::{self, Host};
use crate::init::{self, CriuRestore};
use crate::interrupt::Interrupt;
use crate::logging::Log;
use crate::notify::Notify;
use crate::open;
use crate::plan::Plan;
use crate::rollback::Rollback;
use crate::rootfs::plan::Enter;
use crate::rootfs::source::clone_tree;
use crate::run;
use crate::state::{Container, Record, Root};
use crate::sys::{self, Clone3, Cloned};

/// What was opened before anything is made.
struct Opened {
    criu: Criu,
    options: Message,
    directories: Directories,
    console: Option<OwnedFd>,
    joined: Vec<OwnedFd>,
    base: Base,
    shell_job: bool,
    interrupt: Interrupt,
}

/// `restore ID`. Returns the status of the container's program, or 128 and the signal that ended it; 0 with `--detach`.
pub(crate) fn restore(root: &Root, request: &Request, flags: &Flags, subreaper: bool, log: &Log) -> Result<u8> {
    let detach = request.ends == Ends::Started;
    let options = flags.options()?;
    let criu = Criu::find("restore")?;
    let (plan, host, config) = create::decide(root, request, log)?;
    let terminal = plan.child.process.as_ref().is_some_and(|process| process.terminal);
    child::check_terminal(terminal, detach, request.console_socket.is_some())?;
    check(flags, &criu, &plan)?;
    let console = request.console_socket.as_deref().map(|path| open::socket("--console-socket", path)).transpose()?;
    let opened = Opened {
        criu,
        options,
        directories: Directories::open(flags, false, "restore.log")?,
        console,
        joined: open::namespaces(&host, &plan.child)?,
        base: Base::open(request, &plan, &host, config)?,
        shell_job: flags.shell_job,
        interrupt: Interrupt::new()?,
    };
    child::raise_hard_limits(&plan)?;
    if !detach && subreaper {
        run::become_subreaper()?;
    }
    let mut rollback = Rollback::new();
    let made = carry_out(root, request, log, plan, host, opened, &mut rollback);
    let created = made.map_err(|error| rollback.undo(error))?;
    log.succeeds();
    run::attend(created, Ok(()), detach, false, log)
}

/// What is not there, and what it is needed for.
fn check(flags: &Flags, criu: &Criu, plan: &Plan) -> Result<()> {
    if plan.child.rootfs.enter == Enter::Chroot {
        return Err(Error::at("linux.namespaces", "restore needs a mount namespace of the container's own"));
    }
    if flags.lazy_pages && !criu.features()?.lazy_pages {
        return Err(Error::at("--lazy-pages", "needs a kernel with userfaultfd(2), and this one has none"));
    }
    Ok(())
}

fn carry_out(
    root: &Root,
    request: &Request,
    log: &Log,
    plan: Plan,
    host: Host,
    opened: Opened,
    rollback: &mut Rollback,
) -> Result<Created> {
    let Opened { criu, mut options, directories, console, joined, mut base, shell_job, interrupt } = opened;
    let Reserved { container, record, holder } =
        create::reserve(root, request, log, &plan, &host, &mut base, rollback)?;
    let state = StateText::new(&request.id, &record.bundle, &plan.annotations);
    criu::make_targets(&plan)?;
    let failed = |errno| Error::at("root.path", format!("{:?}", plan.rootfs.0)).errno(errno);
    let tree = clone_tree(&plan.rootfs.0, true).map_err(failed)?;
    let place = container.make_criu_root()?;
    options.text(opt::ROOT, place.as_os_str().as_encoded_bytes());
    directories.add_to(&mut options);
    add_config_file(&mut options, &plan);
    add_streams(&mut options, &directories)?;
    let own = record.cgroup.is_none().then(|| host.cgroups.own());
    let cgroup = own.as_ref().unwrap_or(&record.cgroup);
    criu::restored(&host, &plan, cgroup, &mut options)?;
    criu::inherit(&plan, &joined, &mut options)?;
    options.flag(opt::EVASIVE_DEVICES, true).flag(opt::RST_SIBLING, true);

    let restore =
        CriuRestore { plan: &plan.child, root: tree.as_fd(), proc: host.proc.as_fd(), inherited: &joined, shell_job };
    // Inherited by the child, in its own mount namespace.
    rustix::process::chdir(&place).map_err(|errno| Error::new(format!("chdir {}", place.display())).errno(errno))?;
    let session = criu.start(record.cgroup.join()?, &directories.list(&host)?, Some(restore), rollback)?;
    rustix::process::chdir("/").map_err(|errno| Error::new("chdir /").errno(errno))?;
    // criu is in the cgroup, and the root file system in its mount namespace.
    drop((holder, tree));
    record.cgroup.make_room(&plan.settings, 0)?;
    add_cgroup_roots(&mut options, &host, session.pid)?;
    session.send(&message::request(kind::RESTORE, Some(&options)))?;
    let mut restored = Restored { init: None, terminal: None };
    let done = session.work(Some(&interrupt), |notification, fd| {
        let work = Work {
            request,
            log,
            plan: &plan,
            host: &host,
            container: &container,
            record: &record,
            cgroup,
            interrupt: &interrupt,
        };
        work.notified(notification, fd, &state, &mut restored, rollback)
    });
    directories.done(&format!("restore of {:?}", request.id), done?)?;
    // Not earlier: that takes away what is mounted there in every namespace.
    container.remove_criu_root()?;
    let (pid, pidfd) = restored.init.ok_or_else(|| Error::new("criu has restored nothing"))?;
    let terminal = child::terminal(restored.terminal, &plan, console)?;
    // What the program had to say it has said.
    if let Some(notify) = Notify::listen(&container)? {
        notify.is_ready(if request.ends == Ends::Started { pid } else { rustix::process::getpid() })?;
    }
    rollback.keep();
    container.unlock();
    Ok(Created { host, plan, container, record, state, pid, pidfd, terminal, notify: None, interrupt })
}

/// Pipes that were the container's standard streams become ours.
fn add_streams(options: &mut Message, directories: &Directories) -> Result<()> {
    let failed = || Error::at("--image-path", format!("read {DESCRIPTORS}"));
    let text = criu::read(&directories.images, DESCRIPTORS.as_ref()).map_err(|errno| {
        failed()
            .errno(errno)
            .hint("the images are those of a checkpoint of a container, by this program, runc or crun?")
    })?;
    let links: Vec<String> = serde_json::from_slice(&text).map_err(|error| failed().kernel(error.to_string()))?;
    for (fd, link) in (0..3).zip(&links).filter(|(_, link)| link.starts_with("pipe:")) {
        options.inherit(link, fd);
    }
    Ok(())
}

/// The cgroups that take the place of those of the images: where criu is.
fn add_cgroup_roots(options: &mut Message, host: &Host, criu: Pid) -> Result<()> {
    let cgroups = host::read(&host.proc, &format!("{}/cgroup", criu.as_raw_nonzero()))?;
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        for controller in controllers.split(',') {
            options.pair(opt::CG_ROOT, controller, path);
        }
    }
    Ok(())
}

/// What criu has made so far.
struct Restored {
    init: Option<(Pid, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

/// The container that is being restored.
struct Work<'a> {
    request: &'a Request,
    log: &'a Log,
    plan: &'a Plan,
    host: &'a Host,
    container: &'a Container,
    record: &'a Record,
    /// Its own, or that of its creator.
    cgroup: &'a Cgroup,
    interrupt: &'a Interrupt,
}

impl Work<'_> {
    fn notified(
        &self,
        notification: &Response,
        fd: Option<OwnedFd>,
        state: &StateText,
        restored: &mut Restored,
        rollback: &mut Rollback,
    ) -> Result<()> {
        self.log.debug(format_args!("criu: {}", notification.notify));
        match notification.notify.as_str() {
            "setup-namespaces" => {
                let pid = self.pid(notification)?;
                if self.plan.child.namespaces.is_new(libc::CLONE_NEWNET) {
                    let init = open_pidfd(pid)?;
                    let (proc, sysctls) = (self.host.proc.as_fd(), self.plan.child.sysctl.as_slice());
                    in_child(|| init::prepare_network(init.as_fd(), proc, sysctls)).map_err(|errno| {
                        Error::new("bring the loopback device up, and set sysctls of the network").errno(errno)
                    })?;
                }
                rollback.poststop(self.plan, state, &self.record.bundle);
                let (hooks, output) = (&self.plan.hooks, &self.plan.acting.hook_output);
                let state = state.json("created", pid.as_raw_nonzero().get());
                run_hooks(&hooks.prestart, &state, &self.record.bundle, output, Some(self.interrupt))?;
                run_hooks(&hooks.create_runtime, &state, &self.record.bundle, output, Some(self.interrupt))
            }
            "orphan-pts-master" => {
                restored.terminal = fd;
                Ok(())
            }
            "post-restore" => {
                let pid = self.pid(notification)?;
                let pidfd = open_pidfd(pid)?;
                rollback.child(&pidfd)?;
                let attributes = criu::attributes(self.plan, self.cgroup)?;
                in_child(|| init::set_attributes(pidfd.as_fd(), &attributes))
                    .map_err(|errno| Error::at("mounts", "set their attributes").errno(errno))?;
                restored.init = Some((pid, pidfd));
                self.commit(pid, rollback)
            }
            _ => Ok(()),
        }
    }

    fn pid(&self, notification: &Response) -> Result<Pid> {
        Pid::from_raw(notification.pid).ok_or_else(|| Error::new(format!("criu names no pid: {notification:?}")))
    }

    /// All processes are there, and none has run yet.
    fn commit(&self, pid: Pid, rollback: &mut Rollback) -> Result<()> {
        let rootless = self.request.rootless.unwrap_or(!self.host.caller.is_real_root());
        create::hand_over_cgroup(self.plan, self.host, self.record, pid, rootless, self.log)?;
        if let Some(groups) = &self.record.rdt {
            let pids = self.container.processes(&self.host.proc)?;
            pids.into_iter().filter_map(Pid::from_raw).try_for_each(|pid| groups.join(pid))?;
        }
        // Those that criu has given it; but of a terminal it has its own.
        let terminal = self.plan.child.process.as_ref().is_some_and(|process| process.terminal);
        let streams = if terminal { pid } else { rustix::process::getpid() };
        self.container.write_init(&self.host.proc, pid, streams)?;
        if let Some(path) = &self.request.pid_file {
            child::write_pid_file(path, pid)?;
            rollback.pid_file(path);
        }
        Ok(())
    }
}

fn open_pidfd(pid: Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::new("pidfd_open").errno(errno))
}

/// Carries something out that changes the namespaces of who does it.
fn in_child(work: impl FnOnce() -> sys::Result<()>) -> sys::Result<()> {
    match sys::clone3(Clone3::default())? {
        // Each errno is below 256.
        Cloned::Child => sys::exit_now(work().err().map_or(0, sys::Errno::raw_os_error)),
        Cloned::Parent { pidfd, .. } => match reap(&pidfd).and_then(|status| status.exit_status()) {
            Some(0) => Ok(()),
            Some(errno) => Err(sys::Errno::from_raw_os_error(errno)),
            None => Err(sys::Errno::CHILD),
        },
    }
}
