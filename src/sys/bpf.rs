//! bpf(2), as far as device cgroups need it.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::take_fd;
use super::{Result, check};
use crate::cgroups::devices::BpfInsn;

/// `union bpf_attr`. Always passed whole and zeroed: kernels 6.17 to 7.1 write at offset 56 whatever size is given.
#[repr(C, align(8))]
struct BpfAttr([u8; 128]);

impl BpfAttr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        for (slot, byte) in self.0.iter_mut().skip(offset).zip(bytes) {
            *slot = *byte;
        }
        self
    }

    fn call(&self, command: libc::c_int) -> Result<libc::c_long> {
        // SAFETY: the attribute is valid for the size given, and all pointers in it are to memory that the callers
        // below keep alive during the call.
        check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const self.0, self.0.len()) })
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `BPF_PROG_LOAD` of a `BPF_PROG_TYPE_CGROUP_DEVICE` program.
pub(crate) fn bpf_prog_load(program: &[BpfInsn], license: &CStr) -> Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_| super::Errno::TOOBIG)?;
    let fd = BpfAttr::new()
        .put(0, &BPF_PROG_TYPE_CGROUP_DEVICE.to_ne_bytes())
        .put(4, &count.to_ne_bytes())
        .put(8, &(program.as_ptr() as u64).to_ne_bytes())
        .put(16, &(license.as_ptr() as u64).to_ne_bytes())
        .call(BPF_PROG_LOAD)?;
    Ok(take_fd(i32::try_from(fd).map_err(|_| super::Errno::OVERFLOW)?))
}

/// `BPF_PROG_ATTACH` to a cgroup v2 directory, besides those that are attached there or above.
pub(crate) fn bpf_prog_attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    BpfAttr::new()
        .put(0, &cgroup.as_raw_fd().to_ne_bytes())
        .put(4, &program.as_raw_fd().to_ne_bytes())
        .put(8, &BPF_CGROUP_DEVICE.to_ne_bytes())
        .put(12, &BPF_F_ALLOW_MULTI.to_ne_bytes())
        .call(BPF_PROG_ATTACH)
        .map(drop)
}
