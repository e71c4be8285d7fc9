//! A container exchanges directories for links, as fast as it can, while others are made over the same files. Nothing may be
//! made, mounted or changed outside of the root file system. `make hostile` goes round a thousand times. Seen: runc 1.1.5, and our
//! own runtime without RESOLVE_IN_ROOT.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::support::{Bundle, Container, Io, busybox, case, copy_program, mount_points, say, scale, text};

/// Not a test by itself: what runs in the container. Exchanges each `path` and `path.link`.
#[test]
#[ignore = "a part of the tests of races"]
fn swapper() {
    let Ok(paths) = std::env::var("SWAP") else { return };
    let paths: Vec<&str> = paths.split(':').collect();
    println!("\nready");
    loop {
        for path in &paths {
            let _ = renameat_with(CWD, *path, CWD, format!("{path}.link"), RenameFlags::EXCHANGE);
        }
    }
}

/// A container that exchanges these until it is gone. Each gets a link to go with it, out of its root in one of several ways.
fn swapping(bundle: Bundle, below: &str, root: &Path, paths: &[&str], outside: &Path) -> (Container, Io) {
    let up = "../".repeat(20);
    let targets = [
        outside.display().to_string(),
        format!("{up}{}", outside.display()),
        format!("/proc/1/root{}", outside.display()),
        format!("/proc/self/cwd/{up}{}", outside.display()),
    ];
    for (path, target) in paths.iter().zip(targets.iter().cycle()) {
        fs::create_dir_all(root.join(path)).unwrap();
        symlink(target, root.join(format!("{path}.link"))).unwrap();
    }
    let mut bundle = bundle;
    copy_program(std::env::current_exe().unwrap(), bundle.rootfs().join("bin/swapper"));
    let own = ["swapper", "--exact", "hostile::races::swapper", "--ignored", "--nocapture", "--test-threads=1"];
    let paths: Vec<String> = paths.iter().map(|path| format!("{below}/{path}")).collect();
    bundle.args(&own).set("/process/env", json!(["PATH=/bin", format!("SWAP={}", paths.join(":"))]));
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    io.stdout.until("\nready\n");
    (container, io)
}

/// All that is below a directory: names, kinds, sizes, modes, owners, times and contents.
fn everything(directory: &Path) -> BTreeSet<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let contents = if metadata.is_file() { text(entry.path()) } else { String::new() };
        let (mode, owner, path) = (metadata.mode(), metadata.uid(), entry.path());
        found.insert(format!("{} {mode:o} {owner} {modified:?} {contents}", path.display()));
        if metadata.is_dir() {
            found.extend(everything(&path));
        }
    }
    found
}

/// A directory of the host, with what the links could reach of it.
fn outside(bundle: &Bundle) -> std::path::PathBuf {
    let outside = bundle.directory.join("outside");
    for directory in ["a/b", "pts", "shm", "sys/net/ipv4", "1", "kernel"] {
        fs::create_dir_all(outside.join(directory)).unwrap();
    }
    for file in ["canary", "null", "console", "secret", "f", "passwd", "sys/net/ipv4/ip_forward"] {
        fs::write(outside.join(file), "canary").unwrap();
    }
    outside
}

/// What a link at /proc or /sys makes impossible is not reached then: so these by themselves.
#[test]
fn containers_over_a_root_that_changes() {
    case(|| {
        over(&["dev", "etc", "place/a", "v/x"], scale().div_ceil(5));
        over(&["proc", "sys", "dev"], scale().div_ceil(10));
    });
}

/// Makes containers over files of which these change.
fn over(swapped: &[&str], rounds: usize) {
    let mut bundle = Bundle::sh("echo ran; cat etc/secret x/secret /v/x/secret 2> /dev/null; pwd");
    let outside = outside(&bundle);
    let before = everything(&outside);
    let rootfs = bundle.rootfs();
    fs::write(rootfs.join("etc/secret"), "hidden\n").unwrap();
    let log = bundle.directory.join("mountinfo");
    let script = format!("cat /proc/self/mountinfo >> {}; echo end >> {0}", log.display());
    bundle.set("/hooks/createContainer", json!([{"path": busybox(), "args": ["sh", "-c", script]}]));
    bundle.mount("/v/x/1", "tmpfs", "tmpfs", &[]).mount("/v/x/f", "bind", "rootfs/bin/busybox", &["bind"]);
    bundle.mount("/v/x/d/e", "bind", "rootfs/bin", &["rbind", "ro"]);
    bundle.set("/linux/devices", json!([{"path": "/v/x/n", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]));
    bundle.set("/linux/maskedPaths", json!(["/etc/secret", "/v/x/secret", "/proc/keys", "/sys/firmware"]));
    bundle.set("/linux/readonlyPaths", json!(["/etc", "/v/x", "/proc/sys"]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).set("/process/cwd", json!("/place/a/b"));
    let mut swapper = Bundle::new();
    swapper.mount("/shared", "bind", rootfs.to_str().unwrap(), &["bind", "rw"]);
    let (swapper, _io) = swapping(swapper, "/shared", &rootfs, swapped, &outside);
    let container = bundle.container();
    // Without those of other tests, which come and go.
    let own = container.bundle.directory.clone();
    let points = |mountinfo: Option<&str>| {
        let mut points = mount_points(mountinfo);
        points.retain(|point| !point.contains("/runtime-test-") || Path::new(point).starts_with(&own));
        points
    };
    let hosts = points(None);
    let mut ran = 0;
    for _ in 0..rounds {
        let output = container.run();
        assert!(output.code() < 128, "{output:?}");
        assert!(!output.stdout.contains("canary"), "{output:?}");
        ran += usize::from(output.stdout.starts_with("ran\n"));
        container.nothing_left();
        assert_eq!(everything(&outside), before, "changed outside of the root file system");
    }
    swapper.stop();
    assert_eq!(points(None), hosts, "mounts of the host");
    // In the container's mount namespace, before the root is changed: what is not of the host is in the root.
    let logged = text(&log);
    for mountinfo in logged.split("end\n").filter(|text| !text.is_empty()) {
        let mut strange = points(Some(mountinfo));
        strange.retain(|point| !hosts.contains(point) && !Path::new(point).starts_with(&rootfs));
        assert!(strange.is_empty(), "mounts outside of the root file system: {strange:?}");
    }
    let hooks = logged.matches("end\n").count();
    say(&format!("RACES at {swapped:?}: {rounds} containers, {hooks} mounted all, {ran} ran"));
}
