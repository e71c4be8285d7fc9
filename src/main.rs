//! A low-level OCI container runtime: parses the command line, carries one command out, prints one error.
#![cfg_attr(not(test), no_main)]

mod agent;
mod cgroups;
mod checkpoint;
mod child;
mod cli;
mod console;
mod create;
mod criu;
mod dbus;
mod deadline;
mod delete;
mod error;
mod events;
mod exec;
mod features;
mod gc;
mod hooks;
mod host;
mod idmap;
mod init;
mod interrupt;
mod json;
mod kill;
mod list;
mod logging;
mod netdev;
mod notify;
mod open;
mod pause;
mod plan;
mod profile;
mod ps;
mod rdt;
mod restore;
mod rollback;
mod rootfs;
mod run;
mod scratch;
mod seal;
mod seccomp;
mod spec;
mod spec_template;
mod start;
mod state;
mod sync;
mod sys;
mod update;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ErrorKind};

use cgroups::Driver;
use cli::{CgroupManager, Command, Global, LogFormat, NewContainer, Rootless};
use create::{Ends, Request};
use error::{Error, Result};
use logging::{Format, Log};
use profile::Question;
use seccomp::explain::Call;
use state::Root;

#[cfg(not(fuzzing))]
sys::entry!(command);
#[cfg(fuzzing)]
#[path = "../integration/fuzz/targets.rs"]
mod fuzz;

fn command() -> u8 {
    let words: Vec<OsString> = sys::arguments().into_iter().map(|word| OsString::from_vec(word.into_bytes())).collect();
    let name = program_name(words.first());
    // Or the words would be read twice. Whether it was needed is known when they are understood.
    let sealed = words.iter().any(|word| SEALED.iter().any(|command| word == command)).then(seal::seal);
    let cli = match cli::parse(&name, words.into_iter()) {
        Ok(cli) => cli,
        Err((usage, global)) => return no_use(&usage, global),
    };
    if cli.version {
        return exit(&Log::stderr(), print_version(&name).map(|()| 0), 1);
    }
    let Some(command) = cli.command else {
        return exit(&Log::stderr(), Err(Error::new("no command given").hint("--help lists them")), 1);
    };
    // Of an exec, 1 could be the status of its program; runc answers 255.
    let failure = if matches!(command, Command::Exec(_)) { 255 } else { 1 };
    // First: the log's descriptor must not be one of those that the caller has passed.
    let prepared = prepare(&command, sealed);
    match open_log(&cli.global) {
        Ok(log) => exit(&log, prepared.and_then(|()| carry_out(command, &cli.global, &name, &log)), failure),
        Err(error) => exit(&Log::stderr(), prepared.and(Err(error)), failure),
    }
}

/// The commands that run from a sealed copy of the program.
const SEALED: [&str; 3] = ["create", "run", "exec"];

fn open_log(global: &Global) -> Result<Log> {
    let format = match global.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    Log::open(global.log.as_deref(), format, global.debug)
}

/// Help, or an error of the command line: that is in the log, too, if it is known, and runc answers it with 1.
fn no_use(usage: &clap::Error, global: Option<Global>) -> u8 {
    if matches!(usage.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        let _ = usage.print();
        return usage.use_stderr().into();
    }
    let error = match usage.kind() {
        ErrorKind::InvalidSubcommand => no_command(usage),
        _ => Error::usage(usage.render().to_string().trim_start_matches("error: ").trim_end()),
    };
    let log = global.and_then(|global| open_log(&global).ok()).unwrap_or_else(Log::stderr);
    exit(&log, Err(error), 1)
}

/// In runc's words.
fn no_command(usage: &clap::Error) -> Error {
    let word = usage.get(ContextKind::InvalidSubcommand).map_or(String::new(), ToString::to_string);
    let hint = match usage.get(ContextKind::SuggestedSubcommand) {
        Some(similar) => format!("a similar command: {similar}"),
        None => "--help lists the commands".to_owned(),
    };
    Error::new(format!("No help topic for '{word}'")).hint(hint)
}

fn exit(log: &Log, result: Result<u8>, failure: u8) -> u8 {
    match result {
        Ok(status) => {
            log.succeeds();
            status
        }
        Err(error) => {
            log.error(&error);
            failure
        }
    }
}

/// Before anything is opened: what was passed by the caller, and whose file we run from.
fn prepare(command: &Command, sealed: Option<Result<()>>) -> Result<()> {
    let preserve_fds = match command {
        Command::Create(create) => listen_fds().saturating_add(create.container.preserve_fds),
        Command::Run(run) => listen_fds().saturating_add(run.container.preserve_fds),
        Command::Exec(exec) => exec.preserve_fds,
        _ => return Ok(()),
    };
    sealed.unwrap_or_else(seal::seal)?;
    for fd in 3..3u32.saturating_add(preserve_fds) {
        sys::check_open(fd).map_err(|errno| {
            Error::at("--preserve-fds", format!("unable to stat preserved-fd {fd} (of {preserve_fds})")).errno(errno)
        })?;
    }
    // What else the caller left open is not for hooks, nor for the container.
    sys::close_range(3 + preserve_fds, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        .map_err(|errno| Error::new("close_range").errno(errno).hint("this program needs Linux 5.14 or newer"))?;
    // Modes of what we make are those that we say; what hooks make is theirs.
    hooks::keep_umask(rustix::process::umask(rustix::fs::Mode::empty()));
    Ok(())
}

fn carry_out(command: Command, global: &Global, name: &str, log: &Log) -> Result<u8> {
    if let Command::Spec(spec) = &command {
        return spec_template::spec(&spec.bundle, spec.rootless).map(|()| 0);
    }
    if let Command::Features = &command {
        return features::features().map(|()| 0);
    }
    if let Command::Seccomp(seccomp) = &command {
        return look_into(seccomp).map(|()| 0);
    }
    if let Some(limit) = &global.timeout {
        deadline::set(events::interval::duration("--timeout", limit)?);
    }
    let root = Root::new(&global.root.clone().map_or_else(|| default_root(name), Ok)?)?;
    match command {
        Command::Create(create) => {
            let request = request(create.container, create.id, Ends::Created, global)?;
            create::create(&root, &request, log).map(|()| 0)
        }
        Command::Run(run) => {
            let ends = if run.detach { Ends::Started } else { Ends::Waited };
            let (mut options, mut id) = (run.container, run.id);
            // An id has no slash, so this is a bundle.
            if id.contains('/') {
                if let Some(bundle) = options.bundle {
                    return Err(Error::at("--bundle", format!("{bundle:?} and {id:?} are two bundles")));
                }
                options.bundle = Some(PathBuf::from(id));
                id = generated_id();
            }
            let request = request(options, id, ends, global)?;
            run::run(&root, &request, run.keep, !run.no_subreaper, log)
        }
        Command::Exec(exec) => exec::exec(&root, exec_request(*exec)?, log),
        Command::Start(start) => start::start(&root, &start.id).map(|()| 0),
        Command::State(state) => state::state(&root, &state.id).map(|()| 0),
        Command::List(list) => list::list(&root, list_format(list.format), list.quiet, log).map(|()| 0),
        Command::Ps(ps) => ps::ps(&root, &ps.id, list_format(ps.format), &ps.args).map(|()| 0),
        Command::Events(events) => {
            events::events(&root, events.id.as_deref(), &events.interval, events.stats, log).map(|()| 0)
        }
        Command::Update(update) => update::update(&root, update_request(*update), log).map(|()| 0),
        Command::Pause(pause) => pause::pause(&root, &pause.id).map(|()| 0),
        Command::Gc(gc) => gc::gc(&root, gc.delete, log).map(|()| 0),
        Command::Resume(resume) => pause::resume(&root, &resume.id).map(|()| 0),
        Command::Kill(kill) => kill::kill(&root, &kill.id, &kill.signal, kill.all).map(|()| 0),
        Command::Delete(delete) => delete::delete(&root, &delete.id, delete.force, log).map(|()| 0),
        Command::Checkpoint(options) => {
            let id = options.id.clone();
            checkpoint::checkpoint(&root, &id, &checkpoint_flags(*options), log).map(|()| 0)
        }
        Command::Restore(options) => {
            let subreaper = !options.no_subreaper;
            let flags = restore_flags(&options);
            restore::restore(&root, &restore_request(*options, global)?, &flags, subreaper, log)
        }
        Command::Spec(_) | Command::Features | Command::Seccomp(_) => Ok(0),
    }
}

fn look_into(seccomp: &cli::Seccomp) -> Result<()> {
    match &seccomp.0 {
        cli::Question::Explain(explain) => {
            let call = Call { arch: explain.arch.as_deref(), name: &explain.call, args: &explain.args };
            profile::profile(&explain.bundle, &Question::Explain(call))
        }
        cli::Question::Dump(dump) => match dump.format {
            cli::DumpFormat::Text => profile::profile(&dump.bundle, &Question::Dump),
            cli::DumpFormat::Raw => profile::profile(&dump.bundle, &Question::DumpRaw),
        },
    }
}

fn list_format(format: cli::ListFormat) -> list::Format {
    match format {
        cli::ListFormat::Table => list::Format::Table,
        cli::ListFormat::Json => list::Format::Json,
    }
}

fn exec_request(exec: cli::Exec) -> Result<exec::Request> {
    Ok(exec::Request {
        id: exec.id,
        process: exec.process,
        changes: plan::Changes {
            args: exec.args,
            terminal: exec.tty,
            cwd: exec.cwd,
            env: exec.env,
            user: exec.user,
            additional_gids: exec.additional_gids,
            capabilities: exec.cap,
            no_new_privileges: exec.no_new_privs,
            apparmor_profile: exec.apparmor,
            selinux_label: exec.process_label,
        },
        detach: exec.detach,
        pid_file: exec.pid_file.map(|path| absolute("--pid-file", &path)).transpose()?,
        console_socket: exec.console_socket,
        pidfd_socket: exec.pidfd_socket,
        preserve_fds: exec.preserve_fds,
        cgroups: exec.cgroup,
        ignore_paused: exec.ignore_paused,
    })
}

fn update_request(update: cli::Update) -> update::Request {
    let obsolete = [("--kernel-memory", update.kernel_memory), ("--kernel-memory-tcp", update.kernel_memory_tcp)];
    update::Request {
        id: update.id,
        resources: update.resources,
        limits: update::Limits {
            blkio_weight: update.blkio_weight,
            cpu_period: update.cpu_period,
            cpu_quota: update.cpu_quota,
            cpu_burst: update.cpu_burst,
            cpu_share: update.cpu_share,
            cpu_idle: update.cpu_idle,
            cpu_rt_period: update.cpu_rt_period,
            cpu_rt_runtime: update.cpu_rt_runtime,
            cpuset_cpus: update.cpuset_cpus,
            cpuset_mems: update.cpuset_mems,
            memory: update.memory,
            memory_reservation: update.memory_reservation,
            memory_swap: update.memory_swap,
            pids_limit: update.pids_limit,
        },
        l3_cache_schema: update.l3_cache_schema,
        mem_bw_schema: update.mem_bw_schema,
        device_add: update.device_add,
        device_rm: update.device_rm,
        obsolete: obsolete.into_iter().filter_map(|(option, value)| value.map(|_| option)).collect(),
    }
}

fn checkpoint_flags(options: cli::Checkpoint) -> criu::Flags {
    criu::Flags {
        parent_path: options.parent_path,
        leave_running: options.leave_running,
        pre_dump: options.pre_dump,
        tcp_skip_in_flight: options.tcp_skip_in_flight,
        link_remap: options.link_remap,
        status_fd: u32::try_from(options.status_fd).ok(),
        page_server: options.page_server,
        ..common_flags(&options.both)
    }
}

fn restore_flags(options: &cli::Restore) -> criu::Flags {
    criu::Flags {
        tcp_close: options.tcp_close,
        lsm_profile: options.lsm_profile.clone(),
        lsm_mount_context: options.lsm_mount_context.clone(),
        ..common_flags(&options.both)
    }
}

fn common_flags(both: &cli::Both) -> criu::Flags {
    criu::Flags {
        image_path: both.image_path.clone(),
        work_path: both.work_path.clone(),
        tcp_established: both.tcp_established,
        ext_unix_sk: both.ext_unix_sk,
        shell_job: both.shell_job,
        file_locks: both.file_locks,
        auto_dedup: both.auto_dedup,
        lazy_pages: both.lazy_pages,
        manage_cgroups_mode: both.manage_cgroups_mode.clone(),
        empty_ns: both.empty_ns.clone(),
        network_lock: both.network_lock.clone(),
        ..criu::Flags::default()
    }
}

fn restore_request(options: cli::Restore, global: &Global) -> Result<Request> {
    let container = NewContainer {
        bundle: options.bundle,
        pid_file: options.pid_file,
        console_socket: options.console_socket,
        pidfd_socket: None,
        preserve_fds: 0,
        no_pivot: options.no_pivot,
        no_new_keyring: false,
    };
    let ends = if options.detach { Ends::Started } else { Ends::Waited };
    // Sockets that were passed to the program are in the images, or are none.
    Ok(Request { preserve_fds: 0, listen_fds: 0, ..request(container, options.id, ends, global)? })
}

/// Made absolute now: the working directory changes on the way.
fn absolute(option: &str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::at(option.to_owned(), format!("{path:?}")).errno(error))
}

fn cgroup_driver(global: &Global) -> Result<Driver> {
    match (global.systemd_cgroup, global.cgroup_manager) {
        (true, Some(CgroupManager::Cgroupfs | CgroupManager::Disabled)) => {
            Err(Error::at("--cgroup-manager", "contradicts --systemd-cgroup"))
        }
        (true, _) | (false, Some(CgroupManager::Systemd)) => Ok(Driver::Systemd),
        (false, Some(CgroupManager::Disabled)) => Ok(Driver::Disabled),
        (false, Some(CgroupManager::Cgroupfs) | None) => Ok(Driver::Cgroupfs),
    }
}

fn request(options: NewContainer, id: String, ends: Ends, global: &Global) -> Result<Request> {
    Ok(Request {
        id,
        cgroup_driver: cgroup_driver(global)?,
        bundle: options.bundle.unwrap_or_else(|| PathBuf::from(".")),
        pid_file: options.pid_file.map(|path| absolute("--pid-file", &path)).transpose()?,
        console_socket: options.console_socket,
        pidfd_socket: options.pidfd_socket,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        preserve_fds: listen_fds().saturating_add(options.preserve_fds),
        listen_fds: listen_fds(),
        ends,
        rootless: match global.rootless {
            Rootless::True => Some(true),
            Rootless::False => Some(false),
            Rootless::Auto => None,
        },
    })
}

/// How many sockets were passed to this process, and not only to one above it (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id())).unwrap_or(0)
}

/// The name under which this program was called: installed as `runc`, it is runc to its callers.
fn program_name(word: Option<&OsString>) -> String {
    let name = word.and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str());
    if name == Some("runc") { "runc" } else { "runtime" }.to_owned()
}

/// As runc: ordinary users have a directory of their own, and who became root in a user namespace is one of them.
fn default_root(name: &str) -> Result<PathBuf> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    Ok(match runtime_dir {
        Some(dir) if is_users()? => Path::new(&dir).join(name),
        _ => Path::new("/run").join(name),
    })
}

fn is_users() -> Result<bool> {
    let named_root = std::env::var_os("USER").is_some_and(|user| user == "root");
    let real_root = || Ok::<_, Error>(!host::in_user_namespace(host::open_proc()?)?);
    Ok(!rustix::process::geteuid().is_root() || !(named_root || real_root()?))
}

/// Unique by pid and time, and mkdir makes sure.
fn generated_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("run-{}-{:08x}", std::process::id(), now.subsec_nanos())
}

fn print_version(name: &str) -> Result<()> {
    let commit = option_env!("COMMIT").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    logging::print(&format!("{name} version {version}\ncommit: {commit}\nspec: {}\n", state::OCI_VERSION))
}
