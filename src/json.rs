//! Places in a JSON text. Pure.
//!
//! serde_json says line and column of an error, not which field it is about; and derived types take an array where an
//! object belongs, element by element. Both are answered by one walk over the text, which serde_json has found to be
//! well formed up to the place in question.

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

/// One open object or array.
enum Level {
    /// The key whose value comes next, or was last.
    Object(String),
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

/// The first place where an array stands for an object: its path and line.
pub(crate) fn array_for_object(text: &[u8]) -> Option<(String, usize)> {
    let mut walk = Walk::new(text);
    loop {
        walk.skip_separators();
        if text.get(walk.position) == Some(&b'[') && walk.wants_object() {
            let line = 1 + text.iter().take(walk.position).filter(|&&byte| byte == b'\n').count();
            return Some((walk.path(), line));
        }
        if !walk.step() {
            return None;
        }
    }
}

struct Walk<'a> {
    text: &'a [u8],
    position: usize,
    levels: Vec<Level>,
    /// In an object: the next string is a key.
    key_next: bool,
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, position: 0, levels: Vec::new(), key_next: false }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for level in &self.levels {
            match level {
                Level::Object(key) if key.is_empty() => {}
                Level::Object(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Level::Array(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// Whether the value that comes next must be an object: the text as a whole, the value of certain keys, and the
    /// elements of certain arrays.
    fn wants_object(&self) -> bool {
        match self.levels.as_slice() {
            [] => true,
            [.., Level::Object(key)] => !self.key_next && OBJECTS.contains(&key.as_str()),
            [.., Level::Object(key), Level::Array(_)] => ARRAYS_OF_OBJECTS.contains(&key.as_str()),
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
                self.levels.push(Level::Object(String::new()));
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
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        self.position = end + 1;
        if self.key_next
            && let Some(Level::Object(key)) = self.levels.last_mut()
        {
            *key = String::from_utf8_lossy(self.text.get(start..end).unwrap_or_default()).into_owned();
            self.key_next = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn an_array_for_an_object_is_found() {
        assert_eq!(array_for_object(b"[]"), Some((String::new(), 1)));
        assert_eq!(array_for_object(b"{\"linux\":\n[]}"), Some(("linux".into(), 2)));
        assert_eq!(array_for_object(b"{\"mounts\":[{},[1]]}"), Some(("mounts[1]".into(), 1)));
        assert_eq!(array_for_object(b"{\"x\":[[1]],\"mounts\":[{\"options\":[\"ro\"]}],\"linux\":{}}"), None);
    }
}
