//! Which bindings a source should have: decided from what is wanted and what stands, without clocks, locks or brokers.
//!
//! Bound is what is wanted and not included by something else that is wanted, plus what lingers. Every entry counts what
//! the entries that include it mean for it, so a change touches only the entries that the changed one includes, and a
//! plan looks only at what was touched since the last one.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::hub::interest::Standing;
use crate::hub::interest::lattice::Lattice;
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

/// How many entries without room are looked at again in each plan, though there is none: one may have become the
/// successor of something that counts.
const CROWDED_TRIES_MAX: usize = 32;

/// Bounds of what is bound on demand.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// How long a binding stays after nobody wants it any more.
    pub(super) linger: Duration,
    /// Bindings at most, those that linger included. Twice as many while some are being replaced by others.
    pub(super) bindings_max: usize,
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
    /// How many bindings there will be when everything under way is done.
    settled: usize,
    /// How many there are or may be at the broker now.
    held: usize,
    /// Entries whose standing changed.
    news: Vec<usize>,
}

#[derive(Debug, Default)]
struct Entry {
    demand: Demand,
    role: Role,
    /// While it lingers: when it may go.
    until: Option<Instant>,
    is_touched: bool,
    is_crowded: bool,
    /// What the entries that include this one are for it, itself among them.
    wanted: usize,
    kept: usize,
    standing: usize,
    anchoring: usize,
    holding: usize,
    /// The keys of those that stand, combined by exclusive or: with only one, that is its key.
    standing_keys: usize,
    /// How many wanted entries stand by this one only.
    dependants: usize,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Demand {
    #[default]
    None,
    Wanted,
    Refused(String),
}

/// What became of an entry at the broker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Role {
    #[default]
    Unbound,
    /// Asked for, not answered.
    Asked,
    Stands,
    /// Stands, and goes as soon as nobody depends on it.
    Ending,
    /// Its removal was asked for: nobody may rely on it.
    Leaving,
}

/// What an entry is to those that it includes; 1 or 0 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Effect {
    wanted: usize,
    /// Is bound or will be, and is to stay.
    kept: usize,
    standing: usize,
    /// Is wanted, stands, and stays: what it includes need not be bound.
    anchoring: usize,
    /// The same, or will be: what it includes will not count for long.
    holding: usize,
}

/// What follows from an entry's counts, for others and for the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Consequence {
    /// The only binding by which it stands.
    depends_on: Option<usize>,
    /// Whether it will be bound when everything under way is done.
    counts: bool,
    /// Whether it is bound, or may be.
    is_held: bool,
    stands: bool,
}

impl Entry {
    fn is_wanted(&self) -> bool {
        self.demand == Demand::Wanted
    }

    fn effect(&self) -> Effect {
        Effect {
            wanted: usize::from(self.is_wanted()),
            kept: usize::from(matches!(self.role, Role::Asked | Role::Stands)),
            standing: usize::from(matches!(self.role, Role::Stands | Role::Ending)),
            anchoring: usize::from(self.is_wanted() && self.role == Role::Stands),
            holding: usize::from(self.is_wanted() && matches!(self.role, Role::Asked | Role::Stands)),
        }
    }

    /// Counts what an entry that includes this one was and is for it.
    fn count(&mut self, key: usize, was: Effect, is: Effect) {
        self.wanted = self.wanted - was.wanted + is.wanted;
        self.kept = self.kept - was.kept + is.kept;
        self.anchoring = self.anchoring - was.anchoring + is.anchoring;
        self.holding = self.holding - was.holding + is.holding;
        self.standing = self.standing - was.standing + is.standing;
        if was.standing != is.standing {
            self.standing_keys ^= key;
        }
    }

    /// Whether nothing else that is wanted includes it.
    fn is_outermost(&self) -> bool {
        self.wanted == self.effect().wanted
    }

    /// Whether something else that is wanted and stands includes it.
    fn is_anchored(&self) -> bool {
        self.anchoring > self.effect().anchoring
    }

    /// Whether it needs a binding of its own: nothing that is to stay includes it. One that is about to go may stay.
    fn asks(&self) -> bool {
        match self.role {
            Role::Unbound => self.is_wanted() && self.is_outermost() && self.kept == 0,
            Role::Ending => self.is_wanted() && !self.is_anchored(),
            Role::Asked | Role::Stands | Role::Leaving => false,
        }
    }

    fn consequence(&self) -> Consequence {
        Consequence {
            depends_on: (self.is_wanted() && self.standing == 1).then_some(self.standing_keys),
            counts: self.effect().kept == 1 && self.holding == self.effect().holding,
            is_held: self.role != Role::Unbound,
            stands: self.standing > 0,
        }
    }
}

impl Effect {
    const NONE: Self = Self { wanted: 0, kept: 0, standing: 0, anchoring: 0, holding: 0 };
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
            settled: 0,
            held: 0,
            news: Vec::new(),
        }
    }

    /// Somebody wants a pattern that nobody wanted, or that was refused.
    pub(super) fn want(&mut self, pattern: &Pattern) -> Standing {
        let key = self.enter(pattern);
        self.change(key, |entry| entry.demand = Demand::Wanted);
        self.standing(key)
    }

    /// Nobody wants it any more.
    pub(super) fn unwant(&mut self, pattern: &Pattern) {
        if let Some(key) = self.lattice.key(pattern) {
            self.change(key, |entry| entry.demand = Demand::None);
        }
    }

    /// What to do now; what is named is under way from here on.
    pub(super) fn plan(&mut self, now: Instant) -> Plan {
        let mut plan = Plan::default();
        for _ in 0..CROWDED_TRIES_MAX.min(self.crowded.len()) {
            self.retry_crowded();
        }
        loop {
            while let Some(key) = self.touched.pop() {
                self.entries[key].is_touched = false;
                self.settle(key, now, &mut plan);
            }
            if let Some((_, key)) = self.lingering.first().filter(|(until, _)| *until <= now).copied() {
                self.end(key);
            } else if let Some(key) = self.asking.pop_front() {
                self.admit(key, &mut plan);
            } else if !self.has_room() || !self.retry_crowded() {
                break;
            }
        }
        plan.next = self.lingering.first().map(|(until, _)| *until);
        plan
    }

    /// A binding was made.
    pub(super) fn stands(&mut self, pattern: &Pattern) {
        let key = self.enter(pattern);
        self.change(key, |entry| entry.role = Role::Stands);
    }

    /// A binding will not be made: who wanted it is told, and what it would have included is bound by itself.
    pub(super) fn refused(&mut self, pattern: &Pattern, reason: String) {
        let Some(key) = self.lattice.key(pattern) else { return };
        self.change(key, |entry| {
            entry.role = Role::Unbound;
            if entry.is_wanted() {
                entry.demand = Demand::Refused(reason);
            }
        });
        self.news.push(key);
    }

    /// A binding is no more.
    pub(super) fn gone(&mut self, pattern: &Pattern) {
        if let Some(key) = self.lattice.key(pattern) {
            self.stop_lingering(key);
            self.change(key, |entry| entry.role = Role::Unbound);
        }
    }

    /// The link is lost, and all bindings with it. What lingered is forgotten: coverage has ended anyhow.
    pub(super) fn lost(&mut self) {
        let before = std::mem::replace(self, Self::new(self.limits.clone()));
        for (pattern, key) in before.lattice.in_order() {
            if before.entries[key].demand != Demand::None {
                self.want(pattern);
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

    /// The bindings that the broker has, in order of their texts.
    pub(super) fn bound(&self) -> impl Iterator<Item = &Pattern> {
        let is_bound = |key: usize| matches!(self.entries[key].role, Role::Stands | Role::Ending | Role::Leaving);
        self.lattice.in_order().filter(move |(_, key)| is_bound(*key)).map(|(pattern, _)| pattern)
    }

    /// How many bindings there are or may be at the broker.
    pub(super) fn held(&self) -> usize {
        self.held
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
        self.settled = self.settled + usize::from(is.counts) - usize::from(was.counts);
        self.held = self.held + usize::from(is.is_held) - usize::from(was.is_held);
        if was.stands != is.stands {
            self.news.push(key);
        }
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
            Role::Unbound if entry.demand == Demand::None => self.lattice.remove(key),
            _ if entry.asks() => self.asking.push_back(key),
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

    /// Gives an entry its binding, if there is room for one. Asked only when nothing else is to be settled, so that
    /// whatever could make room has been counted.
    fn admit(&mut self, key: usize, plan: &mut Plan) {
        let entry = &self.entries[key];
        if !entry.asks() {
            return;
        }
        let (is_bound, stands) = (entry.role == Role::Ending, entry.standing > 0);
        if self.has_room() || self.is_successor(key) || self.make_room() {
            self.change(key, |entry| entry.role = if is_bound { Role::Stands } else { Role::Asked });
            plan.bind.extend(self.lattice.pattern(key).filter(|_| !is_bound).cloned());
        } else if stands {
            if !std::mem::replace(&mut self.entries[key].is_crowded, true) {
                self.crowded.push_back(key);
            }
        } else {
            let reason = self.limits.too_many.clone();
            self.change(key, |entry| entry.demand = Demand::Refused(reason));
            self.news.push(key);
        }
    }

    /// Lets the entry ask again that has waited longest; whether there was one.
    fn retry_crowded(&mut self) -> bool {
        let Some(key) = self.crowded.pop_front() else { return false };
        self.entries[key].is_crowded = false;
        self.asking.push_back(key);
        true
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

    fn has_room(&self) -> bool {
        let Limits { bindings_max, .. } = self.limits;
        self.settled < bindings_max && self.held < bindings_max.saturating_mul(2)
    }

    /// Whether this entry would take the place of one that counts.
    fn is_successor(&self, key: usize) -> bool {
        let is_held = self.entries[key].role != Role::Unbound;
        if !is_held && self.held >= self.limits.bindings_max.saturating_mul(2) {
            return false;
        }
        let included = self.lattice.pattern(key).map(|pattern| self.lattice.included(pattern));
        included.into_iter().flatten().any(|inner| self.entries[inner].consequence().counts)
    }

    /// Lets the longest lingering binding go that counts and that nobody depends on; whether there is room then.
    fn make_room(&mut self) -> bool {
        let is_idle = |key: usize| self.entries[key].dependants == 0 && self.entries[key].consequence().counts;
        let Some(idle) = self.lingering.iter().map(|(_, key)| *key).find(|key| is_idle(*key)) else { return false };
        self.end(idle);
        self.has_room()
    }
}
