//! MessagePack, version 5 or later (WAMP, section "Serializers"): strings and binary are told apart. Timestamps become
//! seconds since 1970; other extension types are refused in words.

use crate::protocol::wamp::json;
use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::reader::{self, Reader, deeper};
use crate::protocol::wamp::value::Value;

/// The extension type of timestamps.
const TIMESTAMP: i8 = -1;

/// Reads one message.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, Malformed> {
    reader::whole(bytes, value)
}

fn value(reader: &mut Reader<'_>, depth_left: usize) -> Result<Value, Malformed> {
    let first = reader.byte()?;
    match first {
        0x00..=0x7f => Ok(Value::Int(i64::from(first))),
        0x80..=0x8f => reader.dict(u64::from(first & 0x0f), depth_left, value),
        0x90..=0x9f => reader.list(u64::from(first & 0x0f), depth_left, value),
        0xa0..=0xbf => text(reader, u64::from(first & 0x1f)),
        0xc0 => Ok(Value::Null),
        0xc1 => Err(Malformed::Byte { byte: first }),
        0xc2 | 0xc3 => Ok(Value::Bool(first == 0xc3)),
        0xc4..=0xc6 => {
            let length = reader.unsigned(1 << (first - 0xc4))?;
            reader.bytes(length).map(|bytes| Value::Bytes(bytes.to_vec()))
        }
        0xc7..=0xc9 => {
            let length = reader.unsigned(1 << (first - 0xc7))?;
            extension(reader, length)
        }
        0xca => reader.array().map(|bytes| Value::Float(f64::from(f32::from_be_bytes(bytes)))),
        0xcb => reader.array().map(|bytes| Value::Float(f64::from_be_bytes(bytes))),
        0xcc..=0xcf => reader.unsigned(1 << (first - 0xcc)).map(Value::from),
        0xd0 => reader.array().map(|bytes| Value::Int(i64::from(i8::from_be_bytes(bytes)))),
        0xd1 => reader.array().map(|bytes| Value::Int(i64::from(i16::from_be_bytes(bytes)))),
        0xd2 => reader.array().map(|bytes| Value::Int(i64::from(i32::from_be_bytes(bytes)))),
        0xd3 => reader.array().map(|bytes| Value::Int(i64::from_be_bytes(bytes))),
        0xd4..=0xd8 => extension(reader, 1 << (first - 0xd4)),
        0xd9..=0xdb => {
            let length = reader.unsigned(1 << (first - 0xd9))?;
            text(reader, length)
        }
        0xdc | 0xdd => {
            let length = reader.unsigned(2 << (first - 0xdc))?;
            reader.list(length, depth_left, value)
        }
        0xde | 0xdf => {
            let length = reader.unsigned(2 << (first - 0xde))?;
            reader.dict(length, depth_left, value)
        }
        0xe0..=0xff => Ok(Value::Int(i64::from(i8::from_be_bytes([first])))),
    }
}

fn text(reader: &mut Reader<'_>, length: u64) -> Result<Value, Malformed> {
    reader.text(length).map(Value::text)
}

fn extension(reader: &mut Reader<'_>, length: u64) -> Result<Value, Malformed> {
    let kind = i8::from_be_bytes(reader.array()?);
    let (seconds, nanoseconds) = match (kind, length) {
        (TIMESTAMP, 4) => (i64::from(u32::from_be_bytes(reader.array()?)), 0),
        (TIMESTAMP, 8) => {
            let both = reader.unsigned(8)?;
            ((both & 0x3_ffff_ffff).cast_signed(), (both >> 34) as u32)
        }
        (TIMESTAMP, 12) => {
            let nanoseconds = u32::from_be_bytes(reader.array()?);
            (i64::from_be_bytes(reader.array()?), nanoseconds)
        }
        _ => return Err(Malformed::Extension { kind }),
    };
    Ok(match nanoseconds {
        0 => Value::Int(seconds),
        some => Value::Float(seconds as f64 + f64::from(some) / 1e9),
    })
}

/// Appends the head of a list.
pub(super) fn push_list_head(bytes: &mut Vec<u8>, length: usize) {
    push_head(bytes, length, Head { short: 0x90, short_max: 0x0f, wide: [None, Some(0xdc), Some(0xdd)] });
}

/// Appends one value. What is nested deeper than `depth_left` becomes nil.
pub(super) fn push(bytes: &mut Vec<u8>, value: &Value, depth_left: usize) {
    match value {
        Value::Null => bytes.push(0xc0),
        Value::Bool(truth) => bytes.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Int(number) => push_signed(bytes, *number),
        Value::UInt(number) => push_unsigned(bytes, *number),
        Value::Float(number) => {
            bytes.push(0xcb);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::Text(text) => push_text(bytes, text),
        Value::Bytes(raw) => {
            push_head(bytes, raw.len(), Head { short: 0, short_max: 0, wide: [Some(0xc4), Some(0xc5), Some(0xc6)] });
            bytes.extend_from_slice(raw);
        }
        Value::Json(text) => push(bytes, &json::converted(text), depth_left),
        Value::List(items) => match deeper(depth_left) {
            Ok(depth_left) => {
                push_list_head(bytes, items.len());
                items.iter().for_each(|item| push(bytes, item, depth_left));
            }
            Err(_) => bytes.push(0xc0),
        },
        Value::Dict(dict) => match deeper(depth_left) {
            Ok(depth_left) => {
                let head = Head { short: 0x80, short_max: 0x0f, wide: [None, Some(0xde), Some(0xdf)] };
                push_head(bytes, dict.0.len(), head);
                for (key, value) in &dict.0 {
                    push_text(bytes, key);
                    push(bytes, value, depth_left);
                }
            }
            Err(_) => bytes.push(0xc0),
        },
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_head(bytes, text.len(), Head { short: 0xa0, short_max: 0x1f, wide: [Some(0xd9), Some(0xda), Some(0xdb)] });
    bytes.extend_from_slice(text.as_bytes());
}

/// The first bytes that announce a length.
struct Head {
    /// Added to a length that fits into the first byte.
    short: u8,
    /// The largest such length; 0 for none.
    short_max: u8,
    /// Before a length of one, two and four bytes.
    wide: [Option<u8>; 3],
}

fn push_head(bytes: &mut Vec<u8>, length: usize, head: Head) {
    let [one, two, four] = head.wide;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length <= head.short_max && head.short != 0 => bytes.push(head.short | length),
        (Ok(length), _) if one.is_some() => bytes.extend(one.into_iter().chain([length])),
        (_, Ok(length)) => bytes.extend(two.into_iter().chain(length.to_be_bytes())),
        // Four gibibytes are more than any limit lets through.
        _ => bytes.extend(four.into_iter().chain((length as u32).to_be_bytes())),
    }
}

fn push_signed(bytes: &mut Vec<u8>, number: i64) {
    if let Ok(number) = u64::try_from(number) {
        return push_unsigned(bytes, number);
    }
    if number >= -0x20 {
        bytes.push(number as i8 as u8);
    } else if let Ok(number) = i8::try_from(number) {
        bytes.push(0xd0);
        bytes.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = i16::try_from(number) {
        bytes.push(0xd1);
        bytes.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        bytes.push(0xd2);
        bytes.extend_from_slice(&number.to_be_bytes());
    } else {
        bytes.push(0xd3);
        bytes.extend_from_slice(&number.to_be_bytes());
    }
}

fn push_unsigned(bytes: &mut Vec<u8>, number: u64) {
    if let Ok(number) = u8::try_from(number) {
        if number > 0x7f {
            bytes.push(0xcc);
        }
        bytes.push(number);
    } else if let Ok(number) = u16::try_from(number) {
        bytes.push(0xcd);
        bytes.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        bytes.push(0xce);
        bytes.extend_from_slice(&number.to_be_bytes());
    } else {
        bytes.push(0xcf);
        bytes.extend_from_slice(&number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wamp::tests::bytes_of;

    #[test]
    fn timestamps_become_seconds_and_other_extensions_are_refused() {
        for (hex, expected) in [
            ("d6ff 00000001", Ok(Value::Int(1))),
            ("d7ff 77359400 00000002", Ok(Value::Float(2.5))),
            ("d7ff 00000003 ffffffff", Ok(Value::Int(0x3_ffff_ffff))),
            ("c70cff 1dcd6500 ffffffffffffffff", Ok(Value::Float(-0.5))),
            ("d4ff 00", Err(Malformed::Extension { kind: -1 })),
            ("d405 00", Err(Malformed::Extension { kind: 5 })),
            ("c70380 000000", Err(Malformed::Extension { kind: -128 })),
            ("d6ff 0000", Err(Malformed::Cut)),
        ] {
            assert_eq!(decode(&bytes_of(hex)), expected, "{hex}");
        }
    }

    #[test]
    fn the_shortest_form_is_written() {
        for (value, hex) in [
            (Value::Int(0), "00"),
            (Value::Int(127), "7f"),
            (Value::Int(128), "cc80"),
            (Value::Int(256), "cd0100"),
            (Value::Int(65536), "ce00010000"),
            (Value::Int(1 << 32), "cf0000000100000000"),
            (Value::UInt(u64::MAX), "cfffffffffffffffff"),
            (Value::Int(-1), "ff"),
            (Value::Int(-32), "e0"),
            (Value::Int(-33), "d0df"),
            (Value::Int(-129), "d1ff7f"),
            (Value::Int(-32769), "d2ffff7fff"),
            (Value::Int(i64::MIN), "d38000000000000000"),
            (Value::Float(1.5), "cb3ff8000000000000"),
            (Value::Bytes(vec![]), "c400"),
            (Value::text(""), "a0"),
        ] {
            let mut bytes = Vec::new();
            push(&mut bytes, &value, 1);
            assert_eq!(bytes, bytes_of(hex), "{value:?}");
            assert_eq!(decode(&bytes), Ok(value));
        }
    }
}
