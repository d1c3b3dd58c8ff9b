//! Ten thousand clients come back after a restart, one after the other: the stream is read, searched and encoded for them as for one.

use serde_json::{Value, json};

use super::{Light, join};
use crate::program::Program;
use crate::whole::client::Client;
use crate::whole::streams::Stream;

const CLIENTS: usize = 10_000;

/// Threads that own connections: each searches for its own clients.
const SHARDS: f64 = 2.0;

/// Cursors that the clients have, of as many messages: not all had read equally far.
const CURSORS: usize = 10;

/// Messages before the restart.
const MESSAGES: usize = 50;

/// Messages after it.
const LIVE: usize = 2;

/// What coming back has cost a program since it started.
#[derive(Debug)]
struct Work {
    /// Messages looked at in logs and pages.
    reads: f64,
    /// Pages fetched from the stream.
    fetches: f64,
    encodes: f64,
}

impl Work {
    async fn of(program: &Program) -> Self {
        let counted = async |name| program.metric(name).await.expect("a count");
        Self {
            reads: counted("passerelle_log_reads_total").await,
            fetches: counted("passerelle_stream_fetches_total{source=\"events\"}").await,
            encodes: counted("passerelle_encodes_total{protocol=\"passerelle.v1.json\"}").await,
        }
    }
}

/// Publishes, and answers the cursors of the first messages, which clients of a program got that is no more.
async fn cursors(stream: &Stream) -> Vec<Value> {
    let program = serve(stream).await;
    let mut client = Client::json(&program).await;
    client.subscribe(&stream.topic("#")).await;
    stream.publish(0..MESSAGES as u64).await;
    let mut cursors = Vec::new();
    // When this program has all of them, another one finds all of them in the stream.
    for _ in 0..MESSAGES {
        cursors.push(client.news().await["cursor"].clone());
    }
    cursors.truncate(CURSORS);
    cursors
}

async fn serve(stream: &Stream) -> Program {
    stream.serve(&[("PASSERELLE_SERVER__SHARDS", &SHARDS.to_string())]).await
}

/// So many clients resume, each after one of these cursors, and get what each of them has missed of so many messages, and
/// then what is live, once and in order.
async fn resume(stream: &Stream, cursors: &[Value], count: usize, messages: usize) -> Work {
    let program = serve(stream).await;
    let mut crowd = Vec::new();
    join(&mut crowd, &program, count).await;
    for (client, cursor) in crowd.iter_mut().zip(cursors.iter().cycle()) {
        let (pattern, after) = (stream.topic("#"), json!({ "events": cursor }));
        client.command(&json!({ "op": "subscribe", "id": 1, "pattern": pattern, "after": after })).await;
    }
    let expected: Vec<String> = (0..messages + LIVE).map(|number| format!("\"data\":{number},")).collect();
    for (client, last) in crowd.iter_mut().zip((0..cursors.len()).cycle()) {
        client.subscribed().await;
        expect(client, &expected[last + 1..messages]).await;
        let text = client.text().await;
        assert!(text.contains("\"op\":\"caught_up\""), "{text}");
    }
    // A shard says what it has encoded when it has written: of what came before the last message it has said all.
    for number in messages..messages + LIVE {
        stream.publish(number as u64..number as u64 + 1).await;
        for client in &mut crowd {
            expect(client, &expected[number..=number]).await;
        }
    }
    Work::of(&program).await
}

async fn expect(client: &mut Light, expected: &[String]) {
    for data in expected {
        let text = client.text().await;
        assert!(text.contains(data), "{text} instead of {data}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_who_resume_after_a_restart_cost_the_log_what_one_costs() {
    let stream = Stream::new().await;
    let cursors = cursors(&stream).await;
    let one = resume(&stream, &cursors, 1, MESSAGES).await;
    let all = resume(&stream, &cursors, CLIENTS, MESSAGES + LIVE).await;
    println!("one: {one:?}, all: {all:?}");
    // Who has the oldest cursor has missed all but the first message.
    let missed = (MESSAGES - 1) as f64;
    assert!(one.reads == missed && one.fetches <= 1.0, "{one:?}");
    let live = LIVE as f64;
    assert!(one.encodes > missed && one.encodes <= missed + live, "{one:?}");
    let missed = missed + live;
    assert!(all.reads <= SHARDS * missed, "{all:?}, and one alone {one:?}");
    assert!(all.encodes <= SHARDS * (missed + live), "{all:?}, and one alone {one:?}");
    // Whoever comes first decides where a page begins; who was further back needs another.
    assert!(all.fetches <= one.fetches + CURSORS as f64, "{all:?}, and one alone {one:?}");
}
