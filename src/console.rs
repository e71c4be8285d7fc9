//! The terminal of a container in the foreground. Runs in: parent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize};

/// No CR before each newline of output: as with runc, who reads it where no terminal shows it gets what the program has
/// written.
pub(crate) fn keep_newlines(master: &OwnedFd) -> rustix::io::Result<()> {
    let mut termios = rustix::termios::tcgetattr(master)?;
    termios.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(master, OptionalActions::Now, &termios)
}

/// Before anyone uses it.
pub(crate) fn set_size(master: &OwnedFd, (rows, columns): (u16, u16)) -> rustix::io::Result<()> {
    rustix::termios::tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Rows and columns of the caller's terminal, if a standard stream is one.
pub(crate) fn callers_size() -> Option<(u16, u16)> {
    callers_window().map(|size| (size.ws_row, size.ws_col))
}

fn callers_window() -> Option<Winsize> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    streams.into_iter().find_map(|stream| rustix::termios::tcgetwinsize(stream).ok())
}

/// The name of the other end, in the container.
pub(crate) fn name(master: &OwnedFd) -> rustix::io::Result<String> {
    rustix::pty::ptsname(master, Vec::new()).map(|name| name.to_string_lossy().into_owned())
}

/// The caller's terminal in raw mode, with the container's behind it, which makes CR LF of a newline as every terminal does.
/// Dropping it restores the caller's.
pub(crate) struct Proxy {
    master: OwnedFd,
    /// The container's end, held open: a program may close its terminal and open it again, as systemd does, and the master
    /// would say EIO meanwhile. None: a user's terminal that belongs to another user inside.
    _terminal: Option<OwnedFd>,
    saved: Option<Termios>,
    /// Input that the container has not taken yet.
    input: Vec<u8>,
    /// Output that the caller has not taken yet.
    output: Vec<u8>,
    input_open: bool,
    output_open: bool,
}

impl Proxy {
    /// Takes the caller's terminal, if stdin is one.
    pub(crate) fn new(master: OwnedFd) -> rustix::io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let stdin = rustix::stdio::stdin();
        let saved = match rustix::termios::tcgetattr(stdin) {
            Ok(termios) => {
                let mut raw = termios.clone();
                raw.make_raw();
                rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
                Some(termios)
            }
            Err(_) => None,
        };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let _terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Self { master, _terminal, saved, input, output, input_open: true, output_open: true })
    }

    /// Gives the container's terminal the size of the caller's.
    pub(crate) fn resize(&self) {
        if let Some(size) = callers_window() {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    fn wants_input(&self) -> bool {
        self.input_open && self.output_open && self.input.is_empty()
    }

    fn wants_output(&self) -> bool {
        self.output_open && self.output.is_empty()
    }

    /// What to poll: the master, stdin and stdout, or `nothing` in the place of one that is not wanted. Of a pipe whose other
    /// end is closed poll says so at once, whatever it is asked for.
    pub(crate) fn poll_fds<'a>(&'a self, nothing: BorrowedFd<'a>) -> [PollFd<'a>; 3] {
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.wants_output());
        master.set(PollFlags::OUT, !self.input.is_empty());
        let stdin = if self.wants_input() { PollFlags::IN } else { PollFlags::empty() };
        let stdout = if self.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        [(self.master.as_fd(), master), (rustix::stdio::stdin(), stdin), (rustix::stdio::stdout(), stdout)]
            .map(|(fd, flags)| PollFd::from_borrowed_fd(if flags.is_empty() { nothing } else { fd }, flags))
    }

    /// Moves what there is; the three are what poll said.
    pub(crate) fn turn(&mut self, [master, stdin, stdout]: [PollFlags; 3]) {
        let over = PollFlags::HUP | PollFlags::ERR;
        if self.wants_input() && stdin.intersects(PollFlags::IN | over) {
            self.take_input();
        }
        if !self.input.is_empty() && master.contains(PollFlags::OUT) {
            self.give_input();
        }
        if self.wants_output() && master.intersects(PollFlags::IN | over) {
            self.take_output();
        }
        if !self.output.is_empty() && stdout.intersects(PollFlags::OUT | over) {
            self.give_output();
        }
    }

    fn take_input(&mut self) {
        let mut chunk = [0u8; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
            Ok(0) => {
                self.input_open = false;
                // A pipe that has ended: the container's program sees the end of file as from a typed Ctrl-D.
                if self.saved.is_none() {
                    self.input.push(4);
                }
            }
            Ok(length) => self.input.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.input_open = false,
        }
    }

    fn give_input(&mut self) {
        match rustix::io::write(&self.master, &self.input) {
            Ok(length) => drop(self.input.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.input.clear(),
        }
    }

    /// Not more than a pipe that poll calls writable takes without blocking (`PIPE_BUF`): who does not read our stdout must
    /// not keep signals from the container.
    fn take_output(&mut self) {
        let mut chunk = [0u8; 4096];
        match rustix::io::read(&self.master, &mut chunk) {
            Ok(length) if length > 0 => self.output.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO: the last one who had the other end open has closed it.
            Ok(_) | Err(_) => self.output_open = false,
        }
    }

    fn give_output(&mut self) {
        match rustix::io::write(rustix::stdio::stdout(), &self.output) {
            Ok(length) => drop(self.output.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.output.clear(),
        }
    }

    /// After the program has ended: its last words, until there is nothing more or nobody left who could say more.
    pub(crate) fn drain(&mut self) {
        loop {
            write_all(rustix::stdio::stdout(), &self.output);
            self.output.clear();
            let mut fds = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
            // What was written before the end is there at once; a background process may keep the terminal open.
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if !self.output_open || !rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) {
                return;
            }
            self.take_output();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// Writes everything; stdout may be non-blocking, as it is shared with whoever gave it to us.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                let _ = rustix::event::poll(&mut fds, None);
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
