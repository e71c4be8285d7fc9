//! A container without a cgroup of its own (`--cgroup-manager disabled`): it has no directory in any hierarchy, and its
//! processes stay where its creator is. Runs in: parent.

use super::{Cgroup, Setting};
use crate::error::{Error, Result};

/// Why something cannot be done with such a container.
const DISABLED: &str = "the container has no cgroup: its --cgroup-manager is disabled";

impl Cgroup {
    /// Whether it is none.
    pub(crate) fn is_none(&self) -> bool {
        self.dirs.is_empty()
    }

    /// For what cannot be done without one.
    pub(crate) fn needed(&self) -> Result<&Self> {
        match (self.is_none(), self.shown().next()) {
            (false, _) => Ok(self),
            (true, None) => Err(Error::new(DISABLED)),
            (true, Some(_)) => {
                Err(Error::new("the container has no cgroup: no permission was granted for one at create"))
            }
        }
    }
}

/// Refuses limits, for which there would be no place. What sets none is no limit.
pub(crate) fn check(settings: &[Setting]) -> Result<()> {
    settings.iter().find(|setting| !setting.optional).map_or(Ok(()), |setting| Err(refuse(setting)))
}

pub(super) fn refuse(setting: &Setting) -> Error {
    Error::at(setting.field.clone(), format!("{:?} needs a cgroup, and {DISABLED}", setting.value.trim_end()))
}
