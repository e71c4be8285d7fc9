//! A filter as text, in the notation of the kernel's bpf_asm, or as bytes. Pure.

use super::explain::{action_text, name};
use super::program::{AND, ARCH, ARGS, JA, JEQ, JGE, JGT, LD_ABS, NUMBER, RET};
use super::table::{Abi, Machine, X32_BIT};
use super::{Filter, Surroundings, compile, machine};
use crate::error::Result;
use oci_spec::runtime::LinuxSeccomp;
use seccompiler::sock_filter;
use std::fmt::Write;

/// One instruction a line; comments say what numbers mean.
pub(crate) fn dump(profile: &LinuxSeccomp, around: Surroundings<'_>) -> Result<String> {
    Ok(text(machine()?, &compile(profile, around)?))
}

/// An array of `struct sock_filter` (linux/filter.h).
pub(crate) fn bytes(profile: &LinuxSeccomp, around: Surroundings<'_>) -> Result<Vec<u8>> {
    let bytes = |insn: sock_filter| {
        [insn.code.to_ne_bytes(), [insn.jt, insn.jf]].concat().into_iter().chain(insn.k.to_ne_bytes())
    };
    Ok(compile(profile, around)?.program.into_iter().flat_map(bytes).collect())
}

/// What is known where an instruction begins.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    /// The offset of what the accumulator was loaded from.
    loaded: Option<u32>,
    audit_arch: Option<u32>,
}

pub(super) fn text(machine: Machine, filter: &Filter) -> String {
    let mut text = String::new();
    // Jumps go forward, so what leads to an instruction was seen when it is reached.
    let mut known: Vec<Option<Known>> = vec![None; filter.program.len()];
    if let Some(first) = known.first_mut() {
        *first = Some(Known::default());
    }
    for (at, insn) in filter.program.iter().enumerate() {
        let here = known.get(at).copied().flatten().unwrap_or_default();
        let target = |skip: usize| at.saturating_add(1).saturating_add(skip);
        let (then, otherwise) = (target(insn.jt.into()), target(insn.jf.into()));
        let mut comment = String::new();
        let mut after = here;
        let mut next = vec![(target(0), here)];
        let operation = match insn.code {
            LD_ABS => {
                after.loaded = Some(insn.k);
                next = vec![(target(0), after)];
                comment = loaded(insn.k);
                format!("ld [{}]", insn.k)
            }
            AND => format!("and #{:#x}", insn.k),
            JA => {
                let target = target(usize::try_from(insn.k).unwrap_or(usize::MAX));
                next = vec![(target, here)];
                format!("ja l{target}")
            }
            RET => {
                next.clear();
                comment = action_text(insn.k);
                format!("ret #{:#x}", insn.k)
            }
            code => {
                let word = match code {
                    JEQ => "jeq",
                    JGT => "jgt",
                    JGE => "jge",
                    _ => "?",
                };
                if here.loaded == Some(ARCH) {
                    after.audit_arch = Some(insn.k);
                }
                comment = compared(machine, here, insn.k);
                next = vec![(then, after), (otherwise, here)];
                let is_number = here.loaded == Some(NUMBER) && insn.k < X32_BIT;
                let k = if is_number { format!("{}", insn.k) } else { format!("{:#x}", insn.k) };
                format!("{word} #{k}, l{then}, l{otherwise}")
            }
        };
        for (target, state) in next {
            if let Some(slot) = known.get_mut(target) {
                *slot = Some(slot.map_or(state, |other| join(other, state)));
            }
        }
        let line = format!("{:<7}{operation}", format!("l{at}:"));
        let _ = if comment.is_empty() { writeln!(text, "{line}") } else { writeln!(text, "{line:<40}; {comment}") };
    }
    text
}

/// What holds whichever way was taken.
fn join(a: Known, b: Known) -> Known {
    Known {
        loaded: a.loaded.filter(|_| a.loaded == b.loaded),
        audit_arch: a.audit_arch.filter(|_| a.audit_arch == b.audit_arch),
    }
}

fn loaded(offset: u32) -> String {
    match offset {
        NUMBER => "nr".to_owned(),
        ARCH => "arch".to_owned(),
        _ => {
            let word = offset.saturating_sub(ARGS) / 4;
            let half = if word.is_multiple_of(2) == cfg!(target_endian = "little") { "low" } else { "high" };
            format!("args[{}], {half} word", word / 2)
        }
    }
}

/// The architecture or the system call that a number is.
fn compared(machine: Machine, here: Known, number: u32) -> String {
    let mut abis = machine.abis().iter().copied();
    match here.loaded {
        Some(ARCH) => abis.find(|abi| abi.audit_arch() == number).map_or(String::new(), name),
        Some(NUMBER) => {
            let is_x32 = |abi: Abi| abi == Abi::X32;
            let abi = abis.find(|abi| Some(abi.audit_arch()) == here.audit_arch && is_x32(*abi) == (number >= X32_BIT));
            abi.and_then(|abi| abi.name(number)).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}
