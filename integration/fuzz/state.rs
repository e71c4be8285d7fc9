//! The files in a container's directory: one object, whose members are the files. A text is taken as it is, whatever else
//! there is as JSON. Only what reads is called: a record names cgroups that `delete` would empty.

use std::fs;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::promise;
use crate::host;
use crate::state::Root;

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("runtime-fuzz-{}", std::process::id()));
    fs::create_dir_all(path.join("c1")).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    Root::new(&path).unwrap_or_else(|error| panic!("{error}"))
});

pub(super) fn state(bytes: &[u8]) {
    let Ok(files) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return };
    let directory = ROOT.path().join("c1");
    for name in ["record.json", "state.json", "devices.json"] {
        let path = directory.join(name);
        let written = match files.get(name) {
            None => fs::remove_file(path).or(Ok(())),
            Some(Value::String(text)) => fs::write(path, text),
            Some(value) => fs::write(path, value.to_string()),
        };
        written.unwrap_or_else(|error: std::io::Error| panic!("{name}: {error}"));
    }
    let container = ROOT.find("c1").unwrap_or_else(|error| panic!("{error}"));
    let proc = host::open_proc().unwrap_or_else(|error| panic!("{error}"));
    let checked = |error: &crate::error::Error| error.to_string().split('\n').for_each(promise::line);
    if let Ok(report) = container.report(&proc, true).inspect_err(checked) {
        promise::line(&report.owner);
        let _ = serde_json::to_string_pretty(&report).map_err(|error| panic!("{error}"));
    }
    let _ = container.left_over(&ROOT, &proc).inspect_err(checked);
    let _ = container.devices().inspect_err(checked);
    if let Ok(Some(record)) = container.record().inspect_err(checked) {
        ROOT.mark(&record);
        let _ = container.is_over(&proc, &record).inspect_err(checked);
    }
}
