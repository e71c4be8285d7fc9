//! What is measured.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::floor_runs::Floor;
use super::rows::{OnFloor, Row};
use super::{Doing as _, Result, Runtime, Work, reap, say, set, syscalls};

pub(super) struct Bench<'a> {
    pub(super) work: &'a Work,
    pub(super) runtimes: &'a [Runtime],
    pub(super) floor: Option<&'a Floor>,
    pub(super) quick: bool,
}

pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) note: String,
    pub(super) rows: Vec<Row>,
}

const WARM: Duration = Duration::ZERO;
pub(super) const COLD: Duration = Duration::from_millis(150);

impl Bench<'_> {
    pub(super) fn all(&self) -> Result<Vec<Table>> {
        Ok(vec![self.commands()?, self.many()?, self.configurations()?, self.memory()?, self.counts()?])
    }

    fn samples(&self, idle: Duration) -> usize {
        match (self.quick, idle.is_zero()) {
            (true, true) => 6,
            (true, false) => 3,
            (false, true) => 60,
            (false, false) => 15,
        }
    }

    fn regimes(&self, mut measure: impl FnMut(&str, Duration, usize) -> Result<()>) -> Result<()> {
        [("warm", WARM), ("cold", COLD)].iter().try_for_each(|(name, idle)| measure(name, *idle, self.samples(*idle)))
    }

    fn on_floor<'f>(&'f self, sample: &'f dyn Fn(&Floor) -> Result<Duration>) -> OnFloor<'f> {
        self.floor.map(|floor| (floor, sample))
    }

    /// One container, and each command.
    fn commands(&self) -> Result<Table> {
        say("bench: commands");
        let mut rows = Vec::new();
        self.regimes(|name, idle, count| {
            let floor = |floor: &Floor| floor.run(idle, "run");
            let run = |runtime: &Runtime| runtime.run(idle, &runtime.short, "run");
            rows.push(Row::measure(format!("`run`, {name}"), self.runtimes, count, run, self.on_floor(&floor))?);
            Ok(())
        })?;
        self.regimes(|name, idle, count| {
            rows.extend(self.life(name, idle, count)?);
            Ok(())
        })?;
        let sleepers = self.runtimes.iter().map(|one| one.sleeper(&one.long, "sleep")).collect::<Result<Vec<_>>>()?;
        let held = self.floor.map(Floor::hold).transpose()?;
        self.regimes(|name, idle, count| {
            let floor = |floor: &Floor| held.as_ref().map_or_else(|| floor.empty(idle), |held| held.exec(idle));
            let exec = |runtime: &Runtime| runtime.timed(idle, &["exec", "sleep", "/bin/true"]);
            rows.push(Row::measure(format!("`exec`, {name}"), self.runtimes, count, exec, self.on_floor(&floor))?);
            Ok(())
        })?;
        drop(held);
        let empty = |floor: &Floor| floor.empty(WARM);
        for (label, words) in
            [("`state`", &["state", "sleep"][..]), ("`kill`", &["kill", "sleep", "CONT"]), ("`list`", &["list"])]
        {
            let sample = |runtime: &Runtime| runtime.timed(WARM, words);
            rows.push(Row::measure(label, self.runtimes, self.samples(WARM), sample, self.on_floor(&empty))?);
        }
        drop(sleepers);
        let note = "The floor of `run`, `exec` and `delete` is the bare system calls; that of `state`, `kill` and `list` a program that does nothing.";
        Ok(Table { title: "Each command", note: note.to_owned(), rows })
    }

    fn life(&self, name: &str, idle: Duration, count: usize) -> Result<Vec<Row>> {
        let labels = ["create", "start", "delete"].map(|command| format!("`{command}`, {name}"));
        let mut rows: Vec<Row> = labels.into_iter().map(|label| Row::new(label, "ms", self.runtimes.len())).collect();
        for round in 0..count {
            for n in 0..self.runtimes.len() {
                let n = (n + round) % self.runtimes.len();
                let times = self.runtimes.get(n).map(|runtime| runtime.life(idle)).transpose()?;
                for (row, time) in rows.iter_mut().zip(times.into_iter().flatten()) {
                    row.samples.get_mut(n).into_iter().for_each(|samples| samples.push(time.as_secs_f64() * 1000.0));
                }
            }
            if let (Some(floor), Some(delete)) = (self.floor, rows.last_mut()) {
                delete.floor.push(floor.remove(idle)?.as_secs_f64() * 1000.0);
            }
        }
        Ok(rows)
    }

    /// A hundred containers: one after the other, side by side; up to a thousand there at once, and beside one more.
    fn many(&self) -> Result<Table> {
        say("bench: many containers");
        let total = if self.quick { 10 } else { 100 };
        let mut rows = Vec::new();
        for side_by_side in [1, 2, 8] {
            let mut row = Row::new(format!("{total} times `run`, {side_by_side} at a time"), "s", self.runtimes.len());
            for _ in 0..if self.quick { 1 } else { 3 } {
                for (runtime, samples) in self.runtimes.iter().zip(&mut row.samples) {
                    samples.push(self.runs(runtime, total, side_by_side)?.as_secs_f64());
                }
            }
            rows.push(row);
        }
        let mut others = Vec::new();
        for beside in if self.quick { vec![10] } else { vec![10, 100, 1000] } {
            let there = others.len() / self.runtimes.len();
            for runtime in self.runtimes {
                for n in there..beside {
                    let name = format!("{}-other-{n}", runtime.number);
                    let bundle = self.work.bundle_with(&name, &runtime.spec, &["/bin/sleep", "3600"], |_| Ok(()))?;
                    others.push(runtime.sleeper(&bundle, &format!("other-{n}"))?);
                }
            }
            let count = self.samples(WARM) / 2;
            let run = |runtime: &Runtime| runtime.run(WARM, &runtime.short, "run");
            rows.push(Row::measure(
                format!("`run` beside {beside} containers of each"),
                self.runtimes,
                count,
                run,
                None,
            )?);
            let list = |runtime: &Runtime| runtime.timed(WARM, &["list"]);
            rows.push(Row::measure(format!("`list` of {beside}"), self.runtimes, count, list, None)?);
        }
        drop(others);
        Ok(Table { title: "Many containers", note: String::new(), rows })
    }

    fn runs(&self, runtime: &Runtime, total: usize, side_by_side: usize) -> Result<Duration> {
        let bundles = (0..side_by_side)
            .map(|n| {
                let name = format!("{}-side-{n}", runtime.number);
                self.work.bundle_with(&name, &runtime.spec, &["/bin/true"], |_| Ok(()))
            })
            .collect::<Result<Vec<_>>>()?;
        let begin = Instant::now();
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let one = |(n, bundle): (usize, &std::path::PathBuf)| {
                let bundle = bundle.clone();
                scope.spawn(move || {
                    (n..total).step_by(side_by_side).try_for_each(|run| {
                        let words = ["run", "--bundle", &bundle.to_string_lossy(), &format!("side-{run}")];
                        let output =
                            runtime.command(&words).stdin(std::process::Stdio::null()).output().doing(&runtime.name)?;
                        if output.status.success() {
                            Ok(())
                        } else {
                            Err(String::from_utf8_lossy(&output.stderr).into_owned())
                        }
                    })
                })
            };
            let threads: Vec<_> = bundles.iter().enumerate().map(one).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread died".to_owned())))
                .collect()
        });
        let time = begin.elapsed();
        results.into_iter().collect::<Result<Vec<()>>>()?;
        reap();
        Ok(time)
    }

    /// What a configuration adds to `run`.
    fn configurations(&self) -> Result<Table> {
        say("bench: configurations");
        let mut rows = Vec::new();
        let count = self.samples(WARM) / 2;
        let plain = |runtime: &Runtime| runtime.run(WARM, &runtime.short, "run");
        rows.push(Row::measure("`run`", self.runtimes, count, plain, None)?);
        if let Some(profile) = syscalls::profile()? {
            let seccomp = |runtime: &Runtime| {
                let name = format!("{}-seccomp", runtime.number);
                let bundle = self.work.bundle_with(&name, &runtime.spec, &["/bin/true"], |config| {
                    let linux = config.pointer_mut("/linux").and_then(Value::as_object_mut).ok_or("spec: no linux")?;
                    linux.insert("seccomp".to_owned(), profile.clone());
                    Ok(())
                })?;
                runtime.run(WARM, &bundle, "run")
            };
            rows.push(Row::measure("`run` with a seccomp profile like Docker's", self.runtimes, count, seccomp, None)?);
        }
        let etc = self.work.dir.join("rootfs/etc");
        for mounts in [10, 100, 1000] {
            let below = self.work.dir.join("rootfs/tmp");
            (0..mounts).try_for_each(|n| std::fs::create_dir_all(below.join(n.to_string()))).doing("rootfs/tmp")?;
            let more = |n: u32| json!({"destination": format!("/tmp/{n}"), "source": etc, "type": "bind", "options": ["bind", "rprivate"]});
            let run = |runtime: &Runtime| {
                let name = format!("{}-mounts-{mounts}", runtime.number);
                let bundle = self.work.bundle_with(&name, &runtime.spec, &["/bin/true"], |config| {
                    let list = config.pointer_mut("/mounts").and_then(Value::as_array_mut).ok_or("spec: no mounts")?;
                    list.extend((0..mounts).map(more));
                    Ok(())
                })?;
                runtime.run(WARM, &bundle, "run")
            };
            let count = if mounts == 1000 { count / 6 } else { count };
            rows.push(Row::measure(
                format!("`run` with {mounts} more mounts"),
                self.runtimes,
                count.max(1),
                run,
                None,
            )?);
        }
        Ok(Table { title: "What a configuration adds", note: String::new(), rows })
    }

    fn memory(&self) -> Result<Table> {
        say("bench: memory");
        let mut rows = Vec::new();
        let sleepers = self.runtimes.iter().map(|one| one.sleeper(&one.long, "sleep")).collect::<Result<Vec<_>>>()?;
        for (label, words) in [
            ("run", &["run", "--bundle"][..]),
            ("exec", &["exec", "sleep", "/bin/true"]),
            ("state", &["state", "sleep"]),
        ] {
            let mut row = Row::new(format!("peak memory of `{label}`"), "MiB", self.runtimes.len());
            for _ in 0..5 {
                for (runtime, samples) in self.runtimes.iter().zip(&mut row.samples) {
                    let bundle = runtime.short.to_string_lossy();
                    let more: &[&str] = if label == "run" { &[&bundle, "peak"] } else { &[] };
                    let kib = runtime.peak(&[words, more].concat())?;
                    samples.push(f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0);
                }
            }
            rows.push(row);
        }
        drop(sleepers);
        let mut row = Row::new("smallest `memory.limit` that runs `/bin/true`", "KiB", self.runtimes.len());
        for (runtime, samples) in self.runtimes.iter().zip(&mut row.samples) {
            samples.push(f64::from(self.smallest_limit(runtime)?));
        }
        rows.push(row);
        Ok(Table {
            title: "Memory",
            note: "Of the largest process of the command. The limit in steps of 16 KiB, three runs of three."
                .to_owned(),
            rows,
        })
    }

    /// Of `run`, all of its processes together, to the end of the container's program.
    fn counts(&self) -> Result<Table> {
        say("bench: counts");
        let labels =
            ["system calls of `run`", "of these new processes and threads", "of these executions of a program"];
        let mut rows: Vec<Row> = labels.iter().map(|label| Row::new(*label, "", self.runtimes.len())).collect();
        for (n, runtime) in self.runtimes.iter().enumerate() {
            for (row, count) in rows.iter_mut().zip(syscalls::count(self.work, runtime)?) {
                row.samples.get_mut(n).into_iter().for_each(|samples| samples.push(f64::from(count)));
            }
        }
        let note = "By strace(1), which sees those of `/bin/true`, too: 16.";
        Ok(Table { title: "Counts", note: note.to_owned(), rows })
    }

    fn smallest_limit(&self, runtime: &Runtime) -> Result<u32> {
        let (mut fails, mut works) = (2, 1024);
        while works - fails > 1 {
            let steps = u32::midpoint(fails, works);
            let name = format!("{}-limit", runtime.number);
            let bundle = self.work.bundle_with(&name, &runtime.spec, &["/bin/true"], |config| {
                set(config, "/linux/resources/memory", json!({"limit": steps * 16 * 1024})).or_else(|_| {
                    let resources = config.pointer_mut("/linux/resources").and_then(Value::as_object_mut);
                    let resources = resources.ok_or("spec: no resources")?;
                    resources.insert("memory".to_owned(), json!({"limit": steps * 16 * 1024}));
                    Ok(())
                })
            })?;
            if (0..3).all(|_| runtime.run(WARM, &bundle, "limit").is_ok()) { works = steps } else { fails = steps }
        }
        Ok(works * 16)
    }
}
