//! Patterns that the planner itself wants, because clients want more than may be bound: each includes several of theirs.
//!
//! A cover is an entry like another, so it is bound before what it includes goes, and lingers when it is not wanted any
//! more; this file decides only when to want it. Folding is done when the wanted bindings are more than the limit, down to
//! three quarters of it, and undone when without covers half of it would do: in between, claims come and go without a
//! change. A quarter of the limit has to come before anything is folded again, so folding costs a claim what looking at
//! four patterns costs.

use std::collections::BTreeSet;

use crate::hub::interest::fold::{Marks, fold};
use crate::hub::interest::plan::Planner;
use crate::hub::interest::plan::entry::Role;
use crate::model::topic::Pattern;

/// Covers that the broker may refuse on one link before no more are tried: each costs a channel and a line in its log.
const REFUSALS_MAX: usize = 32;

/// What is said once, when folding begins and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folding {
    /// More is wanted than may be bound.
    Begun {
        /// How many bindings clients' patterns would need.
        wanted: usize,
        /// How many may be made.
        bindings_max: usize,
        /// What is to be bound in the place of many.
        covers: Vec<Pattern>,
    },
    /// Whatever is wanted is bound by itself again, once what lingers has gone.
    Ended,
}

/// The covers of a planner, and what it must remember of them.
#[derive(Debug, Default)]
pub(super) struct Covers {
    /// Entries that are covers.
    keys: BTreeSet<usize>,
    /// Those of them that are not worth having any more: they include less than two patterns that clients want.
    thin: BTreeSet<usize>,
    /// Covers that the broker refused on this link: neither they nor what includes them is tried again.
    refused: Vec<Pattern>,
    /// How often clients began to want a pattern.
    claims: usize,
    /// No folding before so many claims: the last one could not do what it should.
    rests_until: usize,
    /// Whether it was told that there are covers.
    is_told: bool,
    #[cfg(test)]
    pub(super) foldings: usize,
}

impl Covers {
    /// On a new link.
    pub(super) fn begin_anew(&mut self, before: &Self) {
        self.is_told = before.is_told;
    }

    fn may_bind(&self, cover: &Pattern) -> bool {
        !self.refused.iter().any(|refused| cover.includes(refused))
    }
}

impl Planner {
    /// Begins or ends to want covers, where that is due; whether anything changed. Only while nothing is under way: a
    /// cover that was given the last place has made room again by then.
    pub(super) fn change_covers(&mut self) -> bool {
        if self.totals.under_way > 0 {
            return false;
        }
        let Covers { keys, thin, refused, claims, rests_until, .. } = &self.covers;
        let ended = if self.totals.unfolded <= self.limits.bindings_max / 2 { keys } else { thin };
        if !ended.is_empty() {
            let ended = ended.clone();
            ended.into_iter().for_each(|key| self.set_cover(key, false));
            return true;
        }
        let may_fold = self.limits.takes_patterns && refused.len() < REFUSALS_MAX && claims >= rests_until;
        may_fold && self.totals.outermost > self.ordinary_max() && self.fold()
    }

    /// Wants covers in the place of what they include; whether that changed anything.
    fn fold(&mut self) -> bool {
        let bindings_max = self.limits.bindings_max;
        let low = (bindings_max - bindings_max / 4).min(self.ordinary_max());
        let enough = (bindings_max - bindings_max / 8).min(self.ordinary_max());
        let is_wanted = |key: usize| self.entries[key].consequence().is_outermost;
        let wanted = self.lattice.in_order().filter(|(_, key)| is_wanted(*key)).map(|(pattern, _)| pattern.clone());
        let covers = fold(&wanted.collect(), Marks { low, enough }, |cover| self.covers.may_bind(cover));
        for cover in &covers {
            let key = self.enter(cover);
            self.set_cover(key, true);
        }
        let is_included = |key: &usize| !self.entries[*key].consequence().is_outermost;
        let included: Vec<usize> = self.covers.keys.iter().copied().filter(is_included).collect();
        included.into_iter().for_each(|key| self.set_cover(key, false));
        if self.totals.outermost > enough {
            self.covers.rests_until = self.covers.claims + (bindings_max / 8).max(1);
        }
        #[cfg(test)]
        {
            self.covers.foldings += 1;
        }
        !covers.is_empty()
    }

    fn set_cover(&mut self, key: usize, is_cover: bool) {
        self.change(key, |entry| entry.is_cover = is_cover);
        if !is_cover {
            self.covers.keys.remove(&key);
            self.covers.thin.remove(&key);
            return;
        }
        self.covers.keys.insert(key);
        self.entries[key].members = self.members(key);
    }

    /// How many patterns that clients want an entry includes, itself not counted.
    fn members(&self, key: usize) -> usize {
        let included = self.lattice.pattern(key).map(|pattern| self.lattice.included(pattern)).unwrap_or_default();
        included.into_iter().filter(|inner| *inner != key && self.entries[*inner].is_claimed()).count()
    }

    /// Goes on with the binding by which alone an entry stands, as a cover: it was about to go, and there is no place for
    /// what should come instead. That happens when clients leave a pattern which was given the last place.
    pub(super) fn adopt(&mut self, key: usize) -> bool {
        let Some(former) = self.entries[key].consequence().depends_on.filter(|former| *former != key) else {
            return false;
        };
        let is_leaving = self.entries[former].role == Role::Ending && !self.entries[former].is_wanted();
        let is_needed = self.limits.takes_patterns && self.totals.unfolded > self.limits.bindings_max / 2;
        let is_adopted = is_leaving && is_needed && self.members(former) > 1;
        if is_adopted {
            self.set_cover(former, true);
        }
        is_adopted
    }

    /// Counts, for the covers that include it, a pattern that clients began or ceased to want.
    pub(super) fn count_member(&mut self, key: usize) {
        let is_claimed = self.entries[key].is_claimed();
        self.covers.claims += usize::from(is_claimed);
        if self.covers.keys.is_empty() {
            return;
        }
        let Some(pattern) = self.lattice.pattern(key).cloned() else { return };
        for outer in self.lattice.including(&pattern) {
            let entry = &mut self.entries[outer];
            if outer == key || !entry.is_cover {
                continue;
            }
            entry.members = if is_claimed { entry.members + 1 } else { entry.members - 1 };
            if entry.members < 2 {
                self.covers.thin.insert(outer);
            } else {
                self.covers.thin.remove(&outer);
            }
        }
    }

    /// The broker will not bind this entry. If it is a cover, what it includes goes on without it.
    pub(super) fn cover_refused(&mut self, key: usize) {
        if self.entries[key].is_cover {
            self.set_cover(key, false);
            self.covers.refused.extend(self.lattice.pattern(key).cloned());
            self.covers.rests_until = 0;
        }
    }

    /// There is no place for this entry. If it is a cover that nobody else wants, what it includes goes on without it;
    /// whether it is.
    pub(super) fn give_up_cover(&mut self, key: usize) -> bool {
        let entry = &self.entries[key];
        let is_given_up = entry.is_cover && !entry.is_claimed();
        if is_given_up {
            self.set_cover(key, false);
            self.covers.rests_until = self.covers.claims + (self.limits.bindings_max / 8).max(1);
        }
        is_given_up
    }

    /// What is to be told now of folding, if anything is.
    pub(super) fn tell_folding(&mut self) -> Option<Folding> {
        let has_covers = !self.covers.keys.is_empty();
        if has_covers == std::mem::replace(&mut self.covers.is_told, has_covers) {
            return None;
        }
        if !has_covers {
            return Some(Folding::Ended);
        }
        let covers = self.covers.keys.iter().filter_map(|key| self.lattice.pattern(*key).cloned());
        let covers: BTreeSet<Pattern> = covers.collect();
        Some(Folding::Begun {
            wanted: self.totals.unfolded,
            bindings_max: self.limits.bindings_max,
            covers: covers.into_iter().collect(),
        })
    }
}
