//! execve(2) from strings made ready beforehand.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, last_errno};

/// An array of C strings as execve(2) wants it: pointers ending with NULL, into strings that live elsewhere.
pub(crate) struct CStrings<'a> {
    pointers: Vec<*const libc::c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> CStrings<'a> {
    /// Points to the strings.
    pub(crate) fn new(strings: &'a [CString]) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, strings: PhantomData }
    }

    /// Adds one at the end.
    pub(crate) fn push(&mut self, string: &'a CStr) {
        self.pointers.insert(self.pointers.len() - 1, string.as_ptr());
    }
}

/// Executes `path`; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &CStrings<'_>, envp: &CStrings<'_>) -> Errno {
    // SAFETY: both arrays end with NULL and point to strings that are borrowed for as long as `argv` and `envp`.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    last_errno()
}

/// Executes the file that `fd` refers to; returns only on failure.
pub(crate) fn execveat(fd: BorrowedFd<'_>, argv: &CStrings<'_>, envp: &CStrings<'_>) -> Errno {
    // SAFETY: as in `execve`; the path is empty and AT_EMPTY_PATH is given.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}
