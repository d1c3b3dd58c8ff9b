//! Shared subscriptions of MQTT: a group's members on one node and on several, through MQTT.js and paho.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use futures_util::future::select_all;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::mqtt::{Conversation, Library, lasting};
use crate::program::{Program, until};
use crate::whole::client::Service;
use crate::whole::{Broker, word};

/// Messages that are published to a group.
const COUNT: usize = 300;

/// Deliveries that a node's clients hold.
const HELD: &str = "passerelle_held_deliveries";

fn filter(topic: &str) -> String {
    format!("$share/readers/{topic}/#")
}

fn group(topic: &str) -> Value {
    json!([{ "filter": filter(topic), "qos": 1 }])
}

fn leave(topic: &str) -> Value {
    json!({ "order": "unsubscribe", "filters": [filter(topic)] })
}

/// The group's queue, as the broker tells of it: messages that wait, and consumers.
async fn queue(service: &Service, topic: &str) -> (u32, u32) {
    let name = format!("passerelle.share.readers.{topic}.#");
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = service.channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await;
    let queue = queue.expect("the group's queue");
    (queue.message_count(), queue.consumer_count())
}

/// Waits until a node's clients hold nothing: a message is seen a little before it is acknowledged, and who goes in between
/// gives it back.
async fn settled(node: &Program) {
    until("all is settled", async || node.metric(HELD).await == Some(0.0)).await;
}

/// The next message that any of the members gets, and which of them it is.
async fn next(members: &mut [Conversation]) -> (usize, Value) {
    let (message, member, _) = select_all(members.iter_mut().map(|member| member.message().boxed())).await;
    (member, message)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_group_goes_to_one_member_on_whatever_node() {
    for broker in Broker::BOTH {
        let first = broker.serve(&[]).await;
        let others = match broker {
            Broker::Embedded => Vec::new(),
            Broker::Rabbit => vec![broker.serve(&[]).await],
        };
        let nodes: Vec<&Program> = [&first].into_iter().chain(&others).collect();
        let service = Service::connect(&first.amqp).await;
        for library in Library::ALL {
            let topic = word();
            let mut members = Vec::new();
            for number in 0..3 {
                let mut member = library.connect(nodes[number % nodes.len()]).await;
                assert_eq!(member.subscribe(group(&topic)).await, json!([1]), "{library:?}, {broker:?}");
                members.push(member);
            }
            let mut watcher = library.connect(&first).await;
            watcher.subscribe(json!([{ "filter": format!("{topic}/#"), "qos": 1 }])).await;
            assert_eq!(queue(&service, &topic).await.1, 3, "one consumer a member");
            for number in 0..COUNT {
                service.publish(&format!("{topic}.{}", number % 7), &number.to_string()).await;
            }
            let (mut seen, mut shares) = (BTreeSet::new(), [0; 3]);
            for _ in 0..COUNT {
                let (member, message) = next(&mut members).await;
                assert_eq!(message["message"]["qos"], 1, "{library:?}");
                let number: usize = message["body"].as_str().unwrap().parse().unwrap();
                assert_eq!(message["message"]["topic"], format!("{topic}/{}", number % 7), "{library:?}");
                assert!(seen.insert(number), "{number} came twice, {library:?}, {broker:?}");
                shares[member] += 1;
            }
            assert!(shares.iter().all(|share| *share > 0), "each has a part: {shares:?}, {library:?}, {broker:?}");
            for number in 0..COUNT {
                assert_eq!(watcher.message().await["body"], number.to_string(), "who is in no group gets all");
            }
            for node in &nodes {
                settled(node).await;
            }
            drop(members);
            until("nothing is left", async || queue(&service, &topic).await == (0, 0)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_has_not_acknowledged_goes_to_another() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::ALL {
            let topic = word();
            let mut holds = library.connect_with(&program, json!({ "hold": true })).await;
            assert_eq!(holds.subscribe(group(&topic)).await, json!([1]));
            for number in 0..5 {
                service.publish(&topic, &number.to_string()).await;
            }
            assert_eq!(holds.message().await["body"], "0", "{library:?}, {broker:?}");
            until("it has them all", async || program.metric(HELD).await == Some(5.0)).await;
            let mut other = library.connect(&program).await;
            assert_eq!(other.subscribe(group(&topic)).await, json!([1]));
            holds.order(&json!({ "order": "break" }));
            for number in 0..5 {
                assert_eq!(other.message().await["body"], number.to_string(), "{library:?}, {broker:?}");
            }
            settled(&program).await;
            assert_eq!(queue(&service, &topic).await, (0, 1), "{library:?}, {broker:?}");
            // What comes while nobody is there waits for the next one.
            other.order(&leave(&topic));
            let ended = other.next("unsubscribed").await;
            assert_eq!(ended, if library.is_v5() { json!([0]) } else { json!([]) }, "{library:?}");
            service.publish(&topic, "late").await;
            until("it waits", async || queue(&service, &topic).await == (1, 0)).await;
            assert_eq!(other.subscribe(group(&topic)).await, json!([1]));
            assert_eq!(other.message().await["body"], "late", "{library:?}, {broker:?}");
            settled(&program).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_goes_on_is_a_member_again() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    for library in Library::ALL {
        let (topic, name) = (word(), word());
        let mut first = library.start(&program, lasting(&name));
        assert_eq!(first.next("connected").await["present"], false, "{library:?}");
        assert_eq!(first.subscribe(group(&topic)).await, json!([1]));
        first.order(&json!({ "order": "break" }));
        until("it is gone", async || queue(&service, &topic).await == (0, 0)).await;
        service.publish(&topic, "meanwhile").await;
        let mut second = library.start(&program, lasting(&name));
        // As MQTT.js does on every connection.
        assert_eq!(second.subscribe(group(&topic)).await, json!([1]), "{library:?}");
        assert_eq!(second.next("connected").await["present"], true, "{library:?}");
        assert_eq!(second.message().await["body"], "meanwhile", "{library:?}");
        settled(&program).await;
        assert_eq!(queue(&service, &topic).await, (0, 1), "{library:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leaves_and_joins_without_waiting_gets_every_message_once() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::ALL {
            let topic = word();
            let mut member = library.connect(&program).await;
            assert_eq!(member.subscribe(group(&topic)).await, json!([1]));
            let subscribe = json!({ "order": "subscribe", "filters": group(&topic) });
            for number in 0..10 {
                service.publish(&topic, &number.to_string()).await;
                if number % 2 == 0 {
                    member.order(&leave(&topic));
                }
                member.order(&subscribe);
            }
            for _ in 0..10 {
                assert_eq!(member.next("subscribed").await, json!([1]), "{library:?}, {broker:?}");
            }
            let mut seen = BTreeSet::new();
            for _ in 0..10 {
                let body = member.message().await["body"].as_str().unwrap().to_owned();
                assert!(seen.insert(body), "twice: {seen:?}, {library:?}, {broker:?}");
            }
            settled(&program).await;
            until("it is one member", async || queue(&service, &topic).await == (0, 1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_routing_key_comes_as_it_comes_to_everybody() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        let (name, body) = (word(), word());
        let mut client = Library::ALL[0].connect(&program).await;
        let shared = format!("$share/{name}/events");
        let granted = client.subscribe(json!([{ "filter": shared, "qos": 1 }, { "filter": "events", "qos": 0 }])).await;
        assert_eq!(granted, json!([1, 0]), "{broker:?}");
        service.publish("", &body).await;
        let mut qualities = BTreeSet::new();
        while qualities.len() < 2 {
            let message = client.message().await;
            // Others publish to a broker that all share.
            if message["body"] == body.as_str() {
                assert_eq!(message["message"]["topic"], "events", "{broker:?}");
                qualities.insert(message["message"]["qos"].as_u64());
            }
        }
        settled(&program).await;
    }
}

/// Each retained message has a second key, by which every node gets it, and which a filter of a group may match.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_nothing_that_its_filter_does_not_match() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        let (name, body) = (word(), word());
        let mut member = Library::ALL[0].connect(&program).await;
        let shared = format!("$share/{name}/x/#");
        assert_eq!(member.subscribe(json!([{ "filter": shared, "qos": 1 }])).await, json!([1]), "{broker:?}");
        let retained = json!({ "topic": format!("secret/{name}"), "body": body, "qos": 1, "retain": true });
        assert!(member.publish(&retained).await.is_u64(), "{broker:?}");
        service.publish(&format!("x.{name}"), &body).await;
        loop {
            let message = member.message().await;
            let topic = message["message"]["topic"].as_str().unwrap().to_owned();
            assert!(topic.starts_with("x/"), "{topic}, {broker:?}");
            // Others publish to a broker that all share.
            if message["body"] == body.as_str() {
                break;
            }
        }
        settled(&program).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_one_group_after_the_other_leaves_few_queues() {
    const ABANDONED: &str = "passerelle_abandoned_groups";
    let program = Broker::Embedded.serve(&[("PASSERELLE_MQTT__ABANDONED_SHARES_MAX", "2")]).await;
    let (topic, mut client) = (word(), Library::ALL[3].connect(&program).await);
    let filter = |group: usize| format!("$share/g{group}/{topic}");
    let wanted = |group: usize| json!([{ "filter": filter(group), "qos": 1 }]);
    for group in 0..2 {
        assert_eq!(client.subscribe(wanted(group)).await, json!([1]));
        client.order(&json!({ "order": "unsubscribe", "filters": [filter(group)] }));
        assert_eq!(client.next("unsubscribed").await, json!([0]));
        until("it is left", async || program.metric(ABANDONED).await == Some(group as f64 + 1.0)).await;
    }
    assert_eq!(client.subscribe(wanted(2)).await, json!([0x97]), "no other may begin");
    assert_eq!(client.subscribe(wanted(0)).await, json!([1]), "one that is there may go on");
    assert_eq!(client.subscribe(wanted(2)).await, json!([1]), "and is not left any more");
}
