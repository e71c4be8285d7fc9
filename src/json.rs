//! Places in a JSON text. Pure.
//!
//! serde_json says line and column of an error, not which field it is about. And derived types are lax: they take an
//! array where an object belongs, element by element, a name twice in a map, and 0 for a number that is not there. All
//! is answered by one walk over the text, which serde_json has found to be well formed up to the place in question.

use std::collections::BTreeSet;

/// Keys of config.json whose values are objects.
const OBJECTS: &[&str] = &[
    "root",
    "process",
    "user",
    "consoleSize",
    "capabilities",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
    "hooks",
    "linux",
    "resources",
    "memory",
    "cpu",
    "pids",
    "blockIO",
    "network",
    "rdma",
    "unified",
    "seccomp",
    "intelRdt",
    "memoryPolicy",
    "personality",
    "annotations",
    "sysctl",
    "timeOffsets",
    "netDevices",
];

/// Keys of config.json whose values are arrays of objects.
const ARRAYS_OF_OBJECTS: &[&str] = &[
    "mounts",
    "rlimits",
    "namespaces",
    "devices",
    "uidMappings",
    "gidMappings",
    "hugepageLimits",
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
    "priorities",
    "syscalls",
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// REQUIRED properties of objects that oci-spec fills in where they are not there.
const REQUIRED: &[(&str, &[&str])] = &[
    ("process.user", &["uid", "gid"]),
    ("process.ioPriority", &["class", "priority"]),
    ("process.rlimits[]", &["soft", "hard"]),
    ("mounts[].uidMappings[]", &["containerID", "hostID", "size"]),
    ("mounts[].gidMappings[]", &["containerID", "hostID", "size"]),
    ("linux.uidMappings[]", &["containerID", "hostID", "size"]),
    ("linux.gidMappings[]", &["containerID", "hostID", "size"]),
    ("linux.resources.devices[]", &["allow"]),
    ("linux.resources.hugepageLimits[]", &["pageSize", "limit"]),
    ("linux.resources.blockIO.weightDevice[]", &["major", "minor"]),
    ("linux.resources.blockIO.throttleReadBpsDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleWriteBpsDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleReadIOPSDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleWriteIOPSDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.network.priorities[]", &["name", "priority"]),
];

/// One open object or array.
enum Level<'a> {
    /// The key whose value comes next, or was last, and all so far as they are written.
    Object(String, BTreeSet<&'a [u8]>),
    /// The index of the element that comes next, or was last.
    Array(usize),
}

/// The field whose value ends at or around `line` and `column` (both from 1), such as `process.rlimits[1].type`.
pub(crate) fn path_at(text: &[u8], line: usize, column: usize) -> String {
    let before: usize = text.split_inclusive(|&byte| byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut walk = Walk::new(text);
    while walk.position < before + column && walk.step() {}
    walk.path()
}

/// Whether a field is there, such as `linux.resources.pids.limit`. Not for elements of arrays.
pub(crate) fn contains(text: &[u8], path: &str) -> bool {
    let mut walk = Walk::new(text);
    while walk.step() {
        if walk.path() == path {
            return true;
        }
    }
    false
}

/// The first mistake that the typed configuration does not show: its path, what is wrong, and its line.
pub(crate) fn mistake(text: &[u8]) -> Option<(String, &'static str, usize)> {
    let mut walk = Walk::new(text);
    loop {
        walk.skip_separators();
        let found = match text.get(walk.position) {
            Some(b'[') if walk.wants_object() => Some((walk.path(), "expected an object, found an array")),
            Some(b'}') => walk.missing().map(|field| (field, "is missing")),
            _ => None,
        };
        let more = walk.step();
        let twice = || walk.twice.then(|| (walk.path(), "stands there twice"));
        let nul = || walk.nul.then(|| (walk.path(), "has a NUL byte"));
        if let Some((field, what)) = found.or_else(twice).or_else(nul) {
            let line = 1 + text.iter().take(walk.position).filter(|&&byte| byte == b'\n').count();
            return Some((field, what, line));
        }
        if !more {
            return None;
        }
    }
}

struct Walk<'a> {
    text: &'a [u8],
    position: usize,
    levels: Vec<Level<'a>>,
    /// In an object: the next string is a key.
    key_next: bool,
    /// The last key was there before (glossary.md: names are unique).
    twice: bool,
    /// A string had a NUL, with which it would end early wherever it is given to the kernel. As a byte it is no JSON.
    nul: bool,
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, position: 0, levels: Vec::new(), key_next: false, twice: false, nul: false }
    }

    fn path(&self) -> String {
        path(&self.levels, |index| format!("[{index}]"))
    }

    /// The first required property that the object which ends here lacks.
    fn missing(&self) -> Option<String> {
        let (Level::Object(_, names), above) = self.levels.split_last()? else { return None };
        let place = path(above, |_| "[]".to_owned());
        let (_, required) = REQUIRED.iter().find(|(object, _)| *object == place)?;
        let name = required.iter().find(|name| !names.contains(name.as_bytes()))?;
        Some(format!("{}.{name}", path(above, |index| format!("[{index}]"))))
    }

    /// Whether the value that comes next must be an object: the text as a whole, the value of certain keys, and the
    /// elements of certain arrays.
    fn wants_object(&self) -> bool {
        match self.levels.as_slice() {
            [] => true,
            [.., Level::Object(key, _)] => !self.key_next && OBJECTS.contains(&key.as_str()),
            [.., Level::Object(key, _), Level::Array(_)] => ARRAYS_OF_OBJECTS.contains(&key.as_str()),
            [.., Level::Array(_)] => false,
        }
    }

    fn skip_separators(&mut self) {
        while let Some(byte) = self.text.get(self.position) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b':' => {}
                b',' => match self.levels.last_mut() {
                    Some(Level::Array(index)) => *index += 1,
                    _ => self.key_next = true,
                },
                _ => return,
            }
            self.position += 1;
        }
    }

    /// Goes over one token. False at the end.
    fn step(&mut self) -> bool {
        self.skip_separators();
        let Some(&byte) = self.text.get(self.position) else { return false };
        match byte {
            b'{' => {
                self.levels.push(Level::Object(String::new(), BTreeSet::new()));
                self.key_next = true;
                self.position += 1;
            }
            b'[' => {
                self.levels.push(Level::Array(0));
                self.key_next = false;
                self.position += 1;
            }
            b'}' | b']' => {
                self.levels.pop();
                self.key_next = false;
                self.position += 1;
            }
            b'"' => self.string(),
            _ => {
                let rest = self.text.get(self.position..).unwrap_or_default();
                let end = rest.iter().position(|byte| b" \t\r\n,]}".contains(byte)).unwrap_or(rest.len());
                self.position += end.max(1);
            }
        }
        true
    }

    fn string(&mut self) {
        let start = self.position + 1;
        let mut end = start;
        while let Some(&byte) = self.text.get(end) {
            match byte {
                b'"' => break,
                b'\\' => {
                    self.nul |= self.text.get(end..).is_some_and(|rest| rest.starts_with(b"\\u0000"));
                    end += 2;
                }
                _ => end += 1,
            }
        }
        self.position = end + 1;
        if self.key_next
            && let Some(Level::Object(key, names)) = self.levels.last_mut()
        {
            let name = self.text.get(start..end).unwrap_or_default();
            *key = String::from_utf8_lossy(name).into_owned();
            self.twice = !names.insert(name);
            self.key_next = false;
        }
    }
}

fn path(levels: &[Level<'_>], index: impl Fn(usize) -> String) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object(key, _) if key.is_empty() => {}
            Level::Object(key, _) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Level::Array(at) => path.push_str(&index(*at)),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_where_it_is() {
        let at = |text: &str| mistake(text.as_bytes()).map(|(field, what, _)| format!("{field}: {what}"));
        let bundle = |args: &str| format!(r#"{{"ociVersion": "1.0.0", "annotations": {{"a": {args}}}}}"#);
        assert_eq!(at(&bundle(r#""a\\u0000 \u0001""#)), None);
        assert_eq!(at(&bundle(r#""a\u0000""#)), Some("annotations.a: has a NUL byte".to_owned()));
        assert_eq!(at(&bundle(r#""\\\u0000""#)), Some("annotations.a: has a NUL byte".to_owned()));
    }

    #[test]
    fn the_path_of_a_value_is_found_by_its_end() {
        let text = b"{\n \"a\": {\"b\": [1, {\"c\": \"x\\\"y\"}, 3]},\n \"d\": 4}";
        let at = |needle: &str| {
            let text = std::str::from_utf8(text).unwrap();
            let offset = text.find(needle).unwrap() + needle.len();
            let line = text[..offset].matches('\n').count() + 1;
            let column = offset - text[..offset].rfind('\n').map_or(0, |at| at + 1);
            path_at(text.as_bytes(), line, column)
        };
        assert_eq!(at("[1"), "a.b[0]");
        assert_eq!(at("x\\\"y\""), "a.b[1].c");
        assert_eq!(at(" 3"), "a.b[2]");
        assert_eq!(at("\"d\": 4"), "d");
    }

    fn found(text: &str) -> Option<(String, &'static str, usize)> {
        mistake(text.as_bytes())
    }

    #[test]
    fn an_array_for_an_object_is_found() {
        let array = |field: &str, line| Some((field.to_owned(), "expected an object, found an array", line));
        assert_eq!(found("[]"), array("", 1));
        assert_eq!(found("{\"linux\":\n[]}"), array("linux", 2));
        assert_eq!(found("{\"mounts\":[{},[1]]}"), array("mounts[1]", 1));
        assert_eq!(found("{\"x\":[[1]],\"mounts\":[{\"options\":[\"ro\"]}],\"linux\":{}}"), None);
    }

    #[test]
    fn a_name_that_stands_twice_is_found() {
        let twice = |field: &str| Some((field.to_owned(), "stands there twice", 1));
        assert_eq!(found(r#"{"a":1,"b":{"a":2},"a":3}"#), twice("a"));
        assert_eq!(found(r#"{"annotations":{"x":"y","x":"y"}}"#), twice("annotations.x"));
        assert_eq!(found(r#"{"a":[{"a":"a"},{"a":"a"}],"b":"a"}"#), None);
    }

    #[test]
    fn a_missing_property_is_found() {
        let missing = |field: &str| Some((field.to_owned(), "is missing", 1));
        assert_eq!(found(r#"{"process":{"user":{"uid":0}}}"#), missing("process.user.gid"));
        let rlimits = r#"{"process":{"rlimits":[{"soft":1,"hard":1},{"hard":1}]}}"#;
        assert_eq!(found(rlimits), missing("process.rlimits[1].soft"));
        assert_eq!(found(r#"{"linux":{"devices":[{}]},"x":{"user":{}}}"#), None);
    }
}
