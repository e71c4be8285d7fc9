//! One test for each published vulnerability of a runtime that concerns `create`, `start` and `run`.
//!
//! The root file system and everything in it is hostile, and so is a second container that shares a volume. "Seen": with
//! which older runtime a test was seen to fail while it was written, so that it is known to be able to.
//!
//! Elsewhere: CVE-2022-24769 (inheritable capabilities) in `inside::capabilities_*`, descriptor leaks in
//! `inside::descriptors_*`.

mod processes;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::support::{
    Bundle, Container, Output, busybox, case, cgroup_v2, inside, ours, scale, skip, text, with_io, write_program,
};

/// A directory of the host outside of the root file system, with a file in it.
struct Outside {
    path: PathBuf,
}

impl Outside {
    fn new(bundle: &Bundle) -> Self {
        let path = bundle.directory.join("outside");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("canary"), "canary\n").unwrap();
        Self { path }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Insists that it is as it was, but for `known` names.
    #[track_caller]
    fn unchanged(&self, known: &[&str]) {
        let mut names: Vec<String> = fs::read_dir(&self.path)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        names.sort();
        assert_eq!(names, ["canary"], "something was made outside of the root file system");
        assert_eq!(text(self.path.join("canary")), "canary\n", "a file outside of the root file system was changed");
    }
}

/// Exchanges two names for as long as it lives, as an attacker in a container with a shared volume would.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn new(directory: &Path, one: &'static str, other: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, directory) = (Arc::clone(&stop), fs::File::open(directory).unwrap());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = renameat_with(directory.as_fd(), one, directory.as_fd(), other, RenameFlags::EXCHANGE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `run`, whatever comes of it: an attack may be refused.
fn attempt(bundle: Bundle) -> (Container, Output) {
    let container = bundle.container();
    let output = container.run();
    assert!(output.code() < 128, "{output:?}");
    (container, output)
}

// ---------------------------------------------------------------------------------------------- links in the rootfs

/// CVE-2019-18837: a mount below an absolute link was made on the host. Seen: our own runtime without RESOLVE_IN_ROOT.
#[test]
fn cve_2019_18837_directory() {
    case(|| {
        let mut bundle = Bundle::new();
        let outside = Outside::new(&bundle);
        symlink(&outside.path, bundle.rootfs().join("link")).unwrap();
        bundle.mount("/link/newdir", "tmpfs", "tmpfs", &[]);
        let (_container, _) = attempt(bundle);
        outside.unchanged(&[]);
    });
}

/// CVE-2019-18837, a file: made, or cut to nothing, on the host.
#[test]
fn cve_2019_18837_file() {
    case(|| {
        for target in ["newfile", "canary"] {
            let mut bundle = Bundle::new();
            let outside = Outside::new(&bundle);
            symlink(outside.at(target), bundle.rootfs().join("etc/link")).unwrap();
            bundle.mount("/etc/link", "bind", "rootfs/etc/passwd", &["bind"]);
            let (_container, _) = attempt(bundle);
            outside.unchanged(&[]);
        }
    });
}

/// CVE-2026-87766 (bubblewrap) and its kind: a parent that is a link out of the root, by way of /proc.
/// Seen: our own runtime without RESOLVE_IN_ROOT.
#[test]
fn links_through_proc_do_not_lead_out() {
    case(|| {
        for target in ["/proc/self/root/..", "/proc/self/fd/9", "/proc/1/root", "/proc/self/cwd/.."] {
            let mut bundle = Bundle::new();
            let outside = Outside::new(&bundle);
            symlink(target, bundle.rootfs().join("sub")).unwrap();
            bundle.mount("/sub/outside/new", "tmpfs", "tmpfs", &[]);
            let container = bundle.container();
            let open = format!("exec 9<{}; exec \"$@\"", container.bundle.directory.display());
            container.call_bundle("run", &[]).below(["sh", "-c", &open, "sh"]).run();
            outside.unchanged(&[]);
        }
    });
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc is a link to where the attacker can write.
#[test]
fn cve_2023_27561_proc_is_a_link() {
    case(|| {
        for name in ["proc", "sys"] {
            let bundle = Bundle::new();
            let path = bundle.rootfs().join(name);
            fs::remove_dir(&path).unwrap();
            fs::create_dir(bundle.rootfs().join("elsewhere")).unwrap();
            symlink("/elsewhere", &path).unwrap();
            let container = bundle.container();
            container.run().fails();
            container.nothing_left();
        }
    });
}

/// CVE-2026-41579, CVE-2026-47766: /dev is a link to a directory of the host, where devices and links were made and
/// removed. Seen: runc 1.1.5, crun 1.8.1.
#[test]
fn cve_2026_41579_dev_is_a_link() {
    case(|| {
        let mut bundle = Bundle::new();
        let outside = Outside::new(&bundle);
        fs::write(outside.at("ptmx"), "mine\n").unwrap();
        fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
        symlink(&outside.path, bundle.rootfs().join("dev")).unwrap();
        for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
            bundle.unmount(mount);
        }
        let (_container, _) = attempt(bundle);
        assert_eq!(text(outside.at("ptmx")), "mine\n");
        outside.unchanged(&["ptmx"]);
    });
}

// ---------------------------------------------------------------------------------------------- races

/// A bundle with a volume at /v in which `x` (a directory) and `y` (a link out) change places.
fn swapped() -> (Bundle, Outside, Swapper) {
    let mut bundle = Bundle::new();
    let outside = Outside::new(&bundle);
    let volume = bundle.directory.join("volume");
    fs::create_dir_all(volume.join("x")).unwrap();
    symlink(&outside.path, volume.join("y")).unwrap();
    bundle.mount("/v", "bind", volume.to_str().unwrap(), &["bind"]);
    let swapper = Swapper::new(&volume, "x", "y");
    (bundle, outside, swapper)
}

fn rounds() -> usize {
    scale().div_ceil(5)
}

/// CVE-2021-30465: a mount was made below the host's directory, in the container's mount namespace before the root was
/// changed: a later bind mount could take it from there. Seen: our own runtime without RESOLVE_IN_ROOT.
#[test]
fn cve_2021_30465_race_at_a_mount() {
    case(|| {
        let (mut bundle, outside, swapper) = swapped();
        for index in 0..8 {
            bundle.mount(&format!("/v/x/{index}"), "tmpfs", "tmpfs", &[]);
        }
        let log = bundle.directory.join("mountinfo");
        let script = format!("cat /proc/self/mountinfo >> {}", log.display());
        bundle.set("/hooks/createContainer", json!([{"path": busybox(), "args": ["sh", "-c", script]}]));
        let container = bundle.container();
        // Dropped before the bundle is removed, on a failure, too.
        let _swapper = swapper;
        let mut ran = 0;
        for _ in 0..rounds() {
            ran += usize::from(container.run().code() == 0);
            container.nothing_left();
        }
        let point = format!(" {}", outside.path.display());
        assert!(!text(&log).contains(&point), "a mount below the host's directory, in {ran} runs");
    });
}

/// CVE-2024-45310: the same race while the mount point is made: directories and files on the host. Seen: runc 1.1.5 in a
/// few of a hundred runs.
#[test]
fn cve_2024_45310_race_at_a_mount_point() {
    case(|| {
        let (mut bundle, outside, swapper) = swapped();
        for index in 0..8 {
            bundle.mount(&format!("/v/x/d{index}/e"), "tmpfs", "tmpfs", &[]);
            bundle.mount(&format!("/v/x/f{index}"), "bind", "rootfs/etc/passwd", &["bind"]);
        }
        let container = bundle.container();
        // Dropped before the bundle is removed, on a failure, too.
        let _swapper = swapper;
        for _ in 0..rounds() {
            container.run();
            outside.unchanged(&[]);
        }
    });
}

/// CVE-2024-45310 with devices of the configuration. Seen: runc 1.1.5.
#[test]
fn cve_2024_45310_race_at_a_device() {
    case(|| {
        let (mut bundle, outside, swapper) = swapped();
        let devices: Vec<_> = (0..8)
            .map(|index| json!({"path": format!("/v/x/n{index}"), "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}))
            .collect();
        bundle.set("/linux/devices", json!(devices));
        let container = bundle.container();
        // Dropped before the bundle is removed, on a failure, too.
        let _swapper = swapper;
        for _ in 0..rounds() {
            container.run();
            outside.unchanged(&[]);
        }
    });
}

// ---------------------------------------------------------------------------------------------- a false /proc or /dev

/// CVE-2019-16884: a volume over /proc, so that what the runtime writes to /proc goes to plain files.
#[test]
fn cve_2019_16884_volume_over_proc() {
    case(|| {
        let mut bundle = Bundle::new();
        let volume = bundle.directory.join("volume");
        fs::create_dir_all(volume.join("sys/net/ipv4")).unwrap();
        let file = volume.join("sys/net/ipv4/ip_forward");
        fs::write(&file, "untouched").unwrap();
        bundle.unmount("/proc");
        bundle.mount("/proc", "bind", volume.to_str().unwrap(), &["bind"]);
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        let (_container, _) = attempt(bundle);
        assert_eq!(text(file), "untouched");
    });
}

/// CVE-2019-16884 without a mount: files of the image that look like those of procfs get nothing, and what they stand for is
/// done. Labels: `lsm::apparmor_profile_past_a_false_proc`. Seen: with our own runtime, writing by paths.
#[test]
fn cve_2019_16884_false_proc_in_the_image() {
    case(|| {
        let mut bundle = Bundle::sh(crate::support::WAITING);
        let files =
            ["sys/net/ipv4/ip_forward", "self/oom_score_adj", "1/oom_score_adj", "self/setgroups", "self/status"]
                .map(|file| bundle.rootfs().join("proc").join(file));
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "untouched").unwrap();
        }
        bundle.unmount("/proc").set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).set("/process/oomScoreAdj", json!(321));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let pid = container.pid();
        assert_eq!(text(format!("/proc/{pid}/oom_score_adj")), "321\n");
        let inside = crate::support::Call::new(busybox()).args([
            "nsenter",
            "-t",
            &pid.to_string(),
            "-n",
            busybox().to_str().unwrap(),
        ]);
        assert_eq!(inside.args(["cat", "/proc/sys/net/ipv4/ip_forward"]).run().ok().stdout, "1\n");
        for file in &files {
            assert_eq!(text(file), "untouched", "{}", file.display());
        }
    });
}

/// CVE-2025-52881: the same with a part of /proc.
#[test]
fn cve_2025_52881_volume_over_a_part_of_proc() {
    case(|| {
        let mut bundle = Bundle::new();
        let volume = bundle.directory.join("volume");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("ip_forward"), "untouched").unwrap();
        bundle.mount("/proc/sys/net/ipv4", "bind", volume.to_str().unwrap(), &["bind"]);
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        let (_container, _) = attempt(bundle);
        assert_eq!(text(volume.join("ip_forward")), "untouched");
    });
}

/// CVE-2015-3630, CVE-2015-3631: volumes over parts of /proc that labels, limits and masks rely on. Seen: with our own
/// runtime, without the check of the destination.
#[test]
fn cve_2015_3631_no_volume_below_proc() {
    case(|| {
        let places = [
            "/proc/self",
            "/proc/1",
            "/proc/self/attr",
            "/proc/sys",
            "/proc/kcore",
            "/proc/../proc/tty",
            "/x/../proc/fs",
        ];
        for place in places {
            let mut bundle = Bundle::new();
            let volume = bundle.directory.join("volume");
            fs::create_dir_all(&volume).unwrap();
            bundle.mount(place, "bind", volume.to_str().unwrap(), &["bind"]);
            let container = bundle.container();
            container.run().fails();
            container.nothing_left();
        }
    });
}

/// CVE-2025-31133: files are masked with the container's /dev/null, which is something else. Seen: runc 1.1.5.
#[test]
fn cve_2025_31133_false_null_device() {
    case(|| {
        for kind in ["link", "file", "missing", "zero"] {
            let mut bundle = Bundle::sh("stat -c %t:%T /proc/timer_list > /result");
            let outside = Outside::new(&bundle);
            let dev = bundle.directory.join("dev");
            fs::create_dir(&dev).unwrap();
            let null = dev.join("null");
            match kind {
                "link" => symlink(outside.at("canary"), &null).unwrap(),
                "file" => fs::write(&null, "false").unwrap(),
                "zero" => mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).unwrap(),
                _ => {}
            }
            for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                bundle.unmount(mount);
            }
            bundle.mount("/dev", "bind", dev.to_str().unwrap(), &["bind"]);
            bundle.set("/linux/maskedPaths", json!(["/proc/timer_list"]));
            if !Path::new("/proc/timer_list").exists() {
                skip!("no /proc/timer_list");
            }
            let (container, output) = attempt(bundle);
            let result = text(container.bundle.rootfs().join("result"));
            assert!(output.code() != 0 || result == "1:3\n", "{kind}: {result} {output:?}");
            outside.unchanged(&[]);
        }
    });
}

/// CVE-2026-88265: what stands at /dev/null takes the place of the standard streams. Seen: crun 1.8.1.
#[test]
fn cve_2026_88265_false_null_device_and_streams() {
    case(|| {
        for kind in ["link", "link inside", "zero", "file"] {
            let mut bundle = Bundle::sh("echo written; stat -L -c %t:%T /proc/self/fd/0");
            let outside = Outside::new(&bundle);
            let dev = bundle.directory.join("dev");
            fs::create_dir(&dev).unwrap();
            match kind {
                "link" => symlink(outside.at("canary"), dev.join("null")).unwrap(),
                "link inside" => symlink("/etc/passwd", dev.join("null")).unwrap(),
                "zero" => {
                    mknod(&dev.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).unwrap();
                }
                _ => fs::write(dev.join("null"), "false").unwrap(),
            }
            for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                bundle.unmount(mount);
            }
            bundle.mount("/dev", "bind", dev.to_str().unwrap(), &["bind"]).set("/linux/maskedPaths", json!([]));
            let file = bundle.directory.join("stdout");
            let container = bundle.container();
            let call = container.call_bundle("create", &[]).stdout(fs::File::create(&file).unwrap());
            if call.run().code() == 0 {
                let pid = container.pid();
                container.start().ok();
                crate::support::wait_for_end(pid);
                assert_eq!(text(&file), "written\n1:3\n", "{kind}");
            }
            outside.unchanged(&[]);
            assert!(kind != "file" || text(dev.join("null")) == "false", "{kind}");
        }
    });
}

/// CVE-2025-52565, CVE-2026-88264: /dev/console is a link. Seen: runc 1.1.5, crun 1.8.1.
#[test]
fn cve_2025_52565_console_is_a_link() {
    case(|| {
        for target in ["/proc/sys/kernel/core_pattern", "newfile", "canary"] {
            let mut bundle = Bundle::sh("grep -c core_pattern /proc/self/mountinfo > /count; :");
            let outside = Outside::new(&bundle);
            let target = if target.starts_with('/') { PathBuf::from(target) } else { outside.at(target) };
            for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                bundle.unmount(mount);
            }
            symlink(&target, bundle.rootfs().join("dev/console")).unwrap();
            bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
            bundle.set("/process/terminal", json!(true)).set("/linux/readonlyPaths", json!([]));
            let container = bundle.container();
            if crate::tty::create_with_console(&container).is_some() {
                let pid = container.pid();
                container.start();
                crate::support::wait_for_end(pid);
                let count = text(container.bundle.rootfs().join("count"));
                assert!(["", "0\n"].contains(&count.as_str()), "a terminal over core_pattern: {count}");
            }
            outside.unchanged(&[]);
        }
    });
}

// ---------------------------------------------------------------------------------------------- descriptors

/// CVE-2024-21626: a directory of the host that the runtime has open, as cwd or on the way to the program. With
/// directories that the caller left open. Seen: with an older runtime.
#[test]
fn cve_2024_21626_descriptor_of_the_host() {
    case(|| {
        for descriptor in 3..=9 {
            for attack in ["cwd", "program"] {
                let mut bundle = Bundle::new();
                let outside = Outside::new(&bundle);
                fs::hard_link(bundle.rootfs().join("bin/busybox"), outside.at("cat")).unwrap();
                let here = format!("/proc/self/fd/{descriptor}");
                if attack == "cwd" {
                    bundle.set("/process/cwd", json!(here)).args(&["cat", "canary"]);
                } else {
                    let program = format!("{here}/cat");
                    bundle.args(&[&program, "/etc/passwd"]);
                }
                let container = bundle.container();
                let outside = outside.path.display();
                let open = (3..=9).map(|fd| format!(" {fd}<{outside}")).collect::<String>();
                let call = container.call_bundle("run", &[]);
                let output = call.below(["sh", "-c", &format!("exec{open}; exec \"$@\""), "sh"]).run();
                assert!(output.code() != 0, "{attack} {descriptor}: {output:?}");
                assert!(!output.stdout.contains("canary") && !output.stdout.contains("root"), "{output:?}");
            }
        }
    });
}

/// CVE-2019-5736 and CVE-2016-9962: a process of the container opens the runtime while it is there as pid 1.
#[test]
fn cve_2019_5736_runtime_as_pid_1_cannot_be_opened() {
    case(|| {
        let (first, _io) = Container::created(crate::support::WAITING);
        let script = "for f in exe cwd/x root/bin/sh fd/3 mem maps; do head -c 1 /proc/1/$f > /dev/null 2>&1 && echo opened $f; done; \
                      echo end";
        let mut bundle = Bundle::sh(script);
        bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", first.pid())));
        // All that a container has by default in Docker; CAP_SYS_PTRACE is not among it.
        bundle.capabilities(&[
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_MKNOD",
        ]);
        let second = bundle.container();
        let output = second.run().ok();
        assert_eq!(output.stdout, "end\n");
    });
}

/// CVE-2019-5736, the entry point: a script whose interpreter is /proc/self/exe executes the runtime itself.
#[test]
fn cve_2019_5736_entry_point_is_the_runtime() {
    case(|| {
        let bundle = Bundle::new();
        let copy = bundle.directory.join("copy-of-the-runtime");
        crate::support::copy_program(crate::support::runtime(), &copy);
        let before = fs::read(&copy).unwrap();
        let mut bundle = bundle;
        write_program(bundle.rootfs().join("evil"), "#!/proc/self/exe\n");
        bundle.args(&["/evil"]).set("/linux/maskedPaths", json!([]));
        let container = bundle.container();
        container.bundle.write();
        let root = container.root();
        let call = crate::support::Call::new(&copy).args(["--root".as_ref(), root.as_os_str()]);
        let output = call.args(["run", &container.id]).cwd(&container.bundle.directory).run();
        assert!(output.code() != 0, "{output:?}");
        assert!(fs::read(&copy).unwrap() == before, "the runtime was changed");
    });
}

/// CVE-2017-5226, CVE-2016-10124: TIOCSTI into the caller's terminal. Init leads a session that has none.
/// Seen: our own runtime without setsid(2).
#[test]
fn cve_2017_5226_no_terminal_of_the_caller() {
    case(|| {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::openat(CWD, name, flags, rustix::fs::Mode::empty()).unwrap();
        let container =
            Bundle::sh("cut -d' ' -f6,7 /proc/1/stat > /stat; (: < /dev/tty) && echo tty >> /stat; :").container();
        container.call_bundle("run", &[]).on_terminal(&slave).run().ok();
        assert_eq!(text(container.bundle.rootfs().join("stat")), "1 0\n");
    });
}

// ---------------------------------------------------------------------------------------------- others

/// CVE-2025-23266: a hook, a program of the host, with variables of the image. Seen: runc 1.1.5.
#[test]
fn cve_2025_23266_hooks_do_not_get_the_images_variables() {
    case(|| {
        let mut bundle = Bundle::new();
        let log = bundle.directory.join("log");
        let hook = json!([{"path": busybox(), "args": ["sh", "-c", format!("cat /proc/self/environ >> {}; pwd >> {0}", log.display())]}]);
        bundle.set("/process/env/-", json!("EVIL_LD_PRELOAD=./evil.so"));
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            bundle.set(&format!("/hooks/{name}"), hook.clone());
        }
        let container = bundle.container();
        container.run().ok();
        // Without the log in the message: it is the caller's environment.
        let log = text(&log);
        assert!(log.contains('/'), "no hook was run");
        assert!(!log.contains("EVIL"), "a variable of the container's process reached a hook");
    });
}

/// CVE-2022-29162 and its kind: inheritable capabilities that nobody asked for.
/// Seen: our own runtime, when what is permitted was inheritable.
#[test]
fn cve_2022_29162_no_inheritable_capabilities() {
    case(|| {
        for uid in [0, 1000] {
            let mut bundle = Bundle::new();
            bundle.args(&["grep", "-E", "CapInh|CapAmb", "/proc/self/status"]).set("/process/user/uid", json!(uid));
            let (_container, output) = attempt(bundle);
            let zero = "0000000000000000";
            assert_eq!(output.ok().stdout, format!("CapInh:\t{zero}\nCapAmb:\t{zero}\n"));
        }
    });
}

/// CVE-2024-40635: a number that is no uid must not become root's. Seen: with an older runtime.
#[test]
fn cve_2024_40635_no_number_becomes_root() {
    case(|| {
        for number in [1_u64 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 63, u64::MAX] {
            for name in ["uid", "gid"] {
                let mut bundle = Bundle::new();
                bundle.args(&["id", if name == "uid" { "-u" } else { "-g" }]);
                bundle.set(&format!("/process/user/{name}"), json!(number));
                let (_container, output) = attempt(bundle);
                assert!(
                    output.code() != 0 || output.stdout.trim() == number.to_string(),
                    "{name} {number}: {output:?}"
                );
            }
        }
    });
}

/// CVE-2022-0492: release_agent of a v1 hierarchy that is mounted read-only.
/// Seen: our own runtime, when `ro` had no effect.
#[test]
fn cve_2022_0492_release_agent() {
    case(|| {
        if cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let script = "cd /sys/fs/cgroup; for d in */; do for f in release_agent notify_on_release cgroup.procs tasks; do \
                      (echo 0 > $d/$f) 2>/dev/null && echo wrote $d/$f; done; mkdir $d/x 2>/dev/null && echo made $d/x; done; echo end";
        let mut bundle = Bundle::sh(script);
        bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_CHOWN"]);
        let (_container, output) = attempt(bundle);
        assert_eq!(output.ok().stdout, "end\n");
    });
}

/// CVE-2024-25621: modes of directories and files, which hold the variables of a container, whatever the umask.
/// Seen: our own runtime with modes 777 and 666.
#[test]
fn cve_2024_25621_state_is_not_for_others() {
    case(|| {
        fn walk(path: &Path, wrong: &mut Vec<String>) {
            let Ok(metadata) = fs::symlink_metadata(path) else { return };
            if metadata.permissions().mode() & 0o044 != 0 && !metadata.is_symlink() {
                wrong.push(format!("{} {:o}", path.display(), metadata.permissions().mode()));
            }
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                walk(&entry.path(), wrong);
            }
        }
        let container = Bundle::sh(crate::support::WAITING).container();
        let call = container.call_bundle("create", &[]).below(["sh", "-c", "umask 0; exec \"$@\"", "sh"]);
        let (call, _io) = with_io(call);
        call.run().ok();
        let mut wrong = Vec::new();
        walk(&container.root(), &mut wrong);
        assert!(wrong.is_empty(), "readable by others: {wrong:?}");
    });
}

/// CVE-2021-43784: mappings so long that a 16-bit length wrapped, and their end was taken for something else.
#[test]
fn cve_2021_43784_many_mappings() {
    case(|| {
        let mut bundle = Bundle::new();
        let map: Vec<_> = (0..9000).map(|i| json!({"containerID": i, "hostID": 100_000 + i, "size": 1})).collect();
        bundle.namespace("user", None).set("/linux/uidMappings", json!(map)).set("/linux/gidMappings", json!(map));
        let container = bundle.container();
        container.create().fails();
        container.nothing_left();
    });
}

/// CVE-2022-0811: a value with a second line is no second setting, and the setting gets no other name by it.
#[test]
fn cve_2022_0811_sysctl_value_is_one_value() {
    case(|| {
        let pattern = text("/proc/sys/kernel/core_pattern");
        let mut bundle = Bundle::new();
        bundle.set(
            "/linux/sysctl",
            json!({"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/evil\nkernel.core_pattern=|/evil"}),
        );
        let (_container, _) = attempt(bundle);
        assert_eq!(text("/proc/sys/kernel/core_pattern"), pattern);
    });
}

/// The null device that covers a masked file is the host's: its mode, owner and times are not the container's to change.
#[test]
fn a_mask_is_no_way_to_the_hosts_null_device() {
    case(|| {
        let before = fs::metadata("/dev/null").unwrap();
        let script = "f=/proc/version; chmod 0600 $f; chown 7:7 $f; touch -d 2001-01-01 $f; \
                      echo x > $f && cat $f && echo readable";
        let printed = inside(script, |bundle| {
            bundle.set("/linux/maskedPaths", json!(["/proc/version"]));
            bundle.capabilities(&["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        });
        let after = fs::metadata("/dev/null").unwrap();
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert_eq!(after.mtime(), before.mtime());
        assert!(!ours() || printed == "readable\n", "{printed}");
    });
}

/// CVE-2019-16884 under another name: what counts is where a path leads, not how it begins.
#[test]
fn a_link_into_proc_whose_name_begins_with_proc() {
    case(|| {
        let mut bundle = Bundle::sh("true");
        fs::create_dir_all(bundle.rootfs().join("proc")).unwrap();
        symlink("proc/sys", bundle.rootfs().join("procsys")).unwrap();
        let source = bundle.directory.join("source");
        fs::create_dir(&source).unwrap();
        bundle.mount("/procsys", "none", source.to_str().unwrap(), &["rbind", "rw"]);
        let container = bundle.container();
        let output = container.run();
        assert!(!ours() || output.code() != 0, "{output:?}");
    });
}
