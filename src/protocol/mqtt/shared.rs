//! PUBLISH as bytes: one that everybody gets, and the short head that is of one receiver.
//!
//! What differs from one receiver of a message to the next (quality, packet id, retain, subscription identifiers, the expiry
//! of what has waited) stands before what does not (the other properties, the payload), because properties come in any order
//! (MQTT 5.0 §2.2.2.2). So a message is encoded once for 3.x and once for 5.0: at QoS 0 the whole is sent as it is, else a
//! head of one's own before the tail of all.

use std::num::NonZeroU16;
use std::ops::Range;

use bytes::Bytes;

use crate::protocol::mqtt::decode::publish_flags;
use crate::protocol::mqtt::packet::{Delivery, PacketKind, Publish, PublishTopic, SubscriptionId, Version};
use crate::protocol::mqtt::properties::MessageProperties;
use crate::protocol::mqtt::property::{self, PropertyList, length_of_length, put_length};
use crate::protocol::mqtt::wire::{Text, put_text};
use crate::protocol::mqtt::writer::{Unwritable, first_byte, header_length, put_header, put_packet_id};

/// A message as everybody gets it who speaks versions of one kind.
#[derive(Debug, Clone)]
pub struct SharedPublish {
    version: Version,
    /// The whole packet at QoS 0, not retained, with the message's own expiry.
    whole: Bytes,
    /// The topic name within it, with its length.
    name: Bytes,
    /// What follows a head within it.
    tail: Bytes,
    /// How much of the tail is properties.
    tail_property_bytes: usize,
    expiry_seconds: Option<u32>,
}

/// What of a PUBLISH is of one receiver.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The quality, with a packet id above 0.
    pub delivery: Delivery,
    /// Whether it was retained (MQTT 5.0 §3.3.1.3).
    pub retain: bool,
    /// Seconds that are left to the message; left out in 3.x.
    pub expiry_seconds: Option<u32>,
    /// Of the subscriptions that it is delivered for; left out in 3.x.
    pub subscription_ids: &'a [SubscriptionId],
}

/// The bytes before a tail: a fixed header, the topic name, and all that is of one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where in them the packet id stands, above QoS 0: whoever differs in nothing else may copy the head and put in its own.
    pub packet_id: Option<Range<usize>>,
}

/// What follows a head.
struct Tail {
    property_bytes: usize,
    payload_bytes: usize,
}

impl SharedPublish {
    /// A message to this topic name, encoded for this version; both 3.x are alike.
    ///
    /// # Errors
    /// When no packet is that long.
    pub fn new(
        version: Version,
        topic: &Text,
        properties: &MessageProperties,
        payload: &[u8],
    ) -> Result<Self, Unwritable> {
        let mut name = Vec::with_capacity(2 + topic.len());
        put_text(&mut name, topic);
        let shared = shared_properties(version, properties);
        let tail = Tail { property_bytes: shared.bytes().len(), payload_bytes: payload.len() };
        let expiry_seconds = properties.expiry_seconds;
        let address = Address { delivery: Delivery::AtMostOnce, retain: false, expiry_seconds, subscription_ids: &[] };
        let own = own_properties(version, None, address);
        let head = head(version, &name, address, &own, &tail)?.bytes;
        let mut whole = Vec::with_capacity(head.len() + tail.property_bytes + tail.payload_bytes);
        whole.extend_from_slice(&head);
        whole.extend_from_slice(shared.bytes());
        whole.extend_from_slice(payload);
        let whole = Bytes::from(whole);
        let name_start = header_length(head_remaining(version, &name, address, &own, &tail))?;
        Ok(Self {
            version,
            name: whole.slice(name_start..name_start + name.len()),
            tail: whole.slice(head.len()..),
            tail_property_bytes: tail.property_bytes,
            expiry_seconds,
            whole,
        })
    }

    /// The whole packet as it goes at QoS 0 to whoever gave its subscription no identifier: live, so neither retained nor late.
    pub fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// What follows every [head](Self::head) and is never copied.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// The message's expiry as it was published.
    pub fn expiry_seconds(&self) -> Option<u32> {
        self.expiry_seconds
    }

    /// What goes before the [tail](Self::tail) for one receiver: at most some 275 bytes, of which 255 are the topic, and five for
    /// each subscription identifier.
    ///
    /// # Errors
    /// When no packet is that long.
    pub fn head(&self, address: Address<'_>) -> Result<Head, Unwritable> {
        let payload_bytes = self.tail.len().saturating_sub(self.tail_property_bytes);
        let tail = Tail { property_bytes: self.tail_property_bytes, payload_bytes };
        let own = own_properties(self.version, None, address);
        head(self.version, &self.name, address, &own, &tail)
    }
}

/// One PUBLISH as bytes, whatever it says.
pub(super) fn encode(publish: &Publish, version: Version) -> Result<Bytes, Unwritable> {
    let (topic, alias) = match &publish.topic {
        PublishTopic::Named { name, alias } => (name, *alias),
        PublishTopic::Aliased(_) if version < Version::V5 => return Err(Unwritable::NoSuchPacket),
        PublishTopic::Aliased(alias) => (&Text::default(), Some(*alias)),
    };
    let mut name = Vec::new();
    put_text(&mut name, topic);
    let address = Address {
        delivery: publish.delivery,
        retain: publish.retain,
        expiry_seconds: publish.properties.expiry_seconds,
        subscription_ids: &publish.subscription_ids,
    };
    let shared = shared_properties(version, &publish.properties);
    let tail = Tail { property_bytes: shared.bytes().len(), payload_bytes: publish.payload.len() };
    let mut packet = head(version, &name, address, &own_properties(version, alias, address), &tail)?.bytes;
    packet.reserve_exact(tail.property_bytes + tail.payload_bytes);
    packet.extend_from_slice(shared.bytes());
    packet.extend_from_slice(&publish.payload);
    Ok(packet.into())
}

/// The properties of the tail.
fn shared_properties(version: Version, properties: &MessageProperties) -> PropertyList {
    let mut list = PropertyList::default();
    if version == Version::V5 {
        properties.write_without_expiry(&mut list);
    }
    list
}

/// The properties of the head.
fn own_properties(version: Version, alias: Option<NonZeroU16>, address: Address<'_>) -> PropertyList {
    let mut list = PropertyList::default();
    if version == Version::V5 {
        list.two_bytes(property::TOPIC_ALIAS, alias.map(NonZeroU16::get));
        list.four_bytes(property::MESSAGE_EXPIRY, address.expiry_seconds);
        for id in address.subscription_ids {
            list.variable_integer(property::SUBSCRIPTION_ID, Some(id.number()));
        }
    }
    list
}

fn head_remaining(version: Version, name: &[u8], address: Address<'_>, own: &PropertyList, tail: &Tail) -> usize {
    let packet_id_bytes = if address.delivery.transmission().is_some() { 2 } else { 0 };
    let property_bytes = own.bytes().len() + tail.property_bytes;
    let length_bytes = if version == Version::V5 { length_of_length(property_bytes) } else { 0 };
    name.len() + packet_id_bytes + length_bytes + property_bytes + tail.payload_bytes
}

fn head(
    version: Version,
    name: &[u8],
    address: Address<'_>,
    own: &PropertyList,
    tail: &Tail,
) -> Result<Head, Unwritable> {
    let remaining = head_remaining(version, name, address, own, tail);
    let mut bytes =
        Vec::with_capacity(remaining - tail.property_bytes - tail.payload_bytes + header_length(remaining)?);
    put_header(
        &mut bytes,
        first_byte(PacketKind::Publish, publish_flags(address.delivery, address.retain)),
        remaining,
    )?;
    bytes.extend_from_slice(name);
    let packet_id = address.delivery.transmission().map(|transmission| {
        let start = bytes.len();
        put_packet_id(&mut bytes, transmission.packet_id);
        start..bytes.len()
    });
    if version == Version::V5 {
        put_length(&mut bytes, own.bytes().len() + tail.property_bytes);
        bytes.extend_from_slice(own.bytes());
    }
    Ok(Head { bytes, packet_id })
}
