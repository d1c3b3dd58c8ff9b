//! The AMQP side on the embedded listener: what a newcomer runs on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ExchangeKind};
use passerelle::config::{Embedded, Input, QueueInput, Secret, Settings};
use passerelle::embedded::Listener;
use passerelle::model::gap::GapReason;
use passerelle::model::outgoing::{CallOutcome, Outgoing, PublishOutcome, Request};
use passerelle::model::value::{Headers, Value};
use passerelle::source::amqp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bridge::*;
use crate::rabbit::connect;

fn impatient(address: SocketAddr) -> Settings {
    let mut declared = queue_source("work", "jobs");
    declared.input = Input::Queue(QueueInput { queue: "jobs".into(), shared: false, declare: true });
    let mut settings =
        Settings { sources: vec![exchange_source("events", "amq.topic"), declared], ..Settings::default() };
    settings.amqp.urls = vec![Secret::new(format!("amqp://guest:guest@{address}"))];
    settings.amqp.backoff_max = Duration::from_millis(200);
    settings
}

/// A listener of the test's own.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    end: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    pub(super) fn start() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn at(listen: SocketAddr) -> Self {
        let listener = Listener::bind(&Embedded { listen, ..Embedded::default() }).unwrap();
        let (address, end) = (listener.local_addr(), CancellationToken::new());
        Self { address, end: end.clone(), task: tokio::spawn(listener.run(end)) }
    }

    pub(super) async fn stop(self) {
        self.end.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// The queues of a source that has ended would fill on a connection that stands.
#[tokio::test(flavor = "multi_thread")]
async fn the_queues_of_a_source_go_with_it_and_not_with_the_connection() {
    let running = Running::start();
    let mut bridge = Bridge::start(&impatient(running.address));
    bridge.ready().await;
    let _claim = bridge.claim("events", "a.#").await;
    assert!(bridge.publishes("a.b").await, "it is bound");
    bridge.stop_sources().await;
    assert!(!bridge.publishes("a.b").await, "nothing is bound any more");
    bridge.stop().await;
    running.stop().await;
}

/// The broker tells nobody when it deletes an exchange with its bindings.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_exchange_is_missed() {
    let running = Running::start();
    let client = connect(&format!("amqp://{}", running.address)).await;
    let channel = client.create_channel().await.unwrap();
    let delete = async || channel.exchange_delete("x".into(), ExchangeDeleteOptions::default()).await.unwrap();
    let declare = async || {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare("x".into(), ExchangeKind::Topic, options, FieldTable::default()).await.unwrap();
    };
    declare().await;
    let mut settings = impatient(running.address);
    settings.sources = vec![exchange_source("events", "x")];
    settings.publish.exchange = "x".into();
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    let _claim = bridge.claim("events", "a.#").await;
    delete().await;
    bridge.complains("exchange 'x' does not exist").await;
    declare().await;
    bridge.ready().await;
    assert!(bridge.publishes("a.b").await, "it is bound again");
    bridge.received("events", 1).await;
    assert_eq!(bridge.holes("events"), [(GapReason::Outage, None)]);
    // One that is made anew at once is bound again, too; nobody can know what it took along.
    delete().await;
    declare().await;
    let bound = async {
        while !bridge.publishes("a.b").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, bound).await.expect("a binding");
    bridge.received("events", 2).await;
    bridge.stop().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_the_longest_name_is_consumed() {
    let running = Running::start();
    let mut settings = impatient(running.address);
    let queue = "q".repeat(255);
    settings.sources[1].input = Input::Queue(QueueInput { queue: queue.clone(), shared: false, declare: true });
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    let client = connect(&format!("amqp://{}", running.address)).await;
    let channel = client.create_channel().await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), queue.as_str().into(), options, b"job", properties).await.unwrap();
    assert_eq!(bridge.received("work", 1).await, ["job"]);
    bridge.stop().await;
    running.stop().await;
}

/// Stands between a node and its broker, and lets that offer frames of so many bytes only; where it listens.
async fn with_small_frames(broker: SocketAddr, bytes_max: u32) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut from, mut to) = listener.accept().await.unwrap().0.into_split();
            let (mut answers, mut asks) = TcpStream::connect(broker).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut asks).await });
            tokio::spawn(async move {
                // The second frame that the broker sends is `tune`, on whose fields 10 and 30 it begins.
                for is_tune in [false, true] {
                    let mut frame = vec![0; 7];
                    answers.read_exact(&mut frame).await?;
                    let size = u32::from_be_bytes(frame[3..7].try_into().unwrap()) as usize;
                    frame.resize(7 + size + 1, 0);
                    answers.read_exact(&mut frame[7..]).await?;
                    if is_tune {
                        assert_eq!(frame[7..11], [0, 10, 0, 30]);
                        frame[13..17].copy_from_slice(&bytes_max.to_be_bytes());
                    }
                    to.write_all(&frame).await?;
                }
                tokio::io::copy(&mut answers, &mut to).await
            });
        }
    });
    address
}

/// Whoever sends a larger frame than was agreed on loses the connection, and everybody's publishes with it.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_fit_the_broker_s_frames_are_refused() {
    let running = Running::start();
    let bridge = Bridge::start(&impatient(with_small_frames(running.address, 8_192).await));
    bridge.ready().await;
    let _claim = bridge.claim("events", "a.#").await;
    assert!(bridge.publishes("a.b").await);
    for _ in 0..3 {
        let with = |bytes: usize| {
            let headers = Headers(vec![("h".into(), Value::Text("x".repeat(bytes)))]);
            bridge.upstream.publish(Outgoing { headers, ..outgoing("a.b", &"y".repeat(9_000)) })
        };
        let (large, small) = tokio::join!(with(10_000), with(3_000));
        assert!(matches!(&large, PublishOutcome::Refused(why) if why.contains("the broker takes 8192")), "{large:?}");
        assert_eq!(small, PublishOutcome::Confirmed { routed: true });
    }
    bridge.stop().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_on_it_too() {
    let running = Running::start();
    let address = running.address;
    let settings = impatient(address);
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    assert_eq!(amqp::check(&settings).await.len(), 1, "the queue that we consume ourselves");
    let _claim = bridge.claim("events", "a.#").await;
    assert!(bridge.publishes("a.b").await);
    assert_eq!(bridge.received("events", 1).await, ["x"]);
    assert_eq!(bridge.upstream.publish(outgoing("b", "x")).await, PublishOutcome::Confirmed { routed: false });
    let client = connect(&format!("amqp://{address}")).await;
    let channel = client.create_channel().await.unwrap();
    channel.queue_declare("service".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut service = channel.basic_consume("service".into(), "".into(), options, FieldTable::default()).await.unwrap();
    let call = Request { message: outgoing("service", "asks"), timeout: PATIENCE };
    let answering = async {
        let request = service.next().await.unwrap().unwrap();
        let properties =
            BasicProperties::default().with_correlation_id(request.properties.correlation_id().clone().unwrap());
        let reply_to = request.properties.reply_to().clone().unwrap();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), reply_to, options, b"answer", properties).await.unwrap();
    };
    let (answer, ()) = tokio::join!(bridge.upstream.call(call), answering);
    let CallOutcome::Replied(reply) = answer else { panic!("{answer:?}") };
    assert_eq!(reply.payload, b"answer".as_slice());
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), "jobs".into(), options, b"job", BasicProperties::default()).await.unwrap();
    assert_eq!(bridge.received("work", 1).await, ["job"]);
    // It goes away and another comes in its place.
    running.stop().await;
    until("the outage is told", || !bridge.source("events").link().up).await;
    bridge.complains("nothing listens").await;
    let running = Running::at(address);
    bridge.ready().await;
    assert!(bridge.publishes("a.b").await);
    bridge.received("events", 2).await;
    assert_eq!(bridge.holes("events"), [(GapReason::Outage, None)]);
    bridge.stop().await;
    running.stop().await;
}
