//! Subscribers that read too slowly. Their subscriptions leave the index, so that they cost the others nothing, and go on
//! from the log when the socket takes more again: all of them together, each message once, in the order of the log.

use crate::hub::index::SubscriberId;
use crate::hub::log::ReadBounds;
use crate::hub::shard::lane::Lane;
use crate::hub::shard::pace::{Room, any_paced, governor};
use crate::hub::shard::reading::{Logs, Reader, read_together, settle_positions};
use crate::hub::shard::subscription::{Progress, SentBefore, Subscription};
use crate::hub::shard::{CursorForm, Replay, Shard, SubscriptionId, Wait};
use crate::model::publication::SourceId;

impl Shard {
    /// Stops pushing a source's messages to a subscriber whose socket takes no more. What comes after the offset `read`, the
    /// number before that of the first message which it was not sent, [`Shard::replay`] brings from the log.
    pub fn fall_behind(&mut self, id: SubscriberId, source: SourceId, read: u64) {
        let read = self.lanes.get(source.index()).map_or(read, |lane| lane.place_before(read));
        self.read_on_from(id, source, read);
    }

    /// Stops pushing likewise, of what comes after a position.
    pub fn read_on_from(&mut self, id: SubscriberId, source: SourceId, read: u64) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let joint = subscriber.form == Some(CursorForm::Joint);
        subscriber.changed = true;
        for subscription in &mut subscriber.subscriptions {
            for part in subscription.parts.iter_mut().filter(|part| joint || part.source == source) {
                let Some(lane) = self.lanes.get_mut(part.source.index()) else { continue };
                part.progress = match part.progress {
                    Progress::Live { since } => {
                        if subscription.pace.is_none() {
                            lane.live.leave(&subscription.wanted, id);
                        }
                        // Of all other sources everything was sent up to where the shard is.
                        let read = if part.source == source { read.max(since) } else { lane.position() };
                        Progress::Behind { since, read }
                    }
                    // It began to read the log within the turn that was not sent.
                    Progress::Behind { since, read: known } if part.source == source => {
                        Progress::Behind { since, read: known.min(read).max(since) }
                    }
                    other => other,
                };
            }
        }
    }

    /// The shard itself was too slow for a stream's log: everybody who is live reads on from the stream.
    pub(super) fn everybody_falls_behind(&mut self, lane: usize, position: u64) -> Vec<SubscriberId> {
        let Some(source) = self.lanes.get(lane).map(|lane| lane.info().id) else { return Vec::new() };
        let everybody = (0..self.subscribers.len() as u32).map(SubscriberId);
        let fallen = everybody.filter(|id| {
            self.read_on_from(*id, source, position);
            self.is_behind(*id)
        });
        fallen.collect()
    }

    /// A stream was made anew: everybody who had begun to read the one before begins again where it does.
    pub(super) fn begin_anew(&mut self, lane: usize) {
        let Some(lane) = self.lanes.get(lane) else { return };
        let (source, remade, since) = (lane.info().id, lane.remade(), lane.position());
        self.passages.clear();
        for subscriber in &mut self.subscribers {
            let paces = subscriber.subscriptions.iter_mut().filter_map(|subscription| subscription.pace.as_mut());
            paces.for_each(|pace| pace.begin_anew(source));
            let parts = subscriber.subscriptions.iter_mut().flat_map(|subscription| &mut subscription.parts);
            for part in parts.filter(|part| part.source == source && part.has_begun_before(remade)) {
                (part.began, part.sent, part.judged_until, part.lost) = (0, SentBefore::default(), 0, None);
                part.progress = match part.progress {
                    waiting @ Progress::Waiting { .. } => waiting,
                    Progress::Reading { .. } => Progress::Reading { read: 0 },
                    // The index knows what passes by from here on.
                    Progress::Live { .. } => Progress::Live { since },
                    Progress::Behind { .. } => Progress::Behind { since: 0, read: 0 },
                };
            }
        }
    }

    /// Where a subscription began beyond the shard, nothing was asked for again: what comes there is live, and late. What the
    /// subscriber's others are sent of the same source comes with it, in order.
    pub(super) fn read_late(&mut self, id: SubscriberId, subscription: SubscriptionId) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let Some(late) = subscriber.subscriptions.iter_mut().find(|known| known.id == subscription) else { return };
        let mut sources = Vec::new();
        for part in &mut late.parts {
            if let Progress::Reading { read } = part.progress {
                part.progress = Progress::Behind { since: read, read };
                sources.push(part.source);
            }
        }
        // A paced one has its own place in the log, and nobody waits for it.
        if late.is_paced() && subscriber.form != Some(CursorForm::Joint) {
            return;
        }
        for source in sources {
            let Some(lane) = self.lanes.get(source.index()) else { continue };
            self.read_on_from(id, source, lane.position());
        }
    }

    /// Whether a subscriber fell behind.
    pub fn is_behind(&self, id: SubscriberId) -> bool {
        self.subscribers
            .get(id.index())
            .is_some_and(|subscriber| subscriber.subscriptions.iter().any(Subscription::is_behind))
    }

    /// The next piece for a subscriber that fell behind; where nothing is left it is live again.
    ///
    /// Those that are paced are not among them, unless all are one sequence.
    pub(super) fn read_on_behind(&mut self, id: SubscriberId, bounds: ReadBounds, room: Room) -> Replay {
        let mut logs = Logs { lanes: &self.lanes, passages: &mut self.passages, bounds, room };
        let mut replay = Replay { wait: Wait { shard: true, until: None }, ..Replay::default() };
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return replay };
        let joint = subscriber.form == Some(CursorForm::Joint);
        for lane in subscriber.rotation.of(&self.lanes) {
            let source = lane.info().id;
            let mut readers: Vec<Reader<'_>> = subscriber
                .subscriptions
                .iter_mut()
                .filter(|one| joint || !one.is_paced())
                .filter_map(|one| one.reader(source, self.drop_oldest_keep))
                .collect();
            let found = read_together(&mut readers, (lane, subscriber.form), &mut logs, &mut replay);
            if joint {
                settle_positions(found, &subscriber.subscriptions, &self.lanes, &mut replay);
            } else {
                replay.messages = found;
            }
            if !replay.messages.is_empty() || replay.excerpt.is_some() {
                subscriber.rotation.pass(lane);
                break;
            }
        }
        if !joint && any_paced(&subscriber.subscriptions) {
            replay.retain(|publication| governor(&subscriber.subscriptions, publication).is_none());
        }
        let level = |lane: &Lane| {
            let late = subscriber.subscriptions.iter().filter(|one| joint || !one.is_paced());
            let parts = late.filter_map(|one| one.part(lane.info().id));
            parts.filter_map(|part| part.behind_at()).all(|read| read == lane.position())
        };
        let level: Vec<bool> = self.lanes.iter().map(level).collect();
        let all_level = level.iter().all(|level| *level);
        subscriber.changed = true;
        for (lane, level) in self.lanes.iter_mut().zip(level) {
            if level && (all_level || !joint) {
                let late = subscriber.subscriptions.iter_mut().filter(|one| joint || !one.is_paced());
                replay.progressed |= go_live_again(id, late, lane);
            }
        }
        replay
    }
}

/// Puts what fell behind in one lane back into the index; whether there was anything.
fn go_live_again<'a>(
    id: SubscriberId,
    subscriptions: impl Iterator<Item = &'a mut Subscription>,
    lane: &mut Lane,
) -> bool {
    let mut any = false;
    let source = lane.info().id;
    for subscription in subscriptions {
        for part in subscription.parts.iter_mut().filter(|part| part.source == source) {
            if let Progress::Behind { since, .. } = part.progress {
                if subscription.pace.is_none() {
                    lane.live.enter(&mut subscription.wanted, id);
                }
                part.progress = Progress::Live { since };
                any = true;
            }
        }
    }
    any
}
