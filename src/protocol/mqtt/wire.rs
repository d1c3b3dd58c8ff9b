//! The primitives of MQTT's wire (MQTT 5.0 §1.5, 3.1.1 §1.5 and §2.2.3): integers, strings, binary data, read from a slice
//! that only grows shorter and written to the end of a vector. Nothing here knows a packet.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::protocol::mqtt::reason::Violation;

/// The most bytes a string or binary data can have: what two bytes can count (MQTT 5.0 §1.5.4, §1.5.6).
pub const STRING_BYTES_MAX: usize = 65_535;

/// The largest variable byte integer: four bytes of seven bits (MQTT 5.0 §1.5.5).
pub const VARIABLE_INTEGER_MAX: u32 = 268_435_455;

/// Bytes of the longest variable byte integer.
const VARIABLE_INTEGER_BYTES_MAX: usize = 4;

const TRUNCATED: Violation = Violation::malformed("a packet is shorter than its fields");
const LONG_INTEGER: Violation = Violation::malformed("a variable byte integer is longer than four bytes");
const PADDED_INTEGER: Violation = Violation::malformed("a variable byte integer is longer than it must be");
const NOT_UTF8: Violation = Violation::malformed("a string is not UTF-8");
const NUL: Violation = Violation::malformed("a string holds U+0000");

/// A string as MQTT can carry it: at most [`STRING_BYTES_MAX`] bytes and no U+0000.
///
/// Surrogates (U+D800 to U+DFFF) are not UTF-8 to begin with. Control and non-characters, which a receiver *may* refuse
/// (MQTT 5.0 §1.5.4, 3.1.1 §1.5.3), are taken; a U+FEFF stays where it is [MQTT-1.5.4-3]. 3.1 (§2.5) does not speak of
/// U+0000; no topic here may hold one, so it is refused there too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text(String);

impl Text {
    /// A text, unless it is too long or holds U+0000.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (text.len() <= STRING_BYTES_MAX && !text.contains('\0')).then_some(Self(text))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself, moved out.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

/// Binary data as MQTT can carry it: at most [`STRING_BYTES_MAX`] bytes (MQTT 5.0 §1.5.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Binary(Bytes);

impl Binary {
    /// Binary data, unless it is too long.
    pub fn new(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= STRING_BYTES_MAX).then_some(Self(bytes))
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes themselves, moved out.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// A variable byte integer that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VariableInteger {
    /// Its value.
    pub(super) value: u32,
    /// How many bytes it took.
    pub(super) length: usize,
}

impl VariableInteger {
    /// Reads from the front of `bytes`; `None` when it does not end there. A fifth byte is refused as soon as the fourth says
    /// that one follows.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let mut value = 0;
        for (position, byte) in bytes.iter().take(VARIABLE_INTEGER_BYTES_MAX).enumerate() {
            value |= u32::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return Ok(Some(Self { value, length: position + 1 }));
            }
        }
        if bytes.len() < VARIABLE_INTEGER_BYTES_MAX { Ok(None) } else { Err(LONG_INTEGER) }
    }

    /// Whether it took no more bytes than it must: demanded by 5.0 [MQTT-1.5.5-1], not by 3.1.1 (§2.2.3).
    pub(super) fn is_minimal(self) -> bool {
        self.length == variable_integer_length(self.value)
    }

    /// Nothing, if it [is minimal](Self::is_minimal).
    pub(super) fn minimal(self) -> Result<(), Violation> {
        if self.is_minimal() { Ok(()) } else { Err(PADDED_INTEGER) }
    }
}

/// How many bytes a value takes as a variable byte integer.
pub(super) const fn variable_integer_length(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// What of a packet's body was not read yet. Every method takes from the front, or tells what is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// At the start of these bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing, if nothing is left.
    pub(super) fn finish(self) -> Result<(), Violation> {
        if self.is_empty() { Ok(()) } else { Err(Violation::malformed("a packet is longer than its fields")) }
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// So many bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Violation> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Result<u8, Violation> {
        self.array().map(|[byte]| byte)
    }

    /// A two byte integer (MQTT 5.0 §1.5.2).
    pub(super) fn two_bytes(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    /// A four byte integer (MQTT 5.0 §1.5.3).
    pub(super) fn four_bytes(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer of 5.0, which must be minimal. Those of 3.x stand in fixed headers only.
    pub(super) fn variable_integer(&mut self) -> Result<u32, Violation> {
        let integer = VariableInteger::read(self.0)?.ok_or(TRUNCATED)?;
        integer.minimal()?;
        self.take(integer.length)?;
        Ok(integer.value)
    }

    /// A UTF-8 encoded string (MQTT 5.0 §1.5.4).
    pub(super) fn text(&mut self) -> Result<Text, Violation> {
        let length = self.two_bytes()?;
        let text = str::from_utf8(self.take(usize::from(length))?).map_err(|_| NOT_UTF8)?;
        Text::new(text).ok_or(NUL)
    }

    /// Binary data (MQTT 5.0 §1.5.6).
    pub(super) fn binary(&mut self) -> Result<Binary, Violation> {
        let length = self.two_bytes()?;
        Ok(Binary(Bytes::copy_from_slice(self.take(usize::from(length))?)))
    }
}

/// Writes a variable byte integer; what is beyond [`VARIABLE_INTEGER_MAX`] cannot be in a packet that is not refused later.
pub(super) fn put_variable_integer(out: &mut Vec<u8>, mut value: u32) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a string.
pub(super) fn put_text(out: &mut Vec<u8>, text: &Text) {
    put_counted(out, text.as_bytes());
}

/// Writes binary data.
pub(super) fn put_binary(out: &mut Vec<u8>, binary: &Binary) {
    put_counted(out, &binary.0);
}

/// Writes a length of two bytes and what it counts. Both types have at most [`STRING_BYTES_MAX`].
fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::mqtt::reason::ReasonCode;

    #[test]
    fn variable_integers_are_those_of_the_table() {
        // MQTT 5.0 §1.5.5, table 1-1.
        let table: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARIABLE_INTEGER_MAX, &[0xff, 0xff, 0xff, 0x7f]),
        ];
        for (value, bytes) in table {
            let mut written = Vec::new();
            put_variable_integer(&mut written, value);
            assert_eq!(written, bytes);
            assert_eq!(variable_integer_length(value), bytes.len());
            assert_eq!(Cursor::new(bytes).variable_integer(), Ok(value));
            assert_eq!(VariableInteger::read(&bytes[..bytes.len() - 1]), Ok(None), "{value} cut short");
        }
    }

    #[test]
    fn long_and_padded_integers_are_told_apart() {
        assert_eq!(VariableInteger::read(&[0xff, 0xff, 0xff]), Ok(None), "a fourth byte may end it");
        for long in [&[0xff, 0xff, 0xff, 0xff][..], &[0x80, 0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(VariableInteger::read(long), Err(LONG_INTEGER));
        }
        for padded in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0x81, 0x80, 0x80, 0x00]] {
            let integer = VariableInteger::read(padded).unwrap().unwrap();
            assert_eq!(integer.length, padded.len());
            assert!(!integer.is_minimal());
            assert_eq!(Cursor::new(padded).variable_integer(), Err(PADDED_INTEGER));
        }
    }

    #[test]
    fn strings_are_whole_unicode_without_nul() {
        let read = |bytes: &[u8]| Cursor::new(bytes).text();
        // A U+FEFF is kept, and what a receiver may refuse is not refused.
        for text in ["", "é", "\u{feff}a", "\u{1}\u{7f}\u{9f}\u{ffff}", "\u{10ffff}"] {
            let mut bytes = Vec::new();
            put_text(&mut bytes, &Text::new(text).unwrap());
            assert_eq!(read(&bytes).unwrap().as_str(), text);
        }
        assert_eq!(read(b"\0\x03a\0b"), Err(NUL));
        // A surrogate, an overlong form, a lone continuation, a character cut short.
        for bytes in [&b"\0\x03\xed\xa0\x80"[..], b"\0\x02\xc0\x80", b"\0\x01\x80", b"\0\x01\xc3"] {
            assert_eq!(read(bytes), Err(NOT_UTF8));
        }
        for bytes in [&b""[..], b"\0", b"\0\x01", b"\xff\xffabc"] {
            assert_eq!(read(bytes), Err(TRUNCATED));
        }
    }

    #[test]
    fn what_two_bytes_cannot_count_is_no_text() {
        assert!(Text::new("a".repeat(STRING_BYTES_MAX)).is_some());
        assert!(Text::new("a".repeat(STRING_BYTES_MAX + 1)).is_none());
        assert!(Text::new("a\0").is_none());
        assert!(Binary::new(vec![0; STRING_BYTES_MAX].into()).is_some());
        assert!(Binary::new(vec![0; STRING_BYTES_MAX + 1].into()).is_none());
    }

    proptest! {
        #[test]
        fn variable_integers_read_back(value in 0..=VARIABLE_INTEGER_MAX) {
            let mut bytes = Vec::new();
            put_variable_integer(&mut bytes, value);
            prop_assert_eq!(Cursor::new(&bytes).variable_integer(), Ok(value));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for read in [
                |cursor: &mut Cursor<'_>| cursor.text().map(drop),
                |cursor: &mut Cursor<'_>| cursor.binary().map(drop),
                |cursor: &mut Cursor<'_>| cursor.variable_integer().map(drop),
                |cursor: &mut Cursor<'_>| cursor.four_bytes().map(drop),
            ] {
                let mut cursor = Cursor::new(&bytes);
                let outcome = read(&mut cursor);
                prop_assert!(outcome.is_err() || cursor.rest().len() < bytes.len());
                prop_assert!(outcome.is_ok() || outcome.unwrap_err().reason == ReasonCode::MalformedPacket);
            }
        }
    }
}
