//! A queue that reaches clients on all nodes: one node at a time moves it into a stream, from which all of them read.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::client::{Client, Service};
use super::word;
use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// Messages that are published before the broker's confirms are waited for.
const BURST: u64 = 20;

/// How often the node that moves the queue is taken away.
const CHANGES: usize = 4;

/// Messages between two changes, at least.
const BETWEEN: u64 = 300;

/// A durable queue on a broker, and the stream that it is moved into.
struct Moved {
    url: String,
    queue: String,
    service: Service,
}

impl Moved {
    /// With further arguments of the queue.
    async fn with(url: String, arguments: FieldTable) -> Self {
        let (service, queue) = (Service::connect(&url).await, word());
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        service.channel.queue_declare(queue.as_str().into(), options, arguments).await.expect("a queue");
        service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { url, queue, service }
    }

    async fn new() -> Self {
        Self::with(Rabbit::shared().url(), FieldTable::default()).await
    }

    fn stream(&self) -> String {
        format!("{}.stream", self.queue)
    }

    /// What a program is told; `more` wins.
    fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let key = |key: &str| format!("PASSERELLE_SOURCE__WORK__{key}");
        let mut all = vec![(key("QUEUE"), self.queue.clone()), (key("STREAM"), self.stream())];
        all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    }

    fn start(&self, more: &[(&str, &str)]) -> Program {
        let environment = self.environment(more);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        Program::start(Some(&self.url), &environment)
    }

    async fn serve(&self) -> Program {
        let program = self.start(&[]);
        program.ready().await;
        program
    }

    /// What `passerelle check --connect` says, and whether it is content.
    fn check(&self) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_passerelle"));
        command.env_clear().args(["check", "--connect"]).env("PASSERELLE_AMQP__URL", &self.url);
        let output = command.envs(self.environment(&[])).output().expect("passerelle runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    async fn publish(&self, body: &str, properties: BasicProperties) {
        publish(&self.service, &self.queue, &[body.to_owned()], properties).await;
    }

    /// Publishes 0, 1, 2 and so on until told to stop, and answers how many there were.
    fn load(&self, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
        let (url, queue, stop) = (self.url.clone(), self.queue.clone(), stop.clone());
        tokio::spawn(async move {
            let service = Service::connect(&url).await;
            service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
            let mut published = 0;
            while !stop.load(Ordering::Relaxed) {
                let bodies: Vec<String> = (published..published + BURST).map(|number| number.to_string()).collect();
                publish(&service, &queue, &bodies, BasicProperties::default()).await;
                published += BURST;
            }
            published
        })
    }

    /// Of a queue or a stream, while there is one; of a stream as of some seconds ago.
    async fn messages_in(&self, queue: &str) -> Option<u32> {
        // Of its own, because the question closes it where there is nothing of that name.
        let service = Service::connect(&self.url).await;
        let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let declared = service.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        declared.ok().map(|queue| queue.message_count())
    }
}

/// Publishes to a queue, persistently, and waits for the confirms.
async fn publish(service: &Service, queue: &str, bodies: &[String], properties: BasicProperties) {
    let mut confirms = Vec::new();
    for body in bodies {
        let properties = properties.clone().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = service.channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
        confirms.push(sent.await.expect("a publish"));
    }
    let confirmed = join_all(confirms).await;
    assert!(confirmed.iter().all(|confirm| confirm.as_ref().is_ok_and(|confirm| confirm.is_ack())));
}

async fn moves(program: &Program) -> bool {
    program.metric("passerelle_relay{source=\"work\"}").await == Some(1.0)
}

/// Somebody who reads numbers, and takes none twice but where that is said.
struct Reader {
    client: Client,
    topic: String,
    cursor: Value,
    /// The number that nobody has seen yet.
    next: u64,
    again: u64,
}

impl Reader {
    async fn on(program: &Program, topic: &str) -> Self {
        let mut client = Client::json(program).await;
        client.subscribe(topic).await;
        Self { client, topic: topic.to_owned(), cursor: Value::Null, next: 0, again: 0 }
    }

    /// Goes on at another node, or the same after its end.
    async fn go_to(&mut self, program: &Program) {
        self.client = Client::json(program).await;
        let after = if self.cursor.is_null() { json!({}) } else { json!({ "work": self.cursor }) };
        let reply = self.client.ask(json!({ "op": "subscribe", "pattern": self.topic, "after": after })).await;
        assert!(reply["op"] == "subscribed" && reply["resumed"] == !self.cursor.is_null(), "{reply}");
    }

    async fn read_until(&mut self, number: u64) {
        while self.next < number {
            let news = self.client.news().await;
            if news["op"] == "caught_up" {
                continue;
            }
            let came = news["data"].as_u64().unwrap_or_else(|| panic!("neither gap nor anything else but {news}"));
            if news["redelivered"] == true {
                assert!(came <= self.next, "{news} leaves out {}", self.next);
            } else {
                assert_eq!(came, self.next, "{news}");
            }
            self.again += u64::from(came < self.next);
            self.next = self.next.max(came + 1);
            self.cursor = news["cursor"].clone();
        }
    }
}

/// Whoever moves the queue is killed, or told to stop, and another takes over: nothing is lost, nothing comes out of order,
/// and what comes again says so. A cursor of one node is good on the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_reaches_clients_on_all_nodes_whoever_moves_it() {
    let moved = Moved::new().await;
    let mut nodes = [moved.serve().await, moved.serve().await];
    let mut readers = [Reader::on(&nodes[0], &moved.queue).await, Reader::on(&nodes[1], &moved.queue).await];
    let stop = Arc::new(AtomicBool::new(false));
    let load = moved.load(&stop);
    for change in 0..CHANGES {
        let [first, second] = &mut readers;
        tokio::join!(first.read_until(first.next + BETWEEN), second.read_until(second.next + BETWEEN));
        until("one of the two moves the queue", async || moves(&nodes[0]).await != moves(&nodes[1]).await).await;
        let mover = usize::from(moves(&nodes[1]).await);
        if change % 2 == 0 {
            nodes[mover].kill();
        } else {
            nodes[mover].terminate();
            nodes[mover].ended().await;
        }
        let other = 1 - mover;
        until("the other one takes over", async || moves(&nodes[other]).await).await;
        readers[mover].go_to(&nodes[other]).await;
        nodes[mover] = moved.serve().await;
        let reader = &mut readers[mover];
        reader.read_until(reader.next + BURST).await;
        reader.go_to(&nodes[mover]).await;
    }
    stop.store(true, Ordering::Relaxed);
    let published = load.await.expect("the load");
    let [first, second] = &mut readers;
    tokio::join!(first.read_until(published), second.read_until(published));
    eprintln!("{published} messages; came again: {} and {}", first.again, second.again);
    until("the queue is empty", async || moved.messages_in(&moved.queue).await == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_loses_nothing_of_a_queue_that_is_moved() {
    let rabbit = Rabbit::start();
    let moved = Moved::with(rabbit.url(), FieldTable::default()).await;
    let nodes = [moved.serve().await, moved.serve().await];
    let mut readers = [Reader::on(&nodes[0], &moved.queue).await, Reader::on(&nodes[1], &moved.queue).await];
    let numbers = |from: u64| (from..from + 500).map(|number| number.to_string()).collect::<Vec<_>>();
    publish(&moved.service, &moved.queue, &numbers(0), BasicProperties::default()).await;
    rabbit.kill();
    rabbit.run();
    let service = Service::connect(&rabbit.url()).await;
    service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    publish(&service, &moved.queue, &numbers(500), BasicProperties::default()).await;
    for reader in &mut readers {
        // The outage is told, and that it is over; nothing is missing.
        let told = async |reader: &mut Reader| loop {
            let news = reader.client.news().await;
            match news["op"].as_str() {
                Some("outage" | "restored") => {}
                Some("message") => {
                    let came = news["data"].as_u64().expect("a number");
                    assert!(came == reader.next || (news["redelivered"] == true && came < reader.next), "{news}");
                    reader.next = reader.next.max(came + 1);
                }
                _ => panic!("{news}"),
            }
            if reader.next == 1_000 {
                break;
            }
        };
        told(reader).await;
    }
}

/// Before the stream has taken a message, the queue keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_did_not_get_stays_in_the_queue() {
    let moved = Moved::new().await;
    let program = moved.serve().await;
    let mut reader = Reader::on(&program, &moved.queue).await;
    moved.publish("0", BasicProperties::default()).await;
    reader.read_until(1).await;
    // Now what is published to the exchange goes nowhere.
    let (stream, exchange) = (moved.stream(), moved.stream());
    let unbound = moved.service.channel.queue_unbind(
        stream.as_str().into(),
        exchange.as_str().into(),
        "".into(),
        FieldTable::default(),
    );
    unbound.await.expect("the binding goes");
    moved.publish("1", BasicProperties::default()).await;
    let message = reader.client.news().await;
    assert_eq!((&message["data"], &message["redelivered"]), (&json!(1), &json!(true)), "{message}");
    // The whole stream: what was in it is gone with it, and what the queue has arrives in the new one.
    let deleted = moved.service.channel.queue_delete(stream.as_str().into(), QueueDeleteOptions::default());
    deleted.await.expect("the stream goes");
    for number in 2..50 {
        moved.publish(&number.to_string(), BasicProperties::default()).await;
    }
    until("the queue is empty", async || moved.messages_in(&moved.queue).await == Some(0)).await;
    until("the new stream has them", async || moved.messages_in(&stream).await >= Some(48)).await;
}

/// Somebody else who consumes the queue is refused in words; another node is not.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_queue_are_told_from_other_nodes() {
    let moved = Moved::new().await;
    let (content, said) = moved.check();
    assert!(content, "{said}");
    let stranger = Service::connect(&moved.url).await;
    let (options, queue) = (BasicConsumeOptions::default(), moved.queue.as_str());
    let consuming = stranger.channel.basic_consume(queue.into(), "stranger".into(), options, FieldTable::default());
    let consumer = consuming.await.expect("a consumer");
    let sentence = format!("queue '{queue}' already has 1 consumer");
    let (content, said) = moved.check();
    assert!(!content && said.contains(&sentence), "{said}");
    let first = moved.start(&[]);
    until("it is said", async || first.get("/readyz").await.contains(&sentence)).await;
    assert!(first.get("/readyz").await.starts_with("HTTP/1.1 503"));
    drop((consumer, stranger));
    first.ready().await;
    until("the first moves it", async || moves(&first).await).await;
    let second = moved.serve().await;
    assert!(!moves(&second).await);
    let (content, said) = moved.check();
    assert!(content, "{said}");
    let waits = format!("another node moves queue '{queue}'");
    assert!(second.lines().iter().any(|line| line.contains(&waits)), "{:#?}", second.lines());
}

/// What a message is made of, and where it goes when it cannot be made.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_message_is_what_it_was() {
    let url = Rabbit::shared().url();
    let refused = Moved::with(url.clone(), FieldTable::default()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(LongString::from("")));
    let to = AMQPValue::LongString(LongString::from(refused.queue.as_str()));
    arguments.insert("x-dead-letter-routing-key".into(), to);
    let moved = Moved::with(url, arguments).await;
    let environment = [
        ("PASSERELLE_SOURCE__WORK__TOPIC", "{queue}.{header.kind}"),
        ("PASSERELLE_SOURCE__WORK__REJECTED", "dead-letter"),
    ];
    let program = moved.start(&environment);
    program.ready().await;
    let mut client = Client::json(&program).await;
    client.subscribe(&format!("{}.#", moved.queue)).await;
    moved.publish("no kind", BasicProperties::default()).await;
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let mut headers = FieldTable::default();
    headers.insert("kind".into(), text("new"));
    headers.insert("CC".into(), AMQPValue::FieldArray(FieldArray::from(vec![text("nowhere")])));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_content_type("text/plain".into())
        .with_message_id("m".into())
        .with_expiration("600000".into())
        .with_user_id("guest".into());
    moved.publish("1", properties).await;
    let message = client.news().await;
    let topic = format!("{}.new", moved.queue);
    assert_eq!((&message["topic"], &message["data"]), (&json!(topic), &json!("1")), "{message}");
    // RabbitMQ 3.10 keeps no lists and no tables of what is in a stream, so of CC nothing is left.
    let (id, kind) = (&message["message_id"], &message["headers"]["kind"]);
    assert_eq!((id, kind), (&json!("m"), &json!("new")), "{message}");
    assert!(message["redelivered"].is_null(), "{message}");
    until("the other one is dead-lettered", async || refused.messages_in(&refused.queue).await == Some(1)).await;
    let got = refused.service.channel.basic_get(refused.queue.as_str().into(), BasicGetOptions::default());
    assert_eq!(got.await.expect("an answer").expect("a message").data, b"no kind");
    let rejected = "passerelle_source_rejected_total{reason=\"template_field\",source=\"work\"}";
    assert_eq!(program.metric(rejected).await, Some(1.0), "{}", program.get("/metrics").await);
}

/// Headers that fit a frame as the stream gives them, and no longer do when the message is marked as given again.
const HEADER_BYTES: usize = 131_012;

/// The broker ends a connection over a frame that is too large, and the queue gave the message again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_its_mark_makes_too_large_is_rejected_and_the_queue_is_moved_on() {
    let url = Rabbit::shared().url();
    let refused = Moved::with(url.clone(), FieldTable::default()).await;
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(&refused.queue));
    let moved = Moved::with(url, arguments).await;
    let mut headers = FieldTable::default();
    headers.insert("h".into(), text(&"x".repeat(HEADER_BYTES)));
    let long = || BasicProperties::default().with_headers(headers.clone());
    moved.publish("0", long()).await;
    let got = moved.service.channel.basic_get(moved.queue.as_str().into(), BasicGetOptions::default());
    let given = got.await.expect("an answer").expect("a message");
    given.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.expect("it goes back");
    let program = moved.start(&[("PASSERELLE_SOURCE__WORK__REJECTED", "dead-letter")]);
    program.ready().await;
    let mut client = Client::json(&program).await;
    client.subscribe(&moved.queue).await;
    until("it is dead-lettered", async || refused.messages_in(&refused.queue).await == Some(1)).await;
    moved.publish("1", long()).await;
    moved.publish("2", BasicProperties::default()).await;
    for number in 1..3 {
        let message = client.news().await;
        assert_eq!(message["data"], json!(number), "{message}");
    }
    let rejected = "passerelle_source_rejected_total{reason=\"properties\",source=\"work\"}";
    assert_eq!(program.metric(rejected).await, Some(1.0), "{}", program.get("/metrics").await);
    assert!(!program.lines().iter().any(|line| line.contains("lost the connection")), "{:#?}", program.lines());
}

/// Bytes of what the broker took once and does not take any more.
const LARGE: usize = 2_000;

/// The broker ends a channel over a message that is too large, so that the queue gave all that was under way again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_finds_too_large_is_rejected_and_the_queue_is_moved_on() {
    let rabbit = Rabbit::start();
    let moved = Moved::with(rabbit.url(), FieldTable::default()).await;
    for body in ["0", "1", &"9".repeat(LARGE), "2", "3"] {
        moved.publish(body, BasicProperties::default()).await;
    }
    rabbit.ctl(&["eval", &format!("application:set_env(rabbit, max_message_size, {}).", LARGE - 1)]);
    let program = moved.serve().await;
    until("all others are moved", async || {
        // What was under way beside the large one is moved once more.
        program.metric("passerelle_relayed_total{source=\"work\"}").await >= Some(4.0)
    })
    .await;
    let rejected = "passerelle_source_rejected_total{reason=\"too_large\",source=\"work\"}";
    assert_eq!(program.metric(rejected).await, Some(1.0), "{:#?}", program.lines());
    until("the queue is empty", async || moved.messages_in(&moved.queue).await == Some(0)).await;
    let mut client = Client::json(&program).await;
    client.subscribe(&moved.queue).await;
    moved.publish("4", BasicProperties::default()).await;
    // What was moved last may come live too.
    while client.news().await["data"] != json!(4) {}
}
