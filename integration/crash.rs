//! Crash anywhere: at each system call of each command the runtime, or its child, is killed, or the call fails.
//!
//! After each: the command has done its work or said in one line why not; `state`, `list` and `delete --force` answer; and
//! nothing is left. `make crash` tries every point, the suite some of them (`RUNTIME_TEST_EVERY`, one in so many).

mod calls;
mod costs;
mod downgrade;
mod trace;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Bundle, Call, Container, Output, case, number, ours, say, skip, systemd};
use trace::{Blow, Point, Traced, Who};

/// A command, and what is there before it.
struct Command {
    name: &'static str,
    /// Makes the container that the command is about.
    scene: fn() -> Scene,
    call: fn(&Container) -> Call,
    /// What holds when it has succeeded; else what is wrong.
    done: fn(&Container, &Output) -> Result<(), String>,
    /// Whether a container of that id exists when it has failed.
    stays: bool,
}

struct Scene {
    container: Container,
    /// Keeps the container's standard streams.
    _io: Option<crate::support::Io>,
}

impl Command {
    /// Strikes at every `step`th point of one process; returns what was found.
    fn torture(&self, who: Who, every: usize) {
        let watched = self.watch(who);
        let mut points = Vec::new();
        for (at, &number) in watched.iter().enumerate() {
            let kills = [Blow::KillBefore, Blow::KillAfter].into_iter();
            let errors = calls::errors(number).iter().map(|&errno| Blow::Fails(errno));
            // Of the others the default action is the contract: they make nothing that is not in the state.
            let ends = who == Who::Command && !self.stays;
            let signals = ends.then_some(Blow::Signal(nix::sys::signal::Signal::SIGTERM));
            points.extend(kills.chain(errors).chain(signals).map(|blow| Point { who, at, blow }));
        }
        if !ours() {
            // Of others only what is left is compared.
            points.retain(|point| matches!(point.blow, Blow::KillBefore | Blow::KillAfter));
        }
        let (mut tried, mut missed, mut findings) = ([0; 3], 0, Vec::new());
        // Only one of them, to look into it.
        let only = std::env::var("RUNTIME_TEST_AT").ok().and_then(|text| text.parse().ok());
        points.retain(|point| only.is_none_or(|at: usize| point.at == at));
        for point in points.iter().skip(every / 2).step_by(every) {
            let kind = match point.blow {
                Blow::KillBefore | Blow::KillAfter => 0,
                Blow::Fails(_) | Blow::Refused(_) => 1,
                Blow::Signal(_) => 2,
            };
            tried[kind] += 1;
            match catch_unwind(AssertUnwindSafe(|| self.strike(*point))) {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => missed += 1,
                Ok(Err(finding)) => findings.push(finding),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    findings.push(format!("{} {} {point:?}: {text}", self.name, calls::name(watched[point.at])));
                }
            }
        }
        let [kills, failures, signals] = tried;
        say(&format!(
            "CRASH {} {who:?}: {} calls, {kills} kills, {failures} failures, {signals} signals, {missed} not reached, \
             {} findings",
            self.name,
            watched.len(),
            findings.len()
        ));
        findings.iter().for_each(|finding| say(&format!("FINDING {finding}")));
        assert!(findings.is_empty(), "{} findings: {}", findings.len(), findings[0]);
    }

    fn watch(&self, who: Who) -> Vec<u64> {
        let scene = (self.scene)();
        let traced = self.traced(&scene.container, who, None);
        assert!(traced.output.code() == 0 && !traced.hung, "{}: {:?}", self.name, traced.output);
        (self.done)(&scene.container, &traced.output).unwrap();
        traced.calls
    }

    fn traced(&self, container: &Container, who: Who, point: Option<Point>) -> Traced {
        let init = (self.name == "start" && who == Who::Child).then(|| container.pid());
        trace::run((self.call)(container), init, who, point)
    }

    /// False: the point was not reached this time.
    fn strike(&self, point: Point) -> Result<bool, String> {
        let scene = (self.scene)();
        let found = self.look(&scene.container, point);
        // What is left is cleared away with a panic of its own, which says less.
        match catch_unwind(AssertUnwindSafe(|| drop(scene))) {
            Err(panic) if found.is_ok() => resume_unwind(panic),
            _ => found,
        }
    }

    fn look(&self, container: &Container, point: Point) -> Result<bool, String> {
        let traced = self.traced(container, point.who, Some(point));
        let Some(hit) = traced.hit else { return Ok(false) };
        let output = &traced.output;
        let place = format!("{} {:?} {} {}: {:?}", self.name, point.who, point.at, calls::name(hit), point.blow);
        let finding = |text: String| Err(format!("{place}: {text} ({}: {:?})", output.code(), output.stderr));
        if traced.hung {
            return finding("hangs".to_owned());
        }
        let killed = matches!(point.blow, Blow::KillBefore | Blow::KillAfter);
        if ours() && !(killed && point.who == Who::Command) {
            if output.code() == 0 {
                if let (false, Err(text)) = (killed, (self.done)(container, output)) {
                    return finding(text);
                }
            } else if killed && output.code() == 137 {
                // Of `run` and `exec`: how the program ended, as far as anybody can tell.
            } else if matches!(point.blow, Blow::Signal(_)) && output.code() == 1015 && container.leftovers().is_empty()
            {
                // Before anything is made a signal does what it does by default.
            } else if !is_clear(output) {
                return finding("no clear line".to_owned());
            } else if !self.stays && !container.leftovers().is_empty() {
                return finding(format!("is not undone: {:?}", container.leftovers()));
            }
        }
        if (self.name, point.who) == ("start", Who::Command)
            && killed
            && ours()
            && let Err(text) = startable(container)
        {
            return finding(text);
        }
        let began = Instant::now();
        let state = container.command(&["state"], &[]);
        if ours() && state.code() != 0 && !is_clear(&state) {
            return finding(format!("state: {state:?}"));
        }
        let list = container.call(["list", "--format", "json"]).run();
        if ours() && list.code() != 0 {
            return finding(format!("list: {list:?}"));
        }
        let delete = container.command(&["delete", "--force"], &[]);
        if delete.code() != 0 {
            return finding(format!("delete --force: {delete:?}"));
        }
        if ours() && began.elapsed() > Duration::from_secs(9) {
            return finding(format!("state, list and delete took {:?}", began.elapsed()));
        }
        let left = container.leftovers();
        if !left.is_empty() {
            return finding(format!("left: {left:?}"));
        }
        let files = strange_files(container);
        if files.is_empty() { Ok(true) } else { finding(format!("left: {files:?}")) }
    }
}

/// The starter is dead: the container waits for the next one, or runs; it has neither ended, nor is it said to be what it
/// is not.
fn startable(container: &Container) -> Result<(), String> {
    if is(container, "created").is_ok() {
        let again = container.start();
        if again.code() != 0 && is(container, "running").is_err() {
            return Err(format!("cannot be started again: {again:?}"));
        }
    }
    is(container, "running")
}

/// One line, a hint, undone things; in the words of an error.
fn is_clear(output: &Output) -> bool {
    let lines: Vec<&str> = output.stderr.lines().collect();
    let more = |line: &&str| line.starts_with("hint: ") || line.starts_with("undo: ");
    (1..256).contains(&output.code())
        && lines.first().is_some_and(|line| line.len() > 10 && !line.contains("panicked"))
        && lines.iter().skip(1).all(more)
}

/// What is in the bundle and was not put there.
fn strange_files(container: &Container) -> Vec<String> {
    let names = fs::read_dir(&container.bundle.directory).unwrap().flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| !["config.json", "rootfs", "state", "pid"].contains(&name.as_str())).collect()
}

// ---------------------------------------------------------------------------------------------- the commands

/// Prints what of the container a fault could have changed without a word.
const FINGERPRINT: &str = "exec 2>/dev/null; cd /; grep -E '^(Cap|NoNew|Seccomp|Groups|Uid|Gid)' /proc/self/status; \
    sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s/ (shared|master):[0-9]+//; s/inodes.*//' /proc/self/mountinfo | sort; \
    ls -l /dev | sed 's/[A-Z][a-z][a-z] .*:.. / /'; hostname; pwd; id; cat /proc/self/oom_score_adj; \
    sed 's/[0-9]*//' /proc/self/limits; ls /proc/self/fd | wc -l";

fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
    bundle.set("/process/oomScoreAdj", json!(100));
    bundle
}

fn nothing() -> Scene {
    Scene { container: bundle("sleep 1000").container(), _io: None }
}

/// A user namespace, and hooks on both sides.
fn nothing_rich() -> Scene {
    let mut bundle = bundle("sleep 1000");
    bundle.namespace("user", None).namespace("cgroup", None);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let hook = json!([{"path": "/bin/true"}]);
    bundle.set("/hooks/createRuntime", hook.clone()).set("/hooks/createContainer", hook);
    Scene { container: bundle.container(), _io: None }
}

fn created() -> Scene {
    let scene = nothing();
    let io = scene.container.create_io();
    Scene { _io: Some(io), ..scene }
}

fn running() -> Scene {
    let scene = created();
    scene.container.start().ok();
    scene
}

fn paused() -> Scene {
    let scene = running();
    scene.container.command(&["pause"], &[]).ok();
    scene
}

fn stopped() -> Scene {
    let scene = created();
    scene.container.stop();
    scene
}

fn is(container: &Container, status: &str) -> Result<(), String> {
    let state = container.command(&["state"], &[]);
    if state.stdout.contains(&format!("\"status\": \"{status}\"")) {
        Ok(())
    } else {
        Err(format!("is not {status}: {state:?}"))
    }
}

fn is_gone(container: &Container) -> Result<(), String> {
    let left = container.leftovers();
    if left.is_empty() { Ok(()) } else { Err(format!("left: {left:?}")) }
}

fn create_call(container: &Container) -> Call {
    // Its standard streams must not be ours: the container outlives the call.
    let pid_file = container.bundle.directory.join("pid").display().to_string();
    container.call_bundle("create", &["--pid-file", &pid_file])
}

const CREATE: Command = Command {
    name: "create",
    scene: nothing,
    call: create_call,
    done: |c, _| is(c, "created").or_else(|error| is(c, "stopped").map_err(|_| error)),
    stays: false,
};

const CREATE_RICH: Command = Command { name: "create, with a user namespace and hooks", scene: nothing_rich, ..CREATE };

const START: Command = Command {
    name: "start",
    scene: created,
    call: |c| c.call(["start", &c.id]),
    done: |c, _| is(c, "running"),
    stays: true,
};

fn fingerprint() -> &'static str {
    static FIRST: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FIRST.get_or_init(|| {
        let container = bundle(FINGERPRINT).container();
        let output = container.run().ok();
        nameless(&container, &output.stdout)
    })
}

/// Without what differs from container to container.
fn nameless(container: &Container, text: &str) -> String {
    let number = container.bundle.directory.file_name().unwrap().display().to_string();
    text.replace(&container.id, "ID").replace(&format!("/{number}/"), "/N/")
}

const RUN: Command = Command {
    name: "run",
    scene: || Scene { container: bundle(FINGERPRINT).container(), _io: None },
    call: |c| c.call_bundle("run", &[]),
    done: |c, output| {
        let (new, old) = (nameless(c, &output.stdout), fingerprint());
        let lacks = |text: &str, line: &&str| !text.lines().any(|other| other == *line);
        let (added, lost) = (new.lines().filter(|l| lacks(old, l)), old.lines().filter(|l| lacks(&new, l)));
        let changed: Vec<&str> = added.chain(lost).collect();
        // The status of the program is what its caller waits for, even if not all could be cleared away.
        let warned = output.stderr.starts_with("warning: ");
        if changed.is_empty() {
            if warned { Ok(()) } else { is_gone(c) }
        } else {
            Err(format!("is another container: {changed:?}"))
        }
    },
    stays: false,
};

const EXEC: Command = Command {
    name: "exec",
    scene: running,
    call: |c| c.call(["exec", &c.id, "echo", "done"]),
    done: |_, output| if output.stdout == "done\n" { Ok(()) } else { Err(format!("says {:?}", output.stdout)) },
    stays: true,
};

const KILL: Command = Command {
    name: "kill",
    scene: running,
    call: |c| c.call(["kill", &c.id, "KILL"]),
    done: |c, _| {
        crate::support::eventually("the container is stopped", || is(c, "stopped").is_ok());
        Ok(())
    },
    stays: true,
};

const DELETE: Command = Command {
    name: "delete",
    scene: stopped,
    call: |c| c.call(["delete", &c.id]),
    done: |c, _| is_gone(c),
    stays: true,
};

const DELETE_FORCE: Command =
    Command { name: "delete --force", scene: running, call: |c| c.call(["delete", "--force", &c.id]), ..DELETE };

const UPDATE: Command = Command {
    name: "update",
    scene: running,
    call: |c| c.call(["update", "--memory", "32M", "--pids-limit", "40", "--cpu-share", "500", &c.id]),
    done: |c, _| {
        let file = if crate::support::cgroup_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        let limit = crate::support::text(c.cgroup("memory").unwrap().join(file));
        if limit.trim() == "33554432" { Ok(()) } else { Err(format!("{file}: {limit}")) }
    },
    stays: true,
};

const PAUSE: Command = Command {
    name: "pause",
    scene: running,
    call: |c| c.call(["pause", &c.id]),
    done: |c, _| is(c, "paused"),
    stays: true,
};

const RESUME: Command = Command {
    name: "resume",
    scene: paused,
    call: |c| c.call(["resume", &c.id]),
    done: |c, _| is(c, "running"),
    stays: true,
};

// ---------------------------------------------------------------------------------------------- the tests

/// One point in so many: all of them are many minutes, and an emulated processor has no time for more.
fn sample() -> usize {
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) { 97 } else { 499 }
}

macro_rules! points {
    ($($sample:ident $every:ident $command:ident $who:ident;)*) => { $(
        #[test]
        fn $sample() {
            case(|| {
                if !ours() || systemd() {
                    skip!("only this project's runtime, by cgroupfs");
                }
                $command.torture(Who::$who, number("RUNTIME_TEST_EVERY", sample()));
            });
        }

        #[test]
        #[ignore = "every point: make crash"]
        fn $every() {
            $command.torture(Who::$who, number("RUNTIME_TEST_EVERY", 1));
        }
    )* };
}

points! {
    create every_create CREATE Command;
    create_child every_create_child CREATE Child;
    create_rich every_create_rich CREATE_RICH Command;
    create_rich_child every_create_rich_child CREATE_RICH Child;
    start every_start START Command;
    start_child every_start_child START Child;
    run every_run RUN Command;
    run_child every_run_child RUN Child;
    exec every_exec EXEC Command;
    exec_child every_exec_child EXEC Child;
    kill every_kill KILL Command;
    delete every_delete DELETE Command;
    delete_force every_delete_force DELETE_FORCE Command;
    update every_update UPDATE Command;
    pause every_pause PAUSE Command;
    resume every_resume RESUME Command;
}
