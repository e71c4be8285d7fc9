//! Device rules that come after `create`: `update --device-add` and `--device-rm`. Pure.

use std::collections::BTreeMap;

use super::{Devices, Rule, exceptions, line, parse, rules};
use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

/// `c:10:200`, `b:8:*:r`: type, major, minor, access. Without an access it is `rw`: mknod is in the default rules.
pub(crate) fn change(allow: bool, text: &str) -> Result<LinuxDeviceCgroup> {
    let invalid =
        || Error::at(option(allow), format!("invalid device: {text:?}")).hint("for example c:10:200 or b:8:*:r");
    let mut words = text.split(':');
    let typ = match words.next() {
        Some("c") => LinuxDeviceType::C,
        Some("b") => LinuxDeviceType::B,
        _ => return Err(invalid()),
    };
    let mut number = || match words.next() {
        Some("*") => Ok(None),
        word => word.and_then(|word| word.parse::<u32>().ok()).map(|number| Some(number.into())).ok_or_else(invalid),
    };
    let (major, minor) = (number()?, number()?);
    let access = words.next().unwrap_or("rw");
    if words.next().is_some() {
        return Err(invalid());
    }
    let mut device = LinuxDeviceCgroup::default();
    device.set_allow(allow).set_typ(Some(typ)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    parse(&field(&device), &device).map(|_| device)
}

fn option(allow: bool) -> &'static str {
    if allow { "--device-add" } else { "--device-rm" }
}

/// What errors call such a rule.
fn field(device: &LinuxDeviceCgroup) -> String {
    let typ = device.typ().unwrap_or_default();
    let typ = typ.as_str();
    let number = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let access = device.access().as_deref().unwrap_or_default();
    format!("{} {typ}:{}:{}:{access}", option(device.allow()), number(device.major()), number(device.minor()))
}

/// The rules of all changes so far: a new one takes the place of one that is about the same.
pub(crate) fn merged(before: &[LinuxDeviceCgroup], changes: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    let same = |a: &LinuxDeviceCgroup, b: &LinuxDeviceCgroup| {
        (a.typ(), a.major(), a.minor(), a.access()) == (b.typ(), b.major(), b.minor(), b.access())
    };
    let mut all = before.to_vec();
    for change in changes {
        all.retain(|device| !same(device, change));
        all.push(change.clone());
    }
    all
}

/// The rules of config.json, the runtime's own, and those that came later, which win.
pub(crate) fn changed_rules(resources: Option<&LinuxResources>, changes: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut all = rules(resources)?;
    for device in changes {
        all.extend(parse(&field(device), device)?);
    }
    Ok(all)
}

/// The lines for `devices.allow` (true) and `devices.deny` (false) that lead from one list of rules to another, without
/// a moment in which more is denied than before or after.
pub(crate) fn v1_changes(from: &[Rule], to: &[Rule]) -> Result<Vec<(bool, String)>> {
    let ((_, from), (default, to)) = (exceptions(from)?, exceptions(to)?);
    let more = |a: &[(Devices, u8)], b: &[(Devices, u8)], allow: bool| {
        let b: BTreeMap<Devices, u8> = b.iter().copied().collect();
        let access = |devices| b.get(devices).copied().unwrap_or(0);
        let missing: Vec<_> = a.iter().map(|(devices, bits)| (*devices, bits & !access(devices))).collect();
        missing.into_iter().filter(|(_, bits)| *bits != 0).map(move |(devices, bits)| (allow, line(devices, bits)))
    };
    // An exception from "all is denied" is an allowance, and the other way round.
    let (gone, new) = (more(&from, &to, default), more(&to, &from, !default));
    Ok(if default { gone.chain(new).collect() } else { new.chain(gone).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(texts: &[(bool, &str)]) -> Vec<LinuxDeviceCgroup> {
        texts.iter().map(|(allow, text)| change(*allow, text).unwrap()).collect()
    }

    #[test]
    fn a_change_is_type_major_minor_access() {
        for (text, wanted) in [
            ("c:10:200", "--device-add c:10:200:rw"),
            ("b:8:*:r", "--device-add b:8:*:r"),
            ("c:*:*:rwm", "--device-add c:*:*:rwm"),
        ] {
            assert_eq!(field(&change(true, text).unwrap()), wanted);
        }
        for text in
            ["", "c", "c:1", "c:1:", "a:1:2", "x:1:2", "c:-1:2", "c:1:2:", "c:1:2:q", "c:1:2:r:w", "c:4294967296:1"]
        {
            assert!(change(false, text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_added_and_removed_again_leaves_one_rule() {
        let before = changes(&[(true, "c:10:200"), (true, "c:10:201")]);
        let after = merged(&before, &changes(&[(false, "c:10:200"), (true, "c:10:201")]));
        assert_eq!(after, changes(&[(false, "c:10:200"), (true, "c:10:201")]));
    }

    fn lines(resources: &str, from: &[(bool, &str)], to: &[(bool, &str)]) -> std::result::Result<Vec<String>, String> {
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        let rules = |texts| changed_rules(Some(&resources), &changes(texts)).unwrap();
        let lines = v1_changes(&rules(from), &rules(to)).map_err(|error| error.to_string())?;
        Ok(lines.iter().map(|(allow, line)| format!("{} {line}", if *allow { "allow" } else { "deny" })).collect())
    }

    #[test]
    fn v1_writes_only_what_changes() {
        let none = "{}";
        assert_eq!(lines(none, &[], &[(true, "c:10:250")]).unwrap(), ["allow c 10:250 rw"]);
        let (added, less) = ((true, "c:10:250"), (false, "c:10:250:w"));
        assert_eq!(lines(none, &[added], &[added, less]).unwrap(), ["deny c 10:250 w"]);
        assert_eq!(lines(none, &[added, less], &[(false, "c:10:250")]).unwrap(), ["deny c 10:250 r"]);
        assert_eq!(lines(none, &[], &[(false, "c:1:3")]).unwrap(), ["deny c 1:3 rw"]);
        let all = r#"{"devices": [{"allow": true}]}"#;
        assert_eq!(lines(all, &[], &[(false, "c:10:250")]).unwrap(), ["deny c 10:250 rw"]);
        assert_eq!(lines(all, &[(false, "c:10:250")], &[(true, "c:10:250")]).unwrap(), ["allow c 10:250 rw"]);
    }

    #[test]
    fn v1_cannot_take_back_a_part() {
        let text = lines("{}", &[], &[(false, "c:10:250:m")]).unwrap_err();
        assert!(text.starts_with("--device-rm c:10:250:m: ") && text.contains("which cgroup v1 cannot do"), "{text}");
    }
}
