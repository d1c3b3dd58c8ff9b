//! Queues that clients consume: who holds which message, and where it goes when they do not settle it.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// A program that opens one queue, which exists, and somebody at the broker.
struct Scene {
    program: Program,
    service: Service,
    queue: String,
}

impl Scene {
    async fn new(broker: Broker, more: &[(&str, &str)]) -> Self {
        let queue = word();
        let mut environment = vec![("PASSERELLE_CONSUME__WORK__QUEUE", queue.as_str())];
        environment.extend(more);
        let program = broker.serve(&environment).await;
        let service = Service::connect(&program.amqp).await;
        declare(&service, &queue).await;
        Self { program, service, queue }
    }

    /// A client that consumes the queue.
    async fn client(&self, prefetch: u16) -> Client {
        let mut client = Client::json(&self.program).await;
        let reply = client.ask(json!({ "op": "consume", "queue": self.queue, "prefetch": prefetch })).await;
        assert_eq!(reply["op"], "ok", "{reply}");
        client
    }

    /// Puts numbers into the queue.
    async fn fill(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            put(&self.service, &self.queue, number.to_string().as_bytes()).await;
        }
    }

    /// Messages that nobody holds.
    async fn ready(&self) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = &self.service.channel;
        let queue = channel.queue_declare(self.queue.as_str().into(), options, FieldTable::default()).await;
        queue.expect("the queue").message_count()
    }

    async fn until_ready(&self, messages: u32) {
        until(&format!("{messages} messages are ready"), async || self.ready().await == messages).await;
    }

    /// Waits until nobody consumes through passerelle any more.
    async fn until_left(&self) {
        until("nobody consumes", async || self.program.metric("passerelle_consumers").await == Some(0.0)).await;
    }

    async fn settled(&self, result: &str) -> f64 {
        let name = format!("passerelle_settled_total{{result=\"{result}\"}}");
        self.program.metric(&name).await.expect("the metric")
    }
}

async fn declare(service: &Service, queue: &str) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    service.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("a queue");
}

async fn put(service: &Service, queue: &str, body: &[u8]) {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    service.channel.basic_publish("".into(), queue.into(), options, body, properties).await.expect("a publish");
}

/// The next delivery with this number; whether it came before is told.
async fn delivery(client: &mut Client, number: u32, redelivered: bool) -> Value {
    let message = client.news().await;
    assert_eq!((&message["op"], &message["data"]), (&json!("message"), &json!(number)), "{message}");
    assert_eq!(message["redelivered"] == true, redelivered, "{message}");
    message["delivery_tag"].clone()
}

/// The next deliveries, in the order of their numbers; their tags.
async fn deliveries(client: &mut Client, numbers: std::ops::Range<u32>, redelivered: bool) -> Vec<Value> {
    let mut tags = Vec::new();
    for number in numbers {
        tags.push(delivery(client, number, redelivered).await);
    }
    tags
}

async fn ack(client: &mut Client, tag: &Value) -> Value {
    client.ask(json!({ "op": "ack", "delivery_tag": tag })).await
}

async fn acked(client: &mut Client, tag: &Value) {
    let reply = ack(client, tag).await;
    assert_eq!(reply["op"], "ok", "{reply}");
}

async fn stale(client: &mut Client, tag: &Value) {
    let reply = ack(client, tag).await;
    assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("stale_tag")), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_gone() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..3).await;
        let mut client = scene.client(3).await;
        for tag in deliveries(&mut client, 0..3, false).await {
            acked(&mut client, &tag).await;
            // A tag is good once.
            stale(&mut client, &tag).await;
        }
        if let Broker::Rabbit = broker {
            let empty = format!("{}\t0", scene.queue);
            until("RabbitMQ has none of it", async || {
                Rabbit::shared().ctl(&["list_queues", "name", "messages"]).lines().any(|line| line == empty)
            })
            .await;
        }
        drop(client);
        scene.until_left().await;
        assert_eq!((scene.ready().await, scene.settled("acknowledged").await), (0, 3.0), "{broker:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_comes_again_or_is_gone() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut client = scene.client(1).await;
        let tag = delivery(&mut client, 0, false).await;
        client.send(Message::text(json!({ "op": "nack", "id": "back", "delivery_tag": tag }).to_string())).await;
        // The answer and the message pass through the broker's hands on different ways.
        let (one, other) = (client.news().await, client.news().await);
        let (reply, message) = if one["op"] == "ok" { (one, other) } else { (other, one) };
        assert_eq!((&reply["op"], &reply["id"]), (&json!("ok"), &json!("back")), "{reply}");
        assert_eq!((&message["data"], &message["redelivered"]), (&json!(0), &json!(true)), "{message}");
        assert_ne!(message["delivery_tag"], tag);
        stale(&mut client, &tag).await;
        let drop_it = json!({ "op": "nack", "delivery_tag": message["delivery_tag"], "requeue": false });
        assert_eq!(client.ask(drop_it).await["op"], "ok");
        drop(client);
        scene.until_left().await;
        assert_eq!(scene.ready().await, 0, "{broker:?}");
        assert_eq!((scene.settled("requeued").await, scene.settled("discarded").await), (1.0, 1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_holds_no_more_than_it_asked_for() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..10).await;
        let mut client = scene.client(2).await;
        let first = delivery(&mut client, 0, false).await;
        delivery(&mut client, 1, false).await;
        scene.until_ready(8).await;
        assert_eq!(scene.program.metric("passerelle_held_deliveries").await, Some(2.0));
        acked(&mut client, &first).await;
        delivery(&mut client, 2, false).await;
        scene.until_ready(7).await;
    }
}

/// A close frame, a cut, a peer that gives no sign of life: whatever was held goes back at once and in order, and the next
/// one is told that it was handed out before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_goes_back_in_order_however_the_socket_ends() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[("PASSERELLE_SERVER__HEARTBEAT", "1s")]).await;
        scene.fill(0..5).await;
        for (round, way) in ["frame", "cut", "silence"].into_iter().enumerate() {
            let mut client = scene.client(5).await;
            deliveries(&mut client, 0..5, round > 0).await;
            assert_eq!(scene.ready().await, 0);
            let mut silent = None;
            match way {
                "frame" => client.send(Message::Close(None)).await,
                "cut" => drop(client),
                _ => silent = Some(client.split()),
            }
            scene.until_ready(5).await;
            drop(silent);
        }
        scene.until_left().await;
        assert_eq!(scene.settled("returned").await, 15.0, "{broker:?}");
        let mut next = scene.client(5).await;
        for tag in deliveries(&mut next, 0..5, true).await {
            acked(&mut next, &tag).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_settles_what_another_holds() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut holder = scene.client(1).await;
        let tag = delivery(&mut holder, 0, false).await;
        let mut other = scene.client(1).await;
        stale(&mut other, &tag).await;
        for nonsense in ["", "0.0", "ffffffffffffffff.ffffffffffffffff", "1"] {
            stale(&mut other, &json!(nonsense)).await;
        }
        acked(&mut holder, &tag).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sessions_share_a_queue_and_each_message_has_one_of_them() {
    const SESSIONS: usize = 100;
    const MESSAGES: usize = 500;
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        let (news, mut heard) = tokio::sync::mpsc::channel(MESSAGES);
        let mut sessions = tokio::task::JoinSet::new();
        for _ in 0..SESSIONS {
            let (mut client, news) = (scene.client(2).await, news.clone());
            sessions.spawn(async move {
                loop {
                    let object = client.news().await;
                    if object["op"] == "message" {
                        assert_eq!(object.get("redelivered"), None, "{object}");
                        let ack = json!({ "op": "ack", "id": 1, "delivery_tag": object["delivery_tag"] });
                        client.send(Message::text(ack.to_string())).await;
                        news.send(object["data"].as_u64().expect("a number")).await.expect("somebody listens");
                    } else {
                        assert_eq!(object["op"], "ok", "{object}");
                    }
                }
            });
        }
        scene.fill(0..MESSAGES as u32).await;
        let mut seen = BTreeSet::new();
        while seen.len() < MESSAGES {
            let number = tokio::time::timeout(crate::program::PATIENCE, heard.recv()).await.expect("in time");
            assert!(seen.insert(number.expect("a session")), "none has two holders");
        }
        until("all is settled", async || scene.settled("acknowledged").await == MESSAGES as f64).await;
        sessions.shutdown().await;
        scene.until_left().await;
        assert_eq!((scene.ready().await, scene.settled("returned").await), (0, 0.0), "{broker:?}");
    }
}

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
        let alone = Connection::connect(&scene.program.amqp, ConnectionProperties::default()).await.unwrap();
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let channel = alone.create_channel().await.unwrap();
        let all = channel.basic_consume(scene.queue.as_str().into(), "".into(), options, FieldTable::default()).await;
        refused(&mut client, &scene.queue, ("refused", "is consumed exclusively by somebody else")).await;
        drop(all.expect("a consumer"));
        // Nothing of this harmed the session.
        assert_eq!(client.ask(json!({ "op": "ping" })).await["op"], "pong");
    }
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
async fn what_is_held_for_too_long_goes_back() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[("PASSERELLE_CONSUME__WORK__HOLD_MAX", "1s")]).await;
        scene.fill(0..2).await;
        let mut slow = scene.client(1).await;
        let tag = delivery(&mut slow, 0, false).await;
        assert_eq!(slow.news().await, json!({ "op": "revoked", "delivery_tags": [tag] }));
        stale_between_messages(&mut slow, &tag).await;
        assert!(scene.settled("expired").await >= 1.0, "{broker:?}");
    }
}

/// As [`stale`], where messages may come before the answer.
async fn stale_between_messages(client: &mut Client, tag: &Value) {
    client.send(Message::text(json!({ "op": "ack", "id": "late", "delivery_tag": tag }).to_string())).await;
    loop {
        let object = client.news().await;
        if object["id"] == "late" {
            return assert_eq!(object["code"], "stale_tag", "{object}");
        }
        assert!(object["op"] == "revoked" || object["delivery_tag"] != *tag, "{object}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cancel_nothing_comes_and_what_is_held_can_be_settled() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut client = scene.client(5).await;
        let tag = delivery(&mut client, 0, false).await;
        let reply = client.ask(json!({ "op": "cancel", "queue": scene.queue })).await;
        assert_eq!(reply["op"], "ok", "{reply}");
        scene.fill(1..4).await;
        scene.until_ready(3).await;
        // The very next thing that comes is the answer.
        acked(&mut client, &tag).await;
        scene.until_left().await;
        let mut next = scene.client(3).await;
        deliveries(&mut next, 1..4, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_declared_on_demand_and_goes_when_nobody_comes_back() {
    for broker in Broker::BOTH {
        let queue = word();
        let environment = [
            ("PASSERELLE_CONSUME__BOX__QUEUE", queue.as_str()),
            ("PASSERELLE_CONSUME__BOX__DECLARE", "true"),
            ("PASSERELLE_CONSUME__BOX__EXPIRES", "1s"),
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

/// What a client may hold does not count against the room for answers: it is ended neither for that nor for its pings.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_all_that_it_may_hold() {
    const MESSAGES: u32 = 40;
    let scene = Scene::new(Broker::Embedded, &[("PASSERELLE_LIMITS__OUTBOX_BYTES_MAX", "64 KiB")]).await;
    let mut client = scene.client(MESSAGES as u16).await;
    let text = "x".repeat(500_000);
    for number in 0..MESSAGES {
        put(&scene.service, &scene.queue, format!("[{number},\"{text}\"]").as_bytes()).await;
    }
    let waits = "passerelle_outbox_bytes";
    until("much waits", async || scene.program.metric(waits).await.is_some_and(|bytes| bytes > 1e6)).await;
    client.send(Message::text(json!({ "op": "ping", "id": "p" }).to_string())).await;
    for number in 0..MESSAGES {
        let message = client.news().await;
        assert_eq!(message["data"][0], number, "{}", message["op"]);
    }
    assert_eq!(client.news().await["op"], "pong");
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

/// Killed while messages are held: they are revoked, their tags are stale, and all come again by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_when_the_broker_is_killed_comes_again() {
    const MESSAGES: u32 = 20;
    let (rabbit, queue) = (Rabbit::start(), word());
    let environment =
        [("PASSERELLE_CONSUME__WORK__QUEUE", queue.as_str()), ("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true")];
    let program = Program::start(Some(&rabbit.url()), &environment);
    program.ready().await;
    let service = Service::connect(&program.amqp).await;
    let options = lapin::options::ConfirmSelectOptions::default();
    service.channel.confirm_select(options).await.unwrap();
    declare(&service, &queue).await;
    for number in 0..MESSAGES {
        put(&service, &queue, number.to_string().as_bytes()).await;
    }
    service.channel.wait_for_confirms().await.unwrap();
    let scene = Scene { program, service, queue };
    let mut client = scene.client(MESSAGES as u16).await;
    let tags = deliveries(&mut client, 0..MESSAGES, false).await;
    rabbit.kill();
    assert_eq!(client.news().await, json!({ "op": "outage", "source": scene.queue }));
    assert_eq!(client.news().await, json!({ "op": "revoked", "delivery_tags": tags }));
    stale(&mut client, &tags[0]).await;
    rabbit.run();
    assert_eq!(client.news().await, json!({ "op": "restored", "source": scene.queue }));
    let again = deliveries(&mut client, 0..MESSAGES, true).await;
    for (old, new) in tags.iter().zip(&again) {
        stale(&mut client, old).await;
        acked(&mut client, new).await;
    }
    assert_eq!(scene.settled("lost").await, f64::from(MESSAGES));
    drop(client);
    scene.until_left().await;
    let empty = format!("{}\t0", scene.queue);
    until("RabbitMQ has none of it", async || {
        rabbit.ctl(&["list_queues", "name", "messages"]).lines().any(|line| line == empty)
    })
    .await;
}

/// A page that consumes before there is a broker waits, is told so, and gets what comes.
#[tokio::test(flavor = "multi_thread")]
async fn who_consumes_before_the_broker_is_there_waits_for_it() {
    let (rabbit, queue) = (Rabbit::start(), word());
    rabbit.stop();
    let environment = [
        ("PASSERELLE_CONSUME__WORK__QUEUE", queue.as_str()),
        ("PASSERELLE_CONSUME__WORK__DECLARE", "true"),
        ("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true"),
    ];
    let program = Program::start(Some(&rabbit.url()), &environment);
    let mut client = Client::json(&program).await;
    client.send(Message::text(json!({ "op": "consume", "id": 7, "queue": queue }).to_string())).await;
    assert_eq!(client.news().await, json!({ "op": "outage", "source": queue }));
    rabbit.run();
    assert_eq!(client.news().await, json!({ "op": "restored", "source": queue }));
    assert_eq!(client.news().await, json!({ "op": "ok", "id": 7 }));
    put(&Service::connect(&program.amqp).await, &queue, b"1").await;
    let tag = delivery(&mut client, 1, false).await;
    acked(&mut client, &tag).await;
    assert!(client.is_quiet_for(Duration::from_millis(100)).await);
}
