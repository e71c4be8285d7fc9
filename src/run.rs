//! `run`: create, start and wait in one process, without reading anything again. Runs in: parent.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::child::{self, reap};
use crate::console::Proxy;
use crate::create::{Created, Ends, Request, make, run_hooks};
use crate::deadline;
use crate::delete;
use crate::error::{Error, Result};
use crate::logging::Log;
use crate::notify::Notify;
use crate::plan;
use crate::state::Root;
use crate::sync::{Message, ParentEnd};
use crate::sys;

/// `run ID`. Returns the status of the container's program, or 128 and the signal that ended it; 0 with `--detach`.
pub(crate) fn run(root: &Root, request: &Request, keep: bool, subreaper: bool, log: &Log) -> Result<u8> {
    if request.ends == Ends::Waited && subreaper {
        become_subreaper()?;
    }
    let (created, sync) = make(root, request, log)?;
    let started = start(&created, &sync, log);
    attend(created, started, request.ends == Ends::Started, keep, log)
}

/// What comes after the program was started, or was not: its end, and that of the container.
pub(crate) fn attend(mut created: Created, started: Result<()>, detach: bool, keep: bool, log: &Log) -> Result<u8> {
    let notify = created.notify.take();
    let outcome = started.and_then(|()| {
        if detach {
            notify.map_or(Ok(()), |notify| notify.wait(created.pid, &created.pidfd)).map(|()| None)
        } else {
            deadline::lift();
            wait(created.pid, &created.pidfd, created.terminal.take(), notify).map(Some)
        }
    });
    match outcome {
        Ok(None) => Ok(0),
        Ok(Some(status)) if keep => Ok(status),
        Ok(Some(status)) => {
            // The status is what the caller waits for. That somebody else has deleted the container is as good.
            match created.container.lock().and_then(|()| delete::destroy(&created.host.proc, &created.container)) {
                Err(error) if !error.is_missing_container() => log.warning_of(&error),
                _ => {}
            }
            Ok(status)
        }
        Err(error) => {
            let _ = sys::pidfd_send_signal(created.pidfd.as_fd(), libc::SIGKILL);
            let gone = delete::wait_for_end(&created.pidfd, "container init").map(|()| reap(&created.pidfd));
            match gone
                .and_then(|_| created.container.lock())
                .and_then(|()| delete::destroy(&created.host.proc, &created.container))
            {
                Ok(()) => Err(error),
                Err(failure) => Err(error.undo(&failure)),
            }
        }
    }
}

/// Processes that the container leaves to us, when it has no pid namespace of its own, are reaped here.
pub(crate) fn become_subreaper() -> Result<()> {
    rustix::process::set_child_subreaper(Pid::from_raw(1))
        .map_err(|errno| Error::new("prctl(PR_SET_CHILD_SUBREAPER)").errno(errno))
}

/// The child goes on by itself; its end of the socket is closed by exec. Then poststart hooks.
fn start(created: &Created, sync: &ParentEnd, log: &Log) -> Result<()> {
    loop {
        created.interrupt.wait_for(sync.0.as_fd(), "container init to execute the program")?;
        match sync.receive() {
            Ok(Message::End) => break,
            Ok(Message::Fault(fault)) => return Err(plan::explain(&created.plan, &fault)),
            Ok(Message::Warning(fault)) => child::warn(&created.plan, &fault, log),
            Ok(other) => return Err(Error::new(format!("unexpected message of the child: {other:?}"))),
            Err(errno) => return Err(Error::new("wait for the container's program to start").errno(errno)),
        }
    }
    created.container.unlock();
    log.debug("the program runs");
    let pid = created.pid.as_raw_nonzero().get();
    let (hooks, output) = (&created.plan.hooks.poststart, &created.plan.acting.hook_output);
    run_hooks(hooks, &created.state.json("running", pid), &created.record.bundle, output, None)
}

/// Forwards signals and the terminal until the program has ended.
pub(crate) fn wait(pid: Pid, pidfd: &OwnedFd, terminal: Option<OwnedFd>, mut notify: Option<Notify>) -> Result<u8> {
    let signals = SignalFd::with_flags(&sys::all_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Error::new("signalfd").errno(errno))?;
    let mut proxy = terminal
        .map(Proxy::new)
        .transpose()
        .map_err(|errno| Error::at("process.terminal", "take over the caller's terminal").errno(errno))?;
    loop {
        let ([ended, signalled, notified], console) = poll(pidfd, &signals, notify.as_ref(), proxy.as_ref())?;
        // The service manager watches us: what happens to the container is our status, and our signals are its.
        notify = notify.filter(|notify| !(notified && notify.turn(rustix::process::getpid())));
        if let (Some(proxy), Some(revents)) = (&mut proxy, console) {
            proxy.turn(revents);
        }
        if signalled {
            forward(&signals, pidfd, pid, proxy.as_ref());
        }
        if ended {
            if let Some(proxy) = &mut proxy {
                proxy.drain();
            }
            return Ok(status(pidfd));
        }
    }
}

type Revents = Option<[PollFlags; 3]>;

fn poll(
    pidfd: &OwnedFd,
    signals: &SignalFd,
    notify: Option<&Notify>,
    proxy: Option<&Proxy>,
) -> Result<([bool; 3], Revents)> {
    // Nothing to hear of in the third place: nobody asks the pidfd for anything there.
    let third = notify.map_or(PollFd::new(pidfd, PollFlags::empty()), Notify::poll_fd);
    let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN), third];
    if let Some(proxy) = proxy {
        fds.extend(proxy.poll_fds(pidfd.as_fd()));
    }
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Error::new("poll").errno(errno)),
    }
    let revents: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    let console = revents.get(3..).and_then(|console| console.try_into().ok());
    let set = |index: usize| revents.get(index).is_some_and(|revents| !revents.is_empty());
    Ok(([set(0), set(1), set(2)], console))
}

fn forward(signals: &SignalFd, pidfd: &OwnedFd, init: Pid, proxy: Option<&Proxy>) {
    while let Ok(Some(info)) = signals.read_signal() {
        let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
        match Signal::try_from(signal) {
            Ok(Signal::SIGCHLD) => reap_others(init),
            // Go's scheduler sends it to itself; for a container it never means anything.
            Ok(Signal::SIGURG) => {}
            Ok(Signal::SIGWINCH) if proxy.is_some() => {
                if let Some(proxy) = proxy {
                    proxy.resize();
                }
            }
            // It may have ended meanwhile, which the next poll tells.
            _ => drop(sys::pidfd_send_signal(pidfd.as_fd(), signal)),
        }
    }
}

/// Reaps what was left to us as a subreaper. Init itself stays: it is waited for by its pidfd.
fn reap_others(init: Pid) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    while let Ok(status) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT) {
        match status.pid() {
            Some(pid) if pid.as_raw() != init.as_raw_nonzero().get() => drop(waitid(Id::Pid(pid), ended)),
            _ => return,
        }
    }
}

fn status(pidfd: &OwnedFd) -> u8 {
    let Some(status) = reap(pidfd) else { return 255 };
    let number = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(number).unwrap_or(255)
}
