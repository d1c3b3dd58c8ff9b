//! A broker that dies and comes back: sessions stay, are told, and miss nothing in silence.

use std::collections::BTreeSet;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Service};
use crate::program::Program;
use crate::rabbit::Rabbit;

/// Killed and restarted under load: `outage`, `restored` and one `gap` for what was lost, then messages again.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_broker_that_is_killed() {
    let rabbit = Rabbit::start();
    let program = Program::start(Some(&rabbit.url()), &[("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true")]);
    program.ready().await;
    let mut client = Client::json(&program).await;
    client.subscribe("load.#").await;
    let service = Service::connect(&program.amqp).await;
    for number in 0..500 {
        service.publish("load.a", &number.to_string()).await;
    }
    for number in 0..500 {
        assert_eq!(client.news().await["data"], number);
    }
    rabbit.kill();
    drop(service);
    assert_eq!(client.news().await, json!({ "op": "outage", "source": "events" }));
    let reply = client.ask(json!({ "op": "publish", "topic": "load.b", "data": 1 })).await;
    assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("unavailable")), "{reply}");
    rabbit.run();
    assert_eq!(client.news().await, json!({ "op": "restored", "source": "events" }));
    let gap = client.news().await;
    assert_eq!(
        (&gap["op"], &gap["reason"], &gap["pattern"]),
        (&json!("gap"), &json!("outage"), &json!("load.#")),
        "{gap}"
    );
    program.ready().await;
    let service = Service::connect(&program.amqp).await;
    for number in 0..500 {
        service.publish("load.a", &number.to_string()).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 500 {
        let message = client.news().await;
        assert_eq!(message["op"], "message", "no gap but the one");
        assert!(seen.insert(message["data"].as_u64().unwrap()), "none twice");
    }
}

/// Without a broker it starts all the same, says what is wrong once, and subscriptions stand when it is there.
#[tokio::test(flavor = "multi_thread")]
async fn it_starts_before_its_broker() {
    let rabbit = Rabbit::start();
    rabbit.stop();
    let program = Program::start(Some(&rabbit.url()), &[]);
    assert!(program.get("/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(program.get("/livez").await.starts_with("HTTP/1.1 200"));
    let mut client = Client::json(&program).await;
    client.send(Message::text(json!({ "op": "subscribe", "id": 1, "pattern": "a" }).to_string())).await;
    assert_eq!(client.news().await["op"], "outage");
    rabbit.run();
    program.ready().await;
    let mut told = [client.news().await, client.news().await].map(|news| news["op"].to_string());
    told.sort();
    assert_eq!(told, ["\"restored\"", "\"subscribed\""]);
    Service::connect(&program.amqp).await.publish("a", "1").await;
    assert_eq!(client.news().await["data"], 1);
}
