//! A JSON object in the making: keys and values appended to one buffer, without an intermediate tree. It knows JSON and
//! nothing of what is written.

use std::io::Write;

use crate::model::cursor::JointCursor;

/// One object, from its first key to its closing brace.
pub(crate) struct Object {
    bytes: Vec<u8>,
}

impl Object {
    /// An object whose first key is `op`; `capacity` is a guess of its bytes.
    pub(crate) fn new(op: &str, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(b"{\"op\":");
        push_text(&mut bytes, op);
        Self { bytes }
    }

    /// The buffer right after `,"key":`, for a value that the caller writes. Keys are ours and need no escape.
    pub(crate) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.bytes.extend_from_slice(b",\"");
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        &mut self.bytes
    }

    /// A string.
    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        push_text(self.key(key), value);
        self
    }

    /// A string, when there is one.
    pub(crate) fn text_if_any(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// A string, or null.
    pub(crate) fn text_or_null(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.verbatim(key, "null"),
        }
    }

    /// A number.
    pub(crate) fn number(mut self, key: &str, value: u64) -> Self {
        push_number(self.key(key), value);
        self
    }

    /// A number, or null.
    pub(crate) fn number_or_null(self, key: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.number(key, value),
            None => self.verbatim(key, "null"),
        }
    }

    /// A text that is JSON already.
    pub(crate) fn verbatim(mut self, key: &str, json: &str) -> Self {
        self.key(key).extend_from_slice(json.as_bytes());
        self
    }

    /// A list of strings that write themselves in characters which need no escape.
    pub(crate) fn texts(mut self, key: &str, values: &[impl std::fmt::Display]) -> Self {
        let bytes = self.key(key);
        for (position, value) in values.iter().enumerate() {
            bytes.extend_from_slice(if position > 0 { b",\"" } else { b"[\"" });
            push_display(bytes, value);
            bytes.push(b'"');
        }
        bytes.extend_from_slice(if values.is_empty() { b"[]" } else { b"]" });
        self
    }

    /// Cursors by source.
    pub(crate) fn cursors(mut self, key: &str, cursors: &JointCursor) -> Self {
        let bytes = self.key(key);
        bytes.push(b'{');
        for (position, (source, cursor)) in cursors.0.iter().enumerate() {
            if position > 0 {
                bytes.push(b',');
            }
            push_text(bytes, source);
            bytes.extend_from_slice(b":\"");
            push_display(bytes, cursor);
            bytes.push(b'"');
        }
        bytes.push(b'}');
        self
    }

    /// The whole object.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b'}');
        self.bytes
    }
}

/// A string with its quotes and escapes (RFC 8259, section 7).
pub(crate) fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'"');
    for piece in text.split_inclusive(needs_escape) {
        let plain = piece.strip_suffix(needs_escape);
        bytes.extend_from_slice(plain.unwrap_or(piece).as_bytes());
        if plain.is_some() {
            push_escape(bytes, piece.chars().next_back().unwrap_or_default());
        }
    }
    bytes.push(b'"');
}

fn needs_escape(character: char) -> bool {
    character < ' ' || character == '"' || character == '\\'
}

fn push_escape(bytes: &mut Vec<u8>, character: char) {
    match character {
        '"' => bytes.extend_from_slice(b"\\\""),
        '\\' => bytes.extend_from_slice(b"\\\\"),
        '\n' => bytes.extend_from_slice(b"\\n"),
        '\r' => bytes.extend_from_slice(b"\\r"),
        '\t' => bytes.extend_from_slice(b"\\t"),
        other => push_display(bytes, format_args!("\\u{:04x}", u32::from(other))),
    }
}

/// A number in decimal digits.
pub(crate) fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    bytes.extend(digits.iter().skip(digits.len() - length));
}

/// Anything that writes itself in characters that need no escape.
pub(crate) fn push_display(bytes: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a vector cannot fail, and nothing that comes here fails to format.
    let _ = write!(bytes, "{value}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_and_numbers_read_back_as_they_were(text in any::<String>(), number in any::<u64>()) {
            let object = Object::new("x", 0).text("text", &text).number("number", number).finish();
            let value: serde_json::Value = serde_json::from_slice(&object).unwrap();
            prop_assert_eq!(value["text"].as_str(), Some(text.as_str()));
            prop_assert_eq!(value["number"].as_u64(), Some(number));
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut bytes = Vec::new();
        push_text(&mut bytes, "a\u{0}\u{1f}\n\"\\é");
        assert_eq!(bytes, "\"a\\u0000\\u001f\\n\\\"\\\\é\"".as_bytes());
    }
}
