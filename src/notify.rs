//! sd_notify(3) of a container's program, passed on to the service manager that runs us. Runs in: parent.
//!
//! As runc: the container gets a socket of its own in `/run/notify`. Of what comes there only that the service is ready is
//! passed on, with the pid that the service manager knows it by.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};
use rustix::process::Pid;

use crate::deadline;
use crate::error::{Error, Result};
use crate::state::Container;
use crate::sys;

/// What the service manager's socket is called in our environment, and the container's in that of its program.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";
/// In the container's directory; mounted as `/run/notify`.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
/// How long the service manager may take to hear us.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The service manager's socket, if it wants to hear of us.
pub(crate) fn host_socket() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The directory that the container gets, below that of its state.
pub(crate) fn directory(container: &Path) -> PathBuf {
    container.join(DIRECTORY)
}

/// Makes that directory.
pub(crate) fn make_directory(container: &Container) -> Result<()> {
    rustix::fs::mkdirat(container, DIRECTORY, Mode::from_raw_mode(0o755)).map_err(failed)
}

fn failed(errno: Errno) -> Error {
    Error::at(VARIABLE, "make a socket for the container").errno(errno)
}

/// A container that may say that it is ready.
pub(crate) struct Notify {
    /// Connected to the service manager.
    host: OwnedFd,
    container: OwnedFd,
}

impl Notify {
    /// Before the program runs. None: nobody wants to know, or the container was made without.
    pub(crate) fn listen(container: &Container) -> Result<Option<Self>> {
        let Some(host_path) = host_socket() else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(container, DIRECTORY, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(failed)?,
        };
        let host = socket()?;
        let at = |errno| Error::at(VARIABLE, format!("connect to {}", host_path.display())).errno(errno);
        connect(&host, &address(&host_path).map_err(at)?).map_err(at)?;
        let container = socket()?;
        // Whatever the length of the path.
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(SOCKET);
        SocketAddrUnix::new(&short).and_then(|address| bind(&container, &address)).map_err(failed)?;
        // The program may be any user's.
        rustix::fs::chmodat(&directory, SOCKET, Mode::from_raw_mode(0o777), AtFlags::empty()).map_err(failed)?;
        Ok(Some(Self { host, container }))
    }

    /// Waits until the container has said that it is ready, and the service manager has heard it, or until it has ended.
    pub(crate) fn wait(&self, pid: Pid, pidfd: &OwnedFd) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.container, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            deadline::poll(&mut fds, "the container's program to say that it is ready (sd_notify)")?;
            let [message, ended] = fds.map(|fd| !fd.revents().is_empty());
            if message && self.turn(pid) {
                return self.barrier();
            }
            if !message && ended {
                return Ok(());
            }
        }
    }

    /// What to poll for.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.container, PollFlags::IN)
    }

    /// Takes one message of the container's. True: it is ready, and that is passed on.
    pub(crate) fn turn(&self, pid: Pid) -> bool {
        let mut bytes = [0; 4096];
        let Ok((length, _)) = recv(&self.container, &mut bytes, RecvFlags::DONTWAIT) else { return false };
        let mut lines = bytes.get(..length).unwrap_or_default().split(|&byte| byte == b'\n');
        let Some(ready) = lines.find(|line| line.starts_with(b"READY=")) else { return false };
        self.say(ready, pid);
        true
    }

    /// Says so in its place.
    pub(crate) fn is_ready(&self, pid: Pid) -> Result<()> {
        self.say(b"READY=1", pid);
        self.barrier()
    }

    fn say(&self, ready: &[u8], pid: Pid) {
        let say = |text: &[u8]| send(&self.host, text, SendFlags::NOSIGNAL);
        // Who does not listen any more is not waited for either.
        let _ = say(&[ready, b"\n"].concat());
        let _ = say(format!("MAINPID={}\n", pid.as_raw_nonzero()).as_bytes());
    }

    /// sd_notify_barrier(3): the service manager must have read what we sent before we end, or it does not know whose it was.
    fn barrier(&self) -> Result<()> {
        let failed = |errno| Error::at(VARIABLE, "wait for the service manager").errno(errno);
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        if sys::sendmsg_fd(self.host.as_fd(), b"BARRIER=1", write.as_fd()).is_err() {
            return Ok(());
        }
        drop(write);
        // The end of the pipe: it was closed by the reader of the message.
        match rustix::event::poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(0) => Err(Error::at(VARIABLE, "the service manager has not heard us within 30 s")),
            Ok(_) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }
}

fn socket() -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(failed)
}

/// A path, or behind an `@` a name without a file (unix(7), abstract).
fn address(path: &Path) -> rustix::io::Result<SocketAddrUnix> {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(path),
    }
}
