//! The options of `checkpoint` and `restore` → fields of `criu_opts`. Pure.

use std::path::PathBuf;

use super::message::{Message, opt};
use crate::error::{Error, Result};

/// What the command line says, of both commands. Their names are those of the options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) image_path: PathBuf,
    pub(crate) work_path: Option<PathBuf>,
    pub(crate) parent_path: Option<PathBuf>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) tcp_established: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) tcp_close: bool,
    pub(crate) link_remap: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) status_fd: Option<u32>,
    pub(crate) page_server: Option<String>,
    pub(crate) manage_cgroups_mode: Option<String>,
    pub(crate) empty_ns: Vec<String>,
    pub(crate) network_lock: Option<String>,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// `criu_cg_mode`.
const CGROUP_MODES: &[(&str, u64)] =
    &[("ignore", 0), ("none", 1), ("props", 2), ("soft", 3), ("full", 4), ("strict", 5), ("", 6)];
/// `criu_network_lock_method`.
const NETWORK_LOCKS: &[(&str, u64)] = &[("iptables", 1), ("nftables", NFTABLES), ("skip", 3)];
pub(crate) const NFTABLES: u64 = 2;
/// criu's level "info", as runc has it: what an error is about stands in the lines before it.
const LOG_LEVEL: u64 = 4;

impl Flags {
    /// What both commands tell criu. The network namespace is always made empty, and then as the configuration and its
    /// hooks have it: criu would need ip(8) and iptables(8) for its devices, and they are not the runtime's.
    pub(crate) fn options(&self) -> Result<Message> {
        let mut options = Message::default();
        let mode = self.manage_cgroups_mode.as_deref().unwrap_or("");
        options
            .flag(opt::NOTIFY_SCRIPTS, true)
            .flag(opt::ORPHAN_PTS_MASTER, true)
            .flag(opt::MANAGE_CGROUPS, true)
            .number(opt::MANAGE_CGROUPS_MODE, choose("--manage-cgroups-mode", mode, CGROUP_MODES)?)
            .number(opt::EMPTY_NS, empty_namespaces(&self.empty_ns)?)
            .number(opt::LOG_LEVEL, LOG_LEVEL);
        for (field, value) in [
            (opt::LEAVE_RUNNING, self.leave_running),
            (opt::TCP_ESTABLISHED, self.tcp_established),
            (opt::TCP_SKIP_IN_FLIGHT, self.tcp_skip_in_flight),
            (opt::TCP_CLOSE, self.tcp_close),
            (opt::LINK_REMAP, self.link_remap),
            (opt::EXT_UNIX_SK, self.ext_unix_sk),
            (opt::SHELL_JOB, self.shell_job),
            (opt::FILE_LOCKS, self.file_locks),
            (opt::AUTO_DEDUP, self.auto_dedup),
            (opt::LAZY_PAGES, self.lazy_pages),
        ] {
            options.flag(field, value);
        }
        for (field, value) in [(opt::LSM_PROFILE, &self.lsm_profile), (opt::LSM_MOUNT_CONTEXT, &self.lsm_mount_context)]
        {
            value.as_ref().map(|value| options.text(field, value));
        }
        if let Some(method) = &self.network_lock {
            options.number(opt::NETWORK_LOCK, choose("--network-lock", method, NETWORK_LOCKS)?);
        }
        if let Some(server) = &self.page_server {
            options.message(opt::PS, &page_server(server)?);
        }
        Ok(options)
    }
}

fn choose(option: &str, word: &str, choices: &[(&str, u64)]) -> Result<u64> {
    let chosen = choices.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    chosen.ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        Error::at(option, format!("{word:?} is none of {}", names.join(", ")))
    })
}

fn empty_namespaces(kinds: &[String]) -> Result<u64> {
    match kinds.iter().find(|kind| *kind != "network") {
        Some(kind) => Err(Error::at("--empty-ns", format!("namespace {kind:?} is not supported, only network"))),
        None => Ok(u64::try_from(libc::CLONE_NEWNET).unwrap_or(0)),
    }
}

/// `ADDRESS:PORT`, where an IPv6 address is in brackets.
fn page_server(text: &str) -> Result<Message> {
    let wrong = || Error::at("--page-server", format!("{text:?} is not ADDRESS:PORT"));
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if address.is_empty() || port == 0 {
        return Err(wrong());
    }
    let mut server = Message::default();
    server.text(1, address).number(2, port.into());
    Ok(server)
}

/// What the option is for that criu misses, by the words of its log.
const CURES: &[(&str, &str)] = &[
    ("tcp-established", "--tcp-established keeps open TCP connections"),
    ("Connected TCP socket", "--tcp-established keeps open TCP connections"),
    ("In-flight connection", "--tcp-skip-in-flight leaves connections out that are just being made"),
    ("ext-unix-sk", "--ext-unix-sk leaves the other end of a unix socket to be connected again by its owner"),
    (
        "External socket is used",
        "--ext-unix-sk leaves the other end of a unix socket to be connected again by its owner",
    ),
    ("file-locks", "--file-locks keeps locks of files"),
    ("Some file locks are hold", "--file-locks keeps locks of files"),
    ("shell-job", "--shell-job is for a container that shares its session with others"),
    ("link-remap", "--link-remap keeps files that are open and deleted, where they have another link"),
    ("Can't create link remap", "--link-remap keeps files that are open and deleted, where they have another link"),
    (
        "Can't exec",
        "criu calls other programs, of PATH: tar for files of a tmpfs, ip and iptables or nft for the network",
    ),
    (
        "Can't lookup mount",
        "an open file is not one of the container's: stdout and stderr should be pipes or /dev/null",
    ),
    (
        ".img: Permission denied",
        "root of the container's user namespace must be able to open the images: chgrp the directory to its gid, chmod 750",
    ),
    (
        "No mapping for",
        "the image has a mount that config.json has not: restore with the configuration of the checkpoint",
    ),
];

/// The lines of a log of criu that say what went wrong, and what may help. The last of its errors only says that it has
/// failed: where there is no other, what came before it may tell.
pub(crate) fn excerpt(log: &str) -> (Vec<String>, Option<&'static str>) {
    /// From here on one error is a consequence of another.
    const LINES: usize = 10;
    const BEFORE: usize = 6;
    // Who may not raise the limit does without: criu goes on.
    let is_error = |line: &&str| line.contains("Error (") && !line.contains("Can't setup RLIMIT_NOFILE");
    let mut lines: Vec<&str> = log.lines().filter(is_error).take(LINES).collect();
    if lines.len() == 1 {
        let end = log.lines().position(|line| is_error(&line)).unwrap_or(0);
        lines = log.lines().take(end + 1).skip(end.saturating_sub(BEFORE)).collect();
    }
    let cure = CURES.iter().find(|(words, _)| lines.iter().any(|line| line.contains(words))).map(|(_, cure)| *cure);
    (lines.into_iter().map(str::to_owned).collect(), cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Flags);

    fn options(change: impl Fn(&mut Flags)) -> std::result::Result<Message, String> {
        let mut flags = Flags::default();
        change(&mut flags);
        flags.options().map_err(|error| error.to_string())
    }

    #[test]
    fn each_option_changes_what_criu_is_told() {
        let changes: &[Change] = &[
            |flags| flags.leave_running = true,
            |flags| flags.tcp_established = true,
            |flags| flags.tcp_skip_in_flight = true,
            |flags| flags.tcp_close = true,
            |flags| flags.link_remap = true,
            |flags| flags.ext_unix_sk = true,
            |flags| flags.shell_job = true,
            |flags| flags.file_locks = true,
            |flags| flags.auto_dedup = true,
            |flags| flags.lazy_pages = true,
            |flags| flags.page_server = Some("[::1]:80".into()),
            |flags| flags.manage_cgroups_mode = Some("strict".into()),
            |flags| flags.network_lock = Some("skip".into()),
            |flags| flags.lsm_profile = Some("apparmor:x".into()),
            |flags| flags.lsm_mount_context = Some("x".into()),
        ];
        let mut all: Vec<_> = changes.iter().map(options).chain([options(|_| {})]).collect();
        assert!(all.iter().all(std::result::Result::is_ok), "{all:?}");
        all.sort_by_key(|options| format!("{options:?}"));
        all.dedup();
        assert_eq!(all.len(), changes.len() + 1);
    }

    #[test]
    fn words_that_are_none_are_named() {
        let wrong: &[(Change, &str)] = &[
            (|flags| flags.manage_cgroups_mode = Some("x".into()), "--manage-cgroups-mode: \"x\" is none of ignore, "),
            (|flags| flags.network_lock = Some(String::new()), "--network-lock: \"\" is none of iptables, "),
            (|flags| flags.empty_ns = vec!["pid".into()], "--empty-ns: namespace \"pid\" is not supported"),
            (|flags| flags.page_server = Some("1.2.3.4".into()), "--page-server: \"1.2.3.4\" is not ADDRESS:PORT"),
            (|flags| flags.page_server = Some(":80".into()), "--page-server: \":80\" is not ADDRESS:PORT"),
            (|flags| flags.page_server = Some("a:0".into()), "--page-server: \"a:0\" is not ADDRESS:PORT"),
        ];
        for (change, expected) in wrong {
            let error = options(change).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_lines_that_matter_and_the_cure() {
        let log = "(00.1) Dumping\n(00.2) Error (criu/sk-inet.c:1): inet: Connected TCP socket, consider using --x\n\
                   (00.3) Unlock\n(00.4) Error (criu/cr-dump.c:2): Dumping FAILED.\n";
        let (lines, cure) = excerpt(log);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.contains("Error")) && cure.is_some_and(|cure| cure.contains("--tcp-e")));
        assert_eq!(
            excerpt("(00.1) Dumping\n(00.2) Error (x): rlimit: Can't setup RLIMIT_NOFILE\n"),
            (Vec::new(), None)
        );
        assert_eq!(
            excerpt("(00.1) why\n(00.2) Error (x): FAILED\n(00.3) after\n").0,
            ["(00.1) why", "(00.2) Error (x): FAILED"]
        );
    }
}
