//! What clients send, good and bad, and the sentences that they get.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::cursor::JOINT_CURSOR_BYTES_MAX;
use crate::model::value::Value;

fn read(text: &str) -> Result<Command, Fault> {
    command(Incoming::Text(text))
}

/// The code and sentence of a refusal.
fn refusal(text: &str) -> (&'static str, String) {
    match read(text) {
        Err(Fault::Reply { code, message, .. }) => (code.name(), message),
        other => panic!("{text}: {other:?}"),
    }
}

fn message_of(text: &str) -> Outgoing {
    match read(text) {
        Ok(Command::Publish { message, .. } | Command::Call { message, .. }) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_body_is_kept_as_the_json_that_it_was() {
    let message = message_of(r#"{"op":"publish","topic":"a","data": {"b" : 1.50} ,"unknown":[1]}"#);
    assert_eq!(
        (&*message.payload, message.content_type.as_deref()),
        (&b"{\"b\" : 1.50}"[..], Some("application/json"))
    );
    let null = message_of(r#"{"op":"publish","topic":"a","data":null}"#);
    assert_eq!(&*null.payload, b"null");
    let string = message_of(r#"{"op":"publish","topic":"a","data":"x","content_type":"application/json"}"#);
    assert_eq!(&*string.payload, b"\"x\"");
}

#[test]
fn text_goes_unquoted_and_bytes_decoded() {
    let text = message_of(r#"{"op":"publish","topic":"a","data":"é\n","content_type":"text/plain"}"#);
    assert_eq!((&*text.payload, text.content_type.as_deref()), ("é\n".as_bytes(), Some("text/plain")));
    for encoded in ["//4=", "//4"] {
        let bytes = message_of(&json!({"op": "call", "topic": "a", "data_base64": encoded}).to_string());
        assert_eq!((&*bytes.payload, bytes.content_type), (&b"\xff\xfe"[..], None));
    }
}

#[test]
fn properties_and_headers_are_read() {
    let text = r#"{"op":"publish","id":"x","topic":"a.b","data":1,"message_id":"m","headers":{"n":1},"mandatory":true,"echo":false}"#;
    let Ok(Command::Publish { id, message, mandatory, echo }) = read(text) else { panic!() };
    assert_eq!(echo, Echo::Nothing);
    assert_eq!((id.unwrap().get(), mandatory, message.message_id.as_deref()), ("\"x\"", true, Some("m")));
    assert_eq!(message.headers.value("n"), Some(&Value::Int(1)));
}

#[test]
fn a_subscription_is_read_whole() {
    let text = r#"{"op":"subscribe","id":7,"pattern":"*.#.#","after":{"events":"5.14"},"last":3,"source":"events","on_slow":"catch-up","max_rate":5,"filter":null}"#;
    let Ok(Command::Subscribe(subscribe)) = read(text) else { panic!() };
    assert_eq!((subscribe.pattern.as_str(), subscribe.last), ("*.#", 3));
    assert_eq!(
        (subscribe.after.to_string().as_str(), subscribe.only),
        ("events~5.14", Some(Only::Source("events".into())))
    );
    assert_eq!(subscribe.max_rate.map(Rate::messages), Some(5));
    assert_eq!(subscribe.id.unwrap().get(), "7");
}

#[test]
fn a_rate_is_a_whole_number_within_its_bounds() {
    for rate in ["0", "1001", "-1", "2.5", "\"5\"", "99999999999999999999", "[]"] {
        let text = format!(r#"{{"op":"subscribe","pattern":"a","max_rate":{rate}}}"#);
        let message = r#"subscribe takes a whole number from 1 to 1000 in "max_rate""#;
        assert_eq!(refusal(&text), ("bad_field", message.to_owned()), "{rate}");
    }
}

#[test]
fn errors_name_what_was_missing_and_what_came_instead() {
    let cases = [
        (r#"{"op":"subscribe","topic":"a"}"#, "bad_field", r#"subscribe needs "pattern" (you sent "topic")"#),
        (r#"{"op":"subscribe"}"#, "bad_field", r#"subscribe needs "pattern""#),
        (
            r#"{"op":"publish","topic":"a","payload":1}"#,
            "bad_field",
            r#"publish needs "data" or "data_base64" (you sent "payload")"#,
        ),
        (
            r#"{"op":"publish","topic":"a","data":1,"data_base64":""}"#,
            "bad_field",
            r#"publish takes "data" or "data_base64", not both"#,
        ),
        (r#"{"type":"x"}"#, "bad_field", r#"a message needs "op" (you sent "type")"#),
        (r#"{"op":"subscrbe"}"#, "unknown_op", r#"there is no op "subscrbe": did you mean "subscribe"?"#),
        (r#"{"op":"PING"}"#, "unknown_op", r#"there is no op "PING": did you mean "ping"?"#),
        (
            r#"{"op":"x"}"#,
            "unknown_op",
            r#"there is no op "x": send one of connect, subscribe, unsubscribe, publish, call, consume, cancel, ack, nack, presence, ping"#,
        ),
        (r#"{"op":"ping","id":{}}"#, "bad_field", r#""id" must be a number or a string"#),
        (r#"{"op":"ping","id":true}"#, "bad_field", r#""id" must be a number or a string"#),
        (r#"{"op":"call","topic":"a","data":1,"timeout_ms":0}"#, "bad_field", r#""timeout_ms" must be at least 1"#),
        (
            r#"{"op":"call","topic":"a","data":1,"timeout_ms":1.5}"#,
            "bad_field",
            r#"call needs a whole number in "timeout_ms""#,
        ),
        (r#"{"op":"publish","topic":1,"data":1}"#, "bad_field", r#"publish needs a string in "topic""#),
        (
            r#"{"op":"publish","topic":"a","data":1,"content_type":"text/plain"}"#,
            "bad_field",
            r#"publish needs a string in "data" for a content type that is not JSON"#,
        ),
        (r#"{"op":"publish","topic":"a","data_base64":"?"}"#, "bad_field", r#"publish needs base64 in "data_base64""#),
        (
            r#"{"op":"publish","topic":"a","data":1,"headers":[]}"#,
            "bad_field",
            r#"publish needs a JSON object in "headers""#,
        ),
        (
            r#"{"op":"subscribe","pattern":"\ud800"}"#,
            "bad_field",
            r#"subscribe needs whole Unicode characters in "pattern""#,
        ),
        (
            r#"{"op":"subscribe","pattern":"a","after":"x"}"#,
            "bad_field",
            r#"subscribe needs an object of cursors by source in "after", such as {"events":"…"}"#,
        ),
        (
            r#"{"op":"subscribe","pattern":"a","on_slow":"never"}"#,
            "bad_field",
            r#"subscribe takes "catch-up", "latest" or "drop-oldest" in "on_slow""#,
        ),
        (
            r#"{"op":"refresh","token":"a"}"#,
            "unsupported",
            r#"this server does not offer "refresh" yet: open a new connection with the new token"#,
        ),
    ];
    for (text, code, message) in cases {
        assert_eq!(refusal(text), (code, message.to_owned()), "{text}");
    }
}

#[test]
fn what_is_no_message_is_answered_and_never_ends_the_session() {
    let positional = format!("[\"ping\"{}]", ",null".repeat(17));
    for text in ["", "{", "[]", "1", "{\"op\":1,\"op\":2}", "{\"op\":\"ping\"} x", "null", &positional] {
        assert_eq!(refusal(text).0, "bad_message", "{text}");
    }
    assert!(matches!(command(Incoming::Binary(b"{}")), Err(Fault::Reply { code: ErrorCode::BadMessage, .. })));
    let huge = serde_json::to_string(&"x".repeat(100_000)).unwrap();
    assert!(refusal(&huge).1.len() < 300);
}

#[test]
fn nesting_exhausts_nothing() {
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    assert_eq!(refusal(&deep).0, "bad_message");
    assert!(matches!(read(&format!(r#"{{"op":"ping","x":{deep}}}"#)), Ok(Command::Ping { .. })));
    let (code, message) = refusal(&format!(r#"{{"op":"publish","topic":"a","data":{deep}}}"#));
    assert_eq!((code, message.as_str()), ("bad_field", "\"data\" may be nested 100 levels deep"));
    assert_eq!(refusal(&format!(r#"{{"op":"publish","topic":"a","data":1,"headers":{{"x":{deep}}}}}"#)).0, "bad_field");
    let shallow = "[".repeat(20_000) + &"]".repeat(20_000);
    let headers = format!(r#"{{"op":"publish","topic":"a","data":1,"headers":{{"x":{shallow}}}}}"#);
    assert_eq!(refusal(&headers).1, "publish needs a JSON object in \"headers\"");
}

#[test]
fn every_field_has_its_bound() {
    let long = |bytes: usize| "x".repeat(bytes);
    let id = format!(r#"{{"op":"ping","id":"{}"}}"#, long(ID_BYTES_MAX));
    assert_eq!(refusal(&id).1, "\"id\" may have at most 256 bytes");
    let cases = [
        (json!({"op": "connect", "token": long(TOKEN_BYTES_MAX + 1)}), "\"token\" may have at most 16384 bytes"),
        (json!({"op": "connect", "client": long(256)}), "\"client\" may have at most 255 bytes"),
        (json!({"op": "subscribe", "pattern": long(256)}), "\"pattern\" is 256 bytes long"),
        (json!({"op": "publish", "topic": long(256), "data": 1}), "\"topic\" is 256 bytes long"),
        (json!({"op": "publish", "topic": "a", "data": 1, "message_id": long(256)}), "\"message_id\" may have"),
        (json!({"op": "publish", "topic": "a", "data": 1, "content_type": long(256)}), "\"content_type\" may have"),
        (
            json!({"op": "subscribe", "pattern": "a", "after": {"x": long(JOINT_CURSOR_BYTES_MAX)}}),
            "\"after\" may have",
        ),
        (json!({"op": "publish", "topic": "a", "data": 1, "headers": {"x": long(70_000)}}), "\"headers\" may have"),
    ];
    for (message, start) in cases {
        let sentence = refusal(&message.to_string()).1;
        assert!(sentence.starts_with(start), "{sentence}");
    }
}

proptest! {
    #[test]
    fn no_mixture_of_fields_panics(
        op in 0..fields::OPS.len(),
        picks in vec((0..19_usize, prop_oneof![
            Just("null"), Just("1"), Just("-1"), Just("1e999"), Just("\"a\""), Just("\"\\ud800\""), Just("{}"),
            Just("[[]]"), Just("true"), Just("{\"events\":\"1.1\"}"), Just("99999999999999999999"), Just("\"\\u0000\""),
        ]), 0..8),
    ) {
        const NAMES: [&str; 19] = [
            "id", "token", "client", "pattern", "after", "last", "source", "on_slow", "filter", "topic", "data",
            "data_base64", "headers", "message_id", "content_type", "mandatory", "timeout_ms", "max_rate", "other",
        ];
        let fields: std::collections::BTreeMap<_, _> = picks.into_iter().collect();
        let rest: String = fields.iter().map(|(name, json)| format!(",\"{}\":{json}", NAMES[*name])).collect();
        let text = format!("{{\"op\":\"{}\"{rest}}}", fields::OPS[op].name);
        prop_assert!(!matches!(read(&text), Err(Fault::Close { .. })), "{}", text);
    }
}
