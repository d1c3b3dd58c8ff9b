//! How a payload of any bytes is shown inside a JSON object: as JSON itself, as a string, or in base64. It decides by
//! content type and by looking, and never lets bytes through that would break the object around them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::IgnoredAny;

use crate::protocol::json::write::{Object, push_text};

/// How deep arrays and objects may be nested in a payload that is shown as JSON; deeper ones are shown as strings.
/// Readers with the usual recursion limit of 128 then manage the object around it too.
pub const PAYLOAD_DEPTH_MAX: usize = 100;

/// The alphabet with `+` and `/`; written with padding, read with or without.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A payload as it can be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// One whole JSON text, to go as it is.
    Json(&'a str),
    /// Other UTF-8, to go as a string.
    Text(&'a str),
    /// Anything else, to go in base64.
    Bytes(&'a [u8]),
}

/// Decides how a payload is shown.
pub(crate) fn shown<'a>(payload: &'a [u8], content_type: Option<&str>) -> Shown<'a> {
    let Ok(text) = simdutf8::basic::from_utf8(payload) else {
        return Shown::Bytes(payload);
    };
    if content_type.is_none_or(says_json) && is_json(text) { Shown::Json(text) } else { Shown::Text(text) }
}

/// Appends `data` or `data_base64`, and the content type unless it is JSON and was right.
pub(crate) fn push(mut object: Object, payload: &[u8], content_type: Option<&str>) -> Object {
    let shown = shown(payload, content_type);
    let told = content_type.filter(|name| !(matches!(shown, Shown::Json(_)) && is_plain_json(name)));
    match shown {
        Shown::Json(text) => object = object.verbatim("data", text),
        Shown::Text(text) => push_text(object.key("data"), text),
        Shown::Bytes(bytes) => object = object.text("data_base64", &BASE64.encode(bytes)),
    }
    object.text_if_any("content_type", told)
}

/// Whether a content type announces JSON (RFC 6839, section 3.1 for `+json`); parameters do not matter.
pub(crate) fn says_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let suffix = essence.len().checked_sub("+json".len()).and_then(|start| essence.get(start..));
    is_plain_json(content_type) || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

/// Whether it is JSON and no more: a type such as `application/cloudevents+json` says something besides.
fn is_plain_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("text/json")
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether the text is one JSON value, whole and not nested too deeply.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && !is_too_deep(text)
}

/// Whether a text that is JSON is nested deeper than [`PAYLOAD_DEPTH_MAX`]. Short texts cannot be.
pub(crate) fn is_too_deep(json: &str) -> bool {
    if json.len() <= 2 * PAYLOAD_DEPTH_MAX {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > PAYLOAD_DEPTH_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_and_bytes_decide_together() {
        let cases: [(&[u8], Option<&str>, Shown<'_>); 13] = [
            (b"{\"a\":1}", None, Shown::Json("{\"a\":1}")),
            (b" 42 \n", None, Shown::Json(" 42 \n")),
            (b"42", Some("text/plain"), Shown::Text("42")),
            (b"{\"a\":1}", Some("Application/JSON; charset=utf-8"), Shown::Json("{\"a\":1}")),
            (b"[]", Some("application/cloudevents+JSON;x=y"), Shown::Json("[]")),
            (b"{\"a\":1", Some("application/json"), Shown::Text("{\"a\":1")),
            (b"1,\"op\":\"goodbye\"", Some("application/json"), Shown::Text("1,\"op\":\"goodbye\"")),
            (b"1}", None, Shown::Text("1}")),
            (b"", Some("application/json"), Shown::Text("")),
            (b"hello", None, Shown::Text("hello")),
            (b"\"\xff\"", None, Shown::Bytes(b"\"\xff\"")),
            (b"\xff", Some("application/json"), Shown::Bytes(b"\xff")),
            ("+json".as_bytes(), Some("é"), Shown::Text("+json")),
        ];
        for (payload, content_type, expected) in cases {
            assert_eq!(shown(payload, content_type), expected, "{payload:?} as {content_type:?}");
        }
    }

    #[test]
    fn the_content_type_is_told_unless_it_is_json_and_right() {
        let object = |payload: &[u8], content_type| {
            String::from_utf8(push(Object::new("m", 0), payload, content_type).finish()).unwrap()
        };
        assert_eq!(object(b"1", Some("application/json;charset=utf-8")), r#"{"op":"m","data":1}"#);
        assert_eq!(object(b"1", Some("a/b+json")), r#"{"op":"m","data":1,"content_type":"a/b+json"}"#);
        assert_eq!(object(b"{", Some("text/json")), r#"{"op":"m","data":"{","content_type":"text/json"}"#);
        assert_eq!(object(b"\xff\xfe", None), r#"{"op":"m","data_base64":"//4="}"#);
    }

    #[test]
    fn deep_nesting_is_shown_as_a_string() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_json(&nested(PAYLOAD_DEPTH_MAX)));
        assert!(!is_json(&nested(PAYLOAD_DEPTH_MAX + 1)));
        assert!(matches!(shown(nested(200_000).as_bytes(), None), Shown::Text(_)));
        let brackets_in_strings = format!("[\"{}\\\"{}\"]", "[".repeat(300), "{".repeat(300));
        assert!(is_json(&brackets_in_strings));
    }
}
