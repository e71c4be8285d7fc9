//! linux.seccomp as a process in a container feels it.

use std::fs;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::program;
use crate::support::{Bundle, Container, WAITING, case, inside, ours, write_program};

/// What `run` returns for a process that SIGSYS has killed.
const SIGSYS: i32 = 128 + 31;
/// A call that always succeeds, by its name and numbers on x86_64 and i386.
const CALL: (&str, u8, u32) = ("getppid", 110, 64);

/// A container of a program, which is `/bin/program`.
fn container(program: &[u8], seccomp: Value) -> Container {
    let mut bundle = Bundle::new();
    let path = bundle.rootfs().join("bin/program");
    write_program(&path, program);
    bundle.args(&["program"]).set("/linux/seccomp", seccomp);
    bundle.container()
}

/// How the program ends under a profile.
#[track_caller]
fn status(program: &[u8], seccomp: Value) -> i32 {
    container(program, seccomp).run().code()
}

/// A profile that allows everything but for one rule.
fn rule(action: &str, rule: &Value) -> Value {
    let mut rule = rule.clone();
    rule["action"] = json!(action);
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

#[test]
fn actions_are_felt() {
    case(|| {
        let calls = program::x86_64(CALL.1.into(), &[]);
        for (action, errno, wanted) in [
            ("SCMP_ACT_KILL", None, SIGSYS),
            ("SCMP_ACT_KILL_THREAD", None, SIGSYS),
            ("SCMP_ACT_KILL_PROCESS", None, SIGSYS),
            ("SCMP_ACT_TRAP", None, SIGSYS),
            ("SCMP_ACT_ERRNO", None, Errno::EPERM as i32),
            ("SCMP_ACT_ERRNO", Some(Errno::EXDEV as i32), Errno::EXDEV as i32),
            ("SCMP_ACT_ERRNO", Some(0), 0),
            // There is no tracer.
            ("SCMP_ACT_TRACE", None, Errno::ENOSYS as i32),
            ("SCMP_ACT_TRACE", Some(7), Errno::ENOSYS as i32),
            ("SCMP_ACT_LOG", None, 0),
            ("SCMP_ACT_ALLOW", None, 0),
        ] {
            let mut one = json!({"names": [CALL.0]});
            if let Some(errno) = errno {
                one["errnoRet"] = json!(errno);
            }
            assert_eq!(status(&calls, rule(action, &one)), wanted, "{action} {errno:?}");
        }
    });
}

/// The thread that makes the call, or all of them.
#[test]
fn who_is_killed() {
    case(|| {
        let threads = program::threads(CALL.1);
        for (action, wanted) in [
            ("SCMP_ACT_ALLOW", 7),
            ("SCMP_ACT_KILL", 7),
            ("SCMP_ACT_KILL_THREAD", 7),
            ("SCMP_ACT_KILL_PROCESS", SIGSYS),
        ] {
            assert_eq!(status(&threads, rule(action, &json!({"names": [CALL.0]}))), wanted, "{action}");
        }
    });
}

#[test]
fn a_trap_can_be_handled() {
    case(|| {
        for (action, wanted) in [("SCMP_ACT_TRAP", "trapped\nalive\n"), ("SCMP_ACT_ALLOW", "alive\n")] {
            // umask is built into the shell.
            let printed = inside("trap 'echo trapped' SYS; umask 077; echo alive", |bundle| {
                bundle.set("/linux/seccomp", rule(action, &json!({"names": ["umask"]})));
            });
            assert_eq!(printed, wanted, "{action}");
        }
    });
}

#[test]
fn calls_of_i386_have_their_own_numbers_and_are_killed_where_it_is_not_listed() {
    case(|| {
        let profile = |architectures: &[&str]| {
            let mut profile = rule("SCMP_ACT_ERRNO", &json!({"names": [CALL.0, "accept"], "errnoRet": 77}));
            profile["architectures"] = json!(architectures);
            profile
        };
        let both = profile(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        let calls = |number| program::i386(number, &[]);
        assert_eq!(status(&calls(CALL.2), both.clone()), 77);
        // getuid, whose number on x86_64 is that of another call.
        assert_eq!(status(&calls(24), both.clone()), 0);
        // The number that is getppid on x86_64 is iopl here, which is not permitted, or not there.
        assert_ne!(status(&calls(CALL.1.into()), both.clone()), 77);
        // accept, which i386 has behind socketcall only; and bind, with a null pointer.
        assert_eq!(status(&program::i386(102, &[5, 0]), both.clone()), 77);
        assert_eq!(status(&program::i386(102, &[2, 0]), both), Errno::EFAULT as i32);
        assert_eq!(status(&calls(24), profile(&["SCMP_ARCH_X86_64"])), SIGSYS);
        assert_eq!(status(&calls(24), profile(&[])), SIGSYS);
    });
}

#[test]
fn calls_of_x32_are_decided_where_it_is_listed_and_else_killed() {
    case(|| {
        let profile = |architectures: &[&str]| {
            let mut profile = rule("SCMP_ACT_ERRNO", &json!({"names": [CALL.0], "errnoRet": 77}));
            profile["architectures"] = json!(architectures);
            profile
        };
        let both = profile(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]);
        let calls = |number| program::x86_64(number | program::X32, &[]);
        assert_eq!(status(&calls(CALL.1.into()), both.clone()), 77);
        // getuid: most kernels have no x32.
        let allowed = status(&calls(102), both);
        assert!([0, Errno::ENOSYS as i32].contains(&allowed), "{allowed}");
        assert_eq!(status(&calls(102), profile(&["SCMP_ARCH_X86_64"])), SIGSYS);
    });
}

/// Calls that a static program and the runtimes themselves make, all of them older than statx.
const OLD: &str = "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask \
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap mincore madvise dup dup2 \
    nanosleep getpid socket connect sendto recvfrom sendmsg recvmsg fork vfork execve exit wait4 kill uname fcntl fsync \
    getcwd chdir fchdir readlink chmod fchmod chown fchown umask getrlimit getuid getgid setuid setgid geteuid getegid \
    getppid setsid setgroups getgroups setresuid setresgid sigaltstack statfs fstatfs prctl arch_prctl setrlimit gettid \
    futex sched_getaffinity set_tid_address getdents64 capget capset clock_gettime exit_group epoll_ctl tgkill openat \
    newfstatat readlinkat faccessat set_robust_list epoll_pwait pipe2 epoll_create1 dup3 prlimit64 getrandom execveat";

/// As the profiles of engines: a list of what is allowed, conditions on personality and clone, EPERM for the rest.
fn allowing() -> Value {
    let personality = |value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let namespaces = json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]});
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": OLD.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"},
        personality(0), personality(8), personality(0xffff_ffff), namespaces]})
}

#[test]
fn arguments_decide_and_what_is_newer_than_the_profile_is_not_there() {
    case(|| {
        let (eperm, einval, enosys) = (Errno::EPERM as i32, Errno::EINVAL as i32, Errno::ENOSYS as i32);
        for (name, number, args, wanted) in [
            ("personality", 135, &[0xffff_ffff][..], 0),
            ("personality", 135, &[8], 0),
            ("personality", 135, &[9], eperm),
            ("personality", 135, &[0x0100_0000_0008], eperm),
            // CLONE_NEWUSER; and CLONE_SIGHAND without CLONE_VM, for which the kernel has its own word.
            ("clone", 56, &[0x1000_0000], eperm),
            ("clone", 56, &[0x800], einval),
            ("getppid", 110, &[], 0),
            ("syslog", 103, &[10], eperm),
            ("mkdir", 83, &[], eperm),
            ("statx", 332, &[], enosys),
            ("mseal", 462, &[], enosys),
        ] {
            let container = container(&program::x86_64(number, args), allowing());
            let output = container.run();
            assert_eq!(output.code(), wanted, "{name} {args:x?} {output:?}");
            if ours() {
                let args: Vec<String> = args.iter().map(u64::to_string).collect();
                let number = number.to_string();
                let mut words = vec!["seccomp", "explain", "--bundle", ".", "--", &number];
                words.extend(args.iter().map(String::as_str));
                let said = container.call(words).run().ok().stdout;
                let outcome = match wanted {
                    _ if wanted == eperm => ": SCMP_ACT_ERRNO (EPERM): linux.seccomp.defaultAction\n",
                    _ if wanted == enosys => ": SCMP_ACT_ERRNO (ENOSYS): newer than",
                    _ => ": SCMP_ACT_ALLOW: linux.seccomp.syscalls[",
                };
                assert!(said.starts_with(&format!("{name}, {number} of")) && said.contains(outcome), "{said}");
            }
        }
    });
}

#[test]
fn a_bundle_is_asked_without_a_container() {
    case(|| {
        let container = container(&[], allowing());
        let bare = Bundle::new().container();
        container.bundle.write();
        bare.bundle.write();
        let ask = |container: &Container, words: &[&str]| container.call([&["seccomp"], words].concat());
        assert_eq!(
            ask(&bare, &["explain", "read"]).run().ok().stdout,
            "linux.seccomp is not set: no system call is filtered\n"
        );
        assert_eq!(ask(&bare, &["dump"]).run().fails().stderr, "linux.seccomp: is not set: there is no filter\n");
        let error = ask(&container, &["explain", "-b", ".", "nosuchcall", "-1"]).run().fails().stderr;
        assert!(error.starts_with("x86_64 has no system call \"nosuchcall\"\nhint: "), "{error}");
        let instructions = ask(&container, &["dump"]).run().ok().stdout.lines().count();
        let raw = container.bundle.directory.join("raw");
        ask(&container, &["dump", "--format", "raw"]).stdout(fs::File::create(&raw).unwrap()).run().ok();
        assert_eq!(fs::metadata(&raw).unwrap().len(), 8 * instructions as u64);
        assert!(instructions > 50);
        container.nothing_left();
    });
}

#[test]
fn exec_is_filtered_as_init_is() {
    case(|| {
        let mut bundle = Bundle::sh(WAITING);
        let path = bundle.rootfs().join("bin/program");
        write_program(&path, program::x86_64(CALL.1.into(), &[]));
        bundle.set("/linux/seccomp", rule("SCMP_ACT_ERRNO", &json!({"names": [CALL.0], "errnoRet": 77})));
        let container = bundle.container();
        let mut io = container.create_io();
        container.start().ok();
        io.stdout.until("ready\n");
        assert_eq!(container.call(["exec", &container.id, "program"]).run().code(), 77);
        io.close();
    });
}

/// Without no_new_privs the filter is loaded while there is CAP_SYS_ADMIN, and so before the ids are changed.
#[test]
fn a_filter_is_in_force_for_every_user() {
    case(|| {
        for (no_new_privileges, user) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
            let printed = inside("grep Seccomp: /proc/self/status; mkdir /tmp/dir 2>&1; sync; echo alive", |bundle| {
                let one = json!({"names": ["mkdir", "mkdirat"], "errnoRet": 28});
                bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
                bundle.set("/process/user", json!({"uid": user, "gid": user}));
                bundle.set("/linux/seccomp", rule("SCMP_ACT_ERRNO", &one));
            });
            let compact = printed.replace('\t', " ");
            assert!(compact.contains("Seccomp: 2") && compact.contains("No space left"), "{printed}");
            assert!(compact.ends_with("alive\n"), "{printed}");
        }
    });
}

#[test]
fn a_profile_without_newer_calls() {
    case(|| {
        // Without no_new_privs the filter is loaded while the runtime still works in the container.
        for no_new_privileges in [true, false] {
            let printed = inside("grep Seccomp: /proc/self/status", |bundle| {
                let names = ["openat2", "close_range", "faccessat2", "clone3", "execveat", "statx", "getcwd"];
                bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
                bundle.set("/linux/seccomp", rule("SCMP_ACT_ERRNO", &json!({"names": names})));
            });
            assert_eq!(printed.replace('\t', " "), "Seccomp: 2\n", "noNewPrivileges: {no_new_privileges}");
        }
    });
}

#[test]
fn flags_are_taken() {
    case(|| {
        let all =
            ["LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV"].map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
        for flags in all.chunks(1).chain([&all[..], &[]]) {
            let mut profile = rule("SCMP_ACT_ERRNO", &json!({"names": [CALL.0], "errnoRet": 77}));
            profile["flags"] = json!(flags);
            assert_eq!(status(&program::x86_64(CALL.1.into(), &[]), profile), 77, "{flags:?}");
        }
    });
}

#[test]
fn names_that_no_kernel_has_are_skipped_and_logged() {
    case(|| {
        let profile = rule("SCMP_ACT_ERRNO", &json!({"names": ["nosuchcall", CALL.0], "errnoRet": 77}));
        let container = container(&program::x86_64(CALL.1.into(), &[]), profile);
        container.bundle.write();
        let output = container.call(["--debug", "run", &container.id]).run();
        assert_eq!(output.code(), 77, "{output:?}");
        let logged =
            |line: &str| ["linux.seccomp.syscalls[0].names", "nosuchcall"].iter().all(|word| line.contains(word));
        assert!(!ours() || output.stderr.lines().any(logged), "{output:?}");
    });
}
