//! Cursors: opaque texts that name a position in one source's log, and the joint form for several sources.
//!
//! A cursor is `epoch.offset` in base 36; a joint one is `name~cursor~name~cursor…`. Both use only characters
//! that need no escape in a URL. Clients must not look inside.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Which log a cursor belongs to: a number drawn at each start of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// A position in one source's log: everything up to and including `offset` was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The log.
    pub epoch: Epoch,
    /// The last offset seen; 0 is before the first.
    pub offset: u64,
}

impl Cursor {
    /// A position in no log that there is: it stands for a text that this server cannot have given.
    pub const FOREIGN: Self = Self { epoch: Epoch(u64::MAX), offset: u64::MAX };
}

/// Not a text that this server could have given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a cursor that this server gives")]
pub struct CursorError;

/// The most bytes a joint cursor may have when it comes back: enough for seven hundred sources with the longest of names.
pub const JOINT_CURSOR_BYTES_MAX: usize = 64 << 10;

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_base36(self.epoch.0, formatter)?;
        formatter.write_str(".")?;
        write_base36(self.offset, formatter)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, offset) = text.split_once('.').ok_or(CursorError)?;
        Ok(Self { epoch: Epoch(read_base36(epoch)?), offset: read_base36(offset)? })
    }
}

fn write_base36(mut number: u64, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut digits = [0u8; 13];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
        length += 1;
        if number == 0 {
            break;
        }
    }
    let text = std::str::from_utf8(&digits[digits.len() - length..]).map_err(|_| fmt::Error)?;
    formatter.write_str(text)
}

/// Reads what [`write_base36`] writes and nothing else: no sign, no capitals, no needless zero.
fn read_base36(text: &str) -> Result<u64, CursorError> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()) {
        return Err(CursorError);
    }
    u64::from_str_radix(text, 36).map_err(|_| CursorError)
}

/// One cursor a source, by the source's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JointCursor(pub Vec<(String, Cursor)>);

impl fmt::Display for JointCursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, cursor)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "~" };
            write!(formatter, "{separator}{name}~{cursor}")?;
        }
        Ok(())
    }
}

impl JointCursor {
    /// What a client hands back. What this server cannot have given is a position in no log, of the source whose name the
    /// text begins with, so that the client is told of a gap and goes on.
    pub fn of_client(text: &str) -> Self {
        text.parse().unwrap_or_else(|_| {
            let name = text.split('~').next().filter(|name| !name.is_empty());
            Self(name.map(|name| (name.to_owned(), Cursor::FOREIGN)).into_iter().collect())
        })
    }

    /// The cursor of a source, if there is one.
    pub fn of(&self, source: &str) -> Option<Cursor> {
        self.0.iter().find(|(known, _)| known == source).map(|(_, cursor)| *cursor)
    }

    /// In a source it is here from now on.
    pub fn set(&mut self, source: &str, cursor: Cursor) {
        match self.0.iter_mut().find(|(known, _)| known == source) {
            Some((_, known)) => *known = cursor,
            None => self.0.push((source.to_owned(), cursor)),
        }
    }
}

impl FromStr for JointCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > JOINT_CURSOR_BYTES_MAX {
            return Err(CursorError);
        }
        let mut parts = text.split('~');
        let mut names = HashSet::new();
        let mut cursors = Vec::new();
        while let Some(name) = parts.next() {
            let cursor = parts.next().ok_or(CursorError)?.parse()?;
            if name.is_empty() || !names.insert(name) {
                return Err(CursorError);
            }
            cursors.push((name.to_owned(), cursor));
        }
        Ok(Self(cursors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        for offset in [0, 1, 35, 36, u64::MAX] {
            let cursor = Cursor { epoch: Epoch(offset ^ 77), offset };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn a_joint_cursor_survives_its_text() {
        let cursor = Cursor { epoch: Epoch(5), offset: 40 };
        let joint = JointCursor(vec![("events".into(), cursor), ("or-ders_2".into(), cursor)]);
        assert_eq!(joint.to_string(), "events~5.14~or-ders_2~5.14");
        assert_eq!(joint.to_string().parse(), Ok(joint));
    }

    #[test]
    fn what_a_client_makes_up_is_a_position_in_no_log() {
        let known = JointCursor(vec![("a".into(), Cursor { epoch: Epoch(1), offset: 1 })]);
        assert_eq!(JointCursor::of_client("a~1.1"), known);
        for text in ["a~x", "a", "a~1.1~a~1.1"] {
            assert_eq!(JointCursor::of_client(text), JointCursor(vec![("a".into(), Cursor::FOREIGN)]), "{text}");
        }
        assert_eq!(JointCursor::of_client(""), JointCursor::default());
    }

    #[test]
    fn foreign_texts_are_refused() {
        for text in ["", ".", "1", "1.", ".1", "+1.1", "1.-1", "01.1", "A.1", "1.1.1", "zzzzzzzzzzzzzz.1", "1.1 "] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
        for text in ["", "events", "events~1.1~", "~1.1", "a~1.1~a~1.1"] {
            assert_eq!(text.parse::<JointCursor>(), Err(CursorError), "{text}");
        }
    }
}
