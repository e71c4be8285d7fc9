//! `hooks` → programs to run. Pure.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use oci_spec::runtime::{Hook, Hooks};

use super::ProcessPlan;
use crate::error::{Error, Result};
use crate::rootfs::plan::c_string;

/// One program.
#[derive(Debug)]
pub(crate) struct HookPlan {
    /// `hooks.prestart[0]`.
    pub(crate) field: String,
    pub(crate) path: CString,
    pub(crate) args: Vec<CString>,
    /// None: not given.
    pub(crate) env: Option<Vec<CString>>,
    pub(crate) timeout_seconds: Option<u64>,
}

/// The six lists of config.md, POSIX-platform Hooks.
#[derive(Debug, Default)]
pub(crate) struct HookPlans {
    pub(crate) prestart: Vec<HookPlan>,
    pub(crate) create_runtime: Vec<HookPlan>,
    pub(crate) create_container: Vec<HookPlan>,
    pub(crate) start_container: Vec<HookPlan>,
    pub(crate) poststart: Vec<HookPlan>,
    pub(crate) poststop: Vec<HookPlan>,
}

/// Their names, in the order in which they run.
pub(crate) const NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Plans all lists. A `startContainer` hook without an environment gets that of the process.
pub(super) fn plan(hooks: Option<&Hooks>, process: Option<&ProcessPlan>) -> Result<HookPlans> {
    let Some(hooks) = hooks else { return Ok(HookPlans::default()) };
    let [prestart, create_runtime, create_container, start_container, poststart, poststop] = NAMES;
    let mut plans = HookPlans {
        prestart: list(prestart, hooks.prestart().as_ref())?,
        create_runtime: list(create_runtime, hooks.create_runtime().as_ref())?,
        create_container: list(create_container, hooks.create_container().as_ref())?,
        start_container: list(start_container, hooks.start_container().as_ref())?,
        poststart: list(poststart, hooks.poststart().as_ref())?,
        poststop: list(poststop, hooks.poststop().as_ref())?,
    };
    for hook in &mut plans.start_container {
        if hook.env.is_none() {
            hook.env = process.map(|process| process.env.clone());
        }
    }
    Ok(plans)
}

/// Plans the hooks of a record, or of a configuration whose process is on its way already.
pub(crate) fn late(hooks: Option<&Hooks>) -> Result<HookPlans> {
    plan(hooks, None)
}

/// What `start` and `delete` need of the hooks.
pub(super) fn for_record(hooks: Option<&Hooks>) -> Option<Hooks> {
    let hooks = hooks?;
    let some = |list: &Option<Vec<Hook>>| list.clone().filter(|list| !list.is_empty());
    let (poststart, poststop) = (some(hooks.poststart()), some(hooks.poststop()));
    if poststart.is_none() && poststop.is_none() {
        return None;
    }
    let mut late = Hooks::default();
    late.set_poststart(poststart).set_poststop(poststop);
    Some(late)
}

fn list(name: &str, hooks: Option<&Vec<Hook>>) -> Result<Vec<HookPlan>> {
    hooks.into_iter().flatten().enumerate().map(|(index, hook)| one(&format!("hooks.{name}[{index}]"), hook)).collect()
}

fn one(field: &str, hook: &Hook) -> Result<HookPlan> {
    let path = hook.path();
    let at = |name: &str| format!("{field}.{name}");
    if !path.is_absolute() {
        return Err(Error::at(at("path"), format!("{path:?} is not an absolute path")));
    }
    let timeout_seconds = match hook.timeout() {
        Some(timeout) if timeout <= 0 => {
            return Err(Error::at(at("timeout"), format!("{timeout} is not greater than 0")));
        }
        timeout => timeout.and_then(|timeout| u64::try_from(timeout).ok()),
    };
    let strings = |name: &str, texts: &[String]| -> Result<Vec<CString>> {
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| c_string(text.as_bytes(), &at(&format!("{name}[{index}]"))))
            .collect()
    };
    let path = c_string(path.as_os_str().as_bytes(), &at("path"))?;
    let mut args = strings("args", hook.args().as_deref().unwrap_or_default())?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let env = hook.env().as_deref().map(|env| strings("env", env)).transpose()?;
    Ok(HookPlan { field: field.to_owned(), path, args, env, timeout_seconds })
}
