//! `seccomp`.

use std::path::PathBuf;

use clap::error::Error;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};

/// `seccomp`. clap gets to know its commands when they are asked for: no other command pays for them.
#[derive(Debug)]
pub(crate) struct Seccomp(pub(crate) Question);

/// Look into the seccomp profile of a bundle
#[derive(Debug, Subcommand)]
pub(crate) enum Question {
    /// Say which rule decides a system call, and what happens
    #[command(help_template = "NAME:\n   runtime seccomp explain - {about}\n\n{usage-heading} {usage}\n\n{all-args}")]
    Explain(Explain),
    /// Print the filter as the kernel gets it, in the notation of bpf_asm
    #[command(help_template = "NAME:\n   runtime seccomp dump - {about}\n\n{usage-heading} {usage}\n\n{all-args}")]
    Dump(Dump),
}

impl FromArgMatches for Seccomp {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Question::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Subcommand for Seccomp {
    fn augment_subcommands(command: Command) -> Command {
        command.defer(Question::augment_subcommands)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Question::has_subcommand(name)
    }
}

/// `seccomp explain`.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Directory with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Of which programs: x86_64, x86, x32, ... [default: those of the machine]
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
    /// Name or number of the system call
    #[arg(value_name = "SYSCALL", allow_negative_numbers = true)]
    pub(crate) call: String,
    /// Its first arguments, decimal or with 0x; what depends on others is listed
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    pub(crate) args: Vec<String>,
}

/// `seccomp dump`.
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// Directory with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Text, or the instructions as they are in memory
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: DumpFormat,
}

/// `seccomp dump --format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DumpFormat {
    Text,
    Raw,
}
