//! Messages of groups (shared subscriptions, MQTT 5.0 §4.8.2). Each is a delivery of the group's queue, which is settled when
//! the client acknowledges the packet, so that what it does not acknowledge goes to another member.

use std::collections::{BTreeMap, VecDeque};

use super::answers::Answers;
use super::codec::Mqtt;
use super::label::{Publisher, Wanted, Wish};
use super::packet::{Acknowledgement, PacketId, Qos};
use crate::model::delivery::{Delivery, DeliveryTag, Settlement, Share};
use crate::protocol::{Command, Consumed, HandOut, Outbound, Said, Stage};

/// Messages of one group that one member may hold, where it takes so many.
const PREFETCH_MAX: u16 = 64;

/// What a session holds of its groups' queues.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// What came while the client took no more, the oldest first. Bounded by what the queues send ahead.
    waiting: VecDeque<Delivery>,
    /// What it was sent and has not acknowledged.
    sent: BTreeMap<PacketId, DeliveryTag>,
}

impl Shares {
    /// These are held no more: the broker took them back.
    pub(super) fn revoke(&mut self, tags: &[DeliveryTag]) {
        self.waiting.retain(|delivery| !tags.contains(&delivery.tag));
        self.sent.retain(|_, tag| !tags.contains(tag));
    }
}

impl Mqtt {
    /// Makes the client a member of a group, which it stays where it is one already.
    pub(super) fn join(&self, share: Share, answers: Answers) -> Command {
        Command::Consume {
            id: answers.into_id(),
            queue: Consumed::Share(share),
            prefetch: Some(self.window.max().min(PREFETCH_MAX)),
            exclusive: false,
        }
    }

    /// Makes it none. What it has not been sent goes to others.
    pub(super) fn part(&mut self, share: Share, answers: Answers) -> Command {
        self.give_back(&share.name);
        Command::Cancel { id: answers.into_id(), queue: share.name }
    }

    /// Returns what waits of a group: to others, or to come again on other terms.
    pub(super) fn give_back(&mut self, queue: &str) {
        let is_anothers = |one: &Delivery| *one.queue != *queue;
        let waiting = std::mem::take(&mut self.shares.waiting).into_iter();
        let (kept, returned): (VecDeque<Delivery>, VecDeque<Delivery>) = waiting.partition(is_anothers);
        self.shares.waiting = kept;
        self.said.extend(returned.iter().map(|one| settle(one.tag, Settlement::Requeue)));
    }

    /// A message of a group.
    pub(super) fn take_share(&mut self, delivery: Delivery) -> HandOut {
        let Some((share, wish)) = self.subscriptions.group(&delivery.queue) else {
            return HandOut::Settled(None, Settlement::Requeue);
        };
        // The binding key also brings what is routed by it and has another topic: by the key of all that is retained, or by
        // one beside its own (CC, BCC).
        if !share.pattern.matches(&delivery.draft.topic) {
            return HandOut::Settled(None, Settlement::Acknowledge);
        }
        let is_acknowledged = wish.qos > Qos::AtMostOnce;
        if is_acknowledged && !(self.shares.waiting.is_empty() && self.has_room_for_share()) {
            self.shares.waiting.push_back(delivery);
            return HandOut::Kept;
        }
        match self.write_share(&wish, &delivery) {
            Ok(outbound) if is_acknowledged => HandOut::Written(outbound),
            Ok(outbound) => HandOut::Settled(Some(outbound), Settlement::Acknowledge),
            Err(settlement) => HandOut::Settled(None, settlement),
        }
    }

    /// Whether the client takes one more at QoS 1: half of what it takes is for groups where others of its subscriptions need
    /// room too.
    fn has_room_for_share(&self) -> bool {
        let max = usize::from(self.window.max());
        let within_half = self.shares.sent.len() < (max / 2).max(1);
        self.window.room() > 0 && (within_half || !self.subscriptions.needs().acknowledgements)
    }

    /// The packet of a message of a group; what becomes of the message where the client is not sent it.
    fn write_share(&mut self, wish: &Wish, delivery: &Delivery) -> Result<Outbound, Settlement> {
        let Delivery { tag, draft, .. } = delivery;
        // What begins with a dollar is not meant by a filter that begins with a wildcard.
        let wanted = Wanted::of_wishes([*wish], draft, Publisher::Other).ok_or(Settlement::Acknowledge)?;
        // Coming again it would be no smaller: it is the broker's to keep it as a dead letter.
        let written = self.written_for((draft, Stage::Live), &wanted, None);
        let (outbound, packet_id) = written.ok_or(Settlement::Discard)?;
        self.shares.sent.extend(packet_id.map(|packet_id| (packet_id, *tag)));
        Ok(outbound)
    }

    /// The client has acknowledged a packet: at QoS 1 with a reason from 0x80 on it will not have the message, and nobody else
    /// is to get it either (MQTT 5.0 §4.8.2).
    pub(super) fn settle_share(&mut self, answer: &Acknowledgement) {
        if let Some(tag) = self.shares.sent.remove(&answer.packet_id) {
            let settlement = if answer.reason.is_failure() { Settlement::Discard } else { Settlement::Acknowledge };
            self.said.push_back(settle(tag, settlement));
        }
    }

    /// Sends what has waited, as far as the client takes it now.
    pub(super) fn say_waiting(&mut self) {
        while self.has_room_for_share() {
            let Some(delivery) = self.shares.waiting.pop_front() else { break };
            let written = match self.subscriptions.member(&delivery.queue) {
                Some(wish) => self.write_share(&wish, &delivery),
                None => Err(Settlement::Requeue),
            };
            self.said.push_back(match written {
                Ok(outbound) => Said::Delivered(outbound),
                Err(settlement) => settle(delivery.tag, settlement),
            });
        }
    }
}

fn settle(tag: DeliveryTag, settlement: Settlement) -> Said {
    Said::Command(Command::Settle { id: Answers::Settled.into_id(), tag: Some(tag), settlement })
}
