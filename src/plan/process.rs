//! `process` → what the child becomes. Pure.

use std::collections::HashMap;
use std::ffi::CString;
use std::str::FromStr;

use oci_spec::runtime::{Linux, LinuxCapabilities, LinuxIdMapping, PosixRlimitType, Process};

use super::annotations::Acting;
use super::rootless::is_mapped;
use super::scheduling::{self, Affinity, Scheduling};
use super::{Facts, Namespaces};
use crate::error::{Error, Result};
use crate::rootfs::plan::{RootPath, c_string};
use crate::seccomp;

/// The user's program and everything it is started with.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<CString>,
    /// Where the program may be, in the container: one path, or one for each directory of PATH.
    pub(crate) candidates: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// Whether HOME is to be looked up in the container's /etc/passwd.
    pub(crate) wants_home: bool,
    pub(crate) cwd: RootPath,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) capabilities: Capabilities,
    /// The highest capability of this kernel.
    pub(crate) last_cap: u8,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) scheduling: Scheduling,
    pub(crate) exec_affinity: Affinity,
    pub(crate) terminal: bool,
    /// Rows and columns.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) seccomp: Option<seccomp::Filter>,
}

/// The five sets of capabilities(7), bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

impl Capabilities {
    /// Which can be ambient: those that are permitted and inheritable, too (capabilities(7)).
    pub(crate) fn grantable_ambient(&self) -> u64 {
        self.ambient & self.permitted & self.inheritable
    }

    /// A note, not a warning: runc's own template asks for others, and nobody misses them.
    pub(super) fn note(&self) -> Option<String> {
        let denied = self.ambient & !self.grantable_ambient();
        let names = caps::all().into_iter().filter(|capability| denied & capability.bitmask() != 0);
        let mut names: Vec<String> = names.map(|capability| capability.to_string()).collect();
        names.sort();
        let names = names.join(", ");
        let text = format!("process.capabilities.ambient: not permitted and inheritable, so not granted: {names}");
        (denied != 0).then_some(text)
    }
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rlimit {
    /// `RLIMIT_*`.
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

impl ProcessPlan {
    /// Sets a variable, in place of one of the same name.
    pub(super) fn set_env(&mut self, name: &str, value: &str) -> Result<()> {
        let start = format!("{name}=");
        self.env.retain(|entry| !entry.to_bytes().starts_with(start.as_bytes()));
        self.env.push(c_string(format!("{start}{value}").as_bytes(), name)?);
        Ok(())
    }
}

pub(super) fn plan(
    process: &Process,
    linux: &Linux,
    facts: &Facts,
    namespaces: &Namespaces,
    acting: &Acting,
    warnings: &mut Vec<String>,
) -> Result<ProcessPlan> {
    let args = args(process)?;
    let env = env(process)?;
    let set = |name: &str| env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes()));
    let path = set("PATH=").unwrap_or(DEFAULT_PATH.as_bytes());
    let cwd = process.cwd();
    if !cwd.is_absolute() {
        return Err(Error::at("process.cwd", format!("{cwd:?}: Cwd must be an absolute path")));
    }
    let user = process.user();
    let no_gids = Vec::new();
    let gids = user.additional_gids().as_ref().unwrap_or(&no_gids);
    check_ids(user.uid(), user.gid(), gids, linux, namespaces)?;
    let umask = user.umask().unwrap_or(DEFAULT_UMASK);
    if umask > 0o777 {
        return Err(Error::at("process.user.umask", format!("{umask} is larger than 511 (0777)")));
    }
    let terminal = process.terminal().unwrap_or(false);
    let around = seccomp::Surroundings {
        receiver: acting.seccomp_receiver.as_deref(),
        // pidfd_getfd(2) of a process that cannot be dumped needs it, in the parent's user namespace.
        is_sent: facts.caller.is_user() || facts.permitted & CAP_SYS_PTRACE == 0,
    };
    let seccomp = linux.seccomp().as_ref().map(|profile| seccomp::compile(profile, around)).transpose()?;
    Ok(ProcessPlan {
        candidates: candidates(args.first().map_or(&[][..], |arg| arg.to_bytes()), path)?,
        wants_home: set("HOME=").is_none_or(<[u8]>::is_empty),
        args,
        cwd: RootPath::new(cwd, "process.cwd")?,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: gids.clone(),
        umask,
        capabilities: capabilities(process.capabilities().as_ref(), facts, namespaces, warnings)?,
        last_cap: facts.last_cap,
        rlimits: rlimits(process)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        scheduling: scheduling::plan(process, linux)?,
        exec_affinity: scheduling::affinity(process)?,
        terminal,
        console_size: if terminal { console_size(process)? } else { None },
        seccomp,
        env,
    })
}

/// As runc and crun. The specification says to keep the caller's, but shims run with 0, and a container must not write
/// files for everyone to change because of that.
const DEFAULT_UMASK: u32 = 0o022;
/// `CAP_SYS_PTRACE` of capabilities(7), as a mask.
const CAP_SYS_PTRACE: u64 = 1 << 19;
/// execvp(3), where PATH is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

fn args(process: &Process) -> Result<Vec<CString>> {
    let args = process.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::at("process.args", "args must not be empty"));
    }
    if args.first().is_some_and(String::is_empty) {
        return Err(Error::at("process.args[0]", "exec: \"\": executable file not found in $PATH"));
    }
    let arg = |(index, arg): (usize, &String)| c_string(arg.as_bytes(), &format!("process.args[{index}]"));
    args.iter().enumerate().map(arg).collect()
}

/// The environment: the last of several values wins. HOME without a value is looked up later.
fn env(process: &Process) -> Result<Vec<CString>> {
    let mut position: HashMap<&str, usize> = HashMap::new();
    let mut entries: Vec<(usize, &str)> = Vec::new();
    for (index, text) in process.env().iter().flatten().enumerate() {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::at(format!("process.env[{index}]"), format!("{text:?} is not NAME=value")));
        };
        if name == "HOME" && value.is_empty() {
            continue;
        }
        let at = *position.entry(name).or_insert(entries.len());
        match entries.get_mut(at) {
            Some(entry) => *entry = (index, text),
            None => entries.push((index, text)),
        }
    }
    entries.into_iter().map(|(index, text)| c_string(text.as_bytes(), &format!("process.env[{index}]"))).collect()
}

/// Where execvp(3) would look: a name with a slash is a path, another one is looked for in each directory of PATH.
fn candidates(program: &[u8], path: &[u8]) -> Result<Vec<CString>> {
    if program.contains(&b'/') {
        return Ok(vec![c_string(program, "process.args[0]")?]);
    }
    let directories = path.split(|&byte| byte == b':');
    directories
        .map(|directory| {
            let directory = if directory.is_empty() { &b"."[..] } else { directory };
            c_string(&[directory, b"/", program].concat(), "process.env")
        })
        .collect()
}

/// 2^32-1 means "do not change" to setresuid(2): taken for an id, it would leave the container root.
fn check_ids(uid: u32, gid: u32, gids: &[u32], linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    let none = Vec::new();
    let new_user = namespaces.is_new(libc::CLONE_NEWUSER);
    let check = |field: String, id: u32, kind: &str, mappings: &[LinuxIdMapping]| {
        if id == u32::MAX {
            return Err(Error::at(field, format!("{id} is not a {kind} id")));
        }
        if new_user && !is_mapped(id, mappings) {
            return Err(Error::at(
                field,
                format!("{id} is in none of linux.{}Mappings", if kind == "user" { "uid" } else { "gid" }),
            ));
        }
        Ok(())
    };
    let uids = linux.uid_mappings().as_ref().unwrap_or(&none);
    let gid_maps = linux.gid_mappings().as_ref().unwrap_or(&none);
    check("process.user.uid".to_owned(), uid, "user", uids)?;
    check("process.user.gid".to_owned(), gid, "group", gid_maps)?;
    for (index, &gid) in gids.iter().enumerate() {
        check(format!("process.user.additionalGids[{index}]"), gid, "group", gid_maps)?;
    }
    Ok(())
}

fn capabilities(
    sets: Option<&LinuxCapabilities>,
    facts: &Facts,
    namespaces: &Namespaces,
    warnings: &mut Vec<String>,
) -> Result<Capabilities> {
    let Some(sets) = sets else { return Ok(Capabilities::default()) };
    // In a user namespace of its own the child has all capabilities; else it can keep only what we have.
    let own_user = namespaces.has(libc::CLONE_NEWUSER);
    let available = if own_user { u64::MAX } else { facts.permitted };
    let mut mask = |set: &str, names: &Option<oci_spec::runtime::Capabilities>| -> Result<u64> {
        let mut mask = 0u64;
        for capability in names.iter().flatten() {
            let name = format!("CAP_{capability}");
            let number = caps::Capability::from_str(&name)
                .map_err(|error| Error::at(format!("process.capabilities.{set}"), error.to_string()))?
                .index();
            let bit = 1u64 << number;
            if number > facts.last_cap || available & bit == 0 {
                let why = if number > facts.last_cap {
                    "this kernel does not know it"
                } else {
                    "this process does not have it"
                };
                warnings.push(format!("process.capabilities.{set}: {name} cannot be granted, {why}"));
            } else {
                mask |= bit;
            }
        }
        Ok(mask)
    };
    Ok(Capabilities {
        bounding: mask("bounding", sets.bounding())?,
        effective: mask("effective", sets.effective())?,
        permitted: mask("permitted", sets.permitted())?,
        inheritable: mask("inheritable", sets.inheritable())?,
        ambient: mask("ambient", sets.ambient())?,
    })
}

fn rlimits(process: &Process) -> Result<Vec<Rlimit>> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for (index, rlimit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let limit = Rlimit { resource: resource(rlimit.typ()), soft: rlimit.soft(), hard: rlimit.hard() };
        if limits.iter().any(|other| other.resource == limit.resource) {
            return Err(Error::at(format!("{field}.type"), format!("{} is listed twice", rlimit.typ())));
        }
        if limit.soft > limit.hard {
            let text = format!("{} is more than the hard limit {}", limit.soft, limit.hard);
            return Err(Error::at(format!("{field}.soft"), text));
        }
        limits.push(limit);
    }
    Ok(limits)
}

/// The number of getrlimit(2).
fn resource(kind: PosixRlimitType) -> u32 {
    let number = match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    #[allow(clippy::unnecessary_cast, reason = "with musl they are of another type")]
    let number = number as u32;
    number
}

fn console_size(process: &Process) -> Result<Option<(u16, u16)>> {
    let Some(size) = process.console_size() else { return Ok(None) };
    let number = |name: &str, value: u64| {
        let field = format!("process.consoleSize.{name}");
        u16::try_from(value).map_err(|_| Error::at(field, format!("{value} is more than 65535")))
    };
    Ok(Some((number("height", size.height())?, number("width", size.width())?)))
}
