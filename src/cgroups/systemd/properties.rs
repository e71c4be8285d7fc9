//! What systemd is told of a unit: names, slices, and the settings that it has words for. Pure.
//!
//! systemd writes its own idea of these files whenever it feels like it (`systemctl daemon-reload`, `set-property`): what it
//! is not told, it would take back. All else in the cgroup it leaves to us (`Delegate=`).

use crate::cgroups::Version;
use crate::cgroups::devices::{self, Rule};
use crate::cgroups::settings::Setting;
use crate::dbus::Value;
use crate::error::{Error, Result};

/// A property of a unit: name and value.
pub(crate) type Property = (String, Value);

/// The annotation that asks for a property.
pub(super) fn annotation(name: &str) -> String {
    format!("annotations[\"org.systemd.property.{name}\"]")
}

/// What a unit is called, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) unit: String,
    pub(crate) slice: String,
}

/// `linux.cgroupsPath` for systemd: `slice:prefix:name`, as runc has it. Without one it is `:runtime:<id>`.
pub(crate) fn name(cgroups_path: Option<&str>, id: &str, default_slice: &str) -> Result<Name> {
    let refused = |text: String| Error::at("linux.cgroupsPath", text);
    let default = format!(":runtime:{id}");
    let path = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(&default);
    let parts: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else {
        let text = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got";
        return Err(refused(format!("{text} {path:?} instead")).hint("for example system.slice:runtime:c1"));
    };
    let unit = match (name.ends_with(".slice"), prefix.is_empty()) {
        (true, _) => (*name).to_owned(),
        (false, true) => format!("{name}.scope"),
        (false, false) => format!("{prefix}-{name}.scope"),
    };
    // systemd.unit(5): what a name may hold; the kernel's limit of a file name is systemd's as well.
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.is_empty() || unit == "-.slice" || unit.len() > 255 || !unit.chars().all(allowed) {
        return Err(refused(format!("{unit:?} is not the name of a systemd unit")));
    }
    let slice = match *slice {
        "" => default_slice,
        "-" => "-.slice",
        slice => slice,
    };
    expand(slice)?;
    Ok(Name { unit, slice: slice.to_owned() })
}

/// The path of a slice: `a-b.slice` is `a.slice/a-b.slice` (systemd.slice(5)).
pub(crate) fn expand(slice: &str) -> Result<String> {
    let invalid = || Error::at("linux.cgroupsPath", format!("invalid slice name: {slice:?}"));
    let name =
        slice.strip_suffix(".slice").filter(|name| !name.is_empty() && !name.contains('/')).ok_or_else(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut above = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        above.push_str(part);
        path.push_str(&format!("{above}.slice/"));
        above.push('-');
    }
    Ok(path)
}

/// What does not depend on the limits.
pub(crate) fn of_unit(name: &Name, version: Version, pid: u32) -> Vec<Property> {
    let string = |text: &str| Value::Str(text.to_owned());
    let io = if version == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut properties = vec![("Description".to_owned(), string(&format!("runtime container {}", name.unit)))];
    let mut set = |name: &str, value| properties.push((name.to_owned(), value));
    if name.unit.ends_with(".slice") {
        // A slice stands where its name says, and can be given no processes: they are put there by us.
        set("Wants", Value::strings([name.slice.as_str()]));
    } else {
        set("Slice", string(&name.slice));
        set("Delegate", Value::Bool(true));
        set("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid)]));
    }
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        set(accounting, Value::Bool(true));
    }
    set("DefaultDependencies", Value::Bool(false));
    properties
}

/// Words that came after others (systemd's NEWS): an older systemd would refuse the unit for them. The files alone are
/// written there.
const SINCE: [(&str, u32); 6] = [
    ("CPUQuotaPeriodUSec", 242),
    ("AllowedCPUs", 244),
    ("AllowedMemoryNodes", 244),
    ("MemoryZSwapMax", 253),
    ("OOMPolicy", 253),
    ("MemoryZSwapWriteback", 256),
];

/// The settings that systemd has words for. `current` is the text of a file: v1 has quota and period in two of them, and
/// systemd wants both. `version` of systemd is asked for only where it matters.
pub(crate) fn of_settings(
    settings: &[Setting],
    current: &dyn Fn(&str) -> Option<String>,
    version: &mut dyn FnMut() -> u32,
) -> Vec<Property> {
    let mut known = None;
    let mut version = || *known.get_or_insert_with(&mut *version);
    let mut properties: Vec<Property> = Vec::new();
    for setting in settings {
        let value = setting.value.trim();
        let number = || limit(value).map(Value::U64);
        let found = |name: &str, value: Option<Value>| value.map(|value| (name.to_owned(), value));
        match setting.file.as_ref() {
            "memory.max" => properties.extend(found("MemoryMax", number())),
            "memory.high" => properties.extend(found("MemoryHigh", number())),
            "memory.low" => properties.extend(found("MemoryLow", number())),
            "memory.min" => properties.extend(found("MemoryMin", number())),
            "memory.swap.max" => properties.extend(found("MemorySwapMax", number())),
            "memory.zswap.max" => properties.extend(found("MemoryZSwapMax", number())),
            "memory.zswap.writeback" => {
                properties.push(("MemoryZSwapWriteback".to_owned(), Value::Bool(value == "1")));
            }
            "memory.limit_in_bytes" => properties.extend(found("MemoryLimit", number())),
            "memory.oom.group" => {
                let policy = if value == "1" { "kill" } else { "continue" };
                properties.push(("OOMPolicy".to_owned(), Value::Str(policy.to_owned())));
            }
            "pids.max" => properties.extend(found("TasksMax", number())),
            "cpu.weight" => properties.extend(found("CPUWeight", number())),
            // The weight of an idle cgroup.
            "cpu.idle" if value == "1" && version() >= 252 => {
                properties.push(("CPUWeight".to_owned(), Value::U64(0)));
            }
            // Idle no more: the weight that is in force again.
            "cpu.idle" if value == "0" => {
                let weight = current("cpu.weight").and_then(|text| limit(text.trim())).filter(|weight| *weight > 0);
                properties.extend(found("CPUWeight", weight.map(Value::U64)));
            }
            "cpu.shares" => properties.extend(found("CPUShares", number())),
            "cpu.max" => {
                let now = current("cpu.max");
                let period = value.split_whitespace().nth(1).or_else(|| now.as_deref()?.split_whitespace().nth(1));
                properties.extend(quota(value.split_whitespace().next(), period));
            }
            "cpu.cfs_quota_us" => {
                let period = of(settings, "cpu.cfs_period_us").or_else(|| current("cpu.cfs_period_us"));
                properties.extend(quota(Some(value), period.as_deref().map(str::trim)));
            }
            // With a quota it is there.
            "cpu.cfs_period_us" if of(settings, "cpu.cfs_quota_us").is_none() => {
                let quota_now = current("cpu.cfs_quota_us");
                properties.extend(quota(quota_now.as_deref().map(str::trim), Some(value)));
            }
            "io.weight" | "blkio.weight" => {
                let name = if setting.file.starts_with("io") { "IOWeight" } else { "BlockIOWeight" };
                let weight = value.strip_prefix("default ").unwrap_or(value);
                properties.extend(found(name, limit(weight).map(Value::U64)));
            }
            "cpuset.cpus" => properties.extend(found("AllowedCPUs", bitmask(value))),
            "cpuset.mems" => properties.extend(found("AllowedMemoryNodes", bitmask(value))),
            _ => {}
        }
    }
    properties.retain(|(name, _)| SINCE.iter().all(|(newer, since)| name != newer || version() >= *since));
    // Of two that say the same, the later one wins, as with the files.
    let mut last: Vec<Property> = Vec::new();
    for property in properties {
        last.retain(|(name, _)| *name != property.0);
        last.push(property);
    }
    last
}

fn of(settings: &[Setting], file: &str) -> Option<String> {
    settings.iter().rev().find(|setting| setting.file == file).map(|setting| setting.value.trim().to_owned())
}

/// A number, with a suffix of the kernel's memparse (K, M, G, ...); or no limit, which is `max` or -1 for the kernel and all
/// bits for systemd.
fn limit(text: &str) -> Option<u64> {
    if text == "max" || text == "-1" {
        return Some(u64::MAX);
    }
    let (digits, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match suffix {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// systemd counts a quota by the second of time, in steps of 10 ms, and would cut the rest off.
fn quota(quota: Option<&str>, period: Option<&str>) -> Vec<Property> {
    const STEP: u64 = 10_000;
    let period = period.and_then(|period| period.parse::<u64>().ok()).filter(|period| *period > 0);
    let per_second = match quota.and_then(limit) {
        Some(u64::MAX) => Some(u64::MAX),
        Some(quota) => quota
            .checked_mul(1_000_000)
            .and_then(|quota| quota.checked_div(period.unwrap_or(100_000)))
            .and_then(|quota| quota.checked_next_multiple_of(STEP)),
        None => None,
    };
    let property = |name: &str, value: Option<u64>| value.map(|value| (name.to_owned(), Value::U64(value)));
    [property("CPUQuotaPerSecUSec", per_second), property("CPUQuotaPeriodUSec", period)].into_iter().flatten().collect()
}

/// `0-2,5` as the bytes of a mask, the lowest bits first. `0-7:2/4` are the first 2 of each 4 (cpuset(7), List format).
fn bitmask(list: &str) -> Option<Value> {
    // More processors than any kernel has: the list is not yet checked by one.
    const MOST: usize = 1 << 16;
    let mut mask: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (range, stride) = range.split_once(':').map_or((range, None), |(range, stride)| (range, Some(stride)));
        let (used, group) = stride.map_or(Some(("1", "1")), |stride| stride.split_once('/'))?;
        let (used, group): (usize, usize) = (used.parse().ok()?, group.parse().ok().filter(|group| *group > 0)?);
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        for bit in (first..=last).filter(|bit| (bit - first) % group < used) {
            mask.resize(mask.len().max(bit / 8 + 1), 0);
            *mask.get_mut(bit / 8)? |= 1 << (bit % 8);
        }
    }
    Some(Value::Array("y".to_owned(), mask.into_iter().map(Value::Byte).collect()))
}

/// The device rules, where systemd can say them: it knows lists of what is allowed. Where it cannot, its own program allows
/// everything, and only ours decides.
pub(crate) fn of_devices(rules: &[Rule]) -> Vec<Property> {
    let entries = devices::allowed(rules).and_then(|allowed| {
        let entry = |((kind, major, minor), access)| {
            Some(Value::Struct(vec![Value::Str(node(kind, major, minor)?), Value::Str(access)]))
        };
        allowed.into_iter().map(entry).collect::<Option<Vec<_>>>()
    });
    let policy = if entries.is_some() { "strict" } else { "auto" };
    let entries = entries.unwrap_or_default();
    let list = |entries| ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), entries));
    // An empty list takes away what was there; others are added.
    let mut properties = vec![("DevicePolicy".to_owned(), Value::Str(policy.to_owned())), list(Vec::new())];
    if !entries.is_empty() {
        properties.push(list(entries));
    }
    properties
}

/// systemd.resource-control(5), DeviceAllow=. A minor number of any major has no name there.
fn node(kind: devices::Kind, major: Option<u32>, minor: Option<u32>) -> Option<String> {
    let kind = if kind == devices::Kind::Block { "block" } else { "char" };
    match (major, minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests;
