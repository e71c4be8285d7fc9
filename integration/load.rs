//! Many containers: at once, and one after the other. What the host has of everything is the same before and after.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::support::{Bundle, Container, WAITING, hierarchies, say, text};

/// How many at once, and how many one after the other.
fn counts() -> (usize, usize) {
    let words = std::env::var("RUNTIME_TEST_LOAD").unwrap_or_default();
    let mut numbers = words.split_whitespace().map(|word| word.parse().unwrap());
    (numbers.next().unwrap_or(100), numbers.next().unwrap_or(1000))
}

/// What containers could leave on the host. Of what has no list of its own the kernel's allocations are counted: namespaces,
/// BPF programs, which filters and device rules are, and directory entries in use.
fn host() -> BTreeMap<&'static str, usize> {
    let number = |text: &str, at: usize| text.split_whitespace().nth(at).and_then(|n| n.parse().ok()).unwrap_or(0);
    let (slabs, dentries) = (text("/proc/slabinfo"), text("/proc/sys/fs/dentry-state"));
    let slab = |name: &str| slabs.lines().find(|line| line.split(' ').next() == Some(name)).map_or(0, |l| number(l, 1));
    let memory = text("/proc/meminfo");
    let kib = |name: &str| memory.lines().find(|line| line.starts_with(name)).map_or(0, |line| number(line, 1));
    BTreeMap::from([
        ("cgroups", hierarchies().iter().map(|one| directories(&one.mount)).sum()),
        ("mounts", text("/proc/self/mountinfo").lines().count()),
        ("mounts of the kernel", slab("mnt_cache")),
        ("keys", text("/proc/keys").lines().count()),
        ("BPF programs", text("/proc/vmallocinfo").lines().filter(|line| line.contains("bpf_prog_alloc")).count()),
        ("network namespaces", slab("net_namespace")),
        ("pid namespaces", slab("pid_namespace")),
        ("open files", number(&text("/proc/sys/fs/file-nr"), 0)),
        ("dentries in use", number(&dentries, 0).saturating_sub(number(&dentries, 1))),
        ("KiB of the kernel", kib("SUnreclaim:") + kib("KernelStack:") + kib("Percpu:")),
        ("processes", fs::read_dir("/proc").unwrap().flatten().filter(is_process).count()),
        ("files", fs::read_dir(crate::support::work()).map_or(0, |entries| entries.count())),
    ])
}

/// The session keyrings of our containers.
fn keyrings() -> usize {
    let name = format!("_ses.rt-{}-", std::process::id());
    text("/proc/keys").lines().filter(|line| line.contains(&name)).count()
}

fn is_process(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
}

fn directories(at: &std::path::Path) -> usize {
    let entries = fs::read_dir(at).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| 1 + directories(&e.path())).sum()
}

/// Eight at a time.
fn side_by_side(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                numbers.take_while(|number| *number < count).for_each(&work);
            });
        }
    });
}

fn report(what: &str, began: Instant, before: &BTreeMap<&str, usize>) {
    let after = host();
    say(&format!("LOAD {what} in {:.1} s; before {before:?}; after {after:?}", began.elapsed().as_secs_f64()));
    // Of the others others have some, too, and the kernel frees some late.
    for kind in ["mounts", "files"] {
        assert!(after[kind] <= before[kind], "{kind}: {} before, {} after", before[kind], after[kind]);
    }
    let cgroups = crate::support::cgroups_of(&format!("rt-{}-", std::process::id()));
    assert!(cgroups.is_empty(), "left: {cgroups:?}");
    crate::support::eventually("the session keyrings are freed", || keyrings() == 0);
}

/// With a filter, which is a BPF program.
fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    let rule = json!({"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"});
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    bundle
}

#[test]
#[ignore = "many minutes: make load"]
fn many_at_once() {
    let (count, _) = counts();
    let (before, began) = (host(), Instant::now());
    let containers: Vec<Container> = (0..count).map(|_| bundle(WAITING).container()).collect();
    let all = std::sync::Mutex::new(Vec::new());
    side_by_side(count, |number| {
        let io = containers[number].create_io();
        containers[number].start().ok();
        containers[number].command(&["exec"], &["true"]).ok();
        all.lock().unwrap().push(io);
    });
    say(&format!("LOAD {count} at once: {:?}", host()));
    side_by_side(count, |number| {
        containers[number].stop();
        containers[number].command(&["delete"], &[]).ok();
    });
    drop(containers);
    drop(all);
    report(&format!("{count} at once"), began, &before);
}

#[test]
#[ignore = "many minutes: make load"]
fn many_one_after_the_other() {
    let (_, count) = counts();
    let (before, began) = (host(), Instant::now());
    side_by_side(count, |_| {
        let container = bundle("true").container();
        container.create().ok();
        container.start().ok();
        container.command(&["delete", "--force"], &[]).ok();
    });
    report(&format!("{count} one after the other"), began, &before);
}
