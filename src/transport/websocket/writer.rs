//! Frames of the server: never masked, never fragmented, hence the same bytes for everyone.
//!
//! It knows no connection: whoever holds a frame may send it to any number of peers.

use bytes::{BufMut, Bytes, BytesMut};

use super::Opcode;
use super::frame::CONTROL_BYTES_MAX;

/// The longest head that a server writes.
const HEAD_BYTES_MAX: usize = 10;

/// The longest reason that fits into a close frame beside its code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// Compressed by [`Deflater`](super::deflate::Deflater), for peers that negotiated it.
    Deflated,
}

/// The head of a frame, for a payload that is sent as a piece of its own.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    length: u8,
}

impl Head {
    /// The head of a whole message, or control frame, of `payload_bytes` bytes as they go over the wire.
    pub fn new(opcode: Opcode, packing: Packing, payload_bytes: usize) -> Self {
        let first = 0x80 | if packing == Packing::Deflated { 0x40 } else { 0 } | opcode as u8;
        let (short, long_bytes) = match payload_bytes {
            0..126 => (payload_bytes as u8, 0),
            126..0x1_0000 => (126, 2),
            _ => (127, 8),
        };
        let mut bytes = [0; HEAD_BYTES_MAX];
        let mut rest = bytes.as_mut_slice();
        rest.put_slice(&[first, short]);
        rest.put_uint(if long_bytes == 0 { 0 } else { payload_bytes as u64 }, long_bytes);
        Head { bytes, length: 2 + long_bytes as u8 }
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

/// A whole frame in one allocation.
pub fn frame(opcode: Opcode, packing: Packing, payload: &[u8]) -> Bytes {
    let head = Head::new(opcode, packing, payload.len());
    let mut frame = BytesMut::with_capacity(head.as_ref().len() + payload.len());
    frame.put_slice(head.as_ref());
    frame.put_slice(payload);
    frame.freeze()
}

/// A ping; of its payload at most 125 bytes are taken.
pub fn ping(payload: &[u8]) -> Bytes {
    control(Opcode::Ping, payload)
}

/// The answer to a ping, with the ping's payload; of which at most 125 bytes are taken.
pub fn pong(payload: &[u8]) -> Bytes {
    control(Opcode::Pong, payload)
}

/// A close frame. The reason is cut between characters at [`CLOSE_REASON_BYTES_MAX`] bytes.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let mut frame = BytesMut::with_capacity(4 + reason.len());
    frame.put_slice(Head::new(Opcode::Close, Packing::Plain, 2 + reason.len()).as_ref());
    frame.put_u16(code);
    frame.put_slice(reason);
    frame.freeze()
}

/// The answer to a close frame without a code.
pub fn close_without_code() -> Bytes {
    Bytes::from_static(&[0x88, 0])
}

fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    frame(opcode, Packing::Plain, payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_fewest_bytes() {
        let head = |length| Head::new(Opcode::Binary, Packing::Plain, length).as_ref().to_vec();
        assert_eq!(head(0), [0x82, 0]);
        assert_eq!(head(125), [0x82, 125]);
        assert_eq!(head(126), [0x82, 126, 0, 126]);
        assert_eq!(head(65_535), [0x82, 126, 0xFF, 0xFF]);
        assert_eq!(head(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn the_compressed_bit_stands_beside_the_opcode() {
        assert_eq!(frame(Opcode::Text, Packing::Deflated, b"ab")[..], [0xC1, 2, b'a', b'b']);
        assert_eq!(frame(Opcode::Text, Packing::Plain, b"ab")[..], [0x81, 2, b'a', b'b']);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let reason = format!("{}€", "a".repeat(121));
        let frame = close(1000, &reason);
        assert_eq!(frame[..4], [0x88, 123, 0x03, 0xE8]);
        assert_eq!(frame[4..], *"a".repeat(121).as_bytes());
        assert_eq!(close(1000, &"a".repeat(200)).len(), 2 + CONTROL_BYTES_MAX);
        assert_eq!(close(1001, "")[..], [0x88, 2, 0x03, 0xE9]);
        assert_eq!(close_without_code()[..], [0x88, 0]);
    }

    #[test]
    fn control_frames_never_outgrow_the_protocol() {
        assert_eq!(ping(&[7; 300])[..3], [0x89, 125, 7]);
        assert_eq!(pong(&[7; 300]).len(), 2 + CONTROL_BYTES_MAX);
        assert_eq!(pong(b"hi")[..], [0x8A, 2, b'h', b'i']);
    }
}
