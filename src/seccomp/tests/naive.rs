//! For the tests: an interpreter of classic BPF, and the rules of the OCI specification written a second time.

use super::super::table::{Abi, Machine};
use super::super::{Filter, Surroundings, compile_for};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op, LinuxSyscall};
use serde_json::Value;
use std::collections::HashSet;

pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const X86: u32 = 0x4000_0003;
pub(super) const AARCH64: u32 = 0xc000_00b7;
pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const KILL: u32 = 0;
pub(super) const fn errno(errno: u32) -> u32 {
    0x0005_0000 | errno
}
pub(super) const ENOSYS: u32 = errno(38);

pub(super) fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

pub(super) fn compiled(value: Value) -> Filter {
    compile_for(Machine::X86_64, &profile(value), Surroundings::default()).unwrap()
}

pub(super) fn refused(value: Value) -> String {
    compile_for(Machine::X86_64, &profile(value), Surroundings::default()).unwrap_err().to_string()
}

/// What the kernel would do, and after how many instructions.
pub(super) fn run(program: &[seccompiler::sock_filter], arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut at, mut accumulator, mut steps) = (0usize, 0u32, 0);
    loop {
        let insn = &program[at];
        at += 1;
        steps += 1;
        let skip = |holds: bool| usize::from(if holds { insn.jt } else { insn.jf });
        match insn.code {
            0x20 => {
                let offset = insn.k as usize;
                assert!(offset.is_multiple_of(4));
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x54 => accumulator &= insn.k,
            0x05 => at += insn.k as usize,
            0x15 => at += skip(accumulator == insn.k),
            0x25 => at += skip(accumulator > insn.k),
            0x35 => at += skip(accumulator >= insn.k),
            0x06 => return (insn.k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
}

pub(super) fn verdict(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    run(&filter.program, arch, number, args).0
}

pub(super) fn name(abi: Abi, number: u32) -> Option<&'static str> {
    let id = number as usize;
    let name = match abi {
        Abi::X86_64 => syscalls::x86_64::Sysno::new(id)?.name(),
        Abi::X86 => syscalls::x86::Sysno::new(id)?.name(),
        Abi::Aarch64 => syscalls::aarch64::Sysno::new(id)?.name(),
        _ => unreachable!(),
    };
    Some(name.strip_prefix("r#").unwrap_or(if name == "fstatat" { "newfstatat" } else { name }))
}

pub(super) fn holds(arg: &LinuxSeccompArg, args: [u64; 6], abi: Abi) -> bool {
    let cut = |value: u64| if abi == Abi::X86 { value & 0xffff_ffff } else { value };
    let (is, wanted) = (cut(args[arg.index()]), cut(arg.value()));
    match arg.op() {
        Op::ScmpCmpNe => is != wanted,
        Op::ScmpCmpLt => is < wanted,
        Op::ScmpCmpLe => is <= wanted,
        Op::ScmpCmpEq => is == wanted,
        Op::ScmpCmpGe => is >= wanted,
        Op::ScmpCmpGt => is > wanted,
        Op::ScmpCmpMaskedEq => is & wanted == cut(arg.value_two().unwrap_or(0)) & wanted,
    }
}

pub(super) fn matches(call: &LinuxSyscall, args: [u64; 6], abi: Abi) -> bool {
    let Some(conditions) = call.args() else { return true };
    let twice = (0..6).any(|index| conditions.iter().filter(|arg| arg.index() == index).count() > 1);
    if twice {
        conditions.iter().any(|arg| holds(arg, args, abi))
    } else {
        conditions.iter().all(|arg| holds(arg, args, abi))
    }
}

/// Whether the rule matches whatever the arguments are.
pub(super) fn always(call: &LinuxSyscall, abi: Abi) -> bool {
    let Some(conditions) = call.args() else { return true };
    let mask = |arg: &LinuxSeccompArg| if abi == Abi::X86 { arg.value() & 0xffff_ffff } else { arg.value() };
    let tautology = |arg: &LinuxSeccompArg| arg.op() == Op::ScmpCmpMaskedEq && mask(arg) == 0;
    let twice = (0..6).any(|index| conditions.iter().filter(|arg| arg.index() == index).count() > 1);
    if twice { conditions.iter().any(tautology) } else { conditions.iter().all(tautology) }
}

/// The profile as one number of one ABI sees it.
pub(super) struct Naive<'a> {
    abi: Abi,
    default: u32,
    fixed: Option<u32>,
    calls: Vec<&'a LinuxSyscall>,
}

pub(super) fn action(call: &LinuxSyscall) -> u32 {
    call.action().as_u32(call.errno_ret())
}

pub(super) fn newest(spec: &LinuxSeccomp, abi: Abi) -> Option<u32> {
    let named: HashSet<&str> = spec.syscalls().iter().flatten().flat_map(|c| c.names()).map(String::as_str).collect();
    (1..600).rev().find(|number| name(abi, *number).is_some_and(|name| named.contains(name)))
}

impl<'a> Naive<'a> {
    pub(super) fn new(spec: &'a LinuxSeccomp, abi: Abi, number: u32, newest: Option<u32>) -> Self {
        let default = spec.default_action().as_u32(spec.default_errno_ret());
        let calls: Vec<&LinuxSyscall> = spec
            .syscalls()
            .iter()
            .flatten()
            .filter(|call| name(abi, number).is_some_and(|name| call.names().iter().any(|n| n == name)))
            .filter(|call| action(call) != default)
            .collect();
        let newer = newest.is_some_and(|newest| number > newest);
        let fixed = if newer && !matches!(default, 0x7fff_0000 | 0x7ffc_0000) {
            Some(ENOSYS)
        } else {
            calls.iter().find(|call| always(call, abi)).map(|call| action(call))
        };
        Self { abi, default, fixed, calls }
    }

    /// The actions that the profile allows: one, unless rules with arguments overlap.
    pub(super) fn actions(&self, args: [u64; 6]) -> Vec<u32> {
        if let Some(action) = self.fixed {
            return vec![action];
        }
        let matching = self.calls.iter().filter(|call| matches(call, args, self.abi));
        let actions: Vec<u32> = matching.map(|call| action(call)).collect();
        if actions.is_empty() { vec![self.default] } else { actions }
    }
}

pub(super) fn naive(spec: &LinuxSeccomp, abi: Abi, number: u32, args: [u64; 6]) -> Vec<u32> {
    Naive::new(spec, abi, number, newest(spec, abi)).actions(args)
}

/// Every value around the ones that the profile compares with.
pub(super) fn boundaries(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = vec![0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX];
    for arg in profile.syscalls().iter().flatten().flat_map(|call| call.args().iter().flatten()) {
        for value in [arg.value(), arg.value_two().unwrap_or(0), arg.value() | 1 << 40, arg.value() << 32] {
            values.extend([value, value.wrapping_add(1), value.wrapping_sub(1), !value]);
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// A generator of numbers that are the same in every run (xorshift).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub(super) fn of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

pub(super) fn compare_everywhere(machine: Machine, spec: &LinuxSeccomp, abis: &[(Abi, u32)], samples: usize) {
    let filter = compile_for(machine, spec, Surroundings::default()).unwrap();
    let values = boundaries(spec);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for (abi, arch) in abis {
        let newest = newest(spec, *abi);
        for number in 0..600 {
            let naive = Naive::new(spec, *abi, number, newest);
            // i386's socketcall and ipc have a test of their own.
            if *abi == Abi::X86 && (number == 102 || number == 117) {
                continue;
            }
            for _ in 0..samples {
                let args = std::array::from_fn(|_| numbers.of(&values));
                let got = verdict(&filter, *arch, number, args);
                let wanted = naive.actions(args);
                assert!(wanted.contains(&got), "{abi:?} {number} {args:x?}: {got:#x}, not {wanted:x?}");
            }
        }
    }
}
