//! `events`: what containers use, and that they run out of memory; a JSON object on each line. Runs in: parent.

pub(crate) mod interval;
mod newcomers;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::Serialize;

use crate::cgroups::{self, OomWatch};
use crate::error::{Error, Result};
use crate::host;
use crate::logging::Log;
use crate::netdev::{Interface, interfaces};
use crate::rdt;
use crate::state::{Container, InitProcess, Record, Root};
use newcomers::Newcomers;

/// A line. The keys are those of runc's types/events.go.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    cgroup: cgroups::Stats,
    intel_rdt: rdt::Stats,
    /// Of a network namespace of the container's own. runc knows them no more, and says `null`.
    network_interfaces: Option<Vec<Interface>>,
}

/// A container that runs, or waits for `start`.
struct Followed {
    id: String,
    record: Record,
    init: InitProcess,
    oom: Option<OomWatch>,
}

/// `events ID`, without an id of all containers: its figures each `interval` and its OOM kills, until the container ends;
/// `once`: only its figures of now.
pub(crate) fn events(root: &Root, id: Option<&str>, interval: &str, once: bool, log: &Log) -> Result<()> {
    let proc = host::open_proc()?;
    let only = id.map(|id| root.find(id)).transpose()?;
    let interval = interval::duration("--interval", interval)?;
    let Some(container) = only else {
        if !once {
            return follow(root, Vec::new(), Some(Newcomers::new(root)?), &proc, interval, log);
        }
        let mut all = root.ids()?.into_iter().filter_map(|id| newcomers::look(root, &proc, &id, log));
        return all.try_for_each(|one| one.print_stats(&proc, log).map(drop));
    };
    container.record()?.map_or(Ok(()), |record| record.cgroup.needed().map(drop))?;
    let one = Followed::new(&container, &proc)?;
    let one = one.ok_or_else(|| Error::new(format!("container with id {} is not running", container.id)))?;
    if once {
        print("stats", &one.id, Some(one.data(&proc)?)).map(drop)
    } else {
        follow(root, vec![one.watch()?], None, &proc, interval, log)
    }
}

/// Until all have ended, or nobody reads; with newcomers, until nobody reads.
fn follow(
    root: &Root,
    mut followed: Vec<Followed>,
    mut newcomers: Option<Newcomers>,
    proc: &OwnedFd,
    interval: Duration,
    log: &Log,
) -> Result<()> {
    if let Some(newcomers) = &mut newcomers {
        newcomers.find(root, proc, &mut followed, log)?;
    }
    let mut next = Instant::now() + interval;
    while newcomers.is_some() || !followed.is_empty() {
        let mut reader = wait(&followed, newcomers.as_ref(), next)?;
        let mut running = Vec::new();
        for mut one in followed {
            // In this order: what is killed last may be init.
            let ended = one.has_ended();
            if one.oom.as_mut().is_some_and(OomWatch::happened) {
                reader &= print("oom", &one.id, None)?;
            }
            if !ended {
                running.push(one);
            }
        }
        followed = running;
        if let Some(newcomers) = &mut newcomers {
            newcomers.find(root, proc, &mut followed, log)?;
        }
        if Instant::now() >= next {
            next = Instant::now().max(next + interval);
            for one in &followed {
                reader &= one.print_stats(proc, log)?;
            }
        }
        if !reader {
            break;
        }
    }
    Ok(())
}

impl Followed {
    /// None: it does not run, or has no cgroup.
    fn new(container: &Container, proc: &OwnedFd) -> Result<Option<Self>> {
        let record = container.record()?.filter(|record| !record.cgroup.is_none());
        let (Some(record), (_, Some(init))) = (record, container.status(proc)?) else { return Ok(None) };
        Ok(Some(Self { id: container.id.clone(), record: record.clone(), init, oom: None }))
    }

    fn watch(self) -> Result<Self> {
        Ok(Self { oom: self.record.cgroup.watch_oom()?, ..self })
    }

    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.init.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }

    fn data(&self, proc: &OwnedFd) -> Result<Data> {
        Ok(Data {
            cgroup: self.record.cgroup.stats()?,
            intel_rdt: self.record.rdt.as_ref().map(rdt::Groups::stats).unwrap_or_default(),
            network_interfaces: self.interfaces(proc).filter(|interfaces| !interfaces.is_empty()),
        })
    }

    /// None: the namespace is that of this process.
    fn interfaces(&self, proc: &OwnedFd) -> Option<Vec<Interface>> {
        let pid = self.init.pid.as_raw_nonzero();
        let inode = |link: &str| rustix::fs::statat(proc, link, AtFlags::empty()).map(|stat| stat.st_ino).ok();
        let own = inode("self/ns/net") != inode(&format!("{pid}/ns/net"));
        own.then(|| host::read(proc, &format!("{pid}/net/dev")).ok()).flatten().map(|text| interfaces(&text))
    }

    /// False: nobody reads.
    fn print_stats(&self, proc: &OwnedFd, log: &Log) -> Result<bool> {
        match self.data(proc) {
            // Not of a cgroup that is about to be removed, nor of another process with init's pid.
            _ if self.has_ended() => Ok(true),
            Ok(data) => print("stats", &self.id, Some(data)),
            Err(error) => {
                warn(&format!("{}: {error}", self.id), log);
                Ok(true)
            }
        }
    }
}

/// Says it at once: this command may go on for ever.
fn warn(text: &str, log: &Log) {
    log.warning(text);
    log.succeeds();
}

/// Waits until something happens, at most until `next`. False: nobody reads what is printed.
fn wait(followed: &[Followed], newcomers: Option<&Newcomers>, next: Instant) -> Result<bool> {
    let stdout = std::io::stdout();
    // No flags: POLLERR comes all the same, when the reading end of a pipe is closed, and POLLHUP of a socket's peer.
    let mut fds = vec![PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
    fds.extend(newcomers.map(Newcomers::poll_fd));
    for one in followed {
        fds.push(PollFd::new(&one.init.pidfd, PollFlags::IN));
        fds.extend(one.oom.as_ref().and_then(OomWatch::poll_fd));
    }
    let left = Timespec::try_from(next.saturating_duration_since(Instant::now()))
        .map_err(|_| Error::at("--interval", "too long"))?;
    match rustix::event::poll(&mut fds, Some(&left)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Error::new("poll").errno(errno)),
    }
    Ok(!fds.first().is_some_and(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP)))
}

/// False: nobody reads.
fn print(kind: &'static str, id: &str, data: Option<Data>) -> Result<bool> {
    let mut line = serde_json::to_vec(&Event { kind, id, data }).map_err(|error| Error::new(error.to_string()))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout();
    match stdout.write_all(&line).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).map_err(|error| Error::new("write to stdout").errno(error)),
    }
}
