//! The life of a container: every command in every state, and what each command does to it.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::program;
use crate::support::{
    Bundle, Call, Container, Io, WAITING, case, eventually, ours, peer, pipe, skip, text, wait_for_end, with_io,
    write_program,
};

// ------------------------------------------------------------------------------------------ every state, every command

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Missing,
    Created,
    Running,
    Paused,
    Stopped,
}

use State::{Created, Missing, Paused, Running, Stopped};

/// A command in a state: the words before the id, those after it, the exit code, a text in what it writes, the state after.
struct Row(State, &'static [&'static str], &'static [&'static str], i32, &'static str, State);

/// As runc does it; the texts are those that callers look for.
const MATRIX: &[Row] = &[
    Row(Missing, &["state"], &[], 1, "does not exist", Missing),
    Row(Missing, &["start"], &[], 1, "does not exist", Missing),
    Row(Missing, &["kill"], &[], 1, "does not exist", Missing),
    Row(Missing, &["kill"], &["KILL"], 1, "does not exist", Missing),
    Row(Missing, &["delete"], &[], 1, "does not exist", Missing),
    Row(Missing, &["delete", "--force"], &[], 0, "", Missing),
    Row(Missing, &["pause"], &[], 1, "does not exist", Missing),
    Row(Missing, &["resume"], &[], 1, "does not exist", Missing),
    Row(Missing, &["update"], &["--pids-limit", "9"], 1, "does not exist", Missing),
    Row(Created, &["state"], &[], 0, "created", Created),
    Row(Created, &["start"], &[], 0, "", Running),
    Row(Created, &["kill"], &["KILL"], 0, "", Stopped),
    Row(Created, &["kill", "--all"], &["KILL"], 0, "", Stopped),
    Row(Created, &["delete"], &[], 0, "", Missing),
    Row(Created, &["delete", "--force"], &[], 0, "", Missing),
    Row(Created, &["create"], &[], 1, "already exists", Created),
    Row(Created, &["run"], &[], 1, "already exists", Created),
    Row(Created, &["pause"], &[], 0, "", Paused),
    Row(Created, &["resume"], &[], 1, "container not paused", Created),
    Row(Created, &["update", "--pids-limit", "9"], &[], 0, "", Created),
    Row(Running, &["state"], &[], 0, "running", Running),
    Row(Running, &["start"], &[], 1, "cannot start an already running container", Running),
    Row(Running, &["kill"], &["0"], 0, "", Running),
    Row(Running, &["kill"], &["KILL"], 0, "", Stopped),
    Row(Running, &["kill", "--all"], &["KILL"], 0, "", Stopped),
    Row(Running, &["delete"], &[], 1, "that is not stopped: running", Running),
    Row(Running, &["delete", "--force"], &[], 0, "", Missing),
    Row(Running, &["create"], &[], 1, "already exists", Running),
    Row(Running, &["run"], &[], 1, "already exists", Running),
    Row(Running, &["pause"], &[], 0, "", Paused),
    Row(Running, &["resume"], &[], 1, "container not paused", Running),
    Row(Paused, &["state"], &[], 0, "paused", Paused),
    Row(Paused, &["start"], &[], 1, "paused", Paused),
    Row(Paused, &["kill"], &["0"], 0, "", Paused),
    Row(Paused, &["kill"], &["KILL"], 0, "", Stopped),
    Row(Paused, &["delete"], &[], 1, "that is not stopped: paused", Paused),
    Row(Paused, &["delete", "--force"], &[], 0, "", Missing),
    Row(Paused, &["create"], &[], 1, "already exists", Paused),
    Row(Paused, &["pause"], &[], 1, "container not running", Paused),
    Row(Paused, &["resume"], &[], 0, "", Running),
    Row(Stopped, &["state"], &[], 0, "stopped", Stopped),
    Row(Stopped, &["start"], &[], 1, "cannot start a container that has stopped", Stopped),
    Row(Stopped, &["kill"], &[], 1, "container not running", Stopped),
    Row(Stopped, &["kill"], &["KILL"], 1, "container not running", Stopped),
    Row(Stopped, &["kill", "--all"], &["KILL"], 0, "", Stopped),
    Row(Stopped, &["delete"], &[], 0, "", Missing),
    Row(Stopped, &["delete", "--force"], &[], 0, "", Missing),
    Row(Stopped, &["create"], &[], 1, "already exists", Stopped),
    Row(Stopped, &["run"], &[], 1, "already exists", Stopped),
    Row(Stopped, &["pause"], &[], 1, "container not running", Stopped),
    Row(Stopped, &["resume"], &[], 1, "container not paused", Stopped),
    Row(Stopped, &["update"], &["--pids-limit", "9"], 1, "container not running", Stopped),
];

/// A container in a state. Its standard streams have to be kept: it runs until they are closed.
fn container_in(state: State) -> (Container, Option<Io>) {
    match state {
        Missing => {
            let container = Bundle::new().container();
            container.bundle.write();
            (container, None)
        }
        Created => {
            let (container, io) = Container::created(crate::support::WAITING);
            (container, Some(io))
        }
        Running | Paused => {
            let (container, io) = Container::running();
            if state == Paused {
                container.freeze(true);
            }
            (container, Some(io))
        }
        Stopped => {
            let (container, mut io) = Container::running();
            let pid = container.pid();
            io.close();
            wait_for_end(pid);
            (container, Some(io))
        }
    }
}

/// Carries out the rows of one state; `judge` gets the row, the exit code and what was written.
fn rows_of(state: State, judge: fn(&Row, i32, &str) -> Option<String>) {
    let mut wrong = Vec::new();
    for row in MATRIX.iter().filter(|row| row.0 == state) {
        let (container, _io) = container_in(state);
        let before = if state == Missing { 0 } else { container.pid() };
        let output = container.command(row.1, row.2);
        if let Some(complaint) = judge(row, output.code(), &(output.stdout + &output.stderr)) {
            wrong.push(format!("{:?} {state:?}: {complaint}", row.1));
        }
        if row.5 == Stopped && before != 0 {
            wait_for_end(before);
        }
        match row.5 {
            Missing => assert_eq!(container.leftovers(), [""; 0], "{:?} {state:?}", row.1),
            after => assert_eq!(container.status(), format!("{after:?}").to_lowercase(), "{:?} {state:?}", row.1),
        }
        if state == Paused && row.5 == Paused {
            container.freeze(false);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn code(row: &Row, code: i32, output: &str) -> Option<String> {
    (code != row.3).then(|| format!("exit code {code}, not {}: {output}", row.3))
}

fn words(row: &Row, _: i32, output: &str) -> Option<String> {
    (!output.contains(row.4)).then(|| format!("no {:?} in {output:?}", row.4))
}

#[test]
fn exit_codes_missing() {
    case(|| rows_of(Missing, code));
}

#[test]
fn exit_codes_created() {
    case(|| rows_of(Created, code));
}

#[test]
fn exit_codes_running() {
    case(|| rows_of(Running, code));
}

#[test]
fn exit_codes_paused() {
    case(|| rows_of(Paused, code));
}

#[test]
fn exit_codes_stopped() {
    case(|| rows_of(Stopped, code));
}

#[test]
fn words_missing() {
    case(|| rows_of(Missing, words));
}

#[test]
fn words_created() {
    case(|| rows_of(Created, words));
}

#[test]
fn words_running() {
    case(|| rows_of(Running, words));
}

#[test]
fn words_paused() {
    case(|| rows_of(Paused, words));
}

#[test]
fn words_stopped() {
    case(|| rows_of(Stopped, words));
}

// ------------------------------------------------------------------------------------------ what the commands do

#[test]
fn create_does_not_run_the_program_and_start_does() {
    case(|| {
        let (container, mut io) = Container::created("echo started; read line; echo $line");
        let created = container.state();
        assert_eq!(created["status"], "created");
        assert!(!crate::support::readable(io.stdout.fd(), std::time::Duration::ZERO), "output before start");
        container.start().ok();
        assert_eq!(io.stdout.next(), "started");
        let running = container.state();
        assert_eq!((&running["status"], &running["pid"]), (&json!("running"), &created["pid"]));
        let pid = container.pid();
        io.write("end\n");
        assert_eq!(io.stdout.rest(), "end\n");
        wait_for_end(pid);
        let stopped = container.state();
        assert_eq!((&stopped["status"], stopped["pid"].as_u64().unwrap_or(0)), (&json!("stopped"), 0));
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
        container.command(&["state"], &[]).fails();
    });
}

#[test]
fn config_changed_after_create_has_no_effect() {
    case(|| {
        let (mut container, mut io) = Container::created("echo first");
        container.bundle.script("echo second");
        container.bundle.write();
        container.start().ok();
        assert_eq!(io.stdout.rest(), "first\n");
    });
}

#[test]
fn config_removed_after_create_has_no_effect() {
    case(|| {
        let (container, mut io) = Container::created("echo first");
        fs::remove_file(container.bundle.directory.join("config.json")).unwrap();
        container.start().ok();
        assert_eq!(io.stdout.rest(), "first\n");
    });
}

#[test]
fn create_without_process_succeeds_and_start_fails() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.remove("/process");
        let container = bundle.container();
        container.create().ok();
        assert_eq!(container.status(), "created");
        container.start().fails();
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn pid_file_holds_the_pid_of_state_and_no_newline() {
    case(|| {
        let container = Bundle::sh("read line").container();
        let file = container.bundle.directory.join("pid");
        let (call, _io) = with_io(container.call_bundle("create", &["--pid-file", file.to_str().unwrap()]));
        call.run().ok();
        assert_eq!(text(&file), container.pid().to_string());
        assert!(text(format!("/proc/{}/cgroup", container.pid())).contains(&container.id));
    });
}

#[test]
fn pid_file_that_cannot_be_written_fails_create_and_leaves_nothing() {
    case(|| {
        let container = Bundle::new().container();
        container.call_bundle("create", &["--pid-file", "/nonexistent/directory/pid"]).run().fails();
        container.nothing_left();
    });
}

#[test]
fn kill_sends_the_signal_to_init() {
    case(|| {
        let script = "trap 'echo term' TERM; trap 'echo usr1' USR1; trap 'echo int' INT; echo ready; \
                      while :; do read line; done";
        let (container, mut io) = Container::created(script);
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        // The shell runs a trap when `read` returns: a line wakes it.
        for (signal, word) in [("TERM", "term"), ("USR1", "usr1"), ("SIGINT", "int"), ("15", "term")] {
            container.command(&["kill"], &[signal]).ok();
            io.write("\n");
            assert_eq!(io.stdout.next(), word);
        }
        container.command(&["kill"], &[]).ok();
        io.write("\n");
        assert_eq!(io.stdout.next(), "term");
    });
}

/// In the host's pid namespace: a container, its streams, init and a child of it, which does not end with init.
fn with_a_child_of_the_host() -> (Container, Io, u32, u32) {
    let mut bundle = Bundle::sh("sleep 1000 & echo $!; read line");
    bundle.no_namespace("pid");
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    let child = io.stdout.next().parse().unwrap();
    let init = container.pid();
    (container, io, init, child)
}

#[test]
fn kill_all_reaches_every_process_of_a_shared_pid_namespace() {
    case(|| {
        let (container, _io, init, child) = with_a_child_of_the_host();
        container.command(&["kill", "--all"], &["KILL"]).ok();
        wait_for_end(init);
        wait_for_end(child);
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

/// What is left is found by its cgroup only.
#[test]
fn kill_reaches_what_init_has_left_in_a_shared_pid_namespace() {
    case(|| {
        let (container, mut io, init, child) = with_a_child_of_the_host();
        io.close();
        wait_for_end(init);
        assert_eq!(container.status(), "stopped");
        assert!(container.command(&["kill"], &["TERM"]).fails().stderr.contains("container not running"));
        container.command(&["kill"], &["KILL"]).ok();
        wait_for_end(child);
        assert!(container.command(&["kill"], &["KILL"]).fails().stderr.contains("container not running"));
    });
}

#[test]
fn delete_force_ends_every_process_of_a_shared_pid_namespace() {
    case(|| {
        let mut bundle = Bundle::sh("sleep 1000 & echo $!; read line");
        bundle.no_namespace("pid");
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        let child: u32 = io.stdout.next().parse().unwrap();
        container.command(&["delete", "--force"], &[]).ok();
        wait_for_end(child);
        container.nothing_left();
    });
}

/// Whoever reads from the gate makes the container look created, also when it runs already.
#[test]
fn start_does_not_read_from_the_gate() {
    case(|| {
        if !ours() {
            skip!("another runtime has another gate");
        }
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let (container, mut io) = Container::created(WAITING);
        let watch = init(CreateFlags::CLOEXEC).unwrap();
        let gate = container.root().join(&container.id).join("exec.fifo");
        add_watch(&watch, gate, WatchFlags::CLOSE_NOWRITE | WatchFlags::CLOSE_WRITE).unwrap();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let mut events = [0; 4096];
        let length = rustix::io::read(&watch, &mut events).unwrap();
        let masks = events[..length].chunks_exact(16).map(|event| WatchFlags::from_bits_retain(event[4].into()));
        let masks: Vec<_> = masks.collect();
        assert!(masks.contains(&WatchFlags::CLOSE_WRITE) && !masks.contains(&WatchFlags::CLOSE_NOWRITE), "{masks:?}");
    });
}

/// Its state letter is that of a zombie, and it is none: that the first thread has ended is the program's own affair.
#[test]
fn a_program_whose_first_thread_has_ended_runs() {
    case(|| {
        for own in [true, false] {
            let mut bundle = Bundle::new();
            let path = bundle.rootfs().join("bin/program");
            write_program(&path, program::headless());
            bundle.args(&["program"]);
            if !own {
                bundle.no_namespace("pid");
            }
            let container = bundle.container();
            let start = || {
                container.create().ok();
                let pid = container.pid();
                container.start().ok();
                eventually("the first thread ends", || text(format!("/proc/{pid}/stat")).contains(") Z "));
                assert_eq!((container.status(), container.pid()), ("running".to_owned(), pid));
                pid
            };
            let pid = start();
            container.command(&["delete"], &[]).fails();
            container.command(&["exec"], &["true"]).fails();
            container.command(&["kill"], &["KILL"]).ok();
            wait_for_end(pid);
            assert_eq!(container.status(), "stopped");
            container.command(&["delete"], &[]).ok();
            let pid = start();
            container.command(&["delete", "--force"], &[]).ok();
            wait_for_end(pid);
            container.nothing_left();
        }
    });
}

#[test]
fn delete_frees_the_id() {
    case(|| {
        let container = Bundle::new().container();
        for _ in 0..3 {
            container.create().ok();
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
        container.run().ok();
    });
}

#[test]
fn start_of_a_container_whose_init_was_killed_fails_at_once() {
    case(|| {
        let (container, _io) = container_in(Created);
        let pid = container.pid();
        container.command(&["kill"], &["KILL"]).ok();
        wait_for_end(pid);
        assert_eq!(container.start().code(), 1);
        assert_eq!(container.status(), "stopped");
    });
}

#[test]
fn delete_removes_cgroups_that_the_container_made() {
    case(|| {
        let (container, _io) = Container::running();
        for name in crate::support::cgroups_of(&container.id) {
            fs::create_dir_all(name.join("inner/most")).unwrap();
        }
        container.stop();
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
    });
}

#[test]
fn init_belongs_to_the_callers_subreaper_after_create() {
    // The child of this test is a copy of this program that is a subreaper: see `subreaper` below.
    case(|| {
        let container = Bundle::sh("exit 7").container();
        container.bundle.write();
        let call = container.call(["x"]);
        drop(call);
        let (mut lines, theirs) = pipe();
        let output = Call::new(std::env::current_exe().unwrap())
            .args(["--exact", "lifecycle::subreaper", "--ignored", "--nocapture", "--test-threads=1"])
            .env("SUBREAPER_ID", &container.id)
            .env("SUBREAPER_ROOT", container.root())
            .env("SUBREAPER_BUNDLE", &container.bundle.directory)
            .stdout(theirs)
            .run();
        let printed = lines.rest();
        assert!(output.code() == 0, "{printed}{}", output.stderr);
        assert!(printed.contains("status of init: 7"), "{printed}");
    });
}

/// Not a test by itself: creates and starts a container as a subreaper, waits for init and prints its exit status.
#[test]
#[ignore = "a part of init_belongs_to_the_callers_subreaper_after_create"]
fn subreaper() {
    let Ok(id) = std::env::var("SUBREAPER_ID") else { return };
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let (root, bundle) = (std::env::var("SUBREAPER_ROOT").unwrap(), std::env::var("SUBREAPER_BUNDLE").unwrap());
    let file = format!("{bundle}/pid");
    let call = |args: &[&str]| {
        let driver = crate::support::systemd().then_some("--systemd-cgroup");
        let runtime = crate::support::runtime();
        let status = Command::new(runtime).args(["--root", &root]).args(driver).args(args).status().unwrap();
        assert!(status.success(), "{args:?}: {status}");
    };
    call(&["create", "--bundle", &bundle, "--pid-file", &file, &id]);
    call(&["start", &id]);
    let pid = nix::unistd::Pid::from_raw(text(&file).parse().unwrap());
    match nix::sys::wait::waitpid(pid, None).unwrap() {
        nix::sys::wait::WaitStatus::Exited(_, status) => println!("status of init: {status}"),
        other => panic!("{other:?}"),
    }
}

/// As after a reboot, or when pids have wrapped: the pid on disk is another process' by now.
#[test]
fn a_pid_that_is_anothers_by_now() {
    case(|| {
        if peer() == "crun" {
            skip!("crun has another file");
        }
        let (container, _io) = Container::running();
        let file = container.root().join(&container.id).join("state.json");
        let pid = container.pid();
        // Field 22 of proc_pid_stat(5), in ticks of 10 ms.
        let start = |pid: u32| {
            let stat = text(format!("/proc/{pid}/stat"));
            stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().to_owned()
        };
        let started = start(pid);
        container.stop();
        // No pid is another's within the tick in which its process was born.
        let stranger = loop {
            let stranger = Call::sh("exec sleep 1000").spawn();
            if start(stranger.pid()) != started {
                break stranger;
            }
            stranger.signal(Signal::KILL);
        };
        let state = text(&file);
        let changed = state.replacen(
            &format!("\"init_process_pid\":{pid}"),
            &format!("\"init_process_pid\":{}", stranger.pid()),
            1,
        );
        assert_ne!(state, changed);
        fs::write(&file, changed).unwrap();
        assert_eq!(container.status(), "stopped");
        container.command(&["kill"], &["KILL"]).fails();
        container.command(&["delete", "--force"], &[]).ok();
        assert!(!stranger.has_ended());
        stranger.signal(Signal::KILL);
        container.nothing_left();
    });
}
