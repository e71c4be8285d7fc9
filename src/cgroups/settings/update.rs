//! What an update needs beyond the settings of a new cgroup: values that v2 can only write together with others, the
//! order in which old and new ones may stand side by side, and the way back. Pure: `current` gives the files' texts.

use super::{Setting, set, v1, v2};
use crate::cgroups::Version;
use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

/// A file's text, where there is such a file and it can be read.
pub(crate) type Current<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The settings for a container that exists. Devices are not among them.
pub(crate) fn update(version: Version, resources: &LinuxResources, current: Current<'_>) -> Result<Vec<Setting>> {
    let mut resources = resources.clone();
    // As runc, unlike in config.json: its callers send all that they know of, and 0 for what they do not want to change.
    if resources.pids().is_some_and(|pids| pids.limit() == 0) {
        resources.set_pids(None);
    }
    if version == Version::V1 {
        return v1(&resources);
    }
    if let Some(memory) = resources.memory_mut() {
        check_usage(memory, current)?;
        complete(memory, current);
    }
    let mut settings = v2(&resources)?;
    if let Some(cpu) = resources.cpu() {
        keep_half_of_cpu_max(cpu, &mut settings, current);
    }
    lower_memory_first(&mut settings, current);
    Ok(settings)
}

/// `checkBeforeUpdate`. v1 needs none: its kernel refuses a limit below what it cannot take back (EBUSY); that of v2 kills.
fn check_usage(memory: &LinuxMemory, current: Current<'_>) -> Result<()> {
    let usage = current("memory.current").and_then(|text| text.trim().parse::<i64>().ok());
    let Some(usage) = usage.filter(|_| memory.check_before_update() == Some(true)) else { return Ok(()) };
    for (field, what, limit) in [("swap", "memory+swap", memory.swap()), ("limit", "memory", memory.limit())] {
        if let Some(limit) = limit.filter(|limit| (1..=usage).contains(limit)) {
            let text = format!("rejecting {what} limit {limit} <= usage {usage}");
            return Err(Error::at(format!("linux.resources.memory.{field}"), text));
        }
    }
    Ok(())
}

/// The specification counts memory and swap together, v2 swap alone: the limit of swap depends on that of memory.
fn complete(memory: &mut LinuxMemory, current: Current<'_>) {
    if set(memory.limit()).is_none() && memory.swap().is_some_and(|swap| swap > 0) {
        memory.set_limit(current("memory.max").and_then(|text| text.trim().parse().ok()));
    }
}

/// `cpu.max` is quota and period; what is not given stays as it is.
fn keep_half_of_cpu_max(cpu: &LinuxCpu, settings: &mut [Setting], current: Current<'_>) {
    let own = |setting: &&mut Setting| setting.file == "cpu.max" && setting.field.starts_with("linux.resources.cpu.");
    let Some(setting) = settings.iter_mut().find(own) else { return };
    let first = |text: &str| text.split_whitespace().next().map(str::to_owned);
    match (set(cpu.quota()), set(cpu.period())) {
        // One word alone is the quota (Documentation/admin-guide/cgroup-v2.rst, cpu.max).
        (Some(_), None) => setting.value = first(&setting.value).unwrap_or_default(),
        (None, Some(period)) => {
            if let Some(quota) = current("cpu.max").as_deref().and_then(first) {
                setting.value = format!("{quota} {period}");
            }
        }
        _ => {}
    }
}

/// Swap gets more room before memory gets less, and loses room only after memory is taken back: processes are killed
/// only when they exceed both new limits.
fn lower_memory_first(settings: &mut [Setting], current: Current<'_>) {
    let number = |text: &str| text.trim().parse().unwrap_or(u64::MAX);
    let at = |file: &str| settings.iter().position(|setting| setting.file == file);
    let (Some(swap), Some(limit)) = (at("memory.swap.max"), at("memory.max")) else { return };
    let new = settings.get(swap).map(|setting| number(&setting.value));
    if swap < limit && new < current("memory.swap.max").as_deref().map(number) {
        settings.swap(swap, limit);
    }
}

/// What puts all files back to what they say now, to be written in reverse. The kernel forgets the weight of a cgroup that
/// becomes idle, and of one that is so no more.
pub(crate) fn ways_back(settings: &[Setting], current: Current<'_>) -> Vec<Setting> {
    let weights = |setting: &Setting| {
        let files: &[_] = if setting.file == "cpu.idle" { &["cpu.shares", "cpu.weight"] } else { &[] };
        let field = setting.field.clone();
        files.iter().map(move |file| Setting::new(*file, "", field.clone()))
    };
    let with_weights = settings.iter().flat_map(|setting| weights(setting).chain([setting.clone()]));
    with_weights.filter_map(|setting| way_back(&setting, current)).collect()
}

/// None: there is no such file, or nothing to read in it.
fn way_back(setting: &Setting, current: Current<'_>) -> Option<Setting> {
    let first = (&setting.file, setting.value.as_str());
    let second = setting.or.as_ref().map(|(file, value)| (file, value.as_str()));
    let mut files = std::iter::once(first).chain(second);
    let (file, value, text) = files.find_map(|(file, value)| Some((file, value, current(file)?)))?;
    let line = |start: &str| text.lines().find(|line| line.split(' ').next() == Some(start)).map(str::to_owned);
    let old = match (file.as_ref(), value.split_once(' ').map(|(key, _)| key)) {
        ("rdma.max" | "net_prio.ifpriomap", Some(key)) => line(key)?,
        (_, Some(device)) if device.contains(':') => line(device).or_else(|| without_limit(file, device))?,
        ("memory.oom_control", _) => line("oom_kill_disable")?.split(' ').next_back()?.to_owned(),
        ("io.weight" | "io.bfq.weight", _) => line("default")?,
        // So it is read while cpu.idle is 1, and cannot be written.
        ("cpu.weight", _) if text.trim() == "0" => return None,
        _ => text,
    };
    Some(Setting { file: file.clone(), value: old, or: None, optional: false, ..setting.clone() })
}

/// The line that takes a device's limit away.
fn without_limit(file: &str, device: &str) -> Option<String> {
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.weight" | "io.bfq.weight" => "default",
        "io.latency" => "target=0",
        v1 if v1.starts_with("blkio.") => "0",
        _ => return None,
    };
    Some(format!("{device} {none}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FILES: &[(&str, &str)] = &[
        ("memory.max", "104857600\n"),
        ("memory.swap.max", "104857600\n"),
        ("memory.current", "50000000\n"),
        ("cpu.max", "50000 200000\n"),
        ("cpu.weight", "0\n"),
        ("io.bfq.weight", "default 100\n8:0 200\n"),
        ("io.max", "8:0 rbps=7 wbps=max riops=max wiops=max\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"),
        ("blkio.throttle.read_bps_device", ""),
        ("pids.max", "max\n"),
    ];

    fn current(file: &str) -> Option<String> {
        FILES.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())
    }

    fn of(version: Version, resources: Value) -> std::result::Result<Vec<String>, String> {
        let resources = serde_json::from_value(resources).unwrap();
        let settings = update(version, &resources, &current).map_err(|error| error.to_string())?;
        Ok(settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect())
    }

    fn on_v2(resources: Value) -> Vec<String> {
        of(Version::V2, resources).unwrap()
    }

    #[test]
    fn a_pids_limit_of_0_changes_nothing() {
        assert_eq!(on_v2(json!({"pids": {"limit": 0}})), [""; 0]);
        assert_eq!(of(Version::V1, json!({"pids": {"limit": 0}})).unwrap(), [""; 0]);
        assert_eq!(on_v2(json!({"pids": {"limit": 7}})), ["pids.max=7"]);
    }

    #[test]
    fn quota_and_period_change_one_by_one() {
        assert_eq!(on_v2(json!({"cpu": {"quota": 30000}})), ["cpu.max=30000"]);
        assert_eq!(on_v2(json!({"cpu": {"quota": -1}})), ["cpu.max=max"]);
        assert_eq!(on_v2(json!({"cpu": {"period": 100_000}})), ["cpu.max=50000 100000"]);
        assert_eq!(on_v2(json!({"cpu": {"quota": 1000, "period": 5000}})), ["cpu.max=1000 5000"]);
        assert_eq!(on_v2(json!({"unified": {"cpu.max": "1 2"}})), ["cpu.max=1 2"]);
    }

    #[test]
    fn swap_is_counted_from_the_memory_limit_that_is_there() {
        let memory = |memory: Value| of(Version::V2, json!({ "memory": memory }));
        assert_eq!(
            memory(json!({"swap": 209_715_201})).unwrap(),
            ["memory.swap.max=104857601", "memory.max=104857600"]
        );
        assert_eq!(memory(json!({"swap": -1})).unwrap(), ["memory.swap.max=max"]);
        assert_eq!(memory(json!({"limit": 0, "swap": 0})).unwrap(), [""; 0]);
        let text = memory(json!({"swap": 5})).unwrap_err();
        assert!(text.contains("memory+swap limit should be >= memory limit, which is 104857600"), "{text}");
    }

    #[test]
    fn swap_loses_room_after_memory_and_gets_room_before() {
        let memory = |limit: i64, swap: i64| on_v2(json!({"memory": {"limit": limit, "swap": swap}}));
        assert_eq!(memory(1000, 3000), ["memory.max=1000", "memory.swap.max=2000"]);
        assert_eq!(memory(1000, 209_715_200), ["memory.swap.max=209714200", "memory.max=1000"]);
        assert_eq!(memory(1000, -1), ["memory.swap.max=max", "memory.max=1000"]);
    }

    #[test]
    fn a_limit_below_the_usage_is_rejected_where_that_is_asked_for() {
        let memory = |memory: Value| of(Version::V2, json!({ "memory": memory }));
        assert_eq!(
            memory(json!({"limit": 50_000_000, "checkBeforeUpdate": true})).unwrap_err(),
            "linux.resources.memory.limit: rejecting memory limit 50000000 <= usage 50000000"
        );
        assert!(memory(json!({"limit": 50_000_001, "checkBeforeUpdate": true})).is_ok());
        assert!(memory(json!({"limit": -1, "checkBeforeUpdate": true})).is_ok());
        assert!(memory(json!({"limit": 1})).is_ok());
    }

    #[test]
    fn every_value_has_a_way_back() {
        let back = |file: &'static str, value: &str| {
            way_back(&Setting::new(file, value, "field"), &current).map(|setting| setting.value)
        };
        for (file, value, wanted) in [
            ("pids.max", "7", Some("max\n")),
            ("io.bfq.weight", "7", Some("default 100")),
            ("io.bfq.weight", "8:0 7", Some("8:0 200")),
            ("io.bfq.weight", "8:16 7", Some("8:16 default")),
            ("io.max", "8:0 wbps=9", Some("8:0 rbps=7 wbps=max riops=max wiops=max")),
            ("io.max", "8:16 wbps=9", Some("8:16 rbps=max wbps=max riops=max wiops=max")),
            ("blkio.throttle.read_bps_device", "8:0 9", Some("8:0 0")),
            ("memory.oom_control", "1", Some("0")),
            ("cpu.weight", "9", None),
            ("memory.high", "9", None),
        ] {
            assert_eq!(back(file, value).as_deref(), wanted, "{file} {value}");
        }
        let shares = |file: &str| ["cpu.shares", "cpu.idle"].contains(&file).then(|| "7\n".to_owned());
        let back = ways_back(&[Setting::new("cpu.idle", 1, "field")], &shares);
        assert_eq!(back.iter().map(|setting| &setting.file).collect::<Vec<_>>(), ["cpu.shares", "cpu.idle"]);
        let setting = Setting::new("io.weight", "7", "field").or("io.bfq.weight", 7);
        assert_eq!(way_back(&setting, &current).unwrap().file, "io.bfq.weight");
    }
}
