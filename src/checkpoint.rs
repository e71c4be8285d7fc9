//! `checkpoint`: criu saves a container that runs. Runs in: parent.
//!
//! What is missing is found out first. A dump that fails leaves the container as it was: criu lets it run on, and what the
//! freezer still holds is thawed here.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::cgroups::Join;
use crate::create::facts;
use crate::criu::message::{self, Message, kind, opt};
use crate::criu::{self, Criu, Directories, Flags, Outcome};
use crate::delete;
use crate::error::{Error, Result};
use crate::host::{self, Host};
use crate::logging::Log;
use crate::notify;
use crate::pause;
use crate::plan::{self, Options, Plan};
use crate::rollback::Rollback;
use crate::rootfs::plan::Enter;
use crate::spec;
use crate::state::{Container, InitProcess, Record, Root, Status};
use crate::sys;

/// The file in the images that says what the standard streams were: runc's.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// `checkpoint ID`.
pub(crate) fn checkpoint(root: &Root, id: &str, flags: &Flags, log: &Log) -> Result<()> {
    let container = root.find(id)?;
    let mut options = flags.options()?;
    let mut criu = Criu::find("checkpoint")?;
    // Killed while it is asked for pages, it lets the container go on.
    criu.ends_with_us = flags.lazy_pages;
    let host = host::look()?;
    container.lock()?;
    let (status, init) = container.status(&host.proc)?;
    let (Status::Running | Status::Paused, Some(init), Some(record)) = (status, init, container.record()?) else {
        return Err(Error::new(format!("Container cannot be checkpointed in {status} state")));
    };
    let plan = plan(root, &host, &container, record)?;
    check(flags, &criu, &plan)?;
    let status_fd = take_status_fd(flags)?;
    let directories = Directories::open(flags, true, "dump.log")?;
    check_parent(flags, &directories)?;
    directories.add_to(&mut options);
    add_container(&mut options, &plan, record, &init);
    criu::choose_network_lock(flags, &mut options);
    if let Some(parent) = &flags.parent_path {
        options.text(opt::PARENT_IMG, parent.as_os_str().as_encoded_bytes()).flag(opt::TRACK_MEM, true);
    }
    if !flags.pre_dump {
        let cgroup = if record.cgroup.is_none() { &host.cgroups.own() } else { &record.cgroup };
        criu::dumped(&host, &plan, cgroup, init.pid.as_raw_nonzero().get(), &mut options)?;
        write_descriptors(&directories, &container)?;
    }
    let done = dump(&criu, flags.pre_dump, &options, &directories.list(&host)?, status_fd);
    let done = done.and_then(|outcome| directories.done(&format!("checkpoint of {id:?}"), outcome));
    if flags.leave_running || flags.pre_dump || done.is_err() {
        let restored = restore_freezer(&host.proc, record, &init, status);
        done.map_err(|error| match &restored {
            Ok(()) => error,
            Err(failure) => error.undo(failure),
        })?;
        log.succeeds();
        return restored;
    }
    // criu has killed it.
    delete::wait_for_end(&init.pidfd, "container init").map_err(|error| {
        error.hint(
            "does org.criu.config, or /etc/criu/runc.conf, say leave-running? --leave-running is the option for that",
        )
    })?;
    delete::destroy(&host.proc, &container)?;
    log.succeeds();
    Ok(())
}

/// The plan by which it was made.
fn plan(root: &Root, host: &Host, container: &Container, record: &Record) -> Result<Plan> {
    let spec = spec::parse(&container.config()?)?.spec;
    let lsm = host.lsm(plan::lsm_wanted(spec.process().as_ref(), spec.linux().as_ref()))?;
    let directory = notify::directory(&root.path().join(&container.id));
    let options = Options {
        id: container.id.clone(),
        bundle: record.bundle.clone(),
        no_pivot: false,
        no_new_keyring: !record.new_keyring,
        preserve_fds: 0,
        listen: Vec::new(),
        systemd: false,
        notify: directory.exists().then_some(directory),
    };
    plan::make(&spec, &options, &facts(host, lsm))
}

/// What is not there, and what it is needed for.
fn check(flags: &Flags, criu: &Criu, plan: &Plan) -> Result<()> {
    if plan.child.rootfs.enter == Enter::Chroot {
        return Err(Error::at("linux.namespaces", "checkpoint needs a mount namespace of the container's own"));
    }
    if plan.child.rootfs.mounts.iter().any(|mount| mount.idmap.is_some()) {
        return Err(Error::at("mounts", "checkpoint of a mount with mapped ids: criu cannot restore it"));
    }
    let filter = plan.child.process.as_ref().and_then(|process| process.seccomp.as_ref());
    if filter.is_some_and(|filter| filter.agent.is_some()) {
        return Err(Error::at(
            "linux.seccomp",
            "checkpoint of SCMP_ACT_NOTIFY: criu cannot restore the agent's listener",
        ));
    }
    if !plan.net_devices.is_empty() {
        return Err(Error::at("linux.netDevices", "checkpoint of network devices: criu cannot save them"));
    }
    let tracks = flags.pre_dump || flags.parent_path.is_some();
    if !tracks && !flags.lazy_pages {
        return Ok(());
    }
    let features = criu.features()?;
    if tracks && !features.mem_track {
        let option = if flags.pre_dump { "--pre-dump" } else { "--parent-path" };
        let text = "needs a kernel that tracks changes of memory (CONFIG_MEM_SOFT_DIRTY), and this one does not";
        return Err(Error::at(option, text));
    }
    if flags.lazy_pages && !features.lazy_pages {
        let text = "needs a kernel with userfaultfd(2) for other processes (CONFIG_USERFAULTFD), and this one has none";
        return Err(
            Error::at("--lazy-pages", text).hint("vm.unprivileged_userfaultfd, or a seccomp profile, may deny it")
        );
    }
    Ok(())
}

/// Takes over the descriptor that is told when pages can be asked for: whoever waits there sees its end in any case.
fn take_status_fd(flags: &Flags) -> Result<Option<File>> {
    let Some(fd) = flags.status_fd.filter(|_| flags.lazy_pages) else { return Ok(None) };
    let file = File::options().write(true).open(format!("/proc/self/fd/{fd}"));
    let file = file.map_err(|error| Error::at("--status-fd", format!("open {fd} for writing")).errno(error))?;
    sys::close_range(fd, fd, 0).map_err(|errno| Error::at("--status-fd", fd.to_string()).errno(errno))?;
    Ok(Some(file))
}

/// criu is less clear about a path that leads nowhere.
fn check_parent(flags: &Flags, directories: &Directories) -> Result<()> {
    let Some(parent) = &flags.parent_path else { return Ok(()) };
    let wrong = |text: &str| Error::at("--parent-path", format!("{parent:?}{text}"));
    if parent.is_absolute() {
        return Err(wrong(" must be relative to --image-path"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&directories.images, parent, flags, Mode::empty())
        .map(drop)
        .map_err(|errno| wrong("").errno(errno).hint("it is relative to --image-path"))
}

fn add_container(options: &mut Message, plan: &Plan, record: &Record, init: &InitProcess) {
    options.int(opt::PID, init.pid.as_raw_nonzero().get());
    options.text(opt::ROOT, record.rootfs.as_os_str().as_encoded_bytes());
    add_config_file(options, plan);
    // Of a cgroup that others share criu may stop only the container's own processes, one by one.
    if let Some(dir) = record.cgroup.dir("freezer").filter(|_| record.cgroup.is_all_own()) {
        options.text(opt::FREEZE_CGROUP, dir.as_os_str().as_encoded_bytes());
    }
}

/// What criu is told by a file of the host, whatever the command line says: that of the annotation, none if that is empty.
pub(crate) fn add_config_file(options: &mut Message, plan: &Plan) {
    let file = plan.annotations.get(plan::CRIU_CONFIG).map_or("/etc/criu/runc.conf", String::as_str);
    if !file.is_empty() {
        options.text(opt::CONFIG_FILE, file);
    }
}

fn write_descriptors(directories: &Directories, container: &Container) -> Result<()> {
    let descriptors = container.init()?.map(|init| init.external_descriptors.clone()).unwrap_or_default();
    let text = serde_json::to_vec(&descriptors).map_err(|error| Error::new(format!("{DESCRIPTORS}: {error}")))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(&directories.images, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR);
    let failed = |error: std::io::Error| Error::at("--image-path", format!("write {DESCRIPTORS}")).errno(error);
    let file: OwnedFd = file.map_err(|errno| failed(errno.into()))?;
    File::from(file).write_all(&text).map_err(failed)
}

fn dump(
    criu: &Criu,
    pre: bool,
    options: &Message,
    directories: &[(CString, BorrowedFd<'_>)],
    status_fd: Option<File>,
) -> Result<Outcome> {
    let session = criu.start(Join::none(), directories, None, &mut Rollback::new())?;
    let kind = if pre { kind::PRE_DUMP } else { kind::DUMP };
    session.send(&message::request(kind, Some(options)))?;
    let mut status_fd = status_fd;
    session.work(None, |notification, _| {
        if notification.notify == "status-ready"
            && let Some(mut file) = status_fd.take()
        {
            // Whoever waits for pages may have gone; then nobody asks for any.
            let _ = file.write_all(&[0]);
        }
        Ok(())
    })
}

/// Frozen or not, as it was before.
fn restore_freezer(proc: &OwnedFd, record: &Record, init: &InitProcess, status: Status) -> Result<()> {
    match (status, record.cgroup.is_frozen()) {
        (Status::Paused, false) => pause::freeze(proc, &record.cgroup, init),
        (Status::Running, true) => record.cgroup.thaw(),
        _ => Ok(()),
    }
}
