//! `make bench`: the cost of a container with our release binary and with Debian's runc and crun, side by side.
//!
//! All of them get the same bundle and run in one private mount namespace, interleaved, so that what else the machine
//! does hits them alike. *warm* samples follow each other at once; *cold* ones come after idleness, as a single real
//! start does: joining a cgroup then waits for an RCU grace period, which measuring back to back hides.
//! The binary is `RUNTIME`, or the one that cargo built; only the latter's figures go into README.md.

#[path = "../program/elf.rs"]
mod elf;
mod floor_runs;
mod matrix;
mod page;
mod rows;
mod syscalls;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use floor_runs::Floor;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use rows::Row;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, set_child_subreaper, wait};
use serde_json::{Value, json};

/// A container that has not stopped by then hangs.
const DEADLINE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

type Result<T> = std::result::Result<T, String>;

/// Says what was done when it failed.
trait Doing<T> {
    fn doing(self, what: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("--peak") => peak_of(&args.collect::<Vec<_>>()),
        Some("--quick") => bench(true),
        _ => bench(false),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn bench(quick: bool) -> Result<()> {
    let work = Work::new()?;
    let runtimes = runtimes(&work)?;
    let floor = Floor::find(&work)?;
    say(if quick { "bench: this takes a minute" } else { "bench: this takes a quarter of an hour" });
    let bench = matrix::Bench { work: &work, runtimes: &runtimes, floor: floor.as_ref(), quick };
    let tables = bench.all()?;
    let calls = if quick { String::new() } else { syscalls::report(&work, &runtimes)? };
    let page = page::Page { runtimes: &runtimes, tables: &tables, calls: &calls, host: page::host(&work)? };
    say(&page.text());
    match (std::env::var_os("RUNTIME"), quick) {
        (None, false) => page.write(),
        _ => {
            say("README.md and docs/ stay as they are, because RUNTIME was set, or --quick");
            Ok(())
        }
    }
}

/// The working directory, a tmpfs in a mount namespace of our own; and the cgroup above all containers.
struct Work {
    dir: PathBuf,
    cgroup: String,
    /// Whether the unified hierarchy of a hybrid host was taken out of sight.
    unmounted: bool,
}

impl Work {
    fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).doing("a mount namespace of our own (root is needed)")?;
        // Nothing below may be unmounted before this has succeeded: it would vanish from the host.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).doing("making all mounts private")?;
        let unified = Path::new("/sys/fs/cgroup/unified");
        let unmounted = mounts("cgroup2")?.iter().any(|path| path == unified);
        if unmounted {
            umount2(unified, MntFlags::MNT_DETACH).doing("unmounting the unified hierarchy")?;
        }
        // What a runtime leaves to its caller is ours to reap.
        set_child_subreaper(Some(getpid())).doing("becoming a subreaper")?;
        let name = format!("runtime-bench-{}", std::process::id());
        let work = Self { dir: std::env::temp_dir().join(&name), cgroup: format!("/{name}"), unmounted };
        fs::create_dir(&work.dir).doing(work.dir.display())?;
        mount(Some("tmpfs"), &work.dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).doing("mounting a tmpfs")?;
        work.rootfs()?;
        Ok(work)
    }

    fn rootfs(&self) -> Result<()> {
        let busybox = std::env::var("BUSYBOX").unwrap_or_else(|_| "/bin/busybox".to_owned());
        let rootfs = self.dir.join("rootfs");
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(dir)).doing(dir)?;
        }
        fs::copy(&busybox, rootfs.join("bin/busybox")).doing(&busybox)?;
        for applet in ["cat", "sh", "sleep", "true"] {
            symlink("busybox", rootfs.join("bin").join(applet)).doing(applet)?;
        }
        Ok(())
    }

    /// A bundle for each runtime and command: what `spec` of any of them prints, with the least changed.
    fn bundle(&self, runtime: &str, spec: &Value, args: &[&str]) -> Result<PathBuf> {
        let name = format!("{runtime}-{}", args.first().map_or("", |path| path.trim_start_matches("/bin/")));
        self.bundle_with(&name, spec, args, |_| Ok(()))
    }

    /// As [`Self::bundle`], of this name, and with more changed.
    fn bundle_with(
        &self,
        name: &str,
        spec: &Value,
        args: &[&str],
        change: impl FnOnce(&mut Value) -> Result<()>,
    ) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).doing(dir.display())?;
        let mut config = spec.clone();
        set(&mut config, "/process/terminal", json!(false))?;
        set(&mut config, "/process/args", json!(args))?;
        set(&mut config, "/root/path", json!(self.dir.join("rootfs")))?;
        let linux = config.pointer_mut("/linux").and_then(Value::as_object_mut).ok_or("spec: no linux")?;
        linux.insert("cgroupsPath".to_owned(), json!(format!("{}/{name}", self.cgroup)));
        change(&mut config)?;
        fs::write(dir.join("config.json"), config.to_string()).doing("config.json")?;
        Ok(dir)
    }
}

fn set(config: &mut Value, pointer: &str, value: Value) -> Result<()> {
    *config.pointer_mut(pointer).ok_or_else(|| format!("spec: no {pointer}"))? = value;
    Ok(())
}

impl Drop for Work {
    fn drop(&mut self) {
        for kind in ["cgroup", "cgroup2"] {
            for path in mounts(kind).unwrap_or_default() {
                remove_cgroup(&path.join(self.cgroup.trim_start_matches('/')));
            }
        }
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Removes a cgroup and those below it.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// Where file systems of a type are mounted.
fn mounts(kind: &str) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").doing("/proc/self/mountinfo")?;
    let mount_point = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == kind).then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    Ok(text.lines().filter_map(mount_point).collect())
}

/// One runtime under measurement.
struct Runtime {
    name: String,
    number: usize,
    spec: Value,
    path: PathBuf,
    root: PathBuf,
    errors: PathBuf,
    /// Bundles of `/bin/true` and of a long sleep.
    short: PathBuf,
    long: PathBuf,
}

/// What scripts/peers.sh makes.
const NEWEST: [&str; 3] = ["sid/runc", "sid/crun", "youki/bin/youki"];

fn newest(peer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers").join(peer)
}

/// The binary under test, then the peers that are there.
fn runtimes(work: &Work) -> Result<Vec<Runtime>> {
    let ours = std::env::var_os("RUNTIME").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_runtime")), PathBuf::from);
    let mut found = vec![("runtime".to_owned(), ours)];
    for peer in ["/usr/sbin/runc", "/usr/bin/crun"].map(PathBuf::from).into_iter().chain(NEWEST.map(newest)) {
        let name = peer.file_name().unwrap_or_default().to_string_lossy();
        match peer.exists() {
            true => found.push((format!("{name} {}", version(&peer)?), peer)),
            false => say(&format!("bench: {} is not there: measuring without it", peer.display())),
        }
    }
    let spec = spec(work, found.get(1).or(found.first()).map(|(_, path)| path.as_path()))?;
    found
        .into_iter()
        .enumerate()
        .map(|(n, (name, path))| {
            let root = work.dir.join(format!("state-{n}"));
            fs::create_dir(&root).doing(root.display())?;
            Ok(Runtime {
                name,
                number: n,
                spec: spec.clone(),
                path,
                root,
                errors: work.dir.join(format!("errors-{n}")),
                short: work.bundle(&n.to_string(), &spec, &["/bin/true"])?,
                long: work.bundle(&n.to_string(), &spec, &["/bin/sleep", "120"])?,
            })
        })
        .collect()
}

fn version(path: &Path) -> Result<String> {
    let output = Command::new(path).arg("--version").output().doing(path.display())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let word = text.split_whitespace().find(is_version).unwrap_or("?");
    Ok(word.split('+').next().unwrap_or(word).to_owned())
}

fn spec(work: &Work, runtime: Option<&Path>) -> Result<Value> {
    let runtime = runtime.ok_or("no runtime")?;
    let status = Command::new(runtime).args(["spec", "--bundle"]).arg(&work.dir).status().doing(runtime.display())?;
    if !status.success() {
        return Err(format!("{} spec: {status}", runtime.display()));
    }
    let text = fs::read_to_string(work.dir.join("config.json")).doing("config.json")?;
    serde_json::from_str(&text).doing("config.json")
}

impl Runtime {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// How long a command takes, from the fork to its end. Its errors go to a file, since a container may hold them.
    fn timed(&self, idle: Duration, args: &[&str]) -> Result<Duration> {
        let errors = File::create(&self.errors).doing(self.errors.display())?;
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        std::thread::sleep(idle);
        let begin = Instant::now();
        let status = command.status();
        let time = begin.elapsed();
        let status = status.doing(self.path.display())?;
        if status.success() {
            return Ok(time);
        }
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        Err(format!("{} {}: {status}: {}", self.name, args.join(" "), errors.trim()))
    }

    /// A container that is deleted when it goes out of scope, unless it was noted as gone.
    fn container(&self, id: &str) -> Container<'_> {
        Container { runtime: self, id: id.to_owned(), gone: false }
    }

    fn run(&self, idle: Duration, bundle: &Path, id: &str) -> Result<Duration> {
        let mut container = self.container(id);
        let time = self.timed(idle, &["run", "--bundle", &bundle.to_string_lossy(), id])?;
        container.gone = true;
        Ok(time)
    }

    /// `create`, `start` and `delete`, without the wait for the container's end before `delete`.
    fn life(&self, idle: Duration) -> Result<[Duration; 3]> {
        let mut container = self.container("life");
        let (create, pid) = self.create(idle, &self.short, "life")?;
        let end = pidfd_open(pid, PidfdFlags::empty()).doing("pidfd_open")?;
        let start = self.timed(idle, &["start", "life"])?;
        let ready = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&DEADLINE)).doing("poll")?;
        if ready == 0 {
            return Err(format!("{}: the container does not stop", self.name));
        }
        reap();
        let delete = self.timed(idle, &["delete", "life"])?;
        container.gone = true;
        Ok([create, start, delete])
    }

    fn create(&self, idle: Duration, bundle: &Path, id: &str) -> Result<(Duration, Pid)> {
        let pid_file = self.root.with_extension("pid");
        let (bundle, file) = (bundle.to_string_lossy(), pid_file.to_string_lossy());
        let time = self.timed(idle, &["create", "--bundle", &bundle, "--pid-file", &file, id])?;
        let text = fs::read_to_string(&pid_file).doing(pid_file.display())?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("bad pid {text:?}"))?;
        Ok((time, pid))
    }

    /// A container that runs; each bundle is for one only, because of its cgroup.
    fn sleeper(&self, bundle: &Path, id: &str) -> Result<Container<'_>> {
        let container = self.container(id);
        self.create(Duration::ZERO, bundle, id)?;
        self.timed(Duration::ZERO, &["start", id])?;
        Ok(container)
    }

    /// The largest process of a command, in KiB, measured by a small process of its own.
    fn peak(&self, args: &[&str]) -> Result<u64> {
        let output = Command::new("/proc/self/exe")
            .arg("--peak")
            .arg(&self.path)
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .doing("--peak")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|_| format!("{}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// `--peak COMMAND...`: prints the `ru_maxrss` of the children. What a child inherits from its parent's memory before
/// it executes counts too, so this must be a process that has done nothing yet.
fn peak_of(command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().ok_or("--peak: no command")?;
    let status = Command::new(program).args(args).stdout(Stdio::null()).status().doing(program)?;
    if !status.success() {
        return Err(format!("{}: {status}", command.join(" ")));
    }
    say(&getrusage(UsageWho::RUSAGE_CHILDREN).doing("getrusage")?.max_rss().to_string());
    Ok(())
}

struct Container<'a> {
    runtime: &'a Runtime,
    id: String,
    gone: bool,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if !self.gone {
            let _ = self.runtime.timed(Duration::ZERO, &["delete", "--force", &self.id]);
            reap();
        }
    }
}

/// Reaps what the runtimes left to us; there is no other child when this is called.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
