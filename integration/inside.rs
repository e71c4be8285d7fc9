//! What a process finds inside: nothing that the configuration did not ask for, and everything that it did.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc::channel;

use serde_json::json;

use crate::namespaces::user_namespaces;
use crate::support::{
    Bundle, WAITING, busybox, case, cgroup_v2, controller, hierarchies, inside, ours, pipe, skip, text, with_io,
};

/// The lines `Name:\tvalue` of init's status file. Not read by a shell, which changes signals for itself.
fn status(edit: impl FnOnce(&mut Bundle)) -> BTreeMap<String, String> {
    let printed = inside("", |bundle| {
        bundle.args(&["cat", "/proc/self/status"]);
        edit(bundle);
    });
    let pairs = printed.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

// ---------------------------------------------------------------------------------------------- file systems

/// A mount that has to be there: where, of which type, with which flags, and why.
fn expected_mounts() -> Vec<(String, &'static str, &'static str, &'static str)> {
    let mut list: Vec<(String, &str, &str, &str)> = [
        ("/", "", "rw", "root"),
        ("/proc", "proc", "rw", "mounts[0]"),
        ("/dev", "tmpfs", "rw nosuid", "mounts[1]"),
        ("/dev/pts", "devpts", "rw nosuid noexec", "mounts[2]"),
        ("/dev/shm", "tmpfs", "rw nosuid nodev noexec", "mounts[3]"),
        ("/dev/mqueue", "mqueue", "rw nosuid nodev noexec", "mounts[4]"),
        ("/sys", "sysfs", "ro nosuid nodev noexec", "mounts[5]"),
    ]
    .map(|(point, kind, flags, why)| (point.to_owned(), kind, flags, why))
    .into();
    if cgroup_v2() {
        list.push(("/sys/fs/cgroup".into(), "cgroup2", "ro nosuid nodev noexec", "mounts[6]"));
    } else {
        // Read-only itself, too: see mounts::cgroup_v1_directory_is_read_only.
        list.push(("/sys/fs/cgroup".into(), "tmpfs", "nosuid nodev noexec", "mounts[6]"));
        for hierarchy in hierarchies() {
            let name = hierarchy.mount.file_name().unwrap().to_string_lossy();
            let kind = if hierarchy.controllers.is_empty() { "cgroup2" } else { "cgroup" };
            list.push((format!("/sys/fs/cgroup/{name}"), kind, "ro nosuid nodev noexec", "mounts[6]: a hierarchy"));
        }
    }
    let base = crate::support::base_config();
    let paths = |name: &str| -> Vec<String> { serde_json::from_value(base["linux"][name].clone()).unwrap() };
    // What a fresh procfs or sysfs shows is what this host's shows.
    for path in paths("maskedPaths").into_iter().filter(|path| Path::new(path).exists()) {
        let directory = Path::new(&path).is_dir();
        list.push((path, "", if directory { "ro" } else { "" }, "linux.maskedPaths"));
    }
    for path in paths("readonlyPaths").into_iter().filter(|path| Path::new(path).exists()) {
        list.push((path, "proc", "ro", "linux.readonlyPaths"));
    }
    list
}

#[test]
fn mounts_are_those_of_the_configuration() {
    case(|| {
        let printed = inside("cat /proc/self/mountinfo", |_| {});
        let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
        for line in printed.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let kind = line.split_once(" - ").unwrap().1.split(' ').next().unwrap();
            let before = found.insert(fields[4].to_owned(), (kind.to_owned(), fields[5].to_owned()));
            assert!(before.is_none(), "two mounts at {}", fields[4]);
            assert!(!line.contains(" shared:"), "a shared mount: {line}");
        }
        for (point, kind, flags, why) in expected_mounts() {
            // Not every hierarchy can be told to a container: a runtime may leave out the unified one of a hybrid host.
            let optional = kind == "cgroup2" && !cgroup_v2();
            let Some((its_kind, its_flags)) = found.remove(&point) else {
                assert!(optional, "no mount at {point} ({why}): {printed}");
                continue;
            };
            assert!(kind.is_empty() || kind == its_kind, "{point} ({why}) is {its_kind}");
            let its: Vec<&str> = its_flags.split(',').collect();
            for flag in flags.split_whitespace() {
                assert!(its.contains(&flag), "{point} ({why}) is not {flag}: {its_flags}");
            }
            if point == "/dev" {
                assert!(
                    !its.contains(&"relatime") && !its.contains(&"nodev") && !its.contains(&"noexec"),
                    "{its_flags}"
                );
            }
        }
        // The names under which a joint v1 hierarchy is known a second time are links, not mounts.
        assert!(found.is_empty(), "mounts that nothing in the configuration asks for: {found:#?}");
    });
}

#[test]
fn devices_are_the_default_ones() {
    case(|| {
        let printed = inside("cd /dev; stat -c '%n %F %a %t:%T %u:%g' * | sort", |_| {});
        let link = |name: &str| format!("{name} symbolic link 777 0:0 0:0");
        let device = |name: &str, number: &str| format!("{name} character special file 666 {number} 0:0");
        let mut expected = vec![
            device("full", "1:7"),
            device("null", "1:3"),
            device("random", "1:8"),
            device("tty", "5:0"),
            device("urandom", "1:9"),
            device("zero", "1:5"),
            link("fd"),
            link("ptmx"),
            link("stderr"),
            link("stdin"),
            link("stdout"),
            "mqueue directory 1777 0:0 0:0".into(),
            "pts directory 755 0:0 0:0".into(),
            "shm directory 1777 0:0 0:0".into(),
        ];
        // runc links /dev/core to /proc/kcore; the specification says nothing of it.
        let mut found: Vec<String> =
            printed.lines().map(str::to_owned).filter(|line| !line.starts_with("core ")).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    });
}

#[test]
fn links_in_dev() {
    case(|| {
        let printed = inside("cd /dev; for f in fd stdin stdout stderr ptmx; do readlink $f; done", |_| {});
        let expected = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"];
        assert_eq!(printed.lines().map(|line| line.trim_start_matches("/dev/")).collect::<Vec<_>>(), expected);
    });
}

#[test]
fn devices_of_the_configuration() {
    case(|| {
        let script =
            "cd /dev; stat -c '%n %F %a %t:%T %u:%g' ../mnt/dir/own fifo block; head -c 3 /mnt/dir/own | wc -c";
        let printed = inside(script, |bundle| {
            bundle.set(
                "/linux/devices",
                json!([
                    {"path": "/mnt/dir/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
                    {"path": "/dev/fifo", "type": "p", "fileMode": 0o600},
                    {"path": "/dev/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o660, "uid": 0, "gid": 6}
                ]),
            );
            bundle.capabilities(&["CAP_DAC_OVERRIDE"]);
        });
        let expected = "../mnt/dir/own character special file 640 1:5 7:8\nfifo fifo 600 0:0 0:0\n\
                        block block special file 660 7:c8 0:6\n3\n";
        assert_eq!(printed, expected);
    });
}

#[test]
fn device_that_is_also_a_default_device() {
    case(|| {
        let printed = inside("stat -c '%a %t:%T' /dev/null", |bundle| {
            bundle.set(
                "/linux/devices",
                json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]),
            );
        });
        assert_eq!(printed, "666 1:3\n");
    });
}

#[test]
fn default_devices_work() {
    case(|| {
        let script = "echo x > /dev/null && head -c 2 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c; \
                      echo y > /dev/full || echo full; echo through | cat /dev/fd/0 /dev/null; echo shm > /dev/shm/x; cat /dev/shm/x";
        assert_eq!(inside(script, |_| {}), "2\n2\nfull\nthrough\nshm\n");
    });
}

#[test]
fn read_only_root() {
    case(|| {
        let script = "touch /file 2>&1; touch /etc/file 2>&1; touch /dev/shm/file && echo shm; ls /file /etc/file 2>/dev/null | wc -l";
        let printed = inside(script, |bundle| {
            bundle.set("/root/readonly", json!(true));
        });
        assert_eq!(printed.matches("Read-only file system").count(), 2, "{printed}");
        assert!(printed.ends_with("shm\n0\n"), "{printed}");
    });
}

/// As one of the read-only paths.
#[test]
fn read_only_root_as_a_path() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let printed = inside("(echo x > /file) 2>/dev/null || echo refused; cat /etc/passwd | head -n 1", |bundle| {
            bundle.set("/linux/readonlyPaths", json!(["/proc/bus", "/"]));
        });
        assert_eq!(printed, "refused\nroot:x:0:0:root:/root:/bin/sh\n");
    });
}

#[test]
fn writable_root() {
    case(|| {
        let bundle = Bundle::sh("echo from-inside > /file");
        let container = bundle.container();
        container.run().ok();
        assert_eq!(text(container.bundle.rootfs().join("file")), "from-inside\n");
    });
}

#[test]
fn masked_paths_show_nothing() {
    case(|| {
        let script = "cat /etc/group | wc -c; ls /mnt | wc -l; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
                      echo x > /etc/group; touch /mnt/x 2>/dev/null || echo refused; cat /nosuch 2>/dev/null || echo none";
        let container = {
            let mut bundle = Bundle::sh(script);
            fs::write(bundle.rootfs().join("mnt/secret"), "").unwrap();
            bundle.set(
                "/linux/maskedPaths",
                json!(["/etc/group", "/mnt", "/proc/timer_list", "/sys/firmware", "/nosuch"]),
            );
            bundle.container()
        };
        let output = container.run().ok();
        assert_eq!(output.stdout, "0\n0\n0\n0\nrefused\nnone\n", "{output:?}");
        assert_ne!(text(container.bundle.rootfs().join("etc/group")), "", "the masked file was written to");
    });
}

#[test]
fn readonly_paths_cannot_be_written() {
    case(|| {
        let script = "for f in /proc/sys/kernel/domainname /etc/group /mnt/deep/file; do \
                      [ -e $f ] || echo no $f; (echo x > $f) 2>/dev/null && echo wrote $f; done; \
                      mount -o remount,rw,bind /proc/sys 2>/dev/null && echo remounted; echo end";
        let printed = inside(script, |bundle| {
            fs::create_dir(bundle.rootfs().join("mnt/deep")).unwrap();
            fs::write(bundle.rootfs().join("mnt/deep/file"), "").unwrap();
            bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/etc/group", "/mnt", "/nosuch"]));
        });
        assert_eq!(printed, "end\n");
    });
}

// ---------------------------------------------------------------------------------------------- the process

#[test]
fn environment_is_that_of_the_configuration_and_home() {
    case(|| {
        // Put into the runtime's own environment: nothing of that may arrive.
        let mut bundle = Bundle::new();
        bundle.args(&["env"]);
        let container = bundle.container();
        let call = container.call_bundle("run", &[]).env("SECRET_OF_THE_CALLER", "1");
        let mut found: Vec<String> = call.run().ok().stdout.lines().map(str::to_owned).collect();
        found.sort();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(found, ["HOME=/root", path, "TERM=xterm"]);
    });
}

#[test]
fn environment_home_of_the_user() {
    case(|| {
        for (uid, env, home) in [
            (1000, json!(["PATH=/bin"]), "/home/user"),
            (4321, json!(["PATH=/bin"]), "/"),
            (1000, json!(["PATH=/bin", "HOME=/mine"]), "/mine"),
        ] {
            let printed = inside("echo $HOME", |bundle| {
                bundle.set("/process/user/uid", json!(uid)).set("/process/env", env);
            });
            assert_eq!(printed.trim(), home, "uid {uid}");
        }
    });
}

#[test]
fn environment_with_a_variable_twice() {
    case(|| {
        let printed = inside("", |bundle| {
            bundle.set("/process/env", json!(["PATH=/bin", "A=1", "B=x=y", "A=2"])).args(&["env"]);
        });
        assert!(printed.contains("A=2\n") && printed.contains("B=x=y\n"), "{printed}");
    });
}

#[test]
fn arguments_arrive_unchanged() {
    case(|| {
        let odd = ["a b", "", "$HOME", "\"quoted\"", "new\nline", "\u{20ac}", "-x"];
        let printed = inside("", |bundle| {
            bundle.args(&[&["sh", "-c", "for a in \"$@\"; do echo \"<$a>\"; done", "sh"], &odd[..]].concat());
        });
        let expected: String = odd.iter().map(|arg| format!("<{arg}>\n")).collect();
        assert_eq!(printed, expected);
    });
}

#[test]
fn descriptors_are_the_standard_streams() {
    case(|| {
        // `ls` is a child: pid 1 is the shell, which the runtime executed.
        let container = Bundle::sh("ls /proc/1/fd; : end").container();
        let output = container.call_bundle("run", &[]).run().ok();
        assert_eq!(output.stdout, "0\n1\n2\n");
    });
}

#[test]
fn descriptors_inherited_by_the_runtime_do_not_arrive() {
    case(|| {
        let container = Bundle::sh("ls /proc/1/fd; : end").container();
        let open = "exec 3</ 4</proc 5</dev/null 6</etc/passwd 7<. 8</dev 9</tmp; exec \"$@\"";
        let output = container.call_bundle("run", &[]).below(["sh", "-c", open, "sh"]).run().ok();
        assert_eq!(output.stdout, "0\n1\n2\n");
    });
}

#[test]
fn init_is_pid_1_and_leads_a_session() {
    case(|| {
        let printed = inside(
            "read line < /proc/self/stat; echo $line; readlink /proc/1/exe; pwd; ls -d /proc/[0-9]* | wc -l",
            |_| {},
        );
        let lines: Vec<&str> = printed.lines().collect();
        let fields: Vec<&str> = lines[0].split(' ').collect();
        // pid (comm) state ppid pgrp session tty
        assert_eq!(&fields[..7], ["1", "(sh)", "R", "0", "1", "1", "0"], "{printed}");
        assert_eq!(&lines[1..3], ["/bin/busybox", "/"]);
        // This shell, ls and wc.
        assert!(["2", "3"].contains(&lines[3]), "{printed}");
    });
}

#[test]
fn init_has_one_thread_and_default_signals() {
    case(|| {
        let status = status(|_| {});
        assert_eq!(status["Threads"], "1");
        assert_eq!(status["SigBlk"], "0000000000000000");
        // What the caller ignores is ignored, and nothing for the runtime's own sake (SIGPIPE, for one).
        let own = text("/proc/self/status");
        let own = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
        let ignored = |mask: &str| u64::from_str_radix(mask, 16).unwrap();
        assert_eq!(ignored(&status["SigIgn"]) & (!ignored(own) | 1 << 12), 0, "{}", status["SigIgn"]);
        assert_eq!(status["Seccomp"], "0");
        assert_eq!(status["TracerPid"], "0");
    });
}

#[test]
fn cpu_affinity_is_the_callers() {
    case(|| {
        let own = text("/proc/self/status");
        let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap().trim();
        assert_eq!(status(|_| {})["Cpus_allowed"], own);
    });
}

fn capabilities(edit: impl FnOnce(&mut Bundle)) -> Vec<String> {
    let status = status(edit);
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| status[set].trim_start_matches('0').to_owned()).into()
}

#[test]
fn capabilities_of_the_base_configuration() {
    case(|| {
        // CAP_KILL 5, CAP_NET_BIND_SERVICE 10, CAP_AUDIT_WRITE 29. Ambient ones need inheritable ones.
        assert_eq!(capabilities(|_| {}), ["", "20000420", "20000420", "20000420", ""]);
    });
}

#[test]
fn capabilities_of_another_user_are_none() {
    case(|| {
        let found = capabilities(|bundle| {
            bundle.set("/process/user/uid", json!(1000));
        });
        assert_eq!(found, ["", "", "", "20000420", ""]);
    });
}

#[test]
fn capabilities_that_are_ambient_reach_another_user() {
    case(|| {
        let found = capabilities(|bundle| {
            let set = json!(["CAP_KILL"]);
            bundle.set("/process/user/uid", json!(1000)).set(
                "/process/capabilities",
                json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set}),
            );
        });
        assert_eq!(found, ["20", "20", "20", "20", "20"]);
    });
}

#[test]
fn capabilities_differ_by_set() {
    case(|| {
        let found = capabilities(|bundle| {
            bundle.set(
                "/process/capabilities",
                json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": []}),
            );
        });
        // execve of uid 0 gives the whole bounding set: only that one limits root.
        assert_eq!((found[3].as_str(), found[4].as_str()), ("21", ""));
    });
}

#[test]
fn capabilities_empty() {
    case(|| {
        let found = capabilities(|bundle| {
            bundle.capabilities(&[]);
        });
        assert_eq!(found, [""; 5]);
    });
}

#[test]
fn capabilities_property_missing_gives_none() {
    case(|| {
        let found = capabilities(|bundle| {
            bundle.remove("/process/capabilities");
        });
        assert_eq!(found, [""; 5]);
    });
}

#[test]
fn no_new_privileges() {
    case(|| {
        for flag in [true, false] {
            let status = status(|bundle| {
                bundle.set("/process/noNewPrivileges", json!(flag));
            });
            assert_eq!(status["NoNewPrivs"], if flag { "1" } else { "0" });
        }
    });
}

#[test]
fn rlimits() {
    case(|| {
        // Type, name in /proc/self/limits, soft, hard. None may keep the test's own programs from running, and none is
        // above the usual hard limit of the caller, who may lack CAP_SYS_RESOURCE.
        let table = [
            ("RLIMIT_CPU", "Max cpu time", 100_u64, 200_u64),
            ("RLIMIT_FSIZE", "Max file size", 1 << 30, 2 << 30),
            ("RLIMIT_DATA", "Max data size", 1 << 31, 1 << 32),
            ("RLIMIT_STACK", "Max stack size", 4 << 20, 8 << 20),
            ("RLIMIT_CORE", "Max core file size", 0, 1000),
            ("RLIMIT_RSS", "Max resident set", 1 << 31, 1 << 32),
            ("RLIMIT_NPROC", "Max processes", 5000, 6000),
            ("RLIMIT_NOFILE", "Max open files", 100, 200),
            ("RLIMIT_MEMLOCK", "Max locked memory", 65536, 131_072),
            ("RLIMIT_AS", "Max address space", 1 << 32, 1 << 33),
            ("RLIMIT_LOCKS", "Max file locks", 10, 20),
            ("RLIMIT_SIGPENDING", "Max pending signals", 11, 22),
            ("RLIMIT_MSGQUEUE", "Max msgqueue size", 12, 24),
            ("RLIMIT_NICE", "Max nice priority", 0, 0),
            ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
            ("RLIMIT_RTTIME", "Max realtime timeout", 5_000_000, 6_000_000),
        ];
        let printed = inside("cat /proc/1/limits", |bundle| {
            let list: Vec<_> =
                table.iter().map(|(kind, _, soft, hard)| json!({"type": kind, "soft": soft, "hard": hard})).collect();
            bundle.set("/process/rlimits", json!(list));
        });
        for (kind, name, soft, hard) in table {
            let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
            let values: Vec<&str> = line[name.len()..].split_whitespace().collect();
            assert_eq!(&values[..2], [soft.to_string(), hard.to_string()], "{kind}");
        }
    });
}

#[test]
fn rlimit_without_end() {
    case(|| {
        let printed = inside("ulimit -c; ulimit -Hc", |bundle| {
            bundle.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX}]));
        });
        assert_eq!(printed, "unlimited\nunlimited\n");
    });
}

#[test]
fn user_and_groups() {
    case(|| {
        let status = status(|bundle| {
            bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 70000, 6]}));
        });
        assert_eq!(status["Uid"], "1000 1000 1000 1000");
        assert_eq!(status["Gid"], "1001 1001 1001 1001");
        assert_eq!(status["Groups"], "5 6 70000");
    });
}

#[test]
fn groups_of_the_caller_are_dropped() {
    case(|| {
        assert_eq!(status(|_| {})["Groups"], "");
    });
}

/// They are read back.
#[test]
fn groups_that_a_profile_only_pretends_to_set() {
    case(|| {
        let twice = status(|bundle| {
            bundle.set("/process/user/additionalGids", json!([6, 5, 6]));
        });
        assert_eq!(twice["Groups"], "5 6 6");
        let mut bundle = Bundle::new();
        bundle.set("/process/user/additionalGids", json!([6, 5])).set("/process/noNewPrivileges", json!(false));
        let rule = json!([{"names": ["setgroups"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]);
        bundle.set("/linux/seccomp", crate::errors::seccomp(rule));
        let container = bundle.container();
        let stderr = container.create().fails().stderr;
        assert!(!ours() || stderr == "process.user.additionalGids: set the groups [6, 5]\n", "{stderr}");
        container.nothing_left();
    });
}

#[test]
fn largest_uid_and_gid() {
    case(|| {
        let status = status(|bundle| {
            bundle.set("/process/user", json!({"uid": 4_294_967_294_u32, "gid": 2_147_483_648_u32}));
        });
        assert_eq!(status["Uid"].split(' ').next().unwrap(), "4294967294");
        assert_eq!(status["Gid"].split(' ').next().unwrap(), "2147483648");
    });
}

#[test]
fn umask() {
    case(|| {
        assert_eq!(inside("umask", |_| {}), "0022\n");
        let printed = inside("umask", |bundle| {
            bundle.set("/process/user/umask", json!(0o077));
        });
        assert_eq!(printed, "0077\n");
        let printed = inside("umask", |bundle| {
            bundle.set("/process/user/umask", json!(0));
        });
        assert_eq!(printed, "0000\n");
    });
}

#[test]
fn cwd_is_entered() {
    case(|| {
        let printed = inside("pwd; readlink /proc/self/cwd", |bundle| {
            bundle.set("/process/cwd", json!("/etc"));
        });
        assert_eq!(printed, "/etc\n/etc\n");
    });
}

#[test]
fn cwd_is_created() {
    case(|| {
        let printed = inside("pwd; stat -c '%a %u:%g' .", |bundle| {
            bundle.set("/process/cwd", json!("/new/dir"));
        });
        assert_eq!(printed, "/new/dir\n755 0:0\n");
    });
}

#[test]
fn cwd_that_only_root_may_enter() {
    case(|| {
        // By the capabilities before the change of the user, or not at all: but never somewhere else.
        let mut bundle = Bundle::sh("pwd");
        let directory = bundle.rootfs().join("mine");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        bundle.set("/process/cwd", json!("/mine")).set("/process/user/uid", json!(1000));
        let output = bundle.container().run();
        assert!(output.code() != 0 || output.stdout == "/mine\n", "{output:?}");
    });
}

/// `podman run --group-add keep-groups`.
#[test]
fn groups_are_kept_with_the_annotation() {
    case(|| {
        let own = text("/proc/self/status");
        let own = own.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap().trim();
        let status = status(|bundle| {
            bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
            bundle.set("/process/user/additionalGids", json!([5]));
        });
        assert_eq!(status["Groups"], own);
    });
}

#[test]
fn oom_score() {
    case(|| {
        let own = text("/proc/self/oom_score_adj");
        assert_eq!(inside("cat /proc/self/oom_score_adj", |_| {}), own);
        for value in [500, 1000, 0] {
            let printed = inside("cat /proc/self/oom_score_adj", |bundle| {
                bundle.set("/process/oomScoreAdj", json!(value));
            });
            assert_eq!(printed, format!("{value}\n"));
        }
    });
}

#[test]
fn hostname_and_domainname() {
    case(|| {
        let host = text("/proc/sys/kernel/hostname");
        let printed = inside("hostname; cat /proc/sys/kernel/domainname", |bundle| {
            bundle.set("/hostname", json!("box")).set("/domainname", json!("example.org"));
        });
        assert_eq!(printed, "box\nexample.org\n");
        assert_eq!(text("/proc/sys/kernel/hostname"), host);
    });
}

#[test]
fn hostname_absent_keeps_the_hosts() {
    case(|| {
        let printed = inside("hostname", |bundle| {
            bundle.remove("/hostname");
        });
        assert_eq!(printed, text("/proc/sys/kernel/hostname"));
    });
}

#[test]
fn hostname_of_64_bytes() {
    case(|| {
        let name = "n".repeat(64);
        let printed = inside("hostname", |bundle| {
            bundle.set("/hostname", json!(name));
        });
        assert_eq!(printed.trim(), name);
    });
}

#[test]
fn sysctls() {
    case(|| {
        let ours = [
            ("net.ipv4.ip_forward", "1"),
            ("net/ipv4/conf/lo/rp_filter", "2"),
            ("kernel.msgmax", "12345"),
            ("kernel.shm_rmid_forced", "1"),
            ("fs.mqueue.msg_max", "17"),
        ];
        let files = ours.map(|(name, _)| format!("/proc/sys/{}", name.replace('.', "/")));
        let before = files.each_ref().map(text);
        let printed = inside(&format!("cat {}", files.join(" ")), |bundle| {
            let object: serde_json::Map<_, _> =
                ours.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            bundle.set("/linux/sysctl", object.into());
        });
        assert_eq!(printed.lines().collect::<Vec<_>>(), ours.map(|(_, value)| value));
        assert_eq!(files.each_ref().map(text), before, "a setting of the host changed");
    });
}

#[test]
fn loopback_is_up() {
    case(|| {
        // IFF_UP | IFF_LOOPBACK, and nothing else to be seen.
        assert_eq!(inside("cat /sys/class/net/lo/flags; ls /sys/class/net", |_| {}), "0x9\nlo\n");
    });
}

#[test]
fn session_keyring_is_new() {
    case(|| {
        if !Path::new("/proc/keys").exists() {
            skip!("no /proc/keys: the kernel has no key facility");
        }
        let mut bundle = Bundle::sh("cat /proc/keys");
        bundle.set("/linux/maskedPaths", json!([]));
        let container = bundle.container();
        let with = container.run().ok().stdout;
        assert!(with.contains(&container.id), "no session keyring of its own: {with}");
        // Another id: the kernel takes its time to forget a keyring.
        let mut bundle = Bundle::sh("cat /proc/keys");
        bundle.set("/linux/maskedPaths", json!([]));
        let container = bundle.container();
        let without = container.call_bundle("run", &["--no-new-keyring"]).run().ok().stdout;
        assert!(!without.contains(&container.id), "{without}");
    });
}

/// Uses up the quota of keys of a user, until the thread that calls it ends.
#[allow(unsafe_code, reason = "add_key(2) has no wrapper")]
fn use_up_keys(user: u32) {
    let id = rustix::thread::Uid::from_raw(user);
    // Of this thread alone, as system calls are (nptl(7)).
    rustix::thread::set_thread_res_uid(id, id, id).unwrap();
    for number in 0.. {
        let name = std::ffi::CString::new(format!("runtime-test-{number}")).unwrap();
        let (kind, payload, ring) = (c"user".as_ptr(), c"x".as_ptr(), libc::KEY_SPEC_THREAD_KEYRING);
        // SAFETY: two texts that end with NUL, and a payload of one byte.
        if unsafe { libc::syscall(libc::SYS_add_key, kind, name.as_ptr(), payload, 1usize, ring) } < 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EDQUOT));
            return;
        }
    }
}

/// A session keyring of this thread, and of whom it forks, with a key.
#[allow(unsafe_code, reason = "keyctl(2) has no wrapper")]
fn keep_a_secret() {
    let (kind, name, payload) = (c"user".as_ptr(), c"secret-of-the-caller".as_ptr(), c"x".as_ptr());
    let no_name = std::ptr::null::<u8>();
    // SAFETY: texts that end with NUL, and a payload of one byte.
    let made = unsafe {
        [
            libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name),
            libc::syscall(libc::SYS_add_key, kind, name, payload, 1usize, libc::KEY_SPEC_SESSION_KEYRING),
        ]
    };
    assert!(made.iter().all(|key| *key > 0), "{made:?}");
}

#[allow(unsafe_code, reason = "keyctl(2) has no wrapper")]
fn find_the_secret() -> i64 {
    let (search, ring) = (libc::KEYCTL_SEARCH, libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: texts that end with NUL.
    unsafe { libc::syscall(libc::SYS_keyctl, search, ring, c"user".as_ptr(), c"secret-of-the-caller".as_ptr(), 0) }
}

/// Not a test by itself: what runs in the container.
#[test]
#[ignore = "a part of a test of keys"]
fn seeker() {
    println!("{}", if find_the_secret() > 0 { "found" } else { "not found" });
}

/// The keys of who calls the runtime are none of the container's: not when its user has no room for a keyring, which its own
/// processes can see to, either. As with some hundred containers of one user: each has a session keyring.
#[test]
fn a_used_up_quota_of_keys_is_a_warning_and_gives_no_keys_of_the_caller() {
    case(|| {
        if !Path::new("/proc/keys").exists() || !user_namespaces() {
            skip!("no /proc/keys or no user namespaces");
        }
        // Who has no other container, and no keys that the kernel is about to forget.
        let user = 1_000_000 + std::process::id();
        let seeker = "seeker --exact inside::seeker --ignored --nocapture --test-threads=1";
        let mut bundle = Bundle::sh(&format!("{seeker}; {WAITING}"));
        crate::support::copy_program(std::env::current_exe().unwrap(), bundle.rootfs().join("bin/seeker"));
        let map = json!([{"containerID": 0, "hostID": user, "size": 65536}]);
        bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        let container = bundle.container();
        let ((full, when_full), (done, when_done)) = (channel(), channel::<()>());
        std::thread::spawn(move || {
            use_up_keys(user);
            full.send(()).unwrap();
            // Until the other end is dropped.
            let _ = when_done.recv();
        });
        when_full.recv().unwrap();
        keep_a_secret();
        assert!(find_the_secret() > 0);
        let (call, mut io) = with_io(container.call_bundle("create", &[]));
        let create = call.run().ok();
        container.start().ok();
        let by_create = io.stdout.until("ready");
        let exec = container.call(["exec", &container.id, "sh", "-c", seeker]).run().ok();
        assert!(by_create.contains("not found") && exec.stdout.contains("not found"), "{by_create}{}", exec.stdout);
        for output in [create, exec] {
            assert!(output.stderr.contains("(EDQUOT)\nhint: raise kernel.keys.maxkeys"), "{output:?}");
        }
        drop(done);
        container.stop();
    });
}

#[test]
fn standard_input_from_the_hosts_null_device() {
    case(|| {
        // An open file of the host's /dev would be a way out of the container's mounts.
        let container = Bundle::sh("stat -L -c '%t:%T %d' /proc/self/fd/0 /dev/null; cat; echo end").container();
        let (mut lines, stdout) = pipe();
        container.call_bundle("create", &[]).stdin(File::open("/dev/null").unwrap()).stdout(stdout).run().ok();
        container.start().ok();
        let printed = lines.rest();
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines.len() == 3 && lines[0] == lines[1] && lines[0].starts_with("1:3 "), "{printed}");
    });
}

#[test]
fn own_executable_of_the_container_is_no_runtime() {
    case(|| {
        // After execve nothing of the runtime is mapped into the container's process.
        let printed = inside("cat /proc/1/maps; cat /proc/1/comm", |_| {});
        let files =
            printed.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|name| name.starts_with('/'));
        for file in files {
            assert_eq!(file, "/bin/busybox", "{printed}");
        }
        assert!(busybox().exists());
    });
}

#[test]
fn limits_read_back_inside() {
    case(|| {
        let Some(_) = controller("pids") else { skip!("no pids controller") };
        let file = if cgroup_v2() { "/sys/fs/cgroup/pids.max" } else { "/sys/fs/cgroup/pids/pids.max" };
        let printed = inside(&format!("cat {file}"), |bundle| {
            bundle.namespace("cgroup", None).set("/linux/resources/pids", json!({"limit": 123}));
        });
        assert_eq!(printed, "123\n");
    });
}
