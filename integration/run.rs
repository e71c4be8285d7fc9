//! `run`: exit codes, streams, signals, and what is left afterwards.

use std::fs::{self, File};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Bundle, Call, Container, case, inside, ours, runtime, scale, skip, text, wait_for_end, with_io};

#[test]
fn a_hundred_in_sequence() {
    case(|| {
        let container = Bundle::new().container();
        for round in 0..scale() {
            let output = container.run();
            assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "round {round}");
        }
        container.nothing_left();
    });
}

#[test]
fn eight_at_a_time() {
    case(|| {
        let containers: Vec<Container> = (0..8).map(|_| Bundle::new().container()).collect();
        for round in 0..scale().div_ceil(8) {
            let calls: Vec<_> = containers.iter().map(|one| one.call_bundle("run", &[]).spawn()).collect();
            for call in calls {
                let output = call.wait();
                assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "round {round}");
            }
        }
        for container in &containers {
            container.nothing_left();
        }
    });
}

/// Scripts of a shell, and what `run` and `exec` of it exit with.
pub(crate) const EXIT_CODES: [(&str, i32); 7] = [
    ("exit 0", 0),
    ("exit 3", 3),
    ("exit 125", 125),
    ("exit 255", 255),
    ("kill -KILL $$", 128 + 9),
    ("kill -TERM $$", 128 + 15),
    ("kill -SEGV $$", 128 + 11),
];

#[test]
fn exit_codes() {
    case(|| {
        for (script, code) in EXIT_CODES {
            // The first process of a pid namespace is immune to signals from within.
            let mut bundle = Bundle::sh(script);
            bundle.no_namespace("pid");
            let container = bundle.container();
            assert_eq!(container.run().code(), code, "{script}");
            container.nothing_left();
        }
    });
}

#[test]
fn streams_are_passed_through() {
    case(|| {
        let container = Bundle::sh("cat; echo problem >&2").container();
        let input = container.bundle.directory.join("input");
        fs::write(&input, "one\ntwo\n").unwrap();
        let output = container.call_bundle("run", &[]).stdin(File::open(&input).unwrap()).run().ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\ntwo\n", "problem\n"));
    });
}

#[test]
fn a_megabyte_goes_through_a_pipe() {
    case(|| {
        let container = Bundle::sh("head -c 1000000 /dev/zero | tr '\\0' x").container();
        let (call, mut io) = with_io(container.call_bundle("run", &[]));
        let running = call.spawn();
        assert_eq!(io.stdout.rest().len(), 1_000_000);
        running.wait().ok();
    });
}

#[test]
fn closed_standard_streams_do_not_become_something_else() {
    case(|| {
        let container = Bundle::sh("echo 0123; exec 3<&0").container();
        container.bundle.write();
        let call = container.call_bundle("run", &[]);
        // With fd 0 to 2 closed, the first files that a runtime opens would become the container's streams.
        let closed = call.below(["sh", "-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh"]).run();
        assert!(closed.code() < 128, "{closed:?}");
        container.command(&["delete", "--force"], &[]);
        container.nothing_left();
    });
}

#[test]
fn signals_are_forwarded() {
    case(|| {
        for (signal, name) in
            [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")]
        {
            let script = format!("trap 'echo got {name}; exit 5' {name}; echo ready; while read line; do :; done");
            let container = Bundle::sh(&script).container();
            let (call, mut io) = with_io(container.call_bundle("run", &[]));
            let running = call.spawn();
            assert_eq!(io.stdout.next(), "ready");
            running.signal(signal);
            assert_eq!((running.wait().code(), io.stdout.rest().as_str()), (5, format!("got {name}\n").as_str()));
            container.nothing_left();
        }
    });
}

#[test]
fn sigterm_without_a_handler_in_the_host_pid_namespace_gives_143() {
    case(|| {
        let mut bundle = Bundle::sh(crate::support::WAITING);
        bundle.no_namespace("pid");
        let container = bundle.container();
        let (call, mut io) = with_io(container.call_bundle("run", &[]));
        let running = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        running.signal(Signal::TERM);
        assert_eq!(running.wait().code(), 143);
        container.nothing_left();
    });
}

#[test]
fn keep_leaves_a_stopped_container() {
    case(|| {
        let container = Bundle::sh("exit 4").container();
        assert_eq!(container.call_bundle("run", &["--keep"]).run().code(), 4);
        assert_eq!(container.status(), "stopped");
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn detach_returns_while_the_container_runs() {
    case(|| {
        for flag in ["--detach", "-d"] {
            let container = Bundle::sh(crate::support::WAITING).container();
            let file = container.bundle.directory.join("pid");
            let (call, mut io) = with_io(container.call_bundle("run", &[flag, "--pid-file", file.to_str().unwrap()]));
            call.run().ok();
            assert_eq!(io.stdout.next(), "ready");
            assert_eq!(container.status(), "running");
            let pid = container.pid();
            assert_eq!(text(&file), pid.to_string());
            io.close();
            wait_for_end(pid);
            assert_eq!(container.status(), "stopped");
            container.command(&["delete"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn pid_file_of_a_foreground_run() {
    case(|| {
        let container = Bundle::sh(crate::support::WAITING).container();
        let file = container.bundle.directory.join("pid");
        let (call, mut io) = with_io(container.call_bundle("run", &["--pid-file", file.to_str().unwrap()]));
        let running = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        let pid = container.pid().to_string();
        // Only `create` and `run --detach` promise the file at their end: here it comes while the container runs.
        crate::support::eventually("the pid file", || text(&file) == pid);
        io.close();
        running.wait().ok();
    });
}

#[test]
fn bundle_is_the_working_directory_by_default() {
    case(|| {
        let container = Bundle::sh("echo here").container();
        container.bundle.write();
        let output = container.call(["run", &container.id]).run().ok();
        assert_eq!(output.stdout, "here\n");
    });
}

#[test]
fn program_that_is_not_there() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.args(&["nosuch"]);
        let container = bundle.container();
        let output = container.run().fails();
        assert!(output.stderr.contains("executable file not found in $PATH"), "{output:?}");
        assert!(output.stderr.contains("nosuch"), "{output:?}");
        container.create().fails();
        container.nothing_left();
    });
}

#[test]
fn program_with_a_path_that_is_not_there() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.args(&["/bin/nosuch"]);
        let output = bundle.container().create().fails();
        assert!(output.stderr.to_lowercase().contains("no such file or directory"), "{output:?}");
    });
}

#[test]
fn program_that_may_not_be_executed() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.args(&["/etc/passwd"]);
        let output = bundle.container().create().fails();
        assert!(output.stderr.to_lowercase().contains("permission denied"), "{output:?}");
    });
}

#[test]
fn program_that_is_a_directory() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.args(&["/etc"]);
        let output = bundle.container().create().fails().stderr.to_lowercase();
        assert!(output.contains("is a directory") || output.contains("permission denied"), "{output:?}");
    });
}

#[test]
fn a_program_is_looked_up_in_the_path_of_the_container() {
    case(|| {
        let printed = inside("ignored", |bundle| {
            fs::create_dir(bundle.rootfs().join("odd")).unwrap();
            std::os::unix::fs::symlink("/bin/busybox", bundle.rootfs().join("odd/echo")).unwrap();
            bundle.set("/process/env", json!(["PATH=/nowhere:/odd"])).args(&["echo", "odd"]);
        });
        assert_eq!(printed, "odd\n");
    });
}

/// Socket activation, sd_listen_fds(3): what is passed to the runtime itself is the program's.
#[test]
fn sockets_of_socket_activation() {
    case(|| {
        let bundle = Bundle::sh("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3; readlink /proc/self/fd/4");
        let file = bundle.directory.join("file");
        fs::write(&file, "three\n").unwrap();
        bundle.write();
        let container = bundle.container();
        for (pid, printed) in [("$$", "1 1 web\nthree\n"), ("1", "\n")] {
            let script = format!(
                "export LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\" 3<{} 4</dev/zero",
                file.display()
            );
            let output = container.call_bundle("run", &[]).wrapped(["/bin/sh", "-c", &script]).run();
            assert_eq!(output.stdout, printed, "{output:?}");
        }
    });
}

#[test]
fn preserved_descriptors() {
    case(|| {
        // Written by the shell: fd 3 and 4 are preserved, 5 is not.
        let container =
            Bundle::sh("readlink /proc/self/fd/3; readlink /proc/self/fd/4; [ -e /proc/self/fd/5 ] || echo none")
                .container();
        for name in ["a", "b", "c"] {
            fs::write(container.bundle.directory.join(name), "").unwrap();
        }
        let output = container
            .call_bundle("run", &["--preserve-fds", "2"])
            .below(["sh", "-c", "exec 3<a 4<b 5<c; exec \"$@\"", "sh"])
            .run()
            .ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert!(
            lines.len() == 3 && lines[0].ends_with("/a") && lines[1].ends_with("/b") && lines[2] == "none",
            "{lines:?}"
        );
    });
}

#[test]
fn a_directory_as_argument_runs_that_bundle() {
    case(|| {
        if !ours() {
            skip!("a command of this project's runtime");
        }
        let mut bundle = Bundle::sh("echo $((6 * 7)); exit 3");
        bundle.set("/linux/cgroupsPath", Value::Null).remove("/linux/cgroupsPath");
        let container = bundle.container();
        container.bundle.write();
        let root = container.root().display().to_string();
        for (directory, cwd) in [
            (format!("{}/", container.bundle.directory.display()), "/".into()),
            ("./".into(), container.bundle.directory.clone()),
        ] {
            let output = Call::new(runtime()).args(["--root", &root, "run", &directory]).cwd(cwd).run();
            assert_eq!((output.code(), output.stdout.as_str()), (3, "42\n"), "{output:?}");
            let left: Vec<_> =
                fs::read_dir(container.root()).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert!(left.iter().all(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
        }
    });
}

#[test]
fn status_is_told_although_somebody_deletes_the_container() {
    case(|| {
        let (container, mut io, running) = {
            let container = Bundle::sh(crate::support::WAITING).container();
            let (call, io) = crate::support::with_io(container.call_bundle("run", &[]));
            (container, io, call.spawn())
        };
        assert_eq!(io.stdout.next(), "ready");
        container.command(&["delete", "--force"], &[]).ok();
        assert_eq!(running.wait().code(), 137);
        container.nothing_left();
    });
}

#[test]
fn two_bundles_are_one_too_many() {
    case(|| {
        if !ours() {
            return;
        }
        let container = Bundle::new().container();
        let path = format!("{}/", container.bundle.directory.display());
        let output = container.call(["run", "--bundle", "/tmp", &path]).run().fails();
        assert!(output.stderr.starts_with("--bundle: "), "{output:?}");
    });
}

/// The caller may be pinned to some processors, as the daemons of a host are whose others are the containers'.
#[test]
fn processors_are_not_those_of_the_caller() {
    case(|| {
        let allowed =
            |status: &str| status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).map(str::to_owned);
        let container = Bundle::sh("cat /proc/self/status").container();
        let all = allowed(&container.run().ok().stdout).unwrap();
        let first = all.trim_start_matches("Cpus_allowed_list:\t").split(['-', ',']).next().unwrap();
        if all.ends_with(&format!("\t{first}")) {
            skip!("one processor only");
        }
        let mask = format!("{:x}", 1u128 << first.parse::<u32>().unwrap());
        let pinned = ["taskset", mask.as_str()];
        let output = container.call_bundle("run", &[]).below(pinned).run().ok();
        assert_eq!(allowed(&output.stdout).as_ref(), Some(&all), "init");
        let (container, _io) = Container::running();
        let output = container.call(["exec", &container.id, "cat", "/proc/self/status"]).below(pinned).run().ok();
        assert_eq!(allowed(&output.stdout), Some(all), "exec");
    });
}
