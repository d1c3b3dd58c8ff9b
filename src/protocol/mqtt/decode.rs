//! What a packet's fixed header may say and what its body says, for every packet but CONNECT, by version and by who sent it.

use bytes::Bytes;

use crate::protocol::mqtt::packet::{
    Acknowledgement, Auth, Connack, Delivery, Disconnect, Packet, PacketId, PacketKind, Publish, PublishTopic, Qos,
    RetainHandling, Subscribe, Subscription, SubscriptionAcknowledgement, Transmission, Unsubscribe, Version,
};
use crate::protocol::mqtt::properties::{AuthProperties, DisconnectProperties, PublishProperties, ReasonProperties};
use crate::protocol::mqtt::property::read_set;
use crate::protocol::mqtt::reason::{ReasonCode, SUBACK_FAILURE, Violation};
use crate::protocol::mqtt::topic::{SHARE_PREFIX, is_topic_name};
use crate::protocol::mqtt::wire::Cursor;

/// Filters of one SUBSCRIBE or UNSUBSCRIBE. The standards have no limit; this keeps what a packet takes in memory near its size.
pub const FILTERS_MAX: usize = 1024;

// Flags of the fixed header of a PUBLISH (MQTT 5.0 §3.3.1).
const RETAIN: u8 = 0b0001;
const QOS: u8 = 0b0110;
const DUPLICATE: u8 = 0b1000;

/// Flags of the fixed header of PUBREL, SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 §2.1.3): what was once their QoS.
pub(super) const FLAGS_OF_QOS_1: u8 = 0b0010;

// Subscription Options (MQTT 5.0 §3.8.3.1).
const OPTION_QOS: u8 = 0b0000_0011;
const OPTION_NO_LOCAL: u8 = 0b0000_0100;
const OPTION_RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const OPTION_RETAIN_HANDLING_SHIFT: u8 = 4;
const OPTIONS_RESERVED: u8 = 0b1100_0000;

/// [MQTT-3.1.0-2], and of a client's side that no server sends one.
pub(super) const SECOND_CONNECT: Violation = Violation::protocol("a connection has one CONNECT, from the client");
const FLAGS: Violation = Violation::malformed("the flags of a fixed header are not those of its packet");
const QOS_3: Violation = Violation::malformed("PUBLISH with QoS 3");
const DUPLICATE_AT_QOS_0: Violation = Violation::malformed("PUBLISH with DUP at QoS 0");
const PACKET_ID_0: Violation = Violation::protocol("a packet id may not be 0");
const TOPIC_NAME: Violation =
    Violation { reason: ReasonCode::TopicNameInvalid, sentence: "a topic name may not hold wildcards or be empty" };
const NO_TOPIC: Violation = Violation::protocol("PUBLISH needs a topic name or a topic alias");
const SUBSCRIPTION_ID: Violation = Violation::protocol("a client's PUBLISH may not have a subscription identifier");
const NO_FILTER: Violation = Violation::protocol("SUBSCRIBE and UNSUBSCRIBE need at least one topic filter");
const TOO_MANY_FILTERS: Violation =
    Violation { reason: ReasonCode::QuotaExceeded, sentence: "a packet may have at most 1024 topic filters" };
const OPTIONS: Violation = Violation::malformed("reserved bits of subscription options are set");
const OPTIONS_QOS_3: Violation = Violation::protocol("a subscription with QoS 3");
const OPTIONS_RETAIN_HANDLING: Violation = Violation::protocol("a subscription with retain handling 3");
const OPTIONS_NO_LOCAL: Violation = Violation::protocol("a shared subscription may not have No Local");
const CONNACK_FLAGS: Violation = Violation::malformed("reserved flags of CONNACK are set");
const CONNACK_PRESENT: Violation = Violation::protocol("CONNACK with a session and a failure");
const CONNACK_CODE: Violation = Violation::protocol("a return code that CONNACK may not carry");
const SUBACK_CODE: Violation = Violation::protocol("a return code that SUBACK may not carry");
const NO_REASON: Violation = Violation::protocol("SUBACK and UNSUBACK need a reason code for each filter");
const SERVER_EXPIRY: Violation = Violation::protocol("a server's DISCONNECT may not have a session expiry");

/// Who sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// A packet whose bytes are all there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole<'a> {
    pub(super) sender: Sender,
    pub(super) version: Version,
    pub(super) kind: PacketKind,
    /// The four low bits of its first byte, which [`check_flags`] has seen.
    pub(super) flags: u8,
    /// Everything after its remaining length.
    pub(super) body: &'a [u8],
}

/// Whether a packet of this kind can come from here at all (MQTT 5.0 §2.1.2).
pub(super) fn may_send(sender: Sender, version: Version, kind: PacketKind) -> bool {
    match kind {
        PacketKind::Connect | PacketKind::Subscribe | PacketKind::Unsubscribe | PacketKind::Pingreq => {
            sender == Sender::Client
        }
        PacketKind::Connack | PacketKind::Suback | PacketKind::Unsuback | PacketKind::Pingresp => {
            sender == Sender::Server
        }
        PacketKind::Publish | PacketKind::Puback | PacketKind::Pubrec | PacketKind::Pubrel | PacketKind::Pubcomp => {
            true
        }
        PacketKind::Disconnect => sender == Sender::Client || version == Version::V5,
        PacketKind::Auth => version == Version::V5,
    }
}

/// Flags of a fixed header (MQTT 5.0 §2.1.3, 3.1.1 §2.2.2). 3.1 (§2.1) calls those unused that later versions reserve, lets
/// DUP stand in whatever has a QoS of 1, and does not speak of it at QoS 0.
pub(super) fn check_flags(version: Version, kind: PacketKind, flags: u8) -> Result<(), Violation> {
    let (expected, looked_at) = match kind {
        PacketKind::Publish => return check_publish_flags(version, flags),
        PacketKind::Pubrel | PacketKind::Subscribe | PacketKind::Unsubscribe => (FLAGS_OF_QOS_1, QOS),
        _ => (0, 0),
    };
    let looked_at = if version == Version::V31 { looked_at } else { 0b1111 };
    if flags & looked_at == expected { Ok(()) } else { Err(FLAGS) }
}

fn check_publish_flags(version: Version, flags: u8) -> Result<(), Violation> {
    match Qos::from_number((flags & QOS) >> 1) {
        None => Err(QOS_3),
        Some(Qos::AtMostOnce) if flags & DUPLICATE != 0 && version > Version::V31 => Err(DUPLICATE_AT_QOS_0),
        Some(_) => Ok(()),
    }
}

/// Flags of the fixed header of a PUBLISH that is to be written.
pub(super) fn publish_flags(delivery: Delivery, retain: bool) -> u8 {
    let duplicate = delivery.transmission().is_some_and(|transmission| transmission.duplicate);
    (delivery.qos() as u8) << 1 | if retain { RETAIN } else { 0 } | if duplicate { DUPLICATE } else { 0 }
}

/// The options of a subscription that is to be written: in 3.x the QoS alone (3.1.1 §3.8.3).
pub(super) fn subscription_options(version: Version, subscription: &Subscription) -> u8 {
    let qos = subscription.qos as u8;
    if version < Version::V5 {
        return qos;
    }
    let no_local = if subscription.no_local { OPTION_NO_LOCAL } else { 0 };
    let as_published = if subscription.retain_as_published { OPTION_RETAIN_AS_PUBLISHED } else { 0 };
    qos | no_local | as_published | (subscription.retain_handling as u8) << OPTION_RETAIN_HANDLING_SHIFT
}

impl Whole<'_> {
    /// What it says. CONNECT is read by [`super::connect`] and an error here.
    pub(super) fn packet(self) -> Result<Packet, Violation> {
        let mut cursor = Cursor::new(self.body);
        let packet = match self.kind {
            // A payload goes to the end by definition.
            PacketKind::Publish => return self.publish(cursor).map(|publish| Packet::Publish(Box::new(publish))),
            PacketKind::Connect => return Err(SECOND_CONNECT),
            PacketKind::Connack => Packet::Connack(Box::new(self.connack(&mut cursor)?)),
            PacketKind::Puback => Packet::Puback(self.acknowledgement(&mut cursor)?),
            PacketKind::Pubrec => Packet::Pubrec(self.acknowledgement(&mut cursor)?),
            PacketKind::Pubrel => Packet::Pubrel(self.acknowledgement(&mut cursor)?),
            PacketKind::Pubcomp => Packet::Pubcomp(self.acknowledgement(&mut cursor)?),
            PacketKind::Subscribe => Packet::Subscribe(self.subscribe(&mut cursor)?),
            PacketKind::Suback => Packet::Suback(self.suback(&mut cursor)?),
            PacketKind::Unsubscribe => Packet::Unsubscribe(self.unsubscribe(&mut cursor)?),
            PacketKind::Unsuback => Packet::Unsuback(self.suback(&mut cursor)?),
            PacketKind::Pingreq => Packet::Pingreq,
            PacketKind::Pingresp => Packet::Pingresp,
            PacketKind::Disconnect => Packet::Disconnect(self.disconnect(&mut cursor)?),
            PacketKind::Auth => Packet::Auth(self.auth(&mut cursor)?),
        };
        cursor.finish()?;
        Ok(packet)
    }

    fn connack(self, cursor: &mut Cursor<'_>) -> Result<Connack, Violation> {
        let flags = cursor.byte()?;
        let code = cursor.byte()?;
        // In 3.1 (§3.2) the whole byte is unused.
        let flags = if self.version == Version::V31 { 0 } else { flags };
        if flags & !1 != 0 {
            return Err(CONNACK_FLAGS);
        }
        let reason = if self.version == Version::V5 {
            ReasonCode::read(code, self.kind)?
        } else {
            ReasonCode::from_return_code(code).ok_or(CONNACK_CODE)?
        };
        let session_present = flags != 0;
        if session_present && reason.is_failure() {
            return Err(CONNACK_PRESENT);
        }
        Ok(Connack { session_present, reason, properties: read_set(self.version, cursor)? })
    }

    fn publish(self, mut cursor: Cursor<'_>) -> Result<Publish, Violation> {
        let name = cursor.text()?;
        let qos = Qos::from_number((self.flags & QOS) >> 1).ok_or(QOS_3)?;
        let duplicate = self.flags & DUPLICATE != 0;
        let delivery = match qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce(Transmission { packet_id: packet_id(&mut cursor)?, duplicate }),
            Qos::ExactlyOnce => Delivery::ExactlyOnce(Transmission { packet_id: packet_id(&mut cursor)?, duplicate }),
        };
        let PublishProperties { message, topic_alias, subscription_ids } = read_set(self.version, &mut cursor)?;
        if self.sender == Sender::Client && !subscription_ids.is_empty() {
            return Err(SUBSCRIPTION_ID);
        }
        let topic = match topic_alias {
            Some(alias) if name.is_empty() => PublishTopic::Aliased(alias),
            alias if is_topic_name(&name) => PublishTopic::Named { name, alias },
            // What 3.x calls invalid (§4.7.3) is in 5.0 a field that is missing (§3.3.2.1).
            _ if name.is_empty() && self.version == Version::V5 => return Err(NO_TOPIC),
            _ => return Err(TOPIC_NAME),
        };
        let payload = Bytes::copy_from_slice(cursor.rest());
        let retain = self.flags & RETAIN != 0;
        Ok(Publish { delivery, retain, topic, subscription_ids, properties: message, payload })
    }

    /// Reason and properties may be left out from the end (MQTT 5.0 §3.4.2.1); 3.x has neither.
    fn acknowledgement(self, cursor: &mut Cursor<'_>) -> Result<Acknowledgement, Violation> {
        let packet_id = packet_id(cursor)?;
        let (reason, properties) = if self.version < Version::V5 || cursor.is_empty() {
            (ReasonCode::Success, ReasonProperties::default())
        } else {
            let reason = ReasonCode::read(cursor.byte()?, self.kind)?;
            let is_over = cursor.is_empty();
            (reason, if is_over { ReasonProperties::default() } else { read_set(self.version, cursor)? })
        };
        Ok(Acknowledgement { packet_id, reason, properties })
    }

    fn subscribe(self, cursor: &mut Cursor<'_>) -> Result<Subscribe, Violation> {
        let packet_id = packet_id(cursor)?;
        let properties = read_set(self.version, cursor)?;
        let subscriptions = filters(cursor, |cursor| subscription(self.version, cursor))?;
        Ok(Subscribe { packet_id, properties, subscriptions })
    }

    fn unsubscribe(self, cursor: &mut Cursor<'_>) -> Result<Unsubscribe, Violation> {
        let packet_id = packet_id(cursor)?;
        let user = read_set(self.version, cursor)?;
        Ok(Unsubscribe { packet_id, user, filters: filters(cursor, Cursor::text)? })
    }

    /// SUBACK or UNSUBACK.
    fn suback(self, cursor: &mut Cursor<'_>) -> Result<SubscriptionAcknowledgement, Violation> {
        let packet_id = packet_id(cursor)?;
        let properties = read_set(self.version, cursor)?;
        if self.kind == PacketKind::Unsuback && self.version < Version::V5 {
            return Ok(SubscriptionAcknowledgement { packet_id, reasons: Vec::new(), properties });
        }
        let codes = cursor.take(cursor.rest().len())?;
        if codes.is_empty() {
            return Err(NO_REASON);
        }
        let reasons = codes.iter().map(|code| self.subscription_reason(*code)).collect::<Result<_, _>>()?;
        Ok(SubscriptionAcknowledgement { packet_id, reasons, properties })
    }

    fn subscription_reason(self, code: u8) -> Result<ReasonCode, Violation> {
        match code {
            _ if self.version == Version::V5 => ReasonCode::read(code, self.kind),
            0..=2 | SUBACK_FAILURE => ReasonCode::read(code, self.kind),
            _ => Err(SUBACK_CODE),
        }
    }

    /// Reason and properties may be left out from the end (MQTT 5.0 §3.14.2.1, §3.14.2.2.1); 3.x has neither.
    fn disconnect(self, cursor: &mut Cursor<'_>) -> Result<Disconnect, Violation> {
        let mut disconnect = Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
        if self.version == Version::V5 && !cursor.is_empty() {
            disconnect.reason = ReasonCode::read(cursor.byte()?, self.kind)?;
        }
        if self.version == Version::V5 && !cursor.is_empty() {
            disconnect.properties = read_set(self.version, cursor)?;
        }
        let is_expiry_from_server =
            self.sender == Sender::Server && disconnect.properties.session_expiry_seconds.is_some();
        if is_expiry_from_server { Err(SERVER_EXPIRY) } else { Ok(disconnect) }
    }

    /// Reason and properties may be left out together (MQTT 5.0 §3.15.2.1).
    fn auth(self, cursor: &mut Cursor<'_>) -> Result<Auth, Violation> {
        if cursor.is_empty() {
            return Ok(Auth { reason: ReasonCode::Success, properties: AuthProperties::default() });
        }
        let reason = ReasonCode::read(cursor.byte()?, self.kind)?;
        Ok(Auth { reason, properties: read_set(self.version, cursor)? })
    }
}

fn packet_id(cursor: &mut Cursor<'_>) -> Result<PacketId, Violation> {
    std::num::NonZeroU16::new(cursor.two_bytes()?).map(PacketId).ok_or(PACKET_ID_0)
}

/// All that is left, read by `one`: at least one [MQTT-3.8.3-2, MQTT-3.10.3-2] and at most [`FILTERS_MAX`].
fn filters<'a, T>(
    cursor: &mut Cursor<'a>,
    one: impl Fn(&mut Cursor<'a>) -> Result<T, Violation>,
) -> Result<Vec<T>, Violation> {
    let mut filters = Vec::new();
    while !cursor.is_empty() {
        if filters.len() == FILTERS_MAX {
            return Err(TOO_MANY_FILTERS);
        }
        filters.push(one(cursor)?);
    }
    if filters.is_empty() { Err(NO_FILTER) } else { Ok(filters) }
}

/// A filter with its options (MQTT 5.0 §3.8.3.1). 3.1.1 reserves all but the QoS [MQTT-3.8.3-4 of 3.1.1]; 3.1 does not use it.
fn subscription(version: Version, cursor: &mut Cursor<'_>) -> Result<Subscription, Violation> {
    let filter = cursor.text()?;
    let options = cursor.byte()?;
    let reserved = match version {
        Version::V31 => 0,
        Version::V311 => !OPTION_QOS,
        Version::V5 => OPTIONS_RESERVED,
    };
    if options & reserved != 0 {
        return Err(OPTIONS);
    }
    let qos = Qos::from_number(options & OPTION_QOS).ok_or(OPTIONS_QOS_3)?;
    let options = if version == Version::V5 { options } else { 0 };
    let no_local = options & OPTION_NO_LOCAL != 0;
    if no_local && filter.starts_with(SHARE_PREFIX) {
        return Err(OPTIONS_NO_LOCAL);
    }
    let handling = RetainHandling::from_number(options >> OPTION_RETAIN_HANDLING_SHIFT & 0b11);
    let retain_handling = handling.ok_or(OPTIONS_RETAIN_HANDLING)?;
    let retain_as_published = options & OPTION_RETAIN_AS_PUBLISHED != 0;
    Ok(Subscription { filter, qos, no_local, retain_as_published, retain_handling })
}
