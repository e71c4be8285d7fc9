//! `linux.sysctl`. Pure.

use std::ffi::CString;

use oci_spec::runtime::Linux;

use super::Namespaces;
use crate::error::{Error, Result};
use crate::rootfs::plan::c_string;
use crate::spec::by_name;

/// One kernel parameter.
#[derive(Debug)]
pub(crate) struct Sysctl {
    /// As in the configuration.
    pub(crate) key: String,
    /// The file, relative to /proc.
    pub(crate) file: CString,
    pub(crate) value: CString,
}

/// Parameters of the ipc namespace (ipc_namespaces(7)), besides `fs.mqueue.*`.
const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Only parameters of a namespace that the container does not share with the host are accepted.
pub(super) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    by_name(linux.sysctl()).map(|(key, value)| one(key, value, namespaces)).collect()
}

fn one(key: &str, value: &str, namespaces: &Namespaces) -> Result<Sysctl> {
    let field = format!("linux.sysctl[{key:?}]");
    let refuse = |text: String| Err(Error::at(field.clone(), text));
    // Both separators are in use; what comes first is the separator, the other is part of a name (sysctl.d(5)).
    let slashes = key.find(['.', '/']).is_some_and(|at| key.as_bytes().get(at) == Some(&b'/'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path: String = if slashes { key.to_owned() } else { key.chars().map(swap).collect() };
    let dotted: String = path.chars().map(swap).collect();
    let has = |kind| namespaces.has(kind);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse(format!("sysctl {key:?} is not a name below /proc/sys"));
    }
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        if !has(libc::CLONE_NEWIPC) {
            return refuse(format!("sysctl {key:?} is not allowed in the hosts ipc namespace"));
        }
    } else if dotted.starts_with("net.") {
        if !has(libc::CLONE_NEWNET) {
            return refuse(format!("sysctl {key:?} not allowed in host network namespace"));
        }
    } else if dotted.starts_with("user.") {
        if !has(libc::CLONE_NEWUSER) {
            return refuse(format!("setting ucounts without a user namespace not allowed: {key:?}"));
        }
    } else if dotted == "kernel.domainname" {
        if !has(libc::CLONE_NEWUTS) {
            return refuse(format!("sysctl {key:?} is not allowed in the hosts uts namespace"));
        }
    } else if dotted == "kernel.hostname" {
        return refuse(format!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"));
    } else {
        return refuse(format!("sysctl {key:?} is not in a separate kernel namespace"));
    }
    let file = c_string(format!("sys/{path}").as_bytes(), &field)?;
    Ok(Sysctl { key: key.to_owned(), file, value: c_string(value.as_bytes(), &field)? })
}
