//! Entries of `mounts`, and `linux.cgroupsPath`: as lines of text.

use std::path::Path;

use oci_spec::runtime::Mount;

use super::promise;
use super::systemd::properties;
use crate::cgroups::Layout;
use crate::rootfs::plan as rootfs_plan;

/// Type, source, destination, and options.
pub(super) fn mount(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().filter(|line| !line.is_empty());
    let (typ, source, destination) = (next(), next(), next());
    let mut mount = Mount::default();
    mount
        .set_typ(typ)
        .set_source(source.map(Into::into))
        .set_destination(destination.unwrap_or_default().into())
        .set_options(Some(lines.collect()));
    let mut warnings = Vec::new();
    let first = rootfs_plan::mount(7, &mount, Path::new("/bundle"), &mut warnings);
    match first {
        Ok(plan) => {
            promise::same(
                &Some(&plan),
                &rootfs_plan::mount(7, &mount, Path::new("/bundle"), &mut warnings).as_ref().ok(),
            );
            let target = plan.target.as_c_str().to_string_lossy();
            promise::down(&target);
            assert!(!target.starts_with('/'), "not below the root: {target:?}");
        }
        Err(error) => promise::config_error(&error),
    }
    if let Err(error) = rootfs_plan::root_propagation(&text) {
        promise::config_error(&error);
    }
}

/// cgroupsPath, and the container's id, which has no slash.
pub(super) fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, id) = text.split_once('\n').unwrap_or((&text, "c1"));
    let id: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || "_+.-".contains(*c)).collect();
    let id = if matches!(id.as_str(), "" | "." | "..") { "c1" } else { &id };
    for own in ["0::/user.slice/own.scope", "4:memory:/own\n1:name=systemd:/\n0::/", "3:cpu,cpuacct:/a/b"] {
        // Of a host without these: nothing to be placed in.
        let Ok(layout) = Layout::detect(own) else { continue };
        match layout.place(Some(Path::new(path)), id) {
            Ok(cgroup) => {
                for dir in cgroup.dirs.values() {
                    let dir = dir.to_string_lossy();
                    promise::down(&dir);
                    let below = dir.strip_prefix("/sys/fs/cgroup/").map(|rest| rest.trim_matches('/'));
                    assert!(below.is_some_and(|rest| !rest.is_empty()), "not below the hierarchies: {dir:?}");
                }
            }
            Err(error) if error.line().starts_with("no cgroup hierarchy is mounted") => {}
            Err(error) => promise::config_error(&error),
        }
    }
    match properties::name(Some(path), id, "system.slice") {
        Ok(name) => {
            let slice = properties::expand(&name.slice).unwrap_or_else(|error| panic!("{error}"));
            promise::down(&format!("{slice}{}", name.unit));
            promise::line(&name.unit);
            assert!(!name.unit.contains('/') && !slice.starts_with('/'), "{name:?} in {slice:?}");
            properties::of_unit(&name, crate::cgroups::Version::V2, 7);
        }
        Err(error) => promise::config_error(&error),
    }
}
