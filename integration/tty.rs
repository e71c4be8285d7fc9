//! Terminals: `run` on one, and the console socket of `create`.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};
use serde_json::json;

use crate::support::{
    Bundle, Call, Container, Lines, Running, case, deadline, eventually, readable, text, wait_for_end,
};

/// A terminal as a user has one: what the user types and sees, and the other side.
pub(crate) struct Terminal {
    master: File,
    pub(crate) screen: Lines,
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    pub(crate) fn new(rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        tcsetwinsize(&master, size(rows, columns)).unwrap();
        Self { screen: Lines::new(master.try_clone().unwrap()), master: File::from(master), slave }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// `run` of a bundle with a terminal on this one.
    fn run(&self, bundle: Bundle) -> (Container, Running) {
        let container = with_terminal(bundle);
        let call = container.call_bundle("run", &[]).on_terminal(&self.slave);
        let running = call.spawn();
        (container, running)
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn with_terminal(mut bundle: Bundle) -> Container {
    bundle.set("/process/terminal", json!(true));
    bundle.container()
}

#[test]
fn run_on_a_terminal_gives_the_exit_code() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let (container, running) = terminal.run(Bundle::sh("echo question; read line; echo got $line; exit 3"));
        terminal.screen.until("question");
        terminal.types("answer\n");
        terminal.screen.until("got answer");
        assert_eq!(running.wait().code(), 3);
        container.nothing_left();
    });
}

#[test]
fn interactive_shell() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let mut bundle = Bundle::new();
        bundle.args(&["sh"]);
        let (container, running) = terminal.run(bundle);
        terminal.screen.until("# ");
        terminal.types("echo $((6 * 7))\n");
        terminal.screen.until("42");
        terminal.types("exit 3\n");
        assert_eq!(running.wait().code(), 3);
        container.nothing_left();
    });
}

#[test]
fn window_size_is_the_callers_and_follows_it() {
    case(|| {
        let mut terminal = Terminal::new(33, 77);
        let script = "trap 'stty size' WINCH; stty size; echo ready; while :; do read line; done";
        let (_container, _running) = terminal.run(Bundle::sh(script));
        let before = terminal.screen.until("ready");
        assert!(before.contains("33 77"), "{before:?}");
        // The kernel sends SIGWINCH to the caller's foreground process group.
        tcsetwinsize(&terminal.master, size(44, 99)).unwrap();
        terminal.screen.until("44 99");
    });
}

/// As with `echo input | runtime exec -t`.
#[test]
fn window_size_is_that_of_any_standard_stream() {
    case(|| {
        let mut terminal = Terminal::new(33, 77);
        let container = with_terminal(Bundle::sh("stty size"));
        let call = container.call_bundle("run", &[]).on_terminal(&terminal.slave);
        let running = call.stdin(std::fs::File::open("/dev/null").unwrap()).spawn();
        terminal.screen.until("33 77");
        running.wait().ok();
    });
}

#[test]
fn control_c_gives_130() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        // In the host's pid namespace: the first process of a pid namespace is immune.
        let mut bundle = Bundle::sh("echo ready; exec sleep 1000");
        bundle.no_namespace("pid");
        let (container, running) = terminal.run(bundle);
        terminal.screen.until("ready");
        terminal.types("\x03");
        assert_eq!(running.wait().code(), 130);
        container.nothing_left();
    });
}

#[test]
fn control_c_reaches_a_handler_of_pid_1() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let (_container, running) =
            terminal.run(Bundle::sh("trap 'echo caught; exit 5' INT; echo ready; while :; do read line; done"));
        terminal.screen.until("ready");
        terminal.types("\x03");
        terminal.screen.until("caught");
        assert_eq!(running.wait().code(), 5);
    });
}

#[test]
fn death_by_a_signal_gives_128_and_the_signal() {
    case(|| {
        let terminal = Terminal::new(24, 80);
        let mut bundle = Bundle::sh("kill -SEGV $$");
        bundle.no_namespace("pid");
        let (_container, running) = terminal.run(bundle);
        assert_eq!(running.wait().code(), 128 + 11);
    });
}

#[test]
fn all_output_arrives() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let (_container, running) =
            terminal.run(Bundle::sh("head -c 100000 /dev/zero | tr '\\0' x; echo; echo the-end"));
        let screen = terminal.screen.until("the-end");
        assert_eq!(screen.matches('x').count(), 100_000);
        running.wait().ok();
    });
}

#[test]
fn callers_terminal_is_as_before() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let before = format!("{:?}", tcgetattr(&terminal.slave).unwrap());
        let (_container, running) = terminal.run(Bundle::sh("echo ready; read line"));
        terminal.screen.until("ready");
        assert_ne!(format!("{:?}", tcgetattr(&terminal.slave).unwrap()), before, "not raw while the container runs");
        terminal.types("\n");
        running.wait().ok();
        assert_eq!(format!("{:?}", tcgetattr(&terminal.slave).unwrap()), before);
    });
}

/// In raw mode the caller's terminal adds no CR, so that the container's does.
#[test]
fn lines_begin_at_the_left_margin() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let (_container, running) = terminal.run(Bundle::sh("echo one; echo two"));
        let screen = terminal.screen.until("two\r\n");
        assert!(screen.contains("one\r\ntwo\r\n"), "{screen:?}");
        running.wait().ok();
    });
}

#[test]
fn lines_in_a_pipe_are_as_they_were_written() {
    case(|| {
        let terminal = Terminal::new(24, 80);
        let container = with_terminal(Bundle::sh("echo one; echo two"));
        let (mut reader, write) = std::io::pipe().unwrap();
        container.call_bundle("run", &[]).on_terminal(&terminal.slave).stdout(write).spawn().wait().ok();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    });
}

/// As systemd does, which closes what it was given and opens /dev/console when it has something to say.
#[test]
fn a_terminal_that_was_closed_is_opened_again() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let script = "echo first; exec <&- >&- 2>&-; cat </fifo; echo again >/dev/console; cat </fifo";
        let container = with_terminal(Bundle::sh(script));
        let fifo = container.bundle.rootfs().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let running = container.call_bundle("run", &[]).on_terminal(&terminal.slave).spawn();
        terminal.screen.until("first");
        // Opened for writing when `cat` has it open: the terminal is closed by then.
        std::fs::write(&fifo, "").unwrap();
        terminal.screen.until("again");
        std::fs::write(&fifo, "").unwrap();
        running.wait().ok();
        container.nothing_left();
    });
}

#[test]
fn signals_come_through_while_nobody_reads_the_output() {
    case(|| {
        let terminal = Terminal::new(24, 80);
        let script = "trap 'exit 9' TERM; trap 'echo last words; : > /said' USR1; echo ready; \
                      sleep 1000 & wait; wait";
        let container = with_terminal(Bundle::sh(script));
        let (mut reader, mut write) = std::io::pipe().unwrap();
        let stdout = write.try_clone().unwrap();
        let running = container.call_bundle("run", &[]).on_terminal(&terminal.slave).stdout(stdout).spawn();
        let mut ready = [0; 6];
        reader.read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        write.write_all(&vec![b'.'; rustix::pipe::fcntl_getpipe_size(&write).unwrap()]).unwrap();
        running.signal(rustix::process::Signal::USR1);
        eventually("its last words are in the terminal", || container.bundle.rootfs().join("said").exists());
        running.signal(rustix::process::Signal::TERM);
        eventually("the container's program has ended", || container.status() == "stopped");
        assert!(!running.has_ended(), "what it has said is lost");
        drop(write);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest.trim_start_matches('.'), "last words\n");
        assert_eq!(running.wait().code(), 9);
        container.nothing_left();
    });
}

const INSIDE: &str = "tty; stat -c '%F %a' /dev/pts/0; [ -c /dev/console ] && echo console; stat -L -c %t:%T /dev/console; \
                      echo to-console > /dev/console; cut -d' ' -f6,7 /proc/self/stat; read line; echo end";

#[test]
fn terminal_inside() {
    case(|| {
        let mut terminal = Terminal::new(24, 80);
        let (_container, running) = terminal.run(Bundle::sh(INSIDE));
        terminal.types("\n");
        let screen = terminal.screen.until("end").replace('\r', "");
        // 88 is the number of devpts; the session is init's and the terminal its controlling one.
        for line in ["/dev/pts/0", "character special file 620", "console", "88:0", "to-console", "1 34816"] {
            assert!(screen.lines().any(|one| one == line), "no {line:?}: {screen}");
        }
        running.wait().ok();
    });
}

// ---------------------------------------------------------------------------------------------- console socket

/// Creates a container with a console socket; returns the terminal's master and what was sent beside it. `None`: the
/// runtime refused.
pub(crate) fn create_with_console(container: &Container) -> Option<(OwnedFd, Vec<u8>)> {
    let path = container.bundle.directory.join("socket");
    sent_to_socket(&path, || container.call_bundle("create", &["--console-socket", path.to_str().unwrap()]))
}

/// Listens at `path` during a call; returns the one descriptor that is sent there, and the bytes beside it. `None`: the
/// call failed.
pub(crate) fn sent_to_socket(path: &Path, call: impl FnOnce() -> Call) -> Option<(OwnedFd, Vec<u8>)> {
    let listener = UnixListener::bind(path).unwrap();
    let running = call().spawn();
    // The runtime may wait for its partner: it is accepted before the end of the call is waited for.
    listener.set_nonblocking(true).unwrap();
    let stream = loop {
        if readable(&listener, std::time::Duration::from_millis(5)) {
            break listener.accept().unwrap().0;
        }
        if running.has_ended() && !readable(&listener, std::time::Duration::ZERO) {
            running.wait().fails();
            return None;
        }
    };
    if !readable(&stream, deadline()) {
        return None;
    }
    let mut payload = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(&stream, &mut [IoSliceMut::new(&mut payload)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    let output = running.wait();
    if output.code() != 0 {
        return None;
    }
    assert_eq!(descriptors.len(), 1, "one descriptor is the protocol");
    Some((descriptors.remove(0), payload[..message.bytes].to_vec()))
}

#[test]
fn console_socket_gets_the_master() {
    case(|| {
        let container = with_terminal(Bundle::sh("stty size; read line; echo got $line; exit 0"));
        let (master, payload) = create_with_console(&container).expect("a terminal");
        assert!(!payload.is_empty(), "conmon wants at least one byte");
        let mut screen = Lines::new(master.try_clone().unwrap());
        container.start().ok();
        File::from(master).write_all(b"something\n").unwrap();
        screen.until("got something\r\n");
        let pid = container.pid();
        if pid != 0 {
            wait_for_end(pid);
        }
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn console_size_is_set_before_the_master_is_sent() {
    case(|| {
        let mut bundle = Bundle::sh("stty size");
        bundle.set("/process/consoleSize", json!({"height": 21, "width": 43}));
        let container = with_terminal(bundle);
        let (master, _) = create_with_console(&container).expect("a terminal");
        let size = tcgetwinsize(&master).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (21, 43));
        let mut screen = Lines::new(master);
        container.start().ok();
        screen.until("21 43");
    });
}

#[test]
fn console_inside() {
    case(|| {
        let container = with_terminal(Bundle::sh(INSIDE));
        let (master, _) = create_with_console(&container).expect("a terminal");
        let mut screen = Lines::new(master.try_clone().unwrap());
        container.start().ok();
        File::from(master).write_all(b"\n").unwrap();
        let screen = screen.until("end").replace('\r', "");
        for line in ["/dev/pts/0", "console", "88:0", "to-console", "1 34816"] {
            assert!(screen.lines().any(|one| one == line), "no {line:?}: {screen}");
        }
    });
}

#[test]
fn console_of_another_user_belongs_to_that_user() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c '%u %a' /dev/pts/0; echo x > /dev/tty && echo end");
        bundle.set("/process/user/uid", json!(1000));
        let container = with_terminal(bundle);
        let (master, _) = create_with_console(&container).expect("a terminal");
        let mut screen = Lines::new(master);
        container.start().ok();
        let screen = screen.until("end");
        assert!(screen.contains("1000 620"), "{screen:?}");
    });
}

#[test]
fn console_socket_that_is_not_there() {
    case(|| {
        let container = with_terminal(Bundle::new());
        container.call_bundle("create", &["--console-socket", "/nosuch/socket"]).run().fails();
        container.nothing_left();
    });
}

// ---------------------------------------------------------------------------------------------- pidfd socket

#[track_caller]
pub(crate) fn is_pidfd_of(pid: u32, fd: &OwnedFd) {
    // A pidfd shows its process in /proc/<pid>/fdinfo (pidfd_open(2)).
    let info = text(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    assert!(info.lines().any(|line| line == format!("Pid:\t{pid}")), "{info}");
}

#[test]
fn pidfd_socket_gets_a_pidfd_of_init() {
    case(|| {
        let container = Bundle::new().container();
        let path = container.bundle.directory.join("socket");
        let option = format!("--pidfd-socket={}", path.display());
        let (pidfd, payload) =
            sent_to_socket(&path, || container.call_bundle("create", &[&option])).expect("a descriptor");
        is_pidfd_of(container.pid(), &pidfd);
        assert_eq!(payload, b"standard", "the word of runc");
    });
}

#[test]
fn pidfd_socket_by_annotation() {
    case(|| {
        let mut bundle = Bundle::new();
        let path = bundle.directory.join("socket");
        bundle.set("/annotations", json!({"run.oci.pidfd_receiver": path.to_str().unwrap()}));
        let container = bundle.container();
        let (pidfd, _) = sent_to_socket(&path, || container.call_bundle("create", &[])).expect("a descriptor");
        is_pidfd_of(container.pid(), &pidfd);
    });
}

#[test]
fn pidfd_socket_that_is_not_there() {
    case(|| {
        let container = Bundle::new().container();
        let output = container.call_bundle("create", &["--pidfd-socket", "/nosuch/socket"]).run().fails();
        assert!(output.stderr.contains("/nosuch/socket"), "{output:?}");
        container.nothing_left();
    });
}
