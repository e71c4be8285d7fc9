//! The command line: types and help texts only.

mod checkpoint;
mod seccomp;
mod update;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use checkpoint::{Both, Checkpoint, Restore};
pub(crate) use seccomp::{DumpFormat, Question, Seccomp};
pub(crate) use update::Update;
pub(crate) use words::parse;

/// Open Container Initiative runtime, a replacement for runc
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Print the version
    #[arg(long, short = 'v')]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Adds what can stand before the command, and needs one.
    fn augment_options(command: clap::Command) -> clap::Command {
        let version = clap::Arg::new("version").long("version").short('v').action(clap::ArgAction::SetTrue);
        Global::augment_args(command).arg(version)
    }
}

/// Options before the command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Directory of the containers' states [default: /run/runtime, for other users $XDG_RUNTIME_DIR/runtime]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// File to which the error of a failing command is appended; stderr gets it too
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log what will be done, each step, and warnings too
    #[arg(long)]
    pub(crate) debug: bool,
    /// Have systemd make the cgroup, as a scope: linux.cgroupsPath is SLICE:PREFIX:NAME
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Who makes the cgroup: cgroupfs, this program itself (the default); systemd, as --systemd-cgroup; disabled,
    /// nobody: the container stays in that of its creator, without limits and device rules
    #[arg(long, value_name = "MANAGER")]
    pub(crate) cgroup_manager: Option<CgroupManager>,
    /// How long the command may wait, for hooks, locks, agents and the kernel; of run and exec, until the program runs.
    /// Then it fails, and undoes what it has done. For example 10s or 1m30s
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    // containerd 1.x passes CriuPath of its configuration to each command, as does who knows runc 1.1.
    #[arg(long = "criu", value_name = "PATH", hide = true)]
    _criu: Option<PathBuf>,
    /// Do without what is not permitted of cgroups: true, false, or auto, for all but real root
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) rootless: Rootless,
}

/// `gc`.
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Remove it, and kill what runs in it
    #[arg(long)]
    pub(crate) delete: bool,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// `--cgroup-manager`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

/// `--rootless`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Rootless {
    True,
    False,
    Auto,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container; its program waits for `start`
    Create(Create),
    /// Start the program of a created container
    Start(Id),
    /// Create a container, start it and wait for its end
    Run(Run),
    /// Print the state of a container as JSON
    State(Id),
    /// List all containers
    List(List),
    /// Send a signal to the container's init process
    Kill(Kill),
    /// Delete a container: its cgroups, its state, and with --force its processes
    Delete(Delete),
    /// Change the resource limits of a container
    Update(Box<Update>),
    /// Suspend all processes of a container
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Say what crashes have left over: directories of no container, cgroups without a directory
    Gc(Gc),
    /// Save the state of a running container by criu, and end it
    Checkpoint(Box<Checkpoint>),
    /// Make a container from such a state; it runs on where it was
    Restore(Box<Restore>),
    /// Write an example configuration
    Spec(Spec),
    /// Run a further process in a container
    Exec(Box<Exec>),
    /// List the container's processes
    Ps(Ps),
    /// Print what the container uses, again and again, and that it runs out of memory, as JSON
    Events(Events),
    /// Look into the seccomp profile of a bundle
    #[command(subcommand)]
    Seccomp(Seccomp),
    /// Print what this program can do, as JSON
    Features,
}

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) container: NewContainer,
    /// Name of the container, unique below --root
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `run`.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) container: NewContainer,
    /// Return when the program runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Keep the container after its end, for `state` and `delete`
    #[arg(long)]
    pub(crate) keep: bool,
    /// Do not become the reaper of processes that the container leaves behind
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Name of the container; or, with a slash in it, a bundle to run under a generated name
    #[arg(value_name = "ID|BUNDLE/")]
    pub(crate) id: String,
}

/// Options of `create` and `run`.
#[derive(Args, Debug)]
pub(crate) struct NewContainer {
    /// Directory with config.json [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// File to write init's pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// AF_UNIX socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// AF_UNIX socket that gets a pidfd of init
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Descriptors to pass to the container besides stdio: 3, 4, ... up to this many
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Move the root instead of pivot_root(2), for a host on an initial ramdisk; less safe
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
}

/// A command with a container only.
#[derive(Args, Debug)]
pub(crate) struct Id {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Format of the output
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ListFormat,
    /// Print names only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// `list --format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Json,
}

/// `kill`.
#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Send it to all processes of the container
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Number, or name such as TERM, SIGTERM, sigterm or RTMIN+3
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(crate) signal: String,
}

/// `delete`.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Kill the container's processes first; a container that does not exist is no error
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `exec`.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// process.json of the process; without it, the container's own process with another command
    #[arg(long, short, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// A variable, NAME=value, besides those of the container; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub(crate) env: Vec<String>,
    /// Allocate a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// User, by numbers
    #[arg(long, short, value_name = "UID[:GID]", allow_hyphen_values = true)]
    pub(crate) user: Option<String>,
    /// A supplementary group besides those of the container; may be repeated
    #[arg(long, short = 'g', value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Return when the program runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// File to write the pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// AF_UNIX socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// AF_UNIX socket that gets a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// A capability besides those of the container; may be repeated
    #[arg(long, short, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Descriptors to pass to the process besides stdio: 3, 4, ... up to this many
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// A cgroup below the container's, of some controllers or of all; may be repeated
    #[arg(long, value_name = "[CONTROLLER,...:]PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Exec in a paused container: the process is frozen too
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// `ps`.
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Format of the output: as of the host's ps(1), or an array of pids
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ListFormat,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Options of ps(1) [default: -ef]
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// `events`.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Time between two prints, in Go's syntax: 5s, 1m30s, 100ms
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true)]
    pub(crate) interval: String,
    /// Print once, and end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Of all containers, those too that come later
    #[arg(long, conflicts_with = "id")]
    pub(crate) all: bool,
    /// Name of the container
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) id: Option<String>,
}

/// `spec`.
#[derive(Args, Debug)]
pub(crate) struct Spec {
    /// Directory to write config.json to
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    pub(crate) rootless: bool,
}
