//! Files of the kernel, which say what a container makes them say: names of devices and programs, figures.

#[path = "../../src/cgroups/stats/figures.rs"]
mod figures;
#[path = "../../src/events/interval.rs"]
mod interval;
#[path = "../../src/cgroups/stats/parse.rs"]
mod parse;

use procfs::FromRead;

pub(super) fn kernel(bytes: &[u8]) {
    let text = &String::from_utf8_lossy(bytes);
    parse::number(text);
    parse::numbers(text);
    parse::table(text);
    parse::usage_all(text);
    parse::list(text);
    parse::blkio(text);
    parse::io_stat(text);
    parse::psi(text);
    crate::netdev::interfaces(text);
    // Only the name is the process' own.
    let stat = [b"7 (", &bytes[..bytes.len().min(15)], b") S 1 7 7", " 0".repeat(48).as_bytes(), b"\n"].concat();
    let stat = procfs::process::Stat::from_read(stat.as_slice()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((stat.pid, stat.state, stat.ppid), (7, 'S', 1));
    let _ = interval::duration("--interval", text);
    if let Err(error) = crate::cgroups::devices::change(true, text) {
        error.to_string().split('\n').for_each(super::promise::line);
    }
}
