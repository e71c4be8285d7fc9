//! The command lines of those who call a runtime, each as its caller writes it, in the order of one container's life.
//!
//! Asserted is what the caller looks at: the exit code, what it parses on stdout, the pid file, the words that it
//! searches in an error. `docs/callers.md` has the same callers as whole programs.

mod lines;

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use lines::Look::{By, Fails, Nothing, Prints, Status};
use lines::{Line, l};

use crate::cli::rfc3339;
use crate::support::{
    Bundle, Call, Container, Output, case, cgroup_v2, eventually, link, ours, peer, runtime, systemd, text,
    wait_for_end,
};
use crate::tty::sent_to_socket;

/// A container and the caller that it belongs to.
struct Life {
    container: Container,
    /// What go-runc writes before each command.
    globals: &'static str,
    /// Held by those that use the runtime's own root directory; whether that has been there before.
    own_root: Option<(MutexGuard<'static, ()>, bool)>,
    /// What came over sockets: a terminal lasts as long as somebody has its master.
    received: RefCell<Vec<OwnedFd>>,
}

impl Life {
    fn new(globals: &'static str) -> Self {
        // `/ready`: the trap is set.
        let script = "trap 'exit 7' TERM; >/ready; while :; do sleep 1000 & wait $!; done";
        let container = Bundle::sh(script).container();
        container.bundle.write();
        let life = Self { container, globals, own_root: None, received: RefCell::default() };
        let process = |args: Value, terminal: bool| {
            let env = "PATH=/bin";
            json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": [env], "args": args, "terminal": terminal})
        };
        let resources = json!({"pids": {"limit": 77}, "cpu": {"shares": 512}});
        for (file, content) in [
            ("process", process(json!(["sleep", "1000"]), false)),
            ("tty", process(json!(["sleep", "1000"]), true)),
            ("print", process(json!(["sh", "-c", "echo printed; exit 3"]), false)),
            ("nosuch", process(json!(["nosuch"]), false)),
            ("resources", resources),
        ] {
            fs::write(life.path(file), content.to_string()).unwrap();
        }
        life
    }

    /// A caller that gives no `--root`.
    fn in_own_root(globals: &'static str) -> Self {
        static USERS: Mutex<()> = Mutex::new(());
        let guard = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut life = Self::new(globals);
        life.own_root = Some((guard, own_root().exists()));
        life
    }

    fn path(&self, name: &str) -> PathBuf {
        self.container.bundle.directory.join(name)
    }

    /// The caller's words with its choices put in.
    fn fill(&self, words: &str) -> Vec<String> {
        let driver = if systemd() { "--systemd-cgroup " } else { "" };
        let mut line = format!("{driver}{} {words}", self.globals).replace("{id}", &self.container.id);
        line = line.replace("{root}", self.container.root().to_str().unwrap());
        line = line.replace("{bundle}", self.path("").to_str().unwrap().trim_end_matches('/'));
        for name in ["pid", "pid2", "pid3", "log", "socket", "pidfd", "process", "tty", "print", "nosuch", "resources"]
        {
            line = line.replace(&format!("{{{name}}}"), self.path(name).to_str().unwrap());
        }
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn call(&self, words: &str) -> Call {
        let call = Call::new(runtime()).args(self.fill(words)).env("RUNTIME_TEST_ID", &self.container.id);
        // What a caller passes beside the standard streams begins with fd 3.
        let call = call.below(["sh", "-c", "exec \"$@\" 3</dev/null", "sh"]);
        if words.contains("--resources=-") || words.contains("--resources -") {
            return call.stdin(File::open(self.path("resources")).unwrap());
        }
        call
    }

    #[track_caller]
    fn replay(&self, lines: &[Line]) {
        for line in lines {
            let _ = fs::remove_file(self.path("log"));
            let socket = ["socket", "pidfd"].into_iter().find(|name| line.words.contains(&format!("{{{name}}}")));
            let output = match socket.filter(|_| line.code == 0) {
                None => self.call(line.words).run(),
                Some(socket) => self.call_with_socket(line.words, socket),
            };
            assert_eq!(output.code(), line.code, "{}: {output:?}", line.words);
            self.look(line, &output);
        }
    }

    /// A call that sends a descriptor.
    fn call_with_socket(&self, words: &str, name: &str) -> Output {
        let path = self.path(name);
        let (fd, payload) =
            sent_to_socket(&path, || self.call(words)).unwrap_or_else(|| panic!("{words}: no descriptor"));
        fs::remove_file(path).unwrap();
        assert!(!payload.is_empty(), "{words}: conmon wants at least one byte");
        let kind = link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        assert!(kind.contains(if name == "pidfd" { "pidfd" } else { "ptmx" }), "{words}: {kind}");
        self.received.borrow_mut().push(fd);
        Call::sh("exit 0").run()
    }

    fn look(&self, line: &Line, output: &Output) {
        match line.look {
            Nothing => {}
            Prints(words) => assert!(output.stdout.contains(words), "{}: {output:?}", line.words),
            Fails(words) => self.failed(line, words, output),
            Status(status) => {
                let state: Value = serde_json::from_str(&output.stdout).unwrap();
                assert_eq!(state["status"], status, "{}: {output:?}", line.words);
                let pid = state["pid"].as_u64().unwrap_or(0);
                assert_eq!(pid == 0, status == "stopped", "{}: {output:?}", line.words);
            }
            By(look) => look(self, output),
        }
    }

    /// go-runc takes the text from the log's last object, podman the whole log for one object; cri-o reads stderr.
    fn failed(&self, line: &Line, words: &str, output: &Output) {
        assert!(output.stderr.contains(words), "{output:?}");
        if !format!("{} {}", self.globals, line.words).contains("{log}") {
            return;
        }
        let log = text(self.path("log"));
        let object: Value = serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log:?}"));
        assert_eq!(object["level"], "error", "{log}");
        assert!(object["msg"].as_str().unwrap().contains(words), "{log}");
        assert!(rfc3339(object["time"].as_str().unwrap()), "{log}");
    }

    fn pid(&self, file: &str) -> u32 {
        let content = text(self.path(file));
        content.parse().unwrap_or_else(|error| panic!("{file}: {error}: {content:?}"))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let Some((_guard, before)) = self.own_root.take() else { return };
        let _ = self.call("delete --force {id}").spawn().wait();
        if !before {
            let _ = fs::remove_dir(own_root());
        }
    }
}

/// Where the runtime has its states without `--root`.
fn own_root() -> PathBuf {
    let name = if ours() { runtime().file_name().unwrap().to_str().unwrap() } else { peer() };
    PathBuf::from("/run").join(if name == "runc" || name == "crun" { name } else { "runtime" })
}

// ---------------------------------------------------------------------------------------------- what callers look at

/// The pid file is there when `create` returns; init belongs to whoever reaps the caller's orphans.
fn created(life: &Life, _: &Output) {
    let init = life.pid("pid");
    let parent = |pid: u32| -> u32 {
        let status = text(format!("/proc/{pid}/status"));
        status.lines().find_map(|line| line.strip_prefix("PPid:\t")).and_then(|pid| pid.parse().ok()).unwrap()
    };
    let mut reaper = std::process::id();
    while reaper > 1 && reaper != parent(init) {
        reaper = parent(reaper);
    }
    assert_eq!(
        reaper,
        parent(init),
        "the parent of init is not one of the caller's: {}",
        text(format!("/proc/{init}/status"))
    );
}

fn started(life: &Life, _: &Output) {
    is_up(life);
}

fn is_up(life: &Life) {
    eventually("the program runs", || life.container.bundle.rootfs().join("ready").exists());
}

/// The second process is in init's pid namespace.
fn executed(life: &Life, _: &Output) {
    let namespace = |pid| link(format!("/proc/{pid}/ns/pid"));
    assert_eq!(namespace(life.pid("pid2")), namespace(life.pid("pid")));
}

fn ended(life: &Life, _: &Output) {
    wait_for_end(life.pid("pid"));
    let _ = fs::remove_file(life.container.bundle.rootfs().join("ready"));
}

fn gone(life: &Life, _: &Output) {
    life.container.nothing_left();
}

/// containerd and cri-o ask for read-only recursive mounts and id-mapped mounts.
fn features(_: &Life, output: &Output) {
    let features: Value = serde_json::from_str(&output.stdout).unwrap();
    let has = |pointer: &str, word: &str| features.pointer(pointer).unwrap().as_array().unwrap().contains(&json!(word));
    assert!(has("/mountOptions", "rro") && has("/linux/namespaces", "user"), "{features}");
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{features}");
}

fn pids(life: &Life, output: &Output) {
    let pids: Vec<u32> = serde_json::from_str(&output.stdout).unwrap();
    assert!(pids.contains(&life.pid("pid")) && pids.contains(&life.pid("pid2")), "{pids:?}");
}

fn listed(life: &Life, output: &Output) {
    let list: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(list[0]["id"], life.container.id.as_str(), "{list}");
    assert!(rfc3339(list[0]["created"].as_str().unwrap()), "{list}");
}

fn stats(life: &Life, output: &Output) {
    let event: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(life.container.id)), "{event}");
    assert!(event["data"]["pids"]["current"].as_u64().unwrap() >= 2, "{event}");
}

fn updated(life: &Life, _: &Output) {
    let directory = life.container.cgroup(if cgroup_v2() { "" } else { "pids" }).unwrap();
    assert_eq!(text(directory.join("pids.max")).trim(), "77");
}

// ---------------------------------------------------------------------------------------------- the tests

const GO_RUNC: &str = "--root {root} --log {log} --log-format json";

#[test]
fn containerd() {
    case(|| Life::new(GO_RUNC).replay(lines::CONTAINERD));
}

#[test]
fn containerd_with_debug() {
    case(|| {
        // Only the last of the log's objects has to be the error.
        let life = Life::new("--root {root} --debug --log {log} --log-format json --rootless=false");
        life.replay(&lines::CONTAINERD[1..2]);
        life.replay(&[l("start {id}", 0, By(started)), l("kill {id} 9", 0, By(ended))]);
        let output = life.call("kill {id} 9").run().fails();
        let log = text(life.path("log"));
        let mut objects = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let last = objects.rfind(|object| object["level"] == "error").unwrap();
        assert!(last["msg"].as_str().unwrap().contains("container not running"), "{log}{output:?}");
    });
}

#[test]
fn containerd_options() {
    case(|| Life::new(GO_RUNC).replay(lines::CONTAINERD_OPTIONS));
}

#[test]
fn containerd_terminal() {
    case(|| {
        let mut life = Life::new(GO_RUNC);
        life.container.bundle.set("/process/terminal", json!(true)).write();
        life.replay(lines::CONTAINERD_TERMINAL);
    });
}

#[test]
fn go_runc_pidfd() {
    case(|| Life::new(GO_RUNC).replay(lines::PIDFD));
}

#[test]
fn containerd_events() {
    case(|| {
        let life = Life::new(GO_RUNC);
        life.replay(&[lines::CONTAINERD[1], lines::CONTAINERD[4]]);
        let events = life.call("events --interval=5s {id}").spawn();
        // It follows the container when it has what tells of an OOM kill: an eventfd on v1, on v2 inotify or the file itself.
        let fds = format!("/proc/{}/fd", events.pid());
        eventually("events follows the container", || {
            let links = fs::read_dir(&fds).into_iter().flatten().flatten().map(|fd| link(fd.path()));
            let mut links = links.into_iter();
            links.any(|link| ["eventfd", "inotify", "memory.events"].iter().any(|name| link.contains(name)))
        });
        life.replay(&[l("kill {id} 9", 0, By(ended))]);
        // containerd leaves at the end of the stream.
        assert_eq!(events.wait().code(), 0);
        life.replay(&[l("delete {id}", 0, By(gone))]);
    });
}

#[test]
fn buildkit() {
    case(|| {
        let life = Life::in_own_root("--log {log} --log-format json");
        let run = life.call("run --bundle {bundle} --keep {id}").spawn();
        is_up(&life);
        life.replay(lines::BUILDKIT);
        assert_eq!(run.wait().code(), 137);
        life.replay(&[l("delete {id}", 0, By(gone))]);
    });
}

#[test]
fn podman() {
    case(|| Life::in_own_root("").replay(lines::PODMAN));
}

#[test]
fn conmon() {
    case(|| Life::in_own_root("").replay(lines::CONMON));
}

#[test]
fn crio() {
    case(|| Life::new("").replay(lines::CRIO));
}

#[test]
fn conmon_rs() {
    case(|| Life::new("").replay(lines::CONMON_RS));
}

#[test]
fn buildah() {
    case(|| Life::in_own_root("").replay(lines::BUILDAH));
}

/// What `docker run` and podman make 125, 126 and 127 of.
#[test]
fn words_of_programs_that_cannot_be_executed() {
    case(|| {
        for (program, words) in [
            ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
            ("/nosuch", "no such file or directory"),
            ("/etc/passwd", "permission denied"),
            ("/etc", "permission denied"),
        ] {
            let mut life = Life::new(GO_RUNC);
            life.container.bundle.args(&[program]).write();
            life.replay(&[l("create --bundle {bundle} --pid-file {pid} {id}", 1, Fails(words))]);
        }
    });
}

/// Docker's command line makes 127 of it, in lower case only.
#[test]
fn words_of_a_bind_mount_without_its_source() {
    case(|| {
        let mut life = Life::new(GO_RUNC);
        life.container.bundle.mount("/mnt", "bind", "/nosuch", &["bind"]).write();
        life.replay(&[l("create --bundle {bundle} --pid-file {pid} {id}", 1, Fails("no such file or directory"))]);
    });
}

/// moby explains it further.
#[test]
fn words_of_a_directory_mounted_on_a_file() {
    case(|| {
        let mut life = Life::new(GO_RUNC);
        life.container.bundle.mount("/etc/passwd", "bind", "/etc", &["bind"]).write();
        life.replay(&[l("create --bundle {bundle} --pid-file {pid} {id}", 1, Fails("not a directory"))]);
    });
}

/// Docker asks for a line with `version` and one that begins with `commit:`; go-runc for runc's own name.
#[test]
fn version_as_go_runc_reads_it() {
    case(|| {
        let life = Life::new("");
        let link = life.path("runc");
        crate::support::copy_program(runtime(), &link);
        let lines = Call::new(link).args(["--version"]).run().ok().stdout;
        let lines: Vec<&str> = lines.lines().collect();
        for (line, start) in lines.iter().zip(["runc version ", "commit: ", "spec: "]) {
            assert!(line.starts_with(start), "{lines:?}");
        }
    });
}
