//! What tells a cgroup of ours from those of others, and whose it is. Runs in: parent.
//!
//! An extended attribute of the container's first directory keeps its record for as long as the directory is there: what
//! becomes of `<root>/<id>` then costs nobody the way to the processes. In `trusted.`, which only real root reads and
//! writes: a container that owns its cgroup could otherwise name that of another as its own, to be killed in its place.
//! So a user's containers have none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::children;
use super::{Cgroup, Layout};

const NAME: &str = "trusted.runtime.container";
/// `XATTR_SIZE_MAX` of linux/limits.h.
const LONGEST: usize = 64 << 10;

impl Cgroup {
    /// Marks the cgroup. One that stays after the container is not, and loses the mark of an earlier one: who is found in
    /// it later may be anybody.
    pub(crate) fn mark(&self, text: &[u8]) -> rustix::io::Result<()> {
        match self.marked_dir() {
            Some(dir) if self.is_all_own() => rustix::fs::setxattr(dir, NAME, text, XattrFlags::empty()),
            // That of an earlier container, which has ended: it would say that ours are its processes.
            Some(dir) => match rustix::fs::removexattr(dir, NAME) {
                Err(errno) if errno != Errno::NODATA => Err(errno),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Which of its directories has the mark, if any has.
    pub(crate) fn marked_dir(&self) -> Option<&PathBuf> {
        self.dirs.values().next()
    }
}

impl Layout {
    /// The directories that have a mark, and the marks; but not these.
    pub(crate) fn marked(&self, known: &BTreeSet<PathBuf>) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        // The hierarchy of a cgroup's first directory.
        if let Some(first) = self.hierarchies.iter().min_by_key(|hierarchy| &hierarchy.controllers) {
            collect(&first.root, known, &mut Vec::with_capacity(LONGEST), &mut found);
        }
        found
    }
}

fn collect(dir: &Path, known: &BTreeSet<PathBuf>, buffer: &mut Vec<u8>, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for (child, is_parent) in children(dir) {
        buffer.clear();
        if !known.contains(&child) && rustix::fs::getxattr(&child, NAME, spare_capacity(buffer)).is_ok() {
            found.push((child.clone(), buffer.clone()));
        }
        if is_parent {
            collect(&child, known, buffer, found);
        }
    }
}
