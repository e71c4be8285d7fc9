//! A system call that fails once, with an error that it need not even know, ends the command, or changes nothing: a
//! command that says that all is well has made the same container as without the failure.
//!
//! What a container is like it prints itself, as an ordinary user with a few capabilities, a filter, limits and all else
//! that keeps it in.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use nix::libc::{EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM, SYS_umask};
use serde_json::json;

use super::trace::{self, Blow, Point, Who};
use super::{Scene, calls, nameless, sample};
use crate::support::{Bundle, Call, Container, Output, case, link, number, ours, say, skip, systemd, text};

/// A command that makes a process.
struct Maker {
    name: &'static str,
    scene: fn() -> Scene,
    call: fn(&Container) -> Call,
    /// What the process says; None: none has run, which is as good as an error.
    print: fn(&Container, &Output) -> Option<String>,
    first: &'static OnceLock<String>,
}

const ERRORS: [i32; 5] = [EPERM, ENOENT, ENOMEM, EINVAL, ENOSPC];

/// Of `/proc/self/status` what differs from run to run is left out.
const PRINT: &str = "exec 2>&1; cd /; \
    grep -vE '^(Name|State|Tgid|Ngid|Pid|PPid|Vm|Rss|Huge|volunt|nonvol|NS|SigQ|FDSize|untag)' /proc/self/status; \
    for name in /proc/self/ns/*; do readlink $name; done; cat /proc/self/uid_map /proc/self/gid_map /proc/self/cgroup; \
    sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s/ (shared|master):[0-9]+//; s/inodes.*//' /proc/self/mountinfo | sort; \
    stat -c '%N %A %u %g %t %T' /* /dev/* /dev/pts/*; cd /proc/$$/fd; stat -c '%N %A' 0 1 2 3 4 5 6 7 8 9; cd /; \
    cat /proc/self/oom_score_adj /proc/self/limits /proc/self/timens_offsets /proc/self/attr/current; \
    cut -d' ' -f 18,19,40,41 /proc/self/stat; grep -o ' _ses[^:]*' /proc/keys; env | grep -v PWD | sort; hostname; id; \
    cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/domainname /proc/sys/kernel/shmmni; ifconfig lo; \
    cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares cpuset/cpuset.cpus devices/devices.list \
        memory.max pids.max cpu.weight cpuset.cpus; \
    mkdir /tmp/filtered; head -c 1 /dev/denied; touch /proc/sys/kernel/domainname; touch /bin/new; umask; echo complete";

fn secured(script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    let out = bundle.directory.join("out");
    fs::create_dir(&out).unwrap();
    std::os::unix::fs::chown(&out, Some(1000), Some(1000)).unwrap();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 100], "umask": 0o27}));
    let capabilities = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        bundle.set(&format!("/process/capabilities/{set}"), capabilities.clone());
    }
    bundle.set("/process/rlimits/-", json!({"type": "RLIMIT_CORE", "hard": 0, "soft": 0}));
    bundle.set("/process/oomScoreAdj", json!(100)).set("/process/env/-", json!("COLOUR=blue"));
    bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}));
    bundle.set("/root/readonly", json!(true)).set("/domainname", json!("domain"));
    bundle
        .namespace("cgroup", None)
        .namespace("time", None)
        .set("/linux/timeOffsets", json!({"boottime": {"secs": 99}}));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "90", "kernel.shmmni": "77"}));
    bundle.mount("/out", "bind", out.to_str().unwrap(), &["bind", "rw", "nosuid"]);
    bundle.mount("/mnt", "bind", "/etc", &["rbind", "ro", "nosuid", "nodev", "noexec"]);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777", "size=1m"]);
    let denied = json!({"path": "/dev/denied", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666, "uid": 1000});
    bundle.set("/linux/devices", json!([denied]));
    let limits = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"shares": 500, "cpus": "0"},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "r"}]});
    bundle.set("/linux/resources", limits);
    let masked = bundle.config["linux"]["maskedPaths"].as_array_mut().unwrap();
    masked.retain(|path| path != "/proc/keys");
    masked.push(json!("/proc/timer_list"));
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    bundle
}

/// With a user namespace and hooks.
fn mapped(script: &str) -> Bundle {
    let mut bundle = secured(script);
    let map = json!([{"containerID": 0, "hostID": 0, "size": 2000}]);
    bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // Devices are the host's there, and it has no such.
    bundle.remove("/linux/devices");
    let hook = json!([{"path": "/bin/true"}]);
    bundle.set("/hooks/createRuntime", hook.clone()).set("/hooks/createContainer", hook);
    bundle
}

fn scene(bundle: Bundle) -> Scene {
    Scene { container: bundle.container(), _io: None }
}

const RUN: Maker = Maker {
    name: "run",
    scene: || scene(secured(PRINT)),
    call: |c| c.call_bundle("run", &[]),
    print: |_, output| Some(output.stdout.clone()),
    first: {
        static FIRST: OnceLock<String> = OnceLock::new();
        &FIRST
    },
};

const RUN_MAPPED: Maker = Maker {
    name: "run, with a user namespace and hooks",
    scene: || scene(mapped(PRINT)),
    first: {
        static FIRST: OnceLock<String> = OnceLock::new();
        &FIRST
    },
    ..RUN
};

/// The standard streams of a container that `create` has made are nobody's: it writes into a file.
const CREATE: Maker = Maker {
    name: "create",
    scene: || scene(secured(&format!("exec >/out/print; {PRINT}"))),
    call: super::create_call,
    print: |c, _| {
        let pid = c.pid();
        if c.start().code() != 0 {
            return None;
        }
        crate::support::wait_for_end(pid);
        Some(text(c.bundle.directory.join("out/print")))
    },
    first: {
        static FIRST: OnceLock<String> = OnceLock::new();
        &FIRST
    },
};

const EXEC: Maker = Maker {
    name: "exec",
    scene: || {
        let scene = scene(secured("sleep 1000"));
        let io = scene.container.create_io();
        scene.container.start().ok();
        Scene { _io: Some(io), ..scene }
    },
    call: |c| c.call(["exec", &c.id, "sh", "-c", PRINT]),
    print: |_, output| Some(output.stdout.clone()),
    first: {
        static FIRST: OnceLock<String> = OnceLock::new();
        &FIRST
    },
};

/// The namespaces by whether they are the host's, and no number of a container.
fn comparable(container: &Container, print: &str) -> Vec<String> {
    let plain = |line: &str| match line.split_once(":[") {
        Some((kind, _)) if line == link(format!("/proc/self/ns/{kind}")) => format!("{kind}: the host's"),
        Some((kind, _)) if !kind.contains(' ') => format!("{kind}: another"),
        _ => line.to_owned(),
    };
    // The session keyrings of others can be seen, too.
    let own = |line: &&str| !line.starts_with(" _ses") || line.contains("ID");
    nameless(container, print).lines().filter(own).map(plain).collect()
}

impl Maker {
    fn torture(&self, who: Who, every: usize) {
        let calls = self.watch(who);
        let only = std::env::var("RUNTIME_TEST_AT").ok().and_then(|text| text.parse().ok());
        let calls_of_interest = (0..calls.len()).filter(|at| only.is_none_or(|only: usize| *at == only));
        // umask(2) cannot fail.
        let can_fail = calls_of_interest.filter(|at| calls[*at] != SYS_umask.cast_unsigned());
        let points = can_fail.flat_map(|at| ERRORS.map(|errno| Point { who, at, blow: Blow::Refused(errno) }));
        let mut counts = [0; 3];
        let mut findings = Vec::new();
        for point in points.skip(every / 2).step_by(every) {
            match catch_unwind(AssertUnwindSafe(|| self.strike(point))) {
                Ok(Ok(outcome)) => counts[outcome as usize] += 1,
                Ok(Err(finding)) => findings.push(finding),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    findings.push(format!("{} {} {point:?}: {text}", self.name, calls::name(calls[point.at])));
                }
            }
        }
        let [missed, failed, same] = counts;
        say(&format!(
            "DOWNGRADE {} {who:?}: {} calls, {} points tried, {failed} failed, {same} the same, {missed} not reached, \
             {} findings",
            self.name,
            calls.len(),
            failed + same + findings.len(),
            findings.len()
        ));
        findings.iter().for_each(|finding| say(&format!("FINDING {finding}")));
        assert!(findings.is_empty(), "{} findings: {}", findings.len(), findings[0]);
    }

    fn watch(&self, who: Who) -> Vec<u64> {
        let scene = (self.scene)();
        let traced = trace::run((self.call)(&scene.container), None, who, None);
        assert!(traced.output.code() == 0 && !traced.hung, "{}: {:?}", self.name, traced.output);
        let print = (self.print)(&scene.container, &traced.output).unwrap();
        assert!(print.ends_with("complete\n"), "{print}");
        let print = comparable(&scene.container, &print).join("\n");
        assert_eq!(self.first.get_or_init(|| print.clone()), &print, "differs without any failure");
        traced.calls
    }

    fn strike(&self, point: Point) -> Result<Outcome, String> {
        let scene = (self.scene)();
        let container = &scene.container;
        let traced = trace::run((self.call)(container), None, point.who, Some(point));
        let Some(hit) = traced.hit else { return Ok(Outcome::Missed) };
        let output = &traced.output;
        let finding = |text: String| {
            let place = format!("{} {:?} {} {}: {:?}", self.name, point.who, point.at, calls::name(hit), point.blow);
            Err(format!("{place}: {text} ({}: {:?})", output.code(), output.stderr))
        };
        if traced.hung {
            return finding("hangs".to_owned());
        }
        let print = if output.code() == 0 { (self.print)(container, output) } else { None };
        let Some(print) = print else { return Ok(Outcome::Failed) };
        let (new, old) = (comparable(container, &print), self.first.get().unwrap().lines().collect::<Vec<_>>());
        let added = new.iter().map(String::as_str).filter(|line| !old.contains(line));
        let lost = old.iter().copied().filter(|line| !new.iter().any(|other| other == line));
        let changed: Vec<&str> = added.chain(lost).collect();
        if changed.is_empty() { Ok(Outcome::Same) } else { finding(format!("is another container: {changed:?}")) }
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Missed,
    Failed,
    Same,
}

macro_rules! makers {
    ($($sample:ident $every:ident $maker:ident $who:ident;)*) => { $(
        #[test]
        fn $sample() {
            case(|| {
                if !ours() || systemd() {
                    skip!("only this project's runtime, by cgroupfs");
                }
                $maker.torture(Who::$who, number("RUNTIME_TEST_EVERY", sample()));
            });
        }

        #[test]
        #[ignore = "every point: make crash"]
        fn $every() {
            $maker.torture(Who::$who, 1);
        }
    )* };
}

makers! {
    run every_run RUN Command;
    run_child every_run_child RUN Child;
    run_mapped_child every_run_mapped_child RUN_MAPPED Child;
    create every_create CREATE Command;
    create_child every_create_child CREATE Child;
    exec every_exec EXEC Command;
    exec_child every_exec_child EXEC Child;
}
