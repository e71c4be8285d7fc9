//! Profiles: random ones, and the default ones of engines.

use crate::libseccomp;
use crate::random::Random;
use crate::targets::Target;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ACTIONS: [&str; 9] = ["ALLOW", "ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "LOG", "TRACE", "NOTIFY"];
const DEFAULTS: [&str; 8] = ["ERRNO", "ERRNO", "ERRNO", "ALLOW", "KILL_PROCESS", "TRAP", "LOG", "TRACE"];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
/// Values that meet each other, in either word of an argument.
const VALUES: [u64; 14] = [
    0,
    1,
    2,
    5,
    40,
    0x7e02_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0002,
    0x5_0000_0005,
    0xffff_ffff_0000_0000,
    u64::MAX,
];
/// So many numbers hold every name of libseccomp, pseudo numbers included.
const NUMBERS: std::ops::Range<i32> = -12_000..7_000;

/// Every name that libseccomp knows.
pub fn known_names(targets: &[Target]) -> BTreeSet<String> {
    let tokens: BTreeSet<u32> = targets.iter().flat_map(|target| target.every_abi()).map(|abi| abi.token).collect();
    let mut names = BTreeSet::new();
    for token in tokens {
        names.extend(NUMBERS.filter_map(|number| libseccomp::name(token, number)));
    }
    names
}

/// Those for random profiles: libseccomp takes rules by numbers of this machine, and 2.5.4 has given one pseudo number
/// to two names of PowerPC (sys_debug_setcontext, switch_endian), which on PowerPC itself is no matter.
pub fn usable_names(targets: &[Target]) -> Vec<String> {
    let known = known_names(targets);
    let (usable, not): (Vec<_>, Vec<_>) = known.into_iter().partition(|name| libseccomp::is_translated(name));
    assert!(not.len() <= 1, "{not:?}");
    usable.into_iter().filter(|name| name != "switch_endian").collect()
}

/// What the rules of a random profile may do to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rules with conditions all have the same action, as in every published profile.
    OneAction,
    /// Anything.
    Any,
}

/// A random profile for a machine, with the names given.
pub fn random(target: &Target, names: &[String], random: &mut Random<'_>, kind: Kind) -> LinuxSeccomp {
    let common = random.of(&ACTIONS);
    // Few names, so that their rules meet; or all.
    let few: Vec<&str> = (0..1 + random.below(8)).map(|_| names[random.below(names.len())].as_str()).collect();
    let mut calls = Vec::new();
    let most = if random.one_in(4) { 60 } else { 12 };
    for _ in 0..1 + random.below(most) {
        let named: Vec<&str> = (0..1 + random.below(3))
            .map(|_| if random.one_in(3) { names[random.below(names.len())].as_str() } else { random.of(&few) })
            .filter(|name| *name != "write")
            .collect();
        if named.is_empty() {
            continue;
        }
        let action = if kind == Kind::OneAction { common } else { random.of(&ACTIONS) };
        let mut call = json!({"names": named, "action": format!("SCMP_ACT_{action}")});
        if matches!(action, "ERRNO" | "TRACE") && random.one_in(2) && kind == Kind::Any {
            call["errnoRet"] = json!(random.of(&[0, 1, 38, 4095]));
        }
        if !random.one_in(3) {
            call["args"] = (0..random.below(4)).map(|_| condition(random)).collect();
        }
        calls.push(call);
    }
    let default = random.of(&DEFAULTS);
    let archs: Vec<String> =
        target.every_abi().iter().filter(|_| !random.one_in(4)).map(|abi| abi.name.clone()).collect();
    let mut spec = json!({"defaultAction": format!("SCMP_ACT_{default}"), "syscalls": calls, "architectures": archs,
                          "listenerPath": "/agent"});
    if matches!(default, "ERRNO" | "TRACE") && random.one_in(3) {
        spec["defaultErrnoRet"] = json!(random.of(&[1, 13, 38]));
    }
    serde_json::from_value(spec).expect("a profile")
}

fn condition(random: &mut Random<'_>) -> Value {
    // As likely a value of the list as one near it.
    let mut value = || {
        let value = random.of(&VALUES);
        if random.one_in(4) { value.wrapping_add(random.below(3) as u64).wrapping_sub(1) } else { value }
    };
    let (value, two) = (value(), value());
    let last = if random.one_in(3) { 6 } else { 2 };
    json!({"index": random.below(last), "value": value, "valueTwo": two,
           "op": format!("SCMP_CMP_{}", random.of(&OPERATORS))})
}

/// Where `scripts/seccomp-profiles.sh` puts the profiles of engines.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/seccomp");
/// Docker's default capabilities that a profile asks for, without CAP_AUDIT_WRITE, which has rules for its absence.
const CAPABILITIES: [&str; 2] = ["CAP_SYS_CHROOT", "CAP_MKNOD"];

/// The default profiles of engines, as they hand them to a runtime on a machine: name and profile. Each with few and
/// with many capabilities.
pub fn engines(target: &Target) -> Vec<(String, LinuxSeccomp)> {
    let read = |name: &str| {
        let path = format!("{DIRECTORY}/{name}");
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}: run scripts/seccomp-profiles.sh"))
    };
    let mut profiles = Vec::new();
    for engine in ["docker", "podman"] {
        let template = serde_json::from_str(&read(&format!("{engine}.json"))).expect("JSON");
        for (what, is_granted) in [("few", false), ("all", true)] {
            let has = |capability: &str| is_granted || CAPABILITIES.contains(&capability);
            profiles.push((format!("{engine}, {what} capabilities"), from_template(target, &template, has)));
        }
    }
    profiles.push(("containerd".to_owned(), from_go(target, &read("containerd.go"))));
    profiles
}

/// An engine's template: rules that are included for machines and capabilities.
fn from_template(target: &Target, template: &Value, has: impl Fn(&str) -> bool) -> LinuxSeccomp {
    let go_arch = match target.name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "mips64el" => "mipsel64",
        name => name,
    };
    let holds = |conditions: &Value, any: bool| {
        let list = |name: &str| conditions[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (archs, caps) = (list("arches"), list("caps"));
        let arch = archs.iter().any(|one| text(one) == go_arch);
        if any {
            arch || caps.iter().any(|one| has(&text(one)))
        } else {
            (archs.is_empty() || arch) && caps.iter().all(|one| has(&text(one)))
        }
    };
    let all = template["syscalls"].as_array().expect("syscalls");
    let calls: Vec<Value> = all
        .iter()
        .filter(|call| holds(&call["includes"], false) && !holds(&call["excludes"], true))
        .map(|call| {
            let mut own = json!({"names": call["names"], "action": call["action"]});
            if call["args"].as_array().is_some_and(|args| !args.is_empty()) {
                own["args"] = call["args"].clone();
            }
            if let Some(errno) = call["errnoRet"].as_u64() {
                own["errnoRet"] = json!(errno);
            }
            own
        })
        .collect();
    let archs: Vec<&String> = target.every_abi().iter().map(|abi| &abi.name).collect();
    let mut spec = json!({"defaultAction": template["defaultAction"], "architectures": archs, "syscalls": calls});
    if let Some(errno) = template["defaultErrnoRet"].as_u64() {
        spec["defaultErrnoRet"] = json!(errno);
    }
    serde_json::from_value(spec).expect("a profile")
}

/// containerd's profile stands in its Go source. All its rules are taken, whatever capability or machine they are for;
/// of the two for clone, which exclude each other, the first.
fn from_go(target: &Target, source: &str) -> LinuxSeccomp {
    let mut calls: Vec<Value> = Vec::new();
    let mut names: Option<Vec<String>> = None;
    for line in source.lines().map(str::trim) {
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim().trim_end_matches(',');
        let args = |calls: &mut Vec<Value>| calls.last_mut().and_then(|call| call["args"].as_array_mut().cloned());
        match key {
            "Names" => names = Some(quoted(value)),
            "Action" => {
                let names = names.take().expect("names before the action");
                let action = value.strip_prefix("specs.Act").expect("an action").to_uppercase();
                calls.push(json!({"names": names, "action": format!("SCMP_ACT_{action}"), "args": []}));
            }
            "ErrnoRet" => calls.last_mut().expect("a rule")["errnoRet"] = json!(38),
            "Index" => {
                let mut args = args(&mut calls).expect("a rule");
                args.push(json!({"index": value.parse::<u64>().expect("an index")}));
                calls.last_mut().expect("a rule")["args"] = json!(args);
            }
            "Value" | "ValueTwo" | "Op" => {
                let call = calls.last_mut().expect("a rule");
                let arg = call["args"].as_array_mut().and_then(|args| args.last_mut()).expect("an index first");
                match key {
                    "Value" => arg["value"] = json!(number(value)),
                    "ValueTwo" => arg["valueTwo"] = json!(number(value)),
                    _ => {
                        arg["op"] = json!(if value == "specs.OpEqualTo" { "SCMP_CMP_EQ" } else { "SCMP_CMP_MASKED_EQ" })
                    }
                }
            }
            _ => {
                if let Some(names) = &mut names {
                    names.extend(quoted(line));
                }
            }
        }
    }
    let mut has_clone = false;
    calls.retain(|call| {
        let again = call["names"] == json!(["clone"]) && std::mem::replace(&mut has_clone, true);
        !again
    });
    assert!(calls.len() > 20 && has_clone, "containerd.go has another form now");
    let archs: Vec<&String> = target.every_abi().iter().map(|abi| &abi.name).collect();
    let spec = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": calls});
    serde_json::from_value(spec).expect("a profile")
}

fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Numbers, and the flags of clone(2).
fn number(text: &str) -> u64 {
    let flag = |name: &str| match name.trim() {
        "unix.CLONE_NEWNS" => libc::CLONE_NEWNS as u64,
        "unix.CLONE_NEWUTS" => libc::CLONE_NEWUTS as u64,
        "unix.CLONE_NEWIPC" => libc::CLONE_NEWIPC as u64,
        "unix.CLONE_NEWUSER" => libc::CLONE_NEWUSER as u64,
        "unix.CLONE_NEWPID" => libc::CLONE_NEWPID as u64,
        "unix.CLONE_NEWNET" => libc::CLONE_NEWNET as u64,
        "unix.CLONE_NEWCGROUP" => libc::CLONE_NEWCGROUP as u64,
        "unix.AF_VSOCK" => libc::AF_VSOCK as u64,
        number => number
            .strip_prefix("0x")
            .map_or_else(|| number.parse(), |hex| u64::from_str_radix(hex, 16))
            .unwrap_or_else(|error| panic!("{number}: {error}")),
    };
    text.split('|').map(flag).fold(0, |all, flag| all | flag)
}
