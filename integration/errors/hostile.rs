//! Configurations that somebody made to break something: wrong types, texts that end early, numbers that wrap, paths that climb,
//! files that hang. Each is refused before anything is made, and names its field.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Map, json};

use super::{broken, broken_text, last_mount, refused, seccomp, set};
use crate::support::{Bundle, Container, base_config, case, ours, skip};

/// A user namespace with these mappings of uids.
fn mapped(bundle: &mut Bundle, uids: serde_json::Value) {
    let gids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.namespace("user", None).set("/linux/gidMappings", gids).set("/linux/uidMappings", uids);
}

fn device(bundle: &mut Bundle, name: &str, value: serde_json::Value) {
    bundle.set("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]));
    bundle.set(&format!("/linux/devices/0/{name}"), value);
}

fn hook(bundle: &mut Bundle, name: &str, value: serde_json::Value) {
    bundle.set("/hooks", json!({"createRuntime": [{"path": "/bin/busybox", "args": ["true"]}]}));
    bundle.set(&format!("/hooks/createRuntime/0/{name}"), value);
}

fn argument(value: serde_json::Value) -> serde_json::Value {
    seccomp(json!([{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "args": [value]}]))
}

macro_rules! rows {
    ($($name:ident: $edit:expr, $words:expr;)*) => {
        $(
            #[test]
            fn $name() {
                case(|| {
                    if !ours() {
                        skip!("asked only of this project's runtime");
                    }
                    broken(|bundle: &mut Bundle| { let edit: fn(&mut Bundle) = $edit; edit(bundle) }, &$words);
                });
            }
        )*
    };
}

rows! {
    // ------------------------------------------------------------------------------------------ process
    process_is_an_array: |b| set(b, "/process", json!([])), ["process"];
    user_is_text: |b| set(b, "/process/user", json!("root")), ["process.user", "root"];
    uid_is_a_fraction: |b| set(b, "/process/user/uid", json!(1000.5)), ["process.user.uid", "1000.5"];
    uid_is_a_float: |b| set(b, "/process/user/uid", json!(1000.0)), ["process.user.uid", "1000.0"];
    uid_is_true: |b| set(b, "/process/user/uid", json!(true)), ["process.user.uid", "true"];
    uid_is_null: |b| set(b, "/process/user/uid", json!(null)), ["process.user.uid"];
    umask_is_text: |b| set(b, "/process/user/umask", json!("022")), ["process.user.umask", "022"];
    additional_gids_are_text: |b| set(b, "/process/user/additionalGids", json!("10")), ["process.user.additionalGids", "10"];
    additional_gid_is_negative: |b| set(b, "/process/user/additionalGids", json!([-1])), ["process.user.additionalGids[0]", "-1"];
    env_is_an_object: |b| set(b, "/process/env", json!({"A": "b"})), ["process.env"];
    env_holds_a_number: |b| set(b, "/process/env/2", json!(1)), ["process.env[2]", "1"];
    env_has_an_empty_name: |b| set(b, "/process/env/2", json!("=x")), ["process.env[2]", "=x"];
    args_hold_a_number: |b| set(b, "/process/args", json!(["true", 1])), ["process.args[1]", "1"];
    args_begin_with_an_empty_one: |b| set(b, "/process/args", json!([""])), ["process.args"];
    cwd_is_a_number: |b| set(b, "/process/cwd", json!(1)), ["process.cwd", "1"];
    cwd_is_empty: |b| set(b, "/process/cwd", json!("")), ["process.cwd"];
    cwd_holds_a_nul: |b| set(b, "/process/cwd", json!("/tmp\0/x")), ["process.cwd"];
    cwd_is_longer_than_any_path: |b| set(b, "/process/cwd", json!("/a".repeat(5000))), ["process.cwd"];
    terminal_is_text: |b| set(b, "/process/terminal", json!("yes")), ["process.terminal", "yes"];
    console_size_is_negative: |b| set(b, "/process/consoleSize", json!({"height": -1, "width": 1})), ["process.consoleSize.height", "-1"];
    capabilities_are_an_array: |b| set(b, "/process/capabilities", json!(["CAP_KILL"])), ["process.capabilities"];
    capability_is_a_number: |b| set(b, "/process/capabilities/bounding", json!([7])), ["process.capabilities.bounding[0]", "7"];
    rlimits_are_an_object: |b| set(b, "/process/rlimits", json!({})), ["process.rlimits"];
    rlimit_is_a_fraction: |b| set(b, "/process/rlimits/0/soft", json!(1.5)), ["process.rlimits[0].soft", "1.5"];
    rlimit_does_not_fit: |b| set(b, "/process/rlimits/0/hard", json!(1e20)), ["process.rlimits[0].hard"];
    rlimit_has_no_type: |b| set(b, "/process/rlimits/0", json!({"soft": 1, "hard": 1})), ["process.rlimits[0]", "type"];
    affinity_is_two_lines: |b| set(b, "/process/execCPUAffinity", json!({"initial": "0\n\u{1b}[2J1"})), ["process.execCPUAffinity", r"0\n\u{1b}[2J1"];
    oom_score_is_text: |b| set(b, "/process/oomScoreAdj", json!("100")), ["process.oomScoreAdj", "100"];
    oom_score_is_too_small: |b| set(b, "/process/oomScoreAdj", json!(-1001)), ["process.oomScoreAdj", "-1001"];
    oom_score_wraps: |b| set(b, "/process/oomScoreAdj", json!(4_294_967_297_i64)), ["process.oomScoreAdj", "4294967297"];
    apparmor_profile_is_a_number: |b| set(b, "/process/apparmorProfile", json!(7)), ["process.apparmorProfile", "7"];
    selinux_label_is_a_number: |b| set(b, "/process/selinuxLabel", json!(7)), ["process.selinuxLabel", "7"];
    no_new_privileges_is_a_number: |b| set(b, "/process/noNewPrivileges", json!(1)), ["process.noNewPrivileges", "1"];
    // ------------------------------------------------------------------------------------------ root, names
    root_is_text: |b| set(b, "/root", json!("rootfs")), ["root", "rootfs"];
    root_path_is_a_number: |b| set(b, "/root/path", json!(1)), ["root.path", "1"];
    root_readonly_is_text: |b| set(b, "/root/readonly", json!("false")), ["root.readonly", "false"];
    root_path_is_a_link_to_itself: |b| { symlink("loop", b.directory.join("loop")).unwrap(); set(b, "/root/path", json!("loop")); }, ["root.path", "loop", "ELOOP"];
    root_path_is_a_fifo: |b| { mkfifo(&b.directory.join("fifo"), Mode::S_IRWXU).unwrap(); set(b, "/root/path", json!("fifo")); }, ["root.path", "fifo"];
    root_path_is_longer_than_any_path: |b| set(b, "/root/path", json!("/a".repeat(5000))), ["root.path"];
    mounts_are_an_object: |b| set(b, "/mounts", json!({})), ["mounts"];
    hooks_are_an_array: |b| set(b, "/hooks", json!([])), ["hooks"];
    annotations_are_an_array: |b| set(b, "/annotations", json!([])), ["annotations"];
    annotation_is_null: |b| set(b, "/annotations", json!({"key": null})), ["annotations.key"];
    hostname_is_an_array: |b| set(b, "/hostname", json!(["a"])), ["hostname"];
    domainname_holds_a_nul: |b| set(b, "/domainname", json!("a\0b")), ["domainname"];
    version_is_a_number: |b| set(b, "/ociVersion", json!(1.0)), ["ociVersion", "1.0"];
    linux_is_an_array: |b| set(b, "/linux", json!([])), ["linux"];
    hostname_in_the_hosts_uts_namespace: |b| { b.namespace("uts", Some("/proc/self/ns/uts")); }, ["hostname", "/proc/self/ns/uts"];
    // ------------------------------------------------------------------------------------------ mounts
    mount_is_text: |b| set(b, "/mounts/7", json!("/mnt")), ["mounts[7]"];
    mount_is_null: |b| set(b, "/mounts/7", json!(null)), ["mounts[7]"];
    mount_option_is_null: |b| { b.mount("/mnt", "tmpfs", "tmpfs", &[]); last_mount(b, "options", json!([null])); }, ["mounts[7].options[0]"];
    mount_option_holds_a_nul: |b| { b.mount("/mnt", "tmpfs", "tmpfs", &["mode=7\x0077"]); }, ["mounts[7].options[0]"];
    mount_source_holds_a_nul: |b| { b.mount("/mnt", "bind", "/tmp\0/x", &["bind"]); }, ["mounts[7].source"];
    mount_type_holds_a_nul: |b| { b.mount("/mnt", "tmpfs\0x", "tmpfs", &[]); }, ["mounts[7].type"];
    mount_type_is_a_number: |b| { b.mount("/mnt", "", "tmpfs", &[]); last_mount(b, "type", json!(7)); }, ["mounts[7].type", "7"];
    mount_destination_is_a_number: |b| { b.mount("", "tmpfs", "tmpfs", &[]); last_mount(b, "destination", json!(7)); }, ["mounts[7].destination", "7"];
    mount_destination_is_the_root: |b| { b.mount("/", "tmpfs", "tmpfs", &[]); }, ["mounts[7].destination", "/"];
    mount_destination_is_the_root_in_disguise: |b| { b.mount("/mnt/../../.", "bind", "rootfs/etc", &["bind"]); }, ["mounts[7].destination"];
    mount_destination_is_a_link_to_the_root: |b| { symlink("/", b.rootfs().join("link")).unwrap(); b.mount("/link", "bind", "rootfs/etc", &["bind"]); }, ["mounts[7].destination", "/link"];
    mount_destination_is_a_link_into_proc: |b| { symlink("/proc/sys", b.rootfs().join("link")).unwrap(); b.mount("/link", "bind", "rootfs/etc", &["bind"]); }, ["mounts[7].destination", "/link"];
    mount_destination_is_a_link_to_itself: |b| { symlink("loop", b.rootfs().join("loop")).unwrap(); b.mount("/loop/x", "tmpfs", "tmpfs", &[]); }, ["mounts[7]", "/loop/x", "ELOOP"];
    mount_destination_has_a_name_too_long: |b| { b.mount(&format!("/{}", "a".repeat(300)), "tmpfs", "tmpfs", &[]); }, ["mounts[7]", "ENAMETOOLONG"];
    mount_destination_is_longer_than_any_path: |b| { b.mount(&"/a".repeat(5000), "tmpfs", "tmpfs", &[]); }, ["mounts[7]"];
    mount_source_is_longer_than_any_path: |b| { b.mount("/mnt", "bind", &"/a".repeat(5000), &["bind"]); }, ["mounts[7]"];
    mount_bind_without_a_source: |b| set(b, "/mounts/7", json!({"destination": "/mnt", "options": ["bind"]})), ["mounts[7].source"];
    mount_of_proc_that_is_a_directory: |b| { b.unmount("/proc").mount("/proc", "bind", "rootfs/etc", &["bind"]); }, ["mounts[6]", "/proc"];
    // ------------------------------------------------------------------------------------------ namespaces
    namespace_is_text: |b| set(b, "/linux/namespaces/5", json!("pid")), ["linux.namespaces[5]", "pid"];
    namespace_has_no_type: |b| set(b, "/linux/namespaces/5", json!({})), ["linux.namespaces[5]", "type"];
    namespace_type_is_a_number: |b| set(b, "/linux/namespaces/5", json!({"type": 1})), ["linux.namespaces[5].type"];
    namespace_path_is_a_number: |b| set(b, "/linux/namespaces/0/path", json!(1)), ["linux.namespaces[0].path", "1"];
    namespace_path_holds_a_nul: |b| { b.namespace("network", Some("/proc/self/ns/net\0x")); }, ["linux.namespaces[4].path"];
    namespace_path_is_a_directory: |b| { b.namespace("network", Some("/tmp")); }, ["linux.namespaces[4]", "/tmp"];
    namespace_path_is_a_fifo: |b| { let fifo = b.directory.join("fifo"); mkfifo(&fifo, Mode::S_IRWXU).unwrap(); b.namespace("network", Some(fifo.to_str().unwrap())); }, ["linux.namespaces[4]", "fifo"];
    namespace_path_is_longer_than_any_path: |b| { b.namespace("network", Some(&"/a".repeat(35_000))); }, ["linux.namespaces[4].path"];
    namespaces_hold_null: |b| set(b, "/linux/namespaces/5", json!(null)), ["linux.namespaces[5]"];
    mappings_are_an_object: |b| mapped(b, json!({})), ["linux.uidMappings"];
    mapping_is_text: |b| mapped(b, json!(["0 0 1"])), ["linux.uidMappings[0]"];
    mapping_has_no_size: |b| mapped(b, json!([{"containerID": 0, "hostID": 100_000}])), ["linux.uidMappings[0]", "size"];
    mapping_of_nothing: |b| mapped(b, json!([{"containerID": 0, "hostID": 100_000, "size": 0}])), ["linux.uidMappings"];
    mapping_of_a_negative_id: |b| mapped(b, json!([{"containerID": 0, "hostID": -1, "size": 1}])), ["linux.uidMappings[0].hostID", "-1"];
    mapping_that_wraps: |b| mapped(b, json!([{"containerID": 0, "hostID": 4_294_967_290_u32, "size": 100}])), ["linux.uidMappings"];
    mapping_to_the_kernels_minus_one: |b| mapped(b, json!([{"containerID": 0, "hostID": 4_294_967_295_u32, "size": 1}])), ["linux.uidMappings"];
    mapping_does_not_fit: |b| mapped(b, json!([{"containerID": 4_294_967_296_u64, "hostID": 0, "size": 1}])), ["linux.uidMappings[0].containerID", "4294967296"];
    mapping_without_root: |b| mapped(b, json!([{"containerID": 5, "hostID": 100_000, "size": 10}])), ["linux.uidMappings"];
    mappings_of_uids_only: |b| { b.namespace("user", None).set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 10}])); }, ["linux.gidMappings"];
    user_that_is_not_mapped: |b| { mapped(b, json!([{"containerID": 0, "hostID": 100_000, "size": 10}])); set(b, "/process/user/uid", json!(10)); }, ["process.user.uid", "10"];
    time_offset_with_too_many_nanoseconds: |b| { b.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 1, "nanosecs": 1_000_000_000}})); }, ["linux.timeOffsets", "1000000000"];
    time_offset_is_text: |b| { b.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": "1"}})); }, ["linux.timeOffsets"];
    // ------------------------------------------------------------------------------------------ sysctl, masks
    sysctls_are_an_array: |b| set(b, "/linux/sysctl", json!([])), ["linux.sysctl"];
    sysctl_has_no_name: |b| set(b, "/linux/sysctl", json!({"": "1"})), ["linux.sysctl"];
    sysctl_is_an_absolute_path: |b| set(b, "/linux/sysctl", json!({"/proc/sys/net/ipv4/ip_forward": "1"})), ["linux.sysctl", "/proc/sys/net/ipv4/ip_forward"];
    sysctl_name_holds_a_nul: |b| set(b, "/linux/sysctl", json!({"net.ipv4.ip_forward\0x": "1"})), ["linux.sysctl"];
    sysctl_value_holds_a_nul: |b| set(b, "/linux/sysctl", json!({"net.ipv4.ip_forward": "1\x002"})), ["linux.sysctl"];
    sysctl_of_core_dumps: |b| set(b, "/linux/sysctl", json!({"kernel.core_pattern": "|/evil"})), ["linux.sysctl", "kernel.core_pattern"];
    sysctl_climbs_with_dots: |b| set(b, "/linux/sysctl", json!({"net.ipv4....kernel.core_pattern": "x"})), ["linux.sysctl"];
    sysctl_of_a_network_that_is_the_hosts_by_path: |b| { b.namespace("network", Some("/proc/self/ns/net")).set("/linux/sysctl", json!({"net.ipv4.ip_forward": "0"})); }, ["linux.namespaces[4].path", "linux.sysctl"];
    sysctl_of_ipc_without_its_namespace: |b| { b.no_namespace("ipc").set("/linux/sysctl", json!({"kernel.shmmax": "1"})); }, ["linux.sysctl", "kernel.shmmax"];
    masked_paths_are_text: |b| set(b, "/linux/maskedPaths", json!("/proc/keys")), ["linux.maskedPaths", "/proc/keys"];
    masked_path_holds_a_nul: |b| set(b, "/linux/maskedPaths", json!(["/proc/keys\0x"])), ["linux.maskedPaths[0]"];
    masked_path_is_empty: |b| set(b, "/linux/maskedPaths", json!([""])), ["linux.maskedPaths[0]"];
    masked_path_is_the_root: |b| set(b, "/linux/maskedPaths", json!(["/"])), ["linux.maskedPaths[0]"];
    masked_path_below_a_file: |b| set(b, "/linux/maskedPaths", json!(["/etc/passwd/x"])), ["linux.maskedPaths[0]", "/etc/passwd/x", "ENOTDIR"];
    readonly_path_holds_a_nul: |b| set(b, "/linux/readonlyPaths", json!(["/proc/bus\0x"])), ["linux.readonlyPaths[0]"];
    masked_paths_without_a_mount_namespace: |b| { b.no_namespace("mount"); }, ["linux.namespaces", "MNT"];
    masked_path_is_a_link_to_the_root: |b| { symlink("/", b.rootfs().join("link")).unwrap(); set(b, "/linux/maskedPaths", json!(["/link"])); }, ["linux.maskedPaths[0]", "/link", "EPERM"];
    readonly_path_is_a_link_to_the_root: |b| { symlink("/", b.rootfs().join("link")).unwrap(); set(b, "/linux/readonlyPaths", json!(["/link"])); }, ["linux.readonlyPaths[0]", "/link", "EPERM"];
    propagation_is_a_number: |b| set(b, "/linux/rootfsPropagation", json!(1)), ["linux.rootfsPropagation", "1"];
    // ------------------------------------------------------------------------------------------ devices
    devices_are_an_object: |b| set(b, "/linux/devices", json!({})), ["linux.devices"];
    device_is_text: |b| set(b, "/linux/devices", json!(["/dev/x"])), ["linux.devices[0]"];
    device_path_is_relative: |b| device(b, "path", json!("dev/x")), ["linux.devices[0].path", "dev/x"];
    device_path_holds_a_nul: |b| device(b, "path", json!("/dev/x\0y")), ["linux.devices[0].path"];
    device_path_is_the_root: |b| device(b, "path", json!("/")), ["linux.devices[0].path"];
    device_path_is_a_directory: |b| device(b, "path", json!("/etc")), ["linux.devices[0]", "/etc"];
    device_number_does_not_fit: |b| device(b, "major", json!(1_u64 << 40)), ["linux.devices[0].major", "1099511627776"];
    device_number_is_negative: |b| device(b, "minor", json!(-1)), ["linux.devices[0].minor", "-1"];
    device_number_is_text: |b| device(b, "major", json!("1")), ["linux.devices[0].major", "1"];
    device_mode_is_text: |b| device(b, "fileMode", json!("0666")), ["linux.devices[0].fileMode", "0666"];
    device_owner_does_not_fit: |b| device(b, "uid", json!(4_294_967_296_u64)), ["linux.devices[0].uid", "4294967296"];
    device_is_there_twice: |b| { device(b, "minor", json!(5)); b.set("/linux/devices/-", json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3})); }, ["linux.devices[1]", "/dev/x"];
    // ------------------------------------------------------------------------------------------ cgroups
    cgroups_path_is_a_number: |b| set(b, "/linux/cgroupsPath", json!(7)), ["linux.cgroupsPath", "7"];
    memory_is_an_array: |b| set(b, "/linux/resources/memory", json!([])), ["linux.resources.memory"];
    memory_limit_is_a_fraction: |b| set(b, "/linux/resources/memory", json!({"limit": 1.5})), ["linux.resources.memory.limit", "1.5"];
    memory_limit_does_not_fit: |b| set(b, "/linux/resources/memory", json!({"limit": 1e30})), ["linux.resources.memory.limit"];
    memory_swappiness_is_too_large: |b| set(b, "/linux/resources/memory", json!({"swappiness": 101})), ["linux.resources.memory.swappiness"];
    pids_limit_is_text: |b| set(b, "/linux/resources/pids", json!({"limit": "max"})), ["linux.resources.pids.limit", "max"];
    cpu_shares_are_negative: |b| set(b, "/linux/resources/cpu", json!({"shares": -1})), ["linux.resources.cpu.shares", "-1"];
    cpu_period_is_text: |b| set(b, "/linux/resources/cpu", json!({"period": "100"})), ["linux.resources.cpu.period", "100"];
    cpus_are_two_lines: |b| set(b, "/linux/resources/cpu", json!({"cpus": "0\n0"})), ["linux.resources.cpu.cpus"];
    cpus_hold_a_nul: |b| set(b, "/linux/resources/cpu", json!({"cpus": "0\x001"})), ["linux.resources.cpu.cpus"];
    mems_are_no_list: |b| set(b, "/linux/resources/cpu", json!({"mems": "a"})), ["linux.resources.cpu.mems", "a"];
    block_weight_is_too_large: |b| set(b, "/linux/resources/blockIO", json!({"weight": 70_000})), ["linux.resources.blockIO.weight", "70000"];
    block_limit_has_no_device: |b| set(b, "/linux/resources/blockIO", json!({"throttleReadBpsDevice": [{"rate": 1}]})), ["linux.resources.blockIO.throttleReadBpsDevice[0]"];
    huge_pages_are_text: |b| set(b, "/linux/resources/hugepageLimits", json!("2MB")), ["linux.resources.hugepageLimits", "2MB"];
    huge_page_size_climbs: |b| set(b, "/linux/resources/hugepageLimits", json!([{"pageSize": "../2MB", "limit": 0}])), ["linux.resources.hugepageLimits[0]"];
    rdma_device_is_a_line: |b| set(b, "/linux/resources/rdma", json!({"a\nb": {"hcaHandles": 1}})), ["linux.resources.rdma"];
    device_rule_is_text: |b| set(b, "/linux/resources/devices/1", json!("a *:* rwm")), ["linux.resources.devices[1]"];
    device_rule_has_no_allow: |b| set(b, "/linux/resources/devices/1", json!({"access": "r"})), ["linux.resources.devices[1]", "allow"];
    device_rule_number_is_text: |b| set(b, "/linux/resources/devices/1", json!({"allow": true, "type": "c", "major": "1"})), ["linux.resources.devices[1].major", "1"];
    unified_is_an_array: |b| set(b, "/linux/resources/unified", json!([])), ["linux.resources.unified"];
    unified_value_is_a_number: |b| set(b, "/linux/resources/unified", json!({"memory.max": 1})), ["linux.resources.unified"];
    // ------------------------------------------------------------------------------------------ seccomp
    seccomp_is_text: |b| set(b, "/linux/seccomp", json!("default")), ["linux.seccomp", "default"];
    seccomp_has_no_default: |b| set(b, "/linux/seccomp", json!({"syscalls": []})), ["linux.seccomp", "defaultAction"];
    seccomp_architecture_is_unknown: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_BANANA"]})), ["linux.seccomp.architectures[0]", "SCMP_ARCH_BANANA"];
    seccomp_flag_is_unknown: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["BANANA"]})), ["linux.seccomp.flags[0]", "BANANA"];
    seccomp_syscalls_are_an_object: |b| set(b, "/linux/seccomp", seccomp(json!({}))), ["linux.seccomp.syscalls"];
    seccomp_rule_has_no_action: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["sync"]}]))), ["linux.seccomp.syscalls[0]", "action"];
    seccomp_names_are_text: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": "sync", "action": "SCMP_ACT_ERRNO"}]))), ["linux.seccomp.syscalls[0].names", "sync"];
    seccomp_argument_index_is_too_large: |b| set(b, "/linux/seccomp", argument(json!({"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}))), ["linux.seccomp.syscalls[0].args[0].index", "6"];
    seccomp_argument_is_negative: |b| set(b, "/linux/seccomp", argument(json!({"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}))), ["linux.seccomp.syscalls[0].args[0].value", "-1"];
    seccomp_argument_is_text: |b| set(b, "/linux/seccomp", argument(json!("x"))), ["linux.seccomp.syscalls[0].args[0]"];
    seccomp_errno_is_text: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": "EPERM"})), ["linux.seccomp.defaultErrnoRet", "EPERM"];
    seccomp_errno_for_an_action_without_one: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["sync"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]))), ["linux.seccomp.syscalls[0].errnoRet"];
    // ------------------------------------------------------------------------------------------ hooks
    hook_is_text: |b| set(b, "/hooks", json!({"createRuntime": ["/bin/true"]})), ["hooks.createRuntime[0]"];
    hooks_of_a_kind_are_an_object: |b| set(b, "/hooks", json!({"createRuntime": {}})), ["hooks.createRuntime"];
    hook_has_no_path: |b| set(b, "/hooks", json!({"createRuntime": [{"args": ["true"]}]})), ["hooks.createRuntime[0]", "path"];
    hook_path_holds_a_nul: |b| hook(b, "path", json!("/bin/busybox\0x")), ["hooks.createRuntime[0].path"];
    hook_args_are_text: |b| hook(b, "args", json!("true")), ["hooks.createRuntime[0].args", "true"];
    hook_args_hold_a_nul: |b| hook(b, "args", json!(["true", "a\0b"])), ["hooks.createRuntime[0].args[1]"];
    hook_env_is_an_object: |b| hook(b, "env", json!({"A": "b"})), ["hooks.createRuntime[0].env"];
    hook_env_holds_a_nul: |b| hook(b, "env", json!(["A=a\0b"])), ["hooks.createRuntime[0].env[0]"];
    hook_timeout_is_text: |b| hook(b, "timeout", json!("1")), ["hooks.createRuntime[0].timeout", "1"];
    hook_is_no_program: |b| hook(b, "path", json!("/etc/passwd")), ["hooks.createRuntime[0]", "/etc/passwd"];
}

// ---------------------------------------------------------------------------------------------- the text itself

/// The base configuration, with a text in place of another.
#[track_caller]
fn with_text(from: &str, to: &str, words: &[&str]) {
    let text = base_config().to_string();
    assert!(text.contains(from));
    broken_text(text.replacen(from, to, 1).as_bytes(), words);
}

macro_rules! texts {
    ($($name:ident: $from:expr, $to:expr, $words:expr;)*) => {
        $(
            #[test]
            fn $name() {
                case(|| {
                    if !ours() {
                        skip!("asked only of this project's runtime");
                    }
                    with_text($from, $to, &$words);
                });
            }
        )*
    };
}

texts! {
    text_has_a_comment: "{", "{/* c */", ["config.json"];
    text_has_a_comma_too_many: "]", ",]", ["config.json"];
    text_has_single_quotes: "\"hostname\"", "'hostname'", ["config.json"];
    text_begins_with_a_mark: "{", "\u{feff}{", ["config.json"];
    text_has_half_a_surrogate: "\"container\"", "\"\\ud800\"", ["config.json"];
    text_has_a_line_in_a_string: "\"container\"", "\"a\nb\"", ["config.json"];
    text_has_a_number_without_end: "\"gid\":0", "\"gid\":1e999", ["config.json"];
    text_has_no_number: "\"gid\":0", "\"gid\":NaN", ["config.json"];
    text_has_a_number_in_octal: "\"gid\":0", "\"gid\":010", ["config.json"];
    text_has_a_plus: "\"gid\":0", "\"gid\":+1", ["config.json"];
    text_has_a_name_twice: "\"gid\":0", "\"gid\":1,\"gid\":0", ["process.user.gid"];
    text_has_a_part_twice: "\"hostname\":", "\"root\":{\"path\":\"/\"},\"hostname\":", ["root"];
    text_has_a_name_in_another_case: "\"root\":", "\"Root\":", ["root"];
}

/// config.json is something else than a file, or one that never ends.
#[test]
fn config_that_would_hang() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let kinds: [fn(&std::path::Path); 4] = [
            |path| symlink("/dev/zero", path).unwrap(),
            |path| symlink("/proc/kmsg", path).unwrap(),
            |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
            |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        ];
        for make in kinds {
            let container = Bundle::new().container();
            make(&container.bundle.directory.join("config.json"));
            let output = container.call(["create", &container.id]).run();
            refused(&container, output, &["config.json"]);
        }
    });
}

/// 100,000 of something, or 30,000, are no reason to take long: the deadline of a call is not reached, on an emulated processor either,
/// whatever the kernel says to that many. Seen: with our own runtime and devices, each of which was compared with all before it.
#[test]
fn a_great_many_entries_cost_little() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let each = |entry: fn(usize) -> serde_json::Value| json!((0..100_000).map(entry).collect::<Vec<_>>());
        let some = |entry: fn(usize) -> serde_json::Value| json!((0..30_000).map(entry).collect::<Vec<_>>());
        let named =
            |entry: fn(usize) -> (String, serde_json::Value)| json!((0..30_000).map(entry).collect::<Map<_, _>>());
        for (pointer, value) in [
            ("/process/env", each(|index| json!(format!("V{index}=x")))),
            ("/process/args", each(|index| json!(index.to_string()))),
            ("/process/user/additionalGids", each(|index| json!(index))),
            ("/mounts/1/options", each(|index| json!(format!("o{index}=x")))),
            ("/linux/maskedPaths", each(|index| json!(format!("/m{index}")))),
        ] {
            let mut bundle = Bundle::new();
            bundle.set(pointer, value);
            let container = bundle.container();
            assert!(container.run().code() < 256);
            container.nothing_left();
        }
        // Of these the kernel would have to make as many, so there is a mistake that is found after all of them.
        for (pointer, value) in [
            ("/annotations", named(|index| (format!("a{index}"), json!("x")))),
            ("/annotations", named(|index| (format!("org.systemd.property.P{index}"), json!("uint64 1")))),
            ("/linux/sysctl", named(|index| (format!("net.a{index}"), json!("1")))),
            ("/linux/resources/rdma", named(|index| (format!("r{index}"), json!({"hcaHandles": 1})))),
            ("/mounts", some(|index| json!({"destination": format!("/m{index}"), "type": "tmpfs", "source": "tmpfs"}))),
            (
                "/linux/devices",
                each(|index| json!({"path": format!("/dev/d{index}"), "type": "c", "major": 1, "minor": 3})),
            ),
            ("/hooks", json!({"createRuntime": each(|_| json!({"path": "/bin/true"}))})),
            ("/linux/seccomp", seccomp(each(|_| json!({"names": ["sync"], "action": "SCMP_ACT_ERRNO"})))),
            ("/linux/seccomp", seccomp(some(argument_rule))),
        ] {
            let mut bundle = Bundle::new();
            bundle.set(pointer, value).set("/linux/resources/hugepageLimits", json!([{"pageSize": "x", "limit": 0}]));
            let container = bundle.container();
            let output = container.create().fails();
            assert!(output.stderr.starts_with("linux."), "{pointer}: {output:?}");
            container.nothing_left();
        }
    });
}

fn argument_rule(index: usize) -> serde_json::Value {
    json!({"names": ["sync"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": index, "op": "SCMP_CMP_EQ"}]})
}

/// The same in what `exec` and `update` read.
#[test]
fn a_great_many_entries_of_other_files_cost_little() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let (container, _io) = Container::running();
        let file = container.bundle.directory.join("file");
        let variables: Vec<_> = (0..100_000).map(|index| format!("V{index}=x")).collect();
        fs::write(&file, json!({"args": ["true"], "cwd": "/", "env": variables, "oomScoreAdj": 5000}).to_string())
            .unwrap();
        let process = container.command(&["exec", "--process", file.to_str().unwrap()], &[]).fails();
        assert!(process.stderr.starts_with("process.oomScoreAdj: "), "{process:?}");
        let limits: Vec<_> = (0..100_000).map(|minor| json!({"major": 8, "minor": minor, "rate": 1})).collect();
        let pages = json!([{"pageSize": "x", "limit": 0}]);
        fs::write(&file, json!({"blockIO": {"throttleReadBpsDevice": limits}, "hugepageLimits": pages}).to_string())
            .unwrap();
        let update = container.command(&["update", "--resources", file.to_str().unwrap()], &[]).fails();
        assert!(update.stderr.starts_with("linux.resources.hugepageLimits[0].pageSize: "), "{update:?}");
    });
}
