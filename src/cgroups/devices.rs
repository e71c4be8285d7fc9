//! The device rules of `linux.resources.devices`, as lines for cgroup v1 and as an eBPF program for cgroup v2.
//!
//! Runs in: parent (pure: no file, no system call). Loading and attaching the program is the business of `sys`.
//!
//! One meaning for both: rules apply in their order to each of read, write and mknod by itself, the last rule that
//! names the device and the access decides, and what no rule names is denied. An open for reading and writing needs
//! both. v1 can express less (see [`v1_lines`]).

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

#[cfg(test)]
mod tests;
mod update;

pub(crate) use update::{change, changed_rules, merged, v1_changes};

/// `BPF_DEVCG_ACC_*` (linux/bpf.h).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const EVERY_ACCESS: u8 = READ | WRITE | MKNOD;

/// The devices that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Every device and every access; the numbers are wildcards.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Allow or deny.
    pub(crate) allow: bool,
    /// Which devices.
    pub(crate) kind: Kind,
    /// `None`: every major number.
    pub(crate) major: Option<u32>,
    /// `None`: every minor number.
    pub(crate) minor: Option<u32>,
    /// Bits of `BPF_DEVCG_ACC_*`, never 0.
    pub(crate) access: u8,
    /// The place in config.json; for the runtime's own rules `linux.resources.devices`.
    pub(crate) field: String,
}

/// One eBPF instruction, laid out as `struct bpf_insn` (linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BpfInsn {
    /// Class, operation and source.
    pub(crate) code: u8,
    /// The destination register in the low four bits, the source register in the high ones (little-endian).
    pub(crate) regs: u8,
    /// Instructions to skip, or the offset of a load.
    pub(crate) off: i16,
    /// The constant.
    pub(crate) imm: i32,
}

/// The rules of config.json, then the runtime's own: the devices that every container has, with mknod of any device.
pub(crate) fn rules(resources: Option<&LinuxResources>) -> Result<Vec<Rule>> {
    let listed = resources.and_then(|resources| resources.devices().as_ref());
    let mut rules = Vec::new();
    for (i, device) in listed.into_iter().flatten().enumerate() {
        rules.extend(parse(&format!("linux.resources.devices[{i}]"), device)?);
    }
    rules.extend(default_rules(&rules));
    Ok(rules)
}

fn parse(field: &str, device: &LinuxDeviceCgroup) -> Result<Vec<Rule>> {
    let kinds: &[Kind] = match device.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => &[Kind::Block, Kind::Char],
        LinuxDeviceType::B => &[Kind::Block],
        LinuxDeviceType::C => &[Kind::Char],
        other => {
            return Err(Error::at(format!("{field}.type"), format!("invalid cgroup device type {:?}", other.as_str())));
        }
    };
    let major = number(&format!("{field}.major"), device.major())?;
    let minor = number(&format!("{field}.minor"), device.minor())?;
    let access = access(&format!("{field}.access"), device.access().as_deref())?;
    let rule = |kind| Rule { allow: device.allow(), kind, major, minor, access, field: field.to_owned() };
    // A rule of type "a" replaces everything before it only if it is about everything. runc takes any such rule for
    // that, so that allowing "a" 10:200 allows all devices; here it is a rule for block and one for character devices.
    let everything = kinds.len() > 1 && major.is_none() && minor.is_none() && access == EVERY_ACCESS;
    Ok(if everything { vec![rule(Kind::All)] } else { kinds.iter().copied().map(rule).collect() })
}

fn number(field: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| Error::at(field, format!("{number} is not a device number (0 to 4294967295, -1: any)"))),
    }
}

fn access(field: &str, letters: Option<&str>) -> Result<u8> {
    let Some(letters) = letters else { return Ok(EVERY_ACCESS) };
    if letters.is_empty() {
        return Err(Error::at(field, "device access cannot be empty"));
    }
    letters.chars().try_fold(0, |access, letter| match letter {
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        'm' => Ok(access | MKNOD),
        other => Err(Error::at(field, format!("unknown access {other:?} in {letters:?}, expected r, w or m"))),
    })
}

/// runc's `AllowedDevices`, in its order, and the console.
fn default_rules(listed: &[Rule]) -> Vec<Rule> {
    let rule = |kind, major, minor, access| Rule {
        allow: true,
        kind,
        major,
        minor,
        access,
        field: "linux.resources.devices".to_owned(),
    };
    let char = |major, minor| rule(Kind::Char, Some(major), minor, EVERY_ACCESS);
    // Where everything is allowed but what is denied, mknod needs no rule, and one would take back a part of a denial.
    let open = listed.iter().rev().find(|rule| rule.kind == Kind::All).is_some_and(|rule| rule.allow);
    let mknod = [Kind::Char, Kind::Block].into_iter().filter(|_| !open).map(|kind| rule(kind, None, None, MKNOD));
    let nodes = [
        char(1, Some(3)),    // null
        char(1, Some(8)),    // random
        char(1, Some(7)),    // full
        char(5, Some(0)),    // tty
        char(1, Some(5)),    // zero
        char(1, Some(9)),    // urandom
        char(5, Some(1)),    // console
        char(136, None),     // pts/*
        char(5, Some(2)),    // ptmx
        char(10, Some(200)), // net/tun: callers cannot easily add it, and came to rely on it
    ];
    mknod.chain(nodes).collect()
}

/// The devices of a v1 exception: kind, major, minor.
type Devices = (Kind, Option<u32>, Option<u32>);

/// The lines for `devices.allow` (true) and `devices.deny` (false) of a v1 cgroup, to be written in this order.
///
/// v1 keeps a default and a list of exceptions from it. A write that takes back a part of an exception with wildcards
/// is ignored by the kernel without an error, so that a denial would be lost: such rules are refused here, as in runc.
pub(crate) fn v1_lines(rules: &[Rule]) -> Result<Vec<(bool, String)>> {
    let (default, exceptions) = exceptions(rules)?;
    let exceptions = exceptions.into_iter().map(|(devices, access)| (!default, line(devices, access)));
    Ok(std::iter::once((default, "a *:* rwm".to_owned())).chain(exceptions).collect())
}

/// v1's list: whether devices are allowed, and the exceptions from that.
fn exceptions(rules: &[Rule]) -> Result<(bool, Vec<(Devices, u8)>)> {
    let mut default = false;
    let mut exceptions: BTreeMap<Devices, u8> = BTreeMap::new();
    // In the order of the rules: who reads devices.list compares it with them.
    let mut order: BTreeMap<Devices, usize> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let devices = (rule.kind, rule.major, rule.minor);
        if rule.kind == Kind::All {
            default = rule.allow;
            exceptions.clear();
        } else if rule.allow != default {
            if exceptions.insert(devices, exceptions.get(&devices).copied().unwrap_or(0) | rule.access).is_none() {
                order.insert(devices, index);
            }
        } else {
            for exception in overlapping(&exceptions, devices) {
                let Some(access) = exceptions.get_mut(&exception) else { continue };
                if within(exception, devices) {
                    *access &= !rule.access;
                    if *access == 0 {
                        exceptions.remove(&exception);
                    }
                } else if *access & rule.access != 0 {
                    let (hole, whole) = (line(devices, rule.access), line(exception, *access));
                    let what = format!("\"{hole}\" takes back a part of \"{whole}\", which cgroup v1 cannot do");
                    return Err(Error::at(&rule.field, what));
                }
            }
        }
    }
    let mut list: Vec<_> = exceptions.into_iter().collect();
    list.sort_by_key(|(devices, _)| order.get(devices).copied());
    Ok((default, list))
}

/// What is allowed, with the letters of the access, where nothing else is. None: the rules are no such list.
pub(crate) fn allowed(rules: &[Rule]) -> Option<Vec<(Devices, String)>> {
    let (_, exceptions) = exceptions(rules).ok().filter(|(default, _)| !default)?;
    Some(exceptions.into_iter().map(|(devices, access)| (devices, letters(access))).collect())
}

fn within(inner: Devices, outer: Devices) -> bool {
    let number = |inner: Option<u32>, outer: Option<u32>| outer.is_none() || inner == outer;
    inner.0 == outer.0 && number(inner.1, outer.1) && number(inner.2, outer.2)
}

/// Those that have a device in common with these. One device is looked for in the four places where it can be: a hundred
/// thousand rules must not take long.
fn overlapping(exceptions: &BTreeMap<Devices, u8>, devices: Devices) -> Vec<Devices> {
    let number = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    match devices {
        (kind, Some(major), Some(minor)) => {
            let with = |major| [(kind, major, None), (kind, major, Some(minor))];
            let places = [None, Some(major)].into_iter().flat_map(with);
            places.filter(|place| exceptions.contains_key(place)).collect()
        }
        (kind, major, minor) => {
            let all = exceptions.keys().copied();
            all.filter(|other| other.0 == kind && number(other.1, major) && number(other.2, minor)).collect()
        }
    }
}

fn line((kind, major, minor): Devices, access: u8) -> String {
    let kind = match kind {
        Kind::All => 'a',
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    format!("{kind} {}:{} {}", number(major), number(minor), letters(access))
}

fn letters(access: u8) -> String {
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].into_iter();
    letters.filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
}

/// `BPF_LDX | BPF_MEM | BPF_W`
const LOAD: u8 = 0x61;
/// `BPF_ALU | BPF_AND | BPF_K`: 32-bit operations clear the upper half of the register.
const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`
const SHIFT_RIGHT: u8 = 0x74;
/// `BPF_ALU | BPF_MOV | BPF_K`
const MOVE: u8 = 0xb4;
/// `BPF_JMP32 | BPF_JNE | BPF_K`: compares 32 bits, so that no number is sign-extended.
const JUMP_NOT_EQUAL: u8 = 0x56;
/// `BPF_JMP32 | BPF_JSET | BPF_K`
const JUMP_ANY_SET: u8 = 0x46;
/// `BPF_JMP | BPF_JA`
const JUMP_ALWAYS: u8 = 0x05;
/// `BPF_JMP | BPF_EXIT`
const EXIT: u8 = 0x95;
/// `BPF_DEVCG_DEV_*` (linux/bpf.h).
const BLOCK_DEVICE: i32 = 1;
const CHAR_DEVICE: i32 = 2;

const RESULT: u8 = 0;
/// `struct bpf_cgroup_dev_ctx`: the type in the low and the access in the high half of the first word, major, minor.
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
/// The accesses that no rule has decided yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for `BPF_PROG_TYPE_CGROUP_DEVICE`; it returns 1 to allow. The last rule is tested first.
pub(crate) fn v2_program(rules: &[Rule]) -> Vec<BpfInsn> {
    let mut program = vec![
        load(TYPE, 0),
        insn(AND, TYPE, 0, 0xffff),
        load(OPEN, 0),
        insn(SHIFT_RIGHT, OPEN, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        if rule.kind == Kind::All {
            // Nothing before it matters, and the verifier refuses instructions that are never reached.
            program.extend(answer(rule.allow));
            return program;
        }
        program.extend(test(rule));
    }
    program.extend(answer(false));
    program
}

/// The instructions of one rule; the next rule's follow.
fn test(rule: &Rule) -> Vec<BpfInsn> {
    let access = i32::from(rule.access);
    let [set, exit] = answer(rule.allow);
    let action = if rule.allow {
        // What is left open is for the rules before this one.
        vec![insn(AND, OPEN, 0, !access), insn(JUMP_NOT_EQUAL, OPEN, 2, 0), set, exit]
    } else {
        vec![insn(JUMP_ANY_SET, OPEN, 1, access), insn(JUMP_ALWAYS, 0, 2, 0), set, exit]
    };
    let kind = if rule.kind == Kind::Block { BLOCK_DEVICE } else { CHAR_DEVICE };
    let mut conditions = vec![(TYPE, kind)];
    conditions.extend(rule.major.map(|major| (MAJOR, major.cast_signed())));
    conditions.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));
    // Each failing condition skips the conditions after it and the action.
    let skips = (0..conditions.len()).rev().map(|after| i16::try_from(after.saturating_add(action.len())).unwrap_or(0));
    let tests = conditions.iter().zip(skips).map(|((reg, value), skip)| insn(JUMP_NOT_EQUAL, *reg, skip, *value));
    tests.chain(action.iter().copied()).collect()
}

const fn answer(allow: bool) -> [BpfInsn; 2] {
    [insn(MOVE, RESULT, 0, allow as i32), insn(EXIT, 0, 0, 0)]
}

const fn insn(code: u8, register: u8, off: i16, imm: i32) -> BpfInsn {
    BpfInsn { code, regs: register, off, imm }
}

const fn load(register: u8, off: i16) -> BpfInsn {
    BpfInsn { code: LOAD, regs: register | CONTEXT << 4, off, imm: 0 }
}
