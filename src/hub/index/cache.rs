//! What the index found for topics it saw before, bounded in topics and in what it remembers of them all together.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::hub::index::PatternId;
use crate::model::topic::Topic;

/// The ids of matching patterns that are remembered, for each topic that may be.
const IDS_A_TOPIC: usize = 32;

/// Remembered matches; whoever was not asked for since the clock's hand last passed goes first.
#[derive(Debug)]
pub(super) struct Cache {
    entries: Vec<Remembered>,
    places: HashMap<Topic, usize, RandomState>,
    hand: usize,
    topics_max: usize,
    /// Ids in all entries together.
    ids: usize,
}

/// What is known of one topic.
#[derive(Debug)]
pub(super) struct Remembered {
    topic: Topic,
    /// The patterns that matched it.
    pub(super) ids: Vec<PatternId>,
    /// The index's count of changes at that time.
    pub(super) seen: u64,
    was_used: bool,
}

impl Cache {
    pub(super) fn new(topics_max: usize) -> Self {
        Self { entries: Vec::new(), places: HashMap::default(), hand: 0, topics_max, ids: 0 }
    }

    /// Where a topic's entry stands until the next change of the cache.
    pub(super) fn find(&mut self, topic: &Topic) -> Option<usize> {
        let place = *self.places.get(topic)?;
        self.entries[place].was_used = true;
        Some(place)
    }

    pub(super) fn at(&self, place: usize) -> &Remembered {
        &self.entries[place]
    }

    /// Replaces what an entry holds. False, and the entry is gone, when that is more than the cache may hold.
    pub(super) fn update(&mut self, place: usize, seen: u64, change: impl FnOnce(&mut Vec<PatternId>)) -> bool {
        let entry = &mut self.entries[place];
        self.ids -= entry.ids.len();
        change(&mut entry.ids);
        entry.seen = seen;
        self.ids += entry.ids.len();
        let fits = self.ids <= self.ids_max();
        if !fits {
            self.forget(place);
        }
        fits
    }

    /// Remembers the matches of a topic that is not in the cache; where, unless there are more than it may hold.
    pub(super) fn remember(&mut self, topic: &Topic, ids: &[PatternId], seen: u64) -> Option<usize> {
        if self.topics_max == 0 || ids.len() > self.ids_max() {
            return None;
        }
        while self.entries.len() >= self.topics_max || self.ids + ids.len() > self.ids_max() {
            self.evict();
        }
        self.ids += ids.len();
        let place = self.entries.len();
        self.places.insert(topic.clone(), place);
        self.entries.push(Remembered { topic: topic.clone(), ids: ids.to_vec(), seen, was_used: false });
        Some(place)
    }

    fn ids_max(&self) -> usize {
        self.topics_max.saturating_mul(IDS_A_TOPIC)
    }

    fn evict(&mut self) {
        loop {
            self.hand = if self.hand < self.entries.len() { self.hand } else { 0 };
            let entry = &mut self.entries[self.hand];
            if !std::mem::take(&mut entry.was_used) {
                return self.forget(self.hand);
            }
            self.hand += 1;
        }
    }

    fn forget(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.ids -= entry.ids.len();
        self.places.remove(&entry.topic);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.topic.clone(), place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: usize) -> Topic {
        Topic::parse(&number.to_string()).unwrap()
    }

    #[test]
    fn topics_and_ids_stay_within_their_bounds() {
        let mut cache = Cache::new(4);
        for number in 0..100 {
            let ids = vec![PatternId(0); number % 70];
            let _ = cache.remember(&topic(number), &ids, 0);
            assert!(cache.entries.len() <= 4 && cache.ids <= 4 * IDS_A_TOPIC, "{number}");
            assert_eq!(cache.ids, cache.entries.iter().map(|entry| entry.ids.len()).sum::<usize>());
            for (place, entry) in cache.entries.iter().enumerate() {
                assert_eq!(cache.places.get(&entry.topic), Some(&place));
            }
        }
        assert_eq!(cache.remember(&topic(100), &vec![PatternId(0); 4 * IDS_A_TOPIC + 1], 0), None);
        assert_eq!(Cache::new(0).remember(&topic(0), &[], 0), None);
    }

    #[test]
    fn a_topic_in_use_outlives_those_that_come_once() {
        let mut cache = Cache::new(4);
        for number in 0..100 {
            cache.remember(&topic(number), &[], 0);
            assert!(cache.find(&topic(0)).is_some(), "{number}");
        }
    }

    #[test]
    fn an_entry_that_outgrows_the_cache_is_forgotten() {
        let mut cache = Cache::new(2);
        let place = cache.remember(&topic(1), &[], 0).unwrap();
        assert!(cache.update(place, 1, |ids| ids.push(PatternId(7))));
        assert_eq!((cache.at(place).seen, cache.at(place).ids.len()), (1, 1));
        assert!(!cache.update(place, 2, |ids| ids.resize(1000, PatternId(7))));
        assert_eq!((cache.find(&topic(1)), cache.ids), (None, 0));
    }
}
