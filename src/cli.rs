//! The command line: types and help texts only.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

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
    /// Write an example configuration
    Spec(Spec),
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
/// Only words that are the name of a long option are changed, so that `-b`, `-bDIR` and signals stay as they are.
pub(crate) fn normalize(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let all = std::iter::once(&command).chain(command.get_subcommands());
    let names: Vec<&str> = all.flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long).collect();
    let mut only_values = false;
    let mend = |word: OsString| {
        only_values |= word == "--";
        let name =
            word.to_str().and_then(|text| text.strip_prefix('-')).map(|rest| rest.split('=').next().unwrap_or(rest));
        match name {
            Some(name) if !only_values && name.len() > 1 && (names.contains(&name) || name == "help") => {
                let mut mended = OsString::from("-");
                mended.push(&word);
                mended
            }
            _ => word,
        }
    };
    words.map(mend).collect()
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
    fn a_signal_is_not_an_option() {
        let parsed = parse(&["runtime", "kill", "c", "9"]).map(|cli| cli.command);
        assert!(matches!(parsed, Ok(Some(Command::Kill(Kill { signal, .. }))) if signal == "9"));
    }

    #[test]
    fn unknown_options_and_missing_arguments_are_errors() {
        for words in [&["runtime", "state"][..], &["runtime", "state", "--banana", "c"], &["runtime", "banana"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
