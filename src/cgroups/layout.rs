//! Which hierarchies this host has, and where the container's directories are in them. Runs in: parent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Cgroup, MOUNT_POINT, Manager, Version};
use crate::error::{Error, Result};

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;

/// Who makes a container's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// This runtime, in the mounted hierarchies.
    Cgroupfs,
    /// systemd, as a unit.
    Systemd,
    /// Nobody.
    Disabled,
}

/// The hierarchies of this host, and where this process is in each.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    pub(super) hierarchies: Vec<Hierarchy>,
}

#[derive(Debug)]
pub(super) struct Hierarchy {
    /// As in /proc/self/cgroup: `cpu,cpuacct`, `name=systemd`, or empty for the unified hierarchy.
    pub(super) controllers: String,
    pub(super) root: PathBuf,
    own: String,
}

impl Layout {
    /// Finds the hierarchies named in `/proc/self/cgroup` below /sys/fs/cgroup.
    pub(crate) fn detect(proc_self_cgroup: &str) -> Result<Self> {
        if magic(Path::new(MOUNT_POINT))? == Some(CGROUP2_SUPER_MAGIC) {
            let own = proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
            let root = PathBuf::from(MOUNT_POINT);
            let unified = Hierarchy { controllers: String::new(), root, own };
            return Ok(Self { version: Version::V2, hierarchies: vec![unified] });
        }
        let hierarchies = proc_self_cgroup.lines().filter_map(|line| find_hierarchy(line).transpose());
        Ok(Self { version: Version::V1, hierarchies: hierarchies.collect::<Result<_>>()? })
    }

    fn check(&self) -> Result<()> {
        if self.version == Version::V2 || self.hierarchies.iter().any(|hierarchy| !hierarchy.controllers.is_empty()) {
            return Ok(());
        }
        Err(Error::new(format!("no cgroup hierarchy is mounted below {MOUNT_POINT}"))
            .hint("mount -t cgroup2 cgroup2 /sys/fs/cgroup, or --cgroup-manager disabled"))
    }

    /// No cgroup.
    pub(crate) fn none(&self) -> Cgroup {
        Cgroup {
            version: self.version,
            dirs: BTreeMap::new(),
            existing: Vec::new(),
            unit: None,
            denied: BTreeMap::new(),
        }
    }

    /// Where this process is.
    pub(crate) fn own(&self) -> Cgroup {
        let dir = |hierarchy: &Hierarchy| hierarchy.root.join(hierarchy.own.trim_start_matches('/'));
        let dirs = self.hierarchies.iter().map(|hierarchy| (hierarchy.controllers.clone(), dir(hierarchy)));
        Cgroup { dirs: dirs.collect(), ..self.none() }
    }

    /// The directories for `linux.cgroupsPath`, or for the id where that is not given.
    ///
    /// As runc: an absolute path is taken from the root of the hierarchy; a relative one, or none, from where this
    /// process is: on v1 below its own cgroup, on v2 beside it, since a cgroup with processes can have no domain
    /// controllers for its children.
    pub(crate) fn place(&self, cgroups_path: Option<&Path>, id: &str) -> Result<Cgroup> {
        self.check()?;
        let path = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let inner = inner_path(path.unwrap_or(Path::new(id)))?;
        let absolute = path.is_some_and(Path::is_absolute);
        let dirs = self.hierarchies.iter().map(|hierarchy| {
            let mut dir = hierarchy.root.clone();
            if !absolute {
                let own = Path::new(hierarchy.own.trim_start_matches('/'));
                let beside = self.version == Version::V2;
                dir.push(if beside { own.parent().unwrap_or(own) } else { own });
            }
            dir.push(&inner);
            (hierarchy.controllers.clone(), dir)
        });
        Ok(Cgroup { dirs: dirs.collect(), ..self.none() })
    }

    /// The directories of the unit that systemd makes for `linux.cgroupsPath`, which is `slice:prefix:name` then.
    pub(crate) fn place_unit(&self, cgroups_path: Option<&Path>, id: &str, manager: &mut Manager) -> Result<Cgroup> {
        self.check()?;
        let (unit, inner) = manager.place(cgroups_path, id)?;
        let dir = |hierarchy: &Hierarchy| (hierarchy.controllers.clone(), hierarchy.root.join(&inner));
        let dirs = self.hierarchies.iter().map(dir).collect();
        Ok(Cgroup { dirs, unit: Some(unit), ..self.none() })
    }

    /// The cgroup of this process in the hierarchy of these controllers.
    pub(super) fn own_dir(&self, controllers: &str) -> PathBuf {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.controllers == controllers);
        hierarchy.map_or(PathBuf::new(), |hierarchy| hierarchy.root.join(hierarchy.own.trim_start_matches('/')))
    }
}

/// Whether this host has only the unified hierarchy.
pub(crate) fn is_v2() -> bool {
    magic(Path::new(MOUNT_POINT)).is_ok_and(|magic| magic == Some(CGROUP2_SUPER_MAGIC))
}

/// The path as one relative to a hierarchy's root.
fn inner_path(path: &Path) -> Result<PathBuf> {
    use std::path::Component;
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::at("linux.cgroupsPath", format!("{path:?} has a \"..\"")));
            }
        }
    }
    // The root cgroup holds the whole host: no container may be created, killed or deleted there.
    if inner.as_os_str().is_empty() {
        return Err(Error::at("linux.cgroupsPath", format!("{path:?} is the root of the hierarchy")));
    }
    Ok(inner)
}

/// One line of /proc/self/cgroup, `4:memory:/path`, with the mount that belongs to it, if there is one.
fn find_hierarchy(line: &str) -> Result<Option<Hierarchy>> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(own)) = (parts.next(), parts.next()) else { return Ok(None) };
    let first = controllers.split(',').next().unwrap_or(controllers);
    let names = match controllers {
        "" => vec!["unified"],
        named if named.starts_with("name=") => vec![named.trim_start_matches("name=")],
        _ => vec![controllers, first],
    };
    let wanted = if controllers.is_empty() { CGROUP2_SUPER_MAGIC } else { CGROUP_SUPER_MAGIC };
    for root in names.iter().map(|name| Path::new(MOUNT_POINT).join(name)) {
        if magic(&root)? == Some(wanted) {
            return Ok(Some(Hierarchy { controllers: controllers.to_owned(), root, own: own.to_owned() }));
        }
    }
    Ok(None)
}

/// None: there is nothing. Whatever else hides a hierarchy is an error, or a container would be in fewer than it should.
fn magic(path: &Path) -> Result<Option<i64>> {
    match crate::sys::twice(|| rustix::fs::statfs(path)) {
        Ok(statfs) => Ok(Some(statfs.f_type)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(Error::new(format!("statfs {}", path.display())).errno(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(version: Version, own: &str) -> Layout {
        let root = PathBuf::from(MOUNT_POINT).join("memory");
        Layout { version, hierarchies: vec![Hierarchy { controllers: "memory".into(), root, own: own.into() }] }
    }

    fn place(layout: &Layout, path: &str) -> std::result::Result<String, String> {
        let cgroup = layout.place(Some(Path::new(path)), "c1").map_err(|error| error.to_string())?;
        Ok(cgroup.dirs.values().next().map(|dir| dir.display().to_string()).unwrap_or_default())
    }

    #[test]
    fn an_absolute_path_starts_at_the_root() {
        assert_eq!(place(&layout(Version::V1, "/me"), "/a/b"), Ok("/sys/fs/cgroup/memory/a/b".into()));
    }

    #[test]
    fn a_relative_path_starts_below_the_own_cgroup_on_v1_and_beside_it_on_v2() {
        assert_eq!(place(&layout(Version::V1, "/me"), "a"), Ok("/sys/fs/cgroup/memory/me/a".into()));
        assert_eq!(place(&layout(Version::V2, "/u/me"), "a"), Ok("/sys/fs/cgroup/memory/u/a".into()));
        assert_eq!(place(&layout(Version::V2, "/"), ""), Ok("/sys/fs/cgroup/memory/c1".into()));
    }

    #[test]
    fn a_path_that_leaves_the_hierarchy_or_is_its_root_is_refused() {
        for path in ["/../x", "a/../../x", "/", "/./"] {
            assert!(place(&layout(Version::V1, "/"), path).is_err(), "{path}");
        }
    }
}
