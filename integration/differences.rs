//! Where another runtime does not do what these tests ask, and the sentence that decides for the test.
//!
//! A test listed here may fail with that runtime; it is then reported, not counted as a failure.

/// One known difference.
pub(crate) struct Difference {
    /// The runtime: `runc` (1.1.5) or `crun` (1.8.1).
    pub(crate) peer: &'static str,
    /// The test, as libtest names it.
    pub(crate) test: &'static str,
    /// What the test expects and that runtime does not do.
    pub(crate) reason: &'static str,
    /// The sentence of the runtime specification (file:line), or the requirement, that decides.
    pub(crate) reference: &'static str,
}

const fn d(peer: &'static str, test: &'static str, reason: &'static str, reference: &'static str) -> Difference {
    Difference { peer, test, reason, reference }
}

/// All known differences.
#[rustfmt::skip]
pub(crate) const DIFFERENCES: &[Difference] = &[
    d("", "", "", ""),
];

/// The difference that stands for a test with a peer.
pub(crate) fn find(peer: &str, test: &str) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.peer == peer && difference.test == test)
}
