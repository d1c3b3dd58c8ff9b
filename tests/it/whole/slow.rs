//! Clients that stop reading for longer than two heartbeats while others listen on: they go on from the log, by the flow
//! that they asked for, on the same connection.

use std::time::Duration;

use serde_json::{Value, json};

use super::Broker;
use super::client::{Client, EventStream, Service};
use crate::program::{Program, until};

/// With heartbeats of three seconds.
const STALL: Duration = Duration::from_secs(8);

async fn serve() -> Program {
    let environment = [
        ("PASSERELLE_SERVER__HEARTBEAT", "3s"),
        ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
        ("PASSERELLE_SOURCE__EVENTS__LOG__BYTES_MAX", "1 GiB"),
    ];
    Broker::Embedded.serve(&environment).await
}

/// Publishes large messages on two topics in turn until so many sessions have fallen behind and their stall has lasted, and
/// some more, which supersede others; returns how many. A client that reads gets each of them.
async fn publish_until_behind(service: &Service, program: &Program, well: &mut Client, stalled: u32) -> u64 {
    let filling = "x".repeat(60_000);
    let began = tokio::time::Instant::now();
    let (mut published, mut more) = (0, 8);
    // The kernel's buffers take some megabytes before anybody is behind.
    while more > 0 {
        let fallen = program.metric("passerelle_fell_behind_total").await.unwrap_or_default();
        more -= u32::from(fallen >= f64::from(stalled) && began.elapsed() >= STALL);
        let topic = if published % 2 == 0 { "big.even" } else { "big.odd" };
        service.publish(topic, &json!({ "number": published, "filling": filling }).to_string()).await;
        assert_eq!(well.news().await["data"]["number"], published);
        published += 1;
        assert!(published < 4_000, "nobody falls behind");
        let waiting = program.metric("passerelle_outbox_bytes").await.unwrap_or_default();
        assert!(waiting < 600_000.0, "{waiting} bytes wait for one client");
    }
    published
}

fn number(message: &Value) -> u64 {
    message["data"]["number"].as_u64().unwrap_or_else(|| panic!("no message: {message}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_on_a_socket_gets_everything_once_and_in_order() {
    let program = serve().await;
    let service = Service::connect(&program.amqp).await;
    let (mut well, mut json, mut raw) =
        (Client::json(&program).await, Client::json(&program).await, Client::raw(&program, "pattern=big.%23").await);
    well.subscribe("big.#").await;
    json.subscribe("big.#").await;
    json.subscribe("big.even").await;
    // A raw client is not told when it is subscribed.
    until("all are subscribed", async || program.metric("passerelle_subscriptions").await == Some(4.0)).await;
    let published = publish_until_behind(&service, &program, &mut well, 2).await;
    for expected in 0..published {
        assert_eq!(number(&json.news().await), expected, "each once, though even ones match twice");
        let text: Value = serde_json::from_str(&raw.text().await).unwrap();
        assert_eq!(text["number"], expected);
    }
    service.publish("big.odd", "{\"number\":-1}").await;
    assert_eq!(json.news().await["data"]["number"], -1);
    assert_eq!(raw.text().await, "{\"number\":-1}");
    assert_eq!(program.metric("passerelle_closes_total{reason=\"slow_consumer\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_on_an_event_stream_can_resume_from_each_of_its_ids() {
    let program = serve().await;
    let service = Service::connect(&program.amqp).await;
    let mut well = Client::json(&program).await;
    well.subscribe("big.#").await;
    let mut stream = EventStream::open(&program, "pattern=big.%23&pattern=other", None).await;
    for _ in 0..2 {
        assert_eq!(stream.event().await.event.as_deref(), Some("subscribed"));
    }
    let published = publish_until_behind(&service, &program, &mut well, 1).await;
    let mut halfway = None;
    for expected in 0..published {
        let block = stream.message().await;
        assert_eq!(number(&serde_json::from_str(&block.data).unwrap()), expected);
        if expected == published / 2 {
            halfway = block.id;
        }
    }
    let mut again = EventStream::open(&program, "pattern=big.%23&pattern=other", halfway.as_deref()).await;
    for expected in published / 2 + 1..published {
        assert_eq!(number(&serde_json::from_str(&again.message().await.data).unwrap()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_ends_with_the_newest_of_each_topic_and_drop_oldest_counts() {
    let program = serve().await;
    let service = Service::connect(&program.amqp).await;
    let (mut well, mut latest, mut newest) =
        (Client::json(&program).await, Client::json(&program).await, Client::json(&program).await);
    well.subscribe("big.#").await;
    for (client, flow) in [(&mut latest, "latest"), (&mut newest, "drop-oldest")] {
        let reply = client.ask(json!({ "op": "subscribe", "pattern": "big.#", "on_slow": flow })).await;
        assert_eq!(reply["op"], "subscribed");
    }
    let published = publish_until_behind(&service, &program, &mut well, 2).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&(published - 1)) {
        seen.push(number(&latest.news().await));
    }
    assert!(seen.is_sorted_by(|one, other| one < other), "positions rise");
    assert!(seen.len() < published as usize && seen.contains(&(published - 2)), "the newest of both topics: {seen:?}");
    let (mut received, mut missed) = (0, 0);
    while received + missed < published {
        let object = newest.news().await;
        match object["op"].as_str() {
            Some("gap") => missed += object["missed"].as_u64().expect("a number"),
            _ => {
                assert_eq!(number(&object), received + missed, "nothing is missed without a gap");
                received += 1;
            }
        }
    }
}
