//! What every serialization has to keep: values come back as they went, no bytes panic, what is cut is an error, bombs are
//! refused before they are paid for.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::protocol::wamp::client_message::ClientMessage;
use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::serializer::Serializer;
use crate::protocol::wamp::value::{DEPTH_MAX, Dict, VALUES_MAX, Value};
use crate::protocol::{Incoming, Outbound};

/// Bytes from their hexadecimal digits; spaces do not count.
pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter(|digit| *digit != ' ').map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// What one peer sends as the other gets it.
pub(super) fn incoming(outbound: &Outbound) -> Incoming<'_> {
    match outbound {
        Outbound::Text(bytes) => Incoming::Text(std::str::from_utf8(bytes).unwrap()),
        Outbound::Binary(bytes) => Incoming::Binary(bytes),
    }
}

fn decode(serializer: Serializer, bytes: &[u8]) -> Result<Value, Malformed> {
    match (serializer, std::str::from_utf8(bytes)) {
        (Serializer::Json, Ok(text)) => serializer.decode(Incoming::Text(text)),
        // No such message arrives.
        (Serializer::Json, Err(_)) => Err(Malformed::Cut),
        _ => serializer.decode(Incoming::Binary(bytes)),
    }
}

fn raw(outbound: &Outbound) -> &[u8] {
    match outbound {
        Outbound::Text(bytes) | Outbound::Binary(bytes) => bytes,
    }
}

pub(super) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-300_i64..300).prop_map(Value::Int),
        (i64::MAX.unsigned_abs() + 1..).prop_map(Value::UInt),
        // Of all floats only what is none cannot be compared, and what is endless JSON cannot say.
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Float),
        any::<String>().prop_filter("no binary", |text| !text.starts_with('\0')).prop_map(Value::Text),
        vec(any::<char>(), 30..70).prop_map(|text| Value::Text(format!("x{}", String::from_iter(text)))),
        vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 64, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::List),
            proptest::collection::btree_map(any::<String>(), inner, 0..20)
                .prop_map(|entries| Value::Dict(Dict(entries.into_iter().collect()))),
        ]
    })
}

proptest! {
    #[test]
    fn values_come_back_as_they_went(elements in vec(any_value(), 0..4)) {
        for serializer in Serializer::ALL {
            let outbound = serializer.encode(&elements);
            prop_assert_eq!(serializer.decode(incoming(&outbound)), Ok(Value::List(elements.clone())));
        }
    }

    #[test]
    fn whatever_is_cut_is_an_error(elements in vec(any_value(), 0..4), cut in any::<prop::sample::Index>()) {
        for serializer in Serializer::ALL {
            let outbound = serializer.encode(&elements);
            let bytes = raw(&outbound);
            let start = &bytes[..cut.index(bytes.len())];
            prop_assert!(decode(*serializer, start).is_err(), "{:?} {:?}", serializer, start);
            let longer = [bytes, b"\0"].concat();
            prop_assert!(decode(*serializer, &longer).is_err());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..64)) {
        for serializer in Serializer::ALL {
            if let Ok(value) = decode(*serializer, &bytes) {
                let _ = ClientMessage::read(value);
            }
        }
    }

    /// Bytes that begin as lists and dicts do, and texts of JSON's characters, get further.
    #[test]
    fn no_almost_messages_panic(
        heads in vec(prop_oneof![0x80_u8..=0xa3, 0xc0_u8..=0xdf, 0x5f_u8..=0x62, Just(0xff)], 0..24),
        text in "[\\[\\]{}\":,0-9eE.+\\\\u \\-truefalsn]{0,40}",
    ) {
        for serializer in [Serializer::MessagePack, Serializer::Cbor] {
            let _ = decode(serializer, &heads);
        }
        let _ = decode(Serializer::Json, text.as_bytes());
    }

    /// What is read of any JSON is what the JSON parser reads.
    #[test]
    fn json_is_read_as_its_parser_reads_it(text in "[\\[\\]{}\":,0-9e.\\- ab]{0,40}") {
        let by_parser = serde_json::from_str::<serde_json::Value>(&text);
        match decode(Serializer::Json, text.as_bytes()) {
            Ok(value) => prop_assert!(agrees(&value, &by_parser.unwrap()), "{text}"),
            Err(Malformed::Json { .. }) => prop_assert!(by_parser.is_err(), "{text}"),
            // A parser that keeps the last of repeated keys says nothing of them.
            Err(error) => prop_assert!(matches!(error, Malformed::Repeated { .. } | Malformed::Range), "{text} {error}"),
        }
    }

    /// Any message of a client, with anything in place of one of its elements, is read or refused.
    #[test]
    fn no_message_panics(code in 0_u64..80, mut elements in vec(any_value(), 0..7), id in 1_i64..9) {
        elements.insert(0, Value::from(code));
        if let Some(request) = elements.get_mut(1) {
            *request = Value::Int(id);
        }
        if let Err(refusal) = ClientMessage::read(Value::List(elements)) {
            let answer = refusal.answer();
            if let Some(answer) = answer {
                let outbound = answer.encode(Serializer::Json);
                prop_assert!(raw(&outbound).len() < 2048);
            }
        }
    }
}

fn agrees(value: &Value, json: &serde_json::Value) -> bool {
    match (value, json) {
        (Value::List(items), serde_json::Value::Array(parsed)) => {
            items.len() == parsed.len() && items.iter().zip(parsed).all(|(item, parsed)| agrees(item, parsed))
        }
        (Value::Dict(dict), serde_json::Value::Object(parsed)) => {
            let same = |(key, value): &(String, Value)| parsed.get(key).is_some_and(|parsed| agrees(value, parsed));
            dict.0.len() == parsed.len() && dict.0.iter().all(same)
        }
        (Value::Text(text), parsed) => parsed.as_str() == Some(text),
        (Value::Int(number), parsed) => {
            parsed.as_i64() == Some(*number) || *number == 0 && parsed.as_f64() == Some(0.0)
        }
        (Value::UInt(number), parsed) => parsed.as_u64() == Some(*number),
        // The parser rounds a little otherwise.
        (Value::Float(number), parsed) => parsed.as_f64().is_some_and(|it| (it - number).abs() <= number.abs() * 1e-12),
        _ => false,
    }
}

#[test]
fn nesting_is_followed_only_so_far() {
    for (serializer, open, close) in
        [(Serializer::Json, "[", "]"), (Serializer::MessagePack, "\u{0091}", ""), (Serializer::Cbor, "\u{0081}", "")]
    {
        let nested = |depth: usize| {
            let inner = if serializer == Serializer::Json { "1" } else { "\u{1}" };
            let text = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            text.chars().map(|character| u32::from(character) as u8).collect::<Vec<u8>>()
        };
        assert!(decode(serializer, &nested(DEPTH_MAX)).is_ok());
        for depth in [DEPTH_MAX + 1, 1 << 20] {
            assert_eq!(decode(serializer, &nested(depth)), Err(Malformed::TooDeep), "{serializer:?} {depth}");
        }
    }
    for hex in ["81", "9f", "c0", "d81b", "a100"] {
        let bytes = bytes_of(&hex.repeat(1 << 10));
        assert_eq!(decode(Serializer::Cbor, &bytes), Err(Malformed::TooDeep), "{hex}");
    }
}

#[test]
fn what_is_nested_deeper_than_anything_read_is_written_as_null() {
    let nested = (0..DEPTH_MAX + 9).fold(Value::Int(1), |inner, _| Value::List(vec![inner]));
    for serializer in Serializer::ALL {
        let outbound = serializer.encode(std::slice::from_ref(&nested));
        let bytes = raw(&outbound);
        assert!(bytes.len() < 3 * DEPTH_MAX && !bytes.contains(&1) && !bytes.contains(&b'1'), "{serializer:?}");
    }
}

#[test]
fn bombs_are_refused_before_they_are_paid_for() {
    for (serializer, hex) in [
        (Serializer::MessagePack, "ddffffffff"),
        (Serializer::MessagePack, "dfffffffff"),
        (Serializer::MessagePack, "dbffffffff"),
        (Serializer::MessagePack, "c6ffffffff"),
        (Serializer::MessagePack, "c9ffffffff01"),
        (Serializer::Cbor, "9bffffffffffffffff"),
        (Serializer::Cbor, "bbffffffffffffffff"),
        (Serializer::Cbor, "7bffffffffffffffff"),
        (Serializer::Cbor, "5bffffffffffffffff"),
        (Serializer::Cbor, "5f5bffffffffffffffff"),
    ] {
        let bytes = bytes_of(hex);
        assert!(matches!(decode(serializer, &bytes), Err(Malformed::Cut | Malformed::Extension { .. })), "{hex}");
    }
}

/// Lists that each promise all that could still follow: were each promise kept in store, a message of some mebibytes
/// would take gibibytes.
#[test]
fn promises_within_promises_are_counted_together() {
    let size = 2 * VALUES_MAX;
    let promise = (size as u32 / 2).to_be_bytes();
    for (serializer, head) in [(Serializer::MessagePack, 0xdd), (Serializer::Cbor, 0x9a)] {
        let mut bytes = vec![0_u8; size];
        for level in bytes.chunks_exact_mut(5).take(50) {
            level[0] = head;
            level[1..].copy_from_slice(&promise);
        }
        assert_eq!(decode(serializer, &bytes), Err(Malformed::TooMany), "{serializer:?}");
    }
}

#[test]
fn a_message_holds_only_so_many_values() {
    let list = |length: usize| Value::List(vec![Value::Int(1); length]);
    let dict = |entries: usize| (0..entries).map(|number| (number.to_string(), Value::Null)).collect();
    for serializer in Serializer::ALL {
        let most = serializer.encode(&[list(VALUES_MAX - 2)]);
        assert!(decode(*serializer, raw(&most)).is_ok(), "{serializer:?}");
        for more in [list(VALUES_MAX), Value::Dict(Dict(dict(VALUES_MAX / 2)))] {
            let more = serializer.encode(&[more]);
            assert_eq!(decode(*serializer, raw(&more)), Err(Malformed::TooMany), "{serializer:?}");
        }
    }
    let endless = [vec![0x9f], vec![1; VALUES_MAX + 1], vec![0xff]].concat();
    assert_eq!(decode(Serializer::Cbor, &endless), Err(Malformed::TooMany));
}

#[test]
fn malformed_bytes_are_answered_in_words() {
    let msgpack = Serializer::MessagePack;
    for (serializer, bytes, sentence) in [
        (Serializer::Json, &b""[..], "the message is not JSON: EOF while parsing a value at line 1 column 0"),
        (Serializer::Json, b"[1", "the message is not JSON: EOF while parsing a list at line 1 column 2"),
        (Serializer::Json, b"[] []", "the message is not JSON: trailing characters at line 1 column 4"),
        (Serializer::Json, b"[01]", "the message is not JSON: invalid number at line 1 column 3"),
        (Serializer::Json, b"[1e999]", "a number does not fit into 64 bits"),
        (Serializer::Json, b"[{\"a\":1,\"\\u0061\":2}]", "a dict has the key \"a\" twice"),
        (
            Serializer::Json,
            b"[\"\\ud800\"]",
            "the message is not JSON: unexpected end of hex escape at line 1 column 8",
        ),
        (msgpack, b"", "the message ends in the middle of a value"),
        (msgpack, b"\x92\x01", "the message ends in the middle of a value"),
        (msgpack, b"\x90\x90\x90", "the message goes on for 2 bytes after its end: send one list a message"),
        (msgpack, b"\xc1", "no value begins with the byte 0xc1"),
        (msgpack, b"\xa1\xff", "a string is not UTF-8: send bytes as binary"),
        (msgpack, b"\x81\xc0\x01", "the keys of a dict must be strings"),
        (msgpack, b"\x82\xa1a\x01\xa1a\x02", "a dict has the key \"a\" twice"),
        (msgpack, b"\xd4\x05\x00", "MessagePack's extension type 5 is not understood: send a plain value"),
        (Serializer::Cbor, b"\xc4\x82\x00\x01", "CBOR's tag 4 is not understood: send a plain value"),
    ] {
        assert_eq!(decode(serializer, bytes).unwrap_err().to_string(), sentence, "{bytes:?}");
    }
    let frame = |serializer: Serializer, message| serializer.decode(message).unwrap_err().to_string();
    let text = "wamp.2.json speaks in text messages: send text";
    assert_eq!(frame(Serializer::Json, Incoming::Binary(b"[]")), text);
    let binary = "wamp.2.cbor speaks in binary messages: send binary";
    assert_eq!(frame(Serializer::Cbor, Incoming::Text("[]")), binary);
}

#[test]
fn json_is_embedded_as_it_is_or_taken_apart() {
    for serializer in Serializer::ALL {
        assert_eq!(serializer.embed("{"), None);
        let outbound = serializer.encode(&[serializer.embed(" {\"a\": [1.50, \"x\"]}").unwrap()]);
        let list = Value::List(vec![Value::Float(1.5), Value::text("x")]);
        let expected = Value::List(vec![Value::Dict(Dict::default().with("a", list))]);
        assert_eq!(serializer.decode(incoming(&outbound)), Ok(expected));
    }
    let outbound = Serializer::Json.encode(&[Value::Int(1), Serializer::Json.embed(" 1.50 ").unwrap()]);
    assert_eq!(raw(&outbound), b"[1, 1.50 ]");
}
