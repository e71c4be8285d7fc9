//! What a process gets of the runtime's descriptors, variables, arguments and memory: nothing that is not on a list. Seen: each with
//! our own runtime, with nothing closed and the arguments left as they were.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, Call, Io, WAITING, busybox, case, link, ours, skip, text, with_io};

/// Appends what this process has to a file. Its pid is that of the procfs, which a createContainer hook has of the host.
const REPORT: &str = "{ read pid rest < /proc/self/stat; echo \"=$no= $0\"; for fd in /proc/$pid/fd/*; do echo fd ${fd##*/}; done; \
                      tr '\\0' '\\n' < /proc/$pid/environ | sed 's/^/env /'; \
                      tr '\\0' '|' < /proc/$pid/cmdline; echo; } >> ";

/// A caller that has descriptors open and variables set.
fn careless(call: Call) -> Call {
    let open = "exec 3</ 4</proc 5</dev/null 6</etc/passwd 7<. 8</dev 9</tmp; exec \"$@\"";
    call.below(["sh", "-c", open, "sh"]).env("SECRET", "variable")
}

fn hook(name: &str, log: &str) -> Value {
    let script = format!("{REPORT}{log}");
    json!([{"path": busybox(), "args": ["sh", "-c", script, name], "env": ["PATH=/bin", "OWN=hook"]}])
}

/// The parts of a report: name, descriptors, variables, arguments.
fn reports(log: &str) -> Vec<(String, Vec<String>, Vec<String>, String)> {
    log.split("== ")
        .skip(1)
        .map(|report| {
            let lines: Vec<&str> = report.lines().collect();
            let of = |word: &str| {
                let mut found: Vec<_> =
                    lines.iter().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect();
                found.sort();
                found
            };
            (lines[0].to_owned(), of("fd "), of("env "), (*lines.last().unwrap()).to_owned())
        })
        .collect()
}

/// Of hooks and of the container's own program, by `run`, `create` with `start`, and `exec`.
#[test]
fn descriptors_variables_and_arguments() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        for detached in [false, true] {
            let mut bundle = Bundle::new();
            let log = bundle.directory.join("log").display().to_string();
            let own = format!("{REPORT}/log");
            bundle.args(&["sh", "-c", &own, "program"]).set("/process/env", json!(["PATH=/bin", "OWN=program"]));
            for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
                bundle.set(&format!("/hooks/{name}"), hook(name, &log));
            }
            bundle.set("/hooks/startContainer", hook("startContainer", "/log"));
            bundle.set("/hooks/startContainer/0/path", json!("/bin/busybox"));
            let container = bundle.container();
            if detached {
                let call = careless(container.call_bundle("create", &[]));
                call.run().ok();
                let pid = container.pid();
                careless(container.call(["start", &container.id])).run().ok();
                crate::support::wait_for_end(pid);
                careless(container.call(["delete", &container.id])).run().ok();
            } else {
                careless(container.call_bundle("run", &[])).run().ok();
            }
            let inside = text(container.bundle.rootfs().join("log"));
            let all = reports(&(text(&log) + &inside));
            let mut names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
            names.sort_unstable();
            let expected =
                ["createContainer", "createRuntime", "poststart", "poststop", "prestart", "program", "startContainer"];
            assert_eq!(names, expected);
            for (name, descriptors, variables, arguments) in &all {
                check(name, descriptors, variables);
                assert!(arguments.starts_with("sh|-c|") && arguments.ends_with(&format!("|{name}|")), "{arguments}");
            }
        }
    });
}

/// Its standard output is the report itself.
#[track_caller]
fn check(name: &str, descriptors: &[String], variables: &[String]) {
    // The shell keeps its stdout at the first number from 10 on while that is redirected, and lists by the first that is free.
    let descriptors: Vec<&str> = descriptors.iter().map(String::as_str).filter(|fd| *fd != "10").collect();
    assert_eq!(descriptors, ["0", "1", "2", "3"], "{name}");
    let own = if ["program", "exec"].contains(&name) { "program" } else { "hook" };
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let known = [vec![format!("OWN={own}"), "PATH=/bin".to_owned()], vec!["HOME=/root".to_owned()]];
    let mut expected: Vec<String> = if own == "program" { known.concat() } else { known[0].clone() };
    expected.sort();
    assert_eq!(variables, expected, "{name}");
}

#[test]
fn descriptors_variables_and_arguments_of_exec() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/process/env", json!(["PATH=/bin", "OWN=program"]));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let script = format!("{REPORT}/log");
        careless(container.call(["exec", &container.id, "sh", "-c", &script, "exec"])).run().ok();
        let all = reports(&text(container.bundle.rootfs().join("log")));
        assert_eq!(all.len(), 1);
        let (name, descriptors, variables, arguments) = &all[0];
        check(name, descriptors, variables);
        assert!(arguments.starts_with("sh|-c|") && arguments.ends_with("|exec|"), "{arguments}");
    });
}

/// The descriptors of a process, by what they lead to.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut links: Vec<(u32, PathBuf)> =
        entries.map(|entry| (entry.file_name().to_str().unwrap().parse().unwrap(), entry.path())).collect();
    links.sort();
    links.into_iter().map(|(number, path)| format!("{number} {}", link(path))).collect()
}

/// Init of a container that waits for `start`: it is in the container's namespaces already.
#[test]
fn init_at_the_gate_has_nothing_of_the_host() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let container = Bundle::sh(WAITING).container();
        let (call, _io): (_, Io) = with_io(container.call_bundle("create", &[]));
        careless(call).run().ok();
        let pid = container.pid();
        let gate = container.root().join(&container.id).join("exec.fifo").display().to_string();
        let kind = |line: &String| {
            let (number, to) = line.split_once(' ').unwrap();
            let to = if number.parse::<u32>().unwrap() < 3 { "stream" } else { to };
            to.split(":[").next().unwrap().to_owned()
        };
        let mut kinds: Vec<String> = descriptors(pid).iter().map(kind).collect();
        kinds.sort();
        // The socket's other end is closed. Both are closed by execve.
        let mut expected = [gate.as_str(), "socket", "stream", "stream", "stream"];
        expected.sort_unstable();
        assert_eq!(kinds, expected);
        for descriptor in descriptors(pid).iter().skip(3) {
            let number = descriptor.split(' ').next().unwrap();
            let info = text(format!("/proc/{pid}/fdinfo/{number}"));
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:\t")).unwrap();
            let flags = i32::from_str_radix(flags, 8).unwrap();
            assert!(flags & libc::O_CLOEXEC != 0, "{descriptor}");
        }
        let arguments = text(format!("/proc/{pid}/cmdline"));
        assert_eq!(arguments.trim_end_matches('\0'), "init");
        assert_eq!(link(format!("/proc/{pid}/cwd")), "/");
        // Its memory, variables and links are nobody's in the container, and not its user's.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/environ")).unwrap());
        assert_eq!(owner, 0);
    });
}

/// Who is in the container sees processes that join it: what it can read of them says nothing of the host.
#[test]
fn what_can_be_read_of_a_joining_process() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let watcher = "echo ready; n=0; while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do \
                       [ $p = /proc/1 ] && continue; n=$((n + 1)); \
                       grep -als -e SECRET -e secret $p/cmdline $p/environ $p/maps $p/auxv $p/status $p/comm; \
                       done; done; echo seen $n";
        let container = Bundle::sh(watcher).container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let file = container.bundle.directory.join("secret").display().to_string();
        for _ in 0..crate::support::scale() / 2 {
            let call = container.call(["exec", "--pid-file", &file, &container.id, "true"]);
            call.env("SECRET", "variable").run().ok();
        }
        fs::write(container.bundle.rootfs().join("tmp/stop"), "").unwrap();
        let seen = io.stdout.rest();
        assert!(seen.starts_with("seen ") && !seen.starts_with("seen 0"), "{seen}");
    });
}
