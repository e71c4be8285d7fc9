//! `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel` → what the child writes. Pure.
//!
//! A label that no security module of this kernel understands is refused: the container would run without the
//! confinement that its configuration counts on.

use std::ffi::{CStr, CString};

use oci_spec::runtime::{Linux, Process};

use crate::error::{Error, Result};
use crate::rootfs::plan::{MountKind, MountPlan, Param, c_string};

/// The security modules that label: which are asked for, or which are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lsm {
    pub(crate) apparmor: bool,
    pub(crate) selinux: bool,
}

/// What is written to /proc/self/attr.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    /// `exec PROFILE`
    pub(crate) apparmor: Option<CString>,
    /// A context, `user:role:type:level`.
    pub(crate) selinux: Option<CString>,
}

/// The kernel takes up to a page, and cuts off what is more; 4096 is the smallest page.
const LONGEST: usize = 4096;

/// File systems that take no context when they are mounted: their superblock was there before, or, for mqueue, is made
/// together with the ipc namespace. The root of mqueue is labelled afterwards.
const WITHOUT_CONTEXT: &[&[u8]] = &[b"proc", b"sysfs", b"mqueue", b"securityfs", b"debugfs", b"tracefs"];

/// Which security modules the configuration asks for. Only these are looked for on the host.
pub(crate) fn wanted(process: Option<&Process>, linux: Option<&Linux>) -> Lsm {
    let selinux = text(process.map(Process::selinux_label)).is_some() || text(linux.map(Linux::mount_label)).is_some();
    Lsm { apparmor: text(process.map(Process::apparmor_profile)).is_some(), selinux }
}

fn text(field: Option<&Option<String>>) -> Option<&str> {
    field?.as_deref().filter(|text| !text.is_empty())
}

pub(super) fn labels(process: Option<&Process>, host: Lsm) -> Result<Labels> {
    let field = "process.apparmorProfile";
    let apparmor = text(process.map(Process::apparmor_profile)).map(|profile| {
        if !host.apparmor {
            return Err(Error::at(field, format!("{profile:?}: apparmor: config provided but apparmor not supported"))
                .hint("leave it out, or enable AppArmor with lsm=...,apparmor on the kernel's command line"));
        }
        checked(&format!("exec {profile}"), profile, field)
    });
    let selinux = text(process.map(Process::selinux_label)).map(|label| context(label, "process.selinuxLabel", host));
    Ok(Labels { apparmor: apparmor.transpose()?, selinux: selinux.transpose()? })
}

pub(super) fn mount_label(linux: &Linux, host: Lsm) -> Result<Option<CString>> {
    text(Some(linux.mount_label())).map(|label| context(label, "linux.mountLabel", host)).transpose()
}

fn context(label: &str, field: &str, host: Lsm) -> Result<CString> {
    if !host.selinux {
        let what = "selinux label is specified in config, but selinux is disabled or not supported";
        return Err(Error::at(field, format!("{label:?}: {what}")).hint(
            "leave it out, or enable SELinux with lsm=...,selinux on the kernel's command line, and load a policy",
        ));
    }
    checked(label, label, field)
}

fn checked(written: &str, value: &str, field: &str) -> Result<CString> {
    if written.len() > LONGEST {
        let start: String = value.chars().take(70).collect();
        return Err(Error::at(field, format!("\"{start}...\" has {} bytes, more than the kernel takes", value.len())));
    }
    c_string(written.as_bytes(), field)
}

/// Every new file system gets the context, but for one that brings its own. Bind mounts keep what they are.
pub(super) fn label_mounts(mounts: &mut [MountPlan], label: &CStr) {
    for mount in mounts {
        let MountKind::New { fstype, params } = &mut mount.kind else { continue };
        // The kernel refuses a second one of these.
        let own = params.iter().any(|param| matches!(param.key.to_bytes(), b"context" | b"defcontext"));
        if !own && !WITHOUT_CONTEXT.contains(&fstype.to_bytes()) {
            params.push(Param {
                key: c"context".to_owned(),
                value: Some(label.to_owned()),
                option: None,
                optional: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::rootfs::plan;

    const BOTH: Lsm = Lsm { apparmor: true, selinux: true };
    const NONE: Lsm = Lsm { apparmor: false, selinux: false };

    fn wanted_by(spec: &oci_spec::runtime::Spec) -> Lsm {
        wanted(spec.process().as_ref(), spec.linux().as_ref())
    }

    fn spec(process: &str, linux: &str) -> oci_spec::runtime::Spec {
        let process = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/"{process}}}"#);
        serde_json::from_str(&format!(r#"{{"ociVersion":"1.0.2","process":{process},"linux":{{{linux}}}}}"#)).unwrap()
    }

    fn made(process: &str, host: Lsm) -> std::result::Result<Labels, String> {
        labels(spec(process, "").process().as_ref(), host).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_looked_for_unless_a_field_asks() {
        assert_eq!(wanted_by(&spec("", "")), NONE);
        assert_eq!(wanted_by(&spec(r#","apparmorProfile":"","selinuxLabel":"""#, r#""mountLabel":"""#)), NONE);
        assert_eq!(wanted_by(&spec(r#","apparmorProfile":"p""#, "")), Lsm { apparmor: true, ..NONE });
        assert_eq!(wanted_by(&spec(r#","selinuxLabel":"l""#, "")), Lsm { selinux: true, ..NONE });
        assert_eq!(wanted_by(&spec("", r#""mountLabel":"l""#)), Lsm { selinux: true, ..NONE });
    }

    #[test]
    fn an_empty_label_is_none() {
        assert_eq!(made(r#","apparmorProfile":"","selinuxLabel":"""#, NONE), Ok(Labels::default()));
    }

    #[test]
    fn labels_are_as_the_kernel_wants_them() {
        let labels = made(r#","apparmorProfile":"docker-default","selinuxLabel":"u:r:t:s0:c1,c2""#, BOTH);
        let expected =
            Labels { apparmor: Some(c"exec docker-default".into()), selinux: Some(c"u:r:t:s0:c1,c2".into()) };
        assert_eq!(labels, Ok(expected));
    }

    #[test]
    fn a_label_without_its_module_is_refused_with_the_cure() {
        let error = made(r#","apparmorProfile":"p""#, Lsm { selinux: true, ..NONE }).unwrap_err();
        let start = "process.apparmorProfile: \"p\": apparmor: config provided but apparmor not supported\nhint: ";
        assert!(error.starts_with(start), "{error}");
        let error = made(r#","selinuxLabel":"l""#, Lsm { apparmor: true, ..NONE }).unwrap_err();
        let text = "\"l\": selinux label is specified in config, but selinux is disabled or not supported\nhint: ";
        assert!(error.starts_with(&format!("process.selinuxLabel: {text}")), "{error}");
        let linux = spec("", r#""mountLabel":"l""#).linux().clone().unwrap();
        let error = mount_label(&linux, NONE).unwrap_err().to_string();
        assert!(error.starts_with(&format!("linux.mountLabel: {text}")), "{error}");
    }

    #[test]
    fn a_label_is_never_cut_off() {
        let with = |length: usize| made(&format!(r#","apparmorProfile":"{}""#, "p".repeat(length)), BOTH);
        assert!(with(LONGEST - 5).is_ok());
        assert!(with(LONGEST - 4).unwrap_err().contains("has 4092 bytes"));
        assert!(made(r#","selinuxLabel":"a\u0000b""#, BOTH).unwrap_err().contains("NUL"));
    }

    #[test]
    fn new_file_systems_get_the_context_once() {
        let labelled = |json: &str| {
            let parsed = serde_json::from_str(json).unwrap();
            let mut mounts = [plan::mount(0, &parsed, Path::new("/bundle"), &mut Vec::new()).unwrap()];
            label_mounts(&mut mounts, c"u:r:t:s0:c1,c2");
            match &mounts[0].kind {
                MountKind::New { params, .. } => params.iter().map(Param::text).collect::<Vec<_>>().join(" "),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(labelled(r#"{"destination":"/t","type":"tmpfs"}"#), "context=u:r:t:s0:c1,c2");
        assert_eq!(
            labelled(r#"{"destination":"/d","type":"devpts","options":["mode=620"]}"#),
            "mode=620 context=u:r:t:s0:c1,c2"
        );
        assert_eq!(labelled(r#"{"destination":"/t","type":"tmpfs","options":["context=own"]}"#), "context=own");
        for fstype in ["proc", "sysfs", "mqueue"] {
            assert_eq!(labelled(&format!(r#"{{"destination":"/{fstype}","type":"{fstype}"}}"#)), "", "{fstype}");
        }
        assert!(labelled(r#"{"destination":"/b","source":"/s","options":["bind"]}"#).starts_with("Bind"));
    }
}
