//! Deliveries that the AMQP library cannot read, or that cannot become messages: counted, settled, and never in the way of
//! the others.

use std::io::{Read, Write};
use std::net::TcpStream;

use lapin::ExchangeKind;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use passerelle::config::{Input, Rejected, Source, StreamInput, TemplatePart, TopicTemplate};
use passerelle::model::value::Value;

use super::bridge::*;
use crate::rabbit::Rabbit;

/// A client that says what no library would.
struct Rude(TcpStream);

impl Rude {
    fn connect(rabbit: &Rabbit) -> Self {
        let mut stream = TcpStream::connect(rabbit.address()).unwrap();
        stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        let mut rude = Self(stream);
        rude.await_method();
        let start_ok = [&[0, 10, 0, 11, 0, 0, 0, 0][..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")];
        rude.send(1, 0, &start_ok.concat());
        rude.await_method();
        rude.send(1, 0, &[0, 10, 0, 31, 0, 9, 0, 2, 0, 0, 0, 0]);
        rude.send(1, 0, &[&[0, 10, 0, 40][..], &short(b"/"), &[0, 0]].concat());
        rude.await_method();
        rude.send(1, 1, &[0, 20, 0, 10, 0]);
        rude.await_method();
        rude
    }

    /// Publishes with the properties `content_type` and `headers`.
    fn publish(&mut self, (exchange, key): (&str, &[u8]), content_type: &[u8], headers: &[u8]) {
        let publish = [&[0, 60, 0, 40, 0, 0][..], &short(exchange.as_bytes()), &short(key), &[0]];
        self.send(1, 1, &publish.concat());
        let header = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0xa0, 0][..], &short(content_type), &long(headers)];
        self.send(2, 1, &header.concat());
        self.send(3, 1, b"rude");
    }

    fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let head = [&[kind][..], &channel.to_be_bytes(), &u32::try_from(payload.len()).unwrap().to_be_bytes()];
        self.0.write_all(&[&head.concat(), payload, &[0xce]].concat()).unwrap();
    }

    fn await_method(&mut self) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).unwrap();
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        self.0.read_exact(&mut vec![0; size + 1]).unwrap();
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// A field whose value is nested so often.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![1, b'k', b't', 1], |inner, _| [&[1, b'k', b'F'][..], &long(&inner)].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_utf8_or_nested_too_deep_harms_nobody() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("topic");
    client.exchange(&exchange, ExchangeKind::Topic).await;
    let bridge = Bridge::start(&settings(rabbit, vec![exchange_source("events", &exchange)]));
    let _claim = bridge.claim("events", "#").await;
    let field = [&short(b"k\xff")[..], b"S", &long(b"v")].concat();
    let name = exchange.clone();
    tokio::task::spawn_blocking(move || {
        let mut rude = Rude::connect(Rabbit::shared());
        rude.publish((&name, b"a.\xff.b"), b"text/plain", &[]);
        rude.publish((&name, b"a\0b"), b"text/plain", &[]);
        rude.publish((&name, b"a.b"), b"text/\xe2\x82", &field);
        rude.publish((&name, b"a.deep"), b"text/plain", &nested(15_000));
        // Whoever has read this has read all before it.
        rude.publish((&name, b"a.last"), b"text/plain", &[]);
        std::mem::forget(rude);
    })
    .await
    .unwrap();
    bridge.received("events", 3).await;
    let log = bridge.log("events");
    let topics: Vec<&str> = log.iter().map(|publication| publication.draft.topic.as_str()).collect();
    assert_eq!(topics, ["a.b", "a.deep", "a.last"]);
    assert_eq!(log[0].draft.attributes.content_type.as_deref(), Some("text/\u{fffd}\u{fffd}"));
    assert_eq!(log[0].draft.attributes.headers.value("k\u{fffd}"), Some(&Value::Text("v".into())));
    assert!(matches!(log[1].draft.attributes.headers.value("k"), Some(Value::Table(_))));
    let rejected = "passerelle_source_rejected_total{reason=\"topic\",source=\"events\"}";
    assert_eq!(bridge.metric(rejected), Some(2.0), "{}", bridge.metrics.render());
    assert_eq!(bridge.source("events").link().changes, 1, "the connection stands");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mapped_is_dead_lettered_where_that_is_configured_and_never_loops() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (exchange, queue, dead) = (unique("fanout"), unique("queue"), unique("dead"));
    client.exchange(&exchange, ExchangeKind::Fanout).await;
    client.queue(&dead).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(dead.as_str().into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    client.channel.queue_bind(queue.as_str().into(), exchange.as_str().into(), "".into(), options, none).await.unwrap();
    let mut source = queue_source("work", &queue);
    source.rejected = Rejected::DeadLetter;
    source.topic = Some(TopicTemplate(vec![TemplatePart::Header("who".into())]));
    let bridge = Bridge::start(&settings(rabbit, vec![source]));
    bridge.ready().await;
    for number in 0..300 {
        let mut properties = lapin::BasicProperties::default();
        if number % 3 == 0 {
            let mut headers = FieldTable::default();
            headers.insert("who".into(), AMQPValue::LongInt(number));
            properties = properties.with_headers(headers);
        }
        client.publish_with(&exchange, "", (&number.to_string(), properties)).await;
    }
    let payloads = bridge.received("work", 100).await;
    let expected: Vec<String> = (0..300).step_by(3).map(|number| number.to_string()).collect();
    assert_eq!(payloads, expected);
    assert_eq!(bridge.log("work")[1].draft.topic.as_str(), "3");
    let rejected = "passerelle_source_rejected_total{reason=\"template_field\",source=\"work\"}";
    until("200 are rejected", || bridge.metric(rejected) == Some(200.0)).await;
    bridge.stop().await;
    let left = |name: &str| {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        client.channel.queue_declare(name.into(), options, FieldTable::default())
    };
    assert_eq!(left(&queue).await.unwrap().message_count(), 0);
    assert_eq!(left(&dead).await.unwrap().message_count(), 200);
}

/// The largest headers that the broker takes: what it adds to them makes them larger than any frame.
const HEADER_BYTES: usize = 131_036;

/// RabbitMQ adds the offset, and the header that told how far the stream was read would be gone with all the others.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_fit_no_frame_are_passed_over_and_a_stream_is_read_on() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let stream = unique("stream");
    let input = StreamInput { declare: true, ..StreamInput::new(&stream) };
    let source = Source { name: "audit".into(), input: Input::Stream(input), ..Source::events() };
    let settings = settings(rabbit, vec![source]);
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    let mut headers = FieldTable::default();
    headers.insert("h".into(), AMQPValue::LongString("x".repeat(HEADER_BYTES).into()));
    let long = || lapin::BasicProperties::default().with_headers(headers.clone());
    client.publish("", &stream, "1").await;
    client.publish_with("", &stream, ("2", long())).await;
    client.publish("", &stream, "3").await;
    assert_eq!(bridge.received("audit", 2).await, ["1", "3"]);
    let rejected = "passerelle_source_rejected_total{reason=\"properties\",source=\"audit\"}";
    assert_eq!(bridge.metric(rejected), Some(1.0));
    client.publish_with("", &stream, ("4", long())).await;
    until("it is counted", || bridge.metric(rejected) == Some(2.0)).await;
    // A node that begins with it.
    let other = Bridge::start(&settings);
    other.ready().await;
    client.publish("", &stream, "5").await;
    for bridge in [bridge, other] {
        until("the last one comes", || bridge.payloads("audit").last().is_some_and(|last| last == "5")).await;
        assert_eq!(bridge.source("audit").link().changes, 1, "the source stands");
        bridge.stop().await;
    }
}
