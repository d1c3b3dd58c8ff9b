//! Which bindings a source should have: decided from what is wanted and what stands, without clocks, locks or brokers.
//!
//! Bound is what is wanted and not included by something else that is wanted, plus what lingers. Every entry counts what
//! the entries that include it mean for it, so a change touches only the entries that the changed one includes, and a
//! plan looks only at what was touched since the last one. When more is wanted than may be bound, [`covers`] wants
//! patterns too, which include many of those that clients want.
//!
//! At the broker there are never more bindings than the limit, also while some take the place of others. So two places are
//! kept for what makes room once it stands: for the last that somebody needs who stands by a binding which is to go, and,
//! so that this can always be had, for a binding that stands in for others.

mod covers;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::hub::interest::Standing;
use crate::hub::interest::lattice::Lattice;
use crate::hub::interest::plan::covers::Covers;
pub use crate::hub::interest::plan::covers::Folding;
use crate::hub::interest::plan::entry::{Consequence, Demand, Effect, Entry, Role, Totals};
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
    /// That what is wanted is bound by covers from now on, or no longer.
    pub folding: Option<Folding>,
}

/// How many entries of each queue for a place are looked at again in each plan, though there is none: one may now make
/// room for itself.
const TRIES_MAX: usize = 32;

/// Places that are kept for what makes room.
const KEPT_PLACES: usize = 2;

/// Bounds of what is bound on demand.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// How long a binding stays after nobody wants it any more.
    pub(super) linger: Duration,
    /// Bindings at the broker at most, those that linger or are about to go included.
    pub(super) bindings_max: usize,
    /// Whether the exchange can be bound by patterns, and so by covers.
    pub(super) takes_patterns: bool,
    /// What a client is told beyond that.
    pub(super) too_many: String,
}

/// Everything that is wanted or bound.
#[derive(Debug)]
pub(super) struct Planner {
    limits: Limits,
    lattice: Lattice,
    /// By the lattice's keys.
    entries: Vec<Entry>,
    /// Entries that something changed for since they were last settled.
    touched: Vec<usize>,
    /// Entries that want a binding of their own and are next to be given room.
    asking: VecDeque<usize>,
    /// Bindings that nobody wants, by the time at which they may go.
    lingering: BTreeSet<(Instant, usize)>,
    /// Entries that stand by a binding which is about to go, but for which there is no room of their own. Some need none
    /// any more.
    crowded: VecDeque<usize>,
    /// Entries that do not stand, for which there may be room once the broker has answered. Some need none any more.
    waiting: VecDeque<usize>,
    covers: Covers,
    totals: Totals,
    /// Entries whose standing changed.
    news: Vec<usize>,
    /// How often an entry was refused that had stood.
    lapses: u64,
}

impl Planner {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lattice: Lattice::default(),
            entries: Vec::new(),
            touched: Vec::new(),
            asking: VecDeque::new(),
            lingering: BTreeSet::new(),
            crowded: VecDeque::new(),
            waiting: VecDeque::new(),
            covers: Covers::default(),
            totals: Totals::default(),
            news: Vec::new(),
            lapses: 0,
        }
    }

    /// Somebody wants a pattern that nobody wanted, or that was refused.
    pub(super) fn want(&mut self, pattern: &Pattern) -> Standing {
        let key = self.enter(pattern);
        self.demand(key, Demand::Wanted);
        self.standing(key)
    }

    /// Nobody wants it any more.
    pub(super) fn unwant(&mut self, pattern: &Pattern) {
        if let Some(key) = self.lattice.key(pattern) {
            self.demand(key, Demand::None);
        }
    }

    /// What to do now; what is named is under way from here on.
    pub(super) fn plan(&mut self, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut before = None;
        // What was done may have made room for who waits.
        while before.replace(self.totals) != Some(self.totals) {
            (0..TRIES_MAX.min(self.crowded.len())).for_each(|_| self.retry_crowded());
            (0..TRIES_MAX.min(self.waiting.len())).for_each(|_| self.retry_waiting());
            while self.step(now, &mut plan) {}
        }
        plan.next = self.lingering.first().map(|(until, _)| *until);
        plan.folding = self.tell_folding();
        plan
    }

    /// Does what is next; whether there was anything to do.
    fn step(&mut self, now: Instant, plan: &mut Plan) -> bool {
        if let Some(key) = self.touched.pop() {
            self.entries[key].is_touched = false;
            self.settle(key, now, plan);
        } else if self.change_covers() {
            return true;
        } else if let Some((_, key)) = self.lingering.first().filter(|(until, _)| *until <= now).copied() {
            self.end(key);
        } else if let Some(key) = self.asking.pop_front() {
            self.admit(key, plan);
        } else if !self.waiting.is_empty() && (self.has_room() || self.totals.under_way == 0) {
            self.retry_waiting();
        } else if !self.crowded.is_empty() && self.has_room() {
            self.retry_crowded();
        } else {
            return false;
        }
        true
    }

    /// A binding was made.
    pub(super) fn stands(&mut self, pattern: &Pattern) {
        let key = self.enter(pattern);
        self.change(key, |entry| entry.role = Role::Stands);
    }

    /// A binding will not be made: who wanted it is told, and what it would have included is bound by itself.
    pub(super) fn refused(&mut self, pattern: &Pattern, reason: String) {
        let Some(key) = self.lattice.key(pattern) else { return };
        self.change(key, |entry| entry.role = Role::Unbound);
        self.cover_refused(key);
        if self.entries[key].is_claimed() {
            self.demand(key, Demand::Refused(reason));
        }
        self.news.push(key);
    }

    /// A binding is no more.
    pub(super) fn gone(&mut self, pattern: &Pattern) {
        if let Some(key) = self.lattice.key(pattern) {
            self.stop_lingering(key);
            self.change(key, |entry| entry.role = Role::Unbound);
        }
    }

    /// The link is lost, and all bindings with it. What lingered is forgotten: coverage has ended anyhow. What had stood is
    /// remembered, however often a link is lost before it stands again: it comes before what is only wanted since.
    pub(super) fn lost(&mut self) {
        let before = std::mem::replace(self, Self::new(self.limits.clone()));
        self.covers.begin_anew(&before.covers);
        self.lapses = before.lapses;
        for (pattern, former) in before.lattice.in_order() {
            let former = &before.entries[former];
            if former.demand != Demand::None {
                let key = self.enter(pattern);
                self.entries[key].has_stood = former.has_stood;
                self.demand(key, Demand::Wanted);
            }
        }
        self.news = self.lattice.in_order().map(|(_, key)| key).collect();
    }

    /// Whose standing may have changed since the last call, and to what.
    pub(super) fn news(&mut self) -> Vec<(Pattern, Standing)> {
        let news = std::mem::take(&mut self.news);
        let told = news.into_iter().filter_map(|key| Some((self.lattice.pattern(key)?.clone(), self.standing(key))));
        told.collect()
    }

    /// How often something was refused of which clients had been told that it stands.
    pub(super) fn lapses(&self) -> u64 {
        self.lapses
    }

    /// The bindings that the broker has, in order of their texts.
    pub(super) fn bound(&self) -> impl Iterator<Item = &Pattern> {
        let is_bound = |key: usize| matches!(self.entries[key].role, Role::Stands | Role::Ending | Role::Leaving);
        self.lattice.in_order().filter(move |(_, key)| is_bound(*key)).map(|(pattern, _)| pattern)
    }

    /// How many bindings there are or may be at the broker.
    pub(super) fn held(&self) -> usize {
        self.totals.held
    }

    fn standing(&self, key: usize) -> Standing {
        let entry = &self.entries[key];
        match &entry.demand {
            Demand::Refused(reason) => Standing::Refused(reason.clone()),
            _ if entry.standing > 0 => Standing::Stands,
            _ => Standing::Wanted,
        }
    }

    /// The entry of a pattern, with its counts right.
    fn enter(&mut self, pattern: &Pattern) -> usize {
        if let Some(key) = self.lattice.key(pattern) {
            return key;
        }
        let mut entry = Entry::default();
        for outer in self.lattice.including(pattern) {
            entry.count(outer, Effect::NONE, self.entries[outer].effect());
        }
        let key = self.lattice.insert(pattern);
        if key == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[key] = entry;
        }
        key
    }

    /// Changes what clients want.
    fn demand(&mut self, key: usize, demand: Demand) {
        let was_claimed = self.entries[key].is_claimed();
        match demand {
            Demand::None => self.entries[key].has_stood = false,
            Demand::Refused(_) => self.lapses += u64::from(self.entries[key].has_stood),
            Demand::Wanted => {}
        }
        self.change(key, |entry| entry.demand = demand);
        if self.entries[key].is_claimed() != was_claimed {
            self.count_member(key);
        }
    }

    /// The one way in which demand and role change: whatever follows is counted.
    fn change(&mut self, key: usize, change: impl FnOnce(&mut Entry)) {
        let entry = &mut self.entries[key];
        let (effect_before, before) = (entry.effect(), entry.consequence());
        change(entry);
        let effect = entry.effect();
        if effect != effect_before
            && let Some(pattern) = self.lattice.pattern(key)
        {
            for inner in self.lattice.included(pattern) {
                let was = if inner == key { before } else { self.entries[inner].consequence() };
                self.entries[inner].count(key, effect_before, effect);
                self.follow(inner, was);
            }
        } else {
            self.follow(key, before);
        }
    }

    /// Carries on what changed for an entry.
    fn follow(&mut self, key: usize, was: Consequence) {
        let is = self.entries[key].consequence();
        if was.depends_on != is.depends_on {
            if let Some(former) = was.depends_on {
                self.entries[former].dependants -= 1;
                self.touch(former);
            }
            if let Some(latter) = is.depends_on {
                self.entries[latter].dependants += 1;
            }
        }
        self.totals.count(&was, &is);
        if was.stands != is.stands {
            self.news.push(key);
        }
        let entry = &mut self.entries[key];
        entry.has_stood |= is.stands && entry.is_claimed();
        self.touch(key);
    }

    fn touch(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        if !std::mem::replace(&mut entry.is_touched, true) {
            self.touched.push(key);
        }
    }

    /// Takes the next step for one entry, if there is one to take.
    fn settle(&mut self, key: usize, now: Instant, plan: &mut Plan) {
        let entry = &self.entries[key];
        match entry.role {
            Role::Unbound if entry.demand == Demand::None && !entry.is_cover => self.lattice.remove(key),
            _ if entry.asks() => self.ask(key),
            Role::Stands if entry.is_anchored() => self.end(key),
            Role::Stands if entry.is_wanted() => self.stop_lingering(key),
            Role::Stands => self.linger(key, now),
            Role::Ending if entry.dependants == 0 => {
                self.change(key, |entry| entry.role = Role::Leaving);
                plan.unbind.extend(self.lattice.pattern(key).cloned());
            }
            Role::Unbound | Role::Asked | Role::Ending | Role::Leaving => {}
        }
    }

    /// Gives an entry its binding, if there is a place for one. Asked only when nothing else is to be settled, so that
    /// whatever could make room has been counted.
    fn admit(&mut self, key: usize, plan: &mut Plan) {
        let entry = &self.entries[key];
        if !entry.asks() {
            return;
        }
        let (is_bound, stands) = (entry.role == Role::Ending, entry.standing > 0);
        if self.has_place(key) {
            self.change(key, |entry| entry.role = if is_bound { Role::Stands } else { Role::Asked });
            plan.bind.extend(self.lattice.pattern(key).filter(|_| !is_bound).cloned());
            return;
        }
        // What else asks may be a cover, which makes room.
        let may_come = self.totals.under_way > 0 || !self.asking.is_empty();
        let is_enough = may_come && self.totals.settled + self.waiting.len() < self.ordinary_max();
        let room_comes = !is_enough && self.make_room() || may_come;
        if stands {
            // What it stands by stays, in the one way or the other.
            if room_comes || !self.adopt(key) {
                self.queue(key, |planner| &mut planner.crowded);
            }
        } else if room_comes {
            self.queue(key, |planner| &mut planner.waiting);
        } else if !self.give_up_cover(key) {
            self.demand(key, Demand::Refused(self.limits.too_many.clone()));
            self.news.push(key);
        }
    }

    /// Lets an entry wait for a place.
    fn queue(&mut self, key: usize, queue: impl Fn(&mut Self) -> &mut VecDeque<usize>) {
        if !std::mem::replace(&mut self.entries[key].is_queued, true) {
            queue(self).push_back(key);
        }
    }

    /// Lets the entry ask again that has waited longest, of those that stand.
    fn retry_crowded(&mut self) {
        let key = self.crowded.pop_front();
        self.retry(key);
    }

    /// The same of those that do not stand.
    fn retry_waiting(&mut self) {
        let key = self.waiting.pop_front();
        self.retry(key);
    }

    fn retry(&mut self, key: Option<usize>) {
        if let Some(key) = key {
            self.entries[key].is_queued = false;
            self.ask(key);
        }
    }

    /// Lets an entry ask for a place: whoever has stood before whoever never did, so that what others want meanwhile, during
    /// an outage for instance, takes nobody's place.
    fn ask(&mut self, key: usize) {
        if self.entries[key].has_stood {
            self.asking.push_front(key);
        } else {
            self.asking.push_back(key);
        }
    }

    fn linger(&mut self, key: usize, now: Instant) {
        let entry = &mut self.entries[key];
        if entry.until.is_none() {
            let until = now + self.limits.linger;
            entry.until = Some(until);
            self.lingering.insert((until, key));
        }
    }

    fn stop_lingering(&mut self, key: usize) {
        if let Some(until) = self.entries[key].until.take() {
            self.lingering.remove(&(until, key));
        }
    }

    fn end(&mut self, key: usize) {
        self.stop_lingering(key);
        self.change(key, |entry| entry.role = Role::Ending);
    }

    /// How many places there are for what replaces nothing.
    fn ordinary_max(&self) -> usize {
        let Limits { bindings_max, takes_patterns, .. } = self.limits;
        if takes_patterns { bindings_max.saturating_sub(KEPT_PLACES).max(1) } else { bindings_max }
    }

    fn has_room(&self) -> bool {
        self.totals.settled.max(self.totals.held) < self.ordinary_max()
    }

    /// Whether this entry may be bound now: there is room, or it makes room as soon as it stands.
    fn has_place(&self, key: usize) -> bool {
        if self.entries[key].role == Role::Ending {
            return self.totals.settled < self.ordinary_max() || self.is_successor(key);
        }
        let free = self.limits.bindings_max.saturating_sub(self.totals.held);
        self.has_room() || free > 1 && self.frees_another(key) || free > 0 && self.is_successor(key)
    }

    /// Whether this entry would take the place of one that counts.
    fn is_successor(&self, key: usize) -> bool {
        let included = self.lattice.pattern(key).map(|pattern| self.lattice.included(pattern));
        included.into_iter().flatten().any(|inner| self.entries[inner].consequence().counts)
    }

    /// Whether a binding that nobody wants stays only for this entry and what it includes.
    fn frees_another(&self, key: usize) -> bool {
        let included = self.lattice.pattern(key).map(|pattern| self.lattice.included(pattern));
        let mut dependants: HashMap<usize, usize> = HashMap::new();
        for inner in included.into_iter().flatten() {
            if let Some(former) = self.entries[inner].consequence().depends_on {
                *dependants.entry(former).or_default() += 1;
            }
        }
        let is_freed = |(former, count): (usize, usize)| {
            let former = &self.entries[former];
            !former.is_wanted() && former.dependants == count
        };
        dependants.into_iter().any(is_freed)
    }

    /// Lets the longest lingering binding go that counts and that nobody depends on; whether there is one.
    fn make_room(&mut self) -> bool {
        let is_idle = |key: usize| self.entries[key].dependants == 0 && self.entries[key].consequence().counts;
        let idle = self.lingering.iter().map(|(_, key)| *key).find(|key| is_idle(*key));
        idle.inspect(|key| self.end(*key)).is_some()
    }
}
