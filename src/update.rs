//! `update`: other limits for a container that exists. Runs in: parent.
//!
//! The limits are what the cgroup's files say: only of device rules, which cannot be read back, a list is kept.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources};

use crate::cgroups::devices;
use crate::error::{Error, Result};
use crate::host;
use crate::logging::Log;
use crate::plan;
use crate::spec;
use crate::state::{Container, Record, Root, Status};

/// What `update` is asked for.
pub(crate) struct Request {
    pub(crate) id: String,
    /// A file with `linux.resources`, or `-`; then `limits` do not count.
    pub(crate) resources: Option<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) l3_cache_schema: Option<String>,
    pub(crate) mem_bw_schema: Option<String>,
    /// Devices that become allowed, as `TYPE:MAJOR:MINOR[:ACCESS]`.
    pub(crate) device_add: Vec<String>,
    /// Devices that become forbidden.
    pub(crate) device_rm: Vec<String>,
    /// Options given that do nothing.
    pub(crate) obsolete: Vec<&'static str>,
}

/// The options that each have one limit, as they are on the command line.
#[derive(Default, PartialEq)]
pub(crate) struct Limits {
    pub(crate) blkio_weight: Option<u16>,
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_burst: Option<u64>,
    pub(crate) cpu_share: Option<u64>,
    pub(crate) cpu_idle: Option<i64>,
    pub(crate) cpu_rt_period: Option<u64>,
    pub(crate) cpu_rt_runtime: Option<i64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) memory: Option<String>,
    pub(crate) memory_reservation: Option<String>,
    pub(crate) memory_swap: Option<String>,
    pub(crate) pids_limit: Option<i64>,
}

/// `update ID`.
pub(crate) fn update(root: &Root, request: Request, log: &Log) -> Result<()> {
    let proc = host::open_proc()?;
    let container = root.find(&request.id)?;
    for option in &request.obsolete {
        log.warning(&format!("Setting {option} is ignored and will be removed"));
    }
    if request.resources.is_some() && request.limits != Limits::default() {
        log.warning("--resources takes the place of all other limits, which are ignored");
    }
    let changes = changes(&request)?;
    let resources = match &request.resources {
        Some(source) => spec::load_resources(source)?,
        None => request.limits.resources()?,
    };
    let mut warnings = Vec::new();
    let (l3, bandwidth) = (request.l3_cache_schema.as_deref(), request.mem_bw_schema.as_deref());
    let schemata = plan::rdt::update(l3, bandwidth, &mut warnings)?;
    warnings.iter().for_each(|warning| log.warning(warning));
    container.lock()?;
    let (status, _) = container.status(&proc)?;
    let record = container.record()?.filter(|_| status != Status::Stopped);
    let record = record.ok_or_else(|| Error::new("container not running"))?;
    let devices = || change_devices(&container, record, &changes);
    record.cgroup.update(&resources, || match (schemata.first(), &record.rdt) {
        (None, _) => devices(),
        (Some(_), Some(groups)) => groups.update(&schemata, devices),
        (Some(line), None) => Err(Error::at(&line.field, "the container has no class of service of resctrl")
            .hint("it gets one at create, by linux.intelRdt in config.json")),
    })
}

/// What is removed first, so that what is added wins.
fn changes(request: &Request) -> Result<Vec<LinuxDeviceCgroup>> {
    let removed = request.device_rm.iter().map(|text| (false, text));
    let added = request.device_add.iter().map(|text| (true, text));
    removed.chain(added).map(|(allow, text)| devices::change(allow, text)).collect()
}

/// The file first: it can be put back if the kernel refuses, and without it the rules would be lost at the next update.
fn change_devices(container: &Container, record: &Record, changes: &[LinuxDeviceCgroup]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let spec = spec::parse(&container.config()?)?.spec;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let before = container.devices()?;
    let after = devices::merged(&before, changes);
    let (old, new) = (devices::changed_rules(resources, &before)?, devices::changed_rules(resources, &after)?);
    container.write_devices(&after)?;
    record.cgroup.change_devices(&old, &new).map_err(|error| match container.write_devices(&before) {
        Ok(()) => error,
        Err(failure) => error.undo(&failure),
    })
}

impl Limits {
    /// As they would stand in a file.
    fn resources(self) -> Result<LinuxResources> {
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_share)
            .set_quota(self.cpu_quota)
            .set_period(self.cpu_period)
            .set_burst(self.cpu_burst)
            .set_idle(self.cpu_idle)
            .set_realtime_period(self.cpu_rt_period)
            .set_realtime_runtime(self.cpu_rt_runtime)
            .set_cpus(self.cpuset_cpus)
            .set_mems(self.cpuset_mems);
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(bytes("--memory", self.memory)?)
            .set_reservation(bytes("--memory-reservation", self.memory_reservation)?)
            .set_swap(bytes("--memory-swap", self.memory_swap)?);
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(self.blkio_weight);
        let pids = self.pids_limit.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        });
        let mut resources = LinuxResources::default();
        resources.set_cpu(Some(cpu)).set_memory(Some(memory)).set_block_io(Some(block_io)).set_pids(pids);
        Ok(resources)
    }
}

/// `512M`, `1.5g`, `100 KiB`, `1024`: in powers of 1024, as runc and Docker; and `-1`.
fn bytes(option: &str, text: Option<String>) -> Result<Option<i64>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(-1));
    }
    let invalid =
        || Error::at(option, format!("invalid size: {text:?}")).hint("for example 1073741824, 512M, 1.5g or -1");
    parse(&text).map(Some).ok_or_else(invalid)
}

fn parse(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.starts_with('i') => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Of more digits than these not one makes a byte.
    let fraction = fraction.get(..15).unwrap_or(fraction);
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    i64::try_from(digits.checked_mul(1 << shift)?.div_euclid(divisor)).ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("7b", 7),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.0001k", 0),
            ("100 kb", 100 << 10),
            ("2T", 2 << 40),
            ("1P", 1 << 50),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "-2", "M", ".", "1.2.3", "1x", "1mm", "1ib", "1 m b", "9223372036854775808", "8192P", "+1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
