//! Which part of `linux.seccomp` decides a system call, and what happens. Pure.
//!
//! What happens is told by the program that the kernel gets; which rule it comes from, by the verdicts that the
//! program is made of, since the program itself has equal actions merged.

use super::interpreter::{Data, run};
use super::rules::{Check, Compare, Condition, ENOSYS, KILL_THREAD, Profile, Verdict, Verdicts, behind};
use super::table::{Abi, Machine, X32_BIT};
use super::{ARCHITECTURES, Filter, Stated, Surroundings, abis, compile_for, machine};
use crate::error::{Error, Result};
use oci_spec::runtime::LinuxSeccomp;
use std::fmt::Write;

/// The system call that is asked about.
pub(crate) struct Call<'a> {
    /// The ABI, `SCMP_ARCH_X86` or `x86`; the machine's own if `None`.
    pub(crate) arch: Option<&'a str>,
    /// A name or a number.
    pub(crate) name: &'a str,
    /// The first of its arguments, those that are known.
    pub(crate) args: &'a [String],
}

/// Arguments that are known.
pub(super) type Args = [Option<u64>; 6];

/// The answer, as lines.
pub(crate) fn explain(profile: &LinuxSeccomp, around: Surroundings<'_>, call: &Call<'_>) -> Result<String> {
    explain_for(machine()?, profile, around, call)
}

pub(super) fn explain_for(
    machine: Machine,
    spec: &LinuxSeccomp,
    around: Surroundings<'_>,
    call: &Call<'_>,
) -> Result<String> {
    let own = || machine.abis().first().copied().ok_or_else(|| Error::new("the machine has no system calls"));
    let abi = call.arch.map_or_else(own, |arch| abi(machine, arch))?;
    Asked::new(machine, spec, around, abi)?.about(call.name, args(call.args)?)
}

fn abi(machine: Machine, word: &str) -> Result<Abi> {
    let known = machine.abis().iter().copied();
    known.clone().find(|abi| name(*abi) == arch_name(word)).ok_or_else(|| {
        let known: Vec<String> = known.map(name).collect();
        Error::at("--arch", format!("{word:?} is no architecture that this machine runs programs of"))
            .hint(format!("it runs those of {}", known.join(", ")))
    })
}

fn arch_name(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    word.strip_prefix("scmp_arch_").map_or(word.clone(), str::to_owned)
}

/// As in `SCMP_ARCH_*`, in lower case.
pub(super) fn name(abi: Abi) -> String {
    let arch = ARCHITECTURES.iter().find(|(_, known)| *known == Some(abi));
    arch.map_or(String::new(), |(arch, _)| arch_name(&arch.to_string()))
}

fn args(words: &[String]) -> Result<Args> {
    let mut args = Args::default();
    if words.len() > args.len() {
        return Err(Error::new(format!("{} arguments: a system call has at most {}", words.len(), args.len())));
    }
    for (i, (word, arg)) in words.iter().zip(&mut args).enumerate() {
        let wrong = || {
            let text = format!("expected a number, such as 8, 0x7e020000 or -1, found {word:?}");
            Error::at(format!("argument {i}"), text)
        };
        *arg = Some(number(word).ok_or_else(wrong)?);
    }
    Ok(args)
}

/// A negative one is sign-extended, as C passes it.
fn number(word: &str) -> Option<u64> {
    if let Some(digits) = word.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    word.parse().ok().or_else(|| word.parse::<i64>().ok().map(i64::cast_unsigned))
}

/// How a program makes the call: by its number, by that of a multiplexer, or by either.
fn ways(machine: Machine, abi: Abi, word: &str, args: Args) -> Result<Vec<(String, u32, Args)>> {
    let arch = name(abi);
    let x32 = if abi == Abi::X32 { X32_BIT } else { 0 };
    if let Some(number) = number(word) {
        let plain = u32::try_from(number).ok().map(|number| number & !x32).filter(|number| *number < X32_BIT);
        let plain = plain.ok_or_else(|| Error::new(format!("{word} is no number of a system call of {arch}")))?;
        let known = abi.name(plain | x32).map_or(String::new(), |name| format!("{name}, "));
        return Ok(vec![(format!("{known}{plain} of {arch}"), plain | x32, args)]);
    }
    let direct = abi.number(word).map(|number| (format!("{word}, {} of {arch}", number & !x32), number, args));
    let behind = abi.multiplexed(word).map(|(number, code, _)| {
        // Its own arguments are in memory.
        let args = [Some(code), None, None, None, None, None];
        let carrier = abi.name(number).unwrap_or_default();
        (format!("{word}, as {carrier}({code}, ...), {number} of {arch}"), number, args)
    });
    let ways: Vec<_> = direct.into_iter().chain(behind).collect();
    if !ways.is_empty() {
        return Ok(ways);
    }
    let error = Error::new(format!("{arch} has no system call {word:?}"));
    let other = machine.abis().iter().find(|abi| abi.number(word).or(abi.multiplexed(word).map(|(n, ..)| n)).is_some());
    Err(match other {
        Some(other) => error.hint(format!("{} has it: --arch {}", name(*other), name(*other))),
        None => error.hint("its number is understood, too; such names in a profile are skipped"),
    })
}

/// All that an answer is made of.
pub(super) struct Asked<'a> {
    machine: Machine,
    filter: Filter,
    is_listed: bool,
    profile: Profile<'a>,
    verdicts: Verdicts,
    stated: Stated,
    abi: Abi,
}

impl<'a> Asked<'a> {
    pub(super) fn new(machine: Machine, spec: &'a LinuxSeccomp, around: Surroundings<'_>, abi: Abi) -> Result<Self> {
        let filter = compile_for(machine, spec, around)?;
        let is_listed = abis(machine, spec).contains(&abi);
        let profile = Profile::read(spec)?;
        let mut verdicts = Verdicts::default();
        let stated = Stated::new(&profile, abi, &mut verdicts)?;
        Ok(Self { machine, filter, is_listed, profile, verdicts, stated, abi })
    }

    /// A line for each way to make the call; more, where arguments that are not known decide.
    pub(super) fn about(&self, call: &str, args: Args) -> Result<String> {
        let ways = ways(self.machine, self.abi, call, args)?;
        Ok(ways.into_iter().map(|(title, number, args)| self.answer(&title, number, args)).collect())
    }

    fn answer(&self, title: &str, number: u32, args: Args) -> String {
        let default = (self.profile.default, "linux.seccomp.defaultAction".to_owned());
        let (open, (otherwise, place)) = match self.stated.explicit.get(&number) {
            _ if !self.is_listed => {
                let arch = name(self.abi).to_uppercase();
                (Vec::new(), (KILL_THREAD, format!("linux.seccomp.architectures lacks SCMP_ARCH_{arch}")))
            }
            Some(Verdict::Action(action)) => (Vec::new(), (*action, self.rule(number, &[], *action))),
            Some(Verdict::Checks(block)) => {
                let checks = self.verdicts.checks.get(*block).map_or(&[][..], |checks| &checks.rules);
                let (open, decides) = sift(checks, &args);
                let rule = |check: &Check| (check.action, self.rule(number, &check.conditions, check.action));
                (open, decides.map_or(default, rule))
            }
            None if number >= self.stated.end && self.stated.beyond != Verdict::Action(self.profile.default) => {
                (Vec::new(), (ENOSYS, "newer than all that linux.seccomp.syscalls names".to_owned()))
            }
            None => (Vec::new(), default),
        };
        if open.is_empty() {
            let data = Data { number, audit_arch: self.abi.audit_arch(), args: args.map(Option::unwrap_or_default) };
            let decided = run(&self.filter.program, &data).unwrap_or(otherwise);
            return format!("{title}: {}: {place}\n", action_text(decided));
        }
        let mut text = format!("{title}:\n");
        for (check, conditions) in &open {
            let rule = self.rule(number, &check.conditions, check.action);
            let _ = writeln!(text, "  if {}: {}: {rule}", conditions.join(" and "), action_text(check.action));
        }
        let _ = writeln!(text, "  otherwise: {}: {place}", action_text(otherwise));
        text
    }

    /// The field of the first rule that has these conditions for the number.
    fn rule(&self, number: u32, conditions: &[Condition], action: u32) -> String {
        let fits = |alternative: &Vec<Condition>, name: &String| {
            let fitted: Vec<Condition> = alternative.iter().filter_map(|c| c.fit(self.abi.wide())).collect();
            let carried = self.abi.multiplexed(name).filter(|(carrier, ..)| *carrier == number);
            carried.is_some_and(|(_, code, mask)| behind(code, mask, &fitted) == conditions)
                || (self.abi.number(name) == Some(number) && fitted == conditions)
        };
        let rules = self.profile.rules.iter().enumerate().filter(|(_, rule)| rule.action == action);
        let mut names = rules.flat_map(|(i, rule)| rule.names.iter().map(move |name| (i, rule, name)));
        let found = names.find(|(_, rule, name)| rule.alternatives.iter().any(|one| fits(one, name)));
        found.map_or(String::new(), |(i, ..)| format!("linux.seccomp.syscalls[{i}]"))
    }
}

/// The checks that depend on what is not known, with the conditions that are open; and that which holds when none of
/// these does. `None`: the default.
fn sift<'a>(checks: &'a [Check], args: &Args) -> (Vec<(&'a Check, Vec<String>)>, Option<&'a Check>) {
    let known = |condition: &Condition| args.get(usize::from(condition.index)).copied().flatten();
    let mut open = Vec::new();
    for check in checks {
        if check.conditions.iter().any(|one| known(one).is_some_and(|arg| !holds(one, arg))) {
            continue;
        }
        let left: Vec<String> = check.conditions.iter().filter(|one| known(one).is_none()).map(condition).collect();
        if left.is_empty() {
            return (open, Some(check));
        }
        open.push((check, left));
    }
    (open, None)
}

fn holds(condition: &Condition, arg: u64) -> bool {
    let Condition { compare, mask, value, .. } = *condition;
    let arg = arg & mask;
    match compare {
        Compare::Equal => arg == value,
        Compare::NotEqual => arg != value,
        Compare::LessOrEqual => arg <= value,
        Compare::Less => arg < value,
        Compare::GreaterOrEqual => arg >= value,
        Compare::Greater => arg > value,
    }
}

fn condition(condition: &Condition) -> String {
    let Condition { index, compare, mask, value } = *condition;
    let compare = match compare {
        Compare::Equal => "==",
        Compare::NotEqual => "!=",
        Compare::LessOrEqual => "<=",
        Compare::Less => "<",
        Compare::GreaterOrEqual => ">=",
        Compare::Greater => ">",
    };
    let whole = mask == u64::MAX || mask == u64::from(u32::MAX);
    let mask = if whole { String::new() } else { format!(" & {mask:#x}") };
    format!("args[{index}]{mask} {compare} {value:#x}")
}

/// What `SECCOMP_RET_*` with its data means.
pub(super) fn action_text(action: u32) -> String {
    let data = action & libc::SECCOMP_RET_DATA;
    let errno = nix::errno::Errno::from_raw(data.cast_signed());
    match action & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ALLOW => "SCMP_ACT_ALLOW".to_owned(),
        libc::SECCOMP_RET_LOG => "SCMP_ACT_LOG (allowed and logged)".to_owned(),
        libc::SECCOMP_RET_TRACE => format!("SCMP_ACT_TRACE ({data} to the tracer, ENOSYS without one)"),
        libc::SECCOMP_RET_USER_NOTIF => "SCMP_ACT_NOTIFY (the agent answers)".to_owned(),
        libc::SECCOMP_RET_ERRNO if data == 0 => "SCMP_ACT_ERRNO (0: nothing is done, and success returned)".to_owned(),
        libc::SECCOMP_RET_ERRNO if errno == nix::errno::Errno::UnknownErrno => format!("SCMP_ACT_ERRNO ({data})"),
        libc::SECCOMP_RET_ERRNO => format!("SCMP_ACT_ERRNO ({errno:?})"),
        libc::SECCOMP_RET_TRAP => "SCMP_ACT_TRAP (SIGSYS)".to_owned(),
        libc::SECCOMP_RET_KILL_PROCESS => "SCMP_ACT_KILL_PROCESS (SIGSYS)".to_owned(),
        _ => "SCMP_ACT_KILL_THREAD (SIGSYS)".to_owned(),
    }
}
