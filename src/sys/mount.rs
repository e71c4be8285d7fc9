//! mount_setattr(2), which rustix 1.1 does not have.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// `struct mount_attr` of mount_setattr(2), Linux 5.12.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clr: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub(crate) propagation: u64,
    /// A user namespace, with `MOUNT_ATTR_IDMAP`.
    pub(crate) userns_fd: u64,
}

/// Changes the mount at `path` below `dirfd`; with an empty path and `AT_EMPTY_PATH` in `flags`, the mount that
/// `dirfd` itself refers to.
pub(crate) fn mount_setattr(dirfd: BorrowedFd<'_>, path: &CStr, flags: libc::c_int, attr: &MountAttr) -> Result<()> {
    // SAFETY: `path` ends with NUL and `attr` is a mount_attr of the size given; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dirfd.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const *attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
