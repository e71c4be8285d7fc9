//! What only the unified hierarchy has: controllers that are given on, threads, delegation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{Bundle, Call, Container, WAITING, case, cgroup_parent, cgroup_v2, ours, skip, text};

const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup of the test's own, removed on drop with what the test has made in it.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let name = format!("group-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(MOUNT).join(&cgroup_parent()[1..]).join(name);
        fs::create_dir_all(&path).unwrap();
        let parent = path.parent().unwrap();
        for name in text(parent.join("cgroup.controllers")).split_whitespace() {
            fs::write(parent.join("cgroup.subtree_control"), format!("+{name}")).unwrap();
        }
        Self(path)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// What config.json calls a cgroup below this one.
    fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.0.display()).strip_prefix(MOUNT).unwrap().to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|e| remove(&e.path()));
            let _ = fs::remove_dir(dir);
        }
        remove(&self.0);
    }
}

fn container_at(path: &str, memory: Option<u64>) -> Container {
    let mut bundle = Bundle::sh(WAITING);
    bundle.set("/linux/cgroupsPath", json!(path));
    if let Some(limit) = memory {
        bundle.set("/linux/resources/memory", json!({"limit": limit}));
    }
    bundle.container()
}

#[test]
fn a_threaded_subtree_is_refused() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        // In this order: what is made in a threaded subtree later on is invalid until it is threaded, too.
        fs::write(group.make("threaded").join("cgroup.type"), "threaded").unwrap();
        group.make("invalid");
        for (path, place, state) in [
            ("new", "", "domain threaded mode"),
            ("threaded", "/threaded", "threaded mode"),
            ("threaded/new", "/threaded", "threaded mode"),
            ("invalid", "/invalid", "an invalid state"),
            ("invalid/new/er", "/invalid", "an invalid state"),
        ] {
            let before = group.0.join(path).exists();
            let output = container_at(&group.path(path), Some(64 << 20)).create().fails();
            let text = format!(
                "linux.cgroupsPath: cannot enter cgroupv2 \"{}{place}\" with domain controllers -- it is in {state}\n",
                group.0.display()
            );
            assert!(!ours() || output.stderr.starts_with(&text), "{}", output.stderr);
            assert!(output.stderr.contains("cannot enter cgroupv2 "), "{}", output.stderr);
            assert_eq!(group.0.join(path).exists(), before, "{path}");
        }
    });
}

#[test]
fn a_parent_with_processes_gives_no_controllers() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        let other = Call::sh("sleep 1000").spawn();
        fs::write(group.0.join("cgroup.procs"), other.pid().to_string()).unwrap();

        let limited = container_at(&group.path("limited"), Some(64 << 20));
        let output = limited.create().fails();
        let hint = format!(
            "hint: cgroup {} has processes of its own and so cannot give controller \"memory\" to those below it: \
             move them into a cgroup below it, or choose another linux.cgroupsPath",
            group.0.display()
        );
        let field = "linux.resources.memory.limit: write \"67108864\" to ";
        assert!(!ours() || output.stderr.starts_with(field) && output.stderr.contains(&hint), "{}", output.stderr);
        limited.nothing_left();
        assert!(!group.0.join("limited").exists());

        if ours() {
            // With some of them the cgroup would be the root of a threaded subtree, and the one below it closed.
            assert_eq!(text(group.0.join("cgroup.subtree_control")), "");
            assert_eq!(text(group.0.join("cgroup.type")), "domain\n");
            let container = container_at(&group.path("free"), None);
            let mut io = container.create_io();
            container.start().ok();
            assert_eq!(io.stdout.next(), "ready");
            assert_eq!(text(group.0.join("free/cgroup.procs")).trim(), container.pid().to_string());
            container.command(&["delete", "--force"], &[]).ok();
        }
    });
}

#[test]
fn controllers_are_given_down_to_the_container() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        let container = container_at(&group.path("given/to"), Some(64 << 20));
        container.create().ok();
        assert_eq!(text(group.0.join("given/to/memory.max")), "67108864\n");
        let given = text(group.0.join("given/cgroup.subtree_control"));
        for name in ["cpu", "memory", "pids"] {
            assert!(given.split_whitespace().any(|one| one == name), "{name}: {given}");
        }
        // Not for what is below the container: a cgroup with processes gives none.
        assert_eq!(text(group.0.join("given/to/cgroup.subtree_control")), "");
    });
}
