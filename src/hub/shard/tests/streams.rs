//! Stories of streams, found by the history checker on a real broker (`tests/it/history/real`).

use futures_util::FutureExt;

use super::*;
use crate::hub::archive::{Fetched, Stretch, Verdict};
use crate::model::rate::Rate;
use crate::model::stream;

/// Longer than a log without bounds of its own keeps anything.
const LATER_MS: u64 = 10_000;

/// A shard that reads a stream with so many messages, and the feed of that.
fn streamed(messages: u64) -> (Shard, Feed, Hub) {
    let bounds = LogBounds { age_max: std::time::Duration::from_secs(1), ..LogBounds::default() };
    let hub = Hub::new(vec![SourceState::of_stream(Arc::new(test_info()), bounds)]);
    let (shard, feed) = (Shard::new(&hub, 2), Feed::new(hub.sources()[0].clone()));
    feed.begin(0);
    (0..messages).for_each(|offset| place(&feed, offset, 0));
    (shard, feed, hub)
}

/// Likewise, and the shard has read them all.
fn connected(messages: u64) -> (Shard, Feed, Hub) {
    let (mut shard, feed, hub) = streamed(messages);
    feed.link_up_bound(std::time::Instant::now());
    while shard.take(SMALL).more {}
    (shard, feed, hub)
}

fn at(offset: u64) -> u64 {
    stream::position(offset, offset + 5).unwrap()
}

fn place(feed: &Feed, offset: u64, now: u64) {
    let topic = Topic::parse("x").unwrap();
    let draft = Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: now };
    feed.append_placed(vec![(at(offset), draft)], now);
}

fn resuming(position: u64) -> SubscribeRequest {
    let after = Cursor { epoch: Epoch(1), offset: position };
    SubscribeRequest {
        id: SubscriptionId(1),
        wanted: Pattern::all().into(),
        after: JointCursor(vec![("a".to_owned(), after)]),
        last: Last::default(),
        source: None,
        flow: Flow::CatchUp,
        max_rate: None,
    }
}

/// A client hands its cursor back, and another source's binding takes its time. Meanwhile the log lets go of the message that
/// the cursor names: the stream still has it and everything after it.
#[test]
fn a_cursor_that_the_log_knew_is_good_though_the_log_goes_on_before_the_claims_stand() {
    for (messages, known) in [(0, 0), (2, at(0)), (2, at(1))] {
        let (mut shard, feed, _hub) = streamed(messages);
        let subscriber = shard.join(CursorForm::Separate);
        let opening = shard.subscribe(subscriber, resuming(known)).unwrap();
        place(&feed, messages, LATER_MS);
        place(&feed, messages + 1, 2 * LATER_MS);
        feed.link_up_bound(std::time::Instant::now());
        assert_eq!(Shard::stands(&opening), Ok(true));
        let activated = shard.activate(subscriber, SubscriptionId(1));
        assert_eq!((activated[0].resumed, &activated[0].gaps), (true, &vec![]), "{known}");
        assert!(activated[0].replay);
    }
}

/// Whatever was said of the cursor was said of another stream.
#[test]
fn a_cursor_that_the_log_knew_is_unknown_when_the_stream_is_made_anew_before_the_claims_stand() {
    let (mut shard, feed, _hub) = streamed(2);
    let subscriber = shard.join(CursorForm::Separate);
    shard.subscribe(subscriber, resuming(at(1))).unwrap();
    feed.remade(0);
    let activated = shard.activate(subscriber, SubscriptionId(1));
    let reasons: Vec<GapReason> = activated[0].gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!((activated[0].resumed, reasons), (false, vec![GapReason::UnknownCursor]));
}

/// A subscriber that has handed a cursor back, with what it was told.
fn resumed(shard: &mut Shard, position: u64) -> (SubscriberId, Activated) {
    let subscriber = shard.join(CursorForm::Separate);
    let opening = shard.subscribe(subscriber, resuming(position)).unwrap();
    assert_eq!(Shard::stands(&opening), Ok(true));
    let activated = shard.activate(subscriber, SubscriptionId(1)).pop().unwrap();
    (subscriber, activated)
}

/// The offsets that a replay brings.
fn replayed(shard: &mut Shard, subscriber: SubscriberId) -> Vec<u64> {
    replayed_at(shard, subscriber, std::time::Instant::now())
}

fn replayed_at(shard: &mut Shard, subscriber: SubscriberId, now: std::time::Instant) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        let replay = shard.replay(subscriber, SMALL, now);
        let excerpt = replay.excerpt.iter().flat_map(|(_, excerpt)| excerpt.publications());
        let all = replay.messages.iter().map(|replayed| &replayed.publication).chain(excerpt);
        offsets.extend(all.map(|publication| stream::named(publication.offset).unwrap()));
        assert_eq!(replay.gaps, []);
        if !replay.progressed {
            return offsets;
        }
    }
}

/// While a node had no link its stream was cut beyond where the node had come to. That is told to who was live, and to
/// whoever hands back a cursor from before, wherever that is from, and to nobody twice.
#[test]
fn what_was_cut_off_while_the_link_was_away_is_told_to_everybody_who_missed_it() {
    let (mut shard, feed, _hub) = streamed(3);
    let connect = || feed.link_up_bound(std::time::Instant::now());
    connect();
    while shard.take(SMALL).more {}
    let (live, _) = resumed(&mut shard, at(2));
    feed.link_down(Meanwhile::Kept);
    feed.cut(6);
    place(&feed, 6, 0);
    connect();
    let mut told = Vec::new();
    loop {
        let taken = shard.take(SMALL);
        told.extend(taken.notices.into_iter().filter_map(|(id, notice)| match notice {
            Notice::Gap(missed) => Some((id, missed.reason, missed.missed)),
            _ => None,
        }));
        if !taken.more {
            break;
        }
    }
    assert_eq!(told, [(live, GapReason::Expired, None)]);
    for (cursor, gaps, offsets) in [
        (at(1), 1, vec![2, 6]),
        (at(2), 1, vec![6]),
        (at(4), 1, vec![6]),
        (stream::before(6), 0, vec![6]),
        (at(6), 0, vec![]),
    ] {
        let (subscriber, activated) = resumed(&mut shard, cursor);
        assert!(activated.gaps.iter().all(|gap| gap.reason == GapReason::Expired));
        assert_eq!((activated.gaps.len(), activated.resumed), (gaps, gaps == 0), "{cursor}");
        assert_eq!(replayed(&mut shard, subscriber), offsets, "{cursor}");
    }
}

/// A log may reach further back than its stream, which forgets by rules of its own: what the log has is not lost.
#[test]
fn what_the_log_has_comes_from_there_though_the_stream_has_cut_it_off() {
    let (mut shard, feed, hub) = streamed(0);
    feed.link_up_bound(std::time::Instant::now());
    (10..20).for_each(|offset| place(&feed, offset, 0));
    while shard.take(SMALL).more {}
    let subscriber = shard.join(CursorForm::Separate);
    let opening = shard.subscribe(subscriber, resuming(at(5))).unwrap();
    assert_eq!(Shard::stands(&opening), Ok(false), "the stream is asked");
    let archive = hub.sources()[0].archive().unwrap();
    let fetch = archive.next(|| 0..=u64::MAX).now_or_never().unwrap();
    fetch.answer(Fetched::Cut(15, Stretch::default()));
    let activated = shard.activate(subscriber, SubscriptionId(1)).pop().unwrap();
    assert_eq!(activated.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::Expired]);
    assert_eq!(replayed(&mut shard, subscriber), (10..20).collect::<Vec<_>>());
}

/// A stream is made anew, and before the shard has come to say so somebody subscribes: with a cursor from before, which is told
/// once, or without one. Neither begins before the place that the answer names.
#[test]
fn who_begins_in_a_stream_made_anew_is_not_told_so_again() {
    let (mut shard, feed, _hub) = connected(20);
    let (live, _) = resumed(&mut shard, at(19));
    feed.remade(stream::before(10));
    (10..14).for_each(|offset| place(&feed, offset, 0));
    // The same offset, and another message.
    let (old, activated) = resumed(&mut shard, at(12) + 1);
    assert_eq!(activated.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::UnknownCursor]);
    let fresh = shard.join(CursorForm::Separate);
    let request = SubscribeRequest { after: JointCursor::default(), ..resuming(0) };
    shard.subscribe(fresh, request).unwrap();
    shard.activate(fresh, SubscriptionId(1));
    place(&feed, 14, 0);
    for subscriber in [live, old, fresh] {
        assert_eq!(replayed(&mut shard, subscriber), Vec::<u64>::new(), "the shard is to tell of it first");
    }
    let mut notices = Vec::new();
    loop {
        let taken = shard.take(SMALL);
        notices.extend(taken.notices);
        shard.turn().0.close();
        shard.turn().0.end();
        if !taken.more {
            break;
        }
    }
    assert!(
        matches!(&notices[..], [(told, Notice::Gap(gap))] if *told == live && gap.reason == GapReason::UnknownCursor)
    );
    for subscriber in [old, fresh] {
        assert_eq!(replayed(&mut shard, subscriber), [14]);
    }
}

/// Takes a turn of which the subscriber's socket takes nothing.
fn fall_behind(shard: &mut Shard, subscriber: SubscriberId) {
    shard.take(SMALL);
    shard.turn().0.close();
    let (source, read) = shard.turn().0.origin().unwrap();
    shard.fall_behind(subscriber, source, read);
    shard.turn().0.end();
}

/// What falls behind goes on before the first message that it was not sent, and that place is one that the stream can be asked
/// for: the number before a message's is another mark at the same offset.
#[test]
fn who_falls_behind_asks_a_stream_for_a_place_that_there_is() {
    for flow in Flow::ALL {
        let (mut shard, feed, hub) = connected(5);
        let subscriber = shard.join(CursorForm::Separate);
        shard.subscribe(subscriber, SubscribeRequest { flow, after: JointCursor::default(), ..resuming(0) }).unwrap();
        shard.activate(subscriber, SubscriptionId(1));
        shard.replay(subscriber, SMALL, std::time::Instant::now());
        (5..8).for_each(|offset| place(&feed, offset, 0));
        fall_behind(&mut shard, subscriber);
        for steps in 0..3 {
            let cursor = shard.cursors(subscriber).0[0].1;
            assert_eq!(hub.sources()[0].log().verdict(cursor), Some(Verdict::Genuine), "{flow:?} after {steps} steps");
            shard.replay(subscriber, ReadBounds { messages_max: 1, ..SMALL }, std::time::Instant::now());
        }
    }
}

/// One subscription of a client falls behind in the stream itself, and another one with it that only wants what is new: what is
/// fetched for the one is not lost for the other.
#[test]
fn what_is_fetched_for_one_subscription_is_no_loss_for_another() {
    let (mut shard, feed, hub) = connected(5);
    let subscriber = shard.join(CursorForm::Separate);
    for (id, pattern, flow) in [(1, "#", Flow::CatchUp), (2, "x", Flow::Latest), (3, "*", Flow::DropOldest)] {
        let wanted = Pattern::parse(pattern).unwrap().into();
        let after = JointCursor::default();
        let request = SubscribeRequest { id: SubscriptionId(id), wanted, flow, after, ..resuming(0) };
        shard.subscribe(subscriber, request).unwrap();
        shard.activate(subscriber, SubscriptionId(id));
        shard.replay(subscriber, SMALL, std::time::Instant::now());
    }
    (5..8).for_each(|offset| place(&feed, offset, 0));
    fall_behind(&mut shard, subscriber);
    // The log lets go of all of it.
    place(&feed, 8, LATER_MS);
    while shard.take(SMALL).more {}
    assert_eq!(replayed(&mut shard, subscriber), Vec::<u64>::new(), "it is fetched");
    assert!(fetch(&hub, 8));
    assert_eq!(replayed(&mut shard, subscriber), [5, 6, 7, 8]);
}

/// Fetches the first place that is wanted of a stream that holds so many messages, as its source does. Whether there was any.
fn fetch(hub: &Hub, messages: u64) -> bool {
    let Some(fetch) = hub.sources()[0].archive().unwrap().next(|| 0..=u64::MAX).now_or_never() else { return false };
    let begin = stream::following(fetch.after());
    let fetched = match stream::named(fetch.after()) {
        Some(offset) if at(offset) != fetch.after() => Fetched::Foreign,
        _ => {
            let publication = |offset: u64| {
                let topic = Topic::parse("x").unwrap();
                let draft = Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: 0 };
                Arc::new(Publication { source: hub.sources()[0].info().clone(), offset: at(offset), draft })
            };
            let publications: Vec<_> = (begin..messages).map(publication).collect();
            Fetched::Genuine(Stretch { until: at(messages - 1), publications })
        }
    };
    fetch.answer(fetched);
    true
}

/// One wants a message a second and everything, and more come. It waits for its time at a place that the log lets go of
/// meanwhile, so that the stream is asked for what follows there: a place that the stream does not know nobody would ever get
/// beyond.
#[test]
fn who_is_paced_waits_at_a_place_that_the_stream_knows() {
    let (mut shard, feed, hub) = connected(0);
    let subscriber = shard.join(CursorForm::Separate);
    let paced = SubscribeRequest { max_rate: Rate::new(1), after: JointCursor::default(), ..resuming(0) };
    shard.subscribe(subscriber, paced).unwrap();
    shard.activate(subscriber, SubscriptionId(1));
    (0..5).for_each(|offset| place(&feed, offset, 0));
    while shard.take(SMALL).more {}
    assert_eq!(replayed(&mut shard, subscriber), [0]);
    let cursor = shard.cursors(subscriber).0[0].1;
    assert_eq!(hub.sources()[0].log().verdict(cursor), Some(Verdict::Genuine));
    place(&feed, 5, LATER_MS);
    while shard.take(SMALL).more {}
    let mut now = std::time::Instant::now();
    let (mut offsets, mut fetches) = (Vec::new(), 0);
    for _ in 0..10 {
        now += std::time::Duration::from_secs(1);
        offsets.extend(replayed_at(&mut shard, subscriber, now));
        fetches += usize::from(fetch(&hub, 6));
    }
    assert_eq!((offsets, fetches), (vec![1, 2, 3, 4, 5], 1));
}

/// An event stream over a stream and an exchange, at a rate: whatever comes of the one carries where it stands in the other.
#[test]
fn a_joint_cursor_of_who_is_paced_is_genuine_in_each_stream() {
    let streamed = SourceState::of_stream(Arc::new(test_info()), LogBounds::default());
    let info = SourceInfo::new(SourceId(1), "b", Epoch(1));
    let other = SourceState::new(Arc::new(info), LogBounds::default(), BindingMode::Fixed(vec![Pattern::all()]));
    let hub = Hub::new(vec![streamed, other]);
    let [feed, other] = [0, 1].map(|number| Feed::new(hub.sources()[number].clone()));
    let mut shard = Shard::new(&hub, 2);
    feed.begin(0);
    [&feed, &other].into_iter().for_each(|feed| feed.link_up_bound(std::time::Instant::now()));
    while shard.take(SMALL).more {}
    let subscriber = shard.join(CursorForm::Joint);
    for (id, pattern) in [(1, "x"), (2, "y")] {
        let wanted = Pattern::parse(pattern).unwrap().into();
        let (id, after) = (SubscriptionId(id), JointCursor::default());
        let request = SubscribeRequest { id, wanted, after, max_rate: Rate::new(1), ..resuming(0) };
        shard.subscribe(subscriber, request).unwrap();
    }
    (1..=2).for_each(|id| drop(shard.activate(subscriber, SubscriptionId(id))));
    (0..4).for_each(|offset| place(&feed, offset, 0));
    append(&hub, 1, "y");
    while shard.take(SMALL).more {}
    let mut sources = Vec::new();
    let now = std::time::Instant::now();
    for _ in 0..3 {
        for replayed in shard.replay(subscriber, SMALL, now).messages {
            let cursor = replayed.position.of("a").unwrap();
            assert_eq!(
                hub.sources()[0].log().verdict(cursor),
                Some(Verdict::Genuine),
                "{}",
                replayed.publication.offset
            );
            sources.push(replayed.publication.source.name.clone());
        }
    }
    assert_eq!(sources.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
}

/// A subscription that takes over from one that read the stream before is told that it is another one, as that would have been.
#[test]
fn who_takes_over_from_a_subscription_on_the_stream_before_is_told_that_it_is_another() {
    let (mut shard, feed, _hub) = connected(3);
    let (subscriber, _) = resumed(&mut shard, at(2));
    feed.remade(0);
    place(&feed, 0, 0);
    let again = SubscribeRequest { id: SubscriptionId(2), after: JointCursor::default(), ..resuming(0) };
    shard.subscribe(subscriber, again).unwrap();
    shard.activate(subscriber, SubscriptionId(2));
    let told = shard.take(SMALL).notices;
    assert!(matches!(&told[..], [(_, Notice::Gap(gap))] if gap.reason == GapReason::UnknownCursor));
}

/// Two subscriptions hand cursors back. Of one source the stream has what they miss, and does not answer; the other source
/// keeps nobody waiting.
#[test]
fn what_waits_for_one_source_keeps_nobody_from_another() {
    let bounds = LogBounds { age_max: std::time::Duration::from_secs(1), ..LogBounds::default() };
    let stream = SourceState::of_stream(Arc::new(test_info()), bounds);
    let info = SourceInfo { id: SourceId(1), name: "b".into(), ..test_info() };
    let other = SourceState::new(Arc::new(info), LogBounds::default(), BindingMode::Fixed(vec![Pattern::all()]));
    let hub = Hub::new(vec![stream, other]);
    let feeds = [0, 1].map(|number| Feed::new(hub.sources()[number].clone()));
    let mut shard = Shard::new(&hub, 2);
    feeds[0].begin(0);
    place(&feeds[0], 0, 0);
    feeds.iter().for_each(|feed| feed.link_up_bound(std::time::Instant::now()));
    let began = feeds[1].standing().end;
    let subscriber = shard.join(CursorForm::Separate);
    // The log lets go of the first.
    place(&feeds[0], 1, LATER_MS);
    place(&feeds[0], 2, 2 * LATER_MS);
    for topic in ["x", "y", "x", "y"] {
        append(&hub, 1, topic);
    }
    while shard.take(SMALL).more {}
    for (number, topic) in [(1, "x"), (2, "y")] {
        let after =
            [("a", at(0)), ("b", began)].map(|(name, offset)| (name.to_owned(), Cursor { epoch: Epoch(1), offset }));
        let (id, wanted) = (SubscriptionId(number), Pattern::parse(topic).unwrap().into());
        let request = SubscribeRequest { id, wanted, after: JointCursor(after.into()), ..resuming(0) };
        let opening = shard.subscribe(subscriber, request).unwrap();
        if Shard::stands(&opening) != Ok(true) {
            // The cursor is genuine; what follows has still to come.
            let asked = hub.sources()[0].archive().unwrap().next(|| 0..=u64::MAX).now_or_never().unwrap();
            asked.answer(Fetched::Genuine(Stretch::default()));
        }
        shard.activate(subscriber, id);
    }
    let mut came = Vec::new();
    loop {
        let replay = shard.replay(subscriber, SMALL, std::time::Instant::now());
        came.extend(replay.publications().map(|one| (one.source.id.0, one.draft.topic.to_string())));
        if !replay.progressed {
            break;
        }
    }
    let of_other: Vec<&str> = came.iter().filter(|(source, _)| *source == 1).map(|(_, topic)| topic.as_str()).collect();
    assert_eq!(of_other, ["x", "x", "y", "y"]);
}
