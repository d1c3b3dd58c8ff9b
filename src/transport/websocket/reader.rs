//! Bytes of a client in, messages out.
//!
//! A [`Reader`] owns no socket and no read buffer: it is shown slices of a buffer that many connections share, and
//! keeps only what is incomplete, so that an idle one holds no heap. It knows no clock and answers nothing: pings,
//! close frames and faults are told to the driver, which does.

use std::mem::take;

use super::deflate::{Inflater, Negotiated};
use super::frame::{self, HEAD_BYTES_MAX, Head};
use super::message::{Complete, Message, Payload};
use super::{Fault, Opcode};

/// What one client may send in one message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a message's payload, inflated; beyond it 1009.
    pub message_bytes_max: usize,
    /// Frames of one message; beyond it 1009.
    pub fragments_max: u32,
}

impl Limits {
    /// Bytes of a message's payload as it goes over the wire. What does not compress gets a little larger: by an
    /// eighth at worst, with the fixed codes of RFC 1951.
    fn wire_bytes_max(self, compressed: bool) -> usize {
        let expansion = if compressed { self.message_bytes_max / 8 + 64 } else { 0 };
        self.message_bytes_max.saturating_add(expansion)
    }
}

/// What came: borrowed from the buffer that was fed, or from the [`Scratch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message; its UTF-8 was checked.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload, of at most 125 bytes.
    Ping(&'a [u8]),
    /// The answer to a ping, or a sign of life.
    Pong(&'a [u8]),
    /// The client closes. Nothing comes after it: whatever else it sends is passed over.
    Close {
        /// Its code, if it gave one; one that may stand on the wire (RFC 6455, section 7.4).
        code: Option<u16>,
        /// Its reason, of at most 123 bytes.
        reason: &'a str,
    },
}

/// What readers need only while they hand out a message: one serves any number of them, one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) inflater: Inflater,
    /// What was handed out last, if it had come in pieces.
    pub(super) assembled: Vec<u8>,
}

/// Reads the frames of one connection.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    /// `None` when nothing is incomplete, which is nearly always.
    unfinished: Option<Box<Unfinished>>,
    inflates: bool,
    ended: bool,
}

/// Whatever has begun and not ended.
#[derive(Debug, Default)]
struct Unfinished {
    /// The first bytes of a head.
    head: Vec<u8>,
    /// The frame whose payload is coming.
    frame: Option<Arriving>,
    /// That payload so far, if it is a control frame's.
    control: Vec<u8>,
    /// The message whose last fragment is not here in full.
    message: Option<Message>,
}

/// A frame whose head was read and judged.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    head: Head,
    /// Bytes of its payload that are here.
    arrived: usize,
    /// Bytes of its payload that are still to come.
    missing: usize,
}

impl Reader {
    /// A reader at the start of a connection, right after the handshake. Without `deflate` RSV1 is a fault.
    pub fn new(limits: Limits, deflate: Option<Negotiated>) -> Self {
        Reader { limits, unfinished: None, inflates: deflate.is_some(), ended: false }
    }

    /// Takes from the front of `input` what makes up the next message or control frame and hands it out; `None` once
    /// all of `input` is used up. Call it until then. The bytes are unmasked in place, and what came in one piece is
    /// handed out from there, uncopied.
    ///
    /// # Errors
    ///
    /// What the client did wrong, as early as it shows. After that, and after [`Received::Close`], everything is
    /// passed over.
    pub fn next<'a, 'b: 'a>(
        &mut self,
        input: &mut &'b mut [u8],
        scratch: &'a mut Scratch,
    ) -> Result<Option<Received<'a>>, Fault> {
        scratch.assembled = Vec::new();
        if self.ended {
            *input = &mut [];
            return Ok(None);
        }
        let outcome = match self.complete(input) {
            Ok(Some(complete)) => complete.hand_out(scratch, self.limits.message_bytes_max).map(Some),
            Ok(None) => Ok(None),
            Err(fault) => Err(fault),
        };
        if matches!(outcome, Err(_) | Ok(Some(Received::Close { .. }))) {
            self.ended = true;
            self.unfinished = None;
        }
        outcome
    }

    /// Bytes of heap that hold what is incomplete; 0 when nothing is.
    pub fn held_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| {
            let message_bytes = unfinished.message.as_ref().map_or(0, Message::held_bytes);
            size_of::<Unfinished>() + unfinished.head.capacity() + unfinished.control.capacity() + message_bytes
        })
    }

    /// The next message or control frame that is here in full.
    fn complete<'b>(&mut self, input: &mut &'b mut [u8]) -> Result<Option<Complete<'b>>, Fault> {
        while !input.is_empty() {
            let Some(mut frame) = self.frame(input)? else { break };
            let payload = take_front(input, frame.missing);
            frame::unmask(payload, frame.head.mask, frame.arrived);
            frame.arrived += payload.len();
            frame.missing -= payload.len();
            let complete =
                if frame.head.opcode.is_control() { self.control(frame, payload) } else { self.data(frame, payload)? };
            self.settle(frame);
            if complete.is_some() {
                return Ok(complete);
            }
        }
        Ok(None)
    }

    /// The frame whose payload comes next in `input`; `None` if its head is not here in full.
    fn frame(&mut self, input: &mut &mut [u8]) -> Result<Option<Arriving>, Fault> {
        let Some(unfinished) = &mut self.unfinished else {
            let Some((head, bytes)) = Head::parse(input)? else {
                self.unfinished = Some(Box::new(Unfinished { head: take(input).to_vec(), ..Unfinished::default() }));
                return Ok(None);
            };
            take_front(input, bytes);
            return self.admit(head).map(Some);
        };
        if let Some(frame) = unfinished.frame.take() {
            return Ok(Some(frame));
        }
        let before = unfinished.head.len();
        let lacking = input.len().min(HEAD_BYTES_MAX - before);
        unfinished.head.extend(input.iter().take(lacking));
        let Some((head, bytes)) = Head::parse(&unfinished.head)? else {
            // The longest head would have been read, so there was not more than this.
            *input = &mut [];
            return Ok(None);
        };
        unfinished.head = Vec::new();
        take_front(input, bytes - before);
        self.admit(head).map(Some)
    }

    /// Judges a head by what came before it and by the limits, before any memory is reserved for its payload.
    fn admit(&mut self, head: Head) -> Result<Arriving, Fault> {
        let message = self.unfinished.as_mut().and_then(|unfinished| unfinished.message.as_mut());
        let (held_bytes, compressed) = match (head.opcode, message) {
            (Opcode::Continuation, None) => {
                return Err(Fault::protocol("a continuation without a message to continue"));
            }
            (Opcode::Continuation, Some(message)) => {
                message.count_fragment(self.limits.fragments_max)?;
                (message.wire_bytes(), message.is_compressed())
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Fault::protocol("a message must not begin inside another one"));
            }
            _ => (0, head.compressed),
        };
        let may_compress = self.inflates && matches!(head.opcode, Opcode::Text | Opcode::Binary);
        if head.compressed && !may_compress {
            return Err(Fault::protocol("RSV1 may be set on the first frame of a compressed message only"));
        }
        let room = self.limits.wire_bytes_max(compressed).saturating_sub(held_bytes);
        match usize::try_from(head.payload_bytes) {
            Ok(missing) if missing <= room || head.opcode.is_control() => Ok(Arriving { head, arrived: 0, missing }),
            _ => Err(Fault::size("the message is larger than the limit")),
        }
    }

    /// Takes in a piece of a control frame's payload.
    fn control<'b>(&mut self, frame: Arriving, piece: &'b [u8]) -> Option<Complete<'b>> {
        let payload = if frame.is_whole(piece) {
            Payload::Fed(piece)
        } else {
            let unfinished = self.unfinished.get_or_insert_default();
            unfinished.control.extend(piece);
            if frame.missing > 0 {
                return None;
            }
            Payload::Assembled(take(&mut unfinished.control))
        };
        Some(Complete { opcode: frame.head.opcode, compressed: false, payload })
    }

    /// Takes in a piece of a fragment, or the whole of a message.
    fn data<'b>(&mut self, frame: Arriving, piece: &'b [u8]) -> Result<Option<Complete<'b>>, Fault> {
        let Head { opcode, compressed, last, .. } = frame.head;
        if piece.is_empty() && frame.missing > 0 {
            // Only the head is here: the payload may yet come in one piece.
            return Ok(None);
        }
        if last && opcode != Opcode::Continuation && frame.is_whole(piece) {
            return Ok(Some(Complete { opcode, compressed, payload: Payload::Fed(piece) }));
        }
        let place = &mut self.unfinished.get_or_insert_default().message;
        let message = place.get_or_insert_with(|| Message::begin(opcode, compressed));
        message.extend(piece, self.limits.wire_bytes_max(compressed))?;
        let ended = last && frame.missing == 0;
        Ok(if ended { place.take().map(Message::end) } else { None })
    }

    /// Keeps a frame that is not here in full; else gives back whatever is no longer needed.
    fn settle(&mut self, frame: Arriving) {
        if frame.missing > 0 {
            self.unfinished.get_or_insert_default().frame = Some(frame);
        } else {
            self.unfinished.take_if(|unfinished| unfinished.message.is_none());
        }
    }
}

impl Arriving {
    /// Whether this piece of its payload is all of it.
    fn is_whole(&self, piece: &[u8]) -> bool {
        self.missing == 0 && self.arrived == piece.len()
    }
}

/// Splits off up to `bytes` bytes.
fn take_front<'b>(input: &mut &'b mut [u8], bytes: usize) -> &'b mut [u8] {
    let bytes = bytes.min(input.len());
    let (front, rest) = take(input).split_at_mut(bytes);
    *input = rest;
    front
}
