//! CBOR (RFC 8949; WAMP, section "Serializers"). What a tag only describes is read without it; tags that change a value are
//! refused in words, big integers apart that are none. Written is the shortest form of everything but floats.

use crate::protocol::wamp::json;
use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::reader::{self, Reader, deeper};
use crate::protocol::wamp::value::{Dict, Value};

/// Ends what began without a length (RFC 8949, section 3.2.1).
const BREAK: u8 = 0xff;

/// Major types (RFC 8949, section 3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const DICT: u8 = 5;
const TAG: u8 = 6;

/// Reads one message.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, Malformed> {
    reader::whole(bytes, value)
}

fn value(reader: &mut Reader<'_>, depth_left: usize) -> Result<Value, Malformed> {
    let first = reader.byte()?;
    let (major, argument) = (first >> 5, argument(reader, first)?);
    match (major, argument) {
        (UNSIGNED, Some(number)) => Ok(Value::from(number)),
        (NEGATIVE, Some(number)) => negative(number),
        (BYTES, Some(length)) => reader.bytes(length).map(|bytes| Value::Bytes(bytes.to_vec())),
        (BYTES, None) => pieces(reader, BYTES).map(Value::Bytes),
        (TEXT, Some(length)) => reader.text(length).map(Value::text),
        (TEXT, None) => pieces(reader, TEXT).map(|text| Value::Text(String::from_utf8_lossy(&text).into_owned())),
        (LIST, Some(length)) => reader.list(length, depth_left, value),
        (LIST, None) => endless_list(reader, depth_left),
        (DICT, Some(length)) => reader.dict(length, depth_left, value),
        (DICT, None) => endless_dict(reader, depth_left),
        (TAG, Some(tag)) => tagged(reader, tag, depth_left),
        _ => simple(first, argument),
    }
}

/// What follows in or after the first byte: a number or a length, or nothing where the length is not said. Floats are
/// read as the number that their bytes are.
fn argument(reader: &mut Reader<'_>, first: u8) -> Result<Option<u64>, Malformed> {
    match first & 0x1f {
        short @ 0..=23 => Ok(Some(u64::from(short))),
        wide @ 24..=27 => reader.unsigned(1 << (wide - 24)).map(Some),
        31 => Ok(None),
        _ => Err(Malformed::Byte { byte: first }),
    }
}

/// `-1 - number`.
fn negative(number: u64) -> Result<Value, Malformed> {
    i64::try_from(number).map(|number| Value::Int(-1 - number)).map_err(|_| Malformed::Range)
}

/// Strings in pieces, each of which has a length (RFC 8949, section 3.2.3).
fn pieces(reader: &mut Reader<'_>, major: u8) -> Result<Vec<u8>, Malformed> {
    let mut whole = Vec::new();
    while !reader.takes(BREAK) {
        let first = reader.byte()?;
        let length = argument(reader, first)?.filter(|_| first >> 5 == major);
        let length = length.ok_or(Malformed::Byte { byte: first })?;
        // A piece of a text is a text itself: no character is divided.
        let piece = if major == TEXT { reader.text(length)?.as_bytes() } else { reader.bytes(length)? };
        whole.extend_from_slice(piece);
    }
    Ok(whole)
}

fn endless_list(reader: &mut Reader<'_>, depth_left: usize) -> Result<Value, Malformed> {
    let depth_left = deeper(depth_left)?;
    let mut items = Vec::new();
    while !reader.takes(BREAK) {
        reader.announce(1, 1)?;
        items.push(value(reader, depth_left)?);
    }
    Ok(Value::List(items))
}

fn endless_dict(reader: &mut Reader<'_>, depth_left: usize) -> Result<Value, Malformed> {
    let depth_left = deeper(depth_left)?;
    let mut entries = Vec::new();
    while !reader.takes(BREAK) {
        reader.announce(1, 2)?;
        entries.push(reader.entry(depth_left, value)?);
    }
    Dict::unique(entries).map(Value::Dict)
}

fn tagged(reader: &mut Reader<'_>, tag: u64, depth_left: usize) -> Result<Value, Malformed> {
    let content = value(reader, deeper(depth_left)?)?;
    match (tag, content) {
        (2, Value::Bytes(bytes)) => unsigned_of(&bytes).map(Value::from),
        (3, Value::Bytes(bytes)) => unsigned_of(&bytes).and_then(negative),
        // Times, hints for conversion, embedded CBOR, kinds of text, a UUID, arrays of bytes, and "this is CBOR".
        (0 | 1 | 21..=24 | 32..=37 | 64 | 68 | 55799, content) => Ok(content),
        _ => Err(Malformed::Tag { tag }),
    }
}

/// A big integer that is not so big (RFC 8949, section 3.4.3).
fn unsigned_of(bytes: &[u8]) -> Result<u64, Malformed> {
    bytes.iter().try_fold(0_u64, |number, byte| {
        let shifted = number.checked_mul(1 << 8).ok_or(Malformed::Range)?;
        Ok(shifted | u64::from(*byte))
    })
}

/// Major type 7 (RFC 8949, section 3.3).
fn simple(first: u8, argument: Option<u64>) -> Result<Value, Malformed> {
    match (first, argument) {
        (0xf4 | 0xf5, _) => Ok(Value::Bool(first == 0xf5)),
        // `undefined` too: of what WAMP carries, null is nearest.
        (0xf6 | 0xf7, _) => Ok(Value::Null),
        (0xf9, Some(bits)) => Ok(Value::Float(half(bits as u16))),
        (0xfa, Some(bits)) => Ok(Value::Float(f64::from(f32::from_bits(bits as u32)))),
        (0xfb, Some(bits)) => Ok(Value::Float(f64::from_bits(bits))),
        _ => Err(Malformed::Byte { byte: first }),
    }
}

/// A float of 16 bits: sign, five bits of exponent, ten of mantissa (IEEE 754, section 3.6).
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let mantissa = f64::from(bits & 0x03ff);
    let magnitude = match i32::from(bits >> 10 & 0x1f) {
        0 => mantissa * 2.0_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + mantissa) * 2.0_f64.powi(exponent - 25),
    };
    sign * magnitude
}

/// Appends the head of a list.
pub(super) fn push_list_head(bytes: &mut Vec<u8>, length: usize) {
    push_head(bytes, LIST, length as u64);
}

/// Appends one value. What is nested deeper than `depth_left` becomes null.
pub(super) fn push(bytes: &mut Vec<u8>, value: &Value, depth_left: usize) {
    match value {
        Value::Null => bytes.push(0xf6),
        Value::Bool(truth) => bytes.push(if *truth { 0xf5 } else { 0xf4 }),
        Value::Int(number) if *number < 0 => push_head(bytes, NEGATIVE, (-1 - number).unsigned_abs()),
        Value::Int(number) => push_head(bytes, UNSIGNED, number.unsigned_abs()),
        Value::UInt(number) => push_head(bytes, UNSIGNED, *number),
        Value::Float(number) => {
            bytes.push(0xfb);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::Text(text) => push_string(bytes, TEXT, text.as_bytes()),
        Value::Bytes(raw) => push_string(bytes, BYTES, raw),
        Value::Json(text) => push(bytes, &json::converted(text), depth_left),
        Value::List(items) => match deeper(depth_left) {
            Ok(depth_left) => {
                push_list_head(bytes, items.len());
                items.iter().for_each(|item| push(bytes, item, depth_left));
            }
            Err(_) => bytes.push(0xf6),
        },
        Value::Dict(dict) => match deeper(depth_left) {
            Ok(depth_left) => {
                push_head(bytes, DICT, dict.0.len() as u64);
                for (key, value) in &dict.0 {
                    push_string(bytes, TEXT, key.as_bytes());
                    push(bytes, value, depth_left);
                }
            }
            Err(_) => bytes.push(0xf6),
        },
    }
}

fn push_string(bytes: &mut Vec<u8>, major: u8, content: &[u8]) {
    push_head(bytes, major, content.len() as u64);
    bytes.extend_from_slice(content);
}

fn push_head(bytes: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => bytes.push(major | argument as u8),
        24..=0xff => bytes.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            bytes.push(major | 25);
            bytes.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(major | 26);
            bytes.extend((argument as u32).to_be_bytes());
        }
        _ => {
            bytes.push(major | 27);
            bytes.extend(argument.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wamp::tests::bytes_of;

    /// Mostly from RFC 8949, appendix A.
    #[test]
    fn what_others_may_write_is_read() {
        let list = |numbers: &[i64]| Value::List(numbers.iter().copied().map(Value::Int).collect());
        for (hex, expected) in [
            ("f90000", Value::Float(0.0)),
            ("f93c00", Value::Float(1.0)),
            ("f93e00", Value::Float(1.5)),
            ("f97bff", Value::Float(65504.0)),
            ("f90001", Value::Float(5.960_464_477_539_063e-8)),
            ("f90400", Value::Float(0.000_061_035_156_25)),
            ("f9c400", Value::Float(-4.0)),
            ("f97c00", Value::Float(f64::INFINITY)),
            ("f9fc00", Value::Float(f64::NEG_INFINITY)),
            ("fa47c35000", Value::Float(100_000.0)),
            ("3b7fffffffffffffff", Value::Int(i64::MIN)),
            ("1bffffffffffffffff", Value::UInt(u64::MAX)),
            ("f7", Value::Null),
            ("5f42010243030405ff", Value::Bytes(vec![1, 2, 3, 4, 5])),
            ("7f657374726561646d696e67ff", Value::text("streaming")),
            ("9fff", list(&[])),
            ("9f0102ff", list(&[1, 2])),
            ("bf616101ff", Value::Dict(Dict::default().with("a", Value::Int(1)))),
            ("a10102", Value::Dict(Dict::default().with("1", Value::Int(2)))),
            ("c11a514b67b0", Value::Int(1_363_896_240)),
            ("c24101", Value::Int(1)),
            ("c2490000000000000000ff", Value::Int(255)),
            ("c34101", Value::Int(-2)),
            ("d9d9f7820102", list(&[1, 2])),
            ("d84043010203", Value::Bytes(vec![1, 2, 3])),
            ("1800", Value::Int(0)),
        ] {
            assert_eq!(decode(&bytes_of(hex)), Ok(expected), "{hex}");
        }
        assert!(matches!(decode(&bytes_of("f97e00")), Ok(Value::Float(number)) if number.is_nan()));
    }

    #[test]
    fn what_nobody_can_hold_or_means_is_refused() {
        for (hex, expected) in [
            ("3bffffffffffffffff", Malformed::Range),
            ("c249010000000000000000", Malformed::Range),
            ("c348ffffffffffffffff", Malformed::Range),
            ("c482010a", Malformed::Tag { tag: 4 }),
            ("c201", Malformed::Tag { tag: 2 }),
            ("d9010000", Malformed::Tag { tag: 256 }),
            ("ff", Malformed::Byte { byte: 0xff }),
            ("1c", Malformed::Byte { byte: 0x1c }),
            ("1f", Malformed::Byte { byte: 0x1f }),
            ("df", Malformed::Byte { byte: 0xdf }),
            ("f8ff", Malformed::Byte { byte: 0xf8 }),
            ("e0", Malformed::Byte { byte: 0xe0 }),
            ("81ff", Malformed::Byte { byte: 0xff }),
            ("5f6161ff", Malformed::Byte { byte: 0x61 }),
            ("5f5f4101ffff", Malformed::Byte { byte: 0x5f }),
            ("7f61c361a9ff", Malformed::NotUtf8),
            ("62c328", Malformed::NotUtf8),
            ("a1f501", Malformed::Key),
            ("bf6161ff", Malformed::Byte { byte: 0xff }),
            ("a2616101616102", Malformed::repeated("a")),
            ("9f01", Malformed::Cut),
            ("5f", Malformed::Cut),
            ("0000", Malformed::Trailing { bytes: 1 }),
        ] {
            assert_eq!(decode(&bytes_of(hex)), Err(expected), "{hex}");
        }
    }

    #[test]
    fn the_shortest_form_is_written() {
        for (value, hex) in [
            (Value::Int(23), "17"),
            (Value::Int(24), "1818"),
            (Value::Int(256), "190100"),
            (Value::Int(65536), "1a00010000"),
            (Value::Int(1 << 32), "1b0000000100000000"),
            (Value::Int(-1), "20"),
            (Value::Int(-25), "3818"),
            (Value::Int(i64::MIN), "3b7fffffffffffffff"),
            (Value::Float(1.5), "fb3ff8000000000000"),
            (Value::text("é"), "62c3a9"),
            (Value::Bytes(vec![7]), "4107"),
        ] {
            let mut bytes = Vec::new();
            push(&mut bytes, &value, 1);
            assert_eq!(bytes, bytes_of(hex), "{value:?}");
            assert_eq!(decode(&bytes), Ok(value));
        }
    }
}
