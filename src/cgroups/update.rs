//! Other limits for a cgroup that is in use. Runs in: parent.

use oci_spec::runtime::LinuxResources;

use super::settings::{self, Setting};
use super::systemd::properties::of_settings;
use super::{Cgroup, Version, devices, read_file, v1, v2};
use crate::error::{Error, Result};

impl Cgroup {
    /// Writes new limits, and does `then` what belongs to them. On an error of either, all files get their old values
    /// back.
    pub(crate) fn update(&self, resources: &LinuxResources, then: impl FnOnce() -> Result<()>) -> Result<()> {
        let current = |file: &str| self.text(file);
        let mut settings = settings::update(self.version, resources, &current)?;
        if self.unit.is_some() {
            keep_period(&mut settings, &current);
        }
        let before = settings::ways_back(&settings, &current);
        let before: Vec<_> = before.into_iter().map(|back| (self.text(&back.file), back)).collect();
        self.apply(&settings)
            .and_then(|()| self.tell(&settings))
            .and_then(|()| if self.unit.is_some() { self.apply(&settings) } else { Ok(()) })
            .map_err(|error| self.explain(error))
            .and_then(|()| then())
            .map_err(|error| self.put_back(before).iter().fold(error, Error::undo))
    }

    /// Tells systemd what was written, if it has made the cgroup: or it would write the old values again. Not before, since
    /// only the kernel knows what it refuses, and nobody can take processors back from a cgroup that had none of its own.
    /// It writes the values as it understands them, in steps of 10 ms for one: so ours come again.
    fn tell(&self, settings: &[Setting]) -> Result<()> {
        let Some(unit) = self.unit.as_ref().filter(|_| !settings.is_empty()) else { return Ok(()) };
        let mut manager = unit.manager()?;
        let mut properties = of_settings(settings, &|file| self.text(file), &mut || manager.version());
        // Of a unit that runs it cannot be changed.
        properties.retain(|(name, _)| name != "OOMPolicy");
        manager.set(unit, properties)
    }

    /// Why v1's kernel refuses a memory limit.
    fn explain(&self, error: Error) -> Error {
        let hint = match error.raw_errno().filter(|_| error.line().starts_with("linux.resources.memory.")) {
            Some(libc::EINVAL) => self.text("memory.memsw.limit_in_bytes").map(|limit| {
                format!("memory and swap together are limited to {} bytes: set both at once", limit.trim())
            }),
            Some(libc::EBUSY) => self
                .text("memory.usage_in_bytes")
                .map(|usage| format!("{} bytes are in use, and not all of them can be taken back", usage.trim())),
            _ => None,
        };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn text(&self, file: &str) -> Option<String> {
        read_file(self.dir(file.split('.').next()?)?, file).ok()
    }

    /// In reverse, and twice: one value may be refused for the sake of another that is not back yet. Returns what fails.
    fn put_back(&self, before: Vec<(Option<String>, Setting)>) -> Vec<Error> {
        let changed = || before.iter().rev().filter(|(text, setting)| self.text(&setting.file) != *text);
        changed().for_each(|(_, setting)| drop(self.apply_one(setting)));
        let failures: Vec<_> = changed().filter_map(|(_, setting)| self.apply_one(setting).err()).collect();
        let settings: Vec<_> = before.iter().map(|(_, setting)| setting.clone()).collect();
        let told = self.tell(&settings).err();
        changed().for_each(|(_, setting)| drop(self.apply_one(setting)));
        failures.into_iter().chain(told).collect()
    }

    /// Goes from one list of device rules to another, without a moment in which what both allow is denied.
    pub(crate) fn change_devices(&self, from: &[devices::Rule], to: &[devices::Rule]) -> Result<()> {
        let unit = self.unit.as_ref();
        // There systemd and we have one list, which it empties first. Nobody opens a device meanwhile.
        let can_halt = self.needed()?.version == Version::V1 && self.dir("freezer").is_some();
        let halt = can_halt && unit.is_some() && !self.is_frozen();
        if halt {
            self.freeze()?;
        }
        let set = |from, to| {
            unit.map_or(Ok(()), |unit| unit.set_devices(to))?;
            match self.version {
                Version::V1 if unit.is_some() => v1::apply_devices(self, to),
                Version::V1 => v1::change_devices(self, from, to),
                Version::V2 => v2::change_devices(self, to),
            }
        };
        let changed = set(from, to).map_err(|error| match unit.map_or(Ok(()), |_| set(to, from)) {
            Ok(()) => error,
            Err(failure) => error.undo(&failure),
        });
        let thawed = if halt { self.thaw() } else { Ok(()) };
        changed.and(thawed)
    }
}

/// systemd forgets the period where there is no quota: one word of `cpu.max` is not enough.
fn keep_period(settings: &mut [Setting], current: &dyn Fn(&str) -> Option<String>) {
    let Some(setting) = settings.iter_mut().find(|setting| setting.file == "cpu.max") else { return };
    let now = current("cpu.max").unwrap_or_default();
    let (None, Some(period)) = (setting.value.split_whitespace().nth(1), now.split_whitespace().nth(1)) else { return };
    setting.value = format!("{} {period}", setting.value);
}
