//! Running a hook. Runs in: parent (prestart, createRuntime, poststart, poststop) and child (createContainer,
//! startContainer).
//!
//! A hook gets the state on stdin (a memfd: it may read it or not, nobody can block on it), its output into a pipe of
//! which the end is shown if it fails, a session of its own, and no other descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, SeekFrom};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::plan::HookPlan;
use crate::sys::{self, CStrings, Clone3, Cloned, Errno};

/// The state of a container as hooks get it, but for status and pid, which differ by hook.
#[derive(Debug)]
pub(crate) struct StateText {
    head: String,
    tail: String,
}

impl StateText {
    /// `fields` is a JSON object: the state without status and pid.
    pub(crate) fn new(
        id: &str,
        bundle: &std::path::Path,
        annotations: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        let head = serde_json::json!({"ociVersion": crate::state::OCI_VERSION, "id": id}).to_string();
        let mut tail = serde_json::json!({"bundle": bundle});
        if let (Some(tail), false) = (tail.as_object_mut(), annotations.is_empty()) {
            tail.insert("annotations".to_owned(), serde_json::json!(annotations));
        }
        let inside = |text: &str| text.trim_start_matches('{').strip_suffix('}').unwrap_or("").to_owned();
        Self { head: inside(&head), tail: inside(&tail.to_string()) }
    }

    /// The whole state.
    pub(crate) fn json(&self, status: &str, pid: i32) -> String {
        format!("{{{},\"status\":\"{status}\",\"pid\":{pid},{}}}", self.head, self.tail)
    }
}

/// How a hook failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It could not be started.
    Start(i32),
    /// It ended with this status.
    Exit(i32),
    /// It was ended by this signal.
    Signal(i32),
    /// It was killed after its timeout.
    Timeout,
    /// It was killed because a signal has come for us.
    Interrupted,
    /// It was killed at the end of the time for all.
    Late,
}

/// The end of a hook that failed, with the last bytes of its output.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) index: usize,
    pub(crate) failure: Failure,
    pub(crate) output: Vec<u8>,
}

/// The caller's umask, where ours is another.
static UMASK: OnceLock<Mode> = OnceLock::new();

/// Programs of the host get this one, as with runc: shims pass the umask of their service.
pub(crate) fn keep_umask(umask: Mode) {
    let _ = UMASK.set(umask);
}

/// Where hooks run.
pub(crate) struct Place<'a> {
    /// Inside: they are programs of the container and keep its umask. Outside they have the caller's.
    pub(crate) inside: bool,
    /// Their working directory.
    pub(crate) cwd: &'a std::path::Path,
    /// The environment of hooks that give none.
    pub(crate) environment: &'a [CString],
    pub(crate) output: &'a Output,
    /// Becomes readable when the hook is to be given up.
    pub(crate) interrupt: Option<BorrowedFd<'a>>,
    /// When it is to be given up in any case.
    pub(crate) end: Option<Instant>,
}

/// Files for the output of hooks; where there is none, it goes into a pipe, and its end into the error.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Output {
    /// The descriptors.
    pub(crate) fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)]
    }
}

/// Runs the hooks of a list in order, and stops at the first that fails.
pub(crate) fn run(hooks: &[HookPlan], state: &str, place: &Place<'_>) -> Result<(), Failed> {
    for (index, hook) in hooks.iter().enumerate() {
        let mut output = Vec::new();
        if let Err(failure) = one(hook, state, place, &mut output) {
            return Err(Failed { index, failure, output });
        }
    }
    Ok(())
}

/// Up to this much of the output is kept.
const OUTPUT: usize = 4096;

fn one(hook: &HookPlan, state: &str, place: &Place<'_>, output: &mut Vec<u8>) -> Result<(), Failure> {
    let start = |errno: Errno| Failure::Start(errno.raw_os_error());
    let stdin = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC).map_err(start)?;
    rustix::io::write(&stdin, state.as_bytes()).map_err(start)?;
    rustix::fs::seek(&stdin, SeekFrom::Start(0)).map_err(start)?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(start)?;
    // Closed by a successful exec; carries errno of a failed one.
    let (status_reader, status_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(start)?;
    let argv = CStrings::new(&hook.args);
    let env = CStrings::new(hook.env.as_deref().unwrap_or(place.environment));
    match sys::clone3(Clone3::default()).map_err(start)? {
        Cloned::Child => {
            let errno = execute(hook, &argv, &env, place, stdin.as_fd(), writer.as_fd());
            let _ = rustix::io::write(&status_writer, &errno.raw_os_error().to_le_bytes());
            sys::exit_now(127)
        }
        Cloned::Parent { pid, pidfd } => {
            drop((writer, status_writer));
            let ended = wait(hook, pid, &pidfd, &reader, place, output);
            let mut errno = [0u8; 4];
            if rustix::io::read(&status_reader, &mut errno) == Ok(4) {
                return Err(Failure::Start(i32::from_le_bytes(errno)));
            }
            ended
        }
    }
}

/// Becomes the hook; returns only on failure.
fn execute(
    hook: &HookPlan,
    argv: &CStrings<'_>,
    env: &CStrings<'_>,
    place: &Place<'_>,
    stdin: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> Errno {
    let prepare = || -> sys::Result<()> {
        rustix::process::setsid()?;
        rustix::stdio::dup2_stdin(stdin)?;
        let [stdout, stderr] = place.output.fds();
        rustix::stdio::dup2_stdout(stdout.unwrap_or(output))?;
        rustix::stdio::dup2_stderr(stderr.unwrap_or(output))?;
        rustix::process::chdir(place.cwd)?;
        if let (false, Some(umask)) = (place.inside, UMASK.get()) {
            rustix::process::umask(*umask);
        }
        sys::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
        sys::reset_handlers(u64::MAX)?;
        sys::sigprocmask(SigmaskHow::SIG_SETMASK, &SigSet::empty())
    };
    match prepare() {
        Ok(()) => sys::execve(&hook.path, argv, env),
        Err(errno) => errno,
    }
}

fn wait(
    hook: &HookPlan,
    pid: Pid,
    pidfd: &OwnedFd,
    reader: &OwnedFd,
    place: &Place<'_>,
    output: &mut Vec<u8>,
) -> Result<(), Failure> {
    // The hook leads its own session and group: its children go with it.
    let give_up = |failure| {
        // Itself first: it may not have got that far, and its number is its group's until it is reaped.
        let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = reap(pidfd);
        Err(failure)
    };
    // Too far away to be told by the clock: never.
    let own = hook.timeout_seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let deadline = [own, place.end].into_iter().flatten().min();
    let interrupt = place.interrupt;
    let mut open = true;
    loop {
        let interrupted = interrupt.unwrap_or(pidfd.as_fd());
        let wanted = if interrupt.is_some() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::from_borrowed_fd(interrupted, wanted)];
        if open {
            fds.push(PollFd::new(reader, PollFlags::IN));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(0) => return give_up(if deadline == own { Failure::Timeout } else { Failure::Late }),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return give_up(Failure::Start(errno.raw_os_error())),
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        if interrupt.is_some() && fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            return give_up(Failure::Interrupted);
        }
        if fds.get(2).is_some_and(|fd| !fd.revents().is_empty()) {
            // What is there now is read before the end is believed; a grandchild may hold the pipe open for ever.
            open = read(reader, output);
        } else if ended {
            return reap(pidfd);
        }
    }
}

fn read(reader: &OwnedFd, output: &mut Vec<u8>) -> bool {
    let mut chunk = [0u8; 1024];
    match rustix::io::read(reader, &mut chunk) {
        Ok(0) | Err(_) => false,
        Ok(length) => {
            output.extend_from_slice(chunk.get(..length).unwrap_or_default());
            let excess = output.len().saturating_sub(OUTPUT);
            output.drain(..excess);
            true
        }
    }
}

fn reap(pidfd: &OwnedFd) -> Result<(), Failure> {
    let status =
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))
            .map_err(|errno| Failure::Start(errno.raw_os_error()))?;
    let Some(status) = status else { return Err(Failure::Start(libc::ECHILD)) };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Exit(code)),
        (None, signal) => Err(Failure::Signal(signal.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_json_with_all_fields() -> Result<(), serde_json::Error> {
        let annotations = std::collections::BTreeMap::from([("a}".to_owned(), "{b".to_owned())]);
        let text = StateText::new("c1", std::path::Path::new("/b"), &annotations).json("created", 7);
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let expected = serde_json::json!({"ociVersion": crate::state::OCI_VERSION, "id": "c1", "status": "created",
            "pid": 7, "bundle": "/b", "annotations": {"a}": "{b"}});
        assert_eq!(value, expected);
        Ok(())
    }
}
