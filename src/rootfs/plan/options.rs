//! Mount options: their table, and what a list of them comes to. Pure.

use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

use super::{Param, Propagation, c_string};
use crate::error::{Error, Result};

/// `MOUNT_ATTR_*` to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attrs {
    pub(crate) set: u64,
    pub(crate) clr: u64,
}

impl Attrs {
    /// Adds one option; a later one wins.
    fn add(&mut self, option: Self) {
        // The access-time flags are one field of the mask: whichever is set, the field must be cleared first.
        let atime = |bits: u64| if bits & ATIME != 0 { ATIME } else { 0 };
        self.set = (self.set & !option.clr & !atime(option.clr)) | option.set;
        self.clr = (self.clr & !option.set) | option.clr;
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

enum Effect {
    Set(u64),
    Clear(u64),
    /// A superblock flag by its name for fsconfig(2).
    Super(&'static str),
    /// As `Super`, accepted by mount(2) for every file system.
    SuperOptional(&'static str),
    Propagate(u64),
    Bind(bool),
    Remount,
    CopyUp,
    /// Recursively or not.
    IdMap(bool),
    Nothing,
}

/// Every option that is not data of the file system (mount(8), config.md section Linux mount options).
/// The recursive forms are these with an `r` before them.
const OPTIONS: &[(&str, Effect)] = &[
    ("defaults", Effect::Nothing),
    ("ro", Effect::Set(MOUNT_ATTR_RDONLY)),
    ("rw", Effect::Clear(MOUNT_ATTR_RDONLY)),
    ("suid", Effect::Clear(MOUNT_ATTR_NOSUID)),
    ("nosuid", Effect::Set(MOUNT_ATTR_NOSUID)),
    ("dev", Effect::Clear(MOUNT_ATTR_NODEV)),
    ("nodev", Effect::Set(MOUNT_ATTR_NODEV)),
    ("exec", Effect::Clear(MOUNT_ATTR_NOEXEC)),
    ("noexec", Effect::Set(MOUNT_ATTR_NOEXEC)),
    ("diratime", Effect::Clear(MOUNT_ATTR_NODIRATIME)),
    ("nodiratime", Effect::Set(MOUNT_ATTR_NODIRATIME)),
    ("symfollow", Effect::Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("nosymfollow", Effect::Set(MOUNT_ATTR_NOSYMFOLLOW)),
    // One field of three values: relatime (0, the kernel's default), noatime, strictatime.
    ("atime", Effect::Set(MOUNT_ATTR_RELATIME)),
    ("noatime", Effect::Set(MOUNT_ATTR_NOATIME)),
    ("relatime", Effect::Set(MOUNT_ATTR_RELATIME)),
    ("norelatime", Effect::Set(MOUNT_ATTR_STRICTATIME)),
    ("strictatime", Effect::Set(MOUNT_ATTR_STRICTATIME)),
    ("nostrictatime", Effect::Set(MOUNT_ATTR_RELATIME)),
    ("sync", Effect::Super("sync")),
    ("async", Effect::Super("async")),
    ("dirsync", Effect::Super("dirsync")),
    ("mand", Effect::Super("mand")),
    ("nomand", Effect::Super("nomand")),
    ("lazytime", Effect::Super("lazytime")),
    ("nolazytime", Effect::Super("nolazytime")),
    ("iversion", Effect::SuperOptional("iversion")),
    ("noiversion", Effect::SuperOptional("noiversion")),
    // Only about what the kernel logs while mounting.
    ("silent", Effect::Nothing),
    ("loud", Effect::Nothing),
    ("remount", Effect::Remount),
    ("bind", Effect::Bind(false)),
    ("rbind", Effect::Bind(true)),
    ("private", Effect::Propagate(libc::MS_PRIVATE)),
    ("rprivate", Effect::Propagate(libc::MS_PRIVATE | libc::MS_REC)),
    ("shared", Effect::Propagate(libc::MS_SHARED)),
    ("rshared", Effect::Propagate(libc::MS_SHARED | libc::MS_REC)),
    ("slave", Effect::Propagate(libc::MS_SLAVE)),
    ("rslave", Effect::Propagate(libc::MS_SLAVE | libc::MS_REC)),
    ("unbindable", Effect::Propagate(libc::MS_UNBINDABLE)),
    ("runbindable", Effect::Propagate(libc::MS_UNBINDABLE | libc::MS_REC)),
    ("tmpcopyup", Effect::CopyUp),
    ("idmap", Effect::IdMap(false)),
    ("ridmap", Effect::IdMap(true)),
];

/// The names of all options, sorted.
pub(crate) fn option_names() -> Vec<String> {
    let recursive = OPTIONS.iter().filter(|(_, effect)| attrs(effect).is_some()).map(|(name, _)| format!("r{name}"));
    let mut names: Vec<String> = OPTIONS.iter().map(|(name, _)| (*name).to_owned()).chain(recursive).collect();
    names.sort();
    names
}

/// The options of one mount, before its kind is known.
#[derive(Default)]
pub(super) struct Options {
    pub(super) attrs: Attrs,
    pub(super) attrs_recursive: Attrs,
    pub(super) propagation: Option<Propagation>,
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    /// Recursively or not.
    pub(super) idmap: Option<bool>,
    /// Of crun's `idmap=`: the index of the option, and the mappings.
    pub(super) mappings: Option<(usize, String)>,
    /// Superblock flags.
    pub(super) flags: Vec<Param>,
    /// Data of the file system.
    pub(super) data: Vec<Param>,
}

impl Options {
    /// Reads `options`. What is no option of its own is data of the file system.
    pub(super) fn parse(field: &str, texts: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut texts = texts.iter().enumerate();
        while let Some((index, text)) = texts.next() {
            let at = format!("{field}.options[{index}]");
            if let Some((_, effect)) = OPTIONS.iter().find(|(name, _)| name == text) {
                apply(&mut options, effect, index, &at)?;
            } else if let Some((_, effect)) =
                text.strip_prefix('r').and_then(|rest| OPTIONS.iter().find(|(name, _)| *name == rest))
                && let Some(attrs) = attrs(effect)
            {
                options.attrs_recursive.add(attrs);
            } else if let Some((name @ ("idmap" | "ridmap"), mappings)) = text.split_once('=') {
                options.idmap = Some(name == "ridmap");
                options.mappings = Some((index, mappings.to_owned()));
            } else {
                let mut data = text.clone();
                // Who has joined all data by commas may have split it at each of them.
                while ends_in_quotes(&data)
                    && let Some((_, more)) = texts.next()
                {
                    data = format!("{data},{more}");
                }
                for item in items(&data) {
                    let (key, value) =
                        item.split_once('=').map_or((item.as_str(), None), |(key, value)| (key, Some(value)));
                    let value = value.map(|value| c_string(value.as_bytes(), &at)).transpose()?;
                    let key = c_string(key.as_bytes(), &at)?;
                    options.data.push(Param { key, value, option: Some(index), optional: false });
                }
            }
        }
        Ok(options)
    }
}

/// Whether an SELinux context has begun with a quote and not ended.
fn ends_in_quotes(data: &str) -> bool {
    data.rsplit_once("context=\"").is_some_and(|(_, value)| !value.contains('"'))
}

/// The items of data, between commas. A comma in the quotes of an SELinux context, or after a backslash (overlay), is one of the
/// value, and stands there by itself for fsconfig(2), which splits nothing.
fn items(data: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let (mut quoted, mut chars) = (false, data.chars().peekable());
    while let Some(char) = chars.next() {
        let Some(item) = items.last_mut() else { break };
        match char {
            '"' if quoted || item.ends_with("context=") => quoted = !quoted,
            '\\' => match chars.next() {
                Some(',') => item.push(','),
                // Of the value: a backslash too, which does not stand for the comma after it then.
                next => item.extend(['\\'].into_iter().chain(next)),
            },
            ',' if !quoted => items.push(String::new()),
            char => item.push(char),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn attrs(effect: &Effect) -> Option<Attrs> {
    match *effect {
        // All three access times share the field: it is cleared, then set.
        Effect::Set(bits @ (MOUNT_ATTR_RELATIME | MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME)) => {
            Some(Attrs { set: bits, clr: ATIME })
        }
        Effect::Set(set) => Some(Attrs { set, clr: 0 }),
        Effect::Clear(clr) => Some(Attrs { set: 0, clr }),
        _ => None,
    }
}

fn apply(options: &mut Options, effect: &Effect, index: usize, at: &str) -> Result<()> {
    if let Some(attrs) = attrs(effect) {
        options.attrs.add(attrs);
        return Ok(());
    }
    match *effect {
        Effect::Super(name) | Effect::SuperOptional(name) => {
            let key = c_string(name.as_bytes(), at)?;
            let optional = matches!(effect, Effect::SuperOptional(_));
            options.flags.push(Param { key, value: None, option: Some(index), optional });
        }
        Effect::Propagate(bits) => {
            options.propagation = Some(Propagation { flag: bits & !libc::MS_REC, recursive: bits & libc::MS_REC != 0 });
        }
        Effect::Bind(recursive) => options.bind = Some(recursive || options.bind == Some(true)),
        Effect::Remount => options.remount = true,
        Effect::CopyUp => options.copy_up = true,
        Effect::IdMap(recursive) => options.idmap = Some(recursive),
        Effect::Nothing | Effect::Set(_) | Effect::Clear(_) => {}
    }
    Ok(())
}

/// The propagation types of `linux.rootfsPropagation`.
pub(crate) fn root_propagation(text: &str) -> Result<Propagation> {
    let found = OPTIONS.iter().find(|(name, _)| *name == text).and_then(|(_, effect)| match effect {
        Effect::Propagate(bits) => {
            Some(Propagation { flag: bits & !libc::MS_REC, recursive: bits & libc::MS_REC != 0 })
        }
        _ => None,
    });
    found.ok_or_else(|| {
        Error::at("linux.rootfsPropagation", format!("rootfsPropagation={text} is not supported"))
            .hint("[r]shared, [r]slave, [r]private or [r]unbindable")
    })
}
