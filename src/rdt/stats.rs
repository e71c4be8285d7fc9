//! What the container's groups of resctrl say, for `events`. Runs in: parent. The keys are those of runc's types/events.go.

use std::path::Path;

use serde::Serialize;

use super::Groups;

/// All of it; empty without `linux.intelRdt`. What the processor does not have is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<MbmStats>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<CmtStats>>,
}

#[derive(Debug, Serialize)]
struct L3CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct MemBwInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// Of one NUMA node.
#[derive(Debug, Serialize)]
struct MbmStats {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Of one NUMA node.
#[derive(Debug, Serialize)]
struct CmtStats {
    llc_occupancy: u64,
}

impl Groups {
    /// Reads it. A file that is not there, or that the kernel says `Unavailable` in, is 0: the hardware counts in its own time.
    pub(crate) fn stats(&self) -> Stats {
        let info = self.root.join("info");
        let (l3, bandwidth) = (info.join("L3"), info.join("MB"));
        let (of_root, of_class) = (schemata(&self.root), schemata(&self.class));
        let line = |lines: &[String], resource: &str| {
            lines.iter().find(|line| line.starts_with(resource)).cloned().unwrap_or_default()
        };
        let features = text(&info.join("L3_MON"), "mon_features");
        let has = |prefix| features.lines().any(|feature| feature.starts_with(prefix));
        // Without a group of its own the class is what is counted, which others may use too.
        let nodes = nodes(self.monitoring.as_deref().unwrap_or(&self.class));
        Stats {
            l3_cache_info: l3.is_dir().then(|| L3CacheInfo {
                cbm_mask: text(&l3, "cbm_mask"),
                min_cbm_bits: number(&l3, "min_cbm_bits"),
                num_closids: number(&l3, "num_closids"),
            }),
            l3_cache_schema_root: line(&of_root, "L3"),
            l3_cache_schema: line(&of_class, "L3"),
            mem_bw_info: bandwidth.is_dir().then(|| MemBwInfo {
                bandwidth_gran: number(&bandwidth, "bandwidth_gran"),
                delay_linear: number(&bandwidth, "delay_linear"),
                min_bandwidth: number(&bandwidth, "min_bandwidth"),
                num_closids: number(&bandwidth, "num_closids"),
            }),
            mem_bw_schema_root: line(&of_root, "MB"),
            mem_bw_schema: line(&of_class, "MB"),
            schemata: of_class,
            mbm_stats: has("mbm_").then(|| nodes.iter().map(|node| mbm(node)).collect()),
            cmt_stats: has("llc_occupancy").then(|| nodes.iter().map(|node| cmt(node)).collect()),
        }
    }
}

fn mbm(node: &Path) -> MbmStats {
    MbmStats { mbm_total_bytes: number(node, "mbm_total_bytes"), mbm_local_bytes: number(node, "mbm_local_bytes") }
}

fn cmt(node: &Path) -> CmtStats {
    CmtStats { llc_occupancy: number(node, "llc_occupancy") }
}

/// The directories of `mon_data`, one for each NUMA node.
fn nodes(group: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(group.join("mon_data")).into_iter().flatten().flatten();
    let mut nodes: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    nodes.sort();
    nodes
}

fn schemata(group: &Path) -> Vec<String> {
    text(group, "schemata").lines().map(|line| line.trim().to_owned()).collect()
}

fn text(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned()
}

fn number(dir: &Path, file: &str) -> u64 {
    text(dir, file).parse().unwrap_or(0)
}
