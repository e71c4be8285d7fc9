//! `events`: what a container uses, and that it runs out of memory.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Bundle, Call, Container, Io, Lines, Running, WAITING, case, cgroup_v2, controller, eventually, hierarchies, link,
    ours, pipe, skip, text, wait_for_end,
};

/// `events` of a container, and the lines that it prints.
fn events(container: &Container, flags: &[&str]) -> (Running, Lines) {
    let (lines, stdout) = pipe();
    let call = container.call([&["events"], flags, &[&container.id]].concat()).stdout(stdout);
    (call.spawn(), lines)
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The data of `events --stats`.
fn stats(container: &Container) -> Value {
    let output = container.call(["events", "--stats", &container.id]).run().ok();
    assert_eq!(output.stdout.lines().count(), 1, "{}", output.stdout);
    let event = event(&output.stdout);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id)));
    event["data"].clone()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

#[test]
fn stats_have_the_keys_of_runc() {
    case(|| {
        let (container, _io) = Container::running();
        let data = stats(&container);
        let expected = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
        assert_eq!(keys(&data), expected);
        let usage: &[&str] = if cgroup_v2() {
            &["kernel", "total", "user"]
        } else {
            &["kernel", "percpu", "percpu_kernel", "percpu_user", "total", "user"]
        };
        assert_eq!(keys(&data["cpu"]["usage"]), usage);
        let cpuset = [
            "cpu_exclusive",
            "mem_exclusive",
            "mem_hardwall",
            "memory_migrate",
            "memory_pressure",
            "memory_spread_page",
            "memory_spread_slab",
            "sched_load_balance",
            "sched_relax_domain_level",
        ];
        let mut found = keys(&data["cpuset"]);
        found.retain(|key| !matches!(*key, "cpus" | "mems"));
        assert_eq!(found, cpuset);
        assert_eq!((&data["intel_rdt"], &data["network_interfaces"]), (&json!({}), &Value::Null));
        if controller("memory").is_some() {
            let memory = keys(&data["memory"]).into_iter().filter(|key| !matches!(*key, "cache" | "psi"));
            assert_eq!(memory.collect::<Vec<_>>(), ["kernel", "kernelTCP", "raw", "swap", "usage"]);
            let mut usage = keys(&data["memory"]["usage"]);
            usage.retain(|key| *key != "max");
            assert_eq!(usage, ["failcnt", "limit", "usage"]);
        }
    });
}

#[test]
fn stats_are_those_of_the_cgroup() {
    case(|| {
        if controller("memory").is_none() || controller("pids").is_none() {
            skip!("no memory or pids controller");
        }
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/linux/resources/memory", json!({"limit": 67_108_864}));
        bundle.set("/linux/resources/pids", json!({"limit": 20}));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let data = stats(&container);
        assert_eq!(data["pids"], json!({"current": 1, "limit": 20}));
        assert_eq!(data["memory"]["usage"]["limit"], json!(67_108_864));
        let (dir, v1, v2) = (container.cgroup("memory").unwrap(), "memory.usage_in_bytes", "memory.current");
        let usage: u64 = text(dir.join(if cgroup_v2() { v2 } else { v1 })).trim().parse().unwrap();
        // The kernel counts in batches for each processor, and frees caches when it likes.
        let found = data["memory"]["usage"]["usage"].as_u64().unwrap();
        assert!(found.abs_diff(usage) < 4 << 20, "{found} {usage}");
        let (mut from_stat, raw) = (text(dir.join("memory.stat")), &data["memory"]["raw"]);
        from_stat = from_stat.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ");
        for key in from_stat.split(' ') {
            assert!(raw[key].is_u64(), "{key}: {raw}");
        }
    });
}

#[test]
fn processor_time_grows() {
    case(|| {
        let script = "echo ready; read line; i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo done; read line";
        let (container, mut io) = Container::created(script);
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let total = || stats(&container)["cpu"]["usage"]["total"].as_u64().unwrap_or(0);
        let before = total();
        io.write("go\n");
        assert_eq!(io.stdout.next(), "done");
        let after = total();
        assert!(after > before, "{before} {after}");
    });
}

#[test]
fn pressure_is_told() {
    case(|| {
        let unified = hierarchies().into_iter().find(|hierarchy| hierarchy.controllers.is_empty());
        // Of a cgroup there is one if there is one of the host.
        if unified.is_none() || !Path::new("/proc/pressure/memory").exists() {
            skip!("no pressure stall information");
        }
        let (container, _io) = Container::running();
        let data = stats(&container);
        for part in ["cpu", "memory", "blkio"] {
            assert_eq!(keys(&data[part]["psi"]), ["full", "some"], "{part}");
            assert_eq!(keys(&data[part]["psi"]["some"]), ["avg10", "avg300", "avg60", "total"], "{part}");
        }
    });
}

#[test]
fn an_interval_is_written_as_in_go() {
    case(|| {
        let (container, _io) = Container::running();
        let (running, mut lines) = events(&container, &["--interval=0.05s"]);
        for _ in 0..3 {
            assert_eq!(event(&lines.next())["type"], "stats");
        }
        drop(running);
        let (_running, mut lines) = events(&container, &["--interval", "1ms20us"]);
        assert_eq!(event(&lines.next())["type"], "stats");
        for interval in ["0", "0s", "-5s", "5", "5x", ""] {
            let output = container.call(["events", "--interval", interval, &container.id]).run().fails();
            assert_eq!((output.code(), output.stdout.contains("\"type\"")), (1, false), "{interval}");
        }
        let output = container.call(["events", "--interval=0s", &container.id]).run().fails();
        assert!(output.stderr.contains("duration interval must be greater than 0"), "{}", output.stderr);
    });
}

#[test]
fn events_end_with_the_container() {
    case(|| {
        let (container, _io) = Container::running();
        let (running, mut lines) = events(&container, &["--interval=50ms"]);
        assert_eq!(event(&lines.next())["type"], "stats");
        container.stop();
        container.command(&["delete"], &[]).ok();
        running.wait().ok();
        let rest = lines.rest();
        assert!(rest.lines().all(|line| event(line)["type"] == "stats"), "{rest}");
    });
}

#[test]
fn events_end_with_init_before_the_container_is_deleted() {
    case(|| {
        let (container, _io) = Container::running();
        let (running, mut lines) = events(&container, &["--interval=50ms"]);
        assert_eq!(event(&lines.next())["type"], "stats");
        container.stop();
        running.wait().ok();
    });
}

#[test]
fn events_end_when_nobody_reads() {
    case(|| {
        let (container, _io) = Container::running();
        let (running, mut lines) = events(&container, &["--interval=50ms"]);
        assert_eq!(event(&lines.next())["type"], "stats");
        drop(lines);
        let pid = running.pid();
        wait_for_end(pid);
    });
}

/// Of a socket poll(2) says POLLHUP where it says POLLERR of a pipe.
#[test]
fn events_end_at_once_when_nobody_reads_a_socket() {
    case(|| {
        if !ours() {
            skip!("another runtime ends at its next line");
        }
        let (container, _io) = Container::running();
        let (reader, stdout) = UnixStream::pair().unwrap();
        let running = container.call(["events", "--interval=1h", &container.id]).stdout(stdout).spawn();
        watches(&running);
        drop(reader);
        running.wait().ok();
    });
}

/// Fills its memory when a line comes, in a child that is the first to be killed.
const GREEDY: &str =
    "echo ready; read line; sh -c 'echo 1000 >/proc/self/oom_score_adj; tail /dev/zero'; echo killed; read line";

fn greedy(script: &str) -> Option<(Container, Io)> {
    controller("memory")?;
    let mut bundle = Bundle::sh(script);
    bundle.set("/linux/resources/memory", json!({"limit": 16 << 20, "swap": 16 << 20}));
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    Some((container, io))
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_an_event() {
    case(|| {
        let Some((container, mut io)) = greedy(GREEDY) else { skip!("no memory controller") };
        let (running, mut lines) = events(&container, &["--interval=100ms"]);
        // By now it watches.
        assert_eq!(event(&lines.next())["type"], "stats");
        io.write("go\n");
        let oom = loop {
            let event = event(&lines.next());
            if event["type"] != "stats" {
                break event;
            }
        };
        assert_eq!(oom, json!({"type": "oom", "id": container.id}));
        assert_eq!(io.stdout.next(), "killed");
        assert!(!running.has_ended());
    });
}

#[test]
fn an_init_that_is_killed_for_want_of_memory_is_an_event() {
    case(|| {
        let Some((container, mut io)) = greedy("echo ready; read line; exec tail /dev/zero") else {
            skip!("no memory controller")
        };
        let (running, mut lines) = events(&container, &["--interval=1h"]);
        // Once it sleeps in poll, it watches.
        watches(&running);
        io.write("go\n");
        let all = lines.first();
        assert_eq!(all.map(|line| event(&line)), Some(json!({"type": "oom", "id": container.id})));
        wait_for_end(container.pid());
        container.command(&["delete", "--force"], &[]).ok();
        running.wait().ok();
    });
}

/// Waits until a call has begun to watch the container: it has an eventfd, an inotify or memory.events open.
fn watches(running: &Running) {
    let fds = format!("/proc/{}/fd", running.pid());
    eventually("it watches", || {
        let links = fs::read_dir(&fds).into_iter().flatten().flatten().map(|entry| link(entry.path()));
        links
            .into_iter()
            .any(|link| link.contains("memory.events") || link.contains("inotify") || link == "anon_inode:[eventfd]")
    });
    // It sleeps in a call, and no longer runs.
    eventually("it waits", || {
        let stat = text(format!("/proc/{}/stat", running.pid()));
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    });
}

#[test]
fn waiting_costs_nothing() {
    case(|| {
        let (container, _io) = Container::running();
        let (running, _lines) = events(&container, &["--interval=1h"]);
        watches(&running);
        let ticks = || {
            let stat = text(format!("/proc/{}/schedstat", running.pid()));
            stat.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap()
        };
        let before = ticks();
        // Something to wait for, of about a tenth of a second.
        let other = Container::running();
        drop(other);
        let spent = ticks() - before;
        assert!(spent < 5_000_000, "{spent} ns of processor time");
    });
}

#[test]
fn a_container_that_does_not_run_has_no_events() {
    case(|| {
        let (container, io) = Container::running();
        container.stop();
        drop(io);
        for flags in [&["--stats"][..], &[]] {
            let (running, _lines) = events(&container, flags);
            let error = running.wait().fails().stderr;
            assert!(error.contains(&format!("container with id {} is not running", container.id)), "{error}");
        }
        let none = Bundle::new().container();
        assert!(none.call(["events", "--stats", "none"]).run().fails().stderr.contains("container does not exist"));
    });
}

#[test]
fn a_created_container_has_stats() {
    case(|| {
        let container = Bundle::sh("true").container();
        container.create().ok();
        assert!(stats(&container)["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    });
}

#[test]
fn network_devices_of_the_container_are_counted() {
    case(|| {
        let (container, _io) = Container::running();
        let pid = container.pid().to_string();
        let added = Call::sh("ip link add probe type veth").below(["nsenter", "-t", &pid, "-n", "--"]).run();
        if added.code() != 0 {
            skip!("no veth devices");
        }
        let interfaces = stats(&container)["network_interfaces"].clone();
        let found = interfaces.as_array().into_iter().flatten().find(|one| one["Name"] == "probe");
        let expected = json!({
            "Name": "probe", "RxBytes": 0, "RxPackets": 0, "RxErrors": 0, "RxDropped": 0,
            "TxBytes": 0, "TxPackets": 0, "TxErrors": 0, "TxDropped": 0,
        });
        assert_eq!(found, Some(&expected), "{interfaces}");
    });
}

#[test]
fn all_containers_are_followed() {
    case(|| {
        let (first, _io) = Container::running();
        let (lines, stdout) = pipe();
        let mut lines = lines;
        let all = first.call(["events", "--all", "--interval=20ms"]).stdout(stdout).spawn();
        assert_eq!(event(&lines.next())["id"], json!(first.id));
        // One more, in the same root directory.
        let second = Bundle::sh(WAITING).container();
        second.bundle.write();
        let bundle = second.bundle.directory.display().to_string();
        let created = first.call(["create", "--bundle", &bundle, &second.id]);
        created.run().ok();
        while event(&lines.next())["id"] != json!(second.id) {}
        first.call(["delete", "--force", &second.id]).run().ok();
        // The first goes on alone: some lines of it in a row, however many of the second are still to come.
        let mut alone = 0;
        while alone < 5 {
            alone = if event(&lines.next())["id"] == json!(first.id) { alone + 1 } else { 0 };
        }
        let once = first.call(["events", "--all", "--stats"]).run().ok();
        assert_eq!(once.stdout.lines().map(|line| event(line)["id"].clone()).collect::<Vec<_>>(), [json!(first.id)]);
        assert!(!all.has_ended());
    });
}
