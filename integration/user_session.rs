//! As a user without privileges who has a systemd of its own, to which all controllers are delegated.
//!
//! Elsewhere these tests are ignored; `make guest-rootless` runs them.

use std::fs;
use std::path::Path;

use crate::support::{Call, case, text};

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
