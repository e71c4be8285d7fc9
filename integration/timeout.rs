//! `--timeout`: whatever a command waits for, it gives up, says what it was, and undoes what it has done.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, mknodat};
use serde_json::{Value, json};

use crate::seccomp_notify::profile;
use crate::support::{
    Bundle, Container, Output, WAITING, case, cgroup_v2, deadline, eventually, ours, pidfd, readable, skip, systemd,
    text,
};

/// Long enough to come to the wait, and short enough for the test.
fn limit() -> String {
    format!("--timeout={}ms", (deadline().as_millis() / 10).max(2000))
}

/// A command with the limit, as far as its id.
#[track_caller]
fn late(container: &Container, words: &[&str], waited_for: &str) -> Output {
    if matches!(words[0], "create" | "run") {
        container.bundle.write();
    }
    let limit = limit();
    let output = container.call([&[limit.as_str()], words].concat()).run().fails();
    let line = output.stderr.lines().next().unwrap_or_default();
    assert!(line.starts_with("--timeout: waited ") && line.contains(waited_for), "{output:?}");
    assert!(line.ends_with("(ETIMEDOUT)"), "{output:?}");
    assert!(!output.stderr.contains("undo: "), "{output:?}");
    output
}

fn create<'a>(command: &'a str, bundle: &'a str, id: &'a str) -> Vec<&'a str> {
    vec![command, "--bundle", bundle, id]
}

#[track_caller]
fn cannot_be_made(bundle: Bundle, command: &str, waited_for: &str) {
    let container = bundle.container();
    let directory = container.bundle.directory.display().to_string();
    late(&container, &create(command, &directory, &container.id), waited_for);
    container.nothing_left();
}

fn endless() -> Value {
    json!([{"path": "/bin/sleep", "args": ["sleep", "1000"]}])
}

#[test]
fn a_duration_is_one_of_go() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let container = Bundle::new().container();
        for (word, said) in [("banana", "is no duration"), ("0", "must be greater than 0")] {
            let output = container.call(["--timeout", word, "list"]).run().fails();
            assert!(output.stderr.contains(said), "{output:?}");
        }
        container.call(["--timeout", "1m30s", "list"]).run().ok();
    });
}

#[test]
fn hooks_that_never_end() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        for command in ["create", "run"] {
            for (hook, said) in [
                ("prestart", "for the hook hooks.prestart[0], \"/bin/sleep\": "),
                ("createRuntime", "for the hook hooks.createRuntime[0], \"/bin/sleep\": "),
                ("createContainer", "for container init and its createContainer hooks: "),
            ] {
                let mut bundle = Bundle::new();
                bundle.set(&format!("/hooks/{hook}"), endless());
                cannot_be_made(bundle, command, said);
            }
        }
        for (hook, said) in [
            ("startContainer", "for container init to execute the program: "),
            ("poststart", "for the hook hooks.poststart[0], \"/bin/sleep\": "),
        ] {
            let bundle = || {
                let mut bundle = Bundle::sh("sleep 1000");
                bundle.set(&format!("/hooks/{hook}"), endless());
                bundle
            };
            cannot_be_made(bundle(), "run", said);
            let container = bundle().container();
            let _io = container.create_io();
            // As when such a hook fails: the container ends.
            late(&container, &["start", &container.id], said);
            container.nothing_left();
        }
    });
}

/// The container is deleted, and that hook was not waited for: a warning, as for one that fails.
#[test]
fn a_poststop_hook_that_never_ends() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let mut bundle = Bundle::new();
        bundle.set("/hooks/poststop", endless());
        let container = bundle.container();
        let _io = container.create_io();
        let limit = limit();
        let output = container.call([&limit, "delete", "--force", &container.id]).run().ok();
        assert!(output.stderr.contains("for the hook hooks.poststop[0], \"/bin/sleep\": "), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn another_command_that_holds_the_lock() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let (container, _io) = Container::running();
        let directory = std::fs::File::open(container.root().join(&container.id)).unwrap();
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
        let id = container.id.as_str();
        let said = format!("for another command that works on container {id:?}: ");
        for words in [
            &["pause", id][..],
            &["resume", id],
            &["start", id],
            &["update", "--pids-limit", "30", id],
            &["delete", id],
            &["exec", id, "true"],
        ] {
            late(&container, words, &said);
            assert_eq!(container.status(), "running", "{words:?}");
        }
        drop(directory);
        container.call([&limit(), "exec", id, "true"]).run().ok();
    });
}

/// Its queue of connections is full, or it takes them and never answers.
/// Nobody writes to it; and somebody who begins and does not end.
#[test]
fn a_pipe_that_never_ends() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let (container, _io) = Container::running();
        let fifo = container.bundle.directory.join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let (id, path) = (container.id.as_str(), fifo.to_str().unwrap());
        let commands: [&[&str]; 2] = [&["exec", "--process", path, id], &["update", "--resources", path, id]];
        for command in commands {
            late(&container, command, path);
        }
        let mut writer = fs::File::options().read(true).write(true).open(&fifo).unwrap();
        for command in commands {
            writer.write_all(b"{").unwrap();
            late(&container, command, path);
        }
    });
}

#[test]
fn a_seccomp_agent_that_never_answers() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let bundle = |calls: &[&str]| {
            let mut bundle = Bundle::sh(WAITING);
            let path = bundle.directory.join("agent");
            let listener = UnixListener::bind(&path).unwrap();
            bundle.set("/linux/seccomp", profile(&path, calls));
            (bundle, listener)
        };
        for command in ["run", "create"] {
            let (bundle, listener) = bundle(&["mkdir"]);
            rustix::net::listen(&listener, 0).unwrap();
            let path = bundle.directory.join("agent");
            let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
            cannot_be_made(bundle, command, &format!("for {path:?} to accept a connection: "));
        }
        let (bundle, _listener) = bundle(&["execve"]);
        cannot_be_made(bundle, "run", "for container init to execute the program: ");
    });
}

#[test]
fn an_exec_that_an_agent_holds_up() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let (container, _io) = Container::running();
        let path = container.bundle.directory.join("agent");
        let _listener = UnixListener::bind(&path).unwrap();
        let config = container.root().join(&container.id).join("config.json");
        let mut changed: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        changed["linux"]["seccomp"] = profile(&path, &["execve"]);
        std::fs::write(&config, changed.to_string()).unwrap();
        late(&container, &["exec", &container.id, "true"], "for the process to execute its program: ");
        assert_eq!(container.command(&["ps"], &[]).ok().stdout.lines().count(), 2);
    });
}

/// Init has not seen that it was started: it waits as if nobody had come.
#[test]
fn a_start_that_init_does_not_answer_has_not_happened() {
    case(|| {
        if !ours() {
            skip!("an option of this runtime");
        }
        let (container, mut io) = Container::created(WAITING);
        let init = pidfd(container.pid()).unwrap();
        let signal = |signal| rustix::process::pidfd_send_signal(&init, signal).unwrap();
        signal(rustix::process::Signal::STOP);
        // Until then it reads what comes.
        let stat = format!("/proc/{}/stat", container.pid());
        eventually("init has stopped", || text(&stat).contains(") T "));
        late(&container, &["start", &container.id], "for container init to execute the program: ");
        signal(rustix::process::Signal::CONT);
        assert_eq!(container.status(), "created");
        assert!(!readable(io.stdout.fd(), Duration::ZERO), "it runs");
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
    });
}

/// By a hook of the host, for example, which is asked for once the container has its cgroup.
#[test]
fn a_cgroup_that_is_frozen_meanwhile() {
    case(|| {
        if !ours() || systemd() {
            skip!("an option of this runtime, by cgroupfs");
        }
        let container = Bundle::new().container();
        let file = match cgroup_v2() {
            true => container.cgroup("").unwrap().join("cgroup.freeze"),
            false => container.cgroup("freezer").unwrap().join("freezer.state"),
        };
        let word = if cgroup_v2() { "1" } else { "FROZEN" };
        let script = format!("echo {word} > {}", file.display());
        let mut bundle = Bundle::new();
        bundle.set("/linux/cgroupsPath", container.bundle.config["linux"]["cgroupsPath"].clone());
        bundle.set("/hooks/createRuntime", json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]));
        cannot_be_made(bundle, "create", "for container init to be ready: ");
        assert!(!file.exists(), "the cgroup is left");
    });
}
