//! `linux.resources` to writes of cgroup files: every limit, unit and conversion of both versions is here.
//!
//! Runs in: parent (pure: no file, no system call). Conversions, order and texts are those of runc; a value that runc
//! takes for "not set" (mostly 0) makes no setting, so that callers may send it for controllers that the host lacks.
//! Ignored, as in runc: kernel memory (by the kernel as well, since 5.16) and useHierarchy. Refused on v2, not as in runc,
//! which ignores it: what v2 does not have (config-linux.md, Unified: what cannot be converted is an error).

use crate::error::{Error, Result};
use crate::spec::by_name;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use std::borrow::Cow;

mod block_io;
#[cfg(test)]
mod tests;
mod update;

pub(crate) use update::{update, ways_back};

/// One write(2) to one file, to be made in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// v1: the name of the hierarchy (`cpu`, `net_cls`). v2: the controller (`io`), or `cgroup`.
    pub(crate) controller: Cow<'static, str>,
    /// The file's name, without a slash.
    pub(crate) file: Cow<'static, str>,
    /// What is written.
    pub(crate) value: String,
    /// The field of config.json, for errors.
    pub(crate) field: String,
    /// A (file, value) to write in place of this one where `file` does not exist (ENOENT).
    pub(crate) or: Option<(Cow<'static, str>, String)>,
    /// Nothing is lost where the controller or its files do not exist.
    pub(crate) optional: bool,
    /// The kernel may refuse it (EINVAL) because of a value that a later setting of the same controller changes: then
    /// it is to be written again after them.
    pub(crate) retry: bool,
}

impl Setting {
    fn new(file: impl Into<Cow<'static, str>>, value: impl ToString, field: impl Into<String>) -> Self {
        let file = file.into();
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        Self {
            controller: controller.into(),
            file,
            value: value.to_string(),
            field: field.into(),
            or: None,
            optional: false,
            retry: false,
        }
    }

    fn or(self, file: &'static str, value: impl ToString) -> Self {
        Self { or: Some((file.into(), value.to_string())), ..self }
    }

    fn optional(self, optional: bool) -> Self {
        Self { optional, ..self }
    }

    fn retry(self) -> Self {
        Self { retry: true, ..self }
    }
}

/// The settings for cgroup v1.
pub(crate) fn v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    if let Some(key) = resources.unified().iter().flat_map(|unified| unified.keys()).min() {
        let text = format!("{key:?}: invalid configuration: cannot use unified on cgroup v1");
        return Err(Error::at("linux.resources.unified", text));
    }
    let mut settings = Vec::new();
    if let Some(cpu) = resources.cpu() {
        settings.extend(cpuset(cpu)?);
    }
    if let Some(memory) = resources.memory() {
        memory_v1(memory, &mut settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        check_burst(cpu)?;
        cpu_v1(cpu, &mut settings)?;
    }
    settings.extend(pids(resources));
    if let Some(io) = resources.block_io() {
        block_io::v1(io, &mut settings)?;
    }
    hugetlb(resources, "limit_in_bytes", &mut settings)?;
    network(resources, &mut settings)?;
    rdma(resources, &mut settings)?;
    Ok(settings)
}

/// The settings for cgroup v2. `unified` comes last, so that it wins.
pub(crate) fn v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    refuse_what_v1_alone_has(resources)?;
    let mut settings = Vec::new();
    settings.extend(pids(resources));
    if let Some(memory) = resources.memory() {
        memory_v2(memory, &mut settings)?;
    }
    if let Some(io) = resources.block_io() {
        block_io::v2(io, &mut settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        check_burst(cpu)?;
        cpu_v2(cpu, &mut settings);
    }
    if let Some(cpu) = resources.cpu() {
        settings.extend(cpuset(cpu)?);
    }
    hugetlb(resources, "max", &mut settings)?;
    rdma(resources, &mut settings)?;
    unified(resources, &mut settings)?;
    Ok(settings)
}

fn refuse_what_v1_alone_has(resources: &LinuxResources) -> Result<()> {
    let memory = resources.memory().as_ref();
    let (cpu, network) = (resources.cpu().as_ref(), resources.network().as_ref());
    let io = resources.block_io().as_ref();
    let leaf = |io: &LinuxBlockIo| {
        let devices = io.weight_device().iter().flatten();
        set(io.leaf_weight()).is_some() || devices.into_iter().any(|device| set(device.leaf_weight()).is_some())
    };
    let present = [
        ("memory.kernelTCP", memory.is_some_and(|memory| !matches!(memory.kernel_tcp(), None | Some(0 | -1)))),
        ("memory.disableOOMKiller", memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true))),
        // 0 is a value here; all bits set is runc's "not set".
        ("memory.swappiness", memory.is_some_and(|memory| !matches!(memory.swappiness(), None | Some(u64::MAX)))),
        ("cpu.realtimePeriod", cpu.is_some_and(|cpu| set(cpu.realtime_period()).is_some())),
        ("cpu.realtimeRuntime", cpu.is_some_and(|cpu| set(cpu.realtime_runtime()).is_some())),
        ("blockIO.leafWeight", io.is_some_and(leaf)),
        ("network.classID", network.is_some_and(|network| set(network.class_id()).is_some())),
        (
            "network.priorities",
            network.is_some_and(|network| network.priorities().as_ref().is_some_and(|list| !list.is_empty())),
        ),
    ];
    match present.into_iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(Error::at(format!("linux.resources.{field}"), "cgroup v2 has no such setting")),
        None => Ok(()),
    }
}

fn set<T: PartialEq + Default>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// The kernel reads a list up to the end of the line, and says nothing of the rest.
fn cpuset(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let named = [("cpuset.cpus", "cpus", cpu.cpus()), ("cpuset.mems", "mems", cpu.mems())].into_iter();
    let given =
        named.filter_map(|(file, field, value)| Some((file, field, value.as_deref().filter(|v| !v.is_empty())?)));
    let setting = |(file, field, value): (_, &str, &str)| {
        let field = format!("linux.resources.cpu.{field}");
        match value.contains('\n') {
            true => Err(Error::at(field, format!("{value:?} is more than one line"))),
            false => Ok(Setting::new(file, value, field)),
        }
    };
    given.map(setting).collect()
}

/// A limit in bytes: `None` for 0, which means "not set"; -1 is "no limit".
fn bytes(value: Option<i64>, name: &str) -> Result<Option<i64>> {
    match set(value) {
        Some(value) if value < -1 => {
            Err(Error::at(format!("linux.resources.memory.{name}"), format!("invalid memory value: {value}")))
        }
        value => Ok(value),
    }
}

fn memory_v1(memory: &LinuxMemory, settings: &mut Vec<Setting>) -> Result<()> {
    let field = |name| format!("linux.resources.memory.{name}");
    let limit = bytes(memory.limit(), "limit")?;
    let swap = bytes(memory.swap(), "swap")?;
    // The kernel keeps limit <= memsw.limit. A new group has no memsw limit, so that the limit comes first; in an
    // update that raises both, the limit is refused at first and has its second turn.
    settings.extend(limit.map(|limit| Setting::new("memory.limit_in_bytes", limit, field("limit")).retry()));
    let memsw = |swap, field| Setting::new("memory.memsw.limit_in_bytes", swap, field).optional(swap == -1);
    match (limit, swap) {
        // No limit of memory means no limit of swap, where the kernel accounts for it.
        (Some(-1), None) => settings.push(memsw(-1, field("limit"))),
        (_, Some(swap)) => settings.push(memsw(swap, field("swap"))),
        (_, None) => {}
    }
    let soft = bytes(memory.reservation(), "reservation")?;
    settings.extend(soft.map(|soft| Setting::new("memory.soft_limit_in_bytes", soft, field("reservation"))));
    let tcp = bytes(memory.kernel_tcp(), "kernelTCP")?;
    let tcp =
        tcp.map(|tcp| Setting::new("memory.kmem.tcp.limit_in_bytes", tcp, field("kernelTCP")).optional(tcp == -1));
    settings.extend(tcp);
    if memory.disable_oom_killer() == Some(true) {
        settings.push(Setting::new("memory.oom_control", 1, field("disableOOMKiller")));
    }
    match memory.swappiness() {
        // -1 in 64 bits: not set.
        None | Some(u64::MAX) => {}
        Some(swappiness @ 0..=100) => {
            settings.push(Setting::new("memory.swappiness", swappiness, field("swappiness")));
        }
        Some(swappiness) => {
            let text = format!("invalid memory swappiness value: {swappiness} (valid range is 0-100)");
            return Err(Error::at(field("swappiness"), text));
        }
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, settings: &mut Vec<Setting>) -> Result<()> {
    let field = |name| format!("linux.resources.memory.{name}");
    let max = |value: i64| if value == -1 { "max".to_owned() } else { value.to_string() };
    let limit = bytes(memory.limit(), "limit")?;
    if let Some(swap) = swap_v2(limit, bytes(memory.swap(), "swap")?)? {
        let of = if memory.swap().is_none() { "limit" } else { "swap" };
        // Without swap in the kernel there is nothing to limit or to free from limits.
        let setting = Setting::new("memory.swap.max", max(swap), field(of));
        settings.push(setting.optional(swap <= 0));
    }
    settings.extend(limit.map(|limit| Setting::new("memory.max", max(limit), field("limit")).optional(limit == -1)));
    let low = bytes(memory.reservation(), "reservation")?;
    settings.extend(low.map(|low| Setting::new("memory.low", max(low), field("reservation"))));
    Ok(())
}

/// config.json counts memory and swap together, v2 swap alone. -1: no limit.
fn swap_v2(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>> {
    let refused = |text: String| Err(Error::at("linux.resources.memory.swap", text));
    match (limit, swap) {
        (Some(-1), None) | (_, Some(-1)) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (Some(-1), Some(swap)) => Ok(Some(swap)),
        (None, Some(swap)) => refused(format!("{swap}: unable to set swap limit without memory limit")),
        (Some(limit), Some(swap)) if swap < limit => {
            refused(format!("{swap}: memory+swap limit should be >= memory limit, which is {limit}"))
        }
        (Some(limit), Some(swap)) => Ok(Some(swap.saturating_sub(limit))),
    }
}

/// The kernel's `MIN_SHARES` and `MAX_SHARES` (kernel/sched/sched.h): v1 cuts other values down to these.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// As the kernel has it, but by name: the quota's write, which comes first or last, would get the blame.
fn check_burst(cpu: &LinuxCpu) -> Result<()> {
    match (cpu.burst(), cpu.quota().and_then(|quota| u64::try_from(quota).ok()).and_then(|quota| set(Some(quota)))) {
        (Some(burst), Some(quota)) if burst > quota => {
            Err(Error::at("linux.resources.cpu.burst", format!("{burst} is more than the quota {quota}")))
        }
        _ => Ok(()),
    }
}

/// The kernel takes no shares of a cgroup that is idle, as one may be that was there before or gets an update; and forgets
/// them when it is so no more.
fn shares_and_idle(shares: Option<Setting>, idle: Option<i64>, settings: &mut Vec<Setting>) {
    let write = |idle| Setting::new("cpu.idle", idle, "linux.resources.cpu.idle").optional(idle == 0);
    let first = idle.filter(|idle| shares.is_some() || *idle == 0).map(|_| 0);
    settings.extend(first.map(write));
    settings.extend(shares);
    settings.extend(idle.filter(|idle| *idle != 0).map(write));
}

fn cpu_v1(cpu: &LinuxCpu, settings: &mut Vec<Setting>) -> Result<()> {
    let field = |name| format!("linux.resources.cpu.{name}");
    if let Some(shares) = set(cpu.shares()) {
        if shares > *SHARES.end() {
            return Err(Error::at(field("shares"), format!("the maximum allowed cpu-shares is {}", SHARES.end())));
        }
        if shares < *SHARES.start() {
            return Err(Error::at(field("shares"), format!("the minimum allowed cpu-shares is {}", SHARES.start())));
        }
    }
    let shares = set(cpu.shares()).map(|shares| Setting::new("cpu.shares", shares, field("shares")));
    shares_and_idle(shares, cpu.idle(), settings);
    // Period and burst may be refused because of the quota that is there before this one.
    settings.extend(set(cpu.period()).map(|us| Setting::new("cpu.cfs_period_us", us, field("period")).retry()));
    let burst = cpu.burst().map(|us| Setting::new("cpu.cfs_burst_us", us, field("burst")).optional(true).retry());
    settings.extend(burst);
    settings.extend(set(cpu.quota()).map(|us| Setting::new("cpu.cfs_quota_us", us, field("quota"))));
    let period = set(cpu.realtime_period());
    settings.extend(period.map(|us| Setting::new("cpu.rt_period_us", us, field("realtimePeriod")).retry()));
    let runtime = set(cpu.realtime_runtime());
    settings.extend(runtime.map(|us| Setting::new("cpu.rt_runtime_us", us, field("realtimeRuntime"))));
    Ok(())
}

/// The kernel's default period in microseconds.
const PERIOD: u64 = 100_000;

fn cpu_v2(cpu: &LinuxCpu, settings: &mut Vec<Setting>) {
    let field = |name| format!("linux.resources.cpu.{name}");
    let weight = set(cpu.shares()).map(cpu_weight);
    let weight = weight.map(|weight| Setting::new("cpu.weight", weight, field("shares")));
    shares_and_idle(weight, cpu.idle(), settings);
    let burst = cpu.burst().map(|us| Setting::new("cpu.max.burst", us, field("burst")).optional(us == 0).retry());
    settings.extend(burst);
    let (quota, period) = (set(cpu.quota()), set(cpu.period()));
    if quota.is_some() || period.is_some() {
        let limit = quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let value = format!("{limit} {}", period.unwrap_or(PERIOD));
        let of = if quota.is_some() { "quota" } else { "period" };
        settings.push(Setting::new("cpu.max", value, field(of)).optional(limit == "max"));
    }
}

/// Shares (2 to 262144, by default 1024) to weight (1 to 10000, by default 100): the curve through these three points
/// that runc and crun agreed on.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and 10000"
)]
fn cpu_weight(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return 1;
    }
    if shares >= *SHARES.end() {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

fn pids(resources: &LinuxResources) -> Option<Setting> {
    let limit = resources.pids().as_ref()?.limit();
    // systemd does not take 0, and one process is as few as there can be.
    let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
    Some(Setting::new("pids.max", value, "linux.resources.pids.limit").optional(limit < 0))
}

fn hugetlb(resources: &LinuxResources, suffix: &str, settings: &mut Vec<Setting>) -> Result<()> {
    for (i, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{i}]");
        let size = limit.page_size();
        // It becomes part of a file name.
        let digits = size.trim_start_matches(|c: char| c.is_ascii_digit());
        if digits.len() == size.len() || size.starts_with('0') || !["KB", "MB", "GB"].contains(&digits) {
            let text = format!("{size:?} is not a page size, expected for example \"2MB\"");
            return Err(Error::at(format!("{field}.pageSize"), text));
        }
        let bytes = limit.limit();
        let field = format!("{field}.limit");
        if bytes < 0 {
            return Err(Error::at(field, format!("expected a number of bytes, found {bytes}")));
        }
        settings.push(Setting::new(format!("hugetlb.{size}.{suffix}"), bytes, field.clone()));
        // Pages count against this one when they are reserved, not first when they are touched; since Linux 5.7.
        settings.push(Setting::new(format!("hugetlb.{size}.rsvd.{suffix}"), bytes, field).optional(true));
    }
    Ok(())
}

fn network(resources: &LinuxResources, settings: &mut Vec<Setting>) -> Result<()> {
    let Some(network) = resources.network() else { return Ok(()) };
    let class = set(network.class_id());
    settings.extend(class.map(|class| Setting::new("net_cls.classid", class, "linux.resources.network.classID")));
    for (i, spec) in network.priorities().iter().flatten().enumerate() {
        let field = format!("linux.resources.network.priorities[{i}]");
        word(&format!("{field}.name"), spec.name())?;
        settings.push(Setting::new("net_prio.ifpriomap", format!("{} {}", spec.name(), spec.priority()), field));
    }
    Ok(())
}

fn rdma(resources: &LinuxResources, settings: &mut Vec<Setting>) -> Result<()> {
    for (device, limits) in by_name(resources.rdma()) {
        let field = format!("linux.resources.rdma[{device:?}]");
        word(&field, device)?;
        let limits = [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())].into_iter();
        let limits: Vec<String> = limits.filter_map(|(key, limit)| Some(format!(" {key}={}", limit?))).collect();
        if limits.is_empty() {
            return Err(Error::at(field, "expected hcaHandles or hcaObjects"));
        }
        settings.push(Setting::new("rdma.max", format!("{device}{}", limits.concat()), field));
    }
    Ok(())
}

/// A name that starts a line of a cgroup file must not become more than one word of it.
fn word(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::at(field, format!("{name:?} is not a device name")));
    }
    Ok(())
}

/// Files that say what the cgroup is, who is in it and whether it runs. The first two would take in processes of the host,
/// which would die with the container.
const NO_LIMITS: [&str; 6] =
    ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control"];

fn unified(resources: &LinuxResources, settings: &mut Vec<Setting>) -> Result<()> {
    for (file, value) in by_name(resources.unified()) {
        let field = format!("linux.resources.unified[{file:?}]");
        if file.contains('/') {
            return Err(Error::at(field, format!("unified resource {file:?} must be a file name (no slashes)")));
        }
        let parts =
            file.split_once('.').filter(|(controller, parameter)| !controller.is_empty() && !parameter.is_empty());
        if parts.is_none() || file.contains('\0') {
            let text = format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
            return Err(Error::at(field, text));
        }
        if NO_LIMITS.contains(&file.as_str()) {
            return Err(Error::at(field, format!("unified resource {file:?} is not a limit")));
        }
        // Files with a line for each device take one line in a write.
        let lines = value.split_inclusive('\n').map(|line| Setting::new(file.clone(), line, field.clone()));
        settings.extend(lines);
        if value.is_empty() {
            settings.push(Setting::new(file.clone(), "", field));
        }
    }
    Ok(())
}
