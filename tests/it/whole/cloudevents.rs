//! CloudEvents between a service at the broker and WebSocket clients, both ways.

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Service};
use super::{Broker, word};

/// A client that speaks CloudEvents.
async fn connect(program: &crate::program::Program, query: &str) -> Client {
    let protocol = [("sec-websocket-protocol", "cloudevents.json")];
    Client::open(program, &format!("/ws?{query}"), &protocol).await.expect("a handshake")
}

/// The next event that is not of passerelle's own.
async fn event(client: &mut Client) -> Value {
    loop {
        let event = client.object().await;
        if !event["type"].as_str().expect("a type").starts_with("passerelle.") {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_down_and_go_up_and_go_on_where_they_were() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[("PASSERELLE_CLOUDEVENTS__TYPE", "com.example.{topic}")]).await;
        let word = word();
        let query = format!("pattern={word}.%23");
        let mut client = connect(&program, &query).await;
        assert_eq!(client.object().await["type"], "passerelle.subscribed");
        let service = Service::connect(&program.amqp).await;

        service.publish(&format!("{word}.plain"), "{\"n\":1}").await;
        let plain = event(&mut client).await;
        let kind = format!("com.example.{word}.plain");
        assert_eq!(
            (&plain["type"], &plain["source"], &plain["data"]["n"]),
            (&json!(kind), &json!("/events"), &json!(1))
        );

        let mut headers = FieldTable::default();
        for (name, value) in [("specversion", "1.0"), ("id", "7"), ("source", "/shop"), ("type", "t")] {
            headers.insert(format!("cloudEvents:{name}").into(), AMQPValue::LongString(value.into()));
        }
        service.publish_with(&format!("{word}.binary"), "hello", headers).await;
        let binary = event(&mut client).await;
        assert_eq!((&binary["id"], &binary["data"]), (&json!("7"), &json!("hello")), "{broker:?}: {binary}");

        let body = json!({ "specversion": "1.0", "id": "8", "source": "/shop", "type": "t", "data": [1] });
        let properties = BasicProperties::default().with_content_type("application/cloudevents+json".into());
        let topic = format!("{word}.structured");
        let (options, bytes) = (BasicPublishOptions::default(), body.to_string());
        let publish = service.channel.basic_publish(
            "amq.topic".into(),
            topic.as_str().into(),
            options,
            bytes.as_bytes(),
            properties,
        );
        publish.await.expect("a publish");
        let mut structured = event(&mut client).await;
        let cursor = structured.as_object_mut().expect("an object").remove("cursor");
        assert_eq!((&structured, cursor.is_some_and(|cursor| cursor.is_string())), (&body, true));

        let mut again = connect(&program, &format!("{query}&after={}", binary["cursor"].as_str().unwrap())).await;
        assert_eq!(event(&mut again).await["id"], "8");

        let mut sent = json!({
            "specversion": "1.0", "id": "A-1", "source": "/page", "type": "clicked", "subject": format!("{word}.up"),
            "vip": true, "n": 7, "datacontenttype": "application/json", "data": { "x": 1.5 },
        });
        client.send(Message::text(sent.to_string())).await;
        for client in [&mut client, &mut again] {
            let mut received = event(client).await;
            received.as_object_mut().expect("an object").remove("cursor");
            assert_eq!(received, sent, "{broker:?}");
        }
        sent["subject"] = Value::Null;
        client.send(Message::text(sent.to_string())).await;
        let (code, reason) = client.closed().await;
        assert_eq!((code, reason.starts_with("this event goes nowhere")), (1008, true), "{reason}");
    }
}
