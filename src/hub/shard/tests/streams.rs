//! Stories of streams, found by the history checker on a real broker (`tests/it/history/real`).

use super::*;
use crate::model::stream;

/// Longer than a log without bounds of its own keeps anything.
const LATER_MS: u64 = 10_000;

/// A shard that reads a stream with so many messages, and the feed of that.
fn streamed(messages: u64) -> (Shard, Feed, Hub) {
    let bounds = LogBounds { age_max: std::time::Duration::from_secs(1), ..LogBounds::default() };
    let hub = Hub::new(vec![SourceState::of_stream(Arc::new(test_info()), bounds)]);
    let (shard, feed) = (Shard::new(&hub, 2), Feed::new(hub.sources()[0].clone()));
    feed.begin_empty();
    (0..messages).for_each(|offset| place(&feed, offset, 0));
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
    feed.remade();
    feed.begin_empty();
    let activated = shard.activate(subscriber, SubscriptionId(1));
    let reasons: Vec<GapReason> = activated[0].gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!((activated[0].resumed, reasons), (false, vec![GapReason::UnknownCursor]));
}
