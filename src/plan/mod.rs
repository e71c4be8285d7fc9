//! Spec + facts of the host + options → [`Plan`]. Pure: no file, no system call, no clock.
//!
//! Every rule, default, unit and conversion of the runtime specification is here, in `rootfs/plan.rs`, in
//! `cgroups/settings.rs` and `devices.rs`, and in `seccomp/`. Below the plan nothing reads the configuration again.

mod annotations;
mod describe;
mod devices;
mod exec;
mod explain;
mod hooks;
mod idmap_option;
mod lsm;
mod namespaces;
mod netdev;
mod process;
pub(crate) mod rdt;
mod rootless;
mod scheduling;
mod sysctl;
mod variant;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Mount, Process, Spec};

pub(crate) use annotations::{ANNOTATIONS, CRIU_CONFIG, HookOutput, acting};
pub(crate) use describe::describe;
pub(crate) use exec::{Changes, Wanted, exec_lsm, make_exec};
pub(crate) use explain::{HookFailure, NO_MORE_PROCESSES, explain, explain_late, hook_failed};
pub(crate) use hooks::{HookPlan, HookPlans, NAMES as HOOKS, late as late_hooks};
pub(crate) use lsm::{Labels, Lsm, wanted as lsm_wanted};
pub(crate) use namespaces::{Joined, KINDS as NAMESPACES, Namespaces};
pub(crate) use netdev::NetDevice;
pub(crate) use process::{Capabilities, ProcessPlan};
pub(crate) use rootless::{Caller, Writer};
pub(crate) use scheduling::{Affinity, MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES, MemoryPolicy, SchedAttr};
pub(crate) use sysctl::Sysctl;

use crate::cgroups::devices::Rule;
use crate::cgroups::settings::Setting;
use crate::cgroups::{self, settings};
use crate::error::{Error, Result};
use crate::rootfs::plan as rootfs_plan;
use rootfs_plan::{Enter, HostPath, RootPath, RootfsPlan};

/// What the plan must know of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) cgroups: cgroups::Version,
    /// The highest capability of this kernel.
    pub(crate) last_cap: u8,
    /// The capabilities that this process may give away, as a mask.
    pub(crate) permitted: u64,
    /// Of the security modules that the configuration asks for, those that this kernel has.
    pub(crate) lsm: Lsm,
    pub(crate) caller: Caller,
}

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) id: String,
    /// Absolute.
    pub(crate) bundle: PathBuf,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// Descriptors 3, 4, ... that stay open in the container.
    pub(crate) preserve_fds: u32,
    /// Variables that the program gets besides those of the configuration.
    pub(crate) listen: Vec<(&'static str, String)>,
    /// Whether systemd makes the cgroup.
    pub(crate) systemd: bool,
    /// The directory in which the container will find a socket to say that it is ready.
    pub(crate) notify: Option<PathBuf>,
}

/// What will be done, by the parent and by the child.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rootfs: HostPath,
    pub(crate) cgroups_path: Option<PathBuf>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) device_rules: Vec<Rule>,
    /// What systemd is told besides, where it makes the cgroup.
    pub(crate) unit_properties: Vec<cgroups::Property>,
    /// As which user the container may work in its cgroup, as the container counts users; None: it may not.
    pub(crate) cgroup_owner: Option<u32>,
    pub(crate) idmap: Option<IdMap>,
    /// Who writes its map of users, and that of groups.
    pub(crate) writers: [Writer; 2],
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) rdt: Option<rdt::RdtPlan>,
    pub(crate) hooks: HookPlans,
    /// poststart and poststop, for the record: `start` and `delete` run them.
    pub(crate) late_hooks: Option<oci_spec::runtime::Hooks>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// What some of them ask for.
    pub(crate) acting: annotations::Acting,
    pub(crate) child: ChildPlan,
    /// For the user: what cannot be granted.
    pub(crate) warnings: Vec<String>,
    /// For the debug log: what is ignored, and why that is right.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Whether it is of a further process of a container, which has no root of its own.
    pub(crate) fn is_exec(&self) -> bool {
        self.rootfs.0.as_os_str().is_empty()
    }
}

/// What the child does. It sees this through the memory that clone3 copied.
#[derive(Debug)]
pub(crate) struct ChildPlan {
    pub(crate) namespaces: Namespaces,
    pub(crate) rootfs: RootfsPlan,
    pub(crate) hostname: Option<CString>,
    pub(crate) domainname: Option<CString>,
    pub(crate) sysctl: Vec<Sysctl>,
    /// Whether the parent moves devices into the network namespace.
    pub(crate) has_net_devices: bool,
    /// The name of the session keyring; None: the caller's is kept.
    pub(crate) keyring: Option<CString>,
    pub(crate) labels: Labels,
    /// None: config.json has no `process`; then the container can be created, and not started.
    pub(crate) process: Option<ProcessPlan>,
    pub(crate) preserve_fds: u32,
    /// Whom an ordinary user has called: what the kernel does not grant them is an error.
    pub(crate) for_user: bool,
    /// Whether init can be looked into while it waits for `start`, by which time it has nothing that the container has not:
    /// or its user could not `exec` beside it, who has no rights over a process that cannot be dumped.
    pub(crate) visible_at_gate: bool,
    /// None: the parent sets it, or nobody.
    pub(crate) oom_score_adj: Option<i32>,
    /// Supplementary groups stay as the caller has them.
    pub(crate) keep_groups: bool,
}

/// What is written to uid_map and gid_map, user_namespaces(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub(crate) uid: String,
    pub(crate) gid: String,
}

/// Makes the plan, or says which field cannot be carried out.
pub(crate) fn make(spec: &Spec, options: &Options, facts: &Facts) -> Result<Plan> {
    check_version(spec.version())?;
    let mut warnings = Vec::new();
    let no_linux = empty_linux();
    let linux = spec.linux().as_ref().unwrap_or(&no_linux);
    let namespaces = namespaces::plan(linux)?;
    rootless::check(spec, linux, &namespaces, facts)?;
    let idmap = namespaces::idmap(linux, &namespaces)?;
    check_needs(spec, linux, &namespaces)?;
    let resources = linux.resources().as_ref();
    let annotations = annotations::all(spec)?;
    annotations::check(&annotations, &mut warnings)?;
    let acting = acting(&annotations)?;
    let mut process = spec
        .process()
        .as_ref()
        .map(|process| process::plan(process, linux, facts, &namespaces, &acting, &mut warnings))
        .transpose()?;
    if let Some(process) = &mut process {
        options.listen.iter().try_for_each(|(name, value)| process.set_env(name, value))?;
        if options.notify.is_some() {
            process.set_env("NOTIFY_SOCKET", &format!("{NOTIFY}/notify.sock"))?;
        }
    }
    let hooks = hooks::plan(spec.hooks().as_ref(), process.as_ref())?;
    let mut rootfs = rootfs(spec, linux, options, lsm::mount_label(linux, facts.lsm)?, &mut warnings)?;
    idmap_option::resolve(&mut rootfs.mounts, linux)?;
    check_idmaps(&rootfs, &namespaces)?;
    rootless::or_hosts(&mut rootfs.mounts, &namespaces, facts);
    let net_devices = netdev::plan(linux, &namespaces, facts)?;
    let (oom_score_adj, childs_oom_score_adj) = oom_score_adj(spec.process().as_ref(), facts)?;
    let rdt = rdt::plan(linux, &options.id, &mut warnings)?;
    let child = ChildPlan {
        rootfs,
        hostname: name(spec.hostname().as_deref(), "hostname")?,
        domainname: name(spec.domainname().as_deref(), "domainname")?,
        sysctl: sysctl::plan(linux, &namespaces)?,
        has_net_devices: !net_devices.is_empty(),
        keyring: if options.no_new_keyring { None } else { Some(keyring(&options.id)?) },
        labels: lsm::labels(spec.process().as_ref(), facts.lsm)?,
        process,
        preserve_fds: options.preserve_fds,
        for_user: facts.caller.is_user(),
        visible_at_gate: facts.caller.is_user() && !namespaces.has_strangers(),
        oom_score_adj: childs_oom_score_adj,
        keep_groups: acting.keep_groups,
        namespaces,
    };
    Ok(Plan {
        rootfs: rootfs_plan::root(spec.root().as_ref(), &options.bundle)?,
        cgroups_path: cgroups_path(linux)?,
        settings: settings(resources, facts.cgroups)?,
        device_rules: cgroups::devices::rules(resources)?,
        unit_properties: if options.systemd { variant::properties(&annotations)? } else { Vec::new() },
        cgroup_owner: cgroup_owner(&child, facts.cgroups),
        writers: facts.writers(idmap.as_ref()),
        idmap,
        oom_score_adj,
        net_devices,
        rdt,
        hooks,
        late_hooks: hooks::for_record(spec.hooks().as_ref()),
        annotations,
        acting,
        notes: notes(&child),
        child,
        warnings,
    })
}

fn notes(child: &ChildPlan) -> Vec<String> {
    let Some(process) = &child.process else { return Vec::new() };
    let filter = process.seccomp.iter().flat_map(|filter| filter.notes.clone());
    filter.chain(process.capabilities.note()).collect()
}

/// An empty `linux` object: `Linux::default()` of oci-spec is a whole example configuration.
fn empty_linux() -> Linux {
    serde_json::from_slice(b"{}").unwrap_or_default()
}

/// Any 1.x is accepted: minor versions only add, and what is unknown is ignored or refused by its own field.
fn check_version(version: &str) -> Result<()> {
    let core = version.split(['-', '+']).next().unwrap_or("");
    let parts: Vec<_> = core.split('.').collect();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &&str| digits(part) && (*part == "0" || !part.starts_with('0'));
    if version.is_empty() {
        return Err(Error::at("ociVersion", "is missing"));
    }
    if parts.len() != 3 || !parts.iter().all(number) {
        return Err(Error::at("ociVersion", format!("{version:?} is not a version (SemVer 2.0.0)")));
    }
    if parts.first() != Some(&"1") {
        return Err(Error::at("ociVersion", format!("{version:?} is not supported, only 1.x")));
    }
    Ok(())
}

fn is_set(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

/// What only makes sense in a namespace of the container's own.
fn check_needs(spec: &Spec, linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    if !has_mount_namespace(linux) {
        let given = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
        if given(linux.masked_paths()) || given(linux.readonly_paths()) {
            let text = "unable to restrict sys entries without a private MNT namespace";
            return Err(Error::at("linux.namespaces", text).hint("add {\"type\": \"mount\"}"));
        }
    }
    if is_set(spec.hostname()) && !namespaces.has(libc::CLONE_NEWUTS) {
        return Err(Error::at("hostname", "unable to set hostname without a private UTS namespace"));
    }
    if is_set(spec.domainname()) && !namespaces.has(libc::CLONE_NEWUTS) {
        return Err(Error::at("domainname", "unable to set domainname without a private UTS namespace"));
    }
    for (field, paths) in [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())]
    {
        for (index, path) in paths.iter().flatten().enumerate() {
            if !path.starts_with('/') {
                return Err(Error::at(format!("{field}[{index}]"), format!("{path:?} is not an absolute path")));
            }
        }
    }
    Ok(())
}

/// A mount whose ids are mapped as the container's own needs a container with ids of its own.
fn check_idmaps(rootfs: &RootfsPlan, namespaces: &Namespaces) -> Result<()> {
    let without_map = |mount: &rootfs_plan::MountPlan| mount.idmap.as_ref().is_some_and(|idmap| idmap.map.is_none());
    match rootfs.mounts.iter().position(without_map) {
        Some(index) if !namespaces.has(libc::CLONE_NEWUSER) => {
            let text = "idmap without mappings, and the container has no user namespace whose mappings could be used";
            Err(Error::at(format!("mounts[{index}].options"), text).hint("give the mount uidMappings and gidMappings"))
        }
        _ => Ok(()),
    }
}

/// A host name: the kernel takes up to 64 bytes (`__NEW_UTS_LEN`).
fn name(name: Option<&str>, field: &str) -> Result<Option<CString>> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    if name.len() > 64 {
        let shown: String = name.chars().take(70).collect();
        return Err(Error::at(field, format!("\"{shown}...\" has {} bytes, the kernel takes up to 64", name.len())));
    }
    rootfs_plan::c_string(name.as_bytes(), field).map(Some)
}

/// Where the container finds the directory of its socket for sd_notify(3): runc's place.
const NOTIFY: &str = "/run/notify";

fn notify_mount(directory: &Path) -> Mount {
    let mut mount = Mount::default();
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    mount
        .set_destination(NOTIFY.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(directory.to_owned()))
        .set_options(Some(options));
    mount
}

fn rootfs(
    spec: &Spec,
    linux: &Linux,
    options: &Options,
    label: Option<CString>,
    warnings: &mut Vec<String>,
) -> Result<RootfsPlan> {
    let mounts: Vec<_> =
        spec.mounts().iter().flatten().chain(&options.notify.as_deref().map(notify_mount)).cloned().collect();
    let mut plans: Vec<_> = mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| rootfs_plan::mount(index, mount, &options.bundle, warnings))
        .collect::<Result<_>>()?;
    if let Some(label) = &label {
        lsm::label_mounts(&mut plans, label);
    }
    let propagation = linux
        .rootfs_propagation()
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(rootfs_plan::root_propagation)
        .transpose()?;
    let inherited = match propagation.map(|propagation| propagation.flag) {
        Some(libc::MS_SHARED) => libc::MS_SHARED,
        Some(libc::MS_PRIVATE) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    };
    if options.no_pivot && inherited == libc::MS_PRIVATE {
        return Err(Error::at(
            "linux.rootfsPropagation",
            "rootfsPropagation of [r]private is not safe without pivot_root",
        ));
    }
    let own_dev = plans.iter().any(|plan| {
        matches!(plan.kind, rootfs_plan::MountKind::Bind { .. }) && plan.target.as_c_str().to_bytes() == b"dev"
    });
    let masked = paths(linux.masked_paths().as_ref(), "linux.maskedPaths")?;
    if let Some(index) = masked.iter().position(RootPath::is_root) {
        return Err(Error::at(format!("linux.maskedPaths[{index}]"), "\"/\" is the whole root file system"));
    }
    let readonly_paths = paths(linux.readonly_paths().as_ref(), "linux.readonlyPaths")?;
    let root_readonly = spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false);
    Ok(RootfsPlan {
        inherited,
        propagation,
        readonly: root_readonly || readonly_paths.iter().any(RootPath::is_root),
        enter: match (has_mount_namespace(linux), options.no_pivot) {
            (false, _) => Enter::Chroot,
            (true, true) => Enter::Move,
            (true, false) => Enter::Pivot,
        },
        mounts: plans,
        dev: if own_dev { None } else { Some(devices::plan(linux)?) },
        masked,
        readonly_paths,
        label,
    })
}

fn has_mount_namespace(linux: &Linux) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::Mount)
}

fn paths(paths: Option<&Vec<String>>, field: &str) -> Result<Vec<RootPath>> {
    let paths = paths.into_iter().flatten().enumerate();
    paths.map(|(index, path)| RootPath::new(Path::new(path), &format!("{field}[{index}]"))).collect()
}

fn settings(resources: Option<&LinuxResources>, version: cgroups::Version) -> Result<Vec<Setting>> {
    let Some(resources) = resources else { return Ok(Vec::new()) };
    match version {
        cgroups::Version::V1 => settings::v1(resources),
        cgroups::Version::V2 => settings::v2(resources),
    }
}

/// The user of its program, where it can write there: on v2, in a cgroup namespace of its own, by a mount that is not
/// read-only (config-linux.md, Cgroup ownership). On v1 that would not be safe.
fn cgroup_owner(child: &ChildPlan, version: cgroups::Version) -> Option<u32> {
    let writable = |mount: &rootfs_plan::MountPlan| {
        mount.kind == rootfs_plan::MountKind::Cgroup
            && (mount.attrs.set | mount.attrs_recursive.set) & libc::MOUNT_ATTR_RDONLY == 0
    };
    let delegated = version == cgroups::Version::V2
        && child.namespaces.is_new(libc::CLONE_NEWCGROUP)
        && child.rootfs.mounts.iter().any(writable);
    delegated.then(|| child.process.as_ref().map_or(0, |process| process.uid))
}

fn cgroups_path(linux: &Linux) -> Result<Option<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let Some(path) = linux.cgroups_path() else { return Ok(None) };
    rootfs_plan::c_string(path.as_os_str().as_bytes(), "linux.cgroupsPath")?;
    Ok(Some(path.clone()))
}

/// The name of the container's session keyring.
pub(crate) fn keyring(id: &str) -> Result<CString> {
    rootfs_plan::c_string(format!("_ses.{id}").as_bytes(), "id")
}

/// What the parent sets, and what the child: a file of a process that cannot be dumped is real root's alone, who in turn has
/// to set it from outside of a user namespace.
fn oom_score_adj(process: Option<&Process>, facts: &Facts) -> Result<(Option<i32>, Option<i32>)> {
    match process.and_then(Process::oom_score_adj) {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(Error::at("process.oomScoreAdj", format!("{value} is not between -1000 and 1000")))
        }
        value if facts.caller.is_real_root() => Ok((value, None)),
        value => Ok((None, value)),
    }
}
