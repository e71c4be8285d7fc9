//! A client of D-Bus that makes a few calls and waits for an answer or a signal. Runs in: parent, which has one thread
//! and must stay so: that is why it is our own (zbus runs an executor in a thread of its own).

mod message;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use message::Kind;
pub(crate) use message::{Method, Value};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The other side's error: its name, and its words.
    #[error("{text} ({name})")]
    Remote { name: String, text: String },
    #[error("no answer in time")]
    Timeout,
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Protocol(&'static str),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{}", crate::error::Errno::from(*.0))]
    Errno(#[from] rustix::io::Errno),
}

impl Failure {
    /// Whether it is the remote error of this name.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Remote { name, .. } if name == wanted)
    }
}

/// How long a call, or the job that it has started, may take: as with runc.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a bus, or to a service that listens itself.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// What has come, and is not looked at.
    input: Vec<u8>,
    serial: u32,
    /// Who has answered last: only its signals are believed. Any user of the bus can send some.
    peer: Option<String>,
    /// Signals that came while an answer was awaited: member and arguments.
    signals: Vec<(String, Vec<Value>)>,
}

impl Connection {
    /// Connects, and proves who we are by what the kernel tells of us (mechanism EXTERNAL without a name: then it is
    /// right in a user namespace too).
    pub(crate) fn open(socket: &Path) -> Result<Self, Failure> {
        // Blocking: where many connect at once it waits, and is not told EAGAIN; but not for ever.
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&stream, Timeout::Send, Some(PATIENCE))?;
        connect(&stream, &SocketAddrUnix::new(socket)?)?;
        let stream = UnixStream::from(stream);
        let mut connection = Self { stream, input: Vec::new(), serial: 0, peer: None, signals: Vec::new() };
        connection.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = crate::deadline::until(PATIENCE);
        for wanted in ["DATA", "OK"] {
            let line = loop {
                match connection.input.windows(2).position(|end| end == b"\r\n") {
                    Some(end) => break connection.input.drain(..end.saturating_add(2)).collect::<Vec<_>>(),
                    None => connection.receive(deadline)?,
                }
            };
            if !line.starts_with(wanted.as_bytes()) {
                return Err(Failure::Protocol("the authentication was refused"));
            }
        }
        Ok(connection)
    }

    /// Calls a method and waits for the answer.
    pub(crate) fn call(&mut self, method: &Method<'_>, arguments: &[Value]) -> Result<Vec<Value>, Failure> {
        self.serial = self.serial.wrapping_add(1).max(1);
        self.stream.write_all(&message::call(self.serial, method, arguments))?;
        let deadline = crate::deadline::until(PATIENCE);
        loop {
            let message = self.next(deadline)?;
            if message.reply_to == Some(self.serial) {
                self.peer = message.sender;
                return match message.kind {
                    Kind::Error => Err(Failure::Remote {
                        name: message.error.unwrap_or_default(),
                        text: message.body.first().and_then(Value::text).unwrap_or_default().to_owned(),
                    }),
                    _ => Ok(message.body),
                };
            }
            self.keep(message);
        }
    }

    /// Waits for a signal of which `found` makes something. Those that have come since the connection was made count.
    pub(crate) fn wait<T>(&mut self, member: &str, found: impl Fn(&[Value]) -> Option<T>) -> Result<T, Failure> {
        let deadline = crate::deadline::until(PATIENCE);
        loop {
            let mut named = self.signals.iter().filter(|(name, _)| name == member);
            if let Some(found) = named.find_map(|(_, arguments)| found(arguments)) {
                return Ok(found);
            }
            self.signals.clear();
            let message = self.next(deadline)?;
            self.keep(message);
        }
    }

    fn keep(&mut self, message: message::Message) {
        if let (Kind::Signal, true, Some(member)) = (message.kind, message.sender == self.peer, message.member) {
            self.signals.push((member, message.body));
        }
    }

    fn next(&mut self, deadline: Instant) -> Result<message::Message, Failure> {
        loop {
            if let Some((message, length)) = message::read(&self.input).map_err(Failure::Protocol)? {
                self.input.drain(..length);
                return Ok(message);
            }
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), Failure> {
        use std::io::ErrorKind;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Timeout);
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Failure::Closed),
            Ok(count) => {
                self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Failure::Timeout),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
