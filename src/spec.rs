//! config.json → [`Spec`].
//!
//! Runs in: parent. Reads one file of the bundle; everything after it is pure.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::deadline;
use crate::error::{Error, Result};
use crate::json;
use crate::logging::Log;

/// A larger configuration is refused: 64 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// The configuration and what was left out of it.
pub(crate) struct Loaded {
    /// The typed configuration.
    pub(crate) spec: Spec,
    /// Capabilities that the kernel headers do not know: a warning by the spec (config.md, capabilities). And fields that
    /// the spec has no longer.
    pub(crate) warnings: Vec<String>,
    /// The text that it was parsed from.
    pub(crate) text: Vec<u8>,
}

/// Reads `config.json` of a bundle.
pub(crate) fn load(bundle: &Path) -> Result<Loaded> {
    let text = read(&bundle.join("config.json"))?;
    Ok(Loaded { text: text.clone(), ..parse(&text)? })
}

/// Reads a process.json, for `exec`.
pub(crate) fn load_process(path: &Path, log: &Log) -> Result<Process> {
    let failed = |errno| Error::new(format!("open {}", path.display())).errno(errno);
    let file = rustix::fs::open(path, PATIENT, Mode::empty()).map_err(failed)?;
    let (process, warnings) = parse_process(&read_patiently(file, path)?)?;
    for warning in &warnings {
        log.warning(warning);
    }
    process.ok_or_else(|| Error::at("--process", format!("{path:?} has no process")))
}

/// A process.json, and what was left out of it. None: `null`.
pub(crate) fn parse_process(text: &[u8]) -> Result<(Option<Process>, Vec<String>)> {
    let members = members(text, "process.json")?;
    // Only config.json must have a `user`: a process.json is runc's own format, and there root is meant.
    let with_user = !members.is_empty() && !members.contains_key("user");
    let process = if with_user { &with_root(text) } else { text };
    // As a field of a configuration, so that errors name fields as they do there.
    let text = [b"{\"ociVersion\":\"1.0.0\",\"process\":", process, b"}"].concat();
    let loaded = parse_named(&text, "process.json")?;
    Ok((loaded.spec.process().clone(), loaded.warnings))
}

/// The members of what is to become a part of a configuration: it must be an object, and end with it.
fn members(text: &[u8], name: &str) -> Result<BTreeMap<String, serde::de::IgnoredAny>> {
    serde_json::from_slice(text).map_err(|error| located("", name, &error))
}

/// A JSON object with members, and root as its `user`.
fn with_root(process: &[u8]) -> Vec<u8> {
    let (space, members) = process.split_at(process.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1));
    [space, br#""user":{"uid":0,"gid":0},"#, members].concat()
}

/// Reads `linux.resources` from a file or, for `-`, from stdin, for `update`.
pub(crate) fn load_resources(source: &Path) -> Result<LinuxResources> {
    let failed = |errno| Error::at("--resources", format!("read {source:?}")).errno(errno);
    let text = if source == Path::new("-") {
        read_patiently(std::io::stdin(), source)
    } else {
        read_patiently(rustix::fs::open(source, PATIENT, Mode::empty()).map_err(failed)?, source)
    };
    let resources = parse_resources(&text?)?;
    resources.ok_or_else(|| Error::at("--resources", format!("{source:?} has no resources")))
}

/// `linux.resources` by themselves. None: `null`.
pub(crate) fn parse_resources(text: &[u8]) -> Result<Option<LinuxResources>> {
    members(text, "--resources")?;
    let text = [b"{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":", text, b"}}"].concat();
    let linux = parse_named(&text, "--resources")?.spec.linux().clone();
    Ok(linux.and_then(|linux| linux.resources().clone()))
}

/// A FIFO without a writer is waited for by poll(2), which knows `--timeout`.
const PATIENT: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Reads what the command line names. Often a pipe, such as /dev/stdin: who names it waits for its end.
fn read_patiently(file: impl AsFd, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        deadline::poll(&mut [PollFd::new(&file, PollFlags::IN)], format!("the end of {}", path.display()))?;
        match rustix::io::read(&file, &mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(Error::new(format!("read {}", path.display())).errno(errno)),
        }
        check_size(bytes.len(), path)?;
    }
}

fn check_size(size: usize, path: &Path) -> Result<()> {
    match size as u64 > MAX_BYTES {
        true => Err(Error::new(format!("{} is larger than 64 MiB", path.display()))),
        false => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("open {}", path.display());
    // O_NONBLOCK: a FIFO of that name must not hang us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd: OwnedFd = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let directory = path.parent().unwrap_or(Path::new("."));
            return Err(Error::new(format!(
                "JSON specification file config.json not found in {}",
                directory.display()
            ))
            .hint("`runtime spec` writes one; --bundle names its directory"));
        }
        result => result.map_err(|errno| Error::new(what()).errno(errno))?,
    };
    let file = File::from(fd);
    let meta = file.metadata().map_err(|error| Error::new(what()).errno(error))?;
    if !meta.is_file() {
        return Err(Error::new(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(MAX_BYTES)).unwrap_or(0) + 1);
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(format!("read {}", path.display())).errno(error))?;
    check_size(bytes.len(), path)?;
    Ok(bytes)
}

/// Parses a configuration. A type error is fatal and names the field and the line.
pub(crate) fn parse(bytes: &[u8]) -> Result<Loaded> {
    parse_named(bytes, "config.json")
}

/// With the name by which errors call the text.
fn parse_named(bytes: &[u8], name: &str) -> Result<Loaded> {
    match serde_json::from_slice::<Spec>(bytes) {
        Ok(spec) => check(bytes, name).map(|()| Loaded {
            warnings: old_rdt_fields(&spec, bytes),
            spec: with_presence(spec, bytes),
            text: Vec::new(),
        }),
        Err(error) => parse_again(bytes, name, &error),
    }
}

/// Some fields have a default in oci-spec, which makes an absent one look like a 0 that was given.
fn with_presence(mut spec: Spec, bytes: &[u8]) -> Spec {
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources
        && resources.pids().is_some_and(|pids| pids.limit() == 0)
        && !json::contains(bytes, "linux.resources.pids.limit")
    {
        // Without a limit nothing is to be changed (config-linux.md, PIDs, since 1.3).
        resources.set_pids(None);
    }
    spec
}

/// What the types do not show.
fn check(bytes: &[u8], name: &str) -> Result<()> {
    match json::mistake(bytes) {
        None => Ok(()),
        Some((field, what, line)) => Err(at(&field, name, format!("{what} ({name} line {line})"))),
    }
}

/// The slow path: finds out which field is wrong, takes unknown capabilities out, and gives flags of the scheduler the
/// names that oci-spec 0.10 knows them by.
fn parse_again(bytes: &[u8], name: &str, error: &serde_json::Error) -> Result<Loaded> {
    let field = json::path_at(bytes, error.line(), error.column());
    if (field.starts_with("process.capabilities.") || field.starts_with("process.scheduler.flags"))
        && let Ok(mut value) = serde_json::from_slice(bytes)
    {
        let mut warnings = drop_unknown_capabilities(&mut value);
        if rename_scheduler_flags(&mut value) || !warnings.is_empty() {
            // The value has lost the second of two equal names.
            check(bytes, name)?;
            let loaded = parse_named(value.to_string().as_bytes(), name)?;
            warnings.extend(loaded.warnings);
            return Ok(Loaded { warnings, ..loaded });
        }
    }
    Err(located(&field, name, error))
}

/// config.md says `SCHED_FLAG_RESET_ON_FORK` and `SCHED_FLAG_DL_OVERRUN`. True if something was renamed.
fn rename_scheduler_flags(value: &mut serde_json::Value) -> bool {
    let flags = value.pointer_mut("/process/scheduler/flags").and_then(serde_json::Value::as_array_mut);
    let mut renamed = false;
    for flag in flags.into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = name.into();
        renamed = true;
    }
    renamed
}

/// The members of an object, sorted by name: two runs of the same configuration do the same. What is sorted are copies of
/// the names: the code that sorts is made for each type, 5 KB each time, and that for `String` is there.
pub(crate) fn by_name<V>(object: &Option<HashMap<String, V>>) -> impl Iterator<Item = (&String, &V)> {
    let mut names: Vec<String> = object.iter().flat_map(HashMap::keys).cloned().collect();
    names.sort();
    names.into_iter().filter_map(|name| object.as_ref()?.get_key_value(&name))
}

fn at(field: &str, name: &str, text: String) -> Error {
    if field.is_empty() { Error::at(name, text) } else { Error::at(field, text) }
}

/// serde's message, with its position moved to where our messages have it.
fn located(field: &str, name: &str, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let text = text.rfind(" at line ").and_then(|at| text.get(..at)).unwrap_or(&text);
    let position = format!("({name} line {})", error.line());
    if let Some(missing) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let field = if field.is_empty() { missing.to_owned() } else { format!("{field}.{missing}") };
        return Error::at(field, format!("is missing {position}"));
    }
    at(field, name, format!("{} {position}", in_our_words(text)))
}

/// `invalid type: string "1000", expected u32` → `expected a number from 0 to 4294967295, found "1000"`.
fn in_our_words(text: &str) -> String {
    let Some((found, expected)) = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return text.to_owned();
    };
    let expected = match expected {
        "u32" => "a number from 0 to 4294967295",
        "u64" => "a number from 0 to 18446744073709551615",
        "u16" => "a number from 0 to 65535",
        "i64" | "i32" | "usize" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    let found = ["string ", "integer ", "boolean ", "floating point "]
        .iter()
        .find_map(|kind| found.strip_prefix(kind))
        .map_or_else(
            || if found == "sequence" { "an array" } else { found }.to_owned(),
            |value| value.replace('`', ""),
        );
    format!("expected {expected}, found {found}")
}

/// Flags of `linux.intelRdt` before 1.3, which did nothing in any runtime. oci-spec 0.10 does not know them by their names.
fn old_rdt_fields(spec: &Spec, bytes: &[u8]) -> Vec<String> {
    if spec.linux().as_ref().is_none_or(|linux| linux.intel_rdt().is_none()) {
        return Vec::new();
    }
    let fields = ["linux.intelRdt.enableCMT", "linux.intelRdt.enableMBM"].into_iter();
    let there = fields.filter(|field| json::contains(bytes, field));
    there.map(|field| format!("{field} is ignored: enableMonitoring has taken its place")).collect()
}

/// Takes the names that are no capability out of `process.capabilities`, so that the rest can be typed.
fn drop_unknown_capabilities(value: &mut serde_json::Value) -> Vec<String> {
    use oci_spec::runtime::Capability;
    let mut warnings = Vec::new();
    let Some(sets) = value.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut) else {
        return warnings;
    };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            // Only strings can be unknown capabilities; anything else stays, and is a type error.
            let unknown = name.is_string() && serde_json::from_value::<Capability>(name.clone()).is_err();
            if unknown {
                warnings.push(format!("process.capabilities.{set}: {name} is not a capability, ignored"));
            }
            !unknown
        });
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: &str) -> String {
        parse(config.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_wrong_type_names_field_and_line() {
        let text =
            error("{\n\"ociVersion\": \"1.0.2\",\n\"process\": {\"cwd\": \"/\", \"user\": {\n\"uid\": \"1000\"}}}");
        assert_eq!(
            text,
            "process.user.uid: expected a number from 0 to 4294967295, found \"1000\" (config.json line 4)"
        );
    }

    #[test]
    fn an_unknown_enum_value_names_its_index() {
        let text = error(r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid"},{"type":"banana"}]}}"#);
        assert!(text.starts_with("linux.namespaces[1].type: unknown variant `banana`"), "{text}");
    }

    #[test]
    fn flags_of_intel_rdt_before_1_3_are_a_warning() {
        let warnings = |rdt: &str| {
            parse(format!("{{\"ociVersion\":\"1.0.2\",\"linux\":{{\"intelRdt\":{rdt}}}}}").as_bytes()).unwrap().warnings
        };
        assert_eq!(
            warnings(r#"{"enableCMT": true}"#),
            ["linux.intelRdt.enableCMT is ignored: enableMonitoring has taken its place"]
        );
        assert_eq!(warnings(r#"{"enableMonitoring": true}"#), [""; 0]);
    }

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let loaded = parse(
            br#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":0,"gid":0},"capabilities":{"bounding":["CAP_KILL","CAP_BANANA"]}}}"#,
        );
        let loaded = loaded.map_err(|error| error.to_string());
        assert_eq!(
            loaded.as_ref().map(|loaded| loaded.warnings.clone()),
            Ok(vec!["process.capabilities.bounding: \"CAP_BANANA\" is not a capability, ignored".to_owned()])
        );
    }

    #[test]
    fn every_scheduler_flag_of_the_specification_is_known() {
        let flags = [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ];
        let flags = flags.map(|flag| format!("\"SCHED_FLAG_{flag}\"")).join(",");
        let config = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"scheduler":{{"policy":"SCHED_OTHER","flags":[{flags}]}}}}}}"#
        );
        assert_eq!(error(&config), "");
        assert!(error(&config.replace("RECLAIM", "BANANA")).starts_with("process.scheduler.flags[1]: unknown variant"));
    }

    #[test]
    fn an_absent_limit_is_not_a_limit_of_0() {
        let pids = |pids: &str| {
            let config = format!(r#"{{"ociVersion":"1.0.2","linux":{{"resources":{{"pids":{pids}}}}}}}"#);
            let spec = parse(config.as_bytes()).map_err(|error| error.to_string()).unwrap().spec;
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().map(|pids| pids.limit())
        };
        assert_eq!(pids("{}"), None);
        assert_eq!(pids(r#"{"limit":0}"#), Some(0));
        let config = |io: &str| {
            error(&format!(
                r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"ioPriority":{io}}}}}"#
            ))
        };
        assert_eq!(
            config(r#"{"class":"IOPRIO_CLASS_BE"}"#),
            "process.ioPriority.priority: is missing (config.json line 1)"
        );
        assert_eq!(config(r#"{"priority":0}"#), "process.ioPriority.class: is missing (config.json line 1)");
    }

    #[test]
    fn trailing_data_and_duplicates_are_errors() {
        assert!(error("{\"ociVersion\":\"1.0.2\"} {}").contains("trailing characters"));
        assert!(error("{\"ociVersion\":\"1.0.2\",\"hostname\":\"a\",\"hostname\":\"b\"}").contains("duplicate field"));
        assert!(error("null").contains("null"));
    }
}
