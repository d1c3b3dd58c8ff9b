//! Filters: of what a pattern matches only messages with certain headers, on every way down.

use std::process::Command;

use lapin::types::{AMQPValue, ByteArray, FieldTable, LongString};
use serde_json::{Value, json};

use super::client::{Client, EventStream, Service};
use super::{Broker, word};
use crate::clients::script::Script;
use crate::program::{Program, request};

/// Headers of every type that is shown as one value.
fn of_every_type() -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("text", AMQPValue::LongString("e\u{fb} \"#*.".into())),
        ("no text", AMQPValue::LongString(LongString::from(vec![255, 1]))),
        ("truth", AMQPValue::Boolean(false)),
        ("tiny", AMQPValue::ShortShortInt(-7)),
        ("small", AMQPValue::LongInt(70_000)),
        ("large", AMQPValue::LongLongInt(-9_007_199_254_740_992)),
        ("larger", AMQPValue::LongLongInt(9_007_199_254_740_993)),
        ("real", AMQPValue::Double(0.1 + 0.2)),
        ("when", AMQPValue::Timestamp(1_765_000_000)),
        ("nothing", AMQPValue::Void),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![1, 2, 3, 4]))),
    ] {
        headers.insert(name.into(), value);
    }
    headers
}

fn region(region: &str, is_vip: bool) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert("region".into(), AMQPValue::LongString(region.into()));
    headers.insert("vip".into(), AMQPValue::Boolean(is_vip));
    headers
}

/// Six messages: three regions, and who is a VIP.
async fn publish_regions(service: &Service, topic: &str) {
    for (number, (name, is_vip)) in
        [("eu", true), ("us", true), ("eu", false), ("us", false), ("asia", false), ("eu", true)].iter().enumerate()
    {
        service.publish_with(topic, &(number + 1).to_string(), region(name, *is_vip)).await;
    }
}

/// What comes up to the message `last`.
async fn data_until(client: &mut Client, last: u64) -> Vec<u64> {
    let mut data = Vec::new();
    while data.last() != Some(&last) {
        let news = client.news().await;
        assert_eq!(news["op"], "message", "{news}");
        data.extend(news["data"].as_u64());
    }
    data
}

/// Whoever is shown a header can ask for just that.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_every_type_are_compared_as_they_are_shown() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let service = Service::connect(&program.amqp).await;
        let mut everything = Client::json(&program).await;
        everything.subscribe(&topic).await;
        service.publish_with(&topic, "1", of_every_type()).await;
        let shown = everything.news().await["headers"].clone();
        let shown = shown.as_object().expect("headers");
        assert_eq!(shown.len(), 11, "{broker:?}: {shown:?}");
        for (name, value) in shown {
            let mut client = Client::json(&program).await;
            let ask = |filter: Value| json!({ "op": "subscribe", "pattern": topic, "last": 1, "filter": filter });
            assert_eq!(client.ask(ask(json!({ name: value }))).await["op"], "subscribed");
            assert_eq!(client.news().await["data"], 1, "{broker:?}: {name} is {value}");
            assert_eq!(client.news().await["op"], "caught_up");
            client.ask(ask(json!({ name: "other" }))).await;
            assert_eq!(client.news().await["op"], "caught_up", "{broker:?}: {name} is {value}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_says_what_comes_live_and_what_is_replayed() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let service = Service::connect(&program.amqp).await;
        let mut all = Client::json(&program).await;
        let filters =
            [json!({ "region": "eu", "vip": true }), json!({ "x-match": "any", "region": "eu", "vip": true })];
        let expected = [vec![1, 6], vec![1, 2, 3, 6]];
        let start = all.subscribe(&topic).await["cursors"].clone();
        let mut listening = Vec::new();
        for filter in &filters {
            let mut client = Client::json(&program).await;
            client.ask(json!({ "op": "subscribe", "pattern": topic, "filter": filter })).await;
            listening.push(client);
        }
        publish_regions(&service, &topic).await;
        assert_eq!(data_until(&mut all, 6).await, [1, 2, 3, 4, 5, 6]);
        for ((client, filter), expected) in listening.iter_mut().zip(&filters).zip(&expected) {
            assert_eq!(data_until(client, 6).await, *expected, "{broker:?}: {filter}");
            let mut late = Client::json(&program).await;
            let resume = json!({ "op": "subscribe", "pattern": topic, "after": start, "filter": filter });
            assert_eq!(late.ask(resume).await["resumed"], true);
            assert_eq!(data_until(&mut late, 6).await, *expected, "{broker:?}: {filter}");
            assert_eq!(late.news().await["op"], "caught_up");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_and_the_command_line_take_filters() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let service = Service::connect(&program.amqp).await;
        let query = format!("pattern={topic}&filter=%7B%22region%22%3A%22us%22%7D");
        let mut stream = EventStream::open(&program, &query, None).await;
        assert_eq!(stream.event().await.event.as_deref(), Some("subscribed"));
        publish_regions(&service, &topic).await;
        let seen = [stream.message().await, stream.message().await];
        assert_eq!([data(&seen[0].data), data(&seen[1].data)], [json!(2), json!(4)], "{broker:?}");
        drop(stream);
        publish_regions(&service, &topic).await;
        let mut stream = EventStream::open(&program, &query, seen[1].id.as_deref()).await;
        assert_eq!([data(&stream.message().await.data), data(&stream.message().await.data)], [json!(2), json!(4)]);
        let sub = Script::start(&mut sub(&program, &seen[0].id.clone().expect("a cursor"), &topic));
        let printed: Vec<Value> = sub.ended().await.iter().map(|line| data(line)).collect();
        assert_eq!(printed, [6, 1], "{broker:?}");
    }
}

/// The VIPs of Europe of the second six messages, as if one had seen the first.
fn sub(program: &Program, after: &str, topic: &str) -> Command {
    program.sub(&["--after", after, "--count", "2", topic, "--filter", "region=eu", "--filter", "vip=true"])
}

fn data(message: &str) -> Value {
    serde_json::from_str::<Value>(message).expect("JSON")["data"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_filter_in_a_url_is_refused_in_words() {
    let program = Broker::Embedded.serve(&[]).await;
    let asked =
        format!("GET /sse?pattern=a&filter=region HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", program.public);
    let answer = request(&program.public, &asked).await;
    let sentence = "filter must be a JSON object of headers and their values, such as {\"region\":\"eu\"}";
    let body = serde_json::json!({ "error": sentence }).to_string();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(&body), "{answer}");
    let mut client = Client::raw(&program, "pattern=a&filter=region").await;
    assert_eq!(client.closed().await, (1008, sentence.to_owned()));
}
