use super::*;

const HELLO: Method<'_> =
    Method { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "a.b", member: "Hello" };

/// What `call` has made, read back as if it had come from the other side.
fn round(arguments: &[Value]) -> Message {
    let bytes = call(7, &HELLO, arguments);
    let (message, length) = read(&bytes).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    message
}

#[test]
fn a_call_is_laid_out_as_the_specification_says() {
    if ENDIAN == b'B' {
        return;
    }
    let method = Method { destination: "d", path: "/", interface: "i", member: "m" };
    let mut wanted = b"l\x01\x00\x01\x08\0\0\0\x07\0\0\0\x48\0\0\0".to_vec();
    wanted.extend(b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0");
    wanted.extend(b"\x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0");
    wanted.extend(b"\x03\x01s\0\x01\0\0\0m\0\0\0\0\0\0\0");
    wanted.extend(b"\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0");
    wanted.extend(b"\x08\x01g\0\x02yu\0");
    wanted.extend(b"\x05\0\0\0\x09\0\0\0");
    assert_eq!(call(7, &method, &[Value::Byte(5), Value::U32(9)]), wanted);
}

#[test]
fn every_type_comes_back_as_it_went() {
    let variant = |value| Value::Variant(Box::new(value));
    let property = |name: &str, value| Value::Struct(vec![Value::Str(name.to_owned()), variant(value)]);
    let values = vec![
        Value::Str("unit.scope".to_owned()),
        Value::Byte(1),
        Value::I16(-2),
        Value::U16(3),
        Value::Bool(true),
        Value::I32(-4),
        Value::I64(-5),
        Value::Double(0.5),
        Value::ObjectPath("/a".to_owned()),
        Value::Signature("a(sv)".to_owned()),
        Value::Array(
            "(sv)".to_owned(),
            vec![
                property("PIDs", Value::Array("u".to_owned(), vec![Value::U32(1), Value::U32(2)])),
                property("MemoryMax", Value::U64(u64::MAX)),
                property("Wants", Value::strings(["a.slice", ""])),
            ],
        ),
        // Elements of 8 bytes: the padding before them is not in the length.
        Value::Array("(sa(sv))".to_owned(), Vec::new()),
        Value::U64(6),
    ];
    let message = round(&values);
    assert_eq!(message.body, values);
    assert_eq!(message.kind, Kind::MethodCall);
    assert_eq!(message.member.as_deref(), Some("Hello"));
}

#[test]
fn a_message_that_is_not_all_there_is_waited_for_and_the_next_one_left_alone() {
    let mut bytes = call(7, &HELLO, &[Value::Str("x".to_owned())]);
    for end in 0..bytes.len() {
        assert_eq!(read(bytes.get(..end).unwrap()), Ok(None), "{end}");
    }
    let length = bytes.len();
    bytes.extend(b"more");
    assert_eq!(read(&bytes).unwrap().unwrap().1, length);
}

#[test]
fn no_bytes_make_it_panic_or_go_on_for_ever() {
    let good = call(7, &HELLO, &[Value::Array("(sv)".to_owned(), Vec::new()), Value::Str("abc".to_owned())]);
    for at in 0..good.len() {
        for value in [0, 1, b'a', b'(', b'v', 0x7f, 0xff] {
            let mut bytes = good.clone();
            *bytes.get_mut(at).unwrap() = value;
            let _ = read(&bytes);
        }
    }
    assert!(split("a(").is_err() && split(")").is_err() && split("aa").is_err());
    let deep = "v".repeat(100);
    assert!(Reader { bytes: &[1, b'v', 0].repeat(100), at: 0 }.value(&deep, 0).is_err());
    assert!(Reader { bytes: &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], at: 0 }.value("a()", 0).is_err());
}
