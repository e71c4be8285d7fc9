//! `spec`: writes an example configuration, the same as runc's. Runs in: parent.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The configuration for root, as it is written.
const TEMPLATE: &str = include_str!("spec_template.json");

/// `spec [--bundle DIR] [--rootless]`.
pub(crate) fn spec(bundle: &Path, rootless: bool) -> Result<()> {
    let path = bundle.join("config.json");
    let text = if rootless { rootless_template()? } else { TEMPLATE.to_owned() };
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

/// For an ordinary user: a user namespace that maps root to them, the host's network, no limits.
fn rootless_template() -> Result<String> {
    let mut spec: Value = serde_json::from_str(TEMPLATE).map_err(|error| Error::new(error.to_string()))?;
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
    fn both_templates_are_valid_configurations() -> Result<()> {
        crate::spec::parse(TEMPLATE.as_bytes())?;
        let text = rootless_template()?;
        crate::spec::parse(text.as_bytes())?;
        assert!(!text.contains("gid=5") && text.contains("\"user\""));
        Ok(())
    }
}
