//! libseccomp, asked for what runc asks it for (libcontainer/seccomp), and runc's ENOSYS rule before its program.

use crate::cbpf::{Data, NUMBER, Program};
use crate::targets::Target;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompOperator as Op, LinuxSyscall};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};

/// `SCMP_FLTATR_CTL_TSYNC`, which libseccomp-golang sets for every filter.
const CTL_TSYNC: c_int = 4;
/// `SCMP_FLTATR_CTL_NNP`
const CTL_NNP: c_int = 3;
/// `SCMP_FLTATR_CTL_OPTIMIZE`
const CTL_OPTIMIZE: c_int = 8;
/// `SCMP_ARCH_NATIVE`
const NATIVE: u32 = 0;
/// `__NR_SCMP_ERROR`
const ERROR: c_int = -1;
/// How an error begins that is the end of libseccomp's process.
pub const DIED: &str = "ended by signal";
/// `BPF_RET`
const RETURN: u16 = 6;
/// Above so many names runc asks for a binary tree.
pub const MANY: usize = 32;
/// `SECCOMP_RET_ERRNO` with ENOSYS.
pub const ENOSYS: u32 = 0x0005_0026;
/// What the kernel of s390x shows for a large number that it does not know; runc's rule answers it with ENOSYS.
const S390_SETUP: u32 = 0;

/// `struct scmp_arg_cmp`
#[repr(C)]
struct ArgCmp {
    arg: c_uint,
    op: c_int,
    datum_a: u64,
    datum_b: u64,
}

unsafe extern "C" {
    fn seccomp_api_set(level: c_uint) -> c_int;
    fn seccomp_init(action: u32) -> *mut c_void;
    fn seccomp_release(context: *mut c_void);
    fn seccomp_arch_add(context: *mut c_void, token: u32) -> c_int;
    fn seccomp_arch_remove(context: *mut c_void, token: u32) -> c_int;
    fn seccomp_arch_exist(context: *const c_void, token: u32) -> c_int;
    fn seccomp_attr_set(context: *mut c_void, attribute: c_int, value: u32) -> c_int;
    fn seccomp_rule_add_array(
        context: *mut c_void,
        action: u32,
        call: c_int,
        count: c_uint,
        conditions: *const ArgCmp,
    ) -> c_int;
    fn seccomp_export_bpf(context: *const c_void, fd: c_int) -> c_int;
    fn seccomp_syscall_resolve_name(name: *const c_char) -> c_int;
    fn seccomp_syscall_resolve_name_arch(token: u32, name: *const c_char) -> c_int;
    fn seccomp_syscall_resolve_num_arch(token: u32, number: c_int) -> *mut c_char;
}

/// The number of a call, or its pseudo number (below -1) where the architecture has no such call or multiplexes it.
/// `None`: libseccomp does not know the name.
pub fn number(token: u32, name: &str) -> Option<i32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends with NUL.
    let number = unsafe { seccomp_syscall_resolve_name_arch(token, name.as_ptr()) };
    (number != ERROR).then_some(number)
}

/// The name of a number, or of a pseudo number.
pub fn name(token: u32, number: i32) -> Option<String> {
    // SAFETY: the result is null or a string from malloc, which is ours.
    unsafe {
        let name = seccomp_syscall_resolve_num_arch(token, number);
        if name.is_null() {
            return None;
        }
        let text = CStr::from_ptr(name).to_string_lossy().into_owned();
        libc::free(name.cast());
        Some(text)
    }
}

/// Whether the number of a name on this machine leads back to the name.
pub fn is_translated(called: &str) -> bool {
    native(called).and_then(|number| name(NATIVE, number)).as_deref() == Some(called)
}

fn native(name: &str) -> Option<i32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends with NUL.
    let number = unsafe { seccomp_syscall_resolve_name(name.as_ptr()) };
    (number != ERROR).then_some(number)
}

/// `SCMP_ACT_*`, whose values are those of `SECCOMP_RET_*`.
pub fn action(action: Action, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1) & 0xffff;
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => 0x0005_0000 | errno,
        Action::ScmpActTrace => 0x7ff0_0000 | errno,
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}

fn conditions(call: &LinuxSyscall) -> Vec<ArgCmp> {
    let condition = |arg: &oci_spec::runtime::LinuxSeccompArg| ArgCmp {
        arg: arg.index() as c_uint,
        op: match arg.op() {
            Op::ScmpCmpNe => 1,
            Op::ScmpCmpLt => 2,
            Op::ScmpCmpLe => 3,
            Op::ScmpCmpEq => 4,
            Op::ScmpCmpGe => 5,
            Op::ScmpCmpGt => 6,
            Op::ScmpCmpMaskedEq => 7,
        },
        datum_a: arg.value(),
        datum_b: arg.value_two().unwrap_or(0),
    };
    call.args().iter().flatten().map(condition).collect()
}

/// A filter of libseccomp.
pub struct Filter(*mut c_void);

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: made by seccomp_init, released once.
        unsafe { seccomp_release(self.0) }
    }
}

fn check(result: c_int, what: impl Fn() -> String) -> Result<(), String> {
    if result < 0 { Err(format!("{}: {}", what(), nix::errno::Errno::from_raw(-result))) } else { Ok(()) }
}

impl Filter {
    /// All that runc calls before it exports the program.
    pub fn new(target: &Target, profile: &LinuxSeccomp) -> Result<Self, String> {
        Self::with(target, profile, names(profile).count() > MANY)
    }

    /// The same with or without a binary tree.
    pub fn with(target: &Target, profile: &LinuxSeccomp, has_tree: bool) -> Result<Self, String> {
        let default = action(profile.default_action(), profile.default_errno_ret());
        // SAFETY: the context is valid from here to the drop, the arrays are as long as said.
        unsafe {
            // The level of a kernel that has everything, whichever kernel this is.
            seccomp_api_set(6);
            let context = seccomp_init(default);
            if context.is_null() {
                return Err("seccomp_init".to_owned());
            }
            let filter = Self(context);
            check(seccomp_attr_set(context, CTL_TSYNC, 1), || "tsync".to_owned())?;
            if seccomp_arch_exist(context, target.own()) != 0 {
                check(seccomp_arch_remove(context, 0), || "remove the native architecture".to_owned())?;
                check(seccomp_arch_add(context, target.own()), || format!("add {}", target.name))?;
            }
            for abi in target.listed(profile) {
                let result = seccomp_arch_add(context, abi.token);
                check(if result == -libc::EEXIST { 0 } else { result }, || format!("add {}", abi.name))?;
            }
            if has_tree {
                check(seccomp_attr_set(context, CTL_OPTIMIZE, 2), || "optimize".to_owned())?;
            }
            check(seccomp_attr_set(context, CTL_NNP, 0), || "nnp".to_owned())?;
            for (call, name) in names(profile) {
                let action = action(call.action(), call.errno_ret());
                if action == default {
                    continue;
                }
                let Some(number) = native(name) else { continue };
                let conditions = conditions(call);
                let twice = (0..6).any(|index| conditions.iter().filter(|one| one.arg == index).count() > 1);
                let rules = conditions.chunks(if twice { 1 } else { conditions.len().max(1) });
                let rules: Vec<&[ArgCmp]> = if conditions.is_empty() { vec![&[]] } else { rules.collect() };
                for rule in rules {
                    let count = rule.len() as c_uint;
                    let result = seccomp_rule_add_array(context, action, number, count, rule.as_ptr());
                    check(result, || format!("rule for {name}"))?;
                }
            }
            Ok(filter)
        }
    }

    /// The program, into a file.
    pub fn export(&self, file: &File) -> Result<(), String> {
        // SAFETY: the context and the descriptor are valid.
        check(unsafe { seccomp_export_bpf(self.0, file.as_raw_fd()) }, || "export".to_owned())
    }

    /// The program as the kernel of this machine takes it.
    pub fn export_raw(&self) -> Result<Vec<seccompiler::sock_filter>, String> {
        let mut file = memfd()?;
        self.export(&file)?;
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
        let decode = |insn: &[u8]| seccompiler::sock_filter {
            code: u16::from_ne_bytes([insn[0], insn[1]]),
            jt: insn[2],
            jf: insn[3],
            k: u32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]),
        };
        Ok(bytes.chunks_exact(8).map(decode).collect())
    }
}

/// The program as libseccomp makes it, in a process of its own: some rules that overlap send libseccomp 2.5.4 into a loop
/// without end, and others may break its heap.
fn compile(target: &Target, profile: &LinuxSeccomp) -> Result<Program, String> {
    let mut file = memfd()?;
    // SAFETY: the child calls nothing of other threads and leaves by _exit.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            let second = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
            libc::setrlimit(libc::RLIMIT_CPU, &second);
            let result = Filter::new(target, profile).and_then(|filter| filter.export(&file));
            let failed = result.map_err(|error| file.write_all(error.as_bytes())).is_err();
            libc::_exit(failed.into());
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        status
    };
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    if libc::WIFSIGNALED(status) {
        return Err(format!("{DIED} {}", libc::WTERMSIG(status)));
    }
    // A fuzzer's handler may have made the signal an exit.
    if bytes.is_empty() {
        return Err(format!("{DIED}: no program"));
    }
    if libc::WEXITSTATUS(status) != 0 {
        return Err(String::from_utf8_lossy(&bytes).into_owned());
    }
    let decode = |insn: &[u8]| {
        let code = [insn[0], insn[1]];
        let k = [insn[4], insn[5], insn[6], insn[7]];
        if target.is_big_endian {
            let (code, k) = (u16::from_be_bytes(code), u32::from_be_bytes(k));
            // libseccomp 2.5.4 leaves actions that it repeats for far jumps in the byte order of this machine.
            let k = if code == RETURN && !is_action(k) { k.swap_bytes() } else { k };
            (code, insn[2], insn[3], k)
        } else {
            (u16::from_le_bytes(code), insn[2], insn[3], u32::from_le_bytes(k))
        }
    };
    Ok(Program::new(bytes.chunks_exact(8).map(decode)))
}

fn is_action(k: u32) -> bool {
    matches!(k, 0 | 0x8000_0000 | 0x0003_0000 | 0x7ffc_0000 | 0x7fc0_0000 | 0x7fff_0000)
        || matches!(k >> 16, 0x0005 | 0x7ff0)
}

fn memfd() -> Result<File, String> {
    // SAFETY: a string that ends with NUL; the result is a new descriptor.
    unsafe {
        let fd = libc::memfd_create(c"bpf".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

/// As in runc's configuration: one entry for each name.
fn names(profile: &LinuxSeccomp) -> impl Iterator<Item = (&LinuxSyscall, &String)> {
    profile.syscalls().iter().flatten().flat_map(|call| call.names().iter().map(move |name| (call, name)))
}

/// What runc loads: libseccomp's program behind its own rule for calls that are newer than the profile.
pub struct Theirs {
    /// libseccomp's.
    pub program: Program,
    /// For each ABI with a name in the profile: `AUDIT_ARCH_*`, whether it is x32, the largest number.
    newest: Vec<(u32, bool, u32)>,
    setup_is_enosys: bool,
}

impl Theirs {
    /// Compiles a profile as runc does.
    pub fn new(target: &Target, profile: &LinuxSeccomp) -> Result<Self, String> {
        let program = compile(target, profile)?;
        let permissive =
            matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
        let mut newest = Vec::new();
        for abi in target.abis(profile).into_iter().filter(|_| !permissive) {
            let largest = names(profile).filter_map(|(_, name)| number(abi.token, name)).max().unwrap_or(0);
            if let Ok(largest) = u32::try_from(largest)
                && largest != 0
            {
                newest.push((abi.audit_arch, abi.is_x32(), largest));
            }
        }
        Ok(Self { program, newest, setup_is_enosys: target.name == "s390x" })
    }

    /// What runc's rule alone says.
    pub fn is_newer(&self, arch: u32, number: u32) -> bool {
        let both = self.newest.iter().filter(|(one, ..)| *one == arch).count() > 1;
        let x86_64 = arch == crate::targets::AUDIT_ARCH_X86_64;
        self.newest.iter().any(|(one, x32, largest)| {
            let mode = !x86_64 || (number & crate::targets::X32_BIT != 0) == *x32;
            let setup = self.setup_is_enosys && !both && number == S390_SETUP;
            *one == arch && mode && (number > *largest || setup)
        })
    }

    /// The decision, and which words were read.
    pub fn run(&self, data: &Data) -> (u32, u16) {
        if self.is_newer(data[1], data[0]) { (ENOSYS, NUMBER) } else { self.program.run(data) }
    }
}
