//! A plan → the lines that `--debug` logs before anything is made. Pure.

use super::namespaces::{KINDS, clone_flag, kind_name};
use super::{HookPlan, Plan};
use crate::rootfs::plan::{MountKind, MountPlan};

/// What will be done, a line each, by the fields of config.json.
pub(crate) fn describe(plan: &Plan) -> Vec<String> {
    let child = &plan.child;
    let mut lines = vec![format!("plan: root.path: {:?}", plan.rootfs.0)];
    let made = KINDS.iter().filter(|kind| child.namespaces.is_new(clone_flag(**kind))).map(|kind| kind_name(*kind));
    lines.push(format!("plan: linux.namespaces: new: {}", made.collect::<Vec<_>>().join(" ")));
    for joined in &child.namespaces.joined {
        lines.push(format!("plan: linux.namespaces[{}]: join {:?}", joined.index, joined.path));
    }
    for setting in &plan.settings {
        lines.push(format!("plan: {}: {} = {:?}", setting.field, setting.file, setting.value.trim_end()));
    }
    lines.extend(child.rootfs.mounts.iter().enumerate().map(|(index, mount)| line_of_mount(index, mount)));
    let hooks = &plan.hooks;
    let before = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container, &hooks.start_container];
    lines.extend(before.into_iter().chain([&hooks.poststart, &hooks.poststop]).flatten().map(line_of_hook));
    if let Some(process) = &child.process {
        lines.push(format!("plan: process.args: {:?}, user {}, group {}", process.args, process.uid, process.gid));
    }
    lines
}

fn line_of_mount(index: usize, mount: &MountPlan) -> String {
    let what = match &mount.kind {
        MountKind::New { fstype, .. } => fstype.to_string_lossy().into_owned(),
        MountKind::Bind { source, .. } => format!("bind of {:?}", source.0),
        MountKind::Remount { .. } => "remount".to_owned(),
        MountKind::Cgroup => "cgroup".to_owned(),
    };
    format!("plan: mounts[{index}]: {what} on {:?}", mount.target.display())
}

fn line_of_hook(hook: &HookPlan) -> String {
    format!("plan: {}: {:?}", hook.field, hook.path)
}
