//! Points at which a log knows that something was or may have been lost, whatever its topic.

use std::collections::{BTreeMap, VecDeque};

use crate::hub::log::Hole;
use crate::model::gap::GapReason;

/// The holes of one log, oldest first.
#[derive(Debug)]
pub(super) struct Holes {
    known: VecDeque<Hole>,
    known_max: usize,
    /// Where the last hole of each reason was that is no longer known by itself.
    forgotten: BTreeMap<GapReason, u64>,
}

impl Holes {
    /// Knows at most so many, and of those before them the last of each reason.
    pub(super) fn new(known_max: usize) -> Self {
        Self { known: VecDeque::new(), known_max, forgotten: BTreeMap::new() }
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.forgotten.clear();
    }

    /// Adds one, which must be after all before it.
    pub(super) fn push(&mut self, hole: Hole) {
        self.known.push_back(hole);
        if self.known.len() > self.known_max
            && let Some(oldest) = self.known.pop_front()
        {
            self.forgotten.insert(oldest.reason, oldest.until - 1);
        }
    }

    /// Where the last hole of a reason ends.
    pub(super) fn last(&self, reason: GapReason) -> Option<u64> {
        let known = self.known.iter().rev().find(|hole| hole.reason == reason).map(|hole| hole.until);
        known.or_else(|| self.forgotten.get(&reason).map(|at| at + 1))
    }

    /// Those that end after an offset, in order: what a reader who saw everything up to it has not been told.
    pub(super) fn known_from(&self, offset: u64) -> impl Iterator<Item = &Hole> {
        self.known.range(self.known.partition_point(|hole| hole.until <= offset)..)
    }

    /// Of those that are no longer known by themselves, the last of each reason, when it is at or after an offset.
    pub(super) fn forgotten_from(&self, offset: u64) -> impl Iterator<Item = (GapReason, u64)> {
        self.forgotten.iter().map(|(reason, at)| (*reason, *at)).filter(move |(_, at)| *at >= offset)
    }
}
