//! Which bindings a source should have: decided from what is wanted and what stands, without clocks, locks or brokers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::hub::interest::Standing;
use crate::model::topic::Pattern;

/// What a source should ask of the broker now, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bindings to make first; each must be answered with `stands` or `refused`.
    pub bind: Vec<Pattern>,
    /// Bindings to remove; each must be answered with `gone`.
    pub unbind: Vec<Pattern>,
    /// When to plan again though nothing changed: a binding's lingering ends then.
    pub next: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Planner {
    entries: BTreeMap<Pattern, Entry>,
    news: Vec<(Pattern, Standing)>,
}

#[derive(Debug, Default)]
struct Entry {
    wanted: bool,
    asked: bool,
    bound: bool,
}

impl Planner {
    pub(super) fn new(_linger: Duration, _bindings_max: usize) -> Self {
        Self { entries: BTreeMap::new(), news: Vec::new() }
    }

    pub(super) fn want(&mut self, pattern: &Pattern) -> Standing {
        let entry = self.entries.entry(pattern.clone()).or_default();
        entry.wanted = true;
        if entry.bound { Standing::Stands } else { Standing::Wanted }
    }

    pub(super) fn unwant(&mut self, pattern: &Pattern) {
        if let Some(entry) = self.entries.get_mut(pattern) {
            entry.wanted = false;
        }
    }

    pub(super) fn plan(&mut self, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        for (pattern, entry) in &mut self.entries {
            if entry.wanted && !entry.bound && !entry.asked {
                entry.asked = true;
                plan.bind.push(pattern.clone());
            }
        }
        plan
    }

    pub(super) fn stands(&mut self, pattern: &Pattern) {
        if let Some(entry) = self.entries.get_mut(pattern) {
            entry.bound = true;
            self.news.push((pattern.clone(), Standing::Stands));
        }
    }

    pub(super) fn refused(&mut self, pattern: &Pattern, reason: String) {
        self.entries.remove(pattern);
        self.news.push((pattern.clone(), Standing::Refused(reason)));
    }

    pub(super) fn gone(&mut self, pattern: &Pattern) {
        self.entries.remove(pattern);
    }

    pub(super) fn lost(&mut self) {
        for (pattern, entry) in &mut self.entries {
            entry.bound = false;
            entry.asked = false;
            self.news.push((pattern.clone(), Standing::Wanted));
        }
    }

    pub(super) fn news(&mut self) -> Vec<(Pattern, Standing)> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn bound(&self) -> impl Iterator<Item = &Pattern> {
        self.entries.iter().filter(|(_, entry)| entry.bound).map(|(pattern, _)| pattern)
    }
}
