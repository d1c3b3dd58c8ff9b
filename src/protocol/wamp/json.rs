//! JSON (WAMP, section "Serializers"), with binary as strings that begin with NUL and go on in base64 (section "Binary
//! support in JSON"). The JSON parser says whether a text is JSON; what is walked here afterwards is known to be.

use base64::Engine as _;
use serde::de::IgnoredAny;

use crate::protocol::json::payload::BASE64;
use crate::protocol::json::write::{push_display, push_text};
use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::reader::deeper;
use crate::protocol::wamp::value::{DEPTH_MAX, Dict, JsonText, VALUES_MAX, Value};

/// Begins a string that stands for bytes.
const BINARY: char = '\0';

/// Reads one message, or any JSON text.
pub(super) fn decode(text: &str) -> Result<Value, Malformed> {
    // Skips over everything without recursion.
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| Malformed::json(&error))?;
    Walker { rest: text, values_left: VALUES_MAX }.value(DEPTH_MAX)
}

/// What a JSON text is to the other serializations: itself, taken apart. What they cannot say of it stays a string.
pub(super) fn converted(text: &JsonText) -> Value {
    decode(text.as_str()).unwrap_or_else(|_| Value::text(text.as_str()))
}

/// What is left of a text that is JSON.
struct Walker<'a> {
    rest: &'a str,
    /// How many values may still come.
    values_left: usize,
}

impl<'a> Walker<'a> {
    fn value(&mut self, depth_left: usize) -> Result<Value, Malformed> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Malformed::TooMany)?;
        self.skip_spaces();
        match self.rest.bytes().next().ok_or(Malformed::Cut)? {
            b'[' => self.list(deeper(depth_left)?),
            b'{' => self.dict(deeper(depth_left)?),
            b'"' => self.text().map(text_or_binary),
            b't' => Ok(self.word("true", Value::Bool(true))),
            b'f' => Ok(self.word("false", Value::Bool(false))),
            b'n' => Ok(self.word("null", Value::Null)),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth_left: usize) -> Result<Value, Malformed> {
        self.step();
        let mut items = Vec::new();
        while !self.ends(']') {
            items.push(self.value(depth_left)?);
        }
        Ok(Value::List(items))
    }

    fn dict(&mut self, depth_left: usize) -> Result<Value, Malformed> {
        self.step();
        let mut entries = Vec::new();
        while !self.ends('}') {
            self.values_left = self.values_left.checked_sub(1).ok_or(Malformed::TooMany)?;
            let key = self.text()?;
            self.skip_spaces();
            // The colon.
            self.step();
            entries.push((key, self.value(depth_left)?));
        }
        Dict::unique(entries).map(Value::Dict)
    }

    /// Whether a list or dict ends here; else the comma before what comes next is taken.
    fn ends(&mut self, end: char) -> bool {
        self.skip_spaces();
        let ends = self.rest.is_empty() || self.rest.starts_with(end);
        if ends || self.rest.starts_with(',') {
            self.step();
        }
        self.skip_spaces();
        ends
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let mut escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        // With both quotes.
        let quoted = self.take(end.ok_or(Malformed::Cut)? + 2);
        serde_json::from_str(quoted).map_err(|error| Malformed::json(&error))
    }

    fn number(&mut self) -> Result<Value, Malformed> {
        let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest.bytes().take_while(|byte| is_part(*byte)).count();
        let digits = self.take(length);
        if let Ok(number) = digits.parse() {
            return Ok(Value::Int(number));
        }
        if let Ok(number) = digits.parse() {
            return Ok(Value::UInt(number));
        }
        // Integers of more digits too: JavaScript writes large doubles so. By the standard library, which rounds to the
        // nearest double.
        let number = digits.parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Value::Float).ok_or(Malformed::Range)
    }

    fn word(&mut self, word: &str, value: Value) -> Value {
        self.take(word.len());
        value
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t']);
    }

    fn step(&mut self) {
        self.take(1);
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }
}

/// A string that begins with NUL and goes on otherwise than in base64 is the string that it is: nobody meant bytes.
fn text_or_binary(text: String) -> Value {
    let bytes = text.strip_prefix(BINARY).and_then(|encoded| BASE64.decode(encoded).ok());
    bytes.map_or(Value::Text(text), Value::Bytes)
}

/// Appends values with commas between them.
pub(super) fn push_items(bytes: &mut Vec<u8>, items: &[Value], depth_left: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            bytes.push(b',');
        }
        push(bytes, item, depth_left);
    }
}

/// Appends one value. What JSON cannot say, and what is nested deeper than `depth_left`, becomes null.
pub(super) fn push(bytes: &mut Vec<u8>, value: &Value, depth_left: usize) {
    match value {
        Value::Bool(true) => bytes.extend_from_slice(b"true"),
        Value::Bool(false) => bytes.extend_from_slice(b"false"),
        Value::Int(number) => push_display(bytes, number),
        Value::UInt(number) => push_display(bytes, number),
        Value::Float(number) if number.is_finite() => push_display(bytes, serde_json::json!(number)),
        // As a string its reader would take it for bytes, and perhaps for broken ones.
        Value::Text(text) if text.starts_with(BINARY) => push_binary(bytes, text.as_bytes()),
        Value::Text(text) => push_text(bytes, text),
        Value::Bytes(raw) => push_binary(bytes, raw),
        Value::Json(text) => bytes.extend_from_slice(text.as_str().as_bytes()),
        Value::List(items) if depth_left > 0 => {
            bytes.push(b'[');
            push_items(bytes, items, depth_left - 1);
            bytes.push(b']');
        }
        Value::Dict(dict) if depth_left > 0 => push_dict(bytes, dict, depth_left - 1),
        Value::Null | Value::Float(_) | Value::List(_) | Value::Dict(_) => bytes.extend_from_slice(b"null"),
    }
}

fn push_binary(bytes: &mut Vec<u8>, raw: &[u8]) {
    push_text(bytes, &format!("{BINARY}{}", BASE64.encode(raw)));
}

fn push_dict(bytes: &mut Vec<u8>, dict: &Dict, depth_left: usize) {
    bytes.push(b'{');
    for (position, (key, value)) in dict.0.iter().enumerate() {
        if position > 0 {
            bytes.push(b',');
        }
        push_text(bytes, key);
        bytes.push(b':');
        push(bytes, value, depth_left);
    }
    bytes.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_json_is_read() {
        let text = " [ 1 , -2,18446744073709551615, 1e2 ,1.10,100000000000000000000, true,false ,null, [] ,{ } , \
                    \"\\u00e9\\\"\\\\\" , {\"a\" : [ ] , \"b\\u0062\":\"\"} ] ";
        let dict = Dict::default().with("a", Value::List(vec![])).with("bb", Value::text(""));
        let expected = vec![
            Value::Int(1),
            Value::Int(-2),
            Value::UInt(u64::MAX),
            Value::Float(100.0),
            Value::Float(1.1),
            Value::Float(1e20),
            Value::Bool(true),
            Value::Bool(false),
            Value::Null,
            Value::List(vec![]),
            Value::Dict(Dict::default()),
            Value::text("é\"\\"),
            Value::Dict(dict),
        ];
        assert_eq!(decode(text), Ok(Value::List(expected)));
    }

    /// The example of the specification, and what only looks like it.
    #[test]
    fn strings_that_begin_with_nul_are_bytes() {
        let bytes = [0x10, 0xe3, 0xff, 0x90, 0x53, 0x07, 0x5c, 0x52, 0x6f, 0x5f, 0xc0, 0x6d, 0x4f, 0xe3, 0x7c, 0xdb];
        let value = Value::Bytes(bytes.to_vec());
        let mut json = Vec::new();
        push(&mut json, &value, 0);
        assert_eq!(json, br#""\u0000EOP/kFMHXFJvX8BtT+N82w==""#);
        assert_eq!(decode(std::str::from_utf8(&json).unwrap()), Ok(value));
        assert_eq!(decode(r#""\u0000""#), Ok(Value::Bytes(vec![])));
        assert_eq!(decode(r#""\u0000no base64""#), Ok(Value::text("\0no base64")));
        assert_eq!(decode(r#""EOP/""#), Ok(Value::text("EOP/")));
        let mut json = Vec::new();
        push(&mut json, &Value::text("\0x"), 0);
        assert_eq!(json, br#""\u0000AHg=""#);
    }

    #[test]
    fn what_json_cannot_say_becomes_null() {
        let mut json = Vec::new();
        let items = [Value::Float(f64::NAN), Value::Float(f64::INFINITY), Value::Null, Value::Float(1.0)];
        push_items(&mut json, &items, 1);
        assert_eq!(json, b"null,null,null,1.0");
    }

    #[test]
    fn json_goes_out_as_it_came_and_into_other_forms_converted() {
        let text = JsonText::parse("{\"price\": 1.10}").unwrap();
        let mut json = Vec::new();
        push(&mut json, &Value::Json(text.clone()), 1);
        assert_eq!(json, b"{\"price\": 1.10}");
        assert_eq!(converted(&text), Value::Dict(Dict::default().with("price", Value::Float(1.1))));
        let unsayable = JsonText::parse("[1e999]").unwrap();
        assert_eq!(converted(&unsayable), Value::text("[1e999]"));
    }
}
