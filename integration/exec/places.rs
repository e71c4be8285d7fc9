//! Where an exec'ed process is: compared with init file by file under /proc.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use super::{call, printed, sleeper, sleeping};
use crate::namespaces::{mappings, user_namespaces};
use crate::support::{Bundle, Container, case, cgroup_v2, link, ours, skip, text};

/// Files that are equal for two processes with the same surroundings.
const FILES: [&str; 15] = [
    "attr/current",
    "cgroup",
    "coredump_filter",
    "cpuset",
    "environ",
    "gid_map",
    "limits",
    "loginuid",
    "mountinfo",
    "oom_score_adj",
    "personality",
    "projid_map",
    "setgroups",
    "timens_offsets",
    "uid_map",
];

/// Lines of `status` that tell of the process itself, not of its surroundings.
const ITS_OWN: [&str; 19] = [
    "FDSize", "Hugetlb", "Ngid", "PPid", "Pid", "RssAnon", "RssFile", "RssShmem", "SigPnd", "SigQ", "State", "Tgid",
    "VmData", "VmHWM", "VmLib", "VmPTE", "VmPeak", "VmRSS", "VmSize",
];

/// What the kernel tells of the surroundings of a process.
fn surroundings(pid: u32) -> BTreeMap<String, String> {
    let proc = Path::new("/proc").join(pid.to_string());
    let mut found: BTreeMap<String, String> =
        FILES.iter().map(|name| ((*name).to_owned(), text(proc.join(name)))).collect();
    for entry in fs::read_dir(proc.join("ns")).unwrap().flatten() {
        found.insert(format!("ns/{}", entry.file_name().display()), link(entry.path()));
    }
    for name in ["cwd", "root"] {
        let metadata = fs::metadata(proc.join(name)).unwrap();
        found.insert(name.to_owned(), format!("{}:{}", metadata.dev(), metadata.ino()));
    }
    for line in text(proc.join("status")).lines() {
        let (name, value) = line.split_once(':').unwrap();
        let value = match name {
            // As many namespaces deep.
            "NSpid" | "NStgid" | "NSpgid" | "NSsid" => value.split_whitespace().count().to_string(),
            name if ITS_OWN.contains(&name) || name.contains("ctxt_switches") || name.starts_with("Vm") => continue,
            _ => value.to_owned(),
        };
        found.insert(format!("status {name}"), value);
    }
    // proc(5): 18 and 19 are the priority and the nice value, 40 and 41 the real-time priority and the policy.
    let stat = text(proc.join("stat"));
    let after: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    for field in [18, 19, 40, 41] {
        found.insert(format!("stat {field}"), after[field - 3].to_owned());
    }
    found
}

/// Insists that an exec'ed process is where init is.
#[track_caller]
fn is_with_init(container: &Container, options: &[&str]) -> BTreeMap<String, String> {
    let init = surroundings(container.pid());
    let its = surroundings(sleeper(container, options));
    assert!(init.len() > 50, "{init:?}");
    let differences: Vec<_> =
        init.iter().filter(|(name, value)| its.get(*name) != Some(value)).map(|(name, _)| name).collect();
    for name in &differences {
        eprintln!("{name}:\n  init: {}\n  exec: {:?}", init[*name], its.get(*name));
    }
    assert!(differences.is_empty(), "{differences:?}");
    its
}

fn in_namespaces(edit: impl FnOnce(&mut Bundle)) {
    let mut bundle = Bundle::new();
    edit(&mut bundle);
    let (container, _io) = sleeping(bundle);
    is_with_init(&container, &[]);
    let pid = printed(&container, &[], "echo $$; readlink /proc/self; [ -d /proc/$$ ] && echo there");
    let lines: Vec<&str> = pid.lines().collect();
    assert!(lines.len() == 3 && lines[2] == "there", "{pid}");
    container.stop();
}

#[test]
fn all_is_as_init_has_it() {
    case(|| in_namespaces(|_| {}));
}

#[test]
fn everything_that_a_process_can_be_given() {
    case(|| {
        for no_new_privileges in [true, false] {
            let mut bundle = Bundle::new();
            bundle
                .set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 20], "umask": 0o27}))
                .set(
                    "/process/capabilities",
                    json!({
                        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
                        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
                    }),
                )
                .set(
                    "/process/rlimits",
                    json!([
                        {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99},
                        {"type": "RLIMIT_CORE", "soft": 3, "hard": 5},
                        {"type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000}
                    ]),
                )
                .set("/process/oomScoreAdj", json!(500))
                .set("/process/noNewPrivileges", json!(no_new_privileges))
                .set("/process/cwd", json!("/tmp"))
                .set("/process/env/-", json!("A=b c"))
                .set(
                    "/linux/seccomp",
                    json!({
                        "defaultAction": "SCMP_ACT_ALLOW",
                        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
                    }),
                );
            let (container, _io) = sleeping(bundle);
            let its = is_with_init(&container, &[]);
            let expected = [
                ("status Uid", "\t1000\t1000\t1000\t1000"),
                ("status Groups", "\t5 20 "),
                ("status Umask", "\t0027"),
                ("status CapEff", "\t0000000000000020"),
                ("status CapBnd", "\t0000000000002021"),
                ("status NoNewPrivs", if no_new_privileges { "\t1" } else { "\t0" }),
                ("status Seccomp", "\t2"),
                ("oom_score_adj", "500\n"),
            ];
            for (name, value) in expected {
                assert_eq!(its[name], value, "{name}");
            }
        }
    });
}

#[test]
fn new_user_namespace() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        in_namespaces(|bundle| {
            mappings(bundle.namespace("user", None));
        });
    });
}

#[test]
fn new_user_namespace_as_another_user() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        in_namespaces(|bundle| {
            mappings(bundle.namespace("user", None)).set("/process/user", json!({"uid": 7, "gid": 8}));
        });
    });
}

#[test]
fn without_a_pid_namespace() {
    case(|| {
        in_namespaces(|bundle| {
            bundle.no_namespace("pid");
        });
    });
}

#[test]
fn without_most_namespaces() {
    case(|| {
        in_namespaces(|bundle| {
            for kind in ["pid", "network", "ipc", "uts"] {
                bundle.no_namespace(kind);
            }
            bundle.remove("/hostname");
        });
    });
}

#[test]
fn without_any_namespace() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/linux/namespaces", json!([])).set("/mounts", json!([]));
        for field in ["/hostname", "/linux/maskedPaths", "/linux/readonlyPaths"] {
            bundle.remove(field);
        }
        let (container, _io) = sleeping(bundle);
        assert_eq!(printed(&container, &[], "echo in; ls -d /bin"), "in\n/bin\n");
    });
}

#[test]
fn with_a_cgroup_namespace() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.namespace("cgroup", None);
        let (container, _io) = sleeping(bundle);
        is_with_init(&container, &[]);
        let printed = printed(&container, &[], "cat /proc/self/cgroup");
        for line in printed.lines().filter(|line| !line.starts_with("0::") || cgroup_v2()) {
            assert!(line.ends_with(":/"), "{printed}");
        }
    });
}

#[test]
fn with_a_time_namespace() {
    case(|| {
        if !Path::new("/proc/self/ns/time").exists() {
            skip!("no time namespaces");
        }
        let mut bundle = Bundle::new();
        bundle.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 864_000}}));
        let (container, _io) = sleeping(bundle);
        is_with_init(&container, &[]);
        let uptime = printed(&container, &[], "cut -d. -f1 /proc/uptime");
        assert!(uptime.trim().parse::<u64>().unwrap() >= 864_000, "{uptime}");
    });
}

/// A container with namespaces of another one, by path.
fn joined(kinds: &[(&str, &str)]) {
    let mut bundle = Bundle::new();
    if kinds.iter().any(|(kind, _)| *kind == "user") {
        mappings(bundle.namespace("user", None));
    }
    let (first, _io) = sleeping(bundle);
    in_namespaces(|bundle| {
        bundle.remove("/hostname");
        for (kind, name) in kinds {
            bundle.namespace(kind, Some(&format!("/proc/{}/ns/{name}", first.pid())));
        }
    });
}

#[test]
fn joined_network_ipc_and_pid_namespaces() {
    case(|| joined(&[("network", "net"), ("ipc", "ipc"), ("pid", "pid"), ("uts", "uts")]));
}

#[test]
fn joined_user_namespace() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        joined(&[("user", "user")]);
    });
}

#[test]
fn joined_user_namespace_with_what_belongs_to_it() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        joined(&[("user", "user"), ("network", "net"), ("ipc", "ipc"), ("pid", "pid")]);
    });
}

#[test]
fn in_a_container_whose_root_was_moved() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.args(&["sleep", "100000"]);
        let container = bundle.container();
        container.call_bundle("create", &["--no-pivot"]).run().ok();
        container.start().ok();
        let pid = container.pid();
        crate::support::eventually("init sleeps", || super::is_asleep(pid));
        is_with_init(&container, &[]);
        assert_eq!(printed(&container, &[], "ls -d /bin/busybox /..; ls / | wc -l"), "/..\n/bin/busybox\n8\n");
    });
}

#[test]
fn joined_mount_namespace() {
    case(|| {
        // One that still has the host's files, where the bundle is.
        let host = crate::support::Call::new(crate::support::busybox()).args([
            "unshare",
            "-m",
            "sh",
            "-c",
            "echo ready; exec sleep 100000",
        ]);
        let (call, mut io) = crate::support::with_io(host);
        let host = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        in_namespaces(|bundle| {
            bundle.namespace("mount", Some(&format!("/proc/{}/ns/mnt", host.pid())));
        });
    });
}

/// Whoever calls exec may be in other namespaces than whoever called create.
#[test]
fn from_other_namespaces() {
    case(|| {
        let (other, _io) = sleeping(Bundle::new());
        let mut bundle = Bundle::new();
        for kind in ["network", "ipc", "uts"] {
            bundle.no_namespace(kind);
        }
        bundle.remove("/hostname");
        let (container, _io) = sleeping(bundle);
        let target = other.pid().to_string();
        let script = "for n in net ipc uts mnt; do readlink /proc/self/ns/$n; done";
        let output = call(&container, &[], &["sh", "-c", script])
            .below(["nsenter", "-t", &target, "-n", "-i", "-u", "--"])
            .run()
            .ok();
        let init = ["net", "ipc", "uts", "mnt"].map(|name| link(format!("/proc/{}/ns/{name}", container.pid())));
        assert_eq!(output.stdout.lines().collect::<Vec<_>>(), init);
    });
}

#[test]
fn in_a_created_container() {
    case(|| {
        let container = Bundle::sh("echo started; exec sleep 100000").container();
        let mut io = container.create_io();
        assert_eq!(printed(&container, &[], "hostname; ls -d /proc/1"), "container\n/proc/1\n");
        let namespace = |pid: u32, name: &str| link(format!("/proc/{pid}/ns/{name}"));
        let (init, pid) = (container.pid(), sleeper(&container, &[]));
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            assert_eq!(namespace(init, name), namespace(pid, name), "{name}");
        }
        assert_eq!(text(format!("/proc/{init}/cgroup")), text(format!("/proc/{pid}/cgroup")));
        assert_eq!(container.status(), "created");
        container.start().ok();
        assert_eq!(io.stdout.next(), "started");
    });
}

#[test]
fn session_keyring_is_that_of_the_container() {
    case(|| {
        if text("/proc/keys").is_empty() {
            skip!("no keys");
        }
        let mut bundle = Bundle::new();
        bundle.set("/linux/maskedPaths", json!([]));
        let (container, _io) = sleeping(bundle);
        let keys = printed(&container, &[], "cat /proc/keys");
        assert_eq!(keys.matches(&container.id).count(), 1, "{keys}");
    });
}

// ---------------------------------------------------------------------------------------------- cgroups

/// Makes a cgroup below the container's in each of its hierarchies.
fn make_below(container: &Container, name: &str) {
    for directory in crate::support::cgroups_of(&container.id) {
        fs::create_dir(directory.join(name)).unwrap();
        // On v1 a new cpuset is empty, and no process can be in it.
        for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|_| !cgroup_v2()) {
            if let Ok(all) = fs::read(directory.join(file)) {
                fs::write(directory.join(name).join(file), all).unwrap();
            }
        }
    }
}

#[test]
fn cgroup_below_the_containers() {
    case(|| {
        let (container, _io) = Container::running();
        make_below(&container, "sub");
        for path in ["sub", "/sub", "sub/", "./sub"] {
            let lines = printed(&container, &["--cgroup", path], "cat /proc/self/cgroup");
            let ours = lines.lines().filter(|line| line.contains(&container.id)).collect::<Vec<_>>();
            assert!(!ours.is_empty() && ours.iter().all(|line| line.ends_with("/sub")), "{path}: {lines}");
        }
        let lines = printed(&container, &["--cgroup", "/"], "cat /proc/self/cgroup");
        let own = |line: &str| line.trim_end_matches(".scope").ends_with(&container.id);
        assert!(lines.lines().any(own) && !lines.contains("/sub"), "{lines}");
    });
}

#[test]
fn cgroup_that_is_not_below_the_containers_is_refused() {
    case(|| {
        let (container, _io) = Container::running();
        for path in ["..", "/..", "../..", "sub/../../x", "nosuch", "nosuch:sub"] {
            let output = call(&container, &["--cgroup", path], &["true"]).run();
            assert_eq!(output.code(), 255, "{path}: {output:?}");
        }
    });
}

#[test]
fn cgroup_that_is_not_there_is_named() {
    case(|| {
        let (container, _io) = Container::running();
        let output = call(&container, &["--cgroup", "nope"], &["true"]).run().fails();
        assert!(!ours() || output.stderr.starts_with("--cgroup: /sys/fs/cgroup/"), "{}", output.stderr);
        assert!(output.stderr.contains("nope"), "{}", output.stderr);
    });
}

#[test]
fn cgroup_of_one_controller() {
    case(|| {
        if cgroup_v2() {
            skip!("cgroup v1 only");
        }
        let (container, _io) = Container::running();
        make_below(&container, "sub");
        let lines = printed(&container, &["--cgroup", "pids:sub"], "cat /proc/self/cgroup");
        for line in lines.lines().filter(|line| line.contains(&container.id)) {
            assert_eq!(line.ends_with("/sub"), line.contains(":pids:"), "{lines}");
        }
        assert!(lines.contains("/sub"), "{lines}");
    });
}

/// A cgroup that has given its controllers to children can hold no process ("no internal processes").
#[test]
fn cgroup_whose_controllers_were_given_to_children() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let (container, _io) = sleeping(Bundle::new());
        let cgroup = container.cgroup("").unwrap();
        fs::create_dir(cgroup.join("inner")).unwrap();
        fs::write(cgroup.join("inner/cgroup.procs"), container.pid().to_string()).unwrap();
        fs::write(cgroup.join("cgroup.subtree_control"), "+pids").unwrap();
        let its = is_with_init(&container, &[]);
        assert!(its["cgroup"].ends_with("/inner\n"), "{}", its["cgroup"]);
    });
}
