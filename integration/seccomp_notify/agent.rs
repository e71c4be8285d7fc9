//! A seccomp agent: gets listeners at a socket, and answers what they say until their processes are gone.

use std::fs::{self, Permissions};
use std::io::{IoSliceMut, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::support::{Bundle, deadline, ours, readable};

/// What mkdir(2) fails with: ENOMEDIUM, which no file system says.
pub(crate) const REFUSED: &str = "No medium found";
/// What geteuid(2) returns.
pub(crate) const USER: i64 = 4242;

/// What came over one connection, until its end.
pub(crate) struct Message {
    pub(crate) state: Value,
    /// For each part that was received, how many descriptors came with it.
    pub(crate) descriptors: Vec<usize>,
}

/// An agent in a thread of its own, which ends with it.
pub(crate) struct Agent {
    pub(crate) path: PathBuf,
    messages: Receiver<Message>,
    /// None: it was told to end.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Listens in the directory of a bundle, whoever connects.
    pub(crate) fn new(bundle: &Bundle) -> Self {
        Self::start(bundle, true)
    }

    /// Listens, and closes every listener that it gets.
    pub(crate) fn that_goes_away(bundle: &Bundle) -> Self {
        Self::start(bundle, false)
    }

    fn start(bundle: &Bundle, answers: bool) -> Self {
        let path = bundle.directory.join("agent");
        let socket = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let (stopped, stop) = std::io::pipe().unwrap();
        let (sender, messages) = channel();
        let thread = std::thread::spawn(move || work(&socket, &stopped, &sender, answers));
        Self { path, messages, stop: Some(stop), thread: Some(thread) }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&self) -> Message {
        self.messages.recv_timeout(deadline()).expect("a message for the agent")
    }

    /// Whether more has come.
    pub(crate) fn has_more(&self) -> bool {
        self.messages.try_recv().is_ok()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop = None;
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.path);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the agent has failed");
    }
}

/// `linux.seccomp` that allows everything, and has the agent at `path` answer for some calls.
pub(crate) fn profile(path: &Path, names: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "words \"of\" the caller",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    })
}

fn work(socket: &UnixListener, stopped: &impl AsFd, messages: &Sender<Message>, answers: bool) {
    let mut listeners: Vec<OwnedFd> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(stopped, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        if poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {
            continue;
        }
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if !events[0].is_empty() {
            return;
        }
        for (listener, events) in listeners.iter().zip(&events[2..]) {
            if events.contains(PollFlags::IN) {
                ioctl::answer(listener, decide);
            }
        }
        // POLLHUP: the last process with that filter is gone.
        let mut gone = events[2..].iter().map(|events| events.contains(PollFlags::HUP));
        listeners.retain(|_| !gone.next().unwrap());
        if events[1].contains(PollFlags::IN) {
            let (message, fds) = receive(&socket.accept().unwrap().0);
            listeners.extend(fds.into_iter().filter(|_| answers));
            if let Some(message) = message {
                messages.send(message).unwrap();
            }
        }
    }
}

/// Everything until the end of the stream; None: a caller who came to nothing.
fn receive(stream: &UnixStream) -> (Option<Message>, Vec<OwnedFd>) {
    let (mut text, mut counts, mut fds) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        assert!(
            readable(stream, deadline()),
            "the connection is not closed, after {:?}",
            String::from_utf8_lossy(&text)
        );
        let mut part = [0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream, &mut [IoSliceMut::new(&mut part)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        if received.bytes == 0 {
            break;
        }
        text.extend_from_slice(&part[..received.bytes]);
        let before = fds.len();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        counts.push(fds.len() - before);
        // runc 1.1 leaves the connection open, against config-linux.md:929.
        if !ours() && serde_json::from_slice::<Value>(&text).is_ok() {
            break;
        }
    }
    if text.is_empty() {
        return (None, fds);
    }
    let state =
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    (Some(Message { state, descriptors: counts }), fds)
}

/// What the agent says to a call.
enum Answer {
    Errno(i32),
    Value(i64),
    /// The kernel carries it out.
    Continue,
}

fn decide(number: i64) -> Answer {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_mkdir {
        return Answer::Errno(libc::ENOMEDIUM);
    }
    match number {
        libc::SYS_mkdirat => Answer::Errno(libc::ENOMEDIUM),
        libc::SYS_geteuid => Answer::Value(USER),
        _ => Answer::Continue,
    }
}

/// seccomp_unotify(2), which nobody wraps.
#[allow(unsafe_code, reason = "ioctl(2) with a pointer")]
mod ioctl {
    use super::{Answer, AsRawFd, OwnedFd};

    /// Receives one call and answers it. It may have gone meanwhile.
    pub(super) fn answer(listener: &OwnedFd, decide: impl Fn(i64) -> Answer) {
        // SAFETY: a struct of integers; the kernel wants it zeroed.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a struct of the kind that the request names, and of its size.
        if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            return;
        }
        let (val, error, flags) = match decide(i64::from(call.data.nr)) {
            Answer::Errno(errno) => (0, -errno, 0),
            Answer::Value(value) => (value, 0, 0),
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut answer = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: as above.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    }
}
