//! The head of a client's frame (RFC 6455, section 5.2) and its mask (section 5.3).
//!
//! What is judged here can be judged by the head alone. It knows no message, no limit but the protocol's own and
//! nothing of what came before.

use super::Fault;

/// The largest payload of a control frame (RFC 6455, section 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// The longest head: two bytes, a length of eight, a mask of four.
pub(super) const HEAD_BYTES_MAX: usize = 14;

/// What a frame is (RFC 6455, section 11.8). The discriminant is the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The start of, or the answer in, the closing handshake.
    Close = 0x8,
    /// A question whether the peer lives.
    Ping = 0x9,
    /// The answer to a ping, or an unasked sign of life.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of a number; `None` for those that are reserved.
    const fn parse(number: u8) -> Option<Self> {
        match number {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xA => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// Whether it is a control frame: short, whole, and free to stand between fragments.
    pub const fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// The head of a frame from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether it is the last, or only, fragment of its message.
    pub(super) last: bool,
    /// RSV1: the message is compressed.
    pub(super) compressed: bool,
    /// What the frame is.
    pub(super) opcode: Opcode,
    /// Bytes of payload, as announced; nothing may be reserved for them before this has been checked.
    pub(super) payload_bytes: u64,
    /// The mask of the payload.
    pub(super) mask: [u8; 4],
}

impl Head {
    /// Reads a head from the front of `bytes` and says how long it is; `None` when there is more to come.
    ///
    /// # Errors
    ///
    /// 1002 as soon as the bytes that are there cannot begin a valid frame.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::parse(first & 0x0F).ok_or(Fault::protocol("reserved opcode"))?;
        let last = first & 0x80 != 0;
        let short_length = second & 0x7F;
        if first & 0x30 != 0 {
            return Err(Fault::protocol("reserved bit set without an extension that gives it a meaning"));
        }
        if second & 0x80 == 0 {
            return Err(Fault::protocol("frames from a client must be masked"));
        }
        if opcode.is_control() && !last {
            return Err(Fault::protocol("a control frame must not be fragmented"));
        }
        if opcode.is_control() && usize::from(short_length) > CONTROL_BYTES_MAX {
            return Err(Fault::protocol("a control frame carries at most 125 bytes"));
        }
        let Some((payload_bytes, rest)) = length(short_length, rest)? else { return Ok(None) };
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        let head = Head { last, compressed: first & 0x40 != 0, opcode, payload_bytes, mask: *mask };
        Ok(Some((head, bytes.len() - rest.len() + mask.len())))
    }
}

/// The payload's length and what follows it; `None` when there is more to come.
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Fault> {
    let (length, rest, least) = match short {
        126 => match bytes.split_first_chunk::<2>() {
            Some((long, rest)) => (u64::from(u16::from_be_bytes(*long)), rest, 126),
            None => return Ok(None),
        },
        127 => match bytes.split_first_chunk::<8>() {
            Some((long, rest)) => (u64::from_be_bytes(*long), rest, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), bytes, 0),
    };
    if length < least {
        return Err(Fault::protocol("a length must be written in the fewest bytes"));
    }
    if length > i64::MAX.unsigned_abs() {
        return Err(Fault::protocol("the highest bit of a length must be 0"));
    }
    Ok(Some((length, rest)))
}

/// Takes the mask off `payload`, whose first byte is number `position` of its frame's payload.
///
/// Whole words first: the compiler makes vector instructions of that loop.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4], position: usize) {
    let mut turned = mask;
    turned.rotate_left(position % 4);
    let [a, b, c, d] = turned;
    let mask_bytes = [a, b, c, d, a, b, c, d];
    let mask_word = u64::from_ne_bytes(mask_bytes);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ mask_word).to_ne_bytes();
    }
    for (byte, mask_byte) in rest.iter_mut().zip(mask_bytes) {
        *byte ^= mask_byte;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_is_complete_only_with_its_mask() {
        let wire = [0x81, 0xFE, 0x01, 0x00, 1, 2, 3, 4, b'x'];
        for short in 0..8 {
            assert_eq!(Head::parse(&wire[..short]), Ok(None), "{short} bytes");
        }
        let (head, bytes) = Head::parse(&wire).unwrap().unwrap();
        assert_eq!((head.payload_bytes, head.mask, bytes), (256, [1, 2, 3, 4], 8));
        assert!(head.last && !head.compressed);
    }

    #[test]
    fn lengths_must_take_the_fewest_bytes() {
        assert!(Head::parse(&[0x82, 0xFE, 0, 125, 0, 0, 0, 0]).is_err());
        assert!(Head::parse(&[0x82, 0xFE, 0, 126, 0, 0, 0, 0]).unwrap().is_some());
        assert!(Head::parse(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]).is_err());
        assert!(Head::parse(&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap().is_some());
        assert!(Head::parse(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn only_six_opcodes_exist() {
        for number in 0..16 {
            let known = Head::parse(&[0x80 | number, 0x80, 0, 0, 0, 0]).is_ok();
            assert_eq!(known, [0, 1, 2, 8, 9, 10].contains(&number), "opcode {number}");
        }
    }

    proptest! {
        #[test]
        fn unmasking_in_pieces_equals_the_definition(
            payload in proptest::collection::vec(any::<u8>(), 0..200), mask: [u8; 4], cut in 0_usize..200,
        ) {
            let expected: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            let cut = cut.min(payload.len());
            let mut actual = payload;
            let (left, right) = actual.split_at_mut(cut);
            unmask(left, mask, 0);
            unmask(right, mask, cut);
            prop_assert_eq!(actual, expected);
        }
    }
}
