//! `--log`, `--log-format`, `--debug`, and printing. Runs in: parent.
//!
//! Callers read the log: containerd takes the last object with level "error", podman wants exactly one object. So on
//! failure there is nothing in it but the one error, unless `--debug` asks for more.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result, plain};

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Where messages go.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
    /// Warnings, until it is known that the command succeeds.
    warnings: RefCell<Vec<String>>,
}

impl Log {
    /// Opens the log: appended to, created 0644, written through.
    pub(crate) fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let open = |path: &Path| {
            let mut options = File::options();
            options.append(true).create(true).mode(0o644).custom_flags(libc::O_SYNC);
            options.open(path).map_err(|error| Error::at("--log", format!("open {path:?}")).errno(error))
        };
        Ok(Self { file: path.map(open).transpose()?, format, debug, warnings: RefCell::default() })
    }

    /// A log on stderr, for errors before the real one is known.
    pub(crate) fn stderr() -> Self {
        Self { file: None, format: Format::Text, debug: false, warnings: RefCell::default() }
    }

    /// The one error. It goes to stderr too, for callers that read that, and bare there when it is in a file.
    pub(crate) fn error(&self, error: &Error) {
        let text = error.to_string();
        if self.file.is_some() || self.format == Format::Json {
            self.line("error", &text);
        }
        if self.file.is_some() || self.format == Format::Text {
            print_stderr(&format!("{text}\n"));
        }
    }

    /// Something that is not an error, on one line. Logged when the command succeeds, or podman could not read the log.
    pub(crate) fn warning(&self, text: &str) {
        self.warn(plain(text.to_owned()));
    }

    /// An error that ends nothing, in its lines.
    pub(crate) fn warning_of(&self, error: &Error) {
        self.warn(error.to_string());
    }

    fn warn(&self, text: String) {
        if self.debug {
            self.line("warning", &text);
        } else {
            self.warnings.borrow_mut().push(text);
        }
    }

    /// From here on warnings do no harm. Without a log they go to stderr.
    pub(crate) fn succeeds(&self) {
        for text in self.warnings.take() {
            if self.file.is_some() || self.format == Format::Json {
                self.line("warning", &text);
            } else {
                print_stderr(&format!("warning: {text}\n"));
            }
        }
    }

    /// Whether `--debug` is given.
    pub(crate) fn is_debug(&self) -> bool {
        self.debug
    }

    /// What only `--debug` asks for; `text` is formatted only then.
    pub(crate) fn debug(&self, text: impl std::fmt::Display) {
        if self.debug {
            self.line("debug", &text.to_string());
        }
    }

    fn line(&self, level: &str, text: &str) {
        let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
        let line = match self.format {
            Format::Json => format!("{}\n", serde_json::json!({"level": level, "msg": text, "time": time.to_string()})),
            Format::Text => format!("time=\"{time}\" level={level} msg={text:?}\n"),
        };
        match &self.file {
            // There is nowhere else to say that the log cannot be written.
            Some(file) => drop((&*file).write_all(line.as_bytes())),
            None => print_stderr(&line),
        }
    }
}

/// For what must be said although the command succeeds.
pub(crate) fn warn_on_stderr(error: &Error) {
    print_stderr(&format!("warning: {error}\n"));
}

fn print_stderr(text: &str) {
    // Not eprint!, which panics when stderr is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints to stdout. A reader that has gone away is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// The same for what is no text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::new("write to stdout").errno(error)),
        _ => Ok(()),
    }
}
