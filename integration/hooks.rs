//! Hooks: when, where and with what they are run, and what their failure does.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Bundle, Container, WAITING, busybox, case, eventually, link, ours, runtime, text, wait_for_end, with_io,
};

/// A hook that runs a shell script in the runtime's file system, with the state on its stdin.
fn reading_hook(script: &str) -> Value {
    json!({"path": busybox(), "args": ["sh", "-c", script]})
}

/// The same in the container's.
fn inner_reading_hook(script: &str) -> Value {
    json!({"path": "/bin/busybox", "args": ["sh", "-c", script]})
}

/// A hook that takes the state and runs a script then.
fn hook(script: &str) -> Value {
    reading_hook(&format!("cat > /dev/null; {script}"))
}

/// The same in the container.
fn inner_hook(script: &str) -> Value {
    inner_reading_hook(&format!("cat > /dev/null; {script}"))
}

const CREATING: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

#[test]
fn hooks_run_in_order() {
    case(|| {
        let mut bundle = Bundle::sh("echo program >> /log");
        let log = bundle.rootfs().join("log");
        let outer = |word: &str| hook(&format!("echo {word} >> {}", log.display()));
        bundle.set(
            "/hooks",
            json!({
                "poststop": [outer("poststop")],
                "startContainer": [inner_hook("echo startContainer1 >> /log"), inner_hook("echo startContainer2 >> /log")],
                "createContainer": [outer("createContainer1"), outer("createContainer2")],
                "createRuntime": [outer("createRuntime1"), outer("createRuntime2")],
                "prestart": [outer("prestart1"), outer("prestart2")]
            }),
        );
        let container = bundle.container();
        let (call, mut io) = with_io(container.call_bundle("create", &[]));
        call.run().ok();
        let created = "prestart1 prestart2 createRuntime1 createRuntime2 createContainer1 createContainer2";
        assert_eq!(words(&log), created);
        let pid = container.pid();
        container.start().ok();
        io.stdout.rest();
        wait_for_end(pid);
        let started = format!("{created} startContainer1 startContainer2 program");
        assert_eq!(words(&log), started);
        container.command(&["delete"], &[]).ok();
        assert_eq!(words(&log), format!("{started} poststop"));
        container.nothing_left();
    });
}

fn words(file: &std::path::Path) -> String {
    text(file).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn poststart_runs_before_start_returns() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        let log = bundle.directory.join("log");
        bundle.set("/hooks", json!({"poststart": [hook(&format!("echo poststart >> {}", log.display()))]}));
        let container = bundle.container();
        let _io = container.create_io();
        assert_eq!(words(&log), "");
        container.start().ok();
        assert_eq!(words(&log), "poststart");
    });
}

#[test]
fn poststart_runs_after_the_program_was_executed() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        let log = bundle.directory.join("log");
        // The pid is in the state; its command line is the program's once it has been executed.
        let script = format!(
            "read state; pid=${{state#*\\\"pid\\\":}}; pid=${{pid%%,*}}; cat /proc/$((pid))/cmdline > {}",
            log.display()
        );
        bundle.set("/hooks", json!({"poststart": [reading_hook(&script)]}));
        let container = bundle.container();
        let _io = container.create_io();
        container.start().ok();
        assert!(text(&log).starts_with("sh\0-c\0echo ready"), "{:?}", text(&log));
    });
}

/// The caller's umask outside, as with runc; inside that of the container.
#[test]
fn hooks_have_the_umask_of_who_runs_them() {
    case(|| {
        let mut bundle = Bundle::sh("true");
        let log = bundle.directory.join("log");
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            bundle.set(&format!("/hooks/{name}"), json!([hook(&format!("umask >> {}", log.display()))]));
        }
        bundle.set("/hooks/startContainer", json!([inner_hook("umask > /umask")]));
        bundle.set("/process/user/umask", json!(0o37));
        let container = bundle.container();
        container.call_bundle("run", &[]).below(["sh", "-c", "umask 0026; exec \"$@\"", "sh"]).run().ok();
        assert_eq!(words(&log), ["0026"; 5].join(" "));
        assert_eq!(text(container.bundle.rootfs().join("umask")), "0037\n");
    });
}

#[test]
fn hooks_get_the_state_on_stdin() {
    case(|| {
        let mut bundle = Bundle::sh("true");
        let file = |name: &str| bundle.directory.join(name);
        let files =
            ["prestart", "createRuntime", "createContainer", "poststart", "poststop"].map(|name| (name, file(name)));
        for (name, file) in &files {
            let value = json!([reading_hook(&format!("cat > {}", file.display()))]);
            crate::support::set(&mut bundle.config, &format!("/hooks/{name}"), value);
        }
        bundle.set("/hooks/startContainer", json!([inner_reading_hook("cat > /startContainer")]));
        bundle.set("/annotations", json!({"org.example.key": "value"}));
        let inner = bundle.rootfs().join("startContainer");
        let directory = bundle.directory.clone();
        let container = bundle.container();
        container.create().ok();
        let pid = container.pid();
        container.start().ok();
        wait_for_end(pid);
        container.command(&["delete"], &[]).ok();
        let statuses = [
            (files[0].1.clone(), &["creating", "created"][..], true),
            (files[1].1.clone(), &["creating", "created"], true),
            (files[2].1.clone(), &["creating", "created"], false),
            (inner, &["created"], false),
            (files[3].1.clone(), &["running"], true),
            (files[4].1.clone(), &["stopped"], false),
        ];
        for (file, allowed, host_pid) in statuses {
            let state: Value = serde_json::from_str(&text(&file)).unwrap_or_else(|error| panic!("{file:?}: {error}"));
            assert_eq!(state["id"], json!(container.id), "{file:?}");
            assert_eq!(state["bundle"], json!(directory), "{file:?}");
            assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{file:?}");
            assert_eq!(state["annotations"]["org.example.key"], "value", "{file:?}");
            assert!(allowed.contains(&state["status"].as_str().unwrap()), "{file:?}: {state}");
            if host_pid {
                assert_eq!(state["pid"], json!(pid), "{file:?}");
            }
        }
    });
}

#[test]
fn hooks_have_their_own_environment_and_arguments() {
    case(|| {
        let mut bundle = Bundle::new();
        let (environ, words) = (bundle.directory.join("environ"), bundle.directory.join("words"));
        // Not read by a shell, which has variables of its own making.
        let copy =
            json!({"path": busybox(), "args": ["cp", "/proc/self/environ", environ], "env": ["ONLY=this", "A="]});
        let script = format!("echo $0 $1 > {}", words.display());
        let print = json!({"path": busybox(), "args": ["sh", "-c", script, "zero", "one"]});
        bundle.set("/hooks/createRuntime", json!([copy, print]));
        let container = bundle.container();
        container.call_bundle("run", &[]).env("SECRET_OF_THE_CALLER", "1").run().ok();
        assert_eq!(text(&environ), "ONLY=this\0A=\0");
        assert_eq!(text(&words), "zero one\n");
    });
}

#[test]
fn hooks_run_in_the_namespaces_of_the_specification() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        let file = |name: &str| bundle.directory.join(name);
        let links = "readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts; readlink /proc/self/ns/net";
        for name in CREATING.iter().chain(&["poststart"]) {
            let value = json!([hook(&format!("({links}) > {}", file(name).display()))]);
            crate::support::set(&mut bundle.config, &format!("/hooks/{name}"), value);
        }
        bundle.set("/hooks/startContainer", json!([inner_hook(&format!("({links}) > /startContainer"))]));
        let container = bundle.container();
        let _io = container.create_io();
        container.start().ok();
        let names = ["mnt", "uts", "net"];
        let host = names.map(|name| link(format!("/proc/self/ns/{name}")));
        let inside = names.map(|name| link(format!("/proc/{}/ns/{name}", container.pid())));
        for (name, expected) in [
            ("prestart", &host),
            ("createRuntime", &host),
            ("createContainer", &inside),
            ("rootfs/startContainer", &inside),
            ("poststart", &host),
        ] {
            let text = text(container.bundle.directory.join(name));
            assert_eq!(text.lines().collect::<Vec<_>>(), *expected, "{name}");
        }
    });
}

#[test]
fn create_container_hooks_start_in_the_root_file_system() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/hooks", json!({"createContainer": [hook("echo made > here")]}));
        let container = bundle.container();
        container.create().ok();
        assert_eq!(text(container.bundle.rootfs().join("here")), "made\n");
    });
}

#[test]
fn create_hooks_see_the_new_namespaces_of_init() {
    case(|| {
        // What network plug-ins do: configure the namespace of the pid in the state.
        let mut bundle = Bundle::sh("cat /proc/sys/net/ipv4/ip_default_ttl");
        let script = "read -r state; pid=${state#*\\\"pid\\\":}; pid=${pid%%,*}; \
                      nsenter -n/proc/$((pid))/ns/net sh -c 'echo 77 > /proc/sys/net/ipv4/ip_default_ttl'";
        let script = script.replace("nsenter", &format!("{} nsenter", busybox().display()));
        bundle.set("/hooks", json!({"prestart": [reading_hook(&script)]}));
        let container = bundle.container();
        let output = container.run().ok();
        assert_eq!(output.stdout, "77\n");
        assert_ne!(text("/proc/sys/net/ipv4/ip_default_ttl"), "77\n");
    });
}

#[test]
fn failing_create_hook_fails_create_and_is_named() {
    case(|| {
        for name in CREATING {
            let mut bundle = Bundle::new();
            bundle.set(
                &format!("/hooks/{name}"),
                json!([hook("true"), hook("echo the-reason >&2; exit 7"), hook("true")]),
            );
            let container = bundle.container();
            for command in ["create", "run"] {
                let output = container.call_bundle(command, &[]).run().fails();
                if ours() {
                    let words = format!("hooks.{name}[1]: error running {name} hook #1: ");
                    for word in [&words, "exit status 7", "the-reason"] {
                        assert!(output.stderr.contains(word), "no {word:?}: {}", output.stderr);
                    }
                }
                container.nothing_left();
            }
        }
    });
}

#[test]
fn poststop_hooks_run_after_a_failed_create_hook() {
    case(|| {
        let mut bundle = Bundle::new();
        let log = bundle.directory.join("log");
        bundle.set("/hooks/createRuntime", json!([hook("exit 1")]));
        bundle.set("/hooks/poststop", json!([hook(&format!("echo poststop >> {}", log.display()))]));
        let container = bundle.container();
        container.create().fails();
        assert_eq!(words(&log), "poststop");
    });
}

#[test]
fn failing_start_hook_fails_start() {
    case(|| {
        let mut bundle = Bundle::sh("echo program > /log");
        bundle.set("/hooks/startContainer", json!([inner_hook("exit 7")]));
        let container = bundle.container();
        container.create().ok();
        let pid = container.pid();
        let output = container.start().fails();
        if ours() {
            for part in ["hooks.startContainer[0]: error running startContainer hook #0: ", "busybox", "exit status 7"]
            {
                assert!(output.stderr.contains(part), "{}", output.stderr);
            }
        }
        wait_for_end(pid);
        assert!(!container.bundle.rootfs().join("log").exists(), "the program was run");
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn failing_poststop_hook_is_a_warning() {
    case(|| {
        let mut bundle = Bundle::new();
        let log = bundle.directory.join("log");
        bundle.set("/hooks/poststop", json!([hook("exit 7"), hook(&format!("echo second >> {}", log.display()))]));
        let container = bundle.container();
        container.create().ok();
        let deleted = container.command(&["delete", "--force"], &[]).ok();
        assert_eq!(words(&log), "second");
        if ours() {
            assert!(deleted.stderr.contains("warning: hooks.poststop[0]"), "{}", deleted.stderr);
        }
        container.nothing_left();
    });
}

#[test]
fn failing_poststart_hook_fails_start_and_ends_the_container() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/hooks/poststart", json!([hook("exit 7")]));
        let container = bundle.container();
        let _io = container.create_io();
        let pid = container.pid();
        container.start().fails();
        wait_for_end(pid);
    });
}

#[test]
fn timeout_of_a_hook() {
    case(|| {
        for name in CREATING {
            let mut bundle = Bundle::new();
            let hang = json!({"path": busybox(), "args": ["sleep", "1000"], "timeout": 1});
            bundle.set(&format!("/hooks/{name}"), json!([hang]));
            let container = bundle.container();
            let output = container.create().fails();
            container.nothing_left();
            if ours() {
                for word in [&format!("hooks.{name}[0]"), "1.0s"] {
                    assert!(output.stderr.contains(word), "no {word:?}: {}", output.stderr);
                }
            }
        }
    });
}

#[test]
fn timeout_of_a_hook_ends_its_children() {
    case(|| {
        let mut bundle = Bundle::new();
        let file = bundle.directory.join("child");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let hang = json!({"path": busybox(), "args": ["sh", "-c", script], "timeout": 3});
        bundle.set("/hooks/createRuntime", json!([hang]));
        let container = bundle.container();
        container.create().fails();
        wait_for_end(words(&file).parse().unwrap());
    });
}

#[test]
fn hook_that_does_not_read_its_stdin() {
    case(|| {
        // The state is larger than a pipe; a runtime that writes it without care waits for ever or dies of SIGPIPE.
        let mut bundle = Bundle::new();
        bundle
            .set("/annotations", json!({"big": "x".repeat(200_000)}))
            .set("/hooks/createRuntime", json!([reading_hook("exec <&-; true")]));
        bundle.container().run().ok();
    });
}

#[test]
fn poststop_runs_after_a_run() {
    case(|| {
        let mut bundle = Bundle::new();
        let log = bundle.directory.join("log");
        bundle.set("/hooks/poststop", json!([hook(&format!("echo poststop >> {}", log.display()))]));
        let container: Container = bundle.container();
        container.run().ok();
        assert_eq!(words(&log), "poststop");
    });
}

/// crun's annotations, which Podman's users know.
#[test]
fn output_of_hooks_goes_to_the_files_of_the_annotations() {
    case(|| {
        let say = |word: &str| hook(&format!("echo {word}; echo {word}-error >&2"));
        let mut bundle = Bundle::sh("true");
        let (stdout, stderr) = (bundle.directory.join("out"), bundle.directory.join("err"));
        bundle.set(
            "/annotations",
            json!({"run.oci.hooks.stdout": stdout.to_str().unwrap(), "run.oci.hooks.stderr": stderr.to_str().unwrap()}),
        );
        let inner = inner_hook("echo startContainer; echo startContainer-error >&2");
        bundle.set("/hooks/startContainer", json!([inner]));
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            bundle.set(&format!("/hooks/{name}"), json!([say(name)]));
        }
        let container = bundle.container();
        container.run().ok();
        let all = "prestart createRuntime createContainer startContainer poststart poststop";
        assert_eq!(words(&stdout), all);
        assert_eq!(words(&stderr), all.split(' ').map(|name| format!("{name}-error")).collect::<Vec<_>>().join(" "));
    });
}

#[test]
fn output_of_hooks_to_a_file_that_cannot_be_made() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/annotations", json!({"run.oci.hooks.stdout": "/nosuch/file"}));
        bundle.set("/hooks/createRuntime", json!([hook("true")]));
        let container = bundle.container();
        let output = container.create().fails();
        assert!(output.stderr.contains("/nosuch/file"), "{output:?}");
        container.nothing_left();
    });
}

#[test]
fn timeout_beyond_the_clock_is_none() {
    case(|| {
        let mut bundle = Bundle::sh("true");
        for name in ["createRuntime", "createContainer"] {
            let hook = json!({"path": "/bin/true", "timeout": i64::MAX});
            bundle.set(&format!("/hooks/{name}"), json!([hook]));
        }
        bundle.container().run().ok();
    });
}

/// A hook that says so when it runs, and then never ends.
fn hanging(file: &std::path::Path) -> Value {
    reading_hook(&format!("echo $$ > {}; while :; do sleep 1000; done", file.display()))
}

/// A `create` whose hook hangs.
fn creating() -> (Container, crate::support::Running) {
    let mut bundle = Bundle::new();
    let file = bundle.directory.join("hook");
    bundle.set("/hooks/createContainer", json!([hanging(&file)]));
    let container = bundle.container();
    let create = container.call_bundle("create", &[]).spawn();
    eventually("the hook runs", || !words(&file).is_empty());
    (container, create)
}

#[test]
fn delete_by_force_while_a_hook_hangs() {
    case(|| {
        let (container, create) = creating();
        container.command(&["delete", "--force"], &[]).ok();
        create.wait().fails();
        container.nothing_left();
    });
}

#[test]
fn delete_by_force_after_create_was_killed_in_a_hook() {
    case(|| {
        let (container, create) = creating();
        create.signal(rustix::process::Signal::KILL);
        drop(create);
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn delete_by_force_while_a_start_hook_hangs() {
    case(|| {
        let mut bundle = Bundle::new();
        let file = bundle.rootfs().join("hook");
        let hook = inner_reading_hook("echo $$ > /hook; while :; do sleep 1000; done");
        bundle.set("/hooks/startContainer", json!([hook]));
        let container = bundle.container();
        let _io = container.create_io();
        let start = container.call(["start", &container.id]).spawn();
        eventually("the hook runs", || !words(&file).is_empty());
        container.command(&["delete", "--force"], &[]).ok();
        let output = start.wait();
        assert!(!ours() || output.code() != 0, "the program was never executed: {output:?}");
        container.nothing_left();
    });
}

#[test]
fn poststart_hook_that_deletes_its_container() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/hooks/poststart", json!([]));
        let mut container = bundle.container();
        let command =
            format!("{} --root {} delete --force {}", runtime().display(), container.root().display(), container.id);
        container.bundle.set("/hooks/poststart", json!([hook(&command)]));
        let _io = container.create_io();
        container.start();
        container.nothing_left();
    });
}

/// The hook would never end; what `create` and `run` have made is undone.
#[test]
fn a_signal_to_the_runtime_while_it_waits_for_a_hook() {
    case(|| {
        for (command, signal, name) in
            [("create", Signal::TERM, "SIGTERM"), ("create", Signal::INT, "SIGINT"), ("run", Signal::HUP, "SIGHUP")]
        {
            let mut bundle = Bundle::sh("true");
            let says = bundle.directory.join("says");
            rustix::fs::mknodat(rustix::fs::CWD, &says, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
            let script = format!("echo $$ > {}; exec sleep 1000", says.display());
            let hook = json!([{"path": busybox(), "args": ["sh", "-c", script]}]);
            bundle.set("/hooks/createRuntime", hook);
            let container = bundle.container();
            let call = container.call_bundle(command, &[]).spawn();
            let hook: u32 = text(&says).trim().parse().unwrap();
            call.signal(signal);
            let output = call.wait().fails();
            assert_eq!(output.stderr, format!("interrupted by {name}\n"));
            crate::support::wait_for_end(hook);
            container.nothing_left();
        }
    });
}
