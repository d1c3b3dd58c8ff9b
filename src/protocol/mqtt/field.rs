//! The fields of packets that are more than a number or a text, each with no value that no version allows: QoS 3, packet id 0
//! and the like do not exist.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use crate::protocol::mqtt::wire::{Binary, VARIABLE_INTEGER_MAX};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// 5.0: protocol name `MQTT`, level 5.
    V5,
}

impl Version {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::V31, Self::V311, Self::V5];

    /// The protocol name of its CONNECT (MQTT 5.0 §3.1.2.1, 3.1 §3.1).
    pub const fn protocol_name(self) -> &'static str {
        if matches!(self, Self::V31) { "MQIsdp" } else { "MQTT" }
    }

    /// The protocol level of its CONNECT (MQTT 5.0 §3.1.2.2, 3.1.1 §3.1.2.2).
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

/// What kind of packet, by its number in the fixed header (MQTT 5.0 §2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// §3.1
    Connect = 1,
    /// §3.2
    Connack = 2,
    /// §3.3
    Publish = 3,
    /// §3.4
    Puback = 4,
    /// §3.5
    Pubrec = 5,
    /// §3.6
    Pubrel = 6,
    /// §3.7
    Pubcomp = 7,
    /// §3.8
    Subscribe = 8,
    /// §3.9
    Suback = 9,
    /// §3.10
    Unsubscribe = 10,
    /// §3.11
    Unsuback = 11,
    /// §3.12
    Pingreq = 12,
    /// §3.13
    Pingresp = 13,
    /// §3.14
    Disconnect = 14,
    /// §3.15, 5.0 only
    Auth = 15,
}

impl PacketKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The kind of a number; 0 has none.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Quality of service (MQTT 5.0 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The quality of a number; 3 is none.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Names a packet until it is answered (MQTT 5.0 §2.2.1); never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub NonZeroU16);

/// Names a subscription in what is delivered for it (MQTT 5.0 §3.8.2.1.2): 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// An identifier, unless the number is 0 or too large.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).filter(|number| number.get() <= VARIABLE_INTEGER_MAX).map(Self)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

/// Binary data that no log may show.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(pub Binary);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// When retained messages are sent (MQTT 5.0 §3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// With every subscribe.
    Send = 0,
    /// When the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl RetainHandling {
    /// The handling of a number; 3 is none.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Send),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}
