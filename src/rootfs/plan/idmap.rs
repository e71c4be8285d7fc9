//! Whose the files of a bind mount are: `uidMappings`, `gidMappings` and the options `idmap` and `ridmap`. Pure.

use oci_spec::runtime::{LinuxIdMapping, Mount};

use super::options::Options;
use crate::error::{Error, Result};
use crate::plan::IdMap;

/// How the ids of a bind mount's files are mapped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountIdMap {
    /// None: as those of the container's user namespace.
    pub(crate) map: Option<IdMap>,
    /// Those of the mounts below it too.
    pub(crate) recursive: bool,
    /// crun's mappings, with the index of the option, until `map` is made of them.
    pub(crate) option: Option<(usize, String)>,
}

/// Mappings without one of the options are for the mount alone.
pub(super) fn plan(field: &str, mount: &Mount, options: &mut Options) -> Result<Option<MountIdMap>> {
    let given = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.clone().filter(|mappings| !mappings.is_empty());
    let (uid_field, gid_field) = (format!("{field}.uidMappings"), format!("{field}.gidMappings"));
    let map = match (given(mount.uid_mappings()), given(mount.gid_mappings())) {
        (None, None) if options.idmap.is_none() => return Ok(None),
        (None, None) => None,
        (Some(uid), Some(gid)) => Some(IdMap::new(&uid, &uid_field, &gid, &gid_field)?),
        (uid, _) => {
            let missing = if uid.is_none() { uid_field } else { gid_field };
            return Err(Error::at(missing, "id-mapped mounts must have both uid and gid mappings specified"));
        }
    };
    if options.bind.is_none() || options.remount {
        let text = "id-mapped mounts are only supported for bind-mounts";
        return Err(Error::at(format!("{field}.type"), format!("{:?}: {text}", mount.typ().as_deref().unwrap_or(""))));
    }
    // Mappings of the mount come before those of an option, as with crun.
    let option = options.mappings.take().filter(|_| map.is_none());
    Ok(Some(MountIdMap { map, recursive: options.idmap == Some(true), option }))
}
