//! The command lines, as `callers.rs` replays them.

use super::{Life, created, ended, executed, features, gone, listed, pids, started, stats, updated};
use crate::support::Output;

use Look::{By, Fails, Nothing, Prints, Status};

/// One call. In `words`, `{id}` and the like stand for what the caller chooses: see `Life::fill`.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) words: &'static str,
    pub(super) code: i32,
    pub(super) look: Look,
}

/// What the caller looks at besides the exit code.
#[derive(Clone, Copy)]
pub(super) enum Look {
    Nothing,
    /// Words on stdout.
    Prints(&'static str),
    /// Words in the error: on stderr, and in the JSON log where there is one.
    Fails(&'static str),
    /// The status that `state` prints.
    Status(&'static str),
    By(fn(&Life, &Output)),
}

pub(super) const fn l(words: &'static str, code: i32, look: Look) -> Line {
    Line { words, code, look }
}

/// go-runc, as containerd's shim uses it, and so Docker. `--root` and the log come before each command.
pub(super) const CONTAINERD: &[Line] = &[
    l("features", 0, By(features)),
    l("create --bundle {bundle} --pid-file {pid} {id}", 0, By(created)),
    l("create --bundle {bundle} --pid-file {pid2} {id}", 1, Fails("already exists")),
    l("state {id}", 0, Status("created")),
    l("start {id}", 0, By(started)),
    l("start {id}", 1, Fails("cannot start an already running container")),
    l("state {id}", 0, Status("running")),
    l("exec --process {process} --detach --pid-file {pid2} {id}", 0, By(executed)),
    l("exec --process {tty} --console-socket {socket} --detach --pid-file {pid3} {id}", 0, Nothing),
    l("exec --process {nosuch} --detach --pid-file {pid3} {id}", 255, Fails("executable file not found in $PATH")),
    l("ps --format json {id}", 0, By(pids)),
    l("ps --format table {id} aux", 0, Prints("PID")),
    l("list --format=json", 0, By(listed)),
    l("events --stats {id}", 0, By(stats)),
    l("update --resources=- {id}", 0, By(updated)),
    l("pause {id}", 0, Nothing),
    l("state {id}", 0, Status("paused")),
    l("exec --process {process} --detach --pid-file {pid3} {id}", 255, Fails("cannot exec in a paused container")),
    l("resume {id}", 0, Nothing),
    l("state {id}", 0, Status("running")),
    l("delete {id}", 1, Fails("that is not stopped")),
    l("kill {id} 15", 0, By(ended)),
    l("state {id}", 0, Status("stopped")),
    l("kill {id} 9", 1, Fails("container not running")),
    l("kill --all {id} 9", 0, Nothing),
    l("exec --process {process} --detach --pid-file {pid3} {id}", 255, Fails("cannot exec in a stopped container")),
    l("delete {id}", 0, By(gone)),
    l("delete {id}", 1, Fails("does not exist")),
    l("delete --force {id}", 0, Nothing),
    l("state {id}", 1, Fails("does not exist")),
    l("kill {id} 9", 1, Fails("does not exist")),
    l("list --format=json", 0, Prints("null")),
];

/// The rest of what containerd's shim can be told to pass.
pub(super) const CONTAINERD_OPTIONS: &[Line] = &[
    l("create --bundle {bundle} --pid-file {pid} --no-pivot --no-new-keyring {id}", 0, By(created)),
    l("delete --force {id}", 0, By(gone)),
    l("run --bundle {bundle} --pid-file {pid} --detach --no-pivot --no-new-keyring {id}", 0, By(started)),
    l("kill --all {id} 9", 0, By(ended)),
    l("delete {id}", 0, By(gone)),
];

/// A container with a terminal.
pub(super) const CONTAINERD_TERMINAL: &[Line] = &[
    l("create --bundle {bundle} --pid-file {pid} --console-socket {socket} {id}", 0, By(created)),
    l("start {id}", 0, By(started)),
    l("kill {id} 9", 0, By(ended)),
    l("delete {id}", 0, By(gone)),
];

/// What go-runc passes where its caller wants a pidfd.
pub(super) const PIDFD: &[Line] = &[
    l("create --bundle {bundle} --pid-file {pid} --pidfd-socket {pidfd} {id}", 0, By(created)),
    l("start {id}", 0, By(started)),
    l("exec --process {process} --pidfd-socket {pidfd} --detach --pid-file {pid2} {id}", 0, By(executed)),
    l("delete --force {id}", 0, By(gone)),
];

/// Podman: conmon's calls (create, exec) and its own.
pub(super) const PODMAN: &[Line] = &[
    l("--version", 0, Prints("version")),
    l("--log-format=json --log {log} create --bundle {bundle} --pid-file {pid} {id}", 0, By(created)),
    l("start {id}", 0, By(started)),
    l("--log-format=json --log {log} exec --pid-file {pid2} --process {process} --detach {id}", 0, By(executed)),
    l("exec --pid-file {pid2} --process {process} --detach --preserve-fds 1 {id}", 0, By(executed)),
    l("exec --pid-file {pid3} --process {tty} --detach --console-socket {socket} {id}", 0, Nothing),
    l(
        "--log-format=json --log {log} exec --pid-file {pid3} --process {nosuch} --detach {id}",
        255,
        Fails("executable file not found in"),
    ),
    l("pause {id}", 0, Nothing),
    l("resume {id}", 0, Nothing),
    l("update --resources={resources} {id}", 0, By(updated)),
    l("state {id}", 0, Status("running")),
    l("kill {id} 15", 0, By(ended)),
    l("kill --all {id} 9", 0, Nothing),
    l("delete --force {id}", 0, By(gone)),
    l("delete --force {id}", 0, Nothing),
];

/// conmon's further options, as podman and cri-o pass them.
pub(super) const CONMON: &[Line] = &[
    l("create --bundle {bundle} --pid-file {pid} --no-pivot --no-new-keyring --preserve-fds 1 {id}", 0, By(created)),
    l("delete --force {id}", 0, By(gone)),
    l("create --bundle {bundle} --pid-file {pid} --console-socket {socket} {id}", 1, Fails("console socket")),
];

/// CRI-O. conmon creates; exec is in the foreground.
pub(super) const CRIO: &[Line] = &[
    l("--version", 0, Prints("version")),
    l("features", 0, By(features)),
    l("--root={root} create --bundle {bundle} --pid-file {pid} {id}", 0, By(created)),
    l("--root {root} start {id}", 0, By(started)),
    l("--root {root} state {id}", 0, Status("running")),
    l("--root {root} exec --process {print} {id}", 3, Prints("printed")),
    l("--root={root} exec --pid-file {pid2} --process {process} --detach {id}", 0, By(executed)),
    l("--root {root} update --resources - {id}", 0, By(updated)),
    l("--root {root} pause {id}", 0, Nothing),
    l("--root {root} state {id}", 0, Status("paused")),
    l("--root {root} resume {id}", 0, Nothing),
    l("--root {root} kill {id} 15", 0, By(ended)),
    l("--root {root} kill {id} KILL", 1, Fails("container not running")),
    l("--root {root} kill -a {id} 9", 0, Nothing),
    l("--root {root} delete --force {id}", 0, By(gone)),
    l("--root {root} state {id}", 1, Fails("does not exist")),
];

/// conmon-rs, which passes the command of an exec on the command line.
pub(super) const CONMON_RS: &[Line] = &[
    l("--root={root} create --bundle {bundle} --pid-file {pid} --preserve-fds 1 {id}", 0, By(created)),
    l("--root={root} start {id}", 0, By(started)),
    l("--root={root} exec -d --pid-file={pid2} {id} sleep 1000", 0, By(executed)),
    l("--root={root} exec -d --console-socket={socket} --tty --pid-file={pid3} {id} sleep 1000", 0, Nothing),
    l("--root={root} kill {id} 9", 0, By(ended)),
    l("--root={root} delete --force {id}", 0, By(gone)),
];

/// BuildKit, while its `run` waits: exec is in the foreground, also on a terminal.
pub(super) const BUILDKIT: &[Line] = &[
    l("exec --process {print} --pid-file {pid2} {id}", 3, Prints("printed")),
    l("exec --process {nosuch} --pid-file {pid3} {id}", 255, Fails("executable file not found in $PATH")),
    l("kill {id} 9", 0, Nothing),
];

/// buildah, in the runtime's own root directory.
pub(super) const BUILDAH: &[Line] = &[
    l("create --bundle {bundle} --pid-file {pid} --no-pivot {id}", 0, By(created)),
    l("state {id}", 0, Status("created")),
    l("start {id}", 0, By(started)),
    l("state {id}", 0, Status("running")),
    l("kill {id}", 0, By(ended)),
    l("kill {id} SIGKILL", 1, Fails("container not running")),
    l("state {id}", 0, Status("stopped")),
    l("delete {id}", 0, By(gone)),
];
