//! One source's log: a ring of publications bounded by count, bytes and age, with an index by topic and with coverage.
//!
//! The log is also how shards get their live messages: each reads on from its own position with [`Log::tail`], so a shard
//! that lags needs no queue of its own and delays nobody. Pure: time comes in as an argument.
//!
//! Positions are offsets. Not only a publication takes one: so do a hole and a binding that adds to what is covered.
//! Thereby a cursor that was handed out before one of those differs from one handed out after it, even on a source where
//! nothing was published in between, and who comes back can be told exactly what may be missing.

mod behind;
mod coverage;
mod holes;
mod last;
mod retained;
mod ring;
mod streamed;
#[cfg(test)]
mod tests;
mod topics;
mod weight;

use std::ops::Range;
use std::sync::Arc;

use crate::config::LogBounds;
use crate::hub::log::coverage::{Coverage, Stretch};
use crate::hub::log::holes::Holes;
pub use crate::hub::log::last::LastKept;
use crate::hub::log::retained::{Clears, Retained};
use crate::hub::log::ring::{Kept, Missed, Ring, RingBounds};
pub(super) use crate::hub::log::weight::weight_bytes;
use crate::model::cursor::Cursor;
use crate::model::gap::GapReason;
use crate::model::publication::{Draft, Publication, SourceInfo, UnixMillis};
use crate::model::selector::Selector;
use crate::model::topic::{Pattern, Topic};

/// Live messages pass through the log, so it holds at least as many as shards may lag behind, whatever the configuration.
pub const LIVE_MESSAGES_MIN: usize = 1_024;
/// Likewise in bytes.
pub const LIVE_BYTES_MIN: usize = 1 << 20;
/// Likewise in time, in milliseconds.
pub const LIVE_AGE_MIN_MS: u64 = 1_000;
/// Holes that a log knows one by one; of older ones it knows the last of each reason.
pub const HOLES_MAX: usize = 1_024;
/// Intervals of former bindings that a log knows; what lay before is answered as expired.
pub const ENDED_INTERVALS_MAX: usize = 16_384;
/// Topics of which a log knows when they last had a publication, though neither it nor its offset is known any more.
pub const LAPSED_TOPICS_MAX: usize = 16_384;

/// One source's log.
#[derive(Debug)]
pub struct Log {
    info: Arc<SourceInfo>,
    /// The last position given.
    end: u64,
    ring: Ring,
    retained: Retained,
    coverage: Coverage,
    holes: Holes,
    /// Where it has its positions from.
    origin: Origin,
}

/// Where a log has its positions from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It gives them.
    Counted,
    /// From a stream, which keeps what the log does not: they are [`crate::model::stream`]'s. What follows `begins` passed
    /// through here; nothing while nothing is known of the stream.
    Stream { begins: Option<u64> },
}

/// The next publications for a reader that follows the log.
#[derive(Debug)]
pub struct Tail {
    /// In order of their offsets.
    pub publications: Vec<Arc<Publication>>,
    /// What was or may have been lost from the reader's offset up to `next`, in order.
    pub holes: Vec<Hole>,
    /// The reader fell out of the ring: what it is given starts after this offset. See [`Log::overrun`].
    pub overrun: Option<u64>,
    /// Where to read on: everything up to here is in this answer.
    pub next: u64,
    /// The log's end; more waits while `next` is below it.
    pub end: u64,
}

/// A point where something was or may have been lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// After this offset.
    pub at: u64,
    /// Whoever has been told of it has come to this offset, and everything that follows is after that.
    pub until: u64,
    /// Why.
    pub reason: GapReason,
    /// How many messages, over all topics, when known.
    pub missed: Option<u64>,
    /// The only binding that stood then, if there was exactly one: what was lost matched it.
    sole: Option<Pattern>,
}

/// Publications that match a pattern.
#[derive(Debug)]
pub struct Chunk {
    /// In order of their offsets.
    pub publications: Vec<Arc<Publication>>,
    /// Read on after this; it is the `until` of the call when there are no more.
    pub next: u64,
    /// What matched but left the log before it was read; to be told before `publications`.
    pub gap: Option<LogGap>,
}

/// Where to go on reading after a cursor, and what is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Resume {
    /// Read the log after this offset.
    pub read_after: u64,
    /// What was or may have been missed between the cursor and `judged_until`; empty when certainly nothing was. One for
    /// each reason, in the order in which they first apply.
    pub gaps: Vec<LogGap>,
    /// The log's end when this was judged: holes below it are among `gaps` and need not be told again.
    pub judged_until: u64,
}

/// A loss that concerns one pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogGap {
    /// Why.
    pub reason: GapReason,
    /// How many messages, when known.
    pub missed: Option<u64>,
}

/// How many publications of a topic the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCount {
    /// The topic.
    pub topic: Topic,
    /// How many.
    pub messages: usize,
    /// When the newest was received.
    pub last_received_at: UnixMillis,
}

/// How much one call of [`Log::read`] may return; always at least one publication.
#[derive(Debug, Clone, Copy)]
pub struct ReadBounds {
    /// Publications at most.
    pub messages_max: usize,
    /// Bytes of topics, payloads and attributes at most.
    pub bytes_max: usize,
}

/// Every bound of a log.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    ring: RingBounds,
    holes_max: usize,
    ended_intervals_max: usize,
}

impl From<LogBounds> for Bounds {
    fn from(configured: LogBounds) -> Self {
        let messages_max = configured.messages_max.max(LIVE_MESSAGES_MIN);
        let age_max_ms = u64::try_from(configured.age_max.as_millis()).unwrap_or(u64::MAX);
        let ring = RingBounds {
            messages_max,
            bytes_max: configured.bytes_max.max(LIVE_BYTES_MIN),
            age_max_ms: age_max_ms.max(LIVE_AGE_MIN_MS),
            trail_max: messages_max,
            lapsed_topics_max: LAPSED_TOPICS_MAX.max(configured.last.messages_max),
            last: configured.last,
        };
        Self { ring, holes_max: HOLES_MAX, ended_intervals_max: ENDED_INTERVALS_MAX }
    }
}

impl Log {
    /// An empty log of this source and epoch. Bounds below [`LIVE_MESSAGES_MIN`] and its like are raised to them.
    pub fn new(info: Arc<SourceInfo>, bounds: LogBounds) -> Self {
        Self::bounded(info, bounds.into())
    }

    fn bounded(info: Arc<SourceInfo>, bounds: Bounds) -> Self {
        let coverage = Coverage::new(bounds.ended_intervals_max);
        let (ring, holes) = (Ring::new(bounds.ring), Holes::new(bounds.holes_max));
        let retained = Retained::new(bounds.ring.last, Clears::Forgotten);
        Self { info, end: 0, ring, retained, coverage, holes, origin: Origin::Counted }
    }

    /// Gives the drafts their positions and keeps them; the oldest go where a bound demands it. Returns the positions.
    pub fn append(&mut self, drafts: Vec<Draft>, now: UnixMillis) -> Range<u64> {
        let first = self.end + 1;
        for draft in drafts {
            self.end += 1;
            self.push(Publication { source: self.info.clone(), offset: self.end, draft });
        }
        self.ring.expire(now);
        first..self.end + 1
    }

    fn push(&mut self, publication: Publication) {
        let publication = Arc::new(publication);
        self.retained.note(&publication);
        self.ring.push(publication);
    }

    /// Lets go of what has grown too old.
    pub fn expire(&mut self, now: UnixMillis) {
        self.ring.expire(now);
    }

    /// Its source.
    pub fn info(&self) -> &Arc<SourceInfo> {
        &self.info
    }

    /// The offset of the last publication that has left; 0 for none.
    pub fn evicted(&self) -> u64 {
        self.ring.evicted()
    }

    /// Publications that were looked at for readers of patterns since the start: what replays cost.
    pub fn looked_at(&self) -> u64 {
        self.ring.looked_at()
    }

    /// The last position given; 0 before the first.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many publications it holds.
    pub fn messages(&self) -> usize {
        self.ring.len()
    }

    /// What is kept beside it: of topics whose messages have left it, and what was retained.
    pub fn last_kept(&self) -> LastKept {
        let (last, retained) = (self.ring.last_kept(), self.retained.kept());
        LastKept {
            messages: last.messages + retained.messages,
            bytes: last.bytes + retained.bytes,
            evicted: last.evicted + retained.evicted,
        }
    }

    /// Keeps a publication that the stream behind the log has, if it is among the last of its topic.
    pub fn remember(&mut self, publication: Arc<Publication>) {
        self.retained.note(&publication);
        if publication.offset <= self.ring.evicted().max(self.floor()) {
            self.ring.remember(publication);
        }
    }

    /// How many bytes of topics, payloads and attributes these are.
    pub fn bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// The next publications after an offset: at most so many, and of at most so many bytes but at least one.
    pub fn tail(&self, after: u64, messages_max: usize, bytes_max: usize) -> Tail {
        let overrun = (after < self.ring.evicted()).then(|| self.ring.evicted());
        let read = take_bounded(self.ring.after(after), ReadBounds { messages_max, bytes_max });
        let next = read.more_after.unwrap_or(self.end).max(after);
        let holes = self.holes.known_from(after).take_while(|hole| hole.at < next).cloned().collect();
        Tail { publications: read.publications, holes, overrun, next, end: self.end }
    }

    /// What a reader at `after` that [`Tail::overrun`] told of its fall missed of one pattern.
    pub fn overrun(&self, pattern: &Pattern, after: u64) -> Option<LogGap> {
        gap(self.ring.missed(pattern, after, self.end), GapReason::Slow)
    }

    /// Notes that something was or may have been lost here, unless it is known that nothing was.
    ///
    /// A hole takes a position, so that a cursor from before it differs from one after it.
    pub fn hole(&mut self, reason: GapReason, missed: Option<u64>) {
        if missed == Some(0) {
            return;
        }
        self.hole_until(self.end + 1, reason, missed);
    }

    fn hole_until(&mut self, until: u64, reason: GapReason, missed: Option<u64>) {
        self.holes.push(Hole { at: self.end, until, reason, missed, sole: self.coverage.sole().cloned() });
        self.end = until;
    }

    /// Messages may come, or be lost, by a binding that the broker has not confirmed.
    pub fn bound_unheard(&mut self) {
        self.coverage.bound_unheard();
    }

    /// A binding stands from here on. Takes a position unless another one that stands includes it.
    pub fn bound(&mut self, pattern: &Pattern) {
        // A stream has all there is, whatever is bound.
        if self.is_stream() {
            return;
        }
        self.end = self.coverage.bound(pattern, self.end);
    }

    /// A binding no longer stands.
    pub fn unbound(&mut self, pattern: &Pattern) {
        self.coverage.unbound(pattern, self.end);
    }

    /// Whether what is published on a pattern comes at present.
    pub fn covers(&self, pattern: &Pattern) -> bool {
        self.is_stream() || self.coverage.covers(pattern)
    }

    /// The link is lost: no binding stands.
    pub fn unbound_all(&mut self) {
        self.coverage.lost(self.end);
    }

    /// Where somebody who wants `pattern` and has seen everything up to `after` goes on, and what is gone.
    ///
    /// To be asked once a binding stands for the pattern; before that the stretch up to the binding is not judged.
    ///
    /// For a log that counts; a stream's has [`Self::resume_stream`].
    pub fn resume(&self, pattern: &Pattern, after: Cursor) -> Resume {
        let judged_until = self.end;
        if after.epoch != self.info.epoch || after.offset > self.end {
            let gaps = vec![LogGap { reason: GapReason::UnknownCursor, missed: None }];
            return Resume { read_after: self.end, gaps, judged_until };
        }
        let stretches = self.coverage.uncovered(pattern, after.offset, self.end);
        let mut losses = self.holes_outside(&stretches, pattern, after.offset);
        losses.extend(stretches.iter().map(|stretch| (stretch.from, LogGap { reason: stretch.reason, missed: None })));
        let expired = gap(self.ring.missed(pattern, after.offset, self.end), GapReason::Expired);
        losses.extend(expired.map(|gap| (after.offset, gap)));
        losses.sort_by_key(|(position, _)| *position);
        let gaps = merge(losses.into_iter().map(|(_, gap)| gap));
        Resume { read_after: after.offset.max(self.ring.evicted()), gaps, judged_until }
    }

    /// What matches after one offset and up to another, in chunks.
    pub fn read(&self, pattern: &Pattern, after: u64, until: u64, bounds: ReadBounds) -> Chunk {
        let missed = self.ring.missed(pattern, after, until);
        let read = take_bounded(self.ring.matching(pattern, after, until), bounds);
        let next = read.more_after.unwrap_or(until);
        Chunk { publications: read.publications, next, gap: gap(missed, GapReason::Slow) }
    }

    /// The newest `each` of every matching topic that are wanted, of those the newest `total`, in order of their offsets.
    pub fn newest(&self, wanted: &Selector, each: usize, total: usize) -> Vec<Arc<Publication>> {
        self.ring.newest(wanted, each, total)
    }

    /// What was retained and is wanted, of it the newest `total`, in order of their offsets.
    pub fn retained(&self, wanted: &Selector, total: usize) -> Vec<Arc<Publication>> {
        self.retained.matching(wanted, total)
    }

    /// The first `count_max` topics that the log holds publications of, in order of their texts.
    pub fn topics(&self, count_max: usize) -> Vec<TopicCount> {
        self.ring.topics().take(count_max).collect()
    }

    /// How many topics the log holds.
    pub fn topic_count(&self) -> usize {
        self.ring.topics().count()
    }

    /// The holes after an offset that concern a pattern, with their positions: where nothing covered the pattern anyhow,
    /// a hole adds nothing.
    fn holes_outside(&self, stretches: &[Stretch], pattern: &Pattern, after: u64) -> Vec<(u64, LogGap)> {
        let is_outside = |at: u64| !stretches.iter().any(|stretch| stretch.from <= at && at < stretch.to);
        let forgotten = self.holes.forgotten_from(after).filter(|(_, at)| is_outside(*at));
        let forgotten = forgotten.map(|(reason, at)| (at, LogGap { reason, missed: None }));
        let known = self.holes.known_from(after).filter(|hole| is_outside(hole.at));
        let known = known.map(|hole| (hole.at, hole.gap(pattern)));
        forgotten.chain(known).collect()
    }
}

impl LogGap {
    /// What it means for who wants only some of a pattern: nobody knows how many of those that were counted it was.
    pub fn filtered(self, wanted: &Selector) -> Self {
        Self { missed: self.missed.filter(|_| wanted.filter.is_none()), ..self }
    }
}

impl Hole {
    /// What it means for one pattern: the number counts all topics, so it is told only when all of them match.
    pub fn gap(&self, pattern: &Pattern) -> LogGap {
        let all_match = pattern.includes(self.sole.as_ref().unwrap_or(&Pattern::all()));
        LogGap { reason: self.reason, missed: self.missed.filter(|_| all_match) }
    }
}

/// Publications up to a bound.
struct Taken {
    publications: Vec<Arc<Publication>>,
    /// The offset of the last one, when there are more after it.
    more_after: Option<u64>,
}

fn take_bounded<'a>(publications: impl Iterator<Item = Kept<'a>>, bounds: ReadBounds) -> Taken {
    let mut taken = Taken { publications: Vec::new(), more_after: None };
    let mut bytes = 0;
    for (publication, publication_bytes) in publications {
        bytes += publication_bytes;
        if let Some(last) = taken.publications.last()
            && (taken.publications.len() >= bounds.messages_max || bytes > bounds.bytes_max)
        {
            taken.more_after = Some(last.offset);
            break;
        }
        taken.publications.push(publication.clone());
    }
    taken
}

fn gap(missed: Missed, reason: GapReason) -> Option<LogGap> {
    match missed {
        Missed::Nothing => None,
        Missed::Exactly(missed) => Some(LogGap { reason, missed: Some(missed) }),
        Missed::Unknown => Some(LogGap { reason, missed: None }),
    }
}

/// One gap for each reason, where the first of them stood; numbers add up while all are known.
fn merge(losses: impl Iterator<Item = LogGap>) -> Vec<LogGap> {
    let mut gaps: Vec<LogGap> = Vec::new();
    for loss in losses {
        match gaps.iter_mut().find(|gap| gap.reason == loss.reason) {
            Some(gap) => gap.missed = gap.missed.zip(loss.missed).map(|(one, other)| one + other),
            None => gaps.push(loss),
        }
    }
    gaps
}
