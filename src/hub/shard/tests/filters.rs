//! Filters: asked once for all who share them, applied wherever messages come from, and honest about what may be missing.

use super::edges::{append_large, append_large_with, small};
use super::*;

/// A subscriber that wants one number of what a pattern matches.
fn listener(bench: &mut Bench, wanted: (&str, i64), after: &[u64]) -> SubscriberId {
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe_to(subscriber, (wanted.0, Some(wanted.1)), after);
    subscriber
}

fn append_numbers(bench: &Bench, messages: &[(&str, i64)]) {
    messages.iter().for_each(|(topic, number)| append_with(&bench.hub, 0, topic, numbered(*number)));
}

#[test]
fn a_filter_is_asked_once_a_message_however_many_share_it() {
    let mut bench = Bench::new();
    let who: Vec<SubscriberId> = (0..1_000).map(|_| listener(&mut bench, ("x.#", 1), &[])).collect();
    let unfiltered = bench.shard.join(CursorForm::Separate);
    bench.subscribe(unfiltered, "x.#", &[]);
    append_numbers(&bench, &[("x", 1), ("x.y", 2), ("y", 1), ("x", 1)]);
    bench.settle(&who);
    assert_eq!(bench.shard.filters_asked(), 3, "of the three messages whose topic matches");
    assert!(who.iter().all(|subscriber| bench.seen[subscriber] == ["a1", "a4"]));
    assert_eq!(bench.seen[&unfiltered], ["a1", "a2", "a4"]);
    let other = listener(&mut bench, ("x.#", 2), &[]);
    append_numbers(&bench, &[("x", 2)]);
    bench.settle(&who);
    assert_eq!((bench.shard.filters_asked(), bench.seen[&other].len()), (5, 1), "another filter is asked itself");
    who.iter().for_each(|subscriber| bench.shard.leave(*subscriber));
    bench.shard.leave(other);
    append_numbers(&bench, &[("x", 2)]);
    bench.settle(&[unfiltered]);
    assert_eq!(bench.shard.filters_asked(), 5, "and nobody's is not");
}

#[test]
fn any_subscription_that_lets_a_message_in_brings_it_and_only_once() {
    let mut bench = Bench::new();
    let subscriber = listener(&mut bench, ("x.#", 1), &[]);
    bench.subscribe_to(subscriber, ("*.y", Some(2)), &[]);
    bench.subscribe_to(subscriber, ("x", None), &[]);
    append_numbers(&bench, &[("x", 1), ("x", 2), ("x.y", 1), ("x.y", 2), ("x.y", 3), ("x.y.z", 2)]);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a3", "a4"]);
}

#[test]
fn subscribing_again_with_another_filter_replaces_the_first() {
    let mut bench = Bench::new();
    let subscriber = listener(&mut bench, ("x", 1), &[]);
    append_numbers(&bench, &[("x", 1), ("x", 2)]);
    bench.settle(&[subscriber]);
    bench.subscribe_to(subscriber, ("x", Some(2)), &[]);
    append_numbers(&bench, &[("x", 1), ("x", 2)]);
    bench.settle(&[subscriber]);
    bench.subscribe_to(subscriber, ("x", None), &[]);
    append_numbers(&bench, &[("x", 1), ("x", 2)]);
    bench.settle(&[subscriber]);
    bench.subscribe_to(subscriber, ("x", Some(1)), &[]);
    append_numbers(&bench, &[("x", 1), ("x", 2)]);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a4", "a5", "a6", "a7"]);
    bench.shard.leave(subscriber);
    append_numbers(&bench, &[("x", 1), ("x", 2)]);
    bench.settle(&[]);
    assert_eq!(bench.seen[&subscriber].len(), 5);
}

/// What was held back was read all the same, and is not read again by who comes back.
#[test]
fn cursors_pass_over_what_a_filter_holds_back() {
    for form in [CursorForm::Separate, CursorForm::Joint] {
        let mut bench = Bench::new();
        append_numbers(&bench, &[("x", 2), ("x", 1), ("x", 2), ("x", 2)]);
        while bench.turn() {}
        let subscriber = bench.shard.join(form);
        let activated = bench.subscribe_to(subscriber, ("x", Some(1)), &[0, 0]);
        assert!(activated[0].replay && activated[0].resumed);
        bench.settle(&[subscriber]);
        append_numbers(&bench, &[("x", 2)]);
        bench.settle(&[subscriber]);
        assert_eq!(bench.seen[&subscriber], ["a2"]);
        assert_eq!(bench.shard.cursors(subscriber).0[0].1.offset, 5 + BINDING, "{form:?}");
    }
}

#[test]
fn however_many_filters_resume_a_pattern_the_log_is_searched_once() {
    let cost = |count: i64| {
        let mut bench = Bench::new();
        (0..1_000).for_each(|number| append_numbers(&bench, &[("x", number % 10), ("y", 0)]));
        while bench.turn() {}
        let who: Vec<SubscriberId> =
            (0..count).map(|number| listener(&mut bench, ("x", number % 10), &[0, 0])).collect();
        bench.settle(&who);
        for (subscriber, number) in who.iter().zip(0..) {
            let offsets = (0..1_000).filter(|message| message % 10 == number % 10).map(|message| 2 * message + 1);
            assert_eq!(bench.seen[subscriber], offsets.map(|offset| format!("a{offset}")).collect::<Vec<_>>());
        }
        (bench.looked_at, bench.names.0)
    };
    let (one, many) = (cost(1), cost(1_000));
    assert_eq!((many.0, many.1), (one.0, 10 * one.1), "frames are made once for each filter");
}

/// Its replay takes what no other filter let in, and leaves out what another one is still to bring.
#[test]
fn a_replay_leaves_out_only_what_another_filter_let_in() {
    let mut bench = Bench::new();
    let subscriber = listener(&mut bench, ("#", 1), &[]);
    append_numbers(&bench, &[("x", 1), ("x", 2)]);
    bench.full.insert(subscriber);
    while bench.turn() {}
    bench.subscribe_to(subscriber, ("x", None), &[0, 0]);
    bench.full.clear();
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2"]);
}

/// The log counts what it lets go of by topic, so how many a filter would have let in nobody knows.
#[test]
fn a_gap_of_a_filter_has_no_number_and_stands_only_where_its_topics_were_lost() {
    let (mut bench, _feed) = small();
    let (live, other) = (listener(&mut bench, ("x", 1), &[]), listener(&mut bench, ("y", 1), &[]));
    (0..4).for_each(|_| append_large(&bench, "x"));
    while bench.turn() {}
    let gaps = bench.notices.iter().filter_map(|(id, notice)| match notice {
        Notice::Gap(missed) => Some((*id, missed.reason, missed.missed)),
        _ => None,
    });
    assert_eq!(gaps.collect::<Vec<_>>(), [(live, GapReason::Slow, None)]);
    let late = bench.shard.join(CursorForm::Separate);
    let activated = bench.subscribe_to(late, ("x", Some(1)), &[0]);
    assert_eq!(
        activated[0].gaps.iter().map(|gap| (gap.reason, gap.missed)).collect::<Vec<_>>(),
        [(GapReason::Expired, None)]
    );
    let activated = bench.subscribe_to(late, ("y", Some(1)), &[0]);
    assert_eq!((activated[0].resumed, activated[0].gaps.len()), (true, 0));
    bench.shard.leave(other);
}

/// A message that is held back supersedes nothing, so what it followed was lost with the log.
#[test]
fn latest_misses_what_only_others_superseded() {
    for (last, sent, gaps) in [(0, vec![], vec![None]), (1, vec!["a5"], vec![])] {
        let (mut bench, _feed) = small();
        let subscriber = bench.shard.join(CursorForm::Separate);
        let mut request = SubscribeRequest { flow: Flow::Latest, ..bench.request("x", &[]) };
        request.wanted.filter = of_number(1);
        bench.open(subscriber, request);
        bench.full.insert(subscriber);
        append_numbers(&bench, &[("x", 1)]);
        while bench.turn() {}
        assert!(bench.shard.is_behind(subscriber));
        for number in [0, 0, 0, last] {
            append_large_with(&bench, "x", numbered(number));
            while bench.turn() {}
        }
        bench.full.clear();
        bench.settle(&[subscriber]);
        assert_eq!(bench.seen.remove(&subscriber).unwrap_or_default(), sent);
        assert_eq!(bench.gaps.iter().map(|gap| gap.missed).collect::<Vec<_>>(), gaps);
    }
}

const NUMBERS: [i64; 3] = [0, 1, 2];

fn messages() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    prop::collection::vec((prop::sample::select(&TOPICS[..]), prop::sample::select(&NUMBERS[..])), 0..40)
}

/// Of some messages the numbers of those that one wants, counted from 1.
fn wanted(messages: &[(&str, i64)], (pattern, number): (&str, i64)) -> Vec<usize> {
    let pattern = Pattern::parse(pattern).unwrap();
    let is_wanted = |place: &usize| {
        let (topic, of) = messages[place - 1];
        of == number && pattern.matches(&Topic::parse(topic).unwrap())
    };
    (1..=messages.len()).filter(is_wanted).collect()
}

/// Those of them that are among the newest of their topics.
fn newest(messages: &[(&str, i64)], wanted: &[usize], each: usize) -> Vec<usize> {
    let topic = |place: usize| messages[place - 1].0;
    let after = |place: usize| wanted.iter().filter(move |other| **other > place && topic(**other) == topic(place));
    wanted.iter().copied().filter(|place| after(*place).count() < each).collect()
}

fn names(places: &[usize]) -> Vec<String> {
    places.iter().map(|place| format!("a{place}")).collect()
}

proptest! {
    /// Whoever is too slow is sent what its flow says of what its filter lets in, as if there were nothing else.
    #[test]
    fn who_falls_behind_is_sent_what_its_filter_lets_in(messages in messages(), pattern in prop::sample::select(&PATTERNS[..]), flow in prop::sample::select(&Flow::ALL[..])) {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Separate);
        let mut request = SubscribeRequest { flow, ..bench.request(pattern, &[]) };
        request.wanted.filter = of_number(1);
        bench.open(subscriber, request);
        bench.full.insert(subscriber);
        append_numbers(&bench, &messages);
        while bench.turn() {}
        bench.full.clear();
        bench.settle(&[subscriber]);
        let all = wanted(&messages, (pattern, 1));
        let (sent, dropped) = match flow {
            Flow::CatchUp => (all, 0),
            Flow::Latest => (newest(&messages, &all, 1), 0),
            Flow::DropOldest => (all[all.len().saturating_sub(2)..].to_vec(), all.len().saturating_sub(2) as u64),
        };
        prop_assert_eq!(bench.seen.remove(&subscriber).unwrap_or_default(), names(&sent));
        let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.reason, gap.missed)).collect();
        let expected = (dropped > 0).then_some((GapReason::Slow, Some(dropped)));
        prop_assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_are_the_newest_that_a_filter_lets_in(messages in messages(), pattern in prop::sample::select(&PATTERNS[..]), each in 1usize..4) {
        let mut bench = Bench::new();
        append_numbers(&bench, &messages);
        while bench.turn() {}
        let subscriber = bench.shard.join(CursorForm::Separate);
        let mut request = bench.request(pattern, &[]);
        request.last = Last { each, total_max: 100, ..Last::default() };
        request.wanted.filter = of_number(1);
        bench.open(subscriber, request);
        bench.settle(&[subscriber]);
        let expected = newest(&messages, &wanted(&messages, (pattern, 1)), each);
        prop_assert_eq!(bench.seen.remove(&subscriber).unwrap_or_default(), names(&expected));
    }
}
