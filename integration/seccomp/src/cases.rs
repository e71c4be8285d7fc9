//! What two programs are asked: every number of every ABI, and arguments at the boundaries of what is compared.

use crate::cbpf::{ARGUMENTS, Program};
use crate::libseccomp::{self, Theirs};
use crate::random::Random;
use crate::targets::{Target, X32_BIT};
use oci_spec::runtime::LinuxSeccomp;
use std::collections::{BTreeMap, BTreeSet};

/// The newest call of either is below, counted from the base of an ABI.
const LAST: u32 = 520;
/// At most so many combinations of arguments for one number; where there are more, so many random ones.
const COMBINATIONS: usize = 240;

/// One question.
#[derive(Debug)]
pub struct Case {
    /// As in `seccomp_data`.
    pub arch: u32,
    /// With the x32 bit.
    pub number: u32,
    /// All six.
    pub args: [u64; 6],
}

/// Every architecture that the kernel could name to a filter on this machine, each with its numbers.
pub fn numbers(target: &Target) -> Vec<(u32, Vec<u32>)> {
    let mut archs: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for abi in target.every_abi() {
        let base = abi.number("read").expect("read").next_multiple_of(1000).saturating_sub(1000);
        let base = if base >= X32_BIT { 0 } else { base };
        let numbers = archs.entry(abi.audit_arch).or_default();
        // Private ranges: 32-bit ARM's own calls and those of its old ABI, the bases of MIPS.
        for base in [0, base, 0x0f_0000, 0x90_0000, 0x7fff_fe00] {
            numbers.extend(base..base + LAST);
        }
        for bits in [X32_BIT, 1 << 31, X32_BIT | 1 << 31] {
            numbers.extend((0..LAST + 60).map(|number| bits | number));
        }
        numbers.extend([4000, 5000, 6000].into_iter().flat_map(|base| [base - 1, base, base + 1]));
        numbers.extend([u32::MAX, u32::MAX - 1, u32::MAX - 99, u32::MAX - 100, X32_BIT - 1, (1 << 31) - 1]);
    }
    let mut numbers: Vec<(u32, Vec<u32>)> =
        archs.into_iter().map(|(arch, numbers)| (arch, numbers.into_iter().collect())).collect();
    // Others: their kernel never shows them to this machine, but a program must not take them for its own.
    for other in [0x4000_0003, 0xc000_003e, 0x4000_0028, 0xc000_00b7, 0x8000_0016, 0, u32::MAX] {
        if !numbers.iter().any(|(arch, _)| *arch == other) {
            numbers.push((other, vec![0, 1, 59, X32_BIT, u32::MAX]));
        }
    }
    numbers
}

/// For each number of an architecture with conditions: the values of each argument that are worth a question.
fn arguments(target: &Target, profile: &LinuxSeccomp) -> BTreeMap<(u32, u32), [BTreeSet<u64>; 6]> {
    let mut values: BTreeMap<(u32, u32), [BTreeSet<u64>; 6]> = BTreeMap::new();
    for abi in target.abis(profile) {
        for call in profile.syscalls().iter().flatten() {
            for name in call.names() {
                let theirs = libseccomp::number(abi.token, name).and_then(|number| u32::try_from(number).ok());
                let multiplexed = abi.multiplexed(name);
                let numbers = [abi.number(name), theirs, multiplexed.map(|(number, ..)| number)];
                for number in numbers.into_iter().flatten() {
                    let of = values.entry((abi.audit_arch, number)).or_default();
                    if let Some((_, code, _)) = multiplexed.filter(|(carrier, ..)| *carrier == number) {
                        of[0].extend([code - 1, code, code + 1, code | 1 << 16, code | 1 << 32]);
                    }
                    for arg in call.args().iter().flatten() {
                        let two = arg.value_two().unwrap_or(0);
                        for value in [arg.value(), two, arg.value() & two] {
                            boundaries(value, &mut of[arg.index()]);
                        }
                    }
                }
            }
        }
    }
    values
}

fn boundaries(value: u64, into: &mut BTreeSet<u64>) {
    let high = 1u64 << 32;
    into.extend([0, 1, u64::MAX, value, value.wrapping_sub(1), value.wrapping_add(1)]);
    into.extend([value.wrapping_add(high), value.wrapping_sub(high), value ^ 1 << 63, value & 0xffff_ffff]);
    into.extend([!value, value | 1 << 31]);
}

/// Runs both programs on everything and calls `differ` where they decide differently. How many decisions were made.
pub fn compare(
    target: &Target,
    numbers: &[(u32, Vec<u32>)],
    profile: &LinuxSeccomp,
    programs: (&Program, &Theirs),
    random: &mut Random<'_>,
    mut differ: impl FnMut(&Case, u32, u32),
) -> u64 {
    let (ours, theirs) = programs;
    let arguments = arguments(target, profile);
    let none = Default::default();
    let mut decisions = 0;
    let mut ask = |case: &Case| {
        let data = target.data(case.arch, case.number, &case.args);
        let ((our, read), (their, they_read)) = (ours.run(&data), theirs.run(&data));
        decisions += 1;
        if our != their {
            differ(case, our, their);
        }
        (read | they_read) & ARGUMENTS != 0
    };
    for (arch, numbers) in numbers {
        for &number in numbers {
            let (arch, values) = (*arch, arguments.get(&(*arch, number)).unwrap_or(&none));
            // The arguments are read: or this is the only decision about the number.
            if !ask(&Case { arch, number, args: [0; 6] }) {
                continue;
            }
            let lists: Vec<Vec<u64>> = values.iter().map(|values| values.iter().copied().collect()).collect();
            let all: usize = lists.iter().map(|list| list.len().max(1)).product();
            for i in 0..all.min(COMBINATIONS) {
                let mut rest = i;
                let args = std::array::from_fn(|index| {
                    let list = &lists[index];
                    let chosen = if all <= COMBINATIONS { rest } else { random.below(list.len().max(1)) };
                    rest /= list.len().max(1);
                    list.get(chosen % list.len().max(1)).copied().unwrap_or(0x55)
                });
                ask(&Case { arch, number, args });
            }
        }
    }
    decisions
}
