//! A broker that dies while messages are held, one that is not there yet, and a server that stops.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{Scene, acked, declare, deliveries, delivery, put, stale};
use crate::program::{Program, until};
use crate::rabbit::Rabbit;
use crate::whole::client::{Client, Service};
use crate::whole::{Broker, word};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_when_the_server_stops_goes_back() {
    let mut scene = Scene::new(Broker::Rabbit, &[]).await;
    scene.fill(0..3).await;
    let mut client = scene.client(3).await;
    deliveries(&mut client, 0..3, false).await;
    scene.program.terminate();
    assert_eq!(client.news().await["op"], "goodbye");
    assert_eq!(client.closed().await.0, 1001);
    assert!(scene.program.ended().await.success());
    scene.until_ready(3).await;
}

/// Killed while messages are held: they are revoked, their tags are stale, and all come again by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_when_the_broker_is_killed_comes_again() {
    const MESSAGES: u32 = 20;
    let (rabbit, queue) = (Rabbit::start(), word());
    let environment =
        [("PASSERELLE_CONSUME__WORK__QUEUE", queue.as_str()), ("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true")];
    let program = Program::start(Some(&rabbit.url()), &environment);
    program.ready().await;
    let service = Service::connect(&program.amqp).await;
    let options = lapin::options::ConfirmSelectOptions::default();
    service.channel.confirm_select(options).await.unwrap();
    declare(&service, &queue).await;
    for number in 0..MESSAGES {
        put(&service, &queue, number.to_string().as_bytes()).await;
    }
    service.channel.wait_for_confirms().await.unwrap();
    let scene = Scene { program, service, queue };
    let mut client = scene.client(MESSAGES as u16).await;
    let tags = deliveries(&mut client, 0..MESSAGES, false).await;
    rabbit.kill();
    assert_eq!(client.news().await, json!({ "op": "outage", "source": scene.queue }));
    assert_eq!(client.news().await, json!({ "op": "revoked", "delivery_tags": tags }));
    stale(&mut client, &tags[0]).await;
    rabbit.run();
    assert_eq!(client.news().await, json!({ "op": "restored", "source": scene.queue }));
    let again = deliveries(&mut client, 0..MESSAGES, true).await;
    for (old, new) in tags.iter().zip(&again) {
        stale(&mut client, old).await;
        acked(&mut client, new).await;
    }
    assert_eq!(scene.settled("lost").await, f64::from(MESSAGES));
    drop(client);
    scene.until_left().await;
    let empty = format!("{}\t0", scene.queue);
    until("RabbitMQ has none of it", async || {
        rabbit.ctl(&["list_queues", "name", "messages"]).lines().any(|line| line == empty)
    })
    .await;
}

/// A page that consumes before there is a broker waits, is told so, and gets what comes.
#[tokio::test(flavor = "multi_thread")]
async fn who_consumes_before_the_broker_is_there_waits_for_it() {
    let (rabbit, queue) = (Rabbit::start(), word());
    rabbit.stop();
    let environment = [
        ("PASSERELLE_CONSUME__WORK__QUEUE", queue.as_str()),
        ("PASSERELLE_CONSUME__WORK__DECLARE", "true"),
        ("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true"),
    ];
    let program = Program::start(Some(&rabbit.url()), &environment);
    let mut client = Client::json(&program).await;
    client.send(Message::text(json!({ "op": "consume", "id": 7, "queue": queue }).to_string())).await;
    assert_eq!(client.news().await, json!({ "op": "outage", "source": queue }));
    rabbit.run();
    assert_eq!(client.news().await, json!({ "op": "restored", "source": queue }));
    assert_eq!(client.news().await, json!({ "op": "ok", "id": 7 }));
    put(&Service::connect(&program.amqp).await, &queue, b"1").await;
    let tag = delivery(&mut client, 1, false).await;
    acked(&mut client, &tag).await;
    assert!(client.is_quiet_for(Duration::from_millis(100)).await);
}
