//! The messages that their publishers had retained: the newest of each topic, for as long as nobody has ended that by an empty
//! one. They are kept beside the ring and beside the last of each topic, because what is not retained never takes their place.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::config::LastBounds;
use crate::hub::log::last::LastKept;
use crate::hub::log::weight::weight_bytes;
use crate::hub::matcher::Matcher;
use crate::model::publication::Publication;
use crate::model::selector::Selector;
use crate::model::topic::Topic;

/// The retained messages of one log.
#[derive(Debug)]
pub(super) struct Retained {
    bounds: LastBounds,
    /// Whether it is remembered that a topic has none any more: what a stream had before is read while it goes on.
    clears: Clears,
    by_topic: BTreeMap<Topic, Entry>,
    /// The topics in the order of their offsets.
    in_order: BTreeMap<u64, Topic>,
    bytes: usize,
    evicted: u64,
}

/// What becomes of a topic whose retained message was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clears {
    /// Nothing is known of it any more.
    Forgotten,
    /// It is known since when.
    Remembered,
}

#[derive(Debug)]
struct Entry {
    offset: u64,
    bytes: usize,
    /// Nothing where it was ended.
    publication: Option<Arc<Publication>>,
}

impl Retained {
    pub(super) fn new(bounds: LastBounds, clears: Clears) -> Self {
        Self { bounds, clears, by_topic: BTreeMap::new(), in_order: BTreeMap::new(), bytes: 0, evicted: 0 }
    }

    /// Takes note of a publication, whichever it is and however old.
    pub(super) fn note(&mut self, publication: &Arc<Publication>) {
        let (draft, offset) = (&publication.draft, publication.offset);
        let is_old = |entry: &Entry| entry.offset >= offset;
        if !draft.attributes.retained || self.by_topic.get(&draft.topic).is_some_and(is_old) {
            return;
        }
        self.remove(&draft.topic.clone());
        let publication = (!draft.payload.is_empty()).then(|| publication.clone());
        if publication.is_some() || self.clears == Clears::Remembered {
            let bytes = weight_bytes(draft);
            self.bytes += bytes;
            self.in_order.insert(offset, draft.topic.clone());
            self.by_topic.insert(draft.topic.clone(), Entry { offset, bytes, publication });
        }
        while self.by_topic.len() > self.bounds.messages_max || self.bytes > self.bounds.bytes_max {
            let Some((_, topic)) = self.in_order.first_key_value() else { break };
            self.remove(&topic.clone());
            self.evicted += 1;
        }
    }

    /// The newest `total` of those that are wanted, in order.
    pub(super) fn matching(&self, wanted: &Selector, total: usize) -> Vec<Arc<Publication>> {
        let matcher = Matcher::new(&wanted.pattern);
        let prefix = matcher.prefix();
        let from_prefix = self.by_topic.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let in_prefix = from_prefix.take_while(|(topic, _)| topic.as_str().starts_with(prefix));
        let matching = in_prefix.filter(|(topic, _)| matcher.matches(topic));
        let mut found: Vec<Arc<Publication>> = matching
            .filter_map(|(_, entry)| entry.publication.as_ref())
            .filter(|publication| wanted.lets_in(&publication.draft))
            .cloned()
            .collect();
        found.sort_unstable_by_key(|publication| publication.offset);
        found.split_off(found.len().saturating_sub(total))
    }

    pub(super) fn kept(&self) -> LastKept {
        LastKept { messages: self.by_topic.len(), bytes: self.bytes, evicted: self.evicted }
    }

    fn remove(&mut self, topic: &Topic) {
        let Some(entry) = self.by_topic.remove(topic) else { return };
        self.in_order.remove(&entry.offset);
        self.bytes -= entry.bytes;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::model::cursor::Epoch;
    use crate::model::publication::{Attributes, Draft, SourceId, SourceInfo};
    use crate::model::topic::Pattern;

    const TOPICS: [&str; 5] = ["a", "a.b", "a.b.c", "b", ""];
    const PATTERNS: [&str; 5] = ["#", "a.#", "*.b", "b", "#.c"];
    const ROOM: LastBounds = LastBounds { each: 1, messages_max: 100, bytes_max: 1 << 20 };

    /// What is published: on which topic, whether retained, whether empty.
    type Step = (usize, bool, bool);

    fn publication(offset: u64, (topic, retained, is_empty): Step) -> Arc<Publication> {
        let info = SourceInfo::new(SourceId(0), "events", Epoch(1));
        let payload = if is_empty { Bytes::new() } else { Bytes::from_static(b"x") };
        let attributes = Attributes { retained, ..Attributes::default() };
        let topic = Topic::parse(TOPICS[topic]).unwrap();
        let draft = Draft { topic, payload, attributes, received_at: 0 };
        Arc::new(Publication { source: Arc::new(info), offset, draft })
    }

    fn found(retained: &Retained, pattern: &str, total: usize) -> Vec<u64> {
        let wanted = Selector::from(Pattern::parse(pattern).unwrap());
        retained.matching(&wanted, total).iter().map(|publication| publication.offset).collect()
    }

    /// The last of each topic that was retained, if it is not empty.
    fn expected(steps: &[Step], pattern: &str, total: usize) -> Vec<u64> {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut of_topic = BTreeMap::new();
        for ((topic, retained, is_empty), offset) in steps.iter().zip(1u64..) {
            if *retained {
                of_topic.insert(*topic, (!is_empty).then_some(offset));
            }
        }
        of_topic.retain(|topic, _| pattern.matches(&Topic::parse(TOPICS[*topic]).unwrap()));
        let mut all: Vec<u64> = of_topic.into_values().flatten().collect();
        all.sort_unstable();
        all.split_off(all.len().saturating_sub(total))
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0usize..5, any::<bool>(), prop::bool::weighted(0.2)), 0..60)
    }

    proptest! {
        #[test]
        fn the_last_that_was_retained_of_each_topic_is_kept(
            steps in steps(),
            pattern in prop::sample::select(&PATTERNS),
            total in 0usize..6,
        ) {
            let mut retained = Retained::new(ROOM, Clears::Forgotten);
            steps.iter().zip(1..).for_each(|(step, offset)| retained.note(&publication(offset, *step)));
            prop_assert_eq!(found(&retained, pattern, total), expected(&steps, pattern, total));
            prop_assert_eq!(retained.kept().messages, found(&retained, "#", 100).len());
            if retained.kept().messages == 0 {
                prop_assert_eq!(retained.kept().bytes, 0);
            }
        }

        /// A stream is read again from its beginning while new messages come.
        #[test]
        fn what_comes_late_takes_nobodys_place(steps in steps(), begin in 0usize..60) {
            let mut retained = Retained::new(ROOM, Clears::Remembered);
            let begin = begin.min(steps.len());
            let all: Vec<_> = steps.iter().zip(1..).map(|(step, offset)| publication(offset, *step)).collect();
            all[begin..].iter().for_each(|publication| retained.note(publication));
            all[..begin].iter().for_each(|publication| retained.note(publication));
            prop_assert_eq!(found(&retained, "#", 100), expected(&steps, "#", 100));
        }

        #[test]
        fn bounds_hold_and_what_they_cost_is_counted(steps in steps(), messages_max in 0usize..4) {
            let mut retained = Retained::new(LastBounds { messages_max, ..ROOM }, Clears::Forgotten);
            steps.iter().zip(1..).for_each(|(step, offset)| retained.note(&publication(offset, *step)));
            let kept = retained.kept();
            prop_assert!(kept.messages <= messages_max);
            prop_assert!(kept.evicted > 0 || found(&retained, "#", 100) == expected(&steps, "#", 100));
        }
    }
}
