//! Mounts: every option by what the kernel says of it or by its effect, and where a mount ends up.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::json;

use crate::namespaces::user_namespaces;
use crate::support::{
    Bundle, Call, Io, Running, busybox, case, cgroup_v2, controller, hierarchies, inside, skip, text, with_io,
};

/// A line of mountinfo.
#[derive(Debug)]
struct Mount {
    point: String,
    root: String,
    options: Vec<String>,
    optional: String,
    kind: String,
    source: String,
    super_options: Vec<String>,
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().chain(&self.super_options).any(|one| one == option)
    }
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    mountinfo
        .lines()
        .map(|line| {
            let (left, right) = line.split_once(" - ").unwrap();
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            Mount {
                point: left[4].into(),
                root: left[3].into(),
                options: list(left[5]),
                optional: left[6..].join(" "),
                kind: right[0].into(),
                source: right[1].into(),
                super_options: list(right[2]),
            }
        })
        .collect()
}

/// The mounts inside a container.
#[track_caller]
fn mounts(edit: impl FnOnce(&mut Bundle)) -> Vec<Mount> {
    parse(&inside("cat /proc/self/mountinfo", edit))
}

/// The topmost mount at a point.
#[track_caller]
fn at<'a>(mounts: &'a [Mount], point: &str) -> &'a Mount {
    mounts.iter().rev().find(|mount| mount.point == point).unwrap_or_else(|| panic!("no mount at {point}: {mounts:#?}"))
}

/// Checks options of a mount at /mnt: after `asked`, those of `has` are there and those of `lacks` are not.
#[track_caller]
fn check_options(table: &[(&[&str], &[&str], &[&str])], kind: &str, source: &str) {
    let mut bundle = Bundle::sh("cat /proc/self/mountinfo");
    for (index, (asked, _, _)) in table.iter().enumerate() {
        bundle.mount(&format!("/mnt/{index}"), kind, source, asked);
    }
    let found = parse(&bundle.container().run().ok().stdout);
    for (index, (asked, has, lacks)) in table.iter().enumerate() {
        let mount = at(&found, &format!("/mnt/{index}"));
        for option in *has {
            assert!(mount.has(option), "{asked:?}: no {option}: {mount:?}");
        }
        for option in *lacks {
            assert!(!mount.has(option), "{asked:?}: {option}: {mount:?}");
        }
    }
}

type Options = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const SETTING: &[Options] = &[
    (&[], &["rw", "relatime"], &["ro", "nosuid", "nodev", "noexec", "sync", "noatime"]),
    (&["ro"], &["ro"], &[]),
    (&["rw"], &["rw"], &["ro"]),
    (&["nosuid"], &["nosuid"], &["nodev", "noexec"]),
    (&["nodev"], &["nodev"], &["nosuid"]),
    (&["noexec"], &["noexec"], &["nosuid"]),
    (&["noatime"], &["noatime"], &["relatime"]),
    (&["nodiratime"], &["nodiratime"], &[]),
    (&["relatime"], &["relatime"], &[]),
    (&["strictatime"], &[], &["relatime", "noatime"]),
    (&["sync"], &["sync"], &[]),
    (&["dirsync"], &["dirsync"], &[]),
    (&["ro", "nosuid", "nodev", "noexec", "noatime"], &["ro", "nosuid", "nodev", "noexec", "noatime"], &[]),
];

const CLEARING: &[Options] = &[
    (&["ro", "rw"], &["rw"], &["ro"]),
    (&["nosuid", "suid"], &[], &["nosuid"]),
    (&["nodev", "dev"], &[], &["nodev"]),
    (&["noexec", "exec"], &[], &["noexec"]),
    (&["noatime", "atime"], &[], &["noatime"]),
    (&["nodiratime", "diratime"], &[], &["nodiratime"]),
    (&["strictatime", "nostrictatime"], &["relatime"], &["noatime"]),
    (&["relatime", "norelatime"], &[], &["noatime"]),
    (&["sync", "async"], &[], &["sync"]),
];

/// The same options of a bind mount. sync and dirsync are of the file system, not of the mount.
fn check_bind_options(table: &[Options]) {
    let table: Vec<_> = table.iter().filter(|(asked, _, _)| !asked.iter().any(|one| one.contains("sync"))).collect();
    let asked: Vec<Vec<&str>> = table.iter().map(|row| [&["bind"], row.0].concat()).collect();
    let table: Vec<(&[&str], &[&str], &[&str])> =
        table.iter().zip(&asked).map(|(row, asked)| (asked.as_slice(), row.1, row.2)).collect();
    check_options(&table, "bind", "rootfs/etc");
}

#[test]
fn options_of_a_new_file_system() {
    case(|| check_options(SETTING, "tmpfs", "tmpfs"));
}

#[test]
fn options_of_a_bind_mount() {
    case(|| check_bind_options(SETTING));
}

#[test]
fn the_last_option_wins_for_a_new_file_system() {
    case(|| check_options(CLEARING, "tmpfs", "tmpfs"));
}

#[test]
fn the_last_option_wins_for_a_bind_mount() {
    case(|| check_bind_options(CLEARING));
}

#[test]
fn option_defaults() {
    case(|| {
        let table: &[Options] = &[(&["defaults"], &["rw", "relatime"], &["nosuid", "nodev", "noexec"])];
        check_options(table, "tmpfs", "tmpfs");
        check_bind_options(table);
    });
}

#[test]
fn options_that_runc_has_and_older_runtimes_lack() {
    case(|| {
        let table: &[Options] = &[
            (&["iversion"], &[], &[]),
            (&["iversion", "noiversion"], &[], &[]),
            (&["lazytime"], &["lazytime"], &[]),
            (&["lazytime", "nolazytime"], &[], &["lazytime"]),
            (&["silent"], &[], &[]),
            (&["silent", "loud"], &[], &[]),
            (&["mand", "nomand"], &[], &[]),
            (&["nosymfollow"], &["nosymfollow"], &[]),
            (&["nosymfollow", "symfollow"], &[], &["nosymfollow"]),
        ];
        check_options(table, "tmpfs", "tmpfs");
    });
}

#[test]
fn options_by_their_effect() {
    case(|| {
        let script = "cp /bin/busybox /mnt/x/true; /mnt/x/true 2>/dev/null && echo executed; \
                      touch /mnt/ro/x 2>/dev/null && echo wrote; cat /mnt/dev/null 2>/dev/null && echo opened; echo end";
        let printed = inside(script, |bundle| {
            fs::create_dir(bundle.rootfs().join("devices")).unwrap();
            let node = bundle.rootfs().join("devices/null");
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
            nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 3)).unwrap();
            bundle.mount("/mnt/x", "tmpfs", "tmpfs", &["noexec"]).mount("/mnt/ro", "tmpfs", "tmpfs", &["ro"]).mount(
                "/mnt/dev",
                "bind",
                "rootfs/devices",
                &["bind", "nodev"],
            );
        });
        assert_eq!(printed, "end\n");
    });
}

// ---------------------------------------------------------------------------------------------- where a mount ends up

#[test]
fn destination_is_created() {
    case(|| {
        let script =
            "for d in /a /a/b /a/b/c; do stat -c '%F %a %u:%g' $d; done; stat -c '%F' /f/g/file; cat /f/g/file";
        let printed = inside(script, |bundle| {
            fs::write(bundle.directory.join("file"), "content\n").unwrap();
            let file = bundle.directory.join("file");
            bundle.mount("/a/b/c", "tmpfs", "tmpfs", &["mode=755"]);
            bundle.mount("/f/g/file", "bind", file.to_str().unwrap(), &["bind"]);
        });
        let directory = "directory 755 0:0\n";
        assert_eq!(printed, format!("{directory}{directory}{directory}regular file\ncontent\n"));
    });
}

#[test]
fn relative_destination_is_below_the_root() {
    case(|| {
        let found = mounts(|bundle| {
            bundle.mount("mnt/relative", "tmpfs", "tmpfs", &[]);
        });
        assert_eq!(at(&found, "/mnt/relative").kind, "tmpfs");
    });
}

#[test]
fn destination_through_links_stays_inside() {
    case(|| {
        let found = mounts(|bundle| {
            let root = bundle.rootfs();
            fs::create_dir_all(root.join("real/deep")).unwrap();
            symlink("/real", root.join("absolute")).unwrap();
            symlink("../../../real/deep", root.join("mnt/climbing")).unwrap();
            symlink("/real/last", root.join("final")).unwrap();
            fs::create_dir(root.join("real/last")).unwrap();
            bundle
                .mount("/absolute/one", "tmpfs", "tmpfs", &[])
                .mount("/mnt/climbing/two", "tmpfs", "tmpfs", &[])
                .mount("/final", "tmpfs", "tmpfs", &[])
                .mount("/mnt/../../../three", "tmpfs", "tmpfs", &[]);
        });
        for point in ["/real/one", "/real/deep/two", "/real/last", "/three"] {
            assert_eq!(at(&found, point).kind, "tmpfs");
        }
    });
}

#[test]
fn mounts_are_made_in_their_order() {
    case(|| {
        let printed = inside("cat /mnt/file; ls /mnt/sub", |bundle| {
            for name in ["first", "second"] {
                let directory = bundle.directory.join(name);
                fs::create_dir_all(directory.join("sub")).unwrap();
                fs::write(directory.join("file"), format!("{name}\n")).unwrap();
                bundle.mount("/mnt", "bind", directory.to_str().unwrap(), &["bind"]);
            }
            bundle.mount("/mnt/sub", "tmpfs", "tmpfs", &[]);
        });
        assert_eq!(printed, "second\n");
    });
}

#[test]
fn bind_of_a_directory_is_the_directory() {
    case(|| {
        let bundle = Bundle::sh("echo inside > /mnt/new; cat /mnt/old");
        let directory = bundle.directory.join("volume");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("old"), "outside\n").unwrap();
        let mut bundle = bundle;
        bundle.mount("/mnt", "bind", directory.to_str().unwrap(), &["rbind", "rw"]);
        let container = bundle.container();
        assert_eq!(container.run().ok().stdout, "outside\n");
        assert_eq!(text(directory.join("new")), "inside\n");
    });
}

#[test]
fn bind_by_option_whatever_the_type() {
    case(|| {
        let printed = inside("cat /mnt/1/passwd /mnt/2/passwd | grep -c ^root", |bundle| {
            bundle.mount("/mnt/1", "none", "rootfs/etc", &["bind"]).mount("/mnt/2", "", "rootfs/etc", &["rbind"]);
        });
        assert_eq!(printed, "2\n");
    });
}

#[test]
fn bind_by_type_without_an_option() {
    case(|| {
        let printed = inside("cat /mnt/passwd | grep -c ^root", |bundle| {
            bundle.mount("/mnt", "bind", "rootfs/etc", &[]);
        });
        assert_eq!(printed, "1\n");
    });
}

#[test]
fn bind_source_is_relative_to_the_bundle() {
    case(|| {
        let mut bundle = Bundle::sh("cat /mnt/file");
        fs::create_dir(bundle.directory.join("volume")).unwrap();
        fs::write(bundle.directory.join("volume/file"), "content\n").unwrap();
        bundle.mount("/mnt", "bind", "volume", &["bind"]);
        let container = bundle.container();
        assert_eq!(container.call_bundle("run", &[]).cwd("/").run().ok().stdout, "content\n");
    });
}

#[test]
fn bind_source_may_be_a_link() {
    case(|| {
        let printed = inside("cat /mnt/file", |bundle| {
            fs::create_dir(bundle.directory.join("volume")).unwrap();
            fs::write(bundle.directory.join("volume/file"), "content\n").unwrap();
            symlink("volume", bundle.directory.join("link")).unwrap();
            bundle.mount("/mnt", "bind", "link", &["bind"]);
        });
        assert_eq!(printed, "content\n");
    });
}

#[test]
fn bind_of_a_file_read_only() {
    case(|| {
        let mut bundle = Bundle::sh("cat /etc/passwd; echo x >> /etc/passwd; echo $?");
        let file = bundle.directory.join("file");
        fs::write(&file, "content\n").unwrap();
        bundle.mount("/etc/passwd", "bind", file.to_str().unwrap(), &["bind", "ro"]);
        let output = bundle.container().run().ok();
        assert!(output.stdout.starts_with("content\n") && !output.stdout.ends_with("\n0\n"), "{output:?}");
    });
}

#[test]
fn bind_of_a_device_a_fifo_and_a_socket() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c %F /mnt/null /mnt/fifo /mnt/socket; echo x > /mnt/null");
        let fifo = bundle.directory.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = bundle.directory.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        bundle
            .mount("/mnt/null", "bind", "/dev/null", &["bind"])
            .mount("/mnt/fifo", "bind", fifo.to_str().unwrap(), &["bind", "ro"])
            .mount("/mnt/socket", "bind", socket.to_str().unwrap(), &["bind"]);
        let output = bundle.container().run().ok();
        assert_eq!(output.stdout, "character special file\nfifo\nsocket\n");
    });
}

#[test]
fn remount_of_a_bind_mount() {
    case(|| {
        let found = mounts(|bundle| {
            bundle.mount("/mnt/a", "bind", "rootfs/etc", &["bind", "rw"]).mount(
                "/mnt/a",
                "bind",
                "rootfs/etc",
                &["remount", "bind", "ro", "nosuid"],
            );
        });
        let here: Vec<&Mount> = found.iter().filter(|mount| mount.point == "/mnt/a").collect();
        assert_eq!(here.len(), 1, "a remount makes no second mount");
        assert!(here[0].has("ro") && here[0].has("nosuid"), "{here:?}");
    });
}

#[test]
fn remount_of_a_file_system() {
    case(|| {
        let found = mounts(|bundle| {
            bundle.mount("/mnt/a", "tmpfs", "tmpfs", &["size=64k", "nosuid"]).mount(
                "/mnt/a",
                "tmpfs",
                "tmpfs",
                &["remount", "ro", "size=128k"],
            );
        });
        let here: Vec<&Mount> = found.iter().filter(|mount| mount.point == "/mnt/a").collect();
        assert_eq!(here.len(), 1, "a remount makes no second mount");
        assert!(here[0].has("ro") && here[0].has("size=128k"), "{here:?}");
    });
}

// ---------------------------------------------------------------------------------------------- a host of its own

/// A mount namespace for a test that needs mounts on the host's side. It ends with its process.
pub(crate) struct Host {
    holder: Running,
    _io: Io,
}

impl Host {
    /// Runs a script as root of a new mount namespace, where all mounts are private.
    pub(crate) fn new(script: &str) -> Self {
        let call =
            Call::new(busybox()).args(["unshare", "-m", "--propagation", "private", busybox().to_str().unwrap()]);
        let (call, mut io) = with_io(call.args(["sh", "-e", "-c", &format!("{script}; echo ready; read line")]));
        let holder = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        Self { holder, _io: io }
    }

    /// Makes a call in it.
    pub(crate) fn call(&self, call: Call) -> Call {
        call.below(["nsenter".to_owned(), format!("-m/proc/{}/ns/mnt", self.holder.pid()), "-F".into(), "--".into()])
    }

    fn sh(&self, script: &str) {
        self.call(Call::sh(script)).run().ok();
    }
}

/// A bundle with a volume that has a tmpfs mounted at `sub`, in a host of its own.
pub(crate) fn volume_with_a_mount_below(options: &[&str], script: &str, prepare: &str) -> (Host, Bundle) {
    let mut bundle = Bundle::sh(script);
    let volume = bundle.directory.join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    let path = volume.display();
    let host = Host::new(&format!(
        "mount --bind {path} {path}; mount -t tmpfs t {path}/sub; echo below > {path}/sub/file; {}",
        prepare.replace("VOLUME", &path.to_string())
    ));
    bundle.mount("/mnt", "bind", volume.to_str().unwrap(), options);
    (host, bundle)
}

#[test]
fn bind_takes_one_mount_and_rbind_all() {
    case(|| {
        for (option, expected) in [("bind", ""), ("rbind", "below\n")] {
            let (host, bundle) = volume_with_a_mount_below(&[option], "cat /mnt/sub/file; exit 0", ":");
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            assert_eq!(output.stdout, expected, "{option}");
        }
    });
}

#[test]
fn read_only_is_of_one_mount_and_rro_of_all() {
    case(|| {
        let script = "touch /mnt/x 2>/dev/null && echo top; touch /mnt/sub/x 2>/dev/null && echo below; echo end";
        for (option, expected) in [("ro", "below\nend\n"), ("rro", "end\n")] {
            let (host, bundle) = volume_with_a_mount_below(&["rbind", option], script, ":");
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            assert_eq!(output.stdout, expected, "{option}");
        }
    });
}

#[test]
fn recursive_options() {
    case(|| {
        for (option, flag) in [
            ("rnosuid", "nosuid"),
            ("rnodev", "nodev"),
            ("rnoexec", "noexec"),
            ("rnoatime", "noatime"),
            ("rnodiratime", "nodiratime"),
        ] {
            let (host, bundle) = volume_with_a_mount_below(&["rbind", option], "cat /proc/self/mountinfo", ":");
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            let found = parse(&output.stdout);
            for point in ["/mnt", "/mnt/sub"] {
                assert!(at(&found, point).has(flag), "{option} at {point}: {found:?}");
            }
        }
    });
}

#[test]
fn recursive_options_that_clear() {
    case(|| {
        let table =
            [("rrw", "ro"), ("rsuid", "nosuid"), ("rdev", "nodev"), ("rexec", "noexec"), ("rstrictatime", "relatime")];
        for (option, flag) in table {
            let prepare = "mount -o remount,bind,ro,nosuid,nodev,noexec VOLUME/sub";
            let (host, bundle) = volume_with_a_mount_below(&["rbind", option], "cat /proc/self/mountinfo", prepare);
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            let found = parse(&output.stdout);
            assert!(!at(&found, "/mnt/sub").has(flag), "{option}: {found:?}");
        }
    });
}

#[test]
fn recursive_options_of_access_times() {
    case(|| {
        let table =
            [("rstrictatime", &[][..], &["relatime", "noatime"][..]), ("rrelatime", &["relatime"], &["noatime"])];
        for (option, has, lacks) in table {
            let prepare = "mount -o remount,bind,noatime VOLUME/sub";
            let (host, bundle) = volume_with_a_mount_below(&["rbind", option], "cat /proc/self/mountinfo", prepare);
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            let found = parse(&output.stdout);
            let mount = at(&found, "/mnt/sub");
            assert!(
                has.iter().all(|flag| mount.has(flag)) && !lacks.iter().any(|flag| mount.has(flag)),
                "{option}: {mount:?}"
            );
        }
    });
}

#[test]
fn propagation_of_a_mount() {
    case(|| {
        for (option, shared, master, unbindable) in [
            ("private", false, false, false),
            ("rprivate", false, false, false),
            ("shared", true, false, false),
            ("rshared", true, false, false),
            ("unbindable", false, false, true),
            ("runbindable", false, false, true),
        ] {
            let found = mounts(|bundle| {
                bundle.mount("/mnt", "tmpfs", "tmpfs", &[option]);
            });
            let optional = &at(&found, "/mnt").optional;
            assert_eq!(optional.contains("shared:"), shared, "{option}: {optional}");
            assert_eq!(optional.contains("master:"), master, "{option}: {optional}");
            assert_eq!(optional.contains("unbindable"), unbindable, "{option}: {optional}");
        }
    });
}

#[test]
fn propagation_is_of_one_mount_or_of_all_below() {
    case(|| {
        for (option, word, below) in [
            ("shared", "shared:", false),
            ("rshared", "shared:", true),
            ("unbindable", "unbindable", false),
            ("runbindable", "unbindable", true),
        ] {
            let (host, bundle) = volume_with_a_mount_below(&["rbind", option], "cat /proc/self/mountinfo", ":");
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            let found = parse(&output.stdout);
            let has = ["/mnt", "/mnt/sub"].map(|point| at(&found, point).optional.contains(word));
            assert_eq!(has, [true, below], "{option}: {found:?}");
        }
    });
}

/// All mounts of a volume are peers of the host's until they are told otherwise: what the container mounts there, or takes
/// away, would be mounted or missing on the host.
#[test]
fn no_mount_of_a_volume_stays_a_peer_of_the_hosts() {
    case(|| {
        for option in ["slave", "private", "unbindable", "shared", "rshared"] {
            let (host, bundle) = volume_with_a_mount_below(
                &["rbind", option],
                "cat /proc/self/mountinfo",
                "mount --make-rshared VOLUME",
            );
            let path = bundle.directory.join("volume");
            let on_the_host = parse(&host.call(Call::sh("cat /proc/self/mountinfo")).run().ok().stdout);
            let container = bundle.container();
            let found = parse(&host.call(container.call_bundle("run", &[])).run().ok().stdout);
            for (inside, outside) in [("/mnt", path.clone()), ("/mnt/sub", path.join("sub"))] {
                let peers =
                    |optional: &str| optional.split(' ').find(|field| field.starts_with("shared:")).map(str::to_owned);
                let outside = peers(&at(&on_the_host, outside.to_str().unwrap()).optional);
                assert!(outside.is_some());
                assert_ne!(peers(&at(&found, inside).optional), outside, "{option}: {inside}");
            }
        }
    });
}

/// What the host has made read-only, and what it has covered, stays so for root of a user namespace (mount_namespaces(7)).
#[test]
fn mounts_of_the_host_are_locked_in_a_user_namespace() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        let script = "umount /mnt/sub 2> /dev/null && echo uncovered; \
                      mount -o remount,bind,rw t /mnt/sub 2> /dev/null && echo writable; cat /mnt/sub/file";
        let (host, mut bundle) = volume_with_a_mount_below(&["rbind"], script, "mount -o remount,bind,ro t VOLUME/sub");
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
        let container = bundle.container();
        assert_eq!(host.call(container.call_bundle("run", &[])).run().ok().stdout, "below\n");
    });
}

#[test]
fn slave_of_a_shared_volume_sees_later_mounts() {
    case(|| {
        for (option, sees) in [("rslave", true), ("slave", true), ("rprivate", false), ("private", false)] {
            let script = "echo ready; read line; ls /mnt/late";
            let (host, mut bundle) =
                volume_with_a_mount_below(&["rbind", option], script, "mount --make-shared VOLUME");
            // The container's root has to be a slave, too: private would cut the volume off before it is bound.
            bundle.set("/linux/rootfsPropagation", json!("rslave"));
            let volume = bundle.directory.join("volume");
            fs::create_dir(volume.join("late")).unwrap();
            let container = bundle.container();
            let (call, mut io) = with_io(container.call_bundle("run", &[]));
            let running = host.call(call).spawn();
            assert_eq!(io.stdout.next(), "ready");
            host.sh(&format!("mount -t tmpfs t {0}/late; touch {0}/late/seen", volume.display()));
            io.close();
            assert_eq!(io.stdout.rest(), if sees { "seen\n" } else { "" }, "{option}");
            running.wait().ok();
        }
    });
}

#[test]
fn propagation_of_the_root() {
    case(|| {
        // On a host whose mounts are shared, as systemd makes them.
        for (value, shared, unbindable) in [
            ("shared", true, false),
            ("rshared", true, false),
            ("slave", false, false),
            ("rslave", false, false),
            ("private", false, false),
            ("rprivate", false, false),
            ("unbindable", false, true),
        ] {
            let host = Host::new("mount --make-rshared /");
            let mut bundle = Bundle::sh("cat /proc/self/mountinfo");
            bundle.set("/linux/rootfsPropagation", json!(value));
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            let found = parse(&output.stdout);
            let optional = &at(&found, "/").optional;
            assert_eq!(
                (optional.contains("shared:"), optional.contains("unbindable")),
                (shared, unbindable),
                "{value}: {optional}"
            );
        }
    });
}

#[test]
fn propagation_is_private_by_default_and_nothing_reaches_the_host() {
    case(|| {
        let host = Host::new("mount --make-rshared /");
        let mut bundle = Bundle::sh("cat /proc/self/mountinfo");
        bundle.mount("/mnt", "tmpfs", "tmpfs", &[]);
        let container = bundle.container();
        let output = host.call(container.call_bundle("run", &[])).run().ok();
        for mount in parse(&output.stdout) {
            assert!(!mount.optional.contains("shared:"), "{mount:?}");
        }
        let directory = container.bundle.directory.display().to_string();
        let seen = host.call(Call::sh("cat /proc/self/mountinfo")).run().ok().stdout;
        assert!(!seen.contains(&directory), "{seen}");
    });
}

// ---------------------------------------------------------------------------------------------- file systems

#[test]
fn tmpfs_size_mode_and_owner() {
    case(|| {
        let script = "cat /proc/self/mountinfo; stat -c '%a %u:%g' /mnt/a; \
                      head -c 100000 /dev/zero > /mnt/a/file 2>/dev/null || echo full; stat -c %s /mnt/a/file";
        let printed = inside(script, |bundle| {
            bundle.mount("/mnt/a", "tmpfs", "tmpfs", &["size=64k", "mode=1750", "uid=5", "gid=6", "nr_inodes=50"]);
            bundle.capabilities(&["CAP_DAC_OVERRIDE"]);
        });
        let info: String =
            printed.lines().filter(|line| line.contains(" - ")).map(|line| format!("{line}\n")).collect();
        let found = parse(&info);
        let mount = at(&found, "/mnt/a");
        assert!(mount.has("size=64k") && mount.has("nr_inodes=50"), "{mount:?}");
        assert!(printed.ends_with("1750 5:6\nfull\n65536\n"), "{printed}");
    });
}

#[test]
fn read_only_dev_and_tmpfs_are_filled_before() {
    case(|| {
        // Devices and mount points are made in them although the image has none.
        let script = "echo x > /dev/null && grep -q ' /dev/pts ' /proc/mounts && grep -q ' /t/inner ' /proc/mounts && echo filled; \
                      touch /dev/x 2>/dev/null || echo refused; touch /t/x 2>/dev/null || echo refused; touch /t/inner/x";
        let printed = inside(script, |bundle| {
            for mount in bundle.config["mounts"].as_array_mut().unwrap() {
                if mount["destination"] == "/dev" {
                    mount["options"].as_array_mut().unwrap().push("ro".into());
                }
            }
            bundle.mount("/t", "tmpfs", "tmpfs", &["ro"]).mount("/t/inner", "tmpfs", "tmpfs", &[]);
        });
        assert_eq!(printed, "filled\nrefused\nrefused\n");
    });
}

#[test]
fn tmpfs_copies_what_was_there() {
    case(|| {
        let script = "cd /data; cat file sub/inner; readlink link; stat -c '%a %u:%g' . file sub; echo new > file; echo x > added";
        let mut bundle = Bundle::sh(script);
        let data = bundle.rootfs().join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("file"), "one\n").unwrap();
        fs::write(data.join("sub/inner"), "two\n").unwrap();
        symlink("file", data.join("link")).unwrap();
        fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(data.join("sub"), fs::Permissions::from_mode(0o710)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::chown(data.join("file"), Some(7), Some(8)).unwrap();
        bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]).capabilities(&["CAP_DAC_OVERRIDE"]);
        let container = bundle.container();
        let output = container.run().ok();
        assert_eq!(output.stdout, "one\ntwo\nfile\n750 0:0\n640 7:8\n710 0:0\n");
        assert_eq!((text(data.join("file")), data.join("added").exists()), ("one\n".into(), false));
    });
}

#[test]
fn tmpfs_takes_over_the_mode_of_the_directory() {
    case(|| {
        let printed = inside("stat -c %a /tmp /mnt/new /mnt/given", |bundle| {
            fs::create_dir(bundle.rootfs().join("mnt/given")).unwrap();
            fs::set_permissions(bundle.rootfs().join("mnt/given"), fs::Permissions::from_mode(0o700)).unwrap();
            bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid"]).mount("/mnt/new", "tmpfs", "tmpfs", &[]).mount(
                "/mnt/given",
                "tmpfs",
                "tmpfs",
                &["mode=711"],
            );
        });
        let modes: Vec<&str> = printed.lines().collect();
        assert_eq!((modes[0], modes[2]), ("1777", "711"), "{modes:?}");
    });
}

#[test]
fn devpts_is_an_instance_of_its_own() {
    case(|| {
        let printed = inside("ls /dev/pts; stat -c %a /dev/pts/ptmx; cat /proc/self/mountinfo | grep /dev/pts", |_| {});
        let mut lines = printed.lines();
        assert_eq!((lines.next(), lines.next()), (Some("ptmx"), Some("666")));
        let found = parse(lines.next().unwrap());
        assert!(found[0].has("gid=5") && found[0].has("mode=620") && found[0].has("ptmxmode=666"), "{found:?}");
    });
}

#[test]
fn mqueue_is_of_the_ipc_namespace() {
    case(|| {
        let printed = inside("touch /dev/mqueue/queue && ls /dev/mqueue", |_| {});
        assert_eq!(printed, "queue\n");
    });
}

#[test]
fn proc_with_an_option() {
    case(|| {
        let found = mounts(|bundle| {
            bundle.unmount("/proc");
            let mount =
                json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "hidepid=2"]});
            bundle.config["mounts"].as_array_mut().unwrap().insert(0, mount);
        });
        let proc = at(&found, "/proc");
        assert!(proc.has("nosuid"), "{proc:?}");
        assert!(proc.super_options.iter().any(|one| one.starts_with("hidepid=")), "{proc:?}");
    });
}

#[test]
fn overlay_with_several_data_options() {
    case(|| {
        let mut bundle = Bundle::sh("cat /mnt/lower; echo up > /mnt/new; cat /mnt/new");
        for name in ["l1", "l2", "up", "work"] {
            fs::create_dir(bundle.directory.join(name)).unwrap();
        }
        fs::write(bundle.directory.join("l2/lower"), "low\n").unwrap();
        let directory = bundle.directory.display().to_string();
        let options = [
            format!("lowerdir={directory}/l1:{directory}/l2"),
            format!("upperdir={directory}/up"),
            format!("workdir={directory}/work"),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        if !text("/proc/filesystems").contains("overlay") {
            skip!("no overlay file system in this kernel");
        }
        bundle.mount("/mnt", "overlay", "overlay", &options);
        let container = bundle.container();
        assert_eq!(container.run().ok().stdout, "low\nup\n");
        assert_eq!(text(container.bundle.directory.join("up/new")), "up\n");
    });
}

#[test]
fn source_of_a_file_system_is_shown() {
    case(|| {
        let found = mounts(|bundle| {
            bundle.mount("/mnt", "tmpfs", "my-source", &[]);
        });
        assert_eq!(at(&found, "/mnt").source, "my-source");
    });
}

// ---------------------------------------------------------------------------------------------- cgroups

/// Where a container sees its own cgroup of the pids controller.
fn own_cgroup() -> &'static str {
    if cgroup_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" }
}

#[test]
fn cgroup_mount_shows_the_containers_cgroup_read_only() {
    case(|| {
        let Some(_) = controller("pids") else { skip!("no pids controller") };
        let script = format!(
            "cd {}; cat pids.max; mkdir x 2>/dev/null && echo made; (echo 5 > pids.max) 2>/dev/null && echo wrote; echo end",
            own_cgroup()
        );
        for with_namespace in [false, true] {
            let printed = inside(&script, |bundle| {
                if with_namespace {
                    bundle.namespace("cgroup", None);
                }
                bundle
                    .set("/linux/resources/pids", json!({"limit": 77}))
                    .capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
            });
            assert_eq!(printed, "77\nend\n", "cgroup namespace: {with_namespace}");
        }
    });
}

#[test]
fn cgroup_mount_that_may_be_written() {
    case(|| {
        let script = format!("cd {}; mkdir inner && rmdir inner && mkdir left && echo made", own_cgroup());
        let mut bundle = Bundle::sh(&script);
        bundle.unmount("/sys/fs/cgroup").namespace("cgroup", None);
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]);
        let container = bundle.container();
        assert_eq!(container.run().ok().stdout, "made\n");
        container.nothing_left();
    });
}

#[test]
fn cgroup_v1_hierarchies_are_all_there() {
    case(|| {
        if cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let printed = inside("cd /sys/fs/cgroup; ls; for d in *; do [ -e $d/tasks ] || echo empty $d; done", |_| {});
        for hierarchy in hierarchies().iter().filter(|hierarchy| !hierarchy.controllers.is_empty()) {
            let name = hierarchy.mount.file_name().unwrap().to_string_lossy().into_owned();
            assert!(printed.lines().any(|line| line == name), "no {name}: {printed}");
            assert!(!printed.contains(&format!("empty {name}\n")), "{printed}");
        }
    });
}

#[test]
fn cgroup_v1_directory_is_read_only() {
    case(|| {
        if cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let found = mounts(|_| {});
        assert!(at(&found, "/sys/fs/cgroup").has("ro"), "{:?}", at(&found, "/sys/fs/cgroup"));
    });
}

#[test]
fn cgroup_bind_of_the_hosts_hierarchies() {
    case(|| {
        // What a bind mount of /sys/fs/cgroup is for: the host's view.
        let found = mounts(|bundle| {
            bundle.unmount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "bind", "/sys/fs/cgroup", &["rbind", "rro"]);
        });
        let mount = at(&found, own_cgroup());
        assert!(mount.kind.starts_with("cgroup") && mount.has("ro"), "{mount:?}");
        assert_eq!(PathBuf::from(&mount.root), PathBuf::from("/"));
    });
}

/// As in `-v /dev/urandom:/dev/random`: nobody has asked for the default device.
#[test]
fn a_mount_in_the_place_of_a_default_device_stays() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c %t:%T /dev/random");
        bundle.mount("/dev/random", "bind", "/dev/urandom", &["bind"]);
        assert_eq!(bundle.container().run().ok().stdout, "1:9\n");
    });
}

/// Docker lists a device as often as it is asked for it.
#[test]
fn a_device_may_be_listed_again() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c %t:%T /dev/again");
        let device = json!({"path": "/dev/again", "type": "c", "major": 1, "minor": 5});
        bundle.set("/linux/devices", json!([device, device]));
        assert_eq!(bundle.container().run().ok().stdout, "1:5\n");
    });
}

/// An overlay of many layers: fsconfig(2) takes 255 bytes of a value.
#[test]
fn an_overlay_with_a_long_list_of_layers() {
    case(|| {
        if !text("/proc/filesystems").contains("overlay") {
            skip!("no overlay file system in this kernel");
        }
        let mut bundle =
            Bundle::sh("cat /mnt/one /mnt/two; touch /mnt/x 2>/dev/null; grep ' /mnt ' /proc/self/mountinfo");
        let layer = |name: &str| {
            let path = bundle.directory.join(format!("{name}-{}", "x".repeat(150)));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(name), format!("{name}\n")).unwrap();
            path.display().to_string()
        };
        let lower = format!("lowerdir={}:{}", layer("one"), layer("two"));
        bundle.mount("/mnt", "overlay", "overlay", &["nosuid", "ro", &lower]);
        let printed = bundle.container().run().ok().stdout;
        let (layers, mount) = printed.split_at(8);
        assert_eq!(layers, "one\ntwo\n");
        assert!(at(&parse(mount), "/mnt").has("nosuid") && at(&parse(mount), "/mnt").has("ro"), "{printed}");
    });
}
