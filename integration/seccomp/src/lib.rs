//! `src/seccomp` against libseccomp, for every machine on any one of them.
//!
//! ```text
//!           ┌─ src/seccomp ──────────────────▶ program ─┐
//! profile ──┤                                           ├─ cbpf.rs, for numbers and arguments of cases.rs ─▶ equal?
//!           └─ libseccomp.rs, driven as runc ▶ program ─┘
//! ```

#![allow(unsafe_code, reason = "libseccomp.rs calls C")]

#[allow(dead_code, reason = "shared with the runtime")]
#[path = "../../../src/error.rs"]
mod error;
#[allow(dead_code, reason = "shared with the runtime")]
#[path = "../../../src/seccomp/mod.rs"]
mod seccomp;

pub mod cases;
pub mod cbpf;
pub mod differences;
pub mod libseccomp;
pub mod profiles;
pub mod random;
pub mod targets;

use differences::Difference;
use libseccomp::Theirs;
use oci_spec::runtime::LinuxSeccomp;
use random::Random;
use std::collections::BTreeMap;
use targets::Target;

/// Our program for a profile as the kernel takes it, or the words of its error.
pub fn ours_raw(target: &Target, profile: &LinuxSeccomp) -> Result<Vec<seccompiler::sock_filter>, String> {
    let filter = seccomp::compile_for(target.machine, profile, seccomp::Surroundings::default());
    filter.map(|filter| filter.program).map_err(|error| error.to_string())
}

/// The same for the interpreter.
pub fn ours(target: &Target, profile: &LinuxSeccomp) -> Result<cbpf::Program, String> {
    let program = ours_raw(target, profile)?;
    Ok(cbpf::Program::new(program.iter().map(|i| (i.code, i.jt, i.jf, i.k))))
}

/// What comparing one or more profiles has shown.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Programs that were asked, and decisions that they made.
    pub profiles: u64,
    pub decisions: u64,
    /// Where they differed as they should.
    pub differences: BTreeMap<Difference, u64>,
}

impl Outcome {
    /// Compares both on one profile. An error is a difference that has no reason.
    pub fn compare(
        &mut self,
        target: &Target,
        numbers: &[(u32, Vec<u32>)],
        profile: &LinuxSeccomp,
        random: &mut Random<'_>,
    ) -> Result<(), String> {
        let (ours, theirs) = match (ours(target, profile), Theirs::new(target, profile)) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(_), Err(_)) => return Ok(()),
            (ours, theirs) => {
                let (ours, theirs) = (ours.err(), theirs.err());
                let difference = differences::explain_refusal(profile, ours.as_deref(), theirs.as_deref());
                let difference = difference.ok_or_else(|| format!("ours {ours:?}, libseccomp {theirs:?}"))?;
                *self.differences.entry(difference).or_default() += 1;
                return Ok(());
            }
        };
        self.profiles += 1;
        let mut wrong = None;
        self.decisions += cases::compare(target, numbers, profile, (&ours, &theirs), random, |case, our, their| {
            match differences::explain(target, profile, &theirs, case, (our, their)) {
                Some(difference) => *self.differences.entry(difference).or_default() += 1,
                None => {
                    wrong.get_or_insert_with(|| format!("{case:x?}: ours {our:#x}, libseccomp {their:#x}"));
                }
            }
        });
        wrong.map_or(Ok(()), Err)
    }
}
