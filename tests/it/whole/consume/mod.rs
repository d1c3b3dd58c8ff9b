//! Queues that clients consume: who holds which message, and where it goes when they do not settle it.

mod holders;
mod outages;
mod refusals;
mod settling;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{Program, until};

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
