//! What a poll asks for first comes whole, because no cursor of its answer could bring the rest.

use serde_json::Value;

use super::*;
use crate::model::cursor::JointCursor;
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
    let (answer, mut answered) = oneshot::channel();
    let pattern = Pattern::parse("list.#").unwrap();
    let subscribe = Subscribe { last: 1, after: after.clone(), ..Subscribe::to(pattern) };
    let admission = Admission {
        framing: Framing::Collected,
        commands: vec![Command::Subscribe(subscribe)],
        form: CursorForm::Joint,
        poll: Some(PollRequest { after: after.clone(), timeout: Duration::ZERO, answer }),
        ..bench.admission(&poll::SUBPROTOCOL, Socket::Absent)
    };
    bench.driver.admit(admission);
    bench.serve();
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
