//! Queues that cannot be consumed, or no longer, and those that are made on demand.

use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use super::{Scene, declare, delivery, put, stale};
use crate::program::until;
use crate::rabbit::connect;
use crate::whole::client::{Client, Service};
use crate::whole::{Broker, word};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_consumed_is_told_in_words() {
    for broker in Broker::BOTH {
        let missing = word();
        let environment = [("PASSERELLE_CONSUME__MISSING__QUEUE", missing.as_str())];
        let scene = Scene::new(broker, &environment).await;
        let mut client = Client::json(&scene.program).await;
        let sentence = "create it or set consume.missing.declare = true";
        refused(&mut client, &missing, ("not_found", sentence)).await;
        refused(&mut client, "amq.gen-private", ("forbidden", "no consume.NAME.queue of this server names it")).await;
        // Somebody who wants it all for themselves.
        let alone = connect(&scene.program.amqp).await;
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let channel = alone.create_channel().await.unwrap();
        let all = channel.basic_consume(scene.queue.as_str().into(), "".into(), options, FieldTable::default()).await;
        refused(&mut client, &scene.queue, ("in_use", "is consumed by somebody else")).await;
        drop(all.expect("a consumer"));
        // Nothing of this harmed the session.
        assert_eq!(client.ask(json!({ "op": "ping" })).await["op"], "pong");
    }
}

/// Of a stream nothing can be given back: to try is an error of the connection on which everybody consumes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_consumed() {
    let stream = word();
    let scene = Scene::new(Broker::Rabbit, &[("PASSERELLE_CONSUME__STREAM__QUEUE", stream.as_str())]).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    scene.service.channel.queue_declare(stream.as_str().into(), options, arguments).await.unwrap();
    put(&scene.service, &stream, b"0").await;
    let mut client = Client::json(&scene.program).await;
    let sentence = format!("'{stream}' is a stream, of which nobody can settle a message");
    refused(&mut client, &stream, ("refused", &sentence)).await;
    assert_eq!(client.ask(json!({ "op": "consume", "queue": scene.queue })).await["op"], "ok");
}

async fn refused(client: &mut Client, queue: &str, (code, words): (&str, &str)) {
    let reply = client.ask(json!({ "op": "consume", "queue": queue })).await;
    assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!(code)), "{reply}");
    assert!(reply["message"].as_str().unwrap().contains(words), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_told() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut client = Client::json(&scene.program).await;
        assert_eq!(client.ask(json!({ "op": "consume", "queue": scene.queue })).await["op"], "ok");
        let tag = delivery(&mut client, 0, false).await;
        let options = QueueDeleteOptions::default();
        scene.service.channel.queue_delete(scene.queue.as_str().into(), options).await.unwrap();
        assert_eq!(client.news().await, json!({ "op": "outage", "source": scene.queue }));
        assert_eq!(client.news().await, json!({ "op": "revoked", "delivery_tags": [tag] }));
        let ended = client.news().await;
        assert_eq!((&ended["op"], &ended["id"], &ended["code"]), (&json!("error"), &json!(1), &json!("not_found")));
        assert!(ended["message"].as_str().unwrap().contains("does not exist"), "{ended}");
        stale(&mut client, &tag).await;
        // It can be had again when it is there again.
        declare(&scene.service, &scene.queue).await;
        assert_eq!(client.ask(json!({ "op": "consume", "queue": scene.queue })).await["op"], "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_declared_on_demand_and_goes_when_nobody_comes_back() {
    for broker in Broker::BOTH {
        let queue = word();
        let environment = [
            ("PASSERELLE_CONSUME__BOX__QUEUE", queue.as_str()),
            ("PASSERELLE_CONSUME__BOX__DECLARE", "true"),
            ("PASSERELLE_CONSUME__BOX__EXPIRES", "5s"),
        ];
        let program = broker.serve(&environment).await;
        let mut client = Client::json(&program).await;
        assert_eq!(client.ask(json!({ "op": "consume", "queue": queue })).await["op"], "ok");
        put(&Service::connect(&program.amqp).await, &queue, b"7").await;
        delivery(&mut client, 7, false).await;
        drop(client);
        // Whoever asks for the queue by name uses it, and keeps it alive; a message that finds it or not does neither.
        let mut other = Client::json(&program).await;
        let call = json!({ "op": "call", "topic": queue, "data": 1, "timeout_ms": 100 });
        until("the queue is gone", async || other.ask(call.clone()).await["code"] == "unroutable").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_queues_for_all_and_each() {
    let other = word();
    let environment = [
        ("PASSERELLE_CONSUME__OTHER__QUEUE", other.as_str()),
        ("PASSERELLE_LIMITS__QUEUES_MAX", "1"),
        ("PASSERELLE_AMQP__CLIENT_QUEUES_MAX", "2"),
    ];
    let scene = Scene::new(Broker::Embedded, &environment).await;
    let mut one = scene.client(1).await;
    refused(&mut one, &other, ("limit", "limits.queues_max")).await;
    let second = scene.client(1).await;
    let mut third = Client::json(&scene.program).await;
    refused(&mut third, &scene.queue, ("limit", "amqp.client_queues_max")).await;
    drop(second);
    until("its place is free", async || {
        third.ask(json!({ "op": "consume", "queue": scene.queue })).await["op"] == "ok"
    })
    .await;
}
