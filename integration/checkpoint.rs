//! `checkpoint` and `restore`, by criu.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::notify::message;
use crate::seccomp_notify::answered;
use crate::support::{
    Bundle, Call, Container, Io, Lines, Running, case, deadline, eventually, link, may_raise_limits, pipe, readable,
    scale, skip, text, wait_for_end, with_io,
};
use crate::tty::{Terminal, sent_to_socket};

/// Where criu is, which has to be a recent one.
fn criu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("criu")).find(|path| path.is_file())
}

macro_rules! needs_criu {
    () => {
        if criu().is_none() {
            skip!("no criu");
        }
    };
}

/// Counts the lines of its stdin in one process and hands them to another by a pipe, which says them; and appends them to
/// a file that stays open.
const COUNTER: &str = "echo ready; exec 3>>/log; while read line; do n=$((n + 1)); echo $n $line >&3; echo $n $line; done \
                       | while read line; do echo said $line; done; exit 7";

/// A container that runs COUNTER, started by `run --detach`.
#[track_caller]
fn counting(bundle: Bundle) -> (Container, Io) {
    let container = bundle.container();
    let (call, mut io) = with_io(container.call_bundle("run", &["--detach"]));
    call.run().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

/// Says a word and hears the answer.
#[track_caller]
fn count(io: &mut Io, word: &str, expected: u32) {
    io.write(&format!("{word}\n"));
    assert_eq!(io.stdout.next(), format!("said {expected} {word}"));
}

fn checkpoint(container: &Container, flags: &[&str]) -> Call {
    container.call([&["checkpoint", "--image-path", "images"], flags, &[&container.id]].concat())
}

fn restore(container: &Container, flags: &[&str]) -> Call {
    container.call_bundle("restore", &[&["--image-path", "images"], flags].concat())
}

#[track_caller]
fn restored(container: &Container, flags: &[&str]) -> Io {
    let (call, io) = with_io(restore(container, &[&["--detach"], flags].concat()));
    call.run().ok();
    io
}

/// Ends COUNTER by the end of its input, and the container.
#[track_caller]
fn end(container: &Container, mut io: Io) {
    let pid = container.pid();
    io.close();
    wait_for_end(pid);
    container.command(&["delete"], &[]).ok();
    container.nothing_left();
}

#[test]
fn it_goes_on_where_it_was() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        count(&mut io, "a", 1);
        count(&mut io, "b", 2);
        let created = container.state()["created"].clone();
        checkpoint(&container, &[]).run().ok();
        // The container is gone, and so is all that it had.
        assert!(container.command(&["state"], &[]).fails().stderr.contains("does not exist"));
        container.nothing_left();
        assert_eq!(io.stdout.rest(), "");
        assert_eq!(text(container.bundle.rootfs().join("log")), "1 a\n2 b\n");

        let pid_file = container.bundle.directory.join("pid");
        let mut io = restored(&container, &["--pid-file", pid_file.to_str().unwrap()]);
        assert_eq!(container.status(), "running");
        assert_eq!(text(pid_file), container.pid().to_string());
        assert_ne!(container.state()["created"], created);
        count(&mut io, "c", 3);
        assert_eq!(text(container.bundle.rootfs().join("log")), "1 a\n2 b\n3 c\n");
        // All other commands work on it.
        assert_eq!(container.command(&["exec"], &["hostname"]).ok().stdout, "container\n");
        container.command(&["pause"], &[]).ok();
        assert_eq!(container.status(), "paused");
        container.command(&["resume"], &[]).ok();
        count(&mut io, "d", 4);
        end(&container, io);
    });
}

#[test]
fn again_and_again() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        let rounds = (scale() / 2).clamp(3, 50) as u32;
        for round in 1..=rounds {
            count(&mut io, "x", round);
            checkpoint(&container, &[]).run().ok();
            if round % 10 == 1 {
                container.nothing_left();
            }
            io = restored(&container, &[]);
        }
        count(&mut io, "x", rounds + 1);
        end(&container, io);
    });
}

/// The images are for root of the host alone; criu's processes read them when they are in the namespace.
#[test]
fn a_user_namespace() {
    case(|| {
        needs_criu!();
        // Of a file of the host's root criu could not restore the owner.
        let mut bundle = Bundle::sh(&format!("exec 2>/dev/null; {COUNTER}"));
        let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        bundle.namespace("user", None).set("/linux/uidMappings", ids.clone()).set("/linux/gidMappings", ids);
        chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
        let (container, mut io) = counting(bundle);
        count(&mut io, "a", 1);
        checkpoint(&container, &[]).run().ok();
        let images = container.bundle.directory.join("images");
        assert_eq!(fs::metadata(&images).unwrap().mode() & 0o077, 0);
        let output = restore(&container, &["--detach"]).run().fails();
        assert!(
            output.stderr.contains("hint: root of the container's user namespace must be able to open"),
            "{output:?}"
        );
        container.nothing_left();
        chown(&images, None, Some(100_000)).unwrap();
        fs::set_permissions(&images, fs::Permissions::from_mode(0o750)).unwrap();
        let mut io = restored(&container, &[]);
        count(&mut io, "b", 2);
        assert_eq!(text(format!("/proc/{}/uid_map", container.pid())).split_whitespace().nth(1), Some("100000"));
        end(&container, io);
    });
}

#[test]
fn in_the_foreground_the_status_is_the_programs() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        count(&mut io, "a", 1);
        checkpoint(&container, &[]).run().ok();
        let (call, mut io) = with_io(restore(&container, &[]));
        let running = call.spawn();
        count(&mut io, "b", 2);
        io.close();
        assert_eq!(running.wait().code(), 7);
        container.nothing_left();
    });
}

#[test]
fn in_the_foreground_signals_are_passed_on() {
    case(|| {
        needs_criu!();
        let (container, io) =
            counting(Bundle::sh("trap 'echo got; exit 9' TERM; echo ready; while read x; do :; done; :"));
        checkpoint(&container, &[]).run().ok();
        drop(io);
        let (call, mut io) = with_io(restore(&container, &[]));
        let running = call.spawn();
        eventually("it runs", || container.command(&["state"], &[]).stdout.contains("running"));
        running.signal(Signal::TERM);
        assert_eq!(io.stdout.next(), "got");
        assert_eq!(running.wait().code(), 9);
        container.nothing_left();
    });
}

#[test]
fn leave_running() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        count(&mut io, "a", 1);
        let pid = container.pid();
        checkpoint(&container, &["--leave-running"]).run().ok();
        assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
        count(&mut io, "b", 2);
        // The images are of the moment before.
        container.stop();
        container.command(&["delete"], &[]).ok();
        let mut io = restored(&container, &[]);
        count(&mut io, "c", 2);
        end(&container, io);
    });
}

#[test]
fn a_chain_of_pre_dumps() {
    case(|| {
        needs_criu!();
        let check =
            Call::new(criu().unwrap()).args(["check", "--no-default-config", "--feature", "mem_dirty_track"]).run();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        if check.code() != 0 {
            let output = checkpoint(&container, &["--pre-dump"]).run().fails();
            assert!(output.stderr.starts_with("--pre-dump: needs a kernel that tracks"), "{output:?}");
            skip!("the kernel does not track changes of memory");
        }
        let pre = |images: &str, parent: &[&str]| {
            let flags = [&["checkpoint", "--pre-dump", "--image-path", images][..], parent, &[&container.id]].concat();
            container.call(flags).run().ok();
            assert_eq!(container.status(), "running");
        };
        count(&mut io, "a", 1);
        pre("first", &[]);
        count(&mut io, "b", 2);
        pre("second", &["--parent-path", "../first"]);
        count(&mut io, "c", 3);
        checkpoint(&container, &["--parent-path", "../second"]).run().ok();
        assert_eq!(link(container.bundle.directory.join("images/parent")), "../second");
        let mut io = restored(&container, &[]);
        count(&mut io, "d", 4);
        end(&container, io);
    });
}

const GREAT: &str =
    "echo ready; n=0; data=$(seq 1 50000); while read line; do n=$((n + 1)); echo $n $line ${#data}; done";

/// A checkpoint that can be asked for pages, at this port.
#[track_caller]
fn lazy(container: &Container) -> (Running, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (ready, status) = pipe();
    let server = format!("127.0.0.1:{port}");
    let call = checkpoint(container, &["--lazy-pages", "--page-server", &server, "--status-fd", "9"]);
    let running = call.wrapped(["sh", "-c", "exec \"$@\" 9>&1 >/dev/null", "sh"]).stdout(status).spawn();
    let mut byte = [1];
    let there = readable(ready.fd(), deadline()) && ready.fd().read(&mut byte).is_ok();
    assert!(there && byte == [0], "{byte:?}");
    (running, port)
}

/// One container is asked for its memory while the other runs already.
#[test]
fn lazy_pages() {
    case(|| {
        needs_criu!();
        if !may_raise_limits() {
            skip!("no CAP_SYS_RESOURCE, without which criu has no pipe that is great enough");
        }
        let (container, mut io) = counting(Bundle::sh(GREAT));
        io.write("a\n");
        assert_eq!(io.stdout.next(), "1 a 288893");
        let (dump, port) = lazy(&container);
        let images = container.bundle.directory.join("images");
        let pages =
            Call::new(criu().unwrap()).args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port"]);
        let pages = pages.args([&port]).args(["-D"]).args([&images]).spawn();
        eventually("criu waits for those who want pages", || images.join("lazy-pages.socket").exists());
        let other = Bundle::sh(GREAT).container();
        let flags = ["--image-path", images.to_str().unwrap(), "--detach", "--lazy-pages"];
        let (call, mut io) = with_io(other.call_bundle("restore", &flags));
        call.run().ok();
        io.write("b\n");
        assert_eq!(io.stdout.next(), "2 b 288893");
        pages.wait().ok();
        dump.wait().ok();
        container.nothing_left();
        end(&other, io);
    });
}

#[test]
fn a_checkpoint_that_ends_while_it_is_asked_for_pages() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(GREAT));
        for (signal, expected) in [(Signal::TERM, "1 a 288893"), (Signal::KILL, "2 a 288893")] {
            let (dump, _) = lazy(&container);
            dump.signal(signal);
            assert_eq!(dump.wait().status.signal(), Some(signal.as_raw()));
            io.write("a\n");
            assert_eq!(io.stdout.next(), expected);
        }
        end(&container, io);
    });
}

#[test]
fn a_parent_path_that_leads_nowhere() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        count(&mut io, "z", 1);
        for parent in ["/tmp", "../nosuch", "../config.json"] {
            let output = checkpoint(&container, &["--parent-path", parent]).run().fails();
            assert!(output.stderr.contains("--parent-path"), "{output:?}");
        }
        count(&mut io, "a", 2);
    });
}

#[test]
fn a_terminal_in_the_foreground() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh("n=0; while read line; do n=$((n + 1)); echo said $n $line; done; exit 5");
        bundle.set("/process/terminal", json!(true));
        let container = bundle.container();
        let mut first = Terminal::new(24, 80);
        let running = container.call_bundle("run", &[]).on_terminal(&first.slave).spawn();
        first.types("a\n");
        first.screen.until("said 1 a");
        checkpoint(&container, &[]).run().ok();
        assert_eq!(running.wait().code(), 128 + 9);

        let mut second = Terminal::new(30, 90);
        let running = restore(&container, &[]).on_terminal(&second.slave).spawn();
        second.types("b\n");
        second.screen.until("said 2 b");
        assert!(container.command(&["exec"], &["sh", "-c", "stty size < /dev/pts/0"]).ok().stdout.contains("30 90"));
        second.types("\u{4}");
        assert_eq!(running.wait().code(), 5);
        container.nothing_left();
    });
}

#[test]
fn a_terminal_by_console_socket() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh("n=0; while read line; do n=$((n + 1)); echo said $n $line; done; exit 5");
        bundle.set("/process/terminal", json!(true));
        let container = bundle.container();
        let path = container.bundle.directory.join("socket");
        let option = format!("--console-socket={}", path.display());
        // A terminal whose master is closed hangs up.
        let talk = |master, line: &str, expected: &str| {
            let mut master = fs::File::from(master);
            let mut screen = Lines::new(master.try_clone().unwrap());
            master.write_all(line.as_bytes()).unwrap();
            screen.until(expected);
            master
        };
        let (master, _) =
            sent_to_socket(&path, || container.call_bundle("run", &["--detach", &option])).expect("a terminal");
        let _first = talk(master, "a\n", "said 1 a");
        checkpoint(&container, &[]).run().ok();
        fs::remove_file(&path).unwrap();
        let (master, payload) =
            sent_to_socket(&path, || restore(&container, &["--detach", &option])).expect("a terminal");
        assert!(!payload.is_empty(), "conmon wants at least one byte");
        let _second = talk(master, "b\n", "said 2 b");
    });
}

#[test]
fn a_terminal_needs_somebody_who_has_it() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::new();
        bundle.set("/process/terminal", json!(true));
        let container = bundle.container();
        let output = restore(&container, &["--detach"]).run().fails();
        assert!(output.stderr.contains("console socket"), "{output:?}");
        container.nothing_left();
    });
}

/// Two processes with a TCP connection between them on the loopback device: one sends what it reads, the other says it.
const TCP: &str = "exec 5<&0; tail -f /dev/null | busybox nc -l -p 7 & \
    until busybox netstat -ltn | grep -q ':7 '; do :; done; \
    while read line <&5; do echo $line; done | busybox nc 127.0.0.1 7 > /dev/null & echo ready; wait";

#[track_caller]
fn tcp() -> (Container, Io) {
    let (container, mut io) = counting(Bundle::sh(TCP));
    io.write("a\n");
    assert_eq!(io.stdout.next(), "a");
    (container, io)
}

#[test]
fn a_connection_on_loopback() {
    case(|| {
        needs_criu!();
        let (container, io) = tcp();
        checkpoint(&container, &["--tcp-established"]).run().ok();
        drop(io);
        let mut io = restored(&container, &["--tcp-established"]);
        io.write("b\n");
        assert_eq!(io.stdout.next(), "b");
    });
}

#[test]
fn a_dump_that_fails_leaves_the_container_as_it_was() {
    case(|| {
        needs_criu!();
        let (container, mut io) = tcp();
        let output = checkpoint(&container, &[]).run().fails();
        for words in ["checkpoint of", "images/dump.log", "hint: --tcp-established", "log: ", "TCP"] {
            assert!(output.stderr.contains(words), "no {words:?}: {}", output.stderr);
        }
        assert_eq!(container.status(), "running");
        io.write("b\n");
        assert_eq!(io.stdout.next(), "b");
        // One that was paused still is.
        container.command(&["pause"], &[]).ok();
        checkpoint(&container, &[]).run().fails();
        assert_eq!(container.status(), "paused");
        container.command(&["resume"], &[]).ok();
        io.write("c\n");
        assert_eq!(io.stdout.next(), "c");
    });
}

#[test]
fn a_paused_container() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        count(&mut io, "a", 1);
        container.command(&["pause"], &[]).ok();
        checkpoint(&container, &["--leave-running"]).run().ok();
        assert_eq!(container.status(), "paused");
        checkpoint(&container, &[]).run().ok();
        container.nothing_left();
        let mut io = restored(&container, &[]);
        count(&mut io, "b", 2);
        end(&container, io);
    });
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    case(|| {
        needs_criu!();
        let (container, io) = counting(Bundle::sh(COUNTER));
        assert!(restore(&container, &["--detach"]).run().fails().stderr.contains("--image-path"));
        checkpoint(&container, &[]).run().ok();
        drop(io);
        let images = container.bundle.directory.join("images");
        // Late: when the processes are made.
        fs::write(images.join("core-1.img"), "banana").unwrap();
        let output = restore(&container, &["--detach"]).run().fails();
        for words in ["restore of", "images/restore.log", "log: "] {
            assert!(output.stderr.contains(words), "no {words:?}: {}", output.stderr);
        }
        container.nothing_left();
        fs::write(images.join("descriptors.json"), "banana").unwrap();
        assert!(restore(&container, &["--detach"]).run().fails().stderr.contains("descriptors.json"));
        container.nothing_left();
        fs::remove_dir_all(&images).unwrap();
        fs::create_dir(&images).unwrap();
        assert!(restore(&container, &["--detach"]).run().fails().stderr.contains("descriptors.json"));
        container.nothing_left();
    });
}

#[test]
fn only_what_runs_can_be_saved() {
    case(|| {
        needs_criu!();
        let container = Bundle::sh("exit 0").container();
        assert!(checkpoint(&container, &[]).run().fails().stderr.contains("does not exist"));
        container.create().ok();
        let output = checkpoint(&container, &[]).run().fails();
        assert!(output.stderr.contains("cannot be checkpointed in created state"), "{output:?}");
        let pid = container.pid();
        container.start().ok();
        wait_for_end(pid);
        let output = checkpoint(&container, &[]).run().fails();
        assert!(output.stderr.contains("cannot be checkpointed in stopped state"), "{output:?}");
    });
}

#[test]
fn a_name_that_is_taken() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        checkpoint(&container, &["--leave-running"]).run().ok();
        assert!(restore(&container, &["--detach"]).run().fails().stderr.contains("already exists"));
        count(&mut io, "a", 1);
    });
}

#[test]
fn without_criu_it_says_what_to_install() {
    case(|| {
        let (container, io) = Container::running();
        for command in ["checkpoint", "restore"] {
            assert!(
                container.call([command, "--help"]).env("PATH", "/nosuch").run().ok().stdout.contains("--image-path")
            );
        }
        for call in [checkpoint(&container, &[]), restore(&container, &["--detach"])] {
            let output = call.env("PATH", "/nosuch").run().fails();
            assert!(output.stderr.contains("needs criu, which is not found in PATH\nhint: install criu"), "{output:?}");
        }
        assert_eq!(container.status(), "running");
        drop(io);
    });
}

#[test]
fn a_criu_that_is_too_old_or_none() {
    case(|| {
        let (container, io) = Container::running();
        let criu = container.bundle.directory.join("criu");
        // No answer at all.
        symlink("/bin/true", &criu).unwrap();
        let path = container.bundle.directory.display().to_string();
        let output = checkpoint(&container, &[]).env("PATH", &path).run().fails();
        assert!(output.stderr.contains("criu has ended without an answer"), "{output:?}");
        assert_eq!(container.status(), "running");
        drop(io);
    });
}

#[test]
fn options_that_mean_nothing() {
    case(|| {
        let (container, io) = Container::running();
        for (flags, words) in [
            (["--manage-cgroups-mode", "banana"], "--manage-cgroups-mode: \"banana\""),
            (["--empty-ns", "pid"], "--empty-ns: namespace \"pid\""),
            (["--network-lock", "banana"], "--network-lock: \"banana\""),
            (["--page-server", "banana"], "--page-server: \"banana\""),
        ] {
            let output = checkpoint(&container, &flags).run().fails();
            assert!(output.stderr.contains(words), "{output:?}");
        }
        drop(io);
    });
}

#[test]
fn volumes_and_their_places() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(&COUNTER.replace("/log", "/volume/inner/log"));
        let (outer, inner) = (bundle.directory.join("outer"), bundle.directory.join("inner"));
        fs::create_dir_all(&outer).unwrap();
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir_all(bundle.rootfs().join("real/place")).unwrap();
        symlink("/real/place", bundle.rootfs().join("link")).unwrap();
        let file = bundle.directory.join("file");
        fs::write(&file, "file\n").unwrap();
        bundle.mount("/volume", "bind", outer.to_str().unwrap(), &["bind"]);
        bundle.mount("/volume/inner", "bind", inner.to_str().unwrap(), &["bind"]);
        bundle.mount("/link", "bind", inner.to_str().unwrap(), &["bind", "ro"]);
        bundle.mount("/etc/file", "bind", file.to_str().unwrap(), &["bind", "ro"]);
        let (container, mut io) = counting(bundle);
        count(&mut io, "a", 1);
        checkpoint(&container, &[]).run().ok();
        // As if the root file system were a new one of the same image.
        let root = container.bundle.rootfs();
        fs::remove_dir(root.join("volume")).unwrap();
        fs::remove_file(root.join("etc/file")).unwrap();
        fs::remove_dir(outer.join("inner")).unwrap();
        let mut io = restored(&container, &[]);
        count(&mut io, "b", 2);
        assert_eq!(text(inner.join("log")), "1 a\n2 b\n");
        let script = "cat /real/place/log /etc/file; touch /real/place/x || touch /etc/file || echo read-only";
        let seen = container.command(&["exec"], &["sh", "-c", script]).ok().stdout;
        assert_eq!(seen, "1 a\n2 b\nfile\nread-only\n");
        end(&container, io);
    });
}

/// criu forgets the attributes of the second of such mounts (its issue 2632).
#[test]
fn read_only_mounts_of_every_kind() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(COUNTER);
        let volume = bundle.directory.join("volume");
        fs::create_dir(&volume).unwrap();
        let source = volume.to_str().unwrap();
        for (place, options) in
            [("/v1", &["bind", "ro", "noatime"][..]), ("/v2", &["bind", "ro", "noatime"]), ("/v3", &["rbind", "rro"])]
        {
            bundle.mount(place, "bind", source, options);
        }
        bundle.mount("/v4", "bind", source, &["bind"]).mount("/v4", "bind", source, &["bind", "remount", "ro"]);
        bundle.mount("/v5", "bind", source, &["bind"]);
        let (container, mut io) = counting(bundle);
        count(&mut io, "a", 1);
        let before = mounts(&container);
        checkpoint(&container, &[]).run().ok();
        let mut io = restored(&container, &[]);
        count(&mut io, "b", 2);
        assert_eq!(mounts(&container), before);
        let script = "for i in 1 2 3 4 5; do touch /v$i/file$i; done; ls /v1";
        assert_eq!(container.command(&["exec"], &["sh", "-c", script]).stdout, "file5\n");
        end(&container, io);
    });
}

/// What the program makes of its standard streams is its own: those that it was given are given to it again each time.
#[test]
fn a_program_that_moves_its_streams() {
    case(|| {
        needs_criu!();
        let script = "echo ready; exec 4>&1; mkfifo /tmp/f; while read line; do echo said $line >&4; done </tmp/f & exec >/tmp/f; \
                      n=0; while read line; do n=$((n + 1)); echo $n $line; done";
        let (container, mut io) = counting(Bundle::sh(script));
        count(&mut io, "x", 1);
        for round in 2..4 {
            checkpoint(&container, &[]).run().ok();
            io = restored(&container, &[]);
            count(&mut io, "x", round);
        }
        end(&container, io);
    });
}

#[test]
fn a_service_that_was_ready_before() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        count(&mut io, "a", 1);
        checkpoint(&container, &[]).run().ok();
        let path = container.bundle.directory.join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(deadline())).unwrap();
        let (call, mut io) = with_io(restore(&container, &["--detach"]).env("NOTIFY_SOCKET", &path));
        let running = call.spawn();
        assert_eq!(message(&manager), "READY=1\n");
        assert_eq!(message(&manager), format!("MAINPID={}\n", container.pid()));
        assert_eq!(message(&manager), "BARRIER=1");
        running.wait().ok();
        count(&mut io, "b", 2);
        end(&container, io);
    });
}

#[test]
fn sysctls_of_the_network() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(COUNTER);
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shmmni": "78"}));
        let (container, mut io) = counting(bundle);
        count(&mut io, "a", 1);
        checkpoint(&container, &[]).run().ok();
        let mut io = restored(&container, &[]);
        count(&mut io, "b", 2);
        let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni";
        assert_eq!(container.command(&["exec"], &["sh", "-c", script]).ok().stdout, "77\n78\n");
        end(&container, io);
    });
}

#[test]
fn what_criu_cannot_save_is_refused() {
    case(|| {
        needs_criu!();
        let (bundle, agent) = answered(COUNTER);
        let (container, mut io) = counting(bundle);
        count(&mut io, "a", 1);
        let output = checkpoint(&container, &[]).run().fails();
        assert!(output.stderr.starts_with("linux.seccomp: checkpoint of SCMP_ACT_NOTIFY"), "{output:?}");
        count(&mut io, "b", 2);
        drop(agent);
        end(&container, io);
    });
}

/// What mountinfo says in the container, without numbers that are the kernel's.
fn mounts(container: &Container) -> Vec<String> {
    let mountinfo = text(format!("/proc/{}/mountinfo", container.pid()));
    let mut lines: Vec<String> = mountinfo
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            format!("{} {} {}", fields[4], fields[5], line.split(" - ").nth(1).unwrap().split(' ').next().unwrap())
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn mounts_masks_and_confinement_are_the_same() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(COUNTER);
        bundle.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                   "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}),
        );
        bundle.set("/process/oomScoreAdj", json!(321));
        // One that has the attributes of an earlier mount of the same file system.
        bundle.set("/root/readonly", json!(true));
        let volume = bundle.directory.join("volume");
        fs::create_dir(&volume).unwrap();
        bundle.mount("/mnt", "bind", volume.to_str().unwrap(), &["bind", "ro"]);
        bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
        bundle.script(&COUNTER.replace("/log", "/tmp/log"));
        let (container, io) = counting(bundle);
        let facts = |container: &Container| {
            let pid = container.pid();
            let status = text(format!("/proc/{pid}/status"));
            let wanted = ["Uid", "Gid", "Cap", "NoNewPrivs", "Seccomp", "Groups"];
            let status = status.lines().filter(|line| wanted.iter().any(|word| line.starts_with(word)));
            let status: Vec<String> = status.map(str::to_owned).collect();
            (status, mounts(container), text(format!("/proc/{pid}/oom_score_adj")), text(format!("/proc/{pid}/limits")))
        };
        let before = facts(&container);
        checkpoint(&container, &[]).run().ok();
        drop(io);
        let io = restored(&container, &[]);
        let after = facts(&container);
        assert_eq!(before.0, after.0);
        assert_eq!(before.1, after.1);
        assert_eq!((before.2, before.3), (after.2, after.3));
        let denied = container.command(&["exec"], &["mkdir", "/tmp/x"]).fails();
        assert!(denied.stderr.contains("not permitted"), "{denied:?}");
        end(&container, io);
    });
}

#[test]
fn the_cgroup_and_its_limits() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(COUNTER);
        bundle.set("/linux/resources/pids", json!({"limit": 37}));
        let (mut container, mut io) = counting(bundle);
        let file = |container: &Container| text(container.cgroup("pids").unwrap().join("pids.max"));
        assert_eq!(file(&container), "37\n");
        for mode in [&[][..], &["--manage-cgroups-mode", "ignore"], &["--manage-cgroups-mode", "soft"]] {
            checkpoint(&container, mode).run().ok();
            drop(io);
            // Into another cgroup each time, with another limit.
            let path = format!("{}-x", container.bundle.config["linux"]["cgroupsPath"].as_str().unwrap());
            container.bundle.set("/linux/cgroupsPath", json!(path));
            container.bundle.set("/linux/resources/pids", json!({"limit": 38}));
            io = restored(&container, mode);
            assert_eq!(file(&container), "38\n");
            let procs = text(container.cgroup("pids").unwrap().join("cgroup.procs"));
            assert!(procs.lines().count() >= 2, "{procs:?}");
            let cgroups = text(format!("/proc/{}/cgroup", container.pid()));
            let inside = |line: &&str| line.ends_with(&path.rsplit([':', '/']).next().unwrap().to_owned());
            let outside: Vec<_> = cgroups.lines().filter(|line| !line.ends_with(":/") && !inside(line)).collect();
            assert!(outside.is_empty() || path.contains(':'), "{outside:?}");
        }
        end(&container, io);
    });
}

#[test]
fn hooks_see_a_restored_container() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(COUNTER);
        let log = bundle.directory.join("hooks");
        let hook = |name: &str| {
            let script = format!("echo {name} $(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') >> {}", log.display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        for name in ["prestart", "createRuntime", "poststart", "poststop"] {
            bundle.set(&format!("/hooks/{name}"), hook(name));
        }
        let (container, mut io) = counting(bundle);
        checkpoint(&container, &[]).run().ok();
        let created = "prestart created\ncreateRuntime created\n";
        let first = format!("{created}poststart running\npoststop stopped\n");
        assert_eq!(text(&log), first);
        io.close();
        let io = restored(&container, &[]);
        assert_eq!(text(&log), format!("{first}{created}"));
        end(&container, io);
        assert_eq!(text(&log), format!("{first}{created}poststop stopped\n"));
    });
}

#[test]
fn a_hook_that_fails_ends_the_restore() {
    case(|| {
        needs_criu!();
        let (mut container, io) = counting(Bundle::sh(COUNTER));
        checkpoint(&container, &[]).run().ok();
        drop(io);
        container.bundle.set("/hooks/createRuntime", json!([{"path": "/bin/false"}]));
        let output = restore(&container, &["--detach"]).run().fails();
        assert!(output.stderr.contains("hooks.createRuntime[0]"), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn a_network_namespace_of_others() {
    case(|| {
        needs_criu!();
        let holder = Call::new("unshare").args(["-n", "sleep", "1000"]).spawn();
        let path = format!("/proc/{}/ns/net", holder.pid());
        eventually("it has a namespace of its own", || link(&path) != link("/proc/self/ns/net"));
        let mut bundle = Bundle::sh(COUNTER);
        bundle.namespace("network", Some(&path));
        let (container, mut io) = counting(bundle);
        count(&mut io, "a", 1);
        checkpoint(&container, &[]).run().ok();
        let mut io = restored(&container, &[]);
        assert_eq!(link(format!("/proc/{}/ns/net", container.pid())), link(&path));
        count(&mut io, "b", 2);
        end(&container, io);
    });
}

#[test]
fn the_loopback_device_is_up_again() {
    case(|| {
        needs_criu!();
        let (container, io) = counting(Bundle::sh(COUNTER));
        let flags = |container: &Container| container.command(&["exec"], &["ifconfig", "lo"]).ok().stdout;
        assert!(flags(&container).contains("UP LOOPBACK RUNNING"));
        checkpoint(&container, &[]).run().ok();
        drop(io);
        let io = restored(&container, &[]);
        assert!(flags(&container).contains("UP LOOPBACK RUNNING"), "{}", flags(&container));
        end(&container, io);
    });
}

#[test]
fn a_configuration_file_of_criu() {
    case(|| {
        needs_criu!();
        let mut bundle = Bundle::sh(COUNTER);
        let file = bundle.directory.join("criu.conf");
        fs::write(&file, "log-file other.log\n").unwrap();
        bundle.set("/annotations", json!({"org.criu.config": file.to_str().unwrap()}));
        let (container, io) = counting(bundle);
        checkpoint(&container, &["--work-path", "work"]).run().ok();
        drop(io);
        let work = container.bundle.directory.join("work");
        assert!(work.join("other.log").exists() && !work.join("dump.log").exists());
        let io = restored(&container, &["--work-path", "work2"]);
        let work = container.bundle.directory.join("work2");
        assert!(work.join("other.log").exists() && !work.join("restore.log").exists());
        end(&container, io);
    });
}

#[test]
fn standard_streams_are_named_in_the_images() {
    case(|| {
        needs_criu!();
        let (container, io) = counting(Bundle::sh(COUNTER));
        let links: Vec<String> = (0..3).map(|fd| link(format!("/proc/{}/fd/{fd}", container.pid()))).collect();
        checkpoint(&container, &[]).run().ok();
        drop(io);
        let written: Value =
            serde_json::from_str(&text(container.bundle.directory.join("images/descriptors.json"))).unwrap();
        assert_eq!(written, json!(links));
    });
}

#[test]
fn command_lines_of_engines() {
    case(|| {
        needs_criu!();
        let (container, mut io) = counting(Bundle::sh(COUNTER));
        let id = container.id.as_str();
        let directory = container.bundle.directory.display().to_string();
        let pid = format!("{directory}/pid");
        let engines: [(&[&str], &[&str]); 3] = [
            // containerd, by go-runc
            (
                &[
                    "--image-path",
                    "images",
                    "--work-path",
                    "work",
                    "--tcp-established",
                    "--ext-unix-sk",
                    "--file-locks",
                    "--manage-cgroups-mode",
                    "ignore",
                    "--empty-ns",
                    "network",
                ],
                &[
                    "--image-path",
                    "images",
                    "--work-path",
                    "work",
                    "--tcp-established",
                    "--ext-unix-sk",
                    "--file-locks",
                    "--detach",
                    "--pid-file",
                    &pid,
                    "--no-pivot",
                    "-no-subreaper",
                ],
            ),
            // Podman
            (
                &["--image-path", "images", "--work-path", &directory, "--tcp-established", "--file-locks"],
                &[
                    "--detach",
                    "--pid-file",
                    &pid,
                    "--image-path",
                    "images",
                    "--work-path",
                    &directory,
                    "--tcp-close",
                    "--file-locks",
                ],
            ),
            // CRI-O
            (
                &["--file-locks", "--image-path", "images", "--work-path", "work"],
                &["--detach", "--pid-file", &pid, "--image-path", "images", "--work-path", "work", "--file-locks"],
            ),
        ];
        for (round, (save, resume)) in (1..).zip(engines) {
            count(&mut io, "x", round);
            container.call([&["checkpoint"], save, &[id]].concat()).run().ok();
            let (call, new) = with_io(container.call([&["restore"], resume, &["--bundle", &directory, id]].concat()));
            call.run().ok();
            assert_eq!(text(&pid), container.pid().to_string());
            io = new;
        }
        count(&mut io, "x", 4);
        end(&container, io);
    });
}

/// Whether what is left after a command was killed can be used, or at least deleted.
#[track_caller]
fn can_be_deleted(container: &Container) {
    container.command(&["delete", "--force"], &[]).ok();
    container.nothing_left();
}

#[test]
fn a_checkpoint_that_is_killed_at_any_time() {
    case(|| {
        needs_criu!();
        for round in 0..12 {
            let (container, mut io) = counting(Bundle::sh(COUNTER));
            let running = checkpoint(&container, &[]).spawn();
            let log = container.bundle.directory.join("images/dump.log");
            // At another place each time: after so many bytes of the log.
            eventually("criu is that far", || text(&log).len() >= round * 3000 || running.has_ended());
            running.signal(Signal::KILL);
            let ended = running.wait();
            if ended.status.signal() == Some(9) {
                // criu finds out, and ends by itself; then the container runs, or criu had done its work.
                eventually("criu has ended", || !text_of_processes().contains(&container.id));
                let status = container.command(&["state"], &[]);
                if status.stdout.contains("running") {
                    count(&mut io, "a", 1);
                }
            }
            can_be_deleted(&container);
        }
    });
}

#[test]
fn a_restore_that_is_killed_at_any_time() {
    case(|| {
        needs_criu!();
        let (container, io) = counting(Bundle::sh(COUNTER));
        checkpoint(&container, &[]).run().ok();
        drop(io);
        for round in 0..12 {
            let (call, _io) = with_io(restore(&container, &["--detach"]));
            let log = container.bundle.directory.join("images/restore.log");
            let _ = fs::remove_file(&log);
            let running = call.spawn();
            eventually("criu is that far", || text(&log).len() >= round * 3000 || running.has_ended());
            running.signal(Signal::KILL);
            running.wait();
            can_be_deleted(&container);
        }
    });
}

/// Names of the working directories of all processes called criu.
fn text_of_processes() -> String {
    let mut found = String::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if text(entry.path().join("cmdline")).contains("swrk") {
            found += &text(entry.path().join("environ"));
        }
    }
    found
}
