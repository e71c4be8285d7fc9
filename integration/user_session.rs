//! As a user without privileges who has a systemd of its own, to which all controllers are delegated.
//!
//! Elsewhere these tests are ignored; `make guest-rootless` runs them.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::rootless::of;
use crate::support::{Call, Container, WAITING, case, text, with_io};

/// What the guest promises, and the other tests stand on.
#[test]
#[ignore = "wants an unprivileged user with systemd"]
fn the_user_has_a_systemd_and_a_delegated_cgroup() {
    case(|| {
        assert_ne!(rustix::process::getuid().as_raw(), 0);
        assert_eq!(
            Call::new("/usr/bin/systemctl").args(["--user", "is-system-running"]).run().ok().stdout,
            "running\n"
        );
        let owner = Call::new("/usr/bin/busctl").args(["--user", "get-property", "org.freedesktop.systemd1"]);
        let group =
            owner.args(["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "ControlGroup"]).run().ok();
        assert_eq!(group.stdout, "s \"/user.slice/user-1000.slice/user@1000.service\"\n");
        // The processes are in `main`, so that the unit's cgroup may have other children.
        let place = text("/proc/self/cgroup");
        let delegated = Path::new("/sys/fs/cgroup").join(place.trim().strip_prefix("0::/").unwrap()).join("..");
        assert_eq!(text(delegated.join("cgroup.controllers")).trim(), "cpuset cpu io memory pids");
        fs::write(delegated.join("cgroup.subtree_control"), "+cpuset +cpu +io +memory +pids").unwrap();
        let child = delegated.join("child");
        fs::create_dir(&child).unwrap();
        fs::write(child.join("pids.max"), "7").unwrap();
        fs::remove_dir(child).unwrap();
        let ids = text("/etc/subuid");
        assert!(ids.lines().any(|line| line == "user:100000:65536"), "{ids}");
    });
}

/// The cgroup of a container's init.
fn cgroup_of(container: &Container) -> std::path::PathBuf {
    let place = text(format!("/proc/{}/cgroup", container.pid()));
    Path::new("/sys/fs/cgroup").join(place.trim().strip_prefix("0::/").unwrap())
}

/// A container of the user with limits, by a cgroup driver.
fn check_limits(driver: &[&str], check: impl FnOnce(&Container, &Path)) {
    let user = rustix::process::getuid().as_raw();
    let mut bundle = of(user, WAITING);
    bundle.set("/linux/resources", json!({"pids": {"limit": 20}, "memory": {"limit": 64 << 20}}));
    let container = bundle.container();
    container.bundle.write();
    let run = |args: &[&str]| container.call([driver, args].concat()).run();
    let (call, mut io) = with_io(container.call([driver, &["run", "--detach", &container.id]].concat()));
    call.run().ok();
    assert_eq!(io.stdout.next(), "ready");
    let cgroup = cgroup_of(&container);
    assert_eq!(text(cgroup.join("pids.max")), "20\n");
    assert_eq!(text(cgroup.join("memory.max")), format!("{}\n", 64 << 20));
    check(&container, &cgroup);
    run(&["update", "--pids-limit", "30", &container.id]).ok();
    assert_eq!(text(cgroup.join("pids.max")), "30\n");
    let place = run(&["exec", &container.id, "cat", "/proc/self/cgroup"]).ok().stdout;
    assert!(cgroup.ends_with(place.trim().strip_prefix("0::/").unwrap()), "{place} of {cgroup:?}");
    run(&["pause", &container.id]).ok();
    assert_eq!(container.status(), "paused");
    run(&["resume", &container.id]).ok();
    run(&["delete", "--force", &container.id]).ok();
    assert!(!cgroup.exists());
    container.nothing_left();
}

#[test]
#[ignore = "wants an unprivileged user with systemd"]
fn limits_in_the_delegated_cgroup() {
    case(|| check_limits(&[], |_, _| {}));
}

#[test]
#[ignore = "wants an unprivileged user with systemd"]
fn limits_by_the_users_systemd() {
    case(|| {
        check_limits(&["--systemd-cgroup"], |container, cgroup| {
            let unit = cgroup.file_name().unwrap().to_str().unwrap();
            assert!(unit.contains(&container.id) && unit.ends_with(".scope"), "{unit}");
            let show = Call::new("/usr/bin/systemctl").args(["--user", "show", "-p", "TasksMax,MemoryMax", unit]);
            let mut lines: Vec<_> = show.run().ok().stdout.lines().map(str::to_owned).collect();
            lines.sort();
            assert_eq!(lines, [format!("MemoryMax={}", 64 << 20), "TasksMax=20".to_owned()]);
        });
    });
}

#[test]
#[ignore = "wants an unprivileged user with systemd"]
fn ids_that_root_has_granted() {
    case(|| {
        let user = rustix::process::getuid().as_raw();
        let mut bundle = of(user, "id; cat /proc/self/uid_map");
        for kind in ["uid", "gid"] {
            let own = json!({"containerID": 0, "hostID": user, "size": 1});
            let range = json!({"containerID": 1, "hostID": 100_000, "size": 65536});
            bundle.set(&format!("/linux/{kind}Mappings"), json!([own, range]));
        }
        bundle.set("/process/user", json!({"uid": 7, "gid": 8, "additionalGids": [9]}));
        let output = bundle.container().run().ok().stdout;
        let words: Vec<_> = output.split_whitespace().collect();
        assert_eq!(words[..3], ["uid=7", "gid=8", "groups=9"]);
        assert_eq!(words[3..], ["0", &user.to_string(), "1", "1", "100000", "65536"]);
    });
}
