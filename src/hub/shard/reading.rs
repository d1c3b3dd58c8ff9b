//! Reading logs for subscriptions that are not live: what replays ask for, and what those are sent who fell behind. Several
//! parts that read one log together get its messages in their order and each once; what one reads alone is shared with others.

use std::ops::Range;
use std::sync::Arc;

use crate::hub::archive::{Archive, Found};
use crate::hub::log::{Log, LogGap, ReadBounds};
use crate::hub::shard::lane::Lane;
use crate::hub::shard::pace::{Room, is_sent_by};
use crate::hub::shard::passages::{Excerpt, Passages, Store};
use crate::hub::shard::subscriber::Subscriber;
use crate::hub::shard::subscription::{Subscription, joint_position, missed, with_offset};
use crate::hub::shard::words::Lost;
use crate::hub::shard::{CursorForm, Replay, Replayed, SubscriptionId};
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, SourceId};
use crate::model::selector::Selector;

/// What replays read: the lanes' logs, and what was read of them before.
pub(super) struct Logs<'a> {
    pub(super) lanes: &'a [Lane],
    pub(super) passages: &'a mut Passages,
    pub(super) bounds: ReadBounds,
    /// What of it may be sent in this step, however much is read for others.
    pub(super) room: Room,
}

impl Logs<'_> {
    /// Of what is read for one reader alone.
    fn own_bounds(&self) -> ReadBounds {
        ReadBounds { messages_max: self.bounds.messages_max.min(self.room.messages()), ..self.bounds }
    }
}

/// One step of one subscription: its list first, then its sources in turn, but for those that are `held` for others.
pub(super) fn replay_one(
    all: &mut [Subscription],
    (number, form, held): (usize, Option<CursorForm>, &[SourceId]),
    logs: &mut Logs<'_>,
    replay: &mut Replay,
) {
    let Some(subscription) = all.get_mut(number) else { return };
    let id = subscription.id;
    if subscription.has_list() && !held.is_empty() {
        return;
    }
    let list = subscription.take_list(logs.bounds, &mut logs.room);
    if !list.is_empty() {
        replay.progressed = true;
        replay.messages = list.into_iter().map(|publication| Replayed::of(id, publication)).collect();
        return;
    }
    let mut found = Vec::new();
    for lane in subscription.rotation.of(logs.lanes) {
        if held.contains(&lane.info().id) {
            continue;
        }
        let Some(reader) = subscription.replaying_reader(lane.info().id) else { continue };
        found = read_together(&mut [reader], (lane, form), logs, replay);
        if !found.is_empty() || replay.excerpt.is_some() {
            subscription.rotation.pass(lane);
            break;
        }
    }
    replay.messages = found;
    if form != Some(CursorForm::Each) {
        replay.retain(|publication| is_sent_by(all, number, publication));
    }
}

/// One step of one subscription that is behind by its own pace.
pub(super) fn read_alone_behind(
    all: &mut [Subscription],
    place: (usize, usize),
    logs: &mut Logs<'_>,
    replay: &mut Replay,
) {
    let (number, drop_oldest_keep) = place;
    let Some(subscription) = all.get_mut(number) else { return };
    let mut found = Vec::new();
    for lane in subscription.rotation.of(logs.lanes) {
        let Some(reader) = subscription.reader(lane.info().id, drop_oldest_keep) else { continue };
        found = read_together(&mut [reader], (lane, Some(CursorForm::Separate)), logs, replay);
        if !found.is_empty() || replay.excerpt.is_some() {
            subscription.rotation.pass(lane);
            break;
        }
    }
    replay.messages = found;
    replay.retain(|publication| is_sent_by(all, number, publication));
}

/// One step of all subscriptions of a joint cursor: lists first, then the sources in turn, each in the order of its log.
pub(super) fn replay_jointly(
    Subscriber { subscriptions: all, rotation, .. }: &mut Subscriber,
    logs: &mut Logs<'_>,
    replay: &mut Replay,
) {
    let lanes = logs.lanes;
    if let Some(subscription) = all.iter_mut().find(|subscription| subscription.has_list()) {
        let (id, list) = (subscription.id, subscription.take_list(logs.bounds, &mut logs.room));
        replay.progressed = !list.is_empty();
        let position = joint_position(all, lanes);
        let replayed = |publication| Replayed { position: position.clone(), ..Replayed::of(id, publication) };
        replay.messages = list.into_iter().map(replayed).collect();
        return;
    }
    for lane in rotation.of(lanes) {
        let source = lane.info().id;
        let mut readers: Vec<Reader<'_>> = all.iter_mut().filter_map(|one| one.replaying_reader(source)).collect();
        let found = read_together(&mut readers, (lane, Some(CursorForm::Joint)), logs, replay);
        if settle_positions(found, all, lanes, replay) {
            rotation.pass(lane);
            return;
        }
    }
}

/// Gives what was found of one source the joint cursor after each message; whether there was anything.
///
/// The joint cursor moves with each message in its own source and stands still in the others. Where there is only one
/// source it is the message's own cursor, and what is shared stays so.
pub(super) fn settle_positions(
    mut found: Vec<Replayed>,
    all: &[Subscription],
    lanes: &[Lane],
    replay: &mut Replay,
) -> bool {
    if let Some((subscription, excerpt)) = replay.excerpt.take_if(|_| lanes.len() > 1) {
        found = excerpt.publications().iter().cloned().map(|one| Replayed::of(subscription, one)).collect();
    }
    let standing = joint_position(all, lanes);
    found.iter_mut().for_each(|replayed| replayed.position = with_offset(&standing, &replayed.publication));
    replay.messages = found;
    !replay.messages.is_empty() || replay.excerpt.is_some()
}

/// A part that reads one source's log, for what is wanted of it.
pub(super) struct Reader<'a> {
    pub(super) subscription: SubscriptionId,
    pub(super) wanted: &'a Selector,
    pub(super) view: View,
    /// Everything up to here was sent, as far as it is wanted.
    pub(super) read: &'a mut u64,
    /// Losses before here were told.
    pub(super) judged_until: &'a mut u64,
}

/// What of a log a reader is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum View {
    /// Everything.
    All,
    /// The newest message of each topic.
    Latest,
    /// Everything that only the stream behind the log still has, and then the newest message of each topic.
    LatestOfLog,
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
            *self.read = hole.until;
        }
        until
    }

    /// Tells of what it is not sent any more: of `dropped` those up to the horizon.
    fn pass_over(&self, horizon: u64, dropped: &[u64]) -> Option<LogGap> {
        let passed = dropped.partition_point(|offset| *offset <= horizon) as u64;
        (passed > 0).then_some(LogGap { reason: GapReason::Slow, missed: Some(passed) })
    }

    /// Likewise of what has left the log before those.
    fn left(&self, log: &Log, until: u64, dropped: &[u64]) -> Option<LogGap> {
        let left = (!dropped.is_empty()).then(|| log.left(&self.wanted.pattern, *self.read, until));
        left.flatten().map(|gap| gap.filtered(self.wanted))
    }

    /// The stretch up to another offset of which something is gone.
    fn lost(&self, (lane, log): Place<'_>, until: u64, reason: GapReason) -> Lost {
        let gone = match lane.state().archive().filter(|_| reason == GapReason::Expired) {
            Some(archive) => archive.cut(log.floor()).min(log.floor()),
            None => log.evicted(),
        };
        let (subscription, source) = (self.subscription, lane.info().id);
        Lost { subscription, source, reason, span: *self.read..gone.min(until) }
    }

    fn drops_oldest(&self) -> bool {
        matches!(self.view, View::Newest(_))
    }

    /// Whether it is sent a publication, and not only while it is among the newest.
    fn is_sent(&self, publication: &Publication, log: &Log, until: u64) -> bool {
        let is_wanted = || *self.read < publication.offset && self.wanted.matches(&publication.draft);
        match self.view {
            View::All => is_wanted(),
            View::Latest | View::LatestOfLog => is_wanted() && log.is_newest(publication, self.wanted, until),
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
        let floor = log.floor().min(span.end);
        if archive.cut(log.floor()) >= floor {
            // The stream holds less than the log.
            gaps.extend(log.cut_off(&self.wanted.pattern, span.start, floor).map(|gap| gap.filtered(self.wanted)));
            return ReadOn { found: Passed::Own(Vec::new()), next: floor };
        }
        let Found::Page { from, page } = archive.read(span.start, log.floor()) else {
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
            View::Latest | View::LatestOfLog => log.read_latest(self.wanted, span.start, span.end, logs.own_bounds()),
            View::All | View::Newest(_) => log.read(&self.wanted.pattern, span.start, span.end, logs.own_bounds()),
        };
        chunk.publications.retain(|publication| self.wanted.lets_in(&publication.draft));
        gaps.extend(chunk.gap.map(|gap| gap.filtered(self.wanted)));
        ReadOn { found: Passed::Own(chunk.publications), next: chunk.next }
    }

    /// Where what comes next is not in the log but in the stream behind it.
    fn older<'a>(&self, lane: &'a Lane, log: &Log) -> Option<&'a Archive> {
        let wants_all = matches!(self.view, View::All | View::LatestOfLog);
        lane.state().archive().filter(|_| wants_all && *self.read < log.floor())
    }

    fn read(&self, (lane, log): Place<'_>, span: Range<u64>, logs: &mut Logs<'_>, gaps: &mut Vec<LogGap>) -> ReadOn {
        if let Some(archive) = self.older(lane, log) {
            return self.read_older((archive, log), span, logs, gaps);
        }
        if let View::Latest | View::LatestOfLog = self.view {
            return self.read_alone(log, span, logs, gaps);
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
        View::All | View::Latest | View::LatestOfLog => None,
    });
    let Some(keep) = keep else { return vec![Vec::new(); readers.len()] };
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

/// Leaves out what is more than a step may bring, or than may be sent. Returns up to where everything is sent then, where
/// something is left out.
fn bound(
    found: &mut Vec<Replayed>,
    excerpt: &mut Option<(SubscriptionId, Excerpt)>,
    (lane, logs): (&Lane, &mut Logs<'_>),
) -> Option<u64> {
    let messages_max = logs.bounds.messages_max;
    let by_step = match excerpt {
        Some((_, excerpt)) => excerpt.cut(messages_max),
        None => cut(found, messages_max),
    };
    let publications: Vec<&Arc<Publication>> = match &*excerpt {
        Some((_, excerpt)) => excerpt.publications().iter().collect(),
        None => found.iter().map(|one| &one.publication).collect(),
    };
    let count = publications.iter().take_while(|publication| logs.room.takes(publication)).count();
    let before = |publication: &&Arc<Publication>| lane.place_before(publication.offset - 1);
    let Some(before) = publications.get(count).map(before) else { return by_step };
    match excerpt {
        Some((_, excerpt)) => drop(excerpt.cut(count)),
        None => found.truncate(count),
    }
    Some(before)
}

/// All but the first so many, never half of the copies of one message. The offset of the last that stays, if anything was left
/// out.
fn cut(found: &mut Vec<Replayed>, messages_max: usize) -> Option<u64> {
    let offset = |one: &Replayed| one.publication.offset;
    let beyond = found.get(messages_max).map(offset)?;
    let last = found.iter().map(offset).take_while(|known| *known < beyond).last().unwrap_or(beyond);
    found.retain(|one| offset(one) <= last);
    Some(last)
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

/// What one of them reads of the stream itself is no loss for the others. Whether any does.
fn read_all_of_older(readers: &mut [Reader<'_>], lane: &Lane, log: &Log) -> bool {
    let any = readers.iter().any(|reader| reader.older(lane, log).is_some());
    let older = readers.iter_mut().filter(|reader| any && *reader.read < log.floor());
    older.for_each(|reader| reader.view = View::All);
    any
}

/// The next piece for all of these readers of one source: in the order of its log, each message once, as far as all of
/// them have been read. What one reader alone is given others may be given too, so that is an excerpt of `replay`.
pub(super) fn read_together(
    readers: &mut [Reader<'_>],
    (lane, form): (&Lane, Option<CursorForm>),
    logs: &mut Logs<'_>,
    replay: &mut Replay,
) -> Vec<Replayed> {
    let each = form == Some(CursorForm::Each);
    let log = lane.state().log();
    // Where the stream is another one, the shard has to tell of that first.
    if lane.remade() != lane.state().remade() {
        return Vec::new();
    }
    let looked_at = log.looked_at();
    let mut tell = |reader: &Reader<'_>, gaps: Vec<LogGap>| {
        replay.progressed |= !gaps.is_empty();
        replay.gaps.extend(gaps.into_iter().map(|gap| missed((reader.subscription, reader.wanted), lane, gap)));
    };
    let mut until = lane.position();
    for reader in readers.iter_mut() {
        let mut gaps = Vec::new();
        until = until.min(reader.pass_holes(&log, lane.position(), &mut gaps));
        tell(reader, gaps);
    }
    let mut horizon = until;
    let mut excerpt_found = None;
    let mut found: Vec<Replayed> = Vec::new();
    let alone = readers.len() == 1;
    let reads_older = read_all_of_older(readers, lane, &log);
    // A passage may have what the log has let go of: what is told to be gone for one must not come by another's.
    let shares = alone || reads_older || readers.iter().all(|reader| *reader.read >= log.evicted());
    let mut dropped = Vec::new();
    for drops_oldest in [false, true] {
        if drops_oldest {
            // Subscriptions that are told apart drop nothing for each other.
            let together = readers.chunks(if each { 1 } else { readers.len().max(1) });
            dropped = together.flat_map(|readers| drop_oldest(readers, &log, until, horizon)).collect();
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
            let reached = read.next.min(until);
            replay.lost.extend(gaps.first().map(|gap| reader.lost((lane, &log), reached, gap.reason)));
            tell(reader, gaps);
            horizon = horizon.min(read.next);
            let replayed = |publication| Replayed::of(reader.subscription, publication);
            match read.found {
                Passed::Shared(excerpt) if alone => excerpt_found = Some((reader.subscription, excerpt)),
                Passed::Shared(excerpt) => found.extend(excerpt.publications().iter().cloned().map(replayed)),
                Passed::Own(publications) => found.extend(publications.into_iter().map(replayed)),
            }
        }
    }
    found.retain(|replayed| replayed.publication.offset <= horizon);
    found.sort_by_key(|replayed| replayed.publication.offset);
    if !each {
        found.dedup_by_key(|replayed| replayed.publication.offset);
    }
    if let Some(last) = bound(&mut found, &mut excerpt_found, (lane, logs)) {
        horizon = horizon.min(last);
    }
    for (reader, dropped) in readers.iter().zip(&dropped) {
        let left = reader.left(&log, until, dropped);
        replay.lost.extend(left.map(|gap| reader.lost((lane, &log), until, gap.reason)));
        tell(reader, left.into_iter().chain(reader.pass_over(horizon, dropped)).collect());
    }
    replay.looked_at += log.looked_at() - looked_at + logs.passages.take_looked_at();
    drop(log);
    replay.excerpt = excerpt_found.filter(|(_, excerpt)| !excerpt.publications().is_empty());
    for reader in readers {
        replay.progressed |= horizon > *reader.read;
        *reader.read = horizon.max(*reader.read);
    }
    found
}
