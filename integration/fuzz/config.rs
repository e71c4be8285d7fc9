//! config.json, process.json, the file of `update --resources`, and a seccomp profile: to the plan and the program.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxSeccomp, Spec};

use super::promise;
use super::systemd::properties;
use crate::cgroups::devices;
use crate::cgroups::{Version, settings};
use crate::error::Result;
use crate::plan::{self, Caller, Facts, Lsm, Options, Plan, Wanted};
use crate::seccomp::explain::Call;
use crate::seccomp::{Surroundings, dump, explain};
use crate::spec;

/// What errors are about.
pub(super) const FIELDS: &[&str] = &[
    "annotations",
    "config.json",
    "domainname",
    "hooks",
    "hostname",
    "linux",
    "mounts",
    "ociVersion",
    "process",
    "process.json",
    "root",
    "--resources",
    "--device-add",
    "--device-rm",
];

const ROOT: Caller = Caller { euid: 0, egid: 0, in_user_namespace: false };
const USER: Caller = Caller { euid: 1000, egid: 1000, in_user_namespace: false };

/// Hosts that differ in all that the plan looks at, each with its command line.
fn places() -> [(Facts, Options); 3] {
    let facts = |cgroups, caller: Caller, all| Facts {
        cgroups,
        last_cap: 40,
        permitted: if caller.is_user() { 0 } else { (1 << 41) - 1 },
        lsm: Lsm { apparmor: all, selinux: all },
        caller,
    };
    let options = |systemd, notify: Option<&str>| Options {
        id: "c1".to_owned(),
        bundle: PathBuf::from("/bundle"),
        no_pivot: systemd,
        no_new_keyring: systemd,
        preserve_fds: 0,
        listen: if systemd { vec![("LISTEN_FDS", "1".to_owned())] } else { Vec::new() },
        systemd,
        notify: notify.map(PathBuf::from),
    };
    [
        (facts(Version::V1, ROOT, false), options(false, None)),
        (facts(Version::V2, ROOT, true), options(true, Some("/run/runtime/c1/notify"))),
        (facts(Version::V2, USER, false), options(false, None)),
    ]
}

pub(super) fn config(bytes: &[u8]) {
    let (first, second) = match (spec::parse(bytes), spec::parse(bytes)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(first), second) => {
            promise::same(&Some(first.to_string()), &second.err().map(|error| error.to_string()));
            return promise::config_error(&first);
        }
        (Ok(_), Err(error)) => panic!("only the second time: {error}"),
    };
    for (facts, options) in places() {
        let make = |spec: &Spec| plan::make(spec, &options, &facts);
        twice(make(&first.spec), make(&second.spec));
    }
}

pub(super) fn process(bytes: &[u8]) {
    let (process, again) = match (spec::parse_process(bytes), spec::parse_process(bytes)) {
        (Ok((Some(process), _)), Ok((Some(again), _))) => (process, again),
        (Err(error), _) => return promise::config_error(&error),
        _ => return,
    };
    let own = spec::parse(super::mutate::FULL.as_bytes()).unwrap_or_else(|error| panic!("full.json: {error}")).spec;
    for (facts, _) in places() {
        let make = |process| plan::make_exec(&own, Wanted::Whole(Box::new(process)), None, 0, &facts);
        twice(make(process.clone()), make(again.clone()));
    }
}

fn twice(first: Result<Plan>, second: Result<Plan>) {
    match (&first, &second) {
        (Ok(first), Ok(second)) => {
            promise::same(first, second);
            plan(first);
        }
        (Err(first), Err(second)) => {
            promise::same(&first.to_string(), &second.to_string());
            promise::config_error(first);
        }
        _ => panic!("one of two: {:?} {:?}", first.err(), second.err()),
    }
}

/// Wherever a plan comes from.
fn plan(plan: &Plan) {
    plan::describe(plan).iter().for_each(|line| promise::line(line));
    settings_written(&plan.settings);
    rules(&plan.device_rules);
    let child = &plan.child;
    let targets = child.rootfs.mounts.iter().map(|mount| &mount.target);
    let devices = child.rootfs.dev.iter().flatten().map(|device| &device.path);
    for path in targets.chain(devices).chain(&child.rootfs.masked).chain(&child.rootfs.readonly_paths) {
        let path = path.as_c_str().to_string_lossy();
        promise::down(&path);
        assert!(!path.starts_with('/'), "not below the root: {path:?}");
    }
    for sysctl in &child.sysctl {
        let file = sysctl.file.to_string_lossy();
        promise::down(&file);
        assert!(!file.starts_with('/'), "not below /proc/sys: {file:?}");
    }
    if let Some(process) = &child.process {
        let ids = [process.uid, process.gid].into_iter().chain(process.additional_gids.iter().copied());
        // For the kernel that is "as it is".
        assert!(ids.into_iter().all(|id| id != u32::MAX), "an id that changes nothing");
        let sets = &process.capabilities;
        let known = |set: u64| set >> (process.last_cap + 1) == 0;
        assert!(known(sets.permitted | sets.inheritable | sets.ambient), "a capability that is none");
        if let Some(filter) = &process.seccomp {
            assert!(filter.program.len() <= 4096, "a program that the kernel does not take");
        }
    }
}

/// Each is one write to a file of the cgroup.
fn settings_written(settings: &[settings::Setting]) {
    for setting in settings {
        for file in [Some(&setting.file), setting.or.as_ref().map(|(file, _)| file)].into_iter().flatten() {
            assert!(!file.contains('/') && !file.contains('\0') && file != "..", "no file of the cgroup: {file:?}");
        }
        promise::line(&setting.field);
    }
}

fn rules(rules: &[devices::Rule]) {
    let lines = devices::v1_lines(rules);
    if let Err(error) = &lines {
        promise::config_error(error);
    }
    lines.iter().flatten().for_each(|(_, line)| promise::line(line));
    devices::v2_program(rules);
    devices::allowed(rules);
}

/// What a file of a cgroup may say before.
fn current(file: &str) -> Option<String> {
    Some(match file {
        "cpu.max" => "max 100000\n".to_owned(),
        "io.weight" | "io.bfq.weight" => "default 100\n8:0 200\n".to_owned(),
        "memory.current" => "4096\n".to_owned(),
        "memory.oom_control" => "oom_kill_disable 0\nunder_oom 0\n".to_owned(),
        file if file.len() % 3 == 0 => return None,
        _ => "max\n".to_owned(),
    })
}

pub(super) fn resources(bytes: &[u8]) {
    let (first, second) = match (spec::parse_resources(bytes), spec::parse_resources(bytes)) {
        (Ok(Some(first)), Ok(Some(second))) => (first, second),
        (Err(error), _) => return promise::config_error(&error),
        _ => return,
    };
    for version in [Version::V1, Version::V2] {
        let update = |resources| settings::update(version, resources, &current);
        match (update(&first), update(&second)) {
            (Ok(first), Ok(second)) => {
                promise::same(&first, &second);
                settings_written(&first);
                let back = settings::ways_back(&first, &current);
                settings_written(&back);
                properties::of_settings(&first, &current, &mut || 257);
            }
            (Err(first), Err(second)) => {
                promise::same(&first.to_string(), &second.to_string());
                promise::config_error(&first);
            }
            _ => panic!("one of two"),
        }
    }
    match devices::rules(Some(&first)) {
        Ok(found) => {
            rules(&found);
            properties::of_devices(&found);
            let own = first.devices().clone().unwrap_or_default();
            let (some, other) = own.split_at(own.len() / 2);
            let merged = devices::merged(some, other);
            if let Ok(after) = devices::changed_rules(Some(&first), &merged) {
                let _ = devices::v1_changes(&found, &after).inspect_err(promise::config_error);
            }
        }
        Err(error) => promise::config_error(&error),
    }
}

pub(super) fn seccomp(bytes: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) else { return };
    let around = Surroundings::default();
    let (first, second) = (crate::seccomp::compile(&profile, around), crate::seccomp::compile(&profile, around));
    match (first, second) {
        (Ok(first), Ok(second)) => {
            promise::same(&first, &second);
            dump::dump(&profile, around).into_iter().for_each(|text| text.lines().for_each(promise::line));
            let raw = dump::bytes(&profile, around).unwrap_or_default();
            assert_eq!(raw.len(), first.program.len() * 8);
        }
        (Err(first), Err(second)) => {
            promise::same(&first.to_string(), &second.to_string());
            promise::config_error(&first);
        }
        _ => panic!("one of two"),
    }
    for (arch, name) in [(None, "openat"), (Some("x86"), "socketcall"), (Some("x32"), "ioctl"), (None, "clone")] {
        let args = ["1".to_owned(), "0x7fffffff".to_owned()];
        match explain::explain(&profile, around, &Call { arch, name, args: &args }) {
            Ok(text) => text.lines().for_each(promise::line),
            Err(error) => error.to_string().split('\n').for_each(promise::line),
        }
    }
}

/// That of full.json, without what only one version of cgroups has.
pub(super) fn full_plan() -> Plan {
    let failed = |error: &dyn std::fmt::Display| -> ! { panic!("full.json: {error}") };
    let mut spec = spec::parse(super::mutate::FULL.as_bytes()).unwrap_or_else(|error| failed(&error)).spec;
    spec.linux_mut().as_mut().map(|linux| linux.set_resources(None));
    let [_, (facts, options), _] = places();
    plan::make(&spec, &options, &facts).unwrap_or_else(|error| failed(&error))
}
