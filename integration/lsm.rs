//! Labels of security modules: refused where the kernel has no module that understands them, in force where it has.
//!
//! The guest of scripts/guest.sh has AppArmor with scripts/guest/apparmor.profile, or with `--lsm selinux` SELinux,
//! enforcing scripts/guest/selinux.cil.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::errors::broken;
use crate::support::{Bundle, Container, Output, WAITING, busybox, case, cgroup_v2, inside, ours, skip, text};

const PROFILE: &str = "runtime-test";
const BOX: &str = "sys_u:sys_r:box_t:s0:c1,c2";
const BOX_FILE: &str = "sys_u:sys_r:box_file_t:s0:c1,c2";

fn apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn selinux() -> bool {
    text("/proc/filesystems").contains("\tselinuxfs\n")
}

fn has_profile() -> bool {
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    loaded.lines().any(|line| line.starts_with(&format!("{PROFILE} ")))
}

fn has_policy() -> bool {
    selinux() && text("/proc/self/attr/current").starts_with("sys_u:sys_r:host_t:")
}

/// One line that begins with `line`, and the cure.
#[track_caller]
fn explained(container: &Container, output: Output, line: &str, hint: &str) {
    let output = output.fails();
    container.nothing_left();
    if ours() {
        let (first, second) = output.stderr.split_once('\n').unwrap();
        assert!(first.starts_with(line), "{first:?} does not begin with {line:?}");
        assert!(second.starts_with("hint: ") && second.contains(hint), "no hint with {hint:?}: {second:?}");
    }
}

/// A container of the base configuration with one more field.
fn with(pointer: &str, value: &str) -> Container {
    let mut bundle = Bundle::new();
    bundle.set(pointer, json!(value));
    bundle.container()
}

// ---------------------------------------------------------------------------------------------- no such module

#[test]
fn profile_without_apparmor() {
    case(|| {
        if apparmor() {
            skip!("AppArmor is enabled");
        }
        broken(
            |bundle| {
                bundle.set("/process/apparmorProfile", json!("docker-default"));
            },
            &["process.apparmorProfile: \"docker-default\": apparmor: config provided but apparmor not supported"],
        );
        let container = with("/process/apparmorProfile", "docker-default");
        explained(&container, container.create(), "process.apparmorProfile: \"docker-default\"", "leave it out");
    });
}

#[test]
fn labels_without_selinux() {
    case(|| {
        if selinux() {
            skip!("SELinux is enabled");
        }
        for (field, pointer) in
            [("process.selinuxLabel", "/process/selinuxLabel"), ("linux.mountLabel", "/linux/mountLabel")]
        {
            let line = format!("{field}: \"{BOX}\": selinux label is specified in config, but selinux is disabled");
            broken(
                |bundle| {
                    bundle.set(pointer, json!(BOX));
                },
                &[&line],
            );
            let container = with(pointer, BOX);
            explained(&container, container.create(), &line, "leave it out");
        }
    });
}

#[test]
fn empty_labels_are_none() {
    case(|| {
        inside("true", |bundle| {
            bundle.set("/process/apparmorProfile", json!("")).set("/process/selinuxLabel", json!(""));
            bundle.set("/linux/mountLabel", json!(""));
        });
    });
}

// ---------------------------------------------------------------------------------------------- AppArmor

#[test]
fn apparmor_profile_is_in_force() {
    case(|| {
        if !has_profile() {
            skip!("no AppArmor profile {PROFILE}");
        }
        let changes: [fn(&mut Bundle); 4] = [
            |_| {},
            |bundle| {
                bundle.set("/process/noNewPrivileges", json!(false));
            },
            |bundle| {
                bundle.set("/process/user/uid", json!(1000)).remove("/process/capabilities");
            },
            |bundle| {
                let all = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                bundle.namespace("user", None).set("/linux/uidMappings", all.clone()).set("/linux/gidMappings", all);
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let script = "cat /proc/self/attr/current; cat /allowed; cat /denied 2>&1";
            let mut bundle = Bundle::sh(&format!("{script}; true"));
            fs::write(bundle.rootfs().join("allowed"), "allowed\n").unwrap();
            fs::write(bundle.rootfs().join("denied"), "denied\n").unwrap();
            bundle.set("/process/apparmorProfile", json!(PROFILE));
            change(&mut bundle);
            let printed = bundle.container().run().ok().stdout;
            let expected = format!("{PROFILE} (enforce)\nallowed\ncat: can't open '/denied': Permission denied\n");
            assert_eq!(printed, expected, "change {index}");
        }
    });
}

#[test]
fn apparmor_unconfined_is_a_profile() {
    case(|| {
        if !apparmor() {
            skip!("no AppArmor");
        }
        let printed = inside("cat /proc/self/attr/current", |bundle| {
            bundle.set("/process/apparmorProfile", json!("unconfined"));
        });
        assert_eq!(printed, "unconfined\n");
    });
}

#[test]
fn apparmor_profile_that_is_not_loaded() {
    case(|| {
        if !apparmor() {
            skip!("no AppArmor");
        }
        let container = with("/process/apparmorProfile", "no-such-profile");
        let line = "process.apparmorProfile: unable to apply apparmor profile \"no-such-profile\": \
                    no such file or directory (ENOENT)";
        explained(&container, container.create(), line, "apparmor_parser -r");
        explained(&container, container.run(), line, "aa-status");
    });
}

/// A hook of the host is not confined; one of the container is, like its program.
#[test]
fn apparmor_profile_of_hooks() {
    case(|| {
        if !has_profile() {
            skip!("no AppArmor profile {PROFILE}");
        }
        let mut bundle = Bundle::new();
        let log = bundle.rootfs().join("log");
        let hook = |path: &Path, log: &Path| {
            let script = format!("cat > /dev/null; cat /proc/self/attr/current >> {}", log.display());
            json!([{"path": path, "args": ["sh", "-c", script]}])
        };
        bundle.set("/process/apparmorProfile", json!(PROFILE));
        bundle.set("/hooks/createContainer", hook(busybox(), &log));
        bundle.set("/hooks/startContainer", hook(Path::new("/bin/busybox"), Path::new("/log")));
        let container = bundle.container();
        container.run().ok();
        assert_eq!(text(log), format!("unconfined\n{PROFILE} (enforce)\n"));
    });
}

/// CVE-2019-16884, CVE-2025-52881: files in the image that look like those of procfs get nothing, the process its label.
#[test]
fn apparmor_profile_past_a_false_proc() {
    case(|| {
        if !has_profile() {
            skip!("no AppArmor profile {PROFILE}");
        }
        let mut bundle = Bundle::sh(WAITING);
        let files = ["self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec"]
            .map(|file| bundle.rootfs().join("proc").join(file));
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "untouched").unwrap();
        }
        bundle.unmount("/proc").set("/process/apparmorProfile", json!(PROFILE));
        bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        assert_eq!(text(format!("/proc/{}/attr/current", container.pid())), format!("{PROFILE} (enforce)\n"));
        for file in &files {
            assert_eq!(text(file), "untouched", "{}", file.display());
        }
    });
}

// ---------------------------------------------------------------------------------------------- SELinux

/// What a container writes to a pipe. The file that `run` gives it is one that box_t may not write.
fn piped(container: &Container) -> String {
    let mut io = container.create_io();
    container.start().ok();
    io.stdout.rest()
}

/// The label of the process, and that it denies: box_t may not write what is not box_file_t.
#[test]
fn selinux_label_is_in_force() {
    case(|| {
        if !has_policy() {
            skip!("no SELinux with the policy of scripts/guest");
        }
        for no_new_privileges in [true, false] {
            let mut bundle = Bundle::sh("cat /proc/self/attr/current; echo; echo new > /etc/group; cat /etc/group");
            bundle.set("/process/selinuxLabel", json!(BOX));
            bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
            fs::write(bundle.rootfs().join("etc/group"), "old\n").unwrap();
            let printed = piped(&bundle.container());
            assert_eq!(printed.replace('\0', ""), format!("{BOX}\nold\n"));
        }
    });
}

/// The mounts are labelled, so that box_t may write there; the root of mqueue by an attribute.
#[test]
fn selinux_mount_label_is_in_force() {
    case(|| {
        if !has_policy() {
            skip!("no SELinux with the policy of scripts/guest");
        }
        let mut bundle =
            Bundle::sh("echo new > /mnt/file && cat /mnt/file; cat /proc/self/mountinfo; echo ready; read line");
        bundle.set("/process/selinuxLabel", json!(BOX)).set("/linux/mountLabel", json!(BOX_FILE));
        bundle.mount("/mnt", "tmpfs", "tmpfs", &["size=1m"]);
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "new");
        let mounts = io.stdout.until("ready");
        let labelled: Vec<&str> = mounts
            .lines()
            .filter(|line| line.contains(&format!("context=\"{BOX_FILE}\"")))
            .map(|line| line.split(' ').nth(4).unwrap())
            .collect();
        for point in ["/dev", "/dev/pts", "/dev/shm", "/mnt", "/sys/firmware"] {
            let there = mounts.contains(&format!(" {point} "));
            assert!(labelled.contains(&point) || !there && point == "/sys/firmware", "{point}: {mounts}");
        }
        // On v1 it is a tmpfs with the hierarchies in it.
        assert_eq!(labelled.contains(&"/sys/fs/cgroup"), !cgroup_v2(), "{mounts}");
        for point in ["/", "/proc", "/sys", "/dev/mqueue"] {
            assert!(!labelled.contains(&point), "{point}: {mounts}");
        }
        let mut label = [0u8; 128];
        let mqueue = format!("/proc/{}/root/dev/mqueue", container.pid());
        let length = rustix::fs::getxattr(mqueue, "security.selinux", &mut label[..]).unwrap();
        assert_eq!(String::from_utf8_lossy(&label[..length]).trim_matches('\0'), BOX_FILE);
    });
}

/// /proc/keys lists what the reader may see: box_t sees a key of its own label, and not one of the runtime's.
#[test]
fn selinux_label_of_the_session_keyring() {
    case(|| {
        if !has_policy() {
            skip!("no SELinux with the policy of scripts/guest");
        }
        let mut bundle = Bundle::sh("cat /proc/keys");
        bundle.set("/process/selinuxLabel", json!(BOX)).set("/linux/maskedPaths", json!([]));
        let container = bundle.container();
        let keys = piped(&container);
        assert!(keys.contains(&container.id), "{keys:?}");
    });
}

#[test]
fn selinux_context_that_is_none() {
    case(|| {
        if !selinux() {
            skip!("no SELinux");
        }
        let hint = "the loaded SELinux policy has no such context";
        let container = with("/process/selinuxLabel", "sys_u:sys_r:no_such_t:s0");
        let line =
            "process.selinuxLabel: label the session keyring \"sys_u:sys_r:no_such_t:s0\": invalid argument (EINVAL)";
        explained(&container, container.create(), line, hint);
        let mut bundle = Bundle::new();
        bundle.set("/process/selinuxLabel", json!("sys_u:sys_r:no_such_t:s0"));
        let container = bundle.container();
        let line =
            "process.selinuxLabel: can't set process label \"sys_u:sys_r:no_such_t:s0\": invalid argument (EINVAL)";
        explained(&container, container.call_bundle("create", &["--no-new-keyring"]).run(), line, hint);
        let container = with("/linux/mountLabel", "sys_u:sys_r:no_such_t:s0");
        let line = "linux.mountLabel: tmpfs on \"/dev\" does not accept \"context=sys_u:sys_r:no_such_t:s0\": \
                    invalid argument (EINVAL)";
        explained(&container, container.create(), line, hint);
    });
}

/// The policy lets nobody become box_file_t by executing a file: only exec can tell.
#[test]
fn selinux_label_that_may_not_execute() {
    case(|| {
        if !has_policy() {
            skip!("no SELinux with the policy of scripts/guest");
        }
        let container = with("/process/selinuxLabel", BOX_FILE);
        container.create().ok();
        let output = container.start().fails();
        if ours() {
            let (first, second) = output.stderr.split_once('\n').unwrap();
            assert_eq!(first, "process.args[0]: exec /bin/true: permission denied (EACCES)");
            assert!(second.starts_with("hint: ") && second.contains("SELinux"), "{second:?}");
        }
    });
}
