//! Why a program cannot be executed. Pure.

use crate::error::{Errno, Error};
use crate::plan::Plan;
use crate::sync::{Cause, Fault};

/// In the words that callers look for (reference: moby's and podman's exit codes 126 and 127).
pub(super) fn program(plan: &Plan, fault: &Fault) -> Error {
    let args = plan.child.process.as_ref().map(|process| process.args.as_slice()).unwrap_or_default();
    let name = args.first().map_or(String::new(), |arg| arg.to_string_lossy().into_owned());
    let field = "process.args[0]";
    match fault.errno {
        libc::ENOENT | libc::ENOTDIR if !name.contains('/') && fault.sub == 0 => {
            Error::at(field, format!("exec: {name:?}: executable file not found in $PATH"))
        }
        libc::ENOENT if fault.sub == 0 => {
            Error::at(field, format!("exec: {name:?}: stat {name}: no such file or directory"))
        }
        libc::ENOENT => Error::at(field, format!("exec: {name:?}: no such file or directory")),
        // The words of runc since 1.2 and, of which Docker 20.10 and podman make exit code 126, those of execve(2).
        libc::EISDIR => Error::at(field, format!("exec: {name:?}: is a directory: permission denied")),
        libc::EACCES => Error::at(field, format!("exec: {name:?}: permission denied")),
        errno => Error::at(field, format!("exec: {name:?}")).errno(Errno(errno)),
    }
}

/// Why a program cannot be executed, where the child has found that out.
pub(super) fn hint(fault: &Fault, detail: &str) -> Option<String> {
    let (path, text) = detail.split_once('\0').unwrap_or((detail, ""));
    // Both may be the image's.
    let (path, text) = (path.escape_debug().to_string(), text.trim_end().escape_debug().to_string());
    Some(match Cause::of(fault)? {
        Cause::NoExec => format!("{path} is on a mount with the option noexec"),
        Cause::NoBit => format!("{path} has no execute bit: chmod +x in the image"),
        Cause::Interpreter => format!("{path} begins with #!{text}, and there is no {text} in the container"),
        Cause::CarriageReturn => {
            format!(
                "the first line of {path}, #!{}, ends with CR LF, which is taken for a part of the name: sed -i 's/\\r$//'",
                text
            )
        }
        Cause::Loader => format!(
            "{path} was linked for the loader {text}, which is not in the container: it needs an image with that C library \
             (glibc and musl differ), or a static build"
        ),
        Cause::Machine => format!(
            "{path} is for {}, and this kernel runs programs for {}: use the image for this platform, or register an \
             emulator in binfmt_misc",
            machine(&text),
            std::env::consts::ARCH
        ),
        Cause::Format => format!("{path} is neither an ELF program nor a script with a #! line"),
    })
}

/// The names of `e_machine` (linux/elf-em.h) that images are built for.
fn machine(number: &str) -> String {
    match number {
        "3" => "x86",
        "8" => "mips",
        "21" => "powerpc64",
        "22" => "s390x",
        "40" => "arm",
        "62" => "x86_64",
        "183" => "aarch64",
        "243" => "riscv",
        "258" => "loongarch",
        other => return format!("another processor (ELF machine {other})"),
    }
    .to_owned()
}
