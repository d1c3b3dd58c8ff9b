//! One subscription of one subscriber, in as many parts as it has sources, and how it catches up from their logs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::hub::archive::Check;
use crate::hub::log::{LogGap, ReadBounds, weight_bytes};
use crate::hub::shard::lane::{Lane, Loss, Rotation};
use crate::hub::shard::pace::{Pace, Room};
use crate::hub::shard::reading::{Reader, View};
use crate::hub::shard::{Activated, Last, Missed, SubscriptionId};
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::flow::Flow;
use crate::model::publication::{Publication, SourceId};
use crate::model::rate::Rate;
use crate::model::selector::Selector;

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) wanted: Selector,
    /// What becomes of its messages when it falls behind.
    pub(super) flow: Flow,
    /// Whether all its bindings stand.
    pub(super) stands: bool,
    /// One a source.
    pub(super) parts: Vec<Part>,
    /// Whose turn it is where it reads alone.
    pub(super) rotation: Rotation,
    /// Of one that is sent so many messages a second at most.
    pub(super) pace: Option<Box<Pace>>,
    /// What only a subscription with a replay has.
    catching_up: Option<Box<CatchingUp>>,
}

#[derive(Debug, Default)]
struct CatchingUp {
    last: Last,
    /// What the streams say to the cursors that it came with.
    checks: Vec<(SourceId, Arc<Check>)>,
    /// The newest messages that it asked for, still to be sent before anything else.
    list: VecDeque<Arc<Publication>>,
}

/// A subscription's share in one source.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) source: SourceId,
    /// Everything after this offset the session was sent or will be, by this one or for its sake.
    pub(super) began: u64,
    /// How far others of the subscriber had sent it everything when this was asked for: that comes again.
    pub(super) sent: SentBefore,
    /// Losses before this offset were told, or concern nobody, when it started.
    pub(super) judged_until: u64,
    /// The last stretch of which it was told that something had left the log: after its start, and with its end.
    pub(super) lost: Option<Box<Range<u64>>>,
    /// How often its stream had turned out to be another one when it started.
    pub(super) remade: u64,
    pub(super) progress: Progress,
}

/// How far the subscriptions of one subscriber had sent it everything of a source at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SentBefore {
    /// All that are not paced, and those that are and had come as far.
    pub(super) unpaced: u64,
    /// Each of the others.
    pub(super) paced: Box<[(SubscriptionId, u64)]>,
}

impl SentBefore {
    /// Whether a subscription had come beyond an offset.
    fn includes(&self, sender: SubscriptionId, offset: u64) -> bool {
        let paced = self.paced.iter().find(|(id, _)| *id == sender);
        offset <= paced.map_or(self.unpaced, |(_, read)| *read)
    }
}

/// How far a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// For its bindings.
    Waiting { after: Option<Cursor> },
    /// It reads the log: everything up to `read` was sent, as far as it wants it.
    Reading { read: u64 },
    /// It is in the index: everything after `since` was or will be sent live.
    Live { since: u64 },
    /// It was live, and its subscriber is too slow: what comes after `read` it is sent from the log, as its flow says.
    Behind { since: u64, read: u64 },
}

/// What becomes of what a subscription that has ended had still to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It goes on to send it.
    Left,
    /// Another one sends it.
    TakenOver,
}

impl CatchingUp {
    fn check(&self, source: SourceId) -> Option<&Check> {
        self.checks.iter().find(|(known, _)| *known == source).map(|(_, check)| &**check)
    }
}

impl Part {
    /// Whether it has read as far as the shard is, and that is not before what its start has judged: until then it is sent
    /// what it asked for.
    pub(super) fn is_level(&self, lane: &Lane) -> bool {
        self.progress == Progress::Reading { read: lane.position() } && lane.position() >= self.judged_until
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(self.progress, Progress::Behind { .. })
    }

    /// Whether it has begun to read a stream that had turned out to be another one less often.
    pub(super) fn has_begun_before(&self, remade: u64) -> bool {
        !matches!(self.progress, Progress::Waiting { .. }) && self.remade < remade
    }

    /// How far it was sent everything, if it fell behind.
    pub(super) fn behind_at(&self) -> Option<u64> {
        match self.progress {
            Progress::Behind { read, .. } => Some(read),
            Progress::Waiting { .. } | Progress::Reading { .. } | Progress::Live { .. } => None,
        }
    }
}

impl Subscription {
    pub(super) fn new(id: SubscriptionId, wanted: Selector, last: Last, flow: Flow, parts: Vec<Part>) -> Self {
        let catching_up =
            (last.each > 0 || last.retained).then(|| Box::new(CatchingUp { last, ..CatchingUp::default() }));
        let rotation = Rotation::default();
        Self { id, wanted, flow, stands: false, parts, rotation, pace: None, catching_up }
    }

    /// With a bound on how many messages a second it is sent.
    pub(super) fn paced_at(mut self, rate: Option<Rate>) -> Self {
        self.pace = rate.map(|rate| Box::new(Pace::new(Some(rate))));
        self
    }

    /// With the questions whether its cursors are genuine.
    pub(super) fn checked_by(mut self, checks: Vec<(SourceId, Arc<Check>)>) -> Self {
        if !checks.is_empty() {
            self.catching_up.get_or_insert_default().checks = checks;
        }
        self
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.progress, Progress::Waiting { .. }))
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.has_list() || self.parts.iter().any(|part| matches!(part.progress, Progress::Reading { .. }))
    }

    pub(super) fn is_behind(&self) -> bool {
        self.parts.iter().any(Part::is_behind)
    }

    pub(super) fn has_list(&self) -> bool {
        self.catching_up.as_ref().is_some_and(|catching_up| !catching_up.list.is_empty())
    }

    /// Whether nothing keeps it from being live.
    pub(super) fn is_level(&self, lanes: &[Lane]) -> bool {
        !self.has_list()
            && self.parts.iter().all(|part| match part.progress {
                Progress::Waiting { .. } => false,
                Progress::Reading { .. } => lanes.get(part.source.index()).is_some_and(|lane| part.is_level(lane)),
                Progress::Live { .. } | Progress::Behind { .. } => true,
            })
    }

    /// Whether it is told of a loss at once: not while it reads the log, where it will come by, and not again of what its
    /// start has told.
    pub(super) fn hears(&self, source: SourceId, loss: &Loss) -> bool {
        let is_live = |part: &Part| matches!(part.progress, Progress::Live { .. });
        let is_told = |part: &Part| match loss {
            Loss::Hole(hole) => is_live(part) && hole.until > part.judged_until,
            Loss::Overrun { .. } => is_live(part),
            Loss::Remade { times } => part.has_begun_before(*times),
        };
        self.part(source).is_some_and(is_told) && !self.is_parting()
    }

    /// How far everything of a source was sent, once it has begun there.
    fn has_begun_at(&self, lane: &Lane) -> Option<u64> {
        self.floor(lane.info().id, lane.position()).filter(|_| !self.is_waiting())
    }

    /// How far everything of a source was sent; `position` is where the shard is.
    pub(super) fn floor(&self, source: SourceId, position: u64) -> Option<u64> {
        self.part(source).map(|part| match part.progress {
            Progress::Waiting { after } => after.map_or(position, |cursor| cursor.offset.min(position)),
            Progress::Reading { read } | Progress::Behind { read, .. } => read,
            Progress::Live { .. } => position,
        })
    }

    /// Where it stands in each of its sources. A cursor of which nothing was judged yet stays what it is.
    pub(super) fn cursors(&self, lanes: &[Lane]) -> JointCursor {
        let of_part = |part: &Part| {
            let lane = lanes.get(part.source.index())?;
            if let Progress::Waiting { after: Some(after) } = part.progress {
                return Some((lane.info().name.to_string(), after));
            }
            Some(lane.info().named_cursor(self.floor(part.source, lane.position())?))
        };
        JointCursor(self.parts.iter().filter_map(of_part).collect())
    }

    /// Decides where each part begins, with what was missed. Where it is not told, that is where the subscription that it
    /// replaces has come to.
    pub(super) fn start(&mut self, lanes: &[Lane], replaced: Option<(&Self, Rest)>) -> Activated {
        let mut gaps = Vec::new();
        let mut cursors = JointCursor::default();
        let mut resumed = true;
        let mut list = Vec::new();
        let mut replay = false;
        for part in &mut self.parts {
            let Progress::Waiting { after } = part.progress else { continue };
            let Some(lane) = lanes.get(part.source.index()) else { continue };
            let check = self.catching_up.as_ref().and_then(|catching_up| catching_up.check(part.source));
            let log = lane.state().log();
            // The shard may be a little behind the log; what is not asked for begins where the binding stands.
            let mut read = log.end();
            part.remade = lane.state().remade();
            let older = replaced.and_then(|(older, _)| Some((older.part(part.source)?, older.has_begun_at(lane)?)));
            // What was retained comes as often as it is asked for.
            if let Some(last) = self.catching_up.as_ref().map(|catching_up| catching_up.last)
                && last.retained
            {
                list.extend(log.retained(&self.wanted, last.total_max));
            }
            if let Some(cursor) = after {
                let resume = lane.resume(&log, &self.wanted.pattern, (cursor, check));
                read = resume.read_after;
                part.began = read;
                replay |= read < log.end();
                part.judged_until = resume.judged_until;
                resumed &= resume.gaps.is_empty();
                gaps.extend(
                    resume.gaps.iter().map(|gap| missed((self.id, &self.wanted), lane, gap.filtered(&self.wanted))),
                );
            } else {
                resumed = false;
                part.began = read;
                if let Some((older, sent)) = older {
                    read = sent;
                    (part.began, part.sent, part.lost) = (older.began, older.sent.clone(), older.lost.clone());
                    (part.judged_until, part.remade) = (older.judged_until, older.remade);
                }
                if let Some(catching_up) = &self.catching_up {
                    let newest = log.newest(&self.wanted, catching_up.last.each, catching_up.last.total_max);
                    // What follows comes in any case.
                    list.extend(newest.into_iter().take_while(|publication| publication.offset <= read));
                }
            }
            cursors.0.push(lane.info().named_cursor(read));
            if let Some((older, Rest::Left)) = replaced
                && (older.is_paced() || self.pace.is_some())
                && after.is_none()
                && lane.remade() == part.remade
            {
                // What comes before that the older one goes on to send; where the shard was in a stream that is no more says
                // nothing of this one.
                read = read.max(lane.position());
            }
            if let Some(pace) = &mut self.pace {
                // Nobody was sent anything beyond the shard. What is asked for again may come twice.
                let asked_for = after.map_or(0, |_| lane.position());
                let taken_over = replaced.filter(|(_, rest)| *rest == Rest::TakenOver);
                let of_older = taken_over.and_then(|(older, _)| older.pace.as_ref()?.reigns_after(part.source));
                pace.reign(part.source, read.max(asked_for).max(of_older.unwrap_or(0)));
            }
            part.progress = Progress::Reading { read };
        }
        replay |= !list.is_empty();
        self.send_first(list);
        Activated { id: self.id, cursors, resumed, gaps, replay }
    }

    /// Whether this subscription has sent, or will send, a publication live. What it only replayed does not count: a client
    /// that replays its subscriptions one after the other takes a replay for that of the one it asked for.
    pub(super) fn sends_live(&self, publication: &Publication) -> bool {
        let is_live = |part: &Part| match part.progress {
            Progress::Live { since } | Progress::Behind { since, .. } => since < publication.offset,
            Progress::Waiting { .. } | Progress::Reading { .. } => false,
        };
        // What falls behind in another way may never be sent; one that has ended sends only what it governs.
        self.flow == Flow::CatchUp
            && !self.is_parting()
            && self.part(publication.source.id).is_some_and(is_live)
            && self.wanted.matches(&publication.draft)
    }

    /// Whether a publication comes after its beginning, so that the session is sent it, by whichever subscription.
    pub(super) fn counts_on(&self, publication: &Publication) -> bool {
        let part = self.part(publication.source.id);
        part.is_some_and(|part| part.began < publication.offset && !matches!(part.progress, Progress::Waiting { .. }))
            && self.wanted.matches(&publication.draft)
    }

    /// Whether a publication was or will be sent as one of those that come after its beginning.
    pub(super) fn owes(&self, publication: &Publication) -> bool {
        let comes_after = |part: &Part| match part.progress {
            Progress::Live { since } | Progress::Behind { since, .. } => since < publication.offset,
            Progress::Reading { read } => read < publication.offset,
            Progress::Waiting { .. } => false,
        };
        self.part(publication.source.id).is_some_and(comes_after) && self.wanted.matches(&publication.draft)
    }

    /// The sources of which it is sent what comes live.
    pub(super) fn live_sources(&self) -> impl Iterator<Item = SourceId> {
        let live = self.parts.iter().filter(|part| matches!(part.progress, Progress::Live { .. }));
        live.map(|part| part.source)
    }

    /// The sources of which it reads what it asked for.
    pub(super) fn read_sources(&self) -> impl Iterator<Item = SourceId> {
        let read = self.parts.iter().filter(|part| matches!(part.progress, Progress::Reading { .. }));
        read.map(|part| part.source)
    }

    /// What a loss means for it.
    pub(super) fn missed(&self, lane: &Lane, gap: LogGap) -> Missed {
        missed((self.id, &self.wanted), lane, gap)
    }

    /// Whether it will go on where the one that it replaces has come to, and send everything that that one had to.
    pub(super) fn succeeds(&self, older: &Self) -> bool {
        let resumes = |part: &Part| matches!(part.progress, Progress::Waiting { after: Some(_) });
        let are_paced = self.is_paced() && older.is_paced();
        are_paced && self.wanted == older.wanted && !self.parts.iter().any(resumes)
    }

    /// What it leaves behind now that it has ended. Of what it governed, or had fallen behind with, it has still to send the
    /// rest, unless another has taken that over; and nobody else is to send again what it has sent.
    ///
    /// `ended`: a number that is higher than those of all that ended before.
    pub(super) fn into_parting(mut self, lanes: &[Lane], rest: Rest, ended: u32) -> Option<Self> {
        let mut pace = self.pace.take().unwrap_or_else(|| Box::new(Pace::new(None)));
        pace.end(ended);
        self.catching_up = None;
        self.parts.retain_mut(|part| {
            let Some(position) = lanes.get(part.source.index()).map(Lane::position) else { return false };
            let read = match part.progress {
                Progress::Waiting { .. } => return false,
                Progress::Reading { read } | Progress::Behind { read, .. } => read,
                Progress::Live { .. } => position,
            };
            let after = pace.reigns_after(part.source).unwrap_or_else(|| {
                pace.reign(part.source, read);
                read
            });
            let until = if rest == Rest::TakenOver { read } else { position };
            pace.abdicate(part.source, until);
            let read = read.max(after);
            let is_over = read >= until;
            part.progress =
                if is_over { Progress::Live { since: after } } else { Progress::Behind { since: after, read } };
            after < until
        });
        self.pace = Some(pace);
        (!self.parts.is_empty()).then_some(self)
    }

    /// Its part in a source, if that replays what was asked for.
    pub(super) fn replaying_reader(&mut self, source: SourceId) -> Option<Reader<'_>> {
        let part = self.parts.iter_mut().find(|part| part.source == source)?;
        let Progress::Reading { read } = &mut part.progress else { return None };
        // At its own pace it might never be through with what was superseded long ago.
        let view = if self.pace.is_some() && self.flow == Flow::Latest { View::LatestOfLog } else { View::All };
        let (subscription, wanted, judged_until) = (self.id, &self.wanted, &mut part.judged_until);
        Some(Reader { subscription, wanted, view, read, judged_until })
    }

    /// Its part in a source, if that fell behind.
    pub(super) fn reader(&mut self, source: SourceId, drop_oldest_keep: usize) -> Option<Reader<'_>> {
        let part = self.parts.iter_mut().find(|part| part.source == source)?;
        let Progress::Behind { read, .. } = &mut part.progress else { return None };
        let view = match self.flow {
            Flow::CatchUp => View::All,
            Flow::Latest => View::Latest,
            Flow::DropOldest => View::Newest(drop_oldest_keep),
        };
        let (subscription, wanted, judged_until) = (self.id, &self.wanted, &mut part.judged_until);
        Some(Reader { subscription, wanted, view, read, judged_until })
    }

    /// Whether another one had sent a publication before this was asked for, so that it comes again.
    pub(super) fn was_asked_after(&self, sender: &Self, publication: &Publication) -> bool {
        let part = self.part(publication.source.id);
        part.is_some_and(|part| part.sent.includes(sender.id, publication.offset))
    }

    /// One took the place of another, and goes on where that has come to: it had sent no more. Of senders that are not among
    /// these, which are in order, nothing comes any more.
    pub(super) fn note_successor(
        &mut self,
        (before, now): (SubscriptionId, SubscriptionId),
        senders: &[SubscriptionId],
    ) {
        for part in self.parts.iter_mut().filter(|part| !part.sent.paced.is_empty()) {
            let paced = std::mem::take(&mut part.sent.paced);
            let successor = paced.iter().find(|(sender, _)| *sender == before).map(|(_, read)| (now, *read));
            let standing = paced.into_iter().filter(|(sender, _)| {
                *sender == before || senders.binary_search_by_key(&sender.0, |known| known.0).is_ok()
            });
            part.sent.paced = standing.chain(successor).collect();
        }
    }

    pub(super) fn part(&self, source: SourceId) -> Option<&Part> {
        self.parts.iter().find(|part| part.source == source)
    }

    /// Sends these before anything else.
    pub(super) fn send_first(&mut self, list: Vec<Arc<Publication>>) {
        self.catching_up =
            (!list.is_empty()).then(|| Box::new(CatchingUp { list: list.into(), ..CatchingUp::default() }));
    }

    /// Takes the list of newest messages as a whole.
    pub(super) fn take_whole_list(&mut self) -> VecDeque<Arc<Publication>> {
        self.catching_up.take().map(|catching_up| catching_up.list).unwrap_or_default()
    }

    /// Takes from the list of newest messages.
    pub(super) fn take_list(&mut self, bounds: ReadBounds, room: &mut Room) -> Vec<Arc<Publication>> {
        let Some(catching_up) = &mut self.catching_up else { return Vec::new() };
        let mut bytes = 0;
        let mut taken = Vec::new();
        while bytes < bounds.bytes_max && taken.len() < bounds.messages_max {
            let Some(publication) = catching_up.list.pop_front_if(|next| room.takes(next)) else { break };
            bytes += weight_bytes(&publication.draft);
            taken.push(publication);
        }
        if catching_up.list.is_empty() {
            self.catching_up = None;
        }
        taken
    }
}

pub(super) fn missed((subscription, wanted): (SubscriptionId, &Selector), lane: &Lane, gap: LogGap) -> Missed {
    let (pattern, source) = (wanted.pattern.clone(), lane.info().name.clone());
    Missed { subscription, pattern, source, reason: gap.reason, missed: gap.missed }
}

pub(super) fn joint_position(all: &[Subscription], lanes: &[Lane]) -> JointCursor {
    let of_lane = |lane: &Lane| {
        let info = lane.info();
        let floor = all.iter().filter_map(|subscription| subscription.floor(info.id, lane.position())).min()?;
        Some(info.named_cursor(floor))
    };
    JointCursor(lanes.iter().filter_map(of_lane).collect())
}

pub(super) fn with_offset(position: &JointCursor, publication: &Publication) -> JointCursor {
    let mut position = position.clone();
    if let Some((_, cursor)) = position.0.iter_mut().find(|(name, _)| **name == *publication.source.name) {
        cursor.offset = publication.offset;
    }
    position
}
