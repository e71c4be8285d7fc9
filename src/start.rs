//! `start`: opens the gate. Runs in: parent.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::create::run_hooks;
use crate::deadline;
use crate::delete;
use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::host;
use crate::notify::Notify;
use crate::plan;
use crate::spec;
use crate::state::{Container, InitProcess, Record, Root, Status};
use crate::sync::{EXECUTES, Fault, LENGTH};
use crate::sys;

/// `start ID`. Returns when the program is executed and the poststart hooks have run, or with the reason why not.
pub(crate) fn start(root: &Root, id: &str) -> Result<()> {
    let proc = host::open_proc()?;
    let container = root.find(id)?;
    container.lock()?;
    let (status, process) = container.status(&proc)?;
    let (process, gate, record) = match (process, container.gate()?, container.record()?) {
        (Some(process), Some(gate), Some(record)) if status == Status::Created => (process, gate, record),
        _ => return Err(refuse(status)),
    };
    if !record.has_process {
        return Err(Error::at("process", "is missing: there is nothing to start"));
    }
    let notify = Notify::listen(&container)?;
    open_gate(&gate)?;
    passed(&gate, &process).map_err(|error| match take_back(&container) {
        Ok(true) => error,
        _ => end(&proc, &container, &process, error),
    })?;
    if let Some(fault) = fault(&container, &gate)? {
        let config = spec::parse(&container.config()?)?;
        let error = plan::explain_late(&fault, &plan::late_hooks(config.spec.hooks().as_ref())?);
        return Err(if fault.is_hooks() { end(&proc, &container, &process, error) } else { error });
    }
    poststart(&container, record, &process).map_err(|error| match container.lock() {
        Ok(()) => end(&proc, &container, &process, error),
        Err(failure) => error.undo(&failure),
    })?;
    // Without the lock: others may want to end it.
    notify.map_or(Ok(()), |notify| notify.wait(process.pid, &process.pidfd))
}

fn refuse(status: Status) -> Error {
    Error::new(match status {
        Status::Creating => "cannot start a container that is still being created",
        Status::Paused => "cannot start a paused container",
        Status::Stopped => "cannot start a container that has stopped",
        Status::Created | Status::Running => "cannot start an already running container",
    })
}

/// Writes the byte that init waits for.
fn open_gate(gate: &OwnedFd) -> Result<()> {
    rustix::io::write(gate, b"0").map_err(|errno| match errno {
        // It died between our look and our write.
        Errno::PIPE => refuse(Status::Stopped),
        errno => Error::new("write to exec.fifo").errno(errno),
    })?;
    Ok(())
}

/// Waits until init's end is closed: by exec, or by its death.
fn passed(gate: &OwnedFd, process: &InitProcess) -> Result<()> {
    loop {
        // A FIFO without readers is POLLERR for its writer (poll(2)).
        let mut fds = [PollFd::new(gate, PollFlags::empty()), PollFd::new(&process.pidfd, PollFlags::IN)];
        deadline::poll(&mut fds, "container init to execute the program")?;
        if fds.iter().any(|fd| !fd.revents().is_empty()) {
            return Ok(());
        }
    }
}

/// Whether init has not seen our byte, and will not: then it waits on, as if nobody had come.
fn take_back(container: &Container) -> Result<bool> {
    let fifo = container.open_file(crate::state::FIFO, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let mut byte = [0u8];
    Ok(rustix::io::read(&fifo, &mut byte) == Ok(1) && byte == *b"0")
}

/// Why init did not execute the program; None if it did. By what it wrote into the FIFO, which keeps that as long as the
/// gate is open.
fn fault(container: &Container, gate: &OwnedFd) -> Result<Option<Fault>> {
    // To read is to be a reader, by which a container that runs would look created. Nothing else is as long as this.
    if rustix::io::ioctl_fionread(gate).is_ok_and(|length| length == EXECUTES.len() as u64) {
        return Ok(None);
    }
    let fifo = container.open_file(crate::state::FIFO, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let mut bytes = [0u8; EXECUTES.len() + LENGTH];
    let length = match rustix::io::read(&fifo, &mut bytes) {
        Err(Errno::AGAIN) => 0,
        result => result.map_err(|errno| Error::new("read exec.fifo").errno(errno))?,
    };
    let said = bytes.get(..length).unwrap_or_default();
    match said.strip_prefix(&EXECUTES).unwrap_or(said) {
        // The ioctl has failed.
        [] if said == EXECUTES => Ok(None),
        fault if fault.len() == LENGTH => {
            Fault::decode(fault).map(Some).ok_or_else(|| Error::new("exec.fifo holds no fault of container init"))
        }
        // Our byte, which init did not live to read, or nothing.
        _ => Err(Error::new("container init died before it executed the program")),
    }
}

fn poststart(container: &Container, record: &Record, process: &InitProcess) -> Result<()> {
    // The hooks may want to look at the container, or to delete it.
    container.unlock();
    let hooks = plan::late_hooks(record.hooks.as_ref())?;
    let state = StateText::new(&record.id, &record.bundle, &record.annotations);
    let pid = process.pid.as_raw_nonzero().get();
    let output = plan::acting(&record.annotations)?.hook_output;
    run_hooks(&hooks.poststart, &state.json("running", pid), &record.bundle, &output, None)
}

/// A hook that fails ends the container: it is stopped and destroyed, and poststop hooks run (runtime.md, Lifecycle, 7
/// and 9). The caller holds the lock.
fn end(proc: &OwnedFd, container: &Container, process: &InitProcess, error: Error) -> Error {
    let _ = sys::pidfd_send_signal(process.pidfd.as_fd(), libc::SIGKILL);
    match delete::wait_for_end(&process.pidfd, "container init").and_then(|()| delete::destroy(proc, container)) {
        Ok(()) => error,
        Err(failure) => error.undo(&failure),
    }
}
