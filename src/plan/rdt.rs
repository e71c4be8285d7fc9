//! `linux.intelRdt` → groups of resctrl, and what is written there. Pure.
//!
//! The kernel's documentation: Documentation/filesystems/resctrl.rst.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxIntelRdt};

use crate::error::{Error, Result};

/// What resctrl itself has in its root directory.
const RESERVED: &[&str] = &["info", "mon_data", "mon_groups"];

/// The groups of one container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RdtPlan {
    /// The directory of the class of service, below the mount; empty for the default class, which is the mount itself.
    pub(crate) class: String,
    /// Whether the configuration has named it: then it is shared, and is there after the container.
    pub(crate) named: bool,
    /// In the order in which they are written.
    pub(crate) lines: Vec<SchemaLine>,
    /// The name of the monitoring group.
    pub(crate) monitoring: Option<String>,
}

/// A line for `schemata`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SchemaLine {
    pub(crate) field: String,
    pub(crate) line: String,
    /// Whether a class that is there already must have these values.
    pub(crate) compare: bool,
}

pub(super) fn plan(linux: &Linux, id: &str, warnings: &mut Vec<String>) -> Result<Option<RdtPlan>> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(None) };
    let named = rdt.clos_id().as_ref().filter(|name| !name.is_empty());
    let (field, class) = named.map_or(("linux.intelRdt", id), |name| ("linux.intelRdt.closID", name.as_str()));
    if let Some(why) = invalid(class) {
        let error = Error::at(field, format!("invalid intelRdt.ClosID {class:?}: {why}"));
        return Err(if named.is_none() {
            error.hint("without a closID it is the container's id: give one")
        } else {
            error
        });
    }
    Ok(Some(RdtPlan {
        class: if class == "/" { String::new() } else { class.to_owned() },
        named: named.is_some(),
        lines: lines(rdt, warnings)?,
        monitoring: rdt.enable_monitoring().unwrap_or(false).then(|| id.to_owned()),
    }))
}

fn invalid(class: &str) -> Option<&'static str> {
    match class {
        // The default class (since 1.3).
        "/" => None,
        "." | ".." => Some("it is not a name"),
        _ if class.contains(['/', '\n', '\0']) => Some("it is not one name"),
        _ if RESERVED.contains(&class) => Some("resctrl has a directory of that name itself"),
        _ => None,
    }
}

/// l3CacheSchema first, memBwSchema then, schemata last (config-linux.md, IntelRdt).
fn lines(rdt: &LinuxIntelRdt, warnings: &mut Vec<String>) -> Result<Vec<SchemaLine>> {
    let mut lines = Vec::new();
    for (name, value, start) in
        [("l3CacheSchema", rdt.l3_cache_schema(), "L3:"), ("memBwSchema", rdt.mem_bw_schema(), "MB:")]
    {
        let Some(line) = value.as_ref().filter(|line| !line.is_empty()) else { continue };
        let field = format!("linux.intelRdt.{name}");
        if !line.starts_with(start) {
            let text = format!("{line:?} does not start with {start:?}");
            // A MUST of memBwSchema, a SHOULD of l3CacheSchema: with CDP, lines start with "L3CODE:" and "L3DATA:".
            if name == "memBwSchema" {
                return Err(Error::at(field, text));
            }
            warnings.push(format!("{field}: {text}"));
        }
        lines.push(one_line(field, line, true)?);
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate().filter(|(_, line)| !line.is_empty()) {
        lines.push(one_line(format!("linux.intelRdt.schemata[{index}]"), line, false)?);
    }
    Ok(lines)
}

fn one_line(field: String, line: &str, compare: bool) -> Result<SchemaLine> {
    if line.contains(['\n', '\0']) {
        return Err(Error::at(field, format!("{line:?} is not one line")));
    }
    Ok(SchemaLine { field, line: line.to_owned(), compare })
}

/// The lines of `update`.
pub(crate) fn update(l3: Option<&str>, bandwidth: Option<&str>, warnings: &mut Vec<String>) -> Result<Vec<SchemaLine>> {
    let mut rdt = LinuxIntelRdt::default();
    rdt.set_l3_cache_schema(l3.map(str::to_owned)).set_mem_bw_schema(bandwidth.map(str::to_owned));
    lines(&rdt, warnings)
}

/// The lines of the text of a `schemata` file that have the resources of `lines`.
pub(crate) fn way_back(schemata: &str, lines: &[SchemaLine]) -> Vec<SchemaLine> {
    fn resource(line: &str) -> &str {
        line.split(':').next().unwrap_or(line).trim()
    }
    let changed = |old: &str| lines.iter().find(|line| resource(&line.line) == resource(old));
    let back =
        |old: &str| Some(SchemaLine { field: changed(old)?.field.clone(), line: old.trim().into(), compare: false });
    schemata.lines().filter_map(back).collect()
}

/// Where resctrl is mounted, from the text of mountinfo, proc_pid_mountinfo(5).
pub(crate) fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        // A directory of it, bound somewhere, is no mount of it.
        let root = fields.next()? == "/";
        (root && right.split(' ').next()? == "resctrl").then_some(PathBuf::from(unescape(fields.next()?)))
    })
}

/// `\040` is a space: mountinfo has space, tab, newline and backslash in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (octal, character)| text.replace(octal, character))
}

/// Looks for the values of a line in the text of a `schemata` file; says what is there instead.
pub(crate) fn differs(schemata: &str, line: &str) -> Option<String> {
    let (resource, values) = line.split_once(':').unwrap_or((line, ""));
    let Some(there) =
        schemata.lines().find(|there| there.split(':').next().is_some_and(|name| name.trim() == resource.trim()))
    else {
        return Some(format!("no {resource:?}"));
    };
    let there_values: Vec<_> =
        there.split_once(':').map_or("", |(_, values)| values).split(';').filter_map(value).collect();
    let wanted = values.split(';').filter(|part| !part.trim().is_empty());
    // What is not listed keeps its value when the line is written, so it is not asked for here.
    let same = wanted.map(value).all(|wanted| wanted.is_some_and(|wanted| there_values.contains(&wanted)));
    (!same).then(|| format!("{:?}", there.trim()))
}

/// ` 0=00FF` → (`0`, `ff`). A mask is hexadecimal, a bandwidth decimal; the kernel fills both up with zeros or spaces.
fn value(part: &str) -> Option<(&str, String)> {
    let (cache, value) = part.split_once('=')?;
    let value = value.trim().to_ascii_lowercase();
    let digits = value.strip_prefix("0x").unwrap_or(&value).trim_start_matches('0');
    Some((cache.trim(), digits.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rdt: &str) -> Result<(RdtPlan, Vec<String>)> {
        let mut warnings = Vec::new();
        let linux = serde_json::from_str(&format!("{{\"intelRdt\": {rdt}}}")).unwrap();
        plan(&linux, "box", &mut warnings).map(|plan| (plan.unwrap(), warnings))
    }

    #[test]
    fn without_a_name_the_class_is_the_containers_id() {
        let (plan, warnings) = of("{}").unwrap();
        let expected = RdtPlan { class: "box".to_owned(), named: false, lines: Vec::new(), monitoring: None };
        assert_eq!((plan, warnings), (expected, Vec::new()));
        assert_eq!(of(r#"{"closID": "gold"}"#).unwrap().0.class, "gold");
        let (default, _) = of(r#"{"closID": "/", "enableMonitoring": true}"#).unwrap();
        assert_eq!((default.class.as_str(), default.named, default.monitoring.as_deref()), ("", true, Some("box")));
    }

    #[test]
    fn a_class_is_one_name_and_not_one_of_resctrls() {
        for name in [".", "..", "a/b", "/a", "a/", "a\\nb", "info", "mon_groups", "mon_data"] {
            let line = of(&format!("{{\"closID\": \"{name}\"}}")).unwrap_err().line();
            assert!(
                line.starts_with(&format!("linux.intelRdt.closID: invalid intelRdt.ClosID \"{name}\": ")),
                "{line}"
            );
        }
        let linux = serde_json::from_str(r#"{"intelRdt": {}}"#).unwrap();
        assert!(plan(&linux, "info", &mut Vec::new()).is_err());
    }

    #[test]
    fn lines_are_in_the_order_of_the_specification() {
        let text = r#"{"schemata": ["L2:0=f", "", "L3:0=1"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=ff"}"#;
        let (plan, _) = of(text).unwrap();
        let lines: Vec<_> =
            plan.lines.iter().map(|line| (line.field.as_str(), line.line.as_str(), line.compare)).collect();
        let expected = [
            ("linux.intelRdt.l3CacheSchema", "L3:0=ff", true),
            ("linux.intelRdt.memBwSchema", "MB:0=20", true),
            ("linux.intelRdt.schemata[0]", "L2:0=f", false),
            ("linux.intelRdt.schemata[2]", "L3:0=1", false),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for (text, field) in [
            (r#"{"memBwSchema": "L3:0=1"}"#, "memBwSchema"),
            (r#"{"memBwSchema": "MB:0=1\nL3:0=1"}"#, "memBwSchema"),
            (r#"{"l3CacheSchema": "L3:0=1\n"}"#, "l3CacheSchema"),
            (r#"{"schemata": ["L3:0=1", "MB:0=1\nL3:0=1"]}"#, "schemata[1]"),
        ] {
            let line = of(text).unwrap_err().line();
            assert!(line.starts_with(&format!("linux.intelRdt.{field}: ")), "{line}");
        }
        assert_eq!(of(r#"{"l3CacheSchema": "L3CODE:0=1"}"#).unwrap().1.len(), 1);
    }

    #[test]
    fn the_mount_point_is_that_of_type_resctrl() {
        let text = "22 1 0:21 / /sys rw - sysfs resctrl rw\n\
                    35 22 0:30 /gold /mnt/gold rw shared:3 - resctrl resctrl rw\n\
                    36 22 0:30 / /mnt/a\\040b\\134040 rw shared:3 - resctrl resctrl rw,cdp\n";
        assert_eq!(mount_point(text), Some(PathBuf::from("/mnt/a b\\040")));
        assert_eq!(mount_point(text.lines().next().unwrap()), None);
    }

    #[test]
    fn schemata_are_compared_by_value() {
        let there = "    MB:0= 20;1=100\n    L3:0=00ff;1=0c00\n";
        for same in ["L3:0=ff;1=c00", "L3:1=0xC00;0=00FF", "L3:0=ff", "L3:0=ff;", "MB:0=20;1=100"] {
            assert_eq!(differs(there, same), None, "{same}");
        }
        for other in ["L3:0=f", "L3:0=ff;2=1", "L3:0", "MB:0=2", "MB:0=20;1=10"] {
            let line = if other.starts_with("L3") { "\"L3:0=00ff;1=0c00\"" } else { "\"MB:0= 20;1=100\"" };
            assert_eq!(differs(there, other).as_deref(), Some(line), "{other}");
        }
        assert_eq!(differs(there, "L2:0=f").as_deref(), Some("no \"L2\""));
    }

    #[test]
    fn an_update_is_taken_back_resource_by_resource() {
        let lines = update(Some("L3:0=f"), Some("MB:0=50"), &mut Vec::new()).unwrap();
        assert_eq!(lines.iter().map(|line| line.line.as_str()).collect::<Vec<_>>(), ["L3:0=f", "MB:0=50"]);
        let back = |lines: &[SchemaLine]| {
            way_back("    MB:0=100\n    L3:0=ff;1=ff\n    L2:0=3\n", lines)
                .into_iter()
                .map(|line| line.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(back(&lines), ["MB:0=100", "L3:0=ff;1=ff"]);
        assert_eq!(back(&lines[1..]), ["MB:0=100"]);
        assert!(update(None, Some("L3:0=f"), &mut Vec::new()).is_err());
        assert!(update(None, None, &mut Vec::new()).unwrap().is_empty());
    }
}
