//! Ours and libseccomp decide the same: for names, for random profiles, for those of engines.

use seccomp_equal::Outcome;
use seccomp_equal::differences;
use seccomp_equal::libseccomp;
use seccomp_equal::profiles::{self, Kind};
use seccomp_equal::random::Random;
use seccomp_equal::targets::{self, Abi};
use seccomp_equal::{cases, cbpf};

/// Random profiles of each kind for each machine.
const PROFILES: usize = 150;
/// Fewer show nothing.
const DECISIONS: u64 = 1_000_000;

/// Calls that Debian's libseccomp 2.5.4 does not know: of Linux 6.5 and newer, and what two ports added.
#[rustfmt::skip]
const NEWER: [&str; 16] = [
    "uretprobe", "uprobe", "statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules",
    "mseal", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr", "file_getattr",
    "file_setattr", "riscv_hwprobe",
];

/// With this seed every intended difference is met.
const SEED: u64 = 3;

fn seed() -> u64 {
    let seed = std::env::var("SECCOMP_SEED").map_or(SEED, |seed| seed.parse().expect("SECCOMP_SEED is a number"));
    println!("SECCOMP_SEED={seed}");
    seed
}

#[test]
fn random_profiles_decide_as_with_libseccomp() {
    let (seed, targets) = (seed(), targets::all());
    let names = profiles::usable_names(&targets);
    let mut outcome = Outcome::default();
    let rule = |op: &str, action: &str, value: u64| {
        serde_json::json!({"names": ["read"], "action": action,
                           "args": [{"index": 0, "op": op, "value": value, "valueTwo": 5}]})
    };
    // Too rare among random ones.
    let twice = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        rule("SCMP_CMP_EQ", "SCMP_ACT_TRAP", 5), rule("SCMP_CMP_MASKED_EQ", "SCMP_ACT_KILL", u64::MAX)]});
    let twice = serde_json::from_value(twice).expect("a profile");
    outcome.compare(&targets[0], &[], &twice, &mut Random::new(seed)).expect("a known difference");
    for target in &targets {
        let numbers = cases::numbers(target);
        for kind in [Kind::OneAction, Kind::Any] {
            let mut random = Random::new(seed);
            for _ in 0..PROFILES {
                let profile = profiles::random(target, &names, &mut random, kind);
                if let Err(error) = outcome.compare(target, &numbers, &profile, &mut random) {
                    panic!("{} {error}\n{}", target.name, serde_json::to_string(&profile).expect("JSON"));
                }
            }
        }
    }
    println!("{outcome:?}");
    assert!(outcome.decisions > DECISIONS);
    for difference in differences::ALL {
        assert!(outcome.differences.contains_key(&difference) || seed != SEED, "{difference:?} was not met");
    }
}

#[test]
fn default_profiles_of_engines_decide_as_with_libseccomp() {
    let mut random = Random::new(seed());
    let mut outcome = Outcome::default();
    for target in &targets::all() {
        let numbers = cases::numbers(target);
        for (engine, profile) in profiles::engines(target) {
            if let Err(error) = outcome.compare(target, &numbers, &profile, &mut random) {
                panic!("{} on {}: {error}", engine, target.name);
            }
        }
    }
    println!("{outcome:?}");
    assert_eq!(outcome.profiles, 8 * 5);
}

/// What is wrong with our number, if anything.
fn wrong(abi: &Abi, name: &str) -> Option<String> {
    let (ours, behind) = (abi.number(name), abi.multiplexed(name));
    let theirs = libseccomp::number(abi.token, name);
    let is_right = match (theirs, behind) {
        (Some(number @ 0..), None) => ours == u32::try_from(number).ok(),
        // The pseudo numbers of calls behind socketcall(2) and ipc(2), whose codes are in them.
        (Some(number @ -120..=-101), Some((_, code, _))) => u64::try_from(-number - 100) == Ok(code),
        (Some(number @ -224..=-201), Some((_, code, _))) => u64::try_from(-number - 200) == Ok(code),
        (Some(_), None) => ours.is_none(),
        (None, None) => ours.is_none() || NEWER.contains(&name) || is_hole(name),
        _ => false,
    };
    (!is_right).then(|| format!("{} {name}: ours {ours:?} {behind:?}, libseccomp {theirs:?}", abi.name))
}

/// Names of no call, which the tables of MIPS have.
fn is_hole(name: &str) -> bool {
    ["reserved", "unused"].iter().any(|hole| name.strip_prefix(hole).is_some_and(|rest| rest.parse::<u32>().is_ok()))
}

#[test]
fn every_name_has_libseccomps_number() {
    let targets = targets::all();
    let known = profiles::known_names(&targets);
    let mut wrongs = Vec::new();
    let mut newer: std::collections::BTreeSet<&str> = Default::default();
    for abi in targets.iter().flat_map(|target| target.every_abi()) {
        for name in known.iter().cloned().chain(targets::names(abi)) {
            wrongs.extend(wrong(abi, &name));
            newer.extend(NEWER.iter().filter(|one| **one == name && libseccomp::number(abi.token, &name).is_none()));
        }
    }
    assert!(wrongs.is_empty(), "{wrongs:#?}");
    assert_eq!(newer.len(), NEWER.len(), "{newer:?}");
}

/// Of a call behind a multiplexer `every_name_has_libseccomps_number` cannot see the direct number.
#[test]
fn a_rule_meets_every_call_behind_a_multiplexer() {
    let mut met = 0;
    for target in &targets::all() {
        for abi in target.every_abi() {
            for name in profiles::known_names(std::slice::from_ref(target)) {
                let Some((carrier, code, _)) = abi.multiplexed(&name) else { continue };
                let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [abi.name],
                    "syscalls": [{"names": [name], "action": "SCMP_ACT_TRAP"}]});
                let profile = serde_json::from_value(profile).expect("a profile");
                let theirs = libseccomp::Theirs::new(target, &profile).expect("libseccomp").program;
                let ours = seccomp_equal::ours(target, &profile).expect("ours");
                let trapped = |program: &cbpf::Program| -> Vec<u32> {
                    let is =
                        |number: &u32| program.run(&target.data(abi.audit_arch, *number, &[code; 6])).0 == 0x3_0000;
                    (0..6000).filter(is).collect()
                };
                let numbers = trapped(&ours);
                // See `Difference::NumberNotLoaded`: the ABI has the call behind the carrier only.
                let is_broken = theirs.run(&target.data(abi.audit_arch, carrier, &[code; 6])).1 & cbpf::NUMBER == 0;
                assert!(is_broken == (abi.number(&name).is_none()), "{} {name}", abi.name);
                assert!(is_broken || trapped(&theirs) == numbers, "{} {name}", abi.name);
                assert!(numbers.contains(&carrier) && numbers.len() == 1 + usize::from(abi.number(&name).is_some()));
                met += 1;
            }
        }
    }
    assert_eq!(met, 7 * 32);
}
