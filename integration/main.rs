//! The integration suite: the real runtime on the real kernel, as root.
//!
//! `RUNTIME=/usr/bin/runc` runs the same tests against another runtime: what it does otherwise stands, with the sentence
//! that decides, in `differences.rs`. Nothing here is looked up at the path where it was compiled, so the binary also runs
//! alone in a guest. The environment:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `RUNTIME` | the runtime under test | the binary built beside this one |
//! | `BUSYBOX` | a static busybox, of which the root file systems are made | `/bin/busybox` |
//! | `TMPDIR` | where bundles are made | `/tmp` |
//! | `RUNTIME_TEST_SCALE` | how often the long loops go round | 100 |
//! | `RUNTIME_TEST_DEADLINE` | seconds that one call may take | 30 |
//! | `RUNTIME_TEST_SYSTEMD` | set: all commands get `--systemd-cgroup`, and cgroupsPath is one for systemd | not set |
//!
//! Lines on stderr begin with `SKIPPED` (the host lacks something: see skips.txt), `DIFFERS` (a known difference of
//! another runtime), `PASSES` (a known difference that was not seen) or `RACES` (how far containers came in a race).
#![deny(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test that meets the unexpected has to stop with a message, and a panic is that"
)]

mod callers;
mod cgroups;
mod checkpoint;
mod cli;
#[cfg(target_arch = "x86_64")]
mod crash;
mod cves;
mod damage;
mod diagnosis;
mod differences;
mod errors;
mod events;
mod exec;
mod existing;
mod features;
mod hooks;
mod hostile;
mod idmap;
mod inside;
mod lifecycle;
mod load;
mod lsm;
mod matrix;
mod mounts;
mod namespaces;
mod nested;
mod netdevices;
mod notify;
mod parallel;
mod pause;
#[cfg(target_arch = "x86_64")]
mod program;
mod ps;
mod required;
mod rootless;
mod run;
mod scheduling;
#[cfg(target_arch = "x86_64")]
mod seccomp;
mod seccomp_notify;
mod spec;
mod support;
mod systemd;
mod timeout;
mod tty;
mod update;
mod user_session;
