//! A node that stands still for a while, as on a machine that is suspended: what its broker had to drop meanwhile is told.

use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use serde_json::json;
use tokio::time::Instant;

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// More than the broker sends ahead of what it drops.
const PUBLISHED: u64 = 3_000;

/// Longer than a node goes without settling anything before it looks for drops, however fast the broker takes messages.
const STANDSTILL: Duration = Duration::from_millis(200);

const UNSETTLED: &str = "passerelle_source_unsettled{source=\"events\"}";

async fn publish(service: &Service, topic: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        service.publish(topic, &json!({ "number": number, "filling": "x".repeat(20) }).to_string()).await;
    }
    // The queue has them then, or has dropped older ones.
    service.channel.wait_for_confirms().await.expect("confirms");
}

/// Reads up to a number; each gap must be where something is missing, and say how much.
async fn read(client: &mut Client, from: u64, to: u64) -> u64 {
    let (mut next, mut missed, mut missed_in_all) = (from, 0, 0);
    while next < to {
        let news = client.news().await;
        if news["op"] == "gap" {
            assert_eq!(news["reason"], "slow", "{news}");
            missed += news["missed"].as_u64().unwrap_or_else(|| panic!("{news}"));
            continue;
        }
        let number = news["data"]["number"].as_u64().unwrap_or_else(|| panic!("{news}"));
        assert_eq!(number - next, missed, "before message {number}, after {next}");
        missed_in_all += missed;
        (next, missed) = (number + 1, 0);
    }
    assert_eq!(missed, 0, "a gap where nothing is missing");
    missed_in_all
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_beyond_what_is_sent_ahead_are_counted_at_their_place() {
    let embedded = Broker::Embedded.serve(&[]).await;
    for url in [embedded.amqp.clone(), Rabbit::shared().url()] {
        let environment = [
            ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
            ("PASSERELLE_SOURCE__EVENTS__QUEUE_BYTES_MAX", "2 KiB"),
            ("PASSERELLE_AMQP__PREFETCH", "10"),
        ];
        let node = Program::start(Some(&url), &environment);
        node.ready().await;
        let (topic, service, mut client) = (word(), Service::connect(&url).await, Client::json(&node).await);
        service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        client.subscribe(&topic).await;
        let (mut from, mut missed) = (0, 0);
        for _ in 0..3 {
            // What it was about to acknowledge it would acknowledge with drops in between that it does not know of.
            until("all is settled", async || node.metric(UNSETTLED).await == Some(0.0)).await;
            node.freeze();
            let thaw_at = Instant::now() + STANDSTILL;
            publish(&service, &topic, from..from + PUBLISHED).await;
            tokio::time::sleep_until(thaw_at).await;
            node.thaw();
            missed += read(&mut client, from, from + PUBLISHED).await;
            from += PUBLISHED;
            // Nothing of it is told later.
            publish(&service, &topic, from..from + 3).await;
            assert_eq!(read(&mut client, from, from + 3).await, 0);
            from += 3;
        }
        assert!(missed > 6_000, "{missed} are missing at {url}: too few to show anything");
    }
}

/// An operator's policy can have the broker throw away what it dropped before anybody has counted it.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_count_has_no_number() {
    let (rabbit, prefix) = (Rabbit::shared(), word());
    let pattern = format!("^{prefix}");
    rabbit.ctl(&["set_policy", &prefix, &pattern, r#"{"max-length": 50}"#, "--apply-to", "queues"]);
    let environment = [
        ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
        ("PASSERELLE_AMQP__QUEUE_PREFIX", prefix.as_str()),
        ("PASSERELLE_AMQP__PREFETCH", "10"),
    ];
    let node = Program::start(Some(&rabbit.url()), &environment);
    node.ready().await;
    let (topic, service, mut client) = (word(), Service::connect(&rabbit.url()).await, Client::json(&node).await);
    service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    client.subscribe(&topic).await;
    node.freeze();
    publish(&service, &topic, 0..PUBLISHED).await;
    node.thaw();
    let (mut received, mut counted, mut uncounted) = (0, 0, 0);
    loop {
        let news = client.news().await;
        if news["op"] == "gap" {
            counted += news["missed"].as_u64().unwrap_or(0);
            uncounted += u64::from(news["missed"].is_null());
            continue;
        }
        received += 1;
        if news["data"]["number"] == PUBLISHED - 1 {
            break;
        }
    }
    assert!(
        uncounted > 0 && received + counted < PUBLISHED,
        "{received} received, {counted} and {uncounted} gaps missed"
    );
    // What follows is whole again.
    publish(&service, &topic, PUBLISHED..PUBLISHED + 3).await;
    assert_eq!(read(&mut client, PUBLISHED, PUBLISHED + 3).await, 0);
}
