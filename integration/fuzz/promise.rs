//! What holds whatever comes in.

use std::fmt::Debug;

use crate::error::Error;
use crate::fuzz::config::FIELDS;

/// A line, which a terminal may get.
pub(super) fn line(text: &str) {
    assert!(!text.chars().any(char::is_control), "control characters: {text:?}");
}

/// The first line names one of these, or an element of one, or a line of a text that is no JSON; others are one line, too.
pub(super) fn error(error: &Error, fields: &[&str]) {
    let first = error.line();
    line(&first);
    error.to_string().split('\n').for_each(line);
    if first.ends_with(')') && first.contains(" line ") {
        return;
    }
    let (field, what) = first.split_once(": ").unwrap_or_else(|| panic!("no field: {first}"));
    let begins = |known: &&str| field.strip_prefix(*known).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
    assert!(fields.iter().any(|known| begins(&known)), "no field: {first}");
    assert!(!what.is_empty(), "nothing after the field: {first}");
}

/// The same for the fields of config.json.
pub(super) fn config_error(found: &Error) {
    error(found, FIELDS);
}

/// Both are the same.
pub(super) fn same<T: Debug>(first: &T, second: &T) {
    let (first, second) = (format!("{first:?}"), format!("{second:?}"));
    assert!(first == second, "not the same twice:\n{first}\n{second}");
}

/// A path that leads no way up.
pub(super) fn down(path: &str) {
    assert!(!path.split('/').any(|name| name == ".."), "leads up: {path:?}");
}
