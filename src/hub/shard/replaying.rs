//! What a subscriber has asked for, piece by piece: subscriptions with a joint cursor together, others one after the other. Who
//! has fallen behind reads on first, because that is older.

use std::time::Instant;

use crate::hub::index::SubscriberId;
use crate::hub::log::ReadBounds;
use crate::hub::shard::pace::{Room, any_paced};
use crate::hub::shard::pacing::Step;
use crate::hub::shard::reading::{self, Logs};
use crate::hub::shard::subscriber::Subscriber;
use crate::hub::shard::subscription::Subscription;
use crate::hub::shard::{CursorForm, Replay, Shard, Wait};
use crate::model::publication::SourceId;

impl Shard {
    /// The next piece of a subscriber's replay, of about `bounds`; empty when it has none or waits.
    pub fn replay(&mut self, id: SubscriberId, bounds: ReadBounds, now: Instant) -> Replay {
        let mut replay = match self.subscribers.get(id.index()) {
            Some(subscriber) if any_paced(&subscriber.subscriptions) => self.replay_in_time(id, Step { bounds, now }),
            _ => self.replay_all(id, Step { bounds, now }),
        };
        if let Some(Subscriber { origin: Some(origin), .. }) = self.subscribers.get(id.index()) {
            replay.leave_out(origin);
        }
        replay
    }

    fn replay_all(&mut self, id: SubscriberId, step: Step) -> Replay {
        let Some(subscriber) = self.subscribers.get(id.index()) else { return Replay::default() };
        let joint = subscriber.form == Some(CursorForm::Joint);
        let behind = subscriber.behind();
        let mut looked_at = 0;
        if !behind.is_empty() {
            let replay = self.read_on_behind(id, step.bounds, Room::Any);
            if joint || replay.has_brought() {
                return replay;
            }
            looked_at = replay.looked_at;
        }
        let wait = Wait { shard: true, until: None };
        let mut replay = Replay { asked_for: true, wait, looked_at, ..Replay::default() };
        if joint {
            self.replay_together(id, step.bounds, &mut replay);
        } else {
            self.replay_in_order(id, step, (behind, &mut replay));
        }
        replay
    }

    fn replay_together(&mut self, id: SubscriberId, bounds: ReadBounds, replay: &mut Replay) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let mut logs = Logs { lanes: &self.lanes, passages: &mut self.passages, bounds, room: Room::Any };
        reading::replay_jointly(subscriber, &mut logs, replay);
        replay.caught_up = self.go_live_together(id);
    }

    /// One subscription after the other, each source in the order in which they asked. What waits for a page of one source
    /// keeps the others from that source, and from no other.
    fn replay_in_order(&mut self, id: SubscriberId, step: Step, (mut held, replay): (Vec<SourceId>, &mut Replay)) {
        let count = self.subscribers.get(id.index()).map_or(0, |subscriber| subscriber.subscriptions.len());
        for number in 0..count {
            self.step_asked_for(id, (number, &held), step, replay);
            if replay.has_brought() || !replay.caught_up.is_empty() {
                return;
            }
            let one = self.subscribers.get(id.index()).and_then(|subscriber| subscriber.subscriptions.get(number));
            held.extend(one.into_iter().flat_map(Subscription::read_sources));
        }
    }

    /// A step of what one subscription asked for, in its own time, but for what is `held` for others.
    pub(super) fn step_asked_for(
        &mut self,
        id: SubscriberId,
        (number, held): (usize, &[SourceId]),
        step: Step,
        replay: &mut Replay,
    ) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let form = subscriber.form;
        let all = &mut subscriber.subscriptions;
        if !all.get(number).is_some_and(Subscription::is_replaying) {
            return;
        }
        let room = Room::of(all, number, step.now);
        if room.is_empty() {
            return;
        }
        let mut logs = Logs { lanes: &self.lanes, passages: &mut self.passages, bounds: step.bounds, room };
        reading::replay_one(all, (number, form, held), &mut logs, replay);
        let sent = replay.publications().count();
        if let Some(one) = all.get_mut(number) {
            one.take_tokens(sent, step.now);
        }
        self.go_live(id, number, &mut replay.caught_up);
    }
}
