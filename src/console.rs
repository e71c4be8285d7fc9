//! The terminal of a container in the foreground. Runs in: parent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize};

/// Before anyone uses it: no CR before each newline of output (runc's rule: whoever shows it adds its own), and its size.
pub(crate) fn prepare(master: &OwnedFd, size: Option<(u16, u16)>) -> rustix::io::Result<()> {
    let mut termios = rustix::termios::tcgetattr(master)?;
    termios.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(master, OptionalActions::Now, &termios)?;
    let Some((rows, columns)) = size else { return Ok(()) };
    rustix::termios::tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Rows and columns of the caller's terminal, if stdin is one.
pub(crate) fn callers_size() -> Option<(u16, u16)> {
    rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok().map(|size| (size.ws_row, size.ws_col))
}

/// The name of the other end, in the container.
pub(crate) fn name(master: &OwnedFd) -> rustix::io::Result<String> {
    rustix::pty::ptsname(master, Vec::new()).map(|name| name.to_string_lossy().into_owned())
}

/// The caller's terminal in raw mode, with the container's behind it. Dropping it restores the caller's.
pub(crate) struct Proxy {
    master: OwnedFd,
    saved: Option<Termios>,
    /// Input that the container has not taken yet.
    input: Vec<u8>,
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
        Ok(Self { master, saved, input: Vec::new(), input_open: true, output_open: true })
    }

    /// Gives the container's terminal the size of the caller's.
    pub(crate) fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    /// What to poll, besides others: the master, and stdin where input is wanted. Not always: of a pipe whose other end
    /// is closed poll says so at once, whatever it is asked for.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let master = if self.input.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![PollFd::from_borrowed_fd(self.master.as_fd(), master)];
        if self.input_open && self.input.is_empty() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        fds
    }

    /// Whether more can come from the container.
    pub(crate) fn is_open(&self) -> bool {
        self.output_open
    }

    /// Moves what there is. `master` and `stdin` are what poll said of the two.
    pub(crate) fn turn(&mut self, master: PollFlags, stdin: PollFlags) {
        if self.input_open && self.input.is_empty() && stdin.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        {
            self.take_input();
        }
        if !self.input.is_empty() && master.contains(PollFlags::OUT) {
            self.give_input();
        }
        if self.output_open && master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.copy_output();
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

    fn copy_output(&mut self) {
        let mut chunk = [0u8; 16 << 10];
        match rustix::io::read(&self.master, &mut chunk) {
            Ok(length) if length > 0 => write_all(rustix::stdio::stdout(), chunk.get(..length).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO: the last one who had the other end open has closed it.
            Ok(_) | Err(_) => self.output_open = false,
        }
    }

    /// After the program has ended: its last words, until there is nothing more or nobody left who could say more.
    pub(crate) fn drain(&mut self) {
        while self.output_open {
            let mut fds = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
            // What was written before the end is there at once; a background process may keep the terminal open.
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match rustix::event::poll(&mut fds, Some(&now)) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.copy_output(),
            }
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
