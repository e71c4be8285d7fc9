//! `kill`: a signal to init, or to all processes. Runs in: parent.

use std::os::fd::AsFd;
use std::str::FromStr;

use nix::sys::signal::Signal;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::host;
use crate::state::{Root, Status};
use crate::sys;

/// `kill ID [SIGNAL]`, with `--all` to every process of its cgroup.
pub(crate) fn kill(root: &Root, id: &str, signal: &str, all: bool) -> Result<()> {
    let signal = parse(signal)?;
    let proc = host::open_proc()?;
    let container = root.find(id)?;
    let found = container.init_or_status(&proc)?;
    let record = container.record()?;
    if let (true, Some(record)) = (all, &record) {
        if container.is_over(&proc, record)? {
            return Ok(());
        }
        if signal == libc::SIGKILL && !record.cgroup.dirs.is_empty() {
            return record.cgroup.kill();
        }
        return kill_all(&container.processes(&proc)?, signal);
    }
    let process = match (found, record) {
        (Ok(process), _) => process,
        // What init has left where it was not the first of a pid namespace: runc, too, since 1.2.
        (Err(Status::Stopped), Some(record))
            if signal == libc::SIGKILL
                && !record.own_pid_namespace
                && !record.cgroup.dirs.is_empty()
                && !container.processes(&proc)?.is_empty() =>
        {
            return record.cgroup.kill();
        }
        (Err(_), _) => return Err(Error::new("container not running")),
    };
    match sys::pidfd_send_signal(process.pidfd.as_fd(), signal) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Err(Error::new("container not running")),
        Err(errno) => return Err(Error::new(format!("send signal {signal}")).errno(errno)),
    }
    match record {
        // Without a pid namespace init's death leaves the others alive.
        // And a frozen process of v1 gets its signal when it is thawed, and only then. Asked after the signal: a `pause` may come before it.
        Some(record) if signal == libc::SIGKILL && (!record.own_pid_namespace || record.cgroup.may_hold_frozen()) => {
            record.cgroup.kill_with(process.pid, &process.pidfd)
        }
        _ => Ok(()),
    }
}

fn kill_all(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        let Some(pid) = rustix::process::Pid::from_raw(*pid) else { continue };
        let sent = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .and_then(|pidfd| sys::pidfd_send_signal(pidfd.as_fd(), signal));
        match sent {
            // EINVAL, of older kernels: it is dead, and its number that of a process group.
            Ok(()) | Err(Errno::SRCH | Errno::INVAL) => {}
            Err(errno) => {
                return Err(Error::new(format!("send signal {signal} to {}", pid.as_raw_nonzero())).errno(errno));
            }
        }
    }
    Ok(())
}

/// A number, a name with or without SIG in any case, or RTMIN+n and RTMAX-n.
fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        // 0 sends nothing, and tells whether one could be sent (kill(2)).
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // SIGRTMIN is 34 for programs: libc keeps 32 and 33 to itself (signal(7)).
    let real_time = match name {
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        _ => {
            let above = name.strip_prefix("RTMIN+").and_then(|number| number.parse::<u8>().ok());
            let below = name.strip_prefix("RTMAX-").and_then(|number| number.parse::<u8>().ok());
            above.map(|number| 34 + i32::from(number)).or(below.map(|number| 64 - i32::from(number)))
        }
    };
    match real_time {
        Some(number) if (34..=64).contains(&number) => Ok(number),
        Some(_) => Err(unknown()),
        None => {
            let name = match name {
                "CLD" => "CHLD",
                "POLL" => "IO",
                "IOT" => "ABRT",
                name => name,
            };
            Signal::from_str(&format!("SIG{name}")).map(|signal| signal as i32).map_err(|_| unknown())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_are_numbers_or_names() {
        for (text, number) in [
            ("0", 0),
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("hup", 1),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(parse(text).ok(), Some(number), "{text}");
        }
        for text in ["", "65", "-1", "SIG", "BANANA", "RTMIN+31", "9x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
