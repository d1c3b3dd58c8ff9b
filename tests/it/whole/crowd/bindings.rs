//! What RabbitMQ has to carry: as much for thousands of sessions as for a few.

use serde_json::json;

use super::{Light, join};
use crate::program::{Program, until};
use crate::rabbit::Rabbit;
use crate::whole::client::Service;
use crate::whole::own_host;

const FEW: usize = 10;
const MANY: usize = 5_000;

/// What the broker has on a virtual host.
#[derive(Debug, PartialEq, Eq)]
struct Load {
    queues: usize,
    bindings: usize,
    consumers: usize,
    /// Of each channel: its consumers, in order.
    channels: Vec<String>,
}

impl Load {
    fn on(host: &str) -> Self {
        let rabbit = Rabbit::shared();
        let count =
            |what: &str, column: &str| rabbit.ctl(&[what, "-p", host, column, "--no-table-headers"]).lines().count();
        // The broker lists the channels of all hosts.
        let channels = rabbit.ctl(&["list_channels", "vhost", "consumer_count", "--no-table-headers"]);
        let ours = channels.lines().filter_map(|line| line.strip_prefix(host));
        let mut channels: Vec<String> = ours.map(|count| count.trim().to_owned()).collect();
        channels.sort_unstable();
        Self {
            queues: count("list_queues", "name"),
            bindings: count("list_bindings", "routing_key"),
            consumers: count("list_consumers", "queue_name"),
            channels,
        }
    }
}

/// Each client subscribes to one of so many patterns.
async fn subscribe(crowd: &mut [Light], pattern: impl Fn(usize) -> String) {
    for (number, client) in crowd.iter_mut().enumerate() {
        client.command(&json!({ "op": "subscribe", "id": number, "pattern": pattern(number) })).await;
    }
    for client in crowd {
        client.subscribed().await;
    }
}

/// Bindings that a virtual host has; the client's queues are bound to the default exchange too.
fn bindings_of(host: &str, exchange: &str) -> usize {
    let listed = Rabbit::shared().ctl(&["list_bindings", "-p", host, "source_name", "--no-table-headers"]);
    listed.lines().filter(|source| source.trim() == exchange).count()
}

/// Beyond the limit topics are refused in words, and a pattern that covers them takes their bindings' place.
#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_topics_keep_to_the_limit_of_bindings() {
    const LIMIT: usize = 1_000;
    let (host, url) = own_host();
    let limit = LIMIT.to_string();
    let program = Program::start(
        Some(&url),
        &[("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"), ("PASSERELLE_SOURCE__EVENTS__BINDINGS_MAX", &limit)],
    );
    program.ready().await;
    let mut crowd = Vec::new();
    join(&mut crowd, &program, 1).await;
    let client = &mut crowd[0];
    for number in 0..MANY {
        client.command(&json!({ "op": "subscribe", "id": number, "pattern": format!("orders.{number}") })).await;
    }
    let mut stand = 0;
    for _ in 0..MANY {
        let text = client.text().await;
        let refused = text.contains("raise source.events.bindings_max");
        assert!(refused || text.contains("\"op\":\"subscribed\""), "{text}");
        stand += usize::from(!refused);
    }
    assert_eq!((stand, bindings_of(&host, "amq.topic")), (LIMIT, LIMIT));
    client.command(&json!({ "op": "subscribe", "id": MANY, "pattern": "orders.*" })).await;
    client.subscribed().await;
    until("the covering pattern's is the only binding", async || bindings_of(&host, "amq.topic") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_carries_as_much_for_five_thousand_sessions_as_for_ten() {
    let (host, url) = own_host();
    let program = Program::start(Some(&url), &[]);
    program.ready().await;
    let pattern = |number: usize| {
        let kind = number % FEW;
        if kind.is_multiple_of(2) { format!("orders.{kind}") } else { format!("*.{kind}.#") }
    };
    let mut crowd = Vec::new();
    join(&mut crowd, &program, FEW).await;
    subscribe(&mut crowd, pattern).await;
    let few = Load::on(&host);
    assert!(few.queues >= 1 && few.consumers >= 1 && few.bindings >= FEW && !few.channels.is_empty(), "{few:?}");
    let mut more = Vec::new();
    join(&mut more, &program, MANY - FEW).await;
    subscribe(&mut more, pattern).await;
    assert_eq!(Load::on(&host), few);
    let service = Service::connect(&url).await;
    service.publish("orders.2", "\"all\"").await;
    for (_, client) in crowd.iter_mut().chain(&mut more).enumerate().filter(|(number, _)| number % FEW == 2) {
        let text = client.text().await;
        assert!(text.contains("\"data\":\"all\""), "{text}");
    }
}
