//! Device rules against each kind of access: the lists of v1 here, the eBPF program of v2 in the guest.

use serde_json::{Value, json};

use crate::support::{Bundle, case, cgroup_v2};

/// Devices that no driver answers to: type, major, minor.
const DEVICES: [(&str, u32, u32); 4] = [("c", 11, 250), ("c", 11, 251), ("c", 12, 250), ("b", 11, 250)];

/// For each device: may it be opened for reading, for writing, for both, and made? EPERM is the cgroup's word, ENXIO or
/// ENODEV the kernel's when the cgroup lets it through.
const TRIES: &str = "try() { \"$@\" 2>&1 | grep -q 'not permitted' && echo -n - || echo -n x; }; \
    for device in 'c 11 250' 'c 11 251' 'c 12 250' 'b 11 250'; do node=/dev/$(echo $device | tr ' ' -); \
    try sh -c \": < $node\"; try sh -c \": > $node\"; try sh -c \": <> $node\"; try mknod /mnt/node $device; \
    rm -f /mnt/node; echo; done";

/// None: v1 has no way to say it.
fn tried(rules: &Value) -> Option<Vec<String>> {
    let mut bundle = Bundle::sh(TRIES);
    bundle.capabilities(&["CAP_MKNOD"]);
    let node = |(kind, major, minor): &(&str, u32, u32)| json!({"path": format!("/dev/{kind}-{major}-{minor}"), "type": kind, "major": major, "minor": minor, "fileMode": 0o666});
    bundle.set("/linux/devices", DEVICES.iter().map(node).collect());
    bundle.set("/linux/resources/devices", rules.clone());
    let output = bundle.container().run();
    if !cgroup_v2() && output.stderr.contains("which cgroup v1 cannot do") {
        return None;
    }
    Some(output.ok().stdout.lines().map(str::to_owned).collect())
}

/// One rule after one about everything: what it names is as it says, the rest as it was. Nodes can be made of every
/// device that nobody has forbidden.
#[test]
fn each_access_is_allowed_or_denied_by_itself() {
    case(|| {
        let accesses = ["r", "w", "m", "rw", "rm", "wm", "rwm"];
        let mut turn = 0;
        for allow in [true, false] {
            for kind in ["a", "b", "c"] {
                for (major, minor) in [(Some(11), Some(250)), (Some(11), None), (None, None)] {
                    let access = accesses[turn % accesses.len()];
                    turn += 1;
                    let mut rule = json!({"allow": allow, "type": kind, "access": access});
                    [("major", major), ("minor", minor)].iter().filter(|(_, number)| number.is_some()).for_each(
                        |(name, number)| {
                            rule[name] = json!(number);
                        },
                    );
                    let rules = json!([{"allow": !allow, "access": "rwm"}, rule]);
                    let expected = DEVICES.map(|device| {
                        let named = (kind == "a" || kind == device.0)
                            && major.is_none_or(|major| major == device.1)
                            && minor.is_none_or(|minor| minor == device.2);
                        let may = |letter| (named && access.contains(letter)) == allow;
                        let all = [may('r'), may('w'), may('r') && may('w'), may('m') || allow];
                        all.map(|may| if may { 'x' } else { '-' }).iter().collect::<String>()
                    });
                    match tried(&rules) {
                        Some(found) => assert_eq!(found, expected, "{rules}"),
                        // All devices of a type, of which those that every container has are to be left.
                        None => assert!(!allow && kind != "b" && major.is_none(), "{rules}"),
                    }
                }
            }
        }
    });
}
