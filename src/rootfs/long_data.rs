//! A new file system with parameters that are too long for fsconfig(2). Runs in: child.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::MountFlags;

use super::plan::{MountPlan, Param};
use super::resolve;
use crate::sync::{Fault, Step};
use crate::sys::Errno;

/// Whether fsconfig(2) would refuse one of them: it copies 256 bytes of a value, its NUL with them. No parameter of a tmpfs is
/// as long as that.
pub(super) fn is_long(fstype: &CStr, params: &[Param]) -> bool {
    fstype != c"tmpfs"
        && params.iter().any(|param| param.value.as_ref().is_some_and(|value| value.as_bytes_with_nul().len() > 256))
}

/// By mount(2), which takes a page for all of them, on the directory `target`. As it mounts by paths, this process goes there.
pub(super) fn mount(
    root: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    plan: &MountPlan,
    fstype: &CStr,
    params: &[Param],
) -> Result<OwnedFd, Fault> {
    let fault = |errno| Fault::new(Step::MountCreate, errno);
    let here =
        rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fault)?;
    rustix::process::fchdir(target).map_err(|errno| Fault::new(Step::MountTarget, errno))?;
    let source = params.iter().find(|param| param.key.as_c_str() == c"source").and_then(|param| param.value.as_deref());
    let of_superblock = params.iter().filter_map(superblock_flag).fold(MountFlags::empty(), MountFlags::union);
    let (flags, data) = (flags(plan.attrs.set | plan.attrs_recursive.set) | of_superblock, data(params));
    // What is more than a page is cut off without a word (copy_mount_options of the kernel).
    let fits = data.as_ref().is_none_or(|data| data.as_bytes_with_nul().len() <= 4096);
    let mount = || rustix::mount::mount(source.unwrap_or(c"none"), ".", fstype, flags, data.as_deref());
    let mounted = if fits { mount() } else { Err(Errno::TOOBIG) };
    rustix::process::fchdir(here).map_err(fault)?;
    mounted.map_err(fault)?;
    // Nothing but its path leads to it. Where the container exchanges directories meanwhile, that may lead elsewhere.
    let made = resolve::open(root, plan.target.as_c_str(), OFlags::PATH).map_err(fault)?;
    let stat = |fd| rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(fault);
    let (below, above) = (stat(target)?, stat(made.as_fd())?);
    if !above.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || above.stx_mnt_id == below.stx_mnt_id {
        return Err(Fault::new(Step::MountUnsafeTarget, Errno::PERM));
    }
    Ok(made)
}

/// `MS_*` of `MOUNT_ATTR_*`.
fn flags(attrs: u64) -> MountFlags {
    let pairs = [
        (libc::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (libc::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (libc::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (libc::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (libc::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
        (libc::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
        (libc::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::from_bits_retain(256)),
    ];
    pairs.into_iter().filter(|(attr, _)| attrs & attr != 0).map(|(_, flag)| flag).collect()
}

/// Those that the kernel knows whatever the file system is (`common_set_sb_flag` of fs/fs_context.c): for mount(2) they are no data.
fn superblock_flag(param: &Param) -> Option<MountFlags> {
    Some(match (param.key.to_bytes(), &param.value) {
        (b"ro", None) => MountFlags::RDONLY,
        (b"sync", None) => MountFlags::SYNCHRONOUS,
        (b"dirsync", None) => MountFlags::DIRSYNC,
        (b"mand", None) => MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
        (b"lazytime", None) => MountFlags::LAZYTIME,
        (b"rw" | b"async" | b"nomand" | b"nolazytime", None) => MountFlags::empty(),
        _ => return None,
    })
}

/// With the commas of values as file systems want them there.
fn data(params: &[Param]) -> Option<CString> {
    let mut data = Vec::new();
    // An optional flag is one that this file system need not know.
    let is_data =
        |param: &&Param| param.key.as_c_str() != c"source" && !param.optional && superblock_flag(param).is_none();
    for param in params.iter().filter(is_data) {
        if !data.is_empty() {
            data.push(b',');
        }
        let key = param.key.to_bytes();
        data.extend_from_slice(key);
        let Some(value) = &param.value else { continue };
        data.push(b'=');
        match value.to_bytes() {
            value if key.ends_with(b"context") => data.extend_from_slice(&[b"\"", value, b"\""].concat()),
            value => value.iter().for_each(|byte| match byte {
                b',' => data.extend_from_slice(b"\\,"),
                byte => data.push(*byte),
            }),
        }
    }
    CString::new(data).ok().filter(|data| !data.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_mount_is_that_of_fsconfig() {
        let param = |key: &CStr, value: Option<&CStr>, optional| {
            let (key, value) = (key.to_owned(), value.map(ToOwned::to_owned));
            Param { key, value, option: Some(0), optional }
        };
        let params = [
            param(c"source", Some(c"s"), false),
            param(c"lowerdir", Some(c"/a,b:/c\\:d"), false),
            param(c"context", Some(c"u:c1,c2"), false),
            param(c"ro", None, false),
            param(c"index", Some(c"off"), false),
            param(c"iversion", None, true),
        ];
        let expected = c"lowerdir=/a\\,b:/c\\:d,context=\"u:c1,c2\",index=off";
        assert_eq!(data(&params).as_deref(), Some(expected));
        assert_eq!(data(&params[..1]), None);
    }
}
