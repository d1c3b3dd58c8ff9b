//! One source's log: a ring of publications bounded by count, bytes and age, with an index by topic and with coverage.
//!
//! The log is also how shards get their live messages: each reads on from its own position with [`Log::tail`], so a shard
//! that lags needs no queue of its own and delays nobody. Pure: time comes in as an argument.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::config::LogBounds;
use crate::model::cursor::Cursor;
use crate::model::gap::GapReason;
use crate::model::publication::{Draft, Publication, SourceInfo, UnixMillis};
use crate::model::topic::{Pattern, Topic};

/// One source's log.
#[derive(Debug)]
pub struct Log {
    info: Arc<SourceInfo>,
    bounds: LogBounds,
    end: u64,
    ring: VecDeque<Arc<Publication>>,
    holes: VecDeque<Hole>,
}

/// The next publications for a reader that follows the log.
#[derive(Debug, Default)]
pub struct Tail {
    /// In order of their offsets.
    pub publications: Vec<Arc<Publication>>,
    /// What was or may have been lost in between, in order.
    pub holes: Vec<Hole>,
    /// The reader fell out of the ring: what it is given starts after this offset.
    pub overrun: Option<u64>,
    /// Where to read on: everything up to here is in this answer.
    pub next: u64,
    /// The log's end; more waits while `next` is below it.
    pub end: u64,
}

/// A point where something was or may have been lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// After this offset and before every higher one.
    pub at: u64,
    /// Why.
    pub reason: GapReason,
    /// How many messages, over all topics, when known.
    pub missed: Option<u64>,
}

/// Publications that match a pattern.
#[derive(Debug, Default)]
pub struct Chunk {
    /// In order of their offsets.
    pub publications: Vec<Arc<Publication>>,
    /// Read on after this; it is the `until` of the call when there are no more.
    pub next: u64,
}

/// Where to go on reading after a cursor, and what is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Resume {
    /// Read the log after this offset.
    pub read_after: u64,
    /// What was or may have been missed between the cursor and `judged_until`; empty when certainly nothing was.
    pub gaps: Vec<LogGap>,
    /// The log's end when this was judged: holes at or after it are not among `gaps`, those before it are.
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
}

impl Log {
    /// An empty log of this source and epoch.
    pub fn new(info: Arc<SourceInfo>, bounds: LogBounds) -> Self {
        Self { info, bounds, end: 0, ring: VecDeque::new(), holes: VecDeque::new() }
    }

    /// Gives the drafts their positions and keeps them; the oldest go where a bound demands it.
    pub fn append(&mut self, drafts: Vec<Draft>, now: UnixMillis) -> Range<u64> {
        let first = self.end + 1;
        for draft in drafts {
            self.end += 1;
            self.ring.push_back(Arc::new(Publication { source: self.info.clone(), offset: self.end, draft }));
        }
        self.expire(now);
        first..self.end + 1
    }

    /// Drops what a bound no longer allows.
    pub fn expire(&mut self, _now: UnixMillis) {
        while self.ring.len() > self.bounds.messages_max {
            self.ring.pop_front();
        }
    }

    /// The last position given; 0 before the first.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next publications after an offset: at most so many, and of at most so many bytes but at least one.
    pub fn tail(&self, after: u64, messages_max: usize, _bytes_max: usize) -> Tail {
        let publications: Vec<_> =
            self.ring.iter().filter(|kept| kept.offset > after).take(messages_max).cloned().collect();
        let next = publications.last().map_or(self.end, |last| last.offset);
        Tail { publications, holes: Vec::new(), overrun: None, next, end: self.end }
    }

    /// Notes that something was or may have been lost here. Takes a position of its own.
    pub fn hole(&mut self, reason: GapReason, missed: Option<u64>) {
        self.holes.push_back(Hole { at: self.end, reason, missed });
        self.end += 1;
    }

    /// A binding stands from here on.
    pub fn bound(&mut self, _pattern: &Pattern) {}

    /// A binding no longer stands.
    pub fn unbound(&mut self, _pattern: &Pattern) {}

    /// The link is lost: no binding stands.
    pub fn unbound_all(&mut self) {}

    /// Where somebody who wants `pattern` and has seen everything up to `after` goes on, and what is gone.
    pub fn resume(&self, _pattern: &Pattern, after: Cursor) -> Resume {
        Resume { read_after: after.offset, gaps: Vec::new(), judged_until: self.end }
    }

    /// What matches after one offset and up to another.
    pub fn read(&self, pattern: &Pattern, after: u64, until: u64, bounds: ReadBounds) -> Chunk {
        let matching = |kept: &&Arc<Publication>| {
            kept.offset > after && kept.offset <= until && pattern.matches(&kept.draft.topic)
        };
        let publications: Vec<_> = self.ring.iter().filter(matching).take(bounds.messages_max).cloned().collect();
        Chunk { publications, next: until }
    }

    /// The newest `each` of every matching topic, the newest `total` of those, in order of their offsets.
    pub fn newest(&self, _pattern: &Pattern, _each: usize, _total: usize) -> Vec<Arc<Publication>> {
        Vec::new()
    }

    /// The first `count_max` topics in the log, in order of their texts.
    pub fn topics(&self, _count_max: usize) -> Vec<TopicCount> {
        Vec::new()
    }
}

/// How much one call of [`Log::read`] may return.
#[derive(Debug, Clone, Copy)]
pub struct ReadBounds {
    /// Publications at most.
    pub messages_max: usize,
    /// Bytes of their payloads and attributes at most, but always one publication.
    pub bytes_max: usize,
}
