//! The properties of MQTT 5.0 (§2.2.2): for each packet the set of those that it may have.
//!
//! Which property belongs where stands in the `match` of each set; anything else is malformed (§2.2.2.2). A property that
//! comes twice is a protocol error, but for user properties, which keep their order, and for the subscription identifiers of
//! a PUBLISH. Packets of 3.x have no properties: their sets are empty. What an absent property means is said with each.

mod connection;

use std::num::NonZeroU16;

use crate::protocol::mqtt::packet::{Publish, PublishTopic, SubscriptionId};
use crate::protocol::mqtt::property::{self, NOT_HERE, PropertyList, ReadProperties, WriteProperties, flag, once};
use crate::protocol::mqtt::reason::{ReasonCode, Violation};
use crate::protocol::mqtt::topic::is_topic_name;
use crate::protocol::mqtt::wire::{Binary, Cursor, Text};

pub use connection::{AuthProperties, ConnackProperties, ConnectProperties, DisconnectProperties};

/// User properties of one packet. The standard has no limit; this keeps what a packet takes in memory near its size.
pub const USER_PROPERTIES_MAX: usize = 1024;

const TOO_MANY: Violation =
    Violation { reason: ReasonCode::QuotaExceeded, sentence: "a packet may have at most 1024 user properties" };
const ALIAS_0: Violation = Violation { reason: ReasonCode::TopicAliasInvalid, sentence: "a topic alias may not be 0" };
const SUBSCRIPTION_ID_0: Violation = Violation::protocol("a subscription identifier may not be 0");
const RESPONSE_TOPIC: Violation = Violation::protocol("a response topic may not hold wildcards or be empty");

/// User properties in their order [MQTT-3.3.2-18]; names may repeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserProperties(pub Vec<(Text, Text)>);

impl UserProperties {
    /// Reads one more.
    fn one(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        if self.0.len() == USER_PROPERTIES_MAX {
            return Err(TOO_MANY);
        }
        self.0.push((cursor.text()?, cursor.text()?));
        Ok(())
    }
}

/// Of a message: in PUBLISH (MQTT 5.0 §3.3.2.3) and in a will (§3.1.3.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageProperties {
    /// Whether the payload is said to be UTF-8; absent says nothing, as false does.
    pub payload_is_utf8: Option<bool>,
    /// Seconds for which the message is of use; absent: for ever. What is passed on is lessened by the time that it waited
    /// [MQTT-3.3.2-6].
    pub expiry_seconds: Option<u32>,
    /// The content type.
    pub content_type: Option<Text>,
    /// The topic name of an answer.
    pub response_topic: Option<Text>,
    /// What an answer is to bring back.
    pub correlation_data: Option<Binary>,
    /// User properties.
    pub user: UserProperties,
}

impl ReadProperties for MessageProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::PAYLOAD_FORMAT => once(&mut self.payload_is_utf8, flag(cursor)?),
            property::MESSAGE_EXPIRY => once(&mut self.expiry_seconds, cursor.four_bytes()?),
            property::CONTENT_TYPE => once(&mut self.content_type, cursor.text()?),
            property::RESPONSE_TOPIC => once(&mut self.response_topic, cursor.text()?),
            property::CORRELATION_DATA => once(&mut self.correlation_data, cursor.binary()?),
            property::USER_PROPERTY => self.user.one(cursor),
            _ => Err(NOT_HERE),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        // [MQTT-3.3.2-14]; and a topic name has at least one character [MQTT-4.7.3-1].
        let is_name = self.response_topic.as_ref().is_none_or(|topic| is_topic_name(topic));
        if is_name { Ok(()) } else { Err(RESPONSE_TOPIC) }
    }
}

impl MessageProperties {
    fn write_without_expiry(&self, list: &mut PropertyList) {
        list.flag(property::PAYLOAD_FORMAT, self.payload_is_utf8);
        list.text(property::CONTENT_TYPE, self.content_type.as_ref());
        list.text(property::RESPONSE_TOPIC, self.response_topic.as_ref());
        list.binary(property::CORRELATION_DATA, self.correlation_data.as_ref());
        list.user(&self.user);
    }
}

impl WriteProperties for MessageProperties {
    fn write(&self, list: &mut PropertyList) {
        list.four_bytes(property::MESSAGE_EXPIRY, self.expiry_seconds);
        self.write_without_expiry(list);
    }
}

/// What is of its receiver comes before what is of the message.
impl WriteProperties for Publish {
    fn write(&self, list: &mut PropertyList) {
        let alias = match &self.topic {
            PublishTopic::Named { alias, .. } => *alias,
            PublishTopic::Aliased(alias) => Some(*alias),
        };
        list.two_bytes(property::TOPIC_ALIAS, alias.map(NonZeroU16::get));
        list.four_bytes(property::MESSAGE_EXPIRY, self.properties.expiry_seconds);
        for id in &self.subscription_ids {
            list.variable_integer(property::SUBSCRIPTION_ID, Some(id.number()));
        }
        self.properties.write_without_expiry(list);
    }
}

/// Of a PUBLISH: those of its message, and what is of the connection.
#[derive(Debug, Default)]
pub(super) struct PublishProperties {
    pub(super) message: MessageProperties,
    pub(super) topic_alias: Option<NonZeroU16>,
    pub(super) subscription_ids: Vec<SubscriptionId>,
}

impl ReadProperties for PublishProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::TOPIC_ALIAS => once(&mut self.topic_alias, NonZeroU16::new(cursor.two_bytes()?).ok_or(ALIAS_0)?),
            property::SUBSCRIPTION_ID => {
                self.subscription_ids.push(subscription_id(cursor)?);
                Ok(())
            }
            _ => self.message.read(identifier, cursor),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        self.message.check()
    }
}

fn subscription_id(cursor: &mut Cursor<'_>) -> Result<SubscriptionId, Violation> {
    SubscriptionId::new(cursor.variable_integer()?).ok_or(SUBSCRIPTION_ID_0)
}

/// Of a will (MQTT 5.0 §3.1.3.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WillProperties {
    /// Seconds after the connection broke; absent: 0.
    pub delay_seconds: Option<u32>,
    /// Those of its message.
    pub message: MessageProperties,
}

impl ReadProperties for WillProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::WILL_DELAY => once(&mut self.delay_seconds, cursor.four_bytes()?),
            _ => self.message.read(identifier, cursor),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        self.message.check()
    }
}

impl WriteProperties for WillProperties {
    fn write(&self, list: &mut PropertyList) {
        list.four_bytes(property::WILL_DELAY, self.delay_seconds);
        self.message.write(list);
    }
}

/// Of everything that is answered with a reason: PUBACK to PUBCOMP, SUBACK, UNSUBACK (MQTT 5.0 §3.4.2.2 and its like).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReasonProperties {
    /// A sentence for people who look for the fault.
    pub reason_string: Option<Text>,
    /// User properties.
    pub user: UserProperties,
}

impl ReasonProperties {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user.0.is_empty()
    }
}

impl ReadProperties for ReasonProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::REASON_STRING => once(&mut self.reason_string, cursor.text()?),
            property::USER_PROPERTY => self.user.one(cursor),
            _ => Err(NOT_HERE),
        }
    }
}

impl WriteProperties for ReasonProperties {
    fn write(&self, list: &mut PropertyList) {
        list.text(property::REASON_STRING, self.reason_string.as_ref());
        list.user(&self.user);
    }
}

/// Of SUBSCRIBE (MQTT 5.0 §3.8.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscribeProperties {
    /// To be named in what is delivered for its subscriptions.
    pub id: Option<SubscriptionId>,
    /// User properties.
    pub user: UserProperties,
}

impl ReadProperties for SubscribeProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::SUBSCRIPTION_ID => once(&mut self.id, subscription_id(cursor)?),
            property::USER_PROPERTY => self.user.one(cursor),
            _ => Err(NOT_HERE),
        }
    }
}

impl WriteProperties for SubscribeProperties {
    fn write(&self, list: &mut PropertyList) {
        list.variable_integer(property::SUBSCRIPTION_ID, self.id.map(SubscriptionId::number));
        list.user(&self.user);
    }
}

/// Of UNSUBSCRIBE (MQTT 5.0 §3.10.2.1): nothing else.
impl ReadProperties for UserProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        if identifier == property::USER_PROPERTY { self.one(cursor) } else { Err(NOT_HERE) }
    }
}

impl WriteProperties for UserProperties {
    fn write(&self, list: &mut PropertyList) {
        list.user(self);
    }
}
