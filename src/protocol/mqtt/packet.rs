//! The packets of MQTT, both ways, as values. What every version forbids cannot be written down: QoS 3, a packet id of 0, a
//! packet id or a duplicate at QoS 0, a topic that is neither named nor aliased.
//!
//! One type serves all versions: what a version does not have is absent when it was read, and left out or refused when it is
//! written, as [`super::writer`] says.

use std::num::NonZeroU16;

use bytes::Bytes;

use crate::protocol::mqtt::properties::{
    AuthProperties, ConnackProperties, ConnectProperties, DisconnectProperties, MessageProperties, ReasonProperties,
    SubscribeProperties, UserProperties, WillProperties,
};
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::{Binary, Text};

pub use crate::protocol::mqtt::field::{PacketId, PacketKind, Qos, RetainHandling, Secret, SubscriptionId, Version};

/// One packet. The large ones are boxed, so that an acknowledgement stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A client wants a session.
    Connect(Box<Connect>),
    /// The answer to it.
    Connack(Box<Connack>),
    /// A message.
    Publish(Box<Publish>),
    /// The answer to a message at QoS 1.
    Puback(Acknowledgement),
    /// The first answer to a message at QoS 2.
    Pubrec(Acknowledgement),
    /// What follows it.
    Pubrel(Acknowledgement),
    /// The last answer to a message at QoS 2.
    Pubcomp(Acknowledgement),
    /// A client wants messages.
    Subscribe(Subscribe),
    /// The answer to it.
    Suback(SubscriptionAcknowledgement),
    /// A client wants them no more.
    Unsubscribe(Unsubscribe),
    /// The answer to it. 3.x gives no reasons.
    Unsuback(SubscriptionAcknowledgement),
    /// A sign of life.
    Pingreq,
    /// The answer to it.
    Pingresp,
    /// The end. In 3.x only clients send it.
    Disconnect(Disconnect),
    /// A step of an authentication; 5.0 only.
    Auth(Auth),
}

impl Packet {
    /// Which kind of packet it is.
    pub const fn kind(&self) -> PacketKind {
        match self {
            Self::Connect(_) => PacketKind::Connect,
            Self::Connack(_) => PacketKind::Connack,
            Self::Publish(_) => PacketKind::Publish,
            Self::Puback(_) => PacketKind::Puback,
            Self::Pubrec(_) => PacketKind::Pubrec,
            Self::Pubrel(_) => PacketKind::Pubrel,
            Self::Pubcomp(_) => PacketKind::Pubcomp,
            Self::Subscribe(_) => PacketKind::Subscribe,
            Self::Suback(_) => PacketKind::Suback,
            Self::Unsubscribe(_) => PacketKind::Unsubscribe,
            Self::Unsuback(_) => PacketKind::Unsuback,
            Self::Pingreq => PacketKind::Pingreq,
            Self::Pingresp => PacketKind::Pingresp,
            Self::Disconnect(_) => PacketKind::Disconnect,
            Self::Auth(_) => PacketKind::Auth,
        }
    }
}

/// CONNECT (MQTT 5.0 §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version, from protocol name and level.
    pub version: Version,
    /// The client's id; empty where the server is to choose one (5.0), or need not know one (3.1.1).
    pub client_id: Text,
    /// Clean Start; in 3.x Clean Session, which also ends the session with the connection.
    pub clean_start: bool,
    /// Seconds within which something must come, times one and a half; 0 turns that off (§3.1.2.10).
    pub keep_alive_seconds: u16,
    /// What is published when the connection breaks.
    pub will: Option<Will>,
    /// Who it is.
    pub user_name: Option<Text>,
    /// Its proof.
    pub password: Option<Secret>,
    /// Empty in 3.x.
    pub properties: ConnectProperties,
}

/// A will: its flags (MQTT 5.0 §3.1.2.5 to §3.1.2.7) and its message (§3.1.3.2 to §3.1.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// A topic name: not empty, no wildcards.
    pub topic: Text,
    /// The message.
    pub payload: Binary,
    /// The quality at which it is published.
    pub qos: Qos,
    /// Whether it is published to be retained.
    pub retain: bool,
    /// Empty in 3.x.
    pub properties: WillProperties,
}

/// CONNACK (MQTT 5.0 §3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack {
    /// Whether the server has state of an earlier connection; false with a failure [MQTT-3.2.2-6] and in 3.1.
    pub session_present: bool,
    /// Success, or why not. For 3.x it is mapped by [`ReasonCode::return_code`].
    pub reason: ReasonCode,
    /// Empty in 3.x.
    pub properties: ConnackProperties,
}

/// PUBLISH (MQTT 5.0 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Its quality, and what belongs to that.
    pub delivery: Delivery,
    /// From a client: keep it for later subscribers. From a server: it was kept (§3.3.1.3).
    pub retain: bool,
    /// Where it goes.
    pub topic: PublishTopic,
    /// Of the subscriptions that it is delivered for; none from a client [MQTT-3.3.4-6], none in 3.x.
    pub subscription_ids: Vec<SubscriptionId>,
    /// Empty in 3.x.
    pub properties: MessageProperties,
    /// The message.
    pub payload: Bytes,
}

/// The quality of one PUBLISH (MQTT 5.0 §3.3.1.2) with what only the higher two have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(Transmission),
    /// QoS 2.
    ExactlyOnce(Transmission),
}

impl Delivery {
    /// The quality alone.
    pub const fn qos(self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce(_) => Qos::AtLeastOnce,
            Self::ExactlyOnce(_) => Qos::ExactlyOnce,
        }
    }

    /// What the higher two have.
    pub const fn transmission(self) -> Option<Transmission> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(transmission) | Self::ExactlyOnce(transmission) => Some(transmission),
        }
    }
}

/// One attempt to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmission {
    /// To be named in the answer.
    pub packet_id: PacketId,
    /// Whether it was sent before under this id (DUP, §3.3.1.1).
    pub duplicate: bool,
}

/// Where a PUBLISH goes (MQTT 5.0 §3.3.2.1 and §3.3.2.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishTopic {
    /// To a topic name: not empty, no wildcards.
    Named {
        /// The name.
        name: Text,
        /// What stands for it from now on; none in 3.x.
        alias: Option<NonZeroU16>,
    },
    /// To the name that an alias stands for.
    Aliased(NonZeroU16),
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5.0 §3.4 to §3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// What is answered.
    pub packet_id: PacketId,
    /// Always success in 3.x, which has no word for a failure.
    pub reason: ReasonCode,
    /// Empty in 3.x.
    pub properties: ReasonProperties,
}

/// SUBSCRIBE (MQTT 5.0 §3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// To be named in the answer.
    pub packet_id: PacketId,
    /// Empty in 3.x.
    pub properties: SubscribeProperties,
    /// What is wanted: at least one [MQTT-3.8.3-2].
    pub subscriptions: Vec<Subscription>,
}

/// One filter of a SUBSCRIBE with its options (MQTT 5.0 §3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic filter as it was sent: one that is not valid is answered in the SUBACK, not by an end.
    pub filter: Text,
    /// The highest quality that is wanted.
    pub qos: Qos,
    /// Nothing that this connection itself published; false in 3.x.
    pub no_local: bool,
    /// Keep the retain flag as it was published; false in 3.x.
    pub retain_as_published: bool,
    /// [`RetainHandling::Send`] in 3.x.
    pub retain_handling: RetainHandling,
}

/// SUBACK and UNSUBACK (MQTT 5.0 §3.9, §3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionAcknowledgement {
    /// What is answered.
    pub packet_id: PacketId,
    /// One for each filter, in their order; none in an UNSUBACK of 3.x.
    pub reasons: Vec<ReasonCode>,
    /// Empty in 3.x.
    pub properties: ReasonProperties,
}

/// UNSUBSCRIBE (MQTT 5.0 §3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// To be named in the answer.
    pub packet_id: PacketId,
    /// Empty in 3.x.
    pub user: UserProperties,
    /// What is wanted no more: at least one [MQTT-3.10.3-2].
    pub filters: Vec<Text>,
}

/// DISCONNECT (MQTT 5.0 §3.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Always success in 3.x.
    pub reason: ReasonCode,
    /// Empty in 3.x.
    pub properties: DisconnectProperties,
}

/// AUTH (MQTT 5.0 §3.15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Which step.
    pub reason: ReasonCode,
    /// What it brings.
    pub properties: AuthProperties,
}
