//! Several nodes on one stream: a client moves between them under load, with nothing but the cursor that it has, and gets
//! every message once and in order, without a gap: also where a node was killed, and where it lags and the cursor is from
//! its future.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::client::{Client, EventStream};
use super::lag::{Held, Lag};
use super::streams::Stream;
use crate::program::{Program, until};

const MOVES: usize = 100;

/// One move of so many is made because the node was killed: an odd number, so that both nodes have their turns.
const KILL_EVERY: usize = 19;

/// Messages that a client reads at most before it moves.
const STAY_MAX: u64 = 40;

/// Longer than a node waits for a message that may not be there.
const LATE: Duration = Duration::from_millis(1_500);

/// How long a client listens in vain.
const MOMENT: Duration = Duration::from_millis(20);

/// Between two messages: about four hundred a second.
const PACE: Duration = Duration::from_micros(2_500);

/// So many messages are published at most that the client has not read: what a node was kept from it has to catch up with before
/// it may send anything, and a busy one could go on falling back.
const AHEAD_MAX: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
enum Transport {
    WebSocket,
    EventStream,
}

/// Publishes 0, 1, 2 and so on, not too far ahead of who reads them, until it is told to stop.
struct Load {
    published: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<()>,
}

impl Load {
    fn on(stream: &Arc<Stream>, reader: &Traveller) -> Self {
        let next = reader.next.clone();
        let (published, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (stream, count, is_over) = (stream.clone(), published.clone(), stop.clone());
        let publishing = tokio::spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            while !is_over.load(Ordering::Relaxed) {
                pace.tick().await;
                let number = count.load(Ordering::Relaxed);
                if number >= next.load(Ordering::Relaxed) + AHEAD_MAX {
                    continue;
                }
                stream.publish(number..number + 1).await;
                count.store(number + 1, Ordering::Relaxed);
            }
        });
        Self { published, stop, publishing }
    }

    fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Ends it, and answers how many there were.
    async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.publishing).await.expect("every message was published");
        self.published()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} messages were confirmed", self.published());
        }
    }
}

/// A client's line to one node.
enum Line {
    WebSocket(Box<Client>),
    EventStream(EventStream),
}

/// A client that moves.
struct Traveller {
    pattern: String,
    line: Line,
    /// Of the last message, once there was one.
    cursor: Option<String>,
    /// The message that must come next.
    next: Arc<AtomicU64>,
}

impl Line {
    /// A line that stands, from a cursor on; nothing after it may be missed.
    async fn open(transport: Transport, program: &Program, pattern: &str, after: Option<&str>) -> Self {
        match transport {
            Transport::WebSocket => {
                let mut client = Client::json(program).await;
                let after = after.map_or(json!({}), |after| json!({ "events": after }));
                let resumes = after != json!({});
                let reply = client.ask(json!({ "op": "subscribe", "pattern": pattern, "after": after })).await;
                assert!(reply["op"] == "subscribed" && (!resumes || reply["resumed"] == true), "{reply}");
                Self::WebSocket(Box::new(client))
            }
            Transport::EventStream => {
                let query = format!("pattern={}", pattern.replace('#', "%23"));
                let mut events = EventStream::open(program, &query, after).await;
                let first = events.event().await;
                assert_eq!(first.event.as_deref(), Some("subscribed"), "{first:?}");
                Self::EventStream(events)
            }
        }
    }

    /// The next message's number, and the cursor after it. Nothing else may come but that all is caught up.
    async fn message(&mut self) -> (u64, String) {
        loop {
            match self {
                Self::WebSocket(client) => {
                    let news = client.news().await;
                    match news["op"].as_str() {
                        Some("message") => {
                            return (number(&news), news["cursor"].as_str().expect("a cursor").to_owned());
                        }
                        Some("caught_up") => {}
                        _ => panic!("neither a message nor its absence: {news}"),
                    }
                }
                Self::EventStream(events) => {
                    let block = events.event().await;
                    match block.event.as_deref() {
                        None => {
                            let message = serde_json::from_str(&block.data).expect("JSON");
                            return (number(&message), block.id.expect("an id"));
                        }
                        Some("caught_up" | "position") => {}
                        Some(_) => panic!("neither a message nor its absence: {block:?}"),
                    }
                }
            }
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::EventStream(_) => Transport::EventStream,
        }
    }
}

fn number(message: &Value) -> u64 {
    message["data"].as_u64().unwrap_or_else(|| panic!("no number: {message}"))
}

impl Traveller {
    async fn at(program: &Program, transport: Transport, pattern: String) -> Self {
        let line = Line::open(transport, program, &pattern, None).await;
        Self { pattern, line, cursor: None, next: Arc::default() }
    }

    fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Reads all messages before this one.
    async fn read_until(&mut self, number: u64) {
        while self.next() < number {
            let (came, cursor) = self.line.message().await;
            assert_eq!(came, self.next(), "each once and in order, after {:?}", self.cursor);
            self.next.store(came + 1, Ordering::Relaxed);
            self.cursor = Some(cursor);
        }
    }

    /// Makes sure that no message comes within a moment; the line is of no use afterwards.
    async fn hear_nothing(&mut self) {
        let heard = tokio::time::timeout(MOMENT, self.line.message()).await;
        assert!(heard.is_err(), "the node cannot know {heard:?}, or {} is not what comes next", self.next());
    }

    /// Leaves without a word, and goes on somewhere else.
    async fn go_to(&mut self, program: &Program) {
        self.line = Line::open(self.line.transport(), program, &self.pattern, self.cursor.as_deref()).await;
    }
}

/// Moves between two nodes and back, under load; now and then because the node is killed.
async fn travel(transport: Transport) {
    let seed = fastrand::u64(..);
    eprintln!("{transport:?}, seed {seed}");
    let mut random = Rng::with_seed(seed);
    let stream = Arc::new(Stream::new().await);
    let mut nodes = [stream.serve(&[]).await, stream.serve(&[]).await];
    let mut traveller = Traveller::at(&nodes[0], transport, stream.topic("#")).await;
    let load = Load::on(&stream, &traveller);
    traveller.read_until(1).await;
    for count in 1..=MOVES {
        let (from, to) = ((count + 1) % 2, count % 2);
        traveller.read_until(traveller.next() + random.u64(..STAY_MAX)).await;
        let dies = count % KILL_EVERY == 0;
        if dies {
            nodes[from].kill();
        }
        traveller.go_to(&nodes[to]).await;
        if dies {
            nodes[from] = stream.serve(&[]).await;
        }
    }
    traveller.read_until(load.end().await).await;
}

/// The same where the second node lags behind whenever the client comes to it.
async fn travel_ahead(transport: Transport) {
    let seed = fastrand::u64(..);
    eprintln!("{transport:?}, seed {seed}");
    let mut random = Rng::with_seed(seed);
    let stream = Arc::new(Stream::new().await);
    let lag = Lag::new().await;
    let (ahead, mut lagging) = (stream.serve(&[]).await, stream.serve_over(&lag.url(), &[]).await);
    let mut traveller = Traveller::at(&ahead, transport, stream.topic("#")).await;
    let load = Load::on(&stream, &traveller);
    for count in 1..=MOVES / 2 {
        lag.hold(Held::Live);
        // What is published from here on the lagging node does not know.
        traveller.read_until(load.published() + 1 + random.u64(..STAY_MAX)).await;
        traveller.go_to(&lagging).await;
        if random.bool() {
            lag.release();
            traveller.read_until(traveller.next() + random.u64(..STAY_MAX)).await;
        } else {
            // It leaves again before the node has come to where it is.
            traveller.hear_nothing().await;
        }
        let dies = count % (KILL_EVERY / 2) == 0;
        if dies {
            lagging.kill();
        }
        traveller.go_to(&ahead).await;
        lag.release();
        if dies {
            lagging = stream.serve_over(&lag.url(), &[]).await;
        }
    }
    traveller.read_until(load.end().await).await;
}

/// A broker with much to do sends late: that is no proof that a cursor from a node's future is false.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_a_nodes_future_is_believed_when_the_broker_takes_its_time() {
    let stream = Arc::new(Stream::new().await);
    let lag = Lag::new().await;
    let (ahead, lagging) = (stream.serve(&[]).await, stream.serve_over(&lag.url(), &[]).await);
    let mut traveller = Traveller::at(&ahead, Transport::WebSocket, stream.topic("#")).await;
    stream.publish(0..1).await;
    let received = "passerelle_source_messages_total{source=\"events\"}";
    until("the node knows the first message", async || lagging.metric(received).await == Some(1.0)).await;
    lag.hold(Held::Live);
    stream.publish(1..10).await;
    traveller.read_until(10).await;
    // What is live passes only when the client has been answered: until then the cursor is from the node's future.
    let late = async {
        lag.hold(Held::LiveAndOthersMessages);
        tokio::time::sleep(LATE).await;
        lag.hold(Held::Live);
    };
    tokio::join!(traveller.go_to(&lagging), late);
    lag.release();
    stream.publish(10..20).await;
    traveller.read_until(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_moves_between_nodes_without_loss_repeat_or_gap() {
    travel(Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_moves_between_nodes_without_loss_repeat_or_gap() {
    travel(Transport::EventStream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_with_a_cursor_from_a_nodes_future_gets_nothing_twice_and_no_gap() {
    travel_ahead(Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_with_an_id_from_a_nodes_future_gets_nothing_twice_and_no_gap() {
    travel_ahead(Transport::EventStream).await;
}
