//! `spec`: writes an example configuration, the same as runc's. Runs in: parent.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cgroups;
use crate::error::{Error, Result};

/// The configuration for root, as it is written.
const TEMPLATE: &str = include_str!("spec_template.json");

/// Its last namespace.
const CGROUP_NAMESPACE: &str = ",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}";

/// `spec [--bundle DIR] [--rootless]`.
pub(crate) fn spec(bundle: &Path, rootless: bool) -> Result<()> {
    let path = bundle.join("config.json");
    let text = template(cgroups::is_v2());
    let text = if rootless { rootless_template(text) } else { text };
    let failed = |error: std::io::Error| Error::new(format!("write {}", path.display())).errno(error);
    let opened = std::fs::File::options().write(true).create_new(true).mode(0o644).open(&path);
    let mut file = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new("File config.json exists. Remove it first"));
        }
        result => result.map_err(failed)?,
    };
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

/// For root. As with runc, on v1 without a cgroup namespace; callers that want one there add it.
fn template(v2: bool) -> String {
    if v2 { TEMPLATE.to_owned() } else { TEMPLATE.replacen(CGROUP_NAMESPACE, "", 1) }
}

/// For an ordinary user, as runc: a user namespace that maps root to them, the host's network and so its /sys, no limits,
/// and no group that is not mapped.
fn rootless_template(template: String) -> String {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    changes(uid, gid).iter().fold(template, |text, (from, to)| text.replacen(from, to, 1))
}

fn changes(uid: u32, gid: u32) -> [(&'static str, String); 5] {
    let map = |kind: &str, id: u32| {
        let entry =
            format!("{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\t\t\t\t\"size\": 1\n\t\t\t}}");
        format!("\t\t\"{kind}Mappings\": [\n\t\t\t{entry}\n\t\t],\n")
    };
    let user = ",\n\t\t\t{\n\t\t\t\t\"type\": \"user\"\n\t\t\t}\n\t\t],\n\t\t\"maskedPaths\"";
    [
        // A new sysfs belongs to a network namespace of one's own.
        (SYSFS, "\"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",".to_owned()),
        (",\n\t\t\t\t\"gid=5\"", String::new()),
        (RESOURCES, map("uid", uid) + &map("gid", gid)),
        ("\t\t\t{\n\t\t\t\t\"type\": \"network\"\n\t\t\t},\n", String::new()),
        ("\n\t\t],\n\t\t\"maskedPaths\"", user.to_owned()),
    ]
}

const SYSFS: &str = "\"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [";
const RESOURCES: &str = "\t\t\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t},\n";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn all_templates_are_valid_configurations() -> Result<()> {
        for v2 in [true, false] {
            let text = template(v2);
            for (from, _) in changes(7, 8) {
                assert!(text.contains(from), "{from}");
            }
            let rootless = rootless_template(text.clone());
            assert!(!rootless.contains("gid=5") && rootless.contains("\"user\""));
            for text in [text, rootless] {
                crate::spec::parse(text.as_bytes())?;
                let spec: Value = serde_json::from_str(&text).map_err(|error| Error::new(error.to_string()))?;
                let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
                assert_eq!(namespaces.map(|all| all.contains(&json!({"type": "cgroup"}))), Some(v2));
            }
        }
        Ok(())
    }
}
