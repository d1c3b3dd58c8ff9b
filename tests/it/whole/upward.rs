//! Up: what clients publish and call reaches the broker, and the broker's word reaches them.

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{Program, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_confirmed_and_seen_at_the_broker() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let service = Service::connect(&program.amqp).await;
        let mut seen = service.listen(&format!("q{topic}"), Some(&topic)).await;
        let mut client = Client::json(&program).await;
        let publish = json!({ "op": "publish", "topic": topic, "data": { "a": [1, "b"] }, "message_id": "m1", "headers": { "x": 7 } });
        let reply = client.ask(publish).await;
        assert_eq!((&reply["op"], &reply["routed"]), (&json!("ok"), &json!(true)), "{broker:?}: {reply}");
        let delivery = Service::next(&mut seen).await;
        assert_eq!(delivery.data, br#"{"a":[1,"b"]}"#.to_vec());
        assert_eq!(delivery.properties.message_id().as_ref().map(|id| id.as_str()), Some("m1"));
        assert_eq!(delivery.properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_repeated_is_answered_again_and_sent_once() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let service = Service::connect(&program.amqp).await;
        let mut seen = service.listen(&format!("q{topic}"), Some(&topic)).await;
        let publish =
            |number: u32, id: &str| json!({ "op": "publish", "topic": topic, "data": number, "message_id": id });
        let mut client = Client::json(&program).await;
        assert_eq!(client.ask(publish(1, "m1")).await["routed"], true);
        assert_eq!(client.ask(publish(1, "m1")).await["routed"], true);
        // Its line was lost before the answer, so it comes back and tries again.
        drop(client);
        let mut client = Client::json(&program).await;
        assert_eq!(client.ask(publish(1, "m1")).await["routed"], true);
        let post = format!(
            "POST /publish/{topic} HTTP/1.1\r\nHost: {}\r\nX-Message-Id: m1\r\n\
             Content-Length: 1\r\nConnection: close\r\n\r\n1",
            program.public
        );
        assert!(request(&program.public, &post).await.contains("\"routed\":true"));
        assert_eq!(client.ask(publish(2, "m2")).await["routed"], true);
        assert_eq!(Service::next(&mut seen).await.data, b"1");
        assert_eq!(Service::next(&mut seen).await.data, b"2", "{broker:?}: nothing in between");
        let counted = program.metric("passerelle_publishes_total{result=\"routed\"}").await;
        assert_eq!(counted, Some(2.0), "what was answered again was not published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_echo_gets_none_live_or_late() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let (mut own, mut other) = (Client::json(&program).await, Client::json(&program).await);
        let start = own.subscribe(&topic).await["cursors"].clone();
        other.subscribe(&topic).await;
        for (number, echo) in [(1, false), (2, true), (3, false)] {
            let publish = json!({ "op": "publish", "topic": topic, "data": number, "echo": echo });
            own.send(Message::text(publish.to_string())).await;
        }
        for number in 1..=3 {
            let message = other.news().await;
            assert_eq!((&message["data"], message.get("headers")), (&json!(number), None), "{broker:?}");
        }
        let mut news = Vec::new();
        while news.len() < 4 {
            news.push(own.news().await);
        }
        let data = |news: &[serde_json::Value]| -> Vec<_> {
            news.iter().filter(|one| one["op"] == "message").map(|one| one["data"].clone()).collect()
        };
        assert_eq!(data(&news), [json!(2)], "{broker:?}: three answers and one message");
        let again = json!({ "op": "subscribe", "pattern": topic, "after": start });
        assert_eq!(own.ask(again).await["resumed"], true);
        let replayed = [own.news().await, own.news().await];
        assert_eq!(data(&replayed), [json!(2)]);
        assert_eq!(replayed[1]["op"], "caught_up");
    }
}

/// A service that answers with the properties of what it got copies our marks too, which were of another topic.
#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_echo_gets_what_a_service_makes_of_it() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let (asked, told) = (word(), word());
        let service = Service::connect(&program.amqp).await;
        let mut seen = service.listen(&format!("q{asked}"), Some(&asked)).await;
        let mut client = Client::json(&program).await;
        client.subscribe(&told).await;
        let publish = json!({ "op": "publish", "topic": asked, "data": 1, "echo": false });
        assert_eq!(client.ask(publish).await["routed"], true);
        let properties = Service::next(&mut seen).await.properties;
        let options = BasicPublishOptions::default();
        let sent = service.channel.basic_publish("amq.topic".into(), told.as_str().into(), options, b"2", properties);
        sent.await.expect("a publish");
        let message = client.news().await;
        assert_eq!((&message["topic"], &message["data"]), (&json!(told), &json!(2)), "{broker:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_takes_is_told() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let mut client = Client::json(&program).await;
        let topic = word();
        let reply = client.ask(json!({ "op": "publish", "topic": topic, "data": 1 })).await;
        assert_eq!((&reply["op"], &reply["routed"]), (&json!("ok"), &json!(false)), "{reply}");
        let reply = client.ask(json!({ "op": "publish", "topic": topic, "data": 1, "mandatory": true })).await;
        assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("unroutable")), "{reply}");
        let reply = client.ask(json!({ "op": "call", "topic": topic, "data": 1 })).await;
        assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("unroutable")), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_by_a_service() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let queue = word();
        let service = Service::connect(&program.amqp).await;
        let mut calls = service.listen(&queue, None).await;
        let answering = tokio::spawn(async move {
            while let Some(Ok(call)) = calls.next().await {
                let to = call.properties.reply_to().clone().unwrap();
                let properties =
                    BasicProperties::default().with_correlation_id(call.properties.correlation_id().clone().unwrap());
                let body = [b"\"heard ".as_slice(), &call.data, b"\""].concat();
                service
                    .channel
                    .basic_publish("".into(), to, BasicPublishOptions::default(), &body, properties)
                    .await
                    .unwrap();
            }
        });
        let mut client = Client::json(&program).await;
        let reply = client.ask(json!({ "op": "call", "topic": queue, "data": 7 })).await;
        assert_eq!((&reply["op"], &reply["data"]), (&json!("result"), &json!("heard 7")), "{broker:?}");
        answering.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_frames_go_up_and_down() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut one = Client::raw(&program, "pattern=room&publish=room").await;
    let mut other = Client::raw(&program, "pattern=room").await;
    crate::program::until("both listen", async || program.metric("passerelle_subscriptions").await == Some(2.0)).await;
    one.send(Message::text("hello")).await;
    assert_eq!(one.text().await, "hello");
    assert_eq!(other.text().await, "hello");
    one.send(Message::binary(vec![0xff, 0])).await;
    assert_eq!(other.message().await, Message::binary(vec![0xff, 0]));
    other.send(Message::text("no")).await;
    assert_eq!(other.closed().await, (1003, "this socket only listens: add ?publish=TOPIC".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_a_socket_publishes_over_http() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut client = Client::json(&program).await;
    client.subscribe("orders.#").await;
    let post = |host: &str, more: &str, body: &str| {
        format!(
            "POST /publish/orders.eu HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n{body}",
            body.len()
        )
    };
    let answer = request(
        &program.public,
        &post(&program.public, "Content-Type: application/json\r\nX-Message-Id: m7\r\n", "{\"n\":1}"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"routed\":true"), "{answer}");
    let message = client.news().await;
    assert_eq!((&message["data"]["n"], &message["message_id"]), (&json!(1), &json!("m7")));
    let foreign = request(&program.public, &post(&program.public, "Origin: https://elsewhere.example\r\n", "1")).await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
}

/// Two publishes are the same when all of them is; an empty id is none.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_choose_the_same_message_id_publish_both() {
    let program = Broker::Embedded.serve(&[]).await;
    let (mut one, mut other) = (Client::json(&program).await, Client::json(&program).await);
    let mut listener = Client::json(&program).await;
    let topic = word();
    listener.subscribe(&topic).await;
    let publish = |id: &str, data: u8| json!({ "op": "publish", "topic": topic, "data": data, "message_id": id });
    for (client, id, data) in [(0, "1", 1), (1, "1", 2), (0, "1", 1), (0, "", 3), (0, "", 3)] {
        let client = if client == 0 { &mut one } else { &mut other };
        assert_eq!(client.ask(publish(id, data)).await["op"], "ok");
    }
    let mut came = Vec::new();
    for _ in 0..4 {
        came.push(listener.news().await["data"].as_u64().unwrap());
    }
    assert_eq!(came, [1, 2, 3, 3]);
}

/// One poisoned publish among a hundred good ones: it alone is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_publish_harms_nobody() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let mut good = Client::json(&program).await;
        let mut bad = Client::json(&program).await;
        let topic = word();
        good.subscribe(&topic).await;
        for number in 0..100 {
            good.send(Message::text(
                json!({ "op": "publish", "id": number, "topic": topic, "data": number }).to_string(),
            ))
            .await;
            if number % 10 == 0 {
                for headers in [json!({ "CC": "not an array" }), json!({ "x-death": [] }), json!({ "user_id": "root" })]
                {
                    let reply =
                        bad.ask(json!({ "op": "publish", "topic": topic, "data": 0, "headers": headers })).await;
                    assert_eq!(reply["op"], "error", "{reply}");
                }
            }
        }
        let (mut confirmed, mut received) = (0, 0);
        while confirmed < 100 || received < 100 {
            match good.news().await {
                object if object["op"] == "ok" => confirmed += 1,
                object if object["op"] == "message" => received += 1,
                other => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_publish_into_ones_own_broker() {
    let program = Program::start(Some(&crate::rabbit::Rabbit::shared().url()), &[]);
    program.ready().await;
    let mut client = Client::json(&program).await;
    let reply = client.ask(json!({ "op": "publish", "topic": "a", "data": 1 })).await;
    assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("forbidden")), "{reply}");
}
