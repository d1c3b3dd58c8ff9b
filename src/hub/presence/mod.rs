//! Presence: who is subscribed to which pattern, over all nodes. Shards tell when a subscription begins or ends and look
//! again when a pattern that they watch has changed; whoever holds the link to the other nodes takes bulletins here and
//! brings theirs.
//!
//! One lock for all, held for one change or one look: it is taken when subscriptions begin and end, never for a message.
//! Nothing is queued for shards but which patterns to look at again, so that a shard which is late is told less, not more.

mod census;
mod part;
mod teller;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

pub use census::{Census, Look, Terms};

use crate::model::presence::{Bulletin, Member, NodeId};
use crate::model::topic::Pattern;

/// What shards and the link to other nodes share.
#[derive(Debug)]
pub struct Presence {
    state: Mutex<State>,
    /// Rung when there may be something to tell the other nodes.
    stirred: Notify,
}

#[derive(Debug)]
struct State {
    census: Census,
    /// One a shard.
    watches: Vec<Watched>,
}

/// What one shard watches.
#[derive(Debug)]
struct Watched {
    doorbell: Arc<Notify>,
    rung: Arc<AtomicBool>,
    /// Each with whether it has changed.
    patterns: HashMap<Pattern, bool>,
    /// Those that have.
    changed: Vec<Pattern>,
}

/// A shard's end.
#[derive(Debug)]
pub struct Watch {
    presence: Arc<Presence>,
    number: usize,
    rung: Arc<AtomicBool>,
}

impl Presence {
    /// Of a node that was just started.
    pub fn new(terms: Terms) -> Self {
        let census = Census::new(terms, NodeId(fastrand::u64(..)), Instant::now());
        Self { state: Mutex::new(State { census, watches: Vec::new() }), stirred: Notify::new() }
    }

    /// One more shard's end; its doorbell is rung when something that it watches has changed.
    pub fn watch(self: &Arc<Self>, doorbell: Arc<Notify>) -> Watch {
        let rung = Arc::new(AtomicBool::new(false));
        let mut state = self.state();
        let (patterns, changed) = (HashMap::new(), Vec::new());
        state.watches.push(Watched { doorbell, rung: rung.clone(), patterns, changed });
        Watch { presence: self.clone(), number: state.watches.len() - 1, rung }
    }

    /// Somebody subscribed on this node.
    pub fn join(&self, pattern: &Pattern, member: Member) {
        self.change(|census| census.join(pattern, member));
        self.stirred.notify_one();
    }

    /// That ended.
    pub fn leave(&self, pattern: &Pattern, connection: &Arc<str>) {
        self.change(|census| census.leave(pattern, connection));
        self.stirred.notify_one();
    }

    /// How a pattern looks now.
    pub fn look(&self, pattern: &Pattern) -> Look {
        self.state().census.look(pattern)
    }

    /// Members of all nodes, and nodes, this one included.
    pub fn size(&self) -> (u64, usize) {
        self.state().census.size()
    }

    /// Others hear and are heard from now on.
    pub fn link_up(&self) {
        self.change(Census::link_up);
    }

    /// Nobody hears anything any more.
    pub fn link_down(&self) {
        self.change(Census::link_down);
    }

    /// What another node tells.
    pub fn hear(&self, bulletin: Bulletin, now: Instant) {
        self.change(|census| census.hear(bulletin, now));
    }

    /// Forgets nodes that have been silent for too long.
    pub fn expire(&self, now: Instant) {
        self.change(|census| census.expire(now));
    }

    /// Nobody can be heard at present: every node has until [`Self::expire`] as long as if it had been heard now.
    pub fn excuse(&self, now: Instant) {
        self.change(|census| census.excuse(now));
    }

    /// When there will be something to tell, unless [`Self::stirred`] completes before.
    pub fn due(&self) -> Instant {
        self.state().census.due()
    }

    /// Completes when there may be something to tell earlier.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// What is to be told now, if anything.
    pub fn bulletin(&self, now: Instant) -> Option<Bulletin> {
        self.state().census.bulletin(now)
    }

    /// The last word of a node that stops.
    pub fn farewell(&self) -> Bulletin {
        self.state().census.farewell()
    }

    fn change(&self, change: impl FnOnce(&mut Census)) {
        let mut state = self.state();
        let State { census, watches } = &mut *state;
        change(census);
        for pattern in census.take_changed() {
            watches.iter_mut().for_each(|watched| watched.mark(&pattern));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn mark(&mut self, pattern: &Pattern) {
        let Some(has_changed) = self.patterns.get_mut(pattern) else { return };
        if !std::mem::replace(has_changed, true) {
            self.changed.push(pattern.clone());
            self.rung.store(true, Ordering::Release);
            self.doorbell.notify_one();
        }
    }
}

impl Watch {
    /// Watches a pattern from now on.
    pub fn begin(&self, pattern: &Pattern) {
        self.with(|watched| *watched.patterns.entry(pattern.clone()).or_insert(false));
    }

    /// Watches it no more.
    pub fn end(&self, pattern: &Pattern) {
        self.with(|watched| watched.patterns.remove(pattern));
    }

    /// At most so many patterns that have changed, and whether there are more. Costs next to nothing where there is none.
    pub fn changed(&self, most: usize) -> (Vec<Pattern>, bool) {
        if !self.rung.swap(false, Ordering::AcqRel) {
            return (Vec::new(), false);
        }
        let changed = self.with(|watched| {
            let rest = watched.changed.split_off(most.min(watched.changed.len()));
            let taken = std::mem::replace(&mut watched.changed, rest);
            for pattern in &taken {
                if let Some(has_changed) = watched.patterns.get_mut(pattern) {
                    *has_changed = false;
                }
            }
            self.rung.store(!watched.changed.is_empty(), Ordering::Release);
            (taken, !watched.changed.is_empty())
        });
        changed.unwrap_or_default()
    }

    fn with<R>(&self, work: impl FnOnce(&mut Watched) -> R) -> Option<R> {
        self.presence.state().watches.get_mut(self.number).map(work)
    }
}

/// Who came and who went between two looks, both in order.
pub fn differences(before: &[Member], after: &[Member]) -> (Vec<Member>, Vec<Member>) {
    let (old, new): (HashSet<&Member>, HashSet<&Member>) = (before.iter().collect(), after.iter().collect());
    let missing_in = |others: &HashSet<&Member>, all: &[Member]| -> Vec<Member> {
        all.iter().filter(|member| !others.contains(member)).cloned().collect()
    };
    (missing_in(&old, after), missing_in(&new, before))
}

#[cfg(test)]
mod tests;
