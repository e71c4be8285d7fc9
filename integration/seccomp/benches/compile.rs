//! How long Docker's default profile takes: compiling it, and seccomp(2) with the result, by ours, libseccomp and the
//! seccompiler crate in turns, so that whatever else the machine does meets all of them. `make seccomp-bench` prints the
//! table; nothing passes or fails.
//!
//! seccompiler has one action beside the default and one architecture: it gets the rules of x86_64 that allow, which is
//! less than the others do. libseccomp is measured with the binary tree that runc asks for, and without, as crun has it.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op};
use seccomp_equal::targets::{self, Target};
use seccomp_equal::{libseccomp, ours_raw, profiles};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Turns, of which each one's median counts.
const TURNS: usize = 201;

type Compile<'a> = Box<dyn Fn() -> Vec<sock_filter> + 'a>;

fn main() {
    let targets = targets::all();
    let target = targets.iter().find(|target| target.name == std::env::consts::ARCH).expect("a known machine");
    let (name, profile) = profiles::engines(target).swap_remove(0);
    let runc = |optimize: bool| {
        libseccomp::Filter::with(target, &profile, optimize).and_then(|filter| filter.export_raw()).expect("libseccomp")
    };
    let mut candidates: Vec<(&str, Compile<'_>)> = vec![
        ("ours", Box::new(|| ours_raw(target, &profile).expect("ours"))),
        ("libseccomp, tree (runc)", Box::new(move || runc(true))),
        ("libseccomp, list (crun)", Box::new(move || runc(false))),
    ];
    if target.name == "x86_64" {
        candidates.push(("seccompiler", Box::new(|| by_seccompiler(target, &profile))));
    }
    let programs: Vec<_> = candidates.iter().map(|(_, compile)| compile()).collect();
    let mut times = vec![(Vec::new(), Vec::new()); candidates.len()];
    for _ in 0..TURNS {
        for (i, (_, compile)) in candidates.iter().enumerate() {
            let start = Instant::now();
            std::hint::black_box(compile());
            times[i].0.push(start.elapsed());
            times[i].1.push(load(&programs[i]));
        }
    }
    let figures: Vec<_> = times.iter().map(|(compile, load)| (median(compile), median(load))).collect();
    println!("{name}; medians of {TURNS} turns");
    println!("| | instructions | compile | times ours | seccomp(2) | times ours |\n|---|---|---|---|---|---|");
    for (((who, _), program), (compile, load)) in candidates.iter().zip(&programs).zip(&figures) {
        let ratio = |time: &Duration, ours: &Duration| time.as_secs_f64() / ours.as_secs_f64();
        println!(
            "| {who} | {} | {:.3} ms | {:.1} | {:.3} ms | {:.1} |",
            program.len(),
            compile.as_secs_f64() * 1e3,
            ratio(compile, &figures[0].0),
            load.as_secs_f64() * 1e3,
            ratio(load, &figures[0].1),
        );
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// seccomp(2) in a child, which measures itself: the filter ends with it. Its default action must not be met before, so
/// the child ends by exit_group(2), which every profile allows.
fn load(program: &[sock_filter]) -> Duration {
    let mut pipe = [0; 2];
    // SAFETY: the child uses its own stack and the program, which outlives the call, and leaves by _exit.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let child = libc::fork();
        if child == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
            let start = Instant::now();
            let result = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter);
            let nanos = if result == 0 { start.elapsed().as_nanos() as u64 } else { 0 };
            libc::write(pipe[1], (&raw const nanos).cast(), 8);
            libc::_exit(0);
        }
        libc::close(pipe[1]);
        let mut nanos = 0u64;
        assert_eq!(libc::read(pipe[0], (&raw mut nanos).cast(), 8), 8);
        libc::close(pipe[0]);
        libc::waitpid(child, std::ptr::null_mut(), 0);
        assert_ne!(nanos, 0, "seccomp(2) failed");
        Duration::from_nanos(nanos)
    }
}

fn by_seccompiler(target: &Target, profile: &LinuxSeccomp) -> BpfProgram {
    let abi = &target.every_abi()[0];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in profile.syscalls().iter().flatten().filter(|call| call.action() == Action::ScmpActAllow) {
        let conditions: Vec<SeccompCondition> = call.args().iter().flatten().map(condition).collect();
        for number in call.names().iter().filter_map(|name| abi.number(name)) {
            let rules = rules.entry(number.into()).or_default();
            if !conditions.is_empty() {
                rules.push(SeccompRule::new(conditions.clone()).expect("a rule"));
            }
        }
    }
    let denied = SeccompAction::Errno(1);
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, TargetArch::x86_64).expect("a filter");
    filter.try_into().expect("a program")
}

fn condition(arg: &LinuxSeccompArg) -> SeccompCondition {
    let (op, value) = match arg.op() {
        Op::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        Op::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        Op::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        Op::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        Op::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        Op::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        Op::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0)),
    };
    SeccompCondition::new(arg.index() as u8, Len::Qword, op, value).expect("a condition")
}
