//! Why a program cannot be executed, beyond what execve(2) says. Runs in: child, in the container's root.
//!
//! Looked at before the user's identity and the filter are taken on, which may forbid to look.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};

use crate::host;
use crate::plan::ProcessPlan;
use crate::sync::{Cause, Detail, Fault};
use crate::sys::{Errno, Result};

/// What would go wrong with one of the candidates.
pub(super) struct Diagnosis {
    /// The candidate: the first that is a file.
    pub(super) candidate: usize,
    cause: Cause,
    /// What execve says of it.
    errno: Errno,
    /// The interpreter, the loader, the machine.
    text: Vec<u8>,
}

impl Diagnosis {
    /// Whether it fails whatever else comes: a program of another machine may have an interpreter in binfmt_misc.
    pub(super) fn is_certain(&self) -> bool {
        self.cause != Cause::Format && self.cause != Cause::Machine
    }

    /// A fault of this errno, explained.
    pub(super) fn explain(&self, fault: Fault, path: &CStr) -> Fault {
        if fault.errno != self.errno.raw_os_error() {
            return fault;
        }
        fault.sub(self.cause as usize).detail(Detail::new(&[path.to_bytes(), b"\0", &self.text].concat()))
    }

    /// The fault itself.
    pub(super) fn errno(&self) -> Errno {
        self.errno
    }
}

/// Looks at the program that will be executed.
pub(super) fn diagnose(process: &ProcessPlan, cwd: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Option<Diagnosis> {
    let mut files = process.candidates.iter().enumerate().filter_map(|(index, path)| Some((index, open(cwd, path)?)));
    let (candidate, file) = files.next()?;
    let file = host::reopen(proc, file, OFlags::RDONLY).ok()?;
    let (cause, errno, text) = examine(&file, cwd)?;
    Some(Diagnosis { candidate, cause, errno, text })
}

/// A regular file, not opened yet.
fn open(cwd: BorrowedFd<'_>, path: &CStr) -> Option<OwnedFd> {
    let file = look_up(cwd, path).ok()?;
    let mode = rustix::fs::fstat(&file).ok()?.st_mode;
    (FileType::from_raw_mode(mode) == FileType::RegularFile).then_some(file)
}

/// Through no magic link: this process still has descriptors of the host (CVE-2024-21626).
fn look_up(cwd: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    rustix::fs::openat2(cwd, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// As much as the kernel looks at for a `#!` (`BINPRM_BUF_SIZE`, linux/binfmts.h).
const HEAD: usize = 256;
/// The headers of a program are there, and mostly its loader's name.
const BEGIN: usize = 4096;

fn examine(file: &OwnedFd, cwd: BorrowedFd<'_>) -> Option<(Cause, Errno, Vec<u8>)> {
    if rustix::fs::fstat(file).ok()?.st_mode & 0o111 == 0 {
        return Some((Cause::NoBit, Errno::ACCESS, Vec::new()));
    }
    if rustix::fs::fstatvfs(file).ok()?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Some((Cause::NoExec, Errno::ACCESS, Vec::new()));
    }
    let begin = read_at(file, 0, BEGIN)?;
    let head = begin.get(..HEAD).unwrap_or(&begin);
    let missing = |path: &[u8]| {
        let path = CString::new(path).ok()?;
        matches!(look_up(cwd, &path), Err(Errno::NOENT | Errno::NOTDIR)).then_some(())
    };
    if let Some(line) = head.strip_prefix(b"#!") {
        // As fs/binfmt_script.c reads it: a word that is cut off is not looked for.
        let line = line.split(|&byte| byte == b'\n').next()?;
        let line = line.get(line.iter().position(|byte| !b" \t".contains(byte))?..)?;
        let interpreter = line.split(|byte| b" \t\0".contains(byte)).next().filter(|word| !word.is_empty())?;
        if head.len() == HEAD && head.ends_with(interpreter) {
            return None;
        }
        missing(interpreter)?;
        let cause = if interpreter.ends_with(b"\r") { Cause::CarriageReturn } else { Cause::Interpreter };
        return Some((cause, Errno::NOENT, interpreter.to_vec()));
    }
    if !head.starts_with(b"\x7fELF") {
        return Some((Cause::Format, Errno::NOEXEC, Vec::new()));
    }
    let elf = Elf::read(head)?;
    if !MACHINES.contains(&elf.machine) {
        return Some((Cause::Machine, Errno::NOEXEC, elf.machine.to_string().into_bytes()));
    }
    let loader = elf.loader(file, &begin)?;
    missing(&loader)?;
    Some((Cause::Loader, Errno::NOENT, loader))
}

fn read_at(file: &OwnedFd, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let got = rustix::io::pread(file, &mut bytes, offset).ok()?;
    bytes.truncate(got);
    Some(bytes)
}

/// `e_machine` of programs that this kernel runs by itself (elf(5), linux/elf-em.h).
const MACHINES: &[u16] = if cfg!(target_arch = "x86_64") {
    &[62, 3]
} else if cfg!(target_arch = "aarch64") {
    &[183, 40]
} else {
    &[]
};

/// What of an ELF header tells where its loader is named (elf(5)).
struct Elf {
    wide: bool,
    machine: u16,
    headers: u64,
    size: u16,
    count: u16,
}

impl Elf {
    /// Little-endian ones only: others are of another machine, wherever this program runs.
    fn read(head: &[u8]) -> Option<Self> {
        let wide = *head.get(4)? == 2;
        let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at.checked_add(2)?)?.try_into().ok()?));
        let machine = if *head.get(5)? == 1 { half(18)? } else { half(18)?.swap_bytes() };
        let (headers, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
        Some(Self { wide, machine, headers: word(head, headers, wide)?, size: half(size)?, count: half(count)? })
    }

    /// The text of its PT_INTERP.
    fn loader(&self, file: &OwnedFd, begin: &[u8]) -> Option<Vec<u8>> {
        const PT_INTERP: u64 = 3;
        let read = |at: u64, length: usize| {
            let from = usize::try_from(at).ok()?;
            let known = begin.get(from..from.checked_add(length)?);
            known.map_or_else(|| read_at(file, at, length), |known| Some(known.to_vec()))
        };
        // Few have more than 20.
        for index in 0..u64::from(self.count.min(64)) {
            let at = self.headers.checked_add(index.checked_mul(self.size.into())?)?;
            let header = read(at, 56)?;
            if word(&header, 0, false)? != PT_INTERP {
                continue;
            }
            let (offset, length) = if self.wide { (8, 32) } else { (4, 16) };
            let length = usize::try_from(word(&header, length, self.wide)?).ok()?.min(4096);
            let text = read(word(&header, offset, self.wide)?, length)?;
            return text.split(|&byte| byte == 0).next().map(<[u8]>::to_vec);
        }
        None
    }
}

/// A number of 8 bytes or of 4.
fn word(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    let bytes = bytes.get(at..)?;
    if wide {
        Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
    } else {
        Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?).into())
    }
}
