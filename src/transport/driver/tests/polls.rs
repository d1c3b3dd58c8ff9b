//! What a poll asks for first comes whole, because no cursor of its answer could bring the rest.

use serde_json::Value;

use super::*;
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::stream;
use crate::protocol::poll;

/// With so many topics, each with one message of so many bytes, and polls of at most ten messages or 64 KiB.
fn bench(topics: usize, payload_bytes: usize) -> Bench {
    let mut settings = Settings::default();
    settings.poll.messages_max = 10;
    settings.poll.bytes_max = 64 << 10;
    let bench = Bench::with(settings);
    bench.feed.link_up_bound(Instant::now());
    let drafts = (0..topics).map(|number| draft(&format!("list.{number:02}"), payload_bytes));
    bench.feed.append(drafts.collect(), 0);
    bench
}

/// The answer to a poll that does not wait.
fn poll(bench: &mut Bench, after: &JointCursor) -> Value {
    let mut answered = ask(bench, after, Duration::ZERO);
    body(&mut answered)
}

/// Polls for the last of each topic of a list, or for what comes after a cursor.
fn ask(bench: &mut Bench, after: &JointCursor, timeout: Duration) -> oneshot::Receiver<Answered> {
    let (answer, answered) = oneshot::channel();
    let pattern = Pattern::parse("list.#").unwrap();
    let subscribe = Subscribe { last: 1, after: after.clone(), ..Subscribe::to(pattern) };
    let admission = Admission {
        framing: Framing::Collected,
        commands: vec![Command::Subscribe(subscribe)],
        form: CursorForm::Joint,
        poll: Some(PollRequest { after: after.clone(), timeout, answer }),
        ..bench.admission(&poll::SUBPROTOCOL, Socket::Absent)
    };
    bench.driver.admit(admission);
    bench.serve();
    answered
}

fn body(answered: &mut oneshot::Receiver<Answered>) -> Value {
    match answered.try_recv() {
        Ok(Answered::Body(body)) => serde_json::from_slice(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn cursor(answer: &Value) -> JointCursor {
    answer["cursor"].as_str().unwrap().parse().unwrap()
}

fn topics(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|message| message["topic"].as_str().unwrap()).collect()
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("list.{number:02}")).collect()
}

#[test]
fn the_last_of_all_topics_come_in_one_answer_however_large() {
    let mut bench = bench(10, 32 << 10);
    let first = poll(&mut bench, &JointCursor::default());
    assert_eq!(topics(&first), expected(0..10));
    bench.feed.append(vec![draft("list.new", 1)], 0);
    bench.serve();
    let next = poll(&mut bench, &cursor(&first));
    assert_eq!((topics(&next), &next["gaps"]), (vec!["list.new"], &Value::Null));
}

#[test]
fn of_more_topics_than_an_answer_holds_the_newest_come() {
    let mut bench = bench(25, 10);
    assert_eq!(topics(&poll(&mut bench, &JointCursor::default())), expected(15..25));
}

#[test]
fn what_follows_a_cursor_comes_answer_by_answer() {
    let mut bench = bench(0, 0);
    let mut cursor_before = cursor(&poll(&mut bench, &JointCursor::default()));
    bench.feed.append((0..25).map(|number| draft(&format!("list.{number:02}"), 10)).collect(), 0);
    bench.serve();
    for numbers in [0..10, 10..20, 20..25] {
        let answer = poll(&mut bench, &cursor_before);
        assert_eq!(topics(&answer), expected(numbers));
        cursor_before = cursor(&answer);
    }
}

/// A poll of a stream waits, and a turn brings more than one answer may hold: the next answer begins with what follows.
#[test]
fn what_a_full_answer_held_does_not_come_again_with_the_next() {
    let info = SourceInfo::new(SourceId(0), "a", Epoch(1));
    let mut settings = Settings::default();
    settings.poll.messages_max = 2;
    let mut bench = Bench::made_of(settings, vec![SourceState::of_stream(Arc::new(info), LogBounds::default())]);
    bench.feed.link_up_bound(Instant::now());
    bench.feed.begin(0);
    let placed = |offset: u64| {
        let draft = Draft { payload: offset.to_string().into(), ..draft("list.x", 0) };
        (stream::position(offset, offset + 5).unwrap(), draft)
    };
    bench.feed.append_placed(vec![placed(0)], 0);
    bench.serve();
    let mut after = JointCursor(vec![("a".into(), Cursor { epoch: Epoch(1), offset: placed(0).0 })]);
    let mut waiting = ask(&mut bench, &after, PATIENCE);
    bench.feed.append_placed((1..6).map(placed).collect(), 0);
    let mut seen = Vec::new();
    while seen.len() < 5 {
        bench.serve();
        let answer = body(&mut waiting);
        seen.extend(answer["messages"].as_array().unwrap().iter().map(|message| message["data"].as_u64().unwrap()));
        after = cursor(&answer);
        waiting = ask(&mut bench, &after, PATIENCE);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}
