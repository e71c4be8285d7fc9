//! Everything that reads what somebody else has written, for libFuzzer: this takes the place of `main` (`cfg(fuzzing)`).
//! scripts/fuzz.sh builds and runs it, and the variable FUZZ_TARGET says which target it is.
//!
//! Besides no crash, no number that wraps, no hang and no memory beyond the limit, which libFuzzer sees to, each target
//! holds the code to promises (promise.rs): the same twice, errors of one line that name a field, no control
//! characters where a terminal could get them.

mod config;
mod kernel;
mod messages;
mod mutate;
mod paths;
mod promise;
mod state;

// Once more, since only their own rooms may see these.
#[path = "../../src/dbus"]
mod dbus {
    pub(super) mod message;
}
#[path = "../../src/cgroups/systemd"]
mod systemd {
    pub(super) mod properties;
}
#[path = "../../src/netdev"]
mod netdev {
    mod message;

    /// A whole answer, and each of its parts in each of the ways.
    pub(super) fn read(bytes: &[u8]) {
        let (answers, _) = message::answers(bytes, 1);
        assert!(answers.len() <= bytes.len() / 16, "more messages than there are headers");
        for answer in answers {
            let message::Answer::Part(part) = answer else { continue };
            message::link(part);
            if let Some(address) = message::address(part) {
                message::add_address(&address, 7).numbered(1);
            }
            if let Some(route) = message::route::read(part) {
                message::route::add(&route, 7).numbered(1);
                (route.is_made_for(7), route.has_gateway());
            }
        }
    }
}

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mutate::Json;

struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// For those whose input is JSON: where in full.json what belongs there is.
    json: Option<&'static str>,
}

const TARGETS: &[Target] = &[
    Target { name: "config", run: config::config, json: Some("") },
    Target { name: "process", run: config::process, json: Some("/process") },
    Target { name: "resources", run: config::resources, json: Some("/linux/resources") },
    Target { name: "seccomp", run: config::seccomp, json: Some("/linux/seccomp") },
    Target { name: "state", run: state::state, json: Some("/state") },
    Target { name: "mount", run: paths::mount, json: None },
    Target { name: "cgroup", run: paths::cgroup, json: None },
    Target { name: "dbus", run: messages::dbus, json: None },
    Target { name: "netlink", run: messages::netlink, json: None },
    Target { name: "criu", run: messages::criu, json: None },
    Target { name: "fault", run: messages::fault, json: None },
    Target { name: "kernel", run: kernel::kernel, json: None },
];

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("FUZZ_TARGET is one of {names:?}"))
});
static JSON: LazyLock<Option<Json>> = LazyLock::new(|| TARGET.json.map(Json::new));

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // One in four as libFuzzer does it: so what is no JSON comes, too.
    let mutated = JSON.as_ref().filter(|_| seed % 4 != 0).and_then(|json| json.mutate(&data[..size], seed));
    match mutated.filter(|bytes| bytes.len() <= max_size) {
        Some(bytes) => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});
