//! Containers whose directory is gone and whose cgroup is not: `/run` was wiped, or another program has removed it. Runs in:
//! parent.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::store::FORMAT;
use super::{Container, Record, Root};
use crate::cgroups::Layout;
use crate::error::Result;
use crate::host;

/// What a cgroup is marked with.
#[derive(Serialize, Deserialize)]
struct Mark {
    root: PathBuf,
    /// Of the file system that the root directory is on. A runtime in a container has the same path, and another one.
    device: u64,
    record: Record,
}

impl Container {
    /// Whether the directory is not that of this record's container. One that cannot be read may be.
    pub(crate) fn is_other_than(&self, record: &Record) -> bool {
        self.record().is_ok_and(|own| own.is_some_and(|own| own.cgroup.dirs != record.cgroup.dirs))
    }
}

impl Root {
    /// The text by which the container is found if its directory is lost.
    pub(crate) fn mark(&self, record: &Record) -> Vec<u8> {
        let mark = Mark { root: self.path().to_owned(), device: self.device(), record: record.clone() };
        serde_json::to_vec(&mark).unwrap_or_default()
    }

    /// All of this root directory that are marked, but not those in these cgroups.
    fn marked(&self, proc: impl AsFd, known: &BTreeSet<PathBuf>) -> Result<Vec<Record>> {
        let marked = Layout::detect(&host::read(proc, "self/cgroup")?)?.marked(known);
        let ours = |(dir, text): (PathBuf, Vec<u8>)| {
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
        Ok(self.marked(proc, &BTreeSet::new())?.into_iter().find(|record| record.id == id))
    }

    /// Whether a cgroup still has the mark of this container.
    pub(crate) fn is_marked(&self, proc: impl AsFd, record: &Record) -> Result<bool> {
        let is_it = |other: &Record| (&other.id, &other.created) == (&record.id, &record.created);
        Ok(self.marked(proc, &BTreeSet::new())?.iter().any(is_it))
    }

    /// Those whose directory is gone, or another container's. One that cannot be read counts as there. `known`: cgroups of
    /// containers that are there, as is known already.
    pub(crate) fn lost(&self, proc: impl AsFd, known: &BTreeSet<PathBuf>) -> Result<Vec<Record>> {
        let is_lost = |record: &Record| match self.find(&record.id) {
            Ok(container) => container.is_other_than(record),
            Err(error) => error.is_missing_container(),
        };
        Ok(self.marked(proc, known)?.into_iter().filter(is_lost).collect())
    }

    /// Where the root directory is, or will be.
    fn device(&self) -> u64 {
        self.path().ancestors().find_map(|dir| rustix::fs::stat(dir).ok()).map_or(0, |stat| stat.st_dev)
    }
}
