//! `update`: what the cgroup's files say after it, and that a failing one changes nothing.

use std::fs::{self, File};

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Io, WAITING, case, cgroup_v2, controller, ours, skip, text};

/// A controller's file: v1's, v2's.
struct Limit((&'static str, &'static str), (&'static str, &'static str));

const MEMORY: Limit = Limit(("memory", "memory.limit_in_bytes"), ("memory", "memory.max"));
const RESERVATION: Limit = Limit(("memory", "memory.soft_limit_in_bytes"), ("memory", "memory.low"));
const SWAP: Limit = Limit(("memory", "memory.memsw.limit_in_bytes"), ("memory", "memory.swap.max"));
const SHARES: Limit = Limit(("cpu", "cpu.shares"), ("cpu", "cpu.weight"));
const QUOTA: Limit = Limit(("cpu", "cpu.cfs_quota_us"), ("cpu", "cpu.max"));
const PERIOD: Limit = Limit(("cpu", "cpu.cfs_period_us"), ("cpu", "cpu.max"));
const BURST: Limit = Limit(("cpu", "cpu.cfs_burst_us"), ("cpu", "cpu.max.burst"));
const IDLE: Limit = Limit(("cpu", "cpu.idle"), ("cpu", "cpu.idle"));
const RT_PERIOD: Limit = Limit(("cpu", "cpu.rt_period_us"), ("", ""));
const CPUS: Limit = Limit(("cpuset", "cpuset.cpus"), ("cpuset", "cpuset.cpus"));
const MEMS: Limit = Limit(("cpuset", "cpuset.mems"), ("cpuset", "cpuset.mems"));
const PIDS: Limit = Limit(("pids", "pids.max"), ("pids", "pids.max"));
const WEIGHT: Limit = Limit(("blkio", "blkio.bfq.weight"), ("io", "io.bfq.weight"));
const ALL: &[Limit] = &[MEMORY, RESERVATION, SWAP, SHARES, QUOTA, PERIOD, CPUS, MEMS, PIDS];
/// v1's word for no limit of memory.
const UNLIMITED: &str = "9223372036854771712";

impl Limit {
    /// What the container's file says, where there is one.
    fn of(&self, container: &Container) -> Option<String> {
        let (name, file) = if cgroup_v2() { self.1 } else { self.0 };
        let path = container.cgroup(name).filter(|_| !file.is_empty())?.join(file);
        path.exists().then(|| text(path).trim().to_owned())
    }
}

fn everything(container: &Container) -> Vec<Option<String>> {
    ALL.iter().map(|limit| limit.of(container)).collect()
}

/// A running container with a limit of each kind; none where the host lacks the controllers.
fn limited(script: &str) -> Option<(Container, Io)> {
    for name in ["memory", "cpu", "cpuset", "pids"] {
        controller(name)?;
    }
    let mut bundle = Bundle::sh(script);
    bundle.set("/linux/resources/memory", json!({"limit": 33_554_432, "reservation": 25_165_824}));
    bundle.set("/linux/resources/cpu", json!({"shares": 512, "quota": 500_000, "period": 1_000_000}));
    bundle.set("/linux/resources/pids", json!({"limit": 20}));
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    Some((container, io))
}

/// Options, the limit that they are of, and what its file says on v1 and on v2 afterwards.
type Row = (&'static [&'static str], Limit, &'static str, &'static str);

/// Carries them out one after the other, on one container.
fn check(rows: &[Row]) {
    let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
    let mut checked = 0;
    for (index, (options, limit, v1, v2)) in rows.iter().enumerate() {
        let before = limit.of(&container);
        // Without the controller's file in the kernel (swap, burst, ...) there is nothing to look at.
        if before.is_none() {
            continue;
        }
        let (before_id, after_id) = if index % 2 == 0 { (*options, &[][..]) } else { (&[][..], *options) };
        container.command(&[&["update"], before_id].concat(), after_id).ok();
        assert_eq!(limit.of(&container).as_deref(), Some(if cgroup_v2() { *v2 } else { *v1 }), "{options:?}");
        checked += 1;
    }
    assert!(checked * 2 >= rows.len(), "{checked} of {} rows", rows.len());
    assert_eq!(container.status(), "running");
}

#[test]
fn memory_options() {
    case(|| {
        check(&[
            (&["--memory", "67108864"], MEMORY, "67108864", "67108864"),
            (&["--memory=50M"], MEMORY, "52428800", "52428800"),
            (&["--memory-reservation", "33554432"], RESERVATION, "33554432", "33554432"),
            (&["--memory", "30M", "--memory-swap", "50m"], MEMORY, "31457280", "31457280"),
            // To more than memory and swap had together, and back.
            (&["--memory", "60M", "--memory-swap", "80M"], MEMORY, "62914560", "62914560"),
            (&["--memory", "30M", "--memory-swap", "50M"], SWAP, "52428800", "20971520"),
            (&["--memory-swap", "0.125g", "--memory", "0.0625g"], SWAP, "134217728", "67108864"),
            (&["--memory", "-1"], MEMORY, UNLIMITED, "max"),
            (&["--memory=32M"], MEMORY, "33554432", "33554432"),
            (&["--memory-swap=-1"], SWAP, UNLIMITED, "max"),
        ]);
    });
}

#[test]
fn swap_alone_is_counted_from_the_limit_that_an_update_has_set() {
    case(|| {
        check(&[
            (&["--memory", "40M"], MEMORY, "41943040", "41943040"),
            (&["--memory-swap", "60M"], SWAP, "62914560", "20971520"),
            (&["--memory-swap", "41943040"], SWAP, "41943040", "0"),
        ]);
    });
}

#[test]
fn cpu_options() {
    case(|| {
        check(&[
            (&["--cpu-period", "900000"], PERIOD, "900000", "500000 900000"),
            (&["--cpu-quota", "600000"], QUOTA, "600000", "600000 900000"),
            (&["--cpu-quota", "-1"], QUOTA, "-1", "max 900000"),
            (&["--cpu-share", "1024"], SHARES, "1024", "100"),
            (&["--cpu-quota=5000", "--cpu-period=10000"], QUOTA, "5000", "5000 10000"),
            (&["--cpu-rt-period", "900000"], RT_PERIOD, "900000", ""),
        ]);
    });
}

#[test]
fn cpu_burst_and_idle_options() {
    case(|| {
        check(&[
            (&["--cpu-burst", "10000"], BURST, "10000", "10000"),
            (&["--cpu-burst", "0"], BURST, "0", "0"),
            (&["--cpu-idle", "1"], IDLE, "1", "1"),
            (&["--cpu-idle", "0"], IDLE, "0", "0"),
        ]);
    });
}

#[test]
fn other_options() {
    case(|| {
        check(&[
            (&["--cpuset-cpus", "0"], CPUS, "0", "0"),
            (&["--cpuset-mems", "0"], MEMS, "0", "0"),
            (&["--pids-limit", "10"], PIDS, "10", "10"),
            (&["--pids-limit", "0"], PIDS, "10", "10"),
            (&["--pids-limit", "-1"], PIDS, "max", "max"),
            (&["--blkio-weight", "200"], WEIGHT, "200", "default 200"),
        ]);
    });
}

/// `update -r -` with a JSON text.
fn from_stdin(container: &Container, resources: &Value) -> crate::support::Output {
    let path = container.bundle.directory.join("stdin.json");
    fs::write(&path, resources.to_string()).unwrap();
    container.call(["update", "--resources", "-", &container.id]).stdin(File::open(path).unwrap()).run()
}

#[test]
fn resources_come_from_stdin_or_a_file_and_0_is_no_change() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        // What Docker sends for limits that it does not set.
        let mut resources = json!({
            "blockIO": {"weight": 0}, "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
            "pids": {"limit": 0}, "devices": [], "hugepageLimits": [], "network": {},
        });
        from_stdin(&container, &resources).ok();
        assert_eq!(everything(&container), before);
        resources["pids"]["limit"] = json!(31);
        from_stdin(&container, &resources).ok();
        assert_eq!(PIDS.of(&container).as_deref(), Some("31"));
        resources["memory"]["limit"] = json!(41_943_040);
        let file = container.bundle.directory.join("resources.json");
        fs::write(&file, resources.to_string()).unwrap();
        let output = container.command(&["update", "--pids-limit", "9", "-r", file.to_str().unwrap()], &[]).ok();
        assert_eq!(MEMORY.of(&container).as_deref(), Some("41943040"));
        assert_eq!(PIDS.of(&container).as_deref(), Some("31"));
        assert!(!ours() || output.stderr.contains("all other limits, which are ignored"), "{}", output.stderr);
    });
}

#[test]
fn a_mistake_in_the_resources_names_its_field() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        for (resources, field) in [
            (json!({"pids": {"limit": 9}, "memory": {"limit": "1g"}}), "memory.limit"),
            (json!({"pids": {"limit": 9}, "cpu": {"quota": true}}), "cpu.quota"),
        ] {
            let output = from_stdin(&container, &resources).fails();
            assert!(output.stderr.contains(field), "{field}: {}", output.stderr);
            assert!(!ours() || output.stderr.contains("(--resources line 1)"), "{}", output.stderr);
            assert_eq!(everything(&container), before);
        }
        for size in ["12q", "-7", "M"] {
            let output = container.command(&["update", "--pids-limit", "9", "--memory", size], &[]).fails();
            assert!(output.stderr.contains(size), "{}", output.stderr);
            assert_eq!(everything(&container), before);
        }
    });
}

#[test]
fn what_the_kernel_refuses_leaves_all_limits_as_they_were() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        let mut resources = json!({
            "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 1_048_576},
            "pids": {"limit": 9},
            // Less than a millisecond.
            "cpu": {"shares": 2048, "period": 100_000, "quota": 5, "cpus": "0"},
        });
        if SWAP.of(&container).is_none() {
            resources["memory"].as_object_mut().unwrap().remove("swap");
        }
        let output = from_stdin(&container, &resources).fails();
        assert!(!ours() || output.stderr.starts_with("linux.resources.cpu.quota: write \"5"), "{}", output.stderr);
        assert!(!output.stderr.contains("undo:"), "{}", output.stderr);
        assert_eq!(everything(&container), before);
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn a_device_that_is_not_there_leaves_all_limits_as_they_were() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        let device = json!({"major": 4000, "minor": 7, "rate": 1_048_576});
        let resources = json!({
            "memory": {"limit": 67_108_864}, "pids": {"limit": 9}, "cpu": {"shares": 2048, "quota": 100_000},
            "blockIO": {"throttleReadBpsDevice": [device]},
        });
        let output = from_stdin(&container, &resources).fails();
        assert!(output.stderr.starts_with("linux.resources.blockIO.throttleReadBpsDevice[0]: "), "{}", output.stderr);
        assert!(!output.stderr.contains("undo:"), "{}", output.stderr);
        assert_eq!(everything(&container), before);
    });
}

#[test]
fn a_limit_below_the_usage_is_refused() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        let memory = json!({"limit": 4096, "checkBeforeUpdate": true});
        let output = from_stdin(&container, &json!({"memory": memory, "pids": {"limit": 9}})).fails();
        assert!(output.stderr.contains("memory"), "{}", output.stderr);
        let words =
            if cgroup_v2() { "rejecting memory limit 4096 <= usage " } else { " bytes are in use, and not all" };
        assert!(!ours() || output.stderr.contains(words), "{}", output.stderr);
        assert_eq!(everything(&container), before);
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn a_limit_above_that_of_memory_and_swap_needs_both() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        if SWAP.of(&container).is_none() {
            skip!("no swap accounting");
        }
        container.command(&["update"], &["--memory", "30M", "--memory-swap", "50M"]).ok();
        let before = everything(&container);
        if cgroup_v2() {
            // Two limits that do not know of each other.
            container.command(&["update"], &["--memory", "60M"]).ok();
            assert_eq!(SWAP.of(&container).as_deref(), Some("20971520"));
            return;
        }
        let output = container.command(&["update"], &["--pids-limit", "9", "--memory", "60M"]).fails();
        assert!(output.stderr.contains("memory"), "{}", output.stderr);
        let hint = "hint: memory and swap together are limited to 52428800 bytes: set both at once";
        assert!(!ours() || output.stderr.contains(hint), "{}", output.stderr);
        assert_eq!(everything(&container), before);
    });
}

#[test]
fn a_new_limit_is_felt() {
    case(|| {
        let script = "echo ready; read line; (true) && echo forked; read line; (true) && echo forked again";
        let Some((container, mut io)) = limited(script) else { skip!("not every controller") };
        io.write("\n");
        assert_eq!(io.stdout.next(), "forked");
        container.command(&["update", "--pids-limit", "1"], &[]).ok();
        io.write("\n");
        assert_eq!(io.stdout.rest(), "");
    });
}

#[test]
fn a_paused_or_created_container_is_updated_and_stays_so() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        container.command(&["pause"], &[]).ok();
        container.command(&["update", "--pids-limit", "30", "--cpuset-cpus", "0"], &[]).ok();
        assert_eq!(PIDS.of(&container).as_deref(), Some("30"));
        assert_eq!(container.status(), "paused");
        container.command(&["resume"], &[]).ok();
        let (container, _io) = Container::created(WAITING);
        container.command(&["update"], &["--pids-limit", "30"]).ok();
        assert_eq!(PIDS.of(&container).as_deref(), Some("30"));
        assert_eq!(container.status(), "created");
    });
}

#[test]
fn kernel_memory_is_ignored_with_a_warning() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        for option in ["--kernel-memory", "--kernel-memory-tcp"] {
            let output = container.command(&["update", option, "50M"], &[]).ok();
            assert!(output.stderr.contains("ignored and will be removed"), "{}", output.stderr);
        }
        assert_eq!(everything(&container), before);
    });
}

#[test]
fn resctrl_options_need_a_group_of_resctrl() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let before = everything(&container);
        for options in [["--l3-cache-schema", "L3:0=1"], ["--mem-bw-schema", "MB:0=50"]] {
            container.command(&["update", "--pids-limit", "9", options[0], options[1]], &[]).fails();
            assert_eq!(everything(&container), before, "{options:?}");
        }
    });
}

#[test]
fn unified_files_are_updated_on_v2_and_refused_on_v1() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        let output = from_stdin(&container, &json!({"unified": {"pids.max": "10", "cpu.max": "max 100000"}}));
        if cgroup_v2() {
            output.ok();
            assert_eq!(PIDS.of(&container).as_deref(), Some("10"));
            assert_eq!(QUOTA.of(&container).as_deref(), Some("max 100000"));
        } else {
            let output = output.fails();
            assert!(output.stderr.contains("cannot use unified on cgroup v1"), "{}", output.stderr);
        }
    });
}

#[test]
fn device_rules_are_not_touched() {
    case(|| {
        let script = "echo ready; while read line; do \
            sh -c ': < /dev/probe' 2>&1 | grep -q 'not permitted' && echo denied || echo allowed; done";
        let mut bundle = Bundle::sh(script);
        let device = json!({"path": "/dev/probe", "type": "c", "major": 10, "minor": 250, "fileMode": 0o666});
        bundle.set("/linux/devices", json!([device]));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let rules = json!([{"allow": true, "type": "c", "major": 10, "minor": 250, "access": "rwm"}]);
        for resources in [json!({}), json!({"pids": {"limit": 40}, "devices": rules})] {
            from_stdin(&container, &resources).ok();
            io.write("\n");
            assert_eq!(io.stdout.next(), "denied", "{resources}");
        }
    });
}

// ---------------------------------------------------------------------------------------------- devices

/// For each line: whether a device that no driver answers to can be opened for reading and for writing. And all the time
/// whether the null device can be.
const PROBE: &str = "(while :; do : > /dev/null || echo lost; done) & \
    try() { sh -c \": $1 /dev/probe\" 2>&1 | grep -q 'not permitted' && echo no || echo yes; }; \
    echo ready; while read line; do echo \"$(try '<') $(try '>')\"; done; kill $!";

fn with_probe() -> (Container, Io) {
    let mut bundle = Bundle::sh(PROBE);
    let device = json!({"path": "/dev/probe", "type": "c", "major": 10, "minor": 250, "fileMode": 0o666});
    bundle.set("/linux/devices", json!([device]));
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

fn probe(io: &mut Io) -> String {
    io.write("\n");
    io.stdout.next()
}

#[test]
fn devices_are_allowed_and_forbidden_while_the_container_runs() {
    case(|| {
        let (container, mut io) = with_probe();
        assert_eq!(probe(&mut io), "no no");
        for (options, wanted) in [
            (&["--device-add", "c:10:250"][..], "yes yes"),
            (&["--device-rm=c:10:250:w"], "yes no"),
            (&["--device-add", "c:10:251", "--device-rm", "c:10:250:r"], "no no"),
            (&["--device-add", "c:10:250:w"], "no yes"),
            (&["--device-rm", "c:10:250", "--device-add", "c:10:250:r", "--pids-limit", "30"], "yes no"),
            (&["--device-rm", "c:10:250"], "no no"),
        ] {
            container.command(&["update"], options).ok();
            assert_eq!(probe(&mut io), wanted, "{options:?}");
        }
        io.close();
        assert_eq!(io.stdout.rest(), "");
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn many_changes_of_devices_leave_one_program() {
    case(|| {
        let (container, mut io) = with_probe();
        // More than the kernel takes programs on one cgroup.
        for _ in 0..35 {
            container.command(&["update"], &["--device-add", "c:10:250"]).ok();
            container.command(&["update"], &["--device-rm", "c:10:250"]).ok();
        }
        assert_eq!(probe(&mut io), "no no");
        container.command(&["update"], &["--device-add", "c:10:250"]).ok();
        assert_eq!(probe(&mut io), "yes yes");
    });
}

/// Tries all the time what is always allowed, and what never is.
const BETWEEN: &str = "(while :; do { true < /dev/probe; } 2>&1 | grep -q 'not permitted' || echo leaked; \
    true < /dev/null || echo lost; done) & echo ready; read line; kill $!";

#[test]
fn no_moment_is_without_device_rules() {
    case(|| {
        let mut bundle = Bundle::sh(BETWEEN);
        let device = json!({"path": "/dev/probe", "type": "c", "major": 10, "minor": 250, "fileMode": 0o666});
        bundle.set("/linux/devices", json!([device]));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        for _ in 0..20 {
            container.command(&["update"], &["--device-add", "c:10:251"]).ok();
            container.command(&["update"], &["--device-rm", "c:10:251"]).ok();
        }
        io.close();
        assert_eq!(io.stdout.rest(), "");
    });
}

/// The kernel takes no shares of a cgroup that is idle, and forgets them when it becomes so, or is so no more.
#[test]
fn shares_of_a_cgroup_that_was_idle() {
    case(|| {
        let Some((container, _io)) = limited(WAITING) else { skip!("not every controller") };
        if IDLE.of(&container).is_none() {
            skip!("no cpu.idle");
        }
        let before = SHARES.of(&container);
        from_stdin(&container, &json!({"cpu": {"idle": 1}, "rdma": {"nosuch": {"hcaHandles": 1}}})).fails();
        assert_eq!((SHARES.of(&container), IDLE.of(&container).as_deref()), (before, Some("0")));
        from_stdin(&container, &json!({"cpu": {"idle": 1}})).ok();
        from_stdin(&container, &json!({"cpu": {"idle": 1, "shares": 700}})).ok();
        assert_eq!(IDLE.of(&container).as_deref(), Some("1"));
        container.command(&["update"], &["--cpu-idle", "0", "--cpu-share", "1024"]).ok();
        let shares = if cgroup_v2() { "100" } else { "1024" };
        assert_eq!((SHARES.of(&container).as_deref(), IDLE.of(&container).as_deref()), (Some(shares), Some("0")));
    });
}

#[test]
fn a_failing_update_leaves_devices_as_they_were() {
    case(|| {
        let (container, mut io) = with_probe();
        for (options, word) in [
            (&["--device-add", "c:10"][..], "--device-add"),
            (&["--device-add", "x:10:250"], "--device-add"),
            (&["--device-add", "c:10:250", "--device-rm", "c:10:250:q"], "--device-rm"),
            (&["--device-add", "c:10:250", "--cpu-quota", "5"], "linux.resources.cpu.quota"),
        ] {
            let output = container.command(&["update"], options).fails();
            assert!(output.stderr.starts_with(word), "{options:?}: {}", output.stderr);
            assert_eq!(probe(&mut io), "no no", "{options:?}");
        }
        if !cgroup_v2() {
            // The default rules allow mknod of any device, and v1 cannot make a hole in that.
            let options = ["--device-add", "c:10:250", "--device-rm", "c:10:250:m"];
            let output = container.command(&["update"], &options).fails();
            assert!(output.stderr.contains("which cgroup v1 cannot do"), "{}", output.stderr);
            assert_eq!(probe(&mut io), "no no");
        }
        // What was refused is not remembered.
        container.command(&["update"], &["--device-add", "c:10:251"]).ok();
        assert_eq!(probe(&mut io), "no no");
    });
}
