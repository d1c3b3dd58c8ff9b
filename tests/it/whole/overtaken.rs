//! A stream's retention that overtakes those who read: RabbitMQ goes on with what is left and says nothing, but clients are
//! told what they missed.

use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use serde_json::{Value, json};

use super::client::Client;
use super::streams::Stream;
use crate::program::Program;

/// More than the broker keeps of what it has not sent ahead, in messages of [`FILLING`].
const OVERTAKING: u64 = 3_000;

const FILLING: usize = 1_000;

/// Between two messages that are published beside.
const PAUSE: Duration = Duration::from_millis(200);

/// Retention of eight segments, and a log that holds less.
const SMALL: [(&str, &str); 4] = [
    ("PASSERELLE_SOURCE__EVENTS__RETENTION_BYTES", "512 KiB"),
    ("PASSERELLE_SOURCE__EVENTS__LOG__MESSAGES_MAX", "1024"),
    ("PASSERELLE_SOURCE__EVENTS__LOG__BYTES_MAX", "1 MiB"),
    ("PASSERELLE_AMQP__PREFETCH", "50"),
];

async fn publish(stream: &Stream, numbers: std::ops::Range<u64>) {
    let filling = "x".repeat(FILLING);
    for number in numbers {
        let body = json!({ "number": number, "filling": filling }).to_string();
        stream.service.publish(&stream.topic("a"), &body).await;
    }
    // Whatever was to be dropped is dropped then.
    stream.service.channel.wait_for_confirms().await.expect("all are confirmed");
}

/// Lets a program stand still until the stream has dropped what it has not sent it.
async fn overtake(program: &Program, stream: &Stream, numbers: std::ops::Range<u64>) {
    program.freeze();
    publish(stream, numbers).await;
    program.thaw();
}

/// RabbitMQ 3.10 may send nothing of a stream that it has cut until something else is published.
async fn publish_on(stream: &Stream, from: u64) {
    for number in from.. {
        publish(stream, number..number + 1).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a client has got.
#[derive(Default)]
struct Got {
    last: Option<u64>,
    cursor: Value,
    gaps: usize,
}

impl Got {
    /// Reads up to a number: what is missing is told at its place, and nothing else is.
    async fn read(&mut self, client: &mut Client, to: u64) {
        let mut is_gap_told = false;
        while self.last < Some(to) {
            let news = client.news().await;
            match news["op"].as_str() {
                Some("gap") => {
                    assert_eq!(news["reason"], "expired", "{news}");
                    is_gap_told = true;
                    self.gaps += 1;
                }
                Some("caught_up") => {}
                _ => {
                    let number = news["data"]["number"].as_u64().unwrap_or_else(|| panic!("no message: {news}"));
                    let is_next = self.last.is_none_or(|last| number == last + 1);
                    assert_ne!(
                        is_next, is_gap_told,
                        "message {number} ({news}) after {:?} ({})",
                        self.last, self.cursor
                    );
                    (self.last, self.cursor, is_gap_told) = (Some(number), news["cursor"].clone(), false);
                }
            }
        }
    }
}

async fn resume(client: &mut Client, stream: &Stream, after: &Value) -> Value {
    let after = json!({ "events": after });
    client.ask(json!({ "op": "subscribe", "pattern": stream.topic("#"), "after": after })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_live_is_told_of_what_was_dropped_before_it_came_and_so_is_who_resumes_there() {
    let stream = Stream::new().await;
    stream.service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let program = stream.serve(&SMALL).await;
    let mut live = Client::json(&program).await;
    live.subscribe(&stream.topic("#")).await;
    let mut got = Got::default();
    publish(&stream, 0..100).await;
    got.read(&mut live, 99).await;
    let before = got.cursor.clone();
    let end = 100 + OVERTAKING;
    overtake(&program, &stream, 100..end).await;
    tokio::select! {
        () = publish_on(&stream, end) => {}
        () = got.read(&mut live, end) => {}
    }
    assert!(got.gaps > 0, "nothing was dropped: this test shows too little");
    let mut client = Client::json(&program).await;
    let subscribed = resume(&mut client, &stream, &before).await;
    assert_eq!(subscribed["resumed"], false, "{subscribed}");
    // What is missing anywhere behind its cursor it is told first.
    assert_eq!(client.news().await["reason"], "expired");
    while client.news().await["data"]["number"].as_u64() < Some(end) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_told_of_what_was_dropped_between_two_of_its_messages() {
    const HELD: u64 = 6_000;
    let stream = Stream::new().await;
    stream.service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let larger = [SMALL[1], SMALL[2], ("PASSERELLE_SOURCE__EVENTS__RETENTION_BYTES", "8 MiB")];
    let program = stream.serve(&larger).await;
    let mut client = Client::json(&program).await;
    client.subscribe(&stream.topic("#")).await;
    publish(&stream, 0..HELD).await;
    let mut got = Got::default();
    got.read(&mut client, 0).await;
    let first = got.cursor;
    got = Got { last: Some(0), ..Got::default() };
    let mut client = Client::json(&program).await;
    assert_eq!(resume(&mut client, &stream, &first).await["resumed"], true);
    // Its pages are fetched at this moment.
    got.read(&mut client, 1).await;
    overtake(&program, &stream, HELD..3 * HELD).await;
    tokio::select! {
        () = publish_on(&stream, 3 * HELD) => {}
        () = got.read(&mut client, 3 * HELD) => {}
    }
    let mut client = Client::json(&program).await;
    resume(&mut client, &stream, &first).await;
    Got { last: Some(0), ..Got::default() }.read(&mut client, 3 * HELD).await;
}
