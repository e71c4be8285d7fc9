//! setsockopt(2) of netlink(7), which rustix 1.1 does not have.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// `NETLINK_EXT_ACK`: errors come with the kernel's own words.
pub(crate) fn netlink_ext_ack(socket: BorrowedFd<'_>) -> Result<()> {
    /// linux/netlink.h.
    const NETLINK_EXT_ACK: libc::c_int = 11;
    let on: libc::c_int = 1;
    // SAFETY: the value is an int of the size given, and outlives the call.
    check(libc::c_long::from(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            NETLINK_EXT_ACK,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    }))
    .map(drop)
}
