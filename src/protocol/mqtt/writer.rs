//! Packets as bytes, by version. What a version has no field for is left out: properties, reasons and subscription options in
//! 3.x, whose PUBACK cannot refuse (3.1.1 §3.3.5) and whose UNSUBACK says nothing. What it has no packet for is told.

use bytes::Bytes;
use thiserror::Error;

use crate::protocol::mqtt::connect;
use crate::protocol::mqtt::decode::{FLAGS_OF_QOS_1, publish_flags, subscription_options};
use crate::protocol::mqtt::packet::{
    Acknowledgement, Auth, Connack, Connect, Disconnect, Packet, PacketId, PacketKind, Publish, PublishTopic,
    Subscribe, SubscriptionAcknowledgement, Unsubscribe, Version,
};
use crate::protocol::mqtt::properties::{DisconnectProperties, ReasonProperties};
use crate::protocol::mqtt::property::put_set;
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::{
    Text, VARIABLE_INTEGER_MAX, put_binary, put_text, put_variable_integer, variable_integer_length,
};

/// Why a packet cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// AUTH, a topic alias alone, a CONNACK without a return code for its reason, a DISCONNECT with a reason, and a password
    /// without a user name are of 5.0. Where a server would say these, 3.x has it close the connection without a word.
    #[error("this version of MQTT has no such packet")]
    NoSuchPacket,
    /// Beyond 256 MiB (MQTT 5.0 §2.1.4).
    #[error("a packet would be longer than MQTT can count")]
    TooLong,
}

/// A packet as bytes. [`Connect`] is written in its own version.
///
/// # Errors
/// When the version has no such packet, or no packet is that long.
pub fn encode(packet: &Packet, version: Version) -> Result<Bytes, Unwritable> {
    let mut body = Vec::new();
    match packet {
        Packet::Connect(connect) => put_connect(&mut body, connect)?,
        Packet::Connack(connack) => put_connack(&mut body, version, connack)?,
        Packet::Publish(publish) => return encode_publish(publish, version),
        Packet::Puback(answer) | Packet::Pubrec(answer) | Packet::Pubrel(answer) | Packet::Pubcomp(answer) => {
            put_acknowledgement(&mut body, version, answer);
        }
        Packet::Subscribe(subscribe) => put_subscribe(&mut body, version, subscribe),
        Packet::Suback(answer) => put_suback(&mut body, version, answer),
        Packet::Unsubscribe(unsubscribe) => put_unsubscribe(&mut body, version, unsubscribe),
        Packet::Unsuback(answer) => put_unsuback(&mut body, version, answer),
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(disconnect) => put_disconnect(&mut body, version, disconnect)?,
        Packet::Auth(auth) => put_auth(&mut body, version, auth)?,
    }
    let flags = match packet.kind() {
        PacketKind::Pubrel | PacketKind::Subscribe | PacketKind::Unsubscribe => FLAGS_OF_QOS_1,
        _ => 0,
    };
    join(first_byte(packet.kind(), flags), &[&body])
}

/// The first byte of a packet (MQTT 5.0 §2.1).
fn first_byte(kind: PacketKind, flags: u8) -> u8 {
    (kind as u8) << 4 | flags
}

/// A fixed header and what follows it, in one piece.
pub(super) fn join(first: u8, parts: &[&[u8]]) -> Result<Bytes, Unwritable> {
    let remaining = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(header_length(remaining)? + remaining);
    put_header(&mut out, first, remaining)?;
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Ok(out.into())
}

/// Bytes of a fixed header.
fn header_length(remaining: usize) -> Result<usize, Unwritable> {
    remaining_length(remaining).map(|remaining| 1 + variable_integer_length(remaining))
}

/// Writes a fixed header.
fn put_header(out: &mut Vec<u8>, first: u8, remaining: usize) -> Result<(), Unwritable> {
    let remaining = remaining_length(remaining)?;
    out.push(first);
    put_variable_integer(out, remaining);
    Ok(())
}

fn remaining_length(bytes: usize) -> Result<u32, Unwritable> {
    u32::try_from(bytes).ok().filter(|bytes| *bytes <= VARIABLE_INTEGER_MAX).ok_or(Unwritable::TooLong)
}

fn put_packet_id(out: &mut Vec<u8>, packet_id: PacketId) {
    out.extend_from_slice(&packet_id.0.get().to_be_bytes());
}

fn put_connect(out: &mut Vec<u8>, connect: &Connect) -> Result<(), Unwritable> {
    let version = connect.version;
    if version < Version::V5 && connect.password.is_some() && connect.user_name.is_none() {
        return Err(Unwritable::NoSuchPacket);
    }
    let name = version.protocol_name();
    out.extend_from_slice(&[0, name.len() as u8]);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&[version.level(), connect::flags(connect)]);
    out.extend_from_slice(&connect.keep_alive_seconds.to_be_bytes());
    put_set(out, version, &connect.properties);
    put_text(out, &connect.client_id);
    if let Some(will) = &connect.will {
        put_set(out, version, &will.properties);
        put_text(out, &will.topic);
        put_binary(out, &will.payload);
    }
    if let Some(user_name) = &connect.user_name {
        put_text(out, user_name);
    }
    if let Some(password) = &connect.password {
        put_binary(out, &password.0);
    }
    Ok(())
}

fn put_connack(out: &mut Vec<u8>, version: Version, connack: &Connack) -> Result<(), Unwritable> {
    let code = match version {
        Version::V5 => connack.reason.number(),
        _ => connack.reason.return_code().ok_or(Unwritable::NoSuchPacket)?,
    };
    // 3.1 (§3.2) does not use the flag; with a failure it is 0 [MQTT-3.2.2-6].
    let session_present = connack.session_present && version > Version::V31 && !connack.reason.is_failure();
    out.extend_from_slice(&[u8::from(session_present), code]);
    put_set(out, version, &connack.properties);
    Ok(())
}

/// Writes reason and properties as short as can be (MQTT 5.0 §3.4.2.1 and §3.4.2.2.1).
fn put_acknowledgement(out: &mut Vec<u8>, version: Version, answer: &Acknowledgement) {
    put_packet_id(out, answer.packet_id);
    if version < Version::V5 || (answer.reason == ReasonCode::Success && answer.properties.is_empty()) {
        return;
    }
    out.push(answer.reason.number());
    if answer.properties != ReasonProperties::default() {
        put_set(out, version, &answer.properties);
    }
}

fn encode_publish(publish: &Publish, version: Version) -> Result<Bytes, Unwritable> {
    let mut head = Vec::new();
    match &publish.topic {
        PublishTopic::Named { name, .. } => put_text(&mut head, name),
        PublishTopic::Aliased(_) if version < Version::V5 => return Err(Unwritable::NoSuchPacket),
        PublishTopic::Aliased(_) => put_text(&mut head, &Text::default()),
    }
    if let Some(transmission) = publish.delivery.transmission() {
        put_packet_id(&mut head, transmission.packet_id);
    }
    put_set(&mut head, version, publish);
    let flags = publish_flags(publish.delivery, publish.retain);
    join(first_byte(PacketKind::Publish, flags), &[&head, &publish.payload])
}

fn put_subscribe(out: &mut Vec<u8>, version: Version, subscribe: &Subscribe) {
    put_packet_id(out, subscribe.packet_id);
    put_set(out, version, &subscribe.properties);
    for subscription in &subscribe.subscriptions {
        put_text(out, &subscription.filter);
        out.push(subscription_options(version, subscription));
    }
}

fn put_suback(out: &mut Vec<u8>, version: Version, answer: &SubscriptionAcknowledgement) {
    put_packet_id(out, answer.packet_id);
    put_set(out, version, &answer.properties);
    let is_v5 = version == Version::V5;
    out.extend(answer.reasons.iter().map(|reason| if is_v5 { reason.number() } else { reason.suback_code() }));
}

fn put_unsubscribe(out: &mut Vec<u8>, version: Version, unsubscribe: &Unsubscribe) {
    put_packet_id(out, unsubscribe.packet_id);
    put_set(out, version, &unsubscribe.user);
    unsubscribe.filters.iter().for_each(|filter: &Text| put_text(out, filter));
}

fn put_unsuback(out: &mut Vec<u8>, version: Version, answer: &SubscriptionAcknowledgement) {
    put_packet_id(out, answer.packet_id);
    if version == Version::V5 {
        put_set(out, version, &answer.properties);
        out.extend(answer.reasons.iter().map(|reason| reason.number()));
    }
}

/// Writes reason and properties as short as can be (MQTT 5.0 §3.14.2.1 and §3.14.2.2.1).
fn put_disconnect(out: &mut Vec<u8>, version: Version, disconnect: &Disconnect) -> Result<(), Unwritable> {
    let has_properties = disconnect.properties != DisconnectProperties::default();
    if version < Version::V5 {
        let is_normal = disconnect.reason == ReasonCode::Success;
        return if is_normal { Ok(()) } else { Err(Unwritable::NoSuchPacket) };
    }
    if disconnect.reason != ReasonCode::Success || has_properties {
        out.push(disconnect.reason.number());
    }
    if has_properties {
        put_set(out, version, &disconnect.properties);
    }
    Ok(())
}

fn put_auth(out: &mut Vec<u8>, version: Version, auth: &Auth) -> Result<(), Unwritable> {
    if version < Version::V5 {
        return Err(Unwritable::NoSuchPacket);
    }
    let is_bare = auth.reason == ReasonCode::Success && auth.properties.method.is_none();
    if !is_bare {
        out.push(auth.reason.number());
        put_set(out, version, &auth.properties);
    }
    Ok(())
}
