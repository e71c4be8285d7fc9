//! criu, to which `checkpoint` and `restore` give their work: finding it, and talking to it. Runs in: parent.
//!
//! ```text
//!  checkpoint, restore                         criu swrk FD
//!    request, options       ──────────────▶
//!    carry out, answer      ◀───────────────   notification: setup-namespaces, post-restore, orphan-pts-master + fd, ...
//!                           ──────────────▶
//!    excerpt of the log     ◀───────────────   response: done, or failed
//! ```
//! It notices at the next notification that we are gone: then it lets a container run on that it dumps, and kills one that
//! it restores.

mod external;
pub(crate) mod message;
mod options;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use rustix::process::Pid;

use crate::cgroups::Join;
use crate::child::{self, Spawned, reap};
use crate::create::own_environment;
use crate::error::{self, Error, Result};
use crate::host::Host;
use crate::init::{self, CriuRestore};
use crate::interrupt::Interrupt;
use crate::rollback::Rollback;
use crate::sync::{Fault, Message as SyncMessage, Step};
pub(crate) use external::{attributes, dumped, inherit, make_targets, restored};
use message::{Response, kind};
pub(crate) use options::Flags;

/// What is told to get it. 3.16 is what kernels of this program's floor need, and has all that is asked of it.
const HINT: &str = "install criu 3.16 or newer (package criu of most distributions; of Debian's, that of sid)";

/// criu, of this host.
pub(crate) struct Criu {
    program: CString,
    environment: Vec<CString>,
    /// Whether it ends when we do.
    pub(crate) ends_with_us: bool,
}

/// What it can do on this kernel.
pub(crate) struct Features {
    pub(crate) mem_track: bool,
    pub(crate) lazy_pages: bool,
}

impl Criu {
    /// The criu of PATH, if it is new enough. `what` needs it.
    pub(crate) fn find(what: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(format!("{what} needs root: criu does")));
        }
        let path = find_program("criu");
        let path =
            path.ok_or_else(|| Error::new(format!("{what} needs criu, which is not found in PATH")).hint(HINT))?;
        let program = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::new(format!("{} has a NUL byte", path.display())))?;
        let criu = Self { program, environment: own_environment(), ends_with_us: false };
        let version = criu.ask(&message::request(kind::VERSION, None))?.version;
        let (major, minor, _) = version;
        if (major, minor) < (3, 16) {
            return Err(Error::new(format!("{what} needs criu, and {} is of version {major}.{minor}", path.display()))
                .hint(HINT));
        }
        Ok(criu)
    }

    /// Asks it what the kernel lets it do.
    pub(crate) fn features(&self) -> Result<Features> {
        let response = self.ask(&message::feature_check())?;
        Ok(Features { mem_track: response.mem_track, lazy_pages: response.lazy_pages })
    }

    fn ask(&self, request: &[u8]) -> Result<Response> {
        let session = self.start(Join::none(), &[], None, &mut Rollback::new())?;
        session.send(request)?;
        match session.work(None, |_, _| Ok(()))? {
            Outcome::Answered(response) => Ok(response),
            Outcome::Died(error) => Err(error),
        }
    }

    /// Starts it, in a mount namespace of its own.
    pub(crate) fn start(
        &self,
        join: Join,
        directories: &[(CString, BorrowedFd<'_>)],
        restore: Option<CriuRestore<'_>>,
        rollback: &mut Rollback,
    ) -> Result<Session> {
        let name = self.program.to_string_lossy().into_owned();
        let Spawned { pid, pidfd, sync } =
            child::clone_into(join, libc::CLONE_NEWNS, None, rollback, |sync, tasks| {
                let (program, environment) = (self.program.as_c_str(), self.environment.as_slice());
                let ends_with_us = self.ends_with_us;
                init::Criu { program, environment, directories, restore, ends_with_us, tasks, sync }.run()
            })?;
        let mut socket = None;
        loop {
            match (sync.receive(), socket.take()) {
                (Ok(SyncMessage::Socket(new)), None) => socket = Some(new),
                // By exec.
                (Ok(SyncMessage::End), Some(socket)) => return Ok(Session { program: name, pid, pidfd, socket }),
                (Ok(SyncMessage::Fault(fault)), _) => return Err(explain(&name, &fault)),
                (Ok(SyncMessage::Warning(_)), _) => {}
                (Ok(_), _) => return Err(Error::new(format!("start {name}: it has died"))),
                (Err(errno), _) => return Err(Error::new(format!("start {name}")).errno(errno)),
            }
        }
    }
}

/// A program of PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories)
        .map(|directory| directory.join(name))
        .find(|path| path.is_absolute() && path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok())
}

/// criu's default needs iptables-restore(8), for which nftables, a library, can stand in. The images say which it was.
pub(crate) fn choose_network_lock(flags: &Flags, options: &mut message::Message) {
    if flags.network_lock.is_none() && find_program("iptables-restore").is_none() {
        options.number(message::opt::NETWORK_LOCK, options::NFTABLES);
    }
}

fn explain(program: &str, fault: &Fault) -> Error {
    let what = match fault.step {
        Step::JoinCgroup => "join the cgroup".to_owned(),
        Step::InheritedMounts => "make its mount namespace its own".to_owned(),
        Step::AttachRootfs => "mount the root file system".to_owned(),
        Step::Exec => "execute it".to_owned(),
        step => format!("{step:?}"),
    };
    Error::new(format!("start {program}: {what}")).errno(error::Errno(fault.errno))
}

/// A criu that waits for a request.
pub(crate) struct Session {
    program: String,
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
    socket: OwnedFd,
}

impl Session {
    /// Gives it its work, or an answer.
    pub(crate) fn send(&self, message: &[u8]) -> Result<()> {
        rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL).map(drop).map_err(|errno| match errno {
            Errno::PIPE | Errno::CONNRESET => self.has_ended(),
            errno => Error::new(format!("talk to {}", self.program)).errno(errno),
        })
    }

    /// Answers notifications until it is done, and waits for its end. It ends by itself in any case: when a notification
    /// fails, because there is no answer, which is an error of ours.
    pub(crate) fn work(
        self,
        mut interrupt: Option<&Interrupt>,
        mut notification: impl FnMut(&Response, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Outcome> {
        let result = loop {
            if let Err(error) = interrupt.map_or(Ok(()), |interrupt| interrupt.wait_for(self.socket.as_fd(), "criu")) {
                break Err(error);
            }
            let (response, fd) = match self.receive() {
                Ok(received) => received,
                Err(error) => break Ok(Outcome::Died(error)),
            };
            if response.kind != kind::NOTIFY {
                break Ok(Outcome::Answered(response));
            }
            // The container has its processes: from here on signals are theirs.
            if response.notify == "post-restore" {
                interrupt = None;
            }
            if let Err(error) = notification(&response, fd) {
                break Err(error);
            }
            if let Err(error) = self.send(&message::notified()) {
                break Ok(Outcome::Died(error));
            }
        };
        let Self { socket, pidfd, program, .. } = self;
        drop(socket);
        let status = reap(&pidfd);
        match (result, status.and_then(|status| status.terminating_signal())) {
            (Ok(Outcome::Died(_)), Some(signal)) => {
                Ok(Outcome::Died(Error::new(format!("{program} was ended by signal {signal}"))))
            }
            (result, _) => result,
        }
    }

    fn has_ended(&self) -> Error {
        Error::new(format!("{} has ended without an answer", self.program))
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0u8; 1 << 16];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Err(Errno::CONNRESET) => 0,
            received => received.map_err(|errno| Error::new(format!("talk to {}", self.program)).errno(errno))?.bytes,
        };
        if received == 0 {
            return Err(self.has_ended());
        }
        let descriptor = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let bytes = bytes.get(..received).unwrap_or_default();
        let response = message::response(bytes);
        let response =
            response.ok_or_else(|| Error::new(format!("{} has sent what is no answer: {bytes:?}", self.program)))?;
        Ok((response, descriptor))
    }
}

/// What has become of criu.
pub(crate) enum Outcome {
    Answered(Response),
    /// Without an answer.
    Died(Error),
}

/// The directories of a dump or restore, opened.
pub(crate) struct Directories {
    pub(crate) images: OwnedFd,
    work: Option<OwnedFd>,
    /// Where the log is.
    log: PathBuf,
}

impl Directories {
    /// Opens those of the command line. `make`: those that are missing are made.
    pub(crate) fn open(flags: &Flags, make: bool, log: &str) -> Result<Self> {
        let images = open_directory("--image-path", &flags.image_path, make)?;
        let work = flags.work_path.as_deref().map(|path| open_directory("--work-path", path, true)).transpose()?;
        // That of an earlier run would be quoted for an error before criu has one.
        match rustix::fs::unlinkat(work.as_ref().unwrap_or(&images), log, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::at("--work-path", format!("remove {log}")).errno(errno)),
        }
        let directory = flags.work_path.as_ref().unwrap_or(&flags.image_path);
        Ok(Self { images, work, log: directory.join(log) })
    }

    /// For [`Criu::start`]: where they are, and their descriptors.
    pub(crate) fn list(&self, host: &Host) -> Result<Vec<(CString, BorrowedFd<'_>)>> {
        use std::os::fd::AsRawFd;
        let each = [Some(&self.images), self.work.as_ref()].into_iter().flatten();
        each.map(|fd| {
            let link = rustix::fs::readlinkat(&host.proc, format!("self/fd/{}", fd.as_raw_fd()), Vec::new());
            link.map(|path| (path, fd.as_fd())).map_err(|errno| Error::new("read /proc/self/fd").errno(errno))
        })
        .collect()
    }

    /// Tells criu of them.
    pub(crate) fn add_to(&self, options: &mut message::Message) {
        use std::os::fd::AsRawFd;
        options.int(message::opt::IMAGES_DIR_FD, self.images.as_raw_fd());
        self.work.as_ref().map(|work| options.int(message::opt::WORK_DIR_FD, work.as_raw_fd()));
        let name = self.log.file_name().unwrap_or_default();
        options.text(message::opt::LOG_FILE, name.as_bytes());
    }

    /// What criu has done, or an error with the lines of its log that matter.
    pub(crate) fn done(&self, what: &str, outcome: Outcome) -> Result<Response> {
        let error = match outcome {
            Outcome::Answered(response) if response.success => return Ok(response),
            Outcome::Answered(response) => {
                let error = Error::new(format!("{what}: criu has failed, its log is {}", self.log.display()));
                // Its first error, or what it could do without; the log has them all.
                error.kernel(response.message.trim().lines().next().unwrap_or_default())
            }
            Outcome::Died(error) => error,
        };
        let directory = self.work.as_ref().unwrap_or(&self.images);
        let log = self.log.file_name().map(|name| read(directory, name.as_ref()).unwrap_or_default());
        let (lines, cure) = options::excerpt(&String::from_utf8_lossy(&log.unwrap_or_default()));
        let error = if lines.is_empty() { error } else { error.kernel("") };
        let error = match cure {
            Some(cure) => error.hint(cure),
            None => error,
        };
        Err(error.quote(lines))
    }
}

fn open_directory(option: &str, path: &Path, make: bool) -> Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |error: std::io::Error| Error::at(option, format!("{path:?}")).errno(error);
    if make {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))
}

/// A file of a directory of images.
pub(crate) fn read(directory: impl AsFd, name: &Path) -> rustix::io::Result<Vec<u8>> {
    let file = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes).map_err(|_| Errno::IO)?;
    Ok(bytes)
}
