//! What a cgroup has used: most of what `events` prints. Runs in: parent. Reads files of the cgroup.

mod figures;
mod parse;

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::{Cgroup, Version, read_file};
use crate::error::{Error, Result};
pub(crate) use figures::Stats;
use figures::{Blkio, BlkioEntry, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Throttling};
use parse::{blkio, io_stat, list, number, numbers, psi, table, usage_all};

/// The keys of `cpuset`, and with `cpuset.` before them its files.
const CPUSET_FLAGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

/// The middles of the names of v1's files, and their keys in `blkio`.
const BLKIO_LISTS: [(&str, &str); 8] = [
    ("io_service_bytes", "ioServiceBytesRecursive"),
    ("io_serviced", "ioServicedRecursive"),
    ("io_queued", "ioQueueRecursive"),
    ("io_service_time", "ioServiceTimeRecursive"),
    ("io_wait_time", "ioWaitTimeRecursive"),
    ("io_merged", "ioMergedRecursive"),
    ("time", "ioTimeRecursive"),
    ("sectors", "sectorsRecursive"),
];

impl Cgroup {
    /// Reads all that there is. What the kernel does not have is zero.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let read = |controller: &str, file: &str| {
            let dir = if controller.is_empty() { self.unified() } else { self.dir(controller) };
            read_file(dir.ok_or(Errno::NOENT)?, file)
        };
        let names = self.dir("hugetlb").and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
        let sizes = page_sizes(names.filter_map(|entry| entry.file_name().into_string().ok()));
        gather(self.version, &Files { read: &read }, &sizes)
    }
}

/// The sizes of huge pages: of `hugetlb.2MB.max` it is `2MB`.
fn page_sizes(names: impl Iterator<Item = String>) -> BTreeSet<String> {
    names.filter_map(|name| Some(name.strip_prefix("hugetlb.")?.split('.').next()?.to_owned())).collect()
}

/// The files of a cgroup, by controller and name.
struct Files<'a> {
    read: &'a dyn Fn(&str, &str) -> rustix::io::Result<String>,
}

impl Files<'_> {
    /// None: there is no such file, or it is switched off (`cgroup.pressure`, psi=0).
    fn text(&self, controller: &str, file: &str) -> Result<Option<String>> {
        match (self.read)(controller, file) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::new(format!("read the cgroup's {file}")).errno(errno)),
        }
    }

    fn parse<T>(&self, controller: &str, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.text(controller, file)? else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::new(format!("the cgroup's {file} is not understood: {text:?}"))),
        }
    }

    /// A file of one number; 0 where there is none.
    fn number(&self, controller: &str, file: &str) -> Result<u64> {
        Ok(self.parse(controller, file, number)?.unwrap_or(0))
    }

    /// A file of lines `key number`.
    fn table(&self, controller: &str, file: &str) -> Result<BTreeMap<String, u64>> {
        Ok(self.parse(controller, file, table)?.unwrap_or_default())
    }
}

fn gather(version: Version, files: &Files<'_>, page_sizes: &BTreeSet<String>) -> Result<Stats> {
    let (usage, cpuset, memory, lists) = match version {
        Version::V1 => (cpu_v1(files)?, cpuset_v1(files)?, memory_v1(files)?, blkio_v1(files)?),
        Version::V2 => {
            let lists = files.parse("io", "io.stat", io_stat)?.unwrap_or_default();
            (cpu_v2(files)?, (Vec::new(), Vec::new()), memory_v2(files)?, lists)
        }
    };
    // A hybrid host has it too: the container's processes are also in the unified hierarchy, by which it is counted.
    let psi = |file| files.parse("", file, psi);
    let flag = |name: &'static str| {
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let wanted = version == Version::V1;
        let flag = if wanted { files.parse("cpuset", &format!("cpuset.{name}"), number)? } else { None };
        Ok((name, flag.unwrap_or(0)))
    };
    Ok(Stats {
        cpu: Cpu { psi: psi("cpu.pressure")?, ..usage },
        cpuset: Cpuset {
            cpus: cpuset.0,
            mems: cpuset.1,
            flags: CPUSET_FLAGS.into_iter().map(flag).collect::<Result<_>>()?,
        },
        memory: Memory { psi: psi("memory.pressure")?, ..memory },
        pids: pids(files)?,
        blkio: Blkio { lists, psi: psi("io.pressure")? },
        hugetlb: hugetlb(version, files, page_sizes)?,
    })
}

fn cpu_v1(files: &Files<'_>) -> Result<Cpu> {
    /// Nanoseconds of a tick: USER_HZ is 100 on every architecture that we build for.
    const TICK: u64 = 10_000_000;
    let stat = files.table("cpuacct", "cpuacct.stat")?;
    let throttling = files.table("cpu", "cpu.stat")?;
    let modes = files.parse("cpuacct", "cpuacct.usage_all", usage_all)?.unwrap_or_default();
    let usage = CpuUsage {
        total: files.number("cpuacct", "cpuacct.usage")?,
        percpu: files.parse("cpuacct", "cpuacct.usage_percpu", numbers)?.unwrap_or_default(),
        percpu_kernel: modes.iter().map(|(_, kernel)| *kernel).collect(),
        percpu_user: modes.iter().map(|(user, _)| *user).collect(),
        kernel: value(&stat, "system") * TICK,
        user: value(&stat, "user") * TICK,
    };
    Ok(Cpu { usage, throttling: throttled(&throttling, value(&throttling, "throttled_time")), psi: None })
}

fn cpu_v2(files: &Files<'_>) -> Result<Cpu> {
    let stat = files.table("cpu", "cpu.stat")?;
    let nanoseconds = |key| value(&stat, key) * 1000;
    let usage = CpuUsage {
        total: nanoseconds("usage_usec"),
        kernel: nanoseconds("system_usec"),
        user: nanoseconds("user_usec"),
        ..CpuUsage::default()
    };
    Ok(Cpu { usage, throttling: throttled(&stat, nanoseconds("throttled_usec")), psi: None })
}

fn throttled(stat: &BTreeMap<String, u64>, throttled_time: u64) -> Throttling {
    Throttling { periods: value(stat, "nr_periods"), throttled_periods: value(stat, "nr_throttled"), throttled_time }
}

fn cpuset_v1(files: &Files<'_>) -> Result<(Vec<u16>, Vec<u16>)> {
    let list = |file| Ok(files.parse("cpuset", file, list)?.unwrap_or_default());
    Ok((list("cpuset.cpus")?, list("cpuset.mems")?))
}

fn memory_v1(files: &Files<'_>) -> Result<Memory> {
    let raw = files.table("memory", "memory.stat")?;
    let entry = |prefix| memory_entry(files, prefix, "usage_in_bytes", "max_usage_in_bytes", "limit_in_bytes");
    Ok(Memory {
        cache: value(&raw, "cache"),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

fn memory_v2(files: &Files<'_>) -> Result<Memory> {
    let raw = files.table("memory", "memory.stat")?;
    let usage = memory_entry(files, "memory", "current", "peak", "max")?;
    let swap = memory_entry(files, "memory.swap", "current", "peak", "max")?;
    // v2 counts them apart. The peak of the sum is not known.
    let swap = MemoryEntry {
        limit: swap.limit.saturating_add(usage.limit),
        usage: swap.usage.saturating_add(usage.usage),
        max: 0,
        failcnt: 0,
    };
    Ok(Memory { cache: value(&raw, "file"), usage, swap, raw, ..Memory::default() })
}

fn memory_entry(files: &Files<'_>, prefix: &str, usage: &str, max: &str, limit: &str) -> Result<MemoryEntry> {
    let number = |name| files.number("memory", &format!("{prefix}.{name}"));
    Ok(MemoryEntry { limit: number(limit)?, usage: number(usage)?, max: number(max)?, failcnt: number("failcnt")? })
}

fn pids(files: &Files<'_>) -> Result<Pids> {
    let current = match files.parse("pids", "pids.current", number)? {
        Some(current) => current,
        None => files.parse("", "cgroup.procs", |text| u64::try_from(text.lines().count()).ok())?.unwrap_or(0),
    };
    let limit = files.number("pids", "pids.max")?;
    Ok(Pids { current, limit: if limit == u64::MAX { 0 } else { limit } })
}

/// Of the BFQ scheduler, or else of throttling: the first of them that has counted anything.
fn blkio_v1(files: &Files<'_>) -> Result<BTreeMap<&'static str, Vec<BlkioEntry>>> {
    for (prefix, suffix) in [("bfq", "_recursive"), ("throttle", "_recursive"), ("throttle", "")] {
        let mut lists = BTreeMap::new();
        for (middle, key) in BLKIO_LISTS {
            let list = files.parse("blkio", &format!("blkio.{prefix}.{middle}{suffix}"), blkio)?.unwrap_or_default();
            if !list.is_empty() {
                lists.insert(key, list);
            }
        }
        if !lists.is_empty() {
            return Ok(lists);
        }
    }
    Ok(BTreeMap::new())
}

fn hugetlb(version: Version, files: &Files<'_>, sizes: &BTreeSet<String>) -> Result<BTreeMap<String, Hugetlb>> {
    let usage_file = if version == Version::V1 { "usage_in_bytes" } else { "current" };
    let mut found = BTreeMap::new();
    for size in sizes {
        // Reservations count where the kernel knows them (Linux 5.7): a process dies of what it cannot reserve.
        let reserved = format!("hugetlb.{size}.rsvd");
        let reserved_usage = files.parse("hugetlb", &format!("{reserved}.{usage_file}"), number)?;
        let prefix = if reserved_usage.is_some() { reserved } else { format!("hugetlb.{size}") };
        let usage = match reserved_usage {
            Some(usage) => usage,
            None => files.number("hugetlb", &format!("{prefix}.{usage_file}"))?,
        };
        let (max, failcnt) = match version {
            Version::V1 => (
                files.number("hugetlb", &format!("{prefix}.max_usage_in_bytes"))?,
                files.number("hugetlb", &format!("{prefix}.failcnt"))?,
            ),
            Version::V2 => (0, value(&files.table("hugetlb", &format!("hugetlb.{size}.events"))?, "max")),
        };
        found.insert(size.clone(), Hugetlb { usage, max, failcnt });
    }
    Ok(found)
}

fn value(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
