//! An ordinary user runs the runtime: what they may do, and what they are told where the kernel says no.
//!
//! Where root runs the tests, the user is made up, and has no right to any cgroup. Where an ordinary user does
//! (`make guest-rootless`), it is that user, in a cgroup that is delegated to them; what root would have to prepare is skipped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::seccomp_notify::{self, Agent};
use crate::support::{
    Bundle, Call, Container, WAITING, busybox, case, cgroup_parent, cgroup_v2, controller, hierarchies, ours, peer,
    runtime, skip, text, with_io, write_program,
};

/// A group besides the user's own.
const GROUP: u32 = 64_400;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of these tests. Root's is in no file of the host.
fn user() -> u32 {
    if is_root() { 64_321 } else { rustix::process::geteuid().as_raw() }
}

/// Their ids of /etc/subuid and /etc/subgid, in the namespaces where they have some.
fn first() -> u32 {
    if is_root() { 700_000 } else { 100_000 }
}

/// Ends a test that root has to prepare.
macro_rules! needs_root {
    () => {
        if !is_root() {
            skip!("root prepares it");
        }
    };
}

/// What `spec --rootless` writes, of a shell script.
pub(crate) fn rootless(script: &str) -> Bundle {
    let bundle = of(user(), script);
    give(&bundle.directory);
    bundle
}

/// The same, of another user.
pub(crate) fn of(user: u32, script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    bundle.user = Some(user);
    bundle.remove("/linux/resources").no_namespace("network").namespace("user", None);
    for kind in ["uid", "gid"] {
        bundle.set(&format!("/linux/{kind}Mappings"), json!([{"containerID": 0, "hostID": user, "size": 1}]));
    }
    bundle.unmount("/sys").unmount("/sys/fs/cgroup").unmount("/dev/pts");
    bundle.mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    bundle.mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    bundle
}

/// Makes the directories of a tree the user's: mount points are made in them.
fn give(directory: &Path) {
    chown(directory, Some(user()), Some(user())).unwrap();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give(&entry.path());
        }
    }
}

/// A call of the user after what root has prepared in a mount namespace of its own, where the user has a name, a group
/// and sub-ids. In `prepare`, `$1` is an empty directory for its use.
fn prepared(container: &Container, call: Call, prepare: &str) -> Call {
    if !is_root() {
        assert_eq!(prepare, ":", "root has prepared nothing else");
        return call;
    }
    let directory = container.bundle.directory.join("prepared");
    for place in ["etc", "free"] {
        fs::create_dir_all(directory.join(place)).unwrap();
    }
    let (user, first) = (user(), first());
    let ranges = format!("user:{first}:1000\n");
    let passwd = format!("root:x:0:0::/:/bin/sh\nuser:x:{user}:{user}::/:/bin/sh\n");
    let group = format!("root:x:0:\nuser:x:{user}:\nextra:x:{GROUP}:user\n");
    for (name, text) in [("passwd", &passwd), ("group", &group), ("subuid", &ranges), ("subgid", &ranges)] {
        fs::write(directory.join("etc").join(name), text).unwrap();
    }
    let script = format!(
        "mount --make-rprivate / && for f in passwd group subuid subgid; do \
         if [ -e /etc/$f ]; then mount --bind $0/etc/$f /etc/$f || exit 9; fi; done; \
         set -e; shell=$1; shift; p() {{ {prepare}\n}}; p \"$0/free\"; exec {su} \"$shell\" -- user -c 'exec \"$0\" \"$@\"' \"$@\"",
        su = format_args!("{} su -p -s", busybox().display()),
    );
    let shell = container.bundle.rootfs().join("bin/sh");
    call.root().below([
        "unshare".as_ref(),
        "-m".as_ref(),
        busybox().as_os_str(),
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        directory.as_os_str(),
        shell.as_os_str(),
    ])
}

fn run_prepared(container: &Container, prepare: &str) -> crate::support::Output {
    prepared(container, container.call_bundle("run", &[]), prepare).run()
}

/// Whether users may map the ids that root has granted to them.
fn has_tools() -> bool {
    Path::new("/usr/bin/newuidmap").exists()
}

/// Maps root to the user, and 1 to 999 to what /etc/subuid grants.
fn map_ranges(bundle: &mut Bundle) {
    for kind in ["uid", "gid"] {
        let own = json!({"containerID": 0, "hostID": user(), "size": 1});
        let range = json!({"containerID": 1, "hostID": first(), "size": 999});
        bundle.set(&format!("/linux/{kind}Mappings"), json!([own, range]));
    }
}

// ---------------------------------------------------------------------------------------------- as it comes

#[test]
fn a_user_runs_what_spec_writes() {
    case(|| {
        let mut container = rootless("").container();
        container.call(["spec", "--rootless"]).run().ok();
        let config = text(container.bundle.directory.join("config.json"));
        container.bundle.config = serde_json::from_str(&config).unwrap();
        container.bundle.set("/process/terminal", json!(false));
        container
            .bundle
            .script("id -u; cat /proc/self/uid_map /proc/self/setgroups; echo x > /dev/null; touch /dev/shm/x");
        let output = container.run().ok().stdout;
        let words: Vec<_> = output.split_whitespace().collect();
        assert_eq!(words, ["0", "0", &user().to_string(), "1", "deny"]);
    });
}

#[test]
fn state_is_in_the_users_directory() {
    case(|| {
        for name in if ours() { vec!["runtime", "runc"] } else { vec![peer()] } {
            let container = rootless("true").container();
            container.bundle.write();
            let (programs, directory) = (container.root().join("bin"), container.root().join("xdg"));
            fs::create_dir_all(&programs).unwrap();
            fs::create_dir(&directory).unwrap();
            give(&container.root());
            symlink(runtime(), programs.join(name)).unwrap();
            let call = |args: &[&str]| {
                let call = Call::new(programs.join(name)).args(args).cwd(&container.bundle.directory).user(user());
                call.env("XDG_RUNTIME_DIR", &directory)
            };
            call(&["create", &container.id]).run().ok();
            let root = directory.join(name);
            assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o1700);
            assert!(root.join(&container.id).is_dir());
            // Who has become root in a user namespace is still the user, unless their name is root's.
            for (name, listed) in [("alice", true), ("root", false)] {
                let inside = call(&["list", "-q"]).env("USER", name).below(["unshare", "-Ur"]).run();
                assert_eq!(inside.stdout.contains(&container.id), listed, "{name}: {}", inside.stdout);
                // The host's own directory may be there, and is closed to them.
                assert!(inside.code() == 0 || !listed && inside.stderr.contains(" /run/"), "{}", inside.stderr);
            }
            call(&["delete", "--force", &container.id]).run().ok();
            assert!(!root.join(&container.id).exists());
        }
    });
}

#[test]
fn without_a_directory_the_cure_is_named() {
    case(|| {
        let container = rootless("true").container();
        container.bundle.write();
        let call = Call::new(runtime()).args(["run", &container.id]).cwd(&container.bundle.directory).user(user());
        let output = call.env("XDG_RUNTIME_DIR", "").run().fails();
        assert!(output.stderr.contains("permission denied (EACCES)\nhint: XDG_RUNTIME_DIR"), "{}", output.stderr);
    });
}

#[test]
fn the_life_of_a_container() {
    case(|| {
        let container = rootless(WAITING).container();
        let (call, mut io) = with_io(container.call_bundle("create", &[]));
        call.run().ok();
        assert_eq!(container.status(), "created");
        // Of the user's own variables there is nothing to be seen.
        let script = "tr -d '\\0' < /proc/1/environ; id -u";
        assert_eq!(container.command(&["exec"], &["sh", "-c", script]).ok().stdout, "0\n");
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        assert_eq!(container.status(), "running");
        assert_eq!(fs::metadata(format!("/proc/{}", container.pid())).unwrap().uid(), user());
        assert_eq!(container.command(&["exec"], &["sh", "-c", "id -u; echo x > /dev/null"]).ok().stdout, "0\n");
        let listed = container.call(["list", "--format", "json"]).run().ok().stdout;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        // The guest's has a name.
        let owner = if is_root() { format!("#{}", user()) } else { "user".to_owned() };
        assert_eq!(listed[0]["owner"], owner);
        let pids = container.command(&["ps", "--format", "json"], &[]).ok().stdout;
        assert_eq!(pids.trim(), format!("[{}]", container.pid()));
        let (pause, update) =
            (container.command(&["pause"], &[]), container.command(&["update", "--pids-limit", "20"], &[]));
        if is_root() {
            assert!(pause.fails().stderr.contains("no permission was granted"));
            let update = update.fails().stderr;
            assert!(update.starts_with("linux.resources.pids.limit: rootless needs no limits"), "{update}");
        } else {
            pause.ok();
            assert_eq!(container.status(), "paused");
            container.command(&["resume"], &[]).ok();
            update.ok();
            let cgroup = container.call(["exec", &container.id, "cat", "/proc/self/cgroup"]).run().ok().stdout;
            assert!(cgroup.contains(&container.id), "{cgroup}");
        }
        container.stop();
        assert_eq!(container.status(), "stopped");
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

/// Init has closed all descriptors by then.
#[test]
fn a_failure_at_the_gate_is_reported() {
    case(|| {
        let mut bundle = rootless("true");
        bundle.set("/hooks/startContainer", json!([{"path": "/bin/false"}]));
        let container = bundle.container();
        let output = container.run().fails();
        assert!(output.code() < 128 && output.stderr.contains("startContainer hook #0"), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn all_processes_are_killed_without_a_cgroup() {
    case(|| {
        let container = rootless("sleep 1000 & trap 'echo got; exit 0' TERM; echo ready; wait").container();
        let (call, mut io) = with_io(container.call_bundle("run", &["--detach"]));
        call.run().ok();
        assert_eq!(io.stdout.next(), "ready");
        let pid = container.pid();
        container.command(&["kill", "--all"], &["TERM"]).ok();
        assert_eq!(io.stdout.next(), "got");
        crate::support::wait_for_end(pid);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

// ---------------------------------------------------------------------------------------------- what is refused

#[test]
fn a_configuration_for_root_is_refused_by_field() {
    let refused = |edit: &dyn Fn(&mut Bundle), error: &str| {
        let mut bundle = rootless("true");
        edit(&mut bundle);
        let container = bundle.container();
        let stderr = container.run().fails().stderr;
        assert!(stderr.contains(error), "{error}: {stderr}");
        container.nothing_left();
    };
    case(|| {
        refused(
            &|bundle| {
                bundle.no_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
            },
            "rootless container requires user namespaces",
        );
        refused(
            &|bundle| {
                bundle.remove("/linux/uidMappings");
            },
            "requires at least one UID mapping",
        );
        refused(
            &|bundle| {
                bundle.remove("/linux/gidMappings");
            },
            "requires at least one GID mapping",
        );
        refused(
            &|bundle| {
                bundle.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "gid=5"]);
            },
            "cannot specify gid=5 mount option for rootless container",
        );
        refused(
            &|bundle| {
                bundle.mount("/mnt", "tmpfs", "tmpfs", &["uid=5"]);
            },
            "cannot specify uid=5 mount option for rootless container",
        );
    });
    if ours() {
        refused(
            &|bundle| {
                bundle.mount("/mnt", "bind", "/", &["rbind", "idmap"]);
            },
            "mounts[7].options[1]: id-mapped mounts are not supported for rootless containers",
        );
        let device = |bundle: &mut Bundle| {
            bundle.namespace("network", None).set("/linux/netDevices", json!({"lo": {}}));
        };
        refused(&device, "linux.netDevices: network devices are not supported for rootless containers");
    }
}

// ---------------------------------------------------------------------------------------------- ids

#[test]
fn own_id_is_mapped_without_tools() {
    case(|| {
        let container = rootless("cat /proc/self/uid_map /proc/self/gid_map").container();
        let output = container.call_bundle("run", &[]).env("PATH", "/nonexistent").run().ok().stdout;
        let words: Vec<_> = output.split_whitespace().collect();
        let id = user().to_string();
        assert_eq!(words, ["0", &id, "1", "0", &id, "1"]);
    });
}

#[test]
fn more_ids_by_newuidmap() {
    if !has_tools() {
        skip!("no newuidmap");
    }
    case(|| {
        let mut bundle = rootless("id; grep Groups /proc/self/status; cat /proc/self/setgroups; echo > /mnt/file");
        map_ranges(&mut bundle);
        bundle.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]}));
        fs::set_permissions(bundle.rootfs().join("mnt"), fs::Permissions::from_mode(0o777)).unwrap();
        let container = bundle.container();
        let output = run_prepared(&container, ":").ok().stdout;
        assert_eq!(output, "uid=5 gid=6 groups=7,8\nGroups:\t7 8 \nallow\n");
        let file = fs::metadata(container.bundle.rootfs().join("mnt/file")).unwrap();
        assert_eq!((file.uid(), file.gid()), (first() + 4, first() + 5));
        container.nothing_left();
    });
}

#[test]
fn exec_and_kill_of_a_process_with_other_ids() {
    if !has_tools() {
        skip!("no newuidmap");
    }
    case(|| {
        let mut bundle = rootless(WAITING);
        map_ranges(&mut bundle);
        bundle.set("/process/user", json!({"uid": 5, "gid": 6}));
        let container = bundle.container();
        let (call, mut io) = with_io(prepared(&container, container.call_bundle("run", &["--detach"]), ":"));
        call.run().ok();
        assert_eq!(io.stdout.next(), "ready");
        let words = container.command(&["exec", "--user", "9:9"], &["id"]).ok().stdout;
        assert!(words.starts_with("uid=9 gid=9"), "{words}");
        container.stop();
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn ids_that_nobody_has_granted() {
    needs_root!();
    if !has_tools() {
        skip!("no newuidmap");
    }
    case(|| {
        let mut bundle = rootless("true");
        map_ranges(&mut bundle);
        let container = bundle.container();
        let stderr = run_prepared(&container, "echo other:1:1 > /etc/subuid").fails().stderr;
        assert!(stderr.contains("newuidmap: uid range [1-1000) -> [700000-700999) not allowed"), "{stderr}");
        assert!(
            !ours() || stderr.starts_with("linux.uidMappings: /usr/bin/newuidmap 0 64321 1, 1 700000 999:"),
            "{stderr}"
        );
        assert!(!ours() || stderr.contains("\nhint: /etc/subuid must grant these ids"), "{stderr}");
        container.nothing_left();
    });
}

#[test]
fn tools_that_are_not_there() {
    case(|| {
        let mut bundle = rootless("true");
        map_ranges(&mut bundle);
        let container = bundle.container();
        let stderr = container.call_bundle("run", &[]).env("PATH", "/nonexistent").run().fails().stderr;
        let words = "linux.uidMappings: other ids than the user's own need newuidmap, which is not in $PATH\n\
                     hint: apt install uidmap\n";
        assert!(!ours() || stderr == words, "{stderr}");
        container.nothing_left();
    });
}

/// setgroups(2) is denied with the user's own group alone.
#[test]
fn additional_groups_are_refused() {
    case(|| {
        let mut bundle = rootless("true");
        bundle.set("/process/user/additionalGids", json!([0]));
        let container = bundle.container();
        let stderr = container.run().fails().stderr;
        let words = "process.user.additionalGids: cannot set any additional groups in a rootless container";
        assert!(
            stderr.contains(words.split_once(": ").unwrap().1) && (!ours() || stderr.starts_with(words)),
            "{stderr}"
        );
    });
}

/// Who is root of a user namespace in which it is denied goes without them, as with runc.
#[test]
fn additional_groups_are_left_out_by_root_of_a_user_namespace() {
    case(|| {
        let mut bundle = of(0, "grep Groups /proc/self/status");
        bundle.user = Some(user());
        give(&bundle.directory);
        bundle.set("/process/user/additionalGids", json!([0]));
        let container = bundle.container();
        let call = container.call_bundle("run", &[]).below(["unshare", "-Ur"]);
        let output = call.run().ok();
        // The user's own is the one that nobody could take away.
        assert!(!output.stdout.contains(" 0"), "{output:?}");
        let words = "process.user.additionalGids: cannot set any additional groups";
        assert!(!ours() || output.stderr.contains(words), "{output:?}");
    });
}

#[test]
fn groups_of_the_caller_may_stay() {
    needs_root!();
    case(|| {
        let read = format!("cat /mnt/file; grep Groups /proc/self/status; echo $({})", "id -G");
        let mut bundle = rootless(&read);
        map_ranges(&mut bundle);
        if !has_tools() {
            bundle = rootless(&read);
        }
        bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
        let container = bundle.container();
        let file = container.bundle.rootfs().join("mnt/file");
        fs::write(&file, "for the group\n").unwrap();
        chown(&file, Some(0), Some(GROUP)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let output = run_prepared(&container, ":").ok().stdout;
        assert!(output.starts_with("for the group\n"), "{output}");
    });
}

#[test]
fn a_user_namespace_can_be_joined() {
    case(|| {
        let first = rootless(WAITING).container();
        let (call, mut io) = with_io(first.call_bundle("run", &["--detach"]));
        call.run().ok();
        assert_eq!(io.stdout.next(), "ready");
        for kinds in [&["user"][..], &["user", "ipc", "uts"], &["user", "pid"]] {
            let mut bundle = rootless("id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/ipc");
            for kind in kinds {
                bundle.namespace(kind, Some(&format!("/proc/{}/ns/{kind}", first.pid())));
            }
            bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
            let container = bundle.container();
            let output = container.run().ok().stdout;
            let lines: Vec<_> = output.lines().collect();
            let of = |name: &str| crate::support::link(format!("/proc/{}/ns/{name}", first.pid()));
            assert_eq!(lines[..2], ["0", &of("user")], "{kinds:?}");
            assert_eq!(lines[2] == of("ipc"), kinds.contains(&"ipc"), "{kinds:?}");
        }
    });
}

/// Before its start, too, unless others see init who have rights over it: they must not look into it, and what hides it from
/// them hides it from its user.
#[test]
fn exec_beside_an_init_in_joined_namespaces() {
    case(|| {
        let first = rootless(WAITING).container();
        let _io = first.create_io();
        for (kinds, hidden) in [(&["user", "ipc"][..], false), (&["user", "pid"], true)] {
            let mut bundle = rootless(WAITING);
            for kind in kinds {
                bundle.namespace(kind, Some(&format!("/proc/{}/ns/{kind}", first.pid())));
            }
            let container = bundle.container();
            let mut io = container.create_io();
            let exec = || container.command(&["exec"], &["id", "-u"]);
            if hidden {
                let stderr = exec().fails().stderr;
                let words = "/ns/user: permission denied (EACCES)\nhint: start it first";
                assert!(!ours() || stderr.contains(words), "{stderr}");
            } else {
                assert_eq!(exec().ok().stdout, "0\n");
            }
            container.start().ok();
            assert_eq!(io.stdout.next(), "ready");
            assert_eq!(exec().ok().stdout, "0\n", "{kinds:?}");
        }
    });
}

// ---------------------------------------------------------------------------------------------- mounts

/// The options of what is mounted at a place, by mountinfo.
fn options(mountinfo: &str, place: &str) -> Vec<String> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
    let options = line.and_then(|line| line.split(' ').nth(5)).unwrap_or_else(|| panic!("{place}: {mountinfo}"));
    options.split(',').map(str::to_owned).collect()
}

/// A sysfs belongs to the owner of a network namespace, which the host's is not.
#[test]
fn sysfs_of_the_host_takes_the_place_of_a_new_one() {
    case(|| {
        let mut bundle = rootless("cat /proc/self/mountinfo; ls /sys/class > /dev/null");
        bundle.unmount("/sys").unmount("/sys/fs/cgroup");
        bundle.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
        let mounts = bundle.container().run().ok().stdout;
        let below = hierarchies().first().unwrap().mount.display().to_string();
        for place in ["/sys", &below] {
            for option in ["ro", "nosuid", "noexec", "nodev"] {
                assert!(options(&mounts, place).contains(&option.to_owned()), "{place} {option}: {mounts}");
            }
        }
    });
}

#[test]
fn sysfs_is_new_with_a_network_namespace() {
    case(|| {
        let mut bundle = rootless("ls /sys/class/net");
        bundle.namespace("network", None).unmount("/sys").unmount("/sys/fs/cgroup");
        bundle.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
        let output = bundle.container().run().ok().stdout;
        assert!(output.contains("lo") && !output.contains("eth0"), "{output}");
    });
}

#[test]
fn proc_of_the_host_with_its_pid_namespace() {
    case(|| {
        let mut bundle = rootless(&format!("cat /proc/{}/comm", std::process::id()));
        bundle.no_namespace("pid");
        let output = bundle.container().run().ok();
        assert_eq!(output.stdout, text("/proc/self/comm"));
        // Without a cgroup, too, nobody knows its processes. runc's words.
        let warnings = output.stderr.matches("Such configuration is strongly discouraged").count();
        assert_eq!(warnings, usize::from(is_root()), "{output:?}");
    });
}

/// As in a container of an engine, which covers parts of /proc.
#[test]
fn proc_where_parts_are_covered() {
    needs_root!();
    case(|| {
        let container = rootless("true").container();
        let stderr = run_prepared(&container, "mount -t tmpfs none /proc/tty").fails().stderr;
        // Newer kernels have words for it: Mount too revealing.
        let (words, hint) = ("mounts[0]: mount proc on \"/proc\": ", " (EPERM)\nhint: parts of the /proc");
        assert!(!ours() || (stderr.starts_with(words) && stderr.contains(hint)), "{stderr}");
        container.nothing_left();
    });
}

/// What a mount of the host forbids, a copy of it in a user namespace forbids too.
#[test]
fn flags_of_the_hosts_mount_are_locked() {
    needs_root!();
    let bound = |options: &[&str]| {
        let mut bundle = rootless("cat /proc/self/mountinfo");
        let source = bundle.directory.join("prepared/free").display().to_string();
        bundle.mount("/mnt", "bind", &source, options);
        let container = bundle.container();
        run_prepared(&container, "mount -t tmpfs -o ro,nosuid,nodev,noexec,relatime tmpfs \"$1\"")
    };
    case(|| {
        for given in [&["bind"][..], &["rbind", "nosuid", "nodev"], &["bind", "ro"], &["bind", "relatime"]] {
            let mounts = bound(given).ok().stdout;
            for option in ["ro", "nosuid", "nodev", "noexec"] {
                assert!(options(&mounts, "/mnt").contains(&option.to_owned()), "{given:?} {option}: {mounts}");
            }
        }
        for option in ["rw", "exec", "dev", "suid", "noatime"] {
            let stderr = bound(&["bind", option]).fails().stderr;
            let words = "mounts[7].options: set the flags of bind of ";
            let hint = "\nhint: in a user namespace a flag of the host's mount cannot be taken away";
            assert!(!ours() || (stderr.starts_with(words) && stderr.contains(hint)), "{option}: {stderr}");
        }
    });
}

#[test]
fn mounts_below_a_source_go_with_it() {
    needs_root!();
    let bound = |option: &str| {
        let mut bundle = rootless("cat /mnt/below/file");
        let source = bundle.directory.join("prepared/free").display().to_string();
        bundle.mount("/mnt", "bind", &source, &[option]);
        let container = bundle.container();
        run_prepared(&container, "mkdir -p \"$1/below\"; mount -t tmpfs tmpfs \"$1/below\"; echo x > \"$1/below/file\"")
    };
    case(|| {
        assert_eq!(bound("rbind").ok().stdout, "x\n");
        let stderr = bound("bind").fails().stderr;
        let words = "invalid argument (EINVAL)\nhint: other mounts are below it";
        assert!(!ours() || (stderr.starts_with("mounts[7].source: ") && stderr.contains(words)), "{stderr}");
    });
}

#[test]
fn devices_are_the_hosts() {
    case(|| {
        let script = "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done; \
                      head -c 2 /dev/zero | wc -c; echo x > /dev/null && mknod /dev/x c 1 3; echo $?";
        let output = rootless(script).container().run().ok().stdout;
        assert_eq!(output, "null\nzero\nfull\nrandom\nurandom\ntty\n2\n1\n");
        let mut bundle = rootless("cat /dev/other");
        bundle.set("/linux/devices", json!([{"path": "/dev/other", "type": "c", "major": 1, "minor": 3}]));
        bundle.container().run().fails();
    });
}

#[test]
fn masks_and_read_only_paths_hold() {
    case(|| {
        let mut bundle = rootless("cat /proc/keys; ls -A /proc/fs /mnt; echo x > /proc/sys/kernel/domainname; echo $?");
        bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/proc/fs", "/mnt"]));
        fs::write(bundle.rootfs().join("mnt/file"), "").unwrap();
        assert_eq!(bundle.container().run().ok().stdout, "/mnt:\n\n/proc/fs:\n1\n");
    });
}

// ---------------------------------------------------------------------------------------------- what only root may raise

/// A user may not take the listener from a process that cannot be dumped.
#[test]
fn a_seccomp_agent_gets_the_listener() {
    case(|| {
        for no_new_privileges in [true, false] {
            let mut bundle = rootless(&format!("{}; {WAITING}", seccomp_notify::SCRIPT));
            let agent = Agent::new(&bundle);
            let profile = seccomp_notify::profile(&agent.path, &["mkdir", "mkdirat", "geteuid", "read", "close"]);
            bundle.set("/linux/seccomp", profile).set("/process/noNewPrivileges", json!(no_new_privileges));
            let container = bundle.container();
            let mut io = container.create_io();
            let pid = container.pid();
            seccomp_notify::check_state(&agent.message(), &container, pid, "creating", pid);
            container.start().ok();
            seccomp_notify::felt(&io.stdout.until("ready\n").replace("ready\n", ""));
            let output = container.call(["exec", &container.id, "sh", "-c", seccomp_notify::SCRIPT]).run().ok();
            seccomp_notify::felt(&output.stdout);
            io.close();
        }
    });
}

#[test]
fn a_seccomp_agent_needs_a_profile_that_lets_the_listener_be_sent() {
    case(|| {
        let mut bundle = rootless("true");
        let agent = Agent::new(&bundle);
        bundle.set("/linux/seccomp", seccomp_notify::profile(&agent.path, &["mkdir"]));
        bundle.set("/linux/seccomp/syscalls/-", json!({"names": ["sendmsg"], "action": "SCMP_ACT_ERRNO"}));
        let container = bundle.container();
        let output = container.create().fails();
        let words =
            ["linux.seccomp: send the listener to the parent: operation not permitted (EPERM)", "allows sendmsg"];
        assert!(words.iter().all(|words| output.stderr.contains(words)), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn oom_score_is_raised_and_not_lowered() {
    case(|| {
        let own: i32 = text("/proc/self/oom_score_adj").trim().parse().unwrap();
        let with = |value: i32| {
            let mut bundle = rootless("cat /proc/self/oom_score_adj");
            bundle.set("/process/oomScoreAdj", json!(value));
            bundle.container().run()
        };
        assert_eq!(with(own + 100).ok().stdout, format!("{}\n", own + 100));
        // Lower than whoever had the right to has set it last.
        let stderr = with(-999).fails().stderr;
        let words = "process.oomScoreAdj: set to -999: permission denied (EACCES)\nhint: ";
        assert!(!ours() || stderr.starts_with(words), "{stderr}");
    });
}

#[test]
fn hard_limits_are_not_raised() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let Some(hard) = limit.maximum else { skip!("no limit of open files") };
    case(|| {
        let mut bundle = rootless("ulimit -Hn");
        bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": hard + 1}]));
        let stderr = bundle.container().run().fails().stderr;
        assert!(!ours() || stderr.starts_with("process.rlimits[0]: raise the hard limit from "), "{stderr}");
    });
}

// ---------------------------------------------------------------------------------------------- cgroups

#[test]
fn no_cgroup_without_permission() {
    needs_root!();
    case(|| {
        let container = rootless("cat /proc/self/cgroup").container();
        assert_eq!(container.run().ok().stdout, text("/proc/self/cgroup"));
        container.nothing_left();
    });
}

#[test]
fn limits_and_paths_need_permission() {
    needs_root!();
    case(|| {
        let words = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
        let refused = |pointer: &str, value: Value, field: &str| {
            let mut bundle = rootless("true");
            bundle.set(pointer, value);
            let container = bundle.container();
            let stderr = container.run().fails().stderr;
            assert!(!ours() || (stderr.starts_with(field) && stderr.contains(words)), "{stderr}");
            container.nothing_left();
        };
        refused("/linux/cgroupsPath", json!("/runtime-test-denied"), "linux.cgroupsPath");
        refused("/linux/resources", json!({"pids": {"limit": 20}}), "linux.resources.pids.limit");
        refused("/linux/resources", json!({"memory": {"limit": 20 << 20}}), "linux.resources.memory.limit");
        let container = rootless("true").container();
        container.bundle.write();
        let stderr = container.call(["--rootless=false", "run", &container.id]).run().fails().stderr;
        assert!(stderr.to_lowercase().contains("permission denied"), "{stderr}");
        container.nothing_left();
        // Asked for, it is so for root as well, who is refused nothing.
        let container = rootless("true").container();
        container.bundle.write();
        container.call(["--rootless=true", "run", &container.id]).run().ok();
    });
}

/// A cgroup in each hierarchy that is the user's, and one below it from which calls are made.
struct Delegated {
    name: String,
    /// While there is a bundle, nobody removes the parent of all cgroups.
    _bundle: Bundle,
}

impl Delegated {
    fn new() -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}/user-{}", cgroup_parent(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let this = Self { name, _bundle: Bundle::new() };
        for hierarchy in hierarchies() {
            let mut at = hierarchy.mount;
            for part in this.name.split('/').skip(1).chain(["own"]) {
                if cgroup_v2() && part != "own" {
                    for controller in ["+memory", "+pids"] {
                        let _ = fs::write(at.join("cgroup.subtree_control"), controller);
                    }
                }
                let above = at.clone();
                at.push(part);
                let _ = fs::create_dir(&at);
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if !cgroup_v2() && at.join(file).exists() {
                        fs::write(at.join(file), text(above.join(file))).unwrap();
                    }
                }
            }
            let delegated = at.parent().unwrap();
            for path in [delegated, &at] {
                chown(path, Some(user()), Some(user())).unwrap();
                for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
                    let _ = chown(path.join(file), Some(user()), Some(user()));
                }
            }
        }
        this
    }

    /// Makes a call from there.
    fn call(&self, container: &Container, call: Call) -> Call {
        let into = |path: PathBuf| format!("echo $$ > {}; ", path.join("own/cgroup.procs").display());
        let all: String = hierarchies().iter().map(|one| into(one.mount.join(&self.name[1..]))).collect();
        prepared(container, call, &all)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for hierarchy in hierarchies() {
            let directory = hierarchy.mount.join(&self.name[1..]);
            // Another runtime may leave it.
            let _ = fs::remove_dir(directory.join("explicit"));
            let _ = fs::remove_dir(directory.join("own"));
            let _ = fs::remove_dir(directory);
        }
    }
}

#[test]
fn limits_in_a_delegated_cgroup() {
    needs_root!();
    case(|| {
        let delegated = Delegated::new();
        let mut bundle = rootless(WAITING);
        bundle.set("/linux/resources", json!({"pids": {"limit": 20}, "devices": [{"allow": false, "access": "rwm"}]}));
        let container = bundle.container();
        let (call, mut io) = with_io(delegated.call(&container, container.call_bundle("run", &["--detach"])));
        call.run().ok();
        assert_eq!(io.stdout.next(), "ready");
        // On v2 beside the caller's cgroup, else below it.
        let below = if cgroup_v2() { container.id.clone() } else { format!("own/{}", container.id) };
        let path = |name: &str| controller(name).unwrap().join(&delegated.name[1..]).join(&below);
        assert_eq!(text(path("pids").join("pids.max")), "20\n");
        assert_eq!(text(path("pids").join("cgroup.procs")), format!("{}\n", container.pid()));
        let run = |args: &[&str]| delegated.call(&container, container.call(args)).run();
        run(&["update", "--pids-limit", "30", &container.id]).ok();
        assert_eq!(text(path("pids").join("pids.max")), "30\n");
        let cgroup = run(&["exec", &container.id, "cat", "/proc/self/cgroup"]).ok().stdout;
        assert!(cgroup.lines().any(|line| line.ends_with(&below)), "{cgroup}");
        run(&["pause", &container.id]).ok();
        assert_eq!(container.status(), "paused");
        run(&["resume", &container.id]).ok();
        // From elsewhere: on v2 the process cannot be moved there, and is where its caller is.
        let outside = container.command(&["exec"], &["sh", "-c", "echo x; read line < /proc/self/cgroup"]).ok();
        assert_eq!(outside.stdout, "x\n");
        container.stop();
        run(&["delete", &container.id]).ok();
        container.nothing_left();
    });
}

#[test]
fn an_explicit_path_in_a_delegated_cgroup() {
    needs_root!();
    case(|| {
        let delegated = Delegated::new();
        let mut bundle = rootless("cat /proc/self/cgroup");
        bundle.set("/linux/cgroupsPath", json!(format!("{}/explicit", delegated.name)));
        let container = bundle.container();
        let call = || container.call_bundle("run", &[]);
        let is_there =
            |output: &str| output.lines().any(|line| line.ends_with(&format!("{}/explicit", delegated.name)));
        let output = delegated.call(&container, call()).run().ok().stdout;
        assert!(is_there(&output), "{output}");
        // From elsewhere: in the unified hierarchy nobody moves so far without more rights.
        match cgroup_v2() {
            false => assert!(is_there(&call().run().ok().stdout)),
            true => assert!(!ours() || call().run().fails().stderr.contains("permission denied")),
        }
        container.nothing_left();
    });
}

// ---------------------------------------------------------------------------------------------- security

/// CVE-2019-5736 where the runtime's file is the user's own, who is root in the container.
#[test]
fn cve_2019_5736_the_users_own_program_cannot_be_overwritten() {
    case(|| {
        let mut bundle = rootless("");
        let copy = bundle.directory.join("copy-of-the-runtime");
        crate::support::copy_program(runtime(), &copy);
        chown(&copy, Some(user()), Some(user())).unwrap();
        let before = fs::read(&copy).unwrap();
        write_program(bundle.rootfs().join("evil"), "#!/proc/self/exe\n");
        bundle.args(&["/evil"]);
        let container = bundle.container();
        container.bundle.write();
        let root = container.root();
        let call = || Call::new(&copy).args(["--root".as_ref(), root.as_os_str()]).user(user());
        call().args(["run", &container.id]).cwd(&container.bundle.directory).run();
        assert!(fs::read(&copy).unwrap() == before, "the runtime was changed");
    });
}

/// CVE-2019-5736, from the runtime's side: its program is on a read-only mount before a container is near.
#[test]
fn the_program_is_a_sealed_copy() {
    if !ours() {
        skip!("the way of this runtime");
    }
    case(|| {
        let container = rootless("true").container();
        // Init of a created container has not executed anything yet.
        container.create().ok();
        let pid = container.pid();
        let mount = rustix::fs::statvfs(format!("/proc/{pid}/exe")).unwrap();
        assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    });
}

/// CVE-2023-25809: a mount of the user's cgroups that is to be read-only, without a cgroup namespace. What they own on the host
/// they could change there from the container.
#[test]
fn cve_2023_25809_cgroups_are_read_only() {
    case(|| {
        let delegated = is_root().then(Delegated::new);
        let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                      [ -d $d ] && mkdir $d/made 2>/dev/null && echo made $d; \
                      (echo 0 > $d/cgroup.procs) 2>/dev/null && echo joined $d; done; cat /proc/self/mountinfo";
        let container = rootless(script).container();
        let call = container.call_bundle("run", &[]);
        let call = match &delegated {
            Some(delegated) => delegated.call(&container, call),
            None => call,
        };
        let output = call.run().ok().stdout;
        assert!(!output.contains("made ") && !output.contains("joined "), "{output}");
        let place = if cgroup_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        assert!(options(&output, place).contains(&"ro".to_owned()), "{output}");
        container.nothing_left();
    });
}

// ---------------------------------------------------------------------------------------------- the rest of a container

#[test]
fn a_terminal() {
    case(|| {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let mut bundle = rootless("tty > /mnt/tty; stat -c %u /dev/console >> /mnt/tty; echo x > /dev/tty");
        bundle.set("/process/terminal", json!(true));
        let container = bundle.container();
        let call = container.call_bundle("run", &[]);
        let stdio = || slave.try_clone().unwrap();
        call.stdin(stdio()).stdout(stdio()).stderr(stdio()).run().ok();
        assert_eq!(text(container.bundle.rootfs().join("mnt/tty")), "/dev/pts/0\n0\n");
    });
}

#[test]
fn without_pivot_root() {
    case(|| {
        let container = rootless("id -u; ls /proc/1/root/bin/sh").container();
        let output = container.call_bundle("run", &["--no-pivot"]).run().ok().stdout;
        assert_eq!(output, "0\n/proc/1/root/bin/sh\n");
    });
}

#[test]
fn hooks_are_the_users() {
    case(|| {
        let mut bundle = rootless("true");
        let file = bundle.directory.join("hook").display().to_string();
        let hook = json!([{"path": busybox(), "args": ["sh", "-c", format!("id -u >> {file}")]}]);
        for name in ["createRuntime", "poststop"] {
            bundle.set(&format!("/hooks/{name}"), hook.clone());
        }
        let container = bundle.container();
        container.run().ok();
        assert_eq!(text(container.bundle.directory.join("hook")), format!("{0}\n{0}\n", user()));
    });
}
