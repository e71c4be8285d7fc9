//! The figures as `events` prints them. Pure.
//!
//! The keys, and which of them are left out when they are zero, are those of runc's types/events.go. Objects are always
//! there, as in runc before 1.5, so that a reader may go by them.

use std::collections::BTreeMap;

use serde::Serialize;

/// All figures of a cgroup.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    pub(super) cpu: Cpu,
    pub(super) cpuset: Cpuset,
    pub(super) memory: Memory,
    pub(super) pids: Pids,
    pub(super) blkio: Blkio,
    pub(super) hugetlb: BTreeMap<String, Hugetlb>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Cpu {
    pub(super) usage: CpuUsage,
    pub(super) throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Psi>,
}

/// In nanoseconds. Each processor's part is known to v1 only.
#[derive(Debug, Default, Serialize)]
pub(super) struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) percpu_user: Vec<u64>,
    pub(super) kernel: u64,
    pub(super) user: u64,
}

/// The time is in nanoseconds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) throttled_time: u64,
}

/// Of v1 only, all zero on v2.
#[derive(Debug, Default, Serialize)]
pub(super) struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cpus: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) mems: Vec<u16>,
    #[serde(flatten)]
    pub(super) flags: BTreeMap<&'static str, i64>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) cache: u64,
    pub(super) usage: MemoryEntry,
    /// Memory and swap together, as v1 counts it.
    pub(super) swap: MemoryEntry,
    pub(super) kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub(super) kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Psi>,
}

/// In bytes; without a limit it is the highest number there is.
#[derive(Debug, Default, Serialize)]
pub(super) struct MemoryEntry {
    pub(super) limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) max: u64,
    pub(super) failcnt: u64,
}

/// Without a limit it is 0.
#[derive(Debug, Default, Serialize)]
pub(super) struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) limit: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Blkio {
    #[serde(flatten)]
    pub(super) lists: BTreeMap<&'static str, Vec<BlkioEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) value: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) max: u64,
    pub(super) failcnt: u64,
}

/// Pressure stall information: percentages of time, and microseconds in all.
#[derive(Debug, Default, Serialize)]
pub(super) struct Psi {
    pub(super) some: PsiData,
    pub(super) full: PsiData,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct PsiData {
    pub(super) avg10: f64,
    pub(super) avg60: f64,
    pub(super) avg300: f64,
    pub(super) total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
