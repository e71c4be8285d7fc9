//! Published vulnerabilities of what a process gets, or is, that it should not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::namespaces::{mappings, user_namespaces};
use crate::support::{Bundle, Call, Container, Io, WAITING, case, ours, skip, text, with_io, write_program};

fn exec(container: &Container, options: &[&str], command: &[&str]) -> Call {
    container.call([&["exec"], options, &[container.id.as_str()], command].concat())
}

/// A running container, with its standard streams.
fn running(bundle: Bundle) -> (Container, Io) {
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    (container, io)
}

/// CVE-2020-15257: whoever shares the host's network reaches the abstract sockets there. The runtime has none that could be
/// reached (that listen, or get datagrams), whatever it does. Seen: with our own runtime and a socket bound for the test's sake.
#[test]
fn cve_2020_15257_no_abstract_socket() {
    case(|| {
        // Flags 00010000: listens. Type 0002: gets datagrams.
        let list = "awk '/@/ && ($4 == \"00010000\" || $5 == \"0002\")' /proc/net/unix";
        let mut bundle = Bundle::sh(&format!("{list}; {WAITING}"));
        bundle.no_namespace("network");
        let container = bundle.container();
        // In a network namespace that nobody else is in: the host's has the sockets of others.
        let (call, mut io) = with_io(container.call_bundle("run", &[]).below(["unshare", "-n"]));
        let running = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        assert_eq!(exec(&container, &[], &["sh", "-c", list]).run().ok().stdout, "");
        io.close();
        running.wait().ok();
    });
}

/// CVE-2016-10124, of `exec`: TIOCSTI into the caller's terminal. Seen: our own runtime without setsid(2).
#[test]
fn cve_2016_10124_exec_has_no_terminal_of_the_caller() {
    case(|| {
        let (container, _io) = running(Bundle::sh(WAITING));
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::openat(rustix::fs::CWD, name, flags, rustix::fs::Mode::empty()).unwrap();
        let script = "cut -d' ' -f7 /proc/$$/stat > /stat; (: < /dev/tty) && echo tty >> /stat; :";
        exec(&container, &[], &["sh", "-c", script]).on_terminal(&slave).run().ok();
        assert_eq!(text(container.bundle.rootfs().join("stat")), "0\n");
    });
}

/// CVE-2016-3697: a number that is also a name in the image's passwd is a number. CVE-2026-46680: so is a large one.
/// Seen: with our own runtime, looking the name up for the test's sake.
#[test]
fn cve_2016_3697_numbers_are_no_names() {
    case(|| {
        let mut bundle = Bundle::sh("id -u; id -g; echo ready; read line");
        let passwd = "1000:x:0:0::/root:/bin/sh\n4294967294:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n";
        fs::write(bundle.rootfs().join("etc/passwd"), passwd).unwrap();
        fs::write(bundle.rootfs().join("etc/group"), "1000:x:0:\n4294967294:x:0:\n").unwrap();
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        let said = [io.stdout.next(), io.stdout.next(), io.stdout.next()];
        assert_eq!(said, ["1000", "1000", "ready"]);
        for id in ["1000", "4294967294"] {
            let user = format!("{id}:{id}");
            let output = exec(&container, &["--user", &user], &["sh", "-c", "id -u; id -g"]).run();
            assert!(output.code() != 0 && !ours() || output.stdout == format!("{id}\n{id}\n"), "{output:?}");
        }
    });
}

/// CVE-2016-8867: a process that is not root's has the container's capabilities as ambient ones, though nobody asked for
/// that. Seen: with our own runtime, with all ambient ones for the test's sake.
#[test]
fn cve_2016_8867_no_capabilities_for_another_user() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        bundle.capabilities(&["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"]).set("/process/noNewPrivileges", json!(false));
        let (container, _io) = running(bundle);
        let command = ["grep", "-E", "CapInh|CapPrm|CapEff|CapAmb", "/proc/self/status"];
        let output = exec(&container, &["--user", "1000:1000"], &command).run().ok();
        let none = |name: &str| format!("{name}:\t0000000000000000\n");
        assert_eq!(output.stdout, ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(none).concat());
    });
}

/// Programs that a runtime, or what it is linked with, may want to execute on the host.
const HELPERS: &[&str] = &[
    "newuidmap",
    "newgidmap",
    "criu",
    "passt",
    "pasta",
    "slirp4netns",
    "systemctl",
    "modprobe",
    "iptables",
    "nft",
    "ldconfig",
    "apparmor_parser",
    "fusermount3",
];

/// CVE-2026-84042: a helper is looked for when the root is the container's already, and a program of the image is executed
/// with the rights of the host. That the trap would tell is seen at its end.
#[test]
fn cve_2026_84042_no_helper_is_taken_from_the_image() {
    case(|| {
        for user_namespace in [false, true] {
            if user_namespace && !user_namespaces() {
                skip!("no user namespaces");
            }
            let mut bundle = Bundle::sh(WAITING);
            if user_namespace {
                mappings(bundle.namespace("user", None));
            }
            for directory in ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"] {
                let directory = bundle.rootfs().join(directory);
                fs::create_dir_all(&directory).unwrap();
                for helper in HELPERS {
                    let program = directory.join(helper);
                    write_program(&program, "#!/bin/sh\necho \"$0\" >> /trap/ran\n");
                }
            }
            let trap = bundle.rootfs().join("trap");
            fs::create_dir(&trap).unwrap();
            fs::set_permissions(&trap, fs::Permissions::from_mode(0o777)).unwrap();
            let (container, _io) = running(bundle);
            exec(&container, &[], &["true"]).run().ok();
            container.command(&["kill"], &["0"]).ok();
            assert_eq!(text(trap.join("ran")), "", "executed of the image");
            exec(&container, &[], &["criu"]).run().ok();
            assert_eq!(text(trap.join("ran")).lines().count(), 1);
            container.stop();
            container.command(&["delete"], &[]).ok();
            assert_eq!(text(trap.join("ran")).lines().count(), 1, "executed of the image");
        }
    });
}
