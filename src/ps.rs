//! `ps`: the processes of a container. Runs in: parent.

use std::ffi::OsString;
use std::process::Command;

use crate::error::{Error, Result};
use crate::host;
use crate::list::Format;
use crate::logging;
use crate::state::Root;

/// `ps ID [ARGS]`: the pids as JSON; or what the host's ps(1) prints with these arguments, of these processes.
pub(crate) fn ps(root: &Root, id: &str, format: Format, args: &[OsString]) -> Result<()> {
    let pids = root.find(id)?.processes(&host::open_proc()?)?;
    match format {
        // runc prints a nil slice.
        Format::Json if pids.is_empty() => logging::print("null\n"),
        Format::Json => {
            logging::print(&format!("[{}]\n", pids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")))
        }
        Format::Table => logging::print(&only(&host_ps(args)?, &pids)?),
    }
}

fn host_ps(args: &[OsString]) -> Result<String> {
    let mut command = Command::new("ps");
    if args.is_empty() {
        command.arg("-ef")
    } else {
        command.args(args)
    };
    let output = command.output().map_err(|error| Error::new("execute ps").errno(error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    // Its first line; the others say how it is used.
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().next().unwrap_or_default();
    Err(Error::new(format!("ps {args:?}: {}", output.status)).kernel(complaint))
}

/// The title, and the lines that have one of these in the column `PID`.
fn only(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines().filter(|line| !line.is_empty());
    let title = lines.next().unwrap_or_default();
    let Some(column) = title.split_whitespace().position(|name| name == "PID") else {
        return Err(
            Error::new("couldn't find PID field in ps output").hint("among its columns must be pid: -o pid,cmd")
        );
    };
    let mut kept = format!("{title}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        let pid: i32 = pid.ok_or_else(|| {
            Error::new(format!("unable to parse pid: {line:?}")).hint("put pid before columns that hold spaces")
        })?;
        if pids.contains(&pid) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn lines_are_chosen_by_the_column_named_pid() {
        let table = "UID  PID PPID CMD\nroot 7   1    sleep 9\nroot 9   7    sleep 7\n\n";
        assert_eq!(only(table, &[7, 12]).unwrap(), "UID  PID PPID CMD\nroot 7   1    sleep 9\n");
        assert_eq!(only(table, &[]).unwrap(), "UID  PID PPID CMD\n");
    }

    #[test]
    fn a_table_without_pids_is_an_error() {
        for table in ["", "CMD\nsleep 9\n", "CMD PID\nsleep 9 7\nsh\n"] {
            assert!(only(table, &[7]).is_err(), "{table:?}");
        }
    }
}
