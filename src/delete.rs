//! `delete`: undoes what `create` has done. Runs in: parent.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::create::run_hooks;
use crate::deadline;
use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::host;
use crate::logging::Log;
use crate::plan;
use crate::rdt;
use crate::rollback::PATIENCE;
use crate::state::{Container, InitProcess, Record, Root, Status};
use crate::sys;

/// `delete ID`. Without `--force` only a stopped container, or one that was never started, is deleted; with it, its
/// processes are killed first, and one that does not exist is no error.
pub(crate) fn delete(root: &Root, id: &str, force: bool, log: &Log) -> Result<()> {
    let proc = host::open_proc()?;
    let locked = root.find(id).and_then(|container| {
        if force {
            kill_before_lock(&proc, &container, log);
        }
        container.lock().map(|()| container)
    });
    let container = match locked {
        // Its cgroup may still be there.
        Err(error) if force && error.is_missing_container() => {
            return root.marked_record(&proc, id)?.map_or(Ok(()), |record| destroy_lost(root, &proc, &record));
        }
        result => result?,
    };
    let status = container.status(&proc);
    let process = match (status, force) {
        // Whatever is in the files: the cgroups are known from the record, from their mark, or from where the id would have put
        // them. Without a record a frozen init is killed by its cgroup, or not at all.
        (Err(error), true) => {
            log.warning_of(&error);
            if matches!(container.record(), Ok(Some(_))) { named_init(&proc, &container)? } else { None }
        }
        (Err(error), false) => return Err(error),
        (Ok((Status::Stopped | Status::Created, process)), _) | (Ok((_, process)), true) => process,
        (Ok((status, _)), false) => {
            return Err(Error::new(format!("cannot delete container {id} that is not stopped: {status}"))
                .hint("`delete --force` kills it first"));
        }
    };
    if let Some(process) = &process {
        kill(&container, process)?;
        wait_for_end(&process.pidfd, "container init")?;
    }
    let other = match container.record() {
        Ok(Some(record)) => return destroy_by(&proc, &container, Some(record)),
        other => other,
    };
    // Damaged, or taken away: the cgroup knows it, too.
    match root.marked_record(&proc, id)? {
        Some(record) => {
            if !force {
                container.check_dead(&proc, &record)?;
            }
            destroy_by(&proc, &container, Some(&record))
        }
        None => {
            if let Some(process) = named_init(&proc, &container)? {
                let cgroups =
                    host::read(&proc, &format!("{}/cgroup", process.pid.as_raw_nonzero())).unwrap_or_default();
                kill(&container, &process)?;
                wait_for_end(&process.pidfd, "container init")?;
                let cgroups: Vec<&str> = cgroups.lines().collect();
                log.warning(&format!("the cgroups of container {id:?} are not known; its init was in {cgroups:?}"));
            }
            destroy_by(&proc, &container, without_record(&proc, &container, other)?.as_ref())
        }
    }
}

/// The init process by the state alone, if that can be read.
fn named_init(proc: &OwnedFd, container: &Container) -> Result<Option<InitProcess>> {
    match container.named_init(proc) {
        Err(error) if is_damage(&error) => Ok(None),
        result => result,
    }
}

/// Whether a file is not what it was. One that cannot be read for another reason may be readable the next time.
fn is_damage(error: &Error) -> bool {
    error.raw_errno().is_none_or(|errno| matches!(errno, libc::ELOOP | libc::EISDIR))
}

/// Kills and removes what is left of a container that has lost its directory. Its id is taken meanwhile, or whoever has it is
/// locked, and only then it is looked whether the cgroup is still that container's: another may have come in between.
pub(crate) fn destroy_lost(root: &Root, proc: &OwnedFd, record: &Record) -> Result<()> {
    let (container, reserved) = match root.reserve(&record.id) {
        Ok(container) => (container, true),
        Err(taken) => {
            let container = root.find(&record.id).map_err(|_| taken)?;
            match container.lock() {
                // Another command has just cleared it away.
                Err(error) if error.is_missing_container() => return Ok(()),
                result => result?,
            }
            (container, false)
        }
    };
    let destroyed = || {
        let lost = (reserved || container.is_other_than(record)) && root.is_marked(proc, record)?;
        if lost {
            record.cgroup.empty(PATIENCE)?;
            clear(proc, record)?;
        }
        Ok(lost)
    };
    let destroyed = destroyed();
    if reserved {
        container.remove()?;
    }
    if destroyed? { poststop(record) } else { Ok(()) }
}

/// Whoever holds the lock may be waiting for a process of the container: a hook in it, or init.
fn kill_before_lock(proc: &OwnedFd, container: &Container, log: &Log) {
    let killed = match (container.status(proc), container.record()) {
        (Ok((_, Some(process))), _) => kill(container, &process),
        (Ok((Status::Creating, None)), Ok(Some(record))) if record.cgroup.is_all_own() => record.cgroup.kill(),
        _ => Ok(()),
    };
    for result in [killed, kill_holders(container)] {
        if let Err(error) = result {
            log.warning_of(&error);
        }
    }
}

/// The child of an `exec` is cloned with its parent's lock. One that is frozen as it is born, by a container that may freeze its
/// own cgroups, outlives both parent and init. While it is in the cgroup nobody else can be given that, so all in it are the
/// container's; without it they may be anybody's.
fn kill_holders(container: &Container) -> Result<()> {
    match container.record() {
        Ok(Some(Record { cgroup, .. }))
            if cgroup.is_all_own()
                && !container.try_lock()
                && cgroup.members().into_iter().any(|pid| container.is_open_in(pid)) =>
        {
            cgroup.kill()
        }
        _ => Ok(()),
    }
}

fn kill(container: &Container, process: &InitProcess) -> Result<()> {
    match sys::pidfd_send_signal(process.pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(Error::new("kill the container's init").errno(errno)),
    }
    // A frozen init dies only when it is thawed, which this does; and processes beyond a pid namespace go too.
    if let Ok(Some(record)) = container.record()
        && (!record.own_pid_namespace || record.cgroup.may_hold_frozen())
    {
        record.cgroup.kill_with(process.pid, &process.pidfd)?;
    }
    Ok(())
}

/// Waits until a killed process is gone.
pub(crate) fn wait_for_end(pidfd: &OwnedFd, who: &str) -> Result<()> {
    let end = deadline::until(PATIENCE);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = deadline::timespec(left.as_secs(), left.subsec_nanos());
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                deadline::check(end, format!("{who} to end, which was killed"))?;
                return Err(Error::new(format!("{who} still running 10 s after it was killed"))
                    .hint("it may wait in the kernel, for a device or a frozen parent cgroup; its state is kept"));
            }
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("poll").errno(errno)),
        }
    }
}

/// Removes cgroups and state of a container whose init is dead, and runs the poststop hooks. What is left of its
/// processes is killed. The caller holds the lock.
pub(crate) fn destroy(proc: &OwnedFd, container: &Container) -> Result<()> {
    destroy_by(proc, container, container.record()?)
}

fn destroy_by(proc: &OwnedFd, container: &Container, record: Option<&Record>) -> Result<()> {
    if let Some(record) = record {
        empty(proc, container, record)?;
        clear(proc, record)?;
    }
    container.remove()?;
    record.map_or(Ok(()), poststop)
}

/// What is left when the processes are gone.
fn clear(proc: &OwnedFd, record: &Record) -> Result<()> {
    if !record.is_of_this_boot(proc)? {
        // What has these names today is somebody else's: a cgroup that is not empty, or a unit.
        let _ = record.cgroup.remove_directories(Duration::ZERO);
        return Ok(());
    }
    unmount(proc, record)?;
    record.cgroup.remove(PATIENCE)?;
    // After the processes are gone: those left in a group that is removed would go to the default one.
    record.rdt.as_ref().map_or(Ok(()), rdt::Groups::remove)
}

/// Takes away what a container without a mount namespace of its own has mounted: all that is on its root file system's
/// directory and was not there before.
pub(crate) fn unmount(proc: &OwnedFd, record: &Record) -> Result<()> {
    let Some(below) = record.mounts_below else { return Ok(()) };
    while host::mounts_at(proc, &record.rootfs)? > below {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(&record.rootfs, flags)
            .map_err(|errno| Error::new(format!("unmount {}", record.rootfs.display())).errno(errno))?;
    }
    Ok(())
}

/// Of a damaged record: where the id alone would have put the cgroups, so that nothing stays there.
fn without_record(proc: &OwnedFd, container: &Container, record: Result<Option<&Record>>) -> Result<Option<Record>> {
    match record {
        Err(error) if is_damage(&error) => {
            let layout = crate::cgroups::Layout::detect(&host::read(proc, "self/cgroup")?)?;
            let cgroup = layout.place(None, &container.id).unwrap_or_else(|_| layout.none());
            Record::new(&container.id, proc, cgroup).map(Some)
        }
        result => result.map(Option::<&Record>::cloned),
    }
}

/// How long processes of an `exec` that has not reached the pid namespace may need to notice that it is gone.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Kills what is still in the cgroup: processes without a pid namespace, or of a `create` that did not come to its end.
fn empty(proc: &OwnedFd, container: &Container, record: &Record) -> Result<()> {
    if container.is_over(proc, record).unwrap_or(false) {
        return if record.cgroup.is_all_own() { record.cgroup.wait_until_empty(STRAGGLERS) } else { Ok(()) };
    }
    if record.own_pid_namespace && !record.cgroup.is_all_own() {
        return Ok(());
    }
    record.cgroup.empty(PATIENCE)
}

/// Every hook runs, and a failing one is a warning: the container is gone (runtime.md, Lifecycle, 13).
fn poststop(record: &Record) -> Result<()> {
    let hooks = plan::late_hooks(record.hooks.as_ref())?;
    let state = StateText::new(&record.id, &record.bundle, &record.annotations);
    let output = plan::acting(&record.annotations)?.hook_output;
    for hook in hooks.poststop.chunks(1) {
        if let Err(error) = run_hooks(hook, &state.json("stopped", 0), &record.bundle, &output, None) {
            crate::logging::warn_on_stderr(&error);
        }
    }
    Ok(())
}
