//! CVE-2019-5736: the program of the runtime is overwritten by who gets hold of it in a container. All that a handle on it
//! could be good for is tried, while it runs and when it has ended, by root with every capability too. Seen: each way with our
//! own runtime, without the sealed copy.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde_json::json;

use crate::mounts::Host;
use crate::namespaces::{mappings, user_namespaces};
use crate::support::{Bundle, Call, Container, WAITING, case, copy_program, link, ours, runtime, skip, systemd, text};

/// Not a test by itself: what runs in the container. Says what it could do.
#[test]
#[ignore = "a part of the tests of own_program"]
fn attacker() {
    let Ok(fifo) = std::env::var("ATTACK") else { return };
    println!("\nready");
    let own = link("/proc/self/exe");
    let exe = loop {
        let found = processes().find_map(|pid| {
            let path = format!("/proc/{pid}/exe");
            let other = fs::read_link(&path).is_ok_and(|name| name.as_os_str() != own.as_str());
            other.then(|| File::open(&path).ok()).flatten()
        });
        if let Some(found) = found {
            break found;
        }
    };
    println!("opened");
    let mut done = BTreeSet::new();
    attempts(&exe, &mut done);
    // It goes on when somebody reads what it writes.
    fs::read(&fifo).unwrap();
    // While it ends, and when nobody executes the file any more.
    while !Path::new(STOP).exists() {
        attempts(&exe, &mut done);
    }
    attempts(&exe, &mut done);
    done.iter().for_each(|what| println!("{what}"));
    println!("end");
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What could make a writable file of a descriptor of the program; adds what has worked.
fn attempts(exe: &File, done: &mut BTreeSet<&'static str>) {
    written(exe.as_fd(), "written", done);
    if mount_setattr_writable(exe.as_fd()) {
        done.insert("its mount was made writable");
        written(exe.as_fd(), "written on a mount that was made writable", done);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if let Ok(tree) = open_tree(exe, "", flags) {
        done.insert("its mount was copied");
        mount_setattr_writable(tree.as_fd());
        written(tree.as_fd(), "written on a copy of its mount", done);
    }
    if linkat(exe, "", CWD, "/linked", AtFlags::EMPTY_PATH).is_ok() {
        done.insert("it was linked");
    }
}

fn written(fd: BorrowedFd<'_>, what: &'static str, done: &mut BTreeSet<&'static str>) {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if OpenOptions::new().write(true).open(&path).is_ok() || OpenOptions::new().append(true).open(path).is_ok() {
        done.insert(what);
    }
}

/// Takes `MOUNT_ATTR_RDONLY` from the mount that a descriptor is on.
#[allow(unsafe_code, reason = "neither rustix nor nix has mount_setattr(2)")]
fn mount_setattr_writable(fd: BorrowedFd<'_>) -> bool {
    let attr = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    let path = CString::default();
    // SAFETY: the path and the attributes outlive the call, and their size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    result == 0
}

/// A copy of the runtime, which an attack may overwrite.
struct Victim {
    path: PathBuf,
    before: Vec<u8>,
}

impl Victim {
    fn new(directory: &Path) -> Self {
        let path = directory.join("victim");
        copy_program(runtime(), &path);
        let before = fs::read(&path).unwrap();
        Self { path, before }
    }

    /// The call by this program.
    fn call(&self, container: &Container, args: &[&str]) -> Call {
        let root = container.root().display().to_string();
        let driver = systemd().then_some("--systemd-cgroup");
        Call::new(&self.path).args(["--root", &root]).args(driver).args(args).cwd(&container.bundle.directory)
    }
}

const FIFO: &str = "/tmp/fifo";
const STOP: &str = "/tmp/stop";
/// The runtime itself as a program: it waits until somebody reads what it logs.
const ENTRY: [&str; 4] = ["/proc/self/exe", "--log=/tmp/fifo", "state", "nosuch"];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Exec,
    Run,
    Create,
}

fn attacked(way: Way, edit: impl Fn(&mut Bundle)) {
    let mut bundle = Bundle::new();
    edit(&mut bundle);
    copy_program(std::env::current_exe().unwrap(), bundle.rootfs().join("bin/attacker"));
    let own = ["attacker", "--exact", "hostile::own_program::attacker", "--ignored", "--nocapture", "--test-threads=1"];
    bundle.args(&own).set("/process/env", json!(["PATH=/bin", format!("ATTACK={FIFO}")]));
    let fifo = bundle.rootfs().join(&FIFO[1..]);
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    // Whoever is root in the container must be able to open it.
    let owner = bundle.config["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap_or(0) as u32;
    chown(&fifo, Some(owner), Some(owner)).unwrap();
    let container = bundle.container();
    let victim = Victim::new(&container.bundle.directory);
    chown(&victim.path, Some(owner), Some(owner)).unwrap();
    let mut io = container.create_io();
    container.start().ok();
    io.stdout.until("\nready\n");
    let other = match way {
        Way::Exec => None,
        _ => Some(other(&container, &edit)),
    };
    let running = match &other {
        None => victim.call(&container, &[&["exec", container.id.as_str()], &ENTRY[..]].concat()).spawn(),
        Some(other) if way == Way::Run => victim.call(other, &["run", &other.id]).spawn(),
        Some(other) => {
            victim.call(other, &["create", &other.id]).run().ok();
            victim.call(other, &["start", &other.id]).spawn()
        }
    };
    let output = running.wait();
    fs::write(container.bundle.rootfs().join(&STOP[1..]), "").unwrap();
    let said = io.stdout.until("end\n");
    assert_eq!(output.code() == 0, way == Way::Create, "{output:?}");
    assert_eq!(said, "opened\nend\n");
    assert!(fs::read(&victim.path).unwrap() == victim.before, "the runtime was overwritten");
}

/// A second container in the same root and pid namespace, and with the same rights, whose program is the runtime.
fn other(container: &Container, edit: &impl Fn(&mut Bundle)) -> Container {
    let mut bundle = Bundle::new();
    edit(&mut bundle);
    bundle.args(&ENTRY).set("/root/path", json!(container.bundle.rootfs()));
    let pid = container.pid();
    for kind in ["pid", "user"] {
        if bundle.config["linux"]["namespaces"].as_array().unwrap().iter().any(|one| one["type"] == kind) {
            bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{kind}")));
        }
    }
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let other = bundle.container();
    other.bundle.write();
    other
}

/// All that the kernel knows.
fn all() -> Vec<String> {
    let status = text("/proc/self/status");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    let names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
                 NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
                 SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
                 AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ \
                 PERFMON BPF CHECKPOINT_RESTORE";
    let names = names.split_whitespace().enumerate();
    names.filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

fn with_all_capabilities(bundle: &mut Bundle) {
    let all = all();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    bundle.capabilities(&all).set("/process/noNewPrivileges", json!(false));
    bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
}

/// Root of a user namespace to whom the file belongs, as in the container of an ordinary user.
fn with_user_namespace(bundle: &mut Bundle) {
    mappings(bundle.namespace("user", None));
    with_all_capabilities(bundle);
}

macro_rules! tests {
    ($($name:ident: $way:expr;)*) => {
        $(
            #[test]
            fn $name() {
                case(|| {
                    if !ours() {
                        skip!("the runtime as a container's program waits for a reader of its log");
                    }
                    attacked($way, |_| {});
                    attacked($way, with_all_capabilities);
                    if user_namespaces() {
                        attacked($way, with_user_namespace);
                    }
                });
            }
        )*
    };
}

tests! {
    cve_2019_5736_by_exec: Way::Exec;
    cve_2019_5736_by_run: Way::Run;
    cve_2019_5736_by_create_and_start: Way::Create;
}

/// Such a file system can become writable while a container has the program open, for an upgrade of the host for example.
#[test]
fn a_read_only_file_system_of_the_host_is_no_seal() {
    case(|| {
        if !ours() {
            skip!("the way of this runtime");
        }
        let container = Bundle::sh(WAITING).container();
        let directory = container.bundle.directory.join("usr");
        fs::create_dir(&directory).unwrap();
        let (path, program) = (directory.display(), directory.join("runtime"));
        let from = runtime();
        let host = Host::new(&format!(
            "mount -t tmpfs t {path}; cp {} {path}/runtime; mount -o remount,ro t {path}",
            from.display()
        ));
        container.bundle.write();
        let call = |words: &[&str]| {
            let root = container.root();
            host.call(Call::new(&program).args(["--root".as_ref(), root.as_os_str()]).args(words)).run().ok()
        };
        call(&["create", "--bundle", container.bundle.directory.to_str().unwrap(), &container.id]);
        assert_eq!(link(format!("/proc/{}/exe", container.pid())), "/", "not a mount of its own");
        call(&["delete", "--force", &container.id]);
        container.nothing_left();
    });
}

/// As when it is upgraded while it starts: it knows its sealed copy all the same, and does not make one after the other.
#[test]
fn a_program_that_is_removed_while_it_starts() {
    case(|| {
        let container = Bundle::sh("echo runs").container();
        container.bundle.write();
        let copy = container.bundle.directory.join("copy");
        crate::support::copy_program(runtime(), &copy);
        let (copy, root, bundle) = (copy.display(), container.root(), container.bundle.directory.display());
        let command = format!("--root {} run --bundle {bundle} {}", root.display(), container.id);
        let output = Call::sh(&format!("exec 9< {copy}; rm {copy}; exec /proc/self/fd/9 {command}")).run().ok();
        assert_eq!(output.stdout, "runs\n");
    });
}
