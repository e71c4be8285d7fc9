//! Against files with what Linux 6 writes into them.

use serde_json::{Value, json};

use super::*;

/// The figures of a cgroup with these files, as JSON.
fn stats(version: Version, there: &[(&str, &str)]) -> Result<Value> {
    let read = |_: &str, wanted: &str| {
        there.iter().find(|(file, _)| *file == wanted).map(|(_, text)| (*text).to_owned()).ok_or(Errno::NOENT)
    };
    let sizes = page_sizes(there.iter().map(|(file, _)| (*file).to_owned()));
    gather(version, &Files { read: &read }, &sizes).map(|stats| serde_json::to_value(stats).unwrap())
}

#[test]
fn without_files_the_objects_are_there_all_the_same() {
    let entry = json!({"limit": 0, "failcnt": 0});
    let flags: BTreeMap<&str, i64> = CPUSET_FLAGS.iter().map(|name| (*name, 0)).collect();
    let expected = json!({
        "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
        "cpuset": flags,
        "memory": {"usage": entry, "swap": entry, "kernel": entry, "kernelTCP": entry},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
    });
    assert_eq!(stats(Version::V1, &[]).unwrap(), expected);
    assert_eq!(stats(Version::V2, &[]).unwrap(), expected);
}

#[test]
fn processor_time_is_in_nanoseconds() {
    let v1 = [
        ("cpuacct.usage", "9131702\n"),
        ("cpuacct.usage_percpu", "0 9131702 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 0 0\n1 1131702 8000000\n"),
        ("cpuacct.stat", "user 3\nsystem 12\n"),
        ("cpu.stat", "nr_periods 5\nnr_throttled 2\nthrottled_time 700\n"),
    ];
    let expected = json!({
        "usage": {"total": 9_131_702, "percpu": [0, 9_131_702], "percpu_kernel": [0, 8_000_000],
                  "percpu_user": [0, 1_131_702], "kernel": 120_000_000, "user": 30_000_000},
        "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 700},
    });
    assert_eq!(stats(Version::V1, &v1).unwrap()["cpu"], expected);

    let text = "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n";
    let expected = json!({
        "usage": {"total": 9000, "kernel": 5000, "user": 4000},
        "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 7000},
    });
    assert_eq!(stats(Version::V2, &[("cpu.stat", text)]).unwrap()["cpu"], expected);
}

#[test]
fn cpusets_are_numbers() {
    let v1 = [("cpuset.cpus", "0-2,7\n"), ("cpuset.mems", "0\n"), ("cpuset.sched_relax_domain_level", "-1\n")];
    let found = &stats(Version::V1, &v1).unwrap()["cpuset"];
    assert_eq!((&found["cpus"], &found["mems"]), (&json!([0, 1, 2, 7]), &json!([0])));
    assert_eq!((&found["sched_relax_domain_level"], &found["cpu_exclusive"]), (&json!(-1), &json!(0)));
}

#[test]
fn swap_includes_memory() {
    let v1 = [
        ("memory.stat", "cache 8192\nrss -4096\n"),
        ("memory.usage_in_bytes", "100\n"),
        ("memory.limit_in_bytes", "400\n"),
        ("memory.failcnt", "3\n"),
        ("memory.memsw.usage_in_bytes", "150\n"),
        ("memory.memsw.max_usage_in_bytes", "160\n"),
    ];
    let found = &stats(Version::V1, &v1).unwrap()["memory"];
    assert_eq!((&found["cache"], &found["raw"]), (&json!(8192), &json!({"cache": 8192, "rss": 0})));
    assert_eq!(found["usage"], json!({"limit": 400, "usage": 100, "failcnt": 3}));
    assert_eq!(found["swap"], json!({"limit": 0, "usage": 150, "max": 160, "failcnt": 0}));

    let v2 = [
        ("memory.stat", "anon 1\nfile 2\n"),
        ("memory.current", "100\n"),
        ("memory.peak", "300\n"),
        ("memory.max", "400\n"),
        ("memory.swap.current", "50\n"),
        ("memory.swap.max", "max\n"),
    ];
    let found = &stats(Version::V2, &v2).unwrap()["memory"];
    assert_eq!((&found["cache"], &found["raw"]), (&json!(2), &json!({"anon": 1, "file": 2})));
    assert_eq!(found["usage"], json!({"limit": 400, "usage": 100, "max": 300, "failcnt": 0}));
    assert_eq!(found["swap"], json!({"limit": u64::MAX, "usage": 150, "failcnt": 0}));
}

#[test]
fn no_limit_of_processes_is_left_out() {
    let files = [("pids.current", "5\n"), ("pids.max", "max\n")];
    assert_eq!(stats(Version::V1, &files).unwrap()["pids"], json!({"current": 5}));
    let files = [("pids.current", "5\n"), ("pids.max", "20\n")];
    assert_eq!(stats(Version::V2, &files).unwrap()["pids"], json!({"current": 5, "limit": 20}));
    assert_eq!(stats(Version::V2, &[("cgroup.procs", "7\n9\n")]).unwrap()["pids"], json!({"current": 2}));
}

#[test]
fn block_io_is_of_bfq_before_throttling() {
    let throttling = ("blkio.throttle.io_serviced_recursive", "8:16 Read 3\n8:16 Total 3\nTotal 3\n");
    let found = &stats(Version::V1, &[throttling]).unwrap()["blkio"];
    let entry = |op| json!({"major": 8, "minor": 16, "op": op, "value": 3});
    assert_eq!(*found, json!({"ioServicedRecursive": [entry("Read"), entry("Total")]}));
    let found = &stats(Version::V1, &[throttling, ("blkio.bfq.sectors_recursive", "8:0 42\n")]).unwrap()["blkio"];
    assert_eq!(*found, json!({"sectorsRecursive": [{"major": 8, "value": 42}]}));
}

#[test]
fn block_io_of_v2_is_in_the_lists_of_v1() {
    let text = "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:1 \n";
    let found = &stats(Version::V2, &[("io.stat", text)]).unwrap()["blkio"];
    let bytes = json!([{"major": 8, "op": "Read", "value": 4096}, {"major": 8, "op": "Write"}]);
    let times = json!([{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write"}]);
    assert_eq!(*found, json!({"ioServiceBytesRecursive": bytes, "ioServicedRecursive": times}));
}

#[test]
fn huge_pages_count_by_reservation_where_there_is_one() {
    let v1 = [
        ("hugetlb.2MB.usage_in_bytes", "1\n"),
        ("hugetlb.2MB.rsvd.usage_in_bytes", "2\n"),
        ("hugetlb.2MB.rsvd.max_usage_in_bytes", "3\n"),
        ("hugetlb.2MB.rsvd.failcnt", "4\n"),
        ("hugetlb.1GB.usage_in_bytes", "5\n"),
    ];
    let expected = json!({"2MB": {"usage": 2, "max": 3, "failcnt": 4}, "1GB": {"usage": 5, "failcnt": 0}});
    assert_eq!(stats(Version::V1, &v1).unwrap()["hugetlb"], expected);
    let v2 = [("hugetlb.2MB.current", "1\n"), ("hugetlb.2MB.rsvd.current", "2\n"), ("hugetlb.2MB.events", "max 4\n")];
    assert_eq!(stats(Version::V2, &v2).unwrap()["hugetlb"], json!({"2MB": {"usage": 2, "failcnt": 4}}));
}

#[test]
fn pressure_is_that_of_its_resource() {
    let text = "some avg10=0.12 avg60=1.50 avg300=0.00 total=345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let found = stats(Version::V2, &[("memory.pressure", text)]).unwrap();
    let some = json!({"avg10": 0.12, "avg60": 1.5, "avg300": 0.0, "total": 345});
    let full = json!({"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0});
    assert_eq!(found["memory"]["psi"], json!({"some": some, "full": full}));
    assert!(found["cpu"].get("psi").is_none());
}

#[test]
fn what_is_not_understood_is_an_error_with_the_name_of_the_file() {
    for (file, text) in [
        ("pids.current", "many\n"),
        ("memory.stat", "cache\n"),
        ("cpuset.cpus", "0-\n"),
        ("blkio.throttle.io_serviced", "8 Read 3\n"),
        ("cpu.pressure", "some avg10\n"),
    ] {
        let error = stats(Version::V1, &[(file, text)]).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn a_cgroup_that_goes_away_is_an_error() {
    let read = |_: &str, _: &str| Err(Errno::NODEV);
    assert!(gather(Version::V2, &Files { read: &read }, &BTreeSet::new()).is_err());
}
