//! Cgroups that systemd makes: a scope unit for each container. Runs in: parent. Talks to systemd over D-Bus.
//!
//! systemd makes the directory, and writes what it has words for ([`properties`]); all files are then written as without
//! it. A scope cannot be made empty: a process of ours holds it until the container's is in it ([`Holder`]).

pub(super) mod properties;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use super::settings::Setting;
use super::{Cgroup, Version, devices};
use crate::dbus::{Connection, Failure, Method, Value};
use crate::error::{Error, Result};
use crate::sys;
use properties::Name;
pub(crate) use properties::Property;

/// The unit of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) name: String,
    slice: String,
    /// Whether it is of the user's own systemd.
    user: bool,
}

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Where systemd itself listens, for root, when the bus is not there.
const SYSTEM_PRIVATE: &str = "/run/systemd/private";
const SERVICE: &str = "org.freedesktop.systemd1";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The service manager of the system, or of this user.
#[derive(Debug)]
pub(crate) struct Manager {
    connection: Connection,
    user: bool,
}

impl Manager {
    /// Of the system for its root, of the user for everybody else.
    pub(crate) fn connect(user: bool) -> Result<Self> {
        if !Path::new("/run/systemd/system").is_dir() {
            let text = "systemd cgroup flag passed, but systemd support for managing cgroups is not available";
            return Err(Error::at("--systemd-cgroup", text).hint("this host was not booted with systemd"));
        }
        let (socket, bus) = if user { (user_bus()?, true) } else { system_bus() };
        let failed = |failure| failed(&format!("connect to systemd at {}", socket.display()), &failure);
        let mut connection = Connection::open(&socket).map_err(failed)?;
        if bus {
            let bus = |member| Method {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member,
            };
            let rule = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            connection.call(&bus("Hello"), &[]).map_err(failed)?;
            connection.call(&bus("AddMatch"), &[Value::Str(rule.to_owned())]).map_err(failed)?;
        }
        let mut manager = Self { connection, user };
        manager.call("Subscribe", &[]).map_err(failed)?;
        Ok(manager)
    }

    fn call(&mut self, member: &str, arguments: &[Value]) -> std::result::Result<Vec<Value>, Failure> {
        let interface = "org.freedesktop.systemd1.Manager";
        let method = Method { destination: SERVICE, path: "/org/freedesktop/systemd1", interface, member };
        self.connection.call(&method, arguments)
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let interface = "org.freedesktop.DBus.Properties";
        let method = Method { destination: SERVICE, path: "/org/freedesktop/systemd1", interface, member: "Get" };
        let arguments = [Value::Str("org.freedesktop.systemd1.Manager".to_owned()), Value::Str(name.to_owned())];
        let got = self.connection.call(&method, &arguments);
        let got = got.map_err(|failure| failed(&format!("get {name} of systemd"), &failure))?;
        Ok(got.first().and_then(Value::text).unwrap_or_default().to_owned())
    }

    /// Starts a job, and waits until it is done.
    fn job(&mut self, member: &str, arguments: &[Value]) -> std::result::Result<String, Failure> {
        let answer = self.call(member, arguments)?;
        let job = answer.first().and_then(Value::text).unwrap_or_default().to_owned();
        self.connection.wait("JobRemoved", |arguments| {
            let [_, path, _, result] = arguments else { return None };
            (path.text() == Some(&job)).then(|| result.text().unwrap_or_default().to_owned())
        })
    }

    /// Where the unit for `linux.cgroupsPath` will be, below the root of a hierarchy.
    pub(super) fn place(&mut self, cgroups_path: Option<&Path>, id: &str) -> Result<(Unit, PathBuf)> {
        let path = cgroups_path.map(|path| path.to_string_lossy());
        let default_slice = if self.user { "user.slice" } else { "system.slice" };
        let Name { unit, slice } = properties::name(path.as_deref(), id, default_slice)?;
        let mut dir = PathBuf::from(self.property("ControlGroup")?.trim_matches('/'));
        let parent = if unit.ends_with(".slice") { properties::expand(&unit)? } else { properties::expand(&slice)? };
        dir.push(parent);
        if !unit.ends_with(".slice") {
            dir.push(&unit);
        }
        Ok((Unit { name: unit, slice, user: self.user }, dir))
    }

    /// systemd's version, where it is a number.
    pub(super) fn version(&mut self) -> u32 {
        let text = self.property("Version").unwrap_or_default();
        let digits: String =
            text.chars().skip_while(char::is_ascii_lowercase).take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    /// Makes the unit. As long as the answer lives, there is a process in it. `asked` are the properties of annotations.
    fn start(&mut self, unit: &Unit, version: Version, asked: &[Property], limits: Vec<Property>) -> Result<Holder> {
        let mut holder = Some(Holder::new()?);
        let pid = holder.as_ref().map_or(0, |holder| holder.pid);
        let name = Name { unit: unit.name.clone(), slice: unit.slice.clone() };
        let mut properties = properties::of_unit(&name, version, pid);
        properties.extend(asked.iter().cloned().chain(limits));
        let arguments = [
            Value::Str(unit.name.clone()),
            Value::Str("replace".to_owned()),
            value(properties),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        let what = || format!("start unit {}", unit.name);
        let mut result = self.job("StartTransientUnit", &arguments);
        // What is left of one that has failed; one that is running stays as it is.
        if matches!(&result, Err(failure) if failure.is(UNIT_EXISTS)) {
            self.reset_failed(unit);
            result = self.job("StartTransientUnit", &arguments);
        }
        // Where systemd refuses the call there is no unit of ours, but there may be another's.
        let begun = match &result {
            Ok(done) => done != "done",
            Err(failure) => matches!(failure, Failure::Timeout),
        };
        if begun {
            drop(holder.take());
            // Not waited for: it may be what does not come to an end.
            let _ = self.call("StopUnit", &[Value::Str(unit.name.clone()), Value::Str("replace".to_owned())]);
            self.reset_failed(unit);
        }
        match (result, holder) {
            (Ok(_), Some(holder)) => Ok(holder),
            (Ok(other), None) => {
                Err(Error::at("linux.cgroupsPath", format!("{}: the job's result is {other:?}", what())))
            }
            (Err(failure), _) if failure.is(UNIT_EXISTS) => Err(Error::at("linux.cgroupsPath", what())
                .kernel(failure.to_string())
                .hint(format!("another container may have it: systemctl status {}", unit.name))),
            (Err(failure), _) => {
                // It names the property that it does not know, or whose value it does not take.
                let text = failure.to_string();
                let named =
                    asked.iter().find(|(name, _)| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == name));
                let field = named.map_or("linux.cgroupsPath".to_owned(), |(name, _)| properties::annotation(name));
                Err(Error::at(field, what()).kernel(text))
            }
        }
    }

    /// Stops the unit and forgets its failure. That there is none is no error.
    pub(super) fn stop(&mut self, unit: &Unit) -> Result<()> {
        let arguments = [Value::Str(unit.name.clone()), Value::Str("replace".to_owned())];
        match self.job("StopUnit", &arguments) {
            Ok(_) => {}
            Err(failure) if failure.is(NO_SUCH_UNIT) => return Ok(()),
            Err(failure) => return Err(failed(&format!("stop unit {}", unit.name), &failure)),
        }
        self.reset_failed(unit);
        Ok(())
    }

    /// A unit that is not failed, or not there, is an error for systemd and not for us.
    fn reset_failed(&mut self, unit: &Unit) {
        let _ = self.call("ResetFailedUnit", &[Value::Str(unit.name.clone())]);
    }

    /// Changes properties until the unit ends.
    pub(super) fn set(&mut self, unit: &Unit, properties: Vec<Property>) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = [Value::Str(unit.name.clone()), Value::Bool(true), value(properties)];
        let set = self.call("SetUnitProperties", &arguments);
        set.map_err(|failure| failed(&format!("set properties of unit {}", unit.name), &failure))?;
        // systemd writes the files after its answer, and before it listens again: this has the last word after it.
        self.property("Version").map(drop)
    }
}

impl Cgroup {
    /// Has systemd make the unit, if one is wanted. `asked` is what annotations want it to be told. The answer is to live
    /// until a process of the container is in the cgroup.
    pub(crate) fn start_unit(
        &self,
        manager: Option<&mut Manager>,
        asked: &[Property],
        settings: &[Setting],
        rules: &[devices::Rule],
    ) -> Result<Option<Holder>> {
        let (Some(manager), Some(unit)) = (manager, &self.unit) else { return Ok(None) };
        let mut limits = properties::of_settings(settings, &|_| None, &mut || manager.version());
        // mknod is always on that list, and a container's init needs no more of the devices.
        limits.extend(properties::of_devices(rules));
        let holder = manager.start(unit, self.version, asked, limits)?;
        // The child would be cloned into whatever is there.
        let place = self.dirs.iter().find(|(controllers, _)| controllers.is_empty() || *controllers == "name=systemd");
        match place {
            Some((_, dir)) if !dir.is_dir() => Err(failed_place(unit, dir)),
            _ => Ok(Some(holder)),
        }
    }

    /// Gives the limit of processes of a scope room for so many others: its holder would take the place of init where the
    /// limit is 1. Init waits for us until the holder is gone.
    pub(crate) fn make_room(&self, settings: &[Setting], others: u64) -> Result<()> {
        for setting in settings.iter().filter(|setting| self.unit.is_some() && setting.file == "pids.max") {
            if let Ok(limit) = setting.value.trim().parse::<u64>() {
                self.apply_one(&Setting { value: limit.saturating_add(others).to_string(), ..setting.clone() })?;
            }
        }
        Ok(())
    }
}

impl Unit {
    /// Whether it is of the user's own systemd.
    pub(super) fn is_users(&self) -> bool {
        self.user
    }

    /// A connection to the systemd that has it.
    pub(super) fn manager(&self) -> Result<Manager> {
        Manager::connect(self.user)
    }

    /// Has systemd move a process there, which a user may not do between any two cgroups.
    pub(crate) fn attach(&self, pid: rustix::process::Pid) -> Result<()> {
        let pids = Value::Array("u".to_owned(), vec![Value::U32(pid.as_raw_nonzero().get().unsigned_abs())]);
        let arguments = [Value::Str(self.name.clone()), Value::Str("/".to_owned()), pids];
        let attached = self.manager()?.call("AttachProcessesToUnit", &arguments);
        attached.map(drop).map_err(|failure| failed(&format!("move the process into unit {}", self.name), &failure))
    }

    /// Waits until it has ended, now that its cgroup is gone. Where systemd cannot be reached there is nobody to wait for:
    /// an empty scope ends by itself.
    pub(super) fn stop(&self) -> Result<()> {
        self.manager().map_or(Ok(()), |mut manager| manager.stop(self))
    }

    /// Tells systemd the device rules, or it would forbid tomorrow what we allow today.
    pub(super) fn set_devices(&self, rules: &[devices::Rule]) -> Result<()> {
        self.manager()?.set(self, properties::of_devices(rules))
    }
}

fn failed_place(unit: &Unit, dir: &Path) -> Error {
    let text = format!("start unit {}: systemd has not made {}", unit.name, dir.display());
    Error::at("linux.cgroupsPath", text)
        .hint("it may have put the unit into another slice: systemctl show -p ControlGroup")
}

fn value(properties: Vec<Property>) -> Value {
    let pair = |(name, value)| Value::Struct(vec![Value::Str(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".to_owned(), properties.into_iter().map(pair).collect())
}

fn failed(what: &str, failure: &Failure) -> Error {
    Error::at("--systemd-cgroup", what).kernel(failure.to_string())
}

fn system_bus() -> (PathBuf, bool) {
    let bus = Path::new(SYSTEM_BUS).exists();
    (PathBuf::from(if bus { SYSTEM_BUS } else { SYSTEM_PRIVATE }), bus)
}

/// `DBUS_SESSION_BUS_ADDRESS`, for example `unix:path=/run/user/1000/bus,guid=...`; else what systemd's user session has.
fn user_bus() -> Result<PathBuf> {
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let path = address.split(';').find_map(|one| one.strip_prefix("unix:path="));
    if let Some(path) = path.and_then(|rest| rest.split(',').next()) {
        return Ok(PathBuf::from(path));
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => Ok(Path::new(&dir).join("bus")),
        None => Err(Error::at("--systemd-cgroup", "there is no address of the user's bus")
            .hint("set DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR; a login session has them")),
    }
}

/// A process that does nothing, so that the scope is not empty before the container's is in it.
#[derive(Debug)]
pub(crate) struct Holder {
    pid: u32,
    pidfd: OwnedFd,
}

impl Holder {
    fn new() -> Result<Self> {
        let parent = rustix::process::getpid();
        let cloned = sys::clone3(sys::Clone3::default());
        match cloned.map_err(|errno| Error::new("clone a process for the scope").errno(errno))? {
            sys::Cloned::Child => {
                let kill = rustix::process::Signal::KILL;
                let set = rustix::process::set_parent_process_death_signal(Some(kill));
                // Who dies before that is not our parent any more.
                if set.is_ok() && rustix::process::getppid() == Some(parent) {
                    loop {
                        rustix::event::pause();
                    }
                }
                sys::exit_now(1)
            }
            sys::Cloned::Parent { pid, pidfd } => Ok(Self { pid: pid.as_raw_nonzero().get().unsigned_abs(), pidfd }),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        let _ = rustix::io::retry_on_intr(wait);
    }
}
