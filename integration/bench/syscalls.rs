//! What a system call costs in a container under a profile like Docker's: Podman's, which Debian packages.
//!
//! The program that calls is machine code: it reads the clock, calls in a loop, reads the clock, writes both times.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::elf::elf;
use super::{Doing, Result, Row, Runtime, Work, say};

const PROFILE: &str = "/usr/share/containers/seccomp.json";
const SAMPLES: usize = 30;
const CALLS: u32 = 50_000;

/// Name, number on x86_64, first argument, what the profile says.
const TABLE: [(&str, u32, u64, &str); 4] = [
    ("getppid", 110, 0, "allowed"),
    ("personality", 135, 0xffff_ffff, "allowed with this argument"),
    ("acct", 163, 0, "denied"),
    ("call 500", 500, 0, "newer than the profile"),
];

/// Podman's default profile, for this machine; None where it is not installed.
pub(crate) fn profile() -> Result<Option<Value>> {
    let Ok(profile) = fs::read_to_string(PROFILE) else { return Ok(None) };
    Ok(Some(as_oci(&serde_json::from_str(&profile).doing(PROFILE)?)))
}

/// A table in Markdown; empty where the program does not run, or the profile is missing.
pub(crate) fn report(work: &Work, runtimes: &[Runtime]) -> Result<String> {
    let Some(profile) = profile()? else {
        say(&format!("bench: {PROFILE} is missing: system calls are not measured"));
        return Ok(String::new());
    };
    if !cfg!(target_arch = "x86_64") {
        return Ok(String::new());
    }
    let spec = fs::read_to_string(work.dir.join("config.json")).doing("config.json")?;
    let unfiltered: Value = serde_json::from_str(&spec).doing("config.json")?;
    let mut filtered = unfiltered.clone();
    let linux = filtered.pointer_mut("/linux").and_then(Value::as_object_mut).ok_or("spec: no linux")?;
    linux.insert("seccomp".to_owned(), profile);

    let mut columns: Vec<(&Runtime, &Value)> = runtimes.iter().map(|runtime| (runtime, &filtered)).collect();
    columns.extend(runtimes.first().map(|ours| (ours, &unfiltered)));
    let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name.as_str()).chain(["no filter"]).collect();
    let mut text = format!("\n| a system call | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (name, number, arg, verdict) in TABLE {
        let program = work.dir.join("rootfs/bin").join(number.to_string());
        fs::write(&program, elf(2, 62, &code(number, arg))).doing(program.display())?;
        fs::set_permissions(&program, Permissions::from_mode(0o755)).doing(program.display())?;
        let bundle = |(n, (_, spec)): (usize, &(&Runtime, &Value))| {
            work.bundle(&format!("calls-{n}"), spec, &[&format!("/bin/{number}")])
        };
        let bundles = columns.iter().enumerate().map(bundle).collect::<Result<Vec<_>>>()?;
        let mut samples = vec![Vec::new(); columns.len()];
        for round in 0..SAMPLES * columns.len() {
            let n = (round + round / columns.len()) % columns.len();
            if let (Some((runtime, _)), Some(bundle), Some(samples)) =
                (columns.get(n), bundles.get(n), samples.get_mut(n))
            {
                samples.push(nanoseconds(runtime, bundle)?);
            }
        }
        let row = Row { samples, ..Row::new(format!("`{name}`, {verdict}"), "ns", 0) };
        text += &format!("{}\n", row.render(false, &[]));
    }
    Ok(text
        + &format!(
            "\nUnder the profile of Debian's golang-github-containers-common, for a container without further capabilities: {SAMPLES} \
             containers each, interleaved, {CALLS} calls in each.\n"
        ))
}

/// How many system calls `run` makes, how many of them make a process or a thread, and how many execute a program.
pub(crate) fn count(work: &Work, runtime: &Runtime) -> Result<[u32; 3]> {
    let mut container = runtime.container("count");
    let summary = work.dir.join("strace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&summary)
        .arg(&runtime.path)
        .arg("--root")
        .arg(&runtime.root);
    command.args(["run", "--bundle"]).arg(&runtime.short).arg("count").stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().doing("strace")?;
    if !output.status.success() {
        return Err(format!("{}: strace: {}", runtime.name, String::from_utf8_lossy(&output.stderr).trim()));
    }
    container.gone = true;
    let mut counts = [0; 3];
    for line in fs::read_to_string(&summary).doing(summary.display())?.lines() {
        let mut words = line.split_whitespace();
        let (Some(Ok(calls)), Some(name)) = (words.next().map(str::parse::<u32>), words.next()) else { continue };
        let [all, processes, programs] = &mut counts;
        match name {
            "total" => *all = calls,
            "clone" | "clone3" | "fork" | "vfork" => *processes += calls,
            "execve" | "execveat" => *programs += calls,
            _ => {}
        }
    }
    Ok(counts)
}

/// Of one call, in a container of its own.
fn nanoseconds(runtime: &Runtime, bundle: &Path) -> Result<f64> {
    let mut container = runtime.container("calls");
    let mut command = runtime.command(&["run", "--bundle"]);
    let output = command.arg(bundle).arg("calls").stdin(Stdio::null()).output().doing(runtime.path.display())?;
    let words: Vec<i64> =
        output.stdout.chunks_exact(8).filter_map(|word| word.try_into().ok().map(i64::from_le_bytes)).collect();
    let ([begin, begin_nanos, end, end_nanos], true) = (words.as_slice(), output.status.success()) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}: {}", runtime.name, output.status, errors.trim()));
    };
    container.gone = true;
    let nanos = (end - begin) * 1_000_000_000 + end_nanos - begin_nanos;
    Ok(nanos as f64 / f64::from(CALLS))
}

fn code(number: u32, arg: u64) -> Vec<u8> {
    // mov eax, clock_gettime; mov edi, CLOCK_MONOTONIC; mov esi, 0x400800 + offset; syscall
    let clock = |offset: u8| [0xb8, 0xe4, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe, offset, 0x08, 0x40, 0, 0x0f, 0x05];
    let count = CALLS.to_le_bytes();
    [
        &clock(0)[..],
        &[0xbb],
        &count, // mov ebx, CALLS
        &[0xb8],
        &number.to_le_bytes(), // mov eax, number
        &[0x48, 0xbf],
        &arg.to_le_bytes(), // mov rdi, arg
        &[
            0x0f, 0x05, // syscall
            0xff, 0xcb, // dec ebx
            0x75, 0xeb, // jnz -21
        ],
        &clock(16),
        &[
            0xb8, 1, 0, 0, 0, // mov eax, write
            0xbf, 1, 0, 0, 0, // mov edi, 1
            0xbe, 0, 0x08, 0x40, 0, // mov esi, 0x400800
            0xba, 32, 0, 0, 0, // mov edx, 32
            0x0f, 0x05, // syscall
            0xb8, 0xe7, 0, 0, 0, // mov eax, exit_group
            0x31, 0xff, // xor edi, edi
            0x0f, 0x05, // syscall
        ],
    ]
    .concat()
}

/// The profile is one of Podman's form: which of its rules hold depends on the machine and on capabilities.
fn as_oci(profile: &Value) -> Value {
    let list = |rule: &Value, key: &str| rule.pointer(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let holds = |rule: &&Value| {
        let arches = list(rule, "/includes/arches");
        list(rule, "/includes/caps").is_empty() && (arches.is_empty() || arches.contains(&json!("amd64")))
    };
    let rule = |rule: &Value| {
        let mut rule = rule.clone();
        if let Some(rule) = rule.as_object_mut() {
            rule.retain(|key, value| {
                ["names", "action", "args", "errnoRet"].contains(&key.as_str()) && !value.is_null()
            });
        }
        rule
    };
    let rules: Vec<Value> =
        profile.get("syscalls").and_then(Value::as_array).into_iter().flatten().filter(holds).map(rule).collect();
    json!({
        "defaultAction": profile.get("defaultAction"), "defaultErrnoRet": profile.get("defaultErrnoRet"),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules,
    })
}
