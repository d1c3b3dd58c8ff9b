//! Subscriptions that want so many messages a second at most, on every kind of client. What decides is what came and how
//! often; where a moment is looked at, a slower machine only makes the bound wider.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Broker;
use super::client::{Client, EventStream, Service};

fn number(message: &Value) -> u64 {
    message["data"].as_u64().unwrap_or_else(|| panic!("no message: {message}"))
}

/// The most that a rate allows in a time that was measured from outside.
fn allowed(rate: u64, since: Instant) -> u64 {
    rate.div_ceil(10) + (since.elapsed().as_millis() as u64 * rate).div_ceil(1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_is_sent_at_its_rate_and_ends_with_the_last_value_of_each_topic() {
    const MESSAGES: u64 = 1_000;
    let program = Broker::Embedded.serve(&[]).await;
    let (mut well, mut paced) = (Client::json(&program).await, Client::json(&program).await);
    well.subscribe("tick.#").await;
    let began = Instant::now();
    let subscribe = json!({ "op": "subscribe", "pattern": "tick.#", "max_rate": 5, "on_slow": "latest" });
    assert_eq!(paced.ask(subscribe).await["op"], "subscribed");
    let service = Service::connect(&program.amqp).await;
    for update in 0..MESSAGES {
        service.publish(&format!("tick.{}", update % 10), &update.to_string()).await;
        assert_eq!(number(&well.news().await), update);
    }
    let published = began.elapsed();
    let mut owed: BTreeSet<u64> = (MESSAGES - 10..MESSAGES).collect();
    let mut seen = Vec::new();
    while !owed.is_empty() {
        let update = number(&paced.news().await);
        owed.remove(&update);
        seen.push(update);
        assert!(seen.len() as u64 <= allowed(5, began), "{} within {:?}", seen.len(), began.elapsed());
    }
    println!("{MESSAGES} published in {published:?}, {} sent within {:?}", seen.len(), began.elapsed());
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    assert!(seen.len() < MESSAGES as usize / 2, "most were superseded: {}", seen.len());
    assert!(paced.is_quiet_for(Duration::from_millis(400)).await, "nothing is left");
    let asked = Instant::now();
    service.publish("tick.0", "1000").await;
    assert_eq!(number(&paced.news().await), 1_000);
    println!("a lone message took {:?}", asked.elapsed());
    assert_eq!(program.metric("passerelle_gaps_total{reason=\"slow\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn catch_up_is_sent_everything_on_every_kind_of_client_and_goes_on_after_a_lost_line() {
    const MESSAGES: u64 = 60;
    const RATE: u64 = 40;
    let program = Broker::Embedded.serve(&[]).await;
    let subscribe = json!({ "op": "subscribe", "pattern": "all.#", "max_rate": RATE });
    let began = Instant::now();
    let mut object = Client::json(&program).await;
    assert_eq!(object.ask(subscribe.clone()).await["op"], "subscribed");
    let query = format!("pattern=all.%23&max_rate={RATE}");
    let mut raw = Client::raw(&program, &query).await;
    let mut stream = EventStream::open(&program, &query, None).await;
    assert_eq!(stream.event().await.event.as_deref(), Some("subscribed"));
    crate::program::until("the raw client is subscribed", async || {
        program.metric("passerelle_subscriptions").await == Some(3.0)
    })
    .await;
    let service = Service::connect(&program.amqp).await;
    for update in 0..MESSAGES {
        service.publish(&format!("all.{}", update % 3), &update.to_string()).await;
    }
    let (mut cursor, mut id) = (Value::Null, None);
    for update in 0..MESSAGES / 2 {
        let message = object.news().await;
        assert_eq!(number(&message), update);
        cursor = message["cursor"].clone();
        let block = stream.message().await;
        assert!(block.data.contains(&format!("\"data\":{update},")), "{block:?}");
        id = block.id;
    }
    assert!(MESSAGES / 2 <= allowed(RATE, began), "within {:?}", began.elapsed());
    for update in 0..MESSAGES {
        assert_eq!(raw.text().await, update.to_string());
    }
    drop((object, stream));
    let mut again = Client::json(&program).await;
    let mut subscribe = subscribe;
    subscribe["after"] = json!({ "events": cursor });
    let began = Instant::now();
    let reply = again.ask(subscribe).await;
    assert_eq!((&reply["op"], &reply["resumed"]), (&json!("subscribed"), &json!(true)), "{reply}");
    let mut stream = EventStream::open(&program, &query, id.as_deref()).await;
    for update in MESSAGES / 2..MESSAGES {
        let message = again.news().await;
        assert_eq!((number(&message), &message["replay"]), (update, &json!(true)));
        let block = stream.message().await;
        assert!(block.data.contains(&format!("\"data\":{update},")), "{block:?}");
    }
    assert!(MESSAGES / 2 <= allowed(RATE, began), "within {:?}", began.elapsed());
    assert_eq!(again.news().await["op"], "caught_up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_gets_each_message_once_and_what_has_no_rate_does_not_wait() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut client = Client::json(&program).await;
    client.subscribe("one.#").await;
    let subscribe = json!({ "op": "subscribe", "pattern": "one.slow", "max_rate": 2 });
    assert_eq!(client.ask(subscribe).await["op"], "subscribed");
    let service = Service::connect(&program.amqp).await;
    for update in 0..4 {
        service.publish("one.slow", &update.to_string()).await;
    }
    service.publish("one.quick", "100").await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(number(&client.news().await));
    }
    println!("{seen:?}");
    let quick = seen.iter().position(|update| *update == 100).unwrap();
    assert!(quick < 4, "it did not wait for the last of the slow ones: {seen:?}");
    seen.remove(quick);
    assert_eq!(seen, [0, 1, 2, 3]);
    assert!(client.is_quiet_for(Duration::from_millis(700)).await, "nothing comes twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_rate_is_refused_in_words() {
    let program = Broker::Embedded.serve(&[]).await;
    let answer = crate::program::http_get(&program.public, "/sse?pattern=a&max_rate=0").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("max_rate is a whole number from 1 to 1000"),
        "{answer}"
    );
}
