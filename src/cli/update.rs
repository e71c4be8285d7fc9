//! The options of `update`: runc's, with its names, and those for devices.

use std::path::PathBuf;

use clap::Args;

/// `update`.
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// JSON of linux.resources, or - for stdin; other limits are then ignored (not devices and schemas)
    #[arg(long, short, value_name = "FILE|-")]
    pub(crate) resources: Option<PathBuf>,
    /// Share of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    /// Period of the CPU limit in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time in each period in microseconds; -1: no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU time saved up for use beyond the quota, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_burst: Option<u64>,
    /// Share of CPU time, 2 to 262144
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<u64>,
    /// 1: run only when nothing else wants the CPU
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub(crate) cpu_idle: Option<i64>,
    /// Period of the realtime limit in microseconds (cgroup v1)
    #[arg(long, value_name = "US")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Realtime CPU time in each period in microseconds (cgroup v1)
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPUs, for example 0-3,7
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes, for example 0-1
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit in bytes, or with k, m, g, t; -1: no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory that is reclaimed last, as --memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Limit of memory and swap together, as --memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Limit of processes and threads; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Line for resctrl's schemata, for example L3:0=ff
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Line for resctrl's schemata, for example MB:0=50
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
    /// Allow a device, for example c:195:0; ACCESS is of r, w and m; may be repeated. Its node is not made
    #[arg(long, value_name = "TYPE:MAJOR:MINOR[:ACCESS]")]
    pub(crate) device_add: Vec<String>,
    /// Forbid a device; may be repeated
    #[arg(long, value_name = "TYPE:MAJOR:MINOR[:ACCESS]")]
    pub(crate) device_rm: Vec<String>,
    /// Ignored
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Ignored
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}
