//! The messages of criu's RPC (images/rpc.proto of criu), in the encoding of Protocol Buffers. Pure.
//!
//! A message is a list of fields, each a key (number of the field and wire type) and a value. Of the wire types there are two
//! here: a varint, and bytes with their length: a text, or a message in the message.

/// `criu_req_type`.
pub(crate) mod kind {
    pub(crate) const DUMP: u64 = 1;
    pub(crate) const RESTORE: u64 = 2;
    pub(crate) const PRE_DUMP: u64 = 4;
    pub(crate) const NOTIFY: u64 = 6;
    pub(crate) const FEATURE_CHECK: u64 = 9;
    pub(crate) const VERSION: u64 = 10;
}

/// Fields of `criu_opts`.
pub(crate) mod opt {
    pub(crate) const IMAGES_DIR_FD: u64 = 1;
    pub(crate) const PID: u64 = 2;
    pub(crate) const LEAVE_RUNNING: u64 = 3;
    pub(crate) const EXT_UNIX_SK: u64 = 4;
    pub(crate) const TCP_ESTABLISHED: u64 = 5;
    pub(crate) const EVASIVE_DEVICES: u64 = 6;
    pub(crate) const SHELL_JOB: u64 = 7;
    pub(crate) const FILE_LOCKS: u64 = 8;
    pub(crate) const LOG_LEVEL: u64 = 9;
    pub(crate) const LOG_FILE: u64 = 10;
    pub(crate) const PS: u64 = 11;
    pub(crate) const NOTIFY_SCRIPTS: u64 = 12;
    pub(crate) const ROOT: u64 = 13;
    pub(crate) const PARENT_IMG: u64 = 14;
    pub(crate) const TRACK_MEM: u64 = 15;
    pub(crate) const AUTO_DEDUP: u64 = 16;
    pub(crate) const WORK_DIR_FD: u64 = 17;
    pub(crate) const LINK_REMAP: u64 = 18;
    pub(crate) const EXT_MNT: u64 = 23;
    pub(crate) const MANAGE_CGROUPS: u64 = 24;
    pub(crate) const CG_ROOT: u64 = 25;
    pub(crate) const RST_SIBLING: u64 = 26;
    pub(crate) const INHERIT_FD: u64 = 27;
    pub(crate) const MANAGE_CGROUPS_MODE: u64 = 34;
    pub(crate) const EXTERNAL: u64 = 37;
    pub(crate) const EMPTY_NS: u64 = 38;
    pub(crate) const JOIN_NS: u64 = 39;
    pub(crate) const FREEZE_CGROUP: u64 = 44;
    pub(crate) const TCP_SKIP_IN_FLIGHT: u64 = 46;
    pub(crate) const LAZY_PAGES: u64 = 48;
    pub(crate) const ORPHAN_PTS_MASTER: u64 = 50;
    pub(crate) const CONFIG_FILE: u64 = 51;
    pub(crate) const TCP_CLOSE: u64 = 52;
    pub(crate) const LSM_PROFILE: u64 = 53;
    pub(crate) const LSM_MOUNT_CONTEXT: u64 = 63;
    pub(crate) const NETWORK_LOCK: u64 = 64;
}

const VARINT: u64 = 0;
const BYTES: u64 = 2;

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A number that is not negative; a negative `int32` has ten bytes, and there is none.
    pub(crate) fn number(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// A descriptor or pid.
    pub(crate) fn int(&mut self, field: u64, value: i32) -> &mut Self {
        self.number(field, u64::try_from(value).unwrap_or(0))
    }

    /// What is false is left out: that is what it is without.
    pub(crate) fn flag(&mut self, field: u64, value: bool) -> &mut Self {
        if value { self.number(field, 1) } else { self }
    }

    /// A text, or the bytes of a path.
    pub(crate) fn text(&mut self, field: u64, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        self.varint(field << 3 | BYTES);
        self.varint(u64::try_from(value.len()).unwrap_or(0));
        self.0.extend_from_slice(value);
        self
    }

    /// A message in this one.
    pub(crate) fn message(&mut self, field: u64, value: &Self) -> &mut Self {
        self.text(field, &value.0)
    }

    /// A message of two texts: `ext_mount_map`, `join_namespace`, `cgroup_root`.
    pub(crate) fn pair(&mut self, field: u64, first: impl AsRef<[u8]>, second: impl AsRef<[u8]>) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, first).text(2, second);
        self.message(field, &pair)
    }

    /// `inherit_fd`.
    pub(crate) fn inherit(&mut self, key: &str, fd: i32) -> &mut Self {
        let mut inherit = Self::default();
        inherit.text(1, key).int(2, fd);
        self.message(opt::INHERIT_FD, &inherit)
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// `criu_req`.
pub(crate) fn request(kind: u64, options: Option<&Message>) -> Vec<u8> {
    let mut request = Message::default();
    request.number(1, kind);
    options.map(|options| request.message(2, options));
    request.0
}

/// The answer to a notification: the work may go on.
pub(crate) fn notified() -> Vec<u8> {
    let mut request = Message::default();
    request.number(1, kind::NOTIFY).flag(3, true);
    request.0
}

/// The question whether criu, on this kernel, can track changed memory and restore pages lazily.
pub(crate) fn feature_check() -> Vec<u8> {
    let (mut request, mut features) = (Message::default(), Message::default());
    features.flag(1, true).flag(2, true);
    request.number(1, kind::FEATURE_CHECK).message(5, &features);
    request.0
}

/// `criu_resp`, as far as it is of use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) kind: u64,
    pub(crate) success: bool,
    /// Of a restored init; of a notification, of the process that it is about.
    pub(crate) pid: i32,
    /// The name of a notification.
    pub(crate) notify: String,
    /// What went wrong first.
    pub(crate) message: String,
    /// Of a feature check.
    pub(crate) mem_track: bool,
    pub(crate) lazy_pages: bool,
    /// Major, minor, sublevel.
    pub(crate) version: (u64, u64, u64),
}

/// Reads an answer; None: it is none.
pub(crate) fn response(bytes: &[u8]) -> Option<Response> {
    let mut response = Response::default();
    for field in Fields(bytes) {
        let (number, value) = field?;
        match (number, value) {
            (1, Value::Number(kind)) => response.kind = kind,
            (2, Value::Number(success)) => response.success = success != 0,
            (4 | 5, Value::Bytes(inner)) => inner_of_work(&mut response, number, inner)?,
            (8, Value::Bytes(inner)) => {
                response.mem_track = number_of(inner, 1)? != 0;
                response.lazy_pages = number_of(inner, 2)? != 0;
            }
            (9, Value::Bytes(text)) => response.message = String::from_utf8_lossy(text).into_owned(),
            (10, Value::Bytes(inner)) => {
                response.version = (number_of(inner, 1)?, number_of(inner, 2)?, number_of(inner, 4)?);
            }
            _ => {}
        }
    }
    Some(response)
}

/// `criu_restore_resp` (4) and `criu_notify` (5).
fn inner_of_work(response: &mut Response, number: u64, inner: &[u8]) -> Option<()> {
    let pid = if number == 4 { 1 } else { 2 };
    for field in Fields(inner) {
        match field? {
            // -1 where there is none.
            (number, Value::Number(value)) if number == pid => response.pid = i32::try_from(value).unwrap_or(0),
            (1, Value::Bytes(text)) => response.notify = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Some(())
}

/// One number of a message, 0 where it is not given.
fn number_of(bytes: &[u8], wanted: u64) -> Option<u64> {
    let mut found = 0;
    for field in Fields(bytes) {
        if let (number, Value::Number(value)) = field?
            && number == wanted
        {
            found = value;
        }
    }
    Some(found)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; None is one that cannot be read, and the last.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_that_protoc_makes() {
        let mut options = Message::default();
        options.int(opt::IMAGES_DIR_FD, 300).flag(opt::LEAVE_RUNNING, true).flag(opt::SHELL_JOB, false);
        options.text(opt::LOG_FILE, "d").pair(opt::EXT_MNT, "/a", "/b");
        let bytes = request(kind::DUMP, Some(&options));
        // criu_req { type: DUMP opts { images_dir_fd: 300 leave_running: true log_file: "d" ext_mnt { key: "/a" val: "/b" } } }
        let expected = [
            &[0x08, 1, 0x12, 19, 0x08, 0xac, 0x02, 0x18, 1, 0x52, 1][..],
            b"d",
            &[0xba, 0x01, 8, 0x0a, 2],
            b"/a",
            &[0x12, 2],
            b"/b",
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn answers_are_read() {
        let notify = [&[0x08, 6, 0x10, 1, 0x2a, 16, 0x0a, 12][..], b"post-restore", &[0x10, 0x2a]].concat();
        let expected =
            Response { kind: 6, success: true, pid: 42, notify: "post-restore".into(), ..Response::default() };
        assert_eq!(response(&notify), Some(expected));
        let restored = [0x08, 2, 0x10, 1, 0x22, 3, 0x08, 0xac, 0x02];
        assert_eq!(response(&restored).map(|response| response.pid), Some(300));
        let version = [0x08, 10, 0x10, 1, 0x52, 6, 0x08, 4, 0x10, 2, 0x20, 1];
        assert_eq!(response(&version).map(|response| response.version), Some((4, 2, 1)));
    }

    #[test]
    fn what_is_cut_off_or_no_message_is_no_answer() {
        for bytes in [&[0x08][..], &[0x2a, 5, 1], &[0x0d, 1, 2, 3, 4], &[0xff; 11]] {
            assert_eq!(response(bytes), None, "{bytes:?}");
        }
    }
}
