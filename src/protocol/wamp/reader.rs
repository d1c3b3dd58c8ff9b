//! Bytes of a message as a binary serialization reads them: nothing is allocated before it is known to be there, and what
//! one message may hold is counted as it is announced, so that lists within lists cannot promise it again and again.

use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::value::{DEPTH_MAX, Dict, VALUES_MAX, Value};

/// What is left of a message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// How many values may still be announced.
    values_left: usize,
}

/// How a serialization reads one value; the number is how deep that may still be nested.
pub(super) type ReadValue = fn(&mut Reader<'_>, usize) -> Result<Value, Malformed>;

/// Reads a message that is one value and nothing else.
pub(super) fn whole(bytes: &[u8], read_value: ReadValue) -> Result<Value, Malformed> {
    let mut reader = Reader { rest: bytes, values_left: VALUES_MAX };
    let value = read_value(&mut reader, DEPTH_MAX)?;
    match reader.rest.len() {
        0 => Ok(value),
        bytes => Err(Malformed::Trailing { bytes }),
    }
}

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.rest.split_first().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// The next byte, if it is this one, is taken.
    pub(super) fn takes(&mut self, expected: u8) -> bool {
        let rest = self.rest.strip_prefix(&[expected]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// An unsigned integer of so many bytes, the highest first.
    pub(super) fn unsigned(&mut self, width: u64) -> Result<u64, Malformed> {
        Ok(self.bytes(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn bytes(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Cut)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, length: u64) -> Result<&'a str, Malformed> {
        simdutf8::basic::from_utf8(self.bytes(length)?).map_err(|_| Malformed::NotUtf8)
    }

    /// A list of so many values.
    pub(super) fn list(&mut self, length: u64, depth_left: usize, read: ReadValue) -> Result<Value, Malformed> {
        let depth_left = deeper(depth_left)?;
        let length = self.announce(length, 1)?;
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(read(self, depth_left)?);
        }
        Ok(Value::List(items))
    }

    /// A dict of so many entries.
    pub(super) fn dict(&mut self, length: u64, depth_left: usize, read: ReadValue) -> Result<Value, Malformed> {
        let depth_left = deeper(depth_left)?;
        let length = self.announce(length, 2)?;
        let mut entries = Vec::with_capacity(length);
        for _ in 0..length {
            entries.push(self.entry(depth_left, read)?);
        }
        Dict::unique(entries).map(Value::Dict)
    }

    /// One entry of a dict. WAMP wants strings as keys; integers, which payloads in these serializations may have, become
    /// their digits, as JSON would have them.
    pub(super) fn entry(&mut self, depth_left: usize, read: ReadValue) -> Result<(String, Value), Malformed> {
        let key = match read(self, depth_left)? {
            Value::Text(key) => key,
            Value::Int(number) => number.to_string(),
            Value::UInt(number) => number.to_string(),
            _ => return Err(Malformed::Key),
        };
        Ok((key, read(self, depth_left)?))
    }

    /// Takes note that so many items follow, each of so many values of at least a byte.
    pub(super) fn announce(&mut self, length: u64, values_each: usize) -> Result<usize, Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Cut)?;
        if length > self.rest.len() / values_each {
            return Err(Malformed::Cut);
        }
        self.values_left = self.values_left.checked_sub(length * values_each).ok_or(Malformed::TooMany)?;
        Ok(length)
    }
}

/// One level further down.
pub(super) fn deeper(depth_left: usize) -> Result<usize, Malformed> {
    depth_left.checked_sub(1).ok_or(Malformed::TooDeep)
}
