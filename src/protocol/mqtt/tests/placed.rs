//! Every property in every packet: taken where table 2-4 of MQTT 5.0 says so, and once, but for those that may repeat.

use super::read_one;
use crate::protocol::mqtt::decode::Sender;
use crate::protocol::mqtt::packet::Version;
use crate::protocol::mqtt::properties::USER_PROPERTIES_MAX;
use crate::protocol::mqtt::reader::Reader;
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::{put_variable_integer, variable_integer_length};

/// Where properties stand; of PUBLISH and DISCONNECT by who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Connect,
    Will,
    Connack,
    ClientPublish,
    ServerPublish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    ClientDisconnect,
    ServerDisconnect,
    Auth,
}

use Place::*;

const PLACES: [Place; 16] = [
    Connect,
    Will,
    Connack,
    ClientPublish,
    ServerPublish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    ClientDisconnect,
    ServerDisconnect,
    Auth,
];

/// Table 2-4: identifier, a value, where it may stand.
const TABLE: [(u8, &[u8], &[Place]); 27] = [
    (0x01, b"\x01", &[ClientPublish, ServerPublish, Will]),
    (0x02, b"\0\0\0\x01", &[ClientPublish, ServerPublish, Will]),
    (0x03, b"\0\x01a", &[ClientPublish, ServerPublish, Will]),
    (0x08, b"\0\x01a", &[ClientPublish, ServerPublish, Will]),
    (0x09, b"\0\x01\xff", &[ClientPublish, ServerPublish, Will]),
    (0x0b, b"\xff\xff\xff\x7f", &[ServerPublish, Subscribe]),
    (0x11, b"\0\0\0\x01", &[Connect, Connack, ClientDisconnect]),
    (0x12, b"\0\x01a", &[Connack]),
    (0x13, b"\0\x01", &[Connack]),
    (0x15, b"\0\x01a", &[Connect, Connack, Auth]),
    (0x16, b"\0\x01\xff", &[Connect, Connack, Auth]),
    (0x17, b"\x01", &[Connect]),
    (0x18, b"\0\0\0\x01", &[Will]),
    (0x19, b"\0", &[Connect]),
    (0x1a, b"\0\x01a", &[Connack]),
    (0x1c, b"\0\x01a", &[Connack, ClientDisconnect, ServerDisconnect]),
    (
        0x1f,
        b"\0\x01a",
        &[Connack, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, ClientDisconnect, ServerDisconnect, Auth],
    ),
    (0x21, b"\0\x01", &[Connect, Connack]),
    (0x22, b"\0\0", &[Connect, Connack]),
    (0x23, b"\0\x01", &[ClientPublish, ServerPublish]),
    (0x24, b"\x01", &[Connack]),
    (0x25, b"\0", &[Connack]),
    (0x26, b"\0\x01k\0\x01v", &PLACES),
    (0x27, b"\0\0\0\x01", &[Connect, Connack]),
    (0x28, b"\0", &[Connack]),
    (0x29, b"\0", &[Connack]),
    (0x2a, b"\0", &[Connack]),
];

/// What a packet with these properties is answered with.
fn outcome(place: Place, properties: &[u8]) -> Result<(), ReasonCode> {
    let counted = |before: &[u8], after: &[u8]| {
        let mut body = before.to_vec();
        put_variable_integer(&mut body, properties.len() as u32);
        [&body, properties, after].concat()
    };
    let (sender, first, body) = match place {
        Connect => (Sender::Client, 0x10, counted(b"\0\x04MQTT\x05\x02\0\0", b"\0\x01a")),
        Will => (Sender::Client, 0x10, counted(b"\0\x04MQTT\x05\x06\0\0\0\0\x01a", b"\0\x01w\0\0")),
        Connack => (Sender::Server, 0x20, counted(b"\0\0", b"")),
        ClientPublish => (Sender::Client, 0x30, counted(b"\0\x01t", b"")),
        ServerPublish => (Sender::Server, 0x30, counted(b"\0\x01t", b"")),
        Puback => (Sender::Client, 0x40, counted(b"\0\x01\0", b"")),
        Pubrec => (Sender::Client, 0x50, counted(b"\0\x01\0", b"")),
        Pubrel => (Sender::Server, 0x62, counted(b"\0\x01\0", b"")),
        Pubcomp => (Sender::Server, 0x70, counted(b"\0\x01\0", b"")),
        Subscribe => (Sender::Client, 0x82, counted(b"\0\x01", b"\0\x01f\0")),
        Suback => (Sender::Server, 0x90, counted(b"\0\x01", b"\0")),
        Unsubscribe => (Sender::Client, 0xa2, counted(b"\0\x01", b"\0\x01f")),
        Unsuback => (Sender::Server, 0xb0, counted(b"\0\x01", b"\0")),
        ClientDisconnect => (Sender::Client, 0xe0, counted(b"\0", b"")),
        ServerDisconnect => (Sender::Server, 0xe0, counted(b"\0", b"")),
        Auth => (Sender::Client, 0xf0, counted(b"\x18", b"")),
    };
    let mut packet = vec![first];
    put_variable_integer(&mut packet, body.len() as u32);
    packet.extend_from_slice(&body);
    let read = match place {
        Connect | Will => Reader::of_client(super::LIMITS).next(&mut packet.as_slice()).map(Option::unwrap),
        _ => read_one(sender, Version::V5, &packet),
    };
    read.map(drop).map_err(|fault| fault.reason)
}

fn property(identifier: u8, value: &[u8]) -> Vec<u8> {
    [&[identifier], value].concat()
}

/// What must stand beside a property for its packet to be right.
fn companion(place: Place, identifier: u8) -> &'static [u8] {
    match (place, identifier) {
        (Auth | Connect, 0x16) => b"\x15\0\x01m",
        (Auth, other) if other != 0x15 => b"\x15\0\x01m",
        _ => b"",
    }
}

#[test]
fn a_property_stands_where_the_table_says_and_nowhere_else() {
    for identifier in 0..=0xff {
        let row = TABLE.iter().find(|(known, ..)| *known == identifier);
        let (value, places) = row.map_or((&b"\0\x01a"[..], &[][..]), |(_, value, places)| (value, places));
        for place in PLACES {
            let mut properties = Vec::new();
            put_variable_integer(&mut properties, u32::from(identifier));
            assert_eq!(properties.len(), variable_integer_length(u32::from(identifier)));
            properties.extend_from_slice(value);
            properties.extend_from_slice(companion(place, identifier));
            let expected = match (places.contains(&place), place, identifier) {
                (true, ..) => Ok(()),
                // These two are of the packet, but not from this side.
                (_, ClientPublish, 0x0b) | (_, ServerDisconnect, 0x11) => Err(ReasonCode::ProtocolError),
                _ => Err(ReasonCode::MalformedPacket),
            };
            assert_eq!(outcome(place, &properties), expected, "{identifier:#04x} in {place:?}");
        }
    }
}

#[test]
fn a_property_comes_once() {
    for (identifier, value, places) in TABLE {
        for place in places {
            let twice = [property(identifier, value), property(identifier, value)].concat();
            let twice = [&twice, companion(*place, identifier)].concat();
            let may_repeat = identifier == 0x26 || (identifier == 0x0b && *place == ServerPublish);
            let expected = if may_repeat { Ok(()) } else { Err(ReasonCode::ProtocolError) };
            assert_eq!(outcome(*place, &twice), expected, "{identifier:#04x} twice in {place:?}");
        }
    }
}

#[test]
fn a_property_cut_short_is_malformed() {
    for (identifier, value, places) in TABLE {
        for place in places {
            let whole = [companion(*place, identifier), &property(identifier, value)].concat();
            for length in whole.len() - value.len()..whole.len() {
                let outcome = outcome(*place, &whole[..length]);
                assert_eq!(outcome, Err(ReasonCode::MalformedPacket), "{identifier:#04x} in {place:?}");
            }
        }
    }
}

#[test]
fn values_that_a_property_may_not_have() {
    let protocol_errors: [(Place, u8, &[u8]); 16] = [
        (ClientPublish, 0x01, b"\x02"),
        (ClientPublish, 0x08, b"\0\x03a/#"),
        (ClientPublish, 0x08, b"\0\x01+"),
        (Will, 0x08, b"\0\0"),
        (Subscribe, 0x0b, b"\0"),
        (ServerPublish, 0x0b, b"\0"),
        (Connect, 0x17, b"\x02"),
        (Connect, 0x19, b"\xff"),
        (Connect, 0x21, b"\0\0"),
        (Connack, 0x21, b"\0\0"),
        (Connack, 0x24, b"\x02"),
        (Connack, 0x25, b"\x02"),
        (Connect, 0x27, b"\0\0\0\0"),
        (Connack, 0x28, b"\x02"),
        (Connack, 0x29, b"\x02"),
        (Connack, 0x2a, b"\x02"),
    ];
    for (place, identifier, value) in protocol_errors {
        let outcome = outcome(place, &property(identifier, value));
        assert_eq!(outcome, Err(ReasonCode::ProtocolError), "{identifier:#04x} in {place:?}");
    }
    assert_eq!(outcome(ClientPublish, b"\x23\0\0"), Err(ReasonCode::TopicAliasInvalid));
    assert_eq!(outcome(Connect, b"\x16\0\x01d"), Err(ReasonCode::ProtocolError), "data without a method");
    assert_eq!(outcome(Auth, b"\x16\0\x01d"), Err(ReasonCode::ProtocolError), "AUTH without a method");
    assert_eq!(outcome(Auth, b""), Err(ReasonCode::ProtocolError), "AUTH without a method");
    assert_eq!(outcome(Subscribe, b"\x0b\x81\0"), Err(ReasonCode::MalformedPacket), "a padded integer");
    assert_eq!(outcome(Connect, b"\x91\0\0\0\0\x01"), Err(ReasonCode::MalformedPacket), "a padded identifier");
}

#[test]
fn user_properties_are_bounded() {
    let properties = property(0x26, b"\0\0\0\0").repeat(USER_PROPERTIES_MAX);
    assert_eq!(outcome(Subscribe, &properties), Ok(()));
    let one_more = [&properties[..], b"\x26\0\0\0\0"].concat();
    assert_eq!(outcome(Subscribe, &one_more), Err(ReasonCode::QuotaExceeded));
}
