//! The words of the command line, before clap reads them. Pure.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches};

use super::{
    Checkpoint, Cli, Create, Delete, Events, Exec, Gc, Global, Id, Kill, List, Ps, Restore, Run, Spec, Update,
};

/// Parses the command line of a program that is called `name`. Help texts begin as runc's do. An error comes with the
/// options before it, which say where errors go.
pub(crate) fn parse(name: &str, words: impl Iterator<Item = OsString>) -> Result<Cli, (clap::Error, Option<Global>)> {
    let words: Vec<OsString> = words.collect();
    let short = command_of_one(&words).and_then(|command| {
        let mut matches = {
            let words = normalize(&command, words.iter().cloned());
            command.try_get_matches_from(words).ok()?
        };
        Cli::from_arg_matches_mut(&mut matches).ok()
    });
    short.map_or_else(|| parse_with_help(name, words.into_iter()), Ok)
}

type Augment = fn(clap::Command) -> clap::Command;

/// The options of each command that has some. To build all of them, with their help texts, is most of what a short command
/// executes.
const COMMANDS: [(&str, Augment); 17] = [
    ("create", Create::augment_args),
    ("start", Id::augment_args),
    ("run", Run::augment_args),
    ("state", Id::augment_args),
    ("list", List::augment_args),
    ("kill", Kill::augment_args),
    ("delete", Delete::augment_args),
    ("update", Update::augment_args),
    ("pause", Id::augment_args),
    ("resume", Id::augment_args),
    ("gc", Gc::augment_args),
    ("checkpoint", Checkpoint::augment_args),
    ("restore", Restore::augment_args),
    ("spec", Spec::augment_args),
    ("exec", Exec::augment_args),
    ("ps", Ps::augment_args),
    ("events", Events::augment_args),
];

/// The command line, as if the first word that is a command's name were the only command. If that is no command here, but the
/// value of an option, the words make no sense to it; and then, as for help and for errors, all commands are looked at.
fn command_of_one(words: &[OsString]) -> Option<clap::Command> {
    let (name, augment) = words.iter().skip(1).find_map(|word| COMMANDS.iter().find(|(name, _)| word == name))?;
    let top = Cli::augment_options(clap::Command::new("runtime").disable_version_flag(true));
    let plain = |command: clap::Command| command.disable_help_flag(true).disable_help_subcommand(true);
    Some(plain(top).subcommand(plain(augment(clap::Command::new(*name)))))
}

/// Apart, because all the options together make a frame on the stack that only this should touch.
#[inline(never)]
fn parse_with_help(name: &str, words: impl Iterator<Item = OsString>) -> Result<Cli, (clap::Error, Option<Global>)> {
    let help = |name: &str| format!("NAME:\n   {name} - {{about}}\n\n{{usage-heading}} {{usage}}\n\n{{all-args}}");
    let subcommand = |command: clap::Command| {
        let name = format!("{name} {}", command.get_name());
        command.help_template(help(&name)).args_override_self(true)
    };
    // An option may come again, as Podman's --leave-running does: its last value counts.
    let mut command = Cli::command().help_template(help(name)).args_override_self(true).mut_subcommands(subcommand);
    let words = normalize(&command, words);
    let parsed = command
        .try_get_matches_from_mut(&words)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command)));
    parsed.map_err(|error| {
        let before = Global::augment_args(clap::Command::new("")).ignore_errors(true).try_get_matches_from(words);
        (error, before.ok().and_then(|matches| Global::from_arg_matches(&matches).ok()))
    })
}

/// runc's callers also write long options with one dash (`-no-pivot`): gives them their second one. And flags may have a
/// value, as Go's have: `--tty=true` is `--tty`, and `--tty=false` nothing.
///
/// Only words that are the name of a long option are changed, so that `-b`, `-bDIR` and signals stay as they are; and
/// nothing after the id of `exec` and `ps`, where the words are those of another program: a `--` says so to clap, too.
fn normalize(top: &clap::Command, words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut command = top;
    let (mut is_value, mut verbatim) = (true, false);
    let mut normal = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
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
        let names_file = long.is_some_and(|argument| argument.get_value_parser().type_id() == TypeId::of::<PathBuf>());
        let one_dash = !is_short && !option.starts_with('-');
        // strconv.ParseBool's words.
        match text.split_once('=').filter(|_| long.is_some_and(|argument| !takes_value(argument))) {
            Some((_, "1" | "t" | "T" | "true" | "TRUE" | "True")) => normal.push(format!("--{name}").into()),
            Some((_, "0" | "f" | "F" | "false" | "FALSE" | "False")) => {}
            // An empty name of a file is none, as for Go's callers: `--pid-file=`, and `--pid-file ""`.
            None if names_file && text.split_once('=').is_some_and(|(_, value)| value.is_empty()) => {}
            None if names_file && is_value && words.next_if(|next| next.is_empty()).is_some() => is_value = false,
            _ => normal.push(if one_dash { format!("-{text}").into() } else { word }),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn parse(words: &[&str]) -> std::result::Result<Cli, clap::Error> {
        super::parse("runtime", words.iter().map(OsString::from)).map_err(|(error, _)| error)
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
    fn an_empty_value_is_none() {
        for words in [
            &["runtime", "--log=", "create", "--pid-file=", "-console-socket=", "c"][..],
            &["runtime", "--log", "", "create", "--pid-file", "", "-console-socket", "", "c"],
        ] {
            let parsed = parse(words).map(|cli| (cli.global.log, cli.command));
            let Ok((None, Some(Command::Create(create)))) = parsed else { panic!("{words:?}: {parsed:?}") };
            assert!(create.container.pid_file.is_none() && create.container.console_socket.is_none(), "{words:?}");
        }
    }

    #[test]
    fn a_flag_may_have_a_value() {
        for (words, tty, detach) in [
            (["--tty=true", "--detach=false", "c", "--tty=false"], true, false),
            (["-tty=0", "-detach=1", "c", "--detach=false"], false, true),
            (["-tty=TRUE", "--detach=t", "c", "--"], true, true),
        ] {
            let parsed = parse(&[&["runtime", "--debug=false", "exec"], &words[..]].concat());
            let Ok(Cli { global, command: Some(Command::Exec(exec)), .. }) = parsed else { panic!("{parsed:?}") };
            assert_eq!(
                (global.debug, exec.tty, exec.detach, exec.args),
                (false, tty, detach, vec![words[3].to_owned()])
            );
        }
        assert!(parse(&["runtime", "exec", "--tty=yes", "c"]).is_err());
    }

    #[test]
    fn the_last_of_an_option_counts() {
        let words =
            ["--debug", "--debug", "exec", "--tty", "--tty", "--cwd=/a", "-e", "A=1", "--cwd=/b", "-e", "B=2", "c"];
        let parsed = parse(&[&["runtime"], &words[..]].concat());
        let Ok(Cli { global, command: Some(Command::Exec(exec)), .. }) = parsed else { panic!("{parsed:?}") };
        assert!(global.debug && exec.tty);
        assert_eq!((exec.cwd, exec.env), (Some("/b".into()), vec!["A=1".to_owned(), "B=2".to_owned()]));
    }

    #[test]
    fn an_error_comes_with_the_options_before_it() {
        for wrong in [&["exec", "--nosuch", "--debug"][..], &["nosuch"], &["state"], &["list", "-f", "x"]] {
            let words = [&["runtime", "--log", "/l", "-log-format=json"], wrong].concat();
            let error = super::parse("runtime", words.iter().map(OsString::from)).err();
            let Some((_, Some(global))) = error else { panic!("{wrong:?}: {error:?}") };
            assert_eq!(global.log, Some(PathBuf::from("/l")), "{wrong:?}");
            assert!(matches!(global.log_format, LogFormat::Json) && !global.debug, "{wrong:?}");
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
    fn one_command_alone_is_parsed_as_among_all() {
        let commands = Cli::command();
        let names: Vec<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
        for name in &names {
            let known = COMMANDS.iter().any(|(known, _)| known == name);
            assert!(known || matches!(*name, "seccomp" | "features"), "{name}");
        }
        for words in [
            &["state", "c"][..],
            &["--root", "run", "list", "-q"],
            &["--log=l", "-debug", "--log-format", "json", "run", "-b", "/b", "-d", "--preserve-fds=2", "state"],
            &["--root", "/r", "exec", "-tu", "1:2", "-e", "A=run", "c", "list", "--help"],
            &["--systemd-cgroup", "create", "--bundle", "create", "--pid-file=p", "create"],
            &["kill", "--all", "c"],
            &["delete", "-force=false", "c"],
            &["update", "--memory", "64M", "c"],
            &["ps", "c", "-ef"],
            &["events", "--all"],
            &["checkpoint", "--image-path", "i", "c"],
            &["restore", "-no-subreaper", "-d", "c"],
            &["spec", "--rootless"],
            &["list", "--version"],
            &["--version", "list"],
        ] {
            let words: Vec<OsString> = ["runtime"].iter().chain(words).map(OsString::from).collect();
            let one = super::parse("runtime", words.clone().into_iter());
            let all = parse_with_help("runtime", words.clone().into_iter());
            let text = |parsed: Result<Cli, (clap::Error, Option<Global>)>| match parsed {
                Ok(cli) => format!("{cli:?}"),
                Err((error, global)) => format!("{} {global:?}", error.render()),
            };
            assert_eq!(text(one), text(all), "{words:?}");
        }
    }

    #[test]
    fn unknown_options_and_missing_arguments_are_errors() {
        for words in [&["runtime", "state"][..], &["runtime", "state", "--banana", "c"], &["runtime", "banana"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
