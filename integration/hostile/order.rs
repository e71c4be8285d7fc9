//! The order of the system calls that decide, as strace(1) sees it, against the drawing in `src/init/mod.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Bundle, Call, Container, busybox, case, eventually, ours, skip, text, wait_for_end};

/// A system call.
struct Line {
    pid: u32,
    /// Its name and arguments.
    call: String,
    result: String,
}

/// What strace has written, in the order in which the calls began.
fn lines(trace: &Path) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in text(trace).lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let (pid, call) = (pid.parse().unwrap(), call.trim_start());
        if let Some(rest) = call.strip_prefix("<... ") {
            let rest = rest.split_once("resumed>").unwrap().1;
            let begun = lines.iter_mut().rev().find(|line| line.pid == pid).unwrap();
            begun.call.push_str(rest);
            begun.result = rest.rsplit_once(" = ").map_or("", |(_, result)| result).to_owned();
            continue;
        }
        let call = call.trim_end_matches("<unfinished ...>").to_owned();
        let result = call.rsplit_once(" = ").map_or("", |(_, result)| result).to_owned();
        lines.push(Line { pid, call, result });
    }
    lines
}

/// The parent, and the children that become the container's program: the first clone, and what takes its place.
fn family(lines: &[Line]) -> (u32, BTreeSet<u32>) {
    let parent = lines[0].pid;
    let mut children = BTreeSet::new();
    for line in lines.iter().filter(|line| line.call.starts_with("clone3(")) {
        let first = line.pid == parent && children.is_empty();
        if first || line.call.contains("CLONE_PARENT") {
            children.extend(line.result.split(' ').next().and_then(|pid| pid.parse::<u32>().ok()));
        }
    }
    (parent, children)
}

/// Which step a system call of the child belongs to: how it begins, and what is in it.
const STEPS: &[(&str, &str, &str)] = &[
    ("die with the parent", "prctl(PR_SET_PDEATHSIG, SIGKILL", ""),
    ("live without the parent", "prctl(PR_SET_PDEATHSIG, 0", ""),
    ("not dumpable", "prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE", ""),
    ("join", "setns(", ""),
    ("second child", "clone3(", "CLONE_PARENT"),
    ("session", "setsid(", ""),
    ("keyring", "keyctl(KEYCTL_JOIN_SESSION_KEYRING", ""),
    ("cut propagation", "mount(NULL, \"/\"", "MS_SLAVE"),
    ("mounts", "fsopen(", ""),
    ("devices", "mknodat(", ""),
    ("read-only paths", "openat2(", "\"proc/bus\""),
    ("masks", "openat2(", "\"proc/keys\""),
    ("hook", "memfd_create(\"state\"", ""),
    ("pivot", "pivot_root(", ""),
    ("leave the old root", "umount2(\".\", MNT_DETACH", ""),
    ("host name", "sethostname(", ""),
    ("sysctl", "openat2(", "\"sys/net/ipv4/ip_forward\""),
    ("streams", "openat2(", "\"dev/null\""),
    ("close descriptors", "close_range(", "4294967295"),
    ("umask", "umask(", ""),
    ("working directory", "getcwd(", ""),
    ("no new privileges", "prctl(PR_SET_NO_NEW_PRIVS", ""),
    ("bounding set", "prctl(PR_CAPBSET_DROP", ""),
    ("keep capabilities", "prctl(PR_SET_KEEPCAPS, 1", ""),
    ("groups", "setgroups(", ""),
    ("gid", "setresgid(", ""),
    ("uid", "setresuid(", ""),
    ("keep no capabilities", "prctl(PR_SET_KEEPCAPS, 0", ""),
    ("capabilities", "capset(", ""),
    ("ambient set", "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL", ""),
    ("limits", "prlimit64(0, RLIMIT_NOFILE, {", ""),
    ("filter", "seccomp(SECCOMP_SET_MODE_FILTER", ""),
    ("execute", "execve(", ""),
];

/// The steps in their order; one that follows itself counts once.
fn steps(lines: &[Line]) -> Vec<&'static str> {
    let (_, children) = family(lines);
    let of_children = lines.iter().filter(|line| children.contains(&line.pid));
    let step = |line: &Line| {
        let found = STEPS.iter().find(|(_, begin, has)| line.call.starts_with(begin) && line.call.contains(has));
        found.map(|(step, ..)| *step)
    };
    let mut steps: Vec<_> = of_children.filter_map(step).collect();
    let end = steps.iter().position(|step| *step == "execute").expect("nothing was executed");
    steps.truncate(end + 1);
    steps.dedup();
    steps
}

/// What is opened by an absolute path below /proc, /sys or /dev after the first mount into the root file system.
fn paths(lines: &[Line]) -> (Vec<&str>, Vec<&str>) {
    let (parent, mut children) = family(lines);
    let (mut by_parent, mut by_children) = (Vec::new(), Vec::new());
    let mounted = lines.iter().position(|line| children.contains(&line.pid) && line.call.starts_with("move_mount("));
    // `exec` mounts nothing, and is in the container when it has joined it.
    let joined = lines.iter().position(|line| children.contains(&line.pid) && line.call.starts_with("setns("));
    for line in &lines[mounted.or(joined).expect("neither mounted nor joined")..] {
        if line.call.starts_with("execve(") {
            children.remove(&line.pid);
        }
        let name = line.call.split('(').next().unwrap();
        let opens = ["open", "openat", "openat2", "open_tree", "creat", "mount", "execve"].contains(&name);
        let absolute = line.call.split('"').nth(1).filter(|path| {
            ["/proc", "/sys", "/dev"].iter().any(|top| *path == *top || path.starts_with(&format!("{top}/")))
        });
        // A debug build asks before each clone whether it has one thread.
        let Some(path) = absolute.filter(|path| opens && *path != "/proc/self/task") else { continue };
        if children.contains(&line.pid) {
            by_children.push(path);
        } else if line.pid == parent {
            by_parent.push(path);
        }
    }
    (by_parent, by_children)
}

#[track_caller]
fn in_order(trace: &Path, drawing: &[&str]) {
    let lines = lines(trace);
    assert_eq!(steps(&lines), drawing);
    let (by_parent, by_children) = paths(&lines);
    assert!(by_children.is_empty(), "the child has opened {by_children:?}");
    // The parent is in the namespaces of the host, where nothing was mounted.
    let others: Vec<_> = by_parent.iter().filter(|path| !path.starts_with("/sys/fs/cgroup/")).collect();
    assert!(others.is_empty(), "the parent has opened {others:?}");
}

fn why_not() -> Option<&'static str> {
    match (ours(), Path::new("/usr/bin/strace").exists()) {
        (false, _) => Some("the way of this runtime"),
        (true, false) => Some("no strace"),
        (true, true) => None,
    }
}

/// Below strace, which writes to this file.
fn traced(container: &Container, call: Call) -> (PathBuf, Call) {
    let trace = container.bundle.directory.join("trace");
    let output = trace.display().to_string();
    (trace, call.wrapped(["/usr/bin/strace", "-f", "-qq", "-s", "256", "-o", &output]))
}

fn bundle(no_new_privileges: bool) -> Bundle {
    let mut bundle = Bundle::new();
    let hook = json!([{"path": busybox(), "args": ["true"]}]);
    bundle.set("/hooks", json!({"createRuntime": hook, "createContainer": hook, "startContainer": hook}));
    bundle.set("/hooks/startContainer/0/path", json!("/bin/busybox"));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    bundle.set("/linux/seccomp", crate::errors::seccomp(json!([{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}])));
    // A directory would be masked by one more mount.
    bundle.set("/linux/maskedPaths", json!(["/proc/keys"]));
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
    bundle
}

const CREATE: &[&str] = &[
    "die with the parent",
    "not dumpable",
    "die with the parent",
    "session",
    "keyring",
    "cut propagation",
    "mounts",
    "devices",
    "read-only paths",
    "masks",
    "hook",
    "pivot",
    "leave the old root",
    "host name",
    "sysctl",
    "streams",
];

const IDENTITY: &[&str] = &["close descriptors", "umask", "working directory"];
const IDS: &[&str] = &[
    "bounding set",
    "keep capabilities",
    "groups",
    "gid",
    "uid",
    "keep no capabilities",
    "not dumpable",
    "capabilities",
    "ambient set",
    "limits",
    "live without the parent",
];

const OF_EXEC: &[&str] = &[
    "die with the parent",
    "not dumpable",
    "join",
    "second child",
    "die with the parent",
    "session",
    "keyring",
    "streams",
];

fn of_create(no_new_privileges: bool) -> Vec<&'static str> {
    let end: [&[&str]; 3] = match no_new_privileges {
        true => [&["no new privileges"], IDS, &["filter"]],
        // Without no_new_privs a filter needs CAP_SYS_ADMIN.
        false => [&["filter"], IDS, &[]],
    };
    [CREATE, IDENTITY, end[0], end[1], end[2], &["hook", "execute"]].concat()
}

#[test]
fn of_run() {
    case(|| {
        if let Some(reason) = why_not() {
            skip!("{reason}");
        }
        for no_new_privileges in [true, false] {
            let container = bundle(no_new_privileges).container();
            let (trace, call) = traced(&container, container.call_bundle("run", &[]));
            call.run().ok();
            in_order(&trace, &of_create(no_new_privileges));
        }
    });
}

/// A change of the group alone makes the process dumpable, too, where /proc/sys/fs/suid_dumpable says so.
#[test]
fn of_root_with_another_group() {
    case(|| {
        if let Some(reason) = why_not() {
            skip!("{reason}");
        }
        let mut bundle = bundle(true);
        bundle.set("/process/user", json!({"uid": 0, "gid": 1000}));
        let container = bundle.container();
        let (trace, call) = traced(&container, container.call_bundle("run", &[]));
        call.run().ok();
        let steps = steps(&lines(&trace));
        let after: Vec<_> = steps.iter().skip_while(|step| **step != "gid").take(3).collect();
        assert_eq!(after, [&"gid", &"uid", &"not dumpable"]);
    });
}

#[test]
fn of_create_and_start() {
    case(|| {
        if let Some(reason) = why_not() {
            skip!("{reason}");
        }
        let container = bundle(true).container();
        let (trace, call) = traced(&container, container.call_bundle("create", &[]));
        let running = call.spawn();
        let state = || container.call(["state", &container.id]).run().stdout;
        eventually("it is created", || state().contains("\"created\""));
        let pid = container.pid();
        container.start().ok();
        wait_for_end(pid);
        running.wait().ok();
        in_order(&trace, &of_create(true));
    });
}

#[test]
fn of_exec() {
    case(|| {
        if let Some(reason) = why_not() {
            skip!("{reason}");
        }
        let mut bundle = bundle(true);
        bundle.remove("/hooks").script(crate::support::WAITING);
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let (trace, call) = traced(&container, container.call(["exec", &container.id, "true"]));
        call.run().ok();
        let end = [IDENTITY, &["no new privileges"], IDS, &["filter", "execute"]].concat();
        in_order(&trace, &[OF_EXEC, end.as_slice()].concat());
    });
}
