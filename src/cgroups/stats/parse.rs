//! What the files of a cgroup say. Pure. None: it is not understood.

use std::collections::BTreeMap;

use super::figures::{BlkioEntry, Psi};

/// A number, or `max`. Counters of memory can be below zero for a moment, which is 0.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text if text.starts_with('-') => text.parse::<i64>().ok().map(|_| 0),
        text => text.parse().ok(),
    }
}

pub(super) fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

pub(super) fn table(text: &str) -> Option<BTreeMap<String, u64>> {
    text.lines()
        .map(|line| line.split_once(' ').and_then(|(key, text)| Some((key.to_owned(), number(text)?))))
        .collect()
}

/// `cpuacct.usage_all`: after a title, lines of processor, user, system.
pub(super) fn usage_all(text: &str) -> Option<Vec<(u64, u64)>> {
    let line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().skip(1).map(line).collect()
}

/// `0-2,7`.
pub(super) fn list(text: &str) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        all.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

/// A file of v1: `8:0 Read 4096` or `8:0 4096`, and at the end a `Total 4096` that belongs to no device.
pub(super) fn blkio(text: &str) -> Option<Vec<BlkioEntry>> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: number(value)?,
        })
    };
    text.lines().filter(|line| !line.starts_with("Total ")).map(entry).collect()
}

/// `io.stat` of v2, `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`, as the two lists of v1 that it has.
pub(super) fn io_stat(text: &str) -> Option<BTreeMap<&'static str, Vec<BlkioEntry>>> {
    let mut lists: BTreeMap<&'static str, Vec<BlkioEntry>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        for (name, text) in words.filter_map(|word| word.split_once('=')) {
            let (key, op) = match name {
                "rbytes" => ("ioServiceBytesRecursive", "Read"),
                "wbytes" => ("ioServiceBytesRecursive", "Write"),
                "rios" => ("ioServicedRecursive", "Read"),
                "wios" => ("ioServicedRecursive", "Write"),
                _ => continue,
            };
            let entry = BlkioEntry { major, minor, op: op.to_owned(), value: number(text)? };
            lists.entry(key).or_default().push(entry);
        }
    }
    Some(lists)
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=345`, and so for `full`.
pub(super) fn psi(text: &str) -> Option<Psi> {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let data = match words.next()? {
            "some" => &mut psi.some,
            "full" => &mut psi.full,
            _ => continue,
        };
        for word in words {
            match word.split_once('=')? {
                ("avg10", text) => data.avg10 = text.parse().ok()?,
                ("avg60", text) => data.avg60 = text.parse().ok()?,
                ("avg300", text) => data.avg300 = text.parse().ok()?,
                ("total", text) => data.total = text.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(psi)
}
