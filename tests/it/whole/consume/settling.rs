//! Who holds which message, and where it goes when they settle it or do not.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Scene, acked, deliveries, delivery, put, stale};
use crate::program::until;
use crate::rabbit::Rabbit;
use crate::whole::Broker;
use crate::whole::client::Client;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_gone() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..3).await;
        let mut client = scene.client(3).await;
        for tag in deliveries(&mut client, 0..3, false).await {
            acked(&mut client, &tag).await;
            // A tag is good once.
            stale(&mut client, &tag).await;
        }
        if let Broker::Rabbit = broker {
            let empty = format!("{}\t0", scene.queue);
            until("RabbitMQ has none of it", async || {
                Rabbit::shared().ctl(&["list_queues", "name", "messages"]).lines().any(|line| line == empty)
            })
            .await;
        }
        drop(client);
        scene.until_left().await;
        assert_eq!((scene.ready().await, scene.settled("acknowledged").await), (0, 3.0), "{broker:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_comes_again_or_is_gone() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut client = scene.client(1).await;
        let tag = delivery(&mut client, 0, false).await;
        client.send(Message::text(json!({ "op": "nack", "id": "back", "delivery_tag": tag }).to_string())).await;
        // The answer and the message pass through the broker's hands on different ways.
        let (one, other) = (client.news().await, client.news().await);
        let (reply, message) = if one["op"] == "ok" { (one, other) } else { (other, one) };
        assert_eq!((&reply["op"], &reply["id"]), (&json!("ok"), &json!("back")), "{reply}");
        assert_eq!((&message["data"], &message["redelivered"]), (&json!(0), &json!(true)), "{message}");
        assert_ne!(message["delivery_tag"], tag);
        stale(&mut client, &tag).await;
        let drop_it = json!({ "op": "nack", "delivery_tag": message["delivery_tag"], "requeue": false });
        assert_eq!(client.ask(drop_it).await["op"], "ok");
        drop(client);
        scene.until_left().await;
        assert_eq!(scene.ready().await, 0, "{broker:?}");
        assert_eq!((scene.settled("requeued").await, scene.settled("discarded").await), (1.0, 1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_holds_no_more_than_it_asked_for() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..10).await;
        let mut client = scene.client(2).await;
        let first = delivery(&mut client, 0, false).await;
        delivery(&mut client, 1, false).await;
        scene.until_ready(8).await;
        assert_eq!(scene.program.metric("passerelle_held_deliveries").await, Some(2.0));
        acked(&mut client, &first).await;
        delivery(&mut client, 2, false).await;
        scene.until_ready(7).await;
    }
}

/// A close frame, a cut, a peer that gives no sign of life: whatever was held goes back at once and in order, and the next
/// one is told that it was handed out before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_goes_back_in_order_however_the_socket_ends() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[("PASSERELLE_SERVER__HEARTBEAT", "1s")]).await;
        scene.fill(0..5).await;
        for (round, way) in ["frame", "cut", "silence"].into_iter().enumerate() {
            let mut client = scene.client(5).await;
            deliveries(&mut client, 0..5, round > 0).await;
            // Its pings are answered meanwhile.
            let ready = tokio::select! {
                ready = scene.ready() => ready,
                message = client.message() => panic!("nothing is left to come: {message}"),
            };
            assert_eq!(ready, 0);
            let mut silent = None;
            match way {
                "frame" => client.send(Message::Close(None)).await,
                "cut" => drop(client),
                _ => silent = Some(client.split()),
            }
            scene.until_ready(5).await;
            drop(silent);
        }
        scene.until_left().await;
        assert_eq!(scene.settled("returned").await, 15.0, "{broker:?}");
        let mut next = scene.client(5).await;
        for tag in deliveries(&mut next, 0..5, true).await {
            acked(&mut next, &tag).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_settles_what_another_holds() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut holder = scene.client(1).await;
        let tag = delivery(&mut holder, 0, false).await;
        let mut other = scene.client(1).await;
        stale(&mut other, &tag).await;
        for nonsense in ["", "0.0", "ffffffffffffffff.ffffffffffffffff", "1"] {
            stale(&mut other, &json!(nonsense)).await;
        }
        acked(&mut holder, &tag).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sessions_share_a_queue_and_each_message_has_one_of_them() {
    const SESSIONS: usize = 100;
    const MESSAGES: usize = 500;
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        let (news, mut heard) = tokio::sync::mpsc::channel(MESSAGES);
        let mut sessions = tokio::task::JoinSet::new();
        for _ in 0..SESSIONS {
            let (mut client, news) = (scene.client(2).await, news.clone());
            sessions.spawn(async move {
                loop {
                    let object = client.news().await;
                    if object["op"] == "message" {
                        assert_eq!(object.get("redelivered"), None, "{object}");
                        let ack = json!({ "op": "ack", "id": 1, "delivery_tag": object["delivery_tag"] });
                        client.send(Message::text(ack.to_string())).await;
                        news.send(object["data"].as_u64().expect("a number")).await.expect("somebody listens");
                    } else {
                        assert_eq!(object["op"], "ok", "{object}");
                    }
                }
            });
        }
        scene.fill(0..MESSAGES as u32).await;
        let mut seen = BTreeSet::new();
        while seen.len() < MESSAGES {
            let number = tokio::time::timeout(crate::program::PATIENCE, heard.recv()).await.expect("in time");
            assert!(seen.insert(number.expect("a session")), "none has two holders");
        }
        until("all is settled", async || scene.settled("acknowledged").await == MESSAGES as f64).await;
        sessions.shutdown().await;
        scene.until_left().await;
        assert_eq!((scene.ready().await, scene.settled("returned").await), (0, 0.0), "{broker:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_for_too_long_goes_back() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[("PASSERELLE_CONSUME__WORK__HOLD_MAX", "1s")]).await;
        scene.fill(0..2).await;
        let mut slow = scene.client(1).await;
        let tag = delivery(&mut slow, 0, false).await;
        assert_eq!(slow.news().await, json!({ "op": "revoked", "delivery_tags": [tag] }));
        stale_between_messages(&mut slow, &tag).await;
        assert!(scene.settled("expired").await >= 1.0, "{broker:?}");
    }
}

/// As [`stale`], where messages may come before the answer.
async fn stale_between_messages(client: &mut Client, tag: &Value) {
    client.send(Message::text(json!({ "op": "ack", "id": "late", "delivery_tag": tag }).to_string())).await;
    loop {
        let object = client.news().await;
        if object["id"] == "late" {
            return assert_eq!(object["code"], "stale_tag", "{object}");
        }
        assert!(object["op"] == "revoked" || object["delivery_tag"] != *tag, "{object}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cancel_nothing_comes_and_what_is_held_can_be_settled() {
    for broker in Broker::BOTH {
        let scene = Scene::new(broker, &[]).await;
        scene.fill(0..1).await;
        let mut client = scene.client(5).await;
        let tag = delivery(&mut client, 0, false).await;
        let reply = client.ask(json!({ "op": "cancel", "queue": scene.queue })).await;
        assert_eq!(reply["op"], "ok", "{reply}");
        scene.fill(1..4).await;
        scene.until_ready(3).await;
        // The very next thing that comes is the answer.
        acked(&mut client, &tag).await;
        scene.until_left().await;
        let mut next = scene.client(3).await;
        deliveries(&mut next, 1..4, false).await;
    }
}

/// What a client may hold does not count against the room for answers: it is ended neither for that nor for its pings.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_all_that_it_may_hold() {
    const MESSAGES: u32 = 40;
    let scene = Scene::new(Broker::Embedded, &[("PASSERELLE_LIMITS__OUTBOX_BYTES_MAX", "64 KiB")]).await;
    let mut client = scene.client(MESSAGES as u16).await;
    let text = "x".repeat(500_000);
    for number in 0..MESSAGES {
        put(&scene.service, &scene.queue, format!("[{number},\"{text}\"]").as_bytes()).await;
    }
    let handed_out = "passerelle_deliveries_total{protocol=\"passerelle.v1.json\"}";
    let all = Some(f64::from(MESSAGES));
    until("all is handed out", async || scene.program.metric(handed_out).await == all).await;
    let waits = "passerelle_outbox_bytes";
    until("much waits", async || scene.program.metric(waits).await.is_some_and(|bytes| bytes > 1e6)).await;
    client.send(Message::text(json!({ "op": "ping", "id": "p" }).to_string())).await;
    for number in 0..MESSAGES {
        let message = client.news().await;
        assert_eq!(message["data"][0], number, "{}", message["op"]);
    }
    assert_eq!(client.news().await["op"], "pong");
}
