//! sd_notify(3): what a container's program says to its service manager comes through.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;

use crate::support::{Bundle, Container, case, deadline, eventually, text, with_io};

/// A container whose program is this one, and calls `speaker` below; and the socket of a service manager.
fn speaking(arguments: &[&str]) -> (Container, UnixDatagram) {
    let mut bundle = Bundle::new();
    crate::support::copy_program(std::env::current_exe().unwrap(), bundle.rootfs().join("bin/speaker"));
    let call = ["speaker", "--exact", "notify::speaker", "--ignored", "--nocapture", "--test-threads=1"];
    bundle.args(&call);
    let env: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    bundle.set("/process/env", json!([&["PATH=/bin".to_owned()], env.as_slice()].concat()));
    let socket = UnixDatagram::bind(bundle.directory.join("manager")).unwrap();
    socket.set_read_timeout(Some(deadline())).unwrap();
    (bundle.container(), socket)
}

/// Not a test by itself: what runs in the container.
#[test]
#[ignore = "a part of the tests of notify"]
fn speaker() {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"STATUS=not yet\n", &path).unwrap();
    if let Ok(file) = std::env::var("WAIT_FOR") {
        fs::read(file).unwrap();
    }
    if std::env::var_os("SILENT").is_none() {
        socket.send_to(b"READY=1\nSTATUS=now\n", &path).unwrap();
    }
    if let Ok(file) = std::env::var("STAY_FOR") {
        fs::read(file).unwrap();
    }
}

pub(crate) fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).expect("a message");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn nothing_more(socket: &UnixDatagram) {
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut bytes = [0; 1024];
    assert!(socket.recv(&mut bytes).is_err(), "{}", String::from_utf8_lossy(&bytes));
}

fn fifo(container: &Container, name: &str) -> std::path::PathBuf {
    let path = container.bundle.rootfs().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    path
}

#[test]
fn run_tells_the_service_manager_of_a_ready_container() {
    case(|| {
        let (container, manager) = speaking(&["STAY_FOR=/stay"]);
        let stay = fifo(&container, "stay");
        let path = container.bundle.directory.join("manager");
        let running = container.call_bundle("run", &[]).env("NOTIFY_SOCKET", &path).spawn();
        assert_eq!(message(&manager), "READY=1\n");
        // In the foreground it is the runtime that the service manager watches.
        assert_eq!(message(&manager), format!("MAINPID={}\n", running.pid()));
        fs::write(stay, "").unwrap();
        running.wait().ok();
        container.nothing_left();
    });
}

#[test]
fn start_waits_until_the_container_is_ready() {
    case(|| {
        for command in ["start", "run"] {
            let (container, manager) = speaking(&["WAIT_FOR=/go", "STAY_FOR=/stay"]);
            let (go, stay) = (fifo(&container, "go"), fifo(&container, "stay"));
            let path = container.bundle.directory.join("manager");
            let create = if command == "start" { ("create", [].as_slice()) } else { ("run", ["--detach"].as_slice()) };
            let (call, _io) = with_io(container.call_bundle(create.0, create.1).env("NOTIFY_SOCKET", &path));
            let waiting = if command == "start" {
                call.run().ok();
                container.call(["start", &container.id]).env("NOTIFY_SOCKET", &path).spawn()
            } else {
                call.spawn()
            };
            // It has said that it is not ready, and waits for us.
            let mut writer = None;
            eventually("the program waits", || {
                writer = fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&go).ok();
                writer.is_some()
            });
            assert!(!waiting.has_ended(), "{command} did not wait");
            drop(writer);
            assert_eq!(message(&manager), "READY=1\n");
            assert_eq!(message(&manager), format!("MAINPID={}\n", container.pid()));
            assert_eq!(message(&manager), "BARRIER=1");
            waiting.wait().ok();
            nothing_more(&manager);
            assert_eq!(container.status(), "running");
            fs::write(stay, "").unwrap();
            eventually("the program ends", || container.status() == "stopped");
            container.command(&["delete"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn a_container_that_ends_without_a_word_is_not_waited_for() {
    case(|| {
        let (container, manager) = speaking(&["SILENT=1"]);
        let path = container.bundle.directory.join("manager");
        let (call, _io) = with_io(container.call_bundle("create", &[]).env("NOTIFY_SOCKET", &path));
        call.run().ok();
        container.call(["start", &container.id]).env("NOTIFY_SOCKET", &path).run().ok();
        nothing_more(&manager);
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn the_socket_is_the_containers_own() {
    case(|| {
        let mut bundle = Bundle::sh(
            "echo $NOTIFY_SOCKET; cd /run/notify; stat -c '%F %a' notify.sock; grep -c ' /run/notify ro' /proc/self/mountinfo; touch x",
        );
        bundle.set("/process/env", json!(["PATH=/bin", "NOTIFY_SOCKET=/of/config"]));
        let manager = UnixDatagram::bind(bundle.directory.join("manager")).unwrap();
        let path = bundle.directory.join("manager");
        let container = bundle.container();
        let output = container.call_bundle("run", &[]).env("NOTIFY_SOCKET", &path).run();
        assert_eq!(output.stdout, "/run/notify/notify.sock\nsocket 777\n1\n", "{output:?}");
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        drop(manager);
        container.nothing_left();
    });
}

#[test]
fn a_start_that_is_asked_for_more_than_create_was() {
    case(|| {
        let (container, _io) = Container::created("exec sleep 1000");
        let path = container.bundle.directory.join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        container.call(["start", &container.id]).env("NOTIFY_SOCKET", &path).run().ok();
        nothing_more(&manager);
        let pid = container.pid();
        eventually("the program runs", || text(format!("/proc/{pid}/cmdline")) == "sleep\x001000\0");
    });
}
