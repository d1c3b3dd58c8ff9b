//! Which topics a log knows, and where in the ring each has its publications.
//!
//! Places are sequence numbers: publications counted from the log's start. A topic also remembers places that the ring no
//! longer holds, as far as the ring's trail goes, and after that the last offset that was forgotten of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::hub::matcher::Matcher;
use crate::model::publication::Publication;
use crate::model::topic::{Pattern, Topic};

/// For how many patterns the matching topics are remembered: many who resume want the same.
const SELECTIONS_MAX: usize = 64;

/// The topics of one log.
#[derive(Debug)]
pub(super) struct Topics {
    records: Vec<Record>,
    free: Vec<u32>,
    by_text: HashMap<Topic, u32, RandomState>,
    in_order: BTreeMap<Topic, u32>,
    /// Topics of which no place is known, by the number of their lapse: longest since first. Who comes back leaves.
    lapsed: BTreeMap<u64, u32>,
    lapsed_max: usize,
    /// Counts lapses.
    lapses: u64,
    /// Of topics that are no longer remembered at all, no publication was after this offset.
    forgotten: u64,
    /// Counts topics that came or went.
    generation: u64,
    selections: RefCell<HashMap<Pattern, Selection, RandomState>>,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) topic: Option<Topic>,
    /// Sequence numbers, rising.
    pub(super) places: VecDeque<u64>,
    /// The offset of the last publication whose place was forgotten; 0 for none.
    pub(super) forgotten: u64,
    /// The number of its lapse, while no place of it is known.
    lapse: Option<u64>,
    /// The newest that the ring no longer holds, as far as they are kept, in order.
    last: VecDeque<Arc<Publication>>,
}

/// The topics that match a pattern.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    /// Whatever there is.
    Every,
    /// These.
    Some(Arc<Selected>),
}

#[derive(Debug)]
pub(super) struct Selected {
    generation: u64,
    pub(super) keys: Vec<u32>,
    /// A bit for each key, for who meets many topics.
    member: Vec<u64>,
}

impl Selected {
    pub(super) fn holds(&self, key: u32) -> bool {
        self.member.get(key as usize / 64).is_some_and(|bits| bits >> (key % 64) & 1 == 1)
    }
}

impl Record {
    /// The newest that the ring no longer holds, as far as they are kept, in order.
    pub(super) fn last(&self) -> &VecDeque<Arc<Publication>> {
        &self.last
    }

    /// How many places from one on and below another; `None` when some after this offset were forgotten.
    pub(super) fn count(&self, from: u64, to: u64, after: u64) -> Option<u64> {
        let below = |sequence: u64| self.places.partition_point(|place| *place < sequence);
        (self.forgotten <= after).then(|| below(to).saturating_sub(below(from)) as u64)
    }
}

impl Topics {
    /// Remembers what at most so many topics had, once nothing of them is in the ring or its trail.
    pub(super) fn new(lapsed_max: usize) -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            by_text: HashMap::default(),
            in_order: BTreeMap::new(),
            lapsed: BTreeMap::new(),
            lapsed_max,
            lapses: 0,
            forgotten: 0,
            generation: 0,
            selections: RefCell::default(),
        }
    }

    /// Notes a publication's place and returns the topic's key.
    pub(super) fn add(&mut self, topic: &Topic, place: u64) -> u32 {
        let key = self.by_text.get(topic).copied().unwrap_or_else(|| self.add_topic(topic));
        let record = &mut self.records[key as usize];
        record.places.push_back(place);
        if let Some(lapse) = record.lapse.take() {
            self.lapsed.remove(&lapse);
        }
        key
    }

    /// What is kept of a topic though the ring no longer holds it.
    pub(super) fn last(&self, key: u32) -> &VecDeque<Arc<Publication>> {
        &self.records[key as usize].last
    }

    pub(super) fn last_mut(&mut self, key: u32) -> &mut VecDeque<Arc<Publication>> {
        &mut self.records[key as usize].last
    }

    /// The key of a topic that is not new to the stream behind the log, though perhaps to the log.
    pub(super) fn remember(&mut self, topic: &Topic) -> u32 {
        if let Some(key) = self.by_text.get(topic) {
            return *key;
        }
        let key = self.add_topic(topic);
        self.lapse(key);
        key
    }

    /// Forgets a topic's oldest place, which was of the publication at `offset`. If with it another topic is no longer
    /// remembered at all, what was kept of that is returned.
    pub(super) fn forget_oldest(&mut self, key: u32, offset: u64) -> VecDeque<Arc<Publication>> {
        let record = &mut self.records[key as usize];
        record.places.pop_front();
        record.forgotten = offset;
        if record.places.is_empty() {
            record.places = VecDeque::new();
            self.lapse(key);
        }
        self.forget_lapsed()
    }

    /// Forgets the topic that lapsed longest ago, if they are too many; returns what was kept of it.
    pub(super) fn forget_lapsed(&mut self) -> VecDeque<Arc<Publication>> {
        if self.lapsed.len() <= self.lapsed_max {
            return VecDeque::new();
        }
        self.lapsed.pop_first().map(|(_, key)| self.forget_topic(key)).unwrap_or_default()
    }

    pub(super) fn record(&self, key: u32) -> &Record {
        &self.records[key as usize]
    }

    /// What is remembered of a topic.
    pub(super) fn find(&self, topic: &Topic) -> Option<&Record> {
        self.by_text.get(topic).map(|key| self.record(*key))
    }

    /// Of topics that are not remembered, no publication was after this offset.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The topics that match a pattern, as far as they are remembered.
    pub(super) fn select(&self, pattern: &Pattern) -> Selection {
        if pattern.as_str() == "#" {
            return Selection::Every;
        }
        if pattern.is_literal() {
            return self.selected(self.by_text.get(pattern.as_str()).copied().into_iter().collect());
        }
        let mut selections = self.selections.borrow_mut();
        if let Some(Selection::Some(known)) = selections.get(pattern)
            && known.generation == self.generation
        {
            return Selection::Some(known.clone());
        }
        if selections.len() >= SELECTIONS_MAX {
            selections.clear();
        }
        let selection = self.selected(self.search(pattern));
        selections.insert(pattern.clone(), selection.clone());
        selection
    }

    /// Every topic in order of its text.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&Topic, &Record)> {
        self.in_order.iter().map(|(topic, key)| (topic, self.record(*key)))
    }

    fn search(&self, pattern: &Pattern) -> Vec<u32> {
        let matcher = Matcher::new(pattern);
        let prefix = matcher.prefix();
        let from_prefix = self.in_order.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let in_prefix = from_prefix.take_while(|(topic, _)| topic.as_str().starts_with(prefix));
        in_prefix.filter(|(topic, _)| matcher.matches(topic)).map(|(_, key)| *key).collect()
    }

    fn selected(&self, keys: Vec<u32>) -> Selection {
        let mut member = vec![0; if keys.len() > 1 { self.records.len() / 64 + 1 } else { 0 }];
        for key in &keys {
            if let Some(bits) = member.get_mut(*key as usize / 64) {
                *bits |= 1 << (key % 64);
            }
        }
        Selection::Some(Arc::new(Selected { generation: self.generation, keys, member }))
    }

    fn add_topic(&mut self, topic: &Topic) -> u32 {
        self.generation += 1;
        let record = Record { topic: Some(topic.clone()), ..Record::default() };
        let key = match self.free.pop() {
            Some(key) => {
                self.records[key as usize] = record;
                key
            }
            None => {
                self.records.push(record);
                (self.records.len() - 1) as u32
            }
        };
        self.by_text.insert(topic.clone(), key);
        self.in_order.insert(topic.clone(), key);
        key
    }

    /// Nothing of a topic is known any more but itself.
    fn lapse(&mut self, key: u32) {
        self.lapses += 1;
        self.records[key as usize].lapse = Some(self.lapses);
        self.lapsed.insert(self.lapses, key);
    }

    /// Forgets a topic altogether.
    fn forget_topic(&mut self, key: u32) -> VecDeque<Arc<Publication>> {
        let Record { topic, forgotten, last, .. } = std::mem::take(&mut self.records[key as usize]);
        if let Some(topic) = topic {
            self.by_text.remove(&topic);
            self.in_order.remove(&topic);
        }
        self.free.push(key);
        self.generation += 1;
        self.forgotten = self.forgotten.max(forgotten);
        last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPICS: [&str; 6] = ["a", "a.b", "a.b.c", "b", "b.c", "c"];

    /// What a ring and its trail hold together.
    const PLACES_MAX: usize = 3;

    fn topic(number: usize) -> Topic {
        Topic::parse(TOPICS[number]).unwrap()
    }

    /// Each topic with its last offset, in the order in which they lapsed.
    #[derive(Default)]
    struct Model {
        places: VecDeque<(usize, u64)>,
        lapsed: Vec<(usize, u64)>,
        forgotten: u64,
    }

    impl Model {
        fn knows(&self, number: usize) -> bool {
            self.places.iter().chain(&self.lapsed).any(|(known, _)| *known == number)
        }

        fn add(&mut self, number: usize, offset: u64) -> Option<(usize, u64)> {
            self.lapsed.retain(|(known, _)| *known != number);
            self.places.push_back((number, offset));
            if self.places.len() <= PLACES_MAX {
                return None;
            }
            let oldest = self.places.pop_front()?;
            let is_left = !self.places.iter().any(|(known, _)| *known == oldest.0);
            self.lapsed.extend(is_left.then_some(oldest));
            Some(oldest)
        }

        fn forget_lapsed(&mut self, lapsed_max: usize) {
            if self.lapsed.len() > lapsed_max {
                self.forgotten = self.forgotten.max(self.lapsed.remove(0).1);
            }
        }

        fn known(&self) -> Vec<&'static str> {
            (0..TOPICS.len()).filter(|number| self.knows(*number)).map(|number| TOPICS[number]).collect()
        }
    }

    proptest! {
        /// However often topics lapse and come back, only as many topics as the bound allows count towards it.
        #[test]
        fn topics_count_and_not_how_often_they_lapse(
            steps in prop::collection::vec((0usize..6, prop::bool::weighted(0.2)), 0..120),
            lapsed_max in 0usize..5,
        ) {
            let (mut topics, mut model) = (Topics::new(lapsed_max), Model::default());
            for ((number, is_old), offset) in steps.into_iter().zip(1u64..) {
                if is_old {
                    topics.remember(&topic(number));
                    topics.forget_lapsed();
                    model.lapsed.extend((!model.knows(number)).then_some((number, 0)));
                } else {
                    topics.add(&topic(number), offset);
                    if let Some((oldest, offset)) = model.add(number, offset) {
                        topics.forget_oldest(topics.by_text[&topic(oldest)], offset);
                    }
                }
                model.forget_lapsed(lapsed_max);
                let known: Vec<&str> = topics.in_order().map(|(topic, _)| topic.as_str()).collect();
                prop_assert_eq!(known, model.known());
                prop_assert_eq!(topics.forgotten(), model.forgotten);
            }
        }
    }
}
