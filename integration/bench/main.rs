//! `make bench`: the cost of a container with our release binary and with Debian's runc and crun, side by side.
//!
//! All of them get the same bundle and run in one private mount namespace, interleaved, so that what else the machine
//! does hits them alike. *warm* samples follow each other at once; *cold* ones come after idleness, as a single real
//! start does: joining a cgroup then waits for an RCU grace period, which measuring back to back hides.
//! The binary is `RUNTIME`, or the one that cargo built; only the latter's figures go into README.md.

#[path = "../program/elf.rs"]
mod elf;
mod syscalls;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, set_child_subreaper, wait};
use serde_json::{Value, json};

/// Name, number of samples, idleness before each command.
const REGIMES: [(&str, usize, Duration); 2] = [("warm", 60, Duration::ZERO), ("cold", 15, Duration::from_millis(150))];
const MEMORY: usize = 5;
/// A container that has not stopped by then hangs.
const DEADLINE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const MARKERS: (&str, &str) = ("<!-- bench:begin -->\n", "<!-- bench:end -->");

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
        _ => bench(),
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

fn bench() -> Result<()> {
    let work = Work::new()?;
    let runtimes = runtimes(&work)?;
    say("bench: this takes two minutes");
    let mut rows = Vec::new();
    for (label, samples, idle) in REGIMES {
        rows.push(Row::measure(format!("`run`, {label}"), &runtimes, samples, |runtime| runtime.run(idle))?);
    }
    for (label, samples, idle) in REGIMES {
        let label = format!("`create` + `start` + `delete`, {label}");
        rows.push(Row::measure(label, &runtimes, samples, |runtime| runtime.life(idle))?);
    }
    let sleepers = runtimes.iter().map(Runtime::sleeper).collect::<Result<Vec<_>>>()?;
    for command in [&["state", "sleep"][..], &["kill", "sleep", "CONT"][..]] {
        for (label, samples, idle) in REGIMES {
            let label = format!("`{}`, {label}", command.first().unwrap_or(&""));
            rows.push(Row::measure(label, &runtimes, samples, |runtime| runtime.timed(idle, command))?);
        }
    }
    rows.push(Row::memory("`run`", &runtimes, Runtime::peak_of_run)?);
    rows.push(Row::memory("`state`", &runtimes, |runtime| runtime.peak(&["state", "sleep"]))?);
    drop(sleepers);

    let report = report(&runtimes, &rows, work.unmounted)? + &syscalls::report(&work, &runtimes)?;
    say(&report);
    match std::env::var_os("RUNTIME") {
        Some(_) => say("README.md stays as it is, because RUNTIME was set"),
        None => write_readme(&report)?,
    }
    Ok(())
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
        for applet in ["sh", "sleep", "true"] {
            symlink("busybox", rootfs.join("bin").join(applet)).doing(applet)?;
        }
        Ok(())
    }

    /// A bundle for each runtime and command: what `spec` of any of them prints, with the least changed.
    fn bundle(&self, runtime: &str, spec: &Value, args: &[&str]) -> Result<PathBuf> {
        let name = format!("{runtime}-{}", args.first().map_or("", |path| path.trim_start_matches("/bin/")));
        let dir = self.dir.join(&name);
        fs::create_dir_all(&dir).doing(dir.display())?;
        let mut config = spec.clone();
        set(&mut config, "/process/terminal", json!(false))?;
        set(&mut config, "/process/args", json!(args))?;
        set(&mut config, "/root/path", json!(self.dir.join("rootfs")))?;
        let linux = config.pointer_mut("/linux").and_then(Value::as_object_mut).ok_or("spec: no linux")?;
        linux.insert("cgroupsPath".to_owned(), json!(format!("{}/{name}", self.cgroup)));
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
    path: PathBuf,
    root: PathBuf,
    errors: PathBuf,
    /// Bundles of `/bin/true` and of a long sleep.
    short: PathBuf,
    long: PathBuf,
}

/// The binary under test, then the peers that are there.
fn runtimes(work: &Work) -> Result<Vec<Runtime>> {
    let ours = std::env::var_os("RUNTIME").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_runtime")), PathBuf::from);
    let mut found = vec![("runtime".to_owned(), ours)];
    for peer in ["runc", "crun"] {
        match ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(peer))
            .find(|path| path.exists())
        {
            Some(path) => found.push((format!("{peer} {}", version(&path)?), path)),
            None => say(&format!("bench: {peer} is not installed: measuring without it")),
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
    let word = text.lines().next().and_then(|line| line.split(' ').nth(2)).unwrap_or("?");
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

    fn run(&self, idle: Duration) -> Result<Duration> {
        let mut container = self.container("run");
        let time = self.timed(idle, &["run", "--bundle", &self.short.to_string_lossy(), "run"])?;
        container.gone = true;
        Ok(time)
    }

    /// `create`, `start`, `delete`: the sum of the three, without the wait for the container's end before `delete`.
    fn life(&self, idle: Duration) -> Result<Duration> {
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
        Ok(create + start + delete)
    }

    fn create(&self, idle: Duration, bundle: &Path, id: &str) -> Result<(Duration, Pid)> {
        let pid_file = self.root.with_extension("pid");
        let (bundle, file) = (bundle.to_string_lossy(), pid_file.to_string_lossy());
        let time = self.timed(idle, &["create", "--bundle", &bundle, "--pid-file", &file, id])?;
        let text = fs::read_to_string(&pid_file).doing(pid_file.display())?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("bad pid {text:?}"))?;
        Ok((time, pid))
    }

    fn sleeper(&self) -> Result<Container<'_>> {
        let container = self.container("sleep");
        self.create(Duration::ZERO, &self.long, "sleep")?;
        self.timed(Duration::ZERO, &["start", "sleep"])?;
        Ok(container)
    }

    fn peak_of_run(&self) -> Result<u64> {
        let mut container = self.container("peak");
        let peak = self.peak(&["run", "--bundle", &self.short.to_string_lossy(), "peak"])?;
        container.gone = true;
        Ok(peak)
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

/// A line of the table: the samples of each runtime.
struct Row {
    label: String,
    unit: &'static str,
    samples: Vec<Vec<f64>>,
}

impl Row {
    /// Takes samples of all runtimes in turn, beginning with another one each time.
    fn measure(
        label: String,
        runtimes: &[Runtime],
        count: usize,
        sample: impl Fn(&Runtime) -> Result<Duration>,
    ) -> Result<Self> {
        let mut samples = vec![Vec::new(); runtimes.len()];
        for round in 0..count {
            for n in 0..runtimes.len() {
                let n = (n + round) % runtimes.len();
                if let (Some(runtime), Some(samples)) = (runtimes.get(n), samples.get_mut(n)) {
                    samples.push(sample(runtime)?.as_secs_f64() * 1000.0);
                }
            }
        }
        Ok(Self { label, unit: "ms", samples })
    }

    fn memory(command: &str, runtimes: &[Runtime], peak: impl Fn(&Runtime) -> Result<u64>) -> Result<Self> {
        let mut samples = vec![Vec::new(); runtimes.len()];
        for _ in 0..MEMORY {
            for (runtime, samples) in runtimes.iter().zip(&mut samples) {
                samples.push(f64::from(u32::try_from(peak(runtime)?).unwrap_or(u32::MAX)) / 1024.0);
            }
        }
        Ok(Self { label: format!("peak memory of {command}"), unit: "MiB", samples })
    }

    /// The row in Markdown: median and minimum, and how many times ours, the first.
    fn render(&self) -> String {
        let ours = self.samples.first().map_or(f64::NAN, |samples| median(samples));
        let mut line = format!("| {} |", self.label);
        for (n, samples) in self.samples.iter().enumerate() {
            let (median, min) = (median(samples), samples.iter().copied().fold(f64::INFINITY, f64::min));
            let _ = write!(line, " {median:.2} [{min:.2}] {}", self.unit);
            if n > 0 {
                let _ = write!(line, ", {:.1}x", median / ours);
            }
            line.push_str(" |");
        }
        line
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
        (Some(middle), _) => *middle,
        _ => f64::NAN,
    }
}

fn report(runtimes: &[Runtime], rows: &[Row], unmounted: bool) -> Result<String> {
    let names: Vec<_> = runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").doing("osrelease")?;
    let kernel: Vec<_> = kernel.trim().split('.').take(2).collect();
    let cores = std::thread::available_parallelism().doing("cores")?;
    let cgroups = match (mounts("cgroup")?.is_empty(), unmounted) {
        (true, _) => "cgroup v2",
        (false, false) => "cgroup v1",
        (false, true) => "cgroup v1, its unified hierarchy unmounted because crun refuses it",
    };
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for row in rows {
        let _ = writeln!(text, "{}", row.render());
    }
    let [(_, warm, _), (_, cold, idle)] = REGIMES;
    let _ = write!(
        text,
        "\nMedian [minimum], and how many times ours. {warm} samples warm (back to back) and {cold} cold (after {} ms of \
         idleness before each command), interleaved, by `make bench`.\n\
         The same bundle for all: `runc spec`, /bin/true of busybox (`state`, `kill`: a sleeping container). Memory: the \
         largest process of the command.\nHost: Linux {}, {cores} cores, {cgroups}.\n",
        idle.as_millis(),
        kernel.join("."),
    );
    Ok(text)
}

/// Replaces what stands between the markers of README.md.
fn write_readme(report: &str) -> Result<()> {
    let text = fs::read_to_string(README).doing(README)?;
    let parts = text.split_once(MARKERS.0).and_then(|(head, rest)| Some((head, rest.split_once(MARKERS.1)?.1)));
    let (head, tail) = parts.ok_or("README.md has no markers <!-- bench:begin --> and <!-- bench:end -->")?;
    fs::write(README, format!("{head}{}{report}{}{tail}", MARKERS.0, MARKERS.1)).doing(README)
}
