//! What outlives a connection (MQTT 5.0 §4.1): subscriptions, messages that the client has not acknowledged, and those at QoS 2
//! that it has not released. Where the subscriptions stood is for others to know, and so is how long this is kept.

use std::collections::BTreeMap;

use super::label::Wish;
use super::packet::{PacketId, Version};
use super::subscriptions::Filter;
use super::window::Unacknowledged;
use crate::model::topic::Pattern;

/// Of one session.
#[derive(Debug)]
pub struct Memory {
    /// Packets are kept as they were written in this version.
    pub(super) version: Version,
    /// What it is subscribed to.
    pub(super) standing: BTreeMap<Filter, Wish>,
    /// What it was sent at QoS 1.
    pub(super) unacknowledged: Vec<Unacknowledged>,
    /// What it published at QoS 2, was confirmed and is not to be published again.
    pub(super) unreleased: Vec<PacketId>,
}

impl Memory {
    /// Whether it is subscribed to a pattern, by itself.
    pub fn listens_to(&self, pattern: &Pattern) -> bool {
        self.standing.contains_key(&Filter::Own(pattern.clone()))
    }

    /// Of a session that was not subscribed to anything.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self { version: Version::V5, standing: BTreeMap::new(), unacknowledged: Vec::new(), unreleased: Vec::new() }
    }
}
