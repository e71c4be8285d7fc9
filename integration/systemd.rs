//! Cgroups that systemd makes: scopes, their properties, and what happens when somebody else acts on them.
//!
//! Where systemd is not process 1 these tests are ignored; `make guest-systemd` and, with cgroup v1, `make guest-legacy` run them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Bundle, Call, Container, Io, Output, WAITING, busybox, case, cgroup_v2, eventually, ours, peer, runtime, skip,
    text, wait_for_end,
};

fn systemctl<const N: usize>(args: [&str; N]) -> Output {
    Call::new("/usr/bin/systemctl").args(args).run()
}

/// The scope of a container of the suite.
fn scope(container: &Container) -> String {
    format!("test-{}.scope", container.id)
}

/// Properties of a unit, as `systemctl show` prints them; several lines of one property become one, with spaces.
fn show(unit: &str, names: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::<String, String>::new();
    for line in systemctl(["show", "--property", names, unit]).ok().stdout.lines() {
        let (name, value) = line.split_once('=').unwrap();
        found.entry(name.to_owned()).and_modify(|all| *all += &format!(" {value}")).or_insert_with(|| value.to_owned());
    }
    found
}

/// Insists on properties, given as `Name=value`.
#[track_caller]
fn has(unit: &str, expected: &[&str]) {
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
        .collect();
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(show(unit, &names.join(",")), expected, "{unit}");
}

/// Insists that after `delete` systemd knows no unit of the container, and nothing else is left.
#[track_caller]
fn all_gone(container: &Container) {
    container.nothing_left();
    // A unit goes when systemd has seen its end; of one that failed it would keep the name.
    eventually("the unit is gone", || show(&scope(container), "LoadState")["LoadState"] == "not-found");
}

#[track_caller]
fn delete(container: &Container) {
    container.command(&["delete"], &[]).ok();
    all_gone(container);
}

#[track_caller]
fn delete_by_force(container: &Container) {
    container.command(&["delete", "--force"], &[]).ok();
    all_gone(container);
}

/// The hierarchy in which systemd keeps its units.
fn own_hierarchy() -> &'static str {
    if cgroup_v2() { "" } else { "name=systemd" }
}

/// The path of a process' cgroup there.
fn place(pid: u32) -> String {
    let text = text(format!("/proc/{pid}/cgroup"));
    let mark = format!(":{}:", own_hierarchy());
    text.lines().find_map(|line| line.split_once(&mark)).unwrap().1.to_owned()
}

// ---------------------------------------------------------------------------------------------- properties

const MIB: u64 = 1 << 20;

/// A running container with one limit of each kind.
fn limited() -> (Container, Io) {
    let mut bundle = Bundle::sh(WAITING);
    bundle
        .set("/linux/resources/memory", json!({"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB}))
        .set(
            "/linux/resources/cpu",
            json!({"shares": 2048, "quota": 50_500, "period": 100_000, "cpus": "0", "mems": "0"}),
        )
        .set("/linux/resources/pids", json!({"limit": 77}));
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

/// CPUWeight is what the container's file says: which weight it is has its own tests.
fn weight(container: &Container) -> String {
    let (name, file) = if cgroup_v2() { ("CPUWeight", "cpu.weight") } else { ("CPUShares", "cpu.shares") };
    format!("{name}={}", text(container.cgroup("cpu").unwrap().join(file)).trim())
}

/// Memory limits as properties, and the files of the kernel, in bytes. systemd knows one of v1.
fn memory(container: &Container, limit: u64, low: u64, swap: u64) -> Vec<String> {
    let file = |name: &str| text(container.cgroup("memory").unwrap().join(name)).trim().to_owned();
    if !cgroup_v2() {
        assert_eq!(file("memory.limit_in_bytes"), limit.to_string());
        assert_eq!(file("memory.memsw.limit_in_bytes"), (limit + swap).to_string());
        assert_eq!(file("memory.soft_limit_in_bytes"), low.to_string());
        return vec![format!("MemoryLimit={limit}")];
    }
    assert_eq!(["memory.max", "memory.swap.max", "memory.low"].map(file), [limit, swap, low].map(|n| n.to_string()));
    vec![format!("MemoryMax={limit}"), format!("MemoryLow={low}"), format!("MemorySwapMax={swap}")]
}

#[test]
#[ignore = "wants systemd"]
fn properties_of_the_scope() {
    case(|| {
        let (container, _io) = limited();
        let unit = scope(&container);
        has(
            &unit,
            &[
                "Slice=system.slice",
                "Delegate=yes",
                "DefaultDependencies=no",
                "MemoryAccounting=yes",
                "CPUAccounting=yes",
                if cgroup_v2() { "IOAccounting=yes" } else { "BlockIOAccounting=yes" },
                "TasksAccounting=yes",
            ],
        );
        let description = &show(&unit, "Description")["Description"];
        assert!(description.contains(&container.id), "{description}");
        assert_eq!(place(container.pid()), format!("/system.slice/{unit}"));
    });
}

#[test]
#[ignore = "wants systemd"]
fn limits_are_properties_and_update_changes_them() {
    case(|| {
        let (container, _io) = limited();
        let unit = scope(&container);
        // systemd has no processors of v1.
        let fixed = ["CPUQuotaPeriodUSec=100ms", "AllowedCPUs=0", "AllowedMemoryNodes=0"];
        let fixed = if cgroup_v2() { &fixed[..] } else { &fixed[..1] };
        let has = |others: &[&str], memory: &[String]| {
            has(&unit, &[fixed, others, &memory.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        };
        let before = weight(&container);
        // 50.5 ms of 100 ms: systemd rounds to 10 ms in a second, and the runtime up.
        let limits = memory(&container, 64 * MIB, 32 * MIB, 32 * MIB);
        has(&["TasksMax=77", "CPUQuotaPerSecUSec=510ms", &before], &limits);
        let flags = "--memory 128M --memory-reservation 48M --memory-swap 192M --pids-limit 55 --cpu-share 512 --cpu-quota 20000 --cpu-period 100000";
        container.command(&[&["update"][..], &flags.split(' ').collect::<Vec<_>>()].concat(), &[]).ok();
        assert_ne!(weight(&container), before);
        let updated = || {
            let limits = memory(&container, 128 * MIB, 48 * MIB, 64 * MIB);
            has(&["TasksMax=55", "CPUQuotaPerSecUSec=200ms", &weight(&container)], &limits);
            let file = |name: &str| {
                let directory = container.cgroup(name.split('.').next().unwrap()).unwrap();
                text(directory.join(name)).trim().to_owned()
            };
            assert_eq!(file("pids.max"), "55");
            match cgroup_v2() {
                true => assert_eq!(file("cpu.max"), "20000 100000"),
                false => assert_eq!(["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(file), ["20000", "100000"]),
            }
        };
        updated();
        // systemd writes what it knows: so a reload shows whether the two agree.
        systemctl(["daemon-reload"]).ok();
        updated();
    });
}

#[test]
#[ignore = "wants systemd"]
fn limits_of_unified_are_properties() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let mut bundle = Bundle::sh(WAITING);
        let unified = json!({
            "memory.high": "50331648", "memory.max": "67108864", "memory.swap.max": "0", "pids.max": "33",
            "cpu.max": "30000 100000", "cpu.weight": "222", "cpuset.cpus": "0", "cpuset.mems": "0"
        });
        bundle.set("/linux/resources/unified", unified);
        let container = bundle.container();
        let _io = container.create_io();
        let expected = [
            "MemoryHigh=50331648",
            "MemoryMax=67108864",
            "MemorySwapMax=0",
            "TasksMax=33",
            "CPUQuotaPerSecUSec=300ms",
            "CPUWeight=222",
            "AllowedCPUs=0",
            "AllowedMemoryNodes=0",
        ];
        has(&scope(&container), &expected);
    });
}

/// What systemd takes only when a unit begins is no hindrance later; and it is not told less than the kernel is.
#[test]
#[ignore = "wants systemd"]
fn updates_that_systemd_knows_in_part() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/linux/resources/unified", json!({"memory.oom.group": "1", "memory.max": "64M"}));
        let container = bundle.container();
        let _io = container.create_io();
        has(&scope(&container), &["OOMPolicy=kill", "MemoryMax=67108864"]);
        let group = container.cgroup("").unwrap();
        let file = container.bundle.directory.join("resources");
        fs::write(&file, json!({"unified": {"memory.oom.group": "0", "memory.max": "128M"}}).to_string()).unwrap();
        container.command(&["update", "--resources", file.to_str().unwrap()], &[]).ok();
        systemctl(["daemon-reload"]).ok();
        assert_eq!(text(group.join("memory.max")), "134217728\n");
        assert_eq!(text(group.join("memory.oom.group")), "0\n");
    });
}

#[test]
#[ignore = "wants systemd"]
fn annotations_are_properties() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        bundle
            .set("/annotations/org.systemd.property.TimeoutStopUSec", json!("uint64 123000000"))
            .set("/annotations/org.systemd.property.CollectMode", json!("'inactive-or-failed'"))
            .set("/annotations/org.systemd.property.SendSIGHUP", json!("true"));
        let container = bundle.container();
        let _io = container.create_io();
        has(&scope(&container), &["TimeoutStopUSec=2min 3s", "CollectMode=inactive-or-failed", "SendSIGHUP=yes"]);
    });
}

#[test]
#[ignore = "wants systemd"]
fn annotation_that_is_no_property() {
    case(|| {
        for (name, value) in [("TimeoutStopUSec", "uint64 many"), ("NoSuchProperty", "true"), ("x", "true")] {
            let mut bundle = Bundle::new();
            bundle.set(&format!("/annotations/org.systemd.property.{name}"), json!(value));
            let container = bundle.container();
            let output = container.create().fails();
            assert!(output.stderr.contains(name), "{}", output.stderr);
            let field = format!("annotations[\"org.systemd.property.{name}\"]: ");
            assert!(!ours() || output.stderr.starts_with(&field), "{}", output.stderr);
            all_gone(&container);
        }
    });
}

// ---------------------------------------------------------------------------------------------- devices

/// Minor numbers of virtual terminals. Whether it may be opened is all that is asked: not whether it works.
const DEVICES: [(&str, u64); 3] = [("allowed", 10), ("denied", 11), ("added", 12)];

/// A container that tries to open each device of which it reads the name.
fn with_devices() -> (Container, Io) {
    let script = "echo ready; while read name; do if (: < /dev/$name) 2>&1 | grep -q 'not permitted'; \
                  then echo refused; else echo open; fi; done";
    let mut bundle = Bundle::sh(script);
    let node = |(name, minor)| json!({"path": format!("/dev/{name}"), "type": "c", "major": 4, "minor": minor});
    bundle.set("/linux/devices", DEVICES.map(node).into());
    let rule = json!({"allow": true, "type": "c", "major": 4, "minor": 10, "access": "rw"});
    bundle.set("/linux/resources/devices/-", rule);
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

fn opens(io: &mut Io, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| {
            io.write(&format!("{name}\n"));
            io.stdout.next()
        })
        .collect()
}

#[test]
#[ignore = "wants systemd"]
fn devices_are_properties() {
    case(|| {
        let (container, _io) = with_devices();
        let found = show(&scope(&container), "DevicePolicy,DeviceAllow");
        assert_eq!(found["DevicePolicy"], "strict");
        let allowed = &found["DeviceAllow"];
        assert!(["char-pts rwm", "char-136 rwm"].iter().any(|rule| allowed.contains(rule)), "{allowed}");
        for rule in ["/dev/char/1:3 rwm", "/dev/char/4:10 rw"] {
            assert!(allowed.contains(rule), "no {rule}: {allowed}");
        }
        assert!(!allowed.contains("4:11"), "{allowed}");
    });
}

#[test]
#[ignore = "wants systemd"]
fn daemon_reload_leaves_devices_as_they_are() {
    case(|| {
        let (container, mut io) = with_devices();
        let names = ["allowed", "denied", "null", "ptmx"];
        let expected = ["open", "refused", "open", "open"];
        assert_eq!(opens(&mut io, &names), expected);
        systemctl(["daemon-reload"]).ok();
        assert_eq!(opens(&mut io, &names), expected, "after a reload");
        // An update applies the unit's properties anew.
        container.command(&["update", "--pids-limit", "50"], &[]).ok();
        assert_eq!(opens(&mut io, &names), expected, "after an update");
        systemctl(["set-property", "--runtime", &scope(&container), "TasksMax=40"]).ok();
        systemctl(["daemon-reexec"]).ok();
        assert_eq!(opens(&mut io, &names), expected, "after set-property and daemon-reexec");
    });
}

/// Drivers that are not of the kernel's own making have devices that are nowhere in /sys.
#[test]
#[ignore = "wants systemd"]
fn daemon_reload_leaves_a_device_that_sysfs_has_not() {
    case(|| {
        assert!(!Path::new("/sys/dev/char/250:7").exists());
        let mut bundle = Bundle::sh("echo ready; while read line; do cat /dev/x 2>&1; done");
        bundle.set("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": 250, "minor": 7}]));
        let rule = json!({"allow": true, "type": "c", "major": 250, "minor": 7, "access": "rw"});
        bundle.set("/linux/resources/devices/-", rule);
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        for _ in 0..2 {
            io.write("\n");
            assert_eq!(io.stdout.next(), "cat: can't open '/dev/x': No such device or address");
            systemctl(["daemon-reload"]).ok();
        }
    });
}

#[test]
#[ignore = "wants systemd"]
fn daemon_reload_leaves_devices_of_update_as_they_are() {
    case(|| {
        if !ours() {
            skip!("an option of this project's runtime");
        }
        let (container, mut io) = with_devices();
        let names = ["allowed", "denied", "added"];
        container.command(&["update", "--device-add", "c:4:12:rw"], &[]).ok();
        assert_eq!(opens(&mut io, &names), ["open", "refused", "open"]);
        systemctl(["daemon-reload"]).ok();
        assert_eq!(opens(&mut io, &names), ["open", "refused", "open"], "after a reload");
        container.command(&["update", "--device-rm", "c:4:10:rw"], &[]).ok();
        assert_eq!(opens(&mut io, &names), ["refused", "refused", "open"]);
        systemctl(["daemon-reload"]).ok();
        assert_eq!(opens(&mut io, &names), ["refused", "refused", "open"], "after a reload");
    });
}

// ---------------------------------------------------------------------------------------------- life

#[test]
#[ignore = "wants systemd"]
fn stop_of_the_scope_ends_the_container() {
    case(|| {
        let container = Bundle::sh("trap 'exit 7' TERM; echo ready; read line").container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let pid = container.pid();
        systemctl(["stop", &scope(&container)]).ok();
        wait_for_end(pid);
        assert_eq!(container.status(), "stopped");
        delete(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn exec_is_in_the_scope() {
    case(|| {
        let (container, _io) = Container::running();
        let printed = container.command(&["exec"], &["cat", "/proc/self/cgroup"]).ok().stdout;
        assert!(printed.ends_with(&format!("/{}\n", scope(&container))), "{printed}");
        container.stop();
        delete(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn pause_and_resume() {
    case(|| {
        let (container, mut io) = Container::running();
        container.command(&["pause"], &[]).ok();
        assert_eq!(container.status(), "paused");
        container.command(&["resume"], &[]).ok();
        assert_eq!(container.status(), "running");
        let pid = container.pid();
        io.close();
        wait_for_end(pid);
        delete(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn kill_of_a_created_container() {
    case(|| {
        let (container, _io) = Container::created(WAITING);
        container.stop();
        assert_eq!(container.status(), "stopped");
        delete(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn a_container_that_ended_by_itself() {
    case(|| {
        let (container, mut io) = Container::running();
        let pid = container.pid();
        io.close();
        wait_for_end(pid);
        assert_eq!(container.status(), "stopped");
        delete(&container);
        assert_eq!(container.run().ok().stdout, "ready\n");
        all_gone(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn an_oom_kill_leaves_no_failed_unit() {
    case(|| {
        let mut bundle = Bundle::sh("tail /dev/zero");
        bundle.set("/linux/resources/memory", json!({"limit": 16 * MIB, "swap": 16 * MIB}));
        let container = bundle.container();
        let _io = container.create_io();
        container.start().ok();
        let pid = container.pid();
        wait_for_end(pid);
        assert_eq!(container.status(), "stopped");
        delete(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn cgroups_below_the_scope_are_removed() {
    case(|| {
        let (container, _io) = Container::running();
        std::fs::create_dir_all(container.cgroup(own_hierarchy()).unwrap().join("inner/most")).unwrap();
        container.stop();
        delete(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn a_create_that_fails_leaves_no_unit() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.args(&["/no/such/program"]);
        let container = bundle.container();
        container.create().fails();
        all_gone(&container);
    });
}

/// Fifty containers, eight at a time.
#[test]
#[ignore = "wants systemd"]
fn many_at_a_time() {
    case(|| {
        std::thread::scope(|threads| {
            for thread in 0..8 {
                threads.spawn(move || {
                    for _ in (thread..50).step_by(8) {
                        let (container, _io) = Container::running();
                        assert_eq!(place(container.pid()), format!("/system.slice/{}", scope(&container)));
                        delete_by_force(&container);
                    }
                });
            }
        });
    });
}

/// The runtime is killed as soon as something is there: its directory, the unit's cgroup, the record.
#[test]
#[ignore = "wants systemd"]
fn a_killed_create_leaves_nothing_after_delete_by_force() {
    case(|| {
        type Moment = fn(&Container) -> bool;
        let moments: [Moment; 3] = [
            |container| container.root().join(&container.id).exists(),
            |container| container.cgroup(own_hierarchy()).unwrap().exists(),
            |container| container.root().join(&container.id).join("state.json").exists(),
        ];
        for moment in moments {
            let container = Bundle::new().container();
            let call = container.call_bundle("create", &[]).spawn();
            while !call.has_ended() && !moment(&container) {
                std::thread::yield_now();
            }
            call.signal(Signal::KILL);
            call.wait();
            delete_by_force(&container);
        }
    });
}

// ---------------------------------------------------------------------------------------------- names

/// Where a container comes to be with a cgroupsPath that ends in its id.
#[track_caller]
fn place_with(prefix: &str) -> (Container, String) {
    let mut container = Bundle::sh(WAITING).container();
    container.bundle.set("/linux/cgroupsPath", json!(format!("{prefix}{}", container.id)));
    let _io = container.create_io();
    let place = place(container.pid());
    (container, place)
}

#[test]
#[ignore = "wants systemd"]
fn slices() {
    case(|| {
        for (slice, directory) in [
            ("", "/system.slice/"),
            ("system.slice", "/system.slice/"),
            ("-.slice", "/"),
            ("rtest.slice", "/rtest.slice/"),
            ("rtest-a-b.slice", "/rtest.slice/rtest-a.slice/rtest-a-b.slice/"),
        ] {
            let (container, place) = place_with(&format!("{slice}:test:"));
            let unit = scope(&container);
            assert_eq!(place, format!("{directory}{unit}"), "{slice:?}");
            delete_by_force(&container);
            assert!(!Path::new("/sys/fs/cgroup").join(&place[1..]).exists());
        }
        // Slices that were started with a scope stay.
        systemctl(["stop", "rtest.slice"]).ok();
    });
}

#[test]
#[ignore = "wants systemd"]
fn no_path_is_named_after_the_runtime_and_the_id() {
    case(|| {
        let mut container = Bundle::sh(WAITING).container();
        container.bundle.remove("/linux/cgroupsPath");
        let _io = container.create_io();
        let expected = format!("/system.slice/{}-{}.scope", peer(), container.id);
        assert_eq!(place(container.pid()), expected);
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
#[ignore = "wants systemd"]
fn path_in_a_wrong_form() {
    case(|| {
        for path in ["/a/b", "a", "a.slice:b", "a.slice:b:c:d"] {
            let mut bundle = Bundle::new();
            bundle.set("/linux/cgroupsPath", json!(path));
            let output = bundle.container().create().fails();
            let words = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{path}\" instead"
            );
            // A log escapes the quotation marks.
            assert!(output.stderr.replace('\\', "").contains(&words), "{}", output.stderr);
            assert!(!ours() || output.stderr.contains("linux.cgroupsPath"), "{}", output.stderr);
        }
    });
}

#[test]
#[ignore = "wants systemd"]
fn slice_in_a_wrong_form() {
    case(|| {
        for slice in ["noslice", "a/b.slice", "a--b.slice", "-a.slice", "a-.slice"] {
            let mut bundle = Bundle::new();
            bundle.set("/linux/cgroupsPath", json!(format!("{slice}:test:wrong")));
            let output = bundle.container().create().fails();
            assert!(output.stderr.contains(slice), "{}", output.stderr);
            assert!(!ours() || output.stderr.contains("linux.cgroupsPath"), "{}", output.stderr);
        }
    });
}

#[test]
#[ignore = "wants systemd"]
fn a_unit_that_is_there_already() {
    case(|| {
        let (first, _io) = Container::running();
        let mut bundle = Bundle::new();
        bundle.config["linux"]["cgroupsPath"] = first.bundle.config["linux"]["cgroupsPath"].clone();
        let output = bundle.container().create().fails();
        assert!(output.stderr.contains(&scope(&first)), "{}", output.stderr);
        assert_eq!(first.status(), "running");
        assert_eq!(place(first.pid()), format!("/system.slice/{}", scope(&first)));
        has(&scope(&first), &["ActiveState=active"]);
    });
}

#[test]
#[ignore = "wants systemd"]
fn a_failed_unit_of_that_name_is_reset() {
    case(|| {
        let container = Bundle::sh(WAITING).container();
        let unit = scope(&container);
        // What ends by SIGKILL after the time to stop has failed, and its name stays taken.
        let stubborn = ["--scope", "--unit", &unit, "-p", "TimeoutStopSec=10ms", "sh", "-c"];
        let (mut lines, stdout) = crate::support::pipe();
        let script = "trap '' TERM; echo ready; exec sleep 1000";
        let running = Call::new("/usr/bin/systemd-run").args(stubborn).args([script]).stdout(stdout).spawn();
        assert_eq!(lines.next(), "ready");
        systemctl(["stop", &unit]);
        running.wait();
        has(&unit, &["ActiveState=failed", "LoadState=loaded"]);
        let _io = container.create_io();
        has(&unit, &["ActiveState=active"]);
        assert_eq!(place(container.pid()), format!("/system.slice/{unit}"));
        delete_by_force(&container);
    });
}

#[test]
#[ignore = "wants systemd"]
fn events_and_ps_look_into_the_scope() {
    case(|| {
        let (container, _io) = Container::running();
        let stats: Value = serde_json::from_str(&container.command(&["events", "--stats"], &[]).ok().stdout).unwrap();
        let scope = container.cgroup("pids").unwrap();
        assert_eq!(stats["data"]["pids"]["current"].to_string(), text(scope.join("pids.current")).trim());
        let pids: Vec<u32> =
            serde_json::from_str(&container.command(&["ps", "--format", "json"], &[]).ok().stdout).unwrap();
        let listed: Vec<u32> = text(scope.join("cgroup.procs")).lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(pids, listed);
        assert!(pids.contains(&container.pid()));
    });
}

/// Of a user whose processes are in no cgroup of theirs, as after a login by ssh: only systemd may put them into the scope.
#[test]
#[ignore = "wants systemd"]
fn a_user_outside_of_any_delegated_cgroup() {
    case(|| {
        // systemd delegates nothing of v1 to users.
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        systemctl(["start", "user@1000.service"]).ok();
        life_of_a_users_scope(1000);
        systemctl(["stop", "user@1000.service"]).ok();
    });
}

/// The life of a container that `spec --rootless` has written, with limits, in a scope of the user's systemd.
fn life_of_a_users_scope(user: u32) {
    let directory = PathBuf::from(format!("/var/tmp/scope-{}", std::process::id()));
    fs::create_dir_all(directory.join("rootfs/bin")).unwrap();
    fs::copy(busybox(), directory.join("rootfs/bin/busybox")).unwrap();
    for name in ["sleep", "sh", "cat"] {
        symlink("busybox", directory.join("rootfs/bin").join(name)).unwrap();
    }
    for place in ["", "rootfs", "rootfs/bin"] {
        chown(directory.join(place), Some(user), Some(user)).unwrap();
    }
    let call = |args: &[&str]| {
        let call = Call::new(runtime()).args(["--systemd-cgroup"]).args(args).cwd(&directory);
        call.user(user).env("XDG_RUNTIME_DIR", format!("/run/user/{user}"))
    };
    call(&["spec", "--rootless"]).run().ok();
    let mut config: Value = serde_json::from_str(&text(directory.join("config.json"))).unwrap();
    config["process"]["args"] = json!(["sleep", "100000"]);
    config["process"]["terminal"] = json!(false);
    config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 33}});
    fs::write(directory.join("config.json"), config.to_string()).unwrap();

    call(&["run", "--detach", "scope"]).run().ok();
    let state: Value = serde_json::from_str(&call(&["state", "scope"]).run().ok().stdout).unwrap();
    let place = text(format!("/proc/{}/cgroup", state["pid"]));
    let place = place.trim().strip_prefix("0::/").unwrap();
    assert!(place.ends_with("/user@1000.service/user.slice/runtime-scope.scope"), "{place}");
    let cgroup = Path::new("/sys/fs/cgroup").join(place);
    let limits = || ["memory.max", "pids.max"].map(|file| text(cgroup.join(file)).trim().to_owned());
    assert_eq!(limits(), ["67108864", "33"]);
    call(&["update", "--pids-limit", "44", "scope"]).run().ok();
    assert_eq!(limits(), ["67108864", "44"]);
    // Another process of it is there from its beginning, and no other is there.
    call(&["exec", "--detach", "scope", "sleep", "100000"]).run().ok();
    assert_eq!(text(cgroup.join("cgroup.procs")).lines().count(), 2);
    assert_eq!(call(&["exec", "scope", "cat", "/proc/self/cgroup"]).run().ok().stdout, "0::/\n");
    call(&["pause", "scope"]).run().ok();
    assert_eq!(text(cgroup.join("cgroup.freeze")), "1\n");
    call(&["resume", "scope"]).run().ok();
    call(&["delete", "--force", "scope"]).run().ok();
    assert!(!cgroup.exists());
    eventually("nothing is left of the unit", || {
        let show =
            Call::new("/usr/bin/systemctl").args(["--user", "--property=LoadState", "show", "runtime-scope.scope"]);
        let show = show.user(user).env("XDG_RUNTIME_DIR", format!("/run/user/{user}"));
        show.run().ok().stdout == "LoadState=not-found\n"
    });
    fs::remove_dir_all(directory).unwrap();
}
