//! cgroups that were there before the container: they are used, and stay, and who else is in or below them is left alone.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Bundle, Call, Container, Running, WAITING, case, cgroup_parent, cgroup_v2, controller, eventually, hierarchies,
    ours, skip, systemd,
};

/// Directories of one name in every hierarchy, made before the container, and removed at the end of the test.
struct Existing {
    path: String,
    directories: Vec<PathBuf>,
}

impl Existing {
    fn new(name: &str) -> Self {
        let path = format!("{}-{name}", cgroup_parent());
        let directories: Vec<PathBuf> = hierarchies().iter().map(|one| one.mount.join(&path[1..])).collect();
        for directory in &directories {
            fs::create_dir(directory).unwrap();
        }
        Self { path, directories }
    }

    /// The directory that has the list of processes that the runtime goes by.
    fn main(&self) -> PathBuf {
        controller(if cgroup_v2() { "" } else { "pids" }).unwrap().join(&self.path[1..])
    }

    /// A process of somebody else, in a cgroup below.
    fn stranger(&self) -> Running {
        let below = self.main().join("other");
        fs::create_dir(&below).unwrap();
        let running = Call::sh("exec sleep 1000").spawn();
        fs::write(below.join("cgroup.procs"), running.pid().to_string()).unwrap();
        running
    }

    fn container(&self, edit: impl FnOnce(&mut Bundle)) -> Container {
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/linux/cgroupsPath", json!(self.path));
        edit(&mut bundle);
        bundle.container()
    }

    #[track_caller]
    fn all_there(&self) {
        for directory in &self.directories {
            assert!(directory.exists(), "{} is gone", directory.display());
        }
    }
}

impl Drop for Existing {
    fn drop(&mut self) {
        for directory in &self.directories {
            let _ = fs::remove_dir(directory.join("other"));
            let _ = fs::remove_dir(directory);
        }
    }
}

#[track_caller]
fn spared(running: Running, existing: &Existing) {
    assert!(!running.has_ended(), "the stranger was killed");
    running.signal(Signal::KILL);
    drop(running);
    // Its zombie leaves the cgroup when it is reaped.
    eventually("the stranger's cgroup can be removed", || fs::remove_dir(existing.main().join("other")).is_ok());
}

#[test]
fn they_stay() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let existing = Existing::new("stay");
        let container = existing.container(|_| {});
        let _io = container.create_io();
        container.command(&["delete", "--force"], &[]).ok();
        existing.all_there();
        // And can be used again.
        let _io = container.create_io();
        container.start().ok();
        container.command(&["kill"], &["KILL"]).ok();
        container.command(&["delete", "--force"], &[]).ok();
        existing.all_there();
    });
}

#[test]
fn a_stranger_below_is_a_reason_to_refuse() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let existing = Existing::new("stranger");
        let stranger = existing.stranger();
        let container = existing.container(|_| {});
        if ours() {
            let output = container.create().fails();
            assert!(output.stderr.contains("container's cgroup is not empty: 1 process"), "{output:?}");
        }
        container.command(&["delete", "--force"], &[]).ok();
        existing.all_there();
        spared(stranger, &existing);
    });
}

#[test]
fn one_that_is_in_use_does_not_cost_the_others() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let existing = Existing::new("used");
        let stranger = existing.stranger();
        for _ in 0..2 {
            let output = existing.container(|_| {}).run();
            assert!(!ours() || output.code() != 0, "{output:?}");
        }
        existing.all_there();
        spared(stranger, &existing);
    });
}

#[test]
fn a_stranger_that_comes_later_is_left_alone() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        for own_pid_namespace in [true, false] {
            let existing = Existing::new("later");
            let container = existing.container(|bundle| {
                if !own_pid_namespace {
                    bundle.no_namespace("pid");
                }
            });
            let _io = container.create_io();
            let stranger = existing.stranger();
            container.command(&["delete", "--force"], &[]).ok();
            existing.all_there();
            spared(stranger, &existing);
        }
    });
}

/// `create` is killed before it has written the state: what was there before is known all the same.
#[test]
fn they_stay_when_create_was_killed() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let existing = Existing::new("killed");
        let container = existing.container(|bundle| {
            let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID; read forever"]});
            bundle.set("/hooks/createRuntime", json!([hook]));
        });
        assert!(container.create().code() > 128);
        let stranger = existing.stranger();
        container.command(&["delete", "--force"], &[]).ok();
        existing.all_there();
        spared(stranger, &existing);
    });
}

/// Linux 6.18 kills whoever is cloned into a cgroup that once was killed.
#[test]
fn one_that_was_killed_once_can_hold_a_container() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let existing = Existing::new("once");
        for directory in &existing.directories {
            let _ = fs::write(directory.join("cgroup.kill"), "1");
        }
        existing
            .container(|bundle| {
                bundle.args(&["true"]);
            })
            .run()
            .ok();
    });
}

/// The dead one's cgroup is another's by now: of a container that got the same path.
#[test]
fn a_container_that_came_later_is_not_killed_for_the_dead_one() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let path = format!("{}-reused", cgroup_parent());
        let container = || {
            let mut bundle = Bundle::sh(WAITING);
            bundle.set("/linux/cgroupsPath", json!(path));
            bundle.container()
        };
        let (dead, later) = (container(), container());
        let _io = dead.create_io();
        dead.stop();
        let mut io = later.create_io();
        later.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        assert_eq!(dead.command(&["ps", "--format", "json"], &[]).ok().stdout.trim(), "null");
        dead.command(&["kill", "--all"], &["KILL"]).ok();
        for options in [&["delete"][..], &["delete", "--force"]] {
            let error = dead.command(options, &[]).fails().stderr;
            assert!(!ours() || error.starts_with("container's cgroup is not empty: ["), "{error}");
            assert_eq!(later.status(), "running");
        }
        later.stop();
        later.command(&["delete"], &[]).ok();
        dead.command(&["delete"], &[]).ok();
        dead.nothing_left();
        later.nothing_left();
        let place = controller(if cgroup_v2() { "" } else { "pids" }).unwrap().join(&path[1..]);
        assert!(!place.exists(), "{} is left", place.display());
    });
}

#[test]
fn a_paused_container_is_killed_there_too() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let existing = Existing::new("paused");
        let container = existing.container(|_| ());
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let pid = container.pid();
        container.command(&["pause"], &[]).ok();
        container.command(&["kill"], &["KILL"]).ok();
        crate::support::wait_for_end(pid);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
        existing.all_there();
        let container = existing.container(|_| ());
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        container.command(&["pause"], &[]).ok();
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
        existing.all_there();
    });
}
