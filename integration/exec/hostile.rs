//! A container that attacks who joins it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{call, only_init_is_left};
use crate::namespaces::{mappings, user_namespaces};
use crate::support::{
    Bundle, Call, Container, busybox, case, copy_program, ours, runtime, scale, skip, with_io, write_program,
};

/// CVE-2024-21626: a descriptor of the caller, or of the runtime, as working directory or as a way to the program.
/// Seen: crun 1.8.1.
#[test]
fn cve_2024_21626_descriptors_of_the_host() {
    case(|| {
        let (container, _io) = Container::running();
        let link = container.bundle.rootfs().join("link");
        let open = "exec 3</ 4</proc 5<. 7</; exec \"$@\"";
        let below = |call: Call| call.below(["sh", "-c", open, "sh"]).run();
        for number in 3..20 {
            let directory = format!("/proc/self/fd/{number}");
            for cwd in [directory.clone(), format!("{directory}/etc"), format!("/proc/1/root{directory}")] {
                let output = below(call(&container, &["--cwd", &cwd], &["sh", "-c", "pwd; ls ../../.."]));
                assert!(output.code() == 255 && output.stdout.is_empty(), "cwd {cwd}: {output:?}");
            }
            for program in [format!("{directory}{}", busybox().display()), format!("{directory}/../bin/busybox")] {
                let output = below(call(&container, &[], &[&program, "true"]));
                assert_eq!(output.code(), 255, "program {program}: {output:?}");
            }
            symlink(&directory, &link).unwrap();
            for cwd in ["/link", "/link/etc"] {
                let output = below(call(&container, &["--cwd", cwd], &["true"]));
                assert_eq!(output.code(), 255, "link to {directory}: {output:?}");
            }
            fs::remove_file(&link).unwrap();
        }
        only_init_is_left(&container);
    });
}

/// Prints what it can see of other processes, until it is told to stop. `ls -l` is one process for all links.
const WATCHER: &str = "echo ready; while [ ! -e /tmp/stop ]; do \
                       ls -l /proc/[0-9]*/exe /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/fd/* 2>/dev/null; \
                       done; echo end";

/// Whether a container's own process may have this.
fn is_harmless(target: &str) -> bool {
    let starts = ["pipe:[", "/dev/null", "/memfd:output", "/proc/"];
    target == "/" || target == "/bin/busybox" || starts.iter().any(|start| target.starts_with(start))
}

fn watched(edit: impl FnOnce(&mut Bundle)) {
    watched_while(edit, |container| {
        let output = call(container, &[], &["true"]).run().ok();
        assert_eq!(output.stderr, "");
    });
}

/// What a container sees of others while something is done again and again.
fn watched_while(edit: impl FnOnce(&mut Bundle), join: impl Fn(&Container)) {
    let mut bundle = Bundle::sh(WATCHER);
    edit(&mut bundle);
    let container = bundle.container();
    let mut io = container.create_io();
    let reader = std::thread::spawn(move || {
        assert_eq!(io.stdout.next(), "ready");
        io.stdout.rest()
    });
    container.start().ok();
    for _ in 0..scale() * 7 / 10 {
        join(&container);
    }
    fs::write(container.bundle.rootfs().join("tmp/stop"), "").unwrap();
    let seen = reader.join().unwrap();
    assert!(seen.ends_with("end\n"));
    let targets: Vec<&str> = seen.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, to)| to).collect();
    assert!(targets.len() > 100, "the watcher saw nothing");
    let found: Vec<&str> = targets.into_iter().filter(|target| !is_harmless(target)).collect();
    assert!(found.is_empty(), "seen of the joining process: {found:?}");
}

/// CVE-2016-9962: the container's processes look into the joining one, which has descriptors of the host.
#[test]
fn cve_2016_9962_joining_process_cannot_be_looked_into() {
    case(|| watched(|_| {}));
}

#[test]
fn cve_2016_9962_in_a_user_namespace() {
    case(|| {
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        // Even by who has every right in the container's user namespace.
        watched(|bundle| {
            mappings(bundle.namespace("user", None)).capabilities(&["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
            bundle.set("/process/noNewPrivileges", json!(false));
        });
    });
}

/// The same of a container that joins the pid namespace of another and gets a user namespace: whoever is root on the
/// host by number owns that one, and has every right over who is in it. Seen: with our own runtime, while init could be
/// dumped until it had its ids.
#[test]
fn cve_2016_9962_joining_init_cannot_be_looked_into() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        if !user_namespaces() {
            skip!("no user namespaces");
        }
        watched_while(
            |_| {},
            |container| {
                let mut bundle = Bundle::new();
                mappings(bundle.namespace("user", None)).unmount("/proc");
                bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
                bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", container.pid())));
                let output = bundle.container().run().ok();
                assert_eq!(output.stderr, "");
            },
        );
    });
}

// ---------------------------------------------------------------------------------------------- our own program

/// A copy of the runtime, which an attack may overwrite.
fn victim(container: &Container) -> (PathBuf, Vec<u8>) {
    let copy = container.bundle.directory.join("victim");
    copy_program(runtime(), &copy);
    (copy.clone(), fs::read(&copy).unwrap())
}

fn call_victim(container: &Container, victim: &Path, command: &[&str]) -> Call {
    let root = container.root().display().to_string();
    Call::new(victim).args(["--root", &root, "exec", &container.id]).args(command)
}

/// Opens the program of the process that is not a busybox, holds it, and tries to write to it while it runs and when it
/// has ended.
const WRITER: &str = "mkfifo /tmp/fifo; echo ready; \
    while :; do for p in /proc/[0-9]*; do \
        exe=$(readlink $p/exe) || continue; \
        case $exe in */busybox) continue;; esac; \
        (: < $p/exe) 2>/dev/null && exec 9< $p/exe && break 2; \
    done; done; \
    echo opened; (echo x > /proc/self/fd/9) 2>/dev/null && echo written; (echo x > $p/exe) 2>/dev/null && echo written; \
    cat /tmp/fifo > /dev/null; while [ -e $p/exe ]; do :; done; \
    n=0; while [ $n -lt 100 ]; do (echo x > /proc/self/fd/9) 2>/dev/null && echo written; n=$((n + 1)); done; \
    mount -o remount,rw /proc/self/fd/9 2>/dev/null && echo remounted; echo end; read line";

/// CVE-2019-5736: the runtime's program is overwritten by way of /proc/PID/exe.
fn overwritten(edit: impl FnOnce(&mut Bundle)) {
    let mut bundle = Bundle::sh(WRITER);
    edit(&mut bundle);
    let container = bundle.container();
    let mut io = container.create_io();
    let (victim, before) = victim(&container);
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    // The program is the runtime itself, which waits until somebody reads what it logs.
    let command = ["/proc/self/exe", "--log=/tmp/fifo", "state", "nosuch"];
    let running = call_victim(&container, &victim, &command).spawn();
    let mut said = Vec::new();
    while said.last().is_none_or(|word| word != "end") {
        said.push(io.stdout.next());
    }
    running.wait().fails();
    assert_eq!(said, ["opened", "end"]);
    assert!(fs::read(&victim).unwrap() == before, "the runtime was overwritten");
}

#[test]
fn cve_2019_5736_own_program_cannot_be_overwritten() {
    case(|| {
        overwritten(|_| {});
        overwritten(|bundle| {
            let capabilities = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_FOWNER"];
            bundle.capabilities(&capabilities).set("/process/noNewPrivileges", json!(false));
        });
    });
}

#[test]
fn cve_2019_5736_script_whose_interpreter_is_the_runtime() {
    case(|| {
        let (container, _io) = Container::running();
        let (victim, before) = victim(&container);
        let script = container.bundle.rootfs().join("bin/entry");
        for line in ["#!/proc/self/exe", "#!/proc/self/exe delete", "#!/proc/thread-self/exe state"] {
            write_program(&script, format!("{line}\n"));
            call_victim(&container, &victim, &["entry"]).run().fails();
        }
        assert!(fs::read(&victim).unwrap() == before, "the runtime was overwritten");
        only_init_is_left(&container);
    });
}

/// What the caller has as standard streams must not become a way out: the null device is the container's.
#[test]
fn streams_of_the_null_device_are_the_containers() {
    case(|| {
        let (container, _io) = Container::running();
        let (exec, mut io) =
            with_io(call(&container, &[], &["sh", "-c", "stat -L -c %m /proc/self/fd/2; stat -c %m /dev/null"]));
        let null = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        let running = exec.stderr(null).spawn();
        let said = io.stdout.rest();
        running.wait().ok();
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{said}");
    });
}

/// A container that has none of its own does not get the host's, whose mode and owner it could change.
#[test]
fn the_hosts_null_device_does_not_take_the_place_of_one_that_is_gone() {
    case(|| {
        let (container, _io) = Container::running();
        call(&container, &[], &["rm", "/dev/null"]).run().ok();
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        // The mode that it has, for the host's sake.
        let output = call(&container, &[], &["chmod", "666", "/proc/self/fd/0"]).stdin(null).run().fails();
        assert!(!ours() || output.stderr.contains("Read-only file system"), "{output:?}");
    });
}
