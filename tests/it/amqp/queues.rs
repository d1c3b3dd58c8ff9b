//! Queue sources: messages are taken from a queue that is somebody's, so nobody else's may be taken.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use passerelle::config::{Input, QueueInput, Rejected, Settings, TemplatePart, TopicTemplate};
use passerelle::model::gap::GapReason;
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

/// Ends the connection on which a node consumes, at the broker.
fn cut(rabbit: &Rabbit, settings: &Settings) {
    let listed = rabbit.ctl(&["list_connections", "pid", "client_properties", "--no-table-headers"]);
    let name = format!("\"passerelle {} consume\"", settings.amqp.node);
    let connections = listed.lines().filter_map(|line| line.split_once('\t'));
    for (process, _) in connections.filter(|(_, properties)| properties.contains(&name)) {
        rabbit.ctl(&["close_connection", process, "cut"]);
    }
}

/// Waits until a source stands for the second time.
async fn stands_again(bridge: &Bridge) {
    until("the source stands again", || bridge.source("work").link().changes == 3).await;
}

/// A queue, and a node that has consumed `before` of it.
async fn consumed(rabbit: &'static Rabbit, client: &Client) -> (String, Settings, Bridge) {
    let queue = unique("queue");
    client.queue(&queue).await;
    let settings = settings(rabbit, vec![queue_source("work", &queue)]);
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    client.publish("", &queue, "before").await;
    bridge.received("work", 1).await;
    (queue, settings, bridge)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_keeps_what_comes_while_the_link_is_lost() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (queue, settings, bridge) = consumed(rabbit, &client).await;
    cut(rabbit, &settings);
    client.publish("", &queue, "after").await;
    stands_again(&bridge).await;
    assert_eq!(bridge.received("work", 2).await, ["before", "after"]);
    assert_eq!(bridge.holes("work"), []);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_took_meanwhile_is_told() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (queue, settings, bridge) = consumed(rabbit, &client).await;
    let stranger = async {
        loop {
            // It closes with each refusal.
            let Ok(channel) = client.connection.create_channel().await else { continue };
            let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
            if let Ok(consumer) = channel.basic_consume(queue.as_str().into(), "test".into(), options, nothing).await {
                return (channel, consumer);
            }
            // A refusal costs a channel's number for good, of which there are two thousand.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let cutting = tokio::task::spawn_blocking(move || cut(rabbit, &settings));
    let (channel, mut consumer) = tokio::time::timeout(PATIENCE, stranger).await.unwrap();
    cutting.await.unwrap();
    bridge.complains("already has 1 consumer, passerelle would take its messages").await;
    client.publish("", &queue, "theirs").await;
    consumer.next().await.unwrap().unwrap().ack(Default::default()).await.unwrap();
    channel.close(200, "bye".into()).await.unwrap();
    stands_again(&bridge).await;
    client.publish("", &queue, "after").await;
    assert_eq!(bridge.received("work", 2).await, ["before", "after"]);
    assert_eq!(bridge.holes("work"), [(GapReason::Outage, None)]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_took_meanwhile_is_told() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("queue");
    client.queue(&queue).await;
    let of_one = settings(rabbit, vec![queue_source("work", &queue)]);
    let mut of_two = settings(rabbit, vec![queue_source("work", &queue)]);
    // So that it is there first when the turn is free.
    of_two.amqp.backoff_max = Duration::from_millis(20);
    let one = Bridge::start(&of_one);
    one.ready().await;
    client.publish("", &queue, "one").await;
    one.received("work", 1).await;
    let two = Bridge::start(&of_two);
    two.complains("which is another node").await;
    // Whichever of the two is there first after a cut.
    let passes = async {
        while !two.readiness.reasons().is_empty() {
            cut(rabbit, &of_one);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, passes).await.expect("it is the other's turn");
    one.complains("which is another node").await;
    client.publish("", &queue, "two").await;
    assert_eq!(two.received("work", 1).await, ["two"]);
    two.stop().await;
    one.ready().await;
    client.publish("", &queue, "three").await;
    assert_eq!(one.received("work", 2).await, ["one", "three"]);
    assert_eq!(one.holes("work"), [(GapReason::Outage, None)]);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_made_anew_has_lost_what_the_first_one_held() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    for declare in [false, true] {
        let queue = unique("queue");
        let mut source = queue_source("work", &queue);
        source.input = Input::Queue(QueueInput { queue: queue.clone(), shared: false, declare });
        if !declare {
            client.queue(&queue).await;
        }
        let bridge = Bridge::start(&settings(rabbit, vec![source]));
        bridge.ready().await;
        client.publish("", &queue, "before").await;
        bridge.received("work", 1).await;
        client.channel.queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
        if !declare {
            client.queue(&queue).await;
        }
        stands_again(&bridge).await;
        client.publish("", &queue, "after").await;
        assert_eq!(bridge.received("work", 2).await, ["before", "after"]);
        assert_eq!(bridge.holes("work"), [(GapReason::Outage, None)]);
        bridge.stop().await;
    }
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
