//! What every test stands on: calls with a deadline, a bundle, and a container that leaves nothing behind.
//!
//! No test sleeps: it waits for a process by its pidfd, for output by poll.

use std::any::type_name;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::differences;

/// The variable by which a process of a test is recognised until it executes the container's program.
const MARK: &str = "RUNTIME_TEST_ID";

// ---------------------------------------------------------------------------------------------- the test itself

/// Runs the body of a test, and reads a failure against the known differences of the runtime under test.
#[track_caller]
pub(crate) fn case<F: FnOnce()>(body: F) {
    let name = test_name::<F>();
    let difference = differences::find(peer(), &name);
    match (catch_unwind(AssertUnwindSafe(body)), difference) {
        (Ok(()), None) => {}
        (Ok(()), Some(known)) => say(&format!("PASSES {name}: although listed: {}", known.reason)),
        (Err(_), Some(known)) => say(&format!("DIFFERS {name}: {} ({})", known.reason, known.reference)),
        (Err(failure), None) => resume_unwind(failure),
    }
}

/// The name by which libtest knows the test that a closure is the body of: with one test thread, the thread has no name.
fn test_name<F>() -> String {
    let full = type_name::<F>();
    let full = full.split("::{{closure}}").next().unwrap_or(full);
    full.split_once("::").map_or(full, |(_, rest)| rest).to_owned()
}

/// Writes a line to fd 2 itself, which libtest does not capture.
pub(crate) fn say(line: &str) {
    // One write per line keeps lines of parallel tests whole. Nobody can be told when stderr is gone.
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("{line}\n").as_bytes());
}

/// Ends a test that this host cannot run, visibly.
macro_rules! skip {
    ($($reason:tt)*) => {{
        fn here() {}
        $crate::support::skipped(&here, &format!($($reason)*));
        return;
    }};
}
pub(crate) use skip;

/// See [`skip!`].
pub(crate) fn skipped<F>(_here: &F, reason: &str) {
    let name = test_name::<F>();
    say(&format!("SKIPPED {}: {reason}", name.trim_end_matches("::here")));
}

/// The runtime under test.
pub(crate) fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| std::env::var_os("RUNTIME").unwrap_or_else(|| env!("CARGO_BIN_EXE_runtime").into()).into())
}

/// A static busybox.
pub(crate) fn busybox() -> &'static Path {
    static BUSYBOX: OnceLock<PathBuf> = OnceLock::new();
    BUSYBOX.get_or_init(|| std::env::var_os("BUSYBOX").unwrap_or_else(|| "/bin/busybox".into()).into())
}

/// Which runtime is under test: `runtime` (this project's), `runc` or `crun`. Told by what only these print, since this
/// project's runtime may answer to the name of runc.
pub(crate) fn peer() -> &'static str {
    static PEER: OnceLock<&str> = OnceLock::new();
    PEER.get_or_init(|| {
        let version = Command::new(runtime()).arg("--version").output().expect("RUNTIME cannot be executed");
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        if text.starts_with("crun version") {
            "crun"
        } else if text.lines().any(|line| line.starts_with("go: ")) {
            "runc"
        } else {
            "runtime"
        }
    })
}

/// Whether this project's own runtime is under test.
pub(crate) fn ours() -> bool {
    peer() == "runtime"
}

/// Whether the containers' cgroups are systemd's: every command gets `--systemd-cgroup`.
pub(crate) fn systemd() -> bool {
    std::env::var_os("RUNTIME_TEST_SYSTEMD").is_some()
}

/// How often a long loop goes round.
pub(crate) fn scale() -> usize {
    number("RUNTIME_TEST_SCALE", 100)
}

/// How long one call may take.
pub(crate) fn deadline() -> Duration {
    Duration::from_secs(number("RUNTIME_TEST_DEADLINE", 30) as u64)
}

/// CAP_SYS_RESOURCE, which root of this machine may lack.
pub(crate) fn may_raise_limits() -> bool {
    let status = text("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(effective, 16).unwrap() & 1 << 24 != 0
}

pub(crate) fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

// ---------------------------------------------------------------------------------------------- calls

/// What a call left: its status and what it wrote.
#[derive(Debug)]
pub(crate) struct Output {
    what: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The exit code, or 1000 + signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 1000 + self.status.signal().unwrap_or(0))
    }

    /// Insists on exit code 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code(), 0, "{}\nstdout: {}\nstderr: {}", self.what, self.stdout, self.stderr);
        self
    }

    /// Insists on an error that was reported: an exit code that is not 0, and no death by a signal or panic.
    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        let code = self.code();
        assert!((1..256).contains(&code), "{}: {code}\nstdout: {}\nstderr: {}", self.what, self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}: {}", self.what, self.stderr);
        self
    }
}

/// A call that is being put together.
pub(crate) struct Call {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    session: bool,
    user: Option<u32>,
    bare: bool,
}

impl Call {
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            stdout: None,
            stderr: None,
            session: false,
            user: None,
            bare: false,
        }
    }

    /// `busybox sh -c SCRIPT sh ARGS`, on the host.
    pub(crate) fn sh(script: &str) -> Self {
        Self::new(busybox()).args(["sh", "-c", script, "sh"])
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    /// Without the environment of the tests.
    pub(crate) fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    pub(crate) fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    pub(crate) fn stdin(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(fd.into());
        self
    }

    pub(crate) fn stdout(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(fd.into());
        self
    }

    pub(crate) fn stderr(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(fd.into());
        self
    }

    /// As this user and group, without any other group or capability.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// As root again.
    pub(crate) fn root(mut self) -> Self {
        self.user = None;
        self
    }

    /// Runs the call below something else: `wrapped(["nsenter", ..])` makes it `nsenter .. program args`.
    pub(crate) fn wrapped<A: AsRef<OsStr>>(mut self, by: impl IntoIterator<Item = A>) -> Self {
        let mut args: Vec<OsString> = by.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let program = PathBuf::from(args.remove(0));
        args.push(std::mem::replace(&mut self.program, program).into_os_string());
        args.append(&mut self.args);
        self.args = args;
        self
    }

    /// Runs the call below a busybox applet.
    pub(crate) fn below<A: AsRef<OsStr>>(self, applet: impl IntoIterator<Item = A>) -> Self {
        let mut by = vec![busybox().as_os_str().to_owned()];
        by.extend(applet.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.wrapped(by)
    }

    /// Runs the call in a session of its own, with stdin as its controlling terminal.
    pub(crate) fn on_terminal(mut self, terminal: &OwnedFd) -> Self {
        self.session = true;
        self.stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal.try_clone().unwrap())
            .below(["setsid", "-c"])
    }

    /// Starts the call.
    #[track_caller]
    pub(crate) fn spawn(self) -> Running {
        let what = format!("{} {}", self.program.display(), self.args.join(OsStr::new(" ")).display());
        // What a call writes goes to a memory file, not a pipe: a container that outlives the call keeps its stdout,
        // and the end of file would never come.
        let (out, stdout) = output(self.stdout);
        let (err, stderr) = output(self.stderr);
        let mut command = Command::new(&self.program);
        if self.bare {
            command.env_clear();
        }
        command.args(&self.args).envs(self.env).stdout(stdout).stderr(stderr);
        command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        if let Some(directory) = self.cwd {
            command.current_dir(directory);
        }
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        if !self.session {
            command.process_group(0);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let pidfd = pidfd(child.id()).expect("the child is not waited for yet");
        Running { what, child, pidfd, out, err, over: false }
    }

    /// Starts the call and waits for its end, at most until the deadline.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }
}

fn output(given: Option<OwnedFd>) -> (Option<File>, Stdio) {
    match given {
        Some(fd) => (None, fd.into()),
        None => {
            let file = File::from(rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
            (Some(file.try_clone().unwrap()), file.into())
        }
    }
}

/// What is in a memory file. By pread: the offset is shared with the writer.
fn contents(file: Option<&File>) -> String {
    let Some(file) = file else { return String::new() };
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    let length = file.read_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// A call that has been started.
pub(crate) struct Running {
    what: String,
    child: Child,
    pidfd: OwnedFd,
    out: Option<File>,
    err: Option<File>,
    over: bool,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// Whether the call has ended by now.
    pub(crate) fn has_ended(&self) -> bool {
        readable(&self.pidfd, Duration::ZERO)
    }

    /// Waits for the end, at most until the deadline.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        let ended = readable(&self.pidfd, deadline());
        if !ended {
            self.end();
        }
        let (stdout, stderr) = (contents(self.out.as_ref()), contents(self.err.as_ref()));
        assert!(ended, "no end after {:?}: {}\nstdout: {stdout}\nstderr: {stderr}", deadline(), self.what);
        let status = self.child.wait().unwrap();
        self.over = true;
        Output { what: std::mem::take(&mut self.what), status, stdout, stderr }
    }

    fn end(&mut self) {
        // The process group is the call's own: see process_group(0) and setsid above.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.over = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.end();
        }
    }
}

// ---------------------------------------------------------------------------------------------- waiting

/// A pidfd, unless the process is gone.
pub(crate) fn pidfd(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()
}

/// Waits until something can be read (or, of a pidfd, the process has ended). False when the time is over.
pub(crate) fn readable(fd: &impl AsFd, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn wait_for_end(pid: u32) {
    if let Some(fd) = pidfd(pid) {
        assert!(readable(&fd, deadline()), "process {pid} lives on: {}", command_line(pid));
    }
}

/// Tries again until something holds or the deadline is over, for what has no event to wait for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + deadline();
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The lines that come out of a pipe or terminal.
pub(crate) struct Lines {
    file: File,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(fd: impl Into<OwnedFd>) -> Self {
        Self { file: File::from(fd.into()), buffer: Vec::new() }
    }

    pub(crate) fn fd(&self) -> &File {
        &self.file
    }

    /// Reads once; false at the end (a terminal says EIO there).
    #[track_caller]
    fn fill(&mut self) -> bool {
        let so_far = String::from_utf8_lossy(&self.buffer).into_owned();
        assert!(readable(&self.file, deadline()), "nothing came for {:?}, after {so_far:?}", deadline());
        let mut bytes = [0; 4096];
        match self.file.read(&mut bytes) {
            Ok(length) => {
                self.buffer.extend_from_slice(&bytes[..length]);
                length > 0
            }
            Err(error) if error.raw_os_error() == Some(libc::EIO) => false,
            Err(error) => panic!("read: {error}"),
        }
    }

    /// The next line, without its end.
    #[track_caller]
    pub(crate) fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            assert!(self.fill(), "end of output, after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// The next line; None at the end.
    #[track_caller]
    pub(crate) fn first(&mut self) -> Option<String> {
        while !self.buffer.contains(&b'\n') {
            if !self.fill() {
                return None;
            }
        }
        Some(self.next())
    }

    /// Reads until a text has come.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        while !String::from_utf8_lossy(&self.buffer).contains(text) {
            assert!(self.fill(), "no {text:?} in {:?}", String::from_utf8_lossy(&self.buffer));
        }
        let all = String::from_utf8(std::mem::take(&mut self.buffer)).unwrap();
        let (head, tail) = all.split_once(text).unwrap();
        self.buffer = tail.as_bytes().to_vec();
        head.to_owned() + text
    }

    /// All the rest.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }
}

/// A pipe: what comes out of it, and its writing end.
pub(crate) fn pipe() -> (Lines, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (Lines::new(read), write)
}

// ---------------------------------------------------------------------------------------------- the host

/// The text of a file; empty when there is none.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What a link of /proc says.
pub(crate) fn link(path: impl AsRef<Path>) -> String {
    fs::read_link(path.as_ref()).map(|to| to.display().to_string()).unwrap_or_else(|error| error.to_string())
}

fn command_line(pid: u32) -> String {
    text(format!("/proc/{pid}/cmdline")).replace('\0', " ")
}

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// The controllers of v1 (or `name=systemd`); empty for v2.
    pub(crate) controllers: Vec<String>,
}

/// The cgroup hierarchies that are mounted.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let flags = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr", "clone_children"];
    let mut found = Vec::new();
    for line in text("/proc/self/mountinfo").lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (kind, options) = (right.split(' ').next().unwrap(), right.rsplit(' ').next().unwrap());
        let mount = PathBuf::from(left.split(' ').nth(4).unwrap());
        let controllers = match kind {
            "cgroup" => options.split(',').filter(|name| !flags.contains(name)).map(str::to_owned).collect(),
            "cgroup2" => Vec::new(),
            _ => continue,
        };
        found.push(Hierarchy { mount, controllers });
    }
    found
}

/// Whether the controllers are on a v2 hierarchy.
pub(crate) fn cgroup_v2() -> bool {
    hierarchies().iter().all(|hierarchy| hierarchy.controllers.is_empty())
}

/// Where a controller's hierarchy is mounted, if the controller is there.
pub(crate) fn controller(name: &str) -> Option<PathBuf> {
    if cgroup_v2() {
        let mount = hierarchies().first()?.mount.clone();
        let there = name.is_empty() || text(mount.join("cgroup.controllers")).split_whitespace().any(|one| one == name);
        return there.then_some(mount);
    }
    let found = hierarchies().into_iter().find(|one| one.controllers.iter().any(|controller| controller == name));
    found.map(|hierarchy| hierarchy.mount)
}

/// The parent of all cgroups that one run of the suite makes.
pub(crate) fn cgroup_parent() -> String {
    format!("/runtime-test-{}", std::process::id())
}

/// Every cgroup directory whose name is or begins with the id, children first.
pub(crate) fn cgroups_of(id: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, id: &str, inside: bool, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let named = inside || entry.file_name().to_string_lossy().contains(id);
            walk(&entry.path(), id, named, found);
            if named {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        walk(&hierarchy.mount, id, false, &mut found);
    }
    found
}

/// The files of the scopes whose names have the id, of the system's systemd or the user's own.
fn units_of(id: &str) -> impl Iterator<Item = PathBuf> {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/run"), PathBuf::from);
    let entries = fs::read_dir(run.join("systemd/transient")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(move |path| {
        path.extension().is_some_and(|kind| kind == "scope") && path.display().to_string().contains(id)
    })
}

/// The processes that carry the mark of a container's calls or are in its cgroup. Zombies without a thread that lives are the
/// business of whoever has to wait for them.
fn processes_of(id: &str) -> Vec<u32> {
    let mark = format!("{MARK}={id}\0");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let path = entry.path();
        let ours = (text(path.join("environ")) + "\0").contains(&mark)
            || text(path.join("cgroup")).lines().any(|line| {
                line.ends_with(id) || line.contains(&format!("{id}/")) || line.contains(&format!("{id}.scope"))
            });
        let stat = text(path.join("stat"));
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let threads = fields.get(17).copied();
        if ours && (!matches!(fields[0], "Z" | "X" | "") || threads.is_some_and(|count| !matches!(count, "0" | "1"))) {
            found.push(pid);
        }
    }
    found
}

// ---------------------------------------------------------------------------------------------- the work directory

/// What all bundles share while at least one of them is there.
struct World {
    users: usize,
    serial: usize,
}

static WORLD: Mutex<World> = Mutex::new(World { users: 0, serial: 0 });

fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where all bundles are.
pub(crate) fn work() -> PathBuf {
    std::env::temp_dir().join(format!("runtime-test-{}", std::process::id()))
}

/// Enters the world; the first one makes the directory. Returns a number that nobody else has.
fn enter() -> usize {
    let mut world = world();
    if world.users == 0 {
        fs::create_dir_all(work()).unwrap();
        fs::set_permissions(work(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = work().join("busybox");
        copy_program(busybox(), &copy);
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    world.users += 1;
    world.serial += 1;
    world.serial
}

/// Leaves the world; the last one removes the directory and the cgroups' parent. Under the lock: nobody can be about
/// to make a cgroup in the parent.
fn leave() {
    let mut world = world();
    world.users -= 1;
    if world.users == 0 {
        let _ = fs::remove_file(work().join("busybox"));
        let _ = fs::remove_dir(work());
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.mount.join(&cgroup_parent()[1..]));
        }
    }
}

// ---------------------------------------------------------------------------------------------- bundle

/// Copies what is to be executed. By another process: a descriptor of ours for writing would for a moment be in what other tests
/// have forked, and to execute the file then is ETXTBSY.
#[track_caller]
pub(crate) fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new(busybox()).arg("cp").arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot copy {}: is BUSYBOX static?", from.as_ref().display());
    // Whatever the umask is.
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

/// Writes what is to be executed: as [`copy_program`].
#[track_caller]
pub(crate) fn write_program(to: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let draft = to.as_ref().with_extension("draft");
    fs::write(&draft, bytes).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&draft, to);
    fs::remove_file(draft).unwrap();
}

const APPLETS: &str = "[ awk basename cat chgrp chmod chown chroot cut date dd df echo env expr false find grep head \
    hostname id ifconfig ip kill ln ls mkdir mkfifo mknod mount mv nproc printf ps pwd readlink rm rmdir sed seq sh \
    sleep sort stat stty sync tail tee test top touch tr true tty umount uname uniq wc whoami xargs yes";

/// A bundle in a directory of its own, removed on drop.
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    pub(crate) config: Value,
    /// Whose the container is; None: root's.
    pub(crate) user: Option<u32>,
}

impl Bundle {
    /// A busybox root file system and the configuration of `runc spec`, without a terminal.
    pub(crate) fn new() -> Self {
        let directory = work().join(enter().to_string());
        let bundle = Self { directory, config: base_config(), user: None };
        let root = bundle.rootfs();
        for name in ["bin", "dev", "etc", "mnt", "proc", "root", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(work().join("busybox"), root.join("bin/busybox")).unwrap();
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
        bundle
    }

    /// A bundle whose process is a shell script.
    pub(crate) fn sh(script: &str) -> Self {
        let mut bundle = Self::new();
        bundle.script(script);
        bundle
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub(crate) fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    pub(crate) fn script(&mut self, script: &str) -> &mut Self {
        self.args(&["sh", "-c", script])
    }

    /// Sets a value by its JSON pointer; objects on the way are made, `-` appends to an array.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        set(&mut self.config, pointer, value);
        self
    }

    /// Removes a key.
    pub(crate) fn remove(&mut self, pointer: &str) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        self
    }

    /// Appends a mount.
    pub(crate) fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.set("/mounts/-", mount)
    }

    /// Removes the mount at a destination.
    pub(crate) fn unmount(&mut self, destination: &str) -> &mut Self {
        self.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != destination);
        self
    }

    /// Adds a namespace, in place of one of that type.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        self.no_namespace(kind);
        self.set("/linux/namespaces/-", path.map_or(json!({"type": kind}), |path| json!({"type": kind, "path": path})))
    }

    /// Takes a namespace away.
    pub(crate) fn no_namespace(&mut self, kind: &str) -> &mut Self {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
        self
    }

    /// Gives init the same capabilities in each of these sets, in place of what was there.
    pub(crate) fn capabilities(&mut self, capabilities: &[&str]) -> &mut Self {
        let set = json!(capabilities);
        self.set("/process/capabilities", json!({"bounding": set, "effective": set, "permitted": set}))
    }

    /// Writes config.json.
    pub(crate) fn write(&self) {
        fs::write(self.directory.join("config.json"), serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
    }

    /// A container of this bundle.
    pub(crate) fn container(self) -> Container {
        Container::new(self)
    }
}

/// Sets a value by its JSON pointer; objects on the way are made, `-` appends to an array.
pub(crate) fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for key in pointer.split('/').skip(1) {
        if let Value::Array(array) = place {
            let index = key.parse().unwrap_or(array.len());
            if index == array.len() {
                array.push(Value::Null);
            }
            place = &mut array[index];
        } else {
            if place.is_null() {
                *place = json!({});
            }
            place = &mut place[key];
        }
    }
    *place = value;
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let mounted = mounts_below(&self.directory);
        if mounted.is_empty() {
            // Attributes of a test's making must not keep the directory.
            let _ = fs::remove_dir_all(&self.directory);
        } else {
            // Removing the tree would remove what is mounted there.
            say(&format!("LEFT MOUNTED below {}: {mounted:?}", self.directory.display()));
        }
        leave();
    }
}

fn mounts_below(directory: &Path) -> Vec<String> {
    let start = directory.display().to_string();
    let inside = |point: &str| point == start || point.starts_with(&format!("{start}/"));
    let mounts = text("/proc/self/mountinfo");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| inside(point)).map(str::to_owned).collect()
}

/// The mount points of this process's mount namespace, or of another by its mountinfo.
pub(crate) fn mount_points(mountinfo: Option<&str>) -> BTreeSet<String> {
    let own = text("/proc/self/mountinfo");
    mountinfo.unwrap_or(&own).lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

/// What `runc spec` writes, with `terminal` false and a writable root.
pub(crate) fn base_config() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "container",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

// ---------------------------------------------------------------------------------------------- container

/// An id of a container that may exist. On drop it is deleted by force, and nothing may be left.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
}

/// The two ends of a container's standard streams.
pub(crate) struct Io {
    /// Closing it ends a script that waits in `read`.
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: Lines,
}

/// A script that says `ready` and goes on until its stdin is closed.
pub(crate) const WAITING: &str = "echo ready; read line; exit 0";

impl Container {
    fn new(mut bundle: Bundle) -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let id = format!("rt-{}-{}-end", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        if bundle.config.pointer("/linux/cgroupsPath").is_none() && bundle.user.is_none() {
            let path = if systemd() { format!("system.slice:test:{id}") } else { format!("{}/{id}", cgroup_parent()) };
            bundle.set("/linux/cgroupsPath", json!(path));
        }
        Self { id, bundle }
    }

    /// A container (of a shell script) that is created with its standard streams at hand.
    pub(crate) fn created(script: &str) -> (Self, Io) {
        let container = Bundle::sh(script).container();
        let io = container.create_io();
        (container, io)
    }

    /// A container that has said `ready` and goes on until its stdin is closed.
    pub(crate) fn running() -> (Self, Io) {
        let (container, mut io) = Self::created(WAITING);
        container.call(["start", &container.id]).run().ok();
        assert_eq!(io.stdout.next(), "ready");
        (container, io)
    }

    /// The directory for the runtime's state.
    pub(crate) fn root(&self) -> PathBuf {
        self.bundle.directory.join("state")
    }

    /// A call of the runtime with this container's `--root`.
    pub(crate) fn call<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        let root = [OsStr::new("--root").to_owned(), self.root().into_os_string()];
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let named = args.iter().any(|arg| arg.as_encoded_bytes().starts_with(b"--cgroup-manager"));
        let driver = (systemd() && !named && self.bundle.user.is_none()).then_some("--systemd-cgroup");
        let call = Call::new(runtime()).args(root).args(driver).args(args);
        let call = call.env(MARK, &self.id).cwd(&self.bundle.directory);
        match self.bundle.user {
            Some(user) => call.user(user),
            None => call,
        }
    }

    /// `create` or `run` with flags, of this bundle and id, after config.json was written.
    pub(crate) fn call_bundle(&self, command: &str, flags: &[&str]) -> Call {
        self.bundle.write();
        let bundle = self.bundle.directory.display().to_string();
        self.call([&[command, "--bundle", &bundle], flags, &[&self.id]].concat())
    }

    pub(crate) fn create(&self) -> Output {
        self.call_bundle("create", &[]).run()
    }

    /// `create` with pipes at the container's stdin and stdout.
    #[track_caller]
    pub(crate) fn create_io(&self) -> Io {
        let (call, io) = with_io(self.call_bundle("create", &[]));
        call.run().ok();
        io
    }

    /// `run` in the foreground.
    pub(crate) fn run(&self) -> Output {
        self.call_bundle("run", &[]).run()
    }

    pub(crate) fn start(&self) -> Output {
        self.call(["start", &self.id]).run()
    }

    /// `kill` and `delete` and the like: a command and the id, then further words.
    pub(crate) fn command(&self, command: &[&str], after: &[&str]) -> Output {
        self.call([command, &[&self.id], after].concat()).run()
    }

    /// The state as JSON.
    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        let output = self.call(["state", &self.id]).run().ok();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.state()["pid"].as_u64().unwrap() as u32
    }

    /// Ends a running container by SIGKILL and waits until it has ended.
    #[track_caller]
    pub(crate) fn stop(&self) {
        let pid = self.pid();
        self.command(&["kill"], &["KILL"]).ok();
        wait_for_end(pid);
    }

    /// Where a controller's file of this container is; by absolute cgroupsPath, or one of systemd in a slice of the top.
    pub(crate) fn cgroup(&self, name: &str) -> Option<PathBuf> {
        let path = self.bundle.config["linux"]["cgroupsPath"].as_str().unwrap();
        match path.splitn(3, ':').collect::<Vec<_>>()[..] {
            [slice, prefix, name_of_unit] => {
                Some(controller(name)?.join(slice).join(format!("{prefix}-{name_of_unit}.scope")))
            }
            _ => Some(controller(name)?.join(&path[1..])),
        }
    }

    /// Freezes or thaws the container by hand, as an administrator would.
    #[track_caller]
    pub(crate) fn freeze(&self, frozen: bool) {
        let (directory, file, word) = if cgroup_v2() {
            (self.cgroup("").unwrap(), "cgroup.freeze", if frozen { "1" } else { "0" })
        } else {
            (self.cgroup("freezer").unwrap(), "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
        };
        fs::write(directory.join(file), word).unwrap();
        eventually("the container is frozen", || match (cgroup_v2(), frozen) {
            (true, true) => text(directory.join("cgroup.events")).contains("frozen 1"),
            (true, false) => text(directory.join("cgroup.events")).contains("frozen 0"),
            (false, _) => text(directory.join(file)).trim() == word,
        });
    }

    /// What there is of this container: processes, mounts, cgroups, state.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        // A process that is about to end is not left: it gets the time to.
        let end = Instant::now() + deadline() / 5;
        let mut processes = processes_of(&self.id);
        for pid in &processes {
            pidfd(*pid).map(|fd| readable(&fd, end.saturating_duration_since(Instant::now())));
        }
        if !processes.is_empty() {
            processes = processes_of(&self.id);
        }
        let mut left: Vec<String> =
            processes.into_iter().map(|pid| format!("process {pid}: {}", command_line(pid))).collect();
        // A unit goes when systemd has seen its end; one that failed stays. Its file tells without a call of systemctl.
        while units_of(&self.id).next().is_some() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        left.extend(units_of(&self.id).map(|path| format!("unit {}", path.display())));
        let cgroups = cgroups_of(&self.id);
        if let Some(first) = cgroups.first() {
            left.push(format!("{} cgroups, for example {}", cgroups.len(), first.display()));
        }
        left.extend(mounts_below(&self.bundle.directory).into_iter().map(|path| format!("mount {path}")));
        let state = self.root().join(&self.id);
        if state.exists() {
            left.push(format!("state {}", state.display()));
        }
        left
    }

    /// Insists that nothing is left.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left by {}: {left:?}", self.id);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = catch_unwind(AssertUnwindSafe(|| self.command(&["delete", "--force"], &[])));
        let deleted = deleted.map(|output| (output.code(), output.stderr)).map_err(|_| "no end");
        let left = self.leftovers();
        if left.is_empty() {
            return;
        }
        // The machine must be as it was, whatever the runtime under test does.
        for cgroup in cgroups_of(&self.id) {
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        }
        for pid in processes_of(&self.id) {
            if let Some(fd) = pidfd(pid) {
                let _ = pidfd_send_signal(&fd, Signal::KILL);
                readable(&fd, Duration::from_secs(5));
            }
        }
        let unremoved: BTreeSet<PathBuf> =
            cgroups_of(&self.id).into_iter().filter(|c| fs::remove_dir(c).is_err()).collect();
        let report = format!("left by {} after delete --force: {left:?} ({deleted:?})", self.id);
        if !unremoved.is_empty() {
            say(&format!("LEFT FOR GOOD: {unremoved:?}"));
        }
        if std::thread::panicking() {
            say(&report);
        } else {
            panic!("{report}");
        }
    }
}

/// Gives a call pipes for stdin and stdout.
pub(crate) fn with_io(call: Call) -> (Call, Io) {
    let (stdout, theirs) = pipe();
    let (input, stdin) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (call.stdin(input).stdout(theirs), Io { stdin: Some(File::from(stdin)), stdout })
}

impl Io {
    /// Writes to the container's stdin.
    pub(crate) fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Closes the container's stdin.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }
}

/// Runs a script in the foreground in a container with the base configuration, changed by `edit`; returns its stdout.
#[track_caller]
pub(crate) fn inside(script: &str, edit: impl FnOnce(&mut Bundle)) -> String {
    let mut bundle = Bundle::sh(script);
    edit(&mut bundle);
    bundle.container().run().ok().stdout
}

/// An `OsString` of any bytes.
pub(crate) fn bytes(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}
