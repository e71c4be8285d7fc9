//! `exec`: a further process in a container. Here: how it ends, and what it says when it cannot.

mod hostile;
mod many;
mod places;
mod process;

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Bundle, Call, Container, Io, Output, case, eventually, pipe, skip, text, with_io, write_program};

/// `exec` of a command.
fn call(container: &Container, options: &[&str], command: &[&str]) -> Call {
    container.call([&["exec"], options, &[container.id.as_str()], command].concat())
}

/// What an exec'ed script prints.
#[track_caller]
fn printed(container: &Container, options: &[&str], script: &str) -> String {
    call(container, options, &["sh", "-c", script]).run().ok().stdout
}

fn is_asleep(pid: u32) -> bool {
    text(format!("/proc/{pid}/cmdline")).starts_with("sleep\0")
}

/// A running container that is one sleeping process, which no shell has changed.
#[track_caller]
fn sleeping(mut bundle: Bundle) -> (Container, Io) {
    bundle.args(&["sleep", "100000"]);
    let container = bundle.container();
    let io = container.create_io();
    container.start().ok();
    let pid = container.pid();
    eventually("init sleeps", || is_asleep(pid));
    (container, io)
}

/// The pid of a sleeping process that was exec'ed by `exec --detach`.
#[track_caller]
fn sleeper(container: &Container, options: &[&str]) -> u32 {
    let file = container.bundle.directory.join("exec-pid");
    let pid_file = format!("--pid-file={}", file.display());
    call(container, &[&["--detach", &pid_file], options].concat(), &["sleep", "100000"]).run().ok();
    let pid = text(&file).parse().expect("a pid and nothing else");
    eventually("the exec'ed process sleeps", || is_asleep(pid));
    pid
}

/// The pids in the container's cgroup.
fn processes(container: &Container) -> Vec<u32> {
    let cgroup = container.cgroup("pids").unwrap();
    text(cgroup.join("cgroup.procs")).lines().map(|line| line.parse().unwrap()).collect()
}

/// Insists that nothing but init is left of what was exec'ed.
#[track_caller]
fn only_init_is_left(container: &Container) {
    let init = vec![container.pid()];
    eventually("init is alone", || processes(container) == init);
}

#[test]
fn exit_codes() {
    case(|| {
        let (container, _io) = Container::running();
        for (script, code) in crate::run::EXIT_CODES {
            assert_eq!(call(&container, &[], &["sh", "-c", script]).run().code(), code, "{script}");
        }
        assert_eq!(container.status(), "running");
        only_init_is_left(&container);
    });
}

#[test]
fn streams_are_passed_through() {
    case(|| {
        let (container, _io) = Container::running();
        let script = "read line; echo out $line; echo err >&2";
        let (stdin, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(theirs, b"line\n").unwrap();
        let output = call(&container, &[], &["sh", "-c", script]).stdin(stdin).run().ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out line\n", "err\n"));
    });
}

#[test]
fn signals_are_forwarded() {
    case(|| {
        let (container, _io) = Container::running();
        let script = "trap 'exit 7' TERM; echo trapped; while :; do sleep 0.01; done";
        let (exec, mut io) = with_io(call(&container, &[], &["sh", "-c", script]));
        let running = exec.spawn();
        assert_eq!(io.stdout.next(), "trapped");
        running.signal(Signal::TERM);
        assert_eq!(running.wait().code(), 7);
    });
}

#[test]
fn the_end_of_init_ends_a_process_of_its_pid_namespace() {
    case(|| {
        let (container, _io) = Container::running();
        let (exec, mut io) = with_io(call(&container, &[], &["sh", "-c", "echo ready; exec sleep 100000"]));
        let running = exec.spawn();
        assert_eq!(io.stdout.next(), "ready");
        container.stop();
        assert_eq!(running.wait().code(), 137);
    });
}

#[test]
fn detached_it_outlives_the_command() {
    case(|| {
        let (container, _io) = Container::running();
        let (stdout, theirs) = pipe();
        let mut stdout = stdout;
        call(&container, &["-d"], &["sh", "-c", "echo from $(id -u)"]).stdout(theirs).run().ok();
        assert_eq!(stdout.rest(), "from 0\n");
        only_init_is_left(&container);
    });
}

// ---------------------------------------------------------------------------------------------- errors

/// Insists on exit code 255 and on words in the error.
#[track_caller]
fn said(output: &Output, words: &str) {
    assert_eq!(output.code(), 255, "{output:?}");
    // A log line quotes quotes.
    let all = output.stderr.replace("\\\"", "\"").to_lowercase();
    assert!(all.contains(&words.to_lowercase()), "no {words:?}: {output:?}");
    assert!(!output.stderr.contains("panicked at"), "{output:?}");
}

#[track_caller]
fn refused(container: &Container, options: &[&str], command: &[&str], words: &str) {
    said(&call(container, options, command).run(), words);
}

#[test]
fn a_missing_container_is_said_so() {
    case(|| {
        let container = Bundle::new().container();
        refused(&container, &[], &["true"], "container does not exist");
    });
}

#[test]
fn a_stopped_container_is_said_so() {
    case(|| {
        let (container, _io) = Container::running();
        container.stop();
        refused(&container, &[], &["true"], "cannot exec in a stopped container");
    });
}

#[test]
fn a_paused_container_is_said_so() {
    case(|| {
        let (container, _io) = Container::running();
        container.freeze(true);
        let words = "cannot exec in a paused container (use --ignore-paused to override)";
        refused(&container, &[], &["true"], words);
        container.freeze(false);
        printed(&container, &[], "true");
    });
}

#[test]
fn programs_that_cannot_be_executed() {
    case(|| {
        let (container, _io) = Container::running();
        fs::write(container.bundle.rootfs().join("etc/script"), "#!/nosuch\n").unwrap();
        for (program, words) in [
            ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
            ("/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
            ("/etc/passwd/x", "not a directory"),
            ("", "exec: \"\": executable file not found in $PATH"),
        ] {
            refused(&container, &[], &[program], words);
        }
        only_init_is_left(&container);
    });
}

#[test]
fn a_program_that_is_a_directory() {
    case(|| {
        let (container, _io) = Container::running();
        refused(&container, &[], &["/etc"], "exec: \"/etc\": is a directory: permission denied");
    });
}

#[test]
fn a_program_without_its_interpreter_is_an_error_of_exec() {
    case(|| {
        let (container, _io) = Container::running();
        let script = container.bundle.rootfs().join("bin/script");
        write_program(&script, "#!/nosuch\n");
        refused(&container, &[], &["script"], "no such file or directory");
        refused(&container, &["--detach"], &["script"], "no such file or directory");
        only_init_is_left(&container);
    });
}

#[test]
fn a_working_directory_that_cannot_be_entered() {
    case(|| {
        let (container, _io) = Container::running();
        refused(&container, &["--cwd", "/nosuch"], &["true"], "no such file or directory");
        refused(&container, &["--cwd", "/etc/passwd"], &["true"], "not a directory");
        refused(&container, &["--cwd", "etc"], &["true"], "Cwd must be an absolute path");
        assert!(!container.bundle.rootfs().join("nosuch").exists(), "a directory was made");
        only_init_is_left(&container);
    });
}

#[test]
fn words_of_a_missing_command() {
    case(|| {
        let (container, _io) = Container::running();
        refused(&container, &[], &[], "args");
        let file = container.bundle.directory.join("process.json");
        fs::write(&file, json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": []}).to_string()).unwrap();
        refused(&container, &["--process", file.to_str().unwrap()], &[], "args must not be empty");
    });
}

#[test]
fn an_error_is_one_object_in_the_log() {
    case(|| {
        let (container, _io) = Container::running();
        let log = container.bundle.directory.join("log.json");
        let id = container.id.clone();
        for words in [&["exec", "--cwd", "/nosuch", &id, "true"][..], &["exec", "--preserve-fds=5", &id, "true"]] {
            let _ = fs::remove_file(&log);
            let options = ["--log", log.to_str().unwrap(), "--log-format", "json"];
            let output = container.call([&options, words].concat()).run();
            assert_eq!(output.code(), 255, "{output:?}");
            let lines: Vec<serde_json::Value> =
                text(&log).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(lines.len() == 1 && lines[0]["level"] == "error", "{lines:?}");
        }
    });
}

/// Without no_new_privs the filter has to be loaded before the ids are changed.
#[test]
fn a_filter_that_kills_the_process_is_named() {
    case(|| {
        let mut bundle = Bundle::new();
        let rule = json!({"names": ["setgroups"], "action": "SCMP_ACT_KILL_PROCESS"});
        bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
        let (container, _io) = sleeping(bundle);
        printed(&container, &[], "true");
        let file = container.bundle.directory.join("process.json");
        let user = json!({"uid": 0, "gid": 0});
        let process = json!({"cwd": "/", "user": user, "args": ["true"], "noNewPrivileges": false});
        fs::write(&file, process.to_string()).unwrap();
        let options = ["--process", file.to_str().unwrap()];
        refused(&container, &options, &[], "the profile has killed the process (SIGSYS)");
        only_init_is_left(&container);
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn no_room_for_a_process_is_said_so() {
    case(|| {
        let mut bundle = Bundle::sh(crate::support::WAITING);
        bundle.set("/linux/resources/pids", json!({"limit": 1}));
        let container = bundle.container();
        if container.cgroup("pids").is_none() {
            skip!("no pids controller");
        }
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let output = call(&container, &[], &["true"]).run();
        assert_eq!(output.code(), 255, "{output:?}");
        assert!(output.stderr.contains("pids.limit"), "the cause is not named: {output:?}");
        only_init_is_left(&container);
    });
}
