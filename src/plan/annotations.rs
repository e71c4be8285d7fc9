//! `annotations`, and those of them that act. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};

const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";

/// The file in which criu finds further options.
pub(crate) const CRIU_CONFIG: &str = "org.criu.config";

/// The annotations that act; a prefix of such ends with a dot. They are crun's, and runc's.
pub(crate) const ANNOTATIONS: &[&str] =
    &[CRIU_CONFIG, super::variant::PREFIX, HOOKS_STDERR, HOOKS_STDOUT, KEEP_GROUPS, PIDFD_RECEIVER, SECCOMP_RECEIVER];

/// Annotations of crun without which the container would be another one: refused.
const REFUSED: &[&str] = &["run.oci.handler", "run.oci.seccomp_bpf_data"];

/// Annotations of crun that would act there, and do not here.
const WITHOUT_EFFECT: &[&str] = &[
    "run.oci.delegate-cgroup",
    "run.oci.mount_context_type",
    "run.oci.seccomp.plugins",
    "run.oci.seccomp_fail_unknown_syscall",
    "run.oci.systemd.force_cgroup_v1",
    "run.oci.systemd.subgroup",
];

/// What annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acting {
    /// Files to which the output of hooks is appended.
    pub(crate) hook_output: HookOutput,
    /// The caller's supplementary groups stay; `additionalGids` is not looked at.
    pub(crate) keep_groups: bool,
    /// A socket that gets init's pidfd, as by `--pidfd-socket`.
    pub(crate) pidfd_receiver: Option<PathBuf>,
    /// The socket of a seccomp agent, where linux.seccomp names none.
    pub(crate) seccomp_receiver: Option<PathBuf>,
}

/// Where hooks write to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookOutput {
    pub(crate) stdout: Option<PathBuf>,
    pub(crate) stderr: Option<PathBuf>,
}

pub(super) fn all(spec: &Spec) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    map.extend(spec.annotations().clone().unwrap_or_default());
    if map.contains_key("") {
        return Err(Error::at("annotations", "has an empty key"));
    }
    Ok(map)
}

/// Those that other runtimes know and we do not: no container is silently another one than was asked for.
pub(super) fn check(annotations: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Result<()> {
    let find = |names: &'static [&str]| names.iter().filter(|name| annotations.contains_key(**name));
    if let Some(name) = find(REFUSED).next() {
        return Err(Error::at(format!("annotations[{name:?}]"), "is not supported").hint("crun knows it"));
    }
    warnings.extend(find(WITHOUT_EFFECT).map(|name| format!("annotations[{name:?}] has no effect")));
    Ok(())
}

/// Reads those that act, also from a record.
pub(crate) fn acting(annotations: &BTreeMap<String, String>) -> Result<Acting> {
    let path = |key: &str| match annotations.get(key).map(PathBuf::from) {
        Some(path) if !path.is_absolute() => {
            Err(Error::at(format!("annotations[{key:?}]"), format!("{path:?} is not an absolute path")))
        }
        path => Ok(path),
    };
    Ok(Acting {
        hook_output: HookOutput { stdout: path(HOOKS_STDOUT)?, stderr: path(HOOKS_STDERR)? },
        keep_groups: annotations.get(KEEP_GROUPS).is_some_and(|value| value != "0"),
        pidfd_receiver: path(PIDFD_RECEIVER)?,
        seccomp_receiver: path(SECCOMP_RECEIVER)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_that_act_are_read_and_others_left_alone() {
        let of = |key: &str, value: &str| {
            acting(&BTreeMap::from([(key.to_owned(), value.to_owned())])).map_err(|error| error.to_string())
        };
        assert_eq!(of("org.example", "x"), Ok(Acting::default()));
        assert!(of(KEEP_GROUPS, "1").unwrap().keep_groups);
        assert!(!of(KEEP_GROUPS, "0").unwrap().keep_groups);
        assert_eq!(of(HOOKS_STDOUT, "/a").unwrap().hook_output.stdout, Some("/a".into()));
        let error = "annotations[\"run.oci.pidfd_receiver\"]: \"a\" is not an absolute path";
        assert_eq!(of(PIDFD_RECEIVER, "a"), Err(error.to_owned()));
    }

    #[test]
    fn what_only_others_do_is_refused_or_warned_of() {
        let of = |key: &str| {
            let mut warnings = Vec::new();
            let checked = check(&BTreeMap::from([(key.to_owned(), "1".to_owned())]), &mut warnings);
            (checked.map_err(|error| error.to_string()), warnings)
        };
        assert_eq!(of("org.example"), (Ok(()), vec![]));
        let error = "annotations[\"run.oci.handler\"]: is not supported";
        assert!(of("run.oci.handler").0.unwrap_err().starts_with(error));
        let warning = "annotations[\"run.oci.systemd.subgroup\"] has no effect".to_owned();
        assert_eq!(of("run.oci.systemd.subgroup"), (Ok(()), vec![warning]));
    }
}
