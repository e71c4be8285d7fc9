//! Messages of D-Bus (D-Bus specification, "Message Protocol"): built and read. Pure: no file, no system call.
//!
//! In the byte order of this host, which is also that of whoever answers.

use std::fmt::Write as _;

/// A value, of the types that systemd's interface uses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Str(String),
    ObjectPath(String),
    Signature(String),
    /// The signature of one element, and the elements.
    Array(String, Vec<Self>),
    Struct(Vec<Self>),
    Variant(Box<Self>),
}

impl Value {
    /// Strings as an array.
    pub(crate) fn strings(strings: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Array("s".to_owned(), strings.into_iter().map(|string| Self::Str(string.into())).collect())
    }

    /// The type, as one writes it in a signature.
    pub(crate) fn signature(&self) -> String {
        let code = match self {
            Self::Byte(_) => 'y',
            Self::Bool(_) => 'b',
            Self::I16(_) => 'n',
            Self::U16(_) => 'q',
            Self::I32(_) => 'i',
            Self::U32(_) => 'u',
            Self::I64(_) => 'x',
            Self::U64(_) => 't',
            Self::Double(_) => 'd',
            Self::Str(_) => 's',
            Self::ObjectPath(_) => 'o',
            Self::Signature(_) => 'g',
            Self::Variant(_) => 'v',
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => return format!("({})", signature(fields)),
        };
        code.to_string()
    }

    /// The text of a string or object path.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::ObjectPath(text) => Some(text),
            Self::Variant(value) => value.text(),
            _ => None,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        pad(out, alignment(&self.signature()));
        match self {
            Self::Byte(value) => out.push(*value),
            Self::Bool(value) => out.extend(u32::from(*value).to_ne_bytes()),
            Self::I16(value) => out.extend(value.to_ne_bytes()),
            Self::U16(value) => out.extend(value.to_ne_bytes()),
            Self::I32(value) => out.extend(value.to_ne_bytes()),
            Self::U32(value) => out.extend(value.to_ne_bytes()),
            Self::I64(value) => out.extend(value.to_ne_bytes()),
            Self::U64(value) => out.extend(value.to_ne_bytes()),
            Self::Double(value) => out.extend(value.to_ne_bytes()),
            Self::Str(text) | Self::ObjectPath(text) => {
                out.extend(length(text.len()).to_ne_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => short_text(out, text),
            Self::Array(element, values) => {
                let at = out.len();
                out.extend([0; 4]);
                pad(out, alignment(element));
                let start = out.len();
                values.iter().for_each(|value| value.encode(out));
                // The padding before the first element does not count.
                let bytes = length(out.len().saturating_sub(start)).to_ne_bytes();
                out.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = byte);
            }
            Self::Struct(fields) => fields.iter().for_each(|field| field.encode(out)),
            Self::Variant(value) => {
                short_text(out, &value.signature());
                value.encode(out);
            }
        }
    }
}

fn short_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.as_bytes());
    out.push(0);
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The signature of several values.
pub(crate) fn signature(values: &[Value]) -> String {
    values.iter().fold(String::new(), |mut text, value| {
        let _ = text.write_str(&value.signature());
        text
    })
}

fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const VERSION: u8 = 1;
/// What comes before the header's fields: byte order, type, flags, version, length of the body, serial, length of the fields.
const PREFIX: usize = 16;
/// More than systemd ever answers; the protocol's limit is 128 MiB.
const LONGEST: usize = 1 << 20;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MethodCall = 1,
    MethodReturn = 2,
    Error = 3,
    Signal = 4,
}

/// A message that has come.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// Of the call to which it is the answer.
    pub(crate) reply_to: Option<u32>,
    /// Of a signal.
    pub(crate) member: Option<String>,
    /// Of an error.
    pub(crate) error: Option<String>,
    /// The name on the bus of whoever has sent it: the bus vouches for it.
    pub(crate) sender: Option<String>,
    pub(crate) body: Vec<Value>,
}

/// The method that is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// A method call. The serial is not 0.
pub(crate) fn call(serial: u32, method: &Method<'_>, arguments: &[Value]) -> Vec<u8> {
    let field = |code, value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        field(PATH, Value::ObjectPath(method.path.to_owned())),
        field(INTERFACE, Value::Str(method.interface.to_owned())),
        field(MEMBER, Value::Str(method.member.to_owned())),
        field(DESTINATION, Value::Str(method.destination.to_owned())),
    ];
    if !arguments.is_empty() {
        fields.push(field(SIGNATURE, Value::Signature(signature(arguments))));
    }
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.encode(&mut body));
    let mut message = vec![ENDIAN, Kind::MethodCall as u8, 0, VERSION];
    message.extend(length(body.len()).to_ne_bytes());
    message.extend(serial.to_ne_bytes());
    Value::Array("(yv)".to_owned(), fields).encode(&mut message);
    pad(&mut message, 8);
    message.extend(body);
    message
}

/// Reads the first message of `bytes`. None: it is not all there yet. Err: what comes is not D-Bus as we know it.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Message, usize)>, &'static str> {
    let Some(prefix) = bytes.get(..PREFIX) else { return Ok(None) };
    let mut reader = Reader { bytes: prefix, at: 0 };
    if (reader.byte()?, prefix.get(3)) != (ENDIAN, Some(&VERSION)) {
        return Err("a message of another byte order or version");
    }
    let kind = reader.byte()?;
    reader.at = 4;
    let (body_length, _serial, fields_length) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (body_length, fields_length) = (body_length as usize, fields_length as usize);
    if body_length.max(fields_length) > LONGEST {
        return Err("a message that is too long");
    }
    let start = PREFIX.saturating_add(fields_length).next_multiple_of(8);
    let end = start.saturating_add(body_length);
    let Some(bytes) = bytes.get(..end) else { return Ok(None) };
    let kind = match kind {
        1 => Kind::MethodCall,
        2 => Kind::MethodReturn,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return Err("a message of an unknown type"),
    };
    let mut message = Message { kind, reply_to: None, member: None, error: None, sender: None, body: Vec::new() };
    let mut reader = Reader { bytes, at: 12 };
    let Value::Array(_, fields) = reader.value("a(yv)", 0)? else { return Err("a header that is no array") };
    let mut types = String::new();
    for field in fields {
        let Value::Struct(field) = field else { continue };
        let (Some(Value::Byte(code)), Some(Value::Variant(value))) = (field.first(), field.get(1)) else { continue };
        match (*code, value.as_ref()) {
            (MEMBER, Value::Str(text)) => message.member = Some(text.clone()),
            (ERROR_NAME, Value::Str(text)) => message.error = Some(text.clone()),
            (SENDER, Value::Str(text)) => message.sender = Some(text.clone()),
            (REPLY_SERIAL, Value::U32(serial)) => message.reply_to = Some(*serial),
            (SIGNATURE, Value::Signature(text)) => types.clone_from(text),
            _ => {}
        }
    }
    let mut reader = Reader { bytes: bytes.get(start..).unwrap_or_default(), at: 0 };
    let mut rest = types.as_str();
    while !rest.is_empty() {
        let (first, after) = split(rest)?;
        message.body.push(reader.value(first, 0)?);
        rest = after;
    }
    Ok(Some((message, end)))
}

/// The first complete type of a signature, and what comes after it.
fn split(signature: &str) -> Result<(&str, &str), &'static str> {
    let mut depth = 0u32;
    for (index, byte) in signature.bytes().enumerate() {
        match byte {
            b'a' => continue,
            b'(' | b'{' => depth = depth.saturating_add(1),
            b')' | b'}' => depth = depth.checked_sub(1).ok_or("a signature that closes what it has not opened")?,
            _ => {}
        }
        if depth == 0 {
            return signature.split_at_checked(index.saturating_add(1)).ok_or("a signature that is not ASCII");
        }
    }
    Err("a signature that ends too early")
}

/// How deep values may stand in each other.
const DEPTH: u32 = 16;
const SHORT: &str = "a message that ends too early";

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], &'static str> {
        let end = self.at.checked_add(count).ok_or(SHORT)?;
        let taken = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.at = self.at.next_multiple_of(N);
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.number().map(|[byte]: [u8; 1]| byte)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.number().map(u32::from_ne_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String, &'static str> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a string that is not UTF-8")?;
        self.take(1)?;
        Ok(text)
    }

    fn short_text(&mut self) -> Result<String, &'static str> {
        let length = self.byte()?;
        self.text(length.into())
    }

    fn long_text(&mut self) -> Result<String, &'static str> {
        let length = self.u32()?;
        self.text(length as usize)
    }

    fn value(&mut self, signature: &str, depth: u32) -> Result<Value, &'static str> {
        if depth > DEPTH {
            return Err("a message with too many levels");
        }
        let inner = signature.get(1..).unwrap_or_default();
        Ok(match signature.bytes().next() {
            Some(b'y') => Value::Byte(self.byte()?),
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'n') => Value::I16(i16::from_ne_bytes(self.number()?)),
            Some(b'q') => Value::U16(u16::from_ne_bytes(self.number()?)),
            Some(b'i') => Value::I32(i32::from_ne_bytes(self.number()?)),
            Some(b'u') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(i64::from_ne_bytes(self.number()?)),
            Some(b't') => Value::U64(u64::from_ne_bytes(self.number()?)),
            Some(b'd') => Value::Double(f64::from_ne_bytes(self.number()?)),
            Some(b's') => Value::Str(self.long_text()?),
            Some(b'o') => Value::ObjectPath(self.long_text()?),
            Some(b'g') => Value::Signature(self.short_text()?),
            Some(b'v') => {
                let signature = self.short_text()?;
                Value::Variant(Box::new(self.value(&signature, depth.saturating_add(1))?))
            }
            Some(b'a') => {
                let length = self.u32()? as usize;
                self.at = self.at.next_multiple_of(alignment(inner));
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(SHORT)?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(inner, depth.saturating_add(1))?);
                }
                Value::Array(inner.to_owned(), values)
            }
            Some(b'(' | b'{') => {
                self.at = self.at.next_multiple_of(8);
                let mut rest = inner.get(..inner.len().saturating_sub(1)).unwrap_or_default();
                let mut fields = Vec::new();
                while !rest.is_empty() {
                    let (first, after) = split(rest)?;
                    fields.push(self.value(first, depth.saturating_add(1))?);
                    rest = after;
                }
                // No bytes for it: an array of such would never end.
                if fields.is_empty() {
                    return Err("an empty struct");
                }
                Value::Struct(fields)
            }
            _ => return Err("a value of an unknown type"),
        })
    }
}

#[cfg(test)]
mod tests;
