//! `root`, `mounts`, `linux.devices`, masks → what the child does with them. Pure.

mod idmap;
mod options;

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use libc::MOUNT_ATTR_RDONLY;
use oci_spec::runtime::{Mount, Root};

use crate::error::{Error, Result};
pub(crate) use idmap::MountIdMap;
use options::Options;
pub(crate) use options::{Attrs, option_names, root_propagation};

/// A path in the runtime's mount namespace, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPath(pub(crate) PathBuf);

/// A path below the container's root, relative to it, without `..` or empty components. Only [`super::resolve`] turns
/// it into a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RootPath(CString);

impl RootPath {
    /// Cleans `path` lexically, as runc does. A relative path is taken as relative to the root (config.md, Mounts).
    pub(crate) fn new(path: &Path, field: &str) -> Result<Self> {
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => drop(clean.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(Self(c_string(clean.as_os_str().as_bytes(), field)?))
    }

    /// A path that is clean already: a part of another one.
    pub(crate) fn from_clean(path: &CStr) -> Self {
        Self(path.to_owned())
    }

    /// The path, relative to the root.
    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// Whether this is the root itself.
    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as it is seen in the container.
    pub(crate) fn display(&self) -> String {
        format!("/{}", self.0.to_string_lossy())
    }
}

/// A C string; a NUL byte in it is an error, never a shorter string.
pub(crate) fn c_string(bytes: &[u8], field: &str) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::at(field, format!("{:?} has a NUL byte", String::from_utf8_lossy(bytes))))
}

/// Everything that happens to mounts.
#[derive(Debug, Default)]
pub(crate) struct RootfsPlan {
    /// Set recursively on everything that the child inherited: `MS_SLAVE`, `MS_PRIVATE` or `MS_SHARED`.
    pub(crate) inherited: u64,
    /// Set on the root file system at the end: a flag and whether recursively.
    pub(crate) propagation: Option<Propagation>,
    pub(crate) readonly: bool,
    pub(crate) enter: Enter,
    pub(crate) mounts: Vec<MountPlan>,
    /// None: the configuration brings its own /dev by a bind mount.
    pub(crate) dev: Option<Vec<DevicePlan>>,
    pub(crate) masked: Vec<RootPath>,
    pub(crate) readonly_paths: Vec<RootPath>,
    /// `linux.mountLabel`, for what is no parameter of one of `mounts`.
    pub(crate) label: Option<CString>,
}

/// How the root file system becomes the root of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Enter {
    /// pivot_root(2).
    #[default]
    Pivot,
    /// `--no-pivot`: it is moved onto the old root.
    Move,
    /// Without a mount namespace of the container's own the old root stays the host's: chroot(2).
    Chroot,
}

/// A propagation type of mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) flag: u64,
    pub(crate) recursive: bool,
}

/// One entry of `mounts`, in its order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountPlan {
    pub(crate) target: RootPath,
    pub(crate) kind: MountKind,
    /// For this mount.
    pub(crate) attrs: Attrs,
    /// For this mount and those below it (`rro`, ...).
    pub(crate) attrs_recursive: Attrs,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) idmap: Option<MountIdMap>,
    /// `tmpcopyup`: the files that were at the target are copied into the new tmpfs.
    pub(crate) copy_up: bool,
    /// A tmpfs with `ro`: it becomes read-only last of all, and the flag is not in `attrs`.
    pub(crate) late_readonly: bool,
    /// Where the kernel grants no new one, the host's takes its place: it shows the same, or as much as may be seen.
    pub(crate) or_hosts: bool,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// A new instance of a file system type.
    New { fstype: CString, params: Vec<Param> },
    /// A copy of a mount, or of a tree of mounts.
    Bind { source: HostPath, recursive: bool },
    /// New flags for what is mounted at the target; with `params` also for its superblock.
    Remount { params: Vec<Param> },
    /// The container's cgroups.
    Cgroup,
}

/// One parameter of fsconfig(2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) key: CString,
    /// None: a flag.
    pub(crate) value: Option<CString>,
    /// Which element of `options` it comes from; None: from `source`.
    pub(crate) option: Option<usize>,
    /// A flag that mount(2) accepts for every file system, and not every file system knows.
    pub(crate) optional: bool,
}

impl Param {
    /// As in the configuration.
    pub(crate) fn text(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={}", self.key.to_string_lossy(), value.to_string_lossy()),
            None => self.key.to_string_lossy().into_owned(),
        }
    }
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    pub(crate) path: RootPath,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub(crate) kind: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Index in `linux.devices`; None: a default device.
    pub(crate) index: Option<usize>,
}

/// File systems whose superblock other mounts share: a flag of it would not be this mount's alone.
const SHARED_SUPERBLOCK: &[&str] = &["proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2", "bpf", "securityfs"];

/// Files of /proc that may be mounted over (lxcfs, and what checkpoint and FIPS need); everything else there is the
/// kernel's word to the container's programs and to us.
const PROC_ALLOWED: &[&str] = &[
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Plans one entry of `mounts`.
pub(crate) fn mount(index: usize, mount: &Mount, bundle: &Path, warnings: &mut Vec<String>) -> Result<MountPlan> {
    let field = format!("mounts[{index}]");
    let destination = mount.destination();
    if destination.as_os_str().is_empty() {
        return Err(Error::at(format!("{field}.destination"), "is empty"));
    }
    let target = RootPath::new(destination, &format!("{field}.destination"))?;
    let fstype = mount.typ().as_deref().unwrap_or("");
    let no_options = Vec::new();
    let mut options = Options::parse(&field, mount.options().as_ref().unwrap_or(&no_options))?;
    if fstype == "bind" && options.bind.is_none() {
        options.bind = Some(false);
    }
    let idmap = idmap::plan(&field, mount, &mut options)?;
    check_target(&field, &target, fstype, &options)?;
    if options.bind.is_some() && !options.remount {
        // There is no new superblock that could take them. mount(2) ignores them too, and with it runc up to 1.1 and crun.
        warnings.extend(options.data.drain(..).map(|param| {
            let option = param.option.unwrap_or(0);
            format!(
                "{field}.options[{option}]: {:?} has no effect: it is for the file system, not for a bind mount",
                param.text()
            )
        }));
    }
    let kind = kind(&field, mount, fstype, bundle, &mut options)?;
    let Options { mut attrs, mut attrs_recursive, propagation, copy_up, .. } = options;
    if copy_up && fstype != "tmpfs" {
        return Err(Error::at(format!("{field}.options"), "\"tmpcopyup\" is for type tmpfs only"));
    }
    let tmpfs = matches!(&kind, MountKind::New { fstype, .. } if fstype.as_c_str() == c"tmpfs");
    let late_readonly = tmpfs && (attrs.set | attrs_recursive.set) & MOUNT_ATTR_RDONLY != 0;
    if late_readonly {
        attrs.set &= !MOUNT_ATTR_RDONLY;
        attrs_recursive.set &= !MOUNT_ATTR_RDONLY;
    }
    let or_hosts = false;
    Ok(MountPlan { target, kind, attrs, attrs_recursive, propagation, idmap, copy_up, late_readonly, or_hosts })
}

fn check_target(field: &str, target: &RootPath, fstype: &str, options: &Options) -> Result<()> {
    let path = target.as_c_str().to_bytes();
    if target.is_root() && !options.remount {
        return Err(Error::at(format!("{field}.destination"), "\"/\" is the root file system itself"));
    }
    let below_proc = path.starts_with(b"proc/");
    if below_proc && !PROC_ALLOWED.iter().any(|allowed| allowed.as_bytes() == path) {
        let text = format!("{:?} is inside /proc, which must stay as the kernel makes it", target.display());
        return Err(Error::at(format!("{field}.destination"), text)
            .hint("linux.maskedPaths and linux.readonlyPaths hide or protect parts of /proc"));
    }
    if path == b"proc" && options.bind.is_none() && !options.remount && fstype != "proc" {
        let text = format!("only a mount of type proc can be at \"/proc\", not {fstype:?}");
        return Err(Error::at(format!("{field}.type"), text));
    }
    Ok(())
}

fn kind(field: &str, mount: &Mount, fstype: &str, bundle: &Path, options: &mut Options) -> Result<MountKind> {
    let mut params = std::mem::take(&mut options.flags);
    if options.remount {
        return Ok(MountKind::Remount { params: remount_params(options, params) });
    }
    if let Some(recursive) = options.bind {
        let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
        let source = source.ok_or_else(|| Error::at(format!("{field}.source"), "a bind mount needs a source"))?;
        c_string(source.as_os_str().as_bytes(), &format!("{field}.source"))?;
        return Ok(MountKind::Bind { source: HostPath(bundle.join(source)), recursive });
    }
    if fstype == "cgroup" || fstype == "cgroup2" {
        return Ok(MountKind::Cgroup);
    }
    if fstype.is_empty() {
        return Err(Error::at(format!("{field}.type"), "is missing, and the options have neither bind nor rbind"));
    }
    // The superblock is made read-only as well, where it is this mount's own: a disk image opened read-only
    // must not even be repaired. A tmpfs is written to first: by tmpcopyup, and for what is mounted or made in it.
    let own_superblock = !SHARED_SUPERBLOCK.contains(&fstype) && fstype != "tmpfs";
    if own_superblock && options.attrs.set & MOUNT_ATTR_RDONLY != 0 {
        params.push(Param { key: c"ro".to_owned(), value: None, option: None, optional: false });
    }
    params.append(&mut options.data);
    if let Some(source) = mount.source() {
        let value = c_string(source.as_os_str().as_bytes(), &format!("{field}.source"))?;
        params.push(Param { key: c"source".to_owned(), value: Some(value), option: None, optional: false });
    }
    Ok(MountKind::New { fstype: c_string(fstype.as_bytes(), &format!("{field}.type"))?, params })
}

/// `remount` without `bind` is for the superblock too (mount(8)).
fn remount_params(options: &mut Options, mut params: Vec<Param>) -> Vec<Param> {
    if options.bind.is_some() {
        return Vec::new();
    }
    let flag = |key: &CStr| Param { key: key.to_owned(), value: None, option: None, optional: false };
    if options.attrs.set & MOUNT_ATTR_RDONLY != 0 {
        params.push(flag(c"ro"));
    } else if options.attrs.clr & MOUNT_ATTR_RDONLY != 0 {
        params.push(flag(c"rw"));
    }
    params.append(&mut options.data);
    params
}

/// The root file system's directory, absolute.
pub(crate) fn root(root: Option<&Root>, bundle: &Path) -> Result<HostPath> {
    let root = root.ok_or_else(|| Error::at("root", "root must be specified"))?;
    let path = root.path();
    if path.as_os_str().is_empty() {
        return Err(Error::at("root.path", "is empty"));
    }
    c_string(path.as_os_str().as_bytes(), "root.path")?;
    Ok(HostPath(bundle.join(path)))
}

#[cfg(test)]
mod tests {
    use libc::{MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_STRICTATIME};

    use super::*;

    fn plan(json: &str) -> std::result::Result<MountPlan, String> {
        let parsed: Mount = serde_json::from_str(json).map_err(|error| error.to_string())?;
        mount(3, &parsed, Path::new("/bundle"), &mut Vec::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_is_cleaned_and_stays_below_the_root() {
        let clean = |path: &str| RootPath::new(Path::new(path), "f").map(|path| path.display()).ok();
        assert_eq!(clean("/a//b/./c/../d"), Some("/a/b/d".into()));
        assert_eq!(clean("../../x"), Some("/x".into()));
        assert_eq!(clean("relative"), Some("/relative".into()));
        assert_eq!(clean("a\0b"), None);
    }

    #[test]
    fn later_options_win() -> std::result::Result<(), String> {
        let mount =
            plan(r#"{"destination":"/t","type":"tmpfs","options":["ro","noatime","rw","strictatime","nodev"]}"#)?;
        assert_eq!(mount.attrs.set, MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NODEV);
        assert_eq!(mount.attrs.clr, MOUNT_ATTR_RDONLY | ATIME);
        Ok(())
    }

    #[test]
    fn recursive_options_are_apart() -> std::result::Result<(), String> {
        let mount = plan(r#"{"destination":"/t","source":"s","options":["rbind","rro","rnosuid","rslave"]}"#)?;
        assert_eq!(mount.attrs, Attrs::default());
        assert_eq!(mount.attrs_recursive.set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
        assert_eq!(mount.propagation, Some(Propagation { flag: libc::MS_SLAVE, recursive: true }));
        assert_eq!(mount.kind, MountKind::Bind { source: HostPath("/bundle/s".into()), recursive: true });
        Ok(())
    }

    #[test]
    fn unknown_options_are_data_with_their_index() -> std::result::Result<(), String> {
        let mount =
            plan(r#"{"destination":"/t","type":"tmpfs","source":"x","options":["nosuid","size=1k,mode=755"]}"#)?;
        let MountKind::New { params, .. } = mount.kind else { return Err("kind".into()) };
        let keys: Vec<_> =
            params.iter().map(|param| (param.key.to_string_lossy().into_owned(), param.option)).collect();
        assert_eq!(keys, [("size".into(), Some(1)), ("mode".into(), Some(1)), ("source".into(), None)]);
        Ok(())
    }

    #[test]
    fn commas_within_a_value_of_data() -> std::result::Result<(), String> {
        for (options, expected) in [
            (r#"["lowerdir=/a\\,b:/c\\:d,upperdir=/u"]"#, &["lowerdir=/a,b:/c\\:d", "upperdir=/u"][..]),
            (r#"["size=1k,context=\"u:r:t:s0:c1,c2\",mode=755"]"#, &["size=1k", "context=u:r:t:s0:c1,c2", "mode=755"]),
            (r#"["context=\"u:r:t:s0:c1","c2\"","ro","mode=755"]"#, &["context=u:r:t:s0:c1,c2", "mode=755"]),
            (r#"["lowerdir=/a\\\\,upperdir=/u"]"#, &["lowerdir=/a\\\\", "upperdir=/u"]),
            (r#"["context=\"never:ended","ro"]"#, &["context=never:ended,ro"]),
        ] {
            let mount = plan(&format!(r#"{{"destination":"/t","type":"tmpfs","options":{options}}}"#))?;
            let MountKind::New { params, .. } = mount.kind else { return Err("kind".into()) };
            assert_eq!(params.iter().map(Param::text).collect::<Vec<_>>(), expected);
        }
        Ok(())
    }

    #[test]
    fn data_on_a_bind_mount_has_no_effect() {
        let parsed = serde_json::from_str(r#"{"destination":"/t","source":"/s","options":["bind","size=1"]}"#).unwrap();
        let mut warnings = Vec::new();
        assert!(mount(3, &parsed, Path::new("/bundle"), &mut warnings).is_ok());
        assert!(warnings.concat().starts_with("mounts[3].options[1]: \"size=1\" has no effect"), "{warnings:?}");
    }

    #[test]
    fn proc_is_not_mounted_over() {
        for destination in ["/proc/self", "/proc/sys/net", "/x/../proc/acpi"] {
            let json = format!(r#"{{"destination":"{destination}","source":"/s","options":["bind"]}}"#);
            assert!(plan(&json).is_err(), "{destination}");
        }
        assert!(plan(r#"{"destination":"/proc/cpuinfo","source":"/s","options":["bind"]}"#).is_ok());
        assert!(plan(r#"{"destination":"/proc","type":"tmpfs"}"#).is_err());
    }
}
