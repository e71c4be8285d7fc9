//! Broken configurations: each is refused with one line that names the field and the value, and leaves nothing behind.
//!
//! Of another runtime only the refusal and the absence of leftovers are asked.

mod hostile;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::seccomp_notify::profile;
use crate::support::{Bundle, Container, Output, bytes, case, cgroup_v2, hierarchies, ours, skip, text};

/// What every refusal has to look like.
#[track_caller]
fn refused(container: &Container, output: Output, words: &[&str]) {
    let output = output.fails();
    container.nothing_left();
    if ours() {
        assert_eq!(output.code(), 1, "{output:?}");
        assert_eq!(output.stdout, "", "{output:?}");
        let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("hint: ")).collect();
        assert!(lines.len() == 1 && !lines[0].is_empty(), "not one line: {:?}", output.stderr);
        for word in words {
            assert!(lines[0].contains(word), "no {word:?} in {:?}", output.stderr);
        }
    }
}

/// Breaks the base configuration and insists that `create` and `run` refuse it.
#[track_caller]
pub(crate) fn broken(edit: impl FnOnce(&mut Bundle), words: &[&str]) {
    let mut bundle = Bundle::new();
    edit(&mut bundle);
    let container = bundle.container();
    refused(&container, container.create(), words);
    refused(&container, container.run(), words);
}

/// A config.json that is these very bytes.
#[track_caller]
pub(crate) fn broken_text(text: &[u8], words: &[&str]) {
    let container = Bundle::new().container();
    fs::write(container.bundle.directory.join("config.json"), text).unwrap();
    let output = container.call(["create", &container.id]).run();
    refused(&container, output, words);
}

macro_rules! table {
    ($($name:ident: $edit:expr, $words:expr;)*) => {
        $(
            #[test]
            fn $name() {
                case(|| $crate::errors::broken(|bundle: &mut Bundle| { let edit: fn(&mut Bundle) = $edit; edit(bundle) }, &$words));
            }
        )*
    };
}
pub(crate) use table;

fn last_mount(bundle: &mut Bundle, name: &str, value: Value) {
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    bundle.set(&format!("/mounts/{last}/{name}"), value);
}

pub(crate) fn set(bundle: &mut Bundle, pointer: &str, value: Value) {
    bundle.set(pointer, value);
}

pub(crate) fn seccomp(syscalls: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": syscalls})
}

// The base configuration has mounts[0..7], env[0..2], rlimits[0..1], namespaces[0..5] and resources.devices[0..1].
table! {
    // ------------------------------------------------------------------------------------------ process
    uid_is_text: |b| set(b, "/process/user/uid", json!("1000")), ["process.user.uid", "1000"];
    uid_is_negative: |b| set(b, "/process/user/uid", json!(-1)), ["process.user.uid", "-1"];
    uid_is_the_kernels_minus_one: |b| set(b, "/process/user/uid", json!(4_294_967_295_u32)), ["process.user.uid", "4294967295"];
    uid_is_too_large: |b| set(b, "/process/user/uid", json!(4_294_967_296_u64)), ["process.user.uid", "4294967296"];
    gid_is_the_kernels_minus_one: |b| set(b, "/process/user/gid", json!(4_294_967_295_u32)), ["process.user.gid", "4294967295"];
    gid_is_too_large: |b| set(b, "/process/user/gid", json!(4_294_967_296_u64)), ["process.user.gid", "4294967296"];
    additional_gid_is_too_large: |b| set(b, "/process/user/additionalGids", json!([1, 4_294_967_296_u64])), ["process.user.additionalGids[1]", "4294967296"];
    additional_gid_is_the_kernels_minus_one: |b| set(b, "/process/user/additionalGids", json!([4_294_967_295_u32])), ["process.user.additionalGids[0]", "4294967295"];
    scheduler_has_no_policy: |b| set(b, "/process/scheduler", json!({"nice": 1})), ["process.scheduler.policy", "missing"];
    scheduler_policy_is_unknown: |b| set(b, "/process/scheduler", json!({"policy": "SCHED_BANANA"})), ["process.scheduler.policy", "SCHED_BANANA"];
    scheduler_priority_does_not_fit: |b| set(b, "/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 3})), ["process.scheduler.priority", "3"];
    scheduler_nice_is_too_large: |b| set(b, "/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20})), ["process.scheduler.nice", "20"];
    scheduler_flag_is_unknown: |b| set(b, "/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": ["BANANA"]})), ["process.scheduler.flags[0]", "BANANA"];
    scheduler_is_none_of_this_kernel: |b| set(b, "/process/scheduler", json!({"policy": "SCHED_ISO"})), ["process.scheduler", "SCHED_ISO", "EINVAL"];
    idmap_has_no_gid_mappings: |b| { b.mount("/v", "bind", "/tmp", &["bind"]); last_mount(b, "uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])); }, ["mounts[", "].gidMappings", "both uid and gid mappings"];
    idmap_has_no_uid_mappings: |b| { b.mount("/v", "bind", "/tmp", &["bind"]); last_mount(b, "gidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])); }, ["mounts[", "].uidMappings", "both uid and gid mappings"];
    idmap_without_mappings_and_user_namespace: |b| { b.mount("/v", "bind", "/tmp", &["bind", "idmap"]); }, ["mounts[", "].options", "idmap without mappings"];
    ridmap_without_mappings_and_user_namespace: |b| { b.mount("/v", "bind", "/tmp", &["rbind", "ridmap"]); }, ["mounts[", "].options", "idmap without mappings"];
    idmap_of_a_tmpfs: |b| { b.mount("/v", "tmpfs", "tmpfs", &["idmap"]); }, ["mounts[", "].type", "tmpfs", "only supported for bind-mounts"];
    io_priority_has_no_class: |b| set(b, "/process/ioPriority", json!({"priority": 1})), ["process.ioPriority.class", "missing"];
    io_priority_has_no_level: |b| set(b, "/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE"})), ["process.ioPriority.priority", "missing"];
    io_priority_is_too_low: |b| set(b, "/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8})), ["process.ioPriority.priority", "8"];
    memory_policy_has_no_mode: |b| set(b, "/linux/memoryPolicy", json!({"nodes": "0"})), ["linux.memoryPolicy.mode", "missing"];
    memory_policy_has_no_nodes: |b| set(b, "/linux/memoryPolicy", json!({"mode": "MPOL_BIND"})), ["linux.memoryPolicy.nodes", "MPOL_BIND"];
    memory_policy_nodes_are_no_list: |b| set(b, "/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-x"})), ["linux.memoryPolicy.nodes", "0-x"];
    memory_policy_nodes_are_not_there: |b| set(b, "/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "63"})), ["linux.memoryPolicy", "63", "EINVAL"];
    personality_has_a_flag: |b| set(b, "/linux/personality", json!({"domain": "LINUX", "flags": ["X"]})), ["linux.personality.flags", "X"];
    personality_has_no_domain: |b| set(b, "/linux/personality", json!({})), ["linux.personality.domain", "missing"];
    personality_is_unknown: |b| set(b, "/linux/personality", json!({"domain": "BSD"})), ["linux.personality.domain", "BSD"];
    args_are_missing: |b| { b.remove("/process/args"); }, ["process.args"];
    args_are_empty: |b| set(b, "/process/args", json!([])), ["process.args"];
    args_are_text: |b| set(b, "/process/args", json!("true")), ["process.args", "true"];
    args_hold_a_nul: |b| set(b, "/process/args", json!(["true", "a\0b"])), ["process.args[1]"];
    env_holds_a_nul: |b| set(b, "/process/env/2", json!("A=a\0b")), ["process.env[2]"];
    env_has_no_name: |b| set(b, "/process/env/2", json!("nothing")), ["process.env[2]", "nothing"];
    cwd_is_relative: |b| set(b, "/process/cwd", json!("relative/dir")), ["process.cwd", "relative/dir"];
    cwd_is_missing: |b| { b.remove("/process/cwd"); }, ["process", "cwd"];
    cwd_is_a_file: |b| set(b, "/process/cwd", json!("/etc/passwd")), ["process.cwd", "/etc/passwd"];
    rlimit_type_is_unknown: |b| set(b, "/process/rlimits/1", json!({"type": "RLIMIT_BANANA", "soft": 1, "hard": 1})), ["process.rlimits[1]", "RLIMIT_BANANA"];
    rlimit_is_there_twice: |b| set(b, "/process/rlimits/1", json!({"type": "RLIMIT_NOFILE", "soft": 9, "hard": 9})), ["process.rlimits[1]", "RLIMIT_NOFILE"];
    rlimit_soft_is_above_hard: |b| set(b, "/process/rlimits/1", json!({"type": "RLIMIT_CORE", "soft": 20, "hard": 10})), ["process.rlimits[1]", "20"];
    rlimit_is_negative: |b| set(b, "/process/rlimits/1", json!({"type": "RLIMIT_CORE", "soft": -5, "hard": 10})), ["process.rlimits[1]", "-5"];
    rlimit_has_no_hard: |b| set(b, "/process/rlimits/1", json!({"type": "RLIMIT_CORE", "soft": 5})), ["process.rlimits[1]", "hard"];
    no_new_privileges_is_text: |b| set(b, "/process/noNewPrivileges", json!("true")), ["process.noNewPrivileges", "true"];
    capabilities_are_text: |b| set(b, "/process/capabilities/bounding", json!("CAP_KILL")), ["process.capabilities.bounding", "CAP_KILL"];
    oom_score_is_too_large: |b| set(b, "/process/oomScoreAdj", json!(2000)), ["process.oomScoreAdj", "2000"];
    // ------------------------------------------------------------------------------------------ root, names, version
    version_is_from_the_future: |b| set(b, "/ociVersion", json!("9.9.9")), ["ociVersion", "9.9.9"];
    version_is_no_version: |b| set(b, "/ociVersion", json!("banana")), ["ociVersion", "banana"];
    version_is_missing: |b| { b.remove("/ociVersion"); }, ["ociVersion"];
    root_is_missing: |b| { b.remove("/root"); }, ["root"];
    root_path_is_not_there: |b| set(b, "/root/path", json!("nosuch")), ["root.path", "nosuch"];
    root_path_is_empty: |b| set(b, "/root/path", json!("")), ["root.path"];
    root_path_is_a_file: |b| set(b, "/root/path", json!("config.json")), ["root.path", "config.json"];
    root_path_holds_a_nul: |b| set(b, "/root/path", json!("rootfs\0x")), ["root.path"];
    hostname_is_too_long: |b| set(b, "/hostname", json!("h".repeat(300))), ["hostname", "300"];
    hostname_is_a_number: |b| set(b, "/hostname", json!(7)), ["hostname", "7"];
    hostname_holds_a_nul: |b| set(b, "/hostname", json!("a\0b")), ["hostname"];
    hostname_without_a_uts_namespace: |b| { b.no_namespace("uts"); }, ["hostname"];
    domainname_is_too_long: |b| set(b, "/domainname", json!("d".repeat(300))), ["domainname", "300"];
    domainname_without_a_uts_namespace: |b| { b.no_namespace("uts").remove("/hostname").set("/domainname", json!("d")); }, ["domainname"];
    annotation_is_a_number: |b| set(b, "/annotations", json!({"key": 1})), ["annotations.key", "1"];
    // ------------------------------------------------------------------------------------------ mounts
    mount_source_is_not_there: |b| { b.mount("/mnt", "bind", "/nosuch/source", &["bind"]); }, ["mounts[7]", "/nosuch/source"];
    mount_type_is_unknown: |b| { b.mount("/mnt", "nosuchfs", "none", &[]); }, ["mounts[7].type", "nosuchfs"];
    mount_option_has_a_bad_value: |b| { b.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "size=banana"]); }, ["mounts[7].options", "size=banana"];
    mount_option_is_unknown: |b| { b.mount("/mnt", "tmpfs", "tmpfs", &["nosuchoption"]); }, ["mounts[7].options", "nosuchoption"];
    mount_options_are_text: |b| set(b, "/mounts/7", json!({"destination": "/mnt", "type": "tmpfs", "source": "t", "options": "ro"})), ["mounts[7].options", "ro"];
    mount_destination_is_missing: |b| set(b, "/mounts/7", json!({"type": "tmpfs", "source": "tmpfs"})), ["mounts[7]", "destination"];
    mount_destination_is_empty: |b| { b.mount("", "tmpfs", "tmpfs", &[]); }, ["mounts[7].destination"];
    mount_destination_holds_a_nul: |b| { b.mount("/mnt\0x", "tmpfs", "tmpfs", &[]); }, ["mounts[7].destination"];
    mount_destination_is_below_proc: |b| { b.mount("/proc/tty", "bind", "rootfs/etc", &["bind"]); }, ["mounts[7].destination", "/proc/tty"];
    mount_of_a_directory_on_a_file: |b| { b.mount("/etc/passwd", "bind", "rootfs/etc", &["bind"]); }, ["mounts[7]", "/etc/passwd"];
    mount_destination_below_a_file: |b| { b.mount("/etc/passwd/x", "tmpfs", "tmpfs", &[]); }, ["mounts[7]", "/etc/passwd/x"];
    // ------------------------------------------------------------------------------------------ linux
    namespace_type_is_unknown: |b| { b.namespace("nosuch", None); }, ["linux.namespaces[5].type", "nosuch"];
    namespace_is_there_twice: |b| set(b, "/linux/namespaces/5", json!({"type": "pid"})), ["linux.namespaces[5]", "pid"];
    namespace_path_is_not_there: |b| { b.namespace("network", Some("/run/netns/nosuch")); }, ["linux.namespaces[4].path", "/run/netns/nosuch"];
    namespace_path_is_relative: |b| { b.namespace("network", Some("proc/self/ns/net")); }, ["linux.namespaces[4].path", "proc/self/ns/net"];
    namespace_path_is_of_another_type: |b| { b.namespace("network", Some("/proc/self/ns/uts")); }, ["linux.namespaces[4]", "/proc/self/ns/uts"];
    namespace_path_is_no_namespace: |b| { b.namespace("network", Some("/etc/passwd")); }, ["linux.namespaces[4]", "/etc/passwd"];
    user_namespace_without_mappings: |b| { b.namespace("user", None); }, ["linux.uidMappings"];
    mappings_without_a_user_namespace: |b| set(b, "/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}])), ["linux.uidMappings"];
    mappings_overlap: |b| { b.namespace("user", None).set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}])).set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 5, "hostID": 3000, "size": 10}])); }, ["linux.uidMappings[1]: ", "overlaps with linux.uidMappings[0]"];
    mappings_overlap_on_the_host: |b| { b.namespace("user", None).set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}])).set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 3009, "size": 1}, {"containerID": 5, "hostID": 3000, "size": 10}])); }, ["linux.gidMappings[1]: ", "overlaps with linux.gidMappings[0]"];
    time_offsets_without_a_time_namespace: |b| set(b, "/linux/timeOffsets", json!({"boottime": {"secs": 100, "nanosecs": 0}})), ["linux.timeOffsets"];
    time_offset_of_an_unknown_clock: |b| { b.namespace("time", None).set("/linux/timeOffsets", json!({"realtime": {"secs": 1, "nanosecs": 0}})); }, ["linux.timeOffsets", "realtime"];
    device_type_is_unknown: |b| set(b, "/linux/devices", json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}])), ["linux.devices[0].type", "x"];
    device_path_is_missing: |b| set(b, "/linux/devices", json!([{"type": "c", "major": 1, "minor": 3}])), ["linux.devices[0]", "path"];
    device_has_no_number: |b| set(b, "/linux/devices", json!([{"path": "/dev/x", "type": "c"}])), ["linux.devices[0]"];
    device_uid_is_the_kernels_minus_one: |b| set(b, "/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 4_294_967_295_u32}])), ["linux.devices[0].uid", "4294967295"];
    device_gid_is_the_kernels_minus_one: |b| set(b, "/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "gid": 4_294_967_295_u32}])), ["linux.devices[0].gid", "4294967295"];
    device_path_is_another_file: |b| set(b, "/linux/devices", json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}])), ["linux.devices[0]", "/etc/passwd"];
    sysctl_is_unknown: |b| set(b, "/linux/sysctl", json!({"net.nosuch": "1"})), ["linux.sysctl", "net.nosuch"];
    sysctl_is_of_the_whole_host: |b| set(b, "/linux/sysctl", json!({"vm.overcommit_ratio": "50"})), ["linux.sysctl", "vm.overcommit_ratio"];
    sysctl_climbs: |b| set(b, "/linux/sysctl", json!({"net/../kernel/panic_on_warn": "0"})), ["linux.sysctl"];
    sysctl_of_the_hosts_network: |b| { b.no_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "0"})); }, ["linux.sysctl", "net.ipv4.ip_forward"];
    sysctl_value_is_refused: |b| set(b, "/linux/sysctl", json!({"net.ipv4.ip_forward": "banana"})), ["linux.sysctl", "net.ipv4.ip_forward", "banana"];
    sysctl_value_is_a_number: |b| set(b, "/linux/sysctl", json!({"net.ipv4.ip_forward": 1})), ["linux.sysctl", "net.ipv4.ip_forward"];
    masked_path_is_relative: |b| set(b, "/linux/maskedPaths", json!(["relative"])), ["linux.maskedPaths[0]", "relative"];
    masked_path_is_a_number: |b| set(b, "/linux/maskedPaths", json!([1])), ["linux.maskedPaths[0]", "1"];
    readonly_path_is_relative: |b| set(b, "/linux/readonlyPaths", json!(["/proc/bus", "relative"])), ["linux.readonlyPaths[1]", "relative"];
    propagation_is_unknown: |b| set(b, "/linux/rootfsPropagation", json!("foo")), ["linux.rootfsPropagation", "foo"];
    // ------------------------------------------------------------------------------------------ cgroups
    resources_are_an_array: |b| set(b, "/linux/resources", json!([])), ["linux.resources"];
    memory_limit_is_text: |b| set(b, "/linux/resources/memory", json!({"limit": "64m"})), ["linux.resources.memory.limit", "64m"];
    memory_swap_is_below_the_limit: |b| set(b, "/linux/resources/memory", json!({"limit": 67_108_864, "swap": 33_554_432})), ["linux.resources.memory.swap", "33554432"];
    cpus_are_no_list: |b| set(b, "/linux/resources/cpu", json!({"cpus": "banana"})), ["linux.resources.cpu.cpus", "banana"];
    cpus_are_not_there: |b| set(b, "/linux/resources/cpu", json!({"cpus": "4000"})), ["linux.resources.cpu.cpus", "4000"];
    cpu_quota_is_too_small: |b| set(b, "/linux/resources/cpu", json!({"quota": 1, "period": 100_000})), ["linux.resources.cpu.quota", "1"];
    huge_page_size_is_unknown: |b| set(b, "/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 0}])), ["linux.resources.hugepageLimits[0]"];
    device_rule_access_is_unknown: |b| set(b, "/linux/resources/devices/1", json!({"allow": true, "type": "c", "access": "rwx"})), ["linux.resources.devices[1].access", "rwx"];
    device_rule_type_is_unknown: |b| set(b, "/linux/resources/devices/1", json!({"allow": true, "type": "x", "access": "r"})), ["linux.resources.devices[1].type", "x"];
    rdt_class_is_a_path: |b| set(b, "/linux/intelRdt", json!({"closID": "a/b"})), ["linux.intelRdt.closID", "a/b"];
    rdt_bandwidth_is_none: |b| set(b, "/linux/intelRdt", json!({"memBwSchema": "L3:0=f"})), ["linux.intelRdt.memBwSchema", "L3:0=f"];
    rdt_schema_is_two_lines: |b| set(b, "/linux/intelRdt", json!({"schemata": ["MB:0=20", "L3:0=f\nL3:1=f"]})), ["linux.intelRdt.schemata[1]", "L3:1=f"];
    // ------------------------------------------------------------------------------------------ seccomp
    seccomp_action_is_unknown: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_BANANA"})), ["linux.seccomp.defaultAction", "SCMP_ACT_BANANA"];
    seccomp_names_are_empty: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": [], "action": "SCMP_ACT_ERRNO"}]))), ["linux.seccomp.syscalls[0].names"];
    seccomp_metadata_for_no_listener: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"})), ["linux.seccomp.listenerMetadata", "linux.seccomp.listenerPath"];
    seccomp_notify_for_nobody: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}]))), ["linux.seccomp.listenerPath", "linux.seccomp.syscalls[0].action", "SCMP_ACT_NOTIFY"];
    seccomp_notify_by_default: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/nosuch/agent"})), ["linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"];
    seccomp_notify_of_write: |b| set(b, "/linux/seccomp", profile("/nosuch/agent".as_ref(), &["read", "write"])), ["linux.seccomp.syscalls[0].names[1]", "SCMP_ACT_NOTIFY cannot be used for the write syscall"];
    seccomp_agent_is_not_there: |b| set(b, "/linux/seccomp", profile("/nosuch/agent".as_ref(), &["sync"])), ["linux.seccomp.listenerPath", "failed to connect with seccomp agent", "/nosuch/agent", "no such file or directory"];
    annotation_of_a_handler: |b| set(b, "/annotations", json!({"run.oci.handler": "wasm"})), ["annotations[\"run.oci.handler\"]"];
    seccomp_operator_is_unknown: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_BANANA"}]}]))), ["linux.seccomp.syscalls[0].args[0].op", "SCMP_CMP_BANANA"];
    // ------------------------------------------------------------------------------------------ hooks
    hook_is_not_there: |b| set(b, "/hooks", json!({"createRuntime": [{"path": "/nosuch/hook"}]})), ["hooks.createRuntime[0]", "/nosuch/hook"];
    hook_path_is_relative: |b| set(b, "/hooks", json!({"createRuntime": [{"path": "bin/true"}]})), ["hooks.createRuntime[0].path", "bin/true"];
    hook_timeout_is_zero: |b| set(b, "/hooks", json!({"createRuntime": [{"path": "/bin/busybox", "args": ["true"], "timeout": 0}]})), ["hooks.createRuntime[0].timeout", "0"];
    hook_timeout_is_negative: |b| set(b, "/hooks", json!({"prestart": [{"path": "/bin/busybox", "args": ["true"], "timeout": -1}]})), ["hooks.prestart[0].timeout", "-1"];
}

#[test]
fn namespaces_are_an_object() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        broken(|bundle| set(bundle, "/linux/namespaces", json!({})), &["linux.namespaces"]);
    });
}

#[test]
fn unified_keys_that_cannot_be() {
    case(|| {
        for key in ["nosuch.max", "../cgroup.procs", "nosuch", "cgroup.kill"] {
            let field = "linux.resources.unified";
            // On a v1 host the whole table is refused.
            let words = if cgroup_v2() { vec![field, key] } else { vec![field] };
            broken(|bundle| set(bundle, "/linux/resources/unified", json!({key: "1"})), &words);
        }
    });
}

#[test]
fn terminal_on_create_without_a_console_socket() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/terminal", json!(true));
        let container = bundle.container();
        refused(&container, container.create(), &["process.terminal"]);
    });
}

/// A path below which a runtime may have made cgroups, had it taken `..` for nothing.
struct CgroupsAt(PathBuf);

impl Drop for CgroupsAt {
    fn drop(&mut self) {
        for hierarchy in hierarchies() {
            for ancestor in self.0.ancestors().filter(|ancestor| ancestor.parent().is_some()) {
                let _ = fs::remove_dir(hierarchy.mount.join(ancestor.strip_prefix("/").unwrap()));
            }
        }
    }
}

#[test]
fn cgroups_path_holds_a_nul() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        broken(
            |bundle| set(bundle, "/linux/cgroupsPath", json!(crate::support::cgroup_parent() + "\0x")),
            &["linux.cgroupsPath"],
        );
    });
}

#[test]
fn intel_rdt_without_resctrl() {
    case(|| {
        if text("/proc/self/mountinfo").contains(" - resctrl ") {
            skip!("resctrl is mounted");
        }
        let mut bundle = Bundle::new();
        bundle.set("/linux/intelRdt", json!({"enableMonitoring": true}));
        let container = bundle.container();
        let output = container.create();
        let expected =
            "linux.intelRdt: no resctrl file system is mounted\nhint: mount -t resctrl resctrl /sys/fs/resctrl\n";
        assert!(!ours() || output.stderr == expected, "{output:?}");
        refused(&container, output, &[]);
    });
}

#[test]
fn cgroups_path_climbs_out() {
    case(|| {
        let mut bundle = Bundle::new();
        let escape = bundle.directory.join("escape");
        let _clean = CgroupsAt(escape.clone());
        bundle.set("/linux/cgroupsPath", json!(format!("/../../../../../..{}", escape.display())));
        let container = bundle.container();
        let output = container.run();
        assert!(!escape.exists(), "a directory outside of the cgroup hierarchies: {output:?}");
        refused(&container, output, &["linux.cgroupsPath", "escape"]);
    });
}

#[test]
fn labels_without_their_security_module() {
    case(|| {
        if !Path::new("/sys/kernel/security/apparmor").exists() {
            broken(|bundle| set(bundle, "/process/apparmorProfile", json!("nosuch")), &["process.apparmorProfile"]);
        }
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            let label = "system_u:system_r:nosuch_t:s0";
            broken(|bundle| set(bundle, "/process/selinuxLabel", json!(label)), &["process.selinuxLabel"]);
        }
    });
}

// ---------------------------------------------------------------------------------------------- the file itself

#[test]
fn config_is_not_there() {
    case(|| {
        let container = Bundle::new().container();
        let output = container.call(["create", &container.id]).run();
        refused(&container, output, &["config.json"]);
    });
}

#[test]
fn bundle_is_not_there() {
    case(|| {
        let container = Bundle::new().container();
        let output = container.call(["create", "--bundle", "/nosuch/bundle", &container.id]).run();
        refused(&container, output, &["/nosuch/bundle"]);
    });
}

#[test]
fn config_is_empty() {
    case(|| broken_text(b"", &["config.json"]));
}

#[test]
fn config_is_null() {
    case(|| broken_text(b"null", &["config.json"]));
}

#[test]
fn config_is_an_array() {
    case(|| broken_text(b"[]", &["config.json"]));
}

#[test]
fn config_is_cut_off() {
    case(|| broken_text(b"{\"ociVersion\": \"1.0.2\", \"process\": {", &["config.json", "line 1"]));
}

#[test]
fn config_is_not_utf8() {
    case(|| broken_text(b"{\"ociVersion\": \"1.0.2\", \"hostname\": \"\xff\xfe\"}", &["config.json"]));
}

#[test]
fn config_has_something_after_it() {
    case(|| {
        let text = format!("{} {{}}", crate::support::base_config());
        broken_text(text.as_bytes(), &["config.json"]);
    });
}

#[test]
fn config_is_nested_too_deeply() {
    case(|| broken_text("[".repeat(100_000).as_bytes(), &["config.json"]));
}

#[test]
fn config_is_a_fifo() {
    case(|| {
        let container = Bundle::new().container();
        let path = container.bundle.directory.join("config.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let output = container.call(["create", &container.id]).run();
        refused(&container, output, &["config.json"]);
    });
}

#[test]
fn config_is_a_directory() {
    case(|| {
        let container = Bundle::new().container();
        fs::create_dir(container.bundle.directory.join("config.json")).unwrap();
        let output = container.call(["create", &container.id]).run();
        refused(&container, output, &["config.json"]);
    });
}

// ---------------------------------------------------------------------------------------------- what is no error

fn accepted(edit: impl FnOnce(&mut Bundle)) {
    let mut bundle = Bundle::sh("echo fine");
    edit(&mut bundle);
    let output = bundle.container().run().ok();
    assert_eq!(output.stdout, "fine\n", "{output:?}");
}

macro_rules! accepted {
    ($($name:ident: $edit:expr;)*) => {
        $(
            #[test]
            fn $name() {
                case(|| accepted(|bundle: &mut Bundle| { let edit: fn(&mut Bundle) = $edit; edit(bundle) }));
            }
        )*
    };
}

accepted! {
    ok_unknown_capability: |b| set(b, "/process/capabilities/bounding/0", json!("CAP_BANANA"));
    ok_unknown_property: |b| set(b, "/process/banana", json!({"a": [1, null]}));
    ok_unknown_property_at_the_top: |b| set(b, "/banana", json!(1));
    ok_unknown_annotation: |b| set(b, "/annotations", json!({"org.example.banana": "x", "empty": ""}));
    ok_version_1_0_0: |b| set(b, "/ociVersion", json!("1.0.0"));
    ok_version_1_2_1: |b| set(b, "/ociVersion", json!("1.2.1"));
    ok_version_of_a_later_minor: |b| set(b, "/ociVersion", json!("1.9.0"));
    ok_version_with_a_suffix: |b| set(b, "/ociVersion", json!("1.0.2-dev"));
    ok_masked_path_that_is_not_there: |b| set(b, "/linux/maskedPaths/-", json!("/nosuch/path"));
    ok_readonly_path_that_is_not_there: |b| set(b, "/linux/readonlyPaths/-", json!("/nosuch/path"));
    ok_console_size_without_a_terminal: |b| set(b, "/process/consoleSize", json!({"height": 10, "width": 10}));
    ok_bind_mount_with_data: |b| { b.mount("/mnt", "bind", "rootfs/etc", &["bind", "size=1m"]); };
    ok_unknown_seccomp_name: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["banana", "acct"], "action": "SCMP_ACT_ERRNO"}])));
    ok_absolute_root: |b| { let root = b.rootfs(); set(b, "/root/path", json!(root)); };
    ok_no_mounts_property: |b| { b.remove("/mounts"); };
    ok_no_capabilities: |b| { b.remove("/process/capabilities"); };
    ok_empty_hooks: |b| set(b, "/hooks", json!({"prestart": [], "poststop": null}));
    ok_many_annotations: |b| for i in 0..2000 { set(b, &format!("/annotations/key{i}"), json!("value")); };
    ok_many_arguments_and_variables: |b| for i in 0..2000 { set(b, "/process/args/-", json!(i.to_string())); set(b, "/process/env/-", json!(format!("V{i}=x"))); };
}

#[test]
fn ids_that_cannot_be() {
    case(|| {
        let container = Bundle::new().container();
        container.bundle.write();
        let long = "x".repeat(300);
        for id in ["", ".", "..", "a b", "a\nb", "a*", "a:b", "\u{e9}", &long] {
            let output = container.call(["create", id]).run();
            let output = output.fails();
            assert!(!output.stderr.is_empty(), "{id:?}");
            let root = fs::read_dir(container.root()).map(|entries| entries.count()).unwrap_or(0);
            assert_eq!(root, 0, "{id:?}: something in the state directory");
        }
        container.call([bytes(b"create"), bytes(b"a\xffb")]).run().fails();
        container.nothing_left();
    });
}

#[test]
fn an_id_with_a_slash_is_no_id() {
    case(|| {
        let container = Bundle::new().container();
        container.bundle.write();
        for id in ["a/b", "/a", "../a", "a/.."] {
            for command in ["create", "start", "state", "kill", "delete"] {
                container.call([command, id]).run().fails();
            }
        }
        assert!(!container.bundle.directory.join("a").exists());
    });
}

#[test]
fn ids_that_can_be() {
    case(|| {
        for tail in ["a", "_", "A-b+c.d_e", ".b"] {
            let mut container = Bundle::new().container();
            container.id.push_str(tail);
            container.run().ok();
            container.nothing_left();
        }
    });
}
