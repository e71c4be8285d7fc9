//! What comes through sockets: from systemd, the kernel, criu, and a container's first process.

use std::sync::LazyLock;

use super::promise;
use crate::plan::{self, Plan};
use crate::sync::Fault;

pub(super) fn dbus(bytes: &[u8]) {
    use super::dbus::message::{Value, read};
    // As whoever reads from a socket does.
    let mut rest = bytes;
    while let Ok(Some((message, length))) = read(rest) {
        assert!(length > 0 && length <= rest.len());
        promise::same(
            &Ok(Some((&message, length))),
            &read(rest).as_ref().map(|read| read.as_ref().map(|(m, l)| (m, *l))),
        );
        // No value comes out of no bytes.
        fn count(values: &[Value]) -> usize {
            let below = |value: &Value| match value {
                Value::Array(_, values) | Value::Struct(values) => count(values),
                Value::Variant(value) => count(std::slice::from_ref(value)),
                _ => 0,
            };
            values.iter().map(|value| 1 + below(value)).sum()
        }
        assert!(count(&message.body) <= length * 4, "more values than bytes");
        rest = &rest[length..];
    }
}

pub(super) fn netlink(bytes: &[u8]) {
    super::netdev::read(bytes);
}

pub(super) fn criu(bytes: &[u8]) {
    let _ = crate::criu::message::response(bytes);
}

static PLAN: LazyLock<Plan> = LazyLock::new(super::config::full_plan);

/// What is told of a step that has failed, of a container with something of everything.
pub(super) fn fault(bytes: &[u8]) {
    let Some(fault) = Fault::decode(bytes) else { return };
    for error in [plan::explain(&PLAN, &fault), plan::explain_late(&fault, &PLAN.hooks)] {
        error.to_string().split('\n').for_each(promise::line);
    }
}
