//! `features`: what this build can do (features.md of the runtime specification). Runs in: parent.
//!
//! Every list is made of the table that the code itself goes by. Nothing is asked of the host.

use oci_spec::runtime::{
    ApparmorBuilder, CgroupBuilder, FeaturesBuilder, IDMapBuilder, IntelRdtBuilder, LinuxFeatureBuilder,
    MemoryPolicyBuilder, MountExtensionsBuilder, NetDevicesBuilder, SeccompBuilder, SelinuxBuilder,
};

use crate::error::{Error, Result};
use crate::{plan, rootfs, seccomp, state};

fn names<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// `features`.
pub(crate) fn features() -> Result<()> {
    let text = document().map_err(|error| Error::new(format!("features: {error}")))?;
    crate::logging::print(&format!("{text}\n"))
}

fn document() -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut capabilities = names(caps::all());
    capabilities.sort();
    let cgroup = CgroupBuilder::default().v1(true).v2(true).systemd(true).systemd_user(true).rdma(true).build()?;
    let flags = names(seccomp::FLAGS.iter().map(|(flag, _)| flag));
    let seccomp = SeccompBuilder::default()
        .enabled(true)
        .actions(seccomp::ACTIONS)
        .operators(names(seccomp::OPERATORS))
        .archs(seccomp::ARCHITECTURES.iter().map(|(arch, _)| *arch).collect::<Vec<_>>())
        .known_flags(flags.clone())
        .supported_flags(flags)
        .build()?;
    let memory_policy = MemoryPolicyBuilder::default()
        .modes(names(plan::MEMORY_POLICY_MODES.iter().map(|(mode, _)| mode)))
        .flags(names(plan::MEMORY_POLICY_FLAGS.iter().map(|(flag, _)| flag)))
        .build()?;
    let intel_rdt = IntelRdtBuilder::default().enabled(true).schemata(true).monitoring(true).build()?;
    let idmap = IDMapBuilder::default().enabled(true).build()?;
    let linux = LinuxFeatureBuilder::default()
        .namespaces(plan::NAMESPACES)
        .capabilities(capabilities)
        .cgroup(cgroup)
        .seccomp(seccomp)
        .apparmor(ApparmorBuilder::default().enabled(true).build()?)
        .selinux(SelinuxBuilder::default().enabled(true).build()?)
        .intel_rdt(intel_rdt)
        .memory_policy(memory_policy)
        .mount_extensions(MountExtensionsBuilder::default().idmap(idmap).build()?)
        .net_devices(NetDevicesBuilder::default().enabled(true).build()?)
        .build()?;
    let features = FeaturesBuilder::default()
        .oci_version_min("1.0.0")
        .oci_version_max(state::OCI_VERSION)
        .hooks(names(plan::HOOKS))
        .mount_options(rootfs::plan::option_names())
        .linux(linux)
        // What containerd and Podman ask before they offer checkpoints.
        .annotations([("org.opencontainers.runc.checkpoint.enabled".to_owned(), "true".to_owned())])
        .potentially_unsafe_config_annotations(names(plan::ANNOTATIONS))
        .build()?;
    Ok(serde_json::to_string_pretty(&features)?)
}
