//! RabbitMQ's tutorials, one to six, with pika and amqplib: each works by itself, on the embedded broker too, and what it
//! sends reaches a WebSocket by way of a source of the fitting kind, or of a call.

use serde_json::json;

use super::script::Library;
use crate::program::Program;
use crate::whole::client::Client;
use crate::whole::{Broker, word};

/// Every broker with every library.
fn stages() -> impl Iterator<Item = (Broker, Library)> {
    Broker::BOTH.into_iter().flat_map(|broker| Library::BOTH.map(|library| (broker, library)))
}

/// A program whose source may still have to wait for what a tutorial declares.
fn start(broker: Broker, source: &[(&str, &str)]) -> Program {
    let variables: Vec<_> =
        source.iter().map(|(key, value)| (format!("PASSERELLE_SOURCE__TUTORIAL__{key}"), *value)).collect();
    let mut environment = vec![("PASSERELLE_AMQP__BACKOFF_MAX", "200ms")];
    environment.extend(variables.iter().map(|(name, value)| (name.as_str(), *value)));
    broker.start(&environment)
}

/// The topic and the payload of the next message.
async fn message(client: &mut Client) -> (String, String) {
    loop {
        let object = client.news().await;
        if object["op"] == "message" {
            let text = |name: &str| object[name].as_str().expect("a text").to_owned();
            return (text("topic"), text("data"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sends_by_way_of_a_queue() {
    for (broker, library) in stages() {
        let (queue, aside) = (word(), word());
        let program = start(broker, &[("QUEUE", &queue)]);
        let script = "tutorials/hello";
        let mut receiver = library.consumer(script, &program.amqp, &["receive", &aside]).await;
        library.other().finish(script, &program.amqp, &["send", &aside, "Hello World!"]).await;
        assert_eq!(receiver.line().await, "Hello World!", "{broker:?}, {library:?}");
        library.finish(script, &program.amqp, &["send", &queue, "Hello page!"]).await;
        program.ready().await;
        let mut client = Client::json(&program).await;
        client.ask(json!({ "op": "subscribe", "pattern": queue, "last": 1 })).await;
        assert_eq!(message(&mut client).await, (queue, "Hello page!".to_owned()), "{broker:?}, {library:?}");
    }
}

/// A worker gets the next task when it has acknowledged the one before.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_gives_tasks_to_workers() {
    for (broker, library) in stages() {
        let program = broker.serve(&[]).await;
        let queue = word();
        let mut worker = library.consumer("tutorials/work", &program.amqp, &["receive", &queue]).await;
        library.other().finish("tutorials/work", &program.amqp, &["send", &queue, "a", "b", "c", "d"]).await;
        for task in ["a", "b", "c", "d"] {
            assert_eq!(worker.line().await, task, "{broker:?}, {library:?}");
        }
    }
}

/// Passerelle is one worker of two. The other takes a task, works on it for minutes, and dies: its task comes again.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_gives_a_dead_workers_task_to_passerelle() {
    for (broker, library) in stages() {
        let queue = word();
        let program = start(broker, &[("QUEUE", &queue), ("SHARED", "true")]);
        let mut worker = library.consumer("tutorials/work", &program.amqp, &["receive", &queue]).await;
        program.ready().await;
        let mut client = Client::json(&program).await;
        client.subscribe(&queue).await;
        let tasks = ["a", "b", "c", "d"].map(|task| format!("{task}{}", ".".repeat(300)));
        let arguments: Vec<&str> = ["send", &queue].into_iter().chain(tasks.iter().map(String::as_str)).collect();
        library.finish("tutorials/work", &program.amqp, &arguments).await;
        let held = worker.line().await;
        for task in tasks.iter().filter(|task| **task != held) {
            let message = client.news().await;
            assert_eq!((&message["data"], &message["redelivered"]), (&json!(task), &json!(null)), "{message}");
        }
        drop(worker);
        let message = client.news().await;
        assert_eq!((&message["data"], &message["redelivered"]), (&json!(held), &json!(true)), "{message}");
    }
}

/// What is sent to an exchange, by key and body.
type Sent<'a> = &'a [(&'a str, &'a str)];

/// Sends to an exchange of a type; its tutorial's receiver listens by one key, a WebSocket client by some patterns.
/// Both get what they should, and what is sent last ends it.
async fn by_way_of_an_exchange(kind: &str, (key, patterns): (&str, &[&str]), sent: Sent<'_>, seen: [Sent<'_>; 2]) {
    for (broker, library) in stages() {
        let exchange = word();
        let program = start(broker, &[("EXCHANGE", &exchange), ("TYPE", kind)]);
        let script = "tutorials/exchange";
        let mut receiver = library.consumer(script, &program.amqp, &["receive", &exchange, kind, key]).await;
        program.ready().await;
        let mut client = Client::json(&program).await;
        for pattern in patterns {
            client.subscribe(pattern).await;
        }
        for (key, body) in sent {
            library.other().finish(script, &program.amqp, &["send", &exchange, kind, key, body]).await;
        }
        for (key, body) in seen[0] {
            assert_eq!(receiver.line().await, format!("{key}:{body}"), "{broker:?}, {library:?}");
        }
        for (topic, body) in seen[1] {
            assert_eq!(
                message(&mut client).await,
                ((*topic).to_owned(), (*body).to_owned()),
                "{broker:?}, {library:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_sends_to_everybody() {
    let sent: Sent<'_> = &[("", "one"), ("", "two")];
    // A routing key that is empty makes the source's name the topic.
    let seen: Sent<'_> = &[("tutorial", "one"), ("tutorial", "two")];
    by_way_of_an_exchange("fanout", ("", &["tutorial"]), sent, [sent, seen]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fourth_sends_by_severity() {
    let sent: Sent<'_> = &[("info", "started"), ("error", "burnt"), ("warning", "hot"), ("error", "gone")];
    let errors: Sent<'_> = &[sent[1], sent[3]];
    by_way_of_an_exchange("direct", ("error", &["warning", "error"]), sent, [errors, &sent[1..]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_sends_by_pattern() {
    let sent: Sent<'_> =
        &[("kern.info", "up"), ("cron.critical", "late"), ("cron.info", "ran"), ("kern.critical", "panic")];
    let kernel: Sent<'_> = &[sent[0], sent[3]];
    let watched: Sent<'_> = &[sent[0], sent[1], sent[3]];
    by_way_of_an_exchange("topic", ("kern.*", &["kern.*", "*.critical"]), sent, [kernel, watched]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sixth_answers_scripts_and_pages() {
    for (broker, library) in stages() {
        let program = broker.serve(&[]).await;
        let queue = word();
        let _service = library.consumer("tutorials/rpc", &program.amqp, &["receive", &queue]).await;
        let answers = library.other().finish("tutorials/rpc", &program.amqp, &["send", &queue, "10"]).await;
        assert_eq!(answers, ["55"], "{broker:?}, {library:?}");
        let mut client = Client::json(&program).await;
        let reply = client.ask(json!({ "op": "call", "topic": queue, "data": 11 })).await;
        assert_eq!((&reply["op"], &reply["data"]), (&json!("result"), &json!(89)), "{broker:?}, {library:?}");
    }
}
