//! `features`: the document is whole, and what it says is so.

use serde_json::{Value, json};

use crate::support::{Bundle, Call, case, inside, ours, runtime, skip};

fn document() -> Value {
    let output = Call::new(runtime()).args(["features"]).run().ok();
    assert_eq!(output.stderr, "");
    serde_json::from_str(&output.stdout).unwrap()
}

fn list(pointer: &str) -> Vec<String> {
    let list: Vec<String> = serde_json::from_value(document().pointer(pointer).unwrap().clone()).unwrap();
    assert!(!list.is_empty(), "{pointer}");
    list
}

/// The properties of features.md and features-linux.md of runtime-spec 1.3.
const PROPERTIES: &[&str] = &[
    "/ociVersionMin",
    "/ociVersionMax",
    "/hooks",
    "/mountOptions",
    "/annotations",
    "/potentiallyUnsafeConfigAnnotations",
    "/linux/namespaces",
    "/linux/capabilities",
    "/linux/cgroup/v1",
    "/linux/cgroup/v2",
    "/linux/cgroup/systemd",
    "/linux/cgroup/systemdUser",
    "/linux/cgroup/rdma",
    "/linux/seccomp/enabled",
    "/linux/seccomp/actions",
    "/linux/seccomp/operators",
    "/linux/seccomp/archs",
    "/linux/seccomp/knownFlags",
    "/linux/seccomp/supportedFlags",
    "/linux/apparmor/enabled",
    "/linux/selinux/enabled",
    "/linux/intelRdt/enabled",
    "/linux/intelRdt/schemata",
    "/linux/intelRdt/monitoring",
    "/linux/memoryPolicy/modes",
    "/linux/memoryPolicy/flags",
    "/linux/mountExtensions/idmap/enabled",
    "/linux/netDevices/enabled",
];

/// An engine that filters what users may say goes by this list.
#[test]
fn annotations_that_act_are_listed() {
    case(|| {
        let document = document();
        let listed = document["potentiallyUnsafeConfigAnnotations"].as_array().cloned().unwrap_or_default();
        for name in ["org.systemd.property.", "run.oci.hooks.stdout", "run.oci.seccomp.receiver"] {
            assert!(!ours() || listed.iter().any(|one| one == name), "{name} in {listed:?}");
        }
    });
}

#[test]
fn nothing_is_unknown() {
    case(|| {
        let document = document();
        for pointer in PROPERTIES {
            assert!(document.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer} in {document}");
        }
    });
}

#[test]
fn nothing_is_there_that_the_specification_does_not_have() {
    fn walk(value: &Value, path: &str) {
        match value.as_object() {
            Some(object) if path != "/annotations" => {
                object.iter().for_each(|(name, value)| walk(value, &format!("{path}/{name}")));
            }
            Some(annotations) => assert!(annotations.iter().all(|(key, value)| !key.is_empty() && value.is_string())),
            None => assert!(PROPERTIES.contains(&path), "{path}"),
        }
    }
    case(|| walk(&document(), ""));
}

#[test]
fn both_versions_are_accepted() {
    case(|| {
        let document = document();
        let version = |name: &str| document[name].as_str().unwrap().to_owned();
        assert!(version("ociVersionMin") <= version("ociVersionMax"));
        for name in ["ociVersionMin", "ociVersionMax"] {
            inside("true", |bundle| {
                bundle.set("/ociVersion", document[name].clone());
            });
        }
    });
}

fn refused(option: &str) -> String {
    let mut bundle = Bundle::sh("true");
    bundle.mount("/t", "none", "/tmp", &["bind", option]);
    bundle.container().run().fails().stderr
}

#[test]
fn every_mount_option_is_known() {
    case(|| {
        for option in list("/mountOptions") {
            // What is not known would be data of the file system, which tmpfs does not take either.
            inside("true", |bundle| {
                match option.as_str() {
                    "bind" | "rbind" => bundle.mount("/t", "none", "/tmp", &[&option]),
                    "idmap" | "ridmap" => {
                        // Not with an effect, which the file system may not have: refused for what is missing.
                        let output = refused(&option);
                        assert!(output.contains("idmap without mappings"), "{output}");
                        bundle
                    }
                    "remount" => bundle.mount("/dev", "tmpfs", "tmpfs", &[&option]),
                    _ => bundle.mount("/t", "tmpfs", "tmpfs", &[&option]),
                };
            });
        }
    });
}

#[test]
fn every_namespace_is_known() {
    case(|| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        for kind in list("/linux/namespaces") {
            inside("true", |bundle| {
                bundle.no_namespace(&kind).namespace(&kind, None);
                if kind == "user" {
                    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
                }
            });
        }
    });
}

#[test]
fn every_capability_is_known() {
    case(|| {
        let all = list("/linux/capabilities");
        let mut bundle = Bundle::sh("true");
        bundle.capabilities(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let output = bundle.container().run().ok();
        assert!(!output.stderr.contains("is not a capability"), "{output:?}");
    });
}

#[test]
fn everything_of_seccomp_is_known() {
    case(|| {
        let (actions, operators) = (list("/linux/seccomp/actions"), list("/linux/seccomp/operators"));
        let mut rules: Vec<Value> = Vec::new();
        // Calls that the program of the container does not make.
        for (action, name) in actions.iter().zip([
            "mbind",
            "acct",
            "swapon",
            "swapoff",
            "reboot",
            "nfsservctl",
            "vhangup",
            "uselib",
            "sysfs",
        ]) {
            rules.push(json!({"names": [name], "action": action}));
        }
        assert_eq!(rules.len(), actions.len(), "a name for each action");
        for (index, operator) in operators.iter().enumerate() {
            let args = json!([{"index": 0, "value": index, "valueTwo": 0, "op": operator}]);
            rules.push(json!({"names": ["quotactl"], "action": "SCMP_ACT_ERRNO", "args": args}));
        }
        let flags = list("/linux/seccomp/knownFlags");
        let archs = list("/linux/seccomp/archs");
        let mut bundle = Bundle::sh("true");
        let agent = crate::seccomp_notify::Agent::new(&bundle);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": archs, "flags": flags, "syscalls": rules,
                                 "listenerPath": agent.path});
        bundle.set("/linux/seccomp", profile);
        bundle.container().run().ok();
        if ours() {
            let known = list("/linux/seccomp/knownFlags");
            assert!(list("/linux/seccomp/supportedFlags").iter().all(|flag| known.contains(flag)));
        }
    });
}

#[test]
fn every_memory_policy_is_known() {
    case(|| {
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            skip!("no NUMA in this kernel");
        }
        // A name that is not known is refused as such; the kernel may refuse a mode that is newer than it.
        for mode in list("/linux/memoryPolicy/modes") {
            for flag in list("/linux/memoryPolicy/flags") {
                let mut bundle = Bundle::sh("true");
                bundle.set("/linux/memoryPolicy", json!({"mode": mode, "nodes": "0", "flags": [flag]}));
                let output = bundle.container().run();
                assert!(!output.stderr.contains("unknown variant"), "{output:?}");
            }
        }
    });
}

#[test]
fn every_hook_is_run() {
    case(|| {
        for name in list("/hooks") {
            let mut bundle = Bundle::sh("true");
            let seen = bundle.directory.join("seen");
            let script = format!("echo {name} > {}", seen.display());
            // startContainer runs where the bundle cannot be seen: its failure is.
            let hook = if name == "startContainer" {
                json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 9"]}])
            } else {
                json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
            };
            bundle.set(&format!("/hooks/{name}"), hook);
            let container = bundle.container();
            let output = container.run();
            if name == "startContainer" {
                assert!(output.code() != 0 && output.stderr.contains('9'), "{output:?}");
            } else {
                output.ok();
                assert_eq!(std::fs::read_to_string(&seen).unwrap(), format!("{name}\n"));
            }
        }
    });
}

#[test]
fn id_mapped_mounts_are_there() {
    case(|| assert_eq!(document()["linux"]["mountExtensions"]["idmap"]["enabled"], true));
}
