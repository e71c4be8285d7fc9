//! `spec`: writes an example configuration, the same as runc's. Runs in: parent.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

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
    let text = if rootless { rootless_template(&text)? } else { text };
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

/// For an ordinary user: a user namespace that maps root to them, the host's network, no limits.
fn rootless_template(template: &str) -> Result<String> {
    let mut spec: Value = serde_json::from_slice(template.as_bytes()).map_err(|error| Error::new(error.to_string()))?;
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert("uidMappings".into(), json!([{"containerID": 0, "hostID": uid, "size": 1}]));
        linux.insert("gidMappings".into(), json!([{"containerID": 0, "hostID": gid, "size": 1}]));
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|namespace| namespace.get("type") != Some(&json!("network")));
            namespaces.push(json!({"type": "user"}));
        }
    }
    for mount in spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(mount) = mount.as_object_mut() else { continue };
        if mount.get("type") == Some(&json!("sysfs")) {
            // A sysfs can be mounted only by who owns the network namespace; the host's is bound instead.
            mount.insert("type".into(), json!("none"));
            mount.insert("source".into(), json!("/sys"));
            mount.insert("options".into(), json!(["rbind", "nosuid", "noexec", "nodev", "ro"]));
        }
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            // Group 5 is not mapped.
            options.retain(|option| option != "gid=5");
        }
    }
    serde_json::to_string_pretty(&spec).map(|text| text + "\n").map_err(|error| Error::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_templates_are_valid_configurations() -> Result<()> {
        for v2 in [true, false] {
            let text = template(v2);
            let rootless = rootless_template(&text)?;
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
