//! SCMP_ACT_NOTIFY: an agent answers for the system calls of a container (config-linux.md, Seccomp).

mod agent;

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixListener};

use serde_json::{Value, json};

pub(crate) use agent::{Agent, REFUSED, USER, profile};

use crate::support::{Bundle, Container, WAITING, case, deadline, inside, ours, readable, text};

/// Of every program that busybox runs in these tests.
const CALLS: &[&str] = &["mkdir", "mkdirat", "geteuid"];
/// What the agent answers is felt; and which descriptors the program has: the fourth is that of the directory.
pub(crate) const SCRIPT: &str = "mkdir /tmp/new 2>&1; id -u; ls /proc/self/fd";

#[track_caller]
pub(crate) fn felt(printed: &str) {
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].ends_with(REFUSED), "{printed}");
    assert_eq!(lines[1..], [&USER.to_string(), "0", "1", "2", "3"], "{printed}");
}

/// A bundle of a script, and the agent that answers for [`CALLS`].
pub(crate) fn answered(script: &str) -> (Bundle, Agent) {
    let mut bundle = Bundle::sh(script);
    let agent = Agent::new(&bundle);
    bundle.set("/linux/seccomp", profile(&agent.path, CALLS));
    (bundle, agent)
}

/// Without no_new_privs the filter is loaded earlier.
fn both(mut test: impl FnMut(bool)) {
    case(|| {
        for no_new_privileges in [true, false] {
            test(no_new_privileges);
        }
    });
}

/// The parts of a container process state that are the same for all of a container.
#[track_caller]
pub(crate) fn check_state(message: &agent::Message, container: &Container, pid: u32, status: &str, init: u32) {
    let state = &message.state;
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!((&state["fds"], &state["pid"]), (&json!(["seccompFd"]), &json!(pid)), "{state}");
    assert_eq!(state["metadata"], "words \"of\" the caller");
    let wanted = json!({"id": container.id, "status": status, "pid": init, "bundle": container.bundle.directory});
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&state["state"][key], value, "{key}: {state}");
    }
    assert!(state["state"]["ociVersion"].is_string(), "{state}");
    assert_eq!(message.descriptors, [1]);
}

#[test]
fn the_agent_answers_for_a_container_and_for_exec() {
    both(|no_new_privileges| {
        let (mut bundle, agent) = answered(&format!("{SCRIPT}; {WAITING}"));
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges)).set("/annotations", json!({"org.test": "a"}));
        let container = bundle.container();
        let mut io = container.create_io();
        let pid = container.pid();
        let message = agent.message();
        check_state(&message, &container, pid, "creating", pid);
        assert_eq!(message.state["state"]["annotations"]["org.test"], "a");
        container.start().ok();
        felt(&io.stdout.until("ready\n").replace("ready\n", ""));

        let file = container.bundle.directory.join("exec-pid");
        let pid_file = format!("--pid-file={}", file.display());
        let exec = || container.call(["exec", &pid_file, &container.id, "sh", "-c", SCRIPT]).run();
        felt(&exec().ok().stdout);
        check_state(&agent.message(), &container, text(&file).parse().unwrap(), "running", pid);
        assert!(!agent.has_more(), "one message for each filter");

        drop(agent);
        let output = exec().fails();
        assert!(!ours() || output.stderr.contains("linux.seccomp.listenerPath: failed to connect"), "{output:?}");
        assert_eq!(container.status(), "running");
        io.close();
    });
}

#[test]
fn what_the_runtime_itself_calls_is_answered() {
    both(|no_new_privileges| {
        let mut bundle = Bundle::sh("echo alive");
        let agent = Agent::new(&bundle);
        let calls = ["execve", "openat", "read", "close", "capset", "setresuid", "setresgid", "prctl", "getcwd"];
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges)).set("/process/user/uid", json!(1000));
        bundle.set("/linux/seccomp", profile(&agent.path, &calls));
        assert_eq!(bundle.container().run().ok().stdout, "alive\n");
    });
}

#[test]
fn hooks_in_the_container_have_no_listener() {
    both(|no_new_privileges| {
        let (mut bundle, agent) = answered("cat /tmp/hook");
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("({SCRIPT}) > /tmp/hook")],
                          "env": ["PATH=/bin"]});
        bundle.set("/hooks", json!({"startContainer": [hook]}));
        felt(&bundle.container().run().ok().stdout);
        drop(agent);
    });
}

#[test]
fn in_a_user_namespace() {
    both(|no_new_privileges| {
        let (mut bundle, agent) = answered(SCRIPT);
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges)).namespace("user", None);
        for kind in ["uid", "gid"] {
            let map = json!([{"containerID": 0, "hostID": 700_000, "size": 65536}]);
            bundle.set(&format!("/linux/{kind}Mappings"), map);
        }
        felt(&bundle.container().run().ok().stdout);
        drop(agent);
    });
}

#[test]
fn without_its_agent_a_call_is_not_there() {
    case(|| {
        let mut bundle = Bundle::sh("mkdir /tmp/new 2>&1; echo alive");
        let agent = Agent::that_goes_away(&bundle);
        bundle.set("/linux/seccomp", profile(&agent.path, CALLS));
        let printed = bundle.container().run().ok().stdout;
        assert!(printed.contains("Function not implemented") && printed.ends_with("alive\n"), "{printed}");
    });
}

#[test]
fn a_state_larger_than_the_sockets_buffer() {
    case(|| {
        let (mut bundle, agent) = answered("true");
        let long = "x".repeat(600_000);
        bundle.set("/annotations", json!({"org.test": long}));
        bundle.container().run().ok();
        let message = agent.message();
        assert_eq!(message.state["state"]["annotations"]["org.test"], long.as_str());
        // The descriptor comes with the first part and with no other.
        assert!(message.descriptors.len() > 1);
        assert_eq!(message.descriptors.iter().position(|count| *count == 1), Some(0));
        assert_eq!(message.descriptors.iter().sum::<usize>(), 1);
    });
}

#[test]
fn a_listener_path_without_notify_is_ignored() {
    case(|| {
        let printed = inside("echo alive", |bundle| {
            let mut profile = profile("/nosuch/agent".as_ref(), &["acct"]);
            profile["syscalls"][0]["action"] = json!("SCMP_ACT_ERRNO");
            bundle.set("/linux/seccomp", profile);
        });
        assert_eq!(printed, "alive\n");
    });
}

/// The error of `create` with an agent's path, after which nothing is left.
#[track_caller]
fn refused(bundle: Bundle, words: &[&str]) {
    let container = bundle.container();
    let output = container.create().fails();
    for words in words.iter().filter(|_| ours()) {
        assert!(output.stderr.contains(words), "{words:?} in {}", output.stderr);
    }
    container.nothing_left();
}

#[test]
fn nobody_listens() {
    case(|| {
        let (bundle, agent) = answered("true");
        let path = agent.path.clone();
        drop(agent);
        // A socket file that its agent has left.
        let listener = UnixListener::bind(&path).unwrap();
        // Whoever another test has just forked may have it, too.
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        drop(listener);
        refused(bundle, &["linux.seccomp.listenerPath: failed to connect with seccomp agent at", "(ECONNREFUSED)"]);
    });
}

#[test]
fn the_socket_is_a_stream() {
    case(|| {
        let (bundle, agent) = answered("true");
        let path = agent.path.clone();
        drop(agent);
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        refused(bundle, &["linux.seccomp.listenerPath: failed to connect with seccomp agent at", "(EPROTOTYPE)"]);
    });
}

#[test]
fn an_agent_that_ends_before_it_has_the_listener() {
    case(|| {
        let mut bundle = Bundle::sh("true");
        let directory = bundle.directory.clone();
        let path = directory.join("agent");
        // Held open at both ends: nobody waits for somebody who may not come.
        let [said, go] = ["said", "go"].map(|name| {
            nix::unistd::mkfifo(&directory.join(name), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
            fs::File::options().read(true).write(true).open(directory.join(name)).unwrap()
        });
        let socket = UnixListener::bind(&path).unwrap();
        bundle.set("/linux/seccomp", profile(&path, CALLS));
        // The hook says that it runs, and waits.
        let script = "echo > $0/said; read line < $0/go";
        let args = json!(["busybox", "sh", "-c", script, directory]);
        bundle.set("/hooks", json!({"createRuntime": [{"path": crate::support::busybox(), "args": args}]}));
        let container = bundle.container();
        let call = container.call_bundle("create", &[]).spawn();
        assert!(readable(&said, deadline()), "the hook does not run");
        // Ended, not only closed: what another test has just forked may have the descriptor, too. Others connect later.
        if ours() {
            assert!(readable(&socket, deadline()), "the agent is not called");
            socket.accept().unwrap().0.shutdown(std::net::Shutdown::Both).unwrap();
        }
        drop(socket);
        (&go).write_all(b"\n").unwrap();
        let output = call.wait().fails();
        let words = "linux.seccomp.listenerPath: send the listener to the seccomp agent at";
        assert!(!ours() || output.stderr.contains(words), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn a_path_that_is_too_long_for_an_address() {
    case(|| {
        let mut bundle = Bundle::sh(SCRIPT);
        let directory = bundle.directory.join("long".repeat(40));
        let agent = Agent::new(&bundle);
        fs::create_dir(&directory).unwrap();
        let path = directory.join("agent");
        fs::hard_link(&agent.path, &path).unwrap();
        bundle.set("/linux/seccomp", profile(&path, CALLS));
        felt(&bundle.container().run().ok().stdout);
    });
}

#[test]
fn crun_receiver_annotation() {
    case(|| {
        let (mut bundle, agent) = answered(SCRIPT);
        bundle.remove("/linux/seccomp/listenerPath").remove("/linux/seccomp/listenerMetadata");
        bundle.set("/annotations", json!({"run.oci.seccomp.receiver": agent.path}));
        felt(&bundle.container().run().ok().stdout);
        assert_eq!(agent.message().state.get("metadata"), None::<&Value>);
    });
}

#[test]
fn a_killable_wait_is_asked_of_the_kernel() {
    case(|| {
        let (mut bundle, agent) = answered(SCRIPT);
        bundle.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
        felt(&bundle.container().run().ok().stdout);
        drop(agent);
    });
}
