//! Stories of the edges between replay, late and live, each found by the history checker (`tests/it/history`).

use super::*;

fn activate(bench: &mut Bench, subscriber: SubscriberId, requests: Vec<SubscribeRequest>) -> Vec<Activated> {
    let ids: Vec<SubscriptionId> = requests.iter().map(|request| request.id).collect();
    for request in requests {
        bench.shard.subscribe(subscriber, request).unwrap();
    }
    ids.into_iter().flat_map(|id| bench.shard.activate(subscriber, id)).collect()
}

/// A client takes nothing marked as replayed that it did not ask for.
#[test]
fn what_follows_a_start_beyond_the_shard_is_late_and_no_replay() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    append(&bench.hub, 0, "x");
    assert!(!bench.subscribe(subscriber, "x", &[])[0].replay);
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    let replay = bench.shard.replay(subscriber, SMALL, bench.now);
    let found = replay.excerpt.iter().flat_map(|(_, excerpt)| excerpt.publications()).map(|one| name(one));
    assert_eq!(found.collect::<Vec<_>>(), ["a2"]);
    assert!(!replay.asked_for);
}

#[test]
fn cursors_of_sources_that_there_are_not_are_foreign_in_all() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let elsewhere = Cursor { epoch: Epoch(7), offset: 3 };
    let mut request = bench.request("x", &[]);
    request.after = JointCursor(vec![("gone".into(), elsewhere)]);
    let gone = bench.open(subscriber, request);
    assert!(!gone[0].resumed);
    assert!(gone[0].gaps.iter().all(|gap| gap.reason == GapReason::UnknownCursor) && !gone[0].gaps.is_empty());
    // Beside one that is known they say nothing: a source that is no more brings nothing.
    let here = gone[0].cursors.0[0].clone();
    let mut request = bench.request("y", &[]);
    request.after = JointCursor(vec![("gone".into(), elsewhere), here]);
    let both = bench.open(subscriber, request);
    assert!(both[0].gaps.is_empty(), "{:?}", both[0].gaps);
}

/// One of two patterns is live already; the other begins further on than the shard is.
#[test]
fn a_message_comes_once_though_one_of_its_patterns_began_beyond_the_shard() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    append(&bench.hub, 0, "x");
    bench.subscribe(subscriber, "#", &[]);
    append(&bench.hub, 0, "x");
    append(&bench.hub, 0, "y");
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a3"]);
}

#[test]
fn replacing_a_subscription_of_a_shard_that_lags_loses_nothing() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    append(&bench.hub, 0, "x");
    bench.subscribe(subscriber, "x", &[]);
    append(&bench.hub, 0, "x");
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2"]);
}

#[test]
fn a_subscription_does_not_end_a_later_one_that_still_waits() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let requests = vec![bench.request("x", &[]), bench.request("x", &[])];
    assert_eq!(activate(&mut bench, subscriber, requests).len(), 2);
    append(&bench.hub, 0, "x");
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1"]);
}

#[test]
fn what_several_patterns_of_a_joint_cursor_want_first_comes_once_and_in_order() {
    let mut bench = Bench::new();
    ["x", "x.y", "y"].into_iter().for_each(|topic| append(&bench.hub, 0, topic));
    while bench.turn() {}
    let subscriber = bench.shard.join(CursorForm::Joint);
    let last = Last { each: 1, total_max: 9, ..Last::default() };
    let requests = ["*.y", "x.#"].map(|pattern| SubscribeRequest { last, ..bench.request(pattern, &[]) });
    assert_eq!(activate(&mut bench, subscriber, requests.into()).len(), 2);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2"]);
}

/// What one pattern is sent anyway another one has not dropped.
#[test]
fn what_is_sent_for_another_pattern_is_not_counted_as_dropped() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let everything = bench.request("x", &[]);
    let newest = SubscribeRequest { flow: Flow::DropOldest, ..bench.request("#", &[]) };
    activate(&mut bench, subscriber, vec![everything, newest]);
    bench.full.insert(subscriber);
    ["y", "x", "y", "x", "y", "x", "y"].into_iter().for_each(|topic| append(&bench.hub, 0, topic));
    while bench.turn() {}
    bench.full.clear();
    bench.settle(&[subscriber]);
    let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.pattern.as_str(), gap.missed)).collect();
    assert_eq!(told, [("#", Some(2))]);
    assert_eq!(bench.seen[&subscriber], ["a2", "a4", "a5", "a6", "a7"]);
}

/// What another pattern would be sent only for being the newest of its topic may be superseded before it is its turn.
#[test]
fn what_is_superseded_before_it_is_sent_for_another_pattern_is_counted_as_dropped() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let everything = bench.request("y", &[]);
    let latest = SubscribeRequest { flow: Flow::Latest, ..bench.request("x", &[]) };
    let newest = SubscribeRequest { flow: Flow::DropOldest, ..bench.request("#", &[]) };
    activate(&mut bench, subscriber, vec![everything, latest, newest]);
    bench.full.insert(subscriber);
    ["y", "y", "y", "y", "x", "x.y", "x.y", "x.y"].into_iter().for_each(|topic| append(&bench.hub, 0, topic));
    while bench.turn() {}
    bench.full.clear();
    bench.replay(subscriber);
    append(&bench.hub, 0, "x");
    bench.settle(&[subscriber]);
    let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.pattern.as_str(), gap.missed)).collect();
    assert_eq!(told, [("#", Some(2))]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a3", "a4", "a7", "a8", "a9"]);
}

/// An event stream would come back with it, though nobody has said yet what was missed after the cursor that it had.
#[test]
fn no_position_is_told_to_an_event_stream_that_waits_for_its_bindings() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Joint);
    let request = bench.request("x", &[7, 7]);
    let id = request.id;
    bench.shard.subscribe(subscriber, request).unwrap();
    assert_eq!(bench.shard.cursors(subscriber), JointCursor::default());
    let activated = bench.shard.activate(subscriber, id);
    assert_eq!(activated[0].gaps.len(), 2, "cursors from the future");
    assert_eq!(bench.shard.cursors(subscriber).0.len(), 2);
}

/// Whoever goes on in its place would otherwise not be told what such a cursor means.
#[test]
fn the_place_of_what_waits_is_the_cursor_that_it_came_with() {
    let mut bench = Bench::new();
    append(&bench.hub, 0, "x");
    bench.settle(&[]);
    let subscriber = bench.shard.join(CursorForm::Each);
    let foreign = |name: &str| (name.to_owned(), Cursor { epoch: Epoch(7), offset: 9 });
    let after = JointCursor(SOURCES.iter().map(|name| foreign(name)).collect());
    let request = SubscribeRequest { after: after.clone(), ..bench.request("x", &[]) };
    let id = request.id;
    bench.shard.subscribe(subscriber, request).unwrap();
    let place = |bench: &Bench| bench.shard.places(subscriber).map(|(_, place)| place.after).next().unwrap();
    assert_eq!(place(&bench), after);
    bench.shard.activate(subscriber, id);
    assert_eq!(place(&bench).0[0].1.offset, 1 + BINDING);
}

/// How many claims there are on anything, in all sources.
fn claims(bench: &Bench) -> usize {
    let wanted = bench.hub.sources().iter().flat_map(|source| source.interest().patterns(usize::MAX));
    wanted.map(|one| one.claims).sum()
}

/// However many there are: for what is kept for a time only there is not so much room.
#[test]
fn what_subscribers_claimed_stays_claimed_as_long_as_their_places_are_held() {
    let mut bench = Bench::new();
    let mut places = Vec::new();
    for who in 0..50 {
        let subscriber = bench.shard.join(CursorForm::Each);
        for number in 0..100 {
            bench.subscribe(subscriber, &format!("{who}.{number}"), &[]);
        }
        places.extend(bench.shard.places(subscriber));
        bench.shard.leave(subscriber);
    }
    assert_eq!((places[0].0.as_str(), claims(&bench)), ("0.0", 10_000), "one a source");
    let other = bench.shard.join(CursorForm::Each);
    bench.subscribe(other, "0.0", &[]);
    drop(places);
    assert_eq!(claims(&bench), 2, "of the other");
    bench.shard.leave(other);
    assert_eq!(claims(&bench), 0);
}

#[test]
fn claims_that_are_leased_outlive_their_subscriber_until_the_last_lease_ends() {
    let mut bench = Bench::new();
    let begun = std::time::Instant::now();
    let second = std::time::Duration::from_secs(1);
    for seconds in [3, 2] {
        let subscriber = bench.shard.join(CursorForm::Joint);
        bench.subscribe(subscriber, "x", &[]);
        bench.shard.lease_claims(subscriber, begun + second * seconds);
        bench.shard.leave(subscriber);
        assert_eq!(claims(&bench), 2, "one a source, of both subscribers");
    }
    assert!(bench.shard.end_leases(begun + second * 2));
    assert_eq!(claims(&bench), 2);
    assert!(!bench.shard.end_leases(begun + second * 3));
    assert_eq!(claims(&bench), 0);
}

/// The client would take a position for that of each of its subscriptions.
#[test]
fn no_position_is_told_that_is_not_that_of_every_subscription() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "y", &[]);
    append(&bench.hub, 0, "x");
    bench.subscribe(subscriber, "x", &[]);
    let told =
        |bench: &Bench| bench.shard.cursors(subscriber).0.iter().map(|(name, _)| name.clone()).collect::<String>();
    assert_eq!(told(&bench), "b");
    bench.settle(&[subscriber]);
    assert_eq!(told(&bench), "ab");
}

pub(super) fn append_large(bench: &Bench, topic: &str) {
    append_large_with(bench, topic, Headers::default());
}

pub(super) fn append_large_with(bench: &Bench, topic: &str, headers: Headers) {
    let payload = Bytes::from(vec![0; crate::hub::log::LIVE_BYTES_MIN / 2]);
    let topic = Topic::parse(topic).unwrap();
    let attributes = Attributes { headers, ..Attributes::default() };
    let draft = Draft { topic, payload, attributes, received_at: 0 };
    Feed::new(bench.hub.sources()[0].clone()).append(vec![draft], 0);
}

/// A bench whose first log holds two large messages, and its source.
pub(super) fn small() -> (Bench, Feed) {
    let bounds = LogBounds { bytes_max: 0, ..LogBounds::default() };
    let mode = BindingMode::Fixed(vec![Pattern::all()]);
    let state = SourceState::new(Arc::new(test_info()), bounds, mode);
    let feed = Feed::new(state.clone());
    feed.interest().plan(std::time::Instant::now());
    feed.bound(&Pattern::all());
    feed.link_up();
    let hub = Hub::new(vec![state]);
    let shard = Shard::new(&hub, 2);
    (Bench { hub, shard, ..Bench::new() }, feed)
}

/// The shard falls out of the log, past a hole, and before it looks the link is down once more.
#[test]
fn a_hole_that_the_shard_falls_past_is_told() {
    let (mut bench, feed) = small();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "y", &[]);
    feed.link_down(Meanwhile::Lost);
    feed.interest().plan(std::time::Instant::now());
    feed.bound(&Pattern::all());
    feed.link_up();
    (0..4).for_each(|_| append_large(&bench, "x"));
    feed.link_down(Meanwhile::Lost);
    while bench.turn() {}
    let gaps = bench.notices.iter().filter(|(_, notice)| matches!(notice, Notice::Gap(_)));
    assert_eq!(gaps.count(), 1, "the outage; no message on y was lost");
}

/// It came back while the shard lagged: what its start judged and the shard has not come to is still a replay, and what of
/// it leaves the log is told.
#[test]
fn who_resumed_on_a_shard_that_lags_replays_up_to_where_it_came_back() {
    let (mut bench, _) = small();
    let subscriber = bench.shard.join(CursorForm::Separate);
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    append(&bench.hub, 0, "x");
    let request = bench.request("x", &[1]);
    assert!(activate(&mut bench, subscriber, vec![request])[0].replay);
    assert_eq!(bench.shard.replay(subscriber, SMALL, bench.now).caught_up, [], "the shard is not there yet");
    (0..4).for_each(|_| append_large(&bench, "x"));
    bench.settle(&[subscriber]);
    let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.reason, gap.missed)).collect();
    assert_eq!((told, bench.caught_up.len()), (vec![(GapReason::Slow, Some(4))], 1));
    assert_eq!(bench.seen[&subscriber], ["a6"]);
}

/// One source says more than the socket takes, and another one says a little: to who falls behind, and to who has come back.
#[test]
fn a_source_that_never_falls_silent_keeps_no_other_from_a_slow_reader() {
    let live = [CursorForm::Separate, CursorForm::Joint, CursorForm::Each].map(|form| (form, &[][..]));
    for (form, after) in live.into_iter().chain(live.map(|(form, _)| (form, &[0, 0][..]))) {
        let mut bench = Bench::new();
        (0..5).for_each(|_| append(&bench.hub, 0, "x"));
        let subscriber = bench.shard.join(form);
        bench.subscribe(subscriber, "#", after);
        append(&bench.hub, 1, "x");
        for _ in 0..4 {
            (0..4).for_each(|_| append(&bench.hub, 0, "x"));
            bench.full.insert(subscriber);
            while bench.turn() {}
            bench.full.clear();
            bench.replay(subscriber);
        }
        let seen = &bench.seen[&subscriber];
        assert!(seen.contains(&"b1".to_owned()) && seen.len() < 16, "{form:?} after {after:?}: {seen:?}");
    }
}
