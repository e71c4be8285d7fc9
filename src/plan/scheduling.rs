//! `process.scheduler`, `process.ioPriority`, `linux.memoryPolicy`, `linux.personality`. Pure.

use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

use crate::error::{Error, Result};

/// `struct sched_attr` of sched_setattr(2), with the fields of Linux 5.3.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Nanoseconds, as the next two.
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// The policies of config.md, `process.scheduler.policy`, with their numbers in linux/sched.h.
const POLICIES: &[(LinuxSchedulerPolicy, u32)] = &[
    (LinuxSchedulerPolicy::SchedOther, 0),
    (LinuxSchedulerPolicy::SchedFifo, 1),
    (LinuxSchedulerPolicy::SchedRr, 2),
    (LinuxSchedulerPolicy::SchedBatch, 3),
    (LinuxSchedulerPolicy::SchedIso, 4),
    (LinuxSchedulerPolicy::SchedIdle, 5),
    (LinuxSchedulerPolicy::SchedDeadline, 6),
];

/// As in the configuration, for errors.
impl std::fmt::Display for SchedAttr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((policy, _)) = POLICIES.iter().find(|(_, number)| *number == self.policy) {
            write!(f, "{policy}, nice {}, priority {}", self.nice, self.priority)?;
        }
        if self.period != 0 {
            write!(f, ", runtime {}, deadline {}, period {}", self.runtime, self.deadline, self.period)?;
        }
        Ok(())
    }
}

/// For set_mempolicy(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// `MPOL_*`, with `MPOL_F_*`.
    pub(crate) mode: i32,
    /// Bit n for node n.
    pub(crate) nodes: Vec<u64>,
    /// As in the configuration, for errors.
    pub(crate) text: String,
}

/// `process.execCPUAffinity`: bit n for processor n.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    /// Before the container's cgroup is joined.
    pub(crate) initial: Option<Vec<u64>>,
    /// After that.
    pub(crate) last: Option<Vec<u64>>,
}

pub(super) fn affinity(process: &Process) -> Result<Affinity> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(Affinity::default()) };
    let mask = |list: &Option<String>, name: &str| {
        let list = list.as_deref().filter(|list| !list.is_empty());
        list.map(|list| bits(list, &format!("process.execCPUAffinity.{name}"))).transpose()
    };
    Ok(Affinity { initial: mask(affinity.initial(), "initial")?, last: mask(affinity.cpu_affinity_final(), "final")? })
}

/// How the kernel treats the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduling {
    pub(crate) scheduler: Option<SchedAttr>,
    /// As ioprio_set(2) takes it: the class above 13 bits of priority.
    pub(crate) io_priority: Option<i32>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// As personality(2) takes it.
    pub(crate) personality: Option<u64>,
}

pub(super) fn plan(process: &Process, linux: &Linux) -> Result<Scheduling> {
    Ok(Scheduling {
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        memory_policy: linux.memory_policy().as_ref().map(memory_policy).transpose()?,
        personality: linux.personality().as_ref().map(personality).transpose()?,
    })
}

fn scheduler(scheduler: &Scheduler) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let policy = *scheduler.policy();
    let at = |name: &str, text: String| Err(Error::at(format!("process.scheduler.{name}"), text));
    let nice = scheduler.nice().unwrap_or(0);
    if matches!(policy, SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
        return at("nice", format!("invalid scheduler.nice: {nice} when scheduler.policy is {policy}"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let real_time = matches!(policy, SchedFifo | SchedRr);
    if priority != 0 && !real_time {
        let text = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy";
        return at("priority", format!("{priority}: {text}"));
    }
    if real_time && !(1..=99).contains(&priority) {
        return at("priority", format!("{priority} is not between 1 and 99, which {policy} wants"));
    }
    let times = [("runtime", scheduler.runtime()), ("deadline", scheduler.deadline()), ("period", scheduler.period())];
    for (name, time) in times {
        if let (Some(time @ 1..), true) = (time, policy != SchedDeadline) {
            let text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
            return at(name, format!("{time}: {text}"));
        }
    }
    Ok(SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or(0),
        policy: POLICIES.iter().find(|(known, _)| *known == policy).map_or(0, |(_, number)| *number),
        flags: scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | scheduler_flag(*flag)),
        nice,
        priority: u32::try_from(priority).unwrap_or(0),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        util_min: 0,
        util_max: 0,
    })
}

/// `SCHED_FLAG_*` of linux/sched.h.
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// `IOPRIO_CLASS_SHIFT` of linux/ioprio.h.
const IOPRIO_CLASS_SHIFT: i32 = 13;

fn io_priority(wanted: &LinuxIOPriority) -> Result<i32> {
    let priority = wanted.priority();
    let level = i32::try_from(priority).ok().filter(|level| (0..=7).contains(level)).ok_or_else(|| {
        Error::at("process.ioPriority.priority", format!("invalid ioPriority.Priority: {priority}"))
            .hint("0 (highest) to 7")
    })?;
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(class << IOPRIO_CLASS_SHIFT | level)
}

/// The modes of config-linux.md, Memory policy, with their numbers in linux/mempolicy.h.
pub(crate) const MEMORY_POLICY_MODES: &[(MemoryPolicyModeType, i32)] = &[
    (MemoryPolicyModeType::MpolDefault, libc::MPOL_DEFAULT),
    (MemoryPolicyModeType::MpolBind, libc::MPOL_BIND),
    (MemoryPolicyModeType::MpolInterleave, libc::MPOL_INTERLEAVE),
    (MemoryPolicyModeType::MpolWeightedInterleave, 6),
    (MemoryPolicyModeType::MpolPreferred, libc::MPOL_PREFERRED),
    (MemoryPolicyModeType::MpolPreferredMany, 5),
    (MemoryPolicyModeType::MpolLocal, libc::MPOL_LOCAL),
];

/// The flags, likewise.
pub(crate) const MEMORY_POLICY_FLAGS: &[(MemoryPolicyFlagType, i32)] = &[
    (MemoryPolicyFlagType::MpolFNumaBalancing, libc::MPOL_F_NUMA_BALANCING),
    (MemoryPolicyFlagType::MpolFRelativeNodes, libc::MPOL_F_RELATIVE_NODES),
    (MemoryPolicyFlagType::MpolFStaticNodes, libc::MPOL_F_STATIC_NODES),
];

fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let nodes = bits(policy.nodes().as_deref().unwrap_or(""), "linux.memoryPolicy.nodes")?;
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    let mode = policy.mode();
    match mode {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal if count > 0 => {
            let text = format!("{mode}: memory policy mode requires 0 nodes but got {count}");
            return Err(Error::at("linux.memoryPolicy.nodes", text));
        }
        // MPOL_PREFERRED without a node means the local one (set_mempolicy(2)).
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal | MemoryPolicyModeType::MpolPreferred => {}
        _ if count == 0 => {
            let text = format!("{mode}: memory policy mode requires at least one node but got 0");
            return Err(Error::at("linux.memoryPolicy.nodes", text));
        }
        _ => {}
    }
    let number = MEMORY_POLICY_MODES.iter().find(|(known, _)| *known == mode).map_or(0, |(_, number)| *number);
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags | MEMORY_POLICY_FLAGS.iter().find(|(known, _)| known == flag).map_or(0, |(_, number)| *number)
    });
    let text = format!("{mode}, nodes {:?}", policy.nodes().as_deref().unwrap_or(""));
    Ok(MemoryPolicy { mode: number | flags, nodes, text })
}

/// More nodes (`CONFIG_NODES_SHIFT`) or processors (`NR_CPUS`) no kernel has.
const MAX_BITS: usize = 8192;

/// A list such as `0-3,7` as a mask. Empty: none.
fn bits(list: &str, field: &str) -> Result<Vec<u64>> {
    let mut mask = Vec::new();
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MAX_BITS);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(Error::at(field, format!("{list:?}: {part:?} is not a number or a range, as in \"0-3,7\"")));
        };
        if first > last {
            return Err(Error::at(field, format!("{list:?}: {part:?} ends before it begins")));
        }
        for bit in first..=last {
            let word = bit / 64;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            if let Some(word) = mask.get_mut(word) {
                *word |= 1 << (bit % 64);
            }
        }
    }
    Ok(mask)
}

fn personality(personality: &LinuxPersonality) -> Result<u64> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        let text = format!("{flag:?}: no flag is defined (config-linux.md, Personality)");
        return Err(Error::at("linux.personality.flags", text));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        // PER_LINUX32 of linux/personality.h.
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler_of(json: &str) -> std::result::Result<SchedAttr, String> {
        let parsed: Scheduler = serde_json::from_str(json).map_err(|error| error.to_string())?;
        scheduler(&parsed).map_err(|error| error.to_string())
    }

    #[test]
    fn a_scheduler_becomes_the_kernels_structure() {
        let attr = scheduler_of(r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3}"#).unwrap();
        assert_eq!((attr.size, attr.policy, attr.runtime, attr.deadline, attr.period), (56, 6, 1, 2, 3));
        let attr = scheduler_of(r#"{"policy":"SCHED_FIFO","priority":99,"flags":["SCHED_RESET_ON_FORK"]}"#).unwrap();
        assert_eq!((attr.policy, attr.priority, attr.flags), (1, 99, 1));
    }

    #[test]
    fn what_does_not_fit_the_policy_is_refused() {
        for (json, text) in [
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "process.scheduler.nice: invalid scheduler.nice: 20 when"),
            (r#"{"policy":"SCHED_IDLE","priority":1}"#, "process.scheduler.priority: 1: scheduler.priority can only"),
            (r#"{"policy":"SCHED_RR"}"#, "process.scheduler.priority: 0 is not between 1 and 99"),
            (r#"{"policy":"SCHED_RR","priority":1,"period":5}"#, "process.scheduler.period: 5: scheduler runtime/"),
        ] {
            let error = scheduler_of(json).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn an_io_priority_has_its_class_above() {
        let of = |json: &str| io_priority(&serde_json::from_str(json).unwrap()).map_err(|error| error.to_string());
        assert_eq!(of(r#"{"class":"IOPRIO_CLASS_BE","priority":4}"#), Ok(0x4004));
        assert_eq!(of(r#"{"class":"IOPRIO_CLASS_IDLE","priority":0}"#), Ok(0x6000));
        assert!(
            of(r#"{"class":"IOPRIO_CLASS_RT","priority":8}"#).unwrap_err().contains("invalid ioPriority.Priority: 8")
        );
    }

    #[test]
    fn a_memory_policy_wants_the_nodes_that_its_mode_wants() {
        let of = |json: &str| memory_policy(&serde_json::from_str(json).unwrap()).map_err(|error| error.to_string());
        let policy = of(r#"{"mode":"MPOL_BIND","nodes":"0-2,65","flags":["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!((policy.mode, policy.nodes), (2 | 1 << 15, vec![0b111, 0b10]));
        let policy = of(r#"{"mode":"MPOL_PREFERRED"}"#).unwrap();
        assert_eq!((policy.mode, policy.nodes), (1, vec![]));
        assert!(of(r#"{"mode":"MPOL_DEFAULT","nodes":"1"}"#).unwrap_err().contains("requires 0 nodes but got 1"));
        assert!(of(r#"{"mode":"MPOL_BIND"}"#).unwrap_err().contains("at least one node but got 0"));
        for nodes in ["x", "1-", "3-1", "9000", "1,,2", "-1"] {
            assert!(bits(nodes, "f").is_err(), "{nodes}");
        }
    }
}
