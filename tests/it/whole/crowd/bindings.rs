//! What RabbitMQ has to carry: as much for thousands of sessions as for a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Light, join};
use crate::program::Program;
use crate::rabbit::Rabbit;
use crate::whole::client::Service;
use crate::whole::own_host;

const FEW: usize = 10;
const MANY: usize = 5_000;

/// Subscriptions that are asked for together.
const WAVE: usize = 500;

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

/// Of three shapes: the word that varies is the last one, one in the middle, or every one.
fn topic(number: usize) -> String {
    match number % 3 {
        0 => format!("orders.{number}"),
        1 => format!("user.{number}.inbox"),
        _ => format!("tenant{number}.kind{number}"),
    }
}

/// A program's only source, with so many bindings at most.
fn limited(bindings_max: &str) -> [(&str, &str); 2] {
    let limit = ("PASSERELLE_SOURCE__EVENTS__BINDINGS_MAX", bindings_max);
    [("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"), limit]
}

/// Ends a watch, also where a test has failed: the runtime waits for what blocks.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at the bindings for as long as a flag is down; answers the most that there were, and how often it looked.
fn watch(host: &str, is_over: &AtomicBool) -> (usize, usize) {
    let (mut most, mut looks) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(bindings_of(host, "amq.topic"));
        looks += 1;
    }
    (most, looks)
}

/// Sessions subscribe to thousands of topics, each to its own; all stand, and each message reaches whoever wants it and
/// nobody else. Answers the most bindings that were ever seen, and those at the end.
async fn thousands_of_topics(environment: &[(&str, &str)]) -> (usize, usize) {
    let (host, url) = own_host();
    let program = Program::start(Some(&url), environment);
    program.ready().await;
    let mut crowd = Vec::new();
    join(&mut crowd, &program, FEW).await;
    let is_over = Over(Arc::default());
    let (watched, over) = (host.clone(), is_over.0.clone());
    let watching = tokio::task::spawn_blocking(move || watch(&watched, &over));
    // In waves, so that topics are bound by themselves before there are too many.
    for wave in 0..MANY / WAVE {
        let numbers = wave * WAVE..(wave + 1) * WAVE;
        for number in numbers.clone() {
            let command = json!({ "op": "subscribe", "id": number, "pattern": topic(number) });
            crowd[number % FEW].command(&command).await;
        }
        for number in numbers {
            crowd[number % FEW].subscribed().await;
        }
    }
    let service = Service::connect(&url).await;
    for number in 0..MANY {
        service.publish(&topic(number), &number.to_string()).await;
    }
    // Twice the first ones: whatever came in between for somebody else would be seen.
    for number in 0..FEW {
        service.publish(&topic(number), &number.to_string()).await;
    }
    for number in (0..MANY).chain(0..FEW) {
        let text = crowd[number % FEW].text().await;
        assert!(text.contains(&format!("\"data\":{number},")), "{text} instead of {number}");
    }
    drop(is_over);
    let (most, looks) = watching.await.expect("a watch");
    assert!(looks > 0);
    (most, bindings_of(&host, "amq.topic"))
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_topics_are_folded_under_the_limit_of_bindings() {
    const LIMIT: usize = 1_000;
    let (most, bound) = thousands_of_topics(&limited(&LIMIT.to_string())).await;
    assert!(most <= LIMIT && bound <= LIMIT && bound > 0, "at most {most}, {bound} at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_topics_are_under_the_default_limit() {
    let (most, bound) = thousands_of_topics(&[]).await;
    assert!(most <= MANY, "at most {most}");
    assert_eq!(bound, MANY, "each topic is bound by itself");
}

/// RabbitMQ can be told to let nobody bind a wildcard.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_cover_may_be_bound_topics_are_bound_until_the_limit_and_then_refused() {
    const LIMIT: usize = 20;
    // One place is for the empty key, two for what makes room.
    const PLACES: usize = LIMIT - 3;
    let (host, url) = own_host();
    Rabbit::shared().ctl(&["set_topic_permissions", "-p", &host, "guest", "amq.topic", ".*", "^[^*#]*$"]);
    let program = Program::start(Some(&url), &limited(&LIMIT.to_string()));
    program.ready().await;
    let mut crowd = Vec::new();
    join(&mut crowd, &program, 1).await;
    let client = &mut crowd[0];
    for number in 0..2 * LIMIT {
        client.command(&json!({ "op": "subscribe", "id": number, "pattern": format!("orders.{number}") })).await;
    }
    let mut stand = 0;
    for _ in 0..2 * LIMIT {
        let text = client.text().await;
        let refused = text.contains("raise source.events.bindings_max");
        assert!(refused || text.contains("\"op\":\"subscribed\""), "{text}");
        stand += usize::from(!refused);
    }
    assert_eq!((stand, bindings_of(&host, "amq.topic")), (PLACES, PLACES));
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
