//! Reader and writer against each other, against bytes that were put together by hand from the standards, and against
//! whatever may come.

mod arbitrary;
mod conversation;
mod known;
mod malformed;
mod placed;

use bytes::Bytes;
use proptest::prelude::*;

use self::arbitrary::{as_in, connects, packets, versions};
use super::decode::Sender;
use super::packet::{Packet, PacketKind, Version};
use super::reader::{Fault, Limits, Reader};
use super::reason::ReasonCode;
use super::writer::{Unwritable, encode};

const LIMITS: Limits = Limits { packet_bytes_max: 1 << 20, connect_bytes_max: 1 << 18 };

/// A reader that knows its version: for a client's packets because its CONNECT has come.
fn reader(sender: Sender, version: Version, limits: Limits) -> Reader {
    match sender {
        Sender::Server => Reader::of_server(limits, version),
        Sender::Client => {
            let mut reader = Reader::of_client(limits);
            let connect = known::connect(version);
            assert!(matches!(reader.next(&mut connect.as_slice()), Ok(Some(Packet::Connect(_)))));
            reader
        }
    }
}

/// Everything that a reader makes of these pieces, one after the other, and that it never holds more than it may.
fn read_all(reader: &mut Reader, pieces: &[&[u8]], bytes_max: usize) -> (Vec<Packet>, Option<Fault>) {
    let mut packets = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(reader.held_bytes(), 0, "nothing is kept after a fault");
                    assert!(fault.sentence.len() <= 123, "{}", fault.sentence);
                    return (packets, Some(fault));
                }
            }
            assert!(reader.held_bytes() <= bytes_max.max(8), "{} bytes are held", reader.held_bytes());
        }
        assert!(piece.is_empty(), "a reader takes all that it is given");
        assert!(reader.held_bytes() <= bytes_max.max(8), "{} bytes are held", reader.held_bytes());
    }
    (packets, None)
}

/// One packet and nothing else.
fn read_one(sender: Sender, version: Version, bytes: &[u8]) -> Result<Packet, Fault> {
    let mut reader = reader(sender, version, LIMITS);
    match read_all(&mut reader, &[bytes], LIMITS.packet_bytes_max) {
        (_, Some(fault)) => Err(fault),
        (mut packets, None) => {
            assert_eq!((packets.len(), reader.held_bytes()), (1, 0), "{bytes:02x?} is one packet");
            Ok(packets.remove(0))
        }
    }
}

/// Cuts bytes at these places, wherever they are beyond the end at the end.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        pieces.push(&bytes[start..place]);
        start = place;
    }
    pieces.push(&bytes[start..]);
    pieces
}

fn senders() -> impl Strategy<Value = Sender> {
    prop_oneof![Just(Sender::Client), Just(Sender::Server)]
}

/// Packets of one peer as bytes, and what they are in its version.
fn streams(sender: Sender, version: Version) -> impl Strategy<Value = (Vec<Packet>, Vec<u8>)> {
    prop::collection::vec(packets(sender), 0..8).prop_map(move |packets| {
        let packets: Vec<Packet> = packets.iter().filter_map(|packet| as_in(packet, version, sender)).collect();
        let bytes: Vec<Bytes> = packets.iter().map(|packet| encode(packet, version).unwrap()).collect();
        (packets, bytes.concat())
    })
}

fn conversations() -> impl Strategy<Value = (Sender, Version, Vec<Packet>, Vec<u8>)> {
    (senders(), versions()).prop_flat_map(|(sender, version)| {
        streams(sender, version).prop_map(move |(packets, bytes)| (sender, version, packets, bytes))
    })
}

proptest! {
    #[test]
    fn packets_are_read_as_they_were_written(
        version in versions(),
        (sender, packet) in senders().prop_flat_map(|sender| (Just(sender), packets(sender))),
    ) {
        match (encode(&packet, version), as_in(&packet, version, sender)) {
            (Ok(bytes), Some(expected)) => prop_assert_eq!(read_one(sender, version, &bytes), Ok(expected)),
            (Err(Unwritable::NoSuchPacket), None) => {}
            // The writer is not told who writes: a server's DISCONNECT is like a client's.
            (Ok(_), None) if packet.kind() == PacketKind::Disconnect => {}
            (written, expected) => prop_assert!(false, "{:?} and {:?}", written, expected),
        }
    }

    #[test]
    fn a_connect_is_read_as_it_was_written(connect in versions().prop_flat_map(connects)) {
        let bytes = encode(&Packet::Connect(Box::new(connect.clone())), connect.version).unwrap();
        let mut reader = Reader::of_client(LIMITS);
        let version = connect.version;
        prop_assert_eq!(reader.next(&mut &*bytes), Ok(Some(Packet::Connect(Box::new(connect)))));
        prop_assert_eq!(reader.version(), Some(version));
    }

    #[test]
    fn pieces_are_read_as_the_whole(
        (sender, version, packets, bytes) in conversations(),
        places in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let whole = read_all(&mut reader(sender, version, LIMITS), &[&bytes], LIMITS.packet_bytes_max);
        prop_assert_eq!(&whole, &(packets, None));
        let pieces = read_all(&mut reader(sender, version, LIMITS), &cut(&bytes, &places), LIMITS.packet_bytes_max);
        prop_assert_eq!(&whole, &pieces);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let bytewise = read_all(&mut reader(sender, version, LIMITS), &single, LIMITS.packet_bytes_max);
        prop_assert_eq!(&whole, &bytewise);
    }

    #[test]
    fn spoiled_packets_end_alike_however_they_are_cut(
        (sender, version, _, mut bytes) in conversations(),
        spoils in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        places in prop::collection::vec(any::<usize>(), 0..10),
        packet_bytes_max in prop_oneof![Just(64usize), Just(1 << 20)],
    ) {
        for (place, byte) in spoils {
            let length = bytes.len().max(1);
            if let Some(spoiled) = bytes.get_mut(place % length) {
                *spoiled = byte;
            }
        }
        let limits = Limits { packet_bytes_max, ..LIMITS };
        let whole = read_all(&mut reader(sender, version, limits), &[&bytes], packet_bytes_max);
        let pieces = read_all(&mut reader(sender, version, limits), &cut(&bytes, &places), packet_bytes_max);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(
        sender in senders(),
        version in versions(),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
        is_first in any::<bool>(),
    ) {
        let limits = Limits { packet_bytes_max: 100, connect_bytes_max: 50 };
        let mut reader = if is_first { Reader::of_client(limits) } else { reader(sender, version, Limits { packet_bytes_max: 100, ..LIMITS }) };
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let (packets, fault) = read_all(&mut reader, &pieces, 100);
        prop_assert!(packets.len() <= 180);
        if fault.is_some() {
            let mut rest: &[u8] = b"\xc0\x00";
            prop_assert_eq!(reader.next(&mut rest), Ok(None), "nothing is read after a fault");
            prop_assert!(rest.is_empty());
        }
    }
}

#[test]
fn a_large_packet_is_refused_by_its_header() {
    let limits = Limits { packet_bytes_max: 1000, connect_bytes_max: 100 };
    let refused = |mut reader: Reader, bytes: &[u8]| {
        let (packets, fault) = read_all(&mut reader, &[bytes], 1000);
        assert!(packets.is_empty());
        fault.map(|fault| (fault.reason, fault.version))
    };
    // A remaining length of 997 makes 1000 bytes, one of 998 makes 1001.
    assert_eq!(refused(reader(Sender::Client, Version::V5, LIMITS.with_packet(1000)), b"\x30\xe5\x07"), None);
    let fault = Some((ReasonCode::PacketTooLarge, Some(Version::V5)));
    assert_eq!(refused(reader(Sender::Client, Version::V5, LIMITS.with_packet(1000)), b"\x30\xe6\x07"), fault);
    assert_eq!(refused(Reader::of_client(limits), b"\x10\x62"), None);
    assert_eq!(refused(Reader::of_client(limits), b"\x10\x63"), Some((ReasonCode::PacketTooLarge, None)));
}

#[test]
fn nothing_is_kept_for_a_length_that_was_only_announced() {
    let mut reader = reader(Sender::Client, Version::V311, LIMITS);
    let (mut head, mut arrived): (&[u8], usize) = (b"\x30\xfc\xff\x3f\0\x01a", 0);
    while !head.is_empty() {
        assert_eq!(reader.next(&mut head), Ok(None));
    }
    for _ in 0..1000 {
        assert_eq!(reader.next(&mut &[b'x'; 100][..]), Ok(None));
        arrived += 100;
        assert!(reader.held_bytes() <= 2 * (arrived + 64), "{} held of {arrived}", reader.held_bytes());
    }
    let mut last = vec![b'x'; (1 << 20) - arrived - 7].into_boxed_slice();
    last[0] = b'y';
    let mut rest: &[u8] = &last;
    let Ok(Some(Packet::Publish(publish))) = reader.next(&mut rest) else { panic!("the packet is whole") };
    assert_eq!((publish.payload.len(), publish.payload[arrived]), ((1 << 20) - 7, b'y'));
    assert_eq!((rest.len(), reader.held_bytes()), (0, 0));
}

#[test]
fn many_small_packets_of_one_message_are_read_where_they_lie() {
    let flood = [0xc0, 0x00].repeat(100_000);
    let mut reader = reader(Sender::Client, Version::V5, LIMITS);
    let mut input: &[u8] = &flood;
    for read in 1..=100_000 {
        assert_eq!(reader.next(&mut input), Ok(Some(Packet::Pingreq)));
        // The rest of the message neither moves nor is kept.
        assert_eq!(input.as_ptr(), flood[2 * read..].as_ptr());
        assert_eq!(reader.held_bytes(), 0);
    }
}

#[test]
fn every_kind_has_its_number() {
    for kind in PacketKind::ALL {
        assert_eq!(PacketKind::from_number(kind as u8), Some(kind));
    }
    assert_eq!(PacketKind::from_number(0), None);
    assert_eq!(PacketKind::from_number(16), None);
}

#[test]
fn reason_codes_are_those_of_the_table() {
    for reason in ReasonCode::ALL {
        assert_eq!(ReasonCode::from_number(reason.number()), Some(*reason));
        assert!(!reason.kinds().is_empty() && !reason.name().is_empty());
        assert!(reason.return_code().is_none_or(|code| code <= 5));
    }
    assert!(ReasonCode::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    // MQTT 5.0 §3.4.2.1, §3.9.3, §3.2.2.2: how many codes each table has.
    let count = |kind| ReasonCode::ALL.iter().filter(|reason| reason.kinds().contains(&kind)).count();
    assert_eq!((count(PacketKind::Puback), count(PacketKind::Pubrec)), (9, 9));
    assert_eq!((count(PacketKind::Pubrel), count(PacketKind::Pubcomp)), (2, 2));
    assert_eq!((count(PacketKind::Suback), count(PacketKind::Unsuback)), (12, 7));
    assert_eq!((count(PacketKind::Connack), count(PacketKind::Auth)), (22, 3));
    for code in 0..=5 {
        assert_eq!(ReasonCode::from_return_code(code).and_then(ReasonCode::return_code), Some(code));
    }
}

impl Limits {
    fn with_packet(self, packet_bytes_max: usize) -> Self {
        Self { packet_bytes_max, ..self }
    }
}
