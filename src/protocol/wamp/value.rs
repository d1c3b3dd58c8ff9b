//! What a WAMP message is made of once its serialization is forgotten: values, dicts in their order, and the limits that
//! every reader keeps. It knows no serialization; JSON text that goes out verbatim is one kind of value.

use std::collections::HashSet;

use crate::protocol::json::payload::is_json;
use crate::protocol::wamp::malformed::Malformed;

/// How deep lists and dicts may be nested in one message, the message itself included.
pub const DEPTH_MAX: usize = 100;

/// How many values one message may hold, dicts counting two for each entry. A message of a mebibyte could hold half a
/// million one-byte values, each of which takes thirty times its bytes here.
pub const VALUES_MAX: usize = 1 << 18;

/// Entries up to which repeated keys are looked for by comparing each with each.
const COMPARED_MAX: usize = 8;

/// One value (WAMP, section "Serializers"); payloads may hold more kinds than WAMP itself uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// Any integer up to `i64::MAX`.
    Int(i64),
    /// An integer beyond `i64::MAX`.
    UInt(u64),
    /// A floating-point number.
    Float(f64),
    /// A Unicode string.
    Text(String),
    /// A byte array.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A dict.
    Dict(Dict),
    /// A text that is JSON already; only sent, never read.
    Json(JsonText),
}

/// A dict in its order. What was read has no key twice ("Messages": keys must be unique).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dict(pub Vec<(String, Value)>);

/// One whole JSON value, not nested deeper than what is shown as JSON anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(String);

/// What an application sends along: positional and keyword arguments (WAMP, section "Structure").
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Payload {
    /// `Arguments`.
    pub arguments: Vec<Value>,
    /// `ArgumentsKw`.
    pub keywords: Dict,
}

impl Payload {
    /// One positional argument and no other.
    pub fn one(value: Value) -> Self {
        Self { arguments: vec![value], keywords: Dict::default() }
    }

    /// Appends it to the elements of a message, without what is empty (section "Empty Arguments and Keyword Arguments").
    pub(super) fn append_to(self, elements: &mut Vec<Value>) {
        let has_keywords = !self.keywords.is_empty();
        if has_keywords || !self.arguments.is_empty() {
            elements.push(Value::List(self.arguments));
        }
        if has_keywords {
            elements.push(Value::Dict(self.keywords));
        }
    }
}

impl JsonText {
    /// Keeps a text if it is JSON, with numbers and spaces as they are written.
    pub fn parse(text: &str) -> Option<Self> {
        is_json(text).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An integer, if it is one. A double without a fraction counts: languages whose only numbers are doubles write
    /// integers so.
    pub fn as_integer(&self) -> Option<u64> {
        // Beyond this a double stands for several integers.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::UInt(number) => Some(*number),
            Self::Float(number) if number.fract() == 0.0 && (0.0..=EXACT).contains(number) => Some(*number as u64),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// What it is, for sentences about what it should have been: a number itself, of anything else the kind with its
    /// article.
    pub(super) fn shown(&self) -> String {
        let kind = match self {
            Self::Int(number) => return number.to_string(),
            Self::UInt(number) => return number.to_string(),
            Self::Float(number) => return number.to_string(),
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "binary",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Json(_) => "JSON",
        };
        kind.to_owned()
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }
}

impl Dict {
    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The dict under a key.
    pub fn dict(&self, key: &str) -> Option<&Self> {
        if let Some(Value::Dict(dict)) = self.value(key) { Some(dict) } else { None }
    }

    /// The text under a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value(key).and_then(Value::as_text)
    }

    /// Takes the value of a key out.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let position = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(position).1)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The dict with one more entry, whose key it does not have yet.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.push((key.to_owned(), value));
        self
    }

    /// A dict of what was read, unless a key comes twice.
    ///
    /// # Errors
    /// When one does.
    pub(super) fn unique(entries: Vec<(String, Value)>) -> Result<Self, Malformed> {
        match repeated_key(&entries) {
            Some(key) => Err(Malformed::repeated(key)),
            None => Ok(Self(entries)),
        }
    }
}

fn repeated_key(entries: &[(String, Value)]) -> Option<&str> {
    let mut keys = entries.iter().map(|(key, _)| key.as_str());
    if entries.len() <= COMPARED_MAX {
        let earlier = |position| entries.iter().take(position).map(|(key, _)| key.as_str());
        return keys.enumerate().find(|(position, key)| earlier(*position).any(|it| it == *key)).map(|(_, key)| key);
    }
    let mut seen = HashSet::with_capacity(entries.len());
    keys.find(|key| !seen.insert(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(keys: &[&str]) -> Vec<(String, Value)> {
        keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect()
    }

    #[test]
    fn a_key_that_comes_twice_is_found_in_small_and_large_dicts() {
        let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(repeated_key(&entries(&many)), None);
        many.push("57");
        assert_eq!(repeated_key(&entries(&many)), Some("57"));
        assert_eq!(repeated_key(&entries(&["a", "b", "a"])), Some("a"));
        assert_eq!(repeated_key(&entries(&["a", "b", "c"])), None);
        assert_eq!(repeated_key(&[]), None);
        let error = Dict::unique(entries(&["x", "x"])).unwrap_err();
        assert_eq!(error.to_string(), "a dict has the key \"x\" twice");
    }

    #[test]
    fn doubles_without_a_fraction_are_integers_while_they_are_exact() {
        for (value, expected) in [
            (Value::Float(7.0), Some(7)),
            (Value::Float(9_007_199_254_740_992.0), Some(1 << 53)),
            (Value::Float(9_007_199_254_740_994.0), None),
            (Value::Float(7.5), None),
            (Value::Float(-1.0), None),
            (Value::Float(f64::NAN), None),
            (Value::Int(-1), None),
            (Value::from(u64::MAX), Some(u64::MAX)),
            (Value::from(3), Some(3)),
            (Value::Bool(true), None),
        ] {
            assert_eq!(value.as_integer(), expected, "{value:?}");
        }
    }

    #[test]
    fn only_json_is_kept_as_json() {
        assert_eq!(JsonText::parse(" 1.10 ").unwrap().as_str(), " 1.10 ");
        assert_eq!(JsonText::parse("1]"), None);
        assert_eq!(JsonText::parse(&format!("{}{}", "[".repeat(101), "]".repeat(101))), None);
    }
}
