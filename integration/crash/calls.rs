//! System calls: their names, and with what they can fail whatever their arguments are.

use nix::libc::{self, EAGAIN, EINTR, EIO, EMFILE, ENOMEM, ENOSPC, EPERM};

/// Its name.
pub(super) fn name(number: u64) -> String {
    let known = usize::try_from(number).ok().and_then(syscalls::x86_64::Sysno::new);
    known.map_or_else(|| number.to_string(), |call| call.name().to_owned())
}

/// The errors that the call's manual page allows for, of those that come from outside and not from its arguments.
pub(super) fn errors(number: u64) -> &'static [i32] {
    match i64::try_from(number).unwrap_or(-1) {
        libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 => &[ENOMEM, EMFILE, ENOSPC, EINTR, EPERM, EIO],
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_getdents64 => &[EINTR, EIO, ENOMEM],
        libc::SYS_write | libc::SYS_pwrite64 => &[ENOSPC, EINTR, EIO, EPERM, ENOMEM],
        libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_renameat
        | libc::SYS_rename
        | libc::SYS_symlinkat
        | libc::SYS_renameat2
        | libc::SYS_linkat => &[ENOMEM, ENOSPC, EPERM, EIO],
        // Not EPERM, as in a user namespace: devices are the host's then.
        libc::SYS_mknodat => &[ENOMEM, ENOSPC, EIO],
        libc::SYS_rmdir | libc::SYS_unlink | libc::SYS_unlinkat => &[ENOMEM, EPERM, EIO],
        libc::SYS_fsync => &[EIO, ENOSPC, EINTR],
        libc::SYS_flock => &[EINTR, ENOMEM],
        libc::SYS_poll | libc::SYS_ppoll => &[EINTR, ENOMEM],
        libc::SYS_waitid | libc::SYS_wait4 => &[EINTR],
        libc::SYS_recvmsg | libc::SYS_recvfrom => &[EINTR, ENOMEM],
        libc::SYS_sendmsg | libc::SYS_sendto => &[EINTR, ENOMEM],
        libc::SYS_connect => &[EINTR, EAGAIN, EPERM],
        libc::SYS_clone | libc::SYS_clone3 => &[EAGAIN, ENOMEM, ENOSPC, EPERM],
        libc::SYS_execve | libc::SYS_execveat => &[ENOMEM, EIO, EMFILE, EPERM, EAGAIN],
        libc::SYS_socket
        | libc::SYS_socketpair
        | libc::SYS_pipe2
        | libc::SYS_memfd_create
        | libc::SYS_pidfd_open
        | libc::SYS_signalfd4 => &[EMFILE, ENOMEM],
        libc::SYS_fsopen | libc::SYS_fsmount | libc::SYS_open_tree => &[EMFILE, ENOMEM, EPERM],
        libc::SYS_fsconfig
        | libc::SYS_move_mount
        | libc::SYS_mount
        | libc::SYS_umount2
        | libc::SYS_mount_setattr
        | libc::SYS_pivot_root => &[ENOMEM, ENOSPC, EPERM],
        libc::SYS_dup2 | libc::SYS_dup3 | libc::SYS_dup => &[EINTR, EMFILE],
        libc::SYS_setns | libc::SYS_unshare => &[ENOMEM, ENOSPC, EPERM],
        libc::SYS_setsid
        | libc::SYS_setgroups
        | libc::SYS_capset
        | libc::SYS_prctl
        | libc::SYS_sethostname
        | libc::SYS_keyctl
        | libc::SYS_bpf
        | libc::SYS_seccomp
        | libc::SYS_prlimit64
        | libc::SYS_chroot => &[EPERM, ENOMEM],
        libc::SYS_setresuid | libc::SYS_setresgid => &[EPERM, EAGAIN],
        libc::SYS_chown
        | libc::SYS_fchown
        | libc::SYS_fchownat
        | libc::SYS_chmod
        | libc::SYS_fchmod
        | libc::SYS_fchmodat => &[EPERM, EIO, ENOMEM],
        libc::SYS_stat
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_statfs
        | libc::SYS_fstatfs
        | libc::SYS_readlink
        | libc::SYS_chdir
        | libc::SYS_fchdir
        | libc::SYS_getcwd
        | libc::SYS_faccessat2 => &[ENOMEM, EIO],
        // Not brk: libc's start-up takes no refusal, and its allocator goes on with mmap.
        libc::SYS_mmap | libc::SYS_mremap => &[ENOMEM],
        libc::SYS_pidfd_send_signal | libc::SYS_kill => &[EPERM],
        _ => &[],
    }
}
