//! Namespaces that are absent, new or joined, in combination: every three kinds in every combination of these that there
//! can be, in as few containers as that takes.

use crate::namespaces::{mappings, user_namespaces};
use crate::rootless::rootless;
use crate::support::{Bundle, Call, Container, Running, WAITING, busybox, case, link, skip, with_io};

/// The type in config.json and the name in /proc.
const KINDS: [(&str, &str); 8] = [
    ("user", "user"),
    ("mount", "mnt"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Absent,
    New,
    Joined,
}
use Is::{Absent, Joined, New};

type Row = [Is; KINDS.len()];

/// Who has no mount namespace of their own mounts in that of the host, or of somebody else: real root may.
fn makes_sense(row: &Row) -> bool {
    row[1] == New || row[0] == Absent
}

/// An ordinary user may join only what belongs to a user namespace of theirs, from inside of that.
fn users_may(row: &Row) -> bool {
    row[0] == Joined && row[1] == New
}

fn rows(wanted: fn(&Row) -> bool) -> Vec<Row> {
    let all = (0..3usize.pow(KINDS.len() as u32))
        .map(|number| std::array::from_fn(|kind| [Absent, New, Joined][number / 3usize.pow(kind as u32) % 3]));
    all.filter(wanted).collect()
}

/// A number for each three kinds of a row with what they are.
fn threes(row: &Row) -> Vec<usize> {
    let mut all = Vec::new();
    for a in 0..row.len() {
        for b in a + 1..row.len() {
            let place = |kind: usize| kind * 3 + row[kind] as usize;
            all.extend((b + 1..row.len()).map(|c| (place(a) * 24 + place(b)) * 24 + place(c)));
        }
    }
    all
}

/// Rows that have all of these threes, each time the one that has most of what is left.
fn covering(wanted: fn(&Row) -> bool) -> Vec<Row> {
    let rows: Vec<_> = rows(wanted).into_iter().map(|row| (row, threes(&row))).collect();
    let mut left = vec![false; 24 * 24 * 24];
    rows.iter().flat_map(|(_, threes)| threes).for_each(|three| left[*three] = true);
    let mut chosen = Vec::new();
    while left.contains(&true) {
        let news = |threes: &[usize]| threes.iter().filter(|three| left[**three]).count();
        let (row, threes) = rows.iter().max_by_key(|(_, threes)| news(threes)).unwrap();
        threes.iter().for_each(|three| left[*three] = false);
        chosen.push(*row);
    }
    chosen
}

/// A bundle that mounts nothing that belongs to one of the namespaces.
fn bare(by_user: bool) -> Bundle {
    let mut bundle = if by_user { rootless(WAITING) } else { Bundle::sh(WAITING) };
    bundle.remove("/hostname").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    for mount in ["/proc", "/dev/mqueue", "/sys", "/sys/fs/cgroup"] {
        bundle.unmount(mount);
    }
    bundle.set("/linux/namespaces", serde_json::json!([]));
    bundle
}

fn start(container: &Container) -> crate::support::Io {
    let (call, mut io) = with_io(container.call_bundle("run", &["--detach"]));
    call.run().ok();
    assert_eq!(io.stdout.next(), "ready");
    io
}

/// A container of which others join namespaces.
fn holder(user: bool, by_user: bool) -> (Container, crate::support::Io) {
    let mut bundle = bare(by_user);
    for (kind, _) in &KINDS[1..] {
        bundle.namespace(kind, None);
    }
    if by_user {
        bundle.namespace("user", None);
    } else if user {
        mappings(bundle.namespace("user", None));
    }
    let container = bundle.container();
    let io = start(&container);
    (container, io)
}

/// A mount namespace in which nothing was mounted yet. pivot_root(2) changes it for good, so that each has its own.
fn mount_holder() -> (Running, crate::support::Io) {
    let program = busybox().to_str().unwrap();
    let call = Call::new(program).args(["unshare", "-m", "--propagation", "private", program, "sh", "-c", WAITING]);
    let (call, mut io) = with_io(call);
    let running = call.spawn();
    assert_eq!(io.stdout.next(), "ready");
    (running, io)
}

fn check(row: &Row, plain: u32, with_user: u32, by_user: bool) {
    let mut bundle = bare(by_user);
    bundle.config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
    let mounts = (row[1] == Joined).then(mount_holder);
    let path = |kind: usize| {
        let pid = match (KINDS[kind].0, row[0]) {
            ("mount", _) => mounts.as_ref().map_or(0, |(running, _)| running.pid()),
            (_, Joined) => with_user,
            _ => plain,
        };
        format!("/proc/{pid}/ns/{}", KINDS[kind].1)
    };
    for (kind, (name, _)) in KINDS.iter().enumerate() {
        match row[kind] {
            Absent => {}
            New => {
                bundle.namespace(name, None);
            }
            Joined => {
                bundle.namespace(name, Some(&path(kind)));
            }
        }
    }
    if row[0] == New {
        mappings(&mut bundle);
    }
    let container = bundle.container();
    let _io = start(&container);
    let pid = container.pid();
    for (kind, (name, file)) in KINDS.iter().enumerate() {
        let its = link(format!("/proc/{pid}/ns/{file}"));
        let own = link(format!("/proc/self/ns/{file}"));
        match row[kind] {
            Absent => assert_eq!(its, own, "{name} of {row:?}"),
            New => assert!(its != own && its != link(format!("/proc/{plain}/ns/{file}")), "{name} of {row:?}"),
            Joined => assert_eq!(its, link(path(kind)), "{name} of {row:?}"),
        }
    }
    // exec finds its way into each of them.
    let output = container.command(&["exec"], &["sh", "-c", "echo inside"]).ok().stdout;
    assert_eq!(output, "inside\n", "{row:?}");
    container.command(&["delete", "--force"], &[]).ok();
    container.nothing_left();
}

#[test]
fn absent_new_and_joined_in_every_three() {
    if !user_namespaces() {
        skip!("no user namespaces");
    }
    case(|| {
        let ((first, _io), (second, _other)) = (holder(false, false), holder(true, false));
        let (plain, with_user) = (first.pid(), second.pid());
        let rows = covering(makes_sense);
        assert!(rows.len() > 27, "{}", rows.len());
        rows.iter().for_each(|row| check(row, plain, with_user, false));
    });
}

#[test]
fn by_an_ordinary_user_in_every_three() {
    if !user_namespaces() {
        skip!("no user namespaces");
    }
    case(|| {
        let (holder, _io) = holder(true, true);
        let rows = covering(users_may);
        assert!(rows.len() > 9, "{}", rows.len());
        rows.iter().for_each(|row| check(row, holder.pid(), holder.pid(), true));
    });
}
