//! `exec`: a further process of a container → [`Plan`]. Pure.

use std::collections::HashSet;
use std::ffi::CString;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};

use super::{ChildPlan, Facts, HookPlans, Lsm, Plan, empty_linux, lsm, namespaces, process};
use crate::error::{Error, Result};
use crate::rootfs::plan::{HostPath, RootfsPlan};

/// What the command line changes of the container's own process.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) args: Vec<String>,
    pub(crate) terminal: bool,
    pub(crate) cwd: Option<PathBuf>,
    /// Added to the environment.
    pub(crate) env: Vec<String>,
    /// `UID` or `UID:GID`.
    pub(crate) user: Option<String>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux_label: Option<String>,
}

/// Which process it is.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// That of a process.json.
    Whole(Box<Process>),
    /// That of the container's config.json, changed.
    Changed(Changes),
}

/// Which security modules an exec asks for.
pub(crate) fn exec_lsm(spec: &Spec, wanted: &Wanted) -> Lsm {
    let own = lsm::wanted(spec.process().as_ref(), None);
    let new = match wanted {
        Wanted::Whole(process) => lsm::wanted(Some(process), None),
        Wanted::Changed(changes) => {
            Lsm { apparmor: changes.apparmor_profile.is_some(), selinux: changes.selinux_label.is_some() }
        }
    };
    Lsm { apparmor: own.apparmor || new.apparmor, selinux: own.selinux || new.selinux }
}

/// Makes the plan. `spec` is the container's configuration.
pub(crate) fn make_exec(
    spec: &Spec,
    wanted: Wanted,
    keyring: Option<CString>,
    preserve_fds: u32,
    facts: &Facts,
) -> Result<Plan> {
    let own = spec.process().as_ref();
    let wanted = match wanted {
        Wanted::Whole(process) => with_defaults(*process, own),
        Wanted::Changed(changes) => {
            let own = own.ok_or_else(|| Error::at("process", "config.json has none").hint("give one by --process"))?;
            changed(own.clone(), changes)?
        }
    };
    let no_linux = empty_linux();
    let linux = spec.linux().as_ref().unwrap_or(&no_linux);
    let namespaces = namespaces::plan(linux)?;
    let mut warnings = Vec::new();
    let annotations = super::annotations::all(spec)?;
    let acting = super::acting(&annotations)?;
    let process = process::plan(&wanted, linux, facts, &namespaces, &acting, &mut warnings)?;
    let (oom_score_adj, childs_oom_score_adj) = super::oom_score_adj(Some(&wanted), facts)?;
    let child = ChildPlan {
        namespaces,
        rootfs: RootfsPlan::default(),
        hostname: None,
        domainname: None,
        sysctl: Vec::new(),
        has_net_devices: false,
        keyring,
        labels: lsm::labels(Some(&wanted), facts.lsm)?,
        process: Some(process),
        preserve_fds,
        for_user: facts.caller.is_user(),
        visible_at_gate: false,
        oom_score_adj: childs_oom_score_adj,
        keep_groups: acting.keep_groups,
    };
    Ok(Plan {
        rootfs: HostPath(PathBuf::new()),
        cgroups_path: None,
        unit_properties: Vec::new(),
        settings: Vec::new(),
        device_rules: Vec::new(),
        cgroup_owner: None,
        idmap: None,
        writers: facts.writers(None),
        oom_score_adj,
        rdt: None,
        net_devices: Vec::new(),
        hooks: HookPlans::default(),
        late_hooks: None,
        annotations,
        acting,
        notes: super::notes(&child),
        child,
        warnings,
    })
}

/// What a process.json does not say is as for the container's own process, as with runc.
fn with_defaults(mut process: Process, own: Option<&Process>) -> Process {
    let Some(own) = own else { return process };
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().as_ref().is_none_or(String::is_empty) {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(own.user().umask());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    process
}

fn changed(mut process: Process, changes: Changes) -> Result<Process> {
    if changes.args.is_empty() {
        return Err(Error::new("exec args cannot be empty").hint("name a command, or a process.json by --process"));
    }
    process.set_args(Some(changes.args)).set_terminal(Some(changes.terminal));
    if let Some(cwd) = changes.cwd {
        process.set_cwd(cwd);
    }
    process.env_mut().get_or_insert_default().extend(changes.env);
    if let Some(text) = &changes.user {
        let (uid, gid) = user(text)?;
        let user = process.user_mut();
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    process.user_mut().additional_gids_mut().get_or_insert_default().extend(changes.additional_gids);
    if changes.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if changes.apparmor_profile.is_some() {
        process.set_apparmor_profile(changes.apparmor_profile);
    }
    if changes.selinux_label.is_some() {
        process.set_selinux_label(changes.selinux_label);
    }
    if !changes.capabilities.is_empty() {
        let mut sets = process.capabilities().clone().unwrap_or_else(none);
        add(&mut sets, &changes.capabilities)?;
        process.set_capabilities(Some(sets));
    }
    Ok(process)
}

/// The whole text must be numbers: `strtol` and its relatives take "" and "x" for 0, which is root (CVE-2026-30892).
fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits).ok_or_else(|| {
            Error::at("--user", format!("{text:?} is not a number from 0 to 4294967294")).hint("UID or UID:GID")
        })
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

/// `LinuxCapabilities::default()` of oci-spec has some.
fn none() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
    sets
}

/// To the bounding, effective and permitted set; never to the inheritable one (CVE-2022-29162). Those that are inheritable
/// already become ambient, too, as with runc: a process that is not root's has no other way to keep one.
fn add(sets: &mut LinuxCapabilities, names: &[String]) -> Result<()> {
    let mut more = HashSet::new();
    for name in names {
        let plain = name.to_ascii_uppercase();
        let plain = plain.strip_prefix("CAP_").unwrap_or(&plain);
        let known = Capability::from_str(plain)
            .map_err(|_| Error::at("--cap", format!("{name:?} is not a capability")).hint("for example CAP_NET_RAW"))?;
        more.insert(known);
    }
    let with = |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&more).copied().collect());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    more.retain(|capability| sets.inheritable().iter().flatten().any(|other| other == capability));
    let ambient = Some(sets.ambient().iter().flatten().chain(&more).copied().collect());
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted).set_ambient(ambient);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers_and_nothing_else() {
        assert_eq!(user("7").ok(), Some((7, None)));
        assert_eq!(user("0:4294967294").ok(), Some((0, Some(4_294_967_294))));
        for text in ["", "-1", "+1", "1x", "1:", ":1", "1:2:3", " 1", "4294967296", "root"] {
            assert!(user(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn capabilities_are_added_to_three_sets() {
        let mut sets = none();
        add(&mut sets, &["CAP_NET_RAW".into(), "kill".into()]).unwrap();
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert_eq!(set.as_ref().map(HashSet::len), Some(2));
        }
        assert!(sets.inheritable().is_none() && sets.ambient().as_ref().is_none_or(HashSet::is_empty));
        sets.set_inheritable(Some(HashSet::from([Capability::Kill, Capability::Chown])));
        add(&mut sets, &["CAP_NET_RAW".into(), "kill".into()]).unwrap();
        assert_eq!(sets.ambient(), &Some(HashSet::from([Capability::Kill])));
        assert!(add(&mut sets, &["CAP_BANANA".into()]).is_err());
    }

    #[test]
    fn a_process_json_keeps_what_the_container_has() {
        let parse = |text: &str| serde_json::from_str::<Process>(text).unwrap();
        let own = parse(
            r#"{"cwd":"/","user":{},"args":["a"],"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":2}],"oomScoreAdj":9,"capabilities":{"bounding":["CAP_KILL"]}}"#,
        );
        let merged = with_defaults(parse(r#"{"cwd":"/tmp","user":{},"args":["b"]}"#), Some(&own));
        assert_eq!(merged.oom_score_adj(), Some(9));
        assert_eq!(merged.rlimits().as_ref().map(Vec::len), Some(1));
        assert_eq!(merged.capabilities(), own.capabilities());
        assert_eq!(merged.args().as_deref(), Some(&["b".to_owned()][..]));
    }
}
