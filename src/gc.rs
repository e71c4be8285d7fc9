//! `gc`: finds what nobody will ask for any more, and removes it if told to. Runs in: parent.
//!
//! An init whose `create` has died ends by itself. What can be left is a directory that its `create` did not finish or that
//! is of another boot, and a cgroup, with its processes, whose directory is gone.

use std::collections::BTreeSet;

use crate::delete::{delete, destroy_lost};
use crate::error::{Error, Result};
use crate::host;
use crate::logging::{self, Log};
use crate::state::Root;

/// `gc`. Says what is left over, one line for each; `really`: and removes it.
pub(crate) fn gc(root: &Root, really: bool, log: &Log) -> Result<()> {
    let proc = host::open_proc()?;
    let mut kept = 0;
    let mut turn = |id: &str, why: &str, remove: &dyn Fn() -> Result<()>| {
        let done = if really { remove() } else { Ok(()) };
        match done {
            Ok(()) => logging::print(&format!("{}: {id}: {why}\n", if really { "removed" } else { "left over" })),
            Err(error) => {
                kept += 1;
                logging::print(&format!("left over: {id}: {why}: {error}\n"))
            }
        }
    };
    for record in root.lost(&proc, &BTreeSet::new())? {
        let count = record.cgroup.processes().len();
        let why = format!("a cgroup with {count} processes, without a directory in {}", root.path().display());
        turn(&record.id, &why, &|| destroy_lost(root, &proc, &record))?;
    }
    for id in root.ids()? {
        match root.find(&id).and_then(|container| container.left_over(root, &proc)) {
            Ok(Some(why)) => turn(&id, why, &|| delete(root, &id, true, log))?,
            Ok(None) => {}
            Err(error) => log.warning_of(&error),
        }
    }
    if kept == 0 { Ok(()) } else { Err(Error::new(format!("{kept} could not be removed"))) }
}
