//! regex-lite under the name of regex. oci-spec asks for regex to check one field, `execCPUAffinity`; the whole engine
//! with its Unicode tables was a quarter of the binary. Both have the same interface and the same authors, and differ in
//! what this pattern means only by `\d`, which is an ASCII digit here.

pub use regex_lite::Regex;
