//! Between which positions which binding stood: what a log must know to say that nothing was missed.
//!
//! A binding covers a pattern that it includes. The stretches in which several bindings covered a pattern chain up, so a
//! binding that a wider one absorbed goes on being worth something. What is bounded is forgotten oldest first, and
//! answered as expired from then on.

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::hub::trie::{Search, Trie};
use crate::model::gap::GapReason;
use crate::model::topic::Pattern;

/// The bindings of one log, past and present.
#[derive(Debug)]
pub(super) struct Coverage {
    trie: Trie,
    bindings: Vec<Binding>,
    free: Vec<u32>,
    /// Which have stood since the link was last lost.
    since_lost: Stood,
    /// Bindings that stand now.
    live: HashSet<u32, RandomState>,
    /// Whose oldest ended interval goes next: one entry for each ended interval, in the order of their ends.
    ended: VecDeque<u32>,
    ended_max: usize,
    /// Intervals that ended up to here may be forgotten.
    forgotten: u64,
}

#[derive(Debug, Default)]
struct Binding {
    /// `None` while the place is free.
    pattern: Option<Pattern>,
    /// In order; only the last can still be open.
    intervals: VecDeque<Interval>,
}

/// Which bindings have stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stood {
    None,
    One(u32),
    Several,
}

/// Covers positions above `start`, up to `end`.
#[derive(Debug, Clone, Copy)]
struct Interval {
    start: u64,
    /// `None` while the binding stands.
    end: Option<u64>,
    /// Whether it ended with the link.
    was_lost: bool,
}

/// Positions above `from`, up to `to`, in which nothing covered a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) reason: GapReason,
}

impl Coverage {
    /// Remembers at most so many intervals that ended.
    pub(super) fn new(ended_max: usize) -> Self {
        Self {
            trie: Trie::default(),
            bindings: Vec::new(),
            free: Vec::new(),
            since_lost: Stood::None,
            live: HashSet::default(),
            ended: VecDeque::new(),
            ended_max,
            forgotten: 0,
        }
    }

    /// A binding stands, at the log's end. Returns the new end.
    ///
    /// What the binding adds is not known to be complete before this moment, and somebody may already hold the end as a
    /// cursor. So the binding takes a position of its own, unless another one that stands includes it.
    pub(super) fn bound(&mut self, pattern: &Pattern, end: u64) -> u64 {
        let known = self.trie.find(pattern);
        if known.is_some_and(|key| self.live.contains(&key)) {
            return end;
        }
        let start = if self.covers(pattern) { end } else { end + 1 };
        let key = known.unwrap_or_else(|| self.add(pattern));
        self.bindings[key as usize].intervals.push_back(Interval { start, end: None, was_lost: false });
        self.live.insert(key);
        self.since_lost = match self.since_lost {
            Stood::None => Stood::One(key),
            Stood::One(known) if known == key => Stood::One(key),
            Stood::One(_) | Stood::Several => Stood::Several,
        };
        start
    }

    /// A binding no longer stands.
    pub(super) fn unbound(&mut self, pattern: &Pattern, end: u64) {
        if let Some(key) = self.trie.find(pattern)
            && self.live.remove(&key)
        {
            self.close(key, end, false);
        }
    }

    /// The link is lost, and every binding with it.
    pub(super) fn lost(&mut self, end: u64) {
        self.since_lost = Stood::None;
        for key in std::mem::take(&mut self.live) {
            self.close(key, end, true);
        }
    }

    /// A binding may have stood without a word of it.
    pub(super) fn bound_unheard(&mut self) {
        self.since_lost = Stood::Several;
    }

    /// The only binding that stands, if none but it has stood on this link: whatever is in flight matches it.
    pub(super) fn sole(&self) -> Option<&Pattern> {
        let Stood::One(key) = self.since_lost else { return None };
        self.live.contains(&key).then(|| self.bindings.get(key as usize)?.pattern.as_ref()).flatten()
    }

    /// Whether a binding that stands includes a pattern.
    pub(super) fn covers(&self, pattern: &Pattern) -> bool {
        self.including(pattern).any(|key| self.live.contains(&key))
    }

    /// Where between two positions nothing covered a pattern, in order.
    pub(super) fn uncovered(&self, pattern: &Pattern, after: u64, end: u64) -> Vec<Stretch> {
        let including = self.including(pattern);
        let intervals = including.flat_map(|key| self.bindings[key as usize].intervals.iter().copied());
        let mut intervals: Vec<Interval> = intervals.collect();
        intervals.sort_unstable_by_key(|interval| interval.start);
        let mut stretches = Vec::new();
        let mut covered = after;
        for interval in &intervals {
            if interval.start > covered {
                self.add_stretches(&mut stretches, &intervals, covered, interval.start.min(end));
            }
            covered = covered.max(interval.end.unwrap_or(end));
            if covered >= end {
                return stretches;
            }
        }
        if covered < end {
            self.add_stretches(&mut stretches, &intervals, covered, end);
        }
        stretches
    }

    /// Names the reason for a stretch; what was forgotten may have covered its beginning, which is then a stretch apart.
    fn add_stretches(&self, stretches: &mut Vec<Stretch>, intervals: &[Interval], from: u64, to: u64) {
        let known_from = self.forgotten.clamp(from, to);
        if known_from > from {
            stretches.push(Stretch { from, to: known_from, reason: GapReason::Expired });
        }
        if known_from < to {
            let ended = intervals.iter().filter(|interval| interval.end.is_some_and(|end| end <= known_from));
            let last = ended.max_by_key(|interval| (interval.end, interval.was_lost));
            let was_lost = last.is_some_and(|interval| interval.was_lost);
            let reason = if was_lost { GapReason::Outage } else { GapReason::Unbound };
            stretches.push(Stretch { from: known_from, to, reason });
        }
    }

    /// The bindings, past or present, that include a pattern.
    fn including(&self, pattern: &Pattern) -> impl Iterator<Item = u32> {
        let mut found = Vec::new();
        self.trie.may_include(pattern, &mut Search::default(), &mut found);
        let includes =
            |key: &u32| self.bindings[*key as usize].pattern.as_ref().is_some_and(|outer| outer.includes(pattern));
        found.retain(includes);
        found.into_iter()
    }

    fn add(&mut self, pattern: &Pattern) -> u32 {
        let binding = Binding { pattern: Some(pattern.clone()), intervals: VecDeque::new() };
        let key = match self.free.pop() {
            Some(key) => {
                self.bindings[key as usize] = binding;
                key
            }
            None => {
                self.bindings.push(binding);
                (self.bindings.len() - 1) as u32
            }
        };
        self.trie.insert(pattern, key);
        key
    }

    fn close(&mut self, key: u32, end: u64, was_lost: bool) {
        let Some(interval) = self.bindings[key as usize].intervals.back_mut() else { return };
        interval.end = Some(end);
        interval.was_lost = was_lost;
        self.ended.push_back(key);
        while self.ended.len() > self.ended_max {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.ended.pop_front() else { return };
        let binding = &mut self.bindings[key as usize];
        if let Some(Interval { end: Some(end), .. }) = binding.intervals.pop_front() {
            self.forgotten = self.forgotten.max(end);
        }
        if binding.intervals.is_empty()
            && let Some(pattern) = std::mem::take(binding).pattern
        {
            self.trie.remove(&pattern);
            self.free.push(key);
        }
    }
}
