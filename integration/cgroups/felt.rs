//! Limits that are felt: what a container meets when it comes to them. Those whose figures alone can be looked at here are
//! in `cgroups.rs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Bundle, Call, WAITING, case, cgroup_v2, controller, eventually, ours, skip, text, wait_for_end};

const MIB: u64 = 1 << 20;

/// Takes memory without end.
const GREEDY: &str = "exec tail /dev/zero";

#[test]
fn who_takes_more_memory_than_allowed_is_killed() {
    case(|| {
        let Some(_) = controller("memory") else { skip!("no memory controller") };
        let mut bundle = Bundle::sh(GREEDY);
        bundle.set("/linux/resources/memory", json!({"limit": 16 * MIB, "swap": 16 * MIB}));
        assert_eq!(bundle.container().run().code(), 128 + 9);

        // Another process than init: the container goes on, and the kernel counts.
        let mut bundle =
            Bundle::sh("sh -c 'echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero'; echo $?; read line");
        bundle.set("/linux/resources/memory", json!({"limit": 16 * MIB, "swap": 16 * MIB}));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "137");
        let file = if cgroup_v2() { "memory.events" } else { "memory.oom_control" };
        let counted = text(container.cgroup("memory").unwrap().join(file));
        assert!(counted.lines().any(|line| line == "oom_kill 1"), "{counted}");
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn a_limit_that_is_too_low_for_init_is_named() {
    case(|| {
        let Some(_) = controller("memory") else { skip!("no memory controller") };
        let mut bundle = Bundle::new();
        bundle.set("/linux/resources/memory", json!({"limit": 65536}));
        let container = bundle.container();
        let output = container.run().fails();
        // Init is killed, or the kernel refuses it something, or systemd removes the cgroup of the dead.
        let killed = "linux.resources.memory.limit: container init was OOM-killed (memory limit too low?)\n";
        let ends = ["the container has come to it", "all processes of the scope were killed"]
            .map(|why| format!("\nhint: linux.resources.memory.limit may be too low: {why}\n"));
        let named = output.stderr == killed || ends.iter().any(|end| output.stderr.ends_with(end));
        assert!(!ours() || named, "{}", output.stderr);
        container.nothing_left();
    });
}

#[test]
fn without_the_oom_killer_who_wants_more_has_to_wait() {
    case(|| {
        if cgroup_v2() {
            skip!("cgroup v1 only");
        }
        let Some(_) = controller("memory") else { skip!("no memory controller") };
        // Within a system call the kernel would refuse, and not wait.
        let mut bundle = Bundle::sh("x=0123456789; while :; do x=$x$x; done");
        bundle.set("/linux/resources/memory", json!({"limit": 16 * MIB, "swap": 16 * MIB, "disableOOMKiller": true}));
        let container = bundle.container();
        container.create().ok();
        container.start().ok();
        let file = container.cgroup("memory").unwrap().join("memory.oom_control");
        eventually("it waits for memory", || text(&file).lines().any(|line| line == "under_oom 1"));
        assert!(text(&file).contains("oom_kill_disable 1\n"), "{}", text(&file));
        assert!(text(&file).contains("oom_kill 0\n"), "{}", text(&file));
        assert_eq!(container.status(), "running");
        // It can be killed all the same.
        let pid = container.pid();
        container.command(&["kill"], &["KILL"]).ok();
        wait_for_end(pid);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn a_quota_of_processor_time_throttles() {
    case(|| {
        let Some(_) = controller("cpu") else { skip!("no cpu controller") };
        let mut bundle = Bundle::sh("echo ready; while :; do :; done");
        bundle.set("/linux/resources/cpu", json!({"quota": 5000, "period": 50_000}));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let file = container.cgroup("cpu").unwrap().join("cpu.stat");
        let throttled = || text(&file).lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok());
        eventually("it is throttled", || throttled().is_some_and(|count: u64| count >= 3));
    });
}

#[test]
fn processors_and_memory_nodes_are_those_allowed() {
    case(|| {
        let Some(_) = controller("cpuset") else { skip!("no cpuset controller") };
        let mut bundle = Bundle::sh("grep _allowed_list /proc/self/status; nproc");
        bundle.set("/linux/resources/cpu", json!({"cpus": "0", "mems": "0"}));
        let output = bundle.container().run().ok();
        assert_eq!(output.stdout, "Cpus_allowed_list:\t0\nMems_allowed_list:\t0\n1\n");
    });
}

/// Huge pages of the host, for as long as a test needs them.
struct HugePages(String);

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    fn new(count: &str) -> Self {
        let before = text(NR_HUGEPAGES);
        fs::write(NR_HUGEPAGES, count).unwrap();
        Self(before)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(NR_HUGEPAGES, &self.0);
    }
}

#[test]
fn huge_pages_are_counted() {
    case(|| {
        let Some(_) = controller("hugetlb") else { skip!("no hugetlb controller") };
        let _pages = HugePages::new("4");
        let script = "fallocate -l 2097152 /mnt/one && echo one; fallocate -l 2097152 /mnt/two && echo two; read line";
        let mut bundle = Bundle::sh(script);
        std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/fallocate")).unwrap();
        bundle.mount("/mnt", "hugetlbfs", "hugetlbfs", &["pagesize=2M"]);
        bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 2 * MIB}]));
        let output = bundle.container().run();
        assert_eq!(output.stdout, "one\n", "{}", output.stderr);
    });
}

#[test]
fn rdma_devices_that_are_not_there_are_named() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/linux/resources/rdma", json!({"mlx9_9": {"hcaHandles": 3, "hcaObjects": 10_000}}));
        let output = bundle.container().create().fails();
        assert!(!ours() || output.stderr.starts_with("linux.resources.rdma[\"mlx9_9\"]: write "), "{}", output.stderr);
    });
}

/// A disk of the host: a file, until it is dropped.
struct Disk {
    device: PathBuf,
    file: PathBuf,
}

impl Disk {
    fn new(file: PathBuf, size: u64) -> Option<Self> {
        File::create(&file).unwrap().set_len(size).unwrap();
        // Another may take the same one first.
        for _ in 0..10 {
            let free = Call::sh("losetup -f").run();
            let device = PathBuf::from(free.stdout.trim());
            let made = Call::sh("losetup \"$@\"").args([device.as_os_str(), file.as_os_str()]).run();
            if free.code() == 0 && made.code() == 0 {
                return Some(Self { device, file });
            }
        }
        let _ = fs::remove_file(&file);
        None
    }

    fn numbers(&self) -> (u64, u64) {
        use std::os::unix::fs::MetadataExt;
        let device = fs::metadata(&self.device).unwrap().rdev();
        (u64::from(rustix::fs::major(device)), u64::from(rustix::fs::minor(device)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Call::sh("losetup -d \"$@\"").args([&self.device]).run();
        let _ = fs::remove_file(&self.file);
    }
}

#[test]
fn reading_a_disk_is_slowed_down() {
    case(|| {
        let Some(_) = controller(if cgroup_v2() { "io" } else { "blkio" }) else { skip!("no blkio or io controller") };
        if !Path::new("/dev/loop-control").exists() {
            skip!("no loop devices");
        }
        let mut bundle = Bundle::sh("time -p cat /dev/disk > /dev/null");
        std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/time")).unwrap();
        let Some(disk) = Disk::new(bundle.directory.join("disk"), 4 * MIB) else { skip!("no free loop device") };
        let (major, minor) = disk.numbers();
        let device = json!({"type": "b", "major": major, "minor": minor});
        let with = |key: &str, value: serde_json::Value| {
            let mut device = device.clone();
            device[key] = value;
            device
        };
        bundle.set("/linux/devices", json!([with("path", json!("/dev/disk"))]));
        let mut allowed = with("allow", json!(true));
        allowed["access"] = json!("rwm");
        bundle.set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}, allowed]));
        let limit = json!([{"major": major, "minor": minor, "rate": 2 * MIB}]);
        bundle.set("/linux/resources/blockIO", json!({"throttleReadBpsDevice": limit}));
        let container = bundle.container();
        let begin = Instant::now();
        container.run().ok();
        assert!(begin.elapsed() > Duration::from_millis(1500), "4 MiB at 2 MiB/s in {:?}", begin.elapsed());
        drop(disk);
    });
}

#[test]
fn a_setting_that_the_kernel_has_no_file_for_says_so() {
    case(|| {
        // On v1 its controller may be missing; v2 has none.
        if !cgroup_v2() && controller("net_cls").is_some() {
            skip!("there is a net_cls controller");
        }
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/linux/resources/network", json!({"classID": 1_048_577}));
        let output = bundle.container().create().fails();
        assert!(!ours() || output.stderr.starts_with("linux.resources.network.classID: "), "{}", output.stderr);
    });
}
