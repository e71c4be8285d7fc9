//! `exec` many times, side by side, and killed half-way.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{call, only_init_is_left, sleeping};
use crate::namespaces::{mappings, user_namespaces};
use crate::support::{Bundle, Container, case, readable, scale};

/// What could grow: descriptors of init, files of the state, processes.
fn counts(container: &Container) -> (usize, Vec<String>) {
    let names = |path: &std::path::Path| -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let fds = names(format!("/proc/{}/fd", container.pid()).as_ref()).len();
    (fds, names(&container.root().join(&container.id)))
}

#[test]
fn a_hundred_in_sequence() {
    case(|| {
        let (container, _io) = Container::running();
        let before = counts(&container);
        for round in 0..scale() {
            let output = call(&container, &[], &["true"]).run();
            assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "round {round}");
        }
        only_init_is_left(&container);
        assert_eq!(counts(&container), before);
    });
}

/// A thousand, where the scale is 100.
#[test]
fn eight_at_a_time() {
    case(|| {
        let (container, _io) = Container::running();
        let before = counts(&container);
        for round in 0..(10 * scale()).div_ceil(8) {
            let calls: Vec<_> = (0..8)
                .map(|number| (number, call(&container, &[], &["sh", "-c", &format!("exit {number}")]).spawn()))
                .collect();
            for (number, call) in calls {
                let output = call.wait();
                assert_eq!((output.code(), output.stderr.as_str()), (number, ""), "round {round}");
            }
        }
        only_init_is_left(&container);
        assert_eq!(counts(&container), before);
    });
}

/// Kills the command at moments spread over the time that it takes.
fn killed_half_way(bundle: Bundle) {
    let (container, _io) = sleeping(bundle);
    let before = counts(&container);
    let time = || {
        let start = Instant::now();
        call(&container, &[], &["true"]).run().ok();
        start.elapsed()
    };
    // Never readable: to wait for a moment, not for an event.
    let (never, _write) = rustix::pipe::pipe().unwrap();
    let rounds = u32::try_from(scale()).unwrap();
    let mut killed = 0;
    let mut took = Duration::MAX;
    for round in 0..rounds {
        if round % 10 == 0 {
            // The shortest of some, and anew: a machine that was busy just then would put all the rest past the end.
            took = (0..3).map(|_| time()).min().unwrap();
        }
        let running = call(&container, &[], &["true"]).spawn();
        readable(&never, took * round / rounds + Duration::from_micros(1));
        running.signal(Signal::KILL);
        killed += u32::from(running.wait().code() == 1000 + 9);
    }
    assert!(killed > rounds / 4, "only {killed} of {rounds} were killed");
    only_init_is_left(&container);
    assert_eq!(counts(&container), before);
    assert_eq!(container.status(), "running");
    call(&container, &[], &["true"]).run().ok();
}

#[test]
fn killed_half_way_nothing_is_left() {
    case(|| killed_half_way(Bundle::new()));
}

#[test]
fn killed_half_way_in_a_user_namespace() {
    case(|| {
        if !user_namespaces() {
            crate::support::skip!("no user namespaces");
        }
        let mut bundle = Bundle::new();
        mappings(bundle.namespace("user", None));
        killed_half_way(bundle);
    });
}

#[test]
fn killed_half_way_without_a_pid_namespace() {
    case(|| {
        let mut bundle = Bundle::new();
        bundle.no_namespace("pid");
        killed_half_way(bundle);
    });
}

/// exec against the end of the container: it works or it is refused, and nothing is left.
#[test]
fn against_delete_by_force() {
    case(|| {
        for round in 0..scale().div_ceil(8) {
            let (container, _io) = Container::running();
            let calls: Vec<_> = (0..4).map(|_| call(&container, &[], &["sleep", "100000"]).spawn()).collect();
            let (never, _write) = rustix::pipe::pipe().unwrap();
            readable(&never, Duration::from_micros(500 * round as u64));
            container.command(&["delete", "--force"], &[]).ok();
            for call in calls {
                let code = call.wait().code();
                assert!(code == 137 || code == 255, "round {round}: {code}");
            }
            container.nothing_left();
        }
    });
}
