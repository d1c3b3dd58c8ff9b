//! What a peer may not send, each with what MQTT 5.0 calls it and with how it can be told.

use super::{LIMITS, read_one};
use crate::protocol::mqtt::decode::{FILTERS_MAX, Sender};
use crate::protocol::mqtt::packet::Version;
use crate::protocol::mqtt::reader::{CLIENT_ID_BYTES_MAX, Fault, Reader};
use crate::protocol::mqtt::reason::ReasonCode::{self, *};
use crate::protocol::mqtt::wire::put_variable_integer;
use crate::protocol::mqtt::writer::{Unwritable, encode};

const V31: Version = Version::V31;
const V311: Version = Version::V311;
const V5: Version = Version::V5;

/// Why a first packet is refused.
fn refused(bytes: &[u8]) -> Fault {
    Reader::of_client(LIMITS).next(&mut &bytes[..]).unwrap_err()
}

#[test]
fn first_packets() {
    let table: [(&[u8], ReasonCode, Option<Version>); 33] = [
        // Not CONNECT.
        (b"\x30", ProtocolError, None),
        (b"\xc0\0", ProtocolError, None),
        (b"\x00", MalformedPacket, None),
        (b"\xf0", ProtocolError, None),
        (b"\x11", MalformedPacket, None),
        (b"GET / HTTP/1.1", ProtocolError, None),
        (b"\x10\xff\xff\xff\xff", MalformedPacket, None),
        // Another protocol, another level.
        (b"\x10\0", MalformedPacket, None),
        (b"\x10\x03\0\x04M", MalformedPacket, None),
        (b"\x10\x06\0\x04MQTT", MalformedPacket, None),
        (b"\x10\x07\0\x04mqtt\x04", UnsupportedProtocolVersion, None),
        (b"\x10\x08\0\x05MQTT5\x05", UnsupportedProtocolVersion, None),
        (b"\x10\x07\0\x04MQTT\x03", UnsupportedProtocolVersion, Some(V311)),
        (b"\x10\x07\0\x04MQTT\x00", UnsupportedProtocolVersion, Some(V311)),
        (b"\x10\x07\0\x04MQTT\x06", UnsupportedProtocolVersion, Some(V5)),
        (b"\x10\x07\0\x04MQTT\x84", UnsupportedProtocolVersion, Some(V311)),
        (b"\x10\x09\0\x06MQIsdp\x04", UnsupportedProtocolVersion, Some(V311)),
        (b"\x10\x09\0\x06MQIsdp\x05", UnsupportedProtocolVersion, Some(V5)),
        // Flags.
        (b"\x10\x0d\0\x04MQTT\x04\x03\0\x3c\0\x01a", MalformedPacket, Some(V311)),
        (b"\x10\x0e\0\x04MQTT\x05\x03\0\x3c\0\0\x01a", MalformedPacket, Some(V5)),
        (b"\x10\x0d\0\x04MQTT\x04\x0a\0\x3c\0\x01a", MalformedPacket, Some(V311)),
        (b"\x10\x0e\0\x04MQTT\x05\x22\0\x3c\0\0\x01a", MalformedPacket, Some(V5)),
        (b"\x10\x12\0\x04MQTT\x04\x1e\0\x3c\0\x01a\0\x01w\0\0", MalformedPacket, Some(V311)),
        (b"\x10\x10\0\x04MQTT\x04\x42\0\x3c\0\x01a\0\x01p", MalformedPacket, Some(V311)),
        // Client ids.
        (b"\x10\x0c\0\x04MQTT\x04\x00\0\x3c\0\0", ClientIdentifierNotValid, Some(V311)),
        (b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0", ClientIdentifierNotValid, Some(V31)),
        (b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01\0", MalformedPacket, Some(V5)),
        // A will to nowhere.
        (b"\x10\x12\0\x04MQTT\x04\x06\0\x3c\0\x01a\0\x01#\0\0", TopicNameInvalid, Some(V311)),
        (b"\x10\x13\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0\0\0\0\0", TopicNameInvalid, Some(V5)),
        // Shorter than its fields: user name, properties; longer.
        (b"\x10\x0d\0\x04MQTT\x04\x82\0\x3c\0\x01a", MalformedPacket, Some(V311)),
        (b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\x02", MalformedPacket, Some(V5)),
        (b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\x09\0\x01a", MalformedPacket, Some(V5)),
        (b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x01ab", MalformedPacket, Some(V311)),
    ];
    for (bytes, reason, version) in table {
        let fault = refused(bytes);
        assert_eq!((fault.reason, fault.version), (reason, version), "{bytes:02x?}: {}", fault.sentence);
        assert!(fault.sentence.len() <= 123);
    }
}

#[test]
fn a_client_id_is_bounded() {
    for (length, is_read) in [(CLIENT_ID_BYTES_MAX, true), (CLIENT_ID_BYTES_MAX + 1, false)] {
        let id = "x".repeat(length);
        let body = [&b"\0\x04MQTT\x04\x02\0\x3c"[..], &(length as u16).to_be_bytes(), id.as_bytes()].concat();
        let mut packet = vec![0x10];
        put_variable_integer(&mut packet, body.len() as u32);
        packet.extend_from_slice(&body);
        let read = Reader::of_client(LIMITS).next(&mut packet.as_slice());
        assert_eq!(
            read.map(drop).map_err(|fault| fault.reason),
            if is_read { Ok(()) } else { Err(ClientIdentifierNotValid) }
        );
    }
}

#[test]
fn kinds_and_flags() {
    refused_from_client(&[
        (V5, b"\x00", MalformedPacket),
        (V311, b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a", ProtocolError),
        (V5, b"\x20", ProtocolError),
        (V5, b"\x90", ProtocolError),
        (V5, b"\xb0", ProtocolError),
        (V5, b"\xd0", ProtocolError),
        (V311, b"\xf0", ProtocolError),
        (V31, b"\xf0", ProtocolError),
        (V311, b"\xc1", MalformedPacket),
        (V5, b"\xe2", MalformedPacket),
        (V5, b"\x41", MalformedPacket),
        (V311, b"\x60", MalformedPacket),
        (V311, b"\x80", MalformedPacket),
        (V311, b"\x8a", MalformedPacket),
        (V31, b"\x80", MalformedPacket),
        (V31, b"\x84", MalformedPacket),
        (V5, b"\xa0", MalformedPacket),
        (V5, b"\xa3", MalformedPacket),
        (V5, b"\xc0\x80\x80\x80\x80", MalformedPacket),
        (V311, b"\xc0\x80\x80\x80\x80", MalformedPacket),
    ]);
}

#[test]
fn publishes() {
    refused_from_client(&[
        (V31, b"\x36", MalformedPacket),
        (V311, b"\x36", MalformedPacket),
        (V5, b"\x3f", MalformedPacket),
        (V311, b"\x38", MalformedPacket),
        (V5, b"\x39", MalformedPacket),
        (V311, b"\x30\0", MalformedPacket),
        (V311, b"\x30\x02\0\x01", MalformedPacket),
        (V311, b"\x32\x03\0\x01a", MalformedPacket),
        (V311, b"\x32\x05\0\x01a\0\0", ProtocolError),
        (V5, b"\x34\x06\0\x01a\0\0\0", ProtocolError),
        (V311, b"\x30\x02\0\0", TopicNameInvalid),
        (V5, b"\x30\x03\0\0\0", ProtocolError),
        (V311, b"\x30\x03\0\x01#", TopicNameInvalid),
        (V5, b"\x30\x06\0\x03a/+\0", TopicNameInvalid),
        (V311, b"\x30\x03\0\x01\0", MalformedPacket),
        (V311, b"\x30\x05\0\x03\xed\xa0\x80", MalformedPacket),
        (V5, b"\x30\x03\0\x01a", MalformedPacket),
        (V5, b"\x30\x04\0\x01a\x05", MalformedPacket),
        (V5, b"\x30\x06\0\x01a\x02\x0b\x01", ProtocolError),
    ]);
}

#[test]
fn answers() {
    refused_from_client(&[
        (V311, b"\x40\x01\0", MalformedPacket),
        (V311, b"\x40\x02\0\0", ProtocolError),
        (V311, b"\x40\x03\0\x01\0", MalformedPacket),
        (V5, b"\x50\x03\0\x01\x01", ProtocolError),
        (V5, b"\x62\x03\0\x01\x10", ProtocolError),
        (V5, b"\x70\x03\0\x01\xff", ProtocolError),
        (V5, b"\x40\x05\0\x01\0\0\0", MalformedPacket),
    ]);
}

#[test]
fn subscribes_and_unsubscribes() {
    refused_from_client(&[
        (V311, b"\x82\0", MalformedPacket),
        (V311, b"\x82\x02\0\x01", ProtocolError),
        (V5, b"\x82\x03\0\x01\0", ProtocolError),
        (V311, b"\x82\x06\0\0\0\x01a\0", ProtocolError),
        (V311, b"\x82\x05\0\x01\0\x01a", MalformedPacket),
        (V311, b"\x82\x06\0\x01\0\x01a\x04", MalformedPacket),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x40", MalformedPacket),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x80", MalformedPacket),
        (V31, b"\x82\x06\0\x01\0\x01a\x03", ProtocolError),
        (V311, b"\x82\x06\0\x01\0\x01a\x03", ProtocolError),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x03", ProtocolError),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x30", ProtocolError),
        (V5, b"\x82\x10\0\x01\0\0\x0a$share/g/a\x05", ProtocolError),
        (V311, b"\xa2\x02\0\x01", ProtocolError),
        (V311, b"\xa2\x05\0\0\0\x01a", ProtocolError),
        (V5, b"\xa2\x03\0\x01\0", ProtocolError),
        (V5, b"\xa2\x06\0\x01\0\0\x02a", MalformedPacket),
    ]);
}

#[test]
fn the_rest() {
    refused_from_client(&[
        (V5, b"\xc0\x01\0", MalformedPacket),
        (V311, b"\xe0\x01\0", MalformedPacket),
        (V5, b"\xe0\x01\x01", ProtocolError),
        (V5, b"\xe0\x03\0\0\0", MalformedPacket),
        (V5, b"\xe0\x02\0\x05", MalformedPacket),
        (V5, b"\xf0\x01\0", MalformedPacket),
        (V5, b"\xf0\x02\0\0", ProtocolError),
        (V5, b"\xf0\x06\x01\x04\x15\0\x01m", ProtocolError),
    ]);
}

#[track_caller]
fn refused_from_client(table: &[(Version, &[u8], ReasonCode)]) {
    for &(version, bytes, reason) in table {
        let fault = read_one(Sender::Client, version, bytes).unwrap_err();
        assert_eq!((fault.reason, fault.version), (reason, Some(version)), "{bytes:02x?}: {}", fault.sentence);
    }
}

#[test]
fn packets_of_a_server() {
    let table: [(Version, &[u8], ReasonCode); 21] = [
        (V5, b"\x10", ProtocolError),
        (V5, b"\x82", ProtocolError),
        (V5, b"\xa2", ProtocolError),
        (V5, b"\xc0", ProtocolError),
        (V311, b"\xe0\0", ProtocolError),
        (V31, b"\xf0\0", ProtocolError),
        (V311, b"\x20\x02\x02\0", MalformedPacket),
        (V5, b"\x20\x03\x80\0\0", MalformedPacket),
        (V311, b"\x20\x02\x01\x05", ProtocolError),
        (V311, b"\x20\x02\0\x06", ProtocolError),
        (V5, b"\x20\x03\0\x01\0", ProtocolError),
        (V5, b"\x20\x03\x01\x87\0", ProtocolError),
        (V5, b"\x20\x02\0\0", MalformedPacket),
        (V311, b"\x20\x03\0\0\0", MalformedPacket),
        (V311, b"\x90\x02\0\x01", ProtocolError),
        (V311, b"\x90\x03\0\0\0", ProtocolError),
        (V311, b"\x90\x03\0\x01\x03", ProtocolError),
        (V311, b"\x90\x03\0\x01\x87", ProtocolError),
        (V5, b"\x90\x04\0\x01\0\x11", ProtocolError),
        (V5, b"\xb0\x03\0\x01\0", ProtocolError),
        (V311, b"\xb0\x03\0\x01\0", MalformedPacket),
    ];
    for (version, bytes, reason) in table {
        let fault = read_one(Sender::Server, version, bytes).unwrap_err();
        assert_eq!((fault.reason, fault.version), (reason, Some(version)), "{bytes:02x?}: {}", fault.sentence);
    }
}

#[test]
fn filters_are_bounded() {
    for (count, expected) in [(FILTERS_MAX, Ok(())), (FILTERS_MAX + 1, Err(QuotaExceeded))] {
        let filters = b"\0\x01a\x01".repeat(count);
        let mut packet = vec![0x82];
        put_variable_integer(&mut packet, 2 + filters.len() as u32);
        packet.extend_from_slice(b"\0\x01");
        packet.extend_from_slice(&filters);
        let read = read_one(Sender::Client, V311, &packet);
        assert_eq!(read.map(drop).map_err(|fault| fault.reason), expected);
    }
}

#[test]
fn faults_are_told_in_the_words_of_their_version() {
    let connack = |bytes| {
        let fault = refused(bytes);
        fault.version.map(|version| encode(&fault.connack(), version))
    };
    // A version that is not spoken: by 3.1.1 a return code, by 5.0 a reason with a sentence.
    assert_eq!(connack(b"\x10\x07\0\x04MQTT\x03"), Some(Ok(b"\x20\x02\0\x01"[..].into())));
    let answer = connack(b"\x10\x07\0\x04MQTT\x06").unwrap().unwrap();
    assert!(answer.starts_with(b"\x20\x4d\0\x84\x4a\x1f\0\x47this server speaks"), "{answer:02x?}");
    assert_eq!(connack(b"\x10\x0c\0\x04MQTT\x04\x00\0\x3c\0\0"), Some(Ok(b"\x20\x02\0\x02"[..].into())));
    // What is malformed has no return code in 3.1.1, and what is no MQTT no version.
    assert_eq!(connack(b"\x10\x0d\0\x04MQTT\x04\x03\0\x3c\0\x01a"), Some(Err(Unwritable::NoSuchPacket)));
    assert_eq!(connack(b"\x10\x07\0\x04mqtt\x04"), None);

    let fault = read_one(Sender::Client, V5, b"\x36").unwrap_err();
    let disconnect = encode(&fault.disconnect(), V5).unwrap();
    assert_eq!(disconnect, b"\xe0\x17\x81\x15\x1f\0\x12PUBLISH with QoS 3"[..]);
    let fault = read_one(Sender::Client, V311, b"\x36").unwrap_err();
    assert_eq!(encode(&fault.disconnect(), V311), Err(Unwritable::NoSuchPacket));
    // CONNACK has no word for an alias.
    let fault = read_one(Sender::Client, V5, b"\x30\x07\0\x01a\x03\x23\0\0").unwrap_err();
    assert_eq!(fault.reason, TopicAliasInvalid);
    assert!(encode(&fault.connack(), V5).unwrap().get(3) == Some(&ProtocolError.number()));
}
