//! A shard: the sole owner of its subscribers. It reads on in every source's log, matches, and notes in a turn what each
//! subscriber is to be sent; it opens, resumes and ends subscriptions. Pure: it has no socket, no task and no clock, and
//! whoever drives it flushes the turn.
//!
//! A subscription that has something to catch up with is not in the index: it reads the log until it is where the shard
//! is, and only then goes live. So nothing is sent twice or too early, and no live message waits in a buffer meanwhile. Who
//! reads too slowly falls behind: it leaves the index and goes on from the log, as its subscriptions' flow says. A
//! subscription that is paced is never in the index, and reads the log at its own rate.

mod awaited;
mod behind;
mod bucket;
mod lane;
mod lapse;
mod pace;
mod pacing;
mod passages;
mod reading;
mod replaying;
mod subscriber;
mod subscription;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::hub::feed::Hub;
use crate::hub::index::SubscriberId;
use crate::hub::interest::Standing;
use crate::hub::log::ReadBounds;
use crate::hub::turn::Turn;
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::outgoing::RETAINED_KEY;
use crate::model::publication::{Publication, SourceId, SourceInfo};
use crate::model::selector::Selector;
use crate::model::topic::Pattern;
pub use awaited::{Awaited, Reached};
use lane::Lane;
pub use lane::SharedClaim;
pub use passages::Excerpt;
use passages::Passages;
use subscriber::{Subscriber, close, enter_paced};
use subscription::{Part, Progress, Rest, SentBefore, Subscription};
pub use words::{
    Activated, CaughtUp, CursorForm, Lapsed, Last, Missed, Notice, Opening, Place, Refusal, Replay, Replayed,
    SubscribeRequest, SubscriptionId, Taken, Wait,
};

/// The sole owner of its subscribers.
#[derive(Debug)]
pub struct Shard {
    lanes: Vec<Lane>,
    /// Where every source is, in the order of the lanes: part of each live message's joint cursor.
    positions: Vec<(Arc<SourceInfo>, u64)>,
    subscribers: Vec<Subscriber>,
    free: Vec<SubscriberId>,
    turn: Turn,
    next_lane: usize,
    /// Subscriptions of all subscribers that stand.
    subscriptions: usize,
    /// How many messages subscriptions that drop the oldest keep.
    drop_oldest_keep: usize,
    passages: Passages,
    /// Whether what is retained is claimed.
    keeps_retained: bool,
    /// Who does not want back what it publishes, by the name under which it does.
    origins: HashMap<Arc<str>, SubscriberId>,
}

impl Shard {
    /// A shard without subscribers that starts at the present end of every log.
    ///
    /// `drop_oldest_keep`: how many messages a subscription that fell behind and drops the oldest
    /// ([`crate::model::flow::Flow::DropOldest`]) is still sent.
    pub fn new(hub: &Hub, drop_oldest_keep: usize) -> Self {
        let lanes: Vec<Lane> = hub.sources().iter().map(|state| Lane::new(state.clone())).collect();
        let positions = lanes.iter().map(|lane| (lane.info().clone(), lane.position())).collect();
        Self {
            lanes,
            positions,
            subscribers: Vec::new(),
            free: Vec::new(),
            turn: Turn::default(),
            next_lane: 0,
            subscriptions: 0,
            drop_oldest_keep,
            passages: Passages::default(),
            keeps_retained: false,
            origins: HashMap::new(),
        }
    }

    /// Admits a subscriber. Its id is dense and is used again after it left.
    pub fn join(&mut self, form: CursorForm) -> SubscriberId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.subscribers.push(Subscriber::default());
            SubscriberId(self.subscribers.len() as u32 - 1)
        });
        if let Some(subscriber) = self.subscribers.get_mut(id.index()) {
            subscriber.form = Some(form);
        }
        self.turn.admit(id);
        id
    }

    /// Ends all its subscriptions and forgets it.
    pub fn leave(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        if subscriber.form.take().is_none() {
            return;
        }
        subscriber.was_told_of_outages = false;
        if let Some(origin) = subscriber.origin.take() {
            self.origins.remove(&origin);
        }
        self.silence(id);
        self.free.push(id);
    }

    /// Opens a subscription: interest in its pattern is claimed from now on.
    ///
    /// # Errors
    /// When it names a source that there is not.
    pub fn subscribe(&mut self, id: SubscriberId, request: SubscribeRequest) -> Result<Opening, Refusal> {
        let sources = self.sources_of(request.source.as_deref())?;
        let foreign = self.is_foreign(&request.after).then_some(Cursor::FOREIGN);
        let mut wanted = request.wanted;
        let mut parts = Vec::with_capacity(sources.len());
        let mut opening = Opening { claims: Vec::with_capacity(sources.len()), checks: Vec::new() };
        let mut checks = Vec::new();
        for source in sources {
            let lane = &mut self.lanes[source.index()];
            let (shared, claim) = lane.claim(&wanted.pattern);
            wanted.pattern = shared;
            let name = &lane.info().name;
            let after = request.after.of(name).or(foreign);
            let subscriber = self.subscribers.get(id.index()).filter(|_| after.is_some());
            let sent = subscriber.map(|subscriber| subscriber.sent(source, lane.position())).unwrap_or_default();
            let progress = Progress::Waiting { after };
            parts.push(Part { source, began: 0, sent, judged_until: 0, lost: None, remade: 0, progress });
            opening.claims.push(claim);
            checks.extend(after.and_then(|after| lane.check(after)).map(|check| (source, check)));
        }
        opening.checks = checks.iter().map(|(_, check)| check.clone()).collect();
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return Ok(opening) };
        subscriber.subscriptions.reserve_exact(1);
        let subscription = Subscription::new(request.id, wanted, request.last, request.flow, parts);
        subscriber.subscriptions.push(subscription.checked_by(checks).paced_at(request.max_rate));
        Ok(opening)
    }

    /// Whether cursors are of none of the sources here, as after a source was called otherwise: then nobody knows what was
    /// missed.
    fn is_foreign(&self, after: &JointCursor) -> bool {
        !after.0.is_empty() && self.lanes.iter().all(|lane| after.of(&lane.info().name).is_none())
    }

    /// From now on what is retained comes to this node's logs, whoever else wants it or does not.
    pub fn keep_retained(&mut self) {
        let Ok(key) = Pattern::parse(RETAINED_KEY) else { return };
        if !std::mem::replace(&mut self.keeps_retained, true) {
            self.lanes.iter_mut().for_each(|lane| _ = lane.claim(&key));
        }
    }

    /// Whether every claim of an opening stands and every cursor is judged, or the first refusal.
    ///
    /// # Errors
    /// The source's sentence.
    pub fn stands(opening: &Opening) -> Result<bool, Refusal> {
        let mut all = opening.checks.iter().all(|check| check.verdict().is_some());
        for claim in &opening.claims {
            match claim.standing() {
                Standing::Stands => {}
                Standing::Wanted => all = false,
                Standing::Refused(sentence) => return Err(Refusal::Refused(sentence)),
            }
        }
        Ok(all)
    }

    /// Starts a subscription whose bindings stand, and with a joint cursor all others that waited for it.
    ///
    /// An older subscription on the same pattern ends in the same moment, so that no message falls between the two.
    pub fn activate(&mut self, id: SubscriberId, subscription: SubscriptionId) -> Vec<Activated> {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return Vec::new() };
        let Some(found) = subscriber.subscriptions.iter_mut().find(|known| known.id == subscription) else {
            return Vec::new();
        };
        found.stands = true;
        if subscriber.form == Some(CursorForm::Joint) {
            if subscriber.subscriptions.iter().any(|known| !known.stands) {
                return Vec::new();
            }
            let waiting: Vec<SubscriptionId> =
                subscriber.subscriptions.iter().filter(|known| known.is_waiting()).map(|known| known.id).collect();
            let activated: Vec<Activated> = waiting.into_iter().filter_map(|waiting| self.start(id, waiting)).collect();
            self.merge_lists(id);
            self.go_live_together(id);
            if !activated.iter().any(|activated| activated.replay) {
                activated.iter().for_each(|activated| self.read_late(id, activated.id));
            }
            return activated;
        }
        let activated = self.start(id, subscription);
        if let Some(Activated { replay: false, .. }) = activated {
            self.read_late(id, subscription);
        }
        activated.into_iter().collect()
    }

    /// From now on a subscriber is not sent what is published under this name, which is its own.
    pub fn keep_own_from(&mut self, id: SubscriberId, origin: &Arc<str>) {
        if let Some(subscriber) = self.subscribers.get_mut(id.index())
            && subscriber.origin.is_none()
        {
            subscriber.origin = Some(origin.clone());
            self.origins.insert(origin.clone(), id);
        }
    }

    /// Ends a subscription. Returns what others of the subscriber miss thereby, which is nothing unless it was paced.
    pub fn unsubscribe(&mut self, id: SubscriberId, subscription: SubscriptionId) -> Vec<Missed> {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return Vec::new() };
        let Some(position) = subscriber.subscriptions.iter().position(|known| known.id == subscription) else {
            return Vec::new();
        };
        let ended = subscriber.subscriptions.remove(position);
        subscriber.subscriptions.shrink_to_fit();
        self.subscriptions -= usize::from(!ended.is_waiting());
        close(&mut self.lanes, id, &ended);
        subscriber.enter_again(&mut self.lanes, id, &ended.wanted);
        subscriber.changed = true;
        if ended.is_paced() { self.part(id, ended, Rest::Left) } else { Vec::new() }
    }

    /// Keeps the claims of a subscriber that is about to leave until a time: who comes back until then under another name
    /// finds everything bound as it was. There is room for so many only; what must not be given back is [`Self::places`].
    pub fn lease_claims(&mut self, id: SubscriberId, until: Instant) {
        let Some(subscriber) = self.subscribers.get(id.index()) else { return };
        for subscription in &subscriber.subscriptions {
            for part in &subscription.parts {
                if let Some(lane) = self.lanes.get_mut(part.source.index()) {
                    lane.lease(&subscription.wanted.pattern, until);
                }
            }
        }
    }

    /// Gives back what was to be kept until now, and says whether anything is still kept.
    pub fn end_leases(&mut self, now: Instant) -> bool {
        self.lanes.iter_mut().for_each(|lane| lane.end_leases(now));
        self.lanes.iter().any(|lane| lane.leases() > 0)
    }

    /// Ends all subscriptions of a subscriber that stays, because its session is over and only its farewell is not.
    pub fn silence(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let all = std::mem::take(&mut subscriber.subscriptions);
        for subscription in all.into_iter().filter(|one| !one.is_parting()) {
            self.subscriptions -= usize::from(!subscription.is_waiting());
            close(&mut self.lanes, id, &subscription);
        }
        self.turn.forget(id);
    }

    /// Whether a subscriber has something to be sent from the logs: to be asked when its socket has drained.
    pub fn has_replay(&self, id: SubscriberId) -> bool {
        let reads = |subscription: &Subscription| subscription.is_replaying() || subscription.is_behind();
        self.subscribers.get(id.index()).is_some_and(|subscriber| subscriber.subscriptions.iter().any(reads))
    }

    /// Whether some of it is what `last` brings: no cursor says how much of that was sent.
    pub fn has_list(&self, id: SubscriberId) -> bool {
        let subscriptions = self.subscribers.get(id.index()).map_or(&[][..], |subscriber| &subscriber.subscriptions);
        subscriptions.iter().any(Subscription::has_list)
    }

    /// Whether a subscriber's cursors are one joint cursor.
    pub fn is_joint(&self, id: SubscriberId) -> bool {
        self.subscribers.get(id.index()).is_some_and(|subscriber| subscriber.form == Some(CursorForm::Joint))
    }

    /// Where a subscriber stands in every source that it reads. With separate cursors that is told only where it holds for
    /// each of its subscriptions, because each takes it for its own.
    pub fn cursors(&self, id: SubscriberId) -> JointCursor {
        let Some(subscriber) = self.subscribers.get(id.index()) else { return JointCursor::default() };
        // Nothing was judged yet of the cursors that it came with: they are all it has, and stay so.
        if subscriber.form == Some(CursorForm::Joint) && subscriber.subscriptions.iter().any(Subscription::is_waiting) {
            return JointCursor::default();
        }
        let of_lane = |(info, position): &(Arc<SourceInfo>, u64)| {
            let floor = match subscriber.form {
                Some(CursorForm::Joint) => subscriber.floor(info.id, *position)?,
                _ => subscriber.common_floor(info.id, *position)?,
            };
            Some(info.named_cursor(floor))
        };
        JointCursor(self.positions.iter().filter_map(of_lane).collect())
    }

    /// The place of each of a subscriber's subscriptions, with its pattern.
    pub fn places(&self, id: SubscriberId) -> impl Iterator<Item = (Pattern, Place)> {
        let subscriptions = self.subscribers.get(id.index()).map_or(&[][..], |subscriber| &subscriber.subscriptions);
        subscriptions.iter().map(|one| {
            let lanes = one.parts.iter().filter_map(|part| self.lanes.get(part.source.index()));
            let claims = lanes.filter_map(|lane| lane.claimed(&one.wanted.pattern)).collect();
            (one.wanted.pattern.clone(), Place { after: one.cursors(&self.lanes), claims })
        })
    }

    /// Whether other subscriptions of a subscriber are live than when this was last asked.
    pub fn has_changed(&mut self, id: SubscriberId) -> bool {
        self.subscribers.get_mut(id.index()).is_some_and(|subscriber| std::mem::take(&mut subscriber.changed))
    }

    /// The subscriptions of a subscriber that are live, each with what it wants and the sources of which it is sent that.
    pub fn live(&self, id: SubscriberId) -> impl Iterator<Item = (SubscriptionId, &Selector, Vec<SourceId>)> {
        let subscriptions = self.subscribers.get(id.index()).map_or(&[][..], |subscriber| &subscriber.subscriptions);
        subscriptions.iter().filter_map(|subscription| {
            let sources: Vec<SourceId> = subscription.live_sources().collect();
            (!sources.is_empty()).then_some((subscription.id, &subscription.wanted, sources))
        })
    }

    /// The subscriptions of a subscriber that stand and want a message.
    pub fn wanting(&self, id: SubscriberId, publication: &Publication) -> impl Iterator<Item = SubscriptionId> {
        let subscriptions = self.subscribers.get(id.index()).map_or(&[][..], |subscriber| &subscriber.subscriptions);
        let wants = |one: &&Subscription| {
            !one.is_waiting() && one.part(publication.source.id).is_some() && one.wanted.matches(&publication.draft)
        };
        subscriptions.iter().filter(wants).map(|one| one.id)
    }

    /// Subscriptions of all subscribers that stand: everything that is published from now on comes to them.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// How often a filter was asked whether it lets a live message in: once for all who share pattern and filter.
    pub fn filters_asked(&self) -> u64 {
        self.lanes.iter().map(Lane::filters_asked).sum()
    }

    /// Where the shard is in every source.
    pub fn positions(&self) -> &[(Arc<SourceInfo>, u64)] {
        &self.positions
    }

    /// Likewise, as a subscriber's joint cursor has them: for what is encoded from it.
    pub fn positions_at(&self, cursor: &JointCursor) -> Vec<(Arc<SourceInfo>, u64)> {
        let offset = |name: &str| cursor.of(name).map(|cursor| cursor.offset);
        self.positions.iter().map(|(info, position)| (info.clone(), offset(&info.name).unwrap_or(*position))).collect()
    }

    /// The turn, to be flushed after [`Self::take`], with the positions that belong into its messages.
    pub fn turn(&mut self) -> (&mut Turn, &[(Arc<SourceInfo>, u64)]) {
        (&mut self.turn, &self.positions)
    }

    /// Those of its sources that have no broker, of which it is told now.
    pub fn tell_outages(&mut self, id: SubscriberId) -> Vec<Arc<str>> {
        let out: Vec<Arc<str>> =
            self.lanes_of(id).filter(|lane| lane.is_out()).map(|lane| lane.info().name.clone()).collect();
        if let Some(subscriber) = self.subscribers.get_mut(id.index()) {
            subscriber.was_told_of_outages |= !out.is_empty();
        }
        out
    }

    /// Whether any of its sources has lost its broker, which may be for long.
    pub fn has_lost_any(&self, id: SubscriberId) -> bool {
        self.lanes_of(id).any(Lane::is_lost)
    }

    fn lanes_of(&self, id: SubscriberId) -> impl Iterator<Item = &Lane> {
        let subscriber = self.subscribers.get(id.index());
        let reads = move |lane: &&Lane| subscriber.is_some_and(|known| known.floor(lane.info().id, 0).is_some());
        self.lanes.iter().filter(reads)
    }

    /// Takes the next turn: what one source has for this shard, matched and pushed.
    ///
    /// One source at a time, so that the positions of all others hold for every message of the turn.
    pub fn take(&mut self, bounds: ReadBounds) -> Taken {
        let mut taken = Taken::default();
        for _ in 0..self.lanes.len() {
            let number = self.next_lane % self.lanes.len();
            self.next_lane = number + 1;
            let read = self.lanes[number].read_on(bounds);
            self.positions[number].1 = self.lanes[number].position();
            if read.remade {
                self.begin_anew(number);
            }
            if let Some(position) = read.fallen {
                taken.fallen = self.everybody_falls_behind(number, position);
            }
            self.tell(number, &read, &mut taken.notices);
            for publication in read.publications {
                self.turn.open(publication.clone());
                self.hold_back(number, &publication, &mut taken.fallen);
                let turn = &mut self.turn;
                let origin = publication.draft.attributes.origin.as_ref();
                let publisher = origin.and_then(|origin| self.origins.get(origin));
                self.lanes[number].live.fan_out(&publication.draft, |subscribers| match publisher {
                    Some(publisher) => turn.push_to_others(subscribers, *publisher),
                    None => turn.push(subscribers),
                });
            }
            if read.something {
                taken.more = true;
                break;
            }
        }
        taken
    }

    /// Forgets what was read from logs and may be read again: nobody replays any more.
    pub fn forget_passages(&mut self) {
        self.passages.clear();
    }

    fn sources_of(&self, only: Option<&str>) -> Result<Vec<SourceId>, Refusal> {
        let all = self.lanes.iter().map(|lane| lane.info().id);
        let Some(name) = only else { return Ok(all.collect()) };
        let found = self.lanes.iter().find(|lane| &*lane.info().name == name).map(|lane| lane.info().id);
        found.map(|id| vec![id]).ok_or_else(|| Refusal::UnknownSource(name.to_owned()))
    }

    /// Decides where each part of a subscription starts, and ends the one that it replaces.
    fn start(&mut self, id: SubscriberId, subscription: SubscriptionId) -> Option<Activated> {
        let subscriber = self.subscribers.get_mut(id.index())?;
        let joint = subscriber.form == Some(CursorForm::Joint);
        let number = subscriber.subscriptions.iter().position(|known| known.id == subscription)?;
        let pattern = subscriber.subscriptions.get(number)?.wanted.pattern.clone();
        let is_older = |known: &Subscription| {
            known.id.0 < subscription.0 && known.wanted.pattern == pattern && !known.is_parting()
        };
        let replaces = subscriber.form != Some(CursorForm::Each);
        let older = subscriber.subscriptions.iter().position(is_older).filter(|_| replaces);
        let older = older.map(|older| subscriber.subscriptions.remove(older));
        // Another that is paced may have left to the older what the new one would leave to that.
        let is_ruled = subscriber.subscriptions.iter().any(|known| known.id != subscription && known.is_paced());
        let found = subscriber.subscriptions.iter_mut().find(|known| known.id == subscription)?;
        self.subscriptions += usize::from(found.is_waiting());
        let succeeds = older.as_ref().is_some_and(|older| found.succeeds(older)) && !is_ruled;
        let is_paced = found.is_paced();
        let rest = if succeeds { Rest::TakenOver } else { Rest::Left };
        let mut activated = found.start(&self.lanes, older.as_ref().map(|older| (older, rest)));
        enter_paced(&mut self.lanes, id, found);
        if let Some(older) = older {
            self.subscriptions -= usize::from(!older.is_waiting());
            close(&mut self.lanes, id, &older);
            if rest == Rest::TakenOver {
                let others = self.subscribers.get_mut(id.index()).map_or(&mut [][..], |known| &mut known.subscriptions);
                let senders: Vec<SubscriptionId> = others.iter().map(|other| other.id).collect();
                others.iter_mut().for_each(|other| other.note_successor((older.id, subscription), &senders));
            }
            if is_paced || older.is_paced() {
                activated.gaps.extend(self.part(id, older, rest));
            }
        }
        if !joint {
            let number =
                self.subscribers.get(id.index())?.subscriptions.iter().position(|known| known.id == subscription)?;
            self.go_live(id, number, &mut Vec::new());
        }
        Some(activated)
    }

    /// With a joint cursor, what several subscriptions want first is sent once, in order, unless it comes anyway.
    fn merge_lists(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let mut list: Vec<_> = subscriber.subscriptions.iter_mut().flat_map(Subscription::take_whole_list).collect();
        list.retain(|publication| !subscriber.subscriptions.iter().any(|one| one.owes(publication)));
        list.sort_by_key(|publication| (publication.source.id, publication.offset));
        list.dedup_by_key(|publication| (publication.source.id, publication.offset));
        if let Some(first) = subscriber.subscriptions.first_mut() {
            first.send_first(list);
        }
    }

    /// Puts those parts of a subscription into the index that are where the shard is.
    fn go_live(&mut self, id: SubscriberId, number: usize, caught_up: &mut Vec<CaughtUp>) {
        let Some(subscriber) = self.subscribers.get_mut(id.index()) else { return };
        let behind = subscriber.behind();
        subscriber.changed = true;
        let Some(subscription) = subscriber.subscriptions.get_mut(number) else { return };
        let replayed = subscription.is_replaying();
        if subscription.has_list() {
            return;
        }
        for part in &mut subscription.parts {
            let lane = &mut self.lanes[part.source.index()];
            let since = lane.position();
            if !part.is_level(lane) {
                continue;
            }
            // What others of the subscriber are still to be sent of this source comes before anything live.
            part.progress = if behind.contains(&part.source) {
                Progress::Behind { since, read: since }
            } else {
                if subscription.pace.is_none() {
                    lane.live.enter(&mut subscription.wanted, id);
                }
                Progress::Live { since }
            };
            // What follows nobody had sent when this was asked for.
            part.sent = SentBefore::default();
        }
        if replayed && !subscription.is_replaying() {
            caught_up.push(CaughtUp { id: subscription.id, cursors: subscription.cursors(&self.lanes) });
        }
    }

    /// With a joint cursor: everything goes live, or nothing does.
    fn go_live_together(&mut self, id: SubscriberId) -> Vec<CaughtUp> {
        let Some(subscriber) = self.subscribers.get(id.index()) else { return Vec::new() };
        let lanes = &self.lanes;
        let ready = subscriber.subscriptions.iter().all(|subscription| subscription.is_level(lanes));
        let count = subscriber.subscriptions.len();
        let mut caught_up = Vec::new();
        if ready {
            (0..count).for_each(|number| self.go_live(id, number, &mut caught_up));
        }
        caught_up
    }

    /// Notices of one lane to everybody who reads it.
    fn tell(&self, lane: usize, read: &lane::ReadOn, notices: &mut Vec<(SubscriberId, Notice)>) {
        if read.links.is_empty() && read.missed.is_empty() {
            return;
        }
        let info = self.lanes[lane].info();
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let id = SubscriberId(number as u32);
            if subscriber.floor(info.id, 0).is_none() {
                continue;
            }
            let is_concerned = !read.is_first_link || subscriber.was_told_of_outages;
            notices.extend(read.links.iter().filter(|_| is_concerned).map(|link| match link {
                lane::LinkChange::Down => (id, Notice::Outage(info.name.clone())),
                lane::LinkChange::Up => (id, Notice::Restored(info.name.clone())),
            }));
            for subscription in &subscriber.subscriptions {
                let heard = read.missed.iter().filter(|loss| subscription.hears(info.id, loss));
                let gaps = heard.filter_map(|loss| self.lanes[lane].gap(loss, &subscription.wanted));
                let missed = gaps.map(|gap| subscription.missed(&self.lanes[lane], gap));
                notices.extend(missed.map(|missed| (id, Notice::Gap(missed))));
            }
        }
    }
}

#[cfg(test)]
mod tests;
