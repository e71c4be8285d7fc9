//! What the options of `exec` and process.json make of the process.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{call, only_init_is_left, printed, processes, sleeper, sleeping};
use crate::support::{Bundle, Container, Lines, case, cgroup_v2, ours, skip, text};
use crate::tty::{Terminal, is_pidfd_of, sent_to_socket};

/// The lines `Name:\tvalue` of the process' status file. Not read by a shell, which changes signals for itself.
fn status(container: &Container, options: &[&str]) -> BTreeMap<String, String> {
    let printed = call(container, options, &["cat", "/proc/self/status"]).run().ok().stdout;
    let pairs = printed.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// What a process.json makes of its process; returns what that prints.
#[track_caller]
fn process_json(container: &Container, process: &Value) -> String {
    let file = container.bundle.directory.join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    call(container, &["--process", file.to_str().unwrap()], &[]).run().ok().stdout
}

// ---------------------------------------------------------------------------------------------- process.json

#[test]
fn process_json_is_the_process() {
    case(|| {
        let (container, _io) = Container::running();
        let script = "pwd; echo $A $B; id -u; id -g; id -G; umask; ulimit -c; grep -E '^(CapEff|CapBnd|NoNew)' \
                      /proc/self/status; cat /proc/self/oom_score_adj";
        let printed = process_json(
            &container,
            &json!({
                "cwd": "/tmp", "args": ["sh", "-c", script], "env": ["PATH=/bin", "A=x y", "B=z"],
                "user": {"uid": 3, "gid": 4, "additionalGids": [6, 7], "umask": 0o77},
                "capabilities": {"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []},
                "rlimits": [{"type": "RLIMIT_CORE", "soft": 1024, "hard": 2048}],
                "noNewPrivileges": false, "oomScoreAdj": 321
            }),
        );
        // RLIMIT_CORE in blocks of 512 bytes.
        let expected = "/tmp\nx y z\n3\n4\n4 6 7\n0077\n2\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000001\n\
                        NoNewPrivs:\t0\n321\n";
        assert_eq!(printed, expected);
    });
}

#[test]
fn process_json_has_the_defaults_of_the_container() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/oomScoreAdj", json!(432)).set("/process/env/-", json!("OF_INIT=1"));
        bundle.set("/process/user/additionalGids", json!([5])).set("/process/user/umask", json!(0o77));
        bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}));
        bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
        let (container, _io) = sleeping(bundle);
        let script = "ulimit -n; grep CapEff /proc/self/status; cat /proc/self/oom_score_adj; echo =$OF_INIT; id -G; \
                      umask; cut -d' ' -f19 /proc/self/stat; ionice";
        let printed = process_json(
            &container,
            &json!({"cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}),
        );
        // Capabilities, limits and the score are the container's; environment and groups are as they are said.
        assert_eq!(printed, "1024\nCapEff:\t0000000020000420\n432\n=\n0\n0077\n7\nbest-effort: prio 6\n");
    });
}

#[test]
fn process_json_without_a_user_is_roots() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        let (container, _io) = sleeping(bundle);
        let process = json!({"cwd": "/", "args": ["id", "-u"], "env": ["PATH=/bin"]});
        assert_eq!(process_json(&container, &process), "0\n");
    });
}

#[test]
fn process_json_is_checked() {
    case(|| {
        let (container, _io) = Container::running();
        let file = container.bundle.directory.join("process.json");
        for text in [
            "",
            "{",
            "[]",
            r#"{"cwd":"/","user":{"uid":0,"gid":0},"args":["true"]},"hostname":"x""#,
            r#"{"cwd":"/","user":{"uid":"0","gid":0},"args":["true"]}"#,
            r#"{"cwd":"/","user":{"uid":-1,"gid":0},"args":["true"]}"#,
            r#"{"cwd":"/","user":{"uid":4294967295,"gid":0},"args":["true"]}"#,
            r#"{"cwd":"tmp","user":{"uid":0,"gid":0},"args":["true"]}"#,
            r#"{"user":{"uid":0,"gid":0},"args":["true"]}"#,
            r#"{"cwd":"/","user":{"uid":0},"args":["true"]}"#,
        ] {
            fs::write(&file, text).unwrap();
            let output = call(&container, &["--process", file.to_str().unwrap()], &[]).run();
            assert_eq!(output.code(), 255, "{text}: {output:?}");
        }
        let output = call(&container, &["--process", "/nosuch.json"], &[]).run();
        assert!(output.code() == 255 && output.stderr.contains("/nosuch.json"), "{output:?}");
    });
}

// ---------------------------------------------------------------------------------------------- options

#[test]
fn env_is_added() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/env/-", json!("OLD=old")).set("/process/env/-", json!("CHANGED=old"));
        let (container, _io) = sleeping(bundle);
        let printed = printed(&container, &["-e", "NEW=a b", "-e", "CHANGED=new"], "echo $OLD $NEW $CHANGED $TERM");
        assert_eq!(printed, "old a b new xterm\n");
    });
}

#[test]
fn home_is_that_of_the_user() {
    case(|| {
        let (container, _io) = Container::running();
        assert_eq!(printed(&container, &[], "echo $HOME"), "/root\n");
        assert_eq!(printed(&container, &["--user", "1000"], "echo $HOME"), "/home/user\n");
        assert_eq!(printed(&container, &["--user", "1000", "--env", "HOME=/tmp"], "echo $HOME"), "/tmp\n");
    });
}

#[test]
fn cwd_is_entered() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/cwd", json!("/tmp"));
        let (container, _io) = sleeping(bundle);
        assert_eq!(printed(&container, &[], "pwd"), "/tmp\n");
        assert_eq!(printed(&container, &["--cwd", "/etc"], "pwd"), "/etc\n");
        assert_eq!(printed(&container, &["--cwd=/etc/../bin"], "pwd"), "/bin\n");
    });
}

#[test]
fn user_and_groups() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/user", json!({"uid": 0, "gid": 9, "additionalGids": [5]}));
        let (container, _io) = sleeping(bundle);
        for (options, ids) in [
            (&["--user", "1000"][..], ("1000 1000 1000 1000", "9 9 9 9", "5")),
            (&["-u", "7:8"], ("7 7 7 7", "8 8 8 8", "5")),
            (&["-u", "0:0", "-g", "20", "-g", "30"], ("0 0 0 0", "0 0 0 0", "5 20 30")),
            (&["--user=65534:65534"], ("65534 65534 65534 65534", "65534 65534 65534 65534", "5")),
        ] {
            let status = status(&container, options);
            assert_eq!((status["Uid"].as_str(), status["Gid"].as_str(), status["Groups"].as_str()), ids, "{options:?}");
        }
    });
}

/// CVE-2026-30892: what is no number became 0, which is root. Seen: runc 1.1.5, crun 1.8.1.
#[test]
fn cve_2026_30892_user_is_numbers() {
    case(|| {
        let (container, _io) = Container::running();
        let users = [
            "",
            "-1",
            "1x",
            "x",
            "root",
            " 1",
            "1 ",
            "+1",
            "1:",
            ":1",
            "1:x",
            "1:-1",
            "1:2:3",
            "0x1",
            "4294967296",
            "4294967295",
            "1:4294967295",
            "1:4294967296",
            "18446744073709551616",
        ];
        for user in users {
            let output = call(&container, &["--user", user], &["id", "-u"]).run();
            assert!(output.code() == 255 && output.stdout.is_empty(), "{user:?}: {output:?}");
        }
        let largest = printed(&container, &["--user=4294967294:4294967294"], "id -u; id -g");
        assert_eq!(largest, "4294967294\n4294967294\n");
    });
}

#[test]
fn additional_gids_are_numbers() {
    case(|| {
        let (container, _io) = Container::running();
        for gid in ["", "-1", "1x", "4294967295", "4294967296", "5,6"] {
            let output = call(&container, &[&format!("--additional-gids={gid}")], &["id"]).run().fails();
            assert!(!output.stdout.contains("uid="), "{gid:?}: {output:?}");
        }
    });
}

/// CVE-2022-29162: capabilities became inheritable.
#[test]
fn cve_2022_29162_added_capabilities_are_not_inheritable() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.capabilities(&["CAP_KILL"]);
        let (container, _io) = sleeping(bundle);
        // 5 is CAP_KILL, 13 is CAP_NET_RAW, 0 is CAP_CHOWN.
        let status = status(&container, &["--cap", "CAP_NET_RAW", "--cap", "CAP_CHOWN"]);
        for (set, value) in [("CapEff", 0x2021), ("CapPrm", 0x2021), ("CapBnd", 0x2021), ("CapInh", 0), ("CapAmb", 0)] {
            assert_eq!(u64::from_str_radix(&status[set], 16).unwrap(), value, "{set}");
        }
    });
}

/// What is not inheritable cannot be ambient: a value that is not granted is logged (config.md, Linux Process).
#[test]
fn ambient_capabilities_that_are_not_granted_are_logged() {
    case(|| {
        if !ours() {
            skip!("another runtime has other words");
        }
        let words =
            "process.capabilities.ambient: not permitted and inheritable, so not granted: CAP_AUDIT_WRITE, CAP_KILL";
        let (container, _io) = Container::running();
        let output = container.call(["--debug", "exec", &container.id, "true"]).run().ok();
        assert!(output.stderr.contains(words), "{output:?}");
    });
}

/// Never ignored in silence: whoever asks for a label relies on it.
#[test]
fn labels_that_cannot_be_given_are_refused() {
    case(|| {
        let (container, _io) = Container::running();
        let process = container.bundle.directory.join("process.json");
        let labelled = json!({"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}, "apparmorProfile": "nosuch"});
        fs::write(&process, labelled.to_string()).unwrap();
        for options in [["--apparmor", "nosuch"], ["--process", process.to_str().unwrap()]] {
            super::refused(&container, &options, &["true"], "apparmor");
        }
        super::refused(&container, &["--process-label", "nosuch"], &["true"], "selinux");
    });
}

#[test]
fn capability_that_does_not_exist() {
    case(|| {
        let (container, _io) = Container::running();
        let output = call(&container, &["--cap", "CAP_BANANA"], &["true"]).run();
        assert!(output.code() == 255 && output.stderr.contains("CAP_BANANA"), "{output:?}");
    });
}

#[test]
fn no_new_privs() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/noNewPrivileges", json!(false));
        let (container, _io) = sleeping(bundle);
        assert_eq!(status(&container, &[])["NoNewPrivs"], "0");
        assert_eq!(status(&container, &["--no-new-privs"])["NoNewPrivs"], "1");
    });
}

#[test]
fn options_with_one_dash() {
    case(|| {
        let (container, _io) = Container::running();
        let options = ["-cwd=/tmp", "-env", "A=-tty", "-user", "3:4", "-no-new-privs", "-preserve-fds", "0"];
        assert_eq!(printed(&container, &options, "pwd; echo $A; id -u"), "/tmp\n-tty\n3\n");
    });
}

#[test]
fn words_after_the_id_are_left_alone() {
    case(|| {
        let (container, _io) = Container::running();
        let words = ["-tty", "--cwd=/tmp", "-e", "A=b", "--", "-", "--help", "-u", "1x", "--nosuch", "exec", ""];
        let script = ["sh", "-c", "for word; do echo \"<$word>\"; done; pwd", "sh"];
        let output = call(&container, &[], &[&script[..], &words].concat()).run().ok();
        let expected: String = words.iter().map(|word| format!("<{word}>\n")).collect();
        assert_eq!(output.stdout, expected + "/\n");
        // The first of them is the program, whatever it looks like.
        for program in ["-tty", "--help", "--cwd", "-u", "--"] {
            let output = call(&container, &[], &[program, "true"]).run();
            super::said(&output, &format!("exec: {program:?}: executable file not found in $PATH"));
        }
    });
}

#[test]
fn preserved_descriptors() {
    case(|| {
        let (container, _io) = Container::running();
        for name in ["a", "b", "c"] {
            fs::write(container.bundle.directory.join(name), "").unwrap();
        }
        let script = "readlink /proc/self/fd/3; readlink /proc/self/fd/4; [ -e /proc/self/fd/5 ] || echo none";
        let output = call(&container, &["--preserve-fds", "2"], &["sh", "-c", script])
            .below(["sh", "-c", "exec 3<a 4<b 5<c; exec \"$@\"", "sh"])
            .run()
            .ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        let ends = lines.len() == 3 && lines[0].ends_with("/a") && lines[1].ends_with("/b") && lines[2] == "none";
        assert!(ends, "{lines:?}");
    });
}

#[test]
fn only_the_standard_descriptors_are_inside() {
    case(|| {
        let (container, _io) = Container::running();
        let file = container.bundle.directory.join("exec-pid");
        call(&container, &["--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "100000"])
            .below(["sh", "-c", "exec 3</ 4</proc 9<.; exec \"$@\"", "sh"])
            .run()
            .ok();
        let pid: u32 = text(&file).parse().unwrap();
        crate::support::eventually("it sleeps", || super::is_asleep(pid));
        for pid in [pid, sleeper(&container, &[])] {
            let mut names: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["0", "1", "2"]);
        }
    });
}

#[test]
fn ignore_paused_waits_for_the_thaw() {
    case(|| {
        let (container, _io) = Container::running();
        container.freeze(true);
        let running = call(&container, &["--ignore-paused"], &["echo", "thawed"]).spawn();
        let there = || {
            let directory = container.cgroup(if cgroup_v2() { "" } else { "freezer" }).unwrap();
            text(directory.join("cgroup.procs")).lines().count() > 1
        };
        crate::support::eventually("a second process is in the frozen cgroup", there);
        assert!(!running.has_ended());
        container.freeze(false);
        assert_eq!(running.wait().ok().stdout, "thawed\n");
    });
}

#[test]
fn exec_cpu_affinity() {
    case(|| {
        let allowed = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.unwrap().trim().to_owned()
        };
        let own = allowed(&text("/proc/self/status"));
        let last = own.rsplit(['-', ',']).next().unwrap().to_owned();
        if own == last {
            skip!("one processor only");
        }
        let mut bundle = Bundle::new();
        bundle.set("/process/execCPUAffinity", json!({"initial": own, "final": last}));
        let (container, _io) = sleeping(bundle);
        assert_eq!(allowed(&text(format!("/proc/{}/status", container.pid()))), own, "it is for exec only");
        assert_eq!(status(&container, &[])["Cpus_allowed_list"], last);
        let process = json!({
            "cwd": "/", "args": ["cat", "/proc/self/status"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
            "execCPUAffinity": {"initial": last}
        });
        assert_eq!(allowed(&process_json(&container, &process)), last);
        // Before the process is in the cgroup, it may run where that does not let it.
        let first = own.split(['-', ',']).next().unwrap();
        let mut bundle = Bundle::new();
        bundle.set("/linux/resources/cpu/cpus", json!(first));
        let (container, _io) = sleeping(bundle);
        assert_eq!(allowed(&process_json(&container, &process)), first);
    });
}

// ---------------------------------------------------------------------------------------------- terminal

/// `exec --tty` of a script on a terminal.
fn on(terminal: &Terminal, container: &Container, script: &str) -> crate::support::Running {
    call(container, &["--tty"], &["sh", "-c", script]).on_terminal(&terminal.slave).spawn()
}

#[test]
fn tty_has_the_callers_size() {
    case(|| {
        let (container, _io) = Container::running();
        let mut terminal = Terminal::new(33, 77);
        let running = on(&terminal, &container, "stty size; tty; cut -d' ' -f6,7 /proc/self/stat; read line; exit 4");
        let screen = terminal.screen.until("34816").replace('\r', "");
        let lines: Vec<&str> = screen.lines().collect();
        // A session of its own, whose terminal it is: 34816 is the device 136:0.
        assert!(lines.contains(&"33 77") && lines.contains(&"/dev/pts/0"), "{screen}");
        terminal.types("\n");
        assert_eq!(running.wait().code(), 4);
        only_init_is_left(&container);
    });
}

/// consoleSize is of the terminal that the container was created on.
#[test]
fn tty_has_the_callers_size_whatever_the_container_has() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.set("/process/consoleSize", json!({"height": 11, "width": 22}));
        let (container, _io) = sleeping(bundle);
        let mut terminal = Terminal::new(33, 77);
        let running = on(&terminal, &container, "echo ready; read line; stty size; echo end");
        terminal.screen.until("ready");
        terminal.types("\n");
        let screen = terminal.screen.until("end");
        assert!(screen.contains("33 77"), "{screen}");
        running.wait().ok();
    });
}

#[test]
fn tty_passes_control_c() {
    case(|| {
        let (container, _io) = Container::running();
        let mut terminal = Terminal::new(24, 80);
        let running = on(&terminal, &container, "echo ready; exec sleep 1000");
        terminal.screen.until("ready");
        terminal.types("\x03");
        assert_eq!(running.wait().code(), 130);
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn tty_loses_no_last_bytes() {
    case(|| {
        let (container, _io) = Container::running();
        for _ in 0..10 {
            let mut terminal = Terminal::new(24, 80);
            let running =
                on(&terminal, &container, "head -c 100000 /dev/zero | tr '\\0' x; echo; echo the-end; exit 6");
            let screen = terminal.screen.until("the-end");
            assert_eq!(screen.matches('x').count(), 100_000);
            assert_eq!(running.wait().code(), 6);
        }
    });
}

#[test]
fn tty_belongs_to_the_user() {
    case(|| {
        let (container, _io) = Container::running();
        let mut terminal = Terminal::new(24, 80);
        let call = call(&container, &["-t", "-u", "1000"], &["sh", "-c", "stat -c %u:%a $(tty); echo x >/dev/tty"]);
        let running = call.on_terminal(&terminal.slave).spawn();
        terminal.screen.until("1000:620");
        running.wait().ok();
    });
}

#[test]
fn tty_without_a_socket_cannot_be_detached() {
    case(|| {
        let (container, _io) = Container::running();
        let words = "cannot allocate tty if runc will detach without setting console socket";
        super::refused(&container, &["--tty", "--detach"], &["true"], words);
        let words = "cannot use console socket if runc will not detach or allocate tty";
        super::refused(&container, &["--console-socket", "/nosuch"], &["true"], words);
    });
}

#[test]
fn console_socket_gets_the_terminal() {
    case(|| {
        let (container, _io) = Container::running();
        let path = container.bundle.directory.join("socket");
        let socket = format!("--console-socket={}", path.display());
        let script = "echo ready; read line; echo got $line; tty";
        let (master, payload) =
            sent_to_socket(&path, || call(&container, &["--tty", "--detach", &socket], &["sh", "-c", script]))
                .expect("a terminal");
        assert!(!payload.is_empty(), "conmon wants at least one byte");
        let mut screen = Lines::new(master.try_clone().unwrap());
        screen.until("ready");
        rustix::io::write(&master, b"something\n").unwrap();
        screen.until("got something");
        screen.until("/dev/pts/0");
        only_init_is_left(&container);
    });
}

#[test]
fn pidfd_socket_gets_a_pidfd_of_the_process() {
    case(|| {
        let (container, _io) = Container::running();
        let path = container.bundle.directory.join("socket");
        let (socket, file) = (format!("--pidfd-socket={}", path.display()), container.bundle.directory.join("pid"));
        let (pidfd, payload) = sent_to_socket(&path, || {
            let options = ["--detach", &socket, "--pid-file", file.to_str().unwrap()];
            call(&container, &options, &["sleep", "100000"])
        })
        .expect("a descriptor");
        is_pidfd_of(text(&file).parse().unwrap(), &pidfd);
        assert_eq!(payload, b"setns", "the word of runc");
    });
}

#[test]
fn pid_file_of_a_failed_exec_is_not_left() {
    case(|| {
        let (container, _io) = Container::running();
        let file = container.bundle.directory.join("pid");
        let option = format!("--pid-file={}", file.display());
        assert_eq!(call(&container, &["--cwd=/nosuch", &option], &["true"]).run().code(), 255);
        assert!(!file.exists());
        let output = call(&container, &["--pid-file=/nosuch/pid"], &["sleep", "100000"]).run();
        assert!(output.code() == 255 && output.stderr.contains("/nosuch/"), "{output:?}");
        only_init_is_left(&container);
        assert_eq!(processes(&container).len(), 1);
    });
}

/// What the caller reads and writes has a name of its own, and an owner; a pipe has not.
#[test]
fn files_of_the_caller_keep_their_owner() {
    case(|| {
        let (container, _io) = Container::running();
        let file = container.bundle.directory.join("output");
        let output = fs::File::create(&file).unwrap();
        let exec = call(&container, &["--user", "1000:1000"], &["sh", "-c", "echo text; echo more > /dev/stderr"]);
        assert_eq!(exec.stdout(output).run().ok().stderr, "more\n");
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&file).unwrap());
        assert_eq!((owner, text(&file).as_str()), (0, "text\n"));
    });
}
