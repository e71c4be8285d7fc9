//! `linux.seccomp` to a classic BPF program: one program for all architectures of the machine.
//!
//! Runs in: parent (pure: no file, no system call, no clock). The child only loads the result.
//!
//! ```text
//! LinuxSeccomp ─ rules.rs ─▶ rules ─ rules.rs + table.rs ─▶ verdict by number, for each ABI ─ program.rs ─▶ tree
//! ```
//!
//! Decisions are those of runc with libseccomp: another architecture is killed (the thread), and system calls newer
//! than the newest one in the profile get ENOSYS, or libraries would take EPERM for an answer and not fall back.

pub(crate) mod dump;
pub(crate) mod explain;
mod interpreter;
mod program;
mod rules;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator,
};
use program::Arch;
use rules::{ENOSYS, KILL_THREAD, Profile, Verdict, Verdicts};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use table::{Abi, HOST, Machine, X32_BIT};

/// `BPF_MAXINSNS` (linux/bpf_common.h).
const MOST_INSTRUCTIONS: usize = 4096;
/// `SECCOMP_FILTER_FLAG_LOG` (linux/seccomp.h).
const LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The annotation that crun takes for a listenerPath.
const RECEIVER: &str = "annotations[\"run.oci.seccomp.receiver\"]";

/// The actions of config-linux.md, Seccomp, that rules can have.
pub(crate) const ACTIONS: &[Action] = &[
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActTrap,
    Action::ScmpActErrno,
    Action::ScmpActTrace,
    Action::ScmpActAllow,
    Action::ScmpActLog,
    Action::ScmpActNotify,
];

/// The operators of conditions.
pub(crate) const OPERATORS: &[Operator] = &[
    Operator::ScmpCmpNe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpMaskedEq,
];

/// The flags with their bits.
pub(crate) const FLAGS: &[(Flag, u32)] = &[
    // The child has one thread: there is nothing to synchronize.
    (Flag::SeccompFilterFlagTsync, 0),
    (Flag::SeccompFilterFlagLog, LOG),
    (Flag::SeccompFilterFlagSpecAllow, SPEC_ALLOW),
    (Flag::SeccompFilterFlagWaitKillableRecv, WAIT_KILLABLE_RECV),
];

/// The architectures, and the ABIs that a filter can be for. Of the others there is no table; where the kernel reports
/// one of them, the filter kills.
pub(crate) const ARCHITECTURES: &[(SpecArch, Option<Abi>)] = &[
    (SpecArch::ScmpArchX86, Some(Abi::X86)),
    (SpecArch::ScmpArchX86_64, Some(Abi::X86_64)),
    (SpecArch::ScmpArchX32, Some(Abi::X32)),
    (SpecArch::ScmpArchArm, Some(Abi::Arm)),
    (SpecArch::ScmpArchAarch64, Some(Abi::Aarch64)),
    (SpecArch::ScmpArchMips, Some(Abi::Mips)),
    (SpecArch::ScmpArchMips64, Some(Abi::Mips64)),
    (SpecArch::ScmpArchMips64n32, None),
    (SpecArch::ScmpArchMipsel, Some(Abi::Mipsel)),
    (SpecArch::ScmpArchMipsel64, Some(Abi::Mipsel64)),
    (SpecArch::ScmpArchMipsel64n32, None),
    (SpecArch::ScmpArchPpc, Some(Abi::Ppc)),
    (SpecArch::ScmpArchPpc64, Some(Abi::Ppc64)),
    (SpecArch::ScmpArchPpc64le, Some(Abi::Ppc64le)),
    (SpecArch::ScmpArchS390, None),
    (SpecArch::ScmpArchS390x, Some(Abi::S390x)),
    (SpecArch::ScmpArchParisc, None),
    (SpecArch::ScmpArchParisc64, None),
    (SpecArch::ScmpArchRiscv64, Some(Abi::Riscv64)),
    (SpecArch::ScmpArchLoongarch64, Some(Abi::Loongarch64)),
];

/// A filter, ready for seccomp(2).
#[derive(Debug)]
pub(crate) struct Filter {
    /// The program, at most 4096 instructions.
    pub(crate) program: Vec<seccompiler::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
    /// With SCMP_ACT_NOTIFY, and only then.
    pub(crate) agent: Option<Agent>,
    /// Lines for the debug log: what of the profile was skipped.
    pub(crate) notes: Vec<String>,
}

/// Who gets the listener of the filter, and answers for what SCMP_ACT_NOTIFY stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Where its socket is named.
    pub(crate) field: &'static str,
    pub(crate) path: PathBuf,
    /// Empty: none.
    pub(crate) metadata: String,
    /// Whether the child has to send the listener, because the parent may not take it.
    pub(crate) is_sent: bool,
}

/// What is not in the profile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surroundings<'a> {
    /// crun's annotation, which a listenerPath goes before.
    pub(crate) receiver: Option<&'a Path>,
    /// See [`Agent::is_sent`].
    pub(crate) is_sent: bool,
}

/// Compiles `linux.seccomp` for the machine that this binary is for. Errors name the rule and its part.
pub(crate) fn compile(profile: &LinuxSeccomp, around: Surroundings<'_>) -> Result<Filter> {
    compile_for(machine()?, profile, around)
}

fn machine() -> Result<Machine> {
    HOST.ok_or_else(|| Error::at("linux.seccomp", "not supported on this architecture"))
}

/// The same for any machine.
pub(crate) fn compile_for(machine: Machine, spec: &LinuxSeccomp, around: Surroundings<'_>) -> Result<Filter> {
    let agent = agent(spec, around)?;
    let profile = Profile::read(spec)?;
    let mut notes = Vec::new();
    let flags = flags(spec, agent.is_some(), &mut notes);
    unknown_names(machine, &profile, &mut notes);

    let mut verdicts = Verdicts::default();
    let mut stated = Vec::new();
    for abi in abis(machine, spec) {
        stated.push(Stated::new(&profile, abi, &mut verdicts)?);
    }
    let archs = archs(&profile, stated);
    let program = program::assemble(&archs, &verdicts.checks, profile.default, KILL_THREAD, machine.is_big_endian());
    if program.len() > MOST_INSTRUCTIONS {
        return Err(Error::at(
            "linux.seccomp.syscalls",
            format!("needs a filter of {} instructions, the kernel takes {MOST_INSTRUCTIONS}", program.len()),
        ));
    }
    Ok(Filter { program, flags, agent, notes })
}

/// None without SCMP_ACT_NOTIFY: then a listenerPath is ignored (config-linux.md, Seccomp).
fn agent(spec: &LinuxSeccomp, around: Surroundings<'_>) -> Result<Option<Agent>> {
    let path = spec.listener_path().as_deref().filter(|path| !path.as_os_str().is_empty());
    let metadata = spec.listener_metadata().clone().unwrap_or_default();
    if !metadata.is_empty() && path.is_none() {
        return Err(Error::at("linux.seccomp.listenerMetadata", "needs linux.seccomp.listenerPath"));
    }
    let mut calls = spec.syscalls().iter().flatten();
    let Some(rule) = calls.position(|call| call.action() == Action::ScmpActNotify) else { return Ok(None) };
    let named = path.map(|path| ("linux.seccomp.listenerPath", path)).or(around.receiver.map(|path| (RECEIVER, path)));
    let (field, path) = named.ok_or_else(|| {
        let text = format!("is not set, and linux.seccomp.syscalls[{rule}].action is SCMP_ACT_NOTIFY");
        Error::at("linux.seccomp.listenerPath", text)
    })?;
    handed_over_without(spec, "write")?;
    if around.is_sent {
        handed_over_without(spec, "sendmsg")?;
    }
    Ok(Some(Agent { field, path: path.to_owned(), metadata, is_sent: around.is_sent }))
}

/// Nobody could answer for the call that hands the listener over. The words are runc's.
fn handed_over_without(spec: &LinuxSeccomp, name: &str) -> Result<()> {
    for (i, call) in spec.syscalls().iter().flatten().enumerate() {
        let found = call.names().iter().position(|one| one == name);
        if let (Action::ScmpActNotify, Some(index)) = (call.action(), found) {
            let text = format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall");
            return Err(Error::at(format!("linux.seccomp.syscalls[{i}].names[{index}]"), text));
        }
    }
    Ok(())
}

fn flags(profile: &LinuxSeccomp, notifies: bool, notes: &mut Vec<String>) -> u32 {
    let listener = if notifies { NEW_LISTENER } else { 0 };
    // Without any list the program would pay for the mitigation of speculative store bypass; runc's default.
    let Some(flags) = profile.flags() else { return SPEC_ALLOW | listener };
    let mut bits = listener;
    for flag in flags {
        // The kernel takes this one only together with a listener (EINVAL), and without one it means nothing.
        if *flag == Flag::SeccompFilterFlagWaitKillableRecv && !notifies {
            notes.push(format!("linux.seccomp.flags: {flag} has no effect without SCMP_ACT_NOTIFY"));
        } else {
            bits |= FLAGS.iter().find(|(known, _)| known == flag).map_or(0, |(_, bit)| *bit);
        }
    }
    bits
}

/// The machine's own ABI, and those of the profile that it can run. The kernel never reports another.
fn abis(machine: Machine, profile: &LinuxSeccomp) -> Vec<Abi> {
    let listed: Vec<Abi> = profile
        .architectures()
        .iter()
        .flatten()
        .filter_map(|arch| ARCHITECTURES.iter().find(|(known, _)| known == arch).and_then(|(_, abi)| *abi))
        .collect();
    let own = machine.abis().iter().take(1);
    let others = machine.abis().iter().skip(1).filter(|abi| listed.contains(abi));
    own.chain(others).copied().collect()
}

/// Names that no table has are skipped, as they stand for calls of other machines or of newer kernels.
fn unknown_names(machine: Machine, profile: &Profile<'_>, notes: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, rule) in profile.rules.iter().enumerate() {
        for name in rule.names {
            let known = |abi: &Abi| abi.number(name).is_some() || abi.multiplexed(name).is_some();
            if !machine.abis().iter().any(known) && seen.insert(name) {
                notes.push(format!("linux.seccomp.syscalls[{i}].names: unknown system call {name:?} is skipped"));
            }
        }
    }
}

/// What a profile says about one ABI.
struct Stated {
    abi: Abi,
    explicit: BTreeMap<u32, Verdict>,
    /// One above the newest call that the profile names; 0: it names none.
    end: u32,
    /// The verdict from `end` on.
    beyond: Verdict,
}

impl Stated {
    fn new(profile: &Profile<'_>, abi: Abi, verdicts: &mut Verdicts) -> Result<Self> {
        let (explicit, newest) = verdicts.of(profile, abi)?;
        // As in runc, a profile that names call 0 alone counts as one that names none.
        let end = newest.filter(|number| *number != 0).map_or(0, |number| number.saturating_add(1));
        let enosys = profile.newer_is_enosys && end != 0;
        let beyond = Verdict::Action(if enosys { ENOSYS } else { profile.default });
        Ok(Self { abi, explicit, end, beyond })
    }
}

/// One tree for each architecture that the kernel tells apart: x32 shares that of x86_64.
fn archs(profile: &Profile<'_>, mut stated: Vec<Stated>) -> Vec<Arch> {
    let default = Verdict::Action(profile.default);
    let x32 = stated.iter().position(|stated| stated.abi == Abi::X32).map(|i| stated.remove(i));
    let arch = |mut own: Stated| {
        let base = match (own.abi, &x32) {
            (Abi::X86_64, Some(x32)) => with_x32(default, &own, x32),
            (Abi::X86_64, None) => without_x32(default, &own, profile.newer_is_enosys),
            // Call 0, setup(2) of old, is what the kernel shows for a call above the numbers that fit in an instruction
            // and that it does not know.
            (Abi::S390x, _) if profile.newer_is_enosys && own.end != 0 => {
                vec![(0, own.beyond), (1, default), (own.end, own.beyond)]
            }
            _ => vec![(0, default), (own.end, own.beyond)],
        };
        if own.abi == Abi::X86_64 {
            own.explicit.extend(x32.iter().flat_map(|x32| &x32.explicit));
        }
        Arch { audit_arch: own.abi.audit_arch(), ranges: program::ranges(&by_number(base), &own.explicit) }
    };
    stated.into_iter().map(arch).collect()
}

/// x86_64 alone. Numbers of x32 are those of another architecture, as in libseccomp, except that a tracer sets -1 to
/// have a call skipped. runc asks for the x32 bit before it answers ENOSYS, so that the bit above it does not matter.
fn without_x32(default: Verdict, own: &Stated, newer_is_enosys: bool) -> Vec<(u32, Verdict)> {
    let bad = Verdict::Action(KILL_THREAD);
    let upper = if newer_is_enosys && own.end != 0 { own.beyond } else { bad };
    vec![
        (0, default),
        (own.end, own.beyond),
        (X32_BIT, bad),
        (X32_BIT << 1, upper),
        (X32_BIT | X32_BIT << 1, bad),
        (u32::MAX, default),
    ]
}

/// x86_64 and x32, told apart by the x32 bit, whatever the bit above it is.
fn with_x32(default: Verdict, own: &Stated, x32: &Stated) -> Vec<(u32, Verdict)> {
    vec![
        (0, default),
        (own.end, own.beyond),
        (X32_BIT, default),
        (x32.end.max(X32_BIT), x32.beyond),
        (X32_BIT << 1, own.beyond),
        (X32_BIT | X32_BIT << 1, x32.beyond),
    ]
}

/// Sorted; of two at the same number the later one holds.
fn by_number(base: Vec<(u32, Verdict)>) -> Vec<(u32, Verdict)> {
    let by_number: BTreeMap<u32, Verdict> = base.into_iter().collect();
    by_number.into_iter().collect()
}
