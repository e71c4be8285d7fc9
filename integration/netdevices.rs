//! `linux.netDevices`: devices of the runtime's network namespace become the container's.
//!
//! The runtime runs in a network namespace of the test's own. The devices are veth pairs: every distribution's kernel
//! has them, and busybox can make them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Bundle, Call, Container, Io, Output, Running, busybox, case, deadline, eventually, ours, skip, text, with_io,
};

/// A network namespace. It ends with its process.
struct Net {
    holder: Running,
    _io: Io,
}

impl Net {
    /// Runs a script as root of a new network namespace; None: the kernel has no veth devices.
    fn new(script: &str) -> Option<Self> {
        let script =
            format!("ip link add probe type veth || exit 77; ip link del probe; {script}\necho ready; read line");
        let call = Call::new(busybox()).args(["unshare", "-n", busybox().to_str().unwrap(), "sh", "-e", "-c", &script]);
        let (call, mut io) = with_io(call);
        let holder = call.spawn();
        if io.stdout.first().as_deref() != Some("ready") {
            let output = holder.wait();
            assert_eq!(output.code(), 77, "{output:?}");
            return None;
        }
        Some(Self { holder, _io: io })
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// Makes a call in it.
    fn call(&self, call: Call) -> Call {
        call.below(["nsenter".to_owned(), format!("-n{}", self.path()), "--".into()])
    }

    fn sh(&self, script: &str) -> String {
        self.call(Call::sh(script)).run().ok().stdout
    }

    fn run(&self, container: &Container) -> Output {
        self.call(container.call_bundle("run", &[])).run()
    }

    fn create(&self, container: &Container) -> Output {
        self.call(container.call_bundle("create", &[])).run()
    }

    fn devices(&self) -> BTreeSet<String> {
        self.sh("cd /proc/sys/net/ipv4/conf && echo *").split_whitespace().map(str::to_owned).collect()
    }

    /// The routes by devices that move.
    fn routes(&self) -> BTreeSet<String> {
        let all = self.sh("ip route; ip route show table 100; ip -6 route");
        all.lines().filter(|line| line.contains(" dev c") && !line.starts_with("fe80")).map(str::to_owned).collect()
    }

    /// All that `ip` says of a device, but for what changes by itself when it has been down.
    fn shown(&self, device: &str) -> String {
        let all = self.sh(&format!("ip addr show {device}"));
        let steady = all.lines().filter(|line| !line.contains("inet6 fe80:") && !line.contains("valid_lft"));
        steady.map(|line| line.replace(" tentative", "")).collect::<Vec<_>>().join("\n")
    }
}

macro_rules! net {
    ($script:expr) => {
        match Net::new($script) {
            Some(net) => net,
            None => skip!("no veth devices"),
        }
    };
}

/// `c0`, up, and with every kind of address; `c1`, down. Their other ends stay.
const DEVICES: &str = "for i in 0 1; do ip link add c$i type veth; ip link set veth0 name p$i; done
    ip link set c0 mtu 1400 address 02:00:00:00:77:01
    ip addr add 10.77.0.1/24 broadcast 10.77.0.255 dev c0; ip addr add 10.77.0.2/24 dev c0
    ip addr add 10.77.1.1 peer 10.77.1.2 dev c0; ip addr add fd77::1/64 dev c0
    ip link set c0 up; ip link set p0 up";

/// What of an address does not go along, and routes: all of it has to be there again when nothing came of a container.
const MORE: &str = "; ip addr add 10.78.0.1/24 dev c0 valid_lft 1000 preferred_lft 1000
    ip addr add 10.79.0.1/24 scope link label c0:x dev c0; ip -6 addr add fe80::77/64 dev c0
    ip route add 10.90.0.0/16 dev c0 src 10.77.0.2; ip route add default via 10.90.0.1
    ip route add 10.91.0.0/16 via 10.77.0.9 metric 7 table 100; ip -6 route add fd99::/64 via fd77::9
    if ip link add br0 type bridge; then ip link set c1 master br0; fi 2>/dev/null";

fn names(bundle: &mut Bundle, devices: serde_json::Value) {
    bundle.set("/linux/netDevices", devices);
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_device_keeps_attributes_and_addresses_and_is_up() {
    case(|| {
        let net = net!(&format!(
            "{DEVICES}; ip addr add 10.78.0.1/24 dev c0 valid_lft 1000 preferred_lft 1000
             ip addr add 10.79.0.1/24 scope link dev c0"
        ));
        let mut bundle = Bundle::sh("ip addr show c0");
        names(&mut bundle, json!({"c0": {}}));
        let container = bundle.container();
        let printed = net.run(&container).ok().stdout;
        let lines: Vec<String> = printed.lines().map(words).collect();
        let has = |start: &str| lines.iter().any(|line| format!("{line} ").starts_with(start));
        assert!(lines[0].contains(",UP") && lines[0].contains(" mtu 1400 "), "{printed}");
        assert!(has("link/ether 02:00:00:00:77:01 "), "{printed}");
        assert!(has("inet 10.77.0.1/24 brd 10.77.0.255 scope global c0 "), "{printed}");
        assert!(has("inet 10.77.0.2/24 scope global secondary c0 "), "{printed}");
        assert!(has("inet 10.77.1.1 peer 10.77.1.2/32 scope global c0 "), "{printed}");
        assert!(has("inet6 fd77::1/64 scope global "), "{printed}");
        // Not permanent, and not global.
        assert!(!printed.contains("10.78.0.1") && !printed.contains("10.79.0.1"), "{printed}");
        assert!(!net.devices().contains("c0"), "{:?}", net.devices());
    });
}

#[test]
fn devices_are_renamed() {
    case(|| {
        // Each takes the name that the other has left; then names that the kernel completes.
        for (devices, expected) in [
            (json!({"c0": {"name": "c1"}, "c1": {"name": "c0"}}), ["c0", "c1"]),
            (json!({"c0": {"name": "eth%d"}, "c1": {"name": "eth%d"}}), ["eth0", "eth1"]),
        ] {
            let net = net!(DEVICES);
            let mut bundle = Bundle::sh("ls /proc/sys/net/ipv4/conf; ip link show up");
            names(&mut bundle, devices);
            let container = bundle.container();
            let printed = net.run(&container).ok().stdout;
            for name in expected {
                assert!(printed.lines().any(|line| line == name), "{printed}");
                assert!(printed.contains(&format!(" {name}@")), "not up: {printed}");
            }
            // With the namespace of a container its virtual devices end, and a veth device takes its peer along.
            eventually("the peers are gone", || net.devices().iter().all(|name| !name.starts_with('p')));
        }
    });
}

#[test]
fn hooks_and_sysctls_find_the_devices() {
    case(|| {
        let net = net!(DEVICES);
        let mut bundle = Bundle::sh("cat /proc/sys/net/ipv4/conf/eth7/rp_filter");
        names(&mut bundle, json!({"c0": {"name": "eth7"}}));
        bundle.set("/linux/sysctl", json!({"net.ipv4.conf.eth7.rp_filter": "2"}));
        let seen = bundle.directory.join("seen");
        let script = format!(
            "read -r state; pid=${{state#*\\\"pid\\\":}}; pid=${{pid%%,*}}; \
             {0} nsenter -n/proc/$((pid))/ns/net {0} ip addr show eth7 > {1}",
            busybox().display(),
            seen.display()
        );
        bundle.set(
            "/hooks",
            json!({"createRuntime": [
                {"path": busybox(), "args": ["sh", "-c", script]}
            ]}),
        );
        let container = bundle.container();
        assert_eq!(net.run(&container).ok().stdout, "2\n");
        assert!(text(&seen).contains("10.77.0.1/24"), "{}", text(&seen));
    });
}

#[test]
fn devices_go_to_a_namespace_that_is_joined_and_stay_there() {
    case(|| {
        let net = net!(DEVICES);
        // The indices of the devices are taken there.
        let pod = net!("ip link add x0 type veth; ip link add x1 type veth");
        let before = net.shown("c0");
        let mut bundle = Bundle::new();
        bundle.namespace("network", Some(&pod.path()));
        names(&mut bundle, json!({"c0": {}, "c1": {"name": "eth0"}}));
        let container = bundle.container();
        net.create(&container).ok();
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
        let names = |names: &str| -> Vec<String> { names.split(' ').map(str::to_owned).collect() };
        assert!(
            names("x0 x1 veth0 veth1 c0 eth0").iter().all(|name| pod.devices().contains(name)),
            "{:?}",
            pod.devices()
        );
        assert!(names("c0 c1").iter().all(|name| !net.devices().contains(name)), "{:?}", net.devices());
        let inet = |text: &str| text.lines().map(words).filter(|line| line.starts_with("inet")).collect::<Vec<_>>();
        assert_eq!(inet(&pod.shown("c0")), inet(&before));
    });
}

#[test]
fn devices_of_a_container_with_a_user_namespace() {
    case(|| {
        if !std::path::Path::new("/proc/self/ns/user").exists() {
            skip!("no user namespaces");
        }
        let net = net!(DEVICES);
        let pod = net!(":");
        // Without and with a second child.
        for (device, path) in [("c0", None), ("c1", Some(pod.path()))] {
            let mut bundle = Bundle::sh(&format!("ip link show {device}"));
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            // sysfs wants a network namespace of the same user namespace.
            bundle.namespace("network", path.as_deref()).unmount("/sys").unmount("/sys/fs/cgroup");
            bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
            names(&mut bundle, json!({device: {}}));
            let container = bundle.container();
            let printed = net.run(&container).ok().stdout;
            assert!(printed.contains(&format!(": {device}@")) && printed.contains(",UP"), "{printed}");
        }
    });
}

/// What the host has before and after a `create` that fails.
#[track_caller]
fn fails_and_leaves_the_devices(net: &Net, edit: impl FnOnce(&mut Bundle), expected: &[&str]) {
    let seen = || (net.devices(), net.shown("c0"), net.shown("c1"), net.routes());
    let before = seen();
    let mut bundle = Bundle::new();
    edit(&mut bundle);
    let container = bundle.container();
    for command in ["create", "run"] {
        let output = net.call(container.call_bundle(command, &[])).run().fails();
        container.nothing_left();
        // The kernel sees by and by whether a device has its carrier, which routes follow.
        let end = Instant::now() + deadline();
        while seen() != before && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(seen(), before, "{output:?}");
        if ours() {
            assert!(!output.stderr.contains("undo: "), "{output:?}");
            let first = output.stderr.lines().next().unwrap();
            assert!(expected.iter().all(|word| first.contains(word)), "no {expected:?} in {output:?}");
        }
    }
}

#[test]
fn devices_go_back_when_create_fails() {
    case(|| {
        let net = net!(&format!("{DEVICES}{MORE}"));
        assert!(net.routes().len() > 6, "{:?}", net.routes());
        let both = json!({"c0": {"name": "eth0"}, "c1": {"name": "eth1"}});
        // Steps of the parent, of the child, and its end.
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                names(bundle, both.clone());
                let hook = json!({"path": busybox(), "args": ["sh", "-c", "exit 7"]});
                bundle.set("/hooks", json!({"createRuntime": [hook]}));
            },
            &["hooks.createRuntime[0]", "exit status 7"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                names(bundle, both.clone());
                bundle.set("/process/args", json!(["/nosuch"]));
            },
            &["process.args[0]", "/nosuch"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                names(bundle, both.clone());
                let hook = json!({"path": busybox(), "args": ["false"]});
                bundle.set("/hooks", json!({"createContainer": [hook]}));
            },
            &["createContainer hook #0"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                names(bundle, both.clone());
                bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}));
            },
            &["linux.seccomp", "SIGSYS"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                names(bundle, both.clone());
                let script = format!(
                    "read -r state; pid=${{state#*\\\"pid\\\":}}; pid=${{pid%%,*}}; {} kill -9 $((pid))",
                    busybox().display()
                );
                bundle.set("/hooks", json!({"createRuntime": [{"path": busybox(), "args": ["sh", "-c", script]}]}));
            },
            &["init died"],
        );
    });
}

/// Nobody is left who could bring them back: they share the fate of their namespace, which is not lost if it is a pod's.
#[test]
fn devices_stay_where_they_are_when_create_is_killed() {
    case(|| {
        let net = net!(DEVICES);
        let pod = net!(":");
        let mut bundle = Bundle::new();
        bundle.namespace("network", Some(&pod.path()));
        names(&mut bundle, json!({"c0": {"name": "eth0"}}));
        let hook = json!({"path": busybox(), "args": ["sh", "-c", "kill -9 $PPID"]});
        bundle.set("/hooks", json!({"createRuntime": [hook]}));
        let container = bundle.container();
        assert_eq!(net.create(&container).code(), 1009);
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
        assert!(pod.shown("eth0").contains("10.77.0.1/24"), "{}", pod.shown("eth0"));
        assert!(!net.devices().contains("c0"));
    });
}

#[test]
fn devices_go_back_when_one_of_them_cannot_move() {
    case(|| {
        let net = net!(DEVICES);
        let pod = net!("ip link add eth1 type veth");
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                bundle.namespace("network", Some(&pod.path()));
                names(bundle, json!({"c0": {"name": "eth9"}, "c1": {"name": "eth1"}}));
            },
            &["linux.netDevices[\"c1\"].name: ", "\"eth1\"", "already"],
        );
        assert!(!pod.devices().contains("eth9"), "{:?}", pod.devices());
    });
}

#[test]
fn what_cannot_be_moved_is_named() {
    case(|| {
        let net = net!(DEVICES);
        fails_and_leaves_the_devices(
            &net,
            |bundle| names(bundle, json!({"c0": {}, "nosuch": {}})),
            &["linux.netDevices[\"nosuch\"]: ", "no such device (ENODEV)"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                bundle.no_namespace("network");
                names(bundle, json!({"c0": {}}));
            },
            &["linux.netDevices: unable to move network devices without a NET namespace"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| {
                bundle.namespace("network", Some(&net.path()));
                names(bundle, json!({"c0": {}}));
            },
            &["linux.namespaces[4].path: ", "is the host's own net namespace", "linux.netDevices"],
        );
        fails_and_leaves_the_devices(
            &net,
            |bundle| names(bundle, json!({"c0": {"name": "a/b"}})),
            &["linux.netDevices[\"c0\"].name: invalid network device name \"a/b\""],
        );
        // The kernel gives the loopback device to nobody; neither do we try.
        fails_and_leaves_the_devices(
            &net,
            |bundle| names(bundle, json!({"lo": {}})),
            &["linux.netDevices[\"lo\"]: invalid network device name \"lo\""],
        );
    });
}
