//! From verdicts by number to a classic BPF program.
//!
//! The kernel emulates a filter once for every number of two ABIs when it is loaded (to fill the bitmap of calls that
//! are always allowed), so the layout decides the load time: a list costs 1 ms, the tree below 0.14 ms. The tree is a
//! binary search over ranges of numbers; neighbours with the same verdict are one range.
//!
//! Classic BPF jumps forward only, by at most 255 instructions in a conditional jump. So the program is built from its
//! end: the target of every jump is there, with a known distance, when the jump is made.

use super::rules::{Check, Checks, Compare, Condition, Verdict};
use std::collections::BTreeMap;

pub(super) const LD_ABS: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGS: u32 = 16;

/// The farthest conditional jump is 255; a few are kept for the jumps that reaching a second target may add.
const REACH: usize = 250;

/// The ranges of numbers of one `AUDIT_ARCH_*`: each verdict holds from its number up to the next one's.
pub(super) struct Arch {
    /// As in `seccomp_data.arch`.
    pub(super) audit_arch: u32,
    /// Sorted, the first at 0.
    pub(super) ranges: Vec<(u32, Verdict)>,
}

/// Lays explicit verdicts over a base of ranges (sorted, the first at 0), and merges equal neighbours.
pub(super) fn ranges(base: &[(u32, Verdict)], explicit: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let after = explicit.keys().filter_map(|number| number.checked_add(1));
    let mut starts: Vec<u32> =
        base.iter().map(|(start, _)| *start).chain(explicit.keys().copied()).chain(after).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut ranges: Vec<(u32, Verdict)> = Vec::with_capacity(starts.len());
    for start in starts {
        let under = || base.iter().rev().find(|(from, _)| *from <= start).map(|(_, verdict)| *verdict);
        let Some(verdict) = explicit.get(&start).copied().or_else(under) else { continue };
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((start, verdict));
        }
    }
    ranges
}

/// The whole program. `archs` are tested in order; any other architecture gets `other`.
pub(super) fn assemble(
    archs: &[Arch],
    checks: &[Checks],
    default: u32,
    other: u32,
    is_big_endian: bool,
) -> Vec<seccompiler::sock_filter> {
    let mut program = Assembler { is_big_endian, ..Assembler::default() };
    for block in checks {
        let entry = program.checks(block, default);
        program.blocks.push(entry);
    }
    let entries: Vec<(u32, Label)> = archs
        .iter()
        .map(|arch| {
            let tree = program.tree(&arch.ranges, default);
            // One verdict for all numbers needs no number, and may stand anywhere: a load before it would lead elsewhere.
            let is_next = program.distance(tree) == 0;
            (arch.audit_arch, if is_next { program.load(NUMBER) } else { tree })
        })
        .collect();
    let mut next = program.goal(Verdict::Action(other));
    for (audit_arch, entry) in entries.iter().rev() {
        next = program.branch(JEQ, *audit_arch, *entry, next);
    }
    program.load(ARCH);
    program.reversed.reverse();
    program.reversed
}

/// A place in the program, counted from its end.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Assembler {
    reversed: Vec<seccompiler::sock_filter>,
    /// The entries of the argument checks.
    blocks: Vec<Label>,
    /// The nearest instruction that returns an action or leads to a block.
    near: BTreeMap<Verdict, Label>,
    /// Which word of an argument comes first.
    is_big_endian: bool,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(seccompiler::sock_filter { code, jt, jf, k });
        Label(self.reversed.len().saturating_sub(1))
    }

    /// What the instruction that is pushed next would have to skip.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len().saturating_sub(to.0).saturating_sub(1)
    }

    fn load(&mut self, offset: u32) -> Label {
        self.push(LD_ABS, 0, 0, offset)
    }

    /// A place within reach that leads to the verdict.
    fn goal(&mut self, verdict: Verdict) -> Label {
        if let Some(near) = self.near.get(&verdict)
            && self.distance(*near) <= REACH
        {
            return *near;
        }
        let label = match verdict {
            Verdict::Action(action) => self.push(RET, 0, 0, action),
            Verdict::Checks(block) => {
                let entry = self.blocks.get(block).copied().unwrap_or(Label(0));
                self.reach(entry)
            }
        };
        self.near.insert(verdict, label);
        label
    }

    /// The label itself, or a jump to it.
    fn reach(&mut self, label: Label) -> Label {
        let distance = self.distance(label);
        // The kernel takes 4096 instructions, so that the distance fits in a program that is accepted at all.
        if distance <= REACH { label } else { self.push(JA, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX)) }
    }

    fn branch(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        let then = self.reach(then);
        let otherwise = self.reach(otherwise);
        let (jt, jf) = (self.distance(then), self.distance(otherwise));
        self.push(code, u8::try_from(jt).unwrap_or(u8::MAX), u8::try_from(jf).unwrap_or(u8::MAX), k)
    }

    /// The search, with the number in the accumulator.
    fn tree(&mut self, ranges: &[(u32, Verdict)], default: u32) -> Label {
        let (low, high) = ranges.split_at(ranges.len().div_euclid(2));
        match (low.is_empty(), high.first()) {
            (_, None) => self.goal(Verdict::Action(default)),
            (true, Some((_, verdict))) => self.goal(*verdict),
            (false, Some((start, _))) => {
                let high = self.tree(high, default);
                let low = self.tree(low, default);
                self.branch(JGE, *start, high, low)
            }
        }
    }

    /// The rules of one call in order, then the default.
    fn checks(&mut self, block: &Checks, default: u32) -> Label {
        let mut next = self.goal(Verdict::Action(default));
        for Check { conditions, action, .. } in block.rules.iter().rev() {
            let mut matched = self.goal(Verdict::Action(*action));
            for condition in conditions.iter().rev() {
                matched = self.condition(condition, block.wide, matched, next);
            }
            next = matched;
        }
        next
    }

    /// Jumps by one condition. A 64-bit argument is compared by its high word, then by its low one.
    fn condition(&mut self, condition: &Condition, wide: bool, then: Label, otherwise: Label) -> Label {
        let Condition { index, compare, mask, value } = *condition;
        // "Not equal", "less" and "less or equal" are the others with their targets exchanged.
        let (code, then, otherwise) = match compare {
            Compare::Equal => (JEQ, then, otherwise),
            Compare::Greater => (JGT, then, otherwise),
            Compare::GreaterOrEqual => (JGE, then, otherwise),
            Compare::NotEqual => (JEQ, otherwise, then),
            Compare::LessOrEqual => (JGT, otherwise, then),
            Compare::Less => (JGE, otherwise, then),
        };
        let (mask, value) = (Words::of(mask), Words::of(value));
        let offset = ARGS.saturating_add(u32::from(index).saturating_mul(8));
        let (low, high) =
            if self.is_big_endian { (offset.saturating_add(4), offset) } else { (offset, offset.saturating_add(4)) };
        let mut entry = if mask.low != 0 || !wide {
            let test = self.branch(code, value.low, then, otherwise);
            self.masked(mask.low, test);
            self.load(low)
        } else {
            then
        };
        if wide && mask.high != 0 {
            if code == JEQ {
                entry = self.branch(JEQ, value.high, entry, otherwise);
            } else {
                let equal = self.branch(JEQ, value.high, entry, otherwise);
                entry = self.branch(JGT, value.high, then, equal);
            }
            self.masked(mask.high, entry);
            entry = self.load(high);
        }
        entry
    }

    fn masked(&mut self, mask: u32, test: Label) -> Label {
        if mask == u32::MAX { test } else { self.push(AND, 0, 0, mask) }
    }
}

struct Words {
    high: u32,
    low: u32,
}

impl Words {
    #[allow(clippy::cast_possible_truncation, reason = "the two halves are meant")]
    const fn of(value: u64) -> Self {
        Self { high: (value >> 32) as u32, low: value as u32 }
    }
}
