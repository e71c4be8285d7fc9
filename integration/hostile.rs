//! What a hostile image, a racing container and a process inside may try against `create`, `run` and `exec`, beyond the
//! published vulnerabilities of `cves.rs`.

mod leaks;
mod order;
mod own_program;
mod races;

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use serde_json::json;

use crate::support::{Bundle, busybox, case, ours, skip, wait_for_end};

/// Notices who opens something: a look-up without opening (`O_PATH`) does not count.
struct Watch(OwnedFd);

impl Watch {
    fn new(path: &Path) -> Self {
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        add_watch(&watch, path, WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    fn was_opened(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 512];
        Reader::new(&self.0, &mut buffer).next().is_ok()
    }
}

/// To open a device or a FIFO has effects: a tape is rewound, a watchdog started, somebody who waits goes on. Seen: with our
/// own runtime, when it opened first and looked then.
#[test]
fn what_is_no_file_is_not_opened() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        for what in ["etc/passwd", "dev/null", "bin/program"] {
            for device in [true, false] {
                let mut bundle = Bundle::new();
                for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                    bundle.unmount(mount);
                }
                // Or the runtime makes its own.
                let dev = bundle.rootfs().join("dev").display().to_string();
                bundle.mount("/dev", "bind", &dev, &["bind"]);
                let path = bundle.rootfs().join(what);
                let _ = fs::remove_file(&path);
                let mode = Mode::from_bits_truncate(0o777);
                if device {
                    mknod(&path, SFlag::S_IFCHR, mode, makedev(1, 5)).unwrap();
                } else {
                    mkfifo(&path, mode).unwrap();
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
                bundle.args(&[if what == "bin/program" { "program" } else { "true" }]);
                bundle.set("/linux/maskedPaths", json!([]));
                let watch = Watch::new(&path);
                let container = bundle.container();
                let output = container.run();
                assert_eq!(output.code() != 0, what == "bin/program", "{output:?}");
                assert!(!watch.was_opened(), "{what}, a device: {device}: it was opened");
            }
        }
    });
}

/// A root directory where everybody may write (`--root /tmp`): what somebody else has put there names hooks, cgroups and
/// processes, and is not believed. Seen: with our own runtime, which ran the hook.
#[test]
fn the_state_of_somebody_else_is_not_believed() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let mut bundle = Bundle::new();
        let trap = bundle.directory.join("trap");
        let script = format!("echo ran >> {}", trap.display());
        bundle.set("/hooks/poststop", json!([{"path": busybox(), "args": ["sh", "-c", script]}]));
        let container = bundle.container();
        container.create().ok();
        let pid = container.pid();
        container.start().ok();
        wait_for_end(pid);
        let state = container.root().join(&container.id);
        chown(&state, Some(1000), Some(1000)).unwrap();
        for command in [
            &["state"][..],
            &["delete"],
            &["delete", "--force"],
            &["start"],
            &["kill"],
            &["ps"],
            &["events", "--stats"],
        ] {
            let output = container.command(command, &[]).fails();
            assert!(output.stderr.contains("--root") && output.stderr.contains("1000"), "{output:?}");
        }
        let listed = container.call(["list", "--quiet"]).run();
        assert!(!listed.stdout.contains(&container.id), "{listed:?}");
        assert!(!trap.exists(), "a hook of somebody else was run");
        chown(&state, Some(0), Some(0)).unwrap();
        container.command(&["delete"], &[]).ok();
        assert!(trap.exists());
    });
}
