//! `pause` and `resume`: all processes stand still, and go on; what a paused container's other commands do is in
//! `lifecycle.rs`.

use std::fs;
use std::io::Write;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use serde_json::json;

use crate::cgroups::removal::dig;
use crate::support::{
    Bundle, Container, Output, case, cgroup_parent, cgroup_v2, controller, eventually, hierarchies, ours, runtime,
    scale, skip, text, wait_for_end,
};

/// Answers each line, by a child of its own.
const ECHO: &str = "echo ready; while read line; do sh -c \"echo got $line\"; done";

/// Whether the kernel says that every process of the container is frozen.
fn frozen(container: &Container) -> bool {
    match cgroup_v2() {
        true => text(container.cgroup("").unwrap().join("cgroup.events")).contains("frozen 1"),
        false => text(container.cgroup("freezer").unwrap().join("freezer.state")).trim() == "FROZEN",
    }
}

/// Where a process is in the hierarchy of a controller of v1.
fn path_of(pid: u32, controller: &str) -> String {
    let places = text(format!("/proc/{pid}/cgroup"));
    let mut places = places.lines().filter_map(|line| line.split_once(':')?.1.split_once(":/"));
    let place = places.find(|(controllers, _)| controllers.split(',').any(|one| one == controller));
    place.expect("a hierarchy of v1").1.to_owned()
}

fn has_freezer() -> bool {
    cgroup_v2() || hierarchies().iter().any(|one| one.controllers.iter().any(|name| name == "freezer"))
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    case(|| {
        if !has_freezer() {
            skip!("no freezer");
        }
        let (container, mut io) = Container::created(ECHO);
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        for line in ["one", "two"] {
            let output = container.command(&["pause"], &[]).ok();
            assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
            assert!(frozen(&container));
            assert_eq!(container.status(), "paused");
            io.write(&format!("{line}\n"));
            container.command(&["resume"], &[]).ok();
            assert_eq!(container.status(), "running");
            assert_eq!(io.stdout.next(), format!("got {line}"));
        }
    });
}

#[test]
fn a_created_container_can_be_paused_and_started_afterwards() {
    case(|| {
        if !has_freezer() {
            skip!("no freezer");
        }
        let (container, mut io) = Container::created(ECHO);
        container.command(&["pause"], &[]).ok();
        assert_eq!(container.status(), "paused");
        container.start().fails();
        container.command(&["resume"], &[]).ok();
        assert_eq!(container.status(), "created");
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
    });
}

#[test]
fn processes_that_fork_all_the_time_are_frozen() {
    case(|| {
        if !has_freezer() {
            skip!("no freezer");
        }
        let forks = "for i in 1 2 3 4; do while :; do (:); done & done; echo ready; wait";
        let (container, mut io) = Container::created(forks);
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        for _ in 0..3 {
            container.command(&["pause"], &[]).ok();
            assert!(frozen(&container));
            container.command(&["resume"], &[]).ok();
            assert!(!frozen(&container));
        }
    });
}

#[test]
fn processes_in_cgroups_below_are_frozen() {
    case(|| {
        if !has_freezer() {
            skip!("no freezer");
        }
        let (container, _io) = Container::running();
        let freezer = container.cgroup(if cgroup_v2() { "" } else { "freezer" }).unwrap();
        let below = freezer.join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("cgroup.procs"), container.pid().to_string()).unwrap();
        container.command(&["pause"], &[]).ok();
        assert!(frozen(&container));
        eventually("the cgroup below is frozen", || match cgroup_v2() {
            true => text(below.join("cgroup.events")).contains("frozen 1"),
            false => text(below.join("freezer.state")).trim() == "FROZEN",
        });
        assert_eq!(container.status(), "paused");
        container.command(&["resume"], &[]).ok();
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn below_a_frozen_cgroup_of_v1_resume_says_which_it_is() {
    case(|| {
        if cgroup_v2() || !has_freezer() {
            skip!("cgroup v1 only");
        }
        let mut bundle = Bundle::sh(ECHO);
        let above = format!("{}/above", cgroup_parent());
        bundle.set("/linux/cgroupsPath", json!(format!("{above}/container")));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let above = controller("freezer").unwrap().join(&above[1..]);
        fs::write(above.join("freezer.state"), "FROZEN").unwrap();
        eventually("all is frozen", || text(above.join("container/freezer.state")).trim() == "FROZEN");
        let output = container.command(&["resume"], &[]);
        fs::write(above.join("freezer.state"), "THAWED").unwrap();
        let text = format!(": cgroup {} above it is frozen\n", above.display());
        assert!(!ours() || output.fails().stderr.contains(&text));
        io.write("line\n");
        assert_eq!(io.stdout.next(), "got line");
        container.command(&["delete", "--force"], &[]).ok();
        let directories = hierarchies().into_iter().map(|hierarchy| hierarchy.mount.join(&cgroup_parent()[1..]));
        directories.for_each(|directory| drop(fs::remove_dir(directory.join("above"))));
    });
}

#[test]
fn what_was_paused_can_be_killed_and_deleted() {
    case(|| {
        if !has_freezer() {
            skip!("no freezer");
        }
        let (container, _io) = Container::running();
        let pid = container.pid();
        container.command(&["pause"], &[]).ok();
        container.command(&["kill"], &["KILL"]).ok();
        wait_for_end(pid);
        assert_eq!(container.status(), "stopped");
        container.command(&["delete"], &[]).ok();
        container.nothing_left();
        let (container, _io) = Container::running();
        container.command(&["pause"], &[]).ok();
        container.command(&["delete", "--force"], &[]).ok();
        container.nothing_left();
    });
}

/// A frozen process of v1 gets its signal when it is thawed.
#[test]
fn a_pause_between_the_look_and_the_signal_of_kill_does_not_save_the_container() {
    case(|| {
        if !ours() {
            skip!("a race that another runtime may lose");
        }
        if !has_freezer() {
            skip!("no freezer");
        }
        let mut took = None;
        for round in 0..scale() {
            let container = Bundle::new().container();
            container.create().ok();
            let pid = container.pid();
            let took = took.get_or_insert_with(|| {
                let begun = Instant::now();
                container.command(&["kill"], &["0"]).ok();
                begun.elapsed()
            });
            let kill = container.call(["kill", &container.id, "KILL"]).spawn();
            // Wherever it is after this time, it waits until the container is paused, or dead.
            std::thread::sleep(took.mul_f64(round as f64 / scale() as f64));
            kill.signal(Signal::STOP);
            container.command(&["pause"], &[]);
            kill.signal(Signal::CONT);
            kill.wait().ok();
            wait_for_end(pid);
        }
    });
}

/// On v1 who was killed dies when it runs: had `pause` come before that, nobody would have let it run.
#[test]
fn a_pause_of_what_was_killed_and_has_not_run_since_is_refused() {
    case(|| {
        if !ours() {
            skip!("a race that another runtime may lose");
        }
        if !has_freezer() {
            skip!("no freezer");
        }
        let Some(cpu) = controller("cpu") else { skip!("no cpu controller") };
        // A child of init alone, if it can have a cgroup to itself; init then waits for its end, and has had its own signal.
        for own in [false, !cgroup_v2()] {
            let (container, mut io) = Container::created(if own {
                "(while :; do :; done) & echo $!; wait"
            } else {
                "echo 1; while :; do :; done"
            });
            container.start().ok();
            let pid = container.pid();
            io.stdout.next();
            let place = match own {
                true => {
                    let place = cpu.join(path_of(pid, "cpu")).join("inner");
                    fs::create_dir(&place).unwrap();
                    let children = text(format!("/proc/{pid}/task/{pid}/children"));
                    fs::write(place.join("cgroup.procs"), children.trim()).unwrap();
                    fs::write(place.join("cpu.cfs_period_us"), "200000").unwrap();
                    fs::write(place.join("cpu.cfs_quota_us"), "1000").unwrap();
                    place
                }
                false => {
                    container.command(&["update", "--cpu-period", "200000", "--cpu-quota", "1000"], &[]).ok();
                    container.cgroup("cpu").unwrap()
                }
            };
            // It runs in one two-hundredth of the time, and is dead if that has come before the pause.
            eventually("it waits for its time", || !text(place.join("cpu.stat")).contains("nr_throttled 0\n"));
            container.command(&["kill"], &["KILL"]).ok();
            let pause = container.command(&["pause"], &[]).fails();
            assert_eq!(pause.stderr, "container not running\n");
            wait_for_end(pid);
        }
    });
}

/// The kernel thaws what is below a cgroup of v1 with it only if that was not frozen itself.
#[test]
fn what_a_container_has_frozen_below_its_cgroup_can_be_killed_and_deleted() {
    case(|| {
        if cgroup_v2() || !has_freezer() {
            skip!("cgroup v1 only");
        }
        if !ours() {
            skip!("another runtime may wait for it");
        }
        // PATH_MAX is 4096.
        for (commands, levels) in
            [(&["kill", "delete"][..], 1), (&["delete"], 1), (&["kill", "delete"], 20), (&["delete"], 20)]
        {
            let (container, _io) = Container::running();
            let pid = container.pid();
            let top = controller("freezer").unwrap().join(path_of(pid, "freezer"));
            let way = dig(&top, levels);
            let file = |name: &str| {
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                fs::File::from(rustix::fs::openat(&way[levels], name, flags, Mode::empty()).unwrap())
            };
            write!(file("cgroup.procs"), "{pid}").unwrap();
            write!(file("freezer.state"), "FROZEN").unwrap();
            eventually("init is frozen", || std::io::read_to_string(file("freezer.state")).unwrap().trim() == "FROZEN");
            let outputs: Vec<Output> = commands
                .iter()
                .map(|command| match *command {
                    "kill" => container.command(&["kill"], &["KILL"]),
                    _ => container.command(&["delete", "--force"], &[]),
                })
                .collect();
            // What the runtime under test has left nobody else could remove.
            if let Some(dir) = way.last().filter(|_| outputs.iter().any(|output| output.code() != 0)) {
                let state = rustix::fs::openat(dir, "freezer.state", OFlags::WRONLY, Mode::empty());
                state.map(|fd| fs::File::from(fd).write_all(b"THAWED")).ok();
            }
            outputs.into_iter().for_each(|output| drop(output.ok()));
            wait_for_end(pid);
            container.nothing_left();
        }
    });
}

/// A container that may freeze its own cgroups freezes what is cloned into them, before that hears of its parent's death.
#[test]
fn an_exec_that_is_frozen_at_its_birth_does_not_keep_the_container() {
    case(|| {
        let Some(unified) = hierarchies().into_iter().find(|one| one.controllers.is_empty()) else {
            skip!("no unified hierarchy");
        };
        for stopped in [false, true] {
            let (container, _io) = Container::running();
            let pid = container.pid();
            let places = text(format!("/proc/{pid}/cgroup"));
            let own = places.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
            let mut cgroup = unified.mount.join(own);
            if cgroup_v2() {
                // An exec follows init into a cgroup that is not looked at by who asks whether the container is paused.
                let controllers = text(cgroup.join("cgroup.controllers"));
                fs::create_dir(cgroup.join("inner")).unwrap();
                fs::write(cgroup.join("inner/cgroup.procs"), pid.to_string()).unwrap();
                let first = controllers.split_whitespace().next().expect("a controller");
                fs::write(cgroup.join("cgroup.subtree_control"), format!("+{first}")).unwrap();
                cgroup.push("inner");
            }
            fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
            let exec = container.call(["exec", &container.id, "true"]).spawn();
            eventually("a child is born", || text(cgroup.join("cgroup.procs")).lines().count() == 2);
            exec.signal(Signal::KILL);
            assert_eq!(exec.wait().code(), 1009);
            if stopped {
                container.stop();
            }
            container.command(&["delete", "--force"], &[]).ok();
            container.nothing_left();
        }
    });
}

#[test]
fn a_container_is_thawed_when_its_pause_fails() {
    case(|| {
        if !cgroup_v2() {
            skip!("cgroup v2 only");
        }
        let (container, _io) = Container::running();
        let cgroup = container.cgroup("").unwrap();
        // A file that cannot be read, where the kernel would say that all are frozen.
        let mount = format!("mount --bind /proc/1/clear_refs {}/cgroup.events && exec \"$@\"", cgroup.display());
        let pause = container.call(["pause", &container.id]);
        let output = pause.below(["unshare", "-m", "sh", "-c", &mount, "sh"]).run().fails();
        assert!(output.stderr.contains("freeze "), "{}: {}", runtime().display(), output.stderr);
        assert_eq!(text(cgroup.join("cgroup.freeze")).trim(), "0");
        assert_eq!(container.status(), "running");
    });
}
