//! What the broker sends, looked at frame by frame before the AMQP library sees it. Four things would otherwise end the
//! whole connection or tell a lie: text that is not UTF-8 where the library insists on it, tables nested so deep that its
//! parser would exhaust its stack, content headers longer than a frame may be, and returned messages, which it hands to
//! whichever confirm comes next.
//!
//! Nothing here does I/O; it changes bytes in place and never their number (AMQP 0-9-1, sections 2.3.5 and 4.2): what is
//! to stand in the place of headers that are too long is made here, and put there by [`super::wire`].

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amq_protocol::types::generation::gen_field_table;
use amq_protocol::types::{AMQPValue, FieldTable};

use super::stream::OFFSET;
use super::wire::FRAME_BYTES_MAX;

/// The header field that holds our id of a publish, so that a returned message can be told from the others.
pub(crate) const ID_HEADER: &str = "x-passerelle-id";

/// The header field that names the connection which published a message and does not want it back.
pub(crate) const ORIGIN_HEADER: &str = "x-passerelle-origin";

/// The header field that says of a message in a stream of ours that the queue which it comes from gave it more than once.
pub(crate) const REDELIVERED_HEADER: &str = "x-passerelle-redelivered";

/// The header field that says that a message is to be kept for later subscribers: also a service may set it.
pub(crate) const RETAINED_HEADER: &str = "x-passerelle-retained";

/// The header field that says of a message that its own were left out here, because they are longer than a frame may be.
pub(crate) const SHORTENED_HEADER: &str = "x-passerelle-shortened";

/// How deep tables and lists may be nested; what lies deeper is shown as bytes.
pub(crate) const NESTING_MAX: usize = 16;

const METHOD: u8 = 1;
/// The type of the frame with which a content begins.
pub(crate) const HEADER: u8 = 2;
const BODY: u8 = 3;
const CONNECTION_TUNE: (u16, u16) = (10, 30);
const CONNECTION_CLOSE: (u16, u16) = (10, 50);
const CONNECTION_BLOCKED: (u16, u16) = (10, 60);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const BASIC_RETURN: (u16, u16) = (60, 50);
const BASIC_DELIVER: (u16, u16) = (60, 60);

/// The publishes that the broker returned as unroutable. A return precedes its confirm on the wire, so whoever has seen the
/// confirm and asks here knows. Shared between the connection's reader and those who publish.
#[derive(Debug, Clone, Default)]
pub(crate) struct Returned(Arc<Mutex<Returns>>);

#[derive(Debug, Default)]
struct Returns {
    /// Of those that carry our id.
    ids: HashSet<i64>,
    /// Where others came back.
    channels: HashSet<u16>,
}

impl Returned {
    /// Whether this publish was returned; forgets it.
    pub(crate) fn take(&self, id: i64) -> bool {
        self.lock().ids.remove(&id)
    }

    /// Whether anything without an id of ours was returned on this channel; forgets it.
    pub(crate) fn take_any(&self, channel: u16) -> bool {
        self.lock().channels.remove(&channel)
    }

    /// Forgets all ids: their channel is gone.
    pub(crate) fn clear(&self) {
        self.lock().ids.clear();
    }

    fn note(&self, channel: u16, id: Option<i64>) {
        let mut returns = self.lock();
        match id {
            Some(id) => returns.ids.insert(id),
            None => returns.channels.insert(channel),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Returns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many channels the broker has closed on a connection, as it does over whatever it refuses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closed(Arc<AtomicUsize>);

impl Closed {
    /// How many so far.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The state of looking at one connection.
#[derive(Debug, Default)]
pub(crate) struct Inspector {
    returned: Returned,
    closed: Closed,
    /// Channels in the middle of a returned message: the bytes of its body still to come, once its header was seen.
    returning: HashMap<u16, Option<u64>>,
    /// The largest frame that the broker proposed; 0, which is no limit, before it did.
    frame_bytes_proposed: u32,
}

impl Inspector {
    /// For a new connection; returned messages are noted in `returned`, and channels that the broker closes in `closed`.
    pub(crate) fn new(returned: Returned, closed: Closed) -> Self {
        Self { returned, closed, ..Self::default() }
    }

    /// The largest frame that the library takes: as it and the broker agreed.
    pub(crate) fn frame_bytes_max(&self) -> u32 {
        match self.frame_bytes_proposed {
            0 => FRAME_BYTES_MAX,
            proposed => proposed.min(FRAME_BYTES_MAX),
        }
    }

    /// Whether this frame is part of a returned message, and so is to be kept from the library.
    pub(crate) fn is_returned(&self, kind: u8, channel: u16, payload: &[u8]) -> bool {
        match kind {
            METHOD => method_of(payload) == Some(BASIC_RETURN),
            HEADER | BODY => self.returning.contains_key(&channel),
            _ => false,
        }
    }

    /// Makes the frame's payload palatable in place, and notes what it says about returned messages.
    pub(crate) fn look(&mut self, kind: u8, channel: u16, payload: &mut [u8]) {
        match kind {
            METHOD => self.look_at_method(channel, payload),
            HEADER => self.look_at_header(channel, payload),
            BODY => self.look_at_body(channel, payload.len()),
            _ => {}
        }
    }

    fn look_at_method(&mut self, channel: u16, payload: &mut [u8]) {
        let Some(method) = method_of(payload) else { return };
        let mut walk = Walk::new(payload, 4);
        // A payload that ends too early is the library's to complain about.
        let _ = match method {
            BASIC_DELIVER => walk.deliver(),
            CONNECTION_CLOSE | CHANNEL_CLOSE => walk.skip(2).and_then(|()| walk.short_text()),
            CONNECTION_BLOCKED => walk.short_text(),
            CONNECTION_TUNE => walk.skip(2).and_then(|()| walk.u32()).map(|bytes| self.frame_bytes_proposed = bytes),
            _ => Some(()),
        };
        match method {
            BASIC_RETURN => _ = self.returning.insert(channel, None),
            CHANNEL_CLOSE => _ = self.closed.0.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }

    fn look_at_header(&mut self, channel: u16, payload: &mut [u8]) {
        let mut walk = Walk::new(payload, 4);
        let (Some(body_bytes), Some(flags)) = (walk.u64(), walk.u16()) else { return };
        let id = walk.properties(flags);
        if let Some(left) = self.returning.get_mut(&channel) {
            *left = Some(body_bytes);
            self.returned.note(channel, id);
            self.look_at_body(channel, 0);
        }
    }

    fn look_at_body(&mut self, channel: u16, bytes: usize) {
        if let Some(Some(left)) = self.returning.get_mut(&channel) {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                self.returning.remove(&channel);
            }
        }
    }
}

fn method_of(payload: &[u8]) -> Option<(u16, u16)> {
    match payload {
        [class_high, class_low, high, low, ..] => {
            Some((u16::from_be_bytes([*class_high, *class_low]), u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    }
}

/// Where the headers stand in a content header, if it has any, and what is to stand there in their place: that they were
/// left out, and the offset in a stream, because whoever reads one must know how far they have come.
pub(crate) fn shortened_headers(payload: &mut [u8]) -> Option<(Range<usize>, Vec<u8>)> {
    let mut walk = Walk::new(payload, 12);
    let flags = walk.u16()?;
    for _ in [15, 14].into_iter().filter(|bit| flags & (1 << bit) != 0) {
        walk.short_text()?;
    }
    let start = walk.at;
    let end = if flags & (1 << 13) == 0 { return None } else { walk.end_of_counted()? };
    walk.at = start;
    let mut left = FieldTable::default();
    left.insert(SHORTENED_HEADER.into(), AMQPValue::Boolean(true));
    if let Some(offset) = walk.headers(OFFSET).flatten() {
        left.insert(OFFSET.into(), AMQPValue::LongLongInt(offset));
    }
    // Writing to memory cannot fail.
    let written = gen_field_table(&left)(Vec::new().into()).ok()?;
    Some((start..end, written.into_inner().0))
}

/// A position in a frame's payload; every step answers `None` where the payload ends too early.
struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a mut [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    fn take(&mut self, count: usize) -> Option<&mut [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get_mut(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first().copied())
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| Some(u16::from_be_bytes(<[u8; 2]>::try_from(&*bytes).ok()?)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| Some(u32::from_be_bytes(<[u8; 4]>::try_from(&*bytes).ok()?)))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| Some(u64::from_be_bytes(<[u8; 8]>::try_from(&*bytes).ok()?)))
    }

    /// A short string; bytes that are not UTF-8 become NUL, which mapping then refuses or replaces.
    fn short_text(&mut self) -> Option<()> {
        let length = self.u8()?;
        blank_invalid(self.take(usize::from(length))?);
        Some(())
    }

    /// The arguments of `basic.deliver`.
    fn deliver(&mut self) -> Option<()> {
        self.short_text()?;
        self.skip(9)?;
        self.short_text()?;
        self.short_text()
    }

    /// The property list; answers our id if there is one.
    fn properties(&mut self, flags: u16) -> Option<i64> {
        let has = |bit: u16| flags & (1 << bit) != 0;
        let mut id = None;
        for bit in (2..=15).rev().filter(|bit| has(*bit)) {
            match bit {
                13 => id = self.headers(ID_HEADER)?,
                12 | 11 => self.skip(1)?,
                6 => self.skip(8)?,
                _ => self.short_text()?,
            }
        }
        id
    }

    /// The outermost table; answers the whole number of this name. `Some(None)`: the table is whole and has none.
    fn headers(&mut self, name: &str) -> Option<Option<i64>> {
        let end = self.end_of_counted()?;
        let mut found = None;
        while self.at < end {
            let name_at = self.at + 1;
            self.short_text()?;
            let is_it = self.bytes.get(name_at..self.at) == Some(name.as_bytes());
            let value_at = self.at + 1;
            self.value(1)?;
            if let (true, Some(number)) = (is_it, self.bytes.get(value_at..self.at)) {
                found = <[u8; 8]>::try_from(number).ok().map(i64::from_be_bytes);
            }
        }
        Some(found)
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let end = self.end_of_counted()?;
        while self.at < end {
            self.short_text()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        let end = self.end_of_counted()?;
        while self.at < end {
            self.value(depth)?;
        }
        Some(())
    }

    fn end_of_counted(&mut self) -> Option<usize> {
        let length = usize::try_from(self.u32()?).ok()?;
        let end = self.at.checked_add(length)?;
        (end <= self.bytes.len()).then_some(end)
    }

    /// A value with its type letter; `depth` counts the tables and lists around it.
    fn value(&mut self, depth: usize) -> Option<()> {
        let letter_at = self.at;
        match self.u8()? {
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'l' | b'L' | b'd' | b'T' => self.skip(8),
            b'V' => Some(()),
            b'F' if depth < NESTING_MAX => self.table(depth + 1),
            b'A' if depth < NESTING_MAX => self.list(depth + 1),
            letter @ (b'S' | b'x' | b'F' | b'A') => {
                if letter != b'S' {
                    // Too deep: a byte array has the same form on the wire, a length and as many bytes.
                    *self.bytes.get_mut(letter_at)? = b'x';
                }
                let length = usize::try_from(self.u32()?).ok()?;
                self.skip(length)
            }
            _ => None,
        }
    }
}

/// Overwrites every byte that is not part of valid UTF-8 with NUL.
fn blank_invalid(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let (_, rest) = text.split_at_mut(error.valid_up_to());
        let bad = error.error_len().unwrap_or(rest.len()).min(rest.len());
        let (invalid, after) = rest.split_at_mut(bad);
        invalid.fill(0);
        text = after;
    }
}

#[cfg(test)]
#[path = "inspect/tests.rs"]
mod tests;
