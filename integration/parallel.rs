//! Commands on one id at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Bundle, Container, Output, WAITING, case, eventually, scale};

fn codes(outputs: &[Output]) -> Vec<i32> {
    let mut codes: Vec<i32> = outputs.iter().map(Output::code).collect();
    codes.sort_unstable();
    codes
}

#[test]
fn creates_of_one_id_have_one_winner() {
    case(|| {
        for _ in 0..scale().div_ceil(20) {
            let container = Bundle::new().container();
            let calls: Vec<_> = (0..6).map(|_| container.call_bundle("create", &[]).spawn()).collect();
            let outputs: Vec<Output> = calls.into_iter().map(|call| call.wait()).collect();
            assert_eq!(codes(&outputs), [0, 1, 1, 1, 1, 1], "{outputs:?}");
            assert_eq!(container.status(), "created");
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn deletes_by_force_of_one_id_all_succeed() {
    case(|| {
        for _ in 0..scale().div_ceil(20) {
            let (container, _io) = Container::running();
            let calls: Vec<_> = (0..5).map(|_| container.call(["delete", "--force", &container.id]).spawn()).collect();
            let outputs: Vec<Output> = calls.into_iter().map(|call| call.wait()).collect();
            assert_eq!(codes(&outputs), [0; 5], "{outputs:?}");
            container.nothing_left();
        }
    });
}

#[test]
fn starts_of_one_id_have_one_winner() {
    case(|| {
        for _ in 0..scale().div_ceil(20) {
            let (container, mut io) = Container::created(crate::support::WAITING);
            let calls: Vec<_> = (0..5).map(|_| container.call(["start", &container.id]).spawn()).collect();
            let outputs: Vec<Output> = calls.into_iter().map(|call| call.wait()).collect();
            assert_eq!(codes(&outputs), [0, 1, 1, 1, 1], "{outputs:?}");
            assert_eq!(io.stdout.next(), "ready");
        }
    });
}

#[test]
fn create_against_delete_by_force_leaves_nothing() {
    case(|| {
        for _ in 0..scale().div_ceil(10) {
            let container = Bundle::new().container();
            let create = container.call_bundle("create", &[]).spawn();
            let delete = container.call(["delete", "--force", &container.id]).spawn();
            create.wait();
            delete.wait();
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

/// It has no directory yet when `delete` looks for it, and a marked cgroup when that looks again.
#[test]
fn a_container_that_comes_after_its_delete_by_force_lives() {
    case(|| {
        // Another one in the same cgroup, which `delete` then looks into.
        let (_other, _io) = Container::running();
        for round in 0..scale().div_ceil(2) as u64 {
            let container = Bundle::new().container();
            let delete = container.call(["delete", "--force", &container.id]).spawn();
            // Wherever it is after this time, it waits until the container is there.
            std::thread::sleep(Duration::from_micros(round * 80));
            delete.signal(Signal::STOP);
            let create = container.create().ok();
            delete.signal(Signal::CONT);
            delete.wait().ok();
            // Or it has found the container, and deleted it.
            let state = container.command(&["state"], &[]);
            let state = if state.code() == 0 { state.stdout } else { state.fails().stderr };
            assert!(
                state.contains("\"status\": \"created\"") || state.contains("does not exist"),
                "{round}: {state}, {create:?}"
            );
        }
    });
}

#[test]
fn start_against_kill_leaves_a_container_that_can_be_deleted() {
    case(|| {
        for _ in 0..scale().div_ceil(10) {
            let (container, _io) = Container::created(crate::support::WAITING);
            let start = container.call(["start", &container.id]).spawn();
            let kill = container.call(["kill", &container.id, "KILL"]).spawn();
            start.wait();
            kill.wait().ok();
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn list_while_containers_come_and_go() {
    case(|| {
        let container = Bundle::new().container();
        for _ in 0..scale().div_ceil(10) {
            let run = container.call_bundle("run", &[]).spawn();
            while !run.has_ended() {
                container.call(["list", "--format", "json"]).run().ok();
            }
            run.wait().ok();
        }
    });
}

/// Makes cgroups below each that it sees, and goes into one of them.
const NESTS: &str = "cd /sys/fs/cgroup; top=.; [ -e cgroup.procs ] || top=$(ls -d */); \
    for dir in $top; do mkdir -p $dir/a/b $dir/c || echo no cgroups in $dir; done; [ $top = . ] || cd pids; echo $$ > a/b/cgroup.procs; ";

/// One of many: created with cgroups of its own making, and deleted.
fn come_and_go(number: usize) {
    let mut bundle = Bundle::sh(&format!("{NESTS}{WAITING}"));
    bundle.unmount("/sys/fs/cgroup").namespace("cgroup", None);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    let container = bundle.container();
    let mut io = container.create_io();
    container.start().ok();
    assert_eq!(io.stdout.next(), "ready");
    if number.is_multiple_of(2) {
        container.stop();
        container.command(&["delete"], &[]).ok();
    } else {
        container.command(&["delete", "--force"], &[]).ok();
    }
    container.nothing_left();
}

#[test]
fn many_containers_side_by_side_leave_no_cgroup() {
    case(|| {
        let next = AtomicUsize::new(0);
        // By default two hundred; an emulated processor has no time for them.
        let count =
            2 * scale() / if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) { 1 } else { 10 };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                    numbers.take_while(|number| *number < count).for_each(come_and_go);
                });
            }
        });
    });
}

/// Each of them succeeds, or says in a line why not; none waits for ever.
#[test]
fn all_commands_on_one_id_at_once() {
    case(|| {
        for round in 0..scale().div_ceil(10) {
            let (container, _io) = Container::created(WAITING);
            let id = container.id.as_str();
            let mut commands: Vec<Vec<&str>> = vec![
                vec!["start", id],
                vec!["exec", id, "true"],
                vec!["pause", id],
                vec!["resume", id],
                vec!["update", "--pids-limit", "30", id],
                vec!["state", id],
                vec!["start", id],
                vec!["kill", id, "TERM"],
                vec!["exec", id, "true"],
                vec!["delete", id],
                vec!["ps", id],
                vec!["list"],
                vec!["kill", "--all", id, "KILL"],
            ];
            match round % 3 {
                0 => commands.push(vec!["delete", "--force", id]),
                1 => {
                    commands.retain(|command| command[0] != "kill" && command[0] != "delete");
                }
                _ => {}
            }
            let calls: Vec<_> = commands.iter().map(|command| container.call(command).spawn()).collect();
            let calls = calls.into_iter().zip(&commands);
            let (execs, others): (Vec<_>, Vec<_>) = calls.partition(|(_, command)| command[0] == "exec");
            let mut outputs: Vec<Output> = others.into_iter().map(|(call, _)| call.wait()).collect();
            eventually("the programs of exec have ended", || {
                // The resume may have been first, and the pause may have come while they ran.
                let ended = execs.iter().all(|(call, _)| call.has_ended());
                if !ended {
                    container.command(&["resume"], &[]);
                }
                ended
            });
            outputs.extend(execs.into_iter().map(|(call, _)| call.wait()));
            for output in outputs {
                let code = output.code();
                // 255 is an exec that was not made, 137 one whose container was deleted.
                assert!(matches!(code, 0 | 1 | 137 | 255), "{output:?}");
                assert!(code == 0 || code == 137 || output.stderr.lines().count() > 0, "{output:?}");
                assert!(!output.stderr.contains("panicked") && !output.stderr.contains(" lock "), "{output:?}");
            }
            // Whatever came last, it is one of the states, and goes on from there.
            let state = container.command(&["state"], &[]);
            if state.stdout.contains("\"status\": \"paused\"") {
                container.command(&["resume"], &[]).ok();
            } else if state.stdout.contains("\"status\": \"created\"") {
                container.start().ok();
            } else if state.code() != 0 {
                assert!(state.stderr.contains("does not exist"), "{state:?}");
            }
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}
