//! Answers, results of calls and messages wait for the same socket, but only answers make a client too slow.

use tokio::task::LocalSet;

use super::*;
use crate::hub::upstream::CallJob;
use crate::model::outgoing::{CallOutcome, Reply};
use crate::model::value::Headers;

/// Much more than answers may have.
const LARGE_BYTES: usize = 8 << 20;

/// A client that reads as it comes.
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

impl Reader {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Reads what has come, and has the driver send more.
    fn read_on(&mut self, bench: &mut Bench) {
        let mut chunk = [0; 64 << 10];
        while let Ok(count) = self.stream.read(&mut chunk) {
            assert!(count > 0, "the server hung up");
            self.read.extend_from_slice(&chunk[..count]);
        }
        bench.serve();
    }

    /// Reads on until the last that came is this.
    fn read_until(&mut self, bench: &mut Bench, last: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read.ends_with(last.as_bytes()) {
            assert!(Instant::now() < deadline, "it does not come");
            self.read_on(bench);
        }
    }
}

/// A client with a large message on its way to it, which waits.
pub(super) fn loading() -> (Bench, Reader) {
    let mut bench = Bench::new();
    let client = bench.join(Some(STALLED_BUFFER_BYTES));
    bench.feed.append(vec![draft("large", LARGE_BYTES)], 0);
    bench.serve();
    let answers_max = bench.driver.outbox_bounds.bytes_max;
    assert!(bench.connection().outbox.bytes() > answers_max);
    (bench, Reader::new(client))
}

#[test]
fn who_loads_a_large_message_is_answered_meanwhile() {
    let (mut bench, mut client) = loading();
    for _ in 0..9 {
        say(&mut client.stream, 1, br#"{"op":"ping"}"#);
    }
    say(&mut client.stream, 1, br#"{"op":"ping","id":10}"#);
    client.read_until(&mut bench, r#"{"op":"pong","id":10}"#);
    assert!(bench.connection().is_open() && client.read.len() > LARGE_BYTES);
}

/// It comes to our pings only after the message: what the socket takes is the sign of its life.
#[test]
fn who_loads_for_longer_than_two_heartbeats_is_there() {
    let (mut bench, mut client) = loading();
    let mut now = Instant::now();
    for _ in 0..5 {
        let before = bench.connection().outbox.bytes();
        let deadline = Instant::now() + PATIENCE;
        while bench.connection().outbox.bytes() > before - (256 << 10) {
            assert!(Instant::now() < deadline, "it takes nothing");
            client.read_on(&mut bench);
        }
        now += HEARTBEAT;
        bench.driver.rounds(now);
        assert!(bench.connection().is_open() && bench.connection().silent == 0);
    }
    say(&mut client.stream, 1, br#"{"op":"ping","id":1}"#);
    client.read_until(&mut bench, r#"{"op":"pong","id":1}"#);
}

/// As many as may be in flight, and together much more than answers may have.
const CALLS: usize = 32;
const RESULT_BYTES: usize = 200_000;

/// A client whose socket takes little, and that has called so often for a large result: all are there.
async fn answered() -> (Bench, Reader) {
    let mut bench = Bench::new();
    let mut client = Reader::new(bench.join(Some(STALLED_BUFFER_BYTES)));
    for id in 1..=CALLS {
        say(&mut client.stream, 1, format!(r#"{{"op":"call","id":{id},"topic":"a","data":0}}"#).as_bytes());
    }
    let mut jobs: Vec<CallJob> = Vec::new();
    let take = |bench: &mut Bench| {
        jobs.extend(std::iter::from_fn(|| bench.jobs.calls.try_recv().ok()));
        jobs.len() == CALLS
    };
    bench.serve_jobs_until("it calls", take).await;
    for job in jobs {
        let payload = vec![b'x'; RESULT_BYTES].into();
        let reply = Reply { payload, content_type: None, headers: Headers::default() };
        job.outcome.send(CallOutcome::Replied(reply)).unwrap();
    }
    let has_all = |bench: &mut Bench| bench.connection().outbox.result_bytes() > RESULT_BYTES * (CALLS - 2);
    bench.serve_jobs_until("the results wait", has_all).await;
    (bench, client)
}

#[tokio::test]
async fn who_reads_the_results_of_all_its_calls_gets_them_and_is_heard_after_that() {
    let test = async {
        let (mut bench, mut client) = answered().await;
        say(&mut client.stream, 1, br#"{"op":"ping","id":0}"#);
        bench.serve_jobs_until("it is held up", |bench| bench.connection().unread).await;
        client.read_until(&mut bench, r#"{"op":"pong","id":0}"#);
        assert!(bench.connection().is_open() && client.read.len() > CALLS * RESULT_BYTES);
    };
    LocalSet::new().run_until(test).await;
}

/// What waits for it is bounded by what may be in flight, however often it calls.
#[tokio::test]
async fn who_reads_no_results_calls_no_more() {
    let test = async {
        let (mut bench, mut client) = answered().await;
        let waiting = bench.connection().outbox.result_bytes();
        say(&mut client.stream, 1, br#"{"op":"call","id":0,"topic":"a","data":0}"#);
        bench.serve_jobs_until("it is held up", |bench| bench.connection().unread).await;
        bench.serve_jobs().await;
        assert!(bench.jobs.calls.try_recv().is_err() && bench.connection().outbox.result_bytes() == waiting);
    };
    LocalSet::new().run_until(test).await;
}
