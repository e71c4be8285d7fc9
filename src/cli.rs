//! The command line: types and help texts only.

mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use update::Update;

/// A low-level OCI container runtime, a replacement for runc.
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
    /// Log warnings too
    #[arg(long)]
    pub(crate) debug: bool,
    /// Have systemd make the cgroup (not supported by this version)
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Ignore what an ordinary user may not do with cgroups: true, false or auto (accepted for runc's callers)
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) rootless: Rootless,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
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
    /// Write an example configuration
    Spec(Spec),
    /// Run a further process in a container
    Exec(Box<Exec>),
    /// List the container's processes
    Ps(Ps),
    /// Print what the container uses, again and again, and that it runs out of memory, as JSON
    Events(Events),
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

/// runc's callers also write long options with one dash (`-no-pivot`): gives them their second one.
///
/// Only words that are the name of a long option are changed, so that `-b`, `-bDIR` and signals stay as they are; and
/// nothing after the id of `exec` and `ps`, where the words are those of another program: a `--` says so to clap, too.
pub(crate) fn normalize(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let top = Cli::command();
    let mut command = &top;
    let (mut is_value, mut verbatim) = (true, false);
    let mut normal = Vec::new();
    for word in words {
        let text = word.to_str().unwrap_or("");
        // The first word is our own name.
        if verbatim || std::mem::take(&mut is_value) {
            normal.push(word);
            continue;
        }
        let Some(option) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            match command.find_subcommand(text) {
                Some(subcommand) => command = subcommand,
                None => verbatim = matches!(command.get_name(), "exec" | "ps"),
            }
            normal.push(word);
            if verbatim {
                normal.push("--".into());
            }
            continue;
        };
        verbatim = word == "--";
        let arguments = || command.get_arguments().chain(top.get_arguments());
        let name = option.trim_start_matches('-').split('=').next().unwrap_or("");
        let long = arguments().find(|argument| argument.get_long() == Some(name));
        let takes_value = |argument: &clap::Arg| argument.get_action().takes_values();
        let is_short = !option.starts_with('-') && long.is_none() && name != "help";
        is_value = if is_short {
            // `-du 1`, `-du1`: the first that takes a value has the rest of the word, or the next word.
            let mut letters = option.chars();
            let takes =
                |letter| arguments().any(|argument| argument.get_short() == Some(letter) && takes_value(argument));
            letters.any(takes) && letters.as_str().is_empty()
        } else {
            !option.contains('=') && long.is_some_and(takes_value)
        };
        let one_dash = !is_short && !option.starts_with('-');
        normal.push(if one_dash { format!("-{text}").into() } else { word });
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> std::result::Result<Cli, clap::Error> {
        Cli::try_parse_from(normalize(words.iter().map(OsString::from)))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_written_in_every_way() {
        for words in [
            ["runtime", "create", "--bundle", "/b", "--no-pivot", "c"],
            ["runtime", "create", "--bundle=/b", "-no-pivot", "c", "--no-new-keyring"],
            ["runtime", "create", "-bundle=/b", "c", "-no-pivot", "--debug=x"],
            ["runtime", "create", "c", "-no-pivot", "-b", "/b"],
        ] {
            let words: Vec<&str> = words.into_iter().filter(|word| *word != "--debug=x").collect();
            let parsed = parse(&words).map(|cli| cli.command);
            let Ok(Some(Command::Create(create))) = parsed else { panic!("{words:?}: {parsed:?}") };
            assert_eq!(create.container.bundle, Some(PathBuf::from("/b")), "{words:?}");
            assert!(create.container.no_pivot && create.id == "c", "{words:?}");
        }
    }

    #[test]
    fn a_negative_number_is_a_value() {
        for words in [
            ["runtime", "update", "--memory", "-1", "--cpu-quota=-1", "-pids-limit", "-1", "-r", "-", "c"],
            ["runtime", "update", "c", "-r", "-", "--pids-limit", "-1", "-cpu-quota", "-1", "-memory=-1"],
        ] {
            let parsed = parse(&words).map(|cli| cli.command);
            let Ok(Some(Command::Update(update))) = parsed else { panic!("{words:?}: {parsed:?}") };
            assert_eq!(
                (update.memory.as_deref(), update.cpu_quota, update.pids_limit),
                (Some("-1"), Some(-1), Some(-1))
            );
            assert_eq!((update.id.as_str(), update.resources), ("c", Some(PathBuf::from("-"))));
        }
    }

    #[test]
    fn a_signal_is_not_an_option() {
        let parsed = parse(&["runtime", "kill", "c", "9"]).map(|cli| cli.command);
        assert!(matches!(parsed, Ok(Some(Command::Kill(Kill { signal, .. }))) if signal == "9"));
    }

    #[test]
    fn words_after_the_id_of_exec_are_the_programs() {
        let words =
            ["runtime", "-root", "/r", "exec", "-tty", "--env", "A=-b", "-u", "1", "c", "find", "-tty", "--cwd=x"];
        let parsed = parse(&words).map(|cli| cli.command);
        let Ok(Some(Command::Exec(exec))) = parsed else { panic!("{parsed:?}") };
        assert!(exec.tty && exec.cwd.is_none());
        assert_eq!((exec.id.as_str(), exec.env, exec.user.as_deref()), ("c", vec!["A=-b".to_owned()], Some("1")));
        assert_eq!(exec.args, ["find", "-tty", "--cwd=x"]);
        for options in
            [&["-dp/x/proc"][..], &["-du", "-1"], &["-d", "-cwd", "/c"], &["--detach", "-ueu"], &["-d", "--"]]
        {
            let words = [&["runtime", "exec"], options, &["c", "--help", "--", "-tty"]].concat();
            let Ok(Some(Command::Exec(exec))) = parse(&words).map(|cli| cli.command) else { panic!("{words:?}") };
            assert!(exec.id == "c" && exec.detach && !exec.tty, "{words:?}");
            assert_eq!(exec.args, ["--help", "--", "-tty"], "{words:?}");
        }
    }

    #[test]
    fn words_after_the_id_of_ps_are_its_options() {
        for (words, expected) in [
            (&["-format", "table", "c", "-o pid,cmd"][..], &["-o pid,cmd"][..]),
            (&["c", "-format", "--format=x", "-ef", "--help"], &["-format", "--format=x", "-ef", "--help"]),
            (&["c"], &[]),
        ] {
            let parsed = parse(&[&["runtime", "ps"], words].concat()).map(|cli| cli.command);
            let Ok(Some(Command::Ps(ps))) = parsed else { panic!("{words:?}: {parsed:?}") };
            assert_eq!(
                (ps.id.as_str(), ps.args.as_slice()),
                ("c", expected.iter().map(OsString::from).collect::<Vec<_>>().as_slice())
            );
        }
    }

    #[test]
    fn events_are_of_one_container_or_of_all() {
        for words in [&["--interval=5s", "c"][..], &["c", "-interval", "5s", "--stats"], &["--all"]] {
            assert!(parse(&[&["runtime", "events"], words].concat()).is_ok(), "{words:?}");
        }
        for words in [&[][..], &["--all", "c"]] {
            assert!(parse(&[&["runtime", "events"], words].concat()).is_err(), "{words:?}");
        }
    }

    #[test]
    fn unknown_options_and_missing_arguments_are_errors() {
        for words in [&["runtime", "state"][..], &["runtime", "state", "--banana", "c"], &["runtime", "banana"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
