//! Limits: what the host's cgroup files say of a container, and what the container feels.

mod devices;
mod disabled;
mod felt;
pub(crate) mod removal;
mod v2;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{
    Bundle, Container, WAITING, busybox, case, cgroup_parent, cgroup_v2, cgroups_of, controller, hierarchies, inside,
    ours, peer, skip, systemd, text,
};

/// A setting: its place in `linux.resources`, its value, then v1: controller, file, text, and v2: the same.
struct Setting {
    pointer: &'static str,
    value: Value,
    v1: (&'static str, &'static str, &'static str),
    v2: (&'static str, &'static str, &'static str),
}

fn setting(
    pointer: &'static str,
    value: Value,
    v1: (&'static str, &'static str, &'static str),
    v2: (&'static str, &'static str, &'static str),
) -> Setting {
    Setting { pointer, value, v1, v2 }
}

const NONE: (&str, &str, &str) = ("", "", "");

/// Whether a new cgroup of a hierarchy has a file: not every kernel has every limit, and v2 may leave a controller off.
fn has_file(mount: &Path, file: &str) -> bool {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    if cgroup_v2() {
        return true;
    }
    let name = format!("runtime-test-probe-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
    let probe = mount.join(name);
    fs::create_dir(&probe).unwrap();
    let there = probe.join(file).exists();
    fs::remove_dir(&probe).unwrap();
    there
}

/// Creates a container with these settings and reads them back.
fn check(settings: &[Setting]) -> usize {
    let mut bundle = Bundle::new();
    let mut expected = Vec::new();
    for one in settings {
        let (name, file, value) = if cgroup_v2() { one.v2 } else { one.v1 };
        let place = controller(name);
        let there = place.is_some_and(|mount| has_file(&mount, file));
        if !file.is_empty() && there {
            bundle.set(&format!("/linux/resources{}", one.pointer), one.value.clone());
            expected.push((one.pointer, name, file, value));
        }
    }
    let container = bundle.container();
    container.create().ok();
    for (pointer, name, file, value) in &expected {
        let path = container.cgroup(name).unwrap().join(file);
        let found = text(&path);
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), *value, "{pointer}: {}", path.display());
    }
    for (name, _) in expected.iter().map(|(_, name, ..)| (name, ())) {
        let processes = text(container.cgroup(name).unwrap().join("cgroup.procs"));
        assert_eq!(processes.trim(), container.pid().to_string(), "{name}");
    }
    container.command(&["delete", "--force"], &[]).ok();
    container.nothing_left();
    expected.len()
}

#[test]
fn memory() {
    case(|| {
        let count = check(&[
            setting(
                "/memory/limit",
                json!(67_108_864),
                ("memory", "memory.limit_in_bytes", "67108864"),
                ("memory", "memory.max", "67108864"),
            ),
            setting(
                "/memory/reservation",
                json!(33_554_432),
                ("memory", "memory.soft_limit_in_bytes", "33554432"),
                ("memory", "memory.low", "33554432"),
            ),
            setting("/memory/swappiness", json!(7), ("memory", "memory.swappiness", "7"), NONE),
            setting(
                "/memory/swap",
                json!(134_217_728),
                ("memory", "memory.memsw.limit_in_bytes", "134217728"),
                ("memory", "memory.swap.max", "67108864"),
            ),
        ]);
        if count == 0 {
            skip!("no memory controller");
        }
    });
}

#[test]
fn memory_without_limit() {
    case(|| {
        let unlimited = "9223372036854771712";
        let count = check(&[setting(
            "/memory/limit",
            json!(-1),
            ("memory", "memory.limit_in_bytes", unlimited),
            ("memory", "memory.max", "max"),
        )]);
        if count == 0 {
            skip!("no memory controller");
        }
    });
}

#[test]
fn cpu() {
    case(|| {
        let mut settings = vec![
            setting("/cpu/shares", json!(1024), ("cpu", "cpu.shares", "1024"), NONE),
            setting(
                "/cpu/quota",
                json!(50_000),
                ("cpu", "cpu.cfs_quota_us", "50000"),
                ("cpu", "cpu.max", "50000 200000"),
            ),
            setting(
                "/cpu/period",
                json!(200_000),
                ("cpu", "cpu.cfs_period_us", "200000"),
                ("cpu", "cpu.max", "50000 200000"),
            ),
        ];
        // The formula of runc before 1.3.2 gave 39.
        if ours() {
            settings[0].v2 = ("cpu", "cpu.weight", "100");
        }
        if check(&settings) == 0 {
            skip!("no cpu controller");
        }
    });
}

#[test]
fn cpu_burst_and_idle() {
    case(|| {
        let burst = [
            setting(
                "/cpu/quota",
                json!(50_000),
                ("cpu", "cpu.cfs_quota_us", "50000"),
                ("cpu", "cpu.max", "50000 100000"),
            ),
            setting(
                "/cpu/period",
                json!(100_000),
                ("cpu", "cpu.cfs_period_us", "100000"),
                ("cpu", "cpu.max", "50000 100000"),
            ),
            setting(
                "/cpu/burst",
                json!(10_000),
                ("cpu", "cpu.cfs_burst_us", "10000"),
                ("cpu", "cpu.max.burst", "10000"),
            ),
        ];
        let idle = [setting("/cpu/idle", json!(1), ("cpu", "cpu.idle", "1"), ("cpu", "cpu.idle", "1"))];
        let both = [
            setting("/cpu/idle", json!(1), ("cpu", "cpu.idle", "1"), ("cpu", "cpu.idle", "1")),
            // So it is read while the cgroup is idle.
            setting("/cpu/shares", json!(512), ("cpu", "cpu.shares", "3"), ("cpu", "cpu.weight", "0")),
        ];
        if check(&burst) + check(&idle) + check(&both) == 0 {
            skip!("no cpu controller");
        }
    });
}

#[test]
fn cpuset() {
    case(|| {
        let count = check(&[
            setting("/cpu/cpus", json!("0"), ("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.cpus", "0")),
            setting("/cpu/mems", json!("0"), ("cpuset", "cpuset.mems", "0"), ("cpuset", "cpuset.mems", "0")),
        ]);
        if count == 0 {
            skip!("no cpuset controller");
        }
        let printed = inside("grep Cpus_allowed_list /proc/self/status", |bundle| {
            bundle.set("/linux/resources/cpu", json!({"cpus": "0"}));
        });
        assert_eq!(printed.split_whitespace().nth(1), Some("0"));
    });
}

#[test]
fn pids() {
    case(|| {
        let count = check(&[setting("/pids/limit", json!(42), ("pids", "pids.max", "42"), ("pids", "pids.max", "42"))]);
        if count == 0 {
            skip!("no pids controller");
        }
        check(&[setting("/pids/limit", json!(-1), ("pids", "pids.max", "max"), ("pids", "pids.max", "max"))]);
    });
}

#[test]
fn pids_limit_is_felt() {
    case(|| {
        let Some(_) = controller("pids") else { skip!("no pids controller") };
        let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
        let mut bundle = Bundle::sh(script);
        bundle.set("/linux/resources/pids", json!({"limit": 4}));
        let output = bundle.container().run();
        assert!(output.code() != 0 && !output.stdout.contains("all"), "{output:?}");
    });
}

#[test]
fn block_io() {
    case(|| {
        // A whole disk: the kernel takes no partition here.
        let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let Some(disk) = disks.map(|entry| text(entry.path().join("dev"))).find(|device| !device.is_empty()) else {
            skip!("no block device");
        };
        let (major, minor) = disk.trim().split_once(':').unwrap();
        let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
        let v1 = format!("{major}:{minor} 1048576").leak();
        let v2 = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max").leak();
        let count = check(&[setting(
            "/blockIO/throttleReadBpsDevice",
            json!([{"major": major, "minor": minor, "rate": 1_048_576}]),
            ("blkio", "blkio.throttle.read_bps_device", v1),
            ("io", "io.max", v2),
        )]);
        if count == 0 {
            skip!("no blkio or io controller");
        }
    });
}

#[test]
fn huge_pages() {
    case(|| {
        if controller("hugetlb").is_none() {
            skip!("no hugetlb controller");
        }
        check(&[setting(
            "/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 4_194_304}]),
            ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
            ("hugetlb", "hugetlb.2MB.max", "4194304"),
        )]);
    });
}

#[test]
fn unified() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        check(&[setting(
            "/unified",
            json!({"memory.high": "50331648", "pids.max": "33", "memory.oom.group": "1"}),
            NONE,
            ("memory", "memory.high", "50331648"),
        )]);
        let printed = inside("cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.oom.group", |bundle| {
            bundle
                .namespace("cgroup", None)
                .set("/linux/resources/unified", json!({"pids.max": "33", "memory.oom.group": "1"}));
        });
        assert_eq!(printed, "33\n1\n");
    });
}

// ---------------------------------------------------------------------------------------------- devices

/// Runs `try` lines in a container with these device rules: opens of a device that no driver answers to. EPERM is the
/// cgroup's word, ENXIO or ENODEV the kernel's when the cgroup lets it through.
fn opens(rules: Value) -> Vec<bool> {
    let script =
        "for try in '<' '>'; do eval \": $try /dev/probe\" 2>&1 | grep -q 'not permitted' && echo no || echo yes; done";
    let mut bundle = Bundle::sh(script);
    bundle.set(
        "/linux/devices",
        json!([{"path": "/dev/probe", "type": "c", "major": 10, "minor": 250, "fileMode": 0o666}]),
    );
    bundle.set("/linux/resources/devices", rules);
    let output = bundle.container().run().ok();
    output.stdout.lines().map(|line| line == "yes").collect()
}

#[test]
fn device_rules_are_felt() {
    case(|| {
        let deny = json!({"allow": false, "access": "rwm"});
        let table = [
            ("nothing allowed", json!([deny]), [false, false]),
            (
                "this one",
                json!([deny, {"allow": true, "type": "c", "major": 10, "minor": 250, "access": "rw"}]),
                [true, true],
            ),
            (
                "to be read",
                json!([deny, {"allow": true, "type": "c", "major": 10, "minor": 250, "access": "r"}]),
                [true, false],
            ),
            (
                "to be written",
                json!([deny, {"allow": true, "type": "c", "major": 10, "minor": 250, "access": "w"}]),
                [false, true],
            ),
            ("any minor", json!([deny, {"allow": true, "type": "c", "major": 10, "access": "rw"}]), [true, true]),
            ("any of the type", json!([deny, {"allow": true, "type": "c", "access": "rw"}]), [true, true]),
            (
                "another minor",
                json!([deny, {"allow": true, "type": "c", "major": 10, "minor": 251, "access": "rw"}]),
                [false, false],
            ),
            (
                "another type",
                json!([deny, {"allow": true, "type": "b", "major": 10, "minor": 250, "access": "rw"}]),
                [false, false],
            ),
            ("all", json!([{"allow": true, "access": "rwm"}]), [true, true]),
            (
                "all but this one",
                json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 10, "minor": 250, "access": "rw"}]),
                [false, false],
            ),
            (
                "allowed and taken back",
                json!([deny, {"allow": true, "type": "c", "major": 10, "minor": 250, "access": "rw"}, {"allow": false, "type": "c", "major": 10, "minor": 250, "access": "w"}]),
                [true, false],
            ),
        ];
        for (what, rules, expected) in table {
            assert_eq!(opens(rules), expected, "{what}");
        }
    });
}

#[test]
fn devices_may_be_made_where_they_cannot_be_opened() {
    case(|| {
        let printed =
            inside("mknod /mnt/node c 10 250 && echo made; cat /mnt/node 2>&1 | grep -c 'not permitted'", |bundle| {
                bundle.capabilities(&["CAP_MKNOD"]);
            });
        assert_eq!(printed, "made\n1\n");
    });
}

#[test]
fn default_devices_work_when_all_is_denied_and_terminals_too() {
    case(|| {
        let script = "for d in null zero full random urandom; do head -c 1 /dev/$d > /dev/null || echo no $d; done; \
                      (: < /dev/ptmx) || echo no ptmx; ls /dev/pts | head -1; echo end";
        assert_eq!(inside(script, |_| {}), "ptmx\nend\n");
    });
}

#[test]
fn device_list_of_v1() {
    case(|| {
        let Some(_) = controller("devices") else { skip!("no devices controller") };
        let mut bundle = Bundle::new();
        bundle.set(
            "/linux/resources/devices",
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 7, "minor": 3, "access": "r"}]),
        );
        let container = bundle.container();
        container.create().ok();
        let list = text(container.cgroup("devices").unwrap().join("devices.list"));
        let lines: Vec<&str> = list.lines().collect();
        assert!(lines.contains(&"b 7:3 rm") || lines.contains(&"b 7:3 r"), "{list}");
        for line in
            ["c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"]
        {
            assert!(lines.contains(&line), "no {line}: {list}");
        }
        assert!(!lines.contains(&"a *:* rwm"), "{list}");
    });
}

// ---------------------------------------------------------------------------------------------- paths

/// The cgroups of a process, by line of /proc.
fn places(pid: u32) -> Vec<String> {
    text(format!("/proc/{pid}/cgroup")).lines().map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn absolute_path() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let (container, _io) = Container::running();
        let path = format!("{}/{}", cgroup_parent(), container.id);
        let joined = places(container.pid()).iter().filter(|place| **place == path).count();
        let controllers = hierarchies().iter().filter(|one| cgroup_v2() || !one.controllers.is_empty()).count();
        assert!(joined >= controllers, "{:?}", places(container.pid()));
    });
}

#[test]
fn deep_path_is_made_and_only_its_end_removed() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/linux/cgroupsPath", json!(format!("{}/deep/er", cgroup_parent())));
        let path = bundle.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
        let container = bundle.container();
        let created = container.create();
        let made = hierarchies().iter().filter(|one| one.mount.join(&path[1..]).exists()).count();
        let deleted = container.command(&["delete", "--force"], &[]);
        let left = hierarchies().iter().filter(|one| one.mount.join(&path[1..]).exists()).count();
        for hierarchy in hierarchies() {
            for ancestor in [&path, &path[..path.len() - 3]] {
                let _ = fs::remove_dir(hierarchy.mount.join(&ancestor[1..]));
            }
        }
        created.ok();
        deleted.ok();
        assert!(made > 0 && left == 0, "made {made}, left {left}");
    });
}

#[test]
fn relative_path_and_no_path() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        for relative in [true, false] {
            let mut bundle = Bundle::sh(WAITING);
            bundle.set("/linux/cgroupsPath", json!("placeholder"));
            let mut container = bundle.container();
            let name = format!("{}-relative", container.id);
            if relative {
                container.bundle.set("/linux/cgroupsPath", json!(name));
            } else {
                container.bundle.remove("/linux/cgroupsPath");
            }
            let _io = container.create_io();
            let expected = if relative { &name } else { &container.id };
            let pid = container.pid();
            let places = places(pid);
            assert!(places.iter().any(|place| place.ends_with(&format!("/{expected}"))), "{places:?}");
            assert!(!cgroups_of(&container.id).is_empty());
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn cgroups_made_inside_are_removed() {
    case(|| {
        let Some(_) = controller("pids") else { skip!("no pids controller") };
        let directory = if cgroup_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
        let script = format!(
            "cd {directory} && mkdir -p a/b c && echo $$ > a/b/cgroup.procs && echo made; echo ready; read line"
        );
        let mut bundle = Bundle::sh(&script);
        bundle.unmount("/sys/fs/cgroup").namespace("cgroup", None);
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]);
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "made");
        assert_eq!(io.stdout.next(), "ready");
        container.stop();
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn every_process_is_in_the_cgroup() {
    case(|| {
        let (container, mut io) = Container::created("sleep 1000 & echo ready; read line");
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let name = if cgroup_v2() { "" } else { "pids" };
        let directory = container.cgroup(name).unwrap();
        assert_eq!(text(directory.join("cgroup.procs")).lines().count(), 2);
    });
}

#[test]
fn cgroup_of_another_container_is_not_taken_away() {
    case(|| {
        // Two containers below one parent: the end of one leaves the other alone.
        let (first, _io) = Container::running();
        let (second, _io2) = Container::running();
        second.command(&["delete", "--force"], &[]).ok();
        assert_eq!(first.status(), "running");
        assert!(!cgroups_of(&first.id).is_empty());
    });
}

#[test]
fn cgroup_in_use_is_refused_and_left_as_it_is() {
    case(|| {
        let (first, _io) = Container::running();
        let inner: Vec<PathBuf> = cgroups_of(&first.id).iter().map(|directory| directory.join("inner")).collect();
        inner.iter().for_each(|directory| fs::create_dir(directory).unwrap());
        let mut bundle = Bundle::new();
        bundle.config["linux"]["cgroupsPath"] = first.bundle.config["linux"]["cgroupsPath"].clone();
        let second = bundle.container().create().fails();
        assert!(second.stderr.contains("container's cgroup is not empty"), "{}", second.stderr);
        assert!(!second.stderr.contains("undo"), "{}", second.stderr);
        assert_eq!(first.status(), "running");
        for directory in inner {
            fs::remove_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        }
    });
}

#[test]
fn small_memory_limits_suffice() {
    case(|| {
        let Some(_) = controller("memory") else { skip!("no memory controller") };
        // Init is a copy of the runtime until it executes the program, and is charged for what it touches.
        let mut bundle = Bundle::new();
        let mebibytes = if cfg!(debug_assertions) { 4 } else { 2 };
        bundle.set("/linux/resources/memory", json!({"limit": mebibytes << 20}));
        let output = bundle.container().run();
        assert_eq!(output.code(), 0, "{} of {}: {output:?}", peer(), busybox().display());
    });
}

#[test]
fn no_controller_file_is_a_plain_file() {
    case(|| {
        // What a runtime writes to must be cgroup files, wherever a hierarchy is not mounted.
        let (container, _io) = Container::running();
        for directory in cgroups_of(&container.id) {
            let kind = rustix::fs::statfs(&directory).unwrap().f_type;
            let (v1, v2) = (0x0027_e0eb, 0x6367_7270);
            assert!(kind as i64 == v1 || kind as i64 == v2, "{}: {kind:#x}", directory.display());
        }
        assert!(Path::new("/sys/fs/cgroup").exists());
    });
}
