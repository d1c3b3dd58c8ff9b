//! Publishes: each is answered with what became of it, and of it alone.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::ExchangeKind;
use lapin::options::{BasicConsumeOptions, QueueBindOptions};
use lapin::types::FieldTable;
use passerelle::config::{Route, Secret, Settings};
use passerelle::model::outgoing::PublishOutcome;
use passerelle::model::topic::Pattern;
use passerelle::model::value::{Headers, Value};

use super::bridge::*;
use crate::rabbit::Rabbit;

/// A topic exchange that publishes go to, a queue bound to it by `yes.#`, and a client.
async fn published_to(rabbit: &Rabbit) -> (Client, Settings, String) {
    let client = Client::connect(rabbit).await;
    let (exchange, queue) = (unique("topic"), unique("queue"));
    client.exchange(&exchange, ExchangeKind::Topic).await;
    client.queue(&queue).await;
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    let bound =
        client.channel.queue_bind(queue.as_str().into(), exchange.as_str().into(), "yes.#".into(), options, none);
    bound.await.unwrap();
    let mut settings = settings(rabbit, Vec::new());
    settings.publish.exchange = exchange;
    (client, settings, queue)
}

/// Waits until the link to publish on stands, and has been through what it does first, which has a time of its own.
async fn connected(bridge: &Bridge) {
    assert!(!bridge.publishes("first").await, "nobody wants it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_is_its_own_though_thousands_are_in_flight() {
    let rabbit = Rabbit::shared();
    let (_client, settings, _) = published_to(rabbit).await;
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let publishes = (0..4_000).map(|number| {
        let (upstream, routed) = (bridge.upstream.clone(), number % 3 != 0);
        let topic = if routed { "yes.a" } else { "no.a" };
        tokio::spawn(async move { (routed, upstream.publish(outgoing(topic, &number.to_string())).await) })
    });
    let publishes: Vec<_> = publishes.collect();
    for publish in publishes {
        let (routed, outcome) = publish.await.unwrap();
        assert_eq!(outcome, PublishOutcome::Confirmed { routed });
    }
    assert_eq!(bridge.metric("passerelle_publishes_total{result=\"unrouted\"}"), Some(1_335.0));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_and_headers_go_out_and_one_sessions_messages_stay_in_order() {
    let rabbit = Rabbit::shared();
    let (client, settings, queue) = published_to(rabbit).await;
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer =
        client.channel.basic_consume(queue.as_str().into(), "t".into(), options, FieldTable::default()).await;
    let mut consumer = consumer.unwrap();
    let mut message = outgoing("yes.a", "first");
    message.content_type = Some("text/plain".into());
    message.message_id = Some("m1".into());
    message.headers = Headers(vec![("list".into(), Value::List(vec![Value::Int(1), Value::Null]))]);
    assert_eq!(bridge.upstream.publish(message).await, PublishOutcome::Confirmed { routed: true });
    let first = consumer.next().await.unwrap().unwrap();
    assert_eq!(first.data, b"first");
    assert_eq!(first.properties.content_type().as_ref().unwrap().as_str(), "text/plain");
    assert_eq!(first.properties.message_id().as_ref().unwrap().as_str(), "m1");
    assert_eq!(*first.properties.delivery_mode(), Some(2));
    assert!(first.properties.headers().as_ref().unwrap().inner().contains_key("list"));
    let publishes: Vec<_> =
        (0..500).map(|number| bridge.upstream.publish(outgoing("yes.a", &number.to_string()))).collect();
    futures_util::future::join_all(publishes).await;
    for number in 0..500 {
        assert_eq!(consumer.next().await.unwrap().unwrap().data, number.to_string().as_bytes());
    }
    bridge.stop().await;
}

/// Bytes of a payload that the broker takes no more, and that a client may send.
const TOO_LONG: usize = 100_000;

/// The broker ends the channel over such a payload, and with it the word on all that others have published: once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_the_broker_is_refused_and_costs_nobody_else_their_answer() {
    let rabbit = Rabbit::start();
    rabbit.ctl(&["eval", &format!("application:set_env(rabbit, max_message_size, {}).", TOO_LONG - 1)]);
    let (_client, settings, _) = published_to(&rabbit).await;
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let long = "x".repeat(TOO_LONG);
    let first = bridge.upstream.publish(outgoing("yes.long", &long)).await;
    assert!(matches!(&first, PublishOutcome::Refused(why) if why.contains("max_message_size")), "{first:?}");
    let publishes = (0..300).map(|number| {
        let (upstream, long) = (bridge.upstream.clone(), long.clone());
        tokio::spawn(async move {
            let is_long = number % 10 == 0;
            let payload = if is_long { long } else { number.to_string() };
            (is_long, upstream.publish(outgoing("yes.a", &payload)).await)
        })
    });
    for publish in publishes.collect::<Vec<_>>() {
        let (is_long, outcome) = publish.await.unwrap();
        assert_eq!(matches!(outcome, PublishOutcome::Refused(_)), is_long, "{outcome:?}");
        assert!(is_long || outcome == PublishOutcome::Confirmed { routed: true }, "{outcome:?}");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_decide_and_a_missing_exchange_harms_nobody_else() {
    let rabbit = Rabbit::shared();
    let (client, mut settings, _) = published_to(rabbit).await;
    let missing = unique("missing");
    settings.routes =
        vec![Route { name: "away".into(), pattern: Pattern::parse("away.#").unwrap(), exchange: missing.clone() }];
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let good = (0..500).map(|_| bridge.upstream.publish(outgoing("yes.a", "x")));
    let bad = (0..50).map(|_| bridge.upstream.publish(outgoing("away.a", "x")));
    let (good, bad) = tokio::join!(futures_util::future::join_all(good), futures_util::future::join_all(bad));
    assert!(good.iter().all(|outcome| *outcome == PublishOutcome::Confirmed { routed: true }), "{good:?}");
    let sentence =
        format!("exchange '{missing}' does not exist on vhost '/': create it or correct route.away.exchange");
    assert!(bad.iter().all(|outcome| *outcome == PublishOutcome::Refused(sentence.clone())), "{bad:?}");
    client.exchange(&missing, ExchangeKind::Topic).await;
    loop {
        match bridge.upstream.publish(outgoing("away.a", "x")).await {
            PublishOutcome::Confirmed { routed: false } => break,
            outcome => assert_eq!(outcome, PublishOutcome::Refused(sentence.clone())),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_deleted_under_way_is_refused_and_the_next_publish_goes_through() {
    let rabbit = Rabbit::shared();
    let (client, mut settings, _) = published_to(rabbit).await;
    let doomed = unique("doomed");
    client.exchange(&doomed, ExchangeKind::Topic).await;
    settings.routes = vec![Route { name: "d".into(), pattern: Pattern::parse("d").unwrap(), exchange: doomed.clone() }];
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    assert_eq!(bridge.upstream.publish(outgoing("d", "x")).await, PublishOutcome::Confirmed { routed: false });
    client.channel.exchange_delete(doomed.as_str().into(), Default::default()).await.unwrap();
    let PublishOutcome::Refused(sentence) = bridge.upstream.publish(outgoing("d", "x")).await else { panic!() };
    assert!(sentence.contains(&format!("no exchange '{doomed}'")), "{sentence}");
    assert_eq!(bridge.upstream.publish(outgoing("yes.a", "x")).await, PublishOutcome::Confirmed { routed: true });
    let PublishOutcome::Refused(sentence) = bridge.upstream.publish(outgoing("d", "x")).await else { panic!() };
    assert!(sentence.contains("correct route.d.exchange"), "{sentence}");
    bridge.stop().await;
}

/// RabbitMQ closes the channel over a topic that it forbids, which was everybody's.
#[tokio::test(flavor = "multi_thread")]
async fn forbidden_topics_harm_nobody_else() {
    let rabbit = Rabbit::shared();
    let (client, mut settings, queue) = published_to(rabbit).await;
    let (exchange, user) = (settings.publish.exchange.clone(), unique("user"));
    rabbit.ctl(&["add_user", &user, "secret"]);
    rabbit.ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    rabbit.ctl(&["set_topic_permissions", &user, &exchange, "^yes\\.|^first$", ".*"]);
    settings.amqp.urls = vec![Secret::new(rabbit.url_as(&format!("{user}:secret"), "%2f"))];
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let PublishOutcome::Refused(first) = bridge.upstream.publish(outgoing("no.0", "x")).await else { panic!() };
    assert!(first.contains("access to topic 'no.0'"), "{first}");
    let good = (0..300).map(|number| bridge.upstream.publish(outgoing(&format!("yes.{number}"), &number.to_string())));
    let bad = (0..30).map(async |number| {
        let outcome = bridge.upstream.publish(outgoing(&format!("no.{number}"), "x")).await;
        assert!(matches!(outcome, PublishOutcome::Refused(_)), "{outcome:?}");
    });
    let (good, _) = tokio::join!(futures_util::future::join_all(good), futures_util::future::join_all(bad));
    assert!(good.iter().all(|outcome| *outcome == PublishOutcome::Confirmed { routed: true }), "{good:?}");
    let options = BasicConsumeOptions::default();
    let consumer = client.channel.basic_consume(queue.as_str().into(), "t".into(), options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    for number in 0..300 {
        assert_eq!(consumer.next().await.unwrap().unwrap().data, number.to_string().as_bytes(), "once and in order");
    }
    rabbit.ctl(&["clear_topic_permissions", &user]);
    // A connection may remember for a while what it was not allowed.
    let allowed = async {
        while bridge.upstream.publish(outgoing("no.0", "x")).await != (PublishOutcome::Confirmed { routed: false }) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, allowed).await.expect("it is tried again");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_headers_are_refused_while_others_publish() {
    let rabbit = Rabbit::shared();
    let (_client, settings, _) = published_to(rabbit).await;
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let deep = (0..40).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let poisons = [
        ("CC", Value::Text("other".into())),
        ("BCC", Value::List(vec![Value::Text("other".into())])),
        ("x-death", Value::Int(1)),
        ("x-passerelle-id", Value::Int(1)),
        ("nan", Value::Float(f64::NAN)),
        ("big", Value::UInt(u64::MAX)),
        ("deep", deep),
        ("long", Value::Text("x".repeat(1 << 20))),
    ];
    let bad = poisons.into_iter().map(|(name, value)| {
        let mut message = outgoing("yes.a", "x");
        message.headers = Headers(vec![(name.into(), value)]);
        bridge.upstream.publish(message)
    });
    let mut long_id = outgoing("yes.a", "x");
    long_id.message_id = Some("x".repeat(300));
    let good = (0..1_000).map(|_| bridge.upstream.publish(outgoing("yes.a", "x")));
    let (good, bad, long_id) = tokio::join!(
        futures_util::future::join_all(good),
        futures_util::future::join_all(bad),
        bridge.upstream.publish(long_id)
    );
    assert!(good.iter().all(|outcome| *outcome == PublishOutcome::Confirmed { routed: true }));
    assert!(bad.iter().all(|outcome| matches!(outcome, PublishOutcome::Refused(_))), "{bad:?}");
    assert!(matches!(long_id, PublishOutcome::Refused(_)));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_can_carry_at_most_is_carried() {
    let rabbit = Rabbit::shared();
    let (_client, settings, _) = published_to(rabbit).await;
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let mut message = outgoing("yes.a", &"x".repeat(1 << 20));
    message.headers = Headers(vec![
        ("x".repeat(255), Value::Text("y".repeat(60_000))),
        ("number".into(), Value::Float(f64::MIN_POSITIVE)),
        ("time".into(), Value::Timestamp(u64::MAX)),
        ("bytes".into(), Value::Bytes(vec![0, 255])),
        ("deep".into(), (0..6).fold(Value::Bool(true), |inner, _| Value::List(vec![inner]))),
    ]);
    message.message_id = Some("i".repeat(255));
    message.content_type = Some("t".repeat(255));
    assert_eq!(bridge.upstream.publish(message).await, PublishOutcome::Confirmed { routed: true });
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_that_rejects_is_a_refusal() {
    let rabbit = Rabbit::shared();
    let (client, settings, _) = published_to(rabbit).await;
    let queue = unique("full");
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), lapin::types::AMQPValue::LongLongInt(1));
    arguments.insert("x-overflow".into(), lapin::types::AMQPValue::LongString("reject-publish".into()));
    client.channel.queue_declare(queue.as_str().into(), Default::default(), arguments).await.unwrap();
    let (exchange, key) = (settings.publish.exchange.as_str(), "full");
    let options = QueueBindOptions::default();
    client
        .channel
        .queue_bind(queue.as_str().into(), exchange.into(), key.into(), options, FieldTable::default())
        .await
        .unwrap();
    let bridge = Bridge::start(&settings);
    connected(&bridge).await;
    let mut refused = false;
    for _ in 0..5 {
        refused |= matches!(bridge.upstream.publish(outgoing("full", "x")).await, PublishOutcome::Refused(_));
    }
    assert!(refused);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_publishes_are_answered_at_once() {
    let rabbit = Rabbit::shared();
    let mut settings = settings(rabbit, Vec::new());
    settings.amqp.urls = vec![passerelle::config::Secret::new("amqp://guest:guest@127.0.0.1:1/%2f")];
    let bridge = Bridge::start(&settings);
    let PublishOutcome::Unavailable(_) = bridge.upstream.publish(outgoing("a", "x")).await else { panic!() };
    bridge.stop().await;
}
