//! Lines and programs against the meaning of the rules, written a second time.

use super::*;
use serde_json::{Value, json};

fn parsed(devices: Value) -> Result<Vec<Rule>> {
    let resources: LinuxResources = serde_json::from_value(json!({ "devices": devices })).unwrap();
    rules(Some(&resources))
}

/// The rules of config.json alone.
fn listed(devices: Value) -> Vec<Rule> {
    let mut rules = parsed(devices).unwrap();
    rules.retain(|rule| rule.field != "linux.resources.devices");
    rules
}

fn lines(rules: &[Rule]) -> Vec<String> {
    let lines = v1_lines(rules).unwrap();
    lines.into_iter().map(|(allow, line)| format!("{} {line}", if allow { "allow" } else { "deny" })).collect()
}

/// What the kernel's interpreter would return.
fn run(program: &[BpfInsn], kind: i32, access: u8, major: u32, minor: u32) -> bool {
    let context = [kind.cast_unsigned() | u32::from(access) << 16, major, minor];
    let mut registers = [0u64; 6];
    let mut at = 0usize;
    loop {
        let BpfInsn { code, regs, off, imm } = program[at];
        at += 1;
        let (to, from) = (usize::from(regs & 15), usize::from(regs >> 4));
        let (value, imm) = (registers[to] as u32, imm.cast_unsigned());
        let mut jump = |holds: bool| at += if holds { usize::try_from(off).unwrap() } else { 0 };
        match code {
            0x61 => {
                assert_eq!(from, 1);
                registers[to] = u64::from(context[usize::try_from(off).unwrap() / 4]);
            }
            0x54 => registers[to] = u64::from(value & imm),
            0x74 => registers[to] = u64::from(value >> imm),
            0xb4 => registers[to] = u64::from(imm),
            0x56 => jump(value != imm),
            0x46 => jump(value & imm != 0),
            0x05 => jump(true),
            0x95 => return registers[0] == 1,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// Each access by itself: the last rule about it.
fn naive(rules: &[Rule], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    [READ, WRITE, MKNOD].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let about = |rule: &&Rule| {
            (rule.kind == Kind::All || rule.kind == kind)
                && rule.major.is_none_or(|number| number == major)
                && rule.minor.is_none_or(|number| number == minor)
                && rule.access & bit != 0
        };
        rules.iter().rev().find(about).is_some_and(|rule| rule.allow)
    })
}

/// cgroup v1 (security/device_cgroup.c): one exception must allow the whole access, or may deny any part of it.
fn v1_kernel(lines: &[(bool, String)], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    let (default, _) = lines[0];
    let mut exceptions = lines.iter().skip(1).filter(|(allow, line)| {
        assert_ne!(*allow, default, "{line}");
        let (devices, letters) = line.rsplit_once(' ').unwrap();
        let (type_, numbers) = devices.split_once(' ').unwrap();
        let (majors, minors) = numbers.split_once(':').unwrap();
        let same = |pattern: &str, number: u32| pattern == "*" || pattern == number.to_string();
        let bits = super::access("", Some(letters)).unwrap();
        let covers = if *allow { access & !bits == 0 } else { access & bits != 0 };
        type_ == if kind == Kind::Block { "b" } else { "c" } && same(majors, major) && same(minors, minor) && covers
    });
    exceptions.next().is_some() != default
}

fn every_access(check: impl Fn(Kind, i32, u8, u32, u32)) {
    for (kind, number) in [(Kind::Block, 1), (Kind::Char, 2)] {
        for access in 1..8 {
            for major in [1, 5, 10, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                for minor in [0, 3, 200, u32::MAX] {
                    check(kind, number, access, major, minor);
                }
            }
        }
    }
}

#[test]
fn without_rules_only_the_runtimes_own_devices_are_allowed() {
    let rules = rules(None).unwrap();
    assert_eq!(
        lines(&rules),
        [
            "deny a *:* rwm",
            "allow c *:* m",
            "allow b *:* m",
            "allow c 1:3 rwm",
            "allow c 1:8 rwm",
            "allow c 1:7 rwm",
            "allow c 5:0 rwm",
            "allow c 1:5 rwm",
            "allow c 1:9 rwm",
            "allow c 5:1 rwm",
            "allow c 136:* rwm",
            "allow c 5:2 rwm",
            "allow c 10:200 rwm",
        ]
    );
    let program = v2_program(&rules);
    assert!(run(&program, CHAR_DEVICE, READ | WRITE, 1, 3));
    assert!(run(&program, BLOCK_DEVICE, MKNOD, 8, 0));
    assert!(!run(&program, BLOCK_DEVICE, READ, 8, 0));
}

#[test]
fn a_denial_of_everything_ends_what_was_allowed_before_it() {
    let rules = parsed(json!([
        {"allow": true, "type": "c", "major": 99, "minor": 1, "access": "rwm"},
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"},
    ]))
    .unwrap();
    let lines = lines(&rules);
    assert_eq!(lines[0], "deny a *:* rwm");
    assert!(lines.contains(&"allow b 8:0 r".to_owned()));
    assert!(!lines.iter().any(|line| line.contains("99:1")));
    let program = v2_program(&rules);
    assert!(run(&program, BLOCK_DEVICE, READ, 8, 0) && run(&program, BLOCK_DEVICE, MKNOD, 8, 0));
    assert!(!run(&program, BLOCK_DEVICE, READ | WRITE, 8, 0) && !run(&program, CHAR_DEVICE, READ, 99, 1));
}

#[test]
fn where_everything_is_allowed_a_denied_device_stays_denied() {
    let rules = parsed(json!([
        {"allow": true, "type": "a", "access": "rwm"},
        {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
    ]))
    .unwrap();
    assert_eq!(lines(&rules), ["allow a *:* rwm", "deny c 10:229 rwm"]);
    let program = v2_program(&rules);
    for access in 1..8 {
        assert!(!run(&program, CHAR_DEVICE, access, 10, 229));
        assert!(run(&program, BLOCK_DEVICE, access, 10, 229));
    }
}

#[test]
fn a_denied_access_denies_the_opens_that_include_it() {
    let rules = listed(json!([
        {"allow": true, "type": "c", "major": 10, "access": "r"},
        {"allow": true, "type": "c", "major": 10, "access": "w"},
        {"allow": false, "type": "c", "major": 10, "minor": 7, "access": "w"},
    ]));
    let program = v2_program(&rules);
    assert!(run(&program, CHAR_DEVICE, READ | WRITE, 10, 6));
    assert!(run(&program, CHAR_DEVICE, READ, 10, 7));
    assert!(!run(&program, CHAR_DEVICE, READ | WRITE, 10, 7));
}

#[test]
fn type_a_with_numbers_or_a_part_of_the_accesses_is_about_these_only() {
    let rules = listed(json!([{"allow": true, "major": 10, "minor": 200, "access": "rw"}]));
    assert_eq!(lines(&rules), ["deny a *:* rwm", "allow b 10:200 rw", "allow c 10:200 rw"]);
    assert!(!run(&v2_program(&rules), CHAR_DEVICE, READ, 1, 1));
    let rules = listed(json!([{"allow": true}, {"allow": false, "type": "a", "major": -1, "access": "w"}]));
    assert_eq!(lines(&rules), ["allow a *:* rwm", "deny b *:* w", "deny c *:* w"]);
}

#[test]
fn on_v1_a_hole_in_a_wildcard_is_refused() {
    let rules = listed(json!([
        {"allow": true, "type": "c", "major": 10, "access": "rw"},
        {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "rm"},
    ]));
    assert_eq!(
        v1_lines(&rules).unwrap_err().to_string(),
        "linux.resources.devices[1]: \"c 10:200 rm\" takes back a part of \"c 10:* rw\", which cgroup v1 cannot do"
    );
    assert!(!run(&v2_program(&rules), CHAR_DEVICE, READ, 10, 200));
    // The other way round it is no hole.
    let rules = listed(json!([
        {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
        {"allow": false, "type": "c", "access": "r"},
    ]));
    assert_eq!(lines(&rules), ["deny a *:* rwm", "allow c 10:200 w"]);
}

#[test]
fn errors_name_the_field() {
    for (device, wanted) in [
        (json!({"allow": true, "type": "p"}), "type: invalid cgroup device type \"p\""),
        (json!({"allow": true, "type": "u"}), "type: invalid cgroup device type \"u\""),
        (json!({"allow": true, "access": ""}), "access: device access cannot be empty"),
        (json!({"allow": true, "access": "rwx"}), "access: unknown access 'x' in \"rwx\", expected r, w or m"),
        (
            json!({"allow": true, "major": 1_u64 << 40}),
            "major: 1099511627776 is not a device number (0 to 4294967295, -1: any)",
        ),
        (json!({"allow": true, "minor": -2}), "minor: -2 is not a device number (0 to 4294967295, -1: any)"),
    ] {
        let error = parsed(json!([{"allow": false}, device])).unwrap_err().to_string();
        assert_eq!(error, format!("linux.resources.devices[1].{wanted}"));
    }
}

#[test]
fn programs_and_lines_decide_as_the_rules_say() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit) as usize
    };
    let mut checked = 0;
    for _ in 0..200 {
        let devices: Vec<Value> = (0..=below(7))
            .map(|_| {
                let kind = ["a", "b", "c", "c"][below(4)];
                let major = [-1, 1, 10, 0x8000_0000_i64, 0xffff_ffff][below(5)];
                let minor = [-1, -1, 3, 200][below(4)];
                let access = ["r", "w", "m", "rw", "rwm", "mr"][below(6)];
                json!({"allow": below(3) > 0, "type": kind, "major": major, "minor": minor, "access": access})
            })
            .collect();
        for rules in [listed(json!(devices)), parsed(json!(devices)).unwrap()] {
            let program = v2_program(&rules);
            every_access(|kind, number, access, major, minor| {
                let wanted = naive(&rules, kind, access, major, minor);
                assert_eq!(run(&program, number, access, major, minor), wanted, "{rules:#?}");
            });
            let Ok(lines) = v1_lines(&rules) else { continue };
            checked += 1;
            every_access(|kind, _, access, major, minor| {
                let wanted = naive(&rules, kind, access, major, minor);
                let got = v1_kernel(&lines, kind, access, major, minor);
                // v1 wants one exception for the whole access, and so denies what two rules allow only together.
                let together = access.count_ones() > 1 && !got;
                assert!(got == wanted || together, "{kind:?} {access} {major}:{minor} {lines:?} {rules:#?}");
            });
        }
    }
    assert!(checked > 100, "{checked}");
}

/// Each in one place of a sorted list: compared with all others they would take minutes.
#[test]
fn a_hundred_thousand_rules_are_written_and_taken_back() {
    let rule = |allow| (0..100_000).map(move |minor| json!({"allow": allow, "type": "c", "major": 7, "minor": minor}));
    let rules = parsed(rule(true).chain(rule(false)).collect()).unwrap();
    assert_eq!(v1_lines(&rules).unwrap().len(), 1 + 12);
    assert_eq!(v1_lines(&rules[..100_000]).unwrap().len(), 1 + 100_000);
    assert!(v2_program(&rules).len() > 1_000_000);
}
