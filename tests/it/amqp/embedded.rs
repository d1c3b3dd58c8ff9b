//! The AMQP side on the embedded listener: what a newcomer runs on.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use passerelle::config::{Embedded, Input, QueueInput, Secret, Settings};
use passerelle::embedded::Listener;
use passerelle::model::gap::GapReason;
use passerelle::model::outgoing::{CallOutcome, PublishOutcome, Request};
use passerelle::source::amqp;
use tokio_util::sync::CancellationToken;

use super::bridge::*;

fn impatient(address: SocketAddr) -> Settings {
    let mut declared = queue_source("work", "jobs");
    declared.input = Input::Queue(QueueInput { queue: "jobs".into(), shared: false, declare: true });
    let mut settings =
        Settings { sources: vec![exchange_source("events", "amq.topic"), declared], ..Settings::default() };
    settings.amqp.urls = vec![Secret::new(format!("amqp://guest:guest@{address}"))];
    settings.amqp.backoff_max = Duration::from_millis(200);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_on_it_too() {
    let config = Embedded { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..Embedded::default() };
    let listener = Listener::bind(&config).unwrap();
    let address = listener.local_addr();
    let end = CancellationToken::new();
    let running = tokio::spawn(listener.run(end.clone()));
    let settings = impatient(address);
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    assert_eq!(amqp::check(&settings).await.len(), 1, "the queue that we consume ourselves");
    let _claim = bridge.claim("events", "a.#").await;
    assert!(bridge.publishes("a.b").await);
    assert_eq!(bridge.received("events", 1).await, ["x"]);
    assert_eq!(bridge.upstream.publish(outgoing("b", "x")).await, PublishOutcome::Confirmed { routed: false });
    let client = Connection::connect(&format!("amqp://{address}"), ConnectionProperties::default()).await.unwrap();
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
    end.cancel();
    running.await.unwrap().unwrap();
    until("the outage is told", || !bridge.source("events").link().up).await;
    bridge.complains("nothing listens").await;
    let again = Listener::bind(&Embedded { listen: address, ..Embedded::default() }).unwrap();
    let end = CancellationToken::new();
    let running = tokio::spawn(again.run(end.clone()));
    bridge.ready().await;
    assert!(bridge.publishes("a.b").await);
    bridge.received("events", 2).await;
    assert_eq!(bridge.holes("events"), [(GapReason::Outage, None)]);
    bridge.stop().await;
    end.cancel();
    running.await.unwrap().unwrap();
}
