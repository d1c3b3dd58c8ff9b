//! Down: what is published reaches everybody who subscribed, once and in order.

use std::time::Duration;

use serde_json::json;

use super::client::{Client, EventStream, Service};
use super::{Broker, word};
use crate::program::{Program, http_get, until};
use crate::rabbit::Rabbit;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_client_gets_every_message_in_order() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let word = word();
        let mut object = Client::json(&program).await;
        object.subscribe(&format!("{word}.#")).await;
        let mut raw = Client::raw(&program, &format!("pattern={word}.%23")).await;
        let mut stream = EventStream::open(&program, &format!("pattern={word}.%23"), None).await;
        assert_eq!(stream.event().await.event.as_deref(), Some("subscribed"));
        until("the raw client is subscribed", async || program.metric("passerelle_subscriptions").await == Some(3.0))
            .await;
        let service = Service::connect(&program.amqp).await;
        for number in 0..200 {
            service.publish(&format!("{word}.a"), &format!("{{\"n\":{number}}}")).await;
        }
        for number in 0..200 {
            let message = object.news().await;
            assert_eq!((&message["op"], &message["data"]["n"]), (&json!("message"), &json!(number)), "{broker:?}");
            assert_eq!(raw.text().await, format!("{{\"n\":{number}}}"));
            let block = stream.message().await;
            assert!(block.data.contains(&format!("\"data\":{{\"n\":{number}}}")), "{block:?}");
            assert!(block.id.is_some());
        }
    }
}

/// Each of 200 subscribers with its own mixture of patterns gets exactly what the naive matcher says.
/// What a URL asks for is one sequence, each message of it once, however many of its patterns match.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_several_patterns_come_to_a_raw_client_once_and_in_order() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    let word = word();
    let mut first = Client::raw(&program, &format!("pattern={word}.%23")).await;
    until("it is subscribed", async || program.metric("passerelle_subscriptions").await == Some(1.0)).await;
    for (level, number) in [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)] {
        service.publish(&format!("{word}.{level}"), &number.to_string()).await;
    }
    for number in 1..=5 {
        assert_eq!(first.text().await, number.to_string());
    }
    let query = format!("pattern={word}.%23&pattern={word}.a&pattern=*.b&last=2");
    let mut second = Client::raw(&program, &query).await;
    until("it is subscribed", async || program.metric("passerelle_subscriptions").await == Some(4.0)).await;
    service.publish(&format!("{word}.b"), "6").await;
    for number in [2, 3, 4, 5, 6] {
        assert_eq!(second.text().await, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_mixtures_of_patterns_get_exactly_their_messages() {
    const MESSAGES: usize = 10_000;
    let program = Broker::Rabbit.serve(&[("PASSERELLE_LIMITS__OUTBOX_BYTES_MAX", "64 MiB")]).await;
    let word = word();
    let topics: Vec<String> =
        ["", ".a", ".b", ".a.b", ".b.a", ".a.b.c", ".c.b", "."].iter().map(|rest| format!("{word}{rest}")).collect();
    let shapes = [".#", ".a", ".*", ".*.b", ".#.c", ".a.#", ".b.*", ".none"];
    let published: Vec<usize> = (0..MESSAGES).map(|_| fastrand::usize(..topics.len())).collect();
    let mut subscribers = Vec::new();
    for number in 0..200 {
        let mut client = Client::json(&program).await;
        let patterns: Vec<String> =
            (0..=number % 3).map(|_| format!("{word}{}", shapes[fastrand::usize(..shapes.len())])).collect();
        for pattern in &patterns {
            client.subscribe(pattern).await;
        }
        let parsed: Vec<_> =
            patterns.iter().map(|pattern| passerelle::model::topic::Pattern::parse(pattern).unwrap()).collect();
        let matches = |topic: &str| {
            let topic = passerelle::model::topic::Topic::parse(topic).unwrap();
            parsed.iter().any(|pattern| pattern.matches(&topic))
        };
        let wanted: Vec<bool> = topics.iter().map(|topic| matches(topic)).collect();
        let expected: Vec<usize> = (0..MESSAGES).filter(|message| wanted[published[*message]]).collect();
        subscribers.push((client, patterns, expected));
    }
    let listen = |(mut client, patterns, expected): (Client, Vec<String>, Vec<usize>)| async move {
        for message in expected {
            let text = client.text().await;
            assert!(text.contains(&format!("\"data\":{message},")), "{patterns:?}: {text} instead of {message}");
        }
        assert!(client.is_quiet_for(Duration::from_millis(200)).await, "nothing more");
    };
    let subscribers: Vec<_> = subscribers.into_iter().map(|one| tokio::spawn(listen(one))).collect();
    let service = Service::connect(&program.amqp).await;
    for (message, topic) in published.iter().enumerate() {
        service.publish(&topics[*topic], &message.to_string()).await;
    }
    for subscriber in subscribers {
        subscriber.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_on_a_topic_are_one_binding() {
    let program = Broker::Rabbit.serve(&[]).await;
    let topic = word();
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let mut client = Client::json(&program).await;
        client.subscribe(&topic).await;
        clients.push(client);
    }
    let bindings = Rabbit::shared().ctl(&["list_bindings", "routing_key"]);
    assert_eq!(bindings.lines().filter(|line| line.trim() == topic).count(), 1, "{bindings}");
    let service = Service::connect(&program.amqp).await;
    service.publish(&topic, "\"all\"").await;
    for client in &mut clients {
        assert_eq!(client.news().await["data"], "all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_gets_what_was_missed_and_only_that() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let service = Service::connect(&program.amqp).await;
        let mut first = Client::json(&program).await;
        first.subscribe(&topic).await;
        let mut stays = Client::json(&program).await;
        stays.subscribe(&topic).await;
        service.publish(&topic, "1").await;
        let cursor = first.news().await["cursor"].clone();
        drop(first);
        for number in 2..=5 {
            service.publish(&topic, &number.to_string()).await;
        }
        for number in 1..=5 {
            assert_eq!(stays.news().await["data"], number);
        }
        let mut back = Client::json(&program).await;
        let reply = back.ask(json!({ "op": "subscribe", "pattern": topic, "after": { "events": cursor } })).await;
        assert_eq!((&reply["op"], &reply["resumed"]), (&json!("subscribed"), &json!(true)), "{reply}");
        for number in 2..=5 {
            let message = back.news().await;
            assert_eq!((&message["data"], &message["replay"]), (&json!(number), &json!(true)));
        }
        assert_eq!(back.news().await["op"], "caught_up");
        service.publish(&topic, "6").await;
        let message = back.news().await;
        assert_eq!((&message["data"], &message["replay"]), (&json!(6), &json!(null)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_goes_on_at_its_last_event() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    let mut stream = EventStream::open(&program, "pattern=a&pattern=b", None).await;
    for _ in 0..2 {
        assert_eq!(stream.event().await.event.as_deref(), Some("subscribed"));
    }
    for number in 0..6 {
        service.publish(if number % 2 == 0 { "a" } else { "b" }, &number.to_string()).await;
    }
    let mut last = None;
    for number in 0..3 {
        let block = stream.message().await;
        assert!(block.data.contains(&format!("\"data\":{number},")), "{block:?}");
        last = block.id;
    }
    let mut again = EventStream::open(&program, "pattern=a&pattern=b", last.as_deref()).await;
    for number in 3..6 {
        let block = again.message().await;
        assert!(block.data.contains(&format!("\"data\":{number},")), "{block:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_run_is_an_honest_gap() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut client = Client::json(&program).await;
    let reply = client.ask(json!({ "op": "subscribe", "pattern": "x", "after": { "events": "7.7" } })).await;
    assert_eq!(reply["resumed"], false);
    let gap = client.news().await;
    assert_eq!((&gap["op"], &gap["reason"], &gap["missed"]), (&json!("gap"), &json!("unknown_cursor"), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_the_client_and_the_lists_are_served() {
    let program = Program::start(None, &[("PASSERELLE_SERVER__PATH_PREFIX", "/live")]);
    program.ready().await;
    for path in ["/", "/live/", "/app.js", "/app.css", "/client.js", "/live/client.js"] {
        let answer = http_get(&program.public, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {}", answer.lines().next().unwrap_or_default());
    }
    assert!(http_get(&program.public, "/nothing").await.starts_with("HTTP/1.1 404"));
    let answer = http_get(&program.public, "/ws").await;
    assert!(answer.starts_with("HTTP/1.1 426") && answer.contains("this is a WebSocket"), "{answer}");
    let mut client =
        Client::open(&program, "/live/ws", &[("sec-websocket-protocol", "passerelle.v1.json")]).await.unwrap();
    client.subscribe("a.*").await;
    Service::connect(&program.amqp).await.publish("a.b", "1").await;
    client.news().await;
    let connections = program.get("/api/v1/connections").await;
    assert!(connections.contains("\"patterns\":[\"a.*\"]") && connections.contains("\"matched\":1"), "{connections}");
    let topics = program.get("/api/v1/topics").await;
    assert!(topics.contains("\"topic\":\"a.b\""), "{topics}");
}
