//! What each command costs in system calls and instructions, which no other load of the machine changes: counted under ptrace(2)
//! and compared with `integration/costs.txt`. One that has grown by more than 5 % fails, unless the record is changed with it.
//!
//! `list` is not among them: it looks for containers that have lost their directory in all cgroups of the host. Instructions of
//! `run` are those of `create` and `start`; where init is dead, they depend on who has reaped it by then. Compared is what is recorded for this kind of host; `make costs-record` asks for
//! new lines, by `RUNTIME_TEST_RECORD=calls`, or with instructions by `all`.

use std::collections::BTreeMap;
use std::path::Path;

use super::trace::{self, Who};
use super::{CREATE, Command, DELETE, EXEC, KILL, RUN, START, Scene, bundle, running, stopped};
use crate::support::{cgroup_v2, hierarchies, ours, runtime, say, skip, text};

const RECORD: &str = include_str!("../costs.txt");

const RUN_TRUE: Command = Command {
    name: "run",
    scene: || Scene { container: bundle("true").container(), _io: None },
    done: |_, _| Ok(()),
    ..RUN
};
const STATE: Command =
    Command { name: "state", scene: running, call: |c| c.call(["state", &c.id]), done: |_, _| Ok(()), stays: true };
const STATE_STOPPED: Command = Command { name: "state of a stopped one", scene: stopped, ..STATE };

/// The lowest of so many tries is taken: what waits may find its answer there, or not yet.
const TRIES: usize = 5;

#[derive(Clone, Copy)]
enum What {
    Calls,
    CallsOfChild,
    Instructions,
}

const WHAT: [(&str, What); 3] =
    [("calls", What::Calls), ("calls-child", What::CallsOfChild), ("instructions", What::Instructions)];

fn cost(command: &Command, what: What) -> u64 {
    let calls = |who| (0..TRIES).map(|_| command.watch(who).len() as u64).min().unwrap_or(0);
    match what {
        What::Calls => calls(Who::Command),
        What::CallsOfChild => calls(Who::Child),
        What::Instructions => {
            let scene = (command.scene)();
            trace::instructions((command.call)(&scene.container))
        }
    }
}

/// The C library is that of the runtime, too: make builds both for one target.
fn kind() -> String {
    let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let release = text("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = release.split(['.', '-']).take(2).collect();
    // Of the guest: other hosts have more controllers and security modules.
    let v2 = if runtime() == Path::new("/runtime") { "v2-guest" } else { "v2" };
    let cgroups = if cgroup_v2() { v2.to_owned() } else { format!("v1-{}", hierarchies().len()) };
    format!("{cgroups}-{}-{library}", kernel.join("."))
}

fn recorded() -> BTreeMap<&'static str, u64> {
    let lines = RECORD.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, count)| (name, count.parse().unwrap())).collect()
}

#[test]
fn no_command_costs_more_than_is_recorded() {
    if !ours() {
        skip!("of our own runtime");
    }
    if cfg!(debug_assertions) {
        skip!("a debug build checks itself");
    }
    let (recorded, kind) = (recorded(), kind());
    let record = std::env::var("RUNTIME_TEST_RECORD").ok();
    // So that the cgroup above those of all tests is there.
    let _other = running();
    let (mut grown, mut compared) = (Vec::new(), 0);
    for command in [&CREATE, &START, &RUN_TRUE, &EXEC, &STATE, &STATE_STOPPED, &KILL, &DELETE] {
        for (label, what) in WHAT {
            let name = format!("{kind} {} {label}", command.name.replace(' ', "-"));
            let counts_instructions = matches!(what, What::Instructions);
            let same_each_time = !["run", STATE_STOPPED.name, DELETE.name].contains(&command.name);
            if record.is_some() {
                if !counts_instructions || (record.as_deref() == Some("all") && same_each_time) {
                    say(&format!("RECORD {name} {}", cost(command, what)));
                }
                continue;
            }
            let Some(&was) = recorded.get(name.as_str()) else { continue };
            compared += 1;
            let count = cost(command, what);
            if count * 100 > was * 105 {
                grown.push(format!("{name}: {count}, recorded are {was}"));
            } else if count * 2 < was {
                grown.push(format!("{name}: {count}, not even half of the recorded {was}: what counts is broken"));
            } else if count * 100 < was * 95 {
                say(&format!("COSTS {name}: only {count}, recorded are {was}: make costs-record"));
            }
        }
    }
    say(&format!("COSTS {compared} compared on a host of the kind {kind}"));
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
