//! The one error type, and how an error becomes a line.
//!
//! Shape: `<config field or command>: <what was done, with values>: <the kernel's or errno's text> (<ERRNO>)`,
//! then a line `hint: ...` where the cure is known, then lines of a log of criu, then a line for each undo that failed.
//! Whatever a text quotes, each line stays one, and does nothing to a terminal.

use std::fmt;

/// An errno of the kernel, with its text and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        // In lower case, as Go has them: Docker's command line searches errors for `no such file or directory`.
        let (first, rest) = words(errno).split_at(1);
        write!(f, "{}{rest} ({errno:?})", first.to_ascii_lowercase())
    }
}

/// The text of strerror(3). That of the nix crate differs in some of the frequent ones.
fn words(errno: nix::errno::Errno) -> &'static str {
    use nix::errno::Errno;
    match errno {
        Errno::EIO => "Input/output error",
        Errno::EBADF => "Bad file descriptor",
        Errno::EAGAIN => "Resource temporarily unavailable",
        Errno::ENOMEM => "Cannot allocate memory",
        Errno::ENFILE => "Too many open files in system",
        Errno::ENOTTY => "Inappropriate ioctl for device",
        Errno::ERANGE => "Numerical result out of range",
        Errno::ELOOP => "Too many levels of symbolic links",
        Errno::EOPNOTSUPP => "Operation not supported",
        Errno::EDQUOT => "Disk quota exceeded",
        errno => errno.desc(),
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(errno as i32)
    }
}

/// Why a call failed: an errno, or the standard library's words where it never came to a system call.
pub(crate) enum Cause {
    Errno(Errno),
    Text(String),
}

impl<E: Into<Errno>> From<E> for Cause {
    fn from(errno: E) -> Self {
        Self::Errno(errno.into())
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::Errno(Errno(errno)),
            None => Self::Text(error.to_string()),
        }
    }
}

/// What went wrong: where (a field of config.json or a command), what was tried, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub(crate) struct Error {
    subject: Option<String>,
    what: String,
    errno: Option<Errno>,
    /// The kernel's own words, from the log of a file-system context.
    kernel: Option<String>,
    hint: Option<String>,
    /// Lines of another program's log.
    quotes: Vec<String>,
    undo: Vec<String>,
    missing_container: bool,
}

/// The result of everything that can fail in the parent.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that concerns no field of the configuration.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            subject: None,
            what: plain(what.into()),
            errno: None,
            kernel: None,
            hint: None,
            quotes: Vec::new(),
            undo: Vec::new(),
            missing_container: false,
        }
    }

    /// What clap says of a command line, in its lines.
    pub(crate) fn usage(text: &str) -> Self {
        let lines: Vec<_> = text.split('\n').map(|line| plain(line.to_owned())).collect();
        Self { what: lines.join("\n"), ..Self::new("") }
    }

    /// There is no container of that name.
    pub(crate) fn missing_container(id: &str) -> Self {
        Self { missing_container: true, ..Self::new(format!("container does not exist: {id:?}")) }
    }

    /// Whether that is what this error says.
    pub(crate) fn is_missing_container(&self) -> bool {
        self.missing_container
    }

    /// An error of one field, for example `mounts[7].options[1]`.
    pub(crate) fn at(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: Some(plain(field.into())), ..Self::new(what) }
    }

    /// Adds why the call failed.
    pub(crate) fn errno(self, cause: impl Into<Cause>) -> Self {
        match cause.into() {
            Cause::Errno(errno) => Self { errno: Some(errno), ..self },
            Cause::Text(text) => self.kernel(text),
        }
    }

    /// Adds the kernel's own explanation, which is shown in place of errno's text.
    pub(crate) fn kernel(mut self, text: impl Into<String>) -> Self {
        self.kernel = Some(plain(text.into())).filter(|text: &String| !text.is_empty());
        self
    }

    /// Adds the cure.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(plain(hint.into()));
        self
    }

    /// Adds what another program has written to its log.
    pub(crate) fn quote(mut self, lines: Vec<String>) -> Self {
        self.quotes.extend(lines.into_iter().map(plain));
        self
    }

    /// Adds an undo that failed too.
    pub(crate) fn undo(mut self, failure: &Self) -> Self {
        self.undo.push(failure.line());
        self
    }

    /// The errno, where a call failed.
    pub(crate) fn raw_errno(&self) -> Option<i32> {
        self.errno.map(|errno| errno.0)
    }

    /// The first line: field, what, why.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        if let Some(subject) = &self.subject {
            line.push_str(subject);
            line.push_str(": ");
        }
        line.push_str(&self.what);
        match (&self.kernel, self.errno) {
            (Some(text), Some(errno)) => {
                line.push_str(&format!(": {text} ({:?})", nix::errno::Errno::from_raw(errno.0)));
            }
            (Some(text), None) => line.push_str(&format!(": {text}")),
            (None, Some(errno)) => line.push_str(&format!(": {errno}")),
            (None, None) => {}
        }
        line
    }

    fn text(&self) -> String {
        let mut text = self.line();
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        for line in &self.quotes {
            text.push_str("\nlog: ");
            text.push_str(line);
        }
        for failure in &self.undo {
            text.push_str("\nundo: ");
            text.push_str(failure);
        }
        text
    }
}

/// With control characters as `\n` and `\u{1b}`.
pub(crate) fn plain(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_field_what_and_errno() {
        let error = Error::at("linux.namespaces[2].path", "\"/run/netns/blue\"").errno(Errno(libc::ENOENT));
        assert_eq!(
            error.to_string(),
            "linux.namespaces[2].path: \"/run/netns/blue\": no such file or directory (ENOENT)"
        );
    }

    #[test]
    fn the_kernels_words_replace_those_of_errno() {
        let error = Error::at("mounts[7].options[2]", "tmpfs on \"/mnt\" does not accept \"size=banana\"")
            .errno(Errno(libc::EINVAL))
            .kernel("Bad value for 'size'");
        assert_eq!(
            error.to_string(),
            "mounts[7].options[2]: tmpfs on \"/mnt\" does not accept \"size=banana\": Bad value for 'size' (EINVAL)"
        );
    }

    #[test]
    fn hint_and_undo_stand_on_lines_of_their_own() {
        let error = Error::new("a").hint("b").undo(&Error::new("c").errno(Errno(libc::EBUSY)));
        assert_eq!(error.to_string(), "a\nhint: b\nundo: c: device or resource busy (EBUSY)");
    }
    /// Found by fuzzing: texts of oci-spec and of the kernel quote the configuration as it is.
    #[test]
    fn what_is_quoted_stays_on_its_line() {
        let error = Error::at("a\u{1b}", "b\nc").errno(Errno(libc::EINVAL)).kernel("d\r").hint("e\u{85}f");
        assert_eq!(error.to_string(), "a\\u{1b}: b\\nc: d\\r (EINVAL)\nhint: e\\u{85}f");
        assert_eq!(Error::new("").quote(vec!["g\th".into()]).to_string(), "\nlog: g\\th");
        assert_eq!(Error::usage("i\n\tj").to_string(), "i\n\\tj");
    }
}
