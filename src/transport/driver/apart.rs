//! Connections that are not sent just what others are: messages go to several subscriptions under names of their own, or
//! each has something of the session's in it. They take their sequence message by message, in the order of the turn.

use bytes::Bytes;

use crate::hub::index::SubscriberId;
use crate::hub::outbox::Overflow;
use crate::hub::shard::{Replay, Replayed, SubscriptionId};
use crate::hub::turn::{Delivery, Encode, EnvelopeId};
use crate::model::cursor::JointCursor;
use crate::model::label::Label;
use crate::model::publication::Publication;
use crate::protocol::{Labels, Message, Receiving, Stage};
use crate::session::SubscriptionKey;
use crate::transport::driver::Driver;
use crate::transport::driver::connection::Connection;
use crate::transport::driver::plan::{Form, Plan};

/// What one connection was sent.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sent {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Driver {
    /// Brings a connection's plan up to date with what is live.
    pub(super) fn plan_again(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        let form = Form::of(connection.protocol, connection.framing);
        if form.labels != Labels::Absent && self.shard.has_changed(subscriber) {
            let plan = form.plan(subscriber, &self.shard, &connection.session, &mut self.wire);
            std::mem::replace(&mut connection.plan, plan).release(&mut self.wire);
        }
    }

    /// Sends what a turn brought to a connection with several names for it.
    ///
    /// # Errors
    /// [`Overflow`], as for [`Connection::deliver`].
    pub(super) fn deliver_apart(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
    ) -> Result<Sent, Overflow> {
        let sequence = self.shard.turn().0.sequence(subscriber);
        let mut frames = Vec::with_capacity(sequence.len());
        for envelope in sequence {
            self.frames_of(envelope, connection, &mut frames);
        }
        // A subscription may not want what its pattern matches.
        frames.retain(|frame| !frame.is_empty());
        let messages = frames.len() as u64;
        let bytes = connection.deliver(Delivery::Frames(&frames), self.behind_bytes, &mut self.copy_buffer)?;
        Ok(Sent { messages, bytes: bytes as u64 })
    }

    fn frames_of(&mut self, envelope: EnvelopeId, connection: &mut Connection, frames: &mut Vec<Bytes>) {
        let (turn, positions) = self.shard.turn();
        match &mut connection.plan {
            Plan::One(encoding) => {
                frames.push(turn.frame(envelope, *encoding, &mut self.wire.at(positions, Stage::Live)));
            }
            Plan::Several(several) => {
                for labels in several.copies(turn.publication(envelope)) {
                    if let Some(encoding) = several.encoding(&labels, &mut self.wire) {
                        frames.push(turn.frame(envelope, encoding, &mut self.wire.at(positions, Stage::Live)));
                        continue;
                    }
                    let encoding = self.wire.acquire(connection.protocol, connection.framing, &labels);
                    let publication = turn.publication(envelope);
                    frames.push(self.wire.at(positions, Stage::Live).encode(encoding, publication));
                    self.wire.release(encoding);
                }
            }
        }
    }

    /// Sends what a turn brought to a session that writes each message itself, as far as it takes them; from there on it
    /// goes on from the log.
    pub(super) fn deliver_own(&mut self, subscriber: SubscriberId, connection: &mut Connection) -> Sent {
        let mut sent = Sent::default();
        let mut last = None;
        for envelope in self.shard.turn().0.sequence(subscriber) {
            let publication = self.shard.turn().0.publication(envelope).clone();
            // What waits may only not have been written yet.
            if !self.has_room(connection) {
                connection.flush();
            }
            if !self.has_room(connection) {
                self.fall_behind_after(subscriber, connection, last);
                break;
            }
            for labels in connection.plan.copies(&publication, &self.wire) {
                self.write_own(connection, &publication, (&labels, Stage::Live), &mut sent);
            }
            last = Some(publication.offset);
        }
        connection.flush();
        sent
    }

    /// Whether a session that writes its messages itself takes one more now.
    fn has_room(&self, connection: &Connection) -> bool {
        connection.outbox.bytes() <= self.behind_bytes && connection.room() > 0
    }

    fn write_own(
        &mut self,
        connection: &mut Connection,
        publication: &Publication,
        (labels, stage): (&[Label], Stage),
        sent: &mut Sent,
    ) {
        let message = Message { publication, positions: &[], stage, labels };
        let Some(outbound) = connection.codec.message(message) else { return };
        let frame = self.wire.frame(connection.framing, &outbound);
        self.shared.metrics.encodes(connection.protocol, 1);
        sent.messages += 1;
        sent.bytes += frame.len() as u64;
        connection.note_sent();
        connection.outbox.push(frame);
    }

    /// What a step of a replay found, for a protocol with labels or a session that writes its messages itself.
    pub(super) fn send_replay_apart(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        replay: &Replay,
    ) -> Sent {
        let stage = if replay.asked_for { Stage::Replay } else { Stage::Live };
        let mut sent = Sent::default();
        if let Some((subscription, excerpt)) = &replay.excerpt {
            for publication in excerpt.publications() {
                let one = Replayed {
                    publication: publication.clone(),
                    position: JointCursor::default(),
                    subscription: *subscription,
                };
                self.send_replayed(subscriber, connection, (&one, stage), &mut sent);
            }
        }
        for one in &replay.messages {
            self.send_replayed(subscriber, connection, (one, stage), &mut sent);
        }
        connection.note_sent();
        sent
    }

    fn send_replayed(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        (one, stage): (&Replayed, Stage),
        sent: &mut Sent,
    ) {
        let labels = self.labels_of(subscriber, connection, one);
        if connection.codec.receiving() != Receiving::Shared {
            return self.write_own(connection, &one.publication, (&labels, stage), sent);
        }
        let encoding = self.wire.acquire(connection.protocol, connection.framing, &labels);
        let frame = self.wire.at(self.shard.positions(), stage).encode(encoding, &one.publication);
        self.wire.release(encoding);
        if frame.is_empty() {
            return;
        }
        sent.messages += 1;
        sent.bytes += frame.len() as u64;
        connection.outbox.push(frame);
    }

    /// The labels with which a message of a replay comes.
    fn labels_of(&self, subscriber: SubscriberId, connection: &Connection, one: &Replayed) -> Vec<Label> {
        let label = |id: SubscriptionId| connection.session.label(SubscriptionKey(id.0)).cloned();
        match Form::of(connection.protocol, connection.framing).labels {
            Labels::Absent => Vec::new(),
            Labels::Each => label(one.subscription).into_iter().collect(),
            Labels::Together => {
                let mut labels: Vec<Label> =
                    self.shard.wanting(subscriber, &one.publication).filter_map(label).collect();
                labels.sort();
                labels.dedup();
                labels
            }
        }
    }
}
