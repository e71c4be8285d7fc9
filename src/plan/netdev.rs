//! `linux.netDevices` → devices to move. Pure.

use std::collections::{BTreeSet, HashMap};

use oci_spec::runtime::Linux;

use super::{Facts, Namespaces};
use crate::error::{Error, Result};
use crate::spec::by_name;

/// `IFNAMSIZ` of linux/if.h, with the NUL at the end.
const IFNAMSIZ: usize = 16;
/// `CAP_NET_ADMIN` of linux/capability.h.
const CAP_NET_ADMIN: u8 = 12;

/// One device of the runtime's network namespace that the container gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    pub(crate) host: String,
    /// Its name in the container; with `%d` in it, the kernel puts the first free number there.
    pub(crate) name: String,
}

impl NetDevice {
    /// `linux.netDevices["eth0"]`.
    pub(crate) fn field(&self) -> String {
        format!("linux.netDevices[{:?}]", self.host)
    }

    /// The same, or its `name` where that was given.
    pub(crate) fn name_field(&self) -> String {
        if self.name == self.host { self.field() } else { format!("{}.name", self.field()) }
    }

    /// Whether the kernel completes the name.
    pub(crate) fn is_template(&self) -> bool {
        self.name.contains('%')
    }
}

/// Those to move, by name.
pub(super) fn plan(linux: &Linux, namespaces: &Namespaces, facts: &Facts) -> Result<Vec<NetDevice>> {
    if linux.net_devices().as_ref().is_none_or(HashMap::is_empty) {
        return Ok(Vec::new());
    }
    if !namespaces.has(libc::CLONE_NEWNET) {
        return Err(Error::at("linux.netDevices", "unable to move network devices without a NET namespace")
            .hint("add {\"type\": \"network\"} to linux.namespaces"));
    }
    if facts.caller.is_user() || facts.permitted & 1 << CAP_NET_ADMIN == 0 {
        return Err(Error::at("linux.netDevices", "network devices are not supported for rootless containers")
            .hint("moving them needs CAP_NET_ADMIN"));
    }
    let mut taken = BTreeSet::new();
    let mut devices = Vec::new();
    for (host, device) in by_name(linux.net_devices()) {
        let name = device.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(host);
        let device = NetDevice { host: host.clone(), name: name.clone() };
        check(host, false).map_err(|why| invalid(device.field(), host, &why))?;
        check(name, true).map_err(|why| invalid(device.name_field(), name, &why))?;
        if !device.is_template() && !taken.insert(name) {
            return Err(Error::at(device.name_field(), format!("{name:?} is the name of two devices")));
        }
        devices.push(device);
    }
    Ok(devices)
}

fn invalid(field: String, name: &str, why: &str) -> Error {
    Error::at(field, format!("invalid network device name {name:?}: {why}"))
}

/// `dev_valid_name` of the kernel's net/core/dev.c. A `%` is the kernel's too: a template has exactly one `%d`.
fn check(name: &str, may_be_template: bool) -> std::result::Result<(), String> {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace() || c == '\x0b';
    match name {
        "" => return Err("it is empty".to_owned()),
        "." | ".." => return Err("it is a directory's".to_owned()),
        "lo" => return Err("every network namespace keeps its own".to_owned()),
        _ => {}
    }
    if name.len() >= IFNAMSIZ {
        return Err(format!("it has {} bytes, the kernel takes up to {}", name.len(), IFNAMSIZ - 1));
    }
    if let Some(c) = name.chars().find(|c| bad(*c)) {
        return Err(format!("it has a {c:?}"));
    }
    match (name.matches('%').count(), name.matches("%d").count()) {
        (0, _) => Ok(()),
        (1, 1) if may_be_template => Ok(()),
        _ if may_be_template => Err("of '%', only one \"%d\" is allowed".to_owned()),
        _ => Err("it has a '%'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups;

    const ROOT: Facts = Facts {
        cgroups: cgroups::Version::V2,
        last_cap: 40,
        permitted: u64::MAX,
        lsm: crate::plan::Lsm { apparmor: false, selinux: false },
        caller: crate::plan::Caller { euid: 0, egid: 0, in_user_namespace: false },
    };

    fn of(devices: &str, facts: &Facts, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
        plan(&serde_json::from_str(&format!("{{\"netDevices\": {devices}}}")).unwrap(), namespaces, facts)
    }

    fn with_network(devices: &str) -> Result<Vec<NetDevice>> {
        of(devices, &ROOT, &Namespaces { new: libc::CLONE_NEWNET, ..Namespaces::default() })
    }

    #[test]
    fn devices_come_by_name_and_keep_theirs_unless_another_is_given() {
        let device = |host: &str, name: &str| NetDevice { host: host.to_owned(), name: name.to_owned() };
        let plans = with_network(r#"{"eth1": {"name": "a"}, "eth0": {}, "eth2": {"name": ""}}"#).unwrap();
        assert_eq!(plans, [device("eth0", "eth0"), device("eth1", "a"), device("eth2", "eth2")]);
        assert!(with_network("{}").unwrap().is_empty());
    }

    #[test]
    fn a_name_is_refused_as_the_kernel_would() {
        for name in ["", ".", "..", "lo", "a/b", "a:b", "a b", "a\\tb", "a%d", "1234567890123456"] {
            let line = with_network(&format!("{{\"{name}\": {{}}}}")).unwrap_err().line();
            assert!(line.starts_with(&format!("linux.netDevices[\"{name}\"]: invalid network device name ")), "{line}");
        }
        for name in ["..", "lo", "a/b", "a:b", "a%s", "%d%d", "a%", "1234567890123456"] {
            let line = with_network(&format!("{{\"eth0\": {{\"name\": \"{name}\"}}}}")).unwrap_err().line();
            assert!(line.starts_with("linux.netDevices[\"eth0\"].name: invalid network device name "), "{line}");
        }
        assert!(with_network(r#"{"123456789012345": {"name": "eth%d"}}"#).unwrap()[0].is_template());
    }

    #[test]
    fn two_devices_cannot_have_one_name() {
        let line = with_network(r#"{"a": {"name": "c"}, "b": {"name": "c"}}"#).unwrap_err().line();
        assert_eq!(line, "linux.netDevices[\"b\"].name: \"c\" is the name of two devices");
        let line = with_network(r#"{"a": {"name": "b"}, "b": {}}"#).unwrap_err().line();
        assert_eq!(line, "linux.netDevices[\"b\"]: \"b\" is the name of two devices");
        assert_eq!(with_network(r#"{"a": {"name": "b"}, "b": {"name": "a"}}"#).unwrap().len(), 2);
        assert_eq!(with_network(r#"{"a": {"name": "x%d"}, "b": {"name": "x%d"}}"#).unwrap().len(), 2);
    }

    #[test]
    fn a_network_namespace_and_the_capability_are_needed() {
        let line = of(r#"{"a": {}}"#, &ROOT, &Namespaces::default()).unwrap_err().line();
        assert_eq!(line, "linux.netDevices: unable to move network devices without a NET namespace");
        let facts = Facts { permitted: !(1 << CAP_NET_ADMIN), ..ROOT };
        let namespaces = Namespaces { new: libc::CLONE_NEWNET, ..Namespaces::default() };
        let line = of(r#"{"a": {}}"#, &facts, &namespaces).unwrap_err().line();
        assert_eq!(line, "linux.netDevices: network devices are not supported for rootless containers");
    }
}
