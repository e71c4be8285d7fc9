//! `linux.namespaces`, mappings and time offsets. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::IdMap;
use crate::error::{Error, Result};
use crate::spec::by_name;

/// `CLONE_NEWTIME` of linux/sched.h, which shares its bit with the exit signal of clone(2).
const CLONE_NEWTIME: i32 = libc::CLONE_NEWTIME;

/// Which namespaces the container has.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of those that clone3 makes.
    pub(crate) new: i32,
    /// A new cgroup namespace: made by the child, since its root is the cgroup in which the maker is.
    pub(crate) new_cgroup: bool,
    /// A new time namespace: made by the child, since its offsets are set before anyone enters.
    pub(crate) new_time: bool,
    /// Lines for /proc/self/timens_offsets, time_namespaces(7).
    pub(crate) time_offsets: String,
    /// Namespaces joined, in the order of the configuration.
    pub(crate) joined: Vec<Joined>,
}

/// A namespace that exists already.
#[derive(Debug)]
pub(crate) struct Joined {
    /// `CLONE_NEW*`, as setns(2) takes it.
    pub(crate) kind: i32,
    pub(crate) path: PathBuf,
    /// Index in `linux.namespaces`.
    pub(crate) index: usize,
}

impl Namespaces {
    /// Whether the container has a namespace of this kind that is not inherited.
    pub(crate) fn has(&self, kind: i32) -> bool {
        self.is_new(kind) || self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// `CLONE_NEW*` of all that are not inherited.
    pub(crate) fn kinds(&self) -> i32 {
        let cgroup = if self.new_cgroup { libc::CLONE_NEWCGROUP } else { 0 };
        let time = if self.new_time { CLONE_NEWTIME } else { 0 };
        self.joined.iter().fold(self.new | cgroup | time, |kinds, joined| kinds | joined.kind)
    }

    /// Whether a new namespace of this kind is made.
    pub(crate) fn is_new(&self, kind: i32) -> bool {
        self.new & kind != 0
            || (kind == libc::CLONE_NEWCGROUP && self.new_cgroup)
            || (kind == CLONE_NEWTIME && self.new_time)
    }

    /// Whether an existing one of this kind is joined.
    pub(crate) fn joins(&self, kind: i32) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Whether others can be there who may trace init: who has rights in its user namespace, and sees it.
    pub(crate) fn has_strangers(&self) -> bool {
        self.joins(libc::CLONE_NEWUSER) && !self.is_new(libc::CLONE_NEWPID)
    }

    /// Whether a second child is needed: a joined pid namespace holds only children of who joined it; and what is
    /// joined from outside must be joined before a new user namespace takes the privilege for it, and new namespaces
    /// belong to a joined user namespace only if they are made inside it.
    pub(crate) fn needs_second_child(&self) -> bool {
        self.joins(libc::CLONE_NEWPID)
            || self.joins(libc::CLONE_NEWUSER)
            || (self.is_new(libc::CLONE_NEWUSER) && !self.joined.is_empty())
    }
}

/// The kinds of config-linux.md, Namespaces.
pub(crate) const KINDS: &[LinuxNamespaceType] = &[
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

/// The name of the kind in the configuration.
pub(super) fn kind_name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

pub(super) fn clone_flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

pub(super) fn plan(linux: &Linux) -> Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let (kind, field) = (clone_flag(namespace.typ()), format!("linux.namespaces[{index}]"));
        if namespaces.has(kind) {
            let text = format!("malformed spec file: duplicated ns {:?}", kind_name(namespace.typ()));
            return Err(Error::at(format!("{field}.type"), text));
        }
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) if !path.is_absolute() => {
                return Err(Error::at(format!("{field}.path"), format!("{path:?} is not an absolute path")));
            }
            Some(path) => namespaces.joined.push(Joined { kind, path: path.clone(), index }),
            None if kind == libc::CLONE_NEWCGROUP => namespaces.new_cgroup = true,
            None if kind == CLONE_NEWTIME => namespaces.new_time = true,
            None => namespaces.new |= kind,
        }
    }
    namespaces.time_offsets = time_offsets(linux, &namespaces)?;
    Ok(namespaces)
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<String> {
    let given = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    if given && namespaces.joins(CLONE_NEWTIME) {
        let text =
            "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one";
        return Err(Error::at("linux.timeOffsets", text));
    }
    if given && !namespaces.new_time {
        let text = "time namespace offsets specified, but time namespace isn't enabled in the config";
        return Err(Error::at("linux.timeOffsets", text));
    }
    let mut lines = String::new();
    for (clock, offset) in by_name(linux.time_offsets()) {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            let text = format!("{clock:?} is not a clock with an offset, only monotonic and boottime are");
            return Err(Error::at("linux.timeOffsets", text));
        }
        let nanosecs = offset.nanosecs().unwrap_or(0);
        if nanosecs > 999_999_999 {
            return Err(Error::at(
                format!("linux.timeOffsets.{clock}.nanosecs"),
                format!("{nanosecs} is a second or more"),
            ));
        }
        lines.push_str(&format!("{clock} {} {nanosecs}\n", offset.secs().unwrap_or(0)));
    }
    Ok(lines)
}

/// The mappings of a new user namespace.
pub(super) fn idmap(linux: &Linux, namespaces: &Namespaces) -> Result<Option<IdMap>> {
    let none = Vec::new();
    let uid = linux.uid_mappings().as_ref().unwrap_or(&none);
    let gid = linux.gid_mappings().as_ref().unwrap_or(&none);
    if !namespaces.has(libc::CLONE_NEWUSER) {
        return match (uid.is_empty(), gid.is_empty()) {
            (true, true) => Ok(None),
            (false, _) => Err(not_enabled("linux.uidMappings")),
            (true, false) => Err(not_enabled("linux.gidMappings")),
        };
    }
    if namespaces.joins(libc::CLONE_NEWUSER) {
        // The mappings are those of the namespace that is joined; engines repeat them here.
        return Ok(None);
    }
    if uid.is_empty() || gid.is_empty() {
        let field = if uid.is_empty() { "linux.uidMappings" } else { "linux.gidMappings" };
        let text = "user namespaces enabled, but no namespace path to join nor mappings to apply specified";
        return Err(Error::at(field, text));
    }
    IdMap::new(uid, "linux.uidMappings", gid, "linux.gidMappings").map(Some)
}

fn not_enabled(field: &str) -> Error {
    Error::at(field, "user namespace mappings specified, but user namespace isn't enabled in the config")
}

impl IdMap {
    pub(crate) fn new(
        uid: &[LinuxIdMapping],
        uid_field: &str,
        gid: &[LinuxIdMapping],
        gid_field: &str,
    ) -> Result<Self> {
        Ok(Self { uid: lines(uid, uid_field)?, gid: lines(gid, gid_field)? })
    }
}

/// The kernel takes up to 340 lines (`UID_GID_MAP_MAX_EXTENTS`) in one write of less than a page.
fn lines(mappings: &[LinuxIdMapping], field: &str) -> Result<String> {
    if mappings.len() > 340 {
        return Err(Error::at(field, format!("{} mappings, the kernel takes up to 340", mappings.len())));
    }
    let mut text = String::new();
    for (index, mapping) in mappings.iter().enumerate() {
        let (inside, outside, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
        let end = |start: u32| u64::from(start) + u64::from(size) <= u64::from(u32::MAX);
        if size == 0 || !end(inside) || !end(outside) {
            let text = format!("containerID {inside}, hostID {outside}, size {size} is not a range of ids");
            return Err(Error::at(format!("{field}[{index}]"), text));
        }
        for (other, earlier) in mappings.iter().enumerate().take(index) {
            let overlaps = |a: u32, b: u32| {
                let (a, b) = (u64::from(a), u64::from(b));
                a < b + u64::from(earlier.size()) && b < a + u64::from(size)
            };
            if overlaps(inside, earlier.container_id()) || overlaps(outside, earlier.host_id()) {
                let text =
                    format!("containerID {inside}, hostID {outside}, size {size} overlaps with {field}[{other}]");
                return Err(Error::at(format!("{field}[{index}]"), text));
            }
        }
        text.push_str(&format!("{inside} {outside} {size}\n"));
    }
    if text.len() >= 4096 {
        return Err(Error::at(field, format!("{} bytes of mappings, the kernel takes less than 4096", text.len())));
    }
    Ok(text)
}
