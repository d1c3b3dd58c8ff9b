//! The last messages of each topic, also of those on which nothing was said for long.

use std::time::{Duration, Instant};

use lapin::options::{ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// More than the log holds where it holds the least that it may.
const NOISE: u64 = 1_200;

/// More than a node reads of a stream in the moment before it stands still.
const LONG: u64 = 15_000;

/// Asks for the last message of each topic, which must be these.
async fn expect_last(program: &Program, pattern: &str, expected: &[&str]) {
    let mut client = Client::json(program).await;
    let subscribed = client.ask(json!({ "op": "subscribe", "pattern": pattern, "last": 1 })).await;
    assert_eq!(subscribed["op"], "subscribed", "{subscribed}");
    let mut found = Vec::new();
    loop {
        let news = client.news().await;
        if news["op"] == "caught_up" {
            break;
        }
        assert_eq!((&news["op"], &news["replay"]), (&json!("message"), &json!(true)), "{news}");
        found.push(news["data"].as_str().expect("a word").to_owned());
    }
    assert_eq!(found, expected);
}

async fn publish_noise(service: &Service, topic: &str) {
    for number in 0..NOISE {
        service.publish(topic, &number.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_last_said_on_a_quiet_topic_outlives_the_log() {
    for broker in Broker::BOTH {
        let word = word();
        let environment = [
            ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
            ("PASSERELLE_SOURCE__EVENTS__LOG__MESSAGES_MAX", "1024"),
        ];
        let program = broker.serve(&environment).await;
        let service = Service::connect(&program.amqp).await;
        let mut live = Client::json(&program).await;
        live.subscribe(&format!("{word}.#")).await;
        for (topic, body) in [("lamp.hall", "on"), ("lamp.attic", "off"), ("lamp.hall", "dim")] {
            service.publish(&format!("{word}.{topic}"), body).await;
        }
        publish_noise(&service, &format!("{word}.noise")).await;
        let received = "passerelle_source_messages_total{source=\"events\"}";
        until("all has come", async || program.metric(received).await >= Some(NOISE as f64 + 3.0)).await;
        expect_last(&program, &format!("{word}.lamp.*"), &["off", "dim"]).await;
        expect_last(&program, &format!("{word}.lamp.hall"), &["dim"]).await;
    }
}

/// A stream of that name, bound to `amq.topic` with `WORD.#`.
async fn declare_stream(service: &Service, word: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    service.channel.queue_declare(word.into(), options, arguments).await.expect("a stream");
    let nothing = FieldTable::default();
    let pattern = format!("{word}.#");
    let bound = service.channel.queue_bind(
        word.into(),
        "amq.topic".into(),
        pattern.as_str().into(),
        QueueBindOptions::default(),
        nothing,
    );
    bound.await.expect("a binding");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_reads_the_last_messages_from_the_stream() {
    let (rabbit, word) = (Rabbit::shared(), word());
    let service = Service::connect(&rabbit.url()).await;
    declare_stream(&service, &word).await;
    for (topic, body) in [("lamp.hall", "on"), ("lamp.attic", "off"), ("lamp.hall", "dim")] {
        service.publish(&format!("{word}.{topic}"), body).await;
    }
    publish_noise(&service, &format!("{word}.noise")).await;
    let published = Instant::now();
    let mut program = Program::start(Some(&rabbit.url()), &[("PASSERELLE_SOURCE__EVENTS__STREAM", &word)]);
    program.ready().await;
    program.said("source 'events' knows the last messages again");
    expect_last(&program, &format!("{word}.lamp.*"), &["off", "dim"]).await;
    // Of a stream on which nothing was said for longer than is asked for nothing comes, and nothing is wrong.
    until("all of it is old", async || published.elapsed() > Duration::from_secs(3)).await;
    let short =
        [("PASSERELLE_SOURCE__EVENTS__STREAM", word.as_str()), ("PASSERELLE_SOURCE__EVENTS__LAST_REBUILD", "1s")];
    let mut program = Program::start(Some(&rabbit.url()), &short);
    program.ready().await;
    program.said("source 'events' knows the last messages again: 0 read");
}

/// What it had read since it last noted any was not known until somebody published.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_messages_are_known_though_the_log_has_let_go_of_all_that_followed() {
    let (rabbit, word) = (Rabbit::shared(), word());
    let service = Service::connect(&rabbit.url()).await;
    declare_stream(&service, &word).await;
    service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    // The node begins with the last of these parts.
    for (topic, count) in [("noise", LONG), ("lamp", 1), ("noise", 100), ("noise", 1)] {
        for _ in 0..count {
            service.publish(&format!("{word}.{topic}"), "on").await;
        }
        service.channel.wait_for_confirms().await.expect("all are confirmed");
    }
    let short =
        [("PASSERELLE_SOURCE__EVENTS__STREAM", word.as_str()), ("PASSERELLE_SOURCE__EVENTS__LOG__AGE_MAX", "1s")];
    let mut program = Program::start(Some(&rabbit.url()), &short);
    program.said("source 'events' reads stream");
    // The log, which looks each five seconds, lets go of all that it has before the rest is read.
    program.freeze();
    let frozen = Instant::now();
    until("all of it is old", async || frozen.elapsed() > Duration::from_secs(6)).await;
    program.thaw();
    program.said("source 'events' knows the last messages again");
    expect_last(&program, &format!("{word}.lamp"), &["on"]).await;
}
