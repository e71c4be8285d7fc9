//! `seccomp explain` and `dump`: what they say is what the program does.

use super::super::dump::text;
use super::super::explain::{Asked, Call, action_text, explain_for};
use super::super::table::{Abi, Machine};
use super::super::{Surroundings, compile_for};
use super::docker_like;
use super::naive::{AARCH64, ENOSYS, Numbers, X86, X86_64, action, boundaries, matches, name, profile, verdict};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

fn answer(spec: &LinuxSeccomp, arch: &str, call: &str, args: &[u64]) -> String {
    let args: Vec<String> = args.iter().map(|arg| format!("{arg:#x}")).collect();
    let machine = if arch == "aarch64" { Machine::Aarch64 } else { Machine::X86_64 };
    let call = Call { arch: Some(arch), name: call, args: &args };
    explain_for(machine, spec, Surroundings::default(), &call).unwrap()
}

fn small() -> LinuxSeccomp {
    let personality = |value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 7, "op": "SCMP_CMP_GT"}]})
    };
    profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["nosuchcall", "read", "accept"], "action": "SCMP_ACT_ALLOW"},
        personality(0), personality(8),
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
        {"names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4000},
        {"names": ["socket"], "action": "SCMP_ACT_TRACE", "errnoRet": 5,
         "args": [{"index": 0, "value": 0xff, "valueTwo": 40, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}))
}

#[test]
fn an_answer_names_the_rule_and_what_happens() {
    for (arch, call, args, wanted) in [
        ("x86_64", "read", &[][..], "read, 0 of x86_64: SCMP_ACT_ALLOW: linux.seccomp.syscalls[0]"),
        ("SCMP_ARCH_X86_64", "0x0", &[], "read, 0 of x86_64: SCMP_ACT_ALLOW: linux.seccomp.syscalls[0]"),
        ("x86_64", "83", &[], "mkdir, 83 of x86_64: SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction"),
        (
            "x86_64",
            "mount",
            &[],
            "mount, 165 of x86_64: SCMP_ACT_ERRNO (0: nothing is done, and success returned): linux.seccomp.syscalls[3]",
        ),
        ("x86_64", "umount2", &[], "umount2, 166 of x86_64: SCMP_ACT_ERRNO (4000): linux.seccomp.syscalls[4]"),
        (
            "x86_64",
            "statx",
            &[],
            "statx, 332 of x86_64: SCMP_ACT_ERRNO (ENOSYS): newer than all that linux.seccomp.syscalls names",
        ),
        (
            "x86_64",
            "9999",
            &[],
            "9999 of x86_64: SCMP_ACT_ERRNO (ENOSYS): newer than all that linux.seccomp.syscalls names",
        ),
        (
            "x32",
            "execve",
            &[],
            "execve, 520 of x32: SCMP_ACT_KILL_THREAD (SIGSYS): linux.seccomp.architectures lacks SCMP_ARCH_X32",
        ),
        ("x86_64", "personality", &[8, 8], "personality, 135 of x86_64: SCMP_ACT_ALLOW: linux.seccomp.syscalls[2]"),
        (
            "x86_64",
            "personality",
            &[9],
            "personality, 135 of x86_64: SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction",
        ),
        (
            "x86_64",
            "personality",
            &[0],
            "personality, 135 of x86_64:\n  if args[1] > 0x7: SCMP_ACT_ALLOW: linux.seccomp.syscalls[1]\n  \
         otherwise: SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction",
        ),
        (
            "x86_64",
            "personality",
            &[],
            "personality, 135 of x86_64:\n  if args[0] == 0x8 and args[1] > 0x7: SCMP_ACT_ALLOW: linux.seccomp.syscalls[2]\n  \
         if args[0] == 0x0 and args[1] > 0x7: SCMP_ACT_ALLOW: linux.seccomp.syscalls[1]\n  otherwise: SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction",
        ),
        ("x86", "accept", &[], "accept, as socketcall(5, ...), 102 of x86: SCMP_ACT_ALLOW: linux.seccomp.syscalls[0]"),
        (
            "x86",
            "socket",
            &[],
            "socket, 359 of x86:\n  if args[0] & 0xff == 0x28: SCMP_ACT_TRACE (5 to the tracer, ENOSYS without one): linux.seccomp.syscalls[5]\n  \
         otherwise: SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction\n\
         socket, as socketcall(1, ...), 102 of x86: SCMP_ACT_TRACE (5 to the tracer, ENOSYS without one): linux.seccomp.syscalls[5]",
        ),
    ] {
        assert_eq!(answer(&small(), arch, call, args), format!("{wanted}\n"), "{call}");
    }
}

#[test]
fn x32_has_answers_of_its_own_where_it_is_listed() {
    for (call, wanted) in [
        ("execve", "execve, 520 of x32: SCMP_ACT_ALLOW: linux.seccomp.syscalls[0]\n"),
        ("520", "execve, 520 of x32: SCMP_ACT_ALLOW: linux.seccomp.syscalls[0]\n"),
        ("0x40000208", "execve, 520 of x32: SCMP_ACT_ALLOW: linux.seccomp.syscalls[0]\n"),
        ("59", "59 of x32: SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction\n"),
        ("600", "600 of x32: SCMP_ACT_ERRNO (ENOSYS): newer than all that linux.seccomp.syscalls names\n"),
    ] {
        assert_eq!(answer(&docker_like(), "x32", call, &[]), wanted);
    }
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let of = |arch, name, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let call = Call { arch, name, args: &args };
        explain_for(Machine::X86_64, &small(), Surroundings::default(), &call).unwrap_err().to_string()
    };
    for (error, words) in [
        (of(None, "banana", &[]), "x86_64 has no system call \"banana\"\nhint: its number"),
        (of(None, "_llseek", &[]), "x86_64 has no system call \"_llseek\"\nhint: x86 has it: --arch x86"),
        (of(None, "0x40000000", &[]), "0x40000000 is no number of a system call of x86_64"),
        (of(None, "-1", &[]), "-1 is no number of a system call of x86_64"),
        (
            of(Some("mips"), "read", &[]),
            "--arch: \"mips\" is no architecture that this machine runs programs of\nhint: it runs those of x86_64, x86, x32",
        ),
        (of(None, "read", &["1", "x"]), "argument 1: expected a number, such as 8, 0x7e020000 or -1, found \"x\""),
        (of(None, "read", &["0"; 7]), "7 arguments: a system call has at most 6"),
    ] {
        assert!(error.starts_with(words), "{error}");
    }
}

/// Profiles of all actions and operators, which rules may overlap.
fn random(numbers: &mut Numbers) -> LinuxSeccomp {
    let names: Vec<&str> = (0..30).filter_map(|number| name(Abi::X86_64, number)).collect();
    let calls: Vec<Value> = (0..=numbers.below(12))
        .map(|_| {
            let args: Vec<Value> = (0..numbers.below(4))
                .map(|_| {
                    let operator = numbers.of(&["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
                    let (value, two) = (numbers.of(&[0, 1, 2, 1 << 32, u64::MAX]), numbers.of(&[0, 2, u64::MAX]));
                    json!({"index": numbers.below(3), "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{operator}")})
                })
                .collect();
            let action = numbers.of(&["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "LOG", "TRACE"]);
            json!({"names": [numbers.of(&names)], "action": format!("SCMP_ACT_{action}"), "args": args})
        })
        .collect();
    let default = numbers.of(&["ALLOW", "ERRNO", "KILL_PROCESS"]);
    profile(
        json!({"defaultAction": format!("SCMP_ACT_{default}"), "syscalls": calls, "architectures": ["SCMP_ARCH_X86"]}),
    )
}

/// The outcome of the line that holds for these arguments, of which the conditions are read back from the text.
fn chosen(answer: &str, args: [u64; 6], abi: Abi) -> &str {
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    let holds = |condition: &str| {
        let words: Vec<&str> = condition.split(' ').collect();
        let index: usize = words[0].trim_start_matches("args[").trim_end_matches(']').parse().unwrap();
        let arg = if abi == Abi::X86 { args[index] & 0xffff_ffff } else { args[index] };
        let (arg, compare, value) = match words[1..] {
            ["&", mask, compare, value] => (arg & number(mask), compare, number(value)),
            [compare, value] => (arg, compare, number(value)),
            _ => panic!("{condition}"),
        };
        match compare {
            "==" => arg == value,
            "!=" => arg != value,
            "<=" => arg <= value,
            "<" => arg < value,
            ">=" => arg >= value,
            ">" => arg > value,
            _ => panic!("{condition}"),
        }
    };
    let Some((_, lines)) = answer.split_once(":\n") else { return answer.split_once(": ").unwrap().1.trim_end() };
    for line in lines.lines() {
        match line.trim_start().split_once(": ").unwrap() {
            ("otherwise", outcome) => return outcome,
            (conditions, outcome) if conditions[3..].split(" and ").all(holds) => return outcome,
            _ => {}
        }
    }
    panic!("{answer}")
}

#[test]
fn answers_are_what_the_program_does_and_rules_match_the_call() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut specs = vec![docker_like(), small()];
    specs.extend((0..60).map(|_| random(&mut numbers)));
    let (mut listed, mut ruled, mut newer) = (0, 0, 0);
    for spec in &specs {
        let values = boundaries(spec);
        for (arch, machine, abi, audit_arch) in [
            ("x86_64", Machine::X86_64, Abi::X86_64, X86_64),
            ("x86", Machine::X86_64, Abi::X86, X86),
            ("aarch64", Machine::Aarch64, Abi::Aarch64, AARCH64),
        ] {
            // The newer rules may contradict each other.
            let Ok(filter) = compile_for(machine, spec, Surroundings::default()) else { continue };
            let asked = Asked::new(machine, spec, Surroundings::default(), abi).unwrap();
            let named =
                spec.syscalls().iter().flatten().flat_map(|call| call.names()).filter_map(|name| abi.number(name));
            let mut calls: Vec<u32> = named.collect();
            calls.extend([0, 1, 39, 83, 300, 400, 460, 5000]);
            calls.dedup();
            for number in calls {
                let open = asked.about(&number.to_string(), [None; 6]).unwrap();
                listed += usize::from(open.contains("\n  if "));
                for _ in 0..8 {
                    let args: [u64; 6] = std::array::from_fn(|_| numbers.of(&values));
                    let got = verdict(&filter, audit_arch, number, args);
                    let whole = asked.about(&number.to_string(), args.map(Some)).unwrap();
                    assert_eq!(whole.lines().count(), 1, "{whole}");
                    let (_, outcome) = whole.trim_end().split_once(&format!("{number} of {arch}: ")).unwrap();
                    assert_eq!(chosen(&open, args, abi), outcome, "{open}{args:x?}");
                    let place = outcome.strip_prefix(&action_text(got)).expect(&whole).strip_prefix(": ").unwrap();
                    let index = place.strip_prefix("linux.seccomp.syscalls[").and_then(|rest| rest.strip_suffix(']'));
                    if let Some(index) = index {
                        let rule = &spec.syscalls().as_ref().unwrap()[index.parse::<usize>().unwrap()];
                        ruled += 1;
                        assert_eq!(action(rule), got, "{whole}");
                        // i386's multiplexers are named by what they carry.
                        let name = name(abi, number).unwrap();
                        let carries = abi == Abi::X86 && ["socketcall", "ipc"].contains(&name);
                        assert!(carries || rule.names().iter().any(|one| one == name), "{whole}");
                        assert!(carries || matches(rule, args, abi), "{whole}{args:x?}");
                    } else if place == "linux.seccomp.defaultAction" {
                        assert_eq!(got, spec.default_action().as_u32(spec.default_errno_ret()), "{whole}");
                    } else {
                        newer += usize::from(place.starts_with("newer"));
                        assert!(got == ENOSYS || place.starts_with("linux.seccomp.architectures"), "{whole}");
                    }
                }
            }
        }
    }
    assert!(listed > 300 && ruled > 3000 && newer > 1000, "{listed} {ruled} {newer}");
}

/// Assembles what `dump` prints.
fn assembled(text: &str) -> Vec<(u16, u8, u8, u32)> {
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).unwrap(),
        None => word.parse().unwrap(),
    };
    let assemble = |(at, line): (usize, &str)| {
        let code = line.split(';').next().unwrap();
        let words: Vec<&str> = code.split([' ', ',', '#', '[', ']']).filter(|word| !word.is_empty()).collect();
        let skip = |label: &str| label.strip_prefix('l').unwrap().parse::<usize>().unwrap() - at - 1;
        assert_eq!(words[0], format!("l{at}:"));
        let jump = |code, k, then, otherwise| {
            (code, skip(then).try_into().unwrap(), skip(otherwise).try_into().unwrap(), number(k))
        };
        match words[1..] {
            ["ld", k] => (0x20, 0, 0, number(k)),
            ["and", k] => (0x54, 0, 0, number(k)),
            ["ja", label] => (0x05, 0, 0, skip(label).try_into().unwrap()),
            ["jeq", k, then, otherwise] => jump(0x15, k, then, otherwise),
            ["jgt", k, then, otherwise] => jump(0x25, k, then, otherwise),
            ["jge", k, then, otherwise] => jump(0x35, k, then, otherwise),
            ["ret", k] => (0x06, 0, 0, number(k)),
            _ => panic!("{line}"),
        }
    };
    text.lines().enumerate().map(assemble).collect()
}

#[test]
fn a_dump_is_the_program() {
    let mut numbers = Numbers(7);
    let mut specs = vec![docker_like(), small()];
    specs.extend((0..20).map(|_| random(&mut numbers)));
    let mut far = small();
    let long = (0..200_u64).map(|value| {
        json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    });
    far.set_syscalls(serde_json::from_value(long.collect()).unwrap());
    specs.push(far);
    for spec in &specs {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let Ok(filter) = compile_for(machine, spec, Surroundings::default()) else { continue };
            let program: Vec<_> = filter.program.iter().map(|insn| (insn.code, insn.jt, insn.jf, insn.k)).collect();
            assert_eq!(assembled(&text(machine, &filter)), program);
        }
    }
}

#[test]
fn a_dump_says_what_its_numbers_mean() {
    let filter = compile_for(Machine::X86_64, &small(), Surroundings::default()).unwrap();
    let text = text(Machine::X86_64, &filter);
    let has = |line: &str, comment: &str| {
        text.lines().any(|one| one.contains(line) && one.ends_with(&format!("; {comment}")))
    };
    for (line, comment) in [
        ("ld [4]", "arch"),
        ("jeq #0xc000003e", "x86_64"),
        ("jeq #0x40000003", "x86"),
        ("ld [0]", "nr"),
        ("jge #165", "mount"),
        ("jge #359", "socket"),
        ("jge #102", "socketcall"),
        ("ld [16]", "args[0], low word"),
        ("ld [28]", "args[1], high word"),
        ("ret #0x7fff0000", "SCMP_ACT_ALLOW"),
        ("ret #0x50001", "SCMP_ACT_ERRNO (EPERM)"),
    ] {
        assert!(has(line, comment), "{line}: {text}");
    }
    let ends = filter.program.iter().filter(|insn| insn.code == 6).count();
    assert_eq!(text.lines().filter(|line| line.contains("; SCMP_ACT_")).count(), ends);
}
