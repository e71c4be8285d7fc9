//! `ps`: the processes of a container, as pids and as the host's ps(1) prints them.

use std::fs;

use serde_json::Value;

use crate::support::{Bundle, Call, Container, Io, busybox, case, cgroup_v2, wait_for_end, write_program};

/// A container with two processes: a shell, and another one.
fn two_processes() -> (Container, Io) {
    let (container, mut io) = Container::created("sleep 1000 & echo ready; read line");
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

fn pids(container: &Container) -> Vec<u64> {
    let output = container.call(["ps", "--format", "json", &container.id]).run().ok();
    let pids: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout));
    pids.as_array().map(|pids| pids.iter().map(|pid| pid.as_u64().unwrap()).collect()).unwrap_or_default()
}

/// A call of `ps ID WORDS` where the host's ps is this script.
fn with_host_ps(container: &Container, script: &str, words: &[&str]) -> Call {
    let bin = container.bundle.directory.join("host-bin");
    fs::create_dir_all(&bin).unwrap();
    write_program(bin.join("ps"), format!("#!{} sh\n{script}\n", busybox().display()));
    container.call([&["ps", "--format", "table", &container.id], words].concat()).env("PATH", bin)
}

#[test]
fn json_has_the_pids_that_the_host_knows() {
    case(|| {
        let (container, _io) = two_processes();
        let pids = pids(&container);
        assert_eq!(pids.len(), 2, "{pids:?}");
        assert!(pids.contains(&u64::from(container.pid())), "{pids:?}");
    });
}

#[test]
fn processes_in_cgroups_below_belong_to_the_container() {
    case(|| {
        let (container, _io) = two_processes();
        let before = pids(&container);
        let init = u64::from(container.pid());
        let other = before.iter().find(|pid| **pid != init).unwrap();
        let cgroup = container.cgroup(if cgroup_v2() { "" } else { "pids" }).unwrap();
        let below = container.cgroup(if cgroup_v2() { "" } else { "devices" }).unwrap();
        // Not every runtime reads the same hierarchy of v1.
        for cgroup in [cgroup, below] {
            let _ = fs::create_dir(cgroup.join("below"));
            fs::write(cgroup.join("below/cgroup.procs"), other.to_string()).unwrap();
        }
        let mut after = pids(&container);
        after.sort_unstable();
        let mut expected = before.clone();
        expected.sort_unstable();
        assert_eq!(after, expected);
    });
}

#[test]
fn table_has_the_title_and_the_containers_lines() {
    case(|| {
        let (container, _io) = two_processes();
        let pid = container.pid();
        let script = format!("echo 'USER PID PPID COMMAND'; echo 'root 1 {pid} init'; echo 'root {pid} 1 sh -c 1'");
        let output = with_host_ps(&container, &script, &[]).run().ok();
        assert_eq!(output.stdout, format!("USER PID PPID COMMAND\nroot {pid} 1 sh -c 1\n"));
    });
}

#[test]
fn words_after_the_id_are_those_of_the_hosts_ps() {
    case(|| {
        let (container, _io) = two_processes();
        let script = "printf '%s|' 'PID ' \"$@\"; echo";
        for (words, expected) in [
            (&[][..], "PID |-ef|\n"),
            (&["-o pid,cmd"], "PID |-o pid,cmd|\n"),
            (&["-e", "-x", "--format=x", "-format"], "PID |-e|-x|--format=x|-format|\n"),
        ] {
            assert_eq!(with_host_ps(&container, script, words).run().ok().stdout, expected);
        }
    });
}

#[test]
fn the_hosts_ps_does() {
    case(|| {
        let (container, _io) = two_processes();
        let bin = container.bundle.directory.join("host-bin");
        fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(busybox(), bin.join("ps")).unwrap();
        let output = container.call(["ps", &container.id]).env("PATH", bin).run().ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{}", output.stdout);
        assert!(lines[0].contains("PID") && output.stdout.contains("sleep 1000"), "{}", output.stdout);
    });
}

#[test]
fn a_failing_ps_is_an_error_with_its_words() {
    case(|| {
        let (container, _io) = two_processes();
        let failed = |script: &str| with_host_ps(&container, script, &["--banana"]).run().fails().stderr;
        assert!(failed("echo 'no option banana' >&2; exit 3").contains("no option banana"));
        assert!(failed("echo COMMAND; echo sh").contains("couldn't find PID field in ps output"));
        assert!(failed("echo 'COMMAND PID'; echo 'sh -c 1 7'").contains("unable to parse pid"));
    });
}

#[test]
fn a_stopped_container_has_no_processes() {
    case(|| {
        let (container, _io) = two_processes();
        let pids_before = pids(&container);
        container.stop();
        for pid in pids_before {
            wait_for_end(pid as u32);
        }
        let output = container.call(["ps", "-f", "json", &container.id]).run().ok();
        assert_eq!(output.stdout, "null\n");
        let output = with_host_ps(&container, "echo PID; echo 1", &[]).run().ok();
        assert_eq!(output.stdout, "PID\n");
    });
}

#[test]
fn a_created_container_has_its_init() {
    case(|| {
        let container = Bundle::sh("true").container();
        container.create().ok();
        assert_eq!(pids(&container), [u64::from(container.pid())]);
    });
}

#[test]
fn of_no_container_is_an_error() {
    case(|| {
        let container = Bundle::new().container();
        assert!(container.command(&["ps"], &[]).fails().stderr.contains("container does not exist"));
        assert_eq!(container.call(["ps"]).run().fails().code(), 1);
        assert_eq!(container.call(["ps", "--format", "banana", &container.id]).run().fails().code(), 1);
    });
}
