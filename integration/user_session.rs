//! As a user without privileges who has a systemd of its own, to which all controllers are delegated.
//!
//! Elsewhere these tests are ignored; `make guest-rootless` runs them.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Call, busybox, case, eventually, runtime, text};

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

#[test]
#[ignore = "wants an unprivileged user with systemd"]
fn a_container_in_a_scope_of_the_users_systemd() {
    case(|| life_of_a_scope(None));
}

/// The life of a container that `spec --rootless` has written, with limits, in a scope of the systemd of `user`; None: of
/// whoever runs the tests.
pub(crate) fn life_of_a_scope(user: Option<u32>) {
    let directory = PathBuf::from(format!("/var/tmp/scope-{}", std::process::id()));
    fs::create_dir_all(directory.join("rootfs/bin")).unwrap();
    fs::copy(busybox(), directory.join("rootfs/bin/busybox")).unwrap();
    for name in ["sleep", "sh", "cat"] {
        std::os::unix::fs::symlink("busybox", directory.join("rootfs/bin").join(name)).unwrap();
    }
    for place in ["", "rootfs", "rootfs/bin"] {
        chown(directory.join(place), user, user).unwrap();
    }
    let call = |args: &[&str]| {
        let call = Call::new(runtime()).args(["--systemd-cgroup"]).args(args).cwd(&directory);
        match user {
            Some(id) => call.user(id).env("XDG_RUNTIME_DIR", format!("/run/user/{id}")),
            None => call,
        }
    };
    call(&["spec", "--rootless"]).run().ok();
    let mut config: Value = serde_json::from_str(&text(directory.join("config.json"))).unwrap();
    config["process"]["args"] = json!(["sleep", "100000"]);
    config["process"]["terminal"] = json!(false);
    config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 33}});
    fs::write(directory.join("config.json"), config.to_string()).unwrap();

    call(&["run", "--detach", "scope"]).run().ok();
    let state: Value = serde_json::from_str(&call(&["state", "scope"]).run().ok().stdout).unwrap();
    let place = text(format!("/proc/{}/cgroup", state["pid"]));
    let place = place.trim().strip_prefix("0::/").unwrap();
    assert!(place.ends_with("/user@1000.service/user.slice/runtime-scope.scope"), "{place}");
    let cgroup = Path::new("/sys/fs/cgroup").join(place);
    let limits = || ["memory.max", "pids.max"].map(|file| text(cgroup.join(file)).trim().to_owned());
    assert_eq!(limits(), ["67108864", "33"]);
    call(&["update", "--pids-limit", "44", "scope"]).run().ok();
    assert_eq!(limits(), ["67108864", "44"]);
    // Another process of it is there from its beginning, and no other is there.
    call(&["exec", "--detach", "scope", "sleep", "100000"]).run().ok();
    assert_eq!(text(cgroup.join("cgroup.procs")).lines().count(), 2);
    assert_eq!(call(&["exec", "scope", "cat", "/proc/self/cgroup"]).run().ok().stdout, "0::/\n");
    call(&["pause", "scope"]).run().ok();
    assert_eq!(text(cgroup.join("cgroup.freeze")), "1\n");
    call(&["resume", "scope"]).run().ok();
    call(&["delete", "--force", "scope"]).run().ok();
    assert!(!cgroup.exists());
    eventually("nothing is left of the unit", || {
        let show =
            Call::new("/usr/bin/systemctl").args(["--user", "--property=LoadState", "show", "runtime-scope.scope"]);
        let show = match user {
            Some(id) => show.user(id).env("XDG_RUNTIME_DIR", format!("/run/user/{id}")),
            None => show,
        };
        show.run().ok().stdout == "LoadState=not-found\n"
    });
    fs::remove_dir_all(directory).unwrap();
}
