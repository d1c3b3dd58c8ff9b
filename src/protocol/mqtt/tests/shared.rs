//! A PUBLISH that is shared is, for each receiver, the packet that it would have been by itself.

use bytes::Bytes;
use proptest::prelude::*;

use super::arbitrary::{as_in, deliveries, messages, names, payloads, subscription_ids, versions};
use super::read_one;
use crate::protocol::mqtt::decode::Sender;
use crate::protocol::mqtt::packet::{Delivery, Packet, PacketId, Publish, PublishTopic, Transmission, Version};
use crate::protocol::mqtt::properties::MessageProperties;
use crate::protocol::mqtt::shared::{Address, SharedPublish};
use crate::protocol::mqtt::wire::{STRING_BYTES_MAX, Text};
use crate::protocol::mqtt::writer::encode;

proptest! {
    #[test]
    fn a_head_and_the_tail_are_the_receivers_packet(
        version in versions(),
        (name, properties, payload) in (names(), messages(), payloads()),
        (delivery, retain, expiry_seconds) in (deliveries(), any::<bool>(), proptest::option::of(any::<u32>())),
        subscription_ids in prop::collection::vec(subscription_ids(), 0..4),
    ) {
        let shared = SharedPublish::new(version, &name, &properties, &payload).unwrap();
        let alone = |delivery, retain, expiry_seconds, subscription_ids| Publish {
            delivery,
            retain,
            topic: PublishTopic::Named { name: name.clone(), alias: None },
            subscription_ids,
            properties: MessageProperties { expiry_seconds, ..properties.clone() },
            payload: payload.clone(),
        };
        let everybodys = alone(Delivery::AtMostOnce, false, properties.expiry_seconds, Vec::new());
        let everybodys = Packet::Publish(Box::new(everybodys));
        prop_assert_eq!(shared.whole(), &encode(&everybodys, version).unwrap());
        prop_assert_eq!(shared.expiry_seconds(), properties.expiry_seconds);

        let address = Address { delivery, retain, expiry_seconds, subscription_ids: &subscription_ids };
        let head = shared.head(address).unwrap();
        prop_assert!(head.bytes.len() <= 1 + 4 + 2 + name.len() + 2 + 4 + 5 + 5 * subscription_ids.len());
        let bytes = [&head.bytes[..], shared.tail()].concat();
        let own = Packet::Publish(Box::new(alone(delivery, retain, expiry_seconds, subscription_ids.clone())));
        prop_assert_eq!(&Bytes::from(bytes.clone()), &encode(&own, version).unwrap());
        prop_assert_eq!(read_one(Sender::Server, version, &bytes).ok(), as_in(&own, version, Sender::Server));
        prop_assert_eq!(head.packet_id.is_some(), delivery.transmission().is_some());
    }

    #[test]
    fn another_packet_id_may_be_put_in(version in versions(), first in any::<PacketIdNumber>(), second in any::<PacketIdNumber>()) {
        let name = Text::new("a/b").unwrap();
        let shared = SharedPublish::new(version, &name, &MessageProperties::default(), b"x").unwrap();
        let head = |number: PacketIdNumber| {
            let delivery = Delivery::AtLeastOnce(Transmission { packet_id: PacketId(number), duplicate: false });
            shared.head(Address { delivery, retain: false, expiry_seconds: None, subscription_ids: &[] }).unwrap()
        };
        let mut patched = head(first);
        let place = patched.packet_id.clone().unwrap();
        patched.bytes[place].copy_from_slice(&second.get().to_be_bytes());
        prop_assert_eq!(patched, head(second));
    }
}

type PacketIdNumber = std::num::NonZeroU16;

#[test]
fn nothing_of_the_tail_is_copied() {
    let name = Text::new("a").unwrap();
    for version in Version::ALL {
        let shared = SharedPublish::new(version, &name, &MessageProperties::default(), &[7; 1000]).unwrap();
        assert!(shared.whole().as_ptr_range().contains(&shared.tail().as_ptr()));
        assert_eq!(shared.tail().len(), 1000);
    }
    // The longest name makes the longest head.
    let name = Text::new("x".repeat(STRING_BYTES_MAX)).unwrap();
    let shared = SharedPublish::new(Version::V5, &name, &MessageProperties::default(), b"").unwrap();
    assert!(read_one(Sender::Server, Version::V5, shared.whole()).is_ok());
}
