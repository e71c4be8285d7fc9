//! Running the floor (`floor.rs`, a program of its own) as the runtimes are run.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Doing as _, Result, Work, mounts, say};

pub(super) struct Floor {
    program: PathBuf,
    rootfs: PathBuf,
    /// `cpuset.cpus` and `cpuset.mems` of the root, for a v1 hierarchy.
    cpuset: [String; 2],
    hierarchies: Vec<PathBuf>,
    unified: Option<PathBuf>,
    cgroup: String,
}

impl Floor {
    /// None: `make bench` has not named it.
    pub(super) fn find(work: &Work) -> Result<Option<Self>> {
        let Some(program) = std::env::var_os("BENCH_FLOOR").filter(|program| !program.is_empty()) else {
            say("bench: BENCH_FLOOR is not set: measuring without the floor");
            return Ok(None);
        };
        let value = |file| {
            let text = fs::read_to_string(Path::new("/sys/fs/cgroup/cpuset").join(file)).unwrap_or_default();
            text.trim().to_owned()
        };
        let cgroup = work.cgroup.trim_start_matches('/').to_owned();
        let floor = Self {
            program: program.into(),
            rootfs: work.dir.join("rootfs"),
            cpuset: [value("cpuset.cpus"), value("cpuset.mems")],
            hierarchies: mounts("cgroup")?,
            unified: mounts("cgroup2")?.into_iter().next(),
            cgroup,
        };
        Ok(Some(floor))
    }

    fn command(&self, what: &str, name: &str, words: &[&str]) -> Command {
        let path = |mount: &PathBuf| mount.join(format!("{}-{name}", self.cgroup));
        let mut command = Command::new(&self.program);
        command.arg(what).args(words);
        command.arg(self.unified.as_ref().map_or_else(|| "-".into(), path));
        command.args(self.hierarchies.iter().map(path)).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn new_container(&self, what: &str, name: &str) -> Command {
        let [cpus, mems] = &self.cpuset;
        self.command(what, name, &[&self.rootfs.to_string_lossy(), cpus, mems])
    }

    fn timed(&self, idle: Duration, mut command: Command) -> Result<Duration> {
        std::thread::sleep(idle);
        let begin = Instant::now();
        let status = command.status().doing(self.program.display())?;
        let time = begin.elapsed();
        if status.success() { Ok(time) } else { Err(format!("the floor fails in a system call: {status}")) }
    }

    pub(super) fn run(&self, idle: Duration, name: &str) -> Result<Duration> {
        self.timed(idle, self.new_container("run", name))
    }

    /// What `delete` has to do: to remove the cgroups of a container that has ended.
    pub(super) fn remove(&self, idle: Duration) -> Result<Duration> {
        self.timed(Duration::ZERO, self.new_container("leave", "leave"))?;
        self.timed(idle, self.command("remove", "leave", &[]))
    }

    /// A program of this kind that does nothing.
    pub(super) fn empty(&self, idle: Duration) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        command.arg("empty").stdin(Stdio::null()).stdout(Stdio::null());
        self.timed(idle, command)
    }

    /// A container that waits for its standard input to end.
    pub(super) fn hold(&self) -> Result<Held<'_>> {
        let mut holder =
            self.new_container("hold", "hold").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().doing("floor")?;
        // cat(1) answers when all is made.
        holder.stdin.as_mut().ok_or("no stdin")?.write_all(b"x").doing("floor")?;
        std::io::Read::read_exact(holder.stdout.as_mut().ok_or("no stdout")?, &mut [0]).doing("floor")?;
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = fs::read_to_string(&children).doing(children)?.trim().to_owned();
        Ok(Held { floor: self, holder, init })
    }
}

pub(super) struct Held<'a> {
    floor: &'a Floor,
    holder: Child,
    init: String,
}

impl Held<'_> {
    pub(super) fn exec(&self, idle: Duration) -> Result<Duration> {
        self.floor.timed(idle, self.floor.command("exec", "hold", &[&self.init]))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
