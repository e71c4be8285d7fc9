//! Where ours is meant to decide otherwise. Every entry must be met in a run: one that is not has no reason to be here.

use crate::cases::Case;
use crate::cbpf::NUMBER;
use crate::libseccomp::{DIED, ENOSYS, Theirs, action};
use crate::targets::{Abi, Target};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op};
use std::collections::BTreeSet;

/// A decision that is not libseccomp's, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Of a name that an ABI multiplexes runc's ENOSYS rule has only libseccomp's pseudo number, so that a profile
    /// whose newest call is one gets ENOSYS for what it allows; or runc has no such rule at all.
    NewestIsMultiplexed,
    /// 32-bit ARM's private calls (0xf0001 and up) count as the newest in runc's rule, so that with every profile that
    /// names one (Docker's does) new calls get EPERM there.
    NewestIsPrivate,
    /// libseccomp compares bits of the code of socketcall(2) and ipc(2) that the kernel ignores: by setting one a
    /// program gets around a rule that denies.
    BitsOfCode,
    /// Rules whose conditions on the same call can hold together: libseccomp loses some of them. Where a comparison in
    /// a branch fails, it does not go on to the next rule; and rules that share the high word of a 64-bit comparison
    /// get each other's action. What the profile says is clear there, and libseccomp does another thing.
    LostRule,
    /// Rules with different actions hold together. The specification has no order for them; libseccomp's depends on
    /// how its tree grew. Ours is the same in any order of the file.
    Order,
    /// libseccomp keeps rules with conditions of calls that the ABI lacks, and leaves them out of the program together
    /// with the load of the number, so that all rules of the ABI are looked up with `AUDIT_ARCH_*` for a number.
    NumberNotLoaded,
    /// libseccomp's largest errno is 4094, the kernel's 4095.
    LargestErrno,
    /// libseccomp refuses some rules with different actions that can hold together (EEXIST), depending on their order
    /// and on where its tree has put them. Ours refuses them only where the conditions are the same.
    OverlapRefused,
    /// Ours refuses two rules with different actions for the same conditions; libseccomp does not see that they are the
    /// same where one is SCMP_CMP_EQ and the other SCMP_CMP_MASKED_EQ with all bits.
    WrittenTwice,
    /// libseccomp never comes back from some rules with different actions that can hold together: runc hangs.
    Hangs,
}

/// All of them.
pub const ALL: [Difference; 10] = [
    Difference::NewestIsMultiplexed,
    Difference::NewestIsPrivate,
    Difference::BitsOfCode,
    Difference::LostRule,
    Difference::Order,
    Difference::NumberNotLoaded,
    Difference::LargestErrno,
    Difference::OverlapRefused,
    Difference::WrittenTwice,
    Difference::Hangs,
];

/// The reason why only one of the two may refuse a profile, with these words.
pub fn explain_refusal(profile: &LinuxSeccomp, ours: Option<&str>, theirs: Option<&str>) -> Option<Difference> {
    let calls = || profile.syscalls().iter().flatten();
    match (ours, theirs) {
        (None, Some(text)) if text.starts_with(DIED) => Some(Difference::Hangs),
        (None, Some(text)) if text.contains("EINVAL") => {
            calls().any(|call| call.errno_ret() == Some(4095)).then_some(Difference::LargestErrno)
        }
        (None, Some(text)) if text.contains("EEXIST") => {
            let actions: BTreeSet<u32> = calls()
                .filter(|call| call.names().iter().any(|name| text.contains(name.as_str())))
                .map(|call| action(call.action(), call.errno_ret()))
                .collect();
            (actions.len() > 1).then_some(Difference::OverlapRefused)
        }
        (Some(text), None) if text.contains("has another action than") => {
            let all_bits = |arg: &LinuxSeccompArg| arg.op() == Op::ScmpCmpMaskedEq && arg.value() as u32 == u32::MAX;
            calls().flat_map(|call| call.args().iter().flatten()).any(all_bits).then_some(Difference::WrittenTwice)
        }
        _ => None,
    }
}

/// The reason why ours may decide otherwise here; none: it may not.
pub fn explain(
    target: &Target,
    profile: &LinuxSeccomp,
    theirs: &Theirs,
    case: &Case,
    (our, their): (u32, u32),
) -> Option<Difference> {
    let abi = abi(target, profile, case)?;
    let names = || profile.syscalls().iter().flatten().flat_map(|call| call.names());
    let is_newer = theirs.is_newer(case.arch, case.number);
    let said = said(abi, profile, case);
    if our == ENOSYS || their == ENOSYS {
        let numbers = |multiplexed: bool| {
            let those = names().filter(move |name| abi.multiplexed(name).is_some() == multiplexed);
            those.filter_map(|name| abi.number(name)).filter(|number| *number < PRIVATE || abi.name != "SCMP_ARCH_ARM")
        };
        let private = names().filter_map(|name| abi.number(name)).any(|number| number > PRIVATE);
        let is_beyond = || our == ENOSYS && !is_newer && numbers(false).all(|number| number < case.number);
        // With private calls alone ours has no newest call.
        let is_alone = || is_newer && numbers(false).next().is_none() && said.contains(&our);
        if abi.name == "SCMP_ARCH_ARM" && private && (is_beyond() || is_alone()) {
            return Some(Difference::NewestIsPrivate);
        }
        let carries = names().filter_map(|name| abi.multiplexed(name)).any(|(number, ..)| number == case.number);
        if is_newer && (carries || numbers(true).any(|number| number >= case.number)) && said.contains(&our) {
            return Some(Difference::NewestIsMultiplexed);
        }
        let is_beyond = || numbers(true).all(|number| number < case.number) || case.number == 0;
        if our == ENOSYS && !is_newer && numbers(false).all(|number| number == 0) && is_beyond() {
            return Some(Difference::NewestIsMultiplexed);
        }
    }
    if !said.contains(&our) {
        return None;
    }
    if theirs.run(&target.data(case.arch, case.number, &case.args)).1 & NUMBER == 0 {
        return Some(Difference::NumberNotLoaded);
    }
    let code = names().filter_map(|name| abi.multiplexed(name)).find(|(number, ..)| *number == case.number);
    if let Some((_, _, mask)) = code
        && case.args[0] & !mask & if abi.is_wide() { u64::MAX } else { 0xffff_ffff } != 0
    {
        return Some(Difference::BitsOfCode);
    }
    let rules = rules(abi, profile, case.number);
    if rules.len() > 1 {
        return Some(if said.contains(&their) { Difference::Order } else { Difference::LostRule });
    }
    None
}

/// `__ARM_NR_BASE`
const PRIVATE: u32 = 0xf_0000;

/// The ABI of the profile that the kernel would mean by these.
fn abi<'a>(target: &'a Target, profile: &LinuxSeccomp, case: &Case) -> Option<&'a Abi> {
    let x32 = case.number & crate::targets::X32_BIT != 0;
    let is_meant = |abi: &&Abi| {
        abi.audit_arch == case.arch && (case.arch != crate::targets::AUDIT_ARCH_X86_64 || abi.is_x32() == x32)
    };
    target.abis(profile).into_iter().find(is_meant)
}

/// One rule for one number: its action and its conditions, all of which must hold.
struct Rule {
    action: u32,
    code: Option<(u64, u64)>,
    conditions: Vec<LinuxSeccompArg>,
}

fn rules(abi: &Abi, profile: &LinuxSeccomp, number: u32) -> Vec<Rule> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut rules = Vec::new();
    for call in profile.syscalls().iter().flatten() {
        let action = action(call.action(), call.errno_ret());
        if action == default {
            continue;
        }
        let args: Vec<LinuxSeccompArg> = call.args().iter().flatten().cloned().collect();
        let twice = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
        let alternatives = if twice { args.into_iter().map(|arg| vec![arg]).collect() } else { vec![args] };
        for name in call.names() {
            for conditions in &alternatives {
                if abi.number(name) == Some(number) {
                    rules.push(Rule { action, code: None, conditions: conditions.clone() });
                }
                if let Some((carrier, code, mask)) = abi.multiplexed(name)
                    && carrier == number
                {
                    let others = conditions.iter().filter(|arg| arg.index() != 0).cloned().collect();
                    rules.push(Rule { action, code: Some((code, mask)), conditions: others });
                }
            }
        }
    }
    rules
}

/// The actions that the profile allows here: those of all rules that hold, or the default. A rule without conditions
/// goes before those with some, as in libseccomp.
pub fn said(abi: &Abi, profile: &LinuxSeccomp, case: &Case) -> BTreeSet<u32> {
    let rules = rules(abi, profile, case.number);
    let always: BTreeSet<u32> = rules
        .iter()
        .filter(|rule| rule.code.is_none() && rule.conditions.iter().all(|arg| is_tautology(abi, arg)))
        .map(|rule| rule.action)
        .collect();
    if !always.is_empty() {
        return always;
    }
    let holding = rules.iter().filter(|rule| {
        rule.code.is_none_or(|(code, mask)| case.args[0] & mask == code)
            && rule.conditions.iter().all(|arg| holds(abi, arg, &case.args))
    });
    let actions: BTreeSet<u32> = holding.map(|rule| rule.action).collect();
    if actions.is_empty() { [action(profile.default_action(), profile.default_errno_ret())].into() } else { actions }
}

fn cut(abi: &Abi, value: u64) -> u64 {
    if abi.is_wide() { value } else { value & 0xffff_ffff }
}

fn is_tautology(abi: &Abi, arg: &LinuxSeccompArg) -> bool {
    arg.op() == Op::ScmpCmpMaskedEq && cut(abi, arg.value()) == 0
}

fn holds(abi: &Abi, arg: &LinuxSeccompArg, args: &[u64; 6]) -> bool {
    let (is, value) = (cut(abi, args[arg.index()]), cut(abi, arg.value()));
    match arg.op() {
        Op::ScmpCmpNe => is != value,
        Op::ScmpCmpLt => is < value,
        Op::ScmpCmpLe => is <= value,
        Op::ScmpCmpEq => is == value,
        Op::ScmpCmpGe => is >= value,
        Op::ScmpCmpGt => is > value,
        Op::ScmpCmpMaskedEq => is & value == cut(abi, arg.value_two().unwrap_or(0)) & value,
    }
}
