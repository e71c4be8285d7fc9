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

    fn get(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        for (slot, byte) in bytes.iter_mut().zip(self.0.iter().skip(offset)) {
            *slot = *byte;
        }
        u32::from_ne_bytes(bytes)
    }

    fn call(&mut self, command: libc::c_int) -> Result<libc::c_long> {
        let size = self.0.len();
        // SAFETY: the attribute is valid for the size given, and all pointers in it are to memory that the callers
        // below keep alive during the call, and may be written where the command does that.
        check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut self.0, size) })
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;
/// Where `struct bpf_prog_info` has the name, and where that ends.
const INFO_NAME: usize = 64;
const INFO_LENGTH: usize = 80;

/// `BPF_PROG_LOAD` of a `BPF_PROG_TYPE_CGROUP_DEVICE` program.
/// The name has at most 15 bytes: letters, digits, `_` and `.`.
pub(crate) fn bpf_prog_load(program: &[BpfInsn], name: &CStr, license: &CStr) -> Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_| super::Errno::TOOBIG)?;
    let fd = BpfAttr::new()
        .put(0, &BPF_PROG_TYPE_CGROUP_DEVICE.to_ne_bytes())
        .put(4, &count.to_ne_bytes())
        .put(8, &(program.as_ptr() as u64).to_ne_bytes())
        .put(16, &(license.as_ptr() as u64).to_ne_bytes())
        .put(48, name.to_bytes())
        .call(BPF_PROG_LOAD)?;
    Ok(take_fd(i32::try_from(fd).map_err(|_| super::Errno::OVERFLOW)?))
}

/// `BPF_PROG_ATTACH` to a cgroup v2 directory, besides those that are attached there or above, or in the place of one.
pub(crate) fn bpf_prog_attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let flags = BPF_F_ALLOW_MULTI | replaced.map_or(0, |_| BPF_F_REPLACE);
    BpfAttr::new()
        .put(0, &cgroup.as_raw_fd().to_ne_bytes())
        .put(4, &program.as_raw_fd().to_ne_bytes())
        .put(8, &BPF_CGROUP_DEVICE.to_ne_bytes())
        .put(12, &flags.to_ne_bytes())
        .put(16, &replaced.map_or(0, |replaced| replaced.as_raw_fd()).to_ne_bytes())
        .call(BPF_PROG_ATTACH)
        .map(drop)
}

/// `BPF_PROG_DETACH` of a device program from a cgroup v2 directory.
pub(crate) fn bpf_prog_detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    BpfAttr::new()
        .put(0, &cgroup.as_raw_fd().to_ne_bytes())
        .put(4, &program.as_raw_fd().to_ne_bytes())
        .put(8, &BPF_CGROUP_DEVICE.to_ne_bytes())
        .call(BPF_PROG_DETACH)
        .map(drop)
}

/// `BPF_PROG_QUERY`: the ids of the device programs that are attached to this very directory; returns how many.
pub(crate) fn bpf_prog_query(cgroup: BorrowedFd<'_>, ids: &mut [u32]) -> Result<usize> {
    let room = u32::try_from(ids.len()).map_err(|_| super::Errno::INVAL)?;
    let mut attr = BpfAttr::new();
    attr.put(0, &cgroup.as_raw_fd().to_ne_bytes())
        .put(4, &BPF_CGROUP_DEVICE.to_ne_bytes())
        .put(16, &(ids.as_mut_ptr() as u64).to_ne_bytes())
        .put(24, &room.to_ne_bytes())
        .call(BPF_PROG_QUERY)?;
    usize::try_from(attr.get(24)).map_err(|_| super::Errno::OVERFLOW)
}

/// `BPF_PROG_GET_FD_BY_ID`.
pub(crate) fn bpf_prog_get_fd_by_id(id: u32) -> Result<OwnedFd> {
    let fd = BpfAttr::new().put(0, &id.to_ne_bytes()).call(BPF_PROG_GET_FD_BY_ID)?;
    Ok(take_fd(i32::try_from(fd).map_err(|_| super::Errno::OVERFLOW)?))
}

/// `BPF_OBJ_GET_INFO_BY_FD` of a program: its name, filled up with zeros.
pub(crate) fn bpf_prog_name(program: BorrowedFd<'_>) -> Result<[u8; INFO_LENGTH - INFO_NAME]> {
    let mut info = [0u8; INFO_LENGTH];
    BpfAttr::new()
        .put(0, &program.as_raw_fd().to_ne_bytes())
        .put(4, &80u32.to_ne_bytes())
        .put(8, &(info.as_mut_ptr() as u64).to_ne_bytes())
        .call(BPF_OBJ_GET_INFO_BY_FD)?;
    let mut name = [0; INFO_LENGTH - INFO_NAME];
    for (slot, byte) in name.iter_mut().zip(info.iter().skip(INFO_NAME)) {
        *slot = *byte;
    }
    Ok(name)
}
