//! One message between its first byte and the moment it is handed out: assembled from fragments, inflated, its text
//! checked; and the content of control frames. It knows no frame heads.

use super::reader::{Received, Scratch};
use super::{Fault, Opcode};

/// What is said of text that is not UTF-8, wherever that shows.
const NOT_UTF8: Fault = Fault::data("text must be UTF-8");

/// A message of which some part is still to come.
#[derive(Debug)]
pub(super) struct Message {
    opcode: Opcode,
    compressed: bool,
    fragments: u32,
    /// The payload so far, unmasked.
    bytes: Vec<u8>,
    /// How many of the bytes are known to be UTF-8: all but a character cut in two. Stays 0 unless it is plain text.
    checked: usize,
}

impl Message {
    /// A message whose first fragment begins.
    pub(super) fn begin(opcode: Opcode, compressed: bool) -> Self {
        Message { opcode, compressed, fragments: 1, bytes: Vec::new(), checked: 0 }
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Bytes of payload so far, as they came over the wire.
    pub(super) fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of heap.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// One more fragment begins.
    pub(super) fn count_fragment(&mut self, fragments_max: u32) -> Result<(), Fault> {
        self.fragments += 1;
        if self.fragments > fragments_max {
            return Err(Fault::size("the message has more fragments than the limit"));
        }
        Ok(())
    }

    /// Adds a piece of payload. The caller sees to it that there will be no more than `bytes_max` of it; reserved is
    /// at most twice what is there.
    pub(super) fn extend(&mut self, piece: &[u8], bytes_max: usize) -> Result<(), Fault> {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            let generous = (2 * self.bytes.capacity()).min(bytes_max).max(needed);
            self.bytes.reserve_exact(generous - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        if self.opcode == Opcode::Text && !self.compressed { self.check_text() } else { Ok(()) }
    }

    /// Checks what is new, and that a character that was cut in two can still become one.
    fn check_text(&mut self) -> Result<(), Fault> {
        let Some(unchecked) = self.bytes.get(self.checked..) else { return Ok(()) };
        self.checked += match simdutf8::compat::from_utf8(unchecked) {
            Ok(text) => text.len(),
            Err(fault) if fault.error_len().is_none() => fault.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        };
        Ok(())
    }

    /// The whole message.
    pub(super) fn end<'b>(self) -> Complete<'b> {
        Complete { opcode: self.opcode, compressed: self.compressed, payload: Payload::Assembled(self.bytes) }
    }
}

/// A message or control frame of which everything is here.
#[derive(Debug)]
pub(super) struct Complete<'b> {
    /// What it is; never a continuation.
    pub(super) opcode: Opcode,
    /// Whether the payload is still to be inflated.
    pub(super) compressed: bool,
    /// Its payload, unmasked.
    pub(super) payload: Payload<'b>,
}

/// Where a payload lies.
#[derive(Debug)]
pub(super) enum Payload<'b> {
    /// In the buffer that was fed.
    Fed(&'b [u8]),
    /// In memory of its own, because it came in pieces.
    Assembled(Vec<u8>),
}

impl<'b> Complete<'b> {
    /// What the driver gets. A message that came in pieces moves to the scratch, so that nothing stays with the reader.
    pub(super) fn hand_out<'a>(self, scratch: &'a mut Scratch, bytes_max: usize) -> Result<Received<'a>, Fault>
    where
        'b: 'a,
    {
        let Scratch { inflater, assembled } = scratch;
        let wire: &'a [u8] = match self.payload {
            Payload::Fed(payload) => payload,
            Payload::Assembled(payload) => {
                *assembled = payload;
                assembled
            }
        };
        let payload = if self.compressed { inflater.inflate(wire, bytes_max)? } else { wire };
        match self.opcode {
            Opcode::Text => Ok(Received::Text(text(payload)?)),
            Opcode::Binary | Opcode::Continuation => Ok(Received::Binary(payload)),
            Opcode::Ping => Ok(Received::Ping(payload)),
            Opcode::Pong => Ok(Received::Pong(payload)),
            Opcode::Close => close(payload),
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| NOT_UTF8)
}

/// The content of a close frame (RFC 6455, section 5.5.1).
fn close(payload: &[u8]) -> Result<Received<'_>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(Received::Close { code: None, reason: "" }),
        [_] => return Err(Fault::protocol("a close frame has no content or a code of two bytes")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !may_be_sent(code) {
        return Err(Fault::protocol("a close code that must not be sent"));
    }
    Ok(Received::Close { code: Some(code), reason: text(reason)? })
}

/// Whether a close code may stand on the wire: those of RFC 6455, section 7.4.1, those registered since (1012 to
/// 1014), and those free for libraries and applications.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
