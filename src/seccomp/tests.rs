//! The programs, run by a small interpreter, against the rules of the OCI specification written a second time.

mod explain;
mod naive;

use super::table::{Abi, Machine, X32_BIT};
use super::{Agent, Surroundings, compile_for};
use naive::{
    AARCH64, ALLOW, ENOSYS, KILL, Numbers, X86, X86_64, boundaries, compare_everywhere, compiled, errno, naive, name,
    profile, refused, run, verdict,
};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use std::path::Path;

/// Shaped as Docker's default profile: many plain names, clone, personality, socket and clone3 with conditions.
fn docker_like() -> LinuxSeccomp {
    let table = (0..460).filter_map(|number| name(Abi::X86_64, number));
    let plain: Vec<&str> = table
        .filter(|name| !["clone", "clone3", "personality", "socket", "ptrace", "add_key", "bpf"].contains(name))
        .filter(|name| !name.starts_with("mount") && !name.contains("module"))
        .collect();
    let personality = [0u64, 8, 0x20000, 0x20008, 0xffff_ffff].map(|value| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    });
    let mut calls = vec![
        json!({"names": plain, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socketcall", "ipc", "chown32", "_llseek"], "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    calls.extend(personality);
    profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS"],
        "syscalls": calls,
    }))
}

#[test]
fn a_profile_like_dockers_decides_as_the_rules_say() {
    let spec = docker_like();
    compare_everywhere(Machine::X86_64, &spec, &[(Abi::X86_64, X86_64), (Abi::X86, X86)], 20);
    compare_everywhere(Machine::Aarch64, &spec, &[(Abi::Aarch64, AARCH64)], 20);
}

#[test]
fn a_profile_like_dockers_is_a_small_and_shallow_tree() {
    let filter = compile_for(Machine::X86_64, &docker_like(), Surroundings::default()).unwrap();
    assert!(filter.program.len() < 700, "{}", filter.program.len());
    let deepest = (0..600).map(|number| run(&filter.program, X86_64, number, [0; 6]).1).max().unwrap();
    assert!(deepest < 36, "{deepest}");
}

#[test]
fn every_operator_is_exact_at_its_boundaries() {
    for operator in ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"] {
        for value in [0u64, 1, 40, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0xffff_ffff_0000_0000, u64::MAX] {
            for two in [0u64, 1, 0x1_0000_0000] {
                let spec = profile(json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                    "syscalls": [{"names": ["getpid", "close"], "action": "SCMP_ACT_ERRNO", "args": [
                        {"index": 5, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{operator}")}]}],
                }));
                let filter = compile_for(Machine::X86_64, &spec, Surroundings::default()).unwrap();
                for arg in boundaries(&spec) {
                    for (abi, arch, number) in [(Abi::X86_64, X86_64, 39), (Abi::X86, X86, 20)] {
                        let args = [7, 7, 7, 7, 7, arg];
                        let got = verdict(&filter, arch, number, args);
                        assert_eq!(vec![got], naive(&spec, abi, number, args), "{operator} {value:x} {two:x} {arg:x}");
                    }
                }
            }
        }
    }
}

#[test]
fn random_profiles_decide_as_the_rules_say() {
    let mut numbers = Numbers(88_172_645_463_325_252);
    let names: Vec<&str> = (0..40).filter_map(|number| name(Abi::X86_64, number)).collect();
    let values = [0u64, 1, 2, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0002, u64::MAX];
    for _ in 0..80 {
        let mut calls = Vec::new();
        for _ in 0..=numbers.below(12) {
            let args: Vec<Value> = (0..numbers.below(4))
                .map(|_| {
                    let operator = numbers.of(&["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
                    json!({"index": numbers.below(3), "value": numbers.of(&values), "valueTwo": numbers.of(&values),
                           "op": format!("SCMP_CMP_{operator}")})
                })
                .collect();
            let names: Vec<&str> = (0..=numbers.below(3)).map(|_| numbers.of(&names)).collect();
            let action = numbers.of(&["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "LOG", "TRACE", "NOTIFY"]);
            calls.push(json!({"names": names, "action": format!("SCMP_ACT_{action}"), "args": args}));
        }
        let default = numbers.of(&["ALLOW", "ERRNO", "KILL_PROCESS", "LOG"]);
        let spec = profile(json!({"defaultAction": format!("SCMP_ACT_{default}"), "syscalls": calls,
                                  "architectures": ["SCMP_ARCH_X86"], "listenerPath": "/agent"}));
        match compile_for(Machine::X86_64, &spec, Surroundings::default()) {
            Ok(_) => compare_everywhere(Machine::X86_64, &spec, &[(Abi::X86_64, X86_64), (Abi::X86, X86)], 8),
            Err(error) => {
                let words = ["has another action than", "SCMP_ACT_NOTIFY cannot be used for the write syscall"];
                assert!(words.iter().any(|words| error.to_string().contains(words)), "{error}");
            }
        }
    }
}

#[test]
fn actions_and_errno_values_are_the_kernels() {
    let names = ["read", "write", "open", "close", "stat", "fstat", "lstat"];
    let actions = ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "LOG"];
    let mut calls: Vec<Value> = names
        .iter()
        .zip(actions)
        .map(|(name, action)| json!({"names": [name], "action": format!("SCMP_ACT_{action}")}))
        .collect();
    calls.push(json!({"names": ["poll"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}));
    calls.push(json!({"names": ["lseek"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535}));
    calls.push(json!({"names": ["mmap"], "action": "SCMP_ACT_NOTIFY"}));
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls, "listenerPath": "/agent"}));
    let wanted =
        [0, 0, 0x8000_0000, 0x0003_0000, 0x0005_0001, 0x7ff0_0001, 0x7ffc_0000, 0x0005_0000, 0x7ff0_ffff, 0x7fc0_0000];
    for (number, wanted) in (0..).zip(wanted) {
        assert_eq!(verdict(&filter, X86_64, number, [0; 6]), wanted, "{number}");
    }
    assert_eq!(verdict(&filter, X86_64, 10, [0; 6]), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_get_enosys_unless_the_default_lets_them_through() {
    let spec = |default: &str, names: &[&str]| {
        compiled(json!({"defaultAction": format!("SCMP_ACT_{default}"), "architectures": ["SCMP_ARCH_X86"],
                        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}))
    };
    for (default, action) in [("ERRNO", errno(1)), ("KILL", KILL), ("TRAP", 0x0003_0000), ("KILL_PROCESS", 1 << 31)] {
        let filter = spec(default, &["read", "openat"]);
        assert_eq!(verdict(&filter, X86_64, 1, [0; 6]), action);
        assert_eq!(verdict(&filter, X86_64, 257, [0; 6]), ALLOW);
        assert_eq!(verdict(&filter, X86_64, 258, [0; 6]), ENOSYS);
        assert_eq!(verdict(&filter, X86, 295, [0; 6]), ALLOW);
        assert_eq!(verdict(&filter, X86, 296, [0; 6]), ENOSYS);
        assert_eq!(verdict(&filter, X86, u32::MAX, [0; 6]), ENOSYS);
    }
    for (default, action) in [("TRACE", 0x7ff0_0001), ("LOG", 0x7ffc_0000)] {
        assert_eq!(verdict(&spec(default, &["openat"]), X86_64, 258, [0; 6]), action);
    }
    // Nothing that this ABI knows is named: there is no newest call.
    assert_eq!(verdict(&spec("ERRNO", &["nosuchcall"]), X86_64, 400, [0; 6]), errno(1));
    // A rule that repeats the default still names its call.
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO",
                                 "syscalls": [{"names": ["openat"], "action": "SCMP_ACT_ERRNO"}]}));
    assert_eq!(verdict(&filter, X86_64, 257, [0; 6]), errno(1));
    assert_eq!(verdict(&filter, X86_64, 258, [0; 6]), ENOSYS);
}

#[test]
fn an_architecture_that_is_not_listed_is_killed() {
    let spec = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM", "SCMP_ARCH_MIPS"]});
    let filter = compiled(spec.clone());
    assert_eq!(verdict(&filter, X86_64, 0, [0; 6]), ALLOW);
    assert_eq!(verdict(&filter, X86, 0, [0; 6]), KILL);
    assert_eq!(verdict(&filter, AARCH64, 0, [0; 6]), KILL);
    let filter = compile_for(Machine::Aarch64, &profile(spec), Surroundings::default()).unwrap();
    assert_eq!(verdict(&filter, AARCH64, 0, [0; 6]), ALLOW);
    assert_eq!(verdict(&filter, X86_64, 0, [0; 6]), KILL);
}

#[test]
fn bits_of_a_multiplexed_code_that_the_kernel_ignores_change_nothing() {
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["semop", "socket"], "action": "SCMP_ACT_ERRNO"}]}));
    for (number, code, wanted) in
        [(117, 1, errno(1)), (117, 0x1_0001, errno(1)), (117, 2, ALLOW), (102, 1, errno(1)), (102, 0x1_0001, ALLOW)]
    {
        assert_eq!(verdict(&filter, X86, number, [code, 0, 0, 0, 0, 0]), wanted, "{number} {code:#x}");
    }
}

#[test]
fn a_big_endian_machine_has_the_high_word_first_and_call_0_for_unknown_ones() {
    let spec = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["close"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]}]}));
    let filter = compile_for(Machine::S390x, &spec, Surroundings::default()).unwrap();
    // The interpreter is of a little-endian machine, where this is the other order.
    assert_eq!(verdict(&filter, 0x8000_0016, 6, [7 << 32, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(&filter, 0x8000_0016, 6, [7, 0, 0, 0, 0, 0]), errno(1));
    assert_eq!(verdict(&filter, 0x8000_0016, 0, [0; 6]), ENOSYS);
    assert_eq!(verdict(&filter, 0x8000_0016, 1, [0; 6]), errno(1));
}

#[test]
fn an_architecture_without_rules_gets_the_default_and_not_another_ones_rules() {
    let spec = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["pread64", "arch_prctl", "s390_pci_mmio_read"], "action": "SCMP_ACT_ALLOW"}]}));
    compare_everywhere(Machine::X86_64, &spec, &[(Abi::X86_64, X86_64), (Abi::X86, X86)], 2);
    let only_64_bit = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["newfstatat"], "action": "SCMP_ACT_ERRNO"}]});
    let filter = compiled(only_64_bit);
    for number in [0, 262, X32_BIT, u32::MAX] {
        assert_eq!(verdict(&filter, X86, number, [0; 6]), ALLOW, "{number:#x}");
    }
}

#[test]
fn x32_is_another_architecture_unless_it_is_listed() {
    let spec = |default: &str, archs: &[&str]| {
        compiled(json!({"defaultAction": default, "architectures": archs, "syscalls": [
            {"names": ["read", "execve", "uselib", "openat"], "action": "SCMP_ACT_TRAP"}]}))
    };
    let trap = 0x0003_0000;
    let filter = spec("SCMP_ACT_ALLOW", &[]);
    for (number, wanted) in [
        (0, trap),
        (X32_BIT - 1, ALLOW),
        (X32_BIT, KILL),
        (X32_BIT | 257, KILL),
        (1 << 31, KILL),
        (u32::MAX - 1, KILL),
        (u32::MAX, ALLOW),
    ] {
        assert_eq!(verdict(&filter, X86_64, number, [0; 6]), wanted, "{number:#x}");
    }
    let filter = spec("SCMP_ACT_ERRNO", &[]);
    for (number, wanted) in
        [(X32_BIT - 1, ENOSYS), (X32_BIT, KILL), (1 << 31, ENOSYS), (3 << 30, KILL), (u32::MAX, errno(1))]
    {
        assert_eq!(verdict(&filter, X86_64, number, [0; 6]), wanted, "{number:#x}");
    }
    let filter = spec("SCMP_ACT_ERRNO", &["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]);
    for (number, wanted) in [
        (0, trap),
        (59, trap),
        (134, trap),
        (X32_BIT, trap),
        (X32_BIT | 1, errno(1)),
        (X32_BIT | 59, errno(1)),
        (X32_BIT | 134, errno(1)),
        (X32_BIT | 520, trap),
        (X32_BIT | 521, ENOSYS),
        (520, ENOSYS),
        (1 << 31, ENOSYS),
        (u32::MAX, ENOSYS),
    ] {
        assert_eq!(verdict(&filter, X86_64, number, [0; 6]), wanted, "{number:#x}");
    }
}

#[test]
fn i386_sockets_and_ipc_are_also_found_behind_their_multiplexers() {
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket", "accept", "semop", "statx"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["bind"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"}]}]}));
    let call = |number, first, third| verdict(&filter, X86, number, [first, 0, third, 0, 0, 0]);
    assert_eq!(call(102, 1, 0), ALLOW);
    assert_eq!(call(102, 5, 0), ALLOW);
    assert_eq!(call(102, 3, 0), errno(1));
    assert_eq!(call(359, 0, 0), ALLOW);
    assert_eq!(call(117, 1, 0), ALLOW);
    assert_eq!(call(117, 2, 0), errno(1));
    // The code takes the place of the condition on the first argument; the others stay, as in libseccomp.
    assert_eq!(call(102, 2, 9), ALLOW);
    assert_eq!(call(102, 2, 8), errno(1));
    assert_eq!(call(361, 3, 9), ALLOW);
    assert_eq!(call(361, 4, 9), errno(1));
}

#[test]
fn conditions_on_different_arguments_are_joined_and_on_one_argument_are_alternatives() {
    let spec = |args: Value| {
        compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args}]}))
    };
    let one = json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"});
    let two = json!({"index": 0, "value": 2, "op": "SCMP_CMP_EQ"});
    let other = json!({"index": 1, "value": 7, "op": "SCMP_CMP_EQ"});
    let joined = spec(json!([other, one]));
    let either = spec(json!([one, other, two]));
    for (args, both, any) in [
        ([1, 7, 0, 0, 0, 0], ALLOW, ALLOW),
        ([1, 0, 0, 0, 0, 0], errno(1), ALLOW),
        ([2, 0, 0, 0, 0, 0], errno(1), ALLOW),
        ([0, 7, 0, 0, 0, 0], errno(1), ALLOW),
        ([0, 0, 0, 0, 0, 0], errno(1), errno(1)),
    ] {
        assert_eq!(verdict(&joined, X86_64, 41, args), both, "{args:?}");
        assert_eq!(verdict(&either, X86_64, 41, args), any, "{args:?}");
    }
}

#[test]
fn of_overlapping_rules_libseccomps_choice_decides() {
    let rule = |action: &str, args: Value| json!({"names": ["socket"], "action": action, "args": args});
    let of = |calls: Value, args| {
        let filter = compiled(json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": calls}));
        verdict(&filter, X86_64, 41, args)
    };
    let eq = |index, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let ge = |index, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_GE"});
    let (trap, kill) = (0x0003_0000, 1 << 31);
    // The first rule without arguments, wherever it stands.
    let rules = json!([
        rule("SCMP_ACT_ERRNO", json!([eq(0, 1)])),
        rule("SCMP_ACT_TRAP", json!([])),
        rule("SCMP_ACT_ALLOW", Value::Null),
    ]);
    assert_eq!(of(rules, [1, 0, 0, 0, 0, 0]), trap);
    // A rule that repeats the default is none.
    let rules = json!([rule("SCMP_ACT_LOG", json!([])), rule("SCMP_ACT_TRAP", json!([eq(0, 1)]))]);
    assert_eq!(of(rules, [1, 0, 0, 0, 0, 0]), trap);
    // The narrower of two ranges, the higher of two arguments, equality first, in either order of the file.
    for (a, b) in [(ge(0, 5), ge(0, 10)), (eq(0, 10), eq(1, 10)), (ge(0, 10), eq(0, 10))] {
        let both = [rule("SCMP_ACT_TRAP", json!([a])), rule("SCMP_ACT_KILL_PROCESS", json!([b]))];
        assert_eq!(of(json!([both[0], both[1]]), [10, 10, 0, 0, 0, 0]), kill);
        assert_eq!(of(json!([both[1], both[0]]), [10, 10, 0, 0, 0, 0]), kill);
    }
    // Fewer conditions.
    let rules = json!([rule("SCMP_ACT_TRAP", json!([eq(0, 1), eq(1, 1)])), rule("SCMP_ACT_ERRNO", json!([eq(0, 1)]))]);
    assert_eq!(of(rules, [1, 1, 0, 0, 0, 0]), errno(1));
}

#[test]
fn flags_are_the_kernels() {
    let flags = |flags: Value| compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}));
    assert_eq!(flags(Value::Null).flags, 4);
    assert_eq!(flags(json!([])).flags, 0);
    let all = ["LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV"].map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    let filter = flags(json!(all));
    assert_eq!(filter.flags, 6);
    assert_eq!(
        filter.notes,
        ["linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no effect without SCMP_ACT_NOTIFY"]
    );
}

#[test]
fn a_listener_is_asked_for_with_notify_only() {
    let spec = |action: &str| {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                       "syscalls": [{"names": ["mkdir"], "action": action}],
                       "listenerPath": "/agent", "listenerMetadata": "meta"}))
    };
    let compile = |spec: &LinuxSeccomp, around| compile_for(Machine::X86_64, spec, around).unwrap();
    let filter = compile(&spec("SCMP_ACT_ERRNO"), Surroundings::default());
    assert_eq!((filter.flags, filter.agent, filter.notes.len()), (0, None, 1));
    // NEW_LISTENER and WAIT_KILLABLE_RECV.
    let agent = Agent {
        field: "linux.seccomp.listenerPath",
        path: "/agent".into(),
        metadata: "meta".to_owned(),
        is_sent: false,
    };
    let filter = compile(&spec("SCMP_ACT_NOTIFY"), Surroundings::default());
    assert_eq!((filter.flags, filter.agent, filter.notes.len()), (8 | 32, Some(agent), 0));
}

#[test]
fn a_receiver_stands_in_for_a_listener_path() {
    let spec = |path: Value| {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                       "syscalls": [{"names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}))
    };
    let around = Surroundings { receiver: Some(Path::new("/receiver")), is_sent: false };
    for (path, wanted) in [(Value::Null, "/receiver"), (json!(""), "/receiver"), (json!("/agent"), "/agent")] {
        let filter = compile_for(Machine::X86_64, &spec(path), around).unwrap();
        // With SPEC_ALLOW, which a profile without flags has.
        assert_eq!((filter.flags, filter.agent.unwrap().path.as_path()), (4 | 8, Path::new(wanted)));
    }
    // Who has to send the listener can ask nobody whether that is allowed.
    let error = compile_for(Machine::X86_64, &spec(json!("/agent")), Surroundings { is_sent: true, ..around });
    assert_eq!(
        error.unwrap_err().to_string(),
        "linux.seccomp.syscalls[0].names[1]: SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall"
    );
}

#[test]
fn unknown_names_are_skipped_with_a_line_for_the_log() {
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read", "nosuchcall", "accept", "_llseek"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["nosuchcall", "other"], "action": "SCMP_ACT_ERRNO"}]}));
    assert_eq!(
        filter.notes,
        [
            "linux.seccomp.syscalls[0].names: unknown system call \"nosuchcall\" is skipped",
            "linux.seccomp.syscalls[1].names: unknown system call \"other\" is skipped",
        ]
    );
    assert_eq!(verdict(&filter, X86_64, 0, [0; 6]), errno(1));
}

#[test]
fn errors_name_the_rule() {
    let call = |call: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call]});
    let first = "linux.seccomp.syscalls[0]";
    for (spec, wanted) in [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action".to_owned(),
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW does not support an errno".to_owned(),
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            "linux.seccomp.defaultErrnoRet: 4096 is above 4095, the largest value of SCMP_ACT_ERRNO".to_owned(),
        ),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
            format!("linux.seccomp.listenerPath: is not set, and {first}.action is SCMP_ACT_NOTIFY"),
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
                   "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
            format!("{first}.names[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
                   "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY", "errnoRet": 1}]}),
            format!("{first}.errnoRet: SCMP_ACT_NOTIFY does not support an errno"),
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata: needs linux.seccomp.listenerPath".to_owned(),
        ),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 3})),
            format!("{first}.errnoRet: SCMP_ACT_KILL does not support an errno"),
        ),
        (
            call(json!({"names": [], "action": "SCMP_ACT_ALLOW"})),
            format!("{first}.names: expected at least one system call"),
        ),
        (
            call(json!({"names": ["read", ""], "action": "SCMP_ACT_ALLOW"})),
            format!("{first}.names[1]: empty string is not a valid syscall"),
        ),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            format!("{first}.args[0].index: 6 is above 5, the last argument"),
        ),
    ] {
        assert_eq!(refused(spec), wanted);
    }
}

#[test]
fn contradicting_rules_are_refused() {
    let rule = |action: &str| json!({"names": ["personality"], "action": action, "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]});
    let calls = json!([rule("SCMP_ACT_TRAP"), rule("SCMP_ACT_TRAP"), rule("SCMP_ACT_KILL")]);
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls})),
        "linux.seccomp.syscalls[2]: has another action than linux.seccomp.syscalls[0] for the same call and arguments"
    );
}

#[test]
fn far_targets_are_reached_and_too_long_a_program_is_refused() {
    let calls = |count: u64| -> Vec<Value> {
        (0..count)
            .map(|value| {
                json!({"names": ["read"], "action": format!("SCMP_ACT_{}", if value % 2 == 0 { "TRAP" } else { "LOG" }),
                       "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"},
                                {"index": 1, "value": value << 32, "op": "SCMP_CMP_GT"}]})
            })
            .collect()
    };
    let spec = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls(300)}));
    let filter = compile_for(Machine::X86_64, &spec, Surroundings::default()).unwrap();
    assert!(filter.program.len() > 2000);
    for value in 0..301 {
        for second in [0, value << 32, (value << 32) + 1, u64::MAX] {
            let args = [value, second, 0, 0, 0, 0];
            assert_eq!(vec![verdict(&filter, X86_64, 0, args)], naive(&spec, Abi::X86_64, 0, args), "{args:x?}");
        }
    }
    let long = refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls(600)}));
    assert!(long.starts_with("linux.seccomp.syscalls: needs a filter of "), "{long}");
    assert!(long.ends_with(" instructions, the kernel takes 4096"), "{long}");
}
