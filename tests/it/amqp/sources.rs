//! Exchange sources: what arrives, in what order, and what is bound for it.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use passerelle::config::{Bindings, ExchangeKind as Kind, TemplatePart, TopicTemplate};
use passerelle::hub::interest::Claim;
use passerelle::model::gap::GapReason;
use passerelle::model::publication::PublishedAt;
use passerelle::model::topic::Pattern;
use passerelle::model::value::Value;

use super::bridge::*;
use crate::rabbit::Rabbit;

/// The keys by which queues are bound to an exchange, as RabbitMQ tells them.
fn bindings(rabbit: &Rabbit, exchange: &str) -> Vec<String> {
    let listed = rabbit.ctl(&["list_bindings", "source_name", "routing_key", "--no-table-headers"]);
    let mut keys: Vec<String> = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(source, _)| *source == exchange)
        .map(|(_, key)| key.to_owned())
        .collect();
    keys.sort();
    keys
}

/// A topic exchange with a source on it, and a client.
async fn topic_exchange() -> (&'static Rabbit, String, Client, Bridge) {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("topic");
    client.exchange(&exchange, ExchangeKind::Topic).await;
    let bridge = Bridge::start(&settings(rabbit, vec![exchange_source("events", &exchange)]));
    bridge.ready().await;
    (rabbit, exchange, client, bridge)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_published_after_the_claim_stands_arrives_in_order() {
    let (_, exchange, client, bridge) = topic_exchange().await;
    client.publish(&exchange, "a.0", "before").await;
    let _claim = bridge.claim("events", "a.*").await;
    client.publish_numbers(&exchange, "a.1", 0..5_000).await;
    let expected: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    assert_eq!(bridge.received("events", 5_000).await, expected);
    assert!(bridge.log("events").iter().all(|publication| publication.draft.topic.as_str() == "a.1"));
    assert_eq!(bridge.metric("passerelle_source_messages_total{source=\"events\"}"), Some(5_000.0));
    assert_eq!(bridge.holes("events"), []);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_and_headers_arrive() {
    let (_, exchange, client, bridge) = topic_exchange().await;
    let _claim = bridge.claim("events", "#").await;
    let mut headers = FieldTable::default();
    headers.insert("timestamp_in_ms".into(), AMQPValue::LongLongInt(1_700_000_000_123));
    headers.insert("text".into(), AMQPValue::LongString("é".into()));
    headers.insert("bytes".into(), AMQPValue::LongString(vec![0xff].into()));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id("m1".into())
        .with_timestamp(1)
        .with_headers(headers);
    client.publish_with(&exchange, "a", ("{}", properties)).await;
    client.publish_with(&exchange, "", ("", BasicProperties::default().with_timestamp(7))).await;
    bridge.received("events", 2).await;
    let log = bridge.log("events");
    let first = &log[0].draft.attributes;
    assert_eq!(first.content_type.as_deref(), Some("application/json"));
    assert_eq!(first.message_id.as_deref(), Some("m1"));
    assert_eq!(first.published_at, PublishedAt::Millis(1_700_000_000_123));
    assert_eq!(first.headers.value("text"), Some(&Value::Text("é".into())));
    assert_eq!(first.headers.value("bytes"), Some(&Value::Bytes(vec![0xff])));
    assert_eq!(log[1].draft.topic.as_str(), "events", "an empty routing key takes the source's name");
    assert_eq!(log[1].draft.attributes.published_at, PublishedAt::Seconds(7_000));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_claims_on_one_pattern_make_one_binding() {
    let (rabbit, exchange, _client, bridge) = topic_exchange().await;
    let first = bridge.claim("events", "orders.*").await;
    let interest = bridge.source("events").interest();
    let claims: Vec<Claim> = (1..1_000).map(|_| interest.claim(&Pattern::parse("orders.*").unwrap())).collect();
    for claim in &claims {
        claim.settled().await.unwrap();
    }
    assert_eq!(bindings(rabbit, &exchange), ["orders.*"]);
    assert_eq!(bridge.metric("passerelle_bindings{source=\"events\"}"), Some(1.0));
    drop(first);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cover_takes_the_place_of_what_it_covers_and_nothing_is_lost_meanwhile() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("topic");
    client.exchange(&exchange, ExchangeKind::Topic).await;
    let mut source = exchange_source("events", &exchange);
    exchange_input(&mut source).linger = Duration::from_millis(1);
    let bridge = Bridge::start(&settings(rabbit, vec![source]));
    let _narrow = bridge.claim("events", "a.b").await;
    let publishing = client.publish_numbers(&exchange, "a.b", 0..3_000);
    let covering = async {
        for _ in 0..20 {
            drop(bridge.claim("events", "a.#").await);
            // Gives the cover's lingering time to end now and then.
            let interest = bridge.source("events").interest();
            until("the cover goes", || interest.bound(9) == [Pattern::parse("a.b").unwrap()]).await;
        }
        bridge.claim("events", "a.#").await
    };
    let (_, _cover) = tokio::join!(publishing, covering);
    let expected: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    assert_eq!(bridge.received("events", 3_000).await, expected);
    let one = || bindings(rabbit, &exchange) == ["a.#"];
    until("one binding is left", one).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_lingers_and_then_goes() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("topic");
    client.exchange(&exchange, ExchangeKind::Topic).await;
    let mut source = exchange_source("events", &exchange);
    exchange_input(&mut source).linger = Duration::from_secs(8);
    let bridge = Bridge::start(&settings(rabbit, vec![source]));
    drop(bridge.claim("events", "a").await);
    client.publish(&exchange, "a", "while it lingers").await;
    assert_eq!(bridge.received("events", 1).await, ["while it lingers"]);
    until("the binding goes", || bridge.metric("passerelle_bindings{source=\"events\"}") == Some(0.0)).await;
    assert_eq!(bindings(rabbit, &exchange), [""; 0]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_of_empty_keys_is_bound_by_the_empty_key() {
    let (rabbit, exchange, client, bridge) = topic_exchange().await;
    let _claim = bridge.claim("events", "events").await;
    assert_eq!(bindings(rabbit, &exchange), ["", "events"]);
    client.publish(&exchange, "", "no key").await;
    client.publish(&exchange, "events", "that key").await;
    assert_eq!(bridge.received("events", 2).await, ["no key", "that key"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_exchange_is_bound_by_literal_topics_only() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("direct");
    client.exchange(&exchange, ExchangeKind::Direct).await;
    let mut source = exchange_source("events", &exchange);
    exchange_input(&mut source).kind = Kind::Direct;
    let bridge = Bridge::start(&settings(rabbit, vec![source]));
    let _claim = bridge.claim("events", "a.b").await;
    let refused = bridge.source("events").interest().claim(&Pattern::parse("a.*").unwrap()).settled().await;
    assert!(refused.unwrap_err().contains("subscribe to literal topics"));
    client.publish(&exchange, "a.b", "x").await;
    assert_eq!(bridge.received("events", 1).await, ["x"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fanout_headers_and_lists_are_bound_once() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let mut sources = Vec::new();
    let mut exchanges = Vec::new();
    for (name, kind, declared) in [
        ("f", Kind::Fanout, ExchangeKind::Fanout),
        ("h", Kind::Headers, ExchangeKind::Headers),
        ("l", Kind::Topic, ExchangeKind::Topic),
    ] {
        let exchange = unique(name);
        client.exchange(&exchange, declared).await;
        let mut source = exchange_source(name, &exchange);
        exchange_input(&mut source).kind = kind;
        if name == "l" {
            exchange_input(&mut source).bindings = Bindings::List(vec![Pattern::parse("a.*").unwrap()]);
        } else {
            let parts = [TemplatePart::Text("all.".into()), TemplatePart::Header("who".into())];
            source.topic = Some(TopicTemplate(parts.into()));
        }
        sources.push(source);
        exchanges.push(exchange);
    }
    let bridge = Bridge::start(&settings(rabbit, sources));
    bridge.ready().await;
    for (name, exchange) in ["f", "h", "l"].into_iter().zip(&exchanges) {
        let _claim = bridge.claim(name, "#").await;
        let mut headers = FieldTable::default();
        headers.insert("who".into(), AMQPValue::LongString("anna".into()));
        let properties = BasicProperties::default().with_headers(headers);
        client.publish_with(exchange, "a.b", ("x", properties)).await;
        bridge.received(name, 1).await;
        let expected = if name == "l" { "a.b" } else { "all.anna" };
        assert_eq!(bridge.log(name)[0].draft.topic.as_str(), expected);
    }
    assert_eq!(bindings(rabbit, &exchanges[2]), ["a.*"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_exchange_is_named_and_waited_for() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (missing, declared) = (unique("missing"), unique("declared"));
    let mut declaring = exchange_source("declares", &declared);
    exchange_input(&mut declaring).declare = true;
    let bridge = Bridge::start(&settings(rabbit, vec![declaring, exchange_source("waits", &missing)]));
    let sentence =
        format!("exchange '{missing}' does not exist on vhost '/': create it or set source.waits.declare = true");
    bridge.complains(&sentence).await;
    let _claim = bridge.claim("declares", "#").await;
    client.publish(&declared, "a", "x").await;
    bridge.received("declares", 1).await;
    client.exchange(&missing, ExchangeKind::Topic).await;
    bridge.ready().await;
    let _claim = bridge.claim("waits", "#").await;
    client.publish(&missing, "a", "y").await;
    assert_eq!(bridge.received("waits", 1).await, ["y"]);
    assert_eq!(bridge.holes("waits"), [], "nothing was lost before the first link");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_had_to_drop_is_counted_and_told() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("topic");
    client.exchange(&exchange, ExchangeKind::Topic).await;
    let mut source = exchange_source("events", &exchange);
    exchange_input(&mut source).queue_bytes_max = 100;
    let mut settings = settings(rabbit, vec![source]);
    settings.amqp.prefetch = 1;
    let bridge = Bridge::start(&settings);
    let _claim = bridge.claim("events", "#").await;
    // No more than there may be holes in a log: were each a hole of its own, all of them could still be counted.
    client.publish_numbers(&exchange, "a", 0..1_000).await;
    let missed = || -> u64 {
        let holes = bridge.holes("events");
        assert!(holes.iter().all(|(reason, _)| *reason == GapReason::Slow), "{holes:?}");
        holes.iter().map(|(_, missed)| missed.expect("few enough to be counted")).sum()
    };
    let all = || bridge.log("events").len() as u64 + missed();
    until_or(|| all() >= 1_000, || format!("1,000 received or missed, {}", all())).await;
    assert_eq!(all(), 1_000);
    assert!(missed() > 0, "a prefetch of one and a queue of 100 bytes cannot keep up");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_concerns_its_source_only() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (hit, spared) = (unique("topic"), unique("topic"));
    client.exchange(&hit, ExchangeKind::Topic).await;
    client.exchange(&spared, ExchangeKind::Topic).await;
    let settings = settings(rabbit, vec![exchange_source("hit", &hit), exchange_source("spared", &spared)]);
    let bridge = Bridge::start(&settings);
    let _claims = (bridge.claim("hit", "#").await, bridge.claim("spared", "#").await);
    let prefix = format!("passerelle.{}.hit.", settings.amqp.node);
    let listed = rabbit.ctl(&["list_queues", "name", "--no-table-headers"]);
    let queue = listed.lines().find(|name| name.starts_with(&prefix) && name.matches('.').count() == 3);
    // An exclusive queue can be deleted by the broker alone.
    let queue = queue.expect("the source's queue");
    let delete = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), rabbit_amqqueue:delete(Q, false, false, <<\"test\">>)."
    );
    rabbit.ctl(&["eval", &delete]);
    until("the source is back", || bridge.source("hit").link().changes == 3).await;
    let _again = bridge.claim("hit", "a").await;
    client.publish(&hit, "a", "again").await;
    client.publish(&spared, "a", "still").await;
    assert_eq!(bridge.received("hit", 1).await, ["again"]);
    assert_eq!(bridge.received("spared", 1).await, ["still"]);
    assert_eq!(bridge.holes("hit"), [(GapReason::Outage, None)]);
    assert_eq!(bridge.holes("spared"), []);
    assert_eq!(bridge.source("spared").link().changes, 1);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_ours_is_left_behind() {
    let (rabbit, exchange, client, bridge) = topic_exchange().await;
    let _claim = bridge.claim("events", "#").await;
    client.publish(&exchange, "a", "x").await;
    bridge.received("events", 1).await;
    assert_ne!(bindings(rabbit, &exchange), [""; 0]);
    bridge.stop().await;
    // The broker deletes exclusive queues after it has confirmed the connection's end.
    until("nothing is left", || bindings(rabbit, &exchange).is_empty()).await;
}
