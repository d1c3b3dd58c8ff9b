//! A shard against a naive model: whatever is appended, subscribed, resumed and ended in whatever order, each subscriber
//! is sent each message that it is owed once, and nothing else.

mod again;
mod awaited;
mod bench;
mod each;
mod edges;
mod filters;
mod lapses;
mod losing;
mod pacing;
mod stalled;
mod streams;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::LogBounds;
use crate::hub::feed::{Feed, Meanwhile, SourceState};
use crate::hub::interest::BindingMode;
use crate::hub::turn::{Delivery, Encode, Encoding};
use crate::model::cursor::{Cursor, Epoch};
use crate::model::filter::{Combination, Filter, Number, Scalar};
use crate::model::flow::Flow;
use crate::model::gap::GapReason;
use crate::model::publication::{Attributes, Draft, Publication};
use crate::model::topic::{Pattern, Topic};
use crate::model::value::{Headers, Value};
use bench::*;

#[derive(Debug, Clone)]
enum Step {
    /// With a number in its headers.
    Append(usize, usize, i64),
    /// Perhaps to one number only.
    Subscribe(usize, usize, Option<i64>, Option<(u64, u64)>),
    Turn,
    Replay(usize),
    /// Its socket takes no more, or takes all again.
    Full(usize),
    Drained(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, 0usize..4, 0i64..3).prop_map(|(source, topic, number)| Step::Append(source, topic, number)),
        2 => (0usize..3, 0usize..6, prop::option::of(0i64..3), prop::option::of((0u64..6, 0u64..6)))
            .prop_map(|(who, pattern, number, after)| Step::Subscribe(who, pattern, number, after)),
        2 => Just(Step::Turn),
        2 => (0usize..3).prop_map(Step::Replay),
        1 => (0usize..3).prop_map(Step::Full),
        1 => (0usize..3).prop_map(Step::Drained),
    ]
}

proptest! {
    #[test]
    fn everybody_is_sent_what_is_owed_once(steps in prop::collection::vec(step(), 0..60)) {
        let mut bench = Bench::new();
        let who: Vec<SubscriberId> = (0..3).map(|_| bench.shard.join(CursorForm::Separate)).collect();
        let mut log: [Vec<(&str, i64)>; 2] = Default::default();
        // For each subscriber and pattern: which number it wants, and from which offset on it is owed each source's messages.
        let mut owed: BTreeMap<(usize, usize), (Option<i64>, Vec<u64>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(source, topic, number) => {
                    append_with(&bench.hub, source, TOPICS[topic], numbered(number));
                    log[source].push((TOPICS[topic], number));
                }
                Step::Subscribe(subscriber, pattern, number, after) => {
                    // Subscribing again replaces, and may ask for old messages again: a rule of its own, tested below.
                    if owed.contains_key(&(subscriber, pattern)) {
                        continue;
                    }
                    let now: Vec<u64> = log.iter().map(|topics| topics.len() as u64).collect();
                    let known = after.map(|(a, b)| vec![a.min(log[0].len() as u64), b.min(log[1].len() as u64)]);
                    let activated = bench.subscribe_to(who[subscriber], (PATTERNS[pattern], number), known.as_deref().unwrap_or_default());
                    prop_assert_eq!(activated.len(), 1);
                    prop_assert_eq!(activated[0].resumed, known.is_some());
                    owed.insert((subscriber, pattern), (number, known.unwrap_or(now)));
                }
                Step::Turn => drop(bench.turn()),
                Step::Replay(subscriber) => drop(bench.replay(who[subscriber])),
                Step::Full(subscriber) => drop(bench.full.insert(who[subscriber])),
                Step::Drained(subscriber) => drop(bench.full.remove(&who[subscriber])),
            }
        }
        bench.full.clear();
        bench.settle(&who);
        prop_assert_eq!(&bench.gaps, &[], "nothing was evicted");
        for (number, subscriber) in who.iter().enumerate() {
            let mut expected = BTreeSet::new();
            for ((_, pattern), (wanted, since)) in owed.range((number, 0)..(number + 1, 0)) {
                let pattern = Pattern::parse(PATTERNS[*pattern]).unwrap();
                for (source, topics) in log.iter().enumerate() {
                    let owed = |offset: u64, (topic, number): &(&str, i64)| {
                        let is_wanted = wanted.is_none_or(|wanted| wanted == *number);
                        offset > since[source] && is_wanted && pattern.matches(&Topic::parse(topic).unwrap())
                    };
                    expected.extend(topics.iter().zip(1u64..).filter(|(message, offset)| owed(*offset, message)).map(|(_, offset)| format!("{}{offset}", SOURCES[source])));
                }
            }
            let seen = bench.seen.remove(subscriber).unwrap_or_default();
            // Two replays may both bring a message; whatever came live comes once.
            let most = owed.range((number, 0)..(number + 1, 0)).count();
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            seen.iter().for_each(|name| *counts.entry(name).or_default() += 1);
            prop_assert!(counts.values().all(|count| *count <= most.max(1)), "too often: {:?}", &seen);
            prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }

    /// With a joint cursor each message's position names what was sent, so resuming from any of them repeats and misses nothing.
    #[test]
    fn a_joint_cursor_can_be_resumed_from_anywhere(appends in prop::collection::vec((0usize..2, 0usize..4), 1..30), cut in 0usize..30) {
        let mut bench = Bench::new();
        appends.iter().for_each(|(source, topic)| append(&bench.hub, *source, TOPICS[*topic]));
        while bench.turn() {}
        let everything = |bench: &mut Bench, after: &[u64]| {
            let subscriber = bench.shard.join(CursorForm::Joint);
            let requests = ["x.#", "*.y", "y"].map(|pattern| bench.request(pattern, after));
            let ids: Vec<SubscriptionId> = requests.iter().map(|request| request.id).collect();
            for request in requests {
                bench.shard.subscribe(subscriber, request).unwrap();
            }
            let activated: usize = ids.iter().map(|id| bench.shard.activate(subscriber, *id).len()).sum();
            assert_eq!(activated, 3, "all start together");
            let mut positions = Vec::new();
            while bench.shard.has_replay(subscriber) {
                positions.extend(bench.replay(subscriber));
            }
            (bench.seen.remove(&subscriber).unwrap_or_default(), positions)
        };
        let (seen, positions) = everything(&mut bench, &[0, 0]);
        prop_assert_eq!(seen.len(), appends.len(), "the three patterns match every topic");
        let cut = cut.min(positions.len() - 1);
        let after: Vec<u64> = SOURCES.iter().map(|name| positions[cut].0.iter().find(|(known, _)| known == name).unwrap().1.offset - BINDING).collect();
        let (rest, _) = everything(&mut bench, &after);
        for source in SOURCES {
            let of = |seen: &[String]| -> Vec<String> { seen.iter().filter(|name| name.starts_with(source)).cloned().collect() };
            prop_assert_eq!(of(&rest), of(&seen[cut + 1..]));
        }
    }
}

/// A subscriber that falls behind with this flow while six messages come, three of them on one topic; what it is sent when
/// its socket takes more again.
fn sent_when_drained(flow: Flow) -> (Bench, SubscriberId) {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let request = SubscribeRequest { flow, ..bench.request("x.#", &[]) };
    let id = request.id;
    bench.shard.subscribe(subscriber, request).unwrap();
    bench.shard.activate(subscriber, id);
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    bench.full.insert(subscriber);
    for topic in ["x.y", "x", "y", "x", "x.y.z", "x"] {
        append(&bench.hub, 0, topic);
    }
    while bench.turn() {}
    assert!(bench.shard.is_behind(subscriber));
    assert_eq!(bench.shard.cursors(subscriber).0[0].1.offset, 1 + BINDING, "its position waits with it");
    bench.full.clear();
    bench.settle(&[subscriber]);
    assert!(!bench.shard.is_behind(subscriber));
    append(&bench.hub, 0, "x");
    bench.settle(&[subscriber]);
    assert_eq!(bench.caught_up, [], "nobody asked for a replay");
    (bench, subscriber)
}

#[test]
fn who_fell_behind_is_sent_everything_and_is_live_again() {
    let (bench, subscriber) = sent_when_drained(Flow::CatchUp);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a3", "a5", "a6", "a7", "a8"]);
    assert_eq!(bench.gaps, []);
}

#[test]
fn latest_sends_the_newest_of_each_topic_in_order_and_tells_no_gap() {
    let (bench, subscriber) = sent_when_drained(Flow::Latest);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a6", "a7", "a8"]);
    assert_eq!(bench.gaps, []);
}

#[test]
fn drop_oldest_keeps_the_newest_and_counts_what_it_dropped() {
    let (bench, subscriber) = sent_when_drained(Flow::DropOldest);
    assert_eq!(bench.seen[&subscriber], ["a1", "a6", "a7", "a8"]);
    let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.reason, gap.missed)).collect();
    assert_eq!(told, [(GapReason::Slow, Some(3))]);
}

#[test]
fn however_many_resume_a_pattern_the_log_is_searched_once() {
    let cost = |count: usize| {
        let mut bench = Bench::new();
        for number in 0..1_000 {
            append(&bench.hub, 0, ["x", "x.y", "y"][number % 3]);
        }
        while bench.turn() {}
        let who: Vec<SubscriberId> = (0..count).map(|_| bench.shard.join(CursorForm::Separate)).collect();
        for (number, subscriber) in who.iter().enumerate() {
            // They were cut off at different places.
            bench.subscribe(*subscriber, "x.#", &[number as u64 % 7, 0]);
        }
        bench.settle(&who);
        for (number, subscriber) in who.iter().enumerate() {
            let expected =
                (number as u64 % 7 + 1..=1_000).filter(|offset| offset % 3 != 0).map(|offset| format!("a{offset}"));
            assert_eq!(bench.seen[subscriber], expected.collect::<Vec<_>>());
        }
        (bench.looked_at, bench.names.0)
    };
    let (one, many) = (cost(1), cost(2_000));
    assert!(many.0 <= one.0 + 7 && many.1 <= one.1 + 7, "one costs {one:?}, many cost {many:?}");
}

#[test]
fn a_hole_is_told_in_its_place_to_who_reads_late() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    bench.full.insert(subscriber);
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    Feed::new(bench.hub.sources()[0].clone()).hole(GapReason::Outage, None);
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    assert_eq!(bench.notices, [], "it comes by there");
    bench.full.clear();
    bench.replay(subscriber);
    assert_eq!((bench.seen[&subscriber].len(), bench.gaps.len()), (1, 0));
    bench.replay(subscriber);
    assert_eq!((bench.seen[&subscriber].len(), bench.gaps.len()), (2, 1));
}

#[test]
fn subscribing_again_replaces_without_losing_or_repeating_a_live_message() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    append(&bench.hub, 0, "x");
    bench.turn();
    bench.subscribe(subscriber, "x", &[]);
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    assert_eq!(bench.seen[&subscriber], ["a1", "a2"]);
    bench.subscribe(subscriber, "x", &[0, 0]);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a1", "a2"], "a cursor asks for what was sent before");
}

#[test]
fn a_cursor_asks_for_what_was_sent_before_by_another_and_not_for_what_that_is_still_to_send() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "#", &[]);
    append(&bench.hub, 0, "x");
    bench.turn();
    bench.full.insert(subscriber);
    append(&bench.hub, 0, "x");
    bench.turn();
    assert!(bench.shard.is_behind(subscriber));
    bench.subscribe(subscriber, "x", &[0, 0]);
    append(&bench.hub, 0, "x");
    bench.full.clear();
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a3", "a1"]);
}

#[test]
fn who_left_is_sent_nothing_and_its_claims_are_given_back() {
    let mut bench = Bench::new();
    let first = bench.shard.join(CursorForm::Separate);
    bench.subscribe(first, "x", &[]);
    assert_eq!(bench.hub.sources()[0].interest().patterns(9).len(), 1);
    bench.shard.leave(first);
    assert_eq!(bench.hub.sources()[0].interest().patterns(9), []);
    append(&bench.hub, 0, "x");
    bench.turn();
    assert!(bench.seen.is_empty());
    assert_eq!(bench.shard.join(CursorForm::Joint), first, "the id is used again");
    assert_eq!(bench.shard.cursors(first), JointCursor::default());
}

#[test]
fn a_hole_is_told_between_what_was_before_and_what_follows() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x.#", &[]);
    let feed = Feed::new(bench.hub.sources()[0].clone());
    append(&bench.hub, 0, "x");
    feed.hole(GapReason::Outage, None);
    append(&bench.hub, 0, "x");
    bench.turn();
    assert_eq!((bench.seen[&subscriber].len(), bench.notices.len()), (1, 0));
    while bench.turn() {}
    assert_eq!((bench.seen[&subscriber].len(), bench.notices.len()), (2, 1));
    let Some((_, Notice::Gap(missed))) = bench.notices.pop() else { panic!("no gap") };
    assert_eq!((missed.reason, missed.missed, missed.pattern.as_str()), (GapReason::Outage, None, "x.#"));
}

#[test]
fn an_outage_is_told_to_those_who_read_the_source_and_the_first_link_to_nobody() {
    let mut bench = Bench::new();
    let (reader, other) = (bench.shard.join(CursorForm::Separate), bench.shard.join(CursorForm::Separate));
    bench.subscribe(reader, "x", &[]);
    let mut request = bench.request("x", &[]);
    request.source = Some("b".into());
    let id = request.id;
    bench.shard.subscribe(other, request).unwrap();
    bench.shard.activate(other, id);
    let feed = Feed::new(bench.hub.sources()[0].clone());
    feed.link_down(Meanwhile::Lost);
    while bench.turn() {}
    assert_eq!(bench.notices, [(reader, Notice::Outage("a".into()))]);
    assert_eq!(bench.shard.tell_outages(reader), ["a".into()]);
    feed.link_up();
    while bench.turn() {}
    assert_eq!(bench.notices.last(), Some(&(reader, Notice::Restored("a".into()))));
    assert_eq!(bench.notices.len(), 2);
}

#[test]
fn the_newest_messages_of_each_topic_come_first_and_live_ones_after_them() {
    let mut bench = Bench::new();
    for topic in ["x", "x", "x.y", "y", "x"] {
        append(&bench.hub, 0, topic);
    }
    while bench.turn() {}
    let subscriber = bench.shard.join(CursorForm::Separate);
    let mut request = bench.request("x.#", &[]);
    request.last = Last { each: 2, total_max: 100, ..Last::default() };
    let id = request.id;
    bench.shard.subscribe(subscriber, request).unwrap();
    let activated = bench.shard.activate(subscriber, id);
    assert!(activated[0].replay);
    append(&bench.hub, 0, "x");
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a2", "a3", "a5", "a6"]);
    assert_eq!(bench.caught_up, [id]);
}

/// One subscribes again to the same and is given it again, though it has seen it live.
#[test]
fn what_was_retained_comes_first_as_often_as_it_is_asked_for() {
    let mut bench = Bench::new();
    let retain = |bench: &Bench, topic, payload: &'static [u8]| {
        let (topic, payload) = (Topic::parse(topic).unwrap(), Bytes::from_static(payload));
        let attributes = Attributes { retained: true, ..Attributes::default() };
        let draft = Draft { topic, payload, attributes, received_at: 0 };
        Feed::new(bench.hub.sources()[0].clone()).append(vec![draft], 0);
    };
    retain(&bench, "x", b"1");
    retain(&bench, "x", b"2");
    append(&bench.hub, 0, "x");
    retain(&bench, "y", b"4");
    while bench.turn() {}
    let subscriber = bench.shard.join(CursorForm::Separate);
    for round in 1..=2 {
        let mut request = bench.request("x", &[]);
        request.last = Last { each: 0, retained: true, total_max: 100 };
        let id = request.id;
        bench.shard.subscribe(subscriber, request).unwrap();
        assert!(bench.shard.activate(subscriber, id)[0].replay);
        bench.settle(&[subscriber]);
        assert_eq!(bench.seen[&subscriber], vec!["a2"; round]);
    }
}
