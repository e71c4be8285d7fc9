//! What the specification says MUST be, where no other file has a test of it: see docs/spec.md.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Bundle, Call, Container, Output, WAITING, busybox, case, cgroup_parent, cgroup_v2, cgroups_of, controller,
    deadline, hierarchies, link, set, skip, systemd, text, wait_for_end, with_io,
};

// ---------------------------------------------------------------------------------------------- state

/// What state-schema.json says of a state.
fn check_state(state: &Value) {
    let text = |name: &str| state[name].as_str().unwrap_or_else(|| panic!("{name}: {state}"));
    let version: Vec<&str> = text("ociVersion").split(['-', '+']).next().unwrap().split('.').collect();
    assert!(version.len() == 3 && version.iter().all(|part| part.parse::<u32>().is_ok()), "{state}");
    assert!(!text("id").is_empty() && text("bundle").starts_with('/'), "{state}");
    assert!(["creating", "created", "running", "stopped"].contains(&text("status")), "{state}");
    assert!(state["pid"].is_null() || state["pid"].as_u64().is_some(), "{state}");
    let annotations = state["annotations"].as_object().into_iter().flatten();
    assert!(annotations.clone().all(|(name, value)| !name.is_empty() && value.is_string()), "{state}");
}

#[test]
fn state_follows_the_schema() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        bundle.set("/annotations", json!({"org.example.key": "a value"}));
        let container = bundle.container();
        let mut io = container.create_io();
        let (created, pid) = (container.state(), container.pid());
        container.start().ok();
        assert_eq!(io.stdout.next(), "ready");
        let running = container.state();
        io.close();
        wait_for_end(pid);
        for (state, status) in [(created, "created"), (running, "running"), (container.state(), "stopped")] {
            check_state(&state);
            assert_eq!(state["status"], status);
            assert!(status == "stopped" || state["pid"].as_u64() == Some(u64::from(pid)), "{state}");
        }
    });
}

#[test]
fn create_applies_everything_but_the_program() {
    case(|| {
        let mut bundle = Bundle::sh("echo started > /started");
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "77"}));
        bundle.set("/linux/devices", json!([{"path": "/dev/own", "type": "p"}]));
        bundle.set("/process/oomScoreAdj", json!(321)).mount("/mnt", "tmpfs", "its-source", &[]);
        let container = bundle.container();
        container.create().ok();
        let pid = container.pid();
        let mounts = text(format!("/proc/{pid}/mountinfo"));
        assert!(mounts.contains(" /mnt ") && mounts.contains(" its-source "), "{mounts}");
        let enter = format!("nsenter -u/proc/{pid}/ns/uts -n/proc/{pid}/ns/net -- {} sh -c", busybox().display());
        let script = format!("{} {enter} 'hostname; cat /proc/sys/net/ipv4/ip_default_ttl'", busybox().display());
        assert_eq!(Call::sh(&script).run().ok().stdout, "container\n77\n");
        assert!(fs::symlink_metadata(format!("/proc/{pid}/root/dev/own")).is_ok());
        assert_eq!(text(format!("/proc/{pid}/oom_score_adj")), "321\n");
        assert!(text(format!("/proc/{pid}/cgroup")).contains(&container.id));
        assert!(!container.bundle.rootfs().join("started").exists(), "the program was run");
    });
}

#[test]
fn an_unknown_capability_is_a_warning() {
    case(|| {
        let mut bundle = Bundle::sh("echo fine");
        bundle.set("/process/capabilities/bounding/-", json!("CAP_BANANA"));
        warned(bundle.container(), "CAP_BANANA");
    });
}

#[test]
fn a_capability_that_cannot_be_granted_is_a_warning() {
    case(|| {
        let mut bundle = Bundle::sh("echo fine");
        for set in ["bounding", "effective", "permitted"] {
            bundle.set(&format!("/process/capabilities/{set}/-"), json!("CAP_SYS_TIME"));
        }
        let container = bundle.container();
        // Capabilities are a thread's: this one loses it, and its children do.
        std::thread::scope(|scope| {
            let run = || {
                let lost = rustix::thread::CapabilitySet::SYS_TIME;
                rustix::thread::remove_capability_from_bounding_set(lost).unwrap();
                warned(container, "SYS_TIME");
            };
            if let Err(failure) = scope.spawn(run).join() {
                std::panic::resume_unwind(failure);
            }
        });
    });
}

/// Runs a container that prints `fine`, with a log in which something is warned of by name.
#[track_caller]
fn warned(container: Container, name: &str) {
    container.bundle.write();
    let log = container.bundle.directory.join("log");
    let output = container.call(["--log", log.to_str().unwrap(), "run", &container.id]).run().ok();
    assert_eq!(output.stdout, "fine\n", "{output:?}");
    let text = text(log);
    assert!(text.contains("level=warning") && text.contains(name), "{text}");
}

// ---------------------------------------------------------------------------------------------- hooks

/// A hook of the host's busybox.
fn hook(script: &str) -> Value {
    json!({"path": busybox(), "args": ["sh", "-c", script]})
}

/// Takes the pid from the state on stdin.
const PID: &str = "read -r state; pid=${state#*\\\"pid\\\":}; pid=${pid%%,*}; pid=$((pid))";

#[test]
fn paths_of_hooks_are_of_the_namespace_of_the_specification() {
    case(|| {
        let mut bundle = Bundle::new();
        // A program that only the host has, and one that only the container has.
        let (outer, inner) = (bundle.directory.join("outer-busybox"), bundle.rootfs().join("inner-busybox"));
        crate::support::copy_program(busybox(), &outer);
        crate::support::copy_program(busybox(), inner);
        let log = bundle.rootfs().join("log");
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            let script = format!("echo {name} >> {}", log.display());
            set(&mut bundle.config, &format!("/hooks/{name}"), json!([{"path": outer, "args": ["sh", "-c", script]}]));
        }
        let script = "echo startContainer >> /log";
        bundle.set("/hooks/startContainer", json!([{"path": "/inner-busybox", "args": ["sh", "-c", script]}]));
        let container = bundle.container();
        container.run().ok();
        let mut words: Vec<String> = text(log).lines().map(str::to_owned).collect();
        words.sort();
        assert_eq!(words, ["createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer"]);
    });
}

#[test]
fn hooks_in_the_container_get_the_pid_of_the_container() {
    case(|| {
        let mut bundle = Bundle::new();
        let file = bundle.directory.join("pid");
        bundle.set("/hooks/createContainer", json!([hook(&format!("{PID}; echo $pid > {}", file.display()))]));
        let start = json!([{"path": "/bin/busybox", "args": ["sh", "-c", format!("{PID}; echo $pid > /pid")]}]);
        bundle.set("/hooks/startContainer", start);
        let container = bundle.container();
        container.run().ok();
        assert_eq!((text(file), text(container.bundle.rootfs().join("pid"))), ("1\n".into(), "1\n".into()));
    });
}

#[test]
fn create_hooks_run_between_the_namespaces_and_pivot_root() {
    case(|| {
        let mut bundle = Bundle::new();
        // The root of init is the host's as long as something of the host's is seen there.
        let seen = bundle.directory.join("seen");
        fs::write(&seen, "").unwrap();
        for name in ["prestart", "createRuntime"] {
            let script = format!(
                "{PID}; test -e /proc/$pid/root{0} && (readlink /proc/$pid/ns/mnt; readlink /proc/$pid/ns/net) > {0}-{name}",
                seen.display()
            );
            set(&mut bundle.config, &format!("/hooks/{name}"), json!([hook(&script)]));
        }
        let script = format!(
            "test -e {0} && (readlink /proc/self/ns/mnt; readlink /proc/self/ns/net) > {0}-createContainer",
            seen.display()
        );
        bundle.set("/hooks/createContainer", json!([hook(&script)]));
        let container = bundle.container();
        container.create().ok();
        let links = ["mnt", "net"].map(|name| link(format!("/proc/{}/ns/{name}", container.pid())));
        for name in ["prestart", "createRuntime", "createContainer"] {
            let found = text(format!("{}-{name}", seen.display()));
            assert_eq!(found.lines().collect::<Vec<_>>(), links, "{name}");
        }
    });
}

#[test]
fn poststop_hooks_run_on_the_host_when_the_container_is_gone() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        let log = bundle.directory.join("log");
        bundle.set("/hooks/poststop", json!([]));
        let mut container = bundle.container();
        let cgroups: String =
            hierarchies().iter().map(|one| format!("{}/*/{} ", one.mount.display(), container.id)).collect();
        let links = "for n in mnt net pid; do readlink /proc/self/ns/$n; done";
        let script = format!("cat > /dev/null; {links} > {0}; ls -d {cgroups} >> {0} 2>/dev/null; :", log.display());
        container.bundle.set("/hooks/poststop", json!([hook(&script)]));
        let _io = container.create_io();
        container.start().ok();
        let pid = container.pid();
        assert!(!cgroups_of(&container.id).is_empty());
        container.stop();
        assert!(!log.exists());
        container.command(&["delete"], &[]).ok();
        let host = ["mnt", "net", "pid"].map(|name| link(format!("/proc/self/ns/{name}")));
        assert_eq!(text(&log).lines().collect::<Vec<_>>(), host, "and no cgroup of {pid}");
    });
}

#[test]
fn after_a_failing_hook_the_container_is_destroyed_and_poststop_hooks_run() {
    case(|| {
        let mut wrong = Vec::new();
        for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            let mut bundle = Bundle::sh(WAITING);
            let log = bundle.directory.join("log");
            let path = if name == "startContainer" { json!("/bin/busybox") } else { json!(busybox()) };
            let fail = json!({"path": path, "args": ["sh", "-c", "cat > /dev/null; exit 7"]});
            set(&mut bundle.config, &format!("/hooks/{name}"), json!([fail]));
            bundle.set("/hooks/poststop", json!([hook(&format!("echo poststop >> {}", log.display()))]));
            let container = bundle.container();
            let (call, _io) = with_io(container.call_bundle("create", &[]));
            let mut output = call.run();
            if output.code() == 0 {
                output = container.start();
            }
            let left = container.leftovers();
            if output.code() == 0 || !left.is_empty() || text(&log) != "poststop\n" {
                wrong.push(format!("{name}: {output:?}, left {left:?}, poststop: {:?}", text(&log)));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

// ---------------------------------------------------------------------------------------------- cgroups

/// A cgroup in every hierarchy that is there before a container.
struct Before {
    path: String,
    directories: Vec<PathBuf>,
}

impl Before {
    fn new(name: &str) -> Self {
        let path = format!("{}/{name}", cgroup_parent());
        let directories: Vec<_> = hierarchies().iter().map(|one| one.mount.join(&path[1..])).collect();
        directories.iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
        Self { path, directories }
    }

    /// Freezes or thaws it, where there is a freezer.
    fn freeze(&self, frozen: bool) {
        let found = self.directories.iter().find_map(|directory| {
            let v1 = (directory.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" });
            let v2 = (directory.join("cgroup.freeze"), if frozen { "1" } else { "0" });
            [v1, v2].into_iter().find(|(file, _)| file.exists())
        });
        if let Some((file, word)) = found {
            fs::write(file, word).unwrap();
        }
    }

    /// Creates and deletes a container there; also returns how many of the directories are left then.
    fn creates(&self) -> (Output, usize) {
        let mut bundle = Bundle::new();
        bundle.set("/linux/cgroupsPath", json!(self.path));
        let container = bundle.container();
        let created = container.create();
        container.command(&["delete", "--force"], &[]);
        (created, self.directories.iter().filter(|directory| directory.exists()).count())
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        self.freeze(false);
        // A process that was killed while it was frozen ends only now.
        let end = Instant::now() + deadline() / 5;
        for directory in &self.directories {
            while fs::remove_dir(directory).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

#[test]
fn a_cgroup_that_was_there_before_is_not_deleted() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let _keeps_the_parent = Bundle::new();
        let before = Before::new("before");
        let (created, left) = before.creates();
        created.ok();
        assert_eq!(left, before.directories.len());
    });
}

#[test]
fn a_frozen_cgroup_is_refused() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let _keeps_the_parent = Bundle::new();
        let before = Before::new("frozen");
        if controller("freezer").is_none() && !cgroup_v2() {
            skip!("no freezer");
        }
        before.freeze(true);
        let (created, _) = before.creates();
        before.freeze(false);
        created.fails();
    });
}

#[test]
fn a_cgroup_with_processes_is_refused() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        let _keeps_the_parent = Bundle::new();
        let before = Before::new("in-use");
        let places: Vec<_> = before.directories.iter().map(|directory| directory.display().to_string()).collect();
        let script = "for d in $0; do echo $$ > $d/cgroup.procs; done 2>/dev/null; echo ready; read line";
        let script = script.replace("$0", &places.join(" "));
        let (call, mut io) = with_io(Call::sh(&script));
        let user = call.spawn();
        assert_eq!(io.stdout.next(), "ready");
        let (created, left) = before.creates();
        let lives = !user.has_ended();
        io.close();
        user.wait();
        created.fails();
        assert!(lives && left == before.directories.len(), "what was in the cgroup is not the container's");
    });
}

#[test]
fn the_same_cgroups_path_is_the_same_place() {
    case(|| {
        if systemd() {
            skip!("a path of cgroupfs");
        }
        for absolute in [true, false] {
            let mut places = Vec::new();
            let mut container = Bundle::sh(WAITING).container();
            let name = format!("{}-again", container.id);
            let path = if absolute { format!("{}/{name}", cgroup_parent()) } else { name };
            container.bundle.set("/linux/cgroupsPath", json!(path));
            for cwd in ["/", "/tmp"] {
                let (call, _io) = with_io(container.call_bundle("create", &[]).cwd(cwd));
                call.run().ok();
                places.push(text(format!("/proc/{}/cgroup", container.pid())));
                container.command(&["delete", "--force"], &[]).ok();
            }
            assert_eq!(places[0], places[1]);
        }
    });
}

// ---------------------------------------------------------------------------------------------- the rest

#[test]
fn a_new_user_namespace_leaves_the_owners_of_files_alone() {
    case(|| {
        let mut bundle = Bundle::new();
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        bundle.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        let files = ["", "rootfs", "rootfs/etc", "rootfs/etc/passwd"].map(|name| bundle.directory.join(name));
        let container = bundle.container();
        container.run().ok();
        for file in files {
            let meta = fs::metadata(&file).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", file.display());
        }
    });
}
