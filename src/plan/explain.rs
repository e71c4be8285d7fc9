//! A fault of the child → the sentence, with the field that it is about. Pure.

use nix::sys::signal::Signal;

use crate::error::{Errno, Error};
use crate::rootfs::plan::{Enter, MountKind, Param};
use crate::sync::{Fault, START_CONTAINER, Step};

mod program;

use super::{HookPlans, Plan};
use program::{hint, program};

/// Writes the sentence for a fault.
pub(crate) fn explain(plan: &Plan, fault: &Fault) -> Error {
    let errno = Errno(fault.errno);
    let item = usize::from(fault.item);
    let detail = String::from_utf8_lossy(fault.detail.as_bytes()).into_owned();
    let error = match fault.step {
        Step::Hook => return hook(&plan.hooks, fault, item, &detail),
        Step::NotFound | Step::NotExecutable => {
            let error = program(plan, fault);
            return match hint(fault, &detail) {
                Some(hint) => error.hint(hint),
                None => error,
            };
        }
        Step::Exec => return explain_late(fault, &plan.hooks),
        // Not those of an ordinary user.
        Step::Groups if fault.errno != libc::EPERM => {
            let groups = plan.child.process.as_ref().map_or(&[][..], |process| &process.additional_gids);
            Error::at("process.user.additionalGids", format!("set the groups {groups:?}"))
        }
        step if (Step::MountTarget as u8..=Step::CopyUp as u8).contains(&(step as u8)) => mount(plan, fault, item),
        _ => simple(plan, fault.step, item),
    };
    // EPROTO: what was read back differs from what was set; there is no errno to show.
    let error = if fault.errno == libc::EPROTO { error } else { error.errno(errno) };
    let error = error.kernel(kernel_words(&detail));
    match (fault.step, fault.errno) {
        (Step::ApparmorProfile, libc::ENOENT) => {
            error.hint("no profile of this name is loaded: apparmor_parser -r FILE loads one, aa-status lists them")
        }
        (Step::ApparmorProfile, libc::EACCES | libc::EPERM) => {
            error.hint("the runtime is confined itself, and its profile does not allow this change_profile")
        }
        (Step::KeyLabel | Step::SelinuxLabel | Step::MountLabel, errno) => selinux_hint(error, errno),
        (Step::MountParam, errno) if is_label(plan, fault) => selinux_hint(error, errno),
        (Step::Sysctl, libc::ENOENT) => error.hint("this kernel has no such parameter, or not in this namespace"),
        (Step::Seccomp, libc::EBUSY) => error.hint(
            "a filter that is in force here already has a seccomp agent, and the kernel lets a process have one: run without \
             SCMP_ACT_NOTIFY, outside or inside",
        ),
        (Step::Listener, _) => error.hint(
            "who may not take it by pidfd_getfd(2) (CAP_SYS_PTRACE) needs a profile that allows sendmsg",
        ),
        (Step::Seccomp, libc::EINVAL) => error.hint(
            "the kernel refused the program, of which dmesg may say more, or a flag: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs \
             Linux 5.19",
        ),
        (Step::UserNamespaceRoot, libc::EINVAL) => error.hint("linux.uidMappings and linux.gidMappings must map id 0"),
        (Step::Terminal, libc::ENOENT | libc::ENODEV) => {
            error.hint("mount a devpts at /dev/pts (a mount of type devpts)")
        }
        (Step::SecondChild | Step::ExecChild, libc::EAGAIN) => error.hint(NO_MORE_PROCESSES),
        (Step::PivotRoot, libc::EPERM) if plan.child.rootfs.enter == Enter::Pivot => error.hint(
            "a seccomp profile around this runtime may deny pivot_root(2), as Docker's does: --no-pivot goes without it",
        ),
        (Step::Keyring, libc::EDQUOT) => error.hint("raise kernel.keys.maxkeys and kernel.keys.maxbytes"),
        _ => match user_namespace_hint(plan, fault) {
            Some(hint) => error.hint(hint),
            None => error,
        },
    }
}

/// Why the kernel refuses a mount to root of a user namespace, and what helps.
fn user_namespace_hint(plan: &Plan, fault: &Fault) -> Option<&'static str> {
    let mount = plan.child.rootfs.mounts.get(usize::from(fault.item));
    let fstype = match mount.map(|mount| &mount.kind) {
        Some(MountKind::New { fstype, .. }) => fstype.to_bytes(),
        _ => b"",
    };
    match (fault.step, fault.errno, fstype) {
        (Step::MountAttrs, libc::EPERM, _) => {
            Some("in a user namespace a flag of the host's mount cannot be taken away: leave the option out")
        }
        (Step::MountSource, libc::EINVAL, _)
            if matches!(mount.map(|mount| &mount.kind), Some(MountKind::Bind { recursive: false, .. })) =>
        {
            Some("other mounts are below it, which a user namespace may not uncover: \"rbind\" takes them along")
        }
        (Step::MountCreate, libc::EPERM, b"proc") => Some(
            "parts of the /proc around this one are covered, so that a user namespace gets no new one: uncover them in the \
             outer container (--security-opt systempaths=unconfined, procMount: Unmasked), or share its pid namespace",
        ),
        (Step::MountOpen | Step::MountCreate, libc::EPERM, b"mqueue") => Some("it needs an ipc namespace of its own"),
        (Step::MountOpen | Step::MountCreate, libc::EPERM, kind) if !kind.is_empty() => {
            Some("the kernel grants this file system to real root only, or to who owns what it shows")
        }
        _ => None,
    }
}

/// clone(2), EAGAIN.
pub(crate) const NO_MORE_PROCESSES: &str =
    "a limit is reached: linux.resources.pids.limit, RLIMIT_NPROC of the user, kernel.pid_max or kernel.threads-max";

/// Writes the sentence for a fault that `start` finds, which has no plan, only the hooks of the configuration.
pub(crate) fn explain_late(fault: &Fault, hooks: &HookPlans) -> Error {
    let detail = String::from_utf8_lossy(fault.detail.as_bytes()).into_owned();
    match fault.step {
        Step::Exec => {
            let (path, _) = detail.split_once('\0').unwrap_or((&detail, ""));
            let error = Error::at("process.args[0]", format!("exec {path}")).errno(Errno(fault.errno));
            if let Some(hint) = hint(fault, &detail) {
                return error.hint(hint);
            }
            match fault.errno {
                libc::ENOENT => error.hint("the file is there, so its interpreter or its ELF loader is missing"),
                // `create` has looked: its user may execute it.
                libc::EACCES => {
                    error.hint("its interpreter, or a label (AppArmor, SELinux), does not allow it; see dmesg")
                }
                libc::ENOEXEC => error.hint("it is neither a program of this architecture nor a script with a #! line"),
                _ => error,
            }
        }
        Step::Hook => hook(hooks, fault, usize::from(fault.item), &detail),
        step => Error::new(format!("container init: {step:?}")).errno(Errno(fault.errno)),
    }
}

fn failure(fault: &Fault, seconds: u64) -> HookFailure {
    match fault.sub {
        0 => HookFailure::Start(fault.errno),
        1 => HookFailure::Exit(fault.errno),
        2 => HookFailure::Signal(fault.errno),
        _ => HookFailure::Timeout(seconds),
    }
}

fn selinux_hint(error: Error, errno: i32) -> Error {
    match errno {
        libc::EINVAL => error.hint("the loaded SELinux policy has no such context (user:role:type:level)"),
        libc::EACCES => error.hint("the loaded SELinux policy denies it; the audit log (dmesg) says what it lacks"),
        _ => error,
    }
}

/// Whether a parameter of a mount is `linux.mountLabel`.
fn is_label(plan: &Plan, fault: &Fault) -> bool {
    let mount = plan.child.rootfs.mounts.get(usize::from(fault.item));
    let Some(MountKind::New { params, .. }) = mount.map(|mount| &mount.kind) else { return false };
    params.get(usize::from(fault.sub)).is_some_and(|param| param.key.as_c_str() == c"context" && param.option.is_none())
}

/// `tmpfs: Bad value for 'size'` → `Bad value for 'size'`: the type is in our sentence already.
fn kernel_words(detail: &str) -> String {
    detail.split_once(": ").map_or(detail, |(_, words)| words).to_owned()
}

fn mount(plan: &Plan, fault: &Fault, item: usize) -> Error {
    let field = format!("mounts[{item}]");
    let Some(mount) = plan.child.rootfs.mounts.get(item) else {
        return Error::at(field, format!("{:?}", fault.step));
    };
    let target = mount.target.display();
    let (fstype, params) = match &mount.kind {
        MountKind::New { fstype, params } => (fstype.to_string_lossy().into_owned(), params.as_slice()),
        MountKind::Remount { params } => ("remount".to_owned(), params.as_slice()),
        MountKind::Bind { source, .. } => (format!("bind of {:?}", source.0), &[][..]),
        MountKind::Cgroup => ("cgroup".to_owned(), &[][..]),
    };
    match fault.step {
        Step::MountTarget => Error::at(format!("{field}.destination"), format!("{target:?}")),
        Step::MountSource | Step::MountNotProc => {
            let MountKind::Bind { source, .. } = &mount.kind else {
                return Error::at(field, format!("{:?}", fault.step));
            };
            let other = format!("{:?} is not a procfs, and nothing else can be at \"/proc\"", source.0);
            let text = if fault.step == Step::MountNotProc { other } else { format!("{:?}", source.0) };
            Error::at(format!("{field}.source"), text)
        }
        Step::MountUnsafeTarget => {
            // The first words are runc's.
            let text = format!("{target:?} must be mounted on ordinary directory, and leads through a link");
            Error::at(format!("{field}.destination"), text)
        }
        Step::MountOpen => Error::at(format!("{field}.type"), format!("file system {fstype:?} on {target:?}")),
        Step::MountParam => {
            let param = params.get(usize::from(fault.sub));
            let field = match param.and_then(|param| param.option) {
                Some(index) => format!("{field}.options[{index}]"),
                None if is_label(plan, fault) => "linux.mountLabel".to_owned(),
                None => format!("{field}.source"),
            };
            let text = param.map_or(String::new(), Param::text);
            Error::at(field, format!("{fstype} on {target:?} does not accept {text:?}"))
        }
        Step::MountAttrs => Error::at(format!("{field}.options"), format!("set the flags of {fstype} on {target:?}")),
        Step::MountPropagation => Error::at(format!("{field}.options"), format!("set the propagation of {target:?}")),
        Step::MountLabel => Error::at("linux.mountLabel", format!("label {fstype} on {target:?}")),
        Step::CopyUp => Error::at(format!("{field}.options"), format!("tmpcopyup of {target:?}")),
        _ => Error::at(field, format!("mount {fstype} on {target:?}")),
    }
}

fn hook(hooks: &HookPlans, fault: &Fault, item: usize, output: &str) -> Error {
    let (list, index) = if item >= START_CONTAINER {
        (&hooks.start_container, item - START_CONTAINER)
    } else {
        (&hooks.create_container, item)
    };
    let (field, path) = list
        .get(index)
        .map_or((String::new(), String::new()), |hook| (hook.field.clone(), hook.path.to_string_lossy().into_owned()));
    let seconds = list.get(index).and_then(|hook| hook.timeout_seconds).unwrap_or(0);
    hook_failed(&field, &path, &failure(fault, seconds), output)
}

/// How a hook failed, with the seconds of its timeout.
pub(crate) enum HookFailure {
    Start(i32),
    Exit(i32),
    Signal(i32),
    Timeout(u64),
}

/// The sentence for a hook that failed, for the parent's hooks too. `error running <list> hook #<index>` are runc's words.
pub(crate) fn hook_failed(field: &str, path: &str, failure: &HookFailure, output: &str) -> Error {
    let place = field.strip_prefix("hooks.").and_then(|place| place.strip_suffix(']')?.split_once('['));
    let which = place.map_or("hook".to_owned(), |(list, index)| format!("error running {list} hook #{index}"));
    let hook = if path.is_empty() { which } else { format!("{which}: {path:?}") };
    let said = if output.is_empty() { String::new() } else { format!(", output: {:?}", output.trim_end()) };
    match failure {
        HookFailure::Start(errno) => Error::at(format!("{field}.path"), hook).errno(Errno(*errno)),
        HookFailure::Exit(code) => Error::at(field, format!("{hook}: exit status {code}{said}")),
        HookFailure::Signal(number) => {
            let name = Signal::try_from(*number).map_or(String::new(), |signal| format!(" ({signal})"));
            Error::at(field, format!("{hook}: signal {number}{name}{said}"))
        }
        HookFailure::Timeout(seconds) => {
            let text = format!("{hook}: hook ran past specified timeout of {seconds}.0s{said}");
            Error::at(format!("{field}.timeout"), text)
        }
    }
}

/// Steps that are one field, or none.
fn simple(plan: &Plan, step: Step, item: usize) -> Error {
    let child = &plan.child;
    let process = child.process.as_ref();
    let selinux = || child.labels.selinux.as_deref().unwrap_or_default();
    let path = |paths: &[crate::rootfs::plan::RootPath]| paths.get(item).map_or(String::new(), |path| path.display());
    match step {
        Step::OomScore => {
            let value = child.oom_score_adj.unwrap_or(0);
            Error::at("process.oomScoreAdj", format!("set to {value}")).hint("lowering it needs CAP_SYS_RESOURCE")
        }
        Step::JoinCgroup => Error::at("linux.cgroupsPath", "join the cgroup"),
        Step::JoinNamespace => match child.namespaces.joined.get(item) {
            Some(joined) => {
                Error::at(format!("linux.namespaces[{}].path", joined.index), format!("join {:?}", joined.path))
            }
            None => Error::at("linux.namespaces", "join"),
        },
        Step::MakeNamespaces | Step::SecondChild => Error::at("linux.namespaces", "create the namespaces"),
        Step::ExecChild => Error::new("clone the process"),
        Step::CgroupNamespace => Error::at("linux.namespaces", "create the cgroup namespace"),
        Step::TimeNamespace => Error::at("linux.namespaces", "create the time namespace"),
        Step::TimeOffsets => {
            let lines = child.namespaces.time_offsets.trim_end().replace('\n', ", ");
            Error::at("linux.timeOffsets", format!("set {lines:?}"))
        }
        Step::UserNamespaceRoot => Error::at("linux.uidMappings", "become root of the user namespace"),
        Step::Keyring => Error::new("join a new session keyring (--no-new-keyring keeps the caller's)"),
        Step::KeyLabel => Error::at("process.selinuxLabel", format!("label the session keyring {:?}", selinux())),
        Step::ApparmorProfile => {
            let text = child.labels.apparmor.as_deref().unwrap_or_default().to_string_lossy();
            let profile = text.strip_prefix("exec ").unwrap_or(&text);
            Error::at("process.apparmorProfile", format!("unable to apply apparmor profile {profile:?}"))
        }
        Step::SelinuxLabel => Error::at("process.selinuxLabel", format!("can't set process label {:?}", selinux())),
        Step::RootSource => Error::at("root.path", format!("{:?}", plan.rootfs.0)),
        Step::InheritedMounts => Error::at("linux.rootfsPropagation", "set the propagation of the inherited mounts"),
        Step::AttachRootfs => Error::at("root.path", format!("mount {:?}", plan.rootfs.0)),
        Step::DevDirectory => Error::at("linux.devices", "open \"/dev\" of the container"),
        Step::DeviceNode | Step::DeviceMismatch => device(plan, step, item),
        Step::DevLink => Error::at("linux.devices", "make the links of \"/dev\""),
        Step::MaskSource => Error::at("linux.maskedPaths", "open the host's /dev/null, or make an empty tmpfs"),
        Step::MaskTarget | Step::Mask => {
            Error::at(format!("linux.maskedPaths[{item}]"), format!("mask {:?}", path(&child.rootfs.masked)))
        }
        Step::ReadonlyTarget | Step::Readonly => {
            let text = format!("make {:?} read-only", path(&child.rootfs.readonly_paths));
            Error::at(format!("linux.readonlyPaths[{item}]"), text)
        }
        Step::PivotRoot => Error::at("root.path", "make it the root of the container"),
        Step::RootReadonly => Error::at("root.readonly", "make the root file system read-only"),
        Step::RootPropagation => Error::at("linux.rootfsPropagation", "set the propagation of the root file system"),
        Step::Terminal => Error::at("process.terminal", "open \"/dev/pts/ptmx\" of the container"),
        Step::Console => Error::at("process.terminal", "set up the terminal and the standard streams"),
        Step::Null => {
            Error::new("a standard stream is the null device, and \"/dev/null\" of the container cannot take its place")
        }
        Step::Hostname => Error::at("hostname", format!("set {:?}", child.hostname.as_deref().unwrap_or_default())),
        Step::Domainname => {
            Error::at("domainname", format!("set {:?}", child.domainname.as_deref().unwrap_or_default()))
        }
        Step::Sysctl => match child.sysctl.get(item) {
            Some(sysctl) => Error::at(format!("linux.sysctl[{:?}]", sysctl.key), format!("write {:?}", sysctl.value)),
            None => Error::at("linux.sysctl", "write"),
        },
        Step::Cwd => {
            Error::at("process.cwd", process.map_or(String::new(), |process| format!("{:?}", process.cwd.display())))
        }
        Step::CwdOutside => Error::at("process.cwd", "is outside of the container's root"),
        Step::NoNewPrivileges => Error::at("process.noNewPrivileges", "set"),
        Step::Seccomp => Error::at("linux.seccomp", "load the filter"),
        Step::Listener => Error::at("linux.seccomp", "send the listener to the parent"),
        Step::Bounding => Error::at("process.capabilities.bounding", format!("drop capability {item}")),
        // runc's words.
        Step::Groups => {
            Error::at("process.user.additionalGids", "cannot set any additional groups in a rootless container")
        }
        Step::Gid => Error::at(
            "process.user.gid",
            process.map_or(String::new(), |process| format!("become group {}", process.gid)),
        ),
        Step::Uid => Error::at(
            "process.user.uid",
            process.map_or(String::new(), |process| format!("become user {}", process.uid)),
        ),
        Step::Capabilities => Error::at("process.capabilities", "set"),
        Step::Ambient => Error::at("process.capabilities.ambient", format!("raise capability {item}")),
        Step::Rlimit => {
            let limit = process.and_then(|process| process.rlimits.get(item));
            let text = limit.map_or(String::new(), |limit| format!("set soft {} and hard {}", limit.soft, limit.hard));
            Error::at(format!("process.rlimits[{item}]"), text)
        }
        Step::JoinInit => Error::new("join the namespaces of the container's init"),
        Step::Affinity => Error::at("process.execCPUAffinity.final", "set it"),
        Step::MemoryPolicy => {
            let policy = process.and_then(|process| process.scheduling.memory_policy.as_ref());
            Error::at("linux.memoryPolicy", format!("set {}", policy.map_or("it", |policy| &policy.text)))
                .hint("the nodes of this host are in /sys/devices/system/node/online; some modes and flags need a newer kernel")
        }
        Step::Personality => Error::at("linux.personality", "set it"),
        Step::PreservedFd => Error::at("--preserve-fds", format!("descriptor {item}")),
        Step::NoProcess => Error::at("process", "is missing: there is nothing to start"),
        other => Error::new(format!("container init: {other:?}")),
    }
}

fn device(plan: &Plan, step: Step, item: usize) -> Error {
    let Some(device) = plan.child.rootfs.dev.as_ref().and_then(|devices| devices.get(item)) else {
        return Error::at("linux.devices", "make a node");
    };
    let field = device.index.map_or("linux.devices".to_owned(), |index| format!("linux.devices[{index}].path"));
    let path = device.path.display();
    if step == Step::DeviceMismatch {
        return Error::at(field, format!("{path:?} is there already, and is another file or device"));
    }
    Error::at(field, format!("make {path:?}"))
}
