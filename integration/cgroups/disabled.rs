//! `--cgroup-manager disabled`: a container without a cgroup of its own.

use serde_json::{Value, json};

use crate::support::{
    Bundle, Call, Container, Io, Output, WAITING, case, cgroup_v2, cgroups_of, ours, systemd, text, wait_for_end,
    with_io,
};

const DISABLED: [&str; 2] = ["--cgroup-manager", "disabled"];

/// `create` or `run` without a cgroup.
fn call(container: &Container, command: &str) -> Call {
    container.bundle.write();
    let bundle = container.bundle.directory.display().to_string();
    container.call([&DISABLED[..], &[command, "--bundle", &bundle, &container.id]].concat())
}

fn running(bundle: Bundle) -> (Container, Io) {
    let container = bundle.container();
    let (create, mut io) = with_io(call(&container, "create"));
    create.run().ok();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

fn with(resources: Value) -> Output {
    let mut bundle = Bundle::sh("echo ran");
    bundle.set("/linux/resources", resources);
    call(&bundle.container(), "run").run()
}

#[test]
fn it_stays_in_the_cgroup_of_its_creator() {
    case(|| {
        let (container, _io) = running(Bundle::sh(WAITING));
        let own = text("/proc/self/cgroup");
        assert_eq!(text(format!("/proc/{}/cgroup", container.pid())), own);
        assert!(cgroups_of(&container.id).is_empty());
        assert_eq!(container.status(), "running");
        // What runs further in it does, too.
        let output = container.call(["exec", &container.id, "cat", "/proc/self/cgroup"]).run().ok();
        assert_eq!(output.stdout, own);
        let pid = container.pid();
        container.command(&["kill"], &["KILL"]).ok();
        wait_for_end(pid);
        assert_eq!(container.status(), "stopped");
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn its_processes_die_with_it() {
    case(|| {
        let waits = "sleep 1000 & echo ready; read line; wait";
        let (container, _io) = running(Bundle::sh(waits));
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
        let (container, mut io) = running(Bundle::sh(waits));
        let pid = container.pid();
        container.command(&["kill", "--all"], &["KILL"]).ok();
        // The end of file: nobody has it open.
        assert_eq!(io.stdout.rest(), "");
        wait_for_end(pid);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
        // Its pid namespace tells who they are; without one there is no way to others than init.
        let (container, _io) = running(Bundle::sh(waits));
        let output = container.command(&["ps", "--format", "json"], &[]);
        assert!(!ours() || output.ok().stdout.split(',').count() == 2);
        // So there are none here: nobody could end them.
        let mut bundle = Bundle::sh(WAITING);
        bundle.no_namespace("pid");
        let (container, _io) = running(bundle);
        let output = container.command(&["kill", "--all"], &["TERM"]);
        assert!(!ours() || output.fails().stderr.starts_with("the container has no cgroup: "));
    });
}

#[test]
fn a_limit_is_refused_by_name() {
    case(|| {
        let unified = (json!({"unified": {"pids.max": "9"}}), "linux.resources.unified[\"pids.max\"]: \"9\"");
        let mut table = vec![
            (json!({"memory": {"limit": 67_108_864}}), "linux.resources.memory.limit: \"67108864\""),
            (json!({"pids": {"limit": 9}}), "linux.resources.pids.limit: \"9\""),
            (json!({"cpu": {"cpus": "0"}}), "linux.resources.cpu.cpus: \"0\""),
        ];
        table.extend(cgroup_v2().then_some(unified));
        for (resources, field) in table {
            let output = with(resources).fails();
            assert!(output.stderr.starts_with(field), "{field}: {}", output.stderr);
            assert!(output.stderr.contains("--cgroup-manager is disabled"), "{}", output.stderr);
        }
    });
}

#[test]
fn what_sets_no_limit_is_accepted() {
    case(|| {
        let deny = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3}]);
        for resources in [
            json!({}),
            json!({"devices": deny}),
            json!({"pids": {"limit": -1}, "memory": {"limit": 0}, "cpu": {"shares": 0, "cpus": ""}}),
        ] {
            assert_eq!(with(resources).ok().stdout, "ran\n");
        }
        // Nor does the place where it would be.
        let mut bundle = Bundle::sh("echo ran");
        bundle.set("/linux/cgroupsPath", json!("/../.."));
        let output = call(&bundle.container(), "run").run();
        assert!(!ours() || output.ok().stdout == "ran\n");
    });
}

#[test]
fn what_needs_a_cgroup_says_so() {
    case(|| {
        let (container, _io) = running(Bundle::sh(WAITING));
        for words in [&["pause"][..], &["events", "--stats"], &["events"]] {
            let output = container.command(words, &[]).fails();
            let text = "the container has no cgroup: its --cgroup-manager is disabled\n";
            assert!(!ours() || output.stderr == text, "{words:?}: {}", output.stderr);
        }
        for (option, value, field) in [
            ("--pids-limit", "9", "linux.resources.pids.limit: \"9\" needs a cgroup"),
            ("--device-add", "c:10:250", "the container has no cgroup"),
        ] {
            let output = container.command(&["update"], &[option, value]).fails();
            assert!(!ours() || output.stderr.starts_with(field), "{option}: {}", output.stderr);
        }
        let output = container.call(["exec", "--cgroup", "/x", &container.id, "true"]).run();
        assert!(!ours() || output.fails().stderr.contains("has no cgroup"));
        container.command(&["resume"], &[]).fails();
        assert_eq!(container.status(), "running");
        // Of all containers it is none.
        let output = container.call(["events", "--all", "--stats"]).run();
        assert!(!ours() || output.ok().stdout.is_empty());
    });
}

#[test]
fn a_cgroup_mount_shows_the_cgroup_of_its_creator() {
    case(|| {
        let dir = if cgroup_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
        for own_namespace in [false, true] {
            let mut bundle = Bundle::sh(&format!("cat {dir}/cgroup.procs >/dev/null && ls {dir}; exit 0"));
            if own_namespace {
                bundle.namespace("cgroup", None);
            }
            let place = text("/proc/self/cgroup");
            let place = place.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                (controllers == if cgroup_v2() { "" } else { "pids" }).then(|| path.to_owned())
            });
            let host = std::path::Path::new(dir).join(place.unwrap().trim_start_matches('/'));
            let output = call(&bundle.container(), "run").run().ok();
            let mut found: Vec<&str> = output.stdout.lines().collect();
            let entries = std::fs::read_dir(&host).unwrap().flatten();
            let mut expected: Vec<String> = entries
                .filter(|entry| entry.path().is_file())
                .filter_map(|e| e.file_name().into_string().ok())
                .collect();
            // Cgroups come and go, files stay.
            found.retain(|name| host.join(name).is_file());
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{own_namespace}");
        }
    });
}

#[test]
fn a_host_without_cgroups_is_no_hindrance() {
    case(|| {
        let mut bundle = Bundle::sh("echo ran");
        bundle.unmount("/sys/fs/cgroup");
        let container = bundle.container();
        let hide = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"", "sh"];
        let output = call(&container, "run").below(hide).run().ok();
        assert_eq!(output.stdout, "ran\n");
        // systemd makes the cgroup where its own mounts are.
        if systemd() {
            return;
        }
        let output = container.call_bundle("run", &[]).below(hide).run().fails();
        assert!(!ours() || output.stderr.contains("or --cgroup-manager disabled"), "{}", output.stderr);
    });
}

#[test]
fn managers_have_names() {
    case(|| {
        let container = Bundle::sh("echo ran").container();
        container.bundle.write();
        let run = |options: &[&str]| container.call([options, &["run", &container.id]].concat()).run();
        assert_eq!(run(&["--cgroup-manager=cgroupfs"]).ok().stdout, "ran\n");
        assert_eq!(run(&["--cgroup-manager", "disabled"]).ok().stdout, "ran\n");
        for options in [
            &["--cgroup-manager", "banana"][..],
            &["--systemd-cgroup", "--cgroup-manager", "disabled"],
            &["--systemd-cgroup", "--cgroup-manager", "cgroupfs"],
        ] {
            assert!(run(options).fails().stderr.contains("--cgroup-manager"), "{options:?}");
        }
    });
}
