//! `process.scheduler`, `process.ioPriority`, `linux.memoryPolicy`, `linux.personality`: what the kernel says of init.

use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, case, cgroup_parent, controller, inside, skip, text};

/// Nice value, real-time priority and policy: fields 19, 40 and 41 of proc_pid_stat(5).
fn schedule(edit: impl FnOnce(&mut Bundle)) -> [i64; 3] {
    let stat = inside("", |bundle| {
        bundle.args(&["cat", "/proc/self/stat"]);
        edit(bundle);
    });
    fields(&stat)
}

/// The name in parentheses may hold anything; what follows is from field 3 on.
fn fields(stat: &str) -> [i64; 3] {
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    [19, 40, 41].map(|number| fields[number - 3].parse().unwrap())
}

#[test]
fn without_a_field_all_is_as_with_the_caller() {
    case(|| assert_eq!(schedule(|_| {}), fields(&text("/proc/self/stat"))));
}

#[test]
fn policy_and_nice() {
    case(|| {
        let of = |policy: &str, nice: i64| {
            schedule(|bundle| {
                bundle.set("/process/scheduler", json!({"policy": policy, "nice": nice}));
            })
        };
        assert_eq!(of("SCHED_OTHER", 7), [7, 0, 0]);
        assert_eq!(of("SCHED_BATCH", -3), [-3, 0, 3]);
        assert_eq!(of("SCHED_IDLE", 0)[2], 5);
    });
}

#[test]
fn reset_on_fork_is_for_the_first_process_only() {
    case(|| {
        let printed = inside("cat /proc/1/stat /proc/self/stat; true", |bundle| {
            let scheduler = json!({"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
            bundle.set("/process/scheduler", scheduler);
        });
        let nice: Vec<&str> =
            printed.lines().map(|line| line.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap()).collect();
        assert_eq!(nice, ["-5", "0"]);
    });
}

#[test]
fn a_user_namespace_does_not_take_the_right_to_raise_the_priority() {
    case(|| {
        let got = schedule(|bundle| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            bundle.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": -4}));
        });
        assert_eq!(got, [-4, 0, 0]);
    });
}

#[test]
fn real_time_policies() {
    case(|| {
        // With CONFIG_RT_GROUP_SCHED a v1 group has no real-time share until it is given one, which its parent must have.
        let groups = controller("cpu").is_some_and(|dir| dir.join("cpu.rt_runtime_us").exists());
        let of = |policy: &str, priority: i64| {
            schedule(|bundle| {
                bundle.set("/process/scheduler", json!({"policy": policy, "priority": priority}));
                if groups {
                    bundle.set("/linux/cgroupsPath", json!(format!("{}-rt", cgroup_parent())));
                    bundle.set("/linux/resources/cpu", json!({"realtimeRuntime": 1000}));
                }
            })
        };
        assert_eq!(of("SCHED_FIFO", 11), [0, 11, 1]);
        assert_eq!(of("SCHED_RR", 1), [0, 1, 2]);
    });
}

#[test]
fn io_priority() {
    case(|| {
        for (class, level, printed) in [
            ("IOPRIO_CLASS_RT", 0, "realtime: prio 0\n"),
            ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7\n"),
            ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
        ] {
            // Printed by a child: the priority is that of all processes of the container (config.md, ioPriority).
            let got = inside("ionice; true", |bundle| {
                bundle.set("/process/ioPriority", json!({"class": class, "priority": level}));
            });
            assert_eq!(got, printed, "{class}");
        }
    });
}

#[test]
fn memory_policy() {
    case(|| {
        if !Path::new("/proc/self/numa_maps").exists() {
            skip!("no NUMA in this kernel");
        }
        let of = |policy| {
            inside("", |bundle| {
                bundle.args(&["head", "-n1", "/proc/self/numa_maps"]).set("/linux/memoryPolicy", policy);
            })
        };
        let policy = |line: String| line.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(policy(of(json!({"mode": "MPOL_DEFAULT"}))), "default");
        assert_eq!(policy(of(json!({"mode": "MPOL_LOCAL"}))), "local");
        assert_eq!(policy(of(json!({"mode": "MPOL_BIND", "nodes": "0"}))), "bind:0");
        let flags = json!(["MPOL_F_STATIC_NODES"]);
        let line = of(json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": flags}));
        assert_eq!(policy(line), "interleave=static:0");
    });
}

#[test]
fn personality() {
    case(|| {
        let of = |domain: &str| {
            inside("uname -m; cat /proc/self/personality", |bundle| {
                bundle.set("/linux/personality", json!({"domain": domain}));
            })
        };
        let machine = text("/proc/sys/kernel/arch").trim().to_owned();
        assert_eq!(of("LINUX"), format!("{machine}\n00000000\n"));
        let printed = of("LINUX32");
        assert!(printed.ends_with("\n00000008\n") && !printed.starts_with(&machine), "{printed}");
    });
}
