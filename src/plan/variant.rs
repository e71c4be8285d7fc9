//! `annotations["org.systemd.property.NAME"]`: properties of the container's systemd unit. Pure.
//!
//! Values are in the text format of GVariant, as with runc and crun: `true`, `'text'`, `uint64 5000000`, `['a', 'b']`,
//! `@as []`, `[('/dev/null', 'rw')]`.

use std::collections::BTreeMap;

use crate::cgroups::Property;
use crate::dbus::Value;
use crate::error::{Error, Result};

pub(super) const PREFIX: &str = "org.systemd.property.";

/// What would make the unit another one than the container's, or put other processes into it.
const OURS: &[&str] = &["Controller", "Delegate", "DelegateControllers", "DelegateSubgroup", "PIDFDs", "PIDs", "Slice"];

/// The properties that annotations ask for.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let ours = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    ours.map(|(key, name, text)| {
        let at = |what: String| Error::at(format!("annotations[{key:?}]"), what);
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(at(
                "is not the name of a property of a systemd unit: at least 3 letters, and only letters".into()
            ));
        }
        if OURS.contains(&name) {
            return Err(at("is for the runtime to say".into()).hint("the slice is the first part of linux.cgroupsPath"));
        }
        let value = parse(text).ok_or_else(|| {
            at(format!("{text:?} is no value in GVariant's text format")).hint("for example 'text', true, uint64 5")
        })?;
        // systemd itself has no property in seconds on the bus, only its files have.
        match name.strip_suffix("Sec").filter(|rest| !rest.ends_with('U')) {
            Some(rest) => {
                let micros = microseconds(&value).ok_or_else(|| at(format!("{text:?} is no number of seconds")))?;
                Ok((format!("{rest}USec"), Value::U64(micros)))
            }
            None => Ok((name.to_owned(), value)),
        }
    })
    .collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the range before")]
fn microseconds(value: &Value) -> Option<u64> {
    let whole = match value {
        Value::Byte(number) => u64::from(*number),
        Value::U16(number) => u64::from(*number),
        Value::U32(number) => u64::from(*number),
        Value::U64(number) => *number,
        Value::I16(number) => u64::try_from(*number).ok()?,
        Value::I32(number) => u64::try_from(*number).ok()?,
        Value::I64(number) => u64::try_from(*number).ok()?,
        Value::Double(number) => {
            let micros = number * 1e6;
            return (0.0..9e18).contains(&micros).then_some(micros as u64);
        }
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.value(None)?;
    parser.rest.trim_start().is_empty().then_some(value)
}

/// The words for types (GVariant Text Format, "Type annotations"), and their signatures.
const TYPES: &[(&str, &str)] = &[
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("handle", "i"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let (word, rest) = self.rest.split_at(self.rest.find(|c| !part(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value: of the type that is wanted, or else of the one that its text suggests.
    fn value(&mut self, wanted: Option<&str>) -> Option<Value> {
        self.depth = self.depth.checked_add(1).filter(|depth| *depth < 16)?;
        let value = self.any(wanted);
        self.depth -= 1;
        value
    }

    fn any(&mut self, wanted: Option<&str>) -> Option<Value> {
        if self.eat('@') {
            let signature = self.word(|c| !c.is_whitespace());
            let rest = skip_type(signature, 0)?;
            return if rest.is_empty() { self.value(Some(signature)) } else { None };
        }
        if self.eat('[') {
            return self.array(wanted.map(|wanted| wanted.strip_prefix('a').ok_or(())).transpose().ok()?);
        }
        if self.eat('(') {
            // The fields of a struct that is wanted are not told apart: their texts have to.
            let mut fields = Vec::new();
            while !self.eat(')') {
                fields.push(self.value(None)?);
                if !self.eat(',') && !self.rest.trim_start().starts_with(')') {
                    return None;
                }
            }
            let value = Value::Struct(fields);
            return Some(value)
                .filter(|value| *value != Value::Struct(Vec::new()))
                .filter(|value| wanted.is_none_or(|wanted| wanted == value.signature()));
        }
        if self.eat('<') {
            let value = self.value(None)?;
            return (self.eat('>') && wanted.is_none_or(|wanted| wanted == "v"))
                .then(|| Value::Variant(Box::new(value)));
        }
        if let Some(quote) = ['\'', '"'].into_iter().find(|quote| self.rest.starts_with(*quote)) {
            let text = self.string(quote)?;
            return match wanted.unwrap_or("s") {
                "s" => Some(Value::Str(text)),
                "o" => Some(Value::ObjectPath(text)),
                "g" => Some(Value::Signature(text)),
                _ => None,
            };
        }
        let word = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if let Some((_, signature)) = TYPES.iter().find(|(name, _)| *name == word) {
            return self.value(Some(signature));
        }
        match word {
            "true" | "false" if matches!(wanted, None | Some("b")) => Some(Value::Bool(word == "true")),
            word => number(word, wanted),
        }
    }

    fn array(&mut self, element: Option<&str>) -> Option<Value> {
        let mut values: Vec<Value> = Vec::new();
        // All of the first one's type.
        let mut element = element.map(str::to_owned);
        while !self.eat(']') {
            let value = self.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature());
            values.push(value);
            if !self.eat(',') && !self.rest.trim_start().starts_with(']') {
                return None;
            }
        }
        // Without a type and without elements: systemd's lists are of strings.
        Some(Value::Array(element.unwrap_or_else(|| "s".to_owned()), values))
    }

    fn string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                }),
                c if c == quote => {
                    self.rest = self.rest.get(index.saturating_add(1)..)?;
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }
}

/// What comes after the first complete type of a signature.
fn skip_type(signature: &str, depth: u32) -> Option<&str> {
    let (first, rest) = (signature.bytes().next()?, signature.get(1..)?);
    match first {
        _ if depth > 16 => None,
        b'a' => skip_type(rest, depth.saturating_add(1)),
        b'(' => {
            let mut rest = skip_type(rest, depth.saturating_add(1))?;
            while !rest.starts_with(')') {
                rest = skip_type(rest, depth.saturating_add(1))?;
            }
            rest.get(1..)
        }
        first if b"ybnqiuxtdsogv".contains(&first) => Some(rest),
        _ => None,
    }
}

fn number(word: &str, wanted: Option<&str>) -> Option<Value> {
    let hexadecimal = word.strip_prefix("0x").and_then(|digits| i128::from_str_radix(digits, 16).ok());
    let whole = hexadecimal.or_else(|| word.parse::<i128>().ok());
    match wanted {
        Some("y") => Some(Value::Byte(whole?.try_into().ok()?)),
        Some("n") => Some(Value::I16(whole?.try_into().ok()?)),
        Some("q") => Some(Value::U16(whole?.try_into().ok()?)),
        Some("i") => Some(Value::I32(whole?.try_into().ok()?)),
        Some("u") => Some(Value::U32(whole?.try_into().ok()?)),
        Some("x") => Some(Value::I64(whole?.try_into().ok()?)),
        Some("t") => Some(Value::U64(whole?.try_into().ok()?)),
        None if whole.is_some() => Some(Value::I32(whole?.try_into().ok()?)),
        None | Some("d") if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            word.parse().ok().map(Value::Double)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_that_their_texts_say() {
        let strings = |strings: &[&str]| Value::strings(strings.iter().copied());
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("'a b'", Value::Str("a b".into())),
            (r#" "it\"s" "#, Value::Str("it\"s".into())),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("1.5", Value::Double(1.5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@u 7", Value::U32(7)),
            ("byte 7", Value::Byte(7)),
            ("objectpath '/a'", Value::ObjectPath("/a".into())),
            ("['a', 'b']", strings(&["a", "b"])),
            ("[]", strings(&[])),
            ("@as []", strings(&[])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("<1>", Value::Variant(Box::new(Value::I32(1)))),
            (
                "[('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".into(),
                    vec![Value::Struct(vec![Value::Str("/dev/null".into()), Value::Str("rw".into())])],
                ),
            ),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(100);
        for text in [
            "",
            "nil",
            "'a",
            "[1",
            "[1 2]",
            "['a', 1]",
            "byte 256",
            "uint32 -1",
            "(1",
            "1 2",
            "inf",
            &deep,
            "<1",
            "@as 1",
            "@a []",
            "@a{sv []",
            "@z 1",
            "@as(",
            "@ss 'a'",
            "()",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        let of = |name: &str, text: &str| {
            properties(&BTreeMap::from([(format!("{PREFIX}{name}"), text.to_owned())])).map_err(|error| error.line())
        };
        assert_eq!(of("TimeoutStopSec", "uint64 2"), Ok(vec![("TimeoutStopUSec".into(), Value::U64(2_000_000))]));
        assert_eq!(of("TimeoutStopSec", "1.5"), Ok(vec![("TimeoutStopUSec".into(), Value::U64(1_500_000))]));
        assert_eq!(of("TimeoutStopUSec", "uint64 2"), Ok(vec![("TimeoutStopUSec".into(), Value::U64(2))]));
        let field = "annotations[\"org.systemd.property.TimeoutStopSec\"]";
        assert_eq!(of("TimeoutStopSec", "'x'"), Err(format!("{field}: \"'x'\" is no number of seconds")));
        assert!(of("PIDs", "[uint32 1]").is_err() && of("Slice", "'a.slice'").is_err());
        assert!(of("A-B", "true").is_err() && of("Ab", "true").is_err() && of("", "true").is_err());
        assert_eq!(properties(&BTreeMap::from([("org.systemd".to_owned(), "x".to_owned())])).unwrap(), Vec::new());
    }
}
