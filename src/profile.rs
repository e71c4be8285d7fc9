//! `seccomp explain` and `seccomp dump`: what the filter of a bundle does, without a container. Runs in: parent.

use std::path::Path;

use crate::error::{Error, Result};
use crate::seccomp::Surroundings;
use crate::seccomp::dump::{bytes, dump};
use crate::seccomp::explain::{Call, explain};
use crate::{logging, plan, spec};

/// What is asked of a profile.
pub(crate) enum Question<'a> {
    Explain(Call<'a>),
    Dump,
    DumpRaw,
}

/// Prints the answer.
pub(crate) fn profile(bundle: &Path, question: &Question<'_>) -> Result<()> {
    let spec = spec::load(bundle)?.spec;
    let annotations = spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let receiver = plan::acting(&annotations)?.seccomp_receiver;
    let around = Surroundings { receiver: receiver.as_deref(), ..Surroundings::default() };
    match (spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()), question) {
        (Some(profile), Question::Explain(call)) => logging::print(&explain(profile, around, call)?),
        (Some(profile), Question::Dump) => logging::print(&dump(profile, around)?),
        (Some(profile), Question::DumpRaw) => logging::print_bytes(&bytes(profile, around)?),
        (None, Question::Explain(_)) => logging::print("linux.seccomp is not set: no system call is filtered\n"),
        (None, _) => Err(Error::at("linux.seccomp", "is not set: there is no filter")),
    }
}
