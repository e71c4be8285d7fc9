//! The command line: options in every form that callers use, and what the commands print.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, Call, Container, Output, case, cgroup_v2, ours, runtime, skip, text, with_io};

#[test]
fn version() {
    case(|| {
        // Under the name runc, the first line is what go-runc parses.
        let container = Bundle::new().container();
        let link = container.bundle.directory.join("runc");
        std::os::unix::fs::symlink(runtime(), &link).unwrap();
        for flag in ["--version", "-v"] {
            let output = Call::new(&link).args([flag]).run().ok();
            let lines: Vec<&str> = output.stdout.lines().collect();
            assert!(lines[0].starts_with("runc version "), "{lines:?}");
            assert!(lines.iter().any(|line| line.starts_with("spec: 1.")), "{lines:?}");
            assert!(lines.iter().any(|line| line.starts_with("commit: ")), "{lines:?}");
            assert_eq!(output.stderr, "");
        }
    });
}

const COMMANDS: [&str; 8] = ["create", "start", "run", "state", "list", "kill", "delete", "spec"];

#[test]
fn help() {
    case(|| {
        for flag in ["--help", "-h"] {
            let output = Call::new(runtime()).args([flag]).run().ok();
            for command in COMMANDS {
                assert!(output.stdout.contains(command), "{command}: {}", output.stdout);
            }
        }
        for command in COMMANDS {
            let output = Call::new(runtime()).args([command, "--help"]).run().ok();
            let name = runtime().file_name().unwrap().to_str().unwrap();
            assert!(output.stdout.starts_with(&format!("NAME:\n   {name} {command} - ")), "{}", output.stdout);
        }
    });
}

#[test]
fn an_unknown_command_has_no_help() {
    case(|| {
        for words in [&["lst", "-h"][..], &["lst"]] {
            let output = Call::new(runtime()).args(words).run().fails();
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(said.contains("No help topic for 'lst'"), "{said}");
            if ours() {
                assert!(said.contains("similar") && said.contains("list"), "{said}");
            }
        }
    });
}

#[test]
fn unknown_options_and_wrong_arguments() {
    case(|| {
        let container = Bundle::new().container();
        container.bundle.write();
        let calls: &[&[&str]] = &[
            &["--nosuch", "list"],
            &["nosuch"],
            &["create"],
            &["create", "--nosuch", "x"],
            &["create", "x", "y"],
            &["run"],
            &["start"],
            &["start", "--nosuch", "x"],
            &["state"],
            &["state", "x", "y"],
            &["kill"],
            &["delete"],
            &["list", "--format", "nosuch"],
            &["--log-format", "nosuch", "list"],
        ];
        for call in calls {
            let output = container.call(*call).run().fails();
            assert!(!output.stderr.is_empty(), "{call:?}");
            if ours() {
                assert_eq!(output.stdout, "", "{call:?}");
            }
        }
        if ours() {
            let output = container.call(["create", "--nosuch", "x"]).run();
            assert!(output.stderr.contains("Usage:") && output.stderr.contains("--nosuch"), "{}", output.stderr);
        }
        container.nothing_left();
    });
}

/// Runs `create` with these words (`BUNDLE`, `PIDFILE` and `ID` are filled in) and insists on a container.
#[track_caller]
fn creates(words: &[&str]) {
    let container = Bundle::new().container();
    container.bundle.write();
    let (bundle, pid) = (container.bundle.directory.clone(), container.bundle.directory.join("pid"));
    let fill = |word: &&str| {
        let word = word.replace("BUNDLE", bundle.to_str().unwrap()).replace("PIDFILE", pid.to_str().unwrap());
        word.replace("ID", &container.id)
    };
    container.call(words.iter().map(fill)).cwd("/").run().ok();
    assert_eq!(container.status(), "created", "{words:?}");
    assert_eq!(text(pid), container.pid().to_string(), "{words:?}");
    container.command(&["delete", "--force"], &[]).ok();
    container.nothing_left();
}

#[test]
fn options_with_a_space_or_an_equals_sign() {
    case(|| {
        creates(&["create", "--bundle", "BUNDLE", "--pid-file", "PIDFILE", "ID"]);
        creates(&["create", "--bundle=BUNDLE", "--pid-file=PIDFILE", "ID"]);
        creates(&["create", "-b", "BUNDLE", "--pid-file", "PIDFILE", "ID"]);
        creates(&["create", "--no-pivot", "--no-new-keyring", "--bundle=BUNDLE", "--pid-file=PIDFILE", "ID"]);
        creates(&["--debug", "--log", "/dev/null", "create", "--bundle=BUNDLE", "--pid-file=PIDFILE", "ID"]);
    });
}

#[test]
fn options_with_one_dash() {
    case(|| {
        creates(&["create", "-bundle", "BUNDLE", "-pid-file", "PIDFILE", "ID"]);
        creates(&["create", "-bundle=BUNDLE", "-pid-file=PIDFILE", "ID"]);
    });
}

#[test]
fn flags_with_a_value() {
    case(|| {
        creates(&[
            "-debug=0",
            "create",
            "--no-pivot=false",
            "--bundle=BUNDLE",
            "--pid-file=PIDFILE",
            "--no-new-keyring=true",
            "ID",
        ])
    });
}

#[test]
fn criu_option_is_accepted() {
    case(|| creates(&["--criu", "/usr/sbin/criu", "create", "--bundle=BUNDLE", "--pid-file=PIDFILE", "ID"]));
}

#[test]
fn options_after_the_id() {
    case(|| {
        creates(&["create", "ID", "--bundle", "BUNDLE", "--pid-file=PIDFILE"]);
        creates(&["create", "--bundle", "BUNDLE", "ID", "--pid-file", "PIDFILE"]);
        let container = Bundle::new().container();
        container.create().ok();
        container.call(["delete", &container.id, "--force"]).run().ok();
        container.nothing_left();
    });
}

#[test]
fn rootless_option_is_accepted() {
    case(|| {
        let container = Bundle::new().container();
        for value in ["true", "false", "auto"] {
            container.call(["--rootless", value, "list"]).run().ok();
            container.call([&format!("--rootless={value}"), "list"]).run().ok();
        }
    });
}

#[test]
fn no_subreaper_is_accepted() {
    case(|| {
        let container = Bundle::new().container();
        container.call_bundle("run", &["--no-subreaper"]).run().ok();
    });
}

#[test]
fn root_of_the_file_system_is_no_state_directory() {
    case(|| {
        if !ours() {
            skip!("asked only of this project's runtime");
        }
        let container = Bundle::new().container();
        container.bundle.write();
        let call = Call::new(runtime()).args(["--root", "/", "create", &container.id]);
        call.cwd(&container.bundle.directory).run().fails();
        container.nothing_left();
    });
}

// ---------------------------------------------------------------------------------------------- spec

#[test]
fn spec_writes_a_configuration_that_runs() {
    case(|| {
        let container = Bundle::new().container();
        let file = container.bundle.directory.join("config.json");
        container.call(["spec"]).run().ok();
        let mut config: Value = serde_json::from_str(&text(&file)).unwrap();
        assert_eq!(config["process"]["terminal"], json!(true));
        assert_eq!(config["process"]["args"], json!(["sh"]));
        assert_eq!(config["root"], json!({"path": "rootfs", "readonly": true}));
        assert_eq!(config["process"]["noNewPrivileges"], json!(true));
        assert!(config["linux"]["maskedPaths"].as_array().unwrap().len() >= 8);
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(namespaces.contains(&json!({"type": "cgroup"})), cgroup_v2(), "{namespaces:?}");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["echo", "hello"]);
        config["linux"]["cgroupsPath"] = container.bundle.config["linux"]["cgroupsPath"].clone();
        fs::write(&file, config.to_string()).unwrap();
        assert_eq!(container.call(["run", &container.id]).run().ok().stdout, "hello\n");
    });
}

#[test]
fn spec_overwrites_nothing() {
    case(|| {
        let container = Bundle::new().container();
        let file = container.bundle.directory.join("config.json");
        fs::write(&file, "mine").unwrap();
        let output = container.call(["spec"]).run().fails();
        assert!(output.stderr.contains("File config.json exists. Remove it first"), "{}", output.stderr);
        assert_eq!(text(file), "mine");
    });
}

#[test]
fn spec_into_a_bundle() {
    case(|| {
        let container = Bundle::new().container();
        container.call(["spec", "--bundle", container.bundle.directory.to_str().unwrap()]).cwd("/").run().ok();
        assert!(text(container.bundle.directory.join("config.json")).starts_with('{'));
    });
}

#[test]
fn spec_rootless() {
    case(|| {
        let container = Bundle::new().container();
        container.call(["spec", "--rootless"]).run().ok();
        let config: Value = serde_json::from_str(&text(container.bundle.directory.join("config.json"))).unwrap();
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        let kinds: Vec<&str> = namespaces.iter().map(|one| one["type"].as_str().unwrap()).collect();
        assert!(kinds.contains(&"user") && !kinds.contains(&"network"), "{kinds:?}");
        for map in ["uidMappings", "gidMappings"] {
            assert_eq!(config["linux"][map][0]["containerID"], json!(0));
            assert_eq!(config["linux"][map][0]["size"], json!(1));
        }
        assert!(config["linux"]["resources"].is_null());
    });
}

// ---------------------------------------------------------------------------------------------- state and list

#[test]
fn state_has_the_fields_of_the_specification_and_of_runc() {
    case(|| {
        let mut bundle = Bundle::sh(crate::support::WAITING);
        bundle.set("/annotations", json!({"org.example.key": "a value"}));
        let container = bundle.container();
        let _io = container.create_io();
        let state = container.state();
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
        assert_eq!(state["id"], json!(container.id));
        assert_eq!(state["status"], json!("created"));
        assert!(state["pid"].as_u64().unwrap() > 1);
        assert_eq!(state["bundle"], json!(container.bundle.directory));
        assert_eq!(state["rootfs"], json!(container.bundle.rootfs()));
        assert!(rfc3339(state["created"].as_str().unwrap()), "{state}");
        assert_eq!(state["annotations"]["org.example.key"], json!("a value"));
        assert!(state["owner"].is_string(), "{state}");
    });
}

/// Whether Go's `time.RFC3339` layout takes a text.
pub(crate) fn rfc3339(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("9999-99-99T99:99:99") else { return false };
    let rest = rest.strip_prefix('.').map_or(rest, |fraction| fraction.trim_start_matches('9'));
    ["Z", "+99:99", "-99:99"].contains(&rest)
}

#[test]
fn list_of_nothing() {
    case(|| {
        let container = Bundle::new().container();
        assert_eq!(container.call(["list", "--format", "json"]).run().ok().stdout.trim(), "null");
        assert_eq!(container.call(["list", "--quiet"]).run().ok().stdout, "");
        let table = container.call(["list"]).run().ok().stdout;
        let header: Vec<&str> = table.split_whitespace().collect();
        assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    });
}

#[test]
fn list_of_containers() {
    case(|| {
        let (first, _io) = Container::running();
        // A second one with the same state directory.
        let second = format!("{}2", first.id);
        let bundle = first.bundle.directory.to_str().unwrap();
        let mut config = first.bundle.config.clone();
        let path = config["linux"]["cgroupsPath"].as_str().unwrap().replace(&first.id, &second);
        config["linux"]["cgroupsPath"] = json!(path);
        fs::write(first.bundle.directory.join("config.json"), config.to_string()).unwrap();
        let (call, _io2) = with_io(first.call(["create", "--bundle", bundle, &second]));
        call.run().ok();
        let quiet = first.call(["list", "-q"]).run();
        let json = [&["list", "--format", "json"], &["list", "-f", "json"]].map(|form| first.call(form).run());
        let table = first.call(["list"]).run();
        first.call(["delete", "--force", &second]).run().ok();

        let quiet = quiet.ok().stdout;
        let mut ids: Vec<&str> = quiet.lines().collect();
        ids.sort_unstable();
        assert_eq!(ids, [first.id.as_str(), second.as_str()]);
        for printed in json.map(|output| output.ok().stdout) {
            let list: Vec<Value> = serde_json::from_str(&printed).unwrap();
            assert_eq!(list.len(), 2);
            let one = list.iter().find(|one| one["id"] == first.id.as_str()).unwrap();
            assert_eq!(one["status"], "running");
            assert_eq!(one["pid"], first.state()["pid"]);
            assert_eq!(one["bundle"], json!(first.bundle.directory));
            assert!(one["owner"].is_string() && rfc3339(one["created"].as_str().unwrap()), "{one}");
        }
        let table = table.ok().stdout;
        let header = table.lines().next().unwrap();
        assert!(!ours() || header.find("PID") == Some((second.len() + 3).max(12)), "{table}");
        let line: Vec<&str> = table.lines().find(|line| line.contains("created")).unwrap().split_whitespace().collect();
        assert_eq!((line[0], line[2], line[3], line[5]), (second.as_str(), "created", bundle, "root"));
    });
}

// ---------------------------------------------------------------------------------------------- log

#[test]
fn log_in_json_has_one_object_on_failure() {
    case(|| {
        let mut bundle = Bundle::new();
        // Something to warn of, too: podman takes the whole file for one object.
        bundle.args(&["nosuch"]).set("/process/capabilities/bounding/-", json!("CAP_BANANA"));
        let container = bundle.container();
        container.bundle.write();
        let log = container.bundle.directory.join("log.json");
        let call = container.call(["--log", log.to_str().unwrap(), "--log-format", "json", "create", &container.id]);
        let output = call.run().fails();
        let object: Value = serde_json::from_str(&text(&log)).unwrap_or_else(|error| panic!("{error}: {}", text(&log)));
        let mut keys: Vec<&String> = object.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["level", "msg", "time"]);
        assert_eq!(object["level"], "error");
        assert!(object["msg"].as_str().unwrap().contains("nosuch"), "{object}");
        assert!(rfc3339(object["time"].as_str().unwrap()), "{object}");
        assert!(output.stderr.contains("nosuch"), "stderr: {}", output.stderr);
    });
}

/// containerd has no other words for its user.
#[test]
fn log_has_errors_of_the_command_line() {
    case(|| {
        let container = Bundle::new().container();
        let log = container.bundle.directory.join("log.json");
        let calls: [(&[&str], &str); 4] = [
            (&["exec", "--nosuch", "x", "true"], "nosuch"),
            (&["nosuch", "x"], "No help topic for 'nosuch'"),
            (&["create", "x", "y"], ""),
            (&["-debug=false", "kill"], ""),
        ];
        for (words, expected) in calls {
            let _ = fs::remove_file(&log);
            let options = ["--log", log.to_str().unwrap(), "--log-format=json"];
            let output = container.call([&options, words].concat()).run();
            assert_eq!(output.code(), 1, "{output:?}");
            let object: Value = serde_json::from_str(&text(&log)).unwrap_or_else(|error| panic!("{error}: {words:?}"));
            let message = object["msg"].as_str().unwrap();
            assert!(object["level"] == "error" && message.contains(expected) && message.len() > 10, "{object}");
            assert!(output.stderr.contains(message.lines().next().unwrap()), "{output:?}");
        }
    });
}

#[test]
fn log_as_text() {
    case(|| {
        let container = Bundle::new().container();
        let log = container.bundle.directory.join("log");
        fs::write(&log, "before\n").unwrap();
        container.call(["--log", log.to_str().unwrap(), "state", &container.id]).run().fails();
        let written = text(&log);
        let lines: Vec<&str> = written.lines().collect();
        assert!(lines.len() == 2 && lines[0] == "before", "{written}");
        assert!(lines[1].starts_with("time=\"20") && lines[1].contains("level=error msg="), "{written}");
    });
}

#[test]
fn log_stays_empty_on_success() {
    case(|| {
        let container = Bundle::new().container();
        container.bundle.write();
        let log = container.bundle.directory.join("log");
        container.call(["--log", log.to_str().unwrap(), "--log-format", "json", "run", &container.id]).run().ok();
        assert_eq!(text(&log), "");
    });
}

/// Writes `process` into a pipe that is the standard input of `exec`.
fn exec_of_a_pipe(container: &Container, process: &Value) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    let call = container.call(["exec", "--process", "/proc/self/fd/0", &container.id]).stdin(reader).spawn();
    std::io::Write::write_all(&mut &writer, process.to_string().as_bytes()).unwrap();
    drop(writer);
    call.wait()
}

/// As runc's callers pass it by `<(...)`.
#[test]
fn exec_reads_the_process_from_a_pipe() {
    case(|| {
        let (container, _io) = Container::running();
        let mut process =
            json!({"args": ["echo", "a pipe"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
        assert_eq!(exec_of_a_pipe(&container, &process).ok().stdout, "a pipe\n");
        process["cwd"] = json!(1);
        let output = exec_of_a_pipe(&container, &process).fails();
        if ours() {
            let words = "process.cwd: expected path string, found 1 (process.json line 1)";
            assert!(output.stderr.contains(words), "{}", output.stderr);
        }
    });
}

/// In runc's format; what the lines say is our own, and runc's its own.
#[test]
fn debug_logs_the_steps() {
    case(|| {
        let container = Bundle::new().container();
        container.bundle.write();
        let log = container.bundle.directory.join("log");
        let output = container.call(["--debug", "--log", log.to_str().unwrap(), "run", &container.id]).run().ok();
        assert!(!output.stderr.contains("level="), "{}", output.stderr);
        let written = text(&log);
        let debug = |line: &&str| line.starts_with("time=\"20") && line.contains(" level=debug msg=\"");
        assert!(written.lines().filter(debug).count() > 5, "{written}");
        if ours() {
            for step in ["plan: process.args", "plan: mounts[0]: proc on ", "cgroup /sys", "is cloned", "is created"] {
                assert!(written.contains(step), "{step}: {written}");
            }
        }
        let output = container.call(["--debug", "run", &container.id]).run().ok();
        assert!(output.stderr.contains(" level=debug msg=\""), "{}", output.stderr);
    });
}

// ---------------------------------------------------------------------------------------------- kill

#[test]
fn kill_knows_signals_by_name_and_number() {
    case(|| {
        for (word, number) in
            [("KILL", 9), ("SIGKILL", 9), ("9", 9), ("TERM", 15), ("SIGHUP", 1), ("USR2", 12), ("10", 10), ("37", 37)]
        {
            kills(word, number);
        }
    });
}

#[test]
fn kill_knows_signals_in_lower_case() {
    case(|| {
        for (word, number) in [("sigterm", 15), ("term", 15), ("usr2", 12)] {
            kills(word, number);
        }
    });
}

#[test]
fn kill_knows_realtime_signals() {
    case(|| {
        for (word, number) in [("RTMIN+3", 37), ("SIGRTMIN+1", 35), ("rtmin", 34), ("SIGRTMAX", 64), ("RTMAX-2", 62)] {
            kills(word, number);
        }
    });
}

/// In the host's pid namespace every signal ends a program that does not handle it.
#[track_caller]
fn kills(word: &str, number: i32) {
    let mut bundle = Bundle::sh("echo ready; exec sleep 1000");
    bundle.no_namespace("pid");
    let container = bundle.container();
    let (call, mut io) = with_io(container.call_bundle("run", &[]));
    let running = call.spawn();
    assert_eq!(io.stdout.next(), "ready");
    container.command(&["kill"], &[word]).ok();
    assert_eq!(running.wait().code(), 128 + number, "{word}");
}

#[test]
fn kill_refuses_what_is_no_signal() {
    case(|| {
        let (container, _io) = Container::running();
        for word in ["BANANA", "SIGBANANA", "99", "1x", "RTMIN+99"] {
            container.command(&["kill"], &[word]).fails();
        }
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn pid_file_that_cannot_be_written_costs_no_file() {
    case(|| {
        let container = Bundle::new().container();
        // A directory cannot be replaced by a file.
        let (taken, other) = (container.bundle.directory.join("pf"), container.bundle.directory.join(".pf"));
        fs::create_dir(&taken).unwrap();
        fs::write(&other, "somebody's").unwrap();
        let output = container.call_bundle("create", &["--pid-file", taken.to_str().unwrap()]).run().fails();
        assert!(output.stderr.contains("pf"), "{output:?}");
        assert!(taken.exists());
        assert!(!ours() || text(&other) == "somebody's");
        container.nothing_left();
    });
}

#[test]
fn an_unknown_capability_is_a_warning() {
    case(|| {
        let mut bundle = Bundle::sh("true");
        bundle.set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_BANANA"]));
        let output = bundle.container().run().ok();
        assert!(output.stderr.contains("CAP_BANANA"), "{output:?}");
        assert!(!ours() || output.stderr.lines().all(|line| line.starts_with("warning: ")), "{output:?}");
    });
}
