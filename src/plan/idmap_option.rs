//! crun's option `idmap=uids=0-1000-10#20-2000-5;gids=@0-0-10` → the mappings of a mount. Pure.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder};

use super::IdMap;
use crate::error::{Error, Result};
use crate::rootfs::plan::MountPlan;

/// Reads the options, once it is known what the ids of the container are.
pub(super) fn resolve(mounts: &mut [MountPlan], linux: &Linux) -> Result<()> {
    for (index, mount) in mounts.iter_mut().enumerate() {
        let Some(idmap) = &mut mount.idmap else { continue };
        if let Some((option, text)) = idmap.option.take() {
            let field = format!("mounts[{index}].options[{option}]");
            idmap.map = Some(map(&text, linux, &field)?);
        }
    }
    Ok(())
}

/// Ids of a kind that is not mentioned are nobody's, as with crun.
fn map(text: &str, linux: &Linux, field: &str) -> Result<IdMap> {
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (all, kind, list) = match (part.strip_prefix("uids="), part.strip_prefix("gids=")) {
            (Some(list), _) => (linux.uid_mappings(), &mut uids, list),
            (_, Some(list)) => (linux.gid_mappings(), &mut gids, list),
            _ => return Err(Error::at(field, format!("{part:?} is neither uids= nor gids=")).hint(EXAMPLE)),
        };
        for triple in list.split('#') {
            let mapping = one(triple, all.as_deref().unwrap_or_default());
            kind.push(mapping.map_err(|what| Error::at(field, format!("{triple:?} {what}")).hint(EXAMPLE))?);
        }
    }
    IdMap::new(&uids, field, &gids, field)
}

const EXAMPLE: &str = "idmap=uids=FROM-TO-SIZE#...;gids=..., and @ before FROM if TO is an id of the container";

/// The first id on the file system, the first outside of it, and how many.
fn one(triple: &str, container: &[LinuxIdMapping]) -> std::result::Result<LinuxIdMapping, &'static str> {
    let (relative, numbers) = triple.strip_prefix('@').map_or((false, triple), |numbers| (true, numbers));
    let numbers: Vec<Option<u32>> = numbers.split('-').map(|number| number.parse().ok()).collect();
    let [Some(from), Some(to), Some(size)] = *numbers.as_slice() else { return Err("is not three numbers") };
    let mut outside = to;
    if relative {
        // All of it: what follows in the container may be somebody else's outside.
        let holds = |range: &&LinuxIdMapping| {
            let at = to.checked_sub(range.container_id());
            at.and_then(|at| at.checked_add(size)).is_some_and(|end| end <= range.size())
        };
        let range = container.iter().find(holds).ok_or("is relative to the container's ids, which do not have it")?;
        outside = range.host_id().saturating_add(to - range.container_id());
    }
    let mapping = LinuxIdMappingBuilder::default().container_id(from).host_id(outside).size(size);
    mapping.build().map_err(|_| "is not three numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_the_option_and_of_the_container() {
        let range = r#"[{"containerID":0,"hostID":100000,"size":10},{"containerID":10,"hostID":500,"size":5}]"#;
        let linux: Linux =
            serde_json::from_str(&format!(r#"{{"uidMappings":{range},"gidMappings":{range}}}"#)).unwrap();
        let of = |text: &str| map(text, &linux, "f").map(|map| (map.uid, map.gid)).map_err(|error| error.line());
        assert_eq!(of("uids=0-1-10#10-11-10;gids=0-100-10"), Ok(("0 1 10\n10 11 10\n".into(), "0 100 10\n".into())));
        assert_eq!(of("uids=@7-12-1#0-1-1;gids=@0-3-1"), Ok(("7 502 1\n0 1 1\n".into(), "0 100003 1\n".into())));
        assert_eq!(of("gids=0-0-1"), Ok((String::new(), "0 0 1\n".into())));
        for (text, error) in [
            ("uids=@0-15-1", "f: \"@0-15-1\" is relative to the container's ids, which do not have it"),
            ("uids=@0-7-4", "f: \"@0-7-4\" is relative to the container's ids, which do not have it"),
            ("uids=0-1-junk-10", "f: \"0-1-junk-10\" is not three numbers"),
            ("uids=0-1", "f: \"0-1\" is not three numbers"),
            ("uids=0-x-1", "f: \"0-x-1\" is not three numbers"),
            ("pids=0-1-1", "f: \"pids=0-1-1\" is neither uids= nor gids="),
        ] {
            assert_eq!(of(text), Err(error.into()));
        }
    }
}
