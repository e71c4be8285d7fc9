//! `--interval` and `--timeout`, in the syntax of Go's time.ParseDuration, since callers are Go programs: `5s`, `1m30s`, `1.5h`. Pure.

use std::time::Duration;

use crate::error::{Error, Result};

/// The units, in nanoseconds. Both characters that look like a micro sign are taken for one.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration above 0.
pub(crate) fn duration(option: &str, text: &str) -> Result<Duration> {
    let (negative, amount) = match text.strip_prefix('-') {
        Some(amount) => (true, amount),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let Some(nanoseconds) = nanoseconds(amount) else {
        return Err(Error::at(option, format!("{text:?} is no duration")).hint("for example 5s, 1m30s or 100ms"));
    };
    if negative || nanoseconds == 0 {
        return Err(Error::at(option, format!("{text:?}: duration interval must be greater than 0")));
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (text, 0u128);
    let in_number = |c: char| c.is_ascii_digit() || c == '.';
    while !rest.is_empty() || text.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c| !in_number(c))?);
        let (unit, tail) = tail.split_at(tail.find(in_number).unwrap_or(tail.len()));
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(amount(number, *scale)?)?;
        rest = tail;
    }
    // Go's longest duration, some 292 years.
    u64::try_from(sum).ok().filter(|sum| i64::try_from(*sum).is_ok())
}

/// `1.5` of a unit.
fn amount(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if fraction.contains('.') {
        return None;
    }
    // Of an hour, the fourteenth digit is less than a nanosecond.
    let fraction: String = fraction.chars().take(13).collect();
    let value = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let parts = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    value(whole)?.checked_mul(scale)?.checked_add(value(&fraction)?.checked_mul(scale)? / parts)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, nanoseconds) in [
            ("5s", 5_000_000_000),
            ("+100ms", 100_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1us1ns", 1_001),
            ("2\u{b5}s", 2_000),
            ("2\u{3bc}s", 2_000),
            ("0.00000000000000000001h1ns", 1),
            ("2562047h", 9_223_369_200_000_000_000),
        ] {
            let parsed = duration("--interval", text).map_err(|error| error.to_string());
            assert_eq!(parsed.map(|duration| duration.as_nanos()), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_go_does_not_take_is_refused() {
        for text in [
            "",
            "5",
            "s",
            ".s",
            "1.2.3s",
            "5 s",
            "5S",
            "1d",
            "--1s",
            "+-1s",
            "5s5",
            "2562048h",
            "99999999999999999999999999999999999999999h",
        ] {
            let error = duration("--interval", text).unwrap_err().to_string();
            assert!(error.contains("is no duration"), "{text}: {error}");
        }
        for text in ["0", "0s", "-5s", "-0"] {
            let error = duration("--interval", text).unwrap_err().to_string();
            assert!(error.contains("must be greater than 0"), "{text}: {error}");
        }
    }
}
