//! Which subscribers of a shard want a topic: a trie of their patterns and a cache of what was found for recent topics.
//!
//! The cache survives changes of the index: an entry learns of the few patterns that came since it was made by matching
//! them alone, and drops those that went, so that traffic does not search anew while others subscribe. Owned by one
//! thread; knows nothing of connections, sources or publications.

pub mod audience;
mod cache;
pub mod groups;
mod subscribers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::Hash;

use crate::hub::index::cache::Cache;
use crate::hub::index::subscribers::Subscribers;
use crate::hub::matcher::matches_once;
use crate::hub::trie::{Search, Trie};
use crate::model::topic::{Pattern, Topic};

/// One subscriber of a shard: a dense number that the shard gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub u32);

impl SubscriberId {
    /// For tables that have one row a subscriber.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A pattern in this index while it has subscribers. The number is used again when the last one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternId(pub u32);

/// How many added patterns are remembered for entries of the cache to catch up with: matching more than these one by
/// one would cost more than a new search.
const ADDITIONS_MAX: usize = 128;

/// Patterns and who subscribed to them: subscribers, or groups of them.
#[derive(Debug)]
pub struct Index<S = SubscriberId> {
    trie: Trie,
    patterns: Vec<Slot<S>>,
    /// Places in `patterns` that may be used again.
    free: Vec<u32>,
    /// How often a pattern came or went.
    changes: u64,
    /// The patterns that came last, with the count of changes at that time.
    additions: VecDeque<(u64, PatternId)>,
    /// Additions up to this count are no longer in `additions`.
    additions_forgotten: u64,
    cache: Cache,
    search: Search,
    found: Vec<u32>,
    /// The matches of a topic that the cache could not take.
    uncached: Vec<PatternId>,
}

#[derive(Debug)]
struct Slot<S> {
    /// `None` while the place is free.
    pattern: Option<Pattern>,
    /// The count of changes when it came.
    born: u64,
    subscribers: Subscribers<S>,
}

impl<S> Default for Slot<S> {
    fn default() -> Self {
        Self { pattern: None, born: 0, subscribers: Subscribers::default() }
    }
}

/// Where the matches of a topic are.
enum Matches {
    Cached(usize),
    Uncached,
}

impl<S: Copy + Eq + Hash> Index<S> {
    /// An empty index that remembers the matches of at most so many topics.
    pub fn new(cache_topics_max: usize) -> Self {
        Self {
            trie: Trie::default(),
            patterns: Vec::new(),
            free: Vec::new(),
            changes: 0,
            additions: VecDeque::new(),
            additions_forgotten: 0,
            cache: Cache::new(cache_topics_max),
            search: Search::default(),
            found: Vec::new(),
            uncached: Vec::new(),
        }
    }

    /// Subscribes; whether it is the pattern's first subscriber. Subscribing again changes nothing.
    pub fn insert(&mut self, pattern: &Pattern, subscriber: S) -> bool {
        let known = self.trie.find(pattern);
        let place = known.unwrap_or_else(|| self.add(pattern));
        self.patterns[place as usize].subscribers.insert(subscriber);
        known.is_none()
    }

    /// Unsubscribes; whether the pattern's last subscriber left. Unsubscribing again changes nothing.
    pub fn remove(&mut self, pattern: &Pattern, subscriber: S) -> bool {
        let Some(place) = self.trie.find(pattern) else { return false };
        let subscribers = &mut self.patterns[place as usize].subscribers;
        if !subscribers.remove(subscriber) || !subscribers.as_slice().is_empty() {
            return false;
        }
        self.trie.remove(pattern);
        self.patterns[place as usize] = Slot::default();
        self.free.push(place);
        self.changes += 1;
        true
    }

    /// The patterns that match a topic, each once, in no particular order.
    pub fn matches(&mut self, topic: &Topic) -> &[PatternId] {
        let place = self.locate(topic);
        self.located(&place)
    }

    /// The patterns that match a topic, each with its subscribers. A subscriber of several is named several times.
    pub fn fan_out(&mut self, topic: &Topic) -> impl Iterator<Item = (PatternId, &[S])> {
        let place = self.locate(topic);
        let this = &*self;
        this.located(&place).iter().map(|id| (*id, this.subscribers(*id)))
    }

    /// Who subscribed to a pattern, in no particular order; nobody when there is no such pattern.
    pub fn subscribers(&self, id: PatternId) -> &[S] {
        self.patterns.get(id.0 as usize).map_or(&[], |slot| slot.subscribers.as_slice())
    }

    /// The pattern of an id, while it has subscribers.
    pub fn pattern(&self, id: PatternId) -> Option<&Pattern> {
        self.patterns.get(id.0 as usize)?.pattern.as_ref()
    }

    /// The id of a pattern, while it has subscribers.
    pub fn id(&self, pattern: &Pattern) -> Option<PatternId> {
        self.trie.find(pattern).map(PatternId)
    }

    /// How many patterns have subscribers.
    pub fn patterns(&self) -> usize {
        self.patterns.len() - self.free.len()
    }

    fn add(&mut self, pattern: &Pattern) -> u32 {
        self.changes += 1;
        let slot = Slot { pattern: Some(pattern.clone()), born: self.changes, subscribers: Subscribers::default() };
        let place = match self.free.pop() {
            Some(place) => {
                self.patterns[place as usize] = slot;
                place
            }
            None => {
                self.patterns.push(slot);
                (self.patterns.len() - 1) as u32
            }
        };
        self.trie.insert(pattern, place);
        self.additions.push_back((self.changes, PatternId(place)));
        if self.additions.len() > ADDITIONS_MAX
            && let Some((forgotten, _)) = self.additions.pop_front()
        {
            self.additions_forgotten = forgotten;
        }
        place
    }

    fn located(&self, matches: &Matches) -> &[PatternId] {
        match matches {
            Matches::Cached(place) => &self.cache.at(*place).ids,
            Matches::Uncached => &self.uncached,
        }
    }

    fn locate(&mut self, topic: &Topic) -> Matches {
        if let Some(place) = self.cache.find(topic) {
            let seen = self.cache.at(place).seen;
            if seen == self.changes || (seen >= self.additions_forgotten && self.catch_up(place, topic)) {
                return Matches::Cached(place);
            }
        }
        self.found.clear();
        self.trie.matching(topic.words(), &mut self.search, &mut self.found);
        self.uncached.clear();
        self.uncached.extend(self.found.iter().map(|value| PatternId(*value)));
        let (ids, changes) = (&self.uncached, self.changes);
        let place = match self.cache.find(topic) {
            Some(place) => self.cache.update(place, changes, |old| old.clone_from(ids)).then_some(place),
            None => self.cache.remember(topic, ids, changes),
        };
        place.map_or(Matches::Uncached, Matches::Cached)
    }

    /// Brings a remembered topic up to date. False when it has grown too large to be remembered.
    fn catch_up(&mut self, place: usize, topic: &Topic) -> bool {
        let (patterns, additions) = (&self.patterns, &self.additions);
        let seen = self.cache.at(place).seen;
        self.cache.update(place, self.changes, |ids| {
            // An id whose place was used again belongs to a younger pattern than the one that was found.
            ids.retain(|id| {
                let slot = &patterns[id.0 as usize];
                slot.pattern.is_some() && slot.born <= seen
            });
            let since = additions.iter().rev().take_while(|(born, _)| *born > seen);
            ids.extend(since.filter_map(|(born, id)| {
                let slot = &patterns[id.0 as usize];
                let stands = slot.born == *born && slot.pattern.as_ref().is_some_and(|new| matches_once(new, topic));
                stands.then_some(*id)
            }));
        })
    }
}
