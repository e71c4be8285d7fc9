//! The table: config.json on the left, writes on the right.

use super::block_io::io_weight;
use super::*;
use serde_json::{Value, json};

fn resources(value: Value) -> LinuxResources {
    serde_json::from_value(value).unwrap()
}

/// `file=value`, then `|file=value` for the alternative, `?` for optional and `!` for retry.
fn texts(settings: Vec<Setting>) -> Vec<String> {
    let text = |setting: Setting| {
        assert!(setting.field.starts_with("linux.resources."), "{setting:?}");
        assert!(setting.file.starts_with(&format!("{}.", setting.controller)), "{setting:?}");
        let or = setting.or.map(|(file, value)| format!("|{file}={value}")).unwrap_or_default();
        let optional = if setting.optional { "?" } else { "" };
        let retry = if setting.retry { "!" } else { "" };
        format!("{}={}{or}{optional}{retry}", setting.file, setting.value)
    };
    settings.into_iter().map(text).collect()
}

fn on_v1(value: Value) -> Vec<String> {
    texts(v1(&resources(value)).unwrap())
}

fn on_v2(value: Value) -> Vec<String> {
    texts(v2(&resources(value)).unwrap())
}

fn refused(result: Result<Vec<Setting>>) -> String {
    result.unwrap_err().to_string()
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn zero_and_empty_values_set_nothing() {
    let zeros = json!({
        "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "kernelTCP": 0, "disableOOMKiller": false},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": [{"major": 8, "minor": 0, "weight": 0}], "throttleReadBpsDevice": []},
        "hugepageLimits": [], "network": {"classID": 0, "priorities": []}, "rdma": {}, "unified": {}, "devices": [],
    });
    assert_eq!(on_v1(zeros.clone()), nothing());
    assert_eq!(on_v2(zeros), nothing());
    assert_eq!(on_v1(json!({})), nothing());
}

#[test]
fn memory_on_v1() {
    let of = |memory: Value| on_v1(json!({ "memory": memory }));
    assert_eq!(
        of(json!({"limit": 100, "swap": 200, "reservation": 50, "swappiness": 0, "disableOOMKiller": true})),
        [
            "memory.limit_in_bytes=100!",
            "memory.memsw.limit_in_bytes=200",
            "memory.soft_limit_in_bytes=50",
            "memory.oom_control=1",
            "memory.swappiness=0",
        ]
    );
    assert_eq!(of(json!({"limit": -1})), ["memory.limit_in_bytes=-1!", "memory.memsw.limit_in_bytes=-1?"]);
    assert_eq!(of(json!({"swap": -1})), ["memory.memsw.limit_in_bytes=-1?"]);
    assert_eq!(of(json!({"swappiness": u64::MAX, "kernel": 5, "useHierarchy": true})), nothing());
}

#[test]
fn memory_on_v2() {
    let of = |memory: Value| on_v2(json!({ "memory": memory }));
    assert_eq!(
        of(json!({"limit": 100, "swap": 300, "reservation": 50, "swappiness": u64::MAX, "disableOOMKiller": false})),
        ["memory.swap.max=200", "memory.max=100", "memory.low=50"]
    );
    assert_eq!(of(json!({"limit": 100, "swap": 100})), ["memory.swap.max=0?", "memory.max=100"]);
    assert_eq!(of(json!({"limit": 100, "swap": -1})), ["memory.swap.max=max?", "memory.max=100"]);
    assert_eq!(of(json!({"limit": -1})), ["memory.swap.max=max?", "memory.max=max?"]);
    assert_eq!(of(json!({"limit": -1, "swap": 7})), ["memory.swap.max=7", "memory.max=max?"]);
    assert_eq!(of(json!({"limit": 100})), ["memory.max=100"]);
}

#[test]
fn memory_that_makes_no_sense_is_refused() {
    for (memory, wanted) in [
        (json!({"swap": 100}), "swap: 100: unable to set swap limit without memory limit"),
        (json!({"limit": 100, "swap": 50}), "swap: 50: memory+swap limit should be >= memory limit, which is 100"),
        (json!({"limit": -2}), "limit: invalid memory value: -2"),
        (json!({"reservation": -7}), "reservation: invalid memory value: -7"),
    ] {
        let error = refused(v2(&resources(json!({ "memory": memory }))));
        assert_eq!(error, format!("linux.resources.memory.{wanted}"));
    }
    assert_eq!(
        refused(v1(&resources(json!({"memory": {"swappiness": 101}})))),
        "linux.resources.memory.swappiness: invalid memory swappiness value: 101 (valid range is 0-100)"
    );
}

#[test]
fn cpu_on_v1() {
    let cpu = json!({"shares": 512, "quota": 50000, "period": 100000, "burst": 10000, "idle": 1, "realtimeRuntime": 5,
                     "realtimePeriod": 9, "cpus": "0-1", "mems": "0"});
    assert_eq!(
        on_v1(json!({ "cpu": cpu })),
        [
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "cpu.idle=0?",
            "cpu.shares=512",
            "cpu.idle=1",
            "cpu.cfs_period_us=100000!",
            "cpu.cfs_burst_us=10000?!",
            "cpu.cfs_quota_us=50000",
            "cpu.rt_period_us=9!",
            "cpu.rt_runtime_us=5",
        ]
    );
    for (shares, wanted) in
        [(1, "the minimum allowed cpu-shares is 2"), (262_145, "the maximum allowed cpu-shares is 262144")]
    {
        let error = refused(v1(&resources(json!({"cpu": {"shares": shares}}))));
        assert_eq!(error, format!("linux.resources.cpu.shares: {wanted}"));
    }
}

#[test]
fn cpu_on_v2() {
    let of = |cpu: Value| on_v2(json!({ "cpu": cpu }));
    assert_eq!(
        of(json!({"shares": 1024, "quota": 50000, "period": 200000, "burst": 10, "idle": 0, "realtimePeriod": 0,
                  "cpus": "0", "mems": "0"})),
        [
            "cpu.idle=0?",
            "cpu.weight=100",
            "cpu.max.burst=10!",
            "cpu.max=50000 200000",
            "cpuset.cpus=0",
            "cpuset.mems=0"
        ]
    );
    assert_eq!(of(json!({"quota": 5000})), ["cpu.max=5000 100000"]);
    assert_eq!(of(json!({"shares": 1024, "idle": 1})), ["cpu.idle=0?", "cpu.weight=100", "cpu.idle=1"]);
    assert_eq!(of(json!({"idle": 1})), ["cpu.idle=1"]);
    assert_eq!(of(json!({"quota": -1})), ["cpu.max=max 100000?"]);
    assert_eq!(of(json!({"period": 5000})), ["cpu.max=max 5000?"]);
}

#[test]
fn shares_become_weights_on_runcs_curve() {
    for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000), (512, 59), (2048, 174)]
    {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
    let weights: Vec<u64> = (2..262_144).step_by(997).map(cpu_weight).collect();
    assert!(weights.is_sorted());
}

#[test]
fn pids_below_zero_are_without_limit_and_zero_is_one() {
    for (limit, wanted) in [(-1, "pids.max=max?"), (i64::MIN, "pids.max=max?"), (0, "pids.max=1"), (7, "pids.max=7")] {
        assert_eq!(on_v1(json!({"pids": {"limit": limit}})), [wanted]);
        assert_eq!(on_v2(json!({"pids": {"limit": limit}})), [wanted]);
    }
}

fn block_io() -> Value {
    json!({"blockIO": {
        "weight": 10, "leafWeight": 20,
        "weightDevice": [{"major": 8, "minor": 1, "weight": 1000, "leafWeight": 30}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 700}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 800}],
    }})
}

#[test]
fn block_io_on_v1() {
    assert_eq!(
        on_v1(block_io()),
        [
            "blkio.weight=10|blkio.bfq.weight=10",
            "blkio.leaf_weight=20",
            "blkio.weight_device=8:1 1000|blkio.bfq.weight_device=8:1 1000",
            "blkio.leaf_weight_device=8:1 30",
            "blkio.throttle.read_bps_device=8:0 600",
            "blkio.throttle.write_bps_device=8:0 0?",
            "blkio.throttle.read_iops_device=8:0 700",
            "blkio.throttle.write_iops_device=8:16 800",
        ]
    );
}

#[test]
fn block_io_on_v2() {
    assert_eq!(
        refused(v2(&resources(block_io()))),
        "linux.resources.blockIO.leafWeight: cgroup v2 has no such setting"
    );
    let mut of_v2 = block_io();
    of_v2["blockIO"]["leafWeight"] = Value::Null;
    of_v2["blockIO"]["weightDevice"][0]["leafWeight"] = Value::Null;
    assert_eq!(
        on_v2(of_v2),
        [
            "io.bfq.weight=10|io.weight=1",
            "io.bfq.weight=8:1 1000|io.weight=8:1 10000?",
            "io.max=8:0 rbps=600",
            "io.max=8:0 wbps=max?",
            "io.max=8:0 riops=700",
            "io.max=8:16 wiops=800",
        ]
    );
    // runc's whole-number arithmetic.
    assert_eq!([10, 100, 500, 1000].map(io_weight), [1, 910, 4950, 10_000]);
    assert_eq!(io_weight(5), 1);
}

#[test]
fn block_io_that_no_kernel_takes_is_refused() {
    for (io, wanted) in [
        (json!({"weight": 1001}), "weight: 1001 is above 1000, the largest weight"),
        (
            json!({"weightDevice": [{"major": 1, "minor": 1, "weight": 5000}]}),
            "weightDevice[0].weight: 5000 is above 1000, the largest weight",
        ),
        (json!({"weightDevice": [{"major": 8, "minor": 0}]}), "weightDevice[0]: expected weight or leafWeight"),
        (
            json!({"throttleReadIOPSDevice": [{"major": -1, "minor": 1, "rate": 5}]}),
            "throttleReadIOPSDevice[0].major: -1 is not a device number",
        ),
    ] {
        let resources = resources(json!({ "blockIO": io }));
        assert_eq!(refused(v1(&resources)), format!("linux.resources.blockIO.{wanted}"));
        assert_eq!(refused(v2(&resources)), format!("linux.resources.blockIO.{wanted}"));
    }
}

#[test]
fn huge_pages_and_their_reservations() {
    let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 5}]});
    assert_eq!(
        on_v1(limits.clone()),
        [
            "hugetlb.2MB.limit_in_bytes=0",
            "hugetlb.2MB.rsvd.limit_in_bytes=0?",
            "hugetlb.1GB.limit_in_bytes=5",
            "hugetlb.1GB.rsvd.limit_in_bytes=5?",
        ]
    );
    assert_eq!(
        on_v2(limits),
        ["hugetlb.2MB.max=0", "hugetlb.2MB.rsvd.max=0?", "hugetlb.1GB.max=5", "hugetlb.1GB.rsvd.max=5?"]
    );
    for size in ["", "MB", "2", "02MB", "2mb", "2MB/../x", "../2MB", "2 MB", "2TB"] {
        let error = refused(v2(&resources(json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]}))));
        assert_eq!(
            error,
            format!(
                "linux.resources.hugepageLimits[0].pageSize: {size:?} is not a page size, expected for example \"2MB\""
            )
        );
    }
}

#[test]
fn network_is_for_v1_only() {
    let network = json!({"network": {"classID": 1_048_577, "priorities": [{"name": "eth0", "priority": 5}]}});
    assert_eq!(on_v1(network.clone()), ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
    assert_eq!(refused(v2(&resources(network))), "linux.resources.network.classID: cgroup v2 has no such setting");
    let error = refused(v1(&resources(json!({"network": {"priorities": [{"name": "a\nb", "priority": 5}]}}))));
    assert_eq!(error, "linux.resources.network.priorities[0].name: \"a\\nb\" is not a device name");
}

#[test]
fn rdma_is_one_line_for_each_device() {
    let rdma = json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 0}}});
    let wanted = ["rdma.max=mlx4_0 hca_object=0", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"];
    assert_eq!(on_v1(rdma.clone()), wanted);
    assert_eq!(on_v2(rdma), wanted);
    let error = refused(v2(&resources(json!({"rdma": {"rxe3": {}}}))));
    assert_eq!(error, "linux.resources.rdma[\"rxe3\"]: expected hcaHandles or hcaObjects");
}

#[test]
fn unified_comes_last_a_line_at_a_time_and_is_refused_on_v1() {
    let all = json!({"pids": {"limit": 3}, "unified": {
        "memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 wbps=2", "cpuset.cpus.partition": "", "cgroup.max.depth": "0\n"}});
    assert_eq!(
        on_v2(all.clone()),
        [
            "pids.max=3",
            "cgroup.max.depth=0\n",
            "cpuset.cpus.partition=",
            "io.max=8:0 rbps=1\n",
            "io.max=8:16 wbps=2",
            "memory.high=1000",
        ]
    );
    assert_eq!(
        refused(v1(&resources(all))),
        "linux.resources.unified: \"cgroup.max.depth\": invalid configuration: cannot use unified on cgroup v1"
    );
    for (file, wanted) in [
        ("memory/high", "must be a file name (no slashes)"),
        ("../x.y", "must be a file name (no slashes)"),
        ("memory", "must be in the form CONTROLLER.PARAMETER"),
        ("..", "must be in the form CONTROLLER.PARAMETER"),
        ("memory.", "must be in the form CONTROLLER.PARAMETER"),
        (".high", "must be in the form CONTROLLER.PARAMETER"),
        ("cgroup.procs", "is not a limit"),
        ("cgroup.kill", "is not a limit"),
        ("memory.hi\0gh", "must be in the form CONTROLLER.PARAMETER"),
    ] {
        let error = refused(v2(&resources(json!({"unified": {file: "1"}}))));
        assert_eq!(error, format!("linux.resources.unified[{file:?}]: unified resource {file:?} {wanted}"));
    }
}
