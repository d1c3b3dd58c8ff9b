//! The newest messages of each topic, kept when the ring lets them go: what somebody who asks for the last ones of many
//! topics is given of those on which nothing was said for long.
//!
//! A topic's last messages are those in the ring and, as far as these are too few, the newest of those here. They are held
//! with the topic's record, so that they are found with it, and go in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::LastBounds;
use crate::hub::log::topics::Topics;
use crate::hub::log::weight::weight_bytes;
use crate::model::publication::Publication;

/// Which are kept, of all topics.
#[derive(Debug)]
pub(super) struct Last {
    bounds: LastBounds,
    /// Topic and offset of each in the order of their coming; also of some that have gone since.
    order: VecDeque<(u32, u64)>,
    messages: usize,
    bytes: usize,
    /// How many a bound has cost that were among the last of their topic.
    evicted: u64,
}

/// What is kept beyond a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastKept {
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How many had to go since the start though they were among the last of their topic.
    pub evicted: u64,
}

impl Last {
    pub(super) fn new(bounds: LastBounds) -> Self {
        Self { bounds, order: VecDeque::new(), messages: 0, bytes: 0, evicted: 0 }
    }

    pub(super) fn bounds(&self) -> LastBounds {
        self.bounds
    }

    pub(super) fn kept(&self) -> LastKept {
        LastKept { messages: self.messages, bytes: self.bytes, evicted: self.evicted }
    }

    /// Keeps a publication that is not in the ring, of a topic that has `in_ring` there, unless there are newer ones enough.
    pub(super) fn keep(&mut self, topics: &mut Topics, key: u32, publication: Arc<Publication>, in_ring: usize) {
        let room = self.bounds.each.saturating_sub(in_ring);
        let last = topics.last_mut(key);
        let place = last.partition_point(|known| known.offset < publication.offset);
        let is_known = last.get(place).is_some_and(|known| known.offset == publication.offset);
        if !is_known && last.len() - place < room {
            self.order.push_back((key, publication.offset));
            self.messages += 1;
            self.bytes += weight_bytes(&publication.draft);
            last.insert(place, publication);
        }
        while last.len() > room {
            let Some(superseded) = last.pop_front() else { break };
            self.forget(&superseded);
        }
        self.enforce(topics);
    }

    /// A topic is no longer remembered, and what was kept of it is gone.
    pub(super) fn topic_gone(&mut self, last: VecDeque<Arc<Publication>>) {
        self.evicted += last.len() as u64;
        last.iter().for_each(|publication| self.forget(publication));
    }

    fn forget(&mut self, publication: &Publication) {
        self.messages -= 1;
        self.bytes -= weight_bytes(&publication.draft);
    }

    fn enforce(&mut self, topics: &mut Topics) {
        while self.messages > self.bounds.messages_max || self.bytes > self.bounds.bytes_max {
            let Some((key, offset)) = self.order.pop_front() else { return };
            let Some(gone) = remove(topics.last_mut(key), offset) else { continue };
            self.forget(&gone);
            self.evicted += 1;
        }
        // Those that newer ones have superseded are passed over above, and must not gather where no bound is reached.
        if self.order.len() > 2 * self.messages + 64 {
            let is_kept = |(key, offset): &(u32, u64)| {
                topics.last(*key).binary_search_by_key(offset, |publication| publication.offset).is_ok()
            };
            self.order.retain(is_kept);
        }
    }
}

fn remove(last: &mut VecDeque<Arc<Publication>>, offset: u64) -> Option<Arc<Publication>> {
    let place = last.binary_search_by_key(&offset, |publication| publication.offset).ok()?;
    last.remove(place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::hub::log::ring::{Ring, RingBounds};
    use crate::model::cursor::Epoch;
    use crate::model::publication::{Attributes, Draft, SourceId, SourceInfo};
    use crate::model::selector::Selector;
    use crate::model::topic::{Pattern, Topic};

    const TOPICS: [&str; 6] = ["a", "a.b", "a.b.c", "b", "b.c", "c"];
    const PATTERNS: [&str; 5] = ["#", "a.#", "*.b", "b", "#.c"];

    fn ring(last: LastBounds, lapsed_topics_max: usize) -> Ring {
        let (messages_max, bytes_max, age_max_ms, trail_max) = (4, 1 << 20, 1_000_000, 3);
        Ring::new(RingBounds { messages_max, bytes_max, age_max_ms, trail_max, lapsed_topics_max, last })
    }

    fn publication(offset: u64, topic: usize) -> Arc<Publication> {
        let info = SourceInfo::new(SourceId(0), "events", Epoch(1));
        let topic = Topic::parse(TOPICS[topic]).unwrap();
        let draft = Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: 0 };
        Arc::new(Publication { source: Arc::new(info), offset, draft })
    }

    fn newest(ring: &Ring, pattern: &str, each: usize, total: usize) -> Vec<u64> {
        let wanted = Selector::from(Pattern::parse(pattern).unwrap());
        ring.newest(&wanted, each, total).iter().map(|publication| publication.offset).collect()
    }

    /// The newest of each topic in all that there was, and of those the newest in all.
    fn expected(topics: &[usize], pattern: &str, each: usize, total: usize) -> Vec<u64> {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut of_topic: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (topic, offset) in topics.iter().zip(1..) {
            of_topic.entry(*topic).or_default().push(offset);
        }
        of_topic.retain(|topic, _| pattern.matches(&Topic::parse(TOPICS[*topic]).unwrap()));
        let last = of_topic.values().flat_map(|offsets| offsets.iter().rev().take(each).copied());
        let mut last: Vec<u64> = last.collect();
        last.sort_unstable();
        last.split_off(last.len().saturating_sub(total))
    }

    proptest! {
        #[test]
        fn whatever_the_ring_lets_go_the_last_of_each_topic_stay(
            topics in prop::collection::vec(0usize..6, 0..80),
            each in 1usize..4,
            wanted in 1usize..4,
            total in 1usize..9,
            pattern in prop::sample::select(&PATTERNS),
        ) {
            // No more topics lapse than may, however often each does.
            let mut ring = ring(LastBounds { each, messages_max: 100, bytes_max: 1 << 20 }, TOPICS.len());
            for (topic, offset) in topics.iter().zip(1..) {
                ring.push(publication(offset, *topic));
                ring.expire(0);
            }
            // What the ring itself holds may be more than is kept beyond it.
            let wanted = wanted.min(each);
            prop_assert_eq!(newest(&ring, pattern, wanted, total), expected(&topics, pattern, wanted, total));
            prop_assert_eq!(ring.last_kept().evicted, 0);
        }

        #[test]
        fn what_the_bounds_cost_is_counted(
            topics in prop::collection::vec(0usize..6, 0..80),
            each in 1usize..4,
            messages_max in 0usize..5,
            lapsed_topics_max in 0usize..4,
        ) {
            let mut ring = ring(LastBounds { each, messages_max, bytes_max: 1 << 20 }, lapsed_topics_max);
            for (topic, offset) in topics.iter().zip(1..) {
                ring.push(publication(offset, *topic));
                ring.expire(0);
            }
            let (found, owed) = (newest(&ring, "#", each, 100), expected(&topics, "#", each, 100));
            let kept = ring.last_kept();
            prop_assert!(kept.messages <= messages_max);
            prop_assert!(kept.evicted > 0 || found == owed, "{:?} of {:?}", found, owed);
            prop_assert!(found.len() <= 4 + messages_max);
            prop_assert_eq!(kept.messages == 0, kept.bytes == 0);
        }

        /// A stream is read again from its beginning while new messages come.
        #[test]
        fn a_stream_brings_back_what_came_before_the_log(
            topics in prop::collection::vec(0usize..6, 1..80),
            begin in 0usize..80,
            each in 1usize..4,
        ) {
            let begin = begin.min(topics.len());
            let mut ring = ring(LastBounds { each, messages_max: 100, bytes_max: 1 << 20 }, 100);
            let mut old = topics[..begin].iter().zip(1u64..);
            for (topic, offset) in topics.iter().zip(1..).skip(begin) {
                ring.push(publication(offset, *topic));
                ring.expire(0);
                if let Some((topic, offset)) = old.next() {
                    ring.remember(publication(offset, *topic));
                }
            }
            old.for_each(|(topic, offset)| ring.remember(publication(offset, *topic)));
            prop_assert_eq!(newest(&ring, "#", each, 1000), expected(&topics, "#", each, 1000));
        }
    }
}
