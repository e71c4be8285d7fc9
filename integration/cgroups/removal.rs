//! `delete`, and what a container has made below its cgroup.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde_json::json;

use crate::support::{Bundle, Container, Io, case, cgroup_v2, cgroups_of, text};

/// A container of three processes, with or without a pid namespace of its own.
fn three(own_pid_namespace: bool) -> (Container, Io) {
    let mut bundle = Bundle::sh("sleep 1000 & sleep 1000 & echo ready; read line; wait");
    if !own_pid_namespace {
        bundle.no_namespace("pid");
    }
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

/// Makes cgroups three levels deep in each hierarchy, with a process in each level.
fn nest(container: &Container) {
    for top in cgroups_of(&container.id) {
        let pids: Vec<String> = text(top.join("cgroup.procs")).lines().map(str::to_owned).collect();
        let mut dir = top;
        for (pid, name) in pids.iter().zip(["a", "b", "c"]) {
            let below = dir.join(name);
            fs::create_dir(&below).unwrap();
            // A new one of v1 has none, and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|file| below.join(file).exists()) {
                fs::write(below.join(file), text(dir.join(file)).trim()).unwrap();
            }
            fs::write(below.join("cgroup.procs"), pid).unwrap();
            dir = below;
        }
        assert!(dir.ends_with("a/b/c"), "{}: {pids:?}", dir.display());
    }
}

#[test]
fn nested_cgroups_with_processes_in_them() {
    case(|| {
        for own_pid_namespace in [true, false] {
            let (container, _io) = three(own_pid_namespace);
            nest(&container);
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();

            let (container, _io) = three(own_pid_namespace);
            nest(&container);
            container.stop();
            container.command(&["delete"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn nested_cgroups_of_a_paused_container() {
    case(|| {
        for own_pid_namespace in [true, false] {
            let (container, _io) = three(own_pid_namespace);
            nest(&container);
            container.command(&["pause"], &[]).ok();
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

/// One directory in the other, all of the longest name: the way down.
pub(crate) fn dig(top: &Path, levels: usize) -> Vec<OwnedFd> {
    let open = |dir: &OwnedFd| rustix::fs::openat(dir, DEEP.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut way = vec![rustix::fs::openat(CWD, top, OFlags::DIRECTORY, Mode::empty()).unwrap()];
    for _ in 0..levels {
        let dir = &way[way.len() - 1];
        rustix::fs::mkdirat(dir, DEEP.as_str(), Mode::RWXU).unwrap();
        way.push(open(dir));
    }
    way
}

static DEEP: LazyLock<String> = LazyLock::new(|| "x".repeat(255));

#[test]
fn nested_cgroups_that_are_deeper_than_a_path_is_long() {
    case(|| {
        let (container, io) = Container::running();
        // PATH_MAX is 4096.
        let ways: Vec<_> = cgroups_of(&container.id).iter().map(|top| dig(top, 20)).collect();
        drop(io);
        let output = container.command(&["delete", "--force"], &[]);
        // What the runtime under test has left nobody else could remove.
        for dir in ways.iter().flat_map(|way| way.iter().rev().skip(1)) {
            let _ = rustix::fs::unlinkat(dir, DEEP.as_str(), AtFlags::REMOVEDIR);
        }
        output.ok();
        container.nothing_left();
    });
}

#[test]
fn many_cgroups_side_by_side() {
    case(|| {
        let (container, _io) = Container::running();
        for top in cgroups_of(&container.id) {
            for number in 0..100 {
                fs::create_dir_all(top.join(format!("a/{number}/b"))).unwrap();
            }
        }
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

/// Processes that go on forking while they are killed, in a cgroup of their own making.
#[test]
fn a_fork_bomb_is_removed() {
    case(|| {
        // What runs in the foreground is waited for, and the rest with it: the limit is never reached, and no shell ends.
        let mut bundle = Bundle::sh("for i in 1 2 3 4; do while :; do (:) & (:); done & done; echo ready; wait");
        bundle.no_namespace("pid").set("/linux/resources/pids", json!({"limit": 50}));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

/// As systemd does, which removes the whole tree of a scope as soon as it is empty.
#[test]
fn somebody_else_removes_the_same_tree() {
    case(|| {
        for _ in 0..5 {
            let (container, _io) = Container::running();
            let Some(top) = container.cgroup(if cgroup_v2() { "" } else { "pids" }) else { return };
            for number in 0..300 {
                fs::create_dir_all(top.join(format!("a/{number}/b"))).unwrap();
            }
            container.stop();
            let delete = container.call(["delete", &container.id]).spawn();
            for number in (0..300).rev() {
                let _ = fs::remove_dir(top.join(format!("a/{number}/b")));
                let _ = fs::remove_dir(top.join(format!("a/{number}")));
            }
            delete.wait().ok();
            container.nothing_left();
        }
    });
}
