//! What an ordinary user may ask for, and how their ids are mapped. Pure.

use oci_spec::runtime::{Linux, LinuxIdMapping, Spec};

use super::{Facts, IdMap, Namespaces};
use crate::error::{Error, Result};
use crate::rootfs::plan::{MountKind, MountPlan};

/// Who runs this program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// In the caller's own user namespace, as `egid`.
    pub(crate) euid: u32,
    pub(crate) egid: u32,
    /// Whether that is not the initial one: root in it is root of what belongs to it only.
    pub(crate) in_user_namespace: bool,
}

impl Caller {
    /// An ordinary user.
    pub(crate) fn is_user(&self) -> bool {
        self.euid != 0
    }

    /// Whether the caller has the say over the whole host.
    pub(crate) fn is_real_root(&self) -> bool {
        self.euid == 0 && !self.in_user_namespace
    }
}

/// Who writes a map (user_namespaces(7), Defining user and group ID mappings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// We have CAP_SETUID or CAP_SETGID.
    Privileged,
    /// Everybody may map their own id, and only that; the group's, if setgroups(2) is given up.
    Owner,
    /// newuidmap(1) or newgidmap(1), by what root has granted in /etc/subuid and /etc/subgid.
    Tool,
}

const CAP_SETGID: u8 = 6;
const CAP_SETUID: u8 = 7;

impl Facts {
    /// Who writes the map of users, and who that of groups.
    pub(super) fn writers(&self, map: Option<&IdMap>) -> [Writer; 2] {
        let (uid, gid) = map.map_or(("", ""), |map| (&map.uid, &map.gid));
        [self.writer(uid, CAP_SETUID, self.caller.euid), self.writer(gid, CAP_SETGID, self.caller.egid)]
    }

    fn writer(&self, map: &str, capability: u8, own: u32) -> Writer {
        let words: Vec<&str> = map.split_whitespace().collect();
        match words.as_slice() {
            _ if self.permitted & 1 << capability != 0 => Writer::Privileged,
            [_, outside, "1"] if outside.parse() == Ok(own) => Writer::Owner,
            _ => Writer::Tool,
        }
    }
}

/// What only root may do is refused before anything is made. The texts are runc's.
pub(super) fn check(spec: &Spec, linux: &Linux, namespaces: &Namespaces, facts: &Facts) -> Result<()> {
    if !facts.caller.is_user() {
        return Ok(());
    }
    if !namespaces.has(libc::CLONE_NEWUSER) {
        return Err(Error::at("linux.namespaces", "rootless container requires user namespaces")
            .hint("add {\"type\": \"user\"}, with uidMappings and gidMappings; `spec --rootless` writes an example"));
    }
    let (uids, gids) = (mappings(linux.uid_mappings()), mappings(linux.gid_mappings()));
    if namespaces.is_new(libc::CLONE_NEWUSER) && uids.is_empty() != gids.is_empty() {
        let (field, kind) = if uids.is_empty() { ("linux.uidMappings", "UID") } else { ("linux.gidMappings", "GID") };
        return Err(Error::at(field, format!("rootless containers requires at least one {kind} mapping")));
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let given = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.as_ref().is_some_and(|all| !all.is_empty());
        let options = mount.options().as_deref().unwrap_or_default();
        let name = |option: &String| option.split('=').next().is_some_and(|name| matches!(name, "idmap" | "ridmap"));
        let idmap = options.iter().position(name);
        if idmap.is_some() || given(mount.uid_mappings()) || given(mount.gid_mappings()) {
            let field = idmap.map_or("uidMappings".to_owned(), |option| format!("options[{option}]"));
            let text = "id-mapped mounts are not supported for rootless containers";
            return Err(Error::at(format!("mounts[{index}].{field}"), text));
        }
        if namespaces.is_new(libc::CLONE_NEWUSER) {
            for (option, text) in options.iter().enumerate() {
                let field = || format!("mounts[{index}].options[{option}]");
                text.split(',').try_for_each(|word| check_owner(word, uids, gids, field))?;
            }
        }
    }
    Ok(())
}

fn mappings(mappings: &Option<Vec<LinuxIdMapping>>) -> &[LinuxIdMapping] {
    mappings.as_deref().unwrap_or_default()
}

/// `uid=` and `gid=` of a file system must be ids that the container has.
fn check_owner(
    option: &str,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
    field: impl Fn() -> String,
) -> Result<()> {
    let (id, mappings, kind) = match (option.strip_prefix("uid="), option.strip_prefix("gid=")) {
        (Some(id), _) => (id, uids, "user"),
        (_, Some(id)) => (id, gids, "group"),
        _ => return Ok(()),
    };
    match id.parse() {
        Ok(id) if !is_mapped(id, mappings) => {
            let text = format!("cannot specify {option} mount option for rootless container: ");
            Err(Error::at(field(), format!("{text}user namespaces enabled, but no {kind} mapping found for {id}"))
                .hint("map the id in linux.uidMappings or linux.gidMappings, or leave the option out"))
        }
        // What is no number, the file system will refuse.
        _ => Ok(()),
    }
}

/// In a user namespace the kernel may not grant a new sysfs or procfs. The host's shows the same to who has no pid namespace
/// of their own, and of a sysfs as much as the caller sees anyway.
pub(super) fn or_hosts(mounts: &mut [MountPlan], namespaces: &Namespaces, facts: &Facts) {
    if facts.caller.is_real_root() && !namespaces.has(libc::CLONE_NEWUSER) {
        return;
    }
    for mount in mounts {
        let MountKind::New { fstype, .. } = &mount.kind else { continue };
        mount.or_hosts = match fstype.to_bytes() {
            b"sysfs" => true,
            b"proc" => !namespaces.has(libc::CLONE_NEWPID),
            _ => false,
        };
    }
}

/// Whether an id of the container is an id of the host.
pub(super) fn is_mapped(id: u32, mappings: &[LinuxIdMapping]) -> bool {
    mappings.iter().any(|mapping| {
        let start = u64::from(mapping.container_id());
        (start..start + u64::from(mapping.size())).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::Version;
    use crate::plan::{Lsm, namespaces};

    fn facts(euid: u32, permitted: u64) -> Facts {
        let caller = Caller { euid, egid: euid, in_user_namespace: false };
        Facts { cgroups: Version::V2, last_cap: 40, permitted, lsm: Lsm::default(), caller }
    }

    fn checked(linux: &str, mounts: &str, euid: u32) -> String {
        let config = format!(r#"{{"ociVersion":"1.0.2","mounts":{mounts},"linux":{linux}}}"#);
        let spec = crate::spec::parse(config.as_bytes()).map(|loaded| loaded.spec).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let namespaces = namespaces::plan(linux).unwrap();
        check(&spec, linux, &namespaces, &facts(euid, 0)).map_or_else(|error| error.line(), |()| String::new())
    }

    #[test]
    fn an_ordinary_user_needs_a_user_namespace_with_mappings() {
        let none = r#"{"namespaces":[{"type":"mount"}]}"#;
        assert_eq!(checked(none, "[]", 7), "linux.namespaces: rootless container requires user namespaces");
        assert_eq!(checked(none, "[]", 0), "");
        assert_eq!(checked(r#"{"namespaces":[{"type":"user","path":"/x"}]}"#, "[]", 7), "");
        for (given, missing, kind) in [("gid", "uid", "UID"), ("uid", "gid", "GID")] {
            let linux = format!(
                r#"{{"namespaces":[{{"type":"user"}}],"{given}Mappings":[{{"containerID":0,"hostID":7,"size":1}}]}}"#
            );
            let text = format!("linux.{missing}Mappings: rootless containers requires at least one {kind} mapping");
            assert_eq!(checked(&linux, "[]", 7), text);
        }
    }

    #[test]
    fn what_a_user_may_not_mount_is_refused_by_option() {
        let map = |kind: &str| format!(r#""{kind}Mappings":[{{"containerID":0,"hostID":7,"size":5}}]"#);
        let linux = format!(r#"{{"namespaces":[{{"type":"user"}}],{},{}}}"#, map("uid"), map("gid"));
        let with = |options: &str| {
            checked(&linux, &format!(r#"[{{"destination":"/t","type":"tmpfs","options":{options}}}]"#), 7)
        };
        assert_eq!(with(r#"["nosuid","mode=755,uid=4","gid=0"]"#), "");
        assert_eq!(
            with(r#"["nosuid","mode=755,gid=5"]"#),
            "mounts[0].options[1]: cannot specify gid=5 mount option for rootless container: \
             user namespaces enabled, but no group mapping found for 5"
        );
        assert!(with(r#"["uid=5"]"#).contains("no user mapping found for 5"));
        let idmap = "mounts[0].options[1]: id-mapped mounts are not supported for rootless containers";
        assert_eq!(with(r#"["bind","idmap"]"#), idmap);
    }

    #[test]
    fn the_own_id_alone_needs_no_tool() {
        for (map, permitted, writer) in [
            ("0 7 1\n", 0, Writer::Owner),
            ("9 7 1\n", 0, Writer::Owner),
            ("0 8 1\n", 0, Writer::Tool),
            ("0 7 2\n", 0, Writer::Tool),
            ("0 7 1\n1 100000 5\n", 0, Writer::Tool),
            ("0 8 1\n", 1 << CAP_SETUID, Writer::Privileged),
            ("0 8 1\n", 1 << CAP_SETGID, Writer::Tool),
        ] {
            let map = IdMap { uid: map.to_owned(), gid: map.to_owned() };
            assert_eq!(facts(7, permitted).writers(Some(&map))[0], writer, "{map:?}");
        }
        let map = IdMap { uid: String::new(), gid: "0 8 1\n".to_owned() };
        assert_eq!(facts(7, 1 << CAP_SETGID).writers(Some(&map))[1], Writer::Privileged);
    }
}
