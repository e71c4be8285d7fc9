//! `linux.devices` and the default devices → nodes to make. Pure.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use crate::error::{Error, Result};
use crate::rootfs::plan::{DevicePlan, RootPath};

/// config-linux.md, Default Devices: path, major, minor. /dev/console and /dev/ptmx are no nodes.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

pub(super) fn plan(linux: &Linux) -> Result<Vec<DevicePlan>> {
    let mut plans: Vec<DevicePlan> = Vec::new();
    let mut paths = HashMap::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let plan = one(index, device)?;
        // In its place comes the link to the container's own, as with runc.
        if plan.path.as_c_str() == c"dev/ptmx" {
            continue;
        }
        let number = (plan.kind, plan.major, plan.minor);
        match paths.insert(plan.path.clone(), number) {
            None => plans.push(plan),
            // Docker lists a device as often as it is asked for it, by its directory too.
            Some(other) if other == number => {}
            Some(_) => {
                let field = format!("linux.devices[{index}].path");
                return Err(Error::at(field, format!("{:?} is listed twice, as two devices", plan.path.display())));
            }
        }
    }
    for &(path, major, minor) in DEFAULT {
        let path = RootPath::new(Path::new(path), "default device")?;
        // A device of the configuration at the same path takes the place of the default one.
        if !paths.contains_key(&path) {
            plans.push(DevicePlan {
                path,
                kind: libc::S_IFCHR,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
                index: None,
            });
        }
    }
    Ok(plans)
}

fn one(index: usize, device: &LinuxDevice) -> Result<DevicePlan> {
    let field = |name: &str| format!("linux.devices[{index}].{name}");
    let path = device.path();
    if !path.is_absolute() {
        return Err(Error::at(field("path"), format!("{path:?} is not an absolute path")));
    }
    let path = RootPath::new(path, &field("path"))?;
    if path.is_root() {
        return Err(Error::at(field("path"), "\"/\" cannot be a device"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(Error::at(field("type"), "\"a\" is not a kind of node, only c, b, u and p are"));
        }
    };
    let number = |name: &str, value: i64, bits: u32| {
        // MKDEV of the kernel: 12 bits of major, 20 bits of minor.
        let number = u32::try_from(value).ok().filter(|number| *number < 1 << bits);
        number.ok_or_else(|| Error::at(field(name), format!("{value} is not a {name} number")))
    };
    // Absent numbers come as 0, and 0:0 is no device (config-linux.md: required unless the type is p).
    if kind != libc::S_IFIFO && device.major() == 0 && device.minor() == 0 {
        return Err(Error::at(field("major"), "major and minor are missing"));
    }
    let fifo = kind == libc::S_IFIFO;
    let mode = device.file_mode().unwrap_or(0o666);
    if mode & !0o7777 & !libc::S_IFMT != 0 {
        return Err(Error::at(field("fileMode"), format!("{mode} is not a mode")));
    }
    // 2^32-1 means "do not change" to chown(2): the node would be root's.
    let id = |name: &str, id: Option<u32>| match id {
        Some(id @ u32::MAX) => Err(Error::at(field(name), format!("{id} is not an id"))),
        id => Ok(id.unwrap_or(0)),
    };
    Ok(DevicePlan {
        path,
        kind,
        major: if fifo { 0 } else { number("major", device.major(), 12)? },
        minor: if fifo { 0 } else { number("minor", device.minor(), 20)? },
        // The bits of the type may be given too, and must then be ignored as by runc.
        mode: mode & 0o7777,
        uid: id("uid", device.uid())?,
        gid: id("gid", device.gid())?,
        index: Some(index),
    })
}
