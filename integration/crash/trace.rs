//! Runs a call under ptrace(2), and strikes at one of its system calls.
//!
//! A thread of its own traces: when it ends, the kernel lets everything go on that it has traced, in whatever state it is.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::calls::errors;
use crate::support::{Call, Output, busybox, deadline};

/// Which process is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The runtime's.
    Command,
    /// Those that descend from it, until they execute something; of `start`, the container's init. Their calls are counted
    /// together.
    Child,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// SIGKILL instead of the call.
    KillBefore,
    /// SIGKILL after it.
    KillAfter,
    /// The call is not made, and fails.
    Fails(i32),
    /// As above, whatever call it is.
    Refused(i32),
    /// SIGTERM or the like, before the call.
    Signal(Signal),
}

/// The number of a system call of one process, from 0, and what happens there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) who: Who,
    pub(super) at: usize,
    pub(super) blow: Blow,
}

/// What came of it.
pub(super) struct Traced {
    pub(super) output: Output,
    /// The call that was struck.
    pub(super) hit: Option<u64>,
    /// All calls of the process that were seen.
    pub(super) calls: Vec<u64>,
    /// The call had to be ended by force.
    pub(super) hung: bool,
}

/// How many instructions the command and its children execute, until these execute something else. Without our environment,
/// which the command reads, too.
pub(super) fn instructions(call: Call) -> u64 {
    let (traced, steps) = follow(call.bare(), None, Who::Command, None, true);
    assert!(traced.output.code() == 0 && !traced.hung, "{:?}", traced.output);
    steps
}

/// Runs a call; `init` is a process that is there already, and counts as its child. Without a point it is only watched.
pub(super) fn run(call: Call, init: Option<u32>, who: Who, point: Option<Point>) -> Traced {
    follow(call, init, who, point, false).0
}

fn follow(call: Call, init: Option<u32>, who: Who, point: Option<Point>, single_step: bool) -> (Traced, u64) {
    // Waits until it is traced.
    let (gate, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let wrapper = ["sh", "-c", "read go; exec \"$@\" </dev/null", "sh"];
    let wrapper = [busybox().to_str().unwrap()].into_iter().chain(wrapper);
    let running = call.stdin(gate).wrapped(wrapper).spawn();
    let command = Pid::from_raw(running.pid().cast_signed());
    let (sender, receiver) = mpsc::channel();
    let tracer = std::thread::spawn(move || {
        if single_step {
            one_cpu(command);
        }
        let init = init.map(|pid| Pid::from_raw(pid.cast_signed()));
        let (calls, struck, hit) = (Vec::new(), None, None);
        let group = format!("Tgid:\t{command}\n");
        let inside = HashSet::new();
        let mut tracer =
            Tracer { command, who, point, group, began: false, calls, inside, struck, hit, single_step, steps: 0 };
        tracer.trace(&go, init);
        let _ = sender.send(());
        (tracer.hit, tracer.calls, tracer.steps)
    });
    let hung = receiver.recv_timeout(deadline() * if single_step { 30 } else { 1 }).is_err();
    if hung {
        running.signal(rustix::process::Signal::KILL);
    }
    let (hit, calls, steps) = tracer.join().unwrap();
    (Traced { output: running.wait(), hit, calls, hung }, steps)
}

/// To wake somebody on another processor takes longer than all the rest of a step.
fn one_cpu(command: Pid) {
    let mut cpus = CpuSet::new();
    let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
    cpus.set((0..CpuSet::count()).find(|cpu| own.is_set(*cpu).unwrap()).unwrap()).unwrap();
    for pid in [Pid::from_raw(0), command] {
        sched_setaffinity(pid, &cpus).unwrap();
    }
}

struct Tracer {
    command: Pid,
    who: Who,
    point: Option<Point>,
    /// The line of the command's threads in `/proc/<tid>/status`.
    group: String,
    /// The command executes the runtime.
    began: bool,
    calls: Vec<u64>,
    /// Who is in a system call.
    inside: HashSet<Pid>,
    /// Whose call is the one to strike.
    struck: Option<Pid>,
    hit: Option<u64>,
    /// Whether each instruction is a stop, and how many there were.
    single_step: bool,
    steps: u64,
}

impl Tracer {
    /// Until the blow has fallen, or the command has ended.
    fn trace(&mut self, go: &OwnedFd, init: Option<Pid>) {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK;
        for pid in [Some(self.command), init].into_iter().flatten() {
            ptrace::seize(pid, options).unwrap();
            ptrace::interrupt(pid).unwrap();
        }
        rustix::io::write(go, b"\n").unwrap();
        loop {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            // Only looked at: the end of the command is its parent's to see.
            let Ok(status) = waitid(Id::All, flags | WaitPidFlag::WNOWAIT) else { return };
            let Some(pid) = status.pid() else { return };
            if pid == self.command && matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                return;
            }
            let Ok(status) = waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) else { return };
            if self.turn(pid, status) {
                return;
            }
        }
    }

    /// True: it is over.
    fn turn(&mut self, pid: Pid, status: WaitStatus) -> bool {
        let mut signal = None;
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return false,
            WaitStatus::PtraceSyscall(_) => {
                // Entry and end follow each other; the end of the clone that made a process is not its own.
                let enters = self.inside.insert(pid) || !self.inside.remove(&pid);
                if self.counts(pid) && self.syscall(pid, enters) {
                    return true;
                }
            }
            WaitStatus::PtraceEvent(_, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                if pid == self.command {
                    self.began = true;
                } else {
                    // From here on it is the container's, or a hook.
                    let _ = ptrace::detach(pid, None);
                    return false;
                }
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) if self.single_step => self.steps += 1,
            WaitStatus::Stopped(_, other) => signal = Some(other),
            _ => {}
        }
        // It may have been killed by somebody else.
        let _ = if self.single_step && self.began { ptrace::step(pid, signal) } else { ptrace::syscall(pid, signal) };
        false
    }

    fn counts(&self, pid: Pid) -> bool {
        // Other runtimes have threads.
        let is_command =
            || pid == self.command || crate::support::text(format!("/proc/{pid}/status")).contains(&self.group);
        self.began && is_command() == (self.who == Who::Command)
    }

    /// At the entry to a call, or at its end. True: the blow has fallen.
    fn syscall(&mut self, pid: Pid, enters: bool) -> bool {
        let Ok(mut registers) = ptrace::getregs(pid) else { return false };
        let number = registers.orig_rax;
        if enters {
            self.calls.push(number);
            let can = |blow| !matches!(blow, Blow::Fails(errno) if !errors(number).contains(&errno));
            if self.point.is_some_and(|point| self.calls.len() == point.at + 1 && can(point.blow)) {
                self.struck = Some(pid);
            }
        }
        let Some(point) = self.point.filter(|_| self.struck == Some(pid)) else { return false };
        match (point.blow, enters) {
            (Blow::KillBefore, true) | (Blow::KillAfter, false) => {
                kill(pid, Signal::SIGKILL).unwrap();
                self.hit = Some(number);
                true
            }
            (Blow::Signal(signal), true) => {
                kill(pid, signal).unwrap();
                self.hit = Some(number);
                true
            }
            (Blow::Fails(_) | Blow::Refused(_), true) => {
                // No such call: it does nothing. But whatever close(2) says, the descriptor is closed.
                if number != libc::SYS_close.cast_unsigned() {
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(pid, registers).unwrap();
                }
                self.hit = Some(number);
                false
            }
            (Blow::Fails(errno) | Blow::Refused(errno), false) => {
                registers.rax = i64::from(-errno).cast_unsigned();
                ptrace::setregs(pid, registers).unwrap();
                true
            }
            _ => false,
        }
    }
}
