//! The container's program: where it starts, what it is, and executing it. Runs in: child.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags};

use super::diagnosis::Diagnosis;
use crate::host;
use crate::plan::ProcessPlan;
use crate::rootfs;
use crate::sync::{Detail, Fault, Step};
use crate::sys::{self, CStrings, Errno};

/// Opens the working directory, inside the root and through no magic link, and makes it where it is missing.
pub(super) fn make_cwd(process: &ProcessPlan, root: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    rootfs::open_or_make_directory(root, &process.cwd).map_err(|errno| Fault::new(Step::Cwd, errno))
}

/// The home directory of the user by the container's /etc/passwd; `/` where there is none.
pub(super) fn home(process: &ProcessPlan, root: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> CString {
    let entry = |value: &[u8]| CString::new([b"HOME=", value].concat()).unwrap_or_else(|_| c"HOME=/".to_owned());
    let passwd = sys::twice(|| read_small(root, proc, c"etc/passwd").ok_or(())).unwrap_or_default();
    // name:password:UID:GID:GECOS:directory:shell, passwd(5)
    let home = passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let uid = std::str::from_utf8(fields.nth(2)?).ok()?;
        (uid.parse() == Ok(process.uid)).then(|| fields.nth(2)).flatten()
    });
    entry(home.filter(|home| !home.is_empty()).unwrap_or(b"/"))
}

/// The first MiB of a regular file of the container. Anything else is not even opened.
fn read_small(root: BorrowedFd<'_>, proc: BorrowedFd<'_>, path: &CStr) -> Option<Vec<u8>> {
    let file = rootfs::open_in_root(root, path, OFlags::PATH).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = host::reopen(proc, file, OFlags::RDONLY).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    while bytes.len() < 1 << 20 {
        match rustix::io::read(&file, &mut chunk) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(chunk.get(..length)?),
            Err(_) => return None,
        }
    }
    Some(bytes)
}

/// What will be executed.
pub(super) struct Program {
    /// Its index in the plan's candidates.
    candidate: usize,
    diagnosis: Option<Diagnosis>,
}

/// Finds the program as execvp(3) would, as the container's user, so that most errors are found by `create`.
pub(super) fn find(process: &ProcessPlan, diagnosis: Option<Diagnosis>, now: bool) -> Result<Program, Fault> {
    let mut denied = None;
    let mut missing = Errno::NOENT;
    for (candidate, path) in process.candidates.iter().enumerate() {
        let found = Program { candidate, diagnosis: None };
        let ill = diagnosis.as_ref().filter(|diagnosis| diagnosis.candidate == candidate);
        match (is_executable(path), ill) {
            (Ok(()), Some(ill)) if now && ill.is_certain() => {
                return Err(ill.explain(Fault::new(Step::NotExecutable, ill.errno()), path));
            }
            (Ok(()), Some(_)) => return Ok(Program { diagnosis, ..found }),
            (Ok(()), None) => return Ok(found),
            (Err(errno @ (Errno::NOENT | Errno::NOTDIR)), _) => missing = errno,
            (Err(errno), ill) => {
                let fault = Fault::new(Step::NotExecutable, errno);
                denied = denied.or(Some(ill.map_or(fault.clone(), |ill| ill.explain(fault, path))));
            }
        }
    }
    Err(denied.unwrap_or_else(|| Fault::new(Step::NotFound, missing)))
}

fn is_executable(path: &CStr) -> sys::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A seccomp profile without faccessat2: execve will tell.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        result => result,
    }
}

/// Executes it; returns only on failure.
pub(super) fn execute(process: &ProcessPlan, program: &Program, home: Option<&CStr>) -> Fault {
    let argv = CStrings::new(&process.args);
    let mut envp = CStrings::new(&process.env);
    if let Some(home) = home {
        envp.push(home);
    }
    let Some(path) = process.candidates.get(program.candidate) else {
        return Fault::new(Step::Protocol, Errno::NOENT);
    };
    // Signals were blocked before the clone; the program starts with none blocked.
    if let Err(errno) = sys::sigprocmask(SigmaskHow::SIG_SETMASK, &SigSet::empty()) {
        return Fault::new(Step::Exec, errno);
    }
    let fault = Fault::new(Step::Exec, sys::execve(path, &argv, &envp)).detail(Detail::new(path.to_bytes()));
    match &program.diagnosis {
        Some(diagnosis) => diagnosis.explain(fault, path),
        None => fault,
    }
}

/// Goes to the working directory.
pub(super) fn enter_cwd(cwd: impl AsFd) -> sys::Result<()> {
    rustix::process::fchdir(cwd)
}
