//! What a hostile image, a racing container and a process inside may try against `create`, `run` and `exec`, beyond the
//! published vulnerabilities of `cves.rs`.

mod leaks;
mod order;
mod own_program;
mod races;

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::support::{Bundle, Call, Container, busybox, case, ours, pidfd, runtime, scale, skip, wait_for_end};

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
                let mode = Mode::from_bits_truncate(0o777);
                let _ = fs::remove_file(&path);
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

/// Says so when the test ends, by a panic too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The same for `tmpcopyup`, while somebody exchanges files for devices and FIFOs. Seen: with our own runtime, when it looked at
/// a name and then opened it: eight of these sixteen or more.
#[test]
fn what_becomes_no_file_is_not_opened() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let mut bundle = Bundle::new();
        let data = bundle.rootfs().join("data");
        fs::create_dir(&data).unwrap();
        let others: Vec<_> = (0..16).map(|number| bundle.directory.join(format!("other{number}"))).collect();
        let mut watches = Vec::new();
        for (number, other) in others.iter().enumerate() {
            fs::write(data.join(number.to_string()), "contents").unwrap();
            match number % 2 {
                0 => mknod(other, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap(),
                _ => mkfifo(other, Mode::S_IRWXU).unwrap(),
            }
            watches.push(Watch::new(other));
        }
        bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
        let container = bundle.container();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    for (number, other) in others.iter().enumerate() {
                        renameat_with(CWD, other, CWD, data.join(number.to_string()), RenameFlags::EXCHANGE).unwrap();
                    }
                }
            });
            let _end = End(&ended);
            // Slowly: so there is time between a look and what comes after it.
            let slow = ["/usr/bin/strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=newfstatat,openat"];
            let slow = slow.into_iter().chain(["-e", "inject=newfstatat,openat:delay_exit=500"]);
            for _ in 0..scale().div_ceil(20) {
                let call = container.call_bundle("run", &[]);
                if Path::new("/usr/bin/strace").exists() { call.wrapped(slow.clone()) } else { call }.run();
            }
        });
        let opened = watches.iter().filter(|watch| watch.was_opened()).count();
        assert_eq!(opened, 0, "of {} devices and FIFOs", others.len());
        container.run().ok();
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

/// Links in such a place lead nowhere: not to a container of another root directory, nor to where a new one is to be made.
/// Seen: with our own runtime, without O_NOFOLLOW. A root directory that is itself a link is what its caller wants.
#[test]
fn a_link_in_the_root_directory_is_no_container() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let (container, _io) = Container::running();
        let pid = container.pid();
        let everybodys = container.bundle.directory.join("everybodys");
        fs::create_dir(&everybodys).unwrap();
        fs::set_permissions(&everybodys, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(container.root().join(&container.id), everybodys.join(&container.id)).unwrap();
        symlink(container.bundle.directory.join("nowhere"), everybodys.join("new")).unwrap();
        let (place, bundle) = (everybodys.to_str().unwrap(), container.bundle.directory.to_str().unwrap());
        let call = |words: &[&str]| Call::new(runtime()).args(["--root", place]).args(words).run();
        for words in [&["state"][..], &["kill", "--all"], &["delete", "--force"], &["pause"], &["start"], &["ps"]] {
            call(&[words, &[&container.id]].concat()).fails();
        }
        assert_eq!(call(&["list", "--quiet"]).ok().stdout, "");
        for id in [&container.id, "new"] {
            call(&["create", "--bundle", bundle, id]).fails();
        }
        assert!(pidfd(pid).is_some() && container.state()["status"] == "running");
        assert!(!container.bundle.directory.join("nowhere").exists());
        let link = container.bundle.directory.join("link");
        symlink(container.root(), &link).unwrap();
        let through = Call::new(runtime()).args(["--root", link.to_str().unwrap(), "state", &container.id]).run().ok();
        assert!(through.stdout.contains("running"), "{through:?}");
    });
}
