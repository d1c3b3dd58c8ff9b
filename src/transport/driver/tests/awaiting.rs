//! Who waits for a page of a stream costs nothing until it has come.

use futures_util::FutureExt;

use super::*;
use crate::hub::archive::{Fetched, Stretch};
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::publication::Publication;
use crate::model::stream;

/// A stream whose log has let go of everything is read by many, and the page that they want is fetched. Meanwhile nobody asks them
/// again, whatever comes of the stream or of another source; then all of them are sent it, but for one that has left.
#[test]
fn who_waits_for_a_page_is_asked_when_it_has_come_and_not_before() {
    let at = |offset: u64| stream::position(offset, offset + 5).unwrap();
    let draft = |topic: &str, received_at| Draft { received_at, ..draft(topic, PAYLOAD_BYTES) };
    let bounds = LogBounds { age_max: Duration::from_secs(1), ..LogBounds::default() };
    let stream = SourceState::of_stream(Arc::new(SourceInfo::new(SourceId(0), "a", Epoch(1))), bounds);
    let other = source(1, "b", BindingMode::Fixed(vec![Pattern::all()]));
    let (feed, others) = (Feed::new(stream.clone()), Feed::new(other.clone()));
    feed.begin(0);
    others.link_up_bound(Instant::now());
    let mut bench = Bench::of(vec![stream.clone(), other]);
    bench.feed.link_up_bound(Instant::now());
    feed.append_placed((0..3).map(|offset| (at(offset), draft("news", 0))).collect(), 0);
    bench.serve();
    let cursor = ("a".to_owned(), Cursor { epoch: Epoch(1), offset: at(0) });
    for _ in 0..READERS {
        let (reader, socket) = bench.connect(None);
        let after = JointCursor(vec![cursor.clone()]);
        let resume = Subscribe { after, ..Subscribe::to(Pattern::parse("news").unwrap()) };
        let commands = vec![Command::Subscribe(resume)];
        let admission = Admission { commands, ..bench.admission(&json::SUBPROTOCOL, socket) };
        bench.driver.admit(admission);
        bench.readers.push(reader);
    }
    // Before they are served the log lets go of what they want.
    feed.append_placed(vec![(at(3), draft("weather", 60_000))], 60_000);
    bench.serve();
    bench.readers.iter_mut().for_each(|reader| assert!(text(reader).contains("\"subscribed\"")));
    for offset in 4..10 {
        match offset % 2 {
            0 => others.append(vec![draft("weather", 60_000)], 60_000),
            _ => feed.append_placed(vec![(at(offset), draft("weather", 60_000))], 60_000),
        }
        bench.driver.turn();
        assert!(!bench.driver.replay_some() && bench.driver.replaying.is_empty(), "nobody is to be asked");
        assert!(!bench.driver.awaiting.is_empty());
    }
    drop(bench.readers.pop());
    bench.serve();
    let fetch = stream.archive().unwrap().next(|| 0..=u64::MAX).now_or_never().unwrap();
    let publication =
        |offset| Arc::new(Publication { source: feed.info().clone(), offset: at(offset), draft: draft("news", 0) });
    fetch.answer(Fetched::Genuine(Stretch { publications: vec![publication(1), publication(2)], until: at(3) }));
    bench.serve();
    bench.read(2);
    bench.readers.clear();
    bench.serve_until("all have gone", |driver| driver.open == 0);
    assert!(bench.driver.awaiting.is_empty(), "who is gone waits for nothing");
}
