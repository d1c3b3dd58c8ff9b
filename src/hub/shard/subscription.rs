//! One subscription of one subscriber, in as many parts as it has sources, and how it catches up from their logs.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::log::ReadBounds;
use crate::hub::shard::lane::Lane;
use crate::hub::shard::{Activated, Last, Missed, Replay, SubscriptionId};
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, SourceId};
use crate::model::topic::Pattern;

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) pattern: Pattern,
    /// Whether all its bindings stand.
    pub(super) stands: bool,
    /// One a source.
    pub(super) parts: Vec<Part>,
    /// What only a subscription with a replay has.
    catching_up: Option<Box<CatchingUp>>,
}

#[derive(Debug)]
struct CatchingUp {
    last: Last,
    /// The newest messages that it asked for, still to be sent before anything else.
    list: VecDeque<Arc<Publication>>,
}

/// A subscription's share in one source.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) source: SourceId,
    /// Losses before this offset were told, or concern nobody, when it started.
    pub(super) judged_until: u64,
    pub(super) progress: Progress,
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
}

impl Subscription {
    pub(super) fn new(id: SubscriptionId, pattern: Pattern, last: Last, parts: Vec<Part>) -> Self {
        let catching_up = (last.each > 0).then(|| Box::new(CatchingUp { last, list: VecDeque::new() }));
        Self { id, pattern, stands: false, parts, catching_up }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.progress, Progress::Waiting { .. }))
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.has_list() || self.parts.iter().any(|part| matches!(part.progress, Progress::Reading { .. }))
    }

    pub(super) fn has_list(&self) -> bool {
        self.catching_up.as_ref().is_some_and(|catching_up| !catching_up.list.is_empty())
    }

    /// Whether nothing keeps it from being live.
    pub(super) fn is_level(&self, lanes: &[Lane]) -> bool {
        !self.has_list()
            && self.parts.iter().all(|part| match part.progress {
                Progress::Waiting { .. } => false,
                Progress::Reading { read } => {
                    lanes.get(part.source.index()).is_some_and(|lane| lane.position() == read)
                }
                Progress::Live { .. } => true,
            })
    }

    /// Whether it is told of a loss: not before its bindings stand, and not again of what its start has told.
    pub(super) fn hears(&self, source: SourceId, at: u64) -> bool {
        let waits = |part: &Part| matches!(part.progress, Progress::Waiting { .. });
        self.part(source).is_some_and(|part| !waits(part) && at >= part.judged_until)
    }

    /// How far everything of a source was sent; `position` is where the shard is.
    pub(super) fn floor(&self, source: SourceId, position: u64) -> Option<u64> {
        self.part(source).map(|part| match part.progress {
            Progress::Waiting { after } => after.map_or(position, |cursor| cursor.offset.min(position)),
            Progress::Reading { read } => read,
            Progress::Live { .. } => position,
        })
    }

    /// Where it stands in each of its sources.
    pub(super) fn cursors(&self, lanes: &[Lane]) -> JointCursor {
        let of_part = |part: &Part| {
            let lane = lanes.get(part.source.index())?;
            let info = lane.info();
            let offset = self.floor(part.source, lane.position())?;
            Some((info.name.to_string(), Cursor { epoch: info.epoch, offset }))
        };
        JointCursor(self.parts.iter().filter_map(of_part).collect())
    }

    /// Decides where each part begins, with what was missed.
    pub(super) fn start(&mut self, lanes: &[Lane]) -> Activated {
        let mut gaps = Vec::new();
        let mut cursors = JointCursor::default();
        let mut resumed = true;
        let mut list = Vec::new();
        let mut replay = false;
        for part in &mut self.parts {
            let Progress::Waiting { after } = part.progress else { continue };
            let Some(lane) = lanes.get(part.source.index()) else { continue };
            let info = lane.info();
            let log = lane.state().log();
            // The shard may be a little behind the log; what is not asked for begins where the binding stands.
            let mut read = log.end();
            if let Some(cursor) = after {
                let resume = log.resume(&self.pattern, cursor);
                read = resume.read_after;
                replay |= read < lane.position();
                part.judged_until = resume.judged_until;
                resumed &= resume.gaps.is_empty();
                gaps.extend(resume.gaps.iter().map(|gap| missed(&self.pattern, lane, gap.reason, gap.missed)));
            } else {
                resumed = false;
                if let Some(catching_up) = &self.catching_up {
                    list.extend(log.newest(&self.pattern, catching_up.last.each, catching_up.last.total_max));
                }
            }
            cursors.0.push((info.name.to_string(), Cursor { epoch: info.epoch, offset: read }));
            part.progress = Progress::Reading { read };
        }
        replay |= !list.is_empty();
        self.catching_up =
            (!list.is_empty()).then(|| Box::new(CatchingUp { last: Last::default(), list: list.into() }));
        Activated { id: self.id, cursors, resumed, gaps, replay }
    }

    /// Whether this subscription has sent, or will send, a publication live. What it only replayed does not count: a client
    /// that replays its subscriptions one after the other takes a replay for that of the one it asked for.
    fn sends_live(&self, publication: &Publication) -> bool {
        let is_live = |part: &Part| matches!(part.progress, Progress::Live { since } if since < publication.offset);
        self.part(publication.source.id).is_some_and(is_live) && self.pattern.matches(&publication.draft.topic)
    }

    fn part(&self, source: SourceId) -> Option<&Part> {
        self.parts.iter().find(|part| part.source == source)
    }

    /// Takes from the list of newest messages.
    fn take_list(&mut self, bounds: ReadBounds) -> Vec<Arc<Publication>> {
        let Some(catching_up) = &mut self.catching_up else { return Vec::new() };
        let mut bytes = 0;
        let mut taken = Vec::new();
        while bytes < bounds.bytes_max && taken.len() < bounds.messages_max {
            let Some(publication) = catching_up.list.pop_front() else { break };
            bytes += publication.draft.payload.len();
            taken.push(publication);
        }
        if catching_up.list.is_empty() {
            self.catching_up = None;
        }
        taken
    }
}

fn missed(pattern: &Pattern, lane: &Lane, reason: GapReason, missed: Option<u64>) -> Missed {
    Missed { pattern: pattern.clone(), source: lane.info().name.clone(), reason, missed }
}

/// One step of one subscription: its list first, then its sources one after the other.
pub(super) fn replay_one(
    all: &mut [Subscription],
    number: usize,
    lanes: &[Lane],
    bounds: ReadBounds,
    replay: &mut Replay,
) {
    let Some(subscription) = all.get_mut(number) else { return };
    let list = subscription.take_list(bounds);
    if !list.is_empty() {
        replay.progressed = true;
        replay.messages = list.into_iter().map(|publication| (publication, JointCursor::default())).collect();
        return;
    }
    let mut found = Vec::new();
    let pattern = subscription.pattern.clone();
    for part in &mut subscription.parts {
        let Some(lane) = lanes.get(part.source.index()) else { continue };
        let Progress::Reading { read } = part.progress else { continue };
        if read >= lane.position() {
            continue;
        }
        let chunk = lane.state().log().read(&pattern, read, lane.position(), bounds);
        part.progress = Progress::Reading { read: chunk.next };
        replay.progressed |= chunk.next > read;
        replay.gaps.extend(chunk.gap.map(|gap| missed(&pattern, lane, gap.reason, gap.missed)));
        found = chunk.publications;
        break;
    }
    let others: Vec<&Subscription> =
        all.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, other)| other).collect();
    found.retain(|publication| !others.iter().any(|other| other.sends_live(publication)));
    replay.messages = found.into_iter().map(|publication| (publication, JointCursor::default())).collect();
}

/// One step of all subscriptions of a joint cursor: lists first, then each source in the order of its log.
pub(super) fn replay_jointly(all: &mut [Subscription], lanes: &[Lane], bounds: ReadBounds, replay: &mut Replay) {
    if let Some(subscription) = all.iter_mut().find(|subscription| subscription.has_list()) {
        replay.progressed = true;
        let list = subscription.take_list(bounds);
        let position = joint_position(all, lanes);
        replay.messages = list.into_iter().map(|publication| (publication, position.clone())).collect();
        return;
    }
    for lane in lanes {
        let found = read_merged(all, lane, bounds, replay);
        if found.is_empty() {
            continue;
        }
        // The joint cursor moves with each message in its own source and stands still in the others.
        let standing = joint_position(all, lanes);
        replay.messages =
            found.into_iter().map(|publication| (publication.clone(), with_offset(&standing, &publication))).collect();
        return;
    }
}

/// What any of the subscriptions has to read in one lane, in order and once, as far as all of them have been read.
fn read_merged(
    all: &mut [Subscription],
    lane: &Lane,
    bounds: ReadBounds,
    replay: &mut Replay,
) -> Vec<Arc<Publication>> {
    let source = lane.info().id;
    let mut horizon = lane.position();
    let mut found: Vec<Arc<Publication>> = Vec::new();
    let log = lane.state().log();
    for subscription in all.iter() {
        let Some(Part { progress: Progress::Reading { read }, .. }) = subscription.part(source) else { continue };
        if *read < lane.position() {
            let chunk = log.read(&subscription.pattern, *read, lane.position(), bounds);
            replay.gaps.extend(chunk.gap.map(|gap| missed(&subscription.pattern, lane, gap.reason, gap.missed)));
            horizon = horizon.min(chunk.next);
            found.extend(chunk.publications);
        }
    }
    drop(log);
    found.retain(|publication| publication.offset <= horizon);
    found.sort_by_key(|publication| publication.offset);
    found.dedup_by_key(|publication| publication.offset);
    for part in all.iter_mut().flat_map(|subscription| &mut subscription.parts).filter(|part| part.source == source) {
        if let Progress::Reading { read } = part.progress {
            part.progress = Progress::Reading { read: read.max(horizon) };
            replay.progressed |= horizon > read;
        }
    }
    found
}

fn joint_position(all: &[Subscription], lanes: &[Lane]) -> JointCursor {
    let of_lane = |lane: &Lane| {
        let info = lane.info();
        let floor = all.iter().filter_map(|subscription| subscription.floor(info.id, lane.position())).min()?;
        Some((info.name.to_string(), Cursor { epoch: info.epoch, offset: floor }))
    };
    JointCursor(lanes.iter().filter_map(of_lane).collect())
}

fn with_offset(position: &JointCursor, publication: &Publication) -> JointCursor {
    let mut position = position.clone();
    if let Some((_, cursor)) = position.0.iter_mut().find(|(name, _)| **name == *publication.source.name) {
        cursor.offset = publication.offset;
    }
    position
}
