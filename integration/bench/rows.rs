//! A line of a table: the samples of each runtime, and of the floor.

use std::fmt::Write as _;
use std::time::Duration;

use super::floor_runs::Floor;
use super::{Result, Runtime};

/// A line of the table: the samples of each runtime.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) unit: &'static str,
    pub(super) samples: Vec<Vec<f64>>,
    /// Of the bare system calls; empty where there is nothing to compare with.
    pub(super) floor: Vec<f64>,
}

/// What is done with the floor in place of a runtime.
pub(super) type OnFloor<'a> = Option<(&'a Floor, &'a dyn Fn(&Floor) -> Result<Duration>)>;

impl Row {
    /// Takes samples of all runtimes, and of the floor, in turn, beginning with another one each time.
    pub(super) fn measure(
        label: impl Into<String>,
        runtimes: &[Runtime],
        count: usize,
        sample: impl Fn(&Runtime) -> Result<Duration>,
        floor: OnFloor<'_>,
    ) -> Result<Self> {
        let mut row = Self::new(label, "ms", runtimes.len());
        for round in 0..count {
            for n in 0..runtimes.len() {
                let n = (n + round) % runtimes.len();
                if let (Some(runtime), Some(samples)) = (runtimes.get(n), row.samples.get_mut(n)) {
                    samples.push(sample(runtime)?.as_secs_f64() * 1000.0);
                }
            }
            if let Some((floor, sample)) = floor {
                row.floor.push(sample(floor)?.as_secs_f64() * 1000.0);
            }
        }
        Ok(row)
    }

    pub(super) fn new(label: impl Into<String>, unit: &'static str, runtimes: usize) -> Self {
        Self { label: label.into(), unit, samples: vec![Vec::new(); runtimes], floor: Vec::new() }
    }

    /// The row in Markdown: median and minimum, and how many times ours, the first; then the floor, where one has it.
    /// Of these runtimes; none: of all.
    pub(super) fn render(&self, with_floor: bool, columns: &[usize]) -> String {
        let ours = self.samples.first().map_or(f64::NAN, |samples| median(samples));
        let mut line = format!("| {} |", self.label);
        for (n, samples) in self.samples.iter().enumerate() {
            if !columns.is_empty() && !columns.contains(&n) {
                continue;
            }
            let (median, min) = (median(samples), samples.iter().copied().fold(f64::INFINITY, f64::min));
            let _ = match samples.len() {
                1 if self.unit.is_empty() => write!(line, " {median}"),
                1 => write!(line, " {median:.2} {}", self.unit),
                _ => write!(line, " {median:.2} [{min:.2}] {}", self.unit),
            };
            if n > 0 {
                let _ = write!(line, ", {:.1}x", median / ours);
            }
            line.push_str(" |");
        }
        if with_floor && self.floor.is_empty() {
            line.push_str(" |");
        } else if with_floor {
            let floor = median(&self.floor);
            let _ = write!(line, " {floor:.2} {}, ours {:.2}x |", self.unit, ours / floor);
        }
        line
    }
}

pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
        (Some(middle), _) => *middle,
        _ => f64::NAN,
    }
}
