//! Field tables before and after they are parsed: how deep they nest, and how their values compare. Knows bytes and
//! values only.
//!
//! The parser of `amq-protocol` calls itself for every table within a table, so a hostile frame could exhaust the stack.
//! `check_frame` walks the bytes first, with a stack of its own, and refuses what nests beyond [`TABLE_DEPTH_MAX`].

use amq_protocol::types::{AMQPValue, FieldTable};

use super::fault::{Code, Fault};
use super::limits::TABLE_DEPTH_MAX;

/// Where a method's table begins: how many bytes after the method's number, then how many short strings, then how many
/// bytes again.
struct Layout {
    class: u16,
    method: u16,
    before: usize,
    strings: usize,
    after: usize,
}

/// Every method of a client that carries a table.
const LAYOUTS: [Layout; 8] = [
    Layout { class: 10, method: 11, before: 0, strings: 0, after: 0 },
    Layout { class: 40, method: 10, before: 2, strings: 2, after: 1 },
    Layout { class: 40, method: 30, before: 2, strings: 3, after: 1 },
    Layout { class: 40, method: 40, before: 2, strings: 3, after: 1 },
    Layout { class: 50, method: 10, before: 2, strings: 1, after: 1 },
    Layout { class: 50, method: 20, before: 2, strings: 3, after: 1 },
    Layout { class: 50, method: 50, before: 2, strings: 3, after: 0 },
    Layout { class: 60, method: 20, before: 2, strings: 2, after: 1 },
];

/// The methods that only a server sends and that carry a table.
const SERVER_ONLY: [(u16, u16); 1] = [(10, 10)];

/// Bytes that are being walked over.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        let next = self.at.checked_add(count)?;
        (next <= self.bytes.len()).then(|| self.at = next)
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Option<usize> {
        Some(u32::from_be_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]) as usize)
    }

    fn skip_short_string(&mut self) -> Option<()> {
        let length = self.byte()?;
        self.skip(usize::from(length))
    }

    /// Walks one table, length included. `None` when the bytes are no table, or one that nests too deep.
    fn table(&mut self) -> Option<()> {
        let length = self.long()?;
        let mut open = vec![(self.at.checked_add(length)?, true)];
        while let Some((end, named)) = open.last().copied() {
            if end > self.bytes.len() || self.at > end {
                return None;
            }
            if self.at == end {
                open.pop();
                continue;
            }
            if named {
                self.skip_short_string()?;
            }
            match self.byte()? {
                b'V' => {}
                b't' | b'b' | b'B' => self.skip(1)?,
                b's' | b'U' | b'u' => self.skip(2)?,
                b'I' | b'i' | b'f' => self.skip(4)?,
                b'D' => self.skip(5)?,
                b'L' | b'l' | b'd' | b'T' => self.skip(8)?,
                b'S' | b'x' => {
                    let length = self.long()?;
                    self.skip(length)?;
                }
                kind @ (b'F' | b'A') if open.len() < TABLE_DEPTH_MAX => {
                    let length = self.long()?;
                    open.push((self.at.checked_add(length)?, kind == b'F'));
                }
                _ => return None,
            }
        }
        Some(())
    }
}

fn refused(what: &str) -> Fault {
    Fault::new(Code::SyntaxError, format!("{what} is malformed or nests deeper than {TABLE_DEPTH_MAX}"))
}

/// Makes sure that a method's table, if it has one, may be parsed.
///
/// # Errors
/// 502 when the table is malformed or too deep, 503 for a method that only a server sends.
pub(crate) fn check_method(payload: &[u8]) -> Result<(), Fault> {
    let mut walk = Walk { bytes: payload, at: 0 };
    let (Some(class), Some(method)) = (walk.short(), walk.short()) else { return Err(refused("a method")) };
    if SERVER_ONLY.contains(&(class, method)) {
        return Err(Fault::new(Code::CommandInvalid, format!("method {class}.{method} is the server's")));
    }
    let Some(layout) = LAYOUTS.iter().find(|layout| (layout.class, layout.method) == (class, method)) else {
        return Ok(());
    };
    let mut to_table = || {
        walk.skip(layout.before)?;
        (0..layout.strings).try_for_each(|_| walk.skip_short_string())?;
        walk.skip(layout.after)?;
        walk.table()
    };
    to_table().ok_or_else(|| refused(&format!("the table of method {class}.{method}")))
}

/// Makes sure that the headers in a content header frame, if it has any, may be parsed.
///
/// # Errors
/// 502 when they are malformed or too deep.
pub(crate) fn check_content_header(payload: &[u8]) -> Result<(), Fault> {
    let mut walk = Walk { bytes: payload, at: 0 };
    let mut to_table = || {
        walk.skip(12)?;
        let flags = walk.short()?;
        let strings = (flags >> 15 & 1) + (flags >> 14 & 1);
        (0..strings).try_for_each(|_| walk.skip_short_string())?;
        if flags >> 13 & 1 == 1 { walk.table() } else { Some(()) }
    };
    to_table().ok_or_else(|| refused("a content header"))
}

/// Makes sure that a table with its length may be parsed.
///
/// # Errors
/// 502 when it is malformed or too deep.
pub(crate) fn check_table(bytes: &[u8]) -> Result<(), Fault> {
    Walk { bytes, at: 0 }.table().ok_or_else(|| refused("a table"))
}

/// A value as whole number, if it is one.
pub(crate) fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::LongLongInt(number) => Some(*number),
        _ => None,
    }
}

/// A value as bytes of text, if it is a string.
pub(crate) fn text(value: &AMQPValue) -> Option<&[u8]> {
    match value {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice()),
        _ => None,
    }
}

/// A value as UTF-8 text, if it is that.
pub(crate) fn utf8(value: &AMQPValue) -> Option<&str> {
    std::str::from_utf8(text(value)?).ok()
}

/// The value of a table's field.
pub(crate) fn field<'a>(table: &'a FieldTable, name: &str) -> Option<&'a AMQPValue> {
    table.inner().get(name)
}

/// Whether two values mean the same, whatever types carried them: numbers by value, strings by bytes.
pub(crate) fn same(left: &AMQPValue, right: &AMQPValue) -> bool {
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return left == right;
    }
    if let (Some(left), Some(right)) = (text(left), text(right)) {
        return left == right;
    }
    match (float(left), float(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a whole number is compared with a fraction, as RabbitMQ compares them")]
fn float(value: &AMQPValue) -> Option<f64> {
    match value {
        AMQPValue::Float(number) => Some((*number).into()),
        AMQPValue::Double(number) => Some(*number),
        other => integer(other).map(|number| number as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with one field, a table with one field, and so on.
    fn nested(depth: usize) -> Vec<u8> {
        let mut inner = vec![0, 0, 0, 0];
        for _ in 1..depth {
            let mut outer = Vec::new();
            outer.extend(u32::try_from(inner.len() + 3).unwrap().to_be_bytes());
            outer.extend([1, b'k', b'F']);
            outer.append(&mut inner);
            inner = outer;
        }
        inner
    }

    fn declare(table: &[u8]) -> Vec<u8> {
        [&[0, 50, 0, 10, 0, 0, 1, b'q', 0], table].concat()
    }

    #[test]
    fn a_table_may_nest_to_the_limit_and_no_deeper() {
        assert_eq!(check_table(&nested(TABLE_DEPTH_MAX)), Ok(()));
        assert_eq!(check_table(&nested(TABLE_DEPTH_MAX + 1)).unwrap_err().code, Code::SyntaxError);
        assert_eq!(check_method(&declare(&nested(3))), Ok(()));
        assert!(check_method(&declare(&nested(20_000))).is_err());
    }

    #[test]
    fn headers_are_found_behind_the_strings_before_them() {
        let header =
            |table: &[u8]| [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0b1010_0000, 0, 2, b'a', b'b'], table].concat();
        assert_eq!(check_content_header(&header(&nested(2))), Ok(()));
        assert!(check_content_header(&header(&nested(1_000))).is_err());
        assert!(check_content_header(&[0, 60]).is_err());
    }

    #[test]
    fn cut_tables_are_refused() {
        let whole = declare(&nested(4));
        for end in 4..whole.len() {
            assert!(check_method(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn values_compare_by_meaning() {
        assert!(same(&AMQPValue::LongInt(5), &AMQPValue::LongLongInt(5)));
        assert!(same(&AMQPValue::Double(5.0), &AMQPValue::ShortInt(5)));
        assert!(same(&AMQPValue::LongString("a".into()), &AMQPValue::ByteArray(b"a"[..].into())));
        assert!(!same(&AMQPValue::LongString("5".into()), &AMQPValue::LongInt(5)));
    }
}
