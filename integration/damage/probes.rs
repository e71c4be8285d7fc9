//! What other runtimes were seen to stumble over, and no other test tries.

use std::fs;

use serde_json::json;

use super::clear;
use crate::support::{
    Bundle, Call, Container, WAITING, busybox, case, hierarchies, ours, pidfd, runtime, skip, systemd, text,
    wait_for_end,
};

/// The host was restarted, and /run kept: there are files, and nothing else.
#[test]
fn a_container_of_another_boot_is_stopped_and_can_be_deleted() {
    case(|| {
        if !ours() || systemd() {
            skip!("another runtime has other files, and so has systemd");
        }
        let (container, _io) = Container::running();
        container.stop();
        for hierarchy in hierarchies() {
            let path = container.bundle.config["linux"]["cgroupsPath"].as_str().unwrap();
            let _ = fs::remove_dir(hierarchy.mount.join(&path[1..]));
        }
        let directory = container.root().join(&container.id);
        let mut record: serde_json::Value = serde_json::from_str(&text(directory.join("record.json"))).unwrap();
        record["boot_id"] = json!("another");
        fs::write(directory.join("record.json"), record.to_string()).unwrap();
        // Somebody else has the pid now, and even its start time.
        let mut state: serde_json::Value = serde_json::from_str(&text(directory.join("state.json"))).unwrap();
        let stat = text("/proc/self/stat");
        let start: u64 = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap();
        state["init_process_pid"] = json!(std::process::id());
        state["init_process_start"] = json!(start);
        fs::write(directory.join("state.json"), state.to_string()).unwrap();
        assert_eq!(container.status(), "stopped");
        for command in ["start", "kill", "exec"] {
            let after: &[&str] = if command == "exec" { &["true"] } else { &[] };
            clear(&container.command(&[command], after).fails());
        }
        clear(&container.create().fails());
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn an_empty_directory_is_no_container_and_can_be_deleted() {
    case(|| {
        if !ours() {
            skip!("other runtimes leave it to root to remove the directory");
        }
        for force in [&["delete"][..], &["delete", "--force"]] {
            let container = Bundle::new().container();
            fs::create_dir_all(container.root().join(&container.id)).unwrap();
            clear(&container.create().fails());
            clear(&container.start().fails());
            container.command(force, &[]).ok();
            container.create().ok();
        }
    });
}

/// Few descriptors are enough, or the command says so.
#[test]
fn a_runtime_with_few_descriptors() {
    case(|| {
        let (mut made, mut failed) = (0, 0);
        for limit in [3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 24, 32, 64] {
            let container = Bundle::new().container();
            let create = container.call_bundle("create", &[]);
            let output = create.below(["sh", "-c", &format!("ulimit -Sn {limit}; exec \"$@\""), "sh"]).run();
            if output.code() == 0 {
                made += 1;
            } else {
                failed += 1;
                clear(&output.fails());
                container.nothing_left();
            }
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
        assert!(made > 0 && failed > 0, "{made} made, {failed} failed");
    });
}

/// Who was moved into the cgroup of a container that has ended is not its process.
#[test]
fn a_process_that_was_moved_into_the_cgroup_is_not_killed() {
    case(|| {
        if !ours() || systemd() {
            skip!("only this project's runtime, by cgroupfs");
        }
        let (container, _io) = Container::running();
        container.stop();
        let stranger = Call::new(busybox()).args(["sleep", "1000"]).spawn();
        let controller = if crate::support::cgroup_v2() { "" } else { "pids" };
        let procs = container.cgroup(controller).unwrap().join("cgroup.procs");
        fs::write(&procs, stranger.pid().to_string()).unwrap();
        for command in [&["delete"][..], &["delete", "--force"]] {
            let output = container.command(command, &[]).fails();
            assert!(output.stderr.contains("container's cgroup is not empty"), "{output:?}");
            assert!(!stranger.has_ended(), "{command:?}");
        }
        assert_eq!(container.status(), "stopped");
        drop(stranger);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

/// A cgroup above is frozen, as if init waited in the kernel for a device: the state is kept, and a later `delete` works.
#[test]
fn an_init_that_cannot_be_killed_keeps_its_state() {
    case(|| {
        if !ours() || systemd() || crate::support::cgroup_v2() {
            skip!("cgroup v1 only: the frozen die there when they are thawed");
        }
        let mut bundle = Bundle::sh(WAITING);
        let above = format!("{}/above-probe", crate::support::cgroup_parent());
        bundle.set("/linux/cgroupsPath", json!(format!("{above}/inner")));
        let container = bundle.container();
        let _io = container.create_io();
        container.start().ok();
        let pid = container.pid();
        let state = crate::support::controller("freezer").unwrap().join(&above[1..]).join("freezer.state");
        fs::write(&state, "FROZEN").unwrap();
        // Shorter than what a call may take here.
        let output = container.call(["--timeout", "3s", "delete", "--force", &container.id]).run().fails();
        assert!(output.stderr.contains("--timeout: waited 3s for "), "{output:?}");
        assert!(pidfd(pid).is_some() && container.root().join(&container.id).join("record.json").exists());
        fs::write(&state, "THAWED").unwrap();
        wait_for_end(pid);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.mount.join(&above[1..]));
        }
    });
}

/// The same, of a `create` that fails: what it cannot undo, `delete --force` can, later.
#[test]
fn a_create_whose_init_cannot_be_killed_keeps_its_state() {
    case(|| {
        if !ours() || systemd() || crate::support::cgroup_v2() {
            skip!("cgroup v1 only: the frozen die there when they are thawed");
        }
        let mut bundle = Bundle::sh(WAITING);
        let above = format!("{}/above-create", crate::support::cgroup_parent());
        bundle.set("/linux/cgroupsPath", json!(format!("{above}/inner")));
        let container = bundle.container();
        let freezer = crate::support::controller("freezer").unwrap().join(&above[1..]);
        fs::create_dir_all(&freezer).unwrap();
        fs::write(freezer.join("freezer.state"), "FROZEN").unwrap();
        container.bundle.write();
        let bundle = container.bundle.directory.to_str().unwrap();
        let create = container.call(["--timeout", "200ms", "create", "--bundle", bundle, &container.id]).spawn();
        // Ten seconds are for its init to end.
        let ended = pidfd(create.pid()).unwrap();
        assert!(crate::support::readable(&ended, crate::support::deadline() * 2), "hangs");
        let output = create.wait().fails();
        assert!(output.stderr.contains("--timeout: waited 200ms for "), "{output:?}");
        assert!(container.root().join(&container.id).join("record.json").exists(), "{output:?}");
        fs::write(freezer.join("freezer.state"), "THAWED").unwrap();
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.mount.join(&above[1..]));
        }
    });
}

/// Beside limits that its init is content with, an `exec` runs, or says which was too small.
#[test]
fn an_exec_beside_tiny_limits() {
    case(|| {
        if systemd() {
            skip!("cgroupfs only");
        }
        let mut tried = 0;
        for (pointer, value, words) in [
            ("/linux/resources/memory", json!({"limit": 1 << 20}), ["OOM", "linux.resources.memory.limit"]),
            ("/linux/resources/memory", json!({"limit": 2 << 20}), ["OOM", "linux.resources.memory.limit"]),
            ("/linux/resources/pids", json!({"limit": 1}), ["linux.resources.pids", "processes"]),
            (
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "hard": 4, "soft": 4}]),
                ["process.rlimits", "files"],
            ),
            ("/linux/resources/cpu", json!({"quota": 1000, "period": 100_000}), ["linux.resources.cpu", "cpu"]),
        ] {
            let mut bundle = Bundle::new();
            bundle.args(&["sleep", "1000"]).set(pointer, value.clone());
            let container = bundle.container();
            if container.create().code() != 0 || container.start().code() != 0 {
                continue;
            }
            tried += 1;
            let output = container.command(&["exec"], &["true"]);
            let blamed = words.iter().any(|word| output.stderr.contains(word));
            assert!(matches!(output.code(), 0 | 137) || blamed, "{pointer} {value}: {output:?}");
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
        assert!(tried > 2, "{tried} of 5 containers live: {:?}", runtime());
    });
}
