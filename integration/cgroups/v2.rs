//! What only the unified hierarchy has: controllers that are given on, threads, delegation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{Bundle, Call, Container, WAITING, case, cgroup_parent, cgroup_v2, ours, skip, systemd, text};

const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup of the test's own, removed on drop with what the test has made in it.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let name = format!("group-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(MOUNT).join(&cgroup_parent()[1..]).join(name);
        fs::create_dir_all(&path).unwrap();
        let parent = path.parent().unwrap();
        for name in text(parent.join("cgroup.controllers")).split_whitespace() {
            fs::write(parent.join("cgroup.subtree_control"), format!("+{name}")).unwrap();
        }
        Self(path)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// What config.json calls a cgroup below this one.
    fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.0.display()).strip_prefix(MOUNT).unwrap().to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|e| remove(&e.path()));
            let _ = fs::remove_dir(dir);
        }
        remove(&self.0);
    }
}

fn container_at(path: &str, memory: Option<u64>) -> Container {
    let mut bundle = Bundle::sh(WAITING);
    bundle.set("/linux/cgroupsPath", json!(path));
    if let Some(limit) = memory {
        bundle.set("/linux/resources/memory", json!({"limit": limit}));
    }
    bundle.container()
}

#[test]
fn a_threaded_subtree_is_refused() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        // In this order: what is made in a threaded subtree later on is invalid until it is threaded, too.
        fs::write(group.make("threaded").join("cgroup.type"), "threaded").unwrap();
        group.make("invalid");
        for (path, place, state) in [
            ("new", "", "domain threaded mode"),
            ("threaded", "/threaded", "threaded mode"),
            ("threaded/new", "/threaded", "threaded mode"),
            ("invalid", "/invalid", "an invalid state"),
            ("invalid/new/er", "/invalid", "an invalid state"),
        ] {
            let before = group.0.join(path).exists();
            let output = container_at(&group.path(path), Some(64 << 20)).create().fails();
            let text = format!(
                "linux.cgroupsPath: cannot enter cgroupv2 \"{}{place}\" with domain controllers -- it is in {state}\n",
                group.0.display()
            );
            assert!(!ours() || output.stderr.starts_with(&text), "{}", output.stderr);
            assert!(output.stderr.contains("cannot enter cgroupv2 "), "{}", output.stderr);
            assert_eq!(group.0.join(path).exists(), before, "{path}");
        }
    });
}

#[test]
fn a_parent_with_processes_gives_no_controllers() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        let other = Call::sh("sleep 1000").spawn();
        fs::write(group.0.join("cgroup.procs"), other.pid().to_string()).unwrap();

        let limited = container_at(&group.path("limited"), Some(64 << 20));
        let output = limited.create().fails();
        let hint = format!(
            "hint: cgroup {} has processes of its own and so cannot give controller \"memory\" to those below it: \
             move them into a cgroup below it, or choose another linux.cgroupsPath",
            group.0.display()
        );
        let field = "linux.resources.memory.limit: write \"67108864\" to ";
        assert!(!ours() || output.stderr.starts_with(field) && output.stderr.contains(&hint), "{}", output.stderr);
        limited.nothing_left();
        assert!(!group.0.join("limited").exists());

        if ours() {
            // With some of them the cgroup would be the root of a threaded subtree, and the one below it closed.
            assert_eq!(text(group.0.join("cgroup.subtree_control")), "");
            assert_eq!(text(group.0.join("cgroup.type")), "domain\n");
            let container = container_at(&group.path("free"), None);
            let mut io = container.create_io();
            container.start().ok();
            assert_eq!(io.stdout.next(), "ready");
            assert_eq!(text(group.0.join("free/cgroup.procs")).trim(), container.pid().to_string());
            container.command(&["delete", "--force"], &[]).ok();
        }
    });
}

#[test]
fn controllers_are_given_down_to_the_container() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        let container = container_at(&group.path("given/to"), Some(64 << 20));
        container.create().ok();
        assert_eq!(text(group.0.join("given/to/memory.max")), "67108864\n");
        let given = text(group.0.join("given/cgroup.subtree_control"));
        for name in ["cpu", "memory", "pids"] {
            assert!(given.split_whitespace().any(|one| one == name), "{name}: {given}");
        }
        // Not for what is below the container: a cgroup with processes gives none.
        assert_eq!(text(group.0.join("given/to/cgroup.subtree_control")), "");
    });
}

// ---------------------------------------------------------------------------------------------- delegation

/// A container that may write to its cgroup, in a cgroup namespace of its own.
fn writable(script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    bundle.unmount("/sys/fs/cgroup").namespace("cgroup", None);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    bundle
}

/// In a user namespace whose root is the host's user 100000.
fn mapped(mut bundle: Bundle) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle
}

/// The owner of a container's cgroup, and the names of the files in it that are not root's.
fn owners(container: &Container) -> (u32, Vec<String>) {
    use std::os::unix::fs::MetadataExt;
    let dir = container.cgroup("").unwrap();
    let mut given = Vec::new();
    for entry in fs::read_dir(&dir).unwrap().flatten().filter(|entry| entry.metadata().unwrap().uid() != 0) {
        given.push(entry.file_name().into_string().unwrap());
    }
    given.sort();
    (fs::metadata(&dir).unwrap().uid(), given)
}

/// What the kernel says may be given away, of what a cgroup has.
fn delegated(container: &Container) -> Vec<String> {
    let dir = container.cgroup("").unwrap();
    let list = text("/sys/kernel/cgroup/delegate");
    let mut names: Vec<String> = list.lines().filter(|name| dir.join(name).exists()).map(str::to_owned).collect();
    names.sort();
    assert!(names.iter().any(|name| name == "cgroup.procs"), "{list}");
    names
}

#[test]
fn the_cgroup_belongs_to_the_containers_user_where_it_can_write_there() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let mut read_only = mapped(writable("true"));
        read_only.unmount("/sys/fs/cgroup");
        read_only.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
        let mut inherited = mapped(writable("true"));
        inherited.no_namespace("cgroup");
        let mut not_mounted = mapped(writable("true"));
        not_mounted.unmount("/sys/fs/cgroup");
        let mut user = mapped(writable("true"));
        user.set("/process/user", json!({"uid": 7, "gid": 7}));
        let mut users_own = writable("true");
        users_own.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        for (what, bundle, owner) in [
            ("root of a user namespace", mapped(writable("true")), 100_000),
            ("a user of a user namespace", user, 100_007),
            ("a user of the host", users_own, 1000),
            ("root of the host", writable("true"), 0),
            ("the mount is read-only", read_only, 0),
            ("no cgroup namespace", inherited, 0),
            ("no mount", not_mounted, 0),
        ] {
            let container = bundle.container();
            container.create().ok();
            let expected = if owner == 0 { Vec::new() } else { delegated(&container) };
            assert_eq!(owners(&container), (owner, expected), "{what}");
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn files_to_give_away_where_the_kernel_does_not_list_them() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let mut bundle = writable("true");
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        let container = bundle.container();
        let hide = "mount -t tmpfs none /sys/kernel/cgroup && exec \"$@\"";
        container.call_bundle("create", &[]).below(["unshare", "-m", "sh", "-c", hide, "sh"]).run().ok();
        let files = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].map(str::to_owned).to_vec();
        assert_eq!(owners(&container), (1000, files));
    });
}

#[test]
fn a_cgroup_that_stays_keeps_its_owner() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let group = Group::new();
        let mut bundle = mapped(writable("true"));
        bundle.set("/linux/cgroupsPath", json!(group.path("")));
        let container = bundle.container();
        container.create().ok();
        assert!(!ours() || owners(&container) == (0, Vec::new()), "{:?}", owners(&container));
    });
}

/// Opens a device that no driver answers to: EPERM is the cgroup's word, ENXIO the kernel's when the cgroup lets it through.
const OPENS: &str = ": < /dev/nobody";

fn with_devices(path: &str, allow: bool, script: &str) -> Container {
    let mut bundle = Bundle::sh(script);
    bundle.set("/linux/cgroupsPath", json!(path));
    bundle.set("/linux/devices", json!([{"path": "/dev/nobody", "type": "c", "major": 11, "minor": 250}]));
    bundle.set("/linux/resources/devices", json!([{"allow": allow, "access": "rwm"}]));
    bundle.container()
}

#[test]
fn a_cgroup_that_stays_keeps_no_device_rules() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        if !ours() {
            skip!("another runtime removes the cgroup");
        }
        let group = Group::new();
        let path = group.path("");
        let of = |allow| with_devices(&path, allow, OPENS).run().stderr;
        // Deleted, and not yet deleted when the next comes.
        let mut ended = Vec::new();
        for _ in 0..3 {
            assert!(of(false).contains("not permitted"));
            let container = with_devices(&path, false, "true");
            container.call_bundle("run", &["--keep"]).run().ok();
            ended.push(container);
        }
        assert!(of(true).contains("No such device or address"));
        // The last step fails: what `create` has attached is taken back.
        with_devices(&path, false, "true").call_bundle("create", &["--pid-file", "/proc/nosuch"]).run().fails();
        assert!(of(true).contains("No such device or address"));
        // The rules of a container that has the cgroup by now stay when an earlier one is deleted.
        let denied = with_devices(&path, false, WAITING);
        let _io = denied.create_io();
        denied.start().ok();
        ended.iter().for_each(|container| drop(container.command(&["delete"], &[]).ok()));
        let output = denied.command(&["exec"], &["sh", "-c", OPENS]).fails();
        assert!(output.stderr.contains("not permitted"), "{}", output.stderr);
    });
}

/// Makes a cgroup, moves into it, gives it a controller and a limit; then tries what must not be.
const MANAGES: &str = "cd /sys/fs/cgroup && mkdir child && echo $$ > child/cgroup.procs && \
    echo +pids > cgroup.subtree_control && echo 5 > child/pids.max && cat child/pids.max cgroup.subtree_control; \
    for file in memory.max pids.max cgroup.freeze; do (echo max > $file) 2>/dev/null && echo wrote $file; done; \
    (echo $$ > /mnt/cgroup.procs) 2>/dev/null && echo left; cat /proc/self/cgroup";

#[test]
fn a_delegated_cgroup_is_managed_inside_and_not_left() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        // Without a user namespace it is the mount option that keeps limits (and processes) in their place.
        let nsdelegate =
            || text("/proc/self/mountinfo").lines().any(|l| l.contains("cgroup2") && l.contains("nsdelegate"));
        assert!(nsdelegate(), "the host's cgroups are mounted without nsdelegate");
        for bundle in [mapped(writable(MANAGES)), writable(MANAGES)] {
            let mut bundle = bundle;
            // The cgroup above, from which and into which no process may be moved.
            let above = Path::new(MOUNT).join(&cgroup_parent()[1..]);
            fs::create_dir_all(&above).unwrap();
            bundle.mount("/mnt", "bind", above.to_str().unwrap(), &["bind"]);
            let output = bundle.container().run().ok();
            assert_eq!(output.stdout, "5\npids\n0::/child\n", "{}", output.stderr);
        }
        assert!(nsdelegate(), "a container has changed the options of the host's mount");
    });
}

#[test]
fn a_joined_cgroup_namespace_of_the_host_leaves_its_mount_as_it_is() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let options = || text("/proc/self/mountinfo").lines().find(|line| line.contains("cgroup2")).unwrap().to_owned();
        let before = options();
        let mut bundle = writable("cat /sys/fs/cgroup/cgroup.procs");
        bundle.namespace("cgroup", Some("/proc/self/ns/cgroup"));
        let output = bundle.container().run().ok();
        assert_eq!(options(), before);
        // It sees its own cgroup, and not all of the host's.
        assert!(!ours() || output.stdout == "1\n", "{}", output.stdout);
    });
}
