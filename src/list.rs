//! `list`: all containers of the root directory. Runs in: parent.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::host;
use crate::logging::{self, Log};
use crate::state::{Report, Root, Status};

/// How `list` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// `list`. A container that cannot be read is left out, with a warning.
pub(crate) fn list(root: &Root, format: Format, quiet: bool, log: &Log) -> Result<()> {
    let proc = host::open_proc()?;
    let (mut reports, mut known) = (Vec::new(), BTreeSet::new());
    for id in root.ids()? {
        let found = root.find(&id).and_then(|container| {
            let report = container.report(&proc, true)?;
            // A cgroup that is another's, too, or of a container that has ended, may have another one's mark by now.
            let record =
                container.record()?.filter(|record| report.status != Status::Stopped && record.cgroup.is_all_own());
            known.extend(record.and_then(|record| record.cgroup.marked_dir()).cloned());
            Ok(report)
        });
        match found {
            Ok(report) => reports.push(report),
            Err(error) => log.warning_of(&error),
        }
    }
    for record in root.lost(&proc, &known)? {
        let id = &record.id;
        log.warning(&format!(
            "container {id:?} has lost its directory in {}: `delete --force` removes it",
            root.path().display()
        ));
        reports.push(Report::lost(record));
    }
    if quiet {
        return logging::print(&reports.iter().map(|report| format!("{}\n", report.id)).collect::<String>());
    }
    match format {
        Format::Table => logging::print(&table(&reports)),
        // runc prints a nil slice, and its callers expect that.
        Format::Json if reports.is_empty() => logging::print("null\n"),
        Format::Json => {
            let text = serde_json::to_string(&reports).map_err(|error| Error::new(error.to_string()))?;
            logging::print(&format!("{text}\n"))
        }
    }
}

/// Columns at least 12 wide, three spaces between them: as runc.
fn table(reports: &[Report]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.id.clone(),
            report.pid.to_string(),
            report.status.to_string(),
            report.bundle.display().to_string(),
            report.created.clone(),
            report.owner.clone(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len() + 3).max(12);
        }
    }
    let line = |row: &[String; 6]| {
        let cells: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}
