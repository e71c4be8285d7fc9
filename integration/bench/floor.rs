//! The floor under `run` and `exec`: the system calls that the kernel needs for the container of the benchmark, one after the
//! other, and nothing else: no parsing, no state, no safety, no message. What a runtime costs is counted in multiples of it.
//!
//! ```text
//! floor empty                              the program's own start
//! floor run ROOTFS CPUS MEMS UNIFIED DIR...    a container of /bin/true, with these cgroups
//! floor hold ROOTFS CPUS MEMS UNIFIED DIR...   one that waits for its standard input to end, for `exec`
//! floor exec PID UNIFIED DIR...                /bin/true in it
//! floor leave ROOTFS CPUS MEMS UNIFIED DIR...  as run, but the cgroups stay
//! floor remove UNIFIED DIR...                  removes them
//! ```
//! UNIFIED (`-`: none) is joined by CLONE_INTO_CGROUP, each DIR of v1 by its `tasks`: neither waits.
#![no_main]
#![allow(unsafe_code, reason = "the calls are made raw: what a safe wrapper adds is not the kernel's")]

use std::ffi::{CStr, CString};

use libc::{c_char, c_int, c_long};

type Word = usize;

/// A system call; ends the program where it fails.
fn call(number: c_long, words: &[Word]) -> Word {
    let word = |n: usize| words.get(n).copied().unwrap_or(0);
    // SAFETY: the words are numbers, or point to strings and structures that outlive the call.
    let returned = unsafe { libc::syscall(number, word(0), word(1), word(2), word(3), word(4), word(5)) };
    if returned < 0 {
        // SAFETY: ends the process. Its status is the number of the call.
        unsafe { libc::_exit(number.min(250) as c_int) };
    }
    returned as Word
}

fn text(string: &CStr) -> Word {
    string.as_ptr() as Word
}

const AT: Word = libc::AT_FDCWD as Word;

fn open(path: &CStr, flags: c_int) -> Word {
    call(libc::SYS_openat, &[AT, text(path), (flags | libc::O_CLOEXEC) as Word])
}

fn write(file: Word, line: &[u8]) {
    call(libc::SYS_write, &[file, line.as_ptr() as Word, line.len()]);
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) {
    call(libc::SYS_mount, &[text(source), text(target), text(kind), flags as Word, text(data)]);
}

fn below(dir: &CStr, name: &str) -> CString {
    CString::new([dir.to_bytes(), b"/", name.as_bytes()].concat()).unwrap_or_default()
}

/// The entry point of the C library.
// SAFETY: there is no other `main`.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // SAFETY: the kernel has put `count` strings there, which live as long as the process.
    let words: Vec<&CStr> = (0..count as usize).map(|n| unsafe { CStr::from_ptr(*arguments.add(n)) }).collect();
    match words.get(1..).unwrap_or_default() {
        [what, rootfs, cpus, mems, unified, v1 @ ..] if what.to_bytes() == b"run" => {
            let cgroups = Cgroups { unified, v1 };
            run(rootfs, [cpus, mems], &cgroups, c"true");
            remove(&cgroups);
        }
        [what, rootfs, cpus, mems, unified, v1 @ ..] if what.to_bytes() == b"hold" => {
            let cgroups = Cgroups { unified, v1 };
            run(rootfs, [cpus, mems], &cgroups, c"cat");
            remove(&cgroups);
        }
        [what, rootfs, cpus, mems, unified, v1 @ ..] if what.to_bytes() == b"leave" => {
            run(rootfs, [cpus, mems], &Cgroups { unified, v1 }, c"true");
        }
        [what, unified, v1 @ ..] if what.to_bytes() == b"remove" => remove(&Cgroups { unified, v1 }),
        [what, pid, unified, v1 @ ..] if what.to_bytes() == b"exec" => exec(pid, &Cgroups { unified, v1 }),
        _ => {}
    }
    0
}

struct Cgroups<'a> {
    /// `-`: none.
    unified: &'a CStr,
    v1: &'a [&'a CStr],
}

impl<'a> Cgroups<'a> {
    fn unified(&self) -> Option<&'a CStr> {
        Some(self.unified).filter(|dir| dir.to_bytes() != b"-")
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = &'a CStr> {
        self.unified().into_iter().chain(self.v1.iter().copied())
    }

    fn join_v1(&self) {
        for dir in self.v1 {
            write(open(&below(dir, "tasks"), libc::O_WRONLY), b"0");
        }
    }
}

const NAMESPACES: c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

fn run(rootfs: &CStr, cpuset: [&CStr; 2], cgroups: &Cgroups<'_>, program: &CStr) {
    for dir in cgroups.all() {
        call(libc::SYS_mkdirat, &[AT, text(dir), 0o755]);
        if dir.to_bytes().starts_with(b"/sys/fs/cgroup/cpuset/") {
            for (file, value) in ["cpuset.cpus", "cpuset.mems"].into_iter().zip(cpuset) {
                write(open(&below(dir, file), libc::O_WRONLY), value.to_bytes());
            }
        }
    }
    let child = clone(NAMESPACES, cgroups.unified().map(|dir| open(dir, libc::O_PATH)));
    if child == 0 {
        cgroups.join_v1();
        become_container(rootfs, cgroups);
        execute(program);
    }
    wait(child);
}

fn remove(cgroups: &Cgroups<'_>) {
    for dir in cgroups.all().rev() {
        call(libc::SYS_unlinkat, &[AT, text(dir), libc::AT_REMOVEDIR as Word]);
    }
}

/// This process joins by itself, and its child has it all; a pid namespace is for children only.
fn exec(pid: &CStr, cgroups: &Cgroups<'_>) {
    let pid: Word = pid.to_str().ok().and_then(|pid| pid.parse().ok()).unwrap_or(0);
    let init = call(libc::SYS_pidfd_open, &[pid, 0]);
    let unified = cgroups.unified().map(|dir| open(dir, libc::O_PATH));
    cgroups.join_v1();
    call(libc::SYS_setns, &[init, NAMESPACES as Word]);
    let child = clone(0, unified);
    if child == 0 {
        drop_privileges();
        execute(c"true");
    }
    wait(child);
}

/// Words of `struct clone_args`.
fn clone(flags: c_int, unified: Option<Word>) -> Word {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let into = if unified.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let signal = libc::SIGCHLD as u64;
    let args = [flags as u64 | into, 0, 0, 0, signal, 0, 0, 0, 0, 0, unified.unwrap_or(0) as u64];
    call(libc::SYS_clone3, &[args.as_ptr() as Word, size_of_val(&args)])
}

const SAFE: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const READONLY: [&CStr; 4] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys"];
const MASKED_FILES: [&CStr; 3] = [c"proc/interrupts", c"proc/keys", c"proc/timer_list"];
const MASKED_DIRECTORIES: [&CStr; 2] = [c"proc/acpi", c"sys/firmware"];

fn become_container(rootfs: &CStr, cgroups: &Cgroups<'_>) {
    call(libc::SYS_setsid, &[]);
    call(libc::SYS_keyctl, &[libc::KEYCTL_JOIN_SESSION_KEYRING as Word, text(c"floor")]);
    mount(c"", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c"");
    mount(rootfs, rootfs, c"", libc::MS_BIND | libc::MS_REC, c"");
    call(libc::SYS_chdir, &[text(rootfs)]);
    mount(c"proc", c"proc", c"proc", 0, c"");
    mount(c"tmpfs", c"dev", c"tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, c"mode=755,size=65536k");
    for name in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        call(libc::SYS_mkdirat, &[AT, text(name), 0o755]);
    }
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(c"devpts", c"dev/pts", c"devpts", libc::MS_NOSUID | libc::MS_NOEXEC, pts);
    mount(c"shm", c"dev/shm", c"tmpfs", SAFE, c"mode=1777,size=65536k");
    mount(c"mqueue", c"dev/mqueue", c"mqueue", SAFE, c"");
    mount(c"sysfs", c"sys", c"sysfs", SAFE | libc::MS_RDONLY, c"");
    mount_cgroups(cgroups);
    make_devices();
    allow_devices(cgroups);
    for path in READONLY {
        mount(path, path, c"", libc::MS_BIND | libc::MS_REC, c"");
        mount(c"", path, c"", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, c"");
    }
    for path in MASKED_FILES {
        mount(c"/dev/null", path, c"", libc::MS_BIND, c"");
    }
    for path in MASKED_DIRECTORIES {
        mount(c"tmpfs", path, c"tmpfs", SAFE | libc::MS_RDONLY, c"");
    }
    call(libc::SYS_pivot_root, &[text(c"."), text(c".")]);
    call(libc::SYS_umount2, &[text(c"."), libc::MNT_DETACH as Word]);
    call(libc::SYS_chdir, &[text(c"/")]);
    mount(c"", c"/", c"", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, c"");
    call(libc::SYS_sethostname, &[text(c"floor"), 5]);
    loopback_up();
    drop_privileges();
}

fn mount_cgroups(cgroups: &Cgroups<'_>) {
    let target = c"sys/fs/cgroup";
    if cgroups.v1.is_empty() {
        mount(c"cgroup", target, c"cgroup2", SAFE | libc::MS_RDONLY, c"");
        return;
    }
    mount(c"tmpfs", target, c"tmpfs", SAFE, c"mode=755");
    for dir in cgroups.v1 {
        let name = dir.to_str().ok().and_then(|dir| dir.split('/').nth(4)).unwrap_or_default();
        let target = below(target, name);
        call(libc::SYS_mkdirat, &[AT, text(&target), 0o755]);
        mount(dir, &target, c"", libc::MS_BIND, c"");
        mount(c"", &target, c"", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | SAFE, c"");
    }
    mount(c"", target, c"", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | SAFE, c"");
}

fn make_devices() {
    for (name, major, minor) in [
        (c"dev/null", 1, 3),
        (c"dev/zero", 1, 5),
        (c"dev/full", 1, 7),
        (c"dev/random", 1, 8),
        (c"dev/urandom", 1, 9),
        (c"dev/tty", 5, 0),
    ] {
        let number = libc::makedev(major, minor);
        call(libc::SYS_mknodat, &[AT, text(name), (libc::S_IFCHR | 0o666) as Word, number as Word]);
    }
    for (to, name) in [
        (c"/proc/self/fd", c"dev/fd"),
        (c"/proc/self/fd/0", c"dev/stdin"),
        (c"/proc/self/fd/1", c"dev/stdout"),
        (c"/proc/self/fd/2", c"dev/stderr"),
        (c"pts/ptmx", c"dev/ptmx"),
    ] {
        call(libc::SYS_symlinkat, &[text(to), AT, text(name)]);
    }
}

/// The list of v1. On v2 it would be one program more to load.
fn allow_devices(cgroups: &Cgroups<'_>) {
    let Some(dir) = cgroups.v1.iter().find(|dir| dir.to_bytes().starts_with(b"/sys/fs/cgroup/devices/")) else {
        return;
    };
    write(open(&below(dir, "devices.deny"), libc::O_WRONLY), b"a");
    let allow = open(&below(dir, "devices.allow"), libc::O_WRONLY);
    for line in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm", "c 5:0 rwm", "c 1:5 rwm", "c 1:9 rwm"]
        .into_iter()
        .chain(["c 5:1 rwm", "c 136:* rwm", "c 5:2 rwm", "c 10:200 rwm"])
    {
        write(allow, line.as_bytes());
    }
}

fn loopback_up() {
    let socket = call(libc::SYS_socket, &[libc::AF_INET as Word, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as Word, 0]);
    // `struct ifreq`: the name, then the flags.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes());
    call(libc::SYS_ioctl, &[socket, libc::SIOCSIFFLAGS as Word, request.as_ptr() as Word]);
}

/// CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE: those of `spec`.
const KEPT: u64 = 1 << 29 | 1 << 5 | 1 << 10;

fn drop_privileges() {
    for capability in (0..=40).filter(|capability| KEPT & 1 << capability == 0) {
        call(libc::SYS_prctl, &[libc::PR_CAPBSET_DROP as Word, capability]);
    }
    let header = [0x2008_0522u32, 0];
    let (kept, none) = (KEPT as u32, 0u32);
    let sets = [kept, kept, none, none, none, none];
    call(libc::SYS_capset, &[header.as_ptr() as Word, sets.as_ptr() as Word]);
    let limit = [1024u64, 1024];
    call(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE as Word, limit.as_ptr() as Word, 0]);
    call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as Word, 1]);
}

fn execute(program: &CStr) -> ! {
    let arguments = [text(program), 0];
    let path = below(c"/bin", program.to_str().unwrap_or_default());
    call(libc::SYS_execve, &[text(&path), arguments.as_ptr() as Word, [0usize].as_ptr() as Word]);
    // SAFETY: ends the process.
    unsafe { libc::_exit(1) }
}

fn wait(child: Word) {
    let mut status = 0 as c_int;
    call(libc::SYS_wait4, &[child, (&raw mut status) as Word, 0, 0]);
    if status != 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(libc::WEXITSTATUS(status)) };
    }
}
