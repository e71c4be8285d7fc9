//! Descriptors by number: those inherited from the caller, ranges, and sending one over a socket.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Result, check};

/// Takes ownership of a descriptor that the kernel has just made for us under this number.
pub(super) fn take_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers have the number from the kernel and give it to no one else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// close_range(2), Linux 5.9: closes `first..=last`, or with `CLOSE_RANGE_CLOEXEC` only marks them.
pub(crate) fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: numbers only. The callers own no descriptor of the range that they use afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Sends `payload` and one descriptor (`SCM_RIGHTS`) in one message. Returns how much of it was sent: of a stream, what had
/// room.
pub(crate) fn sendmsg_fd(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[std::io::IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL)
}

/// Clears close-on-exec of a descriptor that is known by its number only; EBADF if it is not open.
pub(crate) fn keep_on_exec(fd: u32) -> Result<()> {
    let fd = RawFd::try_from(fd).map_err(|_| super::Errno::BADF)?;
    // SAFETY: F_SETFD changes a flag of a number.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })).map(drop)
}

/// dup2(2) onto a descriptor that somebody else owns: it refers to another file from then on, and is not closed by exec.
pub(crate) fn dup2(from: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: both are open for as long as they are borrowed; the owner of `onto` has an open descriptor as before.
    check(libc::c_long::from(unsafe { libc::dup2(from.as_raw_fd(), onto.as_raw_fd()) })).map(drop)
}

/// Whether a descriptor is open: EBADF if not.
pub(crate) fn check_open(fd: u32) -> Result<()> {
    let fd = RawFd::try_from(fd).map_err(|_| super::Errno::BADF)?;
    // SAFETY: F_GETFD only looks at the number.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_GETFD) })).map(drop)
}
