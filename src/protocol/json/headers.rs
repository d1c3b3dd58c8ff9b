//! AMQP header tables as JSON and back. What JSON cannot say is written so that nothing is lost silently: big integers
//! as strings, bytes in base64. Which headers a client may set is not decided here.

use std::collections::HashSet;

use base64::Engine as _;
use serde_json::Value as Json;

use crate::model::value::{EXACT_INTEGER_MAX, Headers, Value};
use crate::protocol::json::payload::BASE64;
use crate::protocol::json::write::{push_display, push_text};

/// How deep tables and lists are followed; what a publisher nested deeper is shown as null.
const DEPTH_MAX: usize = 32;

/// Appends a table as an object.
pub(super) fn push(bytes: &mut Vec<u8>, headers: &Headers) {
    push_table(bytes, headers, DEPTH_MAX);
}

fn push_table(bytes: &mut Vec<u8>, headers: &Headers, depth_left: usize) {
    bytes.push(b'{');
    let mut first = true;
    for (name, value) in effective(headers) {
        if !std::mem::take(&mut first) {
            bytes.push(b',');
        }
        push_text(bytes, name);
        bytes.push(b':');
        push_value(bytes, value, depth_left);
    }
    bytes.push(b'}');
}

/// The fields that count: of a repeated name the last one, each in its place.
fn effective(headers: &Headers) -> Vec<(&str, &Value)> {
    let mut seen = HashSet::with_capacity(headers.0.len());
    let mut fields: Vec<(&str, &Value)> = headers
        .0
        .iter()
        .rev()
        .filter(|(name, _)| seen.insert(name.as_str()))
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    fields.reverse();
    fields
}

fn push_value(bytes: &mut Vec<u8>, value: &Value, depth_left: usize) {
    match value {
        Value::Bool(true) => bytes.extend_from_slice(b"true"),
        Value::Bool(false) => bytes.extend_from_slice(b"false"),
        Value::Int(number) => push_integer(bytes, i128::from(*number)),
        Value::UInt(number) | Value::Timestamp(number) => push_integer(bytes, i128::from(*number)),
        Value::Float(number) if number.is_finite() => push_display(bytes, serde_json::json!(number)),
        Value::Text(text) => push_text(bytes, text),
        Value::Bytes(raw) => push_text(bytes, &BASE64.encode(raw)),
        Value::List(items) if depth_left > 0 => push_list(bytes, items, depth_left - 1),
        Value::Table(table) if depth_left > 0 => push_table(bytes, table, depth_left - 1),
        Value::Null | Value::Float(_) | Value::List(_) | Value::Table(_) => bytes.extend_from_slice(b"null"),
    }
}

fn push_list(bytes: &mut Vec<u8>, items: &[Value], depth_left: usize) {
    bytes.push(b'[');
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            bytes.push(b',');
        }
        push_value(bytes, item, depth_left);
    }
    bytes.push(b']');
}

fn push_integer(bytes: &mut Vec<u8>, number: i128) {
    if number.unsigned_abs() > EXACT_INTEGER_MAX {
        return push_display(bytes, format_args!("\"{number}\""));
    }
    push_display(bytes, number);
}

/// A value by itself, where only text can stand: what is a text in JSON too stands without quotes.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) | Value::Timestamp(number) => number.to_string(),
        Value::Bytes(raw) => BASE64.encode(raw),
        other => {
            let mut bytes = Vec::new();
            push_value(&mut bytes, other, DEPTH_MAX);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }
}

/// A table from a JSON object whose text was already bounded.
pub(super) fn from_json(json: &str) -> Option<Headers> {
    serde_json::from_str::<serde_json::Map<String, Json>>(json).ok().map(table)
}

fn table(object: serde_json::Map<String, Json>) -> Headers {
    Headers(object.into_iter().map(|(name, json)| (name, value(json))).collect())
}

fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => number.as_f64().map_or(Value::Null, Value::Float),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(value).collect()),
        Json::Object(object) => Value::Table(table(object)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fields: Vec<(&str, Value)>) -> String {
        let mut bytes = Vec::new();
        push(&mut bytes, &Headers(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn integers_beyond_two_to_the_53_become_strings() {
        let fields = vec![
            ("a", Value::Int(9_007_199_254_740_992)),
            ("b", Value::Int(9_007_199_254_740_993)),
            ("c", Value::Int(i64::MIN)),
            ("d", Value::UInt(u64::MAX)),
            ("e", Value::Int(-7)),
        ];
        let expected = r#"{"a":9007199254740992,"b":"9007199254740993","c":"-9223372036854775808","d":"18446744073709551615","e":-7}"#;
        assert_eq!(shown(fields), expected);
    }

    #[test]
    fn every_kind_of_value_has_its_form() {
        let inner = Headers(vec![("x".into(), Value::Text("é\n".into()))]);
        let fields = vec![
            ("null", Value::Null),
            ("yes", Value::Bool(true)),
            ("half", Value::Float(0.5)),
            ("nan", Value::Float(f64::NAN)),
            ("endless", Value::Float(f64::NEG_INFINITY)),
            ("bytes", Value::Bytes(vec![255, 254])),
            ("when", Value::Timestamp(1_700_000_000)),
            ("list", Value::List(vec![Value::Int(1), Value::Table(inner)])),
        ];
        let expected = r#"{"null":null,"yes":true,"half":0.5,"nan":null,"endless":null,"bytes":"//4=","when":1700000000,"list":[1,{"x":"é\n"}]}"#;
        assert_eq!(shown(fields), expected);
    }

    #[test]
    fn of_a_repeated_name_the_last_counts() {
        let fields = vec![("a", Value::Int(1)), ("b", Value::Int(2)), ("a", Value::Int(3))];
        assert_eq!(shown(fields), r#"{"b":2,"a":3}"#);
    }

    #[test]
    fn nesting_is_followed_only_so_far() {
        let nested = (0..100_000).fold(Value::Int(1), |inner, _| Value::List(vec![inner]));
        let headers = Headers(vec![("deep".into(), nested)]);
        let mut bytes = Vec::new();
        push(&mut bytes, &headers);
        assert_eq!(bytes, format!("{{\"deep\":{}null{}}}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)).as_bytes());
        // Dropped as a whole it would overflow the stack of this test, so it is taken apart.
        let mut open = headers.0.into_iter().next().map(|(_, value)| value);
        while let Some(Value::List(mut items)) = open {
            open = items.pop();
        }
    }

    #[test]
    fn json_objects_become_tables() {
        let headers = from_json(r#"{"n":-1,"u":18446744073709551615,"f":1.5,"t":{"l":[null,true,"x"]}}"#).unwrap();
        assert_eq!(headers.value("n"), Some(&Value::Int(-1)));
        assert_eq!(headers.value("u"), Some(&Value::UInt(u64::MAX)));
        assert_eq!(headers.value("f"), Some(&Value::Float(1.5)));
        let list = Value::List(vec![Value::Null, Value::Bool(true), Value::Text("x".into())]);
        assert_eq!(headers.value("t"), Some(&Value::Table(Headers(vec![("l".into(), list)]))));
        assert!(from_json("[]").is_none());
    }
}
