//! What was measured, as tables in docs/performance.md and README.md and as pictures beside the former.

use std::fmt::Write as _;
use std::fs;

use super::matrix::{COLD, Table};
use super::rows::{Row, median};
use super::{Doing as _, Result, Runtime, Work, mounts};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.svg");
const MARKERS: (&str, &str) = ("<!-- bench:begin -->\n", "<!-- bench:end -->");
/// What of it stands in README.md, too.
const SHORT: [&str; 9] = [
    "`run`, warm",
    "`run`, cold",
    "`exec`, warm",
    "`exec`, cold",
    "`state`",
    "`kill`",
    "`run` with a seccomp profile like Docker's",
    "peak memory of `run`",
    "smallest `memory.limit` that runs `/bin/true`",
];
/// What is drawn.
const DRAWN: [&str; 5] = ["`run`, warm", "`run`, cold", "`exec`, warm", "`exec`, cold", "`state`"];

pub(super) struct Page<'a> {
    pub(super) runtimes: &'a [Runtime],
    pub(super) tables: &'a [Table],
    /// The table of system calls.
    pub(super) calls: &'a str,
    pub(super) host: String,
}

/// One line about this machine.
pub(super) fn host(work: &Work) -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").doing("osrelease")?;
    let kernel: Vec<_> = kernel.trim().split('.').take(2).collect();
    let cores = std::thread::available_parallelism().doing("cores")?;
    let cgroups = match (mounts("cgroup")?.is_empty(), work.unmounted) {
        (true, _) => "cgroup v2",
        (false, false) => "cgroup v1",
        (false, true) => "cgroup v1, its unified hierarchy unmounted because crun refuses it",
    };
    Ok(format!("Linux {}, {cores} cores, {cgroups}", kernel.join(".")))
}

impl Page<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for table in self.tables {
            let rows: Vec<&Row> = table.rows.iter().collect();
            let _ = write!(text, "### {}\n\n{}\n", table.title, self.table(&rows, &[]));
            if !table.note.is_empty() {
                let _ = writeln!(text, "{}\n", table.note);
            }
        }
        if !self.calls.is_empty() {
            let _ = writeln!(text, "### A system call in the container\n{}", self.calls);
        }
        text + &self.legend()
    }

    fn legend(&self) -> String {
        format!(
            "Median [minimum], and how many times ours; of the floor, how many times it ours is. *Warm* is back to back, *cold* after {} ms \
             of idleness. The same bundle for all (`runc spec`, /bin/true of busybox), interleaved, by `make bench`. Host: {}.\n",
            COLD.as_millis(),
            self.host
        )
    }

    fn table(&self, rows: &[&Row], columns: &[usize]) -> String {
        let floor = rows.iter().any(|row| !row.floor.is_empty());
        let runtimes = self.runtimes.iter().filter(|one| columns.is_empty() || columns.contains(&one.number));
        let mut names: Vec<&str> = runtimes.map(|runtime| runtime.name.as_str()).collect();
        names.extend(floor.then_some("floor"));
        let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
        for row in rows {
            let _ = writeln!(text, "{}", row.render(floor, columns));
        }
        text
    }

    fn rows(&self, labels: &[&str]) -> Vec<&Row> {
        let all = self.tables.iter().flat_map(|table| &table.rows);
        all.filter(|row| labels.contains(&row.label.as_str())).collect()
    }

    pub(super) fn write(&self) -> Result<()> {
        replace(PAGE, &self.text())?;
        // Ours, and the last runc and crun, which are the newest.
        let last = |name: &str| self.runtimes.iter().rfind(|one| one.name.starts_with(name)).map(|one| one.number);
        let columns: Vec<usize> = [Some(0), last("runc"), last("crun")].into_iter().flatten().collect();
        replace(README, &format!("{}\n{}", self.table(&self.rows(&SHORT), &columns), self.legend()))?;
        fs::write(PICTURE, self.picture()).doing(PICTURE)
    }

    /// Bars of the medians, on a logarithmic scale. The text has the colour of what is around it, light or dark.
    fn picture(&self) -> String {
        const COLOURS: [&str; 6] = ["#2f81f7", "#d29922", "#8b949e", "#9e6a03", "#57606a", "#bc8cff"];
        const FLOOR: (&str, &str) = ("floor", "#3fb950");
        let rows = self.rows(&DRAWN);
        let bars = self.runtimes.len() + 1;
        let height = rows.len() * (bars * 14 + 14) + 10;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <style>text{{fill:#1f2328}}@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}}}</style>\n"
        );
        let mut y = 14;
        for row in rows {
            let _ =
                writeln!(text, "<text x=\"4\" y=\"{y}\" font-weight=\"bold\">{}</text>", row.label.replace('`', ""));
            let names = self.runtimes.iter().map(|runtime| runtime.name.as_str()).zip(COLOURS);
            let names = names.chain([FLOOR]);
            let samples = row.samples.iter().chain([&row.floor]);
            for ((name, colour), samples) in names.zip(samples).filter(|(_, samples)| !samples.is_empty()) {
                let value = median(samples);
                // 0.1 ms is at the left.
                let width = (value * 10.0).log10().max(0.0) * 140.0;
                let _ = writeln!(
                    text,
                    "<rect x=\"110\" y=\"{}\" width=\"{width:.0}\" height=\"11\" fill=\"{colour}\"/>\
                     <text x=\"{:.0}\" y=\"{}\">{name}: {value:.2} {}</text>",
                    y - 9,
                    width + 116.0,
                    y,
                    row.unit
                );
                y += 14;
            }
            y += 14;
        }
        text + "</svg>\n"
    }
}

/// Replaces what stands between the markers of a file.
fn replace(file: &str, new: &str) -> Result<()> {
    let text = fs::read_to_string(file).doing(file)?;
    let parts = text.split_once(MARKERS.0).and_then(|(head, rest)| Some((head, rest.split_once(MARKERS.1)?.1)));
    let (head, tail) = parts.ok_or_else(|| format!("{file} has no markers {} and {}", MARKERS.0.trim(), MARKERS.1))?;
    fs::write(file, format!("{head}{}{new}{}{tail}", MARKERS.0, MARKERS.1)).doing(file)
}
