//! Messages between the parent and the child, over a SOCK_SEQPACKET pair. Runs in: parent and child.
//!
//! ```text
//!  child                                   parent
//!    Spawned         ──────────────────▶   (two children only) by the second, whose pid the kernel adds; the first has
//!                                          nothing to say: it may come to run after the second is ready
//!    NeedMaps        ──────────────────▶   (new user namespace only) writes uid_map, gid_map
//!                    ◀──────────────────   Continue
//!    NeedDevices     ──────────────────▶   (with network devices only) moves them into the child's namespace
//!                    ◀──────────────────   Continue
//!    NeedHooks       ──────────────────▶   (with prestart or createRuntime hooks only) runs them
//!                    ◀──────────────────   Continue
//!    Terminal + fd   ──────────────────▶   (with a terminal only) the pty's master
//!    Listener        ──────────────────▶   (with SCMP_ACT_NOTIFY only) hands the filter's listener to the seccomp agent
//!                    ◀──────────────────   Continue
//!    Socket + fd     ──────────────────▶   (criu only) on which it is talked to; exec is the next that is heard
//!    Ready           ──────────────────▶   writes state.json and the pid file
//!                    ◀──────────────────   Continue
//!    ... waits at exec.fifo (create), or goes on (run), until exec closes the socket
//!    Warning, Fault  ──────────────────▶   at any time; a Fault is the child's last word
//! ```
//! The end of file instead of `Continue` means that the parent is gone, and ends the child: it never goes on alone.

mod fault;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use rustix::process::Pid;

use crate::sys;
pub(crate) use fault::{Cause, Detail, Fault, START_CONTAINER, Step};

/// The size of every message from the child.
pub(crate) const LENGTH: usize = 11 + Detail::MAX;

/// What init writes into `exec.fifo` before it executes the program: no fault begins with it, and the byte of `start` is shorter.
pub(crate) const EXECUTES: [u8; 2] = *b"xx";

const SPAWNED: u8 = 1;
const NEED_MAPS: u8 = 2;
const NEED_HOOKS: u8 = 3;
const TERMINAL: u8 = 4;
const READY: u8 = 5;
const WARNING: u8 = 6;
/// The kind of a fault, also in `exec.fifo`.
pub(crate) const FAULT: u8 = 7;
const NEED_DEVICES: u8 = 8;
const LISTENER: u8 = 9;
const SOCKET: u8 = 10;

/// What the child says.
#[derive(Debug)]
pub(crate) enum Message {
    /// With the pid of who says it, in the parent's pid namespace.
    Spawned(Pid),
    NeedMaps,
    NeedDevices,
    NeedHooks,
    Terminal(OwnedFd),
    Listener(Listener),
    Socket(OwnedFd),
    Ready,
    Warning(Fault),
    Fault(Fault),
    /// The child has executed the container's program, or is dead.
    End,
}

/// The listener of the child's filter (seccomp_unotify(2)).
#[derive(Debug)]
pub(crate) enum Listener {
    /// The child's number of it, to be taken.
    Number(RawFd),
    Sent(OwnedFd),
}

/// The child's end.
pub(crate) struct ChildEnd<'a>(pub(crate) BorrowedFd<'a>);

impl ChildEnd<'_> {
    /// Sends a message without arguments, and waits for the parent's permission to go on.
    pub(crate) fn ask_maps(&self) -> Result<(), Fault> {
        self.ask(NEED_MAPS)
    }

    /// As above.
    pub(crate) fn ask_devices(&self) -> Result<(), Fault> {
        self.ask(NEED_DEVICES)
    }

    /// As above.
    pub(crate) fn ask_hooks(&self) -> Result<(), Fault> {
        self.ask(NEED_HOOKS)
    }

    /// As above. After it the child waits for `start`.
    pub(crate) fn ready(&self) -> Result<(), Fault> {
        self.ask(READY)
    }

    /// The first words of a second child.
    pub(crate) fn spawned(&self) -> Result<(), Fault> {
        self.send(&Fault::with_number(Step::SecondChild, 0).encode(SPAWNED))
    }

    /// The pty's master.
    pub(crate) fn terminal(&self, master: BorrowedFd<'_>) -> Result<(), Fault> {
        let message = Fault::with_number(Step::Console, 0).encode(TERMINAL);
        sys::sendmsg_fd(self.0, &message, master).map(drop).map_err(|errno| Fault::new(Step::Console, errno))
    }

    /// The parent's end of criu's socket.
    pub(crate) fn socket(&self, socket: BorrowedFd<'_>) -> Result<(), Fault> {
        let message = Fault::with_number(Step::Protocol, 0).encode(SOCKET);
        sys::sendmsg_fd(self.0, &message, socket).map(drop).map_err(|errno| Fault::new(Step::Protocol, errno))
    }

    /// The listener of the filter that was just loaded, and waits until the agent has it, which from then on may have to
    /// answer for what we do. By its number in a write(2), which no profile may send to the agent; `send`: by sendmsg(2),
    /// to a parent who may not take it.
    pub(crate) fn listener(&self, listener: BorrowedFd<'_>, send: bool) -> Result<(), Fault> {
        let message = Fault::with_number(Step::Listener, listener.as_raw_fd()).encode(LISTENER);
        if send {
            sys::sendmsg_fd(self.0, &message, listener).map_err(|errno| Fault::new(Step::Listener, errno))?;
        } else {
            self.send(&message)?;
        }
        self.wait()
    }

    /// Something that is not fatal.
    pub(crate) fn warn(&self, fault: &Fault) -> Result<(), Fault> {
        self.send(&fault.encode(WARNING))
    }

    /// The last word.
    pub(crate) fn fault(&self, fault: &Fault) {
        // Nobody is left to tell if this fails.
        let _ = self.send(&fault.encode(FAULT));
    }

    fn ask(&self, kind: u8) -> Result<(), Fault> {
        self.send(&Fault::with_number(Step::Protocol, 0).encode(kind))?;
        self.wait()
    }

    /// Waits for `Continue`. read(2) and write(2), not recv and send: these run under the container's seccomp filter,
    /// and every program needs them.
    pub(crate) fn wait(&self) -> Result<(), Fault> {
        let mut byte = [0u8];
        match rustix::io::retry_on_intr(|| rustix::io::read(self.0, &mut byte)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(Fault::new(Step::Protocol, sys::Errno::PIPE)),
            Err(errno) => Err(Fault::new(Step::Protocol, errno)),
        }
    }

    fn send(&self, message: &[u8]) -> Result<(), Fault> {
        rustix::io::retry_on_intr(|| rustix::io::write(self.0, message))
            .map(drop)
            .map_err(|errno| Fault::new(Step::Protocol, errno))
    }
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd(pub(crate) OwnedFd);

impl ParentEnd {
    /// Lets the child go on.
    pub(crate) fn go_on(&self) -> sys::Result<()> {
        rustix::net::send(&self.0, &[1], SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits for the next message, and says whether it is the end, before anything else was said.
    pub(crate) fn ends_silently(&self) -> bool {
        let mut byte = [0u8];
        rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut byte, RecvFlags::PEEK))
            .is_ok_and(|(length, _)| length == 0)
    }

    /// Waits for the next message.
    pub(crate) fn receive(&self) -> sys::Result<Message> {
        let mut bytes = [0u8; LENGTH];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        };
        let received = loop {
            match receive() {
                // It is gone with our message unread, which is said once; what it has said comes next.
                Err(sys::Errno::INTR | sys::Errno::CONNRESET) => {}
                result => break result?,
            }
        };
        if received.bytes == 0 {
            return Ok(Message::End);
        }
        let (mut sender, mut descriptor) = (None, None);
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                RecvAncillaryMessage::ScmRights(mut fds) => descriptor = fds.next(),
                _ => {}
            }
        }
        let fault = Fault::decode(&bytes).ok_or(sys::Errno::PROTO)?;
        match bytes.first().copied().unwrap_or(0) {
            SPAWNED => sender.map(Message::Spawned).ok_or(sys::Errno::PROTO),
            NEED_MAPS => Ok(Message::NeedMaps),
            NEED_DEVICES => Ok(Message::NeedDevices),
            NEED_HOOKS => Ok(Message::NeedHooks),
            READY => Ok(Message::Ready),
            WARNING => Ok(Message::Warning(fault)),
            FAULT => Ok(Message::Fault(fault)),
            SOCKET => descriptor.map(Message::Socket).ok_or(sys::Errno::PROTO),
            TERMINAL => descriptor.map(Message::Terminal).ok_or(sys::Errno::PROTO),
            LISTENER => Ok(Message::Listener(descriptor.map_or(Listener::Number(fault.errno), Listener::Sent))),
            _ => Err(sys::Errno::PROTO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_passes_unchanged() {
        let fault = Fault::new(Step::MountParam, sys::Errno::INVAL)
            .item(7)
            .sub(2)
            .detail(Detail::new(b"tmpfs: Bad value for 'size'"));
        assert_eq!(Fault::decode(&fault.encode(FAULT)), Some(fault));
    }

    #[test]
    fn a_detail_keeps_its_end() {
        let long: Vec<u8> = (0..=255).collect();
        assert_eq!(Detail::end_of(&long).as_bytes().last(), Some(&255));
        assert_eq!(Detail::end_of(&long).as_bytes().len(), Detail::MAX);
    }
}
