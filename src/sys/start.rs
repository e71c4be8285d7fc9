//! Where the program starts, in the place of the standard library's entry point.
//!
//! That one also reads /proc/self/maps and installs an alternate stack with handlers of SIGSEGV and SIGBUS, only to say
//! "stack overflow" before it aborts: seventeen system calls in each command, and the code of sscanf(3) in the binary.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Makes `$main`, a function that returns the exit code, the entry point.
macro_rules! entry {
    ($main:path) => {
        #[allow(unsafe_code, clippy::exit, reason = "the C library calls this name; exit flushes stdout")]
        // SAFETY: there is no other `main`, since the crate is `no_main`; but as a test, which has its own.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        extern "C" fn main(count: libc::c_int, arguments: *mut *mut libc::c_char) -> libc::c_int {
            $crate::sys::start(count, arguments);
            std::process::exit($main().into())
        }
    };
}
pub(crate) use entry;

/// Where the kernel has put the arguments, and how many there are.
static ARGUMENTS: AtomicPtr<*mut libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The arguments of this process. The standard library knows them without its own entry point with glibc only.
pub(crate) fn arguments() -> Vec<CString> {
    let arguments = ARGUMENTS.load(Ordering::Relaxed);
    // SAFETY: the array has that many strings, which end with NUL and live as long as this process.
    (0..COUNT.load(Ordering::Relaxed))
        .map(|index| unsafe { CStr::from_ptr(*arguments.add(index)) }.to_owned())
        .collect()
}

/// Overwrites the arguments that this process was started with: everybody who sees a process can read them. Nobody may ask
/// for them afterwards.
pub(crate) fn erase_arguments(name: &CStr) {
    let arguments = ARGUMENTS.load(Ordering::Relaxed);
    for index in 0..COUNT.load(Ordering::Relaxed) {
        // SAFETY: the array has that many strings, which end with NUL and are in writable memory of this process (its stack,
        // as the kernel has put them there); this process has one thread, which reads none of them from here on.
        unsafe {
            let argument = *arguments.add(index);
            let length = libc::strlen(argument);
            std::ptr::write_bytes(argument, 0, length);
            if index == 0 && name.count_bytes() <= length {
                std::ptr::copy_nonoverlapping(name.as_ptr(), argument, name.count_bytes());
            }
        }
    }
}

/// What of the standard library's start is needed.
pub(crate) fn start(count: libc::c_int, arguments: *mut *mut libc::c_char) {
    ARGUMENTS.store(arguments, Ordering::Relaxed);
    COUNT.store(usize::try_from(count).unwrap_or(0), Ordering::Relaxed);
    // The caller has closed some of 0 to 2: the first file that we open must not be stdin, stdout or stderr.
    // poll(2) would ask for all at once, but refuses more descriptors than RLIMIT_NOFILE, and takes an O_PATH one for a closed one.
    for number in 0..3 {
        // SAFETY: the descriptor is only asked for; it is not kept.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(fd) == Err(Errno::BADF) {
            // The lowest number that is free is this one. It stays open.
            let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty());
            std::mem::forget(null.unwrap_or_else(|_| std::process::abort()));
        }
    }
    // A reader that goes away is an error of write(2), not our end.
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
