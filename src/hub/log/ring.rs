//! The publications that a log holds, oldest first, and a trail of what it held before: offsets and topics without
//! payloads, so that who was away can be told how many were missed.
//!
//! A publication's sequence number counts publications; its offset also counts holes and new bindings, so it may skip.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::config::LastBounds;
use crate::hub::log::TopicCount;
use crate::hub::log::last::{Last, LastKept};
use crate::hub::log::topics::{Record, Selected, Selection, Topics};
use crate::hub::log::weight::weight_bytes;
use crate::model::publication::{Publication, UnixMillis};
use crate::model::selector::Selector;
use crate::model::topic::Pattern;

/// Once a merge of as many topics would cost more than looking at every entry in the range.
const MERGE_STEPS: u64 = 16;

/// What a ring may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingBounds {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
    pub(super) age_max_ms: u64,
    /// Publications that are gone but whose offset and topic are still known.
    pub(super) trail_max: usize,
    /// Topics of which only the last offset is still known.
    pub(super) lapsed_topics_max: usize,
    /// What stays of topics whose publications are gone.
    pub(super) last: LastBounds,
}

#[derive(Debug)]
pub(super) struct Ring {
    bounds: RingBounds,
    /// The trail, then what is kept.
    entries: VecDeque<Entry>,
    /// The sequence number of the first entry.
    first: u64,
    kept: VecDeque<Arc<Publication>>,
    /// Of all that is kept.
    bytes: usize,
    /// The offset of the last publication that is no longer kept; 0 for none.
    evicted: u64,
    /// The offset of the last publication that is no longer in the trail either; 0 for none.
    forgotten: u64,
    topics: Topics,
    last: Last,
    /// Entries that iterators of [`Ring::matching`] have looked at.
    looked_at: Cell<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    topic: u32,
    /// What it counts against the bound.
    bytes: u32,
}

/// A publication that is kept, and its bytes as the bounds count them.
pub(super) type Kept<'a> = (&'a Arc<Publication>, usize);

/// Sequence numbers from `from`, below `to`.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
}

/// How many matching publications are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    /// Certainly none.
    Nothing,
    /// So many, at least one.
    Exactly(u64),
    /// At least one, or nobody knows.
    Unknown,
}

impl From<Option<u64>> for Missed {
    fn from(missed: Option<u64>) -> Self {
        match missed {
            None => Self::Unknown,
            Some(0) => Self::Nothing,
            Some(missed) => Self::Exactly(missed),
        }
    }
}

impl Ring {
    pub(super) fn new(bounds: RingBounds) -> Self {
        Self {
            bounds,
            entries: VecDeque::new(),
            first: 0,
            kept: VecDeque::new(),
            bytes: 0,
            evicted: 0,
            forgotten: 0,
            topics: Topics::new(bounds.lapsed_topics_max),
            last: Last::new(bounds.last),
            looked_at: Cell::new(0),
        }
    }

    /// Keeps a publication, whose offset must be above all before it. Bounds are for [`Self::expire`] to enforce.
    pub(super) fn push(&mut self, publication: Arc<Publication>) {
        let sequence = self.first + self.entries.len() as u64;
        let topic = self.topics.add(&publication.draft.topic, sequence);
        let bytes = u32::try_from(weight_bytes(&publication.draft)).unwrap_or(u32::MAX);
        self.entries.push_back(Entry { offset: publication.offset, topic, bytes });
        self.bytes += bytes as usize;
        self.kept.push_back(publication);
    }

    /// Lets go of what a bound no longer allows; the newest publication stays while its age allows.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        while let Some(oldest) = self.kept.front() {
            let is_old = oldest.draft.received_at.saturating_add(self.bounds.age_max_ms) < now;
            let is_too_much = self.kept.len() > self.bounds.messages_max || self.bytes > self.bounds.bytes_max;
            if !is_old && (!is_too_much || self.kept.len() == 1) {
                return;
            }
            self.evict();
        }
    }

    /// The offset of the last publication that is no longer kept; 0 for none.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What it may hold.
    pub(super) fn bounds(&self) -> RingBounds {
        self.bounds
    }

    /// Whether a publication stands, or stood, at exactly this offset; nothing where that is forgotten.
    pub(super) fn knew(&self, offset: u64) -> Option<bool> {
        let known = self.entries.binary_search_by_key(&offset, |entry| entry.offset).is_ok();
        (offset > self.forgotten || known).then_some(known)
    }

    pub(super) fn looked_at(&self) -> u64 {
        self.looked_at.get()
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Their payloads and attributes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept after an offset, in order.
    pub(super) fn after(&self, offset: u64) -> impl Iterator<Item = Kept<'_>> {
        let kept_first = self.kept_first();
        let from = self.sequence_after(offset).max(kept_first);
        let entries = self.entries.range((from - self.first) as usize..);
        let kept = self.kept.range((from - kept_first) as usize..);
        kept.zip(entries.map(|entry| entry.bytes as usize))
    }

    /// What is kept and matches after one offset and up to another, in order.
    pub(super) fn matching(
        &self,
        pattern: &Pattern,
        after: u64,
        until: u64,
    ) -> Box<dyn Iterator<Item = Kept<'_>> + '_> {
        let from = self.sequence_after(after).max(self.kept_first());
        let span = Span { from, to: self.sequence_after(until).max(from) };
        match self.topics.select(pattern) {
            Selection::Every => {
                let look = |sequence| self.look().kept_at(sequence);
                Box::new((span.from..span.to).filter_map(look))
            }
            Selection::Some(selected)
                if selected.keys.len() as u64 * MERGE_STEPS > span.to - span.from + MERGE_STEPS =>
            {
                Box::new(self.scan(selected, span))
            }
            Selection::Some(selected) => Box::new(self.merge(selected, span)),
        }
    }

    /// The newest `each` of every matching topic that are wanted, of those the newest `total`, in order.
    pub(super) fn newest(&self, wanted: &Selector, each: usize, total: usize) -> Vec<Arc<Publication>> {
        if each == 0 || total == 0 {
            return Vec::new();
        }
        let newest_of = |record| self.newest_of(record, wanted, each);
        let mut newest: Vec<&Arc<Publication>> = match self.topics.select(&wanted.pattern) {
            Selection::Every => self.topics.in_order().flat_map(|(_, record)| newest_of(record)).collect(),
            Selection::Some(selected) => {
                selected.keys.iter().flat_map(|key| newest_of(self.topics.record(*key))).collect()
            }
        };
        let newer_first = |publication: &&Arc<Publication>| Reverse(publication.offset);
        if newest.len() > total {
            newest.select_nth_unstable_by_key(total - 1, newer_first);
            newest.truncate(total);
        }
        newest.sort_unstable_by_key(newer_first);
        newest.into_iter().rev().cloned().collect()
    }

    /// Whether nothing of the same topic that is wanted follows a publication that is kept, up to an offset.
    pub(super) fn is_newest(&self, publication: &Publication, wanted: &Selector, until: u64) -> bool {
        let Some(record) = self.topics.find(&publication.draft.topic) else { return true };
        let from = self.sequence_after(publication.offset);
        !self.holds_wanted(record, wanted, Span { from, to: self.sequence_after(until) })
    }

    /// Whether a topic has something that is kept and that a filter lets in.
    fn holds_wanted(&self, record: &Record, wanted: &Selector, span: Span) -> bool {
        let first = record.places.partition_point(|place| *place < span.from.max(self.kept_first()));
        let mut places = record.places.range(first..).take_while(|place| **place < span.to);
        places.any(|place| self.lets_in(wanted, *place))
    }

    /// Whether a publication is kept and a filter lets it in.
    fn lets_in(&self, wanted: &Selector, sequence: u64) -> bool {
        self.kept_at(sequence).is_some_and(|(kept, _)| wanted.lets_in(&kept.draft))
    }

    /// The last of a topic that are wanted, newest first: of those that are kept here, then of those that were.
    fn newest_of<'a>(
        &'a self,
        record: &'a Record,
        wanted: &'a Selector,
        each: usize,
    ) -> impl Iterator<Item = &'a Arc<Publication>> {
        let places = record.places.iter().rev().take_while(|place| **place >= self.kept_first());
        let here = places.filter_map(|place| self.kept_at(*place)).map(|(kept, _)| kept);
        let all = here.chain(record.last().iter().rev());
        all.filter(|publication| wanted.lets_in(&publication.draft)).take(each)
    }

    /// Keeps what the stream behind the log has, if it is among the last of its topic.
    pub(super) fn remember(&mut self, publication: Arc<Publication>) {
        let key = self.topics.remember(&publication.draft.topic);
        self.keep_last(key, publication);
        let gone = self.topics.forget_lapsed();
        self.last.topic_gone(gone);
    }

    /// What is kept of topics beyond the ring.
    pub(super) fn last_kept(&self) -> LastKept {
        self.last.kept()
    }

    fn keep_last(&mut self, key: u32, publication: Arc<Publication>) {
        if self.last.bounds().each == 0 {
            return;
        }
        let kept_first = self.kept_first();
        let places = &self.topics.record(key).places;
        let in_ring = places.len() - places.partition_point(|place| *place < kept_first);
        self.last.keep(&mut self.topics, key, publication, in_ring);
    }

    /// How many topics that are wanted and match a pattern too had publications after one offset, up to another, of which none
    /// that is wanted is kept any more; nothing when that is not known.
    pub(super) fn lost_topics(&self, wanted: &Selector, also: &Pattern, after: u64, until: u64) -> Option<u64> {
        if after < self.topics.forgotten() {
            return None;
        }
        let (from, kept, to) = (self.sequence_after(after), self.kept_first(), self.sequence_after(until));
        let is_lost = |record: &Record| {
            if self.holds_wanted(record, wanted, Span { from: kept, to }) {
                return Some(false);
            }
            Some(record.count(from, kept.min(to), after)? > 0)
        };
        let count = |lost: Option<u64>, record: &Record| Some(lost? + u64::from(is_lost(record)?));
        self.matching_both([&wanted.pattern, also]).fold(Some(0), count)
    }

    /// Topics that match both of two patterns.
    fn matching_both<'a>(&'a self, [one, other]: [&'a Pattern; 2]) -> Box<dyn Iterator<Item = &'a Record> + 'a> {
        let (one, other) = if one.as_str() == "#" { (other, one) } else { (one, other) };
        let wants_all = other.as_str() == "#";
        let matches_too =
            move |record: &&Record| wants_all || record.topic.as_ref().is_some_and(|topic| other.matches(topic));
        match self.topics.select(one) {
            Selection::Every => Box::new(self.topics.in_order().map(|(_, record)| record).filter(matches_too)),
            Selection::Some(selected) => {
                let records = (0..selected.keys.len()).filter_map(move |place| selected.keys.get(place).copied());
                Box::new(records.map(|key| self.topics.record(key)).filter(matches_too))
            }
        }
    }

    /// How many that match both of two patterns were after one offset, up to another, and are no longer kept.
    pub(super) fn missed_by_both(&self, both: [&Pattern; 2], after: u64, until: u64) -> Missed {
        let Span { from, to } = match self.gone(after, until) {
            Ok(gone) => gone,
            Err(missed) => return missed,
        };
        let missed: Option<u64> = self.matching_both(both).map(|record| record.count(from, to, after)).sum();
        missed.into()
    }

    /// Where those stood that came after one offset, up to another, and are no longer kept; or what of them is missed, where no
    /// topic need be asked.
    fn gone(&self, after: u64, until: u64) -> Result<Span, Missed> {
        if after >= self.evicted || after >= until {
            return Err(Missed::Nothing);
        }
        if after < self.topics.forgotten() {
            return Err(Missed::Unknown);
        }
        Ok(Span { from: self.sequence_after(after), to: self.sequence_after(until).min(self.kept_first()) })
    }

    /// How many that match were after one offset, up to another, and are no longer kept.
    pub(super) fn missed(&self, pattern: &Pattern, after: u64, until: u64) -> Missed {
        let Span { from, to } = match self.gone(after, until) {
            Ok(gone) => gone,
            Err(missed) => return missed,
        };
        let missed = match self.topics.select(pattern) {
            Selection::Every => (self.forgotten <= after).then(|| to - from),
            Selection::Some(selected) => {
                selected.keys.iter().map(|key| self.topics.record(*key).count(from, to, after)).sum()
            }
        };
        missed.into()
    }

    /// Topics that have publications here, in order of their texts.
    pub(super) fn topics(&self) -> impl Iterator<Item = TopicCount> {
        let kept_first = self.kept_first();
        self.topics.in_order().filter_map(move |(topic, record)| {
            let gone = record.places.partition_point(|place| *place < kept_first);
            let newest = record.places.back().and_then(|place| self.kept_at(*place))?;
            let messages = record.places.len().checked_sub(gone).filter(|messages| *messages > 0)?;
            let last_received_at = newest.0.draft.received_at;
            Some(TopicCount { topic: topic.clone(), messages, last_received_at })
        })
    }

    /// Looks at every entry of the span.
    fn scan(&self, selected: Arc<Selected>, span: Span) -> impl Iterator<Item = Kept<'_>> {
        let place = |sequence: u64| ((sequence - self.first) as usize).min(self.entries.len());
        let entries = self.entries.range(place(span.from)..place(span.to)).zip(span.from..);
        let holds = move |(entry, _): &(&Entry, u64)| {
            self.look();
            selected.holds(entry.topic)
        };
        entries.filter(holds).filter_map(|(_, sequence)| self.kept_at(sequence))
    }

    /// Takes the next of all the topics, again and again.
    fn merge(&self, selected: Arc<Selected>, span: Span) -> impl Iterator<Item = Kept<'_>> {
        let mut heads = BinaryHeap::with_capacity(selected.keys.len());
        for key in &selected.keys {
            let places = &self.topics.record(*key).places;
            let place = places.partition_point(|sequence| *sequence < span.from);
            heads.extend(places.get(place).map(|sequence| Reverse((*sequence, *key, place))));
        }
        std::iter::from_fn(move || {
            let Reverse((sequence, key, place)) = heads.pop()?;
            self.look();
            if sequence >= span.to {
                return None;
            }
            let next = self.topics.record(key).places.get(place + 1);
            heads.extend(next.map(|sequence| Reverse((*sequence, key, place + 1))));
            self.kept_at(sequence)
        })
    }

    /// Counts one more entry.
    fn look(&self) -> &Self {
        self.looked_at.set(self.looked_at.get() + 1);
        self
    }

    fn kept_at(&self, sequence: u64) -> Option<Kept<'_>> {
        let kept = self.kept.get(sequence.checked_sub(self.kept_first())? as usize)?;
        let entry = self.entries.get((sequence - self.first) as usize)?;
        Some((kept, entry.bytes as usize))
    }

    /// The sequence number of the first publication that is kept, or would be.
    fn kept_first(&self) -> u64 {
        self.first + (self.entries.len() - self.kept.len()) as u64
    }

    /// The sequence number of the first known publication after an offset, or of the next one to come.
    fn sequence_after(&self, offset: u64) -> u64 {
        self.first + self.entries.partition_point(|entry| entry.offset <= offset) as u64
    }

    fn evict(&mut self) {
        let place = self.entries.len() - self.kept.len();
        let Some(entry) = self.entries.get(place).copied() else { return };
        let Some(publication) = self.kept.pop_front() else { return };
        self.keep_last(entry.topic, publication);
        self.bytes -= entry.bytes as usize;
        self.evicted = entry.offset;
        if place >= self.bounds.trail_max
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            self.forgotten = entry.offset;
            let gone = self.topics.forget_oldest(entry.topic, entry.offset);
            self.last.topic_gone(gone);
        }
    }
}
