//! What the broker refuses because of what a client asked for. It closes a channel each time, whose number the library does not
//! use again: nobody else may find out. Connections have few channels here, so that few refusals use them up.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use passerelle::config::{Route, Secret, Settings};
use passerelle::hub::upstream::Consumption;
use passerelle::model::delivery::{
    ConsumeNews, ConsumeOrder, ConsumeRefusal, ConsumeRequest, QueueOrigin, Settled, Settlement,
};
use passerelle::model::outgoing::PublishOutcome;
use passerelle::model::topic::{Pattern, Topic};

use super::bridge::*;
use super::broken::Reader;
use crate::rabbit::Rabbit;

/// Channels that a connection may have.
const CHANNELS: usize = 32;

/// More refusals than there are channels.
const REFUSALS: usize = 3 * CHANNELS;

fn with_few_channels(settings: &mut Settings, url: &str) {
    settings.amqp.urls = vec![Secret::new(format!("{url}?channel_max={CHANNELS}"))];
}

fn consume_request(queue: &str) -> ConsumeRequest {
    ConsumeRequest {
        queue: Topic::parse(queue).unwrap(),
        asked: queue.into(),
        prefetch: 1,
        exclusive: false,
        origin: QueueOrigin::Opened { section: "consume.test".into(), declaration: None },
        hold_max: Duration::from_secs(60),
    }
}

/// The next that is told, but for that there is no connection yet.
async fn news(consumption: &mut Consumption) -> ConsumeNews {
    let news = async {
        loop {
            match consumption.news.recv().await.unwrap() {
                ConsumeNews::Away => {}
                news => return news,
            }
        }
    };
    tokio::time::timeout(PATIENCE, news).await.expect("news")
}

async fn refusal(bridge: &Bridge, queue: &str) -> ConsumeRefusal {
    match news(&mut bridge.upstream.consume(consume_request(queue))).await {
        ConsumeNews::Ended(refusal) => refusal,
        news => panic!("{news:?}"),
    }
}

/// Queues that somebody else consumes alone.
async fn taken_queues(client: &Client, count: usize) -> Vec<(String, lapin::Consumer)> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let queue = unique("taken");
        client.queue(&queue).await;
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = client.channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        taken.push((queue, consumer.await.unwrap()));
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_refused_without_end_concern_neither_sources_nor_other_consumers() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (exchange, queue, missing) = (unique("topic"), unique("queue"), unique("missing"));
    client.exchange(&exchange, ExchangeKind::Topic).await;
    client.queue(&queue).await;
    client.publish("", &queue, "held").await;
    let mut settings = settings(rabbit, vec![exchange_source("events", &exchange)]);
    with_few_channels(&mut settings, &rabbit.url());
    let bridge = Bridge::start(&settings);
    let _claim = bridge.claim("events", "a").await;
    let mut consumption = bridge.upstream.consume(consume_request(&queue));
    assert_eq!(news(&mut consumption).await, ConsumeNews::Stands);
    let ConsumeNews::Delivered(held) = news(&mut consumption).await else { panic!() };
    let taken = taken_queues(&client, CHANNELS).await;
    for _ in 0..REFUSALS {
        assert!(matches!(refusal(&bridge, &missing).await, ConsumeRefusal::NotFound(_)));
        assert!(matches!(refusal(&bridge, &taken[0].0).await, ConsumeRefusal::InUse(_)));
    }
    // Each is asked for as often as that.
    for (queue, _) in &taken {
        assert!(matches!(refusal(&bridge, queue).await, ConsumeRefusal::InUse(_)));
    }
    consumption.orders.send(ConsumeOrder::Settle(held.tag, Settlement::Acknowledge)).await.unwrap();
    assert_eq!(consumption.news.recv().await.unwrap(), ConsumeNews::Settled(held.tag, Settled::Told));
    client.publish(&exchange, "a", "x").await;
    assert_eq!(bridge.received("events", 1).await, ["x"]);
    assert_eq!(bridge.holes("events"), []);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_are_refused_without_end_do_not_concern_others() {
    let reader = Reader::new("^ok\\.");
    let mut settings = settings(Rabbit::shared(), vec![exchange_source("events", "amq.topic")]);
    with_few_channels(&mut settings, &reader.url());
    let bridge = Bridge::start(&settings);
    let _before = bridge.claim("events", "ok.a").await;
    for number in 0..REFUSALS {
        let claim = bridge.source("events").interest().claim(&Pattern::parse(&format!("no.{number}")).unwrap());
        let refused = tokio::time::timeout(PATIENCE, claim.settled()).await.unwrap().unwrap_err();
        assert!(refused.contains(&format!("does not let user '{}' bind 'no.{number}'", reader.user)), "{refused}");
    }
    let _after = bridge.claim("events", "ok.b").await;
    reader.publish("ok.a", "x").await;
    reader.publish("ok.b", "y").await;
    assert_eq!(bridge.received("events", 2).await, ["x", "y"]);
    assert_eq!(bridge.holes("events"), []);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_that_are_missing_cost_no_confirms() {
    let rabbit = Rabbit::shared();
    let mut settings = settings(rabbit, Vec::new());
    with_few_channels(&mut settings, &rabbit.url());
    let names: Vec<String> = (0..REFUSALS).map(|_| unique("missing")).collect();
    let route = |name: &String| {
        let pattern = Pattern::parse(name).unwrap();
        Route { name: name.clone(), pattern, exchange: name.clone() }
    };
    settings.routes = names.iter().map(route).collect();
    let bridge = Bridge::start(&settings);
    assert!(!bridge.publishes("first").await);
    for name in &names {
        let outcome = bridge.upstream.publish(outgoing(name, "x")).await;
        assert!(matches!(outcome, PublishOutcome::Refused(_)), "{outcome:?}");
        let outcome = bridge.upstream.publish(outgoing("other", "x")).await;
        assert_eq!(outcome, PublishOutcome::Confirmed { routed: false });
    }
    bridge.stop().await;
}

/// A node that may have two connections has them, and can only do without trials.
#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_two_connections_a_forbidden_topic_does_not_stop_the_others() {
    let (rabbit, user, queue) = (Rabbit::shared(), unique("user"), unique("queue"));
    Client::connect(rabbit).await.queue(&queue).await;
    rabbit.ctl(&["add_user", &user, "secret"]);
    rabbit.ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    rabbit.ctl(&["set_topic_permissions", &user, "amq.topic", "^yes\\.|^first$", ".*"]);
    rabbit.ctl(&["set_user_limits", &user, r#"{"max-connections": 2}"#, "--quiet"]);
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls = vec![Secret::new(rabbit.url_as(&format!("{user}:secret"), "%2f"))];
    let bridge = Bridge::start(&settings);
    assert!(!bridge.publishes("first").await);
    bridge.ready().await;
    for number in 0..5 {
        let outcome = bridge.upstream.publish(outgoing(&format!("no.{number}"), "x")).await;
        assert!(matches!(outcome, PublishOutcome::Refused(_)), "{outcome:?}");
        let outcome = bridge.upstream.publish(outgoing(&format!("yes.{number}"), "x")).await;
        assert_eq!(outcome, PublishOutcome::Confirmed { routed: false });
    }
    let mut consumption = bridge.upstream.consume(consume_request(&queue));
    assert_eq!(news(&mut consumption).await, ConsumeNews::Stands);
    bridge.stop().await;
}
