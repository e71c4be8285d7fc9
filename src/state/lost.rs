//! Containers whose directory is gone and whose cgroup is not: `/run` was wiped, or another program has removed it. Runs in:
//! parent.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::store::FORMAT;
use super::{Record, Root};
use crate::cgroups::Layout;
use crate::error::Result;
use crate::host;

/// What a cgroup is marked with.
#[derive(Serialize, Deserialize)]
struct Mark {
    root: std::path::PathBuf,
    /// Of the file system that the root directory is on. A runtime in a container has the same path, and another one.
    device: u64,
    record: Record,
}

impl Root {
    /// The text by which the container is found if its directory is lost.
    pub(crate) fn mark(&self, record: &Record) -> Vec<u8> {
        let mark = Mark { root: self.path().to_owned(), device: self.device(), record: record.clone() };
        serde_json::to_vec(&mark).unwrap_or_default()
    }

    /// All of this root directory that are marked.
    fn marked(&self, proc: impl AsFd) -> Result<Vec<Record>> {
        let marked = Layout::detect(&host::read(proc, "self/cgroup")?)?.marked();
        let ours = |(dir, text): (_, Vec<u8>)| {
            let mark: Mark = serde_json::from_slice(&text).ok()?;
            let here = mark.root == self.path() && mark.device == self.device();
            // A mark that was copied to another cgroup means nothing.
            let placed = mark.record.cgroup.dirs.values().any(|own| *own == dir);
            (here && placed && mark.record.format == FORMAT).then_some(mark.record)
        };
        Ok(marked.into_iter().filter_map(ours).collect())
    }

    /// The record of this container, from its cgroup.
    pub(crate) fn marked_record(&self, proc: impl AsFd, id: &str) -> Result<Option<Record>> {
        Ok(self.marked(proc)?.into_iter().find(|record| record.id == id))
    }

    /// Those whose directory is gone, or another container's. One that cannot be read counts as there.
    pub(crate) fn lost(&self, proc: impl AsFd) -> Result<Vec<Record>> {
        let is_lost = |record: &Record| match self.find(&record.id).and_then(|container| container.record()) {
            Ok(Some(other)) => other.cgroup.dirs != record.cgroup.dirs,
            Ok(None) => false,
            Err(error) => error.is_missing_container(),
        };
        Ok(self.marked(proc)?.into_iter().filter(is_lost).collect())
    }

    /// Where the root directory is, or will be.
    fn device(&self) -> u64 {
        self.path().ancestors().find_map(|dir| rustix::fs::stat(dir).ok()).map_or(0, |stat| stat.st_dev)
    }
}
