//! What each command costs in system calls and instructions, which no other load of the machine changes: counted under ptrace(2)
//! and compared with `integration/costs.txt`. One that has grown by more than 5 % fails, unless the record is changed with it.
//!
//! `list` is not among them: it looks for containers that have lost their directory in all cgroups of the host.
//! `make costs` compares, `make costs-record` writes: both with the release binary, since a debug build checks itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::trace::{self, Who};
use super::{CREATE, Command, DELETE, EXEC, KILL, RUN, START, Scene, bundle, running, stopped};
use crate::support::{cgroup_v2, hierarchies, ours, say, skip};

const RECORD: &str = "integration/costs.txt";
const HEADER: &str = "\
# What each command costs: written by `make costs-record`, compared by `make costs` (integration/crash/costs.rs).
# Kind of host (cgroups, how many hierarchies, C library), command, what of it, how many. Calls are those of the command's own process
# and of its child until that executes the container's program; instructions are those of both, outside of the kernel.
";

const RUN_TRUE: Command = Command {
    name: "run",
    scene: || Scene { container: bundle("true").container(), _io: None },
    done: |_, _| Ok(()),
    ..RUN
};
const STATE: Command =
    Command { name: "state", scene: running, call: |c| c.call(["state", &c.id]), done: |_, _| Ok(()), stays: true };
const STATE_STOPPED: Command = Command { name: "state of a stopped one", scene: stopped, ..STATE };

/// The highest of so many tries is taken: what waits may find its answer there, or not yet.
const TRIES: usize = 3;

fn costs(command: &Command) -> [(&'static str, u64); 3] {
    let calls = |who| (0..TRIES).map(|_| command.watch(who).len() as u64).max().unwrap_or(0);
    let scene = (command.scene)();
    let instructions = trace::instructions((command.call)(&scene.container));
    [("calls", calls(Who::Command)), ("calls-child", calls(Who::Child)), ("instructions", instructions)]
}

/// The C library is that of the runtime, too: make builds both for one target.
fn kind() -> String {
    let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    if cgroup_v2() { format!("v2-{library}") } else { format!("v1-{}-{library}", hierarchies().len()) }
}

fn read(text: &str) -> BTreeMap<String, u64> {
    let entry = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect()
}

#[test]
#[ignore = "of the release binary: make costs"]
fn no_command_costs_more_than_is_recorded() {
    if !ours() {
        skip!("of our own runtime");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let mut recorded = read(&std::fs::read_to_string(&path).unwrap_or_default());
    let record = std::env::var_os("RUNTIME_TEST_RECORD").is_some();
    let kind = kind();
    let is_here = |name: &String| name.starts_with(&format!("{kind} "));
    if !record && !recorded.keys().any(is_here) {
        skip!("nothing is recorded for a host of the kind {kind}");
    }
    if record {
        recorded.retain(|name, _| !is_here(name));
    }
    let (mut grown, mut compared) = (Vec::new(), 0);
    for command in [&CREATE, &START, &RUN_TRUE, &EXEC, &STATE, &STATE_STOPPED, &KILL, &DELETE] {
        for (what, count) in costs(command) {
            let name = format!("{kind} {} {what}", command.name.replace(' ', "-"));
            if record {
                recorded.insert(name, count);
                continue;
            }
            let Some(&was) = recorded.get(&name) else { continue };
            compared += 1;
            if count * 100 > was * 105 {
                grown.push(format!("{name}: {count}, recorded are {was}"));
            } else if count * 100 < was * 95 {
                say(&format!("COSTS {name}: only {count}, recorded are {was}: make costs-record"));
            }
        }
    }
    if record {
        let mut text = HEADER.to_owned();
        recorded.iter().for_each(|(name, count)| writeln!(text, "{name} {count}").unwrap());
        std::fs::write(&path, text).unwrap();
        return;
    }
    say(&format!("COSTS {compared} compared"));
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
