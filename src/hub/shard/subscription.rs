//! One subscription of one subscriber, in as many parts as it has sources, and how it catches up from their logs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::hub::archive::{Archive, Check, Found};
use crate::hub::log::{Log, LogGap, ReadBounds};
use crate::hub::shard::lane::{Lane, Loss};
use crate::hub::shard::passages::{Excerpt, Passages, Store};
use crate::hub::shard::{Activated, Last, Missed, Replay, SubscriptionId};
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::flow::Flow;
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, SourceId};
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
    /// It was live, and its subscriber is too slow: what comes after `read` it is sent from the log, as its flow says.
    Behind { since: u64, read: u64 },
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
        let catching_up = (last.each > 0).then(|| Box::new(CatchingUp { last, ..CatchingUp::default() }));
        Self { id, wanted, flow, stands: false, parts, catching_up }
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
            Loss::Hole(hole) => is_live(part) && hole.at >= part.judged_until,
            Loss::Overrun { .. } => is_live(part),
            Loss::Remade => !matches!(part.progress, Progress::Waiting { .. }),
        };
        self.part(source).is_some_and(is_told)
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

    /// Where it stands in each of its sources.
    pub(super) fn cursors(&self, lanes: &[Lane]) -> JointCursor {
        let of_part = |part: &Part| {
            let lane = lanes.get(part.source.index())?;
            Some(lane.info().named_cursor(self.floor(part.source, lane.position())?))
        };
        JointCursor(self.parts.iter().filter_map(of_part).collect())
    }

    /// Decides where each part begins, with what was missed. Where it is not told, that is where the subscription that it
    /// replaces has come to.
    pub(super) fn start(&mut self, lanes: &[Lane], older: Option<&Self>) -> Activated {
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
            let older = older.and_then(|older| Some((older.part(part.source)?, older.has_begun_at(lane)?)));
            if let Some(cursor) = after {
                let resume = lane.resume(&log, &self.wanted.pattern, (cursor, check));
                read = resume.read_after;
                replay |= read < log.end();
                part.judged_until = resume.judged_until;
                resumed &= resume.gaps.is_empty();
                gaps.extend(resume.gaps.iter().map(|gap| missed(&self.wanted, lane, gap.filtered(&self.wanted))));
            } else if let Some((older, sent)) = older {
                resumed = false;
                read = sent;
                part.judged_until = older.judged_until;
            } else {
                resumed = false;
                if let Some(catching_up) = &self.catching_up {
                    list.extend(log.newest(&self.wanted, catching_up.last.each, catching_up.last.total_max));
                }
            }
            cursors.0.push(lane.info().named_cursor(read));
            part.progress = Progress::Reading { read };
        }
        replay |= !list.is_empty();
        self.send_first(list);
        Activated { id: self.id, cursors, resumed, gaps, replay }
    }

    /// Whether this subscription has sent, or will send, a publication live. What it only replayed does not count: a client
    /// that replays its subscriptions one after the other takes a replay for that of the one it asked for.
    fn sends_live(&self, publication: &Publication) -> bool {
        let is_live = |part: &Part| match part.progress {
            Progress::Live { since } | Progress::Behind { since, .. } => since < publication.offset,
            Progress::Waiting { .. } | Progress::Reading { .. } => false,
        };
        // What falls behind in another way may never be sent.
        self.flow == Flow::CatchUp
            && self.part(publication.source.id).is_some_and(is_live)
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

    /// Its part in a source, if that replays what was asked for.
    fn replaying_reader(&mut self, source: SourceId) -> Option<Reader<'_>> {
        let part = self.parts.iter_mut().find(|part| part.source == source)?;
        let Progress::Reading { read } = &mut part.progress else { return None };
        Some(Reader { wanted: &self.wanted, view: View::All, read, judged_until: &mut part.judged_until })
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
        Some(Reader { wanted: &self.wanted, view, read, judged_until: &mut part.judged_until })
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

pub(super) fn missed(wanted: &Selector, lane: &Lane, gap: LogGap) -> Missed {
    let (pattern, source) = (wanted.pattern.clone(), lane.info().name.clone());
    Missed { pattern, source, reason: gap.reason, missed: gap.missed }
}

/// What replays read: the lanes' logs, and what was read of them before.
pub(super) struct Logs<'a> {
    pub(super) lanes: &'a [Lane],
    pub(super) passages: &'a mut Passages,
    pub(super) bounds: ReadBounds,
}

/// One step of one subscription: its list first, then its sources one after the other.
pub(super) fn replay_one(all: &mut [Subscription], number: usize, logs: &mut Logs<'_>, replay: &mut Replay) {
    let Some(subscription) = all.get_mut(number) else { return };
    let list = subscription.take_list(logs.bounds);
    if !list.is_empty() {
        replay.progressed = true;
        replay.messages = list.into_iter().map(|publication| (publication, JointCursor::default())).collect();
        return;
    }
    let lanes = logs.lanes;
    let mut found = Vec::new();
    for lane in lanes {
        let Some(reader) = subscription.replaying_reader(lane.info().id) else { continue };
        found = read_together(&mut [reader], lane, logs, replay);
        if !found.is_empty() || replay.excerpt.is_some() {
            break;
        }
    }
    let sent_live = |publication: &Publication| {
        let mut others = all.iter().enumerate().filter(|(other, _)| *other != number);
        others.any(|(_, other)| other.sends_live(publication))
    };
    if let Some(excerpt) = replay.excerpt.take_if(|excerpt| excerpt.publications().iter().any(|one| sent_live(one))) {
        found = excerpt.publications().to_vec();
    }
    found.retain(|publication| !sent_live(publication));
    replay.messages = found.into_iter().map(|publication| (publication, JointCursor::default())).collect();
}

/// One step of all subscriptions of a joint cursor: lists first, then each source in the order of its log.
pub(super) fn replay_jointly(all: &mut [Subscription], logs: &mut Logs<'_>, replay: &mut Replay) {
    let lanes = logs.lanes;
    if let Some(subscription) = all.iter_mut().find(|subscription| subscription.has_list()) {
        replay.progressed = true;
        let list = subscription.take_list(logs.bounds);
        let position = joint_position(all, lanes);
        replay.messages = list.into_iter().map(|publication| (publication, position.clone())).collect();
        return;
    }
    for lane in lanes {
        let source = lane.info().id;
        let mut readers: Vec<Reader<'_>> = all.iter_mut().filter_map(|one| one.replaying_reader(source)).collect();
        let found = read_together(&mut readers, lane, logs, replay);
        if settle_positions(found, all, lanes, replay) {
            return;
        }
    }
}

/// Gives what was found of one source the joint cursor after each message; whether there was anything.
///
/// The joint cursor moves with each message in its own source and stands still in the others. Where there is only one
/// source it is the message's own cursor, and what is shared stays so.
pub(super) fn settle_positions(
    mut found: Vec<Arc<Publication>>,
    all: &[Subscription],
    lanes: &[Lane],
    replay: &mut Replay,
) -> bool {
    if let Some(excerpt) = replay.excerpt.take_if(|_| lanes.len() > 1) {
        found = excerpt.publications().to_vec();
    }
    let standing = joint_position(all, lanes);
    let positioned = |publication: Arc<Publication>| {
        let position = with_offset(&standing, &publication);
        (publication, position)
    };
    replay.messages = found.into_iter().map(positioned).collect();
    !replay.messages.is_empty() || replay.excerpt.is_some()
}

/// A part that reads one source's log, for what is wanted of it.
pub(super) struct Reader<'a> {
    wanted: &'a Selector,
    view: View,
    /// Everything up to here was sent, as far as it is wanted.
    read: &'a mut u64,
    /// Losses before here were told.
    judged_until: &'a mut u64,
}

/// What of a log a reader is sent.
#[derive(Debug, Clone, Copy)]
enum View {
    /// Everything.
    All,
    /// The newest message of each topic.
    Latest,
    /// So many of the newest messages.
    Newest(usize),
}

impl Reader<'_> {
    /// Takes the holes that it stands before, and says up to where there is no other.
    fn pass_holes(&mut self, log: &Log, until: u64, gaps: &mut Vec<LogGap>) -> u64 {
        let untold = (*self.read).max(*self.judged_until);
        for (reason, at) in log.forgotten_holes(untold) {
            gaps.push(LogGap { reason, missed: None });
            *self.judged_until = (*self.judged_until).max(at + 1);
        }
        while let Some(hole) = log.next_hole((*self.read).max(*self.judged_until), until) {
            if hole.at > *self.read {
                return hole.at;
            }
            gaps.push(hole.gap(&self.wanted.pattern).filtered(self.wanted));
            *self.read = hole.at + 1;
        }
        until
    }

    /// Tells of what it is not sent any more: of `dropped` those up to the horizon, and what has left the log before them.
    fn pass_over(&self, log: &Log, until: u64, horizon: u64, dropped: &[u64]) -> Vec<LogGap> {
        if dropped.is_empty() {
            return Vec::new();
        }
        let passed = dropped.partition_point(|offset| *offset <= horizon) as u64;
        let passed = (passed > 0).then_some(LogGap { reason: GapReason::Slow, missed: Some(passed) });
        let left = log.left(&self.wanted.pattern, *self.read, until).map(|gap| gap.filtered(self.wanted));
        left.into_iter().chain(passed).collect()
    }

    fn drops_oldest(&self) -> bool {
        matches!(self.view, View::Newest(_))
    }

    /// Whether it is sent a publication, and not only while it is among the newest.
    fn is_sent(&self, publication: &Publication, log: &Log, until: u64) -> bool {
        let is_wanted = || *self.read < publication.offset && self.wanted.matches(&publication.draft);
        match self.view {
            View::All => is_wanted(),
            View::Latest => is_wanted() && log.is_newest(publication, self.wanted, until),
            View::Newest(_) => false,
        }
    }

    /// From the stream itself, where the log does not reach back to what comes next. Nothing while that is fetched: the
    /// source rings when it is there.
    fn read_older(
        &self,
        (archive, log): Older<'_>,
        span: Range<u64>,
        logs: &mut Logs<'_>,
        gaps: &mut Vec<LogGap>,
    ) -> ReadOn {
        let Found::Page { from, page } = archive.read(span.start) else {
            return ReadOn { found: Passed::Own(Vec::new()), next: span.start };
        };
        if from > span.start {
            gaps.extend(log.cut_off(&self.wanted.pattern, span.start, from).map(|gap| gap.filtered(self.wanted)));
        }
        let found = logs.passages.read(Store::Page(&page, log.info().id), self.wanted, from..span.end);
        ReadOn { found: Passed::Shared(found.excerpt), next: found.next }
    }

    /// From the log itself.
    fn read_alone(&self, log: &Log, span: Range<u64>, logs: &Logs<'_>, gaps: &mut Vec<LogGap>) -> ReadOn {
        let mut chunk = match self.view {
            View::Latest => log.read_latest(self.wanted, span.start, span.end, logs.bounds),
            View::All | View::Newest(_) => log.read(&self.wanted.pattern, span.start, span.end, logs.bounds),
        };
        chunk.publications.retain(|publication| self.wanted.lets_in(&publication.draft));
        gaps.extend(chunk.gap.map(|gap| gap.filtered(self.wanted)));
        ReadOn { found: Passed::Own(chunk.publications), next: chunk.next }
    }

    /// Where what comes next is not in the log but in the stream behind it.
    fn older<'a>(&self, lane: &'a Lane, log: &Log) -> Option<&'a Archive> {
        let wants_all = matches!(self.view, View::All);
        lane.state().archive().filter(|_| wants_all && *self.read < log.floor())
    }

    fn read(&self, (lane, log): Place<'_>, span: Range<u64>, logs: &mut Logs<'_>, gaps: &mut Vec<LogGap>) -> ReadOn {
        if let View::Latest = self.view {
            return self.read_alone(log, span, logs, gaps);
        }
        if let Some(archive) = self.older(lane, log) {
            return self.read_older((archive, log), span, logs, gaps);
        }
        let found = logs.passages.read(Store::Log(log, logs.bounds), self.wanted, span);
        gaps.extend(found.gap.map(|gap| gap.filtered(self.wanted)));
        ReadOn { found: Passed::Shared(found.excerpt), next: found.next }
    }
}

/// For each reader that drops the oldest: what it is not sent, in order. Of all that these readers alone would be sent up to
/// `until` the newest stay; what another one is sent anyway is not dropped. That is certain only up to the horizon, how far
/// the others have been read: what follows may be superseded, or have left the log, before it is sent.
fn drop_oldest(readers: &[Reader<'_>], log: &Log, until: u64, horizon: u64) -> Vec<Vec<u64>> {
    let keep = readers.iter().find_map(|reader| match reader.view {
        View::Newest(keep) => Some(keep),
        View::All | View::Latest => None,
    });
    let Some(keep) = keep else { return Vec::new() };
    let waiting = |reader: &Reader<'_>| -> Vec<u64> {
        if !reader.drops_oldest() {
            return Vec::new();
        }
        let waiting = log.waiting(reader.wanted, *reader.read, until);
        let alone = waiting.filter(|one| !readers.iter().any(|other| other.is_sent(one, log, until)));
        // As many as are kept are enough to know that nothing before the horizon is.
        let mut beyond = 0;
        let is_needed = |offset: &u64| {
            beyond += usize::from(*offset > horizon);
            beyond <= keep
        };
        alone.map(|publication| publication.offset).take_while(is_needed).collect()
    };
    let mut dropped: Vec<Vec<u64>> = readers.iter().map(waiting).collect();
    let mut all = dropped.concat();
    all.sort_unstable();
    all.dedup();
    let last = all.len().checked_sub(keep + 1).and_then(|last| all.get(last)).map_or(0, |last| horizon.min(*last));
    dropped.iter_mut().for_each(|offsets| offsets.retain(|offset| *offset <= last));
    dropped
}

/// A stream beyond its log.
type Older<'a> = (&'a Archive, &'a Log);

/// A lane and its log, which is locked.
type Place<'a> = (&'a Lane, &'a Log);

/// What one reader was given.
struct ReadOn {
    found: Passed,
    next: u64,
}

enum Passed {
    /// From a passage.
    Shared(Excerpt),
    /// For it alone.
    Own(Vec<Arc<Publication>>),
}

/// The next piece for all of these readers of one source: in the order of its log, each message once, as far as all of
/// them have been read. What one reader alone is given others may be given too, so that is an excerpt of `replay`.
pub(super) fn read_together(
    readers: &mut [Reader<'_>],
    lane: &Lane,
    logs: &mut Logs<'_>,
    replay: &mut Replay,
) -> Vec<Arc<Publication>> {
    let log = lane.state().log();
    let looked_at = log.looked_at();
    let mut tell = |wanted: &Selector, gaps: Vec<LogGap>| {
        replay.progressed |= !gaps.is_empty();
        replay.gaps.extend(gaps.into_iter().map(|gap| missed(wanted, lane, gap)));
    };
    let mut until = lane.position();
    for reader in readers.iter_mut() {
        let mut gaps = Vec::new();
        until = until.min(reader.pass_holes(&log, lane.position(), &mut gaps));
        tell(reader.wanted, gaps);
    }
    let mut horizon = until;
    let mut excerpt_found = None;
    let mut found: Vec<Arc<Publication>> = Vec::new();
    let alone = readers.len() == 1;
    // A passage may have what the log has let go of: what is told to be gone for one must not come by another's.
    let shares =
        alone || lane.state().archive().is_some() || readers.iter().all(|reader| *reader.read >= log.evicted());
    let mut dropped = Vec::new();
    for drops_oldest in [false, true] {
        if drops_oldest {
            dropped = drop_oldest(readers, &log, until, horizon);
        }
        let read_now = |reader: &Reader<'_>| *reader.read < until && reader.drops_oldest() == drops_oldest;
        for (number, reader) in readers.iter().enumerate().filter(|(_, reader)| read_now(reader)) {
            let after = dropped.get(number).and_then(|offsets| offsets.last()).map_or(*reader.read, |last| *last);
            let mut gaps = Vec::new();
            let read = if shares {
                reader.read((lane, &log), after..until, logs, &mut gaps)
            } else {
                reader.read_alone(&log, after..until, logs, &mut gaps)
            };
            tell(reader.wanted, gaps);
            horizon = horizon.min(read.next);
            match read.found {
                Passed::Shared(excerpt) if alone => excerpt_found = Some(excerpt),
                Passed::Shared(excerpt) => found.extend_from_slice(excerpt.publications()),
                Passed::Own(publications) => found.extend(publications),
            }
        }
    }
    for (reader, dropped) in readers.iter().zip(&dropped) {
        tell(reader.wanted, reader.pass_over(&log, until, horizon, dropped));
    }
    replay.looked_at += log.looked_at() - looked_at + logs.passages.take_looked_at();
    drop(log);
    replay.excerpt = excerpt_found.filter(|excerpt| !excerpt.publications().is_empty());
    found.retain(|publication| publication.offset <= horizon);
    found.sort_by_key(|publication| publication.offset);
    found.dedup_by_key(|publication| publication.offset);
    for reader in readers {
        replay.progressed |= horizon > *reader.read;
        *reader.read = horizon.max(*reader.read);
    }
    found
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
