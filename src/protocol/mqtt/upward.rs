//! What a client publishes and is not through with: topic aliases that it has given, messages at QoS 1 without their PUBACK,
//! and messages at QoS 2 that it has not released.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use super::packet::{PacketId, PublishTopic};
use super::reason::Violation;
use super::topic;
use crate::model::topic::Topic;

/// The topic name cannot be one of this server's.
pub(super) const BAD_NAME: Violation = Violation {
    reason: super::ReasonCode::TopicNameInvalid,
    sentence: "a topic name has 1 to 255 bytes, no + or #, and does not begin with $",
};

const ALIAS: Violation =
    Violation { reason: super::ReasonCode::TopicAliasInvalid, sentence: "a topic alias beyond the maximum" };
const NO_ALIAS: Violation = Violation::protocol("a topic alias that stands for no topic name");
const TOO_MANY: Violation = Violation {
    reason: super::ReasonCode::ReceiveMaximumExceeded,
    sentence: "more messages without PUBACK than the receive maximum of CONNACK",
};
const TOO_MANY_UNRELEASED: Violation = Violation {
    reason: super::ReasonCode::QuotaExceeded,
    sentence: "too many messages at QoS 2 without PUBREL: release some first",
};

/// Messages at QoS 2 of one client that it has not released.
const UNRELEASED_MAX: usize = 1024;

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Upward {
    aliases: BTreeMap<NonZeroU16, Topic>,
    unanswered: BTreeSet<PacketId>,
    unreleased: BTreeMap<PacketId, Received>,
}

/// How far a message at QoS 2 is (MQTT 3.1.1 §4.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The broker has not confirmed it yet.
    OnItsWay,
    /// PUBREC was sent: it is not to be published again.
    Confirmed,
}

impl Upward {
    /// Messages at QoS 1 of one client without PUBACK (Receive Maximum, MQTT 5.0 §3.2.2.3.3).
    pub(super) const RECEIVE_MAXIMUM: NonZeroU16 = NonZeroU16::new(1024).unwrap();

    /// Topic aliases of one client.
    pub(super) const ALIASES_MAX: u16 = 64;

    /// The topic that a message goes to.
    pub(super) fn topic(&mut self, named: &PublishTopic) -> Result<Topic, Violation> {
        let (name, alias) = match named {
            PublishTopic::Named { name, alias } => (name, *alias),
            PublishTopic::Aliased(alias) if alias.get() > Self::ALIASES_MAX => return Err(ALIAS),
            PublishTopic::Aliased(alias) => return self.aliases.get(alias).cloned().ok_or(NO_ALIAS),
        };
        if alias.is_some_and(|alias| alias.get() > Self::ALIASES_MAX) {
            return Err(ALIAS);
        }
        let topic = topic::topic_of(name).map_err(|_| BAD_NAME)?;
        if let Some(alias) = alias {
            self.aliases.insert(alias, topic.clone());
        }
        Ok(topic)
    }

    /// A message at QoS 1 came.
    pub(super) fn expect(&mut self, packet: PacketId) -> Result<(), Violation> {
        self.unanswered.insert(packet);
        let too_many = self.unanswered.len() > usize::from(Self::RECEIVE_MAXIMUM.get());
        if too_many { Err(TOO_MANY) } else { Ok(()) }
    }

    /// It is answered.
    pub(super) fn settle(&mut self, packet: PacketId) {
        self.unanswered.remove(&packet);
    }

    /// A message at QoS 2 came: how far it was before, if this is not the first time.
    pub(super) fn receive(&mut self, packet: PacketId) -> Result<Option<Received>, Violation> {
        if let Some(received) = self.unreleased.get(&packet) {
            return Ok(Some(*received));
        }
        if self.unreleased.len() == UNRELEASED_MAX {
            return Err(TOO_MANY_UNRELEASED);
        }
        self.unreleased.insert(packet, Received::OnItsWay);
        Ok(None)
    }

    /// The broker has it.
    pub(super) fn confirm(&mut self, packet: PacketId) {
        if let Some(received) = self.unreleased.get_mut(&packet) {
            *received = Received::Confirmed;
        }
    }

    /// What the broker has and the client has not released.
    pub(super) fn confirmed(&self) -> Vec<PacketId> {
        let confirmed = self.unreleased.iter().filter(|(_, received)| **received == Received::Confirmed);
        confirmed.map(|(packet, _)| *packet).collect()
    }

    /// These came on an earlier connection, and were confirmed.
    pub(super) fn restore(&mut self, confirmed: Vec<PacketId>) {
        self.unreleased.extend(confirmed.into_iter().map(|packet| (packet, Received::Confirmed)));
    }

    /// The client has released it. False when it was not known.
    pub(super) fn release(&mut self, packet: PacketId) -> bool {
        self.unreleased.remove(&packet).is_some()
    }
}
