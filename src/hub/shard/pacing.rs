//! Subscriptions that are sent so many messages a second at most. They are never pushed anything: what they want waits in
//! the log, from where they are sent it in their own time, as their flow says. One that has nothing to read costs nothing.

use std::ops::Range;
use std::time::Instant;

use crate::hub::index::SubscriberId;
use crate::hub::log::{LogGap, ReadBounds};
use crate::hub::shard::lane::{Lane, Member};
use crate::hub::shard::pace::{Room, charge};
use crate::hub::shard::reading::{self, Logs};
use crate::hub::shard::subscription::{Part, Progress, Rest, Subscription};
use crate::hub::shard::words::Lost;
use crate::hub::shard::{CursorForm, Missed, Replay, Shard, SubscriptionId, Wait};
use crate::model::flow::Flow;
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, SourceId};

/// Subscriptions of one session that have ended and still send others what those were not sent for their sake.
const PARTING_MAX: usize = 16;

/// How much may be read in a step, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) bounds: ReadBounds,
    pub(super) now: Instant,
}

impl Shard {
    /// Keeps a publication from being pushed to those whom a paced subscription sends it, and has these read it.
    pub(super) fn hold_back(&mut self, number: usize, publication: &Publication, woken: &mut Vec<SubscriberId>) {
        let (Some(lane), subscribers) = (self.lanes.get_mut(number), &self.subscribers) else { return };
        let mut idle: Vec<Member> = Vec::new();
        lane.paced.fan_out(&publication.draft, |members| {
            for (id, subscription) in members {
                let Some(subscriber) = subscribers.get(id.index()) else { continue };
                let place = subscriber.subscriptions.binary_search_by_key(&subscription.0, |known| known.id.0);
                let Some(found) = place.ok().and_then(|place| subscriber.subscriptions.get(place)) else { continue };
                if !found.governs(publication) {
                    continue;
                }
                if subscriber.subscriptions.len() > 1 {
                    self.turn.withhold(*id);
                }
                let part = found.part(publication.source.id);
                if part.is_some_and(|part| matches!(part.progress, Progress::Live { .. })) {
                    idle.push((*id, *subscription));
                }
            }
        });
        for (id, subscription) in idle {
            self.begin_to_read(id, subscription, publication);
            woken.push(id);
        }
    }

    /// A paced subscription that has been sent everything before a publication reads on from there.
    fn begin_to_read(&mut self, id: SubscriberId, subscription: SubscriptionId, publication: &Publication) {
        let source = publication.source.id;
        let Some(lane) = self.lanes.get(source.index()) else { return };
        let before = lane.place_before(publication.offset - 1);
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        if subscriber.form == Some(CursorForm::Joint) {
            return self.read_on_from(id, source, before);
        }
        let found = subscriber.subscriptions.iter_mut().find(|known| known.id == subscription);
        let part = found.and_then(|found| found.parts.iter_mut().find(|part| part.source == source));
        if let Some(part) = part
            && let Progress::Live { since } = part.progress
        {
            part.progress = Progress::Behind { since, read: before.max(since) };
        }
    }

    /// The next piece for a subscriber of whose subscriptions some are paced.
    pub(super) fn replay_in_time(&mut self, id: SubscriberId, step: Step) -> Replay {
        let mut replay = Replay::default();
        self.retire(id);
        if self.is_joint(id) {
            self.step_together(id, step, &mut replay);
        } else {
            self.step_separately(id, step, &mut replay);
            self.settle_losses(id, &mut replay);
        }
        if !replay.progressed && replay.caught_up.is_empty() {
            replay.wait = self.wait_of(id, step.now);
        }
        replay
    }

    /// With a joint cursor nothing runs ahead: everything is one sequence, which goes on when the next message may be sent.
    fn step_together(&mut self, id: SubscriberId, step: Step, replay: &mut Replay) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let room = Room::of_all(&subscriber.subscriptions, step.now);
        if subscriber.subscriptions.iter().any(Subscription::is_behind) {
            *replay = self.read_on_behind(id, step.bounds, room);
        } else {
            replay.asked_for = true;
            let mut logs = Logs { lanes: &self.lanes, passages: &mut self.passages, bounds: step.bounds, room };
            reading::replay_jointly(subscriber, &mut logs, replay);
            replay.caught_up = self.go_live_together(id);
        }
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        replay.publications().for_each(|publication| charge(&mut subscriber.subscriptions, publication, step.now));
    }

    /// One step of the first that may go on: of those that are paced and late, of all others that are behind, of those that
    /// replay what they asked for.
    fn step_separately(&mut self, id: SubscriberId, step: Step, replay: &mut Replay) {
        let count = self.subscribers.get(id.index()).map_or(0, |subscriber| subscriber.subscriptions.len());
        for number in 0..count {
            self.step_late(id, number, step, replay);
            if replay.progressed {
                return;
            }
        }
        if self.is_behind_unpaced(id) {
            let looked_at = replay.looked_at;
            *replay = self.read_on_behind(id, step.bounds, Room::Any);
            replay.looked_at += looked_at;
        }
        if replay.progressed {
            return;
        }
        replay.asked_for = true;
        for number in 0..count {
            self.step_asked_for(id, (number, &[]), step, replay);
            if replay.progressed || !replay.caught_up.is_empty() {
                return;
            }
        }
    }

    fn is_behind_unpaced(&self, id: SubscriberId) -> bool {
        let is_behind = |one: &Subscription| one.is_behind() && !one.is_paced();
        self.subscribers.get(id.index()).is_some_and(|subscriber| subscriber.subscriptions.iter().any(is_behind))
    }

    /// What is live and comes late, because it is paced.
    fn step_late(&mut self, id: SubscriberId, number: usize, step: Step, replay: &mut Replay) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let all = &mut subscriber.subscriptions;
        if !all.get(number).is_some_and(|one| one.is_paced() && one.is_behind()) {
            return;
        }
        let room = Room::of(all, number, step.now);
        if room.is_empty() {
            return;
        }
        let is_bound = room.is_bound();
        let mut logs = Logs { lanes: &self.lanes, passages: &mut self.passages, bounds: step.bounds, room };
        reading::read_alone_behind(all, (number, self.drop_oldest_keep), &mut logs, replay);
        let sent = replay.publications().count();
        let Some(one) = all.get_mut(number) else { return };
        if is_bound {
            one.take_tokens(sent, step.now);
        }
        replay.progressed |= rest_where_level(one, &self.lanes);
        self.tell_heirs(id, number, replay);
    }

    /// The gaps of one that has ended are those of others: except what these were told when it happened.
    fn tell_heirs(&self, id: SubscriberId, number: usize, replay: &mut Replay) {
        let Some(subscriber) = self.subscribers.get(id.index()) else { return };
        let Some(ended) = subscriber.subscriptions.get(number).filter(|one| one.is_parting()) else { return };
        for gap in std::mem::take(&mut replay.gaps) {
            let lane = self.lanes.iter().find(|lane| lane.info().name == gap.source);
            if let Some(lane) = lane.filter(|_| gap.reason == GapReason::Slow) {
                replay.gaps.extend(heirs(ended, &subscriber.subscriptions, lane));
            }
        }
    }

    /// What had left the log before a paced subscription came to it is missed by others too, which had left it to that.
    fn settle_losses(&mut self, id: SubscriberId, replay: &mut Replay) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let all = &mut subscriber.subscriptions;
        for lost in std::mem::take(&mut replay.lost) {
            let Some(lane) = self.lanes.get(lost.source.index()) else { continue };
            let Some(number) = all.iter().position(|one| one.id == lost.subscription) else { continue };
            let loser = all.get(number).filter(|one| one.is_paced() && !one.is_parting());
            let others = all.iter().filter(|other| other.id != lost.subscription && !other.is_parting());
            for (one, other) in others.filter_map(|other| Some((loser?, other))) {
                replay.gaps.extend(lost_by_both(all, (one, other), lane, &lost).map(|gap| other.missed(lane, gap)));
            }
            let mut parts = all.get_mut(number).into_iter().flat_map(|one| &mut one.parts);
            if let Some(part) = parts.find(|part| part.source == lost.source) {
                part.lost = Some(Box::new(lost.span));
            }
        }
    }

    /// For what a subscriber waits that has something to read and read nothing.
    fn wait_of(&self, id: SubscriberId, now: Instant) -> Wait {
        let mut wait = Wait::default();
        let Some(subscriber) = self.subscribers.get(id.index()) else { return wait };
        let all = &subscriber.subscriptions;
        let joint = subscriber.form == Some(CursorForm::Joint);
        for (number, one) in all.iter().enumerate().filter(|(_, one)| one.is_replaying() || one.is_behind()) {
            if Room::of(all, number, now).is_empty() {
                let at = one.refilled_at(now);
                wait.until = Some(wait.until.map_or(at, |until| until.min(at)));
            } else {
                // In a common sequence another one's message may be the next.
                wait.shard |= !joint;
            }
        }
        wait.shard |= wait.until.is_none();
        wait
    }

    /// A subscription has ended. What others were not sent for its sake it goes on to send them, unless too many do so: then
    /// they are told that they miss it.
    pub(super) fn part(&mut self, id: SubscriberId, ended: Subscription, rest: Rest) -> Vec<Missed> {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return Vec::new() };
        if subscriber.form != Some(CursorForm::Separate) {
            return Vec::new();
        }
        let known = subscriber.subscriptions.iter().filter_map(|one| one.pace.as_ref());
        let number = known.filter_map(|pace| pace.ended()).max().unwrap_or(0) + 1;
        let Some(ended) = ended.into_parting(&self.lanes, rest, number) else { return Vec::new() };
        let place = subscriber.subscriptions.partition_point(|one| one.id.0 < ended.id.0);
        subscriber.subscriptions.insert(place, ended);
        self.retire(id);
        self.give_up(id)
    }

    /// Forgets the first of too many that have ended. Returns who misses what it had still to send.
    fn give_up(&mut self, id: SubscriberId) -> Vec<Missed> {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return Vec::new() };
        let all = &mut subscriber.subscriptions;
        if all.iter().filter(|one| one.is_parting()).count() <= PARTING_MAX {
            return Vec::new();
        }
        let Some(first) = all.iter().position(Subscription::is_parting) else { return Vec::new() };
        let ended = all.remove(first);
        let left = ended.parts.iter().filter(|part| part.is_behind());
        let lanes = left.filter_map(|part| self.lanes.get(part.source.index()));
        lanes.flat_map(|lane| heirs(&ended, all, lane)).collect()
    }

    /// Forgets subscriptions that have ended, when all others have come as far as these governed.
    fn retire(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let all = &mut subscriber.subscriptions;
        if !all.iter().any(Subscription::is_parting) {
            return;
        }
        let standing = || all.iter().filter(|one| !one.is_waiting());
        let is_awaited = standing().any(|one| !one.is_parting());
        let floor = |lane: &Lane| standing().filter_map(|one| one.floor(lane.info().id, lane.position())).min();
        let floors: Vec<Option<u64>> = self.lanes.iter().map(floor).collect();
        let is_done = |part: &Part, until: u64| match floors.get(part.source.index()) {
            Some(Some(floor)) if is_awaited => !part.is_behind() && *floor >= until,
            _ => true,
        };
        all.retain(|one| match &one.pace {
            Some(pace) if one.is_parting() => {
                !one.parts.iter().all(|part| is_done(part, pace.reigns_until(part.source)))
            }
            _ => true,
        });
    }
}

/// Where nothing waits in the log any more a paced subscription rests until something comes. Whether it was so anywhere.
fn rest_where_level(one: &mut Subscription, lanes: &[Lane]) -> bool {
    let mut any = false;
    let ended = one.pace.as_ref().filter(|pace| pace.ended().is_some());
    let parting_until = |source| ended.map(|pace| pace.reigns_until(source));
    let is_level = |source: SourceId, read: u64| match parting_until(source) {
        Some(until) => read >= until,
        None => lanes.get(source.index()).is_some_and(|lane| lane.position() == read),
    };
    for part in &mut one.parts {
        if let Progress::Behind { since, read } = part.progress
            && is_level(part.source, read)
        {
            part.progress = Progress::Live { since };
            any = true;
        }
    }
    any
}

/// What one that has ended cannot send any more of a source is missed by those who counted on it.
fn heirs<'a>(ended: &'a Subscription, all: &'a [Subscription], lane: &'a Lane) -> impl Iterator<Item = Missed> + 'a {
    let source = lane.info().id;
    let until = ended.pace.as_ref().map_or(0, |pace| pace.reigns_until(source));
    let counted = move |one: &&Subscription| {
        let began = one.part(source).is_some_and(|part| part.began < until);
        began && !one.is_parting() && !one.is_waiting()
    };
    let missed = |one: &Subscription| Missed {
        subscription: one.id,
        pattern: one.wanted.pattern.clone(),
        source: lane.info().name.clone(),
        reason: GapReason::Slow,
        missed: None,
    };
    all.iter().filter(counted).map(missed)
}

/// What another one misses of a stretch of which a paced one found something gone: what that governed and it had come past
/// itself. What follows it learns when it reads on, and what it has learned so it knows.
fn lost_by_both(
    all: &[Subscription],
    (one, other): (&Subscription, &Subscription),
    lane: &Lane,
    lost: &Lost,
) -> impl Iterator<Item = LogGap> {
    let missed = |span: Range<u64>| {
        if span.is_empty() || is_ruled(all, (one, other), (lost.source, &span)) {
            return None;
        }
        let log = lane.state().log();
        let gap = match one.flow {
            // What was superseded nobody misses.
            Flow::Latest => log.lost_topics(&one.wanted, &other.wanted.pattern, span.start, lane.position()),
            Flow::CatchUp | Flow::DropOldest => {
                log.left_by_both([&one.wanted.pattern, &other.wanted.pattern], span.start, span.end)
            }
        };
        Some(LogGap { reason: lost.reason, ..gap?.filtered(&one.wanted).filtered(&other.wanted) })
    };
    left_to((one, other), lane, lost).into_iter().flatten().filter_map(missed)
}

/// The stretches of a lost one that another had left to a paced one.
fn left_to((one, other): (&Subscription, &Subscription), lane: &Lane, lost: &Lost) -> Option<[Range<u64>; 2]> {
    let part = other.part(lost.source).filter(|_| !other.is_waiting())?;
    let start = one.pace.as_ref()?.reigns_after(lost.source)?.max(lost.span.start).max(part.began);
    let end = other.floor(lost.source, lane.position())?.min(lost.span.end);
    let told = part.lost.as_deref().cloned().unwrap_or(end..end);
    Some([start..end.min(told.start), start.max(told.end)..end])
}

/// Whether a stricter one than a paced one governed all of a stretch that this and another want: then it sent that.
fn is_ruled(
    all: &[Subscription],
    (one, other): (&Subscription, &Subscription),
    (source, span): (SourceId, &Range<u64>),
) -> bool {
    let wants_all = |ruler: &Subscription| {
        let pattern = &ruler.wanted.pattern;
        ruler.wanted.filter.is_none()
            && (pattern.includes(&one.wanted.pattern) || pattern.includes(&other.wanted.pattern))
    };
    let rules = |ruler: &Subscription| {
        let pace = ruler.pace.as_ref().filter(|_| ruler.is_stricter_than(one));
        pace.is_some_and(|pace| {
            pace.reigns_after(source).is_some_and(|after| after <= span.start) && span.end <= pace.reigns_until(source)
        })
    };
    all.iter().any(|ruler| rules(ruler) && wants_all(ruler))
}
