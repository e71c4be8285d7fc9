//! What the specification requires of a configuration, or forbids in it, one property at a time: without it, an error.

use serde_json::{Value, json};

use crate::errors::{broken, broken_text, seccomp, set, table};
use crate::support::{Bundle, base_config, case, cgroup_v2, skip};

const MAP: fn() -> Value = || json!([{"containerID": 0, "hostID": 1000, "size": 10}]);

/// A user namespace with a mapping of user ids that lacks a property.
fn mapping_without(bundle: &mut Bundle, property: &str) {
    bundle.namespace("user", None).set("/linux/gidMappings", MAP()).set("/linux/uidMappings", MAP());
    bundle.remove(&format!("/linux/uidMappings/0/{property}"));
}

/// A seccomp rule with an argument that lacks a property.
fn argument_without(bundle: &mut Bundle, property: &str) {
    let argument = json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"});
    let rule = json!([{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "args": [argument]}]);
    set(bundle, "/linux/seccomp", seccomp(rule));
    bundle.remove(&format!("/linux/seccomp/syscalls/0/args/0/{property}"));
}

fn block_io(bundle: &mut Bundle, list: &str, device: Value) {
    set(bundle, &format!("/linux/resources/blockIO/{list}"), json!([device]));
}

table! {
    version_has_a_leading_zero: |b| set(b, "/ociVersion", json!("1.00.2")), ["ociVersion", "1.00.2"];
    root_has_no_path: |b| set(b, "/root", json!({"readonly": true})), ["root.path"];
    // ------------------------------------------------------------------------------------------ process
    user_is_missing: |b| { b.remove("/process/user"); }, ["process.user: is missing"];
    user_has_no_uid: |b| { b.remove("/process/user/uid"); }, ["process.user.uid: is missing"];
    user_has_no_gid: |b| { b.remove("/process/user/gid"); }, ["process.user.gid: is missing"];
    rlimit_has_no_type: |b| set(b, "/process/rlimits/1", json!({"soft": 1, "hard": 1})), ["process.rlimits[1].type: is missing"];
    rlimit_has_no_soft: |b| set(b, "/process/rlimits/1", json!({"type": "RLIMIT_CORE", "hard": 1})), ["process.rlimits[1].soft: is missing"];
    // ------------------------------------------------------------------------------------------ the rest of the top
    hook_has_no_path: |b| set(b, "/hooks", json!({"prestart": [{"args": ["true"]}]})), ["hooks.prestart[0].path: is missing"];
    annotation_has_no_key: |b| set(b, "/annotations", json!({"": "value"})), ["annotations"];
    annotations_are_an_array: |b| set(b, "/annotations", json!(["key"])), ["annotations"];
    // ------------------------------------------------------------------------------------------ linux
    namespace_has_no_type: |b| set(b, "/linux/namespaces/5", json!({"path": "/proc/self/ns/net"})), ["linux.namespaces[5].type: is missing"];
    mapping_has_no_container_id: |b| mapping_without(b, "containerID"), ["linux.uidMappings[0].containerID: is missing"];
    mapping_has_no_host_id: |b| mapping_without(b, "hostID"), ["linux.uidMappings[0].hostID: is missing"];
    mapping_has_no_size: |b| mapping_without(b, "size"), ["linux.uidMappings[0].size: is missing"];
    device_has_no_type: |b| set(b, "/linux/devices", json!([{"path": "/dev/x", "major": 1, "minor": 3}])), ["linux.devices[0].type: is missing"];
    cgroups_path_is_a_number: |b| set(b, "/linux/cgroupsPath", json!(7)), ["linux.cgroupsPath", "7"];
    // ------------------------------------------------------------------------------------------ resources
    device_rule_has_no_allow: |b| set(b, "/linux/resources/devices/1", json!({"type": "c", "access": "r"})), ["linux.resources.devices[1].allow: is missing"];
    cpu_burst_is_above_the_quota: |b| set(b, "/linux/resources/cpu", json!({"quota": 50_000, "period": 100_000, "burst": 60_000})), ["linux.resources.cpu.burst", "60000"];
    weight_device_has_no_major: |b| block_io(b, "weightDevice", json!({"minor": 0, "weight": 100})), ["linux.resources.blockIO.weightDevice[0].major: is missing"];
    weight_device_has_no_minor: |b| block_io(b, "weightDevice", json!({"major": 8, "weight": 100})), ["linux.resources.blockIO.weightDevice[0].minor: is missing"];
    weight_device_has_no_weight: |b| block_io(b, "weightDevice", json!({"major": 8, "minor": 0})), ["linux.resources.blockIO.weightDevice[0]", "weight"];
    throttle_device_has_no_major: |b| block_io(b, "throttleReadBpsDevice", json!({"minor": 0, "rate": 1})), ["linux.resources.blockIO.throttleReadBpsDevice[0].major: is missing"];
    throttle_device_has_no_minor: |b| block_io(b, "throttleWriteIOPSDevice", json!({"major": 8, "rate": 1})), ["linux.resources.blockIO.throttleWriteIOPSDevice[0].minor: is missing"];
    throttle_device_has_no_rate: |b| block_io(b, "throttleReadBpsDevice", json!({"major": 8, "minor": 0})), ["linux.resources.blockIO.throttleReadBpsDevice[0].rate: is missing"];
    huge_page_has_no_size: |b| set(b, "/linux/resources/hugepageLimits", json!([{"limit": 2_097_152}])), ["linux.resources.hugepageLimits[0].pageSize: is missing"];
    huge_page_has_no_limit: |b| set(b, "/linux/resources/hugepageLimits", json!([{"pageSize": "2MB"}])), ["linux.resources.hugepageLimits[0].limit: is missing"];
    network_priority_has_no_name: |b| set(b, "/linux/resources/network", json!({"priorities": [{"priority": 1}]})), ["linux.resources.network.priorities[0].name: is missing"];
    network_priority_has_no_priority: |b| set(b, "/linux/resources/network", json!({"priorities": [{"name": "lo"}]})), ["linux.resources.network.priorities[0].priority: is missing"];
    rdma_device_has_no_limit: |b| set(b, "/linux/resources/rdma", json!({"mlx5_0": {}})), ["linux.resources.rdma", "mlx5_0"];
    // ------------------------------------------------------------------------------------------ seccomp
    seccomp_has_no_default_action: |b| set(b, "/linux/seccomp", json!({"syscalls": []})), ["linux.seccomp.defaultAction: is missing"];
    seccomp_default_action_takes_no_errno: |b| set(b, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1})), ["linux.seccomp.defaultErrnoRet", "SCMP_ACT_ALLOW"];
    seccomp_action_takes_no_errno: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["sync"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]))), ["linux.seccomp.syscalls[0].errnoRet", "SCMP_ACT_KILL"];
    seccomp_rule_has_no_names: |b| set(b, "/linux/seccomp", seccomp(json!([{"action": "SCMP_ACT_ERRNO"}]))), ["linux.seccomp.syscalls[0].names: is missing"];
    seccomp_rule_has_no_action: |b| set(b, "/linux/seccomp", seccomp(json!([{"names": ["sync"]}]))), ["linux.seccomp.syscalls[0].action: is missing"];
    seccomp_argument_has_no_index: |b| argument_without(b, "index"), ["linux.seccomp.syscalls[0].args[0].index: is missing"];
    seccomp_argument_has_no_value: |b| argument_without(b, "value"), ["linux.seccomp.syscalls[0].args[0].value: is missing"];
    seccomp_argument_has_no_operator: |b| argument_without(b, "op"), ["linux.seccomp.syscalls[0].args[0].op: is missing"];
}

#[test]
fn settings_of_v1_on_v2() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        for (field, value) in [
            ("memory.swappiness", json!(60)),
            ("memory.disableOOMKiller", json!(true)),
            ("memory.kernelTCP", json!(67_108_864)),
            ("cpu.realtimePeriod", json!(1_000_000)),
            ("cpu.realtimeRuntime", json!(100_000)),
            ("blockIO.leafWeight", json!(500)),
            ("network.classID", json!(1_048_577)),
            ("network.priorities", json!([{"name": "lo", "priority": 1}])),
        ] {
            let pointer = format!("/linux/resources/{}", field.replace('.', "/"));
            broken(|bundle| set(bundle, &pointer, value), &[&format!("linux.resources.{field}")]);
        }
    });
}

#[test]
fn a_name_stands_twice_in_an_object() {
    case(|| {
        for (object, name) in
            [("", "hostname"), ("/process", "cwd"), ("/annotations", "key"), ("/linux/sysctl", "net.ipv4.ip_forward")]
        {
            let mut bundle = Bundle::new();
            bundle.config = base_config();
            bundle.set("/annotations", json!({"key": "x"})).set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
            let whole = bundle.config.to_string();
            let before = bundle.config.pointer(object).unwrap().to_string();
            let value = &bundle.config.pointer(object).unwrap()[name];
            let twice = format!("{{{}:{value},{}", json!(name), &before[1..]);
            let text = whole.replacen(&before, &twice, 1);
            assert_ne!(text, whole);
            broken_text(text.as_bytes(), &[name]);
        }
    });
}
