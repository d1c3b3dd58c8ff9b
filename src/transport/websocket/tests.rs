//! What the reader owes whoever feeds it, however the bytes are cut and whatever they are. The rules of the protocol,
//! one by one, stand in [`conformance`]; the comparison with another implementation in [`oracle`].

mod conformance;
mod oracle;

use proptest::prelude::*;

use super::deflate::{Deflater, Negotiated};
use super::reader::{Limits, Reader, Received, Scratch};
use super::{Fault, Opcode};

/// Limits that most tests stay below.
const ROOMY: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 1000 };

/// A [`Received`] that owns what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Received<'_>> for Got {
    fn from(received: Received<'_>) -> Self {
        match received {
            Received::Text(text) => Got::Text(text.to_owned()),
            Received::Binary(bytes) => Got::Binary(bytes.to_vec()),
            Received::Ping(payload) => Got::Ping(payload.to_vec()),
            Received::Pong(payload) => Got::Pong(payload.to_vec()),
            Received::Close { code, reason } => Got::Close(code, reason.to_owned()),
        }
    }
}

/// What permessage-deflate is when it was negotiated.
fn negotiated() -> Option<Negotiated> {
    Negotiated::from_offers(["permessage-deflate"].into_iter())
}

/// A frame as a client writes it: any first byte, the shortest length, a mask.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut wire = vec![first];
    match payload.len() {
        length @ 0..126 => wire.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            wire.push(0x80 | 126);
            wire.extend((length as u16).to_be_bytes());
        }
        length => {
            wire.push(0x80 | 127);
            wire.extend((length as u64).to_be_bytes());
        }
    }
    wire.extend(mask);
    wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    wire
}

/// Feeds the pieces one after the other, up to the first fault.
fn read<'a>(mut reader: Reader, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Got>, Option<Fault>) {
    let mut scratch = Scratch::default();
    let mut got = Vec::new();
    for piece in pieces {
        let mut buffer = piece.to_vec();
        let mut input = buffer.as_mut_slice();
        loop {
            match reader.next(&mut input, &mut scratch) {
                Ok(Some(received)) => got.push(received.into()),
                Ok(None) => break,
                Err(fault) => return (got, Some(fault)),
            }
        }
        assert!(input.is_empty(), "a reader that wants more has used up what it was given");
    }
    (got, None)
}

/// Cuts `wire` before each of these positions, taken modulo its length.
fn cut_at<'a>(wire: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % wire.len().max(1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect()
}

/// A message or control frame on its way.
#[derive(Debug, Clone)]
struct Sending {
    got: Got,
    compressed: bool,
    /// Where a message is cut into fragments, modulo its length.
    cuts: Vec<usize>,
    /// A ping after each fragment but the last, if any.
    between: Option<Vec<u8>>,
}

impl Sending {
    /// Appends the frames, and what the reader should make of them.
    fn write(&self, deflater: &mut Deflater, wire: &mut Vec<u8>, expected: &mut Vec<Got>) {
        let (opcode, payload) = match &self.got {
            Got::Text(text) => (Opcode::Text, text.as_bytes()),
            Got::Binary(bytes) => (Opcode::Binary, bytes.as_slice()),
            Got::Ping(payload) => return self.write_control(Opcode::Ping, payload, wire, expected),
            Got::Pong(payload) => return self.write_control(Opcode::Pong, payload, wire, expected),
            Got::Close(..) => unreachable!("no close is generated"),
        };
        let deflated = if self.compressed { deflater.compress(payload, 6) } else { None };
        let fragments = cut_at(deflated.unwrap_or(payload), &self.cuts);
        let mut first = opcode as u8 | if deflated.is_some() { 0x40 } else { 0 };
        for (number, fragment) in fragments.iter().enumerate() {
            let last = number + 1 == fragments.len();
            wire.extend(frame(first | if last { 0x80 } else { 0 }, fragment));
            first = 0;
            if let (Some(ping), false) = (&self.between, last) {
                self.write_control(Opcode::Ping, ping, wire, expected);
            }
        }
        expected.push(self.got.clone());
    }

    fn write_control(&self, opcode: Opcode, payload: &[u8], wire: &mut Vec<u8>, expected: &mut Vec<Got>) {
        wire.extend(frame(0x80 | opcode as u8, payload));
        expected.push(match opcode {
            Opcode::Pong => Got::Pong(payload.to_vec()),
            _ => Got::Ping(payload.to_vec()),
        });
    }
}

fn sending() -> impl Strategy<Value = Sending> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let got = prop_oneof![
        3 => ".{0,60}".prop_map(Got::Text),
        1 => "(Grüße|κόσμε|🦀 ){0,60}".prop_map(Got::Text),
        2 => bytes(400).prop_map(Got::Binary),
        1 => (any::<u8>(), 0_usize..70_000).prop_map(|(byte, length)| Got::Binary(vec![byte; length])),
        1 => bytes(126).prop_map(Got::Ping),
        1 => bytes(126).prop_map(Got::Pong),
    ];
    let cuts = proptest::collection::vec(any::<usize>(), 0..4);
    (got, any::<bool>(), cuts, proptest::option::of(bytes(126))).prop_map(|(got, compressed, cuts, between)| Sending {
        got,
        compressed,
        cuts,
        between,
    })
}

proptest! {
    /// Neither fragments nor the way in which the network cuts the stream change what arrives.
    #[test]
    fn any_split_gives_the_same_messages(
        sendings in proptest::collection::vec(sending(), 0..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
    ) {
        let (mut wire, mut expected, mut deflater) = (Vec::new(), Vec::new(), Deflater::default());
        for sending in &sendings {
            sending.write(&mut deflater, &mut wire, &mut expected);
        }
        let (got, fault) = read(Reader::new(ROOMY, negotiated()), cut_at(&wire, &cuts));
        prop_assert_eq!(fault, None);
        prop_assert_eq!(got, expected);
    }

    /// Whatever comes, nothing panics, no message is larger than the limit, and neither is what is held.
    #[test]
    fn strangers_cannot_exceed_the_limits(
        pieces in proptest::collection::vec(hostile_piece(), 0..30),
        message_bytes_max in 0_usize..600,
        deflate: bool,
    ) {
        let limits = Limits { message_bytes_max, fragments_max: 5 };
        let mut reader = Reader::new(limits, negotiated().filter(|_| deflate));
        let mut scratch = Scratch::default();
        // The expansion that deflate may need, one control frame, and the box itself.
        let held_bytes_max = message_bytes_max * 9 / 8 + 64 + 125 + 14 + 256;
        for mut piece in pieces {
            let mut input = piece.as_mut_slice();
            loop {
                match reader.next(&mut input, &mut scratch) {
                    Ok(Some(Received::Text(text))) => prop_assert!(text.len() <= message_bytes_max),
                    Ok(Some(Received::Binary(bytes))) => prop_assert!(bytes.len() <= message_bytes_max),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(fault) => {
                        prop_assert!([1002, 1007, 1009].contains(&fault.reason.code()));
                        prop_assert!(fault.detail.len() <= 123);
                    }
                }
            }
            prop_assert!(reader.held_bytes() <= held_bytes_max, "{} bytes are held", reader.held_bytes());
        }
    }
}

/// Mostly frames that are nearly right, so that the reader gets beyond the first of them; else noise.
fn hostile_piece() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let opcodes = prop_oneof![4 => 0_u8..3, 1 => 8_u8..11, 1 => 0_u8..16];
    let flags = prop_oneof![3 => Just(0x00_u8), 3 => Just(0x80), 1 => Just(0x40), 1 => Just(0xC0), 1 => Just(0xB0)];
    let nearly = (opcodes, flags, bytes(200), any::<usize>()).prop_map(|(opcode, flags, payload, kept)| {
        let mut wire = frame(opcode | flags, &payload);
        if kept % 3 == 0 {
            wire.truncate(kept % wire.len());
        }
        wire
    });
    prop_oneof![4 => nearly, 1 => bytes(40)]
}

#[test]
fn an_idle_reader_is_small_and_holds_nothing() {
    assert!(size_of::<Reader>() <= 32, "{} bytes", size_of::<Reader>());
    let mut deflater = Deflater::default();
    let text = "Guten Morgen! ".repeat(100);
    let mut wire = frame(0xC1, deflater.compress(text.as_bytes(), 6).unwrap());
    wire.extend(frame(0x01, &text.as_bytes()[..700]));
    wire.extend(frame(0x89, b"in between"));
    wire.extend(frame(0x80, &text.as_bytes()[700..]));
    let mut reader = Reader::new(ROOMY, negotiated());
    let mut scratch = Scratch::default();
    let mut texts = 0;
    for byte in wire {
        let mut piece = [byte];
        let mut input = piece.as_mut_slice();
        while let Some(received) = reader.next(&mut input, &mut scratch).unwrap() {
            texts += usize::from(received == Received::Text(&text));
        }
    }
    assert_eq!(texts, 2);
    assert_eq!(reader.held_bytes(), 0, "once a message was handed out nothing of it stays");
}

#[test]
fn an_announced_length_reserves_nothing() {
    let limits = Limits { message_bytes_max: 64 << 20, fragments_max: 10 };
    let mut reader = Reader::new(limits, None);
    let mut wire = vec![0x82, 0xFF];
    wire.extend((64_u64 << 20).to_be_bytes());
    wire.extend([1, 2, 3, 4, 5]);
    assert_eq!(reader.next(&mut wire.as_mut_slice(), &mut Scratch::default()), Ok(None));
    assert!(reader.held_bytes() < 1024, "one byte of payload came, {} are held", reader.held_bytes());
}

#[test]
fn what_is_held_does_not_outgrow_the_limit() {
    let limits = Limits { message_bytes_max: 10_000, fragments_max: 10 };
    let mut reader = Reader::new(limits, None);
    let mut wire = frame(0x82, &[1; 10_000]);
    let (most, last) = wire.split_at_mut(9_000);
    for mut piece in most.chunks_mut(700) {
        assert_eq!(reader.next(&mut piece, &mut Scratch::default()), Ok(None));
        assert!(reader.held_bytes() <= 10_000 + 256, "{} bytes are held", reader.held_bytes());
    }
    let mut last = last;
    assert_eq!(reader.next(&mut last, &mut Scratch::default()), Ok(Some(Received::Binary(&[1; 10_000]))));
}

#[test]
fn a_message_in_one_piece_is_handed_out_in_place() {
    let mut wire = frame(0x82, b"stay where you are");
    let range = wire.as_ptr_range();
    let mut scratch = Scratch::default();
    let mut reader = Reader::new(ROOMY, None);
    let mut input = wire.as_mut_slice();
    let Ok(Some(Received::Binary(payload))) = reader.next(&mut input, &mut scratch) else { panic!("no message") };
    assert_eq!(payload, b"stay where you are");
    assert!(range.contains(&payload.as_ptr()));
}

#[test]
fn after_a_fault_everything_is_passed_over() {
    let mut scratch = Scratch::default();
    let mut reader = Reader::new(ROOMY, None);
    let mut wire = frame(0x83, b"no such opcode");
    assert!(reader.next(&mut wire.as_mut_slice(), &mut scratch).is_err());
    let mut wire = frame(0x81, b"too late");
    let mut input = wire.as_mut_slice();
    assert_eq!(reader.next(&mut input, &mut scratch), Ok(None));
    assert!(input.is_empty());
}
