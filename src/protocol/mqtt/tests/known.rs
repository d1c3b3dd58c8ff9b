//! Packets that were put together by hand from the figures of the standards: both ways.

use std::num::NonZeroU16;

use bytes::Bytes;

use super::read_one;
use crate::protocol::mqtt::decode::Sender;
use crate::protocol::mqtt::packet::{
    Acknowledgement, Auth, Connack, Connect, Delivery, Disconnect, Packet, PacketId, Publish, PublishTopic, Qos,
    RetainHandling, Secret, Subscribe, Subscription, SubscriptionAcknowledgement, SubscriptionId, Transmission,
    Unsubscribe, Version, Will,
};
use crate::protocol::mqtt::properties::{
    AuthProperties, ConnectProperties, MessageProperties, ReasonProperties, SubscribeProperties, UserProperties,
    WillProperties,
};
use crate::protocol::mqtt::reader::{Limits, Reader};
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::{Binary, STRING_BYTES_MAX, Text};
use crate::protocol::mqtt::writer::{Unwritable, encode};

/// The shortest CONNECT of a version: clean, keep alive of 60 s, client id `a`.
pub(super) fn connect(version: Version) -> Vec<u8> {
    match version {
        Version::V31 => b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a".to_vec(),
        Version::V311 => b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a".to_vec(),
        Version::V5 => b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a".to_vec(),
    }
}

fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

fn binary(bytes: &'static [u8]) -> Binary {
    Binary::new(Bytes::from_static(bytes)).unwrap()
}

/// The packet id of the standard's figures.
fn ten() -> PacketId {
    PacketId(NonZeroU16::new(10).unwrap())
}

fn plain_publish(delivery: Delivery) -> Publish {
    Publish {
        delivery,
        retain: false,
        topic: PublishTopic::Named { name: text("a/b"), alias: None },
        subscription_ids: Vec::new(),
        properties: MessageProperties::default(),
        payload: Bytes::from_static(b"hi"),
    }
}

fn subscription(filter: &str, qos: Qos) -> Subscription {
    Subscription {
        filter: text(filter),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

fn acknowledgement(reason: ReasonCode, reason_string: Option<&str>) -> Acknowledgement {
    let properties = ReasonProperties { reason_string: reason_string.map(text), ..Default::default() };
    Acknowledgement { packet_id: ten(), reason, properties }
}

fn connack(session_present: bool, reason: ReasonCode) -> Packet {
    Packet::Connack(Box::new(Connack { session_present, reason, properties: Default::default() }))
}

fn subscription_answer(reasons: &[ReasonCode]) -> SubscriptionAcknowledgement {
    SubscriptionAcknowledgement { packet_id: ten(), reasons: reasons.to_vec(), properties: Default::default() }
}

fn disconnect(reason: ReasonCode) -> Packet {
    Packet::Disconnect(Disconnect { reason, properties: Default::default() })
}

/// Writes and reads it.
#[track_caller]
fn both_ways(sender: Sender, version: Version, packet: Packet, bytes: &[u8]) {
    assert_eq!(encode(&packet, version).unwrap(), bytes);
    if !matches!(packet, Packet::Connect(_)) {
        assert_eq!(read_one(sender, version, bytes), Ok(packet));
    }
}

#[test]
fn connects_are_those_of_the_figures() {
    // MQTT 5.0 §3.1.2.12 with a payload.
    let full = Connect {
        version: Version::V5,
        client_id: text("c"),
        clean_start: true,
        keep_alive_seconds: 10,
        will: Some(Will {
            topic: text("w"),
            payload: binary(b"x"),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: WillProperties { delay_seconds: Some(1), ..Default::default() },
        }),
        user_name: Some(text("u")),
        password: Some(Secret(binary(b"p"))),
        properties: ConnectProperties { session_expiry_seconds: Some(10), ..Default::default() },
    };
    let bytes = b"\x10\x25\0\x04MQTT\x05\xce\0\x0a\x05\x11\0\0\0\x0a\
        \0\x01c\x05\x18\0\0\0\x01\0\x01w\0\x01x\0\x01u\0\x01p";
    let full = Packet::Connect(Box::new(full));
    assert_eq!(encode(&full, Version::V5).unwrap(), &bytes[..]);
    let mut reader = Reader::of_client(super::LIMITS);
    assert_eq!(reader.next(&mut &bytes[..]), Ok(Some(full.clone())));
    assert!(!format!("{full:?}").contains("112"), "a password is not shown: {full:?}");

    for version in Version::ALL {
        let mut reader = Reader::of_client(Limits { packet_bytes_max: 0, connect_bytes_max: 17 });
        let bytes = connect(version);
        let read = reader.next(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!(encode(&read, version).unwrap(), bytes);
        assert_eq!(reader.version(), Some(version));
    }
}

#[test]
fn publishes_are_those_of_the_figures() {
    let once = Delivery::AtLeastOnce(Transmission { packet_id: ten(), duplicate: false });
    let again = Delivery::AtLeastOnce(Transmission { packet_id: ten(), duplicate: true });
    for version in [Version::V31, Version::V311] {
        for sender in [Sender::Client, Sender::Server] {
            let plain = |delivery| Packet::Publish(Box::new(plain_publish(delivery)));
            both_ways(sender, version, plain(Delivery::AtMostOnce), b"\x30\x07\0\x03a/bhi");
            both_ways(sender, version, plain(once), b"\x32\x09\0\x03a/b\0\x0ahi");
        }
    }
    let full = Publish {
        retain: true,
        subscription_ids: vec![SubscriptionId::new(5).unwrap()],
        properties: MessageProperties {
            payload_is_utf8: Some(true),
            expiry_seconds: Some(60),
            content_type: Some(text("t")),
            user: UserProperties(vec![(text("k"), text("v")), (text("k"), text(""))]),
            ..Default::default()
        },
        ..plain_publish(again)
    };
    let bytes = b"\x3b\x24\0\x03a/b\0\x0a\x1a\x02\0\0\0\x3c\x0b\x05\x01\x01\x03\0\x01t\
        \x26\0\x01k\0\x01v\x26\0\x01k\0\0hi";
    both_ways(Sender::Server, Version::V5, Packet::Publish(Box::new(full)), bytes);
    let aliased = Publish {
        topic: PublishTopic::Aliased(NonZeroU16::new(7).unwrap()),
        payload: Bytes::new(),
        ..plain_publish(Delivery::AtMostOnce)
    };
    let aliased = Packet::Publish(Box::new(aliased));
    both_ways(Sender::Client, Version::V5, aliased.clone(), b"\x30\x06\0\0\x03\x23\0\x07");
    assert_eq!(encode(&aliased, Version::V311), Err(Unwritable::NoSuchPacket));
}

#[test]
fn a_message_to_the_longest_name_is_read_as_it_was_written() {
    let name = Text::new("x".repeat(STRING_BYTES_MAX)).unwrap();
    for version in Version::ALL {
        let topic = PublishTopic::Named { name: name.clone(), alias: None };
        let packet = Packet::Publish(Box::new(Publish { topic, ..plain_publish(Delivery::AtMostOnce) }));
        assert_eq!(read_one(Sender::Server, version, &encode(&packet, version).unwrap()), Ok(packet));
    }
}

#[test]
fn acknowledgements_are_as_short_as_can_be() {
    let plain = || acknowledgement(ReasonCode::Success, None);
    for version in Version::ALL {
        for sender in [Sender::Client, Sender::Server] {
            both_ways(sender, version, Packet::Puback(plain()), b"\x40\x02\0\x0a");
            both_ways(sender, version, Packet::Pubrec(plain()), b"\x50\x02\0\x0a");
            both_ways(sender, version, Packet::Pubrel(plain()), b"\x62\x02\0\x0a");
            both_ways(sender, version, Packet::Pubcomp(plain()), b"\x70\x02\0\x0a");
        }
    }
    let nobody = ReasonCode::NoMatchingSubscribers;
    let v5 = |packet, bytes| both_ways(Sender::Server, Version::V5, packet, bytes);
    v5(Packet::Puback(acknowledgement(nobody, None)), b"\x40\x03\0\x0a\x10");
    v5(Packet::Puback(acknowledgement(nobody, Some("x"))), b"\x40\x08\0\x0a\x10\x04\x1f\0\x01x");
    assert_eq!(
        encode(&Packet::Puback(acknowledgement(nobody, Some("x"))), Version::V311).unwrap(),
        b"\x40\x02\0\x0a"[..]
    );
    // Longer than it must be, and yet right.
    let read = |bytes| read_one(Sender::Client, Version::V5, bytes);
    assert_eq!(read(b"\x40\x03\0\x0a\0"), Ok(Packet::Puback(plain())));
    assert_eq!(read(b"\x40\x04\0\x0a\0\0"), Ok(Packet::Puback(plain())));
    assert_eq!(read(b"\xe0\x02\0\0"), Ok(disconnect(ReasonCode::Success)));
}

#[test]
fn subscriptions_and_their_answers_are_those_of_the_figures() {
    // MQTT 3.1.1 §3.8.3, figure 3.23.
    let subscriptions = vec![subscription("a/b", Qos::AtLeastOnce), subscription("c/d", Qos::ExactlyOnce)];
    let subscribe = Subscribe { packet_id: ten(), properties: SubscribeProperties::default(), subscriptions };
    let bytes = b"\x82\x0e\0\x0a\0\x03a/b\x01\0\x03c/d\x02";
    both_ways(Sender::Client, Version::V311, Packet::Subscribe(subscribe), bytes);
    let full = Subscription {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..subscription("a", Qos::AtLeastOnce)
    };
    let properties = SubscribeProperties { id: SubscriptionId::new(300), ..Default::default() };
    let full = Packet::Subscribe(Subscribe { packet_id: ten(), properties, subscriptions: vec![full] });
    both_ways(Sender::Client, Version::V5, full, b"\x82\x0a\0\x0a\x03\x0b\xac\x02\0\x01a\x2d");

    let (granted, failed) = (ReasonCode::GrantedQos1, ReasonCode::TopicFilterInvalid);
    let server = |version, packet, bytes| both_ways(Sender::Server, version, packet, bytes);
    server(Version::V5, Packet::Suback(subscription_answer(&[granted, failed])), b"\x90\x05\0\x0a\0\x01\x8f");
    let (unspecified, existed) = (ReasonCode::UnspecifiedError, ReasonCode::NoSubscriptionExisted);
    server(Version::V311, Packet::Suback(subscription_answer(&[granted, unspecified])), b"\x90\x04\0\x0a\x01\x80");
    assert_eq!(
        encode(&Packet::Suback(subscription_answer(&[failed])), Version::V311).unwrap(),
        b"\x90\x03\0\x0a\x80"[..]
    );
    server(Version::V311, Packet::Unsuback(subscription_answer(&[])), b"\xb0\x02\0\x0a");
    server(Version::V5, Packet::Unsuback(subscription_answer(&[existed])), b"\xb0\x04\0\x0a\0\x11");
    let unsubscribe =
        || Packet::Unsubscribe(Unsubscribe { packet_id: ten(), user: Default::default(), filters: vec![text("a/b")] });
    both_ways(Sender::Client, Version::V311, unsubscribe(), b"\xa2\x07\0\x0a\0\x03a/b");
    both_ways(Sender::Client, Version::V5, unsubscribe(), b"\xa2\x08\0\x0a\0\0\x03a/b");
}

#[test]
fn the_rest_is_that_of_the_figures() {
    let server = |version, packet, bytes| both_ways(Sender::Server, version, packet, bytes);
    let client = |version, packet, bytes| both_ways(Sender::Client, version, packet, bytes);
    server(Version::V311, connack(true, ReasonCode::Success), b"\x20\x02\x01\0");
    server(Version::V31, connack(false, ReasonCode::Success), b"\x20\x02\0\0");
    server(Version::V311, connack(false, ReasonCode::NotAuthorized), b"\x20\x02\0\x05");
    server(Version::V5, connack(false, ReasonCode::NotAuthorized), b"\x20\x03\0\x87\0");
    assert_eq!(encode(&connack(true, ReasonCode::Banned), Version::V5).unwrap(), b"\x20\x03\0\x8a\0"[..]);
    assert_eq!(encode(&connack(true, ReasonCode::Success), Version::V31).unwrap(), b"\x20\x02\0\0"[..]);
    assert_eq!(encode(&connack(false, ReasonCode::MalformedPacket), Version::V311), Err(Unwritable::NoSuchPacket));
    for version in Version::ALL {
        client(version, Packet::Pingreq, b"\xc0\0");
        server(version, Packet::Pingresp, b"\xd0\0");
        client(version, disconnect(ReasonCode::Success), b"\xe0\0");
    }
    client(Version::V5, disconnect(ReasonCode::DisconnectWithWill), b"\xe0\x01\x04");
    server(Version::V5, disconnect(ReasonCode::ServerShuttingDown), b"\xe0\x01\x8b");
    assert_eq!(encode(&disconnect(ReasonCode::ServerShuttingDown), Version::V311), Err(Unwritable::NoSuchPacket));
    let properties = AuthProperties { method: Some(text("m")), data: Some(Secret(binary(b"d"))), ..Default::default() };
    let auth = Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties });
    client(Version::V5, auth.clone(), b"\xf0\x0a\x18\x08\x15\0\x01m\x16\0\x01d");
    assert_eq!(encode(&auth, Version::V311), Err(Unwritable::NoSuchPacket));
}

#[test]
fn what_3_1_does_not_use_is_passed_over() {
    let read = |bytes| read_one(Sender::Client, Version::V31, bytes);
    assert_eq!(read(b"\xc9\0"), Ok(Packet::Pingreq));
    let Ok(Packet::Subscribe(subscribe)) = read(b"\x8b\x06\0\x0a\0\x01a\xfd") else { panic!("DUP, and unused bits") };
    assert_eq!(subscribe.subscriptions, [subscription("a", Qos::AtLeastOnce)]);
    let Ok(Packet::Publish(publish)) = read(b"\x38\x07\0\x03a/bhi") else { panic!("DUP at QoS 0") };
    assert_eq!(*publish, plain_publish(Delivery::AtMostOnce));
    // A user name and a password are announced, and the packet ends before the first, or before the second.
    for (bytes, user_name) in [
        (&b"\x10\x0f\0\x06MQIsdp\x03\xc3\0\x3c\0\x01a"[..], None),
        (b"\x10\x12\0\x06MQIsdp\x03\xc2\0\x3c\0\x01a\0\x01u", Some(text("u"))),
    ] {
        let mut reader = Reader::of_client(super::LIMITS);
        let Ok(Some(Packet::Connect(connect))) = reader.next(&mut &bytes[..]) else { panic!("{bytes:02x?}") };
        assert_eq!((connect.user_name, connect.password), (user_name, None));
    }
}

#[test]
fn a_padded_remaining_length_is_malformed_in_5_0_only() {
    for version in [Version::V31, Version::V311] {
        assert_eq!(read_one(Sender::Client, version, b"\xc0\x80\x80\0"), Ok(Packet::Pingreq));
    }
    let fault = read_one(Sender::Client, Version::V5, b"\xc0\x80\x80\0").unwrap_err();
    assert_eq!(fault.reason, ReasonCode::MalformedPacket);
    for (bytes, is_read) in [
        (&b"\x10\x8d\0\0\x04MQTT\x04\x02\0\x3c\0\x01a"[..], true),
        (b"\x10\x8e\0\0\x04MQTT\x05\x02\0\x3c\0\0\x01a", false),
    ] {
        assert_eq!(Reader::of_client(super::LIMITS).next(&mut &bytes[..]).is_ok(), is_read);
    }
}
