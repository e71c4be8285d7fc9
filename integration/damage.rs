//! What others do to the state directory: files torn, emptied, replaced, taken away; no room, no permission to write. And what
//! is left over for `gc`.

mod probes;

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::{
    Bundle, Call, Container, Output, WAITING, busybox, case, hierarchies, ours, pidfd, runtime, skip, systemd, text,
    with_io,
};

/// One line that says what is wrong, and perhaps how to go on.
#[track_caller]
fn clear(output: &Output) {
    let lines: Vec<&str> = output.stderr.lines().collect();
    let more = |line: &&str| line.starts_with("hint: ") || line.starts_with("undo: ") || line.starts_with("warning: ");
    assert!(!lines.is_empty() && lines.iter().skip(1).all(more), "{output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

/// The container is asked for, and deleted, whatever its directory is like.
#[track_caller]
fn can_be_deleted(container: &Container, pid: u32, what: &str) {
    let state = container.command(&["state"], &[]);
    if state.code() != 0 {
        clear(&state.fails());
    }
    container.call(["list"]).run().ok();
    let deleted = container.command(&["delete", "--force"], &[]);
    assert_eq!(deleted.code(), 0, "{what}: {deleted:?}");
    assert!(pidfd(pid).is_none_or(|fd| crate::support::readable(&fd, crate::support::deadline())), "{what}: lives on");
    let left = container.leftovers();
    assert!(left.is_empty(), "{what}: left: {left:?}");
}

#[test]
fn damaged_files_are_no_hindrance_to_delete_by_force() {
    case(|| {
        for file in ["record.json", "state.json", "config.json", "exec.fifo"] {
            let pid = |pid: i32| format!("{{\"id\":\"other\",\"init_process_pid\":{pid},\"init_process_start\":1}}");
            let texts = ["", "{", "null", "{}", "[1]", "\0\0\0", "{\"format\":99}", "{\"format\":1,\"id\":\"other\"}"];
            for content in texts.map(str::to_owned).into_iter().chain([0, 1, -1, i32::MIN].map(pid)) {
                let (container, _io) = Container::running();
                let pid = container.pid();
                let path = container.root().join(&container.id).join(file);
                if !path.exists() {
                    skip!("another runtime has other files");
                }
                fs::remove_file(&path).unwrap();
                fs::write(&path, &content).unwrap();
                can_be_deleted(&container, pid, &format!("{file} is {content:?}"));
            }
        }
    });
}

#[test]
fn missing_and_foreign_files_are_no_hindrance_to_delete_by_force() {
    case(|| {
        for file in ["record.json", "state.json", "config.json", "exec.fifo"] {
            for kind in ["missing", "link", "directory"] {
                let (container, _io) = Container::running();
                let pid = container.pid();
                let path = container.root().join(&container.id).join(file);
                if !path.exists() {
                    skip!("another runtime has other files");
                }
                fs::remove_file(&path).unwrap();
                match kind {
                    "link" => symlink("/dev/zero", &path).unwrap(),
                    "directory" => fs::create_dir(&path).unwrap(),
                    _ => {}
                }
                can_be_deleted(&container, pid, &format!("{file}: {kind}"));
            }
        }
    });
}

/// Without a state nobody knows of init, but its cgroup does.
#[test]
fn a_container_that_lives_is_not_deleted_because_its_files_are_missing() {
    case(|| {
        if !ours() {
            skip!("another runtime has other files");
        }
        for files in [&["state.json"][..], &["record.json"], &["record.json", "state.json"]] {
            let (container, _io) = Container::running();
            let pid = container.pid();
            for file in files {
                fs::remove_file(container.root().join(&container.id).join(file)).unwrap();
            }
            let output = container.command(&["delete"], &[]).fails();
            clear(&output);
            assert!(output.stderr.contains(" is missing, and of the container "), "{files:?}: {output:?}");
            assert!(output.stderr.contains("hint: `delete --force` kills them"), "{files:?}: {output:?}");
            let collected = container.call(["gc", "--delete"]).run().ok();
            let warned = collected.stderr.contains(" is missing, and of the container ") || *files == ["record.json"];
            assert!(collected.stdout.is_empty() && warned, "{files:?}: {collected:?}");
            assert!(pidfd(pid).is_some(), "{files:?}: killed");
            can_be_deleted(&container, pid, &format!("{files:?} missing"));
        }
    });
}

/// A container of a user, of a cgroup that was there before, of runc: nothing but the state tells of it.
#[test]
fn an_init_of_which_only_the_state_tells_is_killed_by_force() {
    case(|| {
        if !ours() {
            skip!("another runtime has other files");
        }
        for content in [None, Some("{")] {
            let (container, _io) = Container::running();
            let pid = container.pid();
            for cgroup in crate::support::cgroups_of(&container.id) {
                let _ = rustix::fs::removexattr(cgroup, "trusted.runtime.container");
            }
            let record = container.root().join(&container.id).join("record.json");
            match content {
                None => fs::remove_file(record).unwrap(),
                Some(text) => fs::write(record, text).unwrap(),
            }
            clear(&container.command(&["delete"], &[]).fails());
            assert!(pidfd(pid).is_some(), "killed");
            let output = container.command(&["delete", "--force"], &[]).ok();
            assert!(output.stderr.contains(" are not known; its init was in ["), "{output:?}");
            assert!(pidfd(pid).is_none_or(|fd| crate::support::readable(&fd, std::time::Duration::ZERO)), "lives on");
            crate::support::cgroups_of(&container.id).iter().for_each(|cgroup| fs::remove_dir(cgroup).unwrap());
            container.nothing_left();
        }
    });
}

/// In a cgroup that was there before, only init is known to be the container's.
#[test]
fn an_init_in_a_shared_cgroup_is_killed_by_force_whatever_its_gate_is_like() {
    case(|| {
        if !ours() || systemd() {
            skip!("only this project's runtime, by cgroupfs");
        }
        let container = Bundle::sh(WAITING).container();
        let path = container.bundle.config["linux"]["cgroupsPath"].as_str().unwrap()[1..].to_owned();
        let cgroups: Vec<_> = hierarchies().into_iter().map(|hierarchy| hierarchy.mount.join(&path)).collect();
        cgroups.iter().for_each(|cgroup| fs::create_dir_all(cgroup).unwrap());
        let _io = container.create_io();
        container.start().ok();
        let pid = container.pid();
        let gate = container.root().join(&container.id).join("exec.fifo");
        fs::remove_file(&gate).unwrap();
        fs::create_dir(&gate).unwrap();
        container.command(&["delete", "--force"], &[]).ok();
        assert!(pidfd(pid).is_none_or(|fd| crate::support::readable(&fd, std::time::Duration::ZERO)), "lives on");
        cgroups.iter().for_each(|cgroup| fs::remove_dir(cgroup).unwrap());
        container.nothing_left();
    });
}

/// `/run` is wiped while the container runs.
#[test]
fn a_container_without_its_directory_is_listed_and_can_be_deleted() {
    case(|| {
        let (container, _io) = Container::running();
        let pid = container.pid();
        fs::remove_dir_all(container.root()).unwrap();
        container.command(&["state"], &[]).fails();
        let list = container.call(["list", "--format", "json"]).run().ok();
        let listed: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
        assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!(container.id), &json!("running")), "{list:?}");
        assert!(list.stderr.contains("has lost its directory"), "{list:?}");
        can_be_deleted(&container, pid, "no directory");
        assert_eq!(container.call(["list", "--format", "json"]).run().ok().stdout, "null\n");
    });
}

/// A runtime elsewhere has containers in the same hierarchy, and they are none of ours.
#[test]
fn a_lost_container_is_that_of_its_root_directory_only() {
    case(|| {
        let (container, _io) = Container::running();
        let pid = container.pid();
        fs::remove_dir_all(container.root()).unwrap();
        let other = container.bundle.directory.join("other").display().to_string();
        let call = |args: &[&str]| Call::new(runtime()).args(["--root", &other]).args(args).run();
        assert_eq!(call(&["list", "--quiet"]).ok().stdout, "");
        call(&["delete", "--force", &container.id]).ok();
        assert!(pidfd(pid).is_some(), "killed by another root directory");
        can_be_deleted(&container, pid, "no directory");
    });
}

/// A cgroup that was there before has the mark of a container that is gone; whoever is in it now is not that one's.
#[test]
fn the_mark_of_a_lost_container_is_not_the_next_ones() {
    case(|| {
        if !ours() || systemd() {
            skip!("only this project's runtime, by cgroupfs");
        }
        let (lost, _io) = Container::running();
        lost.stop();
        fs::remove_dir_all(lost.root()).unwrap();
        let next = format!("{}-next", lost.id);
        let (bundle, file) = (lost.bundle.directory.display().to_string(), lost.bundle.directory.join("pid"));
        lost.call(["create", "--bundle", &bundle, "--pid-file", file.to_str().unwrap(), &next]).run().ok();
        let pid: u32 = text(&file).parse().unwrap();
        assert_eq!(lost.call(["list", "--quiet"]).run().ok().stdout, format!("{next}\n"));
        let collected = lost.call(["gc", "--delete"]).run().ok();
        assert!(collected.stdout.is_empty() && pidfd(pid).is_some(), "killed as if it were the other: {collected:?}");
        lost.call(["delete", "--force", &next]).run().ok();
        for hierarchy in hierarchies() {
            let path = lost.bundle.config["linux"]["cgroupsPath"].as_str().unwrap();
            let _ = fs::remove_dir(hierarchy.mount.join(&path[1..]));
        }
        lost.nothing_left();
    });
}

#[test]
fn a_state_directory_without_room() {
    case(|| {
        let container = Bundle::sh(WAITING).container();
        fs::create_dir(container.root()).unwrap();
        let (mut failed, mut made) = (0, 0);
        for options in [
            "size=4k",
            "size=8k",
            "size=12k",
            "size=64k,nr_inodes=1",
            "size=64k,nr_inodes=2",
            "size=64k,nr_inodes=3",
            "size=64k,nr_inodes=4",
            "size=64k,nr_inodes=5",
            "size=64k,nr_inodes=6",
            "ro",
        ] {
            let script = "mount -t tmpfs -o $1 tmpfs $2 && shift 2; \"$@\"; code=$?; \
                rm=${RUNTIME_UNDER_TEST}; $rm --root $ROOT delete --force $ID || exit 99; ls -A $ROOT; exit $code";
            let root = container.root().display().to_string();
            let call = container.call_bundle("create", &[]);
            let wrap = ["unshare", "-m", "sh", "-c", script, "sh", options, &root].map(str::to_owned);
            let wrap = [busybox().display().to_string()].into_iter().chain(wrap);
            let call = call.wrapped(wrap).env("ROOT", &root).env("ID", &container.id);
            let output = call.env("RUNTIME_UNDER_TEST", runtime()).run();
            match output.code() {
                0 => made += 1,
                99 => panic!("{options}: delete --force: {output:?}"),
                _ => {
                    failed += 1;
                    clear(&output);
                }
            }
            assert_eq!(output.stdout, "", "{options}: left in the directory");
            container.nothing_left();
        }
        assert!(failed > 2 && made > 0, "{failed} failed, {made} made");
    });
}

#[test]
fn gc_finds_what_is_left_over_and_nothing_else() {
    case(|| {
        if !ours() {
            skip!("a command of this runtime");
        }
        let (container, _io) = Container::running();
        let root = container.root();
        let gc = |args: &[&str]| container.call([&["gc"], args].concat()).run();
        assert_eq!(gc(&[]).ok().stdout, "");
        // A create that died at once, and a container of another boot.
        fs::create_dir(root.join("unfinished")).unwrap();
        fs::create_dir(root.join("stale")).unwrap();
        let record = text(root.join(&container.id).join("record.json"));
        let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["boot_id"] = json!("another");
        record["id"] = json!("stale");
        record["cgroup"]["dirs"] = json!({});
        fs::write(root.join("stale/record.json"), record.to_string()).unwrap();
        // A container whose directory is gone.
        let lost = format!("{}2", container.id);
        let mut config = container.bundle.config.clone();
        let path = config["linux"]["cgroupsPath"].as_str().unwrap().replace(&container.id, &lost);
        config["linux"]["cgroupsPath"] = json!(path);
        fs::write(container.bundle.directory.join("config.json"), config.to_string()).unwrap();
        let bundle = container.bundle.directory.to_str().unwrap();
        let (call, _lost_io) = with_io(container.call(["create", "--bundle", bundle, &lost]));
        call.run().ok();
        let state: serde_json::Value =
            serde_json::from_str(&container.call(["state", &lost]).run().ok().stdout).unwrap();
        let pid = state["pid"].as_u64().unwrap() as u32;
        fs::remove_dir_all(root.join(&lost)).unwrap();

        let said = gc(&[]).ok().stdout;
        for word in ["left over: unfinished: ", "left over: stale: ", &format!("left over: {}: a cgroup with 1 ", lost)]
        {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(pidfd(pid).is_some() && root.join("stale").exists(), "a dry run acts");
        let said = gc(&["--delete"]).ok().stdout;
        assert_eq!(said.matches("removed: ").count(), 3, "{said}");
        crate::support::wait_for_end(pid);
        assert_eq!(gc(&[]).ok().stdout, "");
        assert!(!root.join("stale").exists() && !root.join("unfinished").exists());
        assert_eq!(crate::support::cgroups_of(&lost), Vec::<std::path::PathBuf>::new());
        assert_eq!(container.status(), "running");
    });
}

/// A pid that has come round again is another process.
#[test]
fn a_reused_pid_gets_no_signal() {
    case(|| {
        if systemd() {
            skip!("cgroupfs only");
        }
        let container = Bundle::sh("exec sleep 1000").container();
        container.bundle.write();
        // When pids wrap, the kernel begins again at 300 (RESERVED_PIDS). Before Linux 6.14 the limit is that of the host.
        let script = "mount -t proc proc /proc || exit 80; max=$(cat /proc/sys/kernel/pid_max); \
            echo 400 > /proc/sys/kernel/pid_max 2>/dev/null; trap 'echo $max > /proc/sys/kernel/pid_max 2>/dev/null' EXIT; \
            i=0; while [ $i -lt 320 ]; do (:); i=$((i+1)); done; \
            $RT --root $ROOT create --bundle $BUNDLE $ID </dev/null >/dev/null || exit 81; $RT --root $ROOT start $ID || exit 82; \
            pid=$($RT --root $ROOT state $ID | grep '\"pid\"' | tr -dc 0-9); \
            kill -9 $pid; while $RT --root $ROOT state $ID | grep -q running; do :; done; \
            n=0; while :; do sleep 1000 & [ $! = $pid ] && break; kill -9 $!; wait $! 2>/dev/null; \
                n=$((n+1)); [ $n -gt 40000 ] && exit 83; done; \
            $RT --root $ROOT kill $ID KILL && exit 84; $RT --root $ROOT kill --all $ID KILL; \
            $RT --root $ROOT delete --force $ID || exit 85; \
            kill -0 $pid || exit 86; grep -q sleep /proc/$pid/cmdline || exit 87; kill -9 $pid; echo spared";
        let call = Call::new(busybox()).args(["unshare", "-p", "-f", "-m", "sh", "-c", script]);
        let call = call.env("RT", runtime()).env("ROOT", container.root()).env("ID", &container.id);
        let output = call.env("BUNDLE", &container.bundle.directory).run();
        assert_eq!((output.code(), output.stdout.trim()), (0, "spared"), "{output:?}");
    });
}

/// The container runs, or it is said which limit was too small for it.
#[test]
fn tiny_limits_are_enough_or_are_blamed() {
    case(|| {
        if systemd() {
            skip!("cgroupfs only");
        }
        let check = |what: String, pointer: &str, value: serde_json::Value, words: &[&str]| {
            let mut bundle = Bundle::new();
            bundle.args(&["true"]).set(pointer, value);
            let container = bundle.container();
            let output = container.run();
            let blamed = words.iter().any(|word| output.stderr.contains(word));
            // 137: its program was killed, by the kernel that had no memory for it.
            assert!(output.code() == 0 || blamed || output.code() == 137, "{what}: {output:?}");
            container.nothing_left();
        };
        for limit in [4096, 65536, 131_072, 262_144, 393_216, 524_288, 786_432, 1 << 20, 2 << 20] {
            let words = ["OOM-killed", "linux.resources.memory.limit"];
            check(format!("{limit} bytes"), "/linux/resources/memory", json!({"limit": limit}), &words);
        }
        check("one process".to_owned(), "/linux/resources/pids", json!({"limit": 1}), &["linux.resources.pids"]);
        let limits = json!([{"type": "RLIMIT_NOFILE", "hard": 4, "soft": 4}]);
        check("four descriptors".to_owned(), "/process/rlimits", limits, &["process.rlimits"]);
        let cpu = json!({"quota": 1000, "period": 100_000});
        check("1 % of a processor".to_owned(), "/linux/resources/cpu", cpu, &["linux.resources.cpu"]);
    });
}
