//! Queue sources: messages are taken from a queue that is somebody's, so nobody else's may be taken.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use passerelle::config::{Input, QueueInput, Rejected, TemplatePart, TopicTemplate};
use passerelle::source::amqp;

use super::bridge::*;
use crate::rabbit::Rabbit;

async fn consume(client: &Client, queue: &str) -> lapin::Consumer {
    let options = BasicConsumeOptions::default();
    client.channel.basic_consume(queue.into(), "test".into(), options, FieldTable::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_queue_arrives_once_and_leaves_it() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("queue");
    client.queue(&queue).await;
    client.publish_numbers("", &queue, 0..1_000).await;
    let bridge = Bridge::start(&settings(rabbit, vec![queue_source("work", &queue)]));
    bridge.ready().await;
    let expected: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    assert_eq!(bridge.received("work", 1_000).await, expected);
    assert_eq!(bridge.log("work")[0].draft.topic.as_str(), queue);
    assert!(bridge.log("work").iter().all(|publication| !publication.draft.attributes.redelivered));
    bridge.stop().await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let left = client.channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
    assert_eq!(left.message_count(), 0, "what was appended was acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_messages_are_not_taken() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("queue");
    client.queue(&queue).await;
    let consumer = consume(&client, &queue).await;
    let bridge = Bridge::start(&settings(rabbit, vec![queue_source("work", &queue)]));
    let sentence = format!(
        "queue '{queue}' already has 1 consumer, passerelle would take its messages: use exchange = \"…\", or \
         shared = true"
    );
    bridge.complains(&sentence).await;
    client.channel.basic_cancel(consumer.tag(), Default::default()).await.unwrap();
    bridge.ready().await;
    // Now it is the other way round: the queue is ours alone.
    let other = client.connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let refused = other.basic_consume(queue.as_str().into(), "test".into(), options, FieldTable::default()).await;
    assert!(refused.unwrap_err().to_string().contains("exclusive"));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_queue_is_shared() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("queue");
    client.queue(&queue).await;
    client.channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let mut consumer = consume(&client, &queue).await;
    let mut source = queue_source("work", &queue);
    source.input = Input::Queue(QueueInput { queue: queue.clone(), shared: true, declare: false });
    let bridge = Bridge::start(&settings(rabbit, vec![source]));
    bridge.ready().await;
    client.publish_numbers("", &queue, 0..10).await;
    consumer.next().await.unwrap().unwrap();
    bridge.received("work", 1).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_our_own_declaring_has_a_single_active_consumer() {
    let rabbit = Rabbit::shared();
    let queue = unique("queue");
    let mut source = queue_source("work", &queue);
    source.input = Input::Queue(QueueInput { queue: queue.clone(), shared: false, declare: true });
    let bridge = Bridge::start(&settings(rabbit, vec![source.clone()]));
    bridge.ready().await;
    let listed = rabbit.ctl(&["list_queues", "name", "arguments", "--no-table-headers"]);
    let ours = listed.lines().find(|line| line.split('\t').next() == Some(&queue)).unwrap();
    assert!(ours.contains("x-single-active-consumer"), "{ours}");
    bridge.stop().await;
    // The next node finds the queue as it was declared, with a single active consumer, which cannot be exclusive.
    let Input::Queue(input) = &mut source.input else { unreachable!() };
    input.declare = false;
    let next = Bridge::start(&settings(rabbit, vec![source]));
    next.ready().await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_quorum_queue_the_count_of_consumers_decides() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("quorum");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let first = Bridge::start(&settings(rabbit, vec![queue_source("work", &queue)]));
    first.ready().await;
    let second = Bridge::start(&settings(rabbit, vec![queue_source("work", &queue)]));
    second.complains("already has 1 consumer, which is another node: set source.work.stream").await;
    first.stop().await;
    second.ready().await;
    second.stop().await;
    let turn = format!("passerelle.turn.{queue}");
    let queues = || rabbit.ctl(&["list_queues", "name", "--no-table-headers"]);
    until("its turn is given back", || !queues().lines().any(|name| name == turn)).await;
    let _stranger = consume(&client, &queue).await;
    let third = Bridge::start(&settings(rabbit, vec![queue_source("work", &queue)]));
    third.complains("already has 1 consumer, passerelle would take its messages").await;
    third.stop().await;
}

/// To reject a message of a stream is an error of the connection, and of all sources on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_a_queues_place_is_named_and_harms_no_other_source() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let stream = unique("stream");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(stream.as_str().into(), options, arguments).await.unwrap();
    let mut source = queue_source("work", &stream);
    source.rejected = Rejected::DeadLetter;
    source.topic = Some(TopicTemplate(vec![TemplatePart::Header("no".into())]));
    let settings = settings(rabbit, vec![source, exchange_source("events", "amq.topic")]);
    let bridge = Bridge::start(&settings);
    let sentence = format!("'{stream}' is a stream and no queue: set source.work.stream = \"{stream}\" in place of");
    bridge.complains(&sentence).await;
    client.publish("", &stream, "without the header").await;
    let _claim = bridge.claim("events", "a").await;
    tokio::time::sleep(settings.amqp.backoff_max * 2).await;
    bridge.complains(&sentence).await;
    assert_eq!(bridge.source("events").link().changes, 1, "no link was lost");
    bridge.stop().await;
    let found = amqp::check(&settings).await;
    assert!(found.len() == 1 && found[0].message.contains(&sentence), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_and_is_marked() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("queue");
    client.queue(&queue).await;
    client.publish("", &queue, "x").await;
    let mut consumer = consume(&client, &queue).await;
    // Taken and never acknowledged.
    let taken = consumer.next().await.unwrap().unwrap();
    client.connection.close(200, "bye".into()).await.unwrap();
    drop(taken);
    let mut settings = settings(rabbit, vec![queue_source("work", &queue)]);
    settings.amqp.heartbeat = Duration::from_secs(5);
    let bridge = Bridge::start(&settings);
    bridge.received("work", 1).await;
    assert!(bridge.log("work")[0].draft.attributes.redelivered);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_named_and_waited_for() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("queue");
    let bridge = Bridge::start(&settings(rabbit, vec![queue_source("work", &queue)]));
    bridge
        .complains(&format!("queue '{queue}' does not exist on vhost '/': create it or set source.work.declare = true"))
        .await;
    client.queue(&queue).await;
    bridge.ready().await;
    bridge.stop().await;
}
