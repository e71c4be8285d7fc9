//! `annotations`, and those of them that act. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};

const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// The annotations that act; those that begin with a prefix end with a dot. They are crun's.
pub(crate) const ANNOTATIONS: &[&str] = &[HOOKS_STDERR, HOOKS_STDOUT, KEEP_GROUPS, PIDFD_RECEIVER];

/// What annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acting {
    /// Files to which the output of hooks is appended.
    pub(crate) hook_output: HookOutput,
    /// The caller's supplementary groups stay; `additionalGids` is not looked at.
    pub(crate) keep_groups: bool,
    /// A socket that gets init's pidfd, as by `--pidfd-socket`.
    pub(crate) pidfd_receiver: Option<PathBuf>,
}

/// Where hooks write to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookOutput {
    pub(crate) stdout: Option<PathBuf>,
    pub(crate) stderr: Option<PathBuf>,
}

pub(super) fn all(spec: &Spec) -> Result<BTreeMap<String, String>> {
    let map: BTreeMap<_, _> = spec.annotations().clone().unwrap_or_default().into_iter().collect();
    if map.contains_key("") {
        return Err(Error::at("annotations", "has an empty key"));
    }
    Ok(map)
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
        keep_groups: annotations.contains_key(KEEP_GROUPS),
        pidfd_receiver: path(PIDFD_RECEIVER)?,
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
        assert_eq!(of(HOOKS_STDOUT, "/a").unwrap().hook_output.stdout, Some("/a".into()));
        let error = "annotations[\"run.oci.pidfd_receiver\"]: \"a\" is not an absolute path";
        assert_eq!(of(PIDFD_RECEIVER, "a"), Err(error.to_owned()));
    }
}
