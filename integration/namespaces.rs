//! Namespaces: new ones, the runtime's own, and ones that are joined by path.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{
    Bundle, Container, WAITING, case, inside, link, may_raise_limits, ours, peer, skip, text, with_io,
};

/// The type in config.json and the name in /proc.
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

fn own(name: &str) -> String {
    link(format!("/proc/self/ns/{name}"))
}

pub(crate) fn mappings(bundle: &mut Bundle) -> &mut Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
}

/// A bundle without what depends on the namespace that a test takes away.
fn bare() -> Bundle {
    let mut bundle = Bundle::sh(WAITING);
    bundle.remove("/hostname");
    bundle
}

fn check_new(kind: &str, name: &str) {
    let mut bundle = bare();
    bundle.namespace(kind, None);
    if kind == "user" {
        mappings(&mut bundle);
    }
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    let pid = container.pid();
    for (other, path) in KINDS {
        let its = link(format!("/proc/{pid}/ns/{path}"));
        let listed = other == kind || ["pid", "network", "ipc", "uts", "mount"].contains(&other);
        assert_eq!(its != own(path), listed, "{other} with a new {name}");
    }
}

macro_rules! new {
    ($($test:ident: $index:expr;)*) => {
        $(
            #[test]
            fn $test() {
                case(|| check_new(KINDS[$index].0, KINDS[$index].1));
            }
        )*
    };
}

new! {
    new_pid: 0;
    new_network: 1;
    new_ipc: 2;
    new_uts: 3;
    new_mount: 4;
    new_cgroup: 5;
    new_user: 6;
    new_time: 7;
}

#[test]
fn types_that_are_not_listed_are_the_runtimes() {
    case(|| {
        for (kind, name) in KINDS {
            // Without a mount namespace a container would work on the host's mounts.
            if kind == "mount" {
                continue;
            }
            let mut bundle = bare();
            bundle.no_namespace(kind);
            let container = bundle.container();
            container.create().ok();
            assert_eq!(link(format!("/proc/{}/ns/{name}", container.pid())), own(name), "{kind}");
        }
    });
}

/// A second container that joins one namespace of a running one.
fn check_joined(kind: &str, name: &str) {
    let mut bundle = bare();
    bundle.namespace(kind, None);
    if kind == "user" {
        mappings(&mut bundle);
    }
    let first = bundle.container();
    let mut io = first.create_io();
    first.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    let path = format!("/proc/{}/ns/{name}", first.pid());

    let mut bundle = bare();
    bundle.namespace(kind, Some(&path));
    let second = bundle.container();
    let mut io = second.create_io();
    second.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    let its = |name: &str| link(format!("/proc/{}/ns/{name}", second.pid()));
    assert_eq!(its(name), link(&path));
    assert_ne!(its(name), own(name));
    let other = if name == "ipc" { "uts" } else { "ipc" };
    assert_ne!(its(other), own(other));
    assert_ne!(its(other), link(format!("/proc/{}/ns/{other}", first.pid())));
    second.command(&["delete", "--force"], &[]).ok();
    second.nothing_left();
    assert_eq!(first.status(), "running");
}

macro_rules! joined {
    ($($test:ident: $index:expr;)*) => {
        $(
            #[test]
            fn $test() {
                case(|| check_joined(KINDS[$index].0, KINDS[$index].1));
            }
        )*
    };
}

joined! {
    joined_pid: 0;
    joined_network: 1;
    joined_ipc: 2;
    joined_uts: 3;
    joined_cgroup: 5;
    joined_user: 6;
    joined_time: 7;
}

#[test]
fn joined_mount() {
    case(|| {
        let busybox = crate::support::busybox();
        let call = crate::support::Call::new(busybox).args(["unshare", "-m", "--propagation", "private"]);
        let (call, mut io) = with_io(call.args([busybox.to_str().unwrap(), "sh", "-c", WAITING]));
        let holder = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        let path = format!("/proc/{}/ns/mnt", holder.pid());
        let mut bundle = Bundle::sh(WAITING);
        bundle.namespace("mount", Some(&path));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        assert_eq!(link(format!("/proc/{}/ns/mnt", container.pid())), link(&path));
        assert_ne!(link(&path), own("mnt"));
    });
}

/// The kernel keeps groups in the order of the host's ids, which need not be that of the container's.
#[test]
fn groups_of_a_mapping_that_goes_down() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let map = json!([
            {"containerID": 0, "hostID": 200_000, "size": 10}, {"containerID": 10, "hostID": 100_000, "size": 10}]);
        let mut bundle = Bundle::sh("id -G");
        bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        bundle.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [5, 15]}));
        let printed = bundle.container().run().ok().stdout;
        let mut groups: Vec<&str> = printed.split_whitespace().collect();
        groups.sort_unstable();
        assert_eq!(groups, ["0", "15", "5"]);
    });
}

/// Its root would become the container's. In one apart, for the sake of the host.
#[test]
fn a_mount_namespace_that_is_the_runtimes_own_is_refused() {
    case(|| {
        if !ours() {
            skip!("runc does it");
        }
        let mut bundle = Bundle::sh("echo runs");
        bundle.namespace("mount", Some("/proc/self/ns/mnt"));
        let container = bundle.container();
        let unshare = [crate::support::busybox().to_str().unwrap(), "unshare", "-m", "--propagation", "private"];
        let output = container.call_bundle("run", &[]).below(unshare).run().fails();
        assert!(output.stderr.contains("is the host's own mnt namespace, which root.path would change"), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn all_namespaces_of_a_pod_joined_at_once() {
    case(|| {
        let (first, _io) = Container::running();
        let pid = first.pid();
        let mut bundle = bare();
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
            bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
        }
        bundle.script("hostname; ls -d /proc/1; echo $$");
        let second = bundle.container();
        let output = second.run().ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines[..2], ["container", "/proc/1"]);
        assert_ne!(lines[2], "1");
        second.nothing_left();
    });
}

#[test]
fn pid_namespace_of_the_host() {
    case(|| {
        let printed = inside("echo $$; readlink /proc/self/ns/pid", |bundle| {
            bundle.no_namespace("pid");
        });
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[0] != "1" && lines[1] == own("pid"), "{printed}");
    });
}

#[test]
fn network_of_the_host() {
    case(|| {
        let printed = inside("cat /proc/net/dev | tail -n +3 | cut -d: -f1", |bundle| {
            bundle.no_namespace("network");
        });
        let names = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let host: Vec<String> = text("/proc/self/net/dev")
            .lines()
            .skip(2)
            .map(|line| line.split(':').next().unwrap().trim().to_owned())
            .collect();
        assert_eq!(names(&printed), host);
    });
}

#[test]
fn cgroup_namespace_hides_the_path() {
    case(|| {
        let printed = inside("cat /proc/self/cgroup", |bundle| {
            bundle.namespace("cgroup", None);
        });
        // A hierarchy that the runtime does not join (the unified one of a hybrid host) keeps the runtime's place.
        let ours = printed.lines().filter(|line| !line.starts_with("0::") || crate::support::cgroup_v2());
        for line in ours {
            assert!(line.ends_with(":/"), "{printed}");
        }
        let container = Bundle::sh("cat /proc/self/cgroup").container();
        let printed = container.run().ok().stdout;
        assert!(printed.contains(&container.id), "{printed}");
    });
}

// ---------------------------------------------------------------------------------------------- user

pub(crate) fn user_namespaces() -> bool {
    Path::new("/proc/self/ns/user").exists() && text("/proc/sys/user/max_user_namespaces").trim() != "0"
}

#[test]
fn user_namespace_with_mappings() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let mut bundle = Bundle::sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; echo ready; read line");
        mappings(bundle.namespace("user", None));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        let map = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(map(&io.stdout.next()), ["0", "100000", "65536"]);
        assert_eq!(map(&io.stdout.next()), ["0", "100000", "65536"]);
        assert_eq!((io.stdout.next(), io.stdout.next()), ("0".into(), "0".into()));
        assert_eq!(io.stdout.next(), "ready");
        let status = text(format!("/proc/{}/status", container.pid()));
        assert!(status.contains("Uid:\t100000\t100000\t100000\t100000\n"), "{status}");
        assert!(status.contains("Gid:\t100000\t100000\t100000\t100000\n"), "{status}");
    });
}

#[test]
fn user_namespace_with_several_mappings_and_another_user() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let printed = inside("cat /proc/self/uid_map; grep -E '^(Uid|Gid|Groups)' /proc/self/status", |bundle| {
            let map = json!([
                {"containerID": 0, "hostID": 200_000, "size": 10},
                {"containerID": 10, "hostID": 300_000, "size": 2000}
            ]);
            bundle
                .namespace("user", None)
                .set("/linux/uidMappings", map.clone())
                .set("/linux/gidMappings", map)
                .set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 20]}));
        });
        let lines: Vec<String> =
            printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[..2], ["0 200000 10", "10 300000 2000"]);
        assert_eq!(lines[2..], ["Uid: 1000 1000 1000 1000", "Gid: 1001 1001 1001 1001", "Groups: 5 20"]);
    });
}

#[test]
fn user_namespace_has_working_devices_and_its_own_capabilities() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let script = "echo x > /dev/null && head -c 2 /dev/zero | wc -c; stat -c %t:%T /dev/null; \
                      mount -t tmpfs t /mnt && echo mounted; hostname";
        let printed = inside(script, |bundle| {
            mappings(bundle.namespace("user", None)).capabilities(&["CAP_SYS_ADMIN"]);
        });
        assert_eq!(printed, "2\n1:3\nmounted\ncontainer\n");
    });
}

/// Root of the container may not set these, who calls the runtime may.
#[test]
fn user_namespace_with_limits_that_only_the_outside_may_set() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 20);
        let own_score: i32 = text("/proc/self/oom_score_adj").trim().parse().unwrap();
        let (limit, score) = if may_raise_limits() { (own + 1, own_score - 100) } else { (own, own_score) };
        let script = "ulimit -Hn; cat /proc/self/oom_score_adj";
        let mut bundle = Bundle::sh(&format!("{script}; echo ready; read line"));
        mappings(bundle.namespace("user", None));
        bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": limit}]));
        bundle.set("/process/oomScoreAdj", json!(score));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        let expected = format!("{limit}\n{score}\n");
        assert_eq!(io.stdout.until("ready\n"), format!("{expected}ready\n"));
        assert_eq!(container.command(&["exec"], &["sh", "-c", script]).ok().stdout, expected);
    });
}

#[test]
fn user_namespace_keeps_masked_and_read_only_paths() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let script = "cat /proc/timer_list | wc -c; (echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo refused";
        let printed = inside(script, |bundle| {
            mappings(bundle.namespace("user", None)).capabilities(&["CAP_SYS_ADMIN"]);
        });
        assert_eq!(printed, "0\nrefused\n");
    });
}

#[test]
fn user_namespace_with_a_private_bundle_path() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        // Container root is nobody on the host: a bundle below a directory of root's alone works all the same or is
        // refused; it is never half done.
        let mut bundle = Bundle::sh("echo inside");
        mappings(bundle.namespace("user", None));
        fs::set_permissions(&bundle.directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let container = bundle.container();
        let output = container.run();
        assert!(output.code() != 0 || output.stdout == "inside\n", "{output:?}");
        container.nothing_left();
    });
}

// ---------------------------------------------------------------------------------------------- time

#[test]
fn time_offsets() {
    case(|| {
        if !Path::new("/proc/self/ns/time").exists() {
            skip!("no time namespaces");
        }
        let printed = inside("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime", |bundle| {
            bundle.namespace("time", None).set(
                "/linux/timeOffsets",
                json!({"monotonic": {"secs": 172_800, "nanosecs": 5}, "boottime": {"secs": 864_000, "nanosecs": 0}}),
            );
        });
        let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["monotonic", "172800", "5"]);
        assert_eq!(lines[1], ["boottime", "864000", "0"]);
        assert!(lines[2][0].parse::<u64>().unwrap() >= 864_000, "{printed}");
    });
}

/// The offsets belong to the user namespace, too, a new one and one that is joined.
#[test]
fn time_offsets_in_a_user_namespace() {
    case(|| {
        if !Path::new("/proc/self/ns/time").exists() || !user_namespaces() {
            skip!("no time or no user namespaces");
        }
        let created = |edit: &dyn Fn(&mut Bundle)| {
            let mut bundle = Bundle::sh(crate::support::WAITING);
            bundle
                .namespace("time", None)
                .set("/linux/timeOffsets", json!({"monotonic": {"secs": 172_800, "nanosecs": 5}}));
            edit(&mut bundle);
            let container = bundle.container();
            let io = container.create_io();
            let text = text(format!("/proc/{}/timens_offsets", container.pid()));
            let line: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
            assert_eq!(line, ["monotonic", "172800", "5"]);
            (container, io)
        };
        let (first, _io) = created(&|bundle| {
            mappings(bundle.namespace("user", None));
        });
        let path = format!("/proc/{}/ns/user", first.pid());
        created(&|bundle| {
            bundle.namespace("user", Some(&path));
        });
    });
}

#[test]
fn hostname_in_a_joined_uts_namespace() {
    case(|| {
        let (first, _io) = Container::running();
        let path = format!("/proc/{}/ns/uts", first.pid());
        let mut bundle = Bundle::sh("hostname");
        bundle.namespace("uts", Some(&path)).set("/hostname", json!("renamed"));
        let second = bundle.container();
        let (call, mut io) = with_io(second.call_bundle("run", &[]));
        let running = call.spawn();
        assert_eq!(io.stdout.rest(), "renamed\n");
        running.wait().ok();
    });
}

/// A kind that is not listed is inherited (config-linux.md, Namespaces), the mount namespace too: then the root is only
/// changed by chroot(2), and what was mounted for the container goes with it.
#[test]
fn without_a_mount_namespace() {
    case(|| {
        if !ours() {
            skip!("{} leaves the mounts behind", peer());
        }
        let own = link("/proc/self/ns/mnt");
        let mut bundle = Bundle::sh("readlink /proc/self/ns/mnt; ls /; echo ready; read line");
        bundle.no_namespace("mount").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        let container = bundle.container();
        let mut io = container.create_io();
        let directory = container.bundle.directory.display().to_string();
        assert!(text("/proc/self/mountinfo").contains(&directory));
        container.start().ok();
        let printed = io.stdout.until("ready");
        assert!(printed.starts_with(&own) && !printed.contains("boot"), "{printed}");
        let listed = container.command(&["exec"], &["ls", "/"]).ok().stdout;
        assert!(!listed.contains("boot") && listed.contains("proc"), "{listed}");
        container.stop();
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn without_a_mount_namespace_a_failure_leaves_no_mount() {
    case(|| {
        if !ours() {
            skip!("{} leaves the mounts behind", peer());
        }
        let mut bundle = Bundle::new();
        bundle.no_namespace("mount").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        bundle.args(&["/nosuch"]);
        let container = bundle.container();
        container.create().fails();
        container.nothing_left();
    });
}
