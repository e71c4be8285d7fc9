//! A container in a container: this runtime runs in one of its own, as privileged root, as root of a user namespace, and as
//! an engine confines it.

mod docker;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::idmap::tmpfs_can_be_mapped;
use crate::namespaces::{mappings, user_namespaces};
use crate::support::{Bundle, Output, base_config, busybox, case, ours, runtime, skip};

/// A container whose root file system has the runtime and a bundle in it, and which runs that bundle.
fn outer(script: &str, edit: impl FnOnce(&mut Value)) -> Bundle {
    let mut bundle = Bundle::sh(script);
    let root = bundle.rootfs();
    crate::support::copy_program(runtime(), root.join("bin/runtime"));
    fs::create_dir(root.join("run")).unwrap();
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join("mnt/rootfs").join(directory)).unwrap();
    }
    for program in ["sh", "id", "echo", "hostname", "cat", "true"] {
        crate::support::copy_program(busybox(), root.join("mnt/rootfs/bin").join(program));
    }
    let mut inner = base_config();
    inner["process"]["args"] = json!(["sh", "-c", "id -u; hostname; echo x > /dev/null && echo written; echo $$"]);
    edit(&mut inner);
    fs::write(root.join("mnt/config.json"), inner.to_string()).unwrap();
    // Everything, as `docker run --privileged` gives it.
    let all: Vec<String> = (0..=40).filter_map(capability).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    bundle.capabilities(&names).set("/process/noNewPrivileges", json!(false));
    bundle.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    bundle.unmount("/sys/fs/cgroup").namespace("cgroup", None);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "rw"]);
    bundle.mount("/run", "tmpfs", "tmpfs", &["mode=755"]);
    bundle
}

/// Names by number, of linux/capability.h.
fn capability(number: u8) -> Option<String> {
    let name = match number {
        0 => "CHOWN",
        1 => "DAC_OVERRIDE",
        2 => "DAC_READ_SEARCH",
        3 => "FOWNER",
        4 => "FSETID",
        5 => "KILL",
        6 => "SETGID",
        7 => "SETUID",
        8 => "SETPCAP",
        10 => "NET_BIND_SERVICE",
        12 => "NET_ADMIN",
        16 => "SYS_MODULE",
        18 => "SYS_CHROOT",
        19 => "SYS_PTRACE",
        21 => "SYS_ADMIN",
        23 => "SYS_NICE",
        27 => "MKNOD",
        29 => "AUDIT_WRITE",
        31 => "SETFCAP",
        _ => return None,
    };
    Some(format!("CAP_{name}"))
}

/// Gives a configuration a user namespace, with ids from 1000 on.
fn map_again(config: &mut Value, size: u32) {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": size}]);
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

const RUN: &str = "cd /mnt && runtime --root /run/inner run inner";
const WORDS: &str = "0\ncontainer\nwritten\n1\n";

fn run(bundle: Bundle) -> Output {
    let container = bundle.container();
    let output = container.run();
    container.nothing_left();
    output
}

#[test]
fn privileged() {
    if !ours() {
        skip!("this runtime in its own container");
    }
    case(|| {
        let output = run(outer(&format!("{RUN} && {RUN} && ls /run/inner"), |_| {})).ok();
        assert_eq!(output.stdout, [WORDS, WORDS].concat());
    });
}

/// The life of a container by the single commands.
#[test]
fn privileged_by_single_commands() {
    if !ours() {
        skip!("this runtime in its own container");
    }
    case(|| {
        // On v2 a cgroup with processes, as that of this container, gives no controller to those below it.
        let script = "set -e; g=/sys/fs/cgroup; [ ! -e $g/cgroup.procs ] || { mkdir $g/own; echo $$ > $g/own/cgroup.procs; }; \
                      cd /mnt; r='runtime --root /run/inner'; $r create c </dev/null; $r start c; \
                      $r exec c id -u; $r ps -f json c | tr -d '0-9'; $r pause c; $r state c | grep status; $r resume c; \
                      $r update --pids-limit 50 c; $r delete --force c; ls /run/inner";
        let output =
            run(outer(script, |inner| inner["process"]["args"] = json!(["sh", "-c", "while :; do :; done"]))).ok();
        assert_eq!(output.stdout, "0\n[]\n  \"status\": \"paused\",\n");
    });
}

#[test]
fn as_root_of_a_user_namespace() {
    if !ours() || !user_namespaces() {
        skip!("this runtime in its own container, in a user namespace");
    }
    case(|| {
        let mut bundle = outer(RUN, |_| {});
        mappings(bundle.namespace("user", None));
        assert_eq!(run(bundle).ok().stdout, WORDS);
    });
}

/// With a user namespace of its own again, in which the ids are other ones.
#[test]
fn with_a_user_namespace_in_each() {
    if !ours() || !user_namespaces() {
        skip!("this runtime in its own container, in a user namespace");
    }
    case(|| {
        let mut bundle = outer(RUN, |inner| map_again(inner, 1000));
        mappings(bundle.namespace("user", None));
        assert_eq!(run(bundle).ok().stdout, WORDS);
    });
}

/// Root of a user namespace may map the ids of what was mounted there, and of nothing else.
#[test]
fn with_an_id_mapped_mount_in_a_user_namespace() {
    if !ours() || !user_namespaces() {
        skip!("this runtime in its own container, in a user namespace");
    }
    if !tmpfs_can_be_mapped() {
        skip!("no id-mapped tmpfs");
    }
    case(|| {
        for (source, works) in [("/run/volume", true), ("/mnt/volume", false)] {
            let look = "stat -c %u:%g /run/volume/new";
            let prepare = format!("mkdir -m 777 {source}; touch {source}/root");
            let mut bundle = outer(&format!("{prepare} && {RUN} && {look}"), |inner| {
                let map = json!([{"containerID": 0, "hostID": 30, "size": 10}]);
                let mount = json!({"destination": "/v", "type": "bind", "source": source, "options": ["bind"],
                                   "uidMappings": map, "gidMappings": map});
                inner["mounts"].as_array_mut().unwrap().push(mount);
                let script = "stat -c %u:%g /v/root; touch /v/new";
                inner["process"]["args"] = json!(["sh", "-c", script]);
                inner["process"]["user"] = json!({"uid": 33, "gid": 34});
            });
            for program in ["stat", "touch"] {
                crate::support::copy_program(busybox(), bundle.rootfs().join("mnt/rootfs/bin").join(program));
            }
            fs::set_permissions(bundle.rootfs().join("mnt"), fs::Permissions::from_mode(0o777)).unwrap();
            fs::create_dir(bundle.rootfs().join("mnt/rootfs/v")).unwrap();
            mappings(bundle.namespace("user", None));
            let output = run(bundle);
            if works {
                assert_eq!(output.ok().stdout, "30:30\n3:4\n");
            } else {
                let words = "mounts[7].uidMappings: map the ids of the mount: operation not permitted (EPERM)\nhint: ";
                assert!(output.fails().stderr.contains(words));
            }
        }
    });
}

/// An ordinary user in the container.
#[test]
fn by_an_ordinary_user() {
    if !ours() || !user_namespaces() {
        skip!("this runtime in its own container, in a user namespace");
    }
    case(|| {
        let mut bundle = outer("cd /mnt && runtime --root /tmp/inner run inner", |inner| {
            map_again(inner, 1);
            inner["linux"].as_object_mut().unwrap().remove("resources");
            inner["mounts"][2]["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
        });
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).capabilities(&[]);
        fs::set_permissions(bundle.rootfs().join("mnt"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(run(bundle).ok().stdout, WORDS);
    });
}

/// Where an engine has covered parts of /proc, a user namespace gets no new one.
#[test]
fn covered_parts_of_proc_are_named_as_the_reason() {
    if !ours() || !user_namespaces() {
        skip!("this runtime in its own container, in a user namespace");
    }
    case(|| {
        let mut bundle = outer(RUN, |inner| map_again(inner, 1000));
        bundle.set("/linux/maskedPaths", json!(["/proc/keys"]));
        mappings(bundle.namespace("user", None));
        let output = run(bundle).fails();
        assert!(output.stderr.contains("mounts[0]: mount proc on \"/proc\": "), "{}", output.stderr);
        assert!(output.stderr.contains("hint: parts of the /proc around this one are covered"), "{}", output.stderr);
    });
}

/// As profiles do that deny some kinds of clone: clone3 is not there, since a filter cannot look into its argument.
#[test]
fn behind_a_seccomp_filter_without_clone3() {
    if !ours() {
        skip!("this runtime in its own container");
    }
    case(|| {
        let mut bundle = outer(&RUN.replace(" run ", " run --no-new-keyring "), |_| {});
        let denied = json!(["add_key", "keyctl", "request_key", "kexec_load", "userfaultfd", "init_module", "swapon"]);
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {"names": denied, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
            ]
        });
        bundle.set("/linux/seccomp", profile);
        assert_eq!(run(bundle).ok().stdout, WORDS);
    });
}

/// What the bundle's process may have.
fn capabilities(bundle: &Bundle) -> Vec<&str> {
    let all = bundle.config["process"]["capabilities"]["bounding"].as_array().unwrap();
    all.iter().filter_map(Value::as_str).collect()
}

/// Docker's profile knows neither pivot_root(2) nor keys, whatever the container may.
const NO_PIVOT: &str = "cd /mnt && runtime --root /run/inner run --no-pivot inner";

#[test]
fn behind_dockers_seccomp_profile() {
    if !ours() {
        skip!("this runtime in its own container");
    }
    case(|| {
        for user in [false, true] {
            if user && !user_namespaces() {
                continue;
            }
            let mut bundle = outer(NO_PIVOT, |_| {});
            bundle.set("/linux/seccomp", docker::profile(&capabilities(&bundle)));
            if user {
                mappings(bundle.namespace("user", None));
            }
            let output = run(bundle).ok();
            assert_eq!(output.stdout, WORDS);
        }
    });
}

/// The life of a container there, by the single commands.
#[test]
fn behind_dockers_seccomp_profile_by_single_commands() {
    if !ours() {
        skip!("this runtime in its own container");
    }
    case(|| {
        let script = "set -e; cd /mnt; r='runtime --root /run/inner'; $r create --no-pivot c </dev/null; $r start c; \
                      $r exec c id -u; $r state c | grep status; $r kill c KILL; $r delete --force c; ls /run/inner";
        let mut bundle = outer(script, |inner| inner["process"]["args"] = json!(["sh", "-c", "while :; do :; done"]));
        bundle.set("/linux/seccomp", docker::profile(&capabilities(&bundle)));
        assert_eq!(run(bundle).ok().stdout, "0\n  \"status\": \"running\",\n");
    });
}

/// Without --no-pivot, and with what Docker gives by default.
#[test]
fn what_dockers_seccomp_profile_denies_is_named() {
    if !ours() || !user_namespaces() {
        skip!("this runtime in its own container, in a user namespace");
    }
    case(|| {
        let mut bundle = outer(RUN, |_| {});
        bundle.set("/linux/seccomp", docker::profile(&capabilities(&bundle)));
        let stderr = run(bundle).fails().stderr;
        assert!(
            stderr.contains("operation not permitted (EPERM)\nhint: ") && stderr.contains("--no-pivot"),
            "{stderr}"
        );

        let mut bundle = outer(RUN, |inner| map_again(inner, 1000));
        bundle.set("/linux/seccomp", docker::profile(&["CAP_SYS_CHROOT"]));
        let stderr = run(bundle).fails().stderr;
        let words = "linux.namespaces: create the namespaces: operation not permitted (EPERM)\nhint: ";
        assert!(stderr.contains(words) && stderr.contains("seccomp profile"), "{stderr}");
    });
}
