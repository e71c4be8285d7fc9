//! The root directory: what ids there are, and their directories. Runs in: parent.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::store::Container;
use crate::error::{Error, Result};

const OWN_ROOT: &str = "XDG_RUNTIME_DIR, or --root, must name a directory of this user's own";

/// The directory of all containers.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    /// The directory, which need not exist yet.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path == Path::new("/") {
            return Err(Error::new("Option --root argument should not be set to /"));
        }
        Ok(Self {
            path: std::path::absolute(path).map_err(|error| Error::at("--root", format!("{path:?}")).errno(error))?,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes an id: makes its directory, and the root's where that is missing.
    pub(crate) fn reserve(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let path = self.path.join(id);
        let made = match rustix::fs::mkdir(&path, Mode::RWXU) {
            Err(Errno::NOENT) => {
                self.make()?;
                rustix::fs::mkdir(&path, Mode::RWXU)
            }
            result => result,
        };
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::new(format!("container with given ID already exists: {id:?}"))),
            Err(errno @ Errno::ACCESS) => {
                let error = Error::at("--root", format!("create {}", path.display())).errno(errno);
                return Err(error.hint(OWN_ROOT));
            }
            Err(errno) => return Err(Error::new(format!("create {}", path.display())).errno(errno)),
        }
        let opened = Container::open(id, path.clone()).and_then(|container| container.lock().map(|()| container));
        // Nobody else knows of it yet. Unless somebody has removed it: then the name may be another's by now.
        opened.map_err(|error| match error.is_missing_container() || rustix::fs::rmdir(&path).is_ok() {
            true => error,
            false => error.undo(&Error::new(format!("remove {}", path.display()))),
        })
    }

    /// Private and sticky: the sticky bit keeps systemd-tmpfiles from cleaning it.
    pub(crate) fn make(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let failed = |error: std::io::Error| {
            let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            let error = Error::at("--root", format!("create {}", self.path.display())).errno(error);
            if denied { error.hint(OWN_ROOT) } else { error }
        };
        if let Some(above) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(failed)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
        std::fs::set_permissions(&self.path, PermissionsExt::from_mode(0o1700)).map_err(failed)
    }

    /// An existing container.
    pub(crate) fn find(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        Container::open(id, self.path.join(id))
    }

    /// The ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(|error| Error::new(format!("read {}", self.path.display())).errno(error))?,
        };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<_> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

/// Letters, digits and `_ + . -`, so that an id is always one path component.
fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::new("container id cannot be empty"));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '.' | '-');
    // 255 is NAME_MAX of every file system that a root directory is on.
    if id == "." || id == ".." || id.len() > 255 || !id.chars().all(known) {
        return Err(Error::new(format!("invalid container ID format: {id:?}"))
            .hint("letters, digits and _ + . - are allowed, up to 255 of them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_path_component() {
        for id in ["a", "a_b+c.d-9", "...", "-"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "a\n", "ä", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
