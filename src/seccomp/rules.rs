//! From the profile's text to rules, and from rules to one verdict for each number of an ABI.
//!
//! Where rules overlap, the result is libseccomp's: of the rules without arguments the first one wins over everything;
//! rules with arguments are tried in an order of their own (see [`Check::order`]), and the first that matches decides.

use super::table::Abi;
use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// `SECCOMP_RET_KILL_THREAD` (linux/seccomp.h).
pub(super) const KILL_THREAD: u32 = 0;
/// `SECCOMP_RET_ERRNO` with ENOSYS.
pub(super) const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
/// `SECCOMP_RET_USER_NOTIF`
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The kernel cuts larger errno values down to this one (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;
const MAX_TRACE: u32 = 0xffff;
/// A call has six arguments.
const LAST_ARG: u8 = 5;

/// What happens to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// `SECCOMP_RET_*` with its data.
    Action(u32),
    /// The arguments decide: an index into [`Verdicts::checks`].
    Checks(usize),
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compare {
    /// Under the condition's mask.
    Equal,
    /// `SCMP_CMP_NE`
    NotEqual,
    /// `SCMP_CMP_LE`
    LessOrEqual,
    /// `SCMP_CMP_LT`
    Less,
    /// `SCMP_CMP_GE`
    GreaterOrEqual,
    /// `SCMP_CMP_GT`
    Greater,
}

/// One condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u8,
    /// How.
    pub(super) compare: Compare,
    /// All ones, but for `SCMP_CMP_MASKED_EQ`.
    pub(super) mask: u64,
    /// Has no bits outside the mask.
    pub(super) value: u64,
}

/// Conditions that must all hold, and what then happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Check {
    /// Sorted by index, each index once, never empty.
    pub(super) conditions: Vec<Condition>,
    /// `SECCOMP_RET_*` with its data.
    pub(super) action: u32,
}

/// The rules of one call, to be tried in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Checks {
    /// Compare both words of an argument, or the low one only.
    pub(super) wide: bool,
    /// In order.
    pub(super) rules: Vec<Check>,
}

/// One entry of `linux.seccomp.syscalls`.
pub(super) struct Rule<'a> {
    /// Its names, all of them not empty.
    pub(super) names: &'a [String],
    /// `SECCOMP_RET_*` with its data.
    pub(super) action: u32,
    /// One of these condition lists must hold.
    pub(super) alternatives: Vec<Vec<Condition>>,
}

/// A checked profile.
pub(super) struct Profile<'a> {
    /// `SECCOMP_RET_*` with its data.
    pub(super) default: u32,
    /// Calls that are newer than the profile get ENOSYS.
    pub(super) newer_is_enosys: bool,
    /// In the order of the file.
    pub(super) rules: Vec<Rule<'a>>,
}

/// Verdicts by number, for all ABIs of a filter: equal argument checks are stored once.
#[derive(Default)]
pub(super) struct Verdicts {
    /// The argument checks.
    pub(super) checks: Vec<Checks>,
    index: BTreeMap<Checks, usize>,
}

impl<'a> Profile<'a> {
    /// Checks and reads a profile.
    pub(super) fn read(profile: &'a LinuxSeccomp) -> Result<Self> {
        let default_action = profile.default_action();
        if default_action == LinuxSeccompAction::ScmpActNotify {
            return Err(Error::at("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"));
        }
        let default = action(default_action, profile.default_errno_ret(), "linux.seccomp.defaultErrnoRet")?;
        let rules = profile.syscalls().iter().flatten().enumerate().map(|(i, call)| Rule::read(i, call));
        Ok(Self {
            default,
            // A tracer answers new calls itself; the others let them through anyway.
            newer_is_enosys: !matches!(
                default_action,
                LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
            ),
            rules: rules.collect::<Result<_>>()?,
        })
    }
}

impl<'a> Rule<'a> {
    fn read(i: usize, call: &'a LinuxSyscall) -> Result<Self> {
        let field = format!("linux.seccomp.syscalls[{i}]");
        if call.names().is_empty() {
            return Err(Error::at(format!("{field}.names"), "expected at least one system call"));
        }
        if let Some(empty) = call.names().iter().position(String::is_empty) {
            return Err(Error::at(format!("{field}.names[{empty}]"), "empty string is not a valid syscall"));
        }
        let action = action(call.action(), call.errno_ret(), &format!("{field}.errnoRet"))?;
        let args = call.args().iter().flatten().enumerate();
        let conditions = args.map(|(arg, spec)| condition(&format!("{field}.args[{arg}]"), spec));
        Ok(Self { names: call.names(), action, alternatives: alternatives(conditions.collect::<Result<_>>()?) })
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<u32> {
    let (base, most) = match action {
        LinuxSeccompAction::ScmpActErrno => (ERRNO, MAX_ERRNO),
        LinuxSeccompAction::ScmpActTrace => (TRACE, MAX_TRACE),
        _ if errno.is_some() => return Err(Error::at(field, format!("{action} does not support an errno"))),
        LinuxSeccompAction::ScmpActKillProcess => return Ok(KILL_PROCESS),
        LinuxSeccompAction::ScmpActTrap => return Ok(TRAP),
        LinuxSeccompAction::ScmpActLog => return Ok(LOG),
        LinuxSeccompAction::ScmpActAllow => return Ok(ALLOW),
        LinuxSeccompAction::ScmpActNotify => return Ok(NOTIFY),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => return Ok(KILL_THREAD),
    };
    let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
    if errno > most {
        return Err(Error::at(field, format!("{errno} is above {most}, the largest value of {action}")));
    }
    Ok(base | errno)
}

fn condition(field: &str, arg: &LinuxSeccompArg) -> Result<Condition> {
    let index = u8::try_from(arg.index()).ok().filter(|index| *index <= LAST_ARG).ok_or_else(|| {
        Error::at(format!("{field}.index"), format!("{} is above {LAST_ARG}, the last argument", arg.index()))
    })?;
    let plain = |compare| Condition { index, compare, mask: u64::MAX, value: arg.value() };
    Ok(match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => plain(Compare::NotEqual),
        LinuxSeccompOperator::ScmpCmpLt => plain(Compare::Less),
        LinuxSeccompOperator::ScmpCmpLe => plain(Compare::LessOrEqual),
        LinuxSeccompOperator::ScmpCmpEq => plain(Compare::Equal),
        LinuxSeccompOperator::ScmpCmpGe => plain(Compare::GreaterOrEqual),
        LinuxSeccompOperator::ScmpCmpGt => plain(Compare::Greater),
        // libseccomp cuts the value down to the mask, so that such a rule is not one that never matches.
        LinuxSeccompOperator::ScmpCmpMaskedEq => Condition {
            index,
            compare: Compare::Equal,
            mask: arg.value(),
            value: arg.value_two().unwrap_or(0) & arg.value(),
        },
    })
}

/// Conditions on different arguments must all hold. Where one argument occurs twice, runc makes a rule of each
/// condition, so that one of them is enough; profiles rely on it.
fn alternatives(mut conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let sorted = {
        conditions.sort_by_key(|condition| condition.index);
        conditions
    };
    let twice = sorted.iter().zip(sorted.iter().skip(1)).any(|(a, b)| a.index == b.index);
    if twice { sorted.into_iter().map(|condition| vec![condition]).collect() } else { vec![sorted] }
}

impl Check {
    /// The order in which libseccomp tries rules with arguments: by the lowest argument, a higher one first; equality
    /// before "less" before "greater"; the narrower value first. A rule comes before those that have its conditions
    /// and more, so that it decides for them.
    fn order(&self) -> impl Ord + use<'_> {
        let key = |condition: &Condition| {
            let (class, value) = match condition.compare {
                Compare::Equal | Compare::NotEqual => (0, !condition.value),
                Compare::Less | Compare::LessOrEqual => (1, condition.value),
                Compare::Greater | Compare::GreaterOrEqual => (2, !condition.value),
            };
            (Reverse(condition.index), class, value)
        };
        (self.conditions.iter().map(key).collect::<Vec<_>>(), &self.conditions)
    }
}

impl Condition {
    /// The condition as a 32-bit ABI has it. `None`: it always holds.
    pub(super) fn fit(self, wide: bool) -> Option<Self> {
        let mask = if wide { self.mask } else { self.mask & u64::from(u32::MAX) };
        (mask != 0).then_some(Self { mask, value: self.value & mask, ..self })
    }
}

impl Verdicts {
    /// The verdicts that the profile states for one ABI, and the newest call that it names (of any rule).
    pub(super) fn of(&mut self, profile: &Profile<'_>, abi: Abi) -> Result<(BTreeMap<u32, Verdict>, Option<u32>)> {
        let mut calls: BTreeMap<u32, Vec<(usize, Check)>> = BTreeMap::new();
        let mut newest = None;
        for (i, rule) in profile.rules.iter().enumerate() {
            for name in rule.names {
                let direct = abi.number(name);
                newest = newest.max(direct.filter(|number| !abi.private(*number)));
                // As runc: what repeats the default is no rule, and so never takes part in an overlap.
                if rule.action == profile.default {
                    continue;
                }
                let multiplexed = abi.multiplexed(name);
                for conditions in &rule.alternatives {
                    let fitted: Vec<Condition> = conditions.iter().filter_map(|c| c.fit(abi.wide())).collect();
                    let behind = multiplexed.map(|(number, code, mask)| (number, behind(code, mask, &fitted)));
                    for (number, conditions) in behind.into_iter().chain(direct.map(|number| (number, fitted))) {
                        calls.entry(number).or_default().push((i, Check { conditions, action: rule.action }));
                    }
                }
            }
        }
        let verdicts = calls.into_iter().map(|(number, rules)| Ok((number, self.verdict(rules, abi)?)));
        Ok((verdicts.collect::<Result<_>>()?, newest))
    }

    fn verdict(&mut self, mut rules: Vec<(usize, Check)>, abi: Abi) -> Result<Verdict> {
        if let Some((_, rule)) = rules.iter().find(|(_, rule)| rule.conditions.is_empty()) {
            return Ok(Verdict::Action(rule.action));
        }
        rules.sort_by(|(_, a), (_, b)| a.order().cmp(&b.order()));
        rules.dedup_by(|(_, a), (_, b)| a == b);
        for ((i, a), (j, b)) in rules.iter().zip(rules.iter().skip(1)) {
            if a.conditions == b.conditions {
                let (first, second) = (i.min(j), i.max(j));
                return Err(Error::at(
                    format!("linux.seccomp.syscalls[{second}]"),
                    format!("has another action than linux.seccomp.syscalls[{first}] for the same call and arguments"),
                ));
            }
        }
        let checks = Checks { wide: abi.wide(), rules: rules.into_iter().map(|(_, rule)| rule).collect() };
        let next = self.checks.len();
        let block = *self.index.entry(checks.clone()).or_insert(next);
        if block == next {
            self.checks.push(checks);
        }
        Ok(Verdict::Checks(block))
    }
}

/// The conditions for a call behind a multiplexer, where its real arguments lie in memory, which a filter cannot read.
/// libseccomp puts the code in the place of a condition on the first argument and keeps the others; a profile that
/// allows a call must do so here too. But libseccomp compares bits that the kernel ignores: by setting one, a program
/// would get around a rule that denies.
pub(super) fn behind(code: u64, mask: u64, conditions: &[Condition]) -> Vec<Condition> {
    let code = Condition { index: 0, compare: Compare::Equal, mask, value: code };
    let others = conditions.iter().copied().filter(|condition| condition.index != 0);
    std::iter::once(code).chain(others).collect()
}
