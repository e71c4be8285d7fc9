//! Bytes to choices to a profile for some machine, which both compile; scripts/seccomp-fuzz.sh builds and runs it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seccomp_equal::profiles::{self, Kind};
use seccomp_equal::random::Random;
use seccomp_equal::targets::{self, Target};
use seccomp_equal::{Outcome, cases};
use std::sync::LazyLock;

type Numbers = Vec<(u32, Vec<u32>)>;

static TARGETS: LazyLock<Vec<(Target, Numbers)>> = LazyLock::new(|| {
    let with_numbers = |target: Target| {
        let numbers = cases::numbers(&target);
        (target, numbers)
    };
    targets::all().into_iter().map(with_numbers).collect()
});
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| profiles::usable_names(&targets::all()));

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Random::Bytes(bytes);
    let (target, numbers) = &TARGETS[choices.below(TARGETS.len())];
    let kind = choices.of(&[Kind::OneAction, Kind::Any]);
    let profile = profiles::random(target, &NAMES, &mut choices, kind);
    if let Err(error) = Outcome::default().compare(target, numbers, &profile, &mut Random::new(1)) {
        panic!("{} {error}\n{}", target.name, serde_json::to_string(&profile).expect("JSON"));
    }
});
