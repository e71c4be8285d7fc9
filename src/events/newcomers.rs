//! Containers that are made while `events --all` runs. Runs in: parent.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::Followed;
use crate::error::{Error, Result};
use crate::logging::Log;
use crate::state::Root;

/// Hears of directories that appear in the root directory, and of `state.json` that is renamed to its place in each.
pub(super) struct Newcomers {
    inotify: OwnedFd,
    /// Whether all was looked at once.
    looked: bool,
}

impl Newcomers {
    pub(super) fn new(root: &Root) -> Result<Self> {
        root.make()?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| Error::new("inotify_init").errno(errno))?;
        inotify::add_watch(&inotify, root.path(), WatchFlags::CREATE | WatchFlags::ONLYDIR)
            .map_err(|errno| Error::at("--root", format!("watch {}", root.path().display())).errno(errno))?;
        Ok(Self { inotify, looked: false })
    }

    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.inotify, PollFlags::IN)
    }

    /// Adds the containers that run and are not followed yet.
    pub(super) fn find(&mut self, root: &Root, proc: &OwnedFd, followed: &mut Vec<Followed>, log: &Log) -> Result<()> {
        // What the events say does not matter, since all is looked at again: so none can be missed.
        let mut heard = !std::mem::replace(&mut self.looked, true);
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|length| length > 0) {
            heard = true;
        }
        if !heard {
            return Ok(());
        }
        for id in root.ids()? {
            // Of the same name there may be a new one already.
            if followed.iter().any(|one| one.id == id && !one.has_ended()) {
                continue;
            }
            // Before it is looked at: what comes after the look is then heard of.
            let flags = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, root.path().join(&id), flags) {
                Ok(_) => {}
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Error::new(format!("watch container {id:?}")).errno(errno)),
            }
            let watch = |one: Followed| warned(one.watch(), log);
            followed.extend(look(root, proc, &id, log).and_then(watch));
        }
        Ok(())
    }
}

/// None: it does not run, or nothing can be known of it.
pub(super) fn look(root: &Root, proc: &OwnedFd, id: &str, log: &Log) -> Option<Followed> {
    match root.find(id).and_then(|container| Followed::new(&container, proc)) {
        Err(error) if error.is_missing_container() => None,
        result => warned(result, log).flatten(),
    }
}

/// What fails for one container does not end what is told of the others.
fn warned<T>(result: Result<T>, log: &Log) -> Option<T> {
    result.map_err(|error| super::warn(&error.to_string(), log)).ok()
}
