//! A turn against the naive model: a list of publications for each subscriber.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::cursor::Epoch;
use crate::model::publication::{Attributes, Draft, SourceId, SourceInfo};
use crate::model::topic::Topic;

/// Encodes a publication as its offset and the encoding, and counts how often it is asked. Some it leaves out.
#[derive(Default)]
struct Counting(u64);

fn is_left_out(offset: u64, encoding: u64) -> bool {
    encoding == 1 && offset.is_multiple_of(3)
}

impl Encode for Counting {
    fn encode(&mut self, encoding: Encoding, publication: &Publication) -> Bytes {
        self.0 += 1;
        if is_left_out(publication.offset, encoding.0) {
            return Bytes::new();
        }
        format!("{}/{};", publication.offset, encoding.0).into()
    }
}

fn publication(offset: u64) -> Arc<Publication> {
    let source = Arc::new(SourceInfo::new(SourceId(0), "events", Epoch(1)));
    let topic = Topic::parse("a").unwrap();
    let draft = Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: 0 };
    Arc::new(Publication { source, offset, draft })
}

fn text(delivery: Delivery<'_>) -> String {
    match delivery {
        Delivery::Joined(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Delivery::Frames(frames) => String::from_utf8(frames.concat()).unwrap(),
    }
}

proptest! {
    /// Whatever is pushed, each subscriber gets each publication once and in order, in its own encoding, over several turns.
    #[test]
    fn every_subscriber_gets_what_it_was_pushed(turns in prop::collection::vec(
        prop::collection::vec(prop::collection::vec(prop::collection::vec(0u32..6, 0..8), 0..3), 0..6), 1..4,
    )) {
        let mut turn = Turn::default();
        (0..6).for_each(|subscriber| turn.admit(SubscriberId(subscriber)));
        for pushes in turns {
            let mut expected: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
            for (number, groups) in pushes.iter().enumerate() {
                turn.open(publication(number as u64));
                for group in groups {
                    turn.push(&group.iter().map(|id| SubscriberId(*id)).collect::<Vec<_>>());
                    for id in group {
                        let list = expected.entry(*id).or_default();
                        if list.last() != Some(&(number as u64)) {
                            list.push(number as u64);
                        }
                    }
                }
            }
            for (id, list) in &mut expected {
                list.retain(|offset| !is_left_out(*offset, u64::from(id % 2)));
            }
            let mut encode = Counting::default();
            let mut seen: BTreeMap<u32, String> = BTreeMap::new();
            for subscriber in turn.close() {
                let encoding = Encoding(u64::from(subscriber.0 % 2));
                let (delivery, messages) = turn.delivery(subscriber, encoding, &mut encode);
                prop_assert_eq!(messages as usize, expected[&subscriber.0].len());
                seen.insert(subscriber.0, text(delivery));
            }
            let expected: BTreeMap<u32, String> = expected
                .into_iter()
                .map(|(id, list)| (id, list.iter().map(|offset| format!("{offset}/{};", id % 2)).collect()))
                .collect();
            prop_assert_eq!(seen, expected);
            let pairs = pushes.iter().flat_map(|groups| groups.iter().flatten().map(|id| id % 2).collect::<std::collections::BTreeSet<_>>()).count();
            prop_assert_eq!(encode.0, pairs as u64, "each publication is encoded once for each encoding that somebody needs");
            turn.end();
        }
    }
}

#[test]
fn a_thousand_subscribers_of_the_same_share_one_buffer_and_one_encoding() {
    let mut turn = Turn::default();
    let everybody: Vec<SubscriberId> = (0..1000).map(SubscriberId).collect();
    everybody.iter().for_each(|subscriber| turn.admit(*subscriber));
    for offset in 0..10 {
        turn.open(publication(offset));
        turn.push(&everybody);
    }
    let mut encode = Counting::default();
    let mut buffers = std::collections::HashSet::new();
    for subscriber in turn.close() {
        match turn.delivery(subscriber, Encoding(0), &mut encode).0 {
            Delivery::Joined(bytes) => buffers.insert(bytes.as_ptr() as usize),
            Delivery::Frames(_) => panic!("not joined"),
        };
    }
    assert_eq!(buffers.len(), 1);
    assert_eq!(encode.0, 10);
}
